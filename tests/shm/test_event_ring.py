"""Event ring: batches in and out, refusal when full, pads, release and replay, attaching again; kills are in tests/stress."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from shm import layout
from shm.digest import digest
from shm.errors import Fenced, Locked, Missing, Refused
from shm.event_ring import Batch, BatchFlag, EventReader, EventWriter, create_event_ring, read_batch
from shm.files import CONSUMER_SUFFIX
from shm.layout import BATCH_BODY, event_ring_spec
from shm.liveness import WriterState
from shm.words import Words
from tests.shm.rig import Recorder, memory, oracle, state_hash

UNITS = 64
SPEC = event_ring_spec("BTC", UNITS)
UNIT_0 = layout.HEADER_BYTES


def ring(units: int = UNITS, *, position: int = 0) -> tuple[bytearray, EventWriter, EventReader]:
    """Memory, producer and consumer of one ring that begins at `position`."""
    spec = event_ring_spec("BTC", units)
    buffer = memory(spec)
    if position:
        words = Words(buffer)
        words.store_release(layout.HEAD_WORD, position)
        words.store_release(layout.RELEASE_WORD, position)
    return buffer, EventWriter(Words(buffer), spec), EventReader(Words(buffer), spec)


def put(writer: EventWriter, seq: int, units: int = 3, flags: int = 0) -> bool:
    return writer.put(oracle(seq, units * 64), records=units, source=1, first_seq=seq, flags=flags, flushed_ns=seq)


def drain(reader: EventReader) -> list[Batch]:
    return list(iter(reader.get, None))


def test_the_producer_stores_in_the_order_of_the_page() -> None:
    recorder = Recorder(memory(SPEC))
    writer = EventWriter(recorder, SPEC)
    recorder.log.clear()
    assert put(writer, 0)
    assert [(operation, where) for operation, where, _ in recorder.log] == [
        ("in", UNIT_0 + 16),
        ("store", UNIT_0 // 8 + 1),
        ("store", UNIT_0 // 8),
        ("store", layout.HEAD_WORD),
        ("store", layout.BEAT_WORD),
    ]
    assert recorder.log[2][2] == 1
    assert recorder.log[3][2] == 4


def test_the_consumer_loads_stamp_then_size_then_copies_and_stores_nothing_before_release() -> None:
    recorder = Recorder(memory(SPEC))
    writer, reader = EventWriter(recorder, SPEC), EventReader(recorder, SPEC)
    put(writer, 0)
    recorder.log.clear()
    batch = reader.get()
    assert batch is not None
    assert [(operation, where) for operation, where, _ in recorder.log] == [
        ("load", UNIT_0 // 8), ("load", UNIT_0 // 8 + 2), ("out", UNIT_0 + 8),
    ]  # fmt: skip
    recorder.log.clear()
    reader.release(batch.end)
    assert recorder.log == [("store", layout.RELEASE_WORD, batch.end)]


def test_release_is_read_again_only_when_the_ring_looks_full() -> None:
    recorder = Recorder(memory(SPEC))
    writer, reader = EventWriter(recorder, SPEC), EventReader(Words(memory(SPEC)), SPEC)
    recorder.log.clear()
    for seq in range(16):
        assert put(writer, seq)
    assert not [1 for operation, where, _ in recorder.log if (operation, where) == ("load", layout.RELEASE_WORD)]
    assert not put(writer, 16)
    assert [1 for operation, where, _ in recorder.log if (operation, where) == ("load", layout.RELEASE_WORD)] == [1]
    assert reader.get() is None


def test_batches_come_out_in_order_as_they_went_in() -> None:
    _, writer, reader = ring()
    for seq in range(10):
        assert put(writer, seq, units=seq % 5, flags=BatchFlag.CLOCK_ONLY if seq % 2 else 0)
    batches = drain(reader)
    assert [batch.first_seq for batch in batches] == list(range(10))
    for seq, batch in enumerate(batches):
        assert (batch.body, batch.records, batch.flushed_ns, batch.epoch) == (oracle(seq, seq % 5 * 64), seq % 5, seq, 1)
        assert batch.flags == (BatchFlag.CLOCK_ONLY if seq % 2 else 0)
        assert batch.end == batch.position + 1 + seq % 5
    assert (reader.position, reader.backlog()) == (writer.head, 0)


def test_a_batch_never_wraps_and_pads_never_reach_the_caller() -> None:
    buffer, writer, reader = ring()
    pads = 0
    for seq in range(500):
        assert put(writer, seq, units=seq % 7)
        at = reader.position
        pad = read_batch(Words(buffer), UNITS, at)
        assert pad is not None
        pads += bool(pad.flags & BatchFlag.PAD)
        batch = reader.get()
        assert batch is not None
        assert batch.first_seq == seq
        assert batch.position % UNITS + 1 + seq % 7 <= UNITS
        reader.release(batch.end)
    assert pads > 10


def test_a_batch_that_ends_exactly_at_the_end_needs_no_pad() -> None:
    _, writer, reader = ring()
    for seq in range(UNITS // 4):
        assert put(writer, seq)
    assert writer.head == UNITS
    assert writer.fill() == 1.0
    assert len(drain(reader)) == UNITS // 4


def test_a_full_ring_refuses_the_newest_counts_it_and_marks_the_gap() -> None:
    buffer, writer, reader = ring()
    taken = 0
    while put(writer, taken):
        taken += 1
    for extra in range(4):
        assert not put(writer, taken + 1 + extra, units=2)
    words = Words(buffer)
    assert (writer.dropped_batches, writer.dropped_records, writer.gaps) == (5, 3 + 4 * 2, 1)
    assert words.load_acquire(layout.DROPPED_BATCHES_WORD) == 5
    assert words.load_acquire(layout.DROPPED_RECORDS_WORD) == 11
    assert words.load_acquire(layout.GAPS_WORD) == 1
    old = drain(reader)
    assert [batch.first_seq for batch in old] == list(range(taken)), "what was there is untouched"
    assert not any(batch.flags for batch in old)
    reader.release(reader.position)
    assert put(writer, 100)
    assert put(writer, 101)
    assert [(batch.first_seq, batch.flags) for batch in drain(reader)] == [(100, BatchFlag.GAP), (101, 0)]


def test_a_gap_flag_waits_until_a_batch_gets_in() -> None:
    _, writer, reader = ring()
    while put(writer, 0):
        pass
    for _ in range(3):
        assert not put(writer, 1)
    assert writer.gaps == 1
    drain(reader)
    reader.release(reader.position)
    assert put(writer, 2, flags=BatchFlag.REPLAYED)
    batch = reader.get()
    assert batch is not None
    assert batch.flags == BatchFlag.GAP | BatchFlag.REPLAYED


def test_room_that_a_pad_would_need_is_counted_too() -> None:
    _, writer, reader = ring()
    for seq in range(15):
        assert put(writer, seq)
    batches = [batch for batch in (reader.get() for _ in range(1)) if batch]
    reader.release(batches[-1].end)  # 4 units at the end and 4 at the begin are free
    assert not put(writer, 15, units=4), "5 units fit neither end nor begin"
    assert put(writer, 16, units=3)
    assert put(writer, 17, units=3)
    assert not put(writer, 18, units=0)
    assert [batch.first_seq for batch in drain(reader)] == [*range(1, 15), 16, 17]


def test_an_unreleased_batch_is_never_overwritten_however_far_the_reader_has_read() -> None:
    """Control in the same test: with `release` moved along as a read position, the same producer overwrites it."""
    for released_early, expected in ((False, list(range(16))), (True, None)):
        buffer, writer, reader = ring()
        for seq in range(16):
            assert put(writer, seq)
        drain(reader)
        if released_early:
            reader.release(reader.position)
        for seq in range(16, 32):
            put(writer, seq)
        restarted = EventReader(Words(buffer), SPEC)
        again = [batch.first_seq for batch in drain(restarted)]
        if expected is None:
            assert again != list(range(16)), "the control must show the loss"
        else:
            assert again == expected


@pytest.mark.parametrize(
    ("body", "records", "flags", "text"),
    [
        (bytes(63), 1, 0, "whole units"),
        (bytes(64 * 32), 1, 0, "at most half of 64"),
        (b"", 1, BatchFlag.PAD, "must be GAP, REPLAYED or CLOCK_ONLY"),
        (b"", 1, 16, "must be GAP, REPLAYED or CLOCK_ONLY"),
        (b"", 1 << 16, 0, "out of range"),
        (b"", -1, 0, "out of range"),
    ],
)
def test_what_no_ring_could_take_is_refused_and_nothing_is_written(body: bytes, records: int, flags: int, text: str) -> None:
    buffer, writer, _ = ring()
    before = bytes(buffer)
    with pytest.raises(Refused, match=text):
        writer.put(body, records=records, source=1, first_seq=0, flags=flags)
    assert bytes(buffer) == before
    assert writer.dropped_batches == 0


def test_the_largest_batch_always_fits_an_empty_ring() -> None:
    for start in range(UNITS):
        _, writer, reader = ring(position=start)
        assert put(writer, 1, units=31)
        batch = reader.get()
        assert batch is not None
        assert len(batch.body) == 31 * 64


def test_a_torn_batch_is_nothing_yet() -> None:
    buffer, writer, reader = ring()
    put(writer, 0)
    for at in range(8, 4 * 64):
        if at in range(8):
            continue
        buffer[UNIT_0 + at] ^= 1
        assert reader.get() is None, f"byte {at}"
        assert reader.position == 0
        buffer[UNIT_0 + at] ^= 1
    assert reader.get() is not None


def test_a_batch_of_the_lap_before_is_nothing_yet() -> None:
    _, writer, reader = ring()
    for seq in range(16):
        put(writer, seq)
    drain(reader)
    reader.release(reader.position)
    assert reader.position == UNITS
    assert reader.get() is None


def test_a_size_beyond_the_end_is_nothing_yet() -> None:
    buffer, writer, reader = ring()
    put(writer, 0)
    buffer[UNIT_0 + 16 : UNIT_0 + 20] = (1 << 31).to_bytes(4, "little")
    assert reader.get() is None


def test_a_flag_of_a_later_version_does_not_stop_the_consumer() -> None:
    buffer, writer, reader = ring()
    put(writer, 0, units=1)
    sealed = BATCH_BODY.pack(1, 0x80 | BatchFlag.GAP, 1, 1, 0, 1, 7, 0, 0) + bytes(64)
    words = Words(buffer)
    words.copy_in(UNIT_0 + 16, sealed)
    words.store_release(UNIT_0 // 8 + 1, digest(sealed, 0))
    batch = reader.get()
    assert batch is not None
    assert (batch.first_seq, batch.flags) == (7, BatchFlag.GAP)


def test_flushed_time_is_the_wall_clock_unless_told() -> None:
    _, writer, reader = ring()
    before = time.time_ns()
    assert writer.put(bytes(64), records=1, source=0, first_seq=0)
    batch = reader.get()
    assert batch is not None
    assert before <= batch.flushed_ns <= time.time_ns()


def test_fill_and_backlog_differ_by_what_is_read_and_not_released() -> None:
    _, writer, reader = ring()
    put(writer, 0)
    put(writer, 1)
    first = reader.get()
    assert first is not None
    assert (reader.backlog(), reader.fill(), writer.fill()) == (4, 8 / 64, 8 / 64)
    reader.release(first.end)
    assert (reader.backlog(), reader.fill(), writer.fill(), reader.released) == (4, 4 / 64, 4 / 64, 4)


def test_release_neither_goes_back_nor_ahead_of_what_was_read() -> None:
    _, writer, reader = ring()
    put(writer, 0)
    put(writer, 1)
    reader.get()
    with pytest.raises(ValueError, match="release must be 0 to 4, was 8"):
        reader.release(8)
    reader.release(4)
    with pytest.raises(ValueError, match="was 0"):
        reader.release(0)


@pytest.mark.parametrize(
    ("position", "expected"), [(None, 8), (8, 8), (12, 12), (4, 8), (0, 8), (8 + UNITS, 8 + UNITS), (9 + UNITS, 8)]
)
def test_a_restarted_consumer_begins_at_its_checkpoint_or_at_release(position: int | None, expected: int) -> None:
    buffer, writer, reader = ring()
    for seq in range(4):
        put(writer, seq)
    drain(reader)
    reader.release(8)
    again = EventReader(Words(buffer), SPEC, position)
    assert again.position == expected
    assert again.consumer_epoch == 2


def test_release_and_replay_reach_the_state_of_an_undisturbed_run() -> None:
    """At-least-once: after each simulated death the consumer reads from its last checkpoint; duplicates go by sequence."""
    rng = random.Random(3)
    buffer, writer, reader = ring()
    straight: list[tuple[int, int, bytes]] = []
    state: list[tuple[int, int, bytes]] = []
    checkpoint: tuple[int, list[tuple[int, int, bytes]]] = (0, [])
    seq = duplicates = 0
    while seq < 2000:
        units = rng.randrange(5)
        if writer.put(oracle(seq, units * 64), records=units, source=1, first_seq=seq, flushed_ns=0):
            straight.append((1, seq, oracle(seq, units * 64)))
            seq += 1
        batch = reader.get()
        if batch is not None:
            if state and batch.first_seq <= state[-1][1]:
                duplicates += 1
            else:
                state.append((batch.source, batch.first_seq, batch.body))
        if rng.random() < 0.1 or reader.fill() > 0.5:
            checkpoint = (reader.position, list(state))
            reader.release(checkpoint[0])
        if rng.random() < 0.05:
            state = list(checkpoint[1])
            reader = EventReader(Words(buffer), SPEC, checkpoint[0] if rng.random() < 0.5 else None)
    state += [(batch.source, batch.first_seq, batch.body) for batch in drain(reader) if batch.first_seq > state[-1][1]]
    assert state_hash(state) == state_hash(straight)
    assert writer.dropped_batches == 0


def test_a_restarted_producer_walks_over_batches_that_head_does_not_show() -> None:
    buffer, writer, reader = ring()
    for seq in range(3):
        put(writer, seq)
    Words(buffer).store_release(layout.HEAD_WORD, 4)  # as if killed before the store of head
    again = EventWriter(Words(buffer), SPEC)
    assert (again.head, again.epoch) == (12, 2)
    assert Words(buffer).load_acquire(layout.HEAD_WORD) == 12
    assert put(again, 3)
    assert [batch.first_seq for batch in drain(reader)] == [0, 1, 2, 3]


def test_a_restarted_producer_writes_over_a_half_written_batch() -> None:
    buffer, writer, reader = ring()
    put(writer, 0)
    Words(buffer).copy_in(UNIT_0 + 4 * 64 + 16, oracle(9, 200))
    again = EventWriter(Words(buffer), SPEC)
    assert again.head == 4
    assert reader.get() is not None
    assert reader.get() is None
    put(again, 1)
    batch = reader.get()
    assert batch is not None
    assert batch.first_seq == 1


def test_a_restarted_producer_starts_at_release_when_head_is_behind_it() -> None:
    buffer, writer, reader = ring()
    for seq in range(3):
        put(writer, seq)
    drain(reader)
    reader.release(12)
    Words(buffer).store_release(layout.HEAD_WORD, 4)
    assert EventWriter(Words(buffer), SPEC).head == 12


def test_the_first_batch_of_a_restarted_producer_carries_a_gap_and_counters_go_on() -> None:
    buffer, writer, reader = ring()
    while put(writer, 0):
        pass
    again = EventWriter(Words(buffer), SPEC)
    assert (again.dropped_batches, again.dropped_records, again.gaps) == (1, 3, 1)
    drain(reader)
    reader.release(reader.position)
    put(again, 1)
    batch = reader.get()
    assert batch is not None
    assert (batch.flags, batch.epoch, reader.writer_epoch()) == (BatchFlag.GAP, 2, 2)


@pytest.mark.parametrize("position", [(1 << 32) - 30, (1 << 40) - 30, (1 << 62) - 30])
def test_positions_past_every_power_of_two(position: int) -> None:
    buffer, writer, reader = ring(position=position)
    for seq in range(40):
        assert put(writer, seq, units=seq % 6)
        batch = reader.get()
        assert batch is not None
        assert batch.first_seq == seq
        reader.release(batch.end)
    assert writer.head > position + 60
    assert EventWriter(Words(buffer), SPEC).head == writer.head


def test_an_epoch_that_does_not_rise_is_fenced(tmpfs: Path) -> None:
    path = tmpfs / "events-BTC.ring"
    create_event_ring(path, SPEC)
    EventWriter.open(path, SPEC, epoch=5).close()
    with pytest.raises(Fenced):
        EventWriter.open(path, SPEC, epoch=5)
    EventWriter.open(path, SPEC).close()


def test_each_side_has_one_lock(tmpfs: Path) -> None:
    path = tmpfs / "events-BTC.ring"
    with pytest.raises(Missing):
        EventWriter.open(path, SPEC)
    with pytest.raises(Missing):
        EventReader.open(path, SPEC)
    create_event_ring(path, SPEC)
    with EventWriter.open(path, SPEC) as writer, EventReader.open(path, SPEC) as reader:
        assert writer.uuid == reader.uuid != 0
        assert reader.writer_state() is WriterState.LIVE
        with pytest.raises(Locked) as producer:
            EventWriter.open(path, SPEC)
        with pytest.raises(Locked) as consumer:
            EventReader.open(path, SPEC)
        assert producer.value.holder_pid == consumer.value.holder_pid == os.getpid()
        with pytest.raises(Locked):
            create_event_ring(path, SPEC)
    with EventReader.open(path) as reader:
        assert reader.writer_state() is WriterState.CLOSED
    assert (tmpfs / f"events-BTC.ring{CONSUMER_SUFFIX}").read_text().strip() == str(os.getpid())


def test_a_ring_is_created_anew_and_the_consumer_notices(tmpfs: Path) -> None:
    path = tmpfs / "events-BTC.ring"
    create_event_ring(path, SPEC)
    with EventWriter.open(path, SPEC) as writer:
        put(writer, 0)
    with EventReader.open(path) as reader:
        assert not reader.replaced()
        create_event_ring(path, SPEC)
        assert reader.replaced()
        assert reader.writer_state() is WriterState.RETIRED
        assert reader.get() is not None, "the old ring stays readable until the reader lets go"
    with EventReader.open(path) as reader:
        assert reader.get() is None
        reader.beat()
