"""The grid of `/heatmap` against a plain one written from the contract (`heatmap_model`), and its parts one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from api.app import Service
from api.heatmap_grid import (
    DEPTH,
    DT_MS,
    LIQ,
    MAX_CELLS,
    MULTIPLES,
    PROJECTED,
    TAPE,
    Cut,
    Detail,
    Extent,
    GridFrame,
    Placed,
    PriceAxis,
    TimeAxis,
    TooLarge,
    Window,
    cells_of,
    choose_dt,
    cuts,
    fill_u8,
    multiple_of,
    one_step,
    pooled_usd,
    price_axis,
    three_digits,
    time_axis,
    unit_per_column,
    usd_of,
)
from mpengine import mphm
from mpengine.cells import u8log
from mpengine.mphm import Block
from shm.frames import Frame, decode, encode, unit_for
from shm.grid import price_of
from shm.records import PositionSide, Venue
from tests.api import heatmap_model as model
from tests.api.heatmap_model import Asked, Event, Facts
from tests.api.world import NOW_MS, SLOT_MS, World, depth_frame, get, map_frame

BASE = 20.0
MINUTE_MS = 60_000
SIDES = {"liq": ("long", "short"), "tape": ("long", "short"), "projected": ("long", "short"), "depth": ("bid", "ask")}
BLOCKS = {
    "liq": (Block.LIQ_LONG, Block.LIQ_SHORT), "tape": (Block.TAPE_LONG, Block.TAPE_SHORT),
    "projected": (Block.PROJECTED_LONG, Block.PROJECTED_SHORT), "depth": (Block.DEPTH_BID, Block.DEPTH_ASK),
}  # fmt: skip


@dataclass
class Scene:
    """What has been published: (number, frame as it comes back from the ring) by ring, and events."""

    app: Service
    rings: dict[str, list[tuple[int, Frame]]] = field(default_factory=lambda: {"liq": [], "depth": []})
    events: list[Event] = field(default_factory=list)


def random_cells(rng: np.random.Generator, planes: int, count: int) -> Any:
    cells = 10.0 ** rng.uniform(0.0, 9.5, (planes, count))
    return cells * (rng.random((planes, count)) < 0.4)


def publish(
    world: World, seed: int, minutes: int, *, map_step: float = BASE, book_step: float = BASE, changes: bool = False
) -> Scene:
    """Frames of the last `minutes`: the price wanders, minutes are missing, with `changes` the step was another one at first."""
    rng = np.random.default_rng(seed)
    scene, src = Scene(world.app()), 65_000.0
    for index in range(minutes):
        open_ms = NOW_MS - (minutes - index) * MINUTE_MS
        src *= 1 + rng.normal(0, 0.002)
        early = changes and index < minutes // 3
        if rng.random() > 0.15 or index == minutes - 1:
            step = 10.0 if early else map_step
            frame = map_frame(open_ms + MINUTE_MS, src=src, step=step, planes=random_cells(rng, 4, int(rng.integers(1, 40))),
                              origin=round(src / step) - int(rng.integers(0, 25)))  # fmt: skip
            scene.rings["liq"].append((world.add_map(frame, document=False), decode(encode(frame))))
        for half in range(2):
            if rng.random() > 0.15 or index == minutes - 1:
                step = 2.0 * book_step if early else book_step
                origin, cells = round(src / step) - int(rng.integers(0, 25)), random_cells(rng, 2, int(rng.integers(1, 40)))
                frame = depth_frame(open_ms + half * SLOT_MS, src=src, step=step, cells=cells, origin=origin)
                scene.rings["depth"].append((world.add_depth(frame), decode(encode(frame))))
        for _ in range(int(rng.integers(0, 6))):
            at_ms = open_ms + int(rng.integers(0, MINUTE_MS))
            side = PositionSide.LONG if rng.random() < 0.5 else PositionSide.SHORT
            venue = Venue(int(rng.integers(1, 4)))
            price, usd = round(src * (1 + rng.normal(0, 0.003)), 1), round(10 ** rng.uniform(1, 6), 2)
            world.add_liquidation(venue_ts_ns=at_ms * 1_000_000, price=price, side=side, venue=venue, notional_usd=usd)
            scene.events.append(Event(at_ms, price, side.name.lower(), int(venue), usd))
    return scene


def check(scene: Scene, asked: Asked) -> Facts:
    """Both forms of the answer against the model."""
    expected = model.facts(asked, scene.rings, scene.events, BASE)
    body = get(scene.app, asked.target()).json
    packed = mphm.decode(get(scene.app, asked.target(format="bin")).body)
    halves = mphm.decode(get(scene.app, asked.target(format="bin", cell="f16")).body)
    sparse = get(scene.app, asked.target(form="sparse", cell="usd")).json
    axes = {"t0_ms": expected.t0_ms, "dt_ms": expected.dt_ms, "cols": expected.cols, "rows": expected.rows, "k": expected.k}
    assert {name: body[name] for name in axes} == axes, asked
    assert {name: getattr(packed.header, name) for name in axes} == axes
    step = price_of(expected.k, BASE)
    assert body["step"] == step == packed.header.step
    assert body["price0"] == (price_of(expected.low, step) if expected.rows else 0.0) == packed.header.price0
    assert body["src"] == expected.src == [None if math.isnan(src) else src for src in packed.src.tolist()]
    assert list(body["layers"]) == list(sparse["layers"]) == [name for name in BLOCKS if name in expected.cells]
    assert packed.planes.keys() == {block for name in expected.cells for block in BLOCKS[name]}
    for name, sides in expected.cells.items():
        ring = "depth" if name == "depth" else "liq"
        assert body["layers"][name]["seq"] == expected.numbers[ring] == packed.numbers[ring].tolist()
        for side, key, block in zip(sides, SIDES[name], BLOCKS[name]):
            check_side(
                expected, side, body["layers"][name][key], sparse["layers"][name][key], packed.dense(block), halves.usd(block)
            )
    if "realised" in asked.layers:
        check_points(expected, body["realised"]["points"], packed.points)
    return expected


def check_side(expected: Facts, cells: dict[tuple[int, int], float], flat: Any, sparse: Any, dense: Any, halves: Any) -> None:
    bytes_ = [0] * (expected.cols * expected.rows)
    usd = np.zeros((expected.cols, expected.rows))
    for (column, row), value in cells.items():
        bytes_[column * expected.rows + row - expected.low] = model.byte_of(value)
        usd[column, row - expected.low] = value
    assert flat == bytes_ == dense.reshape(-1).tolist()
    shown = sorted((column, row - expected.low, float(f"{value:.3g}")) for (column, row), value in cells.items())
    assert sparse == [list(one) for one in shown]
    largest = usd.max(axis=1, initial=0.0)[:, np.newaxis]
    assert (np.abs(halves - usd) <= usd * 2.0**-10 + largest * 2.0**-28).all()


def check_points(expected: Facts, rows: list[list[Any]], packed: Any) -> None:
    found = {(col, expected.low + row, side): (venues, count, usd, most) for col, row, side, venues, count, usd, most in rows}
    assert found == {key: pytest.approx(value, abs=0.006) for key, value in expected.points.items()}
    assert [(col, row, ("long", "short").index(side)) for col, row, side, *_ in rows] == sorted(
        (col, row, ("long", "short").index(side)) for col, row, side, *_ in rows
    )
    again = [
        [col, row, ("long", "short")[side], venues, count, usd, most]
        for col, row, side, venues, count, usd, most in packed.tolist()
    ]
    assert [one[:5] for one in again] == [one[:5] for one in rows]
    assert [one[5:] for one in again] == [pytest.approx(one[5:], rel=1e-6) for one in rows]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_column_width_and_every_multiple_as_the_model_says(world: World, seed: int) -> None:
    scene = publish(world, seed, 40)
    for dt_s, k in itertools.product((0, *model.LADDER_S), (0, *model.LADDER_K)):
        check(scene, Asked(minutes=35 if seed == 1 else 120, dt_s=dt_s, k=k, layers=("liq", "depth", "realised")))


@pytest.mark.parametrize("pool", ["max", "sum"])
@pytest.mark.parametrize("layers", [
    ("liq",), ("depth",), ("tape", "projected"), ("liq", "tape", "projected", "depth"), ("depth", "realised"), ("liq", "realised"),
])  # fmt: skip
def test_every_layer_and_both_ways_to_pool_as_the_model_says(world: World, layers: tuple[str, ...], pool: str) -> None:
    scene = publish(world, 3, 30)
    for dt_s, k in ((0, 0), (30, 1), (60, 1), (120, 5), (600, 2), (3600, 100)):
        check(scene, Asked(minutes=20, dt_s=dt_s, k=k, layers=layers, pool=pool))


def test_windows_that_move_through_the_history_as_the_model_says(world: World) -> None:
    scene = publish(world, 4, 60)
    for dt_s, to_ms, since_ms in itertools.product(
        (30, 60, 300),
        (None, NOW_MS - 1, NOW_MS - 20 * MINUTE_MS, NOW_MS + 10**9),
        (None, NOW_MS - 31 * MINUTE_MS - 1, NOW_MS + 10**9, 0),
    ):
        check(scene, Asked(minutes=30, dt_s=dt_s, to_ms=to_ms, since_ms=since_ms))


@pytest.mark.parametrize(("map_step", "book_step"), [(20.0, 20.0), (20.0, 10.0), (20.0, 40.0), (10.0, 20.0), (20.0, 100.0)])
def test_frames_on_another_step_as_the_model_says(world: World, map_step: float, book_step: float) -> None:
    """Left out where the newest of their ring are on another one; a ring whose step does not divide the rows' is missing."""
    scene = publish(world, 5, 30, map_step=map_step, book_step=book_step, changes=True)
    expected = check(scene, Asked(minutes=30, dt_s=60, k=0))
    assert expected.numbers["liq"][:10] == [-1] * 10 or map_step == 10.0
    assert max(expected.numbers["depth"]) >= 0, "an automatic k fits every ring"
    for k in (1, 2, 5):
        expected = check(scene, Asked(minutes=30, dt_s=60, k=k))
        assert (max(expected.numbers["depth"]) == -1) == (k * BASE % book_step != 0)
    # Before the change the frames of then are shown.
    past = check(scene, Asked(minutes=5, dt_s=60, k=2, to_ms=NOW_MS - 22 * MINUTE_MS))
    assert max(past.numbers["liq"]) >= 0


