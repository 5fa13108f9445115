"""axe-core over the page as people meet it: every panel, menu, dialog, theme, width and state, without a violation worth a name."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.backend import Backend
from tests.browser.person import Person

pytestmark = pytest.mark.slow

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def axe_source() -> Path:
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("axe-playwright-python is not installed")
    return Path(spec.origin).parent / "axe.min.js"


@pytest.fixture
def examined(open_page: Callable[..., Page], backend: Backend) -> Callable[..., Person]:
    """A page with axe in it. It comes in by the devtools, so the page's policy stays as strict as it is."""

    def make(width: int = 1440, height: int = 900, **options: Any) -> Person:
        page = open_page(width, height, reduced_motion="reduce", **options)
        page.add_init_script(path=axe_source())
        return Person(page, backend)

    return make


def violations(person: Person) -> list[str]:
    """One line per element and rule: impact, rule, element, what is wrong."""
    found = person.page.evaluate("(tags) => axe.run(document, {runOnly: tags, resultTypes: ['violations']})", RULES)
    return [
        f"{one['impact']} {one['id']}: {node['html'][:120]} ({node['failureSummary'].splitlines()[-1].strip()})"
        for one in found["violations"]
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("panel", ["zones", "venues", "assumptions", "accuracy", "guide"])
def test_panels(examined: Callable[..., Person], theme: str, panel: str) -> None:
    person = examined().open(range="1h", theme=theme, panel=panel)
    assert violations(person) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize(
    ("opener", "opened"), [("#controls-open", "#controls"), ("#export-open", "#export-menu"), ("#help-open", "#help")]
)
def test_menus_and_dialogs(examined: Callable[..., Person], theme: str, opener: str, opened: str) -> None:
    person = examined().open(range="1h", theme=theme)
    person.locator(opener).click()
    expect(person.locator(opened)).to_be_visible()
    assert violations(person) == []


@pytest.mark.parametrize("width", [360, 820])
def test_narrow_pages(examined: Callable[..., Person], width: int) -> None:
    person = examined(width, 800, has_touch=True, is_mobile=True).open(range="1h")
    assert violations(person) == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_states_that_warn(examined: Callable[..., Person], backend: Backend, theme: str) -> None:
    person = examined().open(range="1h", theme=theme, alert_pct=1)
    person.press(" ")
    person.settled("PAUSED")
    assert violations(person) == []
    person.press(" ")
    backend.advance(300)
    person.page.reload()
    person.settled("STALE")
    assert violations(person) == []


def test_the_chart_has_a_name_and_an_equivalent(examined: Callable[..., Person]) -> None:
    person = examined().open(range="1h")
    chart = person.page.get_by_role("application", name="Heatmap of liquidation levels")
    assert "table of zones" in person.text("#chart-about").lower()
    assert chart.get_attribute("aria-describedby") == "chart-about"
    person.page.keyboard.press("Tab")
    expect(person.page.get_by_role("link", name="Skip the chart: table of zones")).to_be_focused()
    person.press("Enter")
    assert person.locator(":target #zones-table").count() == 1
    rows = person.page.get_by_role("table", name="estimated zones of BTC").get_by_role("row")
    expect(rows.nth(10)).to_be_attached()
