"""`/liq_heatmap`, `/liq_heatmap_v2`, their histories and `/liq_stats`. Pure. USD of maps are modelled exposure."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType, field

from mpengine.contract.common import U8, Coverage
from mpengine.contract.zones import ZoneManager


class ShownZone(Struct, frozen=True, kw_only=True):
    """A pool that has been among the strongest for `age_min` minutes. `price` USD, 2 decimals."""

    price: float
    strength: float
    age_min: int


class Norm(Struct, frozen=True, kw_only=True):
    """The stretch of a V1 map, in units of intensity."""

    method: Literal["p50_p95"]
    p50: float
    p95: float


class LiqHeatmap(Struct, frozen=True, kw_only=True):
    """`/liq_heatmap` (V1): the newest minute, smoothed and stretched, +/- 8 %.

    `ts`: end of the minute, epoch s; `src`: closing price, prices and `step` USD; `*_intensity` 0..1; `*_notional_usd` USD of the
    bucket; `*_size_base` base asset, `*_size_btc` the same under its old name (`api.legacy_size_keys`). `intensity_scale`: the
    largest intensity before any stretch. `_warning` is there above 120 s; stale above 180 s.
    """

    schema_version: Literal[2]
    symbol: str
    ts: float
    src: float
    step: float
    price_min: float
    price_max: float
    prices: list[float]
    long_intensity: list[float]
    short_intensity: list[float]
    long_notional_usd: list[float]
    short_notional_usd: list[float]
    long_size_btc: list[float] | UnsetType = UNSET
    short_size_btc: list[float] | UnsetType = UNSET
    top_long_zones: list[ShownZone]
    top_short_zones: list[ShownZone]
    norm: Norm
    base_asset: str
    long_size_base: list[float]
    short_size_base: list[float]
    intensity_scale: float
    coverage: Coverage
    seq: int
    epoch: int
    snapshot_age_s: float
    stale: bool
    warning: str | UnsetType = field(default=UNSET, name="_warning")


class Level(Struct, frozen=True, kw_only=True):
    """A pool of one side. Prices USD (`price`: the centroid by USD); `*_usd` USD; `intensity` 0..1; `size_base` base asset."""

    price: float
    price_low: float
    price_high: float
    notional_usd: float
    intensity: float
    bucket_count: int
    tape_usd: float
    projected_usd: float
    source: Literal["tape", "inference", "combined"]
    size_base: float


class MapMeta(Struct, frozen=True, kw_only=True):
    """How levels were made. `min_notional_usd`: the floor in force, USD; `raw_*_buckets`: positive buckets."""

    tape_weight: float
    projection_weight: float
    force_orders_total: int
    inferences_total: int
    cluster_radius_pct: float
    min_notional_usd: float
    long_pools_count: int
    short_pools_count: int
    raw_long_buckets: int
    raw_short_buckets: int


class TapeStats(Struct, frozen=True, kw_only=True):
    """The tape. `total_*`: since this state began, USD; `offset_samples_by_lev` is always empty now."""

    symbol: str
    total_events: int
    total_long_notional: float
    total_short_notional: float
    long_buckets: int
    short_buckets: int
    events_in_window: int
    offset_samples_by_lev: dict[str, int]


class InferenceStats(Struct, frozen=True, kw_only=True):
    """The projection. `leverage_weights`: tier -> share, disabled tiers 0.0; prices and `*_usd` USD; `current_minute` epoch/60."""

    symbol: str
    current_minute: int
    current_price: float
    total_inferred_long_usd: float
    total_inferred_short_usd: float
    projected_long_buckets: int
    projected_short_buckets: int
    inferences_in_window: int
    leverage_weights: dict[str, float]


class MapConfig(Struct, frozen=True, kw_only=True):
    """Settings in force. `steps` USD; `buffer`: maintenance margin rate of the first venue, `mmr` of each."""

    steps: float
    decay: float
    buffer: float
    tape_weight: float
    projection_weight: float
    mmr: dict[str, float]


class MapStats(Struct, frozen=True, kw_only=True):
    """`stats` of V2, with which `/liq_stats` begins. `current_minute`: epoch/60; `current_price` USD."""

    symbol: str
    current_minute: int
    current_price: float
    total_force_orders: int
    total_inferences: int
    tape: TapeStats
    inference: InferenceStats
    config: MapConfig


class CalibratorTier(Struct, frozen=True, kw_only=True):
    """One leverage tier. `weight`: share; `*_usd` USD; `rate`: liquidated per crossed USD; null where unknown."""

    weight: float
    crossed_usd: float | None
    attributed_usd: float
    rate: float | None
    evidence: float
    score: float | None


class Calibrator(Struct, frozen=True, kw_only=True):
    """Everything that the calibrator publishes; counters since this state began. `mmr`: maintenance margin rate by venue.

    `total_events` = `explained` + `unexplained` + `dropped` + `waiting`; `*_usd` USD; `entropy_bits` of the weights; `*_share`
    fractions; null where there is nothing to say yet.
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
    tiers: dict[str, CalibratorTier]


class LiqStats(MapStats, frozen=True, kw_only=True):
    """`/liq_stats`. `snapshot_ts`: end of the minute, epoch s; `history_frames`: minutes that the ring holds."""

    zone_manager: ZoneManager
    snapshot_ts: float
    snapshot_age_s: float
    history_frames: int
    calibrator: Calibrator
    seq: int
    epoch: int
    stale: bool


class LiqHeatmapV2(Struct, frozen=True, kw_only=True):
    """`/liq_heatmap_v2`: the newest minute as it is, +/- 10 %, with its 20 strongest pools per side and statistics.

    `price`: (open + high + low + close) / 4, `src`: close, USD; arrays and the keys behind them as in `LiqHeatmap`.
    """

    symbol: str
    ts: float
    price: float
    range_pct: float
    long_levels: list[Level]
    short_levels: list[Level]
    meta: MapMeta
    stats: MapStats
    src: float
    step: float
    price_min: float
    price_max: float
    prices: list[float]
    long_intensity: list[float]
    short_intensity: list[float]
    long_notional_usd: list[float]
    short_notional_usd: list[float]
    long_size_btc: list[float] | UnsetType = UNSET
    short_size_btc: list[float] | UnsetType = UNSET
    base_asset: str
    long_size_base: list[float]
    short_size_base: list[float]
    intensity_scale: float
    coverage: Coverage
    seq: int
    epoch: int
    snapshot_age_s: float
    stale: bool
    warning: str | UnsetType = field(default=UNSET, name="_warning")


class LiqHistory(Struct, frozen=True, kw_only=True):
    """`/liq_heatmap_history`, `/liq_heatmap_v2_history`: cells flat and row-major, row = minute, round(255 * intensity).

    `t`: end of each minute, epoch ms, oldest first; `src`: (open + high + low + close) / 4 of each, USD; `norm_*_usd`: USD that
    is intensity 1 of each source. Without frames empty arrays, an axis of the symbol, and null numbers and age.
    """

    t: list[int]
    prices: list[float]
    long: list[U8]
    short: list[U8]
    step: float
    scale: Literal[255]
    mode: Literal["embedded"] = field(name="_mode")
    symbol: str
    minutes: int
    stride: int
    count: int
    src: list[float]
    norm_tape_usd: list[float]
    norm_projection_usd: list[float]
    skipped_frames: int
    first_seq: int | None
    seq: int | None
    epoch: int | None
    stale: bool
    age_s: float | None
