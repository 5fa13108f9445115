"""A socket plan is held open over a real websockets server, whatever the server does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from mpengine.ingest import connection as module
from mpengine.ingest.connection import SocketKeeper, dialler
from mpengine.ingest.feeds import REPLACED
from mpengine.venues.base import SocketPlan, StreamPlan
from shm.board_words import Word
from shm.process_shell import open_descriptors
from shm.records import Kind
from tests.ingest.rig import DEPTH, TRADES, FakeVenue, Rig, message, plan, run, running, socket_server, until

FAST = {"reconnect_max_s": 0.1}  # the first delay is 1 s; the cap makes every one 0.1 s
pytestmark = pytest.mark.timeout(60)


def keeper_of(rig: Rig, sockets: SocketPlan | None = None) -> SocketKeeper:
    return SocketKeeper(rig.feed, sockets or rig.feed.plans[0], rig.intake, rig.settings, dialler(rig.settings), lambda: 0.5)


def rig_for(url: str, **more: Any) -> Rig:
    settings = {**FAST, **more.pop("settings", {})}
    return Rig(FakeVenue([plan(url, **more)]), **settings)


async def stay(ws: ServerConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for _ in ws:
            pass


class Exchange:
    """A server that keeps its connections and what they said, and sends what a test wants."""

    def __init__(self, greeting: str | None = None) -> None:
        self.connections: list[ServerConnection] = []
        self.heard: list[str | bytes] = []
        self.greeting = greeting
        self.pong = False

    async def __call__(self, ws: ServerConnection) -> None:
        self.connections.append(ws)
        if self.greeting is not None:
            await ws.send(self.greeting)
        with contextlib.suppress(ConnectionClosed):
            async for text in ws:
                self.heard.append(text)
                if self.pong and text == "ping":
                    await ws.send("pong")

    @property
    def newest(self) -> ServerConnection:
        return self.connections[-1]


def test_messages_of_a_socket_reach_the_ring_and_texts_reach_the_server() -> None:
    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url, subscribe=("subscribe 1", "subscribe 2"))
            keeper = keeper_of(rig)
            async with running(keeper.run()):
                await until(lambda: exchange.heard == ["subscribe 1", "subscribe 2"])
                assert keeper.life is not None
                rig.venue.say["public#1"] = ["answer"]
                for n in range(200):
                    await exchange.newest.send(message(n))
                await until(lambda: rig.sink.numbers == list(range(200)))
                assert exchange.heard[2:] == ["answer"]
                rig.venue.say["public#1"] = ["asked"]
                keeper.send_pending()
                await until(lambda: exchange.heard[3:] == ["asked"])
                assert rig.feed.reconnects == 0
            assert rig.venue.log == [("opened", "public#1"), ("lost", "public#1", False)]
            assert rig.feed.lives == {}
            assert keeper.life is None

    run(main())


def test_binary_messages_and_bytes_that_are_no_text_are_the_modules_to_refuse() -> None:
    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url)
            async with running(keeper_of(rig).run()):
                await until(lambda: exchange.connections)
                await exchange.newest.send(b"\xff\xfe\x00")
                await exchange.newest.send(b"\xff broken text", text=True)
                await exchange.newest.send(message(1))
                await until(lambda: rig.sink.numbers == [1])
                assert rig.venue.counters.refused == 2
                assert rig.feed.reconnects == 0

    run(main())


@pytest.mark.covers("A1-M13", "F9")
def test_a_handler_error_keeps_the_socket() -> None:
    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url)
            async with running(keeper_of(rig).run()):
                await until(lambda: exchange.connections)
                for text in (message(1), '{"boom":1}', "not json", "", message(2)):
                    await exchange.newest.send(text)
                await until(lambda: rig.sink.numbers == [1, 2])
            assert len(exchange.connections) == 1
            assert rig.counts.get(Word.HANDLER_ERRORS) == 1
            assert rig.venue.counters.refused == 2

    run(main())


@pytest.mark.covers("A1-M12", "F10")
def test_refused_dropped_and_garbage_connections_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def refuse_then_drop(ws: ServerConnection) -> None:
        await ws.close(1011)

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"what is this?\r\n\r\n")
        await writer.drain()
        writer.close()

    async def count_failures(url: str, wanted: int) -> Rig:
        rig = rig_for(url)
        async with running(keeper_of(rig).run()):
            await until(lambda: rig.feed.reconnects >= wanted)
        return rig

    async def main() -> None:
        async with socket_server(refuse_then_drop) as (_, url):
            rig = await count_failures(url, 2)
            assert rig.feed.last_error is not None
            assert "closed: " in rig.feed.last_error
        rig = await count_failures(url, 2)  # nobody listens there any more
        assert rig.feed.last_error is not None
        assert "no connection: " in rig.feed.last_error
        assert rig.counts.get(Word.RECONNECTS) == rig.feed.reconnects
        server = await asyncio.start_server(garbage, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            rig = await count_failures(f"ws://127.0.0.1:{port}/", 2)
        assert rig.sink.records == []

    run(main())
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) >= 6


@pytest.mark.covers("A1-M14")
def test_delays_grow_until_a_message_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    def delay(attempt: int, _limit_s: float, _rng: object) -> float:
        attempts.append(attempt)
        return 0.01

    async def main() -> None:
        monkeypatch.setattr(module, "reconnect_delay_s", delay)
        greet = False

        async def drop(ws: ServerConnection) -> None:
            if greet:
                await ws.send(message(1))

        async with socket_server(drop) as (_, url), running(keeper_of(rig := rig_for(url)).run()):
            await until(lambda: len(attempts) >= 4)
            assert attempts[:4] == [0, 1, 2, 3]
            greet = True
            await until(lambda: rig.sink.numbers)
            await until(lambda: 0 in attempts[4:])

    run(main())


@pytest.mark.covers("F9", "F10")
def test_a_message_that_is_too_long_is_counted_and_the_socket_opened_again() -> None:
    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url, settings={"message_bytes": 4096})
            async with running(keeper_of(rig).run()):
                await until(lambda: exchange.connections)
                await exchange.newest.send("x" * 10_000_000)
                await until(lambda: len(exchange.connections) == 2)
                await exchange.newest.send(message(1))
                await until(lambda: rig.sink.numbers == [1])
                assert rig.feed.bad_messages == 1
                assert rig.feed.parse_errors == 1
                assert "longer than 4096" in (rig.feed.last_error or "")

    run(main())


@pytest.mark.covers("F10")
def test_an_unanswered_probe_reopens_an_answered_one_does_not() -> None:
    async def main() -> None:
        exchange = Exchange()
        exchange.pong = True
        probing = {"probe": "ping", "probe_interval_s": 0.05, "probe_timeout_s": 0.2}
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url, **probing)
            async with running(keeper_of(rig).run()):
                await until(lambda: exchange.heard.count("ping") >= 3)
                assert len(exchange.connections) == 1
                exchange.pong = False
                await until(lambda: len(exchange.connections) == 2)
                assert "no answer to a probe within 0.2 s" in (rig.feed.last_error or "")

    run(main())


@pytest.mark.covers("F10")
def test_a_host_that_accepts_and_says_nothing_ends_in_the_connect_timeout() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            rig = rig_for(f"ws://127.0.0.1:{port}/", settings={"connect_timeout_s": 0.1})
            async with running(keeper_of(rig).run()):
                await until(lambda: rig.feed.reconnects >= 2)

    run(main())


def test_reopen_ends_the_connection_with_its_reason_and_a_gap() -> None:
    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url)
            keeper = keeper_of(rig)
            keeper.reopen("nothing is open yet")
            async with running(keeper.run()):
                await until(lambda: exchange.connections)
                await exchange.newest.send(message(1))
                await until(lambda: rig.sink.numbers)
                keeper.reopen("depth silent")
                keeper.reopen("a second time")
                await until(lambda: len(exchange.connections) == 2 and keeper.life is not None)
                assert rig.feed.last_error == "public#1: depth silent"
                assert ("lost", "public#1", False) in rig.venue.log
                assert rig.sink.records[-1] == ("GAP", 0)
                assert list(rig.feed.lives) == ["public#2"]

    run(main())


def test_rotation_opens_the_successor_before_it_closes_the_old_connection() -> None:
    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url, streams=(DEPTH, TRADES))
            keeper = keeper_of(rig)
            async with running(keeper.run()):
                await until(lambda: exchange.connections)
                await exchange.newest.send(message(1))
                keeper.rotate()
                await until(lambda: len(exchange.connections) == 2)
                old, new = exchange.connections
                await new.send(message(2, "trades"))  # not the fast stream: not ready yet
                await old.send(message(3))
                await until(lambda: len(rig.sink.numbers) == 3)
                assert keeper.life is not None
                assert keeper.life.name == "public#1"
                await new.send(message(4))
                await old.wait_closed()
                await until(lambda: keeper.life is not None and keeper.life.name == "public#2")
                await new.send(message(5))
                await until(lambda: 5 in rig.sink.numbers)
                assert sorted(rig.sink.numbers) == [1, 2, 3, 4, 5]
                assert ("GAP", 0) not in rig.sink.records
                assert rig.venue.log == [("opened", "public#1"), ("opened", "public#2"), ("lost", "public#1", True)]
                assert rig.feed.reconnects == 0

    run(main())


def test_a_connection_is_rotated_when_its_time_is_over() -> None:
    async def main() -> None:
        exchange = Exchange(message(1))
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url, settings={"rotate_after_s": 1.0, "rotate_jitter_s": 2.0})
            async with running(keeper_of(rig).run()):
                await until(lambda: ("lost", "public#2", True) in rig.venue.log)
                assert next(entry for entry in rig.venue.log if entry[0] == "lost") == ("lost", "public#1", True)
                assert ("GAP", 0) not in rig.sink.records
                assert rig.feed.reconnects == 0

    run(main())


def test_a_successor_that_does_not_deliver_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_TIMEOUT_S", 0.1)
    monkeypatch.setattr(module, "ROTATION_RETRY_S", 0.05)

    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url)
            keeper = keeper_of(rig)
            async with running(keeper.run()):
                await until(lambda: exchange.connections)
                await exchange.newest.send(message(1))
                keeper.rotate()
                await until(lambda: ("lost", "public#2", True) in rig.venue.log)
                assert keeper.life is not None
                assert keeper.life.name == "public#1"
                await exchange.connections[0].send(message(2))
                await until(lambda: rig.sink.numbers == [1, 2])
                exchange.greeting = message(3)  # the next try, after the pause, delivers
                await until(lambda: ("lost", "public#1", True) in rig.venue.log)
                assert ("GAP", 0) not in rig.sink.records

    run(main())


def test_a_symbol_that_rests_does_not_put_a_rotation_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The venue ends a connection after a day, with a hole in every book: until then its successor must have taken over."""
    monkeypatch.setattr(module, "READY_TIMEOUT_S", 0.5)
    resting = StreamPlan("rests", "XYZ", Kind.DEPTH, 5, 30, True)

    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url, streams=(DEPTH, resting))
            keeper = keeper_of(rig)
            async with running(keeper.run()):
                await until(lambda: exchange.connections)
                await exchange.newest.send(message(1, "rests"))  # hours ago, so to speak
                await exchange.newest.send(message(2))
                await until(lambda: rig.sink.numbers == [1, 2])
                keeper.replace()
                await until(lambda: "public#2" in rig.feed.lives)
                await exchange.connections[0].send(message(3))
                await exchange.connections[1].send(message(3))
                await until(lambda: ("lost", "public#1", True) in rig.venue.log)
                assert ("GAP", 0) not in rig.sink.records
                assert rig.feed.reconnects == 0 and rig.feed.reasons == {REPLACED: 1}

    run(main())


