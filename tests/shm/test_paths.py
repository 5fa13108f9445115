"""File names of an instance: all in one place, and no symbol that could leave its directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from shm.paths import Paths, check_symbol

PATHS = Paths(data=Path("/data"), runtime=Path("/run/x"))


@pytest.mark.parametrize("symbol", ["", "btc", "../BTC", "BTC/ETH", "BTC ", "B" * 21, "BTC\n", ".", "BTC-USD", "ÄTH"])
def test_a_symbol_that_could_be_more_than_a_name_is_refused(symbol: str) -> None:
    with pytest.raises(ValueError, match="a symbol must be 1 to 20 capital letters or digits"):
        check_symbol(symbol)
    for build in (PATHS.events, PATHS.depth, PATHS.checkpoint):
        with pytest.raises(ValueError, match="a symbol must be"):
            build(symbol)


@pytest.mark.parametrize("symbol", ["BTC", "1000PEPE", "A", "B" * 20])
def test_plain_symbols_pass(symbol: str) -> None:
    assert check_symbol(symbol) == symbol


@pytest.mark.covers("A1-L21")
def test_every_file_is_in_its_directory_under_a_name_of_its_own() -> None:
    runtime = [PATHS.board, PATHS.settings, PATHS.children, PATHS.feeds, PATHS.events("BTC"), PATHS.events("ETH"),
               PATHS.http_counters(0), PATHS.http_counters(1), PATHS.admin_socket, PATHS.admin_lock, PATHS.rates]  # fmt: skip
    data = [PATHS.instance_lock, PATHS.captures, PATHS.logs, PATHS.keys]
    per_symbol = [PATHS.depth, PATHS.candles, PATHS.liquidation, PATHS.liquidations, PATHS.documents, PATHS.checkpoint]
    assert all(path.parent == PATHS.runtime for path in runtime)
    assert all(path.parent == PATHS.data for path in data)
    assert all(build("BTC").parent == PATHS.symbol_dir("BTC") == Path("/data/BTC") for build in per_symbol)
    everything = [*runtime, *data, *(build(symbol) for build in per_symbol for symbol in ("BTC", "ETH"))]
    assert len(set(everything)) == len(everything)
