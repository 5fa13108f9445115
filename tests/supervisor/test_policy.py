"""The policy is a table of situations; what must hold in every one of them is a property."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.config import SupervisorSettings
from shm.board_words import State
from supervisor.policy import (
    Ended,
    Fail,
    HangReason,
    History,
    Limits,
    ProgressWatch,
    Restart,
    Seen,
    Standing,
    Verdict,
    after_exit,
    backoff_ns,
    escalation,
    recovered,
    while_running,
    worth_feeding,
)

S = 1_000_000_000
MS = 1_000_000
LIMITS = Limits.of(SupervisorSettings())
CRASH = Ended(code=1)
NOW = 1_000 * S


def crash_loop(count: int, every_ns: int, ended: Ended = CRASH) -> tuple[list[Restart | Fail], History]:
    """Decisions over a row of deaths, each `every_ns` after the one before."""
    history, actions = History(), []
    for index in range(count):
        action, history = after_exit(ended, None, history, LIMITS, NOW + index * every_ns, 0.0)
        actions.append(action)
    return actions, history


def test_limits_are_the_settings_in_nanoseconds() -> None:
    assert (LIMITS.budget, LIMITS.window_ns, LIMITS.backoff_first_ns, LIMITS.backoff_max_ns) == (5, 60 * S, 100 * MS, 30 * S)
    assert (LIMITS.hang_ns, LIMITS.dump_ns, LIMITS.stop_ns, LIMITS.escalate_ns) == (3 * S, 500 * MS, 10 * S, 120 * S)


@pytest.mark.covers("P4")
def test_backoff_doubles_from_a_tenth_of_a_second_to_thirty() -> None:
    assert [backoff_ns(streak, LIMITS, 0.0) // MS for streak in range(10)] == [
        100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000,
    ]  # fmt: skip


@pytest.mark.covers("P1")
@given(st.floats(0, 1, exclude_max=True))
def test_first_restart_begins_within_100_ms_whatever_the_jitter(jitter: float) -> None:
    assert 50 * MS <= backoff_ns(0, LIMITS, jitter) <= 100 * MS


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True))
def test_backoff_is_never_negative_nor_above_the_maximum(streak: int, jitter: float) -> None:
    assert LIMITS.backoff_first_ns // 2 <= backoff_ns(streak, LIMITS, jitter) <= LIMITS.backoff_max_ns


@pytest.mark.covers("P4", "F7")
def test_five_restarts_in_the_window_then_failed_with_the_time_of_the_retry() -> None:
    actions, history = crash_loop(6, S)
    assert [type(action) for action in actions] == [Restart] * 5 + [Fail]
    assert actions[-1] == Fail(NOW + 5 * S + 60 * S, "5 restarts in 60 s are used up")
    assert history.failed_since_ns == NOW + 5 * S


@pytest.mark.covers("P4")
def test_slow_crash_loop_stays_within_the_budget_and_backs_off_to_the_maximum() -> None:
    actions, _ = crash_loop(12, 20 * S)
    assert all(isinstance(action, Restart) for action in actions)
    last = actions[-1]
    assert isinstance(last, Restart)
    assert last.at_ns == NOW + 11 * 20 * S + 30 * S


@pytest.mark.covers("P6")
@pytest.mark.parametrize("code", [3, 4])
def test_boot_failure_is_failed_at_once(code: int) -> None:
    action, history = after_exit(Ended(code=code), None, History(), LIMITS, NOW, 0.5)
    assert isinstance(action, Fail)
    assert history.failed_since_ns == NOW


@pytest.mark.parametrize("ended", [Ended(code=0), Ended(code=1), Ended(code=7), Ended(signal=9), Ended(signal=11), Ended()])
def test_any_other_end_is_restarted(ended: Ended) -> None:
    action, _ = after_exit(ended, NOW - S, History(), LIMITS, NOW, 0.0)
    assert action == Restart(NOW + 100 * MS)


@pytest.mark.covers("P4")
def test_failed_is_retried_for_ever_and_keeps_the_time_it_began() -> None:
    _, history = crash_loop(6, S)
    began = history.failed_since_ns
    for retry in range(1, 50):
        now_ns = NOW + retry * 61 * S
        action, history = after_exit(CRASH, None, history, LIMITS, now_ns, 0.0)
        assert action == Fail(now_ns + 60 * S, "it failed again after a retry")
        assert history.failed_since_ns == began
        assert len(history.deaths) <= LIMITS.budget + 1


@pytest.mark.covers("P4")
def test_a_minute_of_health_forgets_everything() -> None:
    _, history = crash_loop(6, S)
    live_ns = NOW + 10 * S
    assert recovered(history, live_ns, LIMITS, live_ns + 60 * S - 1) == history
    assert recovered(history, live_ns, LIMITS, live_ns + 60 * S) == History()
    assert recovered(history, None, LIMITS, live_ns + 600 * S) == history
    action, _ = after_exit(CRASH, live_ns, history, LIMITS, live_ns + 60 * S, 0.0)
    assert action == Restart(live_ns + 60 * S + 100 * MS)


@given(st.lists(st.tuples(st.integers(1, 200 * S), st.sampled_from([0, 1, 3, None]), st.booleans()), max_size=60))
def test_no_history_of_deaths_breaks_the_budget(deaths: list[tuple[int, int | None, bool]]) -> None:
    now_ns, history, restarts = NOW, History(), []
    for gap_ns, code, was_live in deaths:
        live_ns = now_ns + gap_ns // 2 if was_live else None
        now_ns += gap_ns
        action, history = after_exit(Ended(code=code), live_ns, history, LIMITS, now_ns, 0.5)
        assert action.at_ns > now_ns
        assert len(history.deaths) <= LIMITS.budget + 1
        if isinstance(action, Restart):
            restarts.append(now_ns)
            if not was_live or gap_ns // 2 < LIMITS.healthy_ns:
                assert sum(now_ns - t < LIMITS.window_ns for t in restarts) <= LIMITS.budget
            else:
                restarts = [now_ns]


def seen(state: State, *, since_s: float = 0.0, stalled_s: float = 0.0, stopped: bool = False) -> Seen:
    """A child as it may be seen at NOW."""
    return Seen(state, NOW - round(since_s * S), round(stalled_s * S), HangReason.NO_PROGRESS, stopped)


@pytest.mark.covers("P2", "P3")
@pytest.mark.parametrize(
    ("what", "verdict", "reason"),
    [
        (seen(State.LIVE), Verdict.KEEP, HangReason.NONE),
        (seen(State.LIVE, stalled_s=2.99), Verdict.KEEP, HangReason.NONE),
        (seen(State.LIVE, stalled_s=3.0), Verdict.DUMP, HangReason.NO_PROGRESS),
        (seen(State.LIVE, stalled_s=3.0, stopped=True), Verdict.KILL, HangReason.NO_PROGRESS),
        (seen(State.HUNG, since_s=0.4, stalled_s=3.4), Verdict.KEEP, HangReason.NO_PROGRESS),
        (seen(State.HUNG, since_s=0.5, stalled_s=3.5), Verdict.KILL, HangReason.NO_PROGRESS),
        (seen(State.HUNG, since_s=0.3, stalled_s=0.0), Verdict.REVIVE, HangReason.NONE),
        (seen(State.STARTING, since_s=19.9), Verdict.KEEP, HangReason.NONE),
        (seen(State.STARTING, since_s=20.0), Verdict.DUMP, HangReason.START_TIMEOUT),
        (seen(State.STARTING, since_s=20.0, stopped=True), Verdict.KILL, HangReason.START_TIMEOUT),
        (seen(State.STARTING, since_s=5.0, stalled_s=100.0), Verdict.KEEP, HangReason.NONE),
    ],
)
def test_hang_table(what: Seen, verdict: Verdict, reason: HangReason) -> None:
    assert while_running(what, LIMITS, NOW) == (verdict, reason)


def test_a_late_starter_is_not_revived_by_silence() -> None:
    late = Seen(State.HUNG, NOW - S, 0, HangReason.START_TIMEOUT)
    assert while_running(late, LIMITS, NOW) == (Verdict.KILL, HangReason.START_TIMEOUT)


@pytest.mark.covers("P2", "F17")
def test_without_input_nothing_is_due_however_long_it_takes() -> None:
    watch = ProgressWatch()
    assert [watch.observe(5, 10, t * S) for t in range(100)] == [0] * 100


@pytest.mark.covers("P2")
def test_due_time_runs_from_the_first_unanswered_input() -> None:
    watch = ProgressWatch()
    watch.observe(5, 10, 0)
    assert watch.observe(5, 11, 2 * S) == 0
    assert watch.observe(5, 11, 4 * S) == 2 * S  # the input stands still again: the ring may be full
    assert watch.observe(5, 12, 5 * S) == 3 * S
    assert watch.observe(6, 12, 6 * S) == 0
    assert watch.observe(6, 12, 60 * S) == 0


@pytest.mark.covers("F17")
def test_forgiven_watch_counts_from_the_next_look() -> None:
    watch = ProgressWatch()
    watch.observe(5, 10, 0)
    watch.observe(5, 11, S)
    watch.forgive()
    assert watch.observe(5, 12, 100 * S) == 0
    assert watch.observe(5, 13, 101 * S) == S


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(1, S)), max_size=100))
def test_a_child_that_moves_is_never_late_by_more_than_since_it_moved(steps: list[tuple[bool, bool, int]]) -> None:
    watch, output, given_, now_ns, moved_ns = ProgressWatch(), 0, 0, 0, 0
    for works, gets, step_ns in steps:
        now_ns += step_ns
        output += works
        given_ += gets
        if works:
            moved_ns = now_ns
        assert 0 <= watch.observe(output, given_, now_ns) <= now_ns - moved_ns


FAILED_LONG, FAILED_NOW, FINE = NOW - 121 * S, NOW - 10 * S, None


@pytest.mark.covers("P5")
@pytest.mark.parametrize(
    ("ingest", "engines", "given_up"),
    [
        (FINE, [FINE] * 3, False),
        (FAILED_NOW, [FINE] * 3, False),
        (FAILED_LONG, [FINE] * 3, True),
        (FINE, [FAILED_LONG, FINE, FINE], False),
        (FINE, [FAILED_LONG, FAILED_LONG, FINE], True),
        (FINE, [FAILED_LONG, FAILED_NOW, FINE], False),
        (FINE, [FAILED_LONG, FAILED_LONG, FINE, FINE], False),  # half is not more than half
        (FINE, [FAILED_LONG, FAILED_LONG, FAILED_NOW, FINE], False),
        (FINE, [FAILED_LONG], True),
        (FINE, [], False),
    ],
)
def test_escalation_table(ingest: int | None, engines: list[int | None], given_up: bool) -> None:
    standings = tuple(Standing(f"engine-{index}", since) for index, since in enumerate(engines))
    assert (escalation(Standing("ingest", ingest), standings, LIMITS, NOW) is not None) == given_up


@pytest.mark.covers("X-L4")
@pytest.mark.parametrize(
    ("ingest", "moving", "engines", "feed"),
    [(True, 3, 3, True), (True, 2, 4, True), (True, 1, 3, False), (False, 3, 3, False), (True, 0, 0, True)],
)
def test_watchdog_is_fed_while_ingest_and_half_of_the_engines_move(ingest: bool, moving: int, engines: int, feed: bool) -> None:
    assert worth_feeding(ingest, moving, engines) == feed
