"""docs/reading-the-map.md says what the code does: its figures, its flags, its venues, its commands."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import get_args

import numpy as np

from api.coverage import SAMPLING
from api.heatmap_content import STALE_AFTER_MS
from mpengine.cells import HI_USD, LO_USD, STEPS
from mpengine.cli import plot
from mpengine.config import load
from mpengine.contract.common import Flag
from mpengine.engine import inference, liquidations
from mpengine.engine.calibrator import ANCHOR_LAMBDA, CALIBRATION_INTERVAL_MIN
from mpengine.engine.core import RECOVERED_NS
from mpengine.engine.depth_frames import PARTIAL_BELOW, SLOT_NS
from mpengine.engine.leverage import liquidation_prices, margin_rates
from mpengine.heatmap import MAP_RANGE
from mpengine.plot.scene import LOCK
from shm.grid import MAX_BUCKETS
from shm.records import PositionSide, Venue

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/reading-the-map.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())


def test_the_levels_of_the_example() -> None:
    rows = re.findall(r"^\| (\d+)x \| ([\d,.]+) \| ([\d,.]+) \|$", TEXT, re.MULTILINE)
    leverage = np.array([float(row[0]) for row in rows])
    first = load("", {}).symbols["BTC"].brackets["binance"][0]
    assert len(rows) == 6 and first.mmr == 0.004 and "(0.4 %)" in TEXT
    for column, side in ((1, PositionSide.LONG), (2, PositionSide.SHORT)):
        levels = liquidation_prices(side, 100_000.0, leverage, margin_rates(leverage, first.mmr, first))
        assert [row[column] for row in rows] == [f"{level:,.1f}" for level in levels]


def test_the_figures_of_the_engine() -> None:
    settings = load("", {})
    half_life = math.log(0.5) / math.log(inference.DECAY_PER_MINUTE)
    left = 10_000.0
    swept = [f"{left:,.0f}"]
    while (left := left * (1 - inference.SWEEP_REDUCTION_FACTOR)) >= inference.SWEEP_MIN_BUCKET_USD:
        swept.append(f"{left:,.0f}")
    ladder = [int(tier) for tier in settings.symbols["BTC"].leverage_ladder]
    for phrase in (
        f"fades by {(1 - inference.DECAY_PER_MINUTE) * 100:g} %: half is left after {half_life:.0f} minutes",
        " → ".join([*swept, "gone"]),
        f"loses {inference.SWEEP_REDUCTION_FACTOR * 100:g} %",
        f"at most {inference.MAX_OI_REDUCTION_PER_MINUTE * 100:g} % a minute",
        f"A rise below {inference.OI_MIN_CHANGE_PCT * 100:g} % is left out",
        f"No side gets less than {inference.BUY_WEIGHT_MIN * 100:g} %",
        f"from {ladder[0]}x to {ladder[-1]}x ({settings.engine.disabled_tiers[0]}x is switched off)",
        f"every {CALIBRATION_INTERVAL_MIN} minutes by a tenth",
        f"mix both by {settings.engine.tape_weight} and {settings.engine.projection_weight}",
        f"drawn {MAP_RANGE * 100:g} % to either side",
        f"more than {liquidations.EVENT_REJECT_PCT * 100:g} % from the market is refused",
        f"one column per {SLOT_NS // 10**9} seconds",
        f"fewer than {PARTIAL_BELOW} looks",
        f"map is older than {STALE_AFTER_MS['liq'] // 1000} s",
        f"book column older than {STALE_AFTER_MS['depth'] // 1000} s",
        f"cut to {MAX_BUCKETS:,} steps",
        f"the {LOCK * 100:g}th percentile",
        f"within {math.ceil(1000 * (math.exp(math.log(HI_USD / LO_USD) / STEPS / 2) - 1)) / 10} %",
    ):
        assert phrase in FLAT, phrase
    assert ANCHOR_LAMBDA == 0.1 and RECOVERED_NS == 3600 * 10**9 and len(settings.engine.disabled_tiers) == 1
    assert 0.38 < inference.DECAY_PER_MINUTE**180 < 0.42, "two fifths after three hours"
    assert not settings.venues.bybit.order_book and settings.venues.binance.order_book, "as shipped the book is Binance's"


def test_flags_and_venues_are_those_of_the_answers() -> None:
    marks = TEXT[TEXT.index("## Marks that say") : TEXT.index("## How uncertain")]
    assert set(re.findall(r"`(\w+)`", marks)) == set(get_args(Flag))
    said = {"Binance": "largest", "Bybit": "all, every 500 ms", "OKX": "a part", "Hyperliquid": "none"}
    kinds = {"largest_1s": "largest", "all_500ms": "all, every 500 ms", "partial": "a part", "none": "none"}
    assert {name.lower(): text for name, text in said.items()} == {venue.label: kinds[kind] for venue, kind in SAMPLING.items()}
    for name, text in said.items():
        assert re.search(rf"^\| {name} \|.*{text}", TEXT, re.MULTILINE), name
    assert set(SAMPLING) == {Venue.BINANCE, Venue.BYBIT, Venue.OKX, Venue.HYPERLIQUID}


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert (ROOT / "docs" / target).is_file(), target


def test_commands_of_the_page_are_understood() -> None:
    lines = [line.split("#")[0].strip() for line in TEXT.splitlines() if line.startswith("mpengine plot")]
    assert len(lines) == 4
    for line in lines:
        _, _, *arguments = shlex.split(line)
        with plot.make_context("plot", arguments) as found:  # every option is parsed and checked, nothing is asked
            assert found.params["symbol"] in ("BTC", "ETH") and str(found.params["out"]).endswith(".png")
