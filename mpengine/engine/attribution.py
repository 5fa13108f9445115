"""Which tiers a liquidation came from: two strategies behind one protocol (`spec: engine`, sections 13.1-13.3). Pure.

`window`, the default, shares an event among the tiers whose projected mass the price crossed in its minute. `event` compares the
event's own distance with the tiers' levels; it is there for comparison, as a liquidation prints where the market is.

NOTE: the specification's on_event(event, x) is `on_events` here: all events of one minute and side at once, since they share the
record. One by one they would cost more than the rest of the rollover in a minute of 10,000.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mpengine.brackets import Bracket
from mpengine.engine.buckets import Floats, column_sums, ordered_sum, row_sums
from mpengine.engine.estimators import HIT_BUCKET_TOLERANCE
from mpengine.engine.inference import SIDES
from mpengine.engine.leverage import TierLadder, liquidation_prices, margin_rates
from mpengine.engine.log_records import LogOut
from mpengine.heatmap import Grid, RawMap
from shm.grid import buckets_of
from shm.records import PositionSide, Venue

EVIDENCE_TIME_CONSTANT_MIN: Final = 1440
EVIDENCE_MIN: Final = 1.0
MIN_TIERS: Final = 2
TAU_PCT_BASE: Final = 0.0012
DELTA_PCT_BASE: Final = 0.0008
SMALLEST_MEAN: Final = 1e-9
MINUTE_CACHE_SIZE: Final = 60
PENDING_MAX: Final = 1000
MAX_EVENTS_PER_MINUTE: Final = 10_000

Refusal = Literal["minute_full", "pending_full", "too_old"]


class CalibratorEvent(NamedTuple):
    """A realised liquidation. `minute`: venue time in whole minutes; prices and notional in USD, `qty` in base units.

    `reference`: what section 3 judged it by; `mark`: the mark price where it is not older than 5 s.
    """

    venue: Venue
    side: PositionSide
    minute: int
    trigger: float
    bankruptcy: float
    qty: float
    notional_usd: float
    reference: float | None
    mark: float | None


class MinuteRecord(NamedTuple):
    """A rolled minute. `crossed`: unweighted USD that the price crossed, float64[2, tiers]; `grid`, `raw`: its map.

    `pools`: (side row, price) of the published ones; `oi_delta`: base units.
    """

    minute: int
    src: float
    high: float
    low: float
    crossed: npt.NDArray[np.float64]
    grid: Grid
    raw: RawMap
    pools: tuple[tuple[int, float], ...]
    oi_delta: float | None


class Kept(NamedTuple):
    """What of a record is held for events that come late."""

    minute: int
    src: float
    crossed: Floats


Batch = Sequence[tuple[CalibratorEvent, float]]
"""Events of one venue-time minute and side, in order of arrival, each with its weight x in USD."""


class Due(NamedTuple):
    """Events that can be attributed: `minute` is theirs, `record` the one they are judged by."""

    record: Kept
    minute: int
    row: int
    batch: Batch


class Attributed(NamedTuple):
    """What became of a batch."""

    explained: int
    unexplained: int
    unexplained_usd: float
    logs: list[LogOut]


class Scores(NamedTuple):
    """float64[tiers] each. `score`: 1 where the weight is right; None where too little is known to judge any."""

    score: Floats | None
    evidence: Floats


class TierSums(NamedTuple):
    """float64[tiers] each, for publication. `crossed_usd` None: the strategy does not look at it."""

    crossed_usd: Floats | None
    attributed_usd: Floats
    rate: Floats
    conversion: float | None


class Attribution(Protocol):
    """A way of sharing events among tiers and of judging the weights by that."""

    def on_minute(self, record: MinuteRecord, minutes: int) -> None:
        """A minute ended, `minutes` after the last one. Comes before the events of that record."""

    def on_events(self, due: Due, weights: Floats, scale: float) -> Attributed:
        """Events of one minute and side, with the weights in force; `scale`: of the volatility."""

    def scores(self, weights: Floats) -> Scores:
        """How right the weights are. Changes nothing."""

    def on_update(self) -> None:
        """The scores were acted on."""

    def sums(self, weights: Floats) -> TierSums:
        """What the scores come from."""

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_of`."""


