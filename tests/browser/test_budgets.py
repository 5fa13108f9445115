"""Sizes, requests, drawing and memory that the page may use, and what good pages do. Times are reported, never judged."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from api.web_files import WEB
from tests.browser.backend import Backend
from tests.browser.person import Person, painted

pytestmark = pytest.mark.slow

KB = 1024
OURS_KB = 35
"""What our part may be, as an answer less the whole library."""
SCRIPTS = ("/static/app.js", "/static/decode.worker.js")
_DRAWN = """{
  window.drawn = {heat: 0, frames: [], put: []};
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (image, ...rest) {
    if (image instanceof OffscreenCanvas) window.drawn.heat += 1;
    return draw.call(this, image, ...rest);
  };
  const put = OffscreenCanvasRenderingContext2D.prototype.putImageData;
  OffscreenCanvasRenderingContext2D.prototype.putImageData = function (image, x, y, ...dirty) {
    window.drawn.put.push(dirty.length === 4 ? [dirty[2], dirty[3]] : [image.width, image.height]);
    return put.call(this, image, x, y, ...dirty);
  };
  const frame = () => {
    if (window.drawn.heat) window.drawn.frames.push(window.drawn.heat);
    window.drawn.heat = 0;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""
_MEASURED = """window.measured = {cls: 0, lcp: 0, fcp: 0, long: []};
const entries = (type, look) => new PerformanceObserver((list) => list.getEntries().forEach(look)).observe({type, buffered: true});
entries("layout-shift", (one) => { if (!one.hadRecentInput) window.measured.cls += one.value; });
entries("largest-contentful-paint", (one) => { window.measured.lcp = one.startTime; });
entries("paint", (one) => { if (one.name === "first-contentful-paint") window.measured.fcp = one.startTime; });
entries("longtask", (one) => { window.measured.long.push(one.duration); });"""
_SMALL = """() => [...document.querySelectorAll("a[href], button, input, select, [role=tab], label:has(> input)")]
  .filter((one) => one.checkVisibility() && !one.closest(".vh, .skip"))
  .filter((one) => !one.matches("label > input, p a, p button, dd a, .track input"))
  .map((one) => ({one, box: one.getBoundingClientRect()}))
  .filter(({box}) => box.width > 0 && (box.width < 24 || box.height < 24))
  .map(({one, box}) => `${one.outerHTML.slice(0, 90)} ${box.width}x${box.height}`)"""


@pytest.fixture
def person(open_page: Callable[..., Page], backend: Backend) -> Person:
    return Person(open_page(), backend)


def sent(backend: Backend, path: str) -> int:
    """Bytes of a file as a browser gets it."""
    status, headers, body = backend.ask(path, Accept_Encoding="gzip")
    assert (status, headers.get("content-encoding")) == (200, "gzip"), path
    return len(body)


# sizes and requests -----------------------------------------------------------------------------------------------------


def test_scripts_and_styles_are_small(backend: Backend, record_property: Callable[[str, object], None]) -> None:
    scripts = sum(sent(backend, path) for path in SCRIPTS)
    library = len(gzip.compress((WEB / "vendor" / "lightweight-charts.js").read_bytes(), 9))
    style = sent(backend, "/static/app.css")
    for name, value in (("scripts", scripts), ("library", library), ("ours", scripts - library), ("style", style)):
        record_property(f"gz_bytes_{name}", value)
    assert scripts <= 100 * KB
    assert scripts - library <= OURS_KB * KB
    assert style <= 10 * KB


def test_the_start_takes_few_requests(person: Person) -> None:
    asked: list[str] = []

    def note(request: Any) -> None:
        asked.append(request.url)

    person.page.on("request", note)
    person.page.on("websocket", lambda one: asked.append(one.url))
    person.open()
    # The icon is named by the tab and by the page; the second time it is not fetched.
    assert len(set(asked)) <= 10, asked
    assert len(set(asked)) >= len(asked) - 1, "nothing else is asked for twice"


def test_what_is_kept_is_not_asked_for_again(person: Person) -> None:
    person.open(range="1h")
    again: list[tuple[str, bool]] = []

    def note(response: Any) -> None:
        again.append((response.url, response.from_service_worker or response.request.timing["responseStart"] <= 0))

    person.page.on("response", note)
    person.page.reload()
    person.settled()
    assert not [url for url, cached in again if "/static/" in url and "?v=" not in url]


# drawing ----------------------------------------------------------------------------------------------------------------


def test_a_repaint_draws_each_layer_once(person: Person) -> None:
    person.page.add_init_script(_DRAWN)
    person.open(range="12h")
    person.page.evaluate("drawn.frames.length = 0")
    person.locator("#chart").focus()
    person.press("Shift+ArrowLeft", 3)
    person.press("+", 2)
    frames = person.page.evaluate("drawn.frames")
    # Two layers, each in at most two parts of its ring, and what the newest column projects to the right.
    assert frames and max(frames) <= 5, frames


def test_an_append_touches_its_columns_only(person: Person, backend: Backend) -> None:
    person.page.add_init_script(_DRAWN)
    person.open(range="12h", lock=0)
    painted(person.page)
    person.page.evaluate("drawn.put.length = 0")
    backend.minute("BTC")
    person.until(lambda: person.page.evaluate("drawn.put.length") >= 2, "the new columns of both layers")
    painted(person.page)
    put = person.page.evaluate("drawn.put")
    assert {width for width, _ in put} == {1}
    assert len(put) <= 6, "a column of the map, two of the book in one place, and what they replaced"


@pytest.fixture
def wide(backend: Backend) -> Iterator[Backend]:
    """A server that sends as fast as it can."""
    with Backend.running(minutes={"BTC": 120}, push_bytes_per_s=1 << 28, push_burst_bytes=1 << 28) as made:
        yield made


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_a_day_of_columns_leaves_no_memory_behind(
    wide: Backend, open_page: Callable[..., Page], record_property: Callable[[str, object], None]
) -> None:
    person = Person(open_page(), wide).open(range="1h")
    devtools = person.page.context.new_cdp_session(person.page)

    def heap() -> int:
        devtools.send("HeapProfiler.collectGarbage")
        return int(devtools.send("Runtime.getHeapUsage")["usedSize"])

    def live(minutes: int) -> None:
        for _ in range(minutes):
            wide.minute("BTC")
        newest = wide.json("/heatmap?symbol=BTC&minutes=5&dt_s=60&layers=liq")["seq"]["liq"]
        person.until(
            lambda: wide.json("/heatmap?symbol=BTC&minutes=5&dt_s=60&layers=liq")["seq"]["liq"] == newest, "the last minute"
        )
        person.see("#badge-age", re.compile("map [5-9] s"))

    live(120)  # the ring is full and everything has been used once
    before = heap()
    live(1440)
    after = heap()
    record_property("heap_bytes_before", before)
    record_property("heap_bytes_after", after)
    assert after - before < 10 * KB * KB
    assert after < 150 * KB * KB


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_ten_minutes_of_columns_and_switching_leave_no_memory_behind(wide: Backend, open_page: Callable[..., Page]) -> None:
    """Ten minutes of a page that is used: columns, symbols, ranges, layers, pauses."""
    import time

    wide.fill("ETH", 120)
    person = Person(open_page(), wide).open(range="1h")
    devtools = person.page.context.new_cdp_session(person.page)
    sizes, ends = [], time.monotonic() + 600
    while time.monotonic() < ends:
        for key in ("2", "1", " ", " ", "b", "b", "l", "l", "+", "r"):
            wide.minute()
            person.press(key)
        person.settled()
        devtools.send("HeapProfiler.collectGarbage")
        sizes.append(int(devtools.send("Runtime.getHeapUsage")["usedSize"]))
    early, late = sizes[len(sizes) // 10], sizes[-1]
    assert late - early < 10 * KB * KB, sizes
    assert late < 150 * KB * KB


# what good pages do -----------------------------------------------------------------------------------------------------


def test_the_document_is_well_made(person: Person, backend: Backend) -> None:
    text = backend.ask("/")[2].decode("utf-8")
    assert text.startswith("<!doctype html>")
    assert re.search(r'<meta charset="utf-8">', text[:1024])
    viewport = re.search(r'<meta name="viewport" content="([^"]*)"', text)
    assert viewport and "width=device-width" in viewport[1] and not re.search(r"user-scalable|maximum-scale", viewport[1])
    assert re.search(r'<meta name="description" content="[^"]{50,160}">', text)
    person.open(range="1h")
    assert person.page.title()
    assert person.page.evaluate("document.documentElement.lang") == "en"
    assert person.page.evaluate("document.compatMode") == "CSS1Compat"
    unsized = "[...document.images].filter((one) => !one.hasAttribute('width') || !one.hasAttribute('height')).length"
    assert person.page.evaluate(unsized) == 0
    assert person.page.evaluate(
        "new Set([...document.querySelectorAll('[id]')].map((one) => one.id)).size"
    ) == person.page.evaluate("document.querySelectorAll('[id]').length")
    targets = "[...document.links].filter((one) => one.target === '_blank' && !/noopener|noreferrer/.test(one.rel)).length"
    assert person.page.evaluate(targets) == 0


def test_the_browser_has_no_issue_with_the_page(person: Person) -> None:
    """Deprecations, policy, mixed content, cookies, form autofill: whatever Chromium's own audit reports."""
    devtools = person.page.context.new_cdp_session(person.page)
    issues: list[Any] = []

    def note(event: Any) -> None:
        issues.append(event["issue"])

    devtools.on("Audits.issueAdded", note)
    devtools.send("Audits.enable")
    person.open(range="1h")
    for panel in ("venues", "assumptions", "accuracy", "guide"):
        person.locator(f"#tab-{panel}").click()
    person.settings()
    painted(person.page)
    assert issues == []


def test_texts_are_compressed_and_kept(person: Person) -> None:
    answers: list[Any] = []

    def note(response: Any) -> None:
        answers.append(response)

    person.page.on("response", note)
    person.open(range="1h")
    for one in answers:
        headers, path = one.headers, one.url.removeprefix(person.backend.origin)
        assert one.status in (200, 304), path
        if "/static/" in path:
            assert "immutable" in headers["cache-control"] and "max-age=31536000" in headers["cache-control"], path
        if re.search("html|javascript|css|svg", headers["content-type"]) and len(one.body()) > 1400:
            assert headers.get("content-encoding") in ("gzip", "zstd"), path
        assert headers["x-content-type-options"] == "nosniff"
    assert answers[0].headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("width", [360, 1440])
def test_targets_are_large_enough(open_page: Callable[..., Page], backend: Backend, width: int) -> None:
    person = Person(open_page(width, 800), backend).open(range="1h")
    assert person.page.evaluate(_SMALL) == []
    person.settings()
    assert person.page.evaluate(_SMALL) == []


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_layout_does_not_jump_while_loading(
    open_page: Callable[..., Page], backend: Backend, record_property: Callable[[str, object], None], width: int, height: int
) -> None:
    page = open_page(width, height)
    page.add_init_script(_MEASURED)
    person = Person(page, backend).open()
    person.until(lambda: person.page.evaluate("measured.lcp"), "a largest paint")
    found = page.evaluate("measured")
    blocking = sum(max(0.0, duration - 50.0) for duration in found["long"])
    for name, value in (("fcp_ms", found["fcp"]), ("lcp_ms", found["lcp"]), ("cls", found["cls"]), ("blocking_ms", blocking)):
        record_property(name, round(value, 3))
    assert found["cls"] <= 0.1, "0.1 is what is called good"
