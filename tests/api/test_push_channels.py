"""Channels over real rings: what a client gets next, wherever it stands."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from api.health import Health
from api.push.catalogue import channels_of
from api.push.channels import KEPT_COLUMNS, KEPT_EVENTS, Channel, ColumnChannel, zones_delta, zones_snapshot
from api.push.client import Client
from mpengine.cells import u8log
from mpengine.config import load, resolve_directories
from mpengine.contract.push import CHANNELS, DataMessage
from mpengine.schemas import ZoneRow
from mpengine.wire_formats import ColumnFlag, ColumnKind, unpack_column
from shm.frames import decode
from tests.api.conftest import TEXT
from tests.api.push_rig import PLENTY, FakeLoop, Follower, Held, Owner, cells_of
from tests.api.world import NOW_MS, SLOT_MS, World, candle, depth_frame, map_frame, venue_feed, zone_row


def channels(world: World) -> dict[str, Channel]:
    app = world.app()
    app.context.sources.check()
    return channels_of(app.context, Health(app.context))


class Line:
    """One client in one channel, flushed at once."""

    def __init__(self, channel: Channel, position: tuple[int, int] | None = None, budget: Any = PLENTY) -> None:
        self.channel = channel
        self.owner, self.held, self.loop = Owner(NOW_MS), Held(), FakeLoop()
        self.client = Client(self.owner, self.held, budget, self.loop)  # type: ignore[arg-type]
        channel.refresh()
        position = None if position is None else asyncio.run(channel.resume(position))
        self.client.subscribe(channel, position, binary=False)
        self.owner.flush()

    def look(self) -> None:
        """What the hub does."""
        if self.channel.refresh():
            for one in self.channel.subscribers:
                one.client.notice(one)
        self.owner.flush()

    def take(self) -> list[dict[str, Any]]:
        return self.held.take()


def column(number: int, **values: Any) -> Any:
    return depth_frame(NOW_MS + number * SLOT_MS, seed=number, **values)


def test_a_column_is_the_frame_of_the_ring(world: World) -> None:
    world.add_depth(column(0))
    (message,) = Line(channels(world)["depth.BTC"]).take()
    assert list(message) == ["ch", "type", "epoch", "seq", "prev", "ts_ms", "stale", "data"]
    typed = msgspec.convert(message, DataMessage, strict=True)
    assert (typed.ch, typed.type, typed.epoch, typed.seq, typed.prev, typed.stale) == ("depth.BTC", "snapshot", 1, 0, -1, False)
    data = msgspec.convert(message["data"], CHANNELS["depth"][0], strict=True)
    slot = world.app().context.sources
    slot.check()
    frame = decode(slot.symbols["BTC"].depth.reader.latest().payload)  # type: ignore[union-attr]
    assert (data.t_ms, data.dt_ms, data.rows, data.step, data.src) == (NOW_MS, SLOT_MS, frame.count, 20.0, frame.reference)
    assert data.price0 == frame.origin * 20.0
    assert (cells_of(message["data"]) == u8log(frame.planes)).all()
    assert message["ts_ms"] == NOW_MS + SLOT_MS + 1000


def test_a_map_column_is_tape_and_projection_together(world: World) -> None:
    frame = map_frame(NOW_MS)
    world.add_map(frame)
    (message,) = Line(channels(world)["liq.BTC"]).take()
    stored = decode(world.app().context.sources.symbols["BTC"].liquidation._open().latest().payload)  # type: ignore[union-attr]
    assert (cells_of(message["data"]) == u8log(stored.planes[:2] + stored.planes[2:])).all()
    assert (message["data"]["t_ms"], message["data"]["dt_ms"]) == (NOW_MS - 60_000, 60_000)


def test_binary_and_json_carry_the_same(world: World) -> None:
    world.add_depth(column(0))
    channel = channels(world)["depth.BTC"]
    channel.refresh()
    step = channel.next(None, newest=False)
    assert step is not None
    frame = step.message.binary(number=7, snapshot=True, gap=False, now_ms=NOW_MS)
    assert frame is not None
    header, bid, ask = unpack_column(frame.payload)
    (message,) = Line(channel).take()
    data = message["data"]
    assert (header.kind, header.channel, header.flags) == (ColumnKind.DEPTH, 7, ColumnFlag.SNAPSHOT)
    assert (header.epoch, header.seq, header.prev) == (message["epoch"], message["seq"], -1)
    assert (header.t_ms, header.dt_ms, header.price0, header.step, header.src, header.rows) == (
        data["t_ms"], data["dt_ms"], data["price0"], data["step"], data["src"], data["rows"],
    )  # fmt: skip
    assert (np.stack([bid, ask]) == cells_of(data)).all()


def test_what_is_old_says_so(world: World) -> None:
    world.add_depth(column(0))
    line = Line(channels(world)["depth.BTC"])
    assert [message["stale"] for message in line.take()] == [False]
    line.owner.now = NOW_MS + 90_001
    line.client.subscribe(line.channel, None, binary=False)
    line.owner.flush()
    assert [message["stale"] for message in line.take()] == [True]


def test_columns_come_one_by_one(world: World) -> None:
    world.add_depth(column(0))
    line, follower = Line(channels(world)["depth.BTC"]), Follower()
    for number in range(1, 5):
        world.add_depth(column(number))
        if number != 2:  # two at once
            line.look()
    for message in line.take():
        follower.accept(message)
    assert (follower.got, follower.missed) == ([(1, number) for number in range(5)], [])


def test_nothing_before_the_first_frame_then_a_snapshot(world: World) -> None:
    line = Line(channels(world)["depth.BTC"])
    assert (line.take(), line.channel.head) == ([], None)
    world.add_depth(column(0))
    line.channel._handle.check()  # type: ignore[attr-defined]
    line.look()
    assert [message["type"] for message in line.take()] == ["snapshot"]


@pytest.mark.parametrize("behind", [1, 2, 17, 239, 240])
def test_resume_gives_what_is_missing_in_order(world: World, behind: int) -> None:
    """Also from a worker that has not read any of it before."""
    for number in range(260):
        world.add_depth(column(number))
    follower = Follower(1, 259 - behind)
    for message in Line(channels(world)["depth.BTC"], (1, 259 - behind)).take():
        follower.accept(message)
    assert follower.got == [(1, number) for number in range(260 - behind, 260)]
    assert (follower.missed, follower.resets) == ([], 0)


@pytest.mark.parametrize("position", [(1, 259 - 241), (1, 300), (2, 259), (0, 5)])
def test_what_cannot_be_continued_is_reset(world: World, position: tuple[int, int]) -> None:
    """More than 240 behind, ahead of the ring, another epoch."""
    for number in range(260):
        world.add_depth(column(number))
    messages = Line(channels(world)["depth.BTC"], position).take()
    assert [(message["type"], message["seq"]) for message in messages] == [("reset", 259), ("snapshot", 259)]


def test_a_position_at_the_head_gets_nothing_yet(world: World) -> None:
    world.add_depth(column(0))
    line = Line(channels(world)["depth.BTC"], (1, 0))
    assert line.take() == []
    world.add_depth(column(1))
    line.look()
    assert [(message["type"], message["prev"]) for message in line.take()] == [("delta", 0)]


def test_an_engine_that_came_back_is_a_reset_and_its_first_column_says_restart(world: World) -> None:
    world.add_depth(column(0))
    line, follower = Line(channels(world)["depth.BTC"]), Follower()
    world.reopen(world.settings.paths.depth("BTC"))
    world.depth()  # attached again, nothing written yet
    line.look()
    assert [message["type"] for message in line.held.take()] == ["snapshot"]
    world.add_depth(column(1))
    world.add_depth(column(2))
    line.look()
    messages = line.take()
    assert [(message["type"], message["epoch"]) for message in messages] == [("reset", 2), ("snapshot", 2)]
    assert "restart" not in messages[1]["data"]["flags"]  # the first column was the one before
    for message in messages:
        follower.accept(message)
    assert follower.resets == 1
    again = Line(line.channel, (2, 1))
    assert [message["seq"] for message in again.take()] == [2]


def test_the_first_column_after_a_restart_is_flagged(world: World) -> None:
    world.add_depth(column(0))
    line = Line(channels(world)["depth.BTC"])
    line.take()
    world.reopen(world.settings.paths.depth("BTC"))
    world.add_depth(column(1))
    line.look()
    _, snapshot = line.take()
    assert snapshot["data"]["flags"] == ["restart"]
    step = line.channel.next(None, newest=False)
    assert step is not None
    frame = step.message.binary(number=0, snapshot=True, gap=False, now_ms=NOW_MS)
    assert frame is not None and unpack_column(frame.payload)[0].flags == ColumnFlag.RESTART | ColumnFlag.SNAPSHOT


def test_a_frame_that_cannot_be_read_becomes_a_gap(world: World) -> None:
    world.add_depth(column(0))
    line, follower = Line(channels(world)["depth.BTC"]), Follower()
    world.add_depth(column(1))
    ring = world.depth()
    ring.publish(b"\xff" * 200, ts_ns=0, kind=1)  # of another schema
    world.add_depth(column(3))
    line.look()
    for message in line.take():
        follower.accept(message)
    assert follower.got == [(1, 0), (1, 1), (1, 3)]
    assert follower.missed == [(2, 2)]


def test_a_slow_client_gets_the_newest_and_is_told_what_it_missed(world: World) -> None:
    world.add_depth(column(0))
    size = 400 + 2 * 800 * 4 // 3
    line, follower = Line(channels(world)["depth.BTC"], budget=replace(PLENTY, queue=3 * size)), Follower()
    line.held.paused = True
    for number in range(1, 30):
        world.add_depth(column(number))
        line.look()
    line.held.paused = False
    line.client.writable()
    line.owner.flush()
    for message in line.take():
        follower.accept(message)
    assert (follower.got, follower.missed) == ([(1, 0), (1, 29)], [(1, 28)])
    assert line.owner.left_out == line.client.conflated == 28


def test_a_client_that_was_held_up_shortly_misses_nothing(world: World) -> None:
    world.add_depth(column(0))
    line, follower = Line(channels(world)["depth.BTC"]), Follower()
    line.held.paused = True
    for number in range(1, 30):
        world.add_depth(column(number))
        line.look()
    line.held.paused = False
    line.client.writable()
    line.owner.flush()
    for message in line.take():
        follower.accept(message)
    assert (follower.got, follower.missed) == ([(1, number) for number in range(30)], [])


# events ----------------------------------------------------------------------------------------------------------------


def test_events_come_as_the_newest_fifty_and_then_in_batches(world: World) -> None:
    world.add_feeds(binance=venue_feed(), bybit=venue_feed())
    for number in range(70):
        world.add_liquidation(notional_usd=float(number))
    line, follower = Line(channels(world)["liquidations.BTC"]), Follower()
    (snapshot,) = line.take()
    assert [item["seq"] for item in snapshot["data"]["items"]] == list(range(20, 70))
    follower.accept(snapshot)
    for count in (1, 3):
        for _ in range(count):
            world.add_liquidation()
        line.look()
    first, second = line.take()
    assert ([item["seq"] for item in first["data"]["items"]], first["prev"], first["seq"]) == ([70], 69, 70)
    assert ([item["seq"] for item in second["data"]["items"]], second["prev"], second["seq"]) == ([71, 72, 73], 70, 73)
    for message in (first, second):
        follower.accept(message)
        msgspec.convert(message["data"], CHANNELS["liquidations"][0], strict=True)


@pytest.mark.parametrize(("held", "lost"), [(KEPT_EVENTS, None), (KEPT_EVENTS + 5, (1, 5))])
def test_more_than_a_thousand_events_behind_become_a_gap(world: World, held: int, lost: tuple[int, int] | None) -> None:
    world.add_liquidation()
    line, follower = Line(channels(world)["liquidations.BTC"]), Follower()
    for _ in range(held):
        world.add_liquidation()
    line.look()
    for message in line.take():
        follower.accept(message)
    assert follower.missed == ([] if lost is None else [lost])
    assert len(follower.state["items"]) == KEPT_EVENTS


def test_events_without_a_live_feed_say_that_they_are_stale(world: World) -> None:
    world.add_liquidation()
    assert [message["stale"] for message in Line(channels(world)["liquidations.BTC"]).take()] == [True]


# states ----------------------------------------------------------------------------------------------------------------


def fill(world: World) -> None:
    """Something in every source."""
    world.add_depth(column(0))
    world.add_map(map_frame(NOW_MS))
    world.add_zones([zone_row("L-4000-1"), zone_row("S-4100-1", side="short")])
    world.add_liquidation()
    world.add_oi(binance=10.0, bybit=20.0, okx=30.0)
    world.add_candle(candle(NOW_MS - 60_000))
    world.add_book()
    world.add_feeds()
    world.add_status()


def test_every_channel_has_the_body_of_the_contract(world: World) -> None:
    fill(world)
    found = channels(world)
    for name in (name for name in found if name.endswith(".BTC") or name == "status"):
        (message,) = Line(found[name]).take()
        typed = msgspec.convert(message, DataMessage, strict=True)
        assert (typed.ch, typed.type) == (name, "snapshot")
        body = CHANNELS[name.partition(".")[0]][0]
        msgspec.convert(message["data"], body, strict=True)
        assert list(message["data"]) == [field.encode_name for field in msgspec.structs.fields(body)], name


def test_numbers_of_channels_are_their_places(world: World) -> None:
    found = channels(world)
    assert [channel.number for channel in found.values()] == list(range(len(found)))
    assert "depth.XRP" not in found and "liq.XRP" in found  # a symbol without a book


def test_a_state_is_whole_each_time(world: World) -> None:
    world.add_oi(binance=10.0)
    line, follower = Line(channels(world)["oi.BTC"]), Follower()
    for value in (11.0, 12.0):
        world.add_oi(binance=value)
        line.look()
    for message in line.take():
        follower.accept(message)
    assert follower.got == [(1, 0), (1, 1), (1, 2)]
    assert follower.state["aggregated_oi"] == 12.0


def test_versions_between_two_looks_are_nobodys_loss(world: World) -> None:
    world.add_oi(binance=10.0)
    line, follower = Line(channels(world)["oi.BTC"]), Follower()
    for value in (11.0, 12.0, 13.0):
        world.add_oi(binance=value)
    line.look()
    for message in line.take():
        follower.accept(message)
    assert (follower.got, follower.missed) == ([(1, 0), (1, 3)], [])


def test_a_state_that_was_missed_is_whole_again(world: World) -> None:
    world.add_zones([zone_row("L-4000-1", weight=1.0)])
    line = Line(channels(world)["zones.BTC"])
    line.held.paused = True
    for weight in (0.9, 0.8, 0.7):
        world.add_zones([zone_row("L-4000-1", weight=weight)])
        line.look()
    line.held.paused = False
    line.client.writable()
    line.owner.flush()
    messages = line.take()
    assert [message["type"] for message in messages] == ["snapshot", "gap", "snapshot"]
    assert messages[-1]["data"]["zones"][0]["weight"] == 0.7


def test_a_document_of_before_is_answered_with_a_snapshot(world: World) -> None:
    for value in (1.0, 2.0, 3.0):
        world.add_oi(binance=value)
    assert [message["type"] for message in Line(channels(world)["oi.BTC"], (1, 1)).take()] == ["snapshot"]
    assert Line(channels(world)["oi.BTC"], (1, 2)).take() == []
    assert [message["type"] for message in Line(channels(world)["oi.BTC"], (9, 1)).take()] == ["reset", "snapshot"]


def crc(zones: dict[str, dict[str, Any]]) -> int:
    return zlib.crc32("".join(f"{name}:{zones[name]['weight']:.4f};" for name in sorted(zones)).encode())


def apply(zones: dict[str, dict[str, Any]], message: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Zones after a message, as a client has them; checked by count and CRC."""
    data = message["data"]
    if message["type"] == "snapshot":
        zones = {zone["id"]: zone for zone in data["zones"]}
    else:
        zones = {name: zone for name, zone in zones.items() if name not in data["removed"]}
        zones |= {zone["id"]: zone for zone in data["set"]}
    assert (len(zones), crc(zones)) == (data["count"], data["crc32"])
    return zones


