"""Event ring with real processes: producer and consumer killed at random instants; nothing lost, nothing twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shm.event_ring import EventWriter, create_event_ring
from shm.layout import HEAD_WORD, event_ring_spec
from tests.shm.rig import Child, batches_between, state_hash, wait_until

pytestmark = pytest.mark.slow
Spawn = Callable[..., Child]
UNITS = 2048
SPEC = event_ring_spec("BTC", UNITS)
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
