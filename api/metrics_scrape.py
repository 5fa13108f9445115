"""`/metrics`: everything there is to alert on, from counter files, the board, documents and heads of rings. No engine is asked.

All of it is shared memory, so every worker gives the same totals. Labels are names of ours: routes as templates, configured
symbols, venues, processes of the board, words of fixed lists; never text of a caller, a path of a file or a pid.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
from prometheus_client import exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.openmetrics import exposition as open_exposition
from prometheus_client.registry import Collector

from api import canaries
from api.bodies import CONTRACT
from api.context import Context
from api.documents import published
from api.feeds import LIVE
from api.health import Health, SymbolState
from api.metrics import BOUNDS_S, Key, Lanes, lane_count
from api.oi import received_ms
from mpengine.schemas import StatusDocument, VenueFeed
from shm.board import BoardReader
from shm.board_words import VENUE_STATES, Role, Word
from shm.frame_ring import FrameReader
from shm.record_ring import RecordReader
from shm.records import FRAME_HEADER_DTYPE, DocumentId

PREFIX: Final = "mpengine_"
EOF: Final = b"# EOF\n"
TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_MEDIA: Final = "application/openmetrics-text"
OPEN_TYPE: Final = f"{OPEN_MEDIA}; version=1.0.0; charset=utf-8"
KEPT_NS: Final = 1_000_000_000
STATES: Final = tuple(state for state in VENUE_STATES if state)

DROPS: Final = (Word.DROPPED_RECORDS, Word.CAPTURE_DROPPED)
ERRORS: Final = {
    Role.INGEST: {
        "handler": Word.HANDLER_ERRORS, "unknown_symbol": Word.UNKNOWN_SYMBOL, "rest": Word.REST_ERRORS,
        "rate_limited": Word.RATE_LIMITED, "clock_jump": Word.CLOCK_JUMPS,
    },
    Role.ENGINE: {
        "handler": Word.HANDLER_ERRORS, "refused_event": Word.REFUSED_EVENTS, "refused_frame": Word.REFUSED_FRAMES,
        "refused_document": Word.REFUSED_DOCUMENTS, "late_event": Word.LATE_EVENTS, "quarantined": Word.QUARANTINED,
    },
}  # fmt: skip
LOG_ERRORS: Final = {"log": Word.LOG_ERRORS}
WRITE_ERRORS: Final = {Role.ENGINE: {"file": Word.WRITE_ERRORS, "sync": Word.SYNC_ERRORS, **LOG_ERRORS}}
ALWAYS_TOLD: Final = ("200", "500", "503")
"""Codes that every route has a line for: a rate needs the 0 before the first one."""

_FEEDERS: Final = (Role.INGEST, Role.ENGINE)

log = logging.getLogger("api.metrics")


@dataclass(frozen=True, slots=True)
class SymbolFacts:
    """What is read of one symbol. `rings`: name -> (frames so far, age in seconds), None where there is nothing; `checkpoint_s`:
    age of the file."""

    name: str
    state: SymbolState
    rings: dict[str, tuple[int | None, float | None]]
    status: StatusDocument | None
    status_age_s: float | None
    oi_ages: dict[str, float]
    books: dict[str, bool]
    checkpoint_s: float | None


@dataclass(frozen=True, slots=True)
class RowFacts:
    """One process of the board. `up`: LIVE, by the supervisor's word where it keeps the row."""

    name: str
    role: Role
    number: int
    up: bool
    restarts: int


