"""USD on the logarithmic scale of bytes."""

from __future__ import annotations

import numpy as np
import pytest

from mpengine.cells import HI_USD, LO_USD, u8log, usd_of_u8log


def test_the_ends_of_the_scale() -> None:
    usd = np.array([0.0, 99.99, LO_USD, HI_USD, 10 * HI_USD])
    assert u8log(usd).tolist() == [0, 0, 1, 255, 255]


def test_a_cell_is_what_the_formula_says() -> None:
    usd = np.array([123.4, 5e4, 2.5e6, 7.77e8])
    expected = [1 + round(254 * float(np.log(value / 100.0) / np.log(1e9 / 100.0))) for value in usd]
    assert u8log(usd).tolist() == expected


def test_every_cell_comes_back_and_the_error_is_at_most_the_promised_one() -> None:
    cells = np.arange(256, dtype=np.uint8)
    assert u8log(usd_of_u8log(cells)).tolist() == cells.tolist()
    usd = np.geomspace(LO_USD, HI_USD, 100_000)
    assert np.abs(usd_of_u8log(u8log(usd)) / usd - 1).max() < 0.033


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_planes_of_any_width_and_shape(kind: type) -> None:
    planes = np.array([[[0, 150], [1000, 60000]]], kind)
    cells = u8log(planes)
    assert cells.dtype == np.uint8
    assert cells.shape == planes.shape
    assert (cells == u8log(planes.astype(np.float64))).all()
