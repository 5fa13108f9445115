"""Silence of a stream, a socket, a venue, on a clock made of numbers."""

from __future__ import annotations

import itertools

import pytest

from mpengine import venues
from mpengine.config import load
from mpengine.ingest.watchdog import SECOND, Action, Efforts, SocketWatch, feed_state, trades_flow
from mpengine.schemas import FeedState
from mpengine.venues.base import StreamPlan, StreamStats, VenueModule
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


def test_a_connection_that_outlives_its_cut_is_cut_again() -> None:
    watch, stats = SocketWatch(plan(), 0, 1.0), {"depth": StreamStats()}
    assert actions(watch, stats, 30) == [("depth", Action.REOPEN)]
    stats["depth"].messages = 1
    assert actions(watch, stats, 31) == [("depth", Action.RECOVERED)]
    assert actions(watch, stats, 61) == [("depth", Action.REOPEN)]


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


# one silent stream among others -----------------------------------------------------------------------------------------

HOUR = 3600
QUIET = StreamPlan("trades.XYZ", "XYZ", Kind.TRADE, 30, 60, False, "resubscribe")
QUIET_BOOK = StreamPlan("book.XYZ", "XYZ", Kind.DEPTH, 5, 30, True)
BUSY = StreamPlan("book.BTC", "BTC", Kind.DEPTH, 5, 30, True)
BUSY_GENTLE = StreamPlan("trades.BTC", "BTC", Kind.TRADE, 30, 60, False, "resubscribe")
WIDE = StreamPlan("liquidations", None, Kind.LIQUIDATION, 900, 1800, False)


class Clock:
    """A socket looked at once a second; `go` lets streams deliver with each look and says what was found, and when."""

    def __init__(self, *streams: StreamPlan, scale: float = 1.0) -> None:
        self.sockets, self.scale = plan(streams=streams), scale
        self.efforts = Efforts(scale)
        self.stats: Stats = {}
        self.at_s = 0.0
        self.reopen()

    def reopen(self) -> None:
        """A new connection of the plan."""
        self.stats = {stream.name: StreamStats() for stream in self.sockets.streams}
        self.watch = SocketWatch(self.sockets, int(self.at_s * SECOND), self.scale, self.efforts)

    def go(self, seconds: float, *delivering: StreamPlan) -> list[tuple[float, str, Action]]:
        found = []
        for _ in range(round(seconds)):
            self.at_s += 1
            for stream in delivering:
                self.stats[stream.name].messages += 1
            found += [(self.at_s, *one) for one in actions(self.watch, self.stats, self.at_s)]
        return found

    def state(self, stream: StreamPlan, connection: FeedState = "LIVE") -> FeedState:
        return self.watch.state(stream.name, int(self.at_s * SECOND), connection)


def of(action: Action, found: list[tuple[float, str, Action]]) -> list[tuple[float, str]]:
    return [(at_s, stream) for at_s, stream, one in found if one is action]


@pytest.mark.parametrize("quiet", [QUIET, QUIET_BOOK])
def test_a_quiet_symbol_never_costs_the_socket(quiet: StreamPlan) -> None:
    clock = Clock(BUSY, quiet)
    found = clock.go(4 * HOUR, BUSY)
    assert {action for _, _, action in found} == {Action.WARN, Action.RESUBSCRIBE}
    assert {stream for _, stream, _ in found} == {quiet.name}
    assert len(of(Action.WARN, found)) == 1


def test_a_quiet_symbol_is_subscribed_anew_ever_more_rarely() -> None:
    clock = Clock(BUSY, QUIET)
    times = [at_s for at_s, _ in of(Action.RESUBSCRIBE, clock.go(4 * HOUR, BUSY))]
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == 60 and steps[:4] == [60, 120, 240, 480]
    assert set(steps[7:]) == {HOUR}


def test_a_symbol_that_trades_now_and_then_is_not_subscribed_anew_each_time() -> None:
    clock, times = Clock(BUSY, QUIET), list[float]()
    for _ in range(120):  # a trade every 90 s, for three hours: each silence is longer than the limit
        times += [at_s for at_s, _ in of(Action.RESUBSCRIBE, clock.go(89, BUSY) + clock.go(1, BUSY, QUIET))]
    assert len([at_s for at_s in times if at_s <= HOUR]) <= 7
    assert len([at_s for at_s in times if at_s > 2 * HOUR]) <= 1


def test_after_an_hour_without_a_long_silence_the_first_try_comes_at_once_again() -> None:
    clock = Clock(BUSY, QUIET)
    clock.go(1000, BUSY)
    clock.go(2.5 * HOUR, BUSY, QUIET)
    began = clock.at_s
    times = [at_s - began for at_s, _ in of(Action.RESUBSCRIBE, clock.go(200, BUSY))]
    assert times == [60, 120]


