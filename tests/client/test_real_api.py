"""The client against the API itself: every method, and streams through killed and replaced workers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

from mpengine import contract
from mpengine.cells import u8log
from mpengine.client import (
    ApiError,
    AsyncClient,
    Client,
    ColumnUpdate,
    EventsUpdate,
    Item,
    Options,
    Position,
    Refused,
    Reset,
    Retries,
    StateUpdate,
    Update,
    ZonesUpdate,
)
from mpengine.client.zones import zones_crc32
from mpengine.contract import push
from mpengine.keys import change, new_key
from mpengine.mphm import Block
from shm.frame_ring import FrameReader
from shm.frames import decode
from tests.api.sockets import serving
from tests.api.test_serving import Pool
from tests.api.world import SLOT_MS, World, depth_frame, map_frame, zone_row
from tests.client.conftest import fill
from tests.client.rig import until
from tests.client.test_requests import MADE

pytestmark = pytest.mark.slow

WITHIN_S = 60.0
OPTIONS = Options(retries=Retries(tries=8, wait_s=20.0), reconnect_first_s=0.05, reconnect_limit_s=0.5)
CHANNELS = ["depth.BTC", "liq.BTC", "liquidations.BTC", "zones.BTC"]
STATES = ["levels.BTC", "oi.BTC", "candles.BTC", "book.BTC", "status"]


def url(pool: Pool) -> str:
    return f"http://127.0.0.1:{pool.port}"


def test_every_method_of_both_clients(standing: Pool) -> None:
    found: dict[str, list[Any]] = {}
    absent = {"metrics"}
    with Client(url(standing), options=OPTIONS) as client:
        for name in MADE.keys() - absent:
            found[name] = [getattr(client, name)() for _ in range(5)]
        with pytest.raises(ApiError) as raised:
            client.metrics()
        assert raised.value.code == "not_found"
        with pytest.raises(ApiError) as raised:
            client.oi("DOGE")
        assert (raised.value.status, raised.value.code) == (400, "invalid_symbol") and "BTC" in raised.value.detail
        assert abs(client.clock_offset().offset_ms) < 60_000

    async def run() -> None:
        async with AsyncClient(url(standing), options=OPTIONS) as client:
            for name in MADE.keys() - absent:
                answer = await getattr(client, name)()
                assert type(answer.body) is type(found[name][0].body), name

    asyncio.run(run())
    for name, answers in found.items():
        first = answers[0]
        if first.etag is not None:
            assert any(one.not_modified and one.body is first.body for one in answers[1:]), name
            if name != "openapi":
                assert first.age() is not None and first.stale is not None and first.seq is not None, name
    for answer in found["orderbook_heatmap"]:
        assert answer.stale == (answer.age_then_s > 90.0)
    assert found["health"][0].body.contract == "3.1"
    depth, cells = found["orderbook_heatmap"][0].body, found["orderbook_heatmap_bin"][0].body
    assert cells.bid[0].tolist() == depth.bid_u8 and cells.ask[0].tolist() == depth.ask_u8
    history, rows = found["orderbook_heatmap_history"][0].body, found["orderbook_heatmap_history_bin"][0].body
    assert rows.bid.reshape(-1).tolist() == history.bid_u8 and rows.t_ms.tolist() == history.t
    heatmap, packed = found["heatmap"][0].body, found["heatmap_bin"][0].body
    assert isinstance(heatmap, contract.Heatmap) and isinstance(heatmap.layers.depth, contract.DepthLayer)
    assert packed.dense(Block.DEPTH_BID).reshape(-1).tolist() == heatmap.layers.depth.bid


def test_parameters_reach_the_server(standing: Pool) -> None:
    with Client(url(standing), options=OPTIONS) as client:
        assert client.orderbook_heatmap(range_pct=0.01, step=40.0).body.step == 40.0
        assert client.orderbook_heatmap_history(minutes=5, stride=3).body.stride == 3
        assert client.liq_heatmap_v2(min_notional=1e12).body.long_levels == []
        assert {zone.side for zone in client.liq_zones(side="short").body.zones} == {"short"}
        assert client.liquidations(after=0, limit=1).body.count == 1
        assert client.candles(interval="1h", limit=5).body.interval_ms == 3_600_000
        body = client.heatmap(layers=("depth",), dt_s=30, k=2, form="sparse", cell="usd", min_usd=10.0).body
        assert (body.k, body.form, body.cell, body.dt_ms) == (2, "sparse", "usd", 30_000)
        with pytest.raises(ApiError) as raised:
            client.heatmap(dt_s=7)
        assert raised.value.code == "invalid_parameter" and "dt_s" in raised.value.detail


@pytest.mark.parametrize("transport", ["ws", "sse"])
def test_every_channel(standing: Pool, transport: Any) -> None:
    names = [*CHANNELS, *STATES]
    with Client(url(standing), options=OPTIONS) as client, client.subscribe(names, transport) as stream:
        found = [stream.next(WITHIN_S) for _ in names]
        assert {item.channel for item in found} == set(names)
        for item in found:
            assert isinstance(item, Update) and item.way == "snapshot"
            if isinstance(item, StateUpdate):
                assert isinstance(item.value, push.CHANNELS[item.channel.partition(".")[0]][0])
        assert set(stream.positions) == set(names)
        until(lambda: stream.beat, "a beat")
        assert stream.beat is not None and stream.beat.heads.keys() == set(names)
        age = stream.age("depth.BTC")
        assert stream.connected and age is not None
        assert stream.stale("depth.BTC") or age < 90


def test_channels_that_there_are_not(standing: Pool) -> None:
    with Client(url(standing), options=OPTIONS) as client:
        with pytest.raises(Refused) as refused:
            client.subscribe(["depth.BTC", "depth.DOGE", "depth.XRP"]).next(WITHIN_S)
        assert refused.value.errors == {"depth.DOGE": "invalid_symbol", "depth.XRP": "no_orderbook"}
        with pytest.raises(ApiError) as raised:
            client.subscribe(["depth.DOGE"], "sse").next(WITHIN_S)
        assert (raised.value.status, raised.value.code) == (400, "invalid_parameter")


def test_keys_and_limits(world: World) -> None:
    fill(world)
    record, key = new_key(time.time_ns() // 1_000_000, ["read", "push"])
    change(world.settings.paths.keys, lambda records: [*records, record])
    with serving(world, keys=True, rate_limits=True, rate_per_s=20.0, rate_burst=10) as pool:
        for stranger in (None, f"{record.id}.{'0' * 43}"):
            with Client(url(pool), key=stranger, options=OPTIONS) as client:
                assert client.livez().body.live
                with pytest.raises(ApiError) as raised:
                    client.oi()
                assert (raised.value.status, raised.value.code) == (401, "unauthorized")
                for transport in ("ws", "sse"):
                    with pytest.raises(ApiError) as raised:
                        client.subscribe(["depth.BTC"], transport).next(WITHIN_S)  # type: ignore[arg-type]
                    assert raised.value.status == 401
        with Client(url(pool), key=key, options=OPTIONS) as client:
            for transport in ("ws", "sse"):
                assert isinstance(client.subscribe(["depth.BTC"], transport).next(WITHIN_S), ColumnUpdate)  # type: ignore[arg-type]
            answers = [client.oi() for _ in range(20)]
            assert all(answer.body.aggregated_oi == 60.0 for answer in answers), "refusals were waited out"
        impatient = Options(retries=Retries(tries=1))
        with Client(url(pool), key=key, options=impatient) as client, pytest.raises(ApiError) as raised:
            until(lambda: not client.candles(), "the end of the bucket")
        assert (raised.value.status, raised.value.code) == (429, "rate_limited") and raised.value.retry_after_s
        with Client(url(pool), key=key, options=OPTIONS) as client:
            followed = [client.subscribe(["depth.BTC"], transport) for transport in ("ws", "sse")]  # type: ignore[arg-type]
            assert all(isinstance(stream.next(WITHIN_S), ColumnUpdate) for stream in followed)
            change(world.settings.paths.keys, lambda records: [])
            for stream in followed:
                with pytest.raises(ApiError) as raised:
                    stream.next(WITHIN_S)
                assert (raised.value.status, raised.value.code) == (401, "unauthorized")


def test_a_gap_is_filled_from_the_rings(pool: Pool, world: World) -> None:
    """Positions further back than the server resumes: a reset over sockets, and nothing missing for the user."""
    newest = world.depth().next_no - 1
    start_ms = world.clock.now_ms
    for index in range(300):
        world.add_depth(depth_frame(start_ms + index * SLOT_MS, seed=index))
    for _ in range(2500):
        world.add_liquidation()
    epoch = world.depth().epoch
    with Client(url(pool), options=OPTIONS) as client:
        positions = {
            "depth.BTC": Position(epoch, newest, start_ms - SLOT_MS),
            "liquidations.BTC": Position(world.liquidations().epoch, 2),
        }
        for transport in ("ws", "sse"):
            with client.subscribe(list(positions), transport, positions=positions) as stream:  # type: ignore[arg-type]
                items = [stream.next(WITHIN_S)]
                while not done(stream.positions, world, positions):
                    items.append(stream.next(WITHIN_S))
            assert [item.seq for item in items if isinstance(item, ColumnUpdate)] == list(range(newest + 1, newest + 301))
            events = [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events]
            assert events == list(range(3, 2503))
            assert all(isinstance(item, Update) for item in items)
            for item in items:
                if isinstance(item, ColumnUpdate):
                    check_column(world, item)


def done(positions: dict[str, Position], world: World, names: Any) -> bool:
    """Whether a follower stands at the heads of these channels."""
    heads = {
        "depth.BTC": world.depth().next_no - 1, "liq.BTC": world.liquidation().next_no - 1,
        "liquidations.BTC": world.liquidations().next_no - 1,
    }  # fmt: skip
    return all(name in positions and positions[name].seq == heads[name] for name in names if name in heads)


def check_column(world: World, item: ColumnUpdate) -> None:
    """A column is the frame of its number, wherever its grid begins."""
    paths = world.settings.paths
    with FrameReader.open(paths.depth("BTC") if item.channel == "depth.BTC" else paths.liquidation("BTC")) as ring:
        slot = ring.read(item.seq)
    assert slot is not None
    frame = decode(slot.payload)
    usd = frame.planes if item.channel == "depth.BTC" else frame.planes[:2] + frame.planes[2:]
    column = item.column
    first = round(column.price0 / column.step)
    assert column.t_ms == frame.open_ts_ns // 1_000_000 and column.step == frame.step
    low = frame.origin - first
    for cells, side in ((column.low, 0), (column.high, 1)):
        assert np.array_equal(cells[low : low + frame.count], u8log(usd[side]))
        assert not cells[:low].any() and not cells[low + frame.count :].any()


class Publisher(threading.Thread):
    """An engine that is in a hurry: frames, events and zones until it is told to stop."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._end = threading.Event()
        self.zones: list[Any] = []
        self.turns = 0

    def run(self) -> None:
        world, start_ms = self._world, self._world.clock.now_ms
        minute_ms = start_ms // 60_000 * 60_000
        while not self._end.wait(0.02):
            turn = self.turns
            world.add_depth(depth_frame(start_ms + turn * SLOT_MS, seed=turn))
            if turn % 2:
                world.add_map(map_frame(minute_ms + (turn // 2 + 1) * 60_000, seed=turn))
            for _ in range(turn % 4):
                world.add_liquidation(price=100.0 + turn)
            if turn % 5 == 0:
                self.zones = [
                    zone_row(price=64_000.0 + 20 * number, weight=1 + 0.01 * (turn % 90), tier_contributions={"100": 1.0})
                    for number in range(turn % 7, turn % 7 + 5)
                ]
                world.add_zones(self.zones)
            self.turns += 1

    def stop(self) -> None:
        self._end.set()
        self.join()


class Followers:
    """Streams of both clients over both transports, each in its way, until they have everything."""

    def __init__(self, address: str) -> None:
        self.items: dict[str, list[Item]] = {"ws bin": [], "ws json": [], "sse": [], "sync ws": []}
        self.positions: dict[str, dict[str, Position]] = {name: {} for name in self.items}
        self.connections: dict[str, int] = {}
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=asyncio.run, args=(self._async(address),)),
            threading.Thread(target=self._sync, args=(address,)),
        ]

    def __enter__(self) -> Followers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    async def _async(self, address: str) -> None:
        async with AsyncClient(address, options=OPTIONS) as client:
            streams = {
                "ws bin": client.subscribe(CHANNELS, "ws"),
                "ws json": client.subscribe(CHANNELS, "ws", encoding="json"),
                "sse": client.subscribe(CHANNELS, "sse"),
            }

            async def follow(name: str) -> None:
                async for item in streams[name]:
                    self._note(name, item, streams[name])

            tasks = [asyncio.create_task(follow(name)) for name in streams]
            while not self._end.is_set():
                await asyncio.sleep(0.02)
            await client.close()
            await asyncio.gather(*tasks)

    def _sync(self, address: str) -> None:
        with Client(address, options=OPTIONS) as client, client.subscribe(CHANNELS) as stream:
            while not self._end.is_set():
                try:
                    self._note("sync ws", stream.next(0.05), stream)
                except TimeoutError:
                    continue

    def _note(self, name: str, item: Item, stream: Any) -> None:
        self.items[name].append(item)
        self.positions[name] = dict(stream.positions)
        self.connections[name] = stream.stats.connections


def go_on(pool: Pool, followers: Followers, *gone: int) -> None:
    """Wait until both workers serve, none of those that had to go, and every follower has got something since."""
    until(lambda: (now := pool.workers()) and not set(gone) & set(now), "both workers")
    before = {name: len(items) for name, items in followers.items.items()}
    until(lambda: all(len(items) > before[name] for name, items in followers.items.items()), "updates again")


@pytest.mark.covers("F3")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.stress)])
def test_killed_and_replaced_workers_cost_no_update(pool: Pool, world: World, rounds: int) -> None:
    publisher = Publisher(world)
    publisher.start()
    try:
        with Followers(url(pool)) as followers:
            until(lambda: all(followers.positions.values()), "everybody follows")
            for _ in range(rounds):
                for victim in pool.workers():
                    os.kill(victim, signal.SIGKILL)
                    go_on(pool, followers, victim)
            before = dict(followers.connections)
            pool.roll()
            until(
                lambda: all(followers.connections[name] > count for name, count in before.items()),
                "everybody was told to come back",
            )
            publisher.stop()
            until(lambda: all(done(at, world, CHANNELS) for at in followers.positions.values()), "everything")
            until(lambda: all(last_zones(items) == ids(publisher) for items in followers.items.values()), "the last zones")
    finally:
        publisher.stop()
    assert publisher.turns > 50
    for name, items in followers.items.items():
        assert all(isinstance(item, Update) for item in items), (name, [item for item in items if not isinstance(item, Update)])
        assert followers.connections[name] >= rounds + 2, "each of its workers was killed or replaced"
        for channel in ("depth.BTC", "liq.BTC"):
            columns = [item for item in items if isinstance(item, ColumnUpdate) and item.channel == channel]
            assert [item.seq for item in columns] == list(range(columns[0].seq, columns[-1].seq + 1)), (name, channel)
            for item in columns[-200::5]:  # the ring still has those
                check_column(world, item)
        events = [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events]
        assert events == list(range(events[0], world.liquidations().next_no)), name
        zones = [item for item in items if isinstance(item, ZonesUpdate)]
        assert [item.seq for item in zones] == sorted({item.seq for item in zones}), name
        assert len({zones_crc32(item.zones.values()) for item in zones}) > 1


