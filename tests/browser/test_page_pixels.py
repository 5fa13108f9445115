"""What is on the canvas: cells have the colours of their USD, and one bright cell is seen at every range and pixel ratio."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from tests.browser.backend import Backend
from tests.browser.compare import pixels
from tests.browser.person import PLAIN, Person, cells_of_heatmap

pytestmark = pytest.mark.slow

LOOK = {"palette": "viridis", "theme": "dark", "loUsd": 1000, "hiUsd": 10_000_000, "gamma": 1, "log": True}
SCALE = {"lock": 0, "map_lo": 1000, "map_hi": 10_000_000, "book_lo": 1000, "book_hi": 10_000_000, "theme": "dark"}
BRIGHT_USD = 9e8
BRIGHT_SCALE = {"lock": 0, "map_lo": 300_000_000, "map_hi": 800_000_000, "theme": "dark"}
NEAR = 2
"""Of 255."""


def colours(module_page: Page, side: int, **look: Any) -> np.ndarray[Any, Any]:
    """RGBA uint8[256, 4] of the page's own table."""
    found = module_page.evaluate(
        "async (look) => { const m = await import('/src/lut.js'); return [...new Uint8Array(m.buildLut(look).buffer)]; }",
        {**LOOK, "side": side, **look},
    )
    return np.array(found, np.uint8).reshape(256, 4)


def q_of(body: dict[str, Any], usd: float) -> int:
    return 1 + round(254 * np.log(usd / body["lo_usd"]) / np.log(body["hi_usd"] / body["lo_usd"]))


@pytest.fixture(params=[1, 2])
def page(request: pytest.FixtureRequest) -> Page:
    """A page with one or two device pixels to a pixel."""
    found: Page = request.getfixturevalue("sharp_page") if request.param == 2 else request.getfixturevalue("open_page")(1000, 800)
    return found


@pytest.mark.parametrize(("layer", "sides"), [("liq", ("long", "short")), ("depth", ("bid", "ask"))])
def test_cells_have_the_colour_of_their_usd(
    page: Page, module_page: Page, backend: Backend, layer: str, sides: tuple[str, str]
) -> None:
    person = Person(page, backend)
    only = {"depth": 0} if layer == "liq" else {"map": "none"}
    person.open(range="1h", **PLAIN, **SCALE, **only)
    person.away()
    image, box, ratio = pixels(person.picture()), person.pane(), page.evaluate("devicePixelRatio")
    body = backend.json(f"/heatmap?symbol=BTC&minutes=60&dt_s=60&layers={layer}")
    cells = cells_of_heatmap(body, layer, "it")
    tables = [colours(module_page, side) for side in (0, 1)]
    compared = exact = 0
    for across in (0.1, 0.4, 0.7):
        for up in np.linspace(0.06, 0.94, 12):
            x, y = person.point(across, float(up))
            reading = person.reading()
            price = round(round(reading["price"] / 20) * 20.0, 8)
            minute = re.search(r"(\d\d):(\d\d)", reading["when"])
            assert minute
            times = [key[2] for key in cells if key[2] // 60_000 % 1440 == int(minute[1]) * 60 + int(minute[2])]
            usd = [cells.get(("it", side, times[0], price), 0.0) if times else 0.0 for side in sides]
            side = int(usd[1] > 0)
            if not usd[side] or tables[side][q_of(body, usd[side])][3] < 255:
                continue  # clear, or the background shines through
            wanted = tables[side][q_of(body, usd[side])][:3].astype(int)
            left, top = round((x - box["x"]) * ratio), round((y - box["y"]) * ratio)
            around = image[top - ratio : top + ratio + 1, left - 3 * ratio : left + 3 * ratio + 1].astype(int)
            assert np.abs(around - wanted).max(axis=2).min() <= NEAR, (reading, usd, wanted, around)
            exact += bool(np.abs(around[ratio] - wanted).max(axis=1).min() <= NEAR)
            compared += 1
    # Some of them lie under a line of the chart's own grid, or where two rows of two pixels meet.
    assert compared >= 20 and exact >= 0.7 * compared, (compared, exact)


def _light(planes: Any) -> None:
    """One cell of shorts, a little above the price, and nothing else."""
    planes[:] = 0.0
    planes[3, planes.shape[1] // 2 + 12] = BRIGHT_USD


@pytest.fixture(scope="module")
def lit() -> Iterator[Backend]:
    """A market with one bright cell in a minute of the last hour."""
    with Backend.running() as backend:
        backend.minute("BTC", alter=_light)
        for _ in range(12):
            backend.minute("BTC")
        yield backend


@pytest.mark.parametrize("name", ["1h", "4h", "12h", "1d"])
def test_one_bright_cell_is_seen_at_every_range(page: Page, module_page: Page, lit: Backend, name: str) -> None:
    lit.rewind()
    body = lit.json("/heatmap?symbol=BTC&minutes=60&dt_s=60&layers=liq")
    column, row = divmod(max(enumerate(body["layers"]["liq"]["short"]), key=lambda one: one[1])[0], body["rows"])
    price, minute = body["price0"] + row * body["step"], (body["t0_ms"] // 60_000 + column) % 1440
    look = {"loUsd": BRIGHT_SCALE["map_lo"], "hiUsd": BRIGHT_SCALE["map_hi"]}
    wanted = colours(module_page, 1, **look)[q_of(body, BRIGHT_USD)][:3].astype(int)

    person = Person(page, lit)
    person.open(range=name, **PLAIN, **BRIGHT_SCALE, depth=0)
    ratio = page.evaluate("devicePixelRatio")
    for further in range(3):
        person.away()
        found = np.argwhere(np.abs(pixels(person.picture()).astype(int) - wanted).max(axis=2) <= NEAR)
        assert len(found) >= ratio * ratio, (name, ratio, further)
        top, left = (np.median(found, axis=0) + 0.5) / ratio
        box = person.pane()
        person.page.mouse.move(box["x"] + left, box["y"] + top)
        person.press("Shift")  # nothing but a moment to paint
        reading = person.reading()
        shown = re.search(r"(\d\d):(\d\d)", reading["when"])
        assert shown
        # Where columns are about as wide as pixels the cursor may find the one beside it.
        assert abs(minute - int(shown[1]) * 60 - int(shown[2])) <= {"1d": 3, "12h": 1}.get(name, 0), (reading, minute)
        assert abs(reading["price"] - price) <= 40.01, (reading, price)
        person.locator("#chart").focus()
        person.press("-")


def test_no_data_is_hatched_and_not_empty(open_page: Callable[..., Page], lit: Backend) -> None:
    lit.rewind()
    person = Person(open_page(), lit)
    # Nothing of the map reaches this scale but the bright cell, so what is drawn elsewhere is drawn for what is missing.
    person.open(range="1d", **PLAIN, **BRIGHT_SCALE, depth=0)
    person.away()
    image = pixels(person.picture())
    height, width, _ = image.shape
    rows = image[height * 85 // 100 : height * 95 // 100].astype(int)
    before, within = rows[:, 40 : width // 5], rows[:, width * 11 // 20 : width * 7 // 10]
    # Along a line of the grid nothing changes; along a hatched one it does.
    assert np.median(before.std(axis=1)) > 1 > np.median(within.std(axis=1)), "half a day is missing on the left"
