"""The loop: one selector over pidfds, children's output and signals, with timers; everything else hangs on its turns.

    signals ─┐
    pidfds  ─┼─ select ─▶ deaths, output, signals ─▶ look ─▶ start what is due │ advance the stop ─▶ tell
    output  ─┘            (at most TICK later, SLOW_TICK while nothing is in motion)

It waits for nothing else: output is read without blocking, the log has its own thread, the files it writes lie on tmpfs.
A crash of this process is no special case: traceback, exit 1, and the kernel ends the children.
"""

from __future__ import annotations

import logging
import selectors
import signal
import time
from collections.abc import Callable, Mapping
from enum import Enum
from random import Random
from typing import Final

from mpengine.config import ConfigError
from shm.board_words import Role, State
from supervisor import policy
from supervisor.children import Child
from supervisor.exitcodes import ExitCode
from supervisor.keeper import Keeper
from supervisor.plan import Plan, Reload
from supervisor.policy import Standing
from supervisor.reload import compare
from supervisor.runtime import Runtime
from supervisor.sd_notify import Notifier
from supervisor.signals import SignalQueue
from supervisor.telling import ChildrenFile, OwnRow, Teller

TICK_NS: Final = 20_000_000  # while a child starts, hangs or stops: nobody tells us of a word that changes
SLOW_TICK_NS: Final = 250_000_000  # else: beats are looked at four times a second, as often as they come
AWAY_NS: Final = 1_000_000_000  # the loop itself was stopped or starved for longer: what it knows of the children is worthless

log = logging.getLogger("supervisor")


class Phase(Enum):
    """What the supervisor is doing as a whole."""

    RUNNING = "running"
    STOPPING = "stopping"
    REMAKING = "remaking"  # stop all, make the shared files anew, start all


class Supervisor:
    """Runs a plan until it is told to stop. Made, run and closed by `__main__`."""

    def __init__(
        self,
        plan: Plan,
        *,
        environment: Mapping[str, str],
        reread: Callable[[], Plan],
        notifier: Notifier,
        announce: Callable[[], None],
        rng: Random,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """environment: of every child. reread: the plan of the settings as they are now. announce: called once when ready.

        Makes the shared files: raises what `Runtime` raises.
        """
        self._environment = environment
        self._reread = reread
        self._rng = rng
        self._now_ns = monotonic_ns
        self._selector = selectors.DefaultSelector()
        # Before any file is made: a signal that comes from now on is answered by the ordered stop.
        self._signals = SignalQueue()
        self._selector.register(self._signals.fileno(), selectors.EVENT_READ, self._signals)
        self._teller = Teller(notifier, announce)
        self._phase = Phase.RUNNING
        self._code = ExitCode.STOPPED
        self._next_plan: Plan | None = None
        self._turn_ns = monotonic_ns()
        self._make(plan)

    def run(self) -> ExitCode:
        """Start, keep, stop. Returns the exit code of the supervisor; raises what nobody expected."""
        while not (self._phase is Phase.STOPPING and not self._keeper.running):
            self._turn()
        return self._code

    def close(self) -> None:
        """Say STOPPED and remove the shared files. After `run` has returned: no child is left."""
        self._row.state(State.STOPPED)
        self._runtime.close()
        self._selector.close()
        self._signals.close()

    def _make(self, plan: Plan) -> None:
        self._runtime = Runtime(plan)
        self._keeper = Keeper(plan, self._runtime, self._environment, self._selector, self._rng)
        self._row = OwnRow(self._runtime.board.row(0))
        self._children_file = ChildrenFile()

    # --- one turn -----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        events = self._selector.select(self._timeout_s())
        now_ns = self._now_ns()
        if (away_ns := now_ns - self._turn_ns) > AWAY_NS:
            log.warning("the supervisor itself was away for %.1f s, all hang timers start anew", away_ns / 1e9)
            self._keeper.forgive(away_ns)
        self._turn_ns = now_ns
        for key, _ in events:
            if isinstance(key.data, Child):
                self._keeper.on_readable(key.data, key.fd, now_ns)
            elif isinstance(key.data, SignalQueue):
                self._on_signals(key.data.drain(), now_ns)
        self._row.beat(now_ns)
        self._keeper.look(now_ns)
        if self._phase is Phase.RUNNING:
            self._keep_running(now_ns)
        else:
            self._keep_stopping(now_ns)
        self._children_file.keep(self._keeper, self._runtime)

    def _timeout_s(self) -> float:
        now_ns = self._now_ns()
        turn_ns = now_ns + (TICK_NS if self._keeper.in_motion else SLOW_TICK_NS)
        start_ns = self._keeper.next_start_ns()
        return max(0, (turn_ns if start_ns is None else min(turn_ns, start_ns)) - now_ns) / 1e9

    def _keep_running(self, now_ns: int) -> None:
        self._keeper.start_due(now_ns)
        self._teller.running(self._keeper, now_ns)
        ingest = next(iter(self._keeper.standings(Role.INGEST)), Standing("ingest", None))
        if reason := policy.escalation(ingest, self._keeper.standings(Role.ENGINE), self._keeper.limits, now_ns):
            log.critical("given up: %s", reason)
            self._stop(ExitCode.GIVEN_UP, reason, now_ns)

    def _keep_stopping(self, now_ns: int) -> None:
        self._keeper.advance_stop(now_ns)
        self._teller.status(self._keeper)
        if self._phase is Phase.REMAKING and self._next_plan is not None and not self._keeper.running:
            plan, self._next_plan = self._next_plan, None
            self._runtime.close()
            self._make(plan)
            self._phase = Phase.RUNNING

    # --- signals ------------------------------------------------------------------------------------------------------

    def _on_signals(self, numbers: list[int], now_ns: int) -> None:
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop(ExitCode.STOPPED, signal.Signals(number).name, now_ns)
            elif number == signal.SIGHUP:
                self._reload(now_ns)
            elif number == signal.SIGUSR1:
                self._dump_all()
            elif number == signal.SIGUSR2:
                self._keeper.roll(child for child in self._keeper.children if child.spec.reload is Reload.HANGUP)

    def _stop(self, code: ExitCode, reason: str, now_ns: int) -> None:
        """Begin the ordered stop; once it has begun, further requests change nothing."""
        if self._phase is Phase.STOPPING:
            return
        log.info("stopping everything: %s", reason)
        self._code = code
        self._teller.stopping(reason)
        self._row.state(State.STOPPING)
        if self._phase is Phase.RUNNING:
            self._keeper.begin_stop(now_ns)
        self._phase, self._next_plan = Phase.STOPPING, None

    def _dump_all(self) -> None:
        log.info("stack dumps of all children follow")
        for child in self._keeper.children:
            child.dump()

    def _reload(self, now_ns: int) -> None:
        """SIGHUP: check first, then touch. Refused settings change nothing."""
        if self._phase is not Phase.RUNNING:
            log.warning("SIGHUP while everything stops: not done")
            return
        try:
            plan = self._reread()
            change = compare(self._keeper.plan, plan)
        except ConfigError as error:
            for violation in error.violations:
                log.error("settings not reloaded: %s", violation)
            return
        log.info("settings reloaded: %s", change)
        logging.getLogger().setLevel(plan.settings.log.level)
        if change.all:
            self._next_plan, self._phase = plan, Phase.REMAKING
            self._keeper.begin_stop(now_ns)
            return
        self._runtime.write_settings(plan)
        self._keeper.adopt(plan, now_ns)
        named = {child.spec.name: child for child in self._keeper.children}
        self._keeper.restart((named[name] for name in change.restart), now_ns)
        self._keeper.roll(named[name] for name in change.hangup)
