"""Pools and the zone tracker (`spec: engine`, sections 10, 11, 15)."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.engine.pools import Pool, find_pools
from mpengine.engine.tracker import ZoneTracker
from mpengine.heatmap import Grid, Mix, Plane, combine, combine_scaled, map_grid, source_scale
from shm.records import PositionSide

MIX = Mix(0.35, 0.65)
LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
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


# the combined map ------------------------------------------------------------------------------------------------------


def test_source_scale() -> None:
    """Regression story 21."""
    assert source_scale(np.arange(1, 101) * 1000.0) == pytest.approx(99_010.0)
    assert source_scale(np.array([7.0])) == 7.0
    assert source_scale(np.concatenate((np.arange(1.0, 20.0), np.zeros(30)))) == 19.0
    assert source_scale(np.arange(1.0, 21.0)) == pytest.approx(np.percentile(np.arange(1.0, 21.0), 99))
    assert source_scale(np.zeros(50)) == source_scale(np.zeros(0)) == 0.0
    assert source_scale(np.array([1.0, np.nan])) == source_scale(np.array([1.0, np.inf])) == 0.0


@pytest.mark.covers("A2-C1")
def test_the_vector_of_the_combined_map_and_that_nothing_of_it_is_shared() -> None:
    tape, projected = np.array([[2000.0, 500.0, 0.0, 0.0], [0.0] * 4]), np.array([[1e6, 0.0, 4e6, 200e3], [0.0] * 4])
    made = combine(tape, projected, MIX)
    tape[:], projected[:] = -1.0, -1.0
    assert made.raw.values[0] == pytest.approx([0.5125, 0.0875, 0.65, 0.0325])
    assert made.display.values[0] == pytest.approx([0.76875, 0.0875, 0.65, 0.0325])
    assert (made.tape_p99, made.projection_p99) == (2000.0, 4e6)


def test_the_tape_is_seen_beside_a_projection_a_thousand_times_larger() -> None:
    """Regression story 11."""
    made = combine(plane(0, {99_000.0: 2000.0}), plane(0, {98_000.0: 2e6}), MIX)
    assert made.raw.values[0, GRID.bucket(99_000.0) - GRID.origin] == pytest.approx(0.35)


@pytest.mark.covers("A1-M1")
def test_weights_have_no_default() -> None:
    with pytest.raises(TypeError):
        combine(np.zeros((2, 1)), np.zeros((2, 1)))  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Mix()  # type: ignore[call-arg]


def test_a_source_without_a_scale_counts_as_nothing() -> None:
    made = combine_scaled(np.ones((2, 3)), np.ones((2, 3)), 0.0, 2.0, MIX)
    assert made.raw.values == pytest.approx(np.full((2, 3), 0.325))


@pytest.mark.parametrize(("src", "step", "count", "low", "high"), [
    (65_892.725, 20.0, 660, 59_300.0, 72_480.0), (126_000.0, 20.0, 1261, None, None), (250_000.0, 20.0, 2000, 230_020.0, 270_000.0),
    (1931.2, 1.0, 387, None, None), (82.5, 0.1, 167, 74.2, 90.8)])  # fmt: skip
def test_grids_of_frames(src: float, step: float, count: int, low: float | None, high: float | None) -> None:
    grid = map_grid(src, step)
    assert (grid.count, grid.shrunk) == (count, src == 250_000.0)
    if low is not None:
        assert (grid.prices[0], grid.prices[-1]) == (low, high)


# the tracker -----------------------------------------------------------------------------------------------------------


def pool(price: float, intensity: float) -> Pool:
    return Pool(LONG, price, price, price, 0.0, 1e4, 1e4, 1, 1.0, intensity, "inference", (), 1.0)


def strengths(one: ZoneTracker) -> list[float]:
    return [zone["strength"] for zone in one.shown(LONG)]


def feed(one: ZoneTracker, minute: int, *pairs: tuple[float, float], src: float = SRC) -> None:
    one.on_minute((tuple(pool(*pair) for pair in pairs), ()), src, minute)


FIVE = ((90_000.0, 0.5), (91_000.0, 0.4), (92_000.0, 0.3), (93_000.0, 0.2), (94_000.0, 0.1))


def test_a_newcomer_must_be_clearly_stronger() -> None:
    one = ZoneTracker()
    feed(one, 0, *FIVE)
    assert strengths(one) == [0.5, 0.4, 0.3, 0.2, 0.1]
    feed(one, 1, *FIVE, (96_000.0, 0.16))
    assert strengths(one) == [0.5, 0.4, 0.3, 0.2, 0.1]
    feed(one, 2, *FIVE, (96_000.0, 0.17))
    assert strengths(one) == [0.5, 0.4, 0.3, 0.2, 0.1]
    feed(one, 3, *FIVE, (96_000.0, 0.18))
    assert strengths(one) == [0.5, 0.4, 0.3, 0.2, 0.18]
    assert [zone["age_min"] for zone in one.shown(LONG)] == [3, 3, 3, 3, 0]
    assert one.shown(SHORT) == []


def test_a_zone_follows_its_pool_and_fades_without() -> None:
    one = ZoneTracker()
    feed(one, 0, (95_000.0, 0.5))
    feed(one, 1, (95_200.0, 0.6), (95_240.0, 0.4))  # both near; the stronger takes it
    assert one.shown(LONG)[0] == {"price": 95_200.0, "strength": 0.6, "age_min": 1}
    feed(one, 2)
    assert strengths(one) == [pytest.approx(0.6 * 0.95), pytest.approx(0.4 * 0.95)]
    feed(one, 3, (95_600.0, 0.5))  # 400 away from 95,200, 360 from 95,240, but only 250 match
    assert len(one.shown(LONG)) == 3


def test_zones_leave_when_weak_or_old_and_faded() -> None:
    one = ZoneTracker()
    feed(one, 0, (95_000.0, 0.5), (90_000.0, 0.02))
    for minute in range(1, 10):
        feed(one, minute, (95_000.0, 0.14))
    assert strengths(one)[0] == 0.14  # below 0.30 of its peak, but not ten minutes old
    feed(one, 10, (95_000.0, 0.14))
    assert 95_000.0 not in [zone["price"] for zone in one.shown(LONG)]
    for minute in range(11, 40):
        feed(one, minute)
    assert strengths(one) == []  # 0.02 x 0.95^n is below 0.01


def test_an_old_zone_gives_way_to_a_stronger_candidate() -> None:
    one = ZoneTracker()
    feed(one, 0, (95_000.0, 0.30))
    for minute in range(1, 11):
        feed(one, minute, (95_000.0, 0.30), (90_000.0, 0.001))
    feed(one, 11, (95_000.0, 0.30), (91_000.0, 0.35))
    assert strengths(one) == [0.35, 0.30]  # not stronger by more than 0.05
    again = ZoneTracker()
    feed(again, 0, (95_000.0, 0.30))
    feed(again, 12, (95_000.0, 0.30), (91_000.0, 0.36))
    assert strengths(again) == [0.36]


def test_a_restored_tracker_is_one_that_never_stopped() -> None:
    one = ZoneTracker()
    feed(one, 0, *FIVE)
    feed(one, 1, *FIVE[:3])
    again = ZoneTracker()
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.state_of())))
    for each in (one, again):
        feed(each, 12, (96_000.0, 0.6), FIVE[1])
    assert again.state_of() == one.state_of()
