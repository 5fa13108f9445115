"""Bodies made of recorded exchange messages: real prices, sizes and gaps, checked as strictly as the strictest client does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.app import Service
from mpengine.config import load, resolve_directories
from shm.frame_ring import FrameReader
from tests.api.shapes import BODIES, check_body, targets
from tests.api.world import FakeClock, World, get, venue_feed

FILES = ("binance_usdm_btcusdt_20230404.gz", "binance_usdm_btcusdt_20230405.gz")
TEXT = "[api]\nrate_limits = false\n[symbols.BTC]\n"
NOT_RECORDED = {"/oi", "/v1/oi"}  # answers of REST are no part of these captures


@pytest.fixture(scope="module")
def app(captures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("capture")
    (folder / "run").mkdir()
    command = [sys.executable, "-m", "mpengine.cli", "replay", *(str(captures / name) for name in FILES), "--symbol", "BTC",
               "--data-dir", str(folder / "data")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    settings = resolve_directories(load(TEXT, {}), data=folder / "data", runtime=folder / "run")
    with FrameReader.open(settings.paths.depth("BTC")) as ring:
        newest = ring.latest()
    assert newest is not None
    world = World(settings, FakeClock(now_ms=newest.ts_ns // 1_000_000))
    world.add_feeds(binance=venue_feed(last_ms=world.clock.now_ms))
    yield world.app()
    world.close()


@pytest.mark.captures
def test_every_body_of_a_recorded_market(app: Service) -> None:
    answered = set()
    for endpoint in BODIES:
        for target in targets(endpoint, ("BTC",)):
            path, reply = target.partition("?")[0], get(app, target)
            if reply.status == 503 and (path in NOT_RECORDED or 503 in endpoint.also):
                continue
            check_body(target, reply.status, reply.body, endpoint)
            answered.add(path)
    assert answered >= {path for endpoint in BODIES for path in endpoint.paths if 503 not in endpoint.also} - NOT_RECORDED


@pytest.mark.captures
def test_binary_is_the_json_of_a_recorded_market(app: Service) -> None:
    for path in ("/orderbook_heatmap", "/orderbook_heatmap_history"):
        body = get(app, f"{path}?range_pct=0.05").json
        binary = get(app, f"{path}?range_pct=0.05&format=bin").body
        rows, columns = body.get("count", 1), len(body["prices"])
        assert len(binary) == 64 + 2 * rows * columns + (8 * rows if path.endswith("history") else 0)
        assert list(binary[64 : 64 + rows * columns]) == body["bid_u8"]
        assert list(binary[64 + rows * columns : 64 + 2 * rows * columns]) == body["ask_u8"]
        assert max(body["bid_u8"]) == max(body["ask_u8"]) == 255
    assert json.loads(get(app, "/orderbook_heatmap").body)["src"] > 10_000
