"""Scalars in blocks are the generator's numbers, and mixes keep their weights."""

from __future__ import annotations

import numpy as np
import pytest

from mpengine.simulator.draws import Draws, Mix


def test_equal_generators_give_equal_sequences() -> None:
    one, two = Draws(np.random.default_rng(5)), Draws(np.random.default_rng(5))
    assert [one.uniform() for _ in range(2000)] == [two.uniform() for _ in range(2000)]
    assert [one.normal() for _ in range(10)] == [two.normal() for _ in range(10)]


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 29.0, 200.0])
def test_poisson_has_its_mean_and_variance(mean: float) -> None:
    draws = Draws(np.random.default_rng(7))
    numbers = np.array([draws.poisson(mean) for _ in range(4000)])
    assert numbers.min() >= 0
    assert abs(numbers.mean() - mean) < 5 * np.sqrt(mean / 4000) + 1e-9
    assert numbers.var() == pytest.approx(mean, rel=0.15, abs=1e-9)


def test_mix_picks_by_weight_and_never_a_weight_of_zero() -> None:
    mix, draws = Mix({5: 1.0, 10: 0.0, 20: 3.0}), Draws(np.random.default_rng(1))
    picked = [mix.pick(draws.uniform()) for _ in range(20_000)]
    assert picked.count(10) == 0
    assert picked.count(20) / len(picked) == pytest.approx(0.75, abs=0.02)
    assert mix.pick(0.0) == 5
    assert mix.pick(np.nextafter(1.0, 0.0)) == 20


def test_next_below_walks_down_the_ladder() -> None:
    mix = Mix({5: 1.0, 20: 1.0, 125: 1.0})
    assert [mix.next_below(v) for v in (125, 100, 20, 5)] == [20, 20, 5, None]


@pytest.mark.parametrize("weights", [{}, {5: 0.0}, {5: -1.0, 10: 2.0}, {5: float("nan")}, {5: float("inf")}])
def test_mix_refuses_weights_that_are_none(weights: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        Mix(weights)