WEIGHTS = st.dictionaries(st.integers(3990, 4010), st.floats(0.05, 5.0).map(lambda one: round(one, 4)), max_size=12)


@examples(max_examples=40, deadline=None)
@given(st.lists(WEIGHTS, min_size=1, max_size=6))
def test_zones_by_deltas_are_the_zones_of_the_document(minutes: list[dict[int, float]]) -> None:
    from api.push.channels import Message  # noqa: F401

    def rows(weights: dict[int, float], at: int) -> dict[str, tuple[ZoneRow, int]]:
        found = {f"L-{bucket}-1": (zone_row(f"L-{bucket}-1", weight=weight), at) for bucket, weight in weights.items()}
        return dict(sorted(found.items()))

    zones = apply({}, {"type": "snapshot", "data": msgspec.json.decode(zones_snapshot(rows(minutes[0], 0)))})
    for at, (before, after) in enumerate(pairwise(minutes), 1):
        delta = msgspec.json.decode(zones_delta(rows(before, at - 1), rows(after, at)))
        unchanged = {f"L-{bucket}-1" for bucket, weight in before.items() if after.get(bucket) == weight}
        assert unchanged.isdisjoint(zone["id"] for zone in delta["set"])
        zones = apply(zones, {"type": "delta", "data": delta})
        assert {name: zone["weight"] for name, zone in zones.items()} == {f"L-{b}-1": w for b, w in after.items()}


