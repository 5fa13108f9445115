"""The resting order book of one synthetic symbol, in integer ticks and lots. Pure.

It keeps what changed since `drain`, which is what a venue's diff stream sends: the new absolute quantity, 0 for a removed level.
"""

from __future__ import annotations

import heapq
from typing import Final, Literal

BID: Final = 1
ASK: Final = -1
Sign = Literal[1, -1]
Fills = list[tuple[int, int]]
"""(tick, lots), best price first."""

_WALK: Final = 512  # ticks to look through one by one before the whole side is searched


class BookSide:
    """One side. `sign` is +1 for bids (best = highest), -1 for asks (best = lowest). Never empty once it has a level."""

    __slots__ = ("best", "levels", "sign", "touched")

    def __init__(self, sign: Sign) -> None:
        self.sign: Sign = sign
        self.levels: dict[int, int] = {}
        self.touched: dict[int, int] = {}
        self.best = 0

    def put(self, tick: int, lots: int) -> None:
        """Set the quantity of a level; 0 or less removes it. The last level of a side stays."""
        if lots > 0:
            if not self.levels or (tick - self.best) * self.sign > 0:
                self.best = tick
            self.levels[tick] = lots
            self.touched[tick] = lots
        elif tick in self.levels and len(self.levels) > 1:
            del self.levels[tick]
            self.touched[tick] = 0
            if tick == self.best:
                self.best = self._after(tick)

    def take(self, lots: int, limit: int) -> Fills:
        """Execute an order against this side down to `limit` (inclusive). Less than `lots` comes back where the side ends."""
        fills: Fills = []
        while lots > 0 and (self.best - limit) * self.sign >= 0:
            tick = self.best
            resting = self.levels[tick]
            if lots < resting:
                fills.append((tick, lots))
                self.put(tick, resting - lots)
                break
            # The last level of a side is not given away: a side without a price is no market.
            if len(self.levels) == 1:
                break
            fills.append((tick, resting))
            lots -= resting
            self.put(tick, 0)
        return fills

    def retreat(self, tick: int) -> None:
        """Cancel every level better than `tick` (exclusive)."""
        while (self.best - tick) * self.sign > 0 and len(self.levels) > 1:
            self.put(self.best, 0)

    def top(self, count: int) -> Fills:
        """The best `count` levels, best first."""
        levels, sign = self.levels, self.sign
        found: Fills = []
        tick = self.best
        for _ in range(_WALK):
            if tick in levels:
                found.append((tick, levels[tick]))
                if len(found) == count:
                    return found
            tick -= sign
        best = heapq.nlargest(count, levels) if sign == BID else heapq.nsmallest(count, levels)
        return [(t, levels[t]) for t in best]

    def _after(self, tick: int) -> int:
        levels, sign = self.levels, self.sign
        for candidate in range(tick - sign, tick - sign * _WALK, -sign):
            if candidate in levels:
                return candidate
        return max(levels) if sign == BID else min(levels)


class Book:
    """Both sides. Whoever writes keeps `bids.best < asks.best`; `crossed` says whether that still holds."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = BookSide(BID)
        self.asks = BookSide(ASK)

    @property
    def crossed(self) -> bool:
        return self.bids.best >= self.asks.best

    @property
    def middle(self) -> float:
        """Middle of the touch, in ticks."""
        return (self.bids.best + self.asks.best) / 2

    @property
    def touch(self) -> tuple[int, int, int, int]:
        """Best bid (tick, lots) and best ask (tick, lots)."""
        bids, asks = self.bids, self.asks
        return bids.best, bids.levels[bids.best], asks.best, asks.levels[asks.best]

    def restore(self, bids: dict[int, int], asks: dict[int, int]) -> None:
        """Have these levels instead, tick -> lots, neither side empty; `drain` tells nothing of it."""
        for side, levels, best in ((self.bids, bids, max(bids)), (self.asks, asks, min(asks))):
            side.levels, side.touched, side.best = dict(levels), {}, best

    def drain(self) -> tuple[dict[int, int], dict[int, int]]:
        """Levels (bids, asks) changed since the last call, with their quantity now."""
        bids, asks = self.bids.touched, self.asks.touched
        self.bids.touched, self.asks.touched = {}, {}
        return bids, asks
