"""OKX mapper: wire cases as data, contract sizes, subscriptions, budgets; bad input is counted and never raised."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mpengine import venues
from mpengine.config import load
from mpengine.venues import okx as mapper
from mpengine.venues.base import RestCall, RestResult
from mpengine.venues.okx import Okx
from shm.records import GapScope, Kind, PositionSide, Venue, decode
from tests.venues.cases import Flat, assert_sound, cases, differences, flat, mutated

EVERYTHING = tuple(f"venues.okx.{name}=true" for name in ("order_book", "trades", "mark_price", "funding", "open_interest"))
CASES = cases("okx")
SECOND = 10**9
T = 1_791_565_600 * SECOND
INSTRUMENTS = RestCall("instruments", None, "", 1)


def instrument(base: str, size: str, **values: Any) -> dict[str, Any]:
    row = {
        "instId": f"{base}-USDT-SWAP", "instType": "SWAP", "ctVal": size, "ctMult": "1", "ctValCcy": base, "ctType": "linear",
        "settleCcy": "USDT", "lotSz": "0.01", "minSz": "0.01", "tickSz": "0.1", "state": "live", "uly": f"{base}-USDT",
    }  # fmt: skip
    return {**row, **values}


SIZES = [instrument("BTC", "0.01"), instrument("ETH", "0.1"), instrument("SOL", "1")]


def raw(*overrides: str) -> Okx:
    """Fresh: no connection, no sizes."""
    (module,) = (one for one in venues.build(load("", {}, [*EVERYTHING, *overrides])) if isinstance(one, Okx))
    return module


def teach(module: Okx, rows: Iterable[Any] = tuple(SIZES), at_ns: int = 2) -> None:
    module.receive_rest(INSTRUMENTS, 200, json.dumps({"code": "0", "data": list(rows)}).encode(), at_ns)


def okx(*overrides: str) -> Okx:
    """With the sizes known and nothing left to drain."""
    module = raw(*overrides)
    teach(module)
    module.events()
    return module


def taken(module: Okx) -> list[Flat]:
    return [flat(routed.symbol, record) for routed in module.events() for record in decode(routed.data)]


@pytest.mark.covers("A1-L20", "A2-L3", "R-L2")
@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_wire_case(path: Path) -> None:
    assert differences(path, okx(), Venue.OKX) == []


@pytest.mark.covers("A1-L20")
@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ("POSITIONS", {"side_pos_long_is_a_long", "side_pos_short_is_a_short"}),
        ("ORDERS", {"side_net_sell_is_a_long", "side_net_buy_is_a_short", "side_absent_sell_is_a_long"}),
        ("TAKERS", {"taker_buy", "taker_sell"}),
    ],
)
def test_a_flipped_side_table_fails_wire_cases(monkeypatch: pytest.MonkeyPatch, table: str, rows: set[str]) -> None:
    right = getattr(mapper, table)
    (one, first), (other, second) = right.items()
    monkeypatch.setattr(mapper, table, {one: second, other: first})
    wrong = {path.stem for path in CASES if any(text.startswith("side:") for text in differences(path, okx(), Venue.OKX))}
    assert rows <= wrong


# sizes and subscriptions -----------------------------------------------------------------------------------------------


def liquidation(ts_ms: int, instrument_id: str = "BTC-USDT-SWAP", sz: str = "8.55") -> bytes:
    row = {"bkLoss": "0", "bkPx": "82655.7", "ccy": "", "posSide": "long", "side": "sell", "sz": sz, "ts": str(ts_ms)}
    data = [{"details": [row], "instId": instrument_id, "instType": "SWAP"}]
    return json.dumps({"arg": {"channel": "liquidation-orders", "instType": "SWAP"}, "data": data}).encode()


def ack(channel: str, **arg: str) -> bytes:
    return json.dumps({"event": "subscribe", "arg": {"channel": channel, **arg}, "connId": "a4d3ae55"}).encode()


@pytest.mark.covers("A1-L10")
def test_an_event_whose_contract_is_unknown_is_dropped_and_counted_never_taken_as_one() -> None:
    module = raw()
    module.receive("public#1", liquidation(1_791_565_600_771), T)
    assert module.events() == []
    assert module.counters.reasons == {"unknown_contract": 1}
    teach(module)
    module.events()
    module.receive("public#1", liquidation(1_791_565_600_771), T)
    assert [one["qty"] for one in taken(module)] == [pytest.approx(0.0855)]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"ctType": "inverse"}, "not_linear"),
        ({"state": "suspend"}, "not_trading"),
        ({"ctValCcy": "USD"}, "foreign_contract_currency"),
        ({"ctVal": "0"}, "not_positive"),
        ({"ctVal": "NaN"}, "not_finite"),
        ({"ctMult": None}, "not_a_number"),
        ({"tickSz": ""}, "not_a_number"),
    ],
)
def test_an_unusable_instrument_takes_its_size_away_and_spoils_no_other(values: dict[str, Any], reason: str) -> None:
    module = okx()
    teach(module, [instrument("BTC", "0.01") | values, *SIZES[1:]])
    assert set(module.contracts) == {"ETH", "SOL"}
    assert module.counters.reasons == {reason: 1}
    module.events()
    module.receive("public#1", liquidation(1_791_565_600_771), T)
    assert module.events() == [] and module.counters.reasons["unknown_contract"] == 1


def test_a_size_other_than_expected_is_used_and_counted() -> None:
    module = raw()
    teach(module, [instrument("BTC", "0.001", ctMult="5"), *SIZES[1:]])
    assert module.contracts["BTC"].size == pytest.approx(0.005)
    assert module.counters.reasons == {"contract_value_differs": 1}
    assert "BTC" in module.counters.samples["contract_value_differs"]


@pytest.mark.covers("S-H1")
def test_sizes_are_exchanged_as_one_object() -> None:
    module = okx()
    before = module.contracts
    pushed = {"arg": {"channel": "instruments", "instType": "SWAP"}, "data": [instrument("ETH", "0.2")]}
    module.receive("public#1", json.dumps(pushed).encode(), T)
    assert before["ETH"].size == pytest.approx(0.1) and module.contracts["ETH"].size == pytest.approx(0.2)
    assert set(module.contracts) == {"BTC", "ETH", "SOL"}, "a push names what has changed, not everything"
    with pytest.raises(TypeError):
        module.contracts["BTC"] = module.contracts["ETH"]  # type: ignore[index]
    assert [(one["kind"], one["price"], one["qty"]) for one in taken(module)] == [("INSTRUMENT", 0.1, pytest.approx(0.2))]


def test_an_empty_list_of_instruments_is_counted_and_the_sizes_stay() -> None:
    module = okx()
    teach(module, [])
    assert module.counters.reasons == {"no_instruments": 1} and set(module.contracts) == {"BTC", "ETH", "SOL"}
    teach(module, SIZES[:2])
    assert set(module.contracts) == {"BTC", "ETH"}, "what a list of others lacks is gone"


def test_nothing_but_instruments_is_asked_for_before_sizes_are_known() -> None:
    module = raw()
    (plan,) = module.sockets()
    assert [json.loads(text)["args"] for text in plan.subscribe] == [[{"channel": "instruments", "instType": "SWAP"}]]
    module.opened("public#1", T)
    assert module.data_to_send("public#1") == []
    teach(module)
    (text,) = module.data_to_send("public#1")
    assert {arg["channel"] for arg in json.loads(text)["args"]} == {
        "liquidation-orders", "books", "trades", "mark-price", "funding-rate", "open-interest",
    }  # fmt: skip
    teach(module)
    assert module.data_to_send("public#1") == [], "once"
    module.opened("public#2", T)
    assert module.data_to_send("public#2") == [text], "a later connection asks at once"


def test_the_channel_brings_the_sizes_where_rest_is_blocked() -> None:
    module = raw()
    module.opened("public#1", T)
    module.receive("public#1", json.dumps({"arg": {"channel": "instruments", "instType": "SWAP"}, "data": SIZES}).encode(), T)
    assert len(module.data_to_send("public#1")) == 1 and set(module.contracts) == {"BTC", "ETH", "SOL"}


def test_a_swap_that_is_not_live_is_expected_to_be_silent() -> None:
    module = raw()
    assert module.unlisted() == frozenset()
    row = next(dict(row) for row in SIZES if row["instId"] == "SOL-USDT-SWAP")
    teach(module)
    assert module.unlisted() == frozenset()
    module.receive("public#1", json.dumps({"arg": {"channel": "instruments"}, "data": [row | {"state": "suspend"}]}).encode(), T)
    assert module.unlisted() and all(name.endswith(":SOL-USDT-SWAP") for name in module.unlisted())
    assert "books:SOL-USDT-SWAP" in module.unlisted()
    teach(module)
    assert module.unlisted() == frozenset()


def test_fewer_than_30_books_share_a_socket() -> None:
    text = "".join(f"[symbols.C{number}]\nstep = 0.01\ntick = 0.001\n" for number in range(60))
    (module,) = (one for one in venues.build(load(text, {}, EVERYTHING)) if isinstance(one, Okx))
    plans = module.sockets()
    assert [plan.name for plan in plans] == ["public", "public-2", "public-3"]
    for plan in plans:
        assert sum(stream.kind is Kind.DEPTH for stream in plan.streams) < 30
    assert sum(stream.kind is Kind.LIQUIDATION for plan in plans for stream in plan.streams) == 1


def test_the_hours_requests_are_limited_per_connection() -> None:
    module = okx()
    module.opened("public#1", T)
    given = 0
    while module.resubscribe("public#1", "books:BTC-USDT-SWAP", T):
        given += 1
        assert given < 480
    assert len(module.data_to_send("public#1")) == 1 + 2 * given <= 480
    assert module.counters.reasons == {"resubscribe_budget": 1}
    module.opened("public#2", T)
    assert module.resubscribe("public#2", "books:BTC-USDT-SWAP", T)
    assert module.resubscribe("public#1", "books:BTC-USDT-SWAP", T + 3600 * SECOND), "an hour later there are new ones"


def test_an_announced_upgrade_asks_for_a_successor_once() -> None:
    module = okx()
    module.opened("public#1", T)
    module.receive("public#1", b'{"event":"notice","code":"64008","msg":"soon"}', T)
    assert (module.replacements_wanted(), module.replacements_wanted()) == (["public#1"], [])


def test_pong_is_a_probe_reply() -> None:
    module = okx()
    module.opened("public#1", T)
    module.receive("public#1", b"pong", T + 5)
    assert module.probe_reply("public#1") == T + 5 and module.counters.refused == 0


# liquidations in time ---------------------------------------------------------------------------------------------------


@pytest.mark.covers("E-H9")
def test_old_rows_are_dropped_only_while_a_subscription_replays_them() -> None:
    module = okx()
    module.opened("public#1", T)
    module.receive("public#1", ack("liquidation-orders", instType="SWAP"), T + SECOND)
    old_ms, fresh_ms = (T - 61 * SECOND) // 10**6, (T - 59 * SECOND) // 10**6
    module.receive("public#1", liquidation(old_ms), T + 5 * SECOND)
    module.receive("public#1", liquidation(fresh_ms), T + 5 * SECOND)
    assert [one["venue_ts_ns"] for one in taken(module)] == [fresh_ms * 10**6]
    assert module.counters.reasons == {"liq_replayed": 1}
    module.receive("public#1", liquidation(old_ms, sz="2"), T + 12 * SECOND)
    assert [one["venue_ts_ns"] for one in taken(module)] == [old_ms * 10**6], "late ones are kept however late"


def test_rows_before_the_ack_count_as_replayed_too() -> None:
    module = okx()
    module.opened("public#1", T)
    module.receive("public#1", liquidation((T - 600 * SECOND) // 10**6), T + SECOND)
    assert module.events() == [] and module.counters.reasons == {"liq_replayed": 1}


def test_the_other_life_of_a_socket_brings_no_event_twice() -> None:
    module = okx()
    for connection in ("public#1", "public#2"):
        module.receive(connection, liquidation(1_791_565_600_771), T)
    assert len(module.events()) == 1 and module.counters.liquidations == {"BTC": 1}


# books -----------------------------------------------------------------------------------------------------------------


def book(action: str, previous: int, last: int, name: str = "BTC-USDT-SWAP") -> bytes:
    row = {"asks": [["101", "1", "0", "1"]], "bids": [["99", "1", "0", "1"]], "ts": "1597026383085", "checksum": 0}
    data = [{**row, "prevSeqId": previous, "seqId": last}]
    return json.dumps({"arg": {"channel": "books", "instId": name}, "action": action, "data": data}).encode()


def kinds(module: Okx) -> list[tuple[str, int]]:
    return [(one["kind"], one["seq"]) for one in taken(module)]


def test_a_missing_snapshot_is_overdue_3_s_after_the_ack_and_polled() -> None:
    module = okx()
    module.opened("public#1", T)
    for name in ("BTC", "ETH"):
        module.receive("public#1", ack("books", instId=f"{name}-USDT-SWAP"), T)
    module.receive("public#1", book("snapshot", -1, 5), T + SECOND)
    assert module.snapshots_overdue(T + 3 * SECOND - 1) == []
    assert module.snapshots_overdue(T + 3 * SECOND) == ["ETH"]
    assert module.snapshots_overdue(T + 9 * SECOND) == [], "once per subscription"
    call = module.snapshot_call("ETH")
    assert call is not None and call.path == "/api/v5/market/books?instId=ETH-USDT-SWAP&sz=400"


def test_while_two_lives_overlap_a_book_comes_from_the_newest_snapshot() -> None:
    module = okx()
    for connection in ("public#1", "public#2"):
        module.opened(connection, T)
    module.receive("public#1", book("snapshot", -1, 5), T)
    module.receive("public#1", book("update", 5, 6), T)
    module.receive("public#2", book("snapshot", -1, 7), T)
    module.receive("public#1", book("update", 6, 8), T)
    module.receive("public#2", book("update", 7, 9), T)
    assert kinds(module) == [("SNAPSHOT", 5), ("DEPTH", 6), ("SNAPSHOT", 7), ("DEPTH", 9)]
    assert module.counters.reasons == {"depth_duplicate": 1}
    module.lost("public#1", T, replaced=True)
    assert module.events() == []


def test_a_successor_that_fails_leaves_a_hole_which_the_old_one_is_asked_to_fill() -> None:
    module = okx()
    for connection in ("public#1", "public#2"):
        module.opened(connection, T)
        module.data_to_send(connection)
    module.receive("public#1", book("snapshot", -1, 5), T)
    module.receive("public#2", book("snapshot", -1, 7), T)
    module.events()
    module.lost("public#2", T, replaced=True)
    (gap,) = [record for routed in module.events() for record in decode(routed.data)]
    assert (gap.kind, gap.fields["side"]) == (Kind.GAP, GapScope.BOOK)
    operations = [json.loads(text) for text in module.data_to_send("public#1")]
    assert [one["op"] for one in operations] == ["unsubscribe", "subscribe"]
    assert operations[1]["args"] == [{"channel": "books", "instId": "BTC-USDT-SWAP"}]


def test_a_lost_socket_leaves_gaps_in_what_it_carried() -> None:
    module = okx()
    module.opened("public#1", T)
    module.lost("public#1", T, replaced=False)
    scopes = {(one["symbol"], GapScope(one["side"])) for one in taken(module)}
    every = (GapScope.BOOK, GapScope.TRADES, GapScope.LIQUIDATIONS)
    assert scopes == {(symbol, scope) for symbol in ("BTC", "ETH", "SOL") for scope in every}


# REST and garbage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, b'{"code":"0","data":[]}', RestResult.OK),
        (200, b'{"code":"50011","data":[]}', RestResult.LIMITED),
        (429, b'{"code":"50011","data":[]}', RestResult.LIMITED),
        (429, b"", RestResult.LIMITED),
        (200, b"<html>", RestResult.TRANSIENT),
        (200, b'{"code":"51001","data":[]}', RestResult.REFUSED),
        (400, b'{"code":"51000"}', RestResult.REFUSED),
        (451, b"", RestResult.BLOCKED),
        (403, b"not available in your location", RestResult.BLOCKED),
        (403, b"", RestResult.FIREWALL),
        (503, b"", RestResult.TRANSIENT),
        (401, b"", RestResult.UNAUTHORIZED),
    ],
)
def test_what_a_reply_means(status: int, body: bytes, result: RestResult) -> None:
    assert okx().judge(INSTRUMENTS, status, {}, body).result is result


@pytest.mark.covers("A2-L2", "R-M4")
@pytest.mark.parametrize(
    "payload", [b"", b"null", b"5", b"[]", b"{}", b'{"arg":5}', b'{"arg":{"channel":[]}}', b"\xff\xfe", b'{"event":5}',
                b'{"arg":{"channel":"trades","instId":"BTC-USDT-SWAP"},"data":' + b"[" * 900 + b"]" * 900 + b"}"],
)  # fmt: skip
def test_garbage_is_counted_and_the_next_message_is_read(payload: bytes) -> None:
    module = okx()
    module.receive("public#1", payload, T)
    assert module.events() == [] and module.counters.refused >= 1
    module.receive("public#1", liquidation(1_791_565_600_771), T)
    assert [one["side"] for one in taken(module)] == [PositionSide.LONG]


@pytest.mark.covers("F9", "E-M4")
@pytest.mark.parametrize("count", [20_000, pytest.param(10**6, marks=pytest.mark.stress)])
def test_mutated_messages_never_raise_and_never_make_a_wrong_record(count: int) -> None:
    rng, module = random.Random(20261121), okx()
    corpus = [line for path in CASES if path.parent.name != "rest" for line in path.read_bytes().splitlines()]
    before = module.counters.messages
    for number in range(count):
        module.receive("public#1", mutated(rng, rng.choice(corpus)), T + number)
        assert_sound(module.events())
    assert module.counters.messages == before + count and module.counters.refused > count // 10
