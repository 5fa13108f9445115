"""Turns at opening sockets, on a clock made of numbers."""

from __future__ import annotations

import pytest

from mpengine.ingest.connect_gate import SECOND, ConnectGate
from mpengine.venues.base import ConnectLimit, RestResult, RestVerdict

T0 = 1_000 * SECOND


@pytest.mark.covers("F10")
def test_a_storm_of_tries_gets_the_burst_at_once_and_the_rest_at_the_venues_rate() -> None:
    gate = ConnectGate(ConnectLimit(burst=3, per_s=2.0))
    assert [gate.turn_ns(T0) / SECOND for _ in range(7)] == [0, 0, 0, 0.5, 1.0, 1.5, 2.0]
    assert gate.waited == 4


@pytest.mark.covers("F10")
@pytest.mark.parametrize(("burst", "per_s"), [(1, 0.1), (3, 3.0), (10, 1.0), (20, 1.5)])
def test_no_window_ever_holds_more_than_burst_plus_rate(burst: int, per_s: float) -> None:
    gate = ConnectGate(ConnectLimit(burst, per_s))
    opened, now = [], T0
    for step in range(400):
        now += (step * 7919 % 13) * SECOND // 40  # storms and pauses
        opened.append(now + gate.turn_ns(now))
    opened.sort()
    for first in range(len(opened)):
        for last in range(first, min(first + 60, len(opened))):
            span_s = (opened[last] - opened[first]) / SECOND
            assert last - first + 1 <= burst + span_s * per_s + 1e-6


def test_rest_fills_the_burst_again() -> None:
    gate = ConnectGate(ConnectLimit(burst=2, per_s=1.0))
    assert [gate.turn_ns(T0) for _ in range(2)] == [0, 0]
    assert gate.turn_ns(T0 + 10 * SECOND) == gate.turn_ns(T0 + 10 * SECOND) == 0
    assert gate.turn_ns(T0 + 10 * SECOND) == SECOND


@pytest.mark.covers("F10")
@pytest.mark.parametrize(
    ("result", "told_s", "pause_s"),
    [
        (RestResult.LIMITED, None, 60),
        (RestResult.LIMITED, 7.5, 7.5),
        (RestResult.BANNED, None, 120),
        (RestResult.BANNED, 3600, 3600),
        (RestResult.FIREWALL, None, 300),
        (RestResult.FIREWALL, 600, 600),
        (RestResult.TRANSIENT, None, 0),
        (RestResult.REFUSED, 99, 0),
        (RestResult.UNAUTHORIZED, None, 0),
    ],
)
def test_a_refusal_holds_every_socket_back_for_its_time(result: RestResult, told_s: float | None, pause_s: float) -> None:
    gate = ConnectGate(ConnectLimit(10, 1.0))
    assert not gate.refused(RestVerdict(result, told_s), T0)
    assert gate.pause_ns(T0) == int(pause_s * SECOND)
    assert gate.pause_ns(T0 + int(pause_s * SECOND)) == 0


@pytest.mark.covers("F10")
def test_a_geo_block_is_for_good_and_news_once() -> None:
    gate = ConnectGate(ConnectLimit(10, 1.0))
    assert gate.refused(RestVerdict(RestResult.BLOCKED), T0)
    assert not gate.refused(RestVerdict(RestResult.BLOCKED), T0)
    assert gate.pause_ns(T0 + 10**6 * SECOND) is None


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    gate = ConnectGate(ConnectLimit(10, 1.0))
    gate.refused(RestVerdict(RestResult.LIMITED, 100), T0)
    gate.refused(RestVerdict(RestResult.LIMITED, 1), T0)
    assert gate.pause_ns(T0) == 100 * SECOND


@pytest.mark.covers("R-H1")
@pytest.mark.parametrize("limit", [ConnectLimit(0, 1.0), ConnectLimit(1, 0.0), ConnectLimit(1, -1.0)])
def test_a_limit_that_lets_nothing_through_is_refused(limit: ConnectLimit) -> None:
    with pytest.raises(ValueError, match="lets nothing through"):
        ConnectGate(limit)
