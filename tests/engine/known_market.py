"""A market of one symbol whose leveraged positions are known: what the maps of an engine are measured against.

Minutes instead of books: a price path, takers that open leveraged positions against makers without leverage, exits by chance, and
liquidation by the exact rule. It tells the engine what a venue would: marks, trades, open interest, liquidation orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mpengine.simulator.draws import Draws, Mix
from mpengine.simulator.positions import Position, Positions, bankruptcy_price
from mpengine.simulator.price import PricePath
from shm.records import Kind, PositionSide, TakerSide, Venue, pack_clock, pack_event
from tests.engine.events import SECOND, T0

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
LOT = 0.001
BACKGROUND = 80_000.0  # base units that never move, so that open interest is of a market's size


@dataclass
class KnownMarket:
    """`mix`: leverage -> share of the opened USD. Changes of what it tells are handed in: what a broken venue would say."""

    seed: int
    mix: Mapping[int, float]
    price: float = 100_000.0
    mmr: float = 0.004
    max_leverage: int = 150
    opened_usd_min: float = 4e6
    told_oi: Callable[[float], float] = lambda base: base
    told_side: Callable[[PositionSide], PositionSide] = lambda side: side
    told_taker: Callable[[TakerSide], TakerSide] = lambda side: side
    positions: Positions = field(init=False)
    second: int = field(init=False, default=0)
    liquidated: list[tuple[int, PositionSide, float, float]] = field(init=False, default_factory=list)
    """(minute, side, liquidation price, USD) of each liquidation so far."""
    opened_usd: list[float] = field(init=False, default_factory=lambda: [0.0, 0.0])
    """(long, short) USD that takers have opened."""
    range: tuple[float, float] = field(init=False, default=(math.inf, 0.0))
    """(low, high) of the marks of the last minute."""

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self._draws, self._path = Draws(rng), PricePath(self.price, Draws(rng), volatility=1.2)
        self.positions = Positions(self.mmr, self.max_leverage)
        self._mix = Mix({tier: round(share * 1e6) for tier, share in self.mix.items()})
        self._mood = 0.5
        self._seq = 0

    @property
    def base(self) -> float:
        """Open interest in base units."""
        return BACKGROUND + LOT * (self.positions.lots(LONG) + self.positions.lots(SHORT))

    def minute(self) -> bytes:
        """The records of the next minute, up to and with the clock tick that ends it."""
        records, draws = list[bytes](), self._draws
        # Takers lean to one side for a while, so that it shows who they are; activity comes in waves.
        self._mood = min(0.95, max(0.05, self._mood + 0.25 * draws.normal()))
        usd = self.opened_usd_min * draws.exponential()
        low, high = math.inf, 0.0
        for second in range(60):
            price = self._path.advance(1.0, draws.normal())
            low, high = min(low, price), max(high, price)
            records.append(self._event(Kind.MARK, price))
            records += self._liquidate(price)
            if second % 10 == 4:
                records += self._open(price, usd / 6.0)
            if second == 50:
                self._close()
                records.append(self._event(Kind.OPEN_INTEREST, 0.0, self.told_oi(self.base)))
            self.second += 1
        self.range = (low, high)
        # Second 60 is the first moment of the next minute: its tick rolls this one.
        records.append(pack_clock(T0 + self.second * SECOND))
        return b"".join(records)

    def density(self, origin: int, count: int, step: float) -> npt.NDArray[np.float64]:
        """float64[2, count]: USD of the open positions in the bucket of their liquidation price."""
        out = np.zeros((2, count))
        for row, side in enumerate((LONG, SHORT)):
            for position in self.positions.of(side):
                at = round(position.liquidation / step) - origin
                if 0 <= at < count:
                    out[row, at] += position.lots * LOT * position.entry
        return out

    def _open(self, price: float, usd: float) -> list[bytes]:
        records = []
        for side, share in ((LONG, self._mood), (SHORT, 1.0 - self._mood)):
            left = round(usd * share / price / LOT)
            self.opened_usd[0 if side is LONG else 1] += left * LOT * price
            for _ in range(4):
                lots = left // 4
                if lots:
                    self.positions.open(side, price, self._mix.pick(self._draws.uniform()), lots, self.second)
            taker = self.told_taker(TakerSide.BUY if side is LONG else TakerSide.SELL)
            if left:
                records.append(self._event(Kind.TRADE, price, left * LOT, taker))
        return records

    def _close(self) -> None:
        """A little of everybody leaves each minute, on both sides alike."""
        for side in (LONG, SHORT):
            self.positions.close_some(side, int(0.0025 * self.positions.lots(side)), self._draws.uniform())

    def _liquidate(self, price: float) -> list[bytes]:
        return [self._forced(position) for position in self.positions.crossed(price)]

    def _forced(self, position: Position) -> bytes:
        side, qty = position.side, position.lots * LOT
        self.liquidated.append((self.second // 60, side, position.liquidation, qty * position.liquidation))
        limit = bankruptcy_price(side, position.entry, position.leverage)
        rate = abs(position.liquidation / limit - 1.0)
        # As the field of the venue says it: the rate of its first bracket beyond the trigger.
        told = (
            limit
            if math.isclose(rate, self.mmr, rel_tol=0.05)
            else position.liquidation * (1 - self.mmr if side is LONG else 1 + self.mmr)
        )
        return self._event(Kind.LIQUIDATION, told, qty, self.told_side(side))

    def _event(self, kind: Kind, price: float, qty: float = 0.0, side: int = 0) -> bytes:
        self._seq += 1
        at = T0 + self.second * SECOND
        return pack_event(kind, Venue.BINANCE, side, 0, at, at, self._seq, 0, price, qty, 0.0)
