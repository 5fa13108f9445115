"""Bybit v5 linear as of November 2026, over the synthetic market: sockets, requests and topics. Pure. REST is in `bybit_rest`.

The rules that matter here: a subscription brings a snapshot; the book is the best N levels, one that leaves them is told as gone;
`u` goes up by one; a liquidation names the side of the *position* and its bankruptcy price, and all of them are sent; a ticker's
delta has only what changed; `openInterest` counts both sides.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from mpengine.simulator.book import BookSide
from mpengine.simulator.bybit_rest import FIRST_UPDATE, BybitRest, Contract
from mpengine.simulator.channels import MS, SECOND_NS, Channel, Channels, Clock, Step
from mpengine.simulator.market import Changes, Market
from mpengine.simulator.positions import LONG
from mpengine.simulator.wire import Delivery, Reply, Session

PATH: Final = "/v5/public/linear"
ROUTE: Final = "linear"
PUSH_NS: Final = {1: 10 * MS, 50: 20 * MS, 200: 100 * MS, 1000: 200 * MS}
"""Levels of a book's topic -> time between two of its messages; the market's step is the least there can be."""
REPEAT_NS: Final = 3 * SECOND_NS  # the best level is told again after so long without a change, with the same `u`
LIQUIDATIONS_NS: Final = 500 * MS
TRADES_IN_MESSAGE: Final = 1024
KINDS: Final = frozenset({"orderbook", "publicTrade", "tickers", "allLiquidation"})


def parse_topic(topic: str) -> tuple[str, str, str] | None:
    """(kind, depth or "", symbol) of a topic that could exist; None for what the venue refuses."""
    kind, _, rest = topic.partition(".")
    depth, _, name = rest.rpartition(".")
    known = depth in map(str, PUSH_NS) if kind == "orderbook" else kind in KINDS and not depth
    return (kind, depth, name) if known and name else None


class BybitSessions:
    """The endpoint, its requests and their answers. Shared by the synthetic venue and by captures.

    `known` says which topics exist; `join` and `leave` a session. One bad topic refuses its whole request.
    """

    def __init__(
        self, known: Callable[[str], bool], join: Callable[[Session, str], None], leave: Callable[[Session, str], None]
    ) -> None:
        self._known = known
        self._actions: Final = {"subscribe": join, "unsubscribe": leave}
        self._opened = 0
        self._ids: dict[Session, str] = {}

    def open(self, path: str) -> Session | None:
        if path != PATH:
            return None
        session = Session(ROUTE, False)
        self._opened += 1
        self._ids[session] = f"{self._opened:08x}-0000-4000-8000-000000000000"
        return session

    def closed(self, session: Session) -> None:
        self._ids.pop(session, None)

    def receive(self, session: Session, text: str) -> None:
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            self._answer(session, "", "", f"JSON parse error, {text[:40]}")
            return
        operation, number, args = request.get("op"), str(request.get("req_id", "")), request.get("args")
        if operation == "ping":
            self._answer(session, "ping", number, "pong", success=True)
            return
        action = self._actions.get(operation) if isinstance(operation, str) else None
        if action is None or not isinstance(args, list):
            self._answer(session, str(operation), number, "error:handler not found,topic:")
            return
        for topic in args:
            if not isinstance(topic, str) or not self._known(topic):
                self._answer(session, str(operation), number, f"error:handler not found,topic:{str(topic)[:60]}")
                return
        for topic in args:
            action(session, topic)
        self._answer(session, str(operation), number, "", success=True)

    def _answer(self, session: Session, operation: str, number: str, text: str, *, success: bool = False) -> None:
        reply = {"success": success, "ret_msg": text, "conn_id": self._ids.get(session, ""), "req_id": number, "op": operation}
        session.outbox.append(json.dumps(reply, separators=(",", ":")))


Levels = list[tuple[int, int]]
"""(tick, lots); lots 0: not among the best any more."""


class TopLevels:
    """The best `count` levels of one side of the book as they were told last.

    PERF: kept from what changed: taking 1000 levels from the side anew for every message costs six times as much.
    """

    def __init__(self, side: BookSide, count: int) -> None:
        self._side = side
        self._count = count
        self._keys = sorted(-side.sign * tick for tick in side.levels)  # best first
        self._touched: set[int] = set()
        self._told = dict(self.levels(side.levels))

    def note(self, ticks: Iterable[int]) -> None:
        """Levels of the side that changed."""
        self._touched.update(ticks)

    def tell(self) -> Levels:
        """What is different from what was told last, best first."""
        sign, levels, keys, told = self._side.sign, self._side.levels, self._keys, self._told
        before = self._worst
        for tick in self._touched:
            self._place(-sign * tick, tick in levels)
        worst = self._worst
        # Of levels that did not change themselves only those between the old end and the new one came or went.
        low, high = bisect_right(keys, min(before, worst)), bisect_right(keys, max(before, worst))
        changed = []
        for tick in self._touched.union(-sign * key for key in keys[low:high]):
            lots = levels.get(tick, 0) if -sign * tick <= worst else 0
            if told.get(tick, 0) != lots:
                changed.append((tick, lots))
                told[tick] = lots
                if not lots:
                    del told[tick]
        self._touched.clear()
        return sorted(changed, key=lambda level: -sign * level[0])

    def all(self) -> Levels:
        """Everything as it was told last, best first."""
        return self.levels(self._told)

    def levels(self, of: Mapping[int, int]) -> Levels:
        sign = self._side.sign
        return [(-sign * key, of[-sign * key]) for key in self._keys[: self._count]]

    @property
    def _worst(self) -> int:
        return self._keys[min(self._count, len(self._keys)) - 1]

    def _place(self, key: int, exists: bool) -> None:
        keys = self._keys
        at = bisect_left(keys, key)
        known = at < len(keys) and keys[at] == key
        if exists and not known:
            keys.insert(at, key)
        elif known and not exists:
            del keys[at]


class BookChannel:
    """`orderbook.N.SYM`. What was told last is what a new listener's snapshot shows, so that the next delta fits everybody.

    The times of its messages are the venue's, the same for everybody: they do not depend on who subscribed when.
    """

    def __init__(self, contract: Contract, topic: str, depth: int) -> None:
        self._contract, self._topic, self._depth = contract, topic, depth
        book, updates = contract.market.book, contract.updates
        self._bids, self._asks = TopLevels(book.bids, depth), TopLevels(book.asks, depth)
        updates[depth] = updates.get(depth, FIRST_UPDATE) + 1
        self._turn = -1
        self._told_ns = 0
        self._restarting = False

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        for batch in step[self._contract.market.spec.symbol].batches:
            self._bids.note(batch.bids)
            self._asks.note(batch.asks)
        turn = now_ns // PUSH_NS[self._depth]
        if turn == self._turn:
            return
        self._turn = turn
        bids, asks = self._bids.tell(), self._asks.tell()
        if self._restarting:
            self._restarting, self._contract.updates[self._depth] = False, 1
            yield self._snapshot(now_ns)
        elif bids or asks:
            self._contract.updates[self._depth] += 1
            yield self._snapshot(now_ns) if self._depth == 1 else self._text("delta", bids, asks, now_ns)
        elif self._depth == 1 and now_ns - self._told_ns >= REPEAT_NS:
            yield self._snapshot(now_ns)

    def first(self, now_ns: int) -> str | None:
        return self._snapshot(now_ns)

    def restart(self) -> None:
        """The venue's service begins anew: with the next message, a snapshot whose `u` is 1."""
        self._restarting = True

    def _snapshot(self, now_ns: int) -> str:
        return self._text("snapshot", self._bids.all(), self._asks.all(), now_ns)

    def _text(self, kind: str, bids: Levels, asks: Levels, now_ns: int) -> str:
        one, ms, self._told_ns = self._contract, now_ns // MS, now_ns
        return (
            f'{{"topic":"{self._topic}","type":"{kind}","ts":{ms},"data":{{"s":"{one.name}","b":{one.levels(bids)},'
            f'"a":{one.levels(asks)},"u":{one.updates[self._depth]},"seq":{one.market.last_id}}},"cts":{ms - 1}}}'
        )


