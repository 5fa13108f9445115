"""The server over real sockets: routes, limits, pings, slow clients, control, and loopback only."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import suppress
from typing import Any

import pytest
import websockets

from mpengine.simulator import server as server_module
from mpengine.simulator.binance_wire import BinanceWire
from mpengine.simulator.process import Plan, build
from tests.simulator.rig import START_NS, ask, closing, eventually, market_of, receive, receive_until, run, running, small


def test_streams_come_over_the_routed_sockets() -> None:
    async def test() -> None:
        async with running(small(), small("ETH")) as one:
            async with one.connect("public", "btcusdt@depth@100ms", "ethusdt@depth20@100ms") as public:
                seen = {(await receive(public))["stream"] for _ in range(20)}
                assert seen == {"btcusdt@depth@100ms", "ethusdt@depth20@100ms"}
            async with one.connect("market", "btcusdt@aggTrade", "ethusdt@markPrice@1s", "!forceOrder@arr") as market:
                await receive_until(market, lambda m: m["stream"] == "ethusdt@markPrice@1s")
                await receive_until(market, lambda m: m["stream"] == "btcusdt@aggTrade")

    run(test())


def test_the_wrong_route_opens_lists_and_stays_silent() -> None:
    async def test() -> None:
        stream = "btcusdt@depth@100ms"
        async with running(small()) as one, one.connect("market", stream) as wrong, one.connect("public", stream) as right:
            for _ in range(30):
                await receive(right)
            # The first thing that comes on the wrong socket is the answer to a question: no stream's message came before it.
            await wrong.send('{"method":"LIST_SUBSCRIPTIONS","id":9}')
            assert await receive(wrong) == {"result": [stream], "id": 9}

    run(test())


def test_subscribing_on_an_open_socket_starts_and_ends_a_stream() -> None:
    async def test() -> None:
        async with running(small()) as one, one.connect("market") as ws:
            assert await ask(ws, {"method": "SUBSCRIBE", "params": ["btcusdt@markPrice@1s"], "id": 1}) == {"result": None, "id": 1}
            await receive_until(ws, lambda m: m.get("stream") == "btcusdt@markPrice@1s")
            await ask(ws, {"method": "UNSUBSCRIBE", "params": ["btcusdt@markPrice@1s"], "id": 2})
            assert await ask(ws, {"method": "LIST_SUBSCRIPTIONS", "id": 3}) == {"result": [], "id": 3}

    run(test())


def test_too_many_messages_a_second_end_the_connection() -> None:
    async def test() -> None:
        async with running(small()) as one, one.connect("public") as ws:
            for number in range(12):
                await ws.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
            closed = await closing(ws)
            assert closed.rcvd is not None and closed.rcvd.code == 1008

    run(test())


def test_unknown_addresses_are_not_found() -> None:
    async def test() -> None:
        async with running(small()) as one:
            for path in ("/nowhere/fapi/v1/ping", "/binance/fapi/v1/nothing", "/binance/public/stream/more"):
                assert (await one.get(path))[0] == 404
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(f"ws://127.0.0.1:{one.port}/binance/private/stream")
            assert refused.value.response.status_code == 404

    run(test())


def test_rest_answers_with_weights() -> None:
    async def test() -> None:
        async with running(small()) as one:
            status, headers, body = await one.get("/binance/fapi/v1/openInterest?symbol=BTCUSDT")
            assert (status, headers["x-mbx-used-weight-1m"]) == (200, "1")
            assert headers["content-type"] == "application/json" and body["symbol"] == "BTCUSDT"
            _, headers, _ = await one.get("/binance/fapi/v1/depth?symbol=BTCUSDT&limit=1000")
            assert headers["x-mbx-used-weight-1m"] == "21"

    run(test())


def test_pings_of_either_side_are_answered() -> None:
    async def test() -> None:
        async with running(small()) as one:
            wire = one.server.venues["binance"]
            assert isinstance(wire, BinanceWire)
            wire.ping_interval_s = 0.02
            async with one.connect("public") as ws:
                await asyncio.wait_for(await ws.ping(), 5)
                (client,) = one.server.sockets.values()
                since = client.answered_s
                await eventually(lambda: client.answered_s > since)

    run(test())


def test_a_client_that_never_answers_pings_is_cut() -> None:
    async def test() -> None:
        async with running(small()) as one:
            wire = one.server.venues["binance"]
            assert isinstance(wire, BinanceWire)
            wire.ping_interval_s, wire.pong_timeout_s = 0.02, 0.1
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.write(
                b"GET /binance/public/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert b"101" in await reader.readline()
            with suppress(ConnectionResetError):
                while await asyncio.wait_for(reader.read(4096), 10):
                    pass
            writer.close()
            await eventually(lambda: not one.server.sockets)

    run(test())


def test_sockets_are_cut_at_the_end_of_their_life() -> None:
    async def test() -> None:
        plan = Plan("127.0.0.1", 0, 1, 20.0, [small()], announce=False, life_s=0.2)
        async with running(plan=plan) as one, one.connect("public", "btcusdt@depth@100ms") as ws:
            assert (await closing(ws)).rcvd is None  # no goodbye, as in life

    run(test())


def test_a_client_that_does_not_read_is_cut_and_nobody_else_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "QUEUE_BYTES", 200_000)

    async def test() -> None:
        async with running(small(), small("ETH"), speed=30.0) as one:
            narrow = socket.socket()
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            narrow.connect(("127.0.0.1", one.port))
            streams = [f"{s}usdt@{name}" for s in ("btc", "eth") for name in ("depth@0ms", "depth20@100ms", "bookTicker")]
            async with one.connect("public", "btcusdt@depth@100ms") as good:
                slow = await websockets.connect(one.url("public", *streams), sock=narrow, max_queue=1, close_timeout=0.1)
                await eventually(lambda: len(one.server.sockets) == 2)
                last = None
                while len(one.server.sockets) == 2:
                    event = (await receive(good))["data"]
                    assert last is None or event["pu"] == last
                    last = event["u"]
                for _ in range(20):
                    event = (await receive(good))["data"]
                    assert event["pu"] == last
                    last = event["u"]
                await slow.close()

    run(test())


def test_market_time_runs_at_its_speed() -> None:
    async def test() -> None:
        async with running(small(), speed=5.0) as one:
            market, loop = market_of(one), asyncio.get_running_loop()
            began, began_ns = loop.time(), market.now_ns
            await eventually(lambda: market.now_ns >= began_ns + 3 * 10**9)
            assert loop.time() - began >= 3 / 5.0 - 0.2

    run(test())


@pytest.mark.parametrize(("speed", "skips"), [(1.0, True), (4.0, False)])
def test_a_paused_market_does_not_catch_up(speed: float, skips: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "SLIP_S", 0.2)

    async def test() -> None:
        async with running(small(), speed=speed) as one:
            market, source = market_of(one), one.server.source
            await eventually(lambda: market.now_ns > START_NS)
            before_ns, steps = market.now_ns, source.state()["steps"]
            time.sleep(1.0)  # the whole process stands still
            await eventually(lambda: source.state()["slips"] > 0)
            assert source.state()["steps"] - steps <= 0.3 * speed / 0.1
            assert (market.now_ns - before_ns >= 0.9e9) == skips

    run(test())


def test_state_names_clients_and_counts() -> None:
    async def test() -> None:
        async with running(small()) as one, one.connect("public", "btcusdt@depth@100ms") as ws:
            for _ in range(3):
                await receive(ws)
            _, _, state = await one.get("/control/state")
            (client,) = state["clients"]
            assert (client["venue"], client["route"], client["streams"]) == ("binance", "public", ["btcusdt@depth@100ms"])
            assert client["sent"] >= 3 <= state["delivered"] and state["mode"] == "market"
            assert state["market_time_ns"] > START_NS and state["symbols"]["BTC"]["open_interest"] > 0
            await ws.close()
            await eventually(lambda: not one.server.sockets)

    run(test())


def test_truth_and_forced_liquidations_over_the_control_endpoint() -> None:
    async def test() -> None:
        async with running(small(), speed=50.0) as one, one.connect("market", "!forceOrder@arr") as ws:
            status, _, truth = await one.get("/control/truth?symbol=BTC")
            assert status == 200 and len(truth["positions"]) > 50
            status, plan = await one.post("/control/liquidate?symbol=BTC&side=long&usd=50000")
            assert status == 200 and plan["usd"] >= 50_000
            row = await receive_until(ws, lambda m: m["data"]["o"]["s"] == "BTCUSDT" and m["data"]["o"]["S"] == "SELL")
            assert float(row["data"]["o"]["z"]) > 0
            _, _, after = await one.get("/control/truth?symbol=BTC")
            assert after["liquidation_count"] > truth["liquidation_count"]

    run(test())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("get", "/control/truth?symbol=NONE", 404),
        ("get", "/control/truth", 404),
        ("post", "/control/liquidate?symbol=BTC&side=up&usd=1", 400),
        ("post", "/control/liquidate?symbol=BTC&side=none&usd=1", 400),
        ("post", "/control/liquidate?symbol=BTC&side=long&usd=nan", 400),
        ("post", "/control/liquidate?symbol=BTC&side=long&usd=-5", 400),
        ("post", "/control/liquidate?symbol=NONE&side=long&usd=1", 400),
    ],
)
def test_impossible_commands_are_refused(method: str, path: str, status: int) -> None:
    async def test() -> None:
        async with running(small()) as one:
            found: Any = await (one.get(path) if method == "get" else one.post(path))
            assert found[0] == status
            assert "error" in found[-1]
            assert (await one.post("/control/start"))[0] == 200

    run(test())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "8.8.8.8"])
def test_only_loopback_is_listened_on(host: str) -> None:
    async def test() -> None:
        plan = Plan(host, 0, 1, 1.0, [small()], announce=False)
        with pytest.raises(ValueError, match="loopback"):
            await build(plan, START_NS).start(host, 0)

    run(test())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.5"])
def test_loopback_addresses_are_fine(host: str) -> None:
    async def test() -> None:
        server = build(Plan(host, 0, 1, 1.0, [small()], announce=False), START_NS)
        assert await server.start(host, 0) > 0
        await server.stop()

    run(test())


def test_the_end_of_the_server_says_goodbye() -> None:
    async def test() -> None:
        async with running(small()) as one:
            ws = await one.connect("public", "btcusdt@depth@100ms")
            await receive(ws)
            await one.server.stop()
            closed = await closing(ws)
            assert closed.rcvd is not None and closed.rcvd.code == 1001

    run(test())