@pytest.mark.covers("F11")
def test_what_a_server_leaves_out_for_a_slow_line_is_fetched(world: World) -> None:
    """A budget far below what is published: the server sends the newest and gaps, the client asks for the rest."""
    fill(world)
    with serving(world, push_bytes_per_s=4096, push_burst_bytes=8192, push_queue_bytes=8192) as pool:
        publisher = Publisher(world)
        with Client(url(pool), options=OPTIONS) as client:
            streams = [client.subscribe(CHANNELS, transport) for transport in ("ws", "sse")]  # type: ignore[arg-type]
            found: list[list[Item]] = [[stream.next(WITHIN_S)] for stream in streams]
            publisher.start()
            try:
                until(lambda: publisher.turns > 60, "a lot to say")
            finally:
                publisher.stop()
            for stream, items in zip(streams, found):
                while not done(stream.positions, world, CHANNELS):
                    items.append(stream.next(WITHIN_S))
                assert stream.stats.gaps > 0 and any(isinstance(item, Update) and item.way == "healed" for item in items)
                assert [item for item in items if not isinstance(item, Update)] == []
                for channel in ("depth.BTC", "liq.BTC"):
                    columns = [item for item in items if isinstance(item, ColumnUpdate) and item.channel == channel]
                    assert [item.seq for item in columns] == list(range(columns[0].seq, columns[-1].seq + 1)), channel
                    for item in columns[::5]:
                        check_column(world, item)
                events = [event.seq for item in items if isinstance(item, EventsUpdate) for event in item.events]
                assert events == list(range(events[0], world.liquidations().next_no))


