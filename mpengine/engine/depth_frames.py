"""Order-book heatmap frames: 1 s samples of USD per bucket, averaged over 30 s (`spec: engine`, section 17). Pure.

A frame is a time average, not a snapshot. A slot without a sample makes no frame, never a zero frame. Slots and samples are
multiples of the engine clock, so the sample at a slot's end belongs to it: 30 samples when nothing is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mpengine.engine.book import SECOND, Book
from shm.frames import Frame
from shm.grid import frame_grid
from shm.records import Coverage, FrameKind, Venue

SLOT_NS: Final = 30 * SECOND
PARTIAL_BELOW: Final = 15

Floats = npt.NDArray[np.float64]


class _VenueSums:
    """One venue's samples of the running slot: USD per bucket and side from bucket `first` on, summed."""

    __slots__ = ("asks", "bids", "first", "samples")

    def __init__(self, first: int, bids: Floats, asks: Floats, samples: int = 1) -> None:
        self.first, self.bids, self.asks, self.samples = first, bids, asks, samples

    def add(self, first: int, bids: Floats, asks: Floats) -> None:
        """One more sample; the range of buckets widens as needed."""
        low = min(self.first, first)
        high = max(self.first + self.bids.size, first + bids.size)
        if (low, high - low) != (self.first, self.bids.size):
            self.bids, self.asks = (self._widened(side, low, high - low) for side in (self.bids, self.asks))
            self.first = low
        at = first - low
        self.bids[at : at + bids.size] += bids
        self.asks[at : at + asks.size] += asks
        self.samples += 1

    def _widened(self, side: Floats, low: int, count: int) -> Floats:
        wide = np.zeros(count)
        wide[self.first - low : self.first - low + side.size] = side
        return wide

    def average_into(self, planes: Floats, origin: int) -> None:
        """Add the average over this venue's own samples to the planes (2, buckets) of a grid from `origin` on."""
        low, high = max(origin, self.first), min(origin + planes.shape[1], self.first + self.bids.size)
        if low < high:
            target, source = slice(low - origin, high - origin), slice(low - self.first, high - self.first)
            planes[0, target] += self.bids[source] / self.samples
            planes[1, target] += self.asks[source] / self.samples


