"""The shell of the push contract: connections over WebSocket or SSE around one `Session`, and a bounded queue to the user.

    socket -> Session.receive -> steps -> queue -> `async for`
                                 Fetch: REST, in place, so that updates stay in order

One task per stream reads; it is started by the first `async for` or `async with` and ends with `close`, with the client, or with
an error that another connection would not cure, which the user gets behind what is still queued.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Literal, NoReturn, Protocol, Self, TypeVar

import aiohttp
from yarl import URL

from mpengine.client.answers import RETRIED, Answer, Reply, error_of
from mpengine.client.errors import ApiError, ClientError, ContractError, SlowConsumer, Unreachable
from mpengine.client.heal import Heal
from mpengine.client.options import Options, Server
from mpengine.client.protocol import Broken, Closing, Deliver, Fatal, Fetch, Resubscribe, Session, Stats, Step
from mpengine.client.requests import Request
from mpengine.client.sse import SseParser
from mpengine.client.updates import Item, Lost, Position, Update
from mpengine.contract.push import Beat

T = TypeVar("T")
Transport = Literal["ws", "sse"]

log = logging.getLogger("mpengine.client")

MAX_MESSAGE_BYTES: Final = 8 << 20
FRAMES_PER_SECOND: Final = 8
"""Of the 10 that the server takes."""
POLICY: Final = 1008
CLOSE_S: Final = 1.0
MALFORMED_TRIES: Final = 5
"""So many connections in a row that end with a message nobody understands end the stream."""
PASSING_STATUSES: Final = frozenset((408, 425, 429))
STALE_AFTER_S: Final = {
    "depth": 90.0, "liq": 240.0, "zones": 180.0, "levels": 180.0, "candles": 180.0, "oi": 60.0, "book": 90.0,
}  # fmt: skip
"""Age from which a channel is stale though nobody says so, because its source has stopped: of a column from its start (of a map
180 s from the end of its minute), else from when it was published. Liquidations may be silent, `status` speaks when it changes."""


class Host(Protocol):
    """What a stream needs of its client."""

    options: Options
    server: Server

    def session(self) -> aiohttp.ClientSession:
        """The aiohttp session."""

    async def get(self, request: Request[T]) -> Answer[T]:
        """One REST answer."""


class _Ended(Exception):
    """A connection is over and another one may do. `wait_s`: when the server wants us back."""

    def __init__(self, reason: str, wait_s: float | None = None, cause: BaseException | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.cause = cause


class _Link(Protocol):
    """One connection."""

    async def receive(self) -> Sequence[str | bytes]:
        """The next messages. Raises _Ended, aiohttp's errors."""

    async def resubscribe(self, channels: Sequence[str]) -> None:
        """Subscribe these channels anew."""


