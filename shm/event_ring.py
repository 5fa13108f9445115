"""One writer, one reader; a full ring refuses the newest batch, counts it and marks the gap (section 6).

Batches of whole 64-byte records, a digest per batch. Two words bound the bytes in use: the producer's `head` and the consumer's
`release`. The consumer reads ahead of `release` with a private position and stores `release` only when what it has read is in a
checkpoint, so a restarted consumer reads again (at least once; duplicates are told by source, epoch, sequence).

The consumer's position advances only after the digest of bytes it owns has matched: a control dependency from load to store,
which aarch64 respects too. That is why the digest makes this ring sound without fences.
"""

from __future__ import annotations

import os
import struct
import time
from enum import IntFlag
from pathlib import Path
from typing import Final, NamedTuple, Self

from shm import attach, files
from shm.attach import ReaderAttachment, WriterAttachment
from shm.digest import digest
from shm.errors import Refused
from shm.layout import (
    BATCH_BODY,
    BATCH_BODY_AT,
    BATCH_DIGEST_AT,
    BATCH_SIZE_AT,
    BEAT_WORD,
    CONSUMER_BEAT_WORD,
    CONSUMER_EPOCH_WORD,
    DROPPED_BATCHES_WORD,
    DROPPED_RECORDS_WORD,
    GAPS_WORD,
    HEAD_WORD,
    HEADER_BYTES,
    INTENT_WORD,
    RELEASE_WORD,
    UNIT,
    FileSpec,
)
from shm.liveness import Probe
from shm.words import Words

_DIGEST_WORD: Final = BATCH_DIGEST_AT // 8
_SIZE_WORD: Final = BATCH_SIZE_AT // 8
_UNITS_MASK: Final = 0xFFFF_FFFF
_HEAD: Final = UNIT - BATCH_DIGEST_AT  # header bytes in a reader's copy, which starts at the digest
_SEALED: Final = BATCH_BODY_AT - BATCH_DIGEST_AT


class BatchFlag(IntFlag):
    """Flags of a batch. PAD fills the end of the ring and never reaches a caller."""

    NONE = 0
    PAD = 1
    GAP = 2
    REPLAYED = 4
    CLOCK_ONLY = 8


# PERF: NamedTuple, not a frozen dataclass: a third of the time to make one, and one is made per batch.
class Batch(NamedTuple):
    """One verified batch; `body` is a private copy of whole 64-byte units.

    position, end: units since the ring was created, of this batch and of the next. source: id of the feed shard (names in the
    label text of the board). first_seq: running number of the first record. flushed_ns: wall clock.
    """

    position: int
    source: int
    epoch: int
    first_seq: int
    records: int
    flags: BatchFlag
    flushed_ns: int
    body: bytes
    end: int


_SETTABLE: Final = int(BatchFlag.GAP | BatchFlag.REPLAYED | BatchFlag.CLOCK_ONLY)
_KNOWN: Final = 15
_FLAGS: Final = tuple(BatchFlag(value) for value in range(_KNOWN + 1))  # PERF: an IntFlag call per batch costs more than the unpack


def create_event_ring(path: Path, spec: FileSpec) -> None:
    """Create the ring anew, in place of one that nobody holds. For the supervisor. Raises Locked, NoSpace, Missing."""
    files.replace(path, spec)
    files.create_consumer_lock(path)


def read_batch(words: Words, capacity: int, position: int) -> Batch | None:
    """The committed batch at `position`, judged on a private copy; None for none (yet)."""
    unit = position % capacity
    offset = HEADER_BYTES + unit * UNIT
    stamp = offset >> 3
    if words.load_acquire(stamp) != position + 1:
        return None
    units = words.load_acquire(stamp + _SIZE_WORD) & _UNITS_MASK
    if unit + 1 + units > capacity:
        return None
    copy = words.copy_out(offset + BATCH_DIGEST_AT, _HEAD + units * UNIT)
    if digest(memoryview(copy)[_SEALED:], position) != int.from_bytes(copy[:_SEALED], "little"):
        return None
    _, flags, records, source, _, epoch, first_seq, flushed_ns, _ = BATCH_BODY.unpack_from(copy, _SEALED)
    return Batch(
        position, source, epoch, first_seq, records, _FLAGS[flags & _KNOWN], flushed_ns, copy[_HEAD:], position + 1 + units
    )


