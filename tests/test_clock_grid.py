"""The recorded clock: the same ticks whatever the steps of time are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.clock_grid import ClockGrid


def test_first_call_gives_the_boundary_at_or_before_the_time() -> None:
    assert list(ClockGrid(250).until(1_001)) == [1_000]
    assert list(ClockGrid(250).until(1_000)) == [1_000]


def test_each_boundary_comes_once_and_before_the_event() -> None:
    grid = ClockGrid(250)
    grid.until(1_000)
    assert list(grid.until(1_249)) == []
    assert list(grid.until(1_250)) == [1_250]
    assert list(grid.until(1_250)) == []
    assert list(grid.until(2_000)) == [1_500, 1_750, 2_000]


def test_time_that_goes_back_gives_nothing() -> None:
    grid = ClockGrid(250)
    grid.until(10_000)
    assert list(grid.until(1)) == []
    assert list(grid.until(10_250)) == [10_250]


def test_a_long_jump_gives_only_the_newest_boundaries_and_counts_the_rest() -> None:
    grid = ClockGrid(10, limit=3)
    grid.until(0)
    assert list(grid.until(100)) == [80, 90, 100]
    assert grid.skipped == 7
    assert list(grid.until(110)) == [110]


@pytest.mark.parametrize(("interval", "limit"), [(0, 1), (-1, 1), (1, 0)])
def test_sizes_below_one_are_refused(interval: int, limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ClockGrid(interval, limit)


@given(st.lists(st.integers(0, 5_000), min_size=1), st.integers(1, 400))
def test_ticks_depend_on_the_newest_time_only(times: list[int], interval: int) -> None:
    """Extra calls in between (the clock messages of a served capture) change nothing."""
    grid, direct = ClockGrid(interval, limit=10_000), ClockGrid(interval, limit=10_000)
    stepwise = [tick for now in times for tick in grid.until(now)]
    first = list(direct.until(times[0]))
    assert stepwise == first + list(direct.until(max(times)))
    assert stepwise == sorted(set(stepwise))
