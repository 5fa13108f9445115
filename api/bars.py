"""Minute bars: read once, kept by file and epoch, folded into longer ones (`spec: api`, section 12). Pure but for the reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from api.sources import RingHandle
from shm.record_ring import RecordReader
from shm.records import CANDLE_DTYPE, CandleField, CandleFlag

MINUTE_NS: Final = 60_000_000_000
MINUTE_MS: Final = 60_000
INTERVAL_MINUTES: Final = {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240}

Bars = npt.NDArray[np.void]
"""Records of CANDLE_DTYPE, ascending in time."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Minute bars of a file up to `head`. `file`: (uuid, epoch); `lead`: (epoch, number) of the newest one."""

    file: tuple[int, int]
    head: int
    lead: tuple[int, int] | None
    bars: Bars


class CandleBars:
    """All minute bars of one symbol. Used by the builder's thread."""

    def __init__(self, handle: RingHandle[RecordReader]) -> None:
        self._handle = handle
        self._kept = Kept((0, 0), 0, None, np.zeros(0, CANDLE_DTYPE))

    def minutes(self) -> tuple[Bars, tuple[int, int] | None]:
        """(bars oldest first, (epoch, number) of the newest sound one); only new ones are read."""
        reader = self._handle.reader
        if reader is None:
            return self._kept.bars[:0], None
        file, head, slots = (reader.uuid, reader.epoch()), reader.head(), reader.spec.slots
        kept = self._kept
        # A new epoch means that a writer has repaired the file: numbers may have been used again.
        if kept.file != file or kept.head > head:
            kept = Kept(file, 0, None, kept.bars[:0])
        numbers, fresh = reader.range(max(kept.head, head - slots), head)
        newest = reader.ring.read(int(numbers[-1])) if len(numbers) else None
        bars, lead = kept.bars, kept.lead
        if newest is not None:
            bars, lead = ascending(np.concatenate([bars, fresh]))[-slots:], (newest.epoch, newest.frame_no)
        self._kept = Kept(file, head, lead, bars)
        return bars, lead


def ascending(bars: Bars) -> Bars:
    """Bars (one or more) without those that are at or after the time of one behind them: the clock was set back in between."""
    opens = bars["open_ts_ns"]
    earliest_behind = np.minimum.accumulate(opens[:0:-1])[::-1]
    kept: Bars = bars[np.append(opens[:-1] < earliest_behind, True)]
    return kept


@dataclass(frozen=True, slots=True)
class Columns:
    """Bars of one interval as the contract has them; `t_ms` opens. Optional columns hold None where no minute had a value."""

    t_ms: list[int]
    prices: dict[str, npt.NDArray[np.float64]]
    sums: dict[str, npt.NDArray[np.float64]]
    counts: dict[str, list[int]]
    optional: dict[str, list[float | None]]
    flags: list[int]


def closed_bars(minutes: Bars, interval: int, limit: int, to_ms: int | None) -> Columns:
    """The newest `limit` bars of `interval` minutes that had closed at `to_ms` (None: now), oldest first.

    A bar is closed when a minute that ends with or after it has closed. A bar without any minute is absent.
    """
    if not len(minutes):
        return fold(minutes, interval)
    width = interval * MINUTE_NS
    end = int(minutes["close_ts_ns"][-1])
    if to_ms is not None:
        end = min(end, to_ms * 1_000_000)
    last = end // width * width  # bars that end here or before
    stop = int(np.searchsorted(minutes["open_ts_ns"], last, side="left"))
    # Bars without a minute do not count for the limit, so the first one is found by counting those that are there.
    opens = minutes["open_ts_ns"][:stop] // width
    begins = np.flatnonzero(np.diff(opens, prepend=opens[0] - 1)) if stop else np.zeros(0, np.int64)
    start = int(begins[-limit]) if len(begins) > limit else 0
    return fold(minutes[start:stop], interval)


def fold(minutes: Bars, interval: int) -> Columns:
    """Minutes folded into bars: first, extremes, last, sums; of optional fields the last value (of the OI change: the sum)."""
    width = interval * MINUTE_NS
    opens = minutes["open_ts_ns"] // width
    begins = np.flatnonzero(np.diff(opens, prepend=opens[0] - 1)) if len(minutes) else np.zeros(0, np.int64)
    ends = np.append(begins[1:], len(minutes)) - 1 if len(begins) else begins
    return Columns(
        t_ms=(opens[begins] * (interval * MINUTE_MS)).tolist(),
        prices={
            "o": minutes["open"][begins],
            "h": _reduced(np.maximum, minutes["high"], begins),
            "l": _reduced(np.minimum, minutes["low"], begins),
            "c": minutes["close"][ends],
        },
        sums={name: _reduced(np.add, minutes[name], begins) for name in ("buy_usd", "sell_usd", "liq_long_usd", "liq_short_usd")},
        counts={
            "buy_count": _counted(minutes["buy_count"], begins),
            "sell_count": _counted(minutes["sell_count"], begins),
            "liq_count": _counted(minutes["liq_long_count"].astype(np.int64) + minutes["liq_short_count"], begins),
        },
        optional={
            "mark": _last(minutes, "mark", CandleField.MARK, begins, ends),
            "oi_base": _last(minutes, "oi_base", CandleField.OI, begins, ends),
            "oi_delta_base": _summed(minutes, "oi_delta_base", CandleField.OI_DELTA, begins),
            "funding_rate": _last(minutes, "funding_rate", CandleField.FUNDING, begins, ends),
        },
        flags=_flags(minutes, begins, ends, interval),
    )


def _reduced(function: np.ufunc, values: npt.NDArray[Any], begins: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    reduced: npt.NDArray[Any] = function.reduceat(values, begins) if len(begins) else values[:0].copy()
    return reduced


def _counted(values: npt.NDArray[Any], begins: npt.NDArray[np.int64]) -> list[int]:
    counts: list[int] = _reduced(np.add, values.astype(np.int64), begins).tolist()
    return counts


def _last(
    minutes: Bars, name: str, field: CandleField, begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> list[float | None]:
    """Value of the last minute of each bar that has one."""
    present = (minutes["present"] & field) != 0
    # Index of the newest minute with a value up to each minute; -1 before the first.
    newest = np.maximum.accumulate(np.where(present, np.arange(len(minutes)), -1)) if len(minutes) else ends
    return [float(minutes[name][at]) if at >= begin else None for begin, at in zip(begins, newest[ends])]


def _summed(minutes: Bars, name: str, field: CandleField, begins: npt.NDArray[np.int64]) -> list[float | None]:
    present = (minutes["present"] & field) != 0
    totals = _reduced(np.add, np.where(present, minutes[name], 0.0), begins)
    counts = _reduced(np.add, present.astype(np.int64), begins)
    return [float(total) if count else None for total, count in zip(totals, counts)]


def _flags(minutes: Bars, begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], interval: int) -> list[int]:
    flags = minutes["flags"].astype(np.int64)
    if interval > 1:
        # In a minute the flag says that minutes before it are missing; they may belong to the bar before.
        flags &= ~int(CandleFlag.MINUTES_MISSING)
    short = ends - begins + 1 < interval
    folded: list[int] = (_reduced(np.bitwise_or, flags, begins) | np.where(short, int(CandleFlag.MINUTES_MISSING), 0)).tolist()
    return folded
