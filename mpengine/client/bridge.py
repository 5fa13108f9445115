"""Push for programs without an event loop: a thread with a loop of its own runs the asynchronous stream.

One implementation of reconnecting, resuming and healing instead of two; the thread also keeps beats and staleness going while the
program does something else. It is a daemon, so a stream that nobody closed does not keep a program from ending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from mpengine.client.aio import AsyncClient
from mpengine.client.errors import Unreachable
from mpengine.client.options import Options, Server
from mpengine.client.protocol import Encoding, Session, Stats
from mpengine.client.push import Stream, Transport
from mpengine.client.updates import Item, Position
from mpengine.contract.push import Beat


class SyncStream:
    """An iterator of `Update`, `Reset` and `Lost`; see `Client.subscribe`. For one thread at a time."""

    def __init__(
        self,
        server: Server,
        options: Options,
        channels: tuple[str, ...],
        transport: Transport,
        *,
        positions: Mapping[str, Position] | None,
        encoding: Encoding,
        heal: bool,
        provisional: bool,
        ended: Callable[[SyncStream], None],
    ) -> None:
        self._server = server
        self._options = options
        self._session = Session(channels, positions or {}, encoding, heal, provisional)
        self._transport: Transport = transport
        self._on_end = ended
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stream: Stream | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._pending: concurrent.futures.Future[Item | None] | None = None
        self._failure: OSError | None = None
        self._closed = False

    @property
    def positions(self) -> dict[str, Position]:
        """Channel -> where the user stands; give it to `subscribe` to resume."""
        return dict(self._session.positions if self._stream is None else self._stream.positions)

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._stream is not None and self._stream.connected

    @property
    def stats(self) -> Stats:
        """What happened so far."""
        return self._session.stats

    @property
    def beat(self) -> Beat | None:
        """The newest beat."""
        return self._session.beat

    def age(self, channel: str) -> float | None:
        """Seconds since the time of the channel's newest data; None before any."""
        return None if self._stream is None else self._stream.age(channel)

    def stale(self, channel: str) -> bool:
        """Whether to distrust the channel."""
        return self._stream is None or self._stream.stale(channel)

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        return self.next()

    def next(self, timeout_s: float | None = None) -> Item:
        """The next item. Raises TimeoutError when none came in time (nothing is lost by that), StopIteration after `close`,
        and what ended the stream."""
        if self._closed:
            raise StopIteration
        self._start()
        # One that timed out before is still waiting: a second one would race with it for the next item.
        if self._pending is None:
            if self._loop is None or self._stream is None:
                raise Unreachable("a thread for the stream", self._failure or RuntimeError("it did not start"))
            self._pending = asyncio.run_coroutine_threadsafe(_next(self._stream), self._loop)
        future = self._pending
        concurrent.futures.wait([future], timeout_s)
        if not future.done():
            raise TimeoutError(f"nothing came for {timeout_s} s")
        self._pending = None
        item = future.result()
        if item is None:
            raise StopIteration
        return item

    def close(self) -> None:
        """End the stream and its thread. May be called again, and from another thread."""
        self._closed = True
        if self._thread is not None and self._loop is not None and self._stop is not None:
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:
                pass  # the loop has ended already
            self._thread.join()
        self._on_end(self)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mpengine.client", daemon=True)
            self._thread.start()
            self._ready.wait()

    def _work(self) -> None:
        try:
            asyncio.run(self._main())
        except OSError as error:  # no descriptor for a loop
            self._failure = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        url = self._server.origin + self._server.prefix
        async with AsyncClient(url, key=self._server.key, options=self._options) as client:
            self._stream = Stream(client, self._session, self._transport, ended=lambda _stream: None)
            async with self._stream:
                self._ready.set()
                await self._stop.wait()
        # Whoever waits for an item is told that there is none before the loop ends.
        if waiting := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(waiting)


async def _next(stream: Stream) -> Item | None:
    """The next item; None at the end, since a future cannot hold StopAsyncIteration."""
    async for item in stream:
        return item
    return None
