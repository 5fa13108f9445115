"""Pictures of liquidation frames (`spec: engine`, section 12)."""

from __future__ import annotations

import numpy as np
import pytest

from mpengine.heatmap import DisplayMap, Grid
from mpengine.pictures import cells_u8, cut_v1, intensity_scale, picture_v1, picture_v2, smoothed, stretch_levels, stretched

LONG = [0, 0, 0.5, 1, 0, 0, 0.2]
SHORT = [0, 0.3, 0, 0, 0, 0.6, 0]


def test_the_vector_of_the_first_picture() -> None:
    smooth = smoothed(np.array([LONG, SHORT], np.float64))
    assert smooth[0] == pytest.approx([0.071429, 0.222222, 0.4, 0.5, 0.27, 0.155556, 0.114286], abs=5e-7)
    assert smooth[1] == pytest.approx([0.085714, 0.133333, 0.06, 0.09, 0.12, 0.266667, 0.171429], abs=5e-7)
    p50, p95 = stretch_levels(smooth)
    assert (p50, p95) == (pytest.approx(0.155556, abs=5e-7), pytest.approx(0.5))
    out = stretched(smooth, p50, p95)
    assert out.tolist() == [[0, 0.1935, 0.7097, 1, 0.3323, 0, 0], [0, 0, 0, 0, 0, 0.3226, 0]]


def test_levels_of_nothing_and_of_one_value() -> None:
    assert stretch_levels(np.zeros((2, 5))) == (0.0, 1.0)
    assert stretch_levels(np.full((2, 5), 0.3)) == (0.3, 0.31)
    assert stretched(np.zeros((2, 3)), 0.0, 1.0).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_the_first_picture_is_cut_at_eight_percent() -> None:
    grid = Grid(2965, 660, 20.0)  # BTC at 65,892.725
    shown = DisplayMap(np.arange(1320, dtype=np.float64).reshape(2, 660) / 1320)
    cut, values = cut_v1(grid, 65_892.725, shown)
    assert (cut.origin, cut.origin + cut.count - 1) == (round(0.92 * 65_892.725 / 20), round(1.08 * 65_892.725 / 20))
    assert values[0, 0] == shown.values[0, cut.origin - grid.origin]
    made = picture_v1(grid, 65_892.725, shown)
    assert made.values.shape == (2, cut.count) == (2, made.grid.count)
    assert made.p50 < made.p95
    narrow = Grid(3290, 10, 20.0, shrunk=True)
    assert cut_v1(narrow, 65_892.725, DisplayMap(np.zeros((2, 10))))[0] == narrow


def test_the_second_picture_is_the_map_itself() -> None:
    shown = DisplayMap(np.array([[0.123456, 0.0], [1.0, 0.7]]))
    made = picture_v2(Grid(1, 2, 1.0), shown)
    assert made.values.tolist() == [[0.1235, 0.0], [1.0, 0.7]]
    assert intensity_scale(shown) == 1.0
    assert intensity_scale(DisplayMap(np.zeros((2, 0)))) == 0.0


def test_cells_are_rounded_and_clipped() -> None:
    assert cells_u8(np.array([[0.0, 0.5, 1.0, 1.5, 0.0019]])).tolist() == [[0, 128, 255, 255, 0]]


def test_levels_are_values_of_the_map_by_rank() -> None:
    """Of n sorted positive values those at int(0.5 n) and int(0.95 n), the last one at most; the same one twice: 0.01 apart."""
    for count in (1, 2, 19, 20, 21, 100, 151):
        values = np.zeros((2, count + 3))
        values[1, :count] = np.arange(count, 0, -1)
        p50, p95 = stretch_levels(values)
        assert p50 == int(0.5 * count) + 1
        assert p95 == (int(0.95 * count) + 1 if count > 2 else p50 + 0.01)


def test_a_tenth_is_dark() -> None:
    assert stretched(np.array([[0.1, 0.1001, 0.0999], [1.0, 2.0, -1.0]]), 0.0, 1.0).tolist() == [
        [0.0, 0.1001, 0.0],
        [1.0, 1.0, 0.0],
    ]
