"""Open interest of one symbol: the newest document, decoded once, and which of its values are fresh at a moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from api.documents import Published, published
from api.sources import NO_FILE, Stamp, SymbolSources
from mpengine.schemas import OiDocument, OiValue
from shm.records import DocumentId

STALE_MS: Final = 60_000
NS_PER_MS: Final = 1_000_000


class OpenInterest:
    """The OI document of one symbol. Used by the loop's thread."""

    def __init__(self, sources: SymbolSources) -> None:
        self._sources = sources
        self._stamp: Stamp | None = None
        self._document: Published[OiDocument] | None = None

    def stamp(self) -> Stamp:
        """Identity of the newest version."""
        reader = self._sources.documents.reader
        if reader is None or DocumentId.OI not in reader.documents():
            return NO_FILE
        return self._sources.documents.stamp(DocumentId.OI)

    def document(self) -> Published[OiDocument] | None:
        """The newest version; None before the first one, or where it cannot be read."""
        stamp = self.stamp()
        if stamp != self._stamp:
            reader = self._sources.documents.reader
            self._document = None if reader is None or stamp == NO_FILE else published(reader.latest(DocumentId.OI), OiDocument)
            self._stamp = stamp
        return self._document

    def fresh(self, at_ms: int) -> tuple[str, ...]:
        """Venues whose polled value is at most 60 s old at `at_ms`, in venue order."""
        found = self.document()
        return () if found is None else fresh(found.content.venues, at_ms)


def fresh(values: dict[str, OiValue], at_ms: int) -> tuple[str, ...]:
    """Names of the values that are at most 60 s old at `at_ms` (epoch ms)."""
    return tuple(venue for venue, value in values.items() if at_ms - received_ms(value) <= STALE_MS)


def received_ms(value: OiValue) -> int:
    """When the value came, epoch ms: what its age is counted from."""
    return value.recv_ns // NS_PER_MS


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What is served: values by venue, their sum, and the venues that have none of the last 60 s."""

    venues: dict[str, OiValue]
    total: float
    stale_venues: list[str]


def aggregate(document: OiDocument, expected: tuple[str, ...], at_ms: int) -> Aggregate | None:
    """The sum of what is fresh at `at_ms`; without anything fresh the last aggregate, with every venue named stale.

    `expected`: venues that should have a value. None while there has never been one.
    """
    counted = fresh(document.venues, at_ms)
    late = [venue for venue in dict.fromkeys((*expected, *document.venues)) if venue not in counted]
    # Nothing is zeroed: what the engine summed up last stays, with its age.
    names = counted or fresh(document.venues, document.written_ns // NS_PER_MS) or tuple(document.venues)
    if not names:
        return None
    venues = {venue: document.venues[venue] for venue in names}
    return Aggregate(venues, sum(value.base for value in venues.values()), late)
