"""A market that looks like one and is the same every time: prices, walls of a book, masses of leveraged positions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Cells = npt.NDArray[np.float64]

WARM_UP: Final = 300
"""Minutes that are lived before the first that is shown, so that the map is not empty there."""
DECAY: Final = 0.996
TIERS: Final = ((10, 0.30), (20, 0.25), (25, 0.18), (50, 0.15), (100, 0.08), (125, 0.04))
MARGIN: Final = 0.004
_STEPS: Final = 6


class Bar(NamedTuple):
    """A minute: prices, USD by taker, and what it cleared of the map."""

    open: float
    high: float
    low: float
    close: float
    buy_usd: float
    sell_usd: float
    swept: list[tuple[float, bool, float]]
    """(price, was it a long, USD) of the largest masses that the price ran into."""

    @property
    def src(self) -> float:
        return (self.open + self.high + self.low + self.close) / 4


@dataclass(frozen=True)
class Shape:
    """One symbol: where it trades, on which grid, how much."""

    price: float
    step: float
    seed: int
    opened_usd: float = 9e6
    book_usd: float = 450_000.0
    range_pct: float = 0.10


SHAPES: Final = {
    "BTC": Shape(65_900.0, 20.0, 11),
    "ETH": Shape(3480.0, 1.0, 12, 4e6, 220_000.0),
    "SOL": Shape(182.0, 0.1, 13, 1.2e6, 60_000.0),
}


class Market:
    """Lives minute by minute: `minute()` is the next bar, `masses` and `book` what lies around the price after it."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._rng = np.random.default_rng(shape.seed)
        self.origin = round(shape.price * 0.5 / shape.step)
        self.size = round(shape.price / shape.step)
        self.price = shape.price
        self._drift = 0.0
        self._planes = np.zeros((4, self.size))  # tape long, tape short, projected long, projected short
        self._walls = self._rng.random(self.size) ** 40 * 14.0
        for _ in range(WARM_UP):
            self.minute()

    def _index(self, price: float) -> int:
        return min(self.size - 1, max(0, round(price / self.shape.step) - self.origin))

    def minute(self) -> Bar:
        """Move on by a minute."""
        rng = self._rng
        pull = (self.shape.price - self.price) / self.shape.price * 0.0015
        self._drift = 0.6 * self._drift + rng.normal(0.0, 0.000025)
        path = self.price * np.cumprod(1 + self._drift + pull + rng.normal(0.0, 0.0004, _STEPS))
        opened, self.price = self.price, float(path[-1])
        low, high = min(opened, float(path.min())), max(opened, float(path.max()))
        # A few minutes open most of what is open: that is what makes bands.
        usd = float(self.shape.opened_usd * (0.02 + rng.exponential(0.35) ** 4 * 6))
        share = 0.5 + 0.3 * float(np.tanh(self._drift * 6000))
        bar = Bar(opened, high, low, self.price, usd * share, usd * (1 - share), self._sweep(low, high))
        self._open_positions(bar)
        return bar

    def jump(self, factor: float) -> None:
        """The next minute trades somewhere else."""
        self.price *= factor

    def _sweep(self, low: float, high: float) -> list[tuple[float, bool, float]]:
        first, last = self._index(low), self._index(high)
        swept = []
        for plane, is_long in ((2, True), (3, False)):
            hit = self._planes[plane, first : last + 1]
            if hit.size and hit.max() > 0:
                at = int(hit.argmax())
                swept.append(((self.origin + first + at) * self.shape.step, is_long, float(hit[at])))
            hit *= 0.12
        self._planes[:2, first : last + 1] *= 0.5
        return swept

    def _open_positions(self, bar: Bar) -> None:
        self._planes *= DECAY
        for leverage, weight in TIERS:
            room = 1 / leverage - MARGIN
            for plane, usd, price in ((2, bar.buy_usd, bar.src * (1 - room)), (3, bar.sell_usd, bar.src * (1 + room))):
                at = self._index(price)
                self._planes[plane, at - 1 : at + 2] += (
                    np.array([0.2, 0.6, 0.2])[: self._planes[plane, at - 1 : at + 2].size] * usd * weight
                )
        for price, is_long, usd in bar.swept:
            self._planes[0 if is_long else 1, self._index(price)] += usd * 0.02

    def masses(self, origin: int, count: int) -> Cells:
        """USD float64[4, count] of the map from absolute index `origin`: longs below the price, shorts above it."""
        found = self._window(self._planes, origin, count)
        at = round(self.price / self.shape.step) - origin
        found[(0, 2), max(0, at) :] = 0.0
        found[(1, 3), : max(0, at + 1)] = 0.0
        found[found < 50.0] = 0.0
        return found

    def book(self, origin: int, count: int) -> Cells:
        """USD float64[2, count] of resting orders: thinner far away, walls that stay where they are."""
        at = self.price / self.shape.step - origin
        rows = np.arange(count)
        away = np.abs(rows - at) / (self.size * self.shape.range_pct)
        walls = self._window(self._walls[None], origin, count)[0]
        usd = self.shape.book_usd * (0.06 + np.exp(-7 * away)) * (0.5 + self._rng.random(count)) * (1 + walls)
        found = np.zeros((2, count))
        found[0] = np.where(rows < at, usd, 0.0)
        found[1] = np.where(rows > at, usd, 0.0)
        return found

    def _window(self, planes: Cells, origin: int, count: int) -> Cells:
        found = np.zeros((planes.shape[0], count))
        first = origin - self.origin
        low, high = max(0, first), min(self.size, first + count)
        if low < high:
            found[:, low - first : high - first] = planes[:, low:high]
        return found

    def zones(self, each: int) -> list[tuple[float, bool, float, float]]:
        """(price, is it of longs, projected USD, tape USD) of the largest masses of each side, none beside a larger one."""
        at, found = self._index(self.price), []
        for plane, is_long in ((2, True), (3, False)):
            masses = self._planes[plane].copy()
            masses[at:] *= not is_long
            masses[: at + 1] *= is_long
            for _ in range(each):
                best = int(masses.argmax())
                if masses[best] <= 0:
                    break
                found.append(
                    ((self.origin + best) * self.shape.step, is_long, float(masses[best]), float(self._planes[plane - 2, best]))
                )
                masses[max(0, best - 4) : best + 5] = 0.0
        return found
