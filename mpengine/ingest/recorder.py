"""Raw capture: lines in from the event loop, frames on the disk from a thread, and the live path never waits for either.

The loop appends to a bounded queue; the thread drains it, closes a frame at `frame_bytes` or `frame_s`, syncs once a second,
begins a new file at `file_bytes` and removes the oldest beyond the quota. Lines that do not fit the queue or the disk are
dropped, counted and marked by a `gap` line when recording goes on, which it does by itself. docs/capture-format.md has the format.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from mpengine.config import CaptureSettings
from mpengine.ingest.capture_file import CaptureFile, CaptureHeader, CaptureLine, encode_line, pack_frame
from shm.atomic_file import sync_directory

QUEUE_LINES: Final = 200_000
QUEUE_BYTES: Final = 64 << 20
IDLE_S: Final = 0.05
SYNC_S: Final = 1.0
RETRY_S: Final = 1.0
LOG_EVERY_S: Final = 10.0
_LINE_OVERHEAD: Final = 200  # bytes that a queued line takes beside its payload
_NAME: Final = re.compile(r"capture-(\d{19})-\d{4}\.jsonl\.zst")

log = logging.getLogger("mpengine.ingest.recorder")


def capture_files(directory: Path) -> list[Path]:
    """Captures of a directory, oldest first; other files are not looked at. Raises OSError."""
    return sorted((path for path in directory.iterdir() if _NAME.fullmatch(path.name)), key=lambda path: path.name)


@dataclass(slots=True)
class _Hole:
    """Lines that were lost since the last `gap` line."""

    lines: int = 0
    first_ns: int = 0
    last_ns: int = 0

    def include(self, lines: int, first_ns: int, last_ns: int) -> None:
        self.first_ns = self.first_ns or first_ns
        self.last_ns = last_ns
        self.lines += lines

    def line(self) -> CaptureLine:
        payload = msgspec.json.encode({"lines": self.lines, "first_ns": self.first_ns, "last_ns": self.last_ns})
        return CaptureLine(self.last_ns, "", "", "gap", payload)


class FileRow:
    """The files of one directory: the current one, its successors, the quota. Used by one thread. Raises OSError throughout."""

    def __init__(self, directory: Path, settings: CaptureSettings, header: Callable[[int], CaptureHeader]) -> None:
        """`header`: time of creation (ns UTC) -> header of a new file."""
        self._directory = directory
        self._settings = settings
        self._header = header
        self._file: CaptureFile | None = None

    def write_frame(self, lines: bytes) -> None:
        """Append one frame of whole lines, in a new file where the current one is full."""
        file, frame = self._file, pack_frame(lines)
        if file is not None and (not file.whole or file.size + len(frame) > self._settings.file_bytes):
            self.close()
            file = None
        if file is None:
            file = self._file = self._begin()
            sync_directory(self._directory)
        file.append(frame)

    def sync(self) -> None:
        """Bring the current file to the disk."""
        file = self._file
        if file is not None:
            try:
                file.sync()
            except OSError:
                file.whole = False  # the kernel may have forgotten what it could not write: go on in a new file
                raise

    def close(self) -> None:
        """Sync and close the current file."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.sync()
            finally:
                file.close()

    def _begin(self) -> CaptureFile:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._make_room()
        created_ns = time.time_ns()
        for number in range(10_000):
            path = self._directory / f"capture-{created_ns:019d}-{number:04d}.jsonl.zst"
            try:
                return CaptureFile(path, self._header(created_ns))
            except FileExistsError:
                continue
        raise FileExistsError(f"10,000 captures of {created_ns}")

    def _make_room(self) -> None:
        """Remove the oldest captures until a whole new file fits the quota."""
        sizes = [(path, _size(path)) for path in capture_files(self._directory)]
        total = sum(size for _, size in sizes) + self._settings.file_bytes
        for path, size in sizes:
            if total <= self._settings.quota_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
            log.info("capture %s removed, the quota is full", path.name)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # removed by somebody else between the listing and now


