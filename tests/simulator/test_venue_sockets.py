"""OKX and Hyperliquid over real sockets: prefixes, text pings, silence that ends a connection, cuts without a goodbye, POST."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import websockets

from mpengine.simulator.hyperliquid_wire import HyperliquidWire
from mpengine.simulator.okx_wire import OkxWire
from tests.simulator.rig import DEADLINE_S, Running, closing, receive, receive_until, run, running, small

NAMES = {"binance": "BTCUSDT", "okx": "BTC-USDT-SWAP", "hyperliquid": "BTC"}
OKX = "okx/ws/v5/public"
HYPERLIQUID = "hyperliquid/ws"


def connect(one: Running, path: str) -> Any:
    return websockets.connect(f"ws://127.0.0.1:{one.port}/{path}", close_timeout=0.2, compression=None, max_size=None)


def test_okx_sends_a_snapshot_after_the_acknowledgement() -> None:
    async def test() -> None:
        async with running(small(names=NAMES)) as one, connect(one, OKX) as ws:
            await ws.send("ping")
            assert await asyncio.wait_for(ws.recv(), DEADLINE_S) == "pong"
            await ws.send(json.dumps({"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT-SWAP"}]}))
            assert (await receive(ws))["event"] == "subscribe"
            snapshot, update = await receive(ws), await receive(ws)
            assert snapshot["action"] == "snapshot" and snapshot["data"][0]["prevSeqId"] == -1
            assert update["data"][0]["prevSeqId"] == snapshot["data"][0]["seqId"]
            status, _, body = await one.get("/okx/api/v5/market/books?instId=BTC-USDT-SWAP&sz=5")
            assert status == 200 and len(body["data"][0]["bids"]) == 5

    run(test())


def test_hyperliquid_answers_posts_and_sends_books() -> None:
    async def test() -> None:
        async with running(small(names=NAMES)) as one, connect(one, HYPERLIQUID) as ws:
            status, meta = await one.post("/hyperliquid/info", {"type": "meta"})
            assert status == 200 and "BTC" in {row["name"] for row in meta["universe"]}
            await ws.send(json.dumps({"method": "subscribe", "subscription": {"type": "l2Book", "coin": "BTC", "fast": True}}))
            assert (await receive(ws))["channel"] == "subscriptionResponse"
            book = await receive_until(ws, lambda message: message["channel"] == "l2Book")
            assert [len(side) for side in book["data"]["levels"]] == [5, 5]

    run(test())


def test_a_coin_in_other_letters_cuts_the_socket_without_a_goodbye() -> None:
    async def test() -> None:
        async with running(small(names=NAMES)) as one, connect(one, HYPERLIQUID) as ws:
            await ws.send(json.dumps({"method": "subscribe", "subscription": {"type": "trades", "coin": "btc"}}))
            closed = await closing(ws)
            assert closed.rcvd is None

    run(test())


@pytest.mark.parametrize(("path", "kind"), [(OKX, OkxWire), (HYPERLIQUID, HyperliquidWire)])
def test_a_socket_that_is_sent_nothing_is_closed(path: str, kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "silence_limit_s", 0.3)

    async def test() -> None:
        async with running(small(names=NAMES)) as one, connect(one, path) as ws:
            closed = await closing(ws)
            assert closed.rcvd is not None and closed.rcvd.code == 1000

    run(test())


def test_pings_of_the_client_keep_a_silent_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OkxWire, "silence_limit_s", 1.0)

    async def test() -> None:
        async with running(small(names=NAMES)) as one, connect(one, OKX) as ws:
            loop = asyncio.get_running_loop()
            until_s = loop.time() + 2.5
            while loop.time() < until_s:
                await ws.send("ping")
                assert await asyncio.wait_for(ws.recv(), DEADLINE_S) == "pong"
                await asyncio.sleep(0.05)
            assert (await closing(ws)).rcvd is not None

    run(test())


def test_a_notice_is_given_on_demand_once_and_only_where_the_venue_gives_any() -> None:
    async def test() -> None:
        async with running(small(names=NAMES)) as one, connect(one, OKX) as ws:
            fault = await one.fault("notice", venue="okx")
            assert (fault["applied"], fault["active"]) == (1, False)
            notice = await receive(ws)
            assert (notice["event"], notice["code"]) == ("notice", "64008")
            await ws.send(json.dumps({"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT-SWAP"}]}))
            assert (await receive(ws))["event"] == "subscribe"
            assert {(await receive(ws)).get("event") for _ in range(5)} == {None}
            for venue in ("binance", "hyperliquid", "nowhere"):
                status, body = await one.post("/control/faults", {"venue": venue, "fault": "notice"})
                assert status == 400 and "error" in body

    run(test())
