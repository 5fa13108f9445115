"""The combined map and its grid (`spec: engine`, sections 5 and 10)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.heatmap import (
    COMBINED_SOURCE_EPS,
    Mix,
    Plane,
    combine,
    combine_scaled,
    map_grid,
    normalised,
    source_scale,
)
from shm.frames import Frame, decode, encode
from shm.grid import frame_grid
from shm.records import Coverage, FrameKind

MIX = Mix(0.35, 0.65)


def cells(side: int, usd: dict[int, float]) -> Plane:
    """A plane of the grid that BTC has at 100,000: buckets 4,500 to 5,500."""
    out = np.zeros((2, 1001))
    for bucket, value in usd.items():
        out[side, bucket - 4500] = value
    return out


def test_source_scale() -> None:
    """Regression story 21: 1, 19, 20 values, zeros, NaN."""
    assert source_scale(np.arange(1, 101) * 1000.0) == pytest.approx(99_010.0)
    assert source_scale(np.array([7.0])) == 7.0
    assert source_scale(np.concatenate((np.arange(1.0, 20.0), np.zeros(30)))) == 19.0
    assert source_scale(np.arange(1.0, 21.0)) == pytest.approx(np.percentile(np.arange(1.0, 21.0), 99))
    assert source_scale(np.zeros(50)) == source_scale(np.zeros(0)) == 0.0
    assert source_scale(np.array([1.0, np.nan])) == source_scale(np.array([1.0, np.inf])) == 0.0


def test_the_vector_of_the_combined_map() -> None:
    tape, projected = np.array([[2000.0, 500.0, 0.0, 0.0], [0.0] * 4]), np.array([[1e6, 0.0, 4e6, 200e3], [0.0] * 4])
    made = combine(tape, projected, MIX)
    assert made.raw.values[0] == pytest.approx([0.5125, 0.0875, 0.65, 0.0325])
    assert made.display.values[0] == pytest.approx([0.76875, 0.0875, 0.65, 0.0325])
    assert (made.tape_p99, made.projection_p99) == (2000.0, 4e6)


def test_the_tape_is_seen_beside_a_projection_a_thousand_times_larger() -> None:
    """Regression story 11."""
    made = combine(cells(0, {4950: 2000.0}), cells(0, {4900: 2e6}), MIX)
    assert made.raw.values[0, 4950 - 4500] == pytest.approx(0.35)


@pytest.mark.covers("A1-M1")
def test_weights_have_no_default() -> None:
    with pytest.raises(TypeError):
        combine(np.zeros((2, 1)), np.zeros((2, 1)))  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Mix()  # type: ignore[call-arg]


@pytest.mark.parametrize(("src", "step", "low", "high"), [
    (65_892.725, 20.0, 59_300.0, 72_480.0), (250_000.0, 20.0, 230_020.0, 270_000.0), (1931.2, 1.0, 1738.0, 2124.0),
    (82.5, 0.1, 74.2, 90.8)])  # fmt: skip
def test_grids_of_frames(src: float, step: float, low: float, high: float) -> None:
    """Ten percent around the candle price; the vectors of its buckets are those of tests/test_grid.py."""
    grid = map_grid(src, step)
    assert (grid.origin, grid.count, grid.shrunk) == frame_grid(src, step, 0.10)
    assert (grid.prices[0], grid.prices[-1], len(grid.prices)) == (low, high, grid.count)


@pytest.mark.covers("A2-C1")
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_the_whole_is_the_sum_of_its_parts_whatever_happens_to_the_planes_in_between(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    tape, projected = (rng.exponential(10.0 ** rng.integers(1, 8), (2, count)) * (rng.random((2, count)) < 0.4) for _ in range(2))
    copies = tape.copy(), projected.copy()
    made = combine(tape, projected, MIX)
    for plane in (tape, projected):
        plane[rng.random((2, count)) < 0.5] = rng.exponential(1e6)
    assert (made.tape_p99, made.projection_p99) == (source_scale(copies[0]), source_scale(copies[1]))
    parts = [normalised(one, scale) for one, scale in zip(copies, (made.tape_p99, made.projection_p99))]
    assert made.raw.values == pytest.approx(0.35 * parts[0] + 0.65 * parts[1], abs=1e-15)
    assert made.raw.values.sum() == pytest.approx(0.35 * parts[0].sum() + 0.65 * parts[1].sum())
    both = (parts[0] > COMBINED_SOURCE_EPS) & (parts[1] > COMBINED_SOURCE_EPS)
    assert made.display.values[both] == pytest.approx(np.minimum(1.0, 1.5 * made.raw.values[both]))
    assert (made.display.values[~both] == made.raw.values[~both]).all()
    assert made.raw.values.min() >= 0.0 and made.display.values.max() <= 1.0


def test_cells_beyond_the_scale_are_full_without_one_empty_and_the_boost_ends_at_one() -> None:
    assert normalised(np.array([0.0, 5.0, 10.0, 80.0]), 10.0).tolist() == [0.0, 0.5, 1.0, 1.0]
    assert normalised(np.array([0.0, 5.0]), 0.0).tolist() == [0.0, 0.0]
    one_source = combine_scaled(np.ones((2, 3)), np.ones((2, 3)), 0.0, 2.0, MIX)
    assert one_source.raw.values == pytest.approx(np.full((2, 3), 0.325))
    made = combine_scaled(np.full((2, 1), 99.0), np.full((2, 1), 99.0), 1.0, 1.0, MIX)
    assert (made.raw.values == 1.0).all() and (made.display.values == 1.0).all()


def test_a_source_that_hardly_speaks_boosts_nothing() -> None:
    """Both have to exceed 1e-4 of their scale."""
    tape = np.array([[1e-4, 2e-4, 1.0, 1.0, 0.0]] * 2)
    projected = np.array([[1.0, 1.0, 1e-4, 2e-4, 1.0]] * 2)
    made = combine_scaled(tape, projected, 1.0, 1.0, MIX)
    assert (made.display.values[0] > made.raw.values[0]).tolist() == [False, True, False, True, False]


def test_a_frame_holds_what_the_map_is_made_of_again() -> None:
    rng = np.random.default_rng(4)
    planes = rng.exponential(1e5, (4, 1001)) * (rng.random((4, 1001)) < 0.3)
    wanted = combine(planes[:2], planes[2:], MIX)
    frame = Frame(
        kind=FrameKind.LIQUIDATION, open_ts_ns=0, close_ts_ns=60, venue_ts_ns=0, reference=100_000.0, origin=4500, step=20.0,
        norm_a=wanted.tape_p99, norm_b=wanted.projection_p99, total_a=0.0, total_b=0.0, coverage=Coverage.NONE, venues=0, samples=0,
        planes=planes,
    )  # fmt: skip
    read = decode(encode(frame))
    made = combine_scaled(read.planes[:2], read.planes[2:], read.norm_a, read.norm_b, MIX)
    assert made.raw.values == pytest.approx(wanted.raw.values, rel=2**-11, abs=1e-9)
    assert source_scale(read.planes[:2]) == pytest.approx(wanted.tape_p99, rel=2**-11)
