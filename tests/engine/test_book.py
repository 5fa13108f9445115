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
    assert book.counts_at(60 * SECOND) and book.synced and not book.counts_at(60 * SECOND + 1)
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
    book.set_tick(0.5, SECOND)
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


def gapped() -> Book:
    """Synced at 105, then a tolerated gap: 106-109 are lost, 110-115 is applied."""
    book = synced(tolerance=5)
    assert book.on_diff(diff(110, 115, 109, [(99.7, 9.0)], []), 60 * SECOND)
    assert book.refreshing and book.synced
    return book


def test_a_refresh_that_is_ahead_of_the_stream_waits_for_the_diff_that_bridges_it() -> None:
    book = gapped()
    assert not book.on_snapshot(diff(0, 130, 0, [(99.9, 3.0)], [(100.1, 3.0)]), 61 * SECOND)
    assert book.on_diff(diff(116, 125, 115, [(99.6, 8.0)], []), 62 * SECOND) and book.refreshing
    assert book.on_diff(diff(126, 135, 125, [(99.9, 4.0)], []), 63 * SECOND)
    assert (book.refreshing, book.last_u, book.snapshot_id, book.counters["snapshots"]) == (False, 135, 130, 2)
    assert book.ladder is not None and dict(book.ladder.levels()[0]) == {99.9: 4.0, 99.7: 9.0, 99.6: 8.0, 99.0: 5.0}
    assert book.on_diff(diff(136, 140, 135, [], []), 64 * SECOND) and not book._buffer


def test_a_refresh_is_asked_for_until_it_comes_and_one_from_inside_the_hole_does_not_count() -> None:
    book = gapped()
    asked = book.resync_asked
    book.on_snapshot(diff(0, 107, 0, BIDS, ASKS), 61 * SECOND)
    assert book.refreshing and book.synced
    last = 115
    for second in range(62, 140):
        book.on_diff(diff(last + 1, last + 1, last, [], []), second * SECOND)
        book.on_time(second * SECOND)
        last += 1
    assert book.resync_asked == asked + 3  # 10, 20 and 40 s after the request at 60 s: at 70, 90, 130
    assert book.on_snapshot(diff(0, 150, 0, BIDS, ASKS), 141 * SECOND) and not book.refreshing and book.last_u == last


def test_levels_beyond_a_refresh_are_unverified_too() -> None:
    book = gapped()
    book.on_snapshot(diff(0, 112, 0, [(99.9, 3.0)], [(100.1, 3.0)]), 61 * SECOND)
    book.on_diff(diff(116, 117, 115, [], []), 61 * SECOND)
    # 99.0, 100.2 and 101.0 come from before the gap, 99.7 from the diff that is applied again.
    assert book.stats((0.0, 0.0)).levels_unverified == 3


def test_a_synced_book_needs_no_snapshot_and_keeps_none() -> None:
    book = synced()
    for last in (50, 105, 900):
        assert not book.on_snapshot(diff(0, last, 0, [(50.0, 1.0)], [(150.0, 1.0)]), SECOND)
    assert book.on_diff(diff(106, 110, 105, [], []), SECOND)
    assert (book.state, book.mid, book._snapshot, len(book._buffer)) == ("synced", 100.0, None, 0)
    assert (book.counters["snapshots"], book.counters["snapshots_unused"]) == (1, 3)


def test_a_price_that_moved_beyond_the_snapshot_leaves_no_old_level_across_the_book() -> None:
    book = synced()
    book.on_gap(100 * SECOND)
    # Three minutes later the market is 3 % lower: no diff will ever name the bids at 99.9 again.
    book.on_snapshot(diff(0, 200, 0, [(96.9, 1.0), (96.8, 1.0)], [(97.1, 1.0), (97.2, 1.0)]), 280 * SECOND)
    book.on_diff(diff(199, 201, 198, [], []), 280 * SECOND)
    assert book.mid == 97.0 and book.ladder is not None
    assert book.ladder.levels()[0] == [(96.9, 1.0), (96.8, 1.0)]
    assert book.ladder.levels()[1] == [(97.1, 1.0), (97.2, 1.0), (100.1, 1.0), (100.2, 2.0), (101.0, 5.0)]
    book.on_time(290 * SECOND)
    assert book.synced


def test_a_price_that_runs_into_unverified_levels_disproves_them() -> None:
    book = synced()
    book.on_diff(diff(106, 110, 105, [(95.0, 7.0), (94.0, 3.0)], [(105.0, 7.0)]), SECOND)
    book.on_gap(100 * SECOND)
    # The bids at 95 and 94 were taken away in the hole, below what the snapshot shows.
    book.on_snapshot(diff(0, 200, 0, BIDS, ASKS), 101 * SECOND)
    book.on_diff(diff(199, 201, 198, [], []), 101 * SECOND)
    fallen = [(price, 0.0) for price, _ in BIDS] + [(94.5, 1.0)]
    book.on_diff(diff(202, 203, 201, fallen, [(94.9, 2.0)]), 102 * SECOND)
    assert book.ladder is not None
    assert book.ladder.levels() == ([(94.5, 1.0), (94.0, 3.0)], [(94.9, 2.0), *ASKS, (105.0, 7.0)])
    assert (book.mid, book.counters["unverified_dropped"]) == (94.7, 1)
    # The other side in the same way, up to a locked price; unverified levels that nothing contradicts stay.
    risen = [(price, 0.0) for price, _ in [(94.9, 0.0), *ASKS]] + [(106.0, 1.0)]
    book.on_diff(diff(204, 205, 203, [(105.0, 2.0)], risen), 103 * SECOND)
    assert (book.mid, book.stats((0.0, 0.0)).levels_unverified) == (105.5, 1)
    book.on_time(120 * SECOND)
    assert (book.state, book.counters["resyncs"]) == ("synced", 1)


