"""Trigger prices: the vectors of the specification, each side of each venue."""

from __future__ import annotations

import pytest

from mpengine.engine.liquidations import trigger_price
from shm.records import PositionSide, Venue

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT


@pytest.mark.parametrize(
    ("venue", "side", "price", "average", "mmr", "trigger"),
    [
        (Venue.BINANCE, LONG, 26_142.12, 0.0, 0.004, 26_247.11),
        (Venue.BINANCE, LONG, 26_142.12, 26_245.10, 0.004, 26_245.10),
        (Venue.BINANCE, LONG, 82_338.30, 0.0, 0.004, 82_668.98),
        (Venue.BINANCE, SHORT, 66_200.0, 0.0, 0.005, 65_870.65),
        (Venue.BINANCE, SHORT, 66_200.0, 65_900.0, 0.005, 65_900.0),
        (Venue.BYBIT, LONG, 82_338.30, 0.0, 0.004, 82_668.98),
        (Venue.BYBIT, SHORT, 66_200.0, 0.0, 0.005, 65_870.65),
        (Venue.BYBIT, SHORT, 66_200.0, 1.0, 0.005, 65_870.65),
        (Venue.OKX, LONG, 82_655.7, 0.0, 0.004, 82_655.7),
        (Venue.OKX, SHORT, 82_655.7, 0.0, 0.004, 82_655.7),
    ],
)
def test_vectors(venue: Venue, side: PositionSide, price: float, average: float, mmr: float, trigger: float) -> None:
    assert round(trigger_price(venue, side, price, average, mmr), 2) == trigger
