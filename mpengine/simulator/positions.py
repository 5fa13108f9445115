"""Leveraged positions of one synthetic symbol: who is in, at what price, and where each one dies. Pure.

Every opened contract has a long and a short, so the lots of both sides are always equal: that number is the open interest.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import Final

from shm.records import PositionSide

LONG: Final = PositionSide.LONG
SHORT: Final = PositionSide.SHORT


def maintenance_rate(leverage: float, mmr: float, max_leverage: int | None) -> float:
    """Maintenance margin rate of the first bracket; min(mmr, 0.5/L) where the bracket does not offer L (`spec: engine`, 7)."""
    return mmr if max_leverage is not None and leverage <= max_leverage else min(mmr, 0.5 / leverage)


def liquidation_price(side: PositionSide, entry: float, leverage: float, rate: float) -> float:
    """Isolated, linear contract: long E(1 - 1/L)/(1 - m), short E(1 + 1/L)/(1 + m) (`spec: engine`, section 7)."""
    if not (entry > 0 and leverage >= 1 and math.isfinite(entry)):
        raise ValueError(f"entry must be positive and leverage >= 1, were {entry} and {leverage}")
    if side is LONG:
        return entry * (1 - 1 / leverage) / (1 - rate)
    return entry * (1 + 1 / leverage) / (1 + rate)


def bankruptcy_price(side: PositionSide, entry: float, leverage: float) -> float:
    """Where the margin is gone: the limit of the forced order."""
    return entry * (1 - 1 / leverage) if side is LONG else entry * (1 + 1 / leverage)


@dataclass(slots=True, eq=False)
class Position:
    """One open position. Prices in USD, `lots` of the symbol's lot size; `index` is its place among its side."""

    side: PositionSide
    entry: float
    leverage: int
    lots: int
    liquidation: float
    opened_ns: int
    index: int = -1


class Positions:
    """Open positions of both sides, findable at random (closings) and by liquidation price (the mark crossing it)."""

    def __init__(self, mmr: float, max_leverage: int | None) -> None:
        self._mmr = mmr
        self._max_leverage = max_leverage
        self._open: dict[PositionSide, list[Position]] = {LONG: [], SHORT: []}
        self._lots = {LONG: 0, SHORT: 0}
        # Nearest liquidation first; closed positions stay until they surface. The number breaks ties, so order is repeatable.
        self._queue: dict[PositionSide, list[tuple[float, int, Position]]] = {LONG: [], SHORT: []}
        self._number = 0

    def lots(self, side: PositionSide) -> int:
        """Open lots of one side."""
        return self._lots[side]

    def count(self, side: PositionSide) -> int:
        return len(self._open[side])

    def of(self, side: PositionSide) -> list[Position]:
        """Open positions of a side (a copy of the list, the live positions)."""
        return list(self._open[side])

    def price(self, side: PositionSide, entry: float, leverage: int) -> float:
        """Liquidation price a new position would get."""
        return liquidation_price(side, entry, leverage, maintenance_rate(leverage, self._mmr, self._max_leverage))

    def open(self, side: PositionSide, entry: float, leverage: int, lots: int, now_ns: int) -> Position:
        """Add a position of `lots` >= 1. The caller opens the other side with as many lots."""
        if lots < 1:
            raise ValueError(f"a position needs at least one lot, had {lots}")
        position = Position(side, entry, leverage, lots, self.price(side, entry, leverage), now_ns)
        places = self._open[side]
        position.index = len(places)
        places.append(position)
        self._lots[side] += lots
        self._number += 1
        queue = self._queue[side]
        heapq.heappush(queue, (self._rank(position), self._number, position))
        if len(queue) > 2 * len(places) + 256:
            self._queue[side] = [item for item in queue if item[2].index >= 0]
            heapq.heapify(self._queue[side])
        return position

    def clear(self) -> None:
        """Forget every position."""
        for side in (LONG, SHORT):
            for position in self._open[side]:
                position.index = -1
            self._open[side], self._lots[side], self._queue[side] = [], 0, []

    def reduce(self, position: Position, lots: int) -> None:
        """Take lots off an open position; at 0 it is closed. Margin shrinks with it, so the liquidation price stays."""
        if not 0 < lots <= position.lots or position.index < 0:
            raise ValueError(f"cannot take {lots} of {position.lots} lots")
        position.lots -= lots
        self._lots[position.side] -= lots
        if not position.lots:
            self._remove(position)

    def close_some(self, side: PositionSide, lots: int, uniform: float) -> None:
        """Voluntary closing of `lots` of a side (or all there are), starting at a random position and going round."""
        places = self._open[side]
        at = int(uniform * len(places))
        while lots > 0 and places:
            position = places[at % len(places)]
            part = min(lots, position.lots)
            self.reduce(position, part)
            lots -= part
            at += 1

    def crossed(self, mark: float) -> list[Position]:
        """Removes and returns the positions whose liquidation price the mark has reached (long: mark <=, short: mark >=)."""
        found = []
        for side in (LONG, SHORT):
            queue = self._queue[side]
            while queue:
                position = queue[0][2]
                if position.index >= 0:
                    if (mark > position.liquidation) if side is LONG else (mark < position.liquidation):
                        break
                    found.append(position)
                    self._lots[side] -= position.lots
                    self._remove(position)
                heapq.heappop(queue)
        return found

    def _remove(self, position: Position) -> None:
        places = self._open[position.side]
        last = places.pop()
        if last is not position:
            places[position.index] = last
            last.index = position.index
        position.index = -1

    @staticmethod
    def _rank(position: Position) -> float:
        return -position.liquidation if position.side is LONG else position.liquidation
