"""Pools (`spec: engine`, section 11)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.engine.pools import Pool, find_pools
from mpengine.heatmap import Grid, Mix, Plane, combine, map_grid, source_scale

MIX = Mix(0.35, 0.65)
SRC = 100_000.0
GRID = map_grid(SRC, 20.0)


def plane(side: int, usd: dict[float, float], grid: Grid = GRID) -> Plane:
    out = np.zeros((2, grid.count))
    for price, value in usd.items():
        out[side, grid.bucket(price) - grid.origin] = value
    return out


def pools(tape: Plane, projected: Plane, grid: Grid = GRID, src: float = SRC) -> tuple[tuple[Pool, ...], tuple[Pool, ...]]:
    by_tier = np.stack((projected * 0.25, projected * 0.75), axis=2)
    return find_pools(grid, src, tape, projected, by_tier, combine(tape, projected, MIX))


def test_the_vector_of_pools() -> None:
    tape = plane(0, {98_400: 4000.0, 99_000: 9000.0})
    projected = plane(0, {97_900: 800e3, 98_400: 1e6, 98_500: 400e3, 98_940: 200e3, 96_000: 700.0})
    long, short = pools(tape, projected)
    assert short == ()
    first, second = long
    assert (first.notional_usd, first.price, first.bucket_count) == (pytest.approx(2_204_000.0), 98_236.66, 3)
    assert (first.price_low, first.price_high, first.source) == (97_900.0, 98_500.0, "combined")
    assert (first.strength, first.intensity) == (pytest.approx(1.585556, abs=5e-7), 1.0)
    assert (second.notional_usd, second.price) == (pytest.approx(209_000.0), 98_942.58)
    assert (second.strength, second.intensity) == (pytest.approx(0.48), 0.8253)
    assert first.tape_usd == 4000.0 and first.projected_usd == pytest.approx(2_200_000.0)
    assert sum(first.tier_usd) == pytest.approx(first.projected_usd)
    assert first.size_base == pytest.approx(800e3 / 97_900 + 1_004_000 / 98_400 + 400e3 / 98_500)


@pytest.mark.covers("A1-M6")
def test_a_strong_tape_pool_is_among_twenty_five_of_inference() -> None:
    """Regression story 11 for pools: with its real USD."""
    grid, src = Grid(0, 2000, 1.0), 1990.0
    projected = plane(0, {100.0 + 60 * index: 1e6 * 0.9**index for index in range(25)}, grid)
    long, _ = pools(plane(0, {1900.0: 50_000.0}, grid), projected, grid, src)
    assert len(long) == 20
    (found,) = [pool for pool in long if pool.source == "tape"]
    assert found.notional_usd == found.tape_usd == 50_000.0
    assert found is long[-1]  # listed by USD, kept by strength


def test_only_twenty_of_the_strongest_and_by_usd() -> None:
    narrow = Grid(0, 2000, 1.0)
    many = np.zeros((2, 2000))
    many[0, 100:1000:12] = np.arange(75) * 100.0 + 5000.0
    kept, _ = pools(np.zeros((2, 2000)), many, narrow, 1000.0)
    assert len(kept) == 20
    assert [pool.notional_usd for pool in kept] == [5000.0 + index * 100 for index in range(74, 54, -1)]


def test_a_side_ends_at_the_price_and_what_is_too_small_is_dropped() -> None:
    """A bucket of just 100 USD counts, a pool of just 1,000 is one."""
    projected = plane(0, {100_020.0: 5e5, 100_000.0: 5e5, 99_000.0: 900.0, 99_020.0: 100.0, 97_000.0: 999.0, 97_020.0: 99.0})
    projected += plane(1, {99_980.0: 5e5, 100_000.0: 5e5})
    long, short = pools(np.zeros((2, GRID.count)), projected)
    assert [(one.notional_usd, one.bucket_count) for one in long] == [(5e5, 1), (1000.0, 2)]
    assert [one.price for one in short] == [long[0].price] == [100_000.0]


def plain_pools(grid: Grid, src: float, tape: Plane, projected: Plane) -> list[list[tuple[Any, ...]]]:
    """Section 11 in plain words: (price, low, high, tape, projected, buckets, strength, source, both speak) per side."""
    scales = [source_scale(tape), source_scale(projected)]
    radius, sides = max(1, round(0.005 * src / grid.step)), list[list[tuple[Any, ...]]]()
    for row in range(2):
        left, found = dict[int, tuple[float, float, float, float, float]](), list[tuple[Any, ...]]()
        for at, price in enumerate(grid.prices.tolist()):
            usd = float(tape[row, at]), float(projected[row, at])
            shares = [min(1.0, value / scale) if scale > 0.0 else 0.0 for value, scale in zip(usd, scales)]
            if sum(usd) >= 100.0 and (price <= src if row == 0 else price >= src):
                left[at] = (price, *usd, *shares)
        while left:
            raw = {at: 0.35 * one[3] + 0.65 * one[4] for at, one in left.items()}
            peak = min(left, key=lambda at: (-raw[at], abs(left[at][0] - src), at))
            taken = {at: left.pop(at) for at in sorted(left) if abs(at - peak) <= radius}
            of_tape, of_projection = sum(one[1] for one in taken.values()), sum(one[2] for one in taken.values())
            if of_tape + of_projection < 1000.0:
                continue
            prices = [one[0] for one in taken.values()]
            found.append(
                (
                    sum(one[0] * (one[1] + one[2]) for one in taken.values()) / (of_tape + of_projection), prices[0], prices[-1],
                    of_tape, of_projection, len(taken), sum(raw[at] for at in taken),
                    "combined" if of_tape and of_projection else "tape" if of_tape else "inference",
                    any(one[3] > 1e-4 for one in taken.values()) and any(one[4] > 1e-4 for one in taken.values()),
                )
            )  # fmt: skip
        sides.append(sorted(found, key=lambda one: -one[6])[:20])
    return sides


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([(1000.0, 1.0), (1000.3, 1.0), (1000.0, 20.0), (75.2, 0.1), (2000.4, 1.0), (SRC, 20.0)]),
)
def test_pools_are_those_of_the_specification(seed: int, market: tuple[float, float]) -> None:
    """Whole hundreds of USD, so that there are ties, buckets of just 100 and pools of just 1,000. Regression story 24: no pool is
    wider than twice the radius, none shares a bucket with another."""
    (src, step), rng = market, np.random.default_rng(seed)
    grid, dense = map_grid(src, step), rng.random() ** 2
    tape, projected = (
        rng.integers(0, high, (2, grid.count)) * 100.0 * (rng.random((2, grid.count)) < share)
        for high, share in ((4, 0.3 * dense), (int(rng.integers(2, 12)), dense))
    )
    found, wanted = pools(tape, projected, grid, src), plain_pools(grid, src, tape, projected)
    largest, radius = max((one[6] for side in wanted for one in side), default=0.0), max(1, round(0.005 * src / step))
    for side, plain in zip(found, wanted):
        assert [pool.notional_usd for pool in side] == sorted((pool.notional_usd for pool in side), reverse=True)
        assert sorted((one.price_low, one.price_high, one.bucket_count, one.source) for one in side) == sorted(
            (one[1], one[2], one[5], one[7]) for one in plain
        )
        spans = sorted((round(pool.price_low / step), round(pool.price_high / step)) for pool in side)
        assert all(high - low <= 2 * radius for low, high in spans)
        assert all(below[1] < above[0] for below, above in pairwise(spans))
        by_place = {(one[1], one[2], one[6] > 0.0): one for one in plain}
        for pool in side:
            one = by_place[pool.price_low, pool.price_high, pool.strength > 0.0]
            assert (pool.price, pool.tape_usd, pool.projected_usd) == (pytest.approx(one[0], abs=0.006), one[3], one[4])
            assert pool.notional_usd == pool.tape_usd + pool.projected_usd == pytest.approx(pool.tape_usd + sum(pool.tier_usd))
            assert pool.strength == pytest.approx(one[6]) and 0.0 <= pool.intensity <= 1.0
            share = (one[6] / largest) ** 0.5 * (1.5 if one[8] else 1.0)
            assert pool.intensity == pytest.approx(min(1.0, share), abs=6e-5)


def test_a_stronger_short_side_dims_the_long_one() -> None:
    """Intensities of both sides are on one scale."""
    long, short = pools(np.zeros((2, GRID.count)), plane(0, {99_000.0: 25e3}) + plane(1, {101_000.0: 1e5}))
    assert (long[0].intensity, short[0].intensity) == (0.5, 1.0)


def test_of_equal_peaks_the_nearer_one_is_the_middle_of_its_pool() -> None:
    """98,400 and 98,800 are within reach of one another; around the nearer one the pool reaches down to 98,300."""
    long, _ = pools(np.zeros((2, GRID.count)), plane(0, {98_400.0: 1e5, 98_800.0: 1e5, 98_280.0: 5e4, 99_300.0: 5e4}))
    assert [(one.price_low, one.price_high) for one in long] == [(98_400.0, 99_300.0), (98_280.0, 98_280.0)]


def test_a_coin_of_a_thousandth_of_a_cent_has_prices_too() -> None:
    """Two decimals would make every pool one at 0.0, where the tracker takes them for one another."""
    grid = map_grid(1.23e-05, 1e-08)
    long, _ = pools(np.zeros((2, grid.count)), plane(0, {1.2e-05: 3e4, 1.201e-05: 1e4, 1.15e-05: 2e4}, grid), grid, 1.23e-05)
    assert [pool.price for pool in long] == [1.2e-05, 1.15e-05]
    assert all(pool.price_low <= pool.price <= pool.price_high for pool in long)
