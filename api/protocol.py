"""The connection: uvicorn's httptools protocol with bounds on what a client may send, keep open or leave unread.

uvicorn itself bounds none of these (gunicorn's `limit_request_*` do not reach an ASGI worker). What is refused here never becomes
a request: it is answered with the error body of the contract and the connection is closed. Also here: answers that the cache has
are written at once, in the callback of the parser; and draining. A worker that is
told to stop answers what is on its way with `Connection: close` and only then closes connections that stay silent, so that no
request of a polling client is lost at a reload.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.bodies import Headers
from api.errors import NO_STORE, error_body

LINGER_S: Final = 2.0
LINGER_BYTES: Final = 1 << 20
CONTENT_LENGTH: Final = b"content-length"
METHODS: Final = frozenset((b"GET", b"HEAD"))
HOST: Final = b"host"
VERSIONS: Final = frozenset(("1.0", "1.1"))
CLOSE: Final = (b"connection", b"close")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one worker. Sizes in bytes; `request_line` without its line end, `field` = name + ": " + value."""

    connections: int
    request_timeout_s: float = 30.0
    request_line: int = 4094
    fields: int = 100
    field: int = 8190
    head: int = 128 << 10  # memory bound while a head is still incomplete; above what any two limits of the table need
    body: int = 16 << 10
    drain_idle_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is answered before it becomes one."""

    status: int
    code: str
    detail: str


URI_TOO_LONG: Final = Refusal(414, "uri_too_long", "The request line is too long")
HEADERS_TOO_LARGE: Final = Refusal(431, "headers_too_large", "Too many or too long header fields")
PAYLOAD_TOO_LARGE: Final = Refusal(413, "payload_too_large", "A request body is at most 16 KiB")
MALFORMED: Final = Refusal(400, "invalid_parameter", "The request cannot be understood")
OVERLOADED: Final = Refusal(503, "overloaded", "Too many connections")


CONNECTION: Final = "mpengine.connection"
"""Key of the extensions of a scope: the connection."""


class Application(Protocol):
    """What a connection asks of the application besides ASGI."""

    def wire_answer(
        self, target: bytes, headers: Headers, *, head: bool, more: Headers, scope: dict[str, Any]
    ) -> list[bytes] | None:
        """The whole response in bytes if it is there already, or is a refusal."""

    def refused(self, status: int, headers: Headers) -> Headers:
        """A request with these headers was answered with an error here; headers that the answer needs."""

    def drain(self) -> None:
        """The worker is stopping."""


class BoundedProtocol(HttpToolsProtocol):
    """One client connection. `on_writable`: called when its buffer takes bytes again."""

    def __init__(self, *args: Any, limits: Limits, application: Application, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._application = application
        self._answered = False  # this message has its response already
        self._refusal: Refusal | None = None
        self._refused = False
        self._discarded = 0
        self._open = True  # a message is on its way; a new connection owes one
        self._in_head = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._hosts = 0
        self._running: RequestResponseCycle | None = None  # uvicorn's `cycle` is the last one read, which may still wait its turn
        self._draining = False
        self.on_writable: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(self._limits.request_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._stop_watching()
        self._abandon()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._discard(len(data))
            return
        was_in_head = self._in_head
        super().data_received(data)
        if self.transport.is_closing():
            return
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head:
                self._refusal = HEADERS_TOO_LARGE
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif not self._open:
            self._disarm()
        elif self._timer is None:
            self._arm(self._limits.request_timeout_s)

    def on_message_begin(self) -> None:
        self._open = self._in_head = True
        self._answered = False
        self._head_bytes = self._body_bytes = self._hosts = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        # The line is "GET /path HTTP/1.1"; longer methods than GET and HEAD are refused anyway.
        if len(self.url) + len("GET  HTTP/1.1") > self._limits.request_line:
            self.url = b"/"
            self._refusal = self._refusal or URI_TOO_LONG

    def on_header(self, name: bytes, value: bytes) -> None:
        limits = self._limits
        if len(self.headers) >= limits.fields or len(name) + len(value) + 2 > limits.field:
            self._refusal = self._refusal or HEADERS_TOO_LARGE
            return
        # PERF: the length first; this runs for every field of every request.
        size = len(name)
        if size == len(HOST) and name.lower() == HOST:
            self._hosts += 1
        elif size == len(CONTENT_LENGTH) and name.lower() == CONTENT_LENGTH and int(value) > limits.body:
            self._refusal = self._refusal or PAYLOAD_TOO_LARGE
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._refusal is None and len(self.connections) > self._limits.connections:
            self._refusal = OVERLOADED
        version = self.parser.get_http_version()
        # Two hosts, or none where there has to be one, is how one request is made to look like two to two servers.
        if version not in VERSIONS or self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            self._refusal = self._refusal or MALFORMED
        if self._refusal is not None:
            return
        if self._answer_at_once():
            self._answered = True
            return
        # What answers piece by piece, and is not awaited for each, writes to the connection itself.
        scope = cast("dict[str, Any]", self.scope)
        scope["extensions"] = {CONNECTION: self}
        super().on_headers_complete()
        if self._draining and (cycle := self._unfinished()):
            cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses, in the form of the contract; `msg` is uvicorn's and stays here."""
        self._refusal = self._refusal or MALFORMED

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body:
            self._refusal = self._refusal or PAYLOAD_TOO_LARGE
        if self._refusal is None and not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._open = False
        if self._answered:
            if self.timeout_keep_alive_task is not None:  # several messages in one piece
                self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        elif self._refusal is None:
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_watching()
        if self.on_writable is not None:
            self.on_writable()

    def handle_websocket_upgrade(self) -> None:
        """From here on another protocol has the connection, with time-outs of its own; not while an answer is on its way."""
        if self._running is not None and not self._running.response_complete:
            self._refusal = self._refusal or MALFORMED
        if self._refusal is not None:
            return
        self._disarm()
        self._stop_watching()
        super().handle_websocket_upgrade()

    def unchunked(self) -> None:
        """The answer that is about to begin ends with the connection: HTTP/1.0 knows no chunks, and uvicorn would send them."""
        assert self._running is not None
        self._running.chunked_encoding = False

    def shutdown(self) -> None:
        """The worker is stopping: finish what is on its way, wait shortly for what a client may just be sending."""
        self._application.drain()
        self._draining = True
        if cycle := self._unfinished():
            cycle.keep_alive = False
        else:
            self.loop.call_later(self._limits.drain_idle_s, self._close_if_idle)

    def _answer_at_once(self) -> bool:
        """Write a response that is there already, without making a request of it: no task, no scope, no ASGI messages."""
        method = self.parser.get_method()
        if method not in METHODS or self.flow.write_paused or self.pipeline or self._unfinished():
            return False
        # HTTP/1.0 goes the long way, which knows when such a connection may be kept; an upgrade has its own.
        if self.parser.get_http_version() != "1.1" or self.parser.should_upgrade():
            return False
        keep = not self._draining and self.parser.should_keep_alive()
        more = self.server_state.default_headers if keep else [*self.server_state.default_headers, CLOSE]
        scope = cast("dict[str, Any]", self.scope)
        segments = self._application.wire_answer(self.url, self.headers, head=method == b"HEAD", more=more, scope=scope)
        if segments is None:
            return False
        self.server_state.total_requests += 1
        if len(segments) == 1:
            self.transport.write(segments[0])
        else:
            self.transport.writelines(segments)
        if not keep:
            self.transport.close()
        return True

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _abandon(self) -> None:
        """Nobody waits for answers any more: neither for the one in work nor for those behind it."""
        for cycle in (self._running, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()

    def _close_if_idle(self) -> None:
        if self._unfinished() is None:
            self.transport.close()

    def _unfinished(self) -> RequestResponseCycle | None:
        """The request that is being answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first one, whatever uvicorn declares
        return None if cycle is None or cycle.response_complete else cycle

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, then take in a little more without keeping it: a reset would overtake the answer."""
        self._refused = True
        headers = cast("Headers | None", self.headers)  # None before the first message
        more = self._application.refused(refusal.status, headers or [])
        running = self._running
        if running is not None and running.response_started and not running.response_complete:
            # Half an answer is on its way: anything behind it would be taken for the other half.
            self.transport.close()
            return
        self._abandon()
        self.transport.write(refusal_bytes(refusal, more))
        self.transport.write_eof()
        self._disarm()
        self._arm(LINGER_S)

    def _discard(self, count: int) -> None:
        self._discarded += count
        if self._discarded > LINGER_BYTES:
            self.transport.abort()

    def _arm(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self.transport.abort()

    def _watch(self, unsent: int) -> None:
        self._stall = self.loop.call_later(self._limits.request_timeout_s, self._check_progress, unsent)

    def _stop_watching(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _check_progress(self, unsent: int) -> None:
        """Close a client that has read nothing for a whole time-out; one that reads slowly may go on."""
        now_unsent = self.transport.get_write_buffer_size()
        if now_unsent >= unsent:
            self.transport.abort()
        else:
            self._watch(now_unsent)


def refusal_bytes(refusal: Refusal, more: Headers) -> bytes:
    """The whole response; `more`: headers to add."""
    body = error_body(refusal.code, refusal.detail)
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"Cache-Control: {NO_STORE}",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        lines.append(f"Retry-After: {random.randint(1, 5)}")  # jitter: not everybody comes back in the same second
    head = "\r\n".join(lines).encode("ascii") + b"\r\n" + b"".join(b"%s: %s\r\n" % pair for pair in more)
    return head + b"\r\n" + body
