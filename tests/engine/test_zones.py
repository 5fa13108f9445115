"""Zones: creation, reinforcement, sweep, expiry, restart, files (`spec: engine`, section 14)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.config import load
from mpengine.engine.leverage import make_ladder
from mpengine.engine.zones import MAX_ZONES_PER_SIDE, MINUTE_NS, Zones, reinforced
from shm.records import PositionSide
from tests.engine.zone_rows import rows_of

SETTINGS = load("", {})
LADDER = make_ladder(SETTINGS.symbols["BTC"].leverage_ladder, SETTINGS.engine.disabled_tiers)
TIERS = len(LADDER.tiers)
LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
NOTHING: Any = (np.zeros(0, np.int64), np.zeros((0, TIERS)))
NO_TAPE: Any = (np.zeros(0, np.int64), np.zeros(0))


def masses(*rows: tuple[int, int, float]) -> Any:
    """(bucket, tier, USD) as what a minute added."""
    usd = np.zeros((len(rows), TIERS))
    for at, (_, tier, value) in enumerate(rows):
        usd[at, LADDER.tiers.index(tier)] = value
    return np.array([row[0] for row in rows], np.int64), usd


def taped(*rows: tuple[int, float]) -> Any:
    return np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows])


def add(
    zones: Zones,
    minute: int = 0,
    long: Any = NOTHING,
    short: Any = NOTHING,
    tape: Any = NO_TAPE,
    opened: float = 0.0,
    p99: float = 1e4,
) -> list[Any]:
    return zones.contribute(
        minute=minute, opened_usd=opened, projected=(long, short), tape=(tape, NO_TAPE), tape_p99=p99, tape_weight=0.35
    )


def zones(unit: float = 250_000.0) -> Zones:
    one = Zones(20.0, LADDER)
    one.unit_usd = unit
    return one


def age(
    one: Zones, minute: int, minutes: int = 1, src: float = 100_000.0, high: float = 100_010.0, low: float = 99_990.0
) -> list[Any]:
    return one.age(minutes=minutes, minute=minute, src=src, high=high, low=low)


def test_contributions_of_an_opening() -> None:
    one = Zones(20.0, LADDER)
    long = 3_250_000.0 * LADDER.defaults
    rows = [(4000 + 100 * at, tier, float(long[at])) for at, tier in enumerate(LADDER.tiers) if LADDER.enabled[at]]
    logs = add(one, long=masses(*rows), opened=5_000_000.0)
    assert one.unit_usd == 250_000.0
    told = {(log.record["bucket"] - 4000) // 100: log.record["contribution"] for log in logs}
    wanted = {0: 0.794378, 3: 1.390162, 4: 1.112130, 6: 0.317751, 8: 0.107241}
    for at, value in wanted.items():
        assert told[at] == pytest.approx(value, abs=5e-7)
    assert 9 not in told  # 200x: 0.047663 is below what makes a zone
    assert [log.record["contribution"] for log in logs] == sorted((log.record["contribution"] for log in logs), reverse=True)
    add(one, opened=10_000_000.0)
    assert one.unit_usd == pytest.approx(0.99 * 250_000.0 + 0.01 * 500_000.0)


@pytest.mark.parametrize(("weight", "c", "wanted"), [(1, 1, 1.24), (4.9, 5, 4.93), (3, 20, 5), (0.05, 0.1, 0.0797)])
def test_reinforcement(weight: float, c: float, wanted: float) -> None:
    assert reinforced(weight, c) == pytest.approx(wanted)


def test_the_life_of_a_zone() -> None:
    one = zones()
    add(one, 0, masses((4820, 25, 695_080.97)))
    (zone,) = rows_of(one)
    assert (zone.weight, zone.projected_usd) == (pytest.approx(1.390162, abs=5e-7), 695_080.97)
    assert (zone.id, zone.price, zone.source, zone.reinforcement_count) == ("L-4820-0", 96_400.0, "inference", 0)
    age(one, 1)
    add(one, 1, masses((4820, 25, 250_000.0)))  # c = 0.5
    (zone,) = rows_of(one)
    assert (zone.weight, zone.projected_usd) == (pytest.approx(1.491715, abs=5e-7), pytest.approx(941_605.57, abs=0.005))
    assert (zone.created_ns, zone.last_reinforced_ns, zone.reinforcement_count) == (MINUTE_NS, 2 * MINUTE_NS, 1)
    age(one, 2)
    one.shrink(0.1)
    (zone,) = rows_of(one)
    assert (zone.weight, zone.projected_usd) == (pytest.approx(1.335831, abs=5e-7), pytest.approx(843_207.78, abs=0.005))
    assert one.counters == {"created": 1, "reinforced": 1, "swept": 0, "expired": 0, "merged": 0, "evicted": 0}


def test_the_nearest_zone_takes_what_is_in_reach() -> None:
    one = zones()
    add(one, 0, masses((4800, 25, 4e5), (4804, 25, 6e5)))  # reach is 2 buckets at 96,000
    assert one.active == (2, 0)
    add(one, 1, masses((4801, 50, 2e5)))
    add(one, 1, masses((4802, 50, 2e5)))  # equally near: the heavier
    light, heavy = rows_of(one)
    assert (light.reinforcement_count, heavy.reinforcement_count) == (1, 1)
    assert heavy.tier_contributions["50"] > 0.0
    add(one, 1, masses((4807, 50, 2e5)))
    assert one.active == (3, 0)
    add(one, 1, short=masses((4800, 50, 2e5)))
    assert one.active == (3, 1)


def test_a_zone_of_this_minute_is_reinforced_by_the_tape_of_it() -> None:
    one = zones()
    logs = add(one, 5, masses((4800, 25, 4e5), (4801, 25, 2e5)), tape=taped((4801, 5000.0), (5000, 20_000.0), (5100, 1000.0)))
    assert [log.record["event"] for log in logs] == ["created", "reinforced", "created", "reinforced"]
    first, tape_only = rows_of(one)
    assert (first.source, first.tape_usd, first.projected_usd) == ("combined", 5000.0, 6e5)
    assert (tape_only.source, tape_only.weight, tape_only.tape_contribution) == ("tape", 0.35, 0.35)  # min(1, 20,000 / 10,000)
    assert first.weight == pytest.approx(sum(first.tier_contributions.values()) + first.tape_contribution, abs=1e-9)
    assert one.active == (2, 0)  # 0.035 of the tape makes no zone


def test_without_a_unit_or_a_scale_nothing_is_made() -> None:
    one = Zones(20.0, LADDER)
    assert add(one, 0, masses((4800, 25, 4e5)), tape=taped((4800, 100.0)), p99=0.0) == []
    assert one.active == (0, 0)


def test_a_disabled_tier_makes_no_zone() -> None:
    one = zones()
    add(one, 0, masses((4800, 10, 4e6)))
    assert one.active == (0, 0)


def test_a_zone_is_swept_only_once_the_price_has_been_away() -> None:
    one = zones()
    add(one, 0, masses((5000, 25, 4e5)), masses((5001, 25, 4e5)))
    one.arm(100_010.0)
    assert not any(zone.armed for zone in rows_of(one))
    assert age(one, 1, low=99_900.0, high=100_100.0) == []
    one.arm(100_030.0)
    assert [zone.armed for zone in rows_of(one)] == [True, False]
    logs = age(one, 2, low=100_000.0, high=100_100.0)
    assert [(log.record["event"], log.record["id"]) for log in logs] == [("swept", "L-5000-0")]
    assert (one.active, one.counters["swept"]) == ((0, 1), 1)


def test_expiry_by_weight_and_by_age() -> None:
    one = zones()
    add(one, 0, masses((4800, 25, 26_000.0), (4700, 25, 2_500_000.0), (4980, 25, 2_500_000.0)))
    logs = age(one, 12, minutes=12)
    assert [(log.record["bucket"], log.record["reason"]) for log in logs] == [(4800, "decay")]
    assert age(one, 240) == []
    logs = age(one, 241, minutes=1)
    assert [(log.record["bucket"], log.record["reason"]) for log in logs] == [(4700, "age")]  # 4980 is within 2 % of the price
    assert (one.active, one.counters["expired"]) == ((1, 0), 2)


def test_only_the_heaviest_stay() -> None:
    one = zones()
    count = MAX_ZONES_PER_SIDE + 10
    add(one, 0, masses(*((round(20_000 * 1.0007**at), 100, 20_000.0 + at) for at in range(count))))
    assert (one.active[0], one.counters["evicted"], one.counters["created"]) == (MAX_ZONES_PER_SIDE, 10, count)
    assert min(zone.projected_usd for zone in rows_of(one)) == 20_010.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_contributions_always_add_up_and_zones_keep_their_distance(seed: int, minutes: int) -> None:
    one, rng = Zones(20.0, LADDER), np.random.default_rng(seed)
    for minute in range(minutes):
        age(one, minute, minutes=int(rng.integers(1, 4)), low=99_000.0 + 900 * rng.random(), high=100_200.0)
        if rng.random() < 0.3:
            one.shrink(float(rng.random() * 0.25))
        keys = np.unique(rng.integers(4700, 5000, 12))
        usd = rng.exponential(3e5, (len(keys), TIERS)) * (rng.random((len(keys), TIERS)) < 0.3) * LADDER.enabled
        fresh = np.unique(rng.integers(4700, 5000, 5))
        add(one, minute, (keys, usd), tape=(fresh, rng.exponential(5e3, len(fresh))), opened=5e6)
        one.arm(100_000.0)
        found = rows_of(one)
        for zone in found:
            assert zone.weight == pytest.approx(sum(zone.tier_contributions.values()) + zone.tape_contribution, abs=1e-9)
            assert 0.0 < zone.weight <= 5.0 + 1e-9
        buckets = sorted(round(zone.price / 20.0) for zone in found)
        assert all(high - low >= 3 for low, high in pairwise(buckets))  # never inside another's reach


# restart ---------------------------------------------------------------------------------------------------------------


def encoded(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def file_of(one: Zones, saved_ns: int) -> Any:
    """The file of zones as a later start finds it."""
    return orjson.loads(encoded(one.to_file("BTC", saved_ns)))


@pytest.mark.covers("A1-M10")
def test_two_hours_of_downtime() -> None:
    """Regression story 15: weights x 0.548, what becomes faint is gone."""
    one = zones()
    add(one, 99, masses((4800, 25, 500_000.0), (4900, 25, 45_000.0)))  # weights 1.0 and 0.09
    saved = file_of(one, 100 * MINUTE_NS)
    again = Zones(20.0, LADDER)
    assert again.load_file(saved, "BTC", 220) == []
    (zone,) = rows_of(again)
    assert zone.weight == pytest.approx(0.547986, abs=5e-7)
    assert zone.projected_usd == pytest.approx(500_000.0 * 0.547986, rel=1e-6)
    assert (zone.created_ns, again.counters["expired"], again.unit_usd) == (100 * MINUTE_NS, 1, 250_000.0)


@pytest.mark.parametrize(("minutes", "factor"), [(60, 0.740261), (240, 0.300289), (1440, 0.000733)])
def test_catch_up_decay(minutes: int, factor: float) -> None:
    one = zones()
    add(one, 0, masses((4800, 25, 2_500_000.0)))
    age(one, minutes, minutes=minutes)
    assert [zone.weight for zone in rows_of(one)] == ([pytest.approx(5 * factor, abs=5e-6)] if 5 * factor >= 0.05 else [])


@pytest.mark.covers("A2-H2")
def test_a_file_is_a_copy() -> None:
    one = zones()
    add(one, 0, masses((4800, 25, 500_000.0)))
    saved = one.to_file("BTC", MINUTE_NS)
    kept = encoded(saved)
    age(one, 30, minutes=30)
    one.shrink(0.2)
    add(one, 30, masses((4800, 50, 500_000.0)))
    assert encoded(saved) == kept


def test_zones_that_overlap_after_a_load_are_merged() -> None:
    one = zones()
    add(one, 0, masses((4800, 25, 500_000.0), (4900, 50, 500_000.0)))
    saved = file_of(one, MINUTE_NS)
    saved["zones"]["bucket"][1] = 4801  # as another step's or a hand-edited file would have them
    again = Zones(20.0, LADDER)
    again.load_file(saved, "BTC", 1)
    (zone,) = rows_of(again)
    assert (again.counters["merged"], zone.projected_usd) == (1, 1e6)
    assert zone.price == 96_020.0  # the heavier one's
    assert zone.weight == pytest.approx(reinforced(1.6, 1.0))
    assert zone.weight == pytest.approx(sum(zone.tier_contributions.values()), abs=1e-9)


def test_the_life_of_merged_zones_is_one() -> None:
    """From the first creation to the last reinforcement; armed only if both were: the price has to have been away from both."""
    one = zones()
    add(one, 3, masses((4800, 25, 300_000.0)))
    add(one, 5, masses((4900, 25, 500_000.0)))
    one.arm(96_000.0)  # at the first, away from the second
    add(one, 8, masses((4800, 25, 50_000.0)), tape=taped((4800, 5000.0)))
    saved = file_of(one, 9 * MINUTE_NS)
    saved["zones"]["bucket"] = [4802, 4801]
    assert saved["zones"]["armed"] == [False, True]
    again = Zones(20.0, LADDER)
    again.load_file(saved, "BTC", 9)
    (zone,) = rows_of(again)
    assert zone.id == "L-4801-3" and zone.last_reinforced_ns == 9 * MINUTE_NS
    assert (zone.reinforcement_count, zone.armed, zone.source) == (2, False, "combined")
    assert (zone.projected_usd, zone.tape_usd) == (850_000.0, 5000.0)
    assert zone.weight == pytest.approx(sum(zone.tier_contributions.values()) + zone.tape_contribution, abs=1e-9)
    assert zone.tape_contribution > 0.0


def test_a_file_from_the_future_does_not_make_zones_grow() -> None:
    """The clock was set back while the engine was down."""
    again = Zones(20.0, LADDER)
    assert again.load_file(saved_file() | {"saved_at": 500 * MINUTE_NS}, "BTC", 100) == []
    assert [zone.weight for zone in rows_of(again)] == [pytest.approx(1.0), pytest.approx(1.6)]


def test_what_a_file_says_of_a_tier_that_is_disabled_now_is_dropped() -> None:
    fewer = make_ladder(SETTINGS.symbols["BTC"].leverage_ladder, [10, 50])
    one = zones()
    add(one, 0, masses((4800, 25, 500_000.0), (4801, 50, 500_000.0), (4900, 50, 500_000.0)))
    again = Zones(20.0, fewer)
    assert again.load_file(file_of(one, MINUTE_NS), "BTC", 1) == ["1 zones of the file cannot be and were left out"]
    (zone,) = rows_of(again)
    assert zone.tier_contributions == {"25": zone.weight} and zone.weight > 0.0


def test_an_event_of_the_tape_marks_its_zone_as_combined() -> None:
    one = zones()
    add(one, 0, masses((4800, 25, 4e5)))
    add(one, 1, tape=taped((4800, 5000.0)))
    (zone,) = rows_of(one)
    assert (zone.source, zone.tape_usd, zone.reinforcement_count) == ("combined", 5000.0, 1)
    age(one, 2)
    (zone,) = rows_of(one)
    assert zone.tape_usd == pytest.approx(4975.0)


@pytest.mark.parametrize("change", [{"symbol": "ETH"}, {"schema_version": 2}, {"step": 10.0}])
def test_another_symbols_file_changes_nothing(change: dict[str, Any]) -> None:
    one = zones()
    add(one, 0, masses((4800, 25, 500_000.0)))
    before = one.state_of()
    with pytest.raises(ValueError, match="another"):
        one.load_file({**file_of(one, MINUTE_NS), **change}, "BTC", 1)
    assert one.state_of() == before


def saved_file() -> Any:
    one = zones()
    add(one, 0, masses((4800, 25, 500_000.0), (4900, 50, 500_000.0)))
    return file_of(one, MINUTE_NS)


BAD_VALUES: list[tuple[str, Any]] = [
    ("bucket", -3), ("bucket", 0), ("bucket", "x"), ("bucket", None), ("bucket", 4800.5), ("bucket", 10**30), ("bucket", True),
    ("projected_usd", math.nan), ("projected_usd", None), ("projected_usd", 10**400), ("tape_usd", "x"), ("tape_part", 9.0),
    ("side", 7), ("side", True), ("side", "0"), ("source", 0), ("source", 4), ("source", 2.0), ("created", "x"), ("created", 1),
    ("created", 10**30), ("last", None), ("last", -1), ("count", -1), ("count", "x"), ("armed", 3), ("armed", None),
    ("tier", 99), ("tier", -1), ("tier_value", "x"), ("tier_value", math.nan), ("tier_value", -1.0),
]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), BAD_VALUES)
def test_zones_that_cannot_be_are_left_out(column: str, value: Any) -> None:
    saved = saved_file()
    saved["zones"][column][0] = value
    again = Zones(20.0, LADDER)
    assert again.load_file(saved, "BTC", 1) == ["1 zones of the file cannot be and were left out"]
    assert [zone.id for zone in rows_of(again)] == ["L-4900-0"]


@pytest.mark.parametrize("change", [
    {"saved_at": None}, {"saved_at": math.inf}, {"saved_at": -1}, {"saved_at": 10**30}, {"zones": []}, {"zones": None},
    {"tiers": None}, {"zones": {}}, {"zones": {"bucket": "4800"}}, {"zones": {"bucket": [4800]}}, {"zones": {"armed": [False]}},
    {"zones": {"tier_zone": [0, 2]}}, {"zones": {"tier_zone": [-1, 1]}}, {"zones": {"tier_value": [1.0]}}])  # fmt: skip
def test_a_file_that_is_no_columns_of_zones_changes_nothing(change: dict[str, Any]) -> None:
    saved = saved_file()
    if isinstance(change.get("zones"), dict):
        change = {"zones": {**saved["zones"], **change["zones"]} if change["zones"] else {}}
    again = zones()
    add(again, 0, masses((4600, 25, 500_000.0)))
    before = again.state_of()
    with pytest.raises(ValueError, match=r"zone|argument"):
        again.load_file({**saved, **change}, "BTC", 1)
    assert again.state_of() == before


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just([]), st.just({}), st.integers(0, 6000)
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_a_file_holds_it_is_refused_whole_or_leaves_sound_zones(data: st.DataObject) -> None:
    saved = saved_file()
    for _ in range(data.draw(st.integers(1, 3))):
        into: Any = saved
        while isinstance(into, dict | list) and into:
            at = data.draw(st.sampled_from(sorted(into) if isinstance(into, dict) else range(len(into))))
            if not isinstance(into[at], dict | list) or not into[at] or data.draw(st.integers(0, 4)) == 0:
                into[at] = data.draw(ANYTHING)
                break
            into = into[at]
    again = Zones(20.0, LADDER)
    before = again.state_of()
    try:
        again.load_file(saved, "BTC", 30)
    except ValueError:
        assert again.state_of() == before
    found = rows_of(again)
    assert len(found) == sum(again.active) <= 2
    for zone in found:
        assert 0.05 <= zone.weight <= 5.0 + 1e-8 and zone.price > 0.0 and 0.0 <= zone.projected_usd + zone.tape_usd < 1e20
        assert zone.weight == pytest.approx(sum(zone.tier_contributions.values()) + zone.tape_contribution, abs=1e-9)
    age(again, 31)
    add(again, 31, masses((4801, 50, 1e5), (4902, 75, 1e5)), opened=1e6)
    encoded(again.table(4))


def test_a_file_with_more_zones_than_there_may_be_loses_the_lightest() -> None:
    saved, count = saved_file(), MAX_ZONES_PER_SIDE + 300
    weights = [0.1 + at / count for at in range(count)]
    saved["zones"] |= {
        "side": [1] * count, "bucket": [round(20_000 * 1.0007**at) for at in range(count)], "created": [0] * count,
        "last": [0] * count, "armed": [True] * count, "projected_usd": [1e5] * count, "tape_usd": [0.0] * count,
        "tape_part": [0.0] * count, "source": [1] * count, "count": [0] * count, "tier_zone": list(range(count)),
        "tier": [3] * count, "tier_value": weights,
    }  # fmt: skip
    again = Zones(20.0, LADDER)
    assert again.load_file(saved, "BTC", 1) == ["300 zones of the file are more than there may be"]
    assert (again.active, again.counters["evicted"]) == ((0, MAX_ZONES_PER_SIDE), 300)
    assert min(zone.weight for zone in rows_of(again)) == pytest.approx(weights[300])


@pytest.mark.parametrize("weights", [(9e5, 5e5), (3e5, 5e5)])
def test_zones_that_lived_side_by_side_are_not_merged_by_a_load(weights: tuple[float, float]) -> None:
    """The reach grows with the price: at 79,980 it is one bucket, at 80,020 two, and the zones are two apart."""
    one = zones()
    add(one, 0, masses((4001, 25, weights[0])))
    add(one, 1, masses((3999, 25, weights[1])))
    assert one.active == (2, 0)
    again = Zones(20.0, LADDER)
    again.load_file(file_of(one, 2 * MINUTE_NS), "BTC", 2)
    assert rows_of(again) == rows_of(one) and again.counters["merged"] == 0


def test_zones_are_bounded_over_a_day() -> None:
    """Regression story 20: levels come in every minute of a drifting market, the oldest fade or are swept."""
    one, rng, src, most = Zones(20.0, LADDER), np.random.default_rng(5), 100_000.0, 0
    for minute in range(1440):
        src *= 1.0 + float(rng.normal()) * 0.001
        age(one, minute, src=src, high=src * 1.0005, low=src * 0.9995)
        rows = [(round(src * (1 - rng.random() * 0.1) / 20.0), 50, float(rng.exponential(3e5))) for _ in range(20)]
        keys, usd = masses(*sorted({row[0]: row for row in rows}.values()))
        add(one, minute, (keys, usd), tape=taped((round(src / 20.0), 5e3)), opened=5e6)
        one.arm(src)
        most = max(most, *one.active)
    assert 0 < most <= MAX_ZONES_PER_SIDE
    told = one.counters
    assert told["swept"] > 0 and told["expired"] > 0
    assert told["created"] == sum(one.active) + told["swept"] + told["expired"] + told["evicted"]


def test_tiers_of_another_ladder_are_matched_by_name() -> None:
    one = zones()
    add(one, 0, masses((4800, 25, 500_000.0), (4900, 250, 500_000.0)))
    other = make_ladder({"5": 1.0, "25": 1.0, "50": 1.0, "100": 1.0}, [])
    again = Zones(20.0, other)
    assert again.load_file(file_of(one, MINUTE_NS), "BTC", 1) == ["1 zones of the file cannot be and were left out"]
    (zone,) = rows_of(again)
    assert zone.tier_contributions == {"25": pytest.approx(1.0)}


def test_sums_and_a_restored_state() -> None:
    one = zones()
    add(one, 0, masses((4800, 25, 500_000.0), (4900, 50, 500_000.0)), tape=taped((4700, 5000.0)))
    sums = one.sums()
    assert sums["long"]["weight"] == pytest.approx(1.0 + 1.6 + 0.175)
    assert (sums["long"]["25"], sums["long"]["50"], sums["long"]["tape"]) == (
        pytest.approx(1.0),
        pytest.approx(1.6),
        pytest.approx(0.175),
    )
    assert (sums["long"]["tape_usd"], sums["short"]["weight"]) == (5000.0, 0.0)
    assert one.weight == (pytest.approx(2.775), 0.0)
    again = Zones(20.0, LADDER)
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.state_of())))
    for each in (one, again):
        age(each, 3, minutes=3)
        add(each, 3, masses((4801, 50, 1e5), (4600, 75, 1e5)), opened=1e6)
    assert msgspec.msgpack.encode(again.state_of()) == msgspec.msgpack.encode(one.state_of())
    assert rows_of(again) == rows_of(one)
