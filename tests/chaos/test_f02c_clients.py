"""F2, F11: an engine is killed while a hundred clients poll and subscribe; and a client that reads nothing beside others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from mpengine.client import AsyncClient
from mpengine.client.updates import StateUpdate
from shm.board_words import Word
from tests.chaos.rig import ENGINES, lives
from tests.supervisor.rig import Tree

pytestmark = pytest.mark.slow

POLLERS = 50
FOLLOWERS = 50
PATHS = ("/orderbook_heatmap", "/liq_heatmap", "/liq_zones", "/oi", "/candles", "/liquidations", "/orderbook_heatmap_history")
ALLOWED = {200, 304, 404, 503}  # 404: before the first order-book frame
WITHIN_S = 45.0


@dataclass
class Seen:
    """What all clients together were answered."""

    statuses: dict[int, int] = field(default_factory=dict)
    without_hint: int = 0
    broken: int = 0
    ages_ms: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    """Ages of each order-book frame (epoch, number), as they were answered."""


async def poll(url: str, number: int, seen: Seen, over: asyncio.Event) -> None:
    async with aiohttp.ClientSession() as session:
        turn = number
        while not over.is_set():
            path = PATHS[turn % len(PATHS)]
            turn += 1
            try:
                async with session.get(f"{url}{path}?symbol=BTC") as response:
                    await response.read()
            except aiohttp.ClientError:
                seen.broken += 1
                continue
            seen.statuses[response.status] = seen.statuses.get(response.status, 0) + 1
            if response.status == 503 and "Retry-After" not in response.headers:
                seen.without_hint += 1
            if path == PATHS[0] and response.status == 200:
                headers = response.headers
                frame = int(headers["X-Epoch"]), int(headers["X-Seq"])
                seen.ages_ms.setdefault(frame, []).append(int(headers["X-Age-Ms"]))
            await asyncio.sleep(0.02)


async def follow(url: str, number: int, epochs: dict[int, set[int]]) -> None:
    async with AsyncClient(url) as client:
        stream = client.subscribe(["book.BTC"], transport="sse" if number % 2 else "ws")
        async with stream:
            async for item in stream:
                if isinstance(item, StateUpdate):
                    epochs.setdefault(number, set()).add(item.epoch)


@asynccontextmanager
async def clients(url: str, seen: Seen, epochs: dict[int, set[int]]) -> AsyncIterator[None]:
    over = asyncio.Event()
    pollers = [asyncio.create_task(poll(url, number, seen, over)) for number in range(POLLERS)]
    followers = [asyncio.create_task(follow(url, number, epochs)) for number in range(FOLLOWERS)]
    try:
        yield
        for follower in followers:
            assert not follower.done(), follower.exception()
    finally:
        over.set()
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*pollers)
        await asyncio.gather(*followers, return_exceptions=True)


async def until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {WITHIN_S} s: {what}") from None


@pytest.mark.covers("F2")
def test_clients_of_a_killed_engine_see_ages_rise_and_then_its_successor(real: Tree) -> None:
    """No 5xx but a 503 that says when to come back, no connection cut, nobody left behind."""
    others, generation = lives(real, "engine-BTC"), real.word("engine-BTC", Word.GENERATION)
    seen, epochs = Seen(), dict[int, set[int]]()

    async def scenario() -> None:
        async with clients(real.url, seen, epochs):
            await until(lambda: len(epochs) == FOLLOWERS, "every follower has a first state")
            before = {epoch for found in epochs.values() for epoch in found}
            answered = sum(seen.statuses.values())
            os.kill(real.child("engine-BTC"), signal.SIGKILL)
            await until(lambda: real.word("engine-BTC", Word.GENERATION) > generation, "another engine")
            await until(lambda: all(found - before for found in epochs.values()), "every follower has a state of the new engine")
            await until(lambda: sum(seen.statuses.values()) > answered + 20 * POLLERS, "the pollers are answered")

    asyncio.run(scenario())
    assert set(seen.statuses) <= ALLOWED, seen.statuses
    assert (seen.without_hint, seen.broken) == (0, 0)
    assert all(max(ages) > min(ages) for ages in seen.ages_ms.values() if len(ages) > POLLERS), "the age of what is served rises"
    assert lives(real, "engine-BTC") == others
    assert set(ENGINES) == {"engine-BTC", "engine-ETH"}
