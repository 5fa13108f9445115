"""Numbers that are finite and cannot be true: none of them reaches a map, a bar or a document (`spec: reliability`, section 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpengine.config import load
from mpengine.engine.core import CandleOut, ErrorOut, SymbolCore
from mpengine.engine.liquidation_maps import MapOut
from mpengine.schemas import LevelsDocument, ZonesDocument, decode
from shm.frames import encode
from shm.records import PositionSide, TakerSide, Venue
from tests.engine.events import liquidation, mark, open_interest, trade
from tests.engine.test_core import core
from tests.engine.test_liquidation_maps import minute

HUGE = (1e19, 1e30, 1e100, 1e300, 1.7e308)


def after(before: bytes, within: bytes = b"") -> tuple[SymbolCore, list[Any]]:
    """A core that got `before` ahead of its first minute and `within` in its second, and what it gave out in five."""
    one = core()
    one.on_batch(before)
    for number in range(5):
        one.on_batch((within if number == 2 else b"") + minute(number, 88_000.0 + 50 * number))
    return one, one.outputs()


def judge(one: SymbolCore, outputs: list[Any], minutes: int = 5) -> None:
    """Every minute is there, no step failed, and everything in it can be read and is finite."""
    maps = [out for out in outputs if isinstance(out, MapOut)]
    assert (len(maps), one.counters["errors"]) == (minutes, 0)
    for out in maps:
        encode(out.frame)
        decode(out.levels, LevelsDocument)
        decode(out.zones, ZonesDocument)
    for out in outputs:
        if isinstance(out, CandleOut):
            bar = out.record
            assert bar.dtype.names is not None
            assert all(np.isfinite(bar[name]).all() for name in bar.dtype.names if np.issubdtype(bar[name].dtype, np.floating))


@pytest.mark.covers("E-M4")
@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("kind", ["price", "average", "qty", "trade", "interest"])
def test_numbers_beyond_any_market_are_refused_before_there_is_a_price(kind: str, value: float) -> None:
    """Nothing can be compared yet, so their size alone must stop them: a bucket number that no map can hold fails every minute."""
    records = {
        "price": liquidation(-5, PositionSide.LONG, value, 1.0),
        "average": liquidation(-5, PositionSide.LONG, 99_500.0, 1.0, value),
        "qty": liquidation(-5, PositionSide.LONG, 99_500.0, value, 99_900.0),
        "trade": trade(-5, TakerSide.BUY, value, value),
        "interest": open_interest(-5, value, Venue.OKX) + open_interest(0, value * 1.05, Venue.OKX),
    }
    one, outputs = after(records[kind])
    assert one.counters["refused"] >= 1
    judge(one, outputs)


@pytest.mark.covers("E-M4")
@pytest.mark.parametrize("value", HUGE)
def test_numbers_beyond_any_market_are_refused_beside_true_prices(value: float) -> None:
    within = (
        trade(121, TakerSide.BUY, 100_000.0, value) + liquidation(121, PositionSide.LONG, 99_500.0, value, 99_900.0)
        + b"".join(open_interest(122 + n, value, Venue.BYBIT) for n in range(3)) + mark(121, value)
    )  # fmt: skip
    one, outputs = after(b"", within)
    assert one.counters["refused"] == 6
    judge(one, outputs)


@pytest.mark.parametrize("value", HUGE)
def test_a_first_mark_beyond_any_market_is_no_reference(value: float) -> None:
    one, outputs = after(mark(-5, value))
    assert one.counters["refused"] == 1
    judge(one, outputs)


def test_open_interest_of_a_venue_that_is_only_shown_is_refused() -> None:
    """A split over venues without brackets or rates would fail the maps of every minute."""
    one, outputs = after(b"", open_interest(121, 5_000.0, Venue.HYPERLIQUID))
    assert one.counters["refused"] == 1
    judge(one, outputs)


def test_a_step_too_coarse_for_its_coin_makes_no_map_and_says_why() -> None:
    """Bucket 0 would have a price of 0: sizes of infinity, and a document that nobody can read beside a frame that looks fine."""
    one = SymbolCore("XRP", load("[symbols.XRP]\nstep = 1.0\ntick = 0.0001\n", {}))
    for number in range(3):
        one.on_batch(minute(number, 1e7 + 1e5 * number, 0.4))
    outputs = one.outputs()
    assert not [out for out in outputs if isinstance(out, MapOut)]
    assert len([out for out in outputs if isinstance(out, CandleOut)]) == 3
    (told,) = [out for out in outputs if isinstance(out, ErrorOut)]
    assert "the step is too coarse for the price" in told.traceback
    assert one.status("live").errors[0].count == 3
