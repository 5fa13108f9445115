"""The dashboard as a person uses it: opens an address, looks at the badge, points, presses keys, exports."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from playwright.sync_api import Locator, Page, expect

from tests.browser.backend import Backend

WITHIN_MS: Final = 10_000
PLAIN: Final[dict[str, Any]] = {"candles": 0, "realised": 0, "zones": 0, "profile": 0, "map_opacity": 1, "book_opacity": 1}
"""Settings that leave nothing but the heat."""

# The largest canvas of the chart is the pane; the others are its axes. Cursor and heat lie on canvases of the same size.
_PANE: Final = """() => {
  const boxes = [...document.querySelectorAll("#chart canvas")].map((one) => one.getBoundingClientRect());
  const largest = boxes.reduce((a, b) => (b.width * b.height > a.width * a.height ? b : a));
  return {x: largest.x, y: largest.y, width: largest.width, height: largest.height};
}"""
_SHIFT: Final = "{ const now = Date.now; Date.now = () => now() + (%d); }"
_PAINTED: Final = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"


def painted(page: Page) -> None:
    """Return when what was asked for before has been painted."""
    page.evaluate(_PAINTED)


def settled(page: Page, badge: str = "LIVE") -> None:
    """Return when the page shows a picture under this badge."""
    expect(page.locator("#badge")).to_have_attribute("data-badge", badge, timeout=WITHIN_MS)
    painted(page)


class Person:
    """One page of one backend. `clocked`: their clocks agree; otherwise the page's is the machine's, months away."""

    def __init__(self, page: Page, backend: Backend, *, clocked: bool = True) -> None:
        self.page = page
        self.backend = backend
        if clocked:
            page.add_init_script(_SHIFT % (backend.now_ms - time.time_ns() // 1_000_000))

    # --- coming and looking -------------------------------------------------------------------------------------------

    def open(self, badge: str | None = "LIVE", **query: Any) -> Person:
        """Open the page with these settings in its address, and wait for the badge (None: do not)."""
        self.page.goto(self.backend.url(f"/?{urlencode({'symbol': 'BTC', **query})}"))
        if badge is not None:
            settled(self.page, badge)
        return self

    def settled(self, badge: str = "LIVE") -> None:
        settled(self.page, badge)

    def see(self, selector: str, text: str | re.Pattern[str]) -> None:
        """Wait until an element contains the text."""
        expect(self.page.locator(selector)).to_contain_text(text, timeout=WITHIN_MS)

    def locator(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    @property
    def query(self) -> dict[str, str]:
        """What the address carries now."""
        return dict(self.page.evaluate("() => Object.fromEntries(new URLSearchParams(location.search))"))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition on what the test has collected, while the browser's events come in."""
        deadline = time.monotonic() + WITHIN_MS / 1000
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain: {what}"
            self.page.wait_for_timeout(20)

    # --- acting -------------------------------------------------------------------------------------------------------

    def press(self, key: str, times: int = 1) -> None:
        for _ in range(times):
            self.page.keyboard.press(key)
        painted(self.page)

    def settings(self) -> None:
        """Open the settings."""
        if not self.page.locator("#controls").is_visible():
            self.page.locator("#controls-open").click()

    def toggle(self, name: str) -> None:
        """Click a layer's switch (depth, candles, realised, zones, profile, heat)."""
        self.page.locator(f"label:has(#layer-{name})").click()
        painted(self.page)

    def choose(self, group: str, value: str) -> None:
        """Click one of symbols, ranges or maps."""
        self.page.locator(f"label:has(#{group}-{value})").click()
        painted(self.page)

    # --- the chart ----------------------------------------------------------------------------------------------------

    def pane(self) -> dict[str, float]:
        """Box of the chart without its axes, CSS pixels."""
        return dict(self.page.evaluate(_PANE))

    def point(self, across: float, up: float) -> tuple[float, float]:
        """Move the mouse to a place of the pane, fractions from its left and from its bottom; where that is."""
        box = self.pane()
        x, y = round(box["x"] + across * box["width"]), round(box["y"] + (1 - up) * box["height"])
        self.page.mouse.move(x, y)
        painted(self.page)
        return x, y

    def away(self) -> None:
        """The mouse leaves the chart."""
        self.page.mouse.move(1, 1)
        painted(self.page)

    def picture(self) -> bytes:
        """PNG of the pane."""
        box = self.pane()
        return self.page.screenshot(clip={name: box[name] for name in ("x", "y", "width", "height")})  # type: ignore[arg-type]

    def reading(self) -> dict[str, Any]:
        """What the cross-hair says: price, time and the table of cells as texts."""
        lead, when = self.text("#readout-body .lead"), self.text("#readout-body .when")
        rows = self.page.locator("#readout-body table.cells tbody tr").all()
        cells = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}
        facts = dict(
            zip(self.page.locator("#readout-body dt").all_inner_texts(), self.page.locator("#readout-body dd").all_inner_texts())
        )
        price = re.search(r"\d[\d,]*(\.\d+)?", lead)
        return {
            "price": float(price[0].replace(",", "")) if price else None,
            "lead": lead,
            "when": when,
            "cells": cells,
            "facts": facts,
        }

    # --- exports ------------------------------------------------------------------------------------------------------

    def export(self, kind: str, folder: Path) -> Path:
        """Choose an export (png, csv, triplets); the file that the browser saved, under the name that the page gave."""
        if not self.page.locator("#export-menu").is_visible():
            self.page.locator("#export-open").click()
        with self.page.expect_download() as waiting:
            self.page.locator(f"#export-{kind}").click()
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    def rows(self, folder: Path) -> list[dict[str, str]]:
        """Rows of the CSV export."""
        lines = self.export("csv", folder).read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith("# mpengine ")
        return list(csv.DictReader(io.StringIO("\n".join(lines[1:]))))

    def triplets(self, folder: Path) -> dict[str, Any]:
        """The export of sparse triplets."""
        return dict(json.loads(self.export("triplets", folder).read_text(encoding="utf-8")))


