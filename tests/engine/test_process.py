"""The engine as a real process: kill -9, poison batches, replaced rings, damaged checkpoints. Its ring is fed by the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpengine.config import Settings, encode, load, resolve_directories
from mpengine.engine.core import FrameOut, SymbolCore
from mpengine.engine.liquidations import LiquidationOut
from mpengine.engine.storage import config_digest, load_checkpoint, load_json, state_digest
from mpengine.schemas import StatusDocument, decode
from shm.board import Board, BoardReader, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.document import DocumentReader
from shm.errors import ShmError
from shm.event_ring import BatchFlag, EventWriter, create_event_ring
from shm.frame_ring import FrameReader
from shm.frames import encode as encode_frame
from shm.layout import event_ring_spec
from shm.record_ring import RecordReader
from shm.records import LIQUIDATION_DTYPE, DocumentId, PositionSide
from tests.engine.events import clock, clocks, liquidation, mark
from tests.engine.known_market import KnownMarket
from tests.engine.test_core import book_start, rich_stream, split
from tests.engine.test_truth import MIX

ROW = 2
UNITS = 1 << 16
FULL_DISK = """import os
if os.environ.get('FULL_DISK'):
    import mpengine.engine.storage as storage
    def full(*_args, **_kwargs):
        raise OSError(28, 'No space left on device')
    storage.write_atomic = full
