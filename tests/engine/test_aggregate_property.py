"""The aggregate from records to frames against a naive model, whatever the venues' feeds suffer; and restarts that change nothing.

Three venues chain their diffs, one sends whole books only. Their messages are lost, repeated, swapped, cut by gaps, or stay away
for seconds or for more than a minute. The model knows no book: it follows at which id each can be whole, and takes
the levels from the venue's own history.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.config import load
from mpengine.engine.core import SymbolCore
from mpengine.engine.depth_frames import SLOT_NS
from mpengine.engine.storage import state_digest
from shm.frames import Frame
from shm.records import Coverage, EventFlag, Kind, Venue
from tests.engine.events import SECOND, T0, Levels, clock, depth, gap, ns
from tests.engine.test_core import frames, published, split

MID = 1_000_000  # ticks of 0.1
STEP = 20.0
CHAINED = (Venue.BYBIT, Venue.OKX)
ON = tuple(f"venues.{name}.{what}=true" for name in ("bybit", "okx", "hyperliquid") for what in ("enabled", "order_book"))
STALE_NS = 60 * SECOND

Side = dict[int, float]
Message = tuple[int, int, bytes]  # previous id, id, record


def core() -> SymbolCore:
    return SymbolCore("BTC", load("[symbols.BTC]\n", {}, ON))


@dataclass
class Source:
    """A venue: its book in ticks, every state by id, the messages it sends."""

    venue: Venue
    rng: random.Random
    last: int = 100
    sides: tuple[Side, Side] = field(default_factory=lambda: ({}, {}))
    history: dict[int, tuple[Side, Side]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for away in range(1, 400, 7):
            self.sides[0][MID - away], self.sides[1][MID + away] = float(1 + away % 3), float(1 + away % 5)
        self._remember()

    def _remember(self) -> None:
        self.history[self.last] = (dict(self.sides[0]), dict(self.sides[1]))

    def _levels(self, side: Side) -> Levels:
        return [(tick / 10, qty) for tick, qty in side.items()]

    def step(self, at: float) -> Message:
        """The book changes by a few levels; the touch stays."""
        touched: tuple[Side, Side] = ({}, {})
        for _ in range(self.rng.randint(1, 4)):
            which, away = self.rng.randint(0, 1), self.rng.randint(2, 2000)
            tick, qty = MID + (away if which else -away), self.rng.choice((0.0, 0.5, 2.0, 8.0))
            touched[which][tick] = qty
            self.sides[which].pop(tick, None)
            if qty:
                self.sides[which][tick] = qty
        previous, self.last = self.last, self.last + 1
        self._remember()
        bids, asks = self._levels(touched[0]), self._levels(touched[1])
        return previous, self.last, depth(at, self.last, self.last, previous, bids, asks, venue=self.venue)

    def whole(self, at: float, kind: Kind = Kind.SNAPSHOT) -> Message:
        bids, asks = self._levels(self.sides[0]), self._levels(self.sides[1])
        return -1, self.last, depth(at, self.last, self.last, 0, bids, asks, kind, self.venue)


@dataclass
class View:
    """At which id the model holds a venue's book to be whole; None: not."""

    at: int | None = None
    updated_ns: int = 0
    broken: bool = False

    def take(self, message: Message, now_ns: int) -> None:
        previous, last, _ = message
        if previous == -1 or (self.at is not None and previous == self.at):
            self.at, self.updated_ns = last, now_ns
        elif self.at is not None and last != self.at:
            self.lose()

    def lose(self) -> None:
        self.broken |= self.at is not None
        self.at = None

    def watch(self, now_ns: int) -> None:
        if now_ns - self.updated_ns > STALE_NS:
            self.lose()


