"""Slot protocol of section 5, shared by frame rings, record rings and documents. One writer, any number of readers.

Frame n lives in slot n % slots. A reader never trusts shared bytes: it copies, then judges the digest of its own copy.
Nothing here waits, retries or raises because of what another process does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from shm.digest import digest
from shm.errors import Refused
from shm.layout import (
    SLOT_BODY,
    SLOT_BODY_AT,
    SLOT_DIGEST_AT,
    SLOT_HEADER_BYTES,
    SLOT_LENGTH_AT,
    SLOT_STAMP_AT,
)
from shm.words import Words

_DIGEST_WORD: Final = SLOT_DIGEST_AT // 8
_LENGTH_WORD: Final = SLOT_LENGTH_AT // 8
_LENGTH_MASK: Final = 0xFFFF_FFFF
_HEAD: Final = SLOT_HEADER_BYTES - SLOT_DIGEST_AT  # header bytes in a reader's copy, which starts at the digest
_BODY_HEAD: Final = SLOT_HEADER_BYTES - SLOT_BODY_AT

Block = npt.NDArray[np.uint8]


# PERF: NamedTuple, not a frozen dataclass: a third of the time to make one, and a history makes a thousand.
class Slot(NamedTuple):
    """One verified frame, record or document version; `payload` is a private copy.

    ts_ns: event time of the content; published_ns: wall clock at publish; flags: low 16 coverage flags; link: documents only.
    """

    frame_no: int
    epoch: int
    ts_ns: int
    published_ns: int
    kind: int
    flags: int
    link: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan at attach found. `numbers`: good frame numbers, ascending. `invalidated`: slots whose stamp was set to 0."""

    numbers: npt.NDArray[np.uint64]
    invalidated: int

    @property
    def next_no(self) -> int:
        """Behind the best good frame; 0 for an empty ring."""
        return int(self.numbers[-1]) + 1 if len(self.numbers) else 0


def pack_body(n: int, payload: bytes, ts_ns: int, published_ns: int, kind: int, flags: int, epoch: int, link: int) -> bytes:
    """Slot bytes from offset 16 on: what the digest covers. Raises Refused for a number that does not fit its field."""
    try:
        return SLOT_BODY.pack(n, ts_ns, published_ns, len(payload), kind, flags, epoch, link) + payload
    except struct.error as error:
        raise Refused(f"a header field is out of range: {error}") from error


def unpack(copy: bytes, n: int) -> Slot | None:
    """Judge a private copy of slot bytes 8 .. 64+length; None unless it is exactly frame n."""
    if digest(memoryview(copy)[_HEAD - _BODY_HEAD :], n) != int.from_bytes(copy[:8], "little"):
        return None
    frame_no, ts_ns, published_ns, length, kind, flags, epoch, link = SLOT_BODY.unpack_from(copy, 8)
    if frame_no != n or length != len(copy) - _HEAD:
        return None
    return Slot(frame_no, epoch, ts_ns, published_ns, kind, flags, link, copy[_HEAD:])


