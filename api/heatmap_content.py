"""What an answer of `/heatmap` holds, read from the files of one symbol: axes, frames in their columns, points, provenance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from api.basis import Basis, SymbolCoverage
from api.bodies import Freshness, Identity, Moment
from api.depth import DepthFrames
from api.heatmap_grid import (
    DEPTH,
    MAP_LAYERS,
    Detail,
    Extent,
    GridFrame,
    Layer,
    Placed,
    PriceAxis,
    Records,
    TimeAxis,
    buckets_of_events,
    extent_of,
    multiple_of,
    one_step,
    points_of,
    price_axis,
    prices_of_columns,
    time_axis,
)
from api.heatmap_params import HeatmapQuery
from api.heatmap_rows import GridFrames
from api.liquidations import Kept, LiquidationRows
from api.maps import MapFrames
from api.oi import OpenInterest
from api.provenance import provenance
from api.sources import SymbolSources
from mpengine.config import Settings
from mpengine.heatmap import Mix
from mpengine.schemas import LevelsDocument
from shm.records import LIQUIDATION_DTYPE, FrameKind, Venue

STALE_AFTER_MS: Final = {"liq": 180_000, "depth": 90_000}
NS_PER_MS: Final = 1_000_000

_VENUES: Final = {venue.label: venue for venue in Venue}


@dataclass(frozen=True, slots=True)
class LayerAges(Freshness):
    """Age is the largest of the layers' (each: origin in epoch ms, stale after); stale when one of them is, or when `live` says
    of a moment (epoch ms) that no liquidation feed is."""

    layers: tuple[tuple[int, int], ...] = ()
    live: Callable[[int], bool] | None = None

    def moment(self, received_ms: int, now_ms: int) -> Moment:
        ages = [(max(0, now_ms - origin_ms), after_ms) for origin_ms, after_ms in self.layers]
        is_stale = any(age > after for age, after in ages) or (self.live is not None and not self.live(now_ms))
        if ages:
            return Moment(received_ms, now_ms, max(age for age, _ in ages), is_stale)
        age_ms = None if self.origin_ms is None else max(0, now_ms - self.origin_ms)
        return Moment(received_ms, now_ms, age_ms, is_stale or self.live is None)


@dataclass(frozen=True, slots=True)
class Ring:
    """Layers of one ring. `newest`: its newest frame, in the window or not; `placed`: those of the answer."""

    name: str
    newest: GridFrame
    layers: tuple[Layer, ...]
    placed: Placed

    @property
    def identity(self) -> tuple[int, int]:
        """(epoch, number) of the newest frame."""
        return self.newest.epoch, self.newest.number

    @property
    def origin_ms(self) -> int:
        """What its age is counted from: the close of the minute, or the start of the window of a depth frame."""
        return self.newest.close_ms if self.name == "liq" else self.newest.open_ms


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that both forms say. `src`: one price per column, None without; `points` None: not asked for; `oi`: venues whose
    open interest counts for the coverage."""

    query: HeatmapQuery
    base: float
    axis: TimeAxis
    prices: PriceAxis
    rings: tuple[Ring, ...]
    src: list[float | None]
    flags: int
    points: Records | None
    realised: tuple[int, int] | None
    newest_event_ms: int | None
    provenance: dict[str, Any]
    others: tuple[tuple[int, int], ...]
    oi: tuple[str, ...]

    def ring(self, name: str) -> Ring | None:
        """`liq` or `depth`, where it is served."""
        return next((ring for ring in self.rings if ring.name == name), None)

    @property
    def identity(self) -> Identity:
        """The first of map, depth, realised liquidations leads."""
        found = [*(ring.identity for ring in self.rings), *([] if self.realised is None else [self.realised])]
        return Identity(found[0], (*found[1:], *self.others)) if found else Identity(None)

    def freshness(self, live: Callable[[int], bool]) -> Freshness:
        """`live`: whether a liquidation feed of the symbol is, at a moment in epoch ms."""
        layers = tuple((ring.origin_ms, STALE_AFTER_MS[ring.name]) for ring in self.rings)
        return LayerAges(self.newest_event_ms, 0, None, layers, live if self.query.realised else None)


@dataclass(frozen=True, slots=True)
class _Read:
    """Frames of one ring for a window: on one step, oldest first."""

    name: str
    newest: GridFrame
    layers: tuple[Layer, ...]
    frames: list[GridFrame]
    interval_ms: int


