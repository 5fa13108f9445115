"""`/health`, `/livez`, `/readyz`, `/time`. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from mpengine.contract.common import Sampling

FeedState = Literal["LIVE", "STALE", "DOWN", "BANNED", "GEO_BLOCKED"]


class Live(Struct, frozen=True, kw_only=True):
    """`/livez`: the worker's loop runs."""

    live: Literal[True]


class Ready(Struct, frozen=True, kw_only=True):
    """`/readyz`, with 200 and 503. `fresh_symbols` of `symbols` have data that is not stale."""

    ready: bool
    degraded: bool
    fresh_symbols: int
    symbols: int


class Time(Struct, frozen=True, kw_only=True):
    """`/time`: the clock that ages are counted with. `now_ms` epoch ms, `uptime_s` seconds."""

    now_ms: int
    uptime_s: float


class ObBuffer(Struct, frozen=True, kw_only=True):
    """Depth frames of the first symbol with a book. `last_ts`: start of the newest window, epoch s; 0.0 without one."""

    frames_in_memory: int
    last_ts: float
    shared: Literal[True]


class CalibratorHealth(Struct, frozen=True, kw_only=True):
    """The calibrator as of the newest map. Counts of events; `snapshots`: minutes it holds."""

    enabled: bool
    total_events: int
    snapshots: int
    minutes_since_calibration: int | None
    pending: int
    dropped: int


class SymbolHealth(Struct, frozen=True, kw_only=True):
    """One symbol. `v*_ts`: end of the newest minute, epoch s; `*_seq` frame numbers; ages s; `step`, `ob_step` USD.

    `books`: state of each venue's book; `open_interest`: age of each venue's newest value, s.
    """

    v1_available: bool
    v1_ts: float
    v2_available: bool
    v2_ts: float
    v1_history_frames: int
    v2_history_frames: int
    engine: Literal["starting", "live", "stopped", "failed", "dead", "stalled", "missing"]
    stale: bool
    liq_seq: int | None
    liq_age_s: float | None
    depth_seq: int | None
    depth_age_s: float | None
    oi_age_s: float | None
    book: Literal["none", "unsynced", "syncing", "synced"]
    step: float
    ob_step: float
    base_asset: str
    data_since_ms: int | None
    calibrator: CalibratorHealth
    books: dict[str, Literal["unsynced", "syncing", "synced"]]
    open_interest: dict[str, float]


class StreamHealth(Struct, frozen=True, kw_only=True):
    """One stream of a venue. `lag_ms`: receive time minus venue time of its newest message; may be negative."""

    state: FeedState
    age_s: float | None
    messages: int
    errors: int
    lag_ms: float | None


class CanaryHealth(Struct, frozen=True, kw_only=True):
    """A direction canary: `bad` of the last `events` contradict the table of sides."""

    events: int
    bad: int
    alarm: bool


class VenueCanaries(Struct, frozen=True, kw_only=True):
    """Direction canaries of one venue; null where it has no such figure."""

    price_side: CanaryHealth | None
    return_sign: CanaryHealth | None
    alarm: bool


class VenueHealth(Struct, frozen=True, kw_only=True):
    """One venue as ingest sees it now. `age_s`: of its newest message, null before one."""

    state: FeedState
    age_s: float | None
    reconnects: int
    liquidations: Sampling
    streams: dict[str, StreamHealth]
    canary: VenueCanaries


class ProcessHealth(Struct, frozen=True, kw_only=True):
    """One process. `state`: LIVE is good; `age_s`: since its last beat, null while it does not run."""

    state: str
    restarts: int
    age_s: float | None


class Health(Struct, frozen=True, kw_only=True):
    """`/health`, 503 with this body while `status` is starting. `uptime_s` s, `now_ms` epoch ms; `errors`: counters since start.

    `cross_canary`: minutes in which venues' sides disagreed; null while none can be compared.
    """

    ok: bool
    version: str
    mode: Literal["embedded"]
    uptime_s: float
    ob_buffer: ObBuffer
    symbols: dict[str, SymbolHealth]
    status: Literal["ok", "degraded", "starting"]
    build: str
    contract: str
    config_hash: str
    now_ms: int
    exchanges: dict[str, VenueHealth]
    processes: dict[str, ProcessHealth]
    errors: dict[str, int]
    cross_canary: CanaryHealth | None
