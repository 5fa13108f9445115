"""Binance USD-M as of November 2026, over the synthetic market: sockets, subscriptions and stream messages. Pure.

The rules that matter here: two routed endpoints, `/public` and `/market`, and a stream asked for on the wrong one is listed but
never delivered; prices and quantities are strings; only `pu` chains depth events; `!...@arr` streams carry COIN-M rows (`st` 2)
and symbols that nobody asked for. REST is in `binance_rest`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote

import numpy as np

from mpengine.simulator.binance_rest import BinanceRest, decimals
from mpengine.simulator.draws import Draws
from mpengine.simulator.market import BookBatch, Changes, ForcedOrder, Mark, Market, SymbolMarket
from mpengine.simulator.positions import LONG
from mpengine.simulator.wire import Delivery, Listeners, Message, Reply, Session

MS: Final = 1_000_000
SPEEDS_MS: Final[dict[str, int]] = {"0ms": 0, "100ms": 100, "250ms": 250, "500ms": 500}
DEPTH_DEFAULT: Final = "250ms"
PUBLIC_FAMILIES: Final = frozenset({"depth", "depth5", "depth10", "depth20", "bookTicker", "!bookTicker"})
MARKET_FAMILIES: Final = frozenset({"aggTrade", "trade", "markPrice", "!markPrice", "forceOrder", "!forceOrder"})
STREAM_LIMIT: Final = 1024
MESSAGES_PER_S: Final = 10
POLICY_VIOLATION: Final = 1008
FOREIGN_PER_S: Final = 0.04
"""Chance of a forced order of a market that is not simulated, per second and kind: one in 25 s."""


@dataclass(frozen=True, slots=True)
class StreamName:
    """A stream name taken apart. `symbol` lower case, "" for venue-wide streams; `speed` as written, "" for the default."""

    symbol: str
    family: str
    speed: str

    @property
    def route(self) -> str:
        return "public" if self.family in PUBLIC_FAMILIES else "market"


def parse_stream(name: str) -> StreamName | None:
    """None for what the venue would list and never deliver: unknown families, capital letters, bad speeds."""
    head, *rest = name.split("@")
    if head in ("!markPrice", "!forceOrder") and rest[:1] == ["arr"]:
        parsed = StreamName("", head, "@".join(rest[1:]))
    elif head == "!bookTicker" and not rest:
        parsed = StreamName("", head, "")
    elif head and rest and head == head.lower() and not head.startswith("!"):
        parsed = StreamName(head, rest[0], "@".join(rest[1:]))
    else:
        return None
    if parsed.family.startswith("depth"):
        speeds: Iterable[str] = ("", *SPEEDS_MS)
    else:
        speeds = ("", "1s") if parsed.family in ("markPrice", "!markPrice") else ("",)
    known = parsed.family in PUBLIC_FAMILIES or parsed.family in MARKET_FAMILIES
    return parsed if known and parsed.speed in speeds else None


class BinanceSessions:
    """Routes, subscriptions and their limits. Shared by the synthetic venue and by captures."""

    def __init__(self, listeners: Listeners) -> None:
        self.listeners: Final = listeners

    def open(self, path: str, query: Mapping[str, str]) -> Session | None:
        """`/public/stream?streams=a/b`, `/market/ws/a/b`, unrouted (`/stream`, `/ws`) is `/public` only."""
        parts = path.strip("/").split("/")
        route = parts.pop(0) if parts and parts[0] in ("public", "market") else "public"
        if not parts or parts[0] not in ("stream", "ws") or (parts[0] == "stream" and len(parts) > 1):
            return None
        combined = parts[0] == "stream"
        asked = query.get("streams", "").split("/") if combined else [unquote(part) for part in parts[1:]]
        names = [name for name in asked if name]
        if len(set(names)) > STREAM_LIMIT:
            return None
        session = Session(route, combined)
        for name in names:
            self.listeners.add(session, name)
        return session

    def receive(self, session: Session, text: str, now_ns: int) -> None:
        """A client's message. More than 10 in a second end the connection."""
        session.recent_ns = [then for then in session.recent_ns if now_ns - then < 1_000_000_000]
        session.recent_ns.append(now_ns)
        if len(session.recent_ns) > MESSAGES_PER_S:
            session.close_code = POLICY_VIOLATION
            return
        session.outbox.append(json.dumps(self._answer(session, text), separators=(",", ":")))

    def _answer(self, session: Session, text: str) -> dict[str, Any]:
        try:
            request = json.loads(text)
        except ValueError:
            return _error(3, "Invalid JSON: expected value at line 1 column 1", None)
        if not isinstance(request, dict):
            return _error(2, "Invalid request: request must be an object", None)
        number, method, params = request.get("id"), request.get("method"), request.get("params", [])
        if isinstance(number, bool) or not isinstance(number, int | str):
            return _error(2, "Invalid request: request ID must be an unsigned integer", None)
        if method == "LIST_SUBSCRIPTIONS":
            return {"result": list(session.streams), "id": number}
        if method == "SET_PROPERTY" and isinstance(params, list) and params[:1] == ["combined"] and len(params) == 2:
            session.combined = bool(params[1])
            return {"result": None, "id": number}
        if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
            return _error(1, "Invalid value type: expected an array of strings", number)
        if method == "SUBSCRIBE":
            if len(session.streams.keys() | set(params)) > STREAM_LIMIT:
                return _error(2, "Invalid request: too many streams", number)
            for name in params:
                self.listeners.add(session, name)
        elif method == "UNSUBSCRIBE":
            for name in params:
                self.listeners.discard(session, name)
        else:
            return _error(0, f"Unknown property: {str(method)[:40]}", number)
        return {"result": None, "id": number}


