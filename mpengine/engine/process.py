"""The process of one symbol: event ring -> core -> rings and documents. A shell: it waits, publishes, saves, and nothing else.

Read position runs ahead; the ring is released only up to a checkpoint on disk, so a restarted engine loads the checkpoint, reads
again from there and comes to the state of one that was never stopped. A record that two processes died in is put aside.
While no checkpoint can be written (full or hanging disk) a nearly full ring is released without one: the live picture is worth more
than a restart without a gap.

    python -m mpengine.engine.process --settings FILE --symbol BTC [--row N]
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from pathlib import Path
from typing import Any, Final

from mpengine.config import Settings, decode
from mpengine.engine.core import ClockOut, SymbolCore
from mpengine.engine.liquidation_maps import SaveOut, weights_name, zones_name
from mpengine.engine.log_files import LogFiles
from mpengine.engine.log_records import LogOut
from mpengine.engine.self_check import self_check
from mpengine.engine.storage import (
    Checkpoint,
    CheckpointError,
    CheckpointThread,
    Publisher,
    SaveThread,
    config_digest,
    encode_checkpoint,
    load_checkpoint,
    load_json,
    move_aside,
)
from mpengine.idle import Idle
from mpengine.schemas import encode as encode_document
from shm import doorbell
from shm.atomic_file import remove_leftovers, write_atomic
from shm.board_words import Role, Word, resync_word
from shm.event_ring import Batch, BatchFlag, EventReader
from shm.layout import event_ring_spec
from shm.process_shell import ProcessShell, run_main
from shm.records import DocumentId, offsets
from shm.syncer import SyncThread

BATCHES_PER_TURN: Final = 64
DRAIN_S: Final = 2.0
BEAT_NS: Final = 200_000_000
LOOK_NS: Final = 1_000_000_000
CRASHES_BEFORE_QUARANTINE: Final = 2
CHECKPOINT_FILL: Final = 0.5
GIVE_UP_FILL: Final = 0.8
GIVE_UP_NS: Final = 5_000_000_000
EARLY_NS: Final = 250_000_000
ALARMS: Final = frozenset(("WARNING", "CRITICAL"))

_COUNTER_WORDS: Final = {
    "events": Word.EVENTS,
    "trades": Word.TRADES,
    "depth": Word.DEPTH_UPDATES,
    "snapshots": Word.SNAPSHOTS,
    "marks": Word.MARKS,
    "liquidations": Word.LIQUIDATIONS,
    "gaps": Word.GAPS,
    "late": Word.LATE_EVENTS,
    "refused": Word.REFUSED_EVENTS,
    "errors": Word.HANDLER_ERRORS,
}

log = logging.getLogger("mpengine.engine")


class EngineProcess:
    """One symbol's loop. `do_work` is one turn and returns how many batches it applied."""

    def __init__(self, settings: Settings, symbol: str, shell: ProcessShell, bell: int | None) -> None:
        self._settings = settings
        self._symbol = symbol
        self._shell = shell
        self._bell = bell
        self._paths = settings.paths
        self._digest = config_digest(settings, symbol)
        self_check(symbol, settings)
        if not settings.symbols[symbol].brackets:
            default = settings.symbols[symbol].default_mmr
            log.warning("%s has no maintenance brackets: default_mmr %g counts until one is measured", symbol, default)
        self.core = SymbolCore(symbol, settings)
        self._saves = SaveThread(self._paths.symbol_dir(symbol))
        self._logs = LogFiles(self._paths.symbol_dir(symbol) / "logs", symbol)
        self._publisher = Publisher(self._paths, symbol, aside=self._set_aside)
        self._clear_leftovers()
        self._sources: dict[int, tuple[int, int]] = {}
        self._skipped = 0
        self._applied = 0
        self._suspect, self._suspect_record, self._crashes = self._previous_crash()
        self._reader = self._open_ring()
        self._checkpoints = CheckpointThread(self._paths.checkpoint(symbol))
        self._sync = SyncThread(self._publisher.fds, settings.engine.sync_interval_s, self._sync_failed)
        self._sync.start()
        self._next_checkpoint_ns = time.monotonic_ns() + round(settings.engine.checkpoint_interval_s * 1e9)
        self._next_beat_ns = self._next_look_ns = 0
        self._missing = self.core.missing
        self._early_checkpoint_ns = 0
        self._submitted_ns: int | None = None
        self._unsaved = False

    # start -------------------------------------------------------------------------------------------------------------

    def _clear_leftovers(self) -> None:
        """What a process that was killed while it saved left half-written; the locks of the rings say that nobody else saves."""
        folder = self._paths.symbol_dir(self._symbol)
        for path in (self._paths.checkpoint(self._symbol), *(folder / name(self._symbol) for name in (weights_name, zones_name))):
            try:
                for left in remove_leftovers(path):
                    log.info("half-written %s removed", left.name)
            except OSError:
                log.exception("files half-written for %s not removed", path.name)

    def _open_ring(self) -> EventReader:
        """Attach to the event ring at the place of the checkpoint; without a matching one the events before are a gap."""
        path = self._paths.checkpoint(self._symbol)
        spec = event_ring_spec(self._symbol, self._settings.engine.ring_units)
        ring = self._paths.events(self._symbol)
        try:
            checkpoint = load_checkpoint(path, self._symbol, self._digest)
            if checkpoint is not None:
                self.core.restore(checkpoint.state)
        except CheckpointError as error:
            checkpoint = None
            self._report_checkpoint(path, error)
        except Exception:  # whatever it is that cannot be restored, it must not end every start
            checkpoint = None
            self.core = SymbolCore(self._symbol, self._settings)
            log.exception("checkpoint does not hold a state, moved to %s", move_aside(path, time.time_ns()).name)
        if checkpoint is None:
            self._load_files()
            self._number_liquidations(complete=False)
            return EventReader.open(ring, spec)
        self._sources = dict(checkpoint.sources)
        reader = EventReader.open(ring, spec, position=checkpoint.position)
        if reader.uuid != checkpoint.ring_uuid:
            reader.close()
            reader = EventReader.open(ring, spec)
            self._sources = {}
            self.core.on_feed_gap()
            self._number_liquidations(complete=False)
            log.info("the event ring is new: going on from the checkpoint with a gap")
        elif reader.position != checkpoint.position:
            self.core.on_feed_gap()
            self._number_liquidations(complete=False)
            log.warning("the event ring no longer holds the place of the checkpoint: going on with a gap")
        else:
            self._number_liquidations(complete=self._publisher.holds_liquidation(*self.core.last_liquidation))
        return reader

    def _number_liquidations(self, *, complete: bool) -> None:
        """Make the core's numbers those of the ring. `complete`: its state was of this ring, and it reads every event since
        again.

        Then they are: what it numbers as before the ring's next one was published. Else (a ring that was lost or put back from a
        copy, events that are missing) they say nothing: the ring's come next, and what is not newer than its newest is skipped.
        """
        if not complete:
            publisher = self._publisher
            self.core.number_liquidations(publisher.liquidations.next_no, *publisher.newest_liquidations)

    def _load_files(self) -> None:
        """Without a checkpoint: weights and zones of an earlier run, as far as they can be read."""
        weights, zones = (self._file(name(self._symbol)) for name in (weights_name, zones_name))
        for warning in self.core.load_files(weights, zones, time.time_ns()):
            log.warning("%s", warning)

    def _file(self, name: str) -> dict[str, Any] | None:
        try:
            return load_json(self._paths.symbol_dir(self._symbol) / name)
        except (OSError, ValueError):
            log.exception("%s cannot be read", name)
            return None

    def _set_aside(self, output: LogOut | SaveOut) -> None:
        """Log lines and files: threads of their own write them."""
        if isinstance(output, SaveOut):
            self._saves.submit(output)
        else:
            self._logs.write((output,))
            if output.record.get("level") in ALARMS:
                log.log(getattr(logging, output.record["level"]), "calibrator: %s", output.record)

    def _report_checkpoint(self, path: Path, error: CheckpointError) -> None:
        if error.damaged:
            log.error("checkpoint damaged, moved to %s", move_aside(path, time.time_ns()).name, exc_info=error)
        else:
            log.info("checkpoint ignored: %s", error)

    def _previous_crash(self) -> tuple[int, int, int]:
        """(batch position + 1, record place + 1, processes in a row) of what the process before died in; zeros between batches.

        A first death names only the batch; its successor takes that batch record by record, and a second death names the record.
        """
        row = self._shell.row
        batch, record = row.get(Word.IN_FLIGHT_POSITION), row.get(Word.IN_FLIGHT_RECORD)
        same = (batch, record) == (row.get(Word.CRASH_POSITION), row.get(Word.CRASH_RECORD))
        crashes = 0 if not record else row.get(Word.CRASHES_THERE) + 1 if same else 1
        self._remember_crash(batch, record, crashes)
        return batch, record, crashes

    def _remember_crash(self, batch: int, record: int, crashes: int) -> None:
        row = self._shell.row
        row.set(Word.CRASH_POSITION, batch)
        row.set(Word.CRASH_RECORD, record)
        row.set(Word.CRASHES_THERE, crashes)
        row.set(Word.IN_FLIGHT_RECORD, 0)
        row.set(Word.IN_FLIGHT_POSITION, 0)

    # loop --------------------------------------------------------------------------------------------------------------

    def do_work(self) -> int:
        """Apply the batches that are there (a bounded number), publish, then what time asks for."""
        work = 0
        while work < BATCHES_PER_TURN and (batch := self._reader.get()) is not None:
            self._apply(batch)
            work += 1
        now_ns = time.monotonic_ns()
        if work:
            self._shell.row.set(Word.LAST_INPUT_NS, now_ns)
            for venue, book in self.core.books.items():
                self._shell.row.set(resync_word(venue), book.resync_asked)
        self._shell.row.set(Word.BACKLOG, self._reader.backlog())
        if now_ns >= self._next_beat_ns:
            self._next_beat_ns = now_ns + BEAT_NS
            self._beat(now_ns)
        self._release()
        early = now_ns >= self._early_checkpoint_ns and self._reader.fill() > CHECKPOINT_FILL
        if now_ns >= self._next_checkpoint_ns or (work and early):
            self.checkpoint()
        return work

    def _apply(self, batch: Batch) -> None:
        if not self._is_new(batch):
            self._skipped += batch.records
            return
        row = self._shell.row
        gap = bool(batch.flags & BatchFlag.GAP) or self._is_after_a_hole(batch)
        self._sources[batch.source] = (batch.epoch, batch.first_seq + batch.records)
        row.set(Word.IN_FLIGHT_POSITION, batch.position + 1)
        if batch.position + 1 == self._suspect:
            self._apply_one_by_one(batch, gap=gap)
        else:
            self.core.on_batch(batch.body, gap=gap)
        self._publish()
        row.set(Word.IN_FLIGHT_POSITION, 0)
        self._applied += batch.records

    def _apply_one_by_one(self, batch: Batch, *, gap: bool) -> None:
        """A batch that a process died in. The size of batches changes nothing in the core, so this is the same, only slower."""
        if gap:
            self.core.on_feed_gap()
        for place, (start, end) in enumerate(offsets(batch.body), 1):
            if place == self._suspect_record and self._crashes >= CRASHES_BEFORE_QUARANTINE:
                self._quarantine(batch, place, batch.body[start:end])
                continue
            self._shell.row.set(Word.IN_FLIGHT_RECORD, place)
            self.core.on_batch(batch.body[start:end])
            self._publish()
        self._suspect = 0
        self._remember_crash(0, 0, 0)

    def _publish(self) -> None:
        row = self._shell.row
        if outputs := self.core.outputs():
            self._publisher.publish(outputs)
            if any(isinstance(one, ClockOut) for one in outputs):
                self._next_checkpoint_ns = 0  # a restart from before it could not tell what was published already
            # Before the head: who reads a new frame finds how long it took.
            row.set(Word.DEPTH_FRAMES, self._publisher.counts.depth)
            row.set(Word.DEPTH_WRITE_NS, self._publisher.counts.depth_write_ns)
            row.set(Word.DEPTH_WRITE_NS_SUM, self._publisher.counts.depth_write_ns_sum)
            row.set(Word.HEAD_DEPTH, self._publisher.depth.next_no)
            row.set(Word.HEAD_LIQUIDATION, self._publisher.maps.next_no)
            row.set(Word.HEAD_CANDLES, self._publisher.candles.next_no)
            row.set(Word.HEAD_LIQUIDATIONS, self._publisher.liquidations.next_no)
            row.set(Word.HEAD_DOCUMENTS, self._publisher.newest_document)
            if self._bell is not None:
                doorbell.ring(self._bell)

    def _is_new(self, batch: Batch) -> bool:
        """False for records that the checkpoint already holds: reading again from `release` is at-least-once."""
        epoch, next_seq = self._sources.get(batch.source, (0, 0))
        return batch.epoch > epoch or (batch.epoch == epoch and batch.first_seq >= next_seq)

    def _is_after_a_hole(self, batch: Batch) -> bool:
        """True where the running numbers of a source jump: records are missing although no flag says so."""
        epoch, next_seq = self._sources.get(batch.source, (0, 0))
        return batch.epoch == epoch and batch.first_seq > next_seq

    def _quarantine(self, batch: Batch, place: int, record: bytes) -> None:
        path = self._paths.symbol_dir(self._symbol) / f"quarantine-{batch.epoch}-{batch.first_seq + place - 1}.bin"
        try:
            write_atomic(path, record)
        except OSError:
            log.exception("%s not written", path.name)
        self._shell.row.add(Word.QUARANTINED)
        self.core.on_feed_gap()
        self._next_checkpoint_ns = 0  # so that no restart meets this record again
        log.critical("record %d killed %d processes: put aside as %s", batch.first_seq + place - 1, self._crashes, path.name)

    def _beat(self, now_ns: int) -> None:
        row, core, counts = self._shell.row, self.core, self._publisher.counts
        self._publisher.beat()
        self._reader.beat()
        for name, word in _COUNTER_WORDS.items():
            row.set(word, core.counters[name])
        row.set(Word.RESYNCS, sum(book.counters["resyncs"] for book in core.books.values()))
        row.set(Word.MINUTES_ROLLED, counts.candles)
        row.set(Word.REFUSED_FRAMES, counts.refused)
        row.set(Word.DUPLICATES_SKIPPED, self._skipped)
        row.set(Word.CHECKPOINTS, self._checkpoints.written)
        row.set(Word.WRITE_ERRORS, self._checkpoints.errors + self._saves.errors + self._logs.errors + self._logs.dropped)
        row.set(Word.CHECKPOINT_POSITION, self._reader.released)
        if now_ns >= self._next_look_ns:
            self._next_look_ns = now_ns + LOOK_NS
            self._tell_missing()
            if self._reader.replaced():
                self._reopen_ring()

    def _tell_missing(self) -> None:
        """Log the minutes and slots that were not published since the last look."""
        (minutes, slots), (told_minutes, told_slots) = self.core.missing, self._missing
        self._missing = minutes, slots
        if minutes != told_minutes:
            log.warning("%d minutes without a price: no bar", minutes - told_minutes)
        if slots != told_slots:
            log.info("%d depth slots without a synced book: no frame", slots - told_slots)

    def _reopen_ring(self) -> None:
        """The supervisor made a new event ring: what was in the old one and not read is a gap."""
        while (batch := self._reader.get()) is not None:
            self._apply(batch)
        self._reader.close()
        spec = event_ring_spec(self._symbol, self._settings.engine.ring_units)
        self._reader = EventReader.open(self._paths.events(self._symbol), spec)
        self._sources = {}
        self.core.on_feed_gap()
        log.warning("the event ring was replaced: attached to the new one")

    # saving ------------------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Hand the state to the writer thread; the ring is released when it is on disk.

        Before the first event there is no time: what came from files ages by theirs, and nothing of it is saved without.
        """
        now_ns = time.monotonic_ns()
        self._next_checkpoint_ns = now_ns + round(self._settings.engine.checkpoint_interval_s * 1e9)
        if not self.core.now_ns:
            return
        self._early_checkpoint_ns = now_ns + EARLY_NS
        if self._submitted_ns is None:
            self._submitted_ns = now_ns
        checkpoint = Checkpoint(
            symbol=self._symbol,
            config_digest=self._digest,
            ring_uuid=self._reader.uuid,
            position=self._reader.position,
            sources=self._sources,
            state=self.core.state_of(),
        )
        # Encoded here, not in the thread: the bytes are a frozen copy of a state that goes on changing.
        self._checkpoints.submit(encode_checkpoint(checkpoint), (checkpoint.ring_uuid, checkpoint.position))

    def _release(self) -> None:
        done, reader = self._checkpoints.done, self._reader
        if done is not None and done[0] == reader.uuid and done[1] > reader.released:
            reader.release(done[1])
            self._submitted_ns, self._unsaved = None, False
        elif self._submitted_ns is not None and reader.fill() > GIVE_UP_FILL:
            if time.monotonic_ns() - self._submitted_ns < GIVE_UP_NS:
                return
            reader.release(reader.position)
            if not self._unsaved:
                self._unsaved = True
                log.error("no checkpoint could be written in time: the event ring goes on without, a restart will have a gap")

    def _sync_failed(self, _fd: int, error: OSError) -> None:
        log.error("fdatasync failed: %s", error)

    def stop(self) -> None:
        """Drain what the ring holds (bounded time), save, say so, give the locks up."""
        deadline_ns = time.monotonic_ns() + round(DRAIN_S * 1e9)
        while time.monotonic_ns() < deadline_ns and self.do_work():
            pass
        self.checkpoint()
        for file in self.core.files() if self.core.now_ns else ():
            self._saves.submit(file)
        self._checkpoints.stop()
        self._saves.stop()
        self._logs.stop()
        self._release()
        self.publish_state("stopped")
        self._sync.stop(2.0)
        self._reader.close()
        self._publisher.close()

    def publish_state(self, state: str, fatal_error: str | None = None) -> None:
        """A last STATUS document: why this engine no longer moves."""
        data = encode_document(self.core.status(state, fatal_error))
        self._publisher.documents.publish(DocumentId.STATUS, data, ts_ns=self.core.now_ns)

    @property
    def progress(self) -> int:
        """Records applied or skipped by this process."""
        return self._applied + self._skipped


def main() -> int:
    """One engine until it is told to stop."""
    parser = argparse.ArgumentParser(prog="mpengine.engine.process")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--symbol", required=True)
    parser.add_argument("--row", type=int)
    options = parser.parse_args()
    settings = decode(options.settings.read_bytes())
    if options.symbol not in settings.symbols:
        parser.error(f"{options.symbol} is not a configured symbol")
    index = list(settings.symbols).index(options.symbol)
    shell = ProcessShell(
        f"engine-{options.symbol}",
        Role.ENGINE,
        board=settings.paths.board,
        row=options.row,
        index=index,
        log_level=settings.log.level,
    )
    shell.install_signals()
    bell = doorbell.handed_down(os.environ.get(doorbell.VARIABLE, "")).get(options.symbol)
    engine = EngineProcess(settings, options.symbol, shell, bell)
    idle = Idle()
    shell.live()
    try:
        while not shell.stopping:
            work = engine.do_work()
            shell.beat(engine.progress)
            idle(work)
    except BaseException as error:
        engine.publish_state("failed", f"{type(error).__name__}: {error}"[:500])
        raise
    engine.stop()
    shell.close()
    return 0


if __name__ == "__main__":
    run_main(main)
