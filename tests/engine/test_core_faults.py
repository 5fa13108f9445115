"""What must not spoil an engine: wrong clocks, holes in the feed, failing steps, minutes that were only half seen."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mpengine.engine.candles import MinuteBar
from mpengine.engine.core import ClockOut
from shm.records import CandleField, CandleFlag, Coverage, GapScope, Kind, TakerSide, Venue, pack_event, pack_gap
from tests.engine.events import SECOND, T0, clock, clocks, depth, mark, ns, open_interest, snapshot, trade
from tests.engine.test_core import ASKS, BIDS, bars, book_start, chain, core, frames

YEAR = 365 * 86_400


# the wall clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.covers("F16")
@pytest.mark.parametrize("ahead", [3600, 80 * YEAR])
def test_one_record_of_the_far_future_does_not_stop_the_engine(ahead: float) -> None:
    one = core()
    one.on_batch(book_start() + open_interest(0.5, 88_000.0) + mark(0.5, 100_000.0, 0.0001) + clocks(0.5, 20) + clock(20 + ahead))
    one.outputs()
    one.on_batch(clocks(20.25, 40))
    assert one.now_ns == ns(40) and one.counters["clock_set_back"] == 1
    one.on_batch(snapshot(40.1, 200, BIDS, ASKS) + depth(40.2, 199, 201, 198, [], []) + chain(41, 121, first=201))
    outputs = one.outputs()
    (begun,) = [out for out in outputs if isinstance(out, ClockOut)]
    assert begun.now_ns == ns(25.25)  # 5 s of records behind the clock that runs wrong
    assert [(frame.open_ts_ns - T0) // SECOND for frame in frames(outputs)] == [30, 60, 90]
    assert Coverage.STALE_SOURCE in frames(outputs)[0].coverage and frames(outputs)[1].samples == 30
    minute, second = bars(outputs)
    assert (minute["open_ts_ns"], minute["flags"] & CandleFlag.GAP) == (T0, CandleFlag.GAP)
    assert (second["open_ts_ns"], second["minutes"], second["flags"]) == (T0 + 60 * SECOND, 1, CandleFlag.NONE)
    # What was read before the clock was set back has no age that can be told.
    assert not CandleField(int(minute["present"])) & (CandleField.OI | CandleField.FUNDING)


@pytest.mark.covers("F16")
def test_a_step_back_of_less_than_a_minute_holds_time_still() -> None:
    one = core()
    one.on_batch(book_start() + clocks(0, 60) + clocks(1, 59.75))
    assert one.now_ns == ns(60) and one.counters["clock_set_back"] == 0
    one.on_batch(chain(60, 61) + clocks(60.25, 90))
    assert one.now_ns == ns(90)


def test_late_records_between_current_ones_do_not_set_the_clock_back() -> None:
    one = core()
    one.on_batch(book_start() + clocks(0, 200))
    for n in range(100):
        one.on_batch(clock(n) + clock(200 + n / 10) + clock(200))
    assert one.counters["clock_set_back"] == 0 and one.now_ns == ns(209.9)


def test_a_clock_that_is_being_set_back_survives_a_checkpoint() -> None:
    early, whole = core(), core()
    stream = book_start() + clock(10_000) + clocks(1, 4)
    early.on_batch(stream)
    whole.on_batch(stream)
    late = core()
    late.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(early.state_of())))
    for one in (late, whole):
        one.on_batch(clocks(4.25, 40))
        assert one.now_ns == ns(40)
    assert msgspec.msgpack.encode(late.state_of()) == msgspec.msgpack.encode(whole.state_of())


# holes -----------------------------------------------------------------------------------------------------------------


def test_a_broken_chain_flags_the_minute_and_the_slot() -> None:
    one = core()
    one.on_batch(book_start() + clocks(0, 10))
    one.on_batch(depth(10.1, 9000, 9001, 8999, [], []) + snapshot(10.2, 9000, BIDS, ASKS))
    one.on_batch(depth(10.3, 9002, 9003, 9001, [], []) + clocks(11, 60))
    outputs = one.outputs()
    first, second = frames(outputs)
    assert Coverage.GAP in first.coverage and first.samples == 30
    assert Coverage.GAP not in second.coverage
    assert bars(outputs)[0]["flags"] == CandleFlag.GAP


def test_an_unreadable_diff_flags_the_slot_and_says_so_at_once() -> None:
    one = core()
    one.on_batch(book_start() + clocks(0, 10))
    one.outputs()
    one.on_batch(depth(10.1, 106, 110, 105, [(99_000.0, -1.0)], []))
    assert one.books[Venue.BINANCE].state == "unsynced"
    assert [type(out).__name__ for out in one.outputs()] == ["DocumentOut"]  # the BOOK document, not 20 s later
    one.on_batch(clocks(11, 30))
    (frame,) = frames(one.outputs())
    assert Coverage.GAP in frame.coverage


def test_slots_after_a_tolerated_gap_are_flagged_until_the_refresh() -> None:
    one = core()
    one.on_batch(book_start() + clocks(0, 31) + depth(31.1, 116, 120, 115, [], []) + clocks(31.25, 61))
    one.on_batch(chain(61.1, 62, 0.1, 120) + snapshot(62.1, 125, BIDS, ASKS) + clocks(62.25, 100) + chain(100.5, 102, 1, 129))
    one.on_batch(clocks(102.25, 120))
    flags = [Coverage.GAP in frame.coverage for frame in frames(one.outputs())]
    assert flags == [False, True, True, False]
    assert one.books[Venue.BINANCE].counters["gaps_tolerated"] == 1


def test_a_gap_without_a_venue_is_a_gap_of_every_book() -> None:
    one = core()
    one.on_batch(book_start() + pack_gap(Venue.NONE, GapScope.ALL, 0))
    assert one.books[Venue.BINANCE].state == "unsynced"
    other = core()
    other.on_batch(book_start() + pack_gap(Venue.BYBIT, GapScope.ALL, ns(1)))
    assert other.books[Venue.BINANCE].state == "synced"


def test_what_cannot_be_read_behind_a_malformed_record_is_a_gap() -> None:
    one = core()
    one.on_batch(book_start() + depth(2, 106, 107, 105, [(99.0, 1.0)] * 9, [])[:-64])
    assert (one.counters["malformed"], one.counters["gaps"], one.books[Venue.BINANCE].state) == (1, 1, "unsynced")


# minutes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("begin", "flags"), [(0.0, CandleFlag.NONE), (0.9, CandleFlag.NONE), (40.0, CandleFlag.GAP)])
def test_a_minute_that_was_only_half_seen_says_so(begin: float, flags: CandleFlag) -> None:
    one = core()
    one.on_batch(book_start(begin) + clocks(begin, 60) + chain(60.1, 119) + clocks(119, 120))
    first, second = bars(one.outputs())
    assert (first["flags"], second["flags"]) == (flags, CandleFlag.NONE)


def test_a_bar_that_cannot_be_made_does_not_run_on_into_the_next_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    one = core()
    one.on_batch(book_start() + trade(5, TakerSide.BUY, 100_000.0, 1.0))
    close_at = MinuteBar.close_at

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError("boom")

    monkeypatch.setattr(MinuteBar, "close_at", broken)
    one.on_batch(clock(60))
    monkeypatch.setattr(MinuteBar, "close_at", close_at)
    one.on_batch(chain(60.5, 119) + clock(120))
    (bar,) = bars(one.outputs())
    assert (bar["open_ts_ns"], bar["buy_usd"]) == (T0 + 60 * SECOND, 0.0)
    assert one.missing[0] == 1


def test_values_older_than_a_minute_are_not_of_the_bar() -> None:
    one = core()
    one.on_batch(book_start() + mark(30, 100_000.0, 0.0001) + mark(40, 100_000.0) + chain(0.5, 91) + clocks(91, 180))
    first, second = bars(one.outputs())
    assert CandleField(int(first["present"])) == CandleField.MARK | CandleField.FUNDING
    assert CandleField(int(second["present"])) == CandleField.NONE
    assert (first["mark"], second["mark"], second["funding_rate"]) == (100_000.0, 0.0, 0.0)


def test_a_bar_names_the_venues_of_its_trades() -> None:
    one = core()
    okx = pack_event(Kind.TRADE, Venue.OKX, TakerSide.SELL, 0, ns(2), ns(2), 1, 0, 100.0, 1.0)
    one.on_batch(mark(1, 100.0) + trade(1, TakerSide.BUY, 100.0, 1.0) + okx + clock(60) + mark(61, 100.0) + clock(120))
    assert [bar["venues"] for bar in bars(one.outputs())] == [Venue.BINANCE.bit | Venue.OKX.bit, 0]


def test_frames_are_recovered_for_an_hour() -> None:
    one = core()
    one.on_batch(book_start() + chain(1, 3661) + clocks(3661, 3661))
    found = frames(one.outputs())
    assert [Coverage.RECOVERED in frame.coverage for frame in found] == [frame.close_ts_ns < T0 + 3600 * SECOND for frame in found]
    assert len(found) == 122


def test_the_norms_of_a_frame_are_linear_percentiles_of_its_positive_cells() -> None:
    one = core()
    bids = [(99_980.0 - 20 * n, 1.0 + n) for n in range(30)]
    one.on_batch(clock(0) + snapshot(0, 100, bids, [(100_020.0, 50.0)]) + depth(0, 95, 105, 94, [], []) + clocks(0, 30))
    (frame,) = frames(one.outputs())
    cells = sorted([price * qty for price, qty in bids] + [100_020.0 * 50.0])
    assert frame.norm_a == pytest.approx(cells[15])
    assert frame.norm_b == pytest.approx((cells[28] + cells[29]) / 2)  # 0.95 * 30 = 28.5


def test_a_tick_size_of_the_venue_reaches_the_book() -> None:
    one = core()
    tick = pack_event(Kind.INSTRUMENT, Venue.BINANCE, 0, 0, ns(1), ns(1), 0, 0, 0.5, 1.0)
    one.on_batch(book_start() + tick)
    assert one.status("live").tick == 0.5 and one.books[Venue.BINANCE].mid == 100_000.0


def test_missing_minutes_and_slots_are_told() -> None:
    one = core()
    one.on_batch(clocks(0, 120))
    assert one.missing == (2, 4)


@pytest.mark.covers("A1-M15")
def test_a_venue_that_was_away_at_the_last_rollover_makes_no_delta() -> None:
    one = core()
    body = b""
    for minute, okx in enumerate((30_000.0, None, 33_000.0, 33_030.0)):
        at = minute * 60 + 50
        body += mark(at, 100.0) + open_interest(at, 88_000.0 + minute)
        if okx is not None:
            body += open_interest(at, okx, Venue.OKX)
        body += clock(minute * 60 + 60)
    one.on_batch(body)
    found = bars(one.outputs())
    assert [bar["oi_base"] for bar in found] == [118_000.0, 88_001.0, 121_002.0, 121_033.0]
    assert [bar["oi_delta_base"] for bar in found[1:]] == [1.0, 1.0, 31.0]


def test_books_of_other_settings_do_not_come_back() -> None:
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(core().state_of()))
    with pytest.raises(ValueError, match="other venues"):
        core("[symbols.BTC]\nhas_orderbook = false\n").restore(state)