class Recorder:
    """The queue and the thread behind it. `put` is for one thread (the event loop); all others are its own.

    `records`: lines on the disk; `dropped`: lines lost; `write_errors`: failed writes and syncs. `failing`: text of the trouble
    while there is one.
    """

    def __init__(self, directory: Path, settings: CaptureSettings, header: Callable[[int], CaptureHeader]) -> None:
        self.records = 0
        self.write_errors = 0
        self.failing: str | None = None
        self._settings = settings
        self._files = FileRow(directory, settings, header)
        self._queue: deque[CaptureLine] = deque()
        # One writer per number: the loop counts what it put and refused, the thread what it took and lost.
        self._put_bytes = 0
        self._taken_bytes = 0
        self._refused = 0
        self._lost = 0
        self._refused_hole: _Hole | None = None
        self._hole = _Hole()
        self._lines: list[bytes] = []
        self._sizes = 0
        self._times: list[int] = []
        self._frame_began_s = 0.0
        self._retry_s = 0.0
        self._synced_s = 0.0
        self._logged_s = -LOG_EVERY_S
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    @property
    def dropped(self) -> int:
        """Lines lost to a full queue or a full disk."""
        return self._refused + self._lost

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, line: CaptureLine) -> None:
        """Queue a line, or drop and count it where the queue is full. Never waits, never raises."""
        size = len(line.payload) + _LINE_OVERHEAD
        if len(self._queue) >= QUEUE_LINES or self._put_bytes + size - self._taken_bytes > QUEUE_BYTES:
            self._refused += 1
            if self._refused_hole is None:
                self._refused_hole = _Hole()
            self._refused_hole.include(1, line.recv_ns, line.recv_ns)
            return
        if self._refused_hole is not None:
            marker, self._refused_hole = self._refused_hole.line(), None
            self._put_bytes += len(marker.payload) + _LINE_OVERHEAD
            self._queue.append(marker)
        self._put_bytes += size
        self._queue.append(line)

    def close(self, timeout_s: float) -> bool:
        """Write what is queued and end the thread, within `timeout_s`; False where the disk did not let it."""
        if self._refused_hole is not None:
            marker, self._refused_hole = self._refused_hole.line(), None
            self._queue.append(marker)
        self._stopping.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # the thread --------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.wait(IDLE_S):
            self._guarded_turn()
        self._guarded_turn()
        self._close_frame(time.monotonic())
        try:
            self._files.close()
        except OSError as error:
            self._failed(error, time.monotonic())

    def _guarded_turn(self) -> None:
        try:
            self._turn(time.monotonic())
        except Exception:
            # An error nobody foresaw costs the lines at hand, not the recorder.
            self.write_errors += 1
            log.exception("the recorder failed on its queue")

    def _turn(self, now_s: float) -> None:
        self._drain(now_s)
        if self._lines and now_s - self._frame_began_s >= self._settings.frame_s:
            self._close_frame(now_s)
        if now_s - self._synced_s >= SYNC_S:
            self._synced_s = now_s
            try:
                self._files.sync()
            except OSError as error:
                self._failed(error, now_s)

    def _drain(self, now_s: float) -> None:
        queue = self._queue
        while queue:
            line = queue.popleft()
            self._taken_bytes += len(line.payload) + _LINE_OVERHEAD
            data = encode_line(line)
            if not self._lines:
                self._frame_began_s = now_s
            self._lines.append(data)
            self._times.append(line.recv_ns)
            self._sizes += len(data)
            if self._sizes >= self._settings.frame_bytes:
                self._close_frame(time.monotonic())

    def _close_frame(self, now_s: float) -> None:
        """Write the open frame; on failure its lines are lost and counted. While the disk fails, it is asked once per RETRY_S."""
        lines, times = self._lines, self._times
        self._lines, self._times, self._sizes = [], [], 0
        if not lines:
            return
        if self.failing is not None and now_s < self._retry_s and not self._stopping.is_set():
            self._lose(times)
            return
        marked = [encode_line(self._hole.line()), *lines] if self._hole.lines else lines
        try:
            self._files.write_frame(b"".join(marked))
        except OSError as error:
            self._lose(times)
            self._failed(error, now_s)
            return
        self.records += len(lines)
        self._hole = _Hole()
        if self.failing is not None:
            log.warning("capture goes on, %d lines were lost so far", self.dropped)
            self.failing = None

    def _lose(self, times: list[int]) -> None:
        self._lost += len(times)
        self._hole.include(len(times), times[0], times[-1])

    def _failed(self, error: OSError, now_s: float) -> None:
        self.write_errors += 1
        self.failing = os.strerror(error.errno) if error.errno else type(error).__name__
        self._retry_s = now_s + RETRY_S
        if now_s - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now_s
            log.error("capture cannot be written: %s; %d lines lost so far", self.failing, self.dropped)
