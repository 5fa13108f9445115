"""Open interest per venue, its sum and its change per minute (`spec: engine` 8.1, `spec: exchanges` 9). Pure; base units.

A venue that fails or returns makes no artificial change: the delta is taken only over venues present in both observations.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from mpengine.schemas import OiDocument, OiValue
from shm.records import Venue

MAX_AGE_NS: Final = 60 * 1_000_000_000
BASELINE_AGE_NS: Final = 120 * 1_000_000_000
JUMP_PCT: Final = 0.30
AGREE_PCT: Final = 0.01
AGREE_READINGS: Final = 3


class OiMinute(NamedTuple):
    """Open interest at a rollover. `total`, `delta` are None where nothing fresh (nothing comparable) is known.

    `previous`: sum of what the compared venues had at the last rollover, None with `delta`.
    """

    total: float | None
    delta: float | None
    by_venue: dict[Venue, float]
    previous: float | None = None


class OpenInterest:
    """Newest value per venue, and the values that the last rollover used. `shown` values are kept beside and never counted."""

    __slots__ = ("_baseline", "_baseline_ns", "_odd", "_shown", "_values", "refused")

    def __init__(self) -> None:
        self._values: dict[Venue, tuple[float, int, int]] = {}
        self._shown: dict[Venue, tuple[float, int, int]] = {}
        self._baseline: dict[Venue, float] = {}
        self._baseline_ns = 0
        self._odd: dict[Venue, list[float]] = {}
        self.refused = 0

    def on_shown(self, venue: Venue, qty: float, now_ns: int, venue_ns: int) -> None:
        """A value that the venue pushed: for display."""
        self._shown[venue] = (qty, now_ns, venue_ns)

    def on_value(self, venue: Venue, qty: float, now_ns: int, venue_ns: int = 0) -> bool:
        """A reading; False if it was refused as a jump beyond 30 % (accepted when three in a row agree within 1 %)."""
        known = self._values.get(venue)
        if known is not None and abs(qty - known[0]) > JUMP_PCT * known[0]:
            odd = self._odd.setdefault(venue, [])
            odd.append(qty)
            del odd[:-AGREE_READINGS]
            if len(odd) < AGREE_READINGS or max(odd) - min(odd) > AGREE_PCT * min(odd):
                self.refused += 1
                return False
        self._odd.pop(venue, None)
        self._values[venue] = (qty, now_ns, venue_ns)
        return True

    def fresh(self, now_ns: int) -> dict[Venue, float]:
        """Values not older than 60 s, in venue order."""
        return {venue: qty for venue, (qty, at_ns, _) in sorted(self._values.items()) if now_ns - at_ns <= MAX_AGE_NS}

    def total(self, now_ns: int) -> float | None:
        """Sum over fresh venues; None without one."""
        fresh = self.fresh(now_ns)
        return sum(fresh.values()) if fresh else None

    def on_rollover(self, now_ns: int) -> OiMinute:
        """Sum and change since the last rollover; then the fresh values, and they alone, become the baseline.

        A venue that the last rollover did without has no baseline: what it changed by meanwhile is no change of one minute.
        """
        fresh = self.fresh(now_ns)
        both = [v for v in fresh if v in self._baseline] if now_ns - self._baseline_ns <= BASELINE_AGE_NS else []
        delta = sum(fresh[v] - self._baseline[v] for v in both) if both else None
        previous = sum(self._baseline[v] for v in both) if both else None
        self._baseline, self._baseline_ns = dict(fresh), now_ns
        return OiMinute(sum(fresh.values()) if fresh else None, delta, fresh, previous)

    def document(self, symbol: str, unit: str, mark: float | None, now_ns: int) -> OiDocument:
        """The OI document of this moment."""
        return OiDocument(
            symbol=symbol, written_ns=now_ns, unit=unit, total_base=self.total(now_ns), mark=mark,
            venues=_as_published(self._values), display=_as_published(self._shown),
        )  # fmt: skip

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "values": [[int(v), *known] for v, known in sorted(self._values.items())],
            "shown": [[int(v), *known] for v, known in sorted(self._shown.items())],
            "baseline": [[int(v), qty] for v, qty in sorted(self._baseline.items())],
            "baseline_ns": self._baseline_ns,
            "odd": [[int(v), readings] for v, readings in sorted(self._odd.items())],
            "refused": self.refused,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        self._values, self._shown = (
            {Venue(v): (qty, at_ns, venue_ns) for v, qty, at_ns, venue_ns in state[name]} for name in ("values", "shown")
        )
        self._baseline = {Venue(v): qty for v, qty in state["baseline"]}
        self._baseline_ns = state["baseline_ns"]
        self._odd = {Venue(v): list(readings) for v, readings in state["odd"]}
        self.refused = state["refused"]


def _as_published(values: dict[Venue, tuple[float, int, int]]) -> dict[str, OiValue]:
    return {venue.label: OiValue(base=qty, recv_ns=at_ns, venue_ns=ns) for venue, (qty, at_ns, ns) in sorted(values.items())}
