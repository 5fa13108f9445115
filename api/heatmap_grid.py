"""One time-price grid for frames of both rings: levels of detail, placement, pooling, cells (`spec: api`, section 11.2). Pure.

    column c   covers [t0 + c*dt, t0 + (c+1)*dt), t0 a multiple of dt; a frame belongs to the column of its open, and a frame that
               is longer than a column is repeated in each column that it covers
    row r      has its centre at price (low + r) * step, step = k symbol steps; source bucket I belongs to row floor(I/k + 0.5)
    pooling    over time always the largest; over price the largest, or the sum

Frames of one ring are all of one step, that of the newest of them in the window; the others, and all of a ring whose step does not
divide the step of a row, are left out: their columns are missing. A cell of one step and one of another do not compare.

Cells of bytes keep the order of the USD that they stand for, so the largest byte is the byte of the largest: the usual picture is
pooled in bytes that were made once per frame.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from api.views import coarse
from mpengine.cells import u8log
from mpengine.mphm import POINT
from shm.grid import bucket_of, price_of
from shm.records import PositionSide, Venue

DT_MS: Final = (30_000, 60_000, 120_000, 300_000, 600_000, 900_000, 1_800_000, 3_600_000)
MULTIPLES: Final = (1, 2, 5, 10, 20, 50, 100)
MAX_CELLS: Final = 4_000_000
MAX_ROWS: Final = 4000
MINUTE_MS: Final = 60_000
SIDES: Final = 2
TOLERANCE: Final = 1e-9
BLOCK_CELLS: Final = 1 << 16  # of one side at once: what a block needs stays in the cache of the processor
BLOCK_COLUMNS: Final = 60  # and what a new minute makes anew is a small part of the whole
FILL: Final = 32  # frames whose bytes are made at once
DIGITS: Final = 3

Cells = npt.NDArray[Any]
Usd = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]


class TooLarge(ValueError):
    """A level of detail that was asked for has more cells or rows than an answer may have."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What is shown of a ring. `sides`: planes of a frame that add up to each side."""

    name: str
    sides: tuple[tuple[int, ...], tuple[int, ...]]


LIQ: Final = Layer("liq", ((0, 2), (1, 3)))
TAPE: Final = Layer("tape", ((0,), (1,)))
PROJECTED: Final = Layer("projected", ((2,), (3,)))
DEPTH: Final = Layer("depth", ((0,), (1,)))
MAP_LAYERS: Final = (LIQ, TAPE, PROJECTED)


@dataclass(frozen=True, slots=True, eq=False)
class GridFrame:
    """One frame of a ring. Times in epoch ms; bucket i, `origin`..`last`, has price i * step; `src`: reference price, USD.

    `cells`: float16[plane, bucket] in units of `unit` USD, a power of two. `serial`: of this object, no other one ever has it: what
    was decoded anew, after a repair of the file for one, may be another frame of the same number. `u8`: bytes per layer,
    uint8[side, bucket], made when they are first needed (`fill_u8`).
    """

    number: int
    epoch: int
    open_ms: int
    close_ms: int
    src: float
    origin: int
    step: float
    flags: int
    unit: float
    cells: npt.NDArray[np.float16]
    last: int = field(init=False)
    serial: int = field(default_factory=count().__next__, init=False)
    u8: dict[str, Bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "last", self.origin + int(self.cells.shape[1]) - 1)


def usd_of(frames: Sequence[GridFrame], layer: Layer) -> Usd:
    """float64[side, buckets of all frames behind each other]."""
    widths = [frame.cells.shape[1] for frame in frames]
    cells = np.concatenate([frame.cells for frame in frames], axis=1)
    units = np.repeat([frame.unit for frame in frames], widths)
    usd = np.empty((SIDES, len(units)))
    for side, (first, *others) in enumerate(layer.sides):
        usd[side] = cells[first]
        usd[side] *= units  # a power of two: exact
        for plane in others:
            usd[side] += cells[plane] * units
    return usd


def fill_u8(frames: Sequence[GridFrame], layer: Layer) -> None:
    """Make the bytes of those frames that do not have them."""
    missing = [frame for frame in frames if layer.name not in frame.u8]
    for start in range(0, len(missing), FILL):
        some = missing[start : start + FILL]
        for frame, cells in zip(some, _split(u8log(usd_of(some, layer)), some)):
            frame.u8[layer.name] = cells.copy()  # a frame that is kept must not hold its whole block


