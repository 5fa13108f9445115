"""What the page looks like in its main states, compared by structure (`compare.py`); `--update-screenshots` writes them anew.

Charts are compared without their axes, whose texts every machine's fonts write otherwise; pages of text by what is not text.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser import compare
from tests.browser.backend import Backend
from tests.browser.compare import Box, Shot, check
from tests.browser.person import Person

pytestmark = pytest.mark.slow

SIZE = (1200, 760)
# Boxes of all texts that are seen, and of controls that the system draws.
_TEXTS = """() => {
  const boxes = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.textContent.trim() || !node.parentElement.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) boxes.push([box.left, box.top, box.right, box.bottom]);
  }
  for (const one of document.querySelectorAll("input, select")) {
    const box = one.getBoundingClientRect();
    boxes.push([box.left, box.top, box.right, box.bottom]);
  }
  return boxes.filter(([left, top, right, bottom]) => right > left && bottom > top);
}"""
_OVER_CHART = """() => ["#banner", "#gap", "#newest"].map((id) => document.querySelector(id)).filter((one) => one.checkVisibility())
  .map((one) => one.getBoundingClientRect()).map((box) => [box.left, box.top, box.right, box.bottom])"""


@pytest.fixture
def market() -> Iterator[Backend]:
    """A market of its own, as it is at the start."""
    with Backend.running(minutes={"BTC": 720}) as backend:
        yield backend


@pytest.fixture
def update(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--update-screenshots"))


@pytest.fixture
def person(open_page: Callable[..., Page], backend: Backend) -> Person:
    return Person(open_page(*SIZE, reduced_motion="reduce"), backend)


def chart(person: Person) -> Shot:
    """The pane of the chart. Texts on its canvas (zones, the mark) are in its last tenths; they are masked as a strip."""
    person.away()
    box = person.pane()
    x, y = box["x"], box["y"]
    over = [(left - x, top - y, right - x, bottom - y) for left, top, right, bottom in person.page.evaluate(_OVER_CHART)]
    strip: Box = (box["width"] * 0.86, 0.0, box["width"], box["height"])
    return Shot(person.picture(), [*over, strip], [box["width"], box["height"]])


def whole(person: Person) -> Shot:
    """All that is seen of the page without its texts and the axes of the chart."""
    person.see("#zones-table caption", "32 estimated zones")
    expect(person.locator("#tape-table tbody tr").first).to_be_attached()
    person.away()
    box, place = person.pane(), person.locator("#chart").bounding_box()
    assert place
    right, bottom = place["x"] + place["width"], place["y"] + place["height"]
    masks: list[Box] = [(one[0], one[1], one[2], one[3]) for one in person.page.evaluate(_TEXTS)]
    masks.append((box["x"] + box["width"] * 0.86, place["y"], right, bottom))
    masks.append((place["x"], box["y"] + box["height"], right, bottom))
    return Shot(person.page.screenshot(), masks, [*box.values(), len(masks)])


CHARTS: dict[str, dict[str, Any]] = {
    "map-btc-12h-dark": {"theme": "dark", "depth": 0},
    "map-light": {"theme": "light", "depth": 0},
    "book": {"theme": "dark", "map": "none", "range": "4h"},
    "both-layers": {"theme": "dark", "range": "4h"},
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts(person: Person, update: bool, tmp_path: Path, name: str) -> None:
    person.open(**CHARTS[name])
    check(chart(person), name, tmp_path, update=update)


def test_stale(person: Person, backend: Backend, update: bool, tmp_path: Path) -> None:
    backend.advance(300)
    person.open(badge="STALE", theme="dark", range="4h")
    person.see("#banner-text", "limit 180 s")
    check(chart(person), "stale", tmp_path, update=update)


def test_paused(person: Person, update: bool, tmp_path: Path) -> None:
    person.open(theme="dark", range="4h")
    person.press(" ")
    person.settled("PAUSED")
    check(whole(person), "paused", tmp_path, update=update)


def test_gap(market: Backend, open_page: Callable[..., Page], update: bool, tmp_path: Path) -> None:
    market.hole(12)
    for _ in range(10):
        market.minute()
    person = Person(open_page(*SIZE, reduced_motion="reduce"), market).open(theme="dark", range="1h")
    check(chart(person), "gap", tmp_path, update=update)


def test_mobile(open_page: Callable[..., Page], backend: Backend, update: bool, tmp_path: Path) -> None:
    page = open_page(390, 844, reduced_motion="reduce", has_touch=True, is_mobile=True)
    person = Person(page, backend).open(theme="dark", range="1h")
    check(whole(person), "mobile", tmp_path, update=update)


def test_help(person: Person, update: bool, tmp_path: Path) -> None:
    person.open(theme="dark", range="1h")
    person.press("?")
    check(whole(person), "help", tmp_path, update=update)


def test_accuracy(person: Person, update: bool, tmp_path: Path) -> None:
    person.open(theme="light", range="1h", panel="accuracy")
    check(whole(person), "accuracy", tmp_path, update=update)


def _shot(cells: Any, layout: Any) -> Shot:
    data = io.BytesIO()
    Image.fromarray(cells).save(data, "PNG")
    return Shot(data.getvalue(), [], layout)


def test_a_difference_is_seen_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "SHOTS", tmp_path / "shots")
    cells = np.random.default_rng(1).integers(0, 255, (200, 300, 3), np.uint8)
    check(_shot(cells, [300]), "one", tmp_path, update=True)
    check(_shot(cells, [300]), "one", tmp_path, update=False)
    other = cells.copy()
    other[50:60, 50:60] ^= 128
    check(_shot(other, [299]), "one", tmp_path, update=False)  # another layout: only what is coarse counts
    with pytest.raises(AssertionError, match="differ"):
        check(_shot(other, [300]), "one", tmp_path, update=False)
    assert {path.name for path in tmp_path.glob("one-*.png")} == {"one-actual.png", "one-expected.png", "one-difference.png"}
    other[100:] = 255
    with pytest.raises(AssertionError, match="differ"):
        check(_shot(other, [299]), "one", tmp_path, update=False)
