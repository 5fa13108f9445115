"""Liquidation maps of one symbol as the endpoints need them: frame and document of a minute, pictures of many (`spec: api`, 5, 6).

The document whose link is the number of the frame belongs to it; where there is none, the newest pair that fits is served.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from api.documents import Published, published
from api.kept_rows import KeptRows
from api.sources import NO_FILE, Stamp, SymbolSources
from mpengine.heatmap import Combined, Grid, Mix, combine_scaled
from mpengine.pictures import Cells, cells_u8, picture_v1, picture_v2
from mpengine.schemas import LevelsDocument, ZonesDocument
from shm.frame_ring import FrameReader
from shm.frames import Frame, decode
from shm.records import DocumentId, FrameKind
from shm.slots import Slot

NS_PER_MS: Final = 1_000_000
LOOK_BACK: Final = 3  # versions that a document keeps


@dataclass(frozen=True, slots=True)
class MapFrame:
    """One frame with its identity (epoch of the writer, number)."""

    identity: tuple[int, int]
    frame: Frame

    @property
    def close_ms(self) -> int:
        """End of the minute, epoch ms: what its age is counted from."""
        return self.frame.close_ts_ns // NS_PER_MS

    @property
    def grid(self) -> Grid:
        return Grid(self.frame.origin, self.frame.count, self.frame.step)

    def combined(self, mix: Mix) -> Combined:
        """Both sources and their map, from the planes and the scales of the header."""
        frame = self.frame
        return combine_scaled(frame.planes[:2], frame.planes[2:], frame.norm_a, frame.norm_b, mix)


@dataclass(frozen=True, slots=True)
class MapPair:
    """A frame and the document of the same state."""

    map: MapFrame
    levels: Published[LevelsDocument]


@dataclass(frozen=True, slots=True)
class Strip:
    """One minute of a history: `cells` uint8[long, short][bucket]; bucket i has price (origin + i) * step."""

    origin: int
    step: float
    src: float
    cells: Cells

    @property
    def last(self) -> int:
        """Index of the last bucket."""
        return self.origin + int(self.cells.shape[1]) - 1


@dataclass(frozen=True, slots=True)
class MapRow:
    """One frame of a history, as both pictures. Times in epoch ms."""

    number: int
    epoch: int
    close_ms: int
    src: float
    step: float
    tape_p99: float
    projection_p99: float
    v1: Strip
    v2: Strip


class MapFrames:
    """Frames of one symbol. `newest` is the loop's, `rows` the builder's: they share nothing but the reader."""

    def __init__(self, sources: SymbolSources, mix: Mix) -> None:
        self._sources = sources
        self._mix = mix
        self._pair_stamp: tuple[Stamp, Stamp] | None = None
        self._pair: MapPair | None = None
        self._zones_stamp: Stamp | None = None
        self._zones: Published[ZonesDocument] | None = None
        self._rows = KeptRows(self._decoded)

    def stamp(self) -> tuple[Stamp, Stamp]:
        """Identity of ring and levels document: what an answer with both is valid for."""
        return self._sources.liquidation.stamp(), self._document_stamp(DocumentId.LEVELS)

    def zones_stamp(self) -> Stamp:
        """Identity of the zones document."""
        return self._document_stamp(DocumentId.ZONES)

    def newest(self) -> MapPair | None:
        """The newest frame that has its document; None while there is none."""
        stamp = self.stamp()
        if stamp != self._pair_stamp:
            self._pair, self._pair_stamp = self._read_pair(), stamp
        return self._pair

    def zones(self) -> Published[ZonesDocument] | None:
        """The newest zones; None before the first."""
        stamp = self.zones_stamp()
        if stamp != self._zones_stamp:
            reader = self._sources.documents.reader
            self._zones = None if reader is None or stamp == NO_FILE else published(reader.latest(DocumentId.ZONES), ZonesDocument)
            self._zones_stamp = stamp
        return self._zones

    @property
    def count(self) -> int:
        """Frames that the ring holds."""
        reader = self._sources.liquidation.reader
        return 0 if reader is None else reader.head() - max(reader.first(), reader.head() - reader.spec.slots)

    def rows(self, count: int) -> list[MapRow]:
        """The newest `count` frames that can be read, oldest first. Only those not seen yet are read and decoded."""
        return self._rows.newest(self._sources.liquidation.reader, count)

    def _decoded(self, reader: FrameReader, first: int, stop: int) -> Iterator[tuple[int, MapRow]]:
        for slot in reader.history(first, stop).slots:
            if (found := _map_frame(slot)) is not None:
                yield found.identity[1], _row(found, self._mix)

    def _document_stamp(self, document: DocumentId) -> Stamp:
        reader = self._sources.documents.reader
        if reader is None or document not in reader.documents():
            return NO_FILE
        return self._sources.documents.stamp(document)

    def _read_pair(self) -> MapPair | None:
        ring, documents = self._sources.liquidation.reader, self._sources.documents.reader
        if ring is None or documents is None or DocumentId.LEVELS not in documents.documents():
            return None
        head = ring.head()
        for number in range(head - 1, max(-1, head - 1 - LOOK_BACK), -1):
            levels = published(documents.linked(DocumentId.LEVELS, number), LevelsDocument)
            found = _read(ring, number) if levels is not None else None
            # The link alone could be another epoch's: numbers may be used again after a power loss.
            if levels is not None and found is not None and levels.content.written_ns == found.frame.close_ts_ns:
                return MapPair(found, levels)
        return None


def _read(ring: FrameReader, number: int) -> MapFrame | None:
    slot = ring.read(number)
    return None if slot is None else _map_frame(slot)


def _map_frame(slot: Slot) -> MapFrame | None:
    try:
        frame = decode(slot.payload)
    except ValueError:
        return None  # of a schema that this version does not know
    return MapFrame((slot.epoch, slot.frame_no), frame) if frame.kind is FrameKind.LIQUIDATION else None


def _row(found: MapFrame, mix: Mix) -> MapRow:
    frame, shown = found.frame, found.combined(mix).display
    first, second = picture_v1(found.grid, frame.reference, shown), picture_v2(found.grid, shown)
    v1, v2 = (Strip(one.grid.origin, frame.step, frame.reference, cells_u8(one.values)) for one in (first, second))
    epoch, number = found.identity
    return MapRow(number, epoch, found.close_ms, frame.reference, frame.step, frame.norm_a, frame.norm_b, v1, v2)


def usd_of(frame: Frame) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """float64[2, buckets]: tape and projected USD of each side together."""
    total: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = frame.planes[:2] + frame.planes[2:]
    return total
