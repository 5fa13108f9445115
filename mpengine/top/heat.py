"""Columns of frames, pooled into the rows of one window of prices. Pure.

The largest of what overlaps a row is kept, so a bright zone survives any number of rows. The window stays where it is until the
price has left its middle: else every row of the picture would change with every price.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mpengine.top.model import Heat, HeatColumn, Layer

ROWS: Final = 120
COLUMNS: Final = 240
RANGES_PCT: Final = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)
RECENTRE: Final = 0.3
"""Share of the half range that the price may be off the middle."""

Cells = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Window:
    """Prices `centre` +/- `range_pct` percent, in `ROWS` rows."""

    centre: float
    range_pct: float

    @property
    def price0(self) -> float:
        """Lower edge of the lowest row, USD."""
        return self.centre * (1.0 - self.range_pct / 100.0)

    @property
    def height(self) -> float:
        """USD of a row."""
        return 2.0 * self.centre * self.range_pct / 100.0 / ROWS


def window_at(price: float, range_pct: float, before: Window | None) -> Window:
    """The window for a price: the one before while the price is near its middle."""
    if before is not None and before.range_pct == range_pct:
        half = before.centre * range_pct / 100.0
        if abs(price - before.centre) <= RECENTRE * half:
            return before
    return Window(price, range_pct)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A frame as it came: row r has its centre at price0 + r * step, USD; `low`, `high`: uint8[rows], the u8log scale."""

    t_ms: int
    price0: float
    step: float
    low: Cells
    high: Cells


def pooled(column: Column, window: Window) -> HeatColumn:
    """The rows of the window: in each the largest cell that overlaps it, 0 where the frame has none."""
    edges = (window.price0 + window.height * np.arange(ROWS + 1, dtype=np.float64) - column.price0) / column.step
    first = np.floor(edges[:-1] - 0.5).astype(np.int64) + 1
    stop = np.maximum(np.ceil(edges[1:] + 0.5).astype(np.int64), first + 1)
    size = len(column.low)
    low, high = int(min(first[0], 0)), int(max(stop[-1], size))
    bounds = np.column_stack((first - low, stop - low)).ravel()
    return HeatColumn(
        t_ms=column.t_ms, low=_pool(column.low, -low, high - size, bounds), high=_pool(column.high, -low, high - size, bounds)
    )


def _pool(cells: Cells, before: int, behind: int, bounds: npt.NDArray[Any]) -> bytes:
    # One more cell behind the end: reduceat takes no index that is the length.
    padded = np.pad(cells, (before, behind + 1))
    return np.maximum.reduceat(padded, bounds)[::2].tobytes()


class HeatBook:
    """The newest `COLUMNS` columns of one layer, and their picture in a window. Columns are replaced by others of the same time."""

    def __init__(self, layer: Layer, dt_ms: int) -> None:
        self.layer: Layer = layer
        self.dt_ms = dt_ms
        self._columns: dict[int, Column] = {}
        self._pooled: dict[int, HeatColumn] = {}
        self._window: Window | None = None
        self._heat: Heat | None = None

    @property
    def newest_ms(self) -> int | None:
        """Time of the newest column."""
        return max(self._columns, default=None)

    def add(self, column: Column) -> None:
        """Take a column; older ones than the newest `COLUMNS` go."""
        self._columns[column.t_ms] = column
        self._pooled.pop(column.t_ms, None)
        self._heat = None
        while len(self._columns) > COLUMNS:
            oldest = min(self._columns)
            del self._columns[oldest]
            self._pooled.pop(oldest, None)

    def picture(self, window: Window) -> Heat | None:
        """All columns in the window; the same object while neither changes. None without a column."""
        if window != self._window:
            self._window, self._heat = window, None
            self._pooled.clear()
        if self._heat is None and self._columns:
            for t_ms, column in self._columns.items():
                if t_ms not in self._pooled:
                    self._pooled[t_ms] = pooled(column, window)
            self._heat = Heat(
                layer=self.layer, price0=window.price0, height=window.height, rows=ROWS, dt_ms=self.dt_ms,
                columns=tuple(self._pooled[t_ms] for t_ms in sorted(self._pooled)),
            )  # fmt: skip
        return self._heat