def _error(code: int, text: str, number: int | str | None) -> dict[str, Any]:
    return {"error": {"code": code, "msg": text}, "id": number}


def route_key(session: Session, stream: str) -> str | None:
    """Listeners' key of the synthetic venue: the name itself, if the session's route serves it."""
    name = parse_stream(stream)
    return stream if name is not None and name.route == session.route else None


class Formats:
    """How one symbol's numbers look on the wire."""

    __slots__ = ("level", "lot", "name", "price", "quantity", "tick")

    def __init__(self, symbol: SymbolMarket, name: str) -> None:
        self.name = name
        self.tick = symbol.spec.tick
        self.lot = symbol.spec.lot
        # BTCUSDT has ticks of 0.1 and prints two decimals: at least two, as on the venue.
        self.price = f"%.{max(2, decimals(self.tick))}f"
        self.quantity = f"%.{decimals(self.lot)}f"
        self.level = f'["{self.price}","{self.quantity}"]'

    def levels(self, levels: Iterable[tuple[int, int]]) -> str:
        """JSON array of [price, quantity] strings, in the order given."""
        form, tick, lot = self.level, self.tick, self.lot
        return "[" + ",".join([form % (price * tick, lots * lot) for price, lots in levels]) + "]"


class Feed(Protocol):
    """One stream that somebody listens to."""

    def emit(self, changes: Changes) -> Iterator[str]:
        """Payloads of one step of one symbol."""


