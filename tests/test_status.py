"""`mpengine status`: what the screen and its JSON say of an instance with real files."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpengine.config import load, resolve_directories
from mpengine.schemas import StreamFeed
from mpengine.status import collect, render
from shm.board import Board, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.errors import ShmError
from tests.api.world import World, venue_feed

RUNNING = [("supervisor", Role.SUPERVISOR, 0), ("ingest", Role.INGEST, 0), ("engine-BTC", Role.ENGINE, 0)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    settings = resolve_directories(load("[symbols.BTC]\n[symbols.ETH]\n", {}), data=tmp_path / "data", runtime=tmp_path / "run")
    for name in ("data", "run"):
        (tmp_path / name).mkdir()
    found = World(settings)
    yield found
    found.close()


@pytest.fixture
def running(world: World) -> Iterator[World]:
    """An instance of which everything but the engine of ETH has come up."""
    board = Board.create(world.settings.paths.board, [RowName(*row) for row in [*RUNNING, ("engine-ETH", Role.ENGINE, 1)]], {})
    rows = [BoardRow.attach(world.settings.paths.board, at) for at in range(1, len(RUNNING))]
    board.row(0).start(Role.SUPERVISOR, 0, 1)
    for at, row in enumerate(rows, 1):
        row.start(RUNNING[at][1], 0, 1)
        row.set(Word.EVENTS, 1000 * at)
        board.supervisor_view(at).set(Word.ACTUAL, State.LIVE)
    world.add_book()
    world.add_status(mid=100.25)
    world.add_history(3)
    world.add_feeds(
        binance=venue_feed(
            rest_errors=2,
            parse_errors=7,
            reasons={"not_json": 7, "trade_gap": 1, "depth_duplicate": 20},
            rest_paused_until_ms=time.time_ns() // 1_000_000 + 60_000,
            last_error="depth: status 429",
            streams={
                "btcusdt@depth@100ms": StreamFeed(state="STALE", messages=9, errors=1, last_ms=None, lag_ms=None),
                "btcusdt@aggTrade": StreamFeed(state="LIVE", messages=5, errors=0, last_ms=None, lag_ms=None),
            },
        )
    )
    yield world
    for row in rows:
        row.close()
    board.close()


def test_without_a_board_nothing_runs(world: World) -> None:
    with pytest.raises(ShmError):
        collect(world.settings)


def test_every_refusal_and_drop_of_the_wire_has_its_reason_on_the_screen(running: World) -> None:
    found = collect(running.settings)
    venue = found["venues"]["binance"]
    assert venue["reasons"] == {"not_json": 7, "trade_gap": 1, "depth_duplicate": 20}
    assert venue["last_error"] == "depth: status 429" and 50 < venue["rest_paused_s"] <= 60
    text = render(found)
    for note in (
        "binance: btcusdt@depth@100ms STALE",
        "binance: counted: depth_duplicate 20, not_json 7, trade_gap 1",
        "binance: last error: depth: status 429",
        f"binance: REST paused for {venue['rest_paused_s']:.0f} s",
    ):
        assert note in text
    assert "aggTrade" not in text  # it is live: the row counts it


def test_a_healthy_venue_has_a_row_and_no_notes(running: World) -> None:
    running.add_feeds(binance=venue_feed())
    found = collect(running.settings)
    assert found["venues"]["binance"]["rest_paused_s"] is None
    assert "binance: " not in render(found)


@pytest.mark.parametrize(
    ("mid", "shown"), [(99_995.104, "99,995.10"), (179.785, "179.785"), (10.0, "10.00"), (0.00001234, "0.00001234"), (0.2, "0.20")]
)
def test_prices_of_any_size_are_readable(running: World, mid: float, shown: str) -> None:
    running.add_status(mid=mid)
    (btc,) = (line.split() for line in render(collect(running.settings)).splitlines() if line.startswith("BTC "))
    assert btc[3] == shown


@pytest.mark.covers("F4")
def test_after_a_killed_supervisor_the_dead_are_not_called_live(running: World) -> None:
    path = running.settings.paths.board
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()

    def states() -> dict[str, str]:
        return {process["name"]: process["state"] for process in collect(running.settings)["processes"]}

    with BoardRow.attach(path, 2) as engine:
        engine.set(Word.PID, child.pid)
    assert states()["engine-BTC"] == "LIVE"  # the supervisor lives and is about to say what becomes of it
    with BoardRow.attach(path, 0) as supervisor:
        supervisor.set(Word.PID, child.pid)
    assert states() == {"supervisor": "DEAD", "ingest": "LIVE", "engine-BTC": "DEAD"}


def test_a_venue_is_down_when_ingest_is_gone(running: World) -> None:
    assert collect(running.settings)["venues"]["binance"]["state"] == "LIVE"
    running.feeds().close()
    assert collect(running.settings)["venues"]["binance"]["state"] == "DOWN"


def test_losses_of_a_process_are_on_the_screen(running: World) -> None:
    assert "ingest: " not in render(collect(running.settings))
    with BoardRow.attach(running.settings.paths.board, 1) as ingest:
        ingest.set(Word.CAPTURE_DROPPED, 109)
        ingest.set(Word.WRITE_ERRORS, 2)
    assert "  ingest: capture_dropped 109, write_errors 2" in render(collect(running.settings)).splitlines()


def test_columns_hold_what_they_name_and_a_missing_value_is_a_dash(running: World) -> None:
    lines = render(collect(running.settings)).splitlines()
    processes = {line.split()[0]: line.split() for line in lines if line.startswith(("supervisor", "ingest", "engine"))}
    assert set(processes) == {"supervisor", "ingest", "engine-BTC"}
    assert processes["engine-BTC"][1] == "LIVE" and "2000" in processes["engine-BTC"]
    (btc,) = (line.split() for line in lines if line.startswith("BTC "))
    assert btc[:4] == ["BTC", "live", "synced", "100.25"] and btc[8] == "2"
    # A ring that is not there yet hides nothing of what is.
    assert btc[-2:] == ["-", "-"] and any(line.startswith("BTC: Missing") for line in lines)
    (eth,) = (line.split() for line in lines if line.startswith("ETH "))
    assert set(eth[1:]) == {"-"}
    assert any(line.startswith("ETH: Missing") for line in lines)
