"""The zone tracker: what is shown does not jump (`spec: engine`, section 15)."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.engine.pools import Pool
from mpengine.engine.tracker import MAX_SHOWN, MIN_STRENGTH, ZoneTracker
from shm.records import PositionSide

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
SRC = 100_000.0


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
    two = ZoneTracker()
    feed(two, 0, (95_000.0, 0.6), (95_300.0, 0.5))
    feed(two, 1, (95_200.0, 0.4))  # in reach of both: the nearest, not the strongest, takes it
    assert [(zone["price"], zone["strength"]) for zone in two.shown(LONG)] == [(95_000.0, pytest.approx(0.57)), (95_200.0, 0.4)]


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
    two = ZoneTracker()  # old, it stays until it has lost seven tenths of its peak
    feed(two, 0, (95_000.0, 0.5))
    for minute in range(1, 20):
        feed(two, minute, (95_000.0, 0.16))
    assert strengths(two) == [0.16]
    feed(two, 20, (95_000.0, 0.14))
    assert strengths(two) == []


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


def test_minutes_that_are_missing_count_as_minutes_without_the_pool() -> None:
    """Every decay is rate^minutes (section 4.3): a tracker that was away shows no more than one that saw nothing."""
    away, there = ZoneTracker(), ZoneTracker()
    for one in (away, there):
        feed(one, 100, (95_000.0, 0.5), (90_000.0, 0.3))
    for minute in range(101, 104):
        feed(there, minute)
    feed(there, 104, (90_000.0, 0.3))
    feed(away, 104, (90_000.0, 0.3))
    assert strengths(there) == strengths(away) == [pytest.approx(0.5 * 0.95**4), 0.3]
    feed(away, 103)  # a clock that was set back is a minute like any other
    assert strengths(away) == [pytest.approx(0.5 * 0.95**5), pytest.approx(0.3 * 0.95)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_few_zones_that_are_strong_enough_in_order_and_the_same_over_restarts(seed: int) -> None:
    rng, one, minute = np.random.default_rng(seed), ZoneTracker(), 1000
    again = ZoneTracker()
    for _ in range(40):
        minute += int(rng.integers(1, 4))
        pairs = [(float(price), float(rng.random() ** 3)) for price in rng.integers(90_000, 100_000, int(rng.integers(0, 12)))]
        feed(one, minute, *pairs)
        feed(again, minute, *pairs)
        found = strengths(one)
        assert len(found) <= MAX_SHOWN and found == sorted(found, reverse=True)
        assert all(MIN_STRENGTH <= strength <= 1.0 for strength in found)
        assert len(found) >= min(MAX_SHOWN, 1 if any(strength >= MIN_STRENGTH for _, strength in pairs) else 0)
        assert again.state_of() == one.state_of() and again.shown(LONG) == one.shown(LONG)
        saved, again = msgspec.msgpack.encode(again.state_of()), ZoneTracker()
        again.restore(msgspec.msgpack.decode(saved))


def test_what_is_handed_out_is_a_copy() -> None:
    one = ZoneTracker()
    feed(one, 0, *FIVE)
    shown, state = one.shown(LONG), one.state_of()
    shown[0]["strength"] = state["shown"][0][0][1] = 9.0
    assert strengths(one) == [0.5, 0.4, 0.3, 0.2, 0.1]
