"""The picture pixel by pixel: which cell is where, in which colour, and how much was drawn for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from mpengine.cells import usd_of_u8log
from mpengine.wire_formats import CellType, ColumnFlag, ColumnHeader, ColumnKind, pack_column
from tests.browser.conftest import MODULES, Complaints, _source, chromium
from tests.browser.picture_bytes import MINUTE, T0, Pair, answer, header, random_pair, text

COLS, ROWS = 120, 200
LOW = 3300 - ROWS // 2
STEP = 20.0
FIRST = T0 // MINUTE
BARE = {"candles": False, "realised": False, "zones": False, "profile": False}
FULL = {"loUsd": 100, "hiUsd": 1e9}

TOOLS = """async () => {
  const [{ Picture }, bytes, { buildLut }] = await Promise.all(['picture', 'bytes', 'lut'].map((one) => import(`/src/${one}.js`)));
  const host = document.createElement('div');
  host.style.cssText = 'position:fixed;inset:0';
  document.body.style.margin = '0';
  document.body.append(host);
  const raw = (data) => Uint8Array.from(atob(data), (one) => one.charCodeAt(0)).buffer;
  const frames = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  window.t = {
    host, Picture, raw, frames, buildLut,
    load: async (data, candles) => { t.p.setSnapshot(bytes.decodeHeatmap(raw(data)), candles); await frames(); },
    merge: async (data) => { const done = t.p.mergeSnapshot(bytes.decodeHeatmap(raw(data))); await frames(); return done; },
    place: (data) => t.p.putColumn(bytes.decodeColumn(raw(data))),
    put: async (data) => { const done = t.p.putColumn(bytes.decodeColumn(raw(data))); await frames(); return done; },
    at: (col, price) => {  // pixel of the middle of a cell
      const p = t.p; const ratio = devicePixelRatio;
      const x = p.chart.timeScale().logicalToCoordinate(col - p.timeline.first);
      return [Math.floor((x + 0.5) * ratio), Math.floor((p.series.line.priceToCoordinate(price) + 0.5) * ratio)];
    },
    pixels: () => { const one = t.p.canvas(); return one.getContext('2d').getImageData(0, 0, one.width, one.height); },
    colours: (cells) => { const image = t.pixels(); return cells.map(([col, price]) => {
      const [x, y] = t.at(col, price); const at = 4 * (y * image.width + x);
      return [x, y, ...image.data.subarray(at, at + 3)]; }); },
    like: (colour) => { const { data, width } = t.pixels(); const found = [];  // every pixel of a colour
      for (let at = 0; at < data.length; at += 4) {
        if (colour.every((one, n) => Math.abs(one - data[at + n]) <= 2)) found.push([(at / 4) % width, Math.floor(at / 4 / width)]);
      }
      return found; },
    pane: () => { const { width, height } = t.p.chart.paneSize(); return [width * devicePixelRatio, height * devicePixelRatio]; },
    counted: async (work) => { const before = { ...t.p.counters }; await work(); await frames();
      return Object.fromEntries(Object.entries(t.p.counters).map(([key, value]) => [key, value - before[key]])); },
  };
}"""


class Chart:
    """A picture in a page. `page` sees `t` of `TOOLS` and `t.p`."""

    def __init__(self, page: Page, theme: str = "dark") -> None:
        self.page = page
        page.evaluate(TOOLS)
        page.evaluate("(theme) => { t.p = new t.Picture(t.host, { theme, now: () => 1795170000000 }); }", theme)

    def load(self, data: bytes, candles: dict[str, Any] | None = None) -> None:
        self.page.evaluate("([data, candles]) => t.load(data, candles)", [text(data), candles])

    def run(self, script: str, argument: Any = None) -> Any:
        """`script` with `p`, then two frames."""
        return self.page.evaluate(
            f"async (given) => {{ const p = t.p; const r = await ({script}); await t.frames(); return r; }}", argument
        )

    def bare(self, **more: Any) -> None:
        """Only heat, its whole scale; no lines that the library draws over it."""
        self.run("(p.setLayers(given[0]), p.setScale({ map: given[1], depth: given[1] }))", [BARE | more, FULL])
        self.run("p.chart.applyOptions({ grid: { vertLines: given, horzLines: given } })", {"visible": False})
        self.run("p.series.line.applyOptions({ lineVisible: false })")

    def luts(self, which: str = "map") -> np.ndarray[Any, Any]:
        """uint8[side, 256, RGBA] as drawn now."""
        script = "[0, 1].map((side) => [...new Uint8Array(t.buildLut({ ...p.lookOf(given), side }).buffer)])"
        return np.array(self.run(script, which)).reshape(2, 256, 4)

    def visible(self) -> dict[str, float]:
        found: dict[str, float] = self.run("p.visible()")
        return found


def expected(
    chart: Chart, a: int, b: int, back: tuple[int, int, int] = (11, 14, 20), which: str = "map", strength: float = 1.0
) -> Any:
    """Colour of a cell on the background."""
    luts = chart.luts(which)
    colour = luts[0, a] if a >= b else luts[1, b]
    alpha = colour[3] / 255 * strength
    return colour[:3] * alpha + np.array(back) * (1 - alpha)


def price_of(row: int) -> float:
    return (LOW + row) * STEP


def _check(chart: Chart, pair: Pair, sample: int = 400, which: str = "map", missing: tuple[int, ...] = ()) -> int:
    """Compare visible cells with their colours; how many."""
    view, (width, height) = chart.visible(), chart.run("t.pane()")
    draw = np.random.default_rng(5)
    cells = [(int(draw.integers(0, pair[0].shape[0])), int(draw.integers(0, pair[0].shape[1]))) for _ in range(sample)]
    cells = [(c, r) for c, r in cells if view["priceLow"] < price_of(r) < view["priceHigh"] and c not in missing]
    found = chart.run("t.colours(given)", [[FIRST + c, price_of(r)] for c, r in cells])
    luts, seen = chart.luts(which).astype(float), 0
    for (c, r), (x, y, *rgb) in zip(cells, found):
        if not (0 <= x < width and 0 <= y < height):
            continue
        a, b = pair[0][c, r], pair[1][c, r]
        colour = luts[0, a] if a >= b else luts[1, b]
        blended = colour[:3] * colour[3] / 255 + np.array((11, 14, 20)) * (1 - colour[3] / 255)
        assert np.abs(blended - rgb).max() <= 2, (c, r, rgb, blended)
        seen += 1
    return seen


@pytest.fixture
def chart(module_page: Page) -> Chart:
    return Chart(module_page)


class Screen:
    """Pages on a screen of another pixel ratio. An emulated ratio alone does not reach what the chart library asks for."""

    def __init__(self, browser: Browser, path: str | None, ratio: float) -> None:
        self.ratio, self.complaints = ratio, Complaints()
        options = ["--no-sandbox", "--disable-gpu", "--no-first-run", f"--force-device-scale-factor={ratio}"]
        self.browser = browser.browser_type.launch(executable_path=path, args=options)

    def chart(self, width: int, height: int) -> Chart:
        page = self.browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=self.ratio)
        self.complaints.watch(page)
        return _charted(page)


def _charted(page: Page) -> Chart:
    page.route(f"{MODULES}/**", _source)
    page.goto(f"{MODULES}/blank.html")
    return Chart(page)


@pytest.fixture(params=[1, pytest.param(1.25, marks=pytest.mark.stress), 2])
def screen(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Screen]:
    found = Screen(browser, chromium(request.config), request.param)
    yield found
    found.browser.close()
    assert found.complaints.left() == []


def test_every_cell_has_its_place_and_colour_at_every_zoom(screen: Screen) -> None:
    chart, pair = screen.chart(1000, 700), random_pair(1, COLS, ROWS)
    chart.load(answer(header(COLS, ROWS), {"liq": pair}))
    wide, shown = chart.run("((one) => [one.width, one.clientWidth])(document.querySelector('canvas'))")
    assert wide == pytest.approx(shown * screen.ratio, abs=1)
    chart.bare()
    assert _check(chart, pair) > 200
    chart.run("p.zoom(3.7)")
    assert _check(chart, pair, 2000) > 300
    chart.run("(p.zoomPrice(2.9), p.pan(-31), p.panPrice(13))")
    assert _check(chart, pair, 4000) > 100
    chart.run("p.setPriceScale('log')")
    assert _check(chart, pair, 4000) > 100
    chart.run("p.zoomPrice(0.4)")
    assert _check(chart, pair, 4000) > 100
    chart.run("p.setPriceScale('linear')")
    assert _check(chart, pair, 4000) > 100


def test_both_layers_lie_over_each_other(chart: Chart) -> None:
    map_, book = random_pair(1, COLS, ROWS), random_pair(2, COLS, ROWS)
    chart.load(answer(header(COLS, ROWS), {"liq": map_, "depth": book}))
    chart.bare(map=None, depth=True)
    assert _check(chart, book, which="depth") > 200
    chart.bare(map="liq", depth=True)
    cells = [(c, r) for c in range(30, 60) for r in range(90, 110) if book[0][c, r] > 200 and map_[0][c, r] > 100]
    c, r = cells[0]
    under, over = chart.luts("map")[0, map_[0][c, r]], chart.luts("depth")[0, book[0][c, r]].astype(float)
    found = chart.run("t.colours(given)", [[FIRST + c, price_of(r)]])[0][2:]
    assert under[3] == 255
    assert np.abs(over[:3] * over[3] / 255 + under[:3] * (1 - over[3] / 255) - found).max() <= 3
    chart.run("p.setLayers({ heat: false })")
    assert (np.array(chart.run("t.colours(given)", [[FIRST + c, price_of(r)]])[0][2:]) == (11, 14, 20)).all()


@pytest.mark.parametrize(("cols", "rows", "width"), [(720, 800, 390), (720, 800, 1440), (1440, 400, 360)])
def test_one_bright_cell_is_seen_however_far_it_is_away(screen: Screen, cols: int, rows: int, width: int) -> None:
    chart = screen.chart(width, 500)
    low = 3300 - rows // 2
    for col, row in ((cols // 3, rows // 2 + 31), (cols - 1, rows // 2 - 1), (1, rows // 2)):
        plane = np.zeros((cols, rows), np.uint8)
        plane[col, row] = 255
        chart.load(answer(header(cols, rows), {"liq": (plane, np.zeros_like(plane))}))
        chart.bare()
        chart.run("p.recenter()")
        chart.run("p.zoomPrice(0.2)")
        x, y = chart.run("t.colours(given)", [[FIRST + col, (low + row) * STEP]])[0][:2]
        colour = chart.luts()[0, 255][:3]
        found = chart.run("t.like(given)", colour.tolist())
        assert found, (col, row)
        # where a pixel stands for a block of cells, the block is less than two pixels wide and high
        assert min(max(abs(px - x), abs(py - y)) for px, py in found) <= 2


def test_columns_and_candles_share_their_bars(chart: Chart) -> None:
    plane = np.zeros((COLS, ROWS), np.uint8)
    plane[40:50:2] = 200
    times = [T0 + MINUTE * n for n in range(COLS)]
    flat = {key: [66_000.0] * COLS for key in "oc"} | {"h": [66_400.0] * COLS, "l": [65_600.0] * COLS}
    chart.load(answer(header(COLS, ROWS), {"liq": (plane, np.zeros_like(plane))}), {"t": times, **flat})
    chart.bare(candles=True)
    for factor in (1, 2.3, 1.7):
        chart.run("p.zoom(given)", factor)
        chart.run("p.viewport.reveal(given, 66000)", FIRST + 38)
        chart.run("p.viewport.reveal(given, 66000)", FIRST + 52)
        cells, wicks = (chart.run("t.colours(given)", [[FIRST + c, price] for c in range(40, 50)]) for price in (65_400, 66_300))
        lit = chart.luts()[0, 200][:3]
        for n, ((x, _, *rgb), (_, _, *wick)) in enumerate(zip(cells, wicks)):
            assert (np.abs(lit - rgb).max() <= 2) == (n % 2 == 0), (factor, n, x)
            assert np.abs(np.array((244, 246, 249)) - wick).max() <= 2, (factor, n)


def test_a_repaint_is_one_drawing_per_layer_and_two_where_the_ring_wraps(chart: Chart) -> None:
    pairs = {"liq": random_pair(1, COLS, ROWS), "depth": random_pair(2, COLS, ROWS)}
    # slots are counted from a whole multiple of them, so whether a window wraps follows from its first column
    slots = (COLS + 63) // 64 * 64 + 64
    begin = FIRST - FIRST % slots
    for start, parts in ((begin, 1), (begin + slots - 50, 2)):
        chart.load(answer(header(COLS, ROWS, t0_ms=start * MINUTE), pairs))
        chart.bare(map=None, depth=True)
        chart.run("p.recenter()")
        repaint = "t.counted(() => p.setZones([]))"
        found = chart.run(repaint)
        # the library paints an update twice
        assert (found["drawImageCalls"], found["cellsTouched"]) == (parts * found["repaints"], 0)
        chart.bare(map="liq", depth=True)
        found = chart.run(repaint)
        assert found["drawImageCalls"] == (2 * parts + 1) * found["repaints"]  # and what the map projects to the right
        chart.run("p.viewport.showColumns(given, given + 30)", start + 10)
        found = chart.run(repaint)
        assert (found["drawImageCalls"], found["cellsTouched"]) == (2 * found["repaints"], 0)


def _column(
    n: int, cells: Pair, kind: ColumnKind = ColumnKind.LIQ, flags: int = 0, price0: float = LOW * STEP, **more: Any
) -> bytes:
    values = {"step": STEP, "dt_ms": MINUTE, "t_ms": T0 + n * MINUTE} | more
    head = ColumnHeader(
        kind, CellType.U8LOG, 1, ColumnFlag(flags), len(cells[0]), 7, n, n - 1, price0=price0, src=66_000.0, **values
    )
    return pack_column(head, cells)


def _line(value: int, other: int = 0, rows: int = ROWS) -> Pair:
    return np.full(rows, value, np.uint8), np.full(rows, other, np.uint8)


def test_a_column_that_comes_is_coloured_alone_and_the_ring_equals_a_fresh_answer(chart: Chart) -> None:
    pair = random_pair(1, COLS + 150, ROWS)
    chart.load(answer(header(COLS, ROWS), {"liq": (pair[0][:COLS], pair[1][:COLS])}))
    chart.bare()
    rows = chart.run("p.scene.layers.get('liq').ring.rows")
    columns = [text(_column(n, (pair[0][n], pair[1][n]))) for n in range(COLS, COLS + 150)]
    touched = chart.run(
        "(async () => { const all = []; for (const one of given) all.push((await t.counted(() => t.place(one))).cellsTouched);"
        " return all; })()", columns,
    )  # fmt: skip
    assert touched == [rows] * 150
    live = chart.run(
        "p.cells().columns.map((one) => [one.tMs, one.map && [...one.map.a], one.map && [...one.map.b], one.map?.price0])"
    )
    assert chart.run("p.atNewest()")
    first = 150
    fresh = answer(header(COLS, ROWS, t0_ms=T0 + first * MINUTE), {"liq": (pair[0][first:], pair[1][first:])})
    chart.load(fresh)
    assert live == chart.run(
        "p.cells().columns.map((one) => [one.tMs, one.map && [...one.map.a], one.map && [...one.map.b], one.map?.price0])"
    )
    again = _charted(chart.page.context.new_page())
    again.load(fresh)
    again.bare()
    again.run("p.recenter()")
    chart.run("p.recenter()")
    assert chart.run("p.canvas().toDataURL()") == again.run("p.canvas().toDataURL()")


def test_a_day_of_columns_leaves_the_axis_short(chart: Chart) -> None:
    chart.load(answer(header(COLS, ROWS), {"liq": random_pair(1, COLS, ROWS)}))
    columns = [text(_column(n, _line(100))) for n in range(COLS, COLS + 700)]
    chart.run("(async () => { for (const [n, one] of given.entries()) await (n % 50 ? t.place(one) : t.put(one)); })()", columns)
    bars, first, newest, at_newest, colour = chart.run(
        "[p.series.axis.data().length, p.timeline.first, p.scene.newest, p.atNewest(), p.timeline.prices.size]"
    )
    assert (newest, at_newest) == (FIRST + COLS + 699, True)
    assert bars <= 2 * COLS + 20 + 1 and colour <= 2 * COLS + 1 and newest - first <= 2 * COLS


def test_a_provisional_column_is_replaced_by_the_final_one(chart: Chart) -> None:
    chart.load(answer(header(COLS, ROWS), {"depth": random_pair(1, COLS, ROWS)}))
    chart.bare(map=None, depth=True)
    put = "t.put(given)"
    half = {"kind": ColumnKind.DEPTH, "dt_ms": 30_000}
    assert chart.run(put, text(_column(COLS, _line(90), **half)))
    assert chart.run(put, text(_column(COLS, _line(220), flags=1, t_ms=T0 + COLS * MINUTE + 30_000, **half)))
    cell = f"p.scene.layers.get('depth').cell({FIRST + COLS}, 66000)"
    assert chart.run(cell) == [220, 0]
    assert chart.run(put, text(_column(COLS, _line(140), t_ms=T0 + COLS * MINUTE + 30_000, **half)))
    assert chart.run(cell) == [140, 0]  # the larger of the two final halves, not what was provisional
    assert chart.run("t.colours(given)", [[FIRST + COLS, 65_400]])[0][2:] == pytest.approx(
        expected(chart, 140, 0, which="depth"), abs=2
    )


def test_another_step_is_another_epoch_and_nothing_drawn_is_lost(chart: Chart) -> None:
    pair = random_pair(1, COLS, ROWS)
    chart.load(answer(header(COLS, ROWS), {"liq": pair}))
    chart.bare()
    chart.run("t.put(given)", text(_column(COLS, _line(200, rows=60), price0=2180 * 30.0, step=30.0)))
    assert chart.run("p.scene.layers.get('liq').epochs.length") == 2
    assert _check(chart, pair, missing=(0,)) > 200
    assert chart.run("t.colours(given)", [[FIRST + COLS, 65_400]])[0][2:] == pytest.approx(expected(chart, 200, 0), abs=2)
    found = chart.run("t.counted(() => p.setZones([]))")
    assert found["drawImageCalls"] <= (2 + 2 + 1) * found["repaints"]


def test_a_grid_that_moves_far_keeps_every_column(chart: Chart) -> None:
    pair = random_pair(1, COLS, ROWS)
    chart.load(answer(header(COLS, ROWS), {"liq": pair}))
    chart.bare()
    chart.run("t.put(given)", text(_column(COLS, _line(200), price0=(LOW + 170) * STEP)))
    assert _check(chart, pair, missing=(0,)) > 200
    cell = f"p.scene.layers.get('liq').cell({FIRST + COLS}, given)"
    assert [chart.run(cell, price) for price in ((LOW + 369) * STEP, LOW * STEP)] == [[200, 0], None]


def test_columns_without_data_are_hatched_and_healed(chart: Chart) -> None:
    missing = tuple(range(50, 60))
    pair = random_pair(1, COLS, ROWS, filled=1.0)
    chart.load(answer(header(COLS, ROWS), {"liq": pair}, missing=missing))
    chart.bare()
    assert _check(chart, pair, missing=missing) > 200
    x0, x1 = (chart.run("t.at(given, 66000)[0]", FIRST + c) for c in (51, 58))
    script = "((one) => { const found = new Set(); for (let y = 0; y < 400; y++) for (let x = given[0]; x <= given[1]; x++) " \
             "found.add(one.data[4 * (y * one.width + x)]); return [...found]; })(t.pixels())"  # fmt: skip
    inks = chart.run(script, [x0, x1])
    assert min(inks) == 11 and 11 < max(inks) < 80  # background and lines, no heat
    healing = answer(header(30, ROWS, t0_ms=T0 + 45 * MINUTE), {"liq": (pair[0][45:75], pair[1][45:75])})
    assert chart.run("t.merge(given)", text(healing)) is True
    assert _check(chart, pair) > 200
    assert chart.run("t.merge(given)", text(answer(header(30, ROWS, dt_ms=120_000), {}))) is False


def test_bytes_that_are_wrong_leave_the_picture(chart: Chart) -> None:
    data = answer(header(COLS, ROWS), {"liq": random_pair(1, COLS, ROWS)})
    chart.load(data)
    before = chart.run("p.canvas().toDataURL()")
    told = chart.run(
        "Promise.all(given.map((one) => t.load(one).catch((error) => error.name)))", [text(data[:-8]), text(b"MPHM" + data[5:])]
    )
    assert told == ["FormatError", "FormatError"]
    assert chart.run("t.put(given).catch((error) => error.name)", text(_column(COLS, _line(9))[:-1])) == "FormatError"
    assert chart.run("t.put(given)", text(_column(1, _line(9), t_ms=T0 - 500 * MINUTE))) is False  # older than all
    assert chart.run("p.canvas().toDataURL()") == before


def test_scale_palette_theme_and_state_recolour_without_new_data(chart: Chart) -> None:
    pair = (np.full((COLS, ROWS), 150, np.uint8), np.zeros((COLS, ROWS), np.uint8))
    chart.load(answer(header(COLS, ROWS), {"liq": pair}))
    chart.bare()
    at = [[FIRST + 60, 65_400]]
    seen = []
    for change in (
        "p.setPalette('inferno')",
        "p.setScale({ map: { gamma: 0.5 } })",
        "p.setScale({ map: { log: false, hiUsd: 1e6 } })",
    ):
        chart.run(change)
        seen.append(tuple(chart.run("t.colours(given)", at)[0][2:]))
        assert seen[-1] == pytest.approx(expected(chart, 150, 0), abs=2)
    assert len(set(seen)) == 3
    chart.run("p.setStale(true)")
    assert chart.run("t.colours(given)", at)[0][2:] == pytest.approx(expected(chart, 150, 0, strength=0.45), abs=2)
    chart.run("(p.setStale(false), p.setTheme('light'))")
    assert chart.run("t.colours(given)", at)[0][2:] == pytest.approx(expected(chart, 150, 0, back=(255, 255, 255)), abs=2)
    chart.run("p.setScale({ map: { loUsd: 1e7, hiUsd: 1e9, log: true } })")
    assert chart.run("t.colours(given)", at)[0][2:] == [255, 255, 255]  # 1.3 M USD lie below


def test_only_the_layer_whose_scale_changed_is_coloured_again(chart: Chart) -> None:
    chart.load(answer(header(COLS, ROWS), {"liq": random_pair(1, COLS, ROWS), "depth": random_pair(2, COLS, ROWS)}))
    chart.bare(depth=True)
    cells = chart.run("((ring) => ring.slots * ring.rows)(p.scene.layers.get('liq').ring)")
    for change, layers in (("p.setScale({ map: { loUsd: 5000 } })", 1), ("p.setScale({})", 0), ("p.setPalette('mono')", 2)):
        assert chart.run(f"t.counted(() => {change})")["cellsTouched"] == cells * layers, change


def test_wheel_and_drag_move_it_and_cells_stay_with_their_bars(chart: Chart) -> None:
    pair = random_pair(1, COLS, ROWS)
    chart.load(answer(header(COLS, ROWS), {"liq": pair}))
    chart.bare()
    before = chart.visible()
    chart.page.mouse.move(500, 400)
    for _ in range(6):
        chart.page.mouse.wheel(0, -600)
        chart.run("t.frames()")
    near = chart.visible()
    assert near["toMs"] - near["fromMs"] < 0.8 * (before["toMs"] - before["fromMs"])
    assert _check(chart, pair, 3000) > 100
    chart.page.mouse.down()
    chart.page.mouse.move(620, 400, steps=4)
    chart.page.mouse.up()
    chart.run("t.frames()")
    assert chart.visible()["fromMs"] < near["fromMs"]
    x = chart.run("p.chart.paneSize().width + 20")  # the price axis
    chart.page.mouse.move(x, 300)
    chart.page.mouse.down()
    chart.page.mouse.move(x, 380, steps=4)
    chart.page.mouse.up()
    chart.run("t.frames()")
    assert chart.visible()["priceHigh"] > near["priceHigh"]
    assert _check(chart, pair, 3000) > 100


def test_the_newest_column_is_projected_paler(chart: Chart) -> None:
    pair = (np.full((COLS, ROWS), 255, np.uint8), np.zeros((COLS, ROWS), np.uint8))
    pair[0][-1, ::2] = 180
    chart.load(answer(header(COLS, ROWS), {"liq": pair}))
    chart.bare()
    for row in (100, 101):
        found = chart.run("t.colours(given)", [[FIRST + COLS + 7, price_of(row)]])[0][2:]
        assert found == pytest.approx(expected(chart, int(pair[0][-1, row]), 0, strength=0.45), abs=2)
    chart.run("p.setLayers({ heat: false })")
    assert chart.run("t.colours(given)", [[FIRST + COLS + 7, price_of(100)]])[0][2:] == [11, 14, 20]


def test_the_default_view_and_moving_it(chart: Chart) -> None:
    chart.load(answer(header(COLS, ROWS), {"liq": random_pair(1, COLS, ROWS)}))
    view = chart.visible()
    assert view["fromMs"] == pytest.approx(T0, abs=MINUTE) and view["toMs"] > T0 + COLS * MINUTE
    assert (view["priceLow"], view["priceHigh"]) == pytest.approx((66_000 * 0.97, 66_000 * 1.03), rel=1e-3)
    chart.run("p.jumpToPrice(65000)")
    moved = chart.visible()
    assert (moved["priceLow"] + moved["priceHigh"]) / 2 == pytest.approx(65_000, abs=1)
    assert moved["priceHigh"] - moved["priceLow"] == pytest.approx(view["priceHigh"] - view["priceLow"])
    chart.run("p.panPrice(10)")
    assert chart.visible()["priceLow"] == pytest.approx(moved["priceLow"] + 200)
    chart.run("p.zoomPrice(2)")
    assert chart.visible()["priceHigh"] - chart.visible()["priceLow"] == pytest.approx((view["priceHigh"] - view["priceLow"]) / 2)
    chart.run("(p.zoom(4), p.pan(-60))")
    assert not chart.run("p.atNewest()")
    away = chart.visible()
    assert chart.run("t.put(given)", text(_column(COLS, _line(9))))
    assert chart.visible()["fromMs"] == pytest.approx(away["fromMs"])  # who looks at the past is left there
    chart.load(answer(header(COLS, ROWS, t0_ms=T0 + 5 * MINUTE), {"liq": random_pair(1, COLS, ROWS)}))
    assert chart.visible()["fromMs"] == pytest.approx(away["fromMs"], abs=1)  # also by a new answer of the same range
    chart.run("p.toNewest()")
    assert chart.run("p.atNewest()")
    assert chart.visible()["toMs"] - chart.visible()["fromMs"] == pytest.approx(away["toMs"] - away["fromMs"])
    chart.run("p.recenter()")
    assert chart.visible()["priceLow"] == pytest.approx(66_000 * 0.97, rel=1e-3)


def test_the_view_is_told_once_per_change(chart: Chart) -> None:
    chart.run("(window.views = [], p.addEventListener('view', ({ detail }) => views.push(detail)))")
    chart.load(answer(header(COLS, ROWS), {"liq": random_pair(1, COLS, ROWS)}))
    chart.run("t.frames()")
    chart.run("views.splice(0)")
    chart.run("p.setZones([])")
    assert chart.run("views") == []
    chart.run("p.pan(-20)")
    assert [one["atNewest"] for one in chart.run("views")][-1] is False
    chart.run("p.panPrice(3)")
    assert chart.run("views.at(-1).priceLow") == pytest.approx(chart.visible()["priceLow"])


def test_the_cursor_reads_what_is_under_it(chart: Chart) -> None:
    pair = random_pair(1, COLS, ROWS, filled=1.0)
    points = [(70, 100, 1, 3, 2, 15_704.9, 12_011.0)]
    times = [T0 + MINUTE * n for n in range(COLS)]
    candles = {
        "t": times,
        "o": [1.0 * n for n in range(COLS)],
        "h": [66_100.0] * COLS,
        "l": [65_900.0] * COLS,
        "c": [66_000.0] * COLS,
    }
    chart.load(answer(header(COLS, ROWS), {"liq": pair}, missing=(71,), points=points), candles)
    chart.run("(p.setMark(66100), window.told = [], p.addEventListener('readout', ({ detail }) => told.push(detail)))")
    x, y = chart.run("t.at(given[0], given[1])", [FIRST + 70, price_of(100)])
    chart.page.mouse.move(x + 0.5, y + 0.5)
    one = chart.run("told.at(-1)")
    usd = usd_of_u8log(pair[0]), usd_of_u8log(pair[1])
    assert (one["tMs"], one["price"]) == (T0 + 70 * MINUTE, pytest.approx(price_of(100), abs=STEP / 2))
    assert one["map"] == {"longUsd": pytest.approx(usd[0][70, 100]), "shortUsd": pytest.approx(usd[1][70, 100]), "missing": False}
    assert one["previous"]["map"]["longUsd"] == pytest.approx(usd[0][69, 100])
    assert one["next"]["map"] == {"longUsd": None, "shortUsd": None, "missing": True}
    assert (one["depth"], one["mark"], one["candle"]["o"]) == (None, 66_100, 70)
    assert one["distancePct"] == pytest.approx((one["price"] / 66_100 - 1) * 100)
    assert (one["bubble"]["count"], one["bubble"]["side"]) == (2, 1) and one["bubble"]["usd"] == pytest.approx(15_704.9)
    assert one["ageS"] == pytest.approx(max(0, (1_795_170_000_000 - T0 - 71 * MINUTE) / 1000)) and one["future"] is False
    chart.run("(told.splice(0), p.crosshairTo(-1, 2))")
    assert (chart.run("told.at(-1).tMs"), chart.run("told.at(-1).price")) == (T0 + 69 * MINUTE, price_of(102))
    chart.run("p.crosshairTo(1000, 0)")
    assert chart.run("[told.at(-1).future, told.at(-1).map.longUsd, told.at(-1).ageS]") == [True, None, None]
    chart.run("p.clearCrosshair()")
    assert chart.run("told.at(-1)") is None


def test_liquidations_that_come_join_those_of_the_answer(chart: Chart) -> None:
    points = [(70, 100, 0, 1, 2, 1000.0, 800.0)]
    chart.load(answer(header(COLS, ROWS), {}, points=points))
    base = {"ts_ms": T0 + 70 * MINUTE + 5, "price": price_of(100) + 9, "side": "long", "venue": "okx", "notional_usd": 500.0}
    events = [
        base | {"seq": 40},
        base | {"seq": 41},
        base | {"seq": 42, "side": "short"},
        base | {"seq": 43, "price": price_of(101) + 9},
    ]
    chart.run("p.putEvents(given)", events)
    chart.run("p.putEvents(given)", events)
    found = chart.run("p.scene.bubbles")
    assert sorted((one["price"], one["side"], one["count"], one["venues"], one["usd"], one["maxUsd"]) for one in found) == [
        (price_of(100), 0, 3, 5, 1500.0, 800.0), (price_of(100), 1, 1, 4, 500.0, 500.0), (price_of(101), 0, 1, 4, 500.0, 500.0),
    ]  # fmt: skip


def test_p99_and_the_cells_are_of_what_is_visible(chart: Chart) -> None:
    pair = (np.full((COLS, ROWS), 50, np.uint8), np.zeros((COLS, ROWS), np.uint8))
    pair[0][:60] = 200
    pair[0][:, : ROWS // 4] = 250
    chart.load(answer(header(COLS, ROWS), {"liq": pair}, missing=(100,)))
    chart.bare()
    chart.run("p.zoomPrice(4)")
    assert chart.run("p.p99('map')") == pytest.approx(usd_of_u8log(np.array([200], np.uint8))[0])
    chart.run("p.viewport.showColumns(given[0], given[1])", [FIRST + 90, FIRST + 110])
    assert chart.run("p.p99('map')") == pytest.approx(usd_of_u8log(np.array([50], np.uint8))[0])
    assert chart.run("p.p99('depth')") is None
    found = chart.run(
        "[p.cells().mapName, p.cells().columns.map((one) => [one.tMs, one.missing.map, one.map && one.map.a.length])]"
    )
    view = chart.visible()
    rows = round(view["priceHigh"] / STEP) - round(view["priceLow"] / STEP) + 1
    assert found[0] == "liq"
    assert found[1] == [[T0 + c * MINUTE, c == 100, None if c == 100 else rows] for c in range(90, 110)]


def test_healed_columns_say_nothing_about_liquidations_that_were_not_asked_for(chart: Chart) -> None:
    chart.load(answer(header(COLS, ROWS), {}, points=[(70, 100, 0, 1, 2, 1000.0, 800.0)]))
    healing = answer(header(60, ROWS, t0_ms=T0 + 60 * MINUTE, realised_seq=None), {"liq": random_pair(1, 60, ROWS)})
    assert chart.run("t.merge(given)", text(healing)) is True
    assert [one["usd"] for one in chart.run("p.scene.bubbles")] == [1000.0]
    asked = answer(header(60, ROWS, t0_ms=T0 + 60 * MINUTE), {"liq": random_pair(1, 60, ROWS)})
    assert chart.run("t.merge(given)", text(asked)) is True
    assert chart.run("p.scene.bubbles") == []


def test_cleared_there_is_nothing_left_of_the_symbol_before(chart: Chart) -> None:
    chart.load(answer(header(COLS, ROWS), {"liq": random_pair(1, COLS, ROWS)}, points=[(70, 100, 0, 1, 2, 1000.0, 800.0)]))
    chart.run("p.setMark(66000)")
    drawn = chart.run("p.canvas().toDataURL()")
    assert chart.run("t.counted(() => p.clear())")["drawImageCalls"] == 0
    assert chart.run("[p.cells(), p.scene.bubbles, p.p99('map')]") == [None, [], None]
    assert chart.run("Object.values(p.series).map((one) => one.data().length)") == [0, 0, 0]
    assert chart.run("p.canvas().toDataURL()") != drawn
    assert chart.run("t.put(given)", text(_column(COLS, _line(9)))) is False  # of whom? there is no answer yet
    chart.load(answer(header(COLS, ROWS), {"liq": random_pair(1, COLS, ROWS)}, points=[(70, 100, 0, 1, 2, 1000.0, 800.0)]))
    chart.run("p.setMark(66000)")
    assert chart.run("p.canvas().toDataURL()") == drawn


@pytest.mark.parametrize(("known", "shown"), [(10, 60), (300, 324), (720, 720)])
def test_where_data_has_just_begun_the_default_view_is_of_what_there_is(chart: Chart, known: int, shown: int) -> None:
    src = np.where(np.arange(720) >= 720 - known, 66_000.0, np.nan)
    chart.load(answer(header(720, 8), {"liq": random_pair(1, 720, 8)}, src=src))
    assert chart.visible()["fromMs"] == pytest.approx(T0 + (720 - shown) * MINUTE, abs=5 * MINUTE)


def test_without_any_column_there_is_an_empty_chart(chart: Chart) -> None:
    chart.load(answer(header(0, 0, epoch=0, price0=0.0, step=0.0), {}))
    chart.run("(p.setZones([]), p.setMark(66000), p.zoom(2), p.jumpToPrice(5), p.crosshairTo(1, 1), p.recenter(), p.setMark(null))")
    assert chart.run("[p.p99('map'), p.atNewest()]") == [None, True]
    assert chart.run("t.put(given)", text(_column(0, _line(150)))) is True
    chart.run("p.destroy()")
    assert chart.run("t.host.childElementCount") == 0
