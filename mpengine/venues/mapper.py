"""What all venue modules share: counters, drained queues, statistics of connections, duplicates, gaps. Pure."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from mpengine.venues.base import (
    RestCall,
    RestResult,
    RestVerdict,
    Routed,
    SocketPlan,
    StreamStats,
    VenueCounters,
    plan_of,
)
from mpengine.venues.numbers import BadRow, quantity
from shm.records import GapScope, Kind, Venue, pack_gap

DUPLICATE_KEYS: Final = 20_000
DUPLICATE_NS: Final = 15 * 60 * 10**9

UNREADABLE: Final = (
    BadRow, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, struct.error,
)  # fmt: skip
"""What reading a message of the wrong shape can raise. Anything else is a defect of the module and passes on to ingest."""


class Seen:
    """The keys of the last 15 minutes, at most 20,000 (`spec: exchanges`, section 10)."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def is_new(self, key: Hashable, recv_ns: int) -> bool:
        """True the first time, and remembered from then on."""
        keys = self._keys
        while keys and (len(keys) >= DUPLICATE_KEYS or next(iter(keys.values())) < recv_ns - DUPLICATE_NS):
            keys.popitem(last=False)
        if key in keys:
            return False
        keys[key] = recv_ns
        return True


class Mapper:
    """Base of the venue modules. A module without something (overdue snapshots, texts to send) inherits that there is none."""

    venue: Venue

    def __init__(self) -> None:
        self.counters = VenueCounters()
        self._events: list[Routed] = []
        self._stats: dict[str, dict[str, StreamStats]] = {}
        self._probes: dict[str, int] = {}
        self._texts: dict[str, list[str]] = {}
        self._liquidations_seen = Seen()

    def sockets(self) -> list[SocketPlan]:
        """Sockets to hold open."""
        raise NotImplementedError

    def snapshots_overdue(self, recv_ns: int) -> list[str]:
        """None."""
        return []

    def resubscribe(self, connection: str, stream: str, recv_ns: int) -> bool:
        """Nothing to say."""
        return True

    def replacements_wanted(self) -> list[str]:
        """None."""
        return []

    def unlisted(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def opened(self, connection: str, recv_ns: int) -> None:
        """Statistics of the connection begin."""
        self._stats[connection] = {}
        self._probes[connection] = 0
        self._texts[connection] = []

    def lost(self, connection: str, recv_ns: int, *, replaced: bool) -> None:
        """Forget the connection; unless it was replaced in time, mark the hole in each of its symbols."""
        self._stats.pop(connection, None)
        self._probes.pop(connection, None)
        self._texts.pop(connection, None)
        if not replaced:
            self._mark_lost(plan_of(connection), recv_ns)

    def _mark_lost(self, plan: str, recv_ns: int) -> None:
        """A GAP per symbol and kind of data that a plan's streams carried; venue-wide streams concern every symbol."""
        lost: dict[tuple[str, GapScope], None] = {}
        for socket in self.sockets():
            for stream in socket.streams if socket.name == plan else ():
                scope = _SCOPES.get(stream.kind)
                for symbol in self._symbols() if stream.symbol is None else (stream.symbol,):
                    if scope is not None:
                        lost[symbol, scope] = None
        for symbol, scope in lost:
            self._emit(symbol, pack_gap(self.venue, scope, recv_ns))

    def _symbols(self) -> Iterable[str]:
        """Our symbols on this venue."""
        raise NotImplementedError

    def stats(self, connection: str) -> dict[str, StreamStats]:
        """Stream name -> statistics of a connection."""
        return self._stats.setdefault(connection, {})

    def probe_reply(self, connection: str) -> int:
        """Receive time of the newest probe reply."""
        return self._probes.get(connection, 0)

    def data_to_send(self, connection: str) -> list[str]:
        """Drains the texts that wait for a connection."""
        texts = self._texts.get(connection)
        if not texts:
            return []
        self._texts[connection] = []
        return texts

    def events(self) -> list[Routed]:
        """Drains the records received so far."""
        drained, self._events = self._events, []
        return drained

    def _emit(self, symbol: str, data: bytes) -> None:
        self._events.append(Routed(symbol, data))
        self.counters.events[data[0]] += 1  # a record begins with its kind

    def _emit_liquidation(self, symbol: str, key: Hashable, recv_ns: int, data: bytes) -> None:
        """A liquidation that has not been given out yet; another life of the socket may bring it again."""
        if not self._liquidations_seen.is_new(key, recv_ns):
            self.counters.count("liq_duplicate")
            return
        self.counters.liquidations[symbol] = self.counters.liquidations.get(symbol, 0) + 1
        self._emit(symbol, data)

    def _stream_stats(self, connection: str, name: str) -> StreamStats:
        try:
            return self._stats[connection][name]
        except KeyError:
            return self._stats.setdefault(connection, {}).setdefault(name, StreamStats())

    def _delivered(self, connection: str, name: str, recv_ns: int, venue_ns: int) -> None:
        """A message of a stream was read."""
        stats = self._stream_stats(connection, name)
        stats.messages += 1
        stats.last_recv_ns = recv_ns
        stats.last_venue_ns = venue_ns

    def _refused(self, connection: str, name: str, error: Exception, payload: bytes) -> None:
        """Count a message or row that could not be read; `name`: its stream, where that is known."""
        if isinstance(error, BadRow):
            reason = str(error)
        else:
            known = {orjson.JSONDecodeError: "not_json", KeyError: "missing_field", struct.error: "out_of_range"}
            reason = known.get(type(error), "wrong_type")
        self.counters.refuse(reason, payload)
        if name:
            self._stream_stats(connection, name).errors += 1


_SCOPES: Final = {
    Kind.DEPTH: GapScope.BOOK,
    Kind.TRADE: GapScope.TRADES,
    Kind.LIQUIDATION: GapScope.LIQUIDATIONS,
}
"""What a lost connection leaves a hole in; a mark or an open interest is simply older until the next one."""


def read_levels(rows: Sequence[Any]) -> list[float]:
    """Flat price, quantity, price, quantity … of a level list. Raises BadRow; a row may carry more than two fields.

    A price of 0 passes here: no ladder reaches down to it, so it is dropped and counted there.
    """
    flat: list[float] = []
    if not isinstance(rows, list):
        raise BadRow("not_a_list")
    for row in rows:
        if not isinstance(row, list):  # a text has characters that read like fields
            raise BadRow("not_a_pair")
        flat.append(quantity(row[0]))
        flat.append(quantity(row[1]))
    return flat


def sample_of(row: Any) -> bytes:
    """Text of a refused row; one that is nested too deeply has none."""
    try:
        return orjson.dumps(row)
    except TypeError:
        return b"too deep"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header; None for a date or anything else."""
    text = headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 7 else None


def judge_status(status: int, headers: Mapping[str, str], body: bytes, *, firewall_s: float | None = None) -> RestVerdict:
    """What a status means at every venue (`spec: exchanges`, section 11); the body's own codes are the venue's to read.

    `firewall_s`: least pause after a 403 that is no geo block; None: the general one.
    """
    if status in (200, 101):
        return RestVerdict(RestResult.OK)
    if status == 429:
        return RestVerdict(RestResult.LIMITED, retry_after(headers))
    if status == 418:
        return RestVerdict(RestResult.BANNED, retry_after(headers))
    if status == 451 or (status == 403 and b"location" in body.lower()):
        return RestVerdict(RestResult.BLOCKED)
    if status == 403:
        return RestVerdict(RestResult.FIREWALL, max(retry_after(headers) or 0.0, firewall_s or 0.0) or None)
    if status == 401:
        return RestVerdict(RestResult.UNAUTHORIZED)
    if status in (400, 404):
        return RestVerdict(RestResult.REFUSED)
    return RestVerdict(RestResult.TRANSIENT)


def rest_symbol(call: RestCall, ours: str | None) -> str:
    """Our symbol of a reply, which must be the one that was asked for. Raises BadRow."""
    if ours is None or ours != call.symbol:
        raise BadRow("foreign_symbol")
    return ours
