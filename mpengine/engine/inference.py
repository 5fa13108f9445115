"""Where positions opened, and so where they will be liquidated: the projection map (`spec: engine`, sections 7, 8). Pure.

A minute in which open interest rose opened longs and shorts at the minute's price, divided by the taker side; each enabled leverage
tier gets its weight of them, at the price where it is liquidated. What the price crosses goes, what closes shrinks, all decays.
USD here is modelled exposure, never an expected liquidation amount.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mpengine.brackets import Bracket
from mpengine.engine.buckets import BucketMap, Floats, Keys, bucket_prices, column_sums
from mpengine.engine.leverage import TierLadder, liquidation_prices, margin_rates
from mpengine.engine.log_records import LogOut
from shm.grid import buckets_of
from shm.records import PositionSide, Venue

OI_MIN_CHANGE_PCT: Final = 0.00005
MIN_SIDE_USD: Final = 100.0
MIN_CONTRIBUTION_USD: Final = 100.0
SWEEP_MIN_BUCKET_USD: Final = 100.0
LEDGER_MIN_USD: Final = 1.0
BUY_WEIGHT_MIN: Final = 0.10
BUY_WEIGHT_MAX: Final = 0.90
MAX_OI_REDUCTION_PER_MINUTE: Final = 0.25
SWEEP_REDUCTION_FACTOR: Final = 0.70
DECAY_PER_MINUTE: Final = 0.995
TAKER_MINUTES: Final = 10

SIDES: Final = (PositionSide.LONG, PositionSide.SHORT)
"""Rows of every array with sides."""


def is_opening(delta: float, previous: float) -> bool:
    """Whether a rise of open interest is large enough to be acted on. V: previous 138,000: from 6.9 on."""
    return delta > 0.0 and delta >= OI_MIN_CHANGE_PCT * previous


def closing_fraction(delta: float, previous: float) -> float:
    """Part of everything that a fall of open interest closes, at most 0.25. V: 1000 -> 900: 0.1; 1000 -> 600: 0.25."""
    return min(-delta / previous, MAX_OI_REDUCTION_PER_MINUTE) if previous > 0.0 else 0.0


class Takers:
    """Taker USD of the last ten finished minutes. The newest is the minute that has just ended, trades or not."""

    __slots__ = ("_minutes",)

    def __init__(self) -> None:
        self._minutes: deque[tuple[int, float, float]] = deque(maxlen=TAKER_MINUTES)

    def on_minute(self, minute: int, buy_usd: float, sell_usd: float) -> None:
        """A minute ended."""
        self._minutes.append((minute, buy_usd, sell_usd))

    def buy_share(self, minute: int) -> float:
        """Taker buy share of `minute` in [0.1, 0.9]; without trades of the last ten minutes up to it; without these 0.5."""
        recent = [(buy, sell) for at, buy, sell in self._minutes if minute - TAKER_MINUTES < at <= minute]
        of_minute = [(buy, sell) for at, buy, sell in self._minutes if at == minute]
        for rows in (of_minute, recent):
            buy, total = sum(row[0] for row in rows), sum(sum(row) for row in rows)
            if total > 0.0:
                return min(max(buy / total, BUY_WEIGHT_MIN), BUY_WEIGHT_MAX)
        return 0.5

    def state_of(self) -> list[list[float]]:
        """Everything needed to go on from here."""
        return [list(row) for row in self._minutes]

    def restore(self, state: Sequence[Sequence[Any]]) -> None:
        """Go on from `state_of`."""
        self._minutes.clear()
        self._minutes.extend((int(at), float(buy), float(sell)) for at, buy, sell in state)


class Added(NamedTuple):
    """What a minute added to one side of the map: int64[n] buckets (may repeat) and float64[n, tiers] USD."""

    keys: Keys
    usd: Floats


class Opening(NamedTuple):
    """An opening to project. `opened_usd`: both sides; `share`: the long side's; `split`: venue -> part of it, sum 1.

    `weights`: float64[tiers]; `bias`: shift of the (long, short) levels as a fraction of the price.
    """

    minute: int
    src: float
    opened_usd: float
    share: float
    split: Mapping[Venue, float]
    weights: npt.NDArray[np.float64]
    bias: tuple[float, float] = (0.0, 0.0)


def split_of(fresh: Mapping[Venue, float], primary: Venue) -> dict[Venue, float]:
    """Parts of the venues in proportion to their open interest; all to the primary venue where none is known."""
    total = sum(fresh.values())
    return {venue: qty / total for venue, qty in fresh.items()} if total > 0.0 else {primary: 1.0}


class Projection:
    """USD per bucket, side and enabled tier, and the ledger of what was opened, not weighted by tier, until it is crossed.

    `mmr`: venue -> maintenance margin rate for new mass; `first`: venue -> first bracket or None.
    """

    __slots__ = ("_first", "_ladder", "_step", "inferences", "ledger", "maps", "opened_usd")

    def __init__(self, step: float, ladder: TierLadder, first: Mapping[Venue, Bracket | None]) -> None:
        self._step, self._ladder, self._first = step, ladder, dict(first)
        tiers = len(ladder.tiers)
        self.maps = (BucketMap(tiers), BucketMap(tiers))
        self.ledger = (BucketMap(tiers), BucketMap(tiers))
        self.inferences = 0
        self.opened_usd = [0.0, 0.0]

    # a minute, in this order -------------------------------------------------------------------------------------------

    def decay(self, minutes: int) -> None:
        """`minutes` minutes passed since the last one: everything fades, what is too small goes."""
        factor = DECAY_PER_MINUTE**minutes
        for one, ledger in zip(self.maps, self.ledger):
            one.scale(factor)
            one.keep(one.totals >= SWEEP_MIN_BUCKET_USD)
            ledger.scale(factor)
            _drop_crumbs(ledger)

    def sweep(self, low: float, high: float) -> tuple[Floats, list[LogOut]]:
        """The minute's price reached some buckets: 70 % of their USD goes, and all of their ledger, which is the crossed mass:
        unweighted USD, float64[2, tiers]. V: 10,000 -> 3,000 -> 900 -> 270 -> deleted.
        """
        crossed, logs = np.zeros((2, len(self._ladder.tiers))), list[LogOut]()
        for row, side in enumerate(SIDES):
            logs += self._sweep_side(side, self.maps[row], low, high)
            ledger = self.ledger[row]
            hit = reached(side, ledger.keys, self._step, low, high)
            crossed[row] = column_sums(ledger.values[hit])
            ledger.keep(~hit)
        return crossed, logs

    def _sweep_side(self, side: PositionSide, one: BucketMap, low: float, high: float) -> list[LogOut]:
        hit = reached(side, one.keys, self._step, low, high)
        if not hit.any():
            return []
        before = one.totals[hit]
        one.values[hit] *= 1.0 - SWEEP_REDUCTION_FACTOR
        after, keys = one.totals[hit], one.keys[hit]
        gone = after < SWEEP_MIN_BUCKET_USD
        mask = np.ones(len(one), np.bool_)
        mask[np.flatnonzero(hit)[gone]] = False
        one.keep(mask)
        rows = zip(keys.tolist(), before.tolist(), after.tolist(), gone.tolist())
        name = side.name.lower()
        return [
            LogOut(
                "debug",
                {"event": "sweep_reduced", "side": name, "bucket": key, "before_usd": was, "after_usd": now, "deleted": out},
            )
            for key, was, now, out in rows
        ]

    def close(self, fraction: float) -> None:
        """Open interest fell: the same part of every bucket and of the ledger goes."""
        for one in (*self.maps, *self.ledger):
            one.scale(1.0 - fraction)

    def open(self, opening: Opening, mmr: Mapping[Venue, float]) -> tuple[tuple[Added, Added], list[dict[str, Any]]]:
        """Open interest rose. What was added per side, and one row per side, venue and tier for the log and `explain`."""
        added, rows = list[Added](), list[dict[str, Any]]()
        self.inferences += 1
        for row, (side, share) in enumerate(zip(SIDES, (opening.share, 1.0 - opening.share))):
            usd = opening.opened_usd * share
            if usd < MIN_SIDE_USD:
                added.append(Added(np.zeros(0, np.int64), np.zeros((0, len(self._ladder.tiers)))))
                continue
            self.opened_usd[row] += usd
            one, told = self._open_side(row, side, usd, opening, mmr)
            added.append(one)
            rows += told
        return (added[0], added[1]), rows

    def _open_side(
        self, row: int, side: PositionSide, usd: float, opening: Opening, mmr: Mapping[Venue, float]
    ) -> tuple[Added, list[dict[str, Any]]]:
        keys, places, rows = list[int](), list[int](), list[dict[str, Any]]()
        parts, ledger_parts = list[float](), list[float]()
        by_tier = usd * opening.weights
        for venue, part in opening.split.items():
            levels = self.levels(side, opening.src, mmr[venue], venue, opening.bias[row])
            for place in np.flatnonzero(self._ladder.enabled & (levels > 0.0)).tolist():
                projected = float(by_tier[place]) * part if by_tier[place] >= MIN_CONTRIBUTION_USD else 0.0
                key = int(buckets_of(levels[place], self._step))
                keys.append(key)
                places.append(place)
                parts.append(projected)
                ledger_parts.append(usd * part)
                rows.append({"side": side.name.lower(), "venue": venue.label, "tier": self._ladder.tiers[place], "bucket": key,
                             "usd": projected})  # fmt: skip
        values, ledger = np.zeros((2, len(keys), len(self._ladder.tiers)))
        values[np.arange(len(keys)), places] = parts
        ledger[np.arange(len(keys)), places] = ledger_parts
        where = np.array(keys, np.int64)
        some = values.any(axis=1)
        self.maps[row].add(where[some], values[some])
        self.ledger[row].add(where, ledger)
        return Added(where[some], values[some]), rows

    def levels(self, side: PositionSide, src: float, mmr: float, venue: Venue, bias: float = 0.0) -> Floats:
        """float64[tiers]: liquidation prices of positions opened at `src`; shifted by `bias`, at most half way to `src`."""
        rates = margin_rates(self._ladder.leverage, mmr, self._first.get(venue))
        levels = liquidation_prices(side, src, self._ladder.leverage, rates)
        if bias:
            room = np.abs(levels - src) / 2.0
            levels = levels + np.clip(bias * src, -room, room)
        return levels

    # checkpoint --------------------------------------------------------------------------------------------------------

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {
            "maps": [one.state_of() for one in self.maps],
            "ledger": [one.state_of() for one in self.ledger],
            "inferences": self.inferences,
            "opened_usd": list(self.opened_usd),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        for name in ("maps", "ledger"):
            for one, saved in zip(getattr(self, name), state[name], strict=True):
                one.restore(saved)
        self.inferences, self.opened_usd = state["inferences"], list(state["opened_usd"])


def reached(side: PositionSide, keys: Keys, step: float, low: float, high: float) -> npt.NDArray[np.bool_]:
    """bool[n]: buckets that the minute's price reached or left behind. One-sided, so that a gap is covered."""
    prices = bucket_prices(keys, step)
    return low <= prices if side is PositionSide.LONG else high >= prices


def _drop_crumbs(ledger: BucketMap) -> None:
    ledger.values[ledger.values < LEDGER_MIN_USD] = 0.0
    ledger.keep(ledger.totals > 0.0)
