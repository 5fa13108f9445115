"""Every row of the states (`spec: dashboard`, section 7) provoked from outside: badge, reason, live region, same cells after."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from tests.browser.backend import RESTARTED, Backend
from tests.browser.compare import pixels
from tests.browser.conftest import Complaints
from tests.browser.person import WITHIN_MS, Person, painted, same_as_server

pytestmark = pytest.mark.slow

SILENT_MS = 16_000
LOST = ("WebSocket connection to", "Failed to load resource", "net::ERR_", "ERR_CONNECTION")
"""What the browser itself writes to the console when a server goes away."""


@pytest.fixture
def person(open_page: Callable[..., Page], backend: Backend) -> Person:
    return Person(open_page(), backend)


@pytest.fixture
def driven(open_page: Callable[..., Page], backend: Backend) -> Person:
    """A page whose clock a test can push on."""
    page = open_page()
    page.clock.install(time=backend.now_ms / 1000)
    return Person(page, backend, clocked=False)


def announced(person: Person, text: str) -> None:
    """The polite live region says this sooner or later."""
    expect(person.locator("#live")).to_contain_text(text, timeout=WITHIN_MS)


def pushed(driven: Person, condition: Callable[[], object]) -> None:
    """Push the page's clock on by half seconds until something is so; answers of the server come in between."""

    def step() -> object:
        driven.page.clock.run_for(500)
        return condition()

    driven.until(step, "what time brings")


# LIVE -------------------------------------------------------------------------------------------------------------------


def test_live_says_so_and_its_ages_tick(person: Person) -> None:
    person.open(range="1h")
    assert person.text("#badge-word") == "LIVE"
    assert person.locator("#banner").is_hidden() and person.locator("#gap").is_hidden()
    expect(person.locator("#badge .icon.live")).to_be_visible()
    first = person.text("#badge-age")
    assert re.fullmatch(r"map \d+ s · book \d+ s", first), first
    expect(person.locator("#badge-age")).not_to_have_text(first, timeout=WITHIN_MS)


def test_new_columns_are_drawn_as_they_come(person: Person, backend: Backend, tmp_path: Path) -> None:
    person.open(range="1h")
    same_as_server(person, tmp_path)
    backend.minute()
    same_as_server(person, tmp_path)
    backend.depth_column()
    same_as_server(person, tmp_path)
    person.settled()


# PAUSED -----------------------------------------------------------------------------------------------------------------


def test_paused_the_view_is_frozen_and_columns_are_counted(person: Person, backend: Backend, tmp_path: Path) -> None:
    backend.minute()  # so that the next one has both of its book columns
    person.open(range="1h")
    person.away()
    before = person.picture()
    person.press(" ")
    person.settled("PAUSED")
    expect(person.locator("#pause")).to_have_attribute("aria-pressed", "true")
    assert person.text("#badge-extra") == "+0"
    backend.minute()
    person.see("#badge-extra", "+3")  # a map column and two of the book
    assert person.picture() == before
    announced(person, "aused")
    person.press(" ")
    person.settled()
    same_as_server(person, tmp_path)
    assert person.picture() != before


def test_paused_for_longer_than_the_picture_resume_takes_a_new_one(person: Person, backend: Backend, tmp_path: Path) -> None:
    person.open(range="1h")
    asked: list[str] = []
    person.page.on("request", lambda one: asked.append(one.url) if "/heatmap" in one.url else None)
    person.locator("#pause").click()
    for _ in range(65):
        backend.minute("BTC")
    person.see("#badge", "PAUSED")
    full = "more came than fits"
    person.until(lambda: full in (person.locator("#badge").get_attribute("title") or ""), "more than the picture holds")
    assert asked == []
    person.locator("#pause").click()
    person.until(lambda: len(asked) >= 1, "a new picture is asked for")
    person.settled()
    assert "since_ms" not in asked[0]
    same_as_server(person, tmp_path)


