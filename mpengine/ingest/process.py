"""The ingest process: builds the parts, turns every clock interval, stops in order. A shell; the only writer of the event rings.

    python -m mpengine.ingest.process --settings FILE [--row N]
    python -m mpengine.ingest.process --settings FILE --record-only --out DIRECTORY

With `--record-only` there are no rings and no board: raw messages go to captures in DIRECTORY and nowhere else.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mpengine.config import Settings, VenuesSettings, decode
from shm.board_words import VENUE_STATES, Role, Word, parse_errors_word, venue_state_word, venue_streams_word
from shm.process_shell import BootFailure, ProcessShell, run_main

if TYPE_CHECKING:
    from mpengine.ingest.capture_file import CaptureHeader
    from mpengine.ingest.connection import SocketKeeper
    from mpengine.ingest.cross_watch import CrossWatch
    from mpengine.ingest.feeds import Feed
    from mpengine.ingest.intake import Intake
    from mpengine.ingest.recorder import Recorder
    from mpengine.ingest.rings import Rings
    from mpengine.ingest.routing import Router
    from mpengine.ingest.watchdog import Finding
    from shm.board import BoardReader
    from shm.document import DocumentWriter

DOCUMENT_S: Final = 1.0
RESTART_S: Final = 1.0
CLOSE_S: Final = 1.5
RECORDER_CLOSE_S: Final = 1.0
STOP_LIMIT_S: Final = 5.0
REFUSALS_LOGGED_S: Final = 60.0

log = logging.getLogger("mpengine.ingest")


class Ingest:
    """Everything of one ingest process. `run` returns when the shell is told to stop; `close` releases the files."""

    def __init__(self, settings: Settings, shell: ProcessShell, *, row: int | None, record_to: Path | None) -> None:
        """`record_to`: capture directory of a recording without rings; None: rings, and captures as the settings say.

        Raises BootFailure and what attaching to rings and board raises.
        """
        # Imported here: the process is on the board and beats before it loads its sockets.
        from mpengine import venues
        from mpengine.ingest.counts import Counts, Rarely
        from mpengine.ingest.cross_watch import CrossWatch
        from mpengine.ingest.feeds import Feed
        from mpengine.ingest.wall_clock import JumpWatch

        self._settings = settings
        self._shell = shell
        self._counts = Counts()
        self._feeds = [Feed(module, settings.ingest.watchdog_scale) for module in venues.build(settings)]
        if not self._feeds:
            raise BootFailure("no venue is enabled that trades one of the symbols")
        self._refusals = Rarely(REFUSALS_LOGGED_S)
        self._told: dict[tuple[str, str], int] = {}
        self._jumps = JumpWatch(time.time_ns(), time.monotonic_ns())
        self._ticks = 0
        self._document_ns = 0
        self._stop_limit = threading.Timer(STOP_LIMIT_S, _give_up)
        self._stop_limit.daemon = True
        self._keepers: list[SocketKeeper] = []
        # Only a venue that claims to push every liquidation can be measured by what the others show.
        scale = settings.ingest.watchdog_scale
        self._cross: list[tuple[Feed, CrossWatch]] = [
            (feed, CrossWatch(scale)) for feed in self._feeds if feed.module.sampling == "all_500ms"
        ]
        self._board: BoardReader | None = None
        self._rings: Rings | None = None
        self._documents: DocumentWriter | None = None
        self._recorder: Recorder | None = None
        try:
            if record_to is None:
                self._open_shared(row)
            if record_to is not None or settings.capture.enabled:
                self._recorder = self._start_recorder(record_to or settings.paths.captures)
        except BaseException:
            self.close()
            raise

    def _open_shared(self, row: int | None) -> None:
        from mpengine.ingest.rings import open_rings
        from shm.document import DocumentWriter
        from shm.layout import feeds_spec

        settings, paths = self._settings, self._settings.paths
        rings = {name: paths.events(name) for name in settings.symbols}
        self._rings = open_rings(rings, settings.engine.ring_units, self._counts)
        self._documents = DocumentWriter.open(paths.feeds, feeds_spec())
        if row is not None:
            from shm.board import BoardReader

            self._board = BoardReader.open(paths.board)

    def _start_recorder(self, directory: Path) -> Recorder:
        from mpengine.ingest.recorder import Recorder

        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            # The live path does not depend on the capture; the recorder tries again with every frame and says so.
            log.error("captures cannot be kept in %s: %s", directory.name, error.strerror)
            if self._rings is None:
                raise BootFailure(f"{directory}: {error.strerror}") from error
        recorder = Recorder(directory, self._settings.capture, self._header)
        recorder.start()
        return recorder

    def _header(self, created_ns: int) -> CaptureHeader:
        from mpengine.ingest.capture_file import CaptureHeader

        settings = self._settings
        names = {
            ours: {venue: theirs for venue in VenuesSettings.__struct_fields__ if (theirs := getattr(symbol, venue, None))}
            for ours, symbol in settings.symbols.items()
        }
        return CaptureHeader(
            created_ns=created_ns, instance=settings.instance.name, symbols=names, config_hash=settings.config_hash
        )

    # loop --------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Sockets and polls until a stop signal; then everything received is flushed."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_stop() -> None:
            loop.call_soon_threadsafe(stop.set)

        self._shell.install_signals(on_stop)
        if self._shell.stopping:  # the signal came while the files were opened
            return
        intake = self._intake(loop)
        tasks = [task for feed in self._feeds for task in self._start_feed(feed, intake)]
        self._shell.live()
        try:
            await self._turn_until(stop, intake)
        finally:
            self._stop_limit.start()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CLOSE_S)
            intake.flush()
            self._count(intake)
            self._counts.publish(self._shell.row)
            self._publish(time.time_ns(), time.monotonic_ns())

    def close(self) -> None:
        """Release rings, board and documents; write out the capture."""
        for part in (self._rings, self._documents, self._board):
            if part is not None:
                part.close()
        if self._recorder is not None and not self._recorder.close(RECORDER_CLOSE_S):
            log.error("the capture could not be written out in time: %d lines lost", self._recorder.dropped)
        self._stop_limit.cancel()

    def _intake(self, loop: asyncio.AbstractEventLoop) -> Intake:
        from mpengine.ingest.intake import Intake, StampedIntake

        settings = self._settings.ingest
        parts = self._router(), self._recorder, self._counts, loop.call_later, settings.flush_ms
        if settings.receive_clock == "sender":
            return StampedIntake(*parts, self._feeds, settings.clock_interval_ms * 1_000_000)
        return Intake(*parts)

    def _router(self) -> Router | None:
        from mpengine.ingest.routing import Router

        if self._rings is None:
            return None
        settings = self._settings.ingest
        return Router(self._settings.symbols, settings.flush_bytes, max(1, int(settings.flush_ms * 1e6)), self._rings.put)

    def _start_feed(self, feed: Feed, intake: Intake) -> list[asyncio.Task[None]]:
        from mpengine import __version__
        from mpengine.ingest.connection import SocketKeeper, dialler
        from mpengine.ingest.poller import Poller
        from mpengine.ingest.snapshots import SnapshotDesk

        settings = self._settings.ingest
        dial = dialler(settings)
        keepers = [SocketKeeper(feed, plan, intake, settings, dial, random.random) for plan in feed.plans]
        self._keepers += keepers
        poller = Poller(feed, getattr(self._settings.venues, feed.name).rest_url, intake, settings, __version__)
        overdue = partial(intake.overdue, feed)
        desk = SnapshotDesk(feed, poller, keepers, self._counts, settings.snapshot_interval_s, overdue)
        wishes = self._wishes(feed)
        runs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "rest": poller.run,
            "snapshots": lambda: desk.run(wishes),
            **{keeper.plan.name: keeper.run for keeper in keepers},
        }
        return [asyncio.create_task(self._forever(f"{feed.name}/{name}", run)) for name, run in runs.items()]

    def _wishes(self, feed: Feed) -> Callable[[int], Iterable[str]]:
        """Where snapshot requests come from: the engines' rows; without a board the needs of a recording."""
        from mpengine.ingest.snapshots import BoardWishes, RecordWishes, book_flows

        wire, served = feed.module.wire_snapshots, self._settings.ingest.receive_clock == "sender"
        if wire and (served or self._board is None):
            return lambda _now_ns: ()  # each connection brings its snapshots, a served capture those that were recorded
        if self._board is None:
            return RecordWishes(feed)
        rows = {symbol: row for symbol in self._settings.symbols if (row := self._board.row_of(f"engine-{symbol}")) is not None}
        if served or wire:
            # The stamp of a recorded snapshot says where it belongs, and a subscription begins with one: nothing to wait for.
            return BoardWishes(self._board, rows, feed.module.venue, lambda _symbol: True, fresh=wire)
        return BoardWishes(self._board, rows, feed.module.venue, lambda symbol: book_flows(feed, symbol))

    async def _forever(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """An error that nobody foresaw ends one part of one venue, for a second."""
        while True:
            try:
                await run()
            except Exception:
                self._counts.add(Word.HANDLER_ERRORS)
                log.exception("%s failed and is started again", name)
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    return  # what failed hid the cancellation, which does not come twice
            await asyncio.sleep(RESTART_S)

    async def _turn_until(self, stop: asyncio.Event, intake: Intake) -> None:
        interval_s = self._settings.ingest.clock_interval_ms / 1000
        due_s = time.monotonic()
        while not stop.is_set():
            self._turn(intake)
            due_s = max(due_s + interval_s, time.monotonic())
            try:
                async with asyncio.timeout(max(0.0, due_s - time.monotonic())):
                    await stop.wait()
            except TimeoutError:
                pass

    def _turn(self, intake: Intake) -> None:
        """One clock interval: tick, look after the sockets, tell the board."""
        wall_ns, now_ns = time.time_ns(), time.monotonic_ns()
        if jump_ns := self._jumps.look(wall_ns, now_ns):
            self._counts.put(Word.CLOCK_JUMPS, self._jumps.jumps)
            log.warning("the wall clock was set by %.3f s", jump_ns / 1e9)
        intake.tick(wall_ns)
        self._ticks += 1
        self._look_after_venues(intake, now_ns)
        self._count(intake)
        if now_ns - self._document_ns >= DOCUMENT_S * 1e9:
            self._document_ns = now_ns
            self._publish(wall_ns, now_ns)
        self._counts.publish(self._shell.row)
        self._tell_states(now_ns)
        self._shell.row.set(Word.LAST_INPUT_NS, max((feed.seen_ns or 0 for feed in self._feeds), default=0))
        self._shell.beat(progress=self._ticks + self._counts.get(Word.MESSAGES))

    # watching ----------------------------------------------------------------------------------------------------------

    def _look_after_venues(self, intake: Intake, now_ns: int) -> None:
        """Act on silence, on announced ends, and send what the venue modules want to say."""
        unlisted = {feed.name: intake.unlisted(feed) for feed in self._feeds}
        for keeper in self._keepers:
            self._look_after(keeper, now_ns, unlisted[keeper.feed.name])
        for feed in self._feeds:
            for name in intake.replacements(feed):
                for keeper in self._keepers:
                    if keeper.feed is feed and keeper.life is not None and keeper.life.name == name:
                        log.info("%s %s: the venue ends it, its successor is opened", feed.name, name)
                        keeper.rotate()
        for feed, watch in self._cross:
            self._compare_liquidations(feed, watch, now_ns)
        for keeper in self._keepers:
            keeper.send_pending()

    def _compare_liquidations(self, feed: Feed, watch: CrossWatch, now_ns: int) -> None:
        from mpengine.ingest.feeds import NOT_SHOWN, liquidation_streams

        others: dict[str, int] = {}
        for other in self._feeds:
            if other is not feed:
                for symbol, total in other.module.counters.liquidations.items():
                    others[symbol] = others.get(symbol, 0) + total
        streams = liquidation_streams(feed)
        since_ns = {symbol: opened_ns for symbol, (_plan, _stream, opened_ns) in streams.items()}
        for symbol, shown in watch.look(feed.module.counters.liquidations, others, now_ns, since_ns=since_ns).items():
            plan, stream, _ = streams[symbol]
            feed.did(NOT_SHOWN)
            log.warning("%s %s: silent while other venues show %d liquidations: subscribed anew", feed.name, stream, shown)
            for keeper in self._keepers:
                if keeper.feed is feed and keeper.plan.name == plan:
                    keeper.resubscribe(stream)

    def _tell_states(self, now_ns: int) -> None:
        """State of each venue and of its streams, on the board."""
        from mpengine.ingest.feeds import streams_word

        row = self._shell.row
        for feed in self._feeds:
            row.set(venue_state_word(feed.module.venue), VENUE_STATES.index(feed.state(now_ns)))
            row.set(venue_streams_word(feed.module.venue), streams_word(feed, now_ns))

    def _look_after(self, keeper: SocketKeeper, now_ns: int, unlisted: frozenset[str]) -> None:
        feed, life = keeper.feed, keeper.life
        if life is None:
            return
        stats = feed.module.stats(life.name)
        for finding in life.watch.look(stats, now_ns, trades_flow=feed.trades_flow(now_ns), unlisted=unlisted):
            self._act(keeper, finding)

    def _act(self, keeper: SocketKeeper, finding: Finding) -> None:
        from mpengine.ingest.watchdog import Action

        name, stream, silent_s = keeper.feed.name, finding.stream, finding.silent_s
        level = logging.WARNING if finding.steady else logging.INFO
        match finding.action:
            case Action.WARN:
                log.log(level, "%s %s: silent for %.1f s", name, stream, silent_s)
            case Action.RECOVERED:
                log.info("%s %s: delivers again after %.1f s", name, stream, silent_s)
            case Action.RESUBSCRIBE:
                log.log(level, "%s %s: silent for %.1f s: subscribed anew", name, stream, silent_s)
                keeper.resubscribe(stream, must=finding.steady)
            case Action.REPLACE:
                log.log(level, "%s %s: silent for %.1f s: a successor is opened", name, stream, silent_s)
                keeper.replace()
            case Action.REOPEN:
                keeper.reopen(f"{stream} silent for {silent_s:.1f} s")
            case Action.WRONG_ROUTE:
                log.error("%s %s: silent for %.0f s while trades flow: wrong route?", name, stream, silent_s)
                keeper.rotate()

    def _count(self, intake: Intake) -> None:
        """Bring totals that are kept elsewhere to the counters, and log what is new in them, once a minute per reason."""
        counts = self._counts
        if self._rings is not None:
            self._rings.beat()
            self._rings.publish_losses()
        counts.put(Word.UNKNOWN_SYMBOL, intake.unknown)
        if self._recorder is not None:
            counts.put(Word.CAPTURE_RECORDS, self._recorder.records)
            counts.put(Word.CAPTURE_DROPPED, self._recorder.dropped)
            counts.put(Word.WRITE_ERRORS, self._recorder.write_errors)
        for feed in self._feeds:
            counts.put(parse_errors_word(feed.module.venue), feed.parse_errors)
            self._log_refusals(feed)

    def _log_refusals(self, feed: Feed) -> None:
        counters = feed.module.counters
        for reason, total in counters.reasons.items():
            key = feed.name, reason
            if total != self._told.get(key, 0) and self._refusals.admit(key, time.monotonic_ns()) is not None:
                new, self._told[key] = total - self._told.get(key, 0), total
                sample = counters.samples.get(reason, "")
                # Both lives of a rotated socket deliver the same rows for a moment: nothing to worry about.
                level = logging.INFO if reason.endswith("duplicate") else logging.WARNING
                log.log(level, "%s: %s, %d more%s", feed.name, reason, new, f", newest {sample}" if sample else "")

    def _publish(self, wall_ns: int, now_ns: int) -> None:
        """The FEEDS document."""
        from mpengine.ingest.feeds import document
        from mpengine.schemas import encode
        from shm.errors import Refused
        from shm.records import DocumentId

        if self._documents is None:
            return
        try:
            self._documents.publish(DocumentId.FEEDS, encode(document(self._feeds, wall_ns, now_ns)), ts_ns=wall_ns)
        except Refused as error:
            self._counts.put(Word.REFUSED_DOCUMENTS, self._documents.refused)
            log.error("the feeds document was refused: %s", error)


def _give_up() -> None:
    """The stop takes too long: say where it hangs and end. The rings are as after a kill, which costs nothing that was flushed."""
    faulthandler.dump_traceback(2)
    os.abort()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a stop signal. Raises BootFailure and the boot errors of `shm.process_shell`."""
    options = _options(arguments)
    settings = decode(options.settings.read_bytes())
    board = None if options.record_only or options.row is None else settings.paths.board
    shell = ProcessShell("ingest", Role.INGEST, board=board, row=options.row, log_level=settings.log.level)
    shell.install_signals()
    ingest = Ingest(settings, shell, row=options.row if board else None, record_to=options.out if options.record_only else None)
    try:
        import uvloop

        uvloop.run(ingest.run())
    finally:
        ingest.close()
    shell.close()
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mpengine.ingest.process", description="All sockets and REST polls of one instance.")
    parser.add_argument("--settings", type=Path, required=True, help="settings file written by the supervisor")
    parser.add_argument("--row", type=int, help="row of this process on the board")
    parser.add_argument("--record-only", action="store_true", help="no rings and no board, only captures")
    parser.add_argument("--out", type=Path, help="directory of the captures, with --record-only")
    options = parser.parse_args(arguments)
    if options.record_only != (options.out is not None):
        parser.error("--record-only and --out belong together")
    return options


if __name__ == "__main__":
    run_main(main)
