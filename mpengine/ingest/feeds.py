"""What ingest knows of each venue, and the FEEDS document made of it. Opens nothing; monotonic `now_ns` comes in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from mpengine.ingest.connect_gate import ConnectGate
from mpengine.ingest.rest_policy import RestPolicy
from mpengine.ingest.watchdog import SocketWatch, feed_state, trades_flow
from mpengine.schemas import FeedsDocument, FeedState, StreamFeed, VenueFeed
from mpengine.venues.base import SocketPlan, StreamStats, VenueModule
from shm.records import Kind

MILLION = 1_000_000
TOO_LONG: Final = "too_long"
RESUBSCRIBED: Final = "resubscribed"
REPLACED: Final = "replaced"
NOT_SHOWN: Final = "liquidations_not_shown"
HANDSHAKES_REFUSED: Final = "handshakes_refused"


@dataclass(slots=True)
class Life:
    """One connection, from its opening handshake to its end. `name`: `<plan>#<number>`. Times are monotonic ns."""

    name: str
    plan: SocketPlan
    opened_ns: int
    watch: SocketWatch
    seen_ns: int | None = None


@dataclass(slots=True)
class StreamTotal:
    """What ended connections delivered on one stream."""

    messages: int = 0
    errors: int = 0
    last_recv_ns: int = 0
    last_venue_ns: int = 0

    def include(self, stats: StreamStats) -> None:
        """Add what one connection delivered."""
        self.messages += stats.messages
        self.errors += stats.errors
        if stats.last_recv_ns >= self.last_recv_ns and stats.messages:
            self.last_recv_ns, self.last_venue_ns = stats.last_recv_ns, stats.last_venue_ns


@dataclass(slots=True)
class Feed:
    """One venue as it runs. `lives`: open connections by name. `seen_ns`: last message of any kind on
    a socket, monotonic: polls that still answer must not hide a dead feed.

    `bad_messages` are those that never reached the module (too long for the socket). `deeds`: what ingest did about a venue's
    silence or refusals, counted by reason. `gate`: turns at opening its sockets.
    """

    module: VenueModule
    scale: float = 1.0
    policy: RestPolicy = field(default_factory=RestPolicy)
    lives: dict[str, Life] = field(default_factory=dict)
    totals: dict[str, StreamTotal] = field(default_factory=dict)
    seen_ns: int | None = None
    seen_wall_ns: int | None = None
    reconnects: int = 0
    bad_messages: int = 0
    rest_errors: int = 0
    last_error: str | None = None
    plans: tuple[SocketPlan, ...] = ()
    deeds: dict[str, int] = field(default_factory=dict)
    gate: ConnectGate = field(init=False)

    def __post_init__(self) -> None:
        self.plans = tuple(self.module.sockets())
        self.gate = ConnectGate(self.module.connect_limit)

    @property
    def name(self) -> str:
        """Label of the venue."""
        return self.module.venue.label

    @property
    def parse_errors(self) -> int:
        """Messages and rows of the venue that could not be used."""
        return self.module.counters.refused + self.bad_messages

    @property
    def reasons(self) -> dict[str, int]:
        """What was refused, dropped, missed or done about it, by reason; the module's own, TOO_LONG and `deeds`."""
        return self.module.counters.reasons | ({TOO_LONG: self.bad_messages} if self.bad_messages else {}) | self.deeds

    def did(self, deed: str) -> None:
        """Count something that ingest did."""
        self.deeds[deed] = self.deeds.get(deed, 0) + 1

    def begin(self, life: Life) -> None:
        """A connection is open."""
        self.lives[life.name] = life

    def end(self, life: Life) -> None:
        """A connection has ended: keep what it delivered. Call it before the module forgets the connection."""
        self.lives.pop(life.name, None)
        for stream, stats in self.module.stats(life.name).items():
            self.totals.setdefault(stream, StreamTotal()).include(stats)

    def trades_flow(self, now_ns: int) -> bool:
        """Whether trades of this venue arrive."""
        return trades_flow(((life.plan, life.watch) for life in self.lives.values()), now_ns, self.scale)

    def state(self, now_ns: int) -> FeedState:
        """State of the venue."""
        return feed_state(_age_s(self.seen_ns, now_ns), banned=self.policy.banned(now_ns), blocked=self.policy.blocked)


