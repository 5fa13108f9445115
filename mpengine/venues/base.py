"""What ingest, replay and the tests expect of a venue module. Pure: plans and text in, records and text out.

A module never opens, waits, reads a clock or raises on bad wire data: what it cannot read becomes a counter and a sample.
`receive` takes, `events` and `data_to_send` drain. A connection is one life of one socket plan, named `<plan>#<number>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Literal, NamedTuple, Protocol

from shm.records import Kind, Venue

Sampling = Literal["largest_1s", "all_500ms", "partial", "batched_1s", "largest_per_side_1s", "none"]
SAMPLE: Final = 200
Budget = Literal["weight", "futures_data"]
NEVER_QUIET: Final = frozenset({"BTC"})
"""Our symbols that trade and quote without a pause at every venue, whatever the hour: `spec: exchanges`, section 12, judges trades
by BTC's alone. The silence of any other symbol may be the market's."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One stream of a socket and its watchdog. `warn_s`, `act_s`: silence that is logged, that is acted on; None: never.

    `act`: what is done first about a `steady` stream; one that stays silent after a resubscription gets a new connection. Any other
    is only ever resubscribed. `fast`: a replacement socket counts as ready only when this stream has delivered
    (make-before-break), unless the old one does not deliver it either.
    """

    name: str
    symbol: str | None
    kind: Kind
    warn_s: float | None
    act_s: float | None
    fast: bool
    act: Literal["reopen", "resubscribe"] = "reopen"

    @property
    def steady(self) -> bool:
        """Silence beyond its limits is a fault of the connection or of the venue, never of the market."""
        return self.symbol is None or self.symbol in NEVER_QUIET


@dataclass(frozen=True, slots=True)
class SocketPlan:
    """One socket to hold open. `subscribe`: texts to send after it opened. `probe`: text whose reply is guaranteed."""

    name: str
    url: str
    streams: tuple[StreamPlan, ...]
    subscribe: tuple[str, ...] = ()
    probe: str | None = None
    probe_interval_s: float = 60.0
    probe_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class RestCall:
    """One GET, or a POST of JSON where there is a `body`. `interval_s` None: only on request. `path` carries the query.

    `symbol` is ours, None for venue-wide calls.
    """

    name: str
    symbol: str | None
    path: str
    weight: int
    budget: Budget = "weight"
    interval_s: float | None = None
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class ConnectLimit:
    """How often this address may open sockets to a venue: `burst` at once, `per_s` in the long run."""

    burst: int
    per_s: float


class RestResult(IntEnum):
    """What a REST reply means for its poller (`spec: exchanges`, section 11)."""

    OK = 0
    LIMITED = 1  # stop the venue's REST until retry-after
    BANNED = 2  # as LIMITED, venue state BANNED
    BLOCKED = 3  # geo block: no retry until restart
    FIREWALL = 4  # pause of minutes
    UNAUTHORIZED = 5  # disable that call until restart
    REFUSED = 6  # our request is wrong: disable that call for 10 min
    TRANSIENT = 7  # next cycle, with back-off


@dataclass(frozen=True, slots=True)
class RestVerdict:
    """Judgement of one reply. `used_weight`: what the venue says this address has used of its minute."""

    result: RestResult
    retry_after_s: float | None = None
    used_weight: int | None = None


class Routed(NamedTuple):
    """One encoded event record (`shm.records`) and the symbol whose ring it belongs to."""

    symbol: str
    data: bytes


@dataclass(slots=True)
class StreamStats:
    """What a connection has delivered on one stream."""

    messages: int = 0
    errors: int = 0
    last_recv_ns: int = 0
    last_venue_ns: int = 0


@dataclass(slots=True)
class VenueCounters:
    """Totals of a module. `reasons` counts what was refused or dropped by a fixed reason; `samples` has the newest
    refused text of each that has one.

    `refused` counts what could not be read; what a healthy feed brings as well (duplicates of a rotation) is only in `reasons`.
    `events`: records given out, by `Kind`; `liquidations`: symbol -> liquidations given out.
    """

    messages: int = 0
    events: list[int] = field(default_factory=lambda: [0] * (max(Kind) + 1))
    refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    samples: dict[str, str] = field(default_factory=dict)
    liquidations: dict[str, int] = field(default_factory=dict)

    def count(self, reason: str) -> None:
        """Count something that is no error of the message itself."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def refuse(self, reason: str, sample: bytes | str = b"") -> None:
        """Count one refused message or row."""
        self.refused += 1
        self.count(reason)
        if sample:
            self.samples[reason] = repr(sample[:SAMPLE])


class VenueModule(Protocol):
    """One exchange. `mpengine.venues.mapper.Mapper` has what all of them share.

    `wire_snapshots`: a subscription brings a book snapshot by itself, and `resubscribe` asks for another one; else snapshots are
    polled (`snapshot_call`).
    """

    venue: Venue
    sampling: Sampling
    counters: VenueCounters
    connect_limit: ConnectLimit
    wire_snapshots: bool

    def sockets(self) -> list[SocketPlan]:
        """Sockets to hold open for the configured symbols."""

    def polls(self) -> list[RestCall]:
        """Calls to repeat, each with its interval."""

    def snapshot_call(self, symbol: str) -> RestCall | None:
        """The call that brings a book snapshot; None where there is none (another symbol, or on the wire only)."""

    def snapshots_overdue(self, recv_ns: int) -> list[str]:
        """Drains symbols whose snapshot was promised on the wire and did not come in time: `snapshot_call` is to bring it."""

    def resubscribe(self, connection: str, stream: str, recv_ns: int) -> bool:
        """Take a stream anew on a connection; the texts come out of `data_to_send`. True where nothing has to be said for it.

        False: the venue's budget of requests on this connection is spent, only a new connection helps.
        """

    def replacements_wanted(self) -> list[str]:
        """Drains connections that the venue has announced to end: their successors are to be opened now."""

    def unlisted(self) -> frozenset[str]:
        """Streams that cannot deliver, as the venue does not list their instrument: no new connection would change that."""

    def opened(self, connection: str, recv_ns: int) -> None:
        """A connection is up: its stream statistics begin, merged state of its plan is cleared."""

    def lost(self, connection: str, recv_ns: int, *, replaced: bool) -> None:
        """A connection ended. Unless a replacement was live before (`replaced`), its symbols get gap events."""

    def receive(self, connection: str, payload: bytes, recv_ns: int) -> None:
        """One text message of a socket."""

    def receive_rest(self, call: RestCall, status: int, body: bytes, recv_ns: int) -> None:
        """Body of a REST reply that `judge` found OK."""

    def judge(self, call: RestCall, status: int, headers: Mapping[str, str], body: bytes) -> RestVerdict:
        """What a reply means. Header names are lower case. Also asked about refused handshakes (`HANDSHAKE`)."""

    def events(self) -> list[Routed]:
        """Drains the records of everything received so far, in order."""

    def data_to_send(self, connection: str) -> list[str]:
        """Drains texts to send on a connection: asked after it opened, after each message and at each clock interval."""

    def stats(self, connection: str) -> dict[str, StreamStats]:
        """Stream name -> statistics of one connection (the same objects every time; do not change them)."""

    def probe_reply(self, connection: str) -> int:
        """Receive time of the newest probe reply on a connection, ns; 0 before the first."""


HANDSHAKE: Final = RestCall("handshake", None, "", 0)
"""What `judge` is asked about when a venue refuses to open a socket."""


def plan_of(connection: str) -> str:
    """Name of the socket plan of a connection (`public#3` -> `public`)."""
    return connection.partition("#")[0]
