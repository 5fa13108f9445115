"""The real tree on the simulator, under faults: what all chaos tests share.

One tree serves all tests of a session, since every fault must leave it as it was; `settled` is that check.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mpengine.config import SupervisorSettings
from shm.board_words import State, Word
from tests.supervisor.rig import Tree, gone, until

SYMBOLS = ("BTC", "ETH")
ENGINES = tuple(f"engine-{symbol}" for symbol in SYMBOLS)
WORKERS = ("api-0", "api-1")
CHILDREN = ("simulator", *ENGINES, "ingest", "api-master")

# The promises in production numbers; only the budget is wide, since one tree takes all faults.
_DEFAULTS = SupervisorSettings()
REAL = {
    "simulator.enabled": "true", "simulator.port": "0", "api.workers": "2", "engine.ring_units": "131072",
    "api.push_connections_per_client": "1000",
    "engine.checkpoint_interval_s": "1.0", "symbols": '{BTC = {}, ETH = {}}', "supervisor.restart_budget": "100",
    "supervisor.backoff_first_s": str(_DEFAULTS.backoff_first_s), "supervisor.hang_after_s": str(_DEFAULTS.hang_after_s),
    "supervisor.stack_dump_s": str(_DEFAULTS.stack_dump_s), "supervisor.start_timeout_s": str(_DEFAULTS.start_timeout_s),
    "supervisor.stop_timeout_s": str(_DEFAULTS.stop_timeout_s),
}  # fmt: skip
COMMAND = ("-m", "supervisor")


def get(one: Tree, path: str, timeout_s: float = 10.0) -> tuple[int, Any]:
    """(status, JSON body) of one request on a connection of its own."""
    address = urlsplit(one.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def healthy(one: Tree) -> bool:
    """Every book is synced, as clients see it. Not "nothing is stale": a new tree has its first frame after up to 30 s."""
    try:
        _, body = get(one, "/health")
    except OSError:
        return False
    return all(symbol["book"] == "synced" for symbol in body["symbols"].values())


def lives(one: Tree, *but: str) -> dict[str, int]:
    """How often each child and each API worker has begun, except `but`."""
    begun = {name: one.word(name, Word.GENERATION) for name in CHILDREN if name not in but}
    return begun | {name: one.word(name, Word.EPOCH) for name in WORKERS if name not in but}


def settled(one: Tree) -> None:
    """Everything runs and follows the market; what a fault test begins and ends with."""
    for name in CHILDREN:
        until(f"{name} LIVE", lambda name=name: one.state(name) is State.LIVE and not gone(one.child(name)))
    for name in WORKERS:
        until(f"{name} up", lambda name=name: one.word(name, Word.STATE) == State.LIVE and not gone(one.child(name)))
    until("every book is synced", lambda: healthy(one))


def progress(one: Tree, names: Iterable[str]) -> dict[str, int]:
    """Progress word of each."""
    return {name: one.word(name, Word.PROGRESS) for name in names}


def await_progress(one: Tree, names: Iterable[str], steps: int = 3) -> None:
    """Until each of them has moved on `steps` times: it works, and not only once."""
    for name in names:
        for _ in range(steps):
            before = one.word(name, Word.PROGRESS)
            until(f"progress of {name}", lambda name=name, before=before: one.word(name, Word.PROGRESS) != before)


@contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """SIGSTOP inside the block; those that still live then go on."""
    frozen = list(pids)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@dataclass(slots=True)
class Answers:
    """What one client got."""

    ok: int = 0
    errors_5xx: int = 0
    dropped: int = 0


class Load:
    """Clients with keep-alive connections that ask all the time and connect again when they are cut off."""

    def __init__(self, one: Tree, clients: int = 4, path: str = "/time") -> None:
        self._address = urlsplit(one.url)
        self._path = path
        self._stop = threading.Event()
        self.answers = [Answers() for _ in range(clients)]
        self._threads = [threading.Thread(target=self._client, args=(answers,)) for answers in self.answers]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        until("every client was answered", lambda: all(answers.ok for answers in self.answers))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def total(self, name: str) -> int:
        """Sum over the clients."""
        return sum(getattr(answers, name) for answers in self.answers)

    def await_more(self, answers: int = 50) -> None:
        """Until each client got that many more answers."""
        wanted = [one.ok + answers for one in self.answers]
        until("clients are answered", lambda: all(one.ok >= more for one, more in zip(self.answers, wanted)))

    def _client(self, answers: Answers) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection(str(self._address.hostname), self._address.port, timeout=10)
            try:
                while not self._stop.is_set():
                    connection.request("GET", self._path)
                    response = connection.getresponse()
                    response.read()
                    if response.status >= 500:
                        answers.errors_5xx += 1
                    else:
                        answers.ok += 1
                    self._stop.wait(0.005)
            except (OSError, http.client.HTTPException):
                answers.dropped += 1
                self._stop.wait(0.02)
            finally:
                connection.close()


def frozen_for(seconds: float) -> None:
    """A pause whose length is what is tested: how long a process stands still."""
    end = time.monotonic() + seconds
    until(f"{seconds} s have gone by", lambda: time.monotonic() >= end)
