"""The liquidation tape (`spec: engine`, section 9)."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mpengine.engine.buckets import MAX_MAP_BUCKETS
from mpengine.engine.tape import Tape
from shm.records import PositionSide

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT


def minute(one: Tape, number: int, low: float, high: float, close: float, minutes: int = 1) -> list[float]:
    one.roll(minutes, number, low, high)
    one.arm(close)
    return one.sides[0].usd.tolist()


def test_an_event_survives_its_own_minute_and_is_consumed_when_the_price_comes_back() -> None:
    """The vector of section 9; regression story 16."""
    one = Tape(1.0)
    assert one.on_event(LONG, 100.0, 5000.0) == 100
    assert minute(one, 40, 99.5, 100.6, 100.2) == [5000.0]
    assert one.sides[0].armed.tolist() == [False]
    assert minute(one, 41, 100.1, 101.6, 101.5) == [4975.0]
    assert one.sides[0].armed.tolist() == [True]
    assert minute(one, 42, 100.8, 101.6, 101.5) == [4950.125]
    _, logs = one.roll(1, 43, 99.9, 101.0)
    assert len(one.sides[0].keys) == 0
    assert logs[0].record == {"event": "swept", "side": "long", "bucket": 100, "usd": pytest.approx(4925.374375), "minutes": 3}


def test_new_events_disarm_and_a_step_is_a_decimal_step() -> None:
    one = Tape(0.1)
    one.on_event(SHORT, 75.2, 500.0)
    one.roll(1, 0, 75.0, 75.3)
    one.arm(75.3)  # in binary 75.3 - 75.2 is below 0.1
    assert one.sides[1].armed.tolist() == [True]
    one.on_event(SHORT, 75.2, 500.0)
    one.on_event(SHORT, 75.21, 100.0)
    added, _ = one.roll(1, 1, 75.0, 75.1)  # not reached, but hit again
    assert one.sides[1].armed.tolist() == [False]
    assert one.sides[1].usd.tolist() == [500.0 * 0.995 + 600.0]
    assert (added[1][0].tolist(), added[1][1].tolist()) == ([752], [600.0])
    assert added[0][0].size == 0
    one.arm(75.25)
    assert one.sides[1].armed.tolist() == [False]


def test_the_old_value_is_consumed_but_not_what_came_in_the_same_minute() -> None:
    one = Tape(1.0)
    one.on_event(LONG, 100.0, 5000.0)
    minute(one, 0, 99.0, 103.0, 103.0)
    one.on_event(LONG, 100.0, 700.0)
    assert minute(one, 1, 99.9, 103.0, 103.0) == [700.0]
    assert one.sides[0].born.tolist() == [1]


def test_long_gaps_decay_at_once_and_crumbs_go() -> None:
    one = Tape(1.0)
    one.on_event(LONG, 100.0, 1000.0)
    one.on_event(LONG, 90.0, 1.5)
    minute(one, 0, 99.5, 100.5, 100.2)
    assert minute(one, 120, 101.0, 102.0, 101.5, minutes=120) == pytest.approx([1000.0 * 0.995**120])
    assert (one.events, one.total_usd) == (2, [1001.5, 0.0])
    assert one.usd == (pytest.approx(1000.0 * 0.995**120), 0.0)


def test_a_dollar_stays_and_a_bucket_that_is_hardly_a_step_away_is_not_armed() -> None:
    one = Tape(1.0)
    one.on_event(LONG, 90.0, 1.0)
    one.on_event(LONG, 80.0, 0.9)
    assert minute(one, 7, 99.0, 101.0, 90.999) == [0.9, 1.0]  # what came in a minute is not judged in it
    assert one.sides[0].armed.tolist() == [True, False]
    assert minute(one, 8, 99.0, 101.0, 91.0, minutes=0) == [1.0]
    assert one.sides[0].armed.tolist() == [True]


def test_the_smallest_buckets_leave_a_full_tape() -> None:
    one = Tape(1.0)
    for number in range(MAX_MAP_BUCKETS + 3):
        one.on_event(SHORT, 1000.0 + number, 10.0 + number)
    one.roll(1, 0, 1.0, 2.0)
    assert (len(one.sides[1].keys), one.sides[1].evicted) == (MAX_MAP_BUCKETS, 3)
    assert one.sides[1].keys[0] == 1003


def test_on_the_grid_of_a_frame() -> None:
    one = Tape(10.0)
    for price, usd in ((100.0, 1.0), (120.0, 2.0), (300.0, 4.0)):
        one.on_event(LONG, price, usd)
    one.roll(1, 0, 1.0, 2.0)
    assert one.sides[0].on_grid(10, 5).tolist() == [1.0, 0.0, 2.0, 0.0, 0.0]


def test_a_restored_tape_goes_on_bit_by_bit() -> None:
    one, rng = Tape(1.0), np.random.default_rng(3)
    for number in range(50):
        one.on_event(LONG if number % 2 else SHORT, 100.0 + rng.normal(0, 5), float(rng.lognormal(8)))
        if number % 7 == 0:
            minute(one, number, 95.0, 105.0, 100.0)
    again = Tape(1.0)
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.state_of())))
    for each in (one, again):
        minute(each, 60, 97.0, 103.0, 98.0)
    assert msgspec.msgpack.encode(again.state_of()) == msgspec.msgpack.encode(one.state_of())
