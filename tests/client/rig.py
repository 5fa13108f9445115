"""A scripted server on a real socket: each push connection plays one scene, each REST path has an answer.

It runs in a thread with a loop of its own, so that plain programs can be tested as well as those with an event loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import pytest
from aiohttp import WSMsgType, web

from mpengine.client import AsyncClient, Client, Item, Options, Retries, Stream, SyncStream

WITHIN_S: Final = 20.0
QUICK: Final = Options(
    timeout_s=5.0, retries=Retries(first_s=0.01, limit_s=0.05), reconnect_first_s=0.01, reconnect_limit_s=0.1, silence_s=5.0
)


def until(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of the condition; fails after a while."""
    deadline = time.monotonic() + WITHIN_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)
    return found


class Gone(Exception):
    """The client has left."""


@dataclass
class Conn:
    """One push connection as a scene sees it. `resume`: where the client wants to go on."""

    request: web.Request
    index: int
    transport: str
    channels: list[str] = field(default_factory=list)
    resume: dict[str, tuple[int, int]] = field(default_factory=dict)
    commands: list[dict[str, Any]] = field(default_factory=list)
    ws: web.WebSocketResponse | None = None
    stream: web.StreamResponse | None = None
    at_s: float = field(default_factory=time.monotonic)

    async def say(self, *messages: str | bytes) -> None:
        for message in messages:
            if self.ws is not None:
                await (self.ws.send_str(message) if isinstance(message, str) else self.ws.send_bytes(message))
            else:
                assert self.stream is not None
                assert isinstance(message, str)
                kind = json.loads(message)["type"]
                await self.stream.write(f"event: {kind}\nid: x:1:1\ndata: {message}\n\n".encode())

    async def say_half(self, message: str) -> None:
        """The first half of a message, then the connection is gone."""
        piece = message[: len(message) // 2].encode()
        transport = self.request.transport
        assert transport is not None
        if self.ws is not None:
            transport.write(bytes((0x81, 126)) + len(message).to_bytes(2, "big") + piece)
        else:
            assert self.stream is not None
            await self.stream.write(b"event: delta\ndata: " + piece)
        while transport.get_write_buffer_size():
            await asyncio.sleep(0.001)
        await self.kill()

    async def kill(self) -> None:
        """No closing handshake, no last chunk."""
        transport = self.request.transport
        assert transport is not None
        transport.close()

    async def command(self) -> dict[str, Any]:
        """The next frame of the client, which is acknowledged."""
        assert self.ws is not None
        message = await self.ws.receive()
        if message.type is not WSMsgType.TEXT:
            raise Gone
        told: dict[str, Any] = json.loads(message.data)
        self.commands.append(told)
        if told["op"] == "subscribe":
            self.channels += [name for name in told["channels"] if name not in self.channels]
            self.resume.update({name: (at[0], at[1]) for name, at in told.get("from", {}).items()})
            channels = {name: {"no": self.channels.index(name), "epoch": None, "seq": None} for name in told["channels"]}
            await self.say(json.dumps({"type": "ack", "id": told["id"], "channels": channels}))
        else:
            await self.say(json.dumps({"type": "ack", "id": told["id"], "channels": {}}))
        return told

    async def stay(self) -> None:
        """Until the client has left."""
        if self.ws is not None:
            with suppress(Gone):
                while True:
                    await self.command()
        else:
            while self.request.transport is not None and not self.request.transport.is_closing():
                await asyncio.sleep(0.005)

    async def close(self, code: int) -> None:
        if self.ws is not None:
            await self.ws.close(code=code)


Scene = Callable[[Conn], Awaitable[None]]
Rest = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """`scenes`: of the connections in their order, the last one for all further ones; `rest`: path -> handler."""

    def __init__(self) -> None:
        self.scenes: Sequence[Scene] = ()
        self.rest: dict[str, Rest] = {}
        self.asked: list[web.Request] = []
        self.conns: list[Conn] = []
        self.errors: list[Exception] = []
        self.open = 0
        self.port = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="scripted server")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(WITHIN_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        assert not self.errors, "what a scene expected did not happen"

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_get("/ws", self._ws)
        app.router.add_get("/stream", self._sse)
        app.router.add_get("/{path:.*}", self._rest)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        handler = self.rest.get(request.path)
        if handler is None:
            return error(404, "not_found")
        try:
            return await handler(request)
        except AssertionError as broken:
            self.errors.append(broken)
            raise

    def _conn(self, request: web.Request, transport: str) -> Conn:
        conn = Conn(request, len(self.conns), transport)
        self.conns.append(conn)
        return conn

    async def _play(self, conn: Conn) -> None:
        self.open += 1
        try:
            await self.scenes[min(conn.index, len(self.scenes) - 1)](conn)
        except (Gone, ConnectionError):
            pass
        except Exception as broken:
            self.errors.append(broken)
            raise
        finally:
            self.open -= 1

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if (handler := self.rest.get("/ws")) is not None:
            return await handler(request)
        conn = self._conn(request, "ws")
        conn.ws = web.WebSocketResponse(heartbeat=None, compress=False)
        await conn.ws.prepare(request)
        await conn.command()
        await self._play(conn)
        return conn.ws

    async def _sse(self, request: web.Request) -> web.StreamResponse:
        if (handler := self.rest.get("/stream")) is not None:
            return await handler(request)
        conn = self._conn(request, "sse")
        conn.channels = request.query["channels"].split(",")
        for part in request.headers.get("Last-Event-ID", "").split(";"):
            if part:
                name, epoch, seq = part.split(":")
                conn.resume[name] = (int(epoch), int(seq))
        conn.stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await conn.stream.prepare(request)
        await conn.stream.write(b"retry: 2000\n\n")
        await self._play(conn)
        return conn.stream


def error(status: int, code: str, detail: str = "why", **headers: str) -> web.Response:
    """An error of the contract."""
    return web.json_response({"error": code, "detail": detail}, status=status, headers=headers)


def answer(body: bytes, *, media: str = "application/json", **headers: str) -> web.Response:
    """A data answer."""
    return web.Response(body=body, content_type=media, headers=headers)


def always(response: Callable[[], web.Response]) -> Rest:
    """A handler that gives the same answer each time."""

    async def handler(_request: web.Request) -> web.Response:
        return response()

    return handler


class Shell:
    """Either client behind one face, for tests that hold for both."""

    name = ""

    def take(
        self, server: Server, channels: Sequence[str], count: int, transport: str, options: Options = QUICK, **more: Any
    ) -> tuple[list[Item], Any]:
        """The first `count` items of a stream, and the stream, closed. Raises what ended it."""
        raise NotImplementedError

    def ask(self, server: Server, method: str, *args: Any, options: Options = QUICK, times: int = 1, **kwargs: Any) -> list[Any]:
        """Answers of a method, asked some times by one client."""
        raise NotImplementedError


class AsyncShell(Shell):
    name = "async"

    def take(
        self, server: Server, channels: Sequence[str], count: int, transport: str, options: Options = QUICK, **more: Any
    ) -> tuple[list[Item], Stream]:
        async def run() -> tuple[list[Item], Stream]:
            found: list[Item] = []
            client = AsyncClient(server.url, options=options)
            stream = client.subscribe(channels, transport, **more)  # type: ignore[arg-type]
            async with client, stream, asyncio.timeout(WITHIN_S):
                while len(found) < count:
                    found.append(await anext(stream))
            assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"
            return found, stream

        return asyncio.run(run())

    def ask(self, server: Server, method: str, *args: Any, options: Options = QUICK, times: int = 1, **kwargs: Any) -> list[Any]:
        async def run() -> list[Any]:
            async with AsyncClient(server.url, options=options) as client:
                return [await getattr(client, method)(*args, **kwargs) for _ in range(times)]

        return asyncio.run(run())


class SyncShell(Shell):
    name = "sync"

    def take(
        self, server: Server, channels: Sequence[str], count: int, transport: str, options: Options = QUICK, **more: Any
    ) -> tuple[list[Item], SyncStream]:
        before = threading.active_count()
        client = Client(server.url, options=options)
        stream = client.subscribe(channels, transport, **more)  # type: ignore[arg-type]
        with client, stream:
            found = [stream.next(WITHIN_S) for _ in range(count)]
        assert threading.active_count() == before, "a thread was left behind"
        return found, stream

    def ask(self, server: Server, method: str, *args: Any, options: Options = QUICK, times: int = 1, **kwargs: Any) -> list[Any]:
        with Client(server.url, options=options) as client:
            return [getattr(client, method)(*args, **kwargs) for _ in range(times)]


SHELLS = [pytest.param(AsyncShell(), id="async"), pytest.param(SyncShell(), id="sync")]
