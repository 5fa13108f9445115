"""Watches the workers of the API, which are gunicorn's children: one whose beat stands still is killed, gunicorn starts another.

Gunicorn watches them too, but its heartbeat may be silent for half of `timeout` (30 s) while a worker drains, so it cannot be
made as quick as the promise. A draining worker goes on beating on the board, so this watch can.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field

from shm.board import SupervisorRow
from shm.board_words import State, Word
from shm.liveness import start_ticks
from supervisor.policy import HANG_TEXTS, HangReason, Limits, ProgressWatch, Seen, Verdict, while_running

log = logging.getLogger("supervisor.workers")


@dataclass(slots=True)
class _Worker:
    name: str
    view: SupervisorRow
    ticks: int = 0
    watch: ProgressWatch = field(default_factory=ProgressWatch)
    state: State = State.LIVE
    since_ns: int = 0


class WorkerWatch:
    """One for all workers of one gunicorn."""

    def __init__(self, workers: Iterable[tuple[str, SupervisorRow]]) -> None:
        """(name, supervisor's words) of each worker's row."""
        self._workers = [_Worker(name, view) for name, view in workers]

    def answers(self) -> bool:
        """At least one worker has come up: gunicorn's master is LIVE as soon as it listens."""
        return any(worker.view.get(Word.STATE) == State.LIVE for worker in self._workers)

    def forgive(self) -> None:
        """The supervisor was away: count from now."""
        for worker in self._workers:
            worker.watch.forgive()

    def look(self, master: int | None, limits: Limits, now_ns: int) -> None:
        """Once per turn. master: pid of gunicorn, None while it does not run."""
        for worker in self._workers:
            if master is not None and worker.view.get(Word.STATE) == State.LIVE:
                self._look_at(worker, master, limits, now_ns)

    def _look_at(self, worker: _Worker, master: int, limits: Limits, now_ns: int) -> None:
        if (ticks := worker.view.get(Word.START_TICKS)) != worker.ticks:
            worker.ticks, worker.watch, worker.state = ticks, ProgressWatch(), State.LIVE
        stalled_ns = worker.watch.observe(worker.view.get(Word.BEAT_NS), now_ns, now_ns)
        verdict, reason = while_running(Seen(worker.state, worker.since_ns, stalled_ns, HangReason.NO_BEAT), limits, now_ns)
        if verdict is Verdict.KEEP:
            return
        worker.state, worker.since_ns = State.LIVE if verdict is Verdict.REVIVE else State.HUNG, now_ns
        if verdict is Verdict.DUMP and _send(worker, master, signal.SIGUSR1):
            log.error("%s hangs: %s; stack dump, then SIGKILL", worker.name, HANG_TEXTS[reason])
        elif verdict is Verdict.KILL and _send(worker, master, signal.SIGKILL):
            log.error("%s is killed: %s", worker.name, HANG_TEXTS[reason])
            worker.view.set(Word.HANG_REASON, reason)
            worker.view.add(Word.KILLS)


def _send(worker: _Worker, master: int, number: int) -> bool:
    """Signal the process of the row, if it still is the one that wrote it and belongs to our gunicorn; True when it was sent."""
    pid = worker.view.get(Word.PID)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:  # gone; gunicorn knows
        return False
    try:
        # Looked at behind the open: from then on the number cannot pass to another process unnoticed.
        ours = start_ticks(pid) == worker.ticks and os.getpgid(pid) == master
        if ours:
            signal.pidfd_send_signal(pidfd, number)
        return ours
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