class SlotArray:
    """`slots` slots of `stride` bytes from byte `base` of a buffer. `torn` counts reads that a digest or second stamp refused."""

    __slots__ = ("_base", "_slots", "_stride", "_words", "payload_bytes", "torn")

    def __init__(self, words: Words, base: int, slots: int, stride: int) -> None:
        self._words = words
        self._base = base
        self._slots = slots
        self._stride = stride
        self.payload_bytes = stride - SLOT_HEADER_BYTES
        self.torn = 0

    def write(self, n: int, body: bytes) -> None:
        """Write frame n (`pack_body`, not longer than a slot). Everything is computed before the odd stamp."""
        words, offset, seal = self._words, self._base + n % self._slots * self._stride, digest(body, n)
        stamp = offset >> 3
        words.store_release(stamp, 2 * n + 1)
        words.copy_in(offset + SLOT_BODY_AT, body)
        words.store_release(stamp + _DIGEST_WORD, seal)
        words.store_release(stamp, 2 * n + 2)

    def read(self, n: int) -> Slot | None:
        """Frame n, or None while it is missing, in progress, overwritten or torn."""
        words, offset = self._words, self._base + n % self._slots * self._stride
        stamp, committed = offset >> 3, 2 * n + 2
        if n < 0 or words.load_acquire(stamp) != committed:
            return None
        length = words.load_acquire(stamp + _LENGTH_WORD) & _LENGTH_MASK
        if length > self.payload_bytes:
            self.torn += 1
            return None
        copy = words.copy_out(offset + SLOT_DIGEST_AT, _HEAD + length)
        slot = unpack(copy, n) if words.load_acquire(stamp) == committed else None
        if slot is None:
            self.torn += 1
        return slot

    def copy_range(self, start: int, stop: int) -> Block:
        """Private copy of slots `start` .. `stop` - 1 (frame numbers, at most one lap) as uint8[frame, stride], unchecked."""
        count, first = stop - start, start % self._slots
        block = np.empty((count, self._stride), np.uint8)
        until_end = min(count, self._slots - first)
        flat = block.reshape(-1).data
        if until_end:
            self._words.copy_block(self._base + first * self._stride, flat[: until_end * self._stride])
        if count > until_end:
            self._words.copy_block(self._base, flat[until_end * self._stride :])
        return block

    def good(self, block: Block, numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Which rows of a private block hold exactly the frame `numbers` says: stamp, frame_no, length, then every digest."""
        columns = block.view("<u8")
        lengths = columns[:, _LENGTH_WORD] & np.uint64(_LENGTH_MASK)
        sound: npt.NDArray[np.bool_] = columns[:, SLOT_STAMP_AT // 8] == 2 * numbers + 2
        sound &= columns[:, SLOT_BODY_AT // 8] == numbers
        sound &= lengths <= self.payload_bytes
        ends = (np.arange(len(block), dtype=np.int64) * self._stride + SLOT_HEADER_BYTES + lengths.astype(np.int64)).tolist()
        seals, values, flat = columns[:, _DIGEST_WORD].tolist(), numbers.tolist(), block.reshape(-1).data
        stride = self._stride
        for row in np.flatnonzero(sound).tolist():
            if digest(flat[row * stride + SLOT_BODY_AT : ends[row]], values[row]) != seals[row]:
                sound[row] = False
        return sound

    def scan(self) -> Scan:
        """Check every slot; set the stamp of each one that is neither empty nor good to 0. For the writer at attach."""
        block = self.copy_range(0, self._slots)
        stamps = np.ascontiguousarray(block.view("<u8")[:, SLOT_STAMP_AT // 8])
        used = stamps != 0
        numbers = (stamps >> np.uint64(1)) - np.uint64(1)
        placed = used & (numbers % np.uint64(self._slots) == np.arange(self._slots, dtype=np.uint64))
        good = placed & self.good(block, numbers)
        for index in np.flatnonzero(used & ~good).tolist():
            self._words.store_release((self._base + index * self._stride) >> 3, 0)
        return Scan(np.sort(numbers[good]), int(np.count_nonzero(used & ~good)))


def slots_of(rows: Block) -> list[Slot]:
    """Slots from verified rows of a private block; each payload is a copy of its own."""
    flat, stride = rows.reshape(-1).data, rows.shape[1]
    found = []
    for start in range(0, len(flat), stride):
        frame_no, ts_ns, published_ns, length, kind, flags, epoch, link = SLOT_BODY.unpack_from(flat, start + SLOT_BODY_AT)
        payload = flat[start + SLOT_HEADER_BYTES : start + SLOT_HEADER_BYTES + length].tobytes()
        found.append(Slot(frame_no, epoch, ts_ns, published_ns, kind, flags, link, payload))
    return found


def plausible_next(best: int, head: int, begun: int, slots: int) -> int:
    """Next number after a repair: behind the best good frame, or `head` where the words of the header hang together.

    `begun` is the intent word. A head far from every good frame, or not next to its intent, is rubbish from a damaged page.
    """
    sane = 0 <= begun - head <= 1 and (best == 0 or head - best <= slots)
    return max(best, head) if sane else best
