"""What docs/memory-model.md claims: a weak machine enumerated to the last interleaving, and the real code on reordered stores."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from shm import layout
from shm.event_ring import EventReader, EventWriter
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import FileKind, FileSpec, event_ring_spec
from shm.words import Words
from tests.shm.litmus import Before, Process, acquire, outcomes, program_order, release, with_lock
from tests.shm.rig import WeakStores, memory, oracle

# One slot, written twice over its zeros: odd stamp, two words of payload, even stamp; and the seqlock reader of it.
WRITER = Process((("stamp", 1), ("a", 1), ("b", 1), ("stamp", 2), ("stamp", 3), ("a", 2), ("b", 2), ("stamp", 4)))
READER = Process(("stamp", "a", "b", "stamp"))
NOTHING: Before = frozenset()
RELEASE_EVEN, AFTER_ODD = release([3, 7]), acquire([0, 4], 8)
ACQUIRE_FIRST, BEFORE_LAST = acquire([0], 4), release([3])


def accepted_wrong(writer: Process, reader: Process) -> int:
    """Outcomes that a stamp-only reader accepts although the payload is not the one of its stamp."""
    seen = outcomes(writer, reader)
    return sum(first == last and first % 2 == 0 and not a == b == first // 2 for first, a, b, last in seen)


@pytest.mark.parametrize(
    ("writer", "reader", "expected", "why"),
    [
        (NOTHING, NOTHING, 24, "plain: every wrong combination can happen"),
        (RELEASE_EVEN, ACQUIRE_FIRST, 11, "one-sided: release of the even stamp, acquire of the first load; the textbook pair"),
        (AFTER_ODD, BEFORE_LAST, 11, "one-sided: the other two fences alone"),
        (RELEASE_EVEN | AFTER_ODD, ACQUIRE_FIRST, 11, "one-sided: all of the writer, half of the reader"),
        (RELEASE_EVEN, ACQUIRE_FIRST | BEFORE_LAST, 11, "one-sided: all of the reader, half of the writer"),
        (RELEASE_EVEN | AFTER_ODD, NOTHING, 24, "a perfect writer does not help a plain reader"),
        (NOTHING, ACQUIRE_FIRST | BEFORE_LAST, 24, "a perfect reader does not help a plain writer"),
        (RELEASE_EVEN | AFTER_ODD, ACQUIRE_FIRST | BEFORE_LAST, 0, "the full release and acquire protocol"),
        (program_order(8), program_order(4), 0, "x86-64: the plain code is the right code"),
    ],
)
def test_outcomes_of_a_stamp_only_reader(writer: Before, reader: Before, expected: int, why: str) -> None:
    assert accepted_wrong(WRITER.ordered(writer), READER.ordered(reader)) == expected, why


@pytest.mark.parametrize(
    ("writer_fences", "reader_fences", "reader_inside", "expected"),
    [
        ((1, 3, 5, 7), (1, 3), (), 24),  # an empty critical section where the fences belong: nothing is gained
        ((1, 3, 5, 7), (1, 3), (0,), 19),  # and the first load of the reader under the lock
        (range(8), range(4), (), 18),  # an empty critical section before every access
    ],
)
def test_a_lock_is_no_fence(
    writer_fences: Sequence[int], reader_fences: Sequence[int], reader_inside: Sequence[int], expected: int
) -> None:
    writer, reader = with_lock(WRITER, writer_fences), with_lock(READER, reader_fences, reader_inside)
    assert accepted_wrong(writer, reader) == expected


def test_a_reader_that_judges_a_digest_of_its_copy_needs_no_order_at_all() -> None:
    """Plain accesses on both sides; `seal` stands for a digest: a value that only one payload of one frame has."""
    once = [("stamp", 1), ("a", 1), ("b", 1), ("seal", 111), ("stamp", 2)]
    twice = [("stamp", 3), ("a", 2), ("b", 2), ("seal", 222), ("stamp", 4)]
    seen = outcomes(Process((*once, *twice)), Process(("stamp", "a", "b", "seal", "stamp")))
    by_stamp = [outcome for outcome in seen if outcome[0] == outcome[4] and outcome[0] % 2 == 0]
    judged = [(first, a, b) for first, a, b, seal, _ in by_stamp if seal == first // 2 * 111 == a * 111 == b * 111]
    assert len(by_stamp) > len(judged), "without the digest there is something to refuse"
    assert all(a == b == first // 2 for first, a, b in judged)
    assert {first for first, _, _ in judged} == {0, 2, 4}, "and right frames do get through"


def test_releasing_after_the_loads_needs_the_control_dependency() -> None:
    """Event ring: the producer overwrites a unit only after it has seen the release of it.

    The consumer stores `release` after a digest over loaded bytes: load to store by control, which aarch64 keeps. Without such
    a dependency the store may go first, and the load sees the overwritten unit.
    """
    producer = Process(("release", ("unit", 2)), program_order(2))  # its store depends on its load, too
    consumer = Process(("unit", ("release", 1)))

    def overwritten(process: Process) -> bool:
        return any(saw_release == 1 and unit == 2 for saw_release, unit in outcomes(producer, process))

    assert overwritten(consumer)
    assert not overwritten(consumer.ordered(program_order(2)))


SPEC = FileSpec(FileKind.FRAMES, "depth", "BTC", 2, 4096, 0, 1)
SIZES = (200, 1000, 3900)


def shuffled_frames(rng: random.Random, frames: int) -> tuple[int, int, int]:
    """(accepted, wrong, wrong by stamps alone) reads of the real reader while the real writer's stores arrive in any order."""
    buffer = memory(SPEC)
    weak = WeakStores(buffer, rng)
    writer, reader = FrameWriter(weak, SPEC), FrameReader(Words(buffer), SPEC)
    accepted = wrong = stamp_only = 0
    for n in range(frames):
        writer.publish(oracle(n, rng.choice(SIZES)), ts_ns=n, kind=1, published_ns=n)
        for _ in range(3):
            weak.deliver(rng.choice((0.2, 0.5, 0.9)))
            slots = [reader.latest(), reader.read(n), *reader.history(n - 1, n + 1).slots]
            for slot in slots:
                if slot is not None:
                    accepted += 1
                    wrong += slot.payload != oracle(slot.frame_no, len(slot.payload)) or slot.ts_ns != slot.frame_no
            stamp_only += stamps_alone_accept_wrong(buffer, n)
        if n % 16 == 0:
            weak.drain()
    return accepted, wrong, stamp_only


