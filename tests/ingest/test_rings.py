"""Batches in real rings: what is put is read, what is refused is counted and marked."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpengine.ingest.counts import Counts
from mpengine.ingest.rings import SOURCE, Rings, open_rings
from mpengine.ingest.routing import Ready
from shm.board_words import Word
from shm.errors import Locked, Missing
from shm.event_ring import BatchFlag, EventReader, create_event_ring
from shm.layout import event_ring_spec
from shm.records import Kind, decode, pack_clock

UNITS = 64


def ready(n: int, units: int = 1, *, clock: bool = False) -> Ready:
    return Ready("BTC", pack_clock(n) + bytes(64 * (units - 1)), units, n, clock)


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    path = tmp_path / "events-BTC.ring"
    create_event_ring(path, event_ring_spec("BTC", UNITS))
    return path


def opened(path: Path) -> tuple[Rings, Counts]:
    counts = Counts()
    return open_rings({"BTC": path}, UNITS, counts), counts


def test_batches_reach_the_reader_with_their_numbers_and_flags(ring: Path) -> None:
    rings, counts = opened(ring)
    with EventReader.open(ring) as reader:
        rings.put(ready(0))
        rings.put(ready(1, clock=True))
        rings.beat()
        first, second = reader.get(), reader.get()
        assert first is not None
        assert second is not None
        assert (first.source, first.first_seq, first.records, first.flags) == (SOURCE, 0, 1, BatchFlag.NONE)
        assert (second.first_seq, second.flags) == (1, BatchFlag.CLOCK_ONLY)
        assert counts.get(Word.BATCHES) == 2
    rings.close()


@pytest.mark.covers("F1")
def test_the_first_batch_after_a_restart_carries_the_gap(ring: Path) -> None:
    opened(ring)[0].close()
    rings, _ = opened(ring)
    with EventReader.open(ring) as reader:
        rings.put(ready(0))
        rings.put(ready(1))
        flags = [batch.flags for batch in (reader.get(), reader.get()) if batch]
        assert flags == [BatchFlag.GAP, BatchFlag.NONE]
    rings.close()


@pytest.mark.covers("E-H7")
def test_a_full_ring_drops_the_newest_counts_and_says_so_once(ring: Path, caplog: pytest.LogCaptureFixture) -> None:
    rings, counts = opened(ring)
    with EventReader.open(ring) as reader:
        for n in range(UNITS):
            rings.put(ready(n))
        rings.publish_losses()
        dropped = counts.get(Word.DROPPED_BATCHES)
        assert dropped == counts.get(Word.DROPPED_RECORDS) == UNITS - UNITS // 2
        assert counts.get(Word.GAPS) == 1
        while reader.get():
            pass
        reader.release(reader.position)
        rings.put(ready(UNITS))
        batch = reader.get()
        assert batch is not None
        assert (batch.first_seq, batch.flags) == (UNITS, BatchFlag.GAP)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    rings.close()


def test_a_record_that_no_ring_could_take_becomes_a_gap(ring: Path) -> None:
    rings, counts = opened(ring)
    with EventReader.open(ring) as reader:
        rings.put(ready(5, UNITS))
        batch = reader.get()
        assert batch is not None
        assert batch.first_seq == 5
        assert [d.kind for d in decode(batch.body)] == [Kind.GAP]
    assert counts.get(Word.REFUSED_EVENTS) == UNITS
    rings.close()


def test_losses_of_the_process_before_are_not_counted_again(ring: Path) -> None:
    rings, _ = opened(ring)
    for n in range(UNITS):
        rings.put(ready(n))
    rings.close()
    rings, counts = opened(ring)
    rings.publish_losses()
    assert counts.get(Word.DROPPED_RECORDS) == 0
    rings.close()


def test_when_one_ring_is_missing_none_stays_locked(ring: Path, tmp_path: Path) -> None:
    with pytest.raises(Missing):
        open_rings({"BTC": ring, "ETH": tmp_path / "events-ETH.ring"}, UNITS, Counts())
    rings, _ = opened(ring)
    with pytest.raises(Locked):
        opened(ring)
    rings.close()
