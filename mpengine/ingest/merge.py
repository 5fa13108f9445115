"""Connections whose messages carry the recorder's receive time become one sequence again (`receive_clock = "sender"`). Pure.

The simulator serves a capture over several sockets and stamps each message with its receive time and line. A message may be
given out when no connection can bring an earlier one any more, that is, up to the smallest watermark (newest stamp seen) of all
connections. Clock messages move the watermark of a quiet connection. What comes out is the order of the capture, whatever the
network and the event loop did, so the ring gets what replay would feed.

    {"stream": ..., "recv_ns": N, "line": M, "data": ...}      a message
    {"stream": "!clock", "recv_ns": N, "line": M}               a clock; with "end": true nothing follows on this connection
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

CLOCK_STREAM: Final = "!clock"
WAITING_LIMIT: Final = 200_000
"""Messages held back at most: with one connection silent, order is given up before memory is."""

T = TypeVar("T")


class Key(NamedTuple):
    """Place of a message in its capture."""

    recv_ns: int
    line: int


LAST: Final = Key(2**63 - 1, 2**63 - 1)


class Stamp(NamedTuple):
    """What a message says about its place. `clock`: it is a clock and no venue's message; `end`: the last of its connection."""

    key: Key
    clock: bool
    end: bool


class _Envelope(Struct):
    recv_ns: int
    line: int
    stream: str | UnsetType = UNSET
    end: bool = False


_decoder: Final = msgspec.json.Decoder(_Envelope)


def stamp_of(payload: bytes) -> Stamp | None:
    """The stamp of a message; None for one without (answers to probes and subscriptions)."""
    try:
        envelope = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    clock = envelope.stream == CLOCK_STREAM
    return Stamp(Key(envelope.recv_ns, envelope.line), clock, clock and envelope.end)


class Merge(Generic[T]):
    """K-way merge by watermarks. `late` counts items that came after something newer was given out, `forced` those given out
    because WAITING_LIMIT was reached."""

    __slots__ = ("_count", "_given", "_heap", "_limit", "_marks", "forced", "late")

    def __init__(self, sources: Iterable[str], limit: int = WAITING_LIMIT) -> None:
        """`sources`: every connection that will come; nothing is given out before each has been heard."""
        self._marks: dict[str, Key | None] = dict.fromkeys(sources)
        self._heap: list[tuple[Key, int, T]] = []
        self._count = 0
        self._given = Key(0, 0)
        self._limit = limit
        self.late = 0
        self.forced = 0

    def push(self, key: Key, item: T) -> None:
        """Put an item in its place, without saying anything about what may follow (a REST reply)."""
        if key < self._given:
            self.late += 1
        heapq.heappush(self._heap, (key, self._count, item))
        self._count += 1

    def advance(self, source: str, key: Key) -> None:
        """`source` will bring nothing at or below `key` any more. Raises KeyError for an unknown source."""
        mark = self._marks[source]
        if mark is None or key > mark:
            self._marks[source] = key

    def end(self, source: str) -> None:
        """`source` will bring nothing any more."""
        self.advance(source, LAST)

    def ready(self) -> list[tuple[Key, T]]:
        """Drains what is in order: ascending by key, and by arrival for equal keys."""
        floor = min((Key(-1, -1) if mark is None else mark for mark in self._marks.values()), default=LAST)
        heap, out = self._heap, []
        while heap and (heap[0][0] <= floor or len(heap) > self._limit):
            key, _, item = heapq.heappop(heap)
            self.forced += key > floor
            self._given = max(self._given, key)
            out.append((key, item))
        return out

    @property
    def waiting(self) -> int:
        """Items held back."""
        return len(self._heap)

    @property
    def ended(self) -> bool:
        """Whether every source has ended."""
        return all(mark == LAST for mark in self._marks.values())
