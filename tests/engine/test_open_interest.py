"""Open interest: jumps need three readings that agree, old values leave the sum, changes compare like with like."""

from __future__ import annotations

import pytest

from mpengine.engine.open_interest import OiMinute, OpenInterest
from shm.records import Venue

SECOND = 1_000_000_000
BINANCE, OKX = Venue.BINANCE, Venue.OKX


def test_a_jump_is_taken_when_three_readings_in_a_row_agree() -> None:
    one = OpenInterest()
    assert one.on_value(BINANCE, 1000.0, 0) and one.on_value(BINANCE, 1300.0, 0) and one.on_value(BINANCE, 910.0, 0)
    assert [one.on_value(BINANCE, qty, 0) for qty in (2000.0, 2010.0)] == [False, False]
    assert one.on_value(BINANCE, 911.0, 0)  # back to the usual: the count begins anew
    assert [one.on_value(BINANCE, qty, 0) for qty in (2000.0, 2100.0, 2105.0, 2090.0)] == [False, False, False, True]
    assert (one.total(0), one.refused) == (2090.0, 5)
    assert [one.on_value(BINANCE, qty, 0) for qty in (1000.0, 1001.0, 1002.0)] == [False, False, True]


def test_values_leave_the_sum_after_60_s() -> None:
    one = OpenInterest()
    assert one.total(0) is None
    one.on_value(BINANCE, 1000.0, 0)
    one.on_value(OKX, 500.0, 30 * SECOND)
    assert (one.total(60 * SECOND), one.total(60 * SECOND + 1), one.total(90 * SECOND + 1)) == (1500.0, 500.0, None)


@pytest.mark.covers("A1-M15")
def test_no_value_no_change_and_an_old_baseline_is_none() -> None:
    one = OpenInterest()
    assert one.on_rollover(60 * SECOND) == OiMinute(None, None, {})
    one.on_value(BINANCE, 1000.0, 61 * SECOND)
    assert one.on_rollover(120 * SECOND).delta is None
    one.on_value(BINANCE, 900.0, 121 * SECOND)
    assert one.on_rollover(180 * SECOND).delta == -100.0
    one.on_value(BINANCE, 950.0, 290 * SECOND)
    assert one.on_rollover(300 * SECOND) == OiMinute(950.0, 50.0, {BINANCE: 950.0}, 900.0)
    one.on_value(BINANCE, 960.0, 480 * SECOND)
    assert one.on_rollover(480 * SECOND).delta is None  # the last rollover was 180 s ago
