"""Realised liquidations of one symbol: read once, kept by file and epoch, filtered and paged (`spec: api`, section 12)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from api.sources import RingHandle
from shm.record_ring import Numbers, RecordReader, Records
from shm.records import LIQUIDATION_DTYPE, PositionSide, Venue


@dataclass(frozen=True, slots=True)
class Kept:
    """Records of a file up to `head`, ascending. `file`: (uuid, epoch of its writer); `oldest`: the first number still held."""

    file: tuple[int, int]
    head: int
    oldest: int
    numbers: Numbers
    records: Records

    @property
    def epoch(self) -> int:
        """Epoch of the writer, 0 without a file."""
        return self.file[1]


NOTHING = Kept((0, 0), 0, 0, np.zeros(0, np.int64), np.zeros(0, LIQUIDATION_DTYPE))


class LiquidationRows:
    """All realised liquidations of one symbol that the ring holds. Used by the loop's thread."""

    def __init__(self, handle: RingHandle[RecordReader]) -> None:
        self._handle = handle
        self._kept = NOTHING

    def all(self) -> Kept:
        """What the ring holds now; only new records are read."""
        reader = self._handle.reader
        if reader is None:
            return NOTHING
        file, head, slots = (reader.uuid, reader.epoch()), reader.head(), reader.spec.slots
        kept = self._kept
        # A new epoch means that a writer has repaired the file: numbers may have been used again.
        if kept.file != file or kept.head > head:
            kept = NOTHING
        oldest = max(reader.first(), head - slots)
        numbers, records = reader.range(max(kept.head, oldest), head)
        numbers, records = np.concatenate([kept.numbers, numbers]), np.concatenate([kept.records, records])
        start = int(np.searchsorted(numbers, oldest))
        self._kept = Kept(file, head, oldest, numbers[start:], records[start:])
        return self._kept


@dataclass(frozen=True, slots=True)
class Filter:
    """Which records are wanted; None and 0 let everything pass."""

    side: PositionSide | None = None
    venue: Venue | None = None
    min_usd: float = 0.0

    def mask(self, records: Records) -> npt.NDArray[np.bool_]:
        """bool[k] of the records that pass."""
        passed = records["notional_usd"] >= self.min_usd
        if self.side is not None:
            passed &= records["side"] == self.side
        if self.venue is not None:
            passed &= records["venue"] == self.venue
        return np.asarray(passed, np.bool_)


@dataclass(frozen=True, slots=True)
class Page:
    """One page, ascending. `next_after`: everything up to it has been looked at; `has_more`: further on in the direction of the
    paging (older for `before`) there are records that pass; `gap`: records between `after` and the oldest one are gone."""

    numbers: Numbers
    records: Records
    next_after: int
    has_more: bool
    gap: bool


def page(kept: Kept, wanted: Filter, limit: int, *, after: int | None = None, before: int | None = None) -> Page:
    """The next `limit` records behind `after`, the last ones before `before`, or the newest ones."""
    low = 0 if after is None else int(np.searchsorted(kept.numbers, after, side="right"))
    high = len(kept.numbers) if before is None else int(np.searchsorted(kept.numbers, before))
    found = low + np.flatnonzero(wanted.mask(kept.records[low:high]))
    newest = kept.head - 1
    if after is not None:
        chosen, has_more = found[:limit], len(found) > limit
        next_after = int(kept.numbers[chosen[-1]]) if has_more else max(after, newest)
        return Page(kept.numbers[chosen], kept.records[chosen], next_after, has_more, after + 1 < kept.oldest)
    chosen = found[-limit:]
    next_after = newest if before is None else min(before - 1, newest)
    return Page(kept.numbers[chosen], kept.records[chosen], next_after, before is not None and len(found) > limit, gap=False)
