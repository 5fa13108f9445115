"""Zones: where mass keeps coming in, with a life of their own (`spec: engine`, section 14). Pure.

A zone is created and reinforced by mass that was added in a minute, never by the standing map, and goes when the price reaches
it or when it fades. Both sides are kept as columns in ascending order of buckets, so that thousands of zones cost one pass.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeGuard

import numpy as np
import numpy.typing as npt

from mpengine.engine.buckets import Floats, Keys, bucket_prices, column_sums, ordered_sum, row_sums
from mpengine.engine.inference import DECAY_PER_MINUTE, SIDES, reached
from mpengine.engine.leverage import TierLadder
from mpengine.engine.log_records import LogOut

MAX_ZONE_AGE_MIN: Final = 240
MIN_ZONE_WEIGHT: Final = 0.05
MAX_ZONE_WEIGHT: Final = 5.0
EXPIRATION_PRICE_DIST_PCT: Final = 0.02
REINFORCEMENT_FACTOR: Final = 0.3
CLUSTER_DISTANCE_PCT: Final = 0.0005
ZONE_UNIT_ALPHA: Final = 0.01
MAX_ZONES_PER_SIDE: Final = 2000
MINUTE_NS: Final = 60 * 1_000_000_000
ZONES_SCHEMA: Final = 1
TIE: Final = 1e-9
MAX_MINUTE: Final = (2**63 - 1) // MINUTE_NS - 1
MAX_BUCKET: Final = 2**40
MAX_AMOUNT: Final = 1e18
"""What a file may hold; beyond it times in ns, prices and sums would overflow."""

ZONE_FACTORS: Final[Mapping[int, float]] = {
    5: 0.2, 10: 0.0, 20: 0.4, 25: 0.5, 50: 0.8, 75: 0.9, 100: 1.0, 125: 1.0, 150: 0.9, 200: 0.8, 250: 0.7,
}  # fmt: skip
"""How much the USD of a tier count for a zone (section 6.1, V3)."""

INFERENCE: Final = 1
TAPE: Final = 2
SOURCES: Final = ("", "inference", "tape", "combined")
LETTERS: Final = ("L", "S")

Masses = tuple[tuple[Keys, Floats], ...]


def reinforced(weight: float, contribution: float) -> float:
    """Weight of a zone after a contribution, at most 5. V (w, c): (1, 1) -> 1.24; (4.9, 5) -> 4.93; (3, 20) -> 5."""
    return min(MAX_ZONE_WEIGHT, weight + REINFORCEMENT_FACTOR * contribution * (1.0 - weight / MAX_ZONE_WEIGHT))


# Columns of one side besides `keys`: name, dtype. `tiers` has one more dimension.
_COLUMNS: Final = (
    ("weight", np.float64), ("projected_usd", np.float64), ("tape_usd", np.float64), ("tape_part", np.float64),
    ("created", np.int64), ("last", np.int64), ("count", np.int64), ("armed", np.bool_), ("source", np.int64),
)  # fmt: skip
# Columns of a file that a zone is made of again, and those of its tiers, which are sparse.
_FILE_COLUMNS: Final = (
    "side", "bucket", "created", "last", "armed", "projected_usd", "tape_usd", "tape_part", "source", "count",
)  # fmt: skip
_FILE_TIERS: Final = ("tier_zone", "tier", "tier_value")
_DECAYING: Final = ("weight", "projected_usd", "tape_usd", "tape_part", "tiers")


@dataclass(slots=True)
class _New:
    """A zone that was created in the running minute."""

    weight: float
    projected_usd: float
    tape_usd: float
    tape_part: float
    tiers: Floats
    source: int
    count: int = 0


class _Inflow(NamedTuple):
    """Contributions of one source to a side, in the order in which they are applied, each bucket once.

    `keys`: int64[n]; `units`: float64[n], weight units; `tiers`: float64[n, tiers], parts of the units, None for the tape; `usd`:
    float64[n].
    """

    source: int
    keys: Keys
    units: Floats
    tiers: Floats | None
    usd: Floats


@dataclass(slots=True)
class _Side:
    """Zones of one side, ascending by bucket. `created`, `last`: minutes."""

    tiers: Floats
    keys: Keys = field(default_factory=lambda: np.zeros(0, np.int64))
    weight: Floats = field(default_factory=lambda: np.zeros(0))
    projected_usd: Floats = field(default_factory=lambda: np.zeros(0))
    tape_usd: Floats = field(default_factory=lambda: np.zeros(0))
    tape_part: Floats = field(default_factory=lambda: np.zeros(0))
    created: Keys = field(default_factory=lambda: np.zeros(0, np.int64))
    last: Keys = field(default_factory=lambda: np.zeros(0, np.int64))
    count: Keys = field(default_factory=lambda: np.zeros(0, np.int64))
    armed: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    source: Keys = field(default_factory=lambda: np.zeros(0, np.int64))

    def scale(self, factor: float) -> None:
        for name in _DECAYING:
            setattr(self, name, getattr(self, name) * factor)

    def take(self, where: Any) -> None:
        """Keep the zones that a mask or an order of places says."""
        self.keys, self.tiers = self.keys[where], self.tiers[where]
        for name, _ in _COLUMNS:
            setattr(self, name, getattr(self, name)[where])

    def add(self, made: Mapping[int, _New], minute: int) -> None:
        """Zones created in `minute`, by bucket."""
        if not made:
            return
        rows = list(made.values())
        columns = {
            "weight": [row.weight for row in rows], "projected_usd": [row.projected_usd for row in rows],
            "tape_usd": [row.tape_usd for row in rows], "tape_part": [row.tape_part for row in rows],
            "created": [minute] * len(rows), "last": [minute] * len(rows), "count": [row.count for row in rows],
            "armed": [False] * len(rows), "source": [row.source for row in rows],
        }  # fmt: skip
        self.keys = np.concatenate((self.keys, np.array(list(made), np.int64)))
        self.tiers = np.concatenate((self.tiers, np.array([row.tiers for row in rows])))
        for name, dtype in _COLUMNS:
            setattr(self, name, np.concatenate((getattr(self, name), np.array(columns[name], dtype))))
        self.take(np.argsort(self.keys, kind="stable"))

    def reinforce(self, inflow: _Inflow, items: Sequence[int], places: Sequence[int], parts: Sequence[float], minute: int) -> None:
        """What contributions leave besides weight: `items` of the inflow went to zones `places`, of each unit `parts`."""
        # PERF: `add.at` adds in the order of its rows, so several contributions to a zone add up as one by one.
        rows, at, part = np.array(items, np.intp), np.array(places, np.intp), np.array(parts)
        if inflow.tiers is None:
            np.add.at(self.tape_part, at, inflow.units[rows] * part)
            np.add.at(self.tape_usd, at, inflow.usd[rows])
        else:
            np.add.at(self.tiers, at, inflow.tiers[rows] * part[:, None])
            np.add.at(self.projected_usd, at, inflow.usd[rows])
        self.source[at] |= inflow.source
        self.last[at] = minute
        np.add.at(self.count, at, 1)


class Zones:
    """Zones of both sides. `counters`: created, reinforced, swept, expired, merged, evicted.

    `unit_usd`: the symbol's own measure, the mean USD opened per side and enabled tier; 0 before the first opening.
    """

    __slots__ = ("_enabled", "_factors", "_ladder", "_sides", "_step", "counters", "unit_usd")

    def __init__(self, step: float, ladder: TierLadder) -> None:
        self._step, self._ladder = step, ladder
        self._factors = np.array([ZONE_FACTORS[tier] for tier in ladder.tiers]) * ladder.enabled
        self._enabled = int(ladder.enabled.sum())
        self._sides = (_Side(np.zeros((0, len(ladder.tiers)))), _Side(np.zeros((0, len(ladder.tiers)))))
        self.counters = dict.fromkeys(("created", "reinforced", "swept", "expired", "merged", "evicted"), 0)
        self.unit_usd = 0.0

    # a minute, in this order -------------------------------------------------------------------------------------------

    def age(self, *, minutes: int, minute: int, src: float, high: float, low: float) -> list[LogOut]:
        """`minute` ended, `minutes` after the one before: zones fade, expire, and go where the price reached them."""
        logs = list[LogOut]()
        for row, one in enumerate(self._sides):
            one.scale(DECAY_PER_MINUTE**minutes)
            prices = bucket_prices(one.keys, self._step)
            faint = one.weight < MIN_ZONE_WEIGHT
            old = (minute - one.last > MAX_ZONE_AGE_MIN) & (np.abs(prices - src) / src >= EXPIRATION_PRICE_DIST_PCT)
            swept = ~(faint | old) & one.armed & reached(SIDES[row], one.keys, self._step, low, high)
            for event, mask, reason in (("expired", faint, "decay"), ("expired", old & ~faint, "age"), ("swept", swept, None)):
                logs += self._gone(row, event, mask, reason)
            one.take(~(faint | old | swept))
        return logs

    def shrink(self, fraction: float) -> None:
        """Open interest fell: the same part of every zone goes."""
        for one in self._sides:
            one.scale(1.0 - fraction)

    def contribute(
        self, *, minute: int, opened_usd: float, projected: Masses, tape: Masses, tape_p99: float, tape_weight: float
    ) -> list[LogOut]:
        """Masses that were added in this minute, per side: int64[n] buckets, each once, with float64[n, tiers] projected USD or
        float64[n] USD of the tape. `opened_usd`: of both sides; `tape_p99`: scale of the tape, USD."""
        if opened_usd > 0.0:
            mean = opened_usd / (2 * self._enabled)
            self.unit_usd = mean if self.unit_usd == 0.0 else (1 - ZONE_UNIT_ALPHA) * self.unit_usd + ZONE_UNIT_ALPHA * mean
        logs = list[LogOut]()
        for row in range(len(SIDES)):
            for inflow in (self._of_projection(*projected[row]), self._of_tape(*tape[row], tape_p99, tape_weight)):
                if inflow is not None:
                    logs += self._apply(row, inflow, minute)
            logs += self._evict(row)
        return logs

    def arm(self, close: float) -> None:
        """The minute closed at this price: zones at least a step away from it can be swept from now on."""
        for one in self._sides:
            one.armed |= np.abs(close - bucket_prices(one.keys, self._step)) >= self._step * (1.0 - TIE)

    def _of_projection(self, keys: Keys, usd: Floats) -> _Inflow | None:
        if not len(keys) or self.unit_usd <= 0.0:
            return None
        tiers = usd * self._factors / self.unit_usd
        units = row_sums(tiers)
        order = _largest_first(keys, units)
        return _Inflow(INFERENCE, keys[order], units[order], tiers[order], row_sums(usd)[order])

    def _of_tape(self, keys: Keys, usd: Floats, tape_p99: float, tape_weight: float) -> _Inflow | None:
        if not len(keys) or tape_p99 <= 0.0:
            return None
        units = tape_weight * np.minimum(1.0, usd / tape_p99)
        order = _largest_first(keys, units)
        return _Inflow(TAPE, keys[order], units[order], None, usd[order])

    def _apply(self, row: int, inflow: _Inflow, minute: int) -> list[LogOut]:
        """Contributions in their order: to the nearest zone in reach, else a zone of their own if they are large enough."""
        one, logs, name = self._sides[row], list[LogOut](), SIDES[row].name.lower()
        reach, standing = self._reaches(inflow.keys), self._standing(one, inflow.keys)
        made, made_keys = dict[int, _New](), list[int]()
        items, places, parts = list[int](), list[int](), list[float]()
        source = SOURCES[inflow.source]
        columns = zip(inflow.keys.tolist(), inflow.units.tolist(), reach.tolist(), standing)
        for at, (key, units, near, candidates) in enumerate(columns):
            place, new = _nearest(key, near, candidates, one, made, made_keys)
            if place is not None:
                before = one.weight.item(place)
                weight = reinforced(before, units)
                one.weight[place] = weight
                items.append(at)
                places.append(place)
                parts.append((weight - before) / units)
                event, zone, born = "reinforced", one.keys.item(place), one.created.item(place)
            elif new is not None:
                event, zone, born, weight = "reinforced", new, minute, _reinforce_new(made[new], inflow, at, units)
            elif units >= MIN_ZONE_WEIGHT:
                made[key] = _create(inflow, at, units, len(self._ladder.tiers))
                insort(made_keys, key)
                event, zone, born, weight = "created", key, minute, made[key].weight
            else:
                continue
            self.counters[event] += 1
            logs.append(
                LogOut("zones", {
                    "event": event, "id": zone_id(row, zone, born), "side": name, "bucket": key, "contribution": units,
                    "source": source, "weight": weight,
                })
            )  # fmt: skip
        if items:
            one.reinforce(inflow, items, places, parts, minute)
        one.add(made, minute)
        return logs

    def _standing(self, one: _Side, keys: Keys) -> list[tuple[int, ...]]:
        """Of each bucket the places of the nearest standing zones in reach: none, one, or two that are equally near."""
        # PERF: the standing zones do not change while contributions come in, only their weights: their places are found at once.
        if not len(one.keys):
            return [()] * len(keys)
        above = np.searchsorted(one.keys, keys)
        below, last = np.maximum(above - 1, 0), len(one.keys) - 1
        far = np.int64(MAX_BUCKET) * 2
        up = np.where(above <= last, one.keys[np.minimum(above, last)] - keys, far)
        down = np.where(above > 0, keys - one.keys[below], far)
        nearest, reach = np.minimum(up, down), self._reaches(keys)
        return [
            () if out else (a, b) if tie else (a if higher else b,)
            for out, tie, higher, a, b in zip(
                (nearest > reach).tolist(), (up == down).tolist(), (up < down).tolist(), above.tolist(), below.tolist()
            )
        ]

    def _reaches(self, keys: Keys) -> Keys:
        """Largest distance in buckets at which a zone takes what comes in at a bucket: max(0.05 % of the price, a step)."""
        reach: Keys = np.maximum(1, np.floor(CLUSTER_DISTANCE_PCT * keys + TIE)).astype(np.int64)
        return reach

    def _evict(self, row: int) -> list[LogOut]:
        one = self._sides[row]
        excess = len(one.keys) - MAX_ZONES_PER_SIDE
        if excess <= 0:
            return []
        mask = np.zeros(len(one.keys), np.bool_)
        mask[np.argsort(one.weight, kind="stable")[:excess]] = True
        logs = self._gone(row, "evicted", mask, None)
        one.take(~mask)
        return logs

    def _gone(self, row: int, event: str, mask: npt.NDArray[np.bool_], reason: str | None) -> list[LogOut]:
        places = np.flatnonzero(mask).tolist()
        self.counters[event] += len(places)
        one, why = self._sides[row], {} if reason is None else {"reason": reason}
        return [
            LogOut("zones", {
                "event": event, "id": zone_id(row, int(one.keys[at]), int(one.created[at])), "side": SIDES[row].name.lower(),
                "bucket": int(one.keys[at]), "weight": float(one.weight[at]), "projected_usd": float(one.projected_usd[at]),
                "tape_usd": float(one.tape_usd[at]), **why,
            })
            for at in places
        ]  # fmt: skip

    # published ---------------------------------------------------------------------------------------------------------

    @property
    def active(self) -> tuple[int, int]:
        """Number of (long, short) zones."""
        return len(self._sides[0].keys), len(self._sides[1].keys)

    @property
    def weight(self) -> tuple[float, float]:
        """Weight of all (long, short) zones."""
        return ordered_sum(self._sides[0].weight), ordered_sum(self._sides[1].weight)

    def sums(self) -> dict[str, dict[str, float]]:
        """Side -> weight and USD of all its zones, weight by tier."""
        return {
            side.name.lower(): {
                "weight": ordered_sum(one.weight), "projected_usd": ordered_sum(one.projected_usd),
                "tape_usd": ordered_sum(one.tape_usd), "tape": ordered_sum(one.tape_part),
                **self._ladder.by_name(column_sums(one.tiers)),
            }
            for side, one in zip(SIDES, self._sides)
        }  # fmt: skip

    def table(self, digits: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """Every zone as columns, a copy: long before short, ascending. Tiers are sparse: value `tier_value[i]` of tier
        `tier[i]` belongs to zone `tier_zone[i]`. `digits`: of weights (USD: cents); None: as they are."""
        table: dict[str, npt.NDArray[Any]] = {
            "side": np.repeat(np.arange(2), self.active), "bucket": np.concatenate([one.keys for one in self._sides])
        }  # fmt: skip
        for name, dtype in _COLUMNS:
            column = np.concatenate([getattr(one, name) for one in self._sides])
            if digits is not None and dtype is np.float64:
                column = column.round(2 if name.endswith("usd") else digits)
            table[name] = column
        tiers = np.concatenate([one.tiers for one in self._sides])
        if digits is not None:
            tiers = tiers.round(digits)
        places = np.flatnonzero(tiers)
        table["tier_zone"], table["tier"] = np.divmod(places, tiers.shape[1])
        table["tier_value"] = tiers.ravel()[places]
        return table

    # files and checkpoint ----------------------------------------------------------------------------------------------

    def to_file(self, symbol: str, now_ns: int) -> dict[str, Any]:
        """Content of the zones file (section 19): a copy that later changes do not touch, columns as arrays."""
        return {
            "schema_version": ZONES_SCHEMA, "symbol": symbol, "saved_at": now_ns, "step": self._step, "unit_usd": self.unit_usd,
            "tiers": list(self._ladder.names), "zones": self.table(),
        }  # fmt: skip

    def load_file(self, data: Mapping[str, Any], symbol: str, now_minute: int) -> list[str]:
        """Go on from a file: overlapping zones merged, faded for the time away, the faint ones gone. Warnings.

        Zones that cannot be are left out, of too many the lightest. Raises ValueError for a file of another symbol, schema or step
        and for one that is not columns of zones; nothing has changed then.
        """
        if data.get("schema_version") != ZONES_SCHEMA or data.get("symbol") != symbol or data.get("step") != self._step:
            raise ValueError("zones of another symbol, schema or step")
        rows, bad = _rows_of(data, self._ladder)
        saved_at, unit = data.get("saved_at"), data.get("unit_usd")
        if not _whole(saved_at, MAX_MINUTE * MINUTE_NS):
            raise ValueError("zones without the time of their saving")
        away = max(0, now_minute - saved_at // MINUTE_NS)
        self.unit_usd = float(unit) if _amount(unit) else 0.0
        told, crowded = [f"{bad} zones of the file cannot be and were left out"] if bad else [], 0
        for row, one in enumerate(self._sides):
            one.take(np.zeros(len(one.keys), np.bool_))
            self._load_side(row, [saved for saved in rows if saved.side == row])
            one.scale(DECAY_PER_MINUTE**away)
            faint = one.weight < MIN_ZONE_WEIGHT
            self.counters["expired"] += int(faint.sum())
            one.take(~faint)
            crowded += len(self._evict(row))
        return [*told, f"{crowded} zones of the file are more than there may be"] if crowded else told

    def _load_side(self, row: int, rows: Sequence[_Saved]) -> None:
        """Heaviest first; what overlaps a heavier one is merged into it.

        Two overlap within the reach of the lower one, which is the smaller: zones that lived side by side are never merged.
        """
        kept, keys = dict[int, _Saved](), list[int]()
        for one in sorted(rows, key=lambda saved: (-saved.new.weight, saved.key)):
            near = [key for key in _near(one.key, _reach(one.key), keys) if abs(key - one.key) <= _reach(min(key, one.key))]
            if not near:
                kept[one.key] = one
                insort(keys, one.key)
                continue
            into = kept[min(near, key=lambda key: (abs(key - one.key), -kept[key].new.weight, key))]
            _merge(into, one)
            self.counters["merged"] += 1
        if not kept:
            return
        side = self._sides[row]
        side.add({key: one.new for key, one in kept.items()}, 0)
        for name in ("created", "last", "armed"):
            getattr(side, name)[:] = [getattr(kept[key], name) for key in side.keys.tolist()]

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        names = ("keys", "tiers", *(name for name, _ in _COLUMNS))
        sides = [{name: getattr(one, name).tobytes() for name in names} for one in self._sides]
        return {"sides": sides, "counters": dict(self.counters), "unit_usd": self.unit_usd}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`. Raises ValueError where columns do not belong together."""
        for one, saved in zip(self._sides, state["sides"], strict=True):
            one.keys = np.frombuffer(saved["keys"], np.int64).copy()
            one.tiers = np.frombuffer(saved["tiers"]).reshape(len(one.keys), len(self._ladder.tiers)).copy()
            for name, dtype in _COLUMNS:
                setattr(one, name, np.frombuffer(saved[name], dtype).copy())
        self.counters, self.unit_usd = dict(state["counters"]), state["unit_usd"]


