"""Frame ring with real processes: writers killed at random instants, torn-read hunt, bulk readers that are lapped.

Each test is a table row of section 14; the quick form runs on every push, the long form with `make stress`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from shm import files, layout
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import FileSpec
from tests.shm.rig import Child, oracle, plain_spec, wait_until

pytestmark = pytest.mark.slow
Spawn = Callable[..., Child]
stress = pytest.mark.stress


@pytest.mark.timeout(600)
@pytest.mark.covers("F2")
@pytest.mark.parametrize("kills", [15, pytest.param(220, marks=stress)])
def test_writers_killed_at_any_instant_lose_nothing_committed(spawn: Spawn, place: Path, kills: int) -> None:
    path, spec, rng = place / "depth.ring", plain_spec(6, 131_072), random.Random(kills)
    FrameWriter.open(path, spec).close()
    watcher = spawn("frame-reader", path)
    watcher.expect("reading")
    repaired = head = epoch = 0
    with FrameReader.open(path, spec) as reader:
        for epoch in range(2, 5 * kills):
            writer = spawn("frame-writer", path, spec.slots, spec.stride, spec.payload_bytes, 0)
            told, seen, next_no, invalidated = writer.line().split()
            assert (told, int(seen), reader.epoch()) == ("attached", epoch, epoch), "epoch +1 each"
            assert int(next_no) >= head, "a committed number never comes again"
            repaired += int(invalidated)
            wait_until(partial(published, reader, reader.head() + 20), "frames")
            time.sleep(rng.random() * 0.003)  # the random instant
            writer.kill()
            head = check_after_death(reader)
            if epoch > kills and repaired:  # without one kill within a write the run proves little: go on until there is one
                break
    watcher.tell("stop")
    accepted, wrong, retries, lapped = map(int, watcher.line().split())
    print(f"{epoch - 1} kills, {repaired} half-written slots repaired; a reader accepted {accepted}, {wrong} wrong, "
          f"{retries} retries, {lapped} lapped")  # fmt: skip
    assert wrong == 0
    assert accepted > kills
    assert repaired > 0, "no kill hit a write"
    with FrameWriter.open(path, spec) as last:
        assert last.report.invalidated <= 1


def published(reader: FrameReader, head: int) -> bool:
    return reader.head() > head


def check_after_death(reader: FrameReader) -> int:
    """Every committed frame that the dead writer had not begun to overwrite is there and right; returns head."""
    head, intent, slots = reader.head(), reader.intent(), reader.spec.slots
    assert 0 <= intent - head <= 1
    history = reader.history(0, head)
    assert [slot.frame_no for slot in history.slots] == list(range(intent - slots, head))
    assert all(slot.payload == oracle(slot.frame_no, reader.spec.payload_bytes) for slot in history.slots)
    return head


ENOUGH = 200
HUNTS = [
    (1, 4096, 1.0), (1, 262_144, 1.0), (2, 8192, 1.0), (4, 16_384, 1.0),
    *(pytest.param(slots, stride, 12.0, marks=stress) for slots in (1, 2, 4) for stride in (4096, 16_384, 262_144)),
]  # fmt: skip


class Unchecked:
    """The control: in the slot that is in work it looks at number and length, then copies the payload, and believes both."""

    def __init__(self, path: Path, spec: FileSpec) -> None:
        self.mapped, self.spec = files.open_reader(path, spec), spec
        self.reads = self.torn = 0

    def read(self) -> None:
        words = self.mapped.words
        at = layout.HEADER_BYTES + words.load_acquire(layout.HEAD_WORD) % self.spec.slots * self.spec.stride
        told = words.load_acquire((at + layout.SLOT_FIELDS["frame_no"]) // 8)
        length = words.load_acquire((at + layout.SLOT_FIELDS["length"]) // 8) & 0xFFFF_FFFF
        payload = words.copy_out(at + layout.SLOT_HEADER_BYTES, min(length, self.spec.payload_bytes))
        self.reads += 1
        self.torn += payload != oracle(told, self.spec.payload_bytes)


@pytest.mark.covers("A1-M3")
@pytest.mark.parametrize(("slots", "stride", "seconds"), HUNTS)
def test_readers_see_no_tear(spawn: Spawn, tmpfs: Path, slots: int, stride: int, seconds: float) -> None:
    """The oracle knows every frame by its number, without the digest; the control reads the same slots without any check.

    Goes on (up to 20 times as long) until the control has found enough: without torn frames to find the run proves nothing. The
    share of them is printed and not judged: where others use the cores, writer and reader take turns and tear less.
    """
    path, spec = tmpfs / "depth.ring", plain_spec(slots, stride)
    FrameWriter.open(path, spec).close()
    writer = spawn("frame-writer", path, slots, stride, spec.payload_bytes, 0)
    assert writer.line().startswith("attached 2")
    accepted = wrong = none = 0
    control = Unchecked(path, spec)
    with FrameReader.open(path, spec) as reader:
        wait_until(lambda: reader.head() > 10, "frames")
        begin = time.monotonic()
        while (spent := time.monotonic() - begin) < 20 * seconds and (spent < seconds or control.torn < ENOUGH):
            for _ in range(50):
                slot = reader.latest()
                control.read()
                if slot is None:
                    none += 1
                else:
                    accepted += 1
                    wrong += slot.payload != oracle(slot.frame_no, spec.payload_bytes) or slot.ts_ns != slot.frame_no
        control.mapped.close()
        print(f"{slots} x {stride}: {accepted} accepted, {wrong} wrong, {none} not available, {reader.retries} retries; "
              f"unchecked: {control.torn / control.reads:.1%} torn of {control.reads}")  # fmt: skip
    assert wrong == 0
    assert control.torn >= ENOUGH, "the control must find torn frames"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("stride", "slots", "wanted"), [
    (256, 1024, 200_000), (4096, 64, 60_000),
    pytest.param(256, 1024, 10_000_000, marks=stress), pytest.param(8192, 64, 1_000_000, marks=stress),
])  # fmt: skip
def test_bulk_history_under_a_lapping_writer(spawn: Spawn, tmpfs: Path, stride: int, slots: int, wanted: int) -> None:
    path, spec = tmpfs / "depth.ring", plain_spec(slots, stride)
    FrameWriter.open(path, spec).close()
    writer = spawn("frame-writer", path, slots, stride, spec.payload_bytes, 0)
    assert writer.line().startswith("attached 2")
    checked = wrong = missing = calls = 0
    with FrameReader.open(path, spec) as reader:
        wait_until(lambda: reader.head() > slots, "one lap")
        while checked < wanted or (reader.lapped == 0 and checked < 20 * wanted):
            head = reader.head()
            bulk = reader.bulk(head - slots, head)
            words = bulk.rows.view("<u8")
            expected = bulk.numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
            wrong += int(np.count_nonzero((words[:, 8:] != expected[:, None]).any(axis=1)))
            wrong += int(np.count_nonzero(words[:, 2] != bulk.numbers))
            checked += len(bulk.numbers)
            missing += len(bulk.missing)
            calls += 1
        laps = reader.head() // slots
        print(f"{checked} slots of {stride} in {calls} calls over {laps} laps: {wrong} wrong, {missing} missing")
    assert wrong == 0
    assert laps > 3
    assert reader.lapped > 0, "the writer never overtook a reader: the test has lost its power"
