"""`/oi`: open interest of the venues and its sum, in base asset and USD."""

from __future__ import annotations

from typing import Any, Final

from falcon.asgi import Request, Response

from api import params
from api.bodies import JSON, Answer, Freshness, Identity, age_s, etag, json_template, seconds_since, stale
from api.context import Context
from api.coverage import configured
from api.errors import not_ready
from api.oi import STALE_MS, Aggregate, aggregate, received_ms
from api.resources.data import DataResource
from mpengine.config import Settings
from mpengine.schemas import OiDocument
from shm.records import Venue

ROUTE: Final = "/oi"
RETRY_AFTER_S: Final = 15
SUMMED: Final = (Venue.BINANCE, Venue.BYBIT, Venue.OKX)


class Oi(DataResource):
    """GET /oi."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._table = params.Table(params.Symbol(tuple(context.settings.symbols)))

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        symbol = self._table.read(req.scope["query_string"])["symbol"]
        context = self.context
        context.sources.check()
        interest, settings = context.oi[symbol], context.settings
        expected = summed_venues(settings, symbol)

        def build() -> Answer:
            found, now_ms = interest.document(), context.clock.wall_ms()
            summed = None if found is None else aggregate(found.content, expected, now_ms)
            if found is None or summed is None:
                raise not_ready(f"The first open interest of {symbol}", RETRY_AFTER_S)
            base_asset = settings.symbols[symbol].base_asset
            # What is fresh changes with time alone, so it is part of the tag.
            tag = (symbol, interest.fresh(now_ms))
            return answer_oi(symbol, base_asset, found.content, summed, Identity(found.identity), tag)

        def current() -> tuple[Any, ...]:
            return interest.stamp(), interest.fresh(context.clock.wall_ms())

        await self.answer(req, resp, (ROUTE, symbol), current, build, received)

    on_head = on_get


def summed_venues(settings: Settings, symbol: str) -> tuple[str, ...]:
    """Venues that should have a value of this symbol."""
    return tuple(venue.label for venue in SUMMED if configured(settings, symbol, venue))


def sum_items(symbol: str, base_asset: str, document: OiDocument, summed: Aggregate) -> list[tuple[str, Any]]:
    """Keys of the body that do not move with time: the sum, what it is made of, and who is missing."""
    total = round(summed.total, 8)
    times = {venue: received_ms(value) / 1000 for venue, value in summed.venues.items()}
    return [
        ("symbol", symbol),
        ("aggregated_oi", total),
        ("per_exchange", {venue: value.base for venue, value in summed.venues.items()}),
        ("ts", max(times.values())),
        ("unit", document.unit),
        ("base_asset", base_asset),
        ("aggregated_oi_usd", None if document.mark is None else round(total * document.mark, 2)),
        ("exchange_ts", times),
        ("stale_exchanges", summed.stale_venues),
    ]


def answer_oi(
    symbol: str, base_asset: str, document: OiDocument, summed: Aggregate, identity: Identity, tag: tuple[Any, ...]
) -> Answer:
    """`tag`: everything beside the identity that decides what the body holds."""
    newest_ms = max(received_ms(value) for value in summed.venues.values())
    shown = tuple(
        (venue, (("base", value.base), ("age_s", seconds_since(received_ms(value))))) for venue, value in document.display.items()
    )
    template = json_template(
        [
            *sum_items(symbol, base_asset, document, summed),
            ("age_s", age_s),
            ("stale", stale),
            ("seq", identity.seq),
            ("epoch", identity.epoch),
            ("display_only", shown),
        ]
    )
    return Answer(template, JSON, identity, Freshness(newest_ms, STALE_MS), etag(identity, ROUTE, tag, weak=True))
