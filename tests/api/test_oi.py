"""`/oi`: keys, which venues count at the moment of the answer, what is served when none does."""

from __future__ import annotations

import pytest

from tests.api.test_depth import check_shape
from tests.api.world import NOW_MS, World, get

KEYS = [
    ("symbol", str), ("aggregated_oi", float), ("per_exchange", dict), ("ts", float), ("unit", str), ("base_asset", str),
    ("aggregated_oi_usd", float), ("exchange_ts", dict), ("stale_exchanges", list), ("age_s", float), ("stale", bool),
    ("seq", int), ("epoch", int), ("display_only", dict),
]  # fmt: skip


def test_every_key_in_order_with_its_type(world: World) -> None:
    world.add_oi("ETH", binance=(2012345.1, 0.4), bybit=(400617.1, 0.1), okx=512345.3, mark=2.0, shown={"hyperliquid": (9.5, 3)})
    reply = get(world.app(), "/oi?symbol=eth")
    body = reply.json
    check_shape(body, KEYS)
    assert body == {
        "symbol": "ETH", "aggregated_oi": 2925307.5, "per_exchange": {"binance": 2012345.1, "bybit": 400617.1, "okx": 512345.3},
        "ts": NOW_MS / 1000, "unit": "ETH", "base_asset": "ETH", "aggregated_oi_usd": 5850615.0,
        "exchange_ts": {"binance": NOW_MS / 1000 - 0.4, "bybit": NOW_MS / 1000 - 0.1, "okx": NOW_MS / 1000},
        "stale_exchanges": [], "age_s": 0.0, "stale": False, "seq": 0, "epoch": 1,
        "display_only": {"hyperliquid": {"base": 9.5, "age_s": 3.0}},
    }  # fmt: skip
    assert (reply.headers["x-seq"], reply.headers["x-epoch"], reply.headers["x-stale"]) == ("0", "1", "false")


@pytest.mark.covers("A1-L24")
def test_the_alias_gives_the_same_bytes(world: World) -> None:
    world.add_oi(binance=1.5)
    app = world.app()
    first, second = get(app, "/oi"), get(app, "/v1/oi")
    assert first.body == second.body and first.headers["etag"] == second.headers["etag"]


@pytest.mark.covers("S-M2")
def test_without_a_price_there_are_no_dollars(world: World) -> None:
    world.add_oi(binance=1.5, mark=None)
    assert get(world.app(), "/oi").json["aggregated_oi_usd"] is None


def test_before_the_first_value(world: World) -> None:
    app = world.app()
    reply = get(app, "/oi")
    assert reply.error == (503, "not_ready") and reply.headers["retry-after"] == "15"
    world.add_oi(shown={"okx": 4.0})
    world.clock.advance(2)
    assert get(app, "/oi").error == (503, "not_ready")  # what is pushed makes no sum


def test_a_venue_leaves_the_sum_by_age_alone(world: World) -> None:
    world.add_oi(binance=5.0, bybit=(3.0, 50))
    app = world.app()
    first = get(app, "/oi")
    assert (first.json["aggregated_oi"], first.json["stale_exchanges"]) == (8.0, ["okx"])
    world.clock.advance(10)
    assert get(app, "/oi").json["aggregated_oi"] == 8.0  # exactly 60 s
    world.clock.advance(0.001)
    later = get(app, "/oi", headers={"If-None-Match": first.headers["etag"]})
    assert (later.status, later.json["aggregated_oi"], later.json["per_exchange"]) == (200, 5.0, {"binance": 5.0})
    assert (later.json["stale_exchanges"], later.json["stale"], later.json["age_s"]) == (["bybit", "okx"], False, 10.0)
    assert list(later.json["exchange_ts"]) == ["binance"]


def test_nothing_fresh_is_the_last_sum_with_its_age(world: World) -> None:
    world.add_oi(binance=5.0, bybit=(3.0, 50), okx=(2.0, 61))
    app = world.app()
    get(app, "/oi")
    world.clock.advance(61)
    reply = get(app, "/oi")
    body = reply.json
    assert (body["aggregated_oi"], body["per_exchange"]) == (8.0, {"binance": 5.0, "bybit": 3.0})
    assert (body["stale"], body["age_s"], body["stale_exchanges"]) == (True, 61.0, ["binance", "bybit", "okx"])
    assert reply.headers["x-stale"] == "true"


def test_not_modified_while_nothing_changes_and_a_new_version_is_seen(world: World) -> None:
    world.add_oi(binance=5.0)
    app = world.app()
    tag = get(app, "/oi").headers["etag"]
    world.clock.advance(3)
    same = get(app, "/oi", headers={"If-None-Match": tag})
    assert (same.status, same.headers["x-age-ms"], app.context.cache.misses) == (304, "3000", 1)
    world.add_oi(binance=6.0)
    new = get(app, "/oi", headers={"If-None-Match": tag})
    assert (new.status, new.json["aggregated_oi"], new.json["seq"]) == (200, 6.0, 1)


def test_head_and_bad_symbol(world: World) -> None:
    world.add_oi(binance=5.0)
    app = world.app()
    head = get(app, "/oi", method="HEAD")
    assert (head.status, head.body) == (200, b"") and "etag" in head.headers
    assert get(app, "/oi?symbol=DOGE").error == (400, "invalid_symbol")
    assert get(app, "/oi?symbol=BTC&symbol=ETH").error == (400, "repeated_parameter")
