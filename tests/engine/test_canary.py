"""Direction canaries: a flipped table of sides is red within 50 events, a true one stays green, the unknown says nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest

from mpengine.engine.canary import MARKS, Canaries, CrossCanary, MarkHistory, Window
from mpengine.schemas import Canary, DirectionCanaries
from shm.records import PositionSide, Venue
from tests.engine.events import SECOND, ns

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT
VENUES = (Venue.BINANCE, Venue.BYBIT, Venue.OKX)
MMR = 0.004


def other(side: PositionSide) -> PositionSide:
    return SHORT if side is LONG else LONG


def venue_price(venue: Venue, side: PositionSide, mark: float) -> float:
    """The venue's price field for a position that the mark has just reached."""
    if venue is Venue.OKX:
        return mark
    return mark * (1 - MMR) if side is LONG else mark * (1 + MMR)


def of(canaries: Canaries, venue: Venue) -> DirectionCanaries:
    return canaries.documents()[0][venue.label]


def red(one: DirectionCanaries) -> bool:
    return one.return_sign.alarm or (one.price_side is not None and one.price_side.alarm)


def market(seed: int, seconds: int, minute_move: float = 0.002) -> Iterator[tuple[int, float, int]]:
    """(second, mark, sign of the return of the last 60 s): a trend that turns now and then, one mark per second."""
    rng = random.Random(seed)
    prices, direction = [100_000.0], 1
    for second in range(seconds):
        if second % 300 == 0:
            direction = rng.choice((1, -1))
        prices.append(prices[-1] * (1 + direction * minute_move / 60 + rng.gauss(0, minute_move / 600)))
        before = prices[max(1, second - 59)]
        yield second, prices[-1], (prices[-1] > before) - (prices[-1] < before)


# windows ---------------------------------------------------------------------------------------------------------------


def test_a_window_is_red_before_it_is_full_and_green_again_when_the_bad_ones_have_left() -> None:
    window = Window(50, 10)
    for n in range(10):
        window.add(True)
        assert not window.canary.alarm, n
    window.add(True)
    assert window.canary == Canary(events=11, bad=11, alarm=True)
    for _ in range(39):
        window.add(False)
    assert window.canary == Canary(events=50, bad=11, alarm=True)
    window.add(False)
    assert window.canary == Canary(events=50, bad=10, alarm=False)


@pytest.mark.parametrize(("disagree", "alarm"), [(32, False), (33, True)])
def test_return_sign_is_red_below_35_percent_agreement_of_50(disagree: int, alarm: bool) -> None:
    canaries = Canaries()
    canaries.on_mark(Venue.BINANCE, 100.0, ns(0))
    canaries.on_mark(Venue.BINANCE, 99.0, ns(60))
    for n in range(50):
        canaries.on_event(Venue.OKX, SHORT if n < disagree else LONG, 99.0, ns(60), ns(60))
    assert of(canaries, Venue.OKX) == DirectionCanaries(price_side=None, return_sign=Canary(events=50, bad=disagree, alarm=alarm))


@pytest.mark.parametrize(("wrong", "alarm"), [(10, False), (11, True)])
@pytest.mark.parametrize("venue", [Venue.BINANCE, Venue.BYBIT])
@pytest.mark.parametrize("side", [LONG, SHORT])
def test_price_side_is_red_above_20_percent_of_50(venue: Venue, side: PositionSide, wrong: int, alarm: bool) -> None:
    canaries = Canaries()
    canaries.on_mark(Venue.BINANCE, 100.0, ns(0))
    for n in range(50):
        canaries.on_event(venue, side, venue_price(venue, other(side) if n < wrong else side, 100.0), ns(1), ns(1))
    assert of(canaries, venue).price_side == Canary(events=50, bad=wrong, alarm=alarm)


# flipped and true sides ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("venue", VENUES)
@pytest.mark.parametrize("direction", [-1, 1])
def test_flipped_sides_are_red_within_50_events_and_true_ones_are_not(venue: Venue, direction: int) -> None:
    """A market that falls (longs die) or rises, one event per second; each venue by itself, at its own price field."""
    true, flipped = Canaries(), Canaries()
    price, events = 100_000.0, 0
    for second in range(61 + 50):
        price *= 1 + direction * 0.00005
        for canaries in (true, flipped):
            canaries.on_mark(Venue.BINANCE, price, ns(second))
        if second < 61:
            continue
        events += 1
        side = LONG if direction < 0 else SHORT
        field = venue_price(venue, side, price)
        true.on_event(venue, side, field, ns(second), ns(second + 0.2))
        flipped.on_event(venue, other(side), field, ns(second), ns(second + 0.2))
        assert not red(of(true, venue)), events
    assert events == 50 and red(of(flipped, venue))
    assert of(flipped, venue).return_sign.alarm
    if venue is not Venue.OKX:
        price_side = of(flipped, venue).price_side
        assert price_side is not None and price_side == Canary(events=50, bad=50, alarm=True)


