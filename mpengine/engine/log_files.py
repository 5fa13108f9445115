"""The JSON-lines files of one symbol's engine (`spec: engine`, section 20; `reliability`, section 5). A shell.

    core -> LogOut -> bounded queue -> one thread -> liq_{kind}_{SYM}.jsonl

The engine only puts lines into the queue. A slow or full disk stops the thread alone: what does not fit is dropped and counted,
what could not be written is kept and tried again. Files are rotated while they are written, by size and by age; backups beyond
their number, and the oldest of all beyond the total, are removed. A restart may repeat the lines since the last checkpoint.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, get_args

import orjson

from mpengine.engine.log_records import LogKind, LogOut

ROTATE_BYTES: Final = 200_000_000
ROTATE_NS: Final = 24 * 3600 * 1_000_000_000
BACKUPS: Final = 7
TOTAL_BYTES: Final = 1_000_000_000
CAPACITY: Final = 200_000
RETRY_S: Final = 1.0
WARN_NS: Final = 10_000_000_000
FIRST_LINE_BYTES: Final = 65_536
KINDS: Final[tuple[LogKind, ...]] = get_args(LogKind)
_BACKUP: Final = re.compile(r"\.(\d+)-(\d+)$")

log = logging.getLogger("mpengine.engine.log_files")


def sink_name(kind: LogKind, symbol: str) -> str:
    """File of a kind of lines."""
    return f"plot_feed_{symbol}.jsonl" if kind == "plot_feed" else f"liq_{kind}_{symbol}.jsonl"


class _Sink:
    """One file and its backups. `now`: epoch ns. Raises OSError from everything; a write that failed has left no part of a line."""

    def __init__(self, path: Path, rotate_bytes: int, rotate_ns: int, now: Callable[[], int]) -> None:
        self.path = path
        self._rotate_bytes, self._rotate_ns, self._now = rotate_bytes, rotate_ns, now
        self._fd: int | None = None
        self._size = self._opened_ns = 0

    def write(self, lines: bytes) -> bool:
        """Append whole lines; rotate before, where the file is full or old. Whether it was rotated."""
        if self._fd is None:
            self._open()
        full = self._size >= self._rotate_bytes or self._now() - self._opened_ns >= self._rotate_ns
        if full and self._size:
            self._rotate()
            self._open()
        assert self._fd is not None
        done = 0
        try:
            while done < len(lines):
                done += os.write(self._fd, lines[done:])
        except OSError:
            if done:  # they will be written again: on a full disk each attempt would leave another piece
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(lines)
        return full

    def close(self) -> None:
        """Give the file up; the next write opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def backups(self) -> list[Path]:
        """Rotated files, oldest first; nothing else that lies beside them."""
        found = (path for path in self.path.parent.glob(f"{self.path.name}.*") if _BACKUP.fullmatch(path.name, len(self.path.name)))
        return sorted(found, key=_rotated)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        status = os.fstat(self._fd)
        self._size = status.st_size
        self._opened_ns = self._now()
        if not self._size:
            return
        # A file of an earlier run is as old as its first line; what the file system knows of is its last one.
        first_ns = _time_of(os.pread(self._fd, FIRST_LINE_BYTES, 0))
        self._opened_ns = min(self._opened_ns, status.st_mtime_ns if first_ns is None else first_ns)
        if os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._size += os.write(self._fd, b"\n")  # the process before died in a line

    def _rotate(self) -> None:
        self.close()
        # Names ascend, also over restarts within a second and clocks that were set back: the oldest must stay the first.
        backups = self.backups()
        newest = _rotated(backups[-1]) if backups else (0, 0)
        seconds = max(self._now() // 1_000_000_000, newest[0])
        number = newest[1] + 1 if seconds == newest[0] else 1
        self.path.rename(self.path.with_name(f"{self.path.name}.{seconds}-{number:06d}"))


def _rotated(path: Path) -> tuple[int, int]:
    """When a backup was made: epoch seconds, and its number in that second."""
    seconds, number = path.name.rsplit(".", 1)[-1].split("-")
    return int(seconds), int(number)


def _time_of(head: bytes) -> int | None:
    """Time of a file's first line in epoch ns; None where it has none."""
    try:
        told = orjson.loads(head.partition(b"\n")[0])["ts_ns"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return told if isinstance(told, int) and told > 0 else None


class LogFiles:
    """All files of one symbol.

    `written`: lines on the disk. `dropped`: lines that are lost: no room in the queue, no disk up to the stop, or no JSON.
    `errors`: failed writes; their lines wait. `last_error`: the newest reason, without a path; None where there was none.
    """

    def __init__(
        self, directory: Path, symbol: str, *, rotate_bytes: int = ROTATE_BYTES, rotate_ns: int = ROTATE_NS, backups: int = BACKUPS,
        total_bytes: int = TOTAL_BYTES, capacity: int = CAPACITY, now: Callable[[], int] = time.time_ns,
    ) -> None:  # fmt: skip
        self.dropped = self.errors = self.written = 0
        self.last_error: str | None = None
        # All files that are being written together stay below half of the total; backups have the rest.
        rotate_bytes = min(rotate_bytes, total_bytes // (2 * len(KINDS)))
        self._sinks = {kind: _Sink(directory / sink_name(kind, symbol), rotate_bytes, rotate_ns, now) for kind in KINDS}
        self._backups, self._total_bytes, self._capacity, self._now = backups, total_bytes, capacity, now
        self._wake = threading.Condition()
        self._waiting: deque[LogOut] = deque()
        self._stopping = False
        self._warned_ns: int | None = None
        self._grown = total_bytes  # since the last look at the total; at the start there may be files already
        self._thread = threading.Thread(target=self._run, name="engine-logs", daemon=True)
        self._thread.start()

    def write(self, lines: Iterable[LogOut]) -> None:
        """Hand lines over; never waits for a disk and never raises. After `stop` they are dropped."""
        with self._wake:
            for line in lines:
                if self._stopping or len(self._waiting) >= self._capacity:
                    self.dropped += 1
                else:
                    self._waiting.append(line)
            self._wake.notify()

    def write_all(self, lines: Iterable[LogOut]) -> None:
        """Hand lines over and wait for room where the disk is behind: for a replay, which may not lose any."""
        with self._wake:
            for line in lines:
                while len(self._waiting) >= self._capacity:
                    self._wake.wait()
                self._waiting.append(line)
                self._wake.notify_all()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Write what waits and end; False where the disk kept it longer."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pending: dict[LogKind, bytes] = {}
        while True:
            with self._wake:
                while not self._waiting and not pending and not self._stopping:
                    self._wake.wait()
                if pending and not self._waiting and not self._stopping:
                    self._wake.wait(RETRY_S)
                batch, self._waiting = self._waiting, deque()
                stopping = self._stopping
                self._wake.notify_all()
            self._encode(batch, pending)
            pending = self._write_all(pending)
            if stopping and not self._waiting:
                for sink in self._sinks.values():
                    sink.close()
                self.dropped += sum(lines.count(b"\n") for lines in pending.values())
                return

    def _encode(self, batch: Iterable[LogOut], pending: dict[LogKind, bytes]) -> None:
        parts: dict[LogKind, list[bytes]] = {}
        for line in batch:
            try:
                parts.setdefault(line.kind, []).append(orjson.dumps(line.record, option=orjson.OPT_APPEND_NEWLINE))
            except TypeError as error:  # of the part that made the record; the other lines are good
                self.dropped += 1
                self._warn(f"a line of {line.kind} is no JSON ({error})")
        for kind, lines in parts.items():
            pending[kind] = pending.get(kind, b"") + b"".join(lines)

    def _write_all(self, pending: dict[LogKind, bytes]) -> dict[LogKind, bytes]:
        """What could not be written, to be tried again; more of it than a file may hold is dropped."""
        kept: dict[LogKind, bytes] = {}
        for kind, lines in pending.items():
            try:
                self._grown += len(lines) if not self._sinks[kind].write(lines) else self._total_bytes
            except OSError as error:
                self._failed(kind, error)
                if len(lines) <= ROTATE_BYTES // 10:
                    kept[kind] = lines
                else:
                    self.dropped += lines.count(b"\n")
            else:
                self.written += lines.count(b"\n")
        if self._grown >= self._total_bytes // 50:
            self._retain()
        return kept

    def _failed(self, kind: LogKind, error: OSError) -> None:
        self.errors += 1
        self._sinks[kind].close()
        self._warn(f"lines of {kind} not written ({error.strerror}): they wait")

    def _warn(self, text: str) -> None:
        """The newest reason; in the log at most once in WARN_NS."""
        self.last_error = text
        now = self._now()
        if self._warned_ns is None or now - self._warned_ns >= WARN_NS:
            self._warned_ns = now
            log.warning("%s; %d failed writes and %d lost lines so far", text, self.errors, self.dropped)

    def _retain(self) -> None:
        """Remove backups beyond their number, and the oldest of all beyond the total."""
        self._grown = 0
        try:
            left = list[Path]()
            for sink in self._sinks.values():
                found = sink.backups()
                for path in found[: max(0, len(found) - self._backups)]:
                    path.unlink(missing_ok=True)
                left += found[max(0, len(found) - self._backups) :]
            total = sum(path.stat().st_size for path in left) + sum(
                sink.path.stat().st_size for sink in self._sinks.values() if sink.path.exists()
            )
            for path in sorted(left, key=_rotated):
                if total <= self._total_bytes:
                    break
                total -= path.stat().st_size
                path.unlink(missing_ok=True)
        except OSError as error:
            self.errors += 1
            self._warn(f"old log files not removed ({error.strerror})")