class WindowAttribution:
    """Strategy `window`: one EM step per update for "events come from tiers with intensity weight x crossed mass" (13.2).

    The rate of a tier divides by its *unweighted* crossed mass, so the target is a share by itself: evidence that was gathered
    under older weights cannot make it overshoot.
    """

    __slots__ = ("_attributed", "_crossed", "_events", "_ladder")

    def __init__(self, ladder: TierLadder) -> None:
        self._ladder = ladder
        self._attributed = np.zeros(len(ladder.tiers))
        self._crossed = np.zeros(len(ladder.tiers))
        self._events = 0.0

    def on_minute(self, record: MinuteRecord, minutes: int) -> None:
        """Old evidence fades, the crossed mass of both sides is added, with events or without."""
        fade = math.exp(-minutes / EVIDENCE_TIME_CONSTANT_MIN)
        self._attributed *= fade
        self._crossed *= fade
        self._events *= fade
        self._crossed += np.where(self._ladder.enabled, record.crossed[0] + record.crossed[1], 0.0)

    def on_events(self, due: Due, weights: Floats, scale: float) -> Attributed:
        """r = w M / sum(w M), the same for all of them; nothing crossed: unexplained.

        V: w (.5, .3, .2), M (2M, 1M, 0): r .769231, .230769, 0; x 13,000: 10,000, 3,000, 0.
        """
        weighted = weights * due.record.crossed[due.row]
        total = ordered_sum(weighted)
        usd, count = ordered_sum(np.array([x for _, x in due.batch])), len(due.batch)
        told: dict[str, Any] = {"minute": due.minute, "side": SIDES[due.row].name.lower(), "events": count, "usd": usd}
        if not total > 0.0:
            return Attributed(0, count, usd, [LogOut("calibrator", {"event": "unexplained", **told})])
        r = weighted / total
        self._attributed += usd * r
        self._events += count
        told |= {"M": self._ladder.by_name(due.record.crossed[due.row]), "r": self._ladder.by_name(r)}
        return Attributed(count, 0, 0.0, [LogOut("calibrator", {"event": "attributed", **told})])

    def scores(self, weights: Floats) -> Scores:
        """Target share / weight on the tiers with the evidence of one event, 1 elsewhere. V: section 13.4."""
        weighted = weights * self._crossed
        total = ordered_sum(weighted)
        evidence = self._events * weighted / total if total > 0.0 else np.zeros(len(weights))
        known = (evidence >= EVIDENCE_MIN) & (self._crossed > 0.0)
        rate = self._rates(known)
        sum_of_rates = ordered_sum(rate)
        if known.sum() < MIN_TIERS or not 0.0 < sum_of_rates < math.inf:
            return Scores(None, evidence)
        target = ordered_sum(np.where(known, weights, 0.0)) * rate / sum_of_rates
        return Scores(np.divide(target, weights, out=np.ones(len(weights)), where=known), evidence)

    def _rates(self, known: npt.NDArray[np.bool_]) -> Floats:
        return np.divide(self._attributed, self._crossed, out=np.zeros(len(known)), where=known)

    def on_update(self) -> None:
        """Evidence fades by itself."""

    def sums(self, weights: Floats) -> TierSums:
        """Crossed and attributed USD, and liquidated per projected USD."""
        projected = ordered_sum(weights * self._crossed)
        conversion = ordered_sum(self._attributed) / projected if projected > 0.0 else None
        return TierSums(self._crossed.copy(), self._attributed.copy(), self._rates(self._crossed > 0.0), conversion)

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {"attributed": self._attributed.tobytes(), "crossed": self._crossed.tobytes(), "events": self._events}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_of`."""
        self._attributed, self._crossed = (np.frombuffer(state[name]).copy() for name in ("attributed", "crossed"))
        self._events = state["events"]


class Levels:
    """Levels that a reference price implies, per venue and side row, as multiples of that price."""

    __slots__ = ("_factors", "_first", "_ladder", "_sorted")

    def __init__(self, ladder: TierLadder, first: Mapping[Venue, Bracket | None], mmr: Mapping[Venue, float]) -> None:
        self._ladder, self._first = ladder, dict(first)
        self._factors: dict[tuple[Venue, int], Floats] = {}
        self._sorted: dict[tuple[Venue, int], tuple[list[float], list[int]]] = {}
        self.set_rates(mmr)

    def set_rates(self, mmr: Mapping[Venue, float]) -> None:
        """Maintenance margin rates that levels are made with from now on."""
        for venue, rate in mmr.items():
            for row, side in enumerate(SIDES):
                rates = margin_rates(self._ladder.leverage, rate, self._first.get(venue))
                factors = liquidation_prices(side, 1.0, self._ladder.leverage, rates)
                self._factors[venue, row] = factors
                # Sorted by price, not by leverage: with a high rate the levels of tiers that a bracket does not offer fall between.
                order = np.argsort(factors, kind="stable")
                cuts = (factors[order][1:] + factors[order][:-1]) / 2.0
                self._sorted[venue, row] = (cuts.tolist(), order.tolist())

    def factors(self, venue: Venue, row: int) -> Floats:
        """float64[tiers], disabled ones too."""
        return self._factors[venue, row]

    def nearest(self, venue: Venue, row: int, ratio: float) -> int:
        """Place in the ladder of the level nearest to `ratio` times the reference, over all tiers."""
        cuts, order = self._sorted[venue, row]
        return order[bisect_left(cuts, ratio)]


class EventAttribution:
    """Strategy `event`: soft attribution by distance in percent space (13.3)."""

    __slots__ = ("_events", "_evidence", "_hits", "_ladder", "_levels", "_miss", "_step", "_xh", "_xr")

    def __init__(self, ladder: TierLadder, step: float, levels: Levels) -> None:
        self._ladder, self._step, self._levels = ladder, step, levels
        self._xr, self._xh, self._evidence = np.zeros((3, len(ladder.tiers)))
        self._hits = self._events = 0
        self._miss = 0.0

    def on_minute(self, record: MinuteRecord, minutes: int) -> None:
        """An event says all by itself."""

    def on_events(self, due: Due, weights: Floats, scale: float) -> Attributed:
        """r = softmax(-d / tau) over the enabled tiers, h = r exp(-d / delta); d: distance to the level, as a fraction. V: 13.3."""
        events = [event for event, _ in due.batch]
        x = np.array([weight for _, weight in due.batch])
        trigger = np.array([event.trigger for event in events])
        reference = np.array([due.record.src if event.reference is None else event.reference for event in events])
        levels = reference[:, None] * np.array([self._levels.factors(event.venue, due.row) for event in events])
        distance = np.abs(trigger[:, None] - levels) / reference[:, None]
        r = responsibilities(distance, self._ladder.enabled, TAU_PCT_BASE * scale)
        h = r * np.exp(-distance / (DELTA_PCT_BASE * scale))
        self._xr += column_sums(x[:, None] * r)
        self._xh += column_sums(x[:, None] * h)
        self._evidence += column_sums(r)
        level = levels[np.arange(len(events)), r.argmax(axis=1)]
        hits = np.abs(buckets_of(trigger, self._step) - buckets_of(level, self._step)) <= HIT_BUCKET_TOLERANCE
        misses = (trigger - level) / reference
        self._hits, self._events = self._hits + int(hits.sum()), self._events + len(events)
        self._miss += ordered_sum(misses)
        told = {"event": "attributed", "minute": due.minute, "side": SIDES[due.row].name.lower()}
        rows = zip(trigger.tolist(), r.tolist(), h.tolist(), hits.tolist(), misses.tolist())
        logs = [LogOut("calibrator", {**told, "trigger": at, "r": one, "h": two, "hit": hit, "miss": miss})
                for at, one, two, hit, miss in rows]  # fmt: skip
        return Attributed(len(events), 0, 0.0, logs)

    def scores(self, weights: Floats) -> Scores:
        """(sum x h / sum x r) over its plain mean, on the tiers with the evidence of one event; 1 elsewhere."""
        known = self._known
        if known.sum() < MIN_TIERS:
            return Scores(None, self._evidence.copy())
        ratio = self._ratio(known)
        mean = ordered_sum(ratio[known]) / int(known.sum())
        if not SMALLEST_MEAN < mean < math.inf:
            return Scores(None, self._evidence.copy())
        return Scores(np.where(known, ratio / mean, 1.0), self._evidence.copy())

    @property
    def _known(self) -> npt.NDArray[np.bool_]:
        return (self._evidence >= EVIDENCE_MIN) & (self._xr > 0.0)

    def _ratio(self, known: npt.NDArray[np.bool_]) -> Floats:
        return np.divide(self._xh, self._xr, out=np.zeros(len(known)), where=known)

    def on_update(self) -> None:
        """The sums begin anew."""
        self._xr, self._xh, self._evidence = np.zeros((3, len(self._ladder.tiers)))

    def sums(self, weights: Floats) -> TierSums:
        """USD by responsibility, and the part of it that lies at the tier's level."""
        return TierSums(None, self._xr.copy(), self._ratio(self._xr > 0.0), None)

    @property
    def hit_share(self) -> float | None:
        """Share of events within 4 buckets of their likeliest level; None before the first."""
        return self._hits / self._events if self._events else None

    @property
    def mean_miss(self) -> float | None:
        """Mean of (trigger - level) / reference; None before the first event."""
        return self._miss / self._events if self._events else None

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "sums": np.array([self._xr, self._xh, self._evidence]).tobytes(),
            "hits": self._hits,
            "events": self._events,
            "miss": self._miss,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_of`."""
        self._xr, self._xh, self._evidence = np.frombuffer(state["sums"]).reshape(3, -1).copy()
        self._hits, self._events, self._miss = state["hits"], state["events"], state["miss"]


def responsibilities(distance: Floats, enabled: npt.NDArray[np.bool_], tau: float) -> Floats:
    """softmax(-distance / tau) over the enabled tiers, float64[n, tiers]; each row sums to 1, a disabled tier has exactly 0."""
    exponent = np.where(enabled, -distance / tau, -np.inf)
    shares = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    normal: Floats = shares / row_sums(shares)[:, None]
    return normal


class Waiting:
    """Events until the record of their venue-time minute is there, and the records of the last 60 minutes for those that come late.

    Events before the first record, and of a minute that was skipped, wait for the next record. Bounded: 10,000 events between two
    rollovers, 1,000 whose record will not come. `pending`: how many of the latter; `records`: oldest first.
    """

    __slots__ = ("_batches", "_waiting", "pending", "records")

    def __init__(self) -> None:
        self._batches: dict[tuple[int, int], list[tuple[CalibratorEvent, float]]] = {}
        self._waiting = self.pending = 0
        self.records: deque[Kept] = deque(maxlen=MINUTE_CACHE_SIZE)

    def __len__(self) -> int:
        return self._waiting + self.pending

    def refusal(self, minute: int) -> Refusal | None:
        """Why an event of this minute cannot wait; None if it can."""
        if self._is_old(minute):
            return "too_old"
        if self._is_pending(minute):
            return "pending_full" if self.pending >= PENDING_MAX else None
        return "minute_full" if self._waiting >= MAX_EVENTS_PER_MINUTE else None

    def add(self, event: CalibratorEvent, x: float) -> None:
        """An event that `refusal` has nothing against."""
        if self._is_pending(event.minute):
            self.pending += 1
        else:
            self._waiting += 1
        self._batches.setdefault((event.minute, SIDES.index(event.side)), []).append((event, x))

    def _is_old(self, minute: int) -> bool:
        return bool(self.records) and minute <= self.records[-1].minute - MINUTE_CACHE_SIZE

    def _is_pending(self, minute: int) -> bool:
        return not self.records or (minute <= self.records[-1].minute and self._record(minute) is None)

    def _record(self, minute: int) -> Kept | None:
        return next((record for record in reversed(self.records) if record.minute == minute), None)

    def on_minute(self, record: Kept) -> list[Due]:
        """A record came: the events that can be attributed now, by minute and side.

        Only events of the minute that is open now go on waiting. A time beyond that is wrong, and says nothing of their minute.
        """
        if self.records and record.minute <= self.records[-1].minute:  # the clock was set back: these minutes come again
            self.records.clear()
        due, left = list[Due](), dict[tuple[int, int], list[tuple[CalibratorEvent, float]]]()
        for (minute, row), batch in sorted(self._batches.items(), key=lambda item: item[0]):
            if minute == record.minute + 1:
                left[minute, row] = batch
            else:
                due.append(Due(self._record(minute) or record, minute, row, batch))
        self.records.append(record)  # after the look-ups: the oldest one leaves, and an event may have come for it
        self._batches, self.pending = left, 0
        self._waiting = sum(len(batch) for batch in left.values())
        return due

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "batches": [
                [minute, row, [[int(event.venue), int(event.side), *event[2:], x] for event, x in batch]]
                for (minute, row), batch in self._batches.items()
            ],
            "waiting": self._waiting,
            "pending": self.pending,
            "records": [[one.minute, one.src, one.crossed.tobytes()] for one in self.records],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_of`."""
        self._batches = {
            (minute, row): [
                (CalibratorEvent(Venue(venue), PositionSide(side), *rest[:-1]), rest[-1]) for venue, side, *rest in batch
            ]
            for minute, row, batch in state["batches"]
        }
        self._waiting, self.pending = state["waiting"], state["pending"]
        self.records.clear()
        for minute, src, crossed in state["records"]:
            self.records.append(Kept(minute, src, np.frombuffer(crossed).reshape(2, -1).copy()))
