"""Streams over real sockets: order, resuming, healing, refusals, slow users, and nothing left behind."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mpengine.client import (
    ApiError,
    AsyncClient,
    Client,
    ColumnUpdate,
    ContractError,
    EventsUpdate,
    Lost,
    Options,
    Position,
    Refused,
    Reset,
    SlowConsumer,
    Unreachable,
    Update,
    ZonesUpdate,
)
from mpengine.wire_formats import ColumnFlag
from tests.client import messages as m
from tests.client.rig import QUICK, SHELLS, WITHIN_S, Conn, Server, Shell, answer, error, until

BOTH = pytest.mark.parametrize("shell", SHELLS)
WAYS = pytest.mark.parametrize("transport", ["ws", "sse"])
OCTETS = "application/octet-stream"


def seqs(items: list[Any]) -> list[tuple[int, int]]:
    assert all(isinstance(item, Update) for item in items), items
    return [(item.epoch, item.seq) for item in items]


def quick(**changes: Any) -> Options:
    names = Options.__slots__  # type: ignore[attr-defined]
    return Options(**{**{name: getattr(QUICK, name) for name in names}, **changes})


@BOTH
@WAYS
def test_updates_come_in_order_and_say_where_one_stands(server: Server, shell: Shell, transport: str) -> None:
    async def scene(conn: Conn) -> None:
        await conn.say(m.column(4, way="snapshot"), m.events(1, 3, way="snapshot"), m.beat({}, now_ms=m.column_t_ms(4) + 61_500))
        await conn.say(m.column(5), m.zones_snapshot(2), m.column(5), m.zones_delta(2, 3), m.events(4, 4))
        await conn.stay()

    server.scenes = [scene]
    items, stream = shell.take(server, ["depth.BTC", "liquidations.BTC", "zones.BTC"], 6, transport)
    assert [(item.channel, item.seq) for item in items if isinstance(item, Update)] == [
        ("depth.BTC", 4), ("liquidations.BTC", 3), ("depth.BTC", 5), ("zones.BTC", 2), ("zones.BTC", 3), ("liquidations.BTC", 4),
    ]  # fmt: skip
    assert stream.positions == {
        "depth.BTC": Position(7, 5, m.column_t_ms(5)), "liquidations.BTC": Position(7, 4), "zones.BTC": Position(7, 3),
    }  # fmt: skip
    assert stream.beat is not None and stream.stats.old == 1 and not stream.connected
    age = stream.age("depth.BTC")
    assert age is not None and 31.5 <= age < 31.5 + WITHIN_S, "by the clock of the server"
    until(lambda: not server.open, "the server sees the client leave")


@BOTH
@WAYS
@pytest.mark.covers("S-M4")
def test_a_connection_that_dies_in_a_message_is_resumed_without_loss_or_repetition(
    server: Server, shell: Shell, transport: str
) -> None:
    async def first(conn: Conn) -> None:
        await conn.say(m.column(4, way="snapshot"), m.column(5), m.events(1, 2, way="snapshot"), m.beat({}))
        await conn.say_half(m.column(6))

    async def second(conn: Conn) -> None:
        assert conn.resume == {"depth.BTC": (7, 5), "liquidations.BTC": (7, 2)}
        await conn.say(m.column(6), m.events(3, 4))
        if conn.ws is not None:
            await conn.kill()
        # A stream may end in order too.

    async def third(conn: Conn) -> None:
        assert conn.resume == {"depth.BTC": (7, 6), "liquidations.BTC": (7, 4)}
        await conn.say(m.column(7))
        await conn.stay()

    server.scenes = [first, second, third]
    items, stream = shell.take(server, ["depth.BTC", "liquidations.BTC"], 6, transport)
    assert [(item.channel[:5], item.seq) for item in items if isinstance(item, Update)] == [
        ("depth", 4), ("depth", 5), ("liqui", 2), ("depth", 6), ("liqui", 4), ("depth", 7),
    ]  # fmt: skip
    assert stream.stats.connections == 3 and stream.stats.malformed == 0


@WAYS
def test_positions_of_another_stream_are_where_it_goes_on(server: Server, transport: str) -> None:
    async def scene(conn: Conn) -> None:
        seq = conn.resume.get("depth.BTC", (7, 0))[1]
        await conn.say(m.column(seq + 1, way="delta" if conn.resume else "snapshot"), m.column(seq + 2))
        await conn.stay()

    server.scenes = [scene]
    positions: dict[str, Position] = {}
    found = []
    for _ in range(3):
        with Client(server.url, options=QUICK) as client, client.subscribe(["depth.BTC"], transport, positions=positions) as stream:  # type: ignore[arg-type]
            found.append(stream.next(WITHIN_S))
            positions = stream.positions
    assert seqs(found) == [(7, 1), (7, 2), (7, 3)], "what was queued and not taken comes again"


@BOTH
def test_binary_columns(server: Server, shell: Shell) -> None:
    async def scene(conn: Conn) -> None:
        assert conn.commands[0]["encoding"] == "bin"
        number = conn.channels.index("depth.BTC")
        await conn.say(m.binary_column(number, 1, flags=ColumnFlag.SNAPSHOT), m.binary_column(number, 2), m.column(3))
        await conn.stay()

    server.scenes = [scene]
    items, _ = shell.take(server, ["oi.BTC", "depth.BTC"], 3, "ws")
    assert seqs(items) == [(7, 1), (7, 2), (7, 3)]
    for item in items:
        assert isinstance(item, ColumnUpdate)
        assert item.column.low.tolist() == m.cells(item.seq)[0].tolist()


@BOTH
@WAYS
def test_gaps_are_filled_by_rest_before_what_follows(server: Server, shell: Shell, transport: str) -> None:
    async def scene(conn: Conn) -> None:
        await conn.say(m.column(1, way="snapshot"), m.events(1, 2, way="snapshot"))
        await conn.say(m.column(5), m.gap("liquidations.BTC", 3, 1203), m.events(1204, 1205), m.column(4), m.column(6))
        await conn.stay()

    async def heatmap(request: web.Request) -> web.Response:
        assert request.query["format"] == "bin" and request.query["since_ms"] == str(m.column_t_ms(2))
        return answer(m.heatmap([2, 3, 4, 5]), media=OCTETS)

    async def liquidations(request: web.Request) -> web.Response:
        return answer(m.page(list(range(1300)), int(request.query["after"]), newest=1299))

    server.scenes = [scene]
    server.rest = {"/heatmap": heatmap, "/liquidations": liquidations}
    items, stream = shell.take(server, ["depth.BTC", "liquidations.BTC"], 10, transport)
    assert [item.seq for item in items if isinstance(item, ColumnUpdate)] == [1, 2, 3, 4, 5, 6]
    events = [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events]
    assert events == list(range(1, 1206))
    assert [request.query["after"] for request in server.asked if request.path == "/liquidations"] == ["2", "1002"]
    assert stream.stats.gaps == 2 and stream.positions["depth.BTC"] == Position(7, 6, m.column_t_ms(6))


@BOTH
def test_gaps_that_cannot_be_filled_are_told_and_the_stream_goes_on(server: Server, shell: Shell) -> None:
    async def scene(conn: Conn) -> None:
        await conn.say(m.column(1, way="snapshot"), m.events(1, 2, way="snapshot"), m.column(5), m.events(9, 9), m.column(6))
        await conn.stay()

    async def broken(_request: web.Request) -> web.Response:
        return error(500, "internal", "Internal error, id 1")

    server.scenes = [scene]
    server.rest = {"/heatmap": broken}
    items, stream = shell.take(server, ["depth.BTC", "liquidations.BTC"], 7, "ws")
    told = [(item.channel, item.first, item.last) for item in items if isinstance(item, Lost)]
    assert told == [("depth.BTC", 2, 4), ("liquidations.BTC", 3, 8)]
    assert [item.seq for item in items if isinstance(item, ColumnUpdate)] == [1, 5, 6]
    assert any(isinstance(item, Lost) and "Internal error, id 1" in item.reason for item in items)
    assert stream.positions["depth.BTC"] == Position(7, 6, m.column_t_ms(6))


@BOTH
def test_a_server_that_restarts_while_a_gap_is_filled_is_waited_for(server: Server, shell: Shell) -> None:
    async def scene(conn: Conn) -> None:
        await conn.say(m.column(1, way="snapshot"), m.column(4), m.column(5))
        await conn.stay()

    async def heatmap(request: web.Request) -> web.StreamResponse:
        if len(server.asked) < 2 * QUICK.retries.tries:
            assert request.transport is not None
            request.transport.close()
        if len(server.asked) < 4 * QUICK.retries.tries:
            return error(503, "overloaded")
        return answer(m.heatmap([2, 3]), media=OCTETS)

    server.scenes, server.rest = [scene], {"/heatmap": heatmap}
    items, _ = shell.take(server, ["depth.BTC"], 5, "ws")
    assert seqs(items) == [(7, 1), (7, 2), (7, 3), (7, 4), (7, 5)]
    server.rest, server.asked[:] = {"/heatmap": lambda request: asyncio.sleep(3600, error(500, "internal"))}, []
    items, _ = shell.take(server, ["depth.BTC"], 4, "ws", options=quick(timeout_s=0.05, heal_s=0.1))
    assert [type(item) for item in items] == [ColumnUpdate, Lost, ColumnUpdate, ColumnUpdate]


@BOTH
@WAYS
def test_a_new_epoch_is_a_reset(server: Server, shell: Shell, transport: str) -> None:
    async def scene(conn: Conn) -> None:
        await conn.say(m.zones_snapshot(9), m.reset("zones.BTC", 8), m.zones_snapshot(1, epoch=8), m.zones_delta(1, 2, epoch=8))
        await conn.stay()

    server.scenes = [scene]
    items, stream = shell.take(server, ["zones.BTC"], 4, transport)
    assert items[1] == Reset("zones.BTC", Position(7, 9), 8, "epoch")
    assert seqs([items[0], *items[2:]]) == [(7, 9), (8, 1), (8, 2)] and stream.positions["zones.BTC"] == Position(8, 2)


@BOTH
@WAYS
def test_zones_that_do_not_check_out_are_subscribed_anew(server: Server, shell: Shell, transport: str) -> None:
    async def scene(conn: Conn) -> None:
        if conn.index == 0:
            await conn.say(m.zones_snapshot(1), m.column(1, way="snapshot"), m.zones_delta(1, 2, spoil=1))
            if conn.ws is None:
                await conn.stay()
            assert [(await conn.command())["op"], (await conn.command())["op"]] == ["unsubscribe", "subscribe"]
            assert conn.commands[-1]["channels"] == ["zones.BTC"] and "from" not in conn.commands[-1]
        else:
            assert conn.transport == "sse" and conn.resume == {"depth.BTC": (7, 1)}
        await conn.say(m.zones_snapshot(2), m.zones_delta(2, 3), m.column(2))
        await conn.stay()

    server.scenes = [scene]
    items, stream = shell.take(server, ["zones.BTC", "depth.BTC"], 5, transport)
    zones = [item for item in items if isinstance(item, ZonesUpdate)]
    assert seqs(list(zones)) == [(7, 1), (7, 2), (7, 3)] and all(item.zones == m.zones_at(item.seq) for item in zones)
    assert [item.seq for item in items if isinstance(item, ColumnUpdate)] == [1, 2] and stream.stats.mismatches == 1


@BOTH
@WAYS
def test_the_time_that_the_server_names_is_waited_for(server: Server, shell: Shell, transport: str) -> None:
    said: list[float] = []

    async def first(conn: Conn) -> None:
        await conn.say(m.column(1, way="snapshot"))
        said.append(time.monotonic())
        await conn.say(m.text(type="bye", reason="restart", reconnect_in_ms=400))
        await conn.stay()

    async def second(conn: Conn) -> None:
        await conn.say(m.column(2))
        await conn.stay()

    server.scenes = [first, second]
    items, _ = shell.take(server, ["depth.BTC"], 2, transport)
    assert seqs(items) == [(7, 1), (7, 2)]
    assert server.conns[1].at_s - said[0] >= 0.4


@WAYS
def test_a_refused_connection_is_tried_again_when_the_server_says(server: Server, transport: str) -> None:
    asked: list[float] = []
    path = "/ws" if transport == "ws" else "/stream"

    async def refuse(_request: web.Request) -> web.Response:
        asked.append(time.monotonic())
        del server.rest[path]
        return error(429, "rate_limited", **{"Retry-After": "1"})

    async def scene(conn: Conn) -> None:
        asked.append(time.monotonic())
        await conn.say(m.column(1, way="snapshot"))
        await conn.stay()

    server.scenes, server.rest = [scene], {path: refuse}
    items, _ = SHELLS[0].values[0].take(server, ["depth.BTC"], 1, transport)  # type: ignore[union-attr]
    assert seqs(items) == [(7, 1)] and asked[1] - asked[0] >= 1.0


@BOTH
@WAYS
@pytest.mark.parametrize(
    ("status", "code"), [(400, "invalid_parameter"), (401, "unauthorized"), (403, "forbidden"), (404, "not_found")]
)
def test_a_refusal_that_would_be_repeated_ends_the_stream(
    server: Server, shell: Shell, transport: str, status: int, code: str
) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return error(status, code)

    server.rest = {"/ws": refuse, "/stream": refuse}
    with pytest.raises(ApiError) as raised:
        shell.take(server, ["depth.BTC"], 1, transport)
    assert raised.value.status == status
    if transport == "sse":
        assert (raised.value.code, raised.value.detail) == (code, "why")


@BOTH
def test_refused_channels_end_the_stream(server: Server, shell: Shell) -> None:
    async def scene(conn: Conn) -> None:
        await conn.say(m.column(1, way="snapshot"))
        await conn.say(m.text(type="ack", id=1, channels={}, errors={"depth.XRP": "no_orderbook"}))
        await conn.stay()

    server.scenes = [scene]
    with pytest.raises(Refused, match="no_orderbook"):
        shell.take(server, ["depth.BTC", "depth.XRP"], 2, "ws")


@BOTH
def test_closing_codes(server: Server, shell: Shell) -> None:
    async def slow(conn: Conn) -> None:
        await conn.say(m.column(1, way="snapshot"))
        await conn.close(1013)

    async def policy(conn: Conn) -> None:
        await conn.say(m.column(2))
        await conn.close(1008)

    server.scenes = [slow, policy]
    with pytest.raises(ApiError):
        shell.take(server, ["depth.BTC"], 3, "ws")
    assert len(server.conns) == 2


@BOTH
@WAYS
def test_a_silent_connection_is_left(server: Server, shell: Shell, transport: str) -> None:
    async def silent(conn: Conn) -> None:
        await conn.say(m.column(1, way="snapshot"))
        await conn.stay()

    async def second(conn: Conn) -> None:
        await conn.say(m.column(2))
        await conn.stay()

    server.scenes = [silent, second]
    items, _ = shell.take(server, ["depth.BTC"], 2, transport, options=quick(silence_s=0.2))
    assert seqs(items) == [(7, 1), (7, 2)] and len(server.conns) == 2


def test_a_user_who_is_too_slow_is_told_and_can_go_on_where_he_was(server: Server) -> None:
    async def flood(conn: Conn) -> None:
        first = conn.resume.get("depth.BTC", (7, 0))[1] + 1
        await conn.say(*(m.column(seq, way="snapshot" if seq == 1 else "delta") for seq in range(first, first + 50)))
        await conn.stay()

    server.scenes = [flood]

    async def run() -> None:
        async with AsyncClient(server.url, options=quick(queue=5, patience_s=0.05)) as client:
            stream = client.subscribe(["depth.BTC"])
            found = [await anext(stream)]
            while server.open or len(server.conns) == 0:  # the stream gives up while nobody takes anything
                await asyncio.sleep(0.01)
            told = None
            try:
                while True:
                    found.append(await anext(stream))
            except SlowConsumer as slow:
                told = slow
            assert told is not None and told.queued == 5 and "5 updates" in str(told)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            assert stream.positions["depth.BTC"].seq == len(found) < 50
            async with client.subscribe(["depth.BTC"], positions=stream.positions) as again:
                async for item in again:
                    found.append(item)
                    if len(found) == 20:
                        break
            assert seqs(found) == [(7, seq) for seq in range(1, 21)]

    asyncio.run(run())


@WAYS
def test_messages_that_nobody_understands_end_it_after_some_tries(server: Server, transport: str) -> None:
    async def nonsense(conn: Conn) -> None:
        await conn.say(m.column(conn.index + 1, way="snapshot").replace('"rows":4', '"rows":9'))
        await conn.stay()

    server.scenes = [nonsense]
    with pytest.raises(ContractError, match="9 rows"):
        SHELLS[0].values[0].take(server, ["depth.BTC"], 1, transport)  # type: ignore[union-attr]
    assert len(server.conns) == 5


@BOTH
@WAYS
def test_nobody_there(shell: Shell, transport: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        away = Server()
        away.port = unused.getsockname()[1]
        with pytest.raises(Unreachable):
            shell.take(away, ["depth.BTC"], 1, transport, options=quick(give_up_s=0.1))


def test_a_server_that_comes_back_is_found(server: Server) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{holder.getsockname()[1]}"

        async def scene(conn: Conn) -> None:
            await conn.say(m.column(1, way="snapshot"))
            await conn.stay()

        server.scenes = [scene]
        with Client(url, options=QUICK) as client, client.subscribe(["depth.BTC"]) as stream:
            with pytest.raises(TimeoutError):
                stream.next(0.1)
            assert stream.stale("depth.BTC") and stream.age("depth.BTC") is None and not stream.connected
            until(lambda: stream.stats.connections > 3, "some tries")


@WAYS
def test_staleness(server: Server, transport: str) -> None:
    """Each channel by its own age; silence of liquidations is normal."""
    now_ms = m.column_t_ms(3) + 91_000
    names = ["depth.BTC", "liq.BTC", "zones.BTC", "oi.BTC", "liquidations.BTC"]
    oi = {
        "symbol": "BTC", "aggregated_oi": 1.0, "per_exchange": {}, "ts": 1.0, "unit": "BTC", "base_asset": "BTC",
        "aggregated_oi_usd": None, "exchange_ts": {}, "stale_exchanges": [],
    }  # fmt: skip

    async def scene(conn: Conn) -> None:
        await conn.say(m.column(3, way="snapshot"), m.column(2, kind="liq", way="snapshot"))
        await conn.say(m.zones_snapshot(1).replace(f'"ts_ms":{m.T0_MS + 1},', f'"ts_ms":{now_ms - 1000},'))
        await conn.say(m.data("oi.BTC", "snapshot", 7, 1, -1, oi, now_ms - 61_000))
        await conn.say(m.events(1, 1, way="snapshot").replace('"stale":false', '"stale":true'), m.beat({}, now_ms=now_ms))
        await conn.say(m.events(2, 2))
        await conn.stay()

    server.scenes = [scene]
    with Client(server.url, options=QUICK) as client, client.subscribe(names, transport) as stream:  # type: ignore[arg-type]
        assert all(stream.stale(name) for name in names), "nothing has come yet"
        for _ in range(6):
            stream.next(WITHIN_S)
        assert [stream.stale(name) for name in names] == [True, False, False, True, False]
        assert stream.connected


def test_a_time_out_of_next_loses_nothing(server: Server) -> None:
    go = threading.Event()

    async def scene(conn: Conn) -> None:
        for seq in range(1, 4):
            while not go.is_set():
                await asyncio.sleep(0.005)
            go.clear()
            await conn.say(m.column(seq, way="snapshot" if seq == 1 else "delta"))
        await conn.stay()

    server.scenes = [scene]
    with Client(server.url, options=QUICK) as client:
        stream = client.subscribe(["depth.BTC"])
        found = []
        for _ in range(3):
            with pytest.raises(TimeoutError):
                stream.next(0.05)
            go.set()
            found.append(stream.next(WITHIN_S))
        assert seqs(found) == [(7, 1), (7, 2), (7, 3)]
    assert list(stream) == [], "closed with its client"


def test_closing_ends_whoever_waits(server: Server) -> None:
    async def scene(conn: Conn) -> None:
        await conn.stay()

    server.scenes = [scene]
    with Client(server.url, options=QUICK) as client:
        stream = client.subscribe(["depth.BTC"])
        threading.Timer(0.1, stream.close).start()
        assert list(stream) == []

    async def run() -> None:
        async with AsyncClient(server.url, options=QUICK) as client:
            stream = client.subscribe(["depth.BTC"])
            asyncio.get_running_loop().call_later(0.1, lambda: tasks.append(asyncio.create_task(stream.close())))
            tasks: list[asyncio.Task[None]] = []
            assert [item async for item in stream] == []
            await tasks[0]

    asyncio.run(run())


def test_a_stream_that_was_left_in_the_middle_ends_with_its_client(server: Server) -> None:
    async def scene(conn: Conn) -> None:
        await conn.say(*(m.column(seq, way="snapshot" if seq == 1 else "delta") for seq in range(1, 500)))
        await conn.stay()

    server.scenes = [scene]

    async def run() -> None:
        client = AsyncClient(server.url, options=QUICK)
        streams = [client.subscribe(["depth.BTC"], transport) for transport in ("ws", "sse")]  # type: ignore[arg-type]
        for stream in streams:
            async for _ in stream:
                break
        await client.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        for stream in streams:
            assert [item async for item in stream] == []
        with pytest.raises(Unreachable):
            await client.oi()

    before = set(Path("/proc/self/fd").iterdir())
    asyncio.run(run())
    until(lambda: not server.open, "the server sees both leave")
    until(lambda: set(Path("/proc/self/fd").iterdir()) <= before, "every descriptor closed")


def test_many_channels_are_subscribed_as_the_server_takes_it(server: Server) -> None:
    names = [f"depth.S{number:04}" for number in range(1024)]
    at: list[float] = [0.0]

    async def scene(conn: Conn) -> None:
        while len(conn.channels) < len(names):
            await conn.command()
            at.append(time.monotonic())
        assert conn.resume == dict.fromkeys(names, (7, 10**12))
        await conn.say(m.column(1, epoch=8, way="snapshot").replace("depth.BTC", names[-1]))
        await conn.stay()

    server.scenes = [scene]
    positions = {name: Position(7, 10**12) for name in names}
    items, _ = SHELLS[0].values[0].take(server, names, 1, "ws", positions=positions)  # type: ignore[union-attr]
    assert isinstance(items[0], Reset) and items[0].channel == names[-1]
    assert len(at) > 10 and at[10] - at[2] >= 0.9, "not more than 10 in a second"


def test_an_answer_that_is_no_stream(server: Server) -> None:
    server.rest = {"/stream": lambda _request: asyncio.sleep(0, answer(b"{}"))}
    with pytest.raises(ContractError, match="application/json"):
        SHELLS[0].values[0].take(server, ["depth.BTC"], 1, "sse")  # type: ignore[union-attr]


def test_a_thread_that_cannot_have_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_loop(coroutine: Any) -> None:
        coroutine.close()
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("mpengine.client.bridge.asyncio.run", no_loop)
    with Client(options=QUICK) as client:
        stream = client.subscribe(["depth.BTC"])
        with pytest.raises(Unreachable, match="Too many open files"):
            next(stream)
        assert stream.positions == {} and stream.stale("depth.BTC") and stream.age("depth.BTC") is None


@BOTH
@WAYS
def test_a_key_goes_into_a_header(server: Server, shell: Shell, transport: str) -> None:
    async def scene(conn: Conn) -> None:
        assert conn.request.headers["X-API-Key"] == "me.secret" and "secret" not in str(conn.request.url)
        await conn.say(m.column(1, way="snapshot"))
        await conn.stay()

    server.scenes = [scene]
    with Client(server.url, key="me.secret", options=QUICK) as client, client.subscribe(["depth.BTC"], transport) as stream:  # type: ignore[arg-type]
        assert seqs([stream.next(WITHIN_S)]) == [(7, 1)]
        assert "secret" not in repr(client.server)