def _split(cells: Cells, frames: Sequence[GridFrame]) -> list[Cells]:
    return _pieces(cells, np.array([frame.cells.shape[1] for frame in frames], np.int64))


def _pieces(cells: Cells, widths: Numbers) -> list[Cells]:
    """Views of the buckets of each frame."""
    return [cells[:, begin:end] for begin, end in pairwise((0, *np.cumsum(widths).tolist()))]


# --- time -------------------------------------------------------------------------------------------------------------


def choose_dt(minutes: int, dt_ms: int, max_cols: int) -> tuple[int, int]:
    """(dt, columns) of the last `minutes`. `dt_ms` 0: the finest that needs at most `max_cols`; where even the coarsest needs
    more, the newest `max_cols` of it."""
    span = minutes * MINUTE_MS
    if dt_ms:
        return dt_ms, -(-span // dt_ms)
    dt_ms = next((dt for dt in DT_MS if -(-span // dt) <= max_cols), DT_MS[-1])
    return dt_ms, min(-(-span // dt_ms), max_cols)


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Columns of `dt_ms` from `t0_ms` (epoch ms, a multiple of it)."""

    t0_ms: int
    dt_ms: int
    cols: int

    @property
    def end_ms(self) -> int:
        """End of the newest column."""
        return self.t0_ms + self.cols * self.dt_ms


def time_axis(end_ms: int, dt_ms: int, cols: int, to_ms: int | None, since_ms: int | None) -> TimeAxis:
    """The `cols` columns up to the one in which the data ends (`end_ms`, exclusive), or, where that is earlier, `to_ms`.

    Of these the ones from the column of `since_ms` on. Columns are whole: the newest has what comes after `to_ms` in it too.
    """
    end = _up(end_ms if to_ms is None else min(to_ms, end_ms), dt_ms)
    start = end - cols * dt_ms
    if since_ms is not None:
        start = min(max(start, since_ms // dt_ms * dt_ms), end)
    return TimeAxis(start, dt_ms, (end - start) // dt_ms)


def _up(time_ms: int, dt_ms: int) -> int:
    return -(-time_ms // dt_ms) * dt_ms


# --- price ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Window:
    """Prices asked for, in buckets of a grid of `k` symbol steps; None: no bound."""

    low: int | None = None
    high: int | None = None
    k: int = 1

    def bounds(self, low: int, high: int, k: int) -> tuple[int, int]:
        """What it leaves of rows `low`..`high` of `k` symbol steps (`k` a multiple of its own)."""
        wide = k // self.k
        return (
            low if self.low is None else max(low, coarse(self.low, wide)),
            high if self.high is None else min(high, coarse(self.high, wide)),
        )


@dataclass(frozen=True, slots=True)
class PriceAxis:
    """Rows of `k` symbol steps: row r has index `low` + r on the grid of `step`, USD."""

    low: int
    rows: int
    k: int
    step: float

    @property
    def price0(self) -> float:
        """Centre of the lowest row; 0.0 without one."""
        return price_of(self.low, self.step) if self.rows else 0.0


def multiple_of(k: int, base: float, step: float) -> int | None:
    """How many buckets of `step` make a row of `k` symbol steps; None where it is no whole number."""
    ratio = k * base / step
    whole = round(ratio)
    return whole if whole >= 1 and abs(ratio - whole) <= TOLERANCE * whole else None


@dataclass(frozen=True, slots=True)
class Extent:
    """Buckets `low`..`high` of a grid of `step` that some frames, or events, reach over."""

    low: int
    high: int
    step: float


def extent_of(frames: Sequence[GridFrame]) -> Extent | None:
    """Of frames of one step; None without any."""
    if not frames:
        return None
    return Extent(min([frame.origin for frame in frames]), max([frame.last for frame in frames]), frames[-1].step)


@dataclass(frozen=True, slots=True)
class Detail:
    """What is asked of the price axis. `k` 0: the finest multiple with at most `max_rows` rows; `base`: the symbol's step, USD;
    `cols`: columns of the whole window, of which an answer may have the newest ones."""

    base: float
    k: int
    max_rows: int
    cols: int
    window: Window


def price_axis(detail: Detail, extents: Sequence[Extent], seen: Sequence[Extent], cols: int, src: float | None) -> PriceAxis:
    """The rows of an answer of `cols` columns over the frames of `seen`.

    k is chosen by `extents`, those of the whole window, so that columns fetched later have the rows of columns fetched before.
    Where nothing fits, the coarsest, cut to the rows around `src`; so are more than 4,000 rows of a k that was given without
    prices. Raises TooLarge.
    """
    if detail.k:
        return _given(detail, seen, cols, src)
    aligned = [k for k in MULTIPLES if all(multiple_of(k, detail.base, one.step) for one in extents)] or list(MULTIPLES)

    def fits(k: int) -> bool:
        low, high = _rows(detail, k, extents)
        return high - low < detail.max_rows and (high - low + 1) * detail.cols <= MAX_CELLS

    k = next((k for k in aligned if fits(k)), aligned[-1])
    return _cut(detail, k, _rows(detail, k, seen), detail.max_rows, src)


def _given(detail: Detail, seen: Sequence[Extent], cols: int, src: float | None) -> PriceAxis:
    low, high = _rows(detail, detail.k, seen)
    if high - low + 1 > MAX_ROWS and (detail.window.low, detail.window.high) != (None, None):
        raise TooLarge(f"the prices asked for must be at most {MAX_ROWS} rows of k steps")
    axis = _cut(detail, detail.k, (low, high), MAX_ROWS, src)
    if axis.rows * cols > MAX_CELLS:
        raise TooLarge(f"dt_s and k must give at most {MAX_CELLS} cells")
    return axis


def _rows(detail: Detail, k: int, extents: Sequence[Extent]) -> tuple[int, int]:
    """(low, high) of the rows of k steps that the extents reach over inside of the window; high < low for none."""
    found = []
    for extent in extents:
        multiple = multiple_of(k, detail.base, extent.step)
        if multiple is not None:
            found.append((coarse(extent.low, multiple), coarse(extent.high, multiple)))
    if not found:
        return 0, -1
    return detail.window.bounds(min(low for low, _ in found), max(high for _, high in found), k)


def _cut(detail: Detail, k: int, rows: tuple[int, int], most: int, src: float | None) -> PriceAxis:
    low, high = rows
    step = price_of(k, detail.base)
    if high < low:
        return PriceAxis(0, 0, k, step)
    if high - low + 1 > most:
        centre = (low + high) // 2 if src is None else bucket_of(src, step)
        low = min(max(centre - most // 2, low), high - most + 1)
        high = low + most - 1
    return PriceAxis(low, high - low + 1, k, step)


# --- placing ----------------------------------------------------------------------------------------------------------


def one_step(frames: Sequence[GridFrame]) -> list[GridFrame]:
    """Those on the step of the last one, without those that are at or after the time of a frame behind them: there the clock was
    set back."""
    opens = [frame.open_ms for frame in frames]
    if all(map(operator.lt, opens, opens[1:])) and len({frame.step for frame in frames}) <= 1:
        return list(frames)
    kept: list[GridFrame] = []
    for frame in reversed(frames):
        if frame.step == frames[-1].step and (not kept or frame.open_ms < kept[-1].open_ms):
            kept.append(frame)
    return kept[::-1]


class Placed:
    """Frames of one ring (`one_step`) on a time axis. `first`: column in which each begins, ascending; `span`: columns of each."""

    def __init__(self, frames: Sequence[GridFrame], axis: TimeAxis, interval_ms: int) -> None:
        """`interval_ms`: how much time a frame of this ring stands for."""
        self.axis = axis
        self.span = max(1, interval_ms // axis.dt_ms)
        first = (np.array([frame.open_ms for frame in frames], np.int64) - axis.t0_ms) // axis.dt_ms
        begin, end = np.searchsorted(first, (1 - self.span, axis.cols)).tolist()
        self.frames = frames[begin:end]
        self.first = first[begin:end]

    @property
    def numbers(self) -> Numbers:
        """int64[cols]: number of the newest frame of each column, -1 without one."""
        numbers = np.full(self.axis.cols, -1, np.int64)
        self._put(numbers, np.array([frame.number for frame in self.frames], np.int64))
        return numbers

    @property
    def src(self) -> Usd:
        """float64[cols]: price of the newest frame of each column, NaN without one."""
        prices = np.full(self.axis.cols, np.nan)
        self._put(prices, np.array([frame.src for frame in self.frames], np.float64))
        return prices

    @property
    def flags(self) -> int:
        """Coverage flags of all frames of the newest column."""
        flags = 0
        for frame in self.between(self.axis.cols - 1, self.axis.cols)[1] if self.axis.cols else []:
            flags |= frame.flags
        return flags

    def between(self, first: int, stop: int) -> tuple[list[int], Sequence[GridFrame]]:
        """Frames that touch columns `first`..`stop` - 1, with the column that each begins in."""
        begin, end = np.searchsorted(self.first, (first - self.span + 1, stop)).tolist()
        return self.first[begin:end].tolist(), self.frames[begin:end]

    def _put(self, columns: Any, values: Any) -> None:
        """A value per frame into its columns; where frames share one, that of the newest."""
        for repeated in reversed(range(self.span)):
            at = self.first + repeated
            inside = (at >= 0) & (at < self.axis.cols)
            columns[at[inside]] = values[inside]  # of equal indices the last one stays


def prices_of_columns(placed: Sequence[Placed], cols: int) -> list[float | None]:
    """One price per column: of the newest frame of the first ring that has one there."""
    prices = np.full(cols, np.nan)
    for ring in placed:
        prices = np.where(np.isnan(prices), ring.src, prices)
    return [None if price != price else price for price in prices.tolist()]


# --- cells ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cut:
    """Columns `first`..`stop` - 1 of an answer."""

    first: int
    stop: int


def cuts(axis: TimeAxis, rows: int) -> Iterator[Cut]:
    """The columns in blocks of a bounded number of cells, cut at times that do not depend on where the axis begins."""
    width = min(BLOCK_COLUMNS, max(1, BLOCK_CELLS // max(1, rows)))
    begin = axis.t0_ms // axis.dt_ms
    for first in range(begin // width * width, begin + axis.cols, width):
        yield Cut(max(first - begin, 0), min(first - begin + width, axis.cols))


def pooled_usd(placed: Placed, layer: Layer, prices: PriceAxis, base: float, cut: Cut, *, sums: bool) -> Usd:
    """float64[side, column, row] of a block; zeros also where there is no frame."""
    columns, frames = placed.between(cut.first, cut.stop)
    cells = _split(usd_of(frames, layer), frames) if frames else []
    return _pooled(cells, columns, frames, placed, prices, base, cut, np.float64, sums=sums)


def pooled_u8(placed: Placed, layer: Layer, prices: PriceAxis, base: float, cut: Cut) -> Bytes:
    """uint8[side, column, row] of a block, the largest of each row."""
    columns, frames = placed.between(cut.first, cut.stop)
    fill_u8(frames, layer)
    cells: list[Cells] = [frame.u8[layer.name] for frame in frames]
    return _pooled(cells, columns, frames, placed, prices, base, cut, np.uint8, sums=False)


def _pooled(
    cells: list[Cells], columns: list[int], frames: Sequence[GridFrame], placed: Placed, prices: PriceAxis, base: float, cut: Cut,
    dtype: type[Any], *, sums: bool,
) -> Cells:  # fmt: skip
    block = np.zeros((SIDES, cut.stop - cut.first, prices.rows), dtype)
    multiple = multiple_of(prices.k, base, frames[0].step) if frames else None
    if multiple is None:
        return block
    origins = [frame.origin for frame in frames]
    if multiple > 1:
        origins, cells = _coarse_all(origins, cells, multiple, np.add if sums else np.maximum)
    rows, span, width = prices.rows, placed.span, cut.stop - cut.first
    for column, origin, source in zip(columns, origins, cells):
        # PERF: 2,000 times per answer.
        at, first = origin - prices.low, column - cut.first
        begin, end = at if at > 0 else 0, min(rows, at + source.shape[1])
        if begin >= end:
            continue
        if begin != at or end != at + source.shape[1]:
            source = source[:, begin - at : end - at]
        for repeated in range(first, first + span):
            if 0 <= repeated < width:
                target = block[:, repeated, begin:end]
                np.maximum(target, source, out=target)
    return block


def _coarse_all(origins: list[int], cells: list[Cells], k: int, how: np.ufunc) -> tuple[list[int], list[Cells]]:
    """Every frame on the grid k times as wide, all of them in one call."""
    widths = np.array([one.shape[1] for one in cells], np.int64)
    origin = np.array(origins, np.int64)
    first, last = (2 * origin + k) // (2 * k), (2 * (origin + widths - 1) + k) // (2 * k)
    rows = last - first + 1
    starts = np.cumsum(rows) - rows
    index = np.arange(int(rows.sum())) - np.repeat(starts - first, rows)
    # Where row j begins in its frame: the least bucket I with floor(I / k + 0.5) = j, and none before the first.
    begins = np.maximum((2 * k * index - k + 1) // 2 - np.repeat(origin, rows), 0) + np.repeat(np.cumsum(widths) - widths, rows)
    flat = how.reduceat(np.concatenate(cells, axis=1), begins, axis=1)
    return first.tolist(), _pieces(flat, rows)


def cells_of(
    placed: Placed, layers: Sequence[Layer], prices: PriceAxis, base: float, cut: Cut, *, cell: str, sums: bool, min_usd: float
) -> tuple[list[Cells], npt.NDArray[np.float32]]:
    """(cells[side, column, row] of each layer, unit per column) of a block. `cell`: `u8log`, `usd` or `f16`; cells below `min_usd`
    are 0. Units are those of float16 cells, 1.0 for the others."""
    ones = np.ones(cut.stop - cut.first, np.float32)
    if cell == "u8log" and not sums and not min_usd:
        return [pooled_u8(placed, layer, prices, base, cut) for layer in layers], ones
    blocks = [pooled_usd(placed, layer, prices, base, cut, sums=sums) for layer in layers]
    units = unit_per_column(blocks) if cell == "f16" else ones
    for block in blocks:
        block[block < min_usd] = 0.0
    if cell == "f16":
        wide = units.astype(np.float64)[:, np.newaxis]
        return [(block / wide).astype("<f2") for block in blocks], units
    return [u8log(block) if cell == "u8log" else three_digits(block) for block in blocks], ones


def unit_per_column(blocks: Sequence[Usd]) -> npt.NDArray[np.float32]:
    """float32[column]: the power of two that puts the largest cell of a column, over all layers given (float64[side, column,
    row]), into [16384, 32768) units; 1.0 for an empty one."""
    largest = np.max([block.max(axis=(0, 2), initial=0.0) for block in blocks], axis=0)
    _, exponent = np.frexp(largest)
    units: npt.NDArray[np.float32] = np.where(largest > 0.0, np.ldexp(1.0, exponent - 15), 1.0).astype(np.float32)
    return units


def three_digits(usd: Usd) -> Usd:
    """USD rounded to 3 significant digits, half to even of what the number is; each prints as such."""
    rounded = np.zeros(usd.shape)
    shown = usd > 0.0
    values = usd[shown]
    exponent = np.floor(np.log10(values)).astype(np.int64) - (DIGITS - 1)
    small = np.minimum(exponent, 0)
    # Whole numbers times or over whole powers of ten: the nearest number to the decimal, so it prints with three digits.
    scale, divisor = 10.0 ** np.maximum(exponent, 0), 10.0**-small
    rounded[shown] = np.rint(values * divisor / scale) * scale / divisor
    return rounded


# --- realised ---------------------------------------------------------------------------------------------------------

_BITS: Final = np.array([0, *(venue.bit for venue in Venue if venue is not Venue.NONE)], np.uint8)
NS_PER_MS: Final = 1_000_000


def buckets_of_events(records: Records, base: float) -> Numbers:
    """int64[n]: bucket of the symbol's grid that each price falls into."""
    return np.rint(records["price"] / base).astype(np.int64)


def points_of(records: Records, axis: TimeAxis, prices: PriceAxis, base: float) -> Records:
    """Realised liquidations (LIQUIDATION_DTYPE) by column, row and side, in this order; USD as float64.

    What lies outside of the grid is left out. An event belongs to the column of the venue's time.
    """
    col = (records["venue_ts_ns"] // NS_PER_MS - axis.t0_ms) // axis.dt_ms
    row = (2 * buckets_of_events(records, base) + prices.k) // (2 * prices.k) - prices.low
    inside = (col >= 0) & (col < axis.cols) & (row >= 0) & (row < prices.rows)
    kept, side = records[inside], records["side"][inside] == PositionSide.SHORT
    key = (col[inside] * prices.rows + row[inside]) * SIDES + side
    order = np.argsort(key, kind="stable")
    key, kept = key[order], kept[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    points = np.zeros(len(starts), _EXACT)
    if not len(starts):
        return points
    cell, points["side"] = np.divmod(key[starts], SIDES)
    points["col"], points["row"] = np.divmod(cell, prices.rows)
    points["venues"] = np.bitwise_or.reduceat(_BITS[kept["venue"]], starts)
    points["count"] = np.minimum(np.diff(starts, append=len(key)), np.iinfo(np.uint16).max)
    points["usd"] = np.add.reduceat(kept["notional_usd"], starts)
    points["max_usd"] = np.maximum.reduceat(kept["notional_usd"], starts)
    return points


_EXACT: Final = np.dtype([(name, "<f8" if name.endswith("usd") else POINT[name].str) for name in POINT.names or ()])