class World:
    """The venues, what arrives of them, and the model. `run` gives the records of one second."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.sources = {venue: Source(venue, self.rng) for venue in (Venue.BINANCE, *CHAINED, Venue.HYPERLIQUID)}
        self.views = {venue: View() for venue in self.sources}
        self.silent_until = dict.fromkeys(self.sources, 0)
        self.samples: dict[int, dict[Venue, list[tuple[Side, Side]]]] = defaultdict(lambda: defaultdict(list))
        self.counted: dict[int, int] = defaultdict(int)
        self.stale: dict[int, bool] = defaultdict(bool)
        self.gap: dict[int, bool] = defaultdict(bool)

    def run(self, second: int) -> list[bytes]:
        """Second 1 is the first; its records end with the clock tick of the second after it."""
        records: list[bytes] = []
        for venue, source in self.sources.items():
            records += self._binance(source, second) if venue is Venue.BINANCE else self._faulty(venue, source, second)
        self._sample(second + 1)
        return [*records, clock(second + 1)]

    def _binance(self, source: Source, second: int) -> list[bytes]:
        """The venue whose own faults have tests of their own: here it is only switched on late and silent at times."""
        view, at, begin = self.views[source.venue], second + 0.1, self.rng.random() < 0.3
        if view.at is None:
            if not begin:
                return []
            # The first diff bridges the snapshot; all levels are inside of what it covers.
            snapshot, first = source.whole(at), source.step(at + 0.1)
            view.take((-1, first[1], b""), ns(at + 0.1))
            return [snapshot[2], first[2]]
        if self._silent(source.venue, second):
            return []
        message = source.step(at)
        view.take(message, ns(at))
        return [message[2]]

    def _silent(self, venue: Venue, second: int) -> bool:
        if second < self.silent_until[venue]:
            return True
        if self.rng.random() < 0.02:
            self.silent_until[venue] = second + self.rng.choice((3, 8, 20, 70))
            return True
        return False

    def _faulty(self, venue: Venue, source: Source, second: int) -> list[bytes]:
        view, at = self.views[venue], second + 0.1 * venue
        if self._silent(venue, second):
            return []
        if self.rng.random() < 0.02:
            view.lose()
            return [gap(at, venue=venue)]
        if venue is Venue.HYPERLIQUID:
            source.step(at)
            messages = [source.whole(at)] if self.rng.random() < 0.8 else []
        else:
            sent = [source.step(at) for _ in range(self.rng.randint(1, 4))]
            messages = self._channel(sent)
            if view.at is None or self.rng.random() < 0.02:
                messages += [source.whole(at)] if self.rng.random() < 0.3 else []
        for message in messages:
            view.take(message, ns(at))
        return [record for _, _, record in messages]

    def _channel(self, sent: list[Message]) -> list[Message]:
        dice = self.rng.random()
        if dice < 0.02:
            sent = sent[:-1]
        elif dice < 0.04:
            sent = sent[::-1]
        elif dice < 0.10:
            sent = [*sent, sent[-1]]
        elif dice < 0.12:
            sent = [*sent, sent[0]]
        return sent

    def _sample(self, second: int) -> None:
        slot, anybody = (second - 1) // 30, False
        for venue, view in self.views.items():
            view.watch(ns(second))
            self.gap[slot] |= view.broken
            view.broken = False
            if view.at is None:
                self.stale[slot] = True
                continue
            self.samples[slot][venue].append(self.sources[venue].history[view.at])
            anybody = True
        self.counted[slot] += anybody

    def wanted(self, slot: int) -> tuple[int, int, tuple[dict[int, float], dict[int, float]]] | None:
        """(samples, venue bits, USD by bucket of both sides) of a slot's frame; None where there is none."""
        inside = {venue: seen for venue, seen in self.samples[slot].items() if 2 * len(seen) >= self.counted[slot]}
        if not inside:
            return None
        planes: tuple[dict[int, float], dict[int, float]] = (defaultdict(float), defaultdict(float))
        for seen in inside.values():
            for sides, (plane, which) in itertools.product(seen, zip(planes, (0, 1))):
                for tick, qty in sides[which].items():
                    plane[round(tick / 10 / STEP)] += tick / 10 * qty / len(seen)
        return self.counted[slot], sum(venue.bit for venue in inside), planes


def check(frame: Frame, world: World) -> None:
    slot = (frame.open_ts_ns - T0) // SLOT_NS
    wanted = world.wanted(slot)
    assert wanted is not None, "a frame of nothing"
    samples, venues, planes = wanted
    assert (frame.samples, frame.venues) == (samples, venues)
    for plane, usd in zip(frame.planes, planes):
        expected = np.zeros(frame.count)
        for bucket, value in usd.items():
            expected[bucket - frame.origin] = value
        np.testing.assert_allclose(plane, expected, rtol=1e-9, atol=1e-6)
    if world.stale[slot]:
        assert frame.coverage & Coverage.STALE_SOURCE
    if world.gap[slot]:
        assert frame.coverage & Coverage.GAP


