"""Answers are kept while their source has not moved, never longer; bounded; built once."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.app import Service
from api.bodies import JSON, Answer, Freshness, Identity, Template
from api.cache import SPELLING_BYTES, SPELLINGS_PER_ENTRY, Builder, Cache
from shm.files import replace
from shm.layout import depth_spec
from tests.api.world import SLOT_MS, World, ask, depth_frame, get


def answer(text: bytes = b"x") -> Answer:
    return Answer(Template([text]), JSON, Identity((1, 1)), Freshness(0, 1), b'"t"')


@contextmanager
def nothing() -> Iterator[None]:
    yield


class Source:
    """Something that moves when the test says so, and counts what is built from it."""

    def __init__(self) -> None:
        self.stamp = 0
        self.built = 0

    def current(self) -> int:
        return self.stamp

    def build(self) -> Answer:
        self.built += 1
        return answer(b"%d" % self.stamp)


@pytest.fixture
def cache() -> Cache:
    return Cache(entries=3, size=1 << 20, body=1 << 16)


@pytest.fixture
def builder() -> Iterator[Builder]:
    found = Builder(nothing)
    yield found
    found.close()


def obtain(cache: Cache, source: Source, key: Any = "k", spelling: bytes = b"/k", **how: Any) -> bytes:
    found = asyncio.run(cache.obtain((key,), source.current, source.build, spelling, **how))
    return b"".join(found.respond(0, 0, None).chunks)


def test_valid_exactly_while_the_source_has_not_moved(cache: Cache) -> None:
    source = Source()
    assert cache.hit(b"/k") is None
    assert [obtain(cache, source), obtain(cache, source)] == [b"0", b"0"]
    assert source.built == 1 and cache.hit(b"/k") is not None
    source.stamp = 1
    assert cache.hit(b"/k") is None
    assert obtain(cache, source) == b"1" and source.built == 2
    assert (cache.misses, len(cache)) == (2, 1)
    source.stamp = 0  # back again: what was made from it then is gone
    assert cache.hit(b"/k") is None


def test_a_source_that_moves_during_a_build_leaves_nothing_valid(cache: Cache) -> None:
    source = Source()

    def build() -> Answer:
        source.stamp += 1
        return answer()

    asyncio.run(cache.obtain(("k",), source.current, build, b"/k"))
    assert cache.hit(b"/k") is None


def test_spellings_find_the_same_entry_and_survive_a_new_version(cache: Cache) -> None:
    source = Source()
    for spelling in (b"/k?a", b"/k?b"):
        obtain(cache, source, spelling=spelling)
    assert source.built == 1 and cache.hit(b"/k?a") is cache.hit(b"/k?b")
    source.stamp = 1
    obtain(cache, source, spelling=b"/k?a")
    assert cache.hit(b"/k?b") is cache.hit(b"/k?a") is not None


def test_spellings_are_bounded(cache: Cache) -> None:
    source = Source()
    for number in range(100):
        obtain(cache, source, spelling=b"/k?x=%d" % number)
    assert cache.spellings == SPELLINGS_PER_ENTRY and source.built == 1
    assert cache.hit(b"/k?x=99") is not None and cache.hit(b"/k?x=0") is None
    obtain(cache, source, spelling=b"/k?" + b"x" * SPELLING_BYTES)
    assert cache.spellings == SPELLINGS_PER_ENTRY


def test_the_longest_unused_entry_goes_first(cache: Cache) -> None:
    source = Source()
    for key in "abc":
        obtain(cache, source, key, key.encode())
    assert cache.hit(b"a") is not None
    obtain(cache, source, "d", b"d")
    assert len(cache) == 3
    assert [cache.hit(key) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert cache.spellings == 3


def test_bounded_in_bytes_and_large_bodies_are_not_kept() -> None:
    cache, source = Cache(entries=100, size=100_000, body=40_000), Source()
    for key in range(10):
        asyncio.run(cache.obtain((key,), source.current, lambda: answer(b"x" * 30_000), b"/%d" % key))
    assert len(cache) == 3 and cache.size <= 100_000
    asyncio.run(cache.obtain(("big",), source.current, lambda: answer(b"x" * 50_000), b"/big"))
    assert cache.hit(b"/big") is None and len(cache) == 3
    for key in range(10):
        source.stamp += 1
        asyncio.run(cache.obtain((key % 3,), source.current, source.build, b"/%d" % key))
    assert cache.size == sum(entry.answer.size for entry in cache._entries.values())


def test_errors_are_not_kept(cache: Cache) -> None:
    source = Source()

    def fail() -> Answer:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            asyncio.run(cache.obtain(("k",), source.current, fail, b"/k"))
    assert len(cache) == 0 and cache.spellings == 0
    assert obtain(cache, source) == b"0"


def test_one_build_per_key_at_a_time_and_everybody_waits_for_it(cache: Cache, builder: Builder) -> None:
    source, go = Source(), threading.Event()

    def build() -> Answer:
        assert go.wait(10)
        return source.build()

    async def main() -> list[Answer]:
        waiting = [
            asyncio.create_task(cache.obtain(("k",), source.current, build, b"/%d" % number, builder)) for number in range(20)
        ]
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*waiting)

    answers = asyncio.run(main())
    assert source.built == 1 and all(one is answers[0] for one in answers)


def test_who_comes_after_the_source_has_moved_gets_a_new_build(cache: Cache, builder: Builder) -> None:
    source, begun, go = Source(), threading.Event(), threading.Event()

    def build() -> Answer:
        stamp = source.stamp
        begun.set()
        assert go.wait(10)
        source.built += 1
        return answer(b"%d" % stamp)

    async def main() -> list[bytes]:
        first = asyncio.create_task(cache.obtain(("k",), source.current, build, b"/1", builder))
        while not begun.is_set():
            await asyncio.sleep(0)
        source.stamp = 1
        later = [asyncio.create_task(cache.obtain(("k",), source.current, build, b"/2", builder)) for _ in range(3)]
        await asyncio.sleep(0)
        go.set()
        found = await asyncio.gather(first, *later)
        return [b"".join(one.respond(0, 0, None).chunks) for one in found]

    assert asyncio.run(main()) == [b"0", b"1", b"1", b"1"]
    assert source.built == 2


def test_a_client_that_goes_away_does_not_end_the_build_of_others(cache: Cache, builder: Builder) -> None:
    source, go = Source(), threading.Event()

    def build() -> Answer:
        assert go.wait(10)
        return source.build()

    async def main() -> Answer:
        first = asyncio.create_task(cache.obtain(("k",), source.current, build, b"/1", builder))
        await asyncio.sleep(0)
        second = asyncio.create_task(cache.obtain(("k",), source.current, build, b"/2", builder))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        go.set()
        return await second

    asyncio.run(main())
    assert source.built == 1 and cache.hit(b"/2") is not None


def test_a_failing_build_fails_for_everybody_and_is_tried_again(cache: Cache, builder: Builder) -> None:
    source, go = Source(), threading.Event()

    def fail() -> Answer:
        assert go.wait(10)
        raise ValueError("no")

    async def main() -> list[Any]:
        waiting = [asyncio.create_task(cache.obtain(("k",), source.current, fail, b"/k", builder)) for _ in range(3)]
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(one) for one in asyncio.run(main())] == [ValueError] * 3
    assert obtain(cache, source, builder=builder) == b"0"


# --- over the application -------------------------------------------------------------------------------------------------


@pytest.fixture
def app(world: World) -> Service:
    for symbol, src, step in (("BTC", 65_892.725, 20.0), ("ETH", 1931.2, 1.0), ("SOL", 82.5, 0.1)):
        world.add_history(3, symbol, src=src, step=step)
    return world.app()


@pytest.mark.covers("A1-L12")
def test_spellings_of_a_symbol_share_one_entry(app: Service) -> None:
    bodies = {get(app, f"/orderbook_heatmap?symbol={symbol}").body for symbol in ("btc", "BTC", "BTCUSDT", "%20btcusdt%20", "+Btc")}
    bodies.add(get(app, "/orderbook_heatmap").body)
    bodies.add(get(app, "/v2/orderbook_heatmap_30s/?unknown=1").body)
    assert len(bodies) == 1
    cache = app.context.cache
    assert (len(cache), cache.misses, cache.hits) == (1, 1, 6)


def test_canonical_parameters_share_one_entry(app: Service) -> None:
    for query in (
        "minutes=720&stride=1", "stride=0&minutes=99999", "format=json", "step=20", "step=20.0&stride=-3", "",
    ):  # fmt: skip
        get(app, f"/orderbook_heatmap_history?{query}")
    assert len(app.context.cache) == 1
    for query in ("price_min=64009", "price_min=64003.7", "price_min=64000", "price_min=6.4e4"):
        get(app, f"/orderbook_heatmap?{query}")
    assert len(app.context.cache) == 2
    for query in ("range_pct=0.02", "range_pct=0.020001", "range_pct=2e-2"):
        get(app, f"/orderbook_heatmap?{query}")
    assert len(app.context.cache) == 3


@pytest.mark.covers("A2-H4")
def test_errors_of_the_caller_leave_nothing(app: Service) -> None:
    for target in (
        "/orderbook_heatmap?symbol=DOGE", "/orderbook_heatmap?step=7", "/orderbook_heatmap?format=xml",
        "/orderbook_heatmap?symbol=XRP", "/candles", "/nope", "/orderbook_heatmap?a=1&a=1",
        "/orderbook_heatmap_history?price_min=1&price_max=1000000",
    ):  # fmt: skip
        assert get(app, target).status >= 400
    assert (len(app.context.cache), app.context.cache.spellings, app.context.cache.size) == (0, 0, 0)


def random_target(rng: random.Random) -> str:
    """A valid request, spelled in one of many ways."""
    path = rng.choice(["/orderbook_heatmap", "/v2/orderbook_heatmap_30s", "/orderbook_heatmap_stats", "/orderbook_heatmap_history"])
    symbol = rng.choice(["BTC", "btc", "ETHUSDT", "sol"])
    query = [f"symbol={symbol}"]
    if "stats" not in path:
        query.append(f"range_pct={rng.randint(1, 2000) / 10_000}")
        if rng.random() < 0.5:
            query.append(f"price_min={rng.randint(1, 500)}")
    if "history" in path:
        query.append(f"minutes={rng.randint(-10, 900)}")
    if rng.random() < 0.2:
        query.append(f"nobody={rng.random()}")
    rng.shuffle(query)
    return f"{path}?{'&'.join(query)}"


def hammer(app: Service, count: int) -> None:
    rng = random.Random(7)

    async def main() -> None:
        for _ in range(count):
            reply = await ask(app, random_target(rng))
            assert reply.status == 200, reply.body

    asyncio.run(main())


@pytest.mark.covers("A2-H4", "E-H8", "S-H3", "T-L8")
def test_bounded_over_random_requests(app: Service) -> None:
    hammer(app, 3000)
    cache, api = app.context.cache, app.settings.api
    assert len(cache) == api.cache_entries
    assert cache.spellings <= api.cache_entries * SPELLINGS_PER_ENTRY
    assert cache.size <= api.cache_bytes


@pytest.mark.stress
@pytest.mark.covers("A2-H4")
def test_bounded_over_100_000_random_requests(app: Service) -> None:
    from shm.process_shell import rss_bytes

    hammer(app, 10_000)
    before = rss_bytes()
    hammer(app, 90_000)
    assert len(app.context.cache) <= app.settings.api.cache_entries
    assert rss_bytes() - before < 50 << 20


@pytest.mark.parametrize("path", ["/orderbook_heatmap", "/orderbook_heatmap?format=bin", "/orderbook_heatmap_history",
                                  "/orderbook_heatmap_stats", "/orderbook_heatmap_debug"])  # fmt: skip
def test_a_new_frame_a_new_epoch_and_a_new_file_are_seen_at_once(world: World, path: str) -> None:
    world.add_history(3)
    app = world.app()
    first = get(app, path)
    built = app.context.cache.misses
    assert get(app, path).headers["x-seq"] == "2" and app.context.cache.misses == built
    world.clock.advance(SLOT_MS / 1000)
    world.add_depth(depth_frame(world.clock.now_ms - SLOT_MS, seed=99))
    second = get(app, path)
    assert (second.headers["x-seq"], second.headers["x-epoch"]) == ("3", "1") and second.body != first.body
    assert second.headers["etag"] != first.headers["etag"]
    world.reopen(world.settings.paths.depth("BTC"))
    world.add_depth(depth_frame(world.clock.now_ms, seed=100))
    third = get(app, path)
    assert (third.headers["x-seq"], third.headers["x-epoch"]) == ("4", "2")
    world.reopen(world.settings.paths.depth("BTC"))
    replace(world.settings.paths.depth("BTC"), depth_spec("BTC"))
    world.add_depth(depth_frame(world.clock.now_ms, seed=101))
    world.clock.advance(1.0)
    app.turn()
    fourth = get(app, path)
    assert (fourth.headers["x-seq"], fourth.headers["x-epoch"]) == ("0", "1")


def test_the_book_document_counts_for_what_shows_it(world: World) -> None:
    world.add_history(1)
    world.add_book()
    app = world.app()
    tags = [get(app, path).headers["etag"] for path in ("/orderbook_heatmap", "/orderbook_heatmap_stats")]
    plain = [get(app, path).headers["etag"] for path in ("/orderbook_heatmap?format=bin", "/orderbook_heatmap_history")]
    world.add_book()
    assert all(get(app, path).headers["etag"] != tag for path, tag in zip(("/orderbook_heatmap", "/orderbook_heatmap_stats"), tags))
    assert [get(app, path).headers["etag"] for path in ("/orderbook_heatmap?format=bin", "/orderbook_heatmap_history")] == plain


@pytest.mark.parametrize("path", ["/orderbook_heatmap", "/orderbook_heatmap_history"])
def test_a_spelling_does_not_follow_another_step(world: World, path: str) -> None:
    """`step=20` is the frame's own step before a change of the settings and twice the frame's after it."""
    world.add_depth(depth_frame(world.clock.now_ms - 2 * SLOT_MS, step=20.0))
    app = world.app()
    asked = {"step=20&price_min=60000": (20.0, 60_000.0), "price_min=60000": (20.0, 60_000.0), "step=40": (40.0, 59_320.0)}
    for query, (step, low) in asked.items():
        body = get(app, f"{path}?{query}").json
        assert (body["step"], body["price_min"]) == (step, low)
    world.add_depth(depth_frame(world.clock.now_ms - SLOT_MS, step=10.0))
    # Asks for the same rows in numbers of the grid as the first ones did: 3,000 and above, in the frame's step.
    assert get(app, f"{path}?price_min=30000&step=10").json["step"] == get(app, f"{path}?step=20").json["step"] / 2 == 10.0
    for query, (step, low) in (asked | {"price_min=60000": (10.0, 60_000.0)}).items():
        body = get(app, f"{path}?{query}").json
        assert (body["step"], body["price_min"]) == (step, low), query


@pytest.mark.covers("A1-M23")
def test_bodies_are_immutable(world: World) -> None:
    world.add_history(2)
    world.add_book()
    app = world.app()
    first = get(app, "/orderbook_heatmap").body
    get(app, "/orderbook_heatmap_stats")
    get(app, "/orderbook_heatmap?range_pct=0.01")
    assert get(app, "/orderbook_heatmap").body == first


def test_within_one_turn_of_the_loop_sources_are_looked_at_once() -> None:
    """And in the next turn again: what has changed meanwhile is seen then."""
    version, looks = 1, 0

    def current() -> int:
        nonlocal looks
        looks += 1
        return version

    async def scenario() -> None:
        nonlocal version, looks
        cache = Cache(entries=5, size=1 << 20, body=1 << 20)
        made = await cache.obtain(("k",), current, lambda: answer(b"{}"), b"/k")
        looks = 0
        assert all(cache.hit(b"/k") is made for _ in range(50))
        assert looks == 1
        version = 2
        await asyncio.sleep(0)
        assert cache.hit(b"/k") is None

    asyncio.run(scenario())
