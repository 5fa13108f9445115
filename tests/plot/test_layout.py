"""Places: nothing overlaps and nothing is cut off, at any size and whatever the texts are."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from mpengine.plot.layout import (
    Badge,
    Box,
    Layout,
    Legend,
    Mark,
    Measure,
    TooSmall,
    Wanted,
    beside,
    cell_edges,
    check_size,
    compute,
    shortened,
    within,
    wrapped,
)
from mpengine.plot.paint import text_width

SIZES = [(800, 450, 1), (800, 450, 4), (1024, 1024, 1), (1280, 720, 2), (1600, 900, 1), (800, 2160, 1), (2560, 1080, 1),
         (3840, 2160, 1), (1920, 1080, 2), (7680, 4320, 1)]  # fmt: skip
HOUR_MS = 3_600_000


def measure(text: str, size: int) -> int:
    """A font whose letters are all as wide as the widest of ours is on average."""
    return round(0.58 * size * len(text))


def wanted(width: int = 1600, height: int = 900, scale: int = 1, **values: Any) -> Wanted:
    """Everything at once: both layers, stale, all marks, all venues."""
    plain: dict[str, Any] = {
        "title": "BTC projected liquidation map, order-book map",
        "badges": [Badge("ESTIMATED"), Badge("STALE 13 min", True)],
        "facts": ["2026-11-20 06:40 to 2026-11-21 06:40 UTC", "cell 1 min by 20 USD, the largest in it", "price 67,907.7 USD",
                  "data since 2026-11-20 05:10 UTC", "STALE: the newest data of the server is 13 min old"],
        "notes": ["Estimated exposure of openings seen in open interest: no orders, no expected liquidations",
                  "Far depth of the book is partial", "Binance liquidations: largest per second (lower bound), book, open interest",
                  "Bybit liquidations: all, every 500 ms, open interest", "OKX liquidations: a part (lower bound), book DOWN",
                  "Hyperliquid no liquidations", "newest column: recovered, gap, stale source, oi missing",
                  "model oi-taker-ladder/1, config 9f2c81d04b7e, mpengine 0.1.0"],
        "t0_ms": 0, "t1_ms": 12 * HOUR_MS, "low": 59_290.0, "high": 72_490.0, "price": 65_901.0,
        "legends": [Legend("Projection: estimated USD of exposure", ("longs", "shorts"), 10_000.0, 2.7e6),
                    Legend("Order book: USD resting, 30 s average", ("bids", "asks"), 1000.0, 1e9)],
        "marks": [Mark("candle", "price; hollow: up"), Mark("long", "longs liquidated, largest 4.3k USD"),
                  Mark("short", "shorts liquidated, largest 12k USD"), Mark("zone", "heaviest zones now: price, estimated USD"),
                  Mark("profile", "newest column (longs, shorts), full width 3.5M USD"), Mark("gap_map", "no data of the map"),
                  Mark("gap_depth", "no data of the book")],
    }  # fmt: skip
    return Wanted(width=width, height=height, scale=scale, **{**plain, **values})


def assert_tidy(layout: Layout) -> None:
    parts = list(layout.parts())
    for name, box in parts:
        assert box.width > 0 and box.height > 0 and box.inside(layout.box), f"{name} {box} leaves {layout.box}"
    for (name, box), (other, second) in combinations(parts, 2):
        assert not box.overlaps(second), f"{name} {box} overlaps {other} {second}"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("font", [measure, text_width])
def test_nothing_overlaps_at_any_size(size: tuple[int, int, int], layers: int, font: Measure) -> None:
    everything = wanted(*size)
    layout = compute(replace(everything, legends=everything.legends[:layers]), font)
    assert_tidy(layout)
    assert len(layout.price_ticks) >= 2 and len(layout.time_ticks) >= 2
    assert layout.plot.width * layout.plot.height >= 0.2 * layout.box.width * layout.box.height
    assert all(len(legend.ticks) >= 2 for legend in layout.legends)
    assert "STALE 13 min" in [text.text for text, _, _ in layout.badges] and layout.price_tag is not None
    told = " ".join(text.text for text in (*layout.facts, *layout.notes))
    for phrase in ("data since 2026-11-20 05:10 UTC", "lower bound", "9f2c81d04b7e", "no expected liquidations"):
        assert phrase in told, f"{phrase} was cut off"


@pytest.mark.parametrize(("low", "high"), [(0.00001, 0.000012), (99.5, 100.5), (65_890.0, 65_910.0), (1.0, 250_000.0)])
@pytest.mark.parametrize("hours", [0.1, 1, 24])
def test_any_range_has_readable_axes(low: float, high: float, hours: float) -> None:
    for size in ((800, 450, 1), (1600, 900, 1), (3840, 2160, 1)):
        layout = compute(
            wanted(*size, low=low, high=high, price=(low + high) / 2, t0_ms=7, t1_ms=7 + int(hours * HOUR_MS)), measure
        )
        assert_tidy(layout)
        assert layout.price_ticks and layout.time_ticks
        for y, text in layout.price_ticks:
            assert layout.y_of(float(text.text.replace(",", ""))) == pytest.approx(y, abs=1.0)


def test_a_price_at_the_edge_keeps_its_tag_in_the_axis() -> None:
    for price in (59_290.0, 72_490.0):
        assert_tidy(compute(wanted(price=price), measure))
    assert compute(wanted(price=80_000.0), measure).price_tag is None
    assert compute(wanted(price=None), measure).price_tag is None


def test_long_titles_and_words_are_shortened_not_overlapped() -> None:
    layout = compute(wanted(800, 450, title="X" * 200, notes=["y" * 400]), measure)
    assert_tidy(layout)
    assert layout.title.text.endswith("…") and layout.notes[0].text.endswith("…")


def test_texts_that_leave_no_room_are_an_error() -> None:
    with pytest.raises(TooSmall, match="larger size"):
        compute(wanted(800, 450, notes=["many words " * 12] * 20), measure)


@pytest.mark.parametrize("size", [(799, 450, 1), (800, 449, 1), (7681, 900, 1), (3840, 2160, 3), (1600, 900, 5), (1600, 900, 0)])
def test_sizes_out_of_range_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="size"):
        check_size(*size)


def test_the_axes_run_over_the_whole_plot() -> None:
    layout = compute(wanted(), measure)
    assert (layout.x_of(0), layout.x_of(12 * HOUR_MS)) == (layout.plot.x0, layout.plot.x1)
    assert (layout.y_of(72_490.0), layout.y_of(59_290.0)) == (layout.plot.y0, layout.plot.y1)


def test_cells_cover_their_axis_without_a_hole() -> None:
    for cells, start, end in ((720, 12, 1400), (1000, 5, 700), (3, 0, 10)):
        edges = cell_edges(cells, start, end)
        assert (edges[0], edges[-1], len(edges)) == (start, end, cells + 1) and edges == sorted(edges)


def test_phrases_are_broken_between_each_other() -> None:
    assert wrapped(["aa bb", "cc"], 1000, 10, measure) == ["aa bb  ·  cc"]
    assert wrapped(["aa bb", "cc"], measure("aa bb", 10), 10, measure) == ["aa bb", "cc"]
    assert wrapped(["aaaa bbbb"], measure("aaaa", 10), 10, measure) == ["aaaa", "bbbb"]
    assert shortened("abcdef", measure("abc", 10), 10, measure) == "ab…"


def test_labels_give_way_to_more_important_ones() -> None:
    layout = compute(wanted(), measure)
    right = layout.plot.x1 - 10
    first, second, third = beside(layout, [(300.0, "one"), (305.0, "two"), (400.0, "three")], right, measure)
    assert first is not None and second is None and third is not None
    at_edge = beside(layout, [(layout.plot.y0 - 3.0, "top"), (layout.plot.y1 + 3.0, "bottom")], right, measure)
    assert all(label is not None and label.plate.inside(layout.plot) for label in at_edge)


def test_what_does_not_fit_its_stretch_is_not_said() -> None:
    layout = compute(wanted(), measure)
    assert within(layout, 100, 110, "no data", measure) is None
    label = within(layout, 100, 300, "no data", measure)
    assert label is not None and Box(100, layout.plot.y0, 300, layout.plot.y1).overlaps(label.plate)
    assert label.text.box.inside(label.plate)