class TradesChannel:
    """`publicTrade.SYM`: `S` is the taker's side."""

    def __init__(self, contract: Contract, topic: str) -> None:
        self._contract, self._topic = contract, topic

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        one, trades = self._contract, step[self._contract.market.spec.symbol].trades
        rows = [
            f'{{"T":{trade.ts_ns // MS},"s":"{one.name}","S":"{"Buy" if trade.buy else "Sell"}","v":"{one.sized(trade.lots)}",'
            f'"p":"{one.priced(trade.tick)}","L":"{"Plus" if trade.buy else "Minus"}Tick","i":"{_identity(trade.number)}",'
            f'"BT":false,"RPI":{"true" if trade.normal_lots < trade.lots else "false"},"seq":{one.market.last_id}}}'
            for trade in trades
        ]
        for at in range(0, len(rows), TRADES_IN_MESSAGE):
            yield _batch(self._topic, rows[at : at + TRADES_IN_MESSAGE], now_ns)

    def first(self, now_ns: int) -> str | None:
        return None


def _batch(topic: str, rows: Sequence[str], now_ns: int) -> str:
    """A message whose data is an array; its type is snapshot although it is none."""
    return f'{{"topic":"{topic}","type":"snapshot","ts":{now_ns // MS},"data":[{",".join(rows)}]}}'


