"""The combined liquidation map of a frame: what its two sources say together (`spec: engine`, section 10). Pure.

Used by the engine, which makes frames, and at the edge, which reads them: both get the same numbers from the same planes. Sides are
rows: 0 long, 1 short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shm.grid import bucket_of, frame_grid, ndigits, prices_of

COMBINED_SOURCE_EPS: Final = 1e-4
COMBINED_ZONE_BOOST: Final = 1.5
P99_MIN_VALUES: Final = 20
MAP_RANGE: Final = 0.10

Plane = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Price grid of one frame: bucket i has price (origin + i) * step. `shrunk`: it was cut to 2,000 buckets."""

    origin: int
    count: int
    step: float
    shrunk: bool = False

    @property
    def prices(self) -> Plane:
        """float64[count], ascending."""
        return prices_of(self.origin, self.count, self.step)

    @property
    def digits(self) -> int:
        """Decimals of a price between buckets: two, or as many as the step has. A coin of 0.00001 USD has none in two."""
        return max(2, ndigits(self.step))

    def bucket(self, price: float) -> int:
        """Absolute index of the bucket of a price, inside the grid or not."""
        return bucket_of(price, self.step)


def map_grid(src: float, step: float) -> Grid:
    """Grid of a liquidation frame: +/- 10 % of the candle price (`spec: engine`, section 5).

    Raises ValueError for a price of about half a step or less: what is in bucket 0 has a price of 0.
    """
    origin, count, shrunk = frame_grid(src, step, MAP_RANGE)
    if origin < 1:
        raise ValueError("the step is too coarse for the price: its grid begins at 0")
    return Grid(origin, count, step, shrunk)


@dataclass(frozen=True, slots=True, eq=False)
class RawMap:
    """Weighted sum of the normalised sources, float64[2, buckets] in 0..1: for pools and diagnostics."""

    values: Plane


@dataclass(frozen=True, slots=True, eq=False)
class DisplayMap:
    """The raw map boosted where both sources speak, float64[2, buckets] in 0..1: for pictures only."""

    values: Plane


@dataclass(frozen=True, slots=True)
class Mix:
    """How much each source counts; from the settings, there is no other default."""

    tape: float
    projection: float


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """Both sources and what they give together. `tape_p99`, `projection_p99`: their scales in USD, 0 for a source without mass."""

    tape_p99: float
    projection_p99: float
    raw: RawMap
    display: DisplayMap


def source_scale(usd: Plane) -> float:
    """Scale of a source in USD over its positive cells: their 99th percentile (linear) from 20 on, else the largest.

    0.0 where there is none or one is not finite: then the source counts as zero everywhere.
    """
    if not np.isfinite(usd).all():
        return 0.0
    positive = usd[usd > 0.0]
    if not positive.size:
        return 0.0
    return float(np.percentile(positive, 99.0)) if positive.size >= P99_MIN_VALUES else float(positive.max())


def normalised(usd: Plane, scale: float) -> Plane:
    """min(1, USD / scale); zeros for a scale of 0."""
    return np.minimum(1.0, usd / scale) if scale > 0.0 else np.zeros(usd.shape)


def combine(tape: Plane, projected: Plane, mix: Mix) -> Combined:
    """The maps of two sources, each float64[2, buckets] in USD on the frame grid. V: section 10."""
    tape_p99, projection_p99 = source_scale(tape), source_scale(projected)
    return combine_scaled(tape, projected, tape_p99, projection_p99, mix)


def combine_scaled(tape: Plane, projected: Plane, tape_p99: float, projection_p99: float, mix: Mix) -> Combined:
    """`combine` with the scales that a frame header holds."""
    of_tape, of_projection = normalised(tape, tape_p99), normalised(projected, projection_p99)
    raw = mix.tape * of_tape + mix.projection * of_projection
    both = (of_tape > COMBINED_SOURCE_EPS) & (of_projection > COMBINED_SOURCE_EPS)
    display = np.where(both, np.minimum(1.0, COMBINED_ZONE_BOOST * raw), raw)
    return Combined(tape_p99, projection_p99, RawMap(raw), DisplayMap(display))
