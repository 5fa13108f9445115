"""Folding minutes into longer bars, and reading minutes only once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from api.bars import CandleBars, closed_bars, fold
from api.sources import Sources
from shm.records import CANDLE_DTYPE, CandleField, CandleFlag
from tests.api.world import MS, World, candle

HOUR_MS = 3_600_000
T0 = 1_795_200_000_000 // HOUR_MS * HOUR_MS


def minutes(*bars: Any) -> Any:
    return np.stack(bars) if bars else np.zeros(0, CANDLE_DTYPE)


def series(count: int, first: int = 0, **values: Any) -> Any:
    """`count` minutes from T0 + `first` minutes; price i is its number."""
    return minutes(*(candle(T0 + (first + i) * 60_000, price=float(first + i + 1), **values) for i in range(count)))


def test_a_bar_has_first_extremes_last_and_sums() -> None:
    bars = minutes(
        candle(T0, open=10.0, high=14.0, low=9.0, close=11.0, buy_usd=1.5, sell_usd=2.0, buy_count=3, sell_count=4),
        candle(T0 + 60_000, open=11.0, high=12.0, low=5.0, close=6.0, buy_usd=1.0, sell_usd=2.0, buy_count=1, sell_count=1,
               liq_long_usd=7.0, liq_short_usd=8.0, liq_long_count=2, liq_short_count=3),
    )  # fmt: skip
    found = fold(bars, 5)
    assert found.t_ms == [T0]
    assert {name: values.tolist() for name, values in found.prices.items()} == {"o": [10.0], "h": [14.0], "l": [5.0], "c": [6.0]}
    assert {name: values.tolist() for name, values in found.sums.items()} == {
        "buy_usd": [2.5], "sell_usd": [4.0], "liq_long_usd": [7.0], "liq_short_usd": [8.0],
    }  # fmt: skip
    assert found.counts == {"buy_count": [4], "sell_count": [5], "liq_count": [5]}


@pytest.mark.covers("S-M2")
def test_optional_values_are_the_last_there_is_and_null_without_one() -> None:
    everything = CandleField.MARK | CandleField.OI | CandleField.OI_DELTA | CandleField.FUNDING
    bars = minutes(
        candle(T0, mark=1.0, oi_base=10.0, oi_delta_base=1.0, funding_rate=0.1),
        candle(T0 + 60_000, present=CandleField.OI_DELTA, mark=99.0, oi_delta_base=2.0),
        candle(T0 + 300_000, present=0, mark=99.0, oi_base=99.0),
        candle(T0 + 600_000, present=everything, mark=3.0, oi_base=30.0, oi_delta_base=4.0, funding_rate=0.3),
    )
    assert fold(bars, 5).optional == {
        "mark": [1.0, None, 3.0],
        "oi_base": [10.0, None, 30.0],
        "oi_delta_base": [3.0, None, 4.0],
        "funding_rate": [0.1, None, 0.3],
    }


def test_flags_say_what_is_missing_inside_the_bar() -> None:
    whole, short = series(5), series(4)
    assert fold(whole, 5).flags == [0]
    assert fold(short, 5).flags == [CandleFlag.MINUTES_MISSING]
    whole["flags"][0] = CandleFlag.MINUTES_MISSING  # before this minute, so not in this bar
    whole["flags"][3] = CandleFlag.FALLBACK_PRICE | CandleFlag.GAP
    assert fold(whole, 5).flags == [CandleFlag.FALLBACK_PRICE | CandleFlag.GAP]
    assert fold(whole, 1).flags == [CandleFlag.MINUTES_MISSING, 0, 0, CandleFlag.FALLBACK_PRICE | CandleFlag.GAP, 0]


def test_only_closed_bars() -> None:
    assert closed_bars(series(10), 5, 100, None).t_ms == [T0, T0 + 300_000]
    assert closed_bars(series(9), 5, 100, None).t_ms == [T0]
    assert closed_bars(series(3), 5, 100, None).t_ms == []
    # A later minute closes the bar even where its own last minutes are missing.
    gappy = np.concatenate([series(2), series(1, first=6)])
    assert closed_bars(gappy, 5, 100, None).t_ms == [T0]


def test_a_bar_without_minutes_is_absent_and_does_not_count() -> None:
    gappy = np.concatenate([series(5), series(5, first=15), series(5, first=20)])
    assert closed_bars(gappy, 5, 100, None).t_ms == [T0, T0 + 900_000, T0 + 1_200_000]
    assert closed_bars(gappy, 5, 3, None).t_ms == [T0, T0 + 900_000, T0 + 1_200_000]
    assert closed_bars(gappy, 5, 2, None).t_ms == [T0 + 900_000, T0 + 1_200_000]


@pytest.mark.parametrize(
    ("to_ms", "wanted"),
    [
        (T0 + 299_999, []),
        (T0 + 300_000, [T0]),
        (T0 + 599_999, [T0]),
        (T0 + 600_000, [T0, T0 + 300_000]),
        (T0 * 2, [T0, T0 + 300_000]),
    ],
)
def test_to_ms_is_the_last_close(to_ms: int, wanted: list[int]) -> None:
    assert closed_bars(series(10), 5, 100, to_ms).t_ms == wanted


def test_pages_backwards_join_without_hole_or_overlap() -> None:
    bars, pages, to_ms = series(50), [], None
    while page := closed_bars(bars, 1, 7, to_ms).t_ms:
        pages[:0] = page
        to_ms = page[0]
    assert pages == [T0 + i * 60_000 for i in range(50)]


@pytest.mark.covers("T-L11")
def test_no_minutes_at_all() -> None:
    found = closed_bars(series(0), 60, 10, None)
    assert (found.t_ms, found.flags, found.optional["mark"], found.prices["o"].tolist()) == ([], [], [], [])


def test_minutes_are_read_once_and_again_after_another_epoch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = Sources(world.settings, world.clock.clock())
    for index in range(5):
        world.add_candle(candle(T0 + index * 60_000))
    sources.check()
    handle = sources.symbols["BTC"].candles
    bars, asked = CandleBars(handle), []
    assert handle.reader is not None
    real = handle.reader.range
    monkeypatch.setattr(handle.reader, "range", lambda start, stop: asked.append((start, stop)) or real(start, stop))
    found, lead = bars.minutes()
    assert (len(found), lead, asked) == (5, (1, 4), [(0, 5)])
    world.add_candle(candle(T0 + 300_000))
    found, lead = bars.minutes()
    assert (len(found), lead, asked[1:]) == (6, (1, 5), [(5, 6)])
    world.reopen(world.settings.paths.candles("BTC"))
    world.add_candle(candle(T0 + 360_000))
    found, lead = bars.minutes()
    assert (len(found), lead, asked[2:]) == (7, (2, 6), [(0, 7)])
    assert (found["open_ts_ns"] // MS).tolist() == [T0 + i * 60_000 for i in range(7)]
    sources.close()
