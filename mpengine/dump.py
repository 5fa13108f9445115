"""Decoded content of a ring file, for people and for scripts: `mpengine dump`. A shell that only reads."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from shm.document import DocumentReader
from shm.errors import LayoutMismatch
from shm.files import open_reader
from shm.frame_ring import FrameReader
from shm.frames import PLANES, decode
from shm.layout import FileKind, FileSpec
from shm.record_ring import RecordReader
from shm.records import CANDLE_DTYPE, LIQUIDATION_DTYPE, CandleField, DocumentId, FrameKind

MS_NS: Final = 1_000_000
PLANE_NAMES: Final = {
    FrameKind.DEPTH: ("bid", "ask"),
    FrameKind.LIQUIDATION: PLANES[FrameKind.LIQUIDATION],
}
OPTIONAL: Final = {
    "mark": CandleField.MARK,
    "funding_rate": CandleField.FUNDING,
    "oi_base": CandleField.OI,
    "oi_delta_base": CandleField.OI_DELTA,
}
OI_BITS: Final = (CandleField.OI_BINANCE, CandleField.OI_BYBIT, CandleField.OI_OKX)
RECORDS: Final = {"candles": CANDLE_DTYPE, "liquidations": LIQUIDATION_DTYPE}


def rows(path: Path, last: int) -> Iterator[dict[str, Any]]:
    """The newest `last` frames, records or document versions of a file, oldest first, in JSON types; planes in USD.

    Raises the typed errors of `shm` for a file that is missing, of another layout or cut.
    """
    kind = _spec(path).kind
    if kind is FileKind.FRAMES:
        yield from _frames(path, last)
    elif kind is FileKind.RECORDS:
        yield from _records(path, last)
    elif kind is FileKind.DOCUMENTS:
        yield from _documents(path)
    else:
        raise LayoutMismatch(f"a file of kind {kind.name.lower()} has nothing to dump: frames, records and documents do")


def _spec(path: Path) -> FileSpec:
    mapped = open_reader(path, None)
    try:
        return mapped.header.spec
    finally:
        mapped.close()


def _frames(path: Path, last: int) -> Iterator[dict[str, Any]]:
    with FrameReader.open(path) as reader:
        head = reader.head()
        for slot in reader.history(max(0, head - last), head).slots:
            frame = decode(slot.payload)
            yield {
                "frame_no": slot.frame_no,
                "epoch": slot.epoch,
                "kind": frame.kind.name.lower(),
                "open_ms": frame.open_ts_ns // MS_NS,
                "close_ms": frame.close_ts_ns // MS_NS,
                "ref": frame.reference,
                "origin": frame.origin,
                "step": frame.step,
                "count": frame.count,
                "unit_usd": frame.unit_usd,
                "flags": int(frame.coverage),
                "samples": frame.samples,
                "planes": {name: plane.tolist() for name, plane in zip(PLANE_NAMES[frame.kind], frame.planes)},
            }


def _records(path: Path, last: int) -> Iterator[dict[str, Any]]:
    name = _spec(path).name
    with RecordReader.open(path, RECORDS[name]) as reader:
        numbers, records = reader.latest(last)
        for number, record in zip(numbers.tolist(), records):
            values = {field: _plain(record[field]) for field in record.dtype.names or ()}
            if name == "candles":
                _blank_missing(values)
            yield {"frame_no": number, **values}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _blank_missing(values: dict[str, Any]) -> None:
    """Fields that the bar does not have become None: 0 would be a value."""
    present = CandleField(values["present"])
    for field, bit in OPTIONAL.items():
        if bit not in present:
            values[field] = None
    values["oi_venue_base"] = [value if bit in present else None for value, bit in zip(values["oi_venue_base"], OI_BITS)]


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    with DocumentReader.open(path) as reader:
        for document in reader.documents():
            slot = reader.latest(document)
            if slot is not None:
                yield {
                    "document": DocumentId(document).name.lower(),
                    "version": slot.frame_no,
                    "epoch": slot.epoch,
                    "ts_ms": slot.ts_ns // MS_NS,
                    "link": slot.link,
                    "content": msgspec.json.decode(slot.payload),
                }


def one_line(row: dict[str, Any]) -> str:
    """A row for a terminal: what it is, when, how much."""
    if "planes" in row:
        totals = "  ".join(f"{name} {sum(plane):,.0f} USD" for name, plane in row["planes"].items())
        return (
            f"#{row['frame_no']} e{row['epoch']} {row['kind']} {_clock(row['open_ms'])}  ref {row['ref']:,.2f}  "
            f"{row['count']} x {row['step']:g}  samples {row['samples']}  flags {row['flags']}  {totals}"
        )
    if "document" in row:
        return f"{row['document']} v{row['version']} {_clock(row['ts_ms'])}  {len(msgspec.json.encode(row['content']))} bytes"
    opened = row.get("open_ts_ns", row.get("venue_ts_ns", 0)) // MS_NS
    rest = "  ".join(
        f"{key} {value}" for key, value in row.items() if key not in ("frame_no", "schema", "zero") and "_ns" not in key
    )
    return f"#{row['frame_no']} {_clock(opened)}  {rest}"


def _clock(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
