"""REST over a real HTTP server: judged, paused, bounded, and cancelled without a trace."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
from aiohttp import web

from mpengine.ingest import rest_policy
from mpengine.ingest.poller import CONCURRENT, Poller
from mpengine.venues.base import RestCall, RestResult
from shm.board_words import Word
from shm.process_shell import open_descriptors
from tests.ingest.rig import Answer, FakeVenue, Rig, plan, rest_server, run, running, until

OI = RestCall("oi", "BTC", "/oi?symbol=BTC%2FUSDT", 1, interval_s=0.05)
OTHER = RestCall("other", "BTC", "/other", 1, interval_s=0.05)
DEPTH = RestCall("depth", "BTC", "/depth", 20)


class Host:
    """An HTTP host that answers each path with what a test has put there; `asked` are the paths in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.agents: set[str] = set()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        self.agents.add(request.headers["User-Agent"])
        answer = self.answers.get(request.path)
        return web.Response(body=b"{}") if answer is None else await answer(request)

    def always(self, path: str, status: int, body: bytes = b"", **headers: str) -> None:
        async def answer(_request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, body=body, headers=headers)

        self.answers[path] = answer


def poller_for(url: str, *calls: RestCall, **settings: Any) -> tuple[Poller, Rig]:
    rig = Rig(FakeVenue([plan()], list(calls)), **settings)
    return Poller(rig.feed, url + "/", rig.intake, rig.settings, "1.2"), rig


def test_calls_are_repeated_and_their_bodies_reach_the_module() -> None:
    async def main() -> None:
        host = Host()
        async with rest_server(host) as url:
            poller, rig = poller_for(url, OI, OTHER)
            async with running(poller.run()):
                await until(lambda: host.asked.count("/oi?symbol=BTC%2FUSDT") >= 3 and host.asked.count("/other") >= 3)
                await until(lambda: len(rig.sink.records) >= 6)
        assert ("rest", "oi", "BTC", 200) in rig.venue.log
        assert rig.feed.rest_errors == 0
        assert rig.counts.get(Word.REST_REQUESTS) >= 6
        assert host.agents == {"mpengine/1.2"}

    run(main())


@pytest.mark.covers("F10", "T-M1")
def test_after_429_nothing_is_asked_until_retry_after() -> None:
    async def main() -> None:
        host = Host()
        host.always("/oi", 429, **{"Retry-After": "1"})
        async with rest_server(host) as url:
            poller, rig = poller_for(url, OI)
            async with running(poller.run()):
                await until(lambda: rig.feed.rest_errors == 1)
                host.always("/oi", 200, b"{}")
                began = time.monotonic()
                assert await poller.request(DEPTH) is None
                await until(lambda: rig.sink.records)
                assert time.monotonic() - began > 0.9
            assert host.asked == ["/oi?symbol=BTC%2FUSDT"] * 2
            assert rig.counts.get(Word.RATE_LIMITED) == 1

    run(main())


