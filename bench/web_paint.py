"""What the picture of the page costs in a browser, medians of 50: repaint, one more column, another look, panning and zooming::

    720 x 800 cells (book and map) -> OffscreenCanvas -> drawImage -> the canvas of the chart, headless

Without a graphics card the browser draws in software on the processor, which the first line names; a screen with one is faster.
Painting is timed inside of the page: all of the heat into a canvas of the size of the chart, which reading one pixel forces to be
finished. Frames are as the browser shows them while something moves every frame, with everything that the chart draws, so the best
of them is one refresh of the screen (16.7 ms).

python -m bench.web_paint [--quick] [--json]
"""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from playwright.sync_api import Page, Route, sync_playwright

from bench.common import Row, main, report
from mpengine.mphm import Block, Form, Header, Pool, dense, encode, per_column, provenance
from mpengine.wire_formats import CellType

WEB: Final = Path(__file__).resolve().parents[1] / "api" / "web"
ORIGIN: Final = "http://modules.test"
COLS, ROWS, STEP = 720, 800, 20.0
T0: Final = 1_795_167_600_000
PALETTES: Final = ("viridis", "inferno", "cividis", "mono")
NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_TYPES: Final = {".js": "text/javascript", ".html": "text/html"}
_PROVENANCE: Final = {"symbol": "BTC", "model": "", "estimated": True, "config_hash": "", "assumptions": None, "coverage": {}}

SETUP: Final = """async ([data, depth]) => {
  const [{ Picture }, { decodeHeatmap }, { paintHeat }, { Axes }] =
    await Promise.all(['picture', 'bytes', 'heatmap', 'axes'].map((one) => import(`/src/${one}.js`)));
  const host = document.createElement('div');
  host.style.cssText = 'position:fixed;inset:0';
  document.body.append(host);
  const p = new Picture(host);
  const snapshot = decodeHeatmap(Uint8Array.from(atob(data), (one) => one.charCodeAt(0)).buffer);
  p.setSnapshot(snapshot, null);
  p.setLayers({ map: 'liq', depth });
  const frame = () => new Promise(requestAnimationFrame);
  await frame(); await frame(); await frame();
  const pane = host.querySelector('canvas');
  const canvas = new OffscreenCanvas(pane.width, pane.height);
  const context = canvas.getContext('2d');
  const scope = { context, bitmapSize: canvas, horizontalPixelRatio: 1, verticalPixelRatio: 1 };
  const paint = () => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    paintHeat(context, new Axes(p.chart, p.series.line, p.timeline.first, scope, false), p.scene);
    context.getImageData(0, 0, 1, 1);
  };
  const timed = async (times, work) => {
    const all = [];
    for (let n = 0; n < times + 5; n++) {
      await frame();
      const start = performance.now();
      work(n);
      all.push(performance.now() - start);
    }
    return all.slice(5);
  };
  const moved = async (times, work) => {
    const all = [];
    let before = await frame();
    for (let n = 0; n < times; n++) { work(n); const now = await frame(); all.push(now - before); before = now; }
    return all;
  };
  const cells = (n) => snapshot.layers.liq.a.subarray(n * snapshot.rows, (n + 1) * snapshot.rows);
  let next = snapshot.cols;
  const { t0Ms, dtMs, price0, step, rows } = snapshot;
  const column = () => ({ layer: 'liq', tMs: t0Ms + dtMs * next++, dtMs, price0, step, rows, a: cells(next % 700), b: cells(0),
    src: 66000, epoch: 1, seq: next, prev: next - 1, flags: [], stale: false });
  window.bench = { p, paint, timed, moved, column };
}"""
WORKS: Final = {
    "repaint": "bench.timed(given, bench.paint)",
    "append one column, no paint": "bench.timed(given, () => bench.p.putColumn(bench.column()))",
    "palette change and repaint": "bench.timed(given, (n) => { bench.p.setPalette(palettes[n % 4]); bench.paint(); })",
    "threshold change and repaint": "bench.timed(given, (n) => { bench.p.setScale({ map: { loUsd: 2e4 + n } }); bench.paint(); })",
    "gamma change and repaint": "bench.timed(given, (n) => { bench.p.setScale({ map: { gamma: 1 + n / 100 } }); bench.paint(); })",
    "frame while panning": "bench.moved(given * 2, (n) => bench.p.pan(n % 40 < 20 ? -3 : 3))",
    "frame while zooming": "bench.moved(given * 2, (n) => bench.p.zoom(n % 40 < 20 ? 1.05 : 1 / 1.05))",
}


