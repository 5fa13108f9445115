"""The state of the whole service, read from documents, rings and the board. Nothing here is kept but when errors were last seen.

Three questions: is there data yet (`starting`), is all of it fresh and everything alive (`ok` or `degraded`), and, for the
balancer, is it this machine's own fault if it is not (`ready`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from api import canaries
from api.bodies import CONTRACT
from api.context import Context
from api.documents import Published, published
from api.feeds import FEEDS_STALE_MS, LIVE
from api.oi import received_ms
from mpengine.schemas import BookDocument, StatusDocument, StreamFeed
from shm.board import BoardReader
from shm.board_words import Role, State, Word
from shm.frame_ring import FrameReader
from shm.frames import decode
from shm.liveness import WriterState
from shm.record_ring import RecordReader
from shm.records import DocumentId

DEPTH_STALE_MS: Final = 90_000
MAP_STALE_MS: Final = 180_000
WRITE_ERROR_NS: Final = 600_000_000_000
FRESH_SHARE: Final = 0.9

WRITE_ERRORS: Final = ("write_errors", "log_errors", "sync_errors")
COUNTERS: Final = (
    "dropped_records", "dropped_batches", "gaps", "refused_events", "refused_frames", "refused_documents", "digest_retries",
    "lapped_reads", "late_events", "rest_errors", "rate_limited", "capture_dropped", "quarantined", "clock_jumps", "http_5xx",
    "handler_errors", *WRITE_ERRORS,
)  # fmt: skip
PARSE_ERRORS: Final = "parse_errors"

_GONE: Final = frozenset({WriterState.DEAD, WriterState.STALLED, WriterState.CLOSED, WriterState.RETIRED})
_ENGINE_STATES: Final = {
    WriterState.CLOSED: "stopped",
    WriterState.RETIRED: "stopped",
    WriterState.DEAD: "dead",
    WriterState.STALLED: "stalled",
}


@dataclass(frozen=True, slots=True)
class RingState:
    """A ring's newest frame: its number, the time its age counts from, and how many frames are held."""

    seq: int
    time_ms: int
    held: int

    def age_ms(self, now_ms: int) -> int:
        return max(0, now_ms - self.time_ms)


@dataclass(frozen=True, slots=True)
class SymbolState:
    """What is there of one symbol. `begun`: of anything that it is judged by, something is there; `orphaned`: it is stale and the
    process that writes it is gone."""

    depth: RingState | None
    map: RingState | None
    begun: bool
    stale: bool
    orphaned: bool


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One row of the board. `state`: the supervisor's word for its children, else what the row itself shows."""

    name: str
    role: Role
    state: str
    restarts: int
    age_s: float | None


@dataclass(slots=True)
class ErrorWatch:
    """Remembers when counters of failed writes last rose. `look` now and then: at each turn of the worker, and when asked."""

    _counts: dict[str, int] = field(default_factory=dict)
    _risen_ns: int | None = None

    def look(self, board: BoardReader | None, wall_ns: int, monotonic_ns: int) -> None:
        """Compare the counters of every row with those of the last look."""
        for name, values in [] if board is None else _rows(board):
            count = sum(values.get(label, 0) for label in WRITE_ERRORS)
            before = self._counts.get(name)
            self._counts[name] = count
            if before is None and count:
                # Risen before this worker looked: the row says when its process last had an error of any kind.
                self._note(monotonic_ns - max(0, wall_ns - values.get("last_error_ns", 0)))
            elif before is not None and count > before:
                self._note(monotonic_ns)

    def recent(self, monotonic_ns: int) -> bool:
        """Whether a write has failed in the last 10 minutes."""
        return self._risen_ns is not None and monotonic_ns - self._risen_ns < WRITE_ERROR_NS

    def _note(self, monotonic_ns: int) -> None:
        self._risen_ns = max(monotonic_ns, self._risen_ns or monotonic_ns)


def _rows(board: BoardReader) -> Iterator[tuple[str, dict[str, int]]]:
    """(name, words by label) of every row that a process has taken."""
    for number, name in enumerate(board.names()):
        values = board.row(number)
        if values.get("pid") or values.get("actual"):
            yield name, values


