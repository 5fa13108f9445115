"""One venue's order book: synchronisation of diffs and snapshots over a tick ladder (`spec: engine`, section 16). Pure.

unsynced -> syncing -> synced. The book does no I/O: it raises `resync_asked` (a count that only rises) and ingest answers with a
snapshot record. A diff that does not bridge is never applied; what is not known is not guessed, the book resyncs instead.
Every method takes `now_ns`, the engine time.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final, NamedTuple

from mpengine.engine.ladder import BadLevels, Ladder, LevelBlock
from mpengine.schemas import BookState, BookStats, GapType
from shm.records import DEPTH, EventFlag

SECOND: Final = 1_000_000_000
BUFFER_DIFFS: Final = 1000
BOOK_STALE_NS: Final = 60 * SECOND
BOOK_QUIET_NS: Final = 5 * SECOND
CROSSED_NS: Final = 5 * SECOND
ASK_FIRST_NS: Final = 10 * SECOND
ASK_LONGEST_NS: Final = 120 * SECOND
KEEP_FAR_NS: Final = 600 * SECOND
UNVERIFIED_NS: Final = 3600 * SECOND


class Diff(NamedTuple):
    """A depth or snapshot record: update ids and its (price, quantity) pairs, `bids` then `asks`, from pair `start` of `block`."""

    first: int
    last: int
    previous: int
    bids: int
    asks: int
    flags: int
    venue_ts_ns: int
    block: LevelBlock
    start: int

    def detached(self) -> Diff:
        """The same with a block of its own, so that a waiting diff does not hold its whole batch."""
        return self._replace(block=LevelBlock(self.levels), start=0)

    @property
    def levels(self) -> bytes:
        """The pairs as bytes."""
        return self.block.raw(self.start, self.bids + self.asks)

    @property
    def prices(self) -> list[float]:
        """Prices of all levels, bids first."""
        found: list[float] = self.block.prices[self.start : self.start + self.bids + self.asks].tolist()
        return found


def read_diff(body: bytes, offset: int, block: LevelBlock) -> Diff:
    """The DEPTH-shaped record at `offset` of a batch body, whose `block` is made of the same body."""
    _, _, _, flags, count, venue_ns, _, last, previous, first, bids, asks, _ = DEPTH.unpack_from(body, offset)
    if bids + asks != count:
        raise BadLevels("level counts do not add up")
    return Diff(first, last, previous, bids, asks, flags, venue_ns, block, (offset + DEPTH.size) >> 4)


class Book:
    """A venue's book, with the continuity of Binance: diffs chain by `pu`, the snapshot is polled. `wire_book` has the others'.

    `tick` may change; `gap_tolerance` is in update ids.
    """

    __slots__ = (
        "_ask_after_ns", "_ask_interval_ns", "_asked_ns", "_buffer", "_crossed_since_ns", "_diffs_in_sync",
        "_one_sided_since_ns", "_prune_pct", "_snapshot", "_sync_started_ns", "_unsynced_since_ns", "_unverified_since_ns",
        "counters", "first_applied", "gap_tolerance", "ladder", "last_gap", "last_u", "last_update_ns", "last_venue_ns",
        "max_sync_ns", "partial", "refreshing", "resync_asked", "snapshot_id", "state", "synced_since_ns", "tick",
    )  # fmt: skip

    def __init__(self, tick: float, prune_pct: float, gap_tolerance: int) -> None:
        self.tick = tick
        self._prune_pct = prune_pct
        self.gap_tolerance = gap_tolerance
        self.ladder: Ladder | None = None
        self.state: BookState = "unsynced"
        self.resync_asked = 0
        self.partial = False
        self.refreshing = False
        self.last_u = 0
        self.snapshot_id = 0
        self.first_applied = (0, 0)
        self.last_gap: tuple[GapType, int, int] = ("", 0, 0)
        self.last_update_ns: int | None = None
        self.last_venue_ns = 0
        self.synced_since_ns: int | None = None
        self.max_sync_ns = 0
        self.counters = dict.fromkeys(
            ("applied", "discarded", "resyncs", "snapshots", "gaps_tolerated", "overlaps", "pu_gaps", "u_gaps", "refused",
             "overflows", "unverified_dropped", "snapshots_unused"), 0,
        )  # fmt: skip
        self._buffer: deque[Diff] = deque()
        self._snapshot: Diff | None = None
        self._asked_ns: int | None = None
        self._ask_after_ns = 0
        self._ask_interval_ns = ASK_FIRST_NS
        self._sync_started_ns: int | None = None
        self._unsynced_since_ns: int | None = None
        self._unverified_since_ns: int | None = None
        self._crossed_since_ns: int | None = None
        self._one_sided_since_ns: int | None = None
        self._diffs_in_sync = 0

    # reading -----------------------------------------------------------------------------------------------------------

    @property
    def synced(self) -> bool:
        """Diffs are applied as they come."""
        return self.state == "synced"

    @property
    def mid(self) -> float | None:
        """Mid price while synced; None if unsynced, one-sided, crossed or locked."""
        return self.ladder.mid if self.ladder is not None and self.state == "synced" else None

    def counts_at(self, now_ns: int) -> bool:
        """The book belongs into the aggregate: synced, and updated in the last 60 s."""
        if self.state != "synced" or self.last_update_ns is None or self.ladder is None:
            return False
        return now_ns - self.last_update_ns <= BOOK_STALE_NS

    def fresh_at(self, now_ns: int) -> bool:
        """A diff was applied in the last 5 s. An older book still counts, but its readers must know: nothing tells a still market
        from a dead feed before the watchdog does."""
        return self.last_update_ns is not None and now_ns - self.last_update_ns <= BOOK_QUIET_NS

    # events ------------------------------------------------------------------------------------------------------------

    def on_record(self, body: bytes, offset: int, block: LevelBlock, now_ns: int) -> bool:
        """`on_diff` of the DEPTH record at `offset` of a batch body, whose `block` is made of the same body."""
        _, _, _, _, count, venue_ns, _, last, previous, _, bids, asks, _ = DEPTH.unpack_from(body, offset)
        ladder = self.ladder
        # PERF: the next diff of an undisturbed chain, which is nearly every one, needs none of what follows.
        if previous != self.last_u or last <= previous or self.state != "synced" or self.refreshing or ladder is None:
            return self.on_diff(read_diff(body, offset, block), now_ns)
        if bids + asks != count:
            raise BadLevels("level counts do not add up")
        self._apply_levels(ladder, block, (offset + DEPTH.size) >> 4, bids, asks, last, venue_ns, now_ns)
        return True

    def on_diff(self, diff: Diff, now_ns: int) -> bool:
        """Apply or buffer one diff; True if the book changed. Raises BadLevels (the diff is refused, the book resyncs)."""
        if self.state != "synced":
            self._keep(diff)
            return self._try_sync(now_ns)
        if diff.last <= self.last_u:
            self.counters["discarded"] += 1
            if self.last_u - diff.last > self.gap_tolerance:
                self._break("u_gap", diff, now_ns)
            return False
        if diff.previous > self.last_u:
            if diff.previous - self.last_u > self.gap_tolerance:
                self._break("pu_mismatch", diff, now_ns)
                return False
            # A small forward jump passes, is counted, and a new snapshot follows at low priority.
            self.counters["gaps_tolerated"] += 1
            self.last_gap = ("pu_mismatch", diff.previous, self.last_u)
            self.refreshing = True
            self._ask(now_ns)
        elif diff.previous < self.last_u:
            self.counters["overlaps"] += 1
        self._apply(diff, now_ns)
        if self.refreshing:
            self._keep(diff)  # what comes before the snapshot is applied again on top of it
            self._try_sync(now_ns)
        return True

    def on_snapshot(self, snapshot: Diff, now_ns: int) -> bool:
        """A snapshot record; True if the book changed. Without a ladder its mid becomes the reference.

        A synced book whose chain holds needs none and keeps what it has: it knows more than a snapshot tells. One that started
        without a snapshot takes the first that it can join.
        """
        if self.state == "synced" and not self.refreshing:
            if not self.partial:
                self.counters["snapshots_unused"] += 1
                return False
            self.refreshing = True
        self._snapshot = snapshot.detached()
        if self.state == "unsynced":
            self.state = "syncing"
        return self._try_sync(now_ns)

    def on_gap(self, now_ns: int) -> None:
        """The feed has a hole: nothing that follows can be applied before a new snapshot."""
        self._unsync(now_ns)

    def on_time(self, now_ns: int) -> None:
        """Time passed: watch for silence, a crossed book, unconfirmed levels; ask for a snapshot when one is due."""
        if self.state == "synced":
            self._watch(now_ns)
        if self.state != "synced" or self.refreshing:
            self._ask(now_ns)
        if _older(self._unverified_since_ns, UNVERIFIED_NS, now_ns):
            self._drop_unverified(now_ns)

    def on_clock_set_back(self, now_ns: int) -> None:
        """Engine time begins anew at an earlier `now_ns`: nothing here may wait for a time that is years away."""
        self._unsync(now_ns)
        self._asked_ns, self._ask_after_ns, self._ask_interval_ns = None, now_ns, ASK_FIRST_NS
        self._unsynced_since_ns = self._sync_started_ns = self.last_update_ns = None
        if self.ladder is not None:
            self.ladder.clear()
        self._unverified_since_ns = None
        self._ask(now_ns)

    def set_tick(self, tick: float, now_ns: int) -> None:
        """The venue's tick size; a change rebuilds the ladder from its levels. ValueError for a bad one, which changes nothing."""
        if tick == self.tick:
            return
        if self.ladder is not None:
            self.ladder = self.ladder.with_tick(tick, self.ladder.mid or _centre(self.ladder))
        self.tick = tick

    # synchronisation ---------------------------------------------------------------------------------------------------

    def _keep(self, diff: Diff) -> None:
        if len(self._buffer) >= BUFFER_DIFFS:
            self._buffer.popleft()
            self._snapshot = None
            if self.state != "synced":
                self.state = "unsynced"
            self.counters["overflows"] += 1
        self._buffer.append(diff.detached())

    def _ask(self, now_ns: int) -> None:
        if now_ns < self._ask_after_ns:
            return
        if self._sync_started_ns is None and self.state != "synced":
            self._sync_started_ns = now_ns
        self.resync_asked += 1
        self._asked_ns = now_ns
        self._ask_after_ns = now_ns + self._ask_interval_ns
        self._ask_interval_ns = min(2 * self._ask_interval_ns, ASK_LONGEST_NS)

    def _break(self, kind: GapType, diff: Diff, now_ns: int) -> None:
        self.counters["pu_gaps" if kind == "pu_mismatch" else "u_gaps"] += 1
        self.last_gap = (kind, diff.previous, self.last_u)
        self._unsync(now_ns)
        self._keep(diff)

    def _unsync(self, now_ns: int) -> None:
        if self.state == "synced":
            self.counters["resyncs"] += 1
            self._unsynced_since_ns = now_ns
        self.state = "unsynced"
        self.refreshing = False
        self.synced_since_ns = None
        self._snapshot = None
        self._crossed_since_ns = self._one_sided_since_ns = None
        self._buffer.clear()
        self._ask(now_ns)

    def _try_sync(self, now_ns: int) -> bool:
        """Join the pending snapshot with the buffered diffs. True if the book changed."""
        snapshot = self._snapshot
        if snapshot is None:
            return False
        while self._buffer and self._buffer[0].last < snapshot.last:
            self._buffer.popleft()
            self.counters["discarded"] += 1
        if not self._buffer:
            return False  # nothing to bridge yet: the snapshot waits for the diff that does
        first = self._buffer[0]
        if not (first.first <= snapshot.last <= first.last or first.previous == snapshot.last):
            self._snapshot = None
            if self.state != "synced":
                self.state = "unsynced"
                self._ask(now_ns)
            return False
        self._start_from(snapshot, now_ns)
        return True

    def _start_from(self, snapshot: Diff, now_ns: int) -> None:
        self._snapshot = None
        diffs = self._take_snapshot(snapshot, now_ns)
        self.partial = bool(snapshot.flags & EventFlag.PARTIAL)
        self.first_applied = (diffs[0].first, diffs[0].last)
        self._diffs_in_sync = 0
        self._end_sync(now_ns)
        self.refreshing = False
        # The first diff may begin before the snapshot (quantities are absolute); from there on the chain decides.
        self._apply(diffs[0], now_ns)
        self._go_on(diffs[1:], now_ns)

    def _take_snapshot(self, snapshot: Diff, now_ns: int) -> list[Diff]:
        """Load it; the diffs that waited for it. Raises BadLevels: the book resyncs, and they wait on."""
        waiting = list(self._buffer)
        self._buffer.clear()
        try:
            self._load(snapshot, now_ns)
        except BadLevels:
            self.counters["refused"] += 1
            self._unsync(now_ns)
            self._buffer.extend(waiting)
            raise
        self.counters["snapshots"] += 1
        self.snapshot_id = snapshot.last
        return waiting

    def _end_sync(self, now_ns: int) -> None:
        """The book is whole from here on."""
        if self._sync_started_ns is not None:
            self.max_sync_ns = max(self.max_sync_ns, now_ns - self._sync_started_ns)
        if self.state != "synced":
            self.synced_since_ns = now_ns
        self.state, self._sync_started_ns = "synced", None
        self._settle_asking()

    def _go_on(self, diffs: list[Diff], now_ns: int) -> None:
        """Diffs that waited for the snapshot; behind one that breaks the chain they wait for the next."""
        for at, diff in enumerate(diffs):
            if self.state == "unsynced":
                for later in diffs[at:]:
                    self._keep(later)
                return
            self.on_diff(diff, now_ns)

    def _settle_asking(self) -> None:
        """The waits that grew while snapshots failed end with a success: the next one may be asked for 10 s after the last."""
        self._ask_interval_ns = ASK_FIRST_NS
        if self._asked_ns is not None:
            self._ask_after_ns = self._asked_ns + ASK_FIRST_NS

    def _load(self, snapshot: Diff, now_ns: int) -> None:
        """Snapshot levels into the ladder: the price range it covers is replaced, what lies beyond is kept as unverified."""
        ladder = self.ladder
        if not snapshot.bids or not snapshot.asks:
            if ladder is not None:
                ladder.clear()
            return
        prices = snapshot.prices
        stop = snapshot.start + len(prices)
        if not snapshot.block.sound(snapshot.start, stop) or min(prices) <= 0.0:
            raise BadLevels("snapshot level out of range")
        reference = (prices[0] + prices[snapshot.bids]) / 2
        if ladder is None:
            ladder = self.ladder = Ladder(self.tick, self._prune_pct, reference)
        elif ladder.needs_recentring(reference):
            ladder.recentre(reference)
        away_ns = now_ns - self._unsynced_since_ns if self._unsynced_since_ns is not None else 0
        if self.state != "synced" and away_ns >= KEEP_FAR_NS:
            ladder.clear()
        else:
            ladder.clear_covered(min(prices), max(prices))
            ladder.mark_unverified(now_ns)
        self._unverified_since_ns = ladder.oldest_unverified()
        ladder.apply(snapshot.block, snapshot.start, snapshot.bids, snapshot.asks)

    def _apply(self, diff: Diff, now_ns: int) -> None:
        if self.ladder is None:
            self.ladder = Ladder(self.tick, self._prune_pct, _reference_of(diff))
        self._apply_levels(self.ladder, diff.block, diff.start, diff.bids, diff.asks, diff.last, diff.venue_ts_ns, now_ns)

    def _apply_levels(
        self, ladder: Ladder, block: LevelBlock, start: int, bids: int, asks: int, last: int, venue_ns: int, now_ns: int
    ) -> None:
        try:
            ladder.apply(block, start, bids, asks)
        except BadLevels:
            self.counters["refused"] += 1
            self._unsync(now_ns)
            raise
        self.last_u = last
        self.last_update_ns = now_ns
        if venue_ns > self.last_venue_ns:
            self.last_venue_ns = venue_ns
        self.counters["applied"] += 1
        self._diffs_in_sync += 1
        if ladder.best_bid >= ladder.best_ask and ladder.has_unverified:
            self.counters["unverified_dropped"] += ladder.drop_disproved()
        if ladder.best_bid < ladder.best_ask:
            self._crossed_since_ns = None
        elif self._crossed_since_ns is None:
            self._crossed_since_ns = now_ns

    def _watch(self, now_ns: int) -> None:
        if _older(self._crossed_since_ns, CROSSED_NS, now_ns) or _older(self.last_update_ns, BOOK_STALE_NS, now_ns):
            self._unsync(now_ns)
            return
        ladder = self.ladder
        if ladder is None or ladder.crossed:
            return
        mid = ladder.mid
        if mid is None and not self.partial:
            # Only a price that has left the whole ladder at once empties a side for so long: a snapshot brings the ladder after it.
            self._one_sided_since_ns = self._one_sided_since_ns or now_ns
            if _older(self._one_sided_since_ns, BOOK_STALE_NS, now_ns):
                self._unsync(now_ns)
            return
        self._one_sided_since_ns = None
        if mid is not None and ladder.needs_recentring(mid):
            ladder.recentre(mid)

    def _drop_unverified(self, now_ns: int) -> None:
        self._unverified_since_ns = None
        if self.ladder is not None:
            self.counters["unverified_dropped"] += self.ladder.drop_unverified(now_ns - UNVERIFIED_NS)
            self._unverified_since_ns = self.ladder.oldest_unverified()

    # published and saved -----------------------------------------------------------------------------------------------

    def stats(self, usd: tuple[float, float], samples: int = 0) -> BookStats:
        """What the BOOK document says; `usd` are the book's totals (bid, ask), `samples` its seconds in the last slot."""
        ladder, counters = self.ladder, self.counters
        bids, asks, unverified = ladder.level_counts() if ladder is not None else (0, 0, 0)
        return BookStats(
            state=self.state,
            snapshot_last_update_id=self.snapshot_id,
            last_applied_u=self.last_u,
            first_diff_applied_U=self.first_applied[0],
            first_diff_applied_u=self.first_applied[1],
            levels_bid=bids,
            levels_ask=asks,
            levels_unverified=unverified,
            best_bid=ladder.bid_price if ladder is not None else None,
            best_ask=ladder.ask_price if ladder is not None else None,
            total_bid_usd=usd[0],
            total_ask_usd=usd[1],
            resyncs=counters["resyncs"],
            snapshots=counters["snapshots"],
            diffs_buffered=len(self._buffer),
            diffs_applied=counters["applied"],
            diffs_discarded=counters["discarded"],
            gaps_tolerated=counters["gaps_tolerated"],
            pu_gap_count=counters["pu_gaps"],
            u_gap_count=counters["u_gaps"],
            last_gap_type=self.last_gap[0],
            last_gap_pu=self.last_gap[1],
            last_gap_expected=self.last_gap[2],
            gap_tolerance_ids=self.gap_tolerance,
            max_sync_duration_s=self.max_sync_ns / SECOND,
            diffs_in_current_sync=self._diffs_in_sync,
            last_update_ns=self.last_update_ns,
            synced_since_ns=self.synced_since_ns,
            samples=samples,
        )

    _PLAIN: tuple[str, ...] = (
        "tick", "_prune_pct", "gap_tolerance", "state", "resync_asked", "partial", "refreshing", "last_u", "snapshot_id",
        "last_update_ns", "last_venue_ns", "synced_since_ns", "max_sync_ns", "_asked_ns", "_ask_after_ns", "_ask_interval_ns",
        "_sync_started_ns", "_unsynced_since_ns", "_unverified_since_ns", "_crossed_since_ns", "_one_sided_since_ns",
        "_diffs_in_sync",
    )  # fmt: skip

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here, bit by bit."""
        return {
            "plain": {name: getattr(self, name) for name in self._PLAIN},
            "first_applied": list(self.first_applied),
            "last_gap": list(self.last_gap),
            "counters": dict(self.counters),
            "buffer": [_saved(diff) for diff in self._buffer],
            "snapshot": _saved(self._snapshot) if self._snapshot is not None else None,
            "ladder": self.ladder.state() if self.ladder is not None else None,
        }

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Book:
        """The book of `state_of`. Raises KeyError, TypeError or ValueError for a state that is not one."""
        plain = state["plain"]
        book = cls(plain["tick"], plain["_prune_pct"], plain["gap_tolerance"])
        for name in cls._PLAIN:
            setattr(book, name, plain[name])
        book.first_applied = (state["first_applied"][0], state["first_applied"][1])
        book.last_gap = (state["last_gap"][0], state["last_gap"][1], state["last_gap"][2])
        book.counters |= state["counters"]
        book._buffer = deque(_restored(diff) for diff in state["buffer"])
        book._snapshot = _restored(state["snapshot"]) if state["snapshot"] is not None else None
        book.ladder = Ladder.restore(state["ladder"]) if state["ladder"] is not None else None
        return book


def _saved(diff: Diff) -> list[Any]:
    return [*diff[:7], diff.levels]


def _restored(saved: list[Any]) -> Diff:
    first, last, previous, bids, asks, flags, venue_ns, levels = saved
    return Diff(first, last, previous, bids, asks, flags, venue_ns, LevelBlock(levels), 0)


def _reference_of(diff: Diff) -> float:
    """A price for a ladder that has no snapshot to go by: the median level price, since far levels are few."""
    prices = sorted(diff.prices)
    if not prices or not all(math.isfinite(price) and price > 0 for price in prices):
        raise BadLevels("price out of range")
    return prices[len(prices) // 2]


def _older(since_ns: int | None, limit_ns: int, now_ns: int) -> bool:
    return since_ns is not None and now_ns - since_ns > limit_ns


def _centre(ladder: Ladder) -> float:
    return (ladder.origin + ladder.size / 2) * ladder.tick