class HeatmapFiles:
    """Files of one symbol, for the builder's thread alone: what it keeps decoded is not shared with the loop's."""

    def __init__(self, settings: Settings, symbol: str, sources: SymbolSources) -> None:
        self._base = settings.symbols[symbol].step
        self._has_book = settings.symbols[symbol].has_orderbook
        self._config_hash = settings.config_hash
        self._maps = GridFrames(sources.liquidation, FrameKind.LIQUIDATION)
        self._depth = GridFrames(sources.depth, FrameKind.DEPTH)
        self._rings = (self._maps, self._depth)
        self._realised = LiquidationRows(sources.liquidations)
        self._pairs = MapFrames(sources, Mix(settings.engine.tape_weight, settings.engine.projection_weight))
        self._coverage = SymbolCoverage(settings, symbol, DepthFrames(sources), OpenInterest(sources))

    def content(self, query: HeatmapQuery) -> Content:
        """The answer to `query`; without rings where there is no frame of the layers asked for. Raises TooLarge."""
        found = self._newest(query)
        kept = self._realised.all() if query.realised else None
        # Without frames of the layers asked for, the newest of either ring says how far time has come.
        anchors = [frame for _, frame, _, _ in found] or [frame for one in self._rings if (frame := one.newest()) is not None]
        newest_event_ms = _newest_event_ms(kept)
        event_end_ms = None if newest_event_ms is None else newest_event_ms + 1
        end_ms = max([frame.close_ms for frame in anchors], default=event_end_ms)
        whole = time_axis(end_ms or 0, query.dt_ms, query.cols if end_ms is not None else 0, query.to_ms, None)
        axis = time_axis(whole.end_ms, query.dt_ms, whole.cols, None, query.since_ms)
        reads = [
            _Read(name, newest, layers, one_step(frames.window(newest, whole.t0_ms, whole.end_ms)), frames.interval_ms)
            for name, newest, layers, frames in found
        ]
        events = _events(kept, query, axis)
        prices = self._prices(query, axis, reads, events)
        rings = tuple(Ring(one.name, one.newest, one.layers, _placed(one, axis, prices, self._base)) for one in reads)
        basis, levels, identity = self._made_with(query)
        flags = 0
        for ring in rings:
            flags |= ring.placed.flags
        times = () if found else tuple((frame.epoch, frame.number) for frame in anchors)
        return Content(
            query=query,
            base=self._base,
            axis=axis,
            prices=prices,
            rings=rings,
            src=prices_of_columns([ring.placed for ring in rings], axis.cols),
            flags=flags,
            points=None if kept is None else points_of(events, axis, prices, self._base),
            realised=None if kept is None or not len(kept.numbers) else (kept.epoch, kept.head - 1),
            newest_event_ms=newest_event_ms,
            provenance=provenance(levels, basis.coverage, flags, self._config_hash, estimated=bool(query.maps)),
            others=(*identity, *basis.identities, *times),
            oi=basis.oi,
        )

    def _newest(self, query: HeatmapQuery) -> list[tuple[str, GridFrame, tuple[Layer, ...], GridFrames]]:
        wanted = []
        if query.maps:
            wanted.append(("liq", self._maps, tuple(layer for layer in MAP_LAYERS if layer.name in query.maps)))
        if query.depth and self._has_book:
            wanted.append(("depth", self._depth, (DEPTH,)))
        newest = [(name, frames.newest(), layers, frames) for name, frames, layers in wanted]
        return [(name, frame, layers, frames) for name, frame, layers, frames in newest if frame is not None]

    def _prices(self, query: HeatmapQuery, axis: TimeAxis, reads: Sequence[_Read], events: Records) -> PriceAxis:
        if reads:
            whole = [extent for one in reads if (extent := extent_of(one.frames)) is not None]
            since = [[frame for frame in one.frames if frame.close_ms > axis.t0_ms] for one in reads]
            seen = [extent for frames in since if (extent := extent_of(frames)) is not None] if axis.cols else []
            src = next((one.frames[-1].src for one in reads if one.frames), None)
        else:
            buckets = buckets_of_events(events, self._base)
            whole = seen = [Extent(int(buckets.min()), int(buckets.max()), self._base)] if len(buckets) else []
            src = None
        detail = Detail(self._base, query.k, query.max_rows, query.cols, query.window)
        return price_axis(detail, whole, seen, axis.cols, src)

    def _made_with(self, query: HeatmapQuery) -> tuple[Basis, LevelsDocument | None, tuple[tuple[int, int], ...]]:
        basis = self._coverage.newest()
        pair = self._pairs.newest() if query.maps else None
        return (basis, None, ()) if pair is None else (basis, pair.levels.content, (pair.levels.identity,))


def _newest_event_ms(kept: Kept | None) -> int | None:
    """When the newest record came, by our clock: what a venue says of its time is not to move the axis."""
    return None if kept is None or not len(kept.numbers) else int(kept.records["recv_ts_ns"][-1]) // NS_PER_MS


def _placed(read: _Read, axis: TimeAxis, prices: PriceAxis, base: float) -> Placed:
    """Frames whose step does not divide the step of a row cannot be shown in it: their columns are missing."""
    fits = not read.frames or multiple_of(prices.k, base, read.frames[0].step) is not None
    return Placed(read.frames if fits else [], axis, read.interval_ms)


def _events(kept: Kept | None, query: HeatmapQuery, axis: TimeAxis) -> Records:
    """Realised liquidations of the columns and venues asked for."""
    if kept is None:
        return np.zeros(0, LIQUIDATION_DTYPE)
    times = kept.records["venue_ts_ns"]
    inside = (times >= axis.t0_ms * NS_PER_MS) & (times < axis.end_ms * NS_PER_MS)
    if query.venues is not None:
        inside &= np.isin(kept.records["venue"], [int(_VENUES[name]) for name in query.venues])
    found: Records = kept.records[inside]
    return found