class Scrape:
    """Makes the text. Used by the loop's thread, which it lets go between families: no request waits for a whole scrape.

    A text is kept for a second, as long as what workers publish, and made once for all who ask meanwhile: asking more often costs
    little and tells nothing new.
    """

    def __init__(self, context: Context, health: Health) -> None:
        self._context = context
        self._health = health
        self._lanes = Lanes(context.settings.paths, context.meter, lane_count(context.settings.api.workers))
        self._made: dict[bool, tuple[int, asyncio.Task[bytes]]] = {}

    async def text(self, accept: str) -> tuple[bytes, str]:
        """(body, content type): OpenMetrics where `Accept` asks for it, else the Prometheus text format 0.0.4."""
        as_open = any(one.partition(";")[0].strip() == OPEN_MEDIA for one in accept.split(","))
        now_ns = self._context.clock.monotonic_ns()
        kept = self._made.get(as_open)
        if kept is None or now_ns - kept[0] > KEPT_NS:
            kept = self._made[as_open] = now_ns, asyncio.get_running_loop().create_task(self._make(as_open))
        # Shielded: a scraper that gives up does not take the text away from the others.
        return await asyncio.shield(kept[1]), OPEN_TYPE if as_open else TEXT_TYPE

    async def _make(self, as_open: bool) -> bytes:
        encode = open_exposition.generate_latest if as_open else exposition.generate_latest
        parts: list[bytes] = []
        async for family in self._families():
            parts.append(encode(_Only(family)).removesuffix(EOF))
            await asyncio.sleep(0)
        return b"".join([*parts, EOF] if as_open else parts)

    async def _families(self) -> AsyncIterator[Metric]:
        context = self._context
        context.sources.check()
        now_ms = context.clock.wall_ms()
        groups: list[Callable[[], Iterable[Metric]]] = [self._http, self._processes, lambda: self._venues(now_ms)]
        symbols: list[SymbolFacts] = []
        groups += [partial(self._look, name, now_ms, symbols) for name in context.settings.symbols]
        groups += [lambda: self._symbols(symbols), self._service]
        failed = 0
        for group in groups:
            families = iter(group())
            while True:
                try:
                    family = next(families)
                except StopIteration:
                    break
                except Exception:  # what can be told of the others is told
                    log.exception("a part of the metrics cannot be told")
                    failed += 1
                    break
                yield family
            await asyncio.sleep(0)
        yield _gauge("scrape_errors", "Parts of this scrape that could not be told", {(): failed})

    def _service(self) -> Iterator[Metric]:
        context = self._context
        family = InfoMetricFamily(f"{PREFIX}build", "Version, contract and settings of what answers")
        family.add_metric((), {"version": context.build, "contract": CONTRACT, "config_hash": context.settings.config_hash})
        yield family
        yield _gauge("uptime_seconds", "Since the supervisor started", {(): self._health.uptime_s()})

    # --- what workers count -------------------------------------------------------------------------------------------

    def _http(self) -> Iterator[Metric]:
        totals = self._lanes.totals()
        requests = {key: value for key, value in _with(totals, "requests").items() if value or key[1] in ALWAYS_TOLD}
        yield _counter("http_requests", "Answers by route and status", requests, "route", "code")
        yield _histogram(totals)
        for name, text in (("hits", "Answers that were kept"), ("misses", "Answers that had to be built")):
            # NOTE: the specification names them without `_total`, which a counter would get.
            yield _plain(f"cache_{name}", f"{text}; only rises", totals[f"cache_{name}",])
        yield _gauge("cache_entries", "Answers kept, all workers", {(): totals["cache_entries",]})
        yield _gauge("cache_bytes", "Bytes of kept answers, all workers", {(): totals["cache_bytes",]})
        yield _gauge("push_clients", "Open push connections", _with(totals, "push_clients"), "transport")
        yield _counter("push_bytes", "Bytes handed to push connections", {(): totals["push_bytes",]})
        yield _counter("push_conflated", "Messages that slow clients did not get", {(): totals["push_conflated",]})
        yield _counter("push_closed", "Push connections that ended, by reason", _with(totals, "push_closed"), "reason")
        yield _counter("ring_retries", "Reads that met a slot in change", {(): totals["ring_retries",]})
        yield _counter("ring_laps", "Reads that came after the writer had overwritten what they wanted", {(): totals["ring_laps",]})

    # --- processes ----------------------------------------------------------------------------------------------------

    def _rows(self) -> list[RowFacts]:
        board = self._context.sources.board.reader
        if board is None:
            return []
        return [
            RowFacts(one.name, one.role, number, one.state == "LIVE", one.restarts)
            for one in self._health.processes()
            if (number := board.row_of(one.name)) is not None
        ]

    def _processes(self) -> Iterator[Metric]:
        rows = self._rows()
        feeders = [row for row in rows if row.role in _FEEDERS]
        yield _gauge("process_up", "1: lives and turns", {(row.name,): row.up for row in rows}, "process")
        yield _counter("restarts", "Lives begun again", {(row.name,): row.restarts for row in rows}, "process")
        yield self._word("rss_bytes", "Resident memory", Word.RSS_BYTES, [row for row in rows if row.up])
        yield self._word("open_fds", "Open descriptors", Word.OPEN_FDS, [row for row in rows if row.up])
        engines = [row for row in rows if row.role is Role.ENGINE]
        yield self._word("backlog_units", "Units of 64 bytes in the event ring that are not read yet", Word.BACKLOG, engines)
        yield self._sum("drops", "Records refused by a full event ring or by the capture", DROPS, feeders)
        yield self._sum("gaps", "Holes in the stream of events", (Word.GAPS,), feeders)
        yield self._sum("resyncs", "Order books taken anew", (Word.RESYNCS,), feeders)
        yield self._kinds("errors", "What was refused or failed", {row: ERRORS[row.role] for row in feeders})
        writers = {row: WRITE_ERRORS.get(row.role, LOG_ERRORS) for row in rows}
        yield self._kinds("write_errors", "Failed writes: files, write-back, log lines", writers)

    def _get(self, row: RowFacts, word: Word) -> int:
        board: BoardReader | None = self._context.sources.board.reader
        assert board is not None  # there is a row
        return board.get(row.number, word)

    def _word(self, name: str, text: str, word: Word, rows: Iterable[RowFacts]) -> Metric:
        return _gauge(name, text, {(row.name,): self._get(row, word) for row in rows}, "process")

    def _sum(self, name: str, text: str, words: tuple[Word, ...], rows: Iterable[RowFacts]) -> Metric:
        return _counter(name, text, {(row.name,): sum(self._get(row, word) for word in words) for row in rows}, "process")

    def _kinds(self, name: str, text: str, words: dict[RowFacts, dict[str, Word]]) -> Metric:
        values = {(row.name, kind): self._get(row, word) for row, kinds in words.items() for kind, word in kinds.items()}
        return _counter(name, text, values, "process", "kind")

    # --- venues -------------------------------------------------------------------------------------------------------

    def _venues(self, now_ms: int) -> Iterator[Metric]:
        states = self._health.venues(now_ms)
        document = self._context.feeds.document()
        feeds: dict[str, VenueFeed] = {} if document is None else document.content.venues
        one_of = {(venue, state): report["state"] == state for venue, report in states.items() for state in STATES}
        yield _gauge("venue_state", "1 for the state that a venue is in", one_of, "venue", "state")
        ages = {(venue,): report["age_s"] for venue, report in states.items()}
        yield _gauge("venue_age_seconds", "Since the newest message of a venue", ages, "venue")
        lags = {(venue,): _lag_s(feed) for venue, feed in feeds.items()}
        yield _gauge("feed_lag_seconds", "Receipt after the venue's own time, the slowest of its live streams", lags, "venue")
        streams = {
            (venue, state): sum(stream.state == state for stream in feed.streams.values())
            for venue, feed in feeds.items() for state in STATES
        }  # fmt: skip
        yield _gauge("venue_streams", "Streams of a venue by state", streams, "venue", "state")
        events = {(venue, kind): count for venue, feed in feeds.items() for kind, count in feed.events.items()}
        yield _counter("events", "Events taken from a venue, by kind", events, "venue", "kind")
        for name, text in (("reconnects", "Connections opened again"), ("parse_errors", "Messages that could not be read")):
            yield _counter(name, text, {(venue,): getattr(feed, name) for venue, feed in feeds.items()}, "venue")
        yield _counter("rest_errors", "Polls that failed", {(venue,): feed.rest_errors for venue, feed in feeds.items()}, "venue")
        alarms = {(venue,): report["canary"]["alarm"] for venue, report in states.items()}
        yield _gauge("canary_alarm", "1: sides of a venue's liquidations contradict its prices", alarms, "venue")
        crossed = canaries.alarming(self._health.cross_canary())
        yield _gauge("cross_canary_alarm", "1: venues disagree about the side of liquidations", {(): crossed})

    # --- symbols ------------------------------------------------------------------------------------------------------

    def _look(self, name: str, now_ms: int, found: list[SymbolFacts]) -> Iterator[Metric]:
        """One symbol at a time, with a pause for requests behind each; what is told about all of them follows."""
        found.append(self._symbol(name, now_ms))
        yield from ()

    def _symbol(self, name: str, now_ms: int) -> SymbolFacts:
        context = self._context
        files = context.sources.symbols[name]
        documents = files.documents.reader
        found = None if documents is None else published(documents.latest(DocumentId.STATUS), StatusDocument)
        book = context.depth[name].book(None)
        interest = context.oi[name].document()
        return SymbolFacts(
            name=name,
            state=self._health.symbol(name, now_ms),
            rings={
                "depth": _frames(files.depth.reader, "open_ts_ns", now_ms),
                "liquidation": _frames(files.liquidation.reader, "close_ts_ns", now_ms),
                "candles": _records(files.candles.reader, "close_ts_ns", now_ms),
                "liquidations": _records(files.liquidations.reader, "recv_ts_ns", now_ms),
            },
            status=None if found is None else found.content,
            status_age_s=None if found is None else _age_s(found.content.written_ns // 1_000_000, now_ms),
            oi_ages={} if interest is None else {
                venue: _age_s(received_ms(value), now_ms) for venue, value in interest.content.venues.items()
            },
            books={} if book is None else {venue: one.state == "synced" for venue, one in book.content.books.items()},
            checkpoint_s=_file_age_s(context.settings.paths.checkpoint(name), now_ms),
        )  # fmt: skip

    def _symbols(self, symbols: list[SymbolFacts]) -> Iterator[Metric]:
        rings = [(one.name, ring, head, age) for one in symbols for ring, (head, age) in one.rings.items()]
        yield _gauge("ring_head", "Frames or records published so far", {(s, ring): head for s, ring, head, _ in rings},
                     "symbol", "ring")  # fmt: skip
        yield _gauge("ring_age_seconds", "Age of the newest frame (depth: since the start of its window) or record",
                     {(s, ring): age for s, ring, _, age in rings}, "symbol", "ring")  # fmt: skip
        yield _gauge("symbol_stale", "1: a map, an order book or bars are older than they may be",
                     {(one.name,): one.state.stale for one in symbols}, "symbol")  # fmt: skip
        oi = {(one.name, venue): age for one in symbols for venue, age in one.oi_ages.items()}
        yield _gauge("oi_age_seconds", "Since the newest open interest of a venue", oi, "symbol", "venue")
        books = {(one.name, venue): synced for one in symbols for venue, synced in one.books.items()}
        yield _gauge("book_synced", "1: the order book follows the venue without a gap", books, "symbol", "venue")
        ages = {(one.name,): one.status_age_s for one in symbols}
        yield _gauge("engine_age_seconds", "Since the engine last said how it is", ages, "symbol")
        checkpoints = {(one.name,): one.checkpoint_s for one in symbols}
        yield _gauge("checkpoint_age_seconds", "Since the engine last saved its state", checkpoints, "symbol")
        rolled = {(one.name,): one.status.minutes_rolled for one in symbols if one.status}
        yield _counter("minutes_rolled", "Minutes closed with a bar", rolled, "symbol")
        skipped = {(one.name,): one.status.minutes_skipped for one in symbols if one.status}
        yield _counter("minutes_skipped", "Minutes without a price, so without a bar", skipped, "symbol")
        slots = {(one.name,): one.status.depth_slots_empty for one in symbols if one.status}
        yield _counter("depth_slots_empty", "Depth windows without a synchronised book, so without a frame", slots, "symbol")


# --- families and samples ---------------------------------------------------------------------------------------------

Values = Mapping[Any, float | None]
"""Label values (a tuple of texts) -> value; None: nothing is known, so there is no line."""


class _Only(Collector):
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _gauge(name: str, text: str, values: Values, *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(PREFIX + name, text, labels=labels), values)


def _counter(name: str, text: str, values: Values, *labels: str) -> Metric:
    """Its lines end in `_total`."""
    return _filled(CounterMetricFamily(PREFIX + name, text, labels=labels), values)


def _plain(name: str, text: str, value: float) -> Metric:
    return UnknownMetricFamily(PREFIX + name, text, value)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for labels, value in values.items():
        if value is not None:
            family.add_metric(labels, float(value))
    return family


def _with(totals: Mapping[Key, int], name: str) -> dict[tuple[str, ...], float | None]:
    """Figures of that name by the rest of their key."""
    return {key[1:]: value for key, value in totals.items() if key[0] == name}


def _histogram(totals: Mapping[Key, int]) -> Metric:
    family = HistogramMetricFamily(
        f"{PREFIX}http_seconds", "From the whole head of a request to the answer in the hands of the socket", labels=("class",)
    )
    for (_, group), nanoseconds in ((key, value) for key, value in totals.items() if key[0] == "nanoseconds"):
        counts = [totals["seconds", group, str(index)] for index in range(len(BOUNDS_S) + 1)]
        bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
        family.add_metric((group,), list(zip(bounds, accumulate(counts))), nanoseconds / 1e9)
    return family


def _frames(reader: FrameReader | None, time_field: str, now_ms: int) -> tuple[int | None, float | None]:
    """(head, age of the newest frame), None where there is no ring and no frame."""
    if reader is None:
        return None, None
    slot = reader.latest()
    if slot is None:
        return reader.head(), None
    at_ns = int(np.frombuffer(slot.payload, FRAME_HEADER_DTYPE, count=1)[0][time_field])
    return reader.head(), _age_s(at_ns // 1_000_000, now_ms)


def _records(reader: RecordReader | None, time_field: str, now_ms: int) -> tuple[int | None, float | None]:
    if reader is None:
        return None, None
    _, rows = reader.latest(1)
    return reader.ring.head(), _age_s(int(rows[-1][time_field]) // 1_000_000, now_ms) if len(rows) else None


def _lag_s(feed: VenueFeed) -> float | None:
    """Of the slowest live stream; a clock that is behind the venue's gives a negative one."""
    lags = [stream.lag_ms for stream in feed.streams.values() if stream.state == LIVE and stream.lag_ms is not None]
    return max(lags) / 1000 if lags else None


def _file_age_s(path: Path, now_ms: int) -> float | None:
    try:
        return _age_s(path.stat().st_mtime_ns // 1_000_000, now_ms)
    except OSError:
        return None


def _age_s(time_ms: int, now_ms: int) -> float:
    return round(max(0, now_ms - time_ms) / 1000, 3)
