"""What ingest says of the liquidation feeds, decoded once per version."""

from __future__ import annotations

from typing import Final

from api.coverage import configured
from api.documents import Published, published
from api.sources import DocumentHandle, Stamp
from mpengine.config import Settings
from mpengine.schemas import FeedsDocument, VenueFeed
from shm.records import DocumentId, Venue

FEEDS_STALE_MS: Final = 10_000
LIVE: Final = "LIVE"
_MARKS: Final = ("forceorder", "liquidation")


class Feeds:
    """The FEEDS document. Used by the loop's thread."""

    def __init__(self, settings: Settings, handle: DocumentHandle) -> None:
        self._settings = settings
        self._handle = handle
        self._stamp: Stamp | None = None
        self._document: Published[FeedsDocument] | None = None

    def document(self) -> Published[FeedsDocument] | None:
        """The newest version, None before the first."""
        stamp = self._handle.stamp(DocumentId.FEEDS)
        if stamp != self._stamp:
            reader = self._handle.reader
            self._document = None if reader is None else published(reader.latest(DocumentId.FEEDS), FeedsDocument)
            self._stamp = stamp
        return self._document

    def liquidations_live(self, symbol: str, now_ms: int) -> bool:
        """Whether the liquidation feed of any venue of the symbol is LIVE, by what ingest said in the last 10 s."""
        found = self.document()
        if found is None or now_ms - found.published_ns // 1_000_000 > FEEDS_STALE_MS:
            return False
        return any(
            configured(self._settings, symbol, venue) and _live(feed, getattr(self._settings.symbols[symbol], venue.label))
            for venue in Venue
            if venue is not Venue.NONE and (feed := found.content.venues.get(venue.label)) is not None
        )


def _live(feed: VenueFeed, theirs: str) -> bool:
    """Of a venue's liquidation streams those that carry `theirs`, or all symbols; a venue without one is judged as a whole."""
    if feed.liquidations == "none":
        return False
    streams = {name.lower(): stream for name, stream in feed.streams.items() if any(mark in name.lower() for mark in _MARKS)}
    own = {name: stream for name, stream in streams.items() if theirs.lower() in name}
    shared = {name: stream for name, stream in streams.items() if name in ("!forceorder@arr", "liquidation-orders")}
    states = [stream.state for stream in (own | shared).values()]
    return feed.state == LIVE and (LIVE in states or not streams)
