"""The core: time, minutes, frames, isolation of failures, determinism, and going on from a saved state."""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.config import Settings, load
from mpengine.engine.core import CandleOut, DocumentOut, FrameOut, Output, SymbolCore
from mpengine.engine.liquidation_maps import MapOut
from mpengine.engine.liquidations import LiquidationOut
from mpengine.schemas import BookDocument, StatusDocument, decode
from shm.frames import Frame, encode
from shm.records import (
    CandleField,
    CandleFlag,
    Coverage,
    DocumentId,
    GapScope,
    Kind,
    PositionSide,
    TakerSide,
    Venue,
    pack_event,
    units_of,
)
from tests.engine.events import (
    SECOND,
    T0,
    Levels,
    clock,
    clocks,
    depth,
    gap,
    liquidation,
    mark,
    ns,
    open_interest,
    snapshot,
    trade,
)

BIDS: Levels = [(99_990.0, 1.0), (99_980.0, 2.0)]
ASKS: Levels = [(100_010.0, 1.0), (100_020.0, 2.0)]


def core(text: str = "", symbol: str = "BTC") -> SymbolCore:
    return SymbolCore(symbol, load(text, {}))


def book_start(at: float = 0.0) -> bytes:
    return clock(at) + snapshot(at, 100, BIDS, ASKS) + depth(at, 95, 105, 94, [(99_970.0, 1.0)], [])


def frames(outputs: list[Output]) -> list[Frame]:
    return [one.frame for one in outputs if isinstance(one, FrameOut)]


def bars(outputs: list[Output]) -> list[np.void]:
    return [one.record[()] for one in outputs if isinstance(one, CandleOut)]


def chain(start: float, stop: float, step: float = 1.0, first: int = 105) -> bytes:
    """Empty diffs that keep a book alive."""
    count = round((stop - start) / step)
    return b"".join(depth(start + i * step, first + i + 1, first + i + 1, first + i, [], []) for i in range(count))


# time and frames -------------------------------------------------------------------------------------------------------


def test_a_depth_frame_is_the_time_average_of_30_samples() -> None:
    one = core()
    one.on_batch(book_start() + clocks(0, 10))
    one.on_batch(depth(10.1, 106, 110, 105, [(99_990.0, 3.0)], []) + clocks(10.25, 30))
    (frame,) = frames(one.outputs())
    assert (frame.open_ts_ns, frame.close_ts_ns, frame.samples) == (T0, T0 + 30 * SECOND, 30)
    at = 100_000 // 20 - frame.origin
    # 10 samples with 1.0, 20 with 3.0 at 99,990 (bucket 5000, half to even: 4999.5 -> 5000).
    assert frame.planes[0, at] == pytest.approx(99_990 * (10 * 1.0 + 20 * 3.0) / 30)
    assert frame.planes[0, at - 1] == pytest.approx(99_980 * 2.0)
    assert (frame.reference, frame.step, frame.count) == (100_000.0, 20.0, 1001)
    assert frame.total_a == pytest.approx(frame.planes[0].sum()) and frame.venues == Venue.BINANCE.bit
    assert frame.norm_a == pytest.approx(np.percentile(frame.planes[frame.planes > 0], 50))
    assert Coverage.RECOVERED in frame.coverage and Coverage.PARTIAL not in frame.coverage


def test_a_slot_without_a_sample_makes_no_frame() -> None:
    one = core()
    one.on_batch(clocks(0, 120))
    assert frames(one.outputs()) == []
    assert one.status("live").depth_slots_empty == 4


def test_fewer_than_15_samples_are_partial() -> None:
    one = core()
    one.on_batch(clocks(0, 15.5) + book_start(15.75) + clocks(16, 30))
    (frame,) = frames(one.outputs())
    assert (frame.samples, Coverage.PARTIAL in frame.coverage) == (15, False)
    other = core()
    other.on_batch(clocks(0, 16.5) + book_start(16.75) + clocks(17, 30))
    (frame,) = frames(other.outputs())
    assert (frame.samples, Coverage.PARTIAL in frame.coverage, Coverage.STALE_SOURCE in frame.coverage) == (14, True, True)


@pytest.mark.covers("F1")
def test_a_frame_of_a_book_that_nothing_has_updated_for_5_s_says_stale() -> None:
    for quiet_s, stale in ((5, False), (6, True)):
        one = core()
        # The feed is silent to the end of the slot, as on a half-open socket: samples go on from the last book.
        one.on_batch(book_start() + chain(1, 31 - quiet_s) + clocks(30.25 - quiet_s, 30))
        (frame,) = frames(one.outputs())
        assert (frame.samples, Coverage.STALE_SOURCE in frame.coverage) == (30, stale), quiet_s


