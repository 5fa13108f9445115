"""The one price grid: vectors of the specification and round trips."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shm import grid

STEPS = (20.0, 1.0, 0.1, 0.01, 0.05, 0.0001, 2.5)


def test_vectors_of_the_specification() -> None:
    assert [grid.bucket_of(price, 20.0) for price in (65_892.725, 65_910.0, 65_930.0)] == [3295, 3296, 3296]
    assert grid.bucket_of(75.2, 0.1) == 752
    assert grid.price_of(752, 0.1) == 75.2


@pytest.mark.parametrize(
    ("reference", "step", "expected"),
    [
        (65_892.725, 20.0, (2965, 660, False)),
        (126_000.0, 20.0, (5670, 1261, False)),
        (250_000.0, 20.0, (11_501, 2000, True)),
        (1931.2, 1.0, (1738, 387, False)),
        (82.5, 0.1, (742, 167, False)),
    ],
)
def test_frame_grid_vectors(reference: float, step: float, expected: tuple[int, int, bool]) -> None:
    assert grid.frame_grid(reference, step, 0.10) == expected


@pytest.mark.covers("A1-H2")
@pytest.mark.parametrize("step", STEPS)
def test_2000_index_prices_hit_their_keys(step: float) -> None:
    prices = grid.prices_of(10_000, 2000, step)
    assert [grid.bucket_of(price, step) for price in prices] == list(range(10_000, 12_000))
    assert grid.buckets_of(prices, step).tolist() == list(range(10_000, 12_000))


@given(st.sampled_from(STEPS), st.integers(0, 10**8))
def test_vector_and_single_prices_are_the_same_doubles(step: float, origin: int) -> None:
    assert grid.prices_of(origin, 5, step).tolist() == [grid.price_of(origin + i, step) for i in range(5)]


@pytest.mark.covers("S-H2")
def test_half_steps_go_to_the_even_bucket() -> None:
    assert [grid.bucket_of(price, 1.0) for price in (0.5, 1.5, 2.5, 3.5)] == [0, 2, 2, 4]


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf])
def test_a_price_that_is_no_number_is_refused(price: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        grid.bucket_of(price, 1.0)