class DepthFeed:
    """`<s>@depth@<speed>`: absolute quantities merged over the interval, ids of what was merged, `pu` of the previous event.

    Below the default speeds an event ends in the middle of a step for some symbols (`phase`), so a REST snapshot falls inside an
    event as often as between two, as in real life.
    """

    def __init__(self, formats: Formats, speed: str, phase: int) -> None:
        self._formats = formats
        self._interval_ns = SPEEDS_MS[speed or DEPTH_DEFAULT] * MS
        self._phase = phase
        self._previous = 0  # 0: nothing seen yet; the chain begins with the first step after the subscription
        self._due_ns = 0
        self._first = 0
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}

    def emit(self, changes: Changes) -> Iterator[str]:
        if not self._previous:
            self._previous = changes.batches[0].previous_id
            self._due_ns = self._following(changes.ts_ns - 1)
        for index, batch in enumerate(changes.batches):
            self._first = self._first or batch.first_id
            self._bids.update(batch.bids)
            self._asks.update(batch.asks)
            if not self._interval_ns or (index == self._phase and changes.ts_ns >= self._due_ns):
                yield self._event(batch, changes.ts_ns // MS)
                self._due_ns = self._following(changes.ts_ns)

    def _following(self, now_ns: int) -> int:
        return (now_ns // self._interval_ns + 1) * self._interval_ns if self._interval_ns else 0

    def _event(self, batch: BookBatch, event_ms: int) -> str:
        form = self._formats
        text = (
            f'{{"e":"depthUpdate","E":{event_ms},"T":{batch.ts_ns // MS},"s":"{form.name}",'
            f'"U":{self._first},"u":{batch.last_id},"pu":{self._previous},"b":{form.levels(sorted(self._bids.items()))},'
            f'"a":{form.levels(sorted(self._asks.items()))},"ps":"{form.name}","st":1}}'
        )
        self._previous, self._first = batch.last_id, 0
        self._bids, self._asks = {}, {}
        return text


class PartialDepthFeed:
    """`<s>@depth5|10|20@<speed>`: the best levels, best first, with ids of the same space as the diffs."""

    def __init__(self, formats: Formats, levels: int, speed: str) -> None:
        self._formats = formats
        self._levels = levels
        self._interval_ns = max(100, SPEEDS_MS[speed or DEPTH_DEFAULT]) * MS
        self._due_ns = 0
        self._previous = 0

    def emit(self, changes: Changes) -> Iterator[str]:
        if changes.ts_ns < self._due_ns:
            return
        self._previous = self._previous or changes.batches[0].previous_id
        self._due_ns = (changes.ts_ns // self._interval_ns + 1) * self._interval_ns
        form, book, last = self._formats, changes.symbol.book, changes.batches[-1]
        yield (
            f'{{"e":"depthUpdate","E":{changes.ts_ns // MS},"T":{last.ts_ns // MS},"s":"{form.name}",'
            f'"U":{changes.batches[0].first_id},"u":{last.last_id},"pu":{self._previous},'
            f'"b":{form.levels(book.bids.top(self._levels))},"a":{form.levels(book.asks.top(self._levels))},'
            f'"ps":"{form.name}","st":1}}'
        )
        self._previous = last.last_id


class BookTickerFeed:
    """`<s>@bookTicker`: every change of the touch."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats
        self._last: tuple[int, int, int, int] | None = None

    def emit(self, changes: Changes) -> Iterator[str]:
        form = self._formats
        for batch in changes.batches:
            if batch.touch == self._last:
                continue
            self._last = batch.touch
            bid, bid_lots, ask, ask_lots = batch.touch
            yield (
                f'{{"e":"bookTicker","u":{batch.last_id},"s":"{form.name}",'
                f'"b":"{form.price % (bid * form.tick)}","B":"{form.quantity % (bid_lots * form.lot)}",'
                f'"a":"{form.price % (ask * form.tick)}","A":"{form.quantity % (ask_lots * form.lot)}",'
                f'"T":{batch.ts_ns // MS},"E":{changes.ts_ns // MS},"ps":"{form.name}","st":1}}'
            )


class AggTradeFeed:
    """`<s>@aggTrade`."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats

    def emit(self, changes: Changes) -> Iterator[str]:
        form, event_ms = self._formats, changes.ts_ns // MS
        for trade in changes.trades:
            yield (
                f'{{"e":"aggTrade","E":{event_ms},"a":{trade.number},"s":"{form.name}",'
                f'"p":"{form.price % (trade.tick * form.tick)}","q":"{form.quantity % (trade.lots * form.lot)}",'
                f'"nq":"{form.quantity % (trade.normal_lots * form.lot)}","f":{trade.first_fill},"l":{trade.last_fill},'
                f'"T":{trade.ts_ns // MS},"m":{"false" if trade.buy else "true"},"st":1}}'
            )


class TradeFeed:
    """`<s>@trade`: the single fills of the aggregated trades."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats

    def emit(self, changes: Changes) -> Iterator[str]:
        form, event_ms = self._formats, changes.ts_ns // MS
        for trade in changes.trades:
            pieces = trade.last_fill - trade.first_fill + 1
            for index in range(pieces):
                lots = trade.lots // pieces + (index < trade.lots % pieces)
                yield (
                    f'{{"e":"trade","E":{event_ms},"T":{trade.ts_ns // MS},"s":"{form.name}","t":{trade.first_fill + index},'
                    f'"p":"{form.price % (trade.tick * form.tick)}","q":"{form.quantity % (lots * form.lot)}",'
                    f'"X":"MARKET","m":{"false" if trade.buy else "true"},"st":1}}'
                )


class MarkFeed:
    """`<s>@markPrice` (every 3 s) and `<s>@markPrice@1s`."""

    def __init__(self, formats: Formats, speed: str) -> None:
        self._formats = formats
        self._every_s = 1 if speed == "1s" else 3

    def emit(self, changes: Changes) -> Iterator[str]:
        if changes.mark is not None and changes.ts_ns // (1000 * MS) % self._every_s == 0:
            yield mark_row(self._formats.name, changes.mark)


def mark_row(name: str, mark: Mark, kind: int = 1) -> str:
    """JSON of one markPriceUpdate."""
    return (
        f'{{"e":"markPriceUpdate","E":{mark.ts_ns // MS},"s":"{name}","p":"{mark.mark:.8f}","ap":"{mark.mark:.8f}",'
        f'"P":"{mark.settle:.8f}","i":"{mark.index:.8f}","r":"{mark.funding_rate:.8f}",'
        f'"T":{mark.next_funding_ns // MS},"st":{kind}}}'
    )


class ForceOrderFeed:
    """`<s>@forceOrder`: of each second only the largest forced order, sent when the second is over."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats
        self._largest: ForcedOrder | None = None

    def emit(self, changes: Changes) -> Iterator[str]:
        for order in changes.forced:
            if order.venue != "binance":
                continue
            if self._largest is None or order.filled_lots * order.average > self._largest.filled_lots * self._largest.average:
                self._largest = order
        if changes.mark is not None and self._largest is not None:
            yield self._row(self._largest, changes.ts_ns // MS)
            self._largest = None

    def _row(self, order: ForcedOrder, event_ms: int) -> str:
        form = self._formats
        return force_row(
            event_ms, form.name, form.name, "SELL" if order.side is LONG else "BUY",
            form.quantity % (order.lots * form.lot), form.price % order.limit, form.price % order.average,
            "FILLED" if order.filled_lots == order.lots else "PARTIALLY_FILLED",
            form.quantity % (order.last_lots * form.lot), form.quantity % (order.filled_lots * form.lot), order.ts_ns // MS,
        )  # fmt: skip


def force_row(
    event_ms: int, name: str, pair: str, side: str, quantity: str, price: str, average: str, status: str, last: str,
    filled: str, trade_ms: int, kind: int = 1,
) -> str:  # fmt: skip
    """JSON of one forceOrder event. `side` is the order's: SELL closes a long."""
    return (
        f'{{"e":"forceOrder","E":{event_ms},"o":{{"s":"{name}","S":"{side}","o":"LIMIT","f":"IOC","q":"{quantity}",'
        f'"p":"{price}","ap":"{average}","X":"{status}","l":"{last}","z":"{filled}","T":{trade_ms},"ps":"{pair}","st":{kind}}}}}'
    )


PLAIN_FEEDS: Final[dict[str, Callable[[Formats], Feed]]] = {
    "bookTicker": BookTickerFeed,
    "aggTrade": AggTradeFeed,
    "trade": TradeFeed,
    "forceOrder": ForceOrderFeed,
}


class ForeignMarkets:
    """Rows of markets that are not simulated, for venue-wide streams: COIN-M contracts (`st` 2), unlisted USD-M symbols."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)

    def forced(self, ts_ns: int) -> Iterator[str]:
        """Called once per second."""
        draws, event_ms = self._draws, ts_ns // MS
        for name, pair, kind in (("BTCUSD_PERP", "BTCUSD", 2), ("1000PEPEUSDT", "1000PEPEUSDT", 1)):
            if draws.uniform() >= FOREIGN_PER_S:
                continue
            price = 100_000.0 if kind == 2 else 0.01
            side, sign = ("SELL", 1) if draws.uniform() < 0.5 else ("BUY", -1)
            contracts = str(1 + draws.below(400))
            prices = f"{price * (1 - sign * 0.004):.7g}", f"{price:.7g}"
            yield force_row(event_ms, name, pair, side, contracts, *prices, "FILLED", contracts, contracts, event_ms - 900, kind)

    @staticmethod
    def mark(mark: Mark) -> str:
        """A COIN-M row in the array of marks."""
        return mark_row("BTCUSD_PERP", mark, kind=2)


class BinanceWire:
    """The synthetic Binance: one per server."""

    name: Final = "binance"
    ping_interval_s: float = 180.0
    pong_timeout_s: float = 600.0

    def __init__(self, market: Market, rng: np.random.Generator) -> None:
        self.listeners: Final = Listeners(route_key)
        self._sessions = BinanceSessions(self.listeners)
        self._formats = {
            symbol: Formats(symbol_market, symbol_market.spec.names["binance"])
            for symbol, symbol_market in market.symbols.items()
            if "binance" in symbol_market.spec.names
        }
        self._symbols = {form.name.lower(): market.symbols[symbol] for symbol, form in self._formats.items()}
        self._phases = {symbol: index % 3 for index, symbol in enumerate(self._formats)}
        self._foreign = ForeignMarkets(rng)
        self._feeds: dict[str, dict[str, Feed]] = {symbol: {} for symbol in self._formats}
        self._wide: dict[str, dict[str, Feed]] = {}
        self._seen_version = 0
        self._rest = BinanceRest(market, {symbol: form.name for symbol, form in self._formats.items()})

    def open(self, path: str, query: Mapping[str, str], now_ns: int) -> Session | None:
        return self._sessions.open(path, query)

    def receive(self, session: Session, text: str, now_ns: int) -> None:
        self._sessions.receive(session, text, now_ns)

    def closed(self, session: Session) -> None:
        self.listeners.clear(session)

    def rest(self, path: str, query: Mapping[str, str], client: str, now_ns: int, body: bytes = b"") -> Reply:
        return self._rest.reply(path, query, client, now_ns)

    def publish(self, changes: list[Changes]) -> Iterator[Delivery]:
        if self.listeners.version != self._seen_version:
            self._plan()
        for change in changes:
            feeds = self._feeds.get(change.symbol.spec.symbol)
            if not feeds:
                continue
            for stream, feed in feeds.items():
                sessions = None
                for data in feed.emit(change):
                    sessions = sessions or self.listeners.of(stream)
                    yield Message(stream, data), sessions
        for stream, by_symbol in self._wide.items():
            sessions = self.listeners.of(stream)
            for data in self._venue_wide(stream, by_symbol, changes):
                yield Message(stream, data), sessions

    def _venue_wide(self, stream: str, feeds: dict[str, Feed], changes: list[Changes]) -> Iterator[str]:
        rows = [row for c in changes if (feed := feeds.get(c.symbol.spec.symbol)) for row in feed.emit(c)]
        mark = changes[0].mark
        if stream.startswith("!markPrice"):
            if rows and mark is not None:
                yield f"[{','.join([*rows, ForeignMarkets.mark(mark)])}]"
            return
        yield from rows
        if stream.startswith("!forceOrder") and mark is not None:
            yield from self._foreign.forced(changes[0].ts_ns)

    def _plan(self) -> None:
        """Feeds of what is listened to now. A feed lives as long as somebody listens, so all its listeners see one chain."""
        self._seen_version = self.listeners.version
        streams = self.listeners.wanted()
        wanted = set(streams)
        for feeds in self._feeds.values():
            for stream in feeds.keys() - wanted:
                del feeds[stream]
        for stream in self._wide.keys() - wanted:
            del self._wide[stream]
        for stream in streams:
            name = parse_stream(stream)
            if name is None:
                continue
            if not name.symbol:
                family = name.family[1:]
                if stream not in self._wide:
                    self._wide[stream] = {s: self._feed(s, family, name.speed) for s in self._formats}
            elif name.symbol in self._symbols:
                feeds = self._feeds[self._symbols[name.symbol].spec.symbol]
                if stream not in feeds:
                    feeds[stream] = self._feed(self._symbols[name.symbol].spec.symbol, name.family, name.speed)

    def _feed(self, symbol: str, family: str, speed: str) -> Feed:
        form = self._formats[symbol]
        if family == "depth":
            return DepthFeed(form, speed, self._phases[symbol])
        if family.startswith("depth"):
            return PartialDepthFeed(form, int(family[5:]), speed)
        if family == "markPrice":
            return MarkFeed(form, speed)
        return PLAIN_FEEDS[family](form)
