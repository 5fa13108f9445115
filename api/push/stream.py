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
    """What a client writes to: chunks of the response that `serve` has begun. `over`: set when the response is to end."""

    transport = "sse"

    def __init__(self, protocol: BoundedProtocol, over: asyncio.Event) -> None:
        self._protocol = protocol
        self._over = over

    @property
    def paused(self) -> bool:
        return self._protocol.flow.write_paused or self._protocol.transport.is_closing()

    def send(self, kind: str, frame: Frame, client: Client) -> int:
        number = b"id: %s\n" % places_of(client) if kind in NUMBERED else b""
        head = b"event: %s\n%sdata: " % (kind.encode("ascii"), number)
        pieces = [b"%x\r\n%s" % (len(head) + len(frame.payload) + 2, head), frame.payload, b"\n\n\r\n"]
        if not self._over.is_set():
            if len(frame.payload) < JOIN_BELOW:
                self._protocol.transport.write(b"".join(pieces))
            else:
                self._protocol.transport.writelines(pieces)  # what waits for thousands of readers is held once
        return sum(map(len, pieces))

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
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": FIRST_LINE, "more_body": True})
        reply.begun(socket=False)
        await _run(hub, wanted, admission, scope["extensions"][CONNECTION], receive)
        await send({"type": "http.response.body"})
    finally:
        access.leave(counted)


async def _run(hub: Hub, wanted: Wanted, admission: Admission, protocol: BoundedProtocol, receive: Receive) -> None:
    over = asyncio.Event()
    bound(protocol.transport)
    client = hub.begin(StreamConnection(protocol, over), admission.key)
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
