"""Pools (`spec: engine`, section 11)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.engine.pools import Pool, find_pools
from mpengine.heatmap import Grid, Mix, Plane, combine, map_grid

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


def test_a_side_ends_at_the_price_and_small_pools_are_dropped() -> None:
    projected = plane(0, {100_020.0: 5e5, 100_000.0: 5e5, 99_000.0: 99.0, 98_000.0: 999.0})
    projected += plane(1, {99_980.0: 5e5, 100_000.0: 5e5})
    long, short = pools(np.zeros((2, GRID.count)), projected)
    assert [pool.price for pool in long] == [pool.price for pool in short] == [100_000.0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_no_pool_is_wider_than_twice_the_radius_and_none_shares_a_bucket(seed: int) -> None:
    """Regression story 24."""
    rng = np.random.default_rng(seed)
    projected = rng.exponential(1e5, (2, GRID.count)) * (rng.random((2, GRID.count)) < 0.5)
    tape = rng.exponential(1e3, (2, GRID.count)) * (rng.random((2, GRID.count)) < 0.1)
    radius = round(0.005 * SRC / GRID.step)
    for side in pools(tape, projected):
        spans = sorted((pool.price_low, pool.price_high) for pool in side)
        assert all(round((high - low) / GRID.step) <= 2 * radius for low, high in spans)
        assert all(0.0 <= pool.intensity <= 1.0 and pool.strength > 0.0 for pool in side)
        for pool in side:
            assert pool.notional_usd == pytest.approx(pool.tape_usd + pool.projected_usd)
            assert sum(pool.tier_usd) == pytest.approx(pool.projected_usd)
