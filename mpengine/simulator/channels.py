"""Channels of venues whose subscribers get something of their own first: a snapshot, a list, a replay. Pure.

A channel exists while somebody listens, makes each text once for all its listeners, and nothing for nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from mpengine.simulator.market import Changes
from mpengine.simulator.wire import Delivery, Listeners, Message, Session

MS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000

Step = Mapping[str, Changes]
"""What one step did to each symbol of the market."""


class Channel(Protocol):
    """One stream that somebody listens to."""

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        """Texts of one step, for those who were there before it. Called once per step, also where nobody was."""

    def first(self, now_ns: int) -> str | None:
        """What a new listener gets instead of the step's texts, asked for after `emit`; None: it gets the step's texts."""


class Clock:
    """When something is due that comes every `interval_ns`, on average, however long the steps of the market are."""

    def __init__(self, interval_ns: int) -> None:
        self._interval_ns = interval_ns
        self._due_ns = 0

    def due(self, now_ns: int) -> bool:
        """True at the first call and then once per interval."""
        if now_ns < self._due_ns:
            return False
        late_ns = (now_ns - self._due_ns) % self._interval_ns if self._due_ns else 0
        self._due_ns = now_ns - late_ns + self._interval_ns
        return True


class Channels:
    """Who listens to what. `create` makes the channel of a stream name that somebody subscribed to."""

    def __init__(self, create: Callable[[str], Channel]) -> None:
        self._create = create
        self._listeners = Listeners(lambda _, stream: stream)
        self._channels: dict[str, Channel] = {}
        self._joined: dict[str, dict[Session, None]] = {}
        self._seen_version = 0

    @property
    def wanted(self) -> list[str]:
        """Streams that somebody listens to."""
        return self._listeners.wanted()

    def join(self, session: Session, stream: str) -> None:
        """Subscribe; once more begins anew: with a snapshot where the channel has one."""
        self._listeners.add(session, stream)
        self._joined.setdefault(stream, {})[session] = None

    def leave(self, session: Session, stream: str) -> None:
        """Unsubscribe; a stream that is not subscribed is no error."""
        self._listeners.discard(session, stream)
        self._joined.get(stream, {}).pop(session, None)

    def clear(self, session: Session) -> None:
        """The socket is gone."""
        for stream in list(session.streams):
            self.leave(session, stream)

    def publish(self, changes: list[Changes]) -> Iterator[Delivery]:
        """Messages of one market step, stream by stream."""
        if self._listeners.version != self._seen_version:
            self._plan()
        if not self._channels:
            return
        step = {one.symbol.spec.symbol: one for one in changes}
        now_ns = changes[0].ts_ns
        joined, self._joined = self._joined, {}
        for stream, channel in self._channels.items():
            new = joined.get(stream, {})
            texts = list(channel.emit(step, now_ns))
            first = channel.first(now_ns) if new else None
            if first is not None:
                yield Message(stream, first), new
            if texts:
                sessions = self._listeners.of(stream)
                if first is not None:
                    sessions = [session for session in sessions if session not in new]
                if sessions:
                    for text in texts:
                        yield Message(stream, text), sessions

    def _plan(self) -> None:
        self._seen_version = self._listeners.version
        wanted = self._listeners.wanted()
        for stream in self._channels.keys() - set(wanted):
            del self._channels[stream]
        for stream in wanted:
            if stream not in self._channels:
                self._channels[stream] = self._create(stream)
