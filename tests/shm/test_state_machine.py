"""Hypothesis drives writers and readers through attach, publish, read, kill at any store, power loss and repair, beside a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shm import layout
from shm.event_ring import EventReader, EventWriter
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import FileKind, FileSpec, event_ring_spec
from shm.words import Words
from tests.shm.rig import memory, oracle

SLOTS, STRIDE = 4, 4096
SPEC = FileSpec(FileKind.FRAMES, "depth", "BTC", SLOTS, STRIDE, 0, 1)
EVENTS = event_ring_spec("BTC", 32)


class Killed(BaseException):
    """The process is gone."""


class Mortal(Words):
    """Words of a process that dies at its k-th store; a slice copy may get through by half."""

    def __init__(self, buffer: bytearray) -> None:
        super().__init__(buffer)
        self.stores_left: int | None = None

    def store_release(self, index: int, value: int) -> None:
        self._step()
        super().store_release(index, value)

    def copy_in(self, offset: int, data: bytes) -> None:
        try:
            self._step()
        except Killed:
            super().copy_in(offset, data[: len(data) // 2])
            raise
        super().copy_in(offset, data)

    def _step(self) -> None:
        if self.stores_left is not None:
            if self.stores_left == 0:
                raise Killed
            self.stores_left -= 1


def dies(words: Mortal, stores: int, action: Callable[[], Any]) -> bool:
    """Run `action` in a process that dies before store number `stores`; False where it ended before that."""
    words.stores_left = stores
    try:
        action()
    except Killed:
        return True
    finally:
        words.stores_left = None
    return False


class FrameRingMachine(RuleBasedStateMachine):
    """Model: frames by number, and the lowest number that must still be there."""

    @initialize(head=st.sampled_from([0, 1, (1 << 32) - 3, (1 << 40) - 3]))
    def create(self, head: int) -> None:
        self.buffer = memory(SPEC)
        for word in (layout.HEAD_WORD, layout.INTENT_WORD):
            Words(self.buffer).store_release(word, head)
        self.model: dict[int, bytes] = {}
        self.epoch = 0
        self.next_no = head
        self.reader = FrameReader(Words(self.buffer), SPEC)
        self.attach()

    def attach(self) -> None:
        self.words = Mortal(self.buffer)
        self.writer = FrameWriter(self.words, SPEC)
        self.epoch += 1
        assert self.writer.epoch == self.epoch
        assert self.writer.next_no == self.next_no

    @rule(size=st.integers(0, SPEC.payload_bytes))
    def publish(self, size: int) -> None:
        payload = oracle(self.next_no * 7 + self.epoch, size)
        assert self.writer.publish(payload, ts_ns=1, kind=1) == self.next_no
        self.commit(payload)

    def commit(self, payload: bytes) -> None:
        self.model[self.next_no] = payload
        self.model.pop(self.next_no - SLOTS, None)
        self.next_no += 1

    @rule()
    def restart(self) -> None:
        self.attach()

    @rule(stores=st.integers(0, 8), size=st.integers(1, SPEC.payload_bytes))
    def kill_while_publishing(self, stores: int, size: int) -> None:
        """intent, odd stamp, body, digest | even stamp: committed | head, beat."""
        payload = oracle(self.next_no * 7 + self.epoch, size)
        dies(self.words, stores, lambda: self.writer.publish(payload, ts_ns=1, kind=1))
        if stores >= 5:
            self.commit(payload)
        elif stores >= 2:
            self.model.pop(self.next_no - SLOTS, None)
        self.attach()

    @rule(stores=st.integers(0, 20))
    def kill_while_attaching(self, stores: int) -> None:
        before = self.epoch
        words = Mortal(self.buffer)
        died = dies(words, stores, lambda: FrameWriter(words, SPEC))
        stored = Words(self.buffer).load_acquire(layout.EPOCH_WORD)
        assert stored in (before, before + 1)
        assert died or stored == before + 1
        self.epoch = stored
        self.attach()

    @rule(n=st.integers(0, SLOTS - 1), at=st.integers(0, 63))
    def damage(self, n: int, at: int) -> None:
        """A slot that lost a page while the machine was off."""
        number = self.next_no - 1 - n
        if self.model.pop(number, None) is not None:
            self.buffer[layout.HEADER_BYTES + number % SLOTS * STRIDE + at] ^= 0x40
        self.attach()

    @invariant()
    def readers_see_the_model(self) -> None:
        history = self.reader.history(self.next_no - SLOTS, self.next_no)
        assert {slot.frame_no: slot.payload for slot in history.slots} == self.model
        assert not set(history.missing) & set(self.model)
        assert self.reader.head() == self.next_no
        for number, payload in self.model.items():
            slot = self.reader.read(number)
            assert slot is not None
            assert slot.payload == payload
        latest = self.reader.latest()
        recent = [number for number in (self.next_no - 1, self.next_no - 2) if number in self.model]
        assert (latest.frame_no if latest else None) == (recent[0] if recent else None)


class EventRingMachine(RuleBasedStateMachine):
    """Model: the batches that were put and not yet released; the consumer may die and come back at any time."""

    @initialize(position=st.sampled_from([0, (1 << 32) - 9, (1 << 40) - 9]))
    def create(self, position: int) -> None:
        self.buffer = memory(EVENTS)
        for word in (layout.HEAD_WORD, layout.RELEASE_WORD):
            Words(self.buffer).store_release(word, position)
        self.unreleased: list[tuple[int, bytes]] = []
        self.read = 0
        self.seq = 0
        self.attach()
        self.reader = EventReader(Words(self.buffer), EVENTS)

    def attach(self) -> None:
        self.words = Mortal(self.buffer)
        self.writer = EventWriter(self.words, EVENTS)

    def body(self, units: int) -> bytes:
        return oracle(self.seq, units * 64)

    @rule(units=st.integers(0, 15))
    def put(self, units: int) -> None:
        dropped = self.writer.dropped_batches
        if self.writer.put(self.body(units), records=units, source=1, first_seq=self.seq):
            self.unreleased.append((self.seq, self.body(units)))
        else:
            assert self.writer.dropped_batches == dropped + 1
            assert self.unreleased, "an empty ring takes every batch that is not refused"
        self.seq += 1

    @rule(units=st.integers(0, 15), stores=st.integers(0, 8))
    def kill_the_producer_while_putting(self, units: int, stores: int) -> None:
        """Body, digest | stamp: committed | head, beat; before that the same for a pad."""
        body = self.body(units)
        dies(self.words, stores, lambda: self.writer.put(body, records=units, source=1, first_seq=self.seq))
        if self.committed()[-1:] == [(self.seq, body)]:
            self.unreleased.append((self.seq, body))
        before = self.committed()
        self.attach()
        assert self.committed() == before, "attaching again neither loses nor invents a batch"
        self.seq += 1

    def committed(self) -> list[tuple[int, bytes]]:
        """What a consumer that starts at `release` would read."""
        reader = EventReader(Words(bytearray(self.buffer)), EVENTS)
        return [(batch.first_seq, batch.body) for batch in iter(reader.get, None)]

    @rule()
    def get(self) -> None:
        batch = self.reader.get()
        if batch is None:
            assert self.read == len(self.unreleased)
        else:
            assert (batch.first_seq, batch.body) == self.unreleased[self.read]
            self.read += 1

    @rule()
    def checkpoint_and_release(self) -> None:
        self.reader.release(self.reader.position)
        del self.unreleased[: self.read]
        self.read = 0

    @rule()
    def kill_the_consumer(self) -> None:
        self.reader = EventReader(Words(self.buffer), EVENTS)
        self.read = 0

    @rule()
    def restart_the_producer(self) -> None:
        self.attach()

    @invariant()
    def everything_unreleased_is_still_there(self) -> None:
        assert self.committed() == self.unreleased
        assert 0 <= self.writer.fill() <= 1


TestFrameRing = FrameRingMachine.TestCase
TestFrameRing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestEventRing = EventRingMachine.TestCase
TestEventRing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
