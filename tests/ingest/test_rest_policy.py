"""Every row of the table of REST errors, on a clock made of numbers."""

from __future__ import annotations

import bisect
import heapq

import pytest

from mpengine.ingest.rest_policy import BUDGET_REQUESTS, SECOND, RestPolicy, paced
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


def simulated(calls: list[RestCall], seconds: int, result: RestResult = RestResult.OK) -> list[float]:
    """When the statistics calls go out if each is sent as soon as pace and policy let it, in s."""
    policy, sent = RestPolicy(), []
    due = [(delay_s, place, call) for place, (delay_s, call) in enumerate(paced(calls))]
    heapq.heapify(due)
    while due[0][0] < seconds:
        at_s, place, call = heapq.heappop(due)
        now_ns = T0 + int(at_s * SECOND)
        wait_ns = policy.wait_ns(call, now_ns)
        assert wait_ns is not None
        if wait_ns:
            heapq.heappush(due, (at_s + wait_ns / SECOND, place, call))
            continue
        policy.sent(call, now_ns)
        policy.settle(call, RestVerdict(result), now_ns)
        if call.budget == "futures_data":
            sent.append(at_s)
        heapq.heappush(due, ((policy.next_ns(call, now_ns, now_ns) - T0) / SECOND, place, call))
    return sent


def ratios(symbols: int, interval_s: float = 60.0) -> list[RestCall]:
    return [RestCall(f"ratio{n}", f"S{s}", "/ratio", 0, "futures_data", interval_s) for s in range(symbols) for n in range(3)]


@pytest.mark.covers("F10")
@pytest.mark.parametrize("result", [RestResult.OK, RestResult.TRANSIENT])
@pytest.mark.parametrize(("symbols", "interval_s"), [(3, 60.0), (50, 60.0), (60, 60.0), (100, 60.0), (400, 60.0), (50, 5.0)])
def test_no_five_minutes_hold_more_statistics_requests_than_the_venue_allows(
    symbols: int, interval_s: float, result: RestResult
) -> None:
    sent = simulated(ratios(symbols, interval_s), 1500, result)
    assert len(sent) >= symbols * 3  # each is asked
    for place, at_s in enumerate(sent):
        assert bisect.bisect_left(sent, at_s + 300) - place <= BUDGET_REQUESTS


def test_few_statistics_calls_keep_their_interval_and_others_are_never_stretched() -> None:
    assert paced([*ratios(10), OI, DEPTH]) == [*((0.0, call) for call in ratios(10)), (0.0, OI)]
    stretched = paced([*ratios(100), OI])
    assert stretched[-1] == (0.0, OI)
    intervals = {call.interval_s for _, call in stretched[:-1]}
    assert len(intervals) == 1
    assert intervals.pop() == pytest.approx(300 * 300 / (BUDGET_REQUESTS - 90))
    assert [delay_s for delay_s, _ in stretched[:90]] == [0.0] * 90
    delays = [delay_s for delay_s, _ in stretched[89:-1]]
    assert delays == sorted(set(delays))
