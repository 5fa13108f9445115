"""The gunicorn worker: uvicorn's, with the settings it does not pass by itself, bounded connections and a board row.

Imported by the master, since gunicorn looks the class up there; the application is loaded by each worker for itself, after the
fork. What the master has imported stays as it is until a new master: a reload takes new settings, not new code.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

from api.pool import board_row, worker_name
from api.protocol import BoundedProtocol, Limits
from api.push.socket import PushSocket
from shm import process_log
from shm.board import BoardRow
from shm.board_words import Role, State, Word
from shm.errors import ShmError
from shm.liveness import start_ticks
from shm.process_shell import NullRow, Row, open_descriptors, rss_bytes

log = logging.getLogger("api.worker")

GRACEFUL_S: Final = 5


class Worker(UvicornWorker):  # type: ignore[misc]
    """One worker process. `slot` and `predecessors` are set by `api.pool.pre_fork`."""

    CONFIG_KWARGS = {  # noqa: RUF012  the name and the form are uvicorn-worker's
        "loop": "uvloop",
        "http": "httptools",
        "ws": "websockets-sansio",
        "ws_per_message_deflate": False,
        "ws_max_size": 4096,
        "ws_ping_interval": 20.0,
        "ws_ping_timeout": 40.0,
        "timeout_graceful_shutdown": GRACEFUL_S,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "lifespan": "on",
    }

    slot: int
    predecessors: list[tuple[int, int | None]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
            server_log = logging.getLogger(name)
            server_log.handlers = []
            server_log.propagate = True
            server_log.setLevel(logging.WARNING)  # its INFO lines tell each step of a start

    def init_signals(self) -> None:
        super().init_signals()
        faulthandler.register(signal.SIGUSR1, 2, all_threads=True, chain=False)

    def run(self) -> None:
        service = self.wsgi
        service.on_turn, service.on_stop = self._turn, self._stopped
        service.on_swollen = lambda: os.kill(os.getpid(), signal.SIGTERM)  # drains; the master starts another one
        self._presence = Presence(service.settings.paths.board, self.slot, self.predecessors)
        connections = self.cfg.worker_connections
        limits = Limits(connections=connections, request_timeout_s=service.settings.api.request_timeout_s)
        self.config.http = partial(BoundedProtocol, limits=limits, application=service)
        self.config.ws = partial(PushSocket, application=service)
        # One more than our own bound, which answers first and in the form of the contract.
        self.config.limit_concurrency = connections + 1
        super().run()

    def _turn(self, totals: Mapping[Word, int], levels: Mapping[Word, int]) -> None:
        if os.getppid() != self.ppid:
            os._exit(1)  # the kernel has sent SIGKILL already, unless it could not be asked to
        self._presence.turn(totals, levels)

    def _stopped(self) -> None:
        self._presence.close()
        process_log.shutdown()


class Presence:
    """The worker on the board: row `api-<slot>`, beaten once a second from the loop.

    A row has one writer. At a reload the worker before may still be draining, and then it is the one who beats; this worker
    takes the row when that process has ended. Until then, and without a board, nothing is lost: totals are kept and added later.
    `predecessors`: (pid, start ticks) of workers that may hold the row.
    """

    def __init__(self, board: Path, slot: int, predecessors: Sequence[tuple[int, int | None]]) -> None:
        self._board = board
        self._slot = slot
        self._predecessors = predecessors
        self._row: Row | None = None
        self._added: dict[Word, int] = {}

    def turn(self, totals: Mapping[Word, int], levels: Mapping[Word, int]) -> None:
        """Beat; claims the row when it is free. `totals`: counts since this process began; `levels`: values that may fall."""
        row = self._row = self._row or self._claim()
        if row is None:
            return
        row.beat(time.monotonic_ns())
        row.add(Word.TURNS)
        for word, total in totals.items():
            row.add(word, total - self._added.get(word, 0))
            self._added[word] = total
        measured = {Word.RSS_BYTES: rss_bytes(), Word.OPEN_FDS: open_descriptors()}
        for word, level in {**levels, **measured}.items():
            row.set(word, level)

    def close(self) -> None:
        """The process ends in order."""
        row, self._row = self._row, NullRow()
        if row is not None:
            row.set(Word.STATE, State.STOPPED)
            row.close()

    def _claim(self) -> Row | None:
        if any(ticks is not None and start_ticks(pid) == ticks for pid, ticks in self._predecessors):
            return None
        row = self._attach()
        row.start(Role.API_WORKER, self._slot, row.get(Word.EPOCH) + 1)
        row.set(Word.STATE, State.LIVE)
        return row

    def _attach(self) -> Row:
        name = worker_name(self._slot)
        try:
            number = board_row(name, self._board)
            if number is not None:
                return BoardRow.attach(self._board, number)
            log.info("no row %s on the board", name)
        except ShmError as error:
            log.warning("cannot take row %s: %s", name, error)
        return NullRow()