def test_scrolling_back_pauses_nothing_and_offers_the_way_back(person: Person) -> None:
    person.open(range="12h")
    person.locator("#chart").focus()
    person.press("+", 6)
    person.press("Shift+ArrowLeft", 12)
    expect(person.locator("#newest")).to_be_visible()
    assert person.text("#badge-word") == "LIVE"
    person.locator("#newest").click()
    expect(person.locator("#newest")).to_be_hidden()


# STALE ------------------------------------------------------------------------------------------------------------------


def older(driven: Person, backend: Backend, seconds: int) -> None:
    """Time goes by for the server and the page, and only liquidations come."""
    driven.page.clock.fast_forward(seconds * 1000)
    backend.advance(seconds)
    backend.add_liquidations()


@pytest.mark.stress  # minutes of the server's clock in pieces; tests of the session have the quick form
def test_an_old_book_then_an_old_map_is_stale(driven: Person, backend: Backend, tmp_path: Path) -> None:
    driven.open(range="1h")
    driven.away()
    bright = pixels(driven.picture())
    older(driven, backend, 70)
    driven.settled("STALE")
    driven.see("#banner-text", "order book")
    announced(driven, "order book")
    expect(driven.locator("#badge .icon.stale")).to_be_visible()
    dimmed = pixels(driven.picture())
    assert dimmed.std() > 1, "never blank"
    assert np.abs(dimmed.astype(int) - bright).mean() > 2, "never the colour of LIVE"
    driven.toggle("depth")
    driven.settled()  # what is not shown cannot be stale
    older(driven, backend, 120)
    driven.settled("STALE")
    driven.see("#banner-text", "liquidation map")
    driven.toggle("depth")
    backend.minute()
    driven.settled()
    expect(driven.locator("#banner")).to_be_hidden()
    same_as_server(driven, tmp_path)


def test_stale_is_seen_while_paused(driven: Person, backend: Backend) -> None:
    driven.open(range="1h")
    driven.press(" ")
    driven.settled("PAUSED")
    older(driven, backend, 300)
    driven.see("#badge-extra", "also stale")
    expect(driven.locator("#banner")).to_be_visible()
    driven.see("#banner-text", re.compile("stale", re.IGNORECASE))


def test_a_silent_server_is_stale_with_the_reason(driven: Person, backend: Backend, complaints: Complaints, tmp_path: Path) -> None:
    complaints.allow += LOST
    driven.open(range="1h")
    driven.page.evaluate("window.stayed = true")
    with backend.hung():
        driven.page.clock.fast_forward(SILENT_MS)
        driven.settled("STALE")
        driven.see("#banner-text", re.compile(r"No message for 1[5-9] s"))
        announced(driven, "No message")
    pushed(driven, lambda: driven.text("#badge-word") == "LIVE")
    assert driven.page.evaluate("window.stayed")
    same_as_server(driven, tmp_path)


def test_a_stopped_server_is_stale_and_comes_back(driven: Person, backend: Backend, complaints: Complaints, tmp_path: Path) -> None:
    complaints.allow += LOST
    driven.open(range="1h")
    driven.page.evaluate("window.stayed = true")
    backend.stop()
    driven.page.clock.run_for(SILENT_MS)
    driven.settled("STALE")
    assert driven.locator("#chart canvas").count() > 0
    for _ in range(2):
        backend.minute()
    backend.start()
    pushed(driven, lambda: driven.text("#badge-word") == "LIVE")
    assert driven.page.evaluate("window.stayed"), "without a reload"
    same_as_server(driven, tmp_path)


def test_after_a_killed_worker_no_number_is_missing(
    person: Person, backend: Backend, complaints: Complaints, tmp_path: Path
) -> None:
    complaints.allow += LOST
    person.open(range="1h")
    person.page.evaluate("window.stayed = true")
    backend.minute()
    backend.kill_worker()
    backend.minute()
    backend.depth_column()
    same_as_server(person, tmp_path)
    person.settled()
    assert person.page.evaluate("window.stayed"), "without a reload"


