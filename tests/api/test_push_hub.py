"""The turns of a worker that serve its push clients: nobody waits for what others ask, and one fault stays one."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from api.push import hub as hub_module
from api.push.channels import Channel
from api.push.client import Client
from api.push.hub import PORTION
from api.push.messages import Frame
from api.push.stream import StreamConnection, places_of
from tests.api.push_rig import Follower, Held
from tests.api.test_push_channels import Line, channels, column
from tests.api.test_push_client import Numbers, Rig
from tests.api.world import World, venue_feed


def test_bye_is_said_once_to_each_and_to_who_comes_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection of a worker that stops asks for it: the work must not grow with the square of them."""
    closed: list[Client] = []
    real = Client.close

    def counted(client: Client, reason: str, code: int, **more: Any) -> None:
        closed.append(client)
        real(client, reason, code, **more)

    monkeypatch.setattr(Client, "close", counted)

    async def main() -> None:
        hub = world.app().hub
        clients = [hub.begin(Held(), None) for _ in range(20)]
        for _ in clients:
            hub.say_bye()
        assert closed == clients
        late = Held()
        hub.begin(late, None)
        (bye,) = late.take()
        assert (bye["type"], bye["reason"], late.ended) == ("bye", "restart", [1012])
        assert 800 <= bye["reconnect_in_ms"] <= 5000

    asyncio.run(main())


def test_beats_of_clients_that_came_together_do_not_come_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "BEAT_S", 1e-3)

    async def main() -> None:
        hub, connections = world.app().hub, [Held() for _ in range(100)]
        for one in connections:
            hub.begin(one, None)
        due = asyncio.get_running_loop().time() + 2e-3
        while asyncio.get_running_loop().time() < due:
            await asyncio.sleep(0)
        for turn in range(1, hub_module.BEAT_TURNS + 1):
            hub._beat()
            assert sum(len(one.frames) for one in connections) == 5 * turn
        assert all(len(one.frames) == 1 for one in connections)

    asyncio.run(main())


def test_requests_wait_no_longer_because_clients_have_much_to_get(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Client] = []

    def slow(client: Client) -> None:
        flushed.append(client)
        world.clock.advance(0.001)

    monkeypatch.setattr(Client, "flush", slow)

    async def main() -> None:
        hub = world.app().hub
        clients = [hub.begin(Held(), None) for _ in range(PORTION)]
        for client in clients:
            hub.mark(client)
        hub._drain()
        assert 1 <= len(flushed) <= 10
        for _ in clients:
            hub._drain()
        assert flushed == clients

    asyncio.run(main())


