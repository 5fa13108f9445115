"""Replay: a capture through the same mappers and cores as live, without sockets, at full speed. A shell around files.

The order of records is the order of the capture; clock ticks come from `ClockGrid`, so the same capture gives bit-identical frames,
documents and bars, and the same as ingest gives when the simulator serves the capture with stamps.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from mpengine import venues
from mpengine.clock_grid import ClockGrid
from mpengine.config import Settings
from mpengine.engine.book import Book
from mpengine.engine.core import SymbolCore
from mpengine.engine.liquidation_maps import SaveOut
from mpengine.engine.log_files import LogFiles
from mpengine.engine.log_records import LogOut
from mpengine.engine.storage import Publisher, state_digest
from mpengine.ingest.capture_file import CaptureLine
from mpengine.ingest.foreign import open_capture
from mpengine.venues.base import RestCall, Routed, VenueModule
from shm.atomic_file import write_atomic
from shm.paths import Paths
from shm.records import DEPTH, EventFlag, Kind, Venue, pack_clock, pack_levels

MS_NS: Final = 1_000_000
FLUSH_RECORDS: Final = 256


@dataclass(slots=True)
class Summary:
    """What a replay did; its last line on stdout. `frames` of depth were made; `published` of them were newer than the ring's
    newest. `maps`: minutes of liquidation maps that were.

    `gaps`: breaks in the chains of diffs and holes that a venue module or the capture told of. `symbols`: symbol -> `books` (state
    by venue), `gaps` (breaks in the chain) and `resyncs` by venue, snapshots used, digest of the final state.
    """

    messages: int = 0
    events: int = 0
    depth_updates: int = 0
    gaps: int = 0
    resyncs: int = 0
    frames: int = 0
    published: int = 0
    maps: int = 0
    candles: int = 0
    refused: int = 0
    skipped_messages: int = 0
    from_ms: int | None = None
    to_ms: int | None = None
    seconds: float = 0.0
    refusals: dict[str, int] = field(default_factory=dict)
    symbols: dict[str, dict[str, Any]] = field(default_factory=dict)


class Replay:
    """Feeds capture lines to the cores of `symbols`. Into a directory without maps it writes log files too, as an engine does.

    `partial_book`: start a Binance book from its first diff when there is no snapshot; other venues' recordings begin with one.
    """

    def __init__(self, settings: Settings, symbols: Sequence[str], data: Path, *, partial_book: bool = False) -> None:
        chosen = {name: settings.symbols[name] for name in symbols}
        self._settings = msgspec.structs.replace(settings, symbols=chosen)
        self._partial_book = partial_book
        self._grid = ClockGrid(settings.ingest.clock_interval_ms * MS_NS)
        self._venues: dict[str, VenueModule] = {module.venue.label: module for module in venues.build(self._settings)}
        paths = Paths(data, data)
        self._cores = {name: SymbolCore(name, self._settings) for name in symbols}
        self._logs: dict[str, LogFiles] = {}
        self._publishers = {name: Publisher(paths, name, event_clock=True, aside=partial(self._aside, name)) for name in symbols}
        for name, publisher in self._publishers.items():
            if not publisher.maps.next_no:
                self._logs[name] = LogFiles(paths.symbol_dir(name) / "logs", name)
        self._paths = paths
        self._waiting: dict[str, list[bytes]] = {name: [] for name in symbols}
        self._started: set[str] = set()
        self.summary = Summary()

    def feed(self, line: CaptureLine) -> None:
        """One line of a capture: the ticks before it, then its records."""
        for tick in self._grid.until(line.recv_ns):
            for name in self._cores:
                self._add(Routed(name, pack_clock(tick)))
        if line.direction == "gap":
            self.flush()
            for core in self._cores.values():
                core.on_feed_gap()
            return
        module = self._venues.get(line.venue)
        if module is None or line.direction == "out":
            self.summary.skipped_messages += line.direction in ("in", "rest")
            return
        self._drive(module, line)
        for routed in module.events():
            self._add(routed)

    def _drive(self, module: VenueModule, line: CaptureLine) -> None:
        summary = self.summary
        if line.direction == "in":
            summary.messages += 1
            module.receive(line.connection, line.payload, line.recv_ns)
        elif line.direction == "rest":
            summary.messages += 1
            if line.status == 200:
                module.receive_rest(RestCall(line.call or "", line.symbol, "", 0), 200, line.payload, line.recv_ns)
        elif line.direction == "open":
            module.opened(line.connection, line.recv_ns)
        elif line.direction == "lost":
            module.lost(line.connection, line.recv_ns, replaced=line.payload == b"replaced")
        if summary.from_ms is None:
            summary.from_ms = line.recv_ns // MS_NS
        summary.to_ms = line.recv_ns // MS_NS

    def _add(self, routed: Routed) -> None:
        waiting = self._waiting[routed.symbol]
        own_book = routed.data[0] in (Kind.DEPTH, Kind.SNAPSHOT) and routed.data[1] == Venue.BINANCE
        if self._partial_book and own_book and routed.symbol not in self._started:
            self._started.add(routed.symbol)
            if routed.data[0] == Kind.DEPTH:
                waiting.append(_empty_snapshot(routed.data))
        waiting.append(routed.data)
        if len(waiting) >= FLUSH_RECORDS:
            self._flush(routed.symbol)

    def _aside(self, name: str, output: LogOut | SaveOut) -> None:
        if isinstance(output, LogOut) and name in self._logs:
            self._logs[name].write_all((output,))

    def core(self, symbol: str) -> SymbolCore:
        """The core of a symbol, to look at."""
        return self._cores[symbol]

    def flush(self) -> None:
        """Everything fed so far is applied and published."""
        for name in self._cores:
            self._flush(name)

    def _flush(self, name: str) -> None:
        waiting = self._waiting[name]
        if not waiting:
            return
        core = self._cores[name]
        core.on_batch(b"".join(waiting))
        waiting.clear()
        self._publishers[name].publish(core.outputs())

    def finish(self, seconds: float) -> Summary:
        """Apply what waits, close the rings; the final figures."""
        self.flush()
        summary = self.summary
        summary.seconds = round(seconds, 3)
        for name, core in self._cores.items():
            counts = self._publishers[name].counts
            books = core.books.values()
            breaks = {venue.label: _breaks(book) for venue, book in core.books.items()}
            summary.events += core.counters["events"]
            summary.depth_updates += core.counters["depth"]
            summary.gaps += core.counters["gaps"] + sum(breaks.values())
            summary.resyncs += sum(book.counters["resyncs"] for book in books)
            status = core.status("stopped")
            summary.frames += status.depth_frames
            summary.candles += status.minutes_rolled
            summary.published += counts.depth
            summary.maps += counts.maps
            summary.refused += core.counters["refused"] + counts.refused
            summary.symbols[name] = {
                "books": {venue.label: book.state for venue, book in core.books.items()},
                "gaps": breaks,
                "resyncs": {venue.label: book.counters["resyncs"] for venue, book in core.books.items()},
                "snapshots": sum(book.counters["snapshots"] for book in books),
                "state": state_digest(core.state_of()),
            }
        for module in self._venues.values():
            summary.refused += module.counters.refused
            for reason, count in module.counters.reasons.items():
                summary.refusals[reason] = summary.refusals.get(reason, 0) + count
        self.close()
        return summary

    def close(self) -> None:
        """Write weights, zones and log lines out, give the locks of the rings up."""
        for name, publisher in self._publishers.items():
            for file in self._cores[name].files():
                write_atomic(self._paths.symbol_dir(name) / file.file, file.encoded())
            publisher.close()
        for logs in self._logs.values():
            logs.stop(60.0)


def replay_files(
    files: Sequence[Path], replay: Replay, progress: Callable[[int, int], None] | None = None, every: int = 4096
) -> Summary:
    """All lines of `files`, in this order. `progress(done bytes, all bytes)` is called now and then.

    Raises CaptureError, OSError for a file that cannot be read (further); what was replayed before it stays published.
    """
    sizes = [path.stat().st_size for path in files]
    started = time.monotonic()
    count = 0
    try:
        for index, path in enumerate(files):
            for line in open_capture(path):
                replay.feed(line)
                count += 1
                if progress is not None and count % every == 0:
                    progress(sum(sizes[:index]) + min(sizes[index], position_of(path)), sum(sizes))
    except BaseException:
        replay.flush()
        replay.close()
        raise
    if progress is not None:
        progress(sum(sizes), sum(sizes))
    return replay.finish(time.monotonic() - started)


def position_of(path: Path) -> int:
    """How far this process has read `path`, whichever reader holds it open; 0 where nobody does."""
    target = path.resolve()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if entry.readlink() == target:
                return os.lseek(int(entry.name), 0, os.SEEK_CUR)
        except OSError:
            continue  # the descriptor of the listing itself is gone by now
    return 0


class ProgressBar:
    """A bar on stderr while it is a terminal, redrawn at most ten times a second; silent elsewhere."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._next = 0.0
        self._shown = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` bytes are read."""
        now = time.monotonic()
        if not self._shown or (now < self._next and done < total):
            return
        self._next = now + 0.1
        share = done / total if total else 1.0
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r{self._title} [{'#' * round(40 * share):<40}] {share:4.0%}{end}")
        sys.stderr.flush()


def _breaks(book: Book) -> int:
    """Diffs that did not follow the one before, tolerated or not."""
    return sum(book.counters[name] for name in ("pu_gaps", "u_gaps", "gaps_tolerated"))


def _empty_snapshot(diff: bytes) -> bytes:
    """A snapshot without levels that the diff bridges: the book starts empty and says that it is partial."""
    _, venue, _, _, _, venue_ns, recv_ns, _, previous, _, _, _, _ = DEPTH.unpack_from(diff)
    return pack_levels(Kind.SNAPSHOT, venue, EventFlag.PARTIAL, venue_ns, recv_ns, 0, previous, 0, 0, 0, b"")


def summary_json(summary: Summary) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(asdict(summary))
