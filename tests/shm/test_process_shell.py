"""What every process does alike, with real processes where signals and exit codes are concerned."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shm.board import Board, BoardReader, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.process_shell import NullRow, die_with_parent, measure_into, open_descriptors, rss_bytes

PROGRAM = """
import os, signal, sys
from pathlib import Path
from shm.process_shell import *
from shm.errors import *
from shm.board_words import Word
board = Path(sys.argv[1]) if sys.argv[1] else None
def main():
    shell = ProcessShell("worker", Role.TOOL, board=board, row=1 if board else None, index=4)
    {body}
run_main(main)
"""


def run(body: str, board: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A process whose main has this body."""
    command = [sys.executable, "-c", PROGRAM.format(body=body), str(board or "")]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment)


def messages(ended: subprocess.CompletedProcess[str]) -> list[str]:
    return [json.loads(line)["message"] for line in ended.stderr.splitlines() if line.startswith("{")]


@pytest.mark.covers("T-H3", "P6")
@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ("return 0", 0, None),
        ("raise ValueError('boo')", 1, "uncaught exception"),
        ("raise BootFailure('port in use')", 3, "cannot start: BootFailure: port in use"),
        ("raise Locked(Path('a/ring'), 7)", 3, "cannot start: Locked: ring is held by process 7"),
        ("raise LayoutMismatch('magic')", 3, "cannot start: LayoutMismatch: magic"),
        ("raise IdentityMismatch('symbol', 'BTC', 'ETH')", 3, "cannot start: IdentityMismatch: symbol of the file is"),
        ("raise Missing('not yet')", 1, "uncaught exception"),
        ("from mpengine.config import ConfigError; raise ConfigError(['a: bad', 'b: bad'])", 3, "refused: a: bad"),
        ("sys.exit(4)", 4, None),
    ],
)
def test_end_of_main_becomes_an_exit_code(body: str, code: int, text: str | None) -> None:
    ended = run(body)
    assert ended.returncode == code
    assert text is None or any(message.startswith(text) for message in messages(ended)), ended.stderr
    assert ended.stdout == ""


def test_uncaught_exception_leaves_its_traceback() -> None:
    line = json.loads(run("raise ValueError('boo')").stderr.splitlines()[-1])
    assert line["traceback"].endswith("ValueError: boo")


@pytest.mark.covers("A2-H5", "E-M6", "S-M3")
def test_repeated_stop_signals_call_on_stop_once() -> None:
    ended = run(
        "calls = []; shell.install_signals(lambda: calls.append(1)); shell.live()\n"
        "    [os.kill(os.getpid(), n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM)]\n"
        "    shell.beat(); assert shell.stopping and calls == [1]; shell.close(); return 0"
    )
    assert ended.returncode == 0, ended.stderr
    assert messages(ended) == ["worker is live", "worker stops: SIGTERM"]


@pytest.mark.covers("F6")
def test_stack_dump_on_request() -> None:
    ended = run("os.kill(os.getpid(), signal.SIGUSR1); return 0")
    assert ended.returncode == 0
    assert "Current thread" in ended.stderr
    assert "in main" in ended.stderr


@pytest.mark.covers("P8")
def test_orphan_does_not_start() -> None:
    ended = run("return 0", env={"MPENGINE_PARENT": "1"})
    assert ended.returncode == 3
    assert messages(ended) == ["cannot start: BootFailure: the supervisor (process 1) is gone"]
    assert run("return 0", env={"MPENGINE_PARENT": str(os.getpid())}).returncode == 0


@pytest.mark.covers("P8")
def test_parent_that_is_gone_later_stops_the_process() -> None:
    body = "shell._parent, shell._measured_ns = 1, 0; shell.beat(); assert shell.stopping; return 0"
    assert run(body).returncode == 0


def test_row_tells_the_life_of_the_process(tmp_path: Path) -> None:
    rows = [RowName("supervisor", Role.SUPERVISOR, 0), RowName("worker", Role.TOOL, 4)]
    with Board.create(tmp_path / "board", rows, {}), BoardReader.open(tmp_path / "board") as board:
        for life in (1, 2):
            body = "shell.live(); shell.beat(progress=17); shell.row.add(Word.EVENTS); shell.close(); return 0"
            assert run(body, tmp_path / "board").returncode == 0
            words = board.row(1)
            assert words["epoch"] == life
            assert words["role"] == Role.TOOL * 1000 + 4
            assert words["state"] == State.STOPPED
            assert words["progress"] == 17
            assert words["events"] == life, "counters go on over restarts"
            assert words["rss_bytes"] > 1 << 20
            assert words["open_fds"] >= 3


def test_null_row_keeps_words_like_a_real_one(tmp_path: Path) -> None:
    null = NullRow()
    with Board.create(tmp_path / "board", [RowName("a", Role.TOOL, 0)], {}), BoardRow.attach(tmp_path / "board", 0) as real:
        for row in (null, real):
            row.start(Role.ENGINE, 3, 9)
            row.beat(5)
            row.add(Word.EVENTS)
            row.add(Word.EVENTS, 2)
            row.set(Word.BACKLOG, 8)
        for word in (Word.PID, Word.ROLE, Word.EPOCH, Word.STATE, Word.BEAT_NS, Word.EVENTS, Word.BACKLOG, Word.GAPS):
            assert null.get(word) == real.get(word)
    null.close()


@pytest.mark.covers("F14")
def test_process_without_a_free_descriptor_goes_on_beating() -> None:
    ended = run(
        "import resource; shell._measured_ns = 0\n    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 100)); shell.beat(); return 0"
    )
    assert ended.returncode == 0, ended.stderr
    assert "memory and descriptors cannot be read: Too many open files" in messages(ended)


def test_own_numbers_are_measured() -> None:
    row = NullRow()
    measure_into(row)
    assert row.get(Word.RSS_BYTES) > 1 << 20
    before = open_descriptors()
    with Path("/dev/null").open("rb"):
        assert open_descriptors() == before + 1
    assert rss_bytes() > 1 << 20


def test_log_has_the_name_of_the_program_where_the_main_did_not_come_so_far() -> None:
    program = "import sys; sys.argv = ['/x/tool.py']; from shm.process_shell import *; run_main(lambda: 1 // 0)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert json.loads(ended.stderr)["process"] == "tool"


@pytest.mark.covers("P8")
def test_process_that_may_not_bind_itself_to_its_parent_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        @staticmethod
        def prctl(*_: int) -> int:
            return -1

    monkeypatch.setattr("ctypes.CDLL", lambda *_args, **_kwargs: Refusing)
    die_with_parent(os.getppid())


@pytest.mark.covers("P8")
def test_die_with_parent_refuses_a_parent_that_is_gone() -> None:
    program = "import os, sys; from shm.process_shell import *; die_with_parent(os.getppid()); die_with_parent(1)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert "BootFailure: the parent (process 1) is gone" in ended.stderr
