"""`/liq_zones`, `/liq_zones_summary`, `/liq_zones_heatmap`: keys, filters, ages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.test_depth import check_shape
from tests.api.world import NOW_MS, World, get, zone_row

ZONES, SUMMARY, HEATMAP = "/liq_zones", "/liq_zones_summary", "/liq_zones_heatmap"
NINE = [("active_zones_long", int), ("active_zones_short", int), ("total_weight_long", float), ("total_weight_short", float),
        ("zones_created_total", int), ("zones_reinforced_total", int), ("zones_swept_total", int), ("zones_expired_total", int),
        ("zones_merged_total", int)]  # fmt: skip
TAIL = [("seq", int), ("epoch", int), ("age_s", float), ("stale", bool)]
KEYS = {
    ZONES: [("symbol", str), ("ts", float), ("zones", list), ("zones_count", int), ("summary", dict), ("filters", dict), *TAIL],
    SUMMARY: [*NINE, ("symbol", str), ("ts", float), *TAIL],
    HEATMAP: [("symbol", str), ("ts", float), ("long_levels", list), ("short_levels", list), ("meta", dict), *TAIL],
}
ROWS = [
    zone_row("L-1", weight=1.0, price=64_000.0, tier_contributions={"50": 1.0}, projected_usd=5000.0),
    zone_row("L-2", weight=3.0, price=63_000.0, tier_contributions={"100": 2.98, "20": 0.02}, projected_usd=9000.0),
    zone_row("S-1", side="short", weight=3.0, price=67_000.0, tier_contributions={"25": 3.0}, projected_usd=100.0),
    zone_row("S-2", side="short", weight=0.5, price=68_000.0, tier_contributions={}, tape_contribution=0.5, tape_usd=700.0,
             projected_usd=0.0, source="tape"),
]  # fmt: skip

NAMES = {64_000.0: "L-1", 63_000.0: "L-2", 67_000.0: "S-1", 68_000.0: "S-2"}


@pytest.fixture
def zones(world: World) -> World:
    world.add_zones(ROWS)
    return world


def ids(world: World, query: str) -> list[str]:
    return [NAMES[zone["price"]] for zone in get(world.app(), f"{ZONES}?{query}").json["zones"]]


@pytest.mark.parametrize(
    ("route", "alias"), [(ZONES, "/v3/liq_zones"), (SUMMARY, "/v3/liq_zones_summary"), (HEATMAP, "/v3/liq_heatmap")]
)
def test_every_key_in_order_and_aliases(zones: World, route: str, alias: str) -> None:
    app = zones.app()
    reply = get(app, route)
    check_shape(reply.json, KEYS[route])
    assert get(app, alias).body == reply.body
    assert (reply.json["ts"], reply.json["symbol"]) == (NOW_MS / 1000, "BTC")


def test_a_zone_with_every_key(world: World) -> None:
    world.add_zones([zone_row()])
    (zone,) = get(world.app(), ZONES).json["zones"]
    assert zone == {
        "price": 64_420.0, "side": "long", "weight": 2.9371, "created_at": NOW_MS - 45 * 60_000,
        "last_reinforced_at": NOW_MS - 60_000, "reinforcement_count": 7, "source": "inference",
        "tier_contributions": {"100": 2.7847, "125": 0.1524}, "id": f"L-3221-{NOW_MS // 60_000 - 46}", "notional_usd": 311_402.5,
        "tape_usd": 0.0,
        "projected_usd": 311_402.5, "age_min": 45, "dominant_leverage": 100,
    }  # fmt: skip
    assert list(zone)[:8] == ["price", "side", "weight", "created_at", "last_reinforced_at", "reinforcement_count", "source",
                              "tier_contributions"]  # fmt: skip


def test_heaviest_first_then_by_price(zones: World) -> None:
    assert ids(zones, "") == ["L-2", "S-1", "L-1", "S-2"]
    body = get(zones.app(), ZONES).json
    assert [zone["dominant_leverage"] for zone in body["zones"]] == [100, 25, 50, None]
    assert body["filters"] == {"side": None, "min_leverage": None, "max_leverage": None, "min_weight": None}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("side=long", ["L-2", "L-1"]),
        ("side=SHORT", ["S-1", "S-2"]),
        ("min_leverage=50", ["L-2", "L-1"]),
        ("max_leverage=25", ["S-1"]),  # 0.02 of 3.0 is below 1 %
        ("max_leverage=20&min_weight=0", []),
        ("min_leverage=100&max_leverage=100", ["L-2"]),
        ("min_leverage=0&max_leverage=0", ["L-2", "S-1", "L-1", "S-2"]),
        ("min_weight=1", ["L-2", "S-1", "L-1"]),
        ("min_weight=0.5&side=short", ["S-1", "S-2"]),
    ],
)
def test_filters(zones: World, query: str, wanted: list[str]) -> None:
    assert ids(zones, query) == wanted


@pytest.mark.covers("A2-L1")
@pytest.mark.parametrize(
    "query",
    ["side=attack", "side=", "min_leverage=300", "min_leverage=-1", "max_leverage=251", "min_leverage=50&max_leverage=20",
     "min_weight=-0.1", "min_weight=5.1", "min_weight=nan", "min_leverage=1.5", "side=long&side=short"],
)  # fmt: skip
def test_bad_filters_are_refused_and_not_kept(zones: World, query: str) -> None:
    app = zones.app()
    status, code = get(app, f"{ZONES}?{query}").error
    assert (status, code) in ((400, "invalid_parameter"), (400, "repeated_parameter"))
    assert len(app.context.cache) == 0


def test_the_heatmap_of_zones(zones: World) -> None:
    body = get(zones.app(), HEATMAP).json
    assert [level["price"] for level in body["long_levels"]] == [63_000.0, 64_000.0]
    assert body["long_levels"][0] == {
        "price": 63_000.0, "weight": 3.0, "notional_usd": 9000.0, "tier_contributions": {"100": 2.98, "20": 0.02},
        "reinforcement_count": 7, "source": "inference", "created_at": NOW_MS - 45 * 60_000, "last_reinforced_at": NOW_MS - 60_000,
        "side": "long", "synthetic": False,
    }  # fmt: skip
    assert body["meta"] == {
        "min_leverage": None, "max_leverage": None, "min_weight": None, "min_notional": 0.0, "filtered": False,
        "long_pools_count": 2, "short_pools_count": 2, "total_long_weight": 4.0, "total_short_weight": 3.5, "zones_created": 9,
        "zones_swept": 2,
    }  # fmt: skip
    few = get(zones.app(), HEATMAP + "?min_notional=700").json
    assert [level["price"] for level in few["short_levels"]] == [68_000.0]
    assert (few["meta"]["filtered"], few["meta"]["min_notional"], few["meta"]["long_pools_count"]) == (True, 700.0, 2)


@pytest.mark.parametrize("route", [ZONES, SUMMARY, HEATMAP])
def test_not_ready_empty_and_stale(world: World, route: str) -> None:
    app = world.app()
    assert get(app, route).error == (503, "not_ready")
    world.add_zones([])
    world.clock.advance(2)
    reply = get(app, route)
    assert (reply.status, reply.json["age_s"], reply.json["stale"]) == (200, 2.0, False)
    world.clock.advance(179)
    late: Any = get(app, route)
    assert (late.json["age_s"], late.json["stale"], late.headers["x-stale"]) == (181.0, True, "true")
