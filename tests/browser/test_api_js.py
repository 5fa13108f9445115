"""Requests of the page: a key that was refused is asked for again, an answer to a former one is not about the key there is."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

_LATE = """async (names) => {
    const { Api } = await import('/src/api.js');
    const told = [], answers = [];
    window.fetch = () => new Promise((done) => answers.push(done));
    const api = new Api({ base: `${location.origin}/`, key: names[0] });
    api.addEventListener('unauthorized', () => told.push(api.key));
    const asked = api.get('oi').catch((error) => error.status);
    if (names[1] !== names[0]) api.setKey(names[1]);
    answers[0](new Response('{"error":"unauthorized","detail":"no"}', { status: 401 }));
    return [await asked, told];
}"""


def answered(page: Page, before: str, now: str) -> Any:
    """[status, keys that were told to be refused] where the key changes while an answer is on its way."""
    return page.evaluate(_LATE, [before, now])


def test_a_refused_key_is_told(module_page: Page) -> None:
    assert answered(module_page, "one", "one") == [401, ["one"]]


def test_a_late_refusal_of_the_key_before_says_nothing_about_the_new_one(module_page: Page) -> None:
    assert answered(module_page, "one", "two") == [401, []]
