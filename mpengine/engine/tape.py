"""The liquidation tape: where positions really were liquidated (`spec: engine`, section 9). Pure.

A liquidation prints where the price is. A plain sweep would delete it at once, so a bucket is armed only when the price has left it
by a step, and an armed one is consumed as a whole when the price comes back.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from mpengine.engine.buckets import MAX_MAP_BUCKETS, Floats, Keys, bucket_prices, ordered_sum
from mpengine.engine.inference import DECAY_PER_MINUTE, SIDES, reached
from mpengine.engine.log_records import LogOut
from shm.grid import bucket_of
from shm.records import PositionSide

TAPE_MIN_BUCKET_USD: Final = 1.0
_ARRAYS: Final = (("keys", np.int64), ("usd", np.float64), ("armed", np.bool_), ("born", np.int64))


class TapeSide:
    """One side. `keys`: int64[n] ascending; `usd`: float64[n]; `armed`: bool[n]; `born`: int64[n] minute of the first event.

    `fresh`: bucket -> USD of the events since the last minute.
    """

    __slots__ = ("armed", "born", "evicted", "fresh", "keys", "usd")

    def __init__(self) -> None:
        self.keys: Keys = np.zeros(0, np.int64)
        self.usd: Floats = np.zeros(0)
        self.armed = np.zeros(0, np.bool_)
        self.born = np.zeros(0, np.int64)
        self.fresh: dict[int, float] = {}
        self.evicted = 0

    def keep(self, mask: Any) -> None:
        """Drop the buckets whose element of bool[n] is False."""
        self.keys, self.usd, self.armed, self.born = self.keys[mask], self.usd[mask], self.armed[mask], self.born[mask]

    def fold(self, keys: Keys, usd: Floats, minute: int) -> None:
        """Add the fresh USD of the minute, float64[m] at the ascending int64[m] `keys`; these buckets are not armed any more."""
        merged = np.union1d(self.keys, keys)
        old, new = np.searchsorted(merged, self.keys), np.searchsorted(merged, keys)
        total, armed, born = np.zeros(len(merged)), np.zeros(len(merged), np.bool_), np.full(len(merged), minute, np.int64)
        total[old], armed[old], born[old] = self.usd, self.armed, self.born
        total[new] += usd
        armed[new] = False
        self.keys, self.usd, self.armed, self.born = merged, total, armed, born

    def on_grid(self, origin: int, count: int) -> Floats:
        """float64[count] USD of the buckets from `origin` on."""
        first, stop = np.searchsorted(self.keys, (origin, origin + count))
        dense = np.zeros(count)
        dense[self.keys[first:stop] - origin] = self.usd[first:stop]
        return dense


class Tape:
    """Both sides. `events`, `total_usd` (long, short): all accepted events; `events_in_minute`: since the last rollover."""

    __slots__ = ("_step", "events", "events_in_minute", "sides", "total_usd")

    def __init__(self, step: float) -> None:
        self._step = step
        self.sides = (TapeSide(), TapeSide())
        self.events = self.events_in_minute = 0
        self.total_usd = [0.0, 0.0]

    def on_event(self, side: PositionSide, trigger: float, notional_usd: float) -> int:
        """An accepted liquidation; its bucket."""
        row, bucket = SIDES.index(side), bucket_of(trigger, self._step)
        fresh = self.sides[row].fresh
        fresh[bucket] = fresh.get(bucket, 0.0) + notional_usd
        self.events += 1
        self.events_in_minute += 1
        self.total_usd[row] += notional_usd
        return bucket

    def roll(self, minutes: int, minute: int, low: float, high: float) -> tuple[tuple[tuple[Keys, Floats], ...], list[LogOut]]:
        """`minute` ended, `minutes` after the one before. Per side (int64[m], float64[m]): buckets and USD that it added; logs.

        Arming comes last in a minute and is a call of its own (`arm`).
        """
        added, logs = list[tuple[Keys, Floats]](), list[LogOut]()
        for side, one in zip(SIDES, self.sides):
            one.usd = one.usd * DECAY_PER_MINUTE**minutes
            swept = one.armed & reached(side, one.keys, self._step, low, high)
            logs += [
                LogOut("sweeps", {"event": "swept", "side": side.name.lower(), "bucket": key, "usd": usd, "minutes": minute - born})
                for key, usd, born in zip(one.keys[swept].tolist(), one.usd[swept].tolist(), one.born[swept].tolist())
            ]
            one.keep(~swept & (one.usd >= TAPE_MIN_BUCKET_USD))
            keys = np.array(sorted(one.fresh), np.int64)
            usd = np.array([one.fresh[key] for key in keys.tolist()], np.float64)
            one.fold(keys, usd, minute)
            one.fresh.clear()
            self._evict(one)
            added.append((keys, usd))
        self.events_in_minute = 0
        return tuple(added), logs

    def arm(self, close: float) -> None:
        """The minute closed at this price: buckets at least a step away from it are armed."""
        for one in self.sides:
            # A step as decimals subtract: 75.3 - 75.2 is a little less than 0.1 in binary.
            one.armed |= np.abs(close - bucket_prices(one.keys, self._step)) >= self._step * (1.0 - 1e-9)

    @staticmethod
    def _evict(one: TapeSide) -> None:
        excess = len(one.keys) - MAX_MAP_BUCKETS
        if excess > 0:
            mask = np.ones(len(one.keys), np.bool_)
            mask[np.argsort(one.usd, kind="stable")[:excess]] = False
            one.keep(mask)
            one.evicted += excess

    @property
    def usd(self) -> tuple[float, float]:
        """Standing USD of (long, short)."""
        return ordered_sum(self.sides[0].usd), ordered_sum(self.sides[1].usd)

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        sides = [
            {
                **{name: getattr(one, name).tobytes() for name, _ in _ARRAYS},
                "fresh": [list(row) for row in sorted(one.fresh.items())],
                "evicted": one.evicted,
            }
            for one in self.sides
        ]
        counts = {"events": self.events, "events_in_minute": self.events_in_minute, "total_usd": list(self.total_usd)}
        return {"sides": sides, **counts}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        for one, saved in zip(self.sides, state["sides"], strict=True):
            for name, dtype in _ARRAYS:
                setattr(one, name, np.frombuffer(saved[name], dtype).copy())
            one.fresh = {int(key): float(usd) for key, usd in saved["fresh"]}
            one.evicted = saved["evicted"]
        self.events, self.events_in_minute, self.total_usd = state["events"], state["events_in_minute"], list(state["total_usd"])
