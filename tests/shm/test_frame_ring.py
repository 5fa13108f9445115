"""Frame ring: order of operations, latest, history, being lapped, attaching again; kills are in tests/stress."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from shm import layout
from shm.errors import Fenced, IdentityMismatch, Locked, Missing, Refused
from shm.frame_ring import LATEST_ROUNDS, FrameReader, FrameWriter
from shm.layout import candles_spec, depth_spec, liquidation_spec
from shm.liveness import Probe, WriterState
from shm.slots import pack_body
from shm.words import Words
from tests.shm.rig import Recorder, memory, oracle

SPEC = depth_spec("BTC", 8)
SLOT_0 = layout.HEADER_BYTES


def ring(frames: int = 0, *, first: int = 0) -> tuple[bytearray, FrameWriter, FrameReader]:
    """Memory, writer and reader of one ring with `frames` frames from number `first` on."""
    buffer = memory(SPEC)
    if first:
        preset(buffer, first)
    writer = FrameWriter(Words(buffer), SPEC)
    for _ in range(frames):
        put(writer)
    return buffer, writer, FrameReader(Words(buffer), SPEC)


def preset(buffer: bytearray, head: int) -> None:
    words = Words(buffer)
    words.store_release(layout.HEAD_WORD, head)
    words.store_release(layout.INTENT_WORD, head)


def put(writer: FrameWriter) -> int:
    n = writer.next_no
    return writer.publish(oracle(n, 200 + n % 50), ts_ns=n + 1, kind=1, published_ns=n)


def stamp_word(n: int) -> int:
    return (SLOT_0 + n % SPEC.slots * SPEC.stride) // 8


@pytest.mark.covers("A1-M30")
def test_the_writer_stores_in_the_order_of_the_page() -> None:
    recorder = Recorder(memory(SPEC))
    writer = FrameWriter(recorder, SPEC)
    put(writer)
    recorder.log.clear()
    n = put(writer)
    stamp, slot = stamp_word(n), SLOT_0 + n * SPEC.stride
    operations = [(operation, where) for operation, where, _ in recorder.log]
    assert operations == [
        ("store", layout.INTENT_WORD),
        ("store", stamp),
        ("in", slot + 16),
        ("store", stamp + 1),
        ("store", stamp),
        ("store", layout.HEAD_WORD),
        ("store", layout.BEAT_WORD),
    ]
    values = [value for operation, _, value in recorder.log]
    assert (values[0], values[1], values[4], values[5]) == (n + 1, 2 * n + 1, 2 * n + 2, n + 1)


def test_the_reader_loads_stamp_copy_stamp_and_then_judges_its_copy() -> None:
    recorder = Recorder(memory(SPEC))
    writer = FrameWriter(recorder, SPEC)
    put(writer)
    reader = FrameReader(recorder, SPEC)
    recorder.log.clear()
    slot = reader.read(0)
    assert slot is not None
    stamp, length = stamp_word(0), len(slot.payload)
    assert [(operation, where) for operation, where, _ in recorder.log] == [
        ("load", stamp),
        ("load", stamp + 5),
        ("out", SLOT_0 + 8),
        ("load", stamp),
    ]
    assert recorder.log[2][2] == 56 + length


def test_history_reads_head_copies_once_and_then_reads_intent() -> None:
    recorder = Recorder(memory(SPEC))
    writer = FrameWriter(recorder, SPEC)
    for _ in range(12):
        put(writer)
    reader = FrameReader(recorder, SPEC)
    recorder.log.clear()
    assert len(reader.history(5, 7).slots) == 2
    assert [(operation, where) for operation, where, _ in recorder.log] == [
        ("load", layout.HEAD_WORD), ("block", SLOT_0 + 5 * SPEC.stride), ("load", layout.INTENT_WORD),
    ]  # fmt: skip
    recorder.log.clear()
    assert len(reader.history(6, 10).slots) == 4
    assert [operation for operation, _, _ in recorder.log] == ["load", "block", "block", "load"]


def test_frames_come_back_as_they_were_published() -> None:
    _, writer, reader = ring(20)
    assert writer.next_no == reader.head() == reader.intent() == 20
    for n in range(12, 20):
        slot = reader.read(n)
        assert slot is not None
        assert (slot.frame_no, slot.ts_ns, slot.published_ns, slot.payload) == (n, n + 1, n, oracle(n, 200 + n % 50))


def test_what_a_reader_hands_out_is_frozen_and_private() -> None:
    _, writer, reader = ring(1)
    slot = reader.latest()
    assert slot is not None
    kept = bytes(slot.payload)
    for _ in range(8):
        put(writer)
    assert slot.payload == kept
    assert type(slot.payload) is bytes
    with pytest.raises(AttributeError):
        slot.frame_no = 5  # type: ignore[misc]


def test_an_empty_payload_and_the_largest_one() -> None:
    _, writer, reader = ring()
    for size in (0, SPEC.payload_bytes):
        writer.publish(oracle(1, size), ts_ns=0, kind=1)
        slot = reader.latest()
        assert slot is not None
        assert len(slot.payload) == size


def test_what_does_not_fit_is_refused_and_nothing_is_written() -> None:
    buffer, writer, _ = ring(3)
    before = bytes(buffer)
    with pytest.raises(Refused, match="at most 8128 bytes, was 8129"):
        writer.publish(bytes(8129), ts_ns=0, kind=1)
    with pytest.raises(Refused, match="out of range"):
        writer.publish(b"", ts_ns=0, kind=1 << 16)
    with pytest.raises(Refused, match="out of range"):
        writer.publish(b"", ts_ns=-1, kind=1)
    assert bytes(buffer) == before
    assert put(writer) == 3


def test_published_time_is_the_wall_clock_unless_told() -> None:
    _, writer, reader = ring()
    before = time.time_ns()
    writer.publish(b"", ts_ns=0, kind=1)
    slot = reader.latest()
    assert slot is not None
    assert before <= slot.published_ns <= time.time_ns()


def test_latest_of_an_empty_ring_is_none() -> None:
    _, _, reader = ring()
    assert reader.latest() is None


def test_latest_falls_back_to_the_frame_before_and_gives_up_after_some_rounds() -> None:
    buffer, _, reader = ring(3)
    words = Words(buffer)
    words.store_release(stamp_word(2), 5)
    slot = reader.latest()
    assert slot is not None
    assert slot.frame_no == 1
    words.store_release(stamp_word(1), 3)
    assert reader.latest() is None

    recorder = Recorder(buffer)
    FrameReader(recorder, SPEC).latest()
    assert sum(where == layout.HEAD_WORD for _, where, _ in recorder.log) == LATEST_ROUNDS


def test_a_torn_slot_is_counted_as_a_retry() -> None:
    buffer, _, reader = ring(3)
    buffer[SLOT_0 + 2 * SPEC.stride + 100] ^= 1
    slot = reader.latest()
    assert slot is not None
    assert slot.frame_no == 1
    assert reader.retries == 1


def test_a_lapped_reader_is_told_what_it_lost() -> None:
    _, _, reader = ring(20)
    assert reader.read(3) is None
    assert reader.lapped == 1
    assert reader.read(25) is None, "not yet published is not lapped"
    assert reader.lapped == 1
    history = reader.history(3, 30)
    assert [slot.frame_no for slot in history.slots] == list(range(12, 20))
    assert (history.missing, history.lapped) == ([], 9)
    assert reader.lapped == 2


@pytest.mark.parametrize(
    ("start", "stop", "expected", "lapped"),
    [
        (12, 20, range(12, 20), 0),
        (15, 17, range(15, 17), 0),
        (-5, 3, [], 3),
        (0, 1 << 40, range(12, 20), 12),
        (20, 30, [], 0),
        (25, 30, [], 0),
        (17, 15, [], 0),
        (13, 13, [], 0),
        (0, 12, [], 12),
    ],
)
def test_history_clips_to_what_is_there(start: int, stop: int, expected: range, lapped: int) -> None:
    _, _, reader = ring(20)
    history = reader.history(start, stop)
    assert [slot.frame_no for slot in history.slots] == list(expected)
    assert all(slot.payload == oracle(slot.frame_no, 200 + slot.frame_no % 50) for slot in history.slots)
    assert (history.missing, history.lapped) == ([], lapped)


def test_history_of_an_empty_ring_is_empty() -> None:
    _, _, reader = ring()
    history = reader.history(0, 100)
    assert (history.slots, history.missing, history.lapped) == ([], [], 0)


def test_missing_frames_are_absent_and_named_never_zeros() -> None:
    buffer, _, reader = ring(8)
    words = Words(buffer)
    words.store_release(stamp_word(2), 0)
    buffer[SLOT_0 + 4 * SPEC.stride + 70] ^= 1
    history = reader.history(0, 8)
    assert [slot.frame_no for slot in history.slots] == [0, 1, 3, 5, 6, 7]
    assert (history.missing, history.lapped) == ([2, 4], 0)


class WriterInBetween(Words):
    """A reader's words during whose block copy the writer publishes, as an unlucky schedule would have it."""

    def __init__(self, buffer: bytearray, writer: FrameWriter, frames: int) -> None:
        super().__init__(buffer)
        self.writer, self.frames = writer, frames

    def copy_block(self, offset: int, target: memoryview) -> None:
        for _ in range(self.frames):
            put(self.writer)
        self.frames = 0
        super().copy_block(offset, target)