def test_a_new_connection_begins_no_new_series_of_tries() -> None:
    clock = Clock(BUSY, QUIET)
    assert len(of(Action.RESUBSCRIBE, clock.go(1000, BUSY))) == 5
    clock.reopen()
    assert of(Action.RESUBSCRIBE, clock.go(900, BUSY)) == []
    assert len(of(Action.RESUBSCRIBE, clock.go(200, BUSY))) == 1


def test_nothing_is_asked_for_a_symbol_that_the_venue_does_not_list() -> None:
    clock = Clock(BUSY, QUIET)
    clock.stats[BUSY.name].messages = 1
    for second in range(1, HOUR):
        clock.stats[BUSY.name].messages += 1
        found = clock.watch.look(clock.stats, second * SECOND, trades_flow=False, unlisted={QUIET.name})
        assert [one.action for one in found] == ([Action.WARN] if second == 30 else [])


def test_what_was_done_about_a_silence_is_not_followed_by_a_warning_of_it() -> None:
    watch, stats = SocketWatch(plan(streams=(BUSY, QUIET)), 0, 1.0), {BUSY.name: StreamStats(messages=1)}
    assert actions(watch, stats, 70) == [(QUIET.name, Action.RESUBSCRIBE)], "this process stood still"
    stats[BUSY.name].messages = 2
    assert actions(watch, stats, 71) == []


def test_many_quiet_symbols_are_subscribed_anew_one_by_one() -> None:
    many = [StreamPlan(f"trades.{n}", f"C{n}", Kind.TRADE, 30, 60, False, "resubscribe") for n in range(100)]
    clock = Clock(BUSY, *many)
    times = of(Action.RESUBSCRIBE, clock.go(3 * HOUR, BUSY))
    assert {stream for _, stream in times} == {one.name for one in many}, "each of them gets its turn"
    steps = [after - before for (before, _), (after, _) in itertools.pairwise(times)]
    assert min(steps) == 30
    assert [stream for _, stream in times[:100]] == [one.name for one in many], "whoever waits longest comes first"


def test_a_quiet_symbol_is_stale_by_itself_and_live_with_its_next_message() -> None:
    clock = Clock(BUSY, QUIET)
    clock.go(1, BUSY, QUIET)
    assert clock.state(QUIET) == "LIVE"
    clock.go(40, BUSY)
    assert clock.state(QUIET) == "STALE"
    clock.go(3 * HOUR, BUSY)
    assert (clock.state(QUIET), clock.state(BUSY)) == ("STALE", "LIVE"), "its silence is its nature"
    assert clock.state(QUIET, "DOWN") == "DOWN", "unless nothing comes at all"
    clock.reopen()
    clock.go(HOUR, BUSY)
    assert clock.state(QUIET) == "STALE", "it was heard on an earlier connection"
    assert clock.go(1, BUSY, QUIET) == [(clock.at_s, QUIET.name, Action.RECOVERED)]
    assert clock.state(QUIET) == "LIVE"


def test_a_quiet_symbol_that_was_never_heard_goes_down() -> None:
    clock = Clock(BUSY, QUIET)
    clock.go(61, BUSY)
    assert clock.state(QUIET) == "DOWN"


@pytest.mark.parametrize(("stream", "at_s"), [(BUSY, 30), (BUSY_GENTLE, 120), (WIDE, 1800)])
def test_a_stream_that_never_rests_is_replaced_while_its_neighbours_deliver(stream: StreamPlan, at_s: float) -> None:
    clock = Clock(stream, QUIET)
    found = clock.go(4 * HOUR, QUIET)
    assert of(Action.REOPEN, found) == [], "a cut would be a hole in what the others deliver"
    times = [at for at, _ in of(Action.REPLACE, found)]
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == at_s and steps[0] == at_s and max(steps) == HOUR
    assert [stream for _, stream in of(Action.RESUBSCRIBE, found)] == [stream.name] * (stream.act == "resubscribe")


def test_what_delivered_again_is_replaced_at_its_first_limit_again() -> None:
    clock = Clock(BUSY, QUIET)
    assert len(of(Action.REPLACE, clock.go(200, QUIET))) == 3
    clock.go(1, BUSY, QUIET)
    assert of(Action.REPLACE, clock.go(31, QUIET)) == [(231, BUSY.name)]


