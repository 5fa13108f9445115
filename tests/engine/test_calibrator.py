"""The calibrator: arrival, updates, guard, files, checkpoints, and its acceptance on a synthetic market (`spec: engine`, 13)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpengine.brackets import Bracket
from mpengine.config import load
from mpengine.engine.attribution import MAX_EVENTS_PER_MINUTE, PENDING_MAX
from mpengine.engine.buckets import Floats
from mpengine.engine.calibrator import Calibrator, CalibratorDocument, CalibratorEvent, MinuteRecord, stepped
from mpengine.engine.inference import Opening, Projection
from mpengine.engine.leverage import TierLadder, allowed, entropy_bits, liquidation_price, make_ladder
from mpengine.engine.log_records import LogOut
from mpengine.heatmap import Grid, RawMap
from shm.records import PositionSide, Venue

SETTINGS = load("", {})
LADDERS = {name: make_ladder(symbol.leverage_ladder, SETTINGS.engine.disabled_tiers) for name, symbol in SETTINGS.symbols.items()}
BTC = LADDERS["BTC"]
SEVEN = make_ladder({"5": 1.0, "20": 1.0, "25": 0.9, "50": 0.7, "75": 0.35, "100": 0.14, "125": 0.08}, ())
FIRST: Mapping[Venue, Bracket | None] = {Venue.BINANCE: Bracket(300_000.0, 0.004, 150.0, 0.0), Venue.BYBIT: None, Venue.OKX: None}
MMR = {Venue.BINANCE: 0.004, Venue.BYBIT: 0.005, Venue.OKX: 0.004}
LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
GRID = Grid(4990, 20, 20.0)
EMPTY = RawMap(np.zeros((2, GRID.count)))
COLLAPSED = np.array([0.35, 0.0, 0.35, 0.30, *[0.0] * 7])
STRATEGIES: tuple[Literal["window", "event"], ...] = ("window", "event")


def make(ladder: TierLadder = BTC, **values: Any) -> Calibrator:
    plain: dict[str, Any] = {
        "step": 20.0, "mmr": MMR, "first": FIRST, "attribution": "window", "mmr_estimation": True, "bias_correction": False,
        "entropy_min_bits": 1.6,
    }  # fmt: skip
    return Calibrator(ladder, **{**plain, **values})


def event(minute: int, side: PositionSide = LONG, trigger: float = 99_400.0, **values: Any) -> CalibratorEvent:
    plain: dict[str, Any] = {
        "venue": Venue.BINANCE, "bankruptcy": 99_000.0, "qty": 0.1, "notional_usd": 1000.0, "reference": 100_000.0, "mark": None
    }  # fmt: skip
    return CalibratorEvent(side=side, minute=minute, trigger=trigger, **{**plain, **values})


def record(minute: int, crossed: Floats | float = 0.0, **values: Any) -> MinuteRecord:
    mass = np.full((2, 11), crossed) * BTC.enabled if isinstance(crossed, float) else crossed
    plain: dict[str, Any] = {"src": 100_000.0, "high": 100_100.0, "low": 99_900.0, "grid": GRID, "raw": EMPTY, "pools": ()}
    return MinuteRecord(minute=minute, crossed=mass, oi_delta=None, **{**plain, **values})


def named(logs: list[LogOut], name: str) -> list[dict[str, Any]]:
    assert all(line.kind == "calibrator" for line in logs)
    return [line.record for line in logs if line.record["event"] == name]


def run(
    one: Calibrator, minutes: range, act: Callable[[int], list[CalibratorEvent]], crossed: Floats | float = 1e6
) -> list[LogOut]:
    logs = list[LogOut]()
    for minute in minutes:
        for each in act(minute):
            logs += one.on_liquidation(each)
        logs += one.on_minute(record(minute, crossed))
    return logs


def nothing(minute: int) -> list[CalibratorEvent]:
    return []


def carried(state: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(state))


def is_allowed(ladder: TierLadder, weights: Floats) -> bool:
    return bool(
        abs(weights.sum() - 1.0) <= 1e-9 and (weights <= 0.35 + 1e-12).all() and (weights[~ladder.enabled] == 0.0).all()
        and (weights >= 0.0).all()
    )  # fmt: skip


# arrival ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribution", STRATEGIES)
def test_events_before_the_first_minute_count_at_once_and_are_attributed_later(attribution: str) -> None:
    """Regression story 1."""
    one = make(attribution=attribution)
    for number in range(50):
        one.on_liquidation(event(number % 3, LONG if number % 2 else SHORT))
        assert one.document().total_events == number + 1
    assert (one.document().explained, one.document().pending, one.document().waiting) == (0, 50, 50)
    one.on_minute(record(2, 1e6))
    document = one.document()
    assert (document.total_events, document.explained, document.waiting, document.dropped) == (50, 50, 0, 0)


def test_a_late_event_is_judged_by_the_record_of_its_minute() -> None:
    one, early, now = make(), np.zeros((2, 11)), np.zeros((2, 11))
    early[0, 2], now[0, 6] = 1e6, 1e6
    one.on_minute(record(10, early))
    one.on_minute(record(11, now))
    one.on_liquidation(event(10))
    line = named(one.on_minute(record(12, 0.0)), "attributed")[0]
    assert (line["minute"], line["r"]["20"], line["r"]["100"]) == (10, 1.0, 0.0)
    assert (one.document().late, one.document().explained) == (1, 1)
    one.on_liquidation(event(12))  # the minute that was rolled last
    one.on_liquidation(event(13))
    assert one.document().late == 2


def test_evidence_fades_by_the_minutes_that_passed() -> None:
    one = make()
    one.on_minute(record(10, 1e6))
    one.on_minute(record(10 + 1440, 0.0))
    assert one.document().tiers["20"].crossed_usd == pytest.approx(2e6 * np.exp(-1.0))


def test_events_of_a_skipped_minute_use_the_next_record() -> None:
    one = make()
    one.on_minute(record(10, 0.0))
    one.on_liquidation(event(11))
    logs = one.on_minute(record(13, 1e6))
    assert [line["minute"] for line in named(logs, "attributed")] == [11]


@pytest.mark.covers("A2-M3", "A1-M11")
@pytest.mark.parametrize("attribution", STRATEGIES)
def test_100_000_events_in_a_minute_are_bounded_and_counted(attribution: str) -> None:
    """Regression story 23."""
    one = make(attribution=attribution)
    one.on_minute(record(0, 1e6))
    logs = list[LogOut]()
    for _ in range(100_000):
        logs += one.on_liquidation(event(1))
    document = one.document()
    assert (document.total_events, document.waiting, document.dropped) == (100_000, MAX_EVENTS_PER_MINUTE, 90_000)
    assert len(logs) == MAX_EVENTS_PER_MINUTE + 1
    assert named(logs, "dropped") == [{"event": "dropped", "level": "WARNING", "reason": "minute_full", "dropped": 1}]
    one.on_minute(record(1, 1e6))
    document = one.document()
    assert (document.explained, document.waiting) == (MAX_EVENTS_PER_MINUTE, 0)
    one.on_liquidation(event(2))
    assert one.document().waiting == 1  # the next minute has room again


def test_the_pending_queue_and_the_age_of_an_event_are_bounded_and_told_once_a_minute() -> None:
    one, logs = make(), list[LogOut]()
    for _ in range(PENDING_MAX + 5):
        logs += one.on_liquidation(event(0))
    assert [line["reason"] for line in named(logs, "dropped")] == ["pending_full"]
    assert (one.document().pending, one.document().dropped) == (PENDING_MAX, 5)
    for minute in range(100):
        one.on_minute(record(minute, 1e6))
    logs = [line for _ in range(3) for line in one.on_liquidation(event(20))]
    assert [line["reason"] for line in named(logs, "dropped")] == ["too_old"]
    one.on_minute(record(100, 1e6))
    assert len(named(one.on_liquidation(event(20)), "dropped")) == 1
    document = one.document()
    assert document.total_events == document.explained + document.unexplained + document.dropped + document.waiting == 1009


def test_one_large_event_does_not_outweigh_the_others() -> None:
    one = make()
    for _ in range(200):
        one.on_liquidation(event(0))
    line = one.on_liquidation(event(0, notional_usd=1e9))[0].record
    assert (line["notional_usd"], line["x"]) == (1e9, 1000.0)


def test_unexplained_events_are_counted_with_their_usd() -> None:
    one = make()
    one.on_liquidation(event(0))
    one.on_liquidation(event(0, SHORT, notional_usd=500.0))
    crossed = np.zeros((2, 11))
    crossed[1, 3] = 1e6
    one.on_minute(record(0, crossed))
    document = one.document()
    assert (document.explained, document.unexplained, document.unexplained_usd) == (1, 1, 1000.0)


def test_far_and_rejected_events_are_counted_by_themselves() -> None:
    one = make()
    one.count_far()
    one.count_rejected()
    one.count_rejected()
    assert (one.document().far, one.document().rejected, one.document().total_events) == (1, 2, 0)


@pytest.mark.parametrize("attribution", STRATEGIES)
def test_events_nearest_to_a_disabled_level_are_logged_as_such(attribution: str) -> None:
    one = make(attribution=attribution)
    for tier, is_disabled in ((5, False), (10, True), (20, False), (250, False)):
        for side in (LONG, SHORT):
            mmr = 0.002 if tier == 250 else 0.004
            line = one.on_liquidation(event(0, side, liquidation_price(side, 100_000.0, tier, mmr)))[0].record
            assert (line["tier"], line["tier_disabled"]) == (tier, is_disabled)
    line = one.on_liquidation(event(0, reference=None))[0].record
    assert (line["tier"], line["tier_disabled"]) == (None, None)


@pytest.mark.covers("A2-M9")
def test_a_record_that_cannot_be_true_is_refused_and_stores_nothing() -> None:
    one = make()
    run(one, range(20), lambda minute: [event(minute)])
    one.on_liquidation(event(20))
    before = one.state_of()
    nan, inf = float("nan"), float("inf")
    bad: list[dict[str, Any]] = [{"src": value} for value in (0.0, -1.0, nan, inf)]
    bad += [{"high": nan}, {"low": -inf}, {"high": 1.0}, {"pools": ((0, nan),)}, {"raw": RawMap(np.full((2, 20), nan))}]
    bad += [{"crossed": np.full((2, 11), value)} for value in (nan, inf, -1.0)] + [{"crossed": np.zeros((2, 3))}]
    for values in bad:
        logs = one.on_minute(record(20, values.pop("crossed", 1e6), **values))
        assert named(logs, "record_refused") == [{"event": "record_refused", "level": "WARNING", "minute": 20}]
    assert one.on_minute(record(20, 1e6)._replace(oi_delta=nan))[0].record["event"] == "record_refused"
    assert one.document().records_refused == len(bad) + 1
    after = one.state_of()
    counts = list(after["counts"])
    counts[2] = before["counts"][2]
    assert {**after, "counts": counts} == before
    one.on_minute(record(20, 1e6))
    assert one.document().explained == 21


# updates ---------------------------------------------------------------------------------------------------------------


def test_a_step_of_the_specification() -> None:
    weights = np.array([0.5, 0.3, 0.2])
    moved = stepped(weights, np.array([0.285714, 0.952381, 2.857143]), np.array([33.333333, 5.0, 1.666667]))
    assert moved.tolist() == pytest.approx([0.468944, 0.299286, 0.209286], abs=5e-7)
    assert (moved / moved.sum()).tolist() == pytest.approx([0.479731, 0.306170, 0.214100], abs=5e-7)


@pytest.mark.covers("A1-M11")
def test_a_step_is_clamped_ignores_tiers_without_evidence_and_leaves_0_at_0() -> None:
    weights, much = np.array([0.5, 0.3, 0.2, 0.0]), np.full(4, 1e9)
    assert stepped(weights, np.array([1.0, 100.0, 1.0, 100.0]), much).tolist() == pytest.approx([0.5, 0.36, 0.2, 0.0])
    # The farthest down is a score of 0, which the rate of learning alone keeps above the clamp.
    assert stepped(weights, np.zeros(4), much).tolist() == pytest.approx([0.45, 0.27, 0.18, 0.0])
    assert stepped(weights, np.full(4, -9.0), much).tolist() == pytest.approx([0.425, 0.255, 0.17, 0.0])
    assert stepped(weights, np.full(4, 2.0), np.array([0.99, 0.0, 0.5, 0.0])).tolist() == weights.tolist()


def test_updates_come_at_the_first_rollover_of_each_quarter_of_an_hour() -> None:
    one, seen = make(), list[int]()
    for minute in (*range(7, 50), 61, 62, 200, 201):
        seen += [line["minute"] for line in named(one.on_minute(record(minute, 1e6)), "calibration")]
    # Minute 14 is rolled at 00:15:00. After a gap the first rollover counts.
    assert seen == [14, 29, 44, 61, 200]
    assert (one.updates, one.document().updates, one.document().minutes_since_calibration) == (5, 5, 1)


def test_without_evidence_an_update_moves_no_weight() -> None:
    one = make()
    before = one.weights
    lines = named(run(one, range(31), lambda minute: [event(minute)] if minute == 3 else [], 0.0), "calibration")
    assert [line["moved"] for line in lines] == [False, False]
    assert one.weights.tolist() == before.tolist()
    assert (one.document().updates, one.document().moves) == (2, 0)


@pytest.mark.covers("A1-M4")
@pytest.mark.parametrize("attribution", STRATEGIES)
@pytest.mark.parametrize("name", sorted(LADDERS))
def test_learning_covers_the_ladder_without_its_disabled_tiers(name: str, attribution: str) -> None:
    ladder, rng = LADDERS[name], np.random.default_rng(3)
    one = make(ladder, attribution=attribution)
    before = one.weights
    for minute in range(303):
        for side in (LONG, SHORT):
            for tier in ladder.tiers:  # the disabled ones too
                price = liquidation_price(side, 100_000.0, tier, 0.002 if tier >= 200 else 0.004)
                one.on_liquidation(event(minute, side, price + float(rng.normal(0.0, 5.0 * tier % 37))))
        one.on_minute(record(minute, rng.lognormal(12.0, 1.0, (2, len(ladder.tiers)))))
    moved = one.weights != before
    assert moved.tolist() == ladder.enabled.tolist()
    assert is_allowed(ladder, one.weights)
    assert [tier.evidence > 0.0 for tier in one.document().tiers.values()] == ladder.enabled.tolist()


def test_the_first_weights_are_the_allowed_defaults() -> None:
    assert make().weights.tolist() == allowed(BTC, BTC.defaults).tolist()
    other = make_ladder({"5": 1.0, "10": 0.0, "20": 1.0, "25": 0.9, "50": 0.5, "75": 0.25, "100": 0.1}, [10, 25])
    assert make(other).weights[other.enabled].tolist() == pytest.approx([0.35, 0.35, 0.1765, 0.0882, 0.0353], abs=6e-5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.just(0.0), st.floats(0.0, 1e12), st.floats(0.0, 1e-12)), min_size=11, max_size=11))
@example([0.0, 0.0, 0.0, 2.3e-308, *[0.0] * 6, 16.0])
@example([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5e-324, 0.0, 5e-324, 0.0, 1.0])
def test_weights_in_force_are_always_allowed(raw: list[float]) -> None:
    one = make()
    one.hand_in(raw)
    weights = one.weights
    assert is_allowed(BTC, weights)
    middle = BTC.enabled & (BTC.leverage <= 25)
    assert weights[middle].sum() >= 0.25 - 1e-9
    assert one.document().entropy_bits == entropy_bits(weights) >= 1.58


def test_weights_are_copies() -> None:
    one = make()
    one.weights[:] = 9.0
    assert is_allowed(BTC, one.weights)


@pytest.mark.covers("A2-M1", "A1-M5")
def test_weights_handed_in_are_enforced_everywhere() -> None:
    """Regression story 13: w[10] = 0.3 comes out 0, in stats, file, responsibilities, projection."""
    one = make()
    handed = np.array([0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0])
    one.hand_in(handed)
    assert is_allowed(BTC, one.weights) and one.weights[1] == 0.0
    assert one.document().tiers["10"].weight == one.weights_file(0)["weights_by_leverage"]["10"] == 0.0
    assert sum(one.weights_file(0)["weights"]) == pytest.approx(1.0, abs=1e-5)
    one.on_liquidation(event(0))
    assert named(one.on_minute(record(0, np.full((2, 11), 1e6))), "attributed")[0]["r"]["10"] == 0.0
    projection = Projection(20.0, BTC, FIRST)
    projection.open(Opening(0, 100_000.0, 5e6, 0.5, {Venue.BINANCE: 1.0}, one.weights), MMR)
    assert all(side.values[:, 1].sum() == 0.0 for side in projection.maps)


@pytest.mark.parametrize("bad", [[1.0], [float("nan")] * 11, [-1.0] * 11, [float("inf")] * 11])
def test_weights_that_are_none_are_refused(bad: list[float]) -> None:
    one = make()
    before = one.weights.tolist()
    with pytest.raises(ValueError, match="one finite number"):
        one.hand_in(bad)
    assert one.weights.tolist() == before


def test_sums_of_single_events_begin_anew_once_they_moved_the_weights() -> None:
    one = make(attribution="event")
    run(one, range(15), lambda minute: [event(minute)] if minute == 3 else [])
    assert one.document().moves == 0
    assert sum(tier.evidence for tier in one.document().tiers.values()) == pytest.approx(1.0)  # too little: kept for the next
    run(one, range(15, 30), lambda minute: [event(minute)])
    assert one.document().moves == 1
    assert sum(tier.evidence for tier in one.document().tiers.values()) == 0.0


# entropy guard ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LADDERS))
def test_the_guard_is_silent_on_the_defaults_for_a_day_without_events(name: str) -> None:
    """Regression story 12, first half."""
    one = make(LADDERS[name])
    logs = list[LogOut]()
    for minute in range(1440):
        logs += one.on_minute(record(minute, np.full((2, len(LADDERS[name].tiers)), 1e5)))
    assert len(named(logs, "calibration")) == 96
    assert not named(logs, "safety_trip") and one.calibration_enabled


def collapse(one: Calibrator, minutes: range) -> list[LogOut]:
    one.hand_in(COLLAPSED)
    return run(one, minutes, nothing)


@pytest.mark.covers("A1-M11", "A1-M8", "A2-L4")
def test_the_guard_freezes_collapsed_weights_at_the_third_update() -> None:
    """Regression stories 12 and 25: the logged entropy is the compared one, bits after section 13.5."""
    one = make()
    logs = collapse(one, range(45))
    trip = named(logs, "safety_trip")
    assert len(trip) == 1 and trip[0]["level"] == "CRITICAL" and trip[0]["windows"] == 3
    assert trip[0]["entropy_bits"] == entropy_bits(one.weights) == one.document().entropy_bits == pytest.approx(1.5813, abs=5e-5)
    lines = named(logs, "calibration")
    assert [line["entropy_bits"] for line in lines] == [trip[0]["entropy_bits"]] * 3
    assert [line["enabled"] for line in lines] == [True, True, False]
    assert not one.calibration_enabled and not one.document().enabled
    frozen = one.weights.tolist()
    one.hand_in(BTC.defaults)
    later = run(one, range(45, 120), lambda minute: [event(minute)] * 20)
    assert one.weights.tolist() == frozen
    assert not named(later, "safety_trip") and len(named(later, "calibration")) == 5
    assert one.document().total_events == 1500


def test_two_low_updates_are_forgiven() -> None:
    one = make()
    collapse(one, range(30))
    one.hand_in(BTC.defaults)
    run(one, range(30, 45), nothing)
    assert not named(collapse(one, range(45, 75)), "safety_trip")
    assert one.calibration_enabled


def test_learning_into_a_collapse_is_stopped() -> None:
    """Events that only ever come from three tiers: the weights collapse by learning, and the guard ends it."""
    one, crossed = make(entropy_min_bits=2.0), np.full((2, 11), 1e3) * BTC.enabled
    crossed[:, (0, 2, 3)] = 1.0
    logs = list[LogOut]()
    for minute in range(15 * 200):
        hit = np.zeros((2, 11))
        hit[:, (0, 2, 3)] = 1.0
        logs += run(one, range(minute, minute + 1), lambda at: [event(at)] * 2, hit if minute % 2 else crossed)
    assert named(logs, "safety_trip") and not one.calibration_enabled
    assert is_allowed(BTC, one.weights)


def test_a_trip_is_not_persisted_nor_the_weights_it_froze() -> None:
    one = make()
    run(one, range(5), nothing)
    sound = one.weights.tolist()
    collapse(one, range(5, 60))
    assert not one.calibration_enabled
    assert one.weights_file(0)["weights"] == [round(weight, 6) for weight in sound]  # a clock that is set back goes on from them
    again = make()
    again.restore(carried(one.state_of()))
    assert again.calibration_enabled and again.weights.tolist() == sound
    assert not named(run(again, range(60, 120), nothing), "safety_trip")


# maintenance rates and bias --------------------------------------------------------------------------------------------


def marked(minute: int) -> CalibratorEvent:
    return event(minute, LONG, 82_600.0, bankruptcy=82_338.30, mark=82_660.0, reference=82_660.0)


@pytest.mark.covers("A1-M11")
def test_a_measured_rate_is_taken_over_at_an_update_and_reaches_the_next_projection() -> None:
    """Regression story 22."""
    one = make()
    projection = Projection(20.0, BTC, FIRST)
    run(one, range(14), lambda minute: [marked(minute)] * 3)
    assert one.mmr_of(Venue.BINANCE) == 0.004
    before = projection.levels(LONG, 100_000.0, one.mmr_of(Venue.BINANCE), Venue.BINANCE)
    logs = run(one, range(14, 15), nothing)
    assert named(logs, "mmr") == [{"event": "mmr", "venue": "binance", "mmr": one.mmr_of(Venue.BINANCE), "samples": 42}]
    assert one.mmr_of(Venue.BINANCE) == pytest.approx(0.003892, abs=5e-7)
    assert one.mmr_of(Venue.BYBIT) == 0.005
    assert (projection.levels(LONG, 100_000.0, one.mmr_of(Venue.BINANCE), Venue.BINANCE) < before)[:8].all()
    assert one.document().mmr == {"binance": one.mmr_of(Venue.BINANCE), "bybit": 0.005, "okx": 0.004}


def test_levels_of_events_follow_the_rate_in_force() -> None:
    one = make()
    middles = [sum(liquidation_price(LONG, 100_000.0, tier, rate) for tier in (75, 100)) / 2 for rate in (0.004, 0.003892)]
    between = event(0, trigger=sum(middles) / 2)
    assert one.on_liquidation(between)[0].record["tier"] == 75
    run(one, range(15), lambda minute: [marked(minute)] * 3)
    assert one.on_liquidation(between._replace(minute=15))[0].record["tier"] == 100


def test_without_the_switch_the_rate_stays() -> None:
    one = make(mmr_estimation=False)
    logs = run(one, range(31), lambda minute: [marked(minute)] * 3)
    assert one.mmr_of(Venue.BINANCE) == 0.004 and not named(logs, "mmr")
    assert one.document().mmr_samples["binance"] == 93
    with pytest.raises(KeyError):
        one.mmr_of(Venue.GATE)


def test_bias_is_published_and_acts_only_with_its_switch() -> None:
    measured = {}
    for switch in (False, True):
        one = make(bias_correction=switch)
        run(one, range(15), lambda minute: [event(minute, SHORT, 100_600.0, mark=100_000.0)])
        assert one.document().bias_short == pytest.approx(0.0006) and one.document().bias_long == 0.0
        measured[switch] = one.bias
    assert measured == {False: (0.0, 0.0), True: (0.0, pytest.approx(0.0006))}


# published -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribution", STRATEGIES)
def test_the_document_is_whole_and_is_what_an_update_logs(attribution: str) -> None:
    one = make(attribution=attribution)
    run(one, range(14), lambda minute: [event(minute), event(minute, SHORT, 100_600.0)])
    line = named(run(one, range(14, 15), nothing), "calibration")[0]
    document = one.document()
    told = {name: value for name, value in line.items() if name in CalibratorDocument.__struct_fields__}
    shown = msgspec.json.decode(msgspec.json.encode(document))
    assert told.keys() == shown.keys()
    differing = {name for name in shown if told[name] != shown[name]}
    assert differing <= {"tiers"}  # scores of now, and sums that began anew
    assert sum(line["weights_before"].values()) == pytest.approx(1.0)
    assert msgspec.json.decode(msgspec.json.encode(document), type=CalibratorDocument) == document
    assert (document.conversion is None, document.hit_share is None) == (attribution == "event", attribution == "window")
    assert document.near_events == 26 and document.near_share == 0.0
    with pytest.raises(AttributeError):
        document.updates = 9  # type: ignore[misc]
    with pytest.raises(AttributeError):
        one.other = 1  # type: ignore[attr-defined]


def test_a_new_calibrator_publishes_missing_as_none() -> None:
    document = make().document()
    assert (document.conversion, document.minutes_since_calibration, document.near_share) == (None, None, None)
    assert {tier.rate for tier in document.tiers.values()} == {None} == {tier.score for tier in document.tiers.values()}
    assert (document.vol, document.enabled, document.records) == (0.0015, True, 0)


def test_monitors_see_the_minutes() -> None:
    one, raw = make(), np.zeros((2, GRID.count))
    raw[0, 5] = 1.0  # 99,900
    one.on_minute(record(0, 1e6, raw=RawMap(raw), pools=((0, 99_900.0),)))
    one.on_liquidation(event(1, trigger=99_960.0))
    one.on_liquidation(event(1, trigger=99_700.0))
    one.on_minute(record(1, 1e6, low=99_890.0))
    document = one.document()
    assert (document.near_events, document.near_share, document.pools_approached, document.pools_crossed) == (2, 0.5, 1, 1)


def test_an_event_of_a_skipped_minute_is_judged_by_the_map_before_it() -> None:
    one, raw = make(), np.zeros((2, GRID.count))
    raw[0, 5] = 1.0
    one.on_minute(record(6, 1e6, raw=RawMap(raw)))
    one.on_minute(record(9, 1e6))
    one.on_liquidation(event(7, trigger=99_900.0))
    one.on_liquidation(event(9, trigger=99_900.0))
    one.on_liquidation(event(10, trigger=99_900.0))
    one.on_minute(record(10, 1e6))
    assert (one.document().near_events, one.document().near_share) == (3, 2 / 3)


# weights file ----------------------------------------------------------------------------------------------------------


def learnt(**values: Any) -> Calibrator:
    one = make(symbol="BTC", bias_correction=True, **values)
    rng = np.random.default_rng(11)
    for minute in range(40):
        for _ in range(3):
            one.on_liquidation(event(minute, mark=100_000.0, trigger=99_600.0, bankruptcy=99_300.0))
        one.on_minute(record(minute, rng.lognormal(12.0, 1.0, (2, 11)) * BTC.enabled))
    return one


def test_a_weights_file_holds_what_section_19_names_and_is_read_again() -> None:
    one = learnt()
    saved = one.weights_file(123)
    assert saved["schema_version"] == 3 and saved["symbol"] == "BTC" and saved["saved_at"] == 123
    assert (saved["buffer"], saved["tolerance"], saved["long_offset_usd"], saved["short_offset_usd"]) == (0, 4, 0, 0)
    assert saved["ladder"] == list(BTC.tiers) and saved["calibration_count"] == 2
    assert saved["weights"] == list(saved["weights_by_leverage"].values()) == [round(w, 6) for w in one.weights.tolist()]
    assert saved["mmr"] == {"binance": pytest.approx(0.007), "bybit": 0.005, "okx": 0.004} and saved["mmr_estimated"] == ["binance"]
    again = make(symbol="BTC", mmr={**MMR, Venue.BYBIT: 0.0055}, bias_correction=True)
    assert again.load_weights(msgspec.json.decode(msgspec.json.encode(saved))) == []
    assert again.weights == pytest.approx(one.weights, abs=1e-5) and is_allowed(BTC, again.weights)
    # Measured rates come back, settings of that time do not.
    assert (again.mmr_of(Venue.BINANCE), again.mmr_of(Venue.BYBIT)) == (one.mmr_of(Venue.BINANCE), 0.0055)
    assert (again.bias, again.updates) == (one.bias, 2) and one.bias[0] < 0.0


def test_measured_rates_of_a_file_count_only_with_their_switch() -> None:
    one = make(symbol="BTC", mmr_estimation=False)
    one.load_weights(learnt().weights_file(0))
    assert one.mmr_of(Venue.BINANCE) == 0.004
    assert one.weights_file(0)["mmr_estimated"] == []


def test_weights_of_another_ladder_are_matched_by_tier() -> None:
    """Regression story 14."""
    one = make()
    names = {"250": 0.05, "5": 0.1, "20": 0.3, "10": 0.3, "33": 0.2, "100": 0.05}
    warnings = one.load_weights({**make().weights_file(0), "ladder": [1], "weights_by_leverage": names})
    assert len(warnings) == 2 and "[25, 50, 75, 125, 150, 200]" in warnings[0] and "[10, 33]" in warnings[1]
    kept = {5: 0.1, 20: 0.3, 100: 0.05, 250: 0.05}
    expected = [kept.get(tier, default) for tier, default in zip(BTC.tiers, BTC.defaults.tolist())]
    assert one.weights.tolist() == allowed(BTC, expected).tolist()
    assert is_allowed(BTC, one.weights)


def test_a_file_of_schema_2_gives_its_weights_by_tier_and_nothing_else() -> None:
    one = make()
    old = {"schema_version": 2, "symbol": "BTC", "ladder": [5, 10, 20, 25, 50], "weights": [0.2, 0.2, 0.2, 0.2, 0.2],
           "buffer": 0.002, "tolerance": 9, "bias_pct_long": 0.5, "calibration_count": 77}  # fmt: skip
    assert len(one.load_weights(old)) == 2
    assert one.weights[1] == 0.0 and one.weights[0] == one.weights[2] == one.weights[3] == one.weights[4]
    assert (one.bias, one.updates) == ((0.0, 0.0), 0)


def test_another_symbols_file_is_ignored_with_a_warning() -> None:
    one = make(symbol="ETH")
    before = one.state_of()
    assert "ignored" in one.load_weights(learnt().weights_file(0))[0]
    assert one.state_of() == before


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 4}, {"schema_version": None}, {"weights_by_leverage": None, "weights": [1.0]},
        {"weights_by_leverage": None, "ladder": None}, {"weights_by_leverage": {}}, {"weights_by_leverage": {"5": -1.0}},
        {"weights_by_leverage": {"5": float("nan")}}, {"weights_by_leverage": {"5": "1"}}, {"weights_by_leverage": {"x": 1.0}},
        {"weights_by_leverage": None, "ladder": [None], "weights": [1.0]}, {"weights_by_leverage": {"5": True}}, {"mmr": 3},
        {"mmr_estimated": 3}, {"mmr": {"binance": 0.5}}, {"bias_pct_long": 0.1}, {"bias_pct_short": None},
        {"calibration_count": -1},
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_changes_nothing(change: dict[str, Any]) -> None:
    one = make(symbol="BTC")
    before = one.state_of()
    with pytest.raises(ValueError, match=r"weights file|invalid literal"):
        one.load_weights({**learnt().weights_file(0), **change})
    assert one.state_of() == before


def test_a_file_of_weights_that_are_all_0_gives_the_defaults() -> None:
    one = make()
    one.load_weights({**one.weights_file(0), "weights_by_leverage": dict.fromkeys(BTC.names, 0.0)})
    assert one.weights.tolist() == allowed(BTC, BTC.defaults).tolist()


# checkpoint ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attribution", STRATEGIES)
def test_a_restored_calibrator_goes_on_bit_by_bit_from_any_point(attribution: str) -> None:
    rng = np.random.default_rng(8)
    one = make(attribution=attribution, symbol="BTC")
    step, minute = 0, 1000
    while minute < 1100:
        step += 1
        if rng.random() < 0.75:
            side = LONG if rng.random() < 0.5 else SHORT
            at = minute - int(rng.integers(0, 5)) if rng.random() < 0.3 else minute
            mark = float(rng.normal(100_000.0, 50.0)) if rng.random() < 0.8 else None
            inputs: tuple[str, Any] = ("on_liquidation", event(
                at, side, 100_000.0 * (1.0 - 0.006 if side is LONG else 1.006) + float(rng.normal(0.0, 100.0)),
                venue=Venue(int(rng.integers(1, 4))), notional_usd=float(rng.lognormal(8.0, 1.5)), mark=mark,
                reference=mark, bankruptcy=99_500.0 if side is LONG else 100_500.0,
            ))  # fmt: skip
        else:
            minute += 1 if rng.random() < 0.9 else 3
            raw = RawMap(rng.random((2, GRID.count)) * (rng.random((2, GRID.count)) < 0.3))
            crossed = rng.lognormal(12.0, 1.0, (2, 11)) * (rng.random((2, 11)) < 0.4) * BTC.enabled
            inputs = ("on_minute", record(minute, crossed, raw=raw, high=100_000.0 + 300.0 * rng.random(),
                                          pools=((0, 99_500.0), (1, 100_400.0 + 50.0 * rng.random()))))  # fmt: skip
        if step % 7 == 0:
            other = make(attribution=attribution, symbol="BTC")
            other.restore(carried(one.state_of()))
        else:
            other = one
        logs = getattr(one, inputs[0])(inputs[1])
        if other is not one:
            assert getattr(other, inputs[0])(inputs[1]) == logs
            assert msgspec.msgpack.encode(other.state_of()) == msgspec.msgpack.encode(one.state_of())
            assert other.document() == one.document() and other.weights_file(1) == one.weights_file(1)
            one = other
    assert one.document().updates >= 6 and one.document().moves >= 1


def test_the_state_of_another_ladder_is_refused() -> None:
    one = make()
    before = one.state_of()
    with pytest.raises(ValueError, match="another ladder"):
        one.restore(make(SEVEN).state_of())
    assert one.state_of() == before


def test_a_state_is_a_copy() -> None:
    one = learnt()
    state = one.state_of()
    packed = msgspec.msgpack.encode(state)
    run(one, range(40, 60), lambda minute: [event(minute)])
    assert msgspec.msgpack.encode(state) == packed


def test_the_record_that_is_kept_does_not_follow_the_callers_array() -> None:
    one, crossed = make(), np.full((2, 11), 1e6) * BTC.enabled
    one.on_minute(record(0, crossed))
    crossed[:] = 0.0
    one.on_liquidation(event(0))
    one.on_minute(record(1, crossed))
    assert one.document().explained == 1


# acceptance ------------------------------------------------------------------------------------------------------------

DAY = 1440
CONVERSION = 0.01
OFTEN = np.array([0.05, 0.10, 0.12, 0.20, 0.30, 0.40, 0.50])
"""Share of minutes in which the price crosses mass of a tier: the nearer its level, the more often."""
STEEP = (0.30, 0.22, 0.16, 0.12, 0.09, 0.07, 0.04)
FLAT = (0.05, 0.10, 0.12, 0.15, 0.18, 0.20, 0.20)


def market(
    seed: int, truth: tuple[float, ...], days: int, events_per_minute: float, swap_sides: bool = False
) -> tuple[Calibrator, Floats]:
    """Weights after each update, float64[updates, tiers]: 1 % of what is crossed is liquidated, by tiers of these shares."""
    rng, minutes, shares = np.random.default_rng(seed), days * DAY, np.array(truth)
    mass = rng.lognormal(0.0, 1.0, (minutes, 2, 7)) * (rng.random((minutes, 2, 7)) < OFTEN) / OFTEN * 2e6
    usd = CONVERSION * (mass * shares).sum(axis=2)
    size = float(usd.sum(axis=1).mean()) / events_per_minute
    counts = rng.poisson(usd / size)
    if swap_sides:
        counts = counts[:, ::-1]
    one, history = make(SEVEN), list[Floats]()
    for minute in range(minutes):
        for row, side in enumerate((LONG, SHORT)):
            for notional in rng.lognormal(np.log(size) - 0.5, 1.0, counts[minute, row]).tolist():
                one.on_liquidation(event(minute, side, notional_usd=notional))
        if one.on_minute(record(minute, mass[minute])) and one.updates > len(history):
            history.append(one.weights)
    return one, np.array(history)


def check_recovery(seed: int, truth: tuple[float, ...], days: int, events_per_minute: float) -> None:
    one, history = market(seed, truth, days, events_per_minute)
    from_day_5 = history[5 * 96 - 1 :]
    assert np.abs(from_day_5 - np.array(truth)).max() <= 0.04
    # No oscillation: no update moves a weight by more than a fraction of that, and the days do not swing.
    assert np.abs(np.diff(from_day_5, axis=0)).max() <= 0.005
    assert np.ptp(from_day_5, axis=0).max() <= 0.04
    assert one.document().conversion == pytest.approx(CONVERSION, rel=0.15)
    assert all(is_allowed(SEVEN, weights) for weights in history)


@pytest.mark.parametrize(("seed", "truth"), [(1, STEEP), (2, FLAT)])
def test_weights_converge_to_the_shares_of_a_synthetic_market(seed: int, truth: tuple[float, ...]) -> None:
    """Acceptance of section 13.2."""
    check_recovery(seed, truth, 7, 6.0)


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("truth", [STEEP, FLAT])
def test_weights_stay_at_the_shares_for_weeks(seed: int, truth: tuple[float, ...]) -> None:
    check_recovery(seed, truth, 21, 10.0)


def test_events_of_the_wrong_side_do_not_converge() -> None:
    """What the acceptance would not see if it could not fail."""
    _, history = market(1, STEEP, 6, 6.0, swap_sides=True)
    assert np.abs(history[-1] - np.array(STEEP)).max() > 0.08


def test_the_distance_to_the_truth_falls_without_overshooting() -> None:
    _, history = market(3, FLAT, 3, 30.0)
    distance = np.abs(history - np.array(FLAT)).sum(axis=1)
    by_half_day = distance[47::48]
    assert all(later < earlier + 0.02 for earlier, later in pairwise(by_half_day))
    assert by_half_day[-1] < 0.2 * distance[0]
