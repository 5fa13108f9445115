"""The simulator's sockets: one port on loopback, venues under prefixes, market or capture behind them.

    ws://127.0.0.1:8898/binance/public/stream?streams=...     http://127.0.0.1:8898/binance/fapi/v1/depth?symbol=BTCUSDT
    http://127.0.0.1:8898/control/{state,truth,faults,start,liquidate}

Every socket has a bounded queue and a writer of its own: a client that does not read is cut, the market never waits for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import socket as sockets
import struct
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from aiohttp import WSMsgType, web

from mpengine.simulator.faults import REST, Fault, FaultTable, garbage
from mpengine.simulator.market import Market
from mpengine.simulator.wire import ABNORMAL, Announcing, Message, Reply, Restarting, Session, VenueWire
from shm.records import PositionSide

QUEUE_MESSAGES: Final = 20_000
QUEUE_BYTES: Final = 16 << 20
TURN_S: Final = 0.02  # market work before other tasks of the loop get their turn
SLIP_S: Final = 1.0  # a market further behind than this does not catch up
HANG_S: Final = 60.0  # a REST request that a fault leaves without an answer
CLIENT_MESSAGE_BYTES: Final = 1 << 16
NORMAL_CLOSURE: Final = 1000
GOING_AWAY: Final = 1001

log = logging.getLogger("mpengine.simulator")


class Socket:
    """One client connection: the venue's session, a bounded queue and a writer."""

    def __init__(
        self, number: int, venue: VenueWire, session: Session, ws: web.WebSocketResponse, transport: asyncio.Transport
    ) -> None:
        self.number = number
        self.venue = venue
        self.session = session
        self.muted = False
        self.sent = 0
        self.opened_s = self.answered_s = self._told_s = time.monotonic()
        self._ws = ws
        self._transport = transport
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._close_code: int | None = None

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return len(self._queue)

    def offer(self, text: bytes) -> None:
        """Queue a message; a client that has let its queue fill up is cut instead."""
        if self.muted:
            return
        self._queue.append(text)
        self._bytes += len(text)
        if len(self._queue) > QUEUE_MESSAGES or self._bytes > QUEUE_BYTES:
            log.warning("client %d does not read: cut with %d messages waiting", self.number, len(self._queue))
            self.abort()
            return
        self._wake.set()

    def mute(self) -> None:
        """Half open from now on: nothing is sent, answered or noticed."""
        self.muted = True
        self._queue.clear()

    def abort(self) -> None:
        """Cut the connection without a goodbye."""
        self.muted = True
        self._queue.clear()
        self._transport.abort()

    def close(self, code: int) -> None:
        """Say goodbye in order, after what is queued."""
        self._close_code = code
        self._wake.set()

    async def write(self) -> None:
        """Send what is queued, for the life of the socket."""
        ws, queue = self._ws, self._queue
        with suppress(ConnectionError, RuntimeError):
            while not ws.closed:
                await self._wake.wait()
                self._wake.clear()
                while queue:
                    text = queue.popleft()
                    self._bytes -= len(text)
                    await ws.send_frame(text, WSMsgType.TEXT)
                    self.sent += 1
                    self._told_s = time.monotonic()
                if self._close_code is not None and not self.muted:
                    await ws.close(code=self._close_code)

    async def read(self) -> None:
        """Hand the client's messages to the venue until the connection ends."""
        while True:
            message = await self._ws.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                if message.type is WSMsgType.CLOSE and not self.muted:
                    # NOTE: not ws.close(): it would wait for the close frame that has just come.
                    await self._ws.send_frame(struct.pack("!H", NORMAL_CLOSURE), WSMsgType.CLOSE)
                    self._transport.close()
                return
            if self.muted:
                continue
            self.answered_s = time.monotonic()
            if message.type is WSMsgType.PING:
                await self._ws.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                self.venue.receive(self.session, message.data, time.monotonic_ns())
                self.flush()

    def flush(self) -> None:
        """Queue the venue's replies and do what it asked for."""
        for text in self.session.outbox:
            self.offer(text.encode())
        self.session.outbox.clear()
        if self.session.close_code == ABNORMAL:
            self.abort()
        elif self.session.close_code is not None:
            self.close(self.session.close_code)

    async def keep_alive(self, life_s: float | None) -> None:
        """The venue's pings; a client that does not answer, or has lived its life, is disconnected."""
        while not self._ws.closed:
            interval_s = self.venue.ping_interval_s
            age_s = time.monotonic() - self.opened_s
            await asyncio.sleep(interval_s if life_s is None else max(0.0, min(interval_s, life_s - age_s)))
            if self.muted:
                return
            now_s = time.monotonic()
            if now_s - self.answered_s > self.venue.pong_timeout_s or (life_s is not None and now_s - self.opened_s >= life_s):
                self.abort()
                return
            with suppress(ConnectionError, RuntimeError):
                await self._ws.ping()

    async def end_silence(self) -> None:
        """Close the socket when it was sent nothing for as long as its venue allows; without a limit there is nothing to do."""
        while math.isfinite(self.session.silence_limit_s):
            left_s = self._told_s + self.session.silence_limit_s - time.monotonic()
            if left_s <= 0:
                self.close(NORMAL_CLOSURE)
                return
            await asyncio.sleep(left_s)


