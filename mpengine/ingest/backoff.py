"""How long to wait before the next try. Pure: attempt numbers and a random source in, seconds out.

`rng` gives a number of [0, 1) per call, as `random.Random.random` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FIRST_RECONNECT_S: Final = 1.0
REST_FIRST_S: Final = 15.0
REST_MAX_S: Final = 120.0
_LARGEST_EXPONENT: Final = 30  # beyond, 2^n s is longer than any limit that the settings allow


def reconnect_delay_s(attempt: int, limit_s: float, rng: Callable[[], float]) -> float:
    """min(limit, 2^n s x U(0.8, 1.2)), n = `attempt` from 0 (`spec: exchanges`, section 12)."""
    spread = 0.8 + 0.4 * rng()
    return min(limit_s, FIRST_RECONNECT_S * 2.0 ** min(attempt, _LARGEST_EXPONENT) * spread)


def doubling_s(failures: int, first_s: float, limit_s: float) -> float:
    """`first_s` after one failure, doubled by each further one in a row, at most `limit_s`; 0 without a failure."""
    if failures < 1:
        return 0.0
    return min(limit_s, first_s * 2.0 ** min(failures - 1, _LARGEST_EXPONENT))


def rotation_s(after_s: float, jitter_s: float, rng: Callable[[], float]) -> float:
    """Age at which a connection is replaced: `after_s` less up to `jitter_s`, but at least half of `after_s`.

    The jitter keeps the sockets of many instances from moving at the same moment.
    """
    return max(after_s / 2, after_s - jitter_s * rng())