def test_zones_over_a_channel(world: World) -> None:
    light, heavy, short = (
        zone_row(price=80_000.0, weight=1.0),
        zone_row(price=80_200.0, weight=2.0),
        zone_row(side="short", price=9e4),
    )
    grown = msgspec.structs.replace(light, weight=1.5)
    world.add_zones([light, heavy])
    line = Line(channels(world)["zones.BTC"])
    world.add_zones([grown, heavy, short])
    line.look()
    world.add_zones([short])
    line.look()
    zones: dict[str, dict[str, Any]] = {}
    first, second, third = line.take()
    zones = apply(zones, first)
    assert [zone["price"] for zone in second["data"]["set"]] == [80_000.0, 90_000.0]
    zones = apply(zones, second)
    assert sorted(zone["weight"] for zone in zones.values() if zone["side"] == "long") == [1.5, 2.0]
    assert len(third["data"]["removed"]) == 2
    zones = apply(zones, third)
    assert [zone["price"] for zone in zones.values()] == [90_000.0]


# everything at once ----------------------------------------------------------------------------------------------------

ACTIONS = st.lists(st.sampled_from(("frame", "frames", "look", "pause", "go", "restart", "leave", "unreadable")), max_size=60)


@examples(max_examples=60, deadline=None)
@given(ACTIONS, st.integers(1, 6))
def test_whatever_happens_each_number_comes_once_or_is_named_in_a_gap(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str], queue: int
) -> None:
    """Frames, restarts, holes, pauses, and clients that go on at another worker: by the rule, never a silent hole."""

    folder = tmp_path_factory.mktemp("push")
    (folder / "data").mkdir()
    (folder / "run").mkdir()
    world = World(resolve_directories(load(TEXT, {}), data=folder / "data", runtime=folder / "run"))
    try:
        _run_actions(world, actions, queue)
    finally:
        world.close()