def streams_word(feed: Feed, now_ns: int) -> int:
    """Streams of a venue by state: LIVE + (STALE << 16) + (all others << 32), as the board has it."""
    word = 0
    for plan in feed.plans:
        for stream in plan.streams:
            word += _STREAM_UNITS.get(_state(feed, plan, stream.name, now_ns), _OTHERS)
    return word


_STREAM_UNITS: Final[dict[FeedState, int]] = {"LIVE": 1, "STALE": 1 << 16}
_OTHERS: Final = 1 << 32


def liquidation_streams(feed: Feed) -> dict[str, tuple[str, str, int]]:
    """Symbol -> (plan, stream, opening of its oldest open connection in monotonic ns) of streams of one symbol's liquidations."""
    found: dict[str, tuple[str, str, int]] = {}
    for life in feed.lives.values():
        for stream in life.plan.streams:
            if stream.kind is Kind.LIQUIDATION and stream.symbol is not None:
                known = found.get(stream.symbol)
                if known is None or life.opened_ns < known[2]:
                    found[stream.symbol] = life.plan.name, stream.name, life.opened_ns
    return found


def document(feeds: Iterable[Feed], wall_ns: int, now_ns: int) -> FeedsDocument:
    """The FEEDS document. `wall_ns` is the time it carries, `now_ns` the monotonic time that ages are taken from."""
    return FeedsDocument(written_ns=wall_ns, venues={feed.name: _venue(feed, wall_ns, now_ns) for feed in feeds})


def _venue(feed: Feed, wall_ns: int, now_ns: int) -> VenueFeed:
    paused_ns = feed.policy.paused_until_ns(now_ns)
    return VenueFeed(
        state=feed.state(now_ns),
        last_ms=None if feed.seen_wall_ns is None else feed.seen_wall_ns // MILLION,
        reconnects=feed.reconnects,
        connections=len(feed.lives),
        parse_errors=feed.parse_errors,
        rest_errors=feed.rest_errors,
        rest_paused_until_ms=None if paused_ns is None else (wall_ns + paused_ns - now_ns) // MILLION,
        used_weight=feed.policy.used_weight(now_ns),
        liquidations=feed.module.sampling,
        last_error=feed.last_error,
        reasons=feed.reasons,
        events={kind.name.lower(): count for kind in Kind if (count := feed.module.counters.events[kind])},
        streams={stream.name: _stream(feed, plan, stream.name, now_ns) for plan in feed.plans for stream in plan.streams},
    )


def _stream(feed: Feed, plan: SocketPlan, stream: str, now_ns: int) -> StreamFeed:
    """A stream over all connections it had; while two lives overlap, the better state counts."""
    total = StreamTotal()
    if stream in feed.totals:
        ended = feed.totals[stream]
        total = StreamTotal(ended.messages, ended.errors, ended.last_recv_ns, ended.last_venue_ns)
    for life in feed.lives.values():
        if life.plan.name == plan.name and (stats := feed.module.stats(life.name).get(stream)):
            total.include(stats)
    lag_ms = (total.last_recv_ns - total.last_venue_ns) / MILLION if total.last_recv_ns and total.last_venue_ns else None
    return StreamFeed(
        state=_state(feed, plan, stream, now_ns),
        messages=total.messages,
        errors=total.errors,
        last_ms=total.last_recv_ns // MILLION if total.last_recv_ns else None,
        lag_ms=lag_ms,
    )


def _state(feed: Feed, plan: SocketPlan, stream: str, now_ns: int) -> FeedState:
    best: FeedState = "DOWN"
    for life in feed.lives.values():
        if life.plan.name == plan.name:
            state = life.watch.state(stream, now_ns, feed_state(_age_s(life.seen_ns, now_ns)))
            best = min(best, state, key=_ORDER.index)
    return best


_ORDER: tuple[FeedState, ...] = ("LIVE", "STALE", "DOWN", "BANNED", "GEO_BLOCKED")


def _age_s(seen_ns: int | None, now_ns: int) -> float | None:
    return None if seen_ns is None else (now_ns - seen_ns) / 1e9
