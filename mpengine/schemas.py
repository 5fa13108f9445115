"""Shapes of the documents that mpengine publishes for others (API, terminal view). Pure.

Every document carries `schema_version`; a reader refuses a version it does not know. Missing is None, never 0 or NaN.
Times are int64 nanoseconds UTC of the event clock unless the name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar, cast

import msgspec
import orjson
from msgspec import Struct

from shm.grid import price_of

DOCUMENT_SCHEMA: Final = 1
_MINUTE_NS: Final = 60 * 1_000_000_000
_ZONE_COLUMNS: Final = (
    "side",
    "bucket",
    "weight",
    "projected_usd",
    "tape_usd",
    "tape_part",
    "created",
    "last",
    "count",
    "armed",
    "source",
)
_ZONE_SOURCES: Final[tuple[Any, ...]] = (None, "inference", "tape", "combined")

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
    refused, dropped or missed on the wire, by reason (docs/events.md). `events`: records given out since ingest began, by kind."""

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
    events: dict[str, int] = {}


class FeedsDocument(Struct, frozen=True, kw_only=True):
    """Document FEEDS of ingest: once per second, in the runtime directory."""

    schema_version: int = DOCUMENT_SCHEMA
    written_ns: int
    venues: dict[str, VenueFeed]


class PoolRow(Struct, frozen=True, kw_only=True):
    """A pool of one side. Prices USD; `notional_usd` = tape + projected, modelled exposure; `tier_usd`: projected USD by tier."""

    price: float
    price_low: float
    price_high: float
    notional_usd: float
    intensity: float
    strength: float
    bucket_count: int
    tape_usd: float
    projected_usd: float
    source: Literal["tape", "inference", "combined"]
    size_base: float
    tier_usd: dict[str, float]


class ShownZone(Struct, frozen=True, kw_only=True):
    """A zone that is shown because it has been among the strongest pools for a while."""

    price: float
    strength: float
    age_min: int


class SideLevels(Struct, frozen=True, kw_only=True):
    """What one side's map holds. `*_buckets`: with USD, inside the frame grid or not; `raw`, `boosted`: positive on the grid.

    `tape_events_usd`, `opened_usd`: all of this state's life; `tape_usd`, `projected_usd`: standing.
    """

    pools: list[PoolRow]
    shown: list[ShownZone]
    raw_buckets: int
    boosted_buckets: int
    tape_buckets: int
    tape_usd: float
    tape_events_usd: float
    projected_buckets: int
    projected_usd: float
    opened_usd: float


class ZoneCounts(Struct, frozen=True, kw_only=True):
    """Zones that stand, their weight, and what happened to zones so far."""

    active_long: int
    active_short: int
    weight_long: float
    weight_short: float
    created: int
    reinforced: int
    swept: int
    expired: int
    merged: int
    evicted: int


class TierDocument(Struct, frozen=True, kw_only=True):
    """One tier. `rate`: liquidated per crossed USD (strategy `event`: share of what lies at the level); None where unknown.

    `crossed_usd`: None in strategy `event`. `score`: what the weights of now would be judged by; None where nothing would be.
    """

    weight: float
    crossed_usd: float | None
    attributed_usd: float
    rate: float | None
    evidence: float
    score: float | None


class CalibratorDocument(Struct, frozen=True, kw_only=True):
    """What a calibrator publishes (section 13.9). Counters since the engine's state began, USD as numbers, missing as None.

    `total_events` = `explained` + `unexplained` + `dropped` + `waiting`; `pending`: those of `waiting` whose own record will not
    come. `late`: events that came after their minute was rolled. `updates`: 15-minute updates, of which `moves` changed weights.
    `near_share`: events within 4 buckets of a positive bucket of the map before their minute.
    """

    enabled: bool
    attribution: Literal["window", "event"]
    updates: int
    moves: int
    minutes_since_calibration: int | None
    total_events: int
    explained: int
    unexplained: int
    unexplained_usd: float
    far: int
    late: int
    rejected: int
    waiting: int
    pending: int
    dropped: int
    records: int
    records_refused: int
    tiers: dict[str, TierDocument]
    entropy_bits: float
    conversion: float | None
    vol: float
    mmr: dict[str, float]
    mmr_samples: dict[str, int]
    mmr_dropped: int
    bias_long: float
    bias_short: float
    near_events: int
    near_share: float | None
    pools_approached: int
    pools_crossed: int
    hit_share: float | None
    mean_miss: float | None


