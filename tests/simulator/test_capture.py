"""Captures as something to serve: one ascending order, verbatim or stamped messages, matched by symbol and family."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from mpengine.ingest.capture_file import CaptureLine, NotACapture
from mpengine.ingest.merge import Key, stamp_of
from mpengine.simulator.capture import Recorded, clock, contents, family_key, message_of, read, stream_of, topic_of
from tests.simulator.captures import BASE_NS, bybit, line, topical, write

DIFF = b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","u":1}}'


@pytest.mark.parametrize(
    ("route", "stream", "key"),
    [
        ("public", "btcusdt@depth@100ms", "public/btcusdt@depth"),
        ("public", "btcusdt@depth", "public/btcusdt@depth"),
        ("public", "btcusdt@depth20@100ms", "public/btcusdt@depth20"),
        ("market", "btcusdt@markPrice@1s", "market/btcusdt@markPrice"),
        ("market", "!forceOrder@arr", "market/@!forceOrder"),
        ("market", "btcusdt@depth", None),
        ("public", "btcusdt@trade", None),
        ("public", "nonsense", None),
    ],
)
def test_subscriptions_match_by_route_symbol_and_family(route: str, stream: str, key: str | None) -> None:
    assert family_key(route, stream) == key


def test_messages_go_out_verbatim_without_stamps() -> None:
    found = message_of(Recorded(5, 1, line(0, DIFF)), stamps=False)
    assert found is not None
    key, message = found
    assert key == "public/btcusdt@depth"
    assert message.text(True) == DIFF and message.text(False) == b'{"e":"depthUpdate","u":1}'
    assert message.stream == "btcusdt@depth@0ms"


def test_stamps_stand_in_front_of_the_data_and_are_what_ingest_reads() -> None:
    found = message_of(Recorded(1_700_000_000_000_000_123, 42, line(0, DIFF)), stamps=True)
    assert found is not None
    text = found[1].text(True)
    assert list(json.loads(text)) == ["stream", "recv_ns", "line", "data"]
    stamp = stamp_of(text)
    assert stamp is not None
    assert (stamp.key, stamp.clock) == (Key(1_700_000_000_000_000_123, 42), False)


@pytest.mark.parametrize(
    "payload", [b'{"result":null,"id":1}', b'{"stream":"x@y","data":{}}', b'{"stream":"btcusdt@trade"}', b"", b'{"stream":"']
)
def test_what_is_no_known_streams_message_is_not_served(payload: bytes) -> None:
    assert message_of(Recorded(1, 1, line(0, payload)), stamps=True) is None


@pytest.mark.parametrize("direction", ["out", "open", "lost", "rest", "gap"])
def test_only_received_messages_are_served(direction: str) -> None:
    one = CaptureLine(1, "binance", "public#1", direction, DIFF)  # type: ignore[arg-type]
    assert message_of(Recorded(1, 1, one), stamps=False) is None


def test_stream_names_are_found_without_parsing() -> None:
    assert stream_of(DIFF) == "btcusdt@depth@0ms"
    assert stream_of(b'{"id":1}') is None


def test_messages_of_bybit_go_to_their_very_topic_and_carry_stamps_at_their_head() -> None:
    text = topical("orderbook.200.BTCUSDT", 7)
    plain, stamped = (message_of(Recorded(1_700_000_000_000_000_123, 42, bybit(0, text)), stamps=on) for on in (False, True))
    assert plain is not None and stamped is not None
    assert plain[0] == stamped[0] == "linear/orderbook.200.BTCUSDT"
    assert plain[1].stream == "orderbook.200.BTCUSDT" and plain[1].text(False) == text
    stamp = stamp_of(stamped[1].text(False))
    assert stamp is not None and (stamp.key, stamp.clock) == (Key(1_700_000_000_000_000_123, 42), False)
    told = json.loads(stamped[1].text(False))
    assert list(told)[:2] == ["recv_ns", "line"] and {name: told[name] for name in list(told)[2:]} == json.loads(text)


@pytest.mark.parametrize(
    "payload",
    [b'{"success":true,"ret_msg":"pong","conn_id":"x","op":"ping"}', topical("kline.1.BTCUSDT", 1), topical("nonsense", 1), b"",
     b'{"topic":"', DIFF],
)  # fmt: skip
def test_of_bybit_only_messages_of_known_topics_are_served(payload: bytes) -> None:
    assert message_of(Recorded(1, 1, bybit(0, payload)), stamps=True) is None


def test_other_markets_and_venues_are_passed_over() -> None:
    text = topical("orderbook.200.BTCUSDT", 1)
    for venue in ("bybit_spot", "okx", "binance"):
        assert message_of(Recorded(1, 1, CaptureLine(1, venue, "linear#1", "in", text)), stamps=False) is None
    assert topic_of(b'{"stream":"btcusdt@trade"}') is None


def test_clocks_are_what_ingest_reads() -> None:
    for end in (False, True):
        stamp = stamp_of(clock(77, 3, end=end))
        assert stamp is not None
        assert (stamp.key, stamp.clock, stamp.end) == (Key(77, 3), True, end)


def test_lines_ascend_over_all_files_and_times_never_step_back(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    write(one, [line(0, DIFF), line(30, DIFF), line(10, DIFF)])
    write(two, [line(20, DIFF), line(40, DIFF)])
    found = [(recorded.recv_ns - BASE_NS, recorded.number) for recorded in read([one, two])]
    assert found == [(0, 1), (30, 2), (30, 3), (30, 4), (40, 5)]


def test_a_damaged_file_ends_the_playback_where_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "bad.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"1680652700423575 " + DIFF + b"\n" + b"garbage\n")
    assert [recorded.line.direction for recorded in read([path])] == ["open", "in"]


def test_a_capture_says_which_routes_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "1"
    write(path, [line(5, DIFF), line(6, b'{"stream":"btcusdt@trade","data":{}}', "market#1")])
    found = contents([path])
    assert (found.routes, found.first_ns) == ({"binance": frozenset({"public", "market"})}, BASE_NS + 5)


def test_a_capture_says_which_venues_it_has_also_where_they_say_nothing(tmp_path: Path) -> None:
    quiet = [line(5, DIFF), bybit(6, b"wss://x", "open"), CaptureLine(BASE_NS + 7, "okx", "public#1", "in", b"pong")]
    found = contents([write(tmp_path / "1", quiet)])
    assert (found.routes, found.venues) == ({"binance": frozenset({"public"})}, frozenset({"binance", "bybit"}))
    loud = [*quiet, bybit(8, topical("allLiquidation.BTCUSDT", 1))]
    assert contents([write(tmp_path / "2", loud)]).routes["bybit"] == frozenset({"linear"})


def test_captures_that_cannot_be_served_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "1"
    write(path, [line(5, b'{"result":null,"id":1}')])
    with pytest.raises(ValueError, match="no messages"):
        contents([path])
    path.write_bytes(b"hello")
    with pytest.raises(NotACapture):
        contents([path])
    with pytest.raises(OSError):
        contents([tmp_path / "none"])
