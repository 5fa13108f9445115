"""Bybit v5 linear perpetuals, wire format of November 2026 (`spec: exchanges`, section 4). Text in, records out.

The liquidation side `S` is the side of the *position* (Buy: a long died). Subscriptions bring snapshots by themselves; any later
snapshot replaces the book. While two lives of a socket overlap, a symbol's diffs come from the life with the newest snapshot.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from mpengine.config import BybitSettings, IngestSettings
from mpengine.venues.base import ConnectLimit, RestCall, RestResult, RestVerdict, Sampling, SocketPlan, StreamPlan, plan_of
from mpengine.venues.mapper import UNREADABLE, Mapper, Seen, judge_status, read_levels, rest_symbol, sample_of
from mpengine.venues.numbers import BadRow, integer, milliseconds, number, positive
from shm.records import EventFlag, GapScope, Kind, PositionSide, TakerSide, Venue, pack_event, pack_gap, pack_levels

TOPICS_PER_SOCKET: Final = 190
ARGS_PER_REQUEST: Final = 10
ARGS_CHARACTERS: Final = 21_000
BOOK_DEPTHS: Final = (1, 50, 200, 1000)
TRADE_ID_CHARACTERS: Final = 64  # theirs have 36; what is remembered stays bounded
PING: Final = '{"op":"ping"}'
PING_S: Final = 20.0
FIREWALL_S: Final = 600.0
LIMIT_CODE: Final = 10006
SIDES: Final = {"Buy": PositionSide.LONG, "Sell": PositionSide.SHORT}
TAKERS: Final = {"Buy": TakerSide.BUY, "Sell": TakerSide.SELL}
_MARK_FIELDS: Final = frozenset(("markPrice", "indexPrice", "fundingRate", "nextFundingTime"))
_INTEREST_FIELDS: Final = frozenset(("singleOpenInterest", "openInterest"))

_DEPTH: Final = int(Kind.DEPTH)  # PERF: packing an enum member costs three times as much as packing its number
_SNAPSHOT: Final = int(Kind.SNAPSHOT)
_BYBIT: Final = int(Venue.BYBIT)

_Handler = Callable[[str, "_Topic", dict[str, Any], int], int]


@dataclass(frozen=True, slots=True)
class _Topic:
    """What to do with the messages of one topic; `symbol` is ours, `theirs` what its rows must carry."""

    name: str
    symbol: str
    theirs: str
    handle: _Handler


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
        self._topics = self._known_topics()
        self._owners: dict[str, tuple[str, str]] = {}
        self._tickers: dict[tuple[str, str], dict[str, float]] = {}
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
        topic: _Topic | None = None
        try:
            message = orjson.loads(payload)
            if not isinstance(message, dict):
                raise BadRow("not_an_object")
            name = message.get("topic")
            if name is None:
                self._other(connection, message, recv_ns)
                return
            topic = self._topics.get(name)
            if topic is None:
                raise BadRow("unknown_stream")
            venue_ns = topic.handle(connection, topic, message, recv_ns)
        except UNREADABLE as error:
            self._refused(connection, topic.name if topic else "", error, payload)
            return
        self._delivered(connection, topic.name, recv_ns, venue_ns)

    def _known_topics(self) -> dict[str, _Topic]:
        known = []
        for ours, theirs in self._names.items():
            known += [
                _Topic(f"allLiquidation.{theirs}", ours, theirs, self._liquidations),
                _Topic(f"publicTrade.{theirs}", ours, theirs, self._trades),
                _Topic(f"tickers.{theirs}", ours, theirs, self._ticker),
            ]
            for depth in BOOK_DEPTHS if ours in self._books else ():
                known.append(_Topic(f"orderbook.{depth}.{theirs}", ours, theirs, self._order_book))
        return {topic.name: topic for topic in known}

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

    def _each(self, connection: str, topic: _Topic, message: dict[str, Any], read: Callable[[Any], None]) -> int:
        """Rows one by one: a bad one never costs its neighbours. Returns the venue's time of the message, ns."""
        venue_ns, rows = milliseconds(message["ts"]), message["data"]
        if not isinstance(rows, list):
            raise BadRow("not_a_list")
        for row in rows:
            try:
                if row["s"] != topic.theirs:
                    raise BadRow("foreign_symbol")
                read(row)
            except UNREADABLE as error:
                self._refused(connection, topic.name, error, sample_of(row))
        return venue_ns

    # book ------------------------------------------------------------------------------------------------------------

    def _order_book(self, connection: str, topic: _Topic, message: dict[str, Any], recv_ns: int) -> int:
        """A snapshot makes its connection the owner of the symbol's book; deltas of any other life are dropped.

        `u` 1 is a snapshot after a restart of the venue's service, whatever its type says. A delta passes with the id before its
        own as the one it follows, whatever came before: the engine sees the break and asks for a new snapshot.
        """
        data, kind = message["data"], message["type"]
        if kind not in ("snapshot", "delta"):
            raise BadRow("unknown_type")
        if data["s"] != topic.theirs:
            raise BadRow("foreign_symbol")
        update = integer(data["u"])
        venue_ns = milliseconds(message["cts"] if "cts" in message else message["ts"])
        bids, asks = data["b"], data["a"]
        levels = _levels(bids, asks)
        if kind == "snapshot" or update == 1:
            if not bids or not asks:
                raise BadRow("empty_snapshot")
            record, previous = _SNAPSHOT, 0
        elif update < 1:
            raise BadRow("not_positive")
        else:
            owner = self._owners.get(topic.symbol)
            if owner != (connection, topic.name):
                self.counters.count("depth_duplicate" if owner else "delta_before_snapshot")
                return venue_ns
            record, previous = _DEPTH, update - 1
        packed = pack_levels(record, _BYBIT, 0, venue_ns, recv_ns, update, update, previous, len(bids), len(asks), levels.tobytes())
        if record == _SNAPSHOT:
            self._owners[topic.symbol] = connection, topic.name
        self._emit(topic.symbol, packed)
        return venue_ns

    # trades, tickers, liquidations -----------------------------------------------------------------------------------

    def _trades(self, connection: str, topic: _Topic, message: dict[str, Any], recv_ns: int) -> int:
        """`S` is the taker's side. Block trades are agreed off the book, so they are no taker flow: skipped and counted."""

        def read(row: Any) -> None:
            side = TAKERS.get(row["S"])
            if side is None:
                raise BadRow("bad_side")
            venue_ns, price, qty = milliseconds(row["T"]), positive(row["p"]), positive(row["v"])
            identity, sequence = row["i"], integer(row.get("seq", 0))
            if not isinstance(identity, str) or len(identity) > TRADE_ID_CHARACTERS:
                raise BadRow("bad_trade_id")
            record = pack_event(Kind.TRADE, Venue.BYBIT, side, 0, venue_ns, recv_ns, sequence, 0, price, qty)
            if row.get("BT", False) is not False:
                self.counters.count("block_trade")
            elif self._trades_seen.is_new((topic.symbol, identity), recv_ns):
                self._emit(topic.symbol, record)
            else:
                self.counters.count("trade_duplicate")

        return self._each(connection, topic, message, read)

    def _ticker(self, connection: str, topic: _Topic, message: dict[str, Any], recv_ns: int) -> int:
        """Deltas say only what changed; the merged state is forgotten with each snapshot and connection."""
        data, kind, key = message["data"], message["type"], (connection, topic.symbol)
        if kind not in ("snapshot", "delta"):
            raise BadRow("unknown_type")
        if data["symbol"] != topic.theirs:
            raise BadRow("foreign_symbol")
        venue_ns = milliseconds(message["ts"])
        merged = {} if kind == "snapshot" else self._tickers.get(key)
        if merged is None:
            raise BadRow("delta_before_snapshot")
        changed = self._merge_ticker(connection, topic, merged, data)
        self._tickers[key] = merged
        if changed & _MARK_FIELDS and "markPrice" in merged:
            self._emit(topic.symbol, _ticker_mark(merged, venue_ns, recv_ns))
        if changed & _INTEREST_FIELDS and (qty := _single_sided(merged)) is not None:
            flag = EventFlag.DISPLAY  # a ticker's value never enters the sum of polled ones
            self._emit(topic.symbol, pack_event(Kind.OPEN_INTEREST, Venue.BYBIT, 0, flag, venue_ns, recv_ns, 0, 0, 0.0, qty))
        return venue_ns

    def _merge_ticker(self, connection: str, topic: _Topic, merged: dict[str, float], data: dict[str, Any]) -> frozenset[str]:
        """Take over the fields that are there; returns the names of those that now have a value.

        An empty field (dated contracts have no funding) and one that cannot be read become unknown; the latter is counted.
        """
        changed = []
        for name, read in _TICKER_FIELDS.items():
            if name not in data:
                continue
            merged.pop(name, None)
            text = data[name]
            try:
                if text != "":
                    merged[name] = read(text)
                    changed.append(name)
            except BadRow as error:
                self._refused(connection, topic.name, error, sample_of({name: text}))
        return frozenset(changed)

    def _liquidations(self, connection: str, topic: _Topic, message: dict[str, Any], recv_ns: int) -> int:
        """`S` is the side of the position that was closed, `p` its bankruptcy price."""
        seen: dict[tuple[Any, ...], int] = {}

        def read(row: Any) -> None:
            side = SIDES.get(row["S"])
            if side is None:
                raise BadRow("bad_side")
            venue_ns, price, qty = milliseconds(row["T"]), positive(row["p"]), positive(row["v"])
            record = pack_event(Kind.LIQUIDATION, Venue.BYBIT, side, 0, venue_ns, recv_ns, 0, 0, price, qty)
            key = row["s"], row["S"], row["T"], row["v"], row["p"]
            seen[key] = seen.get(key, 0) + 1  # two equal rows of one message are two events
            self._emit_liquidation(topic.symbol, (*key, seen[key]), recv_ns, record)

        return self._each(connection, topic, message, read)

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
        venue_ns = milliseconds(_digits(newest["timestamp"]))
        qty = _single_sided({name: positive(newest[name]) for name in _INTEREST_FIELDS if newest.get(name)})
        if qty is None:
            raise BadRow("missing_field")
        self._emit(symbol, pack_event(Kind.OPEN_INTEREST, Venue.BYBIT, 0, 0, venue_ns, recv_ns, 0, 0, 0.0, qty))

    def _instrument(self, call: RestCall, result: dict[str, Any], recv_ns: int) -> None:
        """A reply names one symbol; one that was asked for all of them (recorded by others) is searched for ours."""
        for row in result["list"]:
            symbol = self._ours.get(row["symbol"])
            if symbol is not None and call.symbol in (symbol, None):
                self._one_instrument(symbol, row, recv_ns)
            elif call.symbol is not None:
                raise BadRow("foreign_symbol")

    def _one_instrument(self, symbol: str, row: Mapping[str, Any], recv_ns: int) -> None:
        if row["status"] != "Trading":
            raise BadRow("not_trading")
        tick, lot = positive(row["priceFilter"]["tickSize"]), positive(row["lotSizeFilter"]["qtyStep"])
        self._emit(symbol, pack_event(Kind.INSTRUMENT, Venue.BYBIT, 0, 0, recv_ns, recv_ns, 0, 0, tick, 1.0, lot))

    def judge(self, call: RestCall, status: int, headers: Mapping[str, str], body: bytes) -> RestVerdict:
        """Statuses as everywhere, and the `retCode` of a 200. A 403 is "access too frequent": all REST rests for ten minutes."""
        if status == 403 and b"country" in body.lower():
            return RestVerdict(RestResult.BLOCKED)  # the edge in front of the venue says country, not location
        if status != 200:
            return judge_status(status, headers, body, firewall_s=FIREWALL_S)
        try:
            code = orjson.loads(body)["retCode"]
        except UNREADABLE:
            return RestVerdict(RestResult.TRANSIENT)
        if code == 0:
            return RestVerdict(RestResult.OK)
        return RestVerdict(RestResult.LIMITED if code == LIMIT_CODE else RestResult.REFUSED)


