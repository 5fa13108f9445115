"""`/liq_zones`, `/liq_zones_summary`, `/liq_zones_heatmap`. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from mpengine.contract.common import Side

Source = Literal["inference", "tape", "combined", "sweep"]


class ZoneManager(Struct, frozen=True, kw_only=True):
    """Zones that stand, their weight (dimensionless), and what happened to zones so far."""

    active_zones_long: int
    active_zones_short: int
    total_weight_long: float
    total_weight_short: float
    zones_created_total: int
    zones_reinforced_total: int
    zones_swept_total: int
    zones_expired_total: int
    zones_merged_total: int


class Zone(Struct, frozen=True, kw_only=True):
    """A zone. `price` USD; `created_at`, `last_reinforced_at` epoch ms; `tier_contributions`: weight by leverage tier.

    `*_usd`: USD that the zone carries (notional = tape + projected), fading with its weight; `age_min` whole minutes.
    """

    price: float
    side: Side
    weight: float
    created_at: int
    last_reinforced_at: int
    reinforcement_count: int
    source: Source
    tier_contributions: dict[str, float]
    id: str
    notional_usd: float
    tape_usd: float
    projected_usd: float
    age_min: int
    dominant_leverage: int | None


class ZoneFilters(Struct, frozen=True, kw_only=True):
    """Filters in force; null where absent."""

    side: Side | None
    min_leverage: int | None
    max_leverage: int | None
    min_weight: float | None


class Zones(Struct, frozen=True, kw_only=True):
    """`/liq_zones`: heaviest first, then by price. `ts`: of the document, epoch s."""

    symbol: str
    ts: float
    zones: list[Zone]
    zones_count: int
    summary: ZoneManager
    filters: ZoneFilters
    seq: int
    epoch: int
    age_s: float
    stale: bool


class ZonesSummary(ZoneManager, frozen=True, kw_only=True):
    """`/liq_zones_summary`. `ts`: of the document, epoch s."""

    symbol: str
    ts: float
    seq: int
    epoch: int
    age_s: float
    stale: bool


class ZoneLevel(Struct, frozen=True, kw_only=True):
    """A zone as a level. `notional_usd`: USD that it carries, never made up from the weight (`synthetic` false); times epoch ms."""

    price: float
    weight: float
    notional_usd: float
    tier_contributions: dict[str, float]
    reinforcement_count: int
    source: Source
    created_at: int
    last_reinforced_at: int
    side: Side
    synthetic: bool


class ZonesHeatmapMeta(Struct, frozen=True, kw_only=True):
    """Filters in force and what passed them. `min_notional` USD."""

    min_leverage: int | None
    max_leverage: int | None
    min_weight: float | None
    min_notional: float
    filtered: bool
    long_pools_count: int
    short_pools_count: int
    total_long_weight: float
    total_short_weight: float
    zones_created: int
    zones_swept: int


class ZonesHeatmap(Struct, frozen=True, kw_only=True):
    """`/liq_zones_heatmap`: zones as levels of both sides, heaviest first. `ts`: of the document, epoch s."""

    symbol: str
    ts: float
    long_levels: list[ZoneLevel]
    short_levels: list[ZoneLevel]
    meta: ZonesHeatmapMeta
    seq: int
    epoch: int
    age_s: float
    stale: bool