def cells_of_rows(rows: list[dict[str, str]], layers: tuple[str, ...]) -> dict[tuple[str, str, int, float], float]:
    """(layer, side, ms, price) -> USD of exported rows of these layers."""
    return {
        (row["layer"], row["side"], int(row["time_ms"]), float(row["price_usd"])): float(row["amount_usd"])
        for row in rows
        if row["layer"] in layers
    }


def cells_of_heatmap(body: dict[str, Any], layer: str, named: str) -> dict[tuple[str, str, int, float], float]:
    """The same of an answer of `/heatmap` (JSON, dense, u8log). `named`: what the export calls the layer."""
    rows, lo, hi = body["rows"], body["lo_usd"], body["hi_usd"]
    found = {}
    for side, cells in body["layers"][layer].items():
        if side in ("seq", "unit"):
            continue
        for at, q in enumerate(cells):
            if q:
                column, row = divmod(at, rows)
                price = round(body["price0"] + row * body["step"], 8)
                found[named, side, body["t0_ms"] + column * body["dt_ms"], price] = lo * (hi / lo) ** ((q - 1) / 254)
    return found


def same_as_server(person: Person, folder: Path, minutes: int = 60, symbol: str = "BTC") -> None:
    """Wait until what the page holds of its visible part is what a fresh `/heatmap` says, cell by cell, newest column included."""
    deadline = time.monotonic() + WITHIN_MS / 1000
    while True:
        found, wanted = _both(person, folder, minutes, symbol)
        if found == wanted:
            return
        assert time.monotonic() < deadline, _difference(found, wanted)
        person.page.wait_for_timeout(100)


Cells = dict[tuple[str, str, int, float], float]


def _both(person: Person, folder: Path, minutes: int, symbol: str) -> tuple[Cells, Cells]:
    rows = person.rows(folder)
    # The page keeps its rows where a fresh answer would begin to pool them.
    prices = sorted({float(row["price_usd"]) for row in rows})
    step = person.backend.settings.symbols[symbol].step
    k = max(1, round(min((b - a for a, b in itertools.pairwise(prices)), default=step) / step))
    target = f"/heatmap?symbol={symbol}&minutes={minutes}&dt_s=60&k={k}&layers=liq,depth"
    body = person.backend.json(target)
    found = cells_of_rows(rows, ("map_liq", "book"))
    wanted = {**cells_of_heatmap(body, "liq", "map_liq"), **cells_of_heatmap(body, "depth", "book")}
    if not found:
        return found, wanted
    low, high = min(key[3] for key in found), max(key[3] for key in found)
    first = min(key[2] for key in found)
    # Amounts are written without cents from 1000 USD on; both sides are rounded alike.
    kept = {key: _rounded(usd) for key, usd in wanted.items() if low <= key[3] <= high and key[2] >= first}
    return found, kept


def _rounded(usd: float) -> float:
    return float(f"{usd:.2f}") if usd < 1000 else float(f"{usd:.0f}")


def _difference(found: Cells, wanted: Cells) -> str:
    missing, extra = sorted(wanted.keys() - found.keys(), key=str), sorted(found.keys() - wanted.keys(), key=str)
    other = [(key, found[key], wanted[key]) for key in found.keys() & wanted.keys() if found[key] != wanted[key]]
    times = sorted({key[2] for key in missing}), sorted({key[2] for key in extra})
    return (
        f"{len(found)} cells on the page, {len(wanted)} at the server; missing {len(missing)} {missing[:3]}, extra {len(extra)} "
        f"{extra[:3]}, other {len(other)} {other[:3]}; columns with missing {times[0][-5:]}, with extra {times[1][-5:]}"
    )
