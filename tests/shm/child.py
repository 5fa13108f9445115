"""Processes for the ring tests: `python child.py <role> <arguments>`. They speak lines and run until they are killed or told."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import select
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shm import doorbell, files
from shm.board import BoardRow
from shm.board_words import Role, Word
from shm.document import DocumentWriter
from shm.doorbell import Waiter
from shm.errors import Locked
from shm.event_ring import EventReader, EventWriter
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import depth_spec, event_ring_spec, feeds_spec
from shm.records import DocumentId
from shm.words import Words
from tests.shm.rig import batch_body, oracle, plain_spec, state_hash

LOW, HIGH = 0x1111_1111_1111_1111, 0xEEEE_EEEE_EEEE_EEEE
SAMPLED = {"words": 64, "pack_into": 64, "crossing": 60}


def say(*words: object) -> None:
    print(*words, flush=True)


def mapped(path: str) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR)
    area = mmap.mmap(fd, 0)
    os.close(fd)
    return area


def word_writer(path: str, how: str) -> None:
    """Change one 8-byte value for ever, the way `how`."""
    area = mapped(path)
    area[60:72] = LOW.to_bytes(8, "little") + bytes(4) if how == "crossing" else bytes(4) + LOW.to_bytes(8, "little")
    say("writing")
    if how == "words":
        words = Words(area)
        while True:
            words.store_release(8, LOW)
            words.store_release(8, HIGH)
    if how == "pack_into":
        pack = struct.Struct("<Q").pack_into
        while True:
            pack(area, 64, LOW)
            pack(area, 64, HIGH)
    crossing = ctypes.c_uint64.from_buffer(area, 60)  # one 8-byte move over the end of a 64-byte line
    while True:
        crossing.value = LOW
        crossing.value = HIGH


def word_sampler(path: str, how: str, seconds: str) -> None:
    """Count values that were never stored."""
    area = mapped(path)
    samples = zeros = torn = 0
    words = Words(area)
    crossing = ctypes.c_uint64.from_buffer(area, 60)
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        for _ in range(1000):
            value = words.load_acquire(8) if how != "crossing" else crossing.value
            samples += 1
            if value not in (LOW, HIGH):
                zeros += value == 0
                torn += value != 0
    say(samples, zeros, torn)
    os._exit(0)


def frame_writer(path: str, slots: str, stride: str, size: str, pause_us: str) -> None:
    """Publish the oracle's frames for ever."""
    writer = FrameWriter.open(Path(path), plain_spec(int(slots), int(stride)))
    say("attached", writer.epoch, writer.next_no, writer.report.invalidated)
    pause, length = int(pause_us) / 1e6, int(size)
    while True:
        n = writer.next_no
        writer.publish(oracle(n, length), ts_ns=n, kind=1, published_ns=n)
        if pause:
            time.sleep(pause)


def frame_reader(path: str) -> None:
    """Read latest, single frames and history until told to stop; say (accepted, wrong, retries, lapped)."""
    accepted = wrong = 0
    with FrameReader.open(Path(path)) as reader:
        say("reading")
        while not select.select([sys.stdin], [], [], 0)[0]:
            head = reader.head()
            slots = [reader.latest(), reader.read(head - reader.spec.slots), *reader.history(head - 4, head).slots]
            for slot in slots:
                if slot is not None:
                    accepted += 1
                    wrong += slot.payload != oracle(slot.frame_no, len(slot.payload)) or slot.ts_ns != slot.frame_no
        say(accepted, wrong, reader.retries, reader.lapped)


