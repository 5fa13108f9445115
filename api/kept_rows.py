"""Decoded frames of a ring, kept by number while they are what the file holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Final, Generic, TypeVar

from shm.frame_ring import FrameReader

CHUNK: Final = 32  # frames decoded at once: 256 KiB stay in the cache of the processor, and the loop's thread gets its turns

Row = TypeVar("Row")
Decode = Callable[[FrameReader, int, int], Iterable[tuple[int, Row]]]
"""(number, row) of the frames first .. stop - 1 that can be read."""


class KeptRows(Generic[Row]):
    """Used by the builder's thread."""

    def __init__(self, decode: Decode[Row]) -> None:
        self._decode = decode
        self._rows: dict[int, Row] = {}
        self._file: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return len(self._rows)

    def newest(self, reader: FrameReader | None, count: int) -> list[Row]:
        """The newest `count` frames that can be read, oldest first. Only those not seen yet are read and decoded."""
        if reader is None:
            return []
        # A new epoch means that a writer has repaired the file, and numbers may have been used again: nothing is kept then.
        if (file := (reader.uuid, reader.epoch())) != self._file:
            self._rows, self._file = {}, file
        head = reader.head()
        start = max(0, head - count)
        for first, stop in _runs([number for number in range(start, head) if number not in self._rows]):
            self._rows.update(self._decode(reader, first, stop))
        for number in [number for number in self._rows if number < head - reader.spec.slots]:
            del self._rows[number]
        return [self._rows[number] for number in range(start, head) if number in self._rows]


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as ranges (first, stop) without holes, at most CHUNK long."""
    begins = [0, *(index for index, (one, two) in enumerate(pairwise(numbers), 1) if two != one + 1), len(numbers)]
    for begin, end in pairwise(begins):
        for low in range(begin, end, CHUNK):
            high = min(low + CHUNK, end)
            yield numbers[low], numbers[high - 1] + 1
