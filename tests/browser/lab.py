"""A page at the origin of a backend that has the modules of the sources and nothing else: for tests of what talks to the server.

In the page `lab` holds `api`, `decoder` (without a worker), `feed(ladder)`, and `log`, what was told: [type, detail].
"""

from __future__ import annotations

from typing import Any, Final

from playwright.sync_api import Page

from tests.browser.backend import Backend
from tests.browser.conftest import WEB

TOLD: Final = ("column", "events", "zones", "candle", "status", "gap", "reset", "beat", "transport", "fault")
_SETUP: Final = """async (told) => {
    const [{ Api }, { Feed }, bytes] = await Promise.all(['api', 'feed', 'bytes'].map((name) => import(`/src/${name}.js`)));
    const api = new Api({ base: `${location.origin}/` });
    const decoder = {
        heatmap: async (buffer) => bytes.decodeHeatmap(buffer),
        column: async (buffer) => bytes.decodeColumn(buffer),
        columnJson: async (data, envelope) => bytes.decodeColumnJson(data, envelope),
    };
    const log = [];
    window.lab = {
        api, decoder, log,
        feed(ladder = ['ws', 'sse', 'poll']) {
            const feed = new Feed({ api, decoder, ladder });
            for (const type of told) feed.addEventListener(type, ({ detail }) => log.push([type, detail]));
            return (lab.now = feed);
        },
        numbers: (channel) => log.flatMap(([type, one]) =>
            one.channel !== channel ? []
            : type === 'column' ? [one.column.seq]
            : type === 'events' ? one.items.map((item) => item.seq)
            : type === 'gap' ? [[one.from, one.to]] : []),
        of: (type) => log.filter(([name]) => name === type).map(([, detail]) => detail),
    };
    api.addEventListener('unauthorized', () => log.push(['unauthorized', {}]));
}"""


def open_lab(page: Page, backend: Backend) -> Page:
    """`page` with its laboratory, in a document that the server has sent: one from elsewhere may not connect to it."""
    page.route(f"{backend.origin}/src/*.js", lambda route: route.fulfill(
        content_type="text/javascript", body=(WEB / "src" / route.request.url.rpartition("/")[2]).read_bytes()))  # fmt: skip
    page.goto(backend.url("/livez"))
    page.evaluate(_SETUP, list(TOLD))
    return page


def wait(page: Page, condition: str, argument: Any = None) -> None:
    """Until a condition in the page holds."""
    page.wait_for_function(condition, arg=argument, timeout=20_000)