def test_a_jump_over_boundaries_samples_once_and_closes_what_has_samples() -> None:
    one = core()
    one.on_batch(book_start() + clocks(0, 5) + clock(40.5))
    (frame,) = frames(one.outputs())
    assert (frame.open_ts_ns, frame.samples, Coverage.PARTIAL in frame.coverage) == (T0, 5, True)
    one.on_batch(clocks(41, 60))
    (frame,) = frames(one.outputs())
    assert frame.samples == 21  # the newest sample of the jump (second 40) and 41..60


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 400), max_size=8))
def test_the_size_of_batches_changes_nothing(cuts: list[int]) -> None:
    records = split(book_start() + clocks(0, 61) + trade(61.1, TakerSide.BUY, 100_000.0, 0.5) + chain(61.2, 65) + clocks(66, 90))
    whole, cut = core(), core()
    whole.on_batch(b"".join(records))
    edges = [0, *sorted(c % (len(records) + 1) for c in cuts), len(records)]
    for low, high in itertools.pairwise(edges):
        cut.on_batch(b"".join(records[low:high]))
    assert published(whole.outputs()) == published(cut.outputs())
    assert msgspec.msgpack.encode(whole.state_of()) == msgspec.msgpack.encode(cut.state_of())


def split(body: bytes) -> list[bytes]:
    records, offset = [], 0
    while offset < len(body):
        length = 64 * units_of(body[offset], int.from_bytes(body[offset + 4 : offset + 8], "little"))
        records.append(body[offset : offset + length])
        offset += length
    return records


def published(outputs: list[Output]) -> list[bytes]:
    return [as_bytes(one) for one in outputs]


def as_bytes(one: Output) -> bytes:
    """Everything of an output."""
    if isinstance(one, FrameOut):
        return encode(one.frame)
    if isinstance(one, MapOut):
        return encode(one.frame) + one.levels + one.zones
    if isinstance(one, CandleOut | LiquidationOut):
        return one.record.tobytes()
    return one.data if isinstance(one, DocumentOut) else repr(one).encode()


# minutes -----------------------------------------------------------------------------------------------------------------


def test_a_minute_bar() -> None:
    one = core()
    one.on_batch(book_start() + mark(0.5, 99_999.0, funding=0.0001) + open_interest(1.0, 88_000.0))
    one.on_batch(depth(5, 106, 110, 105, [], [(100_010.0, 0.0)]) + depth(6, 111, 112, 110, [], [(100_010.0, 1.0)]))
    one.on_batch(trade(10, TakerSide.BUY, 100_000.0, 0.5) + trade(20, TakerSide.SELL, 99_990.0, 0.25))
    one.on_batch(mark(50, 99_998.0, 0.0001) + liquidation(30, PositionSide.LONG, 99_600.0, 2.0) + clock(60))
    (bar,) = bars(one.outputs())
    assert (bar["open_ts_ns"], bar["close_ts_ns"], bar["minutes"]) == (T0, T0 + 60 * SECOND, 1)
    assert (bar["open"], bar["high"], bar["low"], bar["close"]) == (100_000.0, 100_005.0, 100_000.0, 100_000.0)
    assert bar["src"] == (100_000.0 + 100_005.0 + 100_000.0 + 100_000.0) / 4
    assert (bar["buy_usd"], bar["buy_count"], bar["sell_usd"], bar["sell_count"]) == (50_000.0, 1, 24_997.5, 1)
    # Without an average fill the trigger is p / (1 - mmr): 99,600 / 0.996.
    assert (bar["liq_long_usd"], bar["liq_long_count"]) == (pytest.approx(200_000.0), 1)
    assert bar["present"] == CandleField.MARK | CandleField.FUNDING | CandleField.OI | CandleField.OI_BINANCE
    assert (bar["mark"], bar["funding_rate"], bar["flags"]) == (99_998.0, 0.0001, CandleFlag.NONE)


@pytest.mark.covers("A1-C1")
def test_a_dead_book_falls_back_to_the_mark_after_60_s() -> None:
    one = core()
    one.on_batch(book_start() + clock(1))
    for second in range(2, 181):
        one.on_batch(mark(second, 100_500.0 + second))
    first, second_bar, third = bars(one.outputs())
    assert (first["flags"], first["close"]) == (CandleFlag.NONE, 100_000.0)
    assert second_bar["flags"] == CandleFlag.FALLBACK_PRICE and second_bar["open"] == 100_561.0
    assert third["flags"] & CandleFlag.FALLBACK_PRICE


