"""Candles joined to columns, and the times of the axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from tests.browser.picture_bytes import T0

MINUTES = 61


def minutes(seed: int = 1) -> dict[str, Any]:
    """Body of `/candles` as far as the picture reads it, two minutes missing."""
    draw = np.random.default_rng(seed)
    walk = 66_000 + np.cumsum(draw.normal(0, 10, (MINUTES, 4)).reshape(-1)).reshape(MINUTES, 4)
    keep = np.delete(np.arange(MINUTES), [20, 21])
    times = T0 + 60_000 * keep
    values = {"o": walk[:, 0], "h": walk.max(1), "l": walk.min(1), "c": walk[:, 3]}
    return {"t": times.tolist()} | {name: one[keep].tolist() for name, one in values.items()}


@pytest.mark.parametrize("wide", [1, 2, 5])
def test_bars_are_as_wide_as_columns(module_page: Page, wide: int) -> None:
    body = minutes()
    found = module_page.evaluate(
        """async ([body, dt]) => { const { Bars } = await import('/src/candles.js'); const bars = new Bars(dt); bars.addAll(body);
        bars.addAll(body);  // the same again changes nothing
        return bars.columns().map((col) => [col * dt, ...['o', 'h', 'l', 'c'].map((key) => bars.at(col)[key])]); }""",
        [body, wide * 60_000],
    )
    expected: dict[int, list[float]] = {}
    for number, time in enumerate(body["t"]):
        start = time // (wide * 60_000) * wide * 60_000
        opened, high, low, close = (body[key][number] for key in "ohlc")
        known = expected.get(start)
        expected[start] = (
            [opened, high, low, close] if known is None else [known[0], max(known[1], high), min(known[2], low), close]
        )
    assert found == [[start, *bar] for start, bar in expected.items()]


def test_what_comes_late_opens_its_bar_and_what_has_no_price_is_left_out(module_page: Page) -> None:
    found = module_page.evaluate(
        """async () => { const { Bars } = await import('/src/candles.js'); const bars = new Bars(120000);
        bars.add(60000, { o: 5, h: 6, l: 4, c: 5.5 }); bars.add(0, { o: 1, h: 9, l: 1, c: 2 });
        return [bars.at(0), bars.add(240000, { o: NaN, h: 1, l: 1, c: 1 }), bars.at(2)]; }"""
    )
    assert found == [{"o": 1, "h": 9, "l": 1, "c": 5.5}, -1, None]


def test_every_column_has_its_time(module_page: Page) -> None:
    first = T0 // 60_000
    found = module_page.evaluate(
        """async (first) => { const m = await import('/src/candles.js');
        return [m.whitespace(first, first + 3, 60000), m.futureOf(720)]; }""",
        first,
    )
    assert found == [[{"time": T0 / 1000 + 60 * n} for n in range(4)], 86]


@pytest.mark.parametrize(
    ("low", "high", "close", "step", "expected"),
    [
        (65_900, 66_100, 66_000, 20, (64_020, 67_980)),  # 3 % around the price
        (60_000, 66_100, 66_000, 20, (60_000, 67_980)),  # all of the candles
        (99, 101, 100, 1, (80, 120)),  # 40 rows
    ],
)
def test_the_default_prices(
    module_page: Page, low: float, high: float, close: float, step: float, expected: tuple[float, float]
) -> None:
    script = "async ([range, step]) => (await import('/src/candles.js')).pricesAround(range, step)"
    found = module_page.evaluate(script, [{"low": low, "high": high, "close": close}, step])
    assert (found["low"], found["high"]) == pytest.approx(expected)