def test_an_engine_that_restarts_is_told_and_loaded_anew(person: Person, backend: Backend, tmp_path: Path) -> None:
    person.open(range="1h")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)

    person.page.expose_function("said", say)
    person.page.evaluate(
        "() => { const [one, other] = ['#banner-text', '#gap-text'].map((id) => document.querySelector(id));"
        "new MutationObserver(() => said(one.textContent + other.textContent))"
        ".observe(document.querySelector('#chart-box'), {subtree: true, childList: true, characterData: true}); }"
    )
    backend.restart_engine()
    backend.minute(**RESTARTED)
    same_as_server(person, tmp_path)
    person.settled()
    person.until(lambda: any("restart" in one for one in said), "a word about the restart")


def test_the_first_minutes_of_a_symbol_are_warm_up(open_page: Callable[..., Page], complaints: Complaints) -> None:
    complaints.allow += LOST  # the 503 itself, and the server goes before the page
    with Backend.running(minutes={"BTC": 5}) as backend:
        person = Person(open_page(), backend).open(badge="STALE", symbol="ETH", range="1h")
        person.see("#banner-text", "warming up")
        announced(person, "warming up")
        backend.fill("ETH", 5)
        backend.rewind()
        expect(person.locator("#badge")).to_have_attribute("data-badge", "LIVE", timeout=70_000)


# gaps -------------------------------------------------------------------------------------------------------------------


class Wire:
    """The web socket of a page in the hands of a test: messages of one channel can be dropped or held back."""

    def __init__(self, page: Page) -> None:
        self.drop: Callable[[str], bool] = lambda name: False
        self.hold = False
        self.held: list[str | bytes] = []
        self.dropped = 0
        self.opened = 0
        self.names: dict[int, str] = {}
        page.route_web_socket(re.compile(r"/ws(\?|$)"), self._join)

    def _join(self, route: WebSocketRoute) -> None:
        self.opened += 1
        server = route.connect_to_server()
        self._page = route
        server.on_message(self._pass)

    def _pass(self, message: str | bytes) -> None:
        name = self._channel(message)
        if name and self.drop(name):
            self.dropped += 1
        elif name and self.hold and name.startswith(("liq.", "depth.")):
            self.held.append(message)
        else:
            self._page.send(message)

    def _channel(self, message: str | bytes) -> str:
        if isinstance(message, bytes):
            return self.names.get(int.from_bytes(message[8:10], "little"), "")
        found = json.loads(message)
        if found["type"] == "ack":
            self.names |= {one["no"]: name for name, one in found["channels"].items() if isinstance(one, dict) and "no" in one}
        return str(found.get("ch", ""))

    def release(self, *, backwards: bool) -> None:
        held, self.held, self.hold = self.held, [], False
        for message in reversed(held) if backwards else held:
            self._page.send(message)


@pytest.fixture
def wire(person: Person) -> Wire:
    return Wire(person.page)


def test_dropped_columns_raise_the_gap_banner_and_are_fetched(person: Person, wire: Wire, backend: Backend, tmp_path: Path) -> None:
    person.open(range="1h")
    refused: list[Route] = []

    def refuse(route: Route) -> None:
        refused.append(route)

    person.page.route("**/heatmap?*since_ms*", refuse)
    wire.drop = lambda name: name == "depth.BTC"
    backend.minute()
    person.until(lambda: wire.dropped >= 2, "dropped columns")
    wire.drop = lambda name: False
    backend.minute()
    expect(person.locator("#gap")).to_be_visible(timeout=WITHIN_MS)
    person.settled("STALE")
    for route in refused:
        route.continue_()
    person.page.unroute("**/heatmap?*since_ms*")
    same_as_server(person, tmp_path)
    person.settled()
    expect(person.locator("#gap")).to_be_hidden()


def test_columns_out_of_order_end_as_the_server_has_them(person: Person, wire: Wire, backend: Backend, tmp_path: Path) -> None:
    person.open(range="1h")
    wire.hold = True
    backend.minute()
    backend.minute()
    person.until(lambda: len(wire.held) >= 6, "held columns")
    wire.release(backwards=True)
    same_as_server(person, tmp_path)
    person.settled()


