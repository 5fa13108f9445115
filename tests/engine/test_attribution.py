"""The two strategies that share liquidations among tiers, and the queue of events (`spec: engine`, sections 13.1-13.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.brackets import Bracket
from mpengine.config import load
from mpengine.engine.attribution import (
    MAX_EVENTS_PER_MINUTE,
    MINUTE_CACHE_SIZE,
    PENDING_MAX,
    CalibratorEvent,
    Due,
    EventAttribution,
    Kept,
    Levels,
    MinuteRecord,
    Waiting,
    WindowAttribution,
    responsibilities,
)
from mpengine.engine.buckets import Floats
from mpengine.engine.leverage import TierLadder, liquidation_price, make_ladder
from mpengine.heatmap import RawMap, map_grid
from shm.records import PositionSide, Venue

SETTINGS = load("", {})
LADDERS = {name: make_ladder(symbol.leverage_ladder, SETTINGS.engine.disabled_tiers) for name, symbol in SETTINGS.symbols.items()}
BTC = LADDERS["BTC"]
THREE = make_ladder({"20": 0.5, "50": 0.3, "100": 0.2}, ())
FIRST: Mapping[Venue, Bracket | None] = {Venue.BINANCE: Bracket(300_000.0, 0.004, 150.0, 0.0), Venue.BYBIT: None, Venue.OKX: None}
MMR = {Venue.BINANCE: 0.004, Venue.BYBIT: 0.005, Venue.OKX: 0.004}
LONG, SHORT = PositionSide.LONG, PositionSide.SHORT


def carried(state: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state))


def event(minute: int = 0, side: PositionSide = LONG, trigger: float = 99_400.0, **values: Any) -> CalibratorEvent:
    plain: dict[str, Any] = {
        "venue": Venue.BINANCE, "bankruptcy": 99_000.0, "qty": 0.1, "notional_usd": 13_000.0, "reference": 100_000.0, "mark": None
    }  # fmt: skip
    return CalibratorEvent(side=side, minute=minute, trigger=trigger, **{**plain, **values})


def record(minute: int, crossed: Floats, src: float = 100_000.0) -> MinuteRecord:
    grid = map_grid(src, 20.0)
    return MinuteRecord(minute, src, src, src, crossed, grid, RawMap(np.zeros((2, grid.count))), (), None)


def both(*mass: float) -> Floats:
    return np.array([mass, np.zeros(len(mass))])


def due(crossed: Floats, *batch: tuple[CalibratorEvent, float], row: int = 0) -> Due:
    return Due(Kept(0, 100_000.0, crossed), 0, row, batch)


def by_event(ladder: TierLadder = BTC) -> EventAttribution:
    return EventAttribution(ladder, 20.0, Levels(ladder, FIRST, MMR))


# window ----------------------------------------------------------------------------------------------------------------


def test_window_shares_an_event_by_weight_times_crossed_mass() -> None:
    one, crossed = WindowAttribution(THREE), both(2e6, 1e6, 0.0)
    one.on_minute(record(0, crossed), 1)
    done = one.on_events(due(crossed, (event(), 13_000.0)), np.array([0.5, 0.3, 0.2]), 1.0)
    assert (done.explained, done.unexplained, done.unexplained_usd) == (1, 0, 0.0)
    told = done.logs[0].record
    assert told["r"] == {"20": pytest.approx(0.769231, abs=5e-7), "50": pytest.approx(0.230769, abs=5e-7), "100": 0.0}
    assert told["M"] == {"20": 2e6, "50": 1e6, "100": 0.0}
    sums = one.sums(np.array([0.5, 0.3, 0.2]))
    assert sums.attributed_usd.tolist() == pytest.approx([10_000.0, 3_000.0, 0.0])
    assert sums.conversion == pytest.approx(13_000.0 / 1.3e6)


def test_an_event_without_crossed_mass_is_unexplained_and_teaches_nothing() -> None:
    one, crossed = WindowAttribution(THREE), both(2e6, 1e6, 0.0)
    one.on_minute(record(0, crossed), 1)
    before = one.state_of()
    done = one.on_events(due(crossed, (event(side=SHORT), 700.0), (event(side=SHORT), 300.0), row=1), np.full(3, 1 / 3), 1.0)
    assert (done.explained, done.unexplained, done.unexplained_usd) == (0, 2, 1000.0)
    assert done.logs[0].record == {"event": "unexplained", "minute": 0, "side": "short", "events": 2, "usd": 1000.0}
    assert one.state_of() == before


def window_with(attributed: list[float], crossed: list[float], events: float) -> WindowAttribution:
    one = WindowAttribution(THREE)
    one.restore({"attributed": np.array(attributed).tobytes(), "crossed": np.array(crossed).tobytes(), "events": events})
    return one


def test_window_scores_of_the_specification() -> None:
    one = window_with([12_000.0, 6_000.0, 6_000.0], [4e6, 1e6, 0.5e6], 40.0)
    score, evidence = one.scores(np.array([0.5, 0.3, 0.2]))
    assert score is not None
    assert evidence.tolist() == pytest.approx([33.333, 5.0, 1.667], abs=5e-4)
    assert score.tolist() == pytest.approx([0.285714, 0.952381, 2.857143], abs=5e-7)
    assert one.sums(np.array([0.5, 0.3, 0.2])).rate.tolist() == pytest.approx([0.003, 0.006, 0.012])


def test_one_expected_event_is_evidence_enough() -> None:
    found = window_with([10.0, 30.0, 0.0], [1e6, 1e6, 0.0], 2.0).scores(np.array([0.5, 0.5, 0.0]))
    assert found.evidence.tolist() == [1.0, 1.0, 0.0]
    assert found.score is not None and found.score == pytest.approx([0.5, 1.5, 1.0])


def test_window_says_nothing_of_tiers_without_evidence() -> None:
    weights = np.array([0.5, 0.3, 0.2])
    score, evidence = window_with([12_000.0, 6_000.0, 6_000.0], [4e6, 1e6, 0.5e6], 10.0).scores(weights)
    assert score is not None
    assert evidence[2] < 1.0 and score[2] == 1.0
    # The known tiers share what they held, so the target of all is still a share.
    assert (score[:2] * weights[:2]).sum() == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("attributed", "crossed", "events"),
    [
        ([1.0, 1.0, 1.0], [4e6, 1e6, 1e6], 1.0),  # fewer than one event each
        ([1.0, 0.0, 0.0], [4e6, 0.0, 0.0], 40.0),  # one tier
        ([0.0, 0.0, 0.0], [4e6, 1e6, 1e6], 40.0),  # all rates 0
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0.0),  # nothing at all
        ([1e300, 1e300, 1e300], [1e-300, 1e-300, 1e-300], 40.0),  # rates beyond all numbers
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_window_gives_no_score(attributed: list[float], crossed: list[float], events: float) -> None:
    assert window_with(attributed, crossed, events).scores(np.array([0.5, 0.3, 0.2])).score is None


def test_window_fades_with_a_day_and_adds_both_sides_without_events() -> None:
    one, crossed = WindowAttribution(THREE), np.array([[1e6, 2e6, 0.0], [3e6, 0.0, 0.0]])
    one.on_minute(record(0, crossed), 1)
    one.on_events(due(crossed, (event(), 1000.0)), np.array([0.5, 0.3, 0.2]), 1.0)
    assert one.sums(np.full(3, 1 / 3)).crossed_usd == pytest.approx([4e6, 2e6, 0.0])
    nothing = np.zeros((2, 3))
    for minute in range(1, 1441):
        one.on_minute(record(minute, nothing), 1)
    later = window_with([], [], 0.0)
    later.restore(carried(one.state_of()))
    sums = later.sums(np.full(3, 1 / 3))
    assert sums.crossed_usd == pytest.approx(np.array([4e6, 2e6, 0.0]) * np.exp(-1.0))
    assert sums.attributed_usd.sum() == pytest.approx(1000.0 * np.exp(-1.0))
    assert later.scores(np.full(3, 1 / 3)).evidence.sum() == pytest.approx(np.exp(-1.0))
    at_once = window_with([1000.0, 0.0, 0.0], [4e6, 2e6, 0.0], 1.0)
    at_once.on_minute(record(1440, nothing), 1440)  # after a downtime
    assert at_once.sums(np.full(3, 1 / 3)).crossed_usd == pytest.approx(sums.crossed_usd)


def test_window_keeps_disabled_tiers_out() -> None:
    one, crossed = WindowAttribution(BTC), np.full((2, 11), 1e6)
    one.on_minute(record(0, crossed), 1)
    done = one.on_events(due(crossed, (event(), 1000.0)), BTC.defaults, 1.0)
    assert done.logs[0].record["r"]["10"] == 0.0
    sums = one.sums(BTC.defaults)
    assert sums.crossed_usd is not None
    assert (sums.crossed_usd[1], sums.attributed_usd[1]) == (0.0, 0.0)
    assert sums.attributed_usd.sum() == pytest.approx(1000.0)


# event -----------------------------------------------------------------------------------------------------------------


def shares(one: EventAttribution, scale: float, *events: CalibratorEvent) -> tuple[dict[str, float], dict[str, float]]:
    line = one.on_events(due(np.zeros((2, 11)), *((each, 1.0) for each in events)), BTC.defaults, scale).logs[0].record
    return dict(zip(BTC.names, line["r"])), dict(zip(BTC.names, line["h"]))


def test_event_shares_of_the_specification() -> None:
    r, h = shares(by_event(), 1.0, event())
    for tier, expected in (("75", 0.0435), ("100", 0.7077), ("125", 0.1382), ("150", 0.0453), ("200", 0.0393), ("250", 0.0258)):
        assert r[tier] == pytest.approx(expected, abs=6e-5)
    assert (h["100"], h["125"]) == (pytest.approx(0.6867, abs=6e-5), pytest.approx(0.0116, abs=6e-5))
    r, h = shares(by_event(), 0.7, event())
    assert r["100"] == pytest.approx(0.8619, abs=6e-5)
    # The reach of a hit scales as well: 2.4 USD from its level, in units of 0.7 x 80.
    assert h["100"] / r["100"] == pytest.approx(np.exp(-2.40964 / 56.0), rel=1e-5)
    assert shares(by_event(), 1.6, event())[0]["100"] == pytest.approx(0.4974, abs=6e-5)


@pytest.mark.covers("A2-M2")
@pytest.mark.parametrize("name", sorted(LADDERS))
def test_responsibilities_sum_to_1_over_enabled_tiers_also_at_a_level(name: str) -> None:
    ladder = LADDERS[name]
    levels = Levels(ladder, FIRST, MMR)
    for row in (0, 1):
        factors = levels.factors(Venue.BINANCE, row)
        r = responsibilities(np.abs(factors[:, None] - factors[None, :]), ladder.enabled, 0.0012)  # an event at each level
        assert r.sum(axis=1) == pytest.approx(np.ones(len(factors)))
        assert (r[:, ~ladder.enabled] == 0.0).all()
        assert (r[:, ladder.enabled] > 0.0).any(axis=1).all()


def test_responsibilities_of_an_event_far_from_every_level_stay_finite() -> None:
    r = responsibilities(np.array([[900.0, 901.0, 950.0]]), np.array([True, True, False]), 1e-4)
    assert r.tolist() == [[1.0, 0.0, 0.0]]


def test_hits_misses_and_the_price_of_the_minute_where_an_event_has_no_reference() -> None:
    one = by_event()
    level = liquidation_price(LONG, 100_000.0, 100, 0.004)
    done = one.on_events(
        due(np.zeros((2, 11)), (event(trigger=level, reference=None), 1.0), (event(trigger=level + 100.0), 1.0)), BTC.defaults, 1.0
    )
    assert (done.explained, done.unexplained, done.unexplained_usd) == (2, 0, 0.0)
    assert [line.record["hit"] for line in done.logs] == [True, False]
    assert done.logs[1].record["miss"] == pytest.approx(0.001)
    assert (one.hit_share, one.mean_miss) == (0.5, pytest.approx(0.0005))
    edge = by_event().on_events(due(np.zeros((2, 11)), (event(trigger=99_480.0), 1.0)), BTC.defaults, 1.0)
    assert edge.logs[0].record["hit"]  # bucket 4,974, the level's is 4,970
    assert (by_event().hit_share, by_event().mean_miss) == (None, None)


def test_event_scores_are_relative_to_their_mean_and_the_sums_begin_anew_at_an_update() -> None:
    one = by_event()
    at_level = event(trigger=liquidation_price(LONG, 100_000.0, 100, 0.004))
    beside = event(side=SHORT, trigger=liquidation_price(SHORT, 100_000.0, 25, 0.004) + 150.0)
    crossed = np.zeros((2, 11))
    one.on_events(due(crossed, *[(at_level, 1000.0)] * 10), BTC.defaults, 1.0)
    assert one.scores(BTC.defaults).score is not None  # neighbours have a share
    one.on_events(due(crossed, *[(beside, 1000.0)] * 10, row=1), BTC.defaults, 1.0)
    score, evidence = one.scores(BTC.defaults)
    assert score is not None
    known = evidence >= 1.0
    assert known.sum() >= 2 and score[known].mean() == pytest.approx(1.0)
    assert (score[~known] == 1.0).all()
    assert score[BTC.tiers.index(100)] > score[BTC.tiers.index(25)]
    assert evidence.sum() == pytest.approx(20.0)
    again = by_event()
    again.restore(carried(one.state_of()))
    assert again.state_of() == one.state_of()
    one.on_update()
    assert one.scores(BTC.defaults).score is None
    assert one.scores(BTC.defaults).evidence.sum() == 0.0


def test_event_gives_no_score_for_one_tier_or_when_nothing_lies_at_a_level() -> None:
    ladder = make_ladder({"5": 1.0, "50": 1.0, "100": 1.0}, ())
    one = EventAttribution(ladder, 20.0, Levels(ladder, FIRST, MMR))
    at_level = event(trigger=liquidation_price(LONG, 100_000.0, 5, 0.004))
    one.on_events(due(np.zeros((2, 3)), *[(at_level, 1.0)] * 5), ladder.defaults, 1.0)
    assert one.scores(ladder.defaults).score is None
    levels = [liquidation_price(LONG, 100_000.0, tier, 0.004) for tier in (50, 100)]
    two = EventAttribution(make_ladder({"50": 1.0, "100": 1.0}, ()), 20.0, Levels(make_ladder({"50": 1, "100": 1}, ()), FIRST, MMR))
    far = event(trigger=levels[0] - 3000.0)
    two.on_events(due(np.zeros((2, 2)), *[(far, 1.0)] * 30, *[(event(trigger=levels[1] + 3000.0), 1.0)] * 30), np.full(2, 0.5), 0.7)
    assert two.scores(np.full(2, 0.5)).evidence.min() >= 1.0
    assert two.scores(np.full(2, 0.5)).score is None


# levels ----------------------------------------------------------------------------------------------------------------


def test_the_nearest_level_is_that_of_the_smallest_distance_also_with_a_high_rate() -> None:
    levels, rng = Levels(BTC, FIRST, MMR), np.random.default_rng(1)
    for rate in (0.004, 0.02):
        levels.set_rates({Venue.BINANCE: rate})
        for row in (0, 1):
            factors = levels.factors(Venue.BINANCE, row)
            for ratio in [*rng.uniform(0.78, 1.25, 300), 0.5, 2.0, *factors]:
                assert abs(ratio - factors[levels.nearest(Venue.BINANCE, row, ratio)]) == np.abs(ratio - factors).min()


def test_levels_are_those_of_the_venue() -> None:
    levels = Levels(BTC, FIRST, MMR)
    for venue, rate in ((Venue.BINANCE, 0.004), (Venue.BYBIT, 0.005)):
        assert levels.factors(venue, 0)[2] * 1e5 == pytest.approx(liquidation_price(LONG, 1e5, 20, rate))
    levels.set_rates({Venue.BYBIT: 0.006})
    assert levels.factors(Venue.BYBIT, 1)[2] * 1e5 == pytest.approx(liquidation_price(SHORT, 1e5, 20, 0.006))


# the queue -------------------------------------------------------------------------------------------------------------


def kept(minute: int) -> Kept:
    return Kept(minute, 100.0, np.zeros((2, 3)))


def judged(found: list[Due]) -> list[tuple[int, int, int, int]]:
    return [(one.record.minute, one.minute, one.row, len(one.batch)) for one in found]


def test_events_wait_for_the_record_of_their_minute() -> None:
    one = Waiting()
    for minute, side in ((5, LONG), (4, LONG), (5, SHORT), (5, LONG)):
        one.add(event(minute, side), 1.0)
    assert (len(one), one.pending) == (4, 4)  # before the first record
    assert judged(one.on_minute(kept(5))) == [(5, 4, 0, 1), (5, 5, 0, 2), (5, 5, 1, 1)]
    one.add(event(6), 1.0)
    one.add(event(7), 1.0)
    assert (len(one), one.pending) == (2, 0)
    assert judged(one.on_minute(kept(6))) == [(6, 6, 0, 1)]
    assert judged(one.on_minute(kept(7))) == [(7, 7, 0, 1)]
    assert len(one) == 0


def test_late_events_use_the_record_of_their_minute_and_those_of_a_skipped_one_the_next() -> None:
    one = Waiting()
    for minute in (5, 6, 9):
        one.on_minute(kept(minute))
    for minute in (5, 7, 8, 9):
        one.add(event(minute), 1.0)
    assert one.pending == 2
    assert judged(one.on_minute(kept(10))) == [(5, 5, 0, 1), (10, 7, 0, 1), (10, 8, 0, 1), (9, 9, 0, 1)]
    one.add(event(11), 1.0)  # waits for its own record, which is skipped
    assert one.pending == 0
    assert judged(one.on_minute(kept(12))) == [(12, 11, 0, 1)]


def test_the_cache_holds_an_hour_and_older_events_cannot_wait() -> None:
    one = Waiting()
    for minute in range(100):
        one.on_minute(kept(minute))
    assert len(one.records) == MINUTE_CACHE_SIZE
    assert (one.refusal(99 - MINUTE_CACHE_SIZE), one.refusal(100 - MINUTE_CACHE_SIZE)) == ("too_old", None)
    one.add(event(40), 1.0)
    assert judged(one.on_minute(kept(100))) == [(40, 40, 0, 1)]


def test_a_time_that_cannot_be_true_does_not_wait_for_ever() -> None:
    one = Waiting()
    one.on_minute(kept(5))
    one.add(event(10**9), 1.0)
    assert judged(one.on_minute(kept(6))) == [(6, 10**9, 0, 1)]


def test_both_queues_are_bounded() -> None:
    one = Waiting()
    for _ in range(PENDING_MAX):
        assert one.refusal(0) is None
        one.add(event(0), 1.0)
    assert one.refusal(0) == "pending_full"
    one.on_minute(kept(0))
    assert one.pending == 0
    for _ in range(MAX_EVENTS_PER_MINUTE):
        assert one.refusal(1) is None
        one.add(event(1), 1.0)
    assert (one.refusal(1), one.refusal(0), one.refusal(-1)) == ("minute_full", "minute_full", None)
    one.on_minute(kept(1))
    assert one.refusal(2) is None


def test_minutes_that_come_again_begin_anew() -> None:
    one = Waiting()
    for minute in (500, 501, 502):
        one.on_minute(kept(minute))
    one.on_minute(kept(100))
    assert [record.minute for record in one.records] == [100]
    assert one.refusal(101) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.integers(0, 2)), max_size=60), st.integers(0, 59))
def test_no_event_is_lost_or_judged_twice_and_a_restored_queue_goes_on(ops: list[tuple[int, bool, int]], cut: int) -> None:
    one, other, added, out, minute = Waiting(), Waiting(), 0, 0, 3
    for at, (number, is_long, advance) in enumerate(ops):
        if one.refusal(number) is None:
            one.add(event(number, LONG if is_long else SHORT), float(at))
            added += 1
        if at == cut:
            other.restore(carried(one.state_of()))
            assert msgspec.msgpack.encode(other.state_of()) == msgspec.msgpack.encode(one.state_of())
            one = other
        if advance:
            minute += advance
            found = one.on_minute(kept(minute))
            out += sum(len(each.batch) for each in found)
            assert all(each.record.minute == each.minute or each.record.minute == minute for each in found)
    assert added == out + len(one)
