"""A real pool of workers over a small world: BTC lives, ETH stands still, SOL has nothing yet."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpengine.config import load, resolve_directories
from tests.api.conftest import TEXT
from tests.api.sockets import serving
from tests.api.test_serving import Pool
from tests.api.world import World, candle, map_frame, zone_row

MINUTE_MS = 60_000
STALE_MINUTES = 20


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Maps of BTC with a hole in them, its book, bars, zones and liquidations; maps of ETH that end 20 minutes ago."""
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    for name in ("data", "run"):
        (directory / name).mkdir()
    world = World(resolve_directories(load(TEXT, {}), data=directory / "data", runtime=directory / "run"))
    try:
        now_ms = world.clock.now_ms = time.time_ns() // 1_000_000 // MINUTE_MS * MINUTE_MS
        for ago in (*range(29, 19, -1), *range(9, -1, -1)):
            world.add_map(map_frame(now_ms - ago * MINUTE_MS, seed=ago))
        for ago in range(30, 1, -1):
            world.add_candle(candle(now_ms - ago * MINUTE_MS, 65_880.0 + 3 * ago, high=66_100.0, low=65_700.0))
        world.add_zones([zone_row(), zone_row(side="short", price=68_020.0, weight=1.5)])
        world.add_liquidation(price=65_500.0, notional_usd=40_000.0)
        for ago in range(5):
            world.add_map(map_frame(now_ms - (STALE_MINUTES + 4 - ago) * MINUTE_MS, src=3000.0, step=1.0, seed=ago), "ETH")
        yield world
    finally:
        world.close()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def pool(world: World) -> Iterator[Pool]:
    """Two workers over it."""
    with serving(world) as made:
        yield made
