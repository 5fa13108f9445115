"""Hooks of the gunicorn master: listening sockets, worker slots, board row of the master. No request ever comes here.

Each worker has a slot 0 .. workers-1, and each slot has a listening socket that belongs to the master. The kernel spreads
connections over the sockets (SO_REUSEPORT), a worker accepts on the socket of its slot only, and the socket outlives the worker:
connections that wait when a worker is killed or replaced are accepted by the next worker of the slot instead of being reset.

Rejected: one shared socket (uneven: the worker that wakes first takes most), sockets opened by the workers (a closed SO_REUSEPORT
socket resets its queue; seen as refused connections at every reload).
"""

from __future__ import annotations

import errno
import faulthandler
import ipaddress
import logging
import os
import signal
import socket
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from api.access import keys_path
from api.settings import read_settings, settings_path
from mpengine.config import ApiSettings, ConfigError, Settings
from mpengine.keys import KeyFileError
from mpengine.keys import read as read_keys
from shm import process_log, rate_table
from shm.board import BoardReader
from shm.board_words import Role
from shm.errors import Missing, ShmError
from shm.liveness import start_ticks
from shm.process_shell import Exit, ProcessShell, die_with_parent

MASTER: Final = "api-master"
BEAT_S: Final = 0.25
BIND_FOR_S: Final = 3.0
FIXED_SIZE_SIGNALS: Final = (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH)

log = logging.getLogger("api.pool")


class PoolLogger(Logger):  # type: ignore[misc]
    """Sends gunicorn's own lines through the process log instead of handlers of its own."""

    def setup(self, cfg: Any) -> None:
        """Called at start and at every reload."""
        self.cfg = cfg
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), logging.INFO)
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True
            logger.setLevel(self.loglevel)


@cache
def settings() -> Settings:
    """The master's settings, read once. Ends the process with code 3 where there are none."""
    try:
        return read_settings(settings_path())
    except ConfigError as error:
        process_log.configure(MASTER)
        for violation in error.violations:
            log.error("refused: %s", violation)
        process_log.shutdown()
        sys.exit(Exit.BOOT_FAILED)


def bind_address(host: str, port: int) -> str:
    """gunicorn's spelling of an address: `host:port`, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connections_per_worker(api: ApiSettings) -> int:
    """Share of `api.max_connections` that one worker takes, rounded up."""
    return -(-api.max_connections // api.workers)


def board_row(name: str, board: Path) -> int | None:
    """Row of a process on the board; None without a board (no supervisor) or without such a row."""
    try:
        with BoardReader.open(board) as reader:
            return reader.row_of(name)
    except Missing:
        return None


def worker_name(slot: int) -> str:
    """Name of the worker of a slot, in the log and on the board."""
    return f"api-{slot}"


def choose_slot(taken: Iterable[int], slots: int) -> int:
    """Slot for a new worker: the one with the fewest workers, the lowest of these.

    At a reload every slot is taken once, and the new workers take them again in order.
    """
    count = Counter(taken)
    return min(range(slots), key=lambda slot: (count[slot], slot))


def listeners(host: str, port: int, slots: int, backlog: int) -> list[socket.socket]:
    """One listening socket per slot, all on the same port (0: any free one). Raises OSError.

    A port that somebody else listens on is refused even where that other one allows sharing: two instances on one port would
    each get half of the requests.
    """
    family = socket.AF_INET6 if _is_ipv6(host) else socket.AF_INET
    if port:
        _refuse_taken(family, host, port)
    opened: list[socket.socket] = []
    try:
        for _ in range(slots):
            one = socket.create_server((host, port), family=family, backlog=backlog, reuse_port=True)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by accepted sockets
            one.setblocking(False)
            port = one.getsockname()[1]
            opened.append(one)
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _refuse_taken(family: int, host: str, port: int) -> None:
    # SO_REUSEADDR (which create_server sets) passes over sockets in TIME_WAIT, not over a listening one.
    socket.create_server((host, port), family=family).close()


def _listeners_within(seconds: float, api: ApiSettings, slots: int) -> list[socket.socket]:
    """`listeners`, waiting for workers of a master that has just been killed to let the port go."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return listeners(api.host, api.port, slots, api.backlog)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


