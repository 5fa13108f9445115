"""`mpengine explain`: the life of a bucket gone through again gives what the map shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mpengine.cli import main
from mpengine.config import load
from mpengine.engine.core import SymbolCore
from mpengine.engine.liquidation_maps import SaveOut
from mpengine.engine.log_files import LogFiles
from mpengine.engine.log_records import LogOut
from mpengine.engine.storage import Publisher
from mpengine.explain import Bar, Unexplained, explain, live, render
from shm.frame_ring import FrameReader
from shm.frames import Frame, decode
from shm.paths import Paths
from shm.records import PositionSide
from tests.engine.known_market import KnownMarket
from tests.engine.test_truth import MIX

MINUTES = 180


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of an engine that has followed a market for three hours."""
    folder = tmp_path_factory.mktemp("explain")
    paths = Paths(folder, folder)
    core = SymbolCore("BTC", load("", {}, ["venues.bybit.enabled=false", "venues.okx.enabled=false"]))
    logs = LogFiles(paths.symbol_dir("BTC") / "logs", "BTC")

    def aside(output: LogOut | SaveOut) -> None:
        if isinstance(output, LogOut):
            logs.write((output,))

    publisher, market = Publisher(paths, "BTC", event_clock=True, aside=aside), KnownMarket(4, MIX)
    for _ in range(MINUTES):
        core.on_batch(market.minute())
        publisher.publish(core.outputs())
    publisher.close()
    assert logs.stop()
    return folder


def newest(folder: Path) -> Frame:
    with FrameReader.open(Paths(folder, folder).liquidation("BTC")) as reader:
        slot = reader.latest()
        assert slot is not None
        return decode(slot.payload)


def test_every_bucket_of_the_map_is_explained(engine: Path) -> None:
    frame, paths = newest(engine), Paths(engine, engine)
    checked = 0
    for at in range(0, frame.count, 3):
        long, short = frame.planes[2:, at].tolist()
        if long + short == 0.0:
            continue
        found = explain(paths, "BTC", 20.0, (frame.origin + at) * 20.0)
        assert found.projected_usd == pytest.approx((long, short), rel=2e-3, abs=1.0)
        assert found.tape_usd == pytest.approx(tuple(frame.planes[:2, at].tolist()), rel=2e-3, abs=1.0)
        assert sum(part.left_usd for part in found.parts) == pytest.approx(sum(found.projected_usd))
        assert all(part.left_usd <= part.opened_usd for part in found.parts)
        checked += 1
    assert checked > 50


def test_the_tape_of_a_bucket_is_explained(engine: Path) -> None:
    frame = newest(engine)
    at = int(frame.planes[0].argmax())
    found = explain(Paths(engine, engine), "BTC", 20.0, (frame.origin + at) * 20.0)
    assert found.events > 0 and found.tape_usd[0] == pytest.approx(frame.planes[0, at], rel=2e-3)


def test_what_the_log_does_not_reach_is_said(engine: Path, tmp_path: Path) -> None:
    frame = newest(engine)
    key = frame.origin + int(frame.planes[2].argmax())
    paths = Paths(engine, engine)
    found = explain(paths, "BTC", 20.0, key * 20.0)
    assert "older than the engine's log" not in render(found)
    found.projected_usd = (0.0, 0.0)
    assert "older than the engine's log" in render(found)
    assert "began anew" not in render(found)
    found.projected_usd = (2.0 * sum(found.map_projected_usd) + 2.0, 0.0)  # the log is older than the state
    assert "it began anew since" in render(found) and "older than" not in render(found)
    with pytest.raises(Unexplained, match="reaches from"):
        explain(paths, "BTC", 20.0, 1.0)


def test_the_command(engine: Path) -> None:
    frame = newest(engine)
    price = str((frame.origin + int(frame.planes[2].argmax())) * 20.0)
    places = ["--set", f"instance.data_dir={engine}", "--set", f"instance.runtime_dir={engine}"]
    shown = CliRunner().invoke(main, ["explain", "BTC", price, *places])
    assert shown.exit_code == 0, shown.output
    assert "gone through again" in shown.output and "by tier:" in shown.output and "binance" in shown.output
    as_json = json.loads(CliRunner().invoke(main, ["explain", "BTC", price, "--json", *places]).output)
    assert as_json["parts"][0]["left_usd"] > 0.0
    for arguments, text in (
        (["DOGE", "1"], "not a configured symbol"),
        (["BTC", "1"], "reaches from"),
        (["ETH", "3000"], "cannot be read"),
    ):
        refused = CliRunner().invoke(main, ["explain", *arguments, *places])
        assert refused.exit_code != 0 and text in refused.output


def test_openings_of_another_step_are_of_another_map() -> None:
    """Bucket 4,800 is 96,000 on a step of 20 and 48,000 on one of 10; the log outlives a change of the step."""
    row = {"side": "long", "venue": "binance", "tier": 25, "bucket": 4800, "usd": 5000.0}
    told = [{"event": "opening", "minute": 7, "src": 100_000.0, "step": 20.0, "rows": [row]}]
    bars = [Bar(7, 1, 99_900.0, 100_100.0, 100_000.0)]
    assert [part.left_usd for part in live(4800, 20.0, PositionSide.LONG, bars, told)] == [5000.0]
    assert live(4800, 10.0, PositionSide.LONG, bars, told) == []
