"""A real gunicorn: the same bytes over sockets, limits, killed workers, reloads under load, no orphans."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mpengine.config import Settings, encode
from shm.board import Board, RowName
from shm.board_words import Role, State, Word
from tests.api.test_app import ALIASES
from tests.api.world import SLOT_MS, World, candle, depth_frame

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 20.0
ROWS = [
    RowName("supervisor", Role.SUPERVISOR, 0),
    RowName("api-master", Role.API_MASTER, 0),
    RowName("api-0", Role.API_WORKER, 0),
    RowName("api-1", Role.API_WORKER, 1),
]


def until(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of the condition; fails after a while."""
    deadline = time.monotonic() + WITHIN_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass
class Pool:
    """One gunicorn with its board."""

    settings: Settings
    board: Board
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.settings.api.port

    def word(self, row: int, word: Word) -> int:
        return self.board.supervisor_view(row).get(word)

    def workers(self) -> list[int]:
        """Pids of the worker rows while both live, else nothing."""
        rows = [row for row in (2, 3) if self.word(row, Word.STATE) == State.LIVE and alive(self.word(row, Word.PID))]
        return [self.word(row, Word.PID) for row in rows] if len(rows) == 2 else []

    def roll(self) -> None:
        """Replace both workers by SIGHUP."""
        before = set(self.workers())
        self.process.send_signal(signal.SIGHUP)
        until(lambda: (now := self.workers()) and not before & set(now), "two other workers")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)

    def ask(self, target: str, method: str = "GET", headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        connection = self.connect()
        try:
            connection.request(method, target, headers=headers or {})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        """What comes back until the server closes."""
        got = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WITHIN_S) as connection, suppress(ConnectionError):
            connection.sendall(data)
            while piece := connection.recv(65_536):
                got += piece
        return got


def start(settings: Settings) -> subprocess.Popen[str]:
    settings.paths.settings.write_bytes(encode(settings))
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", "api.app:get_app()"],
        env={**os.environ, "MPENGINE_SETTINGS": str(settings.paths.settings)},
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(WITHIN_S)
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def pool(world: World) -> Iterator[Pool]:
    world.clock.now_ms = time.time_ns() // 1_000_000 // SLOT_MS * SLOT_MS
    world.add_history(20)
    world.add_book()
    world.add_status()
    world.add_feeds()
    world.add_candle(candle(world.clock.now_ms - 60_000))
    api = msgspec.structs.replace(world.settings.api, port=free_port(), workers=2)
    settings = msgspec.structs.replace(world.settings, api=api)
    with Board.create(settings.paths.board, ROWS, {}) as board:
        board.row(0).start(Role.SUPERVISOR, 0, 1)
        process = start(settings)
        made = Pool(settings, board, process)
        reader = threading.Thread(target=lambda: made.lines.extend(process.stderr or ()))
        reader.start()
        try:
            until(made.workers, "both workers")
            yield made
        finally:
            process.terminate()
            try:
                process.wait(WITHIN_S)
            finally:
                process.kill()
                process.wait()
                reader.join()
                assert process.stderr is not None
                process.stderr.close()


def steady(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, dict[str, str], Any]:
    """An answer without what moves between two requests of real time."""
    status, headers, body = answer
    kept = {name: value for name, value in headers.items() if name not in ("date", "x-request-id", "x-age-ms", "content-length")}
    kept.pop("x-server-send-ts-ms", None)
    if headers["content-type"] == "application/json":
        value = json.loads(body)
        for key in ("server_recv_ts_ms", "server_send_ts_ms", "age_s", "current_time", "current_time_ms", "last_frame_age_s",
                    "reconstructor", "books", "now_ms", "uptime_s", "ages", "processes", "errors", "symbols",
                    "exchanges"):  # fmt: skip
            value.pop(key, None)
        return status, kept, value
    return status, kept, body


