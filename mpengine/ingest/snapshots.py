"""Book snapshots on request: an engine raises its resync word on the board, ingest answers with snapshot events.

Where a subscription brings the snapshot, the answer is a new subscription, and REST only stands in for one that did not come.
The schedule is pure: at most one request per symbol and `snapshot_interval_s`, one at a time and at most one per second over the
whole venue, doubling to 120 s while they fail. Words only rise; at the start of ingest a word above 0 counts as a request, because
it may have been raised while nobody was here, and an answer that is not needed costs one REST call. Not so where a connection
brings its snapshots by itself: there those words are answered already.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from mpengine.ingest.backoff import doubling_s
from mpengine.ingest.counts import Counts
from mpengine.ingest.feeds import Feed
from mpengine.venues.base import RestCall, RestResult, SocketPlan
from shm.board_words import Word, resync_word
from shm.records import Kind

SECOND: Final = 1_000_000_000
VENUE_GAP_S: Final = 1.0
BACKOFF_MAX_S: Final = 120.0
LOOK_S: Final = 0.05
RECORD_EVERY_S: Final = 300.0
"""Without engines nobody asks: a capture gets a snapshot per book after each connect and at this interval."""
ENOUGH_DIFFS: Final = 2

log = logging.getLogger("mpengine.ingest.snapshots")


class SnapshotSchedule:
    """Which symbol of one venue may be asked for now. Pure; monotonic ns come in.

    A symbol that was taken is given back by `done` or `put_off`.
    """

    __slots__ = ("_allowed_ns", "_asked", "_busy", "_failures", "_interval_ns", "_venue_ns")

    def __init__(self, interval_s: float) -> None:
        self._interval_ns = int(interval_s * SECOND)
        self._asked: dict[str, None] = {}  # in order of asking
        self._allowed_ns: dict[str, int] = {}
        self._failures: dict[str, int] = {}
        self._venue_ns = 0
        self._busy = False

    def ask(self, symbol: str) -> None:
        """A snapshot of this symbol is wanted; asking again before the request goes out changes nothing."""
        self._asked.setdefault(symbol)

    def take(self, now_ns: int) -> str | None:
        """The symbol to request now, the longest waiting first; None while nothing may go out."""
        if self._busy or now_ns < self._venue_ns:
            return None
        for symbol in self._asked:
            if now_ns >= self._allowed_ns.get(symbol, 0):
                del self._asked[symbol]
                self._busy = True
                self._venue_ns = now_ns + int(VENUE_GAP_S * SECOND)
                self._allowed_ns[symbol] = now_ns + self._interval_ns
                return symbol
        return None

    def done(self, symbol: str, ok: bool, now_ns: int) -> None:
        """The request has ended. A failed one is asked for again by itself, after the interval, then doubling to 120 s."""
        self._busy = False
        if ok:
            self._failures.pop(symbol, None)
            return
        failures = self._failures[symbol] = self._failures.get(symbol, 0) + 1
        wait_s = doubling_s(failures, self._interval_ns / SECOND, max(BACKOFF_MAX_S, self._interval_ns / SECOND))
        self._allowed_ns[symbol] = now_ns + int(wait_s * SECOND)
        self.ask(symbol)

    def put_off(self, symbol: str, now_ns: int) -> None:
        """Nothing could be sent (REST is paused): no failure of the request, it goes out as soon as it may."""
        self._busy = False
        self._allowed_ns[symbol] = now_ns + int(VENUE_GAP_S * SECOND)
        self.ask(symbol)

    @property
    def waiting(self) -> int:
        """Symbols that are asked for and not yet requested."""
        return len(self._asked)


class Keeper(Protocol):
    """What is needed of a `SocketKeeper`."""

    @property
    def plan(self) -> SocketPlan: ...
    def resubscribe(self, stream: str) -> bool: ...


class Rest(Protocol):
    """What is needed of a `Poller`."""

    async def request(self, call: RestCall) -> RestResult | None: ...


class SnapshotDesk:
    """Answers the snapshot requests of one venue: `schedule` over REST, `again` by a new subscription where that brings them."""

    def __init__(
        self, feed: Feed, rest: Rest, keepers: Iterable[Keeper], counts: Counts, interval_s: float,
        overdue: Callable[[], Iterable[str]] = tuple,
    ) -> None:  # fmt: skip
        """`overdue()`: symbols whose snapshot a subscription has not brought in time."""
        self.feed = feed
        self.schedule = SnapshotSchedule(interval_s)
        self.again = SnapshotSchedule(interval_s)
        self._rest = rest
        self._keepers = list(keepers)
        self._counts = counts
        self._overdue = overdue

    async def run(self, wanted: Callable[[int], Iterable[str]]) -> None:
        """Every 50 ms take in what `wanted(now_ns)` asks for and what is overdue, and answer, until cancelled."""
        if self.feed.module.wire_snapshots:
            # Two at a time: a REST reply that hangs keeps no subscription waiting.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._serve(self.again, wanted, self._resubscribe))
                tasks.create_task(self._serve(self.schedule, lambda _now_ns: self._overdue(), self._request))
        else:
            await self._serve(self.schedule, wanted, self._request)

    async def _serve(
        self, schedule: SnapshotSchedule, wanted: Callable[[int], Iterable[str]], answer: Callable[[str], Awaitable[bool | None]]
    ) -> None:
        while True:
            for one in wanted(time.monotonic_ns()):
                schedule.ask(one)
            symbol = schedule.take(time.monotonic_ns())
            if symbol is None:
                await asyncio.sleep(LOOK_S)
                continue
            ok: bool | None = False
            try:
                ok = await answer(symbol)
            finally:
                if ok is None:
                    schedule.put_off(symbol, time.monotonic_ns())
                else:
                    schedule.done(symbol, ok, time.monotonic_ns())

    async def _request(self, symbol: str) -> bool | None:
        """Whether REST brought the snapshot; None where it may not be asked now. True without a call: nothing can be done."""
        call = self.feed.module.snapshot_call(symbol)
        if call is None:
            return True
        result = await self._rest.request(call)
        if result is None:
            return None
        ok = result is RestResult.OK
        if ok:
            self._counts.add(Word.RESYNC_DONE)
        log.log(
            logging.INFO if ok else logging.WARNING, "%s %s: book snapshot %s", self.feed.name, symbol, "sent" if ok else "failed"
        )
        return ok

    async def _resubscribe(self, symbol: str) -> bool:
        """Take the book's stream anew on each connection that carries it. Where there is none, the next one brings the snapshot."""
        asked = [
            keeper.resubscribe(stream.name)
            for keeper in self._keepers
            for stream in keeper.plan.streams
            if stream.kind is Kind.DEPTH and stream.symbol == symbol
        ]
        if any(asked):
            self._counts.add(Word.RESYNC_DONE)
            log.info("%s %s: book snapshot asked for by a new subscription", self.feed.name, symbol)
        return True


