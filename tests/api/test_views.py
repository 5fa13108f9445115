"""Pictures of frames against the vectors of the specification and against the plain formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from api import views
from api.errors import ApiError
from api.views import DepthRow, Levels, Window, coarse, decode_frame, decode_rows, picture, pooled, window_of
from shm.digest import digest
from shm.frames import Frame, decode, encode
from shm.grid import bucket_of, price_of
from shm.slots import pack_body
from tests.api.world import NOW_MS, SLOT_MS, depth_frame, liquidation_frame


def slot(frame: Frame, number: int = 5, epoch: int = 7, stride: int = 8192) -> views.Slots:
    """A raw ring slot, as a reader's block has it."""
    body = pack_body(number, encode(frame), frame.close_ts_ns, frame.close_ts_ns, frame.kind, 0, epoch, 0)
    raw = (2 * number + 2).to_bytes(8, "little") + digest(body, number).to_bytes(8, "little") + body
    return np.frombuffer(raw.ljust(stride, b"\0"), np.uint8).reshape(1, -1)


def depth_slot(cells: Any, **values: Any) -> views.Slots:
    return slot(depth_frame(NOW_MS, cells=cells, origin=values.pop("origin", 3000), **values))


def row(cells: Any, *, origin: int = 0, step: float = 1.0, src: float = 100.0, open_ms: int = NOW_MS, number: int = 0) -> DepthRow:
    return DepthRow(number, 1, open_ms, origin, step, src, Levels(0, 0, 0, 0, 0), np.array(cells, np.uint8))


def reference(plane: Any, p50: float, p95: float) -> list[int]:
    """The formula of the specification, cell by cell."""
    if p95 <= p50:
        return [0] * len(plane)
    return [math.trunc(255 * min(max((value - p50) / (p95 - p50), 0.0), 1.0)) for value in plane]


def test_vector_of_the_specification() -> None:
    frame = decode_frame(depth_slot([[0, 100, 200, 400, 0], [0, 0, 50, 1000, 300]]))
    assert frame is not None
    assert (frame.row.levels.p50, frame.row.levels.p95, frame.row.levels.max) == (250.0, 850.0, 1000.0)
    assert frame.row.cells.tolist() == [[0, 0, 0, 63, 0], [0, 0, 0, 255, 21]]
    assert (frame.bid.p50, frame.bid.max, frame.ask.p50, frame.ask.max) == (200.0, 400.0, 300.0, 1000.0)


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_and_cells_equal_the_plain_formulas(seed: int) -> None:
    frame = depth_frame(NOW_MS, seed=seed)
    found = decode_frame(slot(frame))
    assert found is not None
    usd = decode(encode(frame)).planes  # what float16 has left of the values
    for levels, cells in ((found.row.levels, usd), (found.bid, usd[0]), (found.ask, usd[1])):
        wanted = np.percentile(cells[cells > 0], [50, 90, 95, 99, 100])
        assert np.allclose([levels.p50, levels.p90, levels.p95, levels.p99, levels.max], wanted, rtol=1e-12)
    assert found.row.cells[0].tolist() == reference(usd[0], found.row.levels.p50, found.row.levels.p95)
    assert found.row.cells[1].tolist() == reference(usd[1], found.row.levels.p50, found.row.levels.p95)


@pytest.mark.parametrize("cells", [np.zeros((2, 4)), np.full((2, 4), 5.0), [[0, 7, 0, 0], [0, 0, 0, 0]]])
@pytest.mark.covers("T-L11")
def test_degenerate_frames_are_dark(cells: Any) -> None:
    frame = decode_frame(depth_slot(cells))
    assert frame is not None and not frame.row.cells.any()
    assert all(math.isfinite(value) for value in (frame.row.levels.p50, frame.bid.p95, frame.ask.max))


def test_negative_zero_counts_as_empty() -> None:
    frame = decode_frame(depth_slot([[-0.0, 100, 200, 400, -0.0], [0, -0.0, 50, 1000, 300]]))
    assert frame is not None and frame.row.levels.max == 1000.0 and frame.row.levels.p50 == 250.0


def test_many_frames_at_once_give_what_each_gives_alone() -> None:
    slots = [slot(depth_frame(NOW_MS + index * SLOT_MS, seed=index), number=index) for index in range(5)]
    together = decode_rows(np.concatenate(slots))
    alone = [decode_rows(one)[0] for one in slots]
    assert [one.number for one in together] == list(range(5))
    for one, two in zip(together, alone):
        assert one.levels == two.levels and one.open_ms == two.open_ms and np.array_equal(one.cells, two.cells)


def test_no_slots_at_all_are_no_rows() -> None:
    nothing = slot(depth_frame(NOW_MS))[:0]
    assert decode_rows(nothing) == [] and decode_frame(nothing) is None


def test_frames_of_another_kind_or_schema_are_left_out() -> None:
    depth, other = slot(depth_frame(NOW_MS)), slot(liquidation_frame(NOW_MS), stride=16_384)
    newer = depth.copy()
    newer[0, 64] = 2  # frame schema
    assert decode_frame(newer) is None
    assert decode_frame(other[:, :8192].copy()) is None
    assert len(decode_rows(np.concatenate([newer, depth]))) == 1


@pytest.mark.parametrize("k", [1, 2, 3, 5, 10, 100])
def test_target_bucket_is_the_nearest_in_whole_numbers(k: int) -> None:
    for index in range(-500, 1500):
        assert coarse(index, k) == math.floor(index / k + 0.5)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("origin", [0, 1, 2965, -3])
