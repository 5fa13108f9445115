"""`--url` against a real pool of workers: what it shows, and that killed workers and a server that goes away are survived."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mpengine.config import load, resolve_directories
from mpengine.top import remote
from mpengine.top.badge import badge
from mpengine.top.fanout import Scraper
from mpengine.top.model import Facts
from mpengine.top.remote import RemoteSource, Unusable
from tests.api.conftest import TEXT
from tests.api.sockets import serving
from tests.api.test_serving import WITHIN_S, Pool, start, until
from tests.api.world import World, candle, depth_frame, venue_feed
from tests.client.conftest import fill
from tests.top.samples import driven
from tests.top.terminal import Terminal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pool() -> Iterator[tuple[Pool, World]]:
    """One for both tests: the second one ends it."""
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    found = resolve_directories(load(TEXT, {}), data=directory / "data", runtime=directory / "run")
    for name in ("data", "run"):
        (directory / name).mkdir()
    world = World(found)
    try:
        fill(world)
        with serving(world, public_metrics=True) as made:
            yield made, world
    finally:
        world.close()
        shutil.rmtree(directory)


def url(pool: Pool) -> str:
    return f"http://127.0.0.1:{pool.port}"


@asynccontextmanager
async def following(address: str, key: str | None = None) -> AsyncIterator[RemoteSource]:
    source = RemoteSource(address, key)
    task = asyncio.create_task(source.run())
    try:
        yield source
        assert not task.done(), "it goes on whatever happens"
    finally:
        task.cancel()
        await asyncio.wait([task])


async def facts_when(source: RemoteSource, condition: Callable[[Facts], object], what: str, shown: str | None = None) -> Facts:
    """The first facts of which it is true."""
    found = source.read(shown, 3.0)
    try:
        async with asyncio.timeout(WITHIN_S):
            while not condition(found := source.read(shown, 3.0)):
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited in vain: {what}; last {badge(found, found.now_ms)}")
    return found


def test_one_look_has_the_same_parts_by_requests_alone(pool: tuple[Pool, World]) -> None:
    server, _ = pool
    until(server.workers, "both workers")
    full = RemoteSource(url(server), None).once(None, 3.0, heat=True)
    assert full.map is not None and full.book is not None and len(full.book.columns) == 20
    assert len(full.zones) == 2 and len(full.liquidations) == 3 and full.trouble is None
    xrp = RemoteSource(url(server), None).once("XRP", 3.0, heat=False)
    assert xrp.shown == "XRP" and xrp.zones == () and xrp.map is None, "what is not there yet is no error"
    with pytest.raises(Unusable, match="DOGE is not a symbol"):
        RemoteSource(url(server), None).once("DOGE", 3.0, heat=False)


def test_the_admin_listener_tells_the_fan_out(pool: tuple[Pool, World]) -> None:
    server, _ = pool
    scraper = Scraper(server.settings.paths.admin_socket)
    first = until(lambda: found if (found := scraper.ask()).clients is not None else None, "figures")
    assert (first.clients, first.dropped, first.bytes_s) == (0, 0, None) and first.errors_5xx is not None
    again = scraper.ask()
    assert again.bytes_s == 0.0 and again.requests_s is not None


def test_the_full_screen_of_a_server_in_a_terminal(pool: tuple[Pool, World]) -> None:
    server, world = pool
    world.clock.now_ms = time.time_ns() // 1_000_000
    world.add_candle(candle(world.clock.now_ms - 60_000, 65_892.7))
    world.documents().beat()
    world.feeds().beat()
    world.add_feeds(binance=venue_feed(last_ms=world.clock.now_ms))
    server.board.row(0).beat()
    terminal = Terminal(["--url", url(server), "--hz", "10"], (120, 40), MPENGINE_API_KEY="id.secret")
    try:
        text = terminal.until(lambda text: "▀" in text and "book bid/ask" in text, "the first picture")
        assert url(server) in text and "binance" in text and "500" in text and "id.secret" not in text
        terminal.press(b"2")
        terminal.until(lambda text: "no frame yet" in text, "a symbol without frames")
        terminal.press(b"q")
        assert terminal.ended() == 0 and terminal.restored()
    finally:
        terminal.close()


@driven
async def test_push_fills_the_screen_and_survives_workers_and_servers_that_die(
    pool: tuple[Pool, World],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, world = pool
    monkeypatch.setattr(remote, "HEALTH_S", 0.1)
    monkeypatch.setattr(remote.fanout, "EVERY_S", 0.1)
    async with following(url(server)) as source:
        assert source.read(None, 3.0).trouble == "connecting"
        first = await facts_when(source, lambda one: one.map and one.book and one.zones and len(one.liquidations) == 3, "all parts")
        assert first.trouble is None and first.shown == "BTC" and len(first.zones) == 2
        assert {symbol.name for symbol in first.symbols} == {"BTC", "ETH", "SOL", "XRP"}
        assert first.symbols[0].price is not None and first.venues[0].name == "binance"
        shared = await facts_when(source, lambda one: one.fanout.clients, "metrics of the public port")
        assert shared.fanout.clients >= 1  # type: ignore[operator]

        assert first.book is not None
        world.add_liquidation(notional_usd=77_000.0)
        world.add_depth(depth_frame(first.book.columns[-1].t_ms + 30_000, seed=99))
        pushed = await facts_when(source, lambda one: one.liquidations[0].usd == 77_000.0, "the event")
        assert len(pushed.liquidations) == 4
        await facts_when(source, lambda one: one.book and len(one.book.columns) == len(first.book.columns) + 1, "the column")  # type: ignore[union-attr]

        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        world.add_liquidation(notional_usd=88_000.0)
        again = await facts_when(source, lambda one: one.liquidations[0].usd == 88_000.0 and one.trouble is None, "resumed")
        assert [round(one.usd) for one in again.liquidations] == [88_000, 77_000, 500, 500, 500], "each once, in order"

        eth = await facts_when(source, lambda one: one.shown == "ETH", "another symbol", shown="ETH")
        assert eth.liquidations == () and eth.map is None
        world.add_liquidation(notional_usd=99_000.0)
        back = await facts_when(
            source, lambda one: len(one.liquidations) == 6, "the first one again, behind its position", shown="BTC"
        )
        assert back.liquidations[0].usd == 99_000.0

        server.process.terminate()
        await asyncio.to_thread(server.process.wait, WITHIN_S)
        gone = await facts_when(source, lambda one: one.trouble, "the server is away")
        assert "does not answer" in gone.trouble and badge(gone, gone.now_ms).stale and gone.map is not None  # type: ignore[operator]
        process = start(server.settings)
        try:
            await facts_when(source, lambda one: one.trouble is None, "it is back")
            world.add_liquidation(notional_usd=111_000.0)
            await facts_when(source, lambda one: one.liquidations[0].usd == 111_000.0, "push goes on")
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, WITHIN_S)
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()


def test_who_does_not_answer_is_unusable_and_an_address_must_be_one() -> None:
    with pytest.raises(Unusable, match="does not answer"):
        RemoteSource("http://127.0.0.1:1", None).once(None, 3.0, heat=False)
    with pytest.raises(ValueError, match="address"):
        RemoteSource("desk.example", None).once(None, 3.0, heat=False)
