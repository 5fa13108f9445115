"""A scripted server, and real ones with real files."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpengine.config import load, resolve_directories
from tests.api.conftest import TEXT, settings, tmpfs, world  # noqa: F401  fixtures
from tests.api.sockets import serving
from tests.api.test_serving import Pool
from tests.api.world import World, zone_row
from tests.client.rig import Server


@pytest.fixture
def server() -> Iterator[Server]:
    """A scripted server, stopped afterwards."""
    with Server() as made:
        yield made


def fill(world: World) -> None:  # noqa: F811
    """What `serving` does not bring along."""
    world.clock.now_ms = time.time_ns() // 1_000_000 // 60_000 * 60_000
    world.add_maps(5)
    world.add_zones([zone_row(), zone_row(side="short", price=68_020.0, weight=1.5)])
    for _ in range(3):
        world.add_liquidation()
    world.add_oi(binance=10.0, bybit=20.0, okx=30.0)
    world.add_book()


@pytest.fixture
def pool(world: World) -> Iterator[Pool]:  # noqa: F811
    """Two workers with something of everything, for tests that change it."""
    fill(world)
    with serving(world) as made:
        yield made


@pytest.fixture(scope="session")
def standing() -> Iterator[Pool]:
    """The same for all tests that only read."""
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    found = resolve_directories(load(TEXT, {}), data=directory / "data", runtime=directory / "run")
    for name in ("data", "run"):
        (directory / name).mkdir()
    made = World(found)
    try:
        fill(made)
        with serving(made) as pool:
            yield pool
    finally:
        made.close()
        shutil.rmtree(directory)
