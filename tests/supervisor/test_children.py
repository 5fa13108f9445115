"""One child, with real processes: spawn, look, signal, reap, and what happens when the system refuses."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shm.board import Board, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.liveness import start_ticks
from supervisor.children import Child, Surroundings
from supervisor.exitcodes import ExitCode
from supervisor.plan import ProcessSpec, Stage, Watch
from supervisor.policy import Ended, HangReason
from tests.supervisor.rig import until


class Bench:
    """A child whose program is given as Python text."""

    def __init__(self, directory: Path) -> None:
        self.lines: list[tuple[bytes, str, int]] = []
        self.board = Board.create(directory / "board", [RowName("worker", Role.ENGINE, 0)], {})
        self.row = BoardRow.attach(directory / "board", 0)
        self.around = Surroundings({"PATH": "/bin"}, {}, lambda *line: self.lines.append(line))
        self.child = self.make("pass")

    def make(self, program: str, watch: Watch = Watch.BEAT) -> Child:
        spec = ProcessSpec("worker", Role.ENGINE, 0, Stage.ENGINES, ("-c", program), watch)
        self.child = Child(spec, self.board.supervisor_view(0))
        return self.child

    def reap(self) -> Ended:
        """Wait for the end, then collect it."""
        life = self.child.life
        assert life is not None
        until("the end", lambda: start_ticks(life.process.pid) is None)
        return self.child.reap(5)

    def close(self) -> None:
        if self.child.running:
            self.child.kill(HangReason.NONE)
            self.reap()
        self.row.close()
        self.board.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    one = Bench(tmp_path)
    yield one
    one.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.covers("P14", "E-C2")
@pytest.mark.parametrize(
    ("program", "ended"),
    [
        ("print('bye')", Ended(code=0)),
        ("import sys; print('bye', file=sys.stderr); sys.exit(7)", Ended(code=7)),
        ("import os; print('bye', flush=True); os.kill(os.getpid(), 11)", Ended(signal=11)),
    ],
)
def test_end_and_last_words_are_kept_and_nothing_stays_open(bench: Bench, program: str, ended: Ended) -> None:
    before = descriptors()
    child = bench.make(program)
    child.spawn(bench.around, 1)
    pid = child.pid
    assert child.state is State.STARTING
    assert bench.reap() == child.ended == ended
    assert child.last_text == "bye"
    assert bench.lines == [(b"bye", "worker", pid)]
    assert (child.read(Word.LAST_EXIT), child.read(Word.LAST_SIGNAL)) == (ended.code or 0, ended.signal or 0)
    assert child.pid is None
    assert descriptors() == before


def test_lives_are_counted(bench: Bench) -> None:
    child = bench.make("pass")
    for life in (1, 2, 3):
        child.spawn(bench.around, life)
        bench.reap()
        assert (child.read(Word.GENERATION), child.read(Word.RESTARTS)) == (life, life - 1)


def test_live_is_believed_only_of_this_life(bench: Bench) -> None:
    child = bench.make("import time; time.sleep(600)")
    bench.row.start(Role.ENGINE, 0, 1)
    bench.row.set(Word.STATE, State.LIVE)
    child.spawn(bench.around, 1)
    assert not child.says_live(), "the row of an earlier life"
    assert child.life is not None
    bench.row.set(Word.PID, child.life.process.pid)
    assert not child.says_live(), "the same pid is not the same process"
    bench.row.set(Word.START_TICKS, child.life.ticks)
    assert child.says_live()


def test_only_its_own_sigkill_is_no_suspicion(bench: Bench) -> None:
    child = bench.make("import time; time.sleep(600)")
    child.spawn(bench.around, 1)
    child.kill(HangReason.NO_BEAT)
    child.kill(HangReason.STOP_TIMEOUT)
    assert bench.reap() == Ended(signal=9)
    assert (child.read(Word.KILLS), child.read(Word.OOM_SUSPECTED), child.read(Word.HANG_REASON)) == (1, 0, HangReason.NO_BEAT)
    child.spawn(bench.around, 2)
    child.send(signal.SIGKILL)
    bench.reap()
    assert (child.read(Word.KILLS), child.read(Word.OOM_SUSPECTED)) == (1, 1)


def test_signals_to_the_ended_and_to_nobody_do_nothing(bench: Bench) -> None:
    child = bench.make("pass")
    child.send(signal.SIGTERM)
    child.dump()
    child.spawn(bench.around, 1)
    assert child.life is not None
    pid = child.life.process.pid
    until("the end", lambda: start_ticks(pid) is None)
    child.send(signal.SIGTERM)
    assert child.reap(2) == Ended(code=0)


@pytest.mark.covers("P3")
def test_process_stopped_by_a_signal_is_seen_as_such(bench: Bench) -> None:
    child = bench.make("import time; time.sleep(600)")
    child.spawn(bench.around, 1)
    assert not child.seen(0, 2).stopped
    child.send(signal.SIGSTOP)
    until("state T", lambda: child.seen(0, 2).stopped)


def test_hang_of_an_engine_is_about_its_ring_and_of_others_about_the_beat(bench: Bench) -> None:
    child = bench.make("import time; time.sleep(600)", Watch.PROGRESS)
    child.spawn(bench.around, 1)
    child.enter(State.LIVE, 1)
    bench.row.set(Word.PROGRESS, 5)
    assert [child.seen(10, t).stalled_ns for t in (10, 20, 30)] == [0, 0, 0]
    assert [child.seen(11, t).stalled_ns for t in (40, 50)] == [0, 10]
    assert child.seen(11, 60).reason is HangReason.NO_PROGRESS
    bench.row.set(Word.PROGRESS, 6)
    assert child.seen(11, 70).stalled_ns == 0


@pytest.mark.covers("F14", "E-C2")
@pytest.mark.parametrize("what", ["subprocess.Popen", "os.pidfd_open"])
def test_refused_start_counts_as_a_death_and_leaves_nothing(bench: Bench, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(real(*args, **kwargs))
        return started[-1]

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(24, "Too many open files")

    before = descriptors()
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(what, refuse)
    with pytest.raises(OSError) as refused:
        bench.child.spawn(bench.around, 1)
    monkeypatch.undo()
    assert bench.child.refused(refused.value, 2) == Ended()
    assert bench.child.state is State.DEAD
    assert bench.child.last_text == "cannot start: Too many open files"
    assert all(process.returncode is not None for process in started), "no child that nobody watches"
    assert descriptors() == before


def test_missing_interpreter_is_not_tried_again_and_again(bench: Bench) -> None:
    assert bench.child.refused(FileNotFoundError(2, "No such file or directory"), 1) == Ended(code=ExitCode.BOOT_FAILED)


def test_child_leads_its_own_group(bench: Bench) -> None:
    child = bench.make("import time; time.sleep(600)")
    child.spawn(bench.around, 1)
    assert child.pid is not None
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)
