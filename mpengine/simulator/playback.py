"""Plays a capture to whoever subscribed: at N times its own pace, with stamps if wanted, with its REST replies in their places.

Playback begins when every route that the capture needs has a subscriber (or on `start`). At a recorded depth snapshot it stands
still until a client has fetched it, for at most five seconds; with stamps it does so at every recorded reply, so that a client can
have them all in their places. What was not fetched in time is not waited for again until a client asks for it.

A request is answered with the newest recorded reply of its kind that has been reached. A snapshot that was given out before, and
with stamps any such reply, makes it wait (as long) for the next one; then a snapshot is given out again, other calls get 503:
with stamps each reply has one place. After the end the sockets stay open and silent, or are closed by option.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mpengine.simulator.bybit_wire import BybitSessions, parse_topic
from mpengine.simulator.capture import Contents, Recorded, capture_sessions, clock, contents, message_of, read, topic_key
from mpengine.simulator.market import Changes
from mpengine.simulator.wire import Delivery, Listeners, Reply, Session, VenueWire

if TYPE_CHECKING:
    from mpengine.simulator.server import SimulatorServer, Socket

CLOCK_NS: Final = 250_000_000
HOLD_S: Final = 5.0  # of wall time, for a snapshot to be fetched and for a request to be answered
RESUME_S: Final = 0.05  # after a snapshot went out, before the messages behind it do: the client has it first
TURN_S: Final = 0.02
FULL: Final = 2000  # messages waiting in a queue at which playback waits for the client
SETTLED_NS: Final = 200_000_000  # after a request on Bybit's socket: others may follow it
NORMAL_CLOSURE: Final = 1000
NOT_HERE: Final = Reply(404, b'{"code":-1000,"msg":"not in this capture"}', {"Content-Type": "application/json"})

CALLS: Final[dict[str, str]] = {
    "/fapi/v1/depth": "depth",
    "/fapi/v1/openInterest": "open_interest",
    "/fapi/v1/exchangeInfo": "instruments",
    "/futures/data/globalLongShortAccountRatio": "globalLongShortAccountRatio",
    "/futures/data/topLongShortAccountRatio": "topLongShortAccountRatio",
    "/futures/data/topLongShortPositionRatio": "topLongShortPositionRatio",
    "/v5/market/open-interest": "open_interest",
    "/v5/market/instruments-info": "instruments",
}
"""REST path -> name of the call in captures (`mpengine.venues.binance`, `mpengine.venues.bybit`)."""
SNAPSHOT: Final = "depth"


class CaptureVenue:
    """What venues have in common over a capture: what is published comes from the playback.

    `listeners`: their keys are those that `message_of` gives.
    """

    def __init__(self, listeners: Listeners) -> None:
        self.listeners: Final = listeners

    def closed(self, session: Session) -> None:
        """The socket is gone."""
        self.listeners.clear(session)

    def publish(self, changes: list[Changes]) -> Iterator[Delivery]:
        """Nothing: there is no market behind it."""
        return iter(())

    def rest(self, path: str, query: Mapping[str, str], client: str, now_ns: int, body: bytes = b"") -> Reply:
        """Calls that no capture holds."""
        return NOT_HERE

    def is_ready(self, routes: frozenset[str], now_ns: int) -> bool:
        """Whether each of these routes has somebody who listens. `now_ns` is monotonic."""
        return routes <= {key.partition("/")[0] for key in self.listeners.wanted()}

    def reply_to(self, query: Mapping[str, str], recorded: Recorded) -> bytes:
        """Body of a recorded reply for one who asks with `query`."""
        return recorded.line.payload


class CaptureBinance(CaptureVenue):
    """Binance's endpoints over a capture."""

    name: Final = "binance"
    ping_interval_s: float = 180.0
    pong_timeout_s: float = 600.0

    def __init__(self) -> None:
        self._sessions = capture_sessions()
        super().__init__(self._sessions.listeners)

    def open(self, path: str, query: Mapping[str, str], now_ns: int) -> Session | None:
        return self._sessions.open(path, query)

    def receive(self, session: Session, text: str, now_ns: int) -> None:
        self._sessions.receive(session, text, now_ns)

    def rest(self, path: str, query: Mapping[str, str], client: str, now_ns: int, body: bytes = b"") -> Reply:
        return Reply(200, b"{}", NOT_HERE.headers) if path == "/fapi/v1/ping" else NOT_HERE


