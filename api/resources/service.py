"""`/time`: the clock that ages are counted with, so that a client can measure its own offset."""

from __future__ import annotations

from falcon.asgi import Request, Response

from api.clock import Clock
from api.health import Health


class TimeResource:
    """GET /time."""

    def __init__(self, clock: Clock, health: Health) -> None:
        self._clock = clock
        self._health = health

    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.media = {"now_ms": self._clock.wall_ms(), "uptime_s": self._health.uptime_s()}

    on_head = on_get
