"""What an answer is based on: venues, flags of the frame, since when the book is whole (`spec: api`, section 11.4). Pure.

It is as of the frame, so that bodies can be kept: it comes from the book document that is linked to the frame. The state of the
venues right now is in `/health`.
"""

from __future__ import annotations

from typing import Any, Final

from mpengine.config import Settings
from mpengine.schemas import BookDocument, BookStats
from shm.records import Coverage, Venue

FLAG_NAMES: Final = {
    Coverage.RECOVERED: "recovered",
    Coverage.GAP: "gap",
    Coverage.PARTIAL: "partial_window",
    Coverage.STALE_SOURCE: "stale_source",
    Coverage.GRID_SHRUNK: "grid_shrunk",
    Coverage.OI_MISSING: "oi_missing",
    Coverage.FALLBACK_PRICE: "fallback_price",
}

SAMPLING: Final = {
    Venue.BINANCE: "largest_1s",
    Venue.BYBIT: "all_500ms",
    Venue.OKX: "partial",
    Venue.HYPERLIQUID: "none",
}
"""How much of a venue's liquidations its public feed shows; venues that can be configured, and Hyperliquid, which shows none."""

FAR_DEPTH: Final = "partial"  # levels far from the price are known only as far as diffs have touched them


def flag_names(flags: Coverage) -> list[str]:
    """Names of the flags that are set."""
    return [name for flag, name in FLAG_NAMES.items() if flags & flag]


def depth_coverage(
    settings: Settings, symbol: str, flags: Coverage, counted: int, book: BookDocument | None, oi: tuple[str, ...]
) -> dict[str, Any]:
    """Coverage of a depth frame. `counted`: bit set of the venues in it; `book`: the document that goes with the frame; `oi`:
    venues whose open interest was at most 60 s old."""
    books = book.books if book is not None else {}
    primary = books.get(settings.engine.primary_venue)
    return {
        "venues": {
            venue.label: {
                "liquidations": SAMPLING[venue] if configured(settings, symbol, venue) else "none",
                "depth": bool(counted & venue.bit),
                "oi": venue.label in oi,
                **_book(bool(counted & venue.bit), books.get(venue.label)),
            }
            for venue in SAMPLING
        },
        "flags": flag_names(flags),
        "data_since_ms": None if book is None else _ms(book.data_since_ns),
        "book_synced_since_ms": None if primary is None else _ms(primary.synced_since_ns),
        "far_depth": FAR_DEPTH,
    }


def _book(counted: bool, book: BookStats | None) -> dict[str, Any]:
    """`state` of a venue's book: LIVE where the frame counted it, DOWN where it had nothing to count."""
    state = None if book is None else "DOWN" if book.state == "unsynced" else "STALE"
    return {"state": "LIVE" if counted else state, "last_ms": None if book is None else _ms(book.last_update_ns)}


def configured(settings: Settings, symbol: str, venue: Venue) -> bool:
    """Whether the venue is enabled and has a name for the symbol."""
    there = getattr(settings.venues, venue.label, None)
    return there is not None and there.enabled and getattr(settings.symbols[symbol], venue.label, None) is not None


def _ms(ns: int | None) -> int | None:
    return None if ns is None else ns // 1_000_000
