"""`/liquidations`: keys, paging, filters, what is told of gaps, new epochs and feeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from api.liquidations import Filter, Kept, page
from mpengine.schemas import StreamFeed
from shm.records import LIQUIDATION_DTYPE, PositionSide, PriceKind, Venue
from tests.api.test_depth import check_shape
from tests.api.world import NOW_MS, World, get, venue_feed

KEYS = [
    ("symbol", str), ("items", list), ("count", int), ("first_seq", int), ("last_seq", int), ("oldest_seq", int),
    ("newest_seq", int), ("next_after", int), ("has_more", bool), ("gap", bool), ("coverage", dict), ("seq", int),
    ("epoch", int), ("age_s", float), ("stale", bool),
]  # fmt: skip
PATH = "/liquidations"


def fill(world: World, count: int) -> None:
    """Every third one a short of OKX, of 1,000 USD and its number."""
    for number in range(count):
        if number % 3 == 0:
            world.add_liquidation(
                venue=Venue.OKX, side=PositionSide.SHORT, price_kind=PriceKind.LIQ_MARK, bankruptcy_price=0.0,
                notional_usd=1000.0 + number,
            )  # fmt: skip
        else:
            world.add_liquidation()


def numbers(body: dict[str, Any]) -> list[int]:
    return [item["seq"] for item in body["items"]]


def test_every_key_in_order_with_its_type(world: World) -> None:
    fill(world, 2)
    world.add_feeds()
    world.clock.advance(3.1)
    body = get(world.app(), PATH).json
    check_shape(body, KEYS)
    assert body["items"] == [
        {"seq": 0, "ts_ms": NOW_MS - 7, "recv_ms": NOW_MS, "venue": "okx", "side": "short", "price": 100.0,
         "price_kind": "liq_mark", "bankruptcy_price": None, "qty_base": 5.0, "notional_usd": 1000.0},
        {"seq": 1, "ts_ms": NOW_MS - 7, "recv_ms": NOW_MS, "venue": "bybit", "side": "long", "price": 100.0,
         "price_kind": "trigger", "bankruptcy_price": 99.5, "qty_base": 5.0, "notional_usd": 500.0},
    ]  # fmt: skip
    assert [body[key] for key in ("count", "first_seq", "last_seq", "oldest_seq", "newest_seq", "next_after")] == [2, 0, 1, 0, 1, 1]
    assert (body["has_more"], body["gap"], body["seq"], body["epoch"], body["age_s"], body["stale"]) == (
        False, False, 1, 1, 3.1, False,
    )  # fmt: skip
    assert body["coverage"]["venues"]["hyperliquid"]["liquidations"] == "none"
    assert body["coverage"]["venues"]["bybit"]["liquidations"] == "all_500ms"


@pytest.mark.covers("A1-L24")
def test_the_alias_gives_the_same_bytes(world: World) -> None:
    fill(world, 2)
    app = world.app()
    assert get(app, PATH).body == get(app, "/v4/liquidations").body


def test_nothing_yet_is_an_empty_page(world: World) -> None:
    for make in (lambda: None, lambda: world.liquidations("SOL")):
        make()
        reply = get(world.app(), f"{PATH}?symbol=SOL")
        body = reply.json
        assert (reply.status, body["items"], body["count"], body["next_after"]) == (200, [], 0, -1)
        assert [body[key] for key in ("first_seq", "last_seq", "oldest_seq", "newest_seq", "seq", "age_s")] == [None] * 6
        assert (body["has_more"], body["gap"]) == (False, False) and "etag" not in reply.headers


def test_forward_pages_pass_filtered_rows_and_meet_every_row_once(world: World) -> None:
    fill(world, 20)
    app, seen, after, more = world.app(), [], -1, True
    while more:
        body = get(app, f"{PATH}?after={after}&limit=3&venue=OKX").json
        seen += numbers(body)
        after, more = body["next_after"], body["has_more"]
    assert seen == [0, 3, 6, 9, 12, 15, 18] and after == 19
    fill(world, 1)
    assert numbers(get(app, f"{PATH}?after={after}").json) == [20]


def test_backward_pages(world: World) -> None:
    fill(world, 10)
    app = world.app()
    newest = get(app, f"{PATH}?limit=4").json
    assert numbers(newest) == [6, 7, 8, 9] and newest["has_more"] is False
    body = get(app, f"{PATH}?limit=4&before=6").json
    assert (numbers(body), body["has_more"], body["next_after"]) == ([2, 3, 4, 5], True, 5)
    body = get(app, f"{PATH}?limit=4&before=2").json
    assert (numbers(body), body["has_more"]) == ([0, 1], False)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [("side=short", [0, 3]), ("side=LONG", [1, 2, 4]), ("venue=bybit", [1, 2, 4]), ("venue=gate", []), ("min_usd=1000", [0, 3]),
     ("min_usd=1000.01", [3]), ("min_usd=0", [0, 1, 2, 3, 4]), ("side=short&venue=okx&min_usd=1001", [3])],
)  # fmt: skip
def test_filters(world: World, query: str, wanted: list[int]) -> None:
    fill(world, 5)
    assert numbers(get(world.app(), f"{PATH}?{query}").json) == wanted


@pytest.mark.parametrize(("limit", "count"), [("0", 1), ("-5", 1), ("1", 1), ("1000", 1000), ("9999", 1000)])
def test_limit_is_clamped(world: World, limit: str, count: int) -> None:
    fill(world, 1003)
    assert get(world.app(), f"{PATH}?limit={limit}").json["count"] == count


@pytest.mark.parametrize(
    "query",
    ["after=1&before=5", "after=-2", "after=x", "before=-1", "before=1.5", "epoch=-1", "limit=a", "side=attack", "venue=kraken",
     "min_usd=-1", "min_usd=nan", "min_usd=inf", "side="],
)  # fmt: skip
def test_bad_parameters(world: World, query: str) -> None:
    assert get(world.app(), f"{PATH}?{query}").error == (400, "invalid_parameter")


def test_rows_that_are_gone_are_a_gap() -> None:
    held = Kept((1, 1), 20, 12, np.arange(12, 20), np.zeros(8, LIQUIDATION_DTYPE))
    found = page(held, Filter(), 3, after=3)
    assert (found.gap, found.numbers.tolist(), found.next_after, found.has_more) == (True, [12, 13, 14], 14, True)
    assert page(held, Filter(), 3, after=10).gap is True
    assert page(held, Filter(), 3, after=11).gap is False
    assert page(held, Filter(), 3).gap is False


def test_another_epoch_is_a_reset(world: World) -> None:
    fill(world, 3)
    app = world.app()
    assert "reset" not in get(app, f"{PATH}?after=0&epoch=1").json
    world.reopen(world.settings.paths.liquidations("BTC"))
    fill(world, 1)
    body = get(app, f"{PATH}?after=2&epoch=1").json
    assert (body["reset"], body["epoch"], numbers(body)) == (True, 2, [0, 1, 2, 3])


def stream(state: Any) -> StreamFeed:
    return StreamFeed(state=state, messages=1, errors=0, last_ms=None, lag_ms=None)


def test_stale_is_told_by_the_feeds_and_not_by_silence(world: World) -> None:
    fill(world, 1)
    app = world.app()
    assert get(app, PATH).json["stale"] is True  # ingest has not said anything
    world.clock.advance(3600)
    world.add_feeds(
        binance=venue_feed(streams={"btcusdt@forceOrder": stream("STALE"), "btcusdt@aggTrade": stream("LIVE")}),
        bybit=venue_feed(streams={"allLiquidation.BTCUSDT": stream("LIVE"), "allLiquidation.ETHUSDT": stream("DOWN")}),
    )
    app.turn()  # which finds the file
    assert get(app, PATH).json["stale"] is False
    assert get(app, f"{PATH}?symbol=ETH").json["stale"] is True
    world.clock.advance(10.001)
    reply = get(app, PATH)
    assert reply.json["stale"] is True and reply.headers["x-stale"] == "true"


def test_a_new_record_is_seen_at_once(world: World) -> None:
    fill(world, 1)
    app = world.app()
    first = get(app, PATH)
    assert get(app, PATH, headers={"If-None-Match": first.headers["etag"]}).status == 304
    fill(world, 1)
    second = get(app, PATH, headers={"If-None-Match": first.headers["etag"]})
    assert (second.status, second.json["count"]) == (200, 2)
