"""What every child process does alike: log, stack dumps, board row, stop signals, parent check, exit codes.

Used by the mains of ingest, engines, simulator and tools; the supervisor starts them through `supervisor/launch.py`.

    def main() -> int:
        shell = ProcessShell("engine-BTC", Role.ENGINE, board=paths.board, row=2, log_level=settings.log.level)
        shell.install_signals()
        ...                                   # open rings
        shell.live()
        while not shell.stopping:
            shell.beat(progress=core.applied)
        shell.close()
        return 0

    run_main(main)

It runs without a supervisor as well (tests, tools): no board means a `NullRow`, no MPENGINE_PARENT means no parent check.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, Protocol

from shm import process_log
from shm.board_words import Role, State, Word
from shm.errors import IdentityMismatch, LayoutMismatch, Locked, NoSpace, NotLocalDisk, Unsupported

PARENT_VARIABLE: Final = "MPENGINE_PARENT"
MEASURE_EVERY_NS: Final = 1_000_000_000
PR_SET_PDEATHSIG: Final = 1
STATM: Final = Path("/proc/self/statm")
DESCRIPTORS: Final = Path("/proc/self/fd")

log = logging.getLogger("shm.process")


class Exit(IntEnum):
    """Exit codes of a child; `supervisor/exitcodes.py` has the table of all."""

    STOPPED = 0
    CRASHED = 1
    BOOT_FAILED = 3


class BootFailure(Exception):
    """Something that a restart does not heal (a port in use, an unusable setting): the process ends with code 3."""


BOOT_ERRORS: Final = (BootFailure, LayoutMismatch, IdentityMismatch, Locked, NoSpace, NotLocalDisk, Unsupported)


class Row(Protocol):
    """What a process does with its board row; `shm.board.BoardRow` and `NullRow` are the two kinds."""

    def set(self, word: Word, value: int, /) -> None: ...
    def add(self, word: Word, n: int = 1, /) -> None: ...
    def get(self, word: Word, /) -> int: ...
    def start(self, role: Role, index: int, epoch: int) -> None: ...
    def beat(self, monotonic_ns: int, /) -> None: ...
    def close(self) -> None: ...


class NullRow:
    """A row that only this process sees, for a process without a board."""

    __slots__ = ("_words",)

    def __init__(self) -> None:
        self._words: dict[Word, int] = {}

    def set(self, word: Word, value: int, /) -> None:
        self._words[word] = value

    def add(self, word: Word, n: int = 1, /) -> None:
        self._words[word] = self.get(word) + n

    def get(self, word: Word, /) -> int:
        return self._words.get(word, 0)

    def start(self, role: Role, index: int, epoch: int) -> None:
        self.set(Word.PID, os.getpid())
        self.set(Word.ROLE, role * 1000 + index)
        self.set(Word.EPOCH, epoch)
        self.set(Word.STATE, State.STARTING)

    def beat(self, monotonic_ns: int, /) -> None:
        self.set(Word.BEAT_NS, monotonic_ns)

    def close(self) -> None:
        """Nothing is open."""


class ProcessShell:
    """One per process, made first thing in its main. Raises what `BoardRow.attach` raises.

    name: of the process in logs, e.g. `engine-BTC`. index: of the process within its role (board word ROLE).
    Sends every thread's stack to stderr on SIGUSR1, also while the interpreter is stuck in a loop or holds the GIL.
    """

    def __init__(
        self, name: str, role: Role, *, board: Path | None, row: int | None, index: int = 0, log_level: str = "INFO"
    ) -> None:
        self.name = name
        self.stopping = False
        self._on_stop: Callable[[], None] | None = None
        self._measured_ns = 0
        self._parent = int(os.environ.get(PARENT_VARIABLE, "0"))
        self.log = process_log.configure(name, log_level)
        faulthandler.enable(2)
        faulthandler.register(signal.SIGUSR1, 2, all_threads=True, chain=False)
        self._check_parent()
        self.row: Row = _attach(board, row)
        self.row.start(role, index, self.row.get(Word.EPOCH) + 1)
        self.beat()

    def install_signals(self, on_stop: Callable[[], None] | None = None) -> None:
        """SIGTERM and SIGINT set `stopping` and call `on_stop` once, however often they come. Main thread only.

        `on_stop` runs inside a Python signal handler; an asyncio process hands on with `loop.call_soon_threadsafe`.
        """
        self._on_stop = on_stop
        signal.signal(signal.SIGTERM, self._stop_on_signal)
        signal.signal(signal.SIGINT, self._stop_on_signal)

    def live(self) -> None:
        """Everything is open and the loop is about to turn: the supervisor goes on with the next process."""
        self.beat()
        self.row.set(Word.STATE, State.LIVE)
        log.info("%s is live", self.name)

    def beat(self, progress: int | None = None) -> None:
        """Call once per turn of the loop, at least every 250 ms; costs about a microsecond.

        progress: a count that rises whenever input was worked on (events applied, batches written).
        """
        now_ns = time.monotonic_ns()
        self.row.beat(now_ns)
        self.row.add(Word.TURNS)
        if progress is not None:
            self.row.set(Word.PROGRESS, progress)
        if now_ns - self._measured_ns >= MEASURE_EVERY_NS:
            self._measured_ns = now_ns
            self._measure()

    def request_stop(self, reason: str) -> None:
        """What a stop signal does, for other reasons to stop; idempotent."""
        if self.stopping:
            return
        self.stopping = True
        self.row.set(Word.STATE, State.STOPPING)
        log.info("%s stops: %s", self.name, reason)
        if self._on_stop is not None:
            self._on_stop()

    def close(self) -> None:
        """Say on the board that the process ended in order; call it last, after rings and files are closed."""
        self.row.set(Word.STATE, State.STOPPED)
        self.row.close()

    def _stop_on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.request_stop(signal.Signals(number).name)

    def _check_parent(self) -> None:
        # PR_SET_PDEATHSIG tells of a death after it was set; this tells of one before.
        if self._parent and os.getppid() != self._parent:
            raise BootFailure(f"the supervisor (process {self._parent}) is gone")

    def _measure(self) -> None:
        measure_into(self.row)
        self.row.set(Word.LOG_ERRORS, self.log.errors + self.log.dropped)
        if self._parent and os.getppid() != self._parent:
            self.request_stop("the supervisor is gone")


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run a process to its end and leave with its exit code: what `main` returns, 3 for a boot failure, 1 for anything else.

    Boot failures are `BOOT_ERRORS` and errors that list their `violations` (the settings). The log is written out first.
    """
    try:
        code = main()
    except Exception as error:  # noqa: BLE001  the end of the process: everything becomes an exit code
        code = _report(error)
    process_log.shutdown()
    sys.exit(code)