@pytest.mark.parametrize("frames", [1, 3, 8, 20])
def test_frames_overwritten_during_the_copy_are_lapped_not_wrong(frames: int) -> None:
    buffer, writer, _ = ring(8)
    reader = FrameReader(WriterInBetween(buffer, writer, frames), SPEC)
    history = reader.history(0, 8)
    assert [slot.frame_no for slot in history.slots] == list(range(min(frames, 8), 8))
    assert history.lapped == min(frames, 8)
    assert all(slot.payload == oracle(slot.frame_no, 200 + slot.frame_no % 50) for slot in history.slots)


def test_attaching_again_goes_on_behind_the_last_frame(place: Path) -> None:
    path = place / "BTC" / "depth.ring"
    for epoch in (1, 2, 3):
        with FrameWriter.open(path, SPEC) as writer:
            assert writer.epoch == epoch
            assert writer.report.invalidated == 0
            put(writer)
            put(writer)
    with FrameReader.open(path) as reader:
        assert (reader.epoch(), reader.head(), reader.first()) == (3, 6, 0)
        assert [slot.epoch for slot in reader.history(0, 6).slots] == [1, 1, 2, 2, 3, 3]


def test_a_half_written_slot_is_invalidated_and_its_number_used_again() -> None:
    buffer, _, reader = ring(10)
    words = Words(buffer)
    words.store_release(layout.INTENT_WORD, 11)
    words.store_release(stamp_word(10), 21)
    words.copy_in(SLOT_0 + 2 * SPEC.stride + 16, b"half of something")
    writer = FrameWriter(Words(buffer), SPEC)
    assert (writer.report.invalidated, writer.report.good, writer.next_no, writer.first) == (1, 7, 10, 3)
    assert (reader.head(), reader.intent(), reader.first(), reader.epoch()) == (10, 10, 3, 2)
    assert put(writer) == 10
    history = reader.history(0, 11)
    assert [slot.frame_no for slot in history.slots] == list(range(3, 11))