"""


def wait_for(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except ShmError:
            pass  # the file is not there yet
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


class Rig:
    """Board, event ring with its writer, and the engine process of BTC."""

    def __init__(self, folder: Path, more: str = "") -> None:
        text = f"[engine]\nring_units = {UNITS}\ncheckpoint_interval_s = 0.2\n{more}"
        self.settings: Settings = resolve_directories(load(text, {}), data=folder / "data", runtime=folder / "run")
        self.paths = self.settings.paths
        self.paths.data.mkdir()
        self.paths.runtime.mkdir()
        self.paths.settings.write_bytes(encode(self.settings))
        names = [
            RowName("supervisor", Role.SUPERVISOR, 0),
            RowName("ingest", Role.INGEST, 0),
            RowName("engine-BTC", Role.ENGINE, 0),
        ]
        self.board = Board.create(self.paths.board, names, {1: "ingest"})
        self.reader = BoardReader.open(self.paths.board)
        self.spec = event_ring_spec("BTC", UNITS)
        self.process: subprocess.Popen[bytes] | None = None
        self.seq = 0
        self.new_ring()

    def new_ring(self) -> None:
        create_event_ring(self.paths.events("BTC"), self.spec)
        self.writer = EventWriter.open(self.paths.events("BTC"), self.spec)

    def start(self, **env: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mpengine.engine.process", "--settings", str(self.paths.settings), "--symbol", "BTC",
                   "--row", str(ROW)]  # fmt: skip
        process = self.process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, **env})
        wait_for(lambda: process.poll() is not None or (self.word(Word.PID), self.word(Word.STATE)) == (process.pid, State.LIVE))
        return process

    def put(self, body: bytes, **flags: int) -> None:
        records = len(split(body))
        assert self.writer.put(body, records=records, source=1, first_seq=self.seq, **flags)
        self.seq += records

    def word(self, word: Word) -> int:
        return self.reader.get(ROW, word)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def stop(self) -> str:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        _, stderr = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, stderr.decode()
        return stderr.decode()

    def final_state(self) -> str:
        found = load_checkpoint(self.paths.checkpoint("BTC"), "BTC", config_digest(self.settings, "BTC"))
        assert found is not None
        return state_digest(found.state)

    def payloads(self) -> list[bytes]:
        with FrameReader.open(self.paths.depth("BTC")) as reader:
            return [slot.payload for slot in reader.history(0, reader.head()).slots]

    def liquidations(self) -> list[bytes]:
        with RecordReader.open(self.paths.liquidations("BTC"), LIQUIDATION_DTYPE) as reader:
            numbers, rows = reader.latest(10_000)
            assert numbers.tolist() == list(range(len(numbers)))
            return [row.tobytes() for row in rows]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if self.process is not None and self.process.stderr is not None:
            self.process.stderr.close()
        self.writer.close()
        self.reader.close()
        self.board.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    one = Rig(tmp_path)
    try:
        yield one
    finally:
        one.close()


def python_path(first: Path) -> str:
    return os.pathsep.join((str(first), os.environ.get("PYTHONPATH", "")))


def undisturbed(settings: Settings, body: bytes) -> tuple[str, list[bytes]]:
    core = SymbolCore("BTC", settings)
    core.on_batch(body)
    return state_digest(core.state_of()), [encode_frame(out.frame) for out in core.outputs() if isinstance(out, FrameOut)]


@pytest.mark.slow
@pytest.mark.covers("F2", "E-M6")
def test_kill_9_again_and_again_ends_in_the_state_of_one_that_never_stopped(rig: Rig) -> None:
    records = split(book_start() + rich_stream(0, 1500))
    rig.start()
    for number, start in enumerate(range(0, len(records), 40)):
        rig.put(b"".join(records[start : start + 40]))
        if number % 12 == 11:
            # Past what the process before it was killed in: a record that two of them die in is put aside.
            wait_for(lambda: rig.word(Word.PROGRESS) > 0 and rig.word(Word.CRASH_POSITION) == 0)
            rig.kill()
            rig.start()
    rig.stop()
    state, frames = undisturbed(rig.settings, b"".join(records))
    assert rig.final_state() == state
    assert rig.payloads() == frames and len(frames) == 9


@pytest.mark.slow
def test_the_ring_is_released_only_behind_a_checkpoint(rig: Rig) -> None:
    rig.start()
    rig.put(book_start())
    wait_for(lambda: rig.word(Word.PROGRESS) == 3)
    wait_for(lambda: rig.word(Word.CHECKPOINTS) > 0 and rig.writer.fill() == 0.0)
    found = load_checkpoint(rig.paths.checkpoint("BTC"), "BTC", config_digest(rig.settings, "BTC"))
    assert found is not None and found.position == rig.writer.head and found.sources == {1: (rig.writer.epoch, 3)}
    rig.stop()


@pytest.mark.slow
def test_resync_requests_and_figures_reach_the_board(rig: Rig) -> None:
    rig.start()
    rig.put(clocks(0, 2))
    wait_for(lambda: rig.word(Word.RESYNC_ASKED_BINANCE) == 1)
    rig.put(book_start(2.1)[64:] + clocks(2.25, 31))
    wait_for(lambda: rig.word(Word.HEAD_DEPTH) == 1 and rig.word(Word.DEPTH_FRAMES) == 1 and rig.word(Word.EVENTS) > 100)
    assert rig.word(Word.SNAPSHOTS) == 1 and rig.word(Word.DEPTH_WRITE_NS_SUM) == rig.word(Word.DEPTH_WRITE_NS) > 0
    assert rig.word(Word.BACKLOG) == 0 and rig.word(Word.LAST_INPUT_NS) > 0
    rig.stop()


@pytest.mark.slow
@pytest.mark.covers("F8")
def test_a_record_that_killed_two_processes_is_put_aside(rig: Rig, tmp_path: Path) -> None:
    # A record that kills the process cannot be made with data alone, so the test breaks one handler of this process.
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('POISON'):\n"
        "    from mpengine.engine.core import SymbolCore\n"
        "    SymbolCore._on_touch = lambda self, body, offset: os.kill(os.getpid(), 9)\n",
        encoding="utf-8",
    )
    env = {"POISON": "1", "PYTHONPATH": python_path(tmp_path)}
    poison = bytes([10]) + bytes(63)
    rig.put(book_start() + clocks(0, 5))
    rig.put(clock(5.5) + poison + clock(5.75))
    rig.put(clocks(6, 10))
    for _ in range(3):  # the first death names the batch, the next two the record
        process = rig.start(**env)
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL
    rig.start(**env)
    wait_for(lambda: rig.word(Word.QUARANTINED) == 1 and rig.word(Word.PROGRESS) > 10)
    rig.stop()
    (kept,) = (rig.paths.symbol_dir("BTC")).glob("quarantine-*.bin")
    assert kept.read_bytes() == poison
    assert (rig.word(Word.GAPS), rig.word(Word.EVENTS)) == (1, 3 + 21 + 2 + 17)


@pytest.mark.slow
def test_processes_killed_in_different_places_of_a_batch_lose_nothing(rig: Rig) -> None:
    """What looks like a crash in a batch may be somebody's kill: only the same record twice is poison."""
    records = split(book_start() + rich_stream(0, 200))
    rig.put(b"".join(records))
    row = BoardRow.attach(rig.paths.board, ROW)
    row.set(Word.IN_FLIGHT_POSITION, 1)
    row.set(Word.IN_FLIGHT_RECORD, 3)
    row.set(Word.CRASH_POSITION, 1)
    row.set(Word.CRASH_RECORD, 2)
    row.set(Word.CRASHES_THERE, 1)
    row.close()
    rig.start()
    wait_for(lambda: rig.word(Word.PROGRESS) == len(records))
    assert (rig.word(Word.CRASH_POSITION), rig.word(Word.CRASH_RECORD), rig.word(Word.QUARANTINED)) == (0, 0, 0)
    rig.stop()
    assert rig.final_state() == undisturbed(rig.settings, b"".join(records))[0]


