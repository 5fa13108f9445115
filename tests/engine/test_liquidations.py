"""Realised liquidations: the vectors of the specification, what is judged against which reference, the record that comes out."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.config import load
from mpengine.engine.core import CandleOut, SymbolCore
from mpengine.engine.liquidations import (
    VENUES,
    BadEvent,
    Event,
    LiquidationOut,
    Realised,
    price_kind,
    realise,
    reference_price,
    trigger_price,
)
from mpengine.schemas import StatusDocument, decode, encode
from shm.records import (
    LIQUIDATION_DTYPE,
    RECORD_SCHEMA,
    EventFlag,
    Kind,
    LiquidationFlag,
    PositionSide,
    PriceKind,
    Venue,
    pack_event,
)
from tests.engine.events import SECOND, clock, clocks, mark, ns
from tests.engine.test_core import core

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


# in the core -----------------------------------------------------------------------------------------------------------


def liquidated(
    at: float, price: float = 100_000.0, qty: float = 1.0, venue: Venue = Venue.OKX, side: PositionSide = LONG,
    venue_at: float | None = None,
) -> bytes:  # fmt: skip
    return pack_event(Kind.LIQUIDATION, venue, side, 0, ns(at if venue_at is None else venue_at), ns(at), 0, 0, price, qty, 0.0)


def mark_of(at: float, price: float, venue: Venue = Venue.BINANCE) -> bytes:
    return pack_event(Kind.MARK, venue, 0, 0, ns(at), ns(at), 0, 0, price, 0.0, 0.0)


def given_out(core: SymbolCore) -> list[LiquidationOut]:
    return [one for one in core.outputs() if isinstance(one, LiquidationOut)]


def new_core() -> SymbolCore:
    return SymbolCore("BTC", load("", {}))


def test_the_core_gives_each_accepted_event_out_at_once_with_a_running_number() -> None:
    core = new_core()
    core.on_batch(clock(0) + mark_of(0.5, 100_000.0) + liquidated(1, 99_600.0, 2.0, Venue.BYBIT) + liquidated(1, side=SHORT))
    first, second = given_out(core)
    assert [(one.number, one.at_ns) for one in (first, second)] == [(0, ns(1)), (1, ns(1))]
    assert (first.record["venue"], first.record["price"], first.record["notional_usd"]) == (Venue.BYBIT, 100_000.0, 200_000.0)
    assert core.last_liquidation == (1, ns(1)) and core.counters["liquidations"] == 2


def test_the_bar_sums_the_trigger_price_and_no_rejected_event() -> None:
    core = new_core()
    core.on_batch(
        clock(0) + mark_of(0.5, 100_000.0) + liquidated(1, 99_600.0, 2.0, Venue.BYBIT) + liquidated(1, 103_000.0, 1.0, side=SHORT)
        + liquidated(2, 84_000.0, 50.0) + liquidated(3, 99_000.0, 1.0, venue_at=-20) + mark_of(59, 100_000.0) + clock(60)
    )  # fmt: skip
    outputs = core.outputs()
    (bar,) = [one.record for one in outputs if isinstance(one, CandleOut)]
    assert (bar["liq_long_usd"], bar["liq_long_count"]) == (299_000.0, 2)
    assert (bar["liq_short_usd"], bar["liq_short_count"]) == (103_000.0, 1)
    records = [one.record for one in outputs if isinstance(one, LiquidationOut)]
    assert [int(record["flags"]) for record in records] == [0, LiquidationFlag.FAR, LiquidationFlag.LATE]
    names = ("liquidations", "far", "event_rejected", "late", "refused", "errors")
    assert [core.counters[name] for name in names] == [3, 1, 1, 1, 0, 0]


def test_a_rejected_event_is_not_seen_by_the_canaries() -> None:
    core = new_core()
    core.on_batch(clock(0) + mark_of(0.5, 100_000.0))
    core.on_batch(liquidated(1, 200_000.0, venue=Venue.BYBIT) + liquidated(1, 99_600.0, venue=Venue.BYBIT))
    price_side = core.status("live").canaries["bybit"].price_side
    assert price_side is not None and (price_side.events, price_side.bad) == (1, 0)


def test_an_event_that_cannot_be_read_is_refused_and_named() -> None:
    core = new_core()
    core.on_batch(clock(0) + liquidated(1, venue=Venue.HYPERLIQUID) + liquidated(1, side=PositionSide.NONE) + liquidated(1))
    assert (core.counters["refused"], core.counters["errors"], core.counters["liquidations"]) == (2, 0, 1)
    assert {row.where for row in core.status("live").errors} == {"event.liquidation"}
    assert len(given_out(core)) == 1


def test_without_a_prompt_mark_the_last_minute_s_price_judges_also_after_a_restart() -> None:
    core = new_core()
    core.on_batch(clock(0) + mark_of(0.5, 100_000.0) + mark_of(30, 100_400.0) + clock(60) + clock(65))
    restored = new_core()
    restored.restore(core.state_of())
    for one in (core, restored):
        one.outputs()
        one.on_batch(liquidated(66, 102_800.0) + liquidated(66, 102_600.0) + liquidated(66, 116_000.0))
        # src of the minute = (100,000 + 100,400 + 100,000 + 100,400) / 4 = 100,200
        assert [LiquidationFlag.FAR in LiquidationFlag(int(out.record["flags"])) for out in given_out(one)] == [True, False]
        assert one.counters["event_rejected"] == 1


def test_numbers_and_canaries_go_on_from_a_saved_state() -> None:
    def stream(start: int, stop: int) -> bytes:
        return b"".join(
            mark_of(n, 100_000.0 - n) + liquidated(n + 0.5, 99_600.0 - n, venue=(Venue.BINANCE, Venue.BYBIT)[n % 2])
            for n in range(start, stop)
        )

    whole, early, late = new_core(), new_core(), new_core()
    whole.on_batch(clock(0) + stream(1, 300))
    early.on_batch(clock(0) + stream(1, 117))
    late.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(early.state_of())))
    late.on_batch(stream(117, 300))
    assert msgspec.msgpack.encode(late.state_of()) == msgspec.msgpack.encode(whole.state_of())
    both = [(one.number, one.at_ns, one.record.tobytes()) for part in (early, late) for one in given_out(part)]
    assert both == [(one.number, one.at_ns, one.record.tobytes()) for one in given_out(whole)]
    status = late.status("live")
    assert status.canaries["binance"].return_sign.events == 50 and status.cross_canary is not None


def test_what_may_have_been_published_is_counted_in_the_bar_and_not_given_out() -> None:
    core = new_core()
    core.number_liquidations(500, after_ns=ns(10), published_then=2)
    # A process died between the second and the third of a moment.
    at_once = b"".join(liquidated(10, qty=1.0 + n, venue_at=10 + n / 1000) for n in range(3))
    core.on_batch(clock(0) + mark_of(0.5, 100_000.0) + liquidated(9) + at_once + mark_of(59, 100_000.0) + clock(60))
    outputs = core.outputs()
    (bar,) = [one.record for one in outputs if isinstance(one, CandleOut)]
    assert bar["liq_long_count"] == 4
    assert [(one.number, one.at_ns) for one in outputs if isinstance(one, LiquidationOut)] == [(500, ns(10))]


def test_a_clock_that_is_set_back_does_not_silence_the_liquidations() -> None:
    core = new_core()
    core.number_liquidations(7, after_ns=ns(5000), published_then=1)
    core.on_batch(clock(6000) + clocks(10, 20))
    core.on_batch(liquidated(21))
    assert core.counters["clock_set_back"] == 1
    assert [one.number for one in given_out(core)] == [7]


def test_canaries_are_shown_for_the_venues_that_are_on_before_their_first_event() -> None:
    assert list(new_core().status("live").canaries) == ["binance", "bybit", "okx"]
    assert list(SymbolCore("BTC", load("[venues.bybit]\nenabled = false\n", {})).status("live").canaries) == ["binance", "okx"]
    status = new_core().status("live")
    assert decode(encode(status), StatusDocument).canaries == status.canaries
    assert status.canaries["okx"].price_side is None and status.cross_canary is None


@pytest.mark.parametrize("venue", [Venue.BINANCE, Venue.BYBIT, Venue.OKX])
def test_a_venue_with_inverted_sides_is_red_in_the_status_document_within_50_events(venue: Venue) -> None:
    """The market falls; longs die, and the venue's module would call them shorts."""
    core = new_core()
    core.on_batch(clock(0))
    for second in range(1, 111):
        mark = 100_000.0 - 5 * second
        core.on_batch(mark_of(second, mark))
        if second > 60:
            core.on_batch(liquidated(second + 0.3, mark if venue is Venue.OKX else mark * 0.996, venue=venue, side=SHORT))
    status = core.status("live").canaries
    assert status[venue.label].return_sign.alarm and status[venue.label].return_sign.events <= 50
    assert venue is Venue.OKX or ((found := status[venue.label].price_side) is not None and found.alarm)
    assert not any(one.return_sign.alarm for name, one in status.items() if name != venue.label)


