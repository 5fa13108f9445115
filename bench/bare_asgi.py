"""The baseline of `bench.api`: an ASGI callable that does nothing but send, under the same worker as the API.

`/<n>` answers n constant bytes. Started as `python -m gunicorn -c python:api.gunicorn_conf 'bench.bare_asgi:get_app()'`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.app import OnTurn, Receive, Scope, Send
from api.bodies import Headers
from api.settings import read_settings, settings_path


class Bare:
    """As much of `api.app.Service` as the worker asks for."""

    def __init__(self) -> None:
        self.settings = read_settings(settings_path())
        self.on_turn: OnTurn = lambda _totals, _levels: None
        self.on_stop: Callable[[], None] = lambda: None
        self.on_swollen: Callable[[], None] = lambda: None
        self._bodies: dict[str, tuple[list[tuple[bytes, bytes]], bytes]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        headers, body = self._bodies.get(scope["path"]) or self._body(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _body(self, path: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
        size = int(path[1:])
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % size)]
        found = self._bodies[path] = headers, b"x" * size
        return found

    def wire_answer(self, target: bytes, headers: Headers, *, head: bool, more: Headers, scope: Scope) -> list[bytes] | None:
        """Never: this one is there to be asked by ASGI."""

    def refused(self, status: int, headers: Headers) -> Headers:
        """Nothing is counted here."""
        return []

    def drain(self) -> None:
        """Nothing to tell."""


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def get_app() -> Any:
    """For gunicorn."""
    return Bare()
