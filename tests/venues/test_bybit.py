"""Bybit mapper: wire cases as data, deltas against a plain oracle, bad input is counted and never raised."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine import venues
from mpengine.config import load
from mpengine.venues import bybit as mapper
from mpengine.venues.base import HANDSHAKE, ConnectLimit, RestCall, RestResult, SocketPlan
from mpengine.venues.bybit import Bybit
from shm.records import Decoded, EventFlag, GapScope, Kind, PositionSide, Venue, decode

WIRE = Path(__file__).resolve().parents[1] / "wire" / "bybit"
CASES = sorted(path for path in WIRE.rglob("*.json") if not path.name.endswith(".expect.json"))
EVERYTHING = ("venues.bybit.order_book=true", "venues.bybit.trades=true", "venues.bybit.tickers=true")
BOOK = "orderbook.1000.BTCUSDT"


def bybit(text: str = "", *overrides: str) -> Bybit:
    (module,) = (one for one in venues.build(load(text, {}, [*EVERYTHING, *overrides])) if isinstance(one, Bybit))
    return module


def decoded(module: Bybit) -> list[tuple[str, Decoded]]:
    return [(routed.symbol, record) for routed in module.events() for record in decode(routed.data)]


def flat(symbol: str, record: Decoded) -> dict[str, Any]:
    return {"symbol": symbol, **record.fields, "kind": record.kind.name, "bid_levels": [list(level) for level in record.bids],
            "ask_levels": [list(level) for level in record.asks]}  # fmt: skip


def differences(path: Path) -> list[str]:
    """What a wire case yields other than what it expects; one message per line, all on one connection."""
    wanted = json.loads(path.with_name(f"{path.stem}.expect.json").read_text(encoding="utf-8"))
    module = bybit()
    for payload in path.read_bytes().splitlines():
        if path.parent.name == "rest":
            module.receive_rest(RestCall(wanted["call"], wanted["for_symbol"], "", 1), 200, payload, 7)
        else:
            module.receive("linear#1", payload, 7)
    found = [flat(symbol, record) for symbol, record in decoded(module)]
    wrong = [] if len(found) == len(wanted["expect"]) else [f"{len(found)} records"]
    for got, expect in zip(found, wanted["expect"]):
        expect |= {"recv_ts_ns": 7, "venue": Venue.BYBIT}
        wrong += [f"{key}: {got[key]}, expected {value}" for key, value in expect.items() if got[key] != value]
    reasons = wanted.get("refused", [])
    if sorted(module.counters.reasons) != sorted([reasons] if isinstance(reasons, str) else reasons):
        wrong.append(f"reasons {module.counters.reasons}")
    return wrong


@pytest.mark.covers("A1-L20", "A2-L3", "R-L2")
@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_wire_case(path: Path) -> None:
    assert differences(path) == []


def test_every_wire_case_has_its_expectation_and_no_expectation_is_orphaned() -> None:
    expected = {path.with_name(path.name.replace(".expect.json", ".json")) for path in WIRE.rglob("*.expect.json")}
    assert expected == set(CASES) and len(CASES) > 80


@pytest.mark.covers("A1-L20")
@pytest.mark.parametrize("table", ["SIDES", "TAKERS"])
def test_a_flipped_side_table_fails_wire_cases(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    right = getattr(mapper, table)
    monkeypatch.setattr(mapper, table, {"Buy": right["Sell"], "Sell": right["Buy"]})
    wrong = {path.stem for path in CASES if any(text.startswith("side:") for text in differences(path))}
    rows = {"SIDES": {"side_buy_is_a_long", "side_sell_is_a_short"}, "TAKERS": {"taker_buy", "taker_sell"}}
    assert rows[table] <= wrong


# book ------------------------------------------------------------------------------------------------------------------


def book(kind: str, update: Any, bids: Any, asks: Any, *, topic: str = BOOK) -> bytes:
    data = {"s": topic.rpartition(".")[2], "b": bids, "a": asks, "u": update, "seq": 7}
    return json.dumps({"topic": topic, "type": kind, "ts": 1786310818130, "data": data, "cts": 1786310818129}).encode()


def snapshot(update: int = 10, *, topic: str = BOOK) -> bytes:
    return book("snapshot", update, [["99", "1"]], [["101", "1"]], topic=topic)


def delta(update: int, *, topic: str = BOOK) -> bytes:
    return book("delta", update, [["98", "1"]], [], topic=topic)


def book_records(module: Bybit) -> list[tuple[Kind, int, int]]:
    return [(one.kind, one.fields["prev_seq"], one.fields["seq"]) for _, one in decoded(module)]


_digits = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,4})?", fullmatch=True)
_odd: st.SearchStrategy[Any] = st.sampled_from(
    ["", "-1", "-0", "1e3", "NaN", "1.2.3", "00.5", ".5", "5.", "abc", "9" * 400, "1e308", "0", "Infinity", 5, 0.25, -3, True, None,
     [], ["1"], {}]
)  # fmt: skip
_number = st.one_of(_digits, _digits, _digits, _digits, _odd)
_level = st.one_of(
    st.tuples(_number, _number).map(list),
    st.tuples(_digits, _digits).map(list),
    st.sampled_from([["1"], ["1", "2", "3"], [], "12", 5]),
)
_side = st.lists(_level, max_size=5)


def plain(rows: Any) -> list[tuple[float, float]]:
    """The obvious reading of a list of levels, told apart from the module's. Raises ValueError."""
    levels = []
    for row in rows:
        if not isinstance(row, list) or len(row) != 2:
            raise ValueError(row)
        for value in row:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError(value)
            if not (math.isfinite(float(value)) and float(value) >= 0):
                raise ValueError(value)
        levels.append((float(row[0]), float(row[1])))
    return levels


