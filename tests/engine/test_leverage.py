"""Tiers, weights, brackets, liquidation prices: every vector of `spec: engine`, sections 6, 7, 13.5."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.brackets import Bracket, BracketFile, encode, faults_of, parse, shipped
from mpengine.config import ConfigError, load
from mpengine.engine.leverage import (
    MAX_TIER_WEIGHT,
    TierLadder,
    allowed,
    bankruptcy_price,
    enforce,
    entropy_bits,
    fill_water,
    liquidation_price,
    liquidation_prices,
    lowest_entropy_bits,
    make_ladder,
    margin_rates,
    tiered_liquidation_price,
)
from shm.records import PositionSide

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
TIERS = (5, 10, 20, 25, 50, 75, 100, 125, 150, 200, 250)


def ladder(symbol: str, text: str = "") -> TierLadder:
    settings = load(text or f"[symbols.{symbol}]\n", {})
    return make_ladder(settings.symbols[symbol].leverage_ladder, settings.engine.disabled_tiers)


def rows(symbol: str = "BTC") -> list[Bracket]:
    return load(f"[symbols.{symbol}]\n", {}).symbols[symbol].brackets["binance"]


@pytest.mark.parametrize(
    ("symbol", "weights", "bits", "most"),
    [
        ("BTC", [0.3055, 0, 0.2750, 0.2139, 0.1069, 0.0428, 0.0244, 0.0153, 0.0092, 0.0046, 0.0024], 2.3920, 3.3219),
        ("ETH", [0.3030, 0, 0.2727, 0.2121, 0.1061, 0.0545, 0.0303, 0.0212], 2.3507, 2.8074),
        ("SOL", [0.3195, 0, 0.2875, 0.2236, 0.1118, 0.0575], 2.1166, 2.3219),
        ("XRP", [0.3636, 0, 0.3273, 0.1818, 0.0909, 0.0364], 1.9936, 2.3219),
    ],
)
def test_default_weights_and_their_entropy(symbol: str, weights: list[float], bits: float, most: float) -> None:
    one = ladder(symbol, f"[symbols.{symbol}]\nstep = 0.001\ntick = 0.0001\n" if symbol == "XRP" else "")
    assert one.defaults.round(4).tolist() == weights
    assert entropy_bits(one.defaults) == pytest.approx(bits, abs=5e-5)
    assert math.log2(one.enabled.sum()) == pytest.approx(most, abs=5e-5)


@pytest.mark.covers("A2-L8")
def test_a_ladder_cannot_be_changed() -> None:
    one = ladder("BTC")
    for array in (one.leverage, one.enabled, one.defaults):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_general_ladder_after_the_cap() -> None:
    one = ladder("XRP", "[symbols.XRP]\nstep = 0.001\ntick = 0.0001\n")
    kept = allowed(one, one.defaults)
    assert kept.round(4).tolist() == [0.35, 0, 0.3343, 0.1857, 0.0929, 0.0371]
    assert entropy_bits(kept) == pytest.approx(2.0045, abs=5e-5)


def test_water_filling_vector() -> None:
    weights = np.array([0.6, 0.2, 0.1, 0.06, 0.04])
    assert fill_water(weights, np.ones(5, np.bool_), 0.35) == pytest.approx([0.35, 0.325, 0.1625, 0.0975, 0.065])


@pytest.mark.covers("A1-M5", "A2-M1")
def test_weights_with_mass_on_a_disabled_tier_come_out_without() -> None:
    one = ladder("BTC")
    given_ = one.defaults.copy()
    given_[1] = 0.3
    for made in (enforce(one, given_), allowed(one, given_)):
        assert made[1] == 0.0
        assert made.sum() == pytest.approx(1.0, abs=1e-9)


def test_nothing_usable_is_the_defaults_and_bad_weights_are_refused() -> None:
    one = ladder("BTC")
    only_disabled = np.zeros(11)
    only_disabled[1] = 1.0
    assert enforce(one, only_disabled).tolist() == enforce(one, np.zeros(11)).tolist() == one.defaults.tolist()
    for bad in ([1.0] * 10, [math.nan] * 11, [-1.0] + [1.0] * 10, [math.inf] * 11):
        with pytest.raises(ValueError, match="weights"):
            enforce(one, bad)


@pytest.mark.parametrize("seed", range(20))
def test_weights_are_divided_by_their_sum_in_index_order(seed: int) -> None:
    """Section 1.4: another order, as of a vector unit, gives other last digits, and a replay elsewhere other frames."""
    one, total = ladder("BTC", "[engine]\ndisabled_tiers = []\n[symbols.BTC]\n"), 0.0
    raw = np.random.default_rng(seed).random(11)
    for weight in raw.tolist():
        total += weight
    assert enforce(one, raw).tolist() == [weight / total for weight in raw.tolist()]


def test_the_mid_mass_floor_lifts_and_takes_in_proportion() -> None:
    one = ladder("BTC")
    heavy = np.array([0, 0, 0, 0, 0.3, 0.3, 0.2, 0.2, 0, 0, 0])
    kept = allowed(one, heavy)
    assert kept[[0, 2, 3]] == pytest.approx([0.25 / 3] * 3)  # equal parts where all of them are 0
    assert kept[4:8] == pytest.approx([0.225, 0.225, 0.15, 0.15])
    some = np.array([0.03, 0, 0.02, 0, 0.95 / 2, 0.95 / 2, 0, 0, 0, 0, 0])
    kept = allowed(one, some)
    assert kept[0] / kept[2] == pytest.approx(1.5)
    assert kept.max() <= MAX_TIER_WEIGHT + 1e-12


@given(st.lists(st.floats(0, 1e9), min_size=11, max_size=11))
def test_any_weights_become_allowed_ones(raw: list[float]) -> None:
    one = ladder("BTC")
    kept = allowed(one, raw)
    assert kept.sum() == pytest.approx(1.0, abs=1e-9)
    assert kept.max() <= MAX_TIER_WEIGHT + 1e-12
    assert kept[~one.enabled].tolist() == [0.0]
    assert kept.min() >= 0.0
    assert entropy_bits(kept) >= lowest_entropy_bits(MAX_TIER_WEIGHT) - 1e-9


@pytest.mark.covers("A1-M11")
@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[engine]\nsafety_entropy_min_bits = 1.5\n", "safety_entropy_min_bits"),
        ("[engine]\nsafety_entropy_min_bits = 2.4\n", "leverage_ladder"),
        ("[engine]\ndisabled_tiers = [5, 10, 20, 25]\n", "symbols.SOL.leverage_ladder: at least 3"),
        ("[engine]\ntape_weight = 0.5\n", "tape_weight"),
        ('[symbols.BTC.leverage_ladder]\n"7" = 1.0\n', "leverage_ladder"),
        ('[symbols.BTC.leverage_ladder]\n"5" = 0.0\n"20" = 0.0\n"50" = 0.0\n', "must have weight"),
        ("[symbols.BTC.brackets]\nbinance = [[100.0, 0.01, 10.0, 5.0]]\n", "symbols.BTC.brackets.binance: row 1: amount"),
    ],
)
def test_guards_that_could_never_or_would_always_act_are_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        load(text, {})


# prices ----------------------------------------------------------------------------------------------------------------


def test_the_table_of_liquidation_prices() -> None:
    leverage = np.array(TIERS, np.float64)
    rates = margin_rates(leverage, 0.004, rows()[0])
    assert rates.tolist() == [0.004] * 9 + [0.0025, 0.002]
    longs = [80_321.3, 90_361.4, 95_381.5, 96_385.5, 98_393.6, 99_062.9, 99_397.6, 99_598.4, 99_732.3, 99_749.4, 99_799.6]
    shorts = [
        119_521.9,
        109_561.8,
        104_581.7,
        103_585.7,
        101_593.6,
        100_929.6,
        100_597.6,
        100_398.4,
        100_265.6,
        100_249.4,
        100_199.6,
    ]
    for side, wanted in ((LONG, longs), (SHORT, shorts)):
        assert liquidation_prices(side, 100_000.0, leverage, rates).round(1).tolist() == wanted
        singly = [liquidation_price(side, 100_000.0, tier, rate) for tier, rate in zip(leverage, rates)]
        assert singly == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize(("tier", "long", "short"), [(20, 190.9548, 208.9552), (50, 196.9849, 202.9851), (75, 198.3250, 201.6584)])
def test_sol_prices(tier: int, long: float, short: float) -> None:
    rate = float(margin_rates(np.array([tier], np.float64), 0.005, rows("SOL")[0])[0])
    assert liquidation_price(LONG, 200.0, tier, rate) == pytest.approx(long, abs=5e-5)
    assert liquidation_price(SHORT, 200.0, tier, rate) == pytest.approx(short, abs=5e-5)


def test_without_a_bracket_table_the_rate_is_at_most_half_the_margin() -> None:
    assert margin_rates(np.array([20.0, 100.0, 125.0, 250.0]), 0.005, None).tolist() == [0.005, 0.005, 0.004, 0.002]


@pytest.mark.parametrize(
    ("notional", "leverage", "long", "short"),
    [
        (1e6, 10, 90_437.85, 109_438.65),
        (1e6, 50, 98_490.19, 101_490.31),
        (1e6, 125, None, None),
        (1e6, 75, 99_161.21, 100_827.95),  # just what its bracket offers
        (1e6, 75.5, None, None),
        (850e3, 10, 90_416.79, None),
        (750e3, 10, None, 109_488.33),
        (310e3, 20, 95_381.53, 104_573.90),
    ],
)
def test_the_tiered_form(notional: float, leverage: float, long: float | None, short: float | None) -> None:
    for side, wanted in ((LONG, long), (SHORT, short)):
        found = tiered_liquidation_price(side, 100_000.0, leverage, notional, rows())
        if wanted is not None:
            assert found == pytest.approx(wanted, abs=0.005)
        elif leverage > 75:
            assert found is None


def test_a_position_above_the_last_cap_is_in_the_last_row() -> None:
    """ETH: 150 M USD at most, rate .05, to 10x, amount 2,007,000."""
    found = tiered_liquidation_price(SHORT, 2000.0, 5, 1e9, rows("ETH"))
    assert found == pytest.approx(2000.0 * (1 + 1 / 5 + 0.002007) / 1.05)
    assert tiered_liquidation_price(SHORT, 2000.0, 20, 1e9, rows("ETH")) is None


def test_brackets_that_name_each_other_give_the_higher_one() -> None:
    # No venue's continuous table does this: at row 1's price the notional is row 2's, at row 2's price row 1's.
    table = [Bracket(100_000.0, 0.01, 100.0, 0.0), Bracket(1e9, 0.02, 50.0, 0.0)]
    assert tiered_liquidation_price(SHORT, 100.0, 50.0, 99_000.0, table) == pytest.approx(102.0 / 1.01)
    assert tiered_liquidation_price(SHORT, 100.0, 50.0, 99_500.0, table) == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("entry", "leverage", "mmr"),
    [(0.0, 10.0, 0.004), (-1.0, 10.0, 0.004), (math.nan, 10.0, 0.004), (math.inf, 10.0, 0.004), (100.0, 0.5, 0.004),
     (100.0, math.nan, 0.004), (100.0, 10.0, 1.0), (100.0, 10.0, math.nan)],
)  # fmt: skip
def test_impossible_positions_are_refused(entry: float, leverage: float, mmr: float) -> None:
    with pytest.raises(ValueError, match="entry"):
        liquidation_price(LONG, entry, leverage, mmr)
    with pytest.raises(ValueError, match="entry"):
        tiered_liquidation_price(LONG, entry, leverage, 1000.0, [Bracket(1e6, mmr, 20.0, 0.0)])


@pytest.mark.parametrize("notional", [0.0, -1.0, math.nan, math.inf])
def test_an_impossible_notional_is_refused(notional: float) -> None:
    with pytest.raises(ValueError, match="notional"):
        tiered_liquidation_price(LONG, 100.0, 10.0, notional, rows())


def test_a_long_without_leverage_has_no_price() -> None:
    assert liquidation_price(LONG, 100.0, 1.0, 0.004) == 0.0
    assert tiered_liquidation_price(LONG, 100.0, 1.0, 1000.0, rows()) is None
    assert bankruptcy_price(LONG, 100.0, 25.0) == pytest.approx(96.0)
    assert bankruptcy_price(SHORT, 100.0, 25.0) == pytest.approx(104.0)


@given(st.floats(1e-6, 1e9), st.floats(1e-4, 0.3), st.lists(st.floats(1.0, 1000.0), min_size=2, max_size=10))
def test_prices_are_on_the_right_side_and_move_towards_entry_with_leverage(
    entry: float, mmr: float, leverages: list[float]
) -> None:
    leverage = np.sort(np.array(leverages))
    rates = margin_rates(leverage, mmr, None)
    long, short = (liquidation_prices(side, entry, leverage, rates) for side in (LONG, SHORT))
    assert (long < entry).all() and (short > entry).all()
    assert (np.diff(long) >= -1e-9 * entry).all() and (np.diff(short) <= 1e-9 * entry).all()


# the data file ---------------------------------------------------------------------------------------------------------


def test_the_shipped_file_holds_the_specified_rows_and_reads_back() -> None:
    found = shipped()
    assert {name: len(table) for name, table in found.venues["binance"].items()} == {"BTCUSDT": 12, "ETHUSDT": 7, "SOLUSDT": 6}
    assert found.of("binance", "BTCUSDT")[9] == Bracket(800e6, 0.15, 3, 41_482_000)
    assert found.of("bybit", "BTCUSDT") == found.of("binance", None) == []
    assert parse(encode(found)) == found


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ([], "1 to"),
        ([Bracket(1.0, 0.01, 10.0, 1.0)], "row 1: amount must be 0"),
        ([Bracket(1.0, math.nan, 10.0, 0.0)], "finite"),
        ([Bracket(0.0, 0.01, 10.0, 0.0)], "cap must be above 0"),
        ([Bracket(100.0, 0.01, 10.0, 0.0), Bracket(50.0, 0.02, 5.0, 1.0)], "cap and rate must rise"),
        ([Bracket(100.0, 0.01, 10.0, 0.0), Bracket(500.0, 0.02, 10.0, 1.0)], "leverage must fall"),
        ([Bracket(1e6, 0.01, 10.0, 0.0), Bracket(2e6, 0.02, 5.0, 9_998.0)], "row 2: amount must be 10000.00"),
    ],
)
def test_a_faulty_table_is_named(table: list[Bracket], fault: str) -> None:
    assert any(fault in text for text in faults_of(table))
    bad = BracketFile(schema_version=1, as_of="2026-01-01", source="test", venues={"bybit": {"BTCUSDT": table}})
    if not any(math.isnan(row.mmr) for row in table):
        with pytest.raises(ValueError, match="bybit BTCUSDT"):
            parse(encode(bad))


@pytest.mark.parametrize("data", [b"", b"{}", b'{"schema_version":2,"as_of":"2026-01-01","source":"","venues":{}}', b"[1]"])
def test_a_file_of_another_shape_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="brackets"):
        parse(data)
