"""Binance's messages: the fields of captured ones, the rules of each stream, and sockets that behave like the venue's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mpengine.simulator.binance_wire import MESSAGES_PER_S, STREAM_LIMIT, BinanceWire, StreamName, parse_stream
from mpengine.simulator.market import Changes, Market
from mpengine.simulator.positions import LONG
from mpengine.simulator.wire import Session
from tests.simulator.rig import SECOND_NS, market, small, steps

SAMPLES = {
    # exchanges.md 3.4, captured 2024-08-08 (today with ps and st), 2026-10-08, 2026-10-09, October 2026
    "depthUpdate": '{"e":"depthUpdate","E":1723161256352,"T":1723161256352,"s":"BTCUSDT","U":5123107837801,"u":5123107842679,'
    '"pu":5123107837557,"b":[["1000.00","606.675"],["55620.20","0.000"]],"a":[["61816.10","0.004"]],"ps":"BTCUSDT","st":1}',
    "aggTrade": '{"e":"aggTrade","E":1791391082024,"a":3478018549,"s":"BTCUSDT","p":"83434.40","q":"0.016","nq":"0.016",'
    '"f":8154045700,"l":8154045704,"T":1791391081874,"m":true,"st":1}',
    "forceOrder": '{"e":"forceOrder","E":1791565603055,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.190",'
    '"p":"82338.30","ap":"82651.90","X":"FILLED","l":"0.155","z":"0.190","T":1791565602120,"ps":"BTCUSDT","st":1}}',
    "markPriceUpdate": '{"e":"markPriceUpdate","E":1791269856000,"s":"BTCUSDT","p":"85296.60260870","ap":"85296.60260870",'
    '"P":"85321.91711993","i":"85345.93826087","r":"0.00000523","T":1791273600000,"st":1}',
    # recorded 2023-04-04 (bookTicker, trade), with the fields of the merge of June 2026
    "bookTicker": '{"e":"bookTicker","u":2710246762461,"s":"BTCUSDT","b":"28145.10","B":"3.868","a":"28145.20","A":"6.887",'
    '"T":1680652700430,"E":1680652700435,"ps":"BTCUSDT","st":1}',
    "trade": '{"e":"trade","E":1680652700455,"T":1680652700452,"s":"BTCUSDT","t":3535186032,"p":"28145.10","q":"0.002",'
    '"X":"MARKET","m":true,"st":1}',
}
PRICE = re.compile(r"-?\d+\.\d{2}")
ALL = (
    "btcusdt@depth", "btcusdt@depth@0ms", "btcusdt@depth@100ms", "btcusdt@depth@250ms", "btcusdt@depth@500ms", "btcusdt@depth5",
    "btcusdt@depth10@500ms", "btcusdt@depth20@100ms", "btcusdt@bookTicker", "!bookTicker",
)  # fmt: skip
MARKET = (
    "btcusdt@aggTrade", "btcusdt@trade", "btcusdt@markPrice", "btcusdt@markPrice@1s", "btcusdt@forceOrder", "!forceOrder@arr",
    "!markPrice@arr", "!markPrice@arr@1s",
)  # fmt: skip


def wire(*of: Market) -> tuple[Market, BinanceWire]:
    one = of[0] if of else market()
    return one, BinanceWire(one, np.random.default_rng(3))


def listen(to: BinanceWire, route: str, *streams: str) -> Session:
    session = to.open(f"/{route}/stream", {"streams": "/".join(streams)}, 0)
    assert session is not None
    return session


def published(of: Market, to: BinanceWire, seconds: float) -> Iterator[tuple[str, Any, Session]]:
    """(stream, payload, session) of everything delivered in some market time."""
    for changes in of.step(of.now_ns + int(seconds * SECOND_NS)):
        for message, sessions in to.publish(changes):
            for session in sessions:
                wrapped = json.loads(message.text(session.combined))
                payload = wrapped["data"] if session.combined else wrapped
                assert not session.combined or wrapped["stream"] == message.stream
                yield message.stream, payload, session


def payloads(of: Market, to: BinanceWire, seconds: float, stream: str) -> list[Any]:
    return [payload for name, payload, _ in published(of, to, seconds) if name == stream]


def shape(value: Any) -> Any:
    """Keys in order and kinds of values."""
    if isinstance(value, dict):
        return [(key, shape(part)) for key, part in value.items()]
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, str):
        return "number" if re.fullmatch(r"-?\d+(\.\d+)?", value) else "text"
    return type(value).__name__


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("btcusdt@depth", StreamName("btcusdt", "depth", "")),
        ("btcusdt@depth@100ms", StreamName("btcusdt", "depth", "100ms")),
        ("btcusdt@depth20@500ms", StreamName("btcusdt", "depth20", "500ms")),
        ("btcusdt@markPrice@1s", StreamName("btcusdt", "markPrice", "1s")),
        ("!markPrice@arr@1s", StreamName("", "!markPrice", "1s")),
        ("!forceOrder@arr", StreamName("", "!forceOrder", "")),
        ("!bookTicker", StreamName("", "!bookTicker", "")),
        ("币安usdt@aggTrade", StreamName("币安usdt", "aggTrade", "")),
        ("BTCUSDT@depth", None),
        ("btcusdt@depth@1s", None),
        ("btcusdt@depth7", None),
        ("btcusdt@aggTrade@100ms", None),
        ("btcusdt", None),
        ("!forceOrder", None),
        ("", None),
    ],
)
def test_stream_names_are_taken_apart(name: str, parsed: StreamName | None) -> None:
    assert parse_stream(name) == parsed


def test_every_message_has_the_fields_of_a_captured_one() -> None:
    of, to = wire(market(small(volatility=8.0, positions=300), seed=3))
    listen(to, "public", *ALL)
    listen(to, "market", *MARKET)
    seen = set()
    for stream, payload, _ in published(of, to, 30):
        for row in payload if isinstance(payload, list) else [payload]:
            if row["e"] == "depthUpdate" and not (row["b"] and row["a"]):
                continue
            assert shape(row) == shape(json.loads(SAMPLES[row["e"]])), stream
            seen.add(stream)
    assert seen == {*ALL, *MARKET}


def test_numbers_are_printed_as_the_venue_prints_them() -> None:
    of, to = wire(market(small(volatility=5.0)))
    listen(to, "public", "btcusdt@depth@100ms")
    listen(to, "market", "btcusdt@aggTrade", "btcusdt@markPrice@1s")
    for stream, payload, _ in published(of, to, 5):
        if "depth" in stream:
            for price, quantity in payload["b"] + payload["a"]:
                assert PRICE.fullmatch(price) and re.fullmatch(r"\d+\.\d{3}", quantity)
                assert quantity == "0.000" or float(quantity) > 0
        elif "aggTrade" in stream:
            assert PRICE.fullmatch(payload["p"]) and re.fullmatch(r"\d+\.\d{3}", payload["q"])
        else:
            assert re.fullmatch(r"\d+\.\d{8}", payload["p"]) and re.fullmatch(r"-?0\.\d{8}", payload["r"])


@pytest.mark.parametrize(("speed", "per_second"), [("", 4), ("@250ms", 4), ("@500ms", 2), ("@100ms", 10), ("@0ms", 30)])
@pytest.mark.parametrize("symbol", ["btcusdt", "ethusdt", "solusdt"])
def test_diffs_come_at_their_speed_and_chain_by_pu_only(speed: str, per_second: int, symbol: str) -> None:
    of, to = wire(market(small(), small("ETH"), small("SOL")))
    before = {s: m.last_id for s, m in of.symbols.items()}[symbol[:-4].upper()]
    listen(to, "public", f"{symbol}@depth{speed}")
    events = payloads(of, to, 20, f"{symbol}@depth{speed}")
    assert len(events) == pytest.approx(20 * per_second, abs=2)
    assert events[0]["pu"] == before
    for one, two in pairwise(events):
        assert two["pu"] == one["u"] < two["U"] <= two["u"]
        assert one["E"] <= two["E"] and one["T"] <= two["T"]
    assert any(two["U"] != one["u"] + 1 for one, two in pairwise(events))
    for event in events:
        prices = [float(price) for price, _ in event["b"]]
        assert prices == sorted(prices) and len(set(prices)) == len(prices)


@pytest.mark.parametrize("speed", ["", "@0ms", "@100ms", "@500ms"])
def test_diffs_of_every_speed_give_the_book_of_their_last_id(speed: str) -> None:
    of, to = wire(market(small(volatility=5.0), small("ETH")))
    listen(to, "public", f"ethusdt@depth{speed}")
    form = of.symbols["ETH"].spec
    bids = {f"{t * form.tick:.2f}": lots for t, lots in of.symbols["ETH"].book.bids.levels.items()}
    at: dict[int, dict[str, int]] = {}
    followed = {price: f"{lots * form.lot:.3f}" for price, lots in bids.items()}
    state, checked = dict(bids), 0
    for changes in of.step(of.now_ns + 10 * SECOND_NS):
        for batch in changes[1].batches:
            for tick, lots in batch.bids.items():
                price = f"{tick * form.tick:.2f}"
                state.pop(price, None)
                if lots:
                    state[price] = lots
            at[batch.last_id] = dict(state)
        for message, _ in to.publish(changes):
            event = json.loads(message.data)
            for price, quantity in event["b"]:
                followed.pop(price, None)
                if float(quantity):
                    followed[price] = quantity
            expected = {price: f"{lots * form.lot:.3f}" for price, lots in at[event["u"]].items()}
            assert followed == expected
            checked += 1
    assert checked > 15


def test_a_late_listener_joins_the_chain_of_the_others() -> None:
    of, to = wire()
    first = listen(to, "public", "btcusdt@depth@500ms")
    list(published(of, to, 0.7))
    second = listen(to, "public", "btcusdt@depth@500ms")
    got: dict[int, list[Any]] = {id(first): [], id(second): []}
    for _, payload, session in published(of, to, 3):
        got[id(session)].append(payload)
    assert got[id(first)] == got[id(second)] != []


@pytest.mark.parametrize("levels", [5, 10, 20])
def test_partial_books_are_the_best_levels_best_first(levels: int) -> None:
    of, to = wire()
    listen(to, "public", f"btcusdt@depth{levels}@100ms")
    for changes in of.step(of.now_ns + 3 * SECOND_NS):
        (delivery,) = to.publish(changes)
        event = json.loads(delivery[0].data)
        book = of.symbols["BTC"].book
        assert [p for p, _ in event["b"]] == [f"{t * 0.1:.2f}" for t in sorted(book.bids.levels, reverse=True)[:levels]]
        assert [p for p, _ in event["a"]] == [f"{t * 0.1:.2f}" for t in sorted(book.asks.levels)[:levels]]
        assert event["u"] == of.symbols["BTC"].last_id


def test_book_ticker_says_every_change_of_the_touch_once() -> None:
    of, to = wire()
    listen(to, "public", "btcusdt@bookTicker")
    rows, touches = [], []
    for changes in of.step(of.now_ns + 10 * SECOND_NS):
        touches += [batch.touch for batch in changes[0].batches]
        rows += [json.loads(message.data) for message, _ in to.publish(changes)]
    changed = [touch for i, touch in enumerate(touches) if i == 0 or touch != touches[i - 1]]
    assert [(r["b"], r["B"], r["a"], r["A"]) for r in rows] == [
        (f"{b * 0.1:.2f}", f"{bq * 0.001:.3f}", f"{a * 0.1:.2f}", f"{aq * 0.001:.3f}") for b, bq, a, aq in changed
    ]


def test_single_trades_add_up_to_the_aggregated_ones() -> None:
    of, to = wire()
    listen(to, "market", "btcusdt@aggTrade", "btcusdt@trade")
    aggregated, single = [], []
    for stream, payload, _ in published(of, to, 20):
        (aggregated if stream.endswith("aggTrade") else single).append(payload)
    assert [row["t"] for row in single] == list(range(aggregated[0]["f"], aggregated[-1]["l"] + 1))
    by_id = {row["t"]: row for row in single}
    for row in aggregated:
        parts = [by_id[number] for number in range(row["f"], row["l"] + 1)]
        assert sum(round(float(p["q"]) * 1000) for p in parts) == round(float(row["q"]) * 1000)
        assert {(p["p"], p["m"]) for p in parts} == {(row["p"], row["m"])}
        assert float(row["nq"]) <= float(row["q"])
    assert [row["a"] for row in aggregated] == list(range(aggregated[0]["a"], aggregated[0]["a"] + len(aggregated)))


def test_maker_flag_is_true_where_the_taker_sold() -> None:
    of, to = wire()
    listen(to, "market", "btcusdt@aggTrade")
    for changes in of.step(of.now_ns + 5 * SECOND_NS):
        rows = [json.loads(message.data) for message, _ in to.publish(changes)]
        assert [row["m"] for row in rows] == [not trade.buy for trade in changes[0].trades]


@pytest.mark.parametrize(("stream", "every"), [("btcusdt@markPrice", 3), ("btcusdt@markPrice@1s", 1)])
def test_marks_come_on_their_seconds(stream: str, every: int) -> None:
    of, to = wire()
    listen(to, "market", stream)
    rows = payloads(of, to, 30, stream)
    assert len(rows) == 30 // every
    assert all(row["E"] % (every * 1000) == 0 for row in rows)


def test_all_marks_come_in_one_array_with_coin_margined_rows() -> None:
    of, to = wire(market(small(), small("ETH")))
    listen(to, "market", "!markPrice@arr@1s")
    rows = payloads(of, to, 3, "!markPrice@arr@1s")
    assert [[(row["s"], row["st"]) for row in array] for array in rows] == 3 * [
        [("BTCUSDT", 1), ("ETHUSDT", 1), ("BTCUSD_PERP", 2)]
    ]


def forced_seconds(of: Market, to: BinanceWire, seconds: int) -> tuple[dict[int, list[Any]], list[Any], list[list[Changes]]]:
    """Orders of each second, the messages of `!forceOrder@arr`, all changes."""
    orders: dict[int, list[Any]] = {}
    rows, everything = [], []
    for changes in of.step(of.now_ns + seconds * SECOND_NS):
        everything.append(changes)
        for order in changes[0].forced:
            orders.setdefault(order.ts_ns // SECOND_NS, []).append(order)
        rows += [json.loads(message.data) for message, _ in to.publish(changes)]
    return orders, rows, everything


def test_of_each_second_only_the_largest_forced_order_is_told_a_second_later() -> None:
    of, to = wire(market(small(volatility=8.0, positions=2000), seed=3))
    listen(to, "market", "!forceOrder@arr")
    orders, rows, _ = forced_seconds(of, to, 60)
    ours = [row for row in rows if row["o"]["s"] == "BTCUSDT"]
    assert len(ours) == len(orders) > 3
    assert any(len(group) > 1 for group in orders.values())
    for row in ours:
        group = orders[row["o"]["T"] // 1000]
        largest = max(group, key=lambda o: o.filled_lots * o.average)
        assert row["o"]["z"] == f"{largest.filled_lots * 0.001:.3f}"
        assert row["o"]["ap"] == f"{largest.average:.2f}" and row["o"]["p"] == f"{largest.limit:.2f}"
        assert row["o"]["S"] == ("SELL" if largest.side is LONG else "BUY")
        assert row["o"]["X"] == ("FILLED" if largest.filled_lots == largest.lots else "PARTIALLY_FILLED")
        assert 0 < row["E"] - row["o"]["T"] <= 1000


def test_prices_of_forced_orders_lie_beyond_the_fill_on_the_side_of_the_loss() -> None:
    of, to = wire(market(small(volatility=8.0, positions=2000), seed=3))
    listen(to, "market", "btcusdt@forceOrder")
    rows = payloads(of, to, 60, "btcusdt@forceOrder")
    assert {row["o"]["S"] for row in rows} == {"SELL", "BUY"}
    for row in rows:
        sign = 1 if row["o"]["S"] == "SELL" else -1
        assert sign * (float(row["o"]["ap"]) - float(row["o"]["p"])) >= 0


def test_rows_of_markets_nobody_asked_for_come_with_the_venue_wide_stream() -> None:
    of, to = wire(market(small("ALT", activity=0.05)))
    listen(to, "market", "!forceOrder@arr", "altusdt@forceOrder")
    rows = [(stream, row["o"]) for stream, row, _ in published(of, to, 400)]
    foreign = [o for stream, o in rows if stream == "!forceOrder@arr" and o["s"] != "ALTUSDT"]
    assert {(o["s"], o["ps"], o["st"]) for o in foreign} == {("BTCUSD_PERP", "BTCUSD", 2), ("1000PEPEUSDT", "1000PEPEUSDT", 1)}
    assert all(o["s"] == "ALTUSDT" for stream, o in rows if stream == "altusdt@forceOrder")


@pytest.mark.parametrize(
    ("route", "streams"),
    [
        ("market", ("btcusdt@depth@100ms", "btcusdt@bookTicker", "!bookTicker")),
        ("public", ("btcusdt@aggTrade", "!forceOrder@arr", "btcusdt@markPrice@1s")),
        ("public", ("BTCUSDT@depth", "nosuch@depth", "btcusdt@nonsense")),
    ],
)
def test_the_wrong_route_lists_a_stream_and_never_delivers_it(route: str, streams: tuple[str, ...]) -> None:
    of, to = wire()
    session = listen(to, route, *streams)
    to.receive(session, '{"method":"LIST_SUBSCRIPTIONS","id":9}', 0)
    assert json.loads(session.outbox.pop()) == {"result": list(streams), "id": 9}
    assert list(published(of, to, 5)) == []


@pytest.mark.parametrize(("path", "delivers"), [("/stream", True), ("/ws/btcusdt@depth@100ms", True)])
def test_without_a_route_the_public_streams_come(path: str, delivers: bool) -> None:
    of, to = wire()
    session = to.open(path, {"streams": "btcusdt@depth@100ms/btcusdt@aggTrade"}, 0)
    assert session is not None
    assert {stream for stream, _, _ in published(of, to, 2)} == {"btcusdt@depth@100ms"}


@pytest.mark.parametrize("path", ["/", "/public", "/private/stream", "/public/stream/x", "/fapi/v1/depth", ""])
def test_other_addresses_are_no_endpoints(path: str) -> None:
    assert wire()[1].open(path, {}, 0) is None


def test_raw_sockets_get_bare_payloads_and_can_ask_for_the_wrapper() -> None:
    of, to = wire()
    session = to.open("/market/ws/btcusdt@markPrice@1s", {}, 0)
    assert session is not None and not session.combined
    ((_, payload, _),) = published(of, to, 1)
    assert payload["e"] == "markPriceUpdate"
    to.receive(session, '{"method":"SET_PROPERTY","params":["combined",true],"id":5}', 0)
    assert json.loads(session.outbox.pop()) == {"result": None, "id": 5}
    ((stream, _, _),) = published(of, to, 1)
    assert stream == "btcusdt@markPrice@1s" and session.combined


def test_subscriptions_change_on_the_wire() -> None:
    of, to = wire()
    session = listen(to, "market")
    ask = lambda text: (to.receive(session, text, 10**12), json.loads(session.outbox.pop()))[1]  # noqa: E731
    assert ask('{"method":"SUBSCRIBE","params":["btcusdt@markPrice@1s"],"id":1}') == {"result": None, "id": 1}
    assert len(list(published(of, to, 2))) == 2
    assert ask('{"method":"SUBSCRIBE","params":["btcusdt@markPrice@1s"],"id":"x"}') == {"result": None, "id": "x"}
    assert len(list(published(of, to, 2))) == 2
    assert ask('{"method":"UNSUBSCRIBE","params":["btcusdt@markPrice@1s","other@trade"],"id":312}') == {"result": None, "id": 312}
    assert ask('{"method":"LIST_SUBSCRIPTIONS","id":3}') == {"result": [], "id": 3}
    assert list(published(of, to, 2)) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 3),
        ("[1]", 2),
        ('{"method":"SUBSCRIBE","params":["a"]}', 2),
        ('{"method":"SUBSCRIBE","params":["a"],"id":true}', 2),
        ('{"method":"SUBSCRIBE","params":"a","id":1}', 1),
        ('{"method":"SUBSCRIBE","params":[1],"id":1}', 1),
        ('{"method":"DANCE","id":1}', 0),
    ],
)
def test_bad_requests_are_answered_with_an_error_and_nothing_else(text: str, code: int) -> None:
    _, to = wire()
    session = listen(to, "public")
    to.receive(session, text, 0)
    assert json.loads(session.outbox.pop())["error"]["code"] == code
    assert session.close_code is None and not session.streams


def test_more_streams_than_the_limit_are_refused() -> None:
    _, to = wire()
    names = [f"c{i}@trade" for i in range(STREAM_LIMIT)]
    session = listen(to, "market", *names)
    to.receive(session, '{"method":"SUBSCRIBE","params":["more@trade"],"id":1}', 0)
    assert "too many" in json.loads(session.outbox.pop())["error"]["msg"]
    assert to.open("/market/stream", {"streams": "/".join([*names, "more@trade"])}, 0) is None


def test_more_messages_a_second_than_the_limit_end_the_connection() -> None:
    _, to = wire()
    session = listen(to, "public")
    for i in range(MESSAGES_PER_S):
        to.receive(session, '{"method":"LIST_SUBSCRIPTIONS","id":1}', i * 10**8)
    assert session.close_code is None
    to.receive(session, '{"method":"LIST_SUBSCRIPTIONS","id":1}', 10**9 - 1)
    assert session.close_code == 1008


def test_closed_sockets_get_nothing_and_leave_nothing() -> None:
    of, to = wire()
    session = listen(to, "public", "btcusdt@depth@100ms", "btcusdt@bookTicker")
    to.closed(session)
    assert list(published(of, to, 1)) == []
    assert to.listeners.wanted() == [] and session.streams == {}


def test_symbols_without_a_name_at_the_venue_are_not_traded_there() -> None:
    of, to = wire(market(small(), small("ETH", names={"okx": "ETH-USDT-SWAP"})))
    listen(to, "public", "btcusdt@depth@100ms", "ethusdt@depth@100ms")
    assert {stream for stream, _, _ in published(of, to, 1)} == {"btcusdt@depth@100ms"}


def test_two_wires_over_equal_markets_say_the_same_bytes() -> None:
    texts = []
    for _ in range(2):
        of, to = wire(market(small(volatility=5.0), small("ETH"), seed=5))
        listen(to, "public", "btcusdt@depth@100ms", "ethusdt@depth")
        listen(to, "market", "!forceOrder@arr", "btcusdt@trade", "ethusdt@markPrice@1s")
        texts.append([m.text(True) for changes in steps(of, 20) for m, _ in to.publish(changes)])
    assert texts[0] == texts[1] and len(texts[0]) > 100
