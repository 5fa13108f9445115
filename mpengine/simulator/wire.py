"""What the server expects of a venue: sessions, messages and replies. Pure, and the same for every exchange.

A venue wire takes market changes and gives texts; it opens nothing and waits for nothing. The next venue is one more file with a
class of this shape over the same `Market`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

from mpengine.simulator.market import Changes

ABNORMAL: Final = 1006


class Message:
    """One message of a stream, encoded once however many sockets it goes to. `data` is the JSON of the payload.

    `wrapped`: the combined form, where it is not simply {"stream":...,"data":...} (a recorded or stamped message).
    """

    __slots__ = ("_raw", "_wrapped", "data", "stream")

    def __init__(self, stream: str, data: str, wrapped: bytes | None = None) -> None:
        self.stream = stream
        self.data = data
        self._raw: bytes | None = None
        self._wrapped = wrapped

    def text(self, combined: bool) -> bytes:
        """Wire bytes: the payload alone, or in the combined wrapper."""
        if not combined:
            if self._raw is None:
                self._raw = self.data.encode()
            return self._raw
        if self._wrapped is None:
            self._wrapped = f'{{"stream":"{self.stream}","data":{self.data}}}'.encode()
        return self._wrapped


@dataclass(slots=True, eq=False)
class Session:
    """One client socket as its venue sees it. `close_code`: the venue wants it closed. `outbox`: replies to send, in order.

    A close code of ABNORMAL is a cut without a goodbye. `silence_limit_s`: a socket that was sent nothing for so long is closed.
    """

    route: str
    combined: bool
    streams: dict[str, None] = field(default_factory=dict)
    outbox: list[str] = field(default_factory=list)
    close_code: int | None = None
    recent_ns: list[int] = field(default_factory=list)
    silence_limit_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Reply:
    """A REST answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


Delivery = tuple[Message, Iterable[Session]]


class Listeners:
    """Who gets which stream. `key` maps a subscribed name to what publishers look up (None: nobody will ever publish it)."""

    def __init__(self, key: Callable[[Session, str], str | None]) -> None:
        self._key = key
        self._sessions: dict[str, dict[Session, int]] = {}
        self.version = 0

    def add(self, session: Session, stream: str) -> None:
        """Subscribe; a second time is no change."""
        if stream in session.streams:
            return
        session.streams[stream] = None
        key = self._key(session, stream)
        if key is not None:
            sessions = self._sessions.setdefault(key, {})
            sessions[session] = sessions.get(session, 0) + 1
            self.version += 1

    def discard(self, session: Session, stream: str) -> None:
        """Unsubscribe; a name that is not subscribed is no error."""
        if stream not in session.streams:
            return
        del session.streams[stream]
        key = self._key(session, stream)
        if key is None:
            return
        sessions = self._sessions[key]
        # Two names may share a key (a capture's stream family): the session stays until the last of them goes.
        sessions[session] -= 1
        if not sessions[session]:
            del sessions[session]
            if not sessions:
                del self._sessions[key]
        self.version += 1

    def clear(self, session: Session) -> None:
        """The socket is gone."""
        for stream in list(session.streams):
            self.discard(session, stream)

    def of(self, key: str) -> list[Session]:
        """Sessions to deliver to, oldest subscription first."""
        return list(self._sessions.get(key, ()))

    def wanted(self) -> list[str]:
        """Everything that somebody listens to."""
        return list(self._sessions)


class VenueWire(Protocol):
    """One exchange over the synthetic market."""

    @property
    def name(self) -> str:
        """Prefix of its URLs."""

    @property
    def ping_interval_s(self) -> float:
        """Between protocol pings of the server."""

    @property
    def pong_timeout_s(self) -> float:
        """Silence of the client after which it is cut."""

    def open(self, path: str, query: Mapping[str, str], now_ns: int) -> Session | None:
        """A socket to `path` (below the venue's prefix); None: the venue has no such endpoint (HTTP 404)."""

    def receive(self, session: Session, text: str, now_ns: int) -> None:
        """A text message of a client; replies go to the session's outbox. `now_ns` is monotonic."""

    def closed(self, session: Session) -> None:
        """The socket is gone."""

    def publish(self, changes: list[Changes]) -> Iterable[Delivery]:
        """Messages of one market step, in order."""

    def rest(self, path: str, query: Mapping[str, str], client: str, now_ns: int, body: bytes = b"") -> Reply:
        """Answer of a GET, or of a POST with its `body`. `client`: address that weights are counted for. `now_ns` is monotonic."""


@runtime_checkable
class Restarting(Protocol):
    """A venue whose service can begin anew while the connections stay."""

    def restart(self) -> None:
        """Every book that is followed begins anew with the next step of the market."""


@runtime_checkable
class Announcing(Protocol):
    """A venue that tells its clients before it closes their connections."""

    def announce_upgrade(self) -> None:
        """Every open socket gets the notice with the next step of the market."""