@pytest.mark.slow
def test_a_new_event_ring_is_noticed_and_counted_as_a_gap(rig: Rig) -> None:
    rig.start()
    rig.put(book_start() + clocks(0, 3))
    wait_for(lambda: rig.word(Word.PROGRESS) > 10)
    rig.writer.close()
    rig.new_ring()
    rig.seq = 0
    rig.put(clocks(4, 6))
    wait_for(lambda: rig.word(Word.GAPS) == 1 and rig.word(Word.EVENTS) > 20)
    assert "replaced" in rig.stop()


@pytest.mark.slow
def test_running_numbers_that_jump_are_a_gap_although_no_flag_says_so(rig: Rig) -> None:
    rig.start()
    rig.put(book_start() + clocks(0, 3))
    rig.seq += 7
    rig.put(clocks(3.25, 4))
    rig.put(clocks(4.25, 5))
    wait_for(lambda: rig.word(Word.EVENTS) == 24 and rig.word(Word.GAPS) == 1)
    rig.stop()


@pytest.mark.slow
def test_the_gap_flag_of_a_batch_is_a_gap_and_a_batch_that_comes_twice_is_applied_once(rig: Rig) -> None:
    rig.start()
    rig.put(book_start() + clocks(0, 3))
    rig.put(clocks(3.25, 4), flags=BatchFlag.GAP)
    wait_for(lambda: rig.word(Word.EVENTS) == 20 and rig.word(Word.GAPS) == 1)
    rig.seq -= 4
    rig.put(clocks(3.25, 4))
    rig.put(clocks(4.25, 5))
    wait_for(lambda: rig.word(Word.EVENTS) == 24 and rig.word(Word.DUPLICATES_SKIPPED) == 4)
    assert rig.word(Word.GAPS) == 1
    rig.stop()


@pytest.mark.slow
def test_an_older_checkpoint_than_the_ring_still_holds_is_a_gap(rig: Rig) -> None:
    path = rig.paths.checkpoint("BTC")
    rig.start()
    rig.put(book_start())
    wait_for(lambda: path.exists() and rig.word(Word.CHECKPOINT_POSITION) == rig.writer.head)
    old = path.read_bytes()
    rig.put(clocks(1, 3))
    wait_for(lambda: rig.word(Word.CHECKPOINT_POSITION) == rig.writer.head)
    rig.stop()
    path.write_bytes(old)
    rig.start()
    wait_for(lambda: rig.word(Word.GAPS) == 1)
    assert "no longer holds" in rig.stop()


