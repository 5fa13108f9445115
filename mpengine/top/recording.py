"""Recordings of what was shown: one zstd stream of JSON lines, the first says what it is, each other one what has changed.

    {"mpengine_top": 1, "version": "0.1.0"}
    {"now_ms": 1795200000000, "source": "...", ...}        all keys of `Facts`
    {"now_ms": 1795200001000, "venues": [...]}             only those that differ from the line before

Each line is flushed as a block of its own, so what a killed recorder leaves is whole up to its last line. At most one a second.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import zstandard
from msgspec import Raw, Struct

from mpengine import __version__
from mpengine.top.model import Facts

FORMAT: Final = 1
EVERY_MS: Final = 1000
WHOLE_EVERY: Final = 120
"""Lines between two that have all keys: what a step back has to read again at most."""
MAX_BYTES: Final = 512 << 20
"""Unpacked, of a file that is replayed: a bound against files that are something else."""
END_MS: Final = 2500
"""Behind its last line a recording is over."""
_KEYS: Final = tuple(Facts.__dataclass_fields__)


class RecordingError(Exception):
    """A file that cannot be written or is no recording; the text says why."""


class _Head(Struct, frozen=True):
    mpengine_top: int
    version: str


class Recorder:
    """Writes a new file. Raises RecordingError, also where the file is there already: nothing is overwritten."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise RecordingError(f"{path} cannot be made ({type(error).__name__})") from error
        self._file: BinaryIO = os.fdopen(descriptor, "wb")
        self._packer = zstandard.ZstdCompressor(level=3).stream_writer(self._file, closefd=False)
        self._known: dict[str, bytes] = {}
        self._now_ms: int | None = None
        self.lines = 0
        self._put(msgspec.json.encode(_Head(FORMAT, __version__)))

    def take(self, facts: Facts) -> None:
        """Write what has changed, if a second has passed. Raises RecordingError; then the file is closed."""
        if self._now_ms is not None and 0 <= facts.now_ms - self._now_ms < EVERY_MS:
            return
        self._now_ms = facts.now_ms
        if self.lines % WHOLE_EVERY == 0:
            self._known.clear()
        line: dict[str, Raw] = {}
        for key in _KEYS:
            encoded = msgspec.json.encode(getattr(facts, key))
            if self._known.get(key) != encoded:
                self._known[key] = encoded
                line[key] = Raw(encoded)
        self._put(msgspec.json.encode(line))
        self.lines += 1

    def _put(self, line: bytes) -> None:
        try:
            self._packer.write(line + b"\n")
            self._packer.flush(zstandard.FLUSH_BLOCK)
            self._file.flush()
        except OSError as error:
            self.close()
            raise RecordingError(f"{self._path} cannot be written ({type(error).__name__})") from error

    def close(self) -> None:
        """End the stream."""
        if not self._file.closed:
            try:
                self._packer.close()  # type: ignore[no-untyped-call]
            except OSError:
                pass  # the disk is full: what is there can be replayed
            self._file.close()


class Recording:
    """A file, read at once and decoded where it is looked at. `cut`: it ends in the middle."""

    def __init__(self, path: Path) -> None:
        """Raises RecordingError for what is no recording of this format."""
        lines, self.cut = _lines_of(path)
        try:
            head = msgspec.json.decode(lines[0] if lines else b"", type=_Head)
        except msgspec.MsgspecError:
            raise RecordingError(f"{path} is no recording of mpengine top") from None
        if head.mpengine_top != FORMAT:
            raise RecordingError(f"{path} is a recording of format {head.mpengine_top}, this program knows {FORMAT}")
        try:
            self._lines = [msgspec.json.decode(line, type=dict[str, Raw]) for line in lines[1:]]
            self.times_ms = self._times()
        except (msgspec.MsgspecError, KeyError) as error:
            raise RecordingError(f"{path} is damaged: {error}") from error
        if not self._lines:
            raise RecordingError(f"{path} has no line")
        self._at = -1
        self._known: dict[str, Raw] = {}

    def _times(self) -> list[int]:
        return [msgspec.json.decode(line["now_ms"], type=int) for line in self._lines]

    def __len__(self) -> int:
        return len(self._lines)

    def facts(self, at: int) -> Facts:
        """Line `at` with everything that lines before it said. Raises RecordingError for a damaged line."""
        if at < self._at:
            self._at = max(-1, at - at % WHOLE_EVERY - 1)
            self._known.clear()
        for line in self._lines[self._at + 1 : at + 1]:
            self._known.update(line)
        self._at = at
        try:
            return msgspec.json.decode(msgspec.json.encode(self._known), type=Facts)
        except msgspec.MsgspecError as error:
            raise RecordingError(f"line {at} of the recording is damaged: {error}") from error


def _lines_of(path: Path) -> tuple[list[bytes], bool]:
    unpacked = bytearray()
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=False) as reader:
            while piece := reader.read(1 << 20):
                unpacked += piece
                if len(unpacked) > MAX_BYTES:
                    raise RecordingError(f"{path} has more than {MAX_BYTES >> 20} MiB")
    except OSError as error:
        raise RecordingError(f"{path} cannot be read ({type(error).__name__})") from error
    except zstandard.ZstdError:
        raise RecordingError(f"{path} is no recording of mpengine top") from None
    lines = bytes(unpacked).split(b"\n")
    return lines[:-1], lines[-1] != b""


class ReplaySource:
    """Plays a recording at its own pace, to its end and no further; `step` goes back and on."""

    def __init__(self, recording: Recording, name: str, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """`name`: of the file, for the screen."""
        self._recording = recording
        self._name = name
        self._monotonic_ns = monotonic_ns
        self._began_ns = monotonic_ns()
        self._first_ms = recording.times_ms[0]

    def _now_ms(self) -> int:
        return self._first_ms + (self._monotonic_ns() - self._began_ns) // 1_000_000

    def step(self, milliseconds: int) -> None:
        """Go on or (negative) back, within the recording."""
        times = self._recording.times_ms
        target = min(max(self._now_ms() + milliseconds, times[0]), times[-1])
        self._began_ns, self._first_ms = self._monotonic_ns(), target

    def read(self, shown: str | None, range_pct: float) -> Facts:
        """The facts of that moment, of the symbol that was recorded; STALE behind the end."""
        times = self._recording.times_ms
        at = max(0, bisect_right(times, self._now_ms()) - 1)
        facts = self._recording.facts(at)
        ended = self._now_ms() > times[-1] + END_MS
        trouble = "the recording ends here" + (", cut off" if self._recording.cut else "") if ended else facts.trouble
        return replace(facts, source=f"replay of {self._name}", trouble=trouble)

    def last(self) -> Facts:
        """The newest line, for `--once`."""
        return replace(self._recording.facts(len(self._recording) - 1), source=f"replay of {self._name}")

    async def run(self) -> None:
        """Nothing happens beside `read`."""

    async def close(self) -> None:
        """Nothing is open."""
