"""Bybit over real sockets: requests, silence that ends a connection, and every fault as a client of this venue meets it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
import websockets

from mpengine import venues
from mpengine.config import load
from mpengine.simulator.bybit_wire import BybitWire
from mpengine.simulator.faults import GARBAGE, garbage
from mpengine.venues.base import HANDSHAKE, RestResult
from shm.records import Venue
from tests.simulator.rig import Running, closing, eventually, receive, receive_until, run, running, small

NAMES = {"binance": "BTCUSDT", "bybit": "BTCUSDT"}
BOOK = "orderbook.50.BTCUSDT"
INTEREST = "/bybit/v5/market/open-interest?category=linear&symbol=BTCUSDT&intervalTime=5min&limit=1"
COUNTRY = "The Amazon CloudFront distribution is configured to block access from your country."


def connect(one: Running) -> Any:
    url = f"ws://127.0.0.1:{one.port}/bybit/v5/public/linear"
    return websockets.connect(url, close_timeout=0.2, compression=None, max_size=None, max_queue=None)


async def answer(ws: Any, operation: str, *topics: str) -> dict[str, Any]:
    await ws.send(json.dumps({"op": operation, "args": topics} if topics else {"op": operation}))
    return await receive_until(ws, lambda message: "topic" not in message)


async def deltas(ws: Any, count: int) -> list[int]:
    """`u` of the next deltas."""
    return [(await receive_until(ws, lambda one: one.get("type") == "delta"))["data"]["u"] for _ in range(count)]


def holes(ids: list[int]) -> int:
    return sum(two != one + 1 for one, two in pairwise(ids))


def with_two(test: Callable[[Running, Any, Any], Awaitable[None]]) -> None:
    """A server and two clients that have their snapshots."""

    async def around() -> None:
        async with running(small(names=NAMES)) as one, connect(one) as a, connect(one) as b:
            for ws in (a, b):
                assert (await answer(ws, "subscribe", BOOK))["success"]
                assert (await receive(ws))["type"] == "snapshot"
            await test(one, a, b)

    run(around())


def test_a_ping_is_answered_as_a_ping_and_a_book_begins_with_a_snapshot() -> None:
    async def test(one: Running, a: Any, b: Any) -> None:
        pong = await answer(a, "ping")
        assert (pong["op"], pong["ret_msg"], pong["success"]) == ("ping", "pong", True)
        assert holes(await deltas(a, 20)) == 0
        assert (await answer(a, "unsubscribe", BOOK))["success"]
        assert (await answer(a, "subscribe", "liquidation.BTCUSDT"))["success"] is False

    with_two(test)


def test_rest_answers_under_the_prefix() -> None:
    async def test() -> None:
        async with running(small(names=NAMES)) as one:
            status, _, body = await one.get(INTEREST)
            assert (status, body["retCode"]) == (200, 0) and float(body["result"]["list"][0]["singleOpenInterest"]) > 0

    run(test())


def test_without_a_bybit_name_there_is_no_bybit() -> None:
    async def test() -> None:
        async with running(small()) as one:
            assert (await one.get("/bybit/v5/market/time"))[0] == 404
            with pytest.raises(websockets.InvalidStatus):
                await connect(one)

    run(test())


def test_a_client_that_says_nothing_is_cut_and_pings_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BybitWire, "ping_interval_s", 0.1)
    monkeypatch.setattr(BybitWire, "pong_timeout_s", 1.0)

    async def quiet(one: Running) -> asyncio.StreamWriter:
        """A client that answers no protocol ping, since it does not read."""
        _, writer = await asyncio.open_connection("127.0.0.1", one.port)
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        head = f"GET /bybit/v5/public/linear HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n"
        writer.write(head.encode())
        return writer

    async def test() -> None:
        async with running(small(names=NAMES)) as one, connect(one) as ws:
            writer = await quiet(one)
            await eventually(lambda: len(one.server.sockets) == 2)
            async with asyncio.timeout(20):
                while len(one.server.sockets) == 2:
                    assert (await answer(ws, "ping"))["ret_msg"] == "pong"
            assert (await answer(ws, "ping"))["ret_msg"] == "pong", "the one that speaks is still there"
            writer.close()

    run(test())


def test_a_gap_is_a_real_hole_in_u_for_everybody_and_a_drop_for_one() -> None:
    async def test(one: Running, a: Any, b: Any) -> None:
        ids = [await deltas(ws, 2) for ws in (a, b)]
        await one.fault("gap", venue="bybit", stream=BOOK, count=1)
        for ws, own in zip((a, b), ids, strict=True):
            own += await deltas(ws, 40)
        assert [holes(own) for own in ids] == [1, 1]
        await one.fault("drop", venue="bybit", stream="orderbook.*", count=1)
        more = [own[-1:] + await deltas(ws, 40) for ws, own in zip((a, b), ids, strict=True)]
        assert sum(holes(own) for own in more) == 1

    with_two(test)


def test_faults_of_another_venue_do_not_concern_it() -> None:
    async def test(one: Running, a: Any, b: Any) -> None:
        await one.fault("silence", venue="binance")
        await one.fault("disconnect", venue="binance")
        assert holes(await deltas(a, 30)) == 0

    with_two(test)


def test_a_silent_stream_still_lets_pings_through() -> None:
    async def test(one: Running, a: Any, b: Any) -> None:
        fault = await one.fault("silence", venue="bybit", socket="linear")
        assert (await answer(a, "ping"))["ret_msg"] == "pong"
        await eventually(lambda: one.server.faults.listing(0)[0]["applied"] > 10)
        await one.delete(f"/control/faults?id={fault['id']}")
        before = await deltas(a, 1)
        assert holes(before + await deltas(a, 10)) <= 1

    with_two(test)


def test_a_half_open_socket_answers_nothing() -> None:
    async def test(one: Running, a: Any, b: Any) -> None:
        await one.fault("half_open", venue="bybit", count=1)
        dead = next(iter(one.server.sockets.values()))
        assert dead.muted
        first, second = a, b
        for ws in (a, b):
            await ws.send('{"op":"ping"}')
        replies = []
        for ws in (first, second):
            try:
                async with asyncio.timeout(2):
                    await receive_until(ws, lambda message: message.get("op") == "ping")
                    replies.append(True)
            except TimeoutError:
                replies.append(False)
        assert sorted(replies) == [False, True]

    with_two(test)


def test_cut_sockets_may_come_back() -> None:
    async def test(one: Running, a: Any, b: Any) -> None:
        await one.fault("disconnect", venue="bybit")
        for ws in (a, b):
            assert (await closing(ws)).rcvd is None
        async with connect(one) as again:
            assert (await answer(again, "subscribe", BOOK))["success"]
            assert (await receive(again))["type"] == "snapshot"

    with_two(test)


def test_a_restart_of_the_service_comes_to_all_who_follow_a_book() -> None:
    async def test(one: Running, a: Any, b: Any) -> None:
        fault = await one.fault("restart", venue="bybit")
        assert (fault["applied"], fault["active"]) == (1, False)
        for ws in (a, b):
            anew = await receive_until(ws, lambda message: message.get("type") == "snapshot")
            assert anew["data"]["u"] == 1 and len(anew["data"]["b"]) == 50
            assert await deltas(ws, 3) == [2, 3, 4]
        status, body = await one.post("/control/faults", {"venue": "binance", "fault": "restart"})
        assert status == 400 and "restart needs" in body["error"]

    with_two(test)


@pytest.mark.parametrize("variant", GARBAGE)
def test_garbage_comes_beside_the_good_message_and_the_module_survives_it(variant: str) -> None:
    """Each kind of bad text is refused and counted by the venue's module, which takes the next message."""
    books = "[venues.bybit]\norder_book = true\ntickers = true\nbook_depth = 50\n"
    (module,) = [one for one in venues.build(load(books, {})) if one.venue is Venue.BYBIT]
    module.opened("linear#1", 0)
    ids: list[int] = []

    async def test(one: Running, a: Any, b: Any) -> None:
        assert (await answer(a, "subscribe", "tickers.BTCUSDT"))["success"]
        await one.fault("garbage", venue="bybit", variant=variant, count=12)  # of all messages of both clients
        for _ in range(40):
            text = await asyncio.wait_for(a.recv(decode=False), 20)
            module.receive("linear#1", text, 1)
            ids.extend(_update(text))
        assert one.server.faults.listing(0)[0]["applied"] == 12

    with_two(test)
    assert holes(list(dict.fromkeys(ids))) == 0 and len(ids) > 10, "the good message came as well"
    assert module.counters.refused >= 6


