"""Pictures of a liquidation frame: V1 smoothed and stretched, V2 plain, cells for histories (`spec: engine`, section 12). Pure.

Everything is made of the display map, float64[2, buckets] with long in row 0, on the grid of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mpengine.heatmap import DisplayMap, Grid

V1_RANGE: Final = 0.08
KERNEL: Final = (0.1, 0.2, 0.4, 0.2, 0.1)
FLAT_SPAN: Final = 0.01
DARK_BELOW: Final = 0.1
DIGITS: Final = 4
SCALE: Final = 255

Cells = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Intensities 0..1 of a part of a frame, float64[2, buckets], 4 decimals. `p50`, `p95`: what they were stretched between."""

    grid: Grid
    values: Floats
    p50: float
    p95: float


def intensity_scale(shown: DisplayMap) -> float:
    """Largest value before any stretch; dividing by it gives a picture whose maximum is 1."""
    return float(shown.values.max(initial=0.0))


def picture_v2(grid: Grid, shown: DisplayMap) -> Picture:
    """The display map as it is."""
    return Picture(grid, np.round(shown.values, DIGITS), 0.0, 1.0)


def picture_v1(grid: Grid, src: float, shown: DisplayMap) -> Picture:
    """The display map within 8 % of `src`, smoothed, stretched from the median to the 95th percentile, faint cells dark."""
    cut, values = cut_v1(grid, src, shown)
    smooth = smoothed(values)
    p50, p95 = stretch_levels(smooth)
    return Picture(cut, stretched(smooth, p50, p95), p50, p95)


def cut_v1(grid: Grid, src: float, shown: DisplayMap) -> tuple[Grid, Floats]:
    """The part of the grid from k(0.92 src) to k(1.08 src) and its values."""
    low = max(grid.bucket((1.0 - V1_RANGE) * src), grid.origin)
    high = min(grid.bucket((1.0 + V1_RANGE) * src), grid.origin + grid.count - 1)
    first = low - grid.origin
    return Grid(low, high - low + 1, grid.step, grid.shrunk), shown.values[:, first : first + high - low + 1]


def smoothed(values: Floats) -> Floats:
    """Each side with the kernel [0.1, 0.2, 0.4, 0.2, 0.1]; at both ends the weights that remain are renormalised."""
    half, count = len(KERNEL) // 2, values.shape[1]
    padded = np.pad(values, ((0, 0), (half, half)))
    there = np.pad(np.ones(count), half)
    total, weight = np.zeros(values.shape), np.zeros(count)
    for offset, share in enumerate(KERNEL):
        total += share * padded[:, offset : offset + count]
        weight += share * there[offset : offset + count]
    return total / weight


def stretch_levels(values: Floats) -> tuple[float, float]:
    """(p50, p95) of the positive values of both sides, by rank; (0, 1) without any, at least 0.01 apart."""
    ordered = np.sort(values[values > 0.0])
    if not ordered.size:
        return 0.0, 1.0
    p50, p95 = float(ordered[int(0.5 * ordered.size)]), float(ordered[min(int(0.95 * ordered.size), ordered.size - 1)])
    return (p50, p95) if p95 > p50 else (p50, p50 + FLAT_SPAN)


def stretched(values: Floats, p50: float, p95: float) -> Floats:
    """0..1 from p50 to p95; what is at most 0.1 then is 0."""
    share = np.clip((values - p50) / (p95 - p50), 0.0, 1.0)
    share[share <= DARK_BELOW] = 0.0
    return np.round(share, DIGITS)


def cells_u8(values: Floats) -> Cells:
    """Intensities as 0..255, rounded."""
    return np.rint(SCALE * np.clip(values, 0.0, 1.0)).astype(np.uint8)
