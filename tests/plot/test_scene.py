"""What a picture says, before it is painted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpengine.cells import u8log
from mpengine.plot import scene
from mpengine.plot.scene import Bar, Empty, Scene, bars_of, compose, layer_names, resampled, scale_of, stretches, wanted
from tests.plot import rig

COLS, ROWS = 60, 100
MINUTE_MS = rig.MINUTE_MS


def made(layers: Any = ("liq",), *, stale: bool = False, age_s: float | None = 34.0, **how: Any) -> Scene:
    usd = np.full((2, COLS, ROWS), 50_000.0)
    asked = rig.ask(layers, **how.pop("asked", {}))
    zones, candles = how.pop("zones", []), how.pop("candles", None)
    heatmap = rig.heatmap(dict.fromkeys(layers, usd), **how)
    return compose(asked, heatmap, candles, zones, age_s=age_s, stale=stale)


def told(one: Scene) -> str:
    everything = wanted(one, 1600, 900, 1)
    badges = [badge.text for badge in everything.badges]
    return " | ".join([everything.title, *badges, *everything.facts, *everything.notes, *(mark.text for mark in everything.marks)])


def test_a_scale_is_locked_to_99_percent_of_what_is_there() -> None:
    cells = np.zeros((2, 10, 100), np.uint8)
    cells[0].flat[:990] = u8log(np.array([1e5]))[0]
    cells[0].flat[990:] = u8log(np.array([9e8]))[0]
    lo, hi = scale_of(cells, None, None)
    assert hi == pytest.approx(1e5, rel=0.04) and lo == pytest.approx(hi / 50, rel=0.05)
    assert scale_of(np.zeros((2, 3, 3), np.uint8), None, None) == (100.0, 5000.0)
    assert scale_of(cells, 2e4, 3e6) == (2e4, 3e6)
    assert scale_of(cells, 1e6, None) == (1e6, 5e7), "a pinned lower end pushes the upper one"
    assert scale_of(cells, None, 3000.0) == (100.0, 3000.0)
    with pytest.raises(Empty):
        scale_of(cells, 1e9, None)


def test_it_says_what_it_is_and_what_it_is_not() -> None:
    text = told(made(("liq", "depth"), missing={"liq": [3]}))
    for phrase in (
        "BTC liquidation map, order-book map", "ESTIMATED", "2026-11-20 06:40 to 07:40 UTC", "cell 1 min by 20 USD",
        "data since 2026-11-20 05:10 UTC", "34 s old", "no orders, no expected liquidations", "Far depth of the book is partial",
        "Binance liquidations: largest per second (lower bound), book, open interest", "Bybit liquidations: all, every 500 ms",
        "OKX liquidations: a part (lower bound), book DOWN", "Hyperliquid no liquidations", "newest column: gap, stale source",
        "model oi-taker-ladder/1, config 9f2c81d04b7e", "no data of the map",
    ):  # fmt: skip
        assert phrase in text, phrase
    assert "STALE" not in text and "no data of the book" not in text


def test_what_was_measured_is_not_called_an_estimate() -> None:
    text = told(made(("depth",)))
    assert "ESTIMATED" not in text and "30 s AVERAGE" in text and "model" not in text and "config 9f2c" in text
    tape = told(made(("tape",)))
    assert "no expected liquidations" not in tape and "map of realised liquidations" in tape


def test_what_stands_still_says_so_and_for_how_long() -> None:
    assert "STALE 13 min" in told(made(stale=True, age_s=752.0)) and "13 min old" in told(made(stale=True, age_s=752.0))
    assert "STALE: the newest data of the server is of unknown age" in told(made(stale=True, age_s=None))
    feeds = told(made(stale=True, age_s=12.0))
    assert "STALE: no feed of liquidations is live" in feeds and "12 s" not in feeds


def test_unknown_is_not_zero() -> None:
    nothing = {**rig.PROVENANCE, "coverage": {**rig.PROVENANCE["coverage"], "data_since_ms": None, "flags": []}}
    text = told(made(provenance=nothing, src=[np.nan] * COLS))
    assert "data since unknown" in text and "price" not in text and "newest column" not in text.split("|")[-2]


def test_without_a_frame_there_is_no_picture() -> None:
    with pytest.raises(Empty, match="no frames of BTC in this range"):
        made(missing={"liq": list(range(COLS))})
    assert made(("liq", "depth"), missing={"liq": list(range(COLS))}).heats[0].missing.all()


def test_the_profile_is_the_newest_column_that_is_there() -> None:
    usd = np.zeros((2, COLS, ROWS))
    usd[0, -3, 7] = 5e6
    one = compose(rig.ask(), rig.heatmap({"liq": usd}, missing={"liq": [COLS - 1, COLS - 2]}), None, [], age_s=1.0, stale=False)
    assert one.profile is not None and np.flatnonzero(one.profile[0]).tolist() == [7]
    assert one.profile[0, 7] == pytest.approx(5e6, rel=0.034)


def test_zones_are_the_heaviest_of_each_side_in_the_window() -> None:
    zones = [rig.zone(60_000.0, "long", float(n)) for n in range(1, 9)] + [
        rig.zone(90_000.0, "short", 9.0),
        rig.zone(60_500.0, "short", 0.1),
    ]
    found = made(zones=zones).zones
    assert [(zone.side, zone.weight) for zone in found] == [*(("long", float(n)) for n in (8, 7, 6, 5, 4)), ("short", 0.1)]
    assert made(zones=zones, asked={"zones": False}).zones == ()


def test_minutes_become_candles_that_can_be_told_apart() -> None:
    one = made(candles=rig.candles([60_000.0 + n for n in range(COLS + 5)]))
    assert len(one.bars) == COLS, "bars behind the range are not of the picture"
    assert bars_of(one, 10 / MINUTE_MS, 1.0) == list(one.bars)
    fives = bars_of(one, 1 / MINUTE_MS, 1.0)
    assert len(fives) == 12 and {bar.close_ms - bar.open_ms for bar in fives} == {5 * MINUTE_MS}
    first = one.bars[:5]
    assert fives[0] == Bar(
        first[0].open_ms, first[-1].close_ms, first[0].open, max(bar.high for bar in first), min(bar.low for bar in first),
        first[-1].close,
    )  # fmt: skip
    assert bars_of(made(), 1.0, 1.0) == []


def test_the_largest_of_many_cells_survives_few_pixels() -> None:
    cells = np.zeros((1, 1000), np.uint8)
    for at in (0, 499, 501, 999):
        cells[:] = 0
        cells[0, at] = 200
        pooled = resampled(cells, 333, 1)
        assert pooled.shape == (1, 333) and pooled.max() == 200 and (pooled == 200).sum() == 1
        assert resampled(cells, 2500, 1).shape == (1, 2500)


def test_stretches_of_columns() -> None:
    columns = np.array([True, False, True, True, False, True])
    assert stretches(columns) == [(0, 1), (2, 4), (5, 6)] and stretches(~columns) == [(1, 2), (4, 5)]
    assert stretches(np.zeros(4, bool)) == [] and stretches(np.ones(4, bool)) == [(0, 4)]


@pytest.mark.parametrize("names", [["liq", "tape"], ["realised"], ["heat"], [""]])
def test_layers_that_make_no_picture(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"one of|unknown"):
        layer_names(names)


def test_the_book_is_neutral_while_a_map_is_shown() -> None:
    assert [(heat.name, heat.palette, heat.above) for heat in made(("liq", "depth")).heats] == [
        ("liq", "viridis", False), ("depth", "mono", True),
    ]  # fmt: skip
    assert made(("depth",)).heats[0].palette == "viridis"
    assert made(("liq", "depth"), asked={"palette": "mono"}).heats[1].palette == "viridis"
    assert layer_names(["depth", "realised", "liq"]) == (("liq", "depth"), True)


def test_texts_of_the_file() -> None:
    found = scene.chunks_of(made(stale=True, age_s=752.0))
    assert found["Symbol"] == "BTC" and found["Range"] == "2026-11-20T06:40:00Z/2026-11-20T07:40:00Z"
    assert (found["Model"], found["Config-Hash"], found["Estimated"]) == ("oi-taker-ladder/1", "9f2c81d04b7e6a35", "estimated")
    assert (found["Stale"], found["Age-Seconds"], found["Data-Since"]) == ("true", "752.0", "2026-11-20T05:10:00Z")
    assert found["Layers"] == "liq,realised" and found["Scales"].startswith("liq=")
