"""Documents: the newest version, versions by link, refusal of what is too large, attaching again."""

from __future__ import annotations

from pathlib import Path

import pytest

from shm import layout
from shm.document import DocumentReader, DocumentWriter
from shm.errors import Fenced, Locked, Missing, Refused
from shm.layout import DocumentPlan, documents_spec, feeds_spec
from shm.liveness import WriterState
from shm.records import DocumentId
from shm.words import Words
from tests.shm.rig import Recorder, memory, oracle

PLANS = (DocumentPlan(1, 3, 4096, 1), DocumentPlan(2, 3, 8192, 1), DocumentPlan(9, 2, 4096, 1))
SPEC = documents_spec("BTC", PLANS)


def pair() -> tuple[bytearray, DocumentWriter, DocumentReader]:
    buffer = memory(SPEC)
    return buffer, DocumentWriter(Words(buffer), SPEC), DocumentReader(Words(buffer), SPEC)


def test_documents_do_not_touch_each_other() -> None:
    _, writer, reader = pair()
    for version in range(5):
        for document in (1, 2, 9):
            data = oracle(version * 10 + document, 4000)
            assert writer.publish(document, data, ts_ns=version, published_ns=9) == version
    for document in (1, 2, 9):
        slot = reader.latest(document)
        assert slot is not None
        assert (slot.frame_no, slot.kind, slot.payload) == (4, document, oracle(40 + document, 4000))
        assert reader.head(document) == 5
    assert (reader.documents(), reader.changes()) == ([1, 2, 9], 15)


def test_the_writer_stores_in_the_order_of_the_page() -> None:
    recorder = Recorder(memory(SPEC))
    writer = DocumentWriter(recorder, SPEC)
    recorder.log.clear()
    writer.publish(2, b"x", ts_ns=0)
    offset = layout.HEADER_BYTES + 3 * 4096
    assert [(operation, where) for operation, where, _ in recorder.log] == [
        ("store", layout.INTENT_WORD),
        ("store", offset // 8),
        ("in", offset + 16),
        ("store", offset // 8 + 1),
        ("store", offset // 8),
        ("store", (layout.DOCUMENT_HEADS_AT + 64) // 8),
        ("store", layout.HEAD_WORD),
        ("store", layout.BEAT_WORD),
    ]


def test_the_newest_version_stays_for_as_many_publishes_as_there_are_other_copies() -> None:
    _, writer, reader = pair()
    writer.publish(1, b"first", ts_ns=0)
    for _ in range(2):
        writer.publish(1, b"later", ts_ns=0)
        assert reader.read(1, 0) is not None
    writer.publish(1, b"third", ts_ns=0)
    assert reader.read(1, 0) is None


def test_nothing_published_yet_is_none() -> None:
    _, _, reader = pair()
    assert reader.latest(1) is None
    assert reader.linked(1, 0) is None
    assert (reader.head(1), reader.changes()) == (0, 0)


def test_a_document_that_is_not_in_the_file_is_a_key_error() -> None:
    _, writer, reader = pair()
    for call in (reader.latest, reader.head):
        with pytest.raises(KeyError):
            call(5)
    with pytest.raises(KeyError):
        writer.publish(5, b"", ts_ns=0)


def test_a_document_larger_than_its_slot_is_refused_counted_and_the_old_one_stays() -> None:
    buffer, writer, reader = pair()
    writer.publish(1, b"old", ts_ns=0)
    before = bytes(buffer)
    with pytest.raises(Refused, match="document 1 must be at most 4032 bytes, was 4033"):
        writer.publish(1, bytes(4033), ts_ns=0)
    with pytest.raises(Refused, match="out of range"):
        writer.publish(1, b"", ts_ns=-1)
    assert bytes(buffer) == before
    assert writer.refused == 2
    slot = reader.latest(1)
    assert slot is not None
    assert slot.payload == b"old"
    assert writer.publish(1, bytes(4032), ts_ns=0) == 1


def test_versions_are_found_by_the_frame_they_belong_to() -> None:
    _, writer, reader = pair()
    for frame in range(100, 107):
        writer.publish(2, oracle(frame, 100), ts_ns=0, link=frame)
    assert [frame for frame in range(95, 110) if reader.linked(2, frame)] == [104, 105, 106]
    slot = reader.linked(2, 105)
    assert slot is not None
    assert slot.payload == oracle(105, 100)


def test_latest_falls_back_while_the_newest_is_in_progress() -> None:
    buffer, writer, reader = pair()
    for version in range(3):
        writer.publish(1, oracle(version, 50), ts_ns=0, link=version)
    buffer[layout.HEADER_BYTES + 2 * 4096 + 80] ^= 1
    slot = reader.latest(1)
    assert slot is not None
    assert slot.frame_no == 1
    assert reader.retries == 1
    assert reader.linked(1, 2) is None
    for copy in range(3):
        buffer[layout.HEADER_BYTES + copy * 4096] ^= 1
    assert reader.latest(1) is None


def test_attaching_again_repairs_and_goes_on(place: Path) -> None:
    path = place / "BTC" / "documents"
    with DocumentWriter.open(path, SPEC) as writer:
        for version in range(4):
            writer.publish(1, oracle(version, 50), ts_ns=0)
        writer.publish(9, b"nine", ts_ns=0)
    raw = bytearray(path.read_bytes())
    raw[layout.HEADER_BYTES + 100] ^= 1  # copy 0 of document 1 = version 3
    path.write_bytes(raw)
    with DocumentWriter.open(path, SPEC) as writer, DocumentReader.open(path, SPEC) as reader:
        assert (writer.invalidated, writer.epoch, reader.epoch()) == (1, 2, 2)
        slot = reader.latest(1)
        assert slot is not None
        assert slot.frame_no == 2
        assert writer.publish(1, b"new", ts_ns=0) == 4, "readers may have seen version 3"
        assert reader.head(9) == 1
        assert reader.changes() == 6


def test_a_version_committed_in_its_copy_but_not_in_the_head_word_is_kept() -> None:
    buffer, writer, reader = pair()
    for version in range(2):
        writer.publish(1, oracle(version, 50), ts_ns=0)
    Words(buffer).store_release(layout.DOCUMENT_HEADS_AT // 8, 1)
    assert DocumentWriter(Words(buffer), SPEC).publish(1, b"", ts_ns=0) == 2
    assert reader.head(1) == 3


def test_locks_states_and_files(tmpfs: Path) -> None:
    path = tmpfs / "feeds.documents"
    with pytest.raises(Missing):
        DocumentReader.open(path)
    writer = DocumentWriter.open(path, feeds_spec(), epoch=3)
    with DocumentReader.open(path, feeds_spec()) as reader:
        with pytest.raises(Locked):
            DocumentWriter.open(path, feeds_spec())
        writer.publish(DocumentId.FEEDS, b"{}", ts_ns=1)
        writer.beat()
        writer.sync()
        assert writer.fd >= 0
        assert writer.uuid == reader.uuid
        assert reader.writer_state() is WriterState.LIVE
        writer.close()
        assert reader.writer_state() is WriterState.CLOSED
        assert not reader.replaced()
    with pytest.raises(Fenced):
        DocumentWriter.open(path, feeds_spec(), epoch=3)
    DocumentWriter.open(path, feeds_spec()).close()
