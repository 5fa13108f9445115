"""The book machine against a naive venue: whatever is lost, late, twice or out of order, a synced book never says something wrong.

A small market changes level by level under ascending ids; its diffs reach the book over a channel that loses, repeats, swaps and
merges them, and snapshots are of a random moment and arrive at a random time. After every event: what the synced book holds as
verified is what the venue had at the book's id, and on the range that the snapshot covered nothing is missing.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import msgspec
import pytest

from mpengine.engine.book import SECOND, UNVERIFIED_NS, Book, Diff
from tests.engine.events import Levels, diff

TICK = 0.1
MID = 1000  # ticks
STEP_NS = SECOND // 10
QUIET = 2000  # steps without faults at the end: longer than the longest wait between two requests

Side = dict[int, float]


@dataclass
class Venue:
    """The truth: two dicts of tick -> quantity, changed one level at a time; each change has its own update id."""

    rng: random.Random
    drift: float
    depth: int
    mid: float = float(MID)
    last: int = 100
    sent: int = 100
    sides: tuple[Side, Side] = field(default_factory=lambda: ({}, {}))
    history: dict[int, tuple[Side, Side]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for away in range(1, 60):
            self.sides[0][MID - away] = self.sides[1][MID + away] = 1.0 + away % 3
        self._remember()

    def _remember(self) -> None:
        self.history[self.last] = (dict(self.sides[0]), dict(self.sides[1]))

    def step(self) -> tuple[int, int, int, Levels, Levels]:
        """Move the market by a few changes; the diff that tells of them, with the final quantity of each touched level."""
        first, touched = self.last + 1, ({}, {})
        self.mid = min(1080.0, max(920.0, self.mid + self.rng.gauss(0.0, self.drift)))
        mid = round(self.mid)
        for side, sign in ((0, -1), (1, 1)):
            gone = [t for t in self.sides[side] if (t - mid) * sign < 1]
            for tick in gone:
                self._set(side, tick, 0.0, touched)
        for _ in range(self.rng.randint(0, 4)):
            side = self.rng.randint(0, 1)
            away = 1 + int(self.rng.expovariate(0.08))
            if away < 100:
                self._set(side, mid + away * (1 if side else -1), self.rng.choice((0.0, 0.5, 2.0, 3.5)), touched)
        self.last += self.rng.randint(1, 3)  # some ids are of other books
        self._remember()
        previous, self.sent = self.sent, self.last
        return first, self.last, previous, _levels(touched[0]), _levels(touched[1])

    def _set(self, side: int, tick: int, qty: float, touched: tuple[Side, Side]) -> None:
        self.last += 1
        if qty:
            self.sides[side][tick] = qty
        else:
            self.sides[side].pop(tick, None)
        touched[side][tick] = qty
        self._remember()

    def snapshot(self, at: int) -> tuple[int, Levels, Levels]:
        """(id, best `depth` bids, asks) of the state with the newest id <= `at`."""
        at = max(known for known in self.history if known <= at)
        bids, asks = self.history[at]
        best = sorted(bids, reverse=True)[: self.depth], sorted(asks)[: self.depth]
        return at, _levels({t: bids[t] for t in best[0]}), _levels({t: asks[t] for t in best[1]})


def _levels(side: Side) -> Levels:
    return [(round(tick * TICK, 1), qty) for tick, qty in side.items()]


def _ticks(levels: Levels) -> Side:
    return {round(price / TICK): qty for price, qty in levels}


def _union(early: Levels, late: Levels) -> Levels:
    return list({**dict(early), **dict(late)}.items())


@dataclass
class Channel:
    """What a network and a restarting feed do to diffs. Probabilities per diff."""

    rng: random.Random
    lose: float
    repeat: float
    swap: float
    merge: float
    held: deque[Diff] = field(default_factory=deque)

    def carry(self, one: Diff) -> list[Diff]:
        if self.rng.random() < self.lose:
            return []
        if self.rng.random() < self.swap:
            self.held.append(one)
            return []
        out = [one, *self.held]
        self.held.clear()
        if self.rng.random() < self.repeat:
            out.append(one)
        return out


class Check:
    """Follows a book from outside and compares it with the venue after each event."""

    def __init__(self, venue: Venue, book: Book) -> None:
        self.venue, self.book = venue, book
        self.covered: tuple[int, int] | None = None
        self.window = (0, 0)
        self.snapshots: dict[int, tuple[int, int]] = {}
        self.seen = 0
        self.synced_checks = 0
        self.unverified: dict[tuple[int, int], int] = {}

    def expect(self, snapshot: tuple[int, Levels, Levels]) -> None:
        prices = [*_ticks(snapshot[1]), *_ticks(snapshot[2])]
        self.snapshots[snapshot[0]] = (min(prices), max(prices))

    def told(self, bids: Levels, asks: Levels) -> None:
        """A diff names these levels: whatever the book does with it, they may count as confirmed from now on."""
        for side, levels in enumerate((bids, asks)):
            for tick in _ticks(levels):
                self.unverified.pop((side, tick), None)

    def __call__(self, now_ns: int) -> None:
        book = self.book
        if book.counters["snapshots"] != self.seen:
            self.seen, self.covered = book.counters["snapshots"], self.snapshots[book.snapshot_id]
            self.window = (0, 10**9)
        ladder = book.ladder
        if not book.synced or ladder is None or self.covered is None:
            return
        # What was outside the ladder at some time since the snapshot may be missing: it is told only when it changes.
        self.window = max(self.window[0], ladder.origin), min(self.window[1], ladder.origin + ladder.size - 1)
        self.synced_checks += 1
        self._check_age(now_ns)
        if book.refreshing:
            return  # says of itself that something small is missing
        low, high = self.covered
        truth = self.venue.history[book.last_u]
        flags = (ladder.bid_unverified, ladder.ask_unverified)
        for side, (levels, true) in enumerate(zip(ladder.levels(), truth)):
            mine = _ticks(levels)
            for tick, qty in mine.items():
                if not flags[side][tick - ladder.origin]:
                    assert true.get(tick) == qty, (side, tick, qty, true.get(tick))
                else:
                    assert tick < low if side == 0 else tick > high, ("unverified inside the snapshot", side, tick)
            first, last = (max(low, self.window[0]), self.window[1]) if side == 0 else (self.window[0], min(high, self.window[1]))
            assert {t: q for t, q in mine.items() if first <= t <= last} == {t: q for t, q in true.items() if first <= t <= last}

    def _check_age(self, now_ns: int) -> None:
        ladder = self.book.ladder
        assert ladder is not None
        now = {}
        for side, flags in enumerate((ladder.bid_unverified, ladder.ask_unverified)):
            for at in flags[:-1].nonzero()[0].tolist():
                key = side, at + ladder.origin
                now[key] = self.unverified.get(key, now_ns)
                assert now_ns - now[key] <= UNVERIFIED_NS + 2 * SECOND, "unverified for more than an hour"
        self.unverified = now


def run(seed: int, steps: int, tolerance: int, *, drift: float = 0.6) -> tuple[Book, Check]:
    """One life of a book under faults, then a quiet end in which it has to be right."""
    rng = random.Random(seed)
    venue = Venue(rng, rng.choice((drift, 5 * drift)), rng.choice((3, 8, 20)))
    faults = rng.choice((0.0, 0.003, 0.02, 0.1))
    channel = Channel(rng, faults, faults, faults / 2, faults)
    book = Book(TICK, 0.12, tolerance)
    check = Check(venue, book)
    waiting: list[tuple[int, tuple[int, Levels, Levels]]] = []
    asked, now_ns, last_sent = 0, 0, None
    told: tuple[Levels, Levels] = ([], [])
    quiet_from = steps - QUIET
    for number in range(steps):
        if number == quiet_from:
            channel.lose = channel.repeat = channel.swap = channel.merge = 0.0
            channel.held.clear()
        jump = rng.random() < 0.001 and number < quiet_from
        now_ns += rng.randint(1, 700) * SECOND if jump else STEP_NS
        first, last, previous, bids, asks = venue.step()
        if rng.random() < channel.merge and last_sent is not None and last_sent.last == previous:
            # Two diffs told as one, beginning with what was told already: quantities are absolute.
            first, previous = last_sent.first, last_sent.previous
            bids, asks = _union(told[0], bids), _union(told[1], asks)
        one = diff(first, last, previous, bids, asks)
        check.told(bids, asks)
        if rng.random() < 0.001 and number < quiet_from:
            book.on_gap(now_ns)
        book.on_time(now_ns // SECOND * SECOND)
        for arrived in channel.carry(one):
            book.on_diff(arrived, now_ns)
            check(now_ns)
        last_sent, told = one, (bids, asks)
        if book.resync_asked != asked or (rng.random() < 0.002 and number < quiet_from):
            asked = book.resync_asked
            age, delay = rng.randint(-60, 60), rng.randint(0, 30)
            waiting.append((number + delay, venue.snapshot(max(100, venue.last + min(0, age)))))
        for item in [w for w in waiting if w[0] <= number]:
            waiting.remove(item)
            # The reply may be ahead of the socket: then it is of this very moment.
            reply = venue.snapshot(venue.last) if rng.random() < 0.5 else item[1]
            check.expect(reply)
            book.on_snapshot(diff(0, reply[0], 0, reply[1], reply[2]), now_ns)
            check(now_ns)
        if rng.random() < 0.002:
            book = check.book = Book.restored(msgspec.msgpack.decode(msgspec.msgpack.encode(book.state_of())))
        for known in [k for k in venue.history if k < venue.last - 400]:
            del venue.history[known]
    return book, check


@pytest.mark.parametrize("tolerance", [0, 12])
@pytest.mark.parametrize("seed", range(6))
def test_a_synced_book_is_never_wrong_and_always_comes_back(seed: int, tolerance: int) -> None:
    book, check = run(seed, 3500, tolerance)
    assert check.synced_checks > 1000
    assert book.synced and not book.refreshing and book.mid is not None
    best = max(check.venue.sides[0]), min(check.venue.sides[1])
    assert (round(book.ladder.bid_price / TICK), round(book.ladder.ask_price / TICK)) == best  # type: ignore[union-attr,operator]


@pytest.mark.stress
def test_a_synced_book_is_never_wrong_long() -> None:
    for seed in range(1000, 1040):
        for tolerance in (0, 3, 12):
            book, check = run(seed, 12_000, tolerance, drift=random.Random(seed).choice((0.2, 0.6, 2.0)))
            assert book.synced and check.synced_checks > 1000, (seed, tolerance)
