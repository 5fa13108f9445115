"""Accelerated soak: long after 2**32 frames and 2**40 units, memory and descriptors stay where they were."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from shm import layout
from shm.document import DocumentReader, DocumentWriter
from shm.event_ring import EventReader, EventWriter, create_event_ring
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import candles_spec, event_ring_spec, feeds_spec
from shm.record_ring import RecordReader, RecordWriter
from shm.records import CANDLE_DTYPE, DocumentId
from tests.shm.rig import batch_body, oracle, plain_spec

pytestmark = pytest.mark.slow


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def preset(path: Path, **words: int) -> None:
    """Set header words of a closed file, as if it had been in use for years."""
    with path.open("r+b") as file:
        for name, value in words.items():
            file.seek(next(field.offset for field in layout.HEADER_FIELDS if field.name == name))
            file.write(value.to_bytes(8, "little"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rounds", [6_000, pytest.param(400_000, marks=pytest.mark.stress)])
def test_years_of_use(tmpfs: Path, rounds: int) -> None:
    frame_path, ring_path, candle_path = tmpfs / "depth.ring", tmpfs / "events-BTC.ring", tmpfs / "candles.ring"
    frame_spec, ring_spec, candle_spec = plain_spec(16, 4096), event_ring_spec("BTC", 1024), candles_spec("BTC", 64)
    frame, position = (1 << 32) - rounds // 2, (1 << 40) - rounds * 5
    FrameWriter.open(frame_path, frame_spec).close()
    preset(frame_path, head=frame, intent=frame)
    create_event_ring(ring_path, ring_spec)
    preset(ring_path, head=position, release=position)

    def use(count: int, first_seq: int) -> None:
        """Open everything, use it, restart in between, close."""
        with (
            FrameWriter.open(frame_path, frame_spec) as frames, FrameReader.open(frame_path) as frame_reader,
            EventWriter.open(ring_path, ring_spec) as events, EventReader.open(ring_path) as event_reader,
            RecordWriter.open(candle_path, candle_spec, CANDLE_DTYPE) as candles,
            RecordReader.open(candle_path, CANDLE_DTYPE) as candle_reader,
            DocumentWriter.open(tmpfs / "feeds", feeds_spec()) as papers, DocumentReader.open(tmpfs / "feeds") as paper_reader,
        ):  # fmt: skip
            candle, n = np.zeros((), CANDLE_DTYPE), 0
            for seq in range(first_seq, first_seq + count):
                n = frames.publish(oracle(seq, 300), ts_ns=seq, kind=1)
                slot = frame_reader.latest()
                assert slot is not None
                assert (slot.frame_no, slot.payload) == (n, oracle(seq, 300))
                assert events.put(batch_body(1, seq), records=1, source=1, first_seq=seq)
                batch = event_reader.get()
                assert batch is not None
                assert (batch.first_seq, batch.body) == (seq, batch_body(1, seq))
                event_reader.release(batch.end)
                candles.append(candle, ts_ns=seq)
                papers.publish(DocumentId.FEEDS, oracle(seq, 100), ts_ns=seq, link=n)
                assert paper_reader.linked(DocumentId.FEEDS, n) is not None
            assert len(frame_reader.history(n - 15, n + 1).slots) == 16
            assert len(candle_reader.latest(64)[0]) == min(64, candle_reader.head())

    step = rounds // 20
    use(step, 0)
    use(step, step)
    before_rss, before_fds = rss_bytes(), descriptors()
    for part in range(2, 20):
        use(step, part * step)
    assert descriptors() == before_fds
    growth = rss_bytes() - before_rss
    with FrameReader.open(frame_path) as frames, EventReader.open(ring_path) as events:
        print(f"{rounds} rounds: frame {frames.head()}, position {events.position}, RSS {growth / 1024:+.0f} KiB")
        assert frames.head() > 1 << 32
        assert events.position > 1 << 40
    assert growth < 8 << 20, "memory must not grow with use"