@dataclass(slots=True)
class _Saved:
    """A zone of a file."""

    side: int
    key: int
    created: int
    last: int
    armed: bool
    new: _New


def _near(key: int, reach: int, keys: list[int]) -> list[int]:
    """Buckets of ascending `keys` that are at most `reach` away."""
    return keys[bisect_left(keys, key - reach) : bisect_right(keys, key + reach)]


def zone_id(row: int, bucket: int, created_minute: int) -> str:
    """Side letter, bucket, minute of creation."""
    return f"{LETTERS[row]}-{bucket}-{created_minute}"


def _reach(key: int) -> int:
    """`Zones._reaches` of one bucket."""
    return max(1, math.floor(CLUSTER_DISTANCE_PCT * key + TIE))


def _largest_first(keys: Keys, units: Floats) -> npt.NDArray[np.intp]:
    """Places of the positive units: largest first, of equal ones the lower bucket."""
    order = np.lexsort((keys, -units))
    return order[: int(np.count_nonzero(units > 0.0))]


def _nearest(
    key: int, reach: int, places: Sequence[int], one: _Side, made: Mapping[int, _New], made_keys: list[int]
) -> tuple[int | None, int | None]:
    """(place of a standing zone, bucket of a zone of this minute), one of them or neither: the nearest in reach; of equally near
    ones the heavier, then the lower."""
    new = _near(key, reach, made_keys) if made_keys else []
    if not new and len(places) < 2:
        return (places[0] if places else None), None
    found = [(abs(one.keys.item(at) - key), -one.weight.item(at), one.keys.item(at), at) for at in places]
    found += [(abs(at - key), -made[at].weight, at, -1) for at in new]
    _, _, bucket, place = min(found)
    return (place, None) if place >= 0 else (None, bucket)


