"""Access at the edge of the application: refusals as whole answers, and headers added to answers that others make.

admitted -> the cache's answer, or Falcon's with `adding` around its send
refused  -> `refusal`, over the wire or as ASGI messages; no resource ever sees the request
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from api.access import Admission
from api.bodies import JSON, Headers, Response
from api.errors import NO_STORE, ApiError

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

ADMISSION: Final = "mpengine.admission"
"""Key of the scope: the `Admission` of the request, once there is one."""

_VARY: Final = b"vary"
_CACHE_CONTROL: Final = b"cache-control"
_PUBLIC: Final = b"public"


def overloaded() -> ApiError:
    """Memory is short; not everybody is to come back in the same second."""
    return ApiError(503, "overloaded", "Too much is being asked at once", {"Retry-After": str(1 + secrets.randbelow(5))})


def refusal(error: ApiError) -> Response:
    """The answer that an error is, without what every answer has."""
    body = error.body()
    headers: Headers = [
        (b"content-type", JSON),
        (_CACHE_CONTROL, NO_STORE.encode("ascii")),
        (b"content-length", b"%d" % len(body)),
        *((name.lower().encode("ascii"), value.encode("ascii")) for name, value in error.headers.items()),
    ]
    return Response(error.status, headers, [body])


def make_private(headers: Headers) -> None:
    """Take back that a shared cache may keep the answer: who asks without a key must not get what one with a key got."""
    for at, (name, value) in enumerate(headers):
        if name == _CACHE_CONTROL:
            if value.startswith(_PUBLIC):
                headers[at] = (name, value.replace(_PUBLIC, b"private", 1))
            return


def merged(headers: Headers, more: Headers) -> Headers:
    """Both, with one `Vary`."""
    vary = [value for name, value in (*headers, *more) if name == _VARY]
    if len(vary) < 2:
        return [*headers, *more]
    return [*(pair for pair in (*headers, *more) if pair[0] != _VARY), (_VARY, b", ".join(vary))]


def adding(send: Send, admission: Admission, *, keys: bool) -> Send:
    """A `send` that adds the headers of the admission to the answer; with `keys` on it is private as well."""
    if not admission.headers and not keys:
        return send

    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", [])]
            if keys:
                make_private(headers)
            message["headers"] = merged(headers, admission.headers)
        await send(message)

    return add
