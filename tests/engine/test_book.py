"""Book synchronisation: the documented algorithm, gaps inside and beyond tolerance, and everything that forces a resync."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from mpengine.engine.book import SECOND, Book
from mpengine.engine.ladder import BadLevels
from shm.records import EventFlag
from tests.engine.events import Levels, diff

BIDS: Levels = [(99.9, 1.0), (99.8, 2.0), (99.0, 5.0)]
ASKS: Levels = [(100.1, 1.0), (100.2, 2.0), (101.0, 5.0)]


def synced(tolerance: int = 5) -> Book:
    book = Book(0.1, 0.12, tolerance)
    book.on_time(0)
    book.on_snapshot(diff(0, 100, 0, BIDS, ASKS), 0)
    assert book.on_diff(diff(95, 105, 94, [(99.8, 0.0)], []), 0)
    assert (book.state, book.last_u) == ("synced", 105)
    return book


def test_snapshot_then_diffs() -> None:
    book = synced()
    assert book.on_diff(diff(106, 110, 105, [], [(100.1, 4.0)]), 1)
    assert book.ladder is not None
    assert book.ladder.levels() == ([(99.9, 1.0), (99.0, 5.0)], [(100.1, 4.0), (100.2, 2.0), (101.0, 5.0)])
    assert (book.mid, book.resync_asked, book.snapshot_id, book.first_applied) == (100.0, 1, 100, (95, 105))


def test_diffs_then_snapshot_drops_what_is_older() -> None:
    book = Book(0.1, 0.12, 5)
    for n in range(5):
        assert not book.on_diff(diff(n * 10 + 1, n * 10 + 10, n * 10, [(99.0 + n / 10, 1.0)], []), n)
    assert book.on_snapshot(diff(0, 25, 0, BIDS, ASKS), 9)
    # 1-10 and 11-20 are older than 25, 21-30 bridges, 31-40 and 41-50 chain.
    assert (book.state, book.last_u, book.counters["discarded"], book.counters["applied"]) == ("synced", 50, 2, 3)


def test_a_diff_that_follows_the_snapshot_exactly_bridges() -> None:
    book = Book(0.1, 0.12, 5)
    book.on_snapshot(diff(0, 100, 0, BIDS, ASKS), 0)
    assert book.state == "syncing"
    assert book.on_diff(diff(150, 160, 100, [], []), 1) and book.state == "synced"


def test_a_non_bridging_diff_is_never_applied_and_a_new_snapshot_is_asked_for() -> None:
    book = Book(0.1, 0.12, 5)
    book.on_time(0)
    book.on_snapshot(diff(0, 100, 0, BIDS, ASKS), 0)
    assert not book.on_diff(diff(150, 160, 120, [], []), SECOND)
    assert (book.state, book.resync_asked, book.mid) == ("unsynced", 1, None)
    book.on_time(11 * SECOND)
    assert book.resync_asked == 2
    assert book.on_snapshot(diff(0, 155, 0, BIDS, ASKS), 12 * SECOND) and book.state == "synced"


def test_a_snapshot_older_than_the_buffer_is_not_used() -> None:
    book = Book(0.1, 0.12, 5)
    book.on_diff(diff(150, 160, 149, [], []), 0)
    assert not book.on_snapshot(diff(0, 100, 0, BIDS, ASKS), 1)
    assert (book.state, book.counters["snapshots"]) == ("unsynced", 0)


def test_asks_at_most_every_10_s_doubling_to_120() -> None:
    book = Book(0.1, 0.12, 5)
    asked = []
    for second in range(600):
        before = book.resync_asked
        book.on_time(second * SECOND)
        if book.resync_asked > before:
            asked.append(second)
    assert asked == [0, 10, 30, 70, 150, 270, 390, 510]


def test_gap_inside_the_tolerance_is_applied_counted_and_refreshed() -> None:
    book = synced(tolerance=5)
    assert book.on_diff(diff(110, 115, 109, [(99.7, 9.0)], []), 60 * SECOND)
    assert (book.state, book.counters["gaps_tolerated"], book.resync_asked) == ("synced", 1, 2)
    assert book.on_diff(diff(116, 120, 115, [(99.6, 8.0)], []), 61 * SECOND)
    # The refresh: a snapshot inside the gap's diff; what came after it is applied again on top.
    assert book.on_snapshot(diff(0, 112, 0, [(99.9, 3.0)], [(100.1, 3.0)]), 62 * SECOND)
    assert (book.state, book.last_u, book.counters["snapshots"]) == ("synced", 120, 2)
    assert book.ladder is not None
    assert dict(book.ladder.levels()[0]) == {99.9: 3.0, 99.7: 9.0, 99.6: 8.0, 99.0: 5.0}


def test_gap_beyond_the_tolerance_resyncs_with_the_diff_kept() -> None:
    book = synced(tolerance=5)
    assert not book.on_diff(diff(120, 130, 119, [], []), 60 * SECOND)
    assert (book.state, book.mid, book.counters["pu_gaps"], book.counters["resyncs"]) == ("unsynced", None, 1, 1)
    assert book.last_gap == ("pu_mismatch", 119, 105)
    assert book.on_snapshot(diff(0, 125, 0, BIDS, ASKS), 61 * SECOND) and book.last_u == 130


def test_stale_overlapping_and_backward_diffs() -> None:
    book = synced(tolerance=5)
    assert not book.on_diff(diff(90, 103, 89, [(50.0, 1.0)], []), 1)
    assert (book.state, book.counters["discarded"]) == ("synced", 1)
    assert book.on_diff(diff(100, 109, 99, [(99.5, 1.0)], []), 1)
    assert (book.counters["overlaps"], book.last_u) == (1, 109)
    assert not book.on_diff(diff(50, 60, 49, [], []), 1)
    assert (book.state, book.counters["u_gaps"], book.last_gap[0]) == ("unsynced", 1, "u_gap")


def test_buffer_is_bounded_and_overflow_restarts_the_sync() -> None:
    book = Book(0.1, 0.12, 5)
    for n in range(1500):
        book.on_diff(diff(n + 1, n + 1, n, [], []), 0)
    assert (len(book._buffer), book.counters["overflows"]) == (1000, 500)
    assert book.on_snapshot(diff(0, 1400, 0, BIDS, ASKS), 0) and book.last_u == 1500


def test_crossed_for_more_than_5_s_resyncs() -> None:
    book = synced()
    book.on_diff(diff(106, 107, 105, [(100.3, 1.0)], []), 10 * SECOND)
    assert book.mid is None
    book.on_time(15 * SECOND)
    assert book.state == "synced"
    book.on_time(15 * SECOND + 1)
    assert book.state == "unsynced"


def test_uncrossed_in_time_stays() -> None:
    book = synced()
    book.on_diff(diff(106, 107, 105, [(100.3, 1.0)], []), 10 * SECOND)
    book.on_diff(diff(108, 109, 107, [(100.3, 0.0)], []), 12 * SECOND)
    book.on_time(40 * SECOND)
    assert book.state == "synced" and book.mid == 100.0


def test_silence_of_60_s_resyncs() -> None:
    book = synced()
    book.on_time(60 * SECOND)
    assert book.counts_at(60 * SECOND)
    book.on_time(60 * SECOND + 1)
    assert book.state == "unsynced" and not book.counts_at(60 * SECOND + 1)


def test_a_gap_in_the_feed_resyncs() -> None:
    book = synced()
    book.on_gap(70 * SECOND)
    assert (book.state, book.synced_since_ns, book.resync_asked) == ("unsynced", None, 2)


@pytest.mark.covers("A2-M4")
def test_a_snapshot_replaces_its_range_and_far_levels_stay_unverified_for_an_hour() -> None:
    book = synced()
    book.on_diff(diff(106, 110, 105, [(95.0, 7.0)], [(105.0, 7.0)]), SECOND)
    book.on_gap(100 * SECOND)
    book.on_snapshot(diff(0, 200, 0, [(99.9, 2.0), (99.0, 1.0)], [(100.1, 2.0), (101.0, 1.0)]), 101 * SECOND)
    book.on_diff(diff(199, 201, 198, [(95.0, 8.0)], []), 101 * SECOND)
    assert book.ladder is not None
    assert book.ladder.levels() == ([(99.9, 2.0), (99.0, 1.0), (95.0, 8.0)], [(100.1, 2.0), (101.0, 1.0), (105.0, 7.0)])
    assert book.stats((0.0, 0.0)).levels_unverified == 1
    for minute in range(2, 62):
        book.on_diff(diff(200 + minute, 200 + minute, 199 + minute, [], []), minute * 60 * SECOND)
        book.on_time(minute * 60 * SECOND)
    assert book.counters["unverified_dropped"] == 0
    book.on_diff(diff(263, 263, 262, [], []), 3702 * SECOND)
    book.on_time(3702 * SECOND)
    assert book.counters["unverified_dropped"] == 1 and book.ladder.levels()[1][-1] == (101.0, 1.0)


def test_after_10_minutes_out_of_sync_far_levels_go() -> None:
    book = synced()
    book.on_diff(diff(106, 110, 105, [(95.0, 7.0)], []), SECOND)
    book.on_gap(100 * SECOND)
    book.on_snapshot(diff(0, 200, 0, BIDS, ASKS), 700 * SECOND)
    book.on_diff(diff(199, 201, 198, [], []), 700 * SECOND)
    assert book.ladder is not None and (95.0, 7.0) not in book.ladder.levels()[0]


def test_bad_levels_refuse_the_diff_and_resync() -> None:
    book = synced()
    with pytest.raises(BadLevels):
        book.on_diff(diff(106, 110, 105, [(99.0, math.nan)], []), SECOND)
    assert (book.state, book.counters["refused"]) == ("unsynced", 1)


def test_partial_start_without_a_snapshot() -> None:
    book = Book(0.1, 0.12, 5)
    book.on_snapshot(diff(0, 94, 0, [], [], EventFlag.PARTIAL), 0)
    assert book.on_diff(diff(95, 105, 94, [(99.9, 1.0)], [(100.1, 1.0)]), 0)
    assert (book.partial, book.mid) == (True, 100.0)
    book.on_gap(0)
    book.on_snapshot(diff(0, 110, 0, BIDS, ASKS), 1)
    book.on_diff(diff(109, 111, 108, [], []), 1)
    assert not book.partial


def test_the_ladder_follows_the_mid() -> None:
    book = synced()
    last = 105
    for step in range(1, 200):
        price = round(100.0 + step * 0.1, 1)
        book.on_diff(
            diff(last + 1, last + 2, last, [(price, 1.0), (round(price - 0.1, 1), 0.0)], [(round(price + 0.1, 1), 1.0)]), step
        )
        book.on_diff(diff(last + 3, last + 4, last + 2, [], [(price, 0.0)]), step)
        last += 4
        book.on_time(step)
    assert book.ladder is not None and book.ladder.bid_price == 119.9
    assert not book.ladder.needs_recentring(119.9)


def test_tick_size_change_keeps_the_book() -> None:
    book = synced()
    book.set_tick(0.5)
    assert book.tick == 0.5 and book.ladder is not None
    assert dict(book.ladder.levels()[0]) == {100.0: 1.0, 99.0: 5.0}


def test_a_restored_book_goes_on_bit_by_bit() -> None:
    def run(book: Book, start: int) -> dict[str, Any]:
        for n in range(start, start + 50):
            book.on_diff(diff(n * 10 + 1, n * 10 + 10, n * 10, [(99.0 + n % 7 / 10, n % 3)], []), n * SECOND)
            book.on_time(n * SECOND)
        return book.state_of()

    book = Book(0.1, 0.12, 5)
    book.on_time(0)
    book.on_snapshot(diff(0, 15, 0, BIDS, ASKS), 0)
    run(book, 1)
    saved = msgspec.msgpack.decode(msgspec.msgpack.encode(book.state_of()))
    assert msgspec.msgpack.encode(run(book, 51)) == msgspec.msgpack.encode(run(Book.restored(saved), 51))
