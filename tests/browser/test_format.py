"""`format.js`: numbers, times, names as people read them; `timing.js`, `scale.js`, `keys.js`, `alerts.js`: what they decide."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page


def call(page: Page, module: str, name: str, *given: Any) -> Any:
    """What an exported function gives; NaN and Infinity cannot be handed over, null can."""
    return page.evaluate(
        "async ([module, name, given]) => (await import(`/src/${module}.js`))[name](...given)", [module, name, list(given)]
    )


def table(page: Page, name: str, cases: dict[Any, str]) -> None:
    found = page.evaluate(
        "async ([name, given]) => { const one = (await import('/src/format.js'))[name]; return given.map((value) => one(value)); }",
        [name, list(cases)],
    )
    assert dict(zip(cases, found, strict=True)) == cases


def test_amounts_have_two_significant_digits(module_page: Page) -> None:
    table(
        module_page,
        "compact",
        {0: "0", 7: "7", 99.6: "100", 340_123: "340k", 999_600: "1M", 1_240_000: "1.2M", 12_600_000: "13M", 2.5e9: "2.5B",
         3e12: "3T", -1500: "−1.5k", None: "–"},
    )  # fmt: skip
    table(module_page, "about", {53_400_000: "≈ $53M", None: "–"})
    table(module_page, "exactUsd", {15_704.9: "$15,705", 0: "$0", None: "–"})


def test_prices_have_the_digits_that_their_size_calls_for(module_page: Page) -> None:
    table(
        module_page,
        "price",
        {65_892.74: "65,892.7", 3104.256: "3,104.26", 152.3: "152.30", 1.23456: "1.235", 0.12345: "0.1235", 0.00001234: "0.000012",
         None: "–"},
    )  # fmt: skip


def test_distances_carry_their_sign(module_page: Page) -> None:
    table(module_page, "signedPercent", {1.236: "+1.24%", -0.5: "−0.50%", 0.001: "0.00%", -0.001: "0.00%", None: "–"})
    assert call(module_page, "format", "distance", 101, 100) == pytest.approx(1)
    assert call(module_page, "format", "distance", 101, None) is None
    assert call(module_page, "format", "distance", 101, 0) is None


def test_times_are_utc_and_ages_are_short(module_page: Page) -> None:
    at = 1_795_200_123_000
    assert call(module_page, "format", "clock", at, True) == "18:42:03"
    assert call(module_page, "format", "stamp", at) == "20 Nov 18:42"
    assert call(module_page, "format", "stamp", None) == "–"
    ages = {-3: "0 s", 0.9: "0 s", 99: "99 s", 100: "2 min", 5999: "100 min", 6000: "2 h", 172_800: "2 d", None: "–"}
    table(module_page, "age", ages)
    table(module_page, "lag", {12.4: "12 ms", 1430: "1.4 s", -40: "−40 ms", -0.2: "0 ms", None: "–"})


@pytest.mark.parametrize(
    ("text", "usd"),
    [("250k", 250_000), ("1.5 M", 1_500_000), ("$2m", 2_000_000), ("1,000,000", 1e6), ("1e6", 1e6), ("0", 0), ("3B", 3e9)],
)
def test_amounts_are_read_as_people_type_them(module_page: Page, text: str, usd: float) -> None:
    assert call(module_page, "format", "parseUsd", text) == pytest.approx(usd)


@pytest.mark.parametrize("text", ["", "abc", "-5", "1.2.3", "5kk", "1e999", "Infinity", "<b>", "k"])
def test_what_is_no_amount_is_none(module_page: Page, text: str) -> None:
    assert call(module_page, "format", "parseUsd", text) is None


def test_venues_tell_what_their_feed_leaves_out(module_page: Page) -> None:
    assert call(module_page, "format", "venuesOfBits", 1 | 4 | 16) == ["Binance", "OKX", "Bitget"]
    assert call(module_page, "format", "bitOfVenue", "hyperliquid") == 0
    largest = call(module_page, "format", "feedText", "largest_1s")
    assert largest == {"text": "only the largest of each second", "bound": True, "none": False}
    assert call(module_page, "format", "feedText", "none") == {"text": "no public liquidation feed", "bound": True, "none": True}
    assert call(module_page, "format", "feedText", None)["bound"] is False


def test_the_leverage_mix_is_shares_largest_first(module_page: Page) -> None:
    assert call(module_page, "format", "mixText", {"100": 2.85, "125": 0.15}) == "100× 95%, 125× 5%"
    many = {"5": 1, "10": 2, "20": 3, "50": 4, "100": 0.001}
    assert call(module_page, "format", "mixText", many) == "50× 40%, 20× 30%, 10× 20%, +1"
    assert call(module_page, "format", "mixText", {}) == "no tiers"


def test_a_quiet_function_says_the_first_and_the_last(module_page: Page) -> None:
    said = module_page.evaluate(
        """async () => {
          const { atMost } = await import('/src/timing.js');
          const said = [], waiting = [];
          const real = window.setTimeout;
          window.setTimeout = (run) => waiting.push(run);
          const say = atMost(5000, (text) => said.push(text));
          say('a'); say('b'); say('c');
          const first = [...said];
          waiting.shift()();
          const second = [...said];
          waiting.shift()();
          say('d');
          window.setTimeout = real;
          return [first, second, said, waiting.length];
        }"""
    )
    assert said == [["a"], ["a", "c"], ["a", "c", "d"], 1]


STATE = {"mapLo": 10_000, "mapHi": 10_000_000, "bookLo": 5_000, "bookHi": 2_000_000, "gamma": 1, "log": True, "lockP99": True}


def test_a_locked_scale_follows_what_is_seen_but_not_its_noise(module_page: Page) -> None:
    before = {"map": None, "depth": None}
    tops = call(module_page, "scale", "follow", before, {"map": 4_321_000, "depth": None})
    assert tops == {"map": 4_300_000, "depth": None}
    assert call(module_page, "scale", "follow", tops, {"map": 4_600_000, "depth": None}) == tops
    assert call(module_page, "scale", "follow", tops, {"map": 9_000_000, "depth": 40_000})["map"] == 9_000_000
    scales = call(module_page, "scale", "scalesOf", STATE, {"map": 4_300_000, "depth": 40_000})
    assert (scales["map"]["loUsd"], scales["map"]["hiUsd"]) == (10_000, 4_300_000)
    assert (scales["depth"]["loUsd"], scales["depth"]["hiUsd"]) == (800, 40_000), "a quiet market still has shades"
    pinned = call(module_page, "scale", "scalesOf", {**STATE, "lockP99": False}, {"map": 4_300_000, "depth": 40_000})
    assert (pinned["map"]["hiUsd"], pinned["depth"]["hiUsd"]) == (10_000_000, 2_000_000)


def test_a_moved_end_pins_all_scales_as_they_are_shown_and_does_not_cross(module_page: Page) -> None:
    shown = {"map": {"loUsd": 10_000, "hiUsd": 4_300_000}, "depth": {"loUsd": 800, "hiUsd": 40_000}}
    patch = call(module_page, "scale", "pinned", shown, "map", "hi", 1_234_567)
    assert patch == {"lockP99": False, "mapLo": 10_000, "mapHi": 1_200_000, "bookLo": 800, "bookHi": 40_000}
    crossed = call(module_page, "scale", "pinned", shown, "depth", "lo", 90_000)
    assert crossed["bookLo"] < crossed["bookHi"] == 40_000
    crossed = call(module_page, "scale", "pinned", shown, "depth", "hi", 100)
    assert crossed["bookLo"] == 800 < crossed["bookHi"]


def press(key: str, **held: bool) -> dict[str, Any]:
    return {"key": key, "shiftKey": False, "ctrlKey": False, "altKey": False, "metaKey": False, **held}


@pytest.mark.parametrize(
    ("pressed", "action"),
    [
        (press(" "), {"command": "pause"}),
        (press("L", shiftKey=True), {"command": "map"}),
        (press("h"), {"command": "heat"}),
        (press("?", shiftKey=True), {"command": "help"}),
        (press("2"), {"symbol": 1}),
        (press("ArrowLeft"), {"cursor": [-1, 0]}),
        (press("ArrowUp", shiftKey=True), {"pan": [0, 10]}),
        (press("r", ctrlKey=True), None),
        (press("b", metaKey=True), None),
        (press("x"), None),
        (press("0"), None),
    ],
)
def test_keys(module_page: Page, pressed: dict[str, Any], action: dict[str, Any] | None) -> None:
    assert call(module_page, "keys", "actionOf", pressed) == action


def test_what_has_the_focus_keeps_its_own_keys(module_page: Page) -> None:
    taken = module_page.evaluate(
        """async () => {
          const { taken } = await import('/src/keys.js');
          document.body.innerHTML = '<input id=t type=text><input id=r type=radio><button id=b></button><p id=c tabindex=0>';
          const at = (id) => document.getElementById(id);
          const pressed = [['t', 'b'], ['t', ' '], ['t', 'Escape'], ['r', 'ArrowLeft'], ['r', 'b'], ['b', ' '], ['b', 'b']];
          return [...pressed, ['c', ' '], ['c', 'ArrowLeft']]
            .map(([id, key]) => taken(at(id), key));
        }"""
    )
    assert taken == [True, True, False, True, False, True, False, False, False]


ZONES = [
    {"id": "far", "price": 110.0, "side": "short", "notional_usd": 9e6},
    {"id": "near", "price": 100.4, "side": "short", "notional_usd": 2e6},
    {"id": "nearer", "price": 99.8, "side": "long", "notional_usd": 1e6},
    {"id": "small", "price": 100.1, "side": "short", "notional_usd": 1e3},
]


def test_each_zone_is_told_once_in_a_quarter_of_an_hour(module_page: Page) -> None:
    told = module_page.evaluate(
        """async (zones) => {
          const { due, AGAIN_MS } = await import('/src/alerts.js');
          const told = new Map();
          const at = (nowMs, pct = 0.5, mark = 100) => due({ zones, mark, pct, usd: 1e6, told, nowMs }).map((zone) => zone.id);
          const first = [at(0), at(1000), at(AGAIN_MS - 1), at(AGAIN_MS)];
          return [...first, at(3 * AGAIN_MS, null), at(4 * AGAIN_MS, 0.5, null), at(5 * AGAIN_MS, 0.25)];
        }""",
        ZONES,
    )
    assert told == [["nearer", "near"], [], [], ["nearer", "near"], [], [], ["nearer"]]
