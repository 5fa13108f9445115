"""What a worker counts, how it is published, and that sums over workers never fall nor count twice."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from api.metrics import BOUNDS_S, CODES, COUNTED, LEVELS, Lane, Lanes, Meter, lane_spec
from api.metrics_push import CLOSE_REASONS
from shm.board_words import Word
from shm.counters import CounterWriter
from shm.layout import counters_spec
from shm.paths import Paths
from tests.api.world import World, get

ROUTES = [(("/oi", "/v1/oi"), "document"), (("/candles",), "history"), (("/liq_heatmap_history",), "history")]
NONE = ([0] * len(COUNTED), [0] * len(LEVELS))


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def meter(clock: Clock | None = None) -> Meter:
    return Meter(ROUTES, clock or Clock())


def told(one: Meter) -> dict[tuple[str, ...], int]:
    """What it has counted, without zeros."""
    return {key: value for key, value in zip(one.keys, one.figures(*NONE), strict=True) if value}


def requests(one: dict[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    return {key[1:]: value for key, value in one.items() if key[0] == "requests" and value}


def test_answers_are_counted_by_main_path_and_status() -> None:
    one = meter()
    for target in (b"/oi", b"/v1/oi?symbol=BTC", b"/oi/?symbol=ETH", b"/oi?"):
        one.hit(target, 200, 0)
    one.hit(b"/oi", 304, 0)
    one.answered("/candles", 503, 0)
    one.answered("/v1/oi", 400)
    assert requests(told(one)) == {
        ("/oi", "200"): 4, ("/oi", "304"): 1, ("/oi", "400"): 1, ("/candles", "503"): 1,
    }  # fmt: skip
    assert one.statuses() == (7, 1, 1)


@pytest.mark.covers("A2-M10")
def test_what_a_caller_wrote_never_becomes_a_label() -> None:
    one = meter()
    for path in ("/etc/passwd", "/oi/extra", "", "/OI", "/oi\udcff", "/" + "x" * 10_000, "other"):
        one.answered(path, 404)
    one.answered(None, 431)
    one.hit(b"/nope?symbol=BTC", 200, 0)
    one.answered("/oi", 299)
    assert requests(told(one)) == {("other", "404"): 7, ("other", "431"): 1, ("other", "200"): 1, ("/oi", "other"): 1}


@pytest.mark.covers("E-H8")
def test_remembered_targets_are_bounded() -> None:
    one = meter()
    for number in range(10_000):
        one.hit(b"/oi?x=%d" % number, 200, 0)
    assert requests(told(one)) == {("/oi", "200"): 10_000}
    assert len(one._by_target) <= 4096


def test_times_fall_into_the_bucket_that_holds_them() -> None:
    clock = Clock()
    one = meter(clock)
    for bound in (*BOUNDS_S, 100.0):
        clock.ns = round(bound * 1e9)
        one.answered("/candles", 200, 0)  # exactly at the bound: within it
        clock.ns += 1
        one.hit(b"/liq_heatmap_history", 200, 0)
    found = told(one)
    buckets = [found.get(("seconds", "history", str(index)), 0) for index in range(len(BOUNDS_S) + 1)]
    assert buckets == [1, *[2] * (len(BOUNDS_S) - 1), 3]
    assert found["nanoseconds", "history"] == 2 * sum(round(bound * 1e9) for bound in (*BOUNDS_S, 100.0)) + len(BOUNDS_S) + 1
    assert not any(key[0] == "seconds" and key[1] != "history" for key in found)


def test_every_answer_that_has_a_begin_is_timed_once() -> None:
    one = meter()
    one.hit(b"/oi", 200, 0)
    one.answered("/oi", 404, 0)
    one.answered("/oi", 101)  # goes on: there is no end to measure
    found = told(one)
    assert sum(value for key, value in found.items() if key[0] == "seconds") == 2 and one.statuses() == (3, 1, 0)


def test_a_timed_hit_stands_for_those_before_it() -> None:
    clock = Clock()
    one = meter(clock)
    clock.ns = 1_000_000_000
    for _ in range(3):
        one.hit(b"/oi", 200, None)
    one.hit(b"/oi", 304, 997_000_000)  # 3 ms
    one.hit(b"/oi", 200, None)
    found = told(one)
    assert found["nanoseconds", "document"] == 5 * 3_000_000 and found["seconds", "document", "6"] == 5
    one.hit(b"/oi", 200, 0)
    later = told(one)
    assert later["seconds", "document", "6"] == 5 and later["seconds", "document", "13"] == 1, "what was told does not change"
    assert requests(later) == {("/oi", "200"): 5, ("/oi", "304"): 1}


def test_one_hit_in_eight_is_timed_whatever_the_rhythm() -> None:
    one = meter()
    drawn = [next(one.timed) for _ in range(100 * 1021)]
    for every in (1, 2, 7, 8, 10):
        share = sum(drawn[::every]) / len(drawn[::every])
        assert 0.05 < share < 0.25


def test_figures_of_push_cache_and_rings_have_their_keys() -> None:
    one = meter()
    one.push.begin("sse")
    one.push.begin("ws")
    one.push.begin("ws")
    one.push.end("ws", "slow")
    one.push.end("sse", "the moon fell down")
    one.push.sent_bytes += 70
    one.push.conflated += 3
    found = dict(zip(one.keys, one.figures([1, 2, 3, 4], [5, 6]), strict=True))
    assert [found[name,] for name in (*COUNTED, *LEVELS)] == [1, 2, 3, 4, 5, 6]
    assert (found["push_clients", "sse"], found["push_clients", "ws"]) == (0, 1)
    assert (found["push_bytes",], found["push_conflated",]) == (70, 3)
    assert {reason: found["push_closed", reason] for reason in CLOSE_REASONS if found["push_closed", reason]} == {
        "slow": 1, "other": 1,
    }  # fmt: skip
    with pytest.raises(KeyError):
        one.push.begin("pigeon")
    assert all(key[0].startswith(("cache_", "push_clients")) for key in one.keys[one.counters :])
    assert len(CODES) + 1 == sum(key[:2] == ("requests", "/oi") for key in one.keys)


@pytest.fixture
def paths(tmpfs: Path) -> Paths:
    (tmpfs / "run").mkdir()
    return Paths(tmpfs / "data", tmpfs / "run")


def lane(paths: Paths, one: Meter, lanes: int = 4) -> Lane:
    return Lane(paths, one, lanes)


def total(paths: Paths) -> dict[tuple[str, ...], int]:
    return Lanes(paths, meter(), 4).totals()


@pytest.mark.covers("E-C1")
def test_sums_over_workers_survive_reloads_and_count_nothing_twice(paths: Paths) -> None:
    """Two workers; one is replaced while it drains: both count, each in a file of its own, and the next one goes on."""
    first, second, third, fourth = (meter() for _ in range(4))
    lanes = [lane(paths, one) for one in (first, second, third, fourth)]
    for count, (one, where) in enumerate(zip((first, second, third), lanes), 1):
        for _ in range(count):
            one.answered("/oi", 200)
        where.publish(*NONE)
        where.publish(*NONE)
    assert requests(total(paths)) == {("/oi", "200"): 6}
    lanes[0].close()
    fourth.answered("/oi", 200)
    lanes[3].publish(*NONE)
    assert requests(total(paths)) == {("/oi", "200"): 7}
    assert sorted(path.name for path in paths.runtime.iterdir()) == [f"http-{n}.counters" for n in range(4)]
    for one in lanes[1:]:
        one.close()


def test_levels_count_only_while_their_worker_lives(paths: Paths) -> None:
    one, other = meter(), meter()
    here, there = lane(paths, one), lane(paths, other)
    one.push.begin("ws")
    here.publish(NONE[0], [7, 700])
    there.publish(NONE[0], [3, 300])
    found = total(paths)
    assert (found["cache_entries",], found["cache_bytes",], found["push_clients", "ws"]) == (10, 1000, 1)
    here.close()
    found = total(paths)
    assert (found["cache_entries",], found["push_clients", "ws"]) == (3, 0)
    one = meter()
    here = lane(paths, one)
    here.publish(NONE[0], [1, 100])  # levels are not added to what the worker before left
    assert total(paths)["cache_entries",] == 4
    here.close()
    there.close()


def test_a_worker_that_finds_no_file_publishes_later(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    one = meter()
    holder, waiting = lane(paths, meter(), 1), lane(paths, one, 1)
    holder.publish(*NONE)
    one.answered("/oi", 200)
    with caplog.at_level(logging.WARNING):
        waiting.publish(*NONE)
    assert "no counter file is free" in caplog.text and requests(total(paths)) == {}
    holder.close()
    one.answered("/oi", 200)
    waiting.publish(*NONE)
    assert requests(total(paths)) == {("/oi", "200"): 2}
    waiting.close()


def test_without_a_runtime_directory_nothing_is_published_and_nothing_raised(tmpfs: Path) -> None:
    paths = Paths(tmpfs / "data", tmpfs / "none" / "run")
    lane(paths, meter()).publish(*NONE)
    assert not any(total(paths).values()) and not (tmpfs / "none").exists()


def test_files_of_a_program_with_other_routes_are_replaced(paths: Paths) -> None:
    other = counters_spec("http", ["a", "b"])
    with CounterWriter.open(paths.http_counters(0), other) as old:
        old.store([5, 6])
    with CounterWriter.open(paths.http_counters(1), other):
        one = meter()
        one.answered("/oi", 200)
        where = lane(paths, one)
        where.publish(*NONE)
        assert requests(total(paths)) == {("/oi", "200"): 1}
        where.close()
    assert lane_spec(meter().keys) != other


# --- the application counts -------------------------------------------------------------------------------------------


def test_the_application_counts_every_answer_by_route(world: World) -> None:
    world.add_history(3)
    app = world.app()
    for target in ("/orderbook_heatmap", "/orderbook_heatmap", "/v2/orderbook_heatmap_30s", "/orderbook_heatmap?symbol=eth"):
        get(app, target)
    etag = get(app, "/orderbook_heatmap").headers["etag"]
    get(app, "/orderbook_heatmap", headers={"If-None-Match": etag})
    get(app, "/candles?interval=7m")
    get(app, "/livez", method="HEAD")
    get(app, "/livez", method="POST")
    get(app, "/secret/path?key=value")
    app.refused(414, [])
    assert requests(told(app.meter)) == {
        ("/orderbook_heatmap", "200"): 4, ("/orderbook_heatmap", "304"): 1, ("/orderbook_heatmap", "404"): 1,
        ("/candles", "400"): 1, ("/livez", "200"): 1, ("/livez", "405"): 1, ("other", "404"): 1, ("other", "414"): 1,
    }  # fmt: skip
    timed = {key[1]: value for key, value in told(app.meter).items() if key[0] == "seconds"}
    assert sum(value for key, value in told(app.meter).items() if key[0] == "seconds") == app.meter.statuses()[0] - 1, timed


def test_hits_that_never_reach_the_framework_are_counted(world: World) -> None:
    world.add_history(3)
    app = world.app()
    get(app, "/orderbook_heatmap?symbol=BTC")
    before = app.meter.statuses()[0]
    scope = {"client": ("127.0.0.1", 1)}
    assert app.wire_answer(b"/orderbook_heatmap?symbol=BTC", [], head=False, more=[], scope=scope) is not None
    assert app.wire_answer(b"/orderbook_heatmap?symbol=SOL", [], head=False, more=[], scope=scope) is None
    assert app.meter.statuses()[0] == before + 1, "a miss is counted when it is answered"
    assert requests(told(app.meter)) == {("/orderbook_heatmap", "200"): 2}


def test_a_turn_tells_the_file_and_the_board(world: World) -> None:
    world.add_history(3)
    app = world.app()
    seen: list[dict[Word, int]] = []
    app.on_turn = lambda totals, levels: seen.append({**totals, **levels})
    for target in ("/orderbook_heatmap", "/orderbook_heatmap", "/nope"):
        get(app, target)
    app.meter.push.conflated = 4
    app.turn()
    found = Lanes(world.settings.paths, app.meter, 2).totals()
    assert (found["cache_hits",], found["cache_misses",], found["cache_entries",], found["push_conflated",]) == (1, 1, 1, 4)
    assert requests(found) == {("/orderbook_heatmap", "200"): 2, ("other", "404"): 1}
    assert (seen[-1][Word.HTTP_REQUESTS], seen[-1][Word.HTTP_4XX], seen[-1][Word.SENDS_CONFLATED]) == (3, 1, 4)
