"""`/openapi.json` and the page `/docs` that shows it. Both are the same for everybody and for the life of a worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson
from falcon.asgi import Request, Response

from api.bodies import CACHE_CONTROL, dumps, etag_matches

WEB: Final = Path(__file__).resolve().parents[1] / "web"
EXAMPLES: Final = WEB / "examples.json"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""The page loads its own files and nothing else, and nobody may frame it. `img-src`: its empty icon, so that none is asked for."""


class Fixed:
    """A resource whose body never changes: made at the first request, kept by its hash."""

    def __init__(self, make: Callable[[], bytes], content_type: str, policy: str | None = None) -> None:
        self._make = make
        self._content_type = content_type
        self._policy = policy
        self._body: bytes | None = None
        self._tag = b""

    async def on_get(self, req: Request, resp: Response) -> None:
        if self._body is None:
            self._body = self._make()
            self._tag = b'"%s"' % hashlib.blake2s(self._body, digest_size=8).hexdigest().encode("ascii")
        resp.set_header("ETag", self._tag.decode("ascii"))
        resp.set_header("Cache-Control", CACHE_CONTROL.decode("ascii"))
        if self._policy is not None:
            resp.set_header("Content-Security-Policy", self._policy)
            resp.set_header("Referrer-Policy", "no-referrer")
        resp.content_type = self._content_type
        given = req.get_header("If-None-Match")
        if given is not None and etag_matches(given.encode("latin-1"), self._tag):
            resp.status = 304
        else:
            resp.data = self._body

    on_head = on_get


def openapi(make: Callable[[dict[str, Any]], object]) -> Fixed:
    """`make`: the document, from the examples."""
    return Fixed(lambda: dumps(make(orjson.loads(EXAMPLES.read_bytes()))), "application/json")


def page(name: str, content_type: str) -> Fixed:
    """A file of `api/web`."""
    return Fixed((WEB / name).read_bytes, content_type, POLICY)
