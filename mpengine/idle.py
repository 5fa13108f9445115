"""How a duty loop waits when a turn found no work: short sleeps that grow, back to the shortest as soon as there is work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

SHORTEST_S: Final = 0.0005
LONGEST_S: Final = 0.005  # as long as ingest collects a batch: sleeping longer would add to the latency


class Idle:
    """Sleeps 0.5 ms after the first empty turn, doubling to 5 ms."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._next_s = SHORTEST_S

    def __call__(self, work: int) -> None:
        """`work`: how much the turn did; 0 sleeps."""
        if work:
            self._next_s = SHORTEST_S
            return
        self._sleep(self._next_s)
        self._next_s = min(2 * self._next_s, LONGEST_S)
