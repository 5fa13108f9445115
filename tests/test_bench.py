"""What the benches measure does happen: `bench wire` applies every message, `bench symbols` runs the tree that it is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import access, symbols
from bench.messages import synthetic
from bench.wire import Direct, Through
from mpengine.config import load, resolve_directories


@pytest.mark.parametrize("way", [Through.to_book, Through.through])
def test_every_synthetic_message_reaches_the_book(tmp_path: Path, way: object) -> None:
    messages, snapshot = synthetic(200)
    path = Through(load("", {}), snapshot, tmp_path)
    try:
        assert callable(way)
        way(path, messages)
        (book,) = path.core.books.values()
        assert (book.state, book.counters["applied"], book.counters["refused"]) == ("synced", 200, 0)
    finally:
        path.close()


def test_a_message_that_is_not_applied_fails_the_bench() -> None:
    messages, snapshot = synthetic(50)
    with pytest.raises(AssertionError):
        Direct(load("", {}), snapshot).to_book(messages[:20] + messages[21:])


@pytest.mark.slow
def test_a_row_of_bench_symbols_is_of_the_whole_tree() -> None:
    row = symbols.measure(2, 2.0, warm_s=0.0)
    assert row["symbols"] == 2 and row["messages_s"] > 0
    assert row["cpu_engine_each"] == pytest.approx(row["cpu_engines"] / 2, abs=0.001)
    assert row["rss_ingest"] > 10 and row["rss_engine_each"] > 10, "megabytes of processes that were found"
    assert row["lag_ms_p50"] <= row["lag_ms_p99"] and row["wire_lag_p50"] <= row["wire_lag_p99"]
    assert (row["dropped"], row["gaps"], row["reconnects"]) == (0, 0, 0), "a tree that loses something is no measure"
    assert not list(Path("/dev/shm").glob(f"mpengine-bench-{os.getpid()}*")), "nothing is left of it"


@pytest.mark.parametrize("count", [1, 3, 50])
def test_the_settings_of_bench_symbols_name_as_many_symbols(count: int) -> None:
    settings = load(symbols.config_text(symbols.names(count)), {})
    assert len(settings.symbols) == count and next(iter(settings.symbols)) == "BTC"


def test_symbols_that_do_not_come_up_end_the_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbols, "READY_S", 0.0)
    settings = resolve_directories(load("", {}), data=tmp_path, runtime=tmp_path)
    with pytest.raises(SystemExit, match="not all of 3 symbols"):
        symbols.wait_until_ready(symbols.Watch(settings), 3)


def test_bench_access_asks_what_it_says() -> None:
    assert [row["access"] for row in access.costs(1)] == [*access.SETTINGS, *access.REFUSED]
    rows = access.timings(50)
    assert len(rows) == 5 and all(0.0 <= row["told apart"] <= 1.0 and row["tries"] > 10 for row in rows)
    assert next(row["told apart"] for row in rows if row["key"] == "unknown id") == 0.5
