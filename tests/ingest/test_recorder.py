"""The recorder writes what it is given, bounds what it keeps, and never makes the caller wait."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from mpengine.config import CaptureSettings
from mpengine.ingest import recorder as module
from mpengine.ingest.capture_file import CaptureFile, CaptureHeader, CaptureLine, CaptureReader, read_capture
from mpengine.ingest.recorder import FileRow, Recorder, capture_files
from tests.conftest import skip_or_fail

SMALL = CaptureSettings(frame_bytes=1 << 10, frame_s=0.05, file_bytes=1 << 16)


def header(created_ns: int) -> CaptureHeader:
    return CaptureHeader(created_ns=created_ns, instance="test", symbols={}, config_hash="")


def line(n: int, size: int = 10) -> CaptureLine:
    return CaptureLine(n, "binance", "public#1", "in", os.urandom(size // 2).hex().encode())


def wait(condition: Callable[[], object], limit_s: float = 10) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lines_of(directory: Path) -> list[CaptureLine]:
    return [one for path in capture_files(directory) for one in read_capture(path)]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    one = Recorder(tmp_path, SMALL, header)
    one.start()
    yield one
    one.close(5)


def test_everything_put_is_read_back_in_order_after_close(recorder: Recorder, tmp_path: Path) -> None:
    sent = [line(n, 200) for n in range(500)]
    for one in sent:
        recorder.put(one)
    assert recorder.close(5)
    assert lines_of(tmp_path) == sent
    assert (recorder.records, recorder.dropped, recorder.write_errors) == (500, 0, 0)


def test_a_quiet_feed_reaches_the_disk_without_close(recorder: Recorder, tmp_path: Path) -> None:
    recorder.put(line(1))
    wait(lambda: recorder.records == 1)
    assert [one.recv_ns for one in lines_of(tmp_path)] == [1]


def test_frames_have_about_their_size(recorder: Recorder, tmp_path: Path) -> None:
    for n in range(200):
        recorder.put(line(n, 100))
    recorder.close(5)
    [path] = capture_files(tmp_path)
    frames = path.read_bytes().count(b"\x28\xb5\x2f\xfd")
    assert 200 * 100 / 1024 < frames - 1 < 2 * 200 * 200 / 1024


def test_files_are_rotated_have_unique_names_and_stand_alone(recorder: Recorder, tmp_path: Path) -> None:
    sent = [line(n, 4000) for n in range(200)]
    for one in sent:
        recorder.put(one)
    recorder.close(5)
    files = capture_files(tmp_path)
    assert len(files) > 2
    assert all(path.stat().st_size <= 1 << 16 for path in files)
    assert [one for path in files for one in read_capture(path)] == sent
    for path in files:
        with CaptureReader(path) as reader:
            assert reader.header.created_ns == int(path.name.split("-")[1])
            assert not reader.truncated


@pytest.mark.covers("A2-L7")
def test_names_stay_unique_when_the_clock_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "time_ns", lambda: 1_800_000_000_000_000_000)
    row = FileRow(tmp_path, SMALL, header)
    for _ in range(100):
        row.write_frame(b"{}\n")
        row.close()
    assert len(capture_files(tmp_path)) == 100


@pytest.mark.covers("T-M9")
def test_the_quota_removes_the_oldest_captures_and_nothing_else(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SMALL, quota_bytes=4 << 16)
    others = [tmp_path / "notes.txt", tmp_path / "capture-1.jsonl.zst", tmp_path / "capture-old.bak"]
    for other in others:
        other.write_bytes(bytes(1 << 18))
    row = FileRow(tmp_path, settings, header)
    for _ in range(60):
        row.write_frame(os.urandom(8000).hex().encode() + b"\n")
    newest = capture_files(tmp_path)
    row.close()
    assert sum(path.stat().st_size for path in newest) <= 4 << 16
    assert len(newest) >= 3
    assert newest == sorted(newest)
    assert all(other.exists() for other in others)


class SlowFile:
    """Makes every write of a frame wait at a gate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.reached = threading.Event()
        append = CaptureFile.append

        def slow(file: CaptureFile, frame: bytes) -> None:
            if threading.current_thread().name == "recorder":
                self.reached.set()
                assert self.gate.wait(30)
            append(file, frame)

        monkeypatch.setattr(CaptureFile, "append", slow)