def test_a_minute_without_any_price_is_skipped_and_counted() -> None:
    one = core()
    one.on_batch(clock(0) + mark(1, 100.0) + clocks(2, 60) + clock(61) + clocks(62, 180))
    # The mark of second 1 makes minute 0 (its own tick); minute 1 and 2 have none younger than 60 s at their end.
    found = bars(one.outputs())
    assert [bar["close"] for bar in found] == [100.0]
    assert (one.status("live").minutes_rolled, one.status("live").minutes_skipped) == (1, 2)
    one.on_batch(mark(181, 101.0) + clock(240))
    (bar,) = bars(one.outputs())
    assert (bar["minutes"], bar["flags"] & CandleFlag.MINUTES_MISSING) == (3, CandleFlag.MINUTES_MISSING)


def test_a_quiet_minute_with_a_fresh_mark_is_flat() -> None:
    one = core()
    one.on_batch(mark(59.0, 100.0) + clock(60.1) + clock(118.9) + clock(120.1))
    assert [bar["close"] for bar in bars(one.outputs())] == [100.0]
    one = core()
    one.on_batch(mark(59.0, 100.0) + mark(61.0, 101.0) + clock(180))
    assert [(bar["open"], bar["close"]) for bar in bars(one.outputs())] == [(100.0, 100.0), (101.0, 101.0)]


def test_a_long_jump_costs_no_loop_over_its_minutes() -> None:
    one = core()
    one.on_batch(mark(1, 100.0) + clock(10_000_000 * 60.0))
    status = one.status("live")
    assert (status.minutes_rolled, status.minutes_skipped) == (1, 9_999_999)


def test_open_interest_delta_needs_the_same_venues_in_both() -> None:
    one = core()
    one.on_batch(mark(1, 100.0) + open_interest(1, 88_000.0) + open_interest(1, 50_000.0, Venue.BYBIT) + clock(60))
    one.on_batch(mark(61, 100.0) + open_interest(61, 88_100.0) + open_interest(61, 50_050.0, Venue.BYBIT)
                 + open_interest(62, 30_000.0, Venue.OKX) + clock(120))  # fmt: skip
    first, second = bars(one.outputs())
    assert (first["oi_base"], CandleField.OI_DELTA in CandleField(int(first["present"]))) == (138_000.0, False)
    assert (second["oi_base"], second["oi_delta_base"]) == (168_150.0, 150.0)
    assert second["oi_venue_base"].tolist() == [88_100.0, 50_050.0, 30_000.0]


def test_a_late_event_is_counted_not_moved() -> None:
    one = core()
    one.on_batch(mark(1, 100.0) + clock(60) + trade(60.5, TakerSide.BUY, 100.0, 1.0, venue_at=59.9) + mark(61, 100.0) + clock(120))
    assert one.counters["late"] == 1
    assert bars(one.outputs())[1]["buy_usd"] == 100.0


# refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.covers("S-M1", "S-M6", "E-M4", "R-M5", "R-M6", "A1-M9")
@pytest.mark.parametrize(
    "record",
    [
        trade(1, TakerSide.BUY, math.nan, 1.0), trade(1, TakerSide.BUY, 100.0, math.inf), trade(1, TakerSide.BUY, 0.0, 1.0),
        trade(1, TakerSide.BUY, 100.0, -1.0), trade(1, TakerSide.BUY, 100.0, 0.0), mark(1, math.nan), mark(1, -5.0),
        mark(1, 160.0), trade(1, TakerSide.BUY, 49.0, 1.0), open_interest(1, 0.0), liquidation(1, PositionSide.LONG, 0.0, 1.0),
        pack_event(Kind.INSTRUMENT, Venue.BINANCE, 0, 0, 0, ns(1), 0, 0, math.nan, 1.0),
        pack_event(Kind.INSTRUMENT, Venue.BINANCE, 0, 0, 0, ns(1), 0, 0, 40.0, 1.0),
        depth(1, 1, 2, 0, [(math.nan, 1.0)], []), pack_event(Kind.TRADE, 77, 1, 0, 0, ns(1), 0, 0, 100.0, 1.0),
        pack_event(Kind.TRADE, Venue.BINANCE, 9, 0, 0, ns(1), 0, 0, 100.0, 1.0),
    ],
)  # fmt: skip
def test_a_bad_event_is_counted_and_the_next_one_applied(record: bytes) -> None:
    one = core()
    one.on_batch(mark(0.5, 100.0) + snapshot(0.6, 0, [(99.0, 1.0)], [(101.0, 1.0)]) + depth(0.7, 0, 1, 0, [], []))
    one.on_batch(record + trade(2, TakerSide.BUY, 100.0, 2.0) + clock(60))
    assert one.counters["refused"] + one.counters["errors"] == 1
    assert bars(one.outputs())[-1]["buy_usd"] == 200.0
    (error,) = one.status("live").errors
    assert error.count == 1 and error.where.startswith("event.")


