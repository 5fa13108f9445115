"""Learns the weights of the leverage tiers from realised liquidations (`spec: engine`, section 13). Pure; one per engine.

The core hands in each accepted liquidation and each rolled minute; every 15 minutes the weights move a little towards what the
evidence says, inside what section 13.5 allows. Which tier an event came from is a strategy's business (attribution.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from mpengine.brackets import Bracket
from mpengine.engine.attribution import (
    EVIDENCE_MIN,
    Attribution,
    CalibratorEvent,
    Due,
    EventAttribution,
    Kept,
    Levels,
    MinuteRecord,
    Refusal,
    Scores,
    Waiting,
    WindowAttribution,
)
from mpengine.engine.buckets import Floats
from mpengine.engine.estimators import (
    BIAS_CAP,
    HIT_BUCKET_TOLERANCE,
    MMR_MAX,
    MMR_MIN,
    MMR_VENUES,
    ApproachMonitor,
    BiasMonitor,
    MmrEstimator,
    NearMonitor,
    Volatility,
    Winsor,
)
from mpengine.engine.inference import SIDES
from mpengine.engine.leverage import TierLadder, allowed, entropy_bits
from mpengine.engine.log_records import LogOut
from mpengine.schemas import CalibratorDocument, TierDocument
from shm.grid import buckets_of
from shm.records import Venue

__all__ = ["Calibrator", "CalibratorDocument", "CalibratorEvent", "MinuteRecord", "TierDocument", "stepped"]

CALIBRATION_INTERVAL_MIN: Final = 15
ANCHOR_LAMBDA: Final = 0.10
RATIO_MIN: Final = 0.85
RATIO_MAX: Final = 1.20
EVIDENCE_PRIOR: Final = 5.0
SAFETY_WINDOWS: Final = 3
WEIGHTS_SCHEMA: Final = 3
OLD_WEIGHTS_SCHEMA: Final = 2
WEIGHT_DIGITS: Final = 6


def stepped(weights: Floats, scores: Floats, evidence: Floats) -> Floats:
    """Weights a tenth of the way towards scored ones, float64[tiers], before section 13.5; not normalised. V: section 13.4.

    The evidence says how much a score counts, e / (e + 5) from one event on; no weight moves beyond 0.85..1.20 times itself, so one
    of 0 stays.
    """
    trust = np.where(evidence >= EVIDENCE_MIN, evidence / (evidence + EVIDENCE_PRIOR), 0.0)
    moved = weights * (1.0 + ANCHOR_LAMBDA * trust * (scores - 1.0))
    return np.clip(moved, RATIO_MIN * weights, RATIO_MAX * weights)


class Calibrator:
    """Tier weights of one symbol, maintenance rates per venue, and what is published about both.

    `mmr`: venue -> rate where the estimator has none; `first`: venue -> first bracket row. `symbol`: named in the weights file and
    checked at its load; without one nothing is.
    """

    __slots__ = (
        "_approach", "_attribution_name", "_bias", "_bias_correction", "_default_mmr", "_dropped", "_enabled", "_entropy",
        "_entropy_min", "_estimation", "_explained", "_far", "_ladder", "_late", "_levels", "_low", "_minute", "_mmr", "_moves",
        "_near", "_refused", "_rejected", "_slot", "_sound", "_step", "_strategy", "_symbol", "_total", "_unexplained",
        "_unexplained_usd", "_updated_minute", "_updates", "_volatility", "_waiting", "_warned", "_weights", "_winsor",
    )  # fmt: skip

    def __init__(
        self,
        ladder: TierLadder,
        *,
        step: float,
        mmr: Mapping[Venue, float],
        first: Mapping[Venue, Bracket | None],
        attribution: Literal["window", "event"],
        mmr_estimation: bool,
        bias_correction: bool,
        entropy_min_bits: float,
        symbol: str | None = None,
    ) -> None:
        self._ladder, self._step, self._symbol = ladder, step, symbol
        self._default_mmr, self._estimation, self._bias_correction = dict(mmr), mmr_estimation, bias_correction
        self._entropy_min, self._attribution_name = entropy_min_bits, attribution
        self._levels = Levels(ladder, first, mmr)
        self._strategy: Attribution = (
            WindowAttribution(ladder) if attribution == "window" else EventAttribution(ladder, step, self._levels)
        )
        self._waiting, self._winsor, self._volatility = Waiting(), Winsor(), Volatility()
        self._mmr, self._bias = MmrEstimator(first), BiasMonitor()
        self._near, self._approach = NearMonitor(), ApproachMonitor()
        self._enabled, self._low = True, 0
        self._minute: int | None = None
        self._slot: int | None = None
        self._updated_minute: int | None = None
        self._updates = self._moves = self._refused = 0
        self._total = self._explained = self._unexplained = self._far = self._late = self._rejected = self._dropped = 0
        self._unexplained_usd = 0.0
        self._warned: list[str] = []
        self._set_weights(allowed(ladder, ladder.defaults))
        self._sound = self._weights

    # in force ----------------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> Floats:
        """float64[tiers], allowed by section 13.5 at any time. A copy."""
        return self._weights.copy()

    @property
    def bias(self) -> tuple[float, float]:
        """Shift of projected (long, short) levels as a fraction of the price: zeros unless `bias_correction` is on."""
        return self._bias.values if self._bias_correction else (0.0, 0.0)

    @property
    def calibration_enabled(self) -> bool:
        """False once the entropy guard has acted: weights are frozen and must not be saved until a restart."""
        return self._enabled

    @property
    def updates(self) -> int:
        """Number of 15-minute updates: when it has grown, the weights file is due."""
        return self._updates

    def mmr_of(self, venue: Venue) -> float:
        """Maintenance margin rate in force; changes at updates only. Raises KeyError for a venue without a given rate."""
        return self._mmr.rates.get(venue, self._default_mmr[venue]) if self._estimation else self._default_mmr[venue]

    def hand_in(self, weights: npt.ArrayLike) -> None:
        """Weights from outside, float64[tiers]: what section 13.5 allows of them. Frozen weights stay.

        Raises ValueError for another number of tiers, or a number that is negative or not finite.
        """
        handed = allowed(self._ladder, weights)
        if self._enabled:
            self._set_weights(handed)
            self._remember_sound()

    def _set_weights(self, weights: Floats) -> None:
        self._weights = weights
        # One number: the one that is compared is the one that is logged and published.
        self._entropy = entropy_bits(weights)

    def _remember_sound(self) -> None:
        if self._entropy >= self._entropy_min:
            self._sound = self._weights

    # input -------------------------------------------------------------------------------------------------------------

    def count_far(self) -> None:
        """An event too far from the market to teach anything (section 3)."""
        self._far += 1

    def count_rejected(self) -> None:
        """An event that is used nowhere (section 3)."""
        self._rejected += 1

    def on_liquidation(self, event: CalibratorEvent) -> list[LogOut]:
        """An accepted event; it counts at once and is attributed at the next rollover that has the record of its minute."""
        self._total += 1
        if self._minute is not None and event.minute <= self._minute:
            self._late += 1
        refusal = self._waiting.refusal(event.minute)
        if refusal is not None:
            return self._drop(refusal)
        x = self._winsor.on_notional(event.notional_usd)
        self._waiting.add(event, x)
        row = SIDES.index(event.side)
        if event.mark is not None:
            self._mmr.on_event(event.venue, event.side, event.bankruptcy, event.qty, event.mark)
            self._bias.on_event(row, event.trigger, event.mark)
        told: dict[str, Any] = {
            "event": "event", "minute": event.minute, "venue": event.venue.label, "side": event.side.name.lower(),
            "trigger": event.trigger, "notional_usd": event.notional_usd, "x": x, "tier": None, "tier_disabled": None,
        }  # fmt: skip
        if event.reference is not None:
            place = self._levels.nearest(event.venue, row, event.trigger / event.reference)
            told["tier"], told["tier_disabled"] = self._ladder.tiers[place], not self._ladder.enabled[place]
        return [LogOut("calibrator", told)]

    def _drop(self, refusal: Refusal) -> list[LogOut]:
        self._dropped += 1
        if refusal in self._warned:  # one line per reason and minute
            return []
        self._warned.append(refusal)
        line = {"event": "dropped", "level": "WARNING", "reason": refusal, "dropped": self._dropped}
        return [LogOut("calibrator", line)]

    def on_minute(self, record: MinuteRecord) -> list[LogOut]:
        """A rolled minute: its events are attributed, and at the first one of each 15-minute slot the weights are updated.

        A record that cannot be true is counted and changes nothing else.
        """
        if not _is_usable(record, len(self._ladder.tiers)):
            self._refused += 1
            return [LogOut("calibrator", {"event": "record_refused", "level": "WARNING", "minute": record.minute})]
        minutes = 1 if self._minute is None else max(1, record.minute - self._minute)
        self._minute = record.minute
        self._warned.clear()
        self._volatility.on_minute(record.src, record.high, record.low)
        self._strategy.on_minute(record, minutes)
        logs = list[LogOut]()
        for due in self._waiting.on_minute(Kept(record.minute, record.src, record.crossed.copy())):
            logs += self._attribute(due)
        self._near.on_minute(record.minute, record.grid, record.raw)
        self._approach.on_minute(record.src, record.high, record.low, record.pools)
        # The rollover of a minute happens at its end, which is the first moment of the next one.
        slot = (record.minute + 1) // CALIBRATION_INTERVAL_MIN
        if self._slot is not None and slot != self._slot:
            logs += self._update(record.minute)
        self._slot = slot
        return logs

    def _attribute(self, due: Due) -> list[LogOut]:
        done = self._strategy.on_events(due, self._weights, self._volatility.scale)
        self._explained += done.explained
        self._unexplained += done.unexplained
        self._unexplained_usd += done.unexplained_usd
        triggers = np.array([event.trigger for event, _ in due.batch])
        self._near.on_events(min(due.minute, due.record.minute), due.row, buckets_of(triggers, self._step))
        return done.logs

    # update ------------------------------------------------------------------------------------------------------------

    def _update(self, minute: int) -> list[LogOut]:
        before, scores = self._weights, self._strategy.scores(self._weights)
        moves = self._enabled and scores.score is not None
        if moves and scores.score is not None:
            self._set_weights(allowed(self._ladder, stepped(before, scores.score, scores.evidence)))
            self._strategy.on_update()
            self._moves += 1
        self._updates += 1
        self._updated_minute = minute
        logs = self._take_over_rates()
        self._bias.on_update()
        logs += self._guard()
        told = {"event": "calibration", "minute": minute, "moved": moves, "weights_before": self._ladder.by_name(before)}
        return [LogOut("calibrator", {**told, **msgspec.to_builtins(self._document(scores))}), *logs]

    def _take_over_rates(self) -> list[LogOut]:
        changed = self._mmr.on_update()
        if not changed or not self._estimation:
            return []
        self._levels.set_rates({venue: self.mmr_of(venue) for venue in self._default_mmr})
        return [
            LogOut(
                "calibrator",
                {"event": "mmr", "venue": venue.label, "mmr": self._mmr.rates[venue], "samples": self._mmr.samples(venue)},
            )
            for venue in changed
        ]

    def _guard(self) -> list[LogOut]:
        """Freeze the weights after three updates in a row with too little entropy, whether these moved them or not."""
        self._remember_sound()
        if not self._enabled:
            return []
        self._low = self._low + 1 if self._entropy < self._entropy_min else 0
        if self._low < SAFETY_WINDOWS:
            return []
        self._enabled = False
        told = {"event": "safety_trip", "level": "CRITICAL", "entropy_bits": self._entropy, "entropy_min_bits": self._entropy_min}
        return [LogOut("calibrator", {**told, "windows": self._low, "weights": self._ladder.by_name(self._weights)})]

    # published ---------------------------------------------------------------------------------------------------------

    def document(self) -> CalibratorDocument:
        """Everything of section 13.9, now."""
        return self._document(self._strategy.scores(self._weights))

    def _document(self, scores: Scores) -> CalibratorDocument:
        sums = self._strategy.sums(self._weights)
        by_event = self._strategy if isinstance(self._strategy, EventAttribution) else None
        since = None if self._updated_minute is None or self._minute is None else max(0, self._minute - self._updated_minute)
        return CalibratorDocument(
            enabled=self._enabled, attribution=self._attribution_name, updates=self._updates, moves=self._moves,
            minutes_since_calibration=since, total_events=self._total, explained=self._explained, unexplained=self._unexplained,
            unexplained_usd=self._unexplained_usd, far=self._far, late=self._late, rejected=self._rejected,
            waiting=len(self._waiting), pending=self._waiting.pending, dropped=self._dropped, records=len(self._waiting.records),
            records_refused=self._refused,
            tiers={
                name: TierDocument(
                    weight=weight, crossed_usd=crossed, attributed_usd=attributed, rate=rate if attributed or crossed else None,
                    evidence=evidence, score=score,
                )
                for name, weight, crossed, attributed, rate, evidence, score in zip(
                    self._ladder.names, self._weights.tolist(), _listed(sums.crossed_usd, self._ladder),
                    sums.attributed_usd.tolist(), sums.rate.tolist(), scores.evidence.tolist(), _listed(scores.score, self._ladder),
                )
            },
            entropy_bits=self._entropy, conversion=sums.conversion, vol=self._volatility.value,
            mmr={venue.label: self.mmr_of(venue) for venue in self._default_mmr},
            mmr_samples={venue.label: self._mmr.samples(venue) for venue in MMR_VENUES}, mmr_dropped=self._mmr.dropped,
            bias_long=self._bias.values[0], bias_short=self._bias.values[1],
            near_events=self._near.events, near_share=self._near.share,
            pools_approached=self._approach.approached, pools_crossed=self._approach.crossed,
            hit_share=by_event.hit_share if by_event else None, mean_miss=by_event.mean_miss if by_event else None,
        )  # fmt: skip

    # weights file ------------------------------------------------------------------------------------------------------

    def weights_file(self, now_ns: int) -> dict[str, Any]:
        """Content of the weights file (section 19). Not to be saved while `calibration_enabled` is False.

        `mmr`: rates in force by venue; `mmr_estimated`: whose were measured, the others are settings of the moment.
        """
        # As in a checkpoint: where the guard has acted, the last weights that had enough entropy.
        weights = [round(weight, WEIGHT_DIGITS) for weight in (self._weights if self._enabled else self._sound).tolist()]
        named: dict[str, Any] = {"symbol": self._symbol} if self._symbol is not None else {}
        return {
            "schema_version": WEIGHTS_SCHEMA, **named, "ladder": list(self._ladder.tiers), "weights": weights,
            "weights_by_leverage": dict(zip(self._ladder.names, weights)),
            "mmr": {venue.label: self.mmr_of(venue) for venue in self._default_mmr},
            "mmr_estimated": [venue.label for venue in self._mmr.rates if self._estimation],
            "bias_pct_long": self._bias.values[0], "bias_pct_short": self._bias.values[1],
            "buffer": 0, "tolerance": HIT_BUCKET_TOLERANCE, "long_offset_usd": 0, "short_offset_usd": 0,
            "calibration_count": self._updates, "saved_at": now_ns,
        }  # fmt: skip

    def load_weights(self, saved: Mapping[str, Any]) -> list[str]:
        """Go on from a weights file of schema 3, or 2 (of which only the weights are taken); what to warn of.

        Matched by tier: missing ones get their default, then section 13.5. Another symbol's file is ignored with a warning. Raises
        ValueError, with nothing changed, where the content cannot be used.
        """
        version = saved.get("schema_version")
        if version not in (OLD_WEIGHTS_SCHEMA, WEIGHTS_SCHEMA):
            raise ValueError(f"weights file: schema {version!r} is not known here, {WEIGHTS_SCHEMA} is")
        if self._symbol is not None and saved.get("symbol") != self._symbol:
            return [f"weights file of symbol {saved.get('symbol')!r} ignored, this is {self._symbol!r}"]
        by_tier = _weights_by_tier(saved)
        rates, biases, count = _measured(saved) if version == WEIGHTS_SCHEMA else ({}, self._bias.values, self._updates)
        given = [by_tier.get(tier, default) for tier, default in zip(self._ladder.tiers, self._ladder.defaults.tolist())]
        self.hand_in(given)
        self._bias.values, self._updates = biases, count
        if self._estimation:
            self._mmr.rates |= {venue: rate for venue, rate in rates.items() if venue in self._default_mmr}
            self._levels.set_rates({venue: self.mmr_of(venue) for venue in self._default_mmr})
        return self._odd_tiers(by_tier)

    def _odd_tiers(self, by_tier: Mapping[int, float]) -> list[str]:
        enabled = [tier for tier, is_enabled in zip(self._ladder.tiers, self._ladder.enabled.tolist()) if is_enabled]
        missing = [tier for tier in enabled if tier not in by_tier]
        unused = [tier for tier, weight in by_tier.items() if weight > 0.0 and tier not in enabled]
        found = [f"weights file has no tiers {missing}: they get their defaults"] if missing else []
        return found + ([f"weights file has weight on {unused}, which are no enabled tiers here: dropped"] if unused else [])

    # checkpoint --------------------------------------------------------------------------------------------------------

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here. A guard that acted is not part of it, nor what it acted on: a restart begins with
        the last weights that had enough entropy.
        """
        return {
            "weights": (self._weights if self._enabled else self._sound).tobytes(),
            "sound": self._sound.tobytes(),
            "low": self._low if self._enabled else 0,
            "strategy": self._strategy.state_of(),
            "waiting": self._waiting.state_of(),
            "winsor": self._winsor.state_of(),
            "vol": self._volatility.value,
            "mmr": self._mmr.state_of(),
            "bias": self._bias.state_of(),
            "near": self._near.state_of(),
            "approach": self._approach.state_of(),
            "times": [self._minute, self._slot, self._updated_minute],
            "counts": [self._updates, self._moves, self._refused, self._total, self._explained, self._unexplained, self._far,
                       self._late, self._rejected, self._dropped],
            "unexplained_usd": self._unexplained_usd,
            "warned": list(self._warned),
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_of`. Raises ValueError for the state of another ladder."""
        weights = np.frombuffer(state["weights"]).copy()
        if weights.shape != self._weights.shape:
            raise ValueError("calibrator state of another ladder")
        self._set_weights(weights)
        self._sound = np.frombuffer(state["sound"]).copy()
        self._enabled, self._low = True, state["low"]
        self._strategy.restore(state["strategy"])
        self._waiting.restore(state["waiting"])
        self._winsor.restore(state["winsor"])
        self._mmr.restore(state["mmr"])
        self._bias.restore(state["bias"])
        self._near.restore(state["near"])
        self._approach.restore(state["approach"])
        self._volatility = Volatility(state["vol"])
        self._minute, self._slot, self._updated_minute = state["times"]
        (self._updates, self._moves, self._refused, self._total, self._explained, self._unexplained, self._far, self._late,
         self._rejected, self._dropped) = state["counts"]  # fmt: skip
        self._unexplained_usd, self._warned = state["unexplained_usd"], list(state["warned"])
        self._levels.set_rates({venue: self.mmr_of(venue) for venue in self._default_mmr})


def _is_usable(record: MinuteRecord, tiers: int) -> bool:
    numbers = [record.src, record.high, record.low, *(price for _, price in record.pools)]
    numbers += [] if record.oi_delta is None else [record.oi_delta]
    return (
        all(math.isfinite(number) for number in numbers)
        and record.src > 0.0
        and record.low <= record.high
        and record.crossed.shape == (2, tiers)
        and bool(np.isfinite(record.crossed).all() and (record.crossed >= 0.0).all() and np.isfinite(record.raw.values).all())
    )


def _listed(vector: Floats | None, ladder: TierLadder) -> Sequence[float | None]:
    return [None] * len(ladder.tiers) if vector is None else vector.tolist()


def _number(value: Any, low: float, high: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"weights file: {name} must be a number in [{low:g}, {high:g}]")
    return float(value)


def _weights_by_tier(saved: Mapping[str, Any]) -> dict[int, float]:
    """Tier -> weight of a file of either schema: named by tier, or two lists of one length."""
    by_name, ladder, weights = saved.get("weights_by_leverage"), saved.get("ladder"), saved.get("weights")
    if isinstance(by_name, Mapping):
        pairs = list(by_name.items())
    elif isinstance(ladder, Sequence) and isinstance(weights, Sequence) and len(ladder) == len(weights):
        pairs = list(zip(ladder, weights))
    else:
        raise ValueError("weights file: must have weights by leverage, or a ladder and as many weights")
    try:
        found = {int(tier): _number(weight, 0.0, math.inf, f"weight of tier {tier}") for tier, weight in pairs}
    except TypeError as error:
        raise ValueError("weights file: tiers must be whole numbers") from error
    if not found:
        raise ValueError("weights file: must have at least one weight")
    return found


def _measured(saved: Mapping[str, Any]) -> tuple[dict[Venue, float], tuple[float, float], int]:
    """Estimated rates by venue, (long, short) bias and number of updates of a file of schema 3."""
    mmr, estimated = saved.get("mmr"), saved.get("mmr_estimated", [])
    if not isinstance(mmr, Mapping) or not isinstance(estimated, Sequence):
        raise ValueError("weights file: mmr must be rates by venue")
    rates = {
        venue: _number(mmr.get(venue.label), MMR_MIN, MMR_MAX, f"mmr of {venue.label}")
        for venue in MMR_VENUES
        if venue.label in estimated
    }
    long, short = (_number(saved.get(name), -BIAS_CAP, BIAS_CAP, name) for name in ("bias_pct_long", "bias_pct_short"))
    return rates, (long, short), int(_number(saved.get("calibration_count"), 0, 2**53, "calibration_count"))