def producer(path: str, units: str) -> None:
    """Put batches of this epoch, waiting where the ring is full (the test wants no holes), for ever."""
    spec = event_ring_spec("BTC", int(units))
    writer = EventWriter.open(Path(path), spec)
    say("attached", writer.epoch, writer.head)
    seq = 0
    while True:
        body = batch_body(writer.epoch, seq)
        while not writer.put(body, records=len(body) // 64, source=1, first_seq=seq):
            time.sleep(0.0005)
        seq += 1


def consumer(path: str, checkpoint: str, order: str, until: str) -> None:
    """Read, keep a hash, checkpoint every 50 batches; after a death load the checkpoint and read again from `release`.

    order: "after" releases what the checkpoint before had, so that some batches come twice; "early" (the control) releases what
    was read and is in no checkpoint yet. Ends at position `until`.
    """
    state, _, last, duplicates, holes, corrupt = load(checkpoint)
    with EventReader.open(Path(path)) as reader:
        say("reading", reader.consumer_epoch)
        since, end, saved = 0, int(until), reader.released
        while not end or reader.position < end:
            batch = reader.get()
            if batch is None:
                continue
            if order == "early":
                reader.release(batch.end)
            key = (batch.epoch, batch.first_seq)
            corrupt += batch.body != batch_body(*key)
            if key <= last:
                duplicates += 1
            else:
                holes += key not in ((last[0], last[1] + 1), (max(last[0] + 1, batch.epoch), 0))
                state, last = state_hash([(*key, batch.body)], state), key
            since += 1
            if since >= 50:
                since = 0
                save(checkpoint, state, reader.position, last, duplicates, holes, corrupt)
                if order == "after":
                    reader.release(saved)
                saved = reader.position
    say(state, duplicates, holes, corrupt)


def load(checkpoint: str) -> tuple[int, int, tuple[int, int], int, int, int]:
    """(state, position, last (epoch, sequence), duplicates, holes, corrupt) of the last checkpoint."""
    try:
        kept = json.loads(Path(checkpoint).read_text())
    except FileNotFoundError:
        return 0, 0, (0, -1), 0, 0, 0
    return kept[0], kept[1], (kept[2][0], kept[2][1]), kept[3], kept[4], kept[5]


def save(checkpoint: str, *state: object) -> None:
    temporary = Path(f"{checkpoint}.tmp")
    temporary.write_text(json.dumps(state))
    temporary.rename(checkpoint)


def incrementer(path: str, row: str, times: str) -> None:
    """Raise some counters of one board row, `times` times each."""
    with BoardRow.attach(Path(path), int(row)) as mine:
        mine.start(Role.TOOL, int(row), 1)
        say("started")
        sys.stdin.readline()
        for _ in range(int(times)):
            mine.add(Word.EVENTS)
            mine.add(Word.BATCHES, 3)
            mine.beat()
    say("done")


def minute_writer(ring: str, documents: str) -> None:
    """Publish a frame and then the document that belongs to it, for ever."""
    frames = FrameWriter.open(Path(ring), plain_spec(8, 4096))
    papers = DocumentWriter.open(Path(documents), feeds_spec())
    say("attached")
    while True:
        n = frames.next_no
        frames.publish(oracle(n, 500), ts_ns=n, kind=1, published_ns=n)
        papers.publish(DocumentId.FEEDS, oracle(n, 5000 + n % 3000), ts_ns=n, link=n)


def ring_watcher(path: str, bell: str, frames: str) -> None:
    """Wait for frames by doorbell and by re-check; say how long each took to be seen, ms."""
    seen, delays = 0, []
    with FrameReader.open(Path(path)) as reader, Waiter([int(bell)]) as waiter:
        say("watching")
        while seen < int(frames):
            waiter.wait()
            now = time.monotonic_ns()
            for slot in reader.history(seen, reader.head()).slots:
                delays.append((now - slot.published_ns) / 1e6)
                seen = slot.frame_no + 1
    say(*(f"{delay:.2f}" for delay in delays))


def ringer(path: str, bell: str, frames: str) -> None:
    """Publish some frames with a ring each, then wait to be killed."""
    writer = FrameWriter.open(Path(path), depth_spec("BTC", 64))
    for _ in range(int(frames)):
        writer.publish(b"x", ts_ns=0, kind=1, published_ns=time.monotonic_ns())
        doorbell.ring(int(bell))
    say("rang", writer.epoch)
    time.sleep(600)


def creator(path: str) -> None:
    """Create, replace and create again for ever."""
    say("creating")
    while True:
        files.create(Path(path), depth_spec("BTC", 8))
        files.replace(Path(path), depth_spec("BTC", 8))


def opener(path: str) -> None:
    """Become the writer of a file that is not there, or say that somebody else is."""
    try:
        writer = FrameWriter.open(Path(path), depth_spec("BTC", 8))
    except Locked:
        say("locked")
        return
    say("open")
    time.sleep(600)
    writer.close()


ROLES: dict[str, Callable[..., None]] = {
    "word-writer": word_writer,
    "word-sampler": word_sampler,
    "frame-writer": frame_writer,
    "frame-reader": frame_reader,
    "producer": producer,
    "consumer": consumer,
    "incrementer": incrementer,
    "minute-writer": minute_writer,
    "ring-watcher": ring_watcher,
    "ringer": ringer,
    "creator": creator,
    "opener": opener,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
