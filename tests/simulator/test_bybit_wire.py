"""Bybit's socket: the captured shapes, books a plain client follows, liquidations told once and on the right side, requests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.simulator import bybit_wire
from mpengine.simulator.book import ASK, BID, BookSide, Sign
from mpengine.simulator.bybit_wire import PATH, BybitWire, TopLevels, parse_topic
from mpengine.simulator.channels import MS
from mpengine.simulator.market import Changes, ForcedOrder, Market, SymbolMarket
from mpengine.simulator.process import wires_of
from mpengine.simulator.wire import Session
from shm.records import PositionSide
from tests.simulator.rig import SECOND_NS, market, small

# exchanges.md 4: a liquidation captured 2026-10-09, the others 2026-08-09
LIQUIDATION = json.loads(
    '{"topic":"allLiquidation.BTCUSDT","type":"snapshot","ts":1791565601482,"data":[{"T":1791565600992,"s":"BTCUSDT","S":"Buy",'
    '"v":"0.006","p":"82396.90"},{"T":1791565601058,"s":"BTCUSDT","S":"Buy","v":"0.038","p":"82394.30"}]}'
)
BOOK = json.loads(
    '{"topic":"orderbook.200.BTCUSDT","type":"delta","ts":1786310818130,"data":{"s":"BTCUSDT","b":[["65095.30","0.005"],'
    '["65093.10","0"]],"a":[["65116.60","0"]],"u":15076953,"seq":753843913870},"cts":1786310818129}'
)
TRADE = json.loads(
    '{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1786310819681,"data":[{"T":1786310819680,"s":"BTCUSDT","S":"Sell",'
    '"v":"0.004","p":"65114.20","L":"MinusTick","i":"a9188a0a-82bc-50de-be60-03eedbe3cdd7","BT":false,"RPI":false,'
    '"seq":753843954913}]}'
)
TICKER = json.loads(
    '{"topic":"tickers.BTCUSDT","type":"delta","data":{"symbol":"BTCUSDT","markPrice":"65117.43",'
    '"openInterestValue":"3899995666.09","singleOpenInterestValue":"1949997833.04"},"cs":753843915209,"ts":1786310818183}'
)
ALL_VENUES = {"binance": "BTCUSDT", "bybit": "BTCUSDT", "okx": "BTC-USDT-SWAP"}


def contracts(*symbols: str, seed: int = 3, **values: Any) -> Market:
    names = {"binance": "{}USDT", "bybit": "{}USDT"}
    return market(*[small(s, names={v: n.format(s) for v, n in names.items()}, **values) for s in symbols], seed=seed)


def wire(of: Market) -> BybitWire:
    return BybitWire(of, np.random.default_rng(3))


def opened(to: BybitWire) -> Session:
    session = to.open(PATH, {}, 0)
    assert session is not None
    return session


def ask(to: BybitWire, session: Session, request: Any) -> Any:
    """The one answer to a request."""
    to.receive(session, request if isinstance(request, str) else json.dumps(request), 0)
    (text,), session.outbox[:] = list(session.outbox), []
    return json.loads(text)


def subscribe(to: BybitWire, session: Session, *topics: str, op: str = "subscribe") -> None:
    assert ask(to, session, {"req_id": "1", "op": op, "args": topics})["success"] is True


def listening(to: BybitWire, *topics: str) -> Session:
    session = opened(to)
    subscribe(to, session, *topics)
    return session


def delivered(to: BybitWire, changes: list[Changes], session: Session) -> list[Any]:
    """What one step brings a session."""
    return [json.loads(message.text(False)) for message, sessions in to.publish(changes) if session in sessions]


def messages(of: Market, to: BybitWire, session: Session, seconds: float) -> Iterator[Any]:
    for changes in of.step(of.now_ns + int(seconds * SECOND_NS)):
        yield from delivered(to, changes, session)


class Client:
    """A book of plain dicts, built as the venue's documentation says."""

    def __init__(self) -> None:
        self.sides: dict[str, dict[float, float]] = {}
        self.last = 0
        self.snapshots = 0
        self.gone = 0
        self.breaks = 0

    def take(self, message: Any) -> None:
        data = message["data"]
        if message["type"] == "snapshot" or data["u"] == 1:
            self.sides = {side: {float(price): float(size) for price, size in data[side]} for side in ("b", "a")}
            self.snapshots += 1
        else:
            self.breaks += data["u"] != self.last + 1
            for side in ("b", "a"):
                for price, size in data[side]:
                    if float(size) == 0:
                        del self.sides[side][float(price)]  # only what was told before can be told as gone
                        self.gone += 1
                    else:
                        self.sides[side][float(price)] = float(size)
        self.last = data["u"]


