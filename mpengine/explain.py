"""`mpengine explain SYMBOL PRICE`: where the mass of a map at a price comes from, so that a person can check it by hand.

Openings and closings are read from the engine's own log, minutes from the ring of bars,
liquidations from their ring. The life of the
one bucket is then gone through again: each minute it fades, is swept where the price reached it, closes with open interest,
and gets
what was opened. What comes out is compared with the map that is published; a difference says that the log does not reach back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from mpengine.engine.inference import DECAY_PER_MINUTE, SWEEP_MIN_BUCKET_USD, SWEEP_REDUCTION_FACTOR, reached
from mpengine.engine.log_files import sink_name
from mpengine.engine.tape import Tape
from shm.frame_ring import FrameReader
from shm.frames import Frame, decode
from shm.grid import bucket_of, price_of
from shm.paths import Paths
from shm.record_ring import RecordReader
from shm.records import CANDLE_DTYPE, LIQUIDATION_DTYPE, PositionSide

MINUTE_NS: Final = 60 * 1_000_000_000
SHOWN_ROWS: Final = 25
NAMES: Final = ("long", "short")
SIDES: Final = (PositionSide.LONG, PositionSide.SHORT)


class Unexplained(ValueError):
    """Nothing can be said; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A rolled minute. `minutes`: since the one before."""

    minute: int
    minutes: int
    low: float
    high: float
    close: float


@dataclass(slots=True)
class Part:
    """What one opening put into the bucket: one side, tier and venue. `left_usd`: of it now."""

    minute: int
    src: float
    side: str
    venue: str
    tier: int
    opened_usd: float
    left_usd: float


@dataclass(slots=True)
class Explanation:
    """One bucket of the newest map. USD by side (long, short); `map_*`: published, the others gone through again."""

    symbol: str
    price: float
    at_ns: int
    map_projected_usd: tuple[float, float]
    map_tape_usd: tuple[float, float]
    projected_usd: tuple[float, float] = (0.0, 0.0)
    tape_usd: tuple[float, float] = (0.0, 0.0)
    parts: list[Part] = field(default_factory=list)
    events: int = 0


def explain(paths: Paths, symbol: str, step: float, price: float) -> Explanation:
    """The bucket of `price` in the newest map of `symbol`. Raises Unexplained where there is no map, or it does not reach there."""
    key = bucket_of(price, step)
    frame = _newest(paths.liquidation(symbol))
    if frame is None:
        raise Unexplained(f"there is no map of {symbol} yet")
    at = key - frame.origin
    if frame.step != step or not 0 <= at < frame.count:
        low, high = price_of(frame.origin, frame.step), price_of(frame.origin + frame.count - 1, frame.step)
        raise Unexplained(f"the newest map of {symbol} reaches from {low:,} to {high:,}")
    tape_long, tape_short, long, short = frame.planes[:, at].tolist()
    found = Explanation(symbol, price_of(key, step), frame.close_ts_ns, (long, short), (tape_long, tape_short))
    bars = [bar for bar in _bars(paths.candles(symbol)) if (bar.minute + 1) * MINUTE_NS <= frame.close_ts_ns]
    told = list(_log_rows(paths.symbol_dir(symbol) / "logs" / sink_name("inference", symbol)))
    for row, side in enumerate(SIDES):
        parts = live(key, step, side, bars, told)
        found.parts += parts
        found.projected_usd = _with(found.projected_usd, row, sum(part.left_usd for part in parts))
    found.events, found.tape_usd = _tape(paths.liquidations(symbol), key, step, bars)
    found.parts.sort(key=lambda part: -part.left_usd)
    return found


def live(key: int, step: float, side: PositionSide, bars: Sequence[Bar], told: Iterable[dict[str, Any]]) -> list[Part]:
    """The parts of one bucket and side that are left after all bars; `told`: records of the inference log in their order."""
    name = side.name.lower()
    by_minute = {int(record["minute"]): record for record in told}  # a restart may have told a minute twice
    parts: list[Part] = []
    for bar in bars:
        _scale(parts, DECAY_PER_MINUTE**bar.minutes, floor=True)
        if parts and bool(reached(side, np.array([key]), step, bar.low, bar.high)[0]):
            _scale(parts, 1.0 - SWEEP_REDUCTION_FACTOR, floor=True)
        record = by_minute.get(bar.minute)
        if record is None:
            continue
        if record["event"] == "closing":
            _scale(parts, 1.0 - record["fraction"], floor=False)
            continue
        parts += [
            Part(bar.minute, record["src"], name, row["venue"], row["tier"], row["usd"], row["usd"])
            for row in record["rows"]
            if row["bucket"] == key and row["side"] == name and row["usd"] > 0.0 and record.get("step", step) == step
        ]
    return parts


def _scale(parts: list[Part], factor: float, *, floor: bool) -> None:
    for part in parts:
        part.left_usd *= factor
    if floor and sum(part.left_usd for part in parts) < SWEEP_MIN_BUCKET_USD:
        parts.clear()


def _tape(path: Path, key: int, step: float, bars: Sequence[Bar]) -> tuple[int, tuple[float, float]]:
    """(events in the bucket, USD of them that are left on each side)."""
    with RecordReader.open(path, LIQUIDATION_DTYPE) as reader:
        _, records = reader.latest(reader.ring.spec.slots)
    inside = [record for record in records if bucket_of(float(record["price"]), step) == key]
    tape, waiting = Tape(step), sorted(inside, key=lambda record: int(record["recv_ts_ns"]))
    for bar in bars:
        while waiting and int(waiting[0]["recv_ts_ns"]) < (bar.minute + 1) * MINUTE_NS:
            record = waiting.pop(0)
            tape.on_event(PositionSide(int(record["side"])), float(record["price"]), float(record["notional_usd"]))
        tape.roll(bar.minutes, bar.minute, bar.low, bar.high)
        tape.arm(bar.close)
    return len(inside), tape.usd


def _with(pair: tuple[float, float], row: int, value: float) -> tuple[float, float]:
    return (value, pair[1]) if row == 0 else (pair[0], value)


def _newest(path: Path) -> Frame | None:
    with FrameReader.open(path) as reader:
        slot = reader.latest()
        return decode(slot.payload) if slot is not None else None


def _bars(path: Path) -> list[Bar]:
    with RecordReader.open(path, CANDLE_DTYPE) as reader:
        _, rows = reader.latest(reader.ring.spec.slots)
    return [
        Bar(int(row["open_ts_ns"]) // MINUTE_NS, int(row["minutes"]), float(row["low"]), float(row["high"]), float(row["close"]))
        for row in rows
    ]


def _log_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Records of a log and its backups, oldest first; a line that a crash has cut is left out."""
    for file in (*sorted(path.parent.glob(f"{path.name}.*")), path):
        if not file.exists():
            continue
        with file.open("rb") as lines:
            for line in lines:
                try:
                    yield msgspec.json.decode(line)
                except msgspec.MsgspecError:
                    continue