class Stream:
    """An async iterator of `Update`, `Reset` and `Lost`; see `AsyncClient.subscribe`. For one task at a time."""

    def __init__(self, host: Host, session: Session, transport: Transport, ended: Callable[[Stream], None]) -> None:
        self._host = host
        self._session = session
        self._transport = transport
        self._on_end = ended
        self._queue: deque[Item] = deque()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._over = False
        self._error: BaseException | None = None
        self._beat_at_s: float | None = None
        self._heard_s: float | None = None
        self.connected = False
        self.positions: dict[str, Position] = dict(session.positions)
        """Channel -> where the user stands, after what has been handed out. Give it to `subscribe` to resume."""

    @property
    def stats(self) -> Stats:
        """What happened so far."""
        return self._session.stats

    @property
    def beat(self) -> Beat | None:
        """The newest beat: heads of the channels, ages of the venues."""
        return self._session.beat

    def age(self, channel: str) -> float | None:
        """Seconds since the time of the channel's newest data, by the server's clock; None before any."""
        ts_ms = self._session.ts_ms(channel)
        if ts_ms is None:
            return None
        now_ms = time.time() * 1000
        if self.beat is not None and self._beat_at_s is not None:
            now_ms = self.beat.now_ms + (time.monotonic() - self._beat_at_s) * 1000
        return max(0.0, (now_ms - ts_ms) / 1000)

    def stale(self, channel: str) -> bool:
        """Whether to distrust the channel: the server said so, its source has stopped since, or the server is silent."""
        silent = self._heard_s is None or time.monotonic() - self._heard_s > self._host.options.silence_s
        limit_s = STALE_AFTER_S.get(channel.partition(".")[0])
        age_s = self.age(channel)
        old = limit_s is not None and age_s is not None and age_s > limit_s
        return silent or old or self._session.stale(channel)

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        self._start()
        while not self._queue:
            if self._over:
                error, self._error = self._error, None
                raise error if error is not None else StopAsyncIteration
            self._readable.clear()
            await self._readable.wait()
        item = self._queue.popleft()
        self._writable.set()
        if isinstance(item, Update | Lost) and not (isinstance(item, Update) and item.way == "provisional"):
            known = self.positions.get(item.channel)
            after = item.position
            if after.t_ms is None and known is not None:
                after = after._replace(t_ms=known.t_ms)
            self.positions[item.channel] = after
        return item

    async def close(self) -> None:
        """End the stream: what is queued is dropped, the connection closed. May be called again."""
        self._over = True
        self._queue.clear()
        self._error = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._error = None
        self._on_end(self)
        self._readable.set()

    def _start(self) -> None:
        if self._task is None and not self._over:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="mpengine.client stream")
            self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._over = True
        self.connected = False
        self._error = None if task.cancelled() else task.exception()
        self._on_end(self)
        self._readable.set()

    async def _run(self) -> None:
        """Connections, one after the other. Raises what ends the stream."""
        options = self._host.options
        failures = malformed = 0
        lost_s = time.monotonic()
        while True:
            pause_s: float | None = None
            error: BaseException
            try:
                await self._connection()
            except _Ended as ended:
                pause_s, error = ended.wait_s, ended.cause or ended
                log.info("the connection to %s ended: %s", self._host.server.origin, ended)
            except (aiohttp.ClientError, TimeoutError, OSError) as broken:
                error = broken
                log.info("the connection to %s broke: %s", self._host.server.origin, type(broken).__name__)
            finally:
                self.connected = False
            if self._session.healthy:
                failures = malformed = 0
                lost_s = time.monotonic()
            malformed = malformed + 1 if isinstance(error, ContractError) else 0
            if malformed >= MALFORMED_TRIES:
                raise error
            if options.give_up_s is not None and time.monotonic() - lost_s > options.give_up_s:
                raise Unreachable("/ws" if self._transport == "ws" else "/stream", error)
            if pause_s is None:
                pause_s = random.random() * min(options.reconnect_limit_s, options.reconnect_first_s * 2.0 ** min(failures, 30))
            failures += 1
            await asyncio.sleep(pause_s)

    async def _connection(self) -> NoReturn:
        """One connection until it ends. Raises _Ended, aiohttp's errors; ClientError where another one would not help."""
        self._session.begin()
        async with self._ws() if self._transport == "ws" else self._sse() as link:
            self.connected = True
            while True:
                async with asyncio.timeout(self._host.options.silence_s):
                    batch = await link.receive()
                self._heard_s = time.monotonic()
                for message in batch:
                    known = self._session.beat
                    steps = self._session.receive(message)
                    if self._session.beat is not known:
                        self._beat_at_s = self._heard_s
                    for step in steps:
                        await self._do(step, link)

    async def _do(self, step: Step, link: _Link) -> None:
        match step:
            case Deliver(item):
                await self._put(item)
            case Fetch(heal):
                await self._fetch(heal)
            case Resubscribe(channels):
                await link.resubscribe(channels)
            case Closing(reason, wait_s):
                raise _Ended(f"bye: {reason}", wait_s)
            case Broken(error):
                raise _Ended(str(error), cause=error)
            case Fatal(error):
                raise error

    async def _put(self, item: Item) -> None:
        options = self._host.options
        if len(self._queue) >= options.queue:
            self._writable.clear()
            try:
                async with asyncio.timeout(options.patience_s):
                    await self._writable.wait()
            except TimeoutError:
                raise SlowConsumer(len(self._queue), options.patience_s) from None
        self._queue.append(item)
        self._readable.set()

    async def _fetch(self, heal: Heal) -> None:
        """Drive a heal to its end; nothing of the channel passes meanwhile."""
        while (request := heal.request()) is not None:
            try:
                answer = await self._asked(request)
            except (ClientError, TimeoutError) as error:
                heal.fail(str(error) or "no answer in time")
                break
            for item in heal.take(answer.body):
                await self._put(item)
        for item in heal.end():
            await self._put(item)

    async def _asked(self, request: Request[T]) -> Answer[T]:
        """The answer, also of a server that is restarting or busy. Raises ClientError, TimeoutError."""
        options = self._host.options
        deadline = time.monotonic() + options.heal_s
        while True:
            try:
                async with asyncio.timeout(options.timeout_s):
                    return await self._host.get(request)
            except (Unreachable, ApiError, TimeoutError) as error:
                final = isinstance(error, ApiError) and error.status not in RETRIED
                if final or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(random.random() * options.reconnect_first_s)

    def _url(self, target: str) -> URL:
        server = self._host.server
        return URL(server.origin + server.prefix).joinpath(target)

    @asynccontextmanager
    async def _ws(self) -> AsyncIterator[_Link]:
        try:
            async with asyncio.timeout(self._host.options.timeout_s):
                socket = await self._host.session().ws_connect(
                    self._url("ws"), max_msg_size=MAX_MESSAGE_BYTES, timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S)
                )
        except aiohttp.WSServerHandshakeError as error:
            names = {name.lower(): value for name, value in (error.headers or {}).items()}
            raise _refusal(error_of(Reply(error.status, names, b"", time.monotonic()))) from None
        try:
            link = _WebSocket(socket, self._session)
            await link.send(self._session.subscriptions())
            yield link
        finally:
            await socket.close()

    @asynccontextmanager
    async def _sse(self) -> AsyncIterator[_Link]:
        headers = {"Accept": "text/event-stream"}
        if resume := self._session.resume():
            headers["Last-Event-ID"] = resume
        options = self._host.options
        timeout = aiohttp.ClientTimeout(total=None, connect=options.timeout_s, sock_read=options.silence_s)
        url = self._url("stream").with_query(channels=",".join(dict.fromkeys(self._session.channels)), cell="u8log")
        async with self._host.session().get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
            if response.status != 200:
                names = {name.lower(): value for name, value in response.headers.items()}
                body = await response.content.read(4096)
                raise _refusal(error_of(Reply(response.status, names, body, time.monotonic())))
            if response.content_type != "text/event-stream":
                raise ContractError(f"/stream answered with {response.content_type}")
            yield _EventStream(response)


