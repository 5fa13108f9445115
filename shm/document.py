"""One writer, many readers; readers see the latest version, older ones are lost by design (section 7).

Version v of a document lives in copy v % copies with the slot protocol; its head word counts versions. With three copies the
newest version stays untouched for two more publishes. `link` ties a version to the frame of the same minute.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Self

from shm import attach, files
from shm.attach import ReaderAttachment, WriterAttachment
from shm.errors import Refused
from shm.layout import (
    BEAT_WORD,
    DOCUMENT_HEADS_AT,
    HEAD_WORD,
    INTENT_WORD,
    LINE,
    FileSpec,
    document_offsets,
)
from shm.liveness import Probe
from shm.slots import Slot, SlotArray, pack_body, plausible_next
from shm.words import Words

LATEST_ROUNDS: Final = 8


class _Document:
    """Place of one document: its head word and its copies."""

    __slots__ = ("copies", "head_word", "slots")

    def __init__(self, words: Words, index: int, offset: int, copies: int, stride: int) -> None:
        self.head_word = (DOCUMENT_HEADS_AT + index * LINE) // 8
        self.copies = copies
        self.slots = SlotArray(words, offset, copies, stride)


def _documents(words: Words, spec: FileSpec) -> dict[int, _Document]:
    places = enumerate(document_offsets(spec.documents))
    return {plan.id: _Document(words, index, offset, plan.copies, plan.stride) for index, (offset, plan) in places}


class DocumentWriter(WriterAttachment):
    """The only writer of a documents file. `refused`: publishes that were too large; `invalidated`: bad copies at attach."""

    def __init__(self, words: Words, spec: FileSpec, epoch: int | None = None) -> None:
        """Attach to words that nobody else writes; `open` is the way to a file. Raises Fenced."""
        super().__init__(words)
        self._documents = _documents(words, spec)
        self.refused = 0
        self.invalidated = 0
        self.epoch = attach.begin(words, epoch)
        self._heads = {key: self._repair(document) for key, document in self._documents.items()}
        self._total = sum(self._heads.values())
        words.store_release(INTENT_WORD, self._total)
        words.store_release(HEAD_WORD, self._total)
        attach.live(words)

    @classmethod
    def open(cls, path: Path, spec: FileSpec, *, epoch: int | None = None) -> Self:
        """Create or attach, lock, repair. Raises Locked, LayoutMismatch, IdentityMismatch, NoSpace, Fenced, Missing."""
        return cls._over(files.open_or_create(path, spec), spec, epoch)

    def publish(self, document: int, data: bytes, *, ts_ns: int, link: int = 0, published_ns: int | None = None) -> int:
        """Publish a version and return its number. `ts_ns`: event time; `link`: number of the frame it belongs to.

        Raises Refused (old version stays, `refused` counts) for data larger than a copy, KeyError for an unknown document.
        """
        place, version, words = self._documents[document], self._heads[document], self._words
        now = time.time_ns() if published_ns is None else published_ns
        try:
            if len(data) > place.slots.payload_bytes:
                raise Refused(f"document {document} must be at most {place.slots.payload_bytes} bytes, was {len(data)}")
            body = pack_body(version, data, ts_ns, now, document, 0, self.epoch, link)
        except Refused:
            self.refused += 1
            raise
        words.store_release(INTENT_WORD, self._total + 1)
        place.slots.write(version, body)
        words.store_release(place.head_word, version + 1)
        words.store_release(HEAD_WORD, self._total + 1)
        words.store_release(BEAT_WORD, time.monotonic_ns())
        self._heads[document] = version + 1
        self._total += 1
        return version

    def _repair(self, document: _Document) -> int:
        scan = document.slots.scan()
        self.invalidated += scan.invalidated
        head = self._words.load_acquire(document.head_word)
        # A document has no intent word of its own, so its head is judged by the copies alone.
        next_no = plausible_next(scan.next_no, head, head, document.copies)
        self._words.store_release(document.head_word, next_no)
        return next_no


class DocumentReader(ReaderAttachment):
    """Reads the latest version of each document. `retries` counts reads that met a copy in change."""

    def __init__(self, words: Words, spec: FileSpec, probe: Probe | None = None) -> None:
        """Read words of a sound file; `open` is the way to a file."""
        super().__init__(words, probe)
        self._documents = _documents(words, spec)
        self.spec = spec

    @classmethod
    def open(cls, path: Path, spec: FileSpec | None = None, *, probe: Probe | None = None) -> Self:
        """Map read-only. Raises Missing, LayoutMismatch, IdentityMismatch."""
        mapped = files.open_reader(path, spec)
        return cls._over(mapped, mapped.header.spec, probe)

    @property
    def retries(self) -> int:
        """Reads that were refused by the second stamp or the digest."""
        return sum(document.slots.torn for document in self._documents.values())

    def documents(self) -> list[int]:
        """Ids of the documents in this file."""
        return list(self._documents)

    def changes(self) -> int:
        """Versions published over all documents; one word to poll."""
        return self._words.load_acquire(HEAD_WORD)

    def head(self, document: int) -> int:
        """Versions of `document` published so far = number of the next one. Raises KeyError for an unknown document."""
        return self._words.load_acquire(self._documents[document].head_word)

    def latest(self, document: int) -> Slot | None:
        """The newest version, or the one before it while the newest cannot be had; None for neither."""
        place = self._documents[document]
        for _ in range(LATEST_ROUNDS):
            head = self._words.load_acquire(place.head_word)
            if head == 0:
                return None
            slot = place.slots.read(head - 1) or place.slots.read(head - 2)
            if slot is not None:
                return slot
        return None

    def read(self, document: int, version: int) -> Slot | None:
        """One version, or None where it is not (any more) there."""
        return self._documents[document].slots.read(version)

    def linked(self, document: int, link: int) -> Slot | None:
        """The newest version that belongs to frame `link`, or None."""
        place = self._documents[document]
        head = self._words.load_acquire(place.head_word)
        for version in range(head - 1, max(-1, head - 1 - place.copies), -1):
            slot = place.slots.read(version)
            if slot is not None and slot.link == link:
                return slot
        return None
