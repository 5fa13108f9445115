"""Is a stream, a socket, a venue alive? Decisions only (`spec: exchanges`, section 12). Pure: monotonic `now_ns` comes in.

A connection can be alive and deliver nothing, so each stream has its own watch. Silence is measured from changes of the message
counters that the venue module keeps, as this process sees them: the wall clock and the venue's clock play no part.

A connection carries many symbols, and cutting it is a hole in all of their books. What a silence calls for therefore depends on
whose it is (`StreamPlan.steady`) and on whether anything else still comes:

| silent beyond its limit | other things come on the socket | nothing comes at all |
|---|---|---|
| a steady stream | REPLACE by a successor; RESUBSCRIBE first where the plan says so | REOPEN: cut |
| a stream that may rest | RESUBSCRIBE, nothing else | nothing; on a socket without steady streams see `_gentle` |

Whatever is tried without success is tried again after twice the time, at last hourly (`Efforts`), over any number of connections.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from mpengine.ingest.backoff import doubling_s
from mpengine.schemas import FeedState
from mpengine.venues.base import SocketPlan, StreamPlan, StreamStats
from shm.records import Kind

SECOND: Final = 1_000_000_000
LIVE_S: Final = 30.0
STALE_S: Final = 120.0
WRONG_ROUTE_S: Final = 300.0
"""A venue-wide liquidation stream that is silent for so long while trades flow is served by another address."""
TRADES_FLOW_S: Final = 60.0
RARELY_S: Final = 3600.0
"""Longest time between two tries; a stream that needed none for so long begins its series anew."""
PACE_S: Final = 30.0
"""New subscriptions of resting streams on one socket are so far apart: 240 requests an hour, half of what the strictest venue takes
on a connection (480), and the books that lost their chain need the other half."""
QUOTES: Final = frozenset({Kind.DEPTH, Kind.TOUCH, Kind.MARK})
"""What a venue sends whether or not somebody trades."""
SOCKET_SILENT: Final = 0.5
"""A socket is silent when nothing came for this share of the limit that one of its steady streams has reached: when a socket dies,
the last words of its streams are not all equally old."""


class Action(Enum):
    """What silence calls for. REPLACE: a successor takes over as soon as it delivers. REOPEN: the connection is cut.

    WRONG_ROUTE is a REPLACE that says why, as an error.
    """

    WARN = "warn"
    RESUBSCRIBE = "resubscribe"
    REPLACE = "replace"
    REOPEN = "reopen"
    WRONG_ROUTE = "wrong route"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class Finding:
    """A change that a watch found. `silent_s`: for how long nothing came (RECOVERED: before this message). `steady`: the silence of
    this stream is a fault; of any other it is a remark."""

    stream: str
    action: Action
    silent_s: float
    steady: bool


class Efforts:
    """What was tried against the silence of one plan's streams. Outlives its connections: a new one is no first try."""

    __slots__ = ("_due_ns", "_heard", "_pace_ns", "_scale", "_tries")

    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale
        self._tries: dict[str, int] = {}
        self._due_ns: dict[str, int] = {}
        self._heard: set[str] = set()
        self._pace_ns = 0

    def due_ns(self, what: str) -> int:
        """When the next try may be made; 0 before the first."""
        return self._due_ns.get(what, 0)

    def tried(self, what: str, now_ns: int, first_s: float) -> None:
        """A try is made; the next one not before `first_s`, doubled with each try in a row."""
        if now_ns >= self.due_ns(what) + self._ns(RARELY_S):
            self.forget(what)
        tries = self._tries[what] = self._tries.get(what, 0) + 1
        self._due_ns[what] = now_ns + self._ns(doubling_s(tries, first_s, RARELY_S))

    def forget(self, what: str) -> None:
        """A success: the next try, should one be needed, is the first."""
        self._tries.pop(what, None)
        self._due_ns.pop(what, None)

    def paced(self, now_ns: int) -> bool:
        """Whether a resting stream may be subscribed anew now."""
        return now_ns >= self._pace_ns

    def pace(self, now_ns: int) -> None:
        """One is."""
        self._pace_ns = now_ns + self._ns(PACE_S)

    def hear(self, stream: str) -> None:
        """The stream has delivered."""
        self._heard.add(stream)

    def heard(self, stream: str) -> bool:
        """Whether the stream has ever delivered, on whatever connection."""
        return stream in self._heard

    def _ns(self, seconds: float) -> int:
        return round(seconds * self._scale * SECOND)


