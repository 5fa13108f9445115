"""A past for the demo: before the tree starts, the synthetic market is run up to now into rings, a process per symbol.

It is made in a folder beside the data directory's symbols and moved into place when all of it is there, so one that is interrupted
leaves nothing. Rings that end recently are left alone: the exchange and the engines go on from them.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from mpengine.config import Settings, encode
from shm.atomic_file import write_atomic
from shm.errors import ShmError
from shm.frame_ring import FrameReader
from shm.paths import Paths
from shm.process_shell import BootFailure
from supervisor.children import LAUNCHER
from supervisor.plan import interpreter

HOUR_NS: Final = 3600 * 1_000_000_000
MINUTE_NS: Final = 60 * 1_000_000_000
RECENT_NS: Final = 10 * MINUTE_NS
FOLDER: Final = "history.tmp"
"""Where it is made; whatever an earlier one that was killed left there goes. The lock of the instance keeps others away."""
FINISH_S: Final = 60.0

log = logging.getLogger("supervisor.history")


class Interrupted(Exception):
    """A stop signal came while the past was made; nothing of it is left."""


def build(
    settings: Settings, hours: float, environment: Mapping[str, str], say: Callable[[str], None], end_ns: int | None = None
) -> bool:
    """Make a past of `hours` that ends at `end_ns`, None: when it is done. False where the rings go on from a recent end.

    `say` gets lines for people. Older rings are moved aside, never removed. Needs the lock of the instance. Raises Interrupted,
    BootFailure where a worker fails, OSError.
    """
    paths, now_ns = settings.paths, time.time_ns()
    ended_ns = newest(settings)
    if ended_ns is not None and (end_ns or now_ns) - ended_ns < RECENT_NS:
        say(f"the rings end {max(0, now_ns - ended_ns) / 1e9:.0f} s ago: they go on, no history is built")
        return False
    folder = paths.data / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o750)
    start_ns = ((end_ns or now_ns) - round(hours * HOUR_NS)) // MINUTE_NS * MINUTE_NS
    try:
        with _stop_signals():
            _run(settings, folder, start_ns, end_ns, environment, _Progress(hours, say))
        _place(settings, folder, now_ns, say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def newest(settings: Settings) -> int | None:
    """End of the newest depth frame of any symbol, ns UTC; None without one that can be read."""
    found = []
    for symbol in settings.symbols:
        try:
            with FrameReader.open(settings.paths.depth(symbol)) as reader:
                slot = reader.latest()
        except (OSError, ShmError):
            continue
        if slot is not None:
            found.append(slot.ts_ns)
    return max(found, default=None)


@contextmanager
def _stop_signals() -> Iterator[None]:
    """SIGINT and SIGTERM raise Interrupted here."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """A line that is redrawn on a terminal; elsewhere a line at the beginning and one at the end."""

    def __init__(self, hours: float, say: Callable[[str], None]) -> None:
        self._title = f"building {hours:g} h of history"
        self._began_s = time.monotonic()
        self._say = say
        self._drawn = sys.stderr.isatty()
        if not self._drawn:
            say(f"{self._title} ...")

    def show(self, share: float) -> None:
        """`share` of it is done."""
        if self._drawn:
            sys.stderr.write(f"\r{self._title} [{'#' * round(40 * share):<40}] {share:4.0%}")
            sys.stderr.flush()

    def end(self) -> None:
        """All of it is done."""
        if self._drawn:
            sys.stderr.write("\n")
        self._say(f"history built in {time.monotonic() - self._began_s:.0f} s")


class _Worker:
    """One symbol's process: takes times to run to, tells how far it is."""

    def __init__(self, symbol: str, command: list[str], environment: Mapping[str, str]) -> None:
        self.symbol = symbol
        self.at_ns = 0
        self._rest = b""
        # Its own group: a terminal's ^C reaches the supervisor alone.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(environment), process_group=0
        )  # fmt: skip

    def run_to(self, target_ns: int) -> None:
        """Ask for a time. Raises BootFailure where the process is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{target_ns}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            self.fail()

    def read(self) -> list[int]:
        """Times that were reached since the last call. Raises BootFailure where the process is gone."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 65_536)
        if not data:
            self.fail()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [int(line) for line in lines]

    def finish(self) -> None:
        """Let it save. Raises BootFailure where it does not end well."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.wait(FINISH_S):
            self.fail()

    def kill(self) -> None:
        """End it whatever it does; nothing where it has ended."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        self.process.kill()
        self.process.wait()

    def fail(self) -> None:
        """Raise BootFailure."""
        raise BootFailure(f"the history of {self.symbol} could not be built: see the lines above")


def _run(
    settings: Settings, folder: Path, start_ns: int, end_ns: int | None, environment: Mapping[str, str], progress: _Progress
) -> None:
    """All symbols up to one time, twice where the clock decides: the second time is over what the first one took."""
    file = folder / "settings.json"
    write_atomic(file, encode(settings))
    module = ["-m", "mpengine.simulator.past", "--settings", str(file), "--data", str(folder), "--from", str(start_ns)]
    python = interpreter()
    workers: list[_Worker] = []
    try:
        for symbol in settings.symbols:
            command = [python, "-I", "-S", str(LAUNCHER), str(os.getpid()), python, *module, "--symbol", symbol]
            workers.append(_Worker(symbol, command, environment))
        _run_to(workers, start_ns, end_ns or time.time_ns(), progress)
        if end_ns is None:
            _run_to(workers, start_ns, time.time_ns(), progress)
        for worker in workers:
            worker.finish()
        progress.end()
    finally:
        for worker in workers:
            worker.kill()
        file.unlink()


def _run_to(workers: list[_Worker], start_ns: int, target_ns: int, progress: _Progress) -> None:
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            worker.run_to(target_ns)
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]  # it is a pipe
        while selector.get_map():
            for key, _ in selector.select():
                worker = key.data
                for at_ns in worker.read():
                    if at_ns < 0:  # there
                        selector.unregister(key.fileobj)
                    else:
                        worker.at_ns = at_ns
            done_ns = sum(max(0, worker.at_ns - start_ns) for worker in workers)
            progress.show(min(1.0, done_ns / max(1, target_ns - start_ns) / len(workers)))


def _place(settings: Settings, folder: Path, now_ns: int, say: Callable[[str], None]) -> None:
    """Move the symbols' folders into the data directory, those that are there aside."""
    data, made = settings.paths.data, Paths(folder, folder)
    aside = data / f"until-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now_ns / 1e9))}"
    for symbol in settings.symbols:
        there = settings.paths.symbol_dir(symbol)
        if there.exists():
            aside.mkdir(mode=0o750, exist_ok=True)
            there.rename(aside / symbol)
        made.symbol_dir(symbol).rename(there)
    if aside.exists():
        say(f"older rings are in {aside}")
