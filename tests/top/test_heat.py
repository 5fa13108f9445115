"""Columns in the rows of a window: the largest of what overlaps survives any number of rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mpengine.top.heat import COLUMNS, ROWS, Column, HeatBook, Window, pooled, window_at


def column(t_ms: int = 0, *, price0: float = 64_000.0, step: float = 20.0, size: int = 200, seed: int = 1) -> Column:
    rng = np.random.default_rng(seed)
    low, high = (rng.integers(0, 256, size).astype(np.uint8) for _ in range(2))
    return Column(t_ms, price0, step, low, high)


def by_hand(cells: np.ndarray, one: Column, window: Window) -> list[int]:
    """Bucket b covers price0 + (b +- 0.5) * step; a row shows the largest of the buckets that it overlaps."""
    found = []
    for row in range(ROWS):
        bottom, top = window.price0 + row * window.height, window.price0 + (row + 1) * window.height
        hit = [
            int(cell) for b, cell in enumerate(cells)
            if one.price0 + (b + 0.5) * one.step > bottom and one.price0 + (b - 0.5) * one.step < top
        ]  # fmt: skip
        found.append(max(hit, default=0))
    return found


@pytest.mark.parametrize(
    ("centre", "range_pct", "price0", "step", "size"),
    [
        (65_892.7, 3.0, 60_000.0, 20.0, 600),  # more buckets than rows
        (65_892.7, 0.5, 60_000.0, 20.0, 600),  # fewer: rows share a bucket
        (65_892.7, 8.0, 64_000.0, 20.0, 100),  # the frame ends inside of the window
        (65_892.7, 1.0, 70_000.0, 20.0, 100),  # above it
        (65_892.7, 1.0, 10_000.0, 20.0, 100),  # below it
        (179.785, 3.0, 161.8, 0.1, 360),
    ],
)
def test_a_row_has_the_largest_cell_that_overlaps_it(
    centre: float, range_pct: float, price0: float, step: float, size: int
) -> None:
    one, window = column(price0=price0, step=step, size=size), Window(centre, range_pct)
    found = pooled(one, window)
    assert list(found.low) == by_hand(one.low, one, window)
    assert list(found.high) == by_hand(one.high, one, window)


def test_the_window_stays_while_the_price_is_near_its_middle() -> None:
    first = window_at(100.0, 2.0, None)
    assert math.isclose(first.price0, 98.0) and math.isclose(first.height * ROWS, 4.0)
    assert window_at(100.59, 2.0, first) is first
    assert window_at(100.61, 2.0, first) == Window(100.61, 2.0)
    assert window_at(100.0, 3.0, first) == Window(100.0, 3.0)


def test_a_book_of_columns_is_bounded_ordered_and_replaced_by_time() -> None:
    book, window = HeatBook("map", 60_000), Window(65_892.7, 3.0)
    assert book.picture(window) is None and book.newest_ms is None
    for at in reversed(range(COLUMNS + 5)):
        book.add(column(at * 60_000, seed=at))
    picture = book.picture(window)
    assert picture is not None and len(picture.columns) == COLUMNS
    times = [one.t_ms for one in picture.columns]
    assert times == sorted(times) and book.newest_ms == (COLUMNS + 4) * 60_000
    assert book.picture(window) is picture, "nothing changed: the same object"
    again = column(times[-1], seed=999)
    book.add(again)
    newer = book.picture(window)
    assert newer is not None and newer.columns[-1] == pooled(again, window) and newer.columns[:-1] == picture.columns[:-1]


def test_another_window_is_another_picture_of_the_same_columns() -> None:
    book = HeatBook("book", 30_000)
    book.add(column(5))
    near, far = book.picture(Window(65_000.0, 1.0)), book.picture(Window(65_000.0, 5.0))
    assert near is not None and far is not None and near.columns[0].low != far.columns[0].low
    assert far.columns == (pooled(column(5), Window(65_000.0, 5.0)),)