@pytest.mark.covers("A1-M16", "A1-M15", "F10")
@pytest.mark.parametrize("kind", ["status", "reset", "refused", "timeout", "too large", "not http"])
def test_what_keeps_a_reply_from_coming_is_transient_and_backs_off(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_policy, "REST_FIRST_S", 0.2)

    async def trouble(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if kind == "status":
            return web.Response(status=503)
        if kind == "timeout":
            await asyncio.sleep(20)
        if kind == "too large":
            return web.Response(body=bytes(1 << 17))
        if kind == "not http":
            request.transport.write(b"garbage\r\n\r\n")  # type: ignore[attr-defined]
        request.transport.close()
        return web.Response()

    async def main() -> None:
        host = Host()
        host.answers["/oi"] = trouble
        async with rest_server(host) as url:
            target = "http://127.0.0.1:9" if kind == "refused" else url
            poller, rig = poller_for(target, OI, rest_timeout_s=0.1, rest_body_bytes=1 << 16)
            async with running(poller.run()):
                await until(lambda: rig.feed.rest_errors >= 2)
                assert rig.sink.records == []  # no value, not a zero
                if kind != "refused":
                    del host.answers["/oi"]
                    await until(lambda: rig.sink.records)
                    asked = len(host.asked)
                    await until(lambda: len(host.asked) >= asked + 3)  # back at the nominal interval
            assert rig.feed.last_error is not None
            assert rig.feed.last_error.startswith("oi: ")

    run(main())


def test_used_weight_comes_from_the_replies() -> None:
    async def main() -> None:
        host = Host()
        host.always("/oi", 200, b"{}", **{"X-Weight": "1900"})
        async with rest_server(host) as url:
            poller, rig = poller_for(url, OI)
            async with running(poller.run()):
                await until(lambda: rig.feed.policy.used_weight(time.monotonic_ns()) == 1900)
                assert await poller.request(OTHER) is None
                assert await poller.request(DEPTH) is RestResult.OK
                assert await poller.request(DEPTH) is None

    run(main())


def test_a_geo_block_ends_the_polls_but_not_the_poller(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        host = Host()
        host.always("/oi", 451)
        async with rest_server(host) as url:
            poller, rig = poller_for(url, OI)
            async with running(poller.run()) as [task]:
                await until(lambda: "is off until the next start" in caplog.text)
                assert rig.feed.policy.blocked
                assert not task.done()
        assert len(host.asked) == 1

    run(main())
    assert [r.levelname for r in caplog.records if "BLOCKED" in r.getMessage()] == ["ERROR"]


@pytest.mark.covers("A1-M12")
def test_a_lasting_trouble_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest_policy, "REST_FIRST_S", 0.01)
    monkeypatch.setattr(rest_policy, "REST_MAX_S", 0.01)
    caplog.set_level(logging.WARNING)

    async def main() -> None:
        host = Host()
        host.always("/oi", 500)
        async with rest_server(host) as url:
            poller, rig = poller_for(url, OI)
            async with running(poller.run()):
                await until(lambda: rig.feed.rest_errors >= 5)

    run(main())
    assert len([r for r in caplog.records if "status 500" in r.getMessage()]) == 1


def test_a_redirect_is_not_followed() -> None:
    async def main() -> None:
        host = Host()
        host.always("/oi", 302, Location="/other")
        async with rest_server(host) as url:
            poller, rig = poller_for(url, OI)
            async with running(poller.run()):
                await until(lambda: rig.feed.rest_errors)
        assert host.asked == ["/oi?symbol=BTC%2FUSDT"]

    run(main())


@pytest.mark.covers("E-H4", "F10")
def test_a_hanging_host_delays_nothing_else() -> None:
    """One host never answers; the other venue, and the same venue's other call, go on at their pace."""

    async def main() -> None:
        hanging, sound = Host(), Host()

        async def never(_request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(30)
            return web.Response()

        hanging.answers["/oi"] = never
        async with rest_server(hanging) as bad_url, rest_server(sound) as good_url:
            bad, bad_rig = poller_for(bad_url, OI, OTHER)
            good, good_rig = poller_for(good_url, OI)
            async with running(bad.run(), good.run()):
                await until(lambda: hanging.asked.count("/other") >= 5 and len(sound.asked) >= 5)
                assert hanging.asked.count("/oi?symbol=BTC%2FUSDT") == 1
                assert good_rig.feed.rest_errors == bad_rig.feed.rest_errors == 0

    run(main())


@pytest.mark.covers("A1-M17", "E-C2")
def test_a_cancelled_poller_leaves_no_descriptor_and_no_task() -> None:
    async def main() -> None:
        host = Host()

        async def never(_request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(30)
            return web.Response()

        host.answers["/oi"] = never
        async with rest_server(host) as url:
            before = open_descriptors()
            for _ in range(4):
                poller, _rig = poller_for(url, OI, OTHER)
                host.asked.clear()
                async with running(poller.run()):
                    await until(lambda: host.asked.count("/other") >= 3 and "/oi?symbol=BTC%2FUSDT" in host.asked)
                    assert open_descriptors() > before
            await until(lambda: open_descriptors() <= before, "descriptors are back")
            assert not [task for task in asyncio.all_tasks() if "binance" in task.get_name()]
            assert await poller.request(DEPTH) is RestResult.TRANSIENT  # a closed client is an answer too

    run(main())


def test_a_stamped_reply_keeps_its_place() -> None:
    async def main() -> None:
        host = Host()
        host.always("/depth", 200, b"{}", **{"X-Recv-Ns": "77", "X-Line": "5"})
        async with rest_server(host) as url:
            poller, rig = poller_for(url)
            places: list[Any] = []
            rig.intake.reply = lambda *args: places.append(args[-1])  # type: ignore[method-assign]
            async with running(poller.run()):
                await until(lambda: poller._session is not None)
                assert await poller.request(DEPTH) is RestResult.OK
                host.always("/depth", 200, b"{}", **{"X-Recv-Ns": "-77", "X-Line": "5"})
                assert await poller.request(DEPTH) is RestResult.OK
            assert places == [(77, 5), None]

    run(main())


def test_a_call_with_a_body_is_posted_as_json() -> None:
    async def main() -> None:
        host = Host()
        posted: list[tuple[str, str, bytes]] = []

        async def answer(request: web.Request) -> web.StreamResponse:
            posted.append((request.method, request.headers["Content-Type"], await request.read()))
            return web.Response(body=b"{}")

        host.answers["/info"] = answer
        async with rest_server(host) as url:
            call = RestCall("instruments", None, "/info", 20, interval_s=60.0, body=b'{"type":"meta"}')
            poller, rig = poller_for(url, call)
            async with running(poller.run()):
                await until(lambda: rig.sink.records)
        assert posted == [("POST", "application/json", b'{"type":"meta"}')]

    run(main())


@pytest.mark.covers("E-H4", "F10")
def test_every_pair_is_asked_at_once_and_a_snapshot_has_its_own_place() -> None:
    """A host that answers no poll: all of them are on their way together, and the snapshot comes all the same."""

    async def main() -> None:
        host = Host()

        async def never(_request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(30)
            return web.Response()

        calls = [RestCall("oi", f"S{n}", f"/oi{n}", 1, interval_s=15.0) for n in range(CONCURRENT + 10)]
        host.answers |= {call.path: never for call in calls}
        async with rest_server(host) as url:
            poller, _rig = poller_for(url, *calls)
            async with running(poller.run()):
                await until(lambda: len(host.asked) == CONCURRENT)
                assert await poller.request(DEPTH) is RestResult.OK
                assert len(host.asked) == CONCURRENT + 1

    run(main())
