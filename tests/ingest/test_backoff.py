"""Delays grow, are capped, and carry jitter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.ingest.backoff import doubling_s, reconnect_delay_s, rotation_s


@pytest.mark.covers("A1-M14")
def test_reconnect_delays_grow_and_are_capped() -> None:
    delays = [reconnect_delay_s(n, 30.0, lambda: 0.5) for n in range(8)]
    assert delays == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30])


@pytest.mark.covers("A1-M14")
@given(st.integers(0, 10_000), st.floats(0.1, 300), st.floats(0, 1, exclude_max=True))
def test_reconnect_delay_stays_in_its_jitter(attempt: int, limit_s: float, draw: float) -> None:
    nominal = 2.0 ** min(attempt, 30)
    delay = reconnect_delay_s(attempt, limit_s, lambda: draw)
    assert min(limit_s, 0.8 * nominal) <= delay <= min(limit_s, 1.2 * nominal)


@pytest.mark.covers("A1-M16")
def test_rest_back_off_doubles_to_its_limit() -> None:
    assert [doubling_s(n, 15, 120) for n in range(7)] == [0, 15, 30, 60, 120, 120, 120]
    assert doubling_s(10**6, 15, 120) == 120


def test_rotation_comes_before_the_limit_by_up_to_the_jitter() -> None:
    assert rotation_s(82_800, 1800, lambda: 0.0) == 82_800
    assert rotation_s(82_800, 1800, lambda: 0.999) == pytest.approx(81_001.8)
    assert rotation_s(2, 7200, lambda: 0.999) == 1  # a jitter above the age itself still leaves half of it