def test_a_successor_that_lacks_what_the_old_connection_delivers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_TIMEOUT_S", 0.5)
    other = StreamPlan("other", "XYZ", Kind.DEPTH, 5, 30, True)

    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url, streams=(DEPTH, other))
            keeper = keeper_of(rig)
            async with running(keeper.run()):
                await until(lambda: exchange.connections)
                keeper.rotate()
                await until(lambda: "public#2" in rig.feed.lives)
                await exchange.connections[0].send(message(1, "other"))
                await exchange.connections[1].send(message(2))
                await until(lambda: ("lost", "public#2", True) in rig.venue.log)
                assert keeper.life is not None
                assert keeper.life.name == "public#1"
                assert "does not deliver" in (rig.feed.last_error or "")

    run(main())


def test_an_old_connection_that_dies_during_the_rotation_is_a_gap_and_the_new_one_stays() -> None:
    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url)
            keeper = keeper_of(rig)
            async with running(keeper.run()):
                await until(lambda: exchange.connections)
                await exchange.newest.send(message(1))
                keeper.rotate()
                await until(lambda: len(exchange.connections) == 2 and "public#2" in rig.feed.lives)
                await exchange.connections[0].close()
                await until(lambda: ("lost", "public#1", False) in rig.venue.log)
                assert keeper.life is not None
                assert keeper.life.name == "public#2"
                await exchange.connections[1].send(message(2))
                await until(lambda: rig.sink.numbers == [1, 2])
                assert len(exchange.connections) == 2

    run(main())