class CaptureBybit(CaptureVenue):
    """Bybit's endpoint over a capture. Every topic that could exist can be subscribed; those that were not recorded stay silent."""

    name: Final = "bybit"
    ping_interval_s: float = 600.0
    pong_timeout_s: float = 600.0

    def __init__(self) -> None:
        super().__init__(Listeners(topic_key))
        self._sessions = BybitSessions(
            lambda topic: parse_topic(topic) is not None, self.listeners.add, self.listeners.discard
        )  # fmt: skip
        self._asked_ns = 0

    def open(self, path: str, query: Mapping[str, str], now_ns: int) -> Session | None:
        return self._sessions.open(path)

    def receive(self, session: Session, text: str, now_ns: int) -> None:
        version = self.listeners.version
        self._sessions.receive(session, text)
        if self.listeners.version != version:
            self._asked_ns = now_ns

    def closed(self, session: Session) -> None:
        super().closed(session)
        self._sessions.closed(session)

    def is_ready(self, routes: frozenset[str], now_ns: int) -> bool:
        """Topics are asked for by one request after the other, and a book's only snapshot must not come before the last of them."""
        return super().is_ready(routes, now_ns) and now_ns - self._asked_ns >= SETTLED_NS

    def reply_to(self, query: Mapping[str, str], recorded: Recorded) -> bytes:
        """A reply that was recorded for all symbols, as the venue gives it to one who asks for one of them."""
        wanted, payload = query.get("symbol"), recorded.line.payload
        if wanted is None or recorded.line.symbol is not None:
            return payload
        try:
            body = json.loads(payload)
            body["result"]["list"] = [row for row in body["result"]["list"] if row["symbol"] == wanted]
        except (ValueError, TypeError, KeyError):
            return payload
        return json.dumps(body, separators=(",", ":")).encode()


VENUES: Final[tuple[type[CaptureBinance | CaptureBybit], ...]] = (CaptureBinance, CaptureBybit)


Place = tuple[str, str, str | None]
"""(venue, call, symbol) of a REST reply."""


