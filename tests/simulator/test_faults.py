"""The fault table by itself, then every knob against a real client over a real socket."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any

import aiohttp
import numpy as np
import pytest
import websockets

from mpengine.simulator import server as server_module
from mpengine.simulator.faults import GARBAGE, FaultTable, garbage
from tests.simulator.rig import Running, ask, closing, eventually, receive, receive_until, run, running, small

SECOND = 10**9
BINANCE = frozenset({"binance"})
DIFFS = "btcusdt@depth@100ms"
TEXT = b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","s":"BTCUSDT","p":"1.50","q":"2"}}'


def table(**values: Any) -> FaultTable:
    one = FaultTable(np.random.default_rng(1))
    one.add(values, 0, BINANCE)
    return one


def through(
    one: FaultTable, text: bytes = TEXT, *, now_ns: int = 1, stream: str = DIFFS, route: str = "public", key: int = 1
) -> Any:
    return one.on_message("binance", route, stream, text, key, now_ns)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fault": "explode"}, "fault must be"),
        ({"fault": "drop", "venue": "nowhere"}, "venue must be"),
        ({"fault": "drop", "colour": 1}, "unknown key colour"),
        ({"fault": "drop", "count": 0}, "count must be"),
        ({"fault": "drop", "count": True}, "count must be"),
        ({"fault": "drop", "seconds": -1}, "seconds must be"),
        ({"fault": "drop", "probability": 1.5}, "probability must be"),
        ({"fault": "drop", "probability": float("nan")}, "probability must be"),
        ({"fault": "drop", "stream": ""}, "stream must be"),
        ({"fault": "drop", "socket": 7}, "socket must be"),
        ({"fault": "delay", "delay_ms": 1e9}, "delay_ms must be"),
        ({"fault": "status"}, "status must be"),
        ({"fault": "status", "status": 418.5}, None),
        ({"fault": "garbage", "variant": "poem"}, "variant must be"),
    ],
)
def test_impossible_faults_are_refused_with_the_reason(values: dict[str, Any], words: str | None) -> None:
    one = FaultTable(np.random.default_rng(1))
    if words is None:
        one.add(values, 0, BINANCE)
        return
    with pytest.raises(ValueError, match=words):
        one.add(values, 0, BINANCE)
    assert one.idle


def test_a_fault_ends_after_its_count_or_its_seconds() -> None:
    one = table(fault="drop", count=2)
    assert [len(through(one)) for _ in range(4)] == [0, 0, 1, 1]
    assert one.listing(1)[0]["applied"] == 2 and not one.listing(1)[0]["active"]
    one = table(fault="drop", seconds=1)
    assert [len(through(one, now_ns=now)) for now in (1, SECOND - 1, SECOND, 2 * SECOND)] == [0, 0, 1, 1]


def test_a_fault_concerns_only_what_it_names() -> None:
    one = table(fault="drop", stream="btcusdt@depth*", socket="public")
    assert through(one) == []
    assert len(through(one, stream="btcusdt@aggTrade")) == 1
    assert len(through(one, route="market")) == 1
    assert len(one.on_message("bybit", "public", DIFFS, TEXT, 1, 1)) == 1


def test_probability_thins_a_fault_out() -> None:
    one = table(fault="drop", probability=0.25)
    dropped = sum(not through(one) for _ in range(4000))
    assert 850 < dropped < 1150


def test_reordered_messages_change_places_per_stream_and_socket() -> None:
    one = table(fault="reorder", count=2)
    assert through(one, b"1", key=1) == []
    assert through(one, b"x", key=2) == []
    assert through(one, b"y", key=3) == [(0.0, b"y")]
    assert through(one, b"2", key=1) == [(0.0, b"2"), (0.0, b"1")]
    assert through(one, b"z", key=2, stream="other") == [(0.0, b"z")]
    assert through(one, b"w", key=2) == [(0.0, b"w"), (0.0, b"x")]


def test_a_held_message_is_forgotten_with_its_socket() -> None:
    one = table(fault="reorder", count=1)
    through(one, b"1")
    one.forget(1)
    assert through(one, b"2") == [(0.0, b"2")]


def test_faults_of_several_kinds_add_up() -> None:
    one = table(fault="duplicate")
    one.add({"fault": "garbage", "variant": "not_json"}, 0, BINANCE)
    one.add({"fault": "delay", "delay_ms": 30}, 0, BINANCE)
    pieces = through(one)
    assert [delay for delay, _ in pieces] == [0.03] * 3
    assert [text for _, text in pieces] == [b"<html><body>502 Bad Gateway</body></html>", TEXT, TEXT]
    assert one.remove(None) == 3 and one.idle


def test_rest_is_meant_only_where_it_is_named() -> None:
    one = table(fault="drop")
    assert one.on_rest("binance", "/fapi/v1/depth", 1) == []
    one = table(fault="status", status=429, count=1)
    assert [f.status for f in one.on_rest("binance", "/fapi/v1/depth", 1)] == [429]
    assert one.on_rest("binance", "/fapi/v1/depth", 1) == []
    one = table(fault="status", status=500, stream="/futures/data/*", socket="rest")
    assert one.on_rest("binance", "/fapi/v1/depth", 1) == []
    assert len(one.on_rest("binance", "/futures/data/x", 1)) == 1


@pytest.mark.parametrize("variant", GARBAGE)
def test_garbage_differs_from_the_message_and_says_nothing_usable(variant: str) -> None:
    bad = garbage(TEXT, variant, 0)
    assert bad != TEXT
    try:
        good = json.loads(bad)
    except (ValueError, UnicodeDecodeError, RecursionError):
        return
    data = good["data"]
    if isinstance(data, dict):
        assert data["s"] == "NOSUCHUSDT" or not (isinstance(data["p"], str) and float(data["p"]) > 0)


def test_garbage_takes_turns() -> None:
    assert len({garbage(TEXT, None, turn) for turn in range(len(GARBAGE))}) == len(GARBAGE)


# over real sockets ----------------------------------------------------------------------------------------------------


async def diffs(ws: Any, count: int) -> list[dict[str, Any]]:
    return [(await receive(ws))["data"] for _ in range(count)]


def breaks(events: list[dict[str, Any]]) -> int:
    """How often `pu` does not chain."""
    return sum(two["pu"] != one["u"] for one, two in pairwise(events))


async def silent(ws: Any) -> None:
    """Nothing comes any more. What was under way may still."""
    for _ in range(1000):
        try:
            await asyncio.wait_for(ws.recv(), 0.4)
        except TimeoutError:
            return
    raise AssertionError("the socket goes on")


async def applied(one: Running, number: int) -> int:
    _, _, faults = await one.get("/control/faults")
    return next(int(fault["applied"]) for fault in faults if fault["id"] == number)


def test_dropped_messages_are_missing_for_one_client() -> None:
    async def test() -> None:
        async with running(small()) as one, one.connect("public", DIFFS) as a, one.connect("public", DIFFS) as b:
            before = await asyncio.gather(diffs(a, 2), diffs(b, 2))
            fault = await one.fault("drop", stream="*@depth*", count=1)
            first, second = await asyncio.gather(diffs(a, 60), diffs(b, 60))
            assert breaks(before[0] + first) + breaks(before[1] + second) == 1
            assert await applied(one, fault["id"]) == 1

    run(test())


def test_a_gap_is_a_hole_for_everybody() -> None:
    async def test() -> None:
        async with running(small()) as one, one.connect("public", DIFFS) as a, one.connect("public", DIFFS) as b:
            before = await asyncio.gather(diffs(a, 2), diffs(b, 2))
            fault = await one.fault("gap", stream=DIFFS, count=1)
            first, second = await asyncio.gather(diffs(a, 60), diffs(b, 60))
            assert breaks(before[0] + first) == breaks(before[1] + second) == 1
            assert await applied(one, fault["id"]) == 1

    run(test())


def test_duplicated_and_reordered_messages() -> None:
    async def test() -> None:
        async with running(small()) as one, one.connect("public", DIFFS) as ws:
            events = await diffs(ws, 2)
            await one.fault("duplicate", stream=DIFFS, count=2)
            events += await diffs(ws, 60)
            assert sum(x["u"] == y["u"] for x, y in pairwise(events)) == 2
            events = events[-1:]
            await one.fault("reorder", stream=DIFFS, count=1)
            events += await diffs(ws, 60)
            assert sum(y["u"] < x["u"] for x, y in pairwise(events)) == 1
            assert breaks(sorted(events, key=lambda event: event["u"])) == 0

    run(test())


def test_delayed_messages_come_later_and_others_overtake_them() -> None:
    async def test() -> None:
        async with running(small(), speed=10.0) as one, one.connect("public", DIFFS, "btcusdt@depth20@100ms") as ws:
            await receive(ws)
            await one.fault("delay", stream=DIFFS, delay_ms=300)
            await receive_until(ws, lambda m: m["stream"] == DIFFS)
            lag: list[int] = []
            newest = 0
            while len(lag) < 12:
                message = await receive(ws)
                if message["stream"] == DIFFS:
                    lag.append(newest - message["data"]["E"])
                else:
                    newest = message["data"]["E"]
            # 300 ms of wall time are 3 s of this market's.
            assert max(lag) >= 2000

    run(test())


@pytest.mark.parametrize("variant", GARBAGE)
def test_garbage_comes_before_the_message_and_loses_nothing(variant: str) -> None:
    async def test() -> None:
        async with running(small()) as one, one.connect("public", DIFFS) as ws:
            await diffs(ws, 2)
            fault = await one.fault("garbage", stream=DIFFS, count=3, variant=variant)
            good: list[dict[str, Any]] = []
            bad = 0
            while bad < 3 or len(good) < 8:
                raw = await asyncio.wait_for(ws.recv(decode=False), 10)
                try:
                    data = json.loads(raw)["data"]
                    assert data["s"] == "BTCUSDT" and isinstance(data["b"], list)
                    assert all(float(price) > 0 and float(q) >= 0 for price, q in data["b"] + data["a"])
                    good.append(data)
                except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
                    bad += 1
            assert bad == 3 and breaks(good) == 0
            assert await applied(one, fault["id"]) == 3

    run(test())


def test_silence_mutes_streams_while_replies_still_come() -> None:
    async def test() -> None:
        async with running(small()) as one, one.connect("public", DIFFS, "btcusdt@bookTicker") as ws:
            await receive(ws)
            fault = await one.fault("silence", stream="*@depth*")
            await ask(ws, {"method": "LIST_SUBSCRIPTIONS", "id": 1})
            assert {(await receive(ws))["stream"] for _ in range(40)} == {"btcusdt@bookTicker"}
            assert (await ask(ws, {"method": "LIST_SUBSCRIPTIONS", "id": 2}))["id"] == 2
            await one.delete(f"/control/faults?id={fault['id']}")
            await receive_until(ws, lambda m: m["stream"] == DIFFS)

    run(test())


def test_a_half_open_socket_is_dead_and_stays_open() -> None:
    async def test() -> None:
        async with running(small()) as one:
            dead = await one.connect("public", DIFFS, ping_interval=None)
            await receive(dead)
            await one.fault("half_open", socket="public", count=1)
            await silent(dead)
            pong = await dead.ping()
            await dead.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(pong), 0.3)
            assert dead.state is websockets.State.OPEN
            async with one.connect("public", DIFFS) as alive:
                await receive(alive)
            await dead.close()
            await eventually(lambda: not one.server.sockets)

    run(test())


def test_half_open_while_it_lasts_takes_new_sockets_too() -> None:
    async def test() -> None:
        async with running(small()) as one:
            await one.fault("half_open", socket="public")
            async with one.connect("public", DIFFS, ping_interval=None) as dead:
                await silent(dead)
            await one.delete("/control/faults")
            async with one.connect("public", DIFFS) as alive:
                await receive(alive)

    run(test())


def test_disconnect_cuts_what_is_open_once_and_lets_clients_return() -> None:
    async def test() -> None:
        async with running(small()) as one:
            public, market = await one.connect("public", DIFFS), await one.connect("market", "btcusdt@markPrice@1s")
            await receive(public)
            await one.fault("disconnect", socket="public")
            assert (await closing(public)).rcvd is None
            await receive(market)
            async with one.connect("public", DIFFS) as again:
                await receive(again)
            await market.close()

    run(test())


def test_disconnect_with_seconds_is_an_outage() -> None:
    async def test() -> None:
        async with running(small()) as one:
            ws = await one.connect("public", DIFFS)
            await receive(ws)
            await one.fault("disconnect", seconds=60)
            await closing(ws)
            with pytest.raises((websockets.InvalidHandshake, OSError)):
                await websockets.connect(one.url("public", DIFFS))
            await one.delete("/control/faults")
            async with one.connect("public", DIFFS) as again:
                await receive(again)

    run(test())


@pytest.mark.parametrize("status", [429, 418, 451, 403, 500])
def test_rest_answers_with_an_injected_status(status: int) -> None:
    async def test() -> None:
        async with running(small()) as one:
            await one.fault("status", status=status, retry_after=7, count=2)
            for _ in range(2):
                found, headers, body = await one.get("/binance/fapi/v1/openInterest?symbol=BTCUSDT")
                assert (found, headers["retry-after"]) == (status, "7") and "code" in body
            assert (await one.get("/binance/fapi/v1/openInterest?symbol=BTCUSDT"))[0] == 200

    run(test())


def test_a_handshake_can_be_refused_with_a_status() -> None:
    async def test() -> None:
        async with running(small()) as one:
            await one.fault("status", status=451, socket="market", count=1)
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(one.url("market", "btcusdt@aggTrade"))
            assert refused.value.response.status_code == 451
            async with one.connect("market", "btcusdt@markPrice@1s") as ws:
                await receive(ws)

    run(test())


def test_rest_replies_can_be_late_garbled_cut_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HANG_S", 0.3)
    path = "/binance/fapi/v1/openInterest?symbol=BTCUSDT"

    async def test() -> None:
        async with running(small()) as one:
            loop = asyncio.get_running_loop()
            await one.fault("delay", socket="rest", delay_ms=200, count=1)
            began = loop.time()
            assert (await one.get(path))[0] == 200
            assert loop.time() - began >= 0.19
            await one.fault("garbage", socket="rest", variant="truncated", count=1)
            async with one.session.get(one.base + path) as reply:
                assert reply.status == 200
                with pytest.raises(ValueError):
                    json.loads(await reply.read())
            await one.fault("disconnect", socket="rest")  # the client tries again by itself
            with pytest.raises(aiohttp.ClientError):
                await one.get(path)
            await one.delete("/control/faults")
            await one.fault("drop", socket="rest", count=1)
            with pytest.raises((TimeoutError, aiohttp.ClientError)):
                await asyncio.wait_for(one.get(path), 0.2)
            assert (await one.get(path))[0] == 200

    run(test())


def test_the_control_endpoint_lists_deletes_and_refuses() -> None:
    async def test() -> None:
        async with running(small()) as one:
            status, body = await one.post("/control/faults", {"venue": "binance", "fault": "explode"})
            assert status == 400 and "fault must be" in body["error"]
            for bad in ([1], "x"):
                assert (await one.post("/control/faults", bad))[0] == 400
            first, second = await one.fault("drop", seconds=100), await one.fault("silence", stream="x@*")
            _, _, listing = await one.get("/control/faults")
            assert [(f["id"], f["fault"], f["active"]) for f in listing] == [
                (first["id"], "drop", True), (second["id"], "silence", True),
            ]  # fmt: skip
            assert 0 < listing[0]["seconds_left"] <= 100
            assert await one.delete(f"/control/faults?id={first['id']}") == {"removed": 1}
            assert await one.delete("/control/faults?id=999") == {"removed": 0}
            assert "error" in await one.delete("/control/faults?id=x")
            assert await one.delete("/control/faults") == {"removed": 1}

    run(test())
