"""The client for programs without an event loop: `http.client` on kept connections, push through a thread (`bridge`).

Any number of threads may use one client; each request takes a connection of its own out of the pool.
"""

from __future__ import annotations

import http.client
import random
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import TracebackType
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

from mpengine.client import requests
from mpengine.client.answers import Answer, ClockOffset, Exchange, Reply, clock_offset
from mpengine.client.bridge import SyncStream
from mpengine.client.errors import ContractError, Unreachable
from mpengine.client.kept import Kept
from mpengine.client.options import DEFAULT_URL, Options, Server, server_of
from mpengine.client.protocol import Encoding
from mpengine.client.push import Transport
from mpengine.client.requests import Request
from mpengine.client.updates import Position

P = ParamSpec("P")
T = TypeVar("T")

PIECE_BYTES: Final = 256 << 10
KEPT_CONNECTIONS: Final = 8


def _method(build: Callable[P, Request[T]]) -> Callable[Concatenate[Client, P], Answer[T]]:
    """A method that asks what `build` makes of its parameters."""

    @wraps(build)
    def ask(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Answer[T]:
        return self.get(build(*args, **kwargs))

    return ask


class Client:
    """Reads a server. Methods raise ApiError, Unreachable, ContractError (`mpengine.client.errors`)."""

    def __init__(self, url: str = DEFAULT_URL, *, key: str | None = None, options: Options | None = None) -> None:
        self.options = options or Options()
        self.server = server_of(url, key)
        self._kept = Kept(self.options.kept_answers, self.options.kept_bytes)
        self._pool = _Pool(self.server, self.options.timeout_s)
        self._streams: set[SyncStream] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the streams and close idle connections."""
        for stream in list(self._streams):
            stream.close()
        self._pool.close()

    def get(self, request: Request[T]) -> Answer[T]:
        """Ask, again where that may help, and decode."""
        exchange = Exchange(request, self._kept, self.options.retries, random.random, time.monotonic)
        while True:
            try:
                reply = self._send(request.target, exchange.headers())
            except (OSError, http.client.HTTPException) as error:
                result: Answer[T] | float = exchange.broke(error)
            else:
                result = exchange.take(reply)
            if isinstance(result, Answer):
                return result
            time.sleep(result)

    def _send(self, target: str, headers: Mapping[str, str]) -> Reply:
        deadline = time.monotonic() + self.options.timeout_s
        connection = self._pool.take()
        try:
            more = {**self.server.headers(), **headers, "Accept-Encoding": "gzip"}
            connection.request("GET", self.server.prefix + target, headers=more)
            # Leaving the response frees its connection: `read1` does not always find out that it was the last piece.
            with connection.getresponse() as response:
                body = _body(response, connection, deadline, self.options.max_body_bytes)
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._pool.give(connection)
        names = {name.lower(): value for name, value in response.getheaders()}
        if names.get("content-encoding") == "gzip":
            body = _unzipped(body, self.options.max_body_bytes)
        return Reply(response.status, names, body, time.monotonic())

    def clock_offset(self, samples: int = 5) -> ClockOffset:
        """Server's clock minus ours, from some round trips. Raises ValueError where `samples` is below 1."""
        return clock_offset([self._sample() for _ in range(samples)])

    def _sample(self) -> tuple[float, int, float]:
        before = time.time() * 1000
        start = time.monotonic()
        now_ms = self.time().body.now_ms
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
    ) -> SyncStream:
        """Updates of channels, as they come; see `AsyncClient.subscribe`."""
        stream = SyncStream(
            self.server, self.options, tuple(channels), transport, positions=positions, encoding=encoding, heal=heal,
            provisional=provisional, ended=self._streams.discard,
        )  # fmt: skip
        self._streams.add(stream)
        return stream

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


def _body(response: http.client.HTTPResponse, connection: http.client.HTTPConnection, deadline: float, limit: int) -> bytes:
    """The whole body. Raises TimeoutError when it is not there in time, ContractError when it is larger than `limit`."""
    if response.length is None and not response.chunked:
        raise http.client.HTTPException("an answer that does not say how long it is may have been cut anywhere")
    pieces: list[bytes] = []
    size = 0
    while True:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer was not complete in time")
        if connection.sock is not None:  # None where the server closes after this answer; then the time-out of before holds
            connection.sock.settimeout(left_s)
        piece = response.read1(PIECE_BYTES)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise ContractError(f"a body of more than {limit} bytes")
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(pieces)


def _unzipped(body: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise ContractError(f"a body that is not gzip: {error}") from error
    if len(plain) > limit or not unpacker.eof:
        raise ContractError(f"a compressed body that is cut, or of more than {limit} bytes")
    return plain


class _Pool:
    """Idle connections."""

    def __init__(self, server: Server, timeout_s: float) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._closed = False
        self._tls = ssl.create_default_context() if server.scheme == "https" else None

    def take(self) -> http.client.HTTPConnection:
        """An idle connection, or a new one that connects with its first request. Raises Unreachable after `close`."""
        with self._lock:
            if self._closed:
                raise Unreachable(self._server.origin, RuntimeError("the client is closed"))
            if self._idle:
                return self._idle.pop()
        if self._tls is not None:
            return http.client.HTTPSConnection(self._server.host, self._server.port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(self._server.host, self._server.port, timeout=self._timeout_s)

    def give(self, connection: http.client.HTTPConnection) -> None:
        """A connection that may be used again."""
        with self._lock:
            if not self._closed and len(self._idle) < KEPT_CONNECTIONS:
                connection.timeout = self._timeout_s
                if connection.sock is not None:
                    connection.sock.settimeout(self._timeout_s)
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; what is in use closes when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