@settings(max_examples=500)
@given(_side, _side, st.integers(2, 2**62))
def test_a_delta_comes_out_as_it_reads_or_not_at_all(bids: list[Any], asks: list[Any], update: int) -> None:
    module = bybit()
    module.receive("linear#1", snapshot(), 1)
    module.events()
    module.receive("linear#1", book("delta", update, bids, asks), 5)
    try:
        wanted = [(plain(bids), plain(asks))]
    except ValueError:
        wanted = []
    found = decoded(module)
    assert [(record.bids, record.asks) for _, record in found] == wanted
    assert module.counters.refused == 1 - len(wanted)
    for symbol, record in found:
        assert (symbol, record.kind) == ("BTC", Kind.DEPTH)
        fields = record.fields
        assert (fields["first_seq"], fields["seq"], fields["prev_seq"]) == (update, update, update - 1)
        assert (fields["venue_ts_ns"], fields["recv_ts_ns"]) == (1786310818129 * 10**6, 5)


def test_the_book_belongs_to_the_life_with_the_newest_snapshot() -> None:
    """A rotation: both lives deliver, each delta goes out once, and the successor goes on after its snapshot."""
    module = bybit()
    for connection in ("linear#1", "linear#2"):
        module.opened(connection, 1)
    module.receive("linear#1", snapshot(10), 2)
    module.receive("linear#1", delta(11), 3)
    module.receive("linear#2", delta(11), 3)
    module.receive("linear#2", snapshot(12), 4)
    module.receive("linear#1", delta(13), 5)
    module.receive("linear#2", delta(13), 5)
    assert book_records(module) == [(Kind.SNAPSHOT, 0, 10), (Kind.DEPTH, 10, 11), (Kind.SNAPSHOT, 0, 12), (Kind.DEPTH, 12, 13)]
    assert module.counters.reasons == {"depth_duplicate": 2} and module.counters.refused == 0
    module.lost("linear#1", 6, replaced=True)
    assert module.events() == [] and module.data_to_send("linear#2") == []


