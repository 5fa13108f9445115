"""F2, time away: what an engine committed before it was killed has aged by what it missed when it is back, minute by minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from mpengine.engine.core import SymbolCore
from mpengine.engine.storage import config_digest, load_checkpoint
from shm.board_words import Word
from tests.chaos.lives import WEIGHTS, ZONES, Lives
from tests.engine.test_process import Rig, wait_for

pytestmark = pytest.mark.slow
MINUTE_NS = 60 * 10**9
FADING = ("weight", "projected_usd", "tape_usd", "tape_part")
KEPT = ("side", "bucket", "created", "last", "count", "source")
Table = dict[str, npt.NDArray[Any]]


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    """An engine with zones and learned weights behind it."""
    rig = Rig(tmp_path)
    try:
        one = Lives(rig, tmp_path / "order")
        one.start()
        for _ in range(17):
            one.market.minute()
        one.market.quiet()
        one.settle()
        yield one
    finally:
        rig.close()


def committed(rig: Rig) -> tuple[int, Table]:
    """(last minute that ended, zones) of the checkpoint on disk."""
    found = load_checkpoint(rig.paths.checkpoint("BTC"), "BTC", config_digest(rig.settings, "BTC"))
    assert found is not None
    core = SymbolCore("BTC", rig.settings)
    core.restore(found.state)
    last_ns = core.status("live").last_minute_ns
    assert last_ns is not None
    return last_ns // MINUTE_NS, core._maps.zones.table()


def saved_weights(rig: Rig) -> dict[str, Any]:
    """The weights file."""
    found: dict[str, Any] = msgspec.json.decode((rig.paths.symbol_dir("BTC") / WEIGHTS).read_bytes())
    return found


def saved_zones(rig: Rig) -> tuple[dict[str, Any], Table]:
    """The zones file, and its columns as arrays."""
    found = msgspec.json.decode((rig.paths.symbol_dir("BTC") / ZONES).read_bytes())
    return found, {name: np.array(values) for name, values in found["zones"].items()}


def faded(zones: Table, minutes: int, minute: int, price: float, step: float) -> Table:
    """Plainly: 0.995 per minute, then the faint ones go, and the far ones that nothing has reinforced for four hours."""
    weight = zones["weight"] * 0.995**minutes
    far = np.abs(zones["bucket"] * step / price - 1.0) >= 0.02
    stays = (weight >= 0.05) & ~((minute - zones["last"] > 240) & far)
    fading = {name: (zones[name] * 0.995**minutes)[stays] for name in FADING}
    return fading | {name: zones[name][stays] for name in KEPT}


def assert_same(found: Table, expected: Table) -> None:
    for name in KEPT:
        assert found[name].tolist() == expected[name].tolist(), name
    for name in FADING:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, err_msg=name)


@pytest.mark.covers("F2", "F15")
@pytest.mark.parametrize("step", ["half", pytest.param("named", marks=pytest.mark.stress)])
def test_zones_fade_by_the_minutes_that_an_engine_was_away(lives: Lives, step: str) -> None:
    """The whole machine was off: the events of the time between are nowhere."""
    rig, market = lives.rig, lives.market
    lives.die(ZONES, step, quiet=True)
    for away in (7, 200, 1000):
        before, zones = committed(rig)
        weights = saved_weights(rig)
        market.pass_by(away)
        rig.writer.close()
        rig.paths.events("BTC").unlink()
        rig.new_ring()
        rig.seq = 0
        rig.start()
        market.quiet()
        wait_for(lambda: rig.word(Word.CHECKPOINT_POSITION) == rig.writer.head)
        rig.kill()
        after, found = committed(rig)
        assert after - before > away
        assert_same(found, faded(zones, after - before, after, market.price, rig.settings.symbols["BTC"].step))
        again = saved_weights(rig)
        assert again == weights or again["calibration_count"] > weights["calibration_count"], "weights do not age"
        print(f"{away} minutes away: {len(zones['weight'])} zones, {len(found['weight'])} left")
        assert away < 100 or len(found["weight"]) < len(zones["weight"])
    assert not len(found["weight"])


@pytest.mark.covers("F2")
def test_without_the_checkpoint_zones_fade_from_the_moment_their_file_was_saved(lives: Lives) -> None:
    """Such as after an update with another schema. An engine that was stopped before its first event has changed nothing."""
    rig, market = lives.rig, lives.market
    path = rig.paths.symbol_dir("BTC") / ZONES
    rig.kill()
    rig.paths.checkpoint("BTC").unlink()
    file, zones = saved_zones(rig)
    weights = saved_weights(rig)
    file["saved_at"] = time.time_ns() - 45 * MINUTE_NS
    path.write_bytes(saved := msgspec.json.encode(file))
    rig.start()
    rig.stop()
    assert path.read_bytes() == saved
    assert not rig.paths.checkpoint("BTC").exists()
    rig.start()
    market.quiet()
    wait_for(lambda: rig.word(Word.CHECKPOINT_POSITION) == rig.writer.head)
    rig.stop()
    minute, found = committed(rig)
    at = int(np.flatnonzero(zones["bucket"] == found["bucket"][0])[0])
    away = round(float(np.log(found["weight"][0] / zones["weight"][at]) / np.log(0.995)))
    assert away in (46, 47), "and the minute that was told"
    assert_same(found, faded(zones, away, minute, market.price, rig.settings.symbols["BTC"].step))
    assert saved_weights(rig)["weights"] == weights["weights"]