def test_minutes_that_nobody_has_are_no_data_and_not_zero(person: Person, backend: Backend, tmp_path: Path) -> None:
    backend.hole(3)
    backend.minute()
    person.open(range="1h")
    same_as_server(person, tmp_path)
    missing = person.triplets(tmp_path)["missing_columns"]
    assert len(missing) >= 3
    backend.hole(2)
    backend.minute()
    same_as_server(person, tmp_path)


@pytest.mark.parametrize("factor", [1.08, 0.9])
def test_a_price_that_jumps_takes_the_grid_along(person: Person, backend: Backend, tmp_path: Path, factor: float) -> None:
    person.open(range="1h")
    backend.jump(factor)
    backend.minute()
    same_as_server(person, tmp_path)
    backend.minute()
    same_as_server(person, tmp_path)
    person.settled()


# venues and transports --------------------------------------------------------------------------------------------------


def test_a_venue_that_is_down_is_said_in_its_row_and_is_not_stale(driven: Person, backend: Backend) -> None:
    driven.open(range="1h", panel="venues")
    row = driven.locator("#venues-table tr[data-venue=okx]")
    pushed(driven, lambda: "LIVE" in row.inner_text())
    backend.set_venue("okx", state="DOWN", silent_s=130)
    pushed(driven, lambda: "DOWN" in row.inner_text())
    driven.see("#panel-venues", "Not live now: OKX (DOWN)")
    assert driven.text("#badge-word") == "LIVE"
    backend.set_venue("okx")
    pushed(driven, lambda: "LIVE" in row.inner_text())


def test_what_venues_do_not_tell_is_named(driven: Person) -> None:
    driven.open(range="1h", panel="venues")
    pushed(driven, lambda: "WebSocket" in driven.text("#panel-venues"))
    driven.see("#panel-venues", "Hyperliquid: no public liquidation feed")
    driven.see("#panel-venues", re.compile(r"Binance.*: not every liquidation is sent, sums are a lower bound"))


def test_without_web_sockets_the_page_uses_streams(
    person: Person, backend: Backend, complaints: Complaints, tmp_path: Path
) -> None:
    complaints.allow += LOST
    person.page.route_web_socket(re.compile(r"/ws(\?|$)"), lambda one: one.close(code=1011))
    person.open(range="1h", panel="venues")
    person.see("#panel-venues", "event stream")
    backend.minute()
    same_as_server(person, tmp_path)


def test_without_any_push_the_page_asks(driven: Person, backend: Backend, complaints: Complaints, tmp_path: Path) -> None:
    complaints.allow += LOST
    driven.page.route_web_socket(re.compile(r"/ws(\?|$)"), lambda one: one.close(code=1011))
    driven.page.route("**/stream?*", lambda route: route.fulfill(status=502))
    driven.open(badge=None, range="1h", panel="venues")
    pushed(driven, lambda: "asking every few seconds" in driven.text("#panel-venues"))
    driven.settled()
    backend.minute()
    pushed(driven, lambda: re.match(r"map \d s", driven.text("#badge-age")))
    same_as_server(driven, tmp_path)


# the live region --------------------------------------------------------------------------------------------------------


def test_the_live_region_says_at_most_one_thing_in_five_seconds(driven: Person) -> None:
    driven.open(range="1h")
    driven.page.clock.run_for(6000)
    driven.page.evaluate(
        "() => { window.said = []; new MutationObserver(() => window.said.push(document.querySelector('#live').textContent))"
        ".observe(document.querySelector('#live'), {childList: true, characterData: true, subtree: true}); }"
    )
    for _ in range(6):
        driven.page.keyboard.press(" ")
    painted(driven.page)
    assert len(driven.page.evaluate("window.said")) <= 1
    driven.page.clock.run_for(5000)
    said = driven.page.evaluate("window.said")
    assert len(said) <= 2, said