def _create(inflow: _Inflow, at: int, units: float, tiers: int) -> _New:
    weight, usd = min(units, MAX_ZONE_WEIGHT), float(inflow.usd[at])
    if inflow.tiers is None:
        return _New(weight, 0.0, usd, weight, np.zeros(tiers), TAPE)
    return _New(weight, usd, 0.0, 0.0, inflow.tiers[at] * (weight / units), INFERENCE)


def _reinforce_new(zone: _New, inflow: _Inflow, at: int, units: float) -> float:
    """A zone of this minute gets more of the same inflow; its new weight."""
    grown = reinforced(zone.weight, units)
    part = (grown - zone.weight) / units
    zone.weight = grown
    if inflow.tiers is None:
        zone.tape_part += units * part
        zone.tape_usd += float(inflow.usd[at])
    else:
        zone.tiers = zone.tiers + inflow.tiers[at] * part
        zone.projected_usd += float(inflow.usd[at])
    zone.count += 1
    return grown


def _merge(into: _Saved, other: _Saved) -> None:
    """By the formula of a reinforcement, its contribution being the other's weight."""
    zone, gone = into.new, other.new
    grown = reinforced(zone.weight, gone.weight)
    part = (grown - zone.weight) / gone.weight
    zone.weight, zone.tiers, zone.tape_part = grown, zone.tiers + gone.tiers * part, zone.tape_part + gone.tape_part * part
    zone.projected_usd += gone.projected_usd
    zone.tape_usd += gone.tape_usd
    zone.source |= gone.source
    zone.count += gone.count
    into.created, into.last = min(into.created, other.created), max(into.last, other.last)
    into.armed = into.armed and other.armed


