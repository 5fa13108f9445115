"""Helpers of the simulator's tests: small markets, a server in the test's own loop, clients over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import websockets

from mpengine.simulator.market import Changes, Market, SymbolSpec
from mpengine.simulator.process import Plan, build
from mpengine.simulator.server import MarketSource, SimulatorServer
from mpengine.simulator.symbols import spec

START_NS = 1_790_000_000 * 10**9
SECOND_NS = 10**9
DEADLINE_S = 20.0


def small(symbol: str = "BTC", **values: Any) -> SymbolSpec:
    """A symbol with few positions, quick to build."""
    return spec(symbol, **{"positions": 60, "open_interest_usd": 5e6, **values})


def market(*specs: SymbolSpec, seed: int = 1) -> Market:
    return Market(specs or (small(),), np.random.default_rng(seed), START_NS)


def steps(of: Market, seconds: float) -> list[list[Changes]]:
    """All changes of some market time."""
    return list(of.step(of.now_ns + int(seconds * SECOND_NS)))


class Running:
    """A listening server and its addresses."""

    def __init__(self, server: SimulatorServer, port: int) -> None:
        self.server = server
        self.base = f"http://127.0.0.1:{port}"
        self.port = port
        self.session = aiohttp.ClientSession()

    def url(self, route: str, *streams: str) -> str:
        return f"ws://127.0.0.1:{self.port}/binance/{route}/stream?streams={'/'.join(streams)}"

    def connect(self, route: str, *streams: str, **options: Any) -> Any:
        options = {"close_timeout": 0.2, "compression": None, "max_size": None, "max_queue": None, **options}
        return websockets.connect(self.url(route, *streams), **options)

    async def get(self, path: str) -> tuple[int, dict[str, str], Any]:
        """(status, headers with lower-case names, JSON body)"""
        async with self.session.get(self.base + path) as reply:
            body = await reply.read()
            headers = {name.lower(): value for name, value in reply.headers.items()}
            return reply.status, headers, json.loads(body) if body[:1] in (b"{", b"[") else body

    async def post(self, path: str, values: Any = None) -> tuple[int, Any]:
        async with self.session.post(self.base + path, data=json.dumps(values)) as reply:
            return reply.status, await reply.json()

    async def delete(self, path: str) -> Any:
        async with self.session.delete(self.base + path) as reply:
            return await reply.json()

    async def fault(self, kind: str, **values: Any) -> dict[str, Any]:
        status, body = await self.post("/control/faults", {"venue": "binance", "fault": kind, **values})
        assert status == 201, body
        return dict(body)


@asynccontextmanager
async def running(*specs: SymbolSpec, speed: float = 20.0, plan: Plan | None = None) -> AsyncIterator[Running]:
    """A server on a free port of this machine, with `specs` or a whole plan."""
    plan = plan or Plan("127.0.0.1", 0, 1, speed, list(specs) or [small()], announce=False)
    server = build(plan, START_NS)
    port = await server.start("127.0.0.1", 0)
    one = Running(server, port)
    try:
        yield one
    finally:
        await one.session.close()
        await server.stop()


def market_of(one: Running) -> Market:
    source = one.server.source
    assert isinstance(source, MarketSource)
    return source.market


async def receive(ws: Any, deadline_s: float = DEADLINE_S) -> dict[str, Any]:
    """The next message, as JSON."""
    return dict(json.loads(await asyncio.wait_for(ws.recv(), deadline_s)))


async def receive_until(ws: Any, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first message that is wanted."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            message = await receive(ws)
            if wanted(message):
                return message


async def closing(ws: Any) -> websockets.ConnectionClosed:
    """How the connection ended, after everything that came before."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await ws.recv()
            except websockets.ConnectionClosed as closed:
                return closed


async def ask(ws: Any, text: str | dict[str, Any]) -> dict[str, Any]:
    """The reply to a request: the next message that is no stream's."""
    await ws.send(text if isinstance(text, str) else json.dumps(text))
    return await receive_until(ws, lambda message: "stream" not in message)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fails after the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def run(test: Awaitable[None]) -> None:
    """Run an asynchronous test, bounded in time."""

    async def bounded() -> None:
        async with asyncio.timeout(3 * DEADLINE_S):
            await test

    asyncio.run(bounded())