def test_marks_of_a_venue_that_does_not_lead_are_no_reference_and_no_return() -> None:
    core = new_core()
    core.on_batch(clock(0) + b"".join(mark_of(n, 100_000.0 + n) + mark_of(n + 0.1, 104_000.0 - n, Venue.BYBIT) for n in range(70)))
    core.on_batch(liquidated(69.5, 100_069.0, side=SHORT))
    (one,) = given_out(core)
    assert one.record["flags"] == LiquidationFlag.NONE
    return_sign = core.status("live").canaries["okx"].return_sign
    assert (return_sign.events, return_sign.bad) == (1, 0)


def okx(at: float, venue_at: float, price: float = 99_500.0, qty: float = 0.676) -> bytes:
    return pack_event(Kind.LIQUIDATION, Venue.OKX, PositionSide.LONG, 0, ns(venue_at), ns(at), 0, 0, price, qty, 0.0)


def test_what_a_venue_replays_to_a_new_ingest_process_counts_once() -> None:
    """The mapper of a process that died knew it; the engine's memory outlives both, and its own restart too."""
    one = core()
    one.on_batch(clock(0) + mark(0.5, 100_000.0) + okx(1, 0.9) + okx(1.1, 0.95) + clock(60))
    again = core()
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(one.state_of())))
    for each in (one, again):
        each.on_batch(okx(61, 0.9) + okx(61, 0.95) + okx(61, 0.95, qty=0.5))
        assert (each.counters["liquidations"], each.counters["liquidations_repeated"]) == (3, 2)
    # Another venue may have two positions of one size at one price at one time.
    twice = pack_event(Kind.LIQUIDATION, Venue.BYBIT, PositionSide.LONG, 0, ns(62), ns(62), 0, 0, 99_500.0, 1.0, 0.0)
    one.on_batch(twice + twice)
    assert (one.counters["liquidations"], one.counters["liquidations_repeated"]) == (5, 2)


def test_repeated_liquidations_are_remembered_for_a_quarter_of_an_hour_of_engine_time() -> None:
    one = core()
    one.on_batch(clock(0) + mark(0.5, 100_000.0) + okx(1, 0.9) + clock(1000) + mark(1000.1, 100_000.0) + okx(1001, 1000.5))
    assert len(one.state_of()["liquidations"]["known"]) == 1