def drive(seed: int, seconds: int) -> tuple[World, list[list[bytes]]]:
    world = World(seed)
    return world, [[clock(1)], *(world.run(second) for second in range(1, seconds))]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 149))
def test_frames_are_the_naive_models_and_a_restart_at_any_second_changes_nothing(seed: int, cut: int) -> None:
    frames_are_the_models(seed, cut)


@pytest.mark.stress
@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 149))
def test_frames_are_the_naive_models_in_the_long_form(seed: int, cut: int) -> None:
    frames_are_the_models(seed, cut)


def frames_are_the_models(seed: int, cut: int) -> None:
    world, stream = drive(seed, 150)
    whole, stopped = core(), core()
    made: list[Any] = []
    before: list[bytes] = []
    for second, records in enumerate(stream):
        whole.on_batch(b"".join(records))
        made += whole.outputs()
        if second == cut:
            saved = msgspec.msgpack.decode(msgspec.msgpack.encode(stopped.state_of()))
            stopped = core()
            stopped.restore(saved)
        for record in records:  # and the size of batches is another one
            stopped.on_batch(record)
        before += published(stopped.outputs())
    assert before == published(made)
    assert state_digest(stopped.state_of()) == state_digest(whole.state_of())
    assert whole.counters["errors"] == whole.counters["refused"] == 0
    found = frames(made)
    last = (150 - 1) // 30
    slots = [slot for slot in range(last + 1) if 30 * (slot + 1) <= 150 and world.wanted(slot) is not None]
    assert [(frame.open_ts_ns - T0) // SLOT_NS for frame in found] == slots
    for frame in found:
        check(frame, world)


def test_the_faults_that_the_model_is_about_do_happen() -> None:
    """Otherwise the test above shows little: venues drop out, are left out of frames, and come back."""
    left_out = broken = whole = 0
    for seed in range(8):
        world, _ = drive(seed, 150)
        for slot in range(5):
            wanted = world.wanted(slot)
            present = sum(venue.bit for venue in world.samples[slot])
            left_out += wanted is not None and wanted[1] != present
            whole += wanted is not None and wanted[1] == sum(venue.bit for venue in world.sources)
            broken += world.gap[slot]
    assert min(left_out, broken, whole) > 3, (left_out, broken, whole)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_stream_twice_gives_the_same_state_and_bytes(seed: int) -> None:
    _, stream = drive(seed, 120)
    records = b"".join(itertools.chain.from_iterable(stream))
    results = []
    for body in (records, b"".join(split(records))):
        one = core()
        one.on_batch(body)
        results.append((published(one.outputs()), state_digest(one.state_of())))
    assert results[0] == results[1]
    other = core()
    other.on_batch(b"".join(split(records)[:-40]))
    assert state_digest(other.state_of()) != results[0][1]


def test_a_polled_snapshot_reaches_the_frames() -> None:
    """As OKX's comes when the subscription brings none: behind diffs that it overlaps."""
    source = Source(Venue.OKX, random.Random(1))
    one = core()
    one.on_batch(clock(0.1) + source.step(0.2)[2] + source.step(0.3)[2])
    polled = depth(0.6, 0, source.last - 1, 0, source._levels(source.history[source.last - 1][0]),
                   source._levels(source.history[source.last - 1][1]), Kind.SNAPSHOT, Venue.OKX)  # fmt: skip
    one.on_batch(polled[:3] + bytes([EventFlag.JOIN]) + polled[4:])
    assert one.books[Venue.OKX].state == "synced"
    one.on_batch(b"".join(clock(second) for second in range(1, 31)))
    (frame,) = frames(one.outputs())
    assert (frame.venues, frame.samples) == (Venue.OKX.bit, 30)
    assert frame.total_a == pytest.approx(sum(tick / 10 * qty for tick, qty in source.sides[0].items()))
