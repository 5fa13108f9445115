"""Hyperliquid perpetuals, wire format of November 2026 (`spec: exchanges`, section 6). Text in, records out.

Book, trades, marks, funding and open interest; there is no public liquidation feed (`sampling` says none). One unknown coin closes
the whole socket, so nothing is subscribed before the venue's own list of coins is known. Each book message is a whole book.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from mpengine.config import HyperliquidSettings, IngestSettings
from mpengine.venues.base import ConnectLimit, RestCall, RestVerdict, Sampling, SocketPlan, StreamPlan, plan_of
from mpengine.venues.mapper import UNREADABLE, Mapper, Seen, judge_status, sample_of
from mpengine.venues.numbers import BadRow, integer, milliseconds, number, positive
from shm.records import EventFlag, Kind, TakerSide, Venue, pack_event, pack_levels

COINS_PER_SOCKET: Final = 60  # 10 connections and 1,000 subscriptions per address
PING: Final = '{"method":"ping"}'
PING_S: Final = 30.0
AHEAD_MS: Final = 60_000
BOOK_DELIVERS_NS: Final = 10 * 10**9  # a book comes every 0.5 s (fast) or 5 s
META: Final = b'{"type":"meta"}'
TAKERS: Final = {"B": TakerSide.BUY, "A": TakerSide.SELL}

_Handler = Callable[[str, Any, int], int]


class Hyperliquid(Mapper):
    """`VenueModule` of Hyperliquid. `names`: our symbol -> coin, in the venue's own letters; `books`: whose book is wanted."""

    venue = Venue.HYPERLIQUID
    sampling: Sampling = "none"
    connect_limit = ConnectLimit(burst=5, per_s=0.5)  # 30 new ones a minute
    wire_snapshots = True

    def __init__(
        self, settings: HyperliquidSettings, ingest: IngestSettings, names: Mapping[str, str], books: frozenset[str]
    ) -> None:
        super().__init__()
        self._settings = settings
        self._ingest = ingest
        self._names = dict(names)
        self._books = books
        self._ours = {theirs: ours for ours, theirs in names.items()}
        self._coins: frozenset[str] | None = None
        self._plans_by_name = {plan.name: plan for plan in self.sockets()}
        self._unlisted = frozenset(stream.name for plan in self._plans_by_name.values() for stream in plan.streams)
        self._asked: set[str] = set()
        self._books_seen: dict[str, int] = {}
        self._trades_seen = Seen()
        self._handlers: dict[str, _Handler] = {"l2Book": self._book, "trades": self._trades, "activeAssetCtx": self._context}

    # plans -----------------------------------------------------------------------------------------------------------

    def sockets(self) -> list[SocketPlan]:
        """One socket per COINS_PER_SOCKET coins."""
        url = f"{self._settings.ws_url}/ws"
        symbols = list(self._names)
        sockets = []
        for start in range(0, max(1, len(symbols)), COINS_PER_SOCKET):
            name = "ws" if start == 0 else f"ws-{start // COINS_PER_SOCKET + 1}"
            plans = [plan for ours in symbols[start : start + COINS_PER_SOCKET] for plan in self._plans_of(ours, self._names[ours])]
            sockets.append(SocketPlan(name, url, tuple(plans), (), PING, PING_S))
        return sockets

    def _plans_of(self, ours: str, coin: str) -> list[StreamPlan]:
        own, plans = self._settings, []
        if ours in self._books:
            warn_s, act_s = (3, 10) if own.fast_book else (15, 60)
            plans.append(StreamPlan(f"l2Book:{coin}", ours, Kind.DEPTH, warn_s, act_s, True))
        if own.trades:
            plans.append(StreamPlan(f"trades:{coin}", ours, Kind.TRADE, 60, 300, False, "resubscribe"))
        if own.contexts:
            plans.append(StreamPlan(f"activeAssetCtx:{coin}", ours, Kind.MARK, 5, 30, False))
        return plans

    def polls(self) -> list[RestCall]:
        """The list of coins."""
        return [RestCall("instruments", None, "/info", 20, interval_s=self._ingest.instruments_interval_s, body=META)]

    def snapshot_call(self, symbol: str) -> RestCall | None:
        """None: every message is a snapshot."""
        return None

    def resubscribe(self, connection: str, stream: str, recv_ns: int) -> bool:
        """Take a stream anew. A book that delivers needs none: its next message is whole."""
        if connection not in self._asked or stream in self._unlisted:
            return True
        book = self._stats[connection].get(stream) if stream.startswith("l2Book:") else None
        if book is None or recv_ns - book.last_recv_ns >= BOOK_DELIVERS_NS:
            subscription = self._subscription(stream)
            self._texts[connection] += [_frame(method, subscription) for method in ("unsubscribe", "subscribe")]
        return True

    def unlisted(self) -> frozenset[str]:
        """Streams of coins that the venue's list lacks; all of them while there is no list."""
        return self._unlisted

    def _symbols(self) -> Iterable[str]:
        return self._names

    # connections -----------------------------------------------------------------------------------------------------

    def opened(self, connection: str, recv_ns: int) -> None:
        """A connection begins; if the coins are known already, its streams are asked for at once."""
        super().opened(connection, recv_ns)
        self._subscribe_waiting()

    def lost(self, connection: str, recv_ns: int, *, replaced: bool) -> None:
        """Forget the connection."""
        super().lost(connection, recv_ns, replaced=replaced)
        self._asked.discard(connection)

    def _subscribe_waiting(self) -> None:
        if self._coins is None:
            return
        for connection, texts in self._texts.items():
            plan = self._plans_by_name.get(plan_of(connection))
            if connection in self._asked or plan is None:
                continue
            self._asked.add(connection)
            for stream in plan.streams:
                if stream.name.partition(":")[2] in self._coins:
                    texts.append(_frame("subscribe", self._subscription(stream.name)))
                else:
                    self.counters.count("unknown_coin")

    def _subscription(self, stream: str) -> dict[str, Any]:
        kind, _, coin = stream.partition(":")
        wanted: dict[str, Any] = {"type": kind, "coin": coin}
        if kind == "l2Book" and self._settings.fast_book:
            wanted["fast"] = True
        return wanted

    # wire in ---------------------------------------------------------------------------------------------------------

    def receive(self, connection: str, payload: bytes, recv_ns: int) -> None:
        """One message of a channel, an acknowledgement, or a pong."""
        self.counters.messages += 1
        name = ""
        try:
            message = orjson.loads(payload)
            if not isinstance(message, dict):
                raise BadRow("not_an_object")
            channel = message["channel"]
            if channel == "pong":
                self._probes[connection] = recv_ns
                return
            if channel == "subscriptionResponse":
                return
            handler = self._handlers.get(channel)
            if handler is None:
                raise BadRow("error_reply" if channel == "error" else "unknown_stream")
            data = message["data"]
            coin = data[0]["coin"] if channel == "trades" else data["coin"]
            if coin not in self._ours:
                raise BadRow("foreign_symbol")
            name = f"{channel}:{coin}"
            venue_ns = handler(connection, data, recv_ns)
        except UNREADABLE as error:
            self._refused(connection, name, error, payload)
            return
        self._delivered(connection, name, recv_ns, venue_ns)

    def _book(self, connection: str, data: dict[str, Any], recv_ns: int) -> int:
        """A whole book; one that is older than the newest (the other life of a rotated socket) is left out."""
        symbol = self._ours[data["coin"]]
        if symbol not in self._books:
            raise BadRow("foreign_symbol")
        time_ms = integer(data["time"])
        venue_ns = milliseconds(time_ms)
        bids, asks = data["levels"]
        flat = array("d")
        for row in (*bids, *asks):
            flat.append(positive(row["px"]))
            flat.append(positive(row["sz"]))
        if not bids or not asks:
            raise BadRow("empty_snapshot")
        # A time far ahead of ours was a fault of theirs: measured by it, no book would count before that time has come.
        if time_ms <= self._books_seen.get(symbol, 0) <= recv_ns // 10**6 + AHEAD_MS:
            self.counters.count("depth_duplicate")
            return venue_ns
        self._books_seen[symbol] = time_ms
        counts = len(bids), len(asks)
        record = pack_levels(Kind.SNAPSHOT, Venue.HYPERLIQUID, 0, venue_ns, recv_ns, time_ms, time_ms, 0, *counts, flat.tobytes())
        self._emit(symbol, record)
        return venue_ns

    def _trades(self, connection: str, data: list[Any], recv_ns: int) -> int:
        """`side` is the aggressor's: B bought. The first frame repeats the last 20 s."""
        newest = 0
        for row in data:
            try:
                newest = max(newest, self._trade(row, recv_ns))
            except UNREADABLE as error:
                self._refused(connection, f"trades:{data[0]['coin']}", error, sample_of(row))
        return newest

    def _trade(self, row: dict[str, Any], recv_ns: int) -> int:
        coin = row["coin"]
        symbol = self._ours.get(coin)
        if symbol is None:
            raise BadRow("foreign_symbol")
        side = TAKERS.get(row["side"])
        if side is None:
            raise BadRow("bad_side")
        venue_ns, price, qty, identity = milliseconds(row["time"]), positive(row["px"]), positive(row["sz"]), integer(row["tid"])
        if not self._trades_seen.is_new((coin, row["time"], identity), recv_ns):
            self.counters.count("trade_duplicate")
            return venue_ns
        self._emit(symbol, pack_event(Kind.TRADE, Venue.HYPERLIQUID, side, 0, venue_ns, recv_ns, identity, 0, price, qty))
        return venue_ns

    def _context(self, connection: str, data: dict[str, Any], recv_ns: int) -> int:
        """Mark, oracle as index, hourly funding; open interest for display. The message has no time of its own."""
        symbol, context = self._ours[data["coin"]], data["ctx"]
        mark, index, rate = positive(context["markPx"]), positive(context["oraclePx"]), number(context["funding"])
        interest = positive(context["openInterest"])
        flags = EventFlag.HAS_FUNDING | EventFlag.HAS_INDEX
        self._emit(symbol, pack_event(Kind.MARK, Venue.HYPERLIQUID, 0, flags, recv_ns, recv_ns, 0, 0, mark, index, rate))
        flag = EventFlag.DISPLAY
        self._emit(symbol, pack_event(Kind.OPEN_INTEREST, Venue.HYPERLIQUID, 0, flag, recv_ns, recv_ns, 0, 0, 0.0, interest))
        return 0

    # REST ------------------------------------------------------------------------------------------------------------

    def receive_rest(self, call: RestCall, status: int, body: bytes, recv_ns: int) -> None:
        """The list of coins; a body that cannot be read is counted."""
        self.counters.messages += 1
        try:
            if call.name != "instruments":
                raise BadRow("unknown_call")
            universe = orjson.loads(body)["universe"]
            coins = frozenset(
                row["name"] for row in universe if isinstance(row.get("name"), str) and row.get("isDelisted") is not True
            )
            if not coins:
                raise BadRow("no_instruments")
            self._coins = coins
            names = (stream.name for plan in self._plans_by_name.values() for stream in plan.streams)
            self._unlisted = frozenset(name for name in names if name.partition(":")[2] not in coins)
            self._subscribe_waiting()
        except UNREADABLE as error:
            self._refused("", "", error, body)

    def judge(self, call: RestCall, status: int, headers: Mapping[str, str], body: bytes) -> RestVerdict:
        """Statuses as everywhere."""
        return judge_status(status, headers, body)


def _frame(method: str, subscription: Mapping[str, Any]) -> str:
    """One subscription per frame: the venue takes no arrays."""
    return orjson.dumps({"method": method, "subscription": subscription}).decode()