@pytest.mark.parametrize("seed", range(10))
def test_true_sides_stay_green_over_5000_events_at_the_measured_base_rate(seed: int) -> None:
    """70 % of the events fall on the side of the minute; p lies 0.2 to 0.6 % beyond the mark, and 2 % print on its wrong side."""
    rng = random.Random(1000 + seed)
    canaries, events = Canaries(VENUES), 0
    for second, price, direction in market(seed, 2000):
        canaries.on_mark(Venue.BINANCE, price, ns(second))
        if second < 70:
            continue
        for venue in VENUES:
            side = LONG if direction < 0 else SHORT
            side = side if rng.random() < 0.7 else other(side)
            beyond = rng.uniform(0.002, 0.006) * (1 if rng.random() > 0.02 else -1)
            field = price if venue is Venue.OKX else price * (1 - beyond if side is LONG else 1 + beyond)
            canaries.on_event(venue, side, field, ns(second), ns(second + rng.uniform(0, 1.5)))
            events += 1
            assert not red(of(canaries, venue)), (venue, events)
        cross = canaries.documents()[1]
        assert cross is None or not cross.alarm
    assert events >= 5000
    assert all(of(canaries, venue).return_sign.events == 50 for venue in VENUES)


@pytest.mark.parametrize("venue", VENUES)
def test_flipped_sides_are_red_at_the_measured_base_rate_too(venue: Venue) -> None:
    for seed in range(5):
        rng = random.Random(seed)
        canaries, first_red, events = Canaries(), None, 0
        for second, price, direction in market(seed, 600):
            canaries.on_mark(Venue.BINANCE, price, ns(second))
            if second < 70 or first_red is not None:
                continue
            side = LONG if direction < 0 else SHORT
            side = side if rng.random() < 0.7 else other(side)
            events += 1
            canaries.on_event(venue, other(side), venue_price(venue, side, price), ns(second), ns(second))
            if red(of(canaries, venue)):
                first_red = events
        assert first_red is not None and first_red <= (150 if venue is Venue.OKX else 11)


# what is not known -----------------------------------------------------------------------------------------------------


def test_without_a_mark_of_5_s_an_event_says_nothing() -> None:
    canaries = Canaries()
    canaries.on_event(Venue.BINANCE, LONG, 1e9, ns(0), ns(0))
    canaries.on_mark(Venue.BINANCE, 100.0, ns(1))
    canaries.on_event(Venue.BINANCE, LONG, 1e9, ns(6.1), ns(6.1))
    assert of(canaries, Venue.BINANCE) == DirectionCanaries(
        price_side=Canary(events=0, bad=0, alarm=False), return_sign=Canary(events=0, bad=0, alarm=False)
    )


def test_an_unknown_or_zero_return_is_not_counted() -> None:
    canaries = Canaries()
    canaries.on_mark(Venue.BINANCE, 100.0, ns(0))
    canaries.on_event(Venue.OKX, LONG, 100.0, ns(1), ns(1))  # nothing is known of the minute before
    canaries.on_mark(Venue.BINANCE, 100.0, ns(60))
    canaries.on_event(Venue.OKX, LONG, 100.0, ns(60), ns(60))
    assert of(canaries, Venue.OKX).return_sign.events == 0
    canaries.on_mark(Venue.BINANCE, 99.0, ns(60.5))
    canaries.on_event(Venue.OKX, LONG, 100.0, ns(60.6), ns(60.6))
    assert of(canaries, Venue.OKX).return_sign == Canary(events=1, bad=0, alarm=False)


def test_an_event_more_than_60_s_late_says_nothing_and_a_later_one_is_judged_at_its_own_time() -> None:
    canaries = Canaries((Venue.OKX,))
    for second in range(131):
        # Falls for 70 s, then rises above everything before.
        canaries.on_mark(Venue.BINANCE, 100_000.0 - second if second <= 70 else 100_000.0 + second, ns(second))
    canaries.on_event(Venue.OKX, LONG, 99_930.0, ns(69.9), ns(130))
    assert of(canaries, Venue.OKX).return_sign.events == 0
    canaries.on_event(Venue.OKX, LONG, 99_930.0, ns(70.2), ns(130))
    assert of(canaries, Venue.OKX).return_sign == Canary(events=1, bad=0, alarm=False)
    canaries.on_event(Venue.OKX, LONG, 99_930.0, ns(130), ns(130))
    assert of(canaries, Venue.OKX).return_sign == Canary(events=2, bad=1, alarm=False)


def test_a_venue_time_ahead_of_the_engine_is_taken_as_now() -> None:
    canaries = Canaries()
    canaries.on_mark(Venue.BINANCE, 100.0, ns(0))
    canaries.on_mark(Venue.BINANCE, 99.0, ns(60))
    canaries.on_event(Venue.OKX, LONG, 99.0, ns(4000), ns(60))
    assert of(canaries, Venue.OKX).return_sign == Canary(events=1, bad=0, alarm=False)


