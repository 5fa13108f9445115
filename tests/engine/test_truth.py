"""Does the map show what is there? On a market whose positions are known, and with one thing wrong at a time it must not.

The projected mass is compared with the true density of liquidation prices, and the map at a time with the liquidations of the next
quarter of an hour, against a rule that knows nothing but the distance from the price (`spec: scoring`, sections 5 to 7, 10).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from mpengine.config import load
from mpengine.engine import inference
from mpengine.engine.core import SymbolCore
from mpengine.engine.leverage import liquidation_prices
from mpengine.engine.liquidation_maps import MapOut
from mpengine.schemas import LevelsDocument, decode
from shm.frames import Frame
from shm.records import PositionSide, TakerSide
from tests.engine.known_market import KnownMarket

Floats = npt.NDArray[np.float64]
LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
SETTINGS = load("[symbols.BTC]\n", {}, ["venues.bybit.enabled=false", "venues.okx.enabled=false"])
MIX = {5: 0.10, 20: 0.25, 25: 0.20, 50: 0.20, 75: 0.10, 100: 0.10, 125: 0.05}
MINUTES = 360
WARM = 90
HORIZON = 15
EPS = 0.1
CELL = 0.001
REACH = 0.10


@dataclass
class Run:
    """What came out of a market and its engine. `rank`: rank correlation; `overlap`: share of the mass that both have in the same
    cells of 0.25 %; both the mean over the run. `shuffled`: that overlap with the truth of another time. `gain`: nats per event
    over the distance rule. `total`: projected over true USD. `balance`: correlation of the long share of what was projected with
    that of what was opened, by the quarter of an hour."""

    rank: float
    overlap: float
    shuffled: float
    gain: float
    total: float
    balance: float
    events: int


class Compared(NamedTuple):
    """Projected and true distribution over the cells of both sides; projected over true USD."""

    projected: Floats
    truth: Floats
    total: float


@dataclass
class _Forecast:
    """Map and price at a time, and what came in the following quarter of an hour: range of the price, liquidations."""

    minute: int
    frame: Frame
    low: float = math.inf
    high: float = 0.0
    events: list[tuple[PositionSide, float]] = field(default_factory=list)


def follow(market: KnownMarket, minutes: int = MINUTES) -> Run:
    """The market for so many minutes through an engine."""
    core, forecasts, quality, seen = SymbolCore("BTC", SETTINGS), list[_Forecast](), list[Compared](), 0
    projected, opened = list[tuple[float, float]](), list[tuple[float, float]]()
    for minute in range(minutes):
        core.on_batch(market.minute())
        if forecasts:
            now = forecasts[-1]
            now.low, now.high = min(now.low, market.range[0]), max(now.high, market.range[1])
            now.events += [(side, level) for _, side, level, _ in market.liquidated[seen:]]
        seen = len(market.liquidated)
        published = [one for one in core.outputs() if isinstance(one, MapOut)]
        if minute == 0 or minute % HORIZON:
            continue
        frame, levels = published[0].frame, decode(published[0].levels, LevelsDocument)
        forecasts.append(_Forecast(minute, frame))
        if minute >= WARM:
            quality.append(compare(frame, market))
            projected.append((levels.long.opened_usd, levels.short.opened_usd))
            opened.append((market.opened_usd[0], market.opened_usd[1]))
    gain, events = information_gain(forecasts[:-1])
    later = quality[len(quality) // 2 :] + quality[: len(quality) // 2]
    width = min(len(one.truth) for one in quality)
    return Run(
        rank=float(np.mean([spearman(one.projected, one.truth) for one in quality])),
        overlap=float(np.mean([np.minimum(one.projected, one.truth).sum() for one in quality])),
        shuffled=float(np.mean([np.minimum(a.projected[:width], b.truth[:width]).sum() for a, b in zip(quality, later)])),
        gain=gain,
        total=float(np.mean([one.total for one in quality])),
        balance=float(np.corrcoef(long_shares(projected), long_shares(opened))[0, 1]),
        events=events,
    )


def compare(frame: Frame, market: KnownMarket) -> Compared:
    """The projected planes of a frame and the true density, in cells of 0.25 % of the price."""
    truth, projected = market.density(frame.origin, frame.count, frame.step), frame.planes[2:]
    width = round(0.0025 * frame.reference / frame.step)
    cells = [block(plane, width) for plane in (projected, truth)]
    return Compared(cells[0] / cells[0].sum(), cells[1] / cells[1].sum(), float(projected.sum() / truth.sum()))


def long_shares(totals: list[tuple[float, float]]) -> list[float]:
    """Share of the long side in what was added between totals of (long, short)."""
    added = np.diff(np.array(totals), axis=0)
    shares: list[float] = (added[:, 0] / np.maximum(added.sum(axis=1), 1.0)).tolist()
    return shares


def block(plane: Floats, width: int) -> Floats:
    """Sums over `width` buckets, both sides after each other."""
    whole = plane[:, : plane.shape[1] // width * width]
    return whole.reshape(2, -1, width).sum(axis=2).ravel()


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation over the cells in which either has mass; equal values share their mean rank."""
    some = (a > 0.0) | (b > 0.0)
    ranks = [np.unique(one[some], return_inverse=True, return_counts=True) for one in (a, b)]
    means = [(np.cumsum(counts) - (counts - 1) / 2.0)[where] for _, where, counts in ranks]
    return float(np.corrcoef(*means)[0, 1])


