"""Direction canaries: do the sides of liquidations fit the market (`spec: exchanges`, 2.5)? Pure; they alarm, never correct.

A table of sides that is wrong for one venue turns at least one canary red: on *price side* every event of Binance or Bybit then
contradicts, on *return sign* most do, and across venues the dominant side of most minutes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from mpengine.schemas import Canary, DirectionCanaries
from shm.records import PositionSide, Venue

SECOND: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND

EVENTS: Final = 50
PRICE_SIDE_BAD: Final = 10
"""More than 20 % of 50 events."""
RETURN_SIGN_BAD: Final = 32
"""More, and the agreement of 50 events is below 35 %."""
CROSS_MINUTES: Final = 40
CROSS_BAD: Final = 26
"""More than 65 % of 40 minutes."""
CROSS_EVENTS: Final = 5

LATE_NS: Final = 60 * SECOND
MARK_FRESH_NS: Final = 5 * SECOND
MARKS: Final = 128
"""One mark per second: the minute before an event that is a minute late, and what a mark may be older than its second."""

PRICE_SIDE_VENUES: Final = (Venue.BINANCE, Venue.BYBIT)
"""Venues whose price field is about the bankruptcy price, beyond the mark in the direction of the liquidation."""


class Window:
    """The last `size` verdicts; red while more than `limit` of them are bad, also before it is full."""

    __slots__ = ("_limit", "_verdicts")

    def __init__(self, size: int, limit: int) -> None:
        self._verdicts: deque[int] = deque(maxlen=size)
        self._limit = limit

    def add(self, bad: bool) -> None:
        """One more verdict; the oldest leaves a full window."""
        self._verdicts.append(int(bad))

    @property
    def canary(self) -> Canary:
        """As documents say it."""
        bad = sum(self._verdicts)
        return Canary(events=len(self._verdicts), bad=bad, alarm=bad > self._limit)

    def state_of(self) -> list[int]:
        """Everything needed to go on from here."""
        return list(self._verdicts)

    def restore(self, state: list[int]) -> None:
        """Go on from `state_of`."""
        self._verdicts.clear()
        self._verdicts.extend(state)


class MarkHistory:
    """The newest mark of each of the last 128 seconds that had one. Marks of two venues are never compared."""

    __slots__ = ("_marks", "_venue")

    def __init__(self) -> None:
        self._marks: deque[tuple[int, float]] = deque(maxlen=MARKS)
        self._venue = Venue.NONE

    def __len__(self) -> int:
        return len(self._marks)

    def on_mark(self, venue: Venue, price: float, now_ns: int) -> None:
        """A mark at engine time `now_ns`. One of another venue begins anew: its offset would look like a return."""
        marks = self._marks
        if venue is not self._venue:
            marks.clear()
            self._venue = venue
        if marks and marks[-1][0] // SECOND == now_ns // SECOND:
            marks.pop()
        marks.append((now_ns, price))

    def at(self, at_ns: int) -> float | None:
        """The mark of that time; None where none of the 5 s before is known."""
        for stamp_ns, price in reversed(self._marks):
            if stamp_ns <= at_ns:
                return price if at_ns - stamp_ns <= MARK_FRESH_NS else None
        return None

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {"venue": int(self._venue), "marks": [list(mark) for mark in self._marks]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        self._venue = Venue(state["venue"])
        self._marks.clear()
        self._marks.extend((stamp_ns, price) for stamp_ns, price in state["marks"])


class DirectionCanary:
    """Price side and return sign of one venue's liquidations of one symbol."""

    __slots__ = ("_price_side", "_return_sign")

    def __init__(self, venue: Venue) -> None:
        self._price_side = Window(EVENTS, PRICE_SIDE_BAD) if venue in PRICE_SIDE_VENUES else None
        self._return_sign = Window(EVENTS, RETURN_SIGN_BAD)

    def on_event(self, side: PositionSide, price: float, mark: float | None, before: float | None) -> None:
        """One event: its venue's price field, the mark of its time and the mark a minute before. What is not known says nothing."""
        if mark is None:
            return
        if self._price_side is not None:
            self._price_side.add(price >= mark if side is PositionSide.LONG else price <= mark)
        if before is not None and mark != before:
            self._return_sign.add((mark < before) != (side is PositionSide.LONG))

    @property
    def canaries(self) -> DirectionCanaries:
        """As documents say it."""
        price_side = self._price_side.canary if self._price_side is not None else None
        return DirectionCanaries(price_side=price_side, return_sign=self._return_sign.canary)

    def state_of(self) -> list[list[int] | None]:
        """Everything needed to go on from here."""
        return [self._price_side.state_of() if self._price_side is not None else None, self._return_sign.state_of()]

    def restore(self, state: list[list[int] | None]) -> None:
        """Go on from `state_of`."""
        price_side, return_sign = state
        if self._price_side is not None and price_side is not None:
            self._price_side.restore(price_side)
        self._return_sign.restore(return_sign or [])


