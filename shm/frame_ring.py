"""One writer, many readers; a slow reader is told what it lost. Serves frame rings and record rings (section 5).

The writer never waits and never looks at readers. Readers map read-only. A frame that is missing, in progress, overwritten or
torn is "not available": None, a number in `History.missing`, a counter; never an exception and never zeros.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from shm import attach, files
from shm.attach import ReaderAttachment, WriterAttachment
from shm.errors import Refused
from shm.layout import (
    BEAT_WORD,
    FIRST_WORD,
    HEAD_WORD,
    HEADER_BYTES,
    INTENT_WORD,
    FileSpec,
)
from shm.liveness import Probe
from shm.slots import Block, Slot, SlotArray, pack_body, plausible_next, slots_of
from shm.words import Words

__all__ = ["FrameReader", "FrameWriter", "History", "RepairReport", "Slot"]

LATEST_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What attaching found: good slots, slots invalidated (half-written or torn), and the next and oldest frame number."""

    good: int
    invalidated: int
    first: int
    next_no: int


@dataclass(frozen=True, slots=True)
class History:
    """Answer to a range of frame numbers. `slots`: verified frames, ascending.

    `missing`: numbers still inside the ring's window for which there is no sound frame. `lapped`: how many of the requested
    numbers the writer has overwritten, before or during the copy. Numbers not yet published are in neither.
    """

    slots: list[Slot]
    missing: list[int]
    lapped: int


@dataclass(frozen=True, slots=True)
class Bulk:
    """Verified rows of a range: `numbers` uint64[frame] ascending, `rows` uint8[frame, stride], private. Else as `History`."""

    numbers: npt.NDArray[np.uint64]
    rows: Block
    missing: list[int]
    lapped: int


class FrameWriter(WriterAttachment):
    """The only writer of a ring. `next_no`: number of the next frame; `first`: oldest frame that survived the repair."""

    def __init__(self, words: Words, spec: FileSpec, epoch: int | None = None) -> None:
        """Attach to words that nobody else writes; `open` is the way to a file. Raises Fenced."""
        super().__init__(words)
        self._slots = SlotArray(words, HEADER_BYTES, spec.slots, spec.stride)
        self.epoch = attach.begin(words, epoch)
        self.report = self._repair(spec.slots)
        self.next_no = self.report.next_no
        self.first = self.report.first
        attach.live(words)

    @classmethod
    def open(cls, path: Path, spec: FileSpec, *, epoch: int | None = None) -> Self:
        """Create or attach, lock, repair. `epoch` None: one more than the last writer's.

        Raises Locked, LayoutMismatch, IdentityMismatch, NoSpace, Fenced, Missing (no data directory).
        """
        return cls._over(files.open_or_create(path, spec), spec, epoch)

    def publish(
        self, payload: bytes, *, ts_ns: int, kind: int, flags: int = 0, link: int = 0, published_ns: int | None = None
    ) -> int:
        """Publish one frame and return its number. `ts_ns`: event time; `published_ns`: wall clock, now if None.

        Raises Refused for a payload longer than a slot or a field out of range; nothing is written then.
        """
        if len(payload) > self._slots.payload_bytes:
            raise Refused(f"payload must be at most {self._slots.payload_bytes} bytes, was {len(payload)}")
        n, words = self.next_no, self._words
        now = time.time_ns() if published_ns is None else published_ns
        body = pack_body(n, payload, ts_ns, now, kind, flags, self.epoch, link)
        words.store_release(INTENT_WORD, n + 1)
        self._slots.write(n, body)
        words.store_release(HEAD_WORD, n + 1)
        words.store_release(BEAT_WORD, time.monotonic_ns())
        self.next_no = n + 1
        return n

    def _repair(self, slots: int) -> RepairReport:
        words, scan = self._words, self._slots.scan()
        head, begun = words.load_acquire(HEAD_WORD), words.load_acquire(INTENT_WORD)
        next_no = plausible_next(scan.next_no, head, begun, slots)
        kept = scan.numbers[scan.numbers >= max(0, next_no - slots)]
        first = int(kept[0]) if len(kept) else next_no
        words.store_release(INTENT_WORD, next_no)
        words.store_release(HEAD_WORD, next_no)
        words.store_release(FIRST_WORD, first)
        return RepairReport(len(scan.numbers), scan.invalidated, first, next_no)


class FrameReader(ReaderAttachment):
    """A reader of a ring; reads any frame that is still there. `retries`, `lapped`: counters for the board.

    `lapped` counts reads that asked for something already overwritten, `retries` reads that met a slot in change."""

    def __init__(self, words: Words, spec: FileSpec, probe: Probe | None = None) -> None:
        """Read words of a sound file; `open` is the way to a file."""
        super().__init__(words, probe)
        self._slots = SlotArray(words, HEADER_BYTES, spec.slots, spec.stride)
        self.spec = spec
        self.lapped = 0

    @classmethod
    def open(cls, path: Path, spec: FileSpec | None = None, *, probe: Probe | None = None) -> Self:
        """Map read-only; `spec` None takes any ring. Raises Missing, LayoutMismatch, IdentityMismatch."""
        mapped = files.open_reader(path, spec)
        return cls._over(mapped, mapped.header.spec, probe)

    @property
    def retries(self) -> int:
        """Reads that found a changing slot and were refused by the second stamp or the digest."""
        return self._slots.torn

    def head(self) -> int:
        """Frames committed so far = number of the next one."""
        return self._words.load_acquire(HEAD_WORD)

    def intent(self) -> int:
        """Frames begun so far."""
        return self._words.load_acquire(INTENT_WORD)

    def first(self) -> int:
        """Oldest frame that survived the last repair."""
        return self._words.load_acquire(FIRST_WORD)

    def latest(self) -> Slot | None:
        """The newest frame, or the one before it while the newest cannot be had; None for neither (or an empty ring)."""
        for _ in range(LATEST_ROUNDS):
            head = self.head()
            if head == 0:
                return None
            slot = self._slots.read(head - 1) or self._slots.read(head - 2)
            if slot is not None:
                return slot
        return None

    def read(self, n: int) -> Slot | None:
        """Frame n, or None: not yet published, invalidated, overwritten (counted in `lapped`) or torn."""
        slot = self._slots.read(n)
        if slot is None and 0 <= n < self.intent() - self.spec.slots:
            self.lapped += 1
        return slot

    def history(self, start: int, stop: int) -> History:
        """Frames `start` <= n < `stop`, clipped to what is there; one or two block copies."""
        bulk = self.bulk(start, stop)
        return History(slots_of(bulk.rows), bulk.missing, bulk.lapped)

    def bulk(self, start: int, stop: int) -> Bulk:
        """As `history`, for callers that take columns out of the raw rows (slot header included)."""
        head, slots = self.head(), self.spec.slots
        begin = max(0, start)
        end = max(begin, min(stop, head))
        low = min(max(begin, head - slots), end)
        block = self._slots.copy_range(low, end)
        oldest = min(max(low, self.intent() - slots), end)  # below it the writer was at work during the copy
        block, numbers = block[oldest - low :], np.arange(oldest, end, dtype=np.uint64)
        good = self._slots.good(block, numbers)
        self.lapped += oldest > begin
        return Bulk(numbers[good], block if good.all() else block[good], numbers[~good].tolist(), oldest - begin)
