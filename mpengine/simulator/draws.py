"""Random scalars out of one numpy Generator, drawn in blocks. Pure: the generator is passed in.

PERF: a scalar call into a Generator costs about 1 us, an item of a block 50 ns; a market step needs some hundred of them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Final

import numpy as np

BLOCK: Final = 512


class Draws:
    """Uniform [0, 1), standard normal and exponential (mean 1) scalars; equal generators give equal sequences."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.uniform: Callable[[], float] = _blocks(rng.random).__next__
        self.normal: Callable[[], float] = _blocks(rng.standard_normal).__next__
        self.exponential: Callable[[], float] = _blocks(rng.standard_exponential).__next__

    def below(self, limit: int) -> int:
        """An integer in [0, limit)."""
        return int(self.uniform() * limit)

    def poisson(self, mean: float) -> int:
        """A Poisson number; above a mean of 30 its normal approximation."""
        if mean > 30.0:
            return max(0, round(mean + math.sqrt(mean) * self.normal()))
        count, product, floor = 0, self.uniform(), math.exp(-mean)
        while product > floor:
            count += 1
            product *= self.uniform()
        return count


class Mix:
    """Values with weights. `pick(u)` with u uniform in [0, 1) returns each value as often as its weight says."""

    def __init__(self, weights: Mapping[int, float]) -> None:
        """Raises ValueError unless all weights are >= 0, finite, and their sum is positive."""
        total = math.fsum(weights.values())
        if not weights or min(weights.values()) < 0 or not 0 < total < math.inf:
            raise ValueError("a mix needs weights >= 0 with a positive sum")
        self.values: Final = tuple(sorted(weights))
        self._edges = [edge / total for edge in accumulate(weights[value] for value in self.values)]

    def pick(self, u: float) -> int:
        return self.values[min(bisect_right(self._edges, u), len(self.values) - 1)]

    def next_below(self, value: int) -> int | None:
        """The next smaller value, None below the smallest."""
        smaller = [v for v in self.values if v < value]
        return smaller[-1] if smaller else None


def _blocks(draw: Callable[[int], Any]) -> Iterator[float]:
    while True:
        yield from draw(BLOCK).tolist()
