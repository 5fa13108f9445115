"""Plain zones, written from the specification (`spec: engine`, section 14) with lists of objects and no code of the engine.

Slow on purpose: what it computes is obvious. Used to confirm the engine's columns on random markets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

FACTORS = {5: 0.2, 10: 0.0, 20: 0.4, 25: 0.5, 50: 0.8, 75: 0.9, 100: 1.0, 125: 1.0, 150: 0.9, 200: 0.8, 250: 0.7}
Usd = Mapping[int, float]


@dataclass
class PlainZone:
    """One zone; `parts` by tier in weight units."""

    bucket: int
    created: int
    weight: float
    parts: dict[int, float]
    tape_part: float
    projected_usd: float
    tape_usd: float
    last: int
    sources: set[str]
    count: int = 0
    armed: bool = False

    def scale(self, factor: float) -> None:
        self.weight, self.tape_part = self.weight * factor, self.tape_part * factor
        self.projected_usd, self.tape_usd = self.projected_usd * factor, self.tape_usd * factor
        self.parts = {tier: part * factor for tier, part in self.parts.items()}


@dataclass
class PlainItem:
    """What a minute adds to a bucket."""

    c: float
    bucket: int
    parts: dict[int, float]
    projected_usd: float
    tape_usd: float
    source: str


@dataclass
class PlainZones:
    """Both sides, long first; buckets of prices that are whole multiples of `step`."""

    step: float
    enabled: Sequence[int]
    sides: tuple[list[PlainZone], list[PlainZone]] = field(default_factory=lambda: ([], []))
    unit: float = 0.0
    counters: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("created", "reinforced", "swept", "expired", "merged", "evicted"), 0)
    )

    def age(self, minutes: int, minute: int, src: float, high: float, low: float) -> None:
        for row, side in enumerate(self.sides):
            for zone in list(side):
                zone.scale(0.995**minutes)
                price = zone.bucket * self.step
                far = abs(price - src) / src >= 0.02
                if zone.weight < 0.05 or (minute - zone.last > 240 and far):
                    gone = "expired"
                elif zone.armed and (low <= price if row == 0 else high >= price):
                    gone = "swept"
                else:
                    continue
                side.remove(zone)
                self.counters[gone] += 1

    def shrink(self, fraction: float) -> None:
        for side in self.sides:
            for zone in side:
                zone.scale(1.0 - fraction)

    def contribute(
        self, minute: int, opened_usd: float, projected: Sequence[Mapping[int, Usd]], tape: Sequence[Usd], tape_p99: float
    ) -> None:
        if opened_usd > 0.0:
            mean = opened_usd / (2 * len(self.enabled))
            self.unit = mean if self.unit == 0.0 else 0.99 * self.unit + 0.01 * mean
        for row in range(2):
            for item in [*self._projected(projected[row]), *_taped(tape[row], tape_p99)]:
                self._add(self.sides[row], item, minute)

    def arm(self, close: float) -> None:
        for side in self.sides:
            for zone in side:
                zone.armed = zone.armed or abs(close - zone.bucket * self.step) >= self.step * (1 - 1e-9)

    def _projected(self, buckets: Mapping[int, Usd]) -> list[PlainItem]:
        if self.unit <= 0.0:
            return []
        items = []
        for bucket, usd in buckets.items():
            parts = {tier: FACTORS[tier] * usd.get(tier, 0.0) / self.unit for tier in self.enabled}
            items.append(PlainItem(sum(parts.values()), bucket, parts, sum(usd.values()), 0.0, "inference"))
        return sorted(items, key=lambda item: (-item.c, item.bucket))

    def _add(self, side: list[PlainZone], item: PlainItem, minute: int) -> None:
        price = item.bucket * self.step
        reach = max(0.0005 * price, self.step) * (1 + 1e-9)
        near = [zone for zone in side if abs(zone.bucket * self.step - price) <= reach]
        if item.c <= 0.0 or (not near and item.c < 0.05):
            return
        if near:
            zone = min(near, key=lambda one: (abs(one.bucket - item.bucket), -one.weight, one.bucket))
            weight = min(5.0, zone.weight + 0.3 * item.c * (1.0 - zone.weight / 5.0))
            zone.count, zone.last = zone.count + 1, minute
            self.counters["reinforced"] += 1
        else:
            zone = PlainZone(item.bucket, minute, 0.0, {}, 0.0, 0.0, 0.0, minute, set())
            weight = min(5.0, item.c)
            side.append(zone)
            self.counters["created"] += 1
        share = (weight - zone.weight) / item.c
        for tier, part in item.parts.items():
            zone.parts[tier] = zone.parts.get(tier, 0.0) + part * share
        zone.tape_part += item.c * share if item.source == "tape" else 0.0
        zone.weight = weight
        zone.projected_usd, zone.tape_usd = zone.projected_usd + item.projected_usd, zone.tape_usd + item.tape_usd
        zone.sources.add(item.source)


def _taped(usd: Usd, tape_p99: float) -> list[PlainItem]:
    if tape_p99 <= 0.0:
        return []
    items = [PlainItem(0.35 * min(1.0, value / tape_p99), bucket, {}, 0.0, value, "tape") for bucket, value in usd.items()]
    return sorted(items, key=lambda item: (-item.c, item.bucket))