class Words(Protocol):
    """What is needed of `shm.board.BoardReader`."""

    def get(self, row: int, word: int) -> int: ...


class BoardWishes:
    """Requests that engines put on the board. `rows`: symbol -> number of its engine's row.

    A request waits until `flows(symbol)`: a snapshot that is older than the first diff of the connection cannot be joined to it,
    and the next one may only be asked for after the interval.
    """

    def __init__(
        self, board: Words, rows: dict[str, int], venue: int, flows: Callable[[str], bool], *, fresh: bool = False
    ) -> None:
        """`fresh`: this process's connections bring their snapshots by themselves, so words raised before it began are answered."""
        self._board = board
        self._rows = rows
        self._flows = flows
        self._word = resync_word(venue)
        self._seen = {symbol: board.get(row, self._word) if fresh else 0 for symbol, row in rows.items()}

    def __call__(self, now_ns: int) -> list[str]:
        """Symbols whose word has changed since the last look, or, unless `fresh`, is above 0 at the first one."""
        wanted = []
        for symbol, row in self._rows.items():
            value = self._board.get(row, self._word)
            if value != self._seen[symbol] and (not value or self._flows(symbol)):
                self._seen[symbol] = value
                if value:  # 0: the engine has begun anew and asks for nothing
                    wanted.append(symbol)
        return wanted


def book_flows(feed: Feed, symbol: str) -> bool:
    """Whether an open connection has delivered diffs of a symbol's book: at least two come before the snapshot (3.5)."""
    return any(
        life_stats[stream.name].messages >= ENOUGH_DIFFS
        for life in feed.lives.values()
        for stream in life.plan.streams
        if stream.kind is Kind.DEPTH and stream.symbol == symbol and stream.name in (life_stats := feed.module.stats(life.name))
    )


class RecordWishes:
    """What a recording without engines wants: each book once after a connect, when diffs arrive, and every RECORD_EVERY_S."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._due_ns: dict[tuple[str, str], int] = {}

    def __call__(self, now_ns: int) -> list[str]:
        """Symbols whose connection is new or whose last snapshot is old."""
        wanted, due_ns = [], {}
        for life in self._feed.lives.values():
            stats = self._feed.module.stats(life.name)
            for stream in life.plan.streams:
                if stream.kind is not Kind.DEPTH or stream.symbol is None:
                    continue
                key = life.name, stream.symbol
                due_ns[key] = self._due_ns.get(key, 0)
                delivered = stats[stream.name].messages if stream.name in stats else 0
                if delivered >= ENOUGH_DIFFS and now_ns >= due_ns[key]:
                    due_ns[key] = now_ns + int(RECORD_EVERY_S * SECOND)
                    wanted.append(stream.symbol)
        self._due_ns = due_ns
        return wanted
