"""The ground a run stands on: directories, the instance lock, board, event rings, doorbells, the settings file.

Made before the first child, removed after the last. Nothing in the runtime folder outlives a run on purpose; what a killed
supervisor left there is swept by the next one, which can tell by the locks that nobody uses it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from mpengine.config import encode
from shm import doorbell, files
from shm.atomic_file import write_atomic
from shm.board import Board, BoardReader
from shm.board_words import Word
from shm.directories import is_runtime_folder
from shm.disks import check_data_directory
from shm.errors import Locked, ShmError
from shm.event_ring import create_event_ring
from shm.layout import event_ring_spec
from shm.liveness import WriterState
from shm.paths import Paths
from shm.process_shell import BootFailure
from shm.ring_head import RingHead
from supervisor.plan import Plan

DATA_MODE: Final = 0o750
RUNTIME_MODE: Final = 0o750
PREDECESSORS_S: Final = 2.0
POLL_S: Final = 0.01

log = logging.getLogger("supervisor.runtime")


class InstanceLock:
    """flock on a file of the data directory, held for life: one supervisor per data directory, and none stale after kill -9."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises Locked with the holder's pid, OSError where the directory cannot be written."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(self._fd, 20, 0).strip()
            os.close(self._fd)
            raise Locked(path, int(text) if text.isdigit() else None) from None
        # NOTE: the file stays for ever. Removing it would let two supervisors lock two files of the same name.
        os.pwrite(self._fd, f"{os.getpid():<20d}".encode(), 0)

    def close(self) -> None:
        """Give the lock up."""
        os.close(self._fd)


class Runtime:
    """Shared files of one plan. `close` removes them; the instance lock is not part of it."""

    def __init__(self, plan: Plan) -> None:
        """Make everything anew. Raises ShmError (NoSpace, Locked: another instance uses this folder) and OSError."""
        self.paths = plan.settings.paths
        self.doorbells: dict[str, int] = {}
        self._heads: dict[str, RingHead] = {}
        self.board = Board.create(self.paths.board, plan.rows, plan.sources)
        try:
            for symbol in plan.symbols:
                path = self.paths.events(symbol)
                create_event_ring(path, event_ring_spec(symbol, plan.settings.engine.ring_units))
                self._heads[symbol] = RingHead.open(path)
                self.doorbells[symbol] = doorbell.create()
            self.write_settings(plan)
        except BaseException:
            self.close()
            raise

    def write_settings(self, plan: Plan) -> None:
        """Hand the effective settings to the children; readable for the group only, since they may name secrets' places."""
        write_atomic(self.paths.settings, encode(plan.settings))

    def write_children(self, children: Iterable[dict[str, Any]]) -> None:
        """Keep, next to the board, what has no place in words: how each child ended and what it said last."""
        text = {"schema_version": 1, "written_ns": time.time_ns(), "children": list(children)}
        write_atomic(self.paths.children, json.dumps(text).encode())

    def ring_head(self, symbol: str) -> int:
        """Position of the producer of the symbol's ring; 0 for a child without a ring."""
        head = self._heads.get(symbol)
        return head.head() if head else 0

    def close(self) -> None:
        """Remove the shared files and the folder, if nothing of others is in it. Call it after the last child has ended."""
        for head in self._heads.values():
            head.close()
        for bell in self.doorbells.values():
            os.close(bell)
        self._heads.clear()
        self.doorbells.clear()
        self.board.unlink()
        self.board.close()
        sweep_folder(self.paths)


def sweep_folder(paths: Paths) -> list[str]:
    """Remove our unlocked files from a runtime folder and the folder itself when it is empty then; names of what went."""
    gone = [path.name for path in files.sweep(paths.runtime)]
    # A board that stays is held by a supervisor: its children still need their settings when they are started again.
    others = (paths.settings, paths.children, paths.rates, paths.admin_lock, paths.admin_socket)
    for path in () if paths.board.exists() else others:
        if path.exists():
            path.unlink()
            gone.append(path.name)
    try:
        paths.runtime.rmdir()
    except OSError:
        left = sorted(path.name for path in paths.runtime.iterdir())
        log.warning("runtime folder %s stays, it holds %s", paths.runtime.name, ", ".join(left[:10]))
    return gone


def prepare_data_directory(path: Path) -> None:
    """Make the data directory where it is missing and check what it lies on. Raises NotLocalDisk, OSError."""
    path.mkdir(DATA_MODE, parents=True, exist_ok=True)
    for warning in check_data_directory(path):
        log.warning("data directory: %s", warning)


def prepare_runtime_directory(folder: Path, instance: str) -> bool:
    """Make the folder of this run, sweep those of earlier ones; True when the directory above was made as well.

    Raises BootFailure where the directory above is not safe to use, OSError where it cannot be made.
    """
    base = folder.parent
    made = not base.exists()
    base.mkdir(RUNTIME_MODE, parents=True, exist_ok=True)
    _check_ours(base)
    for stale in sorted(base.iterdir()):
        if is_runtime_folder(stale.name, instance) and stale.is_dir() and not stale.is_symlink():
            _await_predecessors(stale)
            if gone := sweep_folder(Paths(folder, stale)):
                log.info("swept %d files of an earlier run in %s", len(gone), stale.name)
    folder.mkdir(RUNTIME_MODE, exist_ok=True)
    return made


def remove_base(base: Path) -> None:
    """Remove the directory above the runtime folder, if it is empty; for the supervisor that made it."""
    try:
        base.rmdir()
    except OSError:
        log.info("%s stays: another instance uses it", base.name)


def _check_ours(base: Path) -> None:
    """/dev/shm is open to everybody: a directory that somebody else has put there must not be trusted."""
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise BootFailure(f"{base} must be a directory of user {os.getuid()}")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise BootFailure(f"{base} can be written by everybody (chmod o-w)")


def _await_predecessors(folder: Path) -> None:
    """Children of a killed supervisor are about to die by the kernel; give them the moment that takes, then go on."""
    try:
        board = BoardReader.open(Paths(folder, folder).board)
    except ShmError:
        return
    with board:
        deadline = time.monotonic() + PREDECESSORS_S
        while (left := _alive(board)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        if left:
            log.warning("processes of an earlier run are still there: %s", ", ".join(map(str, left)))


def _alive(board: BoardReader) -> list[int]:
    states = ((row, board.row_state(row)) for row in range(1, len(board.names())))
    return [board.get(row, Word.PID) for row, state in states if state in (WriterState.LIVE, WriterState.STALLED)]
