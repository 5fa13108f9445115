"""Every row of the table of REST errors, on a clock made of numbers."""

from __future__ import annotations

import pytest

from mpengine.ingest.rest_policy import SECOND, RestPolicy
from mpengine.venues.base import RestCall, RestResult, RestVerdict

OI = RestCall("open_interest", "BTC", "/oi", 1, interval_s=15.0)
OI_ETH = RestCall("open_interest", "ETH", "/oi", 1, interval_s=15.0)
RATIO = RestCall("ratio", "BTC", "/ratio", 0, "futures_data", 60.0)
DEPTH = RestCall("depth", "BTC", "/depth", 20)
DEPTH_ETH = RestCall("depth", "ETH", "/depth", 20)
T0 = 1_000 * SECOND


def after(result: RestResult, retry_after_s: float | None = None, call: RestCall = OI) -> RestPolicy:
    policy = RestPolicy()
    policy.settle(call, RestVerdict(result, retry_after_s), T0)
    return policy


def wait_s(policy: RestPolicy, call: RestCall, at_s: float = 0) -> float | None:
    wait = policy.wait_ns(call, T0 + int(at_s * SECOND))
    return None if wait is None else wait / SECOND


def next_s(policy: RestPolicy, call: RestCall, at_s: float = 0) -> float:
    now = T0 + int(at_s * SECOND)
    return (policy.next_ns(call, now, now) - now) / SECOND


def test_a_sound_venue_is_asked_at_its_interval() -> None:
    policy = after(RestResult.OK)
    assert wait_s(policy, OI) == 0
    assert next_s(policy, OI) == 15
    assert policy.next_ns(OI, T0, T0 + 20 * SECOND) == T0 + 20 * SECOND  # a slow request is not made up for


@pytest.mark.covers("F10", "T-M1")
@pytest.mark.parametrize(("told_s", "pause_s"), [(None, 60), (7.5, 7.5)])
def test_429_stops_the_venue_until_retry_after_then_halves_its_rate(told_s: float | None, pause_s: float) -> None:
    policy = after(RestResult.LIMITED, told_s)
    assert [wait_s(policy, call) for call in (OI, RATIO, DEPTH)] == [pause_s] * 3
    assert wait_s(policy, OI, pause_s) == 0
    policy.settle(OI, RestVerdict(RestResult.OK), T0 + int(pause_s * SECOND))
    assert next_s(policy, OI, pause_s) == 30
    assert next_s(policy, OI, pause_s + 299) == 30
    assert next_s(policy, OI, pause_s + 300) == 15


@pytest.mark.covers("F10")
def test_418_bans_the_venue_until_retry_after() -> None:
    policy = after(RestResult.BANNED, 3600)
    assert policy.banned(T0 + 3599 * SECOND)
    assert not policy.banned(T0 + 3600 * SECOND)
    assert wait_s(policy, RATIO, 3599) == 1
    assert policy.paused_until_ns(T0) == T0 + 3600 * SECOND
    assert policy.paused_until_ns(T0 + 3600 * SECOND) is None
    assert wait_s(after(RestResult.BANNED), OI) == 120


def test_a_firewall_pauses_and_a_geo_block_ends() -> None:
    assert wait_s(after(RestResult.FIREWALL), RATIO) == 300
    assert wait_s(after(RestResult.FIREWALL, 600), RATIO) == 600
    policy = after(RestResult.BLOCKED)
    assert policy.blocked
    assert wait_s(policy, DEPTH, 10**6) is None


def test_a_key_that_is_wanted_ends_the_metric_for_all_symbols() -> None:
    policy = after(RestResult.UNAUTHORIZED)
    assert wait_s(policy, OI) is None
    assert wait_s(policy, OI_ETH) is None
    assert wait_s(policy, RATIO) == 0


def test_a_wrong_request_rests_for_ten_minutes_alone() -> None:
    policy = after(RestResult.REFUSED)
    assert wait_s(policy, OI) == 600
    assert wait_s(policy, OI_ETH) == 0
    assert wait_s(policy, OI, 600) == 0


@pytest.mark.covers("A1-M16", "F10")
def test_transient_failures_back_off_and_return_to_nominal() -> None:
    policy = RestPolicy()
    waits = []
    for _ in range(6):
        policy.settle(OI, RestVerdict(RestResult.TRANSIENT), T0)
        waits.append(next_s(policy, OI))
    assert waits == [15, 30, 60, 120, 120, 120]
    assert next_s(policy, OI_ETH) == 15
    policy.settle(OI, RestVerdict(RestResult.OK), T0)
    assert next_s(policy, OI) == 15


def test_used_weight_first_costs_the_ratios_then_the_polls_and_most_snapshots() -> None:
    policy = RestPolicy()
    policy.settle(OI, RestVerdict(RestResult.OK, None, 1200), T0)
    assert wait_s(policy, RATIO) == 0
    policy.settle(OI, RestVerdict(RestResult.OK, None, 1201), T0)
    assert wait_s(policy, RATIO) == 60
    assert wait_s(policy, OI) == 0
    policy.settle(OI, RestVerdict(RestResult.OK, None, 1801), T0)
    assert wait_s(policy, OI) == 60
    assert wait_s(policy, DEPTH) == 0
    policy.sent(DEPTH, T0)
    assert wait_s(policy, DEPTH_ETH, 4) == 6
    assert wait_s(policy, DEPTH_ETH, 10) == 0
    assert policy.used_weight(T0) == 1801


def test_a_weight_of_the_last_minute_is_forgotten() -> None:
    policy = RestPolicy()
    policy.settle(OI, RestVerdict(RestResult.OK, None, 2399), T0)
    assert wait_s(policy, OI, 60) == 0
    assert policy.used_weight(T0 + 60 * SECOND) is None


def test_a_call_on_request_has_no_next_time() -> None:
    with pytest.raises(ValueError, match="depth is not repeated"):
        RestPolicy().next_ns(DEPTH, T0, T0)
