"""What a minute costs the liquidation engine: 10,000 buckets, as many zones as there may be, 1,000 to 100,000 events. One core::

events -> tape, calibrator          while they come
minute -> decay, sweep, opening, zones, combined map, pools, frame, documents, attribution, files       at its end

against the same decay, sweep and combination over plain dicts of floats, without zones, pools and documents, in the same run.

python -m bench.minute [--quick] [--json]
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from bench.common import Row, best_of, main, report
from mpengine.config import Settings, load
from mpengine.engine.liquidation_maps import LiquidationMaps, Minute
from mpengine.engine.liquidations import Event, realise
from mpengine.engine.open_interest import OiMinute
from mpengine.engine.zones import MAX_ZONES_PER_SIDE
from shm.records import Coverage, PositionSide, Venue

EVENTS = (1_000, 10_000, 100_000)
BUCKETS = 10_000
SRC = 100_000.0
NUMBER = 28_333_400
MINUTE_NS = 60 * 10**9
SETTINGS: Settings = load("[symbols.BTC]\nstep = 2.0\nbook_step = 20.0\n", {})


def filled() -> LiquidationMaps:
    """An engine after a long day: `BUCKETS` projected buckets on both sides, zones up to their bound, a ledger and a tape."""
    maps, rng = LiquidationMaps("BTC", SETTINGS), np.random.default_rng(1)
    tiers = len(SETTINGS.symbols["BTC"].leverage_ladder)
    spread = BUCKETS // 2
    for row, keys in enumerate((np.arange(50_000 - spread, 50_000), np.arange(50_001, 50_001 + spread))):
        usd = rng.exponential(20_000.0, (spread, tiers)) * (rng.random((spread, tiers)) < 0.4)
        usd[:, 0] += 200.0
        usd[:, 1] = 0.0
        maps.projection.maps[row].add(keys, usd)
        maps.projection.ledger[row].add(keys, usd * 5.0)
        places = np.unique(np.round(20_000 * 1.00052 ** np.arange(MAX_ZONES_PER_SIDE * 1.2)).astype(np.int64))[:MAX_ZONES_PER_SIDE]
        masses = np.zeros((len(places), tiers))
        masses[:, 4:7] = rng.exponential(400_000.0, (len(places), 3)) + 100_000.0
        nothing = (np.zeros(0, np.int64), np.zeros((0, tiers)))
        no_tape = (np.zeros(0, np.int64), np.zeros(0))
        maps.zones.unit_usd = 250_000.0
        maps.zones.contribute(
            minute=NUMBER - 1, opened_usd=0.0, projected=((places, masses), nothing) if row == 0 else (nothing, (places, masses)),
            tape=(no_tape, no_tape), tape_p99=1.0, tape_weight=0.35,
        )  # fmt: skip
    return maps


def events_of(count: int) -> list[tuple[Event, Any]]:
    """Accepted liquidations of a minute within half a percent of the price."""
    rng = np.random.default_rng(2)
    out = []
    for n in range(count):
        side = PositionSide.LONG if n % 2 else PositionSide.SHORT
        price = SRC * (1 + 0.005 * (rng.random() - 0.5))
        event = Event(
            Venue.BINANCE, side, 0, NUMBER * MINUTE_NS + n, NUMBER * MINUTE_NS + n, price, 0.01 + float(rng.random()), price
        )
        realised = realise(event, mmr=0.004, reference=SRC, now_ns=NUMBER * MINUTE_NS + n)
        assert realised is not None
        out.append((event, realised))
    return out


def minute() -> Minute:
    """A minute in which open interest rose and the price reached a few buckets."""
    return Minute(
        number=NUMBER, minutes=1, open=SRC, high=SRC + 8.0, low=SRC - 8.0, close=SRC + 2.0, src=SRC, mark=SRC, buy_usd=6e6,
        sell_usd=4e6, liquidated_usd=(0.0, 0.0), oi=OiMinute(88_050.0, 50.0, {Venue.BINANCE: 88_050.0}, 88_000.0),
        coverage=Coverage.NONE, venues=1, venue_ns=0,
    )  # fmt: skip


def measure(state: dict[str, Any], work: list[tuple[Event, Any]], rounds: int) -> dict[str, float]:
    """Milliseconds of each step, fastest of `rounds`; `event`: of all events."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        maps = LiquidationMaps("BTC", SETTINGS)
        maps.restore(state)
        spent = {"events": 0.0}
        started = time.perf_counter()
        for event, realised in work:
            maps.on_liquidation(event, realised, SRC, SRC)
        spent["events"] = time.perf_counter() - started
        maps.outputs()
        for name, step in maps.steps(minute()):
            started = time.perf_counter()
            step()
            spent[name] = time.perf_counter() - started
        for name, seconds in spent.items():
            best[name] = min(best.get(name, float("inf")), seconds * 1e3)
    return best


def plain_minute(maps: LiquidationMaps) -> float:
    """Milliseconds of decay, sweep and combination over dicts of floats: the simplest honest map."""
    sides = [dict(zip(one.keys.tolist(), one.values.tolist())) for one in maps.projection.maps]

    def work() -> None:
        for row, side in enumerate(sides):
            gone = []
            for key, tiers in side.items():
                factor = 0.995 * (0.3 if (2.0 * key >= SRC - 8.0 if row == 0 else 2.0 * key <= SRC + 8.0) else 1.0)
                for at, usd in enumerate(tiers):
                    tiers[at] = usd * factor
                if sum(tiers) < 100.0:
                    gone.append(key)
            for key in gone:
                del side[key]
            totals = {key: sum(tiers) for key, tiers in side.items() if 45_000 <= key <= 55_000}
            largest = max(totals.values())
            _ = {key: 0.65 * min(1.0, usd / largest) for key, usd in totals.items()}

    return best_of(3, work) * 1e3


def run(quick: bool) -> list[Row]:
    """Rows {events, us_event, minute_ms, maps, frame, publish, calibrator, save, vs_dict}."""
    maps = filled()
    state = maps.state_of()
    zones, buckets = sum(maps.zones.active), sum(len(one) for one in maps.projection.maps)
    plain = plain_minute(maps)
    rows: list[Row] = []
    for count in EVENTS:
        best = measure(state, events_of(count), 3 if quick else 9)
        whole = sum(spent for name, spent in best.items() if name != "events")
        rows.append(
            {
                "events": f"{count:,}",
                "us_event": round(best["events"] / count * 1e3, 2),
                "minute_ms": round(whole, 2),
                **{f"{name}_ms": round(best[name], 2) for name in ("maps", "frame", "publish", "calibrator", "save")},
                "vs_dict": round(plain / whole, 2),
            }
        )
    rows.append({**dict.fromkeys(rows[0]), "events": "dicts, maps alone", "minute_ms": round(plain, 2), "vs_dict": 1.0})
    report(
        f"minute: {buckets:,} buckets, {zones:,} zones",
        rows,
        "vs_dict: decay, sweep and combination of the same buckets over dicts of floats / the whole minute",
    )
    return rows


if __name__ == "__main__":
    main(run, "bench.minute")
