"""Zones against plain ones that were written from the specification alone, on random markets (`spec: engine`, section 14)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.config import load
from mpengine.engine.leverage import TierLadder, make_ladder
from mpengine.engine.zones import MINUTE_NS, Zones
from tests.engine.plain_zones import PlainZones
from tests.engine.zone_rows import rows_of

SETTINGS = load("", {})
STEPS = {"BTC": 20.0, "ETH": 1.0, "SOL": 0.1}
# Prices where the reach is a step, between one and two steps, and many.
MARKETS = [("BTC", 30_000.0), ("BTC", 39_900.0), ("BTC", 100_000.0), ("ETH", 1_999.0), ("SOL", 200.1), ("ETH", 20_000.0)]


class Market:
    """A price that wanders, mass that comes in around it, told to both in the same words."""

    def __init__(self, seed: int, symbol: str, src: float) -> None:
        self.rng, self.step, self.src, self.minute = np.random.default_rng(seed), STEPS[symbol], src, 1000
        self.ladder = make_ladder(SETTINGS.symbols[symbol].leverage_ladder, [10, 75] if seed % 2 else [10])
        self.zones = Zones(self.step, self.ladder)
        tiers = [tier for tier, on in zip(self.ladder.tiers, self.ladder.enabled) if on]
        self.plain = PlainZones(self.step, tiers)

    def go_on(self) -> None:
        rng = self.rng
        minutes = 250 if rng.random() < 0.03 else int(rng.integers(1, 4))
        self.minute += minutes
        self.src *= 1.0 + rng.normal() * 0.003
        high, low = (self.src * (1.0 + sign * abs(rng.normal()) * 0.002) for sign in (1.0, -1.0))
        self.zones.age(minutes=minutes, minute=self.minute, src=self.src, high=high, low=low)
        self.plain.age(minutes, self.minute, self.src, high, low)
        if rng.random() < 0.2:
            fraction = float(rng.random() * 0.25)
            self.zones.shrink(fraction)
            self.plain.shrink(fraction)
        self._add()
        close = low + (high - low) * rng.random()
        self.zones.arm(close)
        self.plain.arm(close)

    def _add(self) -> None:
        rng = self.rng
        opened = float(rng.exponential(5e6)) if rng.random() < 0.6 else 0.0
        sides = [self._buckets(row, 12) if opened else np.zeros(0, np.int64) for row in range(2)]
        tapes = [self._buckets(row, 4) for row in range(2)]
        usd = [rng.exponential(3e5, (len(keys), len(self.ladder.tiers))) * (rng.random((len(keys), 1)) < 0.8) for keys in sides]
        usd = [rows * (rng.random(rows.shape) < 0.25) for rows in usd]
        fresh = [rng.exponential(5e3, len(keys)) for keys in tapes]
        tape_p99 = float(rng.choice([0.0, 1e3, 1e4]))
        projected, tape = tuple(zip(sides, usd)), tuple(zip(tapes, fresh))
        self.zones.contribute(
            minute=self.minute, opened_usd=opened, projected=projected, tape=tape, tape_p99=tape_p99, tape_weight=0.35
        )
        plain = [{int(key): dict(zip(self.ladder.tiers, row.tolist())) for key, row in zip(keys, rows)} for keys, rows in projected]
        taped = [dict(zip(keys.tolist(), values.tolist())) for keys, values in tape]
        self.plain.contribute(self.minute, opened, plain, taped, tape_p99)

    def _buckets(self, row: int, count: int) -> Any:
        """Some near the price, some far, in any order, each once."""
        middle, width = round(self.src / self.step), max(4, int(0.05 * self.src / self.step))
        away = np.rint(width * self.rng.random(count) ** 2).astype(np.int64)
        keys = np.unique(middle + (away if row else -away))
        return self.rng.permutation(keys)


def found_rows(zones: Zones, ladder: TierLadder) -> list[tuple[Any, ...]]:
    return [
        (
            zone.id, zone.source, zone.created_ns, zone.last_reinforced_ns, zone.reinforcement_count, zone.armed,
            zone.weight, zone.projected_usd, zone.tape_usd, zone.tape_contribution,
            *(zone.tier_contributions.get(name, 0.0) for name in ladder.names),
        )
        for zone in rows_of(zones)
    ]  # fmt: skip


def rows_of_plain(plain: PlainZones, ladder: TierLadder) -> list[tuple[Any, ...]]:
    return [
        (
            f"{'LS'[row]}-{zone.bucket}-{zone.created}", "combined" if len(zone.sources) == 2 else next(iter(zone.sources)),
            (zone.created + 1) * MINUTE_NS, (zone.last + 1) * MINUTE_NS, zone.count, zone.armed,
            zone.weight, zone.projected_usd, zone.tape_usd, zone.tape_part, *(zone.parts.get(tier, 0.0) for tier in ladder.tiers),
        )
        for row, side in enumerate(plain.sides)
        for zone in sorted(side, key=lambda one: one.bucket)
    ]  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(MARKETS))
def test_zones_are_those_of_the_specification(seed: int, market: tuple[str, float]) -> None:
    one = Market(seed, *market)
    for _ in range(30):
        one.go_on()
        found, wanted = found_rows(one.zones, one.ladder), rows_of_plain(one.plain, one.ladder)
        assert [row[:6] for row in found] == [row[:6] for row in wanted]
        if found:
            assert np.array([row[6:] for row in found]) == pytest.approx(np.array([row[6:] for row in wanted]), rel=1e-9, abs=1e-9)
        assert one.zones.counters == one.plain.counters
        assert one.zones.unit_usd == pytest.approx(one.plain.unit)


def test_the_markets_do_what_they_are_there_for() -> None:
    told = dict[str, int]()
    for seed in range(12):
        one = Market(seed, *MARKETS[seed % len(MARKETS)])
        for _ in range(60):
            one.go_on()
        for name, count in one.zones.counters.items():
            told[name] = told.get(name, 0) + count
    assert min(told[name] for name in ("created", "reinforced", "swept", "expired")) > 50