class CaptureSource:
    """One playback of some files. `venues`: those that the files hold, by name.

    `names`: (venue, its symbol) -> ours, for REST; others lose their USDT.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        speed: float = 1.0,
        stamps: bool = False,
        close_at_end: bool = False,
        names: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        """Reads the beginning of the files. Raises NotACapture, OSError, ValueError where they cannot be served."""
        self._paths = list(paths)
        self._speed = speed
        self._stamps = stamps
        self._close_at_end = close_at_end
        self._names = dict(names or {})
        self._contents: Contents = contents(self._paths)
        self.venues: Final[dict[str, CaptureBinance | CaptureBybit]] = {
            kind.name: kind() for kind in VENUES if kind.name in self._contents.venues
        }
        self._started = asyncio.Event()
        self._passed: dict[Place, Recorded] = {}
        self._fetched: set[int] = set()
        self._given: set[tuple[int, str | None]] = set()
        self._deaf: set[Place] = set()
        self._changed = asyncio.Event()
        self._replied = asyncio.Event()
        self._paused_at: Recorded | None = None
        self._at: Recorded | None = None
        self._clock_ns = 0
        self.ended = False

    def start(self) -> None:
        self._started.set()

    def state(self) -> dict[str, Any]:
        at = self._at
        return {
            "mode": "capture",
            "market_time_ns": self._contents.first_ns if at is None else at.recv_ns,
            "line": 0 if at is None else at.number,
            "speed": self._speed,
            "started": self._started.is_set(),
            "paused_at_line": None if self._paused_at is None else self._paused_at.number,
            "ended": self.ended,
            "needs": {venue: sorted(routes) for venue, routes in self._contents.routes.items()},
        }

    async def run(self, server: SimulatorServer) -> None:
        while not self._started.is_set() and not self._subscribed():
            await asyncio.sleep(0.01)
        self._started.set()
        await self._play(server)
        self.ended = True
        self._changed.set()
        if self._stamps and self._at is not None:
            self._tell(server, clock(self._at.recv_ns, self._at.number, end=True))
        if self._close_at_end:
            for socket in list(server.sockets.values()):
                socket.close(NORMAL_CLOSURE)

    async def answer(self, venue: VenueWire, path: str, query: Mapping[str, str], client: str, body: bytes = b"") -> Reply:
        call = CALLS.get(path)
        if call is None:
            return venue.rest(path, query, client, time.monotonic_ns())
        place = (venue.name, call, self._symbol(venue.name, query.get("symbol")))
        recorded = await self._reply_of(place)
        if recorded is None:
            return venue.rest(path, query, client, time.monotonic_ns())
        turn = recorded.number, place[2]
        headers = {"Content-Type": "application/json"}
        if self._stamps:
            if turn in self._given and call != SNAPSHOT:
                return Reply(503, b'{"code":-1000,"msg":"no further reply of this kind"}', headers)
            headers |= {"X-Recv-Ns": str(recorded.recv_ns), "X-Line": str(recorded.number)}
        self._given.add(turn)
        self._fetched.add(recorded.number)
        self._replied.set()
        return Reply(recorded.line.status or 200, self.venues[venue.name].reply_to(query, recorded), headers)

    async def _reply_of(self, place: Place) -> Recorded | None:
        """The newest reply of its kind that playback has reached; waits where there is none, or none that is new.

        One that was recorded for all symbols answers for each.
        """
        everybody = (*place[:2], None)
        self._deaf -= {place, everybody}
        deadline_s = time.monotonic() + HOLD_S
        only_new = self._stamps or place[1] == SNAPSHOT
        while True:
            found = self._passed.get(place) or self._passed.get(everybody)
            old = only_new and found is not None and (found.number, place[2]) in self._given
            left_s = deadline_s - time.monotonic()
            if (found is not None and not old) or left_s <= 0 or self.ended:
                return found
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left_s)
            except TimeoutError:
                continue

    def _symbol(self, venue: str, name: str | None) -> str | None:
        return None if name is None else self._names.get((venue, name), name.removesuffix("USDT"))

    def _subscribed(self) -> bool:
        """Whether every route that the capture needs has somebody who listens."""
        now_ns = time.monotonic_ns()
        return all(self.venues[venue].is_ready(routes, now_ns) for venue, routes in self._contents.routes.items())

    async def _play(self, server: SimulatorServer) -> None:
        pace = _Pace(self._contents.first_ns, self._speed)
        self._clock_ns = self._contents.first_ns // CLOCK_NS * CLOCK_NS + CLOCK_NS
        turn_s = time.monotonic()
        for recorded in read(self._paths):
            await self._wait_until(server, pace, recorded.recv_ns)
            self._at = recorded
            if recorded.line.direction == "rest" and recorded.line.call is not None:
                await self._pass_reply(server, pace, recorded)
            else:
                self._deliver(server, recorded)
            if time.monotonic() - turn_s > TURN_S:
                await asyncio.sleep(0)
                await self._wait_for_clients(server, pace)
                turn_s = time.monotonic()

    async def _wait_until(self, server: SimulatorServer, pace: _Pace, recv_ns: int) -> None:
        """Until a line is due; clock messages at each boundary on the way."""
        while self._clock_ns <= recv_ns:
            await pace.sleep_until(self._clock_ns)
            if self._stamps:
                self._tell(server, clock(self._clock_ns, 0 if self._at is None else self._at.number))
            self._clock_ns += CLOCK_NS
        await pace.sleep_until(recv_ns)

    def _deliver(self, server: SimulatorServer, recorded: Recorded) -> None:
        found = message_of(recorded, stamps=self._stamps)
        venue = self.venues.get(recorded.line.venue)  # None: one that the beginning of the files did not show
        if found is not None and venue is not None:
            key, message = found
            server.deliver(venue.name, message, venue.listeners.of(key))

    async def _pass_reply(self, server: SimulatorServer, pace: _Pace, recorded: Recorded) -> None:
        """A recorded reply is due: from now on it is given out."""
        line = recorded.line
        place = (line.venue, line.call or "", line.symbol)
        self._passed[place] = recorded
        waits = line.venue in self.venues and (line.call == SNAPSHOT or self._stamps) and place not in self._deaf
        if waits:
            # Whatever was before the reply can be used now: a client that merges its sockets asks for it only then.
            if self._stamps:
                self._tell(server, clock(recorded.recv_ns, recorded.number - 1))
            await self._wait_for_fetch(pace, recorded, place)
        else:
            self._changed.set()

    async def _wait_for_fetch(self, pace: _Pace, recorded: Recorded, place: Place) -> None:
        self._paused_at = recorded
        began_s = time.monotonic()
        self._changed.set()
        while recorded.number not in self._fetched:
            self._replied.clear()
            try:
                await asyncio.wait_for(self._replied.wait(), began_s + HOLD_S - time.monotonic())
            except TimeoutError:
                self._deaf.add(place)
                break
        if recorded.number in self._fetched:
            await asyncio.sleep(RESUME_S)
        self._paused_at = None
        pace.shift(time.monotonic() - began_s)

    async def _wait_for_clients(self, server: SimulatorServer, pace: _Pace) -> None:
        """A playback is not a market: it waits for slow clients, though not for ever."""
        began_s = time.monotonic()
        while slow := [socket for socket in server.sockets.values() if socket.waiting > FULL and not socket.muted]:
            if time.monotonic() - began_s > HOLD_S:
                _abort(slow)
            await asyncio.sleep(0.005)
        pace.shift(time.monotonic() - began_s)

    def _tell(self, server: SimulatorServer, text: bytes) -> None:
        for socket in server.sockets.values():
            socket.offer(text)


class _Pace:
    """Recorded time -> wall time."""

    def __init__(self, first_ns: int, speed: float) -> None:
        self._first_ns = first_ns
        self._speed = speed
        self._began_s = time.monotonic()

    def shift(self, seconds: float) -> None:
        """Playback stood still for so long."""
        self._began_s += seconds

    async def sleep_until(self, recv_ns: int) -> None:
        left_s = self._began_s + (recv_ns - self._first_ns) / 1e9 / self._speed - time.monotonic()
        # Shorter waits than the loop can measure would only make the playback late.
        if left_s > 0.001:
            await asyncio.sleep(left_s)


def _abort(sockets: Sequence[Socket]) -> None:
    for socket in sockets:
        socket.abort()
