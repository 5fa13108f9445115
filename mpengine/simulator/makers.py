"""The makers of one synthetic symbol: the shape of the resting book and its unrest. Pure.

Levels sit on a lattice that gets coarser with the distance from the touch (1, 5, 10, 50, ... ticks; each step divides the next),
as people quote round prices far away. So +/-10 % of a fine-ticked symbol is some thousand levels, not hundreds of thousands.
Every change keeps bids below asks.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Final

from mpengine.simulator.book import Book, BookSide
from mpengine.simulator.draws import Draws

REACH: Final = 0.10  # of the price, per side
DENSE_TICKS: Final = 250  # a lattice step of n ticks begins 250 n ticks from the touch
OCCUPIED: Final = 0.85
SPREAD_OF_SIZES: Final = 0.9  # sigma of the log quantity
ROUND: Final = 0.001  # walls at the round prices of this part of the price; larger ones at every tenth of them
FOLLOW_NEAR: Final = 6
FOLLOW_RANDOM: Final = 10
SWEEP_EVERY: Final = 150  # steps
SWEEP_BATCH: Final = 12


class Makers:
    """Who quotes. `tick_usd`, `lot_base`: sizes of a tick and a lot; `depth_usd`: typical value of a level near the touch."""

    def __init__(self, tick_usd: float, lot_base: float, price: float, depth_usd: float, draws: Draws) -> None:
        self._lot_value = tick_usd * lot_base  # USD of one lot at a price of one tick
        self._depth_usd = depth_usd
        self._draws = draws
        self._chain = _chain(int(price * REACH / tick_usd) // DENSE_TICKS)
        self._edges = [step * DENSE_TICKS for step in self._chain[1:]]
        self._wall = max(step for step in _chain(int(price * ROUND / tick_usd)))
        self._stale: list[int] = []
        self._steps = 0

    def lattice(self, distance: int) -> int:
        """Spacing of levels, in ticks, at a distance from the touch."""
        return self._chain[bisect_right(self._edges, distance)]

    def lots(self, tick: int, distance: int) -> int:
        """A quantity for a level: heavy on walls and on coarse lattice points, thin right at the touch."""
        step = self.lattice(distance)
        points = distance / tick * 1e4
        usd = self._depth_usd * (0.35 + 1.65 * points / (points + 4.0)) * math.sqrt(step)
        usd *= math.exp(SPREAD_OF_SIZES * self._draws.normal())
        if tick % self._wall == 0:
            usd *= 12.0 if tick % (self._wall * 10) == 0 else 4.0
        return max(1, int(usd / (tick * self._lot_value)))

    def seed(self, book: Book, bid: int, ask: int) -> None:
        """Fill an empty book around a touch. Raises ValueError where the touch is crossed or not positive."""
        if not 0 < bid < ask:
            raise ValueError(f"a touch must be positive and uncrossed, was {bid}, {ask}")
        self._quote(book.bids, bid, 0)
        self._quote(book.asks, ask, 0)
        distance, span = 1, int(bid * REACH)
        while distance <= span:
            step = self.lattice(distance)
            for side, touch in ((book.bids, bid), (book.asks, ask)):
                tick = (touch - side.sign * distance) // step * step
                if tick > 0 and (touch - tick) * side.sign > 0 and self._draws.uniform() < OCCUPIED:
                    self._quote(side, tick, (touch - tick) * side.sign)
            distance += step

    def follow(self, book: Book, bid: int, ask: int) -> None:
        """Move the touch to (bid, ask), bid < ask: cancel what is in the way, fill what the price left behind."""
        book.bids.retreat(bid)
        book.asks.retreat(ask)
        # A side's last level cannot be cancelled; should it be in the way, the other side waits one tick off it.
        self._advance(book.bids, min(bid, book.asks.best - 1))
        self._advance(book.asks, max(ask, book.bids.best + 1))

    def fidget(self, book: Book, near: int, far: int) -> None:
        """New quantities, cancels and orders: `near` some ticks from the touch, `far` anywhere within reach; then a sweep."""
        draws = self._draws
        for index in range(near + far):
            side = book.bids if draws.uniform() < 0.5 else book.asks
            if index >= near:
                distance = int(DENSE_TICKS * (side.best * REACH / DENSE_TICKS) ** draws.uniform())
            elif draws.uniform() < 0.6:
                distance = int(12 * draws.exponential())
            else:
                distance = int(DENSE_TICKS * 1.5 * draws.uniform())
            step = self.lattice(distance)
            tick = (side.best - side.sign * distance) // step * step
            distance = (side.best - tick) * side.sign
            if tick <= 0 or distance < 0:
                continue
            if distance and draws.uniform() > OCCUPIED:
                side.put(tick, 0)
            else:
                self._quote(side, tick, distance)
        self._sweep(book)

    def _quote(self, side: BookSide, tick: int, distance: int) -> None:
        side.put(tick, self.lots(tick, distance))

    def _advance(self, side: BookSide, touch: int) -> None:
        """Quote at `touch` and at some levels between it and the old best."""
        gap = (touch - side.best) * side.sign
        if gap <= 0 or touch <= 0:
            return
        distances = set(range(1, min(gap, FOLLOW_NEAR)))
        distances.update(int(gap * self._draws.uniform()) for _ in range(min(FOLLOW_RANDOM, gap)))
        self._quote(side, touch, 0)
        for distance in sorted(distances - {0}):
            tick = touch - side.sign * distance
            if tick > 0:
                self._quote(side, tick, distance)

    def _sweep(self, book: Book) -> None:
        """Cancel, a few per step, what the moving price left off the lattice or out of reach: the book stays bounded."""
        self._steps += 1
        if not self._stale and self._steps % SWEEP_EVERY == 0:
            for side in (book.bids, book.asks):
                self._stale += [side.sign * tick for tick in side.levels if self._misplaced(side, tick)]
        for _ in range(min(SWEEP_BATCH, len(self._stale))):
            signed = self._stale.pop()
            side = book.bids if signed > 0 else book.asks
            if self._misplaced(side, abs(signed)):
                side.put(abs(signed), 0)

    def _misplaced(self, side: BookSide, tick: int) -> bool:
        # Twice the distance: a level is left alone until the price has clearly gone away, else the edges would flicker.
        distance = (side.best - tick) * side.sign
        return tick % self.lattice(distance // 2) != 0 or distance > side.best * REACH * 1.1


def _chain(limit: int) -> list[int]:
    """1, 5, 10, 50, 100, ... up to `limit` (at least [1])."""
    chain = [1]
    while (following := chain[-1] * (2 if len(chain) % 2 == 0 else 5)) <= limit:
        chain.append(following)
    return chain
