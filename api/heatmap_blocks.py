"""Cells of `/heatmap` in their form of the answer, block of columns by block, kept while their frames are the same. Pure.

The boundaries of blocks lie at fixed times. So when a window has moved on by a column, or a liquidation has come, all blocks but
the outermost are those of the answer before, as long as the rows are the same: most of a new answer is put together, not made.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from api.bodies import dumps
from api.heatmap_grid import Cells, Cut, Layer, Placed, PriceAxis, cells_of, cuts

KEPT_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Look:
    """How cells are told. `binary`: as bytes, else as text; `min_usd`: smaller ones are nothing."""

    cell: str
    sums: bool
    sparse: bool
    min_usd: float
    binary: bool


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One side of one layer in one block. Dense: `text`, cells joined. Sparse: `cells` that hold something, at `at` = c * rows + r
    counted from the first column of the block."""

    text: bytes
    at: Cells | None = None
    cells: Cells | None = None

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.text) + sum(array.nbytes for array in (self.at, self.cells) if array is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Columns `cut` of a ring: two pieces per layer, and the unit of each column. `serials`: of the frames it was made from, which
    are not held by it."""

    cut: Cut
    serials: list[int]
    pieces: tuple[tuple[Piece, Piece], ...]
    units: Cells

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return 1024 + 8 * len(self.serials) + sum(piece.size for pair in self.pieces for piece in pair)


class Blocks:
    """Blocks of one worker, at most `size` bytes of them; the longest unused go first. Used by the builder's thread."""

    def __init__(self, size: int = KEPT_BYTES) -> None:
        self._max_size = size
        self._blocks: dict[Hashable, Block] = {}
        self.size = 0
        self.made = 0

    def of(
        self, symbol: str, placed: Placed, layers: tuple[Layer, ...], prices: PriceAxis, base: float, look: Look
    ) -> Iterator[Block]:
        """The blocks of a ring, in the order of their columns. The cuts are those of this answer."""
        axis = placed.axis
        for cut in cuts(axis, prices.rows):
            serials = [frame.serial for frame in placed.between(cut.first, cut.stop)[1]]
            start_ms = axis.t0_ms + cut.first * axis.dt_ms
            key = (symbol, layers, start_ms, cut.stop - cut.first, axis.dt_ms, prices, look)
            kept = self._blocks.pop(key, None)
            if kept is None or kept.serials != serials:
                self._forget(kept)
                kept = self._made(placed, layers, prices, base, look, cut, serials)
                self.size += kept.size
            self._blocks[key] = kept
            while self.size > self._max_size:
                self._forget(self._blocks.pop(next(iter(self._blocks))))
            yield Block(cut, kept.serials, kept.pieces, kept.units)

    def _forget(self, block: Block | None) -> None:
        if block is not None:
            self.size -= block.size

    def _made(
        self, placed: Placed, layers: tuple[Layer, ...], prices: PriceAxis, base: float, look: Look, cut: Cut, serials: list[int]
    ) -> Block:
        self.made += 1
        found, units = cells_of(placed, layers, prices, base, cut, cell=look.cell, sums=look.sums, min_usd=look.min_usd)
        return Block(cut, serials, tuple((_piece(low, look), _piece(high, look)) for low, high in found), units)


def _piece(cells: Cells, look: Look) -> Piece:
    flat = cells.reshape(-1)
    if look.sparse:
        at = np.flatnonzero(flat)
        return Piece(b"", at, flat[at])
    return Piece(flat.tobytes() if look.binary else dumps(flat)[1:-1])


def triples(block: Block, piece: Piece, rows: int) -> bytes:
    """JSON of `[column, row, cell]` of a sparse piece, joined with commas."""
    assert piece.at is not None
    assert piece.cells is not None
    column, row = np.divmod(piece.at + block.cut.first * rows, max(1, rows))
    if piece.cells.dtype.kind == "u":
        found: Any = np.column_stack((column, row, piece.cells.astype(np.int64)))
    else:
        found = list(zip(column.tolist(), row.tolist(), piece.cells.tolist()))
    return dumps(found)[1:-1]
