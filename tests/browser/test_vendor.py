"""The vendored library is the released one, byte for byte, with its licence and notice."""

from __future__ import annotations

import hashlib
import re

from playwright.sync_api import Page

from tests.browser.conftest import WEB

VENDOR = WEB / "vendor"


def test_the_file_has_the_digest_that_is_written_beside_it() -> None:
    digest = hashlib.sha256((VENDOR / "lightweight-charts.js").read_bytes()).hexdigest()
    assert digest in (VENDOR / "README.md").read_text(encoding="utf-8")


def test_licence_and_notice_are_there() -> None:
    assert "Apache License" in (VENDOR / "LICENSE").read_text(encoding="utf-8")
    assert "https://www.tradingview.com/" in (VENDOR / "NOTICE").read_text(encoding="utf-8")


def test_it_is_the_version_that_the_types_are_of(module_page: Page) -> None:
    told = re.search(r'"lightweight-charts": "([\d.]+)"', (WEB.parents[1] / "package.json").read_text(encoding="utf-8"))
    assert told is not None
    assert module_page.evaluate("async () => (await import('/vendor/lightweight-charts.js')).version()") == told[1]
