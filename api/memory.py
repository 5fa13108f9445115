"""Memory of a worker: above its limit it builds nothing new, and when that does not help it asks to be replaced."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from api.context import Lifetime
from shm.process_shell import rss_bytes

BELOW: Final = 0.9
"""Share of the limit below which work goes on: not to and fro at the limit itself."""
PATIENCE_NS: Final = 10_000_000_000

log = logging.getLogger("api.memory")


class MemoryWatch:
    """Looks once a second. `most`: bytes that may be resident; `let_go`: gives back what can be made again; `measure`: bytes."""

    def __init__(self, most: int, lifetime: Lifetime, let_go: Callable[[], None], measure: Callable[[], int] = rss_bytes) -> None:
        self._most = most
        self._lifetime = lifetime
        self._let_go = let_go
        self._measure = measure
        self._since_ns: int | None = None

    def turn(self, now_ns: int) -> bool:
        """Set `Lifetime.short_of_memory`. True once, when it has been short for longer than giving back takes."""
        resident = self._measure()
        if self._since_ns is None:
            if resident > self._most:
                log.error("%d bytes are resident, above api.worker_memory_bytes: only kept answers", resident)
                self._since_ns, self._lifetime.short_of_memory = now_ns, True
                self._let_go()
            return False
        if resident <= self._most * BELOW:
            log.warning("memory is back at %d bytes", resident)
            self._since_ns, self._lifetime.short_of_memory = None, False
            return False
        if self._lifetime.stopping or now_ns - self._since_ns < PATIENCE_NS:
            return False
        log.error("%d bytes stay resident: this worker leaves", resident)
        self._lifetime.stopping = True
        return True