def test_accumulators_stay_finite_after_1000_nan() -> None:
    one = core()
    one.on_batch(book_start())
    for n in range(1000):
        one.on_batch(trade(1, TakerSide.BUY, math.nan, 1.0, n) + mark(1, math.nan) + open_interest(1, math.nan))
    one.on_batch(chain(1.5, 60) + clock(60))
    (bar,) = bars(one.outputs())
    assert all(math.isfinite(bar[name]) for name in ("open", "close", "buy_usd", "sell_usd", "oi_base"))
    assert one.counters["refused"] == 3000 and len(one.status("live").errors) == 3


def test_a_truncated_batch_is_counted() -> None:
    one = core()
    one.on_batch(clock(1) + depth(2, 1, 2, 0, [(99.0, 1.0)] * 9, [])[:-64] + b"")
    assert (one.counters["malformed"], one.counters["clocks"]) == (1, 1)


def test_an_unknown_kind_is_counted() -> None:
    one = core()
    one.on_batch(pack_event(200, 0, 0, 0, 0, ns(1), 0, 0, 0.0, 0.0) + clock(2))
    assert (one.counters["unknown"], one.counters["clocks"]) == (1, 1)


def test_a_failing_step_stops_neither_the_next_nor_the_next_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    one = core()

    def broken(self: SymbolCore, at_ns: int) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(SymbolCore, "_sample", broken)
    one.on_batch(mark(1, 100.0) + clock(60))
    assert len(bars(one.outputs())) == 1
    errors = {error.where: error.error for error in one.status("live").errors}
    assert errors == {"step.depth": "RuntimeError: boom"}


def test_distinct_errors_are_bounded() -> None:
    one = core()
    for n in range(100):
        one._note_error("here", RuntimeError(str(n)))
    rows = one.status("live").errors
    assert (len(rows), rows[-1].error) == (32, "RuntimeError: 99")


# gaps and documents --------------------------------------------------------------------------------------------------------


def test_a_gap_unsyncs_the_book_flags_the_slot_and_asks() -> None:
    one = core()
    one.on_batch(book_start() + clocks(0, 10))
    asked = one.books[Venue.BINANCE].resync_asked
    one.on_batch(
        gap(10.1) + clocks(10.5, 12) + snapshot(12.1, 200, BIDS, ASKS) + depth(12.2, 199, 201, 198, [], []) + clocks(12.5, 60)
    )
    assert one.books[Venue.BINANCE].resync_asked == asked + 1
    first, second = frames(one.outputs())
    assert Coverage.GAP in first.coverage and first.samples == 28
    assert Coverage.GAP not in second.coverage and second.samples == 30


def test_lost_trades_flag_the_minute_but_not_the_book() -> None:
    one = core()
    one.on_batch(book_start() + gap(1, GapScope.TRADES) + chain(2, 59) + clock(60))
    assert one.books[Venue.BINANCE].state == "synced"
    assert bars(one.outputs())[0]["flags"] == CandleFlag.GAP


def test_a_batch_with_the_gap_flag_is_a_gap_in_everything() -> None:
    one = core()
    one.on_batch(book_start())
    one.on_batch(clock(1), gap=True)
    assert one.books[Venue.BINANCE].state == "unsynced" and one.counters["gaps"] == 1