@pytest.mark.covers("F10")
def test_one_venues_trouble_does_not_touch_another() -> None:
    async def main() -> None:
        exchange = Exchange()

        async def broken(ws: ServerConnection) -> None:
            await ws.send("x" * 100_000)

        async with socket_server(exchange) as (_, good_url), socket_server(broken) as (_, bad_url):
            good, bad = rig_for(good_url), rig_for(bad_url, settings={"message_bytes": 4096})
            async with running(keeper_of(good).run(), keeper_of(bad).run()):
                await until(lambda: exchange.connections)
                for n in range(50):
                    await exchange.newest.send(message(n))
                    await asyncio.sleep(0.005)
                await until(lambda: good.sink.numbers == list(range(50)))
                await until(lambda: bad.feed.reconnects >= 3)
            assert good.feed.reconnects == 0
            assert len(exchange.connections) == 1

    run(main())


@pytest.mark.covers("E-H4")
def test_a_flood_on_one_socket_lets_the_loop_turn() -> None:
    """Everything else on the loop gets its turn while a socket hands in all it has."""

    async def main() -> None:
        exchange = Exchange()
        async with socket_server(exchange) as (_, url):
            rig = rig_for(url)
            turns_at: list[int] = []

            async def other() -> None:
                while True:
                    turns_at.append(len(rig.sink.batches))
                    await asyncio.sleep(0)

            async with running(keeper_of(rig).run()):
                await until(lambda: exchange.connections)
                async with running(other()):
                    for n in range(3000):
                        await exchange.newest.send(message(n))
                    await until(lambda: len(rig.sink.batches) == 3000)
            steps = [after - before for before, after in itertools.pairwise(turns_at)]
            assert max(steps) <= module.FAIR_SHARE

    run(main())


