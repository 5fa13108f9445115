"""Dense tick ladder of one book: quantity per tick and side as float64 arrays. Pure; used by `book`.

Tick index = rint(price / tick), half to even; a ladder holds ticks origin .. origin + size - 1, which is the reference price +/-
the prune range. Levels outside are dropped and counted. It re-centres when the mid leaves the middle third.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shm.grid import bucket_of, buckets_of, ndigits, prices_of

SCAN: Final = 64
MAX_TICKS: Final = 4_000_000
LARGEST_QTY: Final = 1e15
_NEVER: Final = 2**63 - 1

Floats = npt.NDArray[np.float64]


class BadLevels(ValueError):
    """Levels with a non-finite, negative or absurd number; nothing of them was applied."""


class LevelBlock:
    """The float64 pairs of a whole batch body, decoded at once; headers in between come out as numbers that nobody asks for.

    PERF: a diff has tens of levels, and a numpy call costs as much as ten of them. Doing the conversions once per batch instead of
    once per diff takes half of the time of a diff that arrives with others (bench wire). A single diff is a block of its own.
    """

    __slots__ = ("_bad", "_grid", "_index", "_places", "prices", "qty")

    def __init__(self, body: bytes) -> None:
        # Copies, not strided views: fancy assignment from a strided source costs five times as much.
        pairs = np.frombuffer(body, np.float64).reshape(-1, 2)
        self.prices, self.qty = pairs[:, 0].copy(), pairs[:, 1].copy()
        self._grid: object = None
        self._index: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._places: list[int] = []
        with np.errstate(all="ignore"):
            # NaN fails every comparison, so these cover NaN, infinities and negatives. A price of 0 (padding) is below any ladder.
            good = (self.qty >= 0.0) & (self.qty < LARGEST_QTY) & (self.prices >= 0.0) & (self.prices < math.inf)
        # PERF: a batch of diffs has no bad pair at all, headers included; the running count is made for the others only.
        self._bad: list[int] | None = None if good.all() else [0, *np.cumsum(~good).tolist()]

    def sound(self, start: int, stop: int) -> bool:
        """Whether each pair from `start` to before `stop` is finite and not negative, its quantity below LARGEST_QTY."""
        return self._bad is None or self._bad[start] == self._bad[stop]

    def on_grid(self, ladder: Ladder) -> tuple[npt.NDArray[np.int64], list[int]]:
        """Tick indices within `ladder`, as array and list: -1 below it, its size above. Meaningless where there is no price."""
        if self._grid is not ladder.grid:
            with np.errstate(all="ignore"):
                # Clipped while they are floats: a huge price must not wrap into the ladder when it becomes an integer.
                at = np.clip(np.rint(self.prices / ladder.tick) - ladder.origin, -1.0, ladder.size)
                self._index = at.astype(np.int64)
            self._places = self._index.tolist()
            self._grid = ladder.grid
        return self._index, self._places

    def raw(self, start: int, count: int) -> bytes:
        """The bytes of `count` pairs from pair `start`."""
        return np.stack((self.prices[start : start + count], self.qty[start : start + count]), axis=1).tobytes()


class Ladder:
    """Both sides of one venue's book around a reference price. `tick` > 0; `prune_pct` is the half-width as a fraction."""

    __slots__ = (
        "_all_ask",
        "_all_bid",
        "_ask_view",
        "_bid_view",
        "_mid_scale",
        "_price_view",
        "_prices",
        "_tick_units",
        "ask",
        "ask_unverified",
        "best_ask",
        "best_bid",
        "bid",
        "bid_unverified",
        "dropped", "grid",
        "has_unverified",
        "origin",
        "prune_pct",
        "size",
        "tick",
    )  # fmt: skip

    def __init__(self, tick: float, prune_pct: float, reference: float) -> None:
        self.tick = tick
        self.prune_pct = prune_pct
        self.dropped = 0
        self.best_bid, self.best_ask = -1, 0
        self._allocate(reference)

    def _allocate(self, reference: float) -> None:
        low = bucket_of(reference * (1 - self.prune_pct), self.tick)
        high = bucket_of(reference * (1 + self.prune_pct), self.tick)
        if high - low + 1 > MAX_TICKS:
            raise ValueError(f"a ladder of {high - low + 1} ticks is too large: tick {self.tick} does not fit price {reference}")
        self.origin: int = low
        self.size: int = high - low + 1
        self._make_arrays()

    def _make_arrays(self) -> None:
        self.grid = object()  # a new one for each window, so that a block knows for which one it was converted
        # One element more than ticks: -1 and `size`, what lies outside, both mean the last one, which nobody reads.
        self._all_bid, self._all_ask = np.zeros(self.size + 1), np.zeros(self.size + 1)
        self.bid, self.ask = self._all_bid[:-1], self._all_ask[:-1]
        # Engine time since when nothing has confirmed a level; 0: confirmed. A level keeps its own time over any number of resyncs.
        self.bid_unverified, self.ask_unverified = np.zeros(self.size + 1, np.int64), np.zeros(self.size + 1, np.int64)
        self.has_unverified = False
        self._bid_view: memoryview[float] = self.bid.data.cast("B").cast("d")
        self._ask_view: memoryview[float] = self.ask.data.cast("B").cast("d")
        scale = 10 ** ndigits(self.tick)
        self._tick_units: int = round(self.tick * scale)
        self._mid_scale: int = 2 * scale
        self._prices = prices_of(self.origin, self.size, self.tick)
        self._price_view: memoryview[float] = self._prices.data.cast("B").cast("d")
        self._rescan()

    # reading -----------------------------------------------------------------------------------------------------------

    @property
    def bid_price(self) -> float | None:
        """Best bid, None on an empty side."""
        return self._price_view[self.best_bid] if self.best_bid >= 0 else None

    @property
    def ask_price(self) -> float | None:
        """Best ask, None on an empty side."""
        return self._price_view[self.best_ask] if self.best_ask < self.size else None

    @property
    def crossed(self) -> bool:
        """Best bid at or above best ask."""
        return self.best_bid >= self.best_ask

    @property
    def mid(self) -> float | None:
        """Mean of best bid and ask; None while a side is empty or the book is crossed or locked."""
        if not 0 <= self.best_bid < self.best_ask < self.size:
            return None
        # Whole ticks, divided once: 3,499.46 and 3,499.48 have the mid 3,499.47 and not its neighbour.
        ticks: int = 2 * self.origin + self.best_bid + self.best_ask
        return ticks * self._tick_units / self._mid_scale

    def level_counts(self) -> tuple[int, int, int]:
        """(bids, asks, unverified of both)."""
        unverified = int(np.count_nonzero(self.bid_unverified[:-1])) + int(np.count_nonzero(self.ask_unverified[:-1]))
        return int(np.count_nonzero(self.bid)), int(np.count_nonzero(self.ask)), unverified

    def levels(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """(bids, asks) as (price, quantity), best first."""
        bids, asks = np.flatnonzero(self.bid)[::-1], np.flatnonzero(self.ask)
        return (
            list(zip(self._prices[bids].tolist(), self.bid[bids].tolist())),
            list(zip(self._prices[asks].tolist(), self.ask[asks].tolist())),
        )

    def total_usd(self) -> tuple[float, float]:
        """(bid, ask): sum of price x quantity of each side."""
        return self._side_usd(self.bid), self._side_usd(self.ask)

    def _side_usd(self, side: Floats) -> float:
        # NOTE: not `prices @ side`: the BLAS behind it wakes its threads, which stalled a loaded two-core machine for 20 ms.
        at = np.flatnonzero(side > 0.0)
        return float((self._prices[at] * side[at]).sum())

    def usd_by_bucket(self, step: float) -> tuple[int, Floats, Floats]:
        """(first bucket, bid USD, ask USD): sum of price x quantity over the ticks whose bucket it is, float64[buckets] each."""
        first = bucket_of(float(self._prices[0]), step)
        count = bucket_of(float(self._prices[-1]), step) - first + 1
        return first, self._bucket_side(self.bid, first, count, step), self._bucket_side(self.ask, first, count, step)

    def _bucket_side(self, side: Floats, first: int, count: int, step: float) -> Floats:
        # PERF: over the levels that exist, not over all ticks: a book has thousands of levels on a quarter million ticks.
        at = np.flatnonzero(side > 0.0)
        prices = self._prices[at]
        total: Floats = np.bincount(buckets_of(prices, step) - first, prices * side[at], count).astype(np.float64, copy=False)
        return total

    # writing -----------------------------------------------------------------------------------------------------------

    def apply(self, block: LevelBlock, start: int, bids: int, asks: int) -> None:
        """Absolute quantities of one diff: pairs `start` .. `start` + bids + asks - 1 of the block, bids first; 0 removes.

        Raises BadLevels, before anything is changed, for numbers that cannot be in a book.
        """
        split, stop = start + bids, start + bids + asks
        if not block.sound(start, stop):
            raise BadLevels("level out of range")
        index, all_places = block.on_grid(self)
        size = self.size
        if bids:
            self._all_bid[index[start:split]] = block.qty[start:split]
            places = all_places[start:split]
            self.dropped += places.count(-1)
            # Nothing can be above the highest tick that was touched or the best before, so the best is there or below.
            highest = max(places)
            if highest == size:
                self.dropped += places.count(size)
                highest = max((place for place in places if place < size), default=-1)
            if highest >= self.best_bid and highest >= 0:
                self.best_bid = highest if self._bid_view[highest] else _last_nonzero(self.bid, highest)
        if asks:
            self._all_ask[index[split:stop]] = block.qty[split:stop]
            places = all_places[split:stop]
            self.dropped += places.count(size)
            lowest = min(places)
            if lowest == -1:
                self.dropped += places.count(-1)
                lowest = min((place for place in places if place >= 0), default=size)
            if lowest <= self.best_ask and lowest < size:
                self.best_ask = lowest if self._ask_view[lowest] else _first_nonzero(self.ask, lowest)
        if self.has_unverified:
            self.bid_unverified[index[start:split]] = 0
            self.ask_unverified[index[split:stop]] = 0

    def clear_covered(self, low: float, high: float) -> None:
        """Remove what a snapshot of prices `low` to `high` is about to tell: every bid from `low` up, every ask from `high` down.

        That includes bids above `high` and asks below `low`. The snapshot says that there are none; if they stayed after the price
        has moved by more than the snapshot is wide, they would cross the book for as long as nothing touches them.
        """
        first = min(max(0, bucket_of(low, self.tick) - self.origin), self.size)
        last = max(0, min(self.size, bucket_of(high, self.tick) - self.origin + 1))
        self.bid[first:] = 0.0
        self.ask[:last] = 0.0
        self.bid_unverified[first:] = 0
        self.ask_unverified[:last] = 0
        self._rescan()

    def clear(self) -> None:
        """Remove every level."""
        self.bid[:] = 0.0
        self.ask[:] = 0.0
        self.bid_unverified[:] = 0
        self.ask_unverified[:] = 0
        self.has_unverified = False
        self._rescan()

    def mark_unverified(self, now_ns: int) -> None:
        """Every level that is there now stays only until a diff or a snapshot confirms it; `now_ns` above 0.

        A level that was unverified before keeps its earlier time.
        """
        for side, since in ((self.bid, self.bid_unverified), (self.ask, self.ask_unverified)):
            since[:-1][(side > 0.0) & (since[:-1] == 0)] = now_ns
            self.has_unverified |= bool(side.any())

    def oldest_unverified(self) -> int | None:
        """Since when the oldest unverified level is one; None without any."""
        if not self.has_unverified:
            return None
        times = [int(since[:-1][since[:-1] > 0].min(initial=_NEVER)) for since in (self.bid_unverified, self.ask_unverified)]
        return None if min(times) == _NEVER else min(times)

    def drop_unverified(self, before_ns: int) -> int:
        """Remove the levels that nothing has confirmed since `before_ns` or longer; how many they were."""
        dropped = 0
        for side, since in ((self.bid, self.bid_unverified), (self.ask, self.ask_unverified)):
            old = (since[:-1] > 0) & (since[:-1] <= before_ns)
            dropped += int(np.count_nonzero(old))
            side[old] = 0.0
            since[:-1][old] = 0
        self.has_unverified = self.oldest_unverified() is not None
        self._rescan()
        return dropped

    def drop_disproved(self) -> int:
        """Uncross the book: remove unverified levels that a confirmed one of the other side crosses or locks; how many they were.

        Nobody leaves an order across the touch: such a level was gone before the price came there, unseen in the hole before.
        """
        bids = self._confirmed(self.bid, self.bid_unverified)
        asks = self._confirmed(self.ask, self.ask_unverified)
        highest, lowest = _last_nonzero(bids, self.size - 1), _first_nonzero(asks, 0)
        dropped = 0
        for side, since, part in (
            (self.bid, self.bid_unverified, slice(lowest, self.size)),
            (self.ask, self.ask_unverified, slice(0, highest + 1)),
        ):
            gone = (since[part] > 0) & (side[part] > 0.0)
            dropped += int(np.count_nonzero(gone))
            side[part][gone] = 0.0
            since[part][gone] = 0
        self._rescan()
        return dropped

    @staticmethod
    def _confirmed(side: Floats, since: npt.NDArray[np.int64]) -> Floats:
        return np.where(since[:-1] == 0, side, 0.0)

    def _rescan(self) -> None:
        self.best_bid, self.best_ask = _last_nonzero(self.bid, self.size - 1), _first_nonzero(self.ask, 0)

    # moving ------------------------------------------------------------------------------------------------------------

    def needs_recentring(self, price: float) -> bool:
        """`price` has left the middle third."""
        at = price / self.tick - self.origin
        return not self.size / 3 <= at <= 2 * self.size / 3

    def recentre(self, reference: float) -> None:
        """Move the window to `reference`; levels that fall outside are dropped and counted."""
        before = (self.origin, self.bid, self.ask, self.bid_unverified, self.ask_unverified, self.has_unverified)
        self._allocate(reference)
        origin, *arrays, self.has_unverified = before
        low = max(self.origin, origin)
        high = min(self.origin + self.size, origin + arrays[0].size)
        if low < high:
            new, old = slice(low - self.origin, high - self.origin), slice(low - origin, high - origin)
            for target, source in zip((self.bid, self.ask, self.bid_unverified, self.ask_unverified), arrays):
                target[new] = source[old]
        kept = int(np.count_nonzero(self.bid)) + int(np.count_nonzero(self.ask))
        self.dropped += int(np.count_nonzero(arrays[0])) + int(np.count_nonzero(arrays[1])) - kept
        self._rescan()

    def with_tick(self, tick: float, reference: float) -> Ladder:
        """A ladder of another tick size with the same levels, each on the nearest new tick (quantities that meet are added).

        Where levels meet the sum is unverified if one of them is. Raises ValueError for a tick that does not fit the price.
        """
        fresh = Ladder(tick, self.prune_pct, reference)
        fresh.has_unverified = self.has_unverified
        sides = (
            (self.bid, self.bid_unverified, fresh.bid, fresh.bid_unverified),
            (self.ask, self.ask_unverified, fresh.ask, fresh.ask_unverified),
        )
        fresh.dropped = self.dropped
        for source, since, target, target_since in sides:
            at = np.flatnonzero(source)
            to = buckets_of(self._prices[at], tick) - fresh.origin
            inside = (to >= 0) & (to < fresh.size)
            fresh.dropped += int(np.count_nonzero(~inside))
            at, to = at[inside], to[inside]
            np.add.at(target, to, source[at])
            np.maximum.at(target_since, to, since[at])
        fresh._rescan()
        return fresh

    # checkpoint --------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything needed to rebuild this ladder bit by bit; only levels that exist take space."""
        bids, asks = np.flatnonzero(self.bid > 0.0), np.flatnonzero(self.ask > 0.0)
        return {
            "tick": self.tick, "prune_pct": self.prune_pct, "origin": self.origin, "size": self.size, "dropped": self.dropped,
            "has_unverified": self.has_unverified,
            "bid_at": bids.astype("<i8").tobytes(), "bid_qty": self.bid[bids].tobytes(),
            "ask_at": asks.astype("<i8").tobytes(), "ask_qty": self.ask[asks].tobytes(),
            "bid_since": self.bid_unverified[bids].tobytes(), "ask_since": self.ask_unverified[asks].tobytes(),
        }  # fmt: skip

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Ladder:
        """The ladder of `state`. Raises ValueError, KeyError or IndexError for a state that is not one."""
        ladder = cls.__new__(cls)
        ladder.tick, ladder.prune_pct, ladder.dropped = state["tick"], state["prune_pct"], state["dropped"]
        ladder.origin, ladder.size = state["origin"], state["size"]
        if not 0 < ladder.size <= MAX_TICKS or not math.isfinite(ladder.tick):
            raise ValueError("ladder state out of range")
        ladder._make_arrays()
        ladder.has_unverified = state["has_unverified"]
        ladder.bid[np.frombuffer(state["bid_at"], "<i8")] = np.frombuffer(state["bid_qty"], np.float64)
        ladder.ask[np.frombuffer(state["ask_at"], "<i8")] = np.frombuffer(state["ask_qty"], np.float64)
        ladder.bid_unverified[np.frombuffer(state["bid_at"], "<i8")] = np.frombuffer(state["bid_since"], "<i8")
        ladder.ask_unverified[np.frombuffer(state["ask_at"], "<i8")] = np.frombuffer(state["ask_since"], "<i8")
        ladder._rescan()
        return ladder


def _last_nonzero(side: Floats, start: int) -> int:
    """Largest index <= start with a quantity, -1 if none; looks near `start` first."""
    low = max(0, start - SCAN)
    near = side[low : start + 1].nonzero()[0]
    if near.size:
        return low + int(near[-1])
    far = side[:low].nonzero()[0]
    return int(far[-1]) if far.size else -1


def _first_nonzero(side: Floats, start: int) -> int:
    """Smallest index >= start with a quantity, len(side) if none; looks near `start` first."""
    high = start + SCAN
    near = side[start:high].nonzero()[0]
    if near.size:
        return start + int(near[0])
    far = side[high:].nonzero()[0]
    return high + int(far[0]) if far.size else side.size
