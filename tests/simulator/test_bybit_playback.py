"""Bybit's captures over real sockets: topics, both venues in one order, replies for one symbol, the recorded minute to the byte."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import websockets

from mpengine import venues
from mpengine.config import load
from mpengine.ingest.merge import Key, Merge, stamp_of
from mpengine.simulator import playback
from mpengine.simulator.capture import read, topic_of
from mpengine.simulator.process import Plan
from mpengine.venues.base import VenueModule
from shm.records import Venue
from tests.simulator.captures import bybit, line, message, reply, topical, write
from tests.simulator.rig import Running, closing, eventually, receive, run, running, small

MS = 10**6
NAMES = {"binance": "BTCUSDT", "bybit": "BTCUSDT"}
BOOK, TRADES = "orderbook.200.BTCUSDT", "publicTrade.BTCUSDT"
INSTRUMENT = "/bybit/v5/market/instruments-info?category=linear&symbol={}USDT"
CAPTURE = "bybit_linear_20260809.jsonl.zst"


def plan(*paths: Path, speed: float = 50.0, stamps: bool = True, close: bool = False) -> Plan:
    return Plan(
        "127.0.0.1", 0, 1, speed, [small(names=NAMES)], announce=False, captures=tuple(paths), stamps=stamps, close_at_end=close
    )


def connect(one: Running) -> Any:
    url = f"ws://127.0.0.1:{one.port}/bybit/v5/public/linear"
    return websockets.connect(url, close_timeout=0.2, compression=None, max_size=None, max_queue=None)


async def subscribe(ws: Any, *topics: str, op: str = "subscribe") -> dict[str, Any]:
    await ws.send(json.dumps({"op": op, "args": topics}))
    while "op" not in (answer := await receive(ws)):
        pass
    return answer


def unstamped(text: bytes) -> bytes:
    return re.sub(rb'"recv_ns":\d+,"line":\d+,', b"", text, count=1)


async def to_the_end(ws: Any) -> list[bytes]:
    """Stamped messages up to the last clock, without clocks."""
    texts: list[bytes] = []
    while True:
        text = await asyncio.wait_for(ws.recv(decode=False), 20)
        stamp = stamp_of(text)
        if stamp is not None and stamp.end:
            return texts
        if stamp is not None and not stamp.clock:
            texts.append(text)


def test_messages_come_verbatim_to_those_who_asked_for_their_topic(tmp_path: Path) -> None:
    topics = (BOOK, "orderbook.50.BTCUSDT", TRADES, "kline.1.BTCUSDT")
    path = write(tmp_path / "capture", [bybit(n * MS, topical(topics[n % 4], n)) for n in range(40)])

    async def test() -> None:
        async with running(plan=plan(path, stamps=False, close=True)) as one, connect(one) as ws:
            assert (await subscribe(ws, BOOK))["success"] and (await subscribe(ws, "tickers.NEVERUSDT"))["success"]
            texts = [text.encode() async for text in ws]
            assert texts == [topical(BOOK, n) for n in range(0, 40, 4)]
            closed = await closing(ws)
            assert closed.rcvd is not None and closed.rcvd.code == 1000

    run(test())


def test_playback_is_not_ready_before_no_further_topic_is_asked_for() -> None:
    venue, routes = playback.CaptureBybit(), frozenset({"linear"})
    session = venue.open("/v5/public/linear", {}, 0)
    assert session is not None and venue.open("/v5/public/spot", {}, 0) is None
    assert not venue.is_ready(routes, 10**18), "nobody listens"
    settled = playback.SETTLED_NS
    for at, topic in ((1000, BOOK), (1000 + settled // 2, TRADES)):
        venue.receive(session, json.dumps({"op": "subscribe", "args": [topic]}), at)
        assert not venue.is_ready(routes, at + settled - 1)
    for at, text in ((2000 + settled, '{"op":"ping"}'), (2001 + settled, '{"op":"subscribe","args":["nonsense"]}')):
        venue.receive(session, text, at)
    assert venue.is_ready(routes, 1000 + settled // 2 + settled), "what changes nothing does not count"
    venue.closed(session)
    assert not venue.is_ready(routes, 10**18)


def test_all_topics_of_several_requests_are_there_from_the_first_message(tmp_path: Path) -> None:
    path = write(tmp_path / "capture", [bybit(n, topical((BOOK, TRADES)[n % 2], n)) for n in range(20)])

    async def test() -> None:
        async with running(plan=plan(path, stamps=False, close=True)) as one, connect(one) as ws:
            assert one.server.source.state()["needs"] == {"bybit": ["linear"]}
            for topic in (BOOK, TRADES):
                await ws.send(json.dumps({"op": "subscribe", "args": [topic]}))
            assert sum("topic" in json.loads(text) for text in [text async for text in ws]) == 20

    run(test())


def test_unsubscribed_topics_come_no_more_and_pings_are_answered(tmp_path: Path) -> None:
    path = write(tmp_path / "capture", [bybit(n * 100 * MS, topical((BOOK, TRADES)[n % 2], n)) for n in range(400)])

    async def test() -> None:
        async with running(plan=plan(path, speed=20.0, stamps=False, close=True)) as one, connect(one) as ws:
            await subscribe(ws, BOOK, TRADES)
            assert (await receive(ws))["topic"] == BOOK
            assert (await subscribe(ws, BOOK, op="unsubscribe"))["success"]
            assert {json.loads(text)["topic"] async for text in ws} == {TRADES}
        async with running(plan=plan(path)) as one, connect(one) as ws:
            await ws.send('{"op":"ping"}')
            assert (await receive(ws))["ret_msg"] == "pong"

    run(test())


def test_a_venue_that_the_capture_lacks_is_not_there(tmp_path: Path) -> None:
    only_bybit = write(tmp_path / "1", [bybit(0, topical(BOOK, 1))])
    only_binance = write(tmp_path / "2", [line(0, message("btcusdt@depth@0ms", 1))])

    async def test() -> None:
        async with running(plan=plan(only_binance)) as one:
            with pytest.raises(websockets.InvalidStatus):
                await connect(one)
            assert one.server.venues.keys() == {"binance"}
        async with running(plan=plan(only_bybit)) as one:
            with pytest.raises(websockets.InvalidStatus):
                await one.connect("public", "btcusdt@depth")

    run(test())


def test_the_order_of_two_venues_is_rebuilt_from_their_sockets(tmp_path: Path) -> None:
    lines = []
    for n in range(200):
        at = n // 3 * 7 * MS
        lines.append(bybit(at, topical(BOOK, n)) if n % 2 else line(at, message("btcusdt@depth@0ms", n)))
    path = write(tmp_path / "capture", lines)
    merge: Merge[bytes] = Merge(("binance", "bybit"))
    order: list[tuple[Key, bytes]] = []

    async def follow(source: str, ws: Any) -> None:
        while True:
            text = await asyncio.wait_for(ws.recv(decode=False), 20)
            if (stamp := stamp_of(text)) is None:
                continue
            if not stamp.clock:
                merge.push(stamp.key, text)
            merge.end(source) if stamp.end else merge.advance(source, stamp.key)
            order.extend(merge.ready())
            if stamp.end:
                return

    async def test() -> None:
        async with running(plan=plan(path)) as one, one.connect("public", "btcusdt@depth") as a, connect(one) as b:
            await subscribe(b, BOOK)
            await asyncio.gather(follow("binance", a), follow("bybit", b))

    run(test())
    assert [(key, unstamped(text)) for key, text in order] == [
        (Key(one.recv_ns, one.number), one.line.payload) for one in read([path])
    ]
    assert merge.late == merge.waiting == 0


@pytest.mark.parametrize("stamps", [False, True])
def test_a_reply_for_all_symbols_answers_for_each_and_with_stamps_once(
    stamps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playback, "HOLD_S", 0.5)
    rows = [{"symbol": name, "n": n} for n, name in enumerate(("BTCUSDT", "ETHUSDT", "XRPUSDT"))]
    body = {"retCode": 0, "result": {"category": "linear", "list": rows}}
    path = write(tmp_path / "capture", [
        bybit(0, topical(BOOK, 1)), reply(MS, "instruments", body, None, venue="bybit"),
        reply(MS, "open_interest", {"retCode": 0}, venue="bybit"), bybit(2 * MS, topical(BOOK, 2)),
    ])  # fmt: skip

    async def test() -> None:
        async with running(plan=plan(path, stamps=stamps)) as one, connect(one) as ws:
            await subscribe(ws, BOOK)
            first, second = await asyncio.gather(*(one.get(INSTRUMENT.format(name)) for name in ("BTC", "ETH")))
            assert [reply[2]["result"]["list"] for reply in (first, second)] == [[rows[0]], [rows[1]]]
            if stamps:
                assert [reply[1]["x-line"] for reply in (first, second)] == ["2", "2"]
            await eventually(lambda: one.server.source.state()["ended"])
            assert (await one.get(INSTRUMENT.format("BTC")))[0] == (503 if stamps else 200)
            interest = "/bybit/v5/market/open-interest?category=linear&symbol=BTCUSDT&intervalTime=5min"
            assert (await one.get(interest))[2] == {"retCode": 0}
            assert (await one.get("/bybit/v5/market/time"))[0] == 404

    run(test())


def test_faults_act_on_its_captures_too(tmp_path: Path) -> None:
    path = write(tmp_path / "capture", [bybit(n * MS, topical(BOOK, n)) for n in range(100)])

    async def test() -> None:
        async with running(plan=plan(path, stamps=False, close=True)) as one:
            await one.fault("gap", venue="bybit", stream="orderbook.*", count=7)
            async with connect(one) as ws:
                await subscribe(ws, BOOK)
                assert [json.loads(text)["data"]["n"] async for text in ws] == list(range(7, 100))
            status, body = await one.post("/control/faults", {"venue": "bybit", "fault": "restart"})
            assert status == 400 and "restart needs" in body["error"], "nobody can restart a recording"

    run(test())


def bybit_module() -> VenueModule:
    text = "[venues.bybit]\norder_book = true\ntrades = true\ntickers = true\nbook_depth = 200\n"
    return next(module for module in venues.build(load(text, {})) if module.venue is Venue.BYBIT)


def events(texts: Sequence[tuple[int, bytes]]) -> list[Any]:
    """What the venue's module makes of messages (receive time, text), and that it refuses none."""
    module = bybit_module()
    module.opened("linear#1", 0)
    out = []
    for recv_ns, text in texts:
        module.receive("linear#1", text, recv_ns)
        out += module.events()
    assert module.counters.refused == 0 and len(out) > 1000
    return out


