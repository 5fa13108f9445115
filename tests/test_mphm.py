"""MPHM: every offset of the table, what comes back, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from mpengine.cells import usd_of_u8log
from mpengine.mphm import (
    HEADER,
    MAX_CELLS,
    POINT,
    Block,
    Form,
    Header,
    Heatmap,
    NotMphm,
    Packed,
    Pool,
    decode,
    dense,
    encode,
    per_column,
    provenance,
    realised,
    sparse,
)
from mpengine.wire_formats import CellType

COLS, ROWS = 3, 4
HEAD = Header(
    cell=CellType.U8LOG, form=Form.DENSE, pool=Pool.MAX, flags=0b101, t0_ms=1_795_167_600_000, dt_ms=60_000, cols=COLS,
    price0=59_240.0, step=20.0, rows=ROWS, k=1, epoch=7, liq_seq=30_511, depth_seq=61_022, realised_seq=None, lo_usd=100.0,
    hi_usd=1e9,
)  # fmt: skip
CELLS = np.arange(COLS * ROWS, dtype=np.uint8).reshape(COLS, ROWS)
POINTS = np.array([(2, 3, 1, 3, 2, 15_704.9, 12_011.0)], POINT)
TEXT = b'{"symbol":"BTC"}'
NUMBERS = per_column(Block.LIQ_SEQ, np.array([-1, 30_510, 30_511]))
SRC = per_column(Block.SRC, np.array([np.nan, 65_817.9, 65_818.0]))


def join(parts: tuple[bytes, bytes]) -> bytes:
    return b"".join(parts)


def answer(header: Header = HEAD, blocks: Sequence[Packed] | None = None) -> bytes:
    plane = dense(Block.LIQ_LONG, CellType.U8LOG, COLS * ROWS, [CELLS[:2].tobytes(), CELLS[2:].tobytes()])
    return join(encode(header, [plane, NUMBERS, realised(POINTS), SRC, provenance(TEXT)] if blocks is None else blocks))


def sealed(data: bytearray) -> bytes:
    """With the digest of what it is now."""
    struct.pack_into("<Q", data, 120, xxhash.xxh3_64_intdigest(bytes(data[128:])))
    return bytes(data)


def test_the_header_lies_at_the_offsets_of_the_table() -> None:
    data = answer()
    assert HEADER.size == 128
    assert data[:4] == b"MPHM" and tuple(data[4:8]) == (1, 2, 0, 0)
    assert struct.unpack_from("<IIq", data, 8) == (128, 5, 1_795_167_600_000)
    assert struct.unpack_from("<II", data, 24) == (60_000, 3)
    assert struct.unpack_from("<dd", data, 32) == (59_240.0, 20.0)
    assert struct.unpack_from("<IHH", data, 48) == (4, 5, 1)
    assert struct.unpack_from("<QQQQ", data, 56) == (7, 30_511, 61_022, 2**64 - 1)
    assert struct.unpack_from("<ff", data, 88) == (100.0, 1e9)
    assert data[96:120] == bytes(24)
    assert struct.unpack_from("<Q", data, 120) == (xxhash.xxh3_64_intdigest(data[128:]),)


def test_the_directory_names_aligned_blocks_behind_each_other() -> None:
    data = answer()
    entries = [struct.unpack_from("<BBHIQQQ", data, 128 + 32 * index) for index in range(5)]
    assert [entry[0] for entry in entries] == [1, 32, 16, 36, 48]
    assert [entry[1] for entry in entries] == [2, 3, 6, 5, 7]
    assert [entry[3] for entry in entries] == [12, 3, 1, 3, len(TEXT)]
    assert [entry[5] for entry in entries] == [12, 24, 16, 24, len(TEXT)]
    assert all(entry[2] == entry[6] == 0 and entry[4] % 8 == 0 for entry in entries)
    at = 128 + 5 * 32
    for _, _, _, _, offset, size, _ in entries:
        assert offset == at
        at += (size + 7) // 8 * 8
    assert at == len(data)
    assert data[entries[0][4] : entries[0][4] + 12] == bytes(range(12))
    assert struct.unpack_from("<HHBBHff", data, entries[2][4]) == pytest.approx((2, 3, 1, 3, 2, 15_704.9, 12_011.0))


def test_an_answer_comes_back() -> None:
    found = decode(answer())
    assert found.header == HEAD
    assert found.planes.keys() == {Block.LIQ_LONG} and (found.dense(Block.LIQ_LONG) == CELLS).all()
    assert (found.usd(Block.LIQ_LONG) == usd_of_u8log(CELLS)).all()
    assert found.numbers["liq"].tolist() == [-1, 30_510, 30_511] and "depth" not in found.numbers
    assert found.points is not None and found.points.tolist() == POINTS.tolist()
    assert np.isnan(found.src[0]) and found.src[1:].tolist() == [65_817.9, 65_818.0]
    assert found.provenance == {"symbol": "BTC"}


def test_float16_cells_are_in_units_of_their_column() -> None:
    cells = np.array([[1, 2, 0, 0], [1, 0, 0, 3], [0, 0, 0, 0]], np.float16)
    units = np.array([1.0, 1024.0, 0.5])
    plane = dense(Block.DEPTH_BID, CellType.F16, 12, [cells.tobytes()])
    numbers, unit = per_column(Block.DEPTH_SEQ, np.array([5, 6, -1])), per_column(Block.DEPTH_UNIT, units)
    found = decode(answer(replace(HEAD, cell=CellType.F16), [plane, numbers, unit, SRC, provenance(TEXT)]))
    assert found.usd(Block.DEPTH_BID).tolist() == [[1, 2, 0, 0], [1024, 0, 0, 3072], [0, 0, 0, 0]]
    with pytest.raises(NotMphm, match="columns of depth"):
        decode(answer(replace(HEAD, cell=CellType.F16), [plane, numbers, SRC, provenance(TEXT)]))


def test_a_sparse_plane_is_laid_out_again() -> None:
    plane = sparse(Block.LIQ_LONG, CellType.U8LOG, np.array([1, 6, 11]), np.array([9, 8, 7], np.uint8))
    data = answer(replace(HEAD, form=Form.SPARSE), [plane, NUMBERS, SRC, provenance(TEXT)])
    at = struct.unpack_from("<Q", data, 128 + 8)[0]
    assert struct.unpack_from("<3I3B", data, at) == (1, 6, 11, 9, 8, 7)
    assert decode(data).dense(Block.LIQ_LONG).tolist() == [[0, 9, 0, 0], [0, 0, 8, 0], [0, 0, 0, 7]]


def test_an_answer_without_cells() -> None:
    header = replace(HEAD, cols=0, rows=0, liq_seq=None, epoch=0)
    found = decode(answer(header, [per_column(Block.SRC, np.zeros(0)), provenance(TEXT)]))
    assert (found.header, dict(found.planes), found.points, found.src.size) == (header, {}, None, 0)


def test_blocks_of_later_versions_are_passed_over() -> None:
    data = bytearray(answer())
    data[128 + 4 * 32 - 96] = 99  # the numbers become something else, so the plane has lost its columns
    with pytest.raises(NotMphm, match="columns of liq"):
        decode(sealed(data))
    data = bytearray(answer())
    data[128 + 2 * 32] = 99
    assert decode(sealed(data)).points is None


ENTRY = 128  # of the plane
REFUSED: list[tuple[str, Callable[[bytearray], None]]] = [
    ("magic", lambda data: data.__setitem__(slice(0, 4), b"MPCD")),
    ("version", lambda data: data.__setitem__(4, 2)),
    ("cell", lambda data: data.__setitem__(5, 3)),
    ("form", lambda data: data.__setitem__(6, 2)),
    ("pool", lambda data: data.__setitem__(7, 2)),
    ("header bytes", lambda data: struct.pack_into("<I", data, 8, 256)),
    ("more columns", lambda data: struct.pack_into("<I", data, 28, COLS + 1)),
    ("more rows", lambda data: struct.pack_into("<I", data, 48, ROWS + 1)),
    ("absurdly many cells", lambda data: struct.pack_into("<I", data, 48, MAX_CELLS)),
    ("more blocks than bytes", lambda data: struct.pack_into("<H", data, 52, 65_535)),
    ("more blocks", lambda data: struct.pack_into("<H", data, 52, 6)),
    ("a block behind the end", lambda data: struct.pack_into("<Q", data, ENTRY + 8, len(data))),
    ("a block far behind the end", lambda data: struct.pack_into("<Q", data, ENTRY + 8, 2**63)),
    ("a block in the header", lambda data: struct.pack_into("<Q", data, ENTRY + 8, 0)),
    ("a block that is not aligned", lambda data: struct.pack_into("<Q", data, ENTRY + 8, 292)),
    ("a block that is too long", lambda data: struct.pack_into("<Q", data, ENTRY + 16, 13)),
    ("a block of endless length", lambda data: struct.pack_into("<Q", data, ENTRY + 16, 2**63)),
    ("fewer cells than said", lambda data: struct.pack_into("<I", data, ENTRY + 4, 11)),
    ("other elements", lambda data: data.__setitem__(ENTRY + 1, 1)),
    ("a block twice", lambda data: data.__setitem__(ENTRY + 32, 1)),
    ("provenance that is no JSON", lambda data: data.__setitem__(slice(-16, -15), b"x")),
    ("no provenance", lambda data: data.__setitem__(ENTRY + 4 * 32, 99)),
    ("sparse", lambda data: data.__setitem__(6, 1)),
]


@pytest.mark.parametrize("change", [change for _, change in REFUSED], ids=[name for name, _ in REFUSED])
def test_what_is_not_a_heatmap_is_refused(change: Callable[[bytearray], None]) -> None:
    data = bytearray(answer())
    change(data)
    with pytest.raises(NotMphm):
        decode(sealed(data))


@pytest.mark.parametrize("indices", [[1, 1], [2, 1], [0, 12]])
def test_indices_that_do_not_ascend_inside_are_refused(indices: list[int]) -> None:
    plane = sparse(Block.LIQ_LONG, CellType.U8LOG, np.array(indices), np.array([9, 8], np.uint8))
    with pytest.raises(NotMphm, match="ascend"):
        decode(answer(replace(HEAD, form=Form.SPARSE), [plane, NUMBERS, SRC, provenance(TEXT)]))


def test_every_cut_and_every_changed_byte_behind_the_header_is_noticed() -> None:
    data = answer()
    for length in range(len(data)):
        with pytest.raises(NotMphm):
            decode(data[:length])
    for at in range(120, len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(NotMphm):
            decode(bytes(changed))


@given(st.binary(max_size=600), st.integers(0, 127))
def test_rubbish_is_refused_or_read_but_never_anything_else(rubbish: bytes, at: int) -> None:
    data = bytearray(answer())
    data[at : at + len(rubbish)] = rubbish
    for candidate in (bytes(data), rubbish, sealed(data) if len(data) >= 128 else b""):
        try:
            found: Heatmap | None = decode(candidate)
        except NotMphm:
            found = None
        if found is not None:
            assert all(found.dense(block).shape == (found.header.cols, found.header.rows) for block in found.planes)


def test_the_provenance_is_any_json_object() -> None:
    value: dict[str, Any] = {"assumptions": None, "coverage": {"flags": ["gap"]}, "symbol": "BTC", "ü": 1.5}
    text = msgspec.json.encode(value)
    assert decode(answer(blocks=[SRC, provenance(text)])).provenance == value
