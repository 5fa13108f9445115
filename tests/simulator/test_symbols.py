"""What is traded: the shipped symbols' sizes, settings, and sensible sizes for any other price."""

from __future__ import annotations

import pytest

from mpengine.config import load
from mpengine.simulator.symbols import spec, specs


def test_the_shipped_symbols_have_their_prices_ticks_and_brackets() -> None:
    found = {one.symbol: one for one in specs(load("", {}))}
    assert {s: (one.price, one.tick, one.mmr, one.max_leverage) for s, one in found.items()} == {
        "BTC": (100_000.0, 0.1, 0.004, 150), "ETH": (3500.0, 0.01, 0.004, 150), "SOL": (180.0, 0.01, 0.005, 100),
    }  # fmt: skip
    assert found["BTC"].names == {"binance": "BTCUSDT", "bybit": "BTCUSDT", "okx": "BTC-USDT-SWAP"}


def test_settings_decide_names_tick_rate_and_the_price_of_unknown_symbols() -> None:
    text = """
    [symbols.BTC]
    binance = "XBTUSDT"
    [symbols.PEPE]
    step = 0.0001
    tick = 0.0001
    default_mmr = 0.02
    axis_low = 1.0
    axis_high = 2.0
    [symbols.WIF]
    step = 0.01
    tick = 0.001
    """
    found = {one.symbol: one for one in specs(load(text, {}))}
    assert found["BTC"].names["binance"] == "XBTUSDT"
    assert (found["PEPE"].price, found["PEPE"].tick, found["PEPE"].mmr) == (1.5, 0.0001, 0.02)
    assert found["WIF"].price == 10.0


@pytest.mark.parametrize("price", [0.00002, 0.2, 9.99, 10.0, 1234.5, 250_000.0])
def test_any_price_gets_a_fine_tick_and_a_small_lot(price: float) -> None:
    one = spec("ANY", price=price)
    assert 5_000 <= price / one.tick <= 150_000
    assert 0.9 <= price * one.lot <= 10.1


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf")])
def test_a_price_must_be_one(price: float) -> None:
    with pytest.raises(ValueError, match="price"):
        spec("ANY", price=price)