def test_an_owner_lost_while_another_life_is_up_leaves_a_gap_and_asks_for_a_snapshot() -> None:
    module = bybit()
    for connection in ("linear#1", "linear#2"):
        module.opened(connection, 1)
    module.receive("linear#2", snapshot(10), 2)
    module.receive("linear#1", delta(11), 2)
    module.events()
    module.lost("linear#2", 3, replaced=True)
    assert [(symbol, one.kind, one.fields["side"]) for symbol, one in decoded(module)] == [("BTC", Kind.GAP, GapScope.BOOK)]
    said = [json.loads(text) for text in module.data_to_send("linear#1")]
    assert [(one["op"], one["args"]) for one in said] == [("unsubscribe", [BOOK]), ("subscribe", [BOOK])]
    module.receive("linear#1", delta(12), 4)
    assert module.events() == [] and module.counters.reasons == {"depth_duplicate": 1, "delta_before_snapshot": 1}
    module.receive("linear#1", snapshot(20), 5)
    module.receive("linear#1", delta(21), 6)
    assert book_records(module) == [(Kind.SNAPSHOT, 0, 20), (Kind.DEPTH, 20, 21)]


def test_two_topics_of_one_book_never_mix() -> None:
    module = bybit()
    module.receive("linear#1", snapshot(10), 1)
    module.receive("linear#1", delta(500, topic="orderbook.50.BTCUSDT"), 2)
    module.receive("linear#1", delta(11), 3)
    assert book_records(module) == [(Kind.SNAPSHOT, 0, 10), (Kind.DEPTH, 10, 11)]


def test_a_snapshot_that_does_not_fit_a_record_takes_no_book_over() -> None:
    module = bybit()
    module.receive("linear#1", snapshot(10), 1)
    module.receive("linear#2", snapshot(11).replace(b"1786310818129", b"9999999999999"), 2)
    module.receive("linear#1", delta(11), 3)
    assert book_records(module) == [(Kind.SNAPSHOT, 0, 10), (Kind.DEPTH, 10, 11)]
    assert module.counters.reasons == {"out_of_range": 1}


def test_a_book_nobody_wants_is_not_read() -> None:
    module = bybit("[symbols.BTC]\nhas_orderbook = false\n")
    module.receive("linear#1", snapshot(), 1)
    assert module.events() == [] and module.counters.reasons == {"unknown_stream": 1}
    assert BOOK not in {stream.name for plan in module.sockets() for stream in plan.streams}
    assert module.snapshot_call("ETH") is None, "snapshots come on the wire: ids of REST belong to another stream"


# plans and connections -------------------------------------------------------------------------------------------------


def test_watchdogs_and_probe() -> None:
    (plan,) = bybit().sockets()
    streams = {stream.name: stream for stream in plan.streams if stream.symbol == "BTC"}
    found = {name: (one.kind, one.warn_s, one.act_s, one.act, one.fast) for name, one in streams.items()}
    assert found == {
        BOOK: (Kind.DEPTH, 5, 15, "resubscribe", True),
        "publicTrade.BTCUSDT": (Kind.TRADE, 30, 60, "resubscribe", False),
        "tickers.BTCUSDT": (Kind.MARK, 10, 30, "resubscribe", False),
        "allLiquidation.BTCUSDT": (Kind.LIQUIDATION, None, None, "reopen", False),
    }
    assert (plan.probe, plan.probe_interval_s, plan.probe_timeout_s) == ('{"op":"ping"}', 20.0, 10.0)
    assert bybit().wire_snapshots and bybit().connect_limit == ConnectLimit(20, 1.5)


def test_only_liquidations_by_default() -> None:
    (module,) = (one for one in venues.build(load("", {})) if isinstance(one, Bybit))
    (plan,) = module.sockets()
    assert {stream.kind for stream in plan.streams} == {Kind.LIQUIDATION}


def test_shards_keep_topics_and_characters_below_the_limits() -> None:
    many = "\n".join(f"[symbols.S{n}]\nstep = 1.0\ntick = 0.1" for n in range(120))
    module = bybit(many)
    sockets = module.sockets()
    assert [plan.name for plan in sockets] == ["linear", "linear-2", "linear-3"]
    assert sum(len(plan.streams) for plan in sockets) == 4 * 120
    assert {plan.url for plan in sockets} == {"wss://stream.bybit.com/v5/public/linear"}
    for plan in sockets:
        assert len(plan.streams) <= 190
        assert topics_of(plan) == [stream.name for stream in plan.streams]


