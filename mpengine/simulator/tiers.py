"""Risk tiers of a synthetic symbol, which Bybit and OKX show over REST. Pure.

The first is what the symbol's positions are liquidated by; the others follow from it, larger positions with less leverage.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mpengine.simulator.market import SymbolSpec

FIRST_LEVELS: Final = 10
"""A typical level of the book, so many times, is what the first tier takes."""

STEPS: Final = ((1, 1.0), (5, 1.5), (20, 2.0), (100, 3.0), (500, 6.0))
"""(times the first cap, times the first rates): leverage falls as the rates rise."""


class RiskTier(NamedTuple):
    """`cap_usd` of notional. `amount_usd` makes maintenance margin continuous at the cap of the tier before."""

    cap_usd: float
    mmr: float
    max_leverage: float
    amount_usd: float


def risk_tiers(spec: SymbolSpec) -> list[RiskTier]:
    """Tiers of a symbol, smallest first; those that would allow no leverage at all are left out."""
    highest = spec.max_leverage or max(1.0, 0.5 / spec.mmr // 1)
    found: list[RiskTier] = []
    for times, factor in STEPS:
        mmr, leverage = round(spec.mmr * factor, 8), round(highest / factor, 2)
        if found and (leverage < 1.0 or mmr >= 1.0):
            break
        amount = found[-1].amount_usd + found[-1].cap_usd * (mmr - found[-1].mmr) if found else 0.0
        found.append(RiskTier(float(round(FIRST_LEVELS * spec.depth_usd)) * times, mmr, leverage, amount))
    return found
