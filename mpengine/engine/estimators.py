"""What the calibrator measures beside the tier weights (`spec: engine`, sections 13.1, 13.3, 13.7-13.9). Pure.

Event weights, maintenance margin rates, volatility, the bias of projected levels, and two monitors that teach nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mpengine.brackets import Bracket
from mpengine.engine.buckets import Keys
from mpengine.heatmap import Grid, RawMap
from shm.records import PositionSide, Venue

WINSOR_WINDOW: Final = 2000
WINSOR_MIN: Final = 100
WINSOR_QUANTILE: Final = 0.99

MMR_VENUES: Final = (Venue.BINANCE, Venue.BYBIT)
MMR_MIN_SAMPLES: Final = 30
MMR_WINDOW: Final = 500
MMR_MIN: Final = 0.002
MMR_MAX: Final = 0.02
MMR_SAMPLE_MAX: Final = 0.05

BIAS_ETA: Final = 0.10
BIAS_CAP: Final = 0.008
MIN_BIAS_SAMPLES: Final = 10
BIAS_WINDOW: Final = 2000

VOL_BASELINE: Final = 0.0015
VOL_EWMA_ALPHA: Final = 0.1
VOL_SCALE_MIN: Final = 0.7
VOL_SCALE_MAX: Final = 1.6

HIT_BUCKET_TOLERANCE: Final = 4
NEAR_MAPS: Final = 61
"""One more than the records held: an event of the oldest one is judged by the map before it."""

APPROACH_PCT: Final = 0.0075
LEFT_PCT: Final = 2 * APPROACH_PCT
SAME_POOL_PCT: Final = 0.0025


class Winsor:
    """Cap of an event's weight: the 99th percentile (linear) of the last 2,000 notionals, the event's own among them.

    Kept sorted, so that an event costs two binary searches and the answer is exact at each of them, not once per minute.
    """

    __slots__ = ("_recent", "_sorted")

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def on_notional(self, usd: float) -> float:
        """An event of `usd` came: its weight x. Itself while fewer than 100 are known."""
        self._recent.append(usd)
        insort(self._sorted, usd)
        if len(self._recent) > WINSOR_WINDOW:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]
        return usd if len(self._recent) < WINSOR_MIN else min(usd, self._cap())

    def _cap(self) -> float:
        place = WINSOR_QUANTILE * (len(self._sorted) - 1)
        below = int(place)
        low, high = self._sorted[below], self._sorted[min(below + 1, len(self._sorted) - 1)]
        return low + (high - low) * (place - below)

    def state_of(self) -> bytes:
        """Everything needed to go on from here."""
        return np.array(self._recent, np.float64).tobytes()

    def restore(self, state: bytes) -> None:
        """Go on from `state_of`."""
        self._recent = deque(np.frombuffer(state, np.float64).tolist())
        self._sorted = sorted(self._recent)


class MmrEstimator:
    """Maintenance margin rate per venue, from how far beyond the mark bankruptcy prices print (section 13.7).

    `first`: venue -> first bracket; larger positions follow other rates and are left out. `rates`: the values in force, by venue,
    taken over at an update; empty for a venue without one. `dropped`: samples on the wrong side or too far to be true.
    """

    __slots__ = ("_caps", "_samples", "dropped", "rates")

    def __init__(self, first: Mapping[Venue, Bracket | None]) -> None:
        rows = {venue: first.get(venue) for venue in MMR_VENUES}
        self._caps = {venue: float("inf") if row is None else row.cap_usd for venue, row in rows.items()}
        self._samples: dict[Venue, deque[float]] = {venue: deque(maxlen=MMR_WINDOW) for venue in MMR_VENUES}
        self.rates: dict[Venue, float] = {}
        self.dropped = 0

    def on_event(self, venue: Venue, side: PositionSide, bankruptcy: float, qty: float, mark: float) -> None:
        """A liquidation with a mark not older than 5 s. V: p 82,338.30, mark 82,660: .003892."""
        samples = self._samples.get(venue)
        if samples is None or bankruptcy * qty > self._caps[venue]:
            return
        beyond = (mark - bankruptcy if side is PositionSide.LONG else bankruptcy - mark) / mark
        if 0.0 < beyond <= MMR_SAMPLE_MAX:
            samples.append(beyond)
        else:
            self.dropped += 1

    def on_update(self) -> list[Venue]:
        """Take the medians over; the venues whose rate changed."""
        changed = list[Venue]()
        for venue, samples in self._samples.items():
            if len(samples) < MMR_MIN_SAMPLES:
                continue
            rate = min(max(median(samples), MMR_MIN), MMR_MAX)
            if rate != self.rates.get(venue):
                self.rates[venue] = rate
                changed.append(venue)
        return changed

    def samples(self, venue: Venue) -> int:
        """How many samples the venue's median would be of."""
        return len(self._samples.get(venue, ()))

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "samples": [[int(venue), list(samples)] for venue, samples in self._samples.items()],
            "rates": [[int(venue), rate] for venue, rate in self.rates.items()],
            "dropped": self.dropped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_of`."""
        self._samples = {Venue(venue): deque(samples, maxlen=MMR_WINDOW) for venue, samples in state["samples"]}
        self.rates = {Venue(venue): rate for venue, rate in state["rates"]}
        self.dropped = state["dropped"]


class BiasMonitor:
    """How far from the mark liquidations trigger, per side, as a fraction (section 13.8). `values`: (long, short) b."""

    __slots__ = ("_samples", "values")

    def __init__(self) -> None:
        self.values = (0.0, 0.0)
        self._samples: tuple[deque[float], deque[float]] = (deque(maxlen=BIAS_WINDOW), deque(maxlen=BIAS_WINDOW))

    def on_event(self, row: int, trigger: float, mark: float) -> None:
        """A liquidation with a mark not older than 5 s."""
        # b moves at updates only and these take the samples, so the residual can be taken there as well.
        self._samples[row].append((trigger - mark) / mark)

    def on_update(self) -> None:
        """Move b a tenth of the median residual, where there are 10 samples. V: constant miss .006: .0006, .00114, .001626."""
        long, short = (self._moved(b, samples) for b, samples in zip(self.values, self._samples))
        self.values = (long, short)

    @staticmethod
    def _moved(b: float, samples: deque[float]) -> float:
        if len(samples) < MIN_BIAS_SAMPLES:
            return b
        moved = b + BIAS_ETA * (median(samples) - b)
        samples.clear()
        return min(max(moved, -BIAS_CAP), BIAS_CAP)

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {"values": list(self.values), "samples": [list(samples) for samples in self._samples]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_of`."""
        long, short = state["values"]
        self.values = (long, short)
        first, second = state["samples"]
        self._samples = (deque(first, maxlen=BIAS_WINDOW), deque(second, maxlen=BIAS_WINDOW))


class Volatility:
    """Smoothed range of a minute as a fraction of its price. `value`: starts at the baseline, 0.0015."""

    __slots__ = ("value",)

    def __init__(self, value: float = VOL_BASELINE) -> None:
        self.value = value

    def on_minute(self, src: float, high: float, low: float) -> None:
        """A minute ended. V: .0015, observation .003: .00165."""
        self.value = (1.0 - VOL_EWMA_ALPHA) * self.value + VOL_EWMA_ALPHA * (high - low) / src

    @property
    def scale(self) -> float:
        """By how much distances count less than at the baseline, in [0.7, 1.6]."""
        return min(max(self.value / VOL_BASELINE, VOL_SCALE_MIN), VOL_SCALE_MAX)


class NearMonitor:
    """Share of events within 4 buckets of a positive bucket of the raw map.

    An event is judged by the newest map *before* its minute: the map of its own minute already holds the event itself.
    """

    __slots__ = ("_maps", "events", "near")

    def __init__(self) -> None:
        self._maps: deque[tuple[int, int, npt.NDArray[np.bool_]]] = deque(maxlen=NEAR_MAPS)
        self.events = self.near = 0

    def on_minute(self, minute: int, grid: Grid, raw: RawMap) -> None:
        """The map that a minute ended with."""
        padded = np.pad(raw.values > 0.0, ((0, 0), (2 * HIT_BUCKET_TOLERANCE + 1, 2 * HIT_BUCKET_TOLERANCE)))
        counts = np.cumsum(padded, axis=1, dtype=np.int64)
        width = 2 * HIT_BUCKET_TOLERANCE + 1
        if self._maps and minute <= self._maps[-1][0]:  # the clock was set back
            self._maps.clear()
        self._maps.append((minute, grid.origin - HIT_BUCKET_TOLERANCE, counts[:, width:] > counts[:, :-width]))

    def on_events(self, minute: int, row: int, buckets: Keys) -> None:
        """Events of one minute and side, int64[n] buckets of their trigger prices."""
        before = next((one for one in reversed(self._maps) if one[0] < minute), None)
        if before is None:
            return
        _, origin, mask = before
        places = buckets - origin
        inside = places[(places >= 0) & (places < mask.shape[1])]
        self.events += len(buckets)
        self.near += int(mask[row, inside].sum())

    @property
    def share(self) -> float | None:
        """None before the first event that could be judged."""
        return self.near / self.events if self.events else None

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        maps = [[minute, origin, mask.shape[1], np.packbits(mask, axis=1).tobytes()] for minute, origin, mask in self._maps]
        return {"maps": maps, "events": self.events, "near": self.near}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_of`."""
        self._maps.clear()
        for minute, origin, count, packed in state["maps"]:
            rows = np.frombuffer(packed, np.uint8).reshape(2, -1)
            self._maps.append((minute, origin, np.unpackbits(rows, axis=1, count=count).astype(np.bool_)))
        self.events, self.near = state["events"], state["near"]


