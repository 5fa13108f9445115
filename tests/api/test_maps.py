"""`/liq_heatmap`, `/liq_heatmap_v2`, their histories and `/liq_stats`: keys, types, parameters, pairs, ages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from mpengine.heatmap import Grid, Mix, combine
from mpengine.pictures import picture_v1, picture_v2
from mpengine.schemas import ShownZone
from shm.records import Coverage
from tests.api.test_depth import check_shape
from tests.api.world import NOW_MS, World, get, map_frame, pool_row, side_levels

V1, V2, V1_HISTORY, V2_HISTORY, STATS = (
    "/liq_heatmap", "/liq_heatmap_v2", "/liq_heatmap_history", "/liq_heatmap_v2_history", "/liq_stats",
)  # fmt: skip
ALIASES = {V1: "/v1/liq_heatmap", V2: "/v2/liq_heatmap", V1_HISTORY: "/v1/liq_heatmap_history",
           V2_HISTORY: "/v2/liq_heatmap_history", STATS: "/v2/liq_stats"}  # fmt: skip
ADDED = [("base_asset", str), ("long_size_base", [float]), ("short_size_base", [float]), ("intensity_scale", float),
         ("coverage", dict), ("seq", int), ("epoch", int), ("snapshot_age_s", float), ("stale", bool)]  # fmt: skip
ARRAYS = [("long_intensity", [float]), ("short_intensity", [float]), ("long_notional_usd", [float]), ("short_notional_usd",
          [float]),
          ("long_size_btc", [float]), ("short_size_btc", [float])]  # fmt: skip
AXIS = [("step", float), ("price_min", float), ("price_max", float), ("prices", [float])]
V1_KEYS = [("schema_version", int), ("symbol", str), ("ts", float), ("src", float), *AXIS, *ARRAYS, ("top_long_zones", list),
           ("top_short_zones", list), ("norm", dict), *ADDED]  # fmt: skip
V2_KEYS = [("symbol", str), ("ts", float), ("price", float), ("range_pct", float), ("long_levels", list), ("short_levels", list),
           ("meta", dict), ("stats", dict), ("src", float), *AXIS, *ARRAYS, *ADDED]  # fmt: skip
HISTORY_KEYS = [("t", [int]), ("prices", [float]), ("long", [int]), ("short", [int]), ("step", float), ("scale", int), ("_mode",
                str),
                ("symbol", str), ("minutes", int), ("stride", int), ("count", int), ("src", [float]), ("norm_tape_usd", [float]),
                ("norm_projection_usd", [float]), ("skipped_frames", int), ("first_seq", int), ("seq", int), ("epoch", int),
                ("stale", bool), ("age_s", float)]  # fmt: skip
STATS_KEYS = [("symbol", str), ("current_minute", int), ("current_price", float), ("total_force_orders", int),
              ("total_inferences", int), ("tape", dict), ("inference", dict), ("config", dict), ("zone_manager", dict),
              ("snapshot_ts", float), ("snapshot_age_s", float), ("history_frames", int), ("calibrator", dict), ("seq", int),
              ("epoch", int), ("stale", bool)]  # fmt: skip
MIX = Mix(0.35, 0.65)


def cells(values: Any, width: int) -> list[list[int]]:
    """Rows of a flat array."""
    return np.array(values).reshape(-1, width).tolist()


@pytest.mark.covers("A2-M8")
@pytest.mark.parametrize(("route", "keys"), [(V1, V1_KEYS), (V2, V2_KEYS), (STATS, STATS_KEYS)])
def test_every_key_in_order_with_its_type_and_aliases_give_the_same_bytes(world: World, route: str, keys: Any) -> None:
    world.add_maps(3)
    app = world.app()
    reply = get(app, route)
    check_shape(reply.json, keys)
    assert (reply.json["seq"], reply.headers["x-seq"]) == (2, "2")
    assert get(app, ALIASES[route]).body == reply.body
    assert get(app, route + "?symbol=btcusdt").body == reply.body


def test_the_first_map_is_the_picture_of_the_frame(world: World) -> None:
    frame = map_frame(NOW_MS)
    world.add_map(frame)
    body = get(world.app(), V1).json
    combined = combine(frame.planes[:2], frame.planes[2:], MIX)
    from_exact = picture_v1(_grid(frame), frame.reference, combined.display)
    assert (body["price_min"], body["price_max"]) == (60_620.0, 71_160.0)
    assert body["prices"] == from_exact.grid.prices.tolist()
    assert len(body["prices"]) == round((body["price_max"] - body["price_min"]) / body["step"]) + 1
    # Cells come from float16 planes: within 0.05 % before the stretch.
    assert np.array([body["long_intensity"], body["short_intensity"]]) == pytest.approx(from_exact.values, abs=0.01)
    first = from_exact.grid.origin - frame.origin
    usd = (frame.planes[:2] + frame.planes[2:])[:, first : first + from_exact.grid.count]
    assert np.array([body["long_notional_usd"], body["short_notional_usd"]]) == pytest.approx(usd, rel=2**-10, abs=0.01)
    assert body["long_size_base"] == body["long_size_btc"]
    assert np.array(body["long_size_base"]) == pytest.approx(usd[0] / from_exact.grid.prices, rel=2**-10, abs=1e-6)
    assert (body["src"], body["ts"]) == (65_901.24, NOW_MS / 1000)
    assert body["top_long_zones"] == [{"price": 64_600.0, "strength": 0.6523, "age_min": 7}]
    assert list(body["norm"]) == ["method", "p50", "p95"]
    assert body["norm"]["p95"] == pytest.approx(from_exact.p95, abs=0.001)
    assert body["intensity_scale"] == pytest.approx(combined.display.values.max(), abs=1e-3)


def _grid(frame: Any) -> Any:
    return Grid(frame.origin, frame.count, frame.step)


def test_the_second_map_is_not_smoothed_nor_divided_by_its_maximum(world: World) -> None:
    frame = map_frame(NOW_MS)
    world.add_map(frame)
    body = get(world.app(), V2).json
    made = picture_v2(_grid(frame), combine(frame.planes[:2], frame.planes[2:], MIX).display)
    assert np.array([body["long_intensity"], body["short_intensity"]]) == pytest.approx(made.values, abs=0.002)
    assert len(body["prices"]) == frame.count == 660
    assert (body["price"], body["src"], body["range_pct"]) == (65_892.725, 65_901.24, 0.1)
    assert body["long_levels"] == [{
        "price": 64_596.35, "price_low": 64_300.0, "price_high": 64_900.0, "notional_usd": 2_448_592.1, "intensity": 0.6523,
        "bucket_count": 23, "tape_usd": 2210.4, "projected_usd": 2_446_381.7, "source": "combined", "size_base": 37.906044,
    }]  # fmt: skip
    assert list(body["meta"]) == [
        "tape_weight", "projection_weight", "force_orders_total", "inferences_total", "cluster_radius_pct", "min_notional_usd",
        "long_pools_count", "short_pools_count", "raw_long_buckets", "raw_short_buckets",
    ]  # fmt: skip
    assert body["meta"]["min_notional_usd"] == 1000.0


def test_min_notional_keeps_levels_and_changes_no_count(world: World) -> None:
    pools = [pool_row(usd=9000.0), pool_row(usd=5000.0), pool_row(usd=2500.0)]
    world.add_map(map_frame(NOW_MS), long=side_levels(pools=pools), short=side_levels(pools=pools[2:]))
    app = world.app()
    body = get(app, V2 + "?min_notional=5000").json
    assert [one["notional_usd"] for one in body["long_levels"]] == [9000.0, 5000.0]
    assert body["short_levels"] == []
    assert (body["meta"]["long_pools_count"], body["meta"]["short_pools_count"]) == (3, 1)
    assert body["meta"]["min_notional_usd"] == 5000.0
    assert len(get(app, V2).json["long_levels"]) == 3
    for bad in ("-1", "inf", "nan", "", "1,5", "0x10"):
        assert get(app, f"{V2}?min_notional={bad}").error == (400, "invalid_parameter")


def test_statistics_and_maps_of_one_minute_never_change_each_other(world: World) -> None:
    world.add_maps(2)
    app = world.app()
    first, stats, again = get(app, V2).body, get(app, STATS).json, get(app, V2).body
    assert first == again
    assert {key: stats[key] for key in list(stats)[:8]} == get(app, V2).json["stats"]
    assert list(stats["tape"]) == ["symbol", "total_events", "total_long_notional", "total_short_notional", "long_buckets",
                                   "short_buckets", "events_in_window", "offset_samples_by_lev"]  # fmt: skip
    assert list(stats["inference"]) == ["symbol", "current_minute", "current_price", "total_inferred_long_usd",
                                        "total_inferred_short_usd", "projected_long_buckets", "projected_short_buckets",
                                        "inferences_in_window", "leverage_weights"]  # fmt: skip
    assert stats["inference"]["leverage_weights"] == {"5": 0.5, "10": 0.0, "20": 0.5}
    assert list(stats["zone_manager"]) == ["active_zones_long", "active_zones_short", "total_weight_long", "total_weight_short",
                                           "zones_created_total", "zones_reinforced_total", "zones_swept_total",
                                           "zones_expired_total", "zones_merged_total"]  # fmt: skip
    assert (stats["zone_manager"]["total_weight_long"], stats["history_frames"]) == (4.57, 2)
    assert list(stats["config"]) == ["steps", "decay", "buffer", "tape_weight", "projection_weight", "mmr"]
    assert stats["calibrator"]["tiers"]["5"]["weight"] == 0.3
    assert stats["calibrator"]["entropy_bits"] == 2.39


@pytest.mark.parametrize("route", [V1, V2, STATS])
def test_before_the_first_minute_it_is_not_ready(world: World, route: str) -> None:
    world.clock.advance(17)
    reply = get(world.app(), route)
    assert (reply.error, reply.headers["retry-after"]) == ((503, "not_ready"), "43")
    world.add_map(map_frame(NOW_MS), document=False)
    assert get(world.app(), route).error == (503, "not_ready")


def test_a_frame_without_its_document_is_not_shown_with_another_minutes(world: World) -> None:
    world.add_map(map_frame(NOW_MS - 60_000))
    world.add_map(map_frame(NOW_MS), document=False)
    body = get(world.app(), V2).json
    assert (body["seq"], body["ts"]) == (0, (NOW_MS - 60_000) / 1000)


@pytest.mark.parametrize(("route", "key"), [(V1, "snapshot_age_s"), (V2, "snapshot_age_s")])
def test_age_stale_and_warning_move_while_the_body_is_kept(world: World, route: str, key: str) -> None:
    world.add_map(map_frame(NOW_MS))
    app = world.app()
    fresh = get(app, route)
    assert (fresh.json[key], fresh.json["stale"], "_warning" in fresh.json) == (0.0, False, False)
    world.clock.advance(120)
    assert "_warning" not in get(app, route).json
    world.clock.advance(1)
    late = get(app, route).json
    assert (late[key], late["stale"]) == (121.0, False)
    assert (list(late)[-1], late["_warning"]) == ("_warning", "Data is 121 s old, engine may be stopped")
    world.clock.advance(60)
    assert get(app, route).json["stale"] is True
    tag = fresh.headers["etag"]
    unchanged = get(app, route, headers={"If-None-Match": tag})
    assert (unchanged.status, unchanged.headers["x-stale"], unchanged.headers["x-age-ms"]) == (304, "true", "181000")
    world.add_map(map_frame(NOW_MS + 60_000))
    assert get(app, route, headers={"If-None-Match": tag}).status == 200


def test_coverage_is_that_of_the_frame(world: World) -> None:
    world.add_map(map_frame(NOW_MS, coverage=Coverage.GAP | Coverage.OI_MISSING))
    for route in (V1, V2):
        coverage = get(world.app(), route).json["coverage"]
        assert coverage["flags"] == ["gap", "oi_missing"]
        assert coverage["venues"]["hyperliquid"]["liquidations"] == "none"


def test_prices_of_a_cheap_coin_keep_the_decimals_of_its_step(world: World) -> None:
    side = side_levels(shown=[ShownZone(price=0.58749, strength=0.5, age_min=1)])
    world.add_map(map_frame(NOW_MS, src=0.6012, step=0.001), "XRP", close=0.60149, long=side, short=side)
    body = get(world.app(), V1 + "?symbol=XRP").json
    assert (body["src"], body["top_long_zones"][0]["price"], body["top_short_zones"][0]["price"]) == (0.601, 0.587, 0.587)
    assert get(world.app(), V2 + "?symbol=XRP").json["src"] == 0.601


def test_old_sizes_can_be_switched_off(world: World) -> None:
    world.settings = replace(world.settings, api=replace(world.settings.api, legacy_size_keys=False))
    world.add_map(map_frame(NOW_MS))
    body = get(world.app(), V1).json
    assert "long_size_btc" not in body and "long_size_base" in body


# histories -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", [V1_HISTORY, V2_HISTORY])
def test_a_history_has_every_key_and_its_newest_row_is_the_map(world: World, route: str) -> None:
    world.add_maps(6)
    app = world.app()
    reply = get(app, route)
    body = reply.json
    check_shape(body, HISTORY_KEYS)
    assert get(app, ALIASES[route]).body == reply.body
    assert body["t"] == [NOW_MS - 60_000 * (5 - index) for index in range(6)]
    newest = get(app, V1 if route == V1_HISTORY else V2).json
    width = len(body["prices"])
    assert body["prices"] == newest["prices"]
    for side in ("long", "short"):
        rows = cells(body[side], width)
        assert len(rows) == 6
        assert rows[-1] == np.rint(255 * np.array(newest[f"{side}_intensity"])).astype(int).tolist()


def test_minutes_and_stride_are_anchored_at_the_newest_frame(world: World) -> None:
    world.add_maps(40)
    app = world.app()
    body = get(app, V1_HISTORY + "?minutes=10&stride=3").json
    assert [(NOW_MS - t) // 60_000 for t in body["t"]] == [9, 6, 3, 0]
    assert (body["minutes"], body["stride"], body["count"], body["first_seq"], body["seq"]) == (10, 3, 4, 30, 39)
    for query, minutes, stride in (("minutes=0&stride=0", 5, 1), ("minutes=-5&stride=60", 5, 30), ("minutes=99999", 720, 1)):
        echoed = get(app, f"{V2_HISTORY}?{query}").json
        assert (echoed["minutes"], echoed["stride"]) == (minutes, stride)
    for bad in ("minutes=abc", "minutes=1.5", "stride=1e3", "minutes="):
        assert get(app, f"{V1_HISTORY}?{bad}").error == (400, "invalid_parameter")


def test_a_missing_minute_is_an_absent_row_and_other_steps_are_counted(world: World) -> None:
    for away, step in ((5, 10.0), (4, 20.0), (3, 20.0), (1, 20.0), (0, 20.0)):
        world.add_map(map_frame(NOW_MS - away * 60_000, step=step))
    body = get(world.app(), V2_HISTORY).json
    assert [(NOW_MS - t) // 60_000 for t in body["t"]] == [4, 3, 1, 0]
    assert (body["skipped_frames"], body["count"]) == (1, 4)


def test_the_axis_is_the_union_of_the_windows(world: World) -> None:
    world.add_map(map_frame(NOW_MS - 60_000, src=65_000.0))
    world.add_map(map_frame(NOW_MS, src=66_000.0))
    body = get(world.app(), V1_HISTORY).json
    assert (body["prices"][0], body["prices"][-1]) == (59_800.0, 71_280.0)
    assert body["src"] == [65_000.0, 66_000.0]
    first = cells(body["long"], len(body["prices"]))[0]
    assert not any(first[round((65_000 * 1.08 - 59_800) / 20) + 1 :])


@pytest.mark.covers("A1-L15")
@pytest.mark.parametrize(("symbol", "low", "high", "step", "count"), [
    ("BTC", 85_000.0, 115_000.0, 20.0, 1501), ("ETH", 1500.0, 5000.0, 1.0, 3501), ("SOL", 50.0, 400.0, 0.1, 3501)])  # fmt: skip
def test_without_a_frame_the_axis_has_the_symbols_own_step(
    world: World, symbol: str, low: float, high: float, step: float, count: int
) -> None:
    reply = get(world.app(), f"{V1_HISTORY}?symbol={symbol}")
    body = reply.json
    assert reply.status == 200
    assert (body["t"], body["long"], body["short"], body["count"], body["seq"], body["stale"]) == ([], [], [], 0, None, True)
    assert (body["prices"][0], body["prices"][-1], body["step"], len(body["prices"])) == (low, high, step, count)


def test_a_symbol_of_ones_own_has_an_axis_around_its_mark(world: World) -> None:
    app = world.app()
    plain = get(app, f"{V2_HISTORY}?symbol=XRP").json
    assert (plain["prices"][0], len(plain["prices"])) == (100.0, 4000)
    world.add_status("XRP", mark=2.0)
    world.clock.advance(2)
    app.turn()  # once a second: finds the new file
    around = get(app, f"{V2_HISTORY}?symbol=XRP").json
    assert (around["prices"][0], around["prices"][-1], around["step"]) == (1.8, 2.2, 0.001)


def test_a_repaired_ring_is_read_anew(world: World) -> None:
    world.add_maps(3)
    app = world.app()
    assert get(app, V1_HISTORY).json["count"] == 3
    world.add_map(map_frame(NOW_MS + 60_000, src=70_000.0))
    body = get(app, V1_HISTORY).json
    assert (body["count"], body["src"][-1], body["t"][-1]) == (4, 70_000.0, NOW_MS + 60_000)
    assert world.liquidation().next_no == 4
