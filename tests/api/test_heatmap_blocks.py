"""Blocks of encoded cells: what is kept, for how long, and that it is what would be made."""

from __future__ import annotations

import numpy as np
import pytest

from api.heatmap_blocks import Blocks, Look, triples
from api.heatmap_grid import BLOCK_COLUMNS, DEPTH, GridFrame, Placed, PriceAxis, TimeAxis

BASE, ROWS, MINUTE_MS = 20.0, 10, 60_000
PRICES = PriceAxis(100, ROWS, 1, BASE)
DENSE = Look("u8log", sums=False, sparse=False, min_usd=0.0, binary=True)


def frames_of(count: int, *, first: int = 0) -> list[GridFrame]:
    cells = np.random.default_rng(1).exponential(1e3, (first + count, 2, ROWS)).astype(np.float16)
    return [
        GridFrame(number, 1, number * MINUTE_MS, (number + 1) * MINUTE_MS, 2000.0, 100, BASE, 0, 64.0, cells[number])
        for number in range(first, first + count)
    ]


def made(blocks: Blocks, frames: list[GridFrame], axis: TimeAxis, look: Look = DENSE, prices: PriceAxis = PRICES) -> int:
    """How many blocks were made for an answer; what comes is what a store without anything makes."""
    before, placed = blocks.made, Placed(frames, axis, MINUTE_MS)
    found = list(blocks.of("BTC", placed, (DEPTH,), prices, BASE, look))
    fresh = list(Blocks().of("BTC", placed, (DEPTH,), prices, BASE, look))
    assert [block.cut for block in found] == [block.cut for block in fresh]
    for one, other in zip(found, fresh):
        for mine, theirs in zip(one.pieces[0], other.pieces[0]):
            assert mine.text == theirs.text
            assert (mine.at is None) == (theirs.at is None) == (not look.sparse)
            if look.sparse:
                assert triples(one, mine, prices.rows) == triples(other, theirs, prices.rows)
        assert one.units.tolist() == other.units.tolist()
    return blocks.made - before


def axis_from(column: int, cols: int) -> TimeAxis:
    return TimeAxis(column * MINUTE_MS, MINUTE_MS, cols)


@pytest.mark.parametrize("sparse", [False, True])
def test_only_the_outermost_blocks_are_made_anew(sparse: bool) -> None:
    blocks, frames = Blocks(), frames_of(400)
    look = Look("u8log", sums=False, sparse=sparse, min_usd=0.0, binary=False)
    assert made(blocks, frames, axis_from(30, 300), look) == 6
    assert made(blocks, frames, axis_from(30, 300), look) == 0
    assert made(blocks, frames, axis_from(31, 300), look) == 2
    assert made(blocks, frames, axis_from(90, 300), look) == 3, "the first is cut, the last one has grown, one is new"
    assert made(blocks, frames, axis_from(60, 240), look) == 0, "whole blocks serve any window"


def test_everything_that_decides_what_a_block_is_decides() -> None:
    blocks, frames, axis = Blocks(), frames_of(60), axis_from(0, BLOCK_COLUMNS)
    assert made(blocks, frames, axis) == 1
    for prices in (PriceAxis(101, ROWS, 1, BASE), PriceAxis(100, ROWS - 1, 1, BASE), PriceAxis(50, 5, 2, 2 * BASE)):
        assert made(blocks, frames, axis, prices=prices) == 1
    looks = [("f16", False, False, 0.0, True), ("u8log", True, False, 0.0, True), ("u8log", False, True, 0.0, True),
             ("u8log", False, True, 5e3, True), ("u8log", False, False, 0.0, False)]  # fmt: skip
    for cell, sums, sparse, min_usd, binary in looks:
        look = Look(cell, sums=sums, sparse=sparse, min_usd=min_usd, binary=binary)
        assert made(blocks, frames, axis, look) == 1
    assert made(blocks, frames, TimeAxis(0, 2 * MINUTE_MS, 30)) == 1
    assert made(blocks, frames, axis) == 0


def test_a_frame_that_comes_goes_or_is_decoded_anew_makes_its_block_anew() -> None:
    blocks, frames, axis = Blocks(), frames_of(120), axis_from(0, 120)
    assert made(blocks, frames[:59] + frames[60:], axis) == 2
    assert made(blocks, frames, axis) == 1
    assert made(blocks, frames[:-1], axis) == 1
    again = frames_of(1, first=70)
    assert (again[0].number, again[0].epoch) == (frames[70].number, frames[70].epoch)
    assert made(blocks, [*frames[:70], *again, *frames[71:]], axis) == 1, "the same number is not the same frame"


def test_what_is_kept_is_bounded_and_counted() -> None:
    frames = frames_of(1200)
    one = Blocks()
    made(one, frames, axis_from(0, 60))
    blocks = Blocks(size=5 * one.size)
    made(blocks, frames, axis_from(0, 1200))
    assert blocks.size == sum(block.size for block in blocks._blocks.values()) == 5 * one.size
    assert made(blocks, frames, axis_from(900, 300)) == 0, "the newest five"
    assert made(blocks, frames, axis_from(840, 60)) == 1
    assert made(blocks, frames, axis_from(900, 60)) == 1, "the longest unused went"
    tiny = Blocks(size=1)
    assert made(tiny, frames, axis_from(0, 120)) == 2 and (tiny.size, len(tiny._blocks)) == (0, 0)


def test_no_frame_is_held() -> None:
    import gc
    import weakref

    blocks, frames = Blocks(), [Traced(*frames_of(1)[0:1])]
    made(blocks, [frame.frame for frame in frames], axis_from(0, 60))
    gone = weakref.ref(frames[0].frame.cells)
    frames.clear()
    gc.collect()
    assert gone() is None and blocks.size > 0


class Traced:
    """The only holder of a frame."""

    def __init__(self, frame: GridFrame) -> None:
        self.frame = frame
