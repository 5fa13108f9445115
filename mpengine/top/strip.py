"""The heat strip as text: price upwards, time to the right, two rows of prices to a cell by half blocks. Pure.

The scale ends at the 99th percentile of what is seen, rounded up to 1, 2 or 5, and spans some decades; the legend says it in USD.
Without colour a cell is one row and a shade. Columns that are missing are hatched: no data is not zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mpengine.cells import HI_USD, LO_USD, STEPS
from mpengine.top.model import Heat, Layer
from mpengine.top.text import Line, Span, age, cut, money, price_text

LEVELS: Final = 6
SHADES: Final = " ░▒▓█"
AXIS: Final = 10
DECADES: Final[dict[Layer, float]] = {"map": 3.0, "book": 2.0}
"""Width of the scale: resting size differs less from price to price than exposure does."""
HATCH: Final = "╱"
_PER_DECADE: Final = STEPS / math.log10(HI_USD / LO_USD)

Levels = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Scale:
    """USD of the lowest and the highest level."""

    lo_usd: float
    hi_usd: float

    def levels(self, cells: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
        """0 below the scale, else 1 to `count`."""
        lo, hi = _cell(self.lo_usd), _cell(self.hi_usd)
        found = 1 + np.floor((cells.astype(np.float64) - lo) * count / (hi - lo)).astype(np.int64)
        return np.where((cells > 0) & (cells >= lo), np.clip(found, 1, count), 0)


def _cell(usd: float) -> float:
    return 1.0 + math.log10(usd / LO_USD) * _PER_DECADE


def scale_of(heat: Heat) -> Scale:
    """The scale of a picture: up to the 99th percentile of its cells that hold anything."""
    cells = np.frombuffer(b"".join(column.low + column.high for column in heat.columns), np.uint8)
    positive = cells[cells > 0]
    top = float(np.percentile(positive, 99.0)) if positive.size else 1.0 + 4 * _PER_DECADE
    hi = _round_up(LO_USD * 10 ** ((top - 1.0) / _PER_DECADE))
    return Scale(hi / 10 ** DECADES[heat.layer], hi)


def _round_up(usd: float) -> float:
    decade = 10.0 ** math.floor(math.log10(usd))
    return next(factor * decade for factor in (1.0, 2.0, 5.0, 10.0) if factor * decade >= usd * 0.999)


def _signed(heat: Heat, columns: int, rows: int, scale: Scale, levels: int) -> tuple[Levels, list[bool]]:
    """(int8[rows, columns], top row first: above 0 of the high side, below 0 of the low side; which columns are there)."""
    newest = heat.columns[-1].t_ms
    grid = np.zeros((columns, 2, heat.rows), np.uint8)
    there = [False] * columns
    for column in heat.columns:
        at = columns - 1 - round((newest - column.t_ms) / heat.dt_ms)
        if 0 <= at < columns:
            grid[at, 0], grid[at, 1] = np.frombuffer(column.low, np.uint8), np.frombuffer(column.high, np.uint8)
            there[at] = True
    first = np.arange(rows) * heat.rows // rows
    stop = np.maximum(first + 1, -(-(np.arange(rows) + 1) * heat.rows // rows))
    pooled = np.stack([grid[:, :, low:high].max(axis=2) for low, high in zip(first, stop)], axis=2)
    found = scale.levels(pooled, levels)
    signed = np.where(pooled[:, 1] > pooled[:, 0], found[:, 1], -found[:, 0])
    return signed.T[::-1].astype(np.int8), there


def strip(heat: Heat | None, price: float | None, now_ms: int, width: int, height: int, *, colour: bool) -> list[Line]:
    """`height` lines of at most `width`: a legend, then the picture beside its price axis."""
    if heat is None or not heat.columns or height < 3 or width < AXIS + 4:
        nothing: list[Line] = [((cut("no frame yet", width), "dim", ""),)]
        return nothing[: max(0, height)]
    columns, lines = width - AXIS, height - 1
    marked = _line_of(heat, price, lines)
    scale, body = _picture(_Same(heat), columns, lines, marked, colour=colour)
    axis = (_axis(heat, price, line, lines, marked) for line in range(lines))
    return [_legend(heat, scale, now_ms, width, colour=colour), *((label, *cells) for label, cells in zip(axis, body))]


@dataclass(frozen=True, slots=True, eq=False)
class _Same:
    """A picture that is equal to itself only: comparing thousands of cells would cost what the cache saves."""

    heat: Heat

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.heat is self.heat

    def __hash__(self) -> int:
        return id(self.heat)


@lru_cache(maxsize=4)
def _picture(of: _Same, columns: int, lines: int, marked: int | None, *, colour: bool) -> tuple[Scale, list[Line]]:
    """Scale and cells, line by line. PERF: ages and prices change 4 times a second, columns twice a minute."""
    scale = scale_of(of.heat)
    levels = LEVELS if colour else len(SHADES) - 1
    cells, there = _signed(of.heat, columns, lines * (2 if colour else 1), scale, levels)
    first = there.index(True) if True in there else columns
    return scale, [tuple(_cells(cells, there, line, first, colour=colour, marked=line == marked)) for line in range(lines)]


def _line_of(heat: Heat, price: float | None, lines: int) -> int | None:
    if price is None:
        return None
    at = lines - 1 - math.floor((price - heat.price0) / (heat.height * heat.rows) * lines)
    return at if 0 <= at < lines else None


def _axis(heat: Heat, price: float | None, line: int, lines: int, marked: int | None) -> Span:
    if line == marked and price is not None:
        return (price_text(price)[: AXIS - 1].rjust(AXIS - 1) + "▸", "head", "")
    centre = heat.price0 + heat.height * heat.rows / 2
    # The edge at the top and at the bottom, else the middle of the line.
    share = 1.0 if line == 0 else 0.0 if line == lines - 1 else (lines - 0.5 - line) / lines
    if line not in (0, lines - 1) and (lines < 12 or line % 4):
        return (" " * AXIS, "", "")
    off = (heat.price0 + heat.height * heat.rows * share) / (centre if price is None else price) - 1
    return (f"{off * 100:+.1f} %".rjust(AXIS - 1) + " ", "dim", "")


def _cells(cells: Levels, there: list[bool], line: int, first: int, *, colour: bool, marked: bool) -> Iterable[Span]:
    spans: list[Span] = []
    upper, lower = (cells[2 * line], cells[2 * line + 1]) if colour else (cells[line], cells[line])
    for at, (up, down) in enumerate(zip(upper.tolist(), lower.tolist())):
        if not there[at]:
            spans.append((HATCH, "dim", "") if at > first else (" ", "", ""))
        elif not up and not down:
            spans.append(("─", "dim", "") if marked else (" ", "", ""))
        elif not colour:
            spans.append((SHADES[abs(up)], "", ""))
        elif up and down:
            spans.append(("▀", heat_tone(up), heat_tone(down)))
        else:
            spans.append(("▀", heat_tone(up), "") if up else ("▄", heat_tone(down), ""))
    return [("".join(span[0] for span in run), *style) for style, run in groupby(spans, key=lambda span: span[1:])]


def heat_tone(level: int) -> str:
    """Name of the tone of a level: `high3` of shorts and asks, `low3` of longs and bids."""
    return f"high{level}" if level > 0 else f"low{-level}"


def _legend(heat: Heat, scale: Scale, now_ms: int, width: int, *, colour: bool) -> Line:
    names = ("map", "long", "short") if heat.layer == "map" else ("book", "bid", "ask")
    kind = "est. USD" if heat.layer == "map" else "USD"
    short = width < 46
    ramp: list[Span] = [(SHADES[1:], "", "")]
    text = f"{names[0]} "
    if colour:
        steps = range(1, LEVELS + 1, 2 if short else 1)
        ramp = [("▄", f"low{level}", "") for level in steps]
        ramp += [(" ", "", ""), *(("▄", f"high{level}", "") for level in steps)]
        text = text if short else f"{names[0]} {names[1]}/{names[2]} "
    spans: list[Span] = [
        (text, "head", ""), (f"{kind} {money(scale.lo_usd)} ", "dim", ""), *ramp, (f" {money(scale.hi_usd)}", "dim", ""),
    ]  # fmt: skip
    used = sum(len(span[0]) for span in spans)
    per_column = f"  {heat.dt_ms // 1000} s/col"
    tails = (f"{per_column}, from {age(now_ms - heat.columns[-1].t_ms)} ago", per_column, "")
    spans.append((next(tail for tail in tails if used + len(tail) <= width or not tail), "dim", ""))
    return clipped(spans, width)


def clipped(spans: Iterable[Span], width: int) -> Line:
    """The spans up to `width` characters."""
    found: list[Span] = []
    for text, tone, back in spans:
        if width <= 0:
            break
        found.append((text[:width], tone, back))
        width -= len(text)
    return tuple(found)