class Source(Protocol):
    """What is played: the synthetic market or a capture."""

    async def run(self, server: SimulatorServer) -> None:
        """Play until cancelled (or to the end of a capture)."""

    def start(self) -> None:
        """Operator's start: do not wait for clients."""

    async def answer(self, venue: VenueWire, path: str, query: Mapping[str, str], client: str, body: bytes = b"") -> Reply:
        """Reply to a GET or POST below a venue's prefix."""

    def state(self) -> dict[str, Any]:
        """For /control/state."""


class MarketSource:
    """The synthetic market at `speed` times wall time.

    After a pause of the process it does not catch up. At the pace of the clock it leaves out what it missed, since its times are
    the clock's; a faster market is not at the clock's time anyway and goes on where it was, as it does when a machine is too slow.
    """

    def __init__(self, market: Market, speed: float) -> None:
        self.market: Final = market
        self.steps = 0
        self.slips = 0
        self._speed = speed

    async def run(self, server: SimulatorServer) -> None:
        market = self.market
        began_s, began_ns = time.monotonic(), market.now_ns
        while True:
            due_ns = began_ns + int((time.monotonic() - began_s) * self._speed * 1e9)
            missed_ns = due_ns - market.now_ns - int(SLIP_S * self._speed * 1e9)
            if missed_ns > 0:
                self.slips += 1
                if self._speed <= 1.0:
                    market.skip(due_ns - market.step_ns)
                else:
                    began_ns, due_ns = began_ns - missed_ns, due_ns - missed_ns
            turn_s = time.monotonic()
            for changes in market.step(due_ns):
                self.steps += 1
                for venue in server.venues.values():
                    for message, sessions in venue.publish(changes):
                        server.deliver(venue.name, message, sessions)
                if time.monotonic() - turn_s > TURN_S:
                    await asyncio.sleep(0)
                    turn_s = time.monotonic()
            left_s = (market.now_ns + market.step_ns - began_ns) / 1e9 / self._speed - (time.monotonic() - began_s)
            await asyncio.sleep(max(0.0, left_s))

    def start(self) -> None:
        """The market always runs."""

    async def answer(self, venue: VenueWire, path: str, query: Mapping[str, str], client: str, body: bytes = b"") -> Reply:
        return venue.rest(path, query, client, time.monotonic_ns(), body)

    def state(self) -> dict[str, Any]:
        return {
            "mode": "market",
            "market_time_ns": self.market.now_ns,
            "speed": self._speed,
            "steps": self.steps,
            "slips": self.slips,
            "symbols": {
                symbol: {
                    "fair": market.path.value,
                    "mark": market.mark_price,
                    "regime": market.path.regime.name.lower(),
                    "open_interest": market.open_interest,
                    "liquidations": market.liquidation_count,
                }
                for symbol, market in self.market.symbols.items()
            },
        }


