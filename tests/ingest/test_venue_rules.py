"""What a venue asks of its sockets: its connection rate, its refusals, new subscriptions, announced ends, texts in order."""

from __future__ import annotations

import asyncio
import contextlib
import http
import itertools
import logging
import time
from typing import Any

import pytest
from websockets.asyncio.server import Request, Response, ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed

from mpengine.ingest import connection as module
from mpengine.ingest.connection import SocketKeeper, dialler
from mpengine.ingest.feeds import HANDSHAKES_REFUSED, RESUBSCRIBED
from mpengine.ingest.watchdog import Action
from mpengine.venues.base import ConnectLimit, StreamPlan
from shm.records import Kind
from tests.ingest.rig import DEPTH, FakeVenue, Rig, message, plan, run, running, socket_server, until

QUIET = StreamPlan("trades.XYZ", "XYZ", Kind.TRADE, 30, 60, False, "resubscribe")

pytestmark = pytest.mark.timeout(60)


class Venue:
    """A server that refuses handshakes with `status` while it is set, and keeps what was said. `tries`: times of handshakes."""

    def __init__(self, status: int | None = None, body: bytes = b"", **headers: str) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.tries: list[float] = []
        self.connections: list[ServerConnection] = []
        self.heard: list[str] = []

    def judge(self, _ws: ServerConnection, _request: Request) -> Response | None:
        self.tries.append(time.monotonic())
        if self.status is None:
            return None
        return Response(self.status, http.HTTPStatus(self.status).phrase, Headers(self.headers), self.body)

    async def __call__(self, ws: ServerConnection) -> None:
        self.connections.append(ws)
        with contextlib.suppress(ConnectionClosed):
            async for text in ws:
                self.heard.append(str(text))

    def serve(self) -> Any:
        return socket_server(self, process_request=self.judge)


def rig_for(url: str, *names: str, **venue: Any) -> Rig:
    return Rig(FakeVenue([plan(url, name) for name in names or ("public",)], **venue), reconnect_max_s=0.1)


def keepers_of(rig: Rig) -> list[SocketKeeper]:
    dial = dialler(rig.settings)
    return [SocketKeeper(rig.feed, sockets, rig.intake, rig.settings, dial, lambda: 0.5) for sockets in rig.feed.plans]


@pytest.mark.covers("F10", "A1-M14")
def test_a_reconnect_storm_of_all_sockets_stays_below_the_venues_rate() -> None:
    """Eight sockets whose connections end at once: tries come at the venue's rate, whatever each keeper's own delay says."""

    async def main() -> None:
        venue = Venue()
        limit = ConnectLimit(burst=4, per_s=20.0)

        async def drop(ws: ServerConnection) -> None:
            await ws.close()

        async with socket_server(drop, process_request=venue.judge) as (_, url):
            rig = rig_for(url, *(f"s{n}" for n in range(8)), connect_limit=limit)
            async with running(*(keeper.run() for keeper in keepers_of(rig))):
                await until(lambda: len(venue.tries) >= 30)
        for first, last in itertools.combinations(range(len(venue.tries)), 2):
            span_s = venue.tries[last] - venue.tries[first]
            # Tries are spaced where they begin; on their way to the server they may crowd by what the machine is late.
            assert last - first + 1 <= limit.burst + (span_s + 0.25) * limit.per_s + 1
        assert rig.feed.gate.waited > 0

    run(main())