def test_the_contract_over_sockets(pool: Pool) -> None:
    for path, alias in ALIASES.items():
        assert steady(pool.ask(path)) == steady(pool.ask(alias)), path
    for path in ("/orderbook_heatmap", "/orderbook_heatmap_history?format=bin", "/candles"):
        for _ in range(6):  # both workers, built and kept
            status, headers, body = pool.ask(path)
            assert (status, headers["content-length"]) == (200, str(len(body)))
            short = pool.ask(path, headers={"If-None-Match": headers["etag"]})
            assert (short[0], short[2], short[1]["etag"]) == (304, b"", headers["etag"])
            head = pool.ask(path, "HEAD")
            assert (head[0], head[2], head[1].keys()) == (200, b"", headers.keys())
    assert pool.ask("/orderbook_heatmap", "POST")[0] == 405 and pool.ask("/candles", "PUT")[1]["allow"] == "GET, HEAD, OPTIONS"
    assert pool.ask("/orderbook_heatmap", "OPTIONS")[0] == 204
    assert pool.ask("/nope")[0] == 404 and pool.ask("/orderbook_heatmap?symbol=DOGE")[0] == 400
    assert pool.ask("/readyz")[0] == 503  # ETH and SOL have no ring here: nobody writes them
    assert pool.ask("/livez")[2] == b'{"live":true}'
    # Limits of section 9.3.
    host = b"Host: t\r\n"
    assert pool.raw(b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n" + host + b"\r\n").startswith(b"HTTP/1.1 414")
    fields = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
    assert pool.raw(b"GET /livez HTTP/1.1\r\n" + host + fields + b"\r\n").startswith(b"HTTP/1.1 431")
    large = b"GET /livez HTTP/1.1\r\n" + host + b"Content-Length: 10000000\r\n\r\n"
    assert pool.raw(large + b"b" * 500_000).startswith(b"HTTP/1.1 413")
    small = b"GET /livez HTTP/1.1\r\n" + host + b"Connection: close\r\nContent-Length: 16384\r\n\r\n" + b"b" * 16_384
    assert pool.raw(small).endswith(b'{"live":true}')


def test_workers_and_master_are_on_the_board(pool: Pool) -> None:
    assert pool.word(1, Word.PID) == pool.process.pid and pool.word(1, Word.STATE) == State.LIVE
    assert pool.word(1, Word.ROLE) == Role.API_MASTER * 1000
    assert {pool.word(row, Word.ROLE) for row in (2, 3)} == {Role.API_WORKER * 1000, Role.API_WORKER * 1000 + 1}
    before = [(pool.word(row, Word.TURNS), pool.word(row, Word.BEAT_NS)) for row in (1, 2, 3)]
    for _ in range(20):
        pool.ask("/orderbook_heatmap")
        pool.ask("/nope")

    def told() -> bool:
        sums = {
            word: sum(pool.word(row, word) for row in (2, 3)) for word in (Word.HTTP_REQUESTS, Word.HTTP_4XX, Word.CACHE_MISSES)
        }
        moved = all((pool.word(row, Word.TURNS), pool.word(row, Word.BEAT_NS)) > old for row, old in zip((1, 2, 3), before))
        return moved and sums[Word.HTTP_REQUESTS] == 40 and sums[Word.HTTP_4XX] == 20 and 1 <= sums[Word.CACHE_MISSES] <= 2

    until(told, "counters on the board")


@pytest.mark.covers("F3")
def test_nothing_of_the_rings_or_the_other_slots_is_inherited(pool: Pool) -> None:
    pool.ask("/orderbook_heatmap")
    for pid in [pool.process.pid, *pool.workers()]:
        maps = (Path("/proc") / str(pid) / "maps").read_text()
        assert ("depth.ring" in maps) is (pid != pool.process.pid)
        sockets = [str(entry.readlink()) for entry in (Path("/proc") / str(pid) / "fd").iterdir() if entry.is_symlink()]
        listening = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
                     if line.split()[1].endswith(f":{pool.port:04X}") and line.split()[3] == "0A"}  # fmt: skip
        own = {one for one in sockets if one.removeprefix("socket:[").removesuffix("]") in listening}
        assert len(own) == (2 if pid == pool.process.pid else 1)


class Client(threading.Thread):
    """Asks again and again. `keep`: on one connection as long as the server keeps it, else on a new one each time."""

    def __init__(self, pool: Pool, keep: bool, ended: threading.Event) -> None:
        super().__init__()
        self._pool = pool
        self._keep = keep
        self._ended = ended
        self.answers = 0
        self.refused = 0
        self.lost: list[str] = []

    def run(self) -> None:
        connection = self._pool.connect()
        while not self._ended.is_set():
            try:
                connection.request("GET", "/orderbook_heatmap?range_pct=0.01")
                response = connection.getresponse()
                body = response.read()
            except ConnectionRefusedError:
                self.refused += 1
                connection.close()
                continue
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                connection.close()
                continue
            if response.status != 200 or not body.endswith(b"}"):
                self.lost.append(f"{response.status} {body[-20:]!r}")
            self.answers += 1
            if not self._keep or response.will_close:
                connection.close()
        connection.close()


class Load:
    """Six clients, half of them on kept connections."""

    def __init__(self, pool: Pool) -> None:
        self._ended = threading.Event()
        self.clients = [Client(pool, keep, self._ended) for keep in (True, False) * 3]

    def __enter__(self) -> Load:
        for client in self.clients:
            client.start()
        until(lambda: all(client.answers > 5 for client in self.clients), "every client has been answered")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for client in self.clients:
            client.join()

    def answered_again(self) -> None:
        """Wait until every client has been answered a few times more."""
        before = [client.answers for client in self.clients]
        until(lambda: all(client.answers > old + 5 for client, old in zip(self.clients, before)), "more answers")

    @property
    def lost(self) -> list[str]:
        return [error for client in self.clients for error in client.lost]

    @property
    def refused(self) -> int:
        return sum(client.refused for client in self.clients)


