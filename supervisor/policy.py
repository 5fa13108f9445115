"""What to do with a child that ended, and with one that may hang: pure functions of what was seen, the limits and the time.

    after_exit(how it ended, its life, its history) -> Restart(at) | Fail(retry_at)     and the new history
    while_running(what is seen of it)               -> Keep | Dump | Kill
    escalation(who is FAILED since when)            -> text | None

All times are monotonic nanoseconds, handed in. `jitter` is a number of [0, 1) that the caller draws.

Chosen against giving up as a whole (Erlang ends all children above its intensity): one bad symbol must not stop the others.
Chosen against waiting for a human (supervisord's FATAL): FAILED is tried again for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from mpengine.config import SupervisorSettings
from shm.board_words import State
from supervisor.exitcodes import NO_RESTART

MAX_DOUBLINGS = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """The numbers of the promises, in nanoseconds."""

    budget: int
    window_ns: int
    backoff_first_ns: int
    backoff_max_ns: int
    healthy_ns: int
    failed_retry_ns: int
    hang_ns: int
    dump_ns: int
    start_ns: int
    stop_ns: int
    escalate_ns: int
    rss_bytes: int

    @classmethod
    def of(cls, settings: SupervisorSettings) -> Limits:
        """The limits of the settings."""

        def ns(seconds: float) -> int:
            return round(seconds * 1e9)

        return cls(
            budget=settings.restart_budget,
            window_ns=ns(settings.restart_window_s),
            backoff_first_ns=ns(settings.backoff_first_s),
            backoff_max_ns=ns(settings.backoff_max_s),
            healthy_ns=ns(settings.healthy_after_s),
            failed_retry_ns=ns(settings.failed_retry_s),
            hang_ns=ns(settings.hang_after_s),
            dump_ns=ns(settings.stack_dump_s),
            start_ns=ns(settings.start_timeout_s),
            stop_ns=ns(settings.stop_timeout_s),
            escalate_ns=ns(settings.escalate_after_s),
            rss_bytes=settings.child_rss_bytes,
        )


class HangReason(IntEnum):
    """Board word HANG_REASON: why a child was killed last."""

    NONE = 0
    NO_PROGRESS = 1
    NO_BEAT = 2
    START_TIMEOUT = 3
    STOP_TIMEOUT = 4
    MEMORY = 5


HANG_TEXTS = {
    HangReason.NONE: "never killed for a hang",
    HangReason.NO_PROGRESS: "its input advanced and its progress word did not",
    HangReason.NO_BEAT: "its beat stood still",
    HangReason.START_TIMEOUT: "not LIVE within supervisor.start_timeout_s",
    HangReason.STOP_TIMEOUT: "did not end in its share of supervisor.stop_timeout_s",
    HangReason.MEMORY: "resident memory above supervisor.child_rss_bytes; stopped in order, not killed",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: exit code, or signal, or neither (it could not be started)."""

    code: int | None = None
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class History:
    """What is remembered of a child beyond one life. deaths: within the window; streak: number since it was healthy."""

    deaths: tuple[int, ...] = ()
    streak: int = 0
    failed_since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Restart:
    """Start it again at this time."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class Fail:
    """The child is FAILED; try again at this time."""

    at_ns: int
    reason: str


def after_exit(
    ended: Ended, live_ns: int | None, history: History, limits: Limits, now_ns: int, jitter: float
) -> tuple[Restart | Fail, History]:
    """Decide on a child that ended without being asked to. `live_ns`: since when it was LIVE, None if it never was."""
    known = recovered(history, live_ns, limits, now_ns)
    deaths = (*(t for t in known.deaths if now_ns - t < limits.window_ns), now_ns)
    after = History(deaths[-limits.budget - 1 :], known.streak + 1, known.failed_since_ns)
    if reason := _gives_up(ended, known, len(deaths), limits):
        since = now_ns if known.failed_since_ns is None else known.failed_since_ns
        return Fail(now_ns + limits.failed_retry_ns, reason), replace(after, failed_since_ns=since)
    return Restart(now_ns + backoff_ns(known.streak, limits, jitter)), after


def _gives_up(ended: Ended, known: History, deaths: int, limits: Limits) -> str | None:
    if ended.code in NO_RESTART:
        return f"exit {ended.code} is not healed by a restart"
    if known.failed_since_ns is not None:
        return "it failed again after a retry"
    if deaths > limits.budget:
        return f"{limits.budget} restarts in {limits.window_ns / 1e9:g} s are used up"
    return None


def backoff_ns(streak: int, limits: Limits, jitter: float) -> int:
    """Delay before restart number `streak` (0 is the first): doubled each time up to the maximum, less up to half of it.

    The jitter only shortens, so that the first delay keeps the promise of a restart begun within 100 ms.
    """
    full = min(limits.backoff_first_ns << min(streak, MAX_DOUBLINGS), limits.backoff_max_ns)
    return full - int(full * jitter / 2)


def recovered(history: History, live_ns: int | None, limits: Limits, now_ns: int) -> History:
    """The history, empty once the child has been LIVE long enough."""
    healthy = live_ns is not None and now_ns - live_ns >= limits.healthy_ns
    return History() if healthy else history


@dataclass(slots=True)
class ProgressWatch:
    """How long a child has not moved although it had something to do. Idle is no hang: without new input nothing is due."""

    output: int = 0
    input: int = 0
    due_since_ns: int | None = None

    def observe(self, output: int, given: int, now_ns: int) -> int:
        """Nanoseconds since input went unanswered, 0 while nothing is due.

        output: a number that changes whenever the child works. given: a number that changes whenever it gets something
        to do; for a child that must turn without input (it beats), the time itself.
        """
        if output != self.output:
            self.output, self.input, self.due_since_ns = output, given, None
        elif given != self.input and self.due_since_ns is None:
            self.due_since_ns = now_ns
        return 0 if self.due_since_ns is None else now_ns - self.due_since_ns

    def forgive(self) -> None:
        """Count from now: the watcher itself was away, so it has seen nothing of what the child did."""
        self.due_since_ns = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen of a running child. state: STARTING, LIVE or HUNG; since_ns: of that state; stalled_ns: of its watch.

    stopped: the kernel says that a signal or a debugger stopped it, so it cannot write a stack dump.
    """

    state: State
    since_ns: int
    stalled_ns: int
    reason: HangReason
    stopped: bool = False