def test_a_frame_committed_in_its_slot_but_not_in_head_is_kept() -> None:
    buffer, _, reader = ring(5)
    words = Words(buffer)
    words.store_release(layout.INTENT_WORD, 6)
    body = pack_body(5, b"x", 1, 1, 1, 0, 1, 0)
    FrameReader(words, SPEC)._slots.write(5, body)
    writer = FrameWriter(Words(buffer), SPEC)
    assert (writer.next_no, writer.report.invalidated) == (6, 0)
    latest = reader.latest()
    assert latest is not None
    assert latest.payload == b"x"


def test_every_slot_lost_keeps_the_numbers() -> None:
    buffer, _, reader = ring(10)
    buffer[SLOT_0:] = os.urandom(len(buffer) - SLOT_0)
    writer = FrameWriter(Words(buffer), SPEC)
    assert (writer.report.good, writer.report.invalidated, writer.first, writer.next_no) == (0, 8, 10, 10)
    assert reader.latest() is None
    put(writer)
    assert [slot.frame_no for slot in reader.history(0, 11).slots] == [10]
    assert reader.history(3, 11).missing == list(range(3, 10))


@pytest.mark.parametrize("head", [(1 << 32) - 5, (1 << 40) - 5, (1 << 62) - 5])
def test_numbers_past_every_power_of_two(head: int) -> None:
    buffer, writer, reader = ring(20, first=head)
    assert writer.next_no == head + 20
    history = reader.history(head, head + 20)
    assert [slot.frame_no for slot in history.slots] == list(range(head + 12, head + 20))
    assert history.lapped == 12
    assert all(slot.payload == oracle(slot.frame_no, 200 + slot.frame_no % 50) for slot in history.slots)
    again = FrameWriter(Words(buffer), SPEC)
    assert (again.next_no, again.report.invalidated, again.first) == (head + 20, 0, head + 12)


