"""Pure wire mappers, one file per exchange: text in, event records out. Before: sockets of `ingest`. After: its routing."""

from __future__ import annotations

from mpengine.config import Settings
from mpengine.venues.base import VenueModule
from mpengine.venues.binance import Binance


def build(settings: Settings) -> list[VenueModule]:
    """A module for each enabled venue that at least one configured symbol trades on, in venue order."""
    venue = settings.venues.binance
    names = {name: symbol.binance for name, symbol in settings.symbols.items() if symbol.binance}
    if not venue.enabled or not names:
        return []
    books = frozenset(name for name, symbol in settings.symbols.items() if symbol.has_orderbook)
    return [Binance(venue, settings.ingest, names, books)]
