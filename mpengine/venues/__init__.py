"""Pure wire mappers, one file per exchange: text in, event records out. Before: sockets of `ingest`. After: its routing."""

from __future__ import annotations

from mpengine.config import Settings
from mpengine.venues.base import VenueModule
from mpengine.venues.binance import Binance
from mpengine.venues.bybit import Bybit
from mpengine.venues.hyperliquid import Hyperliquid
from mpengine.venues.okx import Okx


def build(settings: Settings) -> list[VenueModule]:
    """A module for each enabled venue that at least one configured symbol trades on, in venue order."""
    modules: list[VenueModule] = []
    names, books = traded(settings, "binance")
    if names:
        modules.append(Binance(settings.venues.binance, settings.ingest, names, books))
    names, books = traded(settings, "bybit")
    if names:
        modules.append(Bybit(settings.venues.bybit, settings.ingest, names, books))
    names, books = traded(settings, "okx")
    if names:
        sizes = {ours: size for ours in names if (size := settings.symbols[ours].okx_contract_value) is not None}
        modules.append(Okx(settings.venues.okx, settings.ingest, names, books, sizes))
    names, books = traded(settings, "hyperliquid")
    if names:
        modules.append(Hyperliquid(settings.venues.hyperliquid, settings.ingest, names, books))
    return modules


def traded(settings: Settings, venue: str) -> tuple[dict[str, str], frozenset[str]]:
    """(our symbol -> the venue's, our symbols whose book is wanted from it); both empty for a venue that is off."""
    own = getattr(settings.venues, venue)
    if not own.enabled:
        return {}, frozenset()
    names = {ours: theirs for ours, symbol in settings.symbols.items() if (theirs := getattr(symbol, venue)) is not None}
    return names, frozenset(ours for ours in names if own.order_book and settings.symbols[ours].has_orderbook)