class Health:
    """Looks at everything when asked."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.errors = ErrorWatch()

    # --- one symbol ---------------------------------------------------------------------------------------------------

    def symbol(self, name: str, now_ms: int) -> SymbolState:
        """State of a symbol's data."""
        sources = self._context.sources.symbols[name]
        depth, map_ = self._depth(name), _map(sources.liquidation.reader)
        wanted: list[tuple[RingState | None, int, WriterState | None]] = []
        if self._context.settings.symbols[name].has_orderbook:
            wanted.append((depth, DEPTH_STALE_MS, _writer(sources.depth.reader)))
        if sources.liquidation.reader is not None:
            wanted.append((map_, MAP_STALE_MS, _writer(sources.liquidation.reader)))
        if not wanted:  # no book, and no maps are made: its bars are all there is
            wanted.append((_bars(sources.candles.reader), MAP_STALE_MS, _writer(sources.candles.reader)))
        late = [writer for ring, limit, writer in wanted if ring is None or ring.age_ms(now_ms) > limit]
        orphaned = any(writer is None or writer in _GONE for writer in late)
        begun = any(ring is not None for ring, _, _ in wanted)
        return SymbolState(depth, map_, begun=begun, stale=bool(late), orphaned=orphaned)

    def _depth(self, name: str) -> RingState | None:
        newest, reader = self._context.depth[name].newest(), self._context.sources.symbols[name].depth.reader
        if newest is None or reader is None:
            return None
        return RingState(newest.row.number, newest.row.open_ms, _held(reader))

    def _book(self, name: str) -> Published[BookDocument] | None:
        return self._context.depth[name].book(None)

    def _status(self, name: str) -> Published[StatusDocument] | None:
        reader = self._context.sources.symbols[name].documents.reader
        return None if reader is None else published(reader.latest(DocumentId.STATUS), StatusDocument)

    def _engine(self, name: str, status: Published[StatusDocument] | None) -> str:
        reader = self._context.sources.symbols[name].documents.reader
        if reader is None or status is None:
            return "missing"
        return _ENGINE_STATES.get(reader.writer_state(), status.content.state)

    def _oi_ages(self, name: str, now_ms: int) -> dict[str, float]:
        found = self._context.oi[name].document()
        values = {} if found is None else found.content.venues
        return {venue: _age_s(received_ms(value), now_ms) for venue, value in values.items()}

    def symbol_report(self, name: str, state: SymbolState, now_ms: int) -> dict[str, Any]:
        """Entry of a symbol in `/health`; the six old keys first."""
        settings, status, book = self._context.settings, self._status(name), self._book(name)
        one, map_, depth = settings.symbols[name], state.map, state.depth
        books = {} if book is None else book.content.books
        primary = books.get(settings.engine.primary_venue)
        available, closed_s, held = (False, 0.0, 0) if map_ is None else (True, map_.time_ms / 1000, map_.held)
        oi_ages = self._oi_ages(name, now_ms)
        since_ns = None if status is None else status.content.data_since_ns
        return {
            "v1_available": available,
            "v1_ts": closed_s,
            "v2_available": available,
            "v2_ts": closed_s,
            "v1_history_frames": held,
            "v2_history_frames": held,
            "engine": self._engine(name, status),
            "stale": state.stale,
            "liq_seq": None if map_ is None else map_.seq,
            "liq_age_s": None if map_ is None else _age_s(map_.time_ms, now_ms),
            "depth_seq": None if depth is None else depth.seq,
            "depth_age_s": None if depth is None else _age_s(depth.time_ms, now_ms),
            "oi_age_s": min(oi_ages.values(), default=None),
            "book": "none" if primary is None else primary.state,
            "step": one.step,
            "ob_step": one.book_step,
            "base_asset": one.base_asset,
            "data_since_ms": None if since_ns is None else since_ns // 1_000_000,
            "calibrator": self._calibrator(name),
            "books": {venue: book_stats.state for venue, book_stats in books.items()},
            "open_interest": oi_ages,
        }

    def _calibrator(self, name: str) -> dict[str, Any]:
        """The calibrator as of the newest map; `snapshots`: minutes it holds."""
        pair = self._context.maps[name].newest()
        found = None if pair is None else pair.levels.content.calibrator
        return {
            "enabled": found is not None and found.enabled,
            "total_events": 0 if found is None else found.total_events,
            "snapshots": 0 if found is None else found.records,
            "minutes_since_calibration": None if found is None else found.minutes_since_calibration,
            "pending": 0 if found is None else found.pending,
            "dropped": 0 if found is None else found.dropped,
        }

    # --- venues and processes -----------------------------------------------------------------------------------------

    def venues(self, now_ms: int) -> dict[str, dict[str, Any]]:
        """State of each venue as ingest sees it; empty where ingest has not said anything yet."""
        document = self._context.feeds.document()
        if document is None:
            return {}
        statuses = self.statuses()
        old = now_ms - document.published_ns // 1_000_000 > FEEDS_STALE_MS
        return {
            venue: {
                # What nobody looks at any more is not live, whatever was last said of it.
                "state": "STALE" if old and feed.state == LIVE else feed.state,
                "age_s": None if feed.last_ms is None else _age_s(feed.last_ms, now_ms),
                "reconnects": feed.reconnects,
                "liquidations": feed.liquidations,
                "streams": {name: _stream(stream, old, now_ms) for name, stream in feed.streams.items()},
                "canary": canaries.of_venue([one.canaries[venue] for one in statuses if venue in one.canaries]),
            }
            for venue, feed in document.content.venues.items()
        }

    def statuses(self) -> list[StatusDocument]:
        """The newest STATUS document of each symbol that has one."""
        found = (self._status(name) for name in self._context.settings.symbols)
        return [one.content for one in found if one is not None]

    def processes(self) -> list[ProcessState]:
        """Every process that has a row on the board."""
        board = self._context.sources.board.reader
        if board is None:
            return []
        now_ns = self._context.clock.monotonic_ns()
        found = []
        for number, row in enumerate(board.rows()):
            pid, actual = board.get(number, Word.PID), board.get(number, Word.ACTUAL)
            if (pid or actual) and row.role is not Role.TOOL:
                state = _state_name(actual) or board.row_state(number).name
                # A process may beat between the two readings.
                age = max(0, now_ns - board.get(number, Word.BEAT_NS)) / 1e9 if pid else None
                restarts = board.get(number, Word.RESTARTS) if actual else max(0, board.get(number, Word.EPOCH) - 1)
                found.append(ProcessState(row.name, row.role, state, restarts, None if age is None else round(age, 1)))
        return found

    def counters(self) -> dict[str, int]:
        """Sums over all processes of what should not happen."""
        board = self._context.sources.board.reader
        rows = [] if board is None else [values for _, values in _rows(board)]
        parse = sum(value for values in rows for label, value in values.items() if label.startswith(PARSE_ERRORS))
        return {PARSE_ERRORS: parse, **{name: sum(values.get(name, 0) for values in rows) for name in COUNTERS}}

    def uptime_s(self) -> float:
        """Of the service where the supervisor says it, else of this worker."""
        board, lifetime = self._context.sources.board.reader, self._context.lifetime
        began_ns = lifetime.started_ns
        row = None if board is None else board.row_of("supervisor")
        if board is not None and row is not None and board.get(row, Word.PID):
            began_ns = board.get(row, Word.STARTED_NS)
        return round(max(0, self._context.clock.wall_ns() - began_ns) / 1e9, 1)

    # --- verdicts -----------------------------------------------------------------------------------------------------

    def starting(self, states: Iterable[SymbolState]) -> bool:
        """No map frame of any symbol yet; while no map is made at all, no order-book frame (no bar of a symbol without a book)."""
        maps = any(symbol.liquidation.reader is not None for symbol in self._context.sources.symbols.values())
        return not any(state.map is not None if maps else state.begun for state in states)

    def status(self, states: Iterable[SymbolState], venues: dict[str, dict[str, Any]], processes: list[ProcessState]) -> str:
        """`starting`, `degraded` or `ok`."""
        states, now_ns = list(states), self._context.clock.monotonic_ns()
        self.look()
        if self.starting(states):
            return "starting"
        healthy = (
            not any(state.stale for state in states)
            and bool(venues)
            and all(venue["state"] == LIVE and not venue["canary"]["alarm"] for venue in venues.values())
            and not canaries.alarming(self.cross_canary())
            and all(process.state == LIVE for process in processes)
            and not self.errors.recent(now_ns)
        )
        return "ok" if healthy else "degraded"

    def cross_canary(self) -> dict[str, Any] | None:
        """Minutes in which venues' sides disagreed, over all symbols; None while none can be compared."""
        return canaries.pooled([one.cross_canary for one in self.statuses()], None)

    def look(self) -> None:
        """Remember when a counter of failed writes rises."""
        clock = self._context.clock
        self.errors.look(self._context.sources.board.reader, clock.wall_ns(), clock.monotonic_ns())

    def verdict(self) -> dict[str, Any]:
        """What `/health` says without figures that move by themselves: the status, each venue's, whether a symbol is stale."""
        now_ms = self._context.clock.wall_ms()
        states = {name: self.symbol(name, now_ms) for name in self._context.settings.symbols}
        venues = self.venues(now_ms)
        return {
            "status": self.status(states.values(), venues, self.processes()),
            "exchanges": {name: venue["state"] for name, venue in venues.items()},
            "symbols": {name: state.stale for name, state in states.items()},
        }

    def report(self) -> dict[str, Any]:
        """Body of `/health`; the old keys first."""
        context = self._context
        context.sources.check()
        now_ms = context.clock.wall_ms()
        states = {name: self.symbol(name, now_ms) for name in context.settings.symbols}
        venues, processes = self.venues(now_ms), self.processes()
        status = self.status(states.values(), venues, processes)
        booked = next((states[name] for name, one in context.settings.symbols.items() if one.has_orderbook), None)
        depth = None if booked is None else booked.depth
        return {
            "ok": status != "starting",
            "version": "3.0.0",
            "mode": "embedded",
            "uptime_s": self.uptime_s(),
            "ob_buffer": {
                "frames_in_memory": 0 if depth is None else depth.held,
                "last_ts": 0.0 if depth is None else depth.time_ms / 1000,
                "shared": True,
            },
            "symbols": {name: self.symbol_report(name, state, now_ms) for name, state in states.items()},
            "status": status,
            "build": context.build,
            "contract": CONTRACT,
            "config_hash": context.settings.config_hash,
            "now_ms": now_ms,
            "exchanges": venues,
            "processes": {
                process.name: {"state": process.state, "restarts": process.restarts, "age_s": process.age_s}
                for process in processes
            },
            "errors": self.counters(),
            "cross_canary": self.cross_canary(),
        }

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """(ready, body of `/readyz`). Stale data alone is no reason to be taken out: another machine would have the same."""
        context = self._context
        context.sources.check()
        now_ms = context.clock.wall_ms()
        states = [self.symbol(name, now_ms) for name in context.settings.symbols]
        fresh = sum(not state.stale for state in states)
        enough = math.ceil(FRESH_SHARE * len(states))
        broken = context.sources.broken or context.lifetime.stopping or self.starting(states)
        # Would there be enough if the venues were fine? One dead engine of many does not make an outage of theirs our fault.
        excusable = 0 if self._ingest_gone() else sum(not state.orphaned for state in states)
        own_fault = fresh < enough and excusable < enough
        ready = not broken and not own_fault
        body = {"ready": ready, "degraded": fresh < len(states), "fresh_symbols": fresh, "symbols": len(states)}
        return ready, body

    def _ingest_gone(self) -> bool:
        reader = self._context.sources.feeds.reader
        return reader is None or reader.writer_state() in _GONE


