"""Trigger price of a realised liquidation (`spec: engine`, section 3). Pure."""

from __future__ import annotations

from shm.records import PositionSide, Venue


def trigger_price(venue: Venue, side: PositionSide, price: float, average_fill: float, mmr: float) -> float:
    """Price at which the liquidation started, from the venue's price field and average fill (0 where it has none).

    Binance and Bybit report about the bankruptcy price p: trigger = p/(1 - mmr) for a long, p/(1 + mmr) for a short; a Binance
    average fill is taken as it is. OKX reports the trigger itself. V: long p 26,142.12, mmr .004 -> 26,247.11.
    """
    if venue is Venue.OKX:
        return price
    if venue is Venue.BINANCE and average_fill > 0.0:
        return average_fill
    return price / (1 - mmr) if side is PositionSide.LONG else price / (1 + mmr)
