"""What Falcon does around every request: which methods there are, the headers that every answer has, counters, the access log.

Data answers that the cache has never come here; `api.app` gives them the same headers.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Iterator
from typing import Any, Final

import falcon
from falcon.asgi import Request, Response

from api.errors import ALLOWED_METHODS, NO_STORE, ApiError, internal, invalid_query, method_not_allowed, not_found
from api.metrics import Meter

METHODS: Final = frozenset(ALLOWED_METHODS.split(", "))
NOSNIFF: Final = (b"x-content-type-options", b"nosniff")
REQUEST_ID: Final = b"x-request-id"
BEGAN_NS: Final = "mpengine.began_ns"
"""Key of the scope: when the request came, as `Meter.now_ns` gives it."""

access = logging.getLogger("api.access")
log = logging.getLogger("api.errors")


def request_ids() -> Iterator[bytes]:
    """Ids that no other process gives: random start, then counted."""
    # PERF: one per answer; `map` over a bound method costs a third of a generator.
    return map((secrets.token_hex(6).encode("ascii") + b"-%x").__mod__, itertools.count(1))


class Around:
    """Falcon middleware."""

    def __init__(self, meter: Meter, ids: Iterator[bytes]) -> None:
        self._meter = meter
        self._ids = ids

    async def process_resource(self, req: Request, resp: Response, _resource: object, _params: dict[str, Any]) -> None:
        """After the path is known: other methods are refused, OPTIONS is answered."""
        if req.method not in METHODS:
            raise method_not_allowed()
        if req.method == "OPTIONS":
            resp.status = falcon.HTTP_204
            resp.set_header("Allow", ALLOWED_METHODS)
            resp.complete = True

    async def process_response(self, req: Request, resp: Response, _resource: object, _succeeded: bool) -> None:
        """Headers that every answer has, errors too."""
        try:
            # Rendered here and not where Falcon would: there, a value that JSON cannot hold gives a 500 without a body.
            await resp.render_body()
        except Exception as error:  # noqa: BLE001  whatever it is, it becomes the answer
            await _answer_unexpected(req, resp, error, {})
        request_id = next(self._ids).decode("ascii")
        resp.set_header(NOSNIFF[0].decode("ascii"), NOSNIFF[1].decode("ascii"))
        resp.set_header(REQUEST_ID.decode("ascii"), request_id)
        if resp.get_header("Cache-Control") is None:
            resp.set_header("Cache-Control", NO_STORE)
        status = resp.status_code
        self._meter.answered(req.uri_template or req.path, status, req.scope.get(BEGAN_NS))
        level = logging.INFO if status >= 400 else logging.DEBUG
        # The template of the route, never what the caller wrote.
        access.log(level, "%s %s %s %s", req.method, req.uri_template or "(no route)", status, request_id)


def install_errors(app: falcon.asgi.App[Any, Any]) -> None:
    """Every exception of a request becomes one error body."""
    app.add_error_handler(ApiError, _answer)
    app.add_error_handler(falcon.HTTPError, _answer_falcon)
    app.add_error_handler(Exception, _answer_unexpected)


async def _answer(_req: Request, resp: Response, error: ApiError, _params: dict[str, Any]) -> None:
    _set(resp, error)


async def _answer_falcon(_req: Request, resp: Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
    if isinstance(error, falcon.HTTPNotFound):
        _set(resp, not_found())
    elif isinstance(error, falcon.HTTPMethodNotAllowed):
        _set(resp, method_not_allowed())
    else:
        _set(resp, invalid_query("The request cannot be understood"))


async def _answer_unexpected(_req: Request, resp: Response, error: Exception, _params: dict[str, Any]) -> None:
    """A fault of ours; its traceback goes to the log under the id that the client sees."""
    error_id = secrets.token_hex(4)
    log.error("request failed, id %s", error_id, exc_info=error, extra={"error_id": error_id})
    _set(resp, internal(error_id))


def _set(resp: Response, error: ApiError) -> None:
    resp.status = error.status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = error.body()
    # A build may have failed halfway: nothing of the data answer stays.
    resp.stream, resp.media = None, None
    for name in ("ETag", "X-Seq", "X-Epoch", "X-Age-Ms", "X-Stale"):
        resp.delete_header(name)
    resp.set_header("Cache-Control", NO_STORE)
    for name, value in error.headers.items():
        resp.set_header(name, value)