def render(found: Explanation) -> str:
    """The explanation for a terminal."""
    lines = [f"{found.symbol} {found.price:,} in the map of {_time(found.at_ns // MINUTE_NS)} UTC (USD of modelled exposure)"]
    for row, name in enumerate(NAMES):
        lines.append(
            f"  {name:<5}  projected {found.map_projected_usd[row]:>16,.2f}   gone through again {found.projected_usd[row]:>16,.2f}"
        )
        lines.append(f"         tape      {found.map_tape_usd[row]:>16,.2f}   gone through again {found.tape_usd[row]:>16,.2f}")
    lines += _shares(found.parts, "tier", lambda part: f"{part.tier}x")
    lines += _shares(found.parts, "venue", lambda part: part.venue)
    if found.parts:
        lines.append("  minute (UTC)       price then   side   venue    tier        opened USD          left USD")
        lines += [
            f"  {_time(part.minute)}  {part.src:>12,.2f}   {part.side:<5}  {part.venue:<7} {part.tier:>4}x  "
            f"{part.opened_usd:>16,.2f}  {part.left_usd:>16,.2f}"
            for part in found.parts[:SHOWN_ROWS]
        ]
        if len(found.parts) > SHOWN_ROWS:
            lines.append(f"  and {len(found.parts) - SHOWN_ROWS} smaller ones")
    mapped, again = sum(found.map_projected_usd), sum(found.projected_usd)
    if mapped - again > max(1.0, 0.01 * mapped):
        lines.append(f"  {mapped - again:,.2f} USD of the map are older than the engine's log")
    elif again - mapped > max(1.0, 0.01 * again):
        lines.append(f"  {again - mapped:,.2f} USD of the log are not in the map: it began anew since, without a checkpoint")
    return "\n".join(lines)


def _shares(parts: Sequence[Part], what: str, name_of: Any) -> list[str]:
    sums: dict[str, float] = {}
    for part in parts:
        sums[name_of(part)] = sums.get(name_of(part), 0.0) + part.left_usd
    if not sums:
        return []
    texts = (f"{name} {usd:,.0f}" for name, usd in sorted(sums.items(), key=lambda item: -item[1]))
    return [f"  by {what}: {', '.join(texts)}"]


def _time(minute: int) -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime("%Y-%m-%d %H:%M")
