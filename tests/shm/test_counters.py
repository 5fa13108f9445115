"""Counter files: totals that outlive their writers, levels that do not, one writer at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shm.counters import CounterReader, CounterWriter
from shm.errors import IdentityMismatch, Locked, Missing
from shm.files import sweep
from shm.layout import FileKind, FileSpec, counters_spec
from tests.shm.rig import ROOT, Recorder, memory

SPEC = counters_spec("things", ["a", "b", "c"])


@pytest.fixture
def path(tmpfs: Path) -> Path:
    return tmpfs / "things-0.counters"


def test_what_was_stored_is_read(path: Path) -> None:
    with CounterWriter.open(path, SPEC) as writer, CounterReader.open(path, SPEC) as reader:
        assert reader.values() == (0, 0, 0)
        writer.store([1, 0, 2**64 - 1])
        assert reader.values() == (1, 0, 2**64 - 1) and writer.values() == [1, 0, 2**64 - 1]
    assert path.stat().st_size == 4096 + 3 * 8


def test_only_changed_words_are_written() -> None:
    recorder = Recorder(memory(SPEC))
    writer = CounterWriter(recorder, SPEC)
    writer.store([5, 0, 7])
    recorder.log.clear()
    writer.store([5, 1, 7])
    stored = [(index, value) for kind, index, value in recorder.log if kind == "store" and index >= 512]
    assert stored == [(513, 1)]


def test_a_row_of_another_length_is_refused(path: Path) -> None:
    with CounterWriter.open(path, SPEC) as writer, pytest.raises(ValueError, match="zip"):
        writer.store([1, 2])


@pytest.mark.covers("E-C1")
def test_one_writer_at_a_time(path: Path) -> None:
    with CounterWriter.open(path, SPEC), pytest.raises(Locked):
        CounterWriter.open(path, SPEC)
    CounterWriter.open(path, SPEC).close()


def test_totals_outlive_a_killed_writer_and_its_levels_are_told_dead(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from shm.counters import CounterWriter; from shm.layout import counters_spec\n"
        "writer = CounterWriter.open(Path(sys.argv[1]), counters_spec('things', ['a', 'b', 'c']))\n"
        "writer.store([3, 4, 5]); print('stored', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"stored\n"
        with CounterReader.open(path, SPEC) as reader:
            assert reader.alive() and reader.values() == (3, 4, 5)
            os.kill(child.pid, signal.SIGKILL)
            child.wait(10)
            assert not reader.alive() and reader.values() == (3, 4, 5)
            with CounterWriter.open(path, SPEC) as after:
                assert after.values() == [3, 4, 5] and after.epoch == 2
                after.store([4, 4, 0])
                assert reader.alive() and reader.values() == (4, 4, 0)
            assert not reader.alive(), "the writer has left in order"
    finally:
        child.kill()
        child.wait(10)
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()


def test_files_of_other_labels_are_other_files(path: Path) -> None:
    CounterWriter.open(path, SPEC).close()
    for labels in (["a", "b", "d"], ["a", "c", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(IdentityMismatch):
            CounterReader.open(path, counters_spec("things", labels))
    with pytest.raises(Missing):
        CounterReader.open(path.with_name("none"), SPEC)


def test_the_geometry_is_one_word_per_label() -> None:
    assert (SPEC.slots, SPEC.stride, SPEC.kind) == (3, 8, FileKind.COUNTERS)
    with pytest.raises(ValueError, match="stride of a counters file must be 8"):
        FileSpec(FileKind.COUNTERS, "things", "", 3, 16, 0, 1)


@pytest.mark.covers("P9")
def test_the_sweep_takes_what_nobody_holds(path: Path) -> None:
    other = path.with_name("things-1.counters")
    CounterWriter.open(other, SPEC).close()
    with CounterWriter.open(path, SPEC):
        assert sweep(path.parent) == [other]
        assert path.exists()