def test_the_history_of_marks_is_bounded_one_per_second_and_of_one_venue() -> None:
    history = MarkHistory()
    for n in range(20_000):
        history.on_mark(Venue.BINANCE, 100.0 + n, ns(n / 4))
    assert len(history) == MARKS
    last = ns(19_999 / 4)
    assert history.at(last) == 20_099.0 and history.at(last - 60 * SECOND) is not None
    assert history.at(last - 60 * SECOND) == pytest.approx(20_099.0 - 240, abs=4)
    assert history.at(last - 200 * SECOND) is None
    assert history.at(last + 5 * SECOND) is not None and history.at(last + 5 * SECOND + 1) is None
    history.on_mark(Venue.BYBIT, 50.0, last + SECOND)
    assert len(history) == 1  # its offset to the other venue's is no return


# venues against each other ---------------------------------------------------------------------------------------------


def minutes(cross: CrossCanary, first: int, count: int, sides: dict[Venue, list[PositionSide]]) -> None:
    for minute in range(first, first + count):
        cross.on_time(ns(60 * minute))
        for venue, events in sides.items():
            for side in events:
                cross.on_event(venue, side)
    cross.on_time(ns(60 * (first + count)))


def test_venues_whose_dominant_sides_differ_in_more_than_65_percent_of_40_minutes_are_red() -> None:
    cross = CrossCanary()
    assert cross.canary is None
    minutes(cross, 0, 14, {Venue.BINANCE: [LONG] * 5, Venue.BYBIT: [LONG] * 4 + [SHORT] * 2})
    minutes(cross, 14, 26, {Venue.BINANCE: [LONG] * 5, Venue.BYBIT: [SHORT] * 5})
    assert cross.canary == Canary(events=40, bad=26, alarm=False)
    minutes(cross, 40, 1, {Venue.BINANCE: [SHORT] * 5, Venue.BYBIT: [LONG] * 5})
    assert cross.canary == Canary(events=40, bad=27, alarm=True)


def test_minutes_with_fewer_than_5_events_or_no_dominant_side_are_not_compared() -> None:
    cross = CrossCanary()
    minutes(cross, 0, 5, {Venue.BINANCE: [LONG] * 4, Venue.BYBIT: [SHORT] * 9})
    minutes(cross, 5, 5, {Venue.BINANCE: [LONG] * 3 + [SHORT] * 3, Venue.BYBIT: [SHORT] * 9})
    minutes(cross, 10, 5, {Venue.BYBIT: [SHORT] * 9})
    assert cross.canary is None


def test_two_venues_that_agree_do_not_hide_the_third() -> None:
    cross = CrossCanary()
    minutes(cross, 0, 40, {Venue.BINANCE: [LONG] * 5, Venue.BYBIT: [LONG] * 5, Venue.OKX: [SHORT] * 5})
    assert cross.canary == Canary(events=40, bad=40, alarm=True)


def test_marks_end_a_minute_and_late_events_are_no_part_of_it() -> None:
    canaries = Canaries()
    for venue in (Venue.BINANCE, Venue.BYBIT):
        for _ in range(5):
            canaries.on_event(venue, LONG, 99.0, ns(30), ns(30))
    for _ in range(9):
        canaries.on_event(Venue.BINANCE, SHORT, 99.0, ns(-31), ns(30))
    assert canaries.documents()[1] is None
    canaries.on_mark(Venue.BINANCE, 100.0, ns(60))
    assert canaries.documents()[1] == Canary(events=1, bad=0, alarm=False)


# state -----------------------------------------------------------------------------------------------------------------


def test_restored_canaries_go_on_as_if_never_stopped() -> None:
    rng = random.Random(5)
    stream = []
    for second, price, _ in market(5, 400):
        stream.append((second, price, [(rng.choice(VENUES), rng.choice((LONG, SHORT))) for _ in range(rng.randrange(12))]))

    def feed(canaries: Canaries, part: list[tuple[int, float, list[tuple[Venue, PositionSide]]]]) -> None:
        for second, price, events in part:
            canaries.on_mark(Venue.BINANCE, price, ns(second))
            for venue, side in events:
                canaries.on_event(venue, side, venue_price(venue, side, price), ns(second - 1), ns(second))

    whole, early, late = Canaries(VENUES), Canaries(VENUES), Canaries(VENUES)
    feed(whole, stream)
    feed(early, stream[:217])
    late.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(early.state_of())))
    assert late.state_of() == early.state_of()
    feed(late, stream[217:])
    assert late.state_of() == whole.state_of() and late.documents() == whole.documents()
    cross = whole.documents()[1]
    assert cross is not None and cross.events and of(whole, Venue.BYBIT).return_sign.events == 50


def test_a_clock_set_back_forgets_the_marks_and_keeps_the_verdicts() -> None:
    canaries = Canaries()
    canaries.on_mark(Venue.BINANCE, 100.0, ns(1000))
    canaries.on_event(Venue.BINANCE, LONG, 101.0, ns(1000), ns(1000))
    canaries.on_event(Venue.BINANCE, LONG, 101.0, ns(0), ns(0))  # no mark of this time is known yet
    canaries.on_mark(Venue.BINANCE, 100.0, ns(0))
    canaries.on_event(Venue.BINANCE, LONG, 99.0, ns(0), ns(0))
    assert of(canaries, Venue.BINANCE).price_side == Canary(events=2, bad=1, alarm=False)