def topics_of(plan: SocketPlan) -> list[str]:
    requests = [json.loads(text) for text in plan.subscribe]
    assert all(one["op"] == "subscribe" and 1 <= len(one["args"]) <= 10 for one in requests)
    assert len({one["req_id"] for one in requests}) == len(requests)
    topics = [topic for one in requests for topic in one["args"]]
    assert len(json.dumps(topics, separators=(",", ":"))) <= 21_000
    return topics


def test_long_names_make_sockets_by_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapper, "ARGS_CHARACTERS", 100)
    sockets = bybit().sockets()
    assert len(sockets) > 1
    assert all(len(json.dumps(topics_of(plan), separators=(",", ":"))) <= 100 + 2 for plan in sockets)


def test_resubscription_speaks_of_one_topic_on_one_living_connection() -> None:
    module = bybit()
    module.opened("linear#1", 1)
    assert module.resubscribe("linear#1", BOOK, 2) and module.resubscribe("linear#9", BOOK, 2)
    said = [json.loads(text) for text in module.data_to_send("linear#1")]
    assert [(one["op"], one["args"]) for one in said] == [("unsubscribe", [BOOK]), ("subscribe", [BOOK])]
    assert module.data_to_send("linear#1") == [] and module.data_to_send("linear#9") == []


def test_a_lost_socket_leaves_gaps_of_book_trades_and_liquidations() -> None:
    module = bybit()
    module.opened("linear#1", 1)
    module.receive("linear#1", snapshot(), 2)
    module.events()
    module.lost("linear#1", 5, replaced=False)
    gaps = {(symbol, GapScope(one.fields["side"])) for symbol, one in decoded(module)}
    scopes = (GapScope.BOOK, GapScope.TRADES, GapScope.LIQUIDATIONS)
    assert gaps == {(symbol, scope) for symbol in ("BTC", "ETH", "SOL") for scope in scopes}


def test_a_connection_begins_with_an_empty_ticker() -> None:
    module = bybit()
    head = b'{"topic":"tickers.BTCUSDT","ts":1786310818000,"type":'
    change = head + b'"delta","data":{"symbol":"BTCUSDT","fundingRate":"0.0002"}}'
    module.opened("linear#1", 1)
    module.receive("linear#1", head + b'"snapshot","data":{"symbol":"BTCUSDT","markPrice":"65000"}}', 2)
    module.receive("linear#1", change, 3)
    assert [one.fields["price"] for _, one in decoded(module)] == [65000.0, 65000.0]
    module.lost("linear#1", 4, replaced=True)
    for connection in ("linear#2", "linear#1"):
        module.opened(connection, 5)
        module.receive(connection, change, 6)
    assert module.events() == [] and module.counters.reasons == {"delta_before_snapshot": 2}


@pytest.mark.covers("A1-M19")
def test_open_interest_of_a_ticker_is_for_display_only() -> None:
    """Pushed values carry the flag that keeps them out of the sum; polled ones never do. Both are one-sided base coin."""
    module = bybit()
    ticker = {"symbol": "BTCUSDT", "openInterest": "200", "singleOpenInterest": "100"}
    pushed = {"topic": "tickers.BTCUSDT", "type": "snapshot", "ts": 1786310818000, "data": ticker}
    module.receive("linear#1", orjson.dumps(pushed), 1)
    (call,) = (one for one in module.polls() if one.name == "open_interest" and one.symbol == "BTC")
    module.receive_rest(call, 200, (WIRE / "rest" / "open_interest.json").read_bytes(), 2)
    found = [(one.kind, one.fields["flags"], one.fields["qty"]) for _, one in decoded(module)]
    assert found == [(Kind.OPEN_INTEREST, EventFlag.DISPLAY, 100.0), (Kind.OPEN_INTEREST, EventFlag.NONE, 29945.866)]


def test_probe_answers_and_stream_statistics() -> None:
    module = bybit()
    module.opened("linear#3", 1)
    module.receive("linear#3", b'{"success":true,"ret_msg":"pong","conn_id":"c","req_id":"","op":"ping"}', 77)
    assert module.probe_reply("linear#3") == 77 and module.probe_reply("linear#4") == 0
    good = (WIRE / "all_liquidation" / "side_buy_is_a_long.json").read_bytes()
    module.receive("linear#3", good, 80)
    module.receive("linear#3", good.replace(b'"Buy"', b'"Both"'), 90)
    stats = module.stats("linear#3")["allLiquidation.BTCUSDT"]
    assert (stats.messages, stats.errors, stats.last_recv_ns, stats.last_venue_ns) == (2, 1, 90, 1791565601482000000)
    assert module.counters.liquidations == {"BTC": 1} and "Both" in module.counters.samples["bad_side"]


