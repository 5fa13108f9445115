"""Realised liquidations: the vectors of the specification, what is judged against which reference, the record that comes out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.engine.liquidations import VENUES, BadEvent, Event, Realised, price_kind, realise, reference_price, trigger_price
from shm.records import LIQUIDATION_DTYPE, RECORD_SCHEMA, EventFlag, LiquidationFlag, PositionSide, PriceKind, Venue
from tests.engine.events import SECOND, ns

LONG, SHORT = PositionSide.LONG, PositionSide.SHORT


@pytest.mark.parametrize(
    ("venue", "side", "price", "average", "mmr", "trigger", "kind"),
    [
        (Venue.BINANCE, LONG, 26_142.12, 0.0, 0.004, 26_247.11, PriceKind.TRIGGER),
        (Venue.BINANCE, LONG, 26_142.12, 26_245.10, 0.004, 26_245.10, PriceKind.FILL),
        (Venue.BINANCE, LONG, 82_338.30, 0.0, 0.004, 82_668.98, PriceKind.TRIGGER),
        (Venue.BINANCE, LONG, 82_338.30, 82_651.90, 0.004, 82_651.90, PriceKind.FILL),
        (Venue.BINANCE, SHORT, 66_200.0, 0.0, 0.005, 65_870.65, PriceKind.TRIGGER),
        (Venue.BINANCE, SHORT, 66_200.0, 65_900.0, 0.005, 65_900.0, PriceKind.FILL),
        (Venue.BYBIT, LONG, 82_338.30, 0.0, 0.004, 82_668.98, PriceKind.TRIGGER),
        (Venue.BYBIT, SHORT, 66_200.0, 0.0, 0.005, 65_870.65, PriceKind.TRIGGER),
        (Venue.BYBIT, SHORT, 66_200.0, 1.0, 0.005, 65_870.65, PriceKind.TRIGGER),
        (Venue.OKX, LONG, 82_655.7, 0.0, 0.004, 82_655.7, PriceKind.LIQ_MARK),
        (Venue.OKX, SHORT, 82_655.7, 0.0, 0.004, 82_655.7, PriceKind.LIQ_MARK),
    ],
)
def test_vectors(
    venue: Venue, side: PositionSide, price: float, average: float, mmr: float, trigger: float, kind: PriceKind
) -> None:
    assert round(trigger_price(venue, side, price, average, mmr), 2) == trigger
    assert price_kind(venue, average) is kind


def event(
    venue: Venue = Venue.OKX, side: PositionSide = LONG, price: float = 100_000.0, qty: float = 0.5, average: float = 0.0,
    flags: int = 0, venue_ns: int = ns(70),
) -> Event:  # fmt: skip
    return Event(venue, side, flags, venue_ns, ns(70), price, qty, average)


def accept(one: Event, reference: float | None = 100_000.0, now_ns: int = ns(70)) -> Realised:
    found = realise(one, mmr=0.004, reference=reference, now_ns=now_ns)
    assert found is not None
    return found


def test_the_record_of_an_event() -> None:
    found = accept(event(Venue.BYBIT, SHORT, 100_400.0, 0.25, venue_ns=ns(69)))
    record = found.record
    assert record.dtype == LIQUIDATION_DTYPE and record.shape == ()
    row = dict(zip(LIQUIDATION_DTYPE.names or (), record.tolist()))
    trigger = 100_400.0 / 1.004
    assert row == {
        "schema": RECORD_SCHEMA, "venue": Venue.BYBIT, "side": SHORT, "price_kind": PriceKind.TRIGGER, "flags": 0, "zero": 0,
        "venue_ts_ns": ns(69), "recv_ts_ns": ns(70), "price": trigger, "bankruptcy_price": 100_400.0, "qty_base": 0.25,
        "notional_usd": trigger * 0.25,
    }  # fmt: skip
    assert (found.trigger, found.notional_usd, found.flags) == (trigger, trigger * 0.25, LiquidationFlag.NONE)


def test_a_fill_keeps_the_bankruptcy_price_beside_it_and_okx_has_none() -> None:
    fill = accept(event(Venue.BINANCE, LONG, 99_600.0, average=99_990.0)).record
    assert (fill["price"], fill["bankruptcy_price"], fill["price_kind"]) == (99_990.0, 99_600.0, PriceKind.FILL)
    okx = accept(event(Venue.OKX, LONG, 99_990.0)).record
    assert (okx["price"], okx["bankruptcy_price"], okx["price_kind"]) == (99_990.0, 0.0, PriceKind.LIQ_MARK)


def test_an_order_side_that_decided_is_said() -> None:
    assert accept(event(flags=EventFlag.ORDER_SIDE)).record["flags"] == LiquidationFlag.ORDER_SIDE


@pytest.mark.parametrize(("venue_at", "late"), [(60.0, False), (59.999, True), (-400.0, True), (75.0, False)])
def test_late_is_a_venue_time_in_an_earlier_minute_than_engine_time(venue_at: float, late: bool) -> None:
    assert (LiquidationFlag.LATE in accept(event(venue_ns=ns(venue_at))).flags) is late


@pytest.mark.parametrize(
    ("price", "far"), [(102_500.0, False), (97_500.0, False), (102_501.0, True), (97_499.0, True), (115_000.0, True)]
)
def test_far_is_more_than_2_5_percent_from_the_reference(price: float, far: bool) -> None:
    assert (LiquidationFlag.FAR in accept(event(price=price)).flags) is far


@pytest.mark.parametrize("price", [115_001.0, 84_999.0, 1.0, 1e300])
def test_more_than_15_percent_from_the_reference_is_used_nowhere(price: float) -> None:
    assert realise(event(price=price), mmr=0.004, reference=100_000.0, now_ns=ns(70)) is None


def test_without_a_reference_nothing_is_said_against_an_event() -> None:
    assert accept(event(price=5.0), reference=None).flags == LiquidationFlag.NONE


def test_the_trigger_price_is_judged_and_not_the_bankruptcy_price() -> None:
    """A bankruptcy price 2.6 % below the mark is a trigger of 2.2 % below it."""
    assert accept(event(Venue.BINANCE, LONG, 97_400.0)).flags == LiquidationFlag.NONE
    assert accept(event(Venue.BINANCE, LONG, 97_400.0, average=97_400.0)).flags == LiquidationFlag.FAR


def test_the_reference_is_a_mark_of_5_s_or_the_last_rolled_minute() -> None:
    assert reference_price((100.0, ns(0)), 90.0, ns(5)) == 100.0
    assert reference_price((100.0, ns(0)), 90.0, ns(5) + 1) == 90.0
    assert reference_price(None, 90.0, ns(5)) == 90.0
    assert reference_price((100.0, ns(0)), None, ns(6)) is None


@pytest.mark.parametrize(
    "bad",
    [
        {"side": PositionSide.NONE}, {"venue": Venue.NONE}, {"venue": Venue.HYPERLIQUID}, {"venue": Venue.GATE},
        {"price": 0.0}, {"price": -1.0}, {"price": math.nan}, {"price": math.inf}, {"qty": 0.0}, {"qty": math.nan},
        {"qty": math.inf}, {"venue": Venue.BINANCE, "average": math.inf}, {"price": 1e308, "qty": 1e308},
    ],
)  # fmt: skip
def test_what_cannot_be_true_raises(bad: dict[str, object]) -> None:
    with pytest.raises(BadEvent):
        realise(event(**bad), mmr=0.004, reference=None, now_ns=ns(70))  # type: ignore[arg-type]


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.sampled_from(list(Venue)), st.sampled_from(list(PositionSide)), numbers, numbers, numbers,
    st.none() | st.floats(1e-9, 1e12), st.floats(1e-4, 0.5), st.integers(0, 255), st.integers(0, 1 << 62),
)  # fmt: skip
def test_what_is_accepted_is_finite_positive_and_near(
    venue: Venue, side: PositionSide, price: float, qty: float, average: float, reference: float | None, mmr: float, flags: int,
    venue_ns: int,
) -> None:  # fmt: skip
    one = Event(venue, side, flags, venue_ns, 5 * SECOND, price, qty, average)
    try:
        found = realise(one, mmr=mmr, reference=reference, now_ns=5 * SECOND)
    except BadEvent:
        return
    if found is None:
        assert reference is not None
        return
    row = found.record
    values = [float(row[name]) for name in ("price", "qty_base", "notional_usd")]
    assert all(math.isfinite(value) and value > 0 for value in values) and values[2] == values[0] * values[1]
    assert math.isfinite(row["bankruptcy_price"]) and (row["bankruptcy_price"] == 0) == (venue is Venue.OKX)
    assert venue in VENUES and row["side"] in (LONG, SHORT)
    if reference is not None:
        assert abs(values[0] - reference) <= 0.15 * reference


@given(st.sampled_from([Venue.BINANCE, Venue.BYBIT]), st.floats(1e-6, 1e9), st.floats(1e-4, 0.5))
def test_the_trigger_lies_on_the_market_s_side_of_the_bankruptcy_price(venue: Venue, price: float, mmr: float) -> None:
    assert trigger_price(venue, LONG, price, 0.0, mmr) > price > trigger_price(venue, SHORT, price, 0.0, mmr)
