"""The data writer's side of a header page: who writes, in which epoch, in which state. Used by every writer in `shm`."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any, Self

from shm.errors import Fenced
from shm.files import Mapped
from shm.layout import (
    ATTACHED_NS_WORD,
    BEAT_WORD,
    BOOT_HI_WORD,
    BOOT_LO_WORD,
    EPOCH_WORD,
    PID_WORD,
    START_TICKS_WORD,
    STATE_WORD,
    FileState,
)
from shm.liveness import Probe, ProcessIdentity, WriterState, own_identity, writer_state
from shm.words import Words


def begin(words: Words, epoch: int | None) -> int:
    """State attaching, identity of this process, next epoch; returns the epoch. The caller holds the lock.

    Raises Fenced where `epoch` is given and is not above the stored one; nothing is written then.
    """
    stored = words.load_acquire(EPOCH_WORD)
    if epoch is not None and epoch <= stored:
        raise Fenced(f"epoch must be above {stored}, was {epoch}")
    identity, chosen = own_identity(), stored + 1 if epoch is None else epoch
    beat(words)  # first, so that nobody sees an attaching writer with the beat of a dead one
    words.store_release(STATE_WORD, FileState.ATTACHING)
    words.store_release(PID_WORD, identity.pid)
    words.store_release(START_TICKS_WORD, identity.start_ticks)
    words.store_release(BOOT_HI_WORD, identity.boot_hi)
    words.store_release(BOOT_LO_WORD, identity.boot_lo)
    words.store_release(ATTACHED_NS_WORD, time.time_ns())
    words.store_release(EPOCH_WORD, chosen)
    return chosen


def live(words: Words) -> None:
    """The file is repaired; readers may count on it."""
    words.store_release(STATE_WORD, FileState.LIVE)


def beat(words: Words) -> None:
    """Store the monotonic clock; at every publish and at least every 250 ms."""
    words.store_release(BEAT_WORD, time.monotonic_ns())


def finish(words: Words) -> None:
    """The writer leaves in order."""
    words.store_release(STATE_WORD, FileState.CLOSED)


def state_of_writer(words: Words, probe: Probe) -> WriterState:
    """Writer state as a reader sees it. The words are not read as one; a change in between shows as one wrong answer at most."""
    state = words.load_acquire(STATE_WORD)
    if state == FileState.RETIRED:
        return WriterState.RETIRED
    if state in (FileState.NEW, FileState.CLOSED):
        return WriterState.CLOSED
    identity = ProcessIdentity(
        words.load_acquire(PID_WORD),
        words.load_acquire(START_TICKS_WORD),
        words.load_acquire(BOOT_HI_WORD),
        words.load_acquire(BOOT_LO_WORD),
    )
    return writer_state(identity, words.load_acquire(BEAT_WORD), probe)


class Attachment:
    """What every handle on a mapped file has: its uuid, a way to close it, use as a context manager."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._mapped: Mapped | None = None

    @classmethod
    def _over(cls, mapped: Mapped, *arguments: Any) -> Self:
        """A handle that owns `mapped`; `arguments` follow its words. Nothing stays mapped where the handle cannot be made."""
        try:
            handle = cls(mapped.words, *arguments)
        except BaseException:
            mapped.close()
            raise
        handle._mapped = mapped
        return handle

    @property
    def uuid(self) -> int:
        """Random number of this file; changes whenever the file is created anew; 0 without a file."""
        return self._mapped.header.uuid if self._mapped else 0

    def close(self) -> None:
        """Unmap and give locks up; a second call does nothing."""
        mapped, self._mapped = self._mapped, None
        if mapped:
            self._leave()
            mapped.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _leave(self) -> None:
        """Last words before the map goes away."""


class WriterAttachment(Attachment):
    """The one data writer of a file. `epoch`: its fencing number."""

    epoch: int

    @property
    def fd(self) -> int:
        """Descriptor for fdatasync; -1 without a file."""
        return self._mapped.fd if self._mapped else -1

    def beat(self) -> None:
        """Say that this writer lives; at least every 250 ms."""
        beat(self._words)

    def sync(self) -> None:
        """fdatasync; blocks on the disk, so call it from a thread of its own (`shm.syncer`)."""
        # Not mmap.flush(): it holds the GIL for its whole duration on 3.11-3.13.
        if self._mapped:
            os.fdatasync(self._mapped.fd)

    def _leave(self) -> None:
        finish(self._words)


class ReaderAttachment(Attachment):
    """A reader of a file: what it can say about the writer and about the file itself."""

    def __init__(self, words: Words, probe: Probe | None) -> None:
        super().__init__(words)
        self._probe = probe or Probe()

    def epoch(self) -> int:
        """Epoch of the writer; together with a number it is the identity of what was published."""
        return self._words.load_acquire(EPOCH_WORD)

    def writer_state(self) -> WriterState:
        """Closed, retired, dead, stalled or live."""
        return state_of_writer(self._words, self._probe)

    def replaced(self) -> bool:
        """True when the file should be opened again; look every second and after any stale answer."""
        return self._mapped is not None and self._mapped.replaced()