def answer() -> bytes:
    """An answer of `/heatmap` with a map and a book, every cell filled."""
    draw = np.random.default_rng(1)
    head = Header(
        cell=CellType.U8LOG, form=Form.DENSE, pool=Pool.MAX, flags=0, t0_ms=T0, dt_ms=60_000, cols=COLS, price0=58_000.0, step=STEP,
        rows=ROWS, k=1, epoch=1, liq_seq=1, depth_seq=1, realised_seq=None, lo_usd=100.0, hi_usd=1e9,
    )  # fmt: skip
    planes = (Block.LIQ_LONG, Block.LIQ_SHORT, Block.DEPTH_BID, Block.DEPTH_ASK)
    blocks = [
        dense(one, CellType.U8LOG, COLS * ROWS, [draw.integers(0, 256, COLS * ROWS).astype(np.uint8).tobytes()]) for one in planes
    ]
    numbers = np.arange(COLS, dtype=np.int64)
    blocks += [per_column(Block.LIQ_SEQ, numbers), per_column(Block.DEPTH_SEQ, numbers)]
    prices = 66_000.0 + np.cumsum(draw.normal(0, 15, COLS))
    blocks += [per_column(Block.SRC, prices), provenance(msgspec.json.encode(_PROVENANCE))]
    return b"".join(encode(head, blocks))


def _serve(route: Route) -> None:
    path = route.request.url.removeprefix(ORIGIN).partition("?")[0].lstrip("/")
    file = WEB / path
    if path == "blank.html":
        route.fulfill(content_type="text/html", body="<!doctype html><title>bench</title><body>")
    elif file.is_file():
        route.fulfill(content_type=_TYPES.get(file.suffix, "application/octet-stream"), body=file.read_bytes())
    else:
        route.fulfill(status=404)


def renderer(page: Page) -> str:
    """Who draws, in the browser's own words."""
    script = """() => { const gl = document.createElement('canvas').getContext('webgl');
      const known = gl && gl.getExtension('WEBGL_debug_renderer_info');
      return known ? gl.getParameter(known.UNMASKED_RENDERER_WEBGL) : null; }"""
    found: str | None = page.evaluate(script)
    software = found is None or any(one in found.lower() for one in ("swiftshader", "llvmpipe", "software"))
    return f"software rendering ({found or 'no WebGL'})" if software else str(found)


def measure(page: Page, layers: str, times: int) -> list[Row]:
    """Rows of every work. `layers`: `map` or `map and book`."""
    page.goto(f"{ORIGIN}/blank.html")
    page.evaluate(SETUP, [base64.b64encode(answer()).decode(), layers != "map"])
    rows: list[Row] = []
    for name, work in WORKS.items():
        found: Any = page.evaluate(f"async (given) => {{ const palettes = {list(PALETTES)}; return await {work}; }}", times)
        p50, p95 = np.percentile(found, (50, 95))
        rows.append(
            {"layers": layers, "what": name, "p50 ms": round(float(p50), 2), "p95 ms": round(float(p95), 2), "n": len(found)}
        )
    return rows


def run(quick: bool) -> list[Row]:
    """Rows of both sets of layers. Raises RuntimeError without a browser."""
    path = os.environ.get("MPENGINE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise RuntimeError("no Chromium: give MPENGINE_CHROMIUM")
    rows: list[Row] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.route(f"{ORIGIN}/**", _serve)
            for layers in ("map", "map and book"):
                rows += measure(page, layers, 15 if quick else 50)
            title = f"picture of {COLS} x {ROWS} cells, 1440 x 900 pixels, Chromium {browser.version}, {renderer(page)}"
        finally:
            browser.close()
    report(title, rows, "frames: the time from one to the next; 16.7 ms is as often as the screen asks for")
    return rows


if __name__ == "__main__":
    main(run, "bench.web_paint")
