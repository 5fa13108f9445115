"""The handful of calls everybody else relies on, end to end in one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shm.board import Board, BoardReader, BoardRow, RowName
from shm.board_words import Role, Word
from shm.document import DocumentReader, DocumentWriter
from shm.event_ring import EventReader, EventWriter, create_event_ring
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import candles_spec, depth_spec, documents_spec, event_ring_spec
from shm.liveness import WriterState
from shm.record_ring import RecordReader, RecordWriter
from shm.records import CANDLE_DTYPE, DocumentId, pack_clock


def test_a_frame_comes_out_as_it_went_in(tmpfs: Path) -> None:
    path = tmpfs / "BTC" / "depth.ring"
    with FrameWriter.open(path, depth_spec("BTC", 8)) as writer, FrameReader.open(path, depth_spec("BTC", 8)) as reader:
        assert reader.latest() is None
        assert writer.publish(b"abc", ts_ns=5, kind=1, flags=3, published_ns=6) == 0
        slot = reader.latest()
        assert slot is not None
        assert (slot.frame_no, slot.epoch, slot.ts_ns, slot.published_ns, slot.kind, slot.flags) == (0, 1, 5, 6, 1, 3)
        assert slot.payload == b"abc"
        assert reader.writer_state() is WriterState.LIVE
    assert not path.with_name("x").exists()


def test_records_come_out_as_one_structured_array(tmpfs: Path) -> None:
    path = tmpfs / "BTC" / "candles.ring"
    with RecordWriter.open(path, candles_spec("BTC", 16), CANDLE_DTYPE) as writer:
        for n in range(20):
            record = np.zeros((), CANDLE_DTYPE)
            record["close"] = n
            writer.append(record, ts_ns=n)
        with RecordReader.open(path, CANDLE_DTYPE) as reader:
            numbers, records = reader.latest(5)
    assert numbers.tolist() == [15, 16, 17, 18, 19]
    assert records["close"].tolist() == [15.0, 16.0, 17.0, 18.0, 19.0]


def test_a_batch_comes_out_as_it_went_in(tmpfs: Path) -> None:
    path, spec = tmpfs / "events-BTC.ring", event_ring_spec("BTC", 64)
    create_event_ring(path, spec)
    with EventWriter.open(path, spec) as writer, EventReader.open(path, spec) as reader:
        assert writer.put(pack_clock(7) * 2, records=2, source=3, first_seq=10, flushed_ns=8)
        batch = reader.get()
        assert batch is not None
        assert (batch.position, batch.end, batch.source, batch.epoch, batch.first_seq, batch.records) == (0, 3, 3, 1, 10, 2)
        assert batch.body == pack_clock(7) * 2
        assert reader.get() is None


def test_a_document_is_found_by_its_link(tmpfs: Path) -> None:
    path = tmpfs / "BTC" / "documents"
    with DocumentWriter.open(path, documents_spec("BTC")) as writer, DocumentReader.open(path) as reader:
        writer.publish(DocumentId.LEVELS, b"{}", ts_ns=1, link=77)
        writer.publish(DocumentId.LEVELS, b"[]", ts_ns=2, link=78)
        linked = reader.linked(DocumentId.LEVELS, 77)
        assert linked is not None
        assert linked.payload == b"{}"
        assert reader.head(DocumentId.LEVELS) == 2


def test_the_board_shows_what_a_process_and_the_supervisor_say(tmpfs: Path) -> None:
    path = tmpfs / "board"
    names = [RowName("supervisor", Role.SUPERVISOR, 0), RowName("ingest", Role.INGEST, 0)]
    with Board.create(path, names, {4: "bybit-trades"}) as board, BoardRow.attach(path, 1) as row:
        row.start(Role.INGEST, 0, 1)
        row.add(Word.EVENTS, 5)
        board.supervisor_view(1).set(Word.RESTARTS, 2)
        with BoardReader.open(path) as reader:
            assert reader.row(1)["events"] == 5
            assert reader.get(1, Word.RESTARTS) == 2
            assert reader.row_of("ingest") == 1
            assert reader.row_state(1) is WriterState.LIVE
            assert reader.sources() == {4: "bybit-trades"}