def test_an_unreadable_newest_frame_does_not_hide_the_one_before_it_from_a_new_worker(world: World) -> None:
    world.add_depth(column(0))
    world.add_depth(column(1))
    world.depth().publish(b"\xff" * 200, ts_ns=0, kind=1)
    for position in (None, (1, 0)):
        line = Line(channels(world)["depth.BTC"], position)
        assert [message["seq"] for message in line.take()] == [1]


def _run_actions(world: World, actions: list[str], queue: int) -> None:
    budget = replace(PLENTY, queue=queue * 2500)
    number = 0

    def add() -> None:
        nonlocal number
        world.add_depth(column(number))
        number += 1

    add()
    line, follower, good = Line(channels(world)["depth.BTC"], budget=budget), Follower(), {(1, 0)}

    def catch_up() -> None:
        for message in line.take():
            follower.accept(message)

    for action in [*actions, "go", "look"]:
        if action in ("frame", "frames"):
            for _ in range(1 if action == "frame" else 5):
                good.add((world.depth().epoch, world.depth().next_no))
                add()
        elif action == "unreadable":
            world.depth().publish(b"\xff" * 200, ts_ns=0, kind=1)
            number += 1
        elif action == "restart":
            world.reopen(world.settings.paths.depth("BTC"))
            world.depth()
        elif action == "pause":
            line.held.paused = True
        elif action == "go":
            line.held.paused = False
            line.client.writable()
            line.owner.flush()
        elif action == "leave":
            catch_up()
            line.client.forget()
            position = None if follower.epoch is None or follower.seq is None else (follower.epoch, follower.seq)
            line = Line(channels(world)["depth.BTC"], position, budget)
        line.look()
    catch_up()
    assert len(follower.got) == len(set(follower.got)), "a number came twice"
    newest = max(good, key=lambda one: one[1])
    assert follower.got[-1] == newest
    # Within one life, from its first number on, all is there or named.
    for epoch in {epoch for epoch, _ in follower.got}:
        mine = sorted(seq for one, seq in follower.got if one == epoch)
        first = mine[0]
        named = {seq for low, high in follower.missed for seq in range(low, high + 1)}
        for one, seq in good:
            if one == epoch and first < seq <= mine[-1] and follower.resets == 0:
                assert seq in mine or seq in named


def test_the_log_is_bounded(world: World) -> None:
    channel = channels(world)["depth.BTC"]
    assert isinstance(channel, ColumnChannel)
    world.add_depth(column(0))
    channel._handle.check()
    for number in range(1, KEPT_COLUMNS + 60):
        world.add_depth(column(number))
        channel.refresh()
    assert len(channel._log) == KEPT_COLUMNS