def _stream(stream: StreamFeed, old: bool, now_ms: int) -> dict[str, Any]:
    return {
        "state": "STALE" if old and stream.state == LIVE else stream.state,
        "age_s": None if stream.last_ms is None else _age_s(stream.last_ms, now_ms),
        "messages": stream.messages,
        "errors": stream.errors,
        "lag_ms": stream.lag_ms,
    }


def _map(reader: FrameReader | None) -> RingState | None:
    slot = None if reader is None else reader.latest()
    if reader is None or slot is None:
        return None
    return RingState(slot.frame_no, decode(slot.payload).close_ts_ns // 1_000_000, _held(reader))


def _bars(reader: RecordReader | None) -> RingState | None:
    if reader is None:
        return None
    numbers, bars = reader.latest(1)
    if not len(bars):
        return None
    return RingState(int(numbers[-1]), int(bars[-1]["close_ts_ns"]) // 1_000_000, _held(reader.ring))


def _held(reader: FrameReader) -> int:
    return min(reader.head() - reader.first(), reader.spec.slots)


def _writer(reader: FrameReader | RecordReader | None) -> WriterState | None:
    return None if reader is None else reader.writer_state()


def _age_s(time_ms: int, now_ms: int) -> float:
    return round(max(0, now_ms - time_ms) / 1000, 1)


def _state_name(actual: int) -> str | None:
    """Name of the supervisor's word ACTUAL; None where it does not keep this row."""
    try:
        return State(actual).name if actual else None
    except ValueError:  # a board of another version
        return None
