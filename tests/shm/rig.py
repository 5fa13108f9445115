"""What the ring tests share: memory without a file, `Words` that record or reorder, children that never outlive a test."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shm.digest import digest
from shm.layout import PAGE, FileKind, FileSpec, build_header
from shm.words import Words

ROOT = Path(__file__).parents[2]
CHILD = Path(__file__).with_name("child.py")
REQUIRED = os.environ.get("MPENGINE_REQUIRE") == "1"


def memory(spec: FileSpec) -> bytearray:
    """A new file of `spec` as plain memory."""
    return bytearray(build_header(spec, uuid=7, created_ns=8).ljust(spec.file_bytes, b"\0"))


class Recorder(Words):
    """Notes every access in order: (operation, word index or byte offset, value or size)."""

    def __init__(self, buffer: bytearray) -> None:
        super().__init__(buffer)
        self.log: list[tuple[str, int, int]] = []

    def load_acquire(self, index: int) -> int:
        value = super().load_acquire(index)
        self.log.append(("load", index, value))
        return value

    def store_release(self, index: int, value: int) -> None:
        self.log.append(("store", index, value))
        super().store_release(index, value)

    def copy_out(self, offset: int, size: int) -> bytes:
        self.log.append(("out", offset, size))
        return super().copy_out(offset, size)

    def copy_in(self, offset: int, data: bytes) -> None:
        self.log.append(("in", offset, len(data)))
        super().copy_in(offset, data)

    def copy_block(self, offset: int, target: memoryview) -> None:
        self.log.append(("block", offset, len(target)))
        super().copy_block(offset, target)


class WeakStores(Words):
    """A writer whose stores reach memory in any order, every 8-byte word by itself; slice copies too.

    Only stores to the same word keep their order, as on any machine.
    """

    def __init__(self, buffer: bytearray, rng: random.Random) -> None:
        super().__init__(buffer)
        self._rng = rng
        self._mine = Words(bytearray(buffer))
        self._pending: dict[int, deque[bytes]] = {}

    def load_acquire(self, index: int) -> int:
        """A process sees its own stores."""
        return self._mine.load_acquire(index)

    def store_release(self, index: int, value: int) -> None:
        self._mine.store_release(index, value)
        self._keep(index * 8, value.to_bytes(8, "little"))

    def copy_in(self, offset: int, data: bytes) -> None:
        self._mine.copy_in(offset, data)
        for at in range(0, len(data), 8):
            self._keep(offset + at, data[at : at + 8])

    def sees(self, index: int, value: int) -> None:
        """Another process's word, as this one would load it."""
        self._mine.store_release(index, value)

    def deliver(self, share: float) -> None:
        """For each word, with probability `share`, let its oldest store reach memory."""
        chance, put = self._rng.random, super().copy_in
        for offset, stores in list(self._pending.items()):
            if chance() < share:
                put(offset, stores.popleft())
                if not stores:
                    del self._pending[offset]

    def drain(self) -> None:
        """Let everything reach memory."""
        while self._pending:
            self.deliver(1.0)

    def _keep(self, offset: int, data: bytes) -> None:
        self._pending.setdefault(offset, deque()).append(data)


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = 30.0) -> None:
    """Look at `condition` until it holds; fail after the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {what}")
        time.sleep(0.001)


class Child:
    """One child process of `child.py`; speaks lines on standard output."""

    def __init__(self, *arguments: object, pass_fds: tuple[int, ...] = ()) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, str(CHILD), *map(str, arguments)],
            stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment, pass_fds=pass_fds,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """Next line of output; empty at the end."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def expect(self, text: str) -> None:
        line = self.line()
        assert line == text, f"child said {line!r}, not {text!r}"

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL and reap."""
        self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdout, self.process.stdin):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass  # what was told to the child after its death

    def finish(self, timeout_s: float = 60.0) -> list[str]:
        """Wait for a good end; the rest of the output as lines."""
        output, _ = self.process.communicate(timeout=timeout_s)
        assert self.process.returncode == 0, output
        return output.splitlines()


@contextmanager
def children() -> Iterator[Callable[..., Child]]:
    """Start children that are all dead at the end of the block."""
    started: list[Child] = []

    def start(*arguments: object, pass_fds: tuple[int, ...] = ()) -> Child:
        started.append(Child(*arguments, pass_fds=pass_fds))
        return started[-1]

    try:
        yield start
    finally:
        for child in started:
            child.kill()


def plain_spec(slots: int, stride: int) -> FileSpec:
    """A ring of any geometry without a record."""
    kind = FileKind.RECORDS if stride < PAGE else FileKind.FRAMES
    return FileSpec(kind, "depth", "BTC", slots, stride, 0, 1)


def oracle(n: int, size: int) -> bytes:
    """The only right payload of frame n, known to writer, reader and test without any digest of the ring.

    Every 8-byte word depends on n and its place, so bytes of two frames can never make a right one.
    """
    word = (n * 0x9E3779B97F4A7C15 + 1) & 0xFFFF_FFFF_FFFF_FFFF
    return (word.to_bytes(8, "little") * (size // 8 + 1))[:size]


def state_hash(records: Iterable[tuple[int, int, bytes]], state: int = 0) -> int:
    """Order-sensitive hash over (epoch or source, sequence, bytes): the "state" of a test consumer."""
    for key, seq, body in records:
        state = digest(body + key.to_bytes(8, "little") + seq.to_bytes(8, "little"), state)
    return state


def batch_body(epoch: int, seq: int) -> bytes:
    """The only right body of batch `seq` of a producer's epoch; 1 to 20 units."""
    return oracle(epoch << 32 | seq, 64 * (1 + (seq * 7 + epoch) % 20))


def batches_between(position: int, end: int, capacity: int, epoch: int) -> Iterator[tuple[int, int, bytes]]:
    """(epoch, seq, body) of the batches that fill a ring from `position` to `end`: the truth, without reading a ring.

    A producer that died between the pad and its batch has committed the pad alone: the ring ends at a lap then.
    """
    seq = 0
    while position < end:
        body = batch_body(epoch, seq)
        left, units = capacity - position % capacity, len(body) // 64 + 1
        pad = left if left < units else 0
        if pad and position + pad == end:
            return
        position += units + pad
        yield epoch, seq, body
        seq += 1
    assert position == end, "the ring ended within a batch"
