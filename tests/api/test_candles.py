"""`/candles`: keys, types, parameters, paging, readiness."""

from __future__ import annotations

from typing import Any

import pytest

from shm.records import CandleField
from tests.api.test_depth import check_shape
from tests.api.world import World, candle, get

T0 = 1_795_197_600_000  # a whole hour, in the middle of a bar of 4 hours
KEYS: list[tuple[str, Any]] = [
    ("symbol", str), ("interval_ms", int), ("t", [int]), ("o", [float]), ("h", [float]), ("l", [float]), ("c", [float]),
    ("mark", [float]), ("buy_usd", [float]), ("sell_usd", [float]), ("buy_count", [int]), ("sell_count", [int]),
    ("oi_base", [float]), ("oi_delta_base", [float]), ("funding_rate", [float]), ("liq_long_usd", [float]),
    ("liq_short_usd", [float]), ("liq_count", [int]), ("flags", [int]), ("count", int), ("seq", int), ("epoch", int),
    ("age_s", float), ("stale", bool),
]  # fmt: skip


def fill(world: World, count: int, symbol: str = "BTC") -> None:
    for index in range(count):
        world.add_candle(candle(T0 + index * 60_000, price=float(index + 1), buy_usd=1.0, buy_count=2), symbol)
    world.clock.now_ms = T0 + count * 60_000


def test_every_key_in_order_with_its_type(world: World) -> None:
    fill(world, 12)
    reply = get(world.app(), "/candles")
    body = reply.json
    check_shape(body, KEYS)
    assert (body["symbol"], body["interval_ms"], body["count"], body["seq"], body["epoch"]) == ("BTC", 60_000, 12, 11, 1)
    assert body["t"] == [T0 + index * 60_000 for index in range(12)]
    assert all(len(body[key]) == 12 for key, kind in KEYS if isinstance(kind, list))
    assert (body["age_s"], body["stale"]) == (0.0, False)
    assert (reply.headers["x-seq"], reply.headers["x-age-ms"]) == ("11", "0")


@pytest.mark.parametrize(("interval", "minutes"), [("1m", 1), ("5m", 5), ("15m", 15), ("1h", 60), ("4h", 240)])
def test_intervals(world: World, interval: str, minutes: int) -> None:
    fill(world, 500)
    body = get(world.app(), f"/candles?interval={interval}").json
    assert body["interval_ms"] == minutes * 60_000
    assert all(time % body["interval_ms"] == 0 for time in body["t"])
    assert body["t"][-1] + body["interval_ms"] <= world.clock.now_ms
    whole = [index for index, flag in enumerate(body["flags"]) if not flag]
    assert all(body["buy_usd"][index] == minutes and body["c"][index] - body["o"][index] == minutes - 1 for index in whole)


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("1", 1), ("10", 10), ("1500", 20), ("9999", 20), ("-3", 1)])
def test_limit_is_clamped(world: World, text: str, count: int) -> None:
    fill(world, 20)
    assert get(world.app(), f"/candles?limit={text}").json["count"] == count


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("interval=7m", "invalid_parameter"),
        ("interval=", "invalid_parameter"),
        ("limit=abc", "invalid_parameter"),
        ("limit=1.5", "invalid_parameter"),
        ("to_ms=0", "invalid_parameter"),
        ("to_ms=-1", "invalid_parameter"),
        ("to_ms=1e3", "invalid_parameter"),
        ("symbol=DOGE", "invalid_symbol"),
        ("limit=1&limit=2", "repeated_parameter"),
    ],
)
def test_bad_parameters(world: World, query: str, code: str) -> None:
    fill(world, 2)
    assert get(world.app(), f"/candles?{query}").error == (400, code)


def test_missing_values_are_null(world: World) -> None:
    world.add_candle(candle(T0, present=CandleField.NONE))
    body = get(world.app(), "/candles").json
    assert [body[key] for key in ("mark", "oi_base", "oi_delta_base", "funding_rate")] == [[None]] * 4


