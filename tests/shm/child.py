"""Processes for the ring tests: `python child.py <role> <arguments>`. They speak lines and run until they are killed or told."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from shm import doorbell, files
from shm.doorbell import Waiter
from shm.errors import Locked
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import depth_spec
from shm.words import Words
from tests.shm.rig import oracle

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


def frame_writer(path: str, slots: str, size: str, pause_us: str) -> None:
    """Publish the oracle's frames for ever."""
    writer = FrameWriter.open(Path(path), depth_spec("BTC", int(slots)))
    say("attached", writer.epoch)
    pause = int(pause_us) / 1e6
    while True:
        n = writer.next_no
        writer.publish(oracle(n, int(size)), ts_ns=n, kind=1, published_ns=n)
        if pause:
            time.sleep(pause)


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
    "ring-watcher": ring_watcher,
    "ringer": ringer,
    "creator": creator,
    "opener": opener,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
