"""From JSON bytes of an exchange to the event ring, and on to the applied book. One core, messages of one symbol::

    bytes --> mapper --> records --> batches of 16 KB --> event ring --> core --> book

The last row is what runs in production: mapper and core in two processes, on two cores, with the ring between them.

    python -m bench.wire [--quick] [--json]          MPENGINE_CAPTURES=<folder> measures on the recorded BTC messages

Baselines of the same run: parsing alone (orjson), parsing into floats, and a peer's complete path (`bench.peer`), where it is
installed: MPENGINE_PEER_PYTHON names the interpreter that has it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from bench import peer, venue_messages
from bench.common import Row, best_of, main, report
from bench.messages import recorded, synthetic
from mpengine import venues
from mpengine.config import Settings, load
from mpengine.engine.core import SymbolCore
from mpengine.ingest.routing import Ready, Router
from mpengine.venues.base import RestCall, VenueModule
from shm.event_ring import EventReader, EventWriter, create_event_ring
from shm.layout import event_ring_spec

RECV_NS = 1_700_000_000 * 10**9
TWO_CORES = "bytes -> ring | ring -> applied book"
PEER = "peer, bytes -> applied book"
BATCH_MESSAGES = 42  # as many of these as a batch of 16 KB takes
DEPTH_CALL = RestCall("depth", "BTC", "", 20)


class Direct:
    """A fresh mapper and core, synchronised with the snapshot."""

    def __init__(self, settings: Settings, snapshot: bytes) -> None:
        module = venues.build(settings)[0]
        self.module: VenueModule = module
        self.core = SymbolCore("BTC", settings)
        self.module.receive_rest(DEPTH_CALL, 200, snapshot, RECV_NS)
        for routed in self.module.events():
            self.core.on_batch(routed.data)

    def to_records(self, messages: list[bytes]) -> None:
        receive, events = self.module.receive, self.module.events
        for number, message in enumerate(messages):
            receive("public#1", message, RECV_NS)
            if number % 64 == 63:
                events()
        events()

    def to_book(self, messages: list[bytes]) -> None:
        receive, events, on_batch = self.module.receive, self.module.events, self.core.on_batch
        for number, message in enumerate(messages):
            receive("public#1", message, RECV_NS)
            if number % BATCH_MESSAGES == BATCH_MESSAGES - 1:
                on_batch(b"".join([routed.data for routed in events()]))
        on_batch(b"".join([routed.data for routed in events()]))
        self.check(messages)

    def check(self, messages: list[bytes]) -> None:
        """Whatever was measured must have happened."""
        (book,) = self.core.books.values()
        assert (book.state, book.counters["applied"]) == ("synced", len(messages)), book.counters


class Through(Direct):
    """The same through a real event ring on tmpfs, writer and reader on one core."""

    def __init__(self, settings: Settings, snapshot: bytes, folder: Path) -> None:
        super().__init__(settings, snapshot)
        spec = event_ring_spec("BTC", settings.engine.ring_units)
        self.ring = folder / "events"
        self.consumer: subprocess.Popen[str] | None = None
        create_event_ring(self.ring, spec)
        self.writer, self.reader = EventWriter.open(self.ring, spec), EventReader.open(self.ring, spec)
        self.router = Router(["BTC"], settings.ingest.flush_bytes, 10**12, self._put)

    def _put(self, ready: Ready) -> None:
        assert self.writer.put(ready.body, records=ready.records, source=1, first_seq=ready.first_seq), "the bench overran its ring"

    def to_ring(self, messages: list[bytes]) -> None:
        receive, events, route = self.module.receive, self.module.events, self.router.route
        for number, message in enumerate(messages):
            receive("public#1", message, RECV_NS)
            route(events(), 0)
            if number % 2048 == 2047:
                self._skip()
        self.router.flush()
        self._skip()

    def _skip(self) -> None:
        self.reader.position = self.writer.head
        self.reader.release(self.reader.position)

    def through(self, messages: list[bytes]) -> None:
        receive, events, route = self.module.receive, self.module.events, self.router.route
        for number, message in enumerate(messages):
            receive("public#1", message, RECV_NS)
            route(events(), 0)
            if number % 64 == 63:
                self._drain()
        self.router.flush()
        self._drain()
        self.check(messages)

    def two_processes(self, messages: list[bytes]) -> None:
        """This process maps and writes, another one reads and applies; done when it has applied the last message."""
        receive, events, route = self.module.receive, self.module.events, self.router.route
        for message in messages:
            receive("public#1", message, RECV_NS)
            route(events(), 0)
        self.router.flush()
        assert self.consumer is not None
        assert self.consumer.stdout is not None
        applied = int(self.consumer.stdout.readline())
        assert applied == len(messages), applied

    def start_consumer(self, snapshot: bytes, messages: int) -> None:
        """The other process, ready to read: attached to the ring, its book waiting for the first diff."""
        self.reader.close()
        command = [sys.executable, "-m", "bench.consumer", str(self.ring), str(messages)]
        self.consumer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.consumer.stdin is not None
        assert self.consumer.stdout is not None
        self.consumer.stdin.write(snapshot.decode() + "\n")
        self.consumer.stdin.flush()
        assert self.consumer.stdout.readline() == "ready\n"

    def _drain(self) -> None:
        while batch := self.reader.get():
            self.core.on_batch(batch.body)
        self.reader.release(self.reader.position)

    def close(self) -> None:
        if self.consumer is not None:
            self.consumer.kill()
            self.consumer.communicate()
        else:
            self.reader.close()
        self.writer.close()


def parse_only(messages: list[bytes]) -> None:
    for message in messages:
        orjson.loads(message)


def parse_to_floats(messages: list[bytes]) -> None:
    for message in messages:
        data = orjson.loads(message)["data"]
        array("d", list(map(float, chain.from_iterable(data["b"] + data["a"])))).tobytes()


def run(quick: bool) -> list[Row]:
    """Rows {path, messages_s, levels_s, us_message, vs_floats, vs_peer}; levels_s in millions."""
    messages, snapshot = recorded((b'"depthUpdate"',))
    source = "BTC capture"
    if not messages:
        messages, snapshot = synthetic(16_000)
        source = "synthetic diffs (MPENGINE_CAPTURES is not set)"
    levels = sum(len(d["b"]) + len(d["a"]) for d in (orjson.loads(message)["data"] for message in messages))
    settings = load("", {})
    rounds = 3 if quick else 7
    works: dict[str, Callable[[Through], None]] = {
        "orjson alone": lambda _: parse_only(messages),
        "orjson + float list": lambda _: parse_to_floats(messages),
        "bytes -> records": lambda path: path.to_records(messages),
        "bytes -> ring": lambda path: path.to_ring(messages),
        "bytes -> applied book": lambda path: path.to_book(messages),
        "bytes -> ring -> applied book": lambda path: path.through(messages),
        TWO_CORES: lambda path: path.two_processes(messages),
    }
    seconds = dict.fromkeys(works, float("inf"))
    found: dict[str, Any] | None = None
    for _ in range(rounds):
        # The peer runs between our rounds: a ratio of two minutes of a shared machine would say little.
        found = peer.measure(messages, snapshot, 1)
        if found is not None:
            seconds[PEER] = min(seconds.get(PEER, float("inf")), found["seconds"])
        for name, work in works.items():
            seconds[name] = min(seconds[name], _once(name, work, settings, snapshot, len(messages)))
    rows = _rows(seconds, len(messages), levels)
    note = f"; peer: cryptofeed {found['version']}" if found else "; peer not measured: cryptofeed is not installed"
    each = venue_messages.rows(quick)
    report(
        "wire, one message in each venue's mapper",
        each,
        "messages of the built-in exchange; vs_orjson: times parsing the JSON alone",
    )
    report(
        f"wire, {source}: {len(messages):,} messages of {levels / len(messages):.1f} levels", rows, f"best of {rounds} rounds{note}"
    )
    return [*rows, *each]


def _once(name: str, work: Callable[[Through], None], settings: Settings, snapshot: bytes, messages: int) -> float:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="mpengine-bench-") as folder:
        path = Through(settings, snapshot, Path(folder))
        try:
            if name == TWO_CORES:
                path.start_consumer(snapshot, messages)
            return best_of(1, lambda: work(path))
        finally:
            path.close()


def _rows(seconds: dict[str, float], messages: int, levels: int) -> list[Row]:
    floats, peers = seconds["orjson + float list"], seconds.get(PEER)
    return [
        {
            "path": name,
            "messages_s": round(messages / spent),
            "Mlevels_s": round(levels / spent / 1e6, 2),
            "us_message": round(spent / messages * 1e6, 2),
            "vs_floats": round(floats / spent, 2),
            "vs_peer": round(peers / spent, 2) if peers else None,
        }
        for name, spent in seconds.items()
    ]


if __name__ == "__main__":
    main(run, "bench.wire")