def _refusal(error: ApiError) -> Exception:
    """What to raise for a connection that was refused: the error where it would be refused again."""
    if 400 <= error.status < 500 and error.status not in PASSING_STATUSES:
        return error
    wait_s = error.retry_after_s
    if wait_s is not None:
        wait_s += random.random() * max(1.0, 0.1 * wait_s)
    return _Ended(str(error), wait_s, error)


class _WebSocket:
    """A connection to `/ws`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: Session) -> None:
        self._socket = socket
        self._session = session

    async def send(self, frames: Sequence[str]) -> None:
        """Frames, not more per second than the server takes."""
        for index, frame in enumerate(frames):
            if index and index % FRAMES_PER_SECOND == 0:
                await asyncio.sleep(1.0)
            await self._socket.send_str(frame)

    async def receive(self) -> Sequence[str | bytes]:
        message: Any = await self._socket.receive()
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return (message.data,)
        code = self._socket.close_code
        if code == POLICY:
            raise ApiError(403, "forbidden", f"the server closed the connection: {message.extra or POLICY}")
        raise _Ended(f"closed with {code}")

    async def resubscribe(self, channels: Sequence[str]) -> None:
        await self.send([self._session.unsubscription(channels), *self._session.subscriptions(channels)])


class _EventStream:
    """A connection to `/stream`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._parser = SseParser()

    async def receive(self) -> Sequence[str | bytes]:
        piece = await self._response.content.readany()
        if not piece:
            raise _Ended("the stream ended")
        return [event.data for event in self._parser.feed(piece)]

    async def resubscribe(self, channels: Sequence[str]) -> None:
        raise _Ended("to subscribe anew", 0.0)  # the channels of a stream are those of its request
