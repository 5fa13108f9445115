"""A shared file of counters and levels of one process: a word per label, one writer, any number of readers.

For counts that the fixed words of a board row have no room for. A counter goes on from where the writer before left it, so sums
over files never fall while the files live; a level means something only while its writer lives. Each word is read by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from shm import attach, files
from shm.attach import ReaderAttachment, WriterAttachment
from shm.layout import HEADER_BYTES, FileSpec
from shm.liveness import Probe, WriterState
from shm.words import Words

FIRST = HEADER_BYTES // 8


class CounterWriter(WriterAttachment):
    """The one writer of a file; holds its lock for life."""

    def __init__(self, words: Words, spec: FileSpec) -> None:
        """Attach to words that nobody else writes; `open` is the way to a file."""
        super().__init__(words)
        self.epoch = attach.begin(words, None)
        self._values = list(_load(words, spec.slots))
        attach.live(words)

    @classmethod
    def open(cls, path: Path, spec: FileSpec) -> Self:
        """Create or attach, and lock. Raises Locked, LayoutMismatch, IdentityMismatch, NoSpace, Missing (no directory)."""
        return cls._over(files.open_or_create(path, spec), spec)

    def values(self) -> list[int]:
        """All words, in the order of the labels."""
        return self._values.copy()

    def store(self, values: Sequence[int]) -> None:
        """Publish all words; only those that have changed are written. One per label, 0 to 2**64 - 1."""
        words, known = self._words, self._values
        for index, (old, new) in enumerate(zip(known, values, strict=True)):
            if old != new:
                words.store_release(FIRST + index, new)
                known[index] = new
        self.beat()


class CounterReader(ReaderAttachment):
    """Reads one file."""

    def __init__(self, words: Words, spec: FileSpec, probe: Probe | None = None) -> None:
        """Read words of a sound file; `open` is the way to a file."""
        super().__init__(words, probe)
        self._count = spec.slots

    @classmethod
    def open(cls, path: Path, spec: FileSpec, *, probe: Probe | None = None) -> Self:
        """Map read-only. Raises Missing, LayoutMismatch, IdentityMismatch (files of other labels)."""
        return cls._over(files.open_reader(path, spec), spec, probe)

    def values(self) -> tuple[int, ...]:
        """All words, in the order of the labels."""
        return _load(self._words, self._count)

    def alive(self) -> bool:
        """Whether the process that wrote last still runs: only then do levels mean anything."""
        return self.writer_state() in (WriterState.LIVE, WriterState.STALLED)


def _load(words: Words, count: int) -> tuple[int, ...]:
    # Word by word: a copy of the block may take a word in pieces, and a counter that is read in pieces could fall.
    return tuple(words.load_acquire(FIRST + index) for index in range(count))