def test_pooled_cell_is_the_largest_of_its_sources(k: int, origin: int) -> None:
    cells = np.random.default_rng(k).integers(0, 256, (2, 57)).astype(np.uint8)
    first, found = pooled(cells, origin, k)
    wanted: dict[int, list[int]] = {}
    for index in range(57):
        wanted.setdefault(math.floor((origin + index) / k + 0.5), []).append(index)
    assert list(range(first, first + found.shape[1])) == sorted(wanted)
    for side in (0, 1):
        assert found[side].tolist() == [max(int(cells[side, at]) for at in wanted[target]) for target in sorted(wanted)]


@pytest.mark.covers("A1-H3")
@pytest.mark.parametrize("k", [1, 3, 7])
def test_prices_come_from_the_one_grid_function(k: int) -> None:
    made = picture([row(np.ones((2, 2000)), origin=500, step=0.1, src=150.0)], window_of(0.1, None, 0.1 * k, None, None))
    wide = price_of(k, 0.1)
    assert made.step == wide
    assert made.prices.tolist() == [price_of(index, wide) for index in range(made.origin, made.origin + made.buckets)]
    assert made.bounds == (made.prices[0], made.prices[-1])
    assert int(np.count_nonzero(made.cells[0])) == made.buckets  # every source bucket has its row
    assert all(bucket_of(price, wide) == made.origin + at for at, price in enumerate(made.prices.tolist()))


@pytest.mark.covers("A1-M24")
def test_range_is_a_share_of_the_price_on_the_grid() -> None:
    rows = [row(np.ones((2, 401)), origin=800, step=1.0, src=1000.0)]
    narrow, wide = (picture(rows, window_of(1.0, share, None, None, None)) for share in (0.02, 0.10))
    assert (narrow.bounds, wide.bounds) == ((980.0, 1020.0), (900.0, 1100.0))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((20.0, None, None, None, None), Window()),
        ((20.0, 0.02, None, None, None), Window(1, 0.02)),
        ((20.0, 0.020004, None, None, None), Window(1, 0.02)),
        ((20.0, 1e-9, None, None, None), Window(1, 0.0001)),
        ((20.0, 1.0, None, None, None), Window(1, 1.0)),
        ((20.0, None, 20.0, None, None), Window()),
        ((20.0, None, 2000.0, None, None), Window(100)),
        ((0.1, None, 0.3, None, None), Window(3)),
        ((0.1, None, 0.30000000000000004, None, None), Window(3)),
        ((20.0, None, None, 64_009.0, 64_011.0), Window(1, None, 3200, 3201)),
        ((20.0, None, 100.0, 64_000.0, None), Window(5, None, 640, None)),
        ((20.0, None, None, 20.0, 80_000.0), Window(1, None, 1, 4000)),
        ((20.0, None, None, 1.0, None), Window(1, None, 0, None)),
        ((20.0, None, None, 1e300, None), Window(1, None, bucket_of(1e300, 20.0), None)),
    ],
)
def test_windows_are_canonical(arguments: Any, wanted: Window) -> None:
    assert window_of(*arguments) == wanted


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((20.0, None, 7.0, None, None), "invalid_parameter"),
        ((20.0, None, 1e-9, None, None), "invalid_parameter"),
        ((20.0, None, 2020.0, None, None), "invalid_parameter"),
        ((20.0, None, 1e300, None, None), "invalid_parameter"),
        ((20.0, None, 19.9999, None, None), "invalid_parameter"),
        ((20.0, None, None, 5.0, 5.0), "invalid_parameter"),
        ((20.0, None, None, 6.0, 5.0), "invalid_parameter"),
        ((1e-9, None, None, 1e300, None), "invalid_parameter"),
        ((20.0, None, None, 20.0, 80_020.0), "too_large"),
    ],
)
def test_windows_that_are_refused(arguments: Any, code: str) -> None:
    with pytest.raises(ApiError) as error:
        window_of(*arguments)
    assert error.value.code == code


def test_window_outside_the_frame_is_empty() -> None:
    made = picture([row(np.ones((2, 10)), origin=100)], Window(low=1000))
    assert (made.buckets, made.bounds, made.prices.tolist(), made.cells.shape) == (0, (0.0, 0.0), [], (2, 1, 0))


def test_rows_of_a_history_share_the_union_of_their_axes() -> None:
    made = picture([row([[1, 2], [3, 4]], origin=10), row([[5, 6], [7, 8]], origin=13)], Window())
    assert made.prices.tolist() == [10.0, 11.0, 12.0, 13.0, 14.0]
    assert made.cells[0].tolist() == [[1, 2, 0, 0, 0], [0, 0, 0, 5, 6]]
    assert made.cells[1].tolist() == [[3, 4, 0, 0, 0], [0, 0, 0, 7, 8]]


def test_a_history_too_wide_is_cut_round_the_newest_price() -> None:
    rows = [row(np.ones((2, 10)), origin=10**9), row(np.ones((2, 2000)), origin=0, src=1000.0)]
    made = picture(rows, Window())
    assert made.buckets == views.MAX_ROWS and made.origin <= 0 and made.bounds[1] >= 1000.0
    assert made.cells[0, 1].sum() == 2000
    up = picture([row(np.ones((2, 10)), origin=0), row(np.ones((2, 2000)), origin=9000, src=10_500.0)], Window())
    assert up.buckets == views.MAX_ROWS and up.bounds[1] == 10_999.0
    with pytest.raises(ApiError) as error:
        picture(rows, Window(low=0))
    assert error.value.code == "too_large"
