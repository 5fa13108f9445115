"""Markets that no exchange has: hours without a word, prices that jump out of the grid, late and early events, other settings.

Whatever comes, a state that is saved and loaded at any moment goes on bit by bit, batches change nothing, and everything published
can be read and adds up.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from mpengine.config import Settings, load
from mpengine.engine.core import SymbolCore
from mpengine.engine.liquidation_maps import MapOut
from mpengine.engine.storage import state_digest
from mpengine.schemas import LevelsDocument, ZonesDocument, decode
from shm.frames import encode
from shm.records import GapScope, Kind, PositionSide, TakerSide, Venue, pack_event
from tests.engine.events import clock, gap, mark, ns, open_interest, trade
from tests.engine.test_core import as_bytes

MARKETS = {
    "BTC": ("BTC", "", 100_000.0),
    "by event": ("BTC", '[engine]\nattribution = "event"\nbias_correction = true\n[symbols.BTC]\n', 100_000.0),
    "all tiers": ("BTC", "[engine]\ndisabled_tiers = []\n[symbols.BTC]\n", 100_000.0),
    "a coarse step": ("BTC", "[symbols.BTC]\nstep = 500.0\n", 100_000.0),
    "a cheap coin": ("PEPE", "[symbols.PEPE]\nstep = 0.00000001\ntick = 0.0000000001\n", 0.0000123),
}
VENUES = (Venue.BINANCE, Venue.BYBIT, Venue.OKX)
SIDES = (PositionSide.LONG, PositionSide.SHORT)


def odd_records(seed: int, price: float, count: int) -> list[bytes]:
    """Records of a market, in order of arrival."""
    rng, at, records = np.random.default_rng(seed), -30.0, list[bytes]()
    oi = dict(zip(VENUES, (5e9 / price, 3e9 / price, 1e9 / price)))
    for _ in range(count):
        at += float(rng.choice([0.25, 1, 3, 10, 40, 200, 8000], p=[0.3, 0.3, 0.25, 0.1, 0.04, 0.009, 0.001]))
        price *= math.exp(rng.normal() * 0.001) * (
            float(rng.choice([0.2, 0.5, 0.9, 1.1, 1.6, 5.0])) if rng.random() < 0.002 else 1.0
        )
        kind, venue = rng.random(), VENUES[int(rng.integers(3))]
        if kind < 0.3:
            records.append(clock(at))
        elif kind < 0.55:
            records.append(mark(at, price))
        elif kind < 0.7:
            records.append(
                trade(at, (TakerSide.BUY, TakerSide.SELL)[int(rng.integers(2))], price, float(rng.exponential(1e5)) / price)
            )
        elif kind < 0.85:
            oi[venue] *= math.exp(rng.normal() * (0.4 if rng.random() < 0.01 else 0.002))
            records.append(open_interest(at, oi[venue], venue))
        elif kind < 0.97:
            records.append(_liquidation(rng, at, price, venue))
        else:
            records.append(gap(at, GapScope.LIQUIDATIONS, venue))
    return records


def _liquidation(rng: Any, at: float, price: float, venue: Venue) -> bytes:
    row, away = int(rng.integers(2)), float(rng.exponential(0.004))
    told = price * (1 + away if row else 1 - away)
    venue_at = at - float(rng.choice([0, 0, 0, 70, 4000, -500]))  # late, too late, of a clock that is wrong
    average = told if rng.random() < 0.5 else 0.0
    qty = float(rng.exponential(1e4)) / price
    return pack_event(Kind.LIQUIDATION, venue, SIDES[row], 0, ns(venue_at), ns(at), 0, 0, told, qty, average)


def saved_and_loaded(one: SymbolCore, settings: Settings) -> SymbolCore:
    saved = msgspec.msgpack.encode(one.state_of())
    again = SymbolCore(one.symbol, settings)
    again.restore(msgspec.msgpack.decode(saved))
    assert msgspec.msgpack.encode(again.state_of()) == saved
    return again


def judge(one: SymbolCore, outputs: list[Any]) -> int:
    """What was published can be read, and the state adds up; how many maps there were."""
    maps = [out for out in outputs if isinstance(out, MapOut)]
    for out in maps:
        encode(out.frame)
        levels, zones = decode(out.levels, LevelsDocument), decode(out.zones, ZonesDocument)
        for pool in (*levels.long.pools, *levels.short.pools):
            digits = 1.01 * 10.0 ** -max(2, round(-math.log10(zones.step)))
            assert pool.price_low - digits <= pool.price <= pool.price_high + digits and 0.0 < pool.size_base < math.inf
        assert all(row.price >= 0.0 for row in zones.rows)
    for row in range(2):
        buckets, side = one._maps.projection.maps[row], one._maps.zones._sides[row]
        assert (np.diff(buckets.keys) > 0).all() and np.isfinite(buckets.values).all() and (buckets.values >= 0.0).all()
        assert side.weight == pytest.approx(side.tiers.sum(axis=1) + side.tape_part, abs=1e-9)
    weights = one._maps.calibrator.weights
    assert weights.sum() == pytest.approx(1.0, abs=1e-9) and weights.max() <= 0.35 + 1e-12
    assert one.counters["errors"] == 0
    return len(maps)


@pytest.mark.covers("A2-L8")
@pytest.mark.parametrize("name", MARKETS)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.stress) for seed in range(2, 20))])
def test_an_odd_market_is_the_same_over_batches_and_restarts(seed: int, name: str) -> None:
    symbol, text, price = MARKETS[name]
    settings, rng, shown = load(text, {}), np.random.default_rng(seed), 0
    whole, pieces = SymbolCore(symbol, settings), SymbolCore(symbol, settings)
    records = odd_records(seed, price, 1500)
    at = 0
    while at < len(records):
        part = records[at : (at := at + int(rng.integers(1, 60)))]
        whole.on_batch(b"".join(part))
        for record in part:
            pieces.on_batch(record)
        outputs = whole.outputs()
        assert [as_bytes(one) for one in pieces.outputs()] == [as_bytes(one) for one in outputs]
        shown += judge(whole, outputs)
        if rng.random() < 0.3:
            pieces = saved_and_loaded(pieces, settings)
    assert state_digest(pieces.state_of()) == state_digest(whole.state_of())
    assert shown > 20 and whole.counters["liquidations"] > 50 and whole._maps.projection.inferences > 3
