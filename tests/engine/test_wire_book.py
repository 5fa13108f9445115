"""Books of venues that send their own snapshots: replace, chain, join, break, and a naive venue under loss and disorder."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.engine.book import ASK_FIRST_NS, BOOK_STALE_NS, BUFFER_DIFFS, CROSSED_NS, SECOND
from mpengine.engine.ladder import BadLevels
from mpengine.engine.wire_book import SNAPSHOT_COMES_NS, WireBook
from shm.records import EventFlag
from tests.engine.events import Levels, diff

BIDS: Levels = [(99.9, 1.0), (99.8, 2.0), (99.0, 5.0)]
ASKS: Levels = [(100.1, 1.0), (100.2, 2.0), (101.0, 5.0)]


def book() -> WireBook:
    return WireBook(0.1, 0.12)


def synced(last: int = 100) -> WireBook:
    one = book()
    assert one.on_snapshot(diff(last, last, 0, BIDS, ASKS), 0)
    assert (one.state, one.last_u, one.synced_since_ns) == ("synced", last, 0)
    return one


def levels(one: WireBook) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    assert one.ladder is not None
    return one.ladder.levels()


def test_a_snapshot_makes_the_book_whole_and_diffs_chain() -> None:
    one = synced()
    assert one.on_diff(diff(101, 101, 100, [(99.8, 0.0)], [(100.1, 3.0)]), 1)
    assert levels(one) == ([(99.9, 1.0), (99.0, 5.0)], [(100.1, 3.0), (100.2, 2.0), (101.0, 5.0)])
    assert (one.mid, one.last_u, one.counters["applied"], one.resync_asked) == (100.0, 101, 1, 0)


@pytest.mark.covers("A2-M4")
def test_any_later_snapshot_replaces_the_whole_book() -> None:
    one = synced()
    assert one.on_snapshot(diff(1, 1, 0, [(90.0, 1.0)], [(90.2, 1.0)]), 5)  # u = 1: the venue began anew
    assert levels(one) == ([(90.0, 1.0)], [(90.2, 1.0)])
    assert one.ladder is not None
    assert one.ladder.level_counts() == (1, 1, 0), "nothing is left over as unverified"
    assert (one.state, one.last_u, one.synced_since_ns, one.counters["resyncs"]) == ("synced", 1, 0, 0)
    assert one.on_diff(diff(2, 2, 1, [(90.1, 2.0)], []), 6)


def test_a_diff_before_the_snapshot_changes_nothing() -> None:
    one = book()
    assert not one.on_diff(diff(5, 5, 4, [(99.9, 9.0)], []), 0)
    assert (one.state, one.ladder, one.stats((0.0, 0.0)).diffs_buffered) == ("unsynced", None, 1)
    one.on_snapshot(diff(4, 4, 0, BIDS, ASKS), 1)  # on the wire it would have come before: it is another subscription's
    assert levels(one) == (BIDS, ASKS)
    assert (one.counters["discarded"], one.stats((0.0, 0.0)).diffs_buffered) == (1, 0)


@pytest.mark.parametrize(
    ("last", "previous", "kind"), [(103, 102, "pu_mismatch"), (90, 89, "u_gap"), (99, 98, "u_gap")]
)  # fmt: skip
def test_a_broken_chain_is_a_resync_and_nothing_is_applied(last: int, previous: int, kind: str) -> None:
    one = synced()
    assert not one.on_diff(diff(last, last, previous, [(99.9, 7.0)], []), SECOND)
    assert (one.state, one.mid, one.resync_asked, one.counters["resyncs"]) == ("unsynced", None, 1, 1)
    assert one.last_gap == (kind, previous, 100)
    assert not one.on_diff(diff(last + 1, last + 1, last, [(99.9, 8.0)], []), SECOND)
    assert one.on_snapshot(diff(200, 200, 0, BIDS, ASKS), 2 * SECOND)
    assert (one.state, one.synced_since_ns) == ("synced", 2 * SECOND)


def test_the_newest_diff_again_is_no_break() -> None:
    one = synced()
    one.on_diff(diff(101, 101, 100, [(99.9, 7.0)], []), 1)
    assert not one.on_diff(diff(101, 101, 100, [(99.9, 7.0)], []), 2)
    assert (one.state, one.counters["discarded"]) == ("synced", 1)


def test_a_heartbeat_keeps_an_idle_book_alive() -> None:
    one = synced()
    for minute in range(1, 5):
        now_ns = minute * 50 * SECOND
        assert not one.on_diff(diff(100, 100, 100, [], []), now_ns)
        one.on_time(now_ns + SECOND)
        assert one.state == "synced" and one.counts_at(now_ns)
    one.on_time(200 * SECOND + BOOK_STALE_NS + 1)
    assert (one.state, one.resync_asked) == ("unsynced", 1)


def test_a_maintenance_reset_chains_to_a_smaller_id() -> None:
    one = synced()
    assert one.on_diff(diff(3, 3, 100, [(99.9, 4.0)], []), 1)
    assert one.on_diff(diff(7, 7, 3, [(99.9, 5.0)], []), 2)
    assert (one.state, one.last_u) == ("synced", 7)


def test_a_polled_snapshot_is_joined_by_ids() -> None:
    one = book()
    assert one.on_snapshot(diff(0, 100, 0, BIDS, ASKS, EventFlag.JOIN), 0)
    assert (one.state, one.mid) == ("syncing", None)
    assert not one.on_diff(diff(98, 98, 95, [(99.9, 9.0)], []), 1)  # older than the snapshot
    assert not one.on_diff(diff(100, 100, 98, [(99.9, 9.0)], []), 1)
    assert one.on_diff(diff(105, 105, 100, [(99.9, 2.0)], []), 2)
    assert (one.state, one.last_u, one.synced_since_ns, one.counters["discarded"]) == ("synced", 105, 2, 2)
    assert levels(one)[0][0] == (99.9, 2.0)


def test_a_polled_snapshot_inside_a_diff_is_joined_and_one_too_old_is_not() -> None:
    inside = book()
    inside.on_snapshot(diff(0, 100, 0, BIDS, ASKS, EventFlag.JOIN), 0)
    assert inside.on_diff(diff(103, 103, 97, [], [(100.1, 2.0)]), 1)
    late = book()
    late.on_snapshot(diff(0, 100, 0, BIDS, ASKS, EventFlag.JOIN), 0)
    assert not late.on_diff(diff(110, 110, 107, [], [(100.1, 2.0)]), 1)
    assert (late.state, late.mid) == ("unsynced", None)


def test_a_polled_snapshot_is_joined_with_diffs_that_arrived_before_its_reply() -> None:
    one = book()
    for last in range(1, 6):
        one.on_diff(diff(last, last, last - 1, [(99.9, float(last))], []), last)
    assert one.on_snapshot(diff(0, 3, 0, [(99.9, 3.0), (99.8, 1.0)], ASKS, EventFlag.JOIN), 6)
    assert (one.state, one.last_u, one.synced_since_ns, one.counters["applied"]) == ("synced", 5, 6, 2)
    assert levels(one) == ([(99.9, 5.0), (99.8, 1.0)], ASKS)
    assert one.on_diff(diff(6, 6, 5, [], [(100.1, 4.0)]), 7)


def test_a_hole_among_waiting_diffs_leaves_those_behind_it_for_the_next_snapshot() -> None:
    one = book()
    for last, previous in ((4, 3), (5, 4), (8, 7), (9, 8)):
        one.on_diff(diff(last, last, previous, [(99.9, float(last))], []), 1)
    one.on_snapshot(diff(0, 4, 0, BIDS, ASKS, EventFlag.JOIN), 2)
    assert (one.state, one.last_gap, one.stats((0.0, 0.0)).diffs_buffered) == ("unsynced", ("pu_mismatch", 7, 5), 2)
    one.on_snapshot(diff(0, 7, 0, BIDS, ASKS, EventFlag.JOIN), 3)
    assert (one.state, one.last_u, levels(one)[0][0]) == ("synced", 9, (99.9, 9.0))


def test_waiting_diffs_outlive_a_polled_snapshot_that_cannot_be_read() -> None:
    one = book()
    one.on_diff(diff(5, 5, 4, [(99.9, 5.0)], []), 1)
    with pytest.raises(BadLevels):
        one.on_snapshot(diff(0, 4, 0, [(float("nan"), 1.0)], ASKS, EventFlag.JOIN), 2)
    one.on_snapshot(diff(0, 4, 0, BIDS, ASKS, EventFlag.JOIN), 3)
    assert (one.state, one.last_u) == ("synced", 5)


def test_waiting_diffs_are_bounded() -> None:
    one = book()
    for last in range(1, BUFFER_DIFFS + 11):
        one.on_diff(diff(last, last, last - 1, [(99.9, 1.0)], []), last)
    assert (one.stats((0.0, 0.0)).diffs_buffered, one.counters["overflows"]) == (BUFFER_DIFFS, 10)


def test_a_whole_book_has_no_use_for_a_polled_snapshot() -> None:
    one = synced()
    assert not one.on_snapshot(diff(0, 150, 0, [(1.0, 1.0)], [(2.0, 1.0)], EventFlag.JOIN), 1)
    assert (one.state, one.last_u, one.counters["snapshots_unused"]) == ("synced", 100, 1)


@pytest.mark.parametrize(("bids", "asks"), [([], ASKS), (BIDS, []), ([(-1.0, 1.0)], ASKS), (BIDS, [(float("nan"), 1.0)])])
def test_an_unusable_snapshot_is_refused_and_asked_for_again(bids: Levels, asks: Levels) -> None:
    one = synced()
    with pytest.raises(BadLevels):
        one.on_snapshot(diff(200, 200, 0, bids, asks), SECOND)
    assert (one.state, one.mid, one.counters["refused"]) == ("unsynced", None, 1)
    one.on_time(12 * SECOND)
    assert one.resync_asked >= 1


def test_an_unreadable_diff_breaks_the_book() -> None:
    one = synced()
    with pytest.raises(BadLevels):
        one.on_diff(diff(101, 101, 100, [(float("inf"), 1.0)], []), SECOND)
    assert (one.state, one.resync_asked) == ("unsynced", 1)


def test_a_new_book_waits_for_the_snapshot_that_its_subscription_brings() -> None:
    one = book()
    one.on_time(SECOND)
    one.on_time(SECOND + SNAPSHOT_COMES_NS - 1)
    assert one.resync_asked == 0
    one.on_time(SECOND + SNAPSHOT_COMES_NS)
    assert one.resync_asked == 1
    one.on_time(SECOND + SNAPSHOT_COMES_NS + ASK_FIRST_NS - 1)
    assert one.resync_asked == 1
    one.on_time(SECOND + SNAPSHOT_COMES_NS + ASK_FIRST_NS)
    assert one.resync_asked == 2


def test_a_lost_connection_is_waited_for_a_broken_chain_is_not() -> None:
    lost, broken = synced(), synced()
    lost.on_gap(SECOND)
    broken.on_diff(diff(110, 110, 105, [], []), SECOND)
    assert (lost.state, lost.resync_asked, broken.state, broken.resync_asked) == ("unsynced", 0, "unsynced", 1)
    lost.on_time(SECOND + SNAPSHOT_COMES_NS)
    assert lost.resync_asked == 1


def test_a_crossed_book_resyncs_after_5_s() -> None:
    one = synced()
    one.on_diff(diff(101, 101, 100, [(100.5, 1.0)], []), SECOND)
    one.on_time(SECOND + CROSSED_NS)
    assert one.state == "synced" and one.mid is None
    one.on_time(2 * SECOND + CROSSED_NS)
    assert (one.state, one.resync_asked) == ("unsynced", 1)


@pytest.mark.parametrize(("ask", "state"), [(100.0, "unsynced"), (99.9, "unsynced"), (100.1, "synced")])
def test_a_book_that_only_snapshots_make_resyncs_when_they_stay_crossed_or_locked(ask: float, state: str) -> None:
    one = synced()
    for second in range(1, 8):
        one.on_snapshot(diff(100 + second, 100 + second, 0, [(100.0, 1.0)], [(ask, 1.0)]), second * SECOND)
        one.on_time(second * SECOND)
    assert (one.state, one.counters["resyncs"]) == (state, int(state == "unsynced"))


def test_a_snapshot_that_is_not_crossed_ends_the_wait() -> None:
    one = synced()
    for second in range(1, 20):
        bid = 100.2 if second % 4 else 99.9
        one.on_snapshot(diff(100 + second, 100 + second, 0, [(bid, 1.0)], [(100.1, 1.0)]), second * SECOND)
        one.on_time(second * SECOND)
    assert (one.state, one.counters["resyncs"]) == ("synced", 0)


def test_a_finer_tick_begins_the_book_anew_since_levels_may_have_been_merged() -> None:
    one = synced()
    one.set_tick(0.1, 1)
    assert one.state == "synced"
    one.set_tick(0.05, 1)
    assert (one.state, one.mid, one.resync_asked, one.counters["resyncs"]) == ("unsynced", None, 1, 1)
    assert one.on_snapshot(diff(300, 300, 0, [(99.95, 1.0)], [(100.0, 1.0)]), 1)
    assert levels(one) == ([(99.95, 1.0)], [(100.0, 1.0)])


def test_a_finer_tick_of_a_book_that_waits_costs_it_no_diffs() -> None:
    one = synced()
    one.on_gap(SECOND)
    one.on_diff(diff(105, 105, 104, [(99.95, 2.0)], []), SECOND)
    one.set_tick(0.05, SECOND)
    one.on_snapshot(diff(0, 104, 0, BIDS, ASKS, EventFlag.JOIN), 2 * SECOND)
    assert (one.state, levels(one)[0][0]) == ("synced", (99.95, 2.0))


@pytest.mark.parametrize("known", [False, True])
def test_a_restored_book_goes_on(known: bool) -> None:
    one = book()
    one.on_diff(diff(99, 99, 95, [(99.9, 3.0)], []), 0)
    if known:
        one.on_snapshot(diff(0, 100, 0, BIDS, ASKS, EventFlag.JOIN), 0)
    again = WireBook.restored(msgspec.msgpack.decode(msgspec.msgpack.encode(one.state_of())))
    for each in (one, again):
        if not known:
            each.on_snapshot(diff(0, 99, 0, BIDS, ASKS, EventFlag.JOIN), 1)
            each.on_diff(diff(100, 100, 99, [(99.8, 3.0)], []), 1)
        each.on_diff(diff(105, 105, 100, [(99.9, 2.0)], []), 2)
    assert again.state == "synced"
    assert msgspec.msgpack.encode(one.state_of()) == msgspec.msgpack.encode(again.state_of())


class Venue:
    """A naive venue: integers, a dict per side, the messages it sends."""

    def __init__(self) -> None:
        self.u = 10
        self.sides: tuple[dict[int, float], dict[int, float]] = ({999: 1.0}, {1001: 1.0})

    def snapshot(self) -> Any:
        bids, asks = ([(price / 10, qty) for price, qty in side.items()] for side in self.sides)
        return diff(self.u, self.u, 0, bids, asks)

    def change(self, which: int, offset: int, qty: float) -> Any:
        price = (999 - offset) if which == 0 else (1001 + offset)
        side = self.sides[which]
        if offset == 0:
            qty = qty or 1.0  # the touch stays, so that no side is ever empty
        if qty:
            side[price] = qty
        else:
            side.pop(price, None)
        self.u += 1
        changed = [(price / 10, qty)]
        return diff(self.u, self.u, self.u - 1, *((changed, []) if which == 0 else ([], changed)))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["deliver", "deliver", "deliver", "lose", "repeat", "swap"]),
        st.integers(0, 1), st.integers(0, 40), st.sampled_from([0.0, 0.0, 1.0, 2.5, 7.0]),
    ),
    max_size=120,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_a_whole_book_is_the_venues_book_whatever_gets_lost(steps: list[tuple[str, int, int, float]]) -> None:
    venue, one, held, asked = Venue(), book(), None, 0
    one.on_snapshot(venue.snapshot(), 0)
    now_ns, intact = 0, True
    for what, which, offset, qty in steps:
        now_ns += SECOND
        message = venue.change(which, offset, qty)
        sent = {"deliver": [message], "lose": [], "repeat": [message, message], "swap": []}[what]
        if what == "swap":
            held, sent = message, []
        elif held is not None:
            sent, held = [*sent, held], None
        for each in sent:
            one.on_diff(each, now_ns)
        one.on_time(now_ns)
        if one.resync_asked != asked:
            asked = one.resync_asked
            one.on_snapshot(venue.snapshot(), now_ns)
            held = None
        intact = held is None and one.state == "synced" and one.last_u == venue.u
        if intact:
            assert one.ladder is not None
            bids, asks = one.ladder.levels()
            assert {round(price * 10): qty for price, qty in bids} == venue.sides[0]
            assert {round(price * 10): qty for price, qty in asks} == venue.sides[1]
