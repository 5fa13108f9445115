"""Board: who writes which words, labels in the file, states of rows; many processes are in tests/stress."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from shm import layout
from shm.board import Board, BoardReader, BoardRow, RowName, board_text, label, parse_text
from shm.board_words import ROW_WORDS, SUPERVISOR_FIRST, Role, State, Word
from shm.errors import LayoutMismatch, Locked, Missing, Refused
from shm.frame_ring import FrameWriter
from shm.layout import depth_spec
from shm.liveness import Probe, WriterState

ROWS = [RowName("supervisor", Role.SUPERVISOR, 0), RowName("ingest", Role.INGEST, 0), RowName("engine-BTC", Role.ENGINE, 0)]
SOURCES = {1: "binance-trades-0", 7: "bybit-depth-0"}


def test_names_roles_sources_and_labels_are_in_the_file(tmpfs: Path) -> None:
    path = tmpfs / "board"
    with Board.create(path, ROWS, SOURCES), BoardReader.open(path) as reader:
        assert reader.names() == ["supervisor", "ingest", "engine-BTC"]
        assert reader.rows() == ROWS
        assert reader.sources() == SOURCES
        assert (reader.row_of("engine-BTC"), reader.row_of("nobody")) == (2, None)
        assert reader.labels() == {label(word): int(word) for word in Word}
    text = path.read_bytes()[layout.HEADER_BYTES + 64 * 1024 :].rstrip(b"\0")
    assert json.loads(text)["words"]["beat_ns"] == 8


def test_a_process_writes_its_lines_and_the_supervisor_its_own(tmpfs: Path) -> None:
    path = tmpfs / "board"
    with Board.create(path, ROWS, {}) as board, BoardRow.attach(path, 2) as row, BoardReader.open(path) as reader:
        view = board.supervisor_view(2)
        row.set(Word.BACKLOG, 5)
        row.add(Word.EVENTS)
        row.add(Word.EVENTS, 9)
        view.set(Word.DESIRED, State.LIVE)
        view.add(Word.RESTARTS)
        view.add(Word.RESTARTS, 2)
        assert (reader.get(2, Word.BACKLOG), reader.get(2, Word.EVENTS)) == (5, 10)
        assert (reader.get(2, Word.DESIRED), reader.get(2, Word.RESTARTS)) == (State.LIVE, 3)
        assert (row.get(Word.RESTARTS), view.get(Word.EVENTS)) == (3, 10)
        assert not any(reader.row(1).values())
        for word in (SUPERVISOR_FIRST, ROW_WORDS, -1):
            with pytest.raises(ValueError, match="word must be 0 to 103"):
                row.set(word, 1)
        for word in (SUPERVISOR_FIRST - 1, ROW_WORDS, -1):
            with pytest.raises(ValueError, match="word must be 104 to 127"):
                view.set(word, 1)
            with pytest.raises(ValueError, match="word must be 104 to 127"):
                view.add(word)


def test_rows_and_words_that_are_not_there_are_refused(tmpfs: Path) -> None:
    path = tmpfs / "board"
    with Board.create(path, ROWS, {}) as board, BoardReader.open(path) as reader:
        for row in (-1, 64):
            with pytest.raises(ValueError, match="row must be 0 to 63"):
                BoardRow.attach(path, row)
            with pytest.raises(ValueError, match="row must be 0 to 63"):
                board.supervisor_view(row)
            with pytest.raises(ValueError, match="row must be 0 to 63"):
                reader.get(row, 0)
        for word in (-1, 128):
            with pytest.raises(ValueError, match="word must be 0 to 127"):
                reader.get(0, word)


def test_the_first_and_last_word_of_the_last_row_are_inside_the_file(tmpfs: Path) -> None:
    path = tmpfs / "board"
    with Board.create(path, ROWS, {}) as board, BoardRow.attach(path, 63) as row, BoardReader.open(path) as reader:
        row.set(0, 1)
        board.supervisor_view(63).set(127, 2)
        assert (reader.get(63, 0), reader.get(63, 127)) == (1, 2)
        assert reader.names() == [row.name for row in ROWS]


def test_more_than_64_rows_make_a_longer_board(tmpfs: Path) -> None:
    path = tmpfs / "board"
    many = [RowName(f"w{number}", Role.API_WORKER, number) for number in range(70)]
    with Board.create(path, many, {}), BoardRow.attach(path, 69) as row, BoardReader.open(path) as reader:
        row.set(Word.TURNS, 3)
        assert reader.get(69, Word.TURNS) == 3


def test_start_says_who_and_keeps_the_counters(tmpfs: Path) -> None:
    path = tmpfs / "board"
    with Board.create(path, ROWS, {}), BoardReader.open(path) as reader:
        for epoch in (1, 2):
            before = time.time_ns()
            with BoardRow.attach(path, 1) as row:
                row.start(Role.INGEST, 3, epoch)
                row.add(Word.EVENTS, 5)
                shown = reader.row(1)
            assert (shown["pid"], shown["role"], shown["epoch"], shown["state"]) == (os.getpid(), 2003, epoch, State.STARTING)
            assert before <= shown["started_ns"] <= time.time_ns()
            assert shown["events"] == 5 * epoch, "counters only rise, a restart shows in the epoch"


def test_states_of_a_row(tmpfs: Path) -> None:
    path, clock = tmpfs / "board", [0]
    probe = Probe(monotonic_ns=lambda: clock[0])
    with Board.create(path, ROWS, {}), BoardRow.attach(path, 1) as row, BoardReader.open(path, probe=probe) as reader:
        assert reader.row_state(1) is WriterState.CLOSED
        row.start(Role.INGEST, 0, 1)
        row.beat(1_000)
        clock[0] = 1_000 + 5_000_000_000
        assert reader.row_state(1) is WriterState.LIVE
        clock[0] += 1
        assert reader.row_state(1) is WriterState.STALLED
        row.set(Word.START_TICKS, 1)
        assert reader.row_state(1) is WriterState.DEAD
        row.set(Word.STATE, State.STOPPED)
        assert reader.row_state(1) is WriterState.CLOSED


def test_the_supervisor_has_a_row_of_its_own(tmpfs: Path) -> None:
    path = tmpfs / "board"
    with Board.create(path, ROWS, {}) as board, BoardReader.open(path) as reader:
        board.row().start(Role.SUPERVISOR, 0, 4)
        board.beat()
        assert reader.get(0, Word.EPOCH) == 4
        assert (reader.writer_state(), reader.epoch()) == (WriterState.LIVE, 1)


def test_one_supervisor_and_a_board_that_is_replaced(tmpfs: Path) -> None:
    path = tmpfs / "board"
    board = Board.create(path, ROWS, {})
    with pytest.raises(Locked):
        Board.create(path, ROWS, {})
    reader = BoardReader.open(path)
    board.close()
    assert reader.writer_state() is WriterState.CLOSED
    assert not reader.replaced()
    second = Board.create(path, ROWS, {})
    assert reader.replaced()
    assert reader.names(), "the old map stays readable"
    board.unlink()
    assert path.exists(), "a closed board removes nothing"
    second.unlink()
    second.unlink()
    assert not path.exists()
    second.close()
    reader.close()
    with pytest.raises(Missing):
        BoardReader.open(path)
    with pytest.raises(Missing):
        BoardRow.attach(path, 0)


def test_text_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Refused, match="label text must be at most 8192 bytes"):
        board_text(ROWS, dict.fromkeys(range(100), "x" * 100))


def test_a_full_house_of_rows_and_sources_fits() -> None:
    rows = [RowName(f"engine-SYMBOL{number:02d}USDT", Role.ENGINE, number) for number in range(64)]
    sources = {number: f"binance-depth-{number}" for number in range(80)}
    assert len(board_text(rows, sources)) <= 8192


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b'{"words":[],"rows":[],"sources":{}}', b'{"words":{},"rows":[[1]],"sources":{}}']
)
def test_unreadable_text_is_a_layout_mismatch(raw: bytes) -> None:
    with pytest.raises(LayoutMismatch, match="label text of the board is not readable"):
        parse_text(raw)


def test_labels_of_another_version_are_read_from_the_file() -> None:
    labels, rows, sources = parse_text(b'{"words":{"new_word":5,"outside":900},"rows":[["x",3,0]],"sources":{"2":"s"}}\0\0')
    assert (labels, rows, sources) == ({"new_word": 5}, [RowName("x", Role.ENGINE, 0)], {2: "s"})


def test_a_file_that_is_no_board_is_refused(tmpfs: Path) -> None:
    path = tmpfs / "depth.ring"
    FrameWriter.open(path, depth_spec("BTC", 8)).close()
    with pytest.raises(LayoutMismatch, match="must be a board, was FRAMES"):
        BoardRow.attach(path, 0)
    with pytest.raises(LayoutMismatch, match="must be a board"):
        BoardReader.open(path)
