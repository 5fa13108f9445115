"""Who gets which event: records in, batches out, one open batch per symbol. Pure; `now_ns` is any monotonic clock.

Records of all venues share their symbol's batch, so the ring keeps the order of receipt. A batch is closed when it has reached
`flush_bytes`, `flush_ns` after its first record, or by a clock event that it takes in, whichever is first. A record larger than
`flush_bytes` travels alone. Every record has a running number per symbol, also those in batches that a full ring then refuses:
the reader sees the hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mpengine.venues.base import Routed


@dataclass(frozen=True, slots=True)
class Ready:
    """A closed batch. `body`: whole records; `first_seq`: number of the first; `clock_only`: it holds ticks and nothing else."""

    symbol: str
    body: bytes
    records: int
    first_seq: int
    clock_only: bool


Emit = Callable[[Ready], None]


class _Open:
    """The open batch of one symbol."""

    __slots__ = ("due_ns", "events", "next_seq", "parts", "size", "symbol")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.next_seq = 0
        self.parts: list[bytes] = []
        self.size = 0
        self.events = 0
        self.due_ns = 0


class Router:
    """Open batches of all symbols. `emit` gets each closed batch, in order, during the call that closed it.

    `unknown` counts records of symbols that have no ring here.
    """

    __slots__ = ("_emit", "_flush_bytes", "_flush_ns", "_symbols", "due_ns", "unknown")

    def __init__(self, symbols: Iterable[str], flush_bytes: int, flush_ns: int, emit: Emit) -> None:
        """Raises ValueError for a size or time below 1."""
        if flush_bytes < 1 or flush_ns < 1:
            raise ValueError(f"flush_bytes and flush_ns must be at least 1, were {flush_bytes} and {flush_ns}")
        self._flush_bytes = flush_bytes
        self._flush_ns = flush_ns
        self._emit = emit
        self._symbols = {symbol: _Open(symbol) for symbol in symbols}
        self.due_ns: int | None = None
        """When `flush_due` is wanted: not later than the oldest open batch is due; None while all are empty."""
        self.unknown = 0

    def route(self, events: Iterable[Routed], now_ns: int) -> None:
        """Take records in, in order."""
        for symbol, data in events:
            batch = self._symbols.get(symbol)
            if batch is None:
                self.unknown += 1
                continue
            size = len(data)
            if batch.size and batch.size + size > self._flush_bytes:
                self._close(batch)
            if not batch.size:
                batch.due_ns = now_ns + self._flush_ns
                if self.due_ns is None:
                    self.due_ns = batch.due_ns
            batch.parts.append(data)
            batch.size += size
            batch.events += 1
            if batch.size >= self._flush_bytes:
                self._close(batch)

    def clock(self, record: bytes) -> None:
        """Append a clock record to every symbol's batch and close them all."""
        for batch in self._symbols.values():
            batch.parts.append(record)
            batch.size += len(record)
            self._close(batch)
        self.due_ns = None

    def flush_due(self, now_ns: int) -> None:
        """Close the batches whose time has come."""
        waiting = []
        for batch in self._symbols.values():
            if batch.size and batch.due_ns <= now_ns:
                self._close(batch)
            elif batch.size:
                waiting.append(batch.due_ns)
        self.due_ns = min(waiting, default=None)

    def flush(self) -> None:
        """Close every batch that holds something."""
        for batch in self._symbols.values():
            if batch.size:
                self._close(batch)
        self.due_ns = None

    def _close(self, batch: _Open) -> None:
        parts, records = batch.parts, len(batch.parts)
        body = parts[0] if records == 1 else b"".join(parts)
        ready = Ready(batch.symbol, body, records, batch.next_seq, not batch.events)
        batch.next_seq += records
        batch.parts, batch.size, batch.events = [], 0, 0
        self._emit(ready)
