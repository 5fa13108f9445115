"""Replay of real captures: confirmed by an independent oracle, bit-identical, and the command's own promises."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shm.frame_ring import FrameReader
from tests.engine.oracle import Oracle, assert_frame_equals

BTC = ("binance_usdm_btcusdt_20230404.gz", "binance_usdm_btcusdt_20230405.gz")
ETH = ("binance_usdm_ethusdt_20240719.gz",)


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mpengine.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **(env or {})})


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def payloads(path: Path) -> list[bytes]:
    with FrameReader.open(path) as reader:
        return [slot.payload for slot in reader.history(0, reader.head()).slots]


def messages(files: list[Path], unit_ns: int) -> Iterator[tuple[int, str]]:
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                stamp, _, text = line.partition(" ")
                yield int(stamp) * unit_ns, text


def dumped(ring: Path) -> list[dict[str, Any]]:
    done = run("dump", str(ring), "--last", "1000", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def written(folder: Path) -> dict[str, bytes]:
    """Files and logs of an engine, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("**/*.json*"))}


@pytest.mark.captures
def test_btc_capture_gives_the_oracles_frames_twice_the_same(captures: Path, tmp_path: Path) -> None:
    files = [captures / name for name in BTC]
    results = []
    for number, seed in enumerate(("0", "1234")):
        data = tmp_path / str(number)
        done = run("replay", *map(str, files), "--symbol", "BTC", "--data-dir", str(data), env={"PYTHONHASHSEED": seed})
        found = summary(done)
        results.append(
            (
                found.pop("seconds") > 0,
                found,
                payloads(data / "BTC" / "depth.ring"),
                payloads(data / "BTC" / "candles.ring"),
                payloads(data / "BTC" / "liquidation.ring"),
                dumped(data / "BTC" / "documents"),
                written(data / "BTC"),
            )
        )
    assert results[0] == results[1]
    _, figures, frames, candles, maps, documents, files_of_engine = results[0]
    assert (figures["messages"], figures["depth_updates"], figures["gaps"], figures["resyncs"]) == (73_765, 16_110, 0, 0)
    assert (figures["frames"], figures["candles"]) == (17, 8) == (len(frames), len(candles))
    assert figures["maps"] == len(maps) == 8
    assert {row["document"] for row in documents} >= {"levels", "zones", "status"}
    assert {"liq_calibrator_weights_BTC.json", "liq_active_zones_BTC.json", "logs/liq_cycles_BTC.jsonl"} <= files_of_engine.keys()

    oracle = Oracle(Decimal(20), Decimal("0.1"))
    oracle.feed(messages(files, 1000))
    rows = dumped(tmp_path / "0" / "BTC" / "depth.ring")
    assert len(rows) == len(oracle.frames) == 17
    for row, frame in zip(rows, oracle.frames):
        assert_frame_equals(row, frame)
        assert list(row) == ["frame_no", "epoch", "kind", "open_ms", "close_ms", "ref", "origin", "step", "count", "unit_usd",
                             "flags", "samples", "planes"]  # fmt: skip


@pytest.mark.captures
def test_eth_capture_without_a_snapshot_says_partial(captures: Path, tmp_path: Path) -> None:
    file = captures / ETH[0]
    found = summary(run("replay", str(file), "--symbol", "ETH", "--data-dir", str(tmp_path / "a")))
    assert (found["frames"], found["gaps"], found["symbols"]["ETH"]["books"]) == (0, 0, {"binance": "unsynced"})
    assert found["symbols"]["ETH"]["gaps"] == found["symbols"]["ETH"]["resyncs"] == {"binance": 0}
    done = run("replay", str(file), "--symbol", "ETH", "--data-dir", str(tmp_path / "b"), "--partial-book")
    assert summary(done)["frames"] == 10
    oracle = Oracle(Decimal(1), Decimal("0.01"), partial=True)
    oracle.feed(messages([file], 1))
    rows = dumped(tmp_path / "b" / "ETH" / "depth.ring")
    assert len(rows) == len(oracle.frames) == 10
    for row, frame in zip(rows, oracle.frames):
        assert_frame_equals(row, frame)
        assert row["flags"] & 4, "a book without a snapshot is partial"


@pytest.mark.captures
def test_replaying_into_the_same_directory_publishes_nothing_twice(captures: Path, tmp_path: Path) -> None:
    arguments = ("replay", str(captures / BTC[0]), "--symbol", "BTC", "--data-dir", str(tmp_path))
    assert summary(run(*arguments))["published"] == 3
    before = payloads(tmp_path / "BTC" / "depth.ring")
    again = run(*arguments)
    assert (summary(again)["frames"], summary(again)["published"]) == (3, 0)
    assert "not newer" in again.stderr
    assert payloads(tmp_path / "BTC" / "depth.ring") == before


def test_refusals_of_the_command(tmp_path: Path) -> None:
    junk = tmp_path / "junk.gz"
    junk.write_bytes(b"not a capture at all")
    done = run("replay", str(junk), "--symbol", "BTC", "--data-dir", str(tmp_path / "d"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False) and "NotACapture" in done.stderr
    done = run("replay", str(junk), "--symbol", "DOGE", "--data-dir", str(tmp_path / "d"))
    assert done.returncode == 2 and "DOGE" in done.stderr
    cut = tmp_path / "cut.gz"
    with gzip.open(cut, "wb") as file:
        file.write(b'1680652700423575 {"stream":"btcusdt@bookTicker","data":{}}\n' * 5000)
    cut.write_bytes(cut.read_bytes()[:-20])
    done = run("replay", str(cut), "--symbol", "BTC", "--data-dir", str(tmp_path / "e"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False) and "CaptureDamaged" in done.stderr