def test_a_socket_that_falls_silent_after_one_of_its_streams_is_reopened() -> None:
    clock = Clock(BUSY, QUIET)
    assert of(Action.REPLACE, clock.go(31, QUIET)) == [(30, BUSY.name)]
    found = clock.go(60)
    assert [(stream, action) for _, stream, action in found if action is Action.REOPEN] == [(BUSY.name, Action.REOPEN)]


def test_a_socket_on_which_everything_stops_is_reopened_at_its_first_limit() -> None:
    clock = Clock(BUSY, QUIET, WIDE)
    clock.go(10, BUSY, QUIET, WIDE)
    clock.go(8, QUIET)  # the last words of its streams do not come together
    found = clock.go(40)
    assert [one for one in found if one[2] is not Action.WARN] == [(40, BUSY.name, Action.REOPEN)]
    clock.reopen()
    assert of(Action.REOPEN, clock.go(31)) == [(clock.at_s - 1, BUSY.name)], "and each further connection as well"


def test_nothing_is_asked_of_a_socket_that_may_be_dead() -> None:
    clock = Clock(BUSY_GENTLE, QUIET_BOOK)
    clock.go(10, BUSY_GENTLE, QUIET_BOOK)
    found = clock.go(120)
    assert [action for _, stream, action in found if stream == QUIET_BOOK.name] == [Action.WARN]
    assert of(Action.REOPEN, found) == [(130, BUSY_GENTLE.name)]


@pytest.mark.parametrize(("streams", "action"), [((QUIET,), Action.REPLACE), ((QUIET, QUIET_BOOK), Action.REOPEN)])
def test_a_socket_of_quiet_symbols_on_which_nothing_comes(streams: tuple[StreamPlan, ...], action: Action) -> None:
    """Quotes are missing for sure, trades are not: where there is only the market's silence, a cut would be a hole for nothing."""
    clock, times = Clock(*streams), list[float]()
    limit_s = 2 * min(one.act_s or 0 for one in streams)
    for _ in range(4 * HOUR):
        found = clock.go(1)
        assert {one for _, _, one in found} <= {Action.WARN, Action.RESUBSCRIBE, action}
        if of(action, found):
            times.append(clock.at_s)
            clock.reopen()
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert times[0] == limit_s and steps[0] == limit_s and steps[-1] == HOUR, "ever more rarely"
    assert of(action, Clock(*streams).go(4 * HOUR, QUIET)) == [], "one that delivers speaks for the socket"


def test_streams_without_a_limit_do_not_end_a_socket() -> None:
    may_rest = StreamPlan("all.XYZ", "XYZ", Kind.LIQUIDATION, None, None, False)
    assert Clock(may_rest).go(4 * HOUR) == []


def test_the_scale_stretches_tries_as_well() -> None:
    clock = Clock(BUSY, QUIET, scale=0.1)
    times = [at_s for at_s, _ in of(Action.RESUBSCRIBE, clock.go(100, BUSY))]
    assert times == [6, 12, 24, 48, 96]


EVERYTHING = """
[symbols.BTC]
[symbols.ETH]
[venues.binance]
book_ticker = true
[venues.bybit]
order_book = true
trades = true
tickers = true
[venues.okx]
order_book = true
trades = true
mark_price = true
funding = true
open_interest = true
"""


@pytest.mark.parametrize("venue", venues.build(load(EVERYTHING, {})), ids=lambda one: one.venue.label)
def test_no_venue_ends_a_connection_for_one_silent_stream_of_a_symbol_that_may_rest(venue: VenueModule) -> None:
    resting = [(sockets, one) for sockets in venue.sockets() for one in sockets.streams if one.symbol == "ETH" and one.act_s]
    assert len(resting) >= 3
    for sockets, silent in resting:
        clock = Clock(*sockets.streams)
        found = clock.go(1500, *(one for one in sockets.streams if one is not silent))
        assert {action for _, _, action in found} == {Action.WARN, Action.RESUBSCRIBE}, silent.name
        assert {stream for _, stream, _ in found} == {silent.name}


@pytest.mark.parametrize("venue", venues.build(load(EVERYTHING, {})), ids=lambda one: one.venue.label)
def test_every_venue_reopens_a_socket_on_which_nothing_comes(venue: VenueModule) -> None:
    for sockets in venue.sockets():
        clock = Clock(*sockets.streams)
        clock.go(10, *sockets.streams)
        cuts = of(Action.REOPEN, clock.go(200))
        limits = {one.name: one.act_s * (1 + (one.act == "resubscribe")) for one in sockets.streams if one.steady and one.act_s}
        assert (cuts[0][0] - 10, cuts[0][1]) == (min(limits.values()), min(limits, key=lambda name: limits[name]))
