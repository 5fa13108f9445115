"""Event ring with real processes: producer and consumer killed at random instants; nothing lost, nothing twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shm.event_ring import EventReader, EventWriter, create_event_ring
from shm.layout import HEAD_WORD, event_ring_spec
from shm.words import Words
from tests.shm.rig import Child, batch_body, batches_between, memory, state_hash, wait_until

pytestmark = pytest.mark.slow
Spawn = Callable[..., Child]
UNITS = 2048
SPEC = event_ring_spec("BTC", UNITS)
SHORT = event_ring_spec("BTC", 64)  # a pad every five batches or so
stress = pytest.mark.stress


class Run:
    """A producer and a consumer that are killed and started again; knows what the right end is."""

    def __init__(self, spawn: Spawn, place: Path, order: str) -> None:
        self.spawn, self.path, self.checkpoint, self.order = spawn, place / "events-BTC.ring", place / "checkpoint", order
        create_event_ring(self.path, SPEC)
        self.starts: list[int] = []
        self.start_producer()
        self.start_consumer()

    def start_producer(self) -> None:
        self.producer = self.spawn("producer", self.path, UNITS)
        _, epoch, head = self.producer.line().split()
        assert int(epoch) == len(self.starts) + 1
        self.starts.append(int(head))

    def start_consumer(self, until: int = 0) -> None:
        self.consumer = self.spawn("consumer", self.path, self.checkpoint, self.order, until)
        assert self.consumer.line().startswith("reading")

    def head(self) -> int:
        with self.path.open("rb") as file:
            file.seek(HEAD_WORD * 8)
            return int.from_bytes(file.read(8), "little")

    def disturb(self, rng: random.Random, producer_kills: int, consumer_kills: int) -> None:
        order = ["producer"] * producer_kills + ["consumer"] * consumer_kills
        rng.shuffle(order)
        for victim in order:
            before = self.head()
            wait_until(lambda at=before: self.head() > at + UNITS, "a lap")  # type: ignore[misc]
            time.sleep(rng.random() * 0.003)  # the random instant
            if victim == "producer":
                self.producer.kill()
                self.start_producer()
            else:
                self.consumer.kill()
                self.start_consumer()

    def finish(self) -> tuple[int, list[int]]:
        """(right state, [state, duplicates, holes, corrupt] of the consumer) when everything is read."""
        self.producer.kill()
        self.consumer.kill()
        with EventWriter.open(self.path, SPEC) as last:
            end = last.head
        self.start_consumer(until=end)
        state = 0
        for epoch, (begin, stop) in enumerate(zip(self.starts, [*self.starts[1:], end]), start=1):
            state = state_hash(batches_between(begin, stop, UNITS, epoch), state)
        return state, [int(word) for word in self.consumer.line().split()]


@pytest.mark.timeout(600)
@pytest.mark.covers("F1", "F2")
@pytest.mark.parametrize("kills", [8, pytest.param(64, marks=stress)])
def test_producer_and_consumer_killed_at_any_instant(spawn: Spawn, place: Path, kills: int) -> None:
    run = Run(spawn, place, "after")
    run.disturb(random.Random(kills), kills, kills)
    right, (state, duplicates, holes, corrupt) = run.finish()
    print(f"{kills} + {kills} kills, {run.head()} units: {duplicates} duplicates removed, {holes} holes, {corrupt} corrupt")
    assert (holes, corrupt) == (0, 0)
    assert duplicates > 0, "no consumer had to read anything again: the test has lost its power"
    assert state == right


def test_the_control_that_releases_before_the_checkpoint_has_holes(spawn: Spawn, tmpfs: Path) -> None:
    run = Run(spawn, tmpfs, "early")
    run.disturb(random.Random(9), 0, 6)
    right, (state, _, holes, _) = run.finish()
    print(f"6 consumer kills, released before the checkpoint: {holes} holes")
    assert holes > 0
    assert state != right


def test_a_producer_against_a_stopped_consumer_returns_and_counts(tmpfs: Path) -> None:
    """Never waits: with nobody reading, every further put is refused and counted, whatever the number of calls."""
    path = tmpfs / "events-BTC.ring"
    create_event_ring(path, SPEC)
    with EventWriter.open(path, SPEC) as writer:
        taken = sum(writer.put(bytes(640), records=10, source=1, first_seq=n) for n in range(20_000))
        assert taken == UNITS // 11
        assert writer.dropped_batches == 20_000 - taken
        assert writer.dropped_records == 10 * writer.dropped_batches
        assert writer.gaps == 1


class Dies(BaseException):
    """Stands for a SIGKILL: nothing of ours catches it."""


class Mortal(Words):
    """A writer's memory that is cut off before its store number `stores` + 1; what was stored stays, as in a shared file."""

    def __init__(self, buffer: bytearray) -> None:
        super().__init__(buffer)
        self.stores = -1

    def store_release(self, index: int, value: int) -> None:
        self._count()
        super().store_release(index, value)

    def copy_in(self, offset: int, data: bytes) -> None:
        self._count()
        super().copy_in(offset, data)

    def _count(self) -> None:
        if self.stores == 0:
            raise Dies
        self.stores -= 1


@pytest.mark.covers("F1")
@pytest.mark.parametrize("stores", range(8))
def test_a_producer_that_dies_at_any_store_of_a_put_over_the_end(stores: int) -> None:
    """Pad (body, digest, stamp), batch (the same), head, beat: the ring ends before the pad, behind it or behind the batch.

    A pad alone is committed and harmless: the next producer goes on at the lap, and the consumer gets every batch once.
    """
    buffer = memory(SHORT)
    words = Mortal(buffer)
    writer, reader = EventWriter(words, SHORT), EventReader(Words(buffer), SHORT)
    seq = 0
    while 64 - writer.head % 64 >= len(body := batch_body(1, seq)) // 64 + 1:
        assert writer.put(body, records=1, source=1, first_seq=seq)
        seq += 1
        while batch := reader.get():
            assert batch.body == batch_body(1, batch.first_seq)
            reader.release(batch.end)
    before = writer.head
    words.stores = stores
    with pytest.raises(Dies):
        writer.put(body, records=1, source=1, first_seq=seq)
    again = EventWriter(Words(buffer), SHORT)
    behind = 64 + len(body) // 64 + 1
    assert again.head == [before, before, before, 64, 64, 64, behind, behind][stores], "what is stamped is committed"
    truth = list(batches_between(0, again.head, 64, 1))
    assert len(truth) == seq + (again.head == behind), "the rig's truth is the ring's"
    assert again.put(batch_body(2, 0), records=1, source=1, first_seq=0)
    rest = [(batch.epoch, batch.first_seq, batch.body) for batch in iter(reader.get, None)]
    assert rest == [*truth[seq:], (2, 0, batch_body(2, 0))]
