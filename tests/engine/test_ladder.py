"""Tick ladder: a dict agrees with it, best prices are right, nothing bad gets in."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.engine.ladder import BadLevels, Ladder, LevelBlock
from tests.engine.events import Levels, level_bytes


def apply(ladder: Ladder, bids: Levels, asks: Levels) -> None:
    ladder.apply(LevelBlock(level_bytes(bids, asks)), 0, len(bids), len(asks))


_ticks = st.integers(850, 1150).map(lambda t: t / 10)
_qty = st.sampled_from([0.0, 0.0, 0.5, 1.0, 7.25])
_side = st.lists(st.tuples(_ticks, _qty), max_size=6)


@settings(max_examples=200)
@given(st.lists(st.tuples(_side, _side), max_size=12))
def test_a_dict_agrees(diffs: list[tuple[Levels, Levels]]) -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    plain: tuple[dict[float, float], dict[float, float]] = ({}, {})
    dropped = 0
    for bids, asks in diffs:
        apply(ladder, bids, asks)
        for side, levels in zip(plain, (bids, asks)):
            for price, qty in levels:
                if not 88.0 <= price <= 112.0:
                    dropped += 1
                elif qty:
                    side[price] = qty
                else:
                    side.pop(price, None)
        best = (max(plain[0], default=None), min(plain[1], default=None))
        assert (ladder.bid_price, ladder.ask_price) == best
        bid_levels, ask_levels = ladder.levels()
        assert (dict(bid_levels), dict(ask_levels)) == plain
    assert ladder.dropped == dropped


def test_mid_is_none_while_one_sided_locked_or_crossed() -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    assert ladder.mid is None
    apply(ladder, [(99.9, 1.0)], [])
    assert ladder.mid is None and not ladder.crossed
    apply(ladder, [], [(100.1, 1.0)])
    assert ladder.mid == 100.0
    apply(ladder, [(100.1, 2.0)], [])
    assert ladder.mid is None and ladder.crossed


@pytest.mark.covers("E-M4", "A2-M9")
@pytest.mark.parametrize("level", [(math.nan, 1.0), (math.inf, 1.0), (-5.0, 0.0), (100.0, math.nan), (100.0, math.inf),
                                   (100.0, -1.0), (100.0, 1e16)])  # fmt: skip
def test_bad_numbers_are_refused_and_nothing_of_the_diff_is_applied(level: tuple[float, float]) -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    apply(ladder, [(99.0, 1.0)], [(101.0, 1.0)])
    before = ladder.state()
    with pytest.raises(BadLevels):
        apply(ladder, [(98.0, 5.0), level], [(102.0, 1.0)])
    assert ladder.state() == before


@pytest.mark.parametrize("price", [1e300, 1e19, 2e18, 1e-9, 0.0, 87.9, 112.1])
def test_prices_outside_the_ladder_are_dropped_and_counted(price: float) -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    apply(ladder, [(99.0, 1.0), (price, 1.0)], [(101.0, 1.0), (price, 2.0)])
    assert (ladder.dropped, ladder.levels()) == (2, ([(99.0, 1.0)], [(101.0, 1.0)]))


@given(st.dictionaries(_ticks, st.floats(0.001, 50), min_size=1, max_size=40), st.sampled_from([0.1, 0.5, 2.0, 20.0]))
def test_usd_by_bucket_is_the_sum_over_decimal_buckets(levels: dict[float, float], step: float) -> None:
    ladder = Ladder(0.1, 0.16, 100.0)
    apply(ladder, sorted(levels.items()), [])
    first, bids, asks = ladder.usd_by_bucket(step)
    wanted: dict[int, float] = {}
    for price, qty in levels.items():
        bucket = int((Decimal(str(price)) / Decimal(str(step))).quantize(Decimal(1), "ROUND_HALF_EVEN"))
        wanted[bucket] = wanted.get(bucket, 0.0) + price * qty
    assert {first + i: usd for i, usd in enumerate(bids.tolist()) if usd} == pytest.approx(wanted)
    assert not asks.any()
    assert ladder.total_usd()[0] == pytest.approx(sum(wanted.values()))


def test_recentring_keeps_what_still_fits_and_counts_the_rest() -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    apply(ladder, [(88.5, 1.0), (103.0, 2.0)], [(104.0, 3.0), (111.5, 4.0)])
    assert not ladder.needs_recentring(103.5) and ladder.needs_recentring(104.1)
    ladder.recentre(106.0)
    assert ladder.levels() == ([(103.0, 2.0)], [(104.0, 3.0), (111.5, 4.0)])
    assert (ladder.dropped, ladder.mid) == (1, 103.5)
    apply(ladder, [], [(118.0, 1.0)])
    assert ladder.ask_price == 104.0 and ladder.levels()[1][-1] == (118.0, 1.0)


def test_another_tick_size_keeps_the_levels() -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    apply(ladder, [(99.1, 1.0), (99.2, 2.0)], [(100.5, 3.0)])
    coarse = ladder.with_tick(0.5, 100.0)
    assert coarse.levels() == ([(99.0, 3.0)], [(100.5, 3.0)])
    assert coarse.with_tick(0.1, 100.0).levels() == ([(99.0, 3.0)], [(100.5, 3.0)])


def test_unverified_levels_go_unless_touched() -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    apply(ladder, [(95.0, 1.0), (96.0, 1.0)], [(105.0, 1.0)])
    ladder.mark_unverified(5)
    apply(ladder, [(96.0, 2.0)], [])
    apply(ladder, [], [(105.0, 2.0)])
    assert ladder.level_counts() == (2, 1, 1)
    assert (ladder.drop_unverified(4), ladder.has_unverified, ladder.drop_unverified(5)) == (0, True, 1)
    assert ladder.levels() == ([(96.0, 2.0)], [(105.0, 2.0)]) and not ladder.has_unverified


def test_each_unverified_level_keeps_its_own_time() -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    apply(ladder, [(95.0, 1.0)], [])
    ladder.mark_unverified(10)
    apply(ladder, [(96.0, 1.0)], [])
    ladder.mark_unverified(20)
    assert ladder.oldest_unverified() == 10
    assert (ladder.drop_unverified(19), ladder.oldest_unverified()) == (1, 20)
    assert ladder.levels() == ([(96.0, 1.0)], [])
    apply(ladder, [(96.0, 1.0)], [])
    assert ladder.oldest_unverified() is None


def test_unverified_levels_stay_unverified_on_another_tick_size_and_in_another_window() -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    apply(ladder, [(95.0, 1.0), (96.2, 1.0)], [(105.0, 1.0)])
    ladder.mark_unverified(10)
    apply(ladder, [(96.2, 2.0)], [])
    coarse = ladder.with_tick(0.5, 100.0)
    assert (coarse.level_counts(), coarse.oldest_unverified()) == ((2, 1, 2), 10)
    ladder.recentre(104.0)
    assert ladder.level_counts() == (2, 1, 2)
    assert coarse.drop_unverified(10) == 2 and coarse.levels() == ([(96.0, 2.0)], [])


def test_a_snapshot_covers_every_bid_from_its_lowest_and_every_ask_from_its_highest_price() -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    apply(ladder, [(95.0, 1.0), (96.0, 1.0), (99.0, 1.0)], [(104.0, 1.0), (105.0, 1.0)])
    ladder.clear_covered(96.0, 97.0)
    assert ladder.levels() == ([(95.0, 1.0)], [(104.0, 1.0), (105.0, 1.0)])
    ladder.clear_covered(50.0, 104.0)
    assert ladder.levels() == ([], [(105.0, 1.0)])
    ladder.clear_covered(150.0, 160.0)
    assert ladder.levels() == ([], [])


def test_a_tick_that_does_not_fit_the_price_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        Ladder(1e-6, 0.12, 100_000.0)


@given(st.lists(st.tuples(_side, _side), max_size=5))
def test_restored_ladder_is_the_same(diffs: list[tuple[Levels, Levels]]) -> None:
    ladder = Ladder(0.1, 0.12, 100.0)
    for bids, asks in diffs:
        apply(ladder, bids, asks)
    ladder.mark_unverified(7)
    back = Ladder.restore(ladder.state())
    assert back.state() == ladder.state()
    assert (back.bid_price, back.ask_price, back.mid) == (ladder.bid_price, ladder.ask_price, ladder.mid)