def test_an_epoch_that_does_not_rise_is_fenced() -> None:
    buffer, _, _ = ring(1)
    before = bytes(buffer)
    for epoch in (0, 1):
        with pytest.raises(Fenced, match="must be above 1"):
            FrameWriter(Words(buffer), SPEC, epoch)
    assert bytes(buffer) == before
    assert FrameWriter(Words(buffer), SPEC, 5 << 16).epoch == 5 << 16


def test_a_failed_attach_gives_the_lock_back(tmpfs: Path) -> None:
    path = tmpfs / "depth.ring"
    FrameWriter.open(path, SPEC, epoch=7).close()
    with pytest.raises(Fenced):
        FrameWriter.open(path, SPEC, epoch=7)
    FrameWriter.open(path, SPEC).close()


def test_a_second_writer_is_refused_with_the_pid_of_the_first(tmpfs: Path) -> None:
    path = tmpfs / "depth.ring"
    with FrameWriter.open(path, SPEC), pytest.raises(Locked) as caught:
        FrameWriter.open(path, SPEC)
    assert caught.value.holder_pid == os.getpid()
    assert str(caught.value) == f"depth.ring is held by process {os.getpid()}"
    FrameWriter.open(path, SPEC).close()


def test_a_closed_writer_says_so_and_does_not_write_again(tmpfs: Path) -> None:
    path = tmpfs / "depth.ring"
    writer = FrameWriter.open(path, SPEC)
    put(writer)
    with FrameReader.open(path) as reader:
        writer.close()
        writer.close()
        assert (writer.fd, writer.uuid) == (-1, 0)
        assert reader.writer_state() is WriterState.CLOSED
        with pytest.raises(ValueError, match="released"):
            put(writer)
        assert reader.head() == 1


def test_a_beat_and_a_sync(tmpfs: Path) -> None:
    clock = [0]
    path = tmpfs / "depth.ring"
    with FrameWriter.open(path, SPEC) as writer:
        with FrameReader.open(path, probe=Probe(monotonic_ns=lambda: clock[0])) as reader:
            clock[0] = time.monotonic_ns() + 6_000_000_000
            assert reader.writer_state() is WriterState.STALLED
            writer.beat()
            clock[0] = time.monotonic_ns()
            assert reader.writer_state() is WriterState.LIVE
        writer.sync()
        assert os.fstat(writer.fd).st_size == SPEC.file_bytes
    writer.sync()


def test_readers_open_only_what_they_asked_for(tmpfs: Path) -> None:
    path = tmpfs / "depth.ring"
    with pytest.raises(Missing, match=r"depth\.ring is not there"):
        FrameReader.open(path, SPEC)
    FrameWriter.open(path, SPEC).close()
    for other in (depth_spec("ETH", 8), liquidation_spec("BTC", 8), candles_spec("BTC", 8)):
        with pytest.raises(IdentityMismatch):
            FrameReader.open(path, other)
        with pytest.raises(IdentityMismatch):
            FrameWriter.open(path, other)
    with FrameReader.open(path, SPEC) as reader:
        assert reader.spec == SPEC
        assert reader.uuid != 0


def test_a_large_ring_is_repaired_in_one_pass(tmpfs: Path) -> None:
    """44,640 records: no per-slot loads from shared memory (docs/shared-memory.md has the time)."""
    spec = candles_spec("BTC")
    recorder = Recorder(memory(spec))
    FrameWriter(recorder, spec)
    assert [operation for operation, _, _ in recorder.log].count("block") == 1
    assert len(recorder.log) < 30


def test_random_damage_is_repaired_to_exactly_the_undamaged_frames() -> None:
    rng = random.Random(11)
    for _ in range(200):
        buffer, _, reader = ring(rng.randrange(1, 30))
        head = reader.head()
        alive = {slot.frame_no for slot in reader.history(0, head).slots}
        for _ in range(rng.randrange(0, 6)):
            n = rng.choice(sorted(alive)) if alive else 0
            at = SLOT_0 + n % SPEC.slots * SPEC.stride + rng.randrange(0, 64 + 200)
            buffer[at] ^= 1 << rng.randrange(8)
            alive.discard(n)
        writer = FrameWriter(Words(buffer), SPEC)
        assert {slot.frame_no for slot in reader.history(0, head).slots} >= alive
        assert writer.next_no == head
        # A second flip may have healed the first; anything served must be what was published.
        for slot in reader.history(0, head).slots:
            assert slot.payload == oracle(slot.frame_no, 200 + slot.frame_no % 50)
