"""Byte layouts of answers and messages that both ends share: what `api` packs is unpacked here by `mpengine.client`. Pure.

Two formats, both little endian: the old binary form of the depth endpoints (`spec: api`, section 8.3) and the column message of
the push channels, `MPCD` (section 13.2). Unpacked cells are views of the bytes that were given, so they are read-only.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mpengine.cells import usd_of_u8log

Cells = npt.NDArray[np.uint8]
Planes = npt.NDArray[Any]
Usd = npt.NDArray[np.float64]

# version, encoding, 0, frame_ts_ms, interval_ms, rows, columns, price_min, price_max, step, src, p50, p90, p95, p99, max, 0
DEPTH_HEADER: Final = struct.Struct("<BBHQIHHddddHHHHHH")
DEPTH_VERSION: Final = 1
DEPTH_RAW: Final = 0
KILO_LIMIT: Final = 65_535
"""Norms are in thousands of USD; this value says "or more"."""


@dataclass(frozen=True, slots=True, eq=False)
class DepthCells:
    """Answer of a depth endpoint in binary form. `bid`, `ask`: uint8[rows, columns], one row per frame, oldest first.

    `t_ms`: int64[rows], start of each window. `norms_usd`: p50, p90, p95, p99, max, whole thousands of USD (max 65,535,000 says
    "or more"); of a history medians over the frames, max the largest. `src`: of the newest frame.
    """

    t_ms: npt.NDArray[np.int64]
    interval_ms: int
    price_min: float
    price_max: float
    step: float
    src: float
    norms_usd: tuple[float, float, float, float, float]
    bid: Cells
    ask: Cells


def unpack_depth(data: bytes, *, history: bool) -> DepthCells:
    """Depth frames from their bytes. Raises ValueError where they are not of this format and version."""
    if len(data) < DEPTH_HEADER.size:
        raise ValueError(f"a depth answer has {DEPTH_HEADER.size} bytes of header, got {len(data)}")
    version, encoding, _, first_ms, interval_ms, rows, columns, low, high, step, src, *norms, _ = DEPTH_HEADER.unpack_from(data)
    if (version, encoding) != (DEPTH_VERSION, DEPTH_RAW):
        raise ValueError(f"version {version}, encoding {encoding} of a depth answer is not known here")
    cells = rows * columns
    expected = DEPTH_HEADER.size + 2 * cells + (8 * rows if history else 0)
    if len(data) != expected:
        raise ValueError(f"{rows} x {columns} cells need {expected} bytes, got {len(data)}")
    planes = np.frombuffer(data, np.uint8, 2 * cells, DEPTH_HEADER.size).reshape(2, rows, columns)
    times = np.array([first_ms] * rows, np.int64)
    if history:
        times = np.frombuffer(data, "<u8", rows, DEPTH_HEADER.size + 2 * cells).astype(np.int64)
    p50, p90, p95, p99, largest = (1000.0 * value for value in norms)
    return DepthCells(times, interval_ms, low, high, step, src, (p50, p90, p95, p99, largest), planes[0], planes[1])


# magic, version, kind, cell, planes, channel, flags, rows, epoch, seq, prev, t_ms, price0, step, src, unit_usd, dt_ms
COLUMN_HEADER: Final = struct.Struct("<4sBBBBHHIQQQqdddfI")
COLUMN_MAGIC: Final = b"MPCD"
COLUMN_VERSION: Final = 1
COLUMN_PLANES: Final = 2
NO_PREVIOUS: Final = 2**64 - 1
"""`prev` on the wire where there is no message before; -1 everywhere else."""


class ColumnKind(IntEnum):
    """What the two planes are: bid and ask, or long and short."""

    DEPTH = 1
    LIQ = 2


class CellType(IntEnum):
    """How a cell holds USD."""

    F16 = 1
    U8LOG = 2


CELL_DTYPES: Final[dict[CellType, np.dtype[Any]]] = {CellType.F16: np.dtype("<f2"), CellType.U8LOG: np.dtype(np.uint8)}


class ColumnFlag(IntFlag):
    """Flags of a column message."""

    PROVISIONAL = 1
    GAP_BEFORE = 2
    RESTART = 4
    STALE = 8
    SNAPSHOT = 16


@dataclass(frozen=True, slots=True)
class ColumnHeader:
    """Everything of a column message but its cells. `price0`: centre of the lowest row; `unit_usd`: of f16 cells."""

    kind: ColumnKind
    cell: CellType
    channel: int
    flags: ColumnFlag
    rows: int
    epoch: int
    seq: int
    prev: int
    t_ms: int
    dt_ms: int
    price0: float
    step: float
    src: float
    unit_usd: float = 1.0


def pack_column(header: ColumnHeader, planes: Sequence[Planes]) -> bytes:
    """Bytes of a column message. `planes`: bid and ask, or long and short, each of `rows` cells of the header's type."""
    prev = NO_PREVIOUS if header.prev < 0 else header.prev
    packed = COLUMN_HEADER.pack(
        COLUMN_MAGIC, COLUMN_VERSION, header.kind, header.cell, COLUMN_PLANES, header.channel, header.flags, header.rows,
        header.epoch, header.seq, prev, header.t_ms, header.price0, header.step, header.src, header.unit_usd, header.dt_ms,
    )  # fmt: skip
    dtype = CELL_DTYPES[header.cell]
    return b"".join((packed, *(np.ascontiguousarray(plane, dtype).tobytes() for plane in planes)))


def unpack_column(data: bytes) -> tuple[ColumnHeader, Planes, Planes]:
    """(header, bid or long, ask or short) of a column message. Raises ValueError where it is not one of this version."""
    if len(data) < COLUMN_HEADER.size:
        raise ValueError(f"a column message has {COLUMN_HEADER.size} bytes of header, got {len(data)}")
    magic, version, kind, cell, planes, channel, flags, rows, epoch, seq, prev, t_ms, price0, step, src, unit, dt_ms = (
        COLUMN_HEADER.unpack_from(data)
    )
    if (magic, version, planes) != (COLUMN_MAGIC, COLUMN_VERSION, COLUMN_PLANES):
        raise ValueError(f"column message {magic!r} version {version} with {planes} planes is not known here")
    cell = CellType(cell)
    dtype = CELL_DTYPES[cell]
    expected = COLUMN_HEADER.size + planes * rows * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"a column of {rows} rows needs {expected} bytes, got {len(data)}")
    cells = np.frombuffer(data, dtype, planes * rows, COLUMN_HEADER.size).reshape(planes, rows)
    previous = -1 if prev == NO_PREVIOUS else prev
    header = ColumnHeader(
        ColumnKind(kind), cell, channel, ColumnFlag(flags), rows, epoch, seq, previous, t_ms, dt_ms, price0, step, src, unit
    )
    return header, cells[0], cells[1]


def usd_of_cells(cells: Planes, unit_usd: float = 1.0) -> Usd:
    """float64 of the same shape: USD of u8log bytes, or of float16 in units of `unit_usd`."""
    if cells.dtype == np.uint8:
        return usd_of_u8log(cells)
    return cells.astype(np.float64) * unit_usd
