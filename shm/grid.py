"""The one price grid of the system: bucket index <-> price (`spec: engine`, section 5). Pure.

State is keyed by the integer index k = rint(price / step), half to even; the price of a bucket is round(k * step, ndigits(step)).
Prices exist only at the edge. There is no `price += step` anywhere: 50 plus 252 times 0.1 is not 75.2.
"""

from __future__ import annotations

import math
from decimal import Decimal
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

MAX_BUCKETS: Final = 2000


@lru_cache(maxsize=256)
def ndigits(step: float) -> int:
    """Decimal places of a price on a grid of `step`: 20.0 -> 0 (of 20.0 one prints 1), 0.1 -> 1, 0.05 -> 2."""
    exponent = Decimal(str(step)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)  # a finite Decimal
    return max(0, -exponent)


def bucket_of(price: float, step: float) -> int:
    """Index of the bucket nearest to `price`, ties to the even index. Raises ValueError where either is not finite."""
    quotient = price / step
    if not math.isfinite(quotient):
        raise ValueError("price and step must be finite and step above 0")
    return round(quotient)


def price_of(index: int, step: float) -> float:
    """Price of a bucket's centre."""
    return round(index * step, ndigits(step))


def buckets_of(prices: npt.NDArray[np.float64], step: float) -> npt.NDArray[np.int64]:
    """`bucket_of` for float64[n] of finite prices."""
    return np.rint(prices / step).astype(np.int64)


def prices_of(origin: int, count: int, step: float) -> npt.NDArray[np.float64]:
    """Prices of `count` buckets from index `origin`, ascending: float64[count], each equal to `price_of`.

    Index times step as whole numbers of the last decimal, divided once: exact up to 2**53, so no rounding can differ.
    """
    scale = 10 ** ndigits(step)
    prices: npt.NDArray[np.float64] = (np.arange(origin, origin + count, dtype=np.int64) * round(step * scale)) / float(scale)
    return prices


def frame_grid(reference: float, step: float, range_pct: float) -> tuple[int, int, bool]:
    """(origin, count, shrunk) of a frame around `reference`: +/- `range_pct`, at most MAX_BUCKETS, cut symmetrically if more."""
    low, high = bucket_of((1 - range_pct) * reference, step), bucket_of((1 + range_pct) * reference, step)
    excess = high - low + 1 - MAX_BUCKETS
    if excess <= 0:
        return low, high - low + 1, False
    low += (excess + 1) // 2
    high -= excess // 2
    return low, high - low + 1, True
