"""Pixels: what is where, in which colour, whatever the size and the level of detail."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mpengine.cells import u8log
from mpengine.palettes import MARKS, PALETTES, lut, over
from mpengine.plot.layout import Box, Layout, cell_edges
from mpengine.plot.paint import COLOURS, painted, placed
from mpengine.plot.scene import Scene, compose
from tests.plot import rig

SIZES = [((800, 450), 1), ((1100, 620), 1), ((800, 450), 2)]


def scene_of(usd: dict[Any, Any], *, stale: bool = False, asked: dict[str, Any] | None = None, **how: Any) -> Scene:
    """Heat alone: no candles, no zones, no price line, unless they are asked for."""
    candles, zones = how.pop("candles", None), how.pop("zones", [])
    cols = next(iter(usd.values())).shape[1]
    heatmap = rig.heatmap(usd, **{"src": [np.nan] * cols, **how})
    return compose(rig.ask(tuple(usd), **(asked or {})), heatmap, candles, zones, age_s=752.0 if stale else 3.0, stale=stale)


def pixels_of(scene: Scene, size: tuple[int, int] = (800, 450), scale: int = 1, theme: Any = "dark") -> tuple[Any, Layout]:
    image = Image.open(BytesIO(painted(scene, size, scale, theme)))
    layout = placed(scene, size, scale)
    assert image.size == (layout.box.width, layout.box.height) == (size[0] * scale, size[1] * scale)
    return np.asarray(image.convert("RGB")), layout


def inside(pixels: Any, box: Box) -> Any:
    return pixels[box.y0 : box.y1, box.x0 : box.x1]


def inner(layout: Layout) -> Box:
    """The plot without its border."""
    edge = max(1, round(layout.unit)) * 3
    return Box(layout.plot.x0 + edge, layout.plot.y0 + edge, layout.plot.x1 - edge, layout.plot.y1 - edge)


def span(index: int, count: int, start: int, end: int) -> tuple[int, int]:
    """Pixels of a cell: its own ones, or the one that it shares with others."""
    if count <= end - start:
        edges = cell_edges(count, start, end)
        return edges[index], edges[index + 1]
    pixel = next(pixel for pixel in range(end - start) if (pixel + 1) * count // (end - start) > index)
    return start + pixel, start + pixel + 1


@pytest.mark.parametrize(("size", "scale"), SIZES)
@pytest.mark.parametrize(("cols", "rows"), [(24, 40), (720, 660), (1440, 2000)])
@pytest.mark.parametrize("side", [0, 1])
def test_a_single_bright_cell_is_where_it_belongs_in_its_colour(
    size: tuple[int, int], scale: int, cols: int, rows: int, side: int
) -> None:
    col, row = cols // 3, rows // 4
    usd = np.zeros((2, cols, rows))
    usd[side, col, row] = 3e6
    scene = scene_of({"liq": usd}, asked={"lo_usd": 1e4, "hi_usd": 1e7})
    pixels, layout = pixels_of(scene, size, scale)
    colour = over(lut("viridis", side, "dark", 1e4, 1e7)[u8log(np.array([3e6]))[0]], (0, 0, 0))
    x0, x1 = span(col, cols, layout.plot.x0, layout.plot.x1)
    y0, y1 = span(rows - 1 - row, rows, layout.plot.y0, layout.plot.y1)
    found = (inside(pixels, inner(layout)) == colour).all(axis=2)
    assert found.sum() == (x1 - x0) * (y1 - y0), "no more and no fewer pixels than the cell has"
    assert (inside(pixels, Box(x0, y0, x1, y1)) == colour).all()
    price = scene.low + (row + 0.5) * scene.step
    assert y0 - 1 <= layout.y_of(price) <= y1 + 1, "and the axis says its price"
    assert x0 - 1 <= layout.x_of(scene.t0_ms + (col + 0.5) * scene.dt_ms) <= x1 + 1


@pytest.mark.parametrize("palette", PALETTES)
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_cells_have_the_colours_of_the_palette_over_the_background(palette: Any, theme: Any) -> None:
    usd = np.zeros((2, 4, 5))
    usd[0, 1, 2], usd[1, 2, 2], usd[:, 3, 2] = 2e4, 2e6, (1e6, 9e5)
    scene = scene_of({"liq": usd}, asked={"lo_usd": 1e4, "hi_usd": 1e7, "palette": palette})
    pixels, layout = pixels_of(scene, theme=theme)
    across, down = (cell_edges(4, layout.plot.x0, layout.plot.x1), cell_edges(5, layout.plot.y0, layout.plot.y1))
    for col, side, value in ((1, 0, 2e4), (2, 1, 2e6), (3, 0, 1e6)):
        colour = over(lut(palette, side, theme, 1e4, 1e7)[u8log(np.array([value]))[0]], COLOURS[theme].plot)
        cell = inside(pixels, Box(across[col], down[2], across[col + 1], down[3]))
        assert ((cell == colour).all(axis=2)).mean() > 0.8, "all but what lines of the grid shine through"
    blank = inside(pixels, Box(across[1], down[1], across[2], down[2]))
    assert {tuple(one) for one in blank.reshape(-1, 3).tolist()} <= {COLOURS[theme].plot, COLOURS[theme].grid}


@pytest.mark.parametrize("size", [(800, 450), (1600, 900)])
def test_columns_without_a_frame_are_hatched_and_never_coloured(size: tuple[int, int]) -> None:
    missing = [*range(10, 20), 40]
    usd = np.full((2, 60, 50), 5e5)  # what a missing column holds means nothing
    pixels, layout = pixels_of(scene_of({"liq": usd}, missing={"liq": missing}), size)
    edges, hatch, box = cell_edges(60, layout.plot.x0, layout.plot.x1), COLOURS["dark"].hatch, inner(layout)
    for col in range(1, 59):
        part = inside(pixels, Box(edges[col], box.y0 + box.height // 2, edges[col + 1], box.y1))
        hatched = (part == hatch).all(axis=2).mean()
        if col in missing:
            assert 0.05 < hatched < 0.5
            assert {tuple(one) for one in part.reshape(-1, 3).tolist()} <= {hatch, COLOURS["dark"].plot, COLOURS["dark"].grid}
        else:
            assert hatched == 0


def test_each_layer_is_hatched_its_own_way() -> None:
    usd = np.zeros((2, 60, 50))
    found = []
    for missing in ({"liq": [30, 31, 32]}, {"depth": [30, 31, 32]}, {"liq": [30, 31, 32], "depth": [30, 31, 32]}):
        pixels, layout = pixels_of(scene_of({"liq": usd, "depth": usd}, missing=missing))
        edges, box = cell_edges(60, layout.plot.x0, layout.plot.x1), inner(layout)
        part = inside(pixels, Box(edges[30], box.y1 - 60, edges[33], box.y1))
        found.append(int((part == COLOURS["dark"].hatch).all(axis=2).sum()))
    assert found[0] > 0 and found[1] > 0 and found[2] > 1.4 * max(found[:2]), "both hatches cross"


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_what_stands_still_is_framed(theme: Any) -> None:
    usd = np.zeros((2, 60, 50))
    warn = COLOURS[theme].warn  # type: ignore[index]
    fresh, _ = pixels_of(scene_of({"liq": usd}), theme=theme)
    assert not (fresh == warn).all(axis=2).any()
    pixels, layout = pixels_of(scene_of({"liq": usd}, stale=True), theme=theme)
    plot = layout.plot
    for edge in (pixels[plot.y0, plot.x0 : plot.x1], pixels[plot.y1 - 1, plot.x0 : plot.x1], pixels[plot.y0 : plot.y1, plot.x0]):
        assert (edge == warn).all()
    ((text, plate),) = [(text, plate) for text, plate, warns in layout.badges if warns]
    assert text.text == "STALE 13 min" and (inside(pixels, plate) == warn).all(axis=2).mean() > 0.5


def test_bubbles_zones_candles_and_profile_are_where_they_belong() -> None:
    usd = np.zeros((2, 60, 50))
    usd[0, -1, 10], usd[1, -1, 40] = 4e6, 1e6
    low = 59_300.0 - 10.0
    scene = scene_of(
        {"liq": usd}, points=[(20, 12, 0, 9e5), (40, 38, 1, 9e5)],
        zones=[rig.zone(low + 150.0, "long"), rig.zone(low + 850.0, "short")],
        candles=rig.candles([low + 500.0] * 60, spread=60.0),
    )  # fmt: skip
    pixels, layout = pixels_of(scene, (1600, 900))
    across, down = cell_edges(60, layout.plot.x0, layout.plot.x1), cell_edges(50, layout.plot.y0, layout.plot.y1)
    for col, row, side in ((20, 12, 0), (40, 38, 1)):
        x, y = (across[col] + across[col + 1]) // 2, (down[49 - row] + down[50 - row]) // 2
        assert tuple(pixels[y, x]) == MARKS["dark"][side]
    for price, side in ((low + 150.0, 0), (low + 850.0, 1)):
        assert tuple(pixels[round(layout.y_of(price)), layout.plot.x1 - 4]) == MARKS["dark"][side]
    middle = round(layout.x_of(scene.t0_ms + 30.5 * rig.MINUTE_MS))
    wick = pixels[round(layout.y_of(low + 555.0)) : round(layout.y_of(low + 545.0)), middle - 3 : middle + 4]
    assert (wick == COLOURS["dark"].candle).all(axis=2).any()
    profile = inside(pixels, layout.profile)
    widths = [(profile == MARKS["dark"][side]).all(axis=2).sum(axis=1).max() for side in (0, 1)]
    assert widths[0] >= layout.profile.width - 8 and widths[1] == pytest.approx(widths[0] / 4, abs=6)


def test_nothing_of_the_plot_leaves_it() -> None:
    points = [(0, 0, 0, 1e6), (59, 49, 1, 1e6), (0, 49, 1, 1e6), (59, 0, 0, 1e6)]
    pixels, layout = pixels_of(scene_of({"liq": np.zeros((2, 60, 50))}, points=points))
    plot = layout.plot
    beside = (
        Box(0, plot.y0, plot.x0, plot.y1),
        Box(plot.x1, plot.y0, layout.profile.x0, plot.y1),
        Box(0, plot.y0 - 4, plot.x1, plot.y0),
    )
    for box in beside:
        assert (inside(pixels, box) == COLOURS["dark"].ground).all()
    assert tuple(pixels[plot.y0 + 5, plot.x0 + 5]) == MARKS["dark"][1], "it was there to be cut"


def test_the_file_names_what_it_shows() -> None:
    image = Image.open(BytesIO(painted(scene_of({"liq": np.ones((2, 60, 50)) * 1e5}), (800, 450), 1, "dark")))
    assert isinstance(image.info, dict)
    assert image.info["Symbol"] == "BTC" and image.info["Model"] == "oi-taker-ladder/1" and image.info["Estimated"] == "estimated"
    assert image.info["Config-Hash"] == "9f2c81d04b7e6a35" and "06:40" in image.info["Title"]


def test_the_same_scene_gives_the_same_file() -> None:
    scene = scene_of({"liq": np.ones((2, 60, 50)) * 1e5})
    assert painted(scene, (800, 450), 1, "dark") == painted(scene, (800, 450), 1, "dark")