def top(of: SymbolMarket, depth: int) -> dict[str, dict[float, float]]:
    """The best levels of the market as a client sees their numbers."""
    tick, lot = of.spec.tick, of.spec.lot
    sides = {"b": of.book.bids, "a": of.book.asks}
    return {
        name: {float(f"{at * tick:.2f}"): float(f"{lots * lot:.3f}") for at, lots in side.top(depth)}
        for name, side in sides.items()
    }


def shape(value: Any) -> Any:
    """Keys and types of a message; of rows only the first."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value and isinstance(value[0], dict) else "rows"
    return type(value)


def one_of(of: Market, topic: str, wanted: Callable[[Any], bool] = lambda _: True) -> Any:
    """The first such message of a topic within a minute."""
    to = wire(of)
    session = listening(to, topic)
    return next(message for message in messages(of, to, session, 60) if wanted(message))


def test_messages_look_like_the_captured_ones() -> None:
    of = contracts("BTC")
    assert shape(one_of(of, "orderbook.200.BTCUSDT", lambda one: one["type"] == "delta")) == shape(BOOK)
    assert shape(one_of(of, "publicTrade.BTCUSDT")) == shape(TRADE)
    ticker = one_of(of, "tickers.BTCUSDT", lambda one: one["type"] == "delta")
    assert shape({**ticker, "data": {}}) == shape({**TICKER, "data": {}})
    assert TICKER["data"].keys() <= one_of(of, "tickers.BTCUSDT")["data"].keys()
    of.symbols["BTC"].force(PositionSide.LONG, 3e6)
    assert shape(one_of(of, "allLiquidation.BTCUSDT")) == shape(LIQUIDATION)


@pytest.mark.parametrize(("depth", "every_ms"), [(50, 100), (200, 100), (1000, 200)])
def test_a_plain_client_has_the_best_levels_of_the_market_at_each_moment(depth: int, every_ms: int) -> None:
    of = contracts("BTC", activity=3.0)
    to, client = wire(of), Client()
    session = listening(to, f"orderbook.{depth}.BTCUSDT")
    compared = 0
    of.symbols["BTC"].force(PositionSide.LONG, 1e6)
    list(of.step(of.now_ns + 400 * MS))  # so that the subscription falls between two messages
    for changes in of.step(of.now_ns + 20 * SECOND_NS):
        for message in delivered(to, changes, session):
            client.take(message)
        if of.now_ns % (every_ms * MS) == 0:
            assert client.sides == top(of.symbols["BTC"], depth)
            compared += 1
    assert compared >= 100 and (client.snapshots, client.breaks) == (1, 0)
    assert client.gone > 50 and all(len(side) == depth for side in client.sides.values())


def test_a_level_that_is_pushed_out_is_told_as_gone_while_it_is_still_in_the_market() -> None:
    of = contracts("BTC", activity=3.0)
    to = wire(of)
    session = listening(to, "orderbook.50.BTCUSDT")
    pushed = 0
    for changes in of.step(of.now_ns + 20 * SECOND_NS):
        bids = {float(f"{at * 0.1:.2f}") for at in of.symbols["BTC"].book.bids.levels}
        for message in delivered(to, changes, session):
            pushed += sum(float(size) == 0 and float(price) in bids for price, size in message["data"]["b"])
    assert pushed > 0


def test_ids_go_up_by_one_and_sequences_never_back_also_over_a_new_subscription() -> None:
    of = contracts("BTC")
    to, session = wire(of), None
    seen: list[tuple[int, int]] = []
    for _ in range(3):
        session = listening(to, "orderbook.200.BTCUSDT")
        first, *rest = list(messages(of, to, session, 2))
        assert first["type"] == "snapshot" and {one["type"] for one in rest} == {"delta"}
        ids = [one["data"]["u"] for one in (first, *rest)]
        assert all(b == a + 1 for a, b in pairwise(ids))
        seen += [(one["data"]["u"], one["data"]["seq"]) for one in (first, *rest)]
        to.closed(session)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(seen))


def test_one_who_comes_later_gets_a_snapshot_and_the_deltas_of_all_fit_it() -> None:
    of = contracts("BTC")
    to, early, late = wire(of), Client(), Client()
    first = listening(to, "orderbook.1000.BTCUSDT")
    for message in messages(of, to, first, 1.1):
        early.take(message)
    second = listening(to, "orderbook.1000.BTCUSDT")
    for changes in of.step(of.now_ns + 3 * SECOND_NS):
        out = [(json.loads(message.text(False)), list(sessions)) for message, sessions in to.publish(changes)]
        for message, sessions in out:
            for session, client in ((first, early), (second, late)):
                if session in sessions:
                    client.take(message)
    assert (early.snapshots, late.snapshots, early.breaks, late.breaks) == (1, 1, 0, 0)
    assert (early.sides, early.last) == (late.sides, late.last)


def test_subscribing_anew_brings_a_snapshot() -> None:
    of = contracts("BTC")
    to, client = wire(of), Client()
    session = listening(to, "orderbook.50.BTCUSDT")
    for _ in range(2):
        for message in messages(of, to, session, 1):
            client.take(message)
        subscribe(to, session, "orderbook.50.BTCUSDT", op="unsubscribe")
        assert list(messages(of, to, session, 1)) == []
        subscribe(to, session, "orderbook.50.BTCUSDT")
    assert (client.snapshots, client.breaks) == (2, 0)


def test_the_best_level_alone_comes_as_snapshots_and_again_after_three_seconds_of_rest() -> None:
    of = contracts("BTC")
    to = wire(of)
    session = listening(to, "orderbook.1.BTCUSDT")
    live = list(messages(of, to, session, 3))
    assert {one["type"] for one in live} == {"snapshot"} and len(live) > 5
    assert all(len(one["data"][side]) == 1 for one in live for side in ("b", "a"))
    rest = []
    for (changes,) in of.step(of.now_ns + 10 * SECOND_NS):
        rest += delivered(to, [replace(changes, batches=[])], session)  # a book in which nothing happens
    assert [one["data"]["u"] for one in rest] == [live[-1]["data"]["u"]] * 3
    assert {b["ts"] - a["ts"] for a, b in pairwise(rest)} == {3000}


@given(st.lists(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=12), max_size=25), st.integers(1, 9))
@pytest.mark.parametrize("sign", [BID, ASK])
def test_the_best_levels_are_kept_whatever_happens_to_a_side(sign: Sign, turns: list[list[tuple[int, int]]], count: int) -> None:
    side = BookSide(sign)
    side.put(20, 5)
    side.put(22, 5)
    kept = TopLevels(side, count)
    client = dict(kept.all())
    for turn in turns:
        for tick, lots in turn:
            side.put(tick, lots)
        kept.note(side.touched)
        side.touched.clear()
        changed = kept.tell()
        assert all(client.get(tick, 0) != lots for tick, lots in changed), "only what is different"
        client.update(changed)
        client = {tick: lots for tick, lots in client.items() if lots}
        assert kept.all() == side.top(count) and client == dict(side.top(count))


def test_a_restart_of_the_service_is_a_snapshot_with_u_1_and_goes_on_from_there() -> None:
    of = contracts("BTC", "ETH")
    to, clients = wire(of), {"BTCUSDT": Client(), "ETHUSDT": Client()}
    session = listening(to, "orderbook.200.BTCUSDT", "orderbook.200.ETHUSDT")
    for seconds in (1.0, 2.0):
        for message in messages(of, to, session, seconds):
            clients[message["data"]["s"]].take(message)
        if seconds == 1.0:
            to.restart()
    for symbol, client in (("BTC", clients["BTCUSDT"]), ("ETH", clients["ETHUSDT"])):
        assert (client.snapshots, client.breaks) == (2, 0)
        assert 1 < client.last < 40
        assert client.sides == top(of.symbols[symbol], 200)


def test_trades_are_the_markets_with_the_takers_side_and_ids_of_their_own() -> None:
    of = contracts("BTC")
    to = wire(of)
    session = listening(to, "publicTrade.BTCUSDT")
    expected, rows = [], []
    for changes in of.step(of.now_ns + 5 * SECOND_NS):
        for trade in changes[0].trades:
            side = "Buy" if trade.buy else "Sell"
            expected.append((trade.ts_ns // MS, side, f"{trade.lots * 0.001:.3f}", f"{trade.tick * 0.1:.2f}"))
        for message in delivered(to, changes, session):
            rows += message["data"]
    assert [(row["T"], row["S"], row["v"], row["p"]) for row in rows] == expected and len(rows) > 20
    assert len({row["i"] for row in rows}) == len(rows)
    assert {len(row["i"]) for row in rows} == {36} and not any(row["BT"] for row in rows)
    assert {row["RPI"] for row in rows} == {True, False}


def test_many_trades_of_a_step_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bybit_wire, "TRADES_IN_MESSAGE", 2)
    of = contracts("BTC", activity=20.0)
    to = wire(of)
    session = listening(to, "publicTrade.BTCUSDT")
    total, sizes = 0, Counter[int]()
    for changes in of.step(of.now_ns + 3 * SECOND_NS):
        total += len(changes[0].trades)
        sizes.update(len(message["data"]) for message in delivered(to, changes, session))
    assert set(sizes) == {1, 2} and sizes[1] + 2 * sizes[2] == total


def crash(to: BybitWire, of: Market, sessions: list[Session]) -> tuple[list[ForcedOrder], list[list[Any]]]:
    """Forced orders of a fall and a rise, and the liquidation messages that each session got."""
    orders: list[ForcedOrder] = []
    got: list[list[Any]] = [[] for _ in sessions]
    for side in (PositionSide.LONG, PositionSide.SHORT):
        of.symbols["BTC"].force(side, 3e6)
        for changes in of.step(of.now_ns + 40 * SECOND_NS):
            orders += changes[0].forced
            for message, listeners in to.publish(changes):
                for session, own in zip(sessions, got, strict=True):
                    if session in listeners:
                        own.append(json.loads(message.text(False)))
    for changes in of.step(of.now_ns + SECOND_NS):  # the last batch
        orders += changes[0].forced
        for message, listeners in to.publish(changes):
            for session, own in zip(sessions, got, strict=True):
                if session in listeners:
                    own.append(json.loads(message.text(False)))
    return orders, got


def test_every_order_of_bybit_comes_once_with_the_side_of_the_position() -> None:
    of = market(small(names=ALL_VENUES, positions=300), seed=5)
    to = wire(of)
    orders, (got,) = crash(to, of, [listening(to, "allLiquidation.BTCUSDT")])
    side = {PositionSide.LONG: "Buy", PositionSide.SHORT: "Sell"}
    own = [order for order in orders if order.venue == "bybit"]
    rows = [row for message in got for row in message["data"]]
    assert [(row["T"], row["S"], row["v"], row["p"]) for row in rows] == [
        (order.ts_ns // MS, side[order.side], f"{order.filled_lots * 0.001:.3f}", f"{order.limit:.2f}") for order in own
    ]
    assert {row["S"] for row in rows} == {"Buy", "Sell"} and len(own) > 20
    assert {order.venue for order in orders} == {"binance", "bybit", "okx"}
    assert all(b["ts"] - a["ts"] >= 500 for a, b in pairwise(got)), "batches of 500 ms"
    assert max(len(message["data"]) for message in got) > 1


def test_the_side_is_what_the_market_shows_a_long_dies_below_the_mark_and_below_its_entry() -> None:
    """Nothing of the simulator's own naming is used here: a flipped side on the wire contradicts the prices beside it."""
    of = market(small(names=ALL_VENUES, positions=300), seed=5)
    to = wire(of)
    session = listening(to, "allLiquidation.BTCUSDT", "tickers.BTCUSDT")
    violations = events = 0
    mark = 0.0
    for name in (PositionSide.LONG, PositionSide.SHORT):
        of.symbols["BTC"].force(name, 3e6)
        for message in messages(of, to, session, 40):
            if message["topic"].startswith("tickers"):
                mark = float(message["data"].get("markPrice", mark))
                continue
            for row in message["data"]:
                events += 1
                violations += (float(row["p"]) < mark) is not (row["S"] == "Buy")
    assert events > 20 and violations <= events * 0.1


