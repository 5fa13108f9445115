"""`legend.js`: the ramp, its two handles and number fields are one scale; `readout.js`, `badge.js`, `venues.js`: what they say."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

LOOK = {"loUsd": 10_000, "hiUsd": 10_000_000, "gamma": 1, "log": True, "palette": "viridis", "theme": "dark"}


@pytest.fixture
def legend(module_page: Page) -> Page:
    module_page.evaluate(
        """async (look) => {
          const { Legend } = await import('/src/legend.js');
          const box = document.createElement('section');
          box.id = 'legend-map';
          document.body.append(box);
          window.moves = [];
          window.legend = new Legend(box, 'map', (end, usd) => window.moves.push([end, usd]));
          window.legend.render(look, true);
          window.pixel = (q, y) => {
            const copy = new OffscreenCanvas(255, 2).getContext('2d', { willReadFrequently: true });
            copy.drawImage(document.querySelector('#legend-map canvas'), 0, 0);
            return [...copy.getImageData(q - 1, y, 1, 1).data];
          };
        }""",
        LOOK,
    )
    return module_page


def test_handles_and_fields_show_the_scale(legend: Page) -> None:
    assert legend.locator("input.usd.lo").input_value() == "10k"
    assert legend.locator("input.usd.hi").input_value() == "10M"
    slider = legend.get_by_role("slider", name="Liquidation map: highest colour")
    expect(slider).to_have_attribute("aria-valuetext", "10M USD")
    expect(legend.get_by_text("estimated", exact=True)).to_be_visible()


def test_a_handle_moves_in_cells_and_tells_usd(legend: Page) -> None:
    slider = legend.get_by_role("slider", name="Liquidation map: lowest colour")
    slider.focus()
    legend.keyboard.press("ArrowRight")
    ((end, usd),) = legend.evaluate("window.moves")
    assert end == "lo"
    assert usd == pytest.approx(10_000 * 1.0655, rel=0.04), "one step of the cells is 6.6 %"


def test_a_field_takes_amounts_and_refuses_nonsense(legend: Page) -> None:
    field = legend.get_by_role("textbox", name="Liquidation map: full colour from, USD")
    field.fill("2.5m")
    field.press("Enter")
    assert legend.evaluate("window.moves") == [["hi", 2_500_000]]
    field.fill("much")
    field.press("Tab")
    expect(field).to_have_attribute("aria-invalid", "true")
    assert field.input_value() == "10M"
    assert len(legend.evaluate("window.moves")) == 1


def test_the_ramp_has_the_colours_of_the_cells_with_shorts_above(legend: Page) -> None:
    drawn, expected = legend.evaluate(
        """async (look) => {
          const { buildLut, qOf } = await import('/src/lut.js');
          const q = qOf(1_000_000);
          const at = (y) => window.pixel(q, y);
          const of = (side) => [...new Uint8Array(buildLut({ ...look, side }).buffer).slice(4 * q, 4 * q + 4)];
          return [[at(0), at(1)], [of(1), of(0)]];
        }""",
        LOOK,
    )
    assert drawn == expected
    assert drawn[0] != drawn[1], "sides differ by colour"


def test_nothing_is_coloured_below_the_scale(legend: Page) -> None:
    assert legend.evaluate("window.pixel(20, 0)[3]") == 0
    assert legend.evaluate("window.pixel(200, 0)[3]") == 255


CELLS = {"map": {"longUsd": 0, "shortUsd": 3.4e6, "missing": False}, "depth": None}
READOUT: dict[str, Any] = {
    "tMs": 1_795_200_120_000, "dtMs": 60_000, "price": 103.0, "mark": 100.0, "distancePct": 3.0, "future": False, **CELLS,
    "previous": {"map": {"longUsd": None, "shortUsd": None, "missing": True}, "depth": None}, "next": CELLS,
    "bubble": {"tMs": 0, "price": 103, "side": 1, "venues": 3, "count": 2, "usd": 15_704.9, "maxUsd": 12_011},
    "candle": None, "ageS": 75,
}  # fmt: skip
ZONE = {
    "id": "z", "price": 103.1, "side": "short", "notional_usd": 311_402.5, "age_min": 45, "source": "inference",
    "tier_contributions": {"100": 2.7847, "125": 0.1524}, "dominant_leverage": 100,
}  # fmt: skip


def read_out(page: Page, readout: dict[str, Any] | None, zones: list[dict[str, Any]], bounds: int = 0) -> str:
    return str(
        page.evaluate(
            """async ([readout, zones, bounds]) => {
              const { renderReadout } = await import('/src/readout.js');
              const box = document.createElement('div');
              document.body.append(box);
              renderReadout(box, { readout, zones, mark: 100, step: 1, bounds });
              return box.innerText;
            }""",
            [readout, zones, bounds],
        )
    )


def test_the_cross_hair_tells_price_side_estimate_age_leverage_and_venues(module_page: Page) -> None:
    text = read_out(module_page, READOUT, [ZONE])
    for part in (
        "103.00 +3.00% from mark", "20 Nov 18:42 UTC, 75 s old", "≈ $3.4M", "no data",
        "≈ $310k shorts, projected, 45 min; 100× 95%, 125× 5%", "$15,705, 2 events, largest $12,011; Binance, Bybit",
    ):  # fmt: skip
        assert part in text, (part, text)
    assert "Asks" not in text, "the book is off"


@pytest.mark.parametrize(("bounds", "words"), [(1, "at least $15,705"), (4, "Shorts closed\n$15,705")])
def test_sums_of_venues_that_leave_some_out_are_a_lower_bound(module_page: Page, bounds: int, words: str) -> None:
    assert words in read_out(module_page, READOUT, [], bounds)


def test_without_a_cross_hair_the_neighbourhood_of_the_price_is_told(module_page: Page) -> None:
    below = {**ZONE, "id": "y", "price": 90, "side": "long", "notional_usd": 5e6}
    text = read_out(module_page, None, [{**ZONE, "price": 101.5}, below])
    assert "101.50 (+1.50%) ≈ $310k" in text
    assert "90.00 (−10.00%) ≈ $5M" in text
    assert "≈ $310k of zones" in text
    assert "≈ $0 of zones" in text


def test_venues_name_what_is_missing(module_page: Page) -> None:
    health = {"state": "LIVE", "ageS": 0.4, "lagMs": 38, "reconnects": 0, "depth": None, "oi": None}
    state = {
        "venuesHealth": {
            "binance": {**health, "liquidations": "largest_1s"},
            "bybit": {**health, "liquidations": "all_500ms", "state": "DOWN"},
            "hyperliquid": {**health, "liquidations": "none"},
        },
        "provenance": None,
        "ages": {"venues": {"binance": 2.0}},
    }
    rows, missing = module_page.evaluate(
        """async (state) => {
          const { venueRows, missingText } = await import('/src/venues.js');
          const rows = venueRows(state);
          return [rows, missingText(rows)];
        }""",
        state,
    )
    assert [(row["venue"], row["ageS"]) for row in rows] == [("binance", 2.0), ("bybit", 0.4), ("hyperliquid", 0.4)]
    assert missing[0].startswith("Hyperliquid: no public liquidation feed")
    assert missing[1] == "Binance: not every liquidation is sent, sums are a lower bound."
    assert missing[2] == "Not live now: Bybit (DOWN)."
