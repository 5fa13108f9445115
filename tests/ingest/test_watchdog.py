"""Silence of a stream, a socket, a venue, on a clock made of numbers."""

from __future__ import annotations

import pytest

from mpengine.ingest.watchdog import SECOND, Action, SocketWatch, feed_state, trades_flow
from mpengine.schemas import FeedState
from mpengine.venues.base import StreamPlan, StreamStats
from shm.records import Kind
from tests.ingest.rig import DEPTH, FORCED, TRADES, plan

Stats = dict[str, StreamStats]


def actions(watch: SocketWatch, stats: Stats, at_s: float, flow: bool = False) -> list[tuple[str, Action]]:
    return [(f.stream, f.action) for f in watch.look(stats, int(at_s * SECOND), trades_flow=flow)]


def test_silence_warns_once_and_reopens_once() -> None:
    watch = SocketWatch(plan(), 0, 1.0)
    assert actions(watch, {}, 4.9) == []
    assert actions(watch, {}, 5) == [("depth", Action.WARN)]
    assert actions(watch, {}, 29.9) == []
    assert actions(watch, {}, 30) == [("depth", Action.REOPEN)]
    assert actions(watch, {}, 31) == []


def test_a_message_begins_the_silence_anew() -> None:
    watch, stats = SocketWatch(plan(), 0, 1.0), {"depth": StreamStats(messages=1)}
    assert actions(watch, {}, 6) == [("depth", Action.WARN)]
    assert actions(watch, stats, 7) == [("depth", Action.RECOVERED)]
    assert actions(watch, stats, 11.9) == []
    assert actions(watch, stats, 12) == [("depth", Action.WARN)]
    stats["depth"].messages += 1
    assert actions(watch, stats, 50) == [("depth", Action.RECOVERED)]
    assert watch.age_s("depth", 51 * SECOND) == 1


def test_an_unreadable_message_proves_the_stream() -> None:
    watch, stats = SocketWatch(plan(), 0, 1.0), {"depth": StreamStats(errors=1)}
    assert actions(watch, stats, 29) == []
    assert actions(watch, stats, 33.9) == []
    assert actions(watch, stats, 34) == [("depth", Action.WARN)]


def test_a_stream_without_an_instrument_costs_its_neighbours_nothing() -> None:
    watch = SocketWatch(plan(), 0, 1.0)
    assert [f.action for f in watch.look({}, 40 * SECOND, trades_flow=False, unlisted={"depth"})] == [Action.WARN]
    assert watch.look({}, 4000 * SECOND, trades_flow=False, unlisted={"depth"}) == []
    assert watch.state("depth", 4000 * SECOND, "LIVE") == "DOWN", "and nobody is told that it lives"
    assert actions(watch, {}, 4001) == [("depth", Action.REOPEN)], "once the venue lists it, its silence counts"


def test_the_scale_stretches_every_limit() -> None:
    watch = SocketWatch(plan(), 0, 0.1)
    assert actions(watch, {}, 0.5) == [("depth", Action.WARN)]
    assert actions(watch, {}, 3.0) == [("depth", Action.REOPEN)]


def test_liquidations_that_are_silent_while_trades_flow_come_over_the_wrong_route() -> None:
    watch = SocketWatch(plan(streams=(FORCED, TRADES)), 0, 1.0)
    stats = {"trades": StreamStats()}
    for second in range(1, 300):
        stats["trades"].messages += 1
        expected = [("forced", Action.WARN)] if second == 120 else []
        assert actions(watch, stats, second, flow=True) == expected
    stats["trades"].messages += 1
    assert actions(watch, stats, 300, flow=False) == []
    assert actions(watch, stats, 300, flow=True) == [("forced", Action.WRONG_ROUTE)]
    stats["trades"].messages += 1
    assert actions(watch, stats, 320, flow=True) == []


def test_trades_flow_while_one_of_them_is_young() -> None:
    sockets = plan(streams=(TRADES,))
    watch = SocketWatch(sockets, 0, 1.0)
    assert not trades_flow([(sockets, watch)], SECOND, 1.0)
    watch.look({"trades": StreamStats(messages=1)}, SECOND, trades_flow=False)
    assert trades_flow([(sockets, watch)], 60 * SECOND, 1.0)
    assert not trades_flow([(sockets, watch)], 61 * SECOND, 1.0)
    other = plan(streams=(DEPTH,))
    assert not trades_flow([(other, SocketWatch(other, 0, 1.0))], SECOND, 1.0)


@pytest.mark.parametrize(
    ("age_s", "state"), [(0, "LIVE"), (29.9, "LIVE"), (30, "STALE"), (119.9, "STALE"), (120, "DOWN"), (None, "DOWN")]
)
def test_a_venue_is_as_alive_as_its_last_message(age_s: float | None, state: FeedState) -> None:
    assert feed_state(age_s) == state
    assert feed_state(age_s, banned=True) == "BANNED"
    assert feed_state(age_s, banned=True, blocked=True) == "GEO_BLOCKED"


def test_a_stream_is_judged_by_its_own_limits_and_one_without_by_its_connection() -> None:
    quiet = TRADES.__class__("quiet", None, FORCED.kind, None, None, False)
    watch = SocketWatch(plan(streams=(DEPTH, quiet)), 0, 1.0)
    watch.look({"depth": StreamStats(messages=1)}, SECOND, trades_flow=False)
    assert [watch.state("depth", s * SECOND, "LIVE") for s in (1, 5, 6, 30, 31)] == ["LIVE", "LIVE", "STALE", "STALE", "DOWN"]
    assert watch.state("quiet", 10**6 * SECOND, "LIVE") == "LIVE"
    assert watch.state("quiet", SECOND, "DOWN") == "DOWN"


def test_a_stream_that_has_not_delivered_yet_is_as_alive_as_its_connection() -> None:
    watch = SocketWatch(plan(), 0, 1.0)
    assert watch.state("depth", SECOND, "DOWN") == "DOWN"
    assert watch.state("depth", SECOND, "LIVE") == "LIVE"


GENTLE = StreamPlan("book", "BTC", Kind.DEPTH, 5, 15, True, "resubscribe")


def test_a_stream_that_can_be_taken_anew_gets_a_new_socket_only_when_that_did_not_help() -> None:
    watch = SocketWatch(plan(streams=(GENTLE,)), 0, 1.0)
    found = [(s, action) for s in range(60) for _, action in actions(watch, {}, s)]
    assert found == [(5, Action.WARN), (15, Action.RESUBSCRIBE), (30, Action.REOPEN)]


def test_a_stream_that_delivers_after_its_resubscription_has_recovered_and_is_watched_anew() -> None:
    watch, stats = SocketWatch(plan(streams=(GENTLE,)), 0, 1.0), {"book": StreamStats()}
    assert actions(watch, stats, 15) == [("book", Action.RESUBSCRIBE)]
    assert actions(watch, stats, 16) == []
    stats["book"].messages = 1
    assert actions(watch, stats, 17) == [("book", Action.RECOVERED)]
    assert actions(watch, stats, 31) == [("book", Action.WARN)]
    assert actions(watch, stats, 32) == [("book", Action.RESUBSCRIBE)]
    assert actions(watch, stats, 47) == [("book", Action.REOPEN)]