def test_a_reload_under_load_loses_no_request(pool: Pool) -> None:
    with Load(pool) as load:
        for _ in range(2):
            pool.roll()
            load.answered_again()
    assert (load.lost, load.refused) == ([], 0)
    assert [pool.word(row, Word.EPOCH) for row in (2, 3)] == [3, 3]


@pytest.mark.covers("F3")
def test_a_killed_worker_takes_only_its_own_requests_along(pool: Pool) -> None:
    victim, other = pool.workers()
    with Load(pool) as load:
        os.kill(victim, signal.SIGKILL)
        until(lambda: (now := pool.workers()) and victim not in now, "another worker in the slot")
        load.answered_again()
    assert len(load.lost) <= len(load.clients) and load.refused == 0
    assert other in pool.workers() and alive(other)
    assert sorted(pool.word(row, Word.EPOCH) for row in (2, 3)) == [1, 2]


@pytest.mark.covers("F3", "P8")
def test_workers_end_with_their_master(pool: Pool) -> None:
    workers = pool.workers()
    os.kill(pool.process.pid, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in workers), "the end of the workers")
    with pytest.raises(ConnectionRefusedError):
        pool.ask("/livez")
    again = start(pool.settings)
    try:
        until(lambda: pool.workers() and pool.ask("/livez")[0] == 200, "a new pool on the same port")
        assert [pool.word(row, Word.EPOCH) for row in (1, 2, 3)] == [2, 2, 2]
    finally:
        assert stop(again) == 0


def test_an_ordered_stop(pool: Pool) -> None:
    workers = pool.workers()
    pool.process.send_signal(signal.SIGTERM)
    assert pool.process.wait(WITHIN_S) == 0
    assert not any(alive(pid) for pid in workers)
    assert [pool.word(row, Word.STATE) for row in (1, 2, 3)] == [State.STOPPED] * 3


def test_stack_dumps_of_all_processes(pool: Pool) -> None:
    pool.process.send_signal(signal.SIGUSR1)
    until(lambda: sum("most recent call first" in line for line in pool.lines) >= 3, "three stack dumps")
    assert pool.ask("/livez")[0] == 200 and len(pool.workers()) == 2


def test_signals_that_would_change_the_number_of_workers_do_nothing(pool: Pool) -> None:
    before = pool.workers()
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH):
        pool.process.send_signal(number)
    beat = pool.word(1, Word.BEAT_NS)
    until(lambda: pool.word(1, Word.BEAT_NS) > beat + 3_000_000_000, "three seconds of the master's beat")
    assert pool.workers() == before


def test_a_reload_reads_the_settings_again(pool: Pool) -> None:
    symbols = {name: one for name, one in pool.settings.symbols.items() if name != "SOL"}
    pool.settings.paths.settings.write_bytes(encode(msgspec.structs.replace(pool.settings, symbols=symbols)))
    assert pool.ask("/orderbook_heatmap?symbol=SOL")[0] == 404
    pool.roll()
    assert pool.ask("/orderbook_heatmap?symbol=SOL")[0] == 400


def test_a_frame_reaches_every_worker_at_once(pool: Pool, world: World) -> None:
    for _ in range(10):
        pool.ask("/orderbook_heatmap")
    world.add_depth(depth_frame(world.clock.now_ms, seed=77))
    assert {pool.ask("/orderbook_heatmap")[1]["x-seq"] for _ in range(10)} == {"20"}


def failed_start(settings: Settings) -> tuple[int, str]:
    process = start(settings)
    try:
        _, text = process.communicate(timeout=WITHIN_S)
    finally:
        process.kill()
        process.wait()
    return process.returncode, text


def test_a_taken_port_is_a_boot_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        api = msgspec.structs.replace(world.settings.api, port=other.getsockname()[1])
        code, text = failed_start(msgspec.structs.replace(world.settings, api=api))
    assert code == 3 and "cannot start: OSError" in text


def test_settings_that_cannot_be_read_are_a_boot_failure(world: World) -> None:
    world.settings.paths.settings.write_bytes(b"{}")
    environment = {**os.environ, "MPENGINE_SETTINGS": str(world.settings.paths.settings)}
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", "api.app:get_app()"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 3 and "refused" in done.stderr
    environment.pop("MPENGINE_SETTINGS")
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert done.returncode == 3 and "MPENGINE_SETTINGS: is not set" in done.stderr
