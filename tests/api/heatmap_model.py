"""`/heatmap` as section 11 of the contract says it, in dictionaries and loops: no arrays, no shortcuts, nothing of `api`.

Frames go in as they come out of the rings (USD after float16); a picture comes out as facts by (column, bucket of the row).
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

from shm.frames import Frame

MS = 1_000_000
LADDER_S = (30, 60, 120, 300, 600, 900, 1800, 3600)
LADDER_K = (1, 2, 5, 10, 20, 50, 100)
PLANES = {"liq": ((0, 2), (1, 3)), "tape": ((0,), (1,)), "projected": ((2,), (3,)), "depth": ((0,), (1,))}
BITS = {1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 32}


@dataclass
class Event:
    """A realised liquidation."""

    at_ms: int
    price: float
    side: str
    venue: int
    usd: float


@dataclass
class Asked:
    """Parameters, with their defaults."""

    minutes: int = 720
    to_ms: int | None = None
    since_ms: int | None = None
    layers: tuple[str, ...] = ("liq", "depth", "realised")
    dt_s: int = 0
    k: int = 0
    max_cols: int = 720
    max_rows: int = 1000
    pool: str = "max"

    def target(self, **more: Any) -> str:
        values = {name: value for name, value in vars(self).items() if value is not None} | more
        values["layers"] = ",".join(self.layers)
        return "/heatmap?" + "&".join(f"{name}={value}" for name, value in values.items())


@dataclass
class Facts:
    """What an answer has to say. `cells`: layer -> side -> (column, row) -> USD, rows counted from price 0."""

    dt_ms: int
    t0_ms: int
    cols: int
    k: int
    low: int
    rows: int
    numbers: dict[str, list[int]] = field(default_factory=dict)
    cells: dict[str, list[dict[tuple[int, int], float]]] = field(default_factory=dict)
    src: list[float | None] = field(default_factory=list)
    points: dict[tuple[int, int, str], tuple[int, int, float, float]] = field(default_factory=dict)


@cache
def row_of(bucket: int, step: float, k: int, base: float) -> int:
    """floor(I / k + 0.5), exactly."""
    wide = Fraction(str(base)) * k / Fraction(str(step))
    return math.floor(Fraction(bucket) / wide + Fraction(1, 2))


def fits(step: float, k: int, base: float) -> bool:
    return (Fraction(str(base)) * k / Fraction(str(step))).denominator == 1


def detail_of_time(asked: Asked) -> tuple[int, int]:
    """(dt in ms, columns)."""
    for dt in (asked.dt_s,) if asked.dt_s else LADDER_S:
        cols = math.ceil(asked.minutes * 60 / dt)
        if asked.dt_s or cols <= asked.max_cols:
            return dt * 1000, cols
    return LADDER_S[-1] * 1000, asked.max_cols


def columns_of(frame: Frame, t0_ms: int, dt_ms: int, cols: int) -> list[int]:
    """Columns that a frame is shown in: that of its open, and at 30 s both of a minute."""
    open_ms = frame.open_ts_ns // MS
    length = (frame.close_ts_ns - frame.open_ts_ns) // MS
    first = (open_ms - t0_ms) // dt_ms
    return [column for column in range(first, first + max(1, length // dt_ms)) if 0 <= column < cols]


def extent(frames: list[Frame], k: int, base: float) -> list[int]:
    return [row_of(bucket, one.step, k, base) for one in frames for bucket in (one.origin, one.origin + one.count - 1)]


def facts(asked: Asked, rings: dict[str, list[tuple[int, Frame]]], events: list[Event], base: float) -> Facts:
    """`rings`: "liq", "depth" -> (number, frame), oldest first."""
    dt_ms, cols = detail_of_time(asked)
    wanted = {
        name: rings[name]
        for name in rings
        if (set(asked.layers) - {"depth", "realised"} if name == "liq" else name in asked.layers)
    }
    end_ms = max(ring[-1][1].close_ts_ns // MS for ring in wanted.values())
    if asked.to_ms is not None:
        end_ms = min(end_ms, asked.to_ms)
    end_ms = math.ceil(end_ms / dt_ms) * dt_ms
    whole_t0 = end_ms - cols * dt_ms
    t0_ms = whole_t0
    if asked.since_ms is not None:
        t0_ms = min(max(t0_ms, asked.since_ms // dt_ms * dt_ms), end_ms)
    shown = {name: usable(ring, whole_t0, end_ms) for name, ring in wanted.items()}
    k = detail_of_price(asked, [[frame for _, frame in ring] for ring in shown.values()], base)
    shown = {name: [one for one in ring if fits(one[1].step, k, base)] for name, ring in shown.items()}
    cols = (end_ms - t0_ms) // dt_ms
    seen = {name: [one for one in ring if one[1].close_ts_ns // MS > t0_ms and cols] for name, ring in shown.items()}
    reach = [row for ring in seen.values() for row in extent([frame for _, frame in ring], k, base)]
    low, rows = (min(reach), max(reach) - min(reach) + 1) if reach else (0, 0)
    made = Facts(dt_ms, t0_ms, cols, k, low, rows, src=[None] * cols)
    for name in ("depth", "liq"):
        if name in seen:
            place(made, name, seen[name], asked, base)
    for event in events if "realised" in asked.layers else []:
        count(made, event, base)
    return made


def usable(ring: list[tuple[int, Frame]], t0_ms: int, end_ms: int) -> list[tuple[int, Frame]]:
    inside = [(number, one) for number, one in ring if one.close_ts_ns // MS > t0_ms and one.open_ts_ns // MS < end_ms]
    return [(number, one) for number, one in inside if one.step == inside[-1][1].step]


def detail_of_price(asked: Asked, rings: list[list[Frame]], base: float) -> int:
    if asked.k:
        return asked.k
    for k in LADDER_K:
        reach = [row for frames in rings for row in extent(frames, k, base)]
        aligned = all(fits(frames[-1].step, k, base) for frames in rings if frames)
        if aligned and (not reach or max(reach) - min(reach) + 1 <= asked.max_rows):
            return k
    raise AssertionError("the test asks for something that does not fit")


def place(made: Facts, name: str, ring: list[tuple[int, Frame]], asked: Asked, base: float) -> None:
    layers = ["depth"] if name == "depth" else [layer for layer in ("liq", "tape", "projected") if layer in asked.layers]
    made.numbers[name] = [-1] * made.cols
    for layer in layers:
        made.cells[layer] = [defaultdict(float), defaultdict(float)]
    for number, frame in ring:
        columns = columns_of(frame, made.t0_ms, made.dt_ms, made.cols)
        for column in columns:
            made.numbers[name][column] = number
            made.src[column] = frame.reference
        for layer in layers:
            for side, planes in enumerate(PLANES[layer]):
                pooled: dict[int, float] = defaultdict(float)
                for index in range(frame.count):
                    usd = sum(float(frame.planes[plane, index]) for plane in planes)
                    row = row_of(frame.origin + index, frame.step, made.k, base)
                    pooled[row] = max(pooled[row], usd) if asked.pool == "max" else pooled[row] + usd
                for column in columns:
                    for row, usd in pooled.items():
                        if usd > 0:
                            cells = made.cells[layer][side]
                            cells[column, row] = max(cells[column, row], usd)


def count(made: Facts, event: Event, base: float) -> None:
    column = (event.at_ms - made.t0_ms) // made.dt_ms
    row = row_of(round(event.price / base), base, made.k, base)
    if 0 <= column < made.cols and made.low <= row < made.low + made.rows:
        venues, number, usd, largest = made.points.get((column, row, event.side), (0, 0, 0.0, 0.0))
        made.points[column, row, event.side] = (venues | BITS[event.venue], number + 1, usd + event.usd, max(largest, event.usd))


def byte_of(usd: float) -> int:
    """u8log."""
    if usd < 100.0:
        return 0
    return min(255, max(1, 1 + round(254 * math.log(usd / 100.0) / math.log(1e9 / 100.0))))
