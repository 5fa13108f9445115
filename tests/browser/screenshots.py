"""`make screenshots`: the pictures of README and docs, from the engine itself.

Twelve hours of the built-in exchange go through venue modules and engine at full speed (some minutes of one core), into files as
the engine writes them; the shipped API serves them, and Chromium looks at the page at three sizes.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, expect, sync_playwright

from mpengine.config import Settings, load, resolve_directories
from mpengine.engine.storage import Publisher
from mpengine.simulator.loopback import build
from tests.api.world import MS, NOW_MS
from tests.browser.backend import MINUTE_MS, ROOT, Backend
from tests.browser.person import settled

SYMBOL: Final = "BTC"
MINUTES: Final = 720
SEED: Final = 4
IMAGES: Final = ROOT / "docs" / "images"
SIZES: Final = {"desktop": (1440, 900), "tablet": (820, 1180), "phone": (390, 844)}
PICTURES: Final = {
    "dashboard": ("desktop", "/?symbol=BTC&range=12h", "dark"),
    "dashboard-light": ("desktop", "/?symbol=BTC&range=12h", "light"),
    "dashboard-book": ("desktop", "/?symbol=BTC&range=4h&map=none&depth=1", "dark"),
    "dashboard-both": ("desktop", "/?symbol=BTC&range=4h&depth=1", "dark"),
    "dashboard-tablet": ("tablet", "/?symbol=BTC&range=12h", "dark"),
    "dashboard-phone": ("phone", "/?symbol=BTC&range=4h", "dark"),
}


def live(settings: Settings, minutes: int) -> Publisher:
    """Let the engine live `minutes` up to `NOW_MS` of the synthetic market; its files, still open."""
    loop = build(settings, SEED, (NOW_MS - minutes * MINUTE_MS) * MS)
    publisher = Publisher(settings.paths, SYMBOL, event_clock=True)
    for _ in range(minutes * 20 + 1):
        loop.run(3)
        publisher.publish(loop.outputs[SYMBOL])
        loop.outputs[SYMBOL].clear()
    return publisher


@contextmanager
def served(minutes: int, keep: Path | None) -> Iterator[Backend]:
    """A server over what the engine lived. `keep`: a folder in which that stays for the next time."""
    folder = Path(tempfile.mkdtemp(prefix="mpengine-browser-", dir="/dev/shm"))
    try:
        backend = Backend(folder / "served", minutes={})
        try:
            data = backend.settings.paths.data
            if keep is not None and (keep / SYMBOL).is_dir():
                shutil.copytree(keep / SYMBOL, data / SYMBOL)
                publisher = Publisher(backend.settings.paths, SYMBOL, event_clock=True)
            else:
                text = f"[api]\nrate_limits = false\n[symbols.{SYMBOL}]\n"
                settings = resolve_directories(load(text, {}), data=data, runtime=backend.settings.paths.runtime)
                publisher = live(settings, minutes)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copytree(data / SYMBOL, keep / SYMBOL)
            backend.beating.append(publisher)
            backend.rewind()
            backend.start()
            yield backend
            backend.beating.clear()
            publisher.close()
        finally:
            backend.close()
    finally:
        shutil.rmtree(folder)


def take(page: Page, backend: Backend, name: str, folder: Path) -> None:
    """One picture."""
    size, path, theme = PICTURES[name]
    page.set_viewport_size(dict(zip(("width", "height"), SIZES[size])))  # type: ignore[arg-type]
    backend.rewind()
    page.goto(backend.url(f"{path}&theme={theme}"))
    settled(page)
    expect(page.locator("#zones-table tbody tr").first).to_be_attached()
    expect(page.locator("#tape-table tbody tr").first).to_be_attached()
    page.screenshot(path=folder / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures of the dashboard for README and docs.")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of Chromium")
    parser.add_argument("--minutes", type=int, default=MINUTES, help="how much the engine lives")
    parser.add_argument("--keep", type=Path, default=None, help="folder in which what it lived stays for the next time")
    parser.add_argument("--out", type=Path, default=IMAGES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with served(options.minutes, options.keep) as backend, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(locale="en-GB", timezone_id="UTC")
        for name in PICTURES:
            take(page, backend, name, options.out)
        browser.close()


if __name__ == "__main__":
    main()
