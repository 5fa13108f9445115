"""Order-book frames as pictures: 0..255 cells, percentiles, coarser grids (`spec: engine`, section 12; `api`, section 8). Pure.

    p50, p95    linear percentiles over the positive cells of both sides of the whole frame
    u8          trunc(255 * clip((usd - p50) / (p95 - p50), 0, 1)); all 0 where p95 <= p50
    coarser     source bucket I belongs to bucket floor(I / k + 0.5) of a grid k times as wide; u8 takes the maximum

Many frames are decoded at once: in units of the frame (a power of two) all of this is exact, so USD come in at the very end, and
one frame alone gives bit for bit what it gives in a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from api.errors import invalid, too_large
from shm.frames import CELL_FLOAT16, FRAME_SCHEMA, HEADER_BYTES, MAX_BUCKETS
from shm.grid import bucket_of, ndigits, price_of, prices_of
from shm.layout import SLOT_FIELDS, SLOT_HEADER_BYTES
from shm.records import FRAME_HEADER_DTYPE, Coverage, FrameKind

MAX_ROWS: Final = 4000
MAX_MULTIPLE: Final = 100
STEP_TOLERANCE: Final = 1e-9
QUANTILES: Final = (0.5, 0.9, 0.95, 0.99, 1.0)
P50: Final = 0
P95: Final = 2
SIDES: Final = 2
NS_PER_MS: Final = 1_000_000

Cells = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Slots = npt.NDArray[np.uint8]
"""Raw ring slots uint8[frame, stride]: slot header, frame header, planes."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Percentiles and maximum over positive cells, USD; all 0 without one."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class DepthRow:
    """One frame as a picture. `cells`: uint8[bid, ask][bucket]; bucket i has price (origin + i) * step. Times in epoch ms."""

    number: int
    epoch: int
    open_ms: int
    origin: int
    step: float
    src: float
    levels: Levels
    cells: Cells

    @property
    def last(self) -> int:
        """Index of the last bucket."""
        return self.origin + int(self.cells.shape[1]) - 1


class GridRow(Protocol):
    """A frame as a row of a picture: uint8[side, bucket] from bucket `origin` of a grid of `step`, around `src`."""

    @property
    def origin(self) -> int: ...
    @property
    def step(self) -> float: ...
    @property
    def src(self) -> float: ...
    @property
    def cells(self) -> Cells: ...
    @property
    def last(self) -> int: ...


@dataclass(frozen=True, slots=True)
class DepthFrame:
    """The newest frame in full: its picture, what each side is like, and what the header says. Times in epoch ms."""

    row: DepthRow
    published_ms: int
    interval_ms: int
    bid: Levels
    ask: Levels
    total_bid: float
    total_ask: float
    coverage: Coverage
    venues: int
    venue_ms: int


def decode_rows(slots: Slots) -> list[DepthRow]:
    """Pictures of raw, verified slots, in order. Frames of another kind or schema are left out."""
    if not len(slots):
        return []
    raw = _Raw(slots)
    levels = _quantiles(raw.bits.reshape(len(slots), -1))
    cells = _u8(raw.bits.view("<f2"), levels[:, P50], levels[:, P95])
    return [raw.row(index, levels, cells) for index in range(len(slots)) if raw.known(index)]


def decode_frame(slot: Slots) -> DepthFrame | None:
    """The frame of one raw, verified slot, uint8[1, stride]; None where it is of another kind or schema, or none is given."""
    rows = decode_rows(slot)
    if not rows:
        return None
    raw = _Raw(slot)
    header, unit = raw.headers[0], raw.unit(0)
    bid, ask = (_levels(_quantiles(raw.bits[:, side])[0], unit) for side in range(SIDES))
    return DepthFrame(
        row=rows[0],
        published_ms=int(raw.column("published_ns")[0]) // NS_PER_MS,
        interval_ms=int(header["close_ts_ns"] - header["open_ts_ns"]) // NS_PER_MS,
        bid=bid,
        ask=ask,
        total_bid=float(header["total_a"]),
        total_ask=float(header["total_b"]),
        coverage=Coverage(int(header["coverage"])),
        venues=int(header["venues"]),
        venue_ms=int(header["venue_ts_ns"]) // NS_PER_MS,
    )


