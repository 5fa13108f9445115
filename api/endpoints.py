"""The one table of what the API answers. Routing, rate limits, `/openapi.json` and the tests read it; nothing else lists paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from api import params
from api.context import Context
from api.endpoint import BINARY, JSON, Cost, Endpoint
from api.health import Health
from api.metrics_scrape import Scrape
from api.openapi import document
from api.resources import candles, depth, depth_stats, description, heatmap, liquidations, maps, oi, zones
from api.resources.data import DataResource
from api.resources.health import HealthResource, LiveResource, ReadyResource
from api.resources.metrics import MetricsResource
from api.resources.push import Socket, Stream
from api.resources.service import TimeResource
from api.resources.web import WebResource
from api.web_files import SERVED, Served
from mpengine import contract

NOT_READY: Final = {503: ("not_ready",)}
NO_BOOK: Final = {400: ("no_orderbook",)}
WINDOW: Final = {400: ("no_orderbook", "too_large")}
BIN_HEADERS: Final = ("X-Frame-Ts-Ms", "X-Frame-Interval-Ms", "X-Data-Is-Stale", "X-Server-Send-Ts-Ms")
BIN_HISTORY_HEADERS: Final = (*BIN_HEADERS, "X-First-Frame-Ts-Ms", "X-Last-Frame-Ts-Ms", "X-Frame-Count", "X-Price-Count")


def _data(
    path: str, alias: str, resource: type[DataResource], body: type[Struct], codes: Mapping[int, tuple[str, ...]], summary: str,
    **more: Any,
) -> Endpoint:  # fmt: skip
    """A data endpoint: of a symbol, with an identity, kept in the cache."""
    return Endpoint(
        path, summary, lambda context, _health: resource(context), (alias,), resource.rows, symbol=True, body=body, codes=codes,
        data=True, **more,
    )  # fmt: skip


def _openapi(context: Context, _health: Health) -> object:
    return description.openapi(lambda examples: document(ENDPOINTS, context.settings, examples, context.build))


def _file(served: Served) -> Endpoint:
    return Endpoint(
        served.path, served.summary, lambda context, _health: WebResource(context.web, served, context.encoder.accepted),
        media=(served.media,), headers=("ETag", "Vary", "Content-Security-Policy"), open=served.open,
    )  # fmt: skip


_BOTH: Final = (JSON, BINARY)

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        "/health", "State of everything; 503 with the full body while there is no data yet",
        lambda _context, health: HealthResource(health), ("/v1/health",), body=contract.Health, also=(503,),
    ),
    Endpoint(
        "/livez", "The worker that got the request turns; nothing else is looked at",
        lambda _context, _health: LiveResource(), body=contract.Live, cost=Cost.PROBE, open=True,
    ),
    Endpoint(
        "/readyz", "503 with the full body where another machine could do better",
        lambda _context, health: ReadyResource(health), body=contract.Ready, cost=Cost.PROBE, open=True, also=(503,),
    ),
    Endpoint(
        "/time", "The clock that ages are counted with",
        lambda context, health: TimeResource(context.clock, health), body=contract.Time,
    ),
    Endpoint(
        "/metrics", "Prometheus metrics, where `api.public_metrics` allows it here; else 404",
        lambda context, health: MetricsResource(Scrape(context, health) if context.settings.api.public_metrics else None),
        media=("text/plain",), codes={404: ("not_found",)}, cost=Cost.PROBE,
    ),
    _data(depth.LATEST, "/v2/orderbook_heatmap_30s", depth.Latest, contract.DepthHeatmap, {**WINDOW, 404: ("no_frame",)},
          "Newest 30 s order-book frame", media=_BOTH, headers=BIN_HEADERS),
    _data(depth.HISTORY, "/v2/orderbook_heatmap_30s_history", depth.History, contract.DepthHistory, WINDOW,
          "Order-book frames of up to 12 hours", media=_BOTH, headers=BIN_HISTORY_HEADERS, cost=Cost.HISTORY),
    _data(depth_stats.STATS, "/v2/orderbook_heatmap_30s_stats", depth_stats.Stats, contract.DepthStats, NO_BOOK,
          "Ring of order-book frames, books of the venues"),
    _data(depth_stats.DEBUG, "/v2/orderbook_heatmap_30s_debug", depth_stats.Debug, contract.DepthDebug, NO_BOOK,
          "Ring of order-book frames"),
    _data(candles.ROUTE, "/v4/candles", candles.Candles, contract.Candles, NOT_READY,
          "Closed bars with volumes, open interest, funding and liquidations", cost=Cost.HISTORY),
    _data(oi.ROUTE, "/v1/oi", oi.Oi, contract.OpenInterest, NOT_READY, "Open interest by venue and in sum"),
    _data(liquidations.ROUTE, "/v4/liquidations", liquidations.Liquidations, contract.Liquidations, {},
          "Realised liquidations of all venues, page by page"),
    _data(maps.V1, "/v1/liq_heatmap", maps.First, contract.LiqHeatmap, NOT_READY,
          "Newest liquidation map, smoothed and stretched, +/- 8 %"),
    _data(maps.V1_HISTORY, "/v1/liq_heatmap_history", maps.FirstHistory, contract.LiqHistory, {},
          "Smoothed liquidation maps of up to 12 hours", cost=Cost.HISTORY),
    _data(maps.V2, "/v2/liq_heatmap", maps.Second, contract.LiqHeatmapV2, NOT_READY,
          "Newest liquidation map as it is, +/- 10 %, with pools and statistics"),
    _data(maps.V2_HISTORY, "/v2/liq_heatmap_history", maps.SecondHistory, contract.LiqHistory, {},
          "Liquidation maps of up to 12 hours", cost=Cost.HISTORY),
    _data(maps.STATS, "/v2/liq_stats", maps.Stats, contract.LiqStats, NOT_READY,
          "Tape, inference, zones and calibrator in numbers"),
    _data(zones.ZONES, "/v3/liq_zones", zones.Zones, contract.Zones, NOT_READY, "Liquidation zones, heaviest first"),
    _data(zones.SUMMARY, "/v3/liq_zones_summary", zones.Summary, contract.ZonesSummary, NOT_READY,
          "How many zones there are, and what happened to them"),
    _data(zones.HEATMAP, "/v3/liq_heatmap", zones.Heatmap, contract.ZonesHeatmap, NOT_READY, "Zones as levels of both sides"),
    _data(heatmap.ROUTE, "/v4/heatmap", heatmap.Heatmap, contract.Heatmap, {**WINDOW, **NOT_READY, 404: ("no_frame",)},
          "Liquidation map, order book and realised liquidations on one time-price grid", media=_BOTH, cost=Cost.GRID),
    Endpoint("/stream", "Push channels as server-sent events", lambda context, _health: Stream(context), ("/v4/stream",),
             params.STREAM, media=("text/event-stream",), codes=NOT_READY, headers=("X-Accel-Buffering",), cost=Cost.GRID),
    Endpoint("/ws", "Push channels over a WebSocket", lambda _context, _health: Socket(), ("/v4/ws",), media=(),
             codes={400: ("invalid_parameter",)}, cost=Cost.GRID),
    Endpoint("/openapi.json", "This interface in the words of OpenAPI 3.1", _openapi, open=True, headers=("ETag",)),
    *map(_file, SERVED),
)  # fmt: skip


def routes(context: Context, health: Health) -> list[tuple[tuple[str, ...], object]]:
    """(path and its aliases, resource) for one worker; an alias is the same resource, so its answers are the same bytes."""
    return [(endpoint.paths, endpoint.build(context, health)) for endpoint in ENDPOINTS]
