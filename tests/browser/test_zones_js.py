"""`zone_order.js` and `zones.js`: the table of zones, its order, its headers and what a click on a row does."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

MARK = 100.0


def zone(name: str, price: float, usd: float, age: int = 5, leverage: int | None = 20, source: str = "inference") -> dict[str, Any]:
    side = "short" if price > MARK else "long"
    return {
        "id": name, "price": price, "side": side, "notional_usd": usd, "age_min": age, "dominant_leverage": leverage,
        "source": source, "tier_contributions": {} if leverage is None else {str(leverage): 1.0}, "weight": 1.0,
    }  # fmt: skip


ZONES = [
    zone("a", 103, 5e6, age=9, leverage=50),
    zone("b", 99, 2e6, age=1, leverage=None, source="tape"),
    zone("c", 96, 9e6, age=30, leverage=10),
    zone("d", 101, 2e6, age=4, leverage=100),
]


@pytest.mark.parametrize(
    ("key", "descending", "order"),
    [
        ("usd", True, "cabd"),
        ("usd", False, "bdac"),
        ("price", True, "adbc"),
        ("distance", False, "bdac"),
        ("age", False, "bdac"),
        ("leverage", True, "dacb"),
        ("leverage", False, "cadb"),
        ("source", True, "bcad"),
    ],
)
def test_order(module_page: Page, key: str, descending: bool, order: str) -> None:
    found = module_page.evaluate(
        "async (given) => (await import('/src/zone_order.js')).ordered(...given).map((zone) => zone.id).join('')",
        [ZONES, {"key": key, "descending": descending}, MARK],
    )
    assert found == order


def test_the_zone_at_a_price_and_what_lies_next_to_the_mark(module_page: Page) -> None:
    at, none, near, sums = module_page.evaluate(
        """async ([zones, mark]) => {
          const { zoneAt, nearest, sumsWithin } = await import('/src/zone_order.js');
          const { above, below } = nearest(zones, mark);
          return [zoneAt(zones, 101.4, 0.5)?.id, zoneAt(zones, 102, 0.5), [above.id, below.id], sumsWithin(zones, mark, 3.5)];
        }""",
        [ZONES, MARK],
    )
    assert (at, none, near) == ("d", None, ["d", "b"])
    assert sums == {"above": 7e6, "below": 2e6}


@pytest.fixture
def shown(module_page: Page) -> Page:
    module_page.evaluate(
        """async ([zones, mark]) => {
          const { ZoneTable } = await import('/src/zones.js');
          const box = document.createElement('div');
          document.body.append(box);
          window.jumps = [];
          window.table = new ZoneTable(box, (price) => window.jumps.push(price));
          window.show = (zones, mark) => window.table.render({ zones, mark, symbol: 'BTC', filtered: false });
          window.show(zones, mark);
        }""",
        [ZONES, MARK],
    )
    return module_page


def column(page: Page, name: str) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(f"tbody td.{name}").all_inner_texts()]


def test_headers_sort_and_say_so(shown: Page) -> None:
    expect(shown.get_by_role("columnheader", name="≈ USD")).to_have_attribute("aria-sort", "descending")
    assert column(shown, "usd") == ["9M", "5M", "2M", "2M"]
    shown.get_by_role("button", name="Away").click()
    expect(shown.locator("th.distance")).to_have_attribute("aria-sort", "ascending")
    expect(shown.locator("th.usd")).to_have_attribute("aria-sort", "none")
    assert column(shown, "distance") == ["−1.00%", "+1.00%", "+3.00%", "−4.00%"]
    shown.get_by_role("button", name="Away").click()
    expect(shown.locator("th.distance")).to_have_attribute("aria-sort", "descending")
    assert column(shown, "distance")[0] == "−4.00%"


def test_a_row_says_everything_that_the_picture_shows(shown: Page) -> None:
    row = shown.get_by_role("row").filter(has_text="103")
    assert " ".join(row.inner_text().replace("\n", " ").split()) == "▲shorts 103.00 +3.00% 5M projected 9 min 50×"


def test_click_and_enter_go_to_the_price_once(shown: Page) -> None:
    shown.locator("tr[data-zone=c] td.age").click()
    button = shown.get_by_role("button", name="101.00")
    button.focus()
    shown.keyboard.press("Enter")
    assert shown.evaluate("window.jumps") == [96, 101]


def test_new_zones_leave_the_focus_where_it_was(shown: Page) -> None:
    shown.get_by_role("button", name="99.00").focus()
    more = [zone("e", 104, 2e7), *(one for one in ZONES if one["id"] != "c")]
    shown.evaluate("([zones, mark]) => window.show(zones, mark)", [more, MARK + 1])
    assert [row.get_attribute("data-zone") for row in shown.locator("tbody tr").all()] == ["e", "a", "b", "d"]
    assert shown.evaluate("document.activeElement.textContent") == "99.00"
    assert column(shown, "distance")[-1] == "0.00%"


def test_an_empty_table_says_why(shown: Page) -> None:
    shown.evaluate("window.show([], 100)")
    expect(shown.get_by_text("No zones yet.")).to_be_visible()
    shown.evaluate("window.table.render({ zones: [], mark: 100, symbol: 'BTC', filtered: true })")
    expect(shown.get_by_text("No zone passes the filters.")).to_be_visible()
