"""One writer, many readers; a slow reader is told what it lost. Fixed-size records (candles, realised liquidations).

The protocol of `shm.frame_ring` with one structured record as the payload; ranges come back as one structured array.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from shm.errors import IdentityMismatch, Refused
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import SLOT_HEADER_BYTES, FileSpec, record_layout
from shm.liveness import Probe, WriterState

RECORD_KIND: Final = 3

Numbers = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]


class RecordWriter:
    """Appends records; attributes of the ring underneath are in `ring`."""

    def __init__(self, ring: FrameWriter, dtype: np.dtype[Any]) -> None:
        self.ring = ring
        self.dtype = dtype

    @classmethod
    def open(cls, path: Path, spec: FileSpec, dtype: np.dtype[Any], *, epoch: int | None = None) -> Self:
        """Create or attach, lock, repair. Raises IdentityMismatch for a dtype that is not the spec's; else as FrameWriter."""
        check_record(spec, dtype)
        return cls(FrameWriter.open(path, spec, epoch=epoch), dtype)

    @property
    def epoch(self) -> int:
        """Fencing number of this writer."""
        return self.ring.epoch

    @property
    def next_no(self) -> int:
        """Number of the next record."""
        return self.ring.next_no

    @property
    def uuid(self) -> int:
        """Random number of this file."""
        return self.ring.uuid

    @property
    def fd(self) -> int:
        """Descriptor for fdatasync."""
        return self.ring.fd

    def append(self, record: Any, *, ts_ns: int, kind: int = RECORD_KIND, flags: int = 0, published_ns: int | None = None) -> int:
        """Append one record (np.void or 0-d array of the dtype); returns its number. Raises Refused for another dtype."""
        if getattr(record, "dtype", None) != self.dtype or record.shape != ():
            raise Refused(f"a record must be one {self.dtype}")
        return self.ring.publish(record.tobytes(), ts_ns=ts_ns, kind=kind, flags=flags, published_ns=published_ns)

    def beat(self) -> None:
        """Say that this writer lives; at least every 250 ms."""
        self.ring.beat()

    def sync(self) -> None:
        """fdatasync; blocks on the disk."""
        self.ring.sync()

    def close(self) -> None:
        """State closed, lock given up."""
        self.ring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class RecordReader:
    """Reads ranges of records as structured arrays; the ring underneath is in `ring`."""

    def __init__(self, ring: FrameReader, dtype: np.dtype[Any]) -> None:
        self.ring = ring
        self.dtype = dtype

    @classmethod
    def open(cls, path: Path, dtype: np.dtype[Any], spec: FileSpec | None = None, *, probe: Probe | None = None) -> Self:
        """Map read-only. Raises Missing, LayoutMismatch, IdentityMismatch (also for another dtype)."""
        ring = FrameReader.open(path, spec, probe=probe)
        try:
            check_record(ring.spec, dtype)
        except BaseException:
            ring.close()
            raise
        return cls(ring, dtype)

    @property
    def uuid(self) -> int:
        """Random number of this file."""
        return self.ring.uuid

    @property
    def spec(self) -> FileSpec:
        """What the file says it is."""
        return self.ring.spec

    def epoch(self) -> int:
        """Epoch of the writer."""
        return self.ring.epoch()

    def head(self) -> int:
        """Records committed so far = number of the next one."""
        return self.ring.head()

    def first(self) -> int:
        """Oldest record that survived the last repair."""
        return self.ring.first()

    def range(self, start: int, stop: int) -> tuple[Numbers, Records]:
        """(numbers int64[k], records of the dtype [k]) of the verified records `start` <= n < `stop`; missing ones are absent."""
        bulk = self.ring.bulk(start, stop)
        raw = np.ascontiguousarray(bulk.rows[:, SLOT_HEADER_BYTES : SLOT_HEADER_BYTES + self.dtype.itemsize])
        return bulk.numbers.astype(np.int64), raw.view(self.dtype).reshape(len(raw))

    def latest(self, count: int) -> tuple[Numbers, Records]:
        """The newest `count` records, ascending; as `range`."""
        head = self.head()
        return self.range(head - min(count, self.spec.slots), head)

    def writer_state(self) -> WriterState:
        """Closed, retired, dead, stalled or live."""
        return self.ring.writer_state()

    def replaced(self) -> bool:
        """True when the file should be opened again."""
        return self.ring.replaced()

    def close(self) -> None:
        """Unmap."""
        self.ring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def check_record(spec: FileSpec, dtype: np.dtype[Any]) -> None:
    """Raise IdentityMismatch unless records of the file have exactly this dtype; Refused where one does not fit a slot."""
    fields, exact = record_layout(dtype)
    if (spec.fields, spec.record_digest) != (fields, exact):
        raise IdentityMismatch("fields", spec.fields, fields)
    if dtype.itemsize > spec.payload_bytes:
        raise Refused(f"a record must be at most {spec.payload_bytes} bytes, was {dtype.itemsize}")