@pytest.mark.covers("S-H6", "A1-L11")
def test_documents_follow_their_schema_and_every_key_is_needed() -> None:
    one = core()
    one.on_batch(book_start() + clocks(0, 31) + mark(31.5, 100_001.0) + clock(33))
    documents = {out.document: out.data for out in one.outputs() if isinstance(out, DocumentOut)}
    status = decode(documents[DocumentId.STATUS], StatusDocument)
    assert (status.symbol, status.mid, status.mark, status.depth_frames, status.tick) == ("BTC", 100_000.0, 100_001.0, 1, 0.1)
    book_document = decode(documents[DocumentId.BOOK], BookDocument)
    assert book_document.data_since_ns == status.data_since_ns is not None
    book = book_document.books["binance"]
    assert (book.state, book.best_bid, book.best_ask, book.levels_bid) == ("synced", 99_990.0, 100_010.0, 3)
    assert book.total_bid_usd == pytest.approx(99_990 + 2 * 99_980 + 99_970)
    for kind, document in ((StatusDocument, DocumentId.STATUS), (BookDocument, DocumentId.BOOK)):
        plain = msgspec.json.decode(documents[document])
        for key in plain:
            if key in ("fatal_error", "schema_version"):
                continue
            less = {k: v for k, v in plain.items() if k != key}
            with pytest.raises(ValueError, match=kind.__name__):
                decode(msgspec.json.encode(less), kind)
        with pytest.raises(ValueError, match="schema 9"):
            decode(msgspec.json.encode({**plain, "schema_version": 9}), kind)


def test_a_symbol_without_a_book_has_bars_and_no_frames() -> None:
    one = core("[symbols.BTC]\nhas_orderbook = false\n")
    one.on_batch(mark(1, 100.0) + depth(2, 1, 2, 0, [(99.0, 1.0)], []) + clocks(3, 61))
    outputs = one.outputs()
    assert (len(bars(outputs)), frames(outputs), one.counters["refused"]) == (1, [], 1)


# state -------------------------------------------------------------------------------------------------------------------


def rich_stream(start: int, stop: int) -> bytes:
    out = []
    for n in range(start, stop):
        at = n * 0.2
        last = 105 + n
        out.append(
            depth(at, last + 1, last + 1, last, [(99_990.0 - n % 5 * 10, n % 3 * 1.5)], [(100_010.0 + n % 7 * 10, n % 4 * 0.5)])
        )
        if n % 3 == 0:
            out.append(trade(at, TakerSide.BUY if n % 2 else TakerSide.SELL, 100_000.0 + n % 11, 0.1 + n % 5, n))
        if n % 5 == 0:
            out.append(mark(at, 100_000.0 + n % 13, 0.0001))
        if n % 75 == 0:
            out.append(open_interest(at, 88_000.0 + n))
        if n % 400 == 399:
            out.append(gap(at) + snapshot(at, last + 1, BIDS, ASKS))
    return b"".join(out)


@pytest.mark.covers("A2-L8")
@pytest.mark.parametrize("cut", [1, 137, 400, 777, 1499])
def test_a_restored_core_is_one_that_never_stopped(cut: int) -> None:
    whole = core()
    whole.on_batch(book_start() + rich_stream(0, 1500))
    early = core()
    early.on_batch(book_start() + rich_stream(0, cut))
    saved = msgspec.msgpack.encode(early.state_of())
    before = published(early.outputs())
    early.on_batch(rich_stream(cut, 1500))  # the saved state is a copy: what happens later does not change it
    late = core()
    late.restore(msgspec.msgpack.decode(saved))
    late.on_batch(rich_stream(cut, 1500))
    assert published(whole.outputs()) == before + published(late.outputs())
    assert msgspec.msgpack.encode(whole.state_of()) == msgspec.msgpack.encode(late.state_of())


@pytest.mark.parametrize(
    "damage",
    [lambda s: s.pop("books"), lambda s: s.update(schema=1), lambda s: s.update(symbol="ETH"), lambda s: s.update(books=[]),
     lambda s: s["bar"].pop("taker")],
)  # fmt: skip
def test_a_state_of_another_kind_is_refused(damage: Any) -> None:
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(core().state_of()))
    damage(state)
    with pytest.raises((ValueError, KeyError, TypeError)):
        core().restore(state)


@pytest.mark.covers("A2-L6")
def test_state_classes_refuse_undeclared_attributes() -> None:
    one = core()
    for part in (one, one.books[Venue.BINANCE], one._frames, one._bar, one._oi):
        with pytest.raises(AttributeError):
            part.misspelt = 1  # type: ignore[attr-defined]


def test_engines_share_nothing() -> None:
    settings_: Settings = load("", {})
    btc, eth = SymbolCore("BTC", settings_), SymbolCore("ETH", settings_)
    btc.on_batch(book_start() + clocks(0, 61))
    assert (eth.now_ns, eth.counters["events"], eth.books[Venue.BINANCE].state) == (0, 0, "unsynced")
