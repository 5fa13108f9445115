"""Figures that both sources make of what they read. Pure."""

from __future__ import annotations

import numpy as np


def percentiles(lags: list[float]) -> tuple[float | None, float | None]:
    """(50th, 99th) percentile, linear, 1 decimal; None of nothing."""
    if not lags:
        return None, None
    p50, p99 = np.percentile(np.asarray(lags, np.float64), (50.0, 99.0))
    return round(float(p50), 1), round(float(p99), 1)