def test_repeated_resyncs_do_not_keep_an_unverified_level_for_ever() -> None:
    book = synced()
    book.on_diff(diff(106, 110, 105, [(95.0, 7.0)], []), SECOND)
    last = 110
    for minute in range(10, 100, 10):
        book.on_gap(minute * 60 * SECOND)
        last += 10
        book.on_snapshot(diff(0, last, 0, [(99.9, 2.0)], [(100.1, 2.0)]), minute * 60 * SECOND)
        book.on_diff(diff(last, last + 1, last - 1, [], []), minute * 60 * SECOND)
        last += 1
        book.on_time(minute * 60 * SECOND + SECOND)
        assert book.ladder is not None
        assert ((95.0, 7.0) in book.ladder.levels()[0]) == (minute < 70), minute  # unverified since minute 10


def test_after_a_success_the_next_request_waits_10_s_however_long_the_last_waits_were() -> None:
    book = Book(0.1, 0.12, 5)
    for second in range(160):
        book.on_time(second * SECOND)
    assert book.resync_asked == 5  # at 0, 10, 30, 70 and 150: the next would be at 270
    book.on_snapshot(diff(0, 100, 0, BIDS, ASKS), 160 * SECOND)
    book.on_diff(diff(95, 105, 94, [], []), 160 * SECOND)
    book.on_gap(161 * SECOND)
    assert book.resync_asked == 6
    book.on_time(170 * SECOND)
    assert book.resync_asked == 6
    book.on_time(171 * SECOND)
    assert book.resync_asked == 7


def test_a_snapshot_with_a_bad_level_leaves_no_half_a_book() -> None:
    for bad in ((99.0, math.nan), (math.inf, 1.0), (99.0, -1.0), (0.0, 1.0)):
        book = gapped()
        with pytest.raises(BadLevels):
            book.on_snapshot(diff(0, 112, 0, [(99.9, 3.0), bad], [(100.1, 3.0)]), 61 * SECOND)
        assert (book.state, book.mid, book.refreshing) == ("unsynced", None, False)
        book.on_diff(diff(116, 117, 115, [], []), 62 * SECOND)
        assert book.on_snapshot(diff(0, 112, 0, BIDS, ASKS), 63 * SECOND)
        assert (book.state, book.last_u) == ("synced", 117)


def test_a_side_that_stays_empty_for_a_minute_resyncs_and_the_ladder_follows() -> None:
    book = synced()
    # Within one second the market leaves the ladder (+/- 12 %): every new level is outside.
    book.on_diff(diff(106, 110, 105, [(99.9, 0.0), (99.0, 0.0), (119.9, 1.0)], [(p, 0.0) for p, _ in ASKS]), SECOND)
    last = 110
    for second in range(1, 70):
        book.on_diff(diff(last + 1, last + 1, last, [(119.9, 1.0)], [(120.1, 1.0)]), second * SECOND)
        book.on_time(second * SECOND)
        last += 1
    assert not book.synced
    book.on_snapshot(diff(0, last, 0, [(119.9, 1.0)], [(120.1, 1.0)]), 70 * SECOND)
    assert book.on_diff(diff(last + 1, last + 1, last, [], []), 70 * SECOND) and book.mid == 120.0


def test_a_tick_size_that_cannot_be_changes_nothing() -> None:
    book = synced()
    with pytest.raises(ValueError, match="too large"):
        book.set_tick(1e-7, SECOND)
    assert book.tick == 0.1 and book.mid == 100.0
    book.set_tick(0.05, SECOND)
    assert book.tick == 0.05 and book.mid == 100.0


def test_a_tick_size_change_keeps_unverified_levels_unverified() -> None:
    book = synced()
    book.on_diff(diff(106, 110, 105, [(95.0, 7.0)], []), SECOND)
    book.on_gap(10 * SECOND)
    book.on_snapshot(diff(0, 110, 0, [(99.9, 1.0)], [(100.1, 1.0)]), 10 * SECOND)
    book.on_diff(diff(110, 111, 109, [], []), 10 * SECOND)
    book.set_tick(0.5, SECOND)
    assert book.stats((0.0, 0.0)).levels_unverified > 0
    book.on_time(3700 * SECOND)
    assert book.ladder is not None and 95.0 not in dict(book.ladder.levels()[0])


def test_time_that_begins_anew_earlier_leaves_nothing_waiting_for_the_future() -> None:
    year = 365 * 86_400 * SECOND
    book = synced()
    book.on_gap(year)
    book.on_time(2 * year)
    asked = book.resync_asked
    book.on_clock_set_back(100 * SECOND)
    assert book.resync_asked == asked + 1
    book.on_time(110 * SECOND)
    assert book.resync_asked == asked + 2
    book.on_snapshot(diff(0, 200, 0, BIDS, ASKS), 111 * SECOND)
    assert book.on_diff(diff(199, 201, 198, [], []), 111 * SECOND)
    assert book.counts_at(111 * SECOND) and book.max_sync_ns < 100 * SECOND and book.synced_since_ns == 111 * SECOND
