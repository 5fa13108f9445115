"""Which venue's price counts (`spec: engine`, section 4.1). Pure; ages are of engine time.

The mid is the primary venue's; while its book is not synchronised or has been silent for a minute, the next venue's. Marks and
funding likewise. What a venue said last stays, with its age: nothing is zeroed when it falls silent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mpengine.engine.book import SECOND, Book
from shm.records import Venue

MARK_PROMPT_NS: Final = 5 * SECOND
MARK_FRESH_NS: Final = 60 * SECOND
FALLBACK: Final = (Venue.BINANCE, Venue.BYBIT, Venue.OKX, Venue.HYPERLIQUID)


class Priced(NamedTuple):
    """A price (or rate) and when it came."""

    value: float
    at_ns: int


class Prices:
    """Newest mid of the symbol; newest mark and funding rate of each venue. `primary` goes first wherever venues are compared."""

    __slots__ = ("_fundings", "_marks", "_mid_ns", "_mid_value", "_order", "mid_venue", "primary")

    def __init__(self, primary: Venue) -> None:
        self.primary = primary
        self._order = (primary, *(venue for venue in FALLBACK if venue is not primary))
        self._marks: dict[Venue, Priced] = {}
        self._fundings: dict[Venue, Priced] = {}
        self._mid_value, self._mid_ns = 0.0, 0
        self.mid_venue: Venue | None = None
        """Whose book gave the mid; None while there is none."""

    def clear(self) -> None:
        """Time begins anew."""
        self._marks.clear()
        self._fundings.clear()
        self.mid_venue = None

    @property
    def mid(self) -> Priced | None:
        """The newest mid of the leading venue."""
        return None if self.mid_venue is None else Priced(self._mid_value, self._mid_ns)

    def leads(self, venue: Venue, books: Mapping[Venue, Book], now_ns: int) -> bool:
        """Whether this venue's book gives the mid: no venue before it has one that counts."""
        for other in self._order:
            if other == venue:
                return True
            book = books.get(other)
            if book is not None and book.counts_at(now_ns):
                return False
        return False

    def on_mid(self, venue: Venue, mid: float, now_ns: int) -> None:
        """A mid of the leading venue. PERF: plain numbers serve as venues here, as they come out of a record."""
        self._mid_value, self._mid_ns, self.mid_venue = mid, now_ns, venue

    def on_mark(self, venue: Venue, mark: float, funding: float | None, now_ns: int) -> None:
        """A mark price, and the funding rate where the venue says one."""
        self._marks[venue] = Priced(mark, now_ns)
        if funding is not None:
            self._fundings[venue] = Priced(funding, now_ns)

    def mark_leads(self, venue: Venue, now_ns: int) -> bool:
        """Whether this venue's mark is the one that counts now."""
        return self._mark_venue(now_ns) is venue

    def mark(self, now_ns: int) -> Priced | None:
        """The mark that counts: of the first venue with one of the last 5 s, else the newest of all, however old."""
        venue = self._mark_venue(now_ns)
        return None if venue is None else self._marks[venue]

    def recent_mark(self, now_ns: int) -> Priced | None:
        """The mark that counts if it is at most 60 s old: what may be reckoned with. The others are only shown, with their age."""
        mark = self.mark(now_ns)
        return mark if mark is not None and now_ns - mark.at_ns <= MARK_FRESH_NS else None

    def funding(self, now_ns: int) -> Priced | None:
        """Funding rate of the venue whose mark counts: rates of different venues are for different intervals."""
        venue = self._mark_venue(now_ns)
        return None if venue is None else self._fundings.get(venue)

    def _mark_venue(self, now_ns: int) -> Venue | None:
        marks = self._marks
        for venue in self._order:
            known = marks.get(venue)
            if known is not None and now_ns - known.at_ns <= MARK_PROMPT_NS:
                return venue
        return max(marks, key=lambda venue: (marks[venue].at_ns, -venue), default=None)

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "mid": [self._mid_value, self._mid_ns],
            "mid_venue": None if self.mid_venue is None else int(self.mid_venue),
            "marks": [[int(venue), *priced] for venue, priced in sorted(self._marks.items())],
            "fundings": [[int(venue), *priced] for venue, priced in sorted(self._fundings.items())],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        self._mid_value, self._mid_ns = state["mid"]
        self.mid_venue = None if state["mid_venue"] is None else Venue(state["mid_venue"])
        self._marks = {Venue(venue): Priced(value, at_ns) for venue, value, at_ns in state["marks"]}
        self._fundings = {Venue(venue): Priced(value, at_ns) for venue, value, at_ns in state["fundings"]}
