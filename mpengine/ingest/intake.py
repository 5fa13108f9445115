"""Where every message passes: capture, venue module, router. Synchronous; called by the sockets and pollers on the event loop.

One guarded call per message: what a module raises is logged and counted, and the connection goes on. Two kinds: `Intake` takes
messages as they come and ticks by the wall clock; `StampedIntake` puts messages that carry their recorder's receive time back
into the order of the capture and ticks on the capture's grid, so that the rings get what replay feeds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from mpengine.clock_grid import ClockGrid
from mpengine.ingest.capture_file import CaptureLine, Direction
from mpengine.ingest.counts import Counts, Rarely
from mpengine.ingest.feeds import Feed, Life
from mpengine.ingest.merge import Key, Merge, stamp_of
from mpengine.ingest.recorder import Recorder
from mpengine.ingest.routing import Router
from mpengine.venues.base import RestCall, RestResult, RestVerdict, SocketPlan
from shm.board_words import Word
from shm.records import pack_clock

SAMPLE: Final = 200
REST: Final = "rest"
"""Name of the connection under which captures keep REST replies."""

HOLD_LIMIT: Final = 100_000
"""Messages that wait for the reply to a snapshot request at most."""

log = logging.getLogger("mpengine.ingest")

Later = Callable[[float, Callable[[], None]], object]
"""`call_later` of an event loop: delay in s, what to call."""


class Intake:
    """Takes what the venues send, as it comes. `router` None: nothing but the capture is fed (`mpengine record`)."""

    def __init__(self, router: Router | None, recorder: Recorder | None, counts: Counts, later: Later, flush_ms: float) -> None:
        self.counts = counts
        self._router = router
        self._recorder = recorder
        self._later = later
        self._flush_s = flush_ms / 1000
        self._timer_set = False
        self._rarely = Rarely(10.0)

    @property
    def unknown(self) -> int:
        """Records of symbols that have no ring here."""
        return 0 if self._router is None else self._router.unknown

    # connections -----------------------------------------------------------------------------------------------------

    def opened(self, feed: Feed, life: Life, recv_ns: int) -> None:
        """A connection is open; nothing was received on it yet."""
        self._record(recv_ns, feed, life.name, "open", life.plan.url.encode())
        feed.begin(life)
        self._guarded(feed, lambda: feed.module.opened(life.name, recv_ns), "the start of a connection", b"")

    def lost(self, feed: Feed, life: Life, recv_ns: int, *, replaced: bool, reason: str) -> None:
        """A connection has ended. `replaced`: a successor was live before, so nothing is missing."""
        self._record(recv_ns, feed, life.name, "lost", b"replaced" if replaced else reason.encode())
        feed.end(life)
        self._guarded(feed, lambda: feed.module.lost(life.name, recv_ns, replaced=replaced), "the end of a connection", b"")

    def sent(self, feed: Feed, life: Life, text: str) -> None:
        """A text was sent on a connection."""
        self._record(time.time_ns(), feed, life.name, "out", text.encode())

    def texts(self, feed: Feed, life: Life) -> list[str]:
        """What the venue module wants to say on a connection."""
        try:
            return feed.module.data_to_send(life.name)
        except Exception as error:  # noqa: BLE001  as with a bad message
            self._handler_failed(feed, error, "the module's turn to speak", b"")
            return []

    def absent(self, feed: Feed, plan: SocketPlan) -> None:
        """The other side has no such address: nothing is to be expected of this plan for now."""

    def resubscribe(self, feed: Feed, life: Life, stream: str) -> bool:
        """Ask the venue module to take a stream anew; False where only a new connection helps."""
        try:
            return feed.module.resubscribe(life.name, stream, self.now_ns())
        except Exception as error:  # noqa: BLE001  as with a bad message
            self._handler_failed(feed, error, f"a new subscription of {stream}", b"")
            return False

    def overdue(self, feed: Feed) -> list[str]:
        """Symbols whose snapshot the venue module waits for in vain."""
        try:
            return feed.module.snapshots_overdue(self.now_ns())
        except Exception as error:  # noqa: BLE001  as with a bad message
            self._handler_failed(feed, error, "the list of missing snapshots", b"")
            return []

    def replacements(self, feed: Feed) -> list[str]:
        """Connections that the venue has announced to end."""
        try:
            return feed.module.replacements_wanted()
        except Exception as error:  # noqa: BLE001  as with a bad message
            self._handler_failed(feed, error, "the list of ending connections", b"")
            return []

    def unlisted(self, feed: Feed) -> frozenset[str]:
        """Streams that the venue module expects nothing of."""
        try:
            return feed.module.unlisted()
        except Exception as error:  # noqa: BLE001  as with a bad message
            self._handler_failed(feed, error, "the list of streams without an instrument", b"")
            return frozenset()

    def now_ns(self) -> int:
        """The time that venue modules are told, ns of the wall clock."""
        return time.time_ns()

    # messages ----------------------------------------------------------------------------------------------------------

    def message(self, feed: Feed, life: Life, payload: bytes, recv_ns: int) -> None:
        """One message of a socket, received at `recv_ns` (wall clock)."""
        self._take(feed, life, payload, recv_ns)

    def asked(self, call: RestCall) -> None:
        """A REST request goes out; `answered` follows, whatever becomes of it."""

    def answered(self, call: RestCall) -> None:
        """The request has ended; its reply, if there was one, was handed in before."""

    def reply(self, feed: Feed, call: RestCall, status: int, body: bytes, recv_ns: int, key: Key | None = None) -> None:
        """Body of a REST reply that was judged OK. `key`: its place in the capture it was served from, if it says so."""
        self._take_reply(feed, call, status, body, recv_ns)

    def judge(self, feed: Feed, call: RestCall, status: int, headers: Mapping[str, str], body: bytes) -> RestVerdict:
        """What a reply means to the venue; TRANSIENT where the module cannot say it."""
        try:
            return feed.module.judge(call, status, headers, body)
        except Exception as error:  # noqa: BLE001  as with a bad message
            self._handler_failed(feed, error, f"the judgement of {call.name}", body)
            return RestVerdict(RestResult.TRANSIENT)

    def failed_reply(self, feed: Feed, call: RestCall, status: int, body: bytes, recv_ns: int) -> None:
        """A REST reply that was judged not OK goes to the capture only."""
        self._record(recv_ns, feed, REST, "rest", body, call, status)

    def tick(self, wall_ns: int) -> None:
        """The clock interval is over: time goes on in every ring."""
        if self._router is not None:
            self._router.clock(pack_clock(wall_ns))

    def flush(self) -> None:
        """Close every open batch; the last thing before the rings are closed."""
        if self._router is not None:
            self._router.flush()

    # the way of one message ------------------------------------------------------------------------------------------

    def _take(self, feed: Feed, life: Life, payload: bytes, recv_ns: int) -> None:
        now_ns = time.monotonic_ns()
        counts = self.counts
        counts.add(Word.MESSAGES)
        counts.add(Word.BYTES_IN, len(payload))
        life.seen_ns = feed.seen_ns = now_ns
        feed.seen_wall_ns = recv_ns
        if self._recorder is not None:
            self._recorder.put(CaptureLine(recv_ns, feed.name, life.name, "in", payload))
        try:
            feed.module.receive(life.name, payload, recv_ns)
        except Exception as error:  # noqa: BLE001  one bad message never costs the connection
            self._handler_failed(feed, error, "a message", payload)
        self._route(feed, now_ns)

    def _take_reply(self, feed: Feed, call: RestCall, status: int, body: bytes, recv_ns: int) -> None:
        self._record(recv_ns, feed, REST, "rest", body, call, status)
        self._guarded(feed, lambda: feed.module.receive_rest(call, status, body, recv_ns), f"a reply to {call.name}", body)

    def _guarded(self, feed: Feed, call: Callable[[], None], what: str, sample: bytes) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  one bad message never costs the connection
            self._handler_failed(feed, error, what, sample)
        self._route(feed, time.monotonic_ns())

    def _handler_failed(self, feed: Feed, error: Exception, what: str, sample: bytes) -> None:
        self.counts.add(Word.HANDLER_ERRORS)
        held = self._rarely.admit((feed.name, type(error)), time.monotonic_ns())
        if held is not None:
            log.error("%s: %s raised (%d more before): %r", feed.name, what, held, sample[:SAMPLE], exc_info=error)

    def _route(self, feed: Feed, now_ns: int) -> None:
        events = feed.module.events()
        if not events:
            return
        self.counts.add(Word.EVENTS, len(events))
        router = self._router
        if router is None:
            return
        router.route(events, now_ns)
        if not self._timer_set and router.due_ns is not None:
            self._timer_set = True
            self._later(self._flush_s, self._flush_due)

    def _flush_due(self) -> None:
        self._timer_set = False
        router = self._router
        if router is None:
            return
        now_ns = time.monotonic_ns()
        router.flush_due(now_ns)
        if router.due_ns is not None:
            self._timer_set = True
            self._later(max(0.0, (router.due_ns - now_ns) / 1e9), self._flush_due)

    def _record(
        self, recv_ns: int, feed: Feed, connection: str, direction: Direction, payload: bytes, call: RestCall | None = None,
        status: int | None = None,
    ) -> None:  # fmt: skip
        if self._recorder is None:
            return
        name, symbol = (None, None) if call is None else (call.name, call.symbol)
        self._recorder.put(CaptureLine(recv_ns, feed.name, connection, direction, payload, name, symbol, status))


class StampedIntake(Intake):
    """Takes messages that carry `recv_ns` and `line`, in the order of the capture that they are served from.

    Time is the capture's: ticks come from its grid, and ends of connections carry the time of the newest message given out.
    Messages without a stamp (answers to probes and subscriptions) pass at once. While a snapshot is asked for nothing is given out:
    its place is known only with its reply, and the messages behind it must not be faster.
    """

    def __init__(
        self, router: Router | None, recorder: Recorder | None, counts: Counts, later: Later, flush_ms: float,
        feeds: Iterable[Feed], interval_ns: int,
    ) -> None:  # fmt: skip
        super().__init__(router, recorder, counts, later, flush_ms)
        self._merge: Merge[Callable[[], None] | None] = Merge(_source(feed, plan.name) for feed in feeds for plan in feed.plans)
        self._grid = ClockGrid(interval_ns)
        self._now_ns = 0
        self._asking = 0

    def absent(self, feed: Feed, plan: SocketPlan) -> None:
        """The capture holds nothing of this plan, so nobody waits for it: what comes of it all the same has no order."""
        self._merge.end(_source(feed, plan.name))
        self._give()

    def now_ns(self) -> int:
        """The capture's time that has been reached."""
        return self._now_ns or time.time_ns()

    def opened(self, feed: Feed, life: Life, recv_ns: int) -> None:
        """As in `Intake`, at the time that has been reached."""
        super().opened(feed, life, self._now_ns or recv_ns)

    def lost(self, feed: Feed, life: Life, recv_ns: int, *, replaced: bool, reason: str) -> None:
        """As in `Intake`, at the time that has been reached."""
        super().lost(feed, life, self._now_ns or recv_ns, replaced=replaced, reason=reason)

    def message(self, feed: Feed, life: Life, payload: bytes, recv_ns: int) -> None:
        """Hold the message until nothing earlier can come."""
        stamp = stamp_of(payload)
        if stamp is None:
            self._take(feed, life, payload, recv_ns)
            return
        source, at_ns = _source(feed, life.plan.name), stamp.key.recv_ns
        if stamp.clock:
            life.seen_ns = feed.seen_ns = time.monotonic_ns()
            self._merge.push(stamp.key, None)
        else:
            self._merge.push(stamp.key, lambda: self._take(feed, life, payload, at_ns))
        if stamp.end:
            self._merge.end(source)
        else:
            self._merge.advance(source, stamp.key)
        self._give()

    def reply(self, feed: Feed, call: RestCall, status: int, body: bytes, recv_ns: int, key: Key | None = None) -> None:
        """Hold the reply until its place in the capture is reached; one without a place passes at once, at the time reached."""
        if key is None:
            self._take_reply(feed, call, status, body, self._now_ns or recv_ns)
            return
        self._merge.push(key, lambda: self._take_reply(feed, call, status, body, key.recv_ns))
        self._give()

    def asked(self, call: RestCall) -> None:
        """Hold everything for a snapshot."""
        self._asking += call.interval_s is None

    def answered(self, call: RestCall) -> None:
        """Go on."""
        self._asking -= call.interval_s is None
        self._give()

    def tick(self, wall_ns: int) -> None:
        """Nothing: the capture's time moves with its messages."""

    def _give(self) -> None:
        if self._asking and self._merge.waiting < HOLD_LIMIT:
            return
        for key, take in self._merge.ready():
            for tick_ns in self._grid.until(key.recv_ns):
                super().tick(tick_ns)
            self._now_ns = max(self._now_ns, key.recv_ns)
            if take is not None:
                take()
        self.counts.put(Word.LATE_EVENTS, self._merge.late + self._merge.forced)


def _source(feed: Feed, plan: str) -> str:
    return f"{feed.name}/{plan}"
