"""Totals on the board go on over restarts; the same trouble is logged rarely."""

from __future__ import annotations

from mpengine.ingest.counts import Counts, Rarely
from shm.board_words import Word
from shm.process_shell import NullRow


def test_totals_go_on_from_where_the_process_before_left_them() -> None:
    row = NullRow()
    first = Counts()
    first.add(Word.MESSAGES, 5)
    first.put(Word.GAPS, 2)
    first.publish(row)
    second = Counts()
    second.add(Word.MESSAGES)
    second.put(Word.GAPS, 0)
    second.publish(row)
    second.add(Word.MESSAGES)
    second.publish(row)
    assert row.get(Word.MESSAGES) == 7
    assert row.get(Word.GAPS) == 2
    assert second.get(Word.MESSAGES) == 2
    assert second.get(Word.EVENTS) == 0


def test_one_line_per_interval_and_key_says_how_many_were_held_back() -> None:
    rarely = Rarely(10)
    second = 10**9
    assert rarely.admit("a", 0) == 0
    assert rarely.admit("b", 1) == 0
    assert [rarely.admit("a", n * second) for n in (1, 2, 9)] == [None] * 3
    assert rarely.admit("a", 10 * second) == 3
    assert rarely.admit("a", 20 * second) == 0


def test_keys_are_bounded() -> None:
    rarely = Rarely(10)
    for n in range(2000):
        assert rarely.admit(n, 0) == 0
    assert rarely.admit(1999, 1) is None
    assert rarely.admit(0, 1) == 0  # forgotten
