"""What a venue's REST may do now: pauses, disabled calls, back-off, half rate and weight (`spec: exchanges`, section 11).

Pure. The poller asks before each request, says afterwards what the reply meant, and asks when the next one is due.
All times are ns of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from mpengine.ingest.backoff import REST_FIRST_S, REST_MAX_S, doubling_s
from mpengine.venues.base import RestCall, RestResult, RestVerdict

SECOND: Final = 1_000_000_000
LIMITED_PAUSE_S: Final = 60.0
BANNED_PAUSE_S: Final = 120.0  # the shortest ban that the venue gives
FIREWALL_PAUSE_S: Final = 300.0
HALF_RATE_S: Final = 300.0
REFUSED_PAUSE_S: Final = 600.0
WEIGHT_SKIP_RATIOS: Final = 1200
WEIGHT_SKIP_POLLS: Final = 1800
WEIGHT_MEMORY_S: Final = 60.0  # the figure counts one minute: older ones say nothing, and without replies there are no new ones
HEAVY_SNAPSHOT_GAP_S: Final = 10.0
BUDGET_WINDOW_S: Final = 300.0
BUDGET_REQUESTS: Final = 900
"""Of the 1000 requests that the venue allows this address in five minutes for its statistics (`spec: exchanges`, section 3.6)."""
BUDGET_BURST: Final = 90
BUDGET_PER_S: Final = (BUDGET_REQUESTS - BUDGET_BURST) / BUDGET_WINDOW_S
"""A bucket of the burst, filled at this rate, never lets more than BUDGET_REQUESTS through in any window."""

_BUDGET_STEP_NS: Final = int(SECOND / BUDGET_PER_S)

CallKey = tuple[str, str | None]


def key_of(call: RestCall) -> CallKey:
    """What makes two requests the same call."""
    return call.name, call.symbol


def paced(calls: Iterable[RestCall]) -> list[tuple[float, RestCall]]:
    """The repeated calls of a venue with the delay of their first request in s; those of one budget with an interval that fits it.

    Where the statistics calls together ask for more than BUDGET_PER_S, all their intervals grow by the same factor, and what is
    beyond the burst begins one after the other. Calls without an interval are left out.
    """
    repeated = [(call, call.interval_s) for call in calls if call.interval_s is not None]
    rate_per_s = sum(1.0 / interval_s for call, interval_s in repeated if call.budget == "futures_data")
    factor = max(1.0, rate_per_s / BUDGET_PER_S)
    result, place = [], 0
    for call, interval_s in repeated:
        if call.budget != "futures_data":
            result.append((0.0, call))
            continue
        place += 1
        result.append((max(0, place - BUDGET_BURST) / BUDGET_PER_S, replace(call, interval_s=interval_s * factor)))
    return result


@dataclass(slots=True)
class _CallState:
    failures: int = 0
    off_until_ns: int = 0


class RestPolicy:
    """State of one venue's REST. `blocked`: geo block, until restart."""

    __slots__ = (
        "_banned_until_ns",
        "_budget_ns",
        "_calls",
        "_half_until_ns",
        "_paused_until_ns",
        "_snapshot_sent_ns",
        "_unauthorized",
        "_used",
        "_used_at_ns",
        "blocked",
    )  # fmt: skip

    def __init__(self) -> None:
        self.blocked = False
        self._paused_until_ns = 0
        self._banned_until_ns = 0
        self._half_until_ns = 0
        self._budget_ns = 0
        self._snapshot_sent_ns: int | None = None
        self._used: int | None = None
        self._used_at_ns = 0
        self._unauthorized: set[str] = set()
        self._calls: dict[CallKey, _CallState] = {}

    def wait_ns(self, call: RestCall, now_ns: int) -> int | None:
        """0: send it now; n > 0: ask again after n; None: not before a restart."""
        if self.blocked or call.name in self._unauthorized:
            return None
        until = max(self._paused_until_ns, self._state(call).off_until_ns)
        return max(0, until - now_ns) or self._weight_wait_ns(call, now_ns) or self._budget_wait_ns(call, now_ns)

    def sent(self, call: RestCall, now_ns: int) -> None:
        """A request goes out."""
        if call.interval_s is None:
            self._snapshot_sent_ns = now_ns
        if call.budget == "futures_data":
            self._budget_ns = max(self._budget_ns, now_ns) + _BUDGET_STEP_NS

    def settle(self, call: RestCall, verdict: RestVerdict, now_ns: int) -> None:
        """What the reply to a request meant; a timeout or a broken connection is TRANSIENT."""
        if verdict.used_weight is not None:
            self._used, self._used_at_ns = verdict.used_weight, now_ns
        state = self._state(call)
        state.failures = state.failures + 1 if verdict.result is RestResult.TRANSIENT else 0
        match verdict.result:
            case RestResult.LIMITED:
                self._pause(verdict, LIMITED_PAUSE_S, now_ns)
                self._half_until_ns = self._paused_until_ns + int(HALF_RATE_S * SECOND)
            case RestResult.BANNED:
                self._pause(verdict, BANNED_PAUSE_S, now_ns)
                self._banned_until_ns = self._paused_until_ns
                self._half_until_ns = self._paused_until_ns + int(HALF_RATE_S * SECOND)
            case RestResult.FIREWALL:
                self._pause(verdict, FIREWALL_PAUSE_S, now_ns)
            case RestResult.BLOCKED:
                self.blocked = True
            case RestResult.UNAUTHORIZED:
                self._unauthorized.add(call.name)
            case RestResult.REFUSED:
                state.off_until_ns = now_ns + int(REFUSED_PAUSE_S * SECOND)
            case RestResult.OK | RestResult.TRANSIENT:
                pass

    def next_ns(self, call: RestCall, started_ns: int, now_ns: int) -> int:
        """When a repeated call that began at `started_ns` is due again: its interval, twice that at half rate, else back-off.

        Never before `now_ns`. Raises ValueError for a call without an interval.
        """
        if call.interval_s is None:
            raise ValueError(f"{call.name} is not repeated")
        failures = self._state(call).failures
        wait_s = doubling_s(failures, REST_FIRST_S, REST_MAX_S) if failures else call.interval_s
        if call.budget == "futures_data":
            wait_s = max(wait_s, call.interval_s)
        if now_ns < self._half_until_ns:
            wait_s = max(wait_s, 2 * call.interval_s)
        return max(now_ns, started_ns + int(wait_s * SECOND))

    def paused_until_ns(self, now_ns: int) -> int | None:
        """End of the venue-wide pause; None while there is none."""
        return self._paused_until_ns if self._paused_until_ns > now_ns else None

    def banned(self, now_ns: int) -> bool:
        """Whether the venue has banned this address."""
        return now_ns < self._banned_until_ns

    def used_weight(self, now_ns: int) -> int | None:
        """Weight that the venue says was used in the current minute; None where it has not said so within the last one."""
        return self._used if now_ns - self._used_at_ns < WEIGHT_MEMORY_S * SECOND else None

    def _state(self, call: RestCall) -> _CallState:
        return self._calls.setdefault(key_of(call), _CallState())

    def _pause(self, verdict: RestVerdict, default_s: float, now_ns: int) -> None:
        pause_s = default_s if verdict.retry_after_s is None else verdict.retry_after_s
        self._paused_until_ns = max(self._paused_until_ns, now_ns + int(pause_s * SECOND))

    def _budget_wait_ns(self, call: RestCall, now_ns: int) -> int:
        if call.budget != "futures_data":
            return 0
        return max(0, self._budget_ns - (BUDGET_BURST - 1) * _BUDGET_STEP_NS - now_ns)

    def _weight_wait_ns(self, call: RestCall, now_ns: int) -> int:
        used = self.used_weight(now_ns)
        if used is None:
            return 0
        memory_ends_ns = self._used_at_ns + int(WEIGHT_MEMORY_S * SECOND)
        if call.interval_s is None:
            if used <= WEIGHT_SKIP_POLLS or self._snapshot_sent_ns is None:
                return 0
            return max(0, min(memory_ends_ns, self._snapshot_sent_ns + int(HEAVY_SNAPSHOT_GAP_S * SECOND)) - now_ns)
        limit = WEIGHT_SKIP_RATIOS if call.budget == "futures_data" else WEIGHT_SKIP_POLLS
        return memory_ends_ns - now_ns if used > limit else 0
