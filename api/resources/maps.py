"""`/liq_heatmap`, `/liq_heatmap_v2`, their histories and `/liq_stats` (`spec: api`, sections 5 to 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

import numpy as np
from falcon.asgi import Request, Response

from api import params, views
from api.bodies import JSON, Answer, Freshness, Identity, Moment, age_s, etag, json_template, stale
from api.context import Context
from api.coverage import flag_names
from api.documents import published
from api.errors import ApiError, not_ready
from api.maps import MapFrames, MapPair, MapRow, usd_of
from api.resources.data import DataResource
from api.resources.depth import SCALE, flat_cells
from api.views import Picture, Window
from mpengine.heatmap import DisplayMap, Grid
from mpengine.pictures import Picture as MapPicture
from mpengine.pictures import intensity_scale, picture_v1, picture_v2
from mpengine.schemas import LevelsDocument, PoolRow, SideLevels, StatusDocument, ZoneCounts
from shm.grid import prices_of
from shm.records import DocumentId

V1: Final = "/liq_heatmap"
V2: Final = "/liq_heatmap_v2"
V1_HISTORY: Final = "/liq_heatmap_history"
V2_HISTORY: Final = "/liq_heatmap_v2_history"
STATS: Final = "/liq_stats"
MINUTE_MS: Final = 60_000
STALE_AFTER_MS: Final = 180_000
WARN_AFTER_MS: Final = 120_000
RANGE_PCT: Final = 0.1
FALLBACK_AXIS: Final = (100.0, 10_000.0)
FALLBACK_RANGE: Final = 0.1

Items = list[tuple[str, Any]]


def retry_after_s(now_ms: int) -> int:
    """Seconds to the next minute: when there may be a map."""
    return 60 - now_ms // 1000 % 60


def stale_and_warning(moment: Moment) -> bytes:
    """`stale`, and behind it `_warning` while the data is older than 120 s."""
    if moment.age_ms is None or moment.age_ms <= WARN_AFTER_MS:
        return stale(moment)
    return b'%s,"_warning":"Data is %d s old, engine may be stopped"' % (stale(moment), moment.age_ms // 1000)


class MapResource(DataResource):
    """What the endpoints share: parameters and frames by symbol."""

    rows: ClassVar[tuple[params.Parameter, ...]] = ()

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._table = params.Table(params.Symbol(tuple(context.settings.symbols)), self.rows)

    def frames_of(self, symbol: str) -> MapFrames:
        self.context.sources.check()
        return self.context.maps[symbol]

    def pair_of(self, symbol: str) -> MapPair:
        """The newest minute. Raises ApiError 503."""
        found = self.context.maps[symbol].newest()
        if found is None:
            raise self.not_ready(symbol)
        return found

    def not_ready(self, symbol: str) -> ApiError:
        """503 until the first minute."""
        return not_ready(f"The first liquidation map of {symbol}", retry_after_s(self.context.clock.wall_ms()))


class Latest(MapResource):
    """Base of both maps of the newest minute."""

    route: ClassVar[str]

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        values = self._table.read(req.scope["query_string"])
        symbol, floor = values["symbol"], round(values.get("min_notional") or 0.0, 2)
        frames, coverage = self.frames_of(symbol), self.context.coverage[symbol]

        def build() -> Answer:
            pair = self.pair_of(symbol)
            basis = coverage.newest()
            identity = Identity(pair.map.identity, (pair.levels.identity, *basis.identities))
            shown = pair.map.combined(self.context.mix).display
            picture = self.picture(pair, shown)
            epoch, seq = pair.map.identity
            template = json_template(
                [
                    *self.items(symbol, pair, picture, floor),
                    ("base_asset", self.context.settings.symbols[symbol].base_asset),
                    ("long_size_base", sizes(pair, picture.grid, 0)),
                    ("short_size_base", sizes(pair, picture.grid, 1)),
                    ("intensity_scale", intensity_scale(shown)),
                    ("coverage", {**basis.coverage, "flags": flag_names(pair.map.frame.coverage)}),
                    ("seq", seq),
                    ("epoch", epoch),
                    ("snapshot_age_s", age_s),
                    ("stale", stale_and_warning),
                ]
            )
            tag = etag(identity, self.route, (symbol, floor, basis.oi), weak=True)
            return Answer(template, JSON, identity, Freshness(pair.map.close_ms, STALE_AFTER_MS), tag)

        def current() -> tuple[Any, ...]:
            return frames.stamp(), coverage.stamp()

        await self.answer(req, resp, (self.route, symbol, floor), current, build, received)

    on_head = on_get

    def items(self, symbol: str, pair: MapPair, picture: MapPicture, floor: float) -> Items:
        """The old keys in their order."""
        raise NotImplementedError

    def picture(self, pair: MapPair, shown: DisplayMap) -> MapPicture:
        """The picture of the whole answer."""
        raise NotImplementedError

    def arrays(self, symbol: str, pair: MapPair, picture: MapPicture) -> Items:
        """Intensities, USD and, where old clients want them, sizes under their old names."""
        grid = picture.grid
        usd = _cut(pair, grid)
        items: Items = [
            ("long_intensity", np.ascontiguousarray(picture.values[0])),
            ("short_intensity", np.ascontiguousarray(picture.values[1])),
            ("long_notional_usd", np.round(usd[0], 2)),
            ("short_notional_usd", np.round(usd[1], 2)),
        ]
        if self.context.settings.api.legacy_size_keys:
            items += [("long_size_btc", sizes(pair, grid, 0)), ("short_size_btc", sizes(pair, grid, 1))]
        return items


class First(Latest):
    """GET /liq_heatmap."""

    route = V1

    def picture(self, pair: MapPair, shown: DisplayMap) -> MapPicture:
        return picture_v1(pair.map.grid, pair.map.frame.reference, shown)

    def items(self, symbol: str, pair: MapPair, picture: MapPicture, floor: float) -> Items:
        levels = pair.levels.content
        prices = picture.grid.prices
        return [
            ("schema_version", 2),
            ("symbol", symbol),
            ("ts", pair.map.close_ms / 1000),
            ("src", round(levels.close, picture.grid.digits)),
            ("step", picture.grid.step),
            ("price_min", float(prices[0])),
            ("price_max", float(prices[-1])),
            ("prices", prices),
            *self.arrays(symbol, pair, picture),
            ("top_long_zones", _shown(levels.long, picture.grid.digits)),
            ("top_short_zones", _shown(levels.short, picture.grid.digits)),
            ("norm", {"method": "p50_p95", "p50": round(picture.p50, 6), "p95": round(picture.p95, 6)}),
        ]


class Second(Latest):
    """GET /liq_heatmap_v2."""

    route = V2
    rows = params.MAP_V2

    def picture(self, pair: MapPair, shown: DisplayMap) -> MapPicture:
        return picture_v2(pair.map.grid, shown)

    def items(self, symbol: str, pair: MapPair, picture: MapPicture, floor: float) -> Items:
        levels = pair.levels.content
        prices = picture.grid.prices
        return [
            ("symbol", symbol),
            ("ts", pair.map.close_ms / 1000),
            ("price", levels.src),
            ("range_pct", RANGE_PCT),
            ("long_levels", levels_json(levels.long.pools, floor)),
            ("short_levels", levels_json(levels.short.pools, floor)),
            ("meta", meta_json(levels, floor)),
            ("stats", stats_of(levels)),
            ("src", round(levels.close, picture.grid.digits)),
            ("step", picture.grid.step),
            ("price_min", float(prices[0])),
            ("price_max", float(prices[-1])),
            ("prices", prices),
            *self.arrays(symbol, pair, picture),
        ]


class Stats(MapResource):
    """GET /liq_stats."""

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        symbol = self._table.read(req.scope["query_string"])["symbol"]
        frames = self.frames_of(symbol)

        def build() -> Answer:
            pair = self.pair_of(symbol)
            levels, (epoch, seq) = pair.levels.content, pair.map.identity
            identity = Identity(pair.map.identity, (pair.levels.identity,))
            template = json_template(
                [
                    *stats_of(levels).items(),
                    ("zone_manager", zone_manager(levels.zones)),
                    ("snapshot_ts", pair.map.close_ms / 1000),
                    ("snapshot_age_s", age_s),
                    ("history_frames", frames.count),
                    ("calibrator", calibrator_of(levels)),
                    ("seq", seq),
                    ("epoch", epoch),
                    ("stale", stale),
                ]
            )
            tag = etag(identity, STATS, symbol, weak=True)
            return Answer(template, JSON, identity, Freshness(pair.map.close_ms, STALE_AFTER_MS), tag)

        await self.answer(req, resp, (STATS, symbol), frames.stamp, build, received)

    on_head = on_get


class History(MapResource):
    """Base of both histories. Long ones read 720 frames: built in the builder's thread."""

    rows = params.MAP_HISTORY
    route: ClassVar[str]
    strip: ClassVar[Literal["v1", "v2"]]

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        values = self._table.read(req.scope["query_string"])
        symbol, minutes, stride = values["symbol"], values["minutes"], values["stride"]
        frames = self.frames_of(symbol)

        def build() -> Answer:
            rows, skipped = chosen(frames.rows(minutes), minutes, stride)
            identity = Identity((rows[-1].epoch, rows[-1].number) if rows else None)
            template = json_template(self._items(symbol, minutes, stride, rows, skipped, identity))
            freshness = Freshness(rows[-1].close_ms if rows else None, STALE_AFTER_MS)
            return Answer(template, JSON, identity, freshness, etag(identity, self.route, (symbol, minutes, stride), weak=True))

        sources = self.context.sources.symbols[symbol]

        def current() -> tuple[Any, ...]:
            # Before the first frame the axis of a symbol may be around its mark.
            stamp = sources.liquidation.stamp()
            return stamp, None if stamp[2] else sources.documents.stamp(DocumentId.STATUS)

        await self.answer(req, resp, (self.route, symbol, minutes, stride), current, build, received, self.context.builder)

    on_head = on_get

    def _items(self, symbol: str, minutes: int, stride: int, rows: Sequence[MapRow], skipped: int, identity: Identity) -> Items:
        if rows:
            picture = views.picture([getattr(row, self.strip) for row in rows], Window())
            prices, step = picture.prices, picture.step
        else:
            picture = Picture(0, 1.0, np.zeros((2, 0, 0), np.uint8))
            prices, step = self._fallback(symbol)
        return [
            ("t", [row.close_ms for row in rows]),
            ("prices", prices),
            ("long", flat_cells(picture, 0)),
            ("short", flat_cells(picture, 1)),
            ("step", step),
            ("scale", SCALE),
            ("_mode", "embedded"),
            ("symbol", symbol),
            ("minutes", minutes),
            ("stride", stride),
            ("count", len(rows)),
            ("src", [row.src for row in rows]),
            ("norm_tape_usd", [row.tape_p99 for row in rows]),
            ("norm_projection_usd", [row.projection_p99 for row in rows]),
            ("skipped_frames", skipped),
            ("first_seq", rows[0].number if rows else None),
            ("seq", identity.seq),
            ("epoch", identity.epoch),
            ("stale", stale),
            ("age_s", age_s),
        ]

    def _fallback(self, symbol: str) -> tuple[Any, float]:
        """Axis of a symbol without data, on its own step."""
        one = self.context.settings.symbols[symbol]
        if one.axis_low is not None and one.axis_high is not None:
            return fallback_prices(one.axis_low, one.axis_high, one.step), one.step
        documents = self.context.sources.symbols[symbol].documents.reader
        status = None if documents is None else published(documents.latest(DocumentId.STATUS), StatusDocument)
        mark = None if status is None else status.content.mark
        low, high = FALLBACK_AXIS if mark is None else ((1 - FALLBACK_RANGE) * mark, (1 + FALLBACK_RANGE) * mark)
        return fallback_prices(low, high, one.step), one.step