class _Master:
    """What the hooks of this process share: the shell of the master."""

    shell: ProcessShell | None = None


def on_starting(server: Any) -> None:
    """Before gunicorn opens sockets: log, board row, the listening sockets. Ends with code 3 where one of them fails."""
    current = settings()
    process_log.configure(MASTER, current.log.level)
    # A fork copies the log without its thread, perhaps in the middle of a line; the child starts with a fresh one. That thread
    # is the only one of the master, so what Python 3.12 and later say about forks of threaded processes does not apply.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
    os.register_at_fork(after_in_child=lambda: process_log.configure("api-worker", current.log.level))
    try:
        board = current.paths.board
        row = board_row(MASTER, board)
        shell = ProcessShell(MASTER, Role.API_MASTER, board=board, row=row, log_level=current.log.level)
        shell.install_signals(_stop)  # until gunicorn installs its own; then only for "the supervisor is gone"
        _check_access(current)
        server.LISTENERS = _listeners_within(BIND_FOR_S, current.api, server.cfg.workers)
        # Not before the port is ours: then every worker of an earlier master has ended, and nobody uses an older table.
        rate_table.create(current.paths.rates, server.cfg.workers)
    except (ShmError, OSError, ConfigError, KeyFileError) as error:
        log.error("cannot start: %s: %s", type(error).__name__, error)
        process_log.shutdown()
        sys.exit(Exit.BOOT_FAILED)
    _Master.shell = shell


def _check_access(current: Settings) -> None:
    """A look at the keys, and at what a proxy is for. Raises KeyFileError."""
    api = current.api
    if api.keys:
        try:
            keys = read_keys(keys_path(current)).keys
        except FileNotFoundError:
            raise KeyFileError("api.keys is on and there is no key file: mpengine keys add") from None
        log.info("%d API keys", len(keys))
    elif api.rate_limits and api.behind_proxy and not api.trusted_proxies:
        log.warning("api.trusted_proxies is empty: all clients behind the proxy share one rate limit")


def when_ready(_server: Any) -> None:
    """After gunicorn has installed its signals: beat, stack dumps, and no signal that changes the number of workers."""
    shell = _Master.shell
    assert shell is not None
    for number in FIXED_SIZE_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The shell has registered already and gunicorn has taken the signal over since; a second register alone would do nothing.
    handler = signal.getsignal(signal.SIGUSR1)
    faulthandler.unregister(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, handler)
    faulthandler.register(signal.SIGUSR1, 2, all_threads=True, chain=True)
    signal.signal(signal.SIGALRM, _beat)
    signal.setitimer(signal.ITIMER_REAL, BEAT_S, BEAT_S)
    shell.live()
    if shell.stopping:  # asked for before gunicorn listened to signals
        _stop()


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _beat(_number: int, _frame: FrameType | None) -> None:
    # NOTE: a timer and not a hook of gunicorn's loop: during a reload or a stop that loop waits for workers for up to 10 s,
    # which must not look like a hang. A timer is not inherited by a fork, and its handler runs in the main thread only.
    if _Master.shell is not None:
        _Master.shell.beat()


def pre_fork(server: Any, worker: Any) -> None:
    """In the master: which slot the new worker takes, and which worker still holds that slot's board row."""
    others = list(server.WORKERS.values())
    worker.slot = choose_slot((other.slot for other in others), len(server.LISTENERS))
    worker.predecessors = [(other.pid, start_ticks(other.pid)) for other in others if other.slot == worker.slot]


def post_fork(server: Any, worker: Any) -> None:
    """In the new worker, first thing: nothing of the master stays open but the socket of the slot."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.unregister(signal.SIGUSR1)  # the worker registers anew, behind its own handlers
    process_log.configure(worker_name(worker.slot), settings().log.level)
    shell, _Master.shell = _Master.shell, None
    if shell is not None:
        shell.row.close()
    die_with_parent(server.pid)
    own = server.LISTENERS[worker.slot]
    for other in server.LISTENERS:
        if other is not own:
            other.close()
    worker.sockets = [own]


def on_exit(_server: Any) -> None:
    """The master leaves in order; its workers are gone."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    if _Master.shell is not None:
        _Master.shell.close()
    process_log.shutdown()