def test_a_refused_request_leaves_its_sample() -> None:
    module = bybit()
    module.receive("linear#1", b'{"success":false,"ret_msg":"error:handler not found","op":"subscribe"}', 1)
    assert module.counters.refused == 1 and "handler not found" in module.counters.samples["error_reply"]


def test_liquidations_of_both_lives_of_a_socket_come_out_once() -> None:
    module = bybit()
    message = (WIRE / "all_liquidation" / "captured_two_buys_are_two_longs.json").read_bytes()
    for connection in ("linear#1", "linear#2"):
        module.receive(connection, message, 1)
    found = [(one.kind, one.fields["side"]) for _, one in decoded(module)]
    assert found == [(Kind.LIQUIDATION, PositionSide.LONG)] * 2
    assert module.counters.reasons == {"liq_duplicate": 2} and module.counters.refused == 0


# REST ------------------------------------------------------------------------------------------------------------------


def test_polls_ask_per_symbol() -> None:
    found = {(call.name, call.symbol): call.path for call in bybit().polls()}
    assert len(found) == 6
    assert found["open_interest", "BTC"] == "/v5/market/open-interest?category=linear&symbol=BTCUSDT&intervalTime=5min&limit=1"
    assert found["instruments", "SOL"] == "/v5/market/instruments-info?category=linear&symbol=SOLUSDT"


@pytest.mark.parametrize(
    ("status", "headers", "body", "result", "retry"),
    [
        (200, {}, b'{"retCode":0,"result":{}}', RestResult.OK, None),
        (200, {}, b'{"retCode":10006,"retMsg":"Too many visits!"}', RestResult.LIMITED, None),
        (200, {}, b'{"retCode":10001,"retMsg":"params error"}', RestResult.REFUSED, None),
        (200, {}, b"<html>", RestResult.TRANSIENT, None),
        (200, {}, b"[]", RestResult.TRANSIENT, None),
        (200, {}, b"", RestResult.TRANSIENT, None),
        (429, {"retry-after": "7"}, b"", RestResult.LIMITED, 7.0),
        (403, {}, b"403, access too frequent", RestResult.FIREWALL, 600.0),
        (403, {"retry-after": "5"}, b"403, access too frequent", RestResult.FIREWALL, 600.0),
        (403, {"retry-after": "900"}, b"403, access too frequent", RestResult.FIREWALL, 900.0),
        (403, {}, b"configured to block access from your country", RestResult.BLOCKED, None),
        (403, {}, b"restricted location", RestResult.BLOCKED, None),
        (451, {}, b"", RestResult.BLOCKED, None),
        (401, {}, b"", RestResult.UNAUTHORIZED, None),
        (404, {}, b"", RestResult.REFUSED, None),
        (503, {}, b"", RestResult.TRANSIENT, None),
    ],
)
def test_judgement_of_rest_replies(
    status: int, headers: dict[str, str], body: bytes, result: RestResult, retry: float | None
) -> None:
    verdict = bybit().judge(RestCall("open_interest", "BTC", "", 1), status, headers, body)
    assert (verdict.result, verdict.retry_after_s) == (result, retry)


def test_a_handshake_refused_for_the_country_is_a_geo_block() -> None:
    body = b"<H1>403 ERROR</H1> The distribution is configured to block access from your country."
    assert bybit().judge(HANDSHAKE, 403, {}, body).result is RestResult.BLOCKED


@pytest.mark.covers("A2-L2")
def test_unreadable_replies_are_counted() -> None:
    module = bybit()
    call = RestCall("open_interest", "BTC", "", 1)
    for body in (b"", b"null", b"[]", b'{"result":5}', b'{"result":{"symbol":[],"list":[]}}', b"[" * 5000):
        module.receive_rest(call, 200, body, 1)
    module.receive_rest(RestCall("tea", "BTC", "", 1), 200, b'{"result":{}}', 1)
    assert module.events() == [] and module.counters.refused == 7


