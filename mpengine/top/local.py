"""Facts of an instance on this machine: its board, documents and rings in shared memory. Reads only and holds no lock.

    4 times a second   heads of rings and documents: a few words; what has changed is read
    once a second      rows of the board, /proc, venues, files that were replaced
    every 5 s          fan-out, from the admin listener, in a thread

An instance that is killed, stopped or started anew under it is a reason for STALE; what was read last stays.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from mpengine import __version__
from mpengine.config import Settings, admin_address
from mpengine.schemas import FeedsDocument, VenueFeed, decode
from mpengine.top import fanout
from mpengine.top.figures import percentiles
from mpengine.top.heat import Window, window_at
from mpengine.top.model import Facts, FanOut, Process, Stream, Symbol, Venue
from mpengine.top.shared import MS_NS, Handle, SymbolFiles
from shm.board import BoardReader
from shm.board_words import Role, State, Word
from shm.document import DocumentReader
from shm.errors import LayoutMismatch
from shm.liveness import PROC, WriterState
from shm.records import DocumentId

SLOW_NS: Final = 900_000_000
LAGS_KEPT: Final = 60
FEEDS_STALE_MS: Final = 10_000
TROUBLE: Final = (
    "dropped_records", "dropped_batches", "gaps", "unknown_symbol", "refused_events", "refused_frames", "refused_documents",
    "handler_errors", "quarantined", "capture_dropped", "write_errors", "sync_errors", "log_errors", "clock_jumps", "http_5xx",
)  # fmt: skip
_GONE: Final = frozenset({WriterState.DEAD, WriterState.CLOSED, WriterState.RETIRED})
_ROLES: Final = {
    Role.SUPERVISOR: "supervisor", Role.INGEST: "ingest", Role.ENGINE: "engine", Role.API_MASTER: "master", Role.API_WORKER: "api",
}  # fmt: skip
_STATES: Final = frozenset(State.__members__.values())


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall clock and monotonic clock, ns."""

    wall_ns: Callable[[], int] = time.time_ns
    monotonic_ns: Callable[[], int] = time.monotonic_ns


@dataclass(frozen=True, slots=True)
class _Used:
    """Counters of a process at the look before."""

    at_ns: int
    cpu_s: float | None
    messages: int


