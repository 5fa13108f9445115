"""Every message of every push channel is what its Struct of `mpengine.contract.push` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.push import messages
from api.push.catalogue import channel_names, channels_of
from api.push.channels import Channel
from api.push.client import Client
from mpengine.contract import push
from tests.api.golden_world import fill, settings_in
from tests.api.push_rig import PLENTY, FakeLoop, Held, Owner
from tests.api.schema_check import faults
from tests.api.world import World, zone_row


class Rig:
    """A client of every channel of the golden world."""

    def __init__(self, world: World) -> None:
        app = world.app()
        app.context.sources.check()
        self.held, self.owner = Held(), Owner(now=world.clock.now_ms)
        self.client = Client(self.owner, self.held, PLENTY, FakeLoop())  # type: ignore[arg-type]
        self.channels: dict[str, Channel] = channels_of(app.context, app._health)

    def subscribe(self, position: tuple[int, int] | None = None) -> list[bytes]:
        for channel in self.channels.values():
            channel.refresh()
            self.client.subscribe(channel, position, binary=False)
        return self.flush()

    def refresh(self) -> list[bytes]:
        """What comes after the world has changed."""
        for channel in self.channels.values():
            if channel.refresh():
                for subscription in channel.subscribers:
                    subscription.client.notice(subscription)
        return self.flush()

    def flush(self) -> list[bytes]:
        self.owner.flush()
        found = [frame.payload for _, frame in self.held.frames]
        self.held.frames.clear()
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(settings_in(tmp_path))
    fill(found)
    yield found
    found.close()


@pytest.fixture
def rig(world: World) -> Rig:
    return Rig(world)


def data_of(payload: bytes) -> bytes:
    """`data` as it was written."""
    return payload[payload.index(b'"data":') + 7 : -1]


def check(payload: bytes) -> dict[str, Any]:
    """Assert that a message of a channel is as the contract says; the message."""
    message: dict[str, Any] = json.loads(payload)
    kinds = {"snapshot": push.DataMessage, "delta": push.DataMessage, "gap": push.GapMessage, "reset": push.ResetMessage}
    assert faults(payload, kinds[message["type"]]) == [], payload[:200]
    if message["type"] in ("snapshot", "delta"):
        structs = push.CHANNELS[message["ch"].partition(".")[0]]
        assert faults(data_of(payload), structs[-1 if message["type"] == "delta" else 0]) == [], payload[:300]
    return message


def test_every_channel_begins_with_its_snapshot(rig: Rig, world: World) -> None:
    found = {message["ch"]: message for message in map(check, rig.subscribe())}
    assert found.keys() >= {f"{kind}.BTC" for kind in push.CHANNELS if kind != "status"} | {"status"}
    assert found.keys() <= set(channel_names(world.settings))
    assert {message["type"] for message in found.values()} == {"snapshot"}
    assert len(found["depth.BTC"]["data"]["flags"]) == 0
    assert {zone["side"] for zone in found["zones.BTC"]["data"]["zones"]} == {"long", "short"}
    assert len(found["liquidations.BTC"]["data"]["items"]) == 3


def test_every_channel_goes_on_with_deltas(rig: Rig, world: World) -> None:
    first = {message["ch"]: message for message in map(check, rig.subscribe())}
    world.clock.advance(60)
    fill(world)
    world.add_zones([zone_row(weight=9.0)])
    later = [check(payload) for payload in rig.refresh()]
    changed = {message["ch"] for message in later if message["type"] == "delta"}
    assert changed >= {"depth.BTC", "liq.BTC", "liquidations.BTC", "zones.BTC", "candles.BTC", "book.BTC", "oi.BTC"}
    for message in later:
        if message["type"] == "delta" and message["ch"] == "depth.BTC":
            assert message["prev"] >= first["depth.BTC"]["seq"]
    (zones,) = (message for message in later if message["ch"] == "zones.BTC" and message["type"] == "delta")
    assert zones["data"]["removed"] and zones["data"]["count"] == 1


def test_reset_and_gap(rig: Rig) -> None:
    found = [check(payload) for payload in rig.subscribe((99, 5))]
    assert {message["type"] for message in found} == {"reset", "snapshot"}
    gap = messages.gap("depth.BTC", 7, 3, 9, "slow", 1)
    assert faults(gap.payload, push.GapMessage) == []


def test_beat_bye_ack_and_error(rig: Rig) -> None:
    rig.subscribe()
    rig.client.beat(5, b'{"binance":0.1,"bybit":null}')
    rig.client.close("restart", 1012, reconnect_in_ms=900)
    beat, bye = (frame.payload for _, frame in rig.held.frames)
    assert (faults(beat, push.Beat), faults(bye, push.Bye)) == ([], [])
    assert json.loads(beat)["heads"]["depth.BTC"] == [1, 2]
