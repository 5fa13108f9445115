"""Positions: the specified liquidation prices, open interest as a sum, and liquidations exactly where the mark crosses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.simulator.positions import (
    LONG,
    SHORT,
    Position,
    Positions,
    bankruptcy_price,
    liquidation_price,
    maintenance_rate,
)  # fmt: skip

SPECIFIED = {
    5: (80_321.3, 119_521.9), 10: (90_361.4, 109_561.8), 20: (95_381.5, 104_581.7), 25: (96_385.5, 103_585.7),
    50: (98_393.6, 101_593.6), 75: (99_062.9, 100_929.6), 100: (99_397.6, 100_597.6), 125: (99_598.4, 100_398.4),
    150: (99_732.3, 100_265.6), 200: (99_749.4, 100_249.4), 250: (99_799.6, 100_199.6),
}  # fmt: skip
"""Leverage -> long, short at an entry of 100,000 in Binance's first BTC bracket (MMR 0.004, at most 150x)."""


@pytest.mark.parametrize("leverage", SPECIFIED)
def test_liquidation_prices_are_those_of_the_specification(leverage: int) -> None:
    rate = maintenance_rate(leverage, 0.004, 150)
    assert liquidation_price(LONG, 100_000.0, leverage, rate) == pytest.approx(SPECIFIED[leverage][0], abs=0.06)
    assert liquidation_price(SHORT, 100_000.0, leverage, rate) == pytest.approx(SPECIFIED[leverage][1], abs=0.06)


@pytest.mark.parametrize(("leverage", "long", "short"), [(20, 190.9548, 208.9552), (75, 198.3250, 201.6584)])
def test_liquidation_prices_of_another_rate(leverage: int, long: float, short: float) -> None:
    assert liquidation_price(LONG, 200.0, leverage, 0.005) == pytest.approx(long, abs=5e-5)
    assert liquidation_price(SHORT, 200.0, leverage, 0.005) == pytest.approx(short, abs=5e-5)


def test_without_a_bracket_table_the_rate_never_nears_the_margin() -> None:
    assert maintenance_rate(20, 0.005, None) == 0.005
    assert maintenance_rate(200, 0.005, None) == 0.0025
    assert maintenance_rate(200, 0.004, 150) == 0.0025


@pytest.mark.parametrize(("entry", "leverage"), [(0.0, 10), (-1.0, 10), (100.0, 0.5), (math.inf, 10), (math.nan, 10)])
def test_impossible_positions_have_no_price(entry: float, leverage: float) -> None:
    with pytest.raises(ValueError, match="leverage"):
        liquidation_price(LONG, entry, leverage, 0.004)


@given(st.floats(0.01, 1e6), st.integers(2, 250))
def test_bankruptcy_lies_behind_liquidation(entry: float, leverage: int) -> None:
    rate = maintenance_rate(leverage, 0.004, 150)
    assert bankruptcy_price(LONG, entry, leverage) < liquidation_price(LONG, entry, leverage, rate) < entry
    assert entry < liquidation_price(SHORT, entry, leverage, rate) < bankruptcy_price(SHORT, entry, leverage)


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.floats(95, 105), st.sampled_from([2, 5, 20, 50, 100]), st.integers(1, 50)),
        st.tuples(st.just("close"), st.floats(0, 0.999), st.just(0), st.integers(1, 80)),
        st.tuples(st.just("mark"), st.floats(60, 160), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(MOVES)
def test_open_interest_and_liquidations_agree_with_a_plain_list(moves: list[tuple[str, float, int, int]]) -> None:
    positions = Positions(0.004, 150)
    known: list[Position] = []
    for name, number, leverage, lots in moves:
        if name == "open":
            known.append(positions.open(LONG, number, leverage, lots, 0))
            known.append(positions.open(SHORT, number, leverage, lots, 0))
        elif name == "close":
            for side in (LONG, SHORT):
                before = positions.lots(side)
                positions.close_some(side, lots, number)
                assert positions.lots(side) == max(0, before - lots)
        else:
            expected = {id(p) for p in known if p.lots and (number <= p.liquidation if p.side is LONG else number >= p.liquidation)}
            found = positions.crossed(number)
            assert {id(p) for p in found} == expected
            for position in found:
                other = SHORT if position.side is LONG else LONG
                positions.close_some(other, position.lots, 0.5)
            gone = {id(p) for p in found}
            known = [p for p in known if id(p) not in gone]
        known = [p for p in known if p.lots]
        for side in (LONG, SHORT):
            listed = positions.of(side)
            assert {id(p) for p in listed} == {id(p) for p in known if p.side is side}
            assert positions.lots(side) == sum(p.lots for p in listed)
            assert positions.count(side) == len(listed)


def test_many_openings_and_closings_do_not_pile_up_dead_entries() -> None:
    positions = Positions(0.004, 150)
    for turn in range(5000):
        positions.open(LONG, 100.0, 20, 1, turn)
        if positions.count(LONG) > 10:
            positions.close_some(LONG, 1, (turn * 0.37) % 1.0)
    assert len(positions._queue[LONG]) < 600


def test_sizes_that_are_none_are_refused() -> None:
    positions = Positions(0.004, 150)
    with pytest.raises(ValueError, match="one lot"):
        positions.open(LONG, 100.0, 20, 0, 0)
    position = positions.open(LONG, 100.0, 20, 5, 0)
    for lots in (0, 6):
        with pytest.raises(ValueError, match="lots"):
            positions.reduce(position, lots)
    positions.reduce(position, 5)
    with pytest.raises(ValueError, match="lots"):
        positions.reduce(position, 1)
