"""The synthetic market: repeatable to the byte, consistent in itself, and true about who is liquidated."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from dataclasses import astuple, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.simulator.market import STEP_NS, Changes, Market, SymbolMarket, SymbolSpec, merged
from mpengine.simulator.positions import LONG, SHORT, Position, liquidation_price, maintenance_rate
from mpengine.simulator.symbols import spec
from tests.simulator.rig import SECOND_NS, START_NS, market, small, steps

SEEDS = (1, 2, 3)


def restless(symbol: str = "BTC", **values: float) -> SymbolSpec:
    """A symbol whose price moves enough for liquidations within seconds."""
    return small(symbol, volatility=8.0, **values)


def digest(of: Market, seconds: float) -> str:
    """Digest over everything that comes out of some market time."""
    total = hashlib.sha256()
    for changes in steps(of, seconds):
        for change in changes:
            mark = None if change.mark is None else astuple(change.mark)
            parts = (change.ts_ns, change.batches, change.trades, change.forced, mark)
            total.update(repr(parts).encode())
    for one in of.symbols.values():
        total.update(repr(one.truth()).encode())
    return total.hexdigest()


@pytest.mark.parametrize("seed", SEEDS)
def test_books_stay_uncrossed_with_positive_quantities_while_prices_run(seed: int) -> None:
    of = market(restless(), restless("ALT", price=0.5), seed=seed)
    for changes in of.step(of.now_ns + 60 * SECOND_NS):
        for change in changes:
            book = change.symbol.book
            assert not book.crossed
            for side, name in ((book.bids, "bids"), (book.asks, "asks")):
                touched = {tick for batch in change.batches for tick in getattr(batch, name)}
                assert all(side.levels.get(tick, 1) > 0 for tick in touched)
                assert side.best in side.levels
    for one in of.symbols.values():
        assert min(one.book.bids.levels.values()) > 0 and min(one.book.asks.levels.values()) > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_diffs_rebuild_the_book_exactly(seed: int) -> None:
    of = market(restless(), seed=seed)
    one = of.symbols["BTC"]
    bids, asks = dict(one.book.bids.levels), dict(one.book.asks.levels)
    for (change,) in of.step(of.now_ns + 30 * SECOND_NS):
        for batch in change.batches:
            for followed, changed in ((bids, batch.bids), (asks, batch.asks)):
                for tick, lots in changed.items():
                    followed.pop(tick, None)
                    if lots:
                        followed[tick] = lots
            best_bid, best_ask = max(bids), min(asks)
            assert batch.touch == (best_bid, bids[best_bid], best_ask, asks[best_ask])
        assert (bids, asks) == (one.book.bids.levels, one.book.asks.levels)


def test_only_previous_ids_chain_and_ids_jump_by_thousands() -> None:
    of = market()
    last = of.symbols["BTC"].last_id
    spans = []
    for (change,) in steps(of, 20):
        began = last
        for batch in change.batches:
            assert batch.previous_id == last
            assert last < batch.first_id <= batch.last_id
            last = batch.last_id
        spans.append(last - began)
    assert last == of.symbols["BTC"].last_id
    assert 1000 < np.median(spans) < 10_000


def test_trades_count_without_holes_in_time_order_and_at_prices_of_the_book() -> None:
    of = market(restless())
    trades = [trade for (change,) in steps(of, 30) for trade in change.trades]
    assert len(trades) > 200
    for before, after in pairwise(trades):
        assert after.number == before.number + 1
        assert after.first_fill == before.last_fill + 1
        assert after.ts_ns >= before.ts_ns
    for trade in trades:
        assert 0 < trade.normal_lots <= trade.lots
        assert 1 <= trade.last_fill - trade.first_fill + 1 <= trade.lots
    assert any(trade.normal_lots < trade.lots for trade in trades)
    assert {trade.buy for trade in trades} == {True, False}


def test_sizes_of_trades_have_a_heavy_tail() -> None:
    lots = np.array([trade.lots for changes in steps(market(), 120) for trade in changes[0].trades])
    assert lots.max() > 20 * np.median(lots)
    assert lots.mean() > 1.5 * np.median(lots)


def test_takers_lean_the_way_the_price_goes() -> None:
    of = market(seed=4)
    flows, moves = [], []
    before = of.symbols["BTC"].book.middle
    for _ in range(120):
        changes = [change for (change,) in steps(of, 1.0)]
        flows.append(sum((1 if t.buy else -1) for c in changes for t in c.trades))
        moves.append(of.symbols["BTC"].book.middle - before)
        before = of.symbols["BTC"].book.middle
    assert np.corrcoef(flows, moves)[0, 1] > 0.3


def test_marks_come_on_whole_seconds_near_the_price_with_funding_every_eight_hours() -> None:
    of = market()
    marks = [change.mark for (change,) in steps(of, 30) if change.mark is not None]
    assert [mark.ts_ns for mark in marks] == [START_NS + (i + 1) * SECOND_NS for i in range(30)]
    for mark in marks:
        assert mark.mark == pytest.approx(of.symbols["BTC"].path.value, rel=0.01)
        assert mark.index == pytest.approx(mark.mark, rel=1e-3) and mark.settle == pytest.approx(mark.mark, rel=1e-3)
        assert mark.next_funding_ns % (8 * 3600 * SECOND_NS) == 0
        assert 0 < mark.next_funding_ns - mark.ts_ns <= 8 * 3600 * SECOND_NS
        assert abs(mark.funding_rate) < 3e-3


def reached(position: Position, mark: float) -> bool:
    return mark <= position.liquidation if position.side is LONG else mark >= position.liquidation


@pytest.mark.parametrize("seed", SEEDS)
def test_liquidations_happen_exactly_when_the_mark_crosses(seed: int) -> None:
    of = market(restless(positions=300), seed=seed)
    one = of.symbols["BTC"]
    logged = 0
    for _ in range(600):
        held = {id(p): p for side in (LONG, SHORT) for p in one.positions.of(side)}
        sizes = {key: p.lots for key, p in held.items()}
        (changes,) = steps(of, STEP_NS / SECOND_NS)
        (change,) = changes
        mark = one.mark_price
        due = {key for key, p in held.items() if reached(p, mark)}
        assert len(change.forced) == len(due)
        expected = sorted((held[k].liquidation, sizes[k]) for k in due)
        assert sorted((o.liquidation, o.lots) for o in change.forced) == expected
        still = {id(p) for side in (LONG, SHORT) for p in one.positions.of(side)}
        assert not due & still
        assert all(order.mark == mark for order in change.forced)
        assert not any(reached(p, mark) for side in (LONG, SHORT) for p in one.positions.of(side))
        logged += len(change.forced)
    assert logged >= 10
    assert one.liquidation_count == logged == len(one.liquidations)


@pytest.mark.parametrize("seed", SEEDS)
def test_open_interest_is_the_sum_of_either_side_at_every_step(seed: int) -> None:
    of = market(restless(positions=200), seed=seed)
    one = of.symbols["BTC"]
    seen = set()
    for _ in of.step(of.now_ns + 60 * SECOND_NS):
        long, short = (sum(p.lots for p in one.positions.of(side)) for side in (LONG, SHORT))
        assert long == short == one.open_lots
        assert one.open_interest == pytest.approx(long * one.spec.lot)
        seen.add(long)
    assert len(seen) > 20


def test_forced_orders_lie_between_market_and_bankruptcy() -> None:
    of = market(restless(positions=300), seed=2)
    orders = [order for changes in steps(of, 60) for order in changes[0].forced]
    assert {order.side for order in orders} == {LONG, SHORT}
    for order in orders:
        tick = of.symbols["BTC"].spec.tick
        rate = maintenance_rate(order.leverage, 0.004, 150)
        assert order.liquidation == pytest.approx(liquidation_price(order.side, order.entry, order.leverage, rate))
        sign = 1 if order.side is LONG else -1
        bankrupt = order.entry * (1 - sign / order.leverage)
        assert 0 <= sign * (order.limit - bankrupt) <= tick * 1.001
        assert sign * (order.average - order.limit) >= -1e-6 * order.limit
        assert order.average == pytest.approx(order.mark, rel=0.02)
        assert 0 < order.last_lots <= order.filled_lots <= order.lots


def test_forced_orders_take_from_the_book_print_trades_and_move_the_price() -> None:
    of = market(small(positions=400, open_interest_usd=400e6, depth_usd=5000.0))
    one = of.symbols["BTC"]
    one.force(LONG, 20e6)
    before = one.book.middle
    for (change,) in of.step(of.now_ns + 60 * SECOND_NS):
        sold = sum(order.filled_lots for order in change.forced if order.side is LONG)
        if sold > 1000:
            assert sum(t.lots for t in change.trades if not t.buy) >= sold * 0.99
            break
    else:
        pytest.fail("no large liquidation")
    assert one.book.middle < before


def test_cascades_are_bounded() -> None:
    """Even a book without depth under a wall of positions does not fall through the floor."""
    of = market(small(positions=600, open_interest_usd=5e9, depth_usd=500.0, mix={125: 1.0}))
    one = of.symbols["BTC"]
    prices = [one.path.value for _ in of.step(of.now_ns + 120 * SECOND_NS)]
    assert one.liquidation_count > 100
    for before, after in pairwise(prices[::600]):
        assert abs(math.log(after / before)) < 0.08


@pytest.mark.parametrize(("side", "sign"), [(LONG, -1), (SHORT, 1)])
def test_a_forced_move_reaches_its_positions_and_lets_go(side: type, sign: int) -> None:
    of = market(small(positions=200))
    one = of.symbols["BTC"]
    before = one.path.value
    doomed = sorted(one.positions.of(side), key=lambda p: -sign * -p.liquidation)  # nearest first
    plan = one.force(side, 300_000.0)
    assert plan["usd"] >= 300_000.0
    assert (plan["target"] - before) * sign > 0
    for _ in of.step(of.now_ns + 120 * SECOND_NS):
        if one.path.driven_to is None:
            break
    assert one.path.driven_to is None
    assert (one.mark_price - plan["target"]) * sign >= 0
    assert all(position.index < 0 for position in doomed[: int(plan["positions"])])


def test_a_move_against_nobody_is_refused() -> None:
    of = market(small(positions=1, mix={5: 1.0}))
    one = of.symbols["BTC"]
    for side in (LONG, SHORT):
        one.positions.close_some(side, one.positions.lots(side), 0.0)
    with pytest.raises(ValueError, match="no long position"):
        one.force(LONG, 1.0)


def test_the_truth_names_every_position_and_liquidation() -> None:
    of = market(restless(positions=100), seed=2)
    steps(of, 60)
    one, truth = of.symbols["BTC"], of.truth("BTC")
    assert len(truth["positions"]) == one.positions.count(LONG) + one.positions.count(SHORT)
    for row in truth["positions"]:
        side = LONG if row["side"] == "long" else SHORT
        rate = maintenance_rate(row["leverage"], 0.004, 150)
        assert row["liquidation"] == pytest.approx(liquidation_price(side, row["entry"], row["leverage"], rate))
    longs = sum(row["qty"] for row in truth["positions"] if row["side"] == "long")
    assert longs == pytest.approx(truth["open_interest"])
    assert truth["liquidation_count"] == len(truth["liquidations"]) > 0
    assert set(truth["leverage_mix"]) == {str(leverage) for leverage in one.spec.mix}
    with pytest.raises(KeyError):
        of.truth("NONE")


def test_new_positions_use_the_known_mix() -> None:
    of = market(small(positions=4000, mix={5: 0.5, 20: 0.5}))
    held = of.symbols["BTC"].positions.of(LONG)
    assert sum(p.leverage == 5 for p in held) / len(held) == pytest.approx(0.5, abs=0.05)
    assert {p.leverage for p in held} == {5, 20}


def test_equal_seeds_give_equal_markets_and_others_do_not() -> None:
    specs = (small(), small("ETH"))
    assert digest(market(*specs, seed=9), 20) == digest(market(*specs, seed=9), 20)
    assert digest(market(*specs, seed=9), 20) != digest(market(*specs, seed=10), 20)


def test_the_size_of_the_calls_does_not_matter() -> None:
    one, two = market(seed=3), market(seed=3)
    steps(one, 10)
    for part in range(38):
        list(two.step(START_NS + part * 10 * SECOND_NS // 37))
    assert (one.now_ns, one.truth("BTC")) == (two.now_ns, two.truth("BTC"))


def test_hash_seeds_do_not_change_a_market() -> None:
    code = (
        "import sys; from tests.simulator.test_market import digest; from tests.simulator.rig import market, small\n"
        "sys.stdout.write(digest(market(small(), small('ETH'), small('ZZZ'), seed=11), 10))"
    )
    found = set()
    for seed in ("0", "1", "4242"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60, check=True)
        found.add(done.stdout)
    assert len(found) == 1 and len(found.pop()) == 64


def test_ratios_are_measured_every_five_minutes() -> None:
    of = market(small("ALT", activity=0.05))
    steps(of, 620)
    ratios = of.symbols["ALT"].ratios
    assert len(ratios) >= 3
    assert all(r.ts_ns % (300 * SECOND_NS) == 0 for r in ratios)
    assert all(0 <= value <= 1 for r in ratios for value in (r.accounts, r.top_accounts, r.top_positions))


@settings(max_examples=15, deadline=None)
@given(price=st.floats(1e-3, 1e5), seed=st.integers(0, 1000))
def test_any_price_makes_a_market(price: float, seed: int) -> None:
    of = Market([spec("ANY", price=price, positions=20)], np.random.default_rng(seed), START_NS)
    for (change,) in steps(of, 2.0):
        assert not change.symbol.book.crossed
    one = of.symbols["ANY"]
    assert one.book.middle * one.spec.tick == pytest.approx(price, rel=0.2)
    assert one.positions.lots(LONG) == one.positions.lots(SHORT)


@pytest.mark.parametrize(
    "values", [{"price": 0.0}, {"tick": -1.0}, {"lot": math.nan}, {"mmr": math.inf}, {"price": 10.0, "tick": 1.0}, {"activity": 0}]
)
def test_impossible_symbols_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="BTC"):
        SymbolSpec(**{"symbol": "BTC", "price": 100.0, "tick": 0.1, "lot": 0.01, **values})


def test_impossible_markets_are_refused() -> None:
    rng = np.random.default_rng(1)
    for specs in ([], [small(), small()]):
        with pytest.raises(ValueError, match="symbol"):
            Market(specs, rng, START_NS)
    with pytest.raises(ValueError, match="divide"):
        Market([small()], rng, START_NS, step_ns=300_000_000)


def test_a_market_is_as_volatile_as_its_regimes_say() -> None:
    of = market(small(activity=0.3), seed=6)
    one: SymbolMarket = of.symbols["BTC"]
    seen = {one.path.regime for _ in of.step(of.now_ns + 900 * SECOND_NS)}
    assert len(seen) >= 2


@pytest.mark.stress
def test_an_hour_of_the_shipped_symbols_stays_bounded_and_consistent() -> None:
    of = Market([spec("BTC"), spec("ETH"), spec("SOL"), spec("DOGE", price=0.2)], np.random.default_rng(12), START_NS)
    for number, changes in enumerate(of.step(of.now_ns + 3600 * SECOND_NS)):
        for change in changes:
            assert not change.symbol.book.crossed
        if number % 600:
            continue
        for one in of.symbols.values():
            assert all(300 < len(side.levels) < 9000 for side in (one.book.bids, one.book.asks))
            assert sum(p.lots for p in one.positions.of(LONG)) == sum(p.lots for p in one.positions.of(SHORT)) == one.open_lots
            assert 0.2 < one.open_lots / one.usual_lots < 1.5
            assert one.positions.count(LONG) < 10_000
    assert all(one.liquidation_count > 0 for one in of.symbols.values())


def test_unstepped_time_yields_nothing() -> None:
    of = market()
    assert steps(of, 0.05) == []
    (changes,) = steps(of, 0.1)
    assert isinstance(changes[0], Changes)


def test_a_market_goes_on_from_its_state() -> None:
    of = market(small(), small("ETH"))
    steps(of, 20)
    states = [symbol.state_of() for symbol in of.symbols.values()]
    other = Market([small(), small("ETH")], np.random.default_rng(99), START_NS)
    other.restore(states)
    assert [symbol.state_of() for symbol in other.symbols.values()] == states and other.now_ns == of.now_ns
    last = states[0].ids[0]
    for changes in steps(other, 5):
        for change in changes:
            assert not change.symbol.book.crossed
            assert change.symbol.positions.lots(LONG) == change.symbol.positions.lots(SHORT)
        assert changes[0].batches[0].previous_id == last, "ids chain over the restart"
        last = changes[0].batches[-1].last_id


def test_a_state_of_another_symbol_is_refused() -> None:
    of = market(small())
    state = of.symbols["BTC"].state_of()
    for wrong in (replace(state, tick=1.0), replace(state, symbol="ETH"), replace(state, bids={})):
        with pytest.raises(ValueError, match="a state"):
            of.symbols["BTC"].restore(wrong)


def test_one_of_two_symbols_moves_as_it_would_beside_the_other() -> None:
    both, alone = market(small(), small("ETH")), market(small(), small("ETH"))
    alone.keep_only("ETH")
    steps(both, 5), steps(alone, 5)
    assert both.symbols["ETH"].state_of() == alone.symbols["ETH"].state_of()


def test_merged_steps_tell_the_same_book_volumes_and_forced_orders() -> None:
    of = market(restless())
    now = of.symbols["BTC"].book
    bids, asks = dict(now.bids.levels), dict(now.asks.levels)
    whole = [changes[0] for changes in steps(of, 10)]
    told = merged(whole, 7)
    for batch in told.batches:
        bids |= batch.bids
        asks |= batch.asks
    assert {tick: lots for tick, lots in bids.items() if lots} == now.bids.levels
    assert {tick: lots for tick, lots in asks.items() if lots} == now.asks.levels
    assert (told.batches[0].previous_id, told.batches[-1].last_id) == (
        whole[0].batches[0].previous_id,
        whole[-1].batches[-1].last_id,
    )
    assert len(told.batches) == len(whole[0].batches) and told.ts_ns == whole[-1].ts_ns
    for buy in (False, True):
        assert sum(t.lots for t in told.trades if t.buy is buy) == sum(t.lots for c in whole for t in c.trades if t.buy is buy)
    assert [trade.number for trade in told.trades] == [7, 8]
    assert told.forced == [order for change in whole for order in change.forced]
