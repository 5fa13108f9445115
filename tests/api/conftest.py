"""A data and a runtime directory with real files, as the engine, ingest and the supervisor would leave them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpengine.config import Settings, load, resolve_directories
from tests.api.world import World

TEXT = """
[api]
host = "127.0.0.1"
cache_entries = 500
rate_limits = false # a test asks as often as it likes
[symbols.BTC]
[symbols.ETH]
[symbols.SOL]
[symbols.XRP]
step = 0.001
tick = 0.0001
has_orderbook = false
"""


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A directory on tmpfs, removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def settings(tmpfs: Path) -> Settings:
    """Four symbols, one of them without a book; directories made."""
    found = resolve_directories(load(TEXT, {}), data=tmpfs / "data", runtime=tmpfs / "run")
    for name in ("data", "run"):
        (tmpfs / name).mkdir()
    return found


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    """Writers and applications of one instance, all closed afterwards."""
    found = World(settings)
    yield found
    found.close()