def information_gain(forecasts: list[_Forecast]) -> tuple[float, int]:
    """(mean log likelihood ratio per event against the distance rule, number of events), given where the price went.

    The rule is the distance climatology: events by distance from the price per time that the distance was reached, of everything
    before the map's time. It begins with an even spread and learns for an hour and a half before it is compared.
    """
    count = round(REACH / CELL)
    hits, reached = np.ones(count), np.ones(count)
    gains = list[float]()
    for forecast in forecasts:
        price, rule = forecast.frame.reference, hits / reached
        for row, (side, far) in enumerate(((LONG, price / forecast.low), (SHORT, forecast.high / price))):
            cells = min(count, int(math.log(far) / CELL) + 1) if far > 1.0 else 0
            sign = -1.0 if side is LONG else 1.0
            ahead = [sign * math.log(level / price) for of, level in forecast.events if of is side]
            places = [place for distance in ahead if distance > 0.0 and (place := int(distance / CELL)) < cells]
            mass = mass_by_distance(forecast.frame, row, sign, count)[:cells]
            if forecast.minute >= WARM:
                gains += [math.log(likelihood(mass, place) / likelihood(rule[:cells], place)) for place in places]
            reached[:cells] += 1.0
            np.add.at(hits, places, 1.0)
    return float(np.mean(gains)), len(gains)


def mass_by_distance(frame: Frame, row: int, sign: float, count: int) -> Floats:
    """float64[count]: projected USD of one side by log distance ahead of the price, in cells of 0.1 %."""
    prices = (frame.origin + np.arange(frame.count)) * frame.step
    distance = sign * np.log(prices / frame.reference)
    ahead = distance > 0.0
    places = np.minimum((distance[ahead] / CELL).astype(np.int64), count - 1)
    return np.bincount(places, frame.planes[2 + row][ahead], count).astype(np.float64)


def likelihood(mass: Floats, place: int) -> float:
    """Probability of a cell: its share of the mass, one tenth of it spread evenly."""
    total = mass.sum()
    share = mass[place] / total if total > 0.0 else 1.0 / len(mass)
    return float((1 - EPS) * share + EPS / len(mass))


def sees(run: Run) -> bool:
    """What is asked of a map that shows what is there."""
    return (
        run.rank > 0.8
        and run.overlap > 0.75
        and run.overlap > run.shuffled + 0.1
        and run.gain > 0.0
        and 0.25 < run.total < 1.0  # opening and closing within a minute is not seen in open interest
        and run.balance > 0.5
    )


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.stress) for seed in range(3, 10))])
def test_the_map_shows_the_positions_and_says_more_than_distance(seed: int) -> None:
    run = follow(KnownMarket(seed, MIX))
    assert run.events > 500
    assert sees(run), run


def _opposite(side: PositionSide) -> PositionSide:
    return SHORT if side is LONG else LONG


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Puts another formula of liquidation prices into the projection."""
    return lambda formula: monkeypatch.setattr(inference, "liquidation_prices", formula)


def test_a_flipped_maintenance_sign_fails(prices: Any) -> None:
    """Regression story 6."""
    prices(lambda side, entry, leverage, mmr: liquidation_prices(side, entry, leverage, -mmr))
    run = follow(KnownMarket(0, MIX))
    assert not sees(run)
    assert run.rank < 0.5
    prices(liquidation_prices)
    assert follow(KnownMarket(0, MIX)).gain > run.gain + 0.05


def test_swapped_sides_fail(prices: Any) -> None:
    prices(lambda side, entry, leverage, mmr: liquidation_prices(_opposite(side), entry, leverage, mmr))
    run = follow(KnownMarket(0, MIX))
    assert not sees(run)
    assert run.overlap < 0.1


def test_open_interest_in_usd_fails() -> None:
    run = follow(KnownMarket(0, MIX, told_oi=lambda base: base * 100_000.0))
    assert not sees(run)
    assert run.total > 1000.0


def test_an_inverted_taker_flag_fails() -> None:
    run = follow(KnownMarket(0, MIX, told_taker=lambda side: TakerSide.SELL if side is TakerSide.BUY else TakerSide.BUY))
    assert not sees(run)
    assert run.balance < 0.0


def test_a_ladder_without_the_traders_leverage_fails() -> None:
    """The measure is about levels, not about any mass near the price."""
    assert follow(KnownMarket(0, MIX), 240).overlap > follow(KnownMarket(0, {10: 0.5, 33: 0.5}), 240).overlap + 0.1
