"""The demo's past: the same twice, ends where the exchange goes on, is not built twice, and leaves nothing if interrupted."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mpengine.config import DEMO_VENUES, Settings, load, resolve_directories
from mpengine.engine.core import SymbolCore
from mpengine.engine.storage import config_digest, load_checkpoint
from mpengine.simulator.past import STRIDE_NS, last_told
from mpengine.simulator.process import _plan_of, build
from shm.frame_ring import FrameReader
from shm.record_ring import RecordReader
from shm.records import CANDLE_DTYPE
from supervisor import history
from supervisor.boot import child_environment

END_NS = 1_789_999_980 * 10**9  # a full minute
MINUTES = 4


def settings_of(folder: Path) -> Settings:
    text = '[symbols.SOL]\nbase_asset = "SOL"\nbinance = "SOLUSDT"\nbybit = "SOLUSDT"\nstep = 0.1\n'
    settings = load(text, {}, ("simulator.enabled=true", *DEMO_VENUES))
    data = folder / "data"
    data.mkdir(parents=True)
    return resolve_directories(settings, data=data, runtime=folder / "run")


def made(settings: Settings, told: list[str] | None = None, end_ns: int = END_NS) -> bool:
    lines: list[str] = [] if told is None else told
    return history.build(settings, MINUTES / 60, child_environment(os.environ), lines.append, end_ns)


def payloads(path: Path) -> list[bytes]:
    with FrameReader.open(path) as reader:
        return [slot.payload for slot in reader.history(0, reader.head()).slots]


def rings(folder: Path) -> list[list[bytes]]:
    return [payloads(folder / name) for name in ("depth.ring", "liquidation.ring", "candles.ring")]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings whose data directory has a past, made once."""
    settings = settings_of(tmp_path_factory.mktemp("past"))
    assert made(settings)
    return settings


def test_a_past_ends_where_the_engine_and_the_exchange_go_on(built: Settings) -> None:
    one = built
    # The frames and minutes that ended before the last stride did.
    assert [len(ring) for ring in rings(one.paths.symbol_dir("SOL"))] == [2 * MINUTES - 1, MINUTES - 1, MINUTES - 1]
    assert [path.name for path in one.paths.data.iterdir()] == ["SOL"]

    checkpoint = load_checkpoint(one.paths.checkpoint("SOL"), "SOL", config_digest(one, "SOL"))
    assert checkpoint is not None
    core = SymbolCore("SOL", one)
    core.restore(checkpoint.state)
    assert core.now_ns == last_told(END_NS) and END_NS - core.now_ns < STRIDE_NS
    assert core.books and all(book.state == "synced" for book in core.books.values())
    assert core.counters["errors"] == core.counters["refused"] == core.counters["gaps"] == 0

    live = build(_plan_of(one), END_NS + 5 * 10**9).market
    assert live is not None and live.now_ns == END_NS + 5 * 10**9
    with RecordReader.open(one.paths.candles("SOL"), CANDLE_DTYPE) as reader:
        _, bars = reader.latest(MINUTES)
    moves = np.diff(np.log([*bars["close"], live.symbols["SOL"].book.middle * live.symbols["SOL"].spec.tick]))
    assert 0 < abs(moves[-1]) < 0.03 and np.all(np.abs(moves) < 0.03), "no jump to the first price or elsewhere"
    assert live.symbols["SOL"].open_interest == pytest.approx(bars["oi_base"][-1], rel=0.05)


def test_recent_rings_go_on_and_older_ones_are_kept_aside_for_the_same_ones_anew(
    built: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    before = rings(built.paths.symbol_dir("SOL"))
    assert not made(built, told, END_NS + 60 * 10**9)
    assert "no history is built" in told[-1] and rings(built.paths.symbol_dir("SOL")) == before
    monkeypatch.setattr(history, "RECENT_NS", 0)
    assert made(built, told)
    (aside,) = built.paths.data.glob("until-*")
    assert str(aside) in told[-1]
    assert rings(aside / "SOL") == before == rings(built.paths.symbol_dir("SOL")), "same seed, same end"


def test_a_stop_signal_leaves_nothing(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    ring = settings.paths.data / history.FOLDER / "SOL" / "depth.ring"

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not ring.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    with pytest.raises(history.Interrupted):
        history.build(settings, 24.0, child_environment(os.environ), lambda _: None, END_NS)
    waiting.join()
    assert list(settings.paths.data.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
