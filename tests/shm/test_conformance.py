"""One suite over everything that is published: frame ring, record ring, documents, event ring keep the same promises."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shm import layout
from shm.document import DocumentReader, DocumentWriter
from shm.errors import Fenced, LayoutMismatch, Locked, Missing
from shm.event_ring import EventReader, EventWriter, create_event_ring
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import FileSpec, candles_spec, depth_spec, event_ring_spec, feeds_spec, liquidation_spec
from shm.liveness import WriterState
from shm.record_ring import RecordReader, RecordWriter
from shm.records import CANDLE_DTYPE, DocumentId


@dataclass(frozen=True)
class Ring:
    """How to use one kind: `publish(writer, n)` and `newest(reader)` exchange the number n."""

    spec: FileSpec
    create: Callable[[Path, FileSpec], None]
    write: Callable[..., Any]
    read: Callable[..., Any]
    publish: Callable[[Any, int], object]
    newest: Callable[[Any], int | None]


def nothing(path: Path, spec: FileSpec) -> None:
    """The writer creates."""


def append_candle(writer: RecordWriter, n: int) -> None:
    record = np.zeros((), CANDLE_DTYPE)
    record["open_ts_ns"] = n
    writer.append(record, ts_ns=n)


def newest_candle(reader: RecordReader) -> int | None:
    records = reader.latest(1)[1]
    return int(records["open_ts_ns"][0]) if len(records) else None


def newest_slot(reader: FrameReader) -> int | None:
    slot = reader.latest()
    return None if slot is None else int(slot.payload)


def newest_document(reader: DocumentReader) -> int | None:
    slot = reader.latest(DocumentId.FEEDS)
    return None if slot is None else int(slot.payload)


def newest_batch(reader: EventReader) -> int | None:
    last = None
    while batch := reader.get():
        last = batch.first_seq
    reader.release(reader.position)
    return last


def frames(spec: FileSpec) -> Ring:
    return Ring(
        spec, nothing, lambda path, **more: FrameWriter.open(path, spec, **more), lambda path: FrameReader.open(path, spec),
        lambda writer, n: writer.publish(str(n).encode(), ts_ns=n, kind=1), newest_slot,
    )  # fmt: skip


CANDLES, FEEDS, EVENTS = candles_spec("BTC", 16), feeds_spec(), event_ring_spec("BTC", 64)
RINGS = {
    "depth": frames(depth_spec("BTC", 8)),
    "liquidation": frames(liquidation_spec("BTC", 3)),
    "candles": Ring(
        CANDLES, nothing, lambda path, **more: RecordWriter.open(path, CANDLES, CANDLE_DTYPE, **more),
        lambda path: RecordReader.open(path, CANDLE_DTYPE, CANDLES), append_candle, newest_candle,
    ),
    "documents": Ring(
        FEEDS, nothing, lambda path, **more: DocumentWriter.open(path, FEEDS, **more),
        lambda path: DocumentReader.open(path, FEEDS),
        lambda writer, n: writer.publish(DocumentId.FEEDS, str(n).encode(), ts_ns=n), newest_document,
    ),
    "events": Ring(
        EVENTS, create_event_ring, lambda path, **more: EventWriter.open(path, EVENTS, **more),
        lambda path: EventReader.open(path, EVENTS),
        lambda writer, n: writer.put(bytes(128), records=2, source=1, first_seq=n), newest_batch,
    ),
}  # fmt: skip


@pytest.fixture(params=RINGS)
def ring(request: pytest.FixtureRequest) -> Ring:
    return RINGS[request.param]


@pytest.fixture
def path(place: Path, ring: Ring) -> Path:
    path = place / ring.spec.name
    ring.create(path, ring.spec)
    return path


def test_the_newest_is_what_was_published_last(ring: Ring, path: Path) -> None:
    with ring.write(path) as writer, ring.read(path) as reader:
        assert ring.newest(reader) is None
        for n in range(100):
            ring.publish(writer, n)
            assert ring.newest(reader) == n


def test_what_was_published_survives_the_writer(ring: Ring, path: Path) -> None:
    with ring.write(path) as writer:
        ring.publish(writer, 5)
    with ring.read(path) as reader:
        assert ring.newest(reader) == 5
        assert reader.writer_state() is WriterState.CLOSED


def test_each_attach_raises_the_epoch_by_one_and_goes_on(ring: Ring, path: Path) -> None:
    for epoch in range(1, 6):
        with ring.write(path) as writer, ring.read(path) as reader:
            assert writer.epoch == epoch
            ring.publish(writer, epoch)
            assert ring.newest(reader) == epoch


def test_a_given_epoch_must_rise(ring: Ring, path: Path) -> None:
    ring.write(path, epoch=1 << 16).close()
    with pytest.raises(Fenced):
        ring.write(path, epoch=1 << 16)
    with ring.write(path, epoch=2 << 16) as writer:
        assert writer.epoch == 2 << 16


def test_one_writer_and_nothing_changes_for_the_first_when_a_second_is_refused(ring: Ring, path: Path) -> None:
    with ring.write(path) as writer, ring.read(path) as reader:
        ring.publish(writer, 1)
        with pytest.raises(Locked) as caught:
            ring.write(path)
        assert caught.value.holder_pid == os.getpid()
        ring.publish(writer, 2)
        assert ring.newest(reader) == 2
        assert reader.writer_state() is WriterState.LIVE


def test_readers_need_the_file(ring: Ring, path: Path) -> None:
    with pytest.raises(Missing):
        ring.read(path.with_name("nothing"))


def test_a_shortened_file_is_refused_not_a_bus_error(ring: Ring, path: Path) -> None:
    ring.write(path).close()
    path.write_bytes(path.read_bytes()[:-2048])
    with pytest.raises(LayoutMismatch):
        ring.read(path)
    with pytest.raises(LayoutMismatch):
        ring.write(path)


def test_an_unlinked_file_is_told_and_still_works(ring: Ring, path: Path) -> None:
    with ring.write(path) as writer, ring.read(path) as reader:
        assert not reader.replaced()
        path.unlink()
        assert reader.replaced()
        ring.publish(writer, 3)
        assert ring.newest(reader) == 3


def test_closing_twice_is_fine(ring: Ring, path: Path) -> None:
    writer = ring.write(path)
    reader = ring.read(path)
    for handle in (reader, writer, reader, writer):
        handle.close()
    ring.write(path).close()


def test_the_file_never_changes_its_size_nor_the_creators_lines(ring: Ring, path: Path) -> None:
    ring.write(path).close()
    before = path.read_bytes()
    with ring.write(path) as writer, ring.read(path):
        for n in range(200):
            ring.publish(writer, n)
    after = path.read_bytes()
    assert len(after) == len(before) == ring.spec.file_bytes
    assert after[:64] == before[:64]
    assert after[512:2048] == before[512:2048]


def test_only_the_owner_of_a_word_writes_it(ring: Ring, path: Path) -> None:
    """Publishing leaves the consumer's words alone, reading and releasing the writer's."""

    def words(owner: layout.Owner) -> bytes:
        page = path.read_bytes()[:4096]
        return b"".join(page[f.offset : f.offset + f.size] for f in layout.HEADER_FIELDS if f.owner is owner)

    with ring.write(path) as writer, ring.read(path) as reader:
        consumer = words(layout.Owner.CONSUMER)
        ring.publish(writer, 1)
        assert words(layout.Owner.CONSUMER) == consumer
        mine = words(layout.Owner.WRITER)
        assert ring.newest(reader) == 1
        assert words(layout.Owner.WRITER) == mine
