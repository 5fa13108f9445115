"""OKX v5 perpetual swaps as of November 2026, over the synthetic market: sockets, subscriptions and channels. Pure.

The rules that matter here: quantities are contracts; `prevSeqId` chains the book and ids jump; `liquidation-orders` is the whole
instType, unordered, late at times, and begins with rows from before the subscription; a one-way account's row says `net` and only
its order side tells the position. REST is in `okx_rest`, contract sizes too.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from mpengine.simulator.channels import MS, SECOND_NS, Channel, Channels, Clock, Step
from mpengine.simulator.draws import Draws
from mpengine.simulator.market import Changes, ForcedOrder, Market, SymbolMarket
from mpengine.simulator.okx_rest import BOOK_LEVELS, OkxRest, Swap
from mpengine.simulator.positions import LONG
from mpengine.simulator.wire import Delivery, Message, Reply, Session

PATH: Final = "/ws/v5/public"
REQUESTS_PER_HOUR: Final = 480
HOUR_NS: Final = 3600 * SECOND_NS
REQUEST_BYTES: Final = 1 << 16
POLICY_VIOLATION: Final = 1008
INSTRUMENTS: Final = "instruments"
LIQUIDATIONS: Final = "liquidation-orders"
VIP_CHANNELS: Final = frozenset({"books50-l2-tbt", "books-l2-tbt"})
SWAP_CHANNELS: Final = frozenset({"books", "trades", "mark-price", "funding-rate", "open-interest"})
HEARTBEAT_NS: Final = 60 * SECOND_NS
MARK_NS: Final = 200 * MS
MARK_IDLE_NS: Final = 10 * SECOND_NS
INTEREST_NS: Final = 3 * SECOND_NS
REPORT_NS: Final = 200 * MS
"""Shortest way of a forced order to the channel; the longest usual one is `SPREAD_NS` longer, so that orders overtake others."""

SPREAD_NS: Final = 1500 * MS
LATE_SHARE: Final = 0.02
LATE_NS: Final = 60 * SECOND_NS
NET_SHARE: Final = 1 / 3
REPLAY_NS: Final = 600 * SECOND_NS
REPLAY_REPORTS: Final = 20
FOREIGN_PER_S: Final = 0.04
"""Chance of a forced order of a swap that is not simulated, per second and swap: one in 25 s."""

_GOLDEN: Final = (math.sqrt(5.0) - 1.0) / 2.0


class BooksChannel:
    """`books`: a snapshot of the best 400 levels, then what changed in them; a level that leaves the 400 is told as gone."""

    def __init__(self, swap: Swap, sequence: Callable[[SymbolMarket], int]) -> None:
        self._swap = swap
        self._sequence = sequence
        self._last: int | None = None
        self._told_ns = 0
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        book = self._swap.market.book
        bids, asks = dict(book.bids.top(BOOK_LEVELS)), dict(book.asks.top(BOOK_LEVELS))
        gone_or_new = _difference(self._bids, bids), _difference(self._asks, asks)
        previous, self._bids, self._asks = self._last, bids, asks
        if previous is None:
            self._last, self._told_ns = self._sequence(self._swap.market), now_ns
        elif any(gone_or_new):
            self._last, self._told_ns = self._sequence(self._swap.market), now_ns
            yield self._text("update", *gone_or_new, now_ns, previous)
        elif now_ns - self._told_ns >= HEARTBEAT_NS:
            self._told_ns = now_ns
            yield self._text("update", [], [], now_ns, previous)

    def first(self, now_ns: int) -> str | None:
        return self._text("snapshot", list(self._bids.items()), list(self._asks.items()), now_ns, -1)

    def _text(
        self, action: str, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]], now_ns: int, previous: int
    ) -> str:
        swap = self._swap
        return (
            f'{{"arg":{{"channel":"books","instId":"{swap.name}"}},"action":"{action}","data":[{{"asks":{swap.levels(asks)},'
            f'"bids":{swap.levels(bids)},"ts":"{now_ns // MS}","checksum":0,"prevSeqId":{previous},"seqId":{self._last}}}]}}'
        )


def _difference(old: Mapping[int, int], new: Mapping[int, int]) -> list[tuple[int, int]]:
    changed = [(tick, lots) for tick, lots in new.items() if old.get(tick) != lots]
    return changed + [(tick, 0) for tick in old if tick not in new]


class TradesChannel:
    """`trades`: fills of one taker order at one price."""

    def __init__(self, swap: Swap) -> None:
        self._swap = swap

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        swap, changes = self._swap, step[self._swap.market.spec.symbol]
        if not changes.trades:
            return
        rows = [
            f'{{"instId":"{swap.name}","tradeId":"{trade.number}","px":"{swap.price % (trade.tick * swap.market.spec.tick)}",'
            f'"sz":"{swap.contracts(trade.lots)}","side":"{"buy" if trade.buy else "sell"}","ts":"{trade.ts_ns // MS}",'
            f'"count":"{trade.last_fill - trade.first_fill + 1}","source":"{int(trade.normal_lots < trade.lots)}"}}'
            for trade in changes.trades
        ]
        yield f'{{"arg":{{"channel":"trades","instId":"{swap.name}"}},"data":[{",".join(rows)}]}}'

    def first(self, now_ns: int) -> str | None:
        return None


class StateChannel:
    """A channel that tells a state: to a new listener at once, to the others by the clock, where it is not the one they know.

    `row` makes the JSON row of a moment, `content` what of it counts as a change; after `idle_ns` it is told unchanged as well.
    """

    def __init__(
        self, channel: str, name: str, interval_ns: Callable[[], int], row: Callable[[int], str], content: Callable[[], Any],
        idle_ns: int,
    ) -> None:  # fmt: skip
        self._head = f'{{"arg":{{"channel":"{channel}","instId":"{name}"}},"data":['
        self._interval_ns = interval_ns
        self._row = row
        self._content = content
        self._idle_ns = idle_ns
        self._due_ns = 0
        self._told_ns = 0
        self._told: Any = None

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        if now_ns < self._due_ns:
            return
        content = self._content()
        if content == self._told and now_ns - self._told_ns < self._idle_ns:
            return
        self._told, self._told_ns, self._due_ns = content, now_ns, now_ns + self._interval_ns()
        yield self._text(now_ns)

    def first(self, now_ns: int) -> str | None:
        return self._text(now_ns)

    def _text(self, now_ns: int) -> str:
        return f"{self._head}{self._row(now_ns)}]}}"


class InstrumentsChannel:
    """`instruments`: the whole list with the subscription. Nothing of it changes here."""

    def __init__(self, rows: Callable[[], str]) -> None:
        self._rows = rows

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        return iter(())

    def first(self, now_ns: int) -> str | None:
        return f'{{"arg":{{"channel":"{INSTRUMENTS}","instType":"SWAP"}},"data":{self._rows()}}}'


class LiquidationsChannel:
    """`liquidation-orders`: the forced orders of all swaps, each once, in the order in which they are reported.

    What a row says and when it is reported follow from the order alone, so whoever subscribes later is replayed the same rows.
    """

    def __init__(self, swaps: Mapping[str, Swap], draws: Draws) -> None:
        self._swaps = swaps
        self._draws = draws
        self._second = Clock(SECOND_NS)
        self._waiting: list[tuple[int, int, str]] | None = None
        self._number = 0

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        waiting = self._waiting
        if waiting is None:
            self._waiting = waiting = []
            for swap in self._swaps.values():
                self._await(swap, [order for order in swap.market.liquidations if release_ns(order.ts_ns) > now_ns])
        else:
            for symbol, swap in self._swaps.items():
                self._await(swap, step[symbol].forced)
        rows = []
        while waiting and waiting[0][0] <= now_ns:
            rows.append(heapq.heappop(waiting)[2])
        if self._second.due(now_ns):
            rows += self._foreign(now_ns)
        if rows:
            yield _liquidations(rows)

    def first(self, now_ns: int) -> str | None:
        reports = []
        for swap in self._swaps.values():
            orders = [order for order in swap.market.liquidations if order.ts_ns > now_ns - REPLAY_NS]
            reports += [(due, row) for due, row in _reports(swap, orders) if due <= now_ns]
        newest = sorted(reports)[-REPLAY_REPORTS:]
        return _liquidations([row for _, row in newest]) if newest else None

    def _await(self, swap: Swap, orders: Sequence[ForcedOrder]) -> None:
        if self._waiting is None:
            return
        for due, row in _reports(swap, orders):
            self._number += 1
            heapq.heappush(self._waiting, (due, self._number, row))

    def _foreign(self, now_ns: int) -> Iterator[str]:
        draws = self._draws
        for name in ("BTC-USD-SWAP", "BTC-USDC-SWAP"):
            if draws.uniform() < FOREIGN_PER_S:
                side = ("long", "sell") if draws.uniform() < 0.5 else ("short", "buy")
                row = detail(f"{100_000 + draws.below(1000)}.5", *side, str(1 + draws.below(500)), now_ns // MS - 400)
                yield _report(name, [row])


def release_ns(ts_ns: int) -> int:
    """When forced orders of a moment are reported: soon and not in order, a few of them more than a minute late."""
    place = ts_ns // MS * _GOLDEN % 1.0
    late_ns = LATE_NS if ts_ns // MS * _GOLDEN * 7.0 % 1.0 < LATE_SHARE else 0
    return ts_ns + REPORT_NS + int(place * SPREAD_NS) + late_ns


def is_net(order: ForcedOrder) -> bool:
    """True for the orders of one-way accounts, about a third."""
    return (order.ts_ns // MS + 31 * order.lots) * _GOLDEN % 1.0 < NET_SHARE


def _reports(swap: Swap, orders: Sequence[ForcedOrder]) -> list[tuple[int, str]]:
    """(time of the report, row) of the venue's own orders. Those of one moment travel in one row: their details may be equal."""
    moments: dict[int, list[str]] = {}
    for order in orders:
        if order.venue == "okx":
            side = ("long", "sell") if order.side is LONG else ("short", "buy")
            position = "net" if is_net(order) else side[0]
            price, size = swap.price % order.mark, swap.contracts(order.filled_lots)
            moments.setdefault(order.ts_ns, []).append(detail(price, position, side[1], size, order.ts_ns // MS))
    return [(release_ns(ts_ns), _report(swap.name, details)) for ts_ns, details in moments.items()]


def detail(price: str, position: str, side: str, size: str, ts_ms: int) -> str:
    """JSON of one liquidation. `side` is the order's, `position` long, short or net; `size` in contracts."""
    return f'{{"bkLoss":"0","bkPx":"{price}","ccy":"","posSide":"{position}","side":"{side}","sz":"{size}","ts":"{ts_ms}"}}'


def _report(name: str, details: Sequence[str]) -> str:
    family = name.removesuffix("-SWAP")
    return f'{{"details":[{",".join(details)}],"instFamily":"{family}","instId":"{name}","instType":"SWAP","uly":"{family}"}}'


def _liquidations(rows: Sequence[str]) -> str:
    return f'{{"arg":{{"channel":"{LIQUIDATIONS}","instType":"SWAP"}},"data":[{",".join(rows)}]}}'


class _Wrong(Exception):
    """A request or one of its args is answered with an error event."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class OkxWire:
    """The synthetic OKX: one per server. It sends no protocol pings; a client says the text `ping`."""

    name: Final = "okx"
    ping_interval_s: float = 3600.0
    pong_timeout_s: float = 7200.0
    silence_limit_s: float = 30.0

    def __init__(self, market: Market, rng: np.random.Generator) -> None:
        self._by_symbol = {
            symbol: Swap(one, one.spec.names["okx"]) for symbol, one in market.symbols.items() if "okx" in one.spec.names
        }
        self._swaps = {swap.name: swap for swap in self._by_symbol.values()}
        self._draws = Draws(rng)
        self._rewound = 0
        self._connections: dict[Session, str] = {}
        self._opened = 0
        self._notified: list[Session] = []
        self.channels: Final = Channels(self._channel)
        self._rest = OkxRest(market, self._swaps, self._sequence)

    def open(self, path: str, query: Mapping[str, str], now_ns: int) -> Session | None:
        if path != PATH:
            return None
        session = Session("public", False, silence_limit_s=self.silence_limit_s)
        self._opened += 1
        self._connections[session] = f"{self._opened * 2654435761 % 2**32:08x}"
        return session

    def closed(self, session: Session) -> None:
        self.channels.clear(session)
        self._connections.pop(session, None)

    def rest(self, path: str, query: Mapping[str, str], client: str, now_ns: int, body: bytes = b"") -> Reply:
        return self._rest.reply(path, query, client, now_ns)

    def publish(self, changes: list[Changes]) -> Iterator[Delivery]:
        notified, self._notified = self._notified, []
        for session in notified:
            if session in self._connections:
                yield Message("notice", self._notice(session)), [session]
        yield from self.channels.publish(changes)

    def announce_upgrade(self) -> None:
        """Tell every open socket that the service behind it is about to be upgraded (64008)."""
        self._notified = list(self._connections)

    def rewind_sequence(self) -> None:
        """A maintenance reset: ids of all books begin again lower, and chain all the same."""
        self._rewound += 1_000_000_000_000

    def receive(self, session: Session, text: str, now_ns: int) -> None:
        """A client's message: the text `ping`, or a request."""
        if text == "ping":
            session.outbox.append("pong")
            return
        try:
            operation, args = self._request(session, text, now_ns)
        except _Wrong as wrong:
            self._say(session, {"event": "error", "code": wrong.code, "msg": str(wrong)})
            return
        for arg in args:
            try:
                stream, shown = self._stream(arg)
            except _Wrong as wrong:
                self._say(session, {"event": "error", "code": wrong.code, "msg": str(wrong)})
                continue
            if operation == "subscribe":
                self.channels.join(session, stream)
            else:
                self.channels.leave(session, stream)
            self._say(session, {"event": operation, "arg": shown})

    def _say(self, session: Session, event: dict[str, Any]) -> None:
        session.outbox.append(json.dumps({**event, "connId": self._connections.get(session, "")}, separators=(",", ":")))

    def _notice(self, session: Session) -> str:
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        event = {"event": "notice", "code": "64008", "msg": text, "connId": self._connections[session]}
        return json.dumps(event, separators=(",", ":"))

    def _request(self, session: Session, text: str, now_ns: int) -> tuple[str, list[Any]]:
        if len(text.encode()) > REQUEST_BYTES:
            raise _Wrong("60012", "Invalid request: longer than 64 KB")
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        operation, args = (request.get("op"), request.get("args")) if isinstance(request, dict) else (None, None)
        if operation not in ("subscribe", "unsubscribe") or not isinstance(args, list) or not args:
            raise _Wrong("60012", f"Invalid request: {text[:200]}")
        session.recent_ns = [then for then in session.recent_ns if now_ns - then < HOUR_NS]
        session.recent_ns.append(now_ns)
        if len(session.recent_ns) > REQUESTS_PER_HOUR:
            session.close_code = POLICY_VIOLATION
            raise _Wrong("60014", "Requests too frequent")
        return operation, args

    def _stream(self, arg: Any) -> tuple[str, dict[str, str]]:
        """(our name of the channel, the arg that is acknowledged). An instId beside the instType is dropped. Raises _Wrong."""
        channel, instrument = (arg.get("channel"), arg.get("instId")) if isinstance(arg, dict) else (None, None)
        if channel in (INSTRUMENTS, LIQUIDATIONS):
            if arg.get("instType") == "SWAP":
                return channel, {"channel": channel, "instType": "SWAP"}
        elif isinstance(channel, str) and channel in VIP_CHANNELS:
            raise _Wrong("64003", "Your trading fee tier doesn't meet the requirement to access this channel")
        elif isinstance(channel, str) and channel in SWAP_CHANNELS and isinstance(instrument, str) and instrument in self._swaps:
            return f"{channel}:{instrument}", {"channel": channel, "instId": instrument}
        raise _Wrong(
            "60018",
            f"Wrong URL or channel:{str(channel)[:60]},instId:{str(instrument)[:60]} doesn't exist. Please use the correct URL, "
            "channel and parameters referring to API document.",
        )

    def _sequence(self, market: SymbolMarket) -> int:
        return market.last_id - self._rewound

    def _channel(self, stream: str) -> Channel:
        name, _, instrument = stream.partition(":")
        if name == INSTRUMENTS:
            return InstrumentsChannel(self._rest.instruments)
        if name == LIQUIDATIONS:
            return LiquidationsChannel(self._by_symbol, self._draws)
        swap = self._swaps[instrument]
        if name == "books":
            return BooksChannel(swap, self._sequence)
        if name == "trades":
            return TradesChannel(swap)
        if name == "mark-price":
            return StateChannel(
                name, instrument, lambda: MARK_NS, swap.mark_row, lambda: swap.price % swap.market.mark_price, MARK_IDLE_NS
            )
        if name == "open-interest":
            return StateChannel(name, instrument, lambda: INTEREST_NS, swap.interest_row, lambda: swap.interest()[0], HOUR_NS)
        # The funding rate comes without a change: no moment's content equals another's.
        return StateChannel(name, instrument, self._funding_interval_ns, swap.funding_row, object, HOUR_NS)

    def _funding_interval_ns(self) -> int:
        return (30 + self._draws.below(61)) * SECOND_NS
