"""Layouts that both ends share: every offset of the tables, and what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mpengine.wire_formats import (
    COLUMN_HEADER,
    DEPTH_HEADER,
    NO_PREVIOUS,
    CellType,
    ColumnFlag,
    ColumnHeader,
    ColumnKind,
    pack_column,
    unpack_column,
    unpack_depth,
    usd_of_cells,
)

HEADER = ColumnHeader(
    kind=ColumnKind.LIQ, cell=CellType.U8LOG, channel=513, flags=ColumnFlag.RESTART | ColumnFlag.STALE, rows=3, epoch=7, seq=61_023,
    prev=61_022, t_ms=1_795_210_800_000, dt_ms=60_000, price0=59_240.0, step=20.0, src=65_817.9,
)  # fmt: skip
LOW, HIGH = np.array([0, 1, 255], np.uint8), np.array([9, 8, 7], np.uint8)


def depth_bytes(rows: int = 1, columns: int = 2, *, version: int = 1, history: bool = False) -> bytes:
    head = DEPTH_HEADER.pack(version, 0, 0, 30_000, 30_000, rows, columns, 10.0, 30.0, 20.0, 25.5, 1, 2, 3, 4, 65_535, 0)
    cells = bytes(range(2 * rows * columns))
    times = struct.pack(f"<{rows}Q", *(30_000 * (row + 1) for row in range(rows))) if history else b""
    return head + cells + times


def test_a_column_lies_at_the_offsets_of_the_table() -> None:
    data = pack_column(HEADER, (LOW, HIGH))
    assert COLUMN_HEADER.size == 80 and len(data) == 86
    assert data[:4] == b"MPCD" and tuple(data[4:8]) == (1, 2, 2, 2)
    assert struct.unpack_from("<HH", data, 8) == (513, 12)
    assert struct.unpack_from("<IQQQq", data, 12) == (3, 7, 61_023, 61_022, 1_795_210_800_000)
    assert struct.unpack_from("<ddd", data, 48) == (59_240.0, 20.0, 65_817.9)
    assert struct.unpack_from("<fI", data, 72) == (1.0, 60_000)
    assert data[80:] == LOW.tobytes() + HIGH.tobytes()


def test_a_column_comes_back() -> None:
    header, low, high = unpack_column(pack_column(HEADER, (LOW, HIGH)))
    assert header == HEADER
    assert low.tolist() == LOW.tolist() and high.tolist() == HIGH.tolist()


def test_the_first_message_has_no_previous_one() -> None:
    first = ColumnHeader(**{**{name: getattr(HEADER, name) for name in HEADER.__slots__}, "prev": -1})
    data = pack_column(first, (LOW, HIGH))
    assert struct.unpack_from("<Q", data, 32) == (NO_PREVIOUS,)
    assert unpack_column(data)[0].prev == -1


def test_float16_cells_are_in_units() -> None:
    header = ColumnHeader(
        **{**{name: getattr(HEADER, name) for name in HEADER.__slots__}, "cell": CellType.F16, "unit_usd": 1024.0}
    )
    data = pack_column(header, (np.array([0.0, 1.5, 2.0]), np.zeros(3)))
    assert len(data) == 80 + 12
    back, low, _ = unpack_column(data)
    assert usd_of_cells(low, back.unit_usd).tolist() == [0.0, 1536.0, 2048.0]
    assert usd_of_cells(np.array([0, 1, 255], np.uint8)) == pytest.approx([0.0, 100.0, 1e9])


@pytest.mark.parametrize("change", [
    (0, b"MPHM"), (4, b"\x02"), (5, b"\x09"), (6, b"\x07"), (7, b"\x03"), (12, b"\xff\xff\xff\xff"),
])  # fmt: skip
def test_what_is_not_a_column_is_refused(change: tuple[int, bytes]) -> None:
    at, piece = change
    data = bytearray(pack_column(HEADER, (LOW, HIGH)))
    data[at : at + len(piece)] = piece
    with pytest.raises(ValueError):
        unpack_column(bytes(data))


def test_a_cut_column_is_refused() -> None:
    data = pack_column(HEADER, (LOW, HIGH))
    for length in (0, 79, 85):
        with pytest.raises(ValueError):
            unpack_column(data[:length])
    with pytest.raises(ValueError):
        unpack_column(data + b"\0")


def test_depth_cells_of_one_frame_and_of_a_history() -> None:
    one = unpack_depth(depth_bytes(), history=False)
    assert (one.t_ms.tolist(), one.bid.tolist(), one.ask.tolist()) == ([30_000], [[0, 1]], [[2, 3]])
    assert (one.price_min, one.price_max, one.step, one.src) == (10.0, 30.0, 20.0, 25.5)
    assert one.norms_usd == (1000.0, 2000.0, 3000.0, 4000.0, 65_535_000.0)
    more = unpack_depth(depth_bytes(2, 2, history=True), history=True)
    assert more.t_ms.tolist() == [30_000, 60_000]
    assert more.bid.tolist() == [[0, 1], [2, 3]] and more.ask.tolist() == [[4, 5], [6, 7]]
    empty = unpack_depth(depth_bytes(0, 0, history=True), history=True)
    assert empty.bid.shape == (0, 0) and empty.t_ms.size == 0


@pytest.mark.parametrize("data", [b"", depth_bytes()[:-1], depth_bytes() + b"\0", depth_bytes(version=2)])
def test_what_is_not_a_depth_answer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack_depth(data, history=False)
