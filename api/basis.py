"""What the coverage of a symbol is made from: newest depth frame, its book document, open interest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.coverage import depth_coverage
from api.depth import DepthFrames
from api.oi import OpenInterest
from api.sources import Stamp
from api.views import DepthFrame
from mpengine.config import Settings
from shm.records import Coverage


@dataclass(frozen=True, slots=True)
class Basis:
    """A coverage object with the identities (epoch, number) of what it was made from, and the venues with open interest then."""

    coverage: dict[str, Any]
    identities: tuple[tuple[int, int], ...]
    oi: tuple[str, ...]


class SymbolCoverage:
    """Coverage of one symbol. Used by the loop's thread."""

    def __init__(self, settings: Settings, symbol: str, frames: DepthFrames, oi: OpenInterest) -> None:
        self._settings = settings
        self._symbol = symbol
        self._frames = frames
        self._oi = oi

    def stamp(self) -> tuple[tuple[Stamp, Stamp], tuple[str, ...]]:
        """What the coverage of the newest frame is valid for. Of the open interest only whether it was there counts: its document
        is another one with every poll."""
        return self._frames.stamp(), self._oi_of(self._frames.newest())

    def of(self, frame: DepthFrame | None) -> Basis:
        """As of `frame`; None: there is none yet."""
        book = self._frames.book(None if frame is None else frame.row.number)
        flags, counted = (Coverage.NONE, 0) if frame is None else (frame.coverage, frame.venues)
        oi = self._oi_of(frame)
        coverage = depth_coverage(self._settings, self._symbol, flags, counted, None if book is None else book.content, oi)
        lead = () if frame is None else ((frame.row.epoch, frame.row.number),)
        return Basis(coverage, lead if book is None else (*lead, book.identity), oi)

    def newest(self) -> Basis:
        """As of the newest frame."""
        return self.of(self._frames.newest())

    def _oi_of(self, frame: DepthFrame | None) -> tuple[str, ...]:
        if frame is not None:
            return self._oi.fresh(frame.row.open_ms + frame.interval_ms)
        found = self._oi.document()
        return () if found is None else self._oi.fresh(found.content.written_ns // 1_000_000)
