"""Sync thread: every fd in every round, errors told and retried, stopped in order; and why it is not mmap.flush()."""

from __future__ import annotations

import mmap
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from shm.errors import Refused
from shm.frame_ring import FrameWriter
from shm.layout import depth_spec
from shm.syncer import SyncThread
from tests.shm.rig import wait_until


class Disk:
    """Stands for fdatasync: notes calls, fails when told."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.failing: set[int] = set()

    def sync(self, fd: int) -> None:
        self.calls.append(fd)
        if fd in self.failing:
            raise OSError(5, "Input/output error")


def unexpected(fd: int, error: OSError) -> None:
    raise AssertionError(f"{fd}: {error}")


def test_every_fd_is_synced_in_every_round() -> None:
    disk = Disk()
    with SyncThread([3, 4, 5], 0.001, unexpected, sync=disk.sync) as syncer:
        wait_until(lambda: syncer.rounds >= 3, "three rounds")
    assert disk.calls[:9] == [3, 4, 5] * 3
    assert len(disk.calls) == 3 * syncer.rounds


def test_one_failing_disk_is_told_and_does_not_stop_the_others() -> None:
    disk, told = Disk(), []
    disk.failing.add(4)
    with SyncThread([3, 4, 5], 0.001, lambda fd, error: told.append((fd, error.errno)), sync=disk.sync) as syncer:
        wait_until(lambda: syncer.rounds >= 2, "two rounds")
    assert set(told) == {(4, 5)}
    assert len(told) == syncer.rounds
    assert disk.calls[:6] == [3, 4, 5] * 2


def test_stopping_syncs_once_more_and_at_once() -> None:
    disk = Disk()
    syncer = SyncThread([3], 30, unexpected, sync=disk.sync)
    syncer.start()
    assert syncer.stop()
    assert disk.calls == [3]
    assert syncer.stop()


def test_a_thread_that_was_never_started_stops() -> None:
    assert SyncThread([], 1, unexpected).stop()


def test_a_hanging_disk_does_not_hang_the_stop() -> None:
    go_on = threading.Event()

    def hang(_: int) -> None:
        go_on.wait(30)

    syncer = SyncThread([3], 0.001, unexpected, sync=hang)
    syncer.start()
    assert not syncer.stop(timeout_s=0.05)
    go_on.set()
    assert syncer.stop()


@pytest.mark.parametrize("interval", [0, -1, 30.5])
def test_an_interval_out_of_bounds_is_refused(interval: float) -> None:
    with pytest.raises(Refused, match="interval must be above 0 and at most 30 s"):
        SyncThread([3], interval, unexpected)


def test_real_files_are_synced(tmp_path: Path) -> None:
    path, spec = tmp_path / "depth.ring", depth_spec("BTC", 8)
    with FrameWriter.open(path, spec) as writer, SyncThread([writer.fd], 0.005, unexpected) as syncer:
        for n in range(20):
            writer.publish(b"x", ts_ns=n, kind=1)
        wait_until(lambda: syncer.rounds >= 2, "two rounds")


def longest_silence(write_back: threading.Thread) -> float:
    """Longest time, in seconds, for which this thread did not get to run while `write_back` did."""
    worst, last = 0.0, time.perf_counter()
    write_back.start()
    while write_back.is_alive():
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    return worst


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="mmap.flush() gives up the GIL from 3.14 on, so the control has no power")
def test_fdatasync_lets_other_threads_run_and_flush_does_not(tmp_path: Path) -> None:
    """Structural, not a threshold: how much of its own duration does each call take from the other threads?"""
    size = 64 << 20
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, size)
    area = mmap.mmap(fd, size)
    shares: dict[str, list[float]] = {"fdatasync": [], "flush": []}
    calls = {"fdatasync": lambda: os.fdatasync(fd), "flush": area.flush}
    for _ in range(5):
        for name, call in calls.items():
            area[:] = os.urandom(1 << 16) * (size >> 16)
            took: list[float] = []

            def timed(call: object = call, took: list[float] = took) -> None:
                begin = time.perf_counter()
                call()  # type: ignore[operator]
                took.append(time.perf_counter() - begin)

            silence = longest_silence(threading.Thread(target=timed))
            shares[name].append(silence / took[0])
            print(f"{name}: {took[0] * 1000:.0f} ms, others stood still for {silence * 1000:.1f} ms")
    area.close()
    os.close(fd)
    assert min(shares["flush"]) > 2 * min(shares["fdatasync"]), shares
