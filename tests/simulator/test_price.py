"""The fair price: repeatable, switching, bounded under forced orders, obedient to the operator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mpengine.simulator.draws import Draws
from mpengine.simulator.price import DRIVE_STEP, IMPACT_ALLOWANCE, IMPACT_STEP, SHAPES, PricePath, Regime


def path(seed: int = 1) -> PricePath:
    return PricePath(100.0, Draws(np.random.default_rng(seed)))


def test_equal_seeds_give_equal_paths() -> None:
    one, two = path(3), path(3)
    assert [one.advance(0.1, 0.5) for _ in range(500)] == [two.advance(0.1, 0.5) for _ in range(500)]


def test_all_regimes_come_and_their_volatility_differs() -> None:
    one = path()
    moves: dict[Regime, list[float]] = {regime: [] for regime in Regime}
    for _ in range(60_000):
        before = one.value
        after = one.advance(0.5, 0.0)
        moves[one.regime].append(math.log(after / before))
    spread = {regime: np.percentile(np.abs(values), 68) for regime, values in moves.items()}
    assert spread[Regime.CALM] * 1.5 < spread[Regime.NORMAL] < spread[Regime.VIOLENT] / 1.5
    assert all(len(values) > 1000 for values in moves.values())


def test_there_are_jumps_beyond_what_diffusion_gives() -> None:
    one = path(2)
    worst = 0.0
    for _ in range(40_000):
        before = one.value
        move = abs(math.log(one.advance(0.1, 0.0) / before))
        worst = max(worst, move / SHAPES[one.regime].sigma / math.sqrt(0.1))
    assert worst > 8


def test_a_long_run_stays_near_the_first_price() -> None:
    one = path(4)
    prices = [one.advance(60.0, 0.0) for _ in range(30 * 24 * 60)]
    assert 50 < min(prices) < max(prices) < 200


def test_impact_is_bounded_per_step_and_over_time() -> None:
    one = path()
    one.push(-0.5)
    assert math.log(one.value / 100.0) == pytest.approx(-IMPACT_STEP)
    for _ in range(1000):
        one.push(-0.5)
    assert math.log(one.value / 100.0) == pytest.approx(-IMPACT_ALLOWANCE)
    before = one.value
    one.push(-0.5)
    assert one.value == before


@pytest.mark.parametrize("target", [93.0, 108.0])
def test_a_driven_price_goes_there_stays_there_and_is_released(target: float) -> None:
    one = path()
    one.drive(target)
    previous = one.value
    for _ in range(200):
        moved = one.advance(0.1, 3.0)
        assert abs(math.log(moved / previous)) <= DRIVE_STEP * 1.000001
        previous = moved
    assert one.value == pytest.approx(target)
    one.drive(None)
    one.advance(0.1, 3.0)
    assert one.value != pytest.approx(target, rel=1e-9)
    assert one.driven_to is None


def test_a_price_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        PricePath(0.0, Draws(np.random.default_rng(1)))
