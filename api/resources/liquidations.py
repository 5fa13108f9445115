"""`/liquidations`: realised liquidations, page by page, from the ring of their records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from falcon.asgi import Request, Response

from api import params
from api.basis import Basis
from api.bodies import JSON, Answer, Freshness, Identity, age_s, etag, json_template, stale
from api.context import Context
from api.errors import invalid
from api.liquidations import Filter, Kept, Page, page
from api.resources.data import DataResource
from shm.records import PositionSide, PriceKind, Venue

ROUTE: Final = "/liquidations"
NS_PER_MS: Final = 1_000_000
VENUES: Final = {venue.label: venue for venue in Venue if venue is not Venue.NONE}
SIDES: Final = {side.name.lower(): side for side in PositionSide if side is not PositionSide.NONE}
_VENUE_NAMES: Final = {int(venue): name for name, venue in VENUES.items()}
_SIDE_NAMES: Final = {int(side): name for name, side in SIDES.items()}
_KIND_NAMES: Final = {int(kind): kind.name.lower() for kind in PriceKind}


@dataclass(frozen=True, slots=True)
class LiquidationsQuery:
    """Checked parameters; at most one of `after` and `before`."""

    symbol: str
    after: int | None
    before: int | None
    epoch: int | None
    limit: int
    wanted: Filter


class Liquidations(DataResource):
    """GET /liquidations. Built in the loop, which owns frames and feeds: only new records are read and one page is encoded."""

    rows = params.LIQUIDATIONS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._table = params.Table(params.Symbol(tuple(context.settings.symbols)), self.rows)

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        query = self._query(req.scope["query_string"])
        context = self.context
        context.sources.check()
        symbol = query.symbol
        rows, ring = context.liquidations[symbol], context.sources.symbols[symbol].liquidations

        def live() -> bool:
            return context.feeds.liquidations_live(symbol, context.clock.wall_ms())

        def build() -> Answer:
            kept = rows.all()
            reset = query.epoch is not None and query.epoch != kept.epoch
            after, before = (None, None) if reset else (query.after, query.before)
            found = page(kept, query.wanted, query.limit, after=after, before=before)
            basis = context.coverage[symbol].newest()
            return answer_liquidations(query, kept, found, basis, reset=reset, live=live())

        def current() -> tuple[Any, ...]:
            return ring.stamp(), context.coverage[symbol].stamp(), live()

        await self.answer(req, resp, (ROUTE, query), current, build, received)

    on_head = on_get

    def _query(self, raw: bytes) -> LiquidationsQuery:
        values = self._table.read(raw)
        if values["after"] is not None and values["before"] is not None:
            raise invalid("before", "given without after")
        wanted = Filter(SIDES.get(values["side"]), VENUES.get(values["venue"]), round(values["min_usd"] or 0.0, 2))
        return LiquidationsQuery(values["symbol"], values["after"], values["before"], values["epoch"], values["limit"], wanted)


def answer_liquidations(query: LiquidationsQuery, kept: Kept, found: Page, basis: Basis, *, reset: bool, live: bool) -> Answer:
    """Silence is normal: whether it is stale is told by the feeds alone (`live`)."""
    count = len(found.numbers)
    held = len(kept.numbers) > 0
    identity = Identity((kept.epoch, kept.head - 1) if held else None, basis.identities)
    newest_ms = int(kept.records["recv_ts_ns"][-1]) // NS_PER_MS if held else None
    template = json_template(
        [
            ("symbol", query.symbol),
            ("items", items(found)),
            ("count", count),
            ("first_seq", int(found.numbers[0]) if count else None),
            ("last_seq", int(found.numbers[-1]) if count else None),
            ("oldest_seq", int(kept.numbers[0]) if held else None),
            ("newest_seq", kept.head - 1 if held else None),
            ("next_after", found.next_after),
            ("has_more", found.has_more),
            ("gap", found.gap),
            *([("reset", True)] if reset else []),
            ("coverage", basis.coverage),
            ("seq", identity.seq),
            ("epoch", identity.epoch),
            ("age_s", age_s),
            ("stale", stale),
        ]
    )
    freshness = Freshness(newest_ms, 0, told=not live)
    return Answer(template, JSON, identity, freshness, etag(identity, ROUTE, (query, basis.oi), weak=True))


def items(found: Page) -> list[dict[str, Any]]:
    """Rows of the page. `ts_ms` is the venue's time, `recv_ms` ours."""
    records = found.records
    columns = zip(
        found.numbers.tolist(),
        (records["venue_ts_ns"] // NS_PER_MS).tolist(),
        (records["recv_ts_ns"] // NS_PER_MS).tolist(),
        *(records[name].tolist() for name in ("venue", "side", "price", "price_kind", "bankruptcy_price", "qty_base")),
        records["notional_usd"].tolist(),
    )
    return [
        {
            "seq": number,
            "ts_ms": ts_ms,
            "recv_ms": recv_ms,
            "venue": _VENUE_NAMES[venue],
            "side": _SIDE_NAMES[side],
            "price": price,
            "price_kind": _KIND_NAMES[kind],
            "bankruptcy_price": bankruptcy or None,
            "qty_base": qty,
            "notional_usd": round(notional, 2),
        }
        for number, ts_ms, recv_ms, venue, side, price, kind, bankruptcy, qty, notional in columns
    ]
