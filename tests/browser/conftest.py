"""Chromium without a screen. A page fails its test on console errors, uncaught exceptions, policy reports and foreign requests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

from tests.browser.backend import Backend

WEB: Final = Path(__file__).resolve().parents[2] / "api" / "web"
MODULES: Final = "http://modules.test"
"""Where the sources are served to pages that test one module; nothing leaves the machine."""
_TYPES: Final = {".js": "text/javascript", ".html": "text/html", ".css": "text/css", ".json": "application/json"}
_ARGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def chromium(config: pytest.Config) -> str | None:
    """Path of a Chromium: option, then MPENGINE_CHROMIUM, then what is installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return (
        config.getoption("--chromium") or os.environ.get("MPENGINE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    )


@pytest.fixture(scope="module")
def browser(pytestconfig: pytest.Config) -> Iterator[Browser]:
    """Of one file and not of the session: while it is there its event loop runs in this thread, and no other test could run one."""
    path = chromium(pytestconfig)
    if path is None:
        if os.environ.get("MPENGINE_REQUIRE_BROWSER") == "1":
            pytest.fail("MPENGINE_REQUIRE_BROWSER=1 and no Chromium: give --chromium PATH or MPENGINE_CHROMIUM")
        pytest.skip("no Chromium: give --chromium PATH or MPENGINE_CHROMIUM")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(_ARGS))
        yield found
        found.close()


class Complaints(list[str]):
    """What a page did that it must not do. `allow`: parts of texts that a test provokes on purpose."""

    def __init__(self) -> None:
        super().__init__()
        self.allow: list[str] = []

    def watch(self, page: Page) -> None:
        """Collect everything that `page` complains about."""
        page.on("console", lambda one: self.append(f"console: {one.text}") if one.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.append(f"exception: {error}"))
        page.on("request", lambda one: None if _local(one.url) else self.append(f"foreign request: {one.url}"))

    def left(self) -> list[str]:
        """Those that no test allowed."""
        return [one for one in self if not any(part in one for part in self.allow)]


def _local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", MODULES, "blob:http://127.0.0.1:", "data:"))


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    found = Complaints()
    yield found
    assert found.left() == []


@pytest.fixture
def open_page(browser: Browser, complaints: Complaints) -> Iterator[Any]:
    """open_page(width, height, **options of the context): a watched page of a fresh context (UTC, en-GB)."""
    contexts: list[BrowserContext] = []

    def make(width: int = 1440, height: int = 900, **options: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, **{"locale": "en-GB", "timezone_id": "UTC", **options}
        )
        contexts.append(context)
        page = context.new_page()
        complaints.watch(page)
        return page

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def sharp_page(browser: Browser, pytestconfig: pytest.Config, complaints: Complaints) -> Iterator[Page]:
    """A watched page with two device pixels to a pixel. In a browser of its own, since the size of a canvas in device pixels, which
    the chart library asks for, is not part of what a context emulates."""
    args = [*_ARGS, "--force-device-scale-factor=2", "--window-size=1000,800"]
    sharp = browser.browser_type.launch(executable_path=chromium(pytestconfig), args=args)
    page = sharp.new_context(no_viewport=True, locale="en-GB", timezone_id="UTC").new_page()
    complaints.watch(page)
    yield page
    sharp.close()


@pytest.fixture
def module_page(open_page: Any) -> Page:
    """An empty page whose `import('/src/NAME.js')` gives a module of the sources, without any build."""
    page: Page = open_page()
    page.route(f"{MODULES}/**", _source)
    page.goto(f"{MODULES}/blank.html")
    return page


@pytest.fixture(scope="module")
def backend_of_module() -> Iterator[Backend]:
    """A server over a market of its own, shared by the tests of a module."""
    with Backend.running() as made:
        yield made


@pytest.fixture
def backend(backend_of_module: Backend) -> Backend:
    """The module's server with its clock set back to just after the newest minute, all venues well."""
    backend_of_module.calm()
    return backend_of_module


def _source(route: Route) -> None:
    path = route.request.url.removeprefix(MODULES).partition("?")[0].lstrip("/")
    if path == "blank.html":
        route.fulfill(content_type="text/html", body="<!doctype html><html lang=en><title>modules</title><body></body></html>")
        return
    file = WEB / path
    if not file.is_file():
        route.fulfill(status=404)
        return
    route.fulfill(content_type=_TYPES.get(file.suffix, "application/octet-stream"), body=file.read_bytes())
