"""What one symbol knows of liquidations: its maps, pools, zones and weights, and the steps of a minute (`spec: engine`, 4.4, 18).

Pure. The parts never call each other; this file passes results along. The core runs the steps one by one, each isolated: what fails
is counted, the next one works with what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from mpengine.brackets import Bracket
from mpengine.config import Settings
from mpengine.engine.buckets import BucketMap, Floats, Keys, ordered_sum, row_sums
from mpengine.engine.calibrator import Calibrator, CalibratorEvent, MinuteRecord
from mpengine.engine.candles import MINUTE_NS
from mpengine.engine.inference import (
    DECAY_PER_MINUTE,
    SIDES,
    SWEEP_REDUCTION_FACTOR,
    Added,
    Opening,
    Projection,
    Takers,
    closing_fraction,
    is_opening,
    split_of,
)
from mpengine.engine.leverage import make_ladder
from mpengine.engine.liquidations import VENUES as LIQUIDATION_VENUES
from mpengine.engine.liquidations import Event, Realised
from mpengine.engine.log_records import LogOut
from mpengine.engine.open_interest import OiMinute
from mpengine.engine.pools import CLUSTER_RADIUS_PCT, MIN_POOL_USD, Pool, find_pools
from mpengine.engine.tape import Tape
from mpengine.engine.tracker import ZoneTracker
from mpengine.engine.zones import Zones
from mpengine.heatmap import COMBINED_ZONE_BOOST, Combined, Grid, Mix, combine, map_grid, source_scale
from mpengine.schemas import (
    LevelsDocument,
    MapConfig,
    PoolRow,
    ShownZone,
    SideLevels,
    ZoneCounts,
    ZonesDocument,
    encode,
    encoded_table,
)
from shm.frames import Frame
from shm.records import Coverage, FrameKind, LiquidationFlag, Venue

METRICS_MINUTES: Final = 10
ZONE_DIGITS: Final = 4  # as many as are served; thousands of zones must fit their document
NAMES: Final = ("long", "short")

Masses = tuple[tuple[Keys, Floats], ...]


class MapOut(NamedTuple):
    """A liquidation frame and the documents of the same state, to publish together."""

    frame: Frame
    levels: bytes
    zones: bytes


class SaveOut(NamedTuple):
    """A file to write: a deep copy of what it holds, as plain values and arrays."""

    file: str
    data: dict[str, Any]

    def encoded(self) -> bytes:
        """The bytes of the file."""
        return orjson.dumps(self.data, option=orjson.OPT_SERIALIZE_NUMPY)


class Minute(NamedTuple):
    """A minute that ended. `number`: epoch minute; `minutes`: since the last rolled one. Prices in USD."""

    number: int
    minutes: int
    open: float
    high: float
    low: float
    close: float
    src: float
    mark: float | None
    buy_usd: float
    sell_usd: float
    liquidated_usd: tuple[float, float]
    oi: OiMinute
    coverage: Coverage
    venues: int
    venue_ns: int

    @property
    def close_ns(self) -> int:
        """End of the minute."""
        return (self.number + 1) * MINUTE_NS


class _Work:
    """Results that one step of a minute leaves for the next."""

    __slots__ = ("combined", "crossed", "events", "grid", "inferences", "is_whole", "minute", "planes", "pools")

    def __init__(self, minute: Minute, step: float, tiers: int, events: int) -> None:
        self.minute, self.events = minute, events
        self.grid: Grid = map_grid(minute.src, step)
        self.crossed: Floats = np.zeros((2, tiers))
        self.planes: Floats = np.zeros((4, self.grid.count))
        self.combined: Combined | None = None
        self.pools: tuple[tuple[Pool, ...], tuple[Pool, ...]] = ((), ())
        self.inferences = 0
        self.is_whole = False


class LiquidationMaps:
    """Maps, pools, zones, tracker and calibrator of one symbol. `outputs` are drained by the core after each call."""

    __slots__ = (
        "_ladder",
        "_mix",
        "_outputs",
        "_primary",
        "_saved_updates",
        "_settings",
        "_step",
        "_symbol",
        "_venue_ns",
        "_venues",
        "_weights_since_ns",
        "_zones_faded_to",
        "calibrator",
        "projection",
        "takers",
        "tape",
        "tracker",
        "zones",
    )  # fmt: skip

    def __init__(self, symbol: str, settings: Settings) -> None:
        one, engine = settings.symbols[symbol], settings.engine
        self._symbol, self._settings, self._step = symbol, settings, one.step
        self._mix = Mix(engine.tape_weight, engine.projection_weight)
        self._primary = Venue[engine.primary_venue.upper()]
        ladder = self._ladder = make_ladder(one.leverage_ladder, engine.disabled_tiers)
        by_name: Mapping[str, list[Bracket]] = one.brackets  # type: ignore[assignment]  # its keys are names of venues
        brackets = {venue: by_name.get(venue.label) for venue in LIQUIDATION_VENUES}
        first = {venue: rows[0] if rows else None for venue, rows in brackets.items()}
        self.tape = Tape(one.step)
        self.projection = Projection(one.step, ladder, first)
        self.zones = Zones(one.step, ladder)
        self.tracker = ZoneTracker()
        self.takers = Takers()
        self.calibrator = Calibrator(
            ladder,
            step=one.step,
            mmr={venue: row.mmr if row is not None else one.default_mmr for venue, row in first.items()},
            first=first,
            attribution=engine.attribution,
            mmr_estimation=engine.mmr_estimation,
            bias_correction=engine.bias_correction,
            entropy_min_bits=engine.safety_entropy_min_bits,
            symbol=symbol,
        )
        self._outputs: list[MapOut | SaveOut | LogOut] = []
        self._weights_since_ns: int | None = None
        self._saved_updates = 0
        self._venues = self._venue_ns = 0
        self._zones_faded_to: int | None = None  # minute that zones of a file stand at until a minute is rolled

    def outputs(self) -> list[MapOut | SaveOut | LogOut]:
        """Drains what is to be published, written and logged, in order."""
        drained, self._outputs = self._outputs, []
        return drained

    @property
    def mmr(self) -> dict[Venue, float]:
        """Maintenance margin rate in force by venue: of trigger prices and of new mass."""
        return {venue: self.calibrator.mmr_of(venue) for venue in LIQUIDATION_VENUES}

    # events ------------------------------------------------------------------------------------------------------------

    def on_liquidation(self, event: Event, realised: Realised, reference: float | None, mark: float | None) -> None:
        """An accepted event. `reference`: what it was judged against; `mark`: not older than 5 s, else None."""
        bucket = self.tape.on_event(event.side, realised.trigger, realised.notional_usd)
        self._venues |= event.venue.bit
        self._venue_ns = max(self._venue_ns, event.venue_ns)
        far = LiquidationFlag.FAR in realised.flags
        self._outputs.append(
            LogOut("tape", {
                "event": "liquidation", "venue": event.venue.label, "side": event.side.name.lower(), "trigger": realised.trigger,
                "bankruptcy": event.price, "qty_base": event.qty, "notional_usd": realised.notional_usd, "bucket": bucket,
                "venue_ns": event.venue_ns, "late": LiquidationFlag.LATE in realised.flags, "far": far,
            })
        )  # fmt: skip
        if far:
            self.calibrator.count_far()
            return
        self._outputs += self.calibrator.on_liquidation(
            CalibratorEvent(
                venue=event.venue, side=event.side, minute=event.venue_ns // MINUTE_NS, trigger=realised.trigger,
                bankruptcy=event.price, qty=event.qty, notional_usd=realised.notional_usd, reference=reference, mark=mark,
            )
        )  # fmt: skip

    def on_rejected(self, event: Event) -> None:
        """An event too far from the market, which is used nowhere else."""
        self.calibrator.count_rejected()
        record = {"event": "event_rejected", "venue": event.venue.label, "side": event.side.name.lower(), "price": event.price,
                  "qty_base": event.qty, "venue_ns": event.venue_ns}  # fmt: skip
        self._outputs.append(LogOut("calibrator", record))

    # a minute ----------------------------------------------------------------------------------------------------------

    def steps(self, minute: Minute) -> list[tuple[str, Callable[[], None]]]:
        """The steps of a minute that ended, in their order; each may fail alone."""
        work = _Work(minute, self._step, len(self._ladder.tiers), self.tape.events_in_minute)
        return [
            ("takers", lambda: self.takers.on_minute(minute.number, minute.buy_usd, minute.sell_usd)),
            ("maps", lambda: self._roll(work)),
            ("frame", lambda: self._combine(work)),
            ("publish", lambda: self._publish(work)),
            ("calibrator", lambda: self._learn(work)),
            ("save", lambda: self._save(work)),
        ]

    def _roll(self, work: _Work) -> None:
        minute = work.minute
        events, logs = self.tape.roll(minute.minutes, minute.number, minute.low, minute.high)
        self._outputs += logs
        minutes = minute.minutes
        if self._zones_faded_to is not None:  # the first minute since the start, however late it came
            minutes, self._zones_faded_to = max(minutes, minute.number - self._zones_faded_to), None
        self._outputs += self.zones.age(minutes=minutes, minute=minute.number, src=minute.src, high=minute.high, low=minute.low)
        self.projection.decay(minute.minutes)
        work.crossed, logs = self.projection.sweep(minute.low, minute.high)
        self._outputs += logs
        opened_usd, added = self._follow_open_interest(work)
        tape_p99 = source_scale(self._tape_plane(work.grid))
        self._outputs += self.zones.contribute(
            minute=minute.number, opened_usd=opened_usd, projected=added, tape=events, tape_p99=tape_p99, tape_weight=self._mix.tape
        )
        self.tape.arm(minute.close)
        self.zones.arm(minute.close)
        work.is_whole = True

    def _follow_open_interest(self, work: _Work) -> tuple[float, Masses]:
        """Close or open. (USD opened, what was added per side with each bucket once)."""
        minute, nothing = work.minute, (np.zeros(0, np.int64), np.zeros((0, len(self._ladder.tiers))))
        delta, previous = minute.oi.delta, minute.oi.previous
        if delta is None or previous is None:
            return 0.0, (nothing, nothing)
        told: dict[str, Any] = {"minute": minute.number, "delta_base": delta, "previous_base": previous,
                                "venues": [venue.label for venue in minute.oi.by_venue]}  # fmt: skip
        if delta < 0.0:
            fraction = closing_fraction(delta, previous)
            self.projection.close(fraction)
            self.zones.shrink(fraction)
            self._outputs.append(LogOut("inference", {"event": "closing", **told, "fraction": fraction}))
            return 0.0, (nothing, nothing)
        if not is_opening(delta, previous):
            return 0.0, (nothing, nothing)
        share = self.takers.buy_share(minute.number)
        opening = Opening(
            minute.number, minute.src, delta * minute.src, share, split_of(minute.oi.by_venue, self._primary),
            self.calibrator.weights,
            self.calibrator.bias if self._settings.engine.bias_correction else (0.0, 0.0),
        )  # fmt: skip
        added, rows = self.projection.open(opening, self.mmr)
        work.inferences = 1
        self._outputs.append(
            LogOut("inference", {"event": "opening", **told, "step": self._step, "src": minute.src,
                                 "opened_usd": opening.opened_usd, "long_share": share,
                                 "side_usd": [opening.opened_usd * share, opening.opened_usd * (1.0 - share)],
                                 "rows": rows})
        )  # fmt: skip
        return opening.opened_usd, (_once(added[0]), _once(added[1]))

    def _tape_plane(self, grid: Grid) -> Floats:
        return np.stack([side.on_grid(grid.origin, grid.count) for side in self.tape.sides])

    def _combine(self, work: _Work) -> None:
        grid = work.grid
        by_tier = np.stack([side.on_grid(grid.origin, grid.count) for side in self.projection.maps])
        tape, projected = self._tape_plane(grid), row_sums(by_tier)
        work.planes = np.concatenate((tape, projected))
        work.combined = combine(tape, projected, self._mix)
        work.pools = find_pools(grid, work.minute.src, tape, projected, by_tier, work.combined)

    def _publish(self, work: _Work) -> None:
        if work.combined is None:
            return  # the step before failed: the minute is missing, which is counted
        minute = work.minute
        if self._weights_since_ns is None:  # those of the settings or of a file: since this state has minutes
            self._weights_since_ns = minute.close_ns - MINUTE_NS
        self.tracker.on_minute(work.pools, minute.src, minute.number)
        frame = self._frame(work, work.combined)
        counts = self._zone_counts()
        self._outputs.append(
            MapOut(
                frame,
                encode(self._levels(work, work.combined, frame, counts)),
                encode(
                    ZonesDocument(
                        symbol=self._symbol, written_ns=minute.close_ns, minute=minute.number, step=self._step,
                        tiers=list(self._ladder.names), zones=encoded_table(self.zones.table(ZONE_DIGITS)), counts=counts,
                        sums=self.zones.sums(),
                    )
                ),
            )
        )  # fmt: skip
        self._tell(work, work.combined)
        self._venues = 0

    def _frame(self, work: _Work, combined: Combined) -> Frame:
        minute, grid, planes = work.minute, work.grid, work.planes
        sums = [ordered_sum(plane) for plane in planes]
        total, oi = sum(sums), minute.oi.total
        coverage = minute.coverage | (Coverage.GRID_SHRUNK if grid.shrunk else Coverage.NONE)
        if not work.is_whole:  # its maps failed on the way: some of them still are those of the minute before
            coverage |= Coverage.PARTIAL
        venues = minute.venues | self._venues
        for venue in minute.oi.by_venue:
            venues |= venue.bit
        return Frame(
            kind=FrameKind.LIQUIDATION, open_ts_ns=minute.close_ns - MINUTE_NS, close_ts_ns=minute.close_ns,
            venue_ts_ns=min(max(self._venue_ns, minute.venue_ns), minute.close_ns),
            reference=minute.src, origin=grid.origin, step=grid.step,
            norm_a=combined.tape_p99, norm_b=combined.projection_p99, total_a=sums[0] + sums[2], total_b=sums[1] + sums[3],
            coverage=coverage, venues=venues, samples=work.events, planes=planes,
            open_interest=oi if oi is not None else 0.0, tape_share=(sums[0] + sums[1]) / total if total > 0.0 else 0.0,
        )  # fmt: skip

    def _levels(self, work: _Work, combined: Combined, frame: Frame, counts: ZoneCounts) -> LevelsDocument:
        minute = work.minute
        return LevelsDocument(
            symbol=self._symbol, written_ns=minute.close_ns, minute=minute.number, src=minute.src, close=minute.close,
            coverage=int(frame.coverage), long=self._side(work, combined, 0), short=self._side(work, combined, 1),
            events=self.tape.events, events_in_minute=frame.samples, inferences=self.projection.inferences,
            inferences_in_minute=work.inferences, weights=self._ladder.by_name(self.calibrator.weights), zones=counts,
            calibrator=self.calibrator.document(), config=self._config(),
        )  # fmt: skip

    def _side(self, work: _Work, combined: Combined, row: int) -> SideLevels:
        tape, projected, raw = self.tape.sides[row], self.projection.maps[row], combined.raw.values[row]
        return SideLevels(
            pools=[_pool_row(pool, self._ladder.names) for pool in work.pools[row]],
            shown=[ShownZone(**zone) for zone in self.tracker.shown(SIDES[row])],
            raw_buckets=int(np.count_nonzero(raw)),
            boosted_buckets=int(np.count_nonzero(combined.display.values[row] != raw)),
            tape_buckets=len(tape.keys), tape_usd=ordered_sum(tape.usd), tape_events_usd=self.tape.total_usd[row],
            projected_buckets=len(projected), projected_usd=ordered_sum(projected.totals),
            opened_usd=self.projection.opened_usd[row],
        )  # fmt: skip

    def _config(self) -> MapConfig:
        return MapConfig(
            step=self._step, tape_weight=self._mix.tape, projection_weight=self._mix.projection, decay_per_min=DECAY_PER_MINUTE,
            sweep_reduction=SWEEP_REDUCTION_FACTOR, cluster_radius_pct=CLUSTER_RADIUS_PCT, min_pool_usd=MIN_POOL_USD,
            disabled_tiers=sorted(self._settings.engine.disabled_tiers),
            mmr={venue.label: rate for venue, rate in self.mmr.items()}, attribution=self._settings.engine.attribution,
            weights_valid_from_ns=self._weights_since_ns,
        )  # fmt: skip

    def _zone_counts(self) -> ZoneCounts:
        active, weight = self.zones.active, self.zones.weight
        return ZoneCounts(
            active_long=active[0], active_short=active[1], weight_long=weight[0], weight_short=weight[1], **self.zones.counters
        )

    def _tell(self, work: _Work, combined: Combined) -> None:
        """The minute in the logs, and every ten minutes how the two sources balance."""
        minute = work.minute
        oi = minute.oi
        self._outputs += [
            LogOut("cycles", {
                "event": "minute", "minute": minute.number, "src": minute.src, "close": minute.close, "events": work.events,
                "inferences": work.inferences, "crossed_usd": row_sums(work.crossed).tolist(),
                "pools": [len(p) for p in work.pools],
                "zones": list(self.zones.active), "tape_usd": list(self.tape.usd),
                "projected_usd": [ordered_sum(one.totals) for one in self.projection.maps],
                "evicted": sum(one.evicted for one in (*self.tape.sides, *self.projection.maps, *self.projection.ledger)),
            }),
            LogOut("plot_feed", {
                "event": "minute", "minute": minute.number, "open": minute.open, "high": minute.high, "low": minute.low,
                "close": minute.close, "src": minute.src, "mark": minute.mark, "buy_usd": minute.buy_usd,
                "sell_usd": minute.sell_usd,
                "liquidated_usd": list(minute.liquidated_usd), "oi_base": oi.total, "oi_delta_base": oi.delta,
                "pools": [[[pool.price, pool.notional_usd, pool.intensity] for pool in side[:5]] for side in work.pools],
            }),
        ]  # fmt: skip
        if minute.number % METRICS_MINUTES == 0:
            self._outputs += [LogOut("debug", boost_metrics(combined)), LogOut("cycles", balance_metrics(work.planes, combined))]

    def _learn(self, work: _Work) -> None:
        minute = work.minute
        pools = tuple((row, pool.price) for row, side in enumerate(work.pools) for pool in side)
        if work.combined is None:
            return
        before = self.calibrator.weights
        self._outputs += self.calibrator.on_minute(
            MinuteRecord(
                minute=minute.number, src=minute.src, high=minute.high, low=minute.low, crossed=work.crossed, grid=work.grid,
                raw=work.combined.raw, pools=pools, oi_delta=minute.oi.delta,
            )
        )  # fmt: skip
        if not np.array_equal(before, self.calibrator.weights):
            self._weights_since_ns = minute.close_ns

    def _save(self, work: _Work) -> None:
        at_ns, updates = work.minute.close_ns, self.calibrator.updates
        changed = updates != self._saved_updates
        if changed:
            self._saved_updates = updates
        self._outputs += [one for one in self.files(at_ns) if changed or one.file != weights_name(self._symbol)]

    # files and checkpoint ----------------------------------------------------------------------------------------------

    def files(self, at_ns: int) -> list[SaveOut]:
        """The files of this moment. Frozen weights are not among them: they must not outlive a restart."""
        found = [SaveOut(zones_name(self._symbol), self.zones.to_file(self._symbol, at_ns))]
        if self.calibrator.calibration_enabled:
            found.append(SaveOut(weights_name(self._symbol), self.calibrator.weights_file(at_ns)))
        return found

    def load_files(self, weights: Mapping[str, Any] | None, zones: Mapping[str, Any] | None, minute: int) -> list[str]:
        """What the files of an earlier run hold, for a start without a checkpoint. Warnings; raises nothing for bad content."""
        told = list[str]()
        if weights is not None:
            try:
                told += self.calibrator.load_weights(dict(weights))
                self._saved_updates = self.calibrator.updates  # these weights are no update of now, and are in their file
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                told.append(f"weights file not used: {error}")
        if zones is not None:
            try:
                told += self.zones.load_file(dict(zones), self._symbol, minute)
                self._zones_faded_to = minute - 1  # as if that minute had been rolled: `minute` is the open one
            except (ValueError, TypeError, LookupError, ArithmeticError) as error:
                told.append(f"zones file not used: {error}")
        return told

    _PARTS = ("calibrator", "projection", "takers", "tape", "tracker", "zones")
    _PLAIN = ("_saved_updates", "_venue_ns", "_venues", "_weights_since_ns", "_zones_faded_to")

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        parts = {name: getattr(self, name).state_of() for name in self._PARTS}
        return {**parts, "plain": {name: getattr(self, name) for name in self._PLAIN}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        for name in self._PARTS:
            getattr(self, name).restore(state[name])
        for name in self._PLAIN:
            setattr(self, name, state["plain"][name])


def weights_name(symbol: str) -> str:
    """File of the calibrator's weights."""
    return f"liq_calibrator_weights_{symbol}.json"


