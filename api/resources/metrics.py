"""`/metrics` on the public port, where the settings allow it; else there is no such resource."""

from __future__ import annotations

from falcon.asgi import Request, Response

from api.context import Context
from api.errors import not_found
from api.health import Health
from api.metrics_scrape import Scrape


class MetricsResource:
    """GET /metrics."""

    def __init__(self, context: Context, health: Health) -> None:
        self._scrape = Scrape(context, health) if context.settings.api.public_metrics else None

    async def on_get(self, req: Request, resp: Response) -> None:
        if self._scrape is None:
            raise not_found()
        resp.data, resp.content_type = await self._scrape.text(req.get_header("Accept") or "")

    on_head = on_get