def ids(publisher: Publisher) -> set[float]:
    return {zone.price for zone in publisher.zones}


def last_zones(items: list[Item]) -> set[float]:
    zones = [item for item in items if isinstance(item, ZonesUpdate)]
    return {zone.price for zone in zones[-1].zones.values()} if zones else set()


@pytest.mark.covers("F3")
@pytest.mark.parametrize("transport", ["ws", "sse"])
def test_a_new_writer_is_a_reset_and_columns_and_events_go_on(pool: Pool, world: World, transport: Any) -> None:
    start_ms, paths = world.clock.now_ms, world.settings.paths
    with Client(url(pool), options=OPTIONS) as client, client.subscribe(["depth.BTC", "liquidations.BTC"], transport) as stream:
        before = [stream.next(WITHIN_S) for _ in range(2)]
        # Another engine takes the rings over, and publishes a little before the workers look.
        world.reopen(paths.depth("BTC"))
        world.reopen(paths.liquidations("BTC"))
        for index in range(3):
            world.add_depth(depth_frame(start_ms + index * SLOT_MS, seed=index))
            world.add_liquidation()
        after: list[Item] = []
        while not done(stream.positions, world, ["depth.BTC", "liquidations.BTC"]):
            after.append(stream.next(WITHIN_S))
    for name in ("depth.BTC", "liquidations.BTC"):
        (first,) = [item for item in before if item.channel == name]
        reset, *rest = [item for item in after if item.channel == name]
        assert isinstance(first, Update) and isinstance(reset, Reset)
        assert (reset.before, reset.epoch) == (first.position, first.epoch + 1)
        assert {item.epoch for item in rest} == {reset.epoch}
        if name == "depth.BTC":
            assert [item.seq for item in rest if isinstance(item, ColumnUpdate)] == [first.seq + number for number in (1, 2, 3)]
            for item in rest:
                assert isinstance(item, ColumnUpdate)
                check_column(world, item)
        else:
            events = [event.seq for item in rest if isinstance(item, EventsUpdate) for event in item.events]
            assert events == [first.seq + number for number in (1, 2, 3)]
