"""The maps and weights of a minute in plain words, written from the specification (`spec: engine`, sections 3, 4, 8 to 10, 13) with
dicts and no code of the engine.

Slow on purpose: what it computes is obvious. Used to confirm the engine on random markets. It knows marks instead of books, and the
strategy `window`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy as np

Sides = tuple[dict[int, dict[int, float]], dict[int, dict[int, float]]]


@dataclass
class PlainBucket:
    """A bucket of the tape."""

    usd: float = 0.0
    fresh: float = 0.0
    armed: bool = False


@dataclass
class PlainMarket:
    """One symbol. `ladder`: tier -> raw weight; `rates`: venue -> (rate, largest leverage of its first bracket or 0, its cap)."""

    step: float
    ladder: Mapping[int, float]
    disabled: set[int]
    rates: Mapping[str, tuple[float, float, float]]
    maps: Sides = field(default_factory=lambda: ({}, {}))
    ledger: Sides = field(default_factory=lambda: ({}, {}))
    tape: tuple[dict[int, PlainBucket], dict[int, PlainBucket]] = field(default_factory=lambda: ({}, {}))
    last_minute: int | None = None
    src: float | None = None
    takers: dict[int, tuple[float, float]] = field(default_factory=dict)
    oi: dict[str, tuple[float, float]] = field(default_factory=dict)
    baseline: tuple[float, dict[str, float]] = (-1e9, {})
    attributed: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    crossed: dict[int, float] = field(default_factory=lambda: defaultdict(float))
    events: float = 0.0
    explained: int = 0
    unexplained: int = 0
    waiting: list[tuple[int, float]] = field(default_factory=list)
    notionals: list[float] = field(default_factory=list)
    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    measured: dict[str, float] = field(default_factory=dict)
    slot: int | None = None

    def __post_init__(self) -> None:
        self.tiers = [tier for tier in sorted(self.ladder) if tier not in self.disabled]
        total = sum(self.ladder[tier] for tier in self.tiers)
        self.weights = self.allowed({tier: self.ladder[tier] / total for tier in self.tiers})

    # events of the running minute ------------------------------------------------------------------------------------

    def liquidation(self, venue: str, side: int, price: float, average: float, qty: float, mark: float) -> None:
        """Judged by a mark of the same second. Sides: 0 long, 1 short."""
        sign = -1.0 if side == 0 else 1.0
        m = self.measured.get(venue, self.rates[venue][0])
        trigger = price / (1.0 + sign * m)
        if venue == "okx":
            trigger = price
        elif venue == "binance" and average > 0.0:
            trigger = average
        if abs(trigger - mark) > 0.15 * mark:
            return
        bucket = self.tape[side].setdefault(round(trigger / self.step), PlainBucket())
        bucket.fresh += trigger * qty
        if abs(trigger - mark) > 0.025 * mark:
            return
        self.notionals = [*self.notionals, trigger * qty][-2000:]
        cap = float(np.percentile(self.notionals, 99)) if len(self.notionals) >= 100 else math.inf
        self.waiting.append((side, min(trigger * qty, cap)))
        beyond = sign * (price - mark) / mark
        if venue in ("binance", "bybit") and price * qty <= self.rates[venue][2] and 0.0 < beyond <= 0.05:
            self.samples[venue] = [*self.samples[venue], beyond][-500:]

    def open_interest(self, venue: str, qty: float, at_s: float) -> None:
        self.oi[venue] = (qty, at_s)

    # a minute ----------------------------------------------------------------------------------------------------------

    def roll(self, minute: int, bar: tuple[float, float, float, float], buy: float, sell: float) -> None:
        """A minute with prices (O, H, L, C) ended."""
        k = 1 if self.last_minute is None else minute - self.last_minute
        self.last_minute, low, high, close = minute, bar[2], bar[1], bar[3]
        self.src = sum(bar) / 4.0
        self.takers[minute] = (buy, sell)
        for side in range(2):
            self._roll_tape(side, k, low, high, close)
        mass = [self._roll_projection(side, k, low, high) for side in range(2)]
        self._follow(minute)
        self._learn(minute, k, mass)

    def _reached(self, side: int, bucket: int, low: float, high: float) -> bool:
        price = round(bucket * self.step, 8)
        return low <= price if side == 0 else high >= price

    def _roll_tape(self, side: int, k: int, low: float, high: float, close: float) -> None:
        for at, one in list(self.tape[side].items()):
            one.usd *= 0.995**k
            if one.usd < 1.0 or (one.armed and self._reached(side, at, low, high)):
                one.usd = 0.0
            one.usd += one.fresh
            if one.fresh > 0.0 or one.usd == 0.0:
                one.armed = False
            one.fresh = 0.0
            if one.usd == 0.0:
                del self.tape[side][at]
            elif abs(close - at * self.step) >= self.step * (1 - 1e-9):
                one.armed = True

    def _roll_projection(self, side: int, k: int, low: float, high: float) -> dict[int, float]:
        """The crossed mass by tier."""
        mass: dict[int, float] = defaultdict(float)
        for at, parts in list(self.maps[side].items()):
            parts |= {tier: usd * 0.995**k for tier, usd in parts.items()}
            if sum(parts.values()) >= 100.0 and self._reached(side, at, low, high):
                parts |= {tier: usd * 0.30 for tier, usd in parts.items()}
            if sum(parts.values()) < 100.0:
                del self.maps[side][at]
        for at, parts in list(self.ledger[side].items()):
            kept = {tier: usd * 0.995**k for tier, usd in parts.items() if usd * 0.995**k >= 1.0}
            if kept and self._reached(side, at, low, high):
                for tier, usd in kept.items():
                    mass[tier] += usd
                kept = {}
            self.ledger[side][at] = kept
            if not kept:
                del self.ledger[side][at]
        return mass

    def _follow(self, minute: int) -> None:
        now_s, src = 60.0 * (minute + 1), self.src or 0.0
        fresh = {venue: qty for venue, (qty, at_s) in self.oi.items() if now_s - at_s <= 60.0}
        before_s, before = self.baseline
        both = [venue for venue in fresh if venue in before] if now_s - before_s <= 120.0 else []
        delta, previous = sum(fresh[venue] - before[venue] for venue in both), sum(before[venue] for venue in both)
        self.baseline = (now_s, fresh)
        if not both or delta == 0.0:
            return
        if delta < 0.0:
            left = 1.0 - min(-delta / previous, 0.25)
            for parts in (one for side in (*self.maps, *self.ledger) for one in side.values()):
                parts |= {tier: usd * left for tier, usd in parts.items()}
        elif delta >= 0.00005 * previous:
            buy, sell = self.takers[minute]
            if buy + sell == 0.0:
                recent = [self.takers.get(at, (0.0, 0.0)) for at in range(minute - 9, minute + 1)]
                buy, sell = sum(one[0] for one in recent), sum(one[1] for one in recent)
            share = min(max(buy / (buy + sell), 0.10), 0.90) if buy + sell > 0.0 else 0.5
            total = sum(fresh.values())
            split = {venue: qty / total for venue, qty in fresh.items()}
            for side, part in ((0, share), (1, 1.0 - share)):
                self._open(side, delta * src * part, src, split)

    def _open(self, side: int, usd: float, src: float, split: Mapping[str, float]) -> None:
        if usd < 100.0:
            return
        for venue, part in split.items():
            rate, most, _ = self.rates[venue]
            rate = self.measured.get(venue, rate)
            for tier in self.tiers:
                m = rate if tier <= most else min(rate, 0.5 / tier)
                level = src * (1 - 1 / tier) / (1 - m) if side == 0 else src * (1 + 1 / tier) / (1 + m)
                at = round(level / self.step)
                books = [(self.ledger, usd * part)]
                if usd * self.weights[tier] >= 100.0:
                    books.append((self.maps, usd * self.weights[tier] * part))
                for book, value in books:
                    parts = book[side].setdefault(at, {})
                    parts[tier] = parts.get(tier, 0.0) + value

    # calibrator --------------------------------------------------------------------------------------------------------

    def _learn(self, minute: int, k: int, mass: list[dict[int, float]]) -> None:
        fade = math.exp(-k / 1440)
        self.events *= fade
        for tier in self.tiers:
            self.attributed[tier] *= fade
            self.crossed[tier] = self.crossed[tier] * fade + mass[0][tier] + mass[1][tier]
        for side, x in self.waiting:
            total = sum(self.weights[tier] * mass[side][tier] for tier in self.tiers)
            if total == 0.0:
                self.unexplained += 1
                continue
            self.explained, self.events = self.explained + 1, self.events + 1
            for tier in self.tiers:
                self.attributed[tier] += x * self.weights[tier] * mass[side][tier] / total
        self.waiting = []
        slot = (minute + 1) // 15
        if self.slot is not None and slot != self.slot:
            self._update()
        self.slot = slot

    def evidence(self) -> dict[int, float]:
        total = sum(self.weights[tier] * self.crossed[tier] for tier in self.tiers)
        return {tier: self.events * self.weights[tier] * self.crossed[tier] / total if total else 0.0 for tier in self.tiers}

    def _update(self) -> None:
        e, w = self.evidence(), self.weights
        known = [tier for tier in self.tiers if e[tier] >= 1.0 and self.crossed[tier] > 0.0]
        rate = {tier: self.attributed[tier] / self.crossed[tier] for tier in known}
        if len(known) >= 2 and sum(rate.values()) > 0.0:
            new = dict(w)
            for tier in known:
                target = sum(w[one] for one in known) * rate[tier] / sum(rate.values())
                up = w[tier] * (1 + e[tier] / (e[tier] + 5) * (target / w[tier] - 1))
                new[tier] = min(max(0.9 * w[tier] + 0.1 * up, 0.85 * w[tier]), 1.20 * w[tier])
            self.weights = self.allowed(new)
        for venue, samples in self.samples.items():
            if len(samples) >= 30:
                self.measured[venue] = min(max(median(samples), 0.002), 0.02)

    def allowed(self, weights: Mapping[int, float]) -> dict[int, float]:
        """Section 13.5."""
        total = sum(weights.values())
        new = {tier: weight / total for tier, weight in weights.items()}
        mid = sum(weight for tier, weight in new.items() if tier <= 25)
        if 0.0 < mid < 0.25:
            new = {tier: w * (0.25 / mid if tier <= 25 else 0.75 / (1 - mid)) for tier, w in new.items()}
        full: set[int] = set()
        while any(weight > 0.35 for weight in new.values()):
            full |= {tier for tier, weight in new.items() if weight > 0.35}
            rest = sum(weight for tier, weight in new.items() if tier not in full)
            left = 1 - 0.35 * len(full)
            new = {tier: 0.35 if tier in full else weight / rest * left for tier, weight in new.items()}
        return new

    # what is shown -----------------------------------------------------------------------------------------------------

    def planes(self) -> tuple[int, list[list[float]]]:
        """(lowest bucket, USD of tape long, tape short, projected long, projected short) on the grid of the minute."""
        src = self.src or 0.0
        low, high = round(0.9 * src / self.step), round(1.1 * src / self.step)
        tape = [[side[at].usd if at in side else 0.0 for at in range(low, high + 1)] for side in self.tape]
        return low, tape + [[sum(side.get(at, {}).values()) for at in range(low, high + 1)] for side in self.maps]

    @staticmethod
    def scale(planes: list[list[float]]) -> float:
        """Section 10: p99 of the positive values of both sides, or their maximum."""
        positive = [usd for plane in planes for usd in plane if usd > 0.0]
        return float(np.percentile(positive, 99)) if len(positive) >= 20 else max(positive, default=0.0)
