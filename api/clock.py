"""The two clocks of the API, as one argument: wall clock for ages that clients see, monotonic clock for intervals."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Nanoseconds. Tests hand in functions of their own."""

    wall_ns: Callable[[], int] = time.time_ns
    monotonic_ns: Callable[[], int] = time.monotonic_ns

    def wall_ms(self) -> int:
        """Wall clock in milliseconds."""
        return self.wall_ns() // 1_000_000