class _StreamWatch:
    __slots__ = ("cut", "errors", "messages", "plan", "resubscribed", "seen_ns", "told", "warned")

    def __init__(self, plan: StreamPlan, opened_ns: int) -> None:
        self.plan = plan
        self.messages = 0
        self.errors = 0
        self.seen_ns = opened_ns
        self.warned = False
        self.resubscribed = False
        self.cut = False
        self.told = False


class SocketWatch:
    """Watches the streams of one connection. One per connection: after a reopen the next begins anew, but for its `efforts`."""

    __slots__ = ("_efforts", "_scale", "_streams")

    def __init__(self, plan: SocketPlan, opened_ns: int, scale: float, efforts: Efforts | None = None) -> None:
        """`efforts`: those of the plan, the same for all its connections; None: none were made yet."""
        self._streams = {stream.name: _StreamWatch(stream, opened_ns) for stream in plan.streams}
        self._scale = scale
        self._efforts = Efforts(scale) if efforts is None else efforts

    def look(
        self, stats: Mapping[str, StreamStats], now_ns: int, *, trades_flow: bool, unlisted: Container[str] = ()
    ) -> list[Finding]:
        """Take the counters in; what changed since the last look. Each silence warns once and cuts once.

        `trades_flow`: trades of the same venue arrive (on whatever socket). `unlisted`: streams that only warn, since the venue has
        nothing to deliver on them: their neighbours must not lose the socket for it.
        """
        findings, silent = [], []
        for watch in self._streams.values():
            silent_s = (now_ns - watch.seen_ns) / SECOND
            if not self._take_in(watch, stats.get(watch.plan.name), now_ns):
                silent.append((watch, silent_s))
            elif watch.told:
                watch.told = watch.warned = watch.resubscribed = watch.cut = False
                findings.append(self._found(watch, Action.RECOVERED, silent_s))
        socket_s = min(((now_ns - watch.seen_ns) / SECOND for watch in self._streams.values()), default=0.0)
        chosen, gentle = self._gentle([one for one in silent if one[0].plan.name not in unlisted], socket_s, now_ns) or (None, None)
        for watch, silent_s in silent:
            limit_s = None if watch.plan.name in unlisted else watch.plan.act_s
            action = gentle if watch is chosen else self._judge(watch, silent_s, limit_s, socket_s, trades_flow, now_ns)
            if action is not None:
                watch.told = True
                findings.append(self._found(watch, action, silent_s))
        return findings

    def age_s(self, stream: str, now_ns: int) -> float:
        """Seconds since the last message of a stream, or since the connection opened. Raises KeyError for an unknown one."""
        return (now_ns - self._streams[stream].seen_ns) / SECOND

    def heard(self, stream: str) -> bool:
        """Whether the stream has delivered on this connection. Raises KeyError for an unknown one."""
        return self._streams[stream].messages > 0

    def state(self, stream: str, now_ns: int, connection: FeedState) -> FeedState:
        """State of a stream by its own limits; one without limits may be silent, so it is as well as its connection.

        One that may rest is never DOWN while its connection delivers, once it was heard.
        """
        watch = self._streams[stream]
        plan, age_s = watch.plan, self.age_s(stream, now_ns)
        if plan.warn_s is None and plan.act_s is None:
            return connection
        if age_s < self._scale * (plan.warn_s or LIVE_S):
            return "LIVE" if watch.messages or watch.errors else connection
        if age_s < self._scale * (plan.act_s or STALE_S):
            return "STALE"
        rests = not plan.steady and self._efforts.heard(stream) and connection in ("LIVE", "STALE")
        return "STALE" if rests else "DOWN"

    def _take_in(self, watch: _StreamWatch, current: StreamStats | None, now_ns: int) -> bool:
        """Whether the stream has delivered since the last look. An unreadable message proves the stream, not the reader: it is
        counted elsewhere."""
        if current is None or (current.messages, current.errors) == (watch.messages, watch.errors):
            return False
        watch.messages, watch.errors, watch.seen_ns = current.messages, current.errors, now_ns
        self._efforts.hear(watch.plan.name)
        if watch.plan.steady:
            self._efforts.forget(watch.plan.name)
        return True

    @staticmethod
    def _found(watch: _StreamWatch, action: Action, silent_s: float) -> Finding:
        return Finding(watch.plan.name, action, silent_s, watch.plan.steady)

    def _gentle(self, silent: list[tuple[_StreamWatch, float]], socket_s: float, now_ns: int) -> tuple[_StreamWatch, Action] | None:
        """What is done about streams that may rest, one at a time: the one that waits longest is subscribed anew.

        Where nothing steady is on the socket and nothing comes at all for twice the shortest limit, it is cut if quotes
        are missing. Without quotes nothing would have come for sure: a successor is tried, and there is no hole.
        """
        resting = [
            (watch, silent_s, self._scale * watch.plan.act_s)
            for watch, silent_s in silent
            if not watch.plan.steady and watch.plan.act_s is not None
        ]
        if not resting:
            return None
        efforts, judged = self._efforts, any(watch.plan.steady and watch.plan.act_s for watch in self._streams.values())
        first, _, least_s = min(resting, key=lambda one: one[2])
        if not judged and socket_s >= 2 * least_s and now_ns >= efforts.due_ns(_SOCKET):
            efforts.tried(_SOCKET, now_ns, 2 * least_s / self._scale)
            return first, Action.REOPEN if any(watch.plan.kind in QUOTES for watch, _, _ in resting) else Action.REPLACE
        waiting = [
            (max(efforts.due_ns(watch.plan.name), watch.seen_ns + round(limit_s * SECOND)), watch, limit_s)
            for watch, silent_s, limit_s in resting
            if silent_s >= limit_s and not (judged and socket_s >= limit_s * SOCKET_SILENT)
        ]
        due_ns, watch, limit_s = min(waiting, key=lambda one: one[0], default=(now_ns + 1, first, least_s))
        if now_ns < due_ns or not efforts.paced(now_ns):
            return None
        efforts.pace(now_ns)
        efforts.tried(watch.plan.name, now_ns, limit_s / self._scale)
        watch.resubscribed = True
        return watch, Action.RESUBSCRIBE

    def _judge(
        self, watch: _StreamWatch, silent_s: float, limit_s: float | None, socket_s: float, trades_flow: bool, now_ns: int
    ) -> Action | None:
        plan, scale = watch.plan, self._scale
        if watch.cut:
            return None
        if is_route_canary(plan) and silent_s >= scale * WRONG_ROUTE_S and trades_flow:
            watch.cut = True
            return Action.WRONG_ROUTE
        if plan.steady and limit_s is not None and (action := self._strict(watch, silent_s, scale * limit_s, socket_s, now_ns)):
            return action
        if plan.warn_s is not None and silent_s >= scale * plan.warn_s and not (watch.warned or watch.resubscribed):
            watch.warned = True
            return Action.WARN
        return None

    def _strict(self, watch: _StreamWatch, silent_s: float, act_s: float, socket_s: float, now_ns: int) -> Action | None:
        """What is done about a steady stream that is silent."""
        name, gentle = watch.plan.name, watch.plan.act == "resubscribe"
        limit_s = act_s * (2 if gentle else 1)
        if silent_s >= limit_s and socket_s >= limit_s * SOCKET_SILENT:
            watch.cut = True
            return Action.REOPEN
        if silent_s >= limit_s and now_ns >= self._efforts.due_ns(name):
            self._efforts.tried(name, now_ns, limit_s / self._scale)
            return Action.REPLACE
        if gentle and act_s <= silent_s < limit_s and not watch.resubscribed:
            watch.resubscribed = True
            return Action.RESUBSCRIBE
        return None


_SOCKET: Final = ""
"""Name of the efforts for a whole socket; no stream is called so."""


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
