"""What `/stream` and `/ws` answer to anything but a stream or an upgrade; those are served by `api.push`."""

from __future__ import annotations

from falcon.asgi import Request, Response

from api.context import Context
from api.errors import ApiError
from api.push.catalogue import channel_names
from api.push.stream import HEADERS, wanted_of


class Stream:
    """HEAD /stream: the headers of the stream that a GET would begin."""

    def __init__(self, context: Context) -> None:
        self._names = frozenset(channel_names(context.settings))

    async def on_head(self, req: Request, resp: Response) -> None:
        wanted_of(self._names, req.scope["query_string"], None)
        for name, value in HEADERS:
            resp.set_header(name.decode("ascii"), value.decode("ascii"))

    async def on_get(self, _req: Request, _resp: Response) -> None:
        """Reached only under a server that does not let an application write to its connections."""
        raise ApiError(503, "not_ready", "Streams are not served here", {"Retry-After": "60"})


class Socket:
    """GET /ws without an upgrade."""

    async def on_get(self, _req: Request, _resp: Response) -> None:
        raise ApiError(400, "invalid_parameter", "This path is for WebSocket connections")

    on_head = on_get