class DepthFrames:
    """Accumulates one slot at a time. `step`, `range_pct`: bucket size and half-width of the published grid.

    A venue's value is the average over the samples in which it counted; one that counted in less than half of the slot's samples
    is left out of the frame altogether, so that its absence does not look like walls that fade.
    """

    __slots__ = ("_flags", "_range_pct", "_step", "_sums", "_venue_ts_ns", "empty_slots", "samples", "slot", "venue_samples")

    def __init__(self, step: float, range_pct: float) -> None:
        self._step = step
        self._range_pct = range_pct
        self.slot: int | None = None
        self.empty_slots = 0
        self.venue_samples: dict[Venue, int] = {}
        """Samples of each venue in the slot that ended last."""
        self._reset()

    def _reset(self) -> None:
        self.samples = 0
        self._sums: dict[Venue, _VenueSums] = {}
        self._venue_ts_ns = 0
        self._flags = Coverage.NONE

    def flag(self, coverage: Coverage) -> None:
        """Something happened in the running slot that its readers must know."""
        self._flags |= coverage

    def restart(self) -> None:
        """Time begins anew: the running slot is dropped, the next one is flagged as one with a gap."""
        self.slot = None
        self._reset()
        self.flag(Coverage.GAP)

    def on_second(
        self, at_ns: int, books: Sequence[tuple[Venue, Book]], reference: float | None, recovered: Coverage
    ) -> list[Frame]:
        """The engine clock reached the full second `at_ns`: sample the books; frames of the slots that ended here or before.

        `reference` is the last mid; `recovered` the flag of a fresh start. A jump over several seconds gives one sample.
        """
        ended: list[Frame] = []
        slot = (at_ns - 1) // SLOT_NS
        if self.slot is None:
            self.slot = slot
        if slot != self.slot:
            ended += self._close(reference, recovered)
            if slot - self.slot > 1:
                self.empty_slots += slot - self.slot - 1  # those that the jump passed whole
                self.venue_samples = {}
            self.slot = slot
        self._sample(at_ns, books)
        if at_ns % SLOT_NS == 0:
            ended += self._close(reference, recovered)
            self.slot += 1
        return ended

    def _sample(self, at_ns: int, books: Sequence[tuple[Venue, Book]]) -> None:
        counted = False
        for venue, book in books:
            if not book.counts_at(at_ns) or book.ladder is None:
                self._flags |= Coverage.STALE_SOURCE
                continue
            sample = book.ladder.usd_by_bucket(self._step)
            sums = self._sums.get(venue)
            if sums is None:
                self._sums[venue] = _VenueSums(*sample)
            else:
                sums.add(*sample)
            self._venue_ts_ns = max(self._venue_ts_ns, book.last_venue_ns)
            counted = True
            if not book.fresh_at(at_ns):
                self._flags |= Coverage.STALE_SOURCE
            if book.refreshing:
                self._flags |= Coverage.GAP  # a tolerated hole that no snapshot has closed yet
            if book.partial:
                self._flags |= Coverage.PARTIAL
        self.samples += counted

    def _close(self, reference: float | None, recovered: Coverage) -> list[Frame]:
        assert self.slot is not None  # `on_second` sets it first
        inside = {venue: sums for venue, sums in sorted(self._sums.items()) if 2 * sums.samples >= self.samples}
        if len(inside) < len(self._sums):
            self.flag(Coverage.STALE_SOURCE)
        # Venues that took turns may all be left out: then nothing is known, which is no frame and never one of zeros.
        frame = self._frame(self.slot, inside, reference, recovered) if inside and reference is not None else None
        self.venue_samples = {venue: sums.samples for venue, sums in self._sums.items()}
        self._reset()
        if frame is None:
            self.empty_slots += 1
            return []
        return [frame]

    def _frame(self, slot: int, inside: dict[Venue, _VenueSums], reference: float, recovered: Coverage) -> Frame:
        origin, count, shrunk = frame_grid(reference, self._step, self._range_pct)
        planes = np.zeros((2, count))
        flags, venues = self._flags | recovered, 0
        for venue, sums in inside.items():
            sums.average_into(planes, origin)
            venues |= venue.bit
        positive = planes[planes > 0.0]
        p50, p95 = np.percentile(positive, (50, 95)).tolist() if positive.size else (0.0, 0.0)
        if shrunk:
            flags |= Coverage.GRID_SHRUNK
        if self.samples < PARTIAL_BELOW:
            flags |= Coverage.PARTIAL
        return Frame(
            kind=FrameKind.DEPTH,
            open_ts_ns=slot * SLOT_NS,
            close_ts_ns=(slot + 1) * SLOT_NS,
            venue_ts_ns=self._venue_ts_ns,
            reference=reference,
            origin=origin,
            step=self._step,
            norm_a=p50,
            norm_b=p95,
            total_a=float(planes[0].sum()),
            total_b=float(planes[1].sum()),
            coverage=flags,
            venues=venues,
            samples=self.samples,
            planes=planes,
        )

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        sums = [[int(v), one.first, one.bids.tobytes(), one.asks.tobytes(), one.samples] for v, one in sorted(self._sums.items())]
        return {
            "slot": self.slot, "empty_slots": self.empty_slots, "samples": self.samples, "sums": sums,
            "venue_ts_ns": self._venue_ts_ns, "flags": int(self._flags),
            "venue_samples": [[int(venue), count] for venue, count in sorted(self.venue_samples.items())],
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`. Raises KeyError or ValueError for a state that is not one."""
        self.slot, self.empty_slots, self.samples = state["slot"], state["empty_slots"], state["samples"]
        self._venue_ts_ns, self._flags = state["venue_ts_ns"], Coverage(state["flags"])
        self.venue_samples = {Venue(venue): count for venue, count in state["venue_samples"]}
        self._sums = {
            Venue(venue): _VenueSums(first, np.frombuffer(bids).copy(), np.frombuffer(asks).copy(), samples)
            for venue, first, bids, asks, samples in state["sums"]
        }
