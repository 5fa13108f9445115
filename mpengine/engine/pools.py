"""Pools: groups of neighbouring buckets with the most mass (`spec: engine`, section 11). Pure."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np

from mpengine.engine.buckets import Floats, column_sums, ordered_sum
from mpengine.heatmap import COMBINED_SOURCE_EPS, COMBINED_ZONE_BOOST, Combined, Grid, normalised
from shm.records import PositionSide

CLUSTER_RADIUS_PCT: Final = 0.005
MIN_BUCKET_USD: Final = 100.0
MIN_POOL_USD: Final = 1000.0
MAX_POOLS_PER_SIDE: Final = 20

Source = Literal["tape", "inference", "combined"]


class Pool(NamedTuple):
    """One pool. USD are real USD; `strength` is the sum of the raw map, `tier_usd` projected USD by tier of the ladder."""

    side: PositionSide
    price: float
    price_low: float
    price_high: float
    tape_usd: float
    projected_usd: float
    notional_usd: float
    bucket_count: int
    strength: float
    intensity: float
    source: Source
    tier_usd: tuple[float, ...]
    size_base: float


class _Masses(NamedTuple):
    """One side on the frame grid: float64[buckets] of USD and of values 0..1, float64[buckets, tiers] of projected USD."""

    prices: Floats
    tape: Floats
    projected: Floats
    by_tier: Floats
    raw: Floats
    near_tape: Floats
    near_projection: Floats


def find_pools(
    grid: Grid, src: float, tape: Floats, projected: Floats, by_tier: Floats, combined: Combined
) -> tuple[tuple[Pool, ...], tuple[Pool, ...]]:
    """(long, short) pools, each side by notional descending: the 20 of largest strength, so that the tape can be among them.

    `tape`, `projected`: float64[2, buckets] USD; `by_tier`: float64[2, buckets, tiers] USD.
    """
    prices = grid.prices
    near_tape, near_projection = normalised(tape, combined.tape_p99), normalised(projected, combined.projection_p99)
    radius = max(1, round(CLUSTER_RADIUS_PCT * src / grid.step))
    found: list[list[Pool]] = []
    for row, side in enumerate((PositionSide.LONG, PositionSide.SHORT)):
        masses = _Masses(
            prices, tape[row], projected[row], by_tier[row], combined.raw.values[row], near_tape[row], near_projection[row]
        )
        pools = [pool for members in _groups(side, src, radius, masses) if (pool := _pool(side, members, masses, grid.digits))]
        # A stable sort: of equally strong ones those found first, which are the nearer ones, stay.
        found.append(sorted(pools, key=lambda pool: -pool.strength)[:MAX_POOLS_PER_SIDE])
    largest = max((pool.strength for side_pools in found for pool in side_pools), default=0.0)
    long, short = (
        tuple(sorted((_with_intensity(pool, largest) for pool in pools), key=lambda pool: (-pool.notional_usd, pool.price)))
        for pools in found
    )
    return long, short


def _groups(side: PositionSide, src: float, radius: int, masses: _Masses) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Buckets of each pool, ascending: around the largest raw value that is left, all that are left within `radius`.

    Ties: nearer to `src`, then the lower bucket. Without chaining: that grew pools 7 % wide.
    """
    prices = masses.prices
    ahead = prices <= src if side is PositionSide.LONG else prices >= src
    left = ahead & (masses.tape + masses.projected >= MIN_BUCKET_USD)
    order = np.lexsort((np.arange(len(prices)), np.abs(prices - src), -masses.raw))
    groups = []
    for peak in order[left[order]].tolist():
        if left[peak]:
            low, high = max(0, peak - radius), peak + radius + 1
            members = low + np.flatnonzero(left[low:high])
            left[members] = False
            groups.append(members)
    return groups


def _pool(side: PositionSide, members: np.ndarray[tuple[int], np.dtype[np.int64]], masses: _Masses, digits: int) -> Pool | None:
    """The pool of these buckets, its intensity still the boost alone; None below MIN_POOL_USD."""
    tape, projected, prices = masses.tape[members], masses.projected[members], masses.prices[members]
    tape_usd, projected_usd = ordered_sum(tape), ordered_sum(projected)
    usd = tape_usd + projected_usd
    if usd < MIN_POOL_USD:
        return None
    both = bool((masses.near_tape[members] > COMBINED_SOURCE_EPS).any()) and bool(
        (masses.near_projection[members] > COMBINED_SOURCE_EPS).any()
    )
    source: Source = "combined" if tape_usd > 0.0 and projected_usd > 0.0 else "tape" if tape_usd > 0.0 else "inference"
    return Pool(
        side=side,
        price=round(ordered_sum((tape + projected) * prices) / usd, digits),
        price_low=float(prices[0]),
        price_high=float(prices[-1]),
        tape_usd=tape_usd,
        projected_usd=projected_usd,
        notional_usd=usd,
        bucket_count=len(members),
        strength=ordered_sum(masses.raw[members]),
        intensity=COMBINED_ZONE_BOOST if both else 1.0,
        source=source,
        tier_usd=tuple(column_sums(masses.by_tier[members]).tolist()),
        size_base=ordered_sum((tape + projected) / prices),
    )


def _with_intensity(pool: Pool, largest: float) -> Pool:
    share = (pool.strength / largest) ** 0.5 if largest > 0.0 else 0.0
    return pool._replace(intensity=round(min(1.0, pool.intensity * share), 4))