class FirstHistory(History):
    """GET /liq_heatmap_history."""

    route = V1_HISTORY
    strip = "v1"


class SecondHistory(History):
    """GET /liq_heatmap_v2_history."""

    route = V2_HISTORY
    strip = "v2"


def fallback_prices(low: float, high: float, step: float) -> Any:
    """Prices from `low` to `high` on the grid of `step`, float64, at most as many as an answer may have rows."""
    grid = Grid(0, 0, step)
    first, last = grid.bucket(low), grid.bucket(high)
    return prices_of(first, min(last - first + 1, views.MAX_ROWS), step)


def chosen(rows: Sequence[MapRow], minutes: int, stride: int) -> tuple[list[MapRow], int]:
    """Frames of the last `minutes`, every `stride`-th minute counted from the newest, which is always in; frames left out because
    they are on another step. A minute without a frame is absent, and so is one at or after the time of a frame behind it."""
    if not rows:
        return [], 0
    newest = rows[-1]
    kept: list[MapRow] = []
    for row in reversed(rows):
        if row.close_ms <= newest.close_ms - minutes * MINUTE_MS or (kept and row.close_ms >= kept[-1].close_ms):
            continue
        if (newest.close_ms - row.close_ms) // MINUTE_MS % stride == 0:
            kept.append(row)
    same = [row for row in reversed(kept) if row.step == newest.step]
    return same, len(kept) - len(same)