def test_a_liquidation_reaches_every_listener_once_and_is_encoded_once() -> None:
    of = market(small(names=ALL_VENUES, positions=300), seed=5)
    to = wire(of)
    _, got = crash(to, of, [listening(to, "allLiquidation.BTCUSDT"), listening(to, "allLiquidation.BTCUSDT")])
    assert got[0] == got[1] and got[0]


def test_a_ticker_is_merged_from_a_snapshot_and_what_changed() -> None:
    of = contracts("BTC")
    to = wire(of)
    session = listening(to, "tickers.BTCUSDT")
    merged: dict[str, str] = {}
    names = Counter[str]()
    count = 0
    for changes in of.step(of.now_ns + 20 * SECOND_NS):
        for message in delivered(to, changes, session):
            if message["type"] == "snapshot":
                merged = dict(message["data"])
                continue
            told = message["data"]
            assert told.pop("symbol") == "BTCUSDT" and all(merged[name] != value for name, value in told.items())
            merged.update(told)
            names.update(list(told))
            count += 1
        one = of.symbols["BTC"]
        assert merged["markPrice"] == f"{one.mark.mark:.2f}" and merged["fundingRate"] == f"{one.mark.funding_rate:.8f}"
        assert merged["bid1Price"] == f"{one.book.bids.best * 0.1:.2f}"
        assert float(merged["openInterest"]) == pytest.approx(2 * float(merged["singleOpenInterest"]), abs=1e-9)
        assert abs(float(merged["singleOpenInterest"]) - one.open_interest * one.spec.share("bybit")) <= 0.001
    assert count > 100 and names["nextFundingTime"] == 0 and 0 < names["singleOpenInterest"] < count


