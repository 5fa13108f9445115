"""Log files of an engine: rotation while they are written, bounds, failures that are counted and healed."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mpengine.engine import log_files
from mpengine.engine.log_files import KINDS, LogFiles, sink_name
from mpengine.engine.log_records import LogOut

DAY = 24 * 3600 * 10**9


class FakeTime:
    def __init__(self) -> None:
        self.ns = 1_795_000_000 * 10**9

    def __call__(self) -> int:
        return self.ns


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)


def line(number: int, kind: str = "tape", size: int = 80) -> LogOut:
    return LogOut(kind, {"event": "x", "number": number, "text": "y" * size})  # type: ignore[arg-type]


def written(files: LogFiles, count: int) -> None:
    wait_for(lambda: files.written == count)


def numbers(folder: Path, name: str) -> list[int]:
    """Numbers of all lines of a sink, oldest file first."""
    files = [*sorted(folder.glob(f"{name}.*")), folder / name]
    return [json.loads(row)["number"] for path in files for row in path.read_text().splitlines()]


@pytest.mark.covers("A1-L5", "A2-H3")
def test_every_sink_rotates_and_nothing_is_lost_on_the_way(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, "BTC", rotate_bytes=1000, backups=1000, total_bytes=10**9)
    assert [sink_name(kind, "BTC") for kind in KINDS] == [
        "liq_tape_BTC.jsonl", "liq_sweeps_BTC.jsonl", "liq_inference_BTC.jsonl", "liq_debug_BTC.jsonl", "liq_cycles_BTC.jsonl",
        "liq_zones_BTC.jsonl", "liq_calibrator_BTC.jsonl", "plot_feed_BTC.jsonl",
    ]  # fmt: skip
    for number in range(40):
        files.write([line(number, kind) for kind in KINDS])
        written(files, len(KINDS) * (number + 1))
    assert files.stop()
    for kind in KINDS:
        name = sink_name(kind, "BTC")
        assert len(list(tmp_path.glob(f"{name}.*"))) >= 3
        assert numbers(tmp_path, name) == list(range(40))
    assert (files.errors, files.dropped) == (0, 0)


@pytest.mark.covers("A1-M22", "A2-M5")
def test_a_running_file_rotates_by_age(tmp_path: Path) -> None:
    clock = FakeTime()
    files = LogFiles(tmp_path, "BTC", now=clock)
    for number in range(3):
        files.write([line(number)])
        written(files, number + 1)
        clock.ns += DAY // 2
    files.stop()
    (backup,) = tmp_path.glob("liq_tape_BTC.jsonl.*")
    assert len(backup.read_text().splitlines()) == 2
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == [0, 1, 2]


@pytest.mark.covers("A2-L7")
def test_a_hundred_rotations_in_one_second_have_names_of_their_own(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, "BTC", rotate_bytes=10, backups=1000, now=FakeTime())
    for number in range(101):
        files.write([line(number)])
        written(files, number + 1)
    files.stop()
    assert len(list(tmp_path.glob("liq_tape_BTC.jsonl.*"))) == 100
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == list(range(101))


@pytest.mark.covers("A2-H3")
def test_thirty_days_stay_below_the_limits(tmp_path: Path) -> None:
    clock, number, total = FakeTime(), 0, 0
    files = LogFiles(tmp_path, "BTC", rotate_bytes=20_000, total_bytes=150_000, now=clock)
    for _ in range(30 * 8):
        batch = [line(number + at, kind, 300) for at in range(5) for kind in KINDS]
        number += 5
        total += len(batch)
        files.write(batch)
        written(files, total)
        clock.ns += DAY // 8
    files.stop()
    for kind in KINDS:
        assert len(list(tmp_path.glob(f"{sink_name(kind, 'BTC')}.*"))) <= 7
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 150_000 + 150_000 // 25
    assert numbers(tmp_path, "liq_zones_BTC.jsonl")[-1] == number - 1


@pytest.mark.covers("A2-M7", "A2-L5")
def test_a_sink_that_cannot_be_written_is_counted_told_and_healed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "liq_tape_BTC.jsonl").mkdir()  # in the way
    with caplog.at_level(logging.WARNING):
        files = LogFiles(tmp_path, "BTC")
        files.write([line(0), line(1, "zones")])
        wait_for(lambda: files.errors > 0)
        files.write([line(2)])
        wait_for(lambda: files.errors > 1)
    assert len([row for row in caplog.records if "not written" in row.message]) == 1
    assert "liq_tape" not in caplog.text and str(tmp_path) not in caplog.text
    (tmp_path / "liq_tape_BTC.jsonl").rmdir()
    files.write([line(3)])
    written(files, 4)
    files.stop()
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == [0, 2, 3]
    assert numbers(tmp_path, "liq_zones_BTC.jsonl") == [1]


@pytest.mark.covers("A1-M18")
def test_a_blocked_disk_holds_nobody_up_and_overflow_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real = threading.Event(), os.write

    def slow(fd: int, data: bytes) -> int:
        gate.wait(10)
        return real(fd, data)

    monkeypatch.setattr(log_files.os, "write", slow)
    files = LogFiles(tmp_path, "BTC", capacity=100)
    files.write([line(0)])
    wait_for(lambda: not files._waiting)  # the thread is at the disk now
    files.write([line(number) for number in range(1, 151)])  # returns at once, or the test would hang
    assert files.dropped == 50
    gate.set()
    written(files, 101)
    assert files.stop()
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == list(range(101))


def test_a_line_that_a_crash_has_cut_is_ended_and_an_old_file_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "liq_tape_BTC.jsonl"
    path.write_text('{"number":7}\n{"number":8,"te')
    files = LogFiles(tmp_path, "BTC")
    files.write([line(9)])
    assert files.stop()
    rows = path.read_text().splitlines()
    assert (json.loads(rows[0])["number"], rows[1], json.loads(rows[2])["number"]) == (7, '{"number":8,"te', 9)


def test_a_stop_writes_what_waits(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, "BTC")
    files.write([line(number) for number in range(5000)])
    assert files.stop()
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == list(range(5000))
    assert files.written == 5000


@pytest.mark.covers("A2-M7", "E-L6")
def test_a_full_disk_is_counted_and_what_waited_is_written_once_there_is_room(tmp_path: Path) -> None:
    full = tmp_path / "liq_tape_BTC.jsonl"
    full.symlink_to("/dev/full")
    files = LogFiles(tmp_path, "BTC")
    files.write([line(0)])
    wait_for(lambda: files.errors > 0)
    assert files.last_error == "lines of tape not written (No space left on device): they wait"
    assert (files.written, files.dropped) == (0, 0)
    full.unlink()
    files.write([line(1)])
    written(files, 2)
    files.stop()
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == [0, 1]


@pytest.mark.covers("E-L6")
def test_a_write_that_breaks_off_leaves_no_piece_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.write, [3]

    def breaks_off(fd: int, data: bytes) -> int:
        if left[0] <= 0 or not data.startswith(b"{") or len(data) < 50:
            return real(fd, data)
        left[0] -= 1
        real(fd, data[: len(data) // 2])
        monkeypatch.setattr(log_files.os, "write", refuses)
        return len(data) // 2

    def refuses(fd: int, data: bytes) -> int:
        monkeypatch.setattr(log_files.os, "write", breaks_off)
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(log_files, "RETRY_S", 0.01)
    monkeypatch.setattr(log_files.os, "write", breaks_off)
    files = LogFiles(tmp_path, "BTC")
    files.write([line(number) for number in range(10)])
    written(files, 10)
    assert files.stop() and files.errors == 3
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == list(range(10))


def test_a_record_that_is_no_json_costs_its_own_line_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = LogFiles(tmp_path, "BTC")
    with caplog.at_level(logging.WARNING):
        files.write([line(0), LogOut("tape", {"event": "bad", "what": object()}), line(1)])
        written(files, 2)
    files.write([line(2)])
    assert files.stop() and files.dropped == 1 and files.errors == 0
    assert files.last_error is not None and "no JSON" in files.last_error and "no JSON" in caplog.text
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == [0, 1, 2]


@pytest.mark.covers("F22", "E-M6")
def test_a_stop_does_not_wait_for_a_disk_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real = threading.Event(), os.write

    def slow(fd: int, data: bytes) -> int:
        gate.wait(10)
        return real(fd, data)

    monkeypatch.setattr(log_files.os, "write", slow)
    files = LogFiles(tmp_path, "BTC")
    files.write([line(0)])
    wait_for(lambda: not files._waiting)
    assert not files.stop(0.05)
    files.write([line(1)])
    assert files.dropped == 1  # too late, and said so
    gate.set()
    assert files.stop()
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == [0]


def test_lines_that_a_stop_could_not_write_are_counted_as_lost(tmp_path: Path) -> None:
    (tmp_path / "liq_tape_BTC.jsonl").symlink_to("/dev/full")
    files = LogFiles(tmp_path, "BTC")
    files.write([line(0), line(1), line(2, "zones")])
    assert files.stop()
    assert (files.written, files.dropped) == (1, 2) and files.errors > 0


@pytest.mark.covers("A1-M22")
def test_restarts_do_not_make_a_file_younger(tmp_path: Path) -> None:
    clock = FakeTime()
    for day in range(4):
        files = LogFiles(tmp_path, "BTC", now=clock)
        files.write([LogOut("tape", {"ts_ns": clock.ns, "number": day})])
        assert files.stop()
        clock.ns += DAY // 2
    (backup,) = tmp_path.glob("liq_tape_BTC.jsonl.*")
    assert len(backup.read_text().splitlines()) == 2
    assert numbers(tmp_path, "liq_tape_BTC.jsonl") == [0, 1, 2, 3]


@pytest.mark.parametrize("head", ["", "[]", "null", '{"number": 1}', '{"ts_ns": "x"}', "x" * 100_000])
def test_a_first_line_without_a_time_says_nothing_about_the_age(tmp_path: Path, head: str) -> None:
    path = tmp_path / "liq_tape_BTC.jsonl"
    path.write_text(f"{head}\n")
    files = LogFiles(tmp_path, "BTC")
    files.write([line(1)])
    assert files.stop() and files.errors == 0
    assert path.read_text().splitlines()[0] == head and not list(tmp_path.glob("liq_tape_BTC.jsonl.*"))


@pytest.mark.covers("T-M9", "A2-L7")
def test_retention_takes_the_oldest_backups_and_nothing_else(tmp_path: Path) -> None:
    clock = FakeTime()
    others = [tmp_path / f"liq_tape_BTC.jsonl.{end}" for end in ("gz", "old", "1-x", "keep.12-000001")]
    for path in others:
        path.write_text("mine")
    number = 0
    for step in (0, 0, -3600):  # two runs in one second, one after the clock was set back
        clock.ns += step * 10**9
        files = LogFiles(tmp_path, "BTC", rotate_bytes=10, backups=4, now=clock)
        for _ in range(5):
            files.write([line(number)])
            number += 1
            written(files, (number - 1) % 5 + 1)
        assert files.stop()
    assert [path.read_text() for path in others] == ["mine"] * 4
    backups = [path for path in tmp_path.glob("liq_tape_BTC.jsonl.*") if path not in others]
    told = [json.loads(path.read_text())["number"] for path in sorted(backups)]
    assert len(told) == 4 and told == sorted(told) and told[-1] == number - 2
