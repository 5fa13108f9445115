"""The client for programs with an event loop: one aiohttp session for requests and push."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import wraps
from types import TracebackType
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

import aiohttp
from yarl import URL

from mpengine.client import requests
from mpengine.client.answers import NOT_MODIFIED, Answer, ClockOffset, Exchange, Reply, clock_offset
from mpengine.client.errors import ContractError, Unreachable
from mpengine.client.kept import Kept
from mpengine.client.options import DEFAULT_URL, Options, Server, server_of
from mpengine.client.protocol import Encoding, Session
from mpengine.client.push import Stream, Transport
from mpengine.client.requests import Request
from mpengine.client.updates import Position

P = ParamSpec("P")
T = TypeVar("T")

PIECE_BYTES: Final = 256 << 10
NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)


def _method(build: Callable[P, Request[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[Answer[T]]]:
    """A method that asks what `build` makes of its parameters."""

    @wraps(build)
    async def ask(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        return await self.get(build(*args, **kwargs))

    return ask


class AsyncClient:
    """Reads a server, from one event loop. Methods raise ApiError, Unreachable, ContractError (`mpengine.client.errors`)."""

    def __init__(self, url: str = DEFAULT_URL, *, key: str | None = None, options: Options | None = None) -> None:
        self.options = options or Options()
        self.server: Server = server_of(url, key)
        self._kept = Kept(self.options.kept_answers, self.options.kept_bytes)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._streams: set[Stream] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """End the streams and close every connection."""
        self._closed = True
        for stream in list(self._streams):
            await stream.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, request: Request[T]) -> Answer[T]:
        """Ask, again where that may help, and decode."""
        exchange = Exchange(request, self._kept, self.options.retries, random.random, time.monotonic)
        while True:
            try:
                reply = await self._send(request.target, exchange.headers())
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                result: Answer[T] | float = exchange.broke(error)
            else:
                result = exchange.take(reply)
            if isinstance(result, Answer):
                return result
            await asyncio.sleep(result)

    async def _send(self, target: str, headers: Mapping[str, str]) -> Reply:
        timeout = aiohttp.ClientTimeout(total=self.options.timeout_s)
        limit = self.options.max_body_bytes
        async with self.session().get(self._url(target), headers=headers, timeout=timeout, allow_redirects=False) as response:
            if not {"Content-Length", "Transfer-Encoding"} & response.headers.keys() and response.status != NOT_MODIFIED:
                raise aiohttp.ClientPayloadError("an answer that does not say how long it is may have been cut anywhere")
            pieces: list[bytes] = []
            size = 0
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise ContractError(f"a body of more than {limit} bytes")
            names = {name.lower(): value for name, value in response.headers.items()}
            return Reply(response.status, names, b"".join(pieces), time.monotonic())

    def session(self) -> aiohttp.ClientSession:
        """The aiohttp session, opened with the first request. Raises Unreachable after `close`."""
        if self._closed:
            raise Unreachable(self.server.origin, RuntimeError("the client is closed"))
        if self._session is None:
            # No limit: streams hold their connections, and requests must not wait for them.
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, headers=self.server.headers(), timeout=NO_TIMEOUT)
        return self._session

    def _url(self, target: str) -> URL:
        return URL(self.server.origin + self.server.prefix + target, encoded=True)

    async def clock_offset(self, samples: int = 5) -> ClockOffset:
        """Server's clock minus ours, from some round trips. Raises ValueError where `samples` is below 1."""
        return clock_offset([await self._sample() for _ in range(samples)])

    async def _sample(self) -> tuple[float, int, float]:
        before = time.time() * 1000
        start = time.monotonic()
        now_ms = (await self.time()).body.now_ms
        return before, now_ms, before + (time.monotonic() - start) * 1000

    def subscribe(
        self,
        channels: Iterable[str],
        transport: Transport = "ws",
        *,
        positions: Mapping[str, Position] | None = None,
        encoding: Encoding = "bin",
        heal: bool = True,
        provisional: bool = False,
    ) -> Stream:
        """Updates of channels such as `depth.BTC`, as they come. It connects with the first `async for` or `async with`.

        `positions`: where to resume (`Stream.positions` of an earlier one). `encoding`: of columns over `ws`. `heal` False: what
        was left out is told as `Lost` instead of being fetched. `provisional`: the running window is wanted too.
        """
        session = Session(tuple(channels), positions or {}, encoding, heal, provisional)
        stream = Stream(self, session, transport, ended=self._streams.discard)
        self._streams.add(stream)
        return stream

    # One line per endpoint; parameters and documentation are those of `requests`.
    health = _method(requests.health)
    livez = _method(requests.livez)
    readyz = _method(requests.readyz)
    time = _method(requests.time)
    metrics = _method(requests.metrics)
    openapi = _method(requests.openapi)
    oi = _method(requests.oi)
    liq_heatmap = _method(requests.liq_heatmap)
    liq_heatmap_history = _method(requests.liq_heatmap_history)
    liq_heatmap_v2 = _method(requests.liq_heatmap_v2)
    liq_heatmap_v2_history = _method(requests.liq_heatmap_v2_history)
    liq_stats = _method(requests.liq_stats)
    orderbook_heatmap = _method(requests.orderbook_heatmap)
    orderbook_heatmap_bin = _method(requests.orderbook_heatmap_bin)
    orderbook_heatmap_history = _method(requests.orderbook_heatmap_history)
    orderbook_heatmap_history_bin = _method(requests.orderbook_heatmap_history_bin)
    orderbook_heatmap_stats = _method(requests.orderbook_heatmap_stats)
    orderbook_heatmap_debug = _method(requests.orderbook_heatmap_debug)
    liq_zones = _method(requests.liq_zones)
    liq_zones_summary = _method(requests.liq_zones_summary)
    liq_zones_heatmap = _method(requests.liq_zones_heatmap)
    heatmap = _method(requests.heatmap)
    heatmap_bin = _method(requests.heatmap_bin)
    liquidations = _method(requests.liquidations)
    candles = _method(requests.candles)
