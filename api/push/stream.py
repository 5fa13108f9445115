"""`/stream`: the push channels as server-sent events (`spec: api`, section 13.1)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Container
from typing import Final, NamedTuple

from api import params
from api.access import Access, Admission
from api.bodies import JOIN_BELOW
from api.errors import ApiError, invalid
from api.protocol import CLOSE, CONNECTION, BoundedProtocol
from api.push.channels import Position
from api.push.client import Client
from api.push.hub import Hub
from api.push.messages import Frame
from api.push.reply import Receive, Reply, Scope, Send, entered
from api.push.socket import CLOSE_WAIT_S, bound

CHANNELS_PER_STREAM: Final = 32
FIRST_LINE: Final = b"retry: 2000\n\n"
NUMBERED: Final = frozenset(("snapshot", "delta", "gap", "reset"))
_PLACE: Final = re.compile(r"([a-z]+(?:\.[A-Z0-9]+)?):([0-9]{1,19}):([0-9]{1,19})")

HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class StreamConnection:
    """What a client writes to: the body of the response that `serve` has begun. `over`: set when the response is to end."""

    transport = "sse"

    def __init__(self, protocol: BoundedProtocol, over: asyncio.Event, *, chunked: bool = True) -> None:
        self._protocol = protocol
        self._over = over
        self._chunked = chunked

    @property
    def paused(self) -> bool:
        return self._protocol.flow.write_paused or self._protocol.transport.is_closing()

    def send(self, kind: str, frame: Frame, client: Client) -> int:
        number = b"id: %s\n" % places_of(client) if kind in NUMBERED else b""
        head, tail = b"event: %s\n%sdata: " % (kind.encode("ascii"), number), b"\n\n"
        size = len(head) + len(frame.payload) + len(tail)
        if self._chunked:
            head, tail = b"%x\r\n%s" % (size, head), tail + b"\r\n"
        if not self._over.is_set():
            if size < JOIN_BELOW:
                self._protocol.transport.write(b"".join((head, frame.payload, tail)))
            else:
                self._protocol.transport.writelines((head, frame.payload, tail))  # what waits for thousands is held once
        return len(head) + len(frame.payload) + len(tail)

    def begin(self) -> None:
        """The first line."""
        size = b"%x\r\n" % len(FIRST_LINE)
        self._protocol.transport.write(b"".join((size, FIRST_LINE, b"\r\n")) if self._chunked else FIRST_LINE)

    def end(self, code: int) -> None:
        self._over.set()
        transport = self._protocol.transport
        self._protocol.loop.call_later(CLOSE_WAIT_S, lambda: transport.abort() if transport.get_write_buffer_size() else None)

    def abort(self) -> None:
        self._protocol.transport.abort()


def places_of(client: Client) -> bytes:
    """Where a client stands in all of its channels: the id of an event, from which it can go on."""
    places = [
        f"{name}:{one.position[0]}:{one.position[1]}" for name, one in client.subscriptions.items() if one.position is not None
    ]
    return ";".join(places).encode("ascii")


def positions_of(text: str | None) -> dict[str, Position]:
    """Positions by channel of an id; one that is malformed anywhere says nothing at all."""
    if not text:
        return {}
    found = [_PLACE.fullmatch(part) for part in text.split(";")]
    if any(part is None for part in found):
        return {}
    return {part[1]: (int(part[2]), int(part[3])) for part in found if part is not None}


class Wanted(NamedTuple):
    """Checked parameters of a stream: names of channels, and where the client stands in some of them."""

    channels: tuple[str, ...]
    positions: dict[str, Position]


def wanted_of(known: Container[str], query: bytes, last_event_id: str | None) -> Wanted:
    """Parameters of a stream. `known`: names of all channels. Raises ApiError 400."""
    values = params.read_stream(query)
    names: tuple[str, ...] = values["channels"]
    if len(names) > CHANNELS_PER_STREAM:
        raise invalid("channels", f"at most {CHANNELS_PER_STREAM}")
    if not names or any(name not in known for name in names):
        raise invalid("channels", "a list of channels such as depth.BTC,liq.BTC")
    return Wanted(names, positions_of(last_event_id or values["resume"]))


async def serve(hub: Hub, access: Access, reply: Reply, admission: Admission, scope: Scope, receive: Receive, send: Send) -> None:
    """One stream, admitted, from its request to its end."""
    try:
        wanted = wanted_of(hub.channels, scope["query_string"], _last_event_id(scope))
        counted = entered(access, admission, scope)
    except ApiError as error:
        await reply.error(send, error, admission.headers)
        return
    try:
        # A connection that has been a stream ends with it: the time-out of its end would meet the next answer.
        headers = [*HEADERS, CLOSE, *admission.headers, *reply.headers()]
        protocol: BoundedProtocol = scope["extensions"][CONNECTION]
        if not (chunked := scope["http_version"] != "1.0"):
            protocol.unchunked()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        reply.begun(socket=False)
        await _run(hub, wanted, admission, protocol, receive, chunked=chunked)
        await send({"type": "http.response.body"})
    finally:
        access.leave(counted)


async def _run(
    hub: Hub, wanted: Wanted, admission: Admission, protocol: BoundedProtocol, receive: Receive, *, chunked: bool
) -> None:
    over = asyncio.Event()
    bound(protocol.transport)
    connection = StreamConnection(protocol, over, chunked=chunked)
    connection.begin()
    client = hub.begin(connection, admission.key)
    protocol.on_writable = client.writable
    gone = asyncio.create_task(_disconnected(receive, over))
    try:
        for name in wanted.channels:
            channel = hub.channels[name]
            client.subscribe(channel, await hub.resumed(channel, wanted.positions.get(name)), binary=False)
        await over.wait()
    finally:
        hub.end(client)
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


async def _disconnected(receive: Receive, over: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    over.set()


def _last_event_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"last-event-id":
            return bytes(value).decode("latin-1")
    return None
