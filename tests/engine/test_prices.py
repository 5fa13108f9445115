"""Which venue's price counts, and that nothing is zeroed when one falls silent."""

from __future__ import annotations

import msgspec
import pytest

from mpengine.config import load
from mpengine.engine.core import CandleOut, SymbolCore
from mpengine.engine.prices import MARK_PROMPT_NS, SECOND, Prices
from shm.records import CandleField, CandleFlag, Venue
from tests.engine.events import clocks, depth, gap, mark, snapshot

BOOKS = ("venues.bybit.order_book=true", "venues.okx.order_book=true")


def core() -> SymbolCore:
    return SymbolCore("BTC", load("[symbols.BTC]\n", {}, BOOKS))


def whole(at: float, venue: Venue, mid: float) -> bytes:
    bids, asks = [(mid - 0.5, 1.0)], [(mid + 0.5, 1.0)]
    if venue is Venue.BINANCE:
        return snapshot(at, 10, bids, asks) + depth(at, 8, 12, 7, [], [])
    return snapshot(at, 10, bids, asks, venue)


def test_the_primary_leads_while_its_book_is_whole() -> None:
    one = core()
    one.on_batch(whole(1, Venue.OKX, 100_020.0))
    assert one.status("live").mid == 100_020.0
    one.on_batch(whole(2, Venue.BYBIT, 100_010.0))
    one.on_batch(whole(2.1, Venue.OKX, 100_021.0))
    assert (one.status("live").mid, one.status("live").price_venue) == (100_010.0, "bybit")
    one.on_batch(whole(3, Venue.BINANCE, 100_000.0))
    one.on_batch(whole(3.1, Venue.BYBIT, 100_011.0))
    assert (one.status("live").mid, one.status("live").price_venue) == (100_000.0, "binance")


@pytest.mark.covers("S-C2")
def test_the_next_venue_takes_over_and_the_price_stays_meanwhile() -> None:
    one = core()
    one.on_batch(whole(1, Venue.BINANCE, 100_000.0) + whole(1, Venue.BYBIT, 100_010.0))
    one.on_batch(gap(2))
    assert one.status("live").mid == 100_000.0, "kept with its age"
    one.on_batch(depth(2.5, 11, 11, 10, [(100_010.4, 1.0)], [], venue=Venue.BYBIT))
    status = one.status("live")
    assert status.price_venue == "bybit"
    assert status.mid == pytest.approx(100_010.45)


def test_another_primary_is_a_setting() -> None:
    one = SymbolCore("BTC", load('[symbols.BTC]\n[engine]\nprimary_venue = "okx"\n', {}, BOOKS))
    one.on_batch(whole(1, Venue.OKX, 100_020.0) + whole(1, Venue.BINANCE, 100_000.0))
    assert one.status("live").price_venue == "okx"


def test_marks_go_by_the_same_order_and_age() -> None:
    prices = Prices(Venue.BINANCE)
    prices.on_mark(Venue.OKX, 103.0, 0.3, 0)
    prices.on_mark(Venue.BYBIT, 102.0, None, SECOND)
    prices.on_mark(Venue.BINANCE, 101.0, 0.1, 2 * SECOND)
    now = 3 * SECOND
    assert (prices.mark(now), prices.funding(now)) == ((101.0, 2 * SECOND), (0.1, 2 * SECOND))
    prices.on_mark(Venue.BYBIT, 102.5, None, 8 * SECOND)
    now = 2 * SECOND + MARK_PROMPT_NS + 1
    later = 8 * SECOND
    assert prices.mark(now) == (102.5, 8 * SECOND)
    assert prices.funding(later) is None, "Bybit has said no rate, and another venue's is for another interval"
    assert prices.mark(3600 * SECOND) == (102.5, 8 * SECOND), "the newest stays, with its age"
    again = Prices(Venue.BINANCE)
    again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(prices.state_of())))
    assert again.state_of() == prices.state_of()


def test_a_minute_on_another_venues_mark_says_fallback() -> None:
    one = core()
    one.on_batch(mark(1, 100_000.0) + clocks(1, 59, 1))
    one.on_batch(b"".join(mark(60 + at, 100_050.0, 0.0001, Venue.BYBIT) for at in range(8, 59)) + clocks(119, 121, 1))
    bars = [out.record[()] for out in one.outputs() if isinstance(out, CandleOut)]
    assert len(bars) == 2
    assert bars[1]["flags"] & CandleFlag.FALLBACK_PRICE
    assert bars[1]["close"] == 100_050.0
    assert bars[1]["present"] & CandleField.FUNDING and bars[1]["funding_rate"] == 0.0001