# bad input -------------------------------------------------------------------------------------------------------------

HEAD = b'{"topic":"allLiquidation.BTCUSDT","type":"snapshot","ts":1791565601482,"data":'


@pytest.mark.covers("R-M4", "A2-L2", "F9", "S-M5")
@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"[]", b"{}", b"5", b'"x"', b"\xff\xfe", b'{"topic":5}', b'{"topic":[]}', b'{"topic":"allLiquidation.BTCUSDT"}',
     b'{"topic":"tickers.BTCUSDT","type":"snapshot","ts":1791565601482,"data":null}', b'{"topic":"","data":[]}',
     b'{"topic":"orderbook.1000.BTCUSDT","type":"snapshot","ts":1,"data":[1]}', b'{"topic":"nope.BTCUSDT","data":{}}',
     b'{"topic":"publicTrade.BTCUSDT"', b"[" * 5000, b'{"op":[]}', b'{"op":"subscribe"}', b'{"op":"ping","ret_msg":"no"}',
     HEAD + b"[5]}", HEAD + b'["BTCUSDT"]}', HEAD + b"[" * 1000 + b"]" * 1000 + b"}",
     HEAD + b'[{"s":' + b"[" * 900 + b"]" * 900 + b"}]}",
     HEAD + b'[{"s":"BTCUSDT","S":["Buy"],"T":1791565600992,"v":"1","p":"1"}]}',
     HEAD + b'[{"s":"BTCUSDT","S":"Buy","T":1791565600992,"v":"1","p":{}}]}'],
)  # fmt: skip
def test_garbage_is_counted_and_the_next_message_works(payload: bytes) -> None:
    module = bybit()
    module.receive("linear#1", payload, 1)
    assert (module.events(), module.counters.refused) == ([], 1)
    module.receive("linear#1", (WIRE / "all_liquidation" / "side_buy_is_a_long.json").read_bytes(), 2)
    assert len(module.events()) == 1


def test_invented_topics_leave_nothing_behind() -> None:
    module = bybit()
    module.opened("linear#1", 1)
    for number in range(1000):
        module.receive("linear#1", snapshot(topic=f"orderbook.{number}.BTCUSDT"), 1)
    assert len(module.stats("linear#1")) <= 4 and len(module.counters.samples) <= 4


def mutations(rng: random.Random, count: int) -> Iterator[bytes]:
    """Messages of the corpus, most of them damaged."""
    originals = [line for path in CASES if path.parent.name != "rest" for line in path.read_bytes().splitlines()]
    tokens = (
        b"NaN",
        b"null",
        b"-1",
        b"1e999",
        b'""',
        b"[]",
        b"{}",
        b"true",
        b"9" * 30,
        b'"Buy"',
        b'"Sell"',
        b'"delta"',
        b'"snapshot"',
    )
    for _ in range(count):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randint(0, 4)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(4):
                case 0:
                    data[at : at + 1] = bytes((rng.randrange(256),))
                case 1:
                    del data[at : at + rng.randint(1, 8)]
                case 2:
                    data[at:at] = bytes(rng.randrange(32, 127) for _ in range(rng.randint(1, 4)))
                case _:
                    end = data.find(b",", at)
                    data[at : end if end > 0 else at] = rng.choice(tokens)
        yield bytes(data)


def check(symbol: str, record: Decoded) -> None:
    """No record that the engine could mistake for data."""
    assert symbol in ("BTC", "ETH", "SOL") and record.fields["venue"] == Venue.BYBIT
    for price, qty in (*record.bids, *record.asks):
        assert math.isfinite(price) and price >= 0 and math.isfinite(qty) and qty >= 0
    fields = record.fields
    if record.kind in (Kind.TRADE, Kind.LIQUIDATION):
        assert fields["side"] in (1, 2)
        assert 0 < fields["price"] < math.inf and 0 < fields["qty"] < math.inf
    elif record.kind is Kind.MARK:
        assert 0 < fields["price"] < math.inf and 0 <= fields["qty"] < math.inf and math.isfinite(fields["aux"])
    elif record.kind is Kind.OPEN_INTEREST:
        assert fields["flags"] == EventFlag.DISPLAY and 0 < fields["qty"] < math.inf
    else:
        assert record.kind in (Kind.DEPTH, Kind.SNAPSHOT)