@pytest.mark.slow
@pytest.mark.covers("F12")
def test_a_disk_that_takes_no_checkpoint_does_not_stop_the_engine(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FULL_DISK, encoding="utf-8")
    rig.start(FULL_DISK="1", PYTHONPATH=python_path(tmp_path))
    rig.put(book_start())
    batch = clocks(1, 1) * 4000
    for _ in range(3 * UNITS // 4000):
        wait_for(lambda: rig.writer.fill() < 0.9)
        rig.put(batch)
    wait_for(lambda: rig.word(Word.EVENTS) == 3 + 3 * UNITS // 4000 * 4000)
    assert rig.word(Word.GAPS) == 0 and rig.word(Word.WRITE_ERRORS) > 0


@pytest.mark.slow
@pytest.mark.covers("T-M11")
def test_a_damaged_checkpoint_is_moved_aside_and_the_engine_starts(rig: Rig) -> None:
    rig.paths.symbol_dir("BTC").mkdir()
    rig.paths.checkpoint("BTC").write_bytes(b"rubbish")
    rig.start()
    rig.put(book_start())
    wait_for(lambda: rig.word(Word.PROGRESS) == 3)
    log = rig.stop()
    assert "checkpoint damaged" in log and "Traceback" in log
    assert len(list(rig.paths.symbol_dir("BTC").glob("checkpoint.bad-*"))) == 1


@pytest.mark.slow
def test_the_last_word_of_a_stopped_engine(rig: Rig) -> None:
    rig.start()
    rig.put(book_start() + clock(7))
    wait_for(lambda: rig.word(Word.PROGRESS) == 4)
    rig.stop()
    with DocumentReader.open(rig.paths.documents("BTC")) as reader:
        slot = reader.latest(DocumentId.STATUS)
        assert slot is not None
        status = decode(slot.payload, StatusDocument)
        assert (status.state, status.fatal_error, reader.writer_state().name) == ("stopped", None, "CLOSED")


@pytest.mark.slow
def test_rates_that_are_only_assumed_are_warned_of(rig: Rig, tmp_path: Path) -> None:
    """Section 2: a symbol that no bracket table knows counts with a default, and its start says so."""
    (tmp_path / "other").mkdir()
    unknown = Rig(tmp_path / "other", "[symbols.BTC]\ndefault_mmr = 0.0075\n[symbols.BTC.brackets]\n")
    try:
        for one in (rig, unknown):
            one.start()
        assert "has no maintenance brackets" not in rig.stop()
        said = unknown.stop()
        assert "BTC has no maintenance brackets: default_mmr 0.0075" in said and '"WARNING"' in said
    finally:
        unknown.close()


@pytest.mark.slow
@pytest.mark.covers("A1-L17", "P6", "T-H3")
def test_boot_failures_are_code_3_with_a_reason(rig: Rig, tmp_path: Path) -> None:
    process = rig.start()
    command = [sys.executable, "-m", "mpengine.engine.process", "--settings", str(rig.paths.settings), "--symbol", "BTC"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 3 and "Locked" in second.stderr
    process.kill()
    process.communicate()
    rig.paths.depth("BTC").rename(rig.paths.depth("BTC").with_name("x"))
    rig.paths.candles("BTC").rename(rig.paths.depth("BTC"))
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert wrong.returncode == 3 and "Mismatch" in wrong.stderr and "Traceback" not in wrong.stderr


# liquidations ----------------------------------------------------------------------------------------------------------


def cascade(start: int, stop: int) -> list[bytes]:
    """Three liquidations and a mark each fifth of a second; two of the three at the same moment."""
    records = []
    for n in range(start, stop):
        at, qty = n * 0.2, 0.1 + n / 100
        records.append(mark(at, 100_000.0))
        records += [liquidation(at + 0.01, PositionSide.LONG, 99_600.0, qty + k / 1000) for k in range(2)]
        records.append(liquidation(at + 0.02, PositionSide.SHORT, 100_400.0, qty))
    return records


def undisturbed_liquidations(settings: Settings, body: bytes) -> list[bytes]:
    core = SymbolCore("BTC", settings)
    core.on_batch(body)
    return [out.record.tobytes() for out in core.outputs() if isinstance(out, LiquidationOut)]


@pytest.mark.slow
@pytest.mark.covers("F2", "E-M6")
def test_kill_9_publishes_each_liquidation_exactly_once(rig: Rig) -> None:
    records = cascade(0, 300)
    rig.start()
    for number, start in enumerate(range(0, len(records), 50)):
        rig.put(b"".join(records[start : start + 50]))
        if number % 4 == 3:
            wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) > 0)
            rig.kill()
            rig.start()
    rig.stop()
    expected = undisturbed_liquidations(rig.settings, b"".join(records))
    assert len(expected) == 900 and rig.liquidations() == expected
    assert rig.word(Word.HEAD_LIQUIDATIONS) == 900


@pytest.mark.slow
def test_without_the_checkpoint_no_liquidation_is_published_twice(rig: Rig) -> None:
    """The events since the last release are read again by a core that knows nothing."""
    records = cascade(0, 200)
    rig.start()
    rig.put(b"".join(records[:400]))
    wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) == 300)
    rig.kill()
    rig.paths.checkpoint("BTC").unlink(missing_ok=True)
    rig.start()
    rig.put(b"".join(records[400:]))
    wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) == 600)
    rig.stop()
    assert rig.liquidations() == undisturbed_liquidations(rig.settings, b"".join(records))


