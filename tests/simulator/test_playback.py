"""Captures over real sockets: pace, places of REST replies, clocks, and the recorded order rebuilt from two sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mpengine.ingest.merge import Key, Merge, stamp_of
from mpengine.simulator import playback
from mpengine.simulator.capture import read
from mpengine.simulator.process import Plan
from tests.simulator.captures import BASE_NS, line, message, reply, write
from tests.simulator.rig import Running, closing, eventually, receive, run, running, small

MS = 10**6
DIFFS, TRADES = "btcusdt@depth@0ms", "btcusdt@trade"
DEPTH = "/binance/fapi/v1/depth?symbol=BTCUSDT&limit=1000"


def plan(*paths: Path, speed: float = 50.0, stamps: bool = True, close: bool = False) -> Plan:
    return Plan(
        "127.0.0.1", 0, 1, speed, [small()], announce=False, captures=tuple(paths), stamps=stamps, close_at_end=close
    )  # fmt: skip


def two_routes(tmp_path: Path, count: int = 200) -> Path:
    """Messages of both routes, some at equal times, with a snapshot after the tenth."""
    lines = []
    for number in range(count):
        stream, connection = (TRADES, "market#1") if number % 3 else (DIFFS, "public#1")
        lines.append(line(number // 2 * 7 * MS, message(stream, number), connection))
        if number == 10:
            lines.append(reply(number // 2 * 7 * MS, "depth", {"lastUpdateId": 10}))
    return write(tmp_path / "capture", lines)


class Rebuilt:
    """Two sockets and REST put back into one order, as ingest does it."""

    def __init__(self, *sources: str) -> None:
        self.merge: Merge[bytes] = Merge(sources)
        self.order: list[tuple[Key, bytes]] = []
        self.clocks: dict[str, list[Key]] = {source: [] for source in sources}

    async def follow(self, one: Running, source: str, *streams: str) -> None:
        """Read a socket to its end clock."""
        async with one.connect(source, *streams) as ws:
            while True:
                text = await asyncio.wait_for(ws.recv(decode=False), 20)
                stamp = stamp_of(text)
                assert stamp is not None
                if stamp.clock:
                    self.clocks[source].append(stamp.key)
                else:
                    self.merge.push(stamp.key, text)
                if stamp.end:
                    self.merge.end(source)
                else:
                    self.merge.advance(source, stamp.key)
                self.order += self.merge.ready()
                if stamp.end:
                    return

    async def fetch(self, one: Running, path: str = DEPTH) -> None:
        status, headers, body = await one.get(path)
        assert status == 200
        self.merge.push(Key(int(headers["x-recv-ns"]), int(headers["x-line"])), json.dumps(body).encode())


def unstamped(text: bytes) -> bytes:
    return re.sub(rb'"recv_ns":\d+,"line":\d+,', b"", text, count=1)


def served(paths: Sequence[Path]) -> list[tuple[Key, bytes]]:
    """What a perfect client should have: messages and snapshots of the files in their order."""
    return [
        (Key(one.recv_ns, one.number), one.line.payload)
        for one in read(paths)
        if one.line.direction == "rest" or (one.line.direction == "in" and one.line.payload.startswith(b'{"stream"'))
    ]


def test_the_recorded_order_can_be_rebuilt_from_two_sockets_and_rest(tmp_path: Path) -> None:
    path = two_routes(tmp_path)

    async def test() -> None:
        async with running(plan=plan(path)) as one:
            rebuilt = Rebuilt("public", "market")
            await asyncio.gather(
                rebuilt.follow(one, "public", "btcusdt@depth@100ms"), rebuilt.follow(one, "market", TRADES), rebuilt.fetch(one)
            )
            assert [(key, unstamped(text)) for key, text in rebuilt.order] == served([path])
            assert rebuilt.merge.late == rebuilt.merge.waiting == 0
            assert rebuilt.merge.ended

    run(test())


def test_clocks_pass_every_quarter_second_and_never_after_what_they_promise(tmp_path: Path) -> None:
    lines = [line(at * MS, message(DIFFS, at)) for at in (10, 240, 260, 1010, 1020)]
    path = write(tmp_path / "capture", [*lines, line(1030 * MS, message(TRADES, 0), "market#1")])

    async def test() -> None:
        async with running(plan=plan(path)) as one:
            rebuilt = Rebuilt("public", "market")
            await asyncio.gather(rebuilt.follow(one, "public", DIFFS), rebuilt.follow(one, "market", TRADES))
            expected = [Key(BASE_NS + at * MS, number) for at, number in ((250, 2), (500, 3), (750, 3), (1000, 3), (1030, 6))]
            assert rebuilt.clocks == {"public": expected, "market": expected}

    run(test())


def test_without_stamps_the_texts_are_the_recorded_ones_and_there_are_no_clocks(tmp_path: Path) -> None:
    path = write(tmp_path / "capture", [line(n * 100 * MS, message(DIFFS, n)) for n in range(20)])

    async def test() -> None:
        async with running(plan=plan(path, stamps=False, close=True)) as one, one.connect("public", "btcusdt@depth@500ms") as ws:
            texts = [text async for text in ws]
            assert [text.encode() for text in texts] == [message(DIFFS, n) for n in range(20)]
            closed = await closing(ws)
            assert closed.rcvd is not None and closed.rcvd.code == 1000

    run(test())


def test_only_subscribed_families_come(tmp_path: Path) -> None:
    lines = []
    for n, stream in enumerate((DIFFS, "btcusdt@bookTicker", "ethusdt@depth@0ms", "btcusdt@depth20@100ms") * 5):
        lines.append(line(n * MS, message(stream, n)))
    path = write(tmp_path / "capture", lines)

    async def test() -> None:
        async with running(plan=plan(path, stamps=False, close=True)) as one, one.connect("public", "btcusdt@depth") as ws:
            assert {json.loads(text)["stream"] async for text in ws} == {DIFFS}

    run(test())


def test_playback_waits_for_both_routes_or_for_the_operator(tmp_path: Path) -> None:
    path = two_routes(tmp_path, 20)

    async def test() -> None:
        async with running(plan=plan(path)) as one, one.connect("public", DIFFS) as public:
            await eventually(lambda: len(one.server.sockets) == 1)
            for _ in range(20):
                await asyncio.sleep(0)
            state = one.server.source.state()
            assert not state["started"] and state["line"] == 0
            assert state["needs"] == {"binance": ["market", "public"]}
            async with one.connect("public", TRADES):  # the wrong route does not count
                await eventually(lambda: len(one.server.sockets) == 2)
                assert not one.server.source.state()["started"]
            assert (await one.post("/control/start"))[0] == 200
            assert (await receive(public))["stream"] == DIFFS

    run(test())


def test_playback_keeps_the_recorded_pace(tmp_path: Path) -> None:
    path = write(tmp_path / "capture", [line(n * 200 * MS, message(DIFFS, n)) for n in range(11)])

    async def test() -> None:
        async with running(plan=plan(path, speed=4.0, close=True)) as one, one.connect("public", DIFFS) as ws:
            loop = asyncio.get_running_loop()
            await receive(ws)
            began = loop.time()
            await closing(ws)
            assert loop.time() - began >= 0.45

    run(test())


async def drain(one: Running, done: asyncio.Event | None = None) -> list[dict[str, Any]]:
    """Read both routes to the end of the capture."""

    async def follow(route: str, stream: str) -> list[dict[str, Any]]:
        got = []
        async with one.connect(route, stream) as ws:
            while not (message := await receive(ws)).get("end"):
                got.append(message)
        return got

    public, market = await asyncio.gather(follow("public", DIFFS), follow("market", TRADES))
    if done is not None:
        done.set()
    return public + market


def test_playback_stands_still_at_a_snapshot_until_it_is_fetched(tmp_path: Path) -> None:
    path = two_routes(tmp_path)

    async def test() -> None:
        async with running(plan=plan(path)) as one:
            reading = asyncio.create_task(drain(one))
            await eventually(lambda: one.server.source.state()["paused_at_line"] == 12)
            await asyncio.sleep(0.1)
            assert one.server.source.state()["line"] == 12 and not reading.done()
            status, headers, body = await one.get(DEPTH)
            assert (status, headers["x-line"], body) == (200, "12", {"lastUpdateId": 10})
            messages = await reading
            assert sum(m["stream"] != "!clock" for m in messages) == 200

    run(test())


def test_a_snapshot_nobody_wants_holds_the_playback_only_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "HOLD_S", 0.2)
    path = two_routes(tmp_path)

    async def test() -> None:
        async with running(plan=plan(path)) as one:
            await drain(one)
            # Too late for its place, but there.
            status, headers, _ = await one.get(DEPTH)
            assert (status, headers["x-line"]) == (200, "12")

    run(test())


def test_a_request_before_its_snapshot_waits_for_it(tmp_path: Path) -> None:
    path = two_routes(tmp_path)

    async def test() -> None:
        async with running(plan=plan(path)) as one:
            asking = asyncio.create_task(one.get(DEPTH))
            await eventually(lambda: one.server.requests == 1)
            assert not asking.done()
            await drain(one)
            assert (await asking)[1]["x-line"] == "12"

    run(test())


def test_with_stamps_every_reply_has_one_place_and_playback_waits_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "HOLD_S", 0.3)
    interest = "/binance/fapi/v1/openInterest?symbol=BTCUSDT"
    lines = [line(n * 20 * MS, message(DIFFS if n % 2 else TRADES, n), "public#1" if n % 2 else "market#1") for n in range(40)]
    for n in (30, 20, 10):
        lines.insert(n, reply(n * 20 * MS, "open_interest", {"openInterest": str(n)}))
    path = write(tmp_path / "capture", lines)

    async def test() -> None:
        async with running(plan=plan(path)) as one:
            done, places = asyncio.Event(), []
            reading = asyncio.create_task(drain(one, done))
            while not done.is_set():
                status, headers, body = await one.get(interest)
                if status == 200:
                    places.append((headers["x-line"], body["openInterest"]))
                else:
                    assert status == 503
            await reading
            assert places == [("11", "10"), ("22", "20"), ("33", "30")]

    run(test())


def test_without_stamps_a_reply_is_given_out_again_and_unknown_calls_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "capture", [
        reply(0, "open_interest", {"openInterest": "5"}), line(MS, message(DIFFS, 1)),
        reply(2 * MS, "instruments", {"symbols": []}, None),
    ])  # fmt: skip

    async def test() -> None:
        async with running(plan=plan(path, stamps=False)) as one, one.connect("public", DIFFS) as ws:
            await receive(ws)
            await eventually(lambda: one.server.source.state()["ended"])
            for _ in range(2):
                status, headers, body = await one.get("/binance/fapi/v1/openInterest?symbol=BTCUSDT")
                assert (status, body) == (200, {"openInterest": "5"}) and "x-line" not in headers
            assert (await one.get("/binance/fapi/v1/exchangeInfo"))[2] == {"symbols": []}
            assert (await one.get("/binance/fapi/v1/openInterest?symbol=ETHUSDT"))[0] == 404
            assert (await one.get("/binance/fapi/v1/premiumIndex"))[0] == 404
            assert (await one.get("/binance/fapi/v1/ping"))[0] == 200

    run(test())


def test_a_recorded_refusal_is_served_with_its_status(tmp_path: Path) -> None:
    path = write(tmp_path / "capture", [line(0, message(DIFFS, 1)), reply(MS, "depth", {"code": -1003}, status=429)])

    async def test() -> None:
        async with running(plan=plan(path)) as one, one.connect("public", DIFFS):
            status, headers, body = await one.get(DEPTH)
            assert (status, headers["x-line"], body) == (429, "2", {"code": -1003})

    run(test())


def test_playback_waits_for_a_slow_client_instead_of_cutting_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "FULL", 50)
    big = b'{"stream":"btcusdt@depth@0ms","data":{"n":"' + b"x" * 4000 + b'"}}'
    path = write(tmp_path / "capture", [line(n * 1000, big) for n in range(6000)])

    async def test() -> None:
        fast = plan(path, speed=1000.0, stamps=False, close=True)
        async with running(plan=fast) as one, one.connect("public", DIFFS, max_queue=4) as ws:
            await eventually(lambda: any(socket.waiting > 50 for socket in one.server.sockets.values()))
            assert not one.server.source.state()["ended"]
            assert len([None async for _ in ws]) == 6000

    run(test())


def test_faults_act_on_captures_too(tmp_path: Path) -> None:
    path = write(tmp_path / "capture", [line(n * MS, message(DIFFS, n)) for n in range(100)])

    async def test() -> None:
        async with running(plan=plan(path, stamps=False, close=True)) as one:
            await one.fault("drop", stream="*@depth*", count=7)
            async with one.connect("public", DIFFS) as ws:
                assert [json.loads(text)["data"]["n"] async for text in ws] == list(range(7, 100))

    run(test())


@pytest.mark.captures
def test_a_real_capture_comes_through_two_sockets_to_the_byte(captures: Path) -> None:
    path = captures / "binance_usdm_btcusdt_20230404.gz"

    async def test() -> None:
        async with running(plan=plan(path, speed=300.0)) as one:
            rebuilt = Rebuilt("public", "market")
            await asyncio.gather(
                rebuilt.follow(one, "public", "btcusdt@depth@0ms", "btcusdt@bookTicker"),
                rebuilt.follow(one, "market", TRADES, "btcusdt@markPrice@1s"),
                rebuilt.fetch(one),
            )
            with gzip.open(path) as file:
                recorded = [text.partition(b" ")[2].strip() for text in file]
            mine = [unstamped(text) if b'"stream"' in text else None for _, text in rebuilt.order]
            assert mine == [text if text.startswith(b'{"stream"') else None for text in recorded]
            assert rebuilt.merge.late == 0

    run(test())
