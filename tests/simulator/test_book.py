"""The book against a plain dictionary: whatever is done to it, best, top and drained changes are those of the dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpengine.simulator.book import ASK, BID, Book, BookSide, Sign

TICKS = st.integers(1, 4000)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), TICKS, st.integers(0, 5)),
        st.tuples(st.just("take"), st.integers(1, 12), TICKS),
        st.tuples(st.just("retreat"), TICKS, st.just(0)),
    ),
    max_size=60,
)


def filled(sign: Sign, *ticks: int) -> BookSide:
    side = BookSide(sign)
    for tick in ticks:
        side.put(tick, 3)
    return side


@settings(max_examples=150, deadline=None)
@given(sign=st.sampled_from([BID, ASK]), first=TICKS, actions=ACTIONS, count=st.integers(1, 30))
def test_a_side_agrees_with_a_dictionary(sign: Sign, first: int, actions: list[tuple[str, int, int]], count: int) -> None:
    side, followed = filled(sign, first), {first: 3}
    side.touched = {}
    for name, a, b in actions:
        before = dict(side.levels)
        if name == "put":
            side.put(a, b)
            if b:
                assert side.levels == {**before, a: b}
            else:
                assert side.levels == ({k: v for k, v in before.items() if k != a} if len(before) > 1 else before)
        elif name == "take":
            fills = side.take(a, b)
            assert sum(lots for _, lots in fills) <= a
            assert all((tick - b) * sign >= 0 and lots <= before[tick] for tick, lots in fills)
            assert [tick for tick, _ in fills] == sorted((tick for tick, _ in fills), reverse=sign == BID)
        else:
            side.retreat(a)
            assert len(side.levels) == 1 or (side.best - a) * sign <= 0
        assert side.levels
        assert side.best == (max(side.levels) if sign == BID else min(side.levels))
        assert min(side.levels.values()) > 0
    ordered = sorted(side.levels.items(), reverse=sign == BID)
    assert side.top(count) == ordered[:count]
    for tick, lots in side.touched.items():
        followed.pop(tick, None)
        if lots:
            followed[tick] = lots
    assert followed == side.levels


def test_an_order_takes_level_by_level_and_stops_at_its_limit() -> None:
    side = filled(ASK, 10, 11, 13)
    assert side.take(7, 11) == [(10, 3), (11, 3)]
    assert side.best == 13
    side = filled(BID, 10, 9)
    assert side.take(4, 1) == [(10, 3), (9, 1)]
    assert side.levels == {9: 2}


def test_the_last_level_stays_whatever_happens() -> None:
    side = filled(BID, 10)
    side.put(10, 0)
    assert side.take(5, 1) == []
    side.retreat(1)
    assert side.levels == {10: 3}


def test_a_book_knows_its_touch_and_forgets_what_was_drained() -> None:
    book = Book()
    book.bids.put(9, 2)
    book.asks.put(11, 4)
    assert (book.touch, book.middle, book.crossed) == ((9, 2, 11, 4), 10.0, False)
    assert book.drain() == ({9: 2}, {11: 4})
    assert book.drain() == ({}, {})
    book.bids.put(11, 1)
    assert book.crossed


@pytest.mark.parametrize("sign", [BID, ASK])
def test_gaps_wider_than_the_walk_are_found(sign: Sign) -> None:
    side = filled(sign, 100_000, 100_000 - sign * 50_000)
    side.put(100_000, 0)
    assert side.best == 100_000 - sign * 50_000
    assert side.top(5) == [(side.best, 3)]