def stats_of(levels: LevelsDocument) -> dict[str, Any]:
    """`stats` of V2, which /liq_stats begins with. A new object each time: nobody can change a kept one."""
    config = levels.config
    return {
        "symbol": levels.symbol,
        "current_minute": levels.minute,
        "current_price": levels.src,
        "total_force_orders": levels.events,
        "total_inferences": levels.inferences,
        "tape": {
            "symbol": levels.symbol,
            "total_events": levels.events,
            "total_long_notional": round(levels.long.tape_events_usd, 2),
            "total_short_notional": round(levels.short.tape_events_usd, 2),
            "long_buckets": levels.long.tape_buckets,
            "short_buckets": levels.short.tape_buckets,
            "events_in_window": levels.events_in_minute,
            "offset_samples_by_lev": {},
        },
        "inference": {
            "symbol": levels.symbol,
            "current_minute": levels.minute,
            "current_price": levels.src,
            "total_inferred_long_usd": round(levels.long.opened_usd, 2),
            "total_inferred_short_usd": round(levels.short.opened_usd, 2),
            "projected_long_buckets": levels.long.projected_buckets,
            "projected_short_buckets": levels.short.projected_buckets,
            "inferences_in_window": levels.inferences_in_minute,
            "leverage_weights": levels.weights,
        },
        "config": {
            "steps": config.step,
            "decay": config.decay_per_min,
            "buffer": next(iter(config.mmr.values()), 0.0),
            "tape_weight": config.tape_weight,
            "projection_weight": config.projection_weight,
            "mmr": config.mmr,
        },
    }


