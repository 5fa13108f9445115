"""The protocol of one WebSocket connection: uvicorn's, with bounds of ours and a way for frames that many clients share.

Frames of data are written as they are: all clients get the same bytes, and without extensions the state of a connection does not
depend on them. What a client may do to us is bounded here: size and pieces of a message, pings, an unread buffer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

from api.protocol import Application

EXTENSION: Final = "mpengine.socket"
"""Where the scope has the connection."""
PIECES: Final = 64  # fragments of one message; it is at most 4 KiB
PINGS_PER_S: Final = 20
CLOSE_WAIT_S: Final = 2.0
GONE_AFTER_MS: Final = 60_000
SEND_BUFFER: Final = 128 << 10  # enough for the budget of a client a tenth of a second away
GOING_AWAY: Final = 1001
POLICY: Final = 1008


class PushSocket(WebSocketsSansIOProtocol):
    """One connection. `on_writable` is called when its buffer takes bytes again;
    `reason`: by which rule of the wire it was ended."""

    def __init__(self, *args: Any, application: Application, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.close_timeout = CLOSE_WAIT_S
        self.on_writable: Callable[[], None] = lambda: None
        self.reason: str | None = None
        self._application = application
        self._pings = 0
        self._pings_since = 0.0

    @property
    def paused(self) -> bool:
        """Whether nothing more should be written now."""
        return not self.writable.is_set() or self.transport.is_closing()

    def write(self, frame: bytes) -> None:
        """Send a frame as it is."""
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(frame)

    def end(self, code: int, reason: str | None = None) -> None:
        """Close with a code; what the client does not take within a short time is thrown away."""
        if self.close_sent or self.transport.is_closing():
            return
        self.reason = reason
        self.stop_keepalive()
        self.conn.send_close(code)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    def abort(self) -> None:
        """Close without another byte."""
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        bound(transport)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # the handshake was a good one; its task has not begun to run
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions[EXTENSION] = self

    async def receive(self) -> Any:
        await self.writable.wait()  # who does not read the answers gets no more of them, whatever it asks
        message = await super().receive()
        if not self.writable.is_set() and not self.read_paused:
            self.transport.pause_reading()  # it has filled up meanwhile, and uvicorn reads on
        return message

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True  # a refusal is an answer; uvicorn would log each one as an error of ours

    def data_received(self, data: bytes) -> None:
        if self.pong_timer is not None:  # whatever it sends, it is alive
            self.pong_timer.cancel()
            self.pong_timer = self.loop.call_later(self.ping_timeout or 0.0, self.keepalive_timeout)
        super().data_received(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        if not self.read_paused:
            self.transport.pause_reading()  # answers to what it sends would pile up

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()
        self.on_writable()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= PIECES:
            self.end(POLICY, "protocol")
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        now = self.loop.time()
        if now - self._pings_since >= 1.0:
            self._pings, self._pings_since = 0, now
        self._pings += 1
        if self._pings > PINGS_PER_S:
            self.conn.data_to_send()
            self.end(POLICY, "protocol")
            return
        super().handle_ping()

    def keepalive_timeout(self) -> None:
        self.pong_timer = None
        self.pending_ping_payload = None
        self.end(GOING_AWAY, "idle")

    def handle_parser_exception(self) -> None:
        self.reason = "protocol"
        super().handle_parser_exception()

    def shutdown(self) -> None:
        self._application.drain()  # says bye and ends every push connection
        if not self.close_sent:
            super().shutdown()


def bound(transport: asyncio.BaseTransport) -> None:
    """Bounds that the system keeps: what it holds for a client that does not read (its own choice is megabytes), and how long
    it waits for one that acknowledges nothing: who has lost the network says nothing."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_AFTER_MS)