def _rows_of(data: Mapping[str, Any], ladder: TierLadder) -> tuple[list[_Saved], int]:
    """Zones of a file and how many of it cannot be. Raises ValueError where there are no columns of equal length."""
    table, names = data.get("zones"), data.get("tiers")
    if not isinstance(table, Mapping) or not isinstance(names, list):
        raise ValueError("zones that are not columns")
    columns = {name: table.get(name) for name in (*_FILE_COLUMNS, *_FILE_TIERS)}
    if not all(isinstance(column, list) for column in columns.values()):
        raise ValueError("zones that are not columns")
    count = len(table["bucket"])
    if any(len(table[name]) != count for name in _FILE_COLUMNS):
        raise ValueError("columns of zones are not equally long")
    tiers = _tiers_of(table, names, ladder, count)
    rows = [
        _row_of(dict(zip(_FILE_COLUMNS, values)), tiers[at])
        for at, values in enumerate(zip(*(table[name] for name in _FILE_COLUMNS)))
    ]
    sound = [row for row in rows if row is not None]
    return sound, count - len(sound)


def _tiers_of(table: Mapping[str, Any], names: Sequence[Any], ladder: TierLadder, count: int) -> Floats:
    """float64[count, tiers] of a file, tiers matched by name; NaN in the row of a zone with a part that cannot be."""
    enabled = {name: at for at, name in enumerate(ladder.names) if ladder.enabled[at]}
    tiers = np.zeros((count, len(ladder.tiers)))
    for zone, tier, value in zip(*(table[name] for name in _FILE_TIERS), strict=True):
        if not _whole(zone, count - 1):
            raise ValueError("a part of no zone")
        if not (_whole(tier, len(names) - 1) and _amount(value)):
            tiers[zone] = math.nan
        elif (place := enabled.get(str(names[tier]))) is not None:
            tiers[zone, place] += value
    return tiers