@pytest.mark.covers("E-C2", "F14")
def test_failed_connections_leave_no_descriptor() -> None:
    async def main() -> None:
        async def drop(ws: ServerConnection) -> None:
            await ws.close()

        async with socket_server(drop) as (_, url):
            rig = rig_for(url, settings={"reconnect_max_s": 0.1})
            keeper = keeper_of(rig)
            keeper._rng = lambda: 0.0
            async with running(keeper.run()):
                await until(lambda: rig.feed.reconnects >= 5)
            before = open_descriptors()
            keeper = keeper_of(rig)
            async with running(keeper.run()):
                await until(lambda: rig.feed.reconnects >= 25)
            await until(lambda: open_descriptors() <= before, "descriptors are back")

    run(main())


def test_a_peer_that_does_not_say_goodbye_delays_the_stop_by_its_timeout_only() -> None:
    async def main() -> None:
        halted = asyncio.Event()

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            key = (await reader.readuntil(b"\r\n\r\n")).split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
            await halted.wait()
            writer.close()

        server = await asyncio.start_server(deaf, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            rig = rig_for(f"ws://127.0.0.1:{port}/")
            async with running(keeper_of(rig).run()):
                await until(lambda: rig.feed.lives)
                began = time.monotonic()
            taken = time.monotonic() - began
            halted.set()
        assert taken < 3 * module.CLOSE_TIMEOUT_S

    run(main())


def test_the_module_names_no_exchange() -> None:
    """`ingest` serves any venue: an exchange's name in it would be a rule in the wrong place."""
    names = ("binance", "bybit", "okx", "hyperliquid")
    for path in Path(module.__file__).parent.glob("*.py"):
        if path.name == "foreign.py":  # formats of other tools, each of one exchange
            continue
        code = "\n".join(line.partition("#")[0] for line in path.read_text(encoding="utf-8").lower().splitlines())
        assert not [name for name in names if name in code], path.name