class LocalSource:
    """The instance of these settings. `read` costs about a millisecond and never raises for what it reads."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """`settings`: with their directories, as the supervisor of the instance has them."""
        paths, name = settings.paths, settings.instance.name
        self._name = name
        self._clock = clock or Clock()
        self._board = Handle(lambda: BoardReader.open(paths.board))
        self._feeds = Handle(lambda: DocumentReader.open(paths.feeds))
        self._files = {symbol: SymbolFiles(paths, symbol, has_book=one.has_orderbook) for symbol, one in settings.symbols.items()}
        address = admin_address(settings.api.admin_bind)
        self._scraper = fanout.Scraper(paths.admin_socket if address is None else address)
        self._fanout = FanOut()
        self._window: Window | None = None
        self._window_of: str | None = None
        self._looked_ns: int | None = None
        self._looked_at: str | None = None
        self._used: dict[str, _Used] = {}
        self._lags: dict[str, deque[list[float]]] = {}
        self._feeds_seen: tuple[int, int] | None = None
        self._document: FeedsDocument | None = None
        self._processes: tuple[Process, ...] = ()
        self._venues: tuple[Venue, ...] = ()
        self._messages_s: float | None = None
        self._since_ms: int | None = None
        self._trouble: str | None = None

    def exists(self) -> bool:
        """Whether an instance has been started here and not stopped."""
        return self._board.check() is not None

    def why(self) -> str:
        """Why not, for people; as `mpengine status` says it."""
        return f"instance {self._name} is not running here ({'Missing' if self._board.error is None else self._board.error})"

    def read(self, shown: str | None, range_pct: float) -> Facts:
        """Facts of now. `shown`: the symbol of zones, liquidations and heat, the first one without; `range_pct`: of the strips."""
        now_ns = self._clock.monotonic_ns()
        shown = shown if shown in self._files else next(iter(self._files))
        if self._looked_ns is None or now_ns - self._looked_ns >= SLOW_NS or shown != self._looked_at:
            self._looked_ns, self._looked_at = now_ns, shown
            self._look(shown)
        files = self._files[shown]
        # First, since it opens the document that the count of zones is taken from.
        zones = files.zones(None)
        symbols = tuple(one.symbol() for one in self._files.values())
        mine = next(one for one in symbols if one.name == shown)
        maps, books = files.layers()
        window = self._window_for(mine, range_pct)
        return Facts(
            now_ms=self._clock.wall_ns() // MS_NS, source="shared memory", instance=self._name, version=__version__,
            heard_ms=self._heard_ms(shown), trouble=self._trouble, since_ms=self._since_ms, messages_s=self._messages_s,
            processes=self._processes, venues=self._venues, symbols=symbols, shown=shown,
            zones=files.zones(mine.price) if zones else (), liquidations=files.liquidations(),
            map=None if window is None else maps.picture(window), book=None if window is None else books.picture(window),
            fanout=self._fanout,
        )  # fmt: skip

    def once(self, shown: str | None, range_pct: float) -> Facts:
        """Facts with one answer of the admin listener: rates are None."""
        self.scrape()
        return self.read(shown, range_pct)

    def scrape(self) -> None:
        """Ask the admin listener; blocks for about a second at worst."""
        self._fanout = self._scraper.ask()

    async def run(self) -> None:
        """Keep the fan-out up to date until cancelled."""
        import asyncio

        while True:
            await asyncio.to_thread(self.scrape)
            await asyncio.sleep(fanout.EVERY_S)

    async def close(self) -> None:
        """Unmap everything."""
        self.unmap()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unmap()

    def unmap(self) -> None:
        """The same, without an event loop."""
        self._board.close()
        self._feeds.close()
        for files in self._files.values():
            files.close()

    def _window_for(self, symbol: Symbol, range_pct: float) -> Window | None:
        if symbol.price is None or symbol.price <= 0:
            return None
        before = self._window if self._window_of == symbol.name else None
        self._window, self._window_of = window_at(symbol.price, range_pct, before), symbol.name
        return self._window

    def _heard_ms(self, shown: str) -> int | None:
        """When ingest or the engine last wrote what they write once a second."""
        told = [self._files[shown].written_ms(), None if self._document is None else self._document.written_ns // MS_NS]
        return max((at for at in told if at is not None), default=None)

    # --- once a second ----------------------------------------------------------------------------------------------

    def _look(self, shown: str) -> None:
        board = self._board.check()
        self._feeds.check()
        for files in self._files.values():
            files.check()
        try:
            self._trouble = self._look_at(board)
        except (LayoutMismatch, ValueError) as error:
            self._trouble = f"the board cannot be read: {error}"
        self._venues = self._look_at_venues(shown)

    def _look_at(self, board: BoardReader | None) -> str | None:
        """Processes of the board; what is wrong with all of it."""
        if board is None:
            error = self._board.error
            self._processes = tuple(_ended(one) for one in self._processes)
            return f"instance {self._name} is not running here" if error is None else f"the board cannot be read: {error}"
        supervisor = board.row_state(0)
        rows = enumerate(board.rows())
        self._messages_s = None
        self._processes = tuple(
            self._process(board, number, row.name, row.role, watched=supervisor not in _GONE)
            for number, row in rows
            if row.role is not Role.TOOL and (board.get(number, Word.PID) or board.get(number, Word.ACTUAL))
        )
        self._since_ms = board.get(0, Word.STARTED_NS) // MS_NS or None
        if supervisor in _GONE:
            return "the supervisor is gone" if supervisor is WriterState.DEAD else "the instance has been stopped"
        return "the supervisor does not turn" if supervisor is WriterState.STALLED else None

    def _process(self, board: BoardReader, number: int, name: str, role: Role, *, watched: bool) -> Process:
        pid, actual, alive = board.get(number, Word.PID), board.get(number, Word.ACTUAL), board.row_state(number)
        own = board.get(number, Word.STATE)
        known = [State(word).name for word in (actual, own) if word and word in _STATES]
        state = (known[0] if known else "NONE") if watched or alive not in _GONE else "DEAD"
        beat_ns, now_ns = board.get(number, Word.BEAT_NS), self._clock.monotonic_ns()
        gone = alive in _GONE
        used = _Used(
            now_ns, None if gone else cpu_seconds(pid, board.get(number, Word.START_TICKS)), board.get(number, Word.MESSAGES)
        )
        before, self._used[name] = self._used.get(name), used
        if role is Role.INGEST:
            self._messages_s = _rate(before, used)
        words = {word: value for word in TROUBLE if (value := board.get(number, Word[word.upper()]))}
        wall_ms = self._clock.wall_ns() // MS_NS
        return Process(
            name=name, role=_ROLES.get(role, "other"), state=state, restarts=board.get(number, Word.RESTARTS),
            beat_ms=wall_ms - max(0, now_ns - beat_ns) // MS_NS if beat_ns else None, cpu_pct=_cpu_pct(before, used),
            rss_bytes=None if gone else board.get(number, Word.RSS_BYTES) or None, trouble=words,
        )  # fmt: skip

    def _look_at_venues(self, shown: str) -> tuple[Venue, ...]:
        reader = self._feeds.reader
        if reader is None:
            return tuple(_down(one) for one in self._venues)
        seen = (self._feeds.life, reader.head(DocumentId.FEEDS))
        if seen != self._feeds_seen and (slot := reader.latest(DocumentId.FEEDS)) is not None:
            try:
                self._document, self._feeds_seen = decode(slot.payload, FeedsDocument), seen
            except ValueError as error:
                self._trouble = self._trouble or str(error)
            else:
                self._remember_lags(self._document)
        if self._document is None:
            return ()
        gone = reader.writer_state() in _GONE
        old = self._clock.wall_ns() // MS_NS - self._document.written_ns // MS_NS > FEEDS_STALE_MS
        per_venue = self._files[shown].per_venue()
        return tuple(
            self._venue(name, feed, "DOWN" if gone else "STALE" if old and feed.state == "LIVE" else feed.state,
                        per_venue.get(name, (None, None, None)))
            for name, feed in self._document.venues.items()
        )  # fmt: skip

    def _remember_lags(self, document: FeedsDocument) -> None:
        for name, feed in document.venues.items():
            lags = [one.lag_ms for one in feed.streams.values() if one.state == "LIVE" and one.lag_ms is not None]
            self._lags.setdefault(name, deque(maxlen=LAGS_KEPT)).append(lags)

    def _venue(self, name: str, feed: VenueFeed, state: str, of_symbol: tuple[str | None, int | None, int | None]) -> Venue:
        book, book_gaps, oi_ms = of_symbol
        p50, p99 = percentiles([lag for lags in self._lags.get(name, ()) for lag in lags])
        gaps = sum(times for reason, times in feed.reasons.items() if "gap" in reason)
        return Venue(
            name=name, state=state, lag_p50_ms=p50, lag_p99_ms=p99, gaps=gaps + (book_gaps or 0), reconnects=feed.reconnects,
            last_ms=feed.last_ms, oi_ms=oi_ms, book=book, liquidations=feed.liquidations,
            streams=tuple(
                Stream(name=stream, state=one.state, messages=one.messages, lag_ms=one.lag_ms)
                for stream, one in feed.streams.items()
            ),
            note=feed.last_error,
        )  # fmt: skip


def _ended(one: Process) -> Process:
    return Process(name=one.name, role=one.role, state="DEAD", restarts=one.restarts, beat_ms=one.beat_ms, trouble=one.trouble)


def _down(one: Venue) -> Venue:
    return Venue(
        name=one.name, state="DOWN", gaps=one.gaps, reconnects=one.reconnects, last_ms=one.last_ms, oi_ms=one.oi_ms, book=one.book,
        liquidations=one.liquidations, note=one.note,
    )  # fmt: skip


def _rate(before: _Used | None, now: _Used) -> float | None:
    if before is None or now.at_ns <= before.at_ns or now.messages < before.messages:
        return None
    return (now.messages - before.messages) * 1e9 / (now.at_ns - before.at_ns)


def _cpu_pct(before: _Used | None, now: _Used) -> float | None:
    if before is None or before.cpu_s is None or now.cpu_s is None or now.at_ns <= before.at_ns or now.cpu_s < before.cpu_s:
        return None
    return round((now.cpu_s - before.cpu_s) * 1e11 / (now.at_ns - before.at_ns), 1)


def cpu_seconds(pid: int, start_ticks: int, proc: Path = PROC) -> float | None:
    """User and system time of exactly this process; None where it is gone, is another one, or cannot be seen."""
    try:
        text = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    if int(fields[19]) != start_ticks:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
