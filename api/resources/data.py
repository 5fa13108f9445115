"""What every data endpoint does alike: find or build the answer, make a response of it, hand it to Falcon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

from falcon.asgi import Request, Response

from api.bodies import JOIN_BELOW
from api.cache import Build, Builder, Current, Key
from api.context import Context
from api.params import Parameter


def target_of(scope: dict[str, Any]) -> bytes:
    """The request target, put together again from what the server took apart."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return b"%s?%s" % (path, query) if query else path


class DataResource:
    """Base of the data endpoints. `rows`: parameters besides `symbol`, in the order in which they are checked."""

    rows: ClassVar[tuple[Parameter, ...]] = ()

    def __init__(self, context: Context) -> None:
        self.context = context

    async def answer(
        self,
        req: Request,
        resp: Response,
        key: Key,
        current: Current,
        build: Build,
        received_ms: int,
        builder: Builder | None = None,
    ) -> None:
        """Answer from the cache. `key` begins with the route; `build` makes the answer, in `builder`'s thread if given."""
        found = await self.context.cache.obtain(key, current, build, target_of(req.scope), builder)
        tag, codings = (_header(req, name) for name in ("If-None-Match", "Accept-Encoding"))
        coding = None if codings is None else self.context.encoder.accepted.best(codings)
        if coding is not None:
            await self.context.encoder.prepare(key, found, coding)
        made = found.respond(received_ms, self.context.clock.wall_ms(), tag, coding)
        resp.status = made.status
        for name, value in made.headers:
            resp.set_header(name.decode("ascii"), value.decode("ascii"))
        if sum(map(len, made.chunks)) < JOIN_BELOW:
            resp.data = b"".join(made.chunks)
        else:
            resp.stream = _each(made.chunks)


def _header(req: Request, name: str) -> bytes | None:
    text = req.get_header(name)
    return None if text is None else text.encode("latin-1")


async def _each(chunks: list[bytes]) -> AsyncIterator[bytes]:
    """Shared segments one by one: many slow readers of one large body hold it once."""
    for chunk in chunks:
        yield chunk
