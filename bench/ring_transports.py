"""Ways to bring byte strings from one process to one other: our rings and what people use instead. For `bench.rings`.

Each way is a class with the same methods: `connect` in the producer makes what the consumer needs (it must survive a
spawn), `send` brings one body across and never loses it (the bench waits where a ring is full), `receive` yields bodies there.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Protocol

from shm import doorbell, event_ring
from shm.digest import digest as real_digest
from shm.doorbell import Waiter
from shm.event_ring import EventReader, EventWriter, create_event_ring
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import PAGE, FileKind, FileSpec, event_ring_spec

SPAWN = get_context("spawn")
IDLE_S = 0.0005
UNITS = 65_536
BURST = 256
PATIENCE_S = 20.0
_LENGTH = struct.Struct("<I")


class Transport(Protocol):
    """One way from one process to another."""

    name: str

    def connect(self, folder: Path, size: int) -> None:
        """Producer's side: open what both need, for bodies of `size` bytes."""

    def started(self) -> None:
        """Producer's side: the consumer has its ends; ours of them go, so that its death is an error here and no hang."""

    def send(self, body: bytes) -> None:
        """Bring one body across."""

    def receive(self) -> Iterator[bytes]:
        """Consumer's side: bodies for ever."""

    def close(self) -> None:
        """Producer's side: let go."""


