"""The FEEDS document says what is true of each venue and stream, and survives its own schema."""

from __future__ import annotations

import pytest

from mpengine.ingest.feeds import Feed, Life, document, liquidation_streams, streams_word
from mpengine.ingest.watchdog import SECOND, SocketWatch
from mpengine.schemas import FeedsDocument, decode, encode
from mpengine.venues.base import RestCall, RestResult, RestVerdict, StreamPlan
from shm.records import Kind
from tests.ingest.rig import DEPTH, FORCED, TRADES, FakeVenue, message, plan

WALL = 1_800_000_000 * SECOND
CALL = RestCall("oi", "BTC", "/oi", 1, interval_s=15)


def feed_with_life() -> tuple[Feed, Life]:
    sockets = plan(streams=(DEPTH, TRADES, FORCED))
    feed = Feed(FakeVenue([sockets]))
    life = Life("public#1", sockets, 0, SocketWatch(sockets, 0, 1.0))
    feed.begin(life)
    feed.module.opened(life.name, WALL)
    return feed, life


def deliver(feed: Feed, life: Life, n: int, stream: str, at_s: float) -> None:
    now_ns = int(at_s * SECOND)
    feed.module.receive(life.name, message(n, stream).encode(), WALL + now_ns)
    life.seen_ns = feed.seen_ns = now_ns
    feed.seen_wall_ns = WALL + now_ns
    life.watch.look(feed.module.stats(life.name), now_ns, trades_flow=False)


def test_a_venue_before_its_first_message_is_down_and_has_no_numbers() -> None:
    feed, _ = feed_with_life()
    venue = document([feed], WALL, SECOND).venues["binance"]
    assert (venue.state, venue.last_ms, venue.used_weight, venue.last_error) == ("DOWN", None, None, None)
    assert venue.streams["depth"].last_ms is None
    assert venue.streams["depth"].lag_ms is None
    assert venue.liquidations == "largest_1s"


def test_streams_and_venue_carry_their_figures() -> None:
    feed, life = feed_with_life()
    deliver(feed, life, 1, "depth", 1)
    deliver(feed, life, 2, "depth", 2)
    deliver(feed, life, 3, "trades", 2)
    feed.reconnects, feed.rest_errors, feed.bad_messages, feed.last_error = 3, 4, 1, "oi: TimeoutError"
    feed.module.counters.refuse("not_json")
    feed.module.counters.count("trade_duplicate")
    feed.module.counters.events[Kind.DEPTH] += 5
    feed.policy.settle(CALL, RestVerdict(RestResult.LIMITED, 30, 700), 10 * SECOND)
    venue = document([feed], WALL + 12 * SECOND, 12 * SECOND).venues["binance"]
    assert (venue.state, venue.connections, venue.reconnects, venue.rest_errors) == ("LIVE", 1, 3, 4)
    assert (venue.parse_errors, venue.used_weight, venue.last_error) == (2, 700, "oi: TimeoutError")
    assert venue.reasons == {"not_json": 1, "trade_duplicate": 1, "too_long": 1}
    assert venue.events == {"depth": 5}
    assert venue.last_ms == (WALL + 2 * SECOND) // 10**6
    assert venue.rest_paused_until_ms == (WALL + 40 * SECOND) // 10**6
    depth, trades, forced = (venue.streams[name] for name in ("depth", "trades", "forced"))
    assert (depth.messages, depth.state, depth.lag_ms) == (2, "STALE", 1.0)
    assert (trades.messages, trades.state) == (1, "LIVE")
    assert (forced.messages, forced.state) == (0, "LIVE")


def test_totals_of_a_stream_outlive_its_connection() -> None:
    feed, life = feed_with_life()
    deliver(feed, life, 1, "depth", 1)
    feed.end(life)
    feed.module.lost(life.name, WALL, replaced=False)
    second = Life("public#2", life.plan, 5 * SECOND, SocketWatch(life.plan, 5 * SECOND, 1.0))
    stream = document([feed], WALL, 3 * SECOND).venues["binance"].streams["depth"]
    assert (stream.state, stream.messages) == ("DOWN", 1)
    feed.begin(second)
    feed.module.opened(second.name, WALL)
    deliver(feed, second, 2, "depth", 6)
    stream = document([feed], WALL, 7 * SECOND).venues["binance"].streams["depth"]
    assert (stream.state, stream.messages, stream.last_ms) == ("LIVE", 2, (WALL + 6 * SECOND) // 10**6)


@pytest.mark.covers("F10")
def test_a_ban_and_a_geo_block_override_the_age() -> None:
    feed, life = feed_with_life()
    deliver(feed, life, 1, "depth", 1)
    feed.policy.settle(CALL, RestVerdict(RestResult.BANNED, 60), SECOND)
    assert feed.state(2 * SECOND) == "BANNED"
    assert feed.state(61 * SECOND) == "STALE"
    feed.policy.settle(CALL, RestVerdict(RestResult.BLOCKED), SECOND)
    assert feed.state(2 * SECOND) == "GEO_BLOCKED"


def test_the_document_survives_its_encoding() -> None:
    feed, life = feed_with_life()
    deliver(feed, life, 1, "depth", 1)
    made = document([feed], WALL, 2 * SECOND)
    assert decode(encode(made), FeedsDocument) == made


def test_the_board_counts_streams_by_state_and_the_document_says_what_was_done() -> None:
    feed, life = feed_with_life()
    deliver(feed, life, 1, "depth", 1)
    deliver(feed, life, 2, "trades", 1)
    assert streams_word(feed, SECOND) == 3  # forced orders may be silent: as alive as their connection
    assert streams_word(feed, 7 * SECOND) == 2 + (1 << 16)
    assert streams_word(feed, 32 * SECOND) == (2 << 16) + (1 << 32)
    feed.did("resubscribed")
    feed.did("resubscribed")
    assert document([feed], WALL, SECOND).venues["binance"].reasons == {"resubscribed": 2}
    feed.end(life)
    assert streams_word(feed, SECOND) == 3 << 32


def test_streams_of_one_symbols_liquidations_are_found_with_their_oldest_connection() -> None:
    own = StreamPlan("all.BTC", "BTC", Kind.LIQUIDATION, None, None, False)
    sockets = plan(name="linear", streams=(DEPTH, own, FORCED))
    feed = Feed(FakeVenue([sockets]))
    assert liquidation_streams(feed) == {}
    for number, opened_ns in ((2, 500), (1, 300), (3, 900)):
        feed.begin(Life(f"linear#{number}", sockets, opened_ns, SocketWatch(sockets, opened_ns, 1.0)))
    assert liquidation_streams(feed) == {"BTC": ("linear", "all.BTC", 300)}