@pytest.mark.captures
def test_the_recorded_minute_comes_over_a_socket_to_the_byte_and_the_module_makes_the_same_of_it(captures: Path) -> None:
    path = captures / CAPTURE
    (socket,) = bybit_module().sockets()
    topics = {stream.name for stream in socket.streams}
    recorded = [
        (one.recv_ns, one.line.payload)
        for one in read([path])
        if one.line.venue == "bybit" and one.line.direction == "in" and topic_of(one.line.payload) in topics
    ]
    got: list[bytes] = []

    async def test() -> None:
        async with running(plan=plan(path, speed=60.0)) as one, connect(one) as ws:
            for text in socket.subscribe:
                await ws.send(text)
            reading = asyncio.create_task(to_the_end(ws))
            names = ("BTC", "ETH", "SOL")
            replies = await asyncio.gather(*(one.get(INSTRUMENT.format(name)) for name in names))
            for name, (status, headers, body) in zip(names, replies, strict=True):
                assert (status, headers["x-line"]) == (200, "1")
                assert [row["symbol"] for row in body["result"]["list"]] == [f"{name}USDT"]
            got.extend(await reading)

    run(test())
    assert [unstamped(text) for text in got] == [text for _, text in recorded]
    stamped = [(json.loads(text)["recv_ns"], text) for text in got]
    assert events(stamped) == events(recorded)


@pytest.mark.captures
def test_books_of_the_recorded_minute_chain_without_a_hole(captures: Path) -> None:
    """One who goes without stamps as well: as a client of the real venue would."""
    path, ids = captures / CAPTURE, dict[str, list[int]]()

    async def test() -> None:
        async with running(plan=plan(path, speed=60.0, stamps=False, close=True)) as one, connect(one) as ws:
            await subscribe(ws, *(f"orderbook.200.{name}USDT" for name in ("BTC", "ETH", "SOL", "DOGE")))
            async for text in ws:
                data = json.loads(text)["data"]
                ids.setdefault(data["s"], []).append(data["u"])

    run(test())
    assert len(ids) == 4 and all(own == list(range(own[0], own[0] + len(own))) and len(own) > 300 for own in ids.values())