class _Raw:
    """Slots of one block, taken apart by columns. `bits`: float16 patterns uint16[frame, side, bucket]."""

    def __init__(self, slots: Slots) -> None:
        payload = slots[:, SLOT_HEADER_BYTES:]
        self.headers = np.ascontiguousarray(payload[:, :HEADER_BYTES]).view(FRAME_HEADER_DTYPE)[:, 0]
        planes = np.ascontiguousarray(payload[:, HEADER_BYTES : HEADER_BYTES + SIDES * MAX_BUCKETS * 2])
        # Positive float16 numbers sort like their bits; the mask turns a -0.0 into 0.
        self.bits = planes.view("<u2").reshape(len(slots), SIDES, MAX_BUCKETS) & np.uint16(0x7FFF)
        self._words = slots[:, :SLOT_HEADER_BYTES].copy().view("<u8")

    def column(self, name: str) -> npt.NDArray[np.uint64]:
        """A u64 field of the slot headers."""
        return self._words[:, SLOT_FIELDS[name] // 8]

    def known(self, index: int) -> bool:
        """Whether this version can read the frame."""
        header = self.headers[index]
        return (header["schema"], header["kind"], header["cell"]) == (FRAME_SCHEMA, FrameKind.DEPTH, CELL_FLOAT16)

    def unit(self, index: int) -> float:
        return float(self.headers[index]["unit_usd"])

    def row(self, index: int, levels: Floats, cells: Cells) -> DepthRow:
        header = self.headers[index]
        return DepthRow(
            number=int(self.column("frame_no")[index]),
            epoch=int(self.column("epoch")[index]),
            open_ms=int(header["open_ts_ns"]) // NS_PER_MS,
            origin=int(header["origin"]),
            step=float(header["step"]),
            src=float(header["reference"]),
            levels=_levels(levels[index], self.unit(index)),
            cells=cells[index, :, : int(header["count"])].copy(),  # a row that is kept must not hold its whole block
        )


def _levels(quantiles: Floats, unit: float) -> Levels:
    return Levels(*(quantiles * unit).tolist())


def _quantiles(bits: npt.NDArray[np.uint16]) -> Floats:
    """`QUANTILES` over the positive float16 cells of each row, in units: float64[row, quantile]; 0 where a row has none."""
    rows, width = bits.shape
    ordered = np.sort(bits, axis=1)
    positive = np.count_nonzero(bits, axis=1)
    rank = np.multiply.outer(np.maximum(positive - 1, 0), np.array(QUANTILES))
    low = np.floor(rank).astype(np.int64)
    first = (width - positive)[:, np.newaxis]
    at = np.minimum(first + low, width - 1)
    cells = ordered.view("<f2")
    below = np.take_along_axis(cells, at, axis=1).astype(np.float64)
    above = np.take_along_axis(cells, np.minimum(at + 1, width - 1), axis=1).astype(np.float64)
    values: Floats = below + (above - below) * (rank - low)
    values[positive == 0] = 0.0
    return values.reshape(rows, len(QUANTILES))


def _u8(cells: npt.NDArray[np.float16], p50: Floats, p95: Floats) -> Cells:
    """u8 of float16[frame, side, bucket] with the percentiles of each frame, in the same unit."""
    span = p95 - p50
    flat = span <= 0
    scale = np.where(flat, 1.0, span)[:, np.newaxis, np.newaxis]
    share = (cells.astype(np.float64) - p50[:, np.newaxis, np.newaxis]) / scale
    u8 = (255.0 * np.clip(share, 0.0, 1.0)).astype(np.uint8)
    u8[flat] = 0
    return u8


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a grid, canonical: rows `k` steps wide, indices `low`..`high` of that grid, share of the price around it."""

    k: int = 1
    range_pct: float | None = None
    low: int | None = None
    high: int | None = None

    def step(self, base: float) -> float:
        """Effective step on a grid of `base`."""
        return price_of(self.k, base)

    def limits(self, src: float, base: float, first: int, last: int) -> tuple[int, int]:
        """(low, high) on the target grid for source buckets `first`..`last` around `src`; high < low where nothing is left."""
        low, high = coarse(first, self.k), coarse(last, self.k)
        if self.range_pct is not None:
            step = self.step(base)
            low = max(low, bucket_of((1 - self.range_pct) * src, step))
            high = min(high, bucket_of((1 + self.range_pct) * src, step))
        low = low if self.low is None else max(low, self.low)
        high = high if self.high is None else min(high, self.high)
        return low, high


def window_of(base: float, range_pct: float | None, step: float | None, price_min: float | None, price_max: float | None) -> Window:
    """The canonical window of checked parameters on frames of step `base`. Raises ApiError 400."""
    if range_pct is not None:
        range_pct = max(0.0001, round(range_pct, 4))
    k = 1 if step is None else _multiple(step, base)
    if price_min is not None and price_max is not None and price_min >= price_max:
        raise invalid("price_min", "below price_max")
    wide = price_of(k, base)
    low, high = snapped("price_min", price_min, wide), snapped("price_max", price_max, wide)
    if low is not None and high is not None and high - low + 1 > MAX_ROWS:
        raise too_large(f"price_min to price_max must be at most {MAX_ROWS} rows of the step")
    return Window(k, range_pct, low, high)


def _multiple(step: float, base: float) -> int:
    ratio = step / base
    k = round(ratio) if ratio <= MAX_MULTIPLE + 1 else 0
    if not 1 <= k <= MAX_MULTIPLE or abs(ratio - k) > STEP_TOLERANCE * k:
        raise invalid("step", f"1 to {MAX_MULTIPLE} times the step of the frame, {base:.{max(1, ndigits(base))}f}")
    return k


def snapped(name: str, price: float | None, step: float) -> int | None:
    """Index of a given price on the grid of `step`. Raises ApiError where it is no price of a grid."""
    if price is None:
        return None
    try:
        return bucket_of(price, step)
    except ValueError:
        raise invalid(name, "a price of the grid") from None


def coarse(index: int, k: int) -> int:
    """floor(index / k + 0.5), in whole numbers."""
    return (2 * index + k) // (2 * k)


def pooled(cells: Cells, origin: int, k: int) -> tuple[int, Cells]:
    """(origin, uint8[side, bucket]) on the grid k times as wide: each cell is the largest of its source cells."""
    if k == 1:
        return origin, cells
    first, last = coarse(origin, k), coarse(origin + cells.shape[1] - 1, k)
    # Source index where bucket j begins: the least I with floor(I / k + 0.5) = j.
    begins = (2 * k * np.arange(first, last + 1) - k + 1) // 2 - origin
    return first, np.maximum.reduceat(cells, np.maximum(begins, 0), axis=1)


@dataclass(frozen=True, slots=True)
class Picture:
    """Rows of a grid: `cells` uint8[side, frame, bucket], ascending prices from index `origin` in steps of `step`."""

    origin: int
    step: float
    cells: Cells

    @property
    def buckets(self) -> int:
        return int(self.cells.shape[2])

    @property
    def prices(self) -> Floats:
        return prices_of(self.origin, self.buckets, self.step)

    @property
    def bounds(self) -> tuple[float, float]:
        """(lowest, highest) price; 0, 0 for an empty picture."""
        if not self.buckets:
            return 0.0, 0.0
        return price_of(self.origin, self.step), price_of(self.origin + self.buckets - 1, self.step)


def picture(rows: Sequence[GridRow], window: Window) -> Picture:
    """Rows of one step (the last one is the newest) on one axis: the union of what the window leaves of each.

    Raises ApiError 400 where prices given by the caller leave more than 4,000 rows; without them the axis is cut symmetrically
    around the newest price.
    """
    base = rows[-1].step
    limits = [window.limits(row.src, base, row.origin, row.last) for row in rows]
    used = [one for one in limits if one[0] <= one[1]]
    if not used:
        return Picture(0, window.step(base), np.zeros((SIDES, len(rows), 0), np.uint8))
    low, high = _bounded(min(low for low, _ in used), max(high for _, high in used), window, rows[-1])
    cells = np.zeros((SIDES, len(rows), high - low + 1), np.uint8)
    for index, row in enumerate(rows):
        origin, source = pooled(row.cells, row.origin, window.k)
        begin, end = max(low, origin), min(high, origin + source.shape[1] - 1) + 1
        if begin < end:
            cells[:, index, begin - low : end - low] = source[:, begin - origin : end - origin]
    return Picture(low, window.step(base), cells)


def _bounded(low: int, high: int, window: Window, newest: GridRow) -> tuple[int, int]:
    if high - low < MAX_ROWS:
        return low, high
    if (window.low, window.high) != (None, None):
        raise too_large(f"the prices asked for must be at most {MAX_ROWS} rows of the step")
    centre = bucket_of(newest.src, window.step(newest.step))
    first = min(max(centre - MAX_ROWS // 2, low), high - MAX_ROWS + 1)
    return first, first + MAX_ROWS - 1
