"""What the terminal view knows at one moment: filled by a source, drawn by the view, kept by a recording. Pure.

Times are epoch ms of the clock of the instance (`now_ms` of the same facts), so that ages are differences and never need a clock
here. Missing is None, never 0. USD of maps are modelled exposure, of books resting size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Side = Literal["long", "short"]
Layer = Literal["map", "book"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process. `role`: supervisor, ingest, engine, api or other; `state`: LIVE is good.

    `cpu_pct`: of one core since the look before; None at the first one, and where the process is on another machine. `trouble`:
    words of the board that stay at 0 while all is well.
    """

    name: str
    role: str
    state: str
    restarts: int | None = None
    beat_ms: int | None = None
    cpu_pct: float | None = None
    rss_bytes: int | None = None
    trouble: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream of a venue. `lag_ms`: receipt after the venue's own time, of its newest message."""

    name: str
    state: str
    messages: int
    lag_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """One venue. `lag_p*_ms`: over its live streams, as they were once a second during the last minute of looking.

    `gaps`: holes that ingest counted in its streams and the engine in its book of the shown symbol; None where the source does not
    tell. `oi_ms`: when its open interest of the shown symbol came; `liquidations`: sampling of its feed, "none" without one.
    """

    name: str
    state: str
    lag_p50_ms: float | None = None
    lag_p99_ms: float | None = None
    gaps: int | None = None
    reconnects: int | None = None
    last_ms: int | None = None
    oi_ms: int | None = None
    book: str | None = None
    liquidations: str = "none"
    streams: tuple[Stream, ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest frame of a ring. `ts_ms`: what its age counts from: a map's end, a book frame's start."""

    seq: int
    ts_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """One symbol. `price` USD, from `price_kind` (mark, mid, book, map, candle).

    `maps`, `books`: whether it has such frames at all; `restarted`: a new engine has it and has not published yet.
    """

    name: str
    engine: str
    price: float | None = None
    price_kind: str | None = None
    maps: bool = True
    books: bool = True
    map: Newest | None = None
    book: Newest | None = None
    oi_ms: int | None = None
    zones: int | None = None
    data_since_ms: int | None = None
    restarted: bool = False
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A liquidation zone, estimated. `usd`: what it carries, modelled exposure; `leverage`: of the tier that it is mostly of."""

    side: Side
    price: float
    usd: float
    weight: float
    created_ms: int
    source: str
    leverage: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Liquidation:
    """A realised liquidation. `side`: of the position that was closed."""

    ts_ms: int
    venue: str
    side: Side
    price: float
    usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatColumn:
    """One frame: a byte per row and side on the scale of `mpengine.cells`. `low`: longs or bids, `high`: shorts or asks."""

    t_ms: int
    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """Frames of one layer in one window of prices. Row r covers [price0 + r * height, + height), USD.

    Columns ascend in time; where one is `dt_ms` * n behind its neighbour, n - 1 are missing.
    """

    layer: Layer
    price0: float
    height: float
    rows: int
    dt_ms: int
    columns: tuple[HeatColumn, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FanOut:
    """What the API hands out, all workers. `dropped`: messages that slow clients did not get because a newer one took their place.

    Rates are per second since the look before, None at the first one. None: this source does not tell.
    """

    clients: int | None = None
    dropped: int | None = None
    bytes_s: float | None = None
    requests_s: float | None = None
    errors_5xx: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One moment. `heard_ms`: when ingest or the server last said anything; `trouble`: why the source cannot be trusted now.

    `shown`: the symbol that zones, liquidations and heat belong to. `zones`: the heaviest of each side, nearest price first, at
    most `ZONES_KEPT` a side. `lost`: a gap in the columns that is not filled.
    """

    now_ms: int
    source: str
    instance: str | None = None
    version: str | None = None
    heard_ms: int | None = None
    trouble: str | None = None
    since_ms: int | None = None
    messages_s: float | None = None
    processes: tuple[Process, ...] = ()
    venues: tuple[Venue, ...] = ()
    symbols: tuple[Symbol, ...] = ()
    shown: str | None = None
    zones: tuple[Zone, ...] = ()
    liquidations: tuple[Liquidation, ...] = ()
    map: Heat | None = None
    book: Heat | None = None
    lost: str | None = None
    fanout: FanOut = FanOut()

    @property
    def symbol(self) -> Symbol | None:
        """The shown symbol."""
        return next((one for one in self.symbols if one.name == self.shown), None)


ZONES_KEPT = 40
LIQUIDATIONS_KEPT = 60


def strongest(zones: list[Zone], price: float | None) -> tuple[Zone, ...]:
    """The heaviest `ZONES_KEPT` of each side by USD, in order of distance from `price` (of USD without one)."""
    kept: list[Zone] = []
    for side in ("long", "short"):
        mine = sorted((zone for zone in zones if zone.side == side), key=lambda zone: -zone.usd)
        kept += mine[:ZONES_KEPT]
    return tuple(sorted(kept, key=lambda zone: -zone.usd if price is None else abs(zone.price - price)))
