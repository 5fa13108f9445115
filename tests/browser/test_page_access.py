"""API keys: asked for when the server wants one, kept in the tab, never in an address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.backend import Backend
from tests.browser.conftest import Complaints
from tests.browser.person import WITHIN_MS, Person

pytestmark = pytest.mark.slow

REFUSED = ("Failed to load resource", "WebSocket connection to")
"""What the browser itself writes of 401."""


@pytest.fixture(scope="module")
def locked() -> Iterator[Backend]:
    with Backend.running(minutes={"BTC": 60}, keys=True) as backend:
        yield backend


def test_a_key_is_asked_for_and_opens_the_page(open_page: Callable[..., Page], locked: Backend, complaints: Complaints) -> None:
    complaints.allow += REFUSED
    locked.rewind()
    key = locked.make_key()
    page = open_page()
    person = Person(page, locked)
    addresses: list[str] = []

    def note(request: Any) -> None:
        addresses.append(request.url)

    page.on("request", note)
    page.on("websocket", lambda one: addresses.append(one.url))
    person.open(badge="STALE", range="1h")
    expect(person.locator("#keyprompt")).to_be_visible(timeout=WITHIN_MS)
    person.see("#keyprompt-text", "wants an API key")

    field = person.locator("#keyprompt-key")
    field.fill("0123456789ab.wrong")
    field.press("Enter")
    expect(person.locator("#keyprompt")).to_be_visible(timeout=WITHIN_MS)
    person.see("#keyprompt-text", "did not take")

    # A new key is in every worker within seconds.
    person.until(lambda: locked.ask("/oi?symbol=BTC", Authorization=f"Bearer {key}")[0] == 200, "the key is known")
    field.fill(key)
    person.locator("#keyprompt button.primary").click()
    expect(person.locator("#keyprompt")).to_be_hidden()
    person.settled()
    locked.minute()
    person.see("#badge-age", re.compile(r"map \d s"))

    page.reload()
    person.settled()
    expect(person.locator("#keyprompt")).to_be_hidden()
    secret = key.partition(".")[2]
    assert addresses and not [url for url in addresses if secret in url]
    assert secret not in page.content()
    assert page.evaluate("JSON.stringify({...localStorage})").find(secret) == -1


def test_not_now_leaves_the_page_as_it_is(open_page: Callable[..., Page], locked: Backend, complaints: Complaints) -> None:
    complaints.allow += REFUSED
    locked.rewind()
    person = Person(open_page(), locked).open(badge="STALE", range="1h")
    expect(person.locator("#keyprompt")).to_be_visible(timeout=WITHIN_MS)
    person.locator("#keyprompt-later").click()
    expect(person.locator("#keyprompt")).to_be_hidden()
    person.see("#banner-text", "wants an API key")


def test_without_keys_nobody_is_asked(open_page: Callable[..., Page], backend: Backend) -> None:
    person = Person(open_page(), backend).open(range="1h")
    expect(person.locator("#keyprompt")).to_be_hidden()
