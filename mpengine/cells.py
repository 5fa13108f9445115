"""USD as single bytes on a logarithmic scale that is the same for every answer (`spec: api`, section 11.2). Pure.

0 = nothing. q = 1..255 means lo*(hi/lo)^((q-1)/254) USD; what lies above hi is 255, what lies below lo is 0. The scale is fixed,
so columns of different answers, symbols and days can be joined and compared; the error is at most 3.3 % of the value.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

LO_USD: Final = 100.0
HI_USD: Final = 1e9
STEPS: Final = 254

_PER_LOG: Final = STEPS / math.log(HI_USD / LO_USD)

Usd = np.ndarray[Any, np.dtype[np.floating[Any]]]
Cells = np.ndarray[Any, np.dtype[np.uint8]]


def u8log(usd: Usd) -> Cells:
    """uint8 of the same shape. `usd`: finite, >= 0."""
    cells = np.zeros(usd.shape, np.uint8)
    shown = usd >= LO_USD
    scaled = np.rint(np.log(usd[shown].astype(np.float64) / LO_USD) * _PER_LOG)
    cells[shown] = 1 + np.minimum(scaled, STEPS)
    return cells


def usd_of_u8log(cells: Cells, lo_usd: float = LO_USD, hi_usd: float = HI_USD) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 of the same shape: what each cell stands for, on the scale that came with the cells."""
    usd = lo_usd * np.exp((cells.astype(np.float64) - 1) * (math.log(hi_usd / lo_usd) / STEPS))
    return np.where(cells > 0, usd, 0.0)