@pytest.mark.slow
def test_a_liquidation_ring_that_was_lost_goes_on_and_is_still_at_most_once(rig: Rig, tmp_path: Path) -> None:
    """Even if the engine dies again before a checkpoint knows of the new ring."""
    (tmp_path / "sitecustomize.py").write_text(FULL_DISK, encoding="utf-8")
    records = cascade(0, 300)
    rig.start()
    rig.put(b"".join(records[:400]))
    wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) == 300)
    rig.stop()
    rig.paths.liquidations("BTC").unlink()
    rig.start(FULL_DISK="1", PYTHONPATH=python_path(tmp_path))
    rig.put(b"".join(records[400:800]))
    wait_for(lambda: rig.word(Word.EVENTS) == 800 and rig.word(Word.HEAD_LIQUIDATIONS) == 300)
    rig.kill()
    rig.start()
    rig.put(b"".join(records[800:]))
    wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) == 600)
    rig.stop()
    assert rig.liquidations() == undisturbed_liquidations(rig.settings, b"".join(records))[300:]


@pytest.mark.slow
def test_a_liquidation_ring_that_was_put_back_from_a_copy_loses_and_repeats_no_new_one(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(FULL_DISK, encoding="utf-8")
    records = cascade(0, 300)
    rig.start()
    rig.put(b"".join(records[:400]))
    wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) == 300)
    rig.stop()
    copy = rig.paths.liquidations("BTC").read_bytes()
    rig.start()
    rig.put(b"".join(records[400:800]))
    wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) == 600)
    rig.stop()
    rig.paths.liquidations("BTC").write_bytes(copy)
    rig.start(FULL_DISK="1", PYTHONPATH=python_path(tmp_path))
    rig.put(b"".join(records[800:]))
    wait_for(lambda: rig.word(Word.EVENTS) == 1200 and rig.word(Word.HEAD_LIQUIDATIONS) == 600)
    rig.kill()  # the checkpoint is of the ring before, which had as many by then
    rig.start()
    rig.stop()
    expected = undisturbed_liquidations(rig.settings, b"".join(records))
    assert rig.liquidations() == expected[:300] + expected[600:]


@pytest.mark.slow
def test_after_a_new_event_ring_liquidations_go_on_behind_those_of_the_ring(rig: Rig) -> None:
    """What happened between the checkpoint and the kill cannot be read again: its numbers must not be waited for."""
    records = cascade(0, 200)
    rig.start()
    rig.put(b"".join(records[:200]))
    wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) == 150 and rig.paths.checkpoint("BTC").exists())
    old = rig.paths.checkpoint("BTC").read_bytes()
    rig.put(b"".join(records[200:400]))
    wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) == 300)
    rig.kill()
    rig.paths.checkpoint("BTC").write_bytes(old)
    rig.writer.close()
    rig.paths.events("BTC").unlink()
    rig.new_ring()
    rig.seq = 0
    rig.start()
    rig.put(b"".join(records[400:]))
    wait_for(lambda: rig.word(Word.HEAD_LIQUIDATIONS) == 600)
    rig.stop()
    assert rig.liquidations() == undisturbed_liquidations(rig.settings, b"".join(records))


@pytest.mark.slow
@pytest.mark.covers("P11")
def test_a_stop_leaves_files_and_logs_and_a_start_without_a_checkpoint_goes_on_from_them(rig: Rig) -> None:
    market = KnownMarket(1, MIX)
    rig.start()
    for _ in range(35):
        rig.put(market.minute())
    rig.stop()
    folder = rig.paths.symbol_dir("BTC")
    weights = load_json(folder / "liq_calibrator_weights_BTC.json")
    zones = load_json(folder / "liq_active_zones_BTC.json")
    assert weights is not None and zones is not None and len(zones["zones"]["bucket"]) > 0
    assert weights["calibration_count"] >= 2
    lines = {path.name: path.read_text().splitlines() for path in (folder / "logs").iterdir()}
    assert len(lines["liq_cycles_BTC.jsonl"]) >= 35 and len(lines["liq_tape_BTC.jsonl"]) == len(market.liquidated)
    with FrameReader.open(rig.paths.liquidation("BTC")) as reader:
        frames = reader.head()
    assert frames == 35
    rig.paths.checkpoint("BTC").unlink()
    (folder / "liq_active_zones_BTC.json").write_text('{"zones":')
    rig.start()
    stderr = rig.stop()
    assert "liq_active_zones_BTC.json cannot be read" in stderr
    again = load_json(folder / "liq_calibrator_weights_BTC.json")
    assert again is not None and again["weights"] == weights["weights"]
