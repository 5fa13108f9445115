"""The clock of recorded time: ticks on a fixed grid of boundaries. Pure; used by replay and by ingest's merge of stamped feeds.

Live, ingest ticks by the wall clock. Over recorded time the ticks must be a function of the messages alone, so that the same
capture gives the same events whether it is read from a file or served over sockets: before an event at time t come the grid
boundaries up to t that were not emitted yet.
"""

from __future__ import annotations

from typing import Final

TICK_LIMIT: Final = 1000
"""Boundaries given out for one jump of time: of a longer hole only the newest are, 250 s at 250 ms."""


class ClockGrid:
    """Gives out each boundary (a multiple of the interval) at most once, ascending.

    `skipped` counts boundaries that a jump longer than the limit left out.
    """

    __slots__ = ("_interval_ns", "_limit", "_next_ns", "skipped")

    def __init__(self, interval_ns: int, limit: int = TICK_LIMIT) -> None:
        """Raises ValueError for an interval or a limit below 1."""
        if interval_ns < 1 or limit < 1:
            raise ValueError(f"interval and limit must be at least 1, were {interval_ns} and {limit}")
        self._interval_ns = interval_ns
        self._limit = limit
        self._next_ns: int | None = None
        self.skipped = 0

    def until(self, now_ns: int) -> range:
        """Boundaries (ns UTC) to emit before an event at `now_ns`; empty where time stood still or went back.

        The first call gives one: the newest boundary that is not after `now_ns`.
        """
        newest = now_ns - now_ns % self._interval_ns
        first = newest if self._next_ns is None else self._next_ns
        if newest < first:
            return range(0)
        oldest = newest - (self._limit - 1) * self._interval_ns
        if first < oldest:
            self.skipped += (oldest - first) // self._interval_ns
            first = oldest
        self._next_ns = newest + self._interval_ns
        return range(first, self._next_ns, self._interval_ns)
