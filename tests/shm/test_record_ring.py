"""Record ring: one structured record per slot, ranges as one structured array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shm.errors import IdentityMismatch, Refused
from shm.layout import FileKind, FileSpec, candles_spec, liquidations_spec, record_layout
from shm.liveness import WriterState
from shm.record_ring import RECORD_KIND, RecordReader, RecordWriter
from shm.records import CANDLE_DTYPE, LIQUIDATION_DTYPE

SPEC = candles_spec("BTC", 16)


def candle(n: int) -> np.ndarray[tuple[()], np.dtype[np.void]]:
    record = np.zeros((), CANDLE_DTYPE)
    record["close"], record["open_ts_ns"], record["oi_venue_base"] = n * 0.5, n, [n, n + 1, n + 2]
    return record


def test_ranges_come_back_as_structured_arrays_with_their_numbers(place: Path) -> None:
    path = place / "BTC" / "candles.ring"
    with RecordWriter.open(path, SPEC, CANDLE_DTYPE) as writer, RecordReader.open(path, CANDLE_DTYPE, SPEC) as reader:
        for n in range(40):
            assert writer.append(candle(n) if n % 2 else candle(n)[()], ts_ns=n) == n
        numbers, records = reader.range(0, 100)
        assert numbers.dtype == np.int64
        assert records.dtype == CANDLE_DTYPE
        assert numbers.tolist() == list(range(24, 40))
        assert records["open_ts_ns"].tolist() == list(range(24, 40))
        assert records["oi_venue_base"][0].tolist() == [24, 25, 26]
        assert reader.latest(3)[0].tolist() == [37, 38, 39]
        assert reader.latest(100)[0].tolist() == list(range(24, 40))
        assert (reader.head(), reader.first(), reader.epoch(), reader.spec) == (40, 0, 1, SPEC)
        assert (writer.next_no, writer.epoch, writer.uuid) == (40, 1, reader.uuid)
        assert reader.ring.lapped == 1


def test_an_empty_ring_gives_empty_arrays(tmpfs: Path) -> None:
    path = tmpfs / "candles.ring"
    with RecordWriter.open(path, SPEC, CANDLE_DTYPE), RecordReader.open(path, CANDLE_DTYPE) as reader:
        numbers, records = reader.latest(5)
        assert (numbers.shape, records.shape, records.dtype) == ((0,), (0,), CANDLE_DTYPE)


def test_a_lost_record_is_absent_not_zero(tmpfs: Path) -> None:
    path = tmpfs / "candles.ring"
    with RecordWriter.open(path, SPEC, CANDLE_DTYPE) as writer:
        for n in range(6):
            writer.append(candle(n), ts_ns=n)
    raw = bytearray(path.read_bytes())
    raw[4096 + 3 * 256 + 100] ^= 1
    path.write_bytes(raw)
    with RecordWriter.open(path, SPEC, CANDLE_DTYPE) as writer, RecordReader.open(path, CANDLE_DTYPE) as reader:
        assert writer.ring.report.invalidated == 1
        assert reader.latest(6)[0].tolist() == [0, 1, 2, 4, 5]


def test_arrays_are_private_copies(tmpfs: Path) -> None:
    path = tmpfs / "candles.ring"
    with RecordWriter.open(path, SPEC, CANDLE_DTYPE) as writer, RecordReader.open(path, CANDLE_DTYPE) as reader:
        writer.append(candle(1), ts_ns=1)
        _, records = reader.latest(1)
        for n in range(20):
            writer.append(candle(100 + n), ts_ns=1)
        assert records["close"].tolist() == [0.5]
        records["close"] = 9


def test_kind_flags_and_times_are_in_the_slot(tmpfs: Path) -> None:
    path = tmpfs / "candles.ring"
    with RecordWriter.open(path, SPEC, CANDLE_DTYPE) as writer, RecordReader.open(path, CANDLE_DTYPE) as reader:
        writer.append(candle(1), ts_ns=5, flags=2, published_ns=6)
        slot = reader.ring.latest()
        assert slot is not None
        assert (slot.kind, slot.flags, slot.ts_ns, slot.published_ns) == (RECORD_KIND, 2, 5, 6)
        assert slot.payload == candle(1).tobytes()


@pytest.mark.parametrize(
    "record", [np.zeros((), LIQUIDATION_DTYPE), np.zeros(2, CANDLE_DTYPE), np.float64(1), b"bytes", None], ids=str
)
def test_anything_but_one_record_is_refused(tmpfs: Path, record: object) -> None:
    with RecordWriter.open(tmpfs / "candles.ring", SPEC, CANDLE_DTYPE) as writer:
        with pytest.raises(Refused, match="a record must be one"):
            writer.append(record, ts_ns=0)
        assert writer.next_no == 0


def test_another_dtype_is_refused_at_open(tmpfs: Path) -> None:
    path = tmpfs / "candles.ring"
    with pytest.raises(IdentityMismatch, match="fields"):
        RecordWriter.open(path, SPEC, LIQUIDATION_DTYPE)
    assert not path.exists()
    RecordWriter.open(path, SPEC, CANDLE_DTYPE).close()
    with pytest.raises(IdentityMismatch, match="fields"):
        RecordReader.open(path, LIQUIDATION_DTYPE)
    with pytest.raises(IdentityMismatch):
        RecordReader.open(path, LIQUIDATION_DTYPE, liquidations_spec("BTC", 16))


def test_a_record_that_does_not_fit_a_slot_is_refused(tmpfs: Path) -> None:
    dtype = np.dtype([("a", "u1", (200,))])
    fields, exact = record_layout(dtype)
    spec = FileSpec(FileKind.RECORDS, "candles", "BTC", 16, 256, 0, 1, fields, exact)
    with pytest.raises(Refused, match="at most 192 bytes, was 200"):
        RecordWriter.open(tmpfs / "x", spec, dtype)


def test_states_sync_and_close(tmpfs: Path) -> None:
    path = tmpfs / "candles.ring"
    writer = RecordWriter.open(path, SPEC, CANDLE_DTYPE, epoch=4)
    with RecordReader.open(path, CANDLE_DTYPE) as reader:
        writer.beat()
        writer.sync()
        assert writer.fd >= 0
        assert reader.writer_state() is WriterState.LIVE
        writer.close()
        assert reader.writer_state() is WriterState.CLOSED
        assert not reader.replaced()
        path.unlink()
        assert reader.replaced()