def _identity(number: int) -> str:
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class TickersChannel:
    """`tickers.SYM`: a snapshot, then only what changed; not more often than every 100 ms."""

    def __init__(self, contract: Contract, topic: str) -> None:
        self._contract, self._topic = contract, topic
        self._told: dict[str, str] = {}

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        now = self._values()
        changed = {name: value for name, value in now.items() if self._told.get(name) != value}
        begun, self._told = bool(self._told), now
        if begun and changed:
            yield self._text("delta", changed, now_ns)

    def first(self, now_ns: int) -> str | None:
        return self._text("snapshot", self._told, now_ns)

    def _values(self) -> dict[str, str]:
        one, book, mark = self._contract, self._contract.market.book, self._contract.market.mark
        lots = one.interest_lots()
        single_usd = lots * one.market.spec.lot * mark.mark
        return {
            "markPrice": one.marked(mark.mark),
            "indexPrice": one.marked(mark.index),
            "openInterest": one.sized(2 * lots),
            "openInterestValue": f"{2 * single_usd:.2f}",
            "singleOpenInterest": one.sized(lots),
            "singleOpenInterestValue": f"{single_usd:.2f}",
            "fundingRate": f"{mark.funding_rate:.8f}",
            "nextFundingTime": str(mark.next_funding_ns // MS),
            "bid1Price": one.priced(book.bids.best),
            "bid1Size": one.sized(book.bids.levels[book.bids.best]),
            "ask1Price": one.priced(book.asks.best),
            "ask1Size": one.sized(book.asks.levels[book.asks.best]),
        }

    def _text(self, kind: str, values: Mapping[str, str], now_ns: int) -> str:
        data = json.dumps({"symbol": self._contract.name, **values}, separators=(",", ":"))
        sequence = self._contract.market.last_id
        return f'{{"topic":"{self._topic}","type":"{kind}","data":{data},"cs":{sequence},"ts":{now_ns // MS}}}'


class LiquidationsChannel:
    """`allLiquidation.SYM`: all of them, in batches of 500 ms. `S` is the side of the position, `p` its bankruptcy price."""

    def __init__(self, contract: Contract, topic: str) -> None:
        self._contract, self._topic = contract, topic
        self._waiting: list[str] = []
        self._clock = Clock(LIQUIDATIONS_NS)

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        one = self._contract
        for order in step[one.market.spec.symbol].forced:
            if order.venue == "bybit":
                self._waiting.append(
                    f'{{"T":{order.ts_ns // MS},"s":"{one.name}","S":"{"Buy" if order.side is LONG else "Sell"}",'
                    f'"v":"{one.sized(order.filled_lots)}","p":"{one.bankrupt(order.limit)}"}}'
                )
        if self._clock.due(now_ns) and self._waiting:
            rows, self._waiting = self._waiting, []
            yield _batch(self._topic, rows, now_ns)

    def first(self, now_ns: int) -> str | None:
        return None


PLAIN: Final[Mapping[str, Callable[[Contract, str], Channel]]] = {
    "publicTrade": TradesChannel,
    "tickers": TickersChannel,
    "allLiquidation": LiquidationsChannel,
}


class BybitWire:
    """The synthetic Bybit: one per server. `rng` is not drawn from: all it says follows from the market."""

    name: Final = "bybit"
    ping_interval_s: float = 600.0
    pong_timeout_s: float = 600.0  # without any traffic of the client the server cuts after about 10 min

    def __init__(self, market: Market, rng: np.random.Generator) -> None:
        names = {symbol.spec.names["bybit"]: symbol for symbol in market.symbols.values() if "bybit" in symbol.spec.names}
        self._contracts = {name: Contract(symbol, name) for name, symbol in names.items()}
        self.channels: Final = Channels(self._channel)
        self._books: dict[str, BookChannel] = {}
        self._sessions = BybitSessions(self._knows, self.channels.join, self.channels.leave)
        self._rest = BybitRest(market, self._contracts)

    def open(self, path: str, query: Mapping[str, str], now_ns: int) -> Session | None:
        return self._sessions.open(path)

    def receive(self, session: Session, text: str, now_ns: int) -> None:
        self._sessions.receive(session, text)

    def closed(self, session: Session) -> None:
        self._sessions.closed(session)
        self.channels.clear(session)

    def publish(self, changes: list[Changes]) -> Iterator[Delivery]:
        return self.channels.publish(changes)

    def rest(self, path: str, query: Mapping[str, str], client: str, now_ns: int, body: bytes = b"") -> Reply:
        return self._rest.reply(path, query, client, now_ns)

    def restart(self) -> None:
        """Every book that somebody follows begins anew, with a snapshot whose `u` is 1."""
        for book in self._books.values():
            book.restart()

    def _knows(self, topic: str) -> bool:
        parsed = parse_topic(topic)
        return parsed is not None and parsed[2] in self._contracts

    def _channel(self, topic: str) -> Channel:
        parsed = parse_topic(topic)
        assert parsed is not None, topic  # `receive` admits no other
        kind, depth, name = parsed
        if kind != "orderbook":
            return PLAIN[kind](self._contracts[name], topic)
        # A channel that nobody follows any more is replaced here by the one that comes after it; to restart it does no harm.
        self._books[topic] = BookChannel(self._contracts[name], topic, int(depth))
        return self._books[topic]
