"""Shapes of the documents that mpengine publishes for others (API, terminal view). Pure.

Every document carries `schema_version`; a reader refuses a version it does not know. Missing is None, never 0 or NaN.
Times are int64 nanoseconds UTC of the event clock unless the name says otherwise.
"""

from __future__ import annotations

from typing import Final, Literal, TypeVar

import msgspec
from msgspec import Struct

DOCUMENT_SCHEMA: Final = 1

BookState = Literal["unsynced", "syncing", "synced"]
GapType = Literal["", "pu_mismatch", "u_gap"]
FeedState = Literal["LIVE", "STALE", "DOWN", "BANNED", "GEO_BLOCKED"]


class BookStats(Struct, frozen=True, kw_only=True):
    """Synchronisation and content of one venue's book. Counters since the book was created or recovered."""

    state: BookState
    snapshot_last_update_id: int
    last_applied_u: int
    first_diff_applied_U: int
    first_diff_applied_u: int
    levels_bid: int
    levels_ask: int
    levels_unverified: int
    best_bid: float | None
    best_ask: float | None
    total_bid_usd: float
    total_ask_usd: float
    resyncs: int
    snapshots: int
    diffs_buffered: int
    diffs_applied: int
    diffs_discarded: int
    gaps_tolerated: int
    pu_gap_count: int
    u_gap_count: int
    last_gap_type: GapType
    last_gap_pu: int
    last_gap_expected: int
    gap_tolerance_ids: int
    max_sync_duration_s: float
    diffs_in_current_sync: int
    last_update_ns: int | None
    synced_since_ns: int | None
    samples: int
    """Seconds of the depth slot that ended last in which this book counted (30: all of it)."""


class BookDocument(Struct, frozen=True, kw_only=True):
    """Document BOOK: every 30 s and on each change of a book's state, linked to the frame that ends with it or comes next.

    `data_since_ns`: since when the engine has data without a new start.
    """

    schema_version: int = DOCUMENT_SCHEMA
    symbol: str
    written_ns: int
    data_since_ns: int | None
    books: dict[str, BookStats]


class OiValue(Struct, frozen=True, kw_only=True):
    """One venue's open interest, single-sided, in base asset. `recv_ns`: engine time of its arrival; `venue_ns`: the venue's."""

    base: float
    recv_ns: int
    venue_ns: int


class OiDocument(Struct, frozen=True, kw_only=True):
    """Document OI: with each accepted value. `total_base` is the sum over `venues` whose value is at most 60 s old at `written_ns`;
    None while there is none. `display`: what venues push by themselves, never part of the sum. `mark`: USD price, None without one.
    """

    schema_version: int = DOCUMENT_SCHEMA
    symbol: str
    written_ns: int
    unit: str
    total_base: float | None
    mark: float | None
    venues: dict[str, OiValue]
    display: dict[str, OiValue]


class Canary(Struct, frozen=True, kw_only=True):
    """One direction canary (`spec: exchanges`, section 2.5): `bad` of the last `events` contradict the table of sides."""

    events: int
    bad: int
    alarm: bool


class DirectionCanaries(Struct, frozen=True, kw_only=True):
    """Canaries of one venue's liquidation sides. `price_side` None: the venue's price field says nothing about the side."""

    price_side: Canary | None
    return_sign: Canary


class RatioValue(Struct, frozen=True, kw_only=True):
    """A long/short ratio and the venue's time of it."""

    value: float
    venue_ns: int


class StatusDocument(Struct, frozen=True, kw_only=True):
    """Document STATUS of an engine: once per second of engine time.

    `counters`: name -> total since the engine's state began. `errors`: the distinct errors, newest last, bounded.
    """

    schema_version: int = DOCUMENT_SCHEMA
    symbol: str
    written_ns: int
    state: Literal["starting", "live", "stopped", "failed"]
    engine_ns: int
    data_since_ns: int | None
    last_minute_ns: int | None
    last_depth_open_ns: int | None
    mark: float | None
    mark_ns: int | None
    mid: float | None
    mid_ns: int | None
    funding_rate: float | None
    open_interest_base: float | None
    tick: float
    minutes_rolled: int
    minutes_skipped: int
    depth_frames: int
    depth_slots_empty: int
    counters: dict[str, int]
    errors: list[ErrorRow]
    price_venue: str | None
    """Whose book gave the newest mid."""
    canaries: dict[str, DirectionCanaries]
    cross_canary: Canary | None
    """Minutes in which two venues' dominant liquidation sides disagreed; None before the first that can be compared."""
    ratios: dict[str, RatioValue]
    fatal_error: str | None = None


class ErrorRow(Struct, frozen=True, kw_only=True):
    """One distinct error: where it happened and how often. No values of clients, no paths."""

    where: str
    error: str
    count: int
    first_ns: int
    last_ns: int


class StreamFeed(Struct, frozen=True, kw_only=True):
    """One stream of one venue as ingest sees it. `lag_ms` = receive time - venue time of the newest message; may be negative."""

    state: FeedState
    messages: int
    errors: int
    last_ms: int | None
    lag_ms: float | None


class VenueFeed(Struct, frozen=True, kw_only=True):
    """One venue. `liquidations`: sampling of its liquidation feed, or "none". `reasons`: totals since ingest began of what was
    refused, dropped or missed on the wire, by reason (docs/events.md)."""

    state: FeedState
    last_ms: int | None
    reconnects: int
    connections: int
    parse_errors: int
    rest_errors: int
    rest_paused_until_ms: int | None
    used_weight: int | None
    liquidations: Literal["largest_1s", "all_500ms", "partial", "batched_1s", "largest_per_side_1s", "none"]
    last_error: str | None
    reasons: dict[str, int]
    streams: dict[str, StreamFeed]


class FeedsDocument(Struct, frozen=True, kw_only=True):
    """Document FEEDS of ingest: once per second, in the runtime directory."""

    schema_version: int = DOCUMENT_SCHEMA
    written_ns: int
    venues: dict[str, VenueFeed]


_Document = TypeVar("_Document", BookDocument, StatusDocument, FeedsDocument, OiDocument)


def encode(document: BookDocument | StatusDocument | FeedsDocument | OiDocument) -> bytes:
    """JSON bytes of a document."""
    return msgspec.json.encode(document)


def decode(data: bytes, kind: type[_Document]) -> _Document:
    """A document from its bytes. Raises ValueError where they are not of this schema and version."""
    try:
        document = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error
    if document.schema_version != DOCUMENT_SCHEMA:
        raise ValueError(f"{kind.__name__}: schema {document.schema_version} is not known here, {DOCUMENT_SCHEMA} is")
    return document