class SimulatorServer:
    """The exchange emulator on one port. `market`: for the truth and for forced moves; None with a capture."""

    def __init__(
        self,
        venues: Sequence[VenueWire],
        source: Source,
        faults: FaultTable,
        *,
        market: Market | None = None,
        life_s: float | None = None,
    ) -> None:
        self.venues: Final = {venue.name: venue for venue in venues}
        self.source: Final = source
        self.faults: Final = faults
        self.sockets: Final[dict[Session, Socket]] = {}
        self.delivered = 0
        self.requests = 0
        self.market: Final = market
        self._life_s = life_s
        self._opened = 0
        self._runner: web.AppRunner | None = None
        self._playing: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and play. Returns the port. Raises ValueError for an address that is not loopback, OSError where it is taken."""
        listening = _listen(host, port)
        app = web.Application(client_max_size=CLIENT_MESSAGE_BYTES)
        app.router.add_get("/control/state", self._get_state)
        app.router.add_get("/control/truth", self._get_truth)
        app.router.add_get("/control/faults", self._get_faults)
        app.router.add_post("/control/faults", self._post_fault)
        app.router.add_delete("/control/faults", self._delete_faults)
        app.router.add_post("/control/start", self._post_start)
        app.router.add_post("/control/liquidate", self._post_liquidate)
        app.router.add_get("/{venue}/{path:.*}", self._get)
        app.router.add_post("/{venue}/{path:.*}", self._post)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()
        self._playing = asyncio.create_task(self.source.run(self))
        return int(listening.getsockname()[1])

    async def wait(self) -> None:
        """Until the source ends; raises what it raised."""
        if self._playing is not None:
            await self._playing

    async def stop(self) -> None:
        """Cut everybody and free the port."""
        if self._playing is not None:
            self._playing.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._playing
        for socket in list(self.sockets.values()):
            socket.close(GOING_AWAY)
        if self._runner is not None:
            await self._runner.cleanup()

    def deliver(self, venue: str, message: Message, sessions: Iterable[Session]) -> None:
        """Queue a message for the sockets of these sessions, through the faults."""
        if self.faults.idle:
            for session in sessions:
                socket = self.sockets.get(session)
                if socket is not None:
                    socket.offer(message.text(session.combined))
                    self.delivered += 1
            return
        now_ns, asked = time.monotonic_ns(), False
        for session in sessions:
            socket = self.sockets.get(session)
            if socket is None:
                continue
            if not asked and self.faults.lost_for_all(venue, session.route, message.stream, now_ns):
                return
            asked = True
            text = message.text(session.combined)
            for delay_s, piece in self.faults.on_message(venue, session.route, message.stream, text, socket.number, now_ns):
                if delay_s > 0:
                    asyncio.get_running_loop().call_later(delay_s, socket.offer, piece)
                else:
                    socket.offer(piece)
                self.delivered += 1

    async def _get(self, request: web.Request) -> web.StreamResponse:
        venue = self.venues.get(request.match_info["venue"])
        if venue is None:
            return web.json_response({"error": "unknown venue"}, status=404)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._open_socket(request, venue)
        return await self._answer(request, venue)

    async def _post(self, request: web.Request) -> web.StreamResponse:
        venue = self.venues.get(request.match_info["venue"])
        if venue is None:
            return web.json_response({"error": "unknown venue"}, status=404)
        return await self._answer(request, venue)

    async def _open_socket(self, request: web.Request, venue: VenueWire) -> web.StreamResponse:
        path = "/" + request.match_info["path"]
        session = venue.open(path, dict(request.query), time.monotonic_ns())
        if session is None:
            return web.Response(status=404)
        fault = None if self.faults.idle else self.faults.on_socket(venue.name, session.route, time.monotonic_ns())
        transport = request.transport
        if transport is None or (fault is not None and fault.kind in ("disconnect", "status")):
            venue.closed(session)
            if fault is not None and fault.kind == "status":
                return web.Response(status=fault.status, headers=_retry_after(fault), text=fault.text)
            if transport is not None:
                transport.abort()
            return web.Response(status=503)
        ws = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, max_msg_size=CLIENT_MESSAGE_BYTES)
        self._opened += 1
        socket = Socket(self._opened, venue, session, ws, transport)
        tasks: list[asyncio.Task[None]] = []
        try:
            await ws.prepare(request)
            if fault is not None:
                socket.mute()
            self.sockets[session] = socket
            work = (socket.write(), socket.keep_alive(self._life_s), socket.end_silence())
            tasks = [asyncio.create_task(one) for one in work]
            socket.flush()
            await socket.read()
        except ConnectionError:
            log.info("client %d is gone", socket.number)
        finally:
            self.sockets.pop(session, None)
            self.faults.forget(socket.number)
            venue.closed(session)
            for task in tasks:
                task.cancel()
        return ws

    async def _answer(self, request: web.Request, venue: VenueWire) -> web.StreamResponse:
        self.requests += 1
        path = "/" + request.match_info["path"]
        spoil: Fault | None = None
        if not self.faults.idle:
            for fault in self.faults.on_rest(venue.name, path, time.monotonic_ns()):
                if fault.kind == "delay":
                    await asyncio.sleep(fault.delay_s)
                elif fault.kind == "garbage":
                    spoil = fault
                else:
                    return await self._refuse(request, fault)
        reply = await self.source.answer(venue, path, dict(request.query), request.remote or "", await request.read())
        body = reply.body if spoil is None else garbage(reply.body, spoil.variant, spoil.applied)
        return web.Response(status=reply.status, body=body, headers=reply.headers)

    async def _refuse(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.kind == "status" and fault.text is not None:
            return web.Response(status=fault.status, text=fault.text, headers=_retry_after(fault))
        if fault.kind == "status":
            body = json.dumps({"code": -1003 if fault.status in (418, 429) else -1000, "msg": "injected"}).encode()
            return web.Response(status=fault.status, body=body, headers=_retry_after(fault), content_type="application/json")
        if fault.kind != "disconnect":
            await asyncio.sleep(HANG_S)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    async def _get_state(self, _request: web.Request) -> web.Response:
        clients = [
            {
                "venue": socket.venue.name,
                "route": socket.session.route,
                "streams": list(socket.session.streams),
                "sent": socket.sent,
                "waiting": socket.waiting,
                "muted": socket.muted,
            }
            for socket in self.sockets.values()
        ]
        totals = {"delivered": self.delivered, "requests": self.requests, "sockets_opened": self._opened}
        return web.json_response({**self.source.state(), **totals, "clients": clients})

    async def _get_truth(self, request: web.Request) -> web.Response:
        symbol = request.query.get("symbol", "")
        if self.market is None or symbol not in self.market.symbols:
            return web.json_response({"error": f"no market of {symbol[:20]}"}, status=404)
        return web.json_response(self.market.truth(symbol))

    async def _get_faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self.faults.listing(time.monotonic_ns()))

    async def _post_fault(self, request: web.Request) -> web.Response:
        try:
            values = json.loads(await request.read())
            if not isinstance(values, dict):
                raise ValueError("the body must be an object")
            venue = self.venues.get(str(values.get("venue")))
            if values.get("fault") == "notice" and not isinstance(venue, Announcing):
                raise ValueError("notice needs a venue that announces")
            if values.get("fault") == "restart" and not isinstance(venue, Restarting):
                raise ValueError("restart needs a venue whose service restarts")
            fault = self.faults.add(values, time.monotonic_ns(), frozenset(self.venues))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        self._act_now(fault)
        return web.json_response(fault.describe(time.monotonic_ns()), status=201)

    def _act_now(self, fault: Fault) -> None:
        """Faults of sockets act on those that are open already; notices and restarts happen at once and that was it."""
        venue = self.venues[fault.venue]
        if fault.kind in ("notice", "restart"):
            if fault.kind == "notice" and isinstance(venue, Announcing):
                venue.announce_upgrade()
            elif fault.kind == "restart" and isinstance(venue, Restarting):
                venue.restart()
            self.faults.spend(fault)
            fault.left = 0
            return
        if fault.kind not in ("disconnect", "half_open") or fault.socket == REST:
            return
        lasting = fault.left is not None or fault.until_ns is not None
        for socket in list(self.sockets.values()):
            streams = [None] if fault.stream is None else list(socket.session.streams)
            if any(fault.concerns(socket.venue.name, socket.session.route, stream) for stream in streams):
                if not fault.is_active(time.monotonic_ns()):
                    break
                self.faults.spend(fault)
                socket.abort() if fault.kind == "disconnect" else socket.mute()
        if fault.kind == "disconnect" and not lasting:
            fault.left = 0

    async def _delete_faults(self, request: web.Request) -> web.Response:
        number = request.query.get("id")
        if number is not None and not number.isdigit():
            return web.json_response({"error": "id must be a number"}, status=400)
        return web.json_response({"removed": self.faults.remove(None if number is None else int(number))})

    async def _post_start(self, _request: web.Request) -> web.Response:
        self.source.start()
        return web.json_response(self.source.state())

    async def _post_liquidate(self, request: web.Request) -> web.Response:
        query = request.query
        try:
            side = PositionSide[query.get("side", "").upper()]
            usd = float(query.get("usd", "1"))
            if self.market is None or side is PositionSide.NONE or not 0 < usd < 1e15:
                raise ValueError("needs a market, side long or short, usd > 0")
            moved = self.market.symbols[query.get("symbol", "")].force(side, usd)
        except (KeyError, ValueError) as error:
            return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
        return web.json_response(moved)


def _listen(host: str, port: int) -> sockets.socket:
    """A bound socket. Raises ValueError unless the address is loopback."""
    address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    if not address.is_loopback:
        raise ValueError(f"the simulator listens on loopback only, was {host}")
    family = sockets.AF_INET6 if address.version == 6 else sockets.AF_INET
    listening = sockets.socket(family, sockets.SOCK_STREAM)
    try:
        listening.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        listening.bind((str(address), port))
    except OSError:
        listening.close()
        raise
    return listening


def _retry_after(fault: Fault) -> Mapping[str, str]:
    return {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
