"""Zone tracker: the few pools that are shown, which do not jump from minute to minute (`spec: engine`, section 15). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from mpengine.engine.pools import Pool
from shm.records import PositionSide

MAX_SHOWN: Final = 5
TTL_MIN: Final = 10
ENTER_MARGIN: Final = 0.07
EXIT_MARGIN: Final = 0.05
PEAK_DROP: Final = 0.70
MIN_STRENGTH: Final = 0.01
MATCH_PCT: Final = 0.0025
MISS_DECAY: Final = 0.95
TIE: Final = 1e-9
"""Margins are decimals: .18 is .10 + .07 and more, also in binary."""


class Candidate(NamedTuple):
    """A pool as the tracker sees it: price in USD, strength 0..1."""

    price: float
    strength: float


@dataclass(slots=True)
class _Zone:
    price: float
    strength: float
    peak: float
    since: int


class ZoneTracker:
    """Shown zones of both sides."""

    __slots__ = ("_minute", "_shown")

    def __init__(self) -> None:
        self._shown: tuple[list[_Zone], list[_Zone]] = ([], [])
        self._minute = 0

    def on_minute(self, pools: tuple[Sequence[Pool], Sequence[Pool]], src: float, minute: int) -> None:
        """The pools of a minute, in any order. `src`: its candle price. Missing minutes fade what is shown."""
        minutes, self._minute = max(1, minute - self._minute), minute
        for row, side in enumerate(pools):
            candidates = sorted((Candidate(pool.price, pool.intensity) for pool in side), key=lambda one: -one.strength)
            self._shown[row][:] = _step(self._shown[row], candidates, src, minute, minutes)

    def shown(self, side: PositionSide) -> list[dict[str, Any]]:
        """{price, strength, age_min} of one side, strongest first."""
        return [
            {"price": zone.price, "strength": zone.strength, "age_min": max(0, self._minute - zone.since)}
            for zone in self._shown[0 if side is PositionSide.LONG else 1]
        ]

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        sides = [[[zone.price, zone.strength, zone.peak, zone.since] for zone in side] for side in self._shown]
        return {"minute": self._minute, "shown": sides}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        self._minute = state["minute"]
        long, short = ([_Zone(*row) for row in side] for side in state["shown"])
        self._shown = (long, short)


def _step(shown: Sequence[_Zone], candidates: Sequence[Candidate], src: float, minute: int, minutes: int) -> list[_Zone]:
    """What is shown after a minute, `minutes` after the one before; strongest first. `candidates`: strongest first."""
    matched, free = set[int](), list[Candidate]()
    for candidate in candidates:
        at = _nearest(candidate, shown, matched, MATCH_PCT * src)
        if at is None:
            free.append(candidate)
            continue
        matched.add(at)
        zone = shown[at]
        zone.price, zone.strength, zone.peak = candidate.price, candidate.strength, max(zone.peak, candidate.strength)
    for at, zone in enumerate(shown):
        if at not in matched:
            zone.strength *= MISS_DECAY**minutes
    best = free[0].strength if free else 0.0
    kept = [zone for zone in shown if not _leaves(zone, best, minute)]
    for candidate in free:
        kept.sort(key=lambda zone: -zone.strength)
        if candidate.strength < MIN_STRENGTH:
            break
        if len(kept) >= MAX_SHOWN:
            if candidate.strength <= kept[-1].strength + ENTER_MARGIN + TIE:
                break
            kept.pop()
        kept.append(_Zone(candidate.price, candidate.strength, candidate.strength, minute))
    return sorted(kept, key=lambda zone: -zone.strength)


def _nearest(candidate: Candidate, shown: Sequence[_Zone], matched: set[int], within: float) -> int | None:
    free = [at for at, zone in enumerate(shown) if at not in matched and abs(zone.price - candidate.price) <= within]
    return min(free, key=lambda at: abs(shown[at].price - candidate.price), default=None)


def _leaves(zone: _Zone, best: float, minute: int) -> bool:
    if zone.strength < MIN_STRENGTH:
        return True
    faded = zone.strength < (1.0 - PEAK_DROP) * zone.peak or zone.strength < best - EXIT_MARGIN - TIE
    return minute - zone.since >= TTL_MIN and faded
