"""Projection, tape, scales and tier weights against plain ones written from the specification alone, on random markets."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from mpengine.config import load
from mpengine.engine.core import SymbolCore
from mpengine.engine.liquidation_maps import MapOut
from mpengine.schemas import LevelsDocument, decode
from shm.records import Kind, PositionSide, TakerSide, Venue, pack_event
from tests.engine.events import T0, clock, mark, ns, open_interest, trade
from tests.engine.plain_market import PlainMarket

VENUES = (Venue.BINANCE, Venue.BYBIT, Venue.OKX)
SIDES = (PositionSide.LONG, PositionSide.SHORT)
FIRST = T0 // (60 * 1_000_000_000)
MARKETS = [
    ("BTC", 100_000.0, ""),
    ("ETH", 1931.2, ""),
    ("SOL", 82.5, ""),
    ("BTC", 30_000.0, "[engine]\ndisabled_tiers = [20, 50]\n"),
]


class Both:
    """Engine and plain one, told the same: a price that wanders and jumps, minutes that are missing, venues that fall silent."""

    def __init__(self, seed: int, symbol: str, price: float, text: str) -> None:
        settings = load(text, {})
        one = settings.symbols[symbol]
        rates = {}
        for venue in VENUES:
            row = one.brackets[venue.label][0] if one.brackets.get(venue.label) else None  # type: ignore[index]
            rates[venue.label] = (row.mmr, row.max_leverage, row.cap_usd) if row else (one.default_mmr, 0.0, math.inf)
        ladder = {int(tier): weight for tier, weight in one.leverage_ladder.items()}
        self.core, self.rng, self.price = SymbolCore(symbol, settings), np.random.default_rng(seed), price
        self.plain = PlainMarket(one.step, ladder, set(settings.engine.disabled_tiers), rates)
        self.oi = {venue: 5e9 / price / (1 + at) for at, venue in enumerate(VENUES)}
        self.minute = 0

    def go_on(self) -> MapOut | None:
        """The next minute; None for one of which nothing is told."""
        rng, at = self.rng, 60.0 * self.minute
        minute, self.minute = FIRST + self.minute, self.minute + 1
        if rng.random() < 0.04:
            return None
        records, bar, takers = [clock(at)], list[float](), [0.0, 0.0]
        for second in range(1, 60, 2):
            self.price *= math.exp(rng.normal() * 0.0004 * (30 if rng.random() < 0.002 else 1))
            records.append(mark(at + second, self.price))
            bar.append(self.price)
            if rng.random() < 0.3 and self.minute % 7:
                side, qty = int(rng.random() < 0.5), float(rng.exponential(1e5) / self.price)
                records.append(trade(at + second, (TakerSide.BUY, TakerSide.SELL)[side], self.price, qty))
                takers[side] += self.price * qty
            if rng.random() < 0.25:
                records.append(self._liquidation(at + second))
        for venue in VENUES:
            if rng.random() < 0.9:
                self.oi[venue] *= math.exp(rng.normal() * 0.002 * (40 if rng.random() < 0.02 else 1))
                records.append(open_interest(at + 59.5, self.oi[venue], venue))
                self.plain.open_interest(venue.label, self.oi[venue], 60.0 * minute + 59.5)
        records.append(clock(at + 60))
        self.core.on_batch(b"".join(records))
        if rng.random() < 0.1:
            saved, symbol, settings = msgspec.msgpack.encode(self.core.state_of()), self.core.symbol, self.core._settings
            outputs, self.core = self.core.outputs(), SymbolCore(symbol, settings)
            self.core.restore(msgspec.msgpack.decode(saved))
        else:
            outputs = self.core.outputs()
        self.plain.roll(minute, (bar[0], max(bar), min(bar), bar[-1]), *takers)
        *_, last = [one for one in outputs if isinstance(one, MapOut)]
        return last

    def _liquidation(self, at: float) -> bytes:
        rng = self.rng
        venue, side = VENUES[int(rng.integers(3))], int(rng.random() < 0.5)
        away = float(rng.exponential(0.006)) * (8 if rng.random() < 0.03 else 1) - 0.0005
        price = self.price * (1 - away if side == 0 else 1 + away)
        average = price if venue is Venue.BINANCE and rng.random() < 0.4 else 0.0
        qty = float(rng.lognormal(8, 1.5) / self.price)
        self.plain.liquidation(venue.label, side, price, average, qty, self.price)
        return pack_event(Kind.LIQUIDATION, venue, SIDES[side], 0, ns(at), ns(at), 0, 0, price, qty, average)


def close_to(value: Any) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.stress) for seed in range(1, 6))])
def test_maps_and_weights_are_those_of_the_specification(seed: int, market: tuple[str, float, str]) -> None:
    both = Both(seed, *market)
    first = dict(both.plain.weights)
    for _ in range(110):
        out = both.go_on()
        if out is None:
            continue
        plain, levels = both.plain, decode(out.levels, LevelsDocument)
        origin, planes = plain.planes()
        assert (out.frame.origin, out.frame.reference) == (origin, close_to(plain.src))
        assert out.frame.planes == close_to(np.array(planes))
        assert (out.frame.norm_a, out.frame.norm_b) == (close_to(plain.scale(planes[:2])), close_to(plain.scale(planes[2:])))
        for side, tape, projected in zip((levels.long, levels.short), plain.tape, plain.maps):
            assert (side.tape_buckets, side.projected_buckets) == (len(tape), len(projected))
            assert side.tape_usd == close_to(sum(one.usd for one in tape.values()))
    found = both.core._maps.calibrator.document()
    assert {int(name): tier.weight for name, tier in found.tiers.items() if tier.weight} == close_to(plain.weights)
    for tier in plain.tiers:
        one = found.tiers[str(tier)]
        assert one.crossed_usd == close_to(plain.crossed[tier]) and one.attributed_usd == close_to(plain.attributed[tier])
        assert one.evidence == close_to(plain.evidence()[tier])
    assert {name: rate for name, rate in found.mmr.items() if name in plain.measured} == close_to(plain.measured)
    # The market did what it is there for.
    assert (found.explained, found.unexplained) == (plain.explained, plain.unexplained) and plain.explained > 50
    assert (
        len(plain.notionals) > 200
        and plain.measured
        and plain.weights != first
        and both.core.counters["far"] > 0
        and found.unexplained > 0
    )