def test_limits_on_columns_and_rows_choose_the_level_as_the_model_says(world: World) -> None:
    scene = publish(world, 6, 40)
    for max_cols, max_rows in itertools.product((16, 20, 40, 720), (16, 40, 1000)):
        expected = check(scene, Asked(minutes=40, max_cols=max_cols, max_rows=max_rows))
        assert expected.cols <= max_cols and expected.rows <= max_rows


# --- parts ------------------------------------------------------------------------------------------------------------


def frame_of(
    planes: Any, *, open_ms: int = 0, origin: int = 0, step: float = BASE, number: int = 0, length_ms: int = MINUTE_MS
) -> GridFrame:
    usd = np.array(planes, np.float64)
    unit = unit_for(float(usd.max(initial=0.0)))
    cells = (usd / unit).astype(np.float16)
    return GridFrame(number, 1, open_ms, open_ms + length_ms, 100.0, origin, step, 0, unit, cells)


@pytest.mark.covers("A1-H3")
@pytest.mark.parametrize("seed", range(5))
def test_one_bright_cell_survives_every_level_of_detail(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bright, usd = (int(rng.integers(0, 2)), int(rng.integers(0, 60)), int(rng.integers(0, 300))), 7.5e8
    frames = []
    for index in range(60):
        planes = rng.exponential(1e3, (2, 300))
        if index == bright[1]:
            planes[bright[0], bright[2]] = usd
        frames.append(frame_of(planes, open_ms=index * MINUTE_MS, origin=3000 + index % 7, number=index))
    bucket = frames[bright[1]].origin + bright[2]
    for dt_ms, k in itertools.product(DT_MS, MULTIPLES):
        axis = TimeAxis(0, dt_ms, 60 * MINUTE_MS // dt_ms)
        prices = price_axis(Detail(BASE, k, 0, axis.cols, Window()), [], [Extent(3000, 3306, BASE)], axis.cols, None)
        placed = Placed(frames, axis, MINUTE_MS)
        column, row = bright[1] * MINUTE_MS // dt_ms, (2 * bucket + k) // (2 * k) - prices.low
        cut = Cut(0, axis.cols)
        for cell, expected in (("u8log", int(u8log(np.array([usd]))[0])), ("f16", usd), ("usd", usd)):
            (found,), units = cells_of(placed, (DEPTH,), prices, BASE, cut, cell=cell, sums=False, min_usd=0.0)
            shown = found[bright[0]].astype(np.float64) * (units[:, np.newaxis] if cell == "f16" else 1.0)
            assert shown[column, row] == shown.max() == pytest.approx(expected, rel=1e-3), (dt_ms, k, cell)
            assert np.count_nonzero(shown == shown.max()) == max(1, MINUTE_MS // dt_ms)


@pytest.mark.parametrize("k", MULTIPLES)
def test_sums_conserve_usd_over_price(k: int) -> None:
    rng = np.random.default_rng(k)
    frames = [frame_of(rng.exponential(1e5, (4, 211)), open_ms=index * MINUTE_MS, origin=977 + index) for index in range(9)]
    axis = TimeAxis(0, MINUTE_MS, 9)
    prices = price_axis(Detail(BASE, k, 0, 9, Window()), [], [Extent(977, 977 + 8 + 210, BASE)], 9, None)
    found = pooled_usd(Placed(frames, axis, MINUTE_MS), LIQ, prices, BASE, Cut(0, 9), sums=True)
    for column, frame in enumerate(frames):
        assert found[:, column].sum(axis=1) == pytest.approx(usd_of([frame], LIQ).sum(axis=1), rel=1e-12)


def test_layers_are_sums_of_planes() -> None:
    frame = frame_of([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0], [64.0, 128.0]])
    assert usd_of([frame], LIQ).tolist() == [[17.0, 34.0], [68.0, 136.0]]
    assert usd_of([frame], TAPE).tolist() == [[1.0, 2.0], [4.0, 8.0]]
    assert usd_of([frame], PROJECTED).tolist() == [[16.0, 32.0], [64.0, 128.0]]
    assert usd_of([frame, frame], DEPTH).tolist() == [[1.0, 2.0, 1.0, 2.0], [4.0, 8.0, 4.0, 8.0]]


def test_bytes_are_made_once_per_frame_and_layer() -> None:
    rng = np.random.default_rng(1)
    frames = [frame_of(rng.exponential(1e6, (4, 20 + index))) for index in range(70)]
    fill_u8(frames, LIQ)
    kept = [frame.u8["liq"] for frame in frames]
    assert all((cells == u8log(usd_of([frame], LIQ))).all() for frame, cells in zip(frames, kept))
    assert all(cells.base is None for cells in kept), "a view would hold the cells of all frames"
    fill_u8(frames, LIQ)
    assert all(frame.u8["liq"] is cells for frame, cells in zip(frames, kept))


@pytest.mark.parametrize(("minutes", "dt_ms", "max_cols", "expected"), [
    (720, 0, 720, (60_000, 720)), (360, 0, 720, (30_000, 720)), (361, 0, 720, (60_000, 361)), (720, 0, 719, (120_000, 360)),
    (5, 0, 16, (30_000, 10)), (1440, 0, 1440, (60_000, 1440)), (1440, 0, 24, (3_600_000, 24)), (1440, 0, 16, (3_600_000, 16)),
    (1440, 30_000, 16, (30_000, 2880)), (61, 3_600_000, 16, (3_600_000, 2)), (5, 3_600_000, 720, (3_600_000, 1)),
])  # fmt: skip
def test_column_width(minutes: int, dt_ms: int, max_cols: int, expected: tuple[int, int]) -> None:
    assert choose_dt(minutes, dt_ms, max_cols) == expected


@pytest.mark.parametrize(("end", "to", "since", "expected"), [
    (600, None, None, (200, 4)), (601, None, None, (300, 4)), (699, None, None, (300, 4)), (700, None, None, (300, 4)),
    (600, 500, None, (100, 4)), (600, 401, None, (100, 4)), (600, 10_000, None, (200, 4)), (600, 1, None, (-300, 4)),
    (600, None, 300, (300, 3)), (600, None, 399, (300, 3)), (600, None, 0, (200, 4)), (600, None, 599, (500, 1)),
    (600, None, 600, (600, 0)), (600, None, 10**15, (600, 0)), (600, 400, 300, (300, 1)),
])  # fmt: skip
def test_time_axis(end: int, to: int | None, since: int | None, expected: tuple[int, int]) -> None:
    axis = time_axis(end, 100, 4, to, since)
    assert (axis.t0_ms, axis.cols) == expected
    assert axis.end_ms == axis.t0_ms + 100 * axis.cols


def axis_of(
    k: int, extents: list[Extent], *, max_rows: int = 1000, cols: int = 10, window: Window | None = None, src: float | None = None
) -> Any:
    detail = Detail(BASE, k, max_rows, cols, window or Window())
    return price_axis(detail, extents, extents, cols, src)


def test_price_axis_is_the_union_of_the_frames() -> None:
    assert axis_of(1, [Extent(100, 109, BASE), Extent(95, 101, BASE)]) == PriceAxis(95, 15, 1, 20.0)
    assert axis_of(5, [Extent(100, 109, BASE)]) == PriceAxis(20, 3, 5, 100.0)
    assert axis_of(1, []) == PriceAxis(0, 0, 1, 20.0) and axis_of(1, []).price0 == 0.0
    assert axis_of(1, [Extent(10, 11, 10.0)]) == PriceAxis(5, 2, 1, 20.0)
    assert axis_of(1, [Extent(10, 11, 40.0)]).rows == 0, "a bucket of 40 does not fit a row of 20"


def test_an_automatic_k_is_the_finest_that_fits_rows_and_cells() -> None:
    assert [axis_of(0, [Extent(0, rows - 1, BASE)], max_rows=16).k for rows in (16, 17, 31, 32, 80, 160)] == [1, 2, 2, 5, 10, 20]
    assert axis_of(0, [Extent(0, 99, BASE), Extent(0, 10, 200.0)]).k == 10
    assert axis_of(0, [Extent(0, 1999, BASE)], max_rows=2000, cols=2000).k == 1
    assert axis_of(0, [Extent(0, 1999, BASE)], max_rows=2000, cols=2001).k == 2, "2,000 x 2,001 cells are too many"
    assert axis_of(0, [Extent(0, 99, BASE), Extent(0, 10, 7.0)]).k == 1, "where nothing fits both, the coarser grid is left out"


def test_where_nothing_fits_the_rows_around_the_price_are_kept() -> None:
    wide = [Extent(0, 9999, BASE)]
    assert axis_of(0, wide, max_rows=16) == PriceAxis(42, 16, 100, 2000.0)
    assert axis_of(0, wide, max_rows=16, src=0.0).low == 0
    assert axis_of(0, wide, max_rows=16, src=1e9).low == 101 - 16
    assert axis_of(0, wide, max_rows=16, src=40_000.0).low == 12
    assert axis_of(1, wide, src=100_000.0) == PriceAxis(3000, 4000, 1, 20.0)


def test_prices_asked_for_cut_the_rows() -> None:
    frames = [Extent(100, 199, BASE)]
    assert axis_of(1, frames, window=Window(150, 160)) == PriceAxis(150, 11, 1, 20.0)
    assert axis_of(1, frames, window=Window(None, 160)) == PriceAxis(100, 61, 1, 20.0)
    assert axis_of(1, frames, window=Window(150, None)) == PriceAxis(150, 50, 1, 20.0)
    assert axis_of(5, frames, window=Window(30, 32, 5)) == PriceAxis(30, 3, 5, 100.0)
    assert axis_of(0, frames, window=Window(150, 160), max_rows=10) == PriceAxis(75, 6, 2, 40.0)
    for outside in (Window(1, 99), Window(200, 300), Window(10**300, None), Window(None, -(10**300))):
        assert axis_of(1, frames, window=outside) == PriceAxis(0, 0, 1, 20.0)


def test_what_is_asked_for_is_refused_where_it_is_too_large() -> None:
    wide = [Extent(0, 3999, BASE)]
    assert axis_of(1, wide, cols=1000).rows * 1000 == MAX_CELLS
    with pytest.raises(TooLarge, match="4000000 cells"):
        axis_of(1, wide, cols=1001)
    with pytest.raises(TooLarge, match="4000 rows"):
        axis_of(1, [Extent(0, 4001, BASE)], window=Window(1, None))
    assert axis_of(1, [Extent(0, 4001, BASE)], window=Window(2, None)).rows == 4000


@pytest.mark.parametrize(("k", "base", "step", "expected"), [
    (1, 20.0, 20.0, 1), (5, 20.0, 20.0, 5), (1, 20.0, 10.0, 2), (1, 20.0, 40.0, None), (2, 20.0, 40.0, 1), (1, 0.3, 0.1, 3),
    (100, 0.001, 0.0005, 200), (1, 20.0, 15.0, None), (1, 20.0, 19.99, None), (1, 20.0, 1e300, None),
])  # fmt: skip
def test_buckets_per_row(k: int, base: float, step: float, expected: int | None) -> None:
    assert multiple_of(k, base, step) == expected


def test_a_clock_that_was_set_back_and_another_step_leave_frames_out() -> None:
    published = [(0, 20.0), (1, 20.0), (2, 10.0), (9, 20.0), (3, 20.0), (4, 20.0), (4, 20.0), (5, 20.0)]
    frames = [frame_of(np.ones((2, 3)), open_ms=at * 1000, step=step, number=number) for number, (at, step) in enumerate(published)]
    assert [frame.number for frame in one_step(frames)] == [0, 1, 4, 6, 7]
    assert one_step([]) == []


def test_blocks_of_columns_cover_all_of_them_once() -> None:
    for cols, rows, begin in itertools.product((0, 1, 5, 720, 2880), (0, 1, 659, 1388, 10**6), (-7, 0, 1, 1_795_167_600)):
        found = list(cuts(TimeAxis(begin * 1000, 1000, cols), rows))
        assert [column for cut in found for column in range(cut.first, cut.stop)] == list(range(cols))
        assert all((cut.stop - cut.first) * rows <= 1 << 16 or cut.stop - cut.first == 1 for cut in found)
        later = {begin + 1 + cut.stop for cut in cuts(TimeAxis((begin + 1) * 1000, 1000, cols), rows)}
        assert {begin + cut.stop for cut in found[:-1] if cut.stop > 1} <= later, "boundaries do not move with the axis"


def frames_between(seed: int) -> Iterator[tuple[Placed, int, int]]:
    rng = np.random.default_rng(seed)
    for dt_ms, length in itertools.product((30_000, 60_000, 120_000), (30_000, MINUTE_MS)):
        opens = np.sort(rng.choice(100, 40, replace=False)) * length
        frames = [frame_of(np.ones((2, 3)), open_ms=int(at), number=index) for index, at in enumerate(opens)]
        placed = Placed(frames, TimeAxis(300_000, dt_ms, 20), length)
        for first in range(20):
            yield placed, first, int(rng.integers(first + 1, 21))


def test_a_block_finds_every_frame_that_touches_it() -> None:
    for placed, first, stop in frames_between(1):
        columns, frames = placed.between(first, stop)
        begins = [(frame.open_ms - 300_000) // placed.axis.dt_ms for frame in placed.frames]
        touching = [one for one in zip(begins, placed.frames) if one[0] < stop and one[0] + placed.span > first]
        assert list(zip(columns, frames)) == touching


def test_units_are_those_of_the_largest_cell_of_a_column() -> None:
    blocks = [np.zeros((2, 3, 4)), np.zeros((2, 3, 4))]
    blocks[0][1, 0, 2], blocks[1][0, 0, 3], blocks[1][1, 2, 0] = 5.0, 70_000.0, 1e-3
    assert unit_per_column(blocks).tolist() == [unit_for(70_000.0), 1.0, unit_for(1e-3)]
    assert unit_per_column([np.zeros((2, 0, 4))]).shape == unit_per_column([np.zeros((2, 0, 0))]).shape == (0,)


def test_three_significant_digits_print_as_such() -> None:
    usd = np.array([0.0, 1e-3, 0.012345, 1.005, 9.999, 12.34, 99.96, 123.4, 999.6, 1234.0, 1_235_000.0, 9.99e8, 1e9, 65_504.0])
    assert three_digits(usd).tolist() == [float(f"{value:.3g}") for value in usd.tolist()]
    rng = np.random.default_rng(1)
    many = 10.0 ** rng.uniform(-6, 12, 20_000)
    assert three_digits(many).tolist() == [float(f"{value:.3g}") for value in many.tolist()]
    assert all(len(repr(value).replace(".", "").strip("0").split("e")[0]) <= 3 for value in three_digits(many[:500]).tolist())
