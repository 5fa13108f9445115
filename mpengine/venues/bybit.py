"""Bybit v5 linear perpetuals, wire format of November 2026 (`spec: exchanges`, section 4). Text in, records out.

The liquidation side `S` is the side of the *position* (Buy: a long died). Subscriptions bring snapshots by themselves; any later
snapshot replaces the book. While two lives of a socket overlap, a symbol's diffs come from the life with the newest snapshot.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import orjson

from mpengine.config import BybitSettings, IngestSettings
from mpengine.venues.base import ConnectLimit, RestCall, RestResult, RestVerdict, Sampling, SocketPlan, StreamPlan, plan_of
from mpengine.venues.mapper import UNREADABLE, Mapper, Seen, judge_status, read_levels, rest_symbol
from mpengine.venues.numbers import BadRow, integer, milliseconds, number, positive
from shm.records import EventFlag, GapScope, Kind, PositionSide, TakerSide, Venue, pack_event, pack_gap, pack_levels

TOPICS_PER_SOCKET: Final = 190
ARGS_PER_REQUEST: Final = 10
ARGS_CHARACTERS: Final = 21_000
PING: Final = '{"op":"ping"}'
PING_S: Final = 20.0
FIREWALL_S: Final = 600.0
LIMIT_CODE: Final = 10006
SIDES: Final = {"Buy": PositionSide.LONG, "Sell": PositionSide.SHORT}
TAKERS: Final = {"Buy": TakerSide.BUY, "Sell": TakerSide.SELL}
_TICKER_FIELDS: Final = (
    "markPrice", "indexPrice", "fundingRate", "nextFundingTime", "singleOpenInterest", "openInterest",
)  # fmt: skip

_Handler = Callable[[str, str, dict[str, Any], int], int]


class Bybit(Mapper):
    """`VenueModule` of Bybit linear. `names`: our symbol -> theirs; `books`: our symbols whose book is wanted."""

    venue = Venue.BYBIT
    sampling: Sampling = "all_500ms"
    connect_limit = ConnectLimit(burst=20, per_s=1.5)  # 500 new connections in 5 min
    wire_snapshots = True

    def __init__(self, settings: BybitSettings, ingest: IngestSettings, names: Mapping[str, str], books: frozenset[str]) -> None:
        super().__init__()
        self._settings = settings
        self._ingest = ingest
        self._names = dict(names)
        self._books = books
        self._ours = {theirs: ours for ours, theirs in names.items()}
        self._handlers: dict[str, _Handler] = {
            "orderbook": self._order_book,
            "publicTrade": self._trades,
            "tickers": self._ticker,
            "allLiquidation": self._liquidations,
        }
        self._owners: dict[str, tuple[str, str]] = {}
        self._tickers: dict[tuple[str, str], dict[str, Any]] = {}
        self._trades_seen = Seen()
        self._requests = 0

    # plans -----------------------------------------------------------------------------------------------------------

    def sockets(self) -> list[SocketPlan]:
        """As many sockets as keep each below the venue's limits of topics and characters."""
        url = f"{self._settings.ws_url}/v5/public/linear"
        sockets = []
        for index, part in enumerate(_shards(self._plans())):
            name = "linear" if index == 0 else f"linear-{index + 1}"
            topics = [plan.name for plan in part]
            texts = tuple(_request("subscribe", some, at) for at, some in enumerate(_chunks(topics, ARGS_PER_REQUEST), 1))
            sockets.append(SocketPlan(name, url, tuple(part), texts, PING, PING_S))
        return sockets

    def _plans(self) -> list[StreamPlan]:
        own, plans = self._settings, []
        for ours, theirs in self._names.items():
            # Silence of minutes is normal here; ingest compares it with the other venues' liquidations of the symbol.
            plans.append(StreamPlan(f"allLiquidation.{theirs}", ours, Kind.LIQUIDATION, None, None, False))
            if ours in self._books:
                plans.append(StreamPlan(f"orderbook.{own.book_depth}.{theirs}", ours, Kind.DEPTH, 5, 15, True, "resubscribe"))
            if own.trades:
                plans.append(StreamPlan(f"publicTrade.{theirs}", ours, Kind.TRADE, 30, 60, False, "resubscribe"))
            if own.tickers:
                plans.append(StreamPlan(f"tickers.{theirs}", ours, Kind.MARK, 10, 30, False, "resubscribe"))
        return plans

    def polls(self) -> list[RestCall]:
        """Open interest and the instrument of each symbol."""
        calls = []
        for ours, theirs in self._names.items():
            name = quote(theirs)
            path = f"/v5/market/instruments-info?category=linear&symbol={name}"
            calls.append(RestCall("instruments", ours, path, 1, interval_s=self._ingest.instruments_interval_s))
            path = f"/v5/market/open-interest?category=linear&symbol={name}&intervalTime=5min&limit=1"
            calls.append(RestCall("open_interest", ours, path, 1, interval_s=self._ingest.open_interest_interval_s))
        return calls

    def snapshot_call(self, symbol: str) -> RestCall | None:
        """None: snapshots come with the subscription (REST ids belong to another stream)."""
        return None

    def resubscribe(self, connection: str, stream: str, recv_ns: int) -> bool:
        """Unsubscribe and subscribe a topic; the venue sets no limit to that."""
        if connection in self._texts:
            self._requests += 1
            self._texts[connection] += [_request(op, [stream], f"r{self._requests}") for op in ("unsubscribe", "subscribe")]
        return True

    def _symbols(self) -> Iterable[str]:
        return self._names

    # connections -----------------------------------------------------------------------------------------------------

    def opened(self, connection: str, recv_ns: int) -> None:
        """Statistics begin; merged tickers of the plan's other lives stay theirs."""
        super().opened(connection, recv_ns)
        for key in [key for key in self._tickers if key[0] == connection]:
            del self._tickers[key]

    def lost(self, connection: str, recv_ns: int, *, replaced: bool) -> None:
        """Forget the connection; books that only it carried have a hole, which another life of its plan is asked to fill."""
        super().lost(connection, recv_ns, replaced=replaced)
        for key in [key for key in self._tickers if key[0] == connection]:
            del self._tickers[key]
        others = [name for name in self._texts if plan_of(name) == plan_of(connection)]
        for symbol, (owner, topic) in list(self._owners.items()):
            if owner == connection:
                del self._owners[symbol]
                if replaced:
                    self._emit(symbol, pack_gap(self.venue, GapScope.BOOK, recv_ns))
                for other in others:
                    self.resubscribe(other, topic, recv_ns)

    # wire in ---------------------------------------------------------------------------------------------------------

    def receive(self, connection: str, payload: bytes, recv_ns: int) -> None:
        """One message of a topic, an acknowledgement, or the answer to a ping."""
        self.counters.messages += 1
        topic = ""
        try:
            message = orjson.loads(payload)
            if not isinstance(message, dict):
                raise BadRow("not_an_object")
            name = message.get("topic")
            if name is None:
                self._other(connection, message, recv_ns)
                return
            kind, _, rest = name.partition(".")
            handler = self._handlers.get(kind)
            if handler is None:
                raise BadRow("unknown_stream")
            symbol = self._ours.get(rest.rpartition(".")[2])
            if symbol is None:
                raise BadRow("foreign_symbol")
            topic = name
            venue_ns = handler(connection, symbol, message, recv_ns)
        except UNREADABLE as error:
            self._refused(connection, topic, error, payload)
            return
        self._delivered(connection, topic, recv_ns, venue_ns)

    def _other(self, connection: str, message: dict[str, Any], recv_ns: int) -> None:
        """Pongs come as op `ping` with ret_msg `pong`; a refused request is counted and costs nothing else."""
        operation = message.get("op")
        if operation == "pong" or (operation == "ping" and message.get("ret_msg") == "pong"):
            self._probes[connection] = recv_ns
            return
        if operation not in ("subscribe", "unsubscribe"):
            raise BadRow("unknown_message")
        if message.get("success") is not True:
            raise BadRow("error_reply")

    def _rows(self, message: dict[str, Any]) -> Sequence[Any]:
        rows = message["data"]
        if not isinstance(rows, list):
            raise BadRow("not_a_list")
        return rows

    def _own_row(self, row: Mapping[str, Any], field: str, symbol: str) -> None:
        if row[field] != self._names[symbol]:
            raise BadRow("foreign_symbol")

    def _each(
        self, connection: str, message: dict[str, Any], read: Callable[[Any, int], None]
    ) -> int:  # fmt: skip
        """Rows one by one: a bad one never costs its neighbours. Returns the venue's time of the message."""
        venue_ns = milliseconds(message["ts"])
        for place, row in enumerate(self._rows(message)):
            try:
                read(row, place)
            except UNREADABLE as error:
                self._refused(connection, message["topic"], error, repr(row).encode())
        return venue_ns

    # book ------------------------------------------------------------------------------------------------------------

    def _order_book(self, connection: str, symbol: str, message: dict[str, Any], recv_ns: int) -> int:
        data = message["data"]
        self._own_row(data, "s", symbol)
        update = integer(data["u"])
        venue_ns = milliseconds(message.get("cts", message["ts"]))
        bids, asks = read_levels(data["b"]), read_levels(data["a"])
        kind = message["type"]
        if kind == "snapshot":
            if symbol not in self._books:
                raise BadRow("foreign_symbol")
            self._owners[symbol] = connection, message["topic"]
            record, previous = Kind.SNAPSHOT, 0
        elif kind == "delta":
            if self._owners.get(symbol) != (connection, message["topic"]):
                self.counters.count("depth_duplicate")
                return venue_ns
            if update < 1:
                raise BadRow("not_positive")
            record, previous = Kind.DEPTH, update - 1
        else:
            raise BadRow("unknown_type")
        levels = array("d", bids + asks).tobytes()
        counts = len(bids) // 2, len(asks) // 2
        self._emit(symbol, pack_levels(record, Venue.BYBIT, 0, venue_ns, recv_ns, update, update, previous, *counts, levels))
        return venue_ns

    # trades, tickers, liquidations -----------------------------------------------------------------------------------

    def _trades(self, connection: str, symbol: str, message: dict[str, Any], recv_ns: int) -> int:
        def read(row: Any, _place: int) -> None:
            self._own_row(row, "s", symbol)
            side = TAKERS.get(row["S"])
            if side is None:
                raise BadRow("bad_side")
            venue_ns, price, qty = milliseconds(row["T"]), positive(row["p"]), positive(row["v"])
            if row.get("BT") is True:
                self.counters.count("block_trade")  # agreed off the book: no taker flow
                return
            identity = row["i"]
            if not isinstance(identity, str):
                raise BadRow("wrong_type")
            if not self._trades_seen.is_new((symbol, identity), recv_ns):
                self.counters.count("trade_duplicate")
                return
            sequence = integer(row.get("seq", 0))
            self._emit(symbol, pack_event(Kind.TRADE, Venue.BYBIT, side, 0, venue_ns, recv_ns, sequence, 0, price, qty))

        return self._each(connection, message, read)

    def _ticker(self, connection: str, symbol: str, message: dict[str, Any], recv_ns: int) -> int:
        """Deltas say only what changed; the merged state is forgotten with each snapshot and connection."""
        data = message["data"]
        self._own_row(data, "symbol", symbol)
        venue_ns = milliseconds(message["ts"])
        kind, key = message["type"], (connection, symbol)
        if kind not in ("snapshot", "delta"):
            raise BadRow("unknown_type")
        known = {} if kind == "snapshot" else self._tickers.get(key)
        if known is None:
            raise BadRow("delta_before_snapshot")
        changed = {name: data[name] for name in _TICKER_FIELDS if name in data}
        merged = known | changed
        self._ticker_mark(symbol, merged, changed, venue_ns, recv_ns)
        self._ticker_interest(symbol, merged, changed, venue_ns, recv_ns)
        self._tickers[key] = merged
        return venue_ns

    def _ticker_mark(self, symbol: str, merged: dict[str, Any], changed: dict[str, Any], venue_ns: int, recv_ns: int) -> None:
        if "markPrice" not in merged or not changed.keys() & {"markPrice", "fundingRate", "indexPrice"}:
            return
        flags, index, funding, next_ms = EventFlag.NONE, 0.0, 0.0, 0
        if merged.get("indexPrice"):
            flags |= EventFlag.HAS_INDEX
            index = positive(merged["indexPrice"])
        if merged.get("fundingRate"):
            flags |= EventFlag.HAS_FUNDING
            funding = number(merged["fundingRate"])
            next_ms = _digits(merged.get("nextFundingTime") or "0")
        mark = positive(merged["markPrice"])
        self._emit(symbol, pack_event(Kind.MARK, Venue.BYBIT, 0, flags, venue_ns, recv_ns, 0, next_ms, mark, index, funding))

    def _ticker_interest(self, symbol: str, merged: dict[str, Any], changed: dict[str, Any], venue_ns: int, recv_ns: int) -> None:
        """For display: a ticker's value never enters the sum of polled ones."""
        if changed.keys() & {"singleOpenInterest", "openInterest"}:
            qty = _single_sided(merged)
            self._emit(symbol, pack_event(Kind.OPEN_INTEREST, Venue.BYBIT, 0, EventFlag.DISPLAY, venue_ns, recv_ns, 0, 0, 0.0, qty))

    def _liquidations(self, connection: str, symbol: str, message: dict[str, Any], recv_ns: int) -> int:
        seen: dict[tuple[Any, ...], int] = {}

        def read(row: Any, _place: int) -> None:
            self._own_row(row, "s", symbol)
            side = SIDES.get(row["S"])
            if side is None:
                raise BadRow("bad_side")
            venue_ns, price, qty = milliseconds(row["T"]), positive(row["p"]), positive(row["v"])
            key = row["s"], row["S"], row["T"], row["v"], row["p"]
            seen[key] = seen.get(key, 0) + 1  # two equal rows of one message are two events
            record = pack_event(Kind.LIQUIDATION, Venue.BYBIT, side, 0, venue_ns, recv_ns, 0, 0, price, qty)
            self._emit_liquidation(symbol, (*key, seen[key]), recv_ns, record)

        return self._each(connection, message, read)

    # REST ------------------------------------------------------------------------------------------------------------

    def receive_rest(self, call: RestCall, status: int, body: bytes, recv_ns: int) -> None:
        """Body of a reply that `judge` found OK; a body that cannot be read is counted."""
        self.counters.messages += 1
        try:
            result = orjson.loads(body)["result"]
            if call.name == "open_interest":
                self._open_interest(call, result, recv_ns)
            elif call.name == "instruments":
                self._instrument(call, result, recv_ns)
            else:
                raise BadRow("unknown_call")
        except UNREADABLE as error:
            self._refused("", "", error, body)

    def _open_interest(self, call: RestCall, result: dict[str, Any], recv_ns: int) -> None:
        symbol = rest_symbol(call, self._ours.get(result["symbol"]))
        newest = result["list"][0]
        venue_ns, qty = milliseconds(_digits(newest["timestamp"])), _single_sided(newest)
        self._emit(symbol, pack_event(Kind.OPEN_INTEREST, Venue.BYBIT, 0, 0, venue_ns, recv_ns, 0, 0, 0.0, qty))

    def _instrument(self, call: RestCall, result: dict[str, Any], recv_ns: int) -> None:
        row = result["list"][0]
        symbol = rest_symbol(call, self._ours.get(row["symbol"]))
        if row["status"] != "Trading":
            raise BadRow("not_trading")
        tick, lot = positive(row["priceFilter"]["tickSize"]), positive(row["lotSizeFilter"]["qtyStep"])
        self._emit(symbol, pack_event(Kind.INSTRUMENT, Venue.BYBIT, 0, 0, recv_ns, recv_ns, 0, 0, tick, 1.0, lot))

    def judge(self, call: RestCall, status: int, headers: Mapping[str, str], body: bytes) -> RestVerdict:
        """Statuses as everywhere, and the `retCode` of a 200. A 403 is "access too frequent": all REST rests for ten minutes."""
        if status != 200:
            return judge_status(status, headers, body, firewall_s=FIREWALL_S)
        try:
            code = orjson.loads(body)["retCode"]
        except UNREADABLE:
            return RestVerdict(RestResult.TRANSIENT)
        if code == 0:
            return RestVerdict(RestResult.OK)
        return RestVerdict(RestResult.LIMITED if code == LIMIT_CODE else RestResult.REFUSED)


def _single_sided(row: Mapping[str, Any]) -> float:
    """`openInterest` counts both sides (`spec: exchanges`, section 9)."""
    single = row.get("singleOpenInterest")
    return positive(single) if single else positive(row["openInterest"]) / 2.0


def _digits(text: Any) -> int:
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise BadRow("not_an_integer")


def _request(operation: str, topics: Sequence[str], number_id: int | str) -> str:
    return orjson.dumps({"req_id": str(number_id), "op": operation, "args": list(topics)}).decode()


def _chunks(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _shards(plans: Sequence[StreamPlan]) -> list[list[StreamPlan]]:
    """Plans in sockets of at most TOPICS_PER_SOCKET topics and ARGS_CHARACTERS characters."""
    sockets: list[list[StreamPlan]] = []
    room = 0
    for plan in plans:
        size = len(plan.name) + 3
        if not sockets or len(sockets[-1]) >= TOPICS_PER_SOCKET or size > room:
            sockets.append([])
            room = ARGS_CHARACTERS
        sockets[-1].append(plan)
        room -= size
    return sockets
