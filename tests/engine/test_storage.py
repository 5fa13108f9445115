"""Publication at most once, and checkpoints that are whole, of this engine, or not used."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import pytest

from mpengine.config import load
from mpengine.engine import storage
from mpengine.engine.core import CandleOut, DocumentOut, FrameOut, SymbolCore
from mpengine.engine.liquidation_maps import SaveOut
from mpengine.engine.liquidations import LiquidationOut
from mpengine.engine.storage import (
    Checkpoint,
    CheckpointError,
    CheckpointThread,
    Publisher,
    SaveThread,
    config_digest,
    encode_checkpoint,
    load_checkpoint,
    move_aside,
)
from mpengine.schemas import LevelsDocument, ZonesDocument, decode
from shm.document import DocumentReader
from shm.errors import LayoutMismatch, Locked
from shm.frame_ring import FrameReader
from shm.frames import decode as decode_frame
from shm.paths import Paths
from shm.record_ring import RecordReader
from shm.records import CANDLE_DTYPE, LIQUIDATION_DTYPE, RECORD_SCHEMA, DocumentId, PositionSide, Venue
from tests.engine.events import SECOND, T0, clock, clocks, depth, ns, snapshot
from tests.engine.test_core import ASKS, BIDS, book_start, chain

SETTINGS = load("", {})


def outputs(seconds: float) -> list[FrameOut | CandleOut | DocumentOut]:
    core = SymbolCore("BTC", SETTINGS)
    core.on_batch(book_start() + chain(0.5, seconds) + clocks(seconds, seconds))
    return core.outputs()


def test_what_was_published_before_a_restart_is_not_published_again(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    first = Publisher(paths, "BTC", event_clock=True)
    first.publish(outputs(61))
    assert (first.counts.depth, first.counts.candles, first.counts.maps, first.counts.repeated) == (2, 1, 1, 0)
    first.close()
    second = Publisher(paths, "BTC", event_clock=True)
    second.publish(outputs(121))
    assert (second.counts.depth, second.counts.candles, second.counts.maps, second.counts.repeated) == (2, 1, 1, 4)
    second.close()
    with FrameReader.open(paths.depth("BTC")) as depth, RecordReader.open(paths.candles("BTC"), CANDLE_DTYPE) as candles:
        slots = depth.history(0, depth.head()).slots
        assert [slot.frame_no for slot in slots] == [0, 1, 2, 3]
        assert len({slot.ts_ns for slot in slots}) == 4
        assert candles.head() == 2


@pytest.mark.covers("F16")
def test_what_a_wrong_clock_published_does_not_silence_the_rings(tmp_path: Path) -> None:
    core = SymbolCore("BTC", SETTINGS)
    publisher = Publisher(Paths(tmp_path, tmp_path), "BTC")
    core.on_batch(book_start() + chain(0.5, 61) + clocks(61, 61))
    core.on_batch(clock(90_000) + depth(90_000.1, 167, 168, 166, [], []) + clocks(90_001, 90_061))  # a day ahead, with frames
    publisher.publish(core.outputs())
    ahead = publisher.counts.depth
    assert ahead > 2
    core.on_batch(clocks(200, 210) + snapshot(210.1, 300, BIDS, ASKS) + depth(210.2, 299, 301, 298, [], []) + clocks(210.5, 271))
    publisher.publish(core.outputs())
    publisher.close()
    with FrameReader.open(tmp_path / "BTC" / "depth.ring") as reader:
        opened = [(slot.ts_ns - T0) // SECOND - 30 for slot in reader.history(0, reader.head()).slots]
    assert opened[:2] == [0, 30] and opened[ahead:] == [210, 240]


def test_a_ring_that_ends_in_the_future_is_not_believed_by_a_live_engine(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    core = SymbolCore("BTC", SETTINGS)
    year_2096 = 80 * 365 * 86_400.0
    core.on_batch(book_start(year_2096) + chain(year_2096 + 0.5, year_2096 + 61) + clocks(year_2096 + 61, year_2096 + 121))
    wrong = Publisher(paths, "BTC", event_clock=True)
    wrong.publish(core.outputs())
    assert wrong.counts.depth and wrong.counts.candles
    wrong.close()
    replayed = Publisher(paths, "BTC", event_clock=True)
    replayed.publish(outputs(61))
    assert (replayed.counts.depth, replayed.counts.candles) == (0, 0)  # a replay never puts older windows behind newer ones
    replayed.close()
    live = Publisher(paths, "BTC")
    live.publish(outputs(61))
    assert (live.counts.depth, live.counts.candles) == (2, 1)
    live.close()


# liquidations ----------------------------------------------------------------------------------------------------------


def liquidated(number: int, at: float) -> LiquidationOut:
    """A liquidation whose quantity tells which one it is."""
    record = np.zeros((), LIQUIDATION_DTYPE)
    record["schema"], record["venue"], record["side"] = RECORD_SCHEMA, Venue.BYBIT, PositionSide.LONG
    record["price"], record["qty_base"], record["recv_ts_ns"] = 100.0, 1.0 + number, ns(at)
    return LiquidationOut(number, ns(at), record)


def quantities(paths: Paths) -> list[float]:
    with RecordReader.open(paths.liquidations("BTC"), LIQUIDATION_DTYPE) as reader:
        numbers, rows = reader.latest(1000)
        assert numbers.tolist() == list(range(len(numbers)))
        return [float(qty) - 1 for qty in rows["qty_base"]]


def test_a_liquidation_is_published_at_once_with_its_engine_time(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    publisher = Publisher(paths, "BTC", event_clock=True)
    publisher.publish([liquidated(0, 1.5)])
    with RecordReader.open(paths.liquidations("BTC"), LIQUIDATION_DTYPE) as reader:
        slot = reader.ring.latest()
        assert slot is not None and (slot.ts_ns, slot.published_ns, slot.link) == (ns(1.5), ns(1.5), 0)
        assert slot.payload == liquidated(0, 1.5).record.tobytes()
    assert publisher.counts.liquidations == 1
    publisher.close()


@pytest.mark.parametrize("published_by_the_first", [0, 3, 7, 10])
def test_a_restarted_core_repeats_liquidations_and_none_is_published_twice_or_lost(
    tmp_path: Path, published_by_the_first: int
) -> None:
    """Killed anywhere behind its checkpoint at number 0; several of them are of one moment, as with a clock that stands still."""
    paths = Paths(tmp_path, tmp_path)
    stream = [liquidated(number, 5 + number // 4) for number in range(10)]
    first = Publisher(paths, "BTC")
    first.publish(stream[:published_by_the_first])
    first.close()
    second = Publisher(paths, "BTC")
    second.publish(stream)
    assert (second.counts.repeated, second.counts.liquidations) == (published_by_the_first, 10 - published_by_the_first)
    second.close()
    assert quantities(paths) == list(range(10))


def test_a_replay_of_the_same_capture_publishes_no_liquidation_again(tmp_path: Path) -> None:
    """Its core counts from 0 each time: times decide."""
    paths = Paths(tmp_path, tmp_path)
    for capture in ([liquidated(0, 1), liquidated(1, 1), liquidated(2, 2)], [liquidated(0, 1), liquidated(1, 1), liquidated(2, 2)],
                    [liquidated(0, 2), liquidated(1, 9), liquidated(2, 9)]):  # fmt: skip
        publisher = Publisher(paths, "BTC", event_clock=True)
        publisher.publish(capture)
        publisher.close()
    assert quantities(paths) == [0, 1, 2, 1, 2]


def test_the_newest_liquidation_of_a_wrong_clock_is_not_believed(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    first = Publisher(paths, "BTC")
    assert first.newest_liquidations == (0, 0)
    first.publish([liquidated(0, 5)])
    first.close()
    second = Publisher(paths, "BTC")
    assert second.newest_liquidations == (ns(5), 1)
    second.publish([liquidated(1, 80 * 365 * 86_400.0)])
    second.close()
    third = Publisher(paths, "BTC")
    assert third.newest_liquidations == (0, 0)
    third.close()


@pytest.mark.covers("A2-M8")
def test_map_and_documents_of_a_minute_are_of_one_state(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    publisher = Publisher(paths, "BTC", event_clock=True)
    publisher.publish(outputs(181))
    publisher.close()
    with FrameReader.open(paths.liquidation("BTC")) as maps, DocumentReader.open(paths.documents("BTC")) as documents:
        assert maps.head() == 3
        for number in range(3):  # a document keeps its last three versions
            frame = decode_frame(maps.history(number, number + 1).slots[0].payload)
            levels, zones = (documents.linked(document, number) for document in (DocumentId.LEVELS, DocumentId.ZONES))
            assert levels is not None and zones is not None
            found = decode(levels.payload, LevelsDocument)
            assert (found.written_ns, found.src, found.coverage) == (frame.close_ts_ns, frame.reference, int(frame.coverage))
            assert decode(zones.payload, ZonesDocument).written_ns == frame.close_ts_ns


def test_all_rings_are_synced_and_one_that_cannot_be_opened_locks_none(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path)
    publisher = Publisher(paths, "BTC")
    names = {Path(f"/proc/self/fd/{fd}").readlink().name for fd in publisher.fds}
    assert names == {"depth.ring", "liquidation.ring", "candles.ring", "liquidations.ring", "documents"}
    publisher.close()
    paths.documents("BTC").rename(tmp_path / "BTC" / "aside")
    paths.documents("BTC").write_bytes(b"no documents")
    with pytest.raises(LayoutMismatch):
        Publisher(paths, "BTC")
    paths.documents("BTC").unlink()
    Publisher(paths, "BTC").close()


def test_a_refused_document_is_counted_and_the_others_go_out(tmp_path: Path) -> None:
    publisher = Publisher(Paths(tmp_path, tmp_path), "BTC")
    publisher.publish([DocumentOut(DocumentId.BOOK, b"x" * (1 << 20), 1), DocumentOut(DocumentId.BOOK, b"{}", 2)])
    assert (publisher.counts.refused, publisher.counts.documents) == (1, 1)
    publisher.close()
    with DocumentReader.open(tmp_path / "BTC" / "documents") as reader:
        slot = reader.latest(DocumentId.BOOK)
        assert slot is not None and slot.payload == b"{}"


def test_a_book_document_is_linked_to_the_frame_it_goes_with(tmp_path: Path) -> None:
    """At the end of a slot to the frame of the slot, in between to the frame to come: what happened later is no part of a frame."""
    paths = Paths(tmp_path, tmp_path)
    publisher, links = Publisher(paths, "BTC"), []
    with DocumentReader.open(paths.documents("BTC")) as reader:
        for output in [*outputs(95), DocumentOut(DocumentId.BOOK, b"{}", T0 + 96 * SECOND)]:
            publisher.publish([output])
            if isinstance(output, DocumentOut) and output.document is DocumentId.BOOK:
                slot = reader.latest(DocumentId.BOOK)
                assert slot is not None
                links.append(((output.ts_ns - T0) // SECOND, slot.link))
    assert links == [(0, 0), (0, 0), (30, 0), (60, 1), (90, 2), (96, 3)]
    publisher.close()
    again = Publisher(paths, "BTC")  # a restart comes by the end of the newest slot once more
    again.publish([DocumentOut(DocumentId.BOOK, b"{}", T0 + 90 * SECOND)])
    with DocumentReader.open(paths.documents("BTC")) as reader:
        slot = reader.latest(DocumentId.BOOK)
        assert slot is not None and slot.link == 2
    again.close()


def test_one_writer_per_symbol(tmp_path: Path) -> None:
    publisher = Publisher(Paths(tmp_path, tmp_path), "BTC")
    with pytest.raises(Locked):
        Publisher(Paths(tmp_path, tmp_path), "BTC")
    publisher.close()
    Publisher(Paths(tmp_path, tmp_path), "BTC").close()


def checkpoint(symbol: str = "BTC") -> Checkpoint:
    core = SymbolCore(symbol, SETTINGS)
    core.on_batch(book_start() + clocks(0, 10))
    return Checkpoint(
        symbol=symbol, config_digest=config_digest(SETTINGS, symbol), ring_uuid=7, position=99, sources={1: (3, 500)},
        state=core.state_of(),
    )  # fmt: skip


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    path, saved = tmp_path / "checkpoint", checkpoint()
    assert load_checkpoint(path, "BTC", saved.config_digest) is None
    path.write_bytes(encode_checkpoint(saved))
    back = load_checkpoint(path, "BTC", saved.config_digest)
    assert back is not None
    assert (back.ring_uuid, back.position, back.sources) == (7, 99, {1: (3, 500)})
    core = SymbolCore("BTC", SETTINGS)
    core.restore(back.state)
    assert storage.state_digest(core.state_of()) == storage.state_digest(saved.state)


@pytest.mark.covers("T-M11")
@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d[:40], lambda d: b"", lambda d: b"X" + d[1:],
                                    lambda d: d[:100] + bytes([d[100] ^ 1]) + d[101:]])  # fmt: skip
def test_a_damaged_checkpoint_is_named_and_not_used(tmp_path: Path, damage: object) -> None:
    path, saved = tmp_path / "checkpoint", checkpoint()
    path.write_bytes(damage(encode_checkpoint(saved)))  # type: ignore[operator]
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, "BTC", saved.config_digest)
    assert caught.value.damaged
    assert move_aside(path, 5 * 10**9).name == "checkpoint.bad-5" and not path.exists()


@pytest.mark.parametrize("change", [{"symbol": "ETH"}, {"config_digest": "other"}, {"schema": 9}])
def test_a_checkpoint_of_something_else_is_ignored(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "checkpoint"
    saved = checkpoint()
    path.write_bytes(encode_checkpoint(msgspec.structs.replace(saved, **change)))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, "BTC", saved.config_digest)
    assert not caught.value.damaged


def test_settings_of_the_symbol_and_engine_decide_about_a_checkpoint() -> None:
    digest = config_digest(SETTINGS, "BTC")
    assert digest == config_digest(load("[api]\nport = 1\n[symbols.BTC]\n[symbols.ETH]\nstep = 2.0\n", {}), "BTC")
    assert digest != config_digest(load("[symbols.BTC]\nstep = 10.0\n", {}), "BTC")
    assert digest != config_digest(load("[engine]\nbook_prune_pct = 0.11\n", {}), "BTC")
    assert digest != config_digest(load("[venues.binance]\nenabled = false\n", {}), "BTC")
    assert digest != config_digest(load("[venues.bybit]\norder_book = true\n", {}), "BTC")
    assert digest != config_digest(load('[engine]\nprimary_venue = "bybit"\n', {}), "BTC")
    assert digest == config_digest(load('[venues.bybit]\ntickers = true\nws_url = "wss://elsewhere"\n', {}), "BTC")
    with mock.patch.object(storage, "STATE_SCHEMA", 99):
        assert digest != config_digest(SETTINGS, "BTC")


@pytest.mark.covers("A1-H1", "A2-M6", "E-L6")
def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_and_the_engine_alone(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(b"old")
    tried = threading.Event()

    def full(*_args: object, **_kwargs: object) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    thread = CheckpointThread(path)
    with mock.patch.object(storage, "write_atomic", full):
        thread.submit(b"new", (1, 5))
        assert tried.wait(10)
        while not thread.errors:
            os.sched_yield()
    assert (path.read_bytes(), thread.done, thread.written) == (b"old", None, 0)
    thread.submit(b"newer", (1, 6))
    assert thread.stop()
    assert (path.read_bytes(), thread.done, thread.written, thread.errors) == (b"newer", (1, 6), 1, 1)
    assert [child.name for child in tmp_path.iterdir()] == ["checkpoint"]


def test_a_file_that_cannot_be_encoded_does_not_end_the_saving_of_files(tmp_path: Path) -> None:
    thread = SaveThread(tmp_path)
    thread.submit(SaveOut("zones.json", {"weight": object()}))
    thread.submit(SaveOut("weights.json", {"weight": 1 << 70}))
    while thread.errors < 2:
        os.sched_yield()
    thread.submit(SaveOut("zones.json", {"weight": 0.5}))
    assert thread.stop()
    assert (thread.written, thread.errors) == (1, 2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"zones.json": b'{"weight":0.5}'}


@pytest.mark.covers("A1-M18", "S-H4")
def test_a_slow_disk_holds_nobody_up_and_the_newest_state_wins(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    entered, let_go, written = threading.Event(), threading.Event(), []

    def slow(_path: Path, data: bytes) -> None:
        entered.set()
        assert let_go.wait(10)
        written.append(data)

    thread = CheckpointThread(path)
    with mock.patch.object(storage, "write_atomic", slow):
        thread.submit(b"1", (1, 1))
        assert entered.wait(10)
        for n in range(2, 50):
            thread.submit(b"%d" % n, (1, n))  # returns at once although the disk hangs
        let_go.set()
        assert thread.stop()
    assert (written, thread.done) == ([b"1", b"49"], (1, 49))
