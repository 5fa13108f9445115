"""The shape of the book that makers keep: dense near the touch, bounded, never crossed, walls at round prices."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mpengine.simulator.book import Book
from mpengine.simulator.draws import Draws
from mpengine.simulator.makers import REACH, Makers

MID = 1_000_000  # ticks: BTC at 100,000 with ticks of 0.1


def makers(seed: int = 1) -> Makers:
    return Makers(0.1, 0.001, 100_000.0, 40_000.0, Draws(np.random.default_rng(seed)))


def seeded(seed: int = 1) -> tuple[Makers, Book]:
    one, book = makers(seed), Book()
    one.seed(book, MID, MID + 1)
    return one, book


def test_the_lattice_gets_coarser_and_each_step_divides_the_next() -> None:
    one = makers()
    spacing = [one.lattice(d) for d in range(0, 100_000, 50)]
    assert spacing == sorted(spacing)
    assert spacing[0] == 1 and spacing[-1] >= 100
    assert all(b % a == 0 for a, b in pairwise(spacing))


def test_a_seeded_book_is_dense_near_the_touch_and_reaches_ten_per_cent() -> None:
    _, book = seeded()
    for side in (book.bids, book.asks):
        distances = np.array([(side.best - tick) * side.sign for tick in side.levels])
        assert (distances < 1000).sum() > 700
        assert 0.099 * MID < distances.max() <= REACH * MID * 1.001
        assert 1500 < len(distances) < 6000
    assert not book.crossed


def test_round_prices_carry_walls() -> None:
    _, book = seeded()
    walls = [lots for tick, lots in book.bids.levels.items() if tick % 1000 == 0 and MID - tick > 30_000]
    others = [lots for tick, lots in book.bids.levels.items() if tick % 1000 and MID - tick > 30_000]
    assert np.median(walls) > 2 * np.median(others)


@pytest.mark.parametrize(("bid", "ask"), [(10, 10), (11, 10), (0, 5)])
def test_a_book_is_not_seeded_around_an_impossible_touch(bid: int, ask: int) -> None:
    with pytest.raises(ValueError, match="touch"):
        makers().seed(Book(), bid, ask)


@pytest.mark.parametrize("jump", [1, 7, 300, 20_000, 90_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_following_moves_the_touch_and_cancels_what_is_in_the_way(jump: int, sign: int) -> None:
    one, book = seeded()
    bid = MID + sign * jump
    one.follow(book, bid, bid + 3)
    assert (book.bids.best, book.asks.best) == (bid, bid + 3)
    assert not book.crossed


def test_days_of_unrest_and_trend_leave_the_book_bounded_and_uncrossed() -> None:
    one, book = seeded()
    rng = np.random.default_rng(3)
    bid = MID
    for step in range(6000):
        bid += int(rng.normal(20.0 if step < 3000 else -25.0, 60.0))
        one.follow(book, bid, bid + 1)
        one.fidget(book, 20, 4)
        assert not book.crossed
    for side in (book.bids, book.asks):
        distances = np.array([(side.best - tick) * side.sign for tick in side.levels])
        assert 300 < len(side.levels) < 9000
        assert distances.max() < REACH * 1.3 * bid
        assert min(side.levels.values()) >= 1


def test_unrest_touches_levels_near_and_far_but_not_the_touch_away() -> None:
    one, book = seeded()
    book.drain()
    far = near = 0
    for _ in range(300):
        one.fidget(book, 20, 4)
        assert (book.bids.best, book.asks.best) == (MID, MID + 1)
        for changes in book.drain():
            near += sum(abs(tick - MID) < 1000 for tick in changes)
            far += sum(abs(tick - MID) >= 1000 for tick in changes)
    assert near > 3000 and far > 300