def test_a_small_price_is_printed_in_digits() -> None:
    of = market(small("PEPE", price=0.00001234, names={"bybit": "1000PEPEUSDT"}, lot=1.0, tick=1e-8), seed=3)
    ticker = one_of(of, "tickers.1000PEPEUSDT")["data"]
    assert all("e" not in ticker[name] for name in ("markPrice", "indexPrice", "bid1Price"))
    assert float(ticker["markPrice"]) == pytest.approx(of.symbols["PEPE"].mark.mark, rel=1e-3)


def test_requests_are_answered() -> None:
    to = wire(contracts("BTC"))
    session = opened(to)
    answer = ask(to, session, {"req_id": "7", "op": "subscribe", "args": ["tickers.BTCUSDT"]})
    assert answer == {"success": True, "ret_msg": "", "conn_id": answer["conn_id"], "req_id": "7", "op": "subscribe"}
    assert ask(to, session, {"op": "ping"}) == {**answer, "ret_msg": "pong", "req_id": "", "op": "ping"}
    assert ask(to, opened(to), {"op": "ping"})["conn_id"] != answer["conn_id"]
    assert ask(to, session, {"op": "unsubscribe", "args": ["tickers.BTCUSDT"]})["success"] is True
    assert list(session.streams) == []


@pytest.mark.parametrize(
    "topic",
    ["tickers.NOSUCH", "orderbook.7.BTCUSDT", "orderbook.BTCUSDT", "liquidation.BTCUSDT", "allLiquidation", "tickers.50.BTCUSDT",
     "allLiquidation.*", "", 5, None],
)  # fmt: skip
def test_one_bad_topic_refuses_its_request(topic: object) -> None:
    to = wire(contracts("BTC"))
    session = opened(to)
    answer = ask(to, session, {"op": "subscribe", "args": ["publicTrade.BTCUSDT", topic]})
    assert answer["success"] is False and answer["op"] == "subscribe" and "handler not found" in answer["ret_msg"]
    assert list(session.streams) == []


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '"x"', '{"op":"subscribe"}', '{"op":["subscribe"],"args":[]}', '{"op":"auth","args":[]}']
)
def test_unreadable_and_unknown_requests_are_refused(text: str) -> None:
    to = wire(contracts("BTC"))
    assert ask(to, opened(to), text)["success"] is False


