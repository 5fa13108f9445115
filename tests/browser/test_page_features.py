"""Every feature of the page (`spec: dashboard`, section 6) driven by keyboard, mouse and touch, on a real server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.api.world import zone_row
from tests.browser.backend import Backend
from tests.browser.compare import pixels
from tests.browser.person import PLAIN, WITHIN_MS, Person, cells_of_heatmap, painted

pytestmark = pytest.mark.slow

CREDIT = "Charts: TradingView Lightweight Charts™ © 2023–2026 TradingView, Inc."


_TOO_WIDE = """(width) => [...document.querySelectorAll("body *")]
  .filter((one) => one.checkVisibility() && !one.closest(".vh, .skip, [popover], dialog, #chart, .panel, #tape-body"))
  .filter((one) => one.getBoundingClientRect().right > width + 1)
  .map((one) => one.id || one.outerHTML.slice(0, 80))"""
_NOTICES = """window.notices = [];
window.Notification = class {
  static permission = "granted";
  static requestPermission = async () => "granted";
  constructor(title, options) { window.notices.push([title, options.body]); }
};"""
_TEXTS = """{ const fill = CanvasRenderingContext2D.prototype.fillText;
window.texts = [];
CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
  window.texts.push(text);
  return fill.call(this, text, ...rest);
}; }"""


@pytest.fixture
def person(open_page: Callable[..., Page], backend: Backend) -> Person:
    return Person(open_page(), backend)


def moved(before: bytes, after: bytes) -> float:
    """Share of pixels that differ."""
    return float((np.abs(pixels(before).astype(int) - pixels(after)).max(axis=2) > 8).mean())


# layers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "name", "parameter"),
    [("b", "depth", "depth"), ("c", "candles", "candles"), ("o", "realised", "realised"), ("h", "heat", "heat")],
)
def test_keys_and_switches_turn_layers_off_and_on(person: Person, key: str, name: str, parameter: str) -> None:
    person.open(range="1h")
    person.locator("#chart").focus()
    person.away()
    full = person.picture()
    person.press(key)
    expect(person.locator(f"#layer-{name}")).not_to_be_checked()
    without = person.picture()
    assert moved(full, without) > 0.001
    person.page.wait_for_url(re.compile(f"{parameter}=0"))
    person.toggle(name)
    person.away()
    assert moved(full, person.picture()) < 0.002
    person.page.wait_for_url(re.compile(f"^((?!{parameter}=).)*$"))


def test_the_map_is_combined_tape_projected_or_off(person: Person, backend: Backend, tmp_path: Path) -> None:
    person.open(range="1h", depth=0)
    for layer in ("tape", "projected", "liq"):
        person.choose("maps", layer)
        person.until(lambda wanted=layer: person.triplets(tmp_path)["origin"]["map"] == wanted, f"the {layer} map")  # type: ignore[misc]
        rows = person.rows(tmp_path)
        assert {row["layer"] for row in rows} <= {f"map_{layer}", "realised"}
        wanted = cells_of_heatmap(backend.json(f"/heatmap?symbol=BTC&minutes=60&dt_s=60&layers={layer}"), layer, f"map_{layer}")
        for row in rows[:: max(1, len(rows) // 200)]:
            if row["layer"] != "realised":
                usd = wanted[row["layer"], row["side"], int(row["time_ms"]), float(row["price_usd"])]
                assert float(row["amount_usd"]) == pytest.approx(usd, rel=1e-2)
    person.press("l")
    expect(person.locator("#maps-none")).to_be_checked()
    assert "map_liq" not in {row["layer"] for row in person.rows(tmp_path)}
    person.press("l")
    expect(person.locator("#maps-liq")).to_be_checked()


def test_a_new_minute_reaches_the_tape_layer_too(person: Person, backend: Backend, tmp_path: Path) -> None:
    person.open(range="1h", map="tape", depth=0)
    backend.minute()
    newest = backend.json("/heatmap?symbol=BTC&minutes=5&dt_s=60&layers=tape")
    last_ms = newest["t0_ms"] + (newest["cols"] - 1) * newest["dt_ms"]
    person.until(lambda: max(int(row["time_ms"]) for row in person.rows(tmp_path)) == last_ms, "the newest column of the tape map")


def test_opacity_is_per_layer(person: Person) -> None:
    person.open(range="1h", **{**PLAIN, "depth": 0})
    before = person.picture()
    person.settings()
    person.locator("#opacity-map").fill("20")
    person.locator("#opacity-depth").fill("80")
    person.press("Escape")
    person.away()
    assert moved(before, person.picture()) > 0.2
    person.page.wait_for_url(re.compile(r"map_opacity=0\.2"))
    assert person.query["book_opacity"] == "0.8"


# cross-hair -------------------------------------------------------------------------------------------------------------


def test_the_cross_hair_reads_price_time_sides_and_neighbours(person: Person, backend: Backend) -> None:
    person.open(range="1h", lock=0)
    body = backend.json("/heatmap?symbol=BTC&minutes=60&dt_s=60&layers=liq,depth")
    cells = {**cells_of_heatmap(body, "liq", "map"), **cells_of_heatmap(body, "depth", "book")}
    for across, up in ((0.3, 0.8), (0.5, 0.15), (0.6, 0.62)):
        person.point(across, up)
        reading = person.reading()
        price = round(round(reading["price"] / 20) * 20.0, 8)
        assert abs(price - reading["price"]) < 10.01
        found = re.search(r"(\d\d) (\w{3}) (\d\d):(\d\d)", reading["when"])
        assert found, reading["when"]
        minute = int(found[3]) * 60 + int(found[4])
        (time_ms,) = {key[2] for key in cells if key[2] // 60_000 % 1440 == minute}
        for name, layer, side in (
            ("Shorts", "map", "short"),
            ("Longs", "map", "long"),
            ("Asks", "book", "ask"),
            ("Bids", "book", "bid"),
        ):
            for at, text in zip((-1, 0, 1), reading["cells"][name]):
                assert_usd(text, cells.get((layer, side, time_ms + at * 60_000, price), 0.0))
        assert re.search(r"[+−]\d+\.\d+% from mark", reading["lead"])
        assert re.search(r"\d+ (s|min|h) old", reading["when"])
        assert {"Zone here", "Candle"} <= reading["facts"].keys()


def assert_usd(text: str, usd: float) -> None:
    """A read-out of two significant digits says this amount."""
    if usd == 0:
        assert text in ("0", "–"), (text, usd)
        return
    found = re.fullmatch(r"≈ \$?([\d.]+)([kMB]?)", text)
    assert found, (text, usd)
    assert float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "B": 1e9}[found[2]] == pytest.approx(usd, rel=0.06), (text, usd)


def test_the_cross_hair_of_the_keyboard_is_spoken(person: Person) -> None:
    person.open(range="1h")
    person.locator("#chart").focus()
    person.press("ArrowLeft", 3)
    person.press("ArrowUp", 2)
    expect(person.locator("#cursor-live")).to_contain_text(re.compile(r"shorts .*, longs "), timeout=WITHIN_MS)
    first = person.reading()
    person.press("ArrowUp")
    assert person.reading()["price"] == pytest.approx(first["price"] + 20, abs=0.01)
    person.press("Escape")
    person.see("#readout-body", "Point at the chart")


def test_a_zone_under_the_cross_hair_shows_its_leverage_mix(person: Person, backend: Backend) -> None:
    price = round(backend.symbols["BTC"].market.price / 20) * 20.0 + 200
    backend.set_zones([zone_row(side="short", price=price, projected_usd=9e6)])
    person.open(range="1h")
    person.see("#zones-table caption", "1 estimated zone")
    person.locator("#chart").focus()
    person.press("ArrowLeft")
    current = person.reading()["price"]
    steps = round((price - round(current / 20) * 20) / 20)
    person.press("ArrowUp" if steps > 0 else "ArrowDown", abs(steps))
    assert "100× 95%, 125× 5%" in person.reading()["facts"]["Zone here"]


def test_realised_liquidations_are_bubbles_and_a_list(person: Person, backend: Backend) -> None:
    person.open(range="1h")
    backend.add_liquidations(count=3)
    person.see("#tape-body", "$75,000")
    rows = person.locator("#tape-table tbody tr")
    assert [rows.nth(at).locator("td").nth(1).inner_text() for at in range(3)] == ["OKX", "Bybit", "Binance"]


# scale and look ---------------------------------------------------------------------------------------------------------


def test_the_legend_is_a_scale_with_two_handles_and_fields(person: Person) -> None:
    person.open(range="1h", **{**PLAIN, "depth": 0})
    asked: list[str] = []

    def note(request: Any) -> None:
        asked.append(request.url)

    person.page.on("request", note)
    before = person.picture()
    person.locator("#legend-map input.lo[type=range]").focus()
    person.press("ArrowRight", 12)
    person.away()
    assert moved(before, person.picture()) > 0.01
    expect(person.locator("#lock")).not_to_be_checked()
    field = person.locator("#legend-map-hi")
    field.fill("20M")
    field.press("Enter")
    person.page.wait_for_url(re.compile("map_hi=20000000"))
    expect(person.locator("#legend-map input.hi[type=range]")).to_have_attribute("aria-valuetext", "20M USD")
    field.fill("nonsense")
    field.press("Enter")
    expect(field).to_have_value("20M")
    before = person.picture()
    person.locator("#log").uncheck()
    painted(person.page)
    assert moved(before, person.picture()) > 0.01
    assert person.query["log"] == "0"
    assert [url for url in asked if "/static/" not in url] == [], "colours never ask the server"


def test_the_lock_follows_the_99th_percentile_of_the_view(person: Person, backend: Backend) -> None:
    person.open(range="1h", depth=0)
    top = person.locator("#legend-map input.hi[type=range]")
    expect(top).not_to_have_attribute("aria-valuetext", "10M USD", timeout=WITHIN_MS)
    person.locator("#lock").uncheck()
    assert "lock=0" in person.page.evaluate("new Promise((done) => setTimeout(() => done(location.search), 400))")
    expect(top).to_have_attribute("aria-valuetext", "10M USD")


@pytest.mark.parametrize("palette", ["inferno", "cividis", "mono"])
def test_palettes(person: Person, palette: str) -> None:
    person.open(range="1h")
    before = person.picture()
    person.settings()
    person.locator("#palette").select_option(palette)
    person.press("Escape")
    person.away()
    assert moved(before, person.picture()) > 0.2
    person.page.wait_for_url(re.compile(f"palette={palette}"))


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_theme_is_the_systems_until_one_is_chosen(open_page: Callable[..., Page], backend: Backend, scheme: Any) -> None:
    person = Person(open_page(color_scheme=scheme), backend).open(range="1h")
    background = "getComputedStyle(document.body).backgroundColor"
    bright = sum(map(int, re.findall(r"\d+", person.page.evaluate(background))[:3])) > 384
    assert bright == (scheme == "light")
    before = person.picture()
    other = "light" if scheme == "dark" else "dark"
    person.settings()
    person.locator("#theme").select_option(other)
    person.page.wait_for_url(re.compile(f"theme={other}"))
    assert (sum(map(int, re.findall(r"\d+", person.page.evaluate(background))[:3])) > 384) == (other == "light")
    person.press("Escape")
    person.away()
    assert moved(before, person.picture()) > 0.5


# filters, symbols, ranges, address --------------------------------------------------------------------------------------


def test_tiers_filter_zones_and_venues_filter_bubbles(person: Person, backend: Backend) -> None:
    person.open(range="1h")
    low, high = zone_row(price=60_000.0, tier_contributions={"20": 1.0}), zone_row(price=61_000.0, tier_contributions={"100": 1.0})
    backend.set_zones([low, high])
    person.see("#zones-table caption", "2 estimated zones")
    person.settings()
    person.page.get_by_role("checkbox", name="20×").uncheck()
    person.see("#zones-table caption", "1 estimated zone")
    person.see("#zones-table tbody", "61,000")
    asked: list[str] = []

    def note(request: Any) -> None:
        asked.append(request.url)

    person.page.on("request", note)
    person.page.get_by_role("checkbox", name="OKX").uncheck()
    person.until(lambda: any("venues=" in url and "okx" not in url.split("venues=")[1] for url in asked), "a filter of the server")
    assert "okx" not in person.query["venues"]


def test_number_keys_choose_symbols_and_the_address_follows(person: Person) -> None:
    person.open(range="1h")
    for key, symbol, price in (("2", "ETH", "3,4"), ("3", "SOL", "1"), ("1", "BTC", "6")):
        person.press(key)
        expect(person.locator(f"#symbols-{symbol}")).to_be_checked()
        person.see("#mark", re.compile(f"^{price}"))
        person.settled()
        assert person.query["symbol"] == symbol


@pytest.mark.parametrize(("name", "columns"), [("1h", 60), ("4h", 240), ("12h", 720), ("1d", 389)])
def test_ranges(person: Person, tmp_path: Path, name: str, columns: int) -> None:
    """A day has columns of two minutes, and the server has half of one."""
    """Of a day there is half: the first view is of that."""
    person.open(range="1h" if name != "1h" else "4h")
    person.choose("ranges", name)
    person.settled()
    person.until(lambda: abs(len(person.triplets(tmp_path)["x_axis_ms"]) - columns) <= columns * 0.05, f"{columns} columns")
    assert person.query.get("range", "12h") == name


def test_the_address_brings_the_same_page_back(person: Person, open_page: Callable[..., Page], backend: Backend) -> None:
    given = {
        "symbol": "ETH", "range": "4h", "map": "projected", "candles": "0", "profile": "0", "palette": "cividis", "theme": "light",
        "lock": "0", "map_lo": "5000", "map_hi": "2000000", "gamma": "0.7", "tiers": "50,100", "min_usd": "10000",
        "panel": "venues",
    }  # fmt: skip
    person.open(**given)
    assert person.query == given
    person.press("b")
    person.page.wait_for_url(re.compile("depth=0"))
    other = Person(open_page(), backend).open(**person.query)
    assert other.query == person.query
    assert moved(person.picture(), other.picture()) < 0.01


def test_what_an_address_says_that_is_not_known_is_neither_used_nor_shown(person: Person) -> None:
    wrong = "<img src=x onerror=alert(1)>"
    person.open(
        symbol=wrong, range=wrong, map=wrong, palette=wrong, tiers=wrong, panel=wrong, map_lo="1e99", theme=wrong, nonsense=wrong
    )
    assert wrong not in person.page.content() and "onerror" not in person.page.content()
    expect(person.locator("#symbols-BTC")).to_be_checked()
    expect(person.locator("#ranges-12h")).to_be_checked()
    person.press("b")
    person.page.wait_for_url(re.compile("depth=0"))
    assert set(person.query) == {"symbol", "depth"}


# zones ------------------------------------------------------------------------------------------------------------------


def test_the_table_of_zones_is_what_the_server_says_and_sorts(person: Person, backend: Backend) -> None:
    person.open(range="1h")
    zones = backend.json("/liq_zones?symbol=BTC")["zones"]
    rows = person.locator("#zones-table tbody tr")
    expect(rows).to_have_count(len(zones), timeout=WITHIN_MS)
    shown = {float(text.replace(",", "")) for text in person.locator("#zones-table button.jump").all_inner_texts()}
    assert shown == {zone["price"] for zone in zones}
    head = person.locator("#zones-table th[data-key=price]")
    head.locator("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    prices = [float(text.replace(",", "")) for text in person.locator("#zones-table button.jump").all_inner_texts()]
    assert prices == sorted(prices, reverse=True)
    head.locator("button").press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    heads = person.locator("#zones-table thead th").all_inner_texts()
    assert [text.split()[0].strip("≈↓↑ ") or "USD" for text in heads][:1] == ["Price"]
    assert "estimated" in person.text("#zones-table caption")


def test_a_click_on_a_zone_takes_the_chart_to_its_price(person: Person) -> None:
    person.open(range="1h")
    person.locator("#zones-table th[data-key=price] button").click()
    target = person.locator("#zones-table button.jump").first
    price = float(target.inner_text().replace(",", ""))
    target.press("Enter")
    painted(person.page)
    person.point(0.4, 0.5)
    assert person.reading()["price"] == pytest.approx(price, rel=0.01)


def test_zones_come_and_go_as_they_are_published(person: Person, backend: Backend) -> None:
    person.open(range="1h")
    backend.set_zones([zone_row(price=60_000.0), zone_row(side="short", price=70_000.0)])
    person.see("#zones-table caption", "2 estimated zones")
    backend.set_zones([zone_row(side="short", price=70_000.0)])
    person.see("#zones-table caption", "1 estimated zone")
    person.see("#zones-table tbody", "70,000")
    backend.set_zones([])
    person.see("#panel-zones", "No zones yet")


# panels -----------------------------------------------------------------------------------------------------------------


def test_panels_are_tabs(person: Person) -> None:
    person.open(range="1h")
    person.locator("#tab-zones").focus()
    person.press("ArrowRight", 2)
    expect(person.locator("#tab-assumptions")).to_be_focused()
    expect(person.locator("#panel-assumptions")).to_be_visible()
    person.see("#panel-assumptions", "oi-taker-ladder/1")
    person.see("#panel-assumptions", "estimated")
    assert person.locator("#tiers-table tr").count() >= 3
    person.press("End")
    person.see("#panel-guide", "Hatched")
    assert person.query["panel"] == "guide"


def test_accuracy_says_that_nothing_is_measured_here(person: Person) -> None:
    person.open(range="1h", panel="accuracy")
    person.see("#panel-accuracy", "Not measured on this server yet")
    assert person.backend.get("/score")[0] == 404


def test_origin_says_estimated_since_when_and_by_what(person: Person) -> None:
    person.open(range="1h")
    person.see("#origin", "estimated")
    person.see("#origin", "oi-taker-ladder/1")
    person.see("#origin", re.compile(r"data since \d+ \w+ \d\d:\d\d"))


# keys -------------------------------------------------------------------------------------------------------------------


def test_keys_move_zoom_and_bring_back(person: Person) -> None:
    person.open(range="4h")
    person.locator("#chart").focus()
    person.away()
    home = person.picture()
    for keys in (("+",), ("-",), ("Shift+ArrowLeft",), ("Shift+ArrowUp",)):
        person.press(keys[0], 3)
        assert moved(home, person.picture()) > 0.02, keys
        person.press("r")
        assert moved(home, person.picture()) < 0.01, keys


def test_help_lists_every_key_and_closes(person: Person) -> None:
    person.open(range="1h")
    person.press("?")
    expect(person.locator("#help")).to_be_visible()
    text = person.text("#help-keys")
    for word in ("Space", "Shift", "Esc", "?", "L", "B", "C", "O", "H", "R", "+"):
        assert word in text
    person.press("Escape")
    expect(person.locator("#help")).to_be_hidden()
    person.locator("#help-open").click()
    person.locator("#help-close").click()
    expect(person.locator("#help")).to_be_hidden()


def test_single_keys_can_be_switched_off(person: Person) -> None:
    person.open(range="1h")
    person.press("?")
    person.locator("#keys-on").uncheck()
    person.press("Escape")
    person.press("b")
    expect(person.locator("#layer-depth")).to_be_checked()
    person.page.reload()
    person.settled()
    person.press("b")
    expect(person.locator("#layer-depth")).to_be_checked()


def test_keys_are_left_alone_in_fields(person: Person) -> None:
    person.open(range="1h")
    field = person.locator("#legend-map-lo")
    field.focus()
    person.page.keyboard.type(" bh1")
    expect(person.locator("#layer-depth")).to_be_checked()
    assert person.text("#badge-word") == "LIVE"


def test_everything_is_reached_by_tab(person: Person) -> None:
    person.open(range="1h")
    wanted = ["chart", "pause", "export-open", "controls-open", "help-open", "tab-zones", "lock", "log"]
    seen: list[str] = []
    for _ in range(90):
        person.page.keyboard.press("Tab")
        seen.append(person.page.evaluate("document.activeElement.id"))
    assert set(wanted) <= set(seen), set(wanted) - set(seen)
    person.locator("#help-open").focus()
    outline = person.page.evaluate("() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle; }")
    assert outline != "none"


# mouse and touch --------------------------------------------------------------------------------------------------------


def test_drag_moves_and_the_wheel_zooms(person: Person) -> None:
    person.open(range="4h")
    person.locator("#chart").focus()
    person.away()
    home = person.picture()
    x, y = person.point(0.5, 0.5)
    person.page.mouse.down()
    person.page.mouse.move(x + 200, y, steps=5)
    person.page.mouse.up()
    person.away()
    assert moved(home, person.picture()) > 0.02
    person.press("r")
    person.point(0.5, 0.5)
    person.page.mouse.wheel(0, -400)
    person.away()
    assert moved(home, person.picture()) > 0.02


def test_touch_drags_and_pinches(open_page: Callable[..., Page], backend: Backend, tmp_path: Path) -> None:
    person = Person(open_page(390, 844, has_touch=True, is_mobile=True), backend).open(range="4h")
    before = len(person.triplets(tmp_path)["x_axis_ms"])
    person.press("Escape")
    box, devtools = person.pane(), person.page.context.new_cdp_session(person.page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *points: tuple[float, float]) -> None:
        given = [{"x": one, "y": other, "id": at} for at, (one, other) in enumerate(points)]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    touch("touchStart", (x - 30, y), (x + 30, y))
    for away in range(40, 150, 10):
        touch("touchMove", (x - away, y), (x + away, y))
    touch("touchEnd")
    person.until(lambda: len(person.triplets(tmp_path)["x_axis_ms"]) < before * 0.8, "fewer columns after a pinch")


@pytest.mark.parametrize("width", [360, 390, 820])
def test_narrow_pages_need_no_scrolling_sideways(open_page: Callable[..., Page], backend: Backend, width: int) -> None:
    person = Person(open_page(width, 800, has_touch=True, is_mobile=True), backend).open(range="1h")
    assert person.page.evaluate("document.documentElement.scrollWidth") <= width
    wide = person.page.evaluate(_TOO_WIDE, width)
    assert wide == []
    credit = person.locator("#credit a")
    credit.scroll_into_view_if_needed()
    expect(credit).to_be_visible()
    expect(credit).to_have_text(CREDIT)
    expect(credit).to_have_attribute("href", "https://www.tradingview.com/")
    for selector in ("#badge", "#pause", "#chart", "#symbols", "#ranges"):
        expect(person.locator(selector)).to_be_visible()


def test_twice_as_large_text_still_fits(open_page: Callable[..., Page], backend: Backend) -> None:
    person = Person(open_page(720, 450), backend).open(range="1h")  # 200 % of 1440x900
    assert person.page.evaluate("document.documentElement.scrollWidth") <= 720
    expect(person.locator("#badge")).to_be_visible()


def test_reduced_motion_animates_nothing(open_page: Callable[..., Page], backend: Backend) -> None:
    person = Person(open_page(reduced_motion="reduce"), backend).open(range="1h")
    person.locator("#zones-table button.jump").first.click()
    person.press("?")
    moving = person.page.evaluate("document.getAnimations().filter((one) => one.playState === 'running').length")
    assert moving == 0


# alerts -----------------------------------------------------------------------------------------------------------------


def near(backend: Backend, usd: float) -> Any:
    return zone_row(side="short", price=round(backend.symbols["BTC"].market.price * 1.001 / 20) * 20.0, projected_usd=usd)


def test_an_alert_is_a_notice_in_the_page_without_permission(person: Person, backend: Backend) -> None:
    person.open(range="1h", alert_pct=0.5, alert_usd=5_000_000)
    backend.set_zones([near(backend, 1e6)])
    person.see("#zones-table caption", "1 estimated zone")
    assert person.locator("#notices").inner_text() == ""
    backend.set_zones([near(backend, 9e6)])
    person.see("#notices", re.compile(r"BTC .*≈ \$?9.*shorts above at .*estimated"))
    backend.set_zones([near(backend, 9.1e6)])
    painted(person.page)
    assert person.locator("#notices > *").count() == 1, "the same zone is told once"


def test_an_alert_is_a_notice_of_the_system_where_allowed(person: Person, backend: Backend) -> None:
    person.page.add_init_script(_NOTICES)
    person.open(range="1h")
    person.settings()
    person.locator("#alert-on").check()
    person.press("Escape")
    backend.set_zones([near(backend, 9e6)])
    person.until(lambda: person.page.evaluate("window.notices.length"), "a notice of the system")
    assert "shorts above" in person.page.evaluate("window.notices[0][1]")


# exports ----------------------------------------------------------------------------------------------------------------


def test_the_csv_is_what_the_server_says(person: Person, backend: Backend, tmp_path: Path) -> None:
    person.open(range="1h")
    path = person.export("csv", tmp_path)
    assert re.fullmatch(r"mpengine-BTC-\d{8}T\d{4}Z\.csv", path.name)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "estimated by oi-taker-ladder/1" in lines[0]
    assert lines[1] == "time_utc,time_ms,layer,side,price_usd,amount_usd,estimated"
    rows = person.rows(tmp_path)
    assert {row["layer"] for row in rows} == {"map_liq", "book", "realised"}
    assert {row["estimated"] for row in rows if row["layer"] == "book"} == {"0"}
    body = backend.json("/heatmap?symbol=BTC&minutes=60&dt_s=60&layers=realised")
    fields = body["realised"]["fields"]
    points = [dict(zip(fields, point)) for point in body["realised"]["points"]]
    wanted = {
        (body["t0_ms"] + one["col"] * 60_000, one["side"], round(body["price0"] + one["row"] * body["step"], 8)): one["usd"]
        for one in points
    }
    for row in rows:
        # Those of the running minute have no column at the server yet.
        if row["layer"] == "realised" and int(row["time_ms"]) < body["t0_ms"] + body["cols"] * 60_000:
            usd = wanted[int(row["time_ms"]), row["side"], float(row["price_usd"])]
            assert float(row["amount_usd"]) == pytest.approx(usd, abs=1.0)


def test_triplets_have_the_keys_that_scripts_know(person: Person, tmp_path: Path, backend: Backend) -> None:
    person.open(range="1h")
    found = person.triplets(tmp_path)
    x, y, usd = found["liquidation_leverage_data"][100]
    body = backend.json("/heatmap?symbol=BTC&minutes=60&dt_s=60&layers=liq")
    cells = cells_of_heatmap(body, "liq", "map")
    place = found["x_axis_ms"][x], found["y_axis"][y]
    assert usd == pytest.approx(sum(cells.get(("map", side, *place), 0.0) for side in ("long", "short")), rel=1e-3)
    candles = backend.json("/candles?symbol=BTC&limit=60")
    bars = {t // 1000: [o, h, low, c] for t, o, h, low, c in zip(*(candles[name] for name in "tohlc"))}
    assert len(found["price_candlesticks"]) >= 50
    for at, *bar in found["price_candlesticks"]:
        assert bar == bars[at]
    assert found["origin"]["estimated"] is True and found["origin"]["model"] == "oi-taker-ladder/1"


def test_the_picture_explains_itself(person: Person, tmp_path: Path) -> None:
    person.page.add_init_script(_TEXTS)
    person.open(range="1h")
    person.page.evaluate("window.texts.length = 0")
    path = person.export("png", tmp_path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    image = pixels(path.read_bytes())
    box = person.pane()
    height, width, _ = image.shape
    assert width >= box["width"] and height > box["height"] + 60, "the chart and lines above and below it"
    text = " ".join(person.page.evaluate("window.texts"))
    for word in ("BTC", "oi-taker-ladder/1", "stimated", "TradingView", "tradingview.com", "UTC", "to"):
        assert word in text, (word, text)
    head, foot = image[:60], image[-24:]
    assert head.std() > 5 and foot.std() > 5, "something is written there"
    strip = image[: round(height * 0.2), 12 : 2 * 255]
    assert len(np.unique(strip.reshape(-1, 3), axis=0)) > 60, "the colours of the scale"


def test_a_picture_of_a_sharp_screen_has_its_pixels(sharp_page: Page, backend: Backend, tmp_path: Path) -> None:
    person = Person(sharp_page, backend).open(range="1h")
    image = pixels(person.export("png", tmp_path).read_bytes())
    assert image.shape[1] >= 2 * person.pane()["width"]


# the page as a guest ----------------------------------------------------------------------------------------------------


def test_the_policy_is_kept_and_nothing_foreign_is_asked_for(person: Person) -> None:
    violations: list[str] = []

    def report(text: str) -> None:
        violations.append(text)

    person.page.expose_function("violated", report)
    person.page.add_init_script(
        "document.addEventListener('securitypolicyviolation', (one) => violated(one.violatedDirective + ' ' + one.blockedURI));"
    )
    person.open(range="1h")
    for panel in ("venues", "assumptions", "accuracy", "guide"):
        person.locator(f"#tab-{panel}").click()
    person.settings()
    person.press("Escape")
    person.press("?")
    assert violations == []
    styles = person.page.evaluate("[...document.querySelectorAll('style')].length")
    assert styles == 0


def test_symbols_named_by_the_server_cannot_break_the_page(person: Person) -> None:
    told = json.loads(person.open(range="1h").page.locator("meta[name=mpengine]").get_attribute("content") or "")
    assert told["symbols"] == ["BTC", "ETH", "SOL"] and told["keys"] is False


def test_a_wrong_clock_of_the_machine_does_not_matter(open_page: Callable[..., Page], backend: Backend) -> None:
    person = Person(open_page(), backend, clocked=False)
    person.open(range="1h")
    assert re.fullmatch(r"map \d+ s · book \d+ s", person.text("#badge-age"))