class CrossCanary:
    """Dominant sides of two venues in minutes in which each has at least 5 events.

    A window per pair of venues, so that pairs that agree do not hide one that does not; the worst one is published.
    """

    __slots__ = ("_counts", "_minute", "_pairs")

    def __init__(self) -> None:
        self._minute = 0
        self._counts: dict[Venue, list[int]] = {}
        self._pairs: dict[tuple[Venue, Venue], Window] = {}

    def on_time(self, now_ns: int) -> None:
        """Engine time is `now_ns`: a minute that ended is judged."""
        minute = now_ns // MINUTE_NS
        if minute == self._minute:
            return
        self._judge()
        self._counts.clear()
        self._minute = minute

    def on_event(self, venue: Venue, side: PositionSide) -> None:
        """An event of the running minute."""
        self._counts.setdefault(venue, [0, 0])[side is PositionSide.SHORT] += 1

    def _judge(self) -> None:
        # As many longs as shorts: no side dominates, so there is nothing to compare.
        sides = {
            venue: longs > shorts for venue, (longs, shorts) in sorted(self._counts.items())
            if longs + shorts >= CROSS_EVENTS and longs != shorts
        }  # fmt: skip
        for one, other in itertools.combinations(sides, 2):
            window = self._pairs.setdefault((one, other), Window(CROSS_MINUTES, CROSS_BAD))
            window.add(sides[one] != sides[other])

    @property
    def canary(self) -> Canary | None:
        """The pair with the most minutes that disagree; None before the first minute that could be compared."""
        return max((window.canary for window in self._pairs.values()), key=lambda one: (one.bad, one.events), default=None)

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "minute": self._minute,
            "counts": [[int(venue), *counts] for venue, counts in self._counts.items()],
            "pairs": [[int(one), int(other), window.state_of()] for (one, other), window in self._pairs.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        self._minute = state["minute"]
        self._counts = {Venue(venue): [longs, shorts] for venue, longs, shorts in state["counts"]}
        self._pairs = {}
        for one, other, verdicts in state["pairs"]:
            window = self._pairs[Venue(one), Venue(other)] = Window(CROSS_MINUTES, CROSS_BAD)
            window.restore(verdicts)


class Canaries:
    """All canaries of one symbol. `venues`: those that are shown before their first event."""

    __slots__ = ("_cross", "_marks", "_venues")

    def __init__(self, venues: Iterable[Venue] = ()) -> None:
        self._marks = MarkHistory()
        self._cross = CrossCanary()
        self._venues = {venue: DirectionCanary(venue) for venue in venues}

    def on_mark(self, venue: Venue, price: float, now_ns: int) -> None:
        """The mark that the engine goes by, and whose it is."""
        self._marks.on_mark(venue, price, now_ns)
        self._cross.on_time(now_ns)

    def on_event(self, venue: Venue, side: PositionSide, price: float, venue_ns: int, now_ns: int) -> None:
        """An accepted liquidation; `price` is the venue's price field. More than 60 s late it says nothing about the market now."""
        self._cross.on_time(now_ns)
        if now_ns - venue_ns > LATE_NS:
            return
        at_ns = min(venue_ns, now_ns)
        canary = self._venues.get(venue)
        if canary is None:
            canary = self._venues[venue] = DirectionCanary(venue)
        canary.on_event(side, price, self._marks.at(at_ns), self._marks.at(at_ns - MINUTE_NS))
        self._cross.on_event(venue, side)

    def documents(self) -> tuple[dict[str, DirectionCanaries], Canary | None]:
        """(venue -> its canaries in venue order, the cross-venue canary) for the STATUS document."""
        return {venue.label: canary.canaries for venue, canary in sorted(self._venues.items())}, self._cross.canary

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "marks": self._marks.state_of(),
            "cross": self._cross.state_of(),
            "venues": [[int(venue), canary.state_of()] for venue, canary in self._venues.items()],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        self._marks.restore(state["marks"])
        self._cross.restore(state["cross"])
        for venue, verdicts in state["venues"]:
            canary = self._venues[Venue(venue)] = DirectionCanary(Venue(venue))
            canary.restore(verdicts)
