"""`/ws`: the push channels over a WebSocket (`spec: api`, section 13.2)."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
import orjson

from api.access import Access
from api.errors import ApiError
from api.push import messages
from api.push.channels import Channel, Position
from api.push.client import Client
from api.push.hub import Hub
from api.push.messages import Frame
from api.push.reply import Receive, Reply, Scope, Send, entered, peer_of
from api.push.socket import EXTENSION, POLICY, PushSocket
from mpengine.contract.push import Ask, Auth, Subscribe, Unsubscribe

CHANNELS_PER_SOCKET: Final = 1024
COMMANDS_PER_S: Final = 10
STRIKES: Final = 3  # seconds in a row with more commands than that
MISTAKES: Final = 10
AUTH_WAIT_S: Final = 5.0
UNSUPPORTED: Final = 1003
_OPERATIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "subscribe": Subscribe, "unsubscribe": Unsubscribe, "list": Ask, "ping": Ask, "auth": Auth,
}  # fmt: skip


class SocketConnection:
    """What a client writes to."""

    transport = "ws"

    def __init__(self, socket: PushSocket) -> None:
        self._socket = socket

    @property
    def paused(self) -> bool:
        return self._socket.paused

    def send(self, kind: str, frame: Frame, client: Client) -> int:
        data = frame.framed
        self._socket.write(data)
        return len(data)

    def end(self, code: int) -> None:
        self._socket.end(code)

    def abort(self) -> None:
        self._socket.abort()


async def serve(
    hub: Hub, access: Access, reply: Reply, overload: ApiError | None, scope: Scope, receive: Receive, send: Send
) -> None:
    """One connection from its handshake to its end. `overload`: why there may be no more of them now."""
    await receive()
    admission = access.admit_socket(scope["headers"], peer_of(scope))
    try:
        if (error := admission.error or overload) is not None:
            raise error
        counted = entered(access, admission, scope)
    except ApiError as error:
        await reply.error(send, error, admission.headers, socket=True)
        return
    try:
        await send({"type": "websocket.accept", "headers": [*admission.headers, *reply.headers()]})
        reply.begun(socket=True)
        connection: PushSocket = scope["extensions"][EXTENSION]
        client = hub.begin(SocketConnection(connection), admission.key)
        connection.on_writable = client.writable
        try:
            await _Session(hub, access, client, locked=access.keys is not None and admission.key is None).run(receive)
        finally:
            client.reason = client.reason or connection.reason
            hub.end(client)
    finally:
        access.leave(counted)


class _Session:
    """The commands of one client. `locked`: it has to send its key first."""

    def __init__(self, hub: Hub, access: Access, client: Client, *, locked: bool) -> None:
        self._hub = hub
        self._access = access
        self._client = client
        self._locked = locked
        self._mistakes = 0
        self._second = 0
        self._commands = 0
        self._strikes = 0

    async def run(self, receive: Receive) -> None:
        """Until the connection is gone."""
        if self._locked:
            try:
                async with asyncio.timeout(AUTH_WAIT_S):
                    event = await receive()
            except TimeoutError:
                self._client.close("unauthorized", POLICY)
                event = await receive()
        else:
            event = await receive()
        while event["type"] == "websocket.receive":
            if self._client.reason is None:
                await self._take(event)
            event = await receive()

    async def _take(self, event: Any) -> None:
        text = event.get("text")
        if text is None:
            self._client.close("protocol", UNSUPPORTED)
        elif self._in_time():
            await self._command(text)

    async def _command(self, text: str) -> None:
        raw: Any = None
        try:
            raw = orjson.loads(text)
            command = msgspec.convert(raw, _OPERATIONS[raw["op"]])
        except (orjson.JSONDecodeError, msgspec.ValidationError, LookupError, TypeError):
            if self._locked:
                self._client.close("unauthorized", POLICY)
                return
            number = raw.get("id") if isinstance(raw, dict) else None
            self._mistake(number if type(number) is int else None, "invalid_parameter", "Not a command of this interface")
            return
        if isinstance(command, Auth):
            self._unlock(command)
        elif self._locked:
            self._client.close("unauthorized", POLICY)
        elif isinstance(command, Subscribe):
            await self._subscribe(command)
        elif isinstance(command, Unsubscribe):
            for name in command.channels:
                self._client.unsubscribe(name)
            self._ack(command.id, {})
        else:
            assert isinstance(command, Ask)
            names = self._client.subscriptions if command.op == "list" else {}
            self._ack(command.id, {name: self._hub.channels[name] for name in names})

    async def _subscribe(self, command: Subscribe) -> None:
        client, errors, positions = self._client, dict[str, str](), dict[str, Position | None]()
        wanted = {} if command.from_ is msgspec.UNSET else command.from_
        for name in command.channels:
            channel = self._hub.channels.get(name)
            if channel is None:
                errors[name] = self._hub.reason_against(name)
            elif len(client.subscriptions.keys() | positions.keys() | {name}) > CHANNELS_PER_SOCKET:
                errors[name] = "too_many"
            else:
                positions[name] = await self._hub.resumed(channel, wanted.get(name))
        channels = {name: self._hub.channels[name] for name in positions}
        self._ack(command.id, channels, errors)
        for name, position in positions.items():
            client.subscribe(channels[name], position, binary=command.encoding == "bin")

    def _unlock(self, command: Auth) -> None:
        """A key as the first message; without need it is taken as well, if it is a good one."""
        found = self._access.check_key(command.key) if self._access.keys is not None else None
        if isinstance(found, ApiError):
            self._client.close("unauthorized", POLICY)
            return
        self._client.key, self._locked = found, False
        self._ack(command.id, {})

    def _ack(self, number: int, channels: dict[str, Channel], errors: dict[str, str] | None = None) -> None:
        told = {}
        for name, channel in channels.items():
            epoch, seq = channel.head or (None, None)
            told[name] = {"no": channel.number, "epoch": epoch, "seq": seq}
        more = {"errors": errors} if errors else {}
        self._client.say("ack", messages.plain({"type": "ack", "id": number, "channels": told, **more}))

    def _mistake(self, number: int | None, code: str, detail: str) -> None:
        self._client.say("error", messages.plain({"type": "error", "id": number, "error": code, "detail": detail}))
        self._mistakes += 1
        if self._mistakes >= MISTAKES:
            self._client.close("protocol", POLICY)

    def _in_time(self) -> bool:
        """Whether this command is one of the ten of its second; three seconds with more end the connection."""
        second = int(self._client.loop.time())
        if second != self._second:
            self._strikes = self._strikes + 1 if self._commands > COMMANDS_PER_S and second == self._second + 1 else 0
            self._second, self._commands = second, 0
        self._commands += 1
        if self._commands <= COMMANDS_PER_S:
            return True
        if self._commands == COMMANDS_PER_S + 1:
            detail = f"At most {COMMANDS_PER_S} commands a second"
            self._client.say("error", messages.plain({"type": "error", "id": None, "error": "rate_limited", "detail": detail}))
        if self._strikes >= STRIKES - 1:
            self._client.close("protocol", POLICY)
        return False