@pytest.mark.covers("F12", "A1-M18", "E-L6")
def test_a_disk_that_stands_still_drops_counts_and_marks_but_never_blocks(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_LINES", 100)
    slow = SlowFile(monkeypatch)
    recorder.put(line(0))
    assert slow.reached.wait(10)
    for n in range(1, 301):
        recorder.put(line(n))  # returns although the thread hangs in a write
    assert recorder.dropped == 200
    slow.gate.set()
    wait(lambda: recorder.records == 101)
    recorder.put(line(301))
    recorder.close(5)
    got = lines_of(tmp_path)
    assert [one.recv_ns for one in got if one.direction == "in"] == [*range(101), 301]
    [gap] = [one for one in got if one.direction == "gap"]
    assert msgspec.json.decode(gap.payload) == {"lines": 200, "first_ns": 101, "last_ns": 300}
    assert got.index(gap) == len(got) - 2


def test_the_queue_is_bounded_in_bytes(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 10_000)
    slow = SlowFile(monkeypatch)
    recorder.put(line(0))
    assert slow.reached.wait(10)
    for n in range(20):
        recorder.put(line(n, 1000))
    assert 20 - 9 <= recorder.dropped <= 20 - 7
    slow.gate.set()


@pytest.mark.covers("S-H4")
def test_close_gives_up_on_a_disk_that_hangs(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowFile(monkeypatch)
    recorder.put(line(0))
    assert slow.reached.wait(10)
    assert not recorder.close(0.05)
    slow.gate.set()
    assert recorder.close(5)


@pytest.mark.covers("F12", "E-M9")
def test_failing_writes_are_counted_logged_once_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.1)
    directory = tmp_path / "captures"
    directory.write_bytes(b"")  # a file where the directory should be
    recorder = Recorder(directory, SMALL, header)
    recorder.start()
    recorder.put(line(1))
    wait(lambda: recorder.dropped == 1)
    recorder.put(line(2))
    wait(lambda: recorder.dropped == 2)
    assert recorder.failing == os.strerror(errno.EEXIST)
    directory.unlink()
    for n in range(3, 1000):
        recorder.put(line(n))
        if recorder.records:
            break
        time.sleep(0.01)
    assert recorder.close(5)
    got = lines_of(directory)
    assert got[0].direction == "gap"
    lost = msgspec.json.decode(got[0].payload)["lines"]
    assert [one.recv_ns for one in got[1:]] == list(range(lost + 1, n + 1))
    assert recorder.dropped == lost
    assert recorder.write_errors >= 1
    assert [r.levelname for r in caplog.records] == ["ERROR", "WARNING"]


def test_after_a_failed_sync_recording_goes_on_in_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = FileRow(tmp_path, SMALL, header)
    row.write_frame(b'{"a":1}\n')

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(module.os, "fsync", broken)
    with pytest.raises(OSError, match="input/output"):
        row.sync()
    monkeypatch.undo()
    row.write_frame(b'{"a":2}\n')
    row.close()
    assert len(capture_files(tmp_path)) == 2


def test_an_error_nobody_foresaw_does_not_end_the_recorder(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "encode_line", lambda _line: 1 / 0)
    recorder.put(line(1))
    wait(lambda: recorder.write_errors)
    monkeypatch.undo()
    recorder.put(line(2))
    wait(lambda: recorder.records)
    assert [one.recv_ns for one in lines_of(tmp_path)] == [2]
    assert "the recorder failed" in caplog.text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB that can be full."""
    point = tmp_path / "disk"
    point.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(point)], capture_output=True, text=True, timeout=10, check=False
    )
    if mount.returncode:
        skip_or_fail(f"no tmpfs can be mounted here: {mount.stderr.strip()}")
    yield point
    subprocess.run(["umount", str(point)], timeout=10, check=True)


@pytest.mark.covers("F12", "T-M12", "T-M14")
def test_a_full_disk_stops_the_capture_until_there_is_room_and_corrupts_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.05)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(700 << 10))
    recorder = Recorder(small_disk, SMALL, header)
    recorder.start()
    try:
        n = 0
        while not recorder.dropped:
            recorder.put(line(n, 8000))
            n += 1
            assert n < 10_000
            time.sleep(0.001)
        assert recorder.failing == os.strerror(errno.ENOSPC)
        before = lines_of(small_disk)
        assert [one.recv_ns for one in before] == list(range(len(before)))
        ballast.unlink()
        written = recorder.records
        while recorder.records <= written:
            recorder.put(line(n, 100))
            n += 1
            assert n < 20_000
            time.sleep(0.001)
    finally:
        assert recorder.close(5)
    got = lines_of(small_disk)
    numbers = [one.recv_ns for one in got if one.direction == "in"]
    lost = sum(msgspec.json.decode(one.payload)["lines"] for one in got if one.direction == "gap")
    assert numbers == sorted(set(numbers))
    assert len(numbers) + lost == n
    assert lost == recorder.dropped
    for path in capture_files(small_disk):
        with CaptureReader(path) as reader:
            list(reader)
            assert not reader.truncated