def test_what_nobody_followed_is_read_piece_by_piece(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows a channel again after hours reads one frame at once; who has a position gets all that lies behind it."""
    world.add_depth(column(0))
    channel: Any = channels(world)["depth.BTC"]
    channel.refresh()
    for number in range(1, 101):
        world.add_depth(column(number))
    read: list[int] = []
    real = channel._read

    def counted(reader: Any, number: int, before: Any) -> Any:
        read.append(number)
        return real(reader, number, before)

    monkeypatch.setattr(channel, "_read", counted)
    assert channel.refresh()
    assert read == [100]
    follower = Follower(1, 0)
    for message in Line(channel, (1, 0)).take():
        follower.accept(message)
    assert (follower.got, follower.missed) == ([(1, number) for number in range(1, 101)], [])


@pytest.mark.parametrize("after", [1, 2, 40])
@pytest.mark.parametrize("known", [False, True])
def test_the_first_column_of_a_life_and_no_other_says_restart(world: World, after: int, known: bool) -> None:
    """Whether this worker has seen the one before it, has not looked for long, or has only begun."""
    world.add_depth(column(0))
    channel = channels(world)["depth.BTC"]
    if known:
        channel.refresh()
    world.reopen(world.settings.paths.depth("BTC"))
    for number in range(1, after + 1):
        world.add_depth(column(number))
    (snapshot,) = Line(channel).take()
    assert (snapshot["seq"], snapshot["data"]["flags"]) == (after, ["restart"] if after == 1 else [])


@pytest.mark.parametrize(("name", "source"), [("oi.BTC", "_read"), ("liquidations.BTC", "_rows")])
def test_a_source_that_could_not_be_read_once_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, source: str
) -> None:
    world.add_oi(binance=10.0)
    world.add_liquidation()
    channel: Channel = channels(world)[name]

    def fails() -> None:
        raise OSError("once")

    with monkeypatch.context() as patch:
        patch.setattr(channel, source, SimpleNamespace(all=fails) if source == "_rows" else fails)
        with pytest.raises(OSError, match="once"):
            channel.refresh()
    assert channel.refresh()
    assert channel.head == (1, 0)


def test_events_of_before_are_stale_when_the_feeds_are_gone(world: World) -> None:
    world.add_feeds(binance=venue_feed(), bybit=venue_feed())
    world.add_liquidation()
    channel = channels(world)["liquidations.BTC"]
    assert [message["stale"] for message in Line(channel).take()] == [False]
    world.clock.advance(3600)
    assert [message["stale"] for message in Line(channel).take()] == [True]


@pytest.mark.parametrize(("behind", "kinds"), [(1000, ["delta"]), (1001, ["reset", "snapshot"])])
def test_who_comes_back_behind_more_events_than_are_given_begins_anew(world: World, behind: int, kinds: list[str]) -> None:
    for _ in range(behind + 1):
        world.add_liquidation()
    messages = Line(channels(world)["liquidations.BTC"], (1, 0)).take()
    assert [message["type"] for message in messages] == kinds
    assert messages[-1]["seq"] == behind
    assert len(messages[-1]["data"]["items"]) == (1000 if kinds == ["delta"] else 50)


class Unmade(Numbers):
    """A channel whose messages cannot be made while it is `broken`."""

    broken = True

    def next(self, position: Any, *, newest: bool) -> Any:
        step = super().next(position, newest=newest)
        if step is not None and self.broken:

            def fail() -> bytes:
                raise ValueError("not a number")

            step.message._delta = step.message._snapshot = fail
        return step


def test_a_message_that_cannot_be_made_is_the_loss_of_its_channel_alone() -> None:
    rig, bad = Rig(), Unmade("oi.BTC")
    bad.refresh()
    rig.client.subscribe(bad, None, binary=False)
    rig.subscribe()
    rig.publish()
    assert [message["seq"] for message in rig.held.take()] == [0, 1]
    assert (rig.client.reason, rig.held.aborted, rig.client.subscriptions["oi.BTC"].position) == (None, False, None)
    bad.broken = False
    rig.client.notice(rig.client.subscriptions["oi.BTC"])
    rig.owner.flush()
    assert [(message["ch"], message["type"]) for message in rig.held.take()] == [("oi.BTC", "snapshot")]


class Placed(Held):
    """Remembers where the client stood after each message, as the id of an event says it."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[tuple[str, bytes]] = []

    def send(self, kind: str, frame: Frame, client: Client) -> int:
        self.places.append((kind, places_of(client)))
        return super().send(kind, frame, client)


def test_an_id_says_where_one_stands_after_its_event(world: World) -> None:
    world.add_depth(column(0))
    line = Line(channels(world)["depth.BTC"])
    line.client.connection = placed = Placed()
    world.depth().publish(b"\xff" * 200, ts_ns=0, kind=1)  # of another schema
    world.add_depth(column(2))
    line.look()
    assert placed.places == [("gap", b"depth.BTC:1:1"), ("delta", b"depth.BTC:1:2")]
    placed.places.clear()
    world.reopen(world.settings.paths.depth("BTC"))
    world.add_depth(column(3))
    line.look()
    assert placed.places == [("reset", b""), ("snapshot", b"depth.BTC:2:3")]


def test_a_large_event_is_held_once_however_many_wait_for_it() -> None:
    written: list[list[bytes]] = []
    transport = SimpleNamespace(write=lambda data: written.append([data]), writelines=lambda pieces: written.append(list(pieces)))
    protocol: Any = SimpleNamespace(transport=transport)
    client: Any = SimpleNamespace(subscriptions={})
    for size in (100, 1 << 20):
        payload = json.dumps("x" * size).encode()
        written.clear()
        for _ in range(3):
            count = StreamConnection(protocol, asyncio.Event()).send("beat", Frame(payload), client)
            assert count == sum(map(len, written[-1]))
        for pieces in written:
            length, _, rest = b"".join(pieces).partition(b"\r\n")
            assert len(rest) == int(length, 16) + 2
            assert rest == b"event: beat\ndata: %s\n\n\r\n" % payload
            assert size < 1000 or any(piece is payload for piece in pieces)