def test_before_the_first_bar(world: World) -> None:
    reply = get(world.app(), "/candles?symbol=SOL")
    assert reply.error == (503, "not_ready") and reply.headers["retry-after"] == "5"
    world.candles("SOL")
    assert get(world.app(), "/candles?symbol=SOL").error == (503, "not_ready")


def test_pages_backwards(world: World) -> None:
    fill(world, 30)
    app, seen, to_ms = world.app(), [], world.clock.now_ms
    while (body := get(app, f"/candles?limit=7&to_ms={to_ms}").json)["count"]:
        seen[:0] = body["t"]
        to_ms = body["t"][0]
    assert seen == [T0 + index * 60_000 for index in range(30)]


def test_times_of_one_bar_share_an_entry(world: World) -> None:
    fill(world, 30)
    app = world.app()
    for query in ("", "limit=720&interval=1m"):
        get(app, f"/candles?{query}")
    assert len(app.context.cache) == 1
    for at in (0, 1, 59_999):
        get(app, f"/candles?to_ms={T0 + 600_000 + at}")
    assert len(app.context.cache) == 2


def test_a_time_to_come_still_holds_when_it_has_come(world: World) -> None:
    fill(world, 30)
    app, to_ms = world.app(), world.clock.now_ms + 60_000
    assert get(app, f"/candles?to_ms={to_ms}").json["count"] == get(app, "/candles").json["count"] == 30
    for index in range(30, 33):
        world.add_candle(candle(T0 + index * 60_000))
        world.clock.advance(60)
        assert get(app, "/candles").json["count"] == index + 1
        assert get(app, f"/candles?to_ms={to_ms}").json["t"][-1] == T0 + 30 * 60_000


def test_bars_are_served_where_the_newest_is_damaged(world: World) -> None:
    fill(world, 5)
    with world.settings.paths.candles("BTC").open("r+b") as file:
        for number in (2, 3, 4):
            file.seek(4096 + number * 256 + 100)
            file.write(b"\xff" * 8)
    body = get(world.app(), "/candles").json
    assert (body["count"], body["seq"], body["epoch"], body["age_s"]) == (2, 1, 1, 180.0)


def test_a_clock_that_was_set_back_leaves_bars_that_ascend(world: World) -> None:
    for at, price in ((0, 1.0), (1, 2.0), (5, 9.0), (6, 9.0), (2, 3.0), (3, 4.0), (5, 5.0)):
        world.add_candle(candle(T0 + at * 60_000, price=price))
    app = world.app()
    body = get(app, "/candles").json
    assert (body["t"], body["c"]) == ([T0 + at * 60_000 for at in (0, 1, 2, 3, 5)], [1.0, 2.0, 3.0, 4.0, 5.0])
    world.add_candle(candle(T0 + 4 * 60_000, price=7.0))  # again, now that bars are kept
    assert get(app, "/candles").json["c"] == [1.0, 2.0, 3.0, 4.0, 7.0]
    world.add_candle(candle(T0 + 4 * 60_000, price=8.0))  # the same minute once more
    assert get(app, "/candles").json["o"] == [1.0, 2.0, 3.0, 4.0, 8.0]  # not folded into what it supersedes


def test_a_new_bar_is_seen_at_once_and_ages_move(world: World) -> None:
    fill(world, 3)
    app = world.app()
    first = get(app, "/candles")
    world.clock.advance(181)
    old = get(app, "/candles")
    assert (old.json["stale"], old.json["age_s"], old.headers["x-stale"]) == (True, 181.0, "true")
    assert old.headers["etag"] == first.headers["etag"] and app.context.cache.misses == 1
    world.add_candle(candle(world.clock.now_ms - 60_000))
    new = get(app, "/candles")
    assert (new.json["count"], new.json["age_s"]) == (4, 0.0) and new.headers["etag"] != first.headers["etag"]


def test_a_symbol_without_a_book_has_bars(world: World) -> None:
    fill(world, 2, "XRP")
    assert get(world.app(), "/candles?symbol=XRP").json["count"] == 2
