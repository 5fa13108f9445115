"""The page over the whole tree as a user starts it, on the built-in exchange: it fills by itself and outlives a killed worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from mpengine.config import DEMO_VENUES
from shm.board import BoardReader
from shm.board_words import Word
from tests.browser.conftest import Complaints
from tests.browser.test_page_states import LOST
from tests.integration.tree import Tree, wait_for

TEXT = """
[api]
workers = 1
[simulator]
enabled = true
[symbols.BTC]
"""
FIRST_MS = 150_000
"""Until the first minute of a map: one whole minute after the engine has begun."""


@pytest.mark.stress
def test_a_page_of_the_whole_system(open_page: Callable[..., Page], complaints: Complaints, tmp_path: Path) -> None:
    complaints.allow += LOST
    tree = Tree(tmp_path, TEXT)
    tree.arguments += [part for override in DEMO_VENUES for part in ("--set", override)]
    with tree:
        wait_for(lambda: tree.get("/livez")[0] == 200, 60, "the API")
        page = open_page()
        page.goto(f"http://127.0.0.1:{tree.api_port}/?symbol=BTC&range=1h&panel=venues")
        badge = page.locator("#badge")
        expect(badge).to_have_attribute("data-badge", "STALE")
        page.evaluate("window.stayed = true")
        expect(badge).to_have_attribute("data-badge", "LIVE", timeout=FIRST_MS)
        for venue in ("binance", "bybit", "okx", "hyperliquid"):
            expect(page.locator(f"#venues-table tr[data-venue={venue}]")).to_contain_text("LIVE", timeout=20_000)
        expect(page.locator("#panel-venues")).to_contain_text("Hyperliquid: no public liquidation feed")
        before = _columns(tree)
        os.kill(_worker(tree), signal.SIGKILL)
        wait_for(lambda: _columns(tree) > before, 90, "a new column")
        expect(badge).to_have_attribute("data-badge", "LIVE", timeout=60_000)
        assert page.evaluate("window.stayed"), "without a reload"


def _columns(tree: Tree) -> int:
    """Number of the newest book column."""
    return int(tree.get("/health")[1]["symbols"]["BTC"]["depth_seq"])


def _worker(tree: Tree) -> int:
    """Pid of the API worker."""
    with BoardReader.open(tree.paths.board) as board:
        row = board.row_of("api-0")
        assert row is not None
        return board.get(row, Word.PID)