def zone_manager(counts: ZoneCounts) -> dict[str, Any]:
    """The nine keys of zones."""
    return {
        "active_zones_long": counts.active_long,
        "active_zones_short": counts.active_short,
        "total_weight_long": round(counts.weight_long, 2),
        "total_weight_short": round(counts.weight_short, 2),
        "zones_created_total": counts.created,
        "zones_reinforced_total": counts.reinforced,
        "zones_swept_total": counts.swept,
        "zones_expired_total": counts.expired,
        "zones_merged_total": counts.merged,
    }


def calibrator_of(levels: LevelsDocument) -> dict[str, Any]:
    """Everything that the calibrator publishes."""
    found = levels.calibrator
    plain = {name: getattr(found, name) for name in found.__struct_fields__ if name != "tiers"}
    tiers = {name: {key: getattr(tier, key) for key in tier.__struct_fields__} for name, tier in found.tiers.items()}
    return {**plain, "tiers": tiers}


def sizes(pair: MapPair, grid: Grid, row: int) -> Any:
    """float64[buckets]: USD / price of one side, base asset."""
    return np.round(_cut(pair, grid)[row] / grid.prices, 6)


def _cut(pair: MapPair, grid: Grid) -> Any:
    first = grid.origin - pair.map.frame.origin
    return usd_of(pair.map.frame)[:, first : first + grid.count]


def _shown(side: SideLevels, digits: int) -> list[dict[str, Any]]:
    return [{"price": round(one.price, digits), "strength": round(one.strength, 4), "age_min": one.age_min} for one in side.shown]


def levels_json(pools: Sequence[PoolRow], floor: float = 0.0) -> list[dict[str, Any]]:
    """Pools with at least `floor` USD, in the order of the document: largest first."""
    return [
        {
            "price": pool.price,
            "price_low": pool.price_low,
            "price_high": pool.price_high,
            "notional_usd": round(pool.notional_usd, 2),
            "intensity": pool.intensity,
            "bucket_count": pool.bucket_count,
            "tape_usd": round(pool.tape_usd, 2),
            "projected_usd": round(pool.projected_usd, 2),
            "source": pool.source,
            "size_base": round(pool.size_base, 6),
        }
        for pool in pools
        if round(pool.notional_usd, 2) >= floor
    ]


def meta_json(levels: LevelsDocument, floor: float = 0.0) -> dict[str, Any]:
    """`meta` of V2 with `floor` USD as the least that a level holds."""
    config = levels.config
    return {
        "tape_weight": config.tape_weight,
        "projection_weight": config.projection_weight,
        "force_orders_total": levels.events,
        "inferences_total": levels.inferences,
        "cluster_radius_pct": config.cluster_radius_pct,
        "min_notional_usd": max(config.min_pool_usd, floor),
        "long_pools_count": len(levels.long.pools),
        "short_pools_count": len(levels.short.pools),
        "raw_long_buckets": levels.long.raw_buckets,
        "raw_short_buckets": levels.short.raw_buckets,
    }
