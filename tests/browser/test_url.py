"""`url.js`: settings in the address, there and back."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

SYMBOLS = ["BTC", "ETH", "SOL"]
FULL = {
    "symbol": "ETH", "range": "4h", "map": None, "depth": False, "candles": False, "realised": False, "zones": False,
    "profile": False, "heat": False, "opacityMap": 0.35, "opacityDepth": 1, "palette": "cividis", "theme": "light", "mapLo": 2500,
    "mapHi": 40_000_000, "bookLo": 100, "bookHi": 1_000_000_000, "gamma": 0.45, "log": False, "lockP99": False,
    "tiers": [25, 100], "venues": ["binance", "okx"], "minUsd": 250_000.5, "alertPct": 0.25, "alertUsd": 5_000_000,
    "panel": "venues",
}  # fmt: skip


def read(page: Page, search: str) -> Any:
    return page.evaluate("async ([s, symbols]) => (await import('/src/url.js')).stateOfUrl(s, symbols)", [search, SYMBOLS])


def write(page: Page, patch: dict[str, Any]) -> str:
    return str(
        page.evaluate(
            """async (patch) => {
                const [{ urlOfState }, { DEFAULTS }] = await Promise.all([import('/src/url.js'), import('/src/store.js')]);
                return urlOfState({ ...DEFAULTS, ...patch });
            }""",
            patch,
        )
    )


def test_everything_survives_the_way_there_and_back(module_page: Page) -> None:
    assert read(module_page, write(module_page, FULL)) == FULL


def test_every_single_setting_survives_alone(module_page: Page) -> None:
    for key, value in FULL.items():
        assert read(module_page, write(module_page, {key: value})) == {key: value}, key


def test_only_what_differs_from_the_defaults_is_written(module_page: Page) -> None:
    assert write(module_page, {}) == ""
    assert write(module_page, {"symbol": "BTC", "badge": "LIVE", "paused": True, "mark": 5.0}) == "?symbol=BTC"
    assert write(module_page, {"symbol": "BTC", "tiers": [25, 50]}) == "?symbol=BTC&tiers=25,50"


INVALID = (
    "?symbol=DOGE", "?symbol=<script>", "?range=3d", "?range=12H", "?map=book", "?depth=yes", "?palette=jet", "?theme=blue",
    "?map_lo=-5", "?map_lo=1e5", "?map_lo=99", "?map_hi=2e9", "?map_hi=1000000001", "?gamma=0", "?gamma=NaN", "?gamma=Infinity",
    "?tiers=", "?tiers=25,x", "?tiers=0", "?tiers=25,,50", "?venues=binance,ftx", "?venues=", "?min_usd=-1", "?alert_pct=0",
    "?panel=admin", "?map_opacity=1.01", "?paused=1", "?__proto__=1", "?map_lo=500000&map_hi=500000", "?map_lo=20000000", "",
    "?symbol", "?%", "?tiers=" + ",".join(["1"] * 17),
)  # fmt: skip


def test_what_is_not_valid_is_left_out(module_page: Page) -> None:
    assert {search: read(module_page, search) for search in INVALID} == {search: {} for search in INVALID}


def test_spellings_become_one(module_page: Page) -> None:
    assert read(module_page, "?symbol=btc&tiers=100,25,25&venues=okx,binance&map_hi=5000000.50") == {
        "symbol": "BTC", "tiers": [25, 100], "venues": ["binance", "okx"], "mapHi": 5_000_000.5,
    }  # fmt: skip


def test_no_symbol_that_the_server_does_not_name(module_page: Page) -> None:
    assert module_page.evaluate("async () => (await import('/src/url.js')).stateOfUrl('?symbol=BTC', [])") == {}