def die_with_parent(parent: int) -> None:
    """SIGKILL this process when the thread that started it ends; ends it at once where `parent` is gone already.

    For processes that were forked and therefore did not keep the setting (gunicorn workers). Linux only.
    """
    import ctypes  # here, since it costs about 3 ms that the other processes need not pay

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0):
        log.warning("PR_SET_PDEATHSIG was refused: %s", os.strerror(ctypes.get_errno()))
    if os.getppid() != parent:
        raise BootFailure(f"the parent (process {parent}) is gone")


def measure_into(row: Row) -> None:
    """Store memory and descriptors of this process; the words keep their values where they cannot be read."""
    try:
        row.set(Word.OPEN_FDS, open_descriptors())
        row.set(Word.RSS_BYTES, rss_bytes())
    except OSError as error:
        # Reading takes a descriptor. A process that has none left must go on, and say so.
        log.warning("memory and descriptors cannot be read: %s", error.strerror)


def rss_bytes() -> int:
    """Resident memory of this process."""
    return int(STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_descriptors() -> int:
    """Open descriptors of this process."""
    # PERF: Linux 6.2 gives the number as the size of the directory; listing it takes milliseconds at 10,000 sockets.
    return DESCRIPTORS.stat().st_size or sum(1 for _ in DESCRIPTORS.iterdir())


def _attach(board: Path | None, row: int | None) -> Row:
    if board is None or row is None:
        return NullRow()
    from shm.board import BoardRow  # here: processes without a board need not load it

    return BoardRow.attach(board, row)


def _report(error: Exception) -> int:
    if process_log.current() is None:
        process_log.configure(Path(sys.argv[0]).stem)
    violations = getattr(error, "violations", None)
    if isinstance(violations, list):
        for violation in violations:
            log.error("refused: %s", violation)
        return Exit.BOOT_FAILED
    if isinstance(error, BOOT_ERRORS):
        log.error("cannot start: %s: %s", type(error).__name__, error)
        return Exit.BOOT_FAILED
    log.critical("uncaught exception", exc_info=error)
    return Exit.CRASHED
