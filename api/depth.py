"""Frames and book of one symbol as the depth endpoints need them: decoded once, kept while they are what the file holds."""

from __future__ import annotations

from collections.abc import Iterator

from api.documents import Published, published
from api.kept_rows import CHUNK, KeptRows
from api.sources import Stamp, SymbolSources
from api.views import DepthFrame, DepthRow, decode_frame, decode_rows
from mpengine.schemas import BookDocument
from shm.frame_ring import FrameReader
from shm.records import DocumentId


class DepthFrames:
    """Decoded frames of one symbol. `newest` is the loop's, `rows` the builder's: they share nothing but the reader."""

    def __init__(self, sources: SymbolSources) -> None:
        self._sources = sources
        self._newest_stamp: Stamp | None = None
        self._newest: DepthFrame | None = None
        self._rows = KeptRows(_decoded)

    def stamp(self) -> tuple[Stamp, Stamp]:
        """Identity of frames and book: what an answer with both is valid for."""
        return self._sources.depth.stamp(), self._sources.documents.stamp(DocumentId.BOOK)

    def newest(self) -> DepthFrame | None:
        """The newest frame; None while there is none that can be read."""
        stamp = self._sources.depth.stamp()
        if stamp != self._newest_stamp:
            reader = self._sources.depth.reader
            self._newest = None if reader is None else _read_newest(reader)
            self._newest_stamp = stamp
        return self._newest

    def rows(self, count: int) -> list[DepthRow]:
        """The newest `count` frames that can be read, oldest first. Only those not seen yet are read and decoded."""
        return self._rows.newest(self._sources.depth.reader, count)

    def oldest_ms(self) -> int:
        """Start of the oldest frame that can be read, epoch ms; 0 without one."""
        reader = self._sources.depth.reader
        if reader is None:
            return 0
        head = reader.head()
        oldest = max(reader.first(), head - reader.spec.slots)
        # The oldest ones are the next to be overwritten, so one of them may be gone by now.
        rows = reader.bulk(oldest, min(head, oldest + CHUNK)).rows
        decoded = decode_rows(rows[:1])
        return decoded[0].open_ms if decoded else 0

    def book(self, frame_no: int | None) -> Published[BookDocument] | None:
        """The book document of frame `frame_no` if there is one, else the newest; None for neither."""
        reader = self._sources.documents.reader
        if reader is None or DocumentId.BOOK not in reader.documents():
            return None
        slot = None if frame_no is None else reader.linked(DocumentId.BOOK, frame_no)
        return published(slot or reader.latest(DocumentId.BOOK), BookDocument)


def _read_newest(reader: FrameReader) -> DepthFrame | None:
    """The newest sound frame: of the last two, or, where a power loss took those, the one before the hole."""
    head = reader.head()
    oldest, stop, count = max(0, head - reader.spec.slots), head, 2
    while stop > oldest:
        start = max(oldest, stop - count)
        rows = reader.bulk(start, stop).rows
        if len(rows):
            return decode_frame(rows[-1:])
        stop, count = start, CHUNK
    return None


def _decoded(reader: FrameReader, first: int, stop: int) -> Iterator[tuple[int, DepthRow]]:
    return ((row.number, row) for row in decode_rows(reader.bulk(first, stop).rows))
