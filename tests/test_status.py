"""`mpengine status`: what the screen and its JSON say of an instance with real files."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpengine.config import load, resolve_directories
from mpengine.schemas import Canary, DirectionCanaries, StreamFeed
from mpengine.status import collect, render
from shm.board import Board, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.errors import ShmError
from tests.api.world import World, book_stats, venue_feed

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


def test_books_interest_liquidations_and_canaries_of_every_venue(running: World) -> None:
    running.clock.now_ms = time.time_ns() // 1_000_000
    running.add_book(binance=book_stats(), okx=book_stats(state="syncing"))
    running.add_oi(binance=1500.0, bybit=(20.5, 90))
    running.add_liquidation()
    one = DirectionCanaries(price_side=Canary(events=60, bad=20, alarm=True), return_sign=Canary(events=3, bad=1, alarm=False))
    running.add_status(canaries={"bybit": one}, cross_canary=Canary(events=5, bad=0, alarm=False))
    found = collect(running.settings)
    btc = found["symbols"][0]
    assert [book["state"] for book in btc["books"].values()] == ["synced", "syncing"]
    assert btc["open_interest"]["bybit"]["base"] == 20.5 and 90 <= btc["open_interest"]["bybit"]["age_s"] < 120
    assert btc["liquidation_seq"] == 0 and btc["liquidation_age_s"] < 30
    assert btc["canaries"]["bybit"]["price_side"] == {"events": 60, "bad": 20, "alarm": True}
    text = render(found)
    assert "  BTC: books: binance synced, okx syncing" in text
    assert "open interest: binance 1,500.00 (" in text and "last liquidation: " in text
    assert "bybit price_side 20/60 ALARM, bybit return_sign 1/3, cross 0/5" in text
    (venue,) = (line.split() for line in text.splitlines() if line.startswith("binance "))
    assert venue[-1] == "1/1/0"
    eth = found["symbols"][1]
    assert eth.get("liquidation_age_s") is None and "ETH: last liquidation" not in text
