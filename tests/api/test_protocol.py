"""The connection over real sockets: what is refused before it becomes a request, time-outs, draining, order of answers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from api.protocol import BoundedProtocol, Limits

WITHIN_S = 10.0
LIMITS = Limits(connections=50, request_timeout_s=30.0)
UNFINISHED_BODY = b"GET /body HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc"
LARGE = b"y" * (8 << 20)


class Stub:
    """An application: `/quick` is known to it in bytes, `/slow` waits for the test, `/half` does so
    after its first half, `/large` has 8 MiB, others are echoed."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.bodies: list[int] = []
        self.refusals: list[int] = []
        self.drained = False
        self.go = asyncio.Event()

    def wire_answer(self, target: bytes, headers: Any, *, head: bool, more: Any, scope: Any) -> list[bytes] | None:
        if target != b"/quick":
            return None
        lines = b"".join(b"%s: %s\r\n" % pair for pair in more)
        return [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n%s\r\n%s" % (lines, b"" if head else b"quick")]

    def refused(self, status: int, headers: Any) -> list[tuple[bytes, bytes]]:
        self.refusals.append(status)
        return [(b"vary", b"Origin")]

    def drain(self) -> None:
        self.drained = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append(scope["path"])
        if scope["path"] == "/slow":
            await self.go.wait()
        if scope["path"] == "/body":
            size, more = 0, True
            while more:
                message = await receive()
                size, more = size + len(message.get("body", b"")), message.get("more_body", False)
            self.bodies.append(size)
        if scope["path"] == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await self.go.wait()
            await send({"type": "http.response.body", "body": b"later"})
            return
        body = LARGE if scope["path"] == "/large" else scope["path"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


class Rig:
    """A listening server in this loop."""

    def __init__(self, app: Stub, port: int, state: ServerState) -> None:
        self.app = app
        self.port = port
        self.state = state
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        self._writers.append(writer)
        return reader, writer

    async def leave(self) -> None:
        """Close every client."""
        for writer in self._writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def talk(self, raw: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        reader, writer = await self.connect()
        writer.write(raw)
        return await asyncio.wait_for(reader.read(), WITHIN_S)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(limits: Limits = LIMITS) -> AsyncIterator[Rig]:
    app, state = Stub(), ServerState()
    config = Config(
        app=app, http=BoundedProtocol, ws="none", log_config=None, access_log=False, proxy_headers=False, lifespan="off"
    )
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config=config, server_state=state, app_state={}, limits=limits, application=app), "127.0.0.1", 0
    )
    rig = Rig(app, server.sockets[0].getsockname()[1], state)
    try:
        yield rig
    finally:
        await rig.leave()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        while state.connections or state.tasks:
            app.go.set()
            await asyncio.sleep(0.001)


def run(test: Callable[[Rig], Coroutine[Any, Any, None]], limits: Limits = LIMITS) -> None:
    async def main() -> None:
        async with serving(limits) as rig:
            await test(rig)

    asyncio.run(main())


def request(target: str = "/x", *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: test", *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


CLOSE = "Connection: close"


def check_refused(got: bytes, status: int, code: str) -> dict[str, str]:
    head, _, body = got.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert first.startswith(f"HTTP/1.1 {status} "), got
    assert json.loads(body)["error"] == code and int(headers["content-length"]) == len(body)
    assert (headers["connection"], headers["cache-control"], headers["x-content-type-options"]) == ("close", "no-store", "nosniff")
    return headers


@pytest.mark.parametrize("target", ["/quick", "/x"])
@pytest.mark.parametrize(("length", "good"), [(4094, True), (4095, False), (10_000, False), (3_000_000, False)])
def test_length_of_the_request_line(target: str, length: int, good: bool) -> None:
    padded = f"{target}?" + "a" * (length - len(f"GET {target}? HTTP/1.1"))

    async def test(rig: Rig) -> None:
        got = await rig.talk(request(padded, CLOSE))
        if good:
            assert got.startswith(b"HTTP/1.1 200") and rig.app.refusals == []
        else:
            check_refused(got, 414, "uri_too_long")
            assert rig.app.asked == [] and rig.app.refusals == [414]

    run(test)


@pytest.mark.parametrize(("fields", "good"), [(100, True), (101, False), (200, False)])
def test_number_of_header_fields(fields: int, good: bool) -> None:
    async def test(rig: Rig) -> None:
        got = await rig.talk(request("/x", CLOSE, *(f"X-{number}: 1" for number in range(fields - 2))))
        if good:
            assert got.startswith(b"HTTP/1.1 200")
        else:
            check_refused(got, 431, "headers_too_large")
            assert rig.app.asked == [] and rig.app.refusals == [431]

    run(test)


@pytest.mark.parametrize(("size", "good"), [(8190, True), (8191, False), (100_000, False)])
def test_size_of_a_header_field(size: int, good: bool) -> None:
    async def test(rig: Rig) -> None:
        got = await rig.talk(request("/x", CLOSE, "X-A: " + "v" * (size - len("X-A: "))))
        if good:
            assert got.startswith(b"HTTP/1.1 200")
        else:
            check_refused(got, 431, "headers_too_large")

    run(test)


@pytest.mark.parametrize("start", [b"GET /x HTTP/1.1\r\nX-A: ", b"GET /x HTTP/1.1\r\n"])
def test_a_head_that_never_ends_is_not_collected(start: bytes) -> None:
    async def test(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(start)
        filler = b"X" * 10_000 if start.endswith(b": ") else b"A: 1\r\n" * 20
        sent = 0
        while not rig.app.refusals:
            writer.write(filler)
            await writer.drain()
            sent += len(filler)
            assert sent < 4 << 20
            await asyncio.sleep(0)
        check_refused(await asyncio.wait_for(reader.read(), WITHIN_S), 431, "headers_too_large")

    run(test)


@pytest.mark.covers("T-M5")
@pytest.mark.parametrize(("size", "good"), [(0, True), (16_384, True), (16_385, False), (10_000_000, False)])
def test_a_body_on_get_is_ignored_up_to_16_kib(size: int, good: bool) -> None:
    async def test(rig: Rig) -> None:
        for target in ("/quick", "/x", "/body"):
            got = await rig.talk(request(target, CLOSE, f"Content-Length: {size}", body=b"b" * min(size, 600_000)))
            if good:
                assert got.startswith(b"HTTP/1.1 200"), target
            else:
                check_refused(got, 413, "payload_too_large")
        assert rig.app.bodies == ([size] if good else [])

    run(test)


@pytest.mark.parametrize("target", ["/x", "/body"])
def test_a_chunked_body_is_counted(target: str) -> None:
    async def test(rig: Rig) -> None:
        chunks = b"".join(b"1000\r\n%s\r\n" % (b"c" * 4096) for _ in range(5))
        got = await rig.talk(request(target, "Transfer-Encoding: chunked", body=chunks))
        assert rig.app.refusals == [413] and sum(rig.app.bodies) <= 16_384
        if target == "/body":  # nothing had been answered yet
            check_refused(got, 413, "payload_too_large")

    run(test)


def test_what_is_sent_behind_a_refusal_is_thrown_away() -> None:
    async def test(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(request("/x", "Content-Length: 100000000"))
        check_refused(await asyncio.wait_for(reader.readuntil(b"}"), WITHIN_S), 413, "payload_too_large")
        while rig.state.connections:
            writer.write(b"b" * 65_536)
            with suppress(ConnectionError):
                await asyncio.wait_for(writer.drain(), WITHIN_S)
            await asyncio.sleep(0.001)
        assert rig.app.asked == []

    run(test)


def test_too_many_connections_are_told_when_to_come_back() -> None:
    async def test(rig: Rig) -> None:
        held = [await rig.connect() for _ in range(3)]
        await rig.until(lambda: len(rig.state.connections) == 3)
        waits = set()
        for _ in range(20):
            headers = check_refused(await rig.talk(request("/quick")), 503, "overloaded")
            waits.add(int(headers["retry-after"]))
        assert len(waits) > 1 and waits <= set(range(1, 6))
        held[0][1].close()
        await rig.until(lambda: len(rig.state.connections) == 2)
        assert (await rig.talk(request("/quick", CLOSE))).startswith(b"HTTP/1.1 200")

    run(test, replace(LIMITS, connections=3))


@pytest.mark.parametrize("start", [b"", b"GET /x HT", b"GET /x HTTP/1.1\r\nHost: t\r\nX-A", UNFINISHED_BODY])
def test_who_does_not_finish_a_request_is_closed(start: bytes) -> None:
    async def test(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(start)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), WITHIN_S) == b""
        await rig.until(lambda: not rig.state.connections)

    run(test, replace(LIMITS, request_timeout_s=0.05))


def test_a_finished_request_has_no_time_out() -> None:
    async def test(rig: Rig) -> None:
        reader, writer = await rig.connect()
        for target in (b"/quick", b"/slow"):
            writer.write(request(target.decode()))
            await rig.until(lambda: rig.state.total_requests > 0)
        await asyncio.sleep(0.2)  # four time-outs
        rig.app.go.set()
        got = await asyncio.wait_for(reader.readuntil(b"/slow"), WITHIN_S)
        assert got.count(b"HTTP/1.1 200 OK") == 2

    run(test, replace(LIMITS, request_timeout_s=0.05))


def test_who_reads_nothing_is_closed_and_the_others_are_served() -> None:
    async def test(rig: Rig) -> None:
        stalled = socket.socket()
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stalled, ("127.0.0.1", rig.port))
        await loop.sock_sendall(stalled, request("/large"))
        await rig.until(lambda: rig.app.asked == ["/large"])
        assert (await rig.talk(request("/quick", CLOSE))).endswith(b"quick")
        await rig.until(lambda: not rig.state.connections)
        stalled.close()

    run(test, replace(LIMITS, request_timeout_s=0.1))


def test_who_reads_slowly_gets_everything() -> None:
    async def test(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(request("/large", CLOSE))
        got = 0
        while chunk := await asyncio.wait_for(reader.read(200_000), WITHIN_S):
            got += len(chunk)
            await asyncio.sleep(0.01)  # in all longer than the time-out
        assert got > len(LARGE)

    run(test, replace(LIMITS, request_timeout_s=0.2))


@pytest.mark.parametrize(
    "targets",
    [
        ["/quick"] * 10,
        ["/a", "/quick", "/b", "/quick", "/quick", "/c"],
        ["/quick", "/a", "/quick", "/slow", "/quick", "/b"],
    ],
)
def test_answers_come_in_the_order_of_the_requests(targets: list[str]) -> None:
    async def test(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(b"".join(request(target) for target in targets[:-1]) + request(targets[-1], CLOSE))
        await rig.until(lambda: "/slow" not in targets or "/slow" in rig.app.asked)
        rig.app.go.set()
        got = await asyncio.wait_for(reader.read(), WITHIN_S)
        bodies = [part.rpartition(b"\r\n\r\n")[2].decode() for part in got.split(b"HTTP/1.1 200 OK\r\n")[1:]]
        assert [body.strip("/") for body in bodies] == [target.strip("/") for target in targets]

    run(test)


def test_a_connection_is_kept_and_may_be_asked_in_pieces() -> None:
    async def test(rig: Rig) -> None:
        reader, writer = await rig.connect()
        for target in ("/quick", "/x", "/quick"):
            for byte in request(target):
                writer.write(bytes([byte]))
            wanted = target.removeprefix("/").encode()
            assert (await asyncio.wait_for(reader.readuntil(wanted), WITHIN_S)).startswith(b"HTTP/1.1 200")
        assert len(rig.state.connections) == 1 and rig.state.total_requests == 3

    run(test)


@pytest.mark.parametrize("target", ["/quick", "/x"])
def test_who_asks_to_close_is_closed(target: str) -> None:
    async def test(rig: Rig) -> None:
        for raw in (request(target, CLOSE), request(target, version="1.0")):
            assert b"connection: close" in await rig.talk(raw)

    run(test)


def test_who_asks_for_an_upgrade_goes_the_long_way() -> None:
    async def test(rig: Rig) -> None:
        got = await rig.talk(request("/quick", "Connection: Upgrade, close", "Upgrade: websocket"))
        assert rig.app.asked == ["/quick"] and got.count(b"HTTP/1.1") == 1

    run(test)


def test_head_past_asgi() -> None:
    async def test(rig: Rig) -> None:
        assert (await rig.talk(request("/quick", CLOSE, method="HEAD"))).endswith(b"\r\n\r\n")
        assert rig.app.asked == []

    run(test)


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 100])
def test_what_is_no_http_is_400_and_closed(raw: bytes) -> None:
    async def test(rig: Rig) -> None:
        assert (await rig.talk(raw)).startswith(b"HTTP/1.1 400")

    run(test)


def test_draining_answers_what_is_on_its_way_and_then_closes() -> None:
    async def test(rig: Rig) -> None:
        quick, late, busy, idle = [await rig.connect() for _ in range(4)]
        busy[1].write(request("/slow"))
        await rig.until(lambda: rig.app.asked == ["/slow"] and len(rig.state.connections) == 4)
        for connection in list(rig.state.connections):
            connection.shutdown()
        assert rig.app.drained
        quick[1].write(request("/quick"))
        late[1].write(request("/x"))
        for reader, _ in (quick, late):
            got = await asyncio.wait_for(reader.read(), WITHIN_S)
            assert got.startswith(b"HTTP/1.1 200") and b"connection: close" in got
        assert await asyncio.wait_for(idle[0].read(), WITHIN_S) == b""
        rig.app.go.set()
        assert b"connection: close" in await asyncio.wait_for(busy[0].read(), WITHIN_S)
        await rig.until(lambda: not rig.state.connections)

    run(test, replace(LIMITS, drain_idle_s=0.1))


def test_no_refusal_is_written_into_an_answer() -> None:
    """Half of an answer has been sent when something comes that is no HTTP."""

    async def test(rig: Rig) -> None:
        reader, writer = await rig.connect()
        writer.write(request("/half"))
        got = await asyncio.wait_for(reader.readuntil(b"first"), WITHIN_S)
        writer.write(b"\x00" * 100)
        got += await asyncio.wait_for(reader.read(), WITHIN_S)
        assert rig.app.refusals == [400] and got.count(b"HTTP/1.1 ") == 1 and got.endswith(b"\r\n\r\nfirst")

    run(test)


def test_a_refusal_behind_requests_that_wait_ends_them() -> None:
    async def test(rig: Rig) -> None:
        got = await rig.talk(request("/slow") + request("/x") * 5 + b"\x00" * 100)
        check_refused(got, 400, "invalid_parameter")
        rig.app.go.set()
        await rig.until(lambda: not rig.state.tasks)
        assert rig.app.asked == ["/slow"]

    run(test)
