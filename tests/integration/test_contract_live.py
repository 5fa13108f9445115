"""The whole tree on the built-in exchange, over real sockets: every endpoint and alias for every symbol as its Struct says."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mpengine.config import DEMO_VENUES
from mpengine.contract import Error
from tests.api.schema_check import faults
from tests.api.shapes import BODIES, check_body, targets
from tests.integration.tree import Tree, wait_for

SYMBOLS = ("BTC", "ETH", "SOL")
TEXT = """
[api]
workers = 1
rate_limits = false
[simulator]
enabled = true
[symbols.BTC]
[symbols.ETH]
[symbols.SOL]
"""
LATE = ("/liq_heatmap_v2", "/orderbook_heatmap", "/candles", "/liq_zones", "/oi")  # what has nothing at first


def fetch(tree: Tree, target: str) -> tuple[int, bytes]:
    """(status, body) as it came over the socket."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{tree.api_port}{target}", timeout=20) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.slow
@pytest.mark.timeout(330)
def test_every_endpoint_and_alias_of_a_running_tree(tmp_path: Path) -> None:
    tree = Tree(tmp_path, TEXT)
    tree.arguments += [part for override in DEMO_VENUES for part in ("--set", override)]
    with tree:
        wait_for(lambda: fetch(tree, "/livez")[0] == 200, 60, "the API")
        for path in LATE:
            status, body = fetch(tree, f"{path}?symbol=SOL")
            assert status == 200 or faults(body, Error) == [], path
        wanted = [f"{path}?symbol={symbol}" for path in LATE for symbol in SYMBOLS]
        wait_for(lambda: all(fetch(tree, target)[0] == 200 for target in wanted), 200, "something of everything")
        for endpoint in BODIES:
            for target in targets(endpoint, SYMBOLS):
                check_body(target, *fetch(tree, target), endpoint)
        for path, text in (("/docs", b"<!doctype html>"), ("/docs/page.js", b"textContent"), ("/openapi.json", b'"/v4/heatmap"')):
            status, body = fetch(tree, path)
            assert status == 200 and text in body, path
        assert tree.stop() == 0
