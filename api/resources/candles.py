"""`/candles`: closed bars of 1 minute to 4 hours from the minute bars of the engine, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from falcon.asgi import Request, Response

from api import params
from api.bars import INTERVAL_MINUTES, MINUTE_MS, Columns, closed_bars
from api.bodies import JSON, Answer, Freshness, Identity, age_s, etag, json_template, stale
from api.context import Context
from api.errors import not_ready
from api.resources.data import DataResource

ROUTE: Final = "/candles"
STALE_AFTER_MS: Final = 180_000
RETRY_AFTER_S: Final = 5


@dataclass(frozen=True, slots=True)
class CandlesQuery:
    """Checked parameters. `to_ms` is a whole number of intervals, or None for the newest."""

    symbol: str
    interval: str
    limit: int
    to_ms: int | None


class Candles(DataResource):
    """GET /candles. Built in the builder's thread: the first request of a worker reads up to 31 days."""

    rows = params.CANDLES

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._table = params.Table(params.Symbol(tuple(context.settings.symbols)), self.rows)

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        query = self._query(req.scope["query_string"])
        context = self.context
        context.sources.check()
        bars = context.candles[query.symbol]

        def build() -> Answer:
            minutes, lead = bars.minutes()
            if lead is None:
                raise not_ready(f"The first bar of {query.symbol}", RETRY_AFTER_S)
            minutes_per_bar = INTERVAL_MINUTES[query.interval]
            columns = closed_bars(minutes, minutes_per_bar, query.limit, query.to_ms)
            newest_ms = int(minutes["close_ts_ns"][-1]) // 1_000_000
            return answer_candles(query, columns, Identity(lead), newest_ms)

        ring = context.sources.symbols[query.symbol].candles
        await self.answer(req, resp, (ROUTE, query), ring.stamp, build, received, context.builder)

    on_head = on_get

    def _query(self, raw: bytes) -> CandlesQuery:
        values = self._table.read(raw)
        to_ms = values["to_ms"]
        if to_ms is not None:
            width = INTERVAL_MINUTES[values["interval"]] * MINUTE_MS
            to_ms = to_ms // width * width  # times within one bar ask for the same bars
        return CandlesQuery(values["symbol"], values["interval"], values["limit"], to_ms)


def answer_candles(query: CandlesQuery, columns: Columns, identity: Identity, newest_ms: int) -> Answer:
    """`newest_ms`: close of the newest minute, from which the age is counted."""
    sums, counts, optional = columns.sums, columns.counts, columns.optional
    template = json_template(
        [
            ("symbol", query.symbol),
            ("interval_ms", INTERVAL_MINUTES[query.interval] * MINUTE_MS),
            ("t", columns.t_ms),
            *columns.prices.items(),
            ("mark", optional["mark"]),
            ("buy_usd", sums["buy_usd"]),
            ("sell_usd", sums["sell_usd"]),
            ("buy_count", counts["buy_count"]),
            ("sell_count", counts["sell_count"]),
            ("oi_base", optional["oi_base"]),
            ("oi_delta_base", optional["oi_delta_base"]),
            ("funding_rate", optional["funding_rate"]),
            ("liq_long_usd", sums["liq_long_usd"]),
            ("liq_short_usd", sums["liq_short_usd"]),
            ("liq_count", counts["liq_count"]),
            ("flags", columns.flags),
            ("count", len(columns.t_ms)),
            ("seq", identity.seq),
            ("epoch", identity.epoch),
            ("age_s", age_s),
            ("stale", stale),
        ]
    )
    return Answer(template, JSON, identity, Freshness(newest_ms, STALE_AFTER_MS), etag(identity, ROUTE, query, weak=True))
