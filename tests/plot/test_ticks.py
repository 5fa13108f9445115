"""Round numbers and how they are written."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mpengine.plot import ticks
from mpengine.plot.ticks import DAY_MS, MINUTE_MS

NOON_MS = 1_795_219_200_000 // DAY_MS * DAY_MS + 12 * 60 * MINUTE_MS


@pytest.mark.parametrize(
    ("low", "high", "most", "step"),
    [(59_290.0, 72_490.0, 15, 1000.0), (99.0, 101.0, 8, 0.5), (0.08, 0.1, 5, 0.005), (1.0, 2.0, 1, 1.0),
     (59_290.0, 72_490.0, 3, 5000.0)],
)  # fmt: skip
def test_prices_are_round_inside_and_few(low: float, high: float, most: int, step: float) -> None:
    found = ticks.price_ticks(low, high, most)
    assert 1 <= len(found) <= most + 1 and low <= found[0] and found[-1] <= high
    assert all(abs(price / step - round(price / step)) < 1e-9 for price in found)
    assert all(later - price == pytest.approx(step) for price, later in pairwise(found))


def test_prices_have_the_decimals_of_their_step() -> None:
    assert [ticks.digits_of(step) for step in (1000.0, 1.0, 0.5, 0.05, 0.002)] == [0, 0, 1, 2, 3]
    assert ticks.price_text(65_000.0, 0) == "65,000" and ticks.price_text(0.105, 3) == "0.105"
    assert [ticks.plain_price(one) for one in (65_892.725, 82.5, 1.5, 0.25, 0.00012)] == [
        "65,892.7", "82.50", "1.500", "0.2500", "0.000120",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("minutes", "most", "step"), [(5, 6, 1), (60, 6, 10), (720, 12, 60), (720, 5, 180), (1440, 2, 720), (1440, 30, 60)]
)
def test_times_are_multiples_of_a_round_number_of_minutes(minutes: int, most: int, step: int) -> None:
    found = ticks.time_ticks(NOON_MS + 90_000, NOON_MS + 90_000 + minutes * MINUTE_MS, most)
    assert 1 <= len(found) <= most + 1 and all(t % (step * MINUTE_MS) == 0 for t in found)
    assert all(later - t == step * MINUTE_MS for t, later in pairwise(found))


def test_times_over_days() -> None:
    assert ticks.time_ticks(0, 30 * DAY_MS, 10) == [n * 3 * DAY_MS for n in range(11)]
    assert ticks.time_text(NOON_MS) == "12:00" and ticks.time_text(20_000 * DAY_MS) == "4 Oct"


def test_ranges_name_the_day_once() -> None:
    assert ticks.range_text(0, 60 * MINUTE_MS) == "1970-01-01 00:00 to 01:00 UTC"
    assert ticks.range_text(0, DAY_MS) == "1970-01-01 00:00 to 1970-01-02 00:00 UTC"


def test_amounts_ages_and_spans() -> None:
    assert [ticks.usd_text(usd) for usd in (0.0, 120.0, 999.9, 1000.0, 12_345.0, 340_000.0, 2_449_000.0, 1e9, 3e12)] == [
        "0", "120", "1k", "1k", "12k", "340k", "2.4M", "1B", "3T",
    ]  # fmt: skip
    assert [ticks.age_text(s) for s in (-1, 34.9, 99, 100, 752, 7200, 172_800)] == [
        "0 s",
        "34 s",
        "99 s",
        "2 min",
        "13 min",
        "2 h",
        "2 d",
    ]
    assert [ticks.span_text(ms) for ms in (30_000, 60_000, 900_000, 3_600_000)] == ["30 s", "1 min", "15 min", "1 h"]


def test_marks_of_a_scale_begin_with_its_ends() -> None:
    found = ticks.usd_marks(10_000.0, 2.7e6)
    assert list(found[:4]) == [10_000.0, 2.7e6, 1e4, 1e5]
    assert {20_000.0, 50_000.0, 2e6} <= set(found) and max(found) == 2.7e6 and min(found) == 1e4