class Verdict(IntEnum):
    """What to do with a running child."""

    KEEP = 0
    DUMP = 1
    KILL = 2
    REVIVE = 3


def while_running(seen: Seen, limits: Limits, now_ns: int) -> tuple[Verdict, HangReason]:
    """Stack dump when it is late, SIGKILL when the dump has had its time. SIGTERM does nothing to a stopped process."""
    waited = now_ns - seen.since_ns
    if seen.state is State.HUNG:
        if seen.stalled_ns == 0 and seen.reason is not HangReason.START_TIMEOUT:
            return Verdict.REVIVE, HangReason.NONE
        return (Verdict.KILL if waited >= limits.dump_ns else Verdict.KEEP), seen.reason
    if seen.state is State.STARTING and waited >= limits.start_ns:
        return (Verdict.KILL if seen.stopped else Verdict.DUMP), HangReason.START_TIMEOUT
    if seen.state is State.LIVE and seen.stalled_ns >= limits.hang_ns:
        return (Verdict.KILL if seen.stopped else Verdict.DUMP), seen.reason
    return Verdict.KEEP, HangReason.NONE


@dataclass(frozen=True, slots=True)
class Standing:
    """Standing of a child for the escalation. failed_since_ns: None while it is LIVE or not given up."""

    name: str
    failed_since_ns: int | None


def escalation(ingest: Standing, engines: tuple[Standing, ...], limits: Limits, now_ns: int) -> str | None:
    """Why the whole should be started anew (exit 10), None while it should not."""
    if ingest.failed_since_ns is not None and now_ns - ingest.failed_since_ns >= limits.escalate_ns:
        return f"{ingest.name} has been FAILED for {(now_ns - ingest.failed_since_ns) / 1e9:.0f} s"
    failed = sorted(engine.failed_since_ns for engine in engines if engine.failed_since_ns is not None)
    majority = len(engines) // 2 + 1
    # The majority is as old as its youngest member.
    if len(failed) >= majority and now_ns - failed[majority - 1] >= limits.escalate_ns:
        return f"{len(failed)} of {len(engines)} engines have been FAILED for too long"
    return None


def worth_feeding(ingest_moves: bool, engines_moving: int, engines: int) -> bool:
    """Whether the service manager's watchdog may be fed: ingest and at least half of the engines progress."""
    return ingest_moves and 2 * engines_moving >= engines