class EventRing:
    """Event ring, a batch per body; the consumer polls, or waits for a doorbell where `bell` is asked for."""

    def __init__(self, name: str, *, digest: bool = True, bell: bool = False) -> None:
        self.name, self.digest, self.bell = name, digest, bell

    def connect(self, folder: Path, size: int) -> None:
        self.path = folder / "events.ring"
        spec = event_ring_spec("BENCH", UNITS)
        create_event_ring(self.path, spec)
        self._seal(self.digest)
        self.writer, self.seq = EventWriter.open(self.path, spec), 0
        self.fd = doorbell.create() if self.bell else -1

    def _seal(self, digest: bool) -> None:
        """Without: what the ring would cost if it trusted the order of stores."""
        setattr(event_ring, "digest", real_digest if digest else no_digest)  # noqa: B010 - a bench may reach into a module

    def __getstate__(self) -> dict[str, Any]:
        bell = DupFd(self.fd) if self.bell else None
        return {"name": self.name, "digest": self.digest, "bell": self.bell, "path": self.path, "passed": bell}

    def started(self) -> None:
        pass

    def send(self, body: bytes) -> None:
        refused = 0
        while not self.writer.put(body, records=len(body) // 64, source=1, first_seq=self.seq):
            refused += 1
            if refused * IDLE_S > PATIENCE_S:
                raise TimeoutError(f"{self.name}: nobody reads")
            time.sleep(IDLE_S)
        self.seq += 1
        if self.bell:
            doorbell.ring(self.fd)

    def receive(self) -> Iterator[bytes]:
        self._seal(self.digest)
        waiter = Waiter([self.passed.detach()]) if self.bell else None  # type: ignore[attr-defined]
        with EventReader.open(self.path) as reader:
            while True:
                batch = reader.get()
                if batch is None:
                    reader.release(reader.position)
                    waiter.wait() if waiter else time.sleep(IDLE_S)
                    continue
                if reader.position - reader.released > UNITS // 4:
                    reader.release(reader.position)
                yield batch.body

    def close(self) -> None:
        self._seal(True)
        self.writer.close()
        self.path.unlink()
        if self.bell:
            os.close(self.fd)


def no_digest(_data: object, _seed: int) -> int:
    """In place of xxh3."""
    return 0


class FrameRing:
    """Frame ring, a slot per body; the consumer polls the head and reads what is new as history.

    The producer waits for an answer after each burst, only so that nothing is lapped and every way carries the same bodies.
    """

    name = "frame ring"

    def connect(self, folder: Path, size: int) -> None:
        self.path = folder / "frames.ring"
        stride = -(-(size + 64) // PAGE) * PAGE
        self.writer = FrameWriter.open(self.path, FileSpec(FileKind.FRAMES, "bench", "BENCH", 4 * BURST, stride, 0, 1))
        self.mine, self.other = SPAWN.Pipe()
        self.sent = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "other": self.other}

    def started(self) -> None:
        self.other.close()

    def send(self, body: bytes) -> None:
        self.writer.publish(body, ts_ns=0, kind=1)
        self.sent += 1
        if self.sent % BURST == 0:
            self.mine.recv_bytes()

    def receive(self) -> Iterator[bytes]:
        seen = 0
        with FrameReader.open(self.path) as reader:
            while True:
                head = reader.head()
                if head == seen:
                    time.sleep(IDLE_S)
                for slot in reader.history(seen, head).slots:
                    seen = slot.frame_no + 1
                    if seen % BURST == 0:
                        self.other.send_bytes(b"x")
                    yield slot.payload

    def close(self) -> None:
        self.writer.close()
        self.path.unlink()
        self.mine.close()


class Queue:
    """multiprocessing.Queue: pickle, a feeder thread, a pipe and a lock."""

    name = "mp.Queue"

    def connect(self, folder: Path, size: int) -> None:
        self.queue = SPAWN.Queue(4 * BURST)

    def started(self) -> None:
        pass

    def send(self, body: bytes) -> None:
        self.queue.put(body, timeout=PATIENCE_S)

    def receive(self) -> Iterator[bytes]:
        while True:
            yield self.queue.get()

    def close(self) -> None:
        self.queue.cancel_join_thread()
        self.queue.close()


class Pipe:
    """multiprocessing.Pipe with bytes, so without pickle."""

    name = "pipe"

    def connect(self, folder: Path, size: int) -> None:
        self.reader, self.writer = SPAWN.Pipe(duplex=False)

    def __getstate__(self) -> dict[str, Connection[Any, Any]]:
        return {"reader": self.reader}

    def started(self) -> None:
        self.reader.close()

    def send(self, body: bytes) -> None:
        self.writer.send_bytes(body)

    def receive(self) -> Iterator[bytes]:
        while True:
            yield self.reader.recv_bytes()

    def close(self) -> None:
        self.writer.close()


class UnixStream:
    """Unix stream socket with a length before each body."""

    name = "Unix stream"

    def connect(self, folder: Path, size: int) -> None:
        self.mine, self.other = socket.socketpair()

    def __getstate__(self) -> dict[str, Any]:
        return {"other": self.other}

    def started(self) -> None:
        self.other.close()

    def send(self, body: bytes) -> None:
        self.mine.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Iterator[bytes]:
        stream = self.other.makefile("rb", buffering=1 << 16)
        while True:
            yield stream.read(_LENGTH.unpack(stream.read(4))[0])

    def close(self) -> None:
        self.mine.close()


def count(transport: Transport, warm: int, bodies: int, answer: Connection[Any, Any]) -> None:
    """Consumer process: take `warm` bodies, then `bodies`; answers with the CPU seconds for the latter."""
    stream = transport.receive()
    for _ in range(warm):
        next(stream)
    started = time.process_time()
    for _ in range(bodies):
        next(stream)
    answer.send(time.process_time() - started)


def stopwatch(transport: Transport, warm: int, bodies: int, answer: Connection[Any, Any]) -> None:
    """Consumer process: bodies begin with the monotonic clock at sending; answers with the delays, ns."""
    stream = transport.receive()
    delays = []
    for _ in range(warm + bodies):
        body = next(stream)
        delays.append(time.monotonic_ns() - int.from_bytes(body[:8], "little"))
    answer.send(delays[warm:])


Consumer = Callable[[Transport, int, int, "Connection[Any, Any]"], None]
Producer = Callable[[Transport, int, int], float]


def carry(transport: Transport, folder: Path, size: int, bodies: int, consumer: Consumer, producer: Producer) -> tuple[float, Any]:
    """Run producer here and consumer in a process of its own; (what the producer returned, what the consumer answered).

    Before the `bodies` that count go as many as fill a ring once: its pages are then there in both processes.
    """
    warm = UNITS // (size // 64 + 1) + 1
    transport.connect(folder, size)
    mine, other = SPAWN.Pipe()
    child = SPAWN.Process(target=consumer, args=(transport, warm, bodies, other), daemon=True)
    child.start()
    transport.started()
    try:
        produced = producer(transport, warm, bodies)
        if not mine.poll(120):
            raise TimeoutError(f"{transport.name}: no answer from the consumer")
        return produced, mine.recv()
    finally:
        child.kill()
        child.join()
        transport.close()
