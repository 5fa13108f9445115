"""`/openapi.json`, the same for everybody and for the life of a worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final

import orjson
from falcon.asgi import Request, Response

from api.bodies import CACHE_CONTROL, dumps, etag_matches
from api.web_files import WEB

EXAMPLES: Final = WEB / "examples.json"


class Description:
    """Made at the first request, kept by its hash."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._body: bytes | None = None
        self._tag = b""

    async def on_get(self, req: Request, resp: Response) -> None:
        if self._body is None:
            self._body = self._make()
            self._tag = b'"%s"' % hashlib.blake2s(self._body, digest_size=8).hexdigest().encode("ascii")
        resp.set_header("ETag", self._tag.decode("ascii"))
        resp.set_header("Cache-Control", CACHE_CONTROL.decode("ascii"))
        resp.content_type = "application/json"
        given = req.get_header("If-None-Match")
        if given is not None and etag_matches(given.encode("latin-1"), self._tag):
            resp.status = 304
        else:
            resp.data = self._body

    on_head = on_get


def openapi(make: Callable[[dict[str, Any]], object]) -> Description:
    """`make`: the document, from the examples."""
    return Description(lambda: dumps(make(orjson.loads(EXAMPLES.read_bytes()))))
