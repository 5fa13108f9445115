"""Cells to USD as the server means them; colours that never say less for more."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from mpengine.cells import u8log, usd_of_u8log

PALETTES = ("viridis", "inferno", "cividis", "mono")
THEMES = {"dark": (11, 14, 20), "light": (255, 255, 255)}
LOOK = {"palette": "viridis", "theme": "dark", "side": 0, "loUsd": 1e4, "hiUsd": 1e7, "gamma": 1, "log": True}


def lut(page: Page, **look: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8[256, RGBA] of a look."""
    script = "async (look) => [...new Uint8Array((await import('/src/lut.js')).buildLut(look).buffer)]"
    return np.array(page.evaluate(script, LOOK | look), np.uint8).reshape(256, 4)


def luminance(rgb: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Relative luminance, as of WCAG 2.2."""
    part = rgb / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]))


def test_usd_and_cells_are_those_of_the_server(module_page: Page) -> None:
    usd = module_page.evaluate(
        "async () => { const m = await import('/src/lut.js'); return Array.from({length: 256}, (_, q) => m.usdOf(q)); }"
    )
    assert np.allclose(usd, usd_of_u8log(np.arange(256, dtype=np.uint8)), rtol=1e-12)
    amounts = np.concatenate([[0.0, 99.99, 100.0, 1e9, 5e9], np.random.default_rng(1).uniform(np.log(50), np.log(2e9), 500)])
    amounts[5:] = np.exp(amounts[5:])
    found = module_page.evaluate(
        "async (all) => { const m = await import('/src/lut.js'); return all.map(m.qOf); }", amounts.tolist()
    )
    assert found == u8log(amounts).tolist()


@pytest.mark.parametrize("palette", PALETTES)
def test_more_is_never_nearer_to_the_background(module_page: Page, palette: str) -> None:
    shapes: list[dict[str, Any]] = [{}, {"log": False}, {"gamma": 0.4}, {"gamma": 2.5}, {"over": True}]
    for theme, side, shape in itertools.product(THEMES, (0, 1), shapes):
        colours = lut(module_page, palette=palette, theme=theme, side=side, **shape).astype(float)
        alpha = colours[:, 3:] / 255
        seen = luminance(colours[:, :3] * alpha + np.array(THEMES[theme]) * (1 - alpha))
        away = np.abs(seen - luminance(np.array(THEMES[theme], float)))
        assert (np.diff(away) >= -0.004).all()  # colours are whole numbers
        assert away[-1] > 0.2


@pytest.mark.parametrize("palette", PALETTES)
def test_sides_differ_in_hue_where_they_are_strong(module_page: Page, palette: str) -> None:
    for theme in THEMES:
        first, second = (lut(module_page, palette=palette, theme=theme, side=side).astype(float)[200:, :3] for side in (0, 1))
        assert (np.abs(first - second).max(axis=1) >= 10).all()


def test_below_the_lower_end_and_nothing_are_clear_and_all_above_the_upper_end_is_alike(module_page: Page) -> None:
    colours = lut(module_page)
    usd = usd_of_u8log(np.arange(256, dtype=np.uint8))
    assert (colours[usd < 1e4] == 0).all()
    assert (colours[usd >= 1e4][:, 3] > 0).all()
    assert len(np.unique(colours[usd >= 1e7], axis=0)) == 1
    assert (lut(module_page, loUsd=100)[0] == 0).all()


def test_a_legend_has_the_colours_of_the_cells(module_page: Page) -> None:
    stops = module_page.evaluate("async (look) => (await import('/src/lut.js')).legendStops(look, 5)", LOOK)
    assert [one["usd"] for one in stops] == pytest.approx([1e4, 10**4.75, 10**5.5, 10**6.25, 1e7])
    colours = lut(module_page)
    for one in stops:
        red, green, blue, alpha = (float(part) for part in one["css"][5:-1].split(","))
        cell = colours[u8log(np.array([one["usd"] * 1.0001]))[0]].astype(float)
        assert np.abs(cell - np.array([red, green, blue, alpha * 255])).max() <= 16  # a cell is up to 3.3 % off


def test_the_quantile_is_over_the_cells_that_hold_something(module_page: Page) -> None:
    script = "async (all) => { const m = await import('/src/lut.js'); return m.quantile(Uint32Array.from(all), 0.99); }"
    histogram = np.random.default_rng(1).integers(0, 50, 256)
    histogram[0] = 10**6
    cells = np.repeat(np.arange(1, 256), histogram[1:]).astype(np.uint8)
    expected = usd_of_u8log(np.sort(cells)[[int(np.ceil(0.99 * len(cells))) - 1]])[0]
    assert module_page.evaluate(script, histogram.tolist()) == pytest.approx(expected)
    assert module_page.evaluate(script, [9] + [0] * 255) is None
