"""`/health`, `/livez`, `/readyz`: how the service is, whether this worker turns, whether a balancer should send requests here."""

from __future__ import annotations

from http import HTTPStatus

from falcon.asgi import Request, Response

from api.health import Health


class HealthResource:
    """GET /health: 503 with the full body while there is no data yet."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def on_get(self, _req: Request, resp: Response) -> None:
        report = self._health.report()
        resp.status = HTTPStatus.OK if report["ok"] else HTTPStatus.SERVICE_UNAVAILABLE
        resp.media = report

    on_head = on_get


class LiveResource:
    """GET /livez: that this answers is the answer."""

    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.media = {"live": True}

    on_head = on_get


class ReadyResource:
    """GET /readyz: not ready is only what another machine could do better."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def on_get(self, _req: Request, resp: Response) -> None:
        ready, body = self._health.readiness()
        resp.status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        resp.media = body

    on_head = on_get
