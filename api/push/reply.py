"""Answers of the push endpoints that are not a stream: refusals in the form of the contract, and headers that every answer has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final

from api.access import Access, Admission
from api.bodies import Headers
from api.errors import ApiError
from api.gate import refusal
from api.hooks import NOSNIFF, REQUEST_ID
from api.hooks import access as access_log
from api.metrics import Meter

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

STREAM: Final = "/stream"
SOCKET: Final = "/ws"
STREAM_PATHS: Final = frozenset((STREAM, STREAM + "/", "/v4/stream", "/v4/stream/"))
SOCKET_PATHS: Final = frozenset((SOCKET, SOCKET + "/", "/v4/ws", "/v4/ws/"))


def peer_of(scope: Scope) -> str:
    """Address of the connection; empty where it has none."""
    client = scope.get("client")
    return client[0] if client else ""


def entered(access: Access, admission: Admission, scope: Scope) -> int:
    """Count a push connection; what `Access.leave` wants for it. Raises ApiError 429 where its client has too many."""
    counted = access.enter(admission, scope["headers"], peer_of(scope))
    if isinstance(counted, ApiError):
        raise counted
    return counted


class Reply:
    """Of one worker. `ids`: request ids."""

    def __init__(self, meter: Meter, ids: Iterator[bytes]) -> None:
        self._meter = meter
        self._ids = ids

    def begun(self, *, socket: bool) -> None:
        """A stream or a WebSocket begins."""
        self._meter.answered(SOCKET if socket else STREAM, 101 if socket else 200)

    def headers(self) -> Headers:
        """What every answer has."""
        return [NOSNIFF, (REQUEST_ID, next(self._ids))]

    async def error(self, send: Send, error: ApiError, more: Headers, *, socket: bool = False) -> None:
        """Refuse a stream, or a WebSocket before its upgrade. `more`: headers of its admission."""
        route, kind = (SOCKET, "websocket.http.response") if socket else (STREAM, "http.response")
        self._meter.answered(route, error.status)
        access_log.info("(refused) %s %s %s", route, error.status, error.code)
        made = refusal(error)
        await send({"type": f"{kind}.start", "status": made.status, "headers": [*made.headers, *more, *self.headers()]})
        await send({"type": f"{kind}.body", "body": b"".join(made.chunks)})