def zones_name(symbol: str) -> str:
    """File of the zones."""
    return f"liq_active_zones_{symbol}.json"


def boost_metrics(combined: Combined) -> dict[str, Any]:
    """How many buckets of the picture are boosted, and by how much."""
    raw, shown = combined.raw.values, combined.display.values
    boosted = shown != raw
    total, count = int(np.count_nonzero(raw)), int(np.count_nonzero(boosted))
    clamped = int(np.count_nonzero(boosted & (COMBINED_ZONE_BOOST * raw > 1.0)))
    return {
        "event": "combined_zone_boost", "total": total, "boosted": count, "clamped": clamped,
        "boosted_pct": 100.0 * count / total if total else 0.0, "clamped_pct": 100.0 * clamped / total if total else 0.0,
        "avg_before_boost": ordered_sum(raw[boosted]) / count if count else None,
        "avg_after_boost": ordered_sum(shown[boosted]) / count if count else None, "boost_factor": COMBINED_ZONE_BOOST,
    }  # fmt: skip


def balance_metrics(planes: Floats, combined: Combined) -> dict[str, Any]:
    """How the two sources compare. `planes`: float64[4, buckets], tape then projection."""
    return {
        "event": "heatmap_balance", "tape_max_raw": float(planes[:2].max(initial=0.0)),
        "inf_max_raw": float(planes[2:].max(initial=0.0)),
        "tape_scale": combined.tape_p99, "inf_scale": combined.projection_p99,
        "combined_max": float(combined.raw.values.max(initial=0.0)),
    }  # fmt: skip


def _once(added: Added) -> tuple[Keys, Floats]:
    """What was added with each bucket once, ascending."""
    one = BucketMap(added.usd.shape[1])
    one.add(added.keys, added.usd)
    return one.keys, one.values


def _pool_row(pool: Pool, tiers: tuple[str, ...]) -> PoolRow:
    return PoolRow(
        price=pool.price, price_low=pool.price_low, price_high=pool.price_high, notional_usd=pool.notional_usd,
        intensity=pool.intensity, strength=pool.strength, bucket_count=pool.bucket_count, tape_usd=pool.tape_usd,
        projected_usd=pool.projected_usd, source=pool.source, size_base=pool.size_base,
        tier_usd={name: usd for name, usd in zip(tiers, pool.tier_usd) if usd > 0.0},
    )  # fmt: skip
