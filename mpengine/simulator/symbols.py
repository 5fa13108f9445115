"""Settings -> what the synthetic market trades. Pure."""

from __future__ import annotations

import math
from typing import Any, Final

from mpengine.config import Settings, SymbolSettings
from mpengine.simulator.market import SymbolSpec

KNOWN: Final[dict[str, dict[str, Any]]] = {
    "BTC": {"price": 100_000.0, "tick": 0.1, "lot": 0.001, "mmr": 0.004, "max_leverage": 150, "depth_usd": 40_000.0,
            "trade_usd": 1500.0, "open_interest_usd": 150e6, "positions": 1500},
    "ETH": {"price": 3500.0, "tick": 0.01, "lot": 0.001, "mmr": 0.004, "max_leverage": 150, "activity": 0.8,
            "depth_usd": 25_000.0, "trade_usd": 1000.0, "open_interest_usd": 80e6, "positions": 1000},
    "SOL": {"price": 180.0, "tick": 0.01, "lot": 0.01, "mmr": 0.005, "max_leverage": 100, "activity": 0.6,
            "volatility": 1.3, "depth_usd": 15_000.0, "open_interest_usd": 40e6, "positions": 600},
}  # fmt: skip
"""Sizes of the shipped symbols; the maintenance rates are the first brackets of `spec: engine`, section 6.2."""

OTHER_PRICE: Final = 10.0
OTHER: Final[dict[str, Any]] = {"activity": 0.3, "volatility": 1.5, "depth_usd": 4000.0, "trade_usd": 400.0,
                                "open_interest_usd": 8e6, "positions": 250}  # fmt: skip


def spec(symbol: str, *, price: float | None = None, names: dict[str, str] | None = None, **values: Any) -> SymbolSpec:
    """A symbol with known or general sizes, changed by `price` and `values`. Raises ValueError for sizes that make no market."""
    known = {**(KNOWN.get(symbol) or OTHER), **values}
    first = known.pop("price", OTHER_PRICE)
    price = first if price is None else price
    if price <= 0 or not math.isfinite(price):
        raise ValueError(f"{symbol}: price must be positive, was {price}")
    # Fine enough for some thousand ticks within 10 %; a lot is worth about 1 to 10 USD.
    known.setdefault("tick", 10.0 ** (math.floor(math.log10(price)) - 4))
    known.setdefault("lot", 10.0 ** math.floor(math.log10(10.0 / price)))
    return SymbolSpec(symbol, price=price, names=names or {"binance": f"{symbol}USDT"}, **known)


def specs(settings: Settings) -> list[SymbolSpec]:
    """The configured symbols, in their order."""
    venues = settings.venues
    enabled = [venue for venue in venues.__struct_fields__ if getattr(venues, venue).enabled]
    return [_configured(symbol, values, enabled) for symbol, values in settings.symbols.items()]


def _configured(symbol: str, values: SymbolSettings, venues: list[str]) -> SymbolSpec:
    names = {venue: name for venue in venues if (name := getattr(values, venue)) is not None}
    price = None
    if symbol not in KNOWN and values.axis_low is not None and values.axis_high is not None:
        price = (values.axis_low + values.axis_high) / 2
    return spec(symbol, price=price, names=names, tick=values.tick, mmr=values.default_mmr)
