"""Minute bars of one symbol: price observations, taker volume, liquidated USD (`spec: engine`, section 4). Pure.

The mid of the primary book feeds the bar; a mark tick only while the newest mid is absent or older than 60 s (flag: fallback
price).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mpengine.engine.open_interest import OiMinute
from shm.records import CANDLE_DTYPE, RECORD_SCHEMA, CandleField, CandleFlag, PositionSide, TakerSide, Venue

MINUTE_NS: Final = 60 * 1_000_000_000

_OI_FIELDS: Final = {
    Venue.BINANCE: (0, CandleField.OI_BINANCE),
    Venue.BYBIT: (1, CandleField.OI_BYBIT),
    Venue.OKX: (2, CandleField.OI_OKX),
}


class MinuteBar:
    """Accumulates the running minute. Volumes are USD (price x quantity)."""

    _PLAIN = ("close", "fallback", "gap", "high", "low", "open", "venues")
    __slots__ = (*_PLAIN, "liquidated", "taker")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The next minute begins."""
        self.open: float | None = None
        self.high = self.low = self.close = 0.0
        self.fallback = self.gap = False
        self.venues = 0
        self.taker = {TakerSide.BUY: [0.0, 0], TakerSide.SELL: [0.0, 0]}
        self.liquidated = {PositionSide.LONG: [0.0, 0], PositionSide.SHORT: [0.0, 0]}

    def observe(self, price: float, *, fallback: bool = False) -> None:
        """A price of the minute: O, H, L, C are the first, largest, smallest and last of them."""
        if self.open is None:
            self.open = self.high = self.low = price
        elif price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.close = price
        self.fallback |= fallback

    def on_trade(self, venue: Venue, side: TakerSide, usd: float) -> None:
        """A trade of the minute by its taker side."""
        total = self.taker[side]
        total[0] += usd
        total[1] += 1
        self.venues |= venue.bit

    def on_liquidation(self, side: PositionSide, usd: float) -> None:
        """A realised liquidation of the minute."""
        total = self.liquidated[side]
        total[0] += usd
        total[1] += 1

    def close_at(
        self, close_ns: int, *, mark: float | None, funding: float | None, oi: OiMinute, minutes: int
    ) -> npt.NDArray[np.void]:
        """The finished bar, a 0-d array of CANDLE_DTYPE; needs at least one observation. `minutes`: since the last bar."""
        assert self.open is not None  # the caller decides what a minute without an observation is
        bar = np.zeros((), CANDLE_DTYPE)
        flags = CandleFlag.FALLBACK_PRICE if self.fallback else CandleFlag.NONE
        flags |= CandleFlag.MINUTES_MISSING if minutes > 1 else CandleFlag.NONE
        flags |= CandleFlag.GAP if self.gap else CandleFlag.NONE
        bar["schema"], bar["flags"], bar["venues"], bar["minutes"] = RECORD_SCHEMA, flags, self.venues, minutes
        bar["open_ts_ns"], bar["close_ts_ns"] = close_ns - MINUTE_NS, close_ns
        bar["open"], bar["high"], bar["low"], bar["close"] = self.open, self.high, self.low, self.close
        bar["src"] = (self.open + self.high + self.low + self.close) / 4
        bar["buy_usd"], bar["buy_count"] = self.taker[TakerSide.BUY]
        bar["sell_usd"], bar["sell_count"] = self.taker[TakerSide.SELL]
        bar["liq_long_usd"], bar["liq_long_count"] = self.liquidated[PositionSide.LONG]
        bar["liq_short_usd"], bar["liq_short_count"] = self.liquidated[PositionSide.SHORT]
        bar["present"] = _fill_optional(bar, mark, funding, oi)
        return bar

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "plain": {name: getattr(self, name) for name in self._PLAIN},
            "taker": [list(self.taker[side]) for side in (TakerSide.BUY, TakerSide.SELL)],
            "liquidated": [list(self.liquidated[side]) for side in (PositionSide.LONG, PositionSide.SHORT)],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        for name in self._PLAIN:
            setattr(self, name, state["plain"][name])
        self.taker = dict(zip((TakerSide.BUY, TakerSide.SELL), map(list, state["taker"])))
        self.liquidated = dict(zip((PositionSide.LONG, PositionSide.SHORT), map(list, state["liquidated"])))


def _fill_optional(bar: Any, mark: float | None, funding: float | None, oi: OiMinute) -> CandleField:
    """Write the values that exist and say which they are: a missing value is missing, never 0."""
    present = CandleField.NONE
    for name, value, bit in (
        ("mark", mark, CandleField.MARK),
        ("funding_rate", funding, CandleField.FUNDING),
        ("oi_base", oi.total, CandleField.OI),
        ("oi_delta_base", oi.delta, CandleField.OI_DELTA),
    ):
        if value is not None:
            bar[name] = value
            present |= bit
    for venue, (index, bit) in _OI_FIELDS.items():
        if venue in oi.by_venue:
            bar["oi_venue_base"][index] = oi.by_venue[venue]
            present |= bit
    return present
