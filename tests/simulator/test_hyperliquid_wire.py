"""Hyperliquid's socket and /info: the captured shapes, whole books in five figures, replayed trades, sockets that are cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mpengine.simulator.hyperliquid_wire import HyperliquidWire
from mpengine.simulator.market import Changes, Market, SymbolMarket
from mpengine.simulator.wire import ABNORMAL, Session
from tests.simulator.rig import SECOND_NS, market, small

# exchanges.md section 6, captured 2026-09-24
BOOK = json.loads(
    '{"channel":"l2Book","data":{"coin":"BTC","time":1790232236546,"levels":[[{"px":"84143.0","sz":"10.25923","n":36}],'
    '[{"px":"84144.0","sz":"50.66449","n":18}]]}}'
)
CONTEXT = json.loads(
    '{"channel":"activeAssetCtx","data":{"coin":"BTC","ctx":{"funding":"0.0000018952","openInterest":"36585.31848",'
    '"oraclePx":"84198.0","markPx":"84148.0","midPx":"84143.5"}}}'
)


def coins(*symbols: str, **values: Any) -> Market:
    return market(*[small(s, names={"binance": f"{s}USDT", "hyperliquid": s}, **values) for s in symbols or ("BTC",)])


def wire(of: Market) -> HyperliquidWire:
    return HyperliquidWire(of, np.random.default_rng(3))


def opened(to: HyperliquidWire) -> Session:
    session = to.open("/ws", {}, 0)
    assert session is not None
    return session


def ask(to: HyperliquidWire, session: Session, method: str = "subscribe", **subscription: Any) -> Any:
    to.receive(session, json.dumps({"method": method, "subscription": subscription}), 0)
    return json.loads(session.outbox.pop()) if session.outbox else None


def delivered(to: HyperliquidWire, changes: list[Changes], session: Session) -> list[Any]:
    return [json.loads(message.text(False)) for message, sessions in to.publish(changes) if session in sessions]


def messages(of: Market, to: HyperliquidWire, session: Session, seconds: float) -> Iterator[tuple[int, Any]]:
    """(market time, message)"""
    for changes in of.step(of.now_ns + int(seconds * SECOND_NS)):
        for message in delivered(to, changes, session):
            yield of.now_ns, message


def side(levels: list[Any]) -> list[tuple[Fraction, Fraction]]:
    return [(Fraction(level["px"]), Fraction(level["sz"])) for level in levels]


def grouped(of: SymbolMarket, step: Fraction, count: int) -> list[list[tuple[Fraction, Fraction]]]:
    """The best `count` price steps of the whole book, rounded away from the touch."""
    tick, lot = Fraction(str(of.spec.tick)), Fraction(str(of.spec.lot))
    both = []
    for levels, up in ((of.book.bids.levels, 0), (of.book.asks.levels, 1)):
        sums: dict[Fraction, Fraction] = {}
        for at, lots in levels.items():
            price = (-(-at * tick // step) if up else at * tick // step) * step
            sums[price] = sums.get(price, Fraction(0)) + lots * lot
        both.append(sorted(sums.items(), reverse=not up)[:count])
    return both


@pytest.mark.parametrize(("symbol", "step"), [("BTC", "1"), ("ETH", "0.1"), ("SOL", "0.01")])
@pytest.mark.parametrize(("fast", "count", "every_s"), [(True, 5, 0.54), (False, 20, 5.4)])
def test_books_are_whole_in_five_figures_and_come_at_their_pace(
    symbol: str, step: str, fast: bool, count: int, every_s: float
) -> None:
    of = coins(symbol)
    to = wire(of)
    session = opened(to)
    ask(to, session, type="l2Book", coin=symbol, fast=fast)
    times = []
    for now_ns, message in messages(of, to, session, 10 * every_s):
        data = message["data"]
        assert (message["channel"], data["coin"], data["time"]) == ("l2Book", symbol, now_ns // 10**6)
        assert [side(levels) for levels in data["levels"]] == grouped(of.symbols[symbol], Fraction(step), count)
        assert all("." in level["px"] and level["n"] > 0 for levels in data["levels"] for level in levels)
        times.append(data["time"])
    assert len(times) == pytest.approx(10, abs=1.1)
    assert all(abs((two - one) / 1000 - every_s) <= 0.1 for one, two in pairwise(times))


@pytest.mark.parametrize("price", [0.2, 7.0, 180.0, 42_000.0, 99_990.0, 250_000.0])
def test_prices_have_five_significant_figures_or_are_whole(price: float) -> None:
    of = coins("ALT", price=price)
    to = wire(of)
    session = opened(to)
    for wanted in ("l2Book", "bbo", "trades", "activeAssetCtx"):
        ask(to, session, type=wanted, coin="ALT")
    prices = set()
    for _, message in messages(of, to, session, 10):
        data = message["data"]
        if message["channel"] == "l2Book":
            prices |= {level["px"] for levels in data["levels"] for level in levels}
        elif message["channel"] == "bbo":
            prices |= {level["px"] for level in data["bbo"]}
        elif message["channel"] == "trades":
            prices |= {row["px"] for row in data}
    assert len(prices) > 10
    for text in prices:
        digits = text.replace(".", "").lstrip("0").rstrip("0")
        assert len(digits) <= 5 or float(text).is_integer()


def test_messages_have_the_fields_of_captured_ones() -> None:
    of = coins()
    to = wire(of)
    session = opened(to)
    ask(to, session, type="l2Book", coin="BTC")
    ask(to, session, type="activeAssetCtx", coin="BTC")
    seen = {}
    for _, message in messages(of, to, session, 2):
        seen[message["channel"]] = message["data"]
    assert list(seen["l2Book"]) == list(BOOK["data"]) and list(seen["l2Book"]["levels"][0][0]) == ["px", "sz", "n"]
    context = CONTEXT["data"]["ctx"]
    assert context.keys() <= seen["activeAssetCtx"]["ctx"].keys()
    assert all(isinstance(seen["activeAssetCtx"]["ctx"][key], str) for key in context)


def test_contexts_come_every_second_with_open_interest_of_their_own() -> None:
    of = coins()
    to = wire(of)
    session = opened(to)
    ask(to, session, type="activeAssetCtx", coin="BTC")
    one, times = of.symbols["BTC"], []
    for now_ns, message in messages(of, to, session, 10):
        context = message["data"]["ctx"]
        assert float(context["openInterest"]) == pytest.approx(0.15 * one.open_interest, abs=one.spec.lot)
        assert float(context["funding"]) == pytest.approx(one.funding_rate / 8, abs=1e-9)
        assert float(context["markPx"]) == pytest.approx(one.mark_price, abs=0.06)
        times.append(now_ns)
    assert len(times) in (10, 11) and all(two - one == SECOND_NS for one, two in pairwise(times[1:]))


def test_trades_begin_with_a_replay_of_20_s_and_none_is_missing() -> None:
    of = coins()
    to = wire(of)
    trades = [trade for changes in of.step(of.now_ns + 60 * SECOND_NS) for trade in changes[0].trades]
    began_ns = of.now_ns
    session = opened(to)
    ask(to, session, type="trades", coin="BTC")
    rows: dict[int, Any] = {}
    frames = []
    for changes in of.step(of.now_ns + 30 * SECOND_NS):
        trades += changes[0].trades
        for message in delivered(to, changes, session):
            frames.append(message["data"])
            rows |= {row["tid"]: row for row in message["data"]}
    first = [row["time"] for row in frames[0]]
    assert began_ns // 10**6 - 20_000 <= min(first) < began_ns // 10**6 - 15_000
    expected = {t.number: t for t in trades if t.ts_ns // 10**6 >= min(first)}
    for number in sorted(expected)[-20:]:  # the newest may wait for the next frame
        if number not in rows:
            del expected[number]
    assert rows.keys() == expected.keys() and len(rows) > 50
    for number, row in rows.items():
        trade = expected[number]
        assert row["side"] == ("B" if trade.buy else "A") and Fraction(row["sz"]) == trade.lots * Fraction("0.001")
        assert abs(Fraction(row["px"]) - trade.tick * Fraction("0.1")) < 1
    assert 30 <= len(frames) <= 120


def test_the_touch_is_told_where_it_changed() -> None:
    of = coins()
    to = wire(of)
    session = opened(to)
    ask(to, session, type="bbo", coin="BTC")
    touches = []
    for _, message in messages(of, to, session, 10):
        bid, ask_ = message["data"]["bbo"]
        assert float(bid["px"]) < float(ask_["px"])
        touches.append((bid["px"], bid["sz"], ask_["px"], ask_["sz"]))
    assert 20 <= len(touches) <= 80 and all(one != two for one, two in pairwise(touches))


def test_subscriptions_are_acknowledged_one_by_one() -> None:
    of = coins("BTC", "ETH")
    to = wire(of)
    session = opened(to)
    wanted: dict[str, Any] = {"type": "l2Book", "coin": "BTC", "fast": True}
    assert ask(to, session, **wanted) == {
        "channel": "subscriptionResponse", "data": {"method": "subscribe", "subscription": wanted}
    }  # fmt: skip
    assert ask(to, session, **wanted)["channel"] == "error"
    assert ask(to, session, type="trades", coin="ETH")["channel"] == "subscriptionResponse"
    assert sorted(to.channels.wanted) == ["l2Book:BTC:fast", "trades:ETH"]
    assert ask(to, session, "unsubscribe", **wanted)["data"]["method"] == "unsubscribe"
    assert ask(to, session, "unsubscribe", **wanted)["channel"] == "error"
    assert to.channels.wanted == ["trades:ETH"] and session.close_code is None


@pytest.mark.parametrize("coin", ["btc", "Btc", "XYZ", "MATIC", ""])
def test_a_coin_that_is_not_traded_cuts_the_socket_without_a_word(coin: str) -> None:
    to = wire(coins())
    session = opened(to)
    assert ask(to, session, type="l2Book", coin=coin) is None
    assert session.close_code == ABNORMAL == 1006


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"method":"dance"}',
        '{"method":"subscribe"}',
        '{"method":"subscribe","subscription":[{"type":"trades","coin":"BTC"}]}',
        '{"method":"subscribe","subscription":{"type":"liquidations","coin":"BTC"}}',
        '{"method":"subscribe","subscription":{"type":["trades"],"coin":"BTC"}}',
        '{"method":"subscribe","subscription":{"type":"trades","coin":1}}',
    ],
)
def test_bad_frames_are_errors_and_nothing_else(text: str) -> None:
    to = wire(coins())
    session = opened(to)
    to.receive(session, text, 0)
    assert json.loads(session.outbox.pop())["channel"] == "error"
    assert session.close_code is None and not session.streams


def test_pings_are_answered() -> None:
    to = wire(coins())
    session = opened(to)
    to.receive(session, '{"method":"ping"}', 0)
    assert json.loads(session.outbox.pop()) == {"channel": "pong"}


def test_closed_sockets_get_nothing_and_leave_nothing() -> None:
    of = coins()
    to = wire(of)
    session = opened(to)
    for wanted in ("l2Book", "trades"):
        ask(to, session, type=wanted, coin="BTC")
    to.closed(session)
    assert list(messages(of, to, session, 1)) == [] and to.channels.wanted == []


@pytest.mark.parametrize("path", ["/", "/ws/", "/info", "/ws/v5/public"])
def test_other_addresses_are_no_endpoints(path: str) -> None:
    assert wire(coins()).open(path, {}, 0) is None


def info(to: HyperliquidWire, request: Any, now_ns: int = 0) -> tuple[int, Any]:
    reply = to.rest("/info", {}, "127.0.0.1", now_ns, json.dumps(request).encode())
    return reply.status, json.loads(reply.body) if reply.status == 200 else None


def test_the_list_of_coins_names_delisted_ones() -> None:
    status, meta = info(wire(coins("BTC", "ETH")), {"type": "meta"})
    assert status == 200
    listed = [row["name"] for row in meta["universe"] if not row.get("isDelisted")]
    assert listed == ["BTC", "ETH"] and any(row.get("isDelisted") for row in meta["universe"])


def test_a_book_by_info_is_the_one_of_the_socket() -> None:
    of = coins()
    to = wire(of)
    status, book = info(to, {"type": "l2Book", "coin": "BTC"})
    assert status == 200 and book["time"] == of.now_ns // 10**6
    assert [side(levels) for levels in book["levels"]] == grouped(of.symbols["BTC"], Fraction(1), 20)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"type": "none"}, 422),
        ([], 422),
        ({"type": ["meta"]}, 422),
        ({"type": "l2Book", "coin": "btc"}, 500),
        ({"type": "l2Book"}, 500),
    ],
)
def test_wrong_requests_are_refused(request_: Any, status: int) -> None:
    assert info(wire(coins()), request_)[0] == status


def test_more_weight_a_minute_than_allowed_is_refused_until_the_next() -> None:
    to = wire(coins())
    assert [info(to, {"type": "meta"})[0] for _ in range(61)] == [200] * 60 + [429]
    assert info(to, {"type": "meta"}, 60 * SECOND_NS)[0] == 200
