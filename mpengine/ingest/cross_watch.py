"""Liquidations that one venue keeps to itself: others show many of a symbol, it shows none (`spec: exchanges`, section 12). Pure.

A venue that pushes every liquidation may be silent for minutes; silence while the others show a cascade is a dead subscription.
Totals are compared over a sliding window of ten minutes, in steps of a sixtieth of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final

SECOND: Final = 1_000_000_000
WINDOW_S: Final = 600.0
STEPS: Final = 60
ENOUGH: Final = 20

Totals = Mapping[str, int]
"""Symbol -> liquidations given out since the start."""


class CrossWatch:
    """Watches one venue against the others together. `scale` stretches the window, as it does the limits of the watchdogs."""

    __slots__ = ("_acted_ns", "_due_ns", "_history", "_step_ns", "_window_ns")

    def __init__(self, scale: float = 1.0) -> None:
        self._window_ns = int(WINDOW_S * scale * SECOND)
        self._step_ns = max(1, self._window_ns // STEPS)
        self._history: deque[tuple[int, dict[str, int], dict[str, int]]] = deque(maxlen=STEPS + 1)
        self._due_ns = 0
        self._acted_ns: dict[str, int] = {}

    def look(self, own: Totals, others: Totals, now_ns: int, *, since_ns: Mapping[str, int]) -> dict[str, int]:
        """Symbols to subscribe anew -> what the others showed in the window; each at most once per window.

        `own`: totals of the watched venue, `others`: those of the other venues together. `since_ns`: symbol -> when the oldest
        open connection with the watched stream opened; a symbol without one, or with one younger than the window, proves nothing.
        """
        if now_ns < self._due_ns:
            return {}
        self._due_ns = now_ns + self._step_ns
        self._history.append((now_ns, dict(own), dict(others)))
        while len(self._history) > 1 and self._history[1][0] <= now_ns - self._window_ns:
            self._history.popleft()
        begun_ns, own_then, others_then = self._history[0]
        if now_ns - begun_ns < self._window_ns:
            return {}
        found = {}
        for symbol, opened_ns in since_ns.items():
            shown = others.get(symbol, 0) - others_then.get(symbol, 0)
            silent = own.get(symbol, 0) == own_then.get(symbol, 0)
            rested = now_ns - max(opened_ns, self._acted_ns.get(symbol, opened_ns)) >= self._window_ns
            if silent and shown >= ENOUGH and rested:
                self._acted_ns[symbol] = now_ns
                found[symbol] = shown
        return found
