"""What a client is sent, and when: budget, waiting, the end of one that does not read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.streams import StreamReader

from api.push import messages
from api.push.channels import Channel, Position, Step
from api.push.client import ROUND, Client
from api.push.messages import Message, framed
from tests.api.push_rig import PLENTY, FakeLoop, Follower, Held, Owner


class Numbers(Channel):
    """Messages 0, 1, 2, ... of `size` bytes of data each."""

    def __init__(self, name: str = "depth.BTC", size: int = 1000) -> None:
        super().__init__(name, 3)
        self.last = -1
        self.size = size

    def refresh(self) -> bool:
        self.last += 1
        return True

    @property
    def head(self) -> Position | None:
        return None if self.last < 0 else (1, self.last)

    def waiting(self, position: Position) -> int:
        return (self.last - position[1]) * self.size

    def next(self, position: Position | None, *, newest: bool) -> Step | None:
        if position == self.head or self.last < 0:
            return None
        after = self.last - 1 if position is None or newest else position[1]
        data = json.dumps("x" * (self.size - 2)).encode()
        message = Message(self.name, (1, after + 1), after, ts_ms=0, stale_after_ms=1 << 60, delta=lambda: data)
        lost = None if position is None or position[1] == after else (position[1], after, "slow")
        return Step(message, snapshot=position is None, gap=lost, skipped=0 if lost is None else after - lost[0])


class Rig:
    def __init__(self, **budget: Any) -> None:
        self.owner, self.held, self.loop = Owner(), Held(), FakeLoop()
        self.client = Client(self.owner, self.held, replace(PLENTY, **budget), self.loop)  # type: ignore[arg-type]
        self.channel = Numbers()
        self.channel.refresh()

    def subscribe(self, position: Position | None = None) -> None:
        self.client.subscribe(self.channel, position, binary=False)
        self.owner.flush()

    def publish(self, count: int = 1) -> None:
        for _ in range(count):
            self.channel.refresh()
            for one in self.channel.subscribers:
                one.client.notice(one)
            self.owner.flush()

    def numbers(self) -> list[int]:
        return [message["seq"] for message in self.held.take() if message["type"] in ("snapshot", "delta")]


def test_everything_within_the_budget_comes_at_once() -> None:
    rig = Rig()
    rig.subscribe()
    rig.publish(20)
    assert rig.numbers() == list(range(21))


def test_beyond_the_burst_it_comes_as_the_budget_allows() -> None:
    """Nothing is lost while what waits fits the queue."""
    rig = Rig(bytes_per_s=1000.0, burst=5000, queue=100_000)
    rig.subscribe()
    rig.publish(20)
    first = rig.numbers()
    assert first == list(range(len(first))) and 4 <= len(first) <= 6
    rig.loop.advance(3.0)
    rig.owner.flush()
    then = rig.numbers()
    assert then == list(range(len(first), len(first) + len(then))) and 1 <= len(then) <= 3
    for _ in range(60):
        rig.loop.advance(1.0)
        rig.owner.flush()
    assert first + then + rig.numbers() == list(range(21))


def test_more_than_the_queue_may_hold_is_left_out_and_named() -> None:
    rig = Rig(bytes_per_s=1000.0, burst=2000, queue=5000)
    rig.subscribe()
    rig.publish(50)
    rig.loop.advance(100.0)
    rig.owner.flush()
    follower = Follower()
    for message in rig.held.take():
        follower.accept(message)
    assert follower.got[-1] == (1, 50)
    named = {number for low, high in follower.missed for number in range(low, high + 1)}
    assert named | {number for _, number in follower.got} == set(range(51))
    assert rig.client.conflated == rig.owner.left_out == len(named)


def test_a_message_larger_than_the_burst_comes_all_the_same() -> None:
    rig = Rig(bytes_per_s=1000.0, burst=2000)
    rig.channel.size = 50_000
    rig.subscribe()
    assert rig.numbers() == [0]
    rig.publish()
    assert rig.numbers() == []
    rig.loop.advance(60.0)
    rig.owner.flush()
    assert rig.numbers() == [1]


def test_one_client_does_not_keep_the_others_waiting() -> None:
    rig = Rig()
    rig.channel.last = 5 * ROUND
    rig.client.subscribe(rig.channel, (1, 0), binary=False)
    rig.owner.marked.clear()
    rig.client.flush()
    assert len(rig.held.frames) == ROUND
    assert rig.client in rig.owner.marked  # its turn comes again
    rig.owner.flush()
    assert rig.numbers() == list(range(1, 5 * ROUND + 1))


def test_nothing_is_written_to_a_full_connection_but_all_of_it_follows() -> None:
    rig = Rig()
    rig.subscribe()
    rig.held.paused = True
    rig.publish(3)
    rig.client.beat(0, b"{}")
    assert rig.numbers() == [0]
    rig.held.paused = False
    rig.client.writable()
    rig.owner.flush()
    assert rig.numbers() == [1, 2, 3]


def test_who_takes_nothing_for_too_long_is_given_up() -> None:
    rig = Rig(stall_s=10.0)
    rig.subscribe()
    assert not rig.client.stalled()
    rig.held.paused = True
    rig.publish()
    assert not rig.client.stalled()
    rig.loop.advance(9.0)
    assert not rig.client.stalled()
    rig.held.paused = False  # it took something
    rig.client.writable()
    rig.held.paused = True
    rig.publish()
    rig.loop.advance(9.0)
    assert not rig.client.stalled()
    rig.loop.advance(10.0)
    assert rig.client.stalled()
    rig.client.close("slow", 1013)
    assert (rig.held.ended, rig.client.reason) == ([1013], "slow")


def test_who_has_nothing_to_get_may_be_silent() -> None:
    rig = Rig(stall_s=10.0)
    rig.subscribe()
    rig.held.paused = True
    for _ in range(5):
        assert not rig.client.stalled()
        rig.loop.advance(30.0)


def test_bye_is_said_once_and_nothing_after_it() -> None:
    rig = Rig()
    rig.subscribe()
    rig.client.close("restart", 1012, reconnect_in_ms=900)
    rig.client.close("slow", 1013)
    rig.publish()
    rig.client.beat(0, b"{}")
    messages_sent = rig.held.take()
    assert [message["type"] for message in messages_sent] == ["snapshot", "bye"]
    assert messages_sent[-1] == {"type": "bye", "reason": "restart", "reconnect_in_ms": 900}
    assert rig.held.ended == [1012]


def test_a_client_that_is_gone_follows_nothing() -> None:
    rig = Rig(bytes_per_s=1000.0, burst=1500)
    rig.subscribe()
    rig.publish(5)
    assert rig.loop.timers
    rig.client.forget()
    assert (rig.channel.subscribers, rig.client.subscriptions, rig.loop.timers) == ({}, {}, [])


def test_a_beat_tells_the_heads_of_the_clients_channels() -> None:
    rig = Rig()
    rig.subscribe()
    other = Numbers("liq.ETH")
    rig.client.subscribe(other, None, binary=False)
    rig.held.take()
    rig.client.beat(77, b'{"binance":0.3}')
    (beat,) = rig.held.take()
    assert beat == {"type": "beat", "now_ms": 77, "heads": {"depth.BTC": [1, 0]}, "exchanges": {"binance": 0.3}, "conflated": 0}


def test_a_message_is_encoded_once_for_all() -> None:
    made = []

    def data() -> bytes:
        made.append(1)
        return b"{}"

    message = Message("depth.BTC", (1, 5), 4, ts_ms=9, stale_after_ms=100, delta=data)
    assert message.json(snapshot=False, now_ms=0) is message.json(snapshot=False, now_ms=50)
    assert message.json(snapshot=False, now_ms=0).framed is message.json(snapshot=False, now_ms=0).framed
    forms = [message.json(snapshot=snapshot, now_ms=now).payload for snapshot in (False, True) for now in (0, 101)]
    assert len(set(forms)) == 4
    assert made == [1]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("binary", [False, True])
def test_frames_are_those_of_the_protocol(size: int, binary: bool) -> None:
    """Read back by the library's own parser."""
    payload = b"x" * size
    stream = StreamReader()
    stream.feed_data(framed(payload, binary=binary))
    stream.feed_eof()
    parser = WireFrame.parse(stream.read_exact, mask=False)
    try:
        while True:
            next(parser)
    except StopIteration as stop:
        frame = stop.value
    assert (frame.fin, frame.opcode, bytes(frame.data)) == (True, Opcode.BINARY if binary else Opcode.TEXT, payload)
    assert stream.at_eof


def test_a_gap_ends_where_the_next_message_begins() -> None:
    gap = json.loads(messages.gap("depth.BTC", 7, 10, 14, "slow", 99).payload)
    assert gap == {
        "ch": "depth.BTC", "type": "gap", "epoch": 7, "seq": 14, "prev": 10, "ts_ms": 99, "stale": False,
        "data": {"from": 11, "to": 14, "reason": "slow"},
    }  # fmt: skip
