"""Bybit's REST: bodies, both sides of the open interest, body errors, limits."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mpengine.simulator.bybit_rest import FORBIDDEN, FORBIDDEN_NS, LIMITED, WINDOW_NS
from mpengine.simulator.bybit_wire import PATH, BybitWire
from mpengine.simulator.market import Market
from mpengine.simulator.process import wires_of
from tests.simulator.rig import SECOND_NS, market, small, steps

NAMES = {"binance": "BTCUSDT", "bybit": "BTCUSDT", "okx": "BTC-USDT-SWAP"}
INTEREST = {"category": "linear", "symbol": "BTCUSDT", "intervalTime": "5min", "limit": "1"}


def three(**values: Any) -> Market:
    return market(small(names=NAMES, **values), small("ETH", names={"binance": "ETHUSDT", "bybit": "ETHUSDT"}))


def wire(of: Market) -> BybitWire:
    return BybitWire(of, np.random.default_rng(1))


def get(to: BybitWire, call: str, now_ns: int = 0, /, **query: str) -> Any:
    reply = to.rest(f"/v5/market/{call}", query, "a", now_ns)
    assert reply.status == 200, reply
    return json.loads(reply.body)


def test_open_interest_counts_both_sides_and_one() -> None:
    of = three()
    steps(of, 5)
    body = get(wire(of), "open-interest", 0, **INTEREST)
    assert (body["retCode"], body["retMsg"], body["result"]["symbol"]) == (0, "OK", "BTCUSDT")
    (row,) = body["result"]["list"]
    single, both = float(row["singleOpenInterest"]), float(row["openInterest"])
    assert both == pytest.approx(2 * single, abs=1e-9) and single > 0
    assert single == pytest.approx(0.3 * of.symbols["BTC"].open_interest, abs=0.001)
    assert int(row["timestamp"]) == of.now_ns // 10**6


def test_open_interest_of_all_venues_sums_up_to_the_markets() -> None:
    of = three()
    steps(of, 5)
    binance, bybit, okx = wires_of(of, np.random.default_rng(1))
    one = json.loads(binance.rest("/fapi/v1/openInterest", {"symbol": "BTCUSDT"}, "a", 0).body)["openInterest"]
    two = json.loads(bybit.rest("/v5/market/open-interest", INTEREST, "a", 0).body)["result"]["list"][0]["singleOpenInterest"]
    query = {"instType": "SWAP", "instId": "BTC-USDT-SWAP"}
    three_ = json.loads(okx.rest("/api/v5/public/open-interest", query, "a", 0).body)["data"][0]["oiCcy"]
    total = of.symbols["BTC"].open_interest
    assert float(one) + float(two) + float(three_) == pytest.approx(total, abs=0.011)  # an OKX contract is 0.01
    assert float(one) == pytest.approx(total / 2, abs=0.001)


def test_instruments_give_ticks_and_lots() -> None:
    to = wire(three())
    (row,) = get(to, "instruments-info", category="linear", symbol="BTCUSDT")["result"]["list"]
    assert (row["status"], row["contractType"]) == ("Trading", "LinearPerpetual")
    assert (float(row["priceFilter"]["tickSize"]), float(row["lotSizeFilter"]["qtyStep"])) == (0.1, 0.001)
    rows = get(to, "instruments-info", category="linear", limit="1000")["result"]["list"]
    assert [row["symbol"] for row in rows] == ["BTCUSDT", "ETHUSDT"]


def test_an_order_book_has_the_ids_of_the_stream_of_1000_levels() -> None:
    of = three()
    to = wire(of)
    session = to.open(PATH, {}, 0)
    assert session is not None
    to.receive(session, '{"op":"subscribe","args":["orderbook.1000.BTCUSDT"]}', 0)
    texts = [
        json.loads(message.text(False)) for changes in of.step(of.now_ns + SECOND_NS) for message, _ in to.publish(changes)
    ]  # fmt: skip
    book = get(to, "orderbook", category="linear", symbol="BTCUSDT", limit="20")["result"]
    assert book["u"] == texts[-1]["data"]["u"] and book["s"] == "BTCUSDT"
    best = of.symbols["BTC"].book.bids.top(20)
    assert book["b"] == [[f"{at * 0.1:.2f}", f"{lots * 0.001:.3f}"] for at, lots in best]
    assert len(get(to, "orderbook", category="linear", symbol="BTCUSDT")["result"]["a"]) == 25


def test_time_is_the_markets() -> None:
    of = three()
    assert get(wire(of), "time")["result"] == {"timeSecond": str(of.now_ns // SECOND_NS), "timeNano": str(of.now_ns)}


@pytest.mark.parametrize(
    ("call", "query"),
    [
        ("open-interest", {**INTEREST, "symbol": "NOSUCHUSDT"}),
        ("open-interest", {**INTEREST, "category": "spot"}),
        ("open-interest", {**INTEREST, "intervalTime": "1m"}),
        ("open-interest", {**INTEREST, "limit": "0"}),
        ("open-interest", {"category": "linear"}),
        ("orderbook", {"symbol": "BTCUSDT"}),
        ("orderbook", {"category": "linear", "symbol": "BTCUSDT", "limit": "many"}),
        ("instruments-info", {"category": "linear", "symbol": "btcusdt"}),
    ],
)
def test_what_is_wrong_is_told_in_the_body(call: str, query: dict[str, str]) -> None:
    body = get(wire(three()), call, 0, **query)
    assert body["retCode"] == 10001 and body["retMsg"] and body["result"] == {}


def test_an_unknown_path_is_not_found() -> None:
    assert wire(three()).rest("/v5/market/recent-trade", {"category": "linear"}, "a", 0).status == 404


def test_too_many_requests_are_limited_in_the_body_and_then_forbidden_for_ten_minutes() -> None:
    to = wire(three())

    def ask(now_ns: int, client: str = "a") -> tuple[int, int | None]:
        reply = to.rest("/v5/market/time", {}, client, now_ns)
        return reply.status, json.loads(reply.body)["retCode"] if reply.status == 200 else None

    found = [ask(number) for number in range(FORBIDDEN + 1)]
    assert found[:LIMITED] == [(200, 0)] * LIMITED
    assert found[LIMITED:FORBIDDEN] == [(200, 10006)] * (FORBIDDEN - LIMITED)
    assert found[FORBIDDEN] == (403, None)
    assert b"too frequent" in to.rest("/v5/market/time", {}, "a", WINDOW_NS + 1).body
    assert ask(FORBIDDEN, "b") == (200, 0), "another address"
    assert ask(FORBIDDEN_NS - 1)[0] == 403 and ask(FORBIDDEN + FORBIDDEN_NS + 1) == (200, 0)


def test_a_client_that_heeds_the_limit_is_served_again_when_the_window_is_over() -> None:
    to = wire(three())
    assert [get(to, "time", number)["retCode"] for number in range(LIMITED + 1)][-2:] == [0, 10006]
    assert get(to, "time", WINDOW_NS + LIMITED + 1)["retCode"] == 0
