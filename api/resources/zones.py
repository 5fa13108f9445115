"""`/liq_zones`, `/liq_zones_summary`, `/liq_zones_heatmap` (`spec: api`, section 8b)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

from falcon.asgi import Request, Response

from api import params
from api.bodies import JSON, Answer, Freshness, Identity, age_s, etag, json_template, stale
from api.documents import Published
from api.errors import invalid
from api.resources.maps import STALE_AFTER_MS, Items, MapResource, zone_manager
from mpengine.schemas import ZoneRow, ZonesDocument

ZONES: Final = "/liq_zones"
SUMMARY: Final = "/liq_zones_summary"
HEATMAP: Final = "/liq_zones_heatmap"
TIER_SHARE: Final = 0.01
NS_PER_MS: Final = 1_000_000
NS_PER_MINUTE: Final = 60_000_000_000


class Filter(NamedTuple):
    """Checked filters; None where absent."""

    side: str | None = None
    min_leverage: int | None = None
    max_leverage: int | None = None
    min_weight: float | None = None
    min_notional: float = 0.0

    @property
    def by_tier(self) -> bool:
        """Whether a range of leverage was asked for."""
        return self.min_leverage is not None or self.max_leverage is not None


def filter_of(values: dict[str, Any]) -> Filter:
    """Canonical filters. Raises ApiError 400 where the smallest leverage is above the largest."""
    low, high = values.get("min_leverage") or None, values.get("max_leverage") or None
    if low is not None and high is not None and low > high:
        raise invalid("min_leverage", "at most max_leverage")
    weight = round(values.get("min_weight") or 0.0, 4) or None
    return Filter(values.get("side"), low, high, weight, round(values.get("min_notional") or 0.0, 2))


def passes(zone: ZoneRow, wanted: Filter) -> bool:
    """Leverage first (1 % of the weight in range; zones of the tape alone have no tiers), then side, weight and USD."""
    if wanted.by_tier:
        low, high = wanted.min_leverage or 0, wanted.max_leverage or 1 << 30
        inside = sum(part for tier, part in zone.tier_contributions.items() if low <= int(tier) <= high)
        if not (inside > 0.0 and inside >= TIER_SHARE * zone.weight):
            return False
    if wanted.side is not None and zone.side != wanted.side:
        return False
    return zone.weight >= (wanted.min_weight or 0.0) and zone.projected_usd + zone.tape_usd >= wanted.min_notional


@dataclass(frozen=True, slots=True)
class Query:
    """Symbol and filters: what an answer is kept under."""

    symbol: str
    wanted: Filter


class ZoneResource(MapResource):
    """Base of the three: the newest zones, filtered."""

    route: ClassVar[str]

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        values = self._table.read(req.scope["query_string"])
        query = Query(values["symbol"], filter_of(values))
        frames = self.frames_of(query.symbol)

        def build() -> Answer:
            found = frames.zones()
            if found is None:
                raise self.not_ready(query.symbol)
            identity = Identity(found.identity)
            template = json_template(
                [*self.items(query, found), ("seq", identity.seq), ("epoch", identity.epoch), ("age_s", age_s), ("stale", stale)]
            )
            freshness = Freshness(found.content.written_ns // NS_PER_MS, STALE_AFTER_MS)
            return Answer(template, JSON, identity, freshness, etag(identity, self.route, query, weak=True))

        await self.answer(req, resp, (self.route, query), frames.zones_stamp, build, received)

    on_head = on_get

    def items(self, query: Query, found: Published[ZonesDocument]) -> Items:
        """Keys of the body before the identity."""
        raise NotImplementedError


class Zones(ZoneResource):
    """GET /liq_zones."""

    route = ZONES
    rows = params.ZONES

    def items(self, query: Query, found: Published[ZonesDocument]) -> Items:
        document, wanted = found.content, query.wanted
        zones = selected(document.rows, wanted)
        return [
            ("symbol", query.symbol),
            ("ts", document.written_ns / 1e9),
            ("zones", [zone_json(zone, document.written_ns) for zone in zones]),
            ("zones_count", len(zones)),
            ("summary", zone_manager(document.counts)),
            ("filters", {name: getattr(wanted, name) for name in ("side", "min_leverage", "max_leverage", "min_weight")}),
        ]


class Summary(ZoneResource):
    """GET /liq_zones_summary."""

    route = SUMMARY

    def items(self, query: Query, found: Published[ZonesDocument]) -> Items:
        counts = zone_manager(found.content.counts)
        return [*counts.items(), ("symbol", query.symbol), ("ts", found.content.written_ns / 1e9)]


class Heatmap(ZoneResource):
    """GET /liq_zones_heatmap."""

    route = HEATMAP
    rows = params.ZONES_HEATMAP

    def items(self, query: Query, found: Published[ZonesDocument]) -> Items:
        document, wanted = found.content, query.wanted
        zones = selected(document.rows, wanted)
        sides = {side: [zone for zone in zones if zone.side == side] for side in ("long", "short")}
        filtered = wanted != Filter()
        return [
            ("symbol", query.symbol),
            ("ts", document.written_ns / 1e9),
            ("long_levels", [level_json(zone) for zone in sides["long"]]),
            ("short_levels", [level_json(zone) for zone in sides["short"]]),
            (
                "meta",
                {
                    "min_leverage": wanted.min_leverage,
                    "max_leverage": wanted.max_leverage,
                    "min_weight": wanted.min_weight,
                    "min_notional": wanted.min_notional,
                    "filtered": filtered,
                    "long_pools_count": len(sides["long"]),
                    "short_pools_count": len(sides["short"]),
                    "total_long_weight": round(sum((zone.weight for zone in sides["long"]), 0.0), 2),
                    "total_short_weight": round(sum((zone.weight for zone in sides["short"]), 0.0), 2),
                    "zones_created": document.counts.created,
                    "zones_swept": document.counts.swept,
                },
            ),
        ]


def selected(zones: Sequence[ZoneRow], wanted: Filter) -> list[ZoneRow]:
    """Zones that pass, heaviest first, then by price."""
    return sorted((zone for zone in zones if passes(zone, wanted)), key=lambda zone: (-zone.weight, zone.price))


def zone_json(zone: ZoneRow, at_ns: int) -> dict[str, Any]:
    """A zone with its old keys, then the new ones."""
    tiers = zone.tier_contributions
    return {
        "price": zone.price,
        "side": zone.side,
        "weight": round(zone.weight, 4),
        "created_at": zone.created_ns // NS_PER_MS,
        "last_reinforced_at": zone.last_reinforced_ns // NS_PER_MS,
        "reinforcement_count": zone.reinforcement_count,
        "source": zone.source,
        "tier_contributions": {tier: round(part, 4) for tier, part in tiers.items()},
        "id": zone.id,
        "notional_usd": round(zone.projected_usd + zone.tape_usd, 2),
        "tape_usd": round(zone.tape_usd, 2),
        "projected_usd": round(zone.projected_usd, 2),
        "age_min": max(0, (at_ns - zone.created_ns) // NS_PER_MINUTE),
        "dominant_leverage": int(max(tiers, key=lambda tier: tiers[tier])) if tiers else None,
    }


def level_json(zone: ZoneRow) -> dict[str, Any]:
    """A zone as a level of the heatmap. `synthetic`: whether its USD were made up from the weight, which they never are."""
    return {
        "price": zone.price,
        "weight": round(zone.weight, 4),
        "notional_usd": round(zone.projected_usd + zone.tape_usd, 2),
        "tier_contributions": {tier: round(part, 4) for tier, part in zone.tier_contributions.items()},
        "reinforcement_count": zone.reinforcement_count,
        "source": zone.source,
        "created_at": zone.created_ns // NS_PER_MS,
        "last_reinforced_at": zone.last_reinforced_ns // NS_PER_MS,
        "side": zone.side,
        "synthetic": False,
    }
