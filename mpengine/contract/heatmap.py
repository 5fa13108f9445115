"""`/heatmap`: liquidation map, depth and realised liquidations on one grid. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from mpengine.contract.common import Coverage, Side

Cells = list[int | float | tuple[int, int, int | float]]
"""Dense: cells, flat and time-major (`cell[c * rows + r]`). Sparse: [column, row, cell], ordered by column and row."""


class MapLayer(Struct, frozen=True, kw_only=True):
    """Both sides of a liquidation map. `seq`: frame number per column, -1 where there is no frame."""

    seq: list[int]
    long: Cells
    short: Cells
    unit: Literal["usd_exposure"]


class DepthLayer(Struct, frozen=True, kw_only=True):
    """Resting size. `seq`: frame number per column, -1 where there is no frame."""

    seq: list[int]
    bid: Cells
    ask: Cells
    unit: Literal["usd_resting"]


class Layers(Struct, frozen=True, kw_only=True):
    """The layers asked for. `liq`: tape and projection together."""

    liq: MapLayer | UnsetType = UNSET
    tape: MapLayer | UnsetType = UNSET
    projected: MapLayer | UnsetType = UNSET
    depth: DepthLayer | UnsetType = UNSET


class Realised(Struct, frozen=True, kw_only=True):
    """Realised liquidations by cell: col, row, side, venues (bit set: 1 Binance, 2 Bybit, 4 OKX, 8 Gate, 16 Bitget), count,
    USD, largest USD."""

    fields: list[Literal["col", "row", "side", "venues", "count", "usd", "max_usd"]]
    points: list[tuple[int, int, Side, int, int, float, float]]
    unit: Literal["usd_liquidated"]
    seq: int | None


class Assumptions(Struct, frozen=True, kw_only=True):
    """With what the map was made. `leverage_weights`: tier -> share; `mmr`: maintenance margin rate by venue; fractions.

    `valid_from_ms`: since when these weights are in force, epoch ms; null: since the beginning.
    """

    leverage_weights: dict[str, float]
    disabled_tiers: list[int]
    mmr: dict[str, float]
    formula: Literal["isolated_linear"]
    entry_price: Literal["ohlc4_minute"]
    oi_split: Literal["taker_share"]
    tape_weight: float
    projection_weight: float
    decay_per_min: float
    sweep_reduction: float
    range_pct: float
    valid_from_ms: int | None


class Provenance(Struct, frozen=True, kw_only=True):
    """Where the numbers come from. `estimated` is always true for map layers; `assumptions` null before the first map."""

    model: str
    estimated: bool
    config_hash: str
    assumptions: Assumptions | None
    coverage: Coverage


class Sequences(Struct, frozen=True, kw_only=True):
    """Newest frame or record number of each source that was asked for; null where there is none."""

    liq: int | UnsetType | None = UNSET
    depth: int | UnsetType | None = UNSET
    realised: int | UnsetType | None = UNSET


class Ages(Struct, frozen=True, kw_only=True):
    """Seconds; null without data."""

    liq_s: float | UnsetType | None = UNSET
    depth_s: float | UnsetType | None = UNSET
    oi_s: float | UnsetType | None = UNSET


class Heatmap(Struct, frozen=True, kw_only=True):
    """`/heatmap`. Column c covers [t0_ms + c * dt_ms, + dt_ms); row r has its centre at price0 + r * step, USD.

    `k`: symbol steps per row. `cell` u8log: 0 nothing, else lo_usd * (hi_usd / lo_usd) ** ((cell - 1) / 254) USD; usd: USD with 3
    significant digits. `src`: one price per column, null where none is known. `epoch` null
    without any frame or record.
    """

    symbol: str
    schema: Literal[1]
    minutes: int
    t0_ms: int
    dt_ms: int
    cols: int
    price0: float
    step: float
    rows: int
    k: int
    pool: Literal["max", "sum"]
    form: Literal["dense", "sparse"]
    cell: Literal["u8log", "usd"]
    lo_usd: float
    hi_usd: float
    src: list[float | None]
    layers: Layers
    realised: Realised | UnsetType = UNSET
    provenance: Provenance
    epoch: int | None
    seq: Sequences
    ages: Ages
    stale: bool
