"""24 hours of simulated time in one replay, maps on: all bounded, every frame, bar and minute there, and twice the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mpengine.config import load
from mpengine.engine.log_files import TOTAL_BYTES
from mpengine.engine.zones import MAX_ZONES_PER_SIDE
from mpengine.ingest.capture_file import read_capture
from mpengine.replay import Replay, Summary
from mpengine.schemas import LevelsDocument, decode
from shm.document import DocumentReader
from shm.frame_ring import FrameReader
from shm.paths import Paths
from shm.process_shell import open_descriptors
from shm.records import DocumentId, Venue
from tests.engine.events import T0
from tests.shm.rig import ROOT
from tests.stress import day

RINGS = ("depth", "liquidation", "candles", "liquidations")


def own_bytes() -> int:
    """Resident memory without mapped files: the pages of a ring count once they are touched, and a ring has a fixed size."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_bytes().split()
    return (int(resident) - int(shared)) * 4096


@dataclass
class Run:
    """A replay and what it held `every_ns` of its time. `digest`: of everything that it left."""

    folder: Path
    every_ns: int
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    zones: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    errors: int = 0
    digest: str = ""
    summary: Summary = field(default_factory=Summary)

    def of(self, capture: Path) -> Run:
        """Replay the capture."""
        replay, next_ns = Replay(load("", {}), ["BTC"], self.folder), T0 + self.every_ns
        for line in read_capture(capture):
            replay.feed(line)
            if line.recv_ns >= next_ns:
                next_ns += self.every_ns
                replay.flush()
                self._look(replay)
        self.summary = replay.finish(0.0)
        self.errors = replay.core("BTC").counters["errors"]
        self.digest = digest_of(self.folder, self.summary)
        return self

    def _look(self, replay: Replay) -> None:
        self.memory.append(own_bytes())
        self.descriptors.append(open_descriptors())
        ladder = replay.core("BTC").books[Venue.BINANCE].ladder
        self.levels.append(sum(ladder.level_counts()[:2]) if ladder is not None else 0)
        with DocumentReader.open(Paths(self.folder, self.folder).documents("BTC")) as reader:
            found = {one: reader.latest(one) for one in (DocumentId.LEVELS, DocumentId.ZONES)}
        slot = found[DocumentId.LEVELS]
        assert slot is not None
        counts = decode(slot.payload, LevelsDocument).zones
        self.zones.append(max(counts.active_long, counts.active_short))
        self.documents.append(max(len(slot.payload) for slot in found.values() if slot is not None))


def digest_of(folder: Path, summary: Summary) -> str:
    """SHA-256 over all frames, records, documents, files and log lines, and the state at the end."""
    found, paths = hashlib.sha256(repr(summary.symbols).encode()), Paths(folder, folder)
    for ring in RINGS:
        with FrameReader.open(getattr(paths, ring)("BTC")) as reader:
            for slot in reader.history(0, reader.head()).slots:
                found.update(repr((ring, slot.frame_no, slot.ts_ns, slot.flags)).encode() + slot.payload)
    with DocumentReader.open(paths.documents("BTC")) as documents:
        for document in documents.documents():
            found.update(repr((document, documents.latest(document))).encode())
    for path in sorted(paths.symbol_dir("BTC").glob("**/*.json*")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


@pytest.mark.timeout(3600)
@pytest.mark.covers("E-H8")
@pytest.mark.parametrize("minutes", [25, pytest.param(24 * 60, marks=pytest.mark.stress)])
def test_a_day_is_bounded_and_twice_the_same(tmp_path: Path, minutes: int) -> None:
    capture = tmp_path / "capture.zst"
    command = [sys.executable, str(Path(day.__file__)), str(capture), str(minutes)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    every_ns = 3600 * 10**9 if minutes >= 60 else 300 * 10**9
    run = Run(tmp_path / "first", every_ns).of(capture)
    summary = run.summary
    files = sum(path.stat().st_size for path in (tmp_path / "first").glob("**/*.json*"))
    print(f"memory {run.memory}, levels {run.levels}, zones {run.zones}, documents {run.documents}, files {files}")
    assert (summary.gaps, summary.resyncs, summary.refused, run.errors) == (0, 0, 0, 0), summary.refusals
    assert (summary.maps, summary.candles, summary.frames) == (minutes, minutes, 2 * minutes)
    with FrameReader.open(tmp_path / "first" / "BTC" / "liquidation.ring") as reader:
        assert [slot.ts_ns for slot in reader.history(0, reader.head()).slots] == [
            T0 + (n + 1) * 60 * 10**9 for n in range(minutes)
        ]
    assert len(set(run.descriptors[len(run.descriptors) // 2 :])) == 1, "log files are opened by their first lines"
    assert max(run.zones) <= MAX_ZONES_PER_SIDE
    if minutes >= 24 * 60:
        assert max(run.memory[12:]) - max(run.memory[2:12]) < 2 << 20, run.memory
        for sizes in (run.levels, run.zones, run.documents):
            assert max(sizes[3:]) < 3 * max(sizes[:3]), sizes
        assert files < TOTAL_BYTES
    assert Run(tmp_path / "again", every_ns).of(capture).digest == run.digest
