"""`/stream` and `/ws` over real sockets: what clients of either see, and what they may not do."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from api.app import Service
from api.protocol import BoundedProtocol, Limits
from api.push import websocket
from api.push.socket import PushSocket
from mpengine.config import Settings
from mpengine.contract.push import Ack, Bye, DataMessage, ErrorMessage
from mpengine.keys import change, new_key
from mpengine.wire_formats import unpack_column
from shm import doorbell
from tests.api.push_rig import Follower
from tests.api.test_push_channels import column, fill
from tests.api.world import World

WITHIN_S = 10.0


class Rig:
    """A worker's server in this loop, over the files of a world."""

    def __init__(self, world: World, app: Service, port: int, state: ServerState) -> None:
        self.world, self.app, self.port, self.state = world, app, port, state

    def publish(self, number: int) -> None:
        self.world.add_depth(column(number))
        self.app.hub.look()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.001)

    @asynccontextmanager
    async def socket(self, path: str = "/ws", **how: Any) -> AsyncIterator[ClientConnection]:
        async with connect(f"ws://127.0.0.1:{self.port}{path}", compression=None, proxy=None, **how) as one:
            yield one

    @asynccontextmanager
    async def stream(self, target: str, *headers: str, method: str = "GET") -> AsyncIterator[Stream]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            lines = [f"{method} {target} HTTP/1.1", "Host: t", *headers]
            writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
            yield await Stream.begun(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


class Stream:
    """A response whose events are read one by one."""

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> None:
        self.reader, self.status, self.headers = reader, status, headers
        self._text = ""

    @classmethod
    async def begun(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Stream:
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN_S)).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return cls(reader, int(first.split()[1]), headers)

    async def body(self) -> Any:
        return json.loads(await asyncio.wait_for(self.reader.readexactly(int(self.headers["content-length"])), WITHIN_S))

    async def block(self) -> str:
        """Lines up to the next empty one."""
        while "\n\n" not in self._text:
            size = int(await asyncio.wait_for(self.reader.readline(), WITHIN_S), 16)
            chunk = await asyncio.wait_for(self.reader.readexactly(size + 2), WITHIN_S)
            if not size:
                raise EOFError
            self._text += chunk[:-2].decode()
        block, _, self._text = self._text.partition("\n\n")
        return block

    async def event(self) -> dict[str, str]:
        return dict(line.split(": ", 1) for line in (await self.block()).split("\n"))

    async def message(self) -> dict[str, Any]:
        """The next event that is no beat, checked."""
        while True:
            event = await self.event()
            message: dict[str, Any] = json.loads(event["data"])
            assert event["event"] == message["type"]
            if message["type"] != "beat":
                return message


@asynccontextmanager
async def serving(world: World, limits: Limits) -> AsyncIterator[Rig]:
    app, state = world.app(), ServerState()
    config = Config(
        app=app, http=BoundedProtocol, ws=partial(PushSocket, application=app), log_config=None, access_log=False,
        proxy_headers=False, lifespan="off", ws_max_size=4096, ws_per_message_deflate=False,
    )  # fmt: skip
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedProtocol(config=config, server_state=state, app_state={}, limits=limits, application=app), "127.0.0.1", 0
    )
    app.turn()
    app.hub.start()
    try:
        yield Rig(world, app, server.sockets[0].getsockname()[1], state)
    finally:
        app.hub.stop()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        async with asyncio.timeout(WITHIN_S):
            while state.connections or state.tasks:
                await asyncio.sleep(0.001)
        assert len(app.hub) == 0
        assert not any(channel.subscribers for channel in app.hub.channels.values())


Test = Callable[[Rig], Coroutine[Any, Any, None]]


def run(world: World, test: Test, limits: Limits | None = None) -> None:
    async def main() -> None:
        async with serving(world, limits or Limits(connections=200)) as rig:
            await test(rig)

    asyncio.run(main())


def with_api(world: World, **values: Any) -> World:
    """The same files under other settings of the API."""
    api = msgspec.structs.replace(world.settings.api, **values)
    settings: Settings = msgspec.structs.replace(world.settings, api=api)
    world.settings = settings
    return world


