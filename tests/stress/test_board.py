"""Board and documents under load: exact sums, counters that only rise, a document that always belongs to its frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shm.board import Board, BoardReader, RowName
from shm.board_words import Role, Word
from shm.document import DocumentReader, DocumentWriter
from shm.errors import Refused
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import feeds_spec
from shm.records import DocumentId
from tests.shm.rig import Child, oracle, plain_spec, wait_until

pytestmark = pytest.mark.slow
Spawn = Callable[..., Child]
stress = pytest.mark.stress


@pytest.mark.timeout(600)
@pytest.mark.covers("E-C1", "A2-H1")
@pytest.mark.parametrize(("writers", "times"), [(4, 20_000), pytest.param(8, 2_000_000, marks=stress)])
def test_sums_are_exact_and_a_reader_sees_them_rise(spawn: Spawn, tmpfs: Path, writers: int, times: int) -> None:
    path = tmpfs / "board"
    names = [RowName("supervisor", Role.SUPERVISOR, 0), *(RowName(f"w{n}", Role.TOOL, n) for n in range(1, writers + 1))]
    with Board.create(path, names, {}) as board, BoardReader.open(path) as reader:
        children = [spawn("incrementer", path, row, times) for row in range(1, writers + 1)]
        for child in children:
            child.expect("started")
        for child in children:
            child.tell("go")
        last = [reader.row(row) for row in range(writers + 1)]
        rounds = 0
        while any(reader.get(row, Word.EVENTS) < times for row in range(1, writers + 1)):
            for row in range(1, writers + 1):
                board.supervisor_view(row).add(Word.KILLS)
                now = reader.row(row)
                rising = ("events", "batches", "beat_ns", "kills")
                assert all(now[label] >= last[row][label] for label in rising)
                assert now["role"] == Role.TOOL * 1000 + row
                last[row] = now
            rounds += 1
        for child in children:
            child.expect("done")
        for row in range(1, writers + 1):
            assert reader.get(row, Word.EVENTS) == times
            assert reader.get(row, Word.BATCHES) == 3 * times
            assert reader.get(row, Word.KILLS) == rounds
        print(f"{writers} writers x {times}: sums exact, {rounds} rounds of reading")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds", [1.5, pytest.param(60.0, marks=stress)])
def test_a_document_always_belongs_to_its_frame(spawn: Spawn, tmpfs: Path, seconds: float) -> None:
    ring, documents = tmpfs / "depth.ring", tmpfs / "documents"
    FrameWriter.open(ring, plain_spec(8, 4096)).close()
    with DocumentWriter.open(documents, feeds_spec()) as writer:
        for _ in range(3):
            with pytest.raises(Refused):
                writer.publish(DocumentId.FEEDS, bytes(256 * 1024), ts_ns=0)
        assert writer.refused == 3
    spawn("minute-writer", ring, documents).expect("attached")
    linked = unlinked = 0
    with FrameReader.open(ring) as frames, DocumentReader.open(documents) as papers:
        wait_until(lambda: frames.head() > 10, "frames")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            frame = frames.latest()
            newest = papers.latest(DocumentId.FEEDS)
            if newest is not None:
                assert newest.payload == oracle(newest.link, 5000 + newest.link % 3000)
            paper = papers.linked(DocumentId.FEEDS, frame.frame_no) if frame else None
            if frame is None or paper is None:
                unlinked += 1
                continue
            assert frame.payload == oracle(frame.frame_no, 500)
            assert paper.link == frame.frame_no
            assert paper.payload == oracle(frame.frame_no, 5000 + frame.frame_no % 3000)
            linked += 1
    print(f"{linked} frames with their documents, {unlinked} not to be had together at full speed")
    assert linked > 0
