"""Frame payloads: unit, float16 cells, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shm.frames import Frame, FrameRefused, decode, encode, unit_for
from shm.records import Coverage, FrameKind


def depth(planes: np.ndarray) -> Frame:
    return Frame(
        kind=FrameKind.DEPTH, open_ts_ns=30, close_ts_ns=60, venue_ts_ns=50, reference=100.0, origin=-3, step=0.5, norm_a=1.0,
        norm_b=2.0, total_a=3.0, total_b=4.0, coverage=Coverage.GAP | Coverage.PARTIAL, venues=1, samples=29, planes=planes,
    )  # fmt: skip


def test_unit_vectors_of_the_specification() -> None:
    assert unit_for(4_000_000.0) == 128.0
    assert unit_for(100.0) == 2.0**-8
    assert unit_for(0.0) == 1.0
    frame = decode(encode(depth(np.array([[4_000_000.0, 0.0], [100.0, 3.0]]))))
    assert (frame.unit_usd, frame.planes[0, 0]) == (128.0, 3_999_744.0)


def test_a_depth_frame_fills_its_slot_exactly() -> None:
    assert len(encode(depth(np.ones((2, 2000))))) == 8192 - 64


@given(hnp.arrays(np.float64, (2, 7), elements=st.floats(0, 1e12, allow_subnormal=False)))
def test_cells_come_back_within_float16_precision(planes: np.ndarray) -> None:
    frame = decode(encode(depth(planes)))
    largest = planes.max()
    assert np.all(np.abs(frame.planes - planes) <= np.maximum(planes * 2.0**-11, largest * 4e-9))
    assert largest == 0.0 or 16_384 <= largest / frame.unit_usd < 32_768


def test_header_comes_back() -> None:
    frame = depth(np.ones((2, 5)))
    back = decode(encode(frame))
    for name in ("kind", "open_ts_ns", "close_ts_ns", "venue_ts_ns", "reference", "origin", "step", "norm_a", "norm_b", "total_a",
                 "total_b", "coverage", "venues", "samples", "count"):  # fmt: skip
        assert getattr(back, name) == getattr(frame, name), name


@pytest.mark.covers("S-L2", "R-M7", "R-M8", "R-M9", "R-L6")
@pytest.mark.parametrize(
    "change",
    [
        {"reference": math.nan}, {"reference": 0.0}, {"step": 0.0}, {"step": -1.0}, {"norm_a": math.inf}, {"total_b": math.nan},
        {"close_ts_ns": 29}, {"planes": np.full((2, 3), np.nan)}, {"planes": np.full((2, 3), -1.0)},
        {"planes": np.full((2, 3), np.inf)}, {"planes": np.ones((2, 2001))}, {"planes": np.ones((2, 0))},
        {"planes": np.ones((4, 5))},
    ],
)  # fmt: skip
def test_a_frame_that_would_lie_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(FrameRefused):
        encode(replace(depth(np.ones((2, 3))), **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage", [lambda p: p[:100], lambda p: b"\x09" + p[1:], lambda p: p[:3] + b"\x07" + p[4:], lambda p: p[:500]]
)
def test_a_payload_of_another_shape_is_a_value_error(damage: object) -> None:
    with pytest.raises(ValueError, match="frame"):
        decode(damage(encode(depth(np.ones((2, 3))))))  # type: ignore[operator]