def _single_sided(interest: Mapping[str, float]) -> float | None:
    """Open interest in base coin, one side; `openInterest` counts both (`spec: exchanges`, section 9). None: neither is known."""
    single = interest.get("singleOpenInterest")
    if single is not None:
        return single
    both = interest.get("openInterest")
    return None if both is None else both / 2.0


def _digits(text: Any) -> int:
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise BadRow("not_an_integer")


_TICKER_FIELDS: Final[dict[str, Callable[[Any], float]]] = {
    "markPrice": positive,
    "indexPrice": positive,
    "fundingRate": number,
    "nextFundingTime": _digits,  # ms
    "singleOpenInterest": positive,
    "openInterest": positive,
}


def _ticker_mark(merged: Mapping[str, float], venue_ns: int, recv_ns: int) -> bytes:
    """A mark with what else is known of the symbol."""
    flags, index, funding, next_ms = EventFlag.NONE, 0.0, 0.0, 0
    if "indexPrice" in merged:
        flags |= EventFlag.HAS_INDEX
        index = merged["indexPrice"]
    if "fundingRate" in merged:
        flags |= EventFlag.HAS_FUNDING
        funding, next_ms = merged["fundingRate"], int(merged.get("nextFundingTime", 0))
    return pack_event(Kind.MARK, Venue.BYBIT, 0, flags, venue_ns, recv_ns, 0, next_ms, merged["markPrice"], index, funding)


def _levels(bids: Any, asks: Any) -> array[float]:
    """Flat (price, quantity) pairs of both sides, bids first. Raises BadRow unless every row is a pair of finite numbers >= 0.

    PERF: texts are converted in place and judged together; only levels in another form are read one by one.
    """
    if type(bids) is not list or type(asks) is not list:
        raise BadRow("not_a_list")
    flat: list[float] = []
    add, usual = flat.append, True
    for rows in (bids, asks):
        for row in rows:
            if type(row) is not list or len(row) != 2:
                raise BadRow("not_a_pair")
            price, qty = row
            usual = usual and type(price) is str and type(qty) is str
            try:
                add(float(price))
                add(float(qty))
            except (ValueError, TypeError):
                raise BadRow("not_a_number") from None
    # NaN and infinities never leave the sum finite; a sum that overflows is judged level by level.
    if flat and not (usual and min(flat) >= 0.0 and math.isfinite(sum(flat))):
        return array("d", read_levels(bids) + read_levels(asks))
    return array("d", flat)


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
