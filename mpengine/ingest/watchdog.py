"""Is a stream, a socket, a venue alive? Decisions only (`spec: exchanges`, section 12). Pure: monotonic `now_ns` comes in.

A connection can be alive and deliver nothing, so each stream has its own watch. Silence is measured from changes of the message
counters that the venue module keeps, as this process sees them: the wall clock and the venue's clock play no part.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mpengine.schemas import FeedState
from mpengine.venues.base import SocketPlan, StreamPlan, StreamStats
from shm.records import Kind

SECOND: Final = 1_000_000_000
LIVE_S: Final = 30.0
STALE_S: Final = 120.0
WRONG_ROUTE_S: Final = 300.0
"""A venue-wide liquidation stream that is silent for so long while trades flow is served by another address."""
TRADES_FLOW_S: Final = 60.0


class Action(Enum):
    """What silence calls for. WRONG_ROUTE is a REOPEN that says why, as an error."""

    WARN = "warn"
    RESUBSCRIBE = "resubscribe"
    REOPEN = "reopen"
    WRONG_ROUTE = "wrong route"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class Finding:
    """A change that a watch found. `silent_s`: for how long nothing came (RECOVERED: before this message)."""

    stream: str
    action: Action
    silent_s: float


class _StreamWatch:
    __slots__ = ("acted", "errors", "messages", "plan", "resubscribed", "seen_ns", "warned")

    def __init__(self, plan: StreamPlan, opened_ns: int) -> None:
        self.plan = plan
        self.messages = 0
        self.errors = 0
        self.seen_ns = opened_ns
        self.warned = False
        self.acted = False
        self.resubscribed = False


class SocketWatch:
    """Watches the streams of one connection. One per connection: after a reopen the next begins anew."""

    __slots__ = ("_scale", "_streams")

    def __init__(self, plan: SocketPlan, opened_ns: int, scale: float) -> None:
        self._streams = {stream.name: _StreamWatch(stream, opened_ns) for stream in plan.streams}
        self._scale = scale

    def look(
        self, stats: Mapping[str, StreamStats], now_ns: int, *, trades_flow: bool, unlisted: Container[str] = ()
    ) -> list[Finding]:
        """Take the counters in; what changed since the last look. Each silence warns once, resubscribes once and reopens once.

        `trades_flow`: trades of the same venue arrive (on whatever socket). `unlisted`: streams that only warn, since the venue has
        nothing to deliver on them: their neighbours must not lose the socket for it.
        """
        findings = []
        for watch in self._streams.values():
            silent_s = (now_ns - watch.seen_ns) / SECOND
            current = stats.get(watch.plan.name)
            if current is not None and (current.messages, current.errors) != (watch.messages, watch.errors):
                # An unreadable message proves the stream, not the reader: it is counted elsewhere.
                watch.messages, watch.errors, watch.seen_ns = current.messages, current.errors, now_ns
                if watch.warned or watch.acted or watch.resubscribed:
                    watch.warned = watch.acted = watch.resubscribed = False
                    findings.append(Finding(watch.plan.name, Action.RECOVERED, silent_s))
            elif action := self._judge(watch, silent_s, trades_flow, watch.plan.name not in unlisted):
                findings.append(Finding(watch.plan.name, action, silent_s))
        return findings

    def age_s(self, stream: str, now_ns: int) -> float:
        """Seconds since the last message of a stream, or since the connection opened. Raises KeyError for an unknown one."""
        return (now_ns - self._streams[stream].seen_ns) / SECOND

    def heard(self, stream: str) -> bool:
        """Whether the stream has delivered on this connection. Raises KeyError for an unknown one."""
        return self._streams[stream].messages > 0

    def state(self, stream: str, now_ns: int, connection: FeedState) -> FeedState:
        """State of a stream by its own limits; one without limits may be silent, so it is as well as its connection."""
        watch = self._streams[stream]
        plan, age_s = watch.plan, self.age_s(stream, now_ns)
        if plan.warn_s is None and plan.act_s is None:
            return connection
        if age_s < self._scale * (plan.warn_s or LIVE_S):
            return "LIVE" if watch.messages or watch.errors else connection
        return "STALE" if age_s < self._scale * (plan.act_s or STALE_S) else "DOWN"

    def _judge(self, watch: _StreamWatch, silent_s: float, trades_flow: bool, listed: bool) -> Action | None:
        plan, scale = watch.plan, self._scale
        act_s = plan.act_s if listed else None
        if watch.acted:
            return None
        if is_route_canary(plan) and silent_s >= scale * WRONG_ROUTE_S and trades_flow:
            watch.acted = True
            return Action.WRONG_ROUTE
        gentle = plan.act == "resubscribe"
        if act_s is not None and silent_s >= scale * act_s * (2 if gentle else 1):
            watch.acted = True
            return Action.REOPEN
        if act_s is not None and gentle and silent_s >= scale * act_s and not watch.resubscribed:
            watch.resubscribed = True
            return Action.RESUBSCRIBE
        if plan.warn_s is not None and silent_s >= scale * plan.warn_s and not (watch.warned or watch.resubscribed):
            watch.warned = True
            return Action.WARN
        return None


def is_route_canary(plan: StreamPlan) -> bool:
    """A venue-wide liquidation stream without a limit of its own: its silence says something only while trades flow."""
    return plan.kind is Kind.LIQUIDATION and plan.symbol is None and plan.act_s is None


def trades_flow(watches: Iterable[tuple[SocketPlan, SocketWatch]], now_ns: int, scale: float) -> bool:
    """Whether any trade stream of a venue delivered within the last minute."""
    return any(
        stream.kind is Kind.TRADE and watch.heard(stream.name) and watch.age_s(stream.name, now_ns) < scale * TRADES_FLOW_S
        for plan, watch in watches
        for stream in plan.streams
    )


def feed_state(age_s: float | None, *, banned: bool = False, blocked: bool = False) -> FeedState:
    """State of a venue from the age of its last message of any kind; None: there was none yet."""
    if blocked:
        return "GEO_BLOCKED"
    if banned:
        return "BANNED"
    if age_s is None or age_s >= STALE_S:
        return "DOWN"
    return "LIVE" if age_s < LIVE_S else "STALE"