def _update(text: bytes) -> list[int]:
    """`u` of a delta, good or bad, where it can be read."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [message["data"]["u"]] if message.get("type") == "delta" and "u" in message["data"] else []


@pytest.mark.parametrize("key", ["s", "symbol", "instId", "coin"])
def test_a_wrong_symbol_is_one_at_every_venue(key: str) -> None:
    assert garbage(b'{"%b":"BTCUSDT","p":"1"}' % key.encode(), "wrong_symbol", 0) == b'{"%b":"NOSUCHUSDT","p":"1"}' % key.encode()


@pytest.mark.parametrize(
    ("status", "text", "verdict"),
    [
        (429, None, RestResult.LIMITED),
        (451, None, RestResult.BLOCKED),
        (403, "403, access too frequent", RestResult.FIREWALL),
        (403, COUNTRY, RestResult.BLOCKED),
        (403, "Service unavailable from a restricted location.", RestResult.BLOCKED),
    ],
)
def test_a_status_with_its_text_says_to_the_module_what_it_means(status: int, text: str | None, verdict: RestResult) -> None:
    (module,) = [one for one in venues.build(load("", {})) if one.venue is Venue.BYBIT]
    call = next(call for call in module.polls() if call.name == "open_interest")
    more = {} if text is None else {"text": text}

    async def test() -> None:
        async with running(small(names=NAMES)) as one:
            await one.fault("status", venue="bybit", status=status, retry_after=7, count=1, **more)
            async with one.session.get(one.base + INTEREST) as reply:
                body, headers = await reply.read(), {name.lower(): value for name, value in reply.headers.items()}
                assert reply.status == status and headers["retry-after"] == "7"
                assert module.judge(call, reply.status, headers, body).result is verdict
            assert (await one.get(INTEREST))[0] == 200
            await one.fault("status", venue="bybit", socket="linear", status=status, count=1, **more)
            with pytest.raises(websockets.InvalidStatus) as refused:
                await connect(one)
            response = refused.value.response
            assert response.status_code == status and bytes(response.body or b"") == (text or "").encode()
            assert module.judge(HANDSHAKE, response.status_code, {}, bytes(response.body or b"")).result is verdict
            async with connect(one) as ws:
                assert (await answer(ws, "ping"))["ret_msg"] == "pong"

    run(test())


def test_a_text_must_be_one() -> None:
    async def test() -> None:
        async with running(small(names=NAMES)) as one:
            for text in ("", 5, "x" * 201):
                status, body = await one.post("/control/faults", {"venue": "bybit", "fault": "status", "status": 403, "text": text})
                assert status == 400 and "text must be" in body["error"]

    run(test())
