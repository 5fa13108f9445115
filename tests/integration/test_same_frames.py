"""One capture, two ways: over real sockets through the whole tree, and by replay. The frames are the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.tree import Tree, payloads, wait_for

BTC = ("binance_usdm_btcusdt_20230404.gz", "binance_usdm_btcusdt_20230405.gz")


@pytest.mark.slow
@pytest.mark.captures
def test_a_capture_served_over_sockets_gives_the_frames_of_its_replay(captures: Path, tmp_path: Path) -> None:
    files = [captures / name for name in BTC]
    text = f"""
[api]
workers = 1
[simulator]
enabled = true
speed = 40.0
captures = {[str(path) for path in files]}
stamps = true
[ingest]
receive_clock = "sender"
[venues.binance]
depth_speed = "0ms"
trade_stream = "trade"
book_ticker = true
[symbols.BTC]
"""
    with Tree(tmp_path, text) as tree:
        served = wait_for(lambda: len(found := payloads(tree.paths.depth("BTC"))) == 17 and found, 90, "17 frames over sockets")
        bars = wait_for(lambda: len(found := payloads(tree.paths.candles("BTC"))) == 8 and found, 10, "8 bars")
        assert tree.stop() == 0
        data = tmp_path / "replayed"
        done = tree.run("replay", *map(str, files), "--symbol", "BTC", "--data-dir", str(data), "--config", str(tree.config))
    assert done.returncode == 0, done.stderr
    assert payloads(data / "BTC" / "depth.ring") == served
    assert payloads(data / "BTC" / "candles.ring") == bars


@pytest.mark.stress
def test_what_is_recorded_live_replays_to_the_frames_that_were_live(tmp_path: Path) -> None:
    text = "[api]\nworkers = 1\n[simulator]\nenabled = true\n[capture]\nenabled = true\n[symbols.BTC]\n[symbols.SOL]\n"
    with Tree(tmp_path, text) as tree:
        wait_for(
            lambda: len(payloads(tree.paths.depth("SOL"))) >= 3 and len(payloads(tree.paths.depth("BTC"))) >= 3, 150, "3 frames"
        )
        assert tree.stop() == 0
        files = sorted(tree.paths.captures.glob("*.zst"))
        assert files
        data = tmp_path / "replayed"
        done = tree.run("replay", *map(str, files), "--data-dir", str(data), "--config", str(tree.config))
        assert done.returncode == 0, done.stderr
        for symbol in ("BTC", "SOL"):
            live = payloads(tree.paths.depth(symbol))
            assert payloads(data / symbol / "depth.ring")[: len(live)] == live
            bars = payloads(tree.paths.candles(symbol))
            assert payloads(data / symbol / "candles.ring")[: len(bars)] == bars