def _row_of(values: Mapping[str, Any], tiers: Floats) -> _Saved | None:
    """A zone of a file; None for one that cannot be. Its weight is the sum of its parts."""
    if not (
        _whole(values["side"], 1)
        and _whole(values["bucket"], MAX_BUCKET)
        and _whole(values["last"], MAX_MINUTE)
        and _whole(values["created"], values["last"])
        and _whole(values["count"], MAX_MINUTE)
        and _whole(values["source"], INFERENCE | TAPE)
        and isinstance(values["armed"], bool)
        and all(_amount(values[name]) for name in ("projected_usd", "tape_usd", "tape_part"))
    ):
        return None
    weight = ordered_sum(tiers) + values["tape_part"]
    if values["bucket"] == 0 or values["source"] == 0 or not 0.0 < weight <= MAX_ZONE_WEIGHT * (1 + TIE):
        return None
    usd = float(values["projected_usd"]), float(values["tape_usd"])
    made = _New(weight, *usd, float(values["tape_part"]), tiers, values["source"], values["count"])
    return _Saved(values["side"], values["bucket"], values["created"], values["last"], values["armed"], made)


def _whole(value: Any, largest: int) -> TypeGuard[int]:
    """Whether a value of a file is a whole number from 0 to `largest`."""
    return type(value) is int and 0 <= value <= largest


def _amount(value: Any) -> TypeGuard[float]:
    """Whether a value of a file is a number from 0 to MAX_AMOUNT, so that no sum of them overflows."""
    return type(value) in (int, float) and 0.0 <= value <= MAX_AMOUNT