def _write_batch(words: Words, capacity: int, position: int, sealed: bytes) -> None:
    offset, seal = HEADER_BYTES + position % capacity * UNIT, digest(sealed, position)
    stamp = offset >> 3
    words.copy_in(offset + BATCH_BODY_AT, sealed)
    words.store_release(stamp + _DIGEST_WORD, seal)
    words.store_release(stamp, position + 1)


class EventWriter(WriterAttachment):
    """The only producer. `dropped_records`, `dropped_batches`, `gaps` only rise, also over restarts."""

    def __init__(self, words: Words, spec: FileSpec, epoch: int | None = None) -> None:
        """Attach to words that nobody else writes; `open` is the way to a file. Raises Fenced."""
        super().__init__(words)
        self._capacity = spec.slots
        self.epoch = attach.begin(words, epoch)
        self._release = words.load_acquire(RELEASE_WORD)
        self._tail = self._walk()
        words.store_release(INTENT_WORD, self._tail)
        words.store_release(HEAD_WORD, self._tail)
        self.dropped_records = words.load_acquire(DROPPED_RECORDS_WORD)
        self.dropped_batches = words.load_acquire(DROPPED_BATCHES_WORD)
        self.gaps = words.load_acquire(GAPS_WORD)
        # A new producer does not know what the old one had taken in and not yet put.
        self._gap = self.epoch > 1
        attach.live(words)

    @classmethod
    def open(cls, path: Path, spec: FileSpec, *, epoch: int | None = None) -> Self:
        """Lock and attach behind the last committed batch. Raises Missing, Locked, LayoutMismatch, IdentityMismatch, Fenced."""
        return cls._over(files.open_writer(path, spec), spec, epoch)

    @property
    def head(self) -> int:
        """Position behind the last committed batch, units."""
        return self._tail

    def put(self, body: bytes, *, records: int, source: int, first_seq: int, flags: int = 0, flushed_ns: int | None = None) -> bool:
        """Commit one batch; False when the ring is full: dropped, counted, and the next batch carries GAP. Never waits.

        body: whole 64-byte units, at most half the ring; records: how many are in it (a record with levels takes several
        units); flushed_ns: wall clock, now if None. Raises Refused for a body or field that no ring could take.
        """
        tail, capacity = self._tail, self._capacity
        units, sealed = self._seal(body, records, source, first_seq, flags, flushed_ns)
        left = capacity - tail % capacity
        pad = left if left < units + 1 else 0
        end = tail + pad + units + 1
        if end - self._release > capacity:
            self._release = self._words.load_acquire(RELEASE_WORD)
            if end - self._release > capacity:
                self._drop(records)
                return False
        words = self._words
        if pad:
            filler = BATCH_BODY.pack(pad - 1, BatchFlag.PAD, 0, 0, 0, self.epoch, 0, 0, 0)
            _write_batch(words, capacity, tail, filler + bytes((pad - 1) * UNIT))
        _write_batch(words, capacity, tail + pad, sealed)
        words.store_release(HEAD_WORD, end)
        words.store_release(BEAT_WORD, time.monotonic_ns())
        self._tail = end
        self._gap = False
        return True

    def fill(self) -> float:
        """Share of the ring that is not released, 0..1."""
        return (self._tail - self._words.load_acquire(RELEASE_WORD)) / self._capacity

    def _seal(
        self, body: bytes, records: int, source: int, first_seq: int, flags: int, flushed_ns: int | None
    ) -> tuple[int, bytes]:
        units, rest = divmod(len(body), UNIT)
        if rest or 2 * (units + 1) > self._capacity:
            raise Refused(f"a body must be whole units of {UNIT} bytes, at most half of {self._capacity}, was {len(body)} bytes")
        if flags & ~_SETTABLE:
            raise Refused(f"flags of a batch must be GAP, REPLAYED or CLOCK_ONLY, were {flags}")
        now = time.time_ns() if flushed_ns is None else flushed_ns
        marked = flags | BatchFlag.GAP if self._gap else flags
        try:
            return units, BATCH_BODY.pack(units, marked, records, source, 0, self.epoch, first_seq, now, 0) + body
        except struct.error as error:
            raise Refused(f"a batch field is out of range: {error}") from error

    def _drop(self, records: int) -> None:
        words = self._words
        self.dropped_records += records
        self.dropped_batches += 1
        words.store_release(DROPPED_RECORDS_WORD, self.dropped_records)
        words.store_release(DROPPED_BATCHES_WORD, self.dropped_batches)
        if not self._gap:
            self._gap = True
            self.gaps += 1
            words.store_release(GAPS_WORD, self.gaps)
        words.store_release(BEAT_WORD, time.monotonic_ns())

    def _walk(self) -> int:
        """Position behind the last committed batch: the old producer may have died between the stamp and `head`."""
        position = max(self._words.load_acquire(HEAD_WORD), self._release)
        while batch := read_batch(self._words, self._capacity, position):
            position = batch.end
        return position