@pytest.mark.covers("F10")
@pytest.mark.parametrize("status", [451])
def test_a_geo_block_ends_the_tries_of_one_venue_and_is_said_once(status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        blocked, sound = Venue(status), Venue()
        async with blocked.serve() as (_, bad_url), sound.serve() as (_, good_url):
            bad, good = rig_for(bad_url, "a", "b", "c"), rig_for(good_url)
            keepers = [*keepers_of(bad), *keepers_of(good)]
            async with running(*(keeper.run() for keeper in keepers)) as tasks:
                await until(lambda: bad.feed.gate.blocked and good.feed.lives)
                now_ns = time.monotonic_ns()
                assert bad.feed.state(now_ns) == "GEO_BLOCKED"
                assert bad.feed.policy.blocked
                assert not good.feed.gate.blocked
                await sound.connections[0].send(message(1))
                await until(lambda: good.sink.numbers == [1])
                tried = len(blocked.tries)
                assert tried <= 3  # those that were on their way together
                await sound.connections[0].close()
                await until(lambda: len(sound.connections) == 2)  # ten delays of the blocked one would fit in here
                assert len(blocked.tries) == tried
                assert not any(task.done() for task in tasks)
            assert bad.feed.reasons[HANDSHAKES_REFUSED] == tried

    run(main())
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1


@pytest.mark.covers("F10")
@pytest.mark.parametrize("status", [429, 418, 403])
def test_a_refused_handshake_is_tried_again_when_the_venue_says(status: int) -> None:
    async def main() -> None:
        venue = Venue(status, **{"Retry-After": "1"})
        async with venue.serve() as (_, url):
            rig = rig_for(url, "a", "b")
            async with running(*(keeper.run() for keeper in keepers_of(rig))):
                await until(lambda: rig.feed.reconnects >= 2)
                assert rig.feed.policy.banned(time.monotonic_ns()) == (status == 418)
                venue.status = None
                await until(lambda: len(rig.feed.lives) == 2)
            refused, accepted = venue.tries[:2], venue.tries[2:]
            assert min(accepted) - max(refused) >= 0.9
            assert len(venue.tries) == 4
            assert rig.feed.reasons[HANDSHAKES_REFUSED] == 2

    run(main())


@pytest.mark.covers("F10")
def test_without_retry_after_a_limit_holds_for_the_default_pause() -> None:
    async def main() -> None:
        async with Venue(429).serve() as (_, url):
            rig = rig_for(url)
            async with running(*(keeper.run() for keeper in keepers_of(rig))):
                await until(lambda: rig.feed.reconnects == 1)
                pause_ns = rig.feed.gate.pause_ns(time.monotonic_ns())
                assert pause_ns is not None
                assert 50 < pause_ns / 1e9 <= 60

    run(main())


@pytest.mark.covers("A1-M12", "A1-M14")
def test_any_other_refusal_is_tried_again_with_the_usual_delays() -> None:
    async def main() -> None:
        venue = Venue(503)
        async with venue.serve() as (_, url):
            rig = rig_for(url)
            async with running(*(keeper.run() for keeper in keepers_of(rig))):
                await until(lambda: rig.feed.reconnects >= 3)
                venue.status = None
                await until(lambda: rig.feed.lives)
            assert "503" in (rig.feed.last_error or "")

    run(main())


def test_an_address_that_the_server_does_not_know_is_nothing_to_wait_for() -> None:
    async def main() -> None:
        absent: list[str] = []
        async with Venue(404).serve() as (_, url):
            rig = rig_for(url)
            rig.intake.absent = lambda _feed, sockets: absent.append(sockets.name)  # type: ignore[method-assign]
            async with running(*(keeper.run() for keeper in keepers_of(rig))):
                await until(lambda: rig.feed.reconnects >= 2)
        assert set(absent) == {"public"}

    run(main())


def test_texts_go_out_after_the_plans_own_in_order_and_at_each_occasion() -> None:
    async def main() -> None:
        venue = Venue()
        async with venue.serve() as (_, url):
            rig = Rig(FakeVenue([plan(url, subscribe=("plan 1", "plan 2"))]), reconnect_max_s=0.1)
            rig.venue.say["public#1"] = ["opened"]
            [keeper] = keepers_of(rig)
            async with running(keeper.run()):
                await until(lambda: venue.heard == ["plan 1", "plan 2", "opened"])
                rig.venue.say["public#1"] = [f"reply {n}" for n in range(50)]
                await venue.connections[0].send(message(1))
                await until(lambda: len(venue.heard) == 53)
                rig.venue.say["public#1"] = ["turn"]  # what a REST reply has made possible
                keeper.send_pending()
                await until(lambda: venue.heard[-1] == "turn")
                assert venue.heard[3:53] == [f"reply {n}" for n in range(50)]

    run(main())


@pytest.mark.covers("E-H8")
def test_a_module_that_says_too_much_costs_its_connection_not_memory() -> None:
    async def main() -> None:
        venue = Venue()
        async with venue.serve() as (_, url):
            rig = rig_for(url)
            [keeper] = keepers_of(rig)
            async with running(keeper.run()):
                await until(lambda: venue.connections)
                await until(lambda: keeper.life is not None)
                rig.venue.say["public#1"] = ["x"] * (module.OUTBOX_TEXTS + 1)
                keeper.send_pending()
                await until(lambda: len(venue.connections) == 2)
                assert "texts wait to be sent" in (rig.feed.last_error or "")

    run(main())


def test_a_stream_is_taken_anew_on_the_open_connection() -> None:
    async def main() -> None:
        venue = Venue()
        async with venue.serve() as (_, url):
            rig = rig_for(url)
            [keeper] = keepers_of(rig)
            assert not keeper.resubscribe("depth")
            async with running(keeper.run()):
                await until(lambda: keeper.life is not None)
                assert keeper.resubscribe("depth")
                await until(lambda: venue.heard == ["again depth"])
                assert len(venue.connections) == 1
                assert rig.feed.reasons == {RESUBSCRIBED: 1}

    run(main())


def test_where_no_request_is_left_the_connection_is_replaced() -> None:
    async def main() -> None:
        venue = Venue()
        async with venue.serve() as (_, url):
            rig = rig_for(url, budget=0)
            [keeper] = keepers_of(rig)
            async with running(keeper.run()):
                await until(lambda: keeper.life is not None and venue.connections)
                await venue.connections[0].send(message(1))
                keeper.resubscribe("depth")
                await until(lambda: len(venue.connections) == 2)
                await venue.connections[1].send(message(2))
                await until(lambda: ("lost", "public#1", True) in rig.venue.log)
                assert ("GAP", 0) not in rig.sink.records
                assert rig.feed.reconnects == 0

    run(main())


def test_a_stream_that_may_rest_replaces_no_connection() -> None:
    async def main() -> None:
        venue = Venue()
        async with venue.serve() as (_, url):
            rig = rig_for(url, budget=0)
            [keeper] = keepers_of(rig)
            async with running(keeper.run()):
                await until(lambda: keeper.life is not None and venue.connections)
                assert keeper.resubscribe("depth", must=False)
                await venue.connections[0].send(message(1))
                await until(lambda: rig.sink.numbers == [1])
                assert not keeper._rotate_now.is_set()
                assert len(venue.connections) == 1

    run(main())


def test_tries_against_silence_are_remembered_by_the_next_connection() -> None:
    async def main() -> None:
        venue = Venue()
        async with venue.serve() as (_, url):
            rig = Rig(FakeVenue([plan(url, streams=(DEPTH, QUIET))]), reconnect_max_s=0.1)
            [keeper] = keepers_of(rig)

            def asked(at_s: float) -> list[Action]:
                assert keeper.life is not None
                stats, at_ns = rig.venue.stats(keeper.life.name), keeper.life.opened_ns + int(at_s * 1e9)
                found = keeper.life.watch.look(stats, at_ns, trades_flow=False)
                return [one.action for one in found if one.stream == QUIET.name]

            async with running(keeper.run()):
                await until(lambda: venue.connections and keeper.life is not None)
                assert asked(50) == [Action.WARN]
                await venue.connections[0].send(message(1))
                await until(lambda: rig.sink.numbers == [1])
                assert [asked(at_s) for at_s in (60, 61, 119)] == [[Action.RESUBSCRIBE], [], []]
                await venue.connections[0].close()
                await until(lambda: len(venue.connections) == 2 and keeper.life is not None and keeper.life.name == "public#2")
                await venue.connections[1].send(message(2))
                await until(lambda: rig.sink.numbers == [1, 2])
                assert Action.RESUBSCRIBE not in asked(100), "silent for long enough, but the last try is 100 s old"

    run(main())


def test_a_connection_that_dies_while_its_successor_waits_for_its_turn_is_noticed_at_once() -> None:
    async def main() -> None:
        venue = Venue()
        async with venue.serve() as (_, url):
            rig = rig_for(url, connect_limit=ConnectLimit(burst=1, per_s=0.5))
            [keeper] = keepers_of(rig)
            async with running(keeper.run()):
                await until(lambda: keeper.life is not None and venue.connections)
                keeper.rotate()
                await until(lambda: rig.feed.gate.waited == 1)
                await venue.connections[0].close()
                await until(lambda: ("lost", "public#1", False) in rig.venue.log, limit_s=1.5)
                await until(lambda: len(venue.connections) == 2)

    run(main())


def test_a_rotation_without_a_fast_stream_waits_for_the_first_word_of_the_successor() -> None:
    async def main() -> None:
        venue = Venue()
        async with venue.serve() as (_, url):
            rig = Rig(FakeVenue([plan(url, streams=())]), reconnect_max_s=0.1)
            [keeper] = keepers_of(rig)
            async with running(keeper.run()):
                await until(lambda: keeper.life is not None and venue.connections)
                keeper.rotate()
                await until(lambda: "public#2" in rig.feed.lives)
                await venue.connections[0].send(message(1))
                await until(lambda: rig.sink.numbers == [1])
                assert keeper.life is not None
                assert keeper.life.name == "public#1"
                await venue.connections[1].send(message(2))
                await until(lambda: keeper.life is not None and keeper.life.name == "public#2")
                await asyncio.wait_for(venue.connections[0].wait_closed(), 5)

    run(main())