def feed_mutations(seed: int, count: int) -> None:
    module = bybit()
    kinds: Counter[Kind] = Counter()
    rng = random.Random(seed)
    for number, payload in enumerate(mutations(rng, count)):
        module.receive(f"linear#{rng.randint(1, 2)}", payload, number)
        for symbol, record in decoded(module):
            check(symbol, record)
            kinds[record.kind] += 1
    assert module.counters.messages == count and module.counters.refused > count // 20
    assert set(kinds) == {Kind.TRADE, Kind.LIQUIDATION, Kind.MARK, Kind.OPEN_INTEREST, Kind.DEPTH, Kind.SNAPSHOT}


@pytest.mark.covers("F9")
def test_mutated_messages_never_raise_and_never_make_a_wrong_record() -> None:
    feed_mutations(4, 20_000)


@pytest.mark.stress
@pytest.mark.covers("F9")
def test_a_million_mutated_messages() -> None:
    feed_mutations(5, 1_000_000)


@pytest.mark.covers("F9")
def test_mutated_replies_never_raise() -> None:
    rng, module = random.Random(6), bybit()
    originals = [(path, path.read_bytes().strip()) for path in CASES if path.parent.name == "rest"]
    for _ in range(5000):
        path, original = rng.choice(originals)
        data = bytearray(original)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        name = "instruments" if path.stem.startswith("instrument") else "open_interest"
        module.receive_rest(RestCall(name, "BTC", "", 1), 200, bytes(data), 1)
        module.judge(RestCall(name, "BTC", "", 1), 200, {}, bytes(data))
        for symbol, record in decoded(module):
            assert symbol == "BTC" and record.kind in (Kind.INSTRUMENT, Kind.OPEN_INTEREST)
            values = [record.fields[field] for field in ("price", "qty", "aux")]
            assert all(math.isfinite(value) and value >= 0 for value in values)
    assert module.counters.refused > 1000


# captures --------------------------------------------------------------------------------------------------------------


def received(captures: Path) -> Iterator[bytes]:
    """The messages of the linear socket, in order."""
    with (captures / "bybit_linear_20260809.jsonl.zst").open("rb") as file:
        lines = zstandard.ZstdDecompressor().stream_reader(file).read().splitlines()
    for line in lines:
        row = orjson.loads(line)
        if row["t"] == "recv" and row["conn"] == "BYBIT.ws.2":
            yield row["data"].encode()


@pytest.mark.captures
def test_every_message_of_the_capture_is_read(captures: Path) -> None:
    """The only refused messages are of topics we never ask for: candles, and a symbol that is not configured."""
    module = bybit("", "venues.bybit.book_depth=200")
    foreign, kinds, books = 0, Counter[Kind](), Counter[str]()
    last: dict[str, int] = {}
    for payload in received(captures):
        message = orjson.loads(payload)
        topic = message.get("topic", "")
        foreign += topic.startswith("kline.") or topic.endswith(".DOGEUSDT")
        module.receive("linear#1", payload, 1)
        for symbol, record in decoded(module):
            check(symbol, record)
            kinds[record.kind] += 1
            if record.kind in (Kind.DEPTH, Kind.SNAPSHOT):
                data = message["data"]
                assert (record.bids, record.asks) == (plain(data["b"]), plain(data["a"]))
                assert record.kind is Kind.SNAPSHOT or record.fields["prev_seq"] == last[symbol], "a break of u"
                last[symbol] = record.fields["seq"]
                books[symbol] += 1
    assert module.counters.reasons == {"unknown_stream": foreign} and foreign > 70
    assert set(books) == {"BTC", "ETH", "SOL"} and kinds[Kind.SNAPSHOT] == 3 and min(books.values()) > 300
    assert kinds[Kind.TRADE] > 100 and kinds[Kind.MARK] > 100 and kinds[Kind.OPEN_INTEREST] > 10