async def told(one: ClientConnection) -> dict[str, Any]:
    """The next message that is no beat."""
    while True:
        data = await asyncio.wait_for(one.recv(), WITHIN_S)
        assert isinstance(data, str)
        message: dict[str, Any] = json.loads(data)
        if message["type"] != "beat":
            return message


async def say(one: ClientConnection, **command: Any) -> None:
    await one.send(json.dumps(command))


async def closed(one: ClientConnection) -> int | None:
    """Code with which the server closes; what comes before it is read."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(WITHIN_S):
            while True:
                await one.recv()
    return one.close_code


# streams ---------------------------------------------------------------------------------------------------------------


def test_a_stream_begins_with_snapshots_and_goes_on(world: World) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.stream("/stream?channels=depth.BTC,oi.BTC") as one:
            assert one.status == 200
            wanted = {"content-type": "text/event-stream", "cache-control": "no-store", "x-accel-buffering": "no",
                      "x-content-type-options": "nosniff"}  # fmt: skip
            assert wanted.items() <= one.headers.items() and "x-request-id" in one.headers
            assert await one.block() == "retry: 2000"
            first, second = await one.event(), await one.event()
            assert (first["event"], first["id"]) == ("snapshot", "depth.BTC:1:0")
            assert (second["event"], second["id"]) == ("snapshot", "depth.BTC:1:0;oi.BTC:1:0")
            rig.publish(1)
            delta = await one.event()
            assert (delta["event"], delta["id"]) == ("delta", "depth.BTC:1:1;oi.BTC:1:0")
            message = msgspec.json.decode(delta["data"], type=DataMessage)
            assert (message.ch, message.seq, message.prev) == ("depth.BTC", 1, 0)

    run(world, test)


@pytest.mark.parametrize("how", ["header", "parameter"])
def test_a_stream_goes_on_where_it_was(world: World, how: str) -> None:
    for number in range(5):
        world.add_depth(column(number))

    async def test(rig: Rig) -> None:
        target, headers = "/v4/stream?channels=depth.BTC", ["Last-Event-ID: depth.BTC:1:1"]
        if how == "parameter":
            target, headers = target + "&resume=depth.BTC:1:1", []
        async with rig.stream(target, *headers) as one:
            await one.block()
            messages = [await one.message() for _ in range(3)]
        assert [(message["type"], message["seq"], message["prev"]) for message in messages] == [
            ("delta", 2, 1), ("delta", 3, 2), ("delta", 4, 3)
        ]  # fmt: skip

    run(world, test)


@pytest.mark.parametrize("text", ["depth.BTC", "depth.BTC:1", "x" * 3000, "depth.BTC:1:-1", "depth.BTC:1:1;;", "\"'<>"])
def test_a_malformed_position_is_ignored(world: World, text: str) -> None:
    world.add_depth(column(0))
    world.add_depth(column(1))

    async def test(rig: Rig) -> None:
        async with rig.stream("/stream?channels=depth.BTC", f"Last-Event-ID: {text}") as one:
            await one.block()
            message = await one.message()
        assert (message["type"], message["seq"]) == ("snapshot", 1)

    run(world, test)


@pytest.mark.parametrize(
    "query",
    [
        "", "channels=", "channels=nope.BTC", "channels=depth.DOGE", "channels=depth.XRP", "channels=,",
        "channels=depth.BTC,status,x",
        "channels=depth.BTC&cell=f16", "channels=depth.BTC&channels=liq.BTC", "channels=depth.BTC&resume=",
        "channels=" + ",".join(f"{kind}.{symbol}" for symbol in ("BTC", "ETH", "SOL", "XRP") for kind in
                               ("liq", "zones", "levels", "oi", "candles", "liquidations", "depth", "book", "status")),
    ],
)  # fmt: skip
def test_what_a_stream_cannot_be_asked(world: World, query: str) -> None:
    async def test(rig: Rig) -> None:
        async with rig.stream(f"/stream?{query}") as one:
            assert one.status == 400
            assert (await one.body())["error"] in ("invalid_parameter", "repeated_parameter")
            assert one.headers["cache-control"] == "no-store"
        assert len(rig.app.hub) == 0

    run(world, test)


def test_head_and_other_methods(world: World) -> None:
    async def test(rig: Rig) -> None:
        async with rig.stream("/stream?channels=depth.BTC", method="HEAD") as one:
            assert (one.status, one.headers["content-type"]) == (200, "text/event-stream")
        async with rig.stream("/stream", method="HEAD") as one:
            assert one.status == 400
        async with rig.stream("/stream?channels=depth.BTC", method="POST") as one:
            assert (one.status, one.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert len(rig.app.hub) == 0

    run(world, test)


def test_a_stream_that_its_client_leaves_is_forgotten(world: World) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.stream("/stream?channels=depth.BTC") as one:
            await one.block()
            await one.message()
            assert rig.app.meter.push.clients == {"sse": 1, "ws": 0}
        await rig.until(lambda: not len(rig.app.hub))
        assert rig.app.meter.push.clients == {"sse": 0, "ws": 0}
        assert rig.app.meter.push.closed["client"] == 1

    run(world, test)


def test_a_worker_that_stops_says_bye_and_ends_streams(world: World) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.stream("/stream?channels=oi.BTC") as one, rig.socket() as other:
            await one.block()
            await one.message()
            await say(other, op="subscribe", id=1, channels=["oi.BTC"])
            assert [(await told(other))["type"] for _ in range(2)] == ["ack", "snapshot"]
            for connection in list(rig.state.connections):
                connection.shutdown()
            bye = await one.message()
            assert (bye["type"], bye["reason"]) == ("bye", "restart") and 800 <= bye["reconnect_in_ms"] <= 5000
            with pytest.raises(EOFError):
                await one.block()
            assert msgspec.convert(await told(other), Bye).reason == "restart"
            assert await closed(other) == 1012

    run(world, test)


# sockets ---------------------------------------------------------------------------------------------------------------


def test_a_socket_is_acknowledged_before_its_first_data(world: World) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.socket("/v4/ws") as one:
            await say(one, op="subscribe", id=5, channels=["depth.BTC", "nope", "depth.DOGE", "depth.XRP"])
            ack = msgspec.convert(await told(one), Ack)
            assert ack.id == 5
            assert ack.errors == {"nope": "not_found", "depth.DOGE": "invalid_symbol", "depth.XRP": "no_orderbook"}
            assert (ack.channels["depth.BTC"].epoch, ack.channels["depth.BTC"].seq) == (1, 0)
            assert (await told(one))["type"] == "snapshot"
            rig.publish(1)
            delta = await told(one)
            assert (delta["type"], delta["seq"], delta["prev"]) == ("delta", 1, 0)
            await say(one, op="list", id=6)
            assert list((await told(one))["channels"]) == ["depth.BTC"]
            await say(one, op="unsubscribe", id=7, channels=["depth.BTC", "liq.BTC"])
            assert (await told(one))["id"] == 7
            rig.publish(2)
            await say(one, op="ping", id=8)
            assert (await told(one)) == {"type": "ack", "id": 8, "channels": {}}

    run(world, test)


def test_columns_in_bytes(world: World) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            await say(one, op="subscribe", id=1, channels=["depth.BTC", "zones.BTC"], encoding="bin")
            number = (await told(one))["channels"]["depth.BTC"]["no"]
            data = await asyncio.wait_for(one.recv(), WITHIN_S)
            assert isinstance(data, bytes)
            header, _, _ = unpack_column(data)
            assert (header.channel, header.seq) == (number, 0)
            assert (await told(one))["ch"] == "zones.BTC"  # only columns have that form

    run(world, test)


def test_a_socket_goes_on_where_it_was(world: World) -> None:
    for number in range(30):
        world.add_depth(column(number))

    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            places = {"depth.BTC": [1, 20], "liq.BTC": [9, 9]}
            await say(one, op="subscribe", id=1, channels=["depth.BTC", "liq.BTC"], **{"from": places})
            await told(one)
            follower = Follower(1, 20)
            for _ in range(9):
                follower.accept(await told(one))
            assert follower.got == [(1, number) for number in range(21, 30)]

    run(world, test)


def test_subscribing_again_is_a_new_snapshot(world: World) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            for number in range(3):
                await say(one, op="subscribe", id=number, channels=["zones.BTC"])
                assert [(await told(one))["type"] for _ in range(2)] == ["ack", "snapshot"]
            assert len(rig.app.hub.channels["zones.BTC"].subscribers) == 1

    run(world, test)


BAD = [
    "", "{", "[]", "1", "null", '{"op":"nope","id":1}', '{"op":"subscribe"}', '{"op":["ping"],"id":1}',
    '{"op":"subscribe","id":1,"channels":"depth.BTC"}', '{"op":"subscribe","id":1,"channels":[1]}',
    '{"op":"subscribe","id":1,"channels":[],"encoding":"xml"}',
    '{"op":"subscribe","id":1,"channels":["depth.BTC"],"from":{"depth.BTC":[1]}}',
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_a_bad_command_is_told(world: World, text: str) -> None:
    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            await one.send(text)
            error = msgspec.convert(await told(one), ErrorMessage)
            assert (error.error, error.detail) == ("invalid_parameter", "Not a command of this interface")
            await say(one, op="ping", id=1)
            assert (await told(one))["type"] == "ack"

    run(world, test)


def test_ten_bad_commands_are_enough(world: World) -> None:
    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            for _ in range(10):
                await one.send("{")
            assert await closed(one) == 1008
        assert rig.app.meter.push.closed["protocol"] == 1

    run(world, test)


def test_a_flood_of_commands_is_slowed_then_ended(world: World) -> None:
    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            errors = 0

            async def read() -> None:
                nonlocal errors
                with suppress(ConnectionClosed):
                    while True:
                        errors += json.loads(await one.recv()).get("error") == "rate_limited"

            reading = asyncio.create_task(read())
            async with asyncio.timeout(WITHIN_S):
                with suppress(ConnectionClosed):
                    while True:
                        await say(one, op="ping", id=1)
                        await asyncio.sleep(0.02)
                await reading
            assert one.close_code == 1008
            assert 1 <= errors <= 4

    run(world, test)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([Frame(Opcode.TEXT, b"x" * 5000)], 1009),
        ([Frame(Opcode.TEXT, b"x" * 3000, fin=False), Frame(Opcode.CONT, b"x" * 3000)], 1009),
        ([Frame(Opcode.TEXT, b"\xff\xfe")], 1007),
        ([Frame(Opcode.BINARY, b"{}")], 1003),
        ([Frame(Opcode.TEXT, b"", fin=False), *[Frame(Opcode.CONT, b"", fin=False)] * 200], 1008),
        ([Frame(Opcode.PING, b"x")] * 100, 1008),
        ([Frame(Opcode.CONT, b"x")], 1002),
    ],
)
def test_what_breaks_the_rules_of_the_wire(world: World, frames: list[Frame], code: int) -> None:
    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            await say(one, op="ping", id=1)
            await told(one)
            for frame in frames:
                one.transport.write(frame.serialize(mask=True))
            assert await closed(one) == code
        await rig.until(lambda: not len(rig.app.hub))
        assert rig.app.meter.push.closed["protocol"] == 1

    run(world, test)


def test_who_says_nothing_at_all_is_closed(world: World) -> None:
    """Pings unanswered, in a tenth of a second instead of a minute."""

    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            await say(one, op="ping", id=1)
            await told(one)
            (connection,) = (found for found in rig.state.connections if isinstance(found, PushSocket))
            one.transport.pause_reading()
            connection.ping_timeout = 0.1
            connection.send_keepalive_ping()
            await rig.until(lambda: not len(rig.app.hub))
            one.transport.resume_reading()
            assert await closed(one) == 1001
        assert rig.app.meter.push.closed["idle"] == 1

    run(world, test)


def test_whatever_it_says_it_is_alive(world: World) -> None:
    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            await say(one, op="ping", id=1)
            await told(one)
            (connection,) = (found for found in rig.state.connections if isinstance(found, PushSocket))
            connection.ping_timeout = 0.5
            connection.send_keepalive_ping()
            connection.pending_ping_payload = b"never answered"
            for number in range(8):  # 0.8 s in all
                await asyncio.sleep(0.1)
                await say(one, op="ping", id=number)
                await told(one)
            assert not connection.close_sent

    run(world, test)


def test_a_socket_that_vanishes_is_forgotten(world: World) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            await say(one, op="subscribe", id=1, channels=["depth.BTC"])
            await told(one)
            one.transport.abort()
            await rig.until(lambda: not len(rig.app.hub))
        assert rig.app.meter.push.closed["client"] == 1

    run(world, test)


def test_a_socket_outlives_the_time_out_of_requests(world: World) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.socket() as one, rig.stream("/stream?channels=oi.BTC") as other:
            await other.block()
            await asyncio.sleep(0.5)  # twice the time-out that follows
            await say(one, op="ping", id=1)
            assert (await told(one))["type"] == "ack"
            rig.world.add_oi(binance=2.0)
            rig.app.hub.look()
            assert [(await other.message())["type"] for _ in range(2)] == ["snapshot", "delta"]

    run(world, test, Limits(connections=10, request_timeout_s=0.2))


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_pages_of_elsewhere_may_not_open_a_socket(world: World, origin: str) -> None:
    async def test(rig: Rig) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with rig.socket(origin=origin):
                pass
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body or b"")["error"] == "forbidden"
        async with rig.socket(origin=f"http://127.0.0.1:{rig.port}") as one:
            await say(one, op="ping", id=1)
            assert (await told(one))["type"] == "ack"

    run(world, test)


def test_a_client_may_have_so_many_connections(world: World) -> None:
    async def test(rig: Rig) -> None:
        async with rig.socket() as one, rig.stream("/stream?channels=depth.BTC"):
            with pytest.raises(InvalidStatus) as refused:
                async with rig.socket():
                    pass
            assert refused.value.response.status_code == 429
            assert "retry-after" in refused.value.response.headers
            async with rig.stream("/stream?channels=depth.BTC") as third:
                assert third.status == 429
            await one.close()
            await rig.until(lambda: len(rig.app.hub) == 1)
            async with rig.socket() as again:
                await say(again, op="ping", id=1)
                assert (await told(again))["type"] == "ack"

    run(with_api(world, push_connections_per_client=2), test)


def test_a_plain_request_to_the_path_of_sockets(world: World) -> None:
    async def test(rig: Rig) -> None:
        async with rig.stream("/ws") as one:
            assert (one.status, (await one.body())["error"]) == (400, "invalid_parameter")

    run(world, test)


@pytest.mark.parametrize("transport", ["sse", "ws", "first message"])
def test_a_key_that_is_revoked_ends_its_connections(world: World, transport: str) -> None:
    record, key = new_key(world.clock.now_ms, ["push"])
    path = world.settings.paths.keys
    change(path, lambda records: [*records, record])

    async def test(rig: Rig) -> None:
        header = {"Authorization": f"Bearer {key}"}
        if transport == "sse":
            async with rig.stream("/stream?channels=oi.BTC", f"Authorization: Bearer {key}") as one:
                assert one.status == 200
                await one.block()
                await rig.until(lambda: len(rig.app.hub) == 1)
                revoke(rig)
                assert (await one.message())["reason"] == "unauthorized"
                with pytest.raises(EOFError):
                    await one.block()
            return
        async with rig.socket(additional_headers=header if transport == "ws" else None) as other:
            if transport == "ws":
                await say(other, op="ping", id=1)
            else:
                await say(other, op="auth", id=1, key=key)
            assert (await told(other))["type"] == "ack"
            revoke(rig)
            assert msgspec.convert(await told(other), Bye).reason == "unauthorized"
            assert await closed(other) == 1008

    def revoke(rig: Rig) -> None:
        change(path, lambda records: [msgspec.structs.replace(one, revoked_ms=world.clock.now_ms) for one in records])
        rig.app.turn()

    run(with_api(world, keys=True), test)


@pytest.mark.parametrize("first", [{"op": "ping", "id": 1}, {"op": "auth", "id": 1, "key": "nobody.x"}, {"op": "x"}, {}])
def test_without_a_good_key_nothing_is_told(world: World, first: dict[str, Any]) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            await say(one, **first)
            assert msgspec.convert(await told(one), Bye).reason == "unauthorized"
            assert await closed(one) == 1008
        async with rig.stream("/stream?channels=oi.BTC") as other:
            assert (other.status, other.headers["www-authenticate"]) == (401, "Bearer")
        with pytest.raises(InvalidStatus) as refused:
            async with rig.socket(additional_headers={"X-API-Key": "nobody.x"}):
                pass
        assert refused.value.response.status_code == 401

    run(with_api(world, keys=True), test)


def test_a_stream_that_ends_takes_its_connection_along(world: World) -> None:
    """What bounds its end would else meet the next answer on the same connection."""
    fill(world)

    async def test(rig: Rig) -> None:
        async with rig.stream("/stream?channels=oi.BTC") as one:
            assert one.headers["connection"] == "close"
            await one.block()
            assert (await one.message())["type"] == "snapshot"
            (client,) = rig.app.hub._clients
            client.close("unauthorized", 1008)
            assert (await one.message())["type"] == "bye"
            assert await asyncio.wait_for(one.reader.read(), WITHIN_S) == b"0\r\n\r\n"

    run(world, test)


def test_an_old_client_gets_a_stream_without_chunks(world: World) -> None:
    """HTTP/1.0: the body is the events, up to the end of the connection."""
    fill(world)

    async def test(rig: Rig) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(b"GET /stream?channels=oi.BTC HTTP/1.0\r\nHost: t\r\n\r\n")
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN_S)).lower()
        assert b"connection: close" in head and b"transfer-encoding" not in head and b"content-length" not in head
        events = [await asyncio.wait_for(reader.readuntil(b"\n\n"), WITHIN_S) for _ in range(2)]
        assert events[0] == b"retry: 2000\n\n" and events[1].startswith(b"event: snapshot\nid: oi.BTC:")
        rig.app.drain()
        rest = await asyncio.wait_for(reader.read(), WITHIN_S)
        assert rest.startswith(b"event: bye\ndata: {") and rest.endswith(b"}\n\n")
        writer.close()

    run(world, test)


def test_a_stream_asked_for_while_the_worker_stops_ends_at_once(world: World) -> None:
    fill(world)

    async def test(rig: Rig) -> None:
        rig.app.drain()
        async with rig.stream("/stream?channels=oi.BTC") as one:
            await one.block()
            assert msgspec.convert(await one.message(), Bye).reason == "restart"
            assert await asyncio.wait_for(one.reader.read(), WITHIN_S) == b"0\r\n\r\n"

    run(world, test)


def test_no_socket_while_memory_is_short(world: World) -> None:
    async def test(rig: Rig) -> None:
        rig.app.context.lifetime.short_of_memory = True
        with pytest.raises(InvalidStatus) as refused:
            async with rig.socket():
                pass
        assert refused.value.response.status_code == 503
        assert json.loads(refused.value.response.body or b"")["error"] == "overloaded"
        assert int(refused.value.response.headers["retry-after"]) > 0

    run(world, test)


def test_a_position_below_any_is_no_position(world: World) -> None:
    world.add_depth(column(0))

    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            await say(one, op="subscribe", id=1, channels=["depth.BTC"], **{"from": {"depth.BTC": [1, -5]}})
            assert [(await told(one))["type"] for _ in range(2)] == ["ack", "snapshot"]

    run(world, test)


def test_who_does_not_read_the_answers_is_not_asked_for_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are there already are left alone while the connection is full: their answers would pile up."""
    taken = 0
    real = websocket._Session._take

    async def take(session: Any, event: Any) -> None:
        nonlocal taken
        taken += 1
        await real(session, event)
        if taken == 1:
            session._client.connection._socket.pause_writing()

    monkeypatch.setattr(websocket._Session, "_take", take)

    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            for number in range(5):
                one.protocol.send_text(json.dumps({"op": "ping", "id": number}).encode())
            one.transport.write(b"".join(one.protocol.data_to_send()))
            await rig.until(lambda: taken)
            for _ in range(200):
                await asyncio.sleep(0)
            assert taken == 1
            (client,) = rig.app.hub._clients
            client.connection._socket.resume_writing()  # type: ignore[attr-defined]
            assert [(await told(one))["id"] for _ in range(5)] == list(range(5))

    run(world, test)


