"""The command: exit codes, texts for people, output for scripts, and files that are not what they should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpengine.config import load
from mpengine.dump import rows
from mpengine.engine.core import SymbolCore
from mpengine.engine.storage import Publisher
from shm.errors import ShmError
from shm.event_ring import create_event_ring
from shm.layout import event_ring_spec, liquidations_spec
from shm.paths import Paths
from shm.record_ring import RecordWriter
from shm.records import LIQUIDATION_DTYPE
from tests.engine.events import clock, clocks, mark
from tests.engine.test_core import book_start, chain

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mpengine.cli", *arguments]
    environment = {**os.environ, **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd, env=environment)


@pytest.fixture
def published(tmp_path: Path) -> Paths:
    """Two depth frames, one bar and documents of BTC."""
    paths = Paths(tmp_path, tmp_path)
    core = SymbolCore("BTC", load("", {}))
    core.on_batch(book_start() + mark(0.5, 100_001.0) + chain(1, 61) + clocks(61, 61))
    publisher = Publisher(paths, "BTC", event_clock=True)
    publisher.publish(core.outputs())
    publisher.close()
    return paths


def test_help_names_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in ("start", "demo", "status", "explain", "record", "replay", "dump", "brackets", "check-config", "bench"):
        assert f"  {name}" in done.stdout
        one = run(name, "--help")
        assert one.returncode == 0 and len(one.stdout) > 200


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("dump",), ("replay", "--data-dir", "x"), ("bench", "nothing"), ("start", "--oops")]
)
def test_wrong_use_is_code_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2 and "Usage" in done.stderr


@pytest.mark.covers("X-H1", "P6")
def test_check_config_lists_every_violation_and_exits_3(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[api]\nport = 99999\nprot = 1\n[symbols.BTC]\nstep = 0\n", encoding="utf-8")
    path.chmod(0o640)
    done = run("check-config", "--config", str(path))
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == ["api.port", "api.prot", "symbols.BTC.step"]
    good = run("check-config", "--config", str(ROOT / "mpengine.toml"))
    assert good.returncode == 0 and "ok, 3 symbols" in good.stdout
    shown = run("check-config", "--show", "--set", "api.port=1234", cwd=tmp_path)
    assert json.loads(shown.stdout)["api"]["port"] == 1234


def test_the_settings_file_is_found_where_it_usually_is(tmp_path: Path) -> None:
    path = tmp_path / "mpengine.toml"
    path.write_text("[api]\nport = 4321\n", encoding="utf-8")
    path.chmod(0o640)
    assert json.loads(run("check-config", "--show", cwd=tmp_path).stdout)["api"]["port"] == 4321
    elsewhere = run("check-config", "--show", env={"MPENGINE_CONFIG": str(path)}, cwd=Path("/"))
    assert json.loads(elsewhere.stdout)["api"]["port"] == 4321
    assert run("check-config", "--config", str(tmp_path / "absent.toml")).returncode == 3


def test_dump_of_frames(published: Paths) -> None:
    done = run("dump", str(published.depth("BTC")), "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["frame_no"] for row in found] == [0, 1]
    assert list(found[0]) == ["frame_no", "epoch", "kind", "open_ms", "close_ms", "ref", "origin", "step", "count", "unit_usd",
                              "flags", "samples", "planes"]  # fmt: skip
    assert (found[0]["kind"], found[0]["count"], len(found[0]["planes"]["bid"]), len(found[0]["planes"]["ask"])) == (
        "depth", 1001, 1001, 1001,
    )  # fmt: skip
    assert sum(found[0]["planes"]["bid"]) == pytest.approx(99_990 + 2 * 99_980 + 99_970, rel=1e-3)
    assert len(run("dump", str(published.depth("BTC")), "--last", "1", "--json").stdout.splitlines()) == 1
    text = run("dump", str(published.depth("BTC"))).stdout
    assert "#0 e1 depth 2023-11-14 22:14:00  ref 100,000.00  1001 x 20" in text


def test_dump_of_bars_says_null_where_there_is_no_value(published: Paths) -> None:
    (bar,) = (json.loads(line) for line in run("dump", str(published.candles("BTC")), "--json").stdout.splitlines())
    assert (bar["close"], bar["mark"], bar["oi_base"], bar["funding_rate"]) == (100_000.0, 100_001.0, None, None)
    assert bar["oi_venue_base"] == [None, None, None]
    assert "close 100000.0" in run("dump", str(published.candles("BTC"))).stdout


def test_dump_of_documents(published: Paths) -> None:
    found = {
        row["document"]: row for row in map(json.loads, run("dump", str(published.documents("BTC")), "--json").stdout.splitlines())
    }
    assert set(found) == {"book", "levels", "status", "zones"} and found["book"]["content"]["books"]["binance"]["state"] == "synced"


def test_dump_of_liquidations(tmp_path: Path) -> None:
    ring = tmp_path / "liquidations.ring"
    with RecordWriter.open(ring, liquidations_spec("BTC"), LIQUIDATION_DTYPE) as writer:
        record = np.zeros((), LIQUIDATION_DTYPE)
        record["price"], record["side"] = 82_651.9, 1
        writer.append(record, ts_ns=5)
    (row,) = rows(ring, 10)
    assert (row["frame_no"], row["price"], row["side"]) == (0, 82_651.9, 1)


@pytest.mark.covers("T-M11")
@pytest.mark.parametrize("damage", [lambda d: d[:100], lambda d: b"", lambda d: b"\0" * len(d), lambda d: d[:-4096],
                                    lambda d: d[:8] + b"\x63" + d[9:], lambda d: d[:600] + b"x" + d[601:]])  # fmt: skip
def test_dump_refuses_a_damaged_file_by_name(published: Paths, damage: object) -> None:
    ring = published.depth("BTC")
    ring.write_bytes(damage(ring.read_bytes()))  # type: ignore[operator]
    done = run("dump", str(ring))
    assert done.returncode == 1 and "depth.ring refused: LayoutMismatch" in done.stderr and "Traceback" not in done.stderr


def test_dump_leaves_out_frames_whose_bytes_do_not_hold(published: Paths) -> None:
    ring = published.depth("BTC")
    data = bytearray(ring.read_bytes())
    data[4096 + 300] ^= 1  # in the payload of frame 0
    ring.write_bytes(data)
    assert [row["frame_no"] for row in rows(ring, 10)] == [1]


def test_an_event_ring_has_nothing_to_dump(tmp_path: Path) -> None:
    ring = tmp_path / "events-BTC.ring"
    create_event_ring(ring, event_ring_spec("BTC", 4096))
    with pytest.raises(ShmError, match="nothing to dump"):
        list(rows(ring, 1))


def test_status_without_an_instance_says_so(tmp_path: Path) -> None:
    done = run("status", "--set", f"instance.runtime_dir={tmp_path}", "--set", f"instance.data_dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 1 and "not running here" in done.stderr and "Traceback" not in done.stderr


def test_replaying_the_clock_alone_makes_nothing(tmp_path: Path) -> None:
    core = SymbolCore("BTC", load("", {}))
    core.on_batch(clock(0) + clock(1))
    publisher = Publisher(Paths(tmp_path, tmp_path), "BTC", event_clock=True)
    publisher.publish(core.outputs())
    publisher.close()
    done = run("dump", str(tmp_path / "BTC" / "depth.ring"), "--json")
    assert (done.returncode, done.stdout) == (0, "")
