"""Thousands of push clients for minutes: nobody misses anything, nothing grows, a stalled one costs the others nothing (F11)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.push import HZ, Case, measure, serving
from tests.supervisor.rig import until

GROWN_BYTES = 24 << 20


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mpengine-soak-", dir="/dev/shm"))
    (folder / "data").mkdir()
    yield folder
    shutil.rmtree(folder)


def descriptors(worker: psutil.Process) -> int:
    return int(worker.num_fds())


@pytest.mark.covers("F11")
@pytest.mark.parametrize(
    ("clients", "seconds"),
    [
        pytest.param(150, 4.0, id="short", marks=pytest.mark.stress),
        pytest.param(2000, 600.0, id="ten minutes", marks=[pytest.mark.stress, pytest.mark.timeout(1200)]),
    ],
)
def test_many_clients_get_everything_and_nothing_grows(root: Path, clients: int, seconds: float) -> None:
    with serving(root) as (port, worker):
        measure(port, worker, Case("ws", 1), 1.0)
        before = descriptors(worker)
        for case in (Case("ws", clients), Case("sse", clients), Case("bin", clients, stalled=True)):
            found = measure(port, worker, case, seconds if case.kind == "ws" else min(seconds, 60.0))
            print(case, found)
            assert (found["missed"], found["closed"]) == (0, 0), case
            assert found["messages"] >= clients * (HZ * min(seconds, 4.0) / 4), case  # they do come
            assert found["grown"] < GROWN_BYTES, case
        until("every connection is gone from the worker as well", lambda: descriptors(worker) <= before)
