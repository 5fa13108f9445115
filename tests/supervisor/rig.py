"""A supervised tree under test: start it, look at its board, hurt its processes, and leave none of them behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from shm.board import BoardReader
from shm.board_words import State, Word
from shm.directories import runtime_folder
from shm.liveness import boot_id, start_ticks
from shm.paths import Paths

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("drive.py")
DEADLINE_S = 30.0

# Short times, so that a test does not wait for what takes minutes in production; their proportions stay.
QUICK = {
    "api.host": "127.0.0.1", "api.port": "0", "api.workers": "1", "api.rate_limits": "false", "engine.ring_units": "4096",
    "supervisor.restart_budget": "3", "supervisor.backoff_first_s": "0.02", "supervisor.hang_after_s": "0.8",
    "supervisor.stack_dump_s": "0.3", "supervisor.start_timeout_s": "10", "supervisor.failed_retry_s": "60",
    "supervisor.stop_timeout_s": "5",
}  # fmt: skip


def until(what: str, condition: Callable[[], T], deadline_s: float = DEADLINE_S) -> T:
    """The first true value of `condition`; AssertionError where there is none in time."""
    end = time.monotonic() + deadline_s
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.005)


def gone(pid: int) -> bool:
    """The process has ended (a zombie has, too)."""
    return start_ticks(pid) is None


class Tree:
    """One supervisor with its children. `directory` holds data and runtime directories and survives `stop`."""

    def __init__(self, directory: Path, settings: Mapping[str, str], command: Sequence[str], env: Mapping[str, str]) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.data.mkdir(exist_ok=True)
        self.folder = runtime_folder(directory / "run", "default", boot_id()[0])
        self.paths = Paths(self.data, self.folder)
        self.log_path = directory / "log"
        self._settings = settings
        self._command = command
        self._env = env
        self._board: BoardReader | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: bool = True, extra: Sequence[str] = (), stderr: int | None = None) -> None:
        """Start the supervisor and wait for its ready line. stderr: a descriptor in the place of the log file."""
        self._close_stdout()
        sets = [part for key, value in self._settings.items() for part in ("--set", f"{key}={value}")]
        sources = [] if "--config" in extra else ["--no-config"]
        places = ["--data-dir", str(self.data), "--runtime-dir", str(self.directory / "run")]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._command, *sources, *places, *sets, *extra],
                stdout=subprocess.PIPE, stderr=log if stderr is None else stderr,
                cwd=ROOT, env={**os.environ, **self._env}, process_group=0,
            )  # fmt: skip
        if wait:
            line = self.read_line()
            assert line.startswith("ready http://127.0.0.1:"), f"{line!r}: {self.log()[-3000:]}"
            self.url = line.split()[1]

    def read_line(self) -> str:
        """The next line of the supervisor's stdout, empty at its end."""
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_S)
        assert ready, f"no line on stdout: {self.log()[-3000:]}"
        return self.process.stdout.readline().decode().rstrip("\n")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask for the ordered stop and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Exit code of the supervisor once it has ended."""
        assert self.process is not None
        return self.process.wait(DEADLINE_S)

    def kill_everything(self) -> None:
        """Whatever state it is in: no process of this tree survives."""
        pids = self.pids() if self.process is not None else {}
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(DEADLINE_S)
            self._close_stdout()
        for name, pid in pids.items():
            until(f"end of {name}", lambda pid=pid: gone(pid))
        self.forget_board()

    def _close_stdout(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()

    def modes(self, **modes: dict[str, Any]) -> None:
        """What dummies do in their next life; `engine_BTC={"mode": "exit", "code": 3}`."""
        (self.data / "modes.json").write_text(json.dumps({name.replace("_", "-"): mode for name, mode in modes.items()}), "utf-8")

    def forget_board(self) -> None:
        """The next look opens the board anew."""
        if self._board is not None:
            self._board.close()
            self._board = None

    @property
    def board(self) -> BoardReader:
        """Of this tree, opened again when it was replaced."""
        if self._board is None or self._board.replaced():
            self.forget_board()
            self._board = BoardReader.open(self.paths.board)
        return self._board

    def word(self, name: str, word: Word) -> int:
        """One word of the row called `name`."""
        row = self.board.row_of(name)
        assert row is not None, name
        return self.board.get(row, word)

    def state(self, name: str) -> State:
        """As the supervisor sees it."""
        return State(self.word(name, Word.ACTUAL))

    def child(self, name: str) -> int:
        """Pid from the row of a process."""
        return self.word(name, Word.PID)

    def pids(self) -> dict[str, int]:
        """Every process that has a row, the supervisor apart."""
        try:
            names = self.board.names()[1:]
        except Exception:  # noqa: BLE001  no board, no children
            return {}
        return {name: pid for name in names if (pid := self.child(name)) and not gone(pid)}

    def await_new_life(self, name: str, generation: int) -> None:
        """Until the child is LIVE in a later life than `generation`."""
        until(f"a new life of {name}", lambda: self.word(name, Word.GENERATION) > generation and self.state(name) is State.LIVE)

    def log(self) -> str:
        """Everything that went to stderr so far."""
        return self.log_path.read_text("utf-8")

    def lines(self) -> list[dict[str, Any]]:
        """The log as objects; every line must be one."""
        return [json.loads(line) for line in self.log().splitlines()]

    def await_log_match(self, pattern: str, start: int) -> None:
        """Until the log matches behind its first `start` characters."""
        try:
            until(f"{pattern} in the log", lambda: re.search(pattern, self.log()[start:]))
        except AssertionError as error:
            raise AssertionError(self.log()[start:][:5000]) from error

    def await_log(self, text: str) -> str:
        """Until the log contains `text`; the whole log."""
        return until(f"{text!r} in the log", lambda: log if text in (log := self.log()) else "")


@contextlib.contextmanager
def tree(
    settings: Mapping[str, str] | None = None, *, command: Sequence[str] = (str(DRIVER),), env: Mapping[str, str] | None = None
) -> Iterator[Tree]:
    """A tree of dummies (or of the real programs, with another command) that is gone afterwards, whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix="mpengine-tree-", dir="/dev/shm"))
    one = Tree(directory, {**QUICK, **(settings or {})}, command, env or {})
    one.modes()
    try:
        yield one
    finally:
        one.kill_everything()
        shutil.rmtree(directory)
