"""Frames of the aggregated book: each venue's own average, all of it or nothing of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.engine.book import Book
from mpengine.engine.depth_frames import SLOT_NS, DepthFrames
from shm.frames import Frame
from shm.records import Coverage, Venue

SECOND = 1_000_000_000
STEP = 10.0


@dataclass
class Stub:
    """What DepthFrames asks of a book: USD of bucket 100 (bid) and 101 (ask) while `there`."""

    usd: float
    there: bool = True
    last_venue_ns: int = 0
    refreshing: bool = False
    partial: bool = False
    ladder: Any = field(init=False)

    def __post_init__(self) -> None:
        self.ladder = self

    def counts_at(self, now_ns: int) -> bool:
        return self.there

    def fresh_at(self, now_ns: int) -> bool:
        return True

    def usd_by_bucket(self, step: float) -> tuple[int, Any, Any]:
        return 100, np.array([self.usd, 0.0]), np.array([0.0, 2 * self.usd])


def run(frames: DepthFrames, books: dict[Venue, Stub], seconds: range) -> list[Frame]:
    made = []
    for second in seconds:
        pairs = cast("list[tuple[Venue, Book]]", list(books.items()))
        made += frames.on_second(second * SECOND, pairs, 1005.0, Coverage.NONE)
    return made


def cells(frame: Frame) -> tuple[float, float]:
    return float(frame.planes[0, 100 - frame.origin]), float(frame.planes[1, 101 - frame.origin])


def books(binance: float = 100.0, bybit: float = 40.0, okx: float = 7.0) -> dict[Venue, Stub]:
    return {Venue.BINANCE: Stub(binance), Venue.BYBIT: Stub(bybit), Venue.OKX: Stub(okx)}


def test_the_aggregate_is_the_sum_of_the_venues() -> None:
    frames = DepthFrames(STEP, 0.1)
    (frame,) = run(frames, books(), range(1, 31))
    assert cells(frame) == (147.0, 294.0)
    assert frame.venues == Venue.BINANCE.bit | Venue.BYBIT.bit | Venue.OKX.bit
    assert (frame.samples, frame.coverage) == (30, Coverage.NONE)
    assert frames.venue_samples == {Venue.BINANCE: 30, Venue.BYBIT: 30, Venue.OKX: 30}


@pytest.mark.parametrize(("present", "counted"), [(30, True), (15, True), (14, False), (1, False), (0, False)])
def test_a_venue_is_in_a_frame_whole_or_not_at_all(present: int, counted: bool) -> None:
    frames, some = DepthFrames(STEP, 0.1), books()
    made = run(frames, some, range(1, present + 1))
    some[Venue.BYBIT].there = False
    made += run(frames, some, range(present + 1, 31))
    (frame,) = made
    assert cells(frame) == ((147.0, 294.0) if counted else (107.0, 214.0)), "a wall is where it was, or its venue is missing"
    assert bool(frame.venues & Venue.BYBIT.bit) is counted
    assert bool(frame.coverage & Coverage.STALE_SOURCE) is (present < 30)
    assert frames.venue_samples.get(Venue.BYBIT, 0) == present


def test_the_slot_after_the_outage_has_the_others_undiluted() -> None:
    frames, some = DepthFrames(STEP, 0.1), books()
    run(frames, some, range(1, 31))
    some[Venue.BINANCE].there = False
    (frame,) = run(frames, some, range(31, 61))
    assert (cells(frame), frame.venues) == ((47.0, 94.0), Venue.BYBIT.bit | Venue.OKX.bit)


def test_nobody_there_is_no_frame() -> None:
    frames, some = DepthFrames(STEP, 0.1), books()
    for one in some.values():
        one.there = False
    assert run(frames, some, range(1, 31)) == []
    assert frames.empty_slots == 1


def test_venues_that_take_turns_are_no_frame_of_zeros() -> None:
    frames, some = DepthFrames(STEP, 0.1), books()
    venues, made = list(some), []
    for second in range(1, 31):
        for at, venue in enumerate(venues):
            some[venue].there = (second - 1) // 10 == at
        made += run(frames, some, range(second, second + 1))
    assert (made, frames.empty_slots) == ([], 1)
    assert frames.venue_samples == dict.fromkeys(venues, 10)


def test_a_jump_over_whole_slots_leaves_nobody_samples_in_the_last() -> None:
    frames, some = DepthFrames(STEP, 0.1), books()
    run(frames, some, range(1, 21))
    (frame,) = run(frames, some, range(95, 96))
    assert (frame.open_ts_ns, frame.samples, frames.empty_slots, frames.venue_samples) == (0, 20, 2, {})


PRESENCE = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans(), st.floats(1.0, 1e6)), min_size=30, max_size=90)


@settings(max_examples=60, deadline=None)
@given(PRESENCE, st.integers(0, 89))
def test_frames_equal_a_naive_model_and_survive_a_restart(steps: list[tuple[bool, bool, bool, float]], restart_at: int) -> None:
    frames, some = DepthFrames(STEP, 0.1), books()
    venues = list(some)
    made: list[Frame] = []
    seen: dict[int, dict[Venue, list[float]]] = defaultdict(lambda: defaultdict(list))
    for at, (*there, usd) in enumerate(steps):
        if at == restart_at:
            state = msgspec.msgpack.decode(msgspec.msgpack.encode(frames.state_of()))
            frames = DepthFrames(STEP, 0.1)
            frames.restore(state)
        for venue, present in zip(venues, there, strict=True):
            some[venue].there, some[venue].usd = present, usd
            if present:
                seen[at // 30][venue].append(usd)
        made += run(frames, some, range(at + 1, at + 2))
    wanted = []
    for slot in range(len(steps) // 30):
        counted = sum(any(step[:3]) for step in steps[slot * 30 : slot * 30 + 30])
        inside = {venue: values for venue, values in seen[slot].items() if 2 * len(values) >= counted}
        if inside:
            wanted.append((slot, counted, sum(venue.bit for venue in inside), sum(np.mean(values) for values in inside.values())))
    assert [(frame.open_ts_ns // SLOT_NS, frame.samples, frame.venues) for frame in made] == [row[:3] for row in wanted]
    for frame, row in zip(made, wanted, strict=True):
        assert cells(frame)[0] == pytest.approx(row[3], rel=1e-12)
