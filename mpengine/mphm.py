"""`MPHM`, the binary form of `/heatmap` (`spec: api`, section 11.5): what the API packs and every client unpacks. Pure.

Little endian. A header of 128 bytes, a directory of 32 bytes per block, then the blocks, each aligned to 8 bytes; the header ends
with the xxh3_64 of everything behind it. Columns are time, rows are price:

    planes         dense: cols * rows cells, cell[c * rows + r]; sparse: count u32 indices c * rows + r, ascending, then count cells
    per column     frame numbers (-1: no frame), units of float16 cells, prices (NaN: none)
    realised       records of `POINT`
    provenance     JSON

A reader ignores blocks that it does not know, so blocks may be added without another version. Unpacked arrays are views of the
bytes that were given, so they are read-only.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from mpengine.cells import usd_of_u8log
from mpengine.wire_formats import CELL_DTYPES, CellType
from shm.digest import digest

MAGIC: Final = b"MPHM"
VERSION: Final = 1
# magic, version, cell, form, pool, header bytes, flags, t0_ms, dt_ms, cols, price0, step, rows, blocks, k, epoch, three numbers,
# lo_usd, hi_usd, zero, digest
HEADER: Final = struct.Struct("<4sBBBBIIqIIddIHHQQQQff24sQ")
ENTRY: Final = struct.Struct("<BBHIQQQ")  # id, element, 0, count, offset, bytes, 0
ALIGNMENT: Final = 8
NONE: Final = 2**64 - 1
"""A number of the header that is not there: -1 as u64."""
MAX_CELLS: Final = 1 << 26
"""What a reader is willing to lay out; an answer has at most 4,000,000 cells."""

POINT: Final[np.dtype[Any]] = np.dtype(
    [
        ("col", "<u2"),
        ("row", "<u2"),
        ("side", "u1"),
        ("venues", "u1"),
        ("count", "<u2"),
        ("usd", "<f4"),
        ("max_usd", "<f4"),
    ]
)
"""Realised liquidations of one cell and side (0 long, 1 short). `venues`: bit set; `count`: 65,535 says "or more"."""


class Form(IntEnum):
    """Whether a plane has every cell or those that hold something."""

    DENSE = 0
    SPARSE = 1


class Pool(IntEnum):
    """What a row of several price steps holds: the largest of them, or their sum."""

    MAX = 0
    SUM = 1


class Block(IntEnum):
    """Ids of the directory."""

    LIQ_LONG = 1
    LIQ_SHORT = 2
    TAPE_LONG = 3
    TAPE_SHORT = 4
    PROJECTED_LONG = 5
    PROJECTED_SHORT = 6
    DEPTH_BID = 7
    DEPTH_ASK = 8
    REALISED = 16
    LIQ_SEQ = 32
    DEPTH_SEQ = 33
    LIQ_UNIT = 34
    DEPTH_UNIT = 35
    SRC = 36
    PROVENANCE = 48


class Element(IntEnum):
    """What a block is made of."""

    F16 = 1
    U8LOG = 2
    I64 = 3
    F32 = 4
    F64 = 5
    POINT = 6
    JSON = 7


PLANES: Final = tuple(block for block in Block if block <= Block.DEPTH_ASK)
_COLUMNS: Final[dict[Block, tuple[Element, np.dtype[Any]]]] = {
    Block.LIQ_SEQ: (Element.I64, np.dtype("<i8")),
    Block.DEPTH_SEQ: (Element.I64, np.dtype("<i8")),
    Block.LIQ_UNIT: (Element.F32, np.dtype("<f4")),
    Block.DEPTH_UNIT: (Element.F32, np.dtype("<f4")),
    Block.SRC: (Element.F64, np.dtype("<f8")),
}
_INDEX: Final[np.dtype[Any]] = np.dtype("<u4")

Array = npt.NDArray[Any]
Usd = npt.NDArray[np.float64]


class NotMphm(ValueError):
    """The bytes are not a heatmap of this version, or they have been damaged; the text says where."""


@dataclass(frozen=True, slots=True)
class Header:
    """Column c covers [t0_ms + c * dt_ms, + dt_ms), row r has its centre at price0 + r * step, USD; `k`: symbol steps per row.

    `flags`: coverage flags of the newest column. `epoch`: of the writer, 0 without data. `*_seq`: newest frame or record of each
    source, None without. `lo_usd`, `hi_usd`: the scale of u8log cells.
    """

    cell: CellType
    form: Form
    pool: Pool
    flags: int
    t0_ms: int
    dt_ms: int
    cols: int
    price0: float
    step: float
    rows: int
    k: int
    epoch: int
    liq_seq: int | None
    depth_seq: int | None
    realised_seq: int | None
    lo_usd: float
    hi_usd: float


@dataclass(frozen=True, slots=True)
class Packed:
    """A block that is in bytes already. `count`: cells, columns, records, or bytes of JSON."""

    block: Block
    element: Element
    count: int
    parts: Sequence[bytes]


def dense(block: Block, cell: CellType, cells: int, parts: Sequence[bytes]) -> Packed:
    """A plane of all its `cells`, in pieces."""
    return Packed(block, Element(cell), cells, parts)


def sparse(block: Block, cell: CellType, indices: Array, cells: Array) -> Packed:
    """A plane of the cells at `indices` (ascending)."""
    parts = (indices.astype(_INDEX).tobytes(), np.ascontiguousarray(cells, CELL_DTYPES[cell]).tobytes())
    return Packed(block, Element(cell), len(indices), parts)


def per_column(block: Block, values: Array) -> Packed:
    """Numbers, units or prices, one per column."""
    element, dtype = _COLUMNS[block]
    return Packed(block, element, len(values), (values.astype(dtype).tobytes(),))


def realised(points: Array) -> Packed:
    """Records of `POINT`."""
    return Packed(Block.REALISED, Element.POINT, len(points), (points.astype(POINT).tobytes(),))


def provenance(text: bytes) -> Packed:
    """The JSON object that says where the numbers come from."""
    return Packed(Block.PROVENANCE, Element.JSON, len(text), (text,))


def encode(header: Header, blocks: Sequence[Packed]) -> tuple[bytes, bytes]:
    """(header, everything behind it). The blocks lie in the order given."""
    at = HEADER.size + ENTRY.size * len(blocks)
    directory: list[bytes] = []
    body: list[bytes] = []
    for block in blocks:
        size = sum(map(len, block.parts))
        directory.append(ENTRY.pack(block.block, block.element, 0, block.count, at, size, 0))
        body += (*block.parts, bytes(-size % ALIGNMENT))
        at += size + -size % ALIGNMENT
    behind = b"".join((*directory, *body))
    numbers = (NONE if number is None else number for number in (header.liq_seq, header.depth_seq, header.realised_seq))
    packed = HEADER.pack(
        MAGIC, VERSION, header.cell, header.form, header.pool, HEADER.size, header.flags, header.t0_ms, header.dt_ms, header.cols,
        header.price0, header.step, header.rows, len(blocks), header.k, header.epoch, *numbers, header.lo_usd, header.hi_usd,
        b"", digest(behind, 0),
    )  # fmt: skip
    return packed, behind


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """One side of one layer. `indices` None: dense, `cells` [cols, rows]; else `cells[i]` is cell `indices[i]` = c * rows + r."""

    indices: Array | None
    cells: Array


@dataclass(frozen=True, slots=True, eq=False)
class Heatmap:
    """An answer, unpacked. `numbers`, `units`: per column, of `liq` (all map layers) and `depth`; `src`: float64[cols]."""

    header: Header
    planes: Mapping[Block, Plane]
    points: Array | None
    numbers: Mapping[str, npt.NDArray[np.int64]]
    units: Mapping[str, npt.NDArray[np.float32]]
    src: Usd
    provenance: dict[str, Any]

    def dense(self, block: Block) -> Array:
        """Cells of a plane as [cols, rows], 0 where nothing is. Raises KeyError where the answer does not have it."""
        plane, shape = self.planes[block], (self.header.cols, self.header.rows)
        if plane.indices is None:
            return plane.cells
        cells = np.zeros(shape[0] * shape[1], plane.cells.dtype)
        cells[plane.indices] = plane.cells
        return cells.reshape(shape)

    def usd(self, block: Block) -> Usd:
        """float64[cols, rows] of a plane. Where `numbers` is -1 there was no frame: those columns mean nothing, not zero."""
        cells = self.dense(block)
        if self.header.cell is CellType.U8LOG:
            return usd_of_u8log(cells, self.header.lo_usd, self.header.hi_usd)
        units = self.units["depth" if block >= Block.DEPTH_BID else "liq"]
        return cells.astype(np.float64) * units.astype(np.float64)[:, np.newaxis]


def decode(data: bytes) -> Heatmap:
    """An answer from its bytes. Raises NotMphm."""
    header, count = _header(data)
    found: dict[int, tuple[int, int, int, int]] = {}
    for index in range(count):
        block, element, _, items, offset, size, _ = ENTRY.unpack_from(data, HEADER.size + ENTRY.size * index)
        if offset % ALIGNMENT or offset < HEADER.size + ENTRY.size * count or offset + size > len(data):
            raise NotMphm(f"block {block} lies outside of the {len(data)} bytes")
        if block in found:
            raise NotMphm(f"block {block} is there twice")
        found[block] = (element, items, offset, size)
    columns = {block: _column(data, block, found[block], header) for block in _COLUMNS if block in found}
    planes = {block: _plane(data, block, found[block], header) for block in PLANES if block in found}
    sources = {"depth" if block >= Block.DEPTH_BID else "liq" for block in planes}
    names = {"liq": (Block.LIQ_SEQ, Block.LIQ_UNIT), "depth": (Block.DEPTH_SEQ, Block.DEPTH_UNIT)}
    for name in sources:
        if names[name][0] not in columns or (header.cell is CellType.F16 and names[name][1] not in columns):
            raise NotMphm(f"the columns of {name} are missing")
    return Heatmap(
        header=header,
        planes=planes,
        points=_points(data, found),
        numbers={name: columns[number] for name, (number, _) in names.items() if number in columns},
        units={name: columns[unit] for name, (_, unit) in names.items() if unit in columns},
        src=columns.get(Block.SRC, np.full(header.cols, np.nan)),
        provenance=_provenance(data, found),
    )


def _header(data: bytes) -> tuple[Header, int]:
    if len(data) < HEADER.size:
        raise NotMphm(f"a heatmap has {HEADER.size} bytes of header, got {len(data)}")
    (magic, version, cell, form, pool, size, flags, t0, dt, cols, price0, step, rows, blocks, k, epoch, liq, depth, events,
     lo, hi, _, seal) = HEADER.unpack_from(data)  # fmt: skip
    if (magic, version, size) != (MAGIC, VERSION, HEADER.size):
        raise NotMphm(f"{magic!r} version {version} with {size} bytes of header is not known here")
    if len(data) < HEADER.size + ENTRY.size * blocks:
        raise NotMphm(f"{blocks} blocks do not fit {len(data)} bytes")
    if digest(memoryview(data)[HEADER.size :], 0) != seal:
        raise NotMphm("the digest is another one: the bytes have been cut or changed")
    if cols * rows > MAX_CELLS:
        raise NotMphm(f"{cols} columns of {rows} rows are more than {MAX_CELLS} cells")
    try:
        kinds = CellType(cell), Form(form), Pool(pool)
    except ValueError as error:
        raise NotMphm(f"cells, form or pooling are not known here: {error}") from None
    known = [None if number == NONE else number for number in (liq, depth, events)]
    return Header(*kinds, flags, t0, dt, cols, price0, step, rows, k, epoch, known[0], known[1], known[2], lo, hi), blocks


def _plane(data: bytes, block: int, entry: tuple[int, int, int, int], header: Header) -> Plane:
    element, count, offset, size = entry
    dtype, cells = CELL_DTYPES[header.cell], header.cols * header.rows
    _check(block, element, header.cell, size, count * (dtype.itemsize + (_INDEX.itemsize if header.form else 0)))
    if header.form is Form.DENSE:
        if count != cells:
            raise NotMphm(f"block {block} has {count} of {cells} cells")
        return Plane(None, np.frombuffer(data, dtype, count, offset).reshape(header.cols, header.rows))
    indices = np.frombuffer(data, _INDEX, count, offset)
    if count and (int(indices[-1]) >= cells or (np.diff(indices.astype(np.int64)) <= 0).any()):
        raise NotMphm(f"the indices of block {block} do not ascend inside of {cells} cells")
    return Plane(indices, np.frombuffer(data, dtype, count, offset + count * _INDEX.itemsize))


def _column(data: bytes, block: Block, entry: tuple[int, int, int, int], header: Header) -> Array:
    element, count, offset, size = entry
    expected, dtype = _COLUMNS[block]
    _check(block, element, expected, size, count * dtype.itemsize)
    if count != header.cols:
        raise NotMphm(f"block {block} has {count} of {header.cols} columns")
    return np.frombuffer(data, dtype, count, offset)


def _points(data: bytes, found: Mapping[int, tuple[int, int, int, int]]) -> Array | None:
    if Block.REALISED not in found:
        return None
    element, count, offset, size = found[Block.REALISED]
    _check(Block.REALISED, element, Element.POINT, size, count * POINT.itemsize)
    return np.frombuffer(data, POINT, count, offset)


def _provenance(data: bytes, found: Mapping[int, tuple[int, int, int, int]]) -> dict[str, Any]:
    if Block.PROVENANCE not in found:
        raise NotMphm("the provenance is missing")
    element, count, offset, size = found[Block.PROVENANCE]
    _check(Block.PROVENANCE, element, Element.JSON, size, count)
    try:
        return msgspec.json.decode(data[offset : offset + size], type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise NotMphm(f"the provenance is no JSON object: {error}") from None


def _check(block: int, element: int, expected: int, size: int, needed: int) -> None:
    if element != expected or size != needed:
        raise NotMphm(f"block {block}: element {element} in {size} bytes, expected {int(expected)} in {needed}")
