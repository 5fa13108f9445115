"""A venue that speaks plain JSON, servers on loopback, and waiting for conditions: what the tests of ingest share."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import uvloop
from aiohttp import web
from websockets.asyncio.server import Server, ServerConnection, serve

from mpengine.config import IngestSettings
from mpengine.ingest.counts import Counts
from mpengine.ingest.feeds import Feed
from mpengine.ingest.intake import Intake
from mpengine.ingest.routing import Ready, Router
from mpengine.venues.base import (
    ConnectLimit,
    RestCall,
    RestResult,
    RestVerdict,
    Routed,
    Sampling,
    SocketPlan,
    StreamPlan,
    StreamStats,
    VenueCounters,
)
from shm.records import GapScope, Kind, Venue, decode, pack_event, pack_gap

T = TypeVar("T")

UNLIMITED = ConnectLimit(1000, 1000.0)
DEPTH = StreamPlan("depth", "BTC", Kind.DEPTH, 5, 30, True)
TRADES = StreamPlan("trades", "BTC", Kind.TRADE, 30, 60, False)
FORCED = StreamPlan("forced", None, Kind.LIQUIDATION, 120, None, False)


def plan(url: str = "ws://nowhere", name: str = "public", streams: Sequence[StreamPlan] = (DEPTH,), **more: Any) -> SocketPlan:
    """A socket plan of these streams."""
    return SocketPlan(name, url, tuple(streams), **more)


@dataclass
class FakeVenue:
    """Messages are `{"stream":…,"n":…}`; each becomes one trade record with seq n. `boom` in a payload makes it raise."""

    plans: list[SocketPlan] = field(default_factory=list)
    calls: list[RestCall] = field(default_factory=list)
    venue: Venue = Venue.BINANCE
    sampling: Sampling = "largest_1s"
    counters: VenueCounters = field(default_factory=VenueCounters)
    log: list[tuple[Any, ...]] = field(default_factory=list)
    say: dict[str, list[str]] = field(default_factory=dict)
    rest_snapshots: bool = True
    wire_snapshots: bool = False
    connect_limit: ConnectLimit = UNLIMITED
    budget: int = 1000
    overdue: list[str] = field(default_factory=list)
    ending: list[str] = field(default_factory=list)
    _stats: dict[str, dict[str, StreamStats]] = field(default_factory=dict)
    _events: list[Routed] = field(default_factory=list)
    _probes: dict[str, int] = field(default_factory=dict)

    def sockets(self) -> list[SocketPlan]:
        return self.plans

    def polls(self) -> list[RestCall]:
        return self.calls

    def snapshot_call(self, symbol: str) -> RestCall | None:
        return RestCall("depth", symbol, f"/depth?symbol={symbol}", 20) if self.rest_snapshots else None

    def snapshots_overdue(self, recv_ns: int) -> list[str]:
        drained, self.overdue = self.overdue, []
        return drained

    def replacements_wanted(self) -> list[str]:
        drained, self.ending = self.ending, []
        return drained

    def unlisted(self) -> frozenset[str]:
        return frozenset()

    def resubscribe(self, connection: str, stream: str, recv_ns: int) -> bool:
        if not self.budget:
            return False
        self.budget -= 1
        self.say.setdefault(connection, []).append(f"again {stream}")
        return True

    def opened(self, connection: str, recv_ns: int) -> None:
        self.log.append(("opened", connection))
        self._stats[connection] = {}

    def lost(self, connection: str, recv_ns: int, *, replaced: bool) -> None:
        self.log.append(("lost", connection, replaced))
        self._stats.pop(connection, None)
        if not replaced:
            self._events.append(Routed("BTC", pack_gap(self.venue, GapScope.BOOK, recv_ns)))

    def receive(self, connection: str, payload: bytes, recv_ns: int) -> None:
        self.counters.messages += 1
        if b"boom" in payload:
            raise RuntimeError("boom")
        if payload == b"pong":
            self._probes[connection] = recv_ns
            return
        try:
            message = json.loads(payload)
            stream, number = message["stream"], message["n"]
        except (ValueError, KeyError, TypeError):
            self.counters.refuse("not_json", payload)
            return
        stats = self._stats[connection].setdefault(stream, StreamStats())
        stats.messages += 1
        stats.last_recv_ns = recv_ns
        stats.last_venue_ns = recv_ns - 1_000_000
        symbol = message.get("symbol", "BTC")
        self._events.append(Routed(symbol, pack_event(Kind.TRADE, self.venue, 1, 0, recv_ns, recv_ns, number, 0, 1.0, 1.0)))

    def receive_rest(self, call: RestCall, status: int, body: bytes, recv_ns: int) -> None:
        self.log.append(("rest", call.name, call.symbol, status))
        if b"boom" in body:
            raise RuntimeError("boom")
        self._events.append(Routed("BTC", pack_event(Kind.OPEN_INTEREST, self.venue, 0, 0, recv_ns, recv_ns, 0, 0, 0.0, 5.0)))

    def judge(self, call: RestCall, status: int, headers: Mapping[str, str], body: bytes) -> RestVerdict:
        results = {200: RestResult.OK, 429: RestResult.LIMITED, 418: RestResult.BANNED, 451: RestResult.BLOCKED}
        results |= {403: RestResult.FIREWALL, 401: RestResult.UNAUTHORIZED, 400: RestResult.REFUSED, 404: RestResult.REFUSED}
        after = headers.get("retry-after")
        weight = headers.get("x-weight")
        result = results.get(status, RestResult.TRANSIENT)
        return RestVerdict(result, float(after) if after else None, int(weight) if weight else None)

    def events(self) -> list[Routed]:
        drained, self._events = self._events, []
        return drained

    def data_to_send(self, connection: str) -> list[str]:
        return self.say.pop(connection, [])

    def stats(self, connection: str) -> dict[str, StreamStats]:
        return self._stats.setdefault(connection, {})

    def probe_reply(self, connection: str) -> int:
        return self._probes.get(connection, 0)


def message(n: int, stream: str = "depth", **more: Any) -> str:
    """Wire text of a message."""
    return json.dumps({"stream": stream, "n": n, **more})


class Sink:
    """A router whose batches end here. `records` are (kind name, seq) in order of arrival."""

    def __init__(self, flush_bytes: int = 64) -> None:
        self.batches: list[Ready] = []
        self.router = Router(["BTC", "ETH"], flush_bytes, 1_000_000, self.batches.append)

    @property
    def records(self) -> list[tuple[str, int]]:
        """What arrived for BTC."""
        return [(d.kind.name, d.fields["seq"]) for b in self.batches if b.symbol == "BTC" for d in decode(b.body)]

    @property
    def numbers(self) -> list[int]:
        """Sequence numbers of the trades that arrived."""
        return [seq for kind, seq in self.records if kind == "TRADE"]


class Rig:
    """A feed of a fake venue with an intake into a sink."""

    def __init__(self, venue: FakeVenue, recorder: Any = None, **settings: Any) -> None:
        self.venue = venue
        self.feed = Feed(venue)
        self.counts = Counts()
        self.sink = Sink()
        self.settings = msgspec.structs.replace(IngestSettings(), **settings)
        self.intake = Intake(self.sink.router, recorder, self.counts, self._later, 1.0)

    def _later(self, delay_s: float, callback: Callable[[], None]) -> object:
        return asyncio.get_running_loop().call_later(delay_s, callback)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine as the process does: on uvloop, with a limit that no sound run comes near."""

    async def limited() -> T:
        async with asyncio.timeout(30):
            return await coroutine

    return uvloop.run(limited())


async def until(condition: Callable[[], object], what: str = "the condition", limit_s: float = 10.0) -> None:
    """Wait until the condition holds. Raises AssertionError after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def running(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that are cancelled at the end; what they raised before is raised then."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


@asynccontextmanager
async def socket_server(handler: Callable[[ServerConnection], Awaitable[None]], **more: Any) -> AsyncIterator[tuple[Server, str]]:
    """A websockets server on loopback and its address."""
    async with serve(handler, "127.0.0.1", 0, compression=None, **more) as server:
        port = server.sockets[0].getsockname()[1]
        yield server, f"ws://127.0.0.1:{port}/stream"


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def rest_server(answer: Answer) -> AsyncIterator[str]:
    """An HTTP server on loopback that answers every GET and POST with `answer`; its address."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer(request)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    app.router.add_post("/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