class ApproachMonitor:
    """Pools that the price came near to, within 0.75 %, and how many of these it crossed.

    Pools are made anew each minute and have no name: one within 0.25 % of an approached one is the same, and counts once until the
    price has left it by 1.5 %. `approached`, `crossed`: totals.
    """

    __slots__ = ("_pools", "_watched", "approached", "crossed")

    def __init__(self) -> None:
        self._pools: tuple[tuple[int, float], ...] = ()
        self._watched: list[tuple[int, float, bool]] = []
        self.approached = self.crossed = 0

    def on_minute(self, src: float, high: float, low: float, pools: Sequence[tuple[int, float]]) -> None:
        """A minute ended; `pools` are (side row, price) of those published with it, which the next minute is judged by."""
        known = [(row, price) for row, price, _ in self._watched]
        fresh = [
            (row, price, False)
            for row, price in self._pools
            if _reaches(row, price * (1.0 + (APPROACH_PCT if row == 0 else -APPROACH_PCT)), high, low)
            and not any(row == side and abs(price - other) <= SAME_POOL_PCT * other for side, other in known)
        ]
        self.approached += len(fresh)
        watched = list[tuple[int, float, bool]]()
        for row, price, was_crossed in (*self._watched, *fresh):
            is_crossed = was_crossed or _reaches(row, price, high, low)
            self.crossed += is_crossed and not was_crossed
            if abs(price - src) <= LEFT_PCT * src:
                watched.append((row, price, is_crossed))
        self._watched, self._pools = watched, tuple(pools)

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "pools": [list(pool) for pool in self._pools],
            "watched": [list(one) for one in self._watched],
            "approached": self.approached,
            "crossed": self.crossed,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_of`."""
        self._pools = tuple((row, price) for row, price in state["pools"])
        self._watched = [(row, price, is_crossed) for row, price, is_crossed in state["watched"]]
        self.approached, self.crossed = state["approached"], state["crossed"]


def _reaches(row: int, price: float, high: float, low: float) -> bool:
    return low <= price if row == 0 else high >= price
