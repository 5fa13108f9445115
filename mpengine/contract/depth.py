"""`/orderbook_heatmap`, its history, statistics and debug. Pure."""

from __future__ import annotations

from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType, field

from mpengine.contract.common import U8, Coverage


class DepthHeatmap(Struct, frozen=True, kw_only=True):
    """`/orderbook_heatmap`: the newest 30 s frame. `*_ts_ms` epoch ms (`frame_ts_ms`: start of the window), `ts` the same in s.

    Prices, `step` USD; `norm_*`, `bid_*`, `ask_*`, `total_*` USD of the whole frame; u8 = floor(255 * clip((usd - p50) /
    (p95 - p50), 0, 1)). `range_pct` null: not asked for. Stale above 90 s.
    """

    symbol: str
    frame_ts_ms: int
    frame_interval_ms: int
    valid_from_ts_ms: int
    valid_to_ts_ms: int
    server_recv_ts_ms: int
    server_send_ts_ms: int
    data_is_stale: bool
    ts: float
    src: float
    step: float
    price_min: float
    price_max: float
    prices: list[float]
    bid_u8: list[U8]
    ask_u8: list[U8]
    norm_p50: float
    norm_p90: float
    norm_p95: float
    norm_p99: float
    norm_max: float
    bid_p50: float
    bid_p95: float
    bid_max: float
    ask_p50: float
    ask_p95: float
    ask_max: float
    total_bid_notional: float
    total_ask_notional: float
    scale: Literal[255]
    mode: Literal["shared_buffer"] = field(name="_mode")
    base_asset: str
    range_pct: float | None
    frame_step: float
    coverage: Coverage
    seq: int
    epoch: int
    age_s: float
    stale: bool


class DepthHistory(Struct, frozen=True, kw_only=True):
    """`/orderbook_heatmap_history`: cells flat and row-major, row = frame. `t`: start of each window, epoch ms, oldest first.

    `src`, `norm_p50`, `norm_p95`: USD of each frame. Without frames empty arrays, times 0, and null numbers and age.
    """

    frame_interval_ms: int
    first_frame_ts_ms: int
    last_frame_ts_ms: int
    server_recv_ts_ms: int
    server_send_ts_ms: int
    data_is_stale: bool
    t: list[int]
    prices: list[float]
    bid_u8: list[U8]
    ask_u8: list[U8]
    step: float
    price_min: float
    price_max: float
    scale: Literal[255]
    norm_method: Literal["p50_p95"]
    mode: Literal["shared_buffer"] = field(name="_mode")
    symbol: str
    minutes: int
    stride: int
    count: int
    src: list[float]
    norm_p50: list[float]
    norm_p95: list[float]
    skipped_frames: int
    first_seq: int | None
    seq: int | None
    epoch: int | None
    age_s: float | None
    stale: bool


class Reconstructor(Struct, frozen=True, kw_only=True):
    """A venue's book. Either `error` alone (there is none) or every other key.

    `levels_*`, `diffs_*`, `*_count` counts; prices USD, 0.0 without one; `last_update_ts`, `written_at` epoch s; `*_s` seconds.
    """

    error: str | UnsetType = UNSET
    state: Literal["unsynced", "syncing", "synced"] | UnsetType = UNSET
    synced: bool | UnsetType = UNSET
    snapshot_last_update_id: int | UnsetType = UNSET
    last_applied_u: int | UnsetType = UNSET
    first_diff_applied_U: int | UnsetType = UNSET
    first_diff_applied_u: int | UnsetType = UNSET
    levels_bid: int | UnsetType = UNSET
    levels_ask: int | UnsetType = UNSET
    best_bid: float | UnsetType = UNSET
    best_ask: float | UnsetType = UNSET
    resyncs: int | UnsetType = UNSET
    diffs_buffered: int | UnsetType = UNSET
    diffs_applied: int | UnsetType = UNSET
    diffs_discarded: int | UnsetType = UNSET
    last_update_ts: float | UnsetType = UNSET
    gap_tolerance: int | UnsetType = UNSET
    last_gap_type: Literal["", "pu_mismatch", "u_gap"] | UnsetType = UNSET
    last_gap_pu: int | UnsetType = UNSET
    last_gap_expected: int | UnsetType = UNSET
    pu_gap_count: int | UnsetType = UNSET
    u_gap_count: int | UnsetType = UNSET
    max_sync_duration_s: float | UnsetType = UNSET
    diffs_in_current_sync: int | UnsetType = UNSET
    written_at: float | UnsetType = UNSET
    stats_age_s: float | UnsetType = UNSET


class RingStats(Struct, frozen=True, kw_only=True):
    """The depth ring. `*_ts` epoch s, `*_ts_ms` epoch ms (0 before a frame), durations ms; disk and memory are the same file."""

    frames_in_memory: int
    frames_on_disk: int
    last_ts: float
    oldest_ts: float
    file_size_bytes: int
    frames_written_total: int
    last_frame_write_ts_ms: int
    last_frame_write_duration_ms: float
    avg_frame_write_duration_ms: float


class DepthStats(RingStats, frozen=True, kw_only=True):
    """`/orderbook_heatmap_stats`, 200 also before the first frame. `reconstructor`: the Binance book; `books`: every venue's."""

    current_time: float
    current_time_ms: int
    frame_interval_ms: int
    mode: Literal["shared_buffer"]
    last_frame_age_s: float | None
    last_frame_ts_ms: int
    data_is_stale: bool
    reconstructor: Reconstructor
    symbol: str
    books: dict[str, Reconstructor]
    seq: int | None
    epoch: int | None
    stale: bool


class DepthDebug(Struct, frozen=True, kw_only=True):
    """`/orderbook_heatmap_debug`."""

    has_ob_heatmap_module: Literal[True]
    ob_buffer_shared: Literal[True]
    mode: Literal["embedded"]
    ob_buffer_stats: RingStats
    symbol: str
    seq: int | None
    epoch: int | None
    stale: bool


ONE_OF: Final[dict[type[Struct], tuple[tuple[str, ...], ...]]] = {
    Reconstructor: (("error",), tuple(name for name in Reconstructor.__struct_fields__ if name != "error")),
}
"""Structs of which exactly one of these sets of keys is there, and none of the others."""