def stamps_alone_accept_wrong(buffer: bytearray, n: int) -> bool:
    """Would a reader that looks at stamp, length and frame number only have served a wrong payload for frame n?"""
    at = layout.HEADER_BYTES + n % SPEC.slots * SPEC.stride
    if int.from_bytes(buffer[at : at + 8], "little") != 2 * n + 2:
        return False
    length = int.from_bytes(buffer[at + 40 : at + 44], "little")
    return length <= SPEC.payload_bytes and buffer[at + 64 : at + 64 + length] != oracle(n, length)


@pytest.mark.parametrize("frames", [1500, pytest.param(60_000, marks=pytest.mark.stress)])
def test_frames_on_shuffled_stores(frames: int) -> None:
    accepted, wrong, stamp_only = shuffled_frames(random.Random(1), frames)
    print(f"{accepted} accepted, {wrong} wrong, {stamp_only} that stamps alone would have accepted wrong")
    assert accepted > frames
    assert wrong == 0
    assert stamp_only > 0


def shuffled_batches(rng: random.Random, batches: int) -> tuple[int, int, int]:
    """(read, wrong, wrong by stamps alone) batches while the producer's stores arrive in any order."""
    spec = event_ring_spec("BTC", 64)
    buffer = memory(spec)
    weak = WeakStores(buffer, rng)
    writer, reader = EventWriter(weak, spec), EventReader(Words(buffer), spec)
    read = wrong = stamp_only = seq = 0
    while read < batches:
        units = rng.randrange(1, 8)
        weak.sees(layout.RELEASE_WORD, reader.released)
        if writer.put(oracle(seq, units * 64), records=units, source=1, first_seq=seq, flushed_ns=0):
            seq += 1
        weak.deliver(rng.choice((0.2, 0.5, 0.9)))
        stamp_only += unit_alone_accepts_wrong(buffer, spec.slots, reader.position)
        while batch := reader.get():
            wrong += batch.first_seq != read or batch.body != oracle(read, len(batch.body))
            read += 1
            reader.release(batch.end)
    return read, wrong, stamp_only


def unit_alone_accepts_wrong(buffer: bytearray, units: int, position: int) -> bool:
    at = layout.HEADER_BYTES + position % units * 64
    if int.from_bytes(buffer[at : at + 8], "little") != position + 1:
        return False
    size = int.from_bytes(buffer[at + 16 : at + 20], "little") * 64
    seq, pad = int.from_bytes(buffer[at + 40 : at + 48], "little"), buffer[at + 20] & 1
    return not pad and at + 64 + size <= len(buffer) and buffer[at + 64 : at + 64 + size] != oracle(seq, size)


@pytest.mark.parametrize("batches", [1500, pytest.param(60_000, marks=pytest.mark.stress)])
def test_batches_on_shuffled_stores(batches: int) -> None:
    read, wrong, stamp_only = shuffled_batches(random.Random(2), batches)
    print(f"{read} read, {wrong} wrong or out of order, {stamp_only} that stamps alone would have accepted wrong")
    assert wrong == 0
    assert stamp_only > 0
