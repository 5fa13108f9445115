"""Frames of one symbol as `/heatmap` needs them: decoded once, kept while they are what the file holds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np

from api.heatmap_grid import GridFrame
from api.kept_rows import CHUNK, KeptRows
from api.sources import RingHandle
from api.views import Slots
from shm.frame_ring import FrameReader
from shm.frames import CELL_FLOAT16, FRAME_SCHEMA, HEADER_BYTES, MAX_BUCKETS, PLANES
from shm.layout import SLOT_FIELDS, SLOT_HEADER_BYTES
from shm.records import FRAME_HEADER_DTYPE, FrameKind

INTERVAL_MS: Final = {FrameKind.DEPTH: 30_000, FrameKind.LIQUIDATION: 60_000}
NS_PER_MS: Final = 1_000_000
MARGIN: Final = 16
"""Oldest slots of a ring that are not asked for, and again as many that are not shown: two workers that have the same newest frame
then show the same frames."""


class GridFrames:
    """Frames of one ring. Used by the builder's thread."""

    def __init__(self, handle: RingHandle[FrameReader], kind: FrameKind) -> None:
        self.interval_ms = INTERVAL_MS[kind]
        self._handle = handle
        self._rows = KeptRows(partial(_decoded, kind))

    def newest(self) -> GridFrame | None:
        """The newest frame that can be read; None without one."""
        for count in (1, CHUNK, self._slots()):
            if rows := self._newest(count):
                return rows[-1]
        return None

    def window(self, newest: GridFrame, since_ms: int, until_ms: int) -> list[GridFrame]:
        """Frames up to `newest` that end after `since_ms` and begin before `until_ms`, oldest first."""
        count = max(1, -(-(newest.close_ms - since_ms) // self.interval_ms) + 1)
        rows = self._newest(count)
        if rows and rows[0].close_ms > since_ms:
            # The clock has been set back, or there is no more: numbers alone do not tell how far they reach.
            rows = self._newest(self._slots())
        # What is shown must not depend on how far the ring has come in the meantime: not behind the newest, not at the oldest end.
        last = newest.number
        first = last - self._slots() + MARGIN
        return [row for row in rows if first < row.number <= last and row.close_ms > since_ms and row.open_ms < until_ms]

    def _newest(self, count: int) -> list[GridFrame]:
        return self._rows.newest(self._handle.reader, min(count, self._slots()))

    def _slots(self) -> int:
        reader = self._handle.reader
        return 1 if reader is None else reader.spec.slots - MARGIN


def _decoded(kind: FrameKind, reader: FrameReader, first: int, stop: int) -> Iterator[tuple[int, GridFrame]]:
    return ((frame.number, frame) for frame in decode_frames(reader.bulk(first, stop).rows, kind))


def decode_frames(slots: Slots, kind: FrameKind) -> list[GridFrame]:
    """Frames of raw, verified slots, in order. Frames of another kind or schema are left out."""
    if not len(slots):
        return []
    planes = len(PLANES[kind])
    payload = slots[:, SLOT_HEADER_BYTES:]
    headers = np.ascontiguousarray(payload[:, :HEADER_BYTES]).view(FRAME_HEADER_DTYPE)[:, 0]
    bits = np.ascontiguousarray(payload[:, HEADER_BYTES : HEADER_BYTES + planes * MAX_BUCKETS * 2]).view("<u2")
    cells = (bits & np.uint16(0x7FFF)).view("<f2").reshape(len(slots), planes, MAX_BUCKETS)  # a -0.0 becomes 0
    words = slots[:, :SLOT_HEADER_BYTES].copy().view("<u8")
    return [
        GridFrame(number, epoch, opens // NS_PER_MS, closes // NS_PER_MS, src, origin, step, flags, unit, block[:, :count].copy())
        for number, epoch, known, count, opens, closes, src, origin, step, flags, unit, block in zip(
            *(words[:, SLOT_FIELDS[name] // 8].tolist() for name in ("frame_no", "epoch")),
            [tuple(one) for one in headers[["schema", "kind", "cell", "planes"]].tolist()],
            *(headers[name].tolist() for name in ("count", "open_ts_ns", "close_ts_ns", "reference", "origin", "step")),
            *(headers[name].tolist() for name in ("coverage", "unit_usd")),
            cells,
        )
        if known == (FRAME_SCHEMA, kind, CELL_FLOAT16, planes)
    ]
