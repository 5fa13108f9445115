"""`/metrics`: on the admin listener, and on the public port where the settings allow it."""

from __future__ import annotations

from falcon.asgi import Request, Response

from api.errors import not_found
from api.metrics_scrape import Scrape


class MetricsResource:
    """GET /metrics; without a scrape there is no such resource."""

    def __init__(self, scrape: Scrape | None) -> None:
        self._scrape = scrape

    async def on_get(self, req: Request, resp: Response) -> None:
        if self._scrape is None:
            raise not_found()
        resp.data, resp.content_type = await self._scrape.text(req.get_header("Accept") or "")

    on_head = on_get
