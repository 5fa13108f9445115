"""The admin listener: `/metrics` and `/livez` for this machine only, on a Unix socket or a loopback port.

One worker at a time serves it, whichever holds the lock; the others ask for the lock once a second. The kernel gives it up when its
holder ends, however it ends, so another worker listens about a second later, after kill -9 too.

Why a worker: it has every file mapped already, and what it tells is the same in all of them. Rejected: the master (its duty is
signals and forks, it serves no request and maps no ring), a process of its own (another child to supervise and 40 MB for an answer
every 15 s), a socket per worker (which one would a scraper ask?). What a scrape costs the loop is spread, see `Scrape.text`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Any, Final

import falcon.asgi
from uvicorn.config import Config
from uvicorn.server import ServerState

from api.bodies import Headers
from api.hooks import Around, install_errors, request_ids
from api.media import JsonHandler
from api.metrics import Meter
from api.metrics_scrape import Scrape
from api.protocol import BoundedProtocol, Limits
from api.resources.health import LiveResource
from api.resources.metrics import MetricsResource
from mpengine.config import Settings, admin_address

LIMITS: Final = Limits(connections=16, request_timeout_s=10.0)
BACKLOG: Final = 16
SOCKET_MODE: Final = 0o600
TOLD_AGAIN_AFTER: Final = 60

log = logging.getLogger("api.admin")


class AdminApp:
    """The ASGI callable behind the listener, and what `BoundedProtocol` asks of an application besides.

    Requests here are none of the API: they are counted nowhere.
    """

    def __init__(self, scrape: Scrape) -> None:
        self._falcon = app = falcon.asgi.App(middleware=[Around(Meter(()), request_ids())])
        app.resp_options.media_handlers[falcon.MEDIA_JSON] = JsonHandler()
        install_errors(app)
        app.add_route("/metrics", MetricsResource(scrape))
        app.add_route("/livez", LiveResource())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._falcon(scope, receive, send)

    def wire_answer(self, target: bytes, headers: Headers, **_more: Any) -> list[bytes] | None:
        """Nothing is kept."""
        return None

    def refused(self, status: int, headers: Headers) -> Headers:
        """Too large or too many; nothing to add to that answer."""
        log.info("(refused by the admin connection) %s", status)
        return []

    def drain(self) -> None:
        """Nothing to do."""


class AdminListener:
    """Call `turn` once a second and `close` at the end. Errors are logged and tried again; they never end a worker."""

    def __init__(self, settings: Settings, scrape: Scrape) -> None:
        self._address = admin_address(settings.api.admin_bind) or settings.paths.admin_socket
        self._lock_path = settings.paths.admin_lock
        self._app = AdminApp(scrape)
        self._state = ServerState()
        self._lock: int | None = None
        self._server: asyncio.Server | None = None
        self._inode: tuple[int, int] | None = None
        self._failures = 0

    @property
    def serving(self) -> bool:
        """Whether this worker is the one that listens."""
        return self._server is not None

    async def turn(self) -> None:
        """Listen if nobody else does; listen anew where somebody removed our socket."""
        if self._server is not None and self._in_place():
            return
        self._hang_up()
        try:
            if self._lock is None:
                self._lock = _try_lock(self._lock_path)
            if self._lock is not None:
                await self._listen()
                self._failures = 0
        except OSError as error:
            # At first and then once a minute: it is tried every second, and the API does not depend on it.
            if self._failures % TOLD_AGAIN_AFTER == 0:
                log.error("admin listener: cannot listen: %s", error.strerror or error)
            self._failures += 1

    def close(self) -> None:
        """Stop listening, remove the socket, let another worker take over."""
        self._hang_up()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _listen(self) -> None:
        config = Config(
            self._app, http=BoundedProtocol, ws="none", log_config=None, access_log=False, proxy_headers=False, lifespan="off"
        )
        config.load()
        loop = asyncio.get_running_loop()

        def connection() -> BoundedProtocol:
            return BoundedProtocol(config=config, server_state=self._state, app_state={}, limits=LIMITS, application=self._app)

        if isinstance(self._address, Path):
            self._server = await loop.create_unix_server(connection, sock=bind_unix(self._address))
            self._inode = _inode(self._address)
        else:
            family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
            listening = socket.create_server(self._address, family=family, backlog=BACKLOG)
            self._server = await loop.create_server(connection, sock=listening)
        log.info("admin listener: this worker serves it")

    def _in_place(self) -> bool:
        return self._inode is None or not isinstance(self._address, Path) or _inode(self._address) == self._inode

    def _hang_up(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if isinstance(self._address, Path) and self._inode is not None and _inode(self._address) == self._inode:
            self._address.unlink()
        self._inode = None


def bind_unix(path: Path) -> socket.socket:
    """A listening socket under `path`, for its owner only, in place of one that nobody listens on any more.

    Raises OSError: EADDRINUSE where somebody listens there, EEXIST where the path is something else than a socket.
    """
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # By way of the directory's descriptor: an address of a socket holds 107 bytes, and folders may lie deeper than that.
        near = f"/proc/self/fd/{directory}/{path.name}"
        _remove_stale(path, near)
        return _listening_at(near)
    finally:
        os.close(directory)


def _listening_at(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before the bind, which takes the mode over: there is no moment at which others could connect.
        os.fchmod(listening.fileno(), SOCKET_MODE)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: Path, near: str) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "the path is no socket and is left alone", str(path))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(near)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
    raise OSError(errno.EADDRINUSE, "another process listens there", str(path))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _try_lock(path: Path) -> int | None:
    """Descriptor that holds the lock until it is closed; None while another worker has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, SOCKET_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
