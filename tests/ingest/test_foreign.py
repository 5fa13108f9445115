"""Captures of other tools: same lines as ours, unit and kind decided once, clear refusals."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from mpengine import config, venues
from mpengine.ingest.capture_file import (
    CaptureDamaged,
    CaptureFile,
    CaptureHeader,
    CaptureLine,
    NotACapture,
    encode_line,
    pack_frame,
)
from mpengine.ingest.foreign import TimeUnit, open_capture, read_cryptofeed, read_hftbacktest
from mpengine.venues.base import RestCall
from shm.records import Venue, decode

DEPTH = b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate"}}'
TRADE = b'{"stream":"btcusdt@trade","data":{"e":"trade"}}'
REST = b'{"lastUpdateId": 27, "bids": []}'


def gz(path: Path, *lines: bytes) -> Path:
    path.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    return path


def feed(path: Path, *rows: dict[str, object]) -> Path:
    header: dict[str, object] = {"t": "header", "format": 2, "exchange": "BYBIT"}
    text = "\n".join(json.dumps(row, separators=(",", ":")) for row in (header, *rows))
    path.write_bytes(zstandard.compress(text.encode()))
    return path


def test_hftbacktest_lines_become_ours(tmp_path: Path) -> None:
    path = gz(
        tmp_path / "a",
        b"1680652700423575 " + DEPTH,
        b"1680652700423576 " + TRADE,
        b"1680652700599351 " + REST,
        b"1680652700599352 " + TRADE,
    )
    assert list(open_capture(path)) == [
        CaptureLine(1680652700423575000, "binance", "public#1", "open", b""),
        CaptureLine(1680652700423575000, "binance", "public#1", "in", DEPTH),
        CaptureLine(1680652700423576000, "binance", "market#1", "open", b""),
        CaptureLine(1680652700423576000, "binance", "market#1", "in", TRADE),
        CaptureLine(1680652700599351000, "binance", "rest", "rest", REST, "depth", "BTC", 200),
        CaptureLine(1680652700599352000, "binance", "market#1", "in", TRADE),
    ]


def test_nanoseconds_are_told_by_their_digits_or_by_the_caller(tmp_path: Path) -> None:
    path = gz(tmp_path / "a", b"1721347200395884595 " + TRADE)
    assert [line.recv_ns for line in read_hftbacktest(path)] == [1721347200395884595] * 2
    path = gz(tmp_path / "b", b"17213472003 " + TRADE)
    assert [line.recv_ns for line in read_hftbacktest(path, unit="us")] == [17213472003000] * 2


@pytest.mark.covers("E-M8")
@pytest.mark.parametrize("stamp", [b"1721347200", b"1721347200395", b"17213472003958845"])
def test_a_time_of_unknown_unit_is_refused(tmp_path: Path, stamp: bytes) -> None:
    with pytest.raises(NotACapture, match=f"{len(stamp)} digits"):
        open_capture(gz(tmp_path / "a", stamp + b" " + TRADE))


@pytest.mark.covers("E-M8")
@pytest.mark.parametrize("unit", [None, "us"])
def test_a_unit_that_changes_inside_a_file_is_damage(tmp_path: Path, unit: TimeUnit | None) -> None:
    path = gz(tmp_path / "a", b"1680652700423575 " + TRADE, b"1721347200395884595 " + TRADE)
    with pytest.raises(CaptureDamaged, match="line 2 is not"):
        list(read_hftbacktest(path, unit))


def test_a_rest_line_needs_a_symbol(tmp_path: Path) -> None:
    path = gz(tmp_path / "a", b"1680652700423575 " + REST)
    with pytest.raises(CaptureDamaged, match="say its symbol"):
        list(read_hftbacktest(path))
    assert [line.symbol for line in read_hftbacktest(path, symbol="ETH")] == ["ETH"]


def test_a_cut_gzip_file_is_damage_after_its_lines(tmp_path: Path) -> None:
    path = gz(tmp_path / "a", *[b"%d " % (1680652700423575 + n) + TRADE for n in range(2000)])
    path.write_bytes(path.read_bytes()[:-20])
    lines = read_hftbacktest(path)
    assert next(lines).direction == "open"
    with pytest.raises(CaptureDamaged, match="cut or garbled"):
        list(lines)


def test_cryptofeed_connections_are_merged_by_time_and_markets_kept_apart(tmp_path: Path) -> None:
    linear, spot = "wss://stream.bybit.com/v5/public/linear", "wss://stream.bybit.com/v5/public/spot"
    path = feed(
        tmp_path / "a",
        {
            "t": "http",
            "conn": "BYBIT.http.1",
            "ts": 1.000000001,
            "url": "https://h/v5/market/instruments-info?&category=linear&x=1/2",
            "data": "{}",
        },
        {"t": "http", "conn": "BYBIT.http.1", "ts": 2, "url": "https://h/v5/market/instruments-info?category=spot", "data": "s"},
        {"t": "http", "conn": "BYBIT.http.1", "ts": 3, "url": "https://h/v5/market/open-interest?symbol=SOLUSDT", "data": "o"},
        {"t": "http", "conn": "BYBIT.http.1", "ts": 4, "url": "https://h/v5/market/kline", "data": "k"},
        {"t": "connect", "conn": "BYBIT.ws.2", "ts": 1786310818.2235148, "addr": linear},
        {"t": "send", "conn": "BYBIT.ws.2", "ts": 1786310819.25, "addr": linear, "data": "sub"},
        {"t": "recv", "conn": "BYBIT.ws.2", "ts": 1786310820.5, "data": '{"a":1}'},
        {"t": "connect", "conn": "BYBIT.ws.3", "ts": 1786310818.5, "addr": spot},
        {"t": "recv", "conn": "BYBIT.ws.3", "ts": 1786310819.26, "data": "b"},
    )
    assert list(open_capture(path)) == [
        CaptureLine(1000000001, "bybit", "rest", "rest", b"{}", "instruments", None, 200),
        CaptureLine(2000000000, "bybit_spot", "rest", "rest", b"s", "instruments", None, 200),
        CaptureLine(3000000000, "bybit", "rest", "rest", b"o", "open_interest", "SOL", 200),
        CaptureLine(4000000000, "bybit", "rest", "rest", b"k", "kline", None, 200),
        CaptureLine(1786310818223514800, "bybit", "linear#2", "open", linear.encode()),
        CaptureLine(1786310818500000000, "bybit_spot", "spot#3", "open", spot.encode()),
        CaptureLine(1786310819250000000, "bybit", "linear#2", "out", b"sub"),
        CaptureLine(1786310819260000000, "bybit_spot", "spot#3", "in", b"b"),
        CaptureLine(1786310820500000000, "bybit", "linear#2", "in", b'{"a":1}'),
    ]


def test_an_unknown_line_of_cryptofeed_is_damage(tmp_path: Path) -> None:
    with pytest.raises(CaptureDamaged, match="unknown kind"):
        list(read_cryptofeed(feed(tmp_path / "a", {"t": "what", "conn": "c", "ts": 1})))
    with pytest.raises(CaptureDamaged, match="line 2"):
        list(read_cryptofeed(feed(tmp_path / "b", {"t": 7})))
    with pytest.raises(CaptureDamaged, match="more than 64 connections"):
        list(read_cryptofeed(feed(tmp_path / "c", *[{"t": "recv", "conn": f"c.{n}", "ts": 1} for n in range(65)])))


def test_our_own_kind_is_opened_too(tmp_path: Path) -> None:
    file = CaptureFile(tmp_path / "a", CaptureHeader(created_ns=1, instance="i", symbols={}, config_hash=""))
    line = CaptureLine(1, "okx", "public#1", "in", b"pong")
    file.append(pack_frame(encode_line(line)))
    file.close()
    assert list(open_capture(tmp_path / "a")) == [line]


@pytest.mark.parametrize(
    "content",
    [b"", b"plain text", b"\x28\xb5\x2f\xfd garbled", gzip.compress(b"not stamped\n", mtime=0), gzip.compress(b"", mtime=0)],
)
def test_anything_else_is_a_typed_error_at_once(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(NotACapture):
        open_capture(tmp_path / "a")


def test_a_recording_of_cryptofeed_in_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(zstandard.compress(b'{"t":"header","format":3,"exchange":"X"}\n'))
    with pytest.raises(NotACapture, match="format 2"):
        open_capture(tmp_path / "a")


@pytest.mark.captures
@pytest.mark.parametrize(
    ("name", "venue", "lines"),
    [
        ("binance_usdm_btcusdt_20230404.gz", "binance", 13384),
        ("binance_usdm_btcusdt_20230405.gz", "binance", 60381),
        ("binance_usdm_ethusdt_20240719.gz", "binance", 55910),
        ("bybit_linear_20260809.jsonl.zst", "bybit", 2546 + 17 + 1),
    ],
)
def test_the_real_recordings_are_read_whole_and_in_order(captures: Path, name: str, venue: str, lines: int) -> None:
    last, count = 0, 0
    for line in open_capture(captures / name):
        assert line.recv_ns >= last
        last = line.recv_ns
        count += line.venue == venue and line.direction != "open"
    assert count == lines
    assert 1_680_000_000 < last / 1e9 < 1_800_000_000


def test_replies_of_foreign_captures_are_known_to_the_module_or_counted_by_it(tmp_path: Path) -> None:
    """What replay does with them: the module gets the names that it would ask by, and counts the others."""
    settings = config.load("[symbols.SOL]\n", {})
    [module] = [one for one in venues.build(settings) if one.venue is Venue.BYBIT]
    known = {call.name for call in module.polls()}
    body = '{"retCode":0,"result":{"symbol":"SOLUSDT","list":[{"singleOpenInterest":"7.5","timestamp":"1786310818000"}]}}'
    host = "https://h/v5/market"
    path = feed(
        tmp_path / "a",
        {"t": "http", "conn": "BYBIT.http.1", "ts": 1, "url": f"{host}/open-interest?symbol=SOLUSDT", "data": body},
        {"t": "http", "conn": "BYBIT.http.1", "ts": 2, "url": f"{host}/instruments-info?category=linear", "data": "{}"},
        {"t": "http", "conn": "BYBIT.http.1", "ts": 3, "url": f"{host}/kline", "data": '{"result":{}}'},
    )
    lines = list(open_capture(path))
    assert {line.call for line in lines} - known == {"kline"}
    for line in lines:
        module.receive_rest(RestCall(line.call or "", line.symbol, "", 0), 200, line.payload, line.recv_ns)
    [routed] = module.events()
    assert (routed.symbol, next(decode(routed.data)).fields["qty"]) == ("SOL", 7.5)
    assert module.counters.reasons["unknown_call"] == 1
