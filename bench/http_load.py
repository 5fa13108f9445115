"""Who asks in `bench.api`: `wrk` where it is on the PATH, else a client of our own. Both keep connections and ask again at once.

`wrk` costs a fifth of what our client costs, so that a server on the other core is the one that is measured; our client is as
expensive as our server and cannot show how fast nginx is. What a server sends is checked by neither: `probe` looks at one answer,
and a round in which a status above 399 came, a connection broke or nothing was answered raises.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import uvloop

ANSWER_WITHIN_S: Final = 20.0
MARK: Final = "mpengine-bench "

Headers = tuple[tuple[str, str], ...]


class LoadError(RuntimeError):
    """A round that measured something else than answers; the text says what."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked for: `targets` one after the other and round again, each with `headers`; the first of a round is `first`."""

    targets: tuple[str, ...]
    headers: Headers = ()
    first: int = 0

    def after(self, requests: int) -> Ask:
        """The same from where a round of so many requests ended: what it asked for may still be in a cache."""
        return replace(self, first=(self.first + requests) % len(self.targets))

    @property
    def target(self) -> str:
        """The one that comes first."""
        return self.targets[self.first]


@dataclass(frozen=True, slots=True)
class Measured:
    """One round: rate of whole answers and how long they took. `requests`: all, those of a warm-up too."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def probe(port: int, ask: Ask) -> Reply:
    """The answer to the first target, headers in lower case. Raises OSError where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN_S)
    try:
        connection.request("GET", ask.target, headers=dict(ask.headers))
        response = connection.getresponse()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


class Generator(Protocol):
    """A load generator. `shortest_s`: no round is shorter."""

    name: str
    shortest_s: float

    def round(self, port: int, ask: Ask, connections: int, seconds: float) -> Measured:
        """One round against 127.0.0.1. Raises LoadError."""


def generator() -> Generator:
    """The best one that this machine has."""
    path = shutil.which("wrk")
    return OwnClient() if path is None else Wrk(path)


# --- wrk --------------------------------------------------------------------------------------------------------------

_REPORT: Final = """
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('MARK{"requests":%d,"us":%d,"p50_us":%d,"p99_us":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,'
    .. '"status":%d}\\n', summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.connect,
    errors.read, errors.write, errors.timeout, errors.status))
end
""".replace("MARK", MARK)

# Requests are made before the round begins; without `request` wrk sends one and the same and never calls Lua.
_TARGETS: Final = """
local requests, at = {}, 0
function init(args)
  at = tonumber(args[2])
  for line in io.lines(args[1]) do requests[#requests + 1] = wrk.format("GET", line) end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"""


class Wrk:
    """One thread of wrk. Its rounds last whole seconds."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.name = "wrk"
        self.shortest_s = 1.0

    def round(self, port: int, ask: Ask, connections: int, seconds: float) -> Measured:
        """One round; a longer one where nothing was answered in its time."""
        with tempfile.TemporaryDirectory(prefix="mpengine-wrk-") as folder:
            whole = max(1, round(seconds))
            found = self._run(Path(folder), port, ask, connections, whole)
            if not found["requests"] and not _errors(found):
                found = self._run(Path(folder), port, ask, connections, whole + round(ANSWER_WITHIN_S))
        if _errors(found) or not found["requests"]:
            raise LoadError(f"{ask.target}: {found['requests']} answers, errors {_errors(found)}")
        per_second = found["requests"] / found["us"] * 1e6
        return Measured(found["requests"], per_second, found["p50_us"] / 1e3, found["p99_us"] / 1e3)

    def _run(self, folder: Path, port: int, ask: Ask, connections: int, seconds: int) -> dict[str, Any]:
        varied = len(ask.targets) > 1
        script, targets = folder / "load.lua", folder / "targets"
        script.write_text(_REPORT + (_TARGETS if varied else ""), encoding="ascii")
        targets.write_text("\n".join(ask.targets), encoding="ascii")
        command = [
            self._path, "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={ANSWER_WITHIN_S:.0f}s", "-s", str(script),
            *itertools.chain.from_iterable(("-H", f"{name}: {value}") for name, value in ask.headers),
            f"http://127.0.0.1:{port}{ask.target}", *(("--", str(targets), str(ask.first)) if varied else ()),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60.0, check=False)
        for line in done.stdout.splitlines():
            if line.startswith(MARK):
                return dict(json.loads(line.removeprefix(MARK)))
        raise LoadError(f"wrk: {(done.stderr or done.stdout).strip()}")


def _errors(found: dict[str, Any]) -> dict[str, int]:
    return {name: found[name] for name in ("connect", "read", "write", "timeout", "status") if found[name]}


# --- our own client ---------------------------------------------------------------------------------------------------


class OwnClient:
    """Connections of this process, in a loop of their own."""

    def __init__(self) -> None:
        self.name = "own client"
        self.shortest_s = 0.0

    def round(self, port: int, ask: Ask, connections: int, seconds: float) -> Measured:
        """One round behind a tenth of it to warm up; longer where one answer takes longer."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_Load(ask).run(port, connections, seconds))


class _Connection(asyncio.Protocol):
    """One connection that asks again as soon as it has been answered."""

    def __init__(self, load: _Load) -> None:
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
            self._load.status(int(self._buffer[9:12]))
            self._missing = end + 4 + _content_length(self._buffer, end) - len(self._buffer)
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
    """Of a head in any case; 0 without one, as in a 304."""
    lower = bytes(head[: end + 2]).lower()
    at = lower.find(b"\r\ncontent-length: ")
    return 0 if at < 0 else int(lower[at + 18 : lower.find(b"\r\n", at + 2)])


class _Load:
    """A round: counts and times what its connections get."""

    def __init__(self, ask: Ask) -> None:
        headers = "".join(f"{name}: {value}\r\n" for name, value in ask.headers)
        order: Sequence[str] = (*ask.targets[ask.first :], *ask.targets[: ask.first])
        self._target = ask.target
        self._requests = itertools.cycle([f"GET {one} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode("ascii") for one in order])
        self._latencies: list[int] = []
        self._asked = self._lost = 0
        self._refused: set[int] = set()
        self._open = True

    def request(self) -> bytes:
        self._asked += 1
        return next(self._requests)

    def status(self, status: int) -> None:
        if status > 399:
            self._refused.add(status)

    def done(self, latency_ns: int) -> None:
        self._latencies.append(latency_ns)

    def closed(self) -> None:
        self._lost += self._open

    async def run(self, port: int, connections: int, seconds: float) -> Measured:
        """Drive the connections for `seconds`."""
        loop = asyncio.get_running_loop()
        clients = [(await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port))[1] for _ in range(connections)]
        await asyncio.sleep(seconds / 10)
        self._latencies.clear()
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        while not self._latencies and not self._lost and time.perf_counter() - began < ANSWER_WITHIN_S:
            await asyncio.sleep(seconds)  # a round shorter than one answer
        elapsed, taken = time.perf_counter() - began, np.array(self._latencies)
        self._open = False
        for client in clients:
            client.close()
        if self._lost or self._refused or not taken.size:
            lost = f"{self._lost} connections closed by the server"
            raise LoadError(f"{self._target}: {taken.size} answers, {lost}, statuses {sorted(self._refused)}")
        p50, p99 = np.percentile(taken, [50, 99]) / 1e6
        return Measured(self._asked, len(taken) / elapsed, float(p50), float(p99))