def test_nothing_more_is_read_once_the_connection_is_full(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fills up between the coming of a command and its turn: what follows, pings too, stays with the system."""
    real = PushSocket.send_receive_event_to_app

    def full(connection: PushSocket) -> None:
        real(connection)
        connection.pause_writing()

    monkeypatch.setattr(PushSocket, "send_receive_event_to_app", full)

    async def test(rig: Rig) -> None:
        async with rig.socket() as one:
            await say(one, op="ping", id=1)
            assert (await told(one))["id"] == 1
            (client,) = rig.app.hub._clients
            connection = client.connection._socket  # type: ignore[attr-defined]
            assert not connection.transport.is_reading()
            monkeypatch.undo()
            connection.resume_writing()
            assert connection.transport.is_reading()
            await say(one, op="ping", id=2)
            assert (await told(one))["id"] == 2

    run(world, test)


# many ------------------------------------------------------------------------------------------------------------------


def test_who_reads_nothing_is_closed_and_costs_the_others_nothing(world: World) -> None:
    """A client with a small receive buffer that never reads, beside ten that do."""
    world.add_depth(column(0))

    async def test(rig: Rig) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", rig.port))
        stalled = await connect("ws://t/ws", sock=sock, compression=None, proxy=None, max_queue=1)
        await say(stalled, op="subscribe", id=1, channels=["depth.BTC"])
        await rig.until(lambda: len(rig.app.hub) == 1)
        stalled.transport.pause_reading()
        others = [Follower() for _ in range(10)]

        async def follow(follower: Follower) -> None:
            async with rig.socket() as one:
                await say(one, op="subscribe", id=1, channels=["depth.BTC"])
                await told(one)
                while follower.seq is None or follower.seq < 600:
                    follower.accept(await told(one))

        tasks = [asyncio.create_task(follow(follower)) for follower in others]
        await rig.until(lambda: all(follower.seq == 0 for follower in others))
        for number in range(1, 601):
            rig.publish(number)
            await rig.until(lambda: all((follower.seq or 0) > number - 100 for follower in others))  # noqa: B023
        async with asyncio.timeout(WITHIN_S):
            await asyncio.gather(*tasks)
        assert all(follower.missed == [] and follower.got == [(1, number) for number in range(601)] for follower in others)
        await rig.until(lambda: rig.app.meter.push.closed["slow"] == 1)
        stalled.transport.resume_reading()
        stalled.transport.abort()
        await stalled.wait_closed()

    run(with_api(world, push_stall_s=0.5, push_burst_bytes=1 << 30, push_queue_bytes=1 << 30), test)


def test_a_bell_wakes_the_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames come at once, not with the look that happens anyway."""
    world.add_depth(column(0))
    bell = doorbell.create()
    monkeypatch.setenv("MPENGINE_DOORBELLS", f"BTC={bell},ETH=99999,SOL=x")

    async def test(rig: Rig) -> None:
        looks = 0
        real = rig.app.hub.look

        def counted() -> None:
            nonlocal looks
            looks += 1
            real()

        monkeypatch.setattr(rig.app.hub, "look", counted)
        async with rig.socket() as one:
            await say(one, op="subscribe", id=1, channels=["depth.BTC"])
            assert [(await told(one))["type"] for _ in range(2)] == ["ack", "snapshot"]
            for number in range(1, 4):
                rig.world.add_depth(column(number))
                doorbell.ring(bell)
                assert (await told(one))["seq"] == number
            assert looks == 3

    try:
        run(world, test)
    finally:
        os.close(bell)