class MapConfig(Struct, frozen=True, kw_only=True):
    """With what a map was made. `mmr`: maintenance margin rate in force by venue."""

    step: float
    tape_weight: float
    projection_weight: float
    decay_per_min: float
    sweep_reduction: float
    cluster_radius_pct: float
    min_pool_usd: float
    disabled_tiers: list[int]
    mmr: dict[str, float]
    attribution: Literal["window", "event"]
    weights_valid_from_ns: int | None


class LevelsDocument(Struct, frozen=True, kw_only=True):
    """Document LEVELS: with each liquidation frame, linked to its number and made of the same state.

    `minute`: number of the minute (epoch minutes of its open). `src`: (O + H + L + C)/4, `close`: closing price. `events`,
    `inferences`: accepted liquidations and openings so far; `..._in_minute`: of this minute. `tiers`: the ladder's, ascending.
    """

    schema_version: int = DOCUMENT_SCHEMA
    symbol: str
    written_ns: int
    minute: int
    src: float
    close: float
    coverage: int
    long: SideLevels
    short: SideLevels
    events: int
    events_in_minute: int
    inferences: int
    inferences_in_minute: int
    weights: dict[str, float]
    zones: ZoneCounts
    calibrator: CalibratorDocument
    config: MapConfig


class ZoneTable(Struct, frozen=True, kw_only=True):
    """Zones as columns of equal length, so that thousands of them cost little: `side` 0 long, 1 short, `created` and `last`
    reinforced in epoch minutes, `source` 1 inference, 2 tape, 3 both.

    Tiers are sparse: value `tier_value[i]` of tier number `tier[i]` belongs to zone `tier_zone[i]`.
    """

    side: list[int]
    bucket: list[int]
    weight: list[float]
    projected_usd: list[float]
    tape_usd: list[float]
    tape_part: list[float]
    created: list[int]
    last: list[int]
    count: list[int]
    armed: list[bool]
    source: list[int]
    tier_zone: list[int]
    tier: list[int]
    tier_value: list[float]


def encoded_table(columns: Mapping[str, Any]) -> ZoneTable:
    """Columns (name -> array) in the place of a `ZoneTable` in a document that is to be encoded; nothing else can be done with it.

    PERF: numbers of arrays become JSON without ever being Python objects: half of what publishing a minute costs.
    """
    return cast(ZoneTable, msgspec.Raw(orjson.dumps(columns, option=orjson.OPT_SERIALIZE_NUMPY)))


class ZoneRow(Struct, frozen=True, kw_only=True):
    """A zone. USD decays with the weight; `tier_contributions`, `tape_contribution` are in weight units and add up to it."""

    id: str
    side: Literal["long", "short"]
    price: float
    weight: float
    projected_usd: float
    tape_usd: float
    source: Literal["tape", "inference", "combined"]
    tier_contributions: dict[str, float]
    tape_contribution: float
    created_ns: int
    last_reinforced_ns: int
    reinforcement_count: int
    armed: bool


class ZonesDocument(Struct, frozen=True, kw_only=True):
    """Document ZONES: every rolled minute, linked to its frame. `sums`: side -> weight and USD by tier.

    `tiers`: names of the ladder's tiers. `step`: price of a bucket is its number times this.
    """

    schema_version: int = DOCUMENT_SCHEMA
    symbol: str
    written_ns: int
    minute: int
    step: float
    tiers: list[str]
    zones: ZoneTable
    counts: ZoneCounts
    sums: dict[str, dict[str, float]]

    @property
    def rows(self) -> list[ZoneRow]:
        """The zones one by one. Raises ValueError where columns do not belong together."""
        table = self.zones
        parts: list[dict[str, float]] = [{} for _ in table.side]
        for zone, tier, value in zip(table.tier_zone, table.tier, table.tier_value, strict=True):
            parts[zone][self.tiers[tier]] = value
        columns = (getattr(table, name) for name in _ZONE_COLUMNS)
        return [
            ZoneRow(
                id=f"{'LS'[side]}-{bucket}-{created}", side="short" if side else "long", price=price_of(bucket, self.step),
                weight=weight, projected_usd=projected, tape_usd=tape, source=_ZONE_SOURCES[source],
                tier_contributions=tiers, tape_contribution=part, created_ns=(created + 1) * _MINUTE_NS,
                last_reinforced_ns=(last + 1) * _MINUTE_NS, reinforcement_count=count, armed=armed,
            )
            for side, bucket, weight, projected, tape, part, created, last, count, armed, source, tiers in zip(
                *columns, parts, strict=True
            )
        ]  # fmt: skip


_Document = TypeVar("_Document", BookDocument, StatusDocument, FeedsDocument, OiDocument, LevelsDocument, ZonesDocument)


def encode(
    document: BookDocument | StatusDocument | FeedsDocument | OiDocument | LevelsDocument | ZonesDocument,
) -> bytes:
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
