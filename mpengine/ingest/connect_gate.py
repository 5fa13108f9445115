"""When a socket to a venue may be tried: the venue's connection rate over all its sockets, and what its refusals ask for. Pure.

One per venue. A keeper asks before each try and says how the venue refused it. Monotonic ns come in.
"""

from __future__ import annotations

from typing import Final

from mpengine.ingest.rest_policy import BANNED_PAUSE_S, FIREWALL_PAUSE_S, LIMITED_PAUSE_S
from mpengine.venues.base import ConnectLimit, RestResult, RestVerdict

SECOND: Final = 1_000_000_000
_PAUSES_S: Final = {
    RestResult.LIMITED: LIMITED_PAUSE_S,
    RestResult.BANNED: BANNED_PAUSE_S,
    RestResult.FIREWALL: FIREWALL_PAUSE_S,
}


class ConnectGate:
    """Turns at opening sockets: at most `burst` at once and `per_s` in the long run, handed out in order of asking.

    `blocked`: the venue refuses this address for good; no try before a restart. `waited`: tries that had to wait for their turn.
    Raises ValueError for a limit that lets nothing through.
    """

    __slots__ = ("_next_ns", "_paused_until_ns", "_slack_ns", "_step_ns", "blocked", "waited")

    def __init__(self, limit: ConnectLimit) -> None:
        if limit.burst < 1 or not limit.per_s > 0:
            raise ValueError(f"a limit of {limit.burst} at once and {limit.per_s} per second lets nothing through")
        self.blocked = False
        self.waited = 0
        self._step_ns = int(SECOND / limit.per_s)
        self._slack_ns = (limit.burst - 1) * self._step_ns
        self._next_ns = 0
        self._paused_until_ns = 0

    def pause_ns(self, now_ns: int) -> int | None:
        """How long the venue's refusals still hold every try back; None: until a restart. Asked before `turn_ns`, and after it."""
        if self.blocked:
            return None
        return max(0, self._paused_until_ns - now_ns)

    def turn_ns(self, now_ns: int) -> int:
        """Takes a turn and says how long to wait for it. The turn is used up, whether the try is then made or not."""
        # A virtual clock that each turn moves on by 1 / per_s and that may be ahead of time by the burst: a token bucket that
        # gives later turns to later callers, so that nobody starves.
        at_ns = max(self._next_ns, now_ns)
        self._next_ns = at_ns + self._step_ns
        wait_ns = max(0, at_ns - self._slack_ns - now_ns)
        self.waited += wait_ns > 0
        return wait_ns

    def refused(self, verdict: RestVerdict, now_ns: int) -> bool:
        """The venue refused a handshake. True where that ends all tries and was not known yet."""
        if verdict.result is RestResult.BLOCKED:
            news, self.blocked = not self.blocked, True
            return news
        default_s = _PAUSES_S.get(verdict.result)
        if default_s is not None:
            pause_s = default_s if verdict.retry_after_s is None else verdict.retry_after_s
            self._paused_until_ns = max(self._paused_until_ns, now_ns + int(pause_s * SECOND))
        return False
