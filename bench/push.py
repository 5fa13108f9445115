"""Fan-out of the push channels: one worker, one column 4 times a second, to hundreds and thousands of clients, loopback::

    frames, 4 Hz, doorbell (this process) ==> gunicorn worker ==> N WebSockets or event streams (a process of its own)

Lag: from the publishing of a frame to its arrival at each client, so the time that a burst to all takes is in it. CPU: of the
worker, of one core; the row with one client is what reading the ring costs. A row "1 stalled" has one more client, which reads
nothing. Two cores are needed: with one, clients and worker disturb each other.

python -m bench.push [--quick] [--json]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

from bench.api_data import START, depth_frame
from bench.api_servers import free_port, make_settings, wait_for
from bench.common import Row, main, report
from mpengine.config import Settings, encode
from shm import doorbell
from shm.frame_ring import FrameWriter
from shm.frames import encode as encode_frame
from shm.layout import depth_spec
from shm.records import FrameKind

HZ: Final = 4
MS: Final = 1_000_000
FANS: Final = (1, 500, 1000, 2000)
READY_WITHIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Case:
    """One row. `kind`: ws (JSON), bin, sse."""

    kind: str
    clients: int
    stalled: bool = False


def cases(quick: bool) -> list[Case]:
    """The rows, those of one client first."""
    if quick:
        return [Case("ws", 1), Case("ws", 100), Case("bin", 100), Case("sse", 100), Case("ws", 100, stalled=True)]
    plain = [Case("ws", clients) for clients in FANS]
    return [*plain, Case("ws", FANS[-1], stalled=True), Case("bin", FANS[-1]), Case("sse", 1000), Case("sse", FANS[-1])]


class Publisher(threading.Thread):
    """Publishes a frame `HZ` times a second and rings. Its window starts when it is published, which binary clients read."""

    def __init__(self, settings: Settings, bell: int) -> None:
        super().__init__(daemon=True)
        self._path = settings.paths.depth("BTC")
        self._bell = bell
        self.ready = threading.Event()
        self.over = threading.Event()

    def run(self) -> None:
        frames = [depth_frame(0, START, seed) for seed in range(8)]
        with FrameWriter.open(self._path, depth_spec("BTC")) as ring:
            due, number = time.monotonic(), 0
            while not self.over.is_set():
                now_ns = time.time_ns()
                frame = replace(frames[number % len(frames)], open_ts_ns=now_ns, close_ts_ns=now_ns + 30_000 * MS)
                ring.publish(encode_frame(frame), ts_ns=now_ns, kind=FrameKind.DEPTH, published_ns=now_ns)
                doorbell.ring(self._bell)
                self.ready.set()
                number, due = number + 1, due + 1 / HZ
                self.over.wait(max(0.0, due - time.monotonic()))


@contextmanager
def publishing(settings: Settings, bell: int) -> Iterator[None]:
    """Frames come while it is open."""
    thread = Publisher(settings, bell)
    thread.start()
    thread.ready.wait(10)
    try:
        yield
    finally:
        thread.over.set()
        thread.join(10)


@contextmanager
def serving(root: Path) -> Iterator[tuple[int, psutil.Process]]:
    """(port, worker process) of a pool of one worker over frames that come 4 times a second."""
    plain = make_settings(root, "push", free_port())
    api = msgspec.structs.replace(plain.api, push_connections_per_client=100_000, max_connections=10_000)
    settings = msgspec.structs.replace(plain, api=api)
    settings.paths.settings.write_bytes(encode(settings))
    bell = doorbell.create()
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", "api.app:get_app()"]
    environment = {"MPENGINE_SETTINGS": str(settings.paths.settings), doorbell.VARIABLE: doorbell.listed({"BTC": bell})}
    try:
        with publishing(settings, bell):
            process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=Path(__file__).parents[1], pass_fds=(bell,))
            try:
                wait_for(settings.api.port)
                (worker,) = psutil.Process(process.pid).children()
                yield settings.api.port, worker
            finally:
                process.terminate()
                process.wait(20)
    finally:
        os.close(bell)


def measure(port: int, worker: psutil.Process, case: Case, seconds: float) -> dict[str, Any]:
    """What the clients of a case saw and the worker needed. Raises RuntimeError where they do not get going."""
    before = worker.memory_info().rss
    command = [sys.executable, "-m", "bench.push_clients", str(port), str(case.clients), str(seconds), case.kind]
    process = subprocess.Popen(
        [*command, *(["--stalled"] if case.stalled else [])], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{case.clients} clients did not get going")
        rss, spent, began = worker.memory_info().rss, sum(worker.cpu_times()[:2]), time.monotonic()
        found: dict[str, Any] = json.loads(process.stdout.readline())
        cpu = (sum(worker.cpu_times()[:2]) - spent) / (time.monotonic() - began)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return found | {"cpu": cpu, "rss": rss, "client_bytes": (rss - before) / case.clients, "grown": worker.memory_info().rss - rss}


def run(quick: bool) -> list[Row]:
    """Rows of every case, in order. Raises RuntimeError where a server or clients do not come up."""
    seconds = 3.0 if quick else 20.0
    root = Path(tempfile.mkdtemp(prefix="mpengine-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    rows: list[Row] = []
    try:
        (root / "data").mkdir()
        with serving(root) as (port, worker):
            alone = None
            for case in cases(quick):
                found = measure(port, worker, case, seconds)
                alone = found["cpu"] if alone is None else alone
                rows.append(
                    {
                        "transport": case.kind,
                        "clients": f"{case.clients}{' + 1 stalled' if case.stalled else ''}",
                        "messages/s": round(found["messages"] / seconds),
                        "p50 ms": round(found["p50_ms"], 1),
                        "p99 ms": round(found["p99_ms"], 1),
                        "max ms": round(found["max_ms"], 1),
                        "core": round(found["cpu"], 3),
                        "beyond one": round(found["cpu"] - alone, 3),
                        "KB/client": round(found["client_bytes"] / 1024, 1),
                        "missed": found["missed"],
                        "closed": found["closed"],
                    }
                )
    finally:
        shutil.rmtree(root)
    report(f"push: one worker, a column of 800 rows {HZ} times a second", rows, "beyond one: cores beyond the row with one client")
    return rows


if __name__ == "__main__":
    main(run, "bench.push")
