"""The event rings that this process writes, one per symbol: closed batches in, counters out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final, Protocol

from mpengine.ingest.counts import Counts
from mpengine.ingest.routing import Ready
from shm.board_words import Word
from shm.errors import Refused
from shm.event_ring import BatchFlag
from shm.records import GapScope, Venue, pack_gap

SOURCE: Final = 1
"""Id of this feed shard in batches and in the label text of the board."""

log = logging.getLogger("mpengine.ingest.rings")


class Writer(Protocol):
    """What is needed of `shm.event_ring.EventWriter`."""

    dropped_records: int
    dropped_batches: int
    gaps: int

    def put(self, body: bytes, *, records: int, source: int, first_seq: int, flags: int = 0) -> bool: ...
    def beat(self) -> None: ...
    def close(self) -> None: ...


class Rings:
    """Puts batches into the rings. A refused batch is counted; the ring marks the hole in the next one it takes."""

    def __init__(self, writers: dict[str, Writer], counts: Counts) -> None:
        self._writers = writers
        self._counts = counts
        self._began = {name: (writer.dropped_records, writer.dropped_batches, writer.gaps) for name, writer in writers.items()}
        self._full: set[str] = set()

    def put(self, ready: Ready) -> None:
        """Put one batch; never waits, never raises."""
        writer, counts = self._writers[ready.symbol], self._counts
        counts.add(Word.BATCHES)
        try:
            taken = self._put(writer, ready, ready.body, ready.records)
        except Refused as error:
            # Only a record that no ring of this size could take comes here. The reader must know that something is missing.
            log.error("%s: a batch of %d bytes was refused: %s", ready.symbol, len(ready.body), error)
            counts.add(Word.REFUSED_EVENTS, ready.records)
            taken = self._put(writer, ready, pack_gap(Venue.NONE, GapScope.ALL, 0), 1)
        self._note_full(ready.symbol, taken)

    def publish_losses(self) -> None:
        """Bring what the rings dropped since this process began to the counters."""
        losses = [0, 0, 0]
        for name, writer in self._writers.items():
            now = (writer.dropped_records, writer.dropped_batches, writer.gaps)
            losses = [total + value - first for total, value, first in zip(losses, now, self._began[name])]
        for word, value in zip((Word.DROPPED_RECORDS, Word.DROPPED_BATCHES, Word.GAPS), losses):
            self._counts.put(word, value)

    def beat(self) -> None:
        """Say in every ring that its writer lives."""
        for writer in self._writers.values():
            writer.beat()

    def close(self) -> None:
        """Release every ring."""
        for writer in self._writers.values():
            writer.close()

    def _put(self, writer: Writer, ready: Ready, body: bytes, records: int) -> bool:
        flags = BatchFlag.CLOCK_ONLY if ready.clock_only else 0
        return writer.put(body, records=records, source=SOURCE, first_seq=ready.first_seq, flags=flags)

    def _note_full(self, symbol: str, taken: bool) -> None:
        if taken and symbol in self._full:
            self._full.discard(symbol)
            log.warning("%s: the event ring takes batches again", symbol)
        elif not taken and symbol not in self._full:
            self._full.add(symbol)
            log.error("%s: the event ring is full, newest batches are dropped", symbol)


def open_rings(paths: dict[str, Path], units: int, counts: Counts) -> Rings:
    """Attach to the rings of all symbols. Raises what `EventWriter.open` raises; none stays open then."""
    from shm.event_ring import EventWriter
    from shm.layout import event_ring_spec

    writers: dict[str, Writer] = {}
    try:
        for symbol, path in paths.items():
            writers[symbol] = EventWriter.open(path, event_ring_spec(symbol, units))
    except BaseException:
        for writer in writers.values():
            writer.close()
        raise
    return Rings(writers, counts)
