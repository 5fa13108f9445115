"""Entry inference: openings, closings, sweeps, decay, the crossing ledger (`spec: engine`, section 8)."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.config import load
from mpengine.engine.buckets import MAX_MAP_BUCKETS, BucketMap, bucket_prices, column_sums, ordered_sum
from mpengine.engine.inference import (
    Opening,
    Projection,
    Takers,
    closing_fraction,
    is_opening,
    reached,
    split_of,
)
from mpengine.engine.leverage import make_ladder
from mpengine.engine.open_interest import OpenInterest
from shm.grid import price_of
from shm.records import PositionSide, Venue

MINUTE = 60 * 10**9
SETTINGS = load("", {})
LADDER = make_ladder(SETTINGS.symbols["BTC"].leverage_ladder, SETTINGS.engine.disabled_tiers)
FIRST = {Venue.BINANCE: SETTINGS.symbols["BTC"].brackets["binance"][0], Venue.BYBIT: None, Venue.OKX: None}
MMR = {Venue.BINANCE: 0.004, Venue.BYBIT: 0.005, Venue.OKX: 0.004}
LONG, SHORT = PositionSide.LONG, PositionSide.SHORT


def projection() -> Projection:
    return Projection(20.0, LADDER, FIRST)


def opening(usd: float = 5_000_000.0, share: float = 0.65, **values: Any) -> Opening:
    plain: dict[str, Any] = {"minute": 0, "src": 100_000.0, "split": {Venue.BINANCE: 1.0}, "weights": LADDER.defaults}
    return Opening(opened_usd=usd, share=share, **{**plain, **values})


def at(one: Projection, row: int, price: float, tier: int) -> float:
    key = round(price / 20.0)
    place = np.flatnonzero(one.maps[row].keys == key)
    return float(one.maps[row].values[place[0], LADDER.tiers.index(tier)]) if place.size else 0.0


def test_an_opening_of_the_specification() -> None:
    one = projection()
    one.open(opening(), MMR)
    for row, price, tier, usd in (
        (0, 96_380, 25, 695_080.97), (0, 98_400, 50, 347_540.48), (0, 99_400, 100, 79_437.82), (1, 103_580, 25, 374_274.37),
        (1, 100_600, 100, 42_774.21),
    ):  # fmt: skip
        assert at(one, row, price, tier) == pytest.approx(usd, abs=0.005)
    assert one.opened_usd == pytest.approx([3_250_000.0, 1_750_000.0])
    # Nothing at the disabled tier; every enabled tier of the ledger holds the whole side.
    assert column_sums(one.maps[0].values)[1] == 0.0
    assert column_sums(one.ledger[0].values) == pytest.approx(np.where(LADDER.enabled, 3_250_000.0, 0.0))


@pytest.mark.covers("A1-M7")
def test_a_cold_start_has_mass_in_every_enabled_tier() -> None:
    one = projection()
    one.open(opening(), MMR)
    for side in one.maps:
        assert (column_sums(side.values)[LADDER.enabled] > 0.0).all()


def test_a_delta_in_base_units_becomes_usd_once() -> None:
    """Regression story 8: 118 BTC are 118 x src USD."""
    interest = OpenInterest()
    interest.on_value(Venue.BINANCE, 88_000.0, 0)
    interest.on_rollover(MINUTE)
    interest.on_value(Venue.BINANCE, 88_118.0, MINUTE + 1)
    minute = interest.on_rollover(2 * MINUTE)
    assert minute.delta == pytest.approx(118.0)
    assert minute.previous == 88_000.0
    one = projection()
    one.open(opening(usd=118.0 * 100_000.0), MMR)
    assert sum(one.opened_usd) == pytest.approx(11_800_000.0)


def test_the_threshold_of_an_opening() -> None:
    assert not is_opening(6.89, 138_000.0)
    assert is_opening(6.9, 138_000.0)
    assert not is_opening(0.0, 0.0)
    assert is_opening(150.0, 138_000.0)


def test_the_delta_counts_only_venues_in_both_observations() -> None:
    interest = OpenInterest()
    interest.on_value(Venue.BINANCE, 88_000.0, 0)
    interest.on_value(Venue.BYBIT, 50_000.0, 0)
    interest.on_value(Venue.OKX, 30_000.0, 0)
    interest.on_rollover(60 * 10**9)
    interest.on_value(Venue.BINANCE, 88_100.0, 70 * 10**9)
    interest.on_value(Venue.BYBIT, 50_050.0, 70 * 10**9)
    minute = interest.on_rollover(120 * 10**9)  # OKX's value is 120 s old
    assert (minute.delta, minute.previous) == (150.0, 138_000.0)


@pytest.mark.covers("A1-M2")
@pytest.mark.parametrize(("before", "now", "fraction"), [(1000.0, 900.0, 0.1), (1000.0, 600.0, 0.25), (1000.0, 999.99, 1e-5)])
def test_a_closing_removes_what_was_closed(before: float, now: float, fraction: float) -> None:
    """Regression story 9: of the open interest before, so 10 % and not 11.1 %."""
    assert closing_fraction(now - before, before) == pytest.approx(fraction)
    one = projection()
    one.open(opening(), MMR)
    maps, ledgers = [side.values.copy() for side in one.maps], [side.values.copy() for side in one.ledger]
    one.close(closing_fraction(now - before, before))
    for side, was in zip((*one.maps, *one.ledger), maps + ledgers):
        assert side.values == pytest.approx(was * (1 - fraction))


def test_two_capped_minutes() -> None:
    one = projection()
    one.maps[0].add([100], [[1000.0] + [0.0] * 10])
    for _ in range(2):
        one.close(closing_fraction(-900.0, 1000.0))
    assert one.maps[0].values[0, 0] == pytest.approx(562.5)
    assert closing_fraction(-5.0, 0.0) == 0.0


def test_a_swept_bucket_fades_and_goes() -> None:
    one = projection()
    one.maps[0].add([100], [[0.0, 0.0, 10_000.0] + [0.0] * 8])
    seen = []
    for _ in range(4):
        _, logs = one.sweep(1999.0, 2100.0)
        seen.append((logs[0].record["before_usd"], logs[0].record["after_usd"], logs[0].record["deleted"]))
    assert [row[1] for row in seen] == pytest.approx([3000.0, 900.0, 270.0, 81.0])
    assert [row[2] for row in seen] == [False, False, False, True]
    assert len(one.maps[0]) == 0
    assert one.sweep(1999.0, 2100.0)[1] == []


def test_the_crossed_ledger_leaves_as_a_whole() -> None:
    one = projection()
    one.open(opening(), MMR)
    crossed, _ = one.sweep(98_390.0, 100_300.0)
    fifty = LADDER.tiers.index(50)
    assert crossed[0][fifty:] == pytest.approx([3_250_000.0] * 7)  # 50x at 98,400 and everything nearer
    assert crossed[0][:fifty].tolist() == [0.0] * fifty
    assert crossed[1][LADDER.tiers.index(150) :] == pytest.approx([1_750_000.0] * 3)
    assert crossed[1][: LADDER.tiers.index(125) + 1].sum() == 0.0
    again, _ = one.sweep(98_390.0, 100_300.0)
    assert again.sum() == 0.0


def test_sides_are_reached_from_their_own_direction_and_gaps_are_covered() -> None:
    keys = np.array([90, 100, 110])
    assert reached(LONG, keys, 1.0, 100.0, 200.0).tolist() == [False, True, True]
    assert reached(SHORT, keys, 1.0, 50.0, 100.0).tolist() == [True, True, False]


def test_decay_over_minutes_and_what_is_too_small() -> None:
    one = projection()
    tiers = len(LADDER.tiers)
    one.maps[0].add([1, 2], [[1000.0] + [0.0] * (tiers - 1), [100.2] + [0.0] * (tiers - 1)])
    one.ledger[1].add([1, 2], [[1.0, 0.0, 10.0] + [0.0] * (tiers - 3), [1.0] + [0.0] * (tiers - 1)])
    one.decay(2)
    assert one.maps[0].keys.tolist() == [1]
    assert one.maps[0].values[0, 0] == pytest.approx(1000.0 * 0.995**2)
    assert one.ledger[1].keys.tolist() == [1]
    assert one.ledger[1].values[0, :3] == pytest.approx([0.0, 0.0, 10.0 * 0.995**2])


def test_floors_of_sides_and_contributions() -> None:
    one = projection()
    added, rows = one.open(opening(usd=1000.0, share=0.901), MMR)
    assert added[1].keys.size == 0 and len(one.ledger[1]) == 0  # 99 USD of shorts
    told = {row["tier"]: row["usd"] for row in rows}
    assert told[5] == pytest.approx(901.0 * LADDER.defaults[0])
    assert told[50] == 0.0  # 96 USD
    assert column_sums(one.ledger[0].values)[4] == pytest.approx(901.0)  # the ledger has no floor


def test_just_enough_is_enough() -> None:
    """A side of 100 USD is projected, a tier's part of 100 USD is added, a bucket of 100 USD and a ledger's dollar stay."""
    one, zeros = projection(), [0.0] * (len(LADDER.tiers) - 1)
    added, _ = one.open(opening(usd=125.0, share=0.8, weights=np.array([1.0, *zeros])), MMR)
    assert added[0].usd.sum() == 100.0 and added[1].keys.size == 0
    assert one.opened_usd == [100.0, 0.0]
    one.maps[1].add([7, 8], [[100.0, *zeros], [334.0, *zeros]])
    one.ledger[1].add([7, 9], [[1.0, *zeros], [0.9, *zeros]])
    one.decay(0)
    assert one.maps[1].keys.tolist() == [7, 8] and one.ledger[1].keys.tolist() == [7]
    one.maps[1].values[1, 0] = 1000.0 / 3.0
    one.sweep(1.0, 160.0)
    assert (one.maps[1].keys.tolist(), one.maps[1].values[0, 0]) == ([8], pytest.approx(100.0))
    assert is_opening(6.9, 138_000.0) and not is_opening(0.0, 0.0)


def test_the_ledger_is_split_over_the_venues_like_the_map() -> None:
    one = projection()
    one.open(opening(split={Venue.BINANCE: 0.75, Venue.BYBIT: 0.25}), MMR)
    five = LADDER.tiers.index(5)
    keys = [round(100_000 * 0.8 / (1.0 - rate) / 20) for rate in (0.004, 0.005)]
    found = dict(zip(one.ledger[0].keys.tolist(), one.ledger[0].values[:, five].tolist()))
    assert [found[key] for key in keys] == pytest.approx([0.75 * 3_250_000.0, 0.25 * 3_250_000.0])


def test_a_side_is_split_over_the_venues_at_their_own_rates() -> None:
    one = projection()
    split = split_of({Venue.BINANCE: 60.0, Venue.BYBIT: 40.0}, Venue.BINANCE)
    assert split == {Venue.BINANCE: 0.6, Venue.BYBIT: 0.4}
    added, rows = one.open(opening(split=split), MMR)
    levels = {row["venue"]: row["bucket"] for row in rows if row["tier"] == 20 and row["side"] == "long"}
    assert levels == {"binance": round(100_000 * 0.95 / 0.996 / 20), "bybit": round(100_000 * 0.95 / 0.995 / 20)}
    assert column_sums(added[0].usd) == pytest.approx(3_250_000.0 * LADDER.defaults)
    assert split_of({}, Venue.OKX) == {Venue.OKX: 1.0}


def test_a_new_rate_reaches_the_next_projection_only() -> None:
    """Regression story 22."""
    one = projection()
    one.open(opening(), MMR)
    before = one.maps[0].keys.copy()
    one.open(opening(), {**MMR, Venue.BINANCE: 0.006})
    assert set(before.tolist()) < set(one.maps[0].keys.tolist())
    assert round(100_000 * 0.95 / 0.994 / 20) in one.maps[0].keys.tolist()


def test_bias_shifts_levels_by_half_their_distance_at_most() -> None:
    one = projection()
    plain = one.levels(LONG, 100_000.0, 0.004, Venue.BINANCE)
    moved = one.levels(LONG, 100_000.0, 0.004, Venue.BINANCE, 0.004)
    assert moved[0] - plain[0] == pytest.approx(400.0)
    assert moved[-1] - plain[-1] == pytest.approx((100_000.0 - plain[-1]) / 2)
    down = one.levels(SHORT, 100_000.0, 0.004, Venue.BINANCE, -0.008)
    assert (down > 100_000.0).all()


def test_takers_of_the_minute_that_ended() -> None:
    """Regression story 17: by its key, so a minute without trades is no copy of the one before."""
    takers = Takers()
    takers.on_minute(10, 650.0, 350.0)
    assert takers.buy_share(10) == 0.65
    takers.on_minute(11, 0.0, 0.0)
    assert takers.buy_share(11) == 0.65  # of the last ten minutes
    takers.on_minute(12, 10_000.0, 1.0)
    assert takers.buy_share(12) == 0.90
    takers.on_minute(13, 0.0, 5.0)
    assert takers.buy_share(13) == 0.10
    assert Takers().buy_share(5) == 0.5
    tenth = Takers()
    tenth.on_minute(1, 0.6, 0.4)  # of one dollar
    for at in range(2, 12):
        tenth.on_minute(at, 0.0, 0.0)
        assert tenth.buy_share(at) == (0.6 if at <= 10 else 0.5)
    tenth.on_minute(12, 0.7, 0.3)
    assert (tenth.buy_share(11), tenth.buy_share(12)) == (0.5, 0.7)  # a minute says nothing of those before it
    skipped = Takers()  # minutes that were not rolled are missing, and as long ago as they are
    skipped.on_minute(1, 0.6, 0.4)
    skipped.on_minute(10, 0.0, 0.0)
    assert skipped.buy_share(10) == 0.6
    skipped.on_minute(11, 0.0, 0.0)
    assert skipped.buy_share(11) == 0.5
    assert takers.buy_share(40) == 0.5  # all of it is older than ten minutes
    again = Takers()
    again.on_minute(3, 1.0, 0.0)
    again.restore(takers.state_of())
    assert again.state_of() == takers.state_of()


def test_levels_are_bounded_over_a_day_of_openings() -> None:
    """Regression story 20."""
    one, rng = projection(), np.random.default_rng(1)
    price = 100_000.0
    for _ in range(1440):
        price *= 1 + rng.normal(0, 0.001)
        one.decay(1)
        one.sweep(price * 0.999, price * 1.001)
        one.open(opening(usd=3e6, src=price), MMR)
    for side in (*one.maps, *one.ledger):
        assert len(side) < MAX_MAP_BUCKETS
        assert side.evicted == 0


def test_the_smallest_buckets_leave_a_full_map() -> None:
    one = BucketMap(2, limit=3)
    one.add([5, 1, 9, 7, 5], [[1, 0], [4, 0], [2, 0], [0, 3], [0.5, 0]])
    assert (one.keys.tolist(), one.evicted) == ([1, 7, 9], 1)
    assert one.values.tolist() == [[4, 0], [0, 3], [2, 0]]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(-50, 50), st.floats(0, 1e6), st.floats(0, 1e6)), max_size=60))
def test_a_bucket_map_is_a_dictionary(rows: list[tuple[int, float, float]]) -> None:
    one, naive = BucketMap(2), dict[int, list[float]]()
    for start in range(0, len(rows), 7):
        part = rows[start : start + 7]
        one.add([row[0] for row in part], [row[1:] for row in part] if part else np.zeros((0, 2)))
        for key, *values in part:
            naive.setdefault(key, [0.0, 0.0])
            naive[key] = [a + b for a, b in zip(naive[key], values)]
    assert one.keys.tolist() == sorted(naive)
    assert one.values == pytest.approx(np.array([naive[key] for key in sorted(naive)]).reshape(-1, 2))
    dense = one.on_grid(-20, 41)
    assert dense == pytest.approx(np.array([naive.get(key, [0.0, 0.0]) for key in range(-20, 21)]))


@pytest.mark.parametrize("step", [20.0, 1.0, 0.1, 0.01, 0.05])
def test_prices_of_buckets_are_those_of_the_grid(step: float) -> None:
    keys = np.array([1, 3, 752, 3295, 123_457])
    assert bucket_prices(keys, step).tolist() == [price_of(int(key), step) for key in keys]


def test_sums_run_in_index_order() -> None:
    values = np.array([1e16, 1.0, -1e16, 1.0])
    assert ordered_sum(values) == ((1e16 + 1.0) - 1e16) + 1.0
    assert ordered_sum(np.zeros(0)) == 0.0
    assert column_sums(np.zeros((0, 3))).tolist() == [0.0] * 3


def test_a_restored_projection_goes_on_bit_by_bit() -> None:
    one = projection()
    one.open(opening(), MMR)
    one.sweep(98_000.0, 100_500.0)
    again = projection()
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.state_of())))
    for each in (one, again):
        each.decay(3)
        each.open(opening(src=99_000.0, minute=4), MMR)
    assert msgspec.msgpack.encode(again.state_of()) == msgspec.msgpack.encode(one.state_of())
