"""Keeps the children of one plan: starts what is due, asks the policy about the dead and the late, stops stage by stage.

Three verbs, each safe to repeat on every turn of the loop: `look`, `start_due`, `advance_stop`. What is decided is in `policy`,
how it is done to a process in `children`; this file only brings the two together and says so in the log.
"""

from __future__ import annotations

import logging
import selectors
import signal
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final

from shm import process_log
from shm.board_words import Role, State, Word
from supervisor import policy
from supervisor.children import Child, Surroundings
from supervisor.exitcodes import describe
from supervisor.plan import Plan
from supervisor.policy import Ended, Fail, HangReason, Limits, Standing, Verdict
from supervisor.runtime import Runtime
from supervisor.workers import WorkerWatch

IN_MOTION: Final = frozenset({State.STARTING, State.HUNG, State.STOPPING})

log = logging.getLogger("supervisor.keeper")


class Keeper:
    """Children of one plan on one set of shared files. `lives` counts ended lives, so that others notice."""

    def __init__(
        self, plan: Plan, runtime: Runtime, environment: Mapping[str, str], selector: selectors.BaseSelector, rng: Random
    ) -> None:
        """selector: of the loop; pidfds and output of children are registered there with the child as data."""
        self.plan = plan
        self.limits = Limits.of(plan.settings.supervisor)
        self.children = [Child(spec, runtime.board.supervisor_view(spec.row)) for spec in plan.processes]
        self.stopping = False
        self.lives = 0
        rows = ((name, runtime.board.supervisor_view(row)) for row, name in enumerate(plan.rows))
        self.workers = WorkerWatch((name.name, view) for name, view in rows if name.role is Role.API_WORKER)
        self._runtime = runtime
        self._around = Surroundings(environment, runtime.doorbells, _forward)
        self._selector = selector
        self._rng = rng
        self._stop_began_ns = 0

    # --- what the loop asks -------------------------------------------------------------------------------------------

    @property
    def in_motion(self) -> bool:
        """Something is about to change without a pidfd telling it."""
        return self.stopping or any(child.state in IN_MOTION for child in self.children)

    @property
    def running(self) -> list[Child]:
        """Children that have a process."""
        return [child for child in self.children if child.running]

    def next_start_ns(self) -> int | None:
        """When the next child in BACKOFF or FAILED is due."""
        return min((child.start_at_ns for child in self.children if child.start_at_ns is not None), default=None)

    def of(self, role: Role) -> list[Child]:
        """Children of one role."""
        return [child for child in self.children if child.spec.role is role]

    def standings(self, role: Role) -> tuple[Standing, ...]:
        """For the escalation: since when each child of the role is given up."""
        return tuple(
            Standing(child.spec.name, None if child.state is State.LIVE else child.history.failed_since_ns)
            for child in self.of(role)
        )

    # --- events of the selector ---------------------------------------------------------------------------------------

    def on_readable(self, child: Child, fd: int, now_ns: int) -> None:
        """The pidfd (it has ended) or the output of a child can be read. Stale events of a reaped child do nothing."""
        if child.life is None:
            return
        if fd == child.life.pidfd:
            self._on_death(child, now_ns)
        elif fd == child.life.output.fd and not child.life.output.read(now_ns):
            # It closed its output and lives on; the descriptor would be readable for ever.
            self._selector.unregister(fd)

    def _on_death(self, child: Child, now_ns: int) -> None:
        assert child.life is not None, "its pidfd was readable"
        output = child.life.output
        self._selector.unregister(child.life.pidfd)
        if output.fd in self._selector.get_map():
            self._selector.unregister(output.fd)
        planned = child.state is State.STOPPING
        ended = child.reap(now_ns)
        if output.dropped:
            log.warning("%d lines of %s were not passed on", output.dropped, child.spec.name)
        child.enter(State.DEAD, now_ns)
        self._after_death(child, ended, planned, now_ns)

    def _after_death(self, child: Child, ended: Ended, planned: bool, now_ns: int) -> None:
        self.lives += 1
        how = describe(ended.code, ended.signal)
        if self.stopping:
            log.info("%s stopped: %s", child.spec.name, how)
            child.enter(State.STOPPED, now_ns)
        elif planned:
            log.info("%s ended for a planned restart: %s", child.spec.name, how)
            self._schedule(child, State.BACKOFF, now_ns, now_ns)
        else:
            self._decide(child, ended, how, now_ns)

    def _decide(self, child: Child, ended: Ended, how: str, now_ns: int) -> None:
        if ended.signal == signal.SIGKILL and not child.killed:
            how += ", out of memory?"
        jitter = self._rng.random()
        action, child.history = policy.after_exit(ended, child.live_ns, child.history, self.limits, now_ns, jitter)
        child.note(Word.FAILED_SINCE_NS, child.history.failed_since_ns or 0)
        if isinstance(action, Fail):
            log.error("%s ended: %s; FAILED: %s; last line: %s", child.spec.name, how, action.reason, child.last_text)
            self._schedule(child, State.FAILED, action.at_ns, now_ns)
        else:
            delay_ms = (action.at_ns - now_ns) / 1e6
            log.warning("%s ended: %s; restart in %.0f ms; last line: %s", child.spec.name, how, delay_ms, child.last_text)
            self._schedule(child, State.BACKOFF, action.at_ns, now_ns)

    def _schedule(self, child: Child, state: State, at_ns: int, now_ns: int) -> None:
        child.enter(state, now_ns)
        child.start_at_ns = at_ns
        child.note(Word.BACKOFF_UNTIL_NS, at_ns)

    # --- starting -----------------------------------------------------------------------------------------------------

    def start_due(self, now_ns: int) -> None:
        """Start what was never started, in order, and what is due again. Later stages wait for a child that says so."""
        wait = False
        for child in self.children:
            first = child.state is State.NONE and not wait
            if first or (child.start_at_ns is not None and now_ns >= child.start_at_ns):
                self._spawn(child, now_ns)
            wait = wait or (child.spec.waits_for and child.state not in (State.LIVE, State.FAILED))

    def _spawn(self, child: Child, now_ns: int) -> None:
        try:
            child.spawn(self._around, now_ns)
        except OSError as error:
            self._after_death(child, child.refused(error, now_ns), planned=False, now_ns=now_ns)
            return
        assert child.life is not None, "it has just been started"
        self._selector.register(child.life.pidfd, selectors.EVENT_READ, child)
        self._selector.register(child.life.output.fd, selectors.EVENT_READ, child)
        log.info("%s started as process %d", child.spec.name, child.pid)

    # --- looking ------------------------------------------------------------------------------------------------------

    def look(self, now_ns: int) -> None:
        """Read the words of every running child and act on what they say."""
        for child in self.running:
            if child.state is State.STOPPING:
                self._kill_late(child, now_ns)
                continue
            self._greet(child, now_ns)
            self._recover(child, now_ns)
            seen = child.seen(self._runtime.ring_head(child.spec.symbol), now_ns)
            self._execute(child, *policy.while_running(seen, self.limits, now_ns), now_ns)
        if not self.stopping:
            masters = [child.pid for child in self.of(Role.API_MASTER) if child.state is State.LIVE]
            self.workers.look(masters[0] if masters else None, self.limits, now_ns)

    def forgive(self, away_ns: int) -> None:
        """Whoever stopped or starved the supervisor did the same to the children: nobody is late by what happened meanwhile."""
        for child in self.running:
            child.watch.forgive()
            child.since_ns += away_ns
        self.workers.forgive()

    def _greet(self, child: Child, now_ns: int) -> None:
        late = child.state is State.HUNG and child.hang is HangReason.START_TIMEOUT
        if (child.state is State.STARTING or late) and child.says_live():
            child.live_ns = now_ns
            child.enter(State.LIVE, now_ns)
            log.info("%s is live after %.0f ms", child.spec.name, (now_ns - child.spawned_ns) / 1e6)
        if child.roll_wanted and child.state is State.LIVE:
            child.roll_wanted = False
            log.info("%s rolls its workers", child.spec.name)
            child.send(signal.SIGHUP)

    def _recover(self, child: Child, now_ns: int) -> None:
        history = policy.recovered(child.history, child.live_ns, self.limits, now_ns)
        if history != child.history:
            child.history = history
            child.note(Word.FAILED_SINCE_NS, 0)
        if child.state is State.LIVE and (rss := child.read(Word.RSS_BYTES)) > self.limits.rss_bytes:
            log.error("%s: %d bytes are above supervisor.child_rss_bytes; restarted in order", child.spec.name, rss)
            child.note(Word.HANG_REASON, HangReason.MEMORY)
            self.restart([child], now_ns)

    def _execute(self, child: Child, verdict: Verdict, reason: HangReason, now_ns: int) -> None:
        if child.killed or child.state is State.STOPPING:
            return
        if verdict is Verdict.DUMP:
            log.error("%s hangs: %s; stack dump, then SIGKILL", child.spec.name, policy.HANG_TEXTS[reason])
            child.hang = reason
            child.enter(State.HUNG, now_ns)
            child.dump()
        elif verdict is Verdict.KILL:
            log.error("%s is killed: %s", child.spec.name, policy.HANG_TEXTS[reason])
            child.enter(State.HUNG, now_ns)
            child.kill(reason)
        elif verdict is Verdict.REVIVE:
            log.warning("%s goes on by itself", child.spec.name)
            child.enter(State.LIVE, now_ns)

    # --- stopping and rolling -----------------------------------------------------------------------------------------

    def restart(self, children: Iterable[Child], now_ns: int) -> None:
        """Planned restart: in order, at once, without using up the budget. Those that do not run start by themselves anyway."""
        for child in children:
            if child.running:
                self._tell_to_stop(child, now_ns + self.limits.stop_ns, now_ns)

    def roll(self, children: Iterable[Child]) -> None:
        """SIGHUP as soon as each is LIVE; before that it would end a process that has no handler yet."""
        for child in children:
            child.roll_wanted = child.running

    def adopt(self, plan: Plan, now_ns: int) -> None:
        """New settings for the same processes. A child that is FAILED is tried at once: they may be the cure."""
        self.plan = plan
        self.limits = Limits.of(plan.settings.supervisor)
        specs = {spec.name: spec for spec in plan.processes}
        for child in self.children:
            child.spec = specs[child.spec.name]
            if child.state is State.FAILED:
                child.start_at_ns = now_ns

    def begin_stop(self, now_ns: int) -> None:
        """From now on nothing is started any more; `advance_stop` does the rest."""
        self.stopping = True
        self._stop_began_ns = now_ns
        for child in self.children:
            child.note(Word.DESIRED, State.STOPPED)
            child.start_at_ns = None
            if not child.running:
                child.enter(State.STOPPED, now_ns)

    def advance_stop(self, now_ns: int) -> None:
        """Tell the stage whose turn it is: the last one of the start order that still runs."""
        running = self.running
        if not running:
            return
        stage = max((child.spec.stage for child in running), key=lambda stage: stage.number)
        deadline_ns = self._stop_began_ns + int(self.limits.stop_ns * stage.stop_share)
        for child in running:
            if child.spec.stage is stage:
                self._tell_to_stop(child, deadline_ns, now_ns)

    def _tell_to_stop(self, child: Child, deadline_ns: int, now_ns: int) -> None:
        """SIGTERM once per life; a later call can only bring the deadline forward."""
        if child.killed:
            return
        child.kill_at_ns = deadline_ns if child.kill_at_ns is None else min(child.kill_at_ns, deadline_ns)
        if child.told:
            return
        child.told = True
        child.enter(State.STOPPING, now_ns)
        child.send(signal.SIGTERM)
        # A process stopped by a signal would keep SIGTERM pending until its SIGKILL.
        child.send(signal.SIGCONT)

    def _kill_late(self, child: Child, now_ns: int) -> None:
        if child.kill_at_ns is not None and now_ns >= child.kill_at_ns and not child.killed:
            log.error("%s does not stop: SIGKILL", child.spec.name)
            child.kill(HangReason.STOP_TIMEOUT)


def _forward(line: bytes, name: str, pid: int) -> None:
    if handler := process_log.current():
        handler.forward(line, name, pid)
