"""The core with every venue: open interest of several, trades of several, what a lost feed flags, a tick that changes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mpengine.config import load
from mpengine.engine.core import CandleOut, DocumentOut, SymbolCore
from mpengine.schemas import OiDocument, decode
from shm.records import CandleField, CandleFlag, Coverage, DocumentId, EventFlag, GapScope, RatioKind, TakerSide, Venue
from tests.engine.events import (
    SECOND,
    clock,
    clocks,
    depth,
    gap,
    instrument,
    mark,
    ns,
    open_interest,
    ratio,
    snapshot,
    trade,
)
from tests.engine.test_core import frames

POLLED = (Venue.BINANCE, Venue.BYBIT, Venue.OKX)
START = {Venue.BINANCE: 88_000.0, Venue.BYBIT: 50_000.0, Venue.OKX: 30_000.0}
GROWTH = {Venue.BINANCE: 4.0, Venue.BYBIT: 3.0, Venue.OKX: 2.0}
"""Base units per minute."""


def core(*overrides: str) -> SymbolCore:
    return SymbolCore("BTC", load("[symbols.BTC]\n", {}, ["venues.bybit.order_book=true", *overrides]))


def polls(start: int, stop: int, venues: tuple[Venue, ...] = POLLED) -> bytes:
    """Seconds `start` to before `stop`: a mark each, and every 15 s a value of each venue, which grows by the same each minute."""
    out = []
    for second in range(start, stop):
        out.append(mark(second, 100_000.0))
        if second % 15 == 5:
            out += [open_interest(second, START[venue] + GROWTH[venue] * (second // 15) / 4, venue) for venue in venues]
    return b"".join(out)


def interest(outputs: list[Any]) -> list[OiDocument]:
    found = [one.data for one in outputs if isinstance(one, DocumentOut) and one.document is DocumentId.OI]
    return [decode(data, OiDocument) for data in found]


def bars(outputs: list[Any]) -> list[Any]:
    return [one.record[()] for one in outputs if isinstance(one, CandleOut)]


# open interest -----------------------------------------------------------------------------------------------------------


@pytest.mark.covers("A1-M15")
def test_one_venue_gone_for_ten_minutes_makes_no_step_and_its_return_no_inflow() -> None:
    one = core()
    others = (Venue.BINANCE, Venue.OKX)
    one.on_batch(polls(0, 300))
    one.on_batch(polls(300, 900, others))
    one.on_batch(polls(900, 1201))
    outputs = one.outputs()
    minutes = bars(outputs)
    deltas = [float(bar["oi_delta_base"]) for bar in minutes[1:]]
    assert len(deltas) == 19 and all(bar["present"] & CandleField.OI_DELTA for bar in minutes[1:])
    # With all three it is 9 a minute, without Bybit's 3 it is 6, and its return (minute 15) is not yet a change.
    assert deltas == [9.0] * 4 + [6.0] * 11 + [9.0] * 4
    assert [bool(bar["present"] & CandleField.OI_BYBIT) for bar in minutes] == [True] * 5 + [False] * 10 + [True] * 5
    # Its last value counts for 60 s and then leaves the sum; value and time stay to be seen.
    last_value_ns = ns(290)
    for document in (one for one in interest(outputs) if ns(305) <= one.written_ns < ns(905)):
        values = {name: value.base for name, value in document.venues.items()}
        assert document.venues["bybit"].recv_ns == last_value_ns
        if document.written_ns > last_value_ns + 60 * SECOND:
            del values["bybit"]
        assert document.total_base == sum(values.values())


@pytest.mark.covers("A1-M15")
def test_when_all_venues_fail_nothing_is_published_and_the_last_values_keep_their_age() -> None:
    one = core()
    one.on_batch(polls(0, 180))
    last = interest(one.outputs())[-1]
    one.on_batch(polls(180, 600, ()))
    outputs = one.outputs()
    assert interest(outputs) == []
    for bar in bars(outputs)[1:]:
        assert not bar["present"] & (CandleField.OI | CandleField.OI_DELTA), "missing, not zero"
    assert one.status("live").open_interest_base is None
    one.on_batch(polls(600, 725))
    outputs = one.outputs()
    first = interest(outputs)[0]
    assert first.written_ns == ns(605) and last.written_ns == ns(170)
    assert first.venues["okx"] == last.venues["okx"], "Binance came back first: OKX has its old value and time"
    assert first.total_base == first.venues["binance"].base
    _, back, after = bars(outputs)
    assert not back["present"] & CandleField.OI_DELTA, "a change of ten minutes is no change of one"
    assert after["oi_delta_base"] == 9.0


@pytest.mark.covers("A1-M19")
def test_a_value_that_a_venue_pushes_is_shown_and_never_counted() -> None:
    one, other = core(), core()
    for core_, pushed in ((one, True), (other, False)):
        core_.on_batch(polls(0, 60))
        if pushed:
            core_.on_batch(open_interest(60.5, 99_999.0, Venue.BYBIT, EventFlag.DISPLAY))
            core_.on_batch(open_interest(60.6, 7.0, Venue.HYPERLIQUID, EventFlag.DISPLAY))
        core_.on_batch(polls(61, 181))
    with_pushed, without = one.outputs(), other.outputs()
    assert [bar.tobytes() for bar in bars(with_pushed)] == [bar.tobytes() for bar in bars(without)]
    shown, plain = interest(with_pushed)[-1], interest(without)[-1]
    assert (shown.total_base, shown.venues) == (plain.total_base, plain.venues)
    assert {name: value.base for name, value in shown.display.items()} == {"bybit": 99_999.0, "hyperliquid": 7.0}
    assert len(interest(with_pushed)) == len(interest(without)), "a pushed value publishes nothing by itself"
    assert one.counters["open_interest_shown"] == 2


def test_open_interest_in_usd_needs_a_mark_of_the_last_minute() -> None:
    one = core()
    one.on_batch(mark(1, 100_000.0) + open_interest(61, 5.0))
    one.on_batch(open_interest(61.5, 5.1))
    assert [document.mark for document in interest(one.outputs())] == [100_000.0, None]
    assert one.status("live").mark == 100_000.0, "shown with its age"


# trades, gaps, ratios ------------------------------------------------------------------------------------------------------


def test_trades_of_every_venue_count_for_the_minute() -> None:
    one = core()
    one.on_batch(mark(1, 100.0) + trade(2, TakerSide.BUY, 100.0, 1.0) + trade(3, TakerSide.BUY, 101.0, 2.0, venue=Venue.BYBIT))
    one.on_batch(
        trade(4, TakerSide.SELL, 99.0, 3.0, venue=Venue.OKX) + trade(5, TakerSide.SELL, 98.0, 1.0, venue=Venue.HYPERLIQUID)
    )
    one.on_batch(mark(61, 100.0) + trade(62, TakerSide.BUY, 100.0, 1.0, venue=Venue.OKX) + clock(120))
    first, second = bars(one.outputs())
    assert (first["buy_usd"], first["buy_count"], first["sell_usd"], first["sell_count"]) == (302.0, 2, 395.0, 2)
    assert first["venues"] == Venue.BINANCE.bit | Venue.BYBIT.bit | Venue.OKX.bit | Venue.HYPERLIQUID.bit
    assert second["venues"] == Venue.OKX.bit


@pytest.mark.parametrize("scope", [GapScope.LIQUIDATIONS, GapScope.TRADES])
def test_lost_trades_or_liquidations_flag_the_minute_alone(scope: GapScope) -> None:
    one = core()
    one.on_batch(clock(0) + snapshot(0.5, 10, [(99_990.0, 1.0)], [(100_010.0, 1.0)], Venue.BYBIT))
    one.on_batch(gap(1, scope, Venue.BYBIT) + clocks(1.25, 29.75) + depth(29.8, 11, 11, 10, [], [], venue=Venue.BYBIT) + clock(60))
    outputs = one.outputs()
    assert one.books[Venue.BYBIT].state == "synced"
    assert not frames(outputs)[0].coverage & Coverage.GAP
    assert bars(outputs)[0]["flags"] == CandleFlag.GAP


def test_the_newest_ratio_of_each_kind_is_kept() -> None:
    one = core()
    one.on_batch(ratio(1, RatioKind.GLOBAL_ACCOUNTS, 1.5) + ratio(1, RatioKind.TOP_POSITIONS, 0.8))
    one.on_batch(ratio(61, RatioKind.GLOBAL_ACCOUNTS, 1.6) + ratio(62, RatioKind.GLOBAL_ACCOUNTS, float("nan")) + clock(700))
    found = one.status("live").ratios
    assert {name: (value.value, value.venue_ns) for name, value in found.items()} == {
        "global_accounts": (1.6, ns(61)), "top_positions": (0.8, ns(1)),
    }  # fmt: skip


# books ---------------------------------------------------------------------------------------------------------------------


def test_a_finer_tick_flags_the_minute_and_the_slot_and_says_so_at_once() -> None:
    one = core()
    one.on_batch(clock(0) + snapshot(0.5, 10, [(99_990.0, 1.0)], [(100_010.0, 1.0)], Venue.BYBIT) + clocks(1, 10))
    one.outputs()
    one.on_batch(instrument(10.1, Venue.BYBIT, 0.01))
    assert one.books[Venue.BYBIT].state == "unsynced"
    (document,) = [out for out in one.outputs() if isinstance(out, DocumentOut)]
    assert document.document is DocumentId.BOOK
    assert msgspec.json.decode(document.data)["books"]["bybit"]["state"] == "unsynced"
    one.on_batch(snapshot(10.6, 20, [(99_990.01, 1.0)], [(100_010.02, 1.0)], Venue.BYBIT) + clocks(11, 60))
    outputs = one.outputs()
    assert [bool(frame.coverage & Coverage.GAP) for frame in frames(outputs)] == [True, False]
    assert bars(outputs)[0]["flags"] == CandleFlag.GAP
    assert one.status("live").mid == pytest.approx(100_000.015)


def test_books_of_venues_that_are_on_and_know_the_symbol() -> None:
    on = ["venues.okx.order_book=true", "venues.hyperliquid.enabled=true", "venues.hyperliquid.order_book=true"]
    assert list(core(*on).books) == [Venue.BINANCE, Venue.BYBIT, Venue.OKX, Venue.HYPERLIQUID]
    assert [book.gap_tolerance for book in core(*on).books.values()] == [1000, 0, 0, 0]
    assert list(core(*on, "venues.bybit.enabled=false").books) == [Venue.BINANCE, Venue.OKX, Venue.HYPERLIQUID]
    assert list(core(*on, "venues.binance.order_book=false").books) == [Venue.BYBIT, Venue.OKX, Venue.HYPERLIQUID]
    assert list(core(*on, "symbols.BTC.has_orderbook=false").books) == []
    assert list(core().books) == [Venue.BINANCE, Venue.BYBIT]


def test_a_state_of_other_venues_is_refused() -> None:
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(core().state_of()))
    with pytest.raises(ValueError, match="other venues"):
        core("venues.okx.order_book=true").restore(state)
