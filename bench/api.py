"""Requests per second and latency of the HTTP API, one worker, loopback, keep-alive::

    N connections (this process) ==> gunicorn worker: parser -> known answer | Falcon -> cache | build from rings
                                 ==> gunicorn worker: parser -> bare ASGI callable, body of the same size      (baseline)
                                 ==> uvicorn: FastAPI, a response encoded before, body of the same size        (peer, if there)
                                 ==> the first one with rate limits on, and with limits and keys on            (what access costs)

All servers run at the same time, and their rounds alternate, so that a ratio compares the same minute of the same machine. The
client is a process of its own on another core and costs about as much as the server: with fewer than two free cores the numbers
say more about the client. Requests per second are a result to read; nothing passes or fails by them.

python -m bench.api [--quick] [--json]
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import uvloop

from bench import fastapi_peer
from bench.common import Row, main, report
from mpengine.config import Settings, encode, load, resolve_directories
from mpengine.keys import change, new_key
from shm.frame_ring import FrameWriter
from shm.frames import Frame
from shm.frames import encode as encode_frame
from shm.grid import frame_grid
from shm.layout import candles_spec, depth_spec
from shm.record_ring import RecordWriter
from shm.records import CANDLE_DTYPE, RECORD_SCHEMA, Coverage, FrameKind, Venue

SLOT_MS: Final = 30_000
FRAMES: Final = 1440
BARS: Final = 3000
ANSWER_WITHIN_S: Final = 20.0
ROUNDS: Final = 3
MS: Final = 1_000_000

Targets = Callable[[], Iterator[str]]


@dataclass(frozen=True, slots=True)
class Case:
    """One endpoint in one state. `targets`: what is asked for, again and again; `baseline`: compared with the bare callable and
    with guarded servers."""

    name: str
    targets: Targets
    connections: int = 64
    headers: bytes = b""
    baseline: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """One round: whole responses per second, latency, bytes of the last body, statuses seen."""

    per_second: float
    p50_ms: float
    p99_ms: float
    body_bytes: int
    statuses: frozenset[int]


def same(target: str) -> Targets:
    return lambda: itertools.repeat(target)


def varied(pattern: str, values: range) -> Targets:
    """Targets that a cache of 500 entries cannot hold."""
    return lambda: (pattern.format(value) for value in itertools.cycle(values))


def cases() -> list[Case]:
    """The table of measurements."""
    latest, history = "/orderbook_heatmap", "/orderbook_heatmap_history"
    return [
        Case("depth json, cached", same(latest), baseline=True),
        Case("depth json, cached, 304", same(latest), headers=b"If-None-Match: *\r\n"),
        Case("depth json, cached, other spelling", varied(latest + "?x={}", range(100_000))),
        Case("depth json, built each time", varied(latest + "?price_min={}", range(20, 48_000, 20)), connections=16),
        Case("depth bin, cached", same(latest + "?format=bin"), baseline=True),
        Case("history json 12 h, cached", same(history), connections=4, baseline=True),
        Case("history bin 12 h, cached", same(history + "?format=bin"), connections=4, baseline=True),
        Case("history json 12 h, built each time", varied(history + "?price_min={}", range(20, 48_000, 20)), connections=2),
        Case("history bin 12 h, built each time", varied(history + "?format=bin&price_min={}", range(20, 48_000, 20)), 2),
        Case("candles 720, cached", same("/candles"), baseline=True),
        Case("candles, built each time", varied("/candles?limit={}", range(1, 1501)), connections=16),
        Case("livez (Falcon, no cache)", same("/livez"), baseline=True),
    ]


# --- load client ------------------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has been answered."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = bytearray()
        self._missing = 0
        self._sent_ns = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _content_length(self._buffer, end)
            self._load.status(int(self._buffer[9:12]), length)
            self._missing = end + 4 + length - len(self._buffer)
            self._buffer.clear()
        if self._missing == 0:
            self._load.done(time.perf_counter_ns() - self._sent_ns)
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.closed()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _ask(self) -> None:
        assert self._transport is not None
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(self._load.request())


def _content_length(head: bytearray, end: int) -> int:
    at = head.find(b"content-length: ", 0, end)
    return 0 if at < 0 else int(head[at + 16 : head.find(b"\r\n", at, end + 2)])


class Load:
    """A round of one case: counts and times what its clients get."""

    def __init__(self, case: Case) -> None:
        self._targets = case.targets()
        self._headers = case.headers
        self._latencies: list[int] = []
        self._statuses: set[int] = set()
        self._body = 0
        self._lost = 0
        self._open = True

    def request(self) -> bytes:
        return b"GET %s HTTP/1.1\r\nHost: bench\r\n%s\r\n" % (next(self._targets).encode("ascii"), self._headers)

    def status(self, status: int, length: int) -> None:
        self._statuses.add(status)
        self._body = length

    def done(self, latency_ns: int) -> None:
        self._latencies.append(latency_ns)

    def closed(self) -> None:
        self._lost += self._open

    async def run(self, port: int, connections: int, seconds: float) -> Measured:
        """Drive the connections for `seconds`, after a tenth of that to warm up."""
        loop = asyncio.get_running_loop()
        clients = [(await loop.create_connection(lambda: Client(self), "127.0.0.1", port))[1] for _ in range(connections)]
        await asyncio.sleep(seconds / 10)
        self._latencies.clear()
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        while not self._latencies and time.perf_counter() - began < ANSWER_WITHIN_S:  # a round shorter than one answer
            await asyncio.sleep(seconds)
        elapsed, taken = time.perf_counter() - began, np.array(self._latencies)
        self._open = False
        for client in clients:
            client.close()
        if self._lost or not self._latencies:
            raise RuntimeError(f"{len(self._latencies)} answers, {self._lost} connections closed by the server")
        p50, p99 = np.percentile(taken, [50, 99]) / 1e6
        return Measured(len(taken) / elapsed, float(p50), float(p99), self._body, frozenset(self._statuses))


# --- servers ----------------------------------------------------------------------------------------------------------


def _frame(open_ms: int, seed: int) -> Frame:
    src, step = 65_892.725, 20.0
    origin, count, _ = frame_grid(src, step, 0.10)
    planes = np.random.default_rng(seed).exponential(50_000.0, (2, count))
    planes[0, count // 2 :] = planes[1, : count // 2] = 0.0
    return Frame(
        kind=FrameKind.DEPTH, open_ts_ns=open_ms * MS, close_ts_ns=(open_ms + SLOT_MS) * MS, venue_ts_ns=open_ms * MS,
        reference=src, origin=origin, step=step, norm_a=1.0, norm_b=2.0, total_a=1.0, total_b=1.0,
        coverage=Coverage.NONE, venues=Venue.BINANCE.bit, samples=30, planes=planes,
    )  # fmt: skip


def fill(settings: Settings) -> None:
    """Twelve hours of frames and two days of bars for BTC, the newest of them of now."""
    now_ms = time.time_ns() // MS // 60_000 * 60_000
    with FrameWriter.open(settings.paths.depth("BTC"), depth_spec("BTC")) as ring:
        for index in range(FRAMES):
            open_ms = now_ms - (FRAMES - index) * SLOT_MS
            ring.publish(encode_frame(_frame(open_ms, index)), ts_ns=open_ms * MS, kind=FrameKind.DEPTH)
    bar = np.zeros((), CANDLE_DTYPE)
    for name in ("open", "high", "low", "close"):
        bar[name] = 65_892.7
    bar["schema"] = RECORD_SCHEMA
    with RecordWriter.open(settings.paths.candles("BTC"), candles_spec("BTC"), CANDLE_DTYPE) as bars:
        for index in range(BARS):
            bar["open_ts_ns"] = (now_ms - (BARS - index) * 60_000) * MS
            bar["close_ts_ns"] = bar["open_ts_ns"] + 60_000 * MS
            bars.append(bar, ts_ns=int(bar["close_ts_ns"]))


OFF: Final = "rate_limits = false"
LIMITS: Final = "rate_limits = true\nrate_per_s = 1000000.0\nrate_burst = 1000000"  # counted and never reached
KEYS: Final = f"keys = true\n{LIMITS}"


def make_settings(root: Path, name: str, port: int, access: str = OFF) -> Settings:
    """Settings of one server; all read the same data."""
    (root / name).mkdir(parents=True)
    text = f'[api]\nhost = "127.0.0.1"\nport = {port}\nworkers = 1\n{access}\n[log]\nlevel = "WARNING"\n[symbols.BTC]\n'
    return resolve_directories(load(text, {}), data=root / "data", runtime=root / name)


@contextmanager
def server(settings: Settings, application: str) -> Iterator[int]:
    """A gunicorn with one worker; yields its port. Raises RuntimeError where it does not answer within 20 s."""
    settings.paths.settings.write_bytes(encode(settings))
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", application]
    with running(command, settings.api.port, {"MPENGINE_SETTINGS": str(settings.paths.settings)}) as port:
        yield port


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    """A process that listens on `port`."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=Path(__file__).parents[1])
    try:
        _wait_for(port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
                probe.sendall(b"GET /1 HTTP/1.1\r\nHost: bench\r\n\r\n")
                if probe.recv(1):
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not answer")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- the bench --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the servers listen; `peer` None: FastAPI is not there. `key`: header for the one with keys."""

    api: int
    bare: int
    peer: int | None
    limits: int
    keys: int
    key: bytes


async def _measure(case: Case, ports: Ports, seconds: float) -> Row:
    """Best of the rounds of the case, of its baseline and of the peer, taken in turns."""
    body = (await Load(case).run(ports.api, 1, seconds / 10)).body_bytes  # the first one builds
    others = _others(case, ports, body) if case.baseline else {}
    own: list[Measured] = []
    theirs: dict[str, list[Measured]] = {name: [] for name in others}
    for _ in range(ROUNDS):
        own.append(await Load(case).run(ports.api, case.connections, seconds))
        for name, (port, other) in others.items():
            theirs[name].append(await Load(other).run(port, case.connections, seconds))
    best = max(own, key=lambda one: one.per_second)
    rates = {name: max(one.per_second for one in measured) for name, measured in theirs.items()}
    return {
        "case": case.name,
        "connections": case.connections,
        "requests/s": round(best.per_second),
        "p50 ms": round(best.p50_ms, 3),
        "p99 ms": round(best.p99_ms, 3),
        "bytes": best.body_bytes,
        "status": " ".join(str(status) for status in sorted(best.statuses)),
        "bare/s": round(rates["bare"]) if "bare" in rates else None,
        "of bare": round(best.per_second / rates["bare"], 2) if "bare" in rates else None,
        "of FastAPI": round(best.per_second / rates["fastapi"], 2) if "fastapi" in rates else None,
        "with limits": round(rates["limits"] / best.per_second, 2) if "limits" in rates else None,
        "and keys": round(rates["keys"] / best.per_second, 2) if "keys" in rates else None,
    }


def _others(case: Case, ports: Ports, body: int) -> dict[str, tuple[int, Case]]:
    """What a case is compared with: (port, what is asked there)."""
    found = {
        "bare": (ports.bare, Case("bare", same(f"/{body}"), case.connections)),
        "limits": (ports.limits, case),
        "keys": (ports.keys, Case(case.name, case.targets, case.connections, case.headers + ports.key)),
    }
    if ports.peer is not None:
        target = f"/orderbook_heatmap?symbol=BTC&size={body}"
        found["fastapi"] = (ports.peer, Case("fastapi", same(target), case.connections))
    return found


async def _all(quick: bool, ports: Ports) -> list[Row]:
    seconds = 0.3 if quick else 2.0
    return [await _measure(case, ports, seconds) for case in cases()]


def run(quick: bool) -> list[Row]:
    """Results of every case, in order. Raises RuntimeError where a server does not come up or closes a connection."""
    root = Path(tempfile.mkdtemp(prefix="mpengine-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    peer = fastapi_peer.interpreter()
    try:
        (root / "data").mkdir()
        own, base = (make_settings(root, name, free_port()) for name in ("api", "bare"))
        limited, keyed = (make_settings(root, name, free_port(), text) for name, text in (("limits", LIMITS), ("keys", KEYS)))
        record, key = new_key(0, ["read"])
        change(keyed.paths.keys, lambda records: [*records, record])
        fill(own)
        with ExitStack() as stack:
            api = stack.enter_context(server(own, "api.app:get_app()"))
            bare = stack.enter_context(server(base, "bench.bare_asgi:get_app()"))
            limits, keys = (stack.enter_context(server(one, "api.app:get_app()")) for one in (limited, keyed))
            port = free_port()
            if peer is not None:
                stack.enter_context(running([peer, fastapi_peer.__file__, str(port)], port, {}))
            runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
            header = b"Authorization: Bearer %s\r\n" % key.encode("ascii")
            rows = runner.run(_all(quick, Ports(api, bare, None if peer is None else port, limits, keys, header)))
    finally:
        shutil.rmtree(root)
    note = (
        ""
        if peer is not None
        else "FastAPI: not measured, not installed (MPENGINE_PEER_PYTHON may name an interpreter that has it)"
    )
    report(f"HTTP API, one worker, best of {ROUNDS} rounds", rows, note)
    return rows


if __name__ == "__main__":
    main(run, "bench.api")
