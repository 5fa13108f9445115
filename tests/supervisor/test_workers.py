"""Workers of the API: found by their beat, and never anybody else in their place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpengine.config import SupervisorSettings
from shm.board import Board, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.liveness import start_ticks
from supervisor.policy import HangReason, Limits
from supervisor.workers import WorkerWatch
from tests.supervisor.rig import gone, until

S = 1_000_000_000
LIMITS = Limits.of(SupervisorSettings())
SLEEPER = "import signal, time; signal.signal(signal.SIGUSR1, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


class Pool:
    """A process in the part of a worker (and, leading its group, of the master), its row and the watch."""

    def __init__(self, directory: Path) -> None:
        self.board = Board.create(directory / "board", [RowName("api-0", Role.API_WORKER, 0)], {})
        self.view = self.board.supervisor_view(0)
        self.row = BoardRow.attach(directory / "board", 0)
        self.watch = WorkerWatch([("api-0", self.view)])
        self.process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, process_group=0)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.row.set(Word.PID, self.process.pid)
        self.row.set(Word.START_TICKS, start_ticks(self.process.pid) or 0)
        self.row.set(Word.STATE, State.LIVE)

    def look(self, second: float, *, beat: bool = False, master: int | None = -1) -> None:
        """One turn at that time."""
        if beat:
            self.row.beat(round(second * S) + 1)
        self.watch.look(self.process.pid if master == -1 else master, LIMITS, round(second * S))

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.row.close()
        self.board.close()


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    one = Pool(tmp_path)
    yield one
    one.close()


@pytest.mark.covers("F5", "P2")
def test_worker_without_a_beat_is_asked_for_its_stacks_and_killed(pool: Pool) -> None:
    for second in (1, 1.5, 3.9, 4.0, 4.4):
        pool.look(second)
    assert not gone(pool.process.pid), "it was asked for its stacks"
    assert pool.view.get(Word.KILLS) == 0
    pool.look(4.5)
    until("its end", lambda: gone(pool.process.pid))
    assert pool.view.get(Word.KILLS) == 1
    assert pool.view.get(Word.HANG_REASON) == HangReason.NO_BEAT
    for second in (6, 7, 8):
        pool.look(second)
    assert pool.view.get(Word.KILLS) == 1, "the dead are not killed again"


def test_beating_worker_and_one_that_beats_again_are_left_alone(pool: Pool) -> None:
    for second in range(1, 60):
        pool.look(second, beat=second % 2 == 0)
    pool.look(60)
    pool.look(64)
    pool.look(64.2, beat=True)
    for tenth in range(643, 700):
        pool.look(tenth / 10, beat=tenth % 10 == 0)
    assert not gone(pool.process.pid)
    assert pool.view.get(Word.KILLS) == 0


@pytest.mark.parametrize("how", ["no master", "starting", "foreign group", "another process"])
@pytest.mark.covers("E-M12")
def test_nobody_else_is_killed_in_its_place(pool: Pool, how: str) -> None:
    if how == "starting":
        pool.row.set(Word.STATE, State.STARTING)
    if how == "another process":
        pool.row.set(Word.START_TICKS, 1)
    master = {"no master": None, "foreign group": 1}.get(how, -1)
    for second in range(1, 20):
        pool.look(second, master=master)
    assert not gone(pool.process.pid)
    assert pool.view.get(Word.KILLS) == 0


@pytest.mark.covers("F17")
def test_forgiven_worker_has_its_time_again(pool: Pool) -> None:
    pool.look(1)
    pool.look(1.5)
    pool.watch.forgive()
    for second in (100, 102.9):
        pool.look(second)
    assert not gone(pool.process.pid)
    assert pool.watch.answers()