class EventReader(ReaderAttachment):
    """The only consumer. `position`: where it reads next, units; runs ahead of what it has released."""

    def __init__(self, words: Words, spec: FileSpec, position: int | None = None, probe: Probe | None = None) -> None:
        """Attach to words that no other consumer uses; `open` is the way to a file."""
        super().__init__(words, probe)
        self._lock = -1
        self._capacity = spec.slots
        self._released = words.load_acquire(RELEASE_WORD)
        behind = position is None or not self._released <= position <= self._released + self._capacity
        self.position = self._released if position is None or behind else position
        self.consumer_epoch = words.load_acquire(CONSUMER_EPOCH_WORD) + 1
        words.store_release(CONSUMER_EPOCH_WORD, self.consumer_epoch)
        self.beat()

    @classmethod
    def open(cls, path: Path, spec: FileSpec | None = None, *, position: int | None = None, probe: Probe | None = None) -> Self:
        """Take the consumer's lock and start at `position` where the ring still holds it, else at `release`.

        A position means something only together with the uuid of the ring: compare before passing one from a checkpoint.
        Raises Missing, Locked, LayoutMismatch, IdentityMismatch.
        """
        mapped = files.open_shared(path, spec)
        try:
            lock = files.lock_consumer(path)
        except BaseException:
            mapped.close()
            raise
        reader = cls(mapped.words, mapped.header.spec, position, probe)
        reader._mapped, reader._lock = mapped, lock
        return reader

    @property
    def released(self) -> int:
        """What this consumer has released, units."""
        return self._released

    def writer_epoch(self) -> int:
        """Epoch of the producer that is or was attached last."""
        return self.epoch()

    def get(self) -> Batch | None:
        """The next batch, or None while there is none. Advances `position` only over a batch whose digest matched."""
        while batch := read_batch(self._words, self._capacity, self.position):
            self.position = batch.end
            if not batch.flags & BatchFlag.PAD:
                return batch
        return None

    def release(self, position: int) -> None:
        """Let the producer overwrite everything below `position`; only when it is in a checkpoint.

        Raises ValueError for a position above the own one or below what was released before.
        """
        if not self._released <= position <= self.position:
            raise ValueError(f"release must be {self._released} to {self.position}, was {position}")
        self._words.store_release(RELEASE_WORD, position)
        self._released = position

    def backlog(self) -> int:
        """Units between the producer's head and the own position."""
        return max(0, self._words.load_acquire(HEAD_WORD) - self.position)

    def fill(self) -> float:
        """Share of the ring that is not released, 0..1. Above 0.5: checkpoint early."""
        return max(0, self._words.load_acquire(HEAD_WORD) - self._released) / self._capacity

    def beat(self) -> None:
        """Say that this consumer lives; at least every 250 ms."""
        self._words.store_release(CONSUMER_BEAT_WORD, time.monotonic_ns())

    def _leave(self) -> None:
        os.close(self._lock)
