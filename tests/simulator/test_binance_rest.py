"""Binance's REST: bodies out of the market, weights, limits and refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mpengine.simulator.binance_rest import BAN_AFTER, BinanceRest, Meter, decimals
from mpengine.simulator.wire import Reply
from tests.simulator.rig import SECOND_NS, START_NS, market, small, steps

MINUTE_NS = 60 * SECOND_NS


class Client:
    """One address that asks."""

    def __init__(self, *specs: Any) -> None:
        self.market = market(*(specs or (small(), small("ETH"))))
        names = {symbol: one.spec.names["binance"] for symbol, one in self.market.symbols.items()}
        self.rest = BinanceRest(self.market, names)
        self.now_ns = 5 * MINUTE_NS

    def reply(self, path: str, *, client: str = "127.0.0.1", **query: object) -> Reply:
        return self.rest.reply(path, {name: str(value) for name, value in query.items()}, client, self.now_ns)

    def body(self, path: str, **query: object) -> Any:
        reply = self.reply(path, **query)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)


@pytest.mark.parametrize(("limit", "weight"), [(5, 2), (50, 2), (100, 5), (500, 10), (1000, 20), (None, 10)])
def test_a_depth_snapshot_is_the_book_under_its_newest_id(limit: int | None, weight: int) -> None:
    client = Client()
    steps(client.market, 5)
    reply = client.reply("/fapi/v1/depth", symbol="BTCUSDT", **({} if limit is None else {"limit": limit}))
    assert reply.headers["X-MBX-USED-WEIGHT-1M"] == str(weight)
    body, one = json.loads(reply.body), client.market.symbols["BTC"]
    assert list(body) == ["lastUpdateId", "E", "T", "bids", "asks"]
    assert body["lastUpdateId"] == one.last_id
    count = limit or 500
    bids = sorted(one.book.bids.levels.items(), reverse=True)[:count]
    asks = sorted(one.book.asks.levels.items())[:count]
    assert body["bids"] == [[f"{t * 0.1:.2f}", f"{lots * 0.001:.3f}"] for t, lots in bids]
    assert body["asks"] == [[f"{t * 0.1:.2f}", f"{lots * 0.001:.3f}"] for t, lots in asks]


def test_open_interest_is_the_markets() -> None:
    client = Client()
    body = client.body("/fapi/v1/openInterest", symbol="ETHUSDT")
    assert list(body) == ["openInterest", "symbol", "time"]
    assert float(body["openInterest"]) == pytest.approx(client.market.symbols["ETH"].open_interest, abs=1e-9)
    assert body["symbol"] == "ETHUSDT" and body["time"] == START_NS // 10**6


def test_exchange_info_names_ticks_and_lots_of_every_symbol() -> None:
    client = Client(small(), small("SOL"), small("DOGE", price=0.2))
    body = client.body("/fapi/v1/exchangeInfo")
    assert body["rateLimits"][0] == {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400}
    for row, one in zip(body["symbols"], client.market.symbols.values(), strict=True):
        filters = {part["filterType"]: part for part in row["filters"]}
        assert float(filters["PRICE_FILTER"]["tickSize"]) == pytest.approx(one.spec.tick)
        assert float(filters["LOT_SIZE"]["stepSize"]) == pytest.approx(one.spec.lot)
        assert (row["status"], row["contractType"], row["baseAsset"]) == ("TRADING", "PERPETUAL", one.spec.symbol)


def test_premium_index_of_one_and_of_all() -> None:
    client = Client()
    one = client.body("/fapi/v1/premiumIndex", symbol="BTCUSDT")
    assert client.body("/fapi/v1/premiumIndex")[0] == one
    assert one["markPrice"] == f"{client.market.symbols['BTC'].mark_price:.8f}"
    assert one["nextFundingTime"] > one["time"]


def test_past_trades_are_those_of_the_stream() -> None:
    client = Client()
    trades = [trade for changes in steps(client.market, 20) for trade in changes[0].trades]
    rows = client.body("/fapi/v1/aggTrades", symbol="BTCUSDT", limit=20)
    assert [row["a"] for row in rows] == [trade.number for trade in trades[-20:]]
    assert list(rows[0]) == ["a", "p", "q", "nq", "f", "l", "T", "m"]
    rows = client.body("/fapi/v1/aggTrades", symbol="BTCUSDT", fromId=trades[3].number, limit=5)
    assert [row["a"] for row in rows] == [trade.number for trade in trades[3:8]]
    since = trades[10].ts_ns // 10**6
    rows = client.body("/fapi/v1/aggTrades", symbol="BTCUSDT", startTime=since, endTime=since + 1000)
    assert rows and all(since <= row["T"] <= since + 1000 for row in rows)


@pytest.mark.parametrize("name", ["globalLongShortAccountRatio", "topLongShortAccountRatio", "topLongShortPositionRatio"])
def test_ratios_have_their_fields_and_cost_no_weight(name: str) -> None:
    client = Client()
    reply = client.reply(f"/futures/data/{name}", symbol="BTCUSDT", period="5m", limit=1)
    (row,) = json.loads(reply.body)
    assert list(row) == ["symbol", "longShortRatio", "longAccount", "shortAccount", "timestamp"]
    assert float(row["longAccount"]) + float(row["shortAccount"]) == pytest.approx(1.0)
    assert float(row["longShortRatio"]) == pytest.approx(float(row["longAccount"]) / float(row["shortAccount"]), abs=1e-3)
    assert row["timestamp"] % 300_000 == 0
    assert reply.headers["X-MBX-USED-WEIGHT-1M"] == "0"


def test_small_calls() -> None:
    client = Client()
    assert client.body("/fapi/v1/ping") == {}
    assert client.body("/fapi/v1/time") == {"serverTime": START_NS // 10**6}
    assert client.body("/fapi/v1/fundingInfo") == []


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("/fapi/v1/depth", {}, 400, -1102),
        ("/fapi/v1/depth", {"symbol": "NOSUCH"}, 400, -1121),
        ("/fapi/v1/depth", {"symbol": "btcusdt"}, 400, -1121),
        ("/fapi/v1/depth", {"symbol": "BTCUSDT", "limit": 7}, 400, -4021),
        ("/fapi/v1/depth", {"symbol": "BTCUSDT", "limit": "x"}, 400, -1100),
        ("/fapi/v1/depth", {"symbol": "BTCUSDT", "limit": "-5"}, 400, -1100),
        ("/fapi/v1/aggTrades", {"symbol": "BTCUSDT", "fromId": "9" * 30}, 400, -1100),
        ("/futures/data/globalLongShortAccountRatio", {"symbol": "BTCUSDT", "period": "1m"}, 400, -1130),
        ("/futures/data/globalLongShortAccountRatio", {"symbol": "BTCUSDT"}, 400, -1130),
    ],
)
def test_wrong_requests_are_refused_in_the_venues_words(path: str, query: dict[str, Any], status: int, code: int) -> None:
    reply = Client().reply(path, **query)
    assert (reply.status, json.loads(reply.body)["code"]) == (status, code)
    assert int(reply.headers["X-MBX-USED-WEIGHT-1M"]) >= 0


def test_unknown_paths_are_not_found() -> None:
    assert Client().reply("/fapi/v1/nothing").status == 404


def test_weights_add_up_over_a_minute_and_beyond_the_limit_comes_429_then_418() -> None:
    client = Client()
    for turn in range(120):
        reply = client.reply("/fapi/v1/depth", symbol="BTCUSDT", limit=1000)
        assert (reply.status, reply.headers["X-MBX-USED-WEIGHT-1M"]) == (200, str(20 * (turn + 1)))
    client.now_ns += 20 * SECOND_NS
    reply = client.reply("/fapi/v1/openInterest", symbol="BTCUSDT")
    assert (reply.status, json.loads(reply.body)["code"]) == (429, -1003)
    assert 39 <= int(reply.headers["Retry-After"]) <= 41
    assert client.reply("/fapi/v1/ping", client="::1").status == 200
    for _ in range(BAN_AFTER):
        reply = client.reply("/fapi/v1/ping")
    assert client.reply("/fapi/v1/ping").status == 418
    client.now_ns += MINUTE_NS
    banned = client.reply("/fapi/v1/ping")
    assert banned.status == 418 and 1 <= int(banned.headers["Retry-After"]) <= 121
    client.now_ns += 2 * MINUTE_NS
    assert client.reply("/fapi/v1/ping").headers["X-MBX-USED-WEIGHT-1M"] == "1"


def test_ratios_have_a_limit_of_their_own() -> None:
    client = Client()
    path, query = "/futures/data/topLongShortAccountRatio", {"symbol": "BTCUSDT", "period": "5m"}
    assert {client.reply(path, **query).status for _ in range(1000)} == {200}
    assert client.reply(path, **query).status == 429
    assert client.reply("/fapi/v1/ping").status == 200


def test_a_meter_forgets_with_its_window() -> None:
    meter = Meter(10, 1000 * SECOND_NS)
    assert meter.charge("a", 10, 0) == (10, None)
    assert meter.charge("a", 1, 1) == (11, 1000)
    assert meter.charge("b", 1, 1) == (1, None)
    assert meter.charge("a", 1, 1000 * SECOND_NS) == (1, None)


@pytest.mark.parametrize(("step", "places"), [(0.1, 1), (0.01, 2), (1.0, 0), (10.0, 0), (1e-5, 5), (0.001, 3)])
def test_decimals_of_a_step(step: float, places: int) -> None:
    assert decimals(step) == places
