"""`make screenshots`: the pictures of README and docs, of a demo with half a day of history, at three sizes.

Without `--url` a demo of its own is started; building its past takes some minutes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.person import settled
from tests.integration.tree import free_port

IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"
HOURS: Final = 12
WITHIN_S: Final = 1800.0
"""Until the demo's past has been built, on a slow machine."""
SIZES: Final[dict[str, Any]] = {
    "desktop": {"width": 1440, "height": 900},
    "tablet": {"width": 820, "height": 1180},
    "phone": {"width": 390, "height": 844},
}
PICTURES: Final = {
    "dashboard": ("desktop", "/?symbol=BTC&theme=dark"),
    "dashboard-light": ("desktop", "/?symbol=BTC&theme=light&depth=0"),
    "dashboard-book": ("desktop", "/?symbol=BTC&theme=dark&range=4h&map=none"),
    "dashboard-tablet": ("tablet", "/?symbol=BTC&theme=dark"),
    "dashboard-phone": ("phone", "/?symbol=BTC&theme=dark&range=4h"),
}


@contextmanager
def demo() -> Iterator[str]:
    """The address of a demo that is live."""
    folder, port = Path(tempfile.mkdtemp(prefix="mpengine-demo-")), free_port()
    command = [sys.executable, "-m", "mpengine.cli", "demo", "--history", str(HOURS), "--port", str(port)]
    process = subprocess.Popen([*command, "--directory", str(folder)])
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + WITHIN_S
        while not _fresh(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the demo did not begin")
            time.sleep(1.0)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _fresh(url: str) -> bool:
    """Whether the newest map is one of now."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            age = json.loads(reply.read())["symbols"]["BTC"]["liq_age_s"]
    except (urllib.error.URLError, http.client.HTTPException, OSError, KeyError):
        return False
    return age is not None and age < 90


def take(page: Page, url: str, name: str, folder: Path) -> None:
    """One picture, when everything that it shows is there."""
    size, path = PICTURES[name]
    page.set_viewport_size(SIZES[size])
    page.goto(url + path)
    settled(page)
    expect(page.locator("#zones-table tbody tr").first).to_be_attached()
    expect(page.locator("#tape-table tbody tr").first).to_be_attached(timeout=60_000)
    page.screenshot(path=folder / f"{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures of the dashboard for README and docs.")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="path of Chromium")
    parser.add_argument("--url", help="a server that is live already")
    parser.add_argument("--out", type=Path, default=IMAGES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.url:
        shoot(options.url, options.chromium, options.out)
        return
    with demo() as url:
        shoot(url, options.chromium, options.out)


def shoot(url: str, chromium: str | None, folder: Path) -> None:
    """All pictures of the server at `url`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(locale="en-GB", timezone_id="UTC", reduced_motion="reduce")
        for name in PICTURES:
            take(page, url, name, folder)
        browser.close()


if __name__ == "__main__":
    main()
