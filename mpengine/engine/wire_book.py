"""The book of a venue that sends its own snapshots: Bybit, OKX, Hyperliquid (`spec: engine`, section 16.2). Pure.

A snapshot replaces the whole book at once; a diff applies if its previous id is the last one that was applied; anything else breaks
the chain, and the stream has to be taken anew. A polled snapshot (flag JOIN) overlaps the diffs around it and is joined by ids,
also with diffs that came first: they arrive while its reply is on the way.
"""

from __future__ import annotations

from typing import Final

from mpengine.engine.book import SECOND, Book, Diff
from mpengine.engine.ladder import BadLevels
from shm.records import EventFlag

SNAPSHOT_COMES_NS: Final = 5 * SECOND
"""A new subscription brings its snapshot by itself: how long the book waits for it before it asks."""


class WireBook(Book):
    """A `Book` with the continuity of wire snapshots; `gap_tolerance` is 0, since each diff names the one before it."""

    __slots__ = ("_joining",)

    _PLAIN: tuple[str, ...] = (*Book._PLAIN, "_joining")

    def __init__(self, tick: float, prune_pct: float, gap_tolerance: int = 0) -> None:
        super().__init__(tick, prune_pct, gap_tolerance)
        self._joining = False

    def on_diff(self, diff: Diff, now_ns: int) -> bool:
        """Apply one diff; True if the book changed. Raises BadLevels (the diff is refused, the book resyncs)."""
        if self.state == "unsynced":
            self._keep(diff)
            return False
        if self._joining:
            return self._join(diff, now_ns)
        if diff.previous != self.last_u:
            if diff.last == self.last_u and diff.previous < diff.last:
                self.counters["discarded"] += 1  # the newest one again
                return False
            self._break("pu_mismatch" if diff.previous > self.last_u else "u_gap", diff, now_ns)
            return False
        return self._take(diff, now_ns)

    def _join(self, diff: Diff, now_ns: int) -> bool:
        """A polled snapshot waits for the diff that goes beyond it."""
        if diff.last <= self.last_u:
            self.counters["discarded"] += 1
            return False
        if diff.previous > self.last_u:
            self._break("pu_mismatch", diff, now_ns)
            return False
        self._begin(now_ns)
        return self._take(diff, now_ns)

    def _take(self, diff: Diff, now_ns: int) -> bool:
        if not diff.bids + diff.asks:
            self.last_u, self.last_update_ns = diff.last, now_ns  # the venue says that nothing has changed
            return False
        self._apply(diff, now_ns)
        return True

    def on_snapshot(self, snapshot: Diff, now_ns: int) -> bool:
        """Replace the book. True if it changed; a polled snapshot is not used by a book that has no need of one.

        Raises BadLevels: the snapshot is refused, the book resyncs.
        """
        join = bool(snapshot.flags & EventFlag.JOIN)
        if join and self.state == "synced":
            self.counters["snapshots_unused"] += 1
            return False
        waiting = self._take_snapshot(snapshot, now_ns)
        self.last_u = snapshot.last
        self.last_update_ns = now_ns
        self.last_venue_ns = max(self.last_venue_ns, snapshot.venue_ts_ns)
        self._one_sided_since_ns = None
        if self.ladder is None or not self.ladder.crossed:
            self._crossed_since_ns = None
        elif self._crossed_since_ns is None:
            self._crossed_since_ns = now_ns  # and while snapshots go on being crossed it runs on: some venues send nothing else
        if join:
            self._joining, self.state = True, "syncing"
            self._go_on(waiting, now_ns)
        else:
            self.counters["discarded"] += len(waiting)
            self._begin(now_ns)
        return True

    def _load(self, snapshot: Diff, now_ns: int) -> None:
        """The whole book becomes the snapshot's. Raises BadLevels."""
        if not snapshot.bids or not snapshot.asks:
            raise BadLevels("snapshot with an empty side")
        if self.ladder is not None:
            self.ladder.clear()
        super()._load(snapshot, now_ns)

    def _begin(self, now_ns: int) -> None:
        """The book is whole."""
        if self.state != "synced":
            self._diffs_in_sync = 0
        self._joining = False
        self._end_sync(now_ns)
        if self._asked_ns is None:
            self._ask_after_ns = max(1, now_ns)  # the first snapshot has come: from here on a break asks at once

    def on_gap(self, now_ns: int) -> None:
        """The connection was lost or messages were: the next subscription brings a snapshot, so asking waits for it."""
        self._ask_after_ns = max(self._ask_after_ns, now_ns + SNAPSHOT_COMES_NS)
        self._unsync(now_ns)

    def on_time(self, now_ns: int) -> None:
        """As for every book; a new one waits for the snapshot that its subscription brings."""
        if not self._ask_after_ns:
            self._ask_after_ns = now_ns + SNAPSHOT_COMES_NS
        super().on_time(now_ns)

    def set_tick(self, tick: float, now_ns: int) -> None:
        """A finer tick means that the ladder may have merged levels: the book begins anew."""
        finer = tick < self.tick
        super().set_tick(tick, now_ns)
        if finer and self.ladder is not None:
            self.ladder.clear()
            if self.state != "unsynced":
                self._unsync(now_ns)

    def _unsync(self, now_ns: int) -> None:
        self._joining = False
        super()._unsync(now_ns)