def test_only_the_linear_endpoint_exists() -> None:
    to = wire(contracts("BTC"))
    assert [to.open(path, {}, 0) for path in ("/v5/public/spot", "/v5/public", "/", "/v5/public/linear/")] == [None] * 4


def test_topics_are_taken_apart() -> None:
    assert parse_topic("orderbook.200.BTCUSDT") == ("orderbook", "200", "BTCUSDT")
    assert parse_topic("allLiquidation.BTCUSDT") == ("allLiquidation", "", "BTCUSDT")


def test_equal_markets_say_the_same_and_without_listeners_nothing_is_said() -> None:
    def said(*topics: str) -> list[bytes]:
        of = contracts("BTC", "ETH", seed=9)
        to = wire(of)
        session = listening(to, *topics)
        return [
            message.text(False)
            for changes in of.step(of.now_ns + 3 * SECOND_NS)
            for message, sessions in to.publish(changes)
            if session in sessions
        ]

    some = ("orderbook.200.BTCUSDT", "publicTrade.ETHUSDT", "tickers.BTCUSDT")
    assert said(*some) == said(*some) != []
    of = contracts("BTC")
    assert [list(wire(of).publish(changes)) for changes in of.step(of.now_ns + SECOND_NS)] == [[]] * 10


def test_the_market_is_the_same_whoever_listens() -> None:
    """Bybit beside Binance takes no chance from the market: its books, trades and positions stay bit for bit."""

    def after(listen: bool) -> Any:
        of = contracts("BTC", seed=9)
        wires = wires_of(of, np.random.default_rng(1))
        bybit = next(one for one in wires if isinstance(one, BybitWire))
        if listen:
            listening(bybit, "orderbook.1000.BTCUSDT", "tickers.BTCUSDT", "allLiquidation.BTCUSDT", "publicTrade.BTCUSDT")
        for changes in of.step(of.now_ns + 5 * SECOND_NS):
            for one in wires:
                list(one.publish(changes))
        return of.truth("BTC"), of.symbols["BTC"].book.bids.levels, of.symbols["BTC"].last_id

    assert after(True) == after(False)
