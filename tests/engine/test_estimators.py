"""Estimators and monitors of the calibrator (`spec: engine`, sections 13.1, 13.3, 13.7-13.9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from mpengine.brackets import Bracket
from mpengine.engine.estimators import (
    BIAS_CAP,
    MMR_MAX,
    MMR_MIN,
    MMR_WINDOW,
    NEAR_MAPS,
    WINSOR_WINDOW,
    ApproachMonitor,
    BiasMonitor,
    MmrEstimator,
    NearMonitor,
    Volatility,
    Winsor,
)
from mpengine.heatmap import Grid, RawMap
from shm.records import PositionSide, Venue

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
FIRST: Mapping[Venue, Bracket | None] = {Venue.BINANCE: Bracket(300_000.0, 0.004, 150.0, 0.0), Venue.BYBIT: None, Venue.OKX: None}


def carried(state: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state))


# event weights ---------------------------------------------------------------------------------------------------------


def test_weights_are_capped_at_p99_once_there_are_100_notionals() -> None:
    one = Winsor()
    assert [one.on_notional(1e9 if number == 50 else 1000.0 + number) for number in range(99)][50] == 1e9
    kept = sorted([1e9, *(1000.0 + number for number in range(99) if number != 50), 2e9])
    assert one.on_notional(2e9) == pytest.approx(np.percentile(kept, 99.0))
    assert one.on_notional(7.0) == 7.0


def test_the_cap_is_exact_at_every_event_and_only_of_the_last_2000() -> None:
    one, rng = Winsor(), np.random.default_rng(5)
    usd = rng.lognormal(9.0, 2.0, 3 * WINSOR_WINDOW).round(-1).tolist()  # with repetitions
    weights = [one.on_notional(value) for value in usd]
    largest = np.argsort(usd)[-100:].tolist()  # where the cap acts
    for at in (100, 1999, 2000, 2001, 4567, 5999, *(at for at in largest if at >= 99)):
        cap = np.percentile(usd[max(0, at + 1 - WINSOR_WINDOW) : at + 1], 99.0)
        assert weights[at] == pytest.approx(min(usd[at], cap))
    assert sum(weights) < sum(usd)
    again = Winsor()
    again.restore(carried(one.state_of()))
    assert [again.on_notional(value) for value in usd[:50]] == [one.on_notional(value) for value in usd[:50]]
    assert again.state_of() == one.state_of()


# maintenance rates -----------------------------------------------------------------------------------------------------


def feed(one: MmrEstimator, venue: Venue, count: int, beyond: float, side: PositionSide = LONG) -> None:
    price = 100.0 * (1.0 - beyond if side is LONG else 1.0 + beyond)
    for _ in range(count):
        one.on_event(venue, side, price, 1.0, 100.0)


def test_a_sample_of_the_specification_and_30_make_a_median() -> None:
    one = MmrEstimator(FIRST)
    for _ in range(29):
        one.on_event(Venue.BINANCE, LONG, 82_338.30, 0.1, 82_660.0)
    assert (one.on_update(), one.rates) == ([], {})
    one.on_event(Venue.BINANCE, LONG, 82_338.30, 0.1, 82_660.0)
    assert one.rates == {}  # taken over at an update only
    assert one.on_update() == [Venue.BINANCE]
    assert one.rates[Venue.BINANCE] == pytest.approx(0.003892, abs=5e-7)
    assert one.on_update() == []


def test_both_sides_and_venues_apart_and_the_last_500() -> None:
    one = MmrEstimator(FIRST)
    feed(one, Venue.BINANCE, 15, 0.003)
    feed(one, Venue.BINANCE, 16, 0.006, SHORT)
    feed(one, Venue.BYBIT, 30, 0.005, SHORT)
    feed(one, Venue.OKX, 100, 0.005)  # OKX tells the trigger price
    assert one.on_update() == [Venue.BINANCE, Venue.BYBIT]
    assert one.rates == pytest.approx({Venue.BINANCE: 0.006, Venue.BYBIT: 0.005})
    feed(one, Venue.BINANCE, MMR_WINDOW, 0.01)
    one.on_update()
    assert one.rates[Venue.BINANCE] == pytest.approx(0.01)
    assert (one.samples(Venue.BINANCE), one.samples(Venue.OKX)) == (MMR_WINDOW, 0)


def test_wrong_sides_and_impossible_samples_are_counted_and_large_positions_left_out() -> None:
    one = MmrEstimator(FIRST)
    feed(one, Venue.BINANCE, 2, -0.004)
    feed(one, Venue.BINANCE, 3, -0.004, SHORT)
    feed(one, Venue.BINANCE, 4, 0.0)
    feed(one, Venue.BINANCE, 5, 0.0501)
    assert (one.samples(Venue.BINANCE), one.dropped) == (0, 14)
    one.on_event(Venue.BINANCE, LONG, 99.6, 3100.0, 100.0)  # 308,760 USD, above the first cap
    assert (one.samples(Venue.BINANCE), one.dropped) == (0, 14)
    one.on_event(Venue.BINANCE, LONG, 99.6, 3012.0, 100.0)
    one.on_event(Venue.BYBIT, LONG, 99.6, 1e9, 100.0)  # no bracket known, no cap
    assert (one.samples(Venue.BINANCE), one.samples(Venue.BYBIT)) == (1, 1)
    one.on_event(Venue.BINANCE, LONG, 100.0, 3000.0, 100.4)  # just the first cap
    one.on_event(Venue.BINANCE, LONG, 95.0, 1.0, 100.0)  # just 5 % beyond
    assert (one.samples(Venue.BINANCE), one.dropped) == (3, 14)


@pytest.mark.parametrize(("beyond", "rate"), [(0.0001, MMR_MIN), (0.04, MMR_MAX)])
def test_rates_are_clamped(beyond: float, rate: float) -> None:
    one = MmrEstimator(FIRST)
    feed(one, Venue.BYBIT, 30, beyond)
    one.on_update()
    assert one.rates == {Venue.BYBIT: rate}
    again = MmrEstimator(FIRST)
    again.restore(carried(one.state_of()))
    feed(again, Venue.BYBIT, 31, 0.005)
    again.on_update()
    assert again.rates[Venue.BYBIT] == pytest.approx(0.005)


# bias ------------------------------------------------------------------------------------------------------------------


def test_bias_moves_a_tenth_of_the_residual_per_update() -> None:
    one = BiasMonitor()
    for expected in (0.0006, 0.00114, 0.001626):
        for _ in range(10):
            one.on_event(1, 100.6, 100.0)
        one.on_update()
        assert one.values == (0.0, pytest.approx(expected))


def test_bias_needs_10_samples_waits_for_them_and_is_capped() -> None:
    one = BiasMonitor()
    for _ in range(9):
        one.on_event(0, 99.0, 100.0)
    one.on_update()
    assert one.values == (0.0, 0.0)
    again = BiasMonitor()
    again.restore(carried(one.state_of()))
    again.on_event(0, 99.0, 100.0)
    again.on_update()
    assert again.values == (pytest.approx(-0.001), 0.0)
    again.on_update()  # its samples are used up
    assert again.values == (pytest.approx(-0.001), 0.0)
    for _ in range(200):
        for _ in range(10):
            again.on_event(0, 98.0, 100.0)
            again.on_event(1, 102.0, 100.0)
        again.on_update()
    assert again.values == (-BIAS_CAP, BIAS_CAP)


# volatility ------------------------------------------------------------------------------------------------------------


def test_volatility_of_the_specification_and_its_scale() -> None:
    one = Volatility()
    assert (one.value, one.scale) == (0.0015, 1.0)
    one.on_minute(100_000.0, 100_200.0, 99_900.0)
    assert one.value == pytest.approx(0.00165)
    assert one.scale == pytest.approx(1.1)
    for _ in range(100):
        one.on_minute(100.0, 101.0, 99.0)
    assert one.scale == 1.6
    for _ in range(100):
        one.on_minute(100.0, 100.0, 100.0)
    assert one.scale == 0.7


# monitors --------------------------------------------------------------------------------------------------------------


def raw(count: int, *positive: tuple[int, int]) -> RawMap:
    values = np.zeros((2, count))
    for row, place in positive:
        values[row, place] = 0.5
    return RawMap(values)


def test_events_near_the_map_before_their_minute() -> None:
    one, grid = NearMonitor(), Grid(100, 30, 1.0)
    one.on_events(5, 0, np.array([110]))
    assert one.share is None  # no map yet
    one.on_minute(5, grid, raw(30, (0, 10), (1, 0), (0, 29)))
    one.on_events(5, 0, np.array([110]))
    assert one.share is None  # the map of its own minute holds the event itself
    one.on_events(6, 0, np.array([105, 106, 110, 114, 115]))
    assert (one.events, one.near) == (5, 3)
    one.on_events(6, 1, np.array([95, 96, 104, 105, 110]))  # beyond the edge of the grid
    assert (one.events, one.near) == (10, 5)
    one.on_events(6, 0, np.array([133, 134, 10_000, -5]))
    assert (one.events, one.near) == (14, 6)
    one.on_minute(6, grid, raw(30))
    one.on_events(6, 0, np.array([110]))  # late: still judged by minute 5
    one.on_events(7, 0, np.array([110]))
    assert (one.events, one.near, one.share) == (16, 7, 7 / 16)


def test_maps_are_bounded_carried_and_dropped_when_minutes_come_again() -> None:
    one, rng = NearMonitor(), np.random.default_rng(2)
    for minute in range(100):
        one.on_minute(minute, Grid(50 + minute, 37, 1.0), RawMap(np.maximum(rng.normal(-2.0, 1.0, (2, 37)), 0.0)))
    one.on_events(99 - NEAR_MAPS + 1, 0, np.arange(60, 160))
    assert one.events == 0
    again = NearMonitor()
    again.restore(carried(one.state_of()))
    for each in (one, again):
        each.on_events(60, 0, np.arange(90, 190))
        each.on_events(99, 1, np.arange(90, 190))
    assert 0 < one.near < one.events == 200
    assert again.state_of() == one.state_of()
    one.on_minute(10, Grid(0, 10, 1.0), raw(10))
    one.on_events(10, 0, np.array([0]))
    assert one.events == 200


def test_a_pool_counts_once_until_the_price_has_left_it() -> None:
    one, pools = ApproachMonitor(), ((0, 99.0), (0, 97.0), (1, 101.0))
    one.on_minute(100.0, 100.1, 99.9, pools)
    assert (one.approached, one.crossed) == (0, 0)  # judged by the minutes that follow
    one.on_minute(100.0, 100.1, 99.8, pools)
    assert (one.approached, one.crossed) == (0, 0)
    one.on_minute(99.9, 100.3, 99.7, ((0, 99.1), (0, 97.0), (1, 101.0)))  # 0.71 % above the long pool, 0.70 % below the short one
    assert (one.approached, one.crossed) == (2, 0)
    one.on_minute(99.6, 100.0, 98.95, ((0, 99.1), (1, 101.0)))  # the pool moved a little: the same one, crossed at 99.0
    assert (one.approached, one.crossed) == (2, 1)
    one.on_minute(99.6, 100.0, 98.9, ((0, 99.1), (1, 101.0)))  # crossed again: once
    assert (one.approached, one.crossed) == (2, 1)
    one.on_minute(102.8, 102.9, 99.5, ((0, 99.0),))  # far above both
    assert (one.approached, one.crossed) == (2, 2)
    again = ApproachMonitor()
    again.restore(carried(one.state_of()))
    for each in (one, again):
        each.on_minute(99.5, 102.8, 99.4, ())
        assert (each.approached, each.crossed) == (3, 2)
    assert again.state_of() == one.state_of()


def test_approach_and_crossing_in_one_minute_count_both() -> None:
    one = ApproachMonitor()
    one.on_minute(100.0, 100.0, 100.0, ((0, 99.0), (1, 101.0)))
    one.on_minute(100.0, 101.0, 99.0, ())
    assert (one.approached, one.crossed) == (2, 2)
