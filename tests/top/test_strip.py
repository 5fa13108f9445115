"""The heat strip as text: what is where, what is missing, where the price is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpengine.top.model import Heat, HeatColumn
from mpengine.top.strip import AXIS, HATCH, LEVELS, SHADES, Scale, scale_of, strip
from mpengine.top.text import plain
from tests.top.samples import NOW_MS, PRICE, heat

ROWS = 120


def one_cell(row: int, value: int = 200, *, high: bool = False, columns: int = 1) -> Heat:
    """A single bright cell in the newest column, price 0 to 120."""
    empty = bytes(ROWS)
    bright = bytes(row) + bytes([value]) + bytes(ROWS - row - 1)
    older = tuple(HeatColumn(t_ms=at * 60_000, low=empty, high=empty) for at in range(columns - 1))
    newest = HeatColumn(t_ms=(columns - 1) * 60_000, low=empty if high else bright, high=bright if high else empty)
    return Heat(layer="map", price0=0.0, height=1.0, rows=ROWS, dt_ms=60_000, columns=(*older, newest))


@pytest.mark.parametrize("height", [4, 9, 11, 25, 61, 100])
@pytest.mark.parametrize("row", [0, 1, 59, 60, 119])
def test_a_single_bright_cell_is_seen_at_any_height_where_it_belongs(height: int, row: int) -> None:
    lines = strip(one_cell(row), None, 0, 40, height, colour=True)
    assert len(lines) == height and all(len(plain(line)) <= 40 for line in lines)
    hits = [at for at, line in enumerate(lines[1:]) if plain(line)[AXIS:].strip()]
    cells = height - 1
    assert hits, "it is seen"
    assert all(abs(at - (cells - 1 - row * cells // ROWS)) <= 1 for at in hits)


def test_sides_differ_by_tone_and_halves_by_place() -> None:
    (top,) = [line for line in strip(one_cell(119), None, 0, 30, 61, colour=True)[1:] if plain(line)[AXIS:].strip()]
    assert top[-1] == ("▀", "low6", "")
    (bottom,) = [line for line in strip(one_cell(0, high=True), None, 0, 30, 61, colour=True)[1:] if plain(line)[AXIS:].strip()]
    assert bottom[-1] == ("▄", "high6", "")


def test_without_colour_a_level_is_a_shade_and_nothing_has_a_tone_of_heat() -> None:
    lines = strip(heat("map"), PRICE, NOW_MS, 60, 20, colour=False)
    assert set("".join(plain(line)[AXIS:] for line in lines[1:])) <= set(SHADES) | {"─"}
    assert not {tone for line in lines for _, tone, back in line for tone in (tone, back) if tone.startswith(("low", "high"))}


def test_a_missing_column_is_hatched_and_what_lies_before_the_data_is_blank() -> None:
    lines = strip(heat("map", 10, missing=(3,)), None, NOW_MS, AXIS + 20, 12, colour=True)
    for line in lines[1:]:
        cells = plain(line)[AXIS:]
        assert cells[20 - 1 - 3] == HATCH and HATCH not in cells.replace(HATCH, "", 1)
        assert cells[:10].strip() == ""


def test_the_price_is_marked_on_its_line_and_only_there() -> None:
    lines = strip(heat("map"), PRICE, NOW_MS, 60, 13, colour=True)
    marked = [at for at, line in enumerate(lines[1:]) if "▸" in plain(line)]
    assert marked == [5] or marked == [6]
    assert "65,892.7▸" in plain(lines[1 + marked[0]]) and "─" in plain(lines[1 + marked[0]])
    assert "+3.0 %" in plain(lines[1]) and "-3.0 %" in plain(lines[-1])
    away = strip(heat("map"), PRICE * 1.2, NOW_MS, 60, 13, colour=True)
    assert not any("▸" in plain(line) for line in away), "a price outside of the window has no line"


def test_the_scale_is_round_and_told_in_usd() -> None:
    scale = scale_of(heat("map"))
    assert scale.hi_usd in (2e6, 5e6) and scale.lo_usd == scale.hi_usd / 1000
    legend = plain(strip(heat("map"), PRICE, NOW_MS, 100, 12, colour=True)[0])
    assert "est. USD" in legend and "long/short" in legend and "60 s/col, from 34 s ago" in legend
    assert "est." not in plain(strip(heat("book"), PRICE, NOW_MS, 100, 12, colour=True)[0]), "resting size is no estimate"


def test_levels_cover_the_scale_in_equal_ratios() -> None:
    import numpy as np

    from mpengine.cells import u8log

    scale = Scale(1e3, 1e6)
    usd = np.array([0.0, 999.0 * 0.9, 1e3 * 1.04, 3.3e3, 1.1e4, 9e4, 5e5, 1e6, 1e9])
    assert scale.levels(u8log(usd), LEVELS).tolist() == [0, 0, 1, 2, 3, 4, 6, 6, 6]


def test_nothing_to_show_is_said() -> None:
    assert plain(strip(None, PRICE, NOW_MS, 40, 10, colour=True)[0]) == "no frame yet"
    assert plain(strip(replace(heat("map"), columns=()), PRICE, NOW_MS, 40, 10, colour=True)[0]) == "no frame yet"
    assert strip(heat("map"), PRICE, NOW_MS, 40, 0, colour=True) == []
