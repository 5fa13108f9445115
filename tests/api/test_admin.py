"""The admin listener: one at a time, its socket for its owner only, stale ones replaced, nobody else's touched."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.admin import LIMITS, AdminListener, bind_unix
from api.metrics_scrape import Scrape
from tests.api.test_serving import free_port
from tests.api.world import World, get

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 10.0


def listener(world: World, bind: str = "") -> AdminListener:
    settings = world.settings
    app = world.app()
    api = msgspec.structs.replace(settings.api, admin_bind=bind)
    return AdminListener(msgspec.structs.replace(settings, api=api), Scrape(app.context, app._health))


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WITHIN_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WITHIN_S)
        self.sock.connect(str(self._path))


def ask(
    connection: http.client.HTTPConnection, target: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    try:
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


async def asked(make: Callable[[], http.client.HTTPConnection], *what: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return await asyncio.to_thread(lambda: ask(make(), *what, **headers))


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def test_the_socket_of_the_runtime_directory(world: World) -> None:
    async def test() -> None:
        one, path = listener(world), world.settings.paths.admin_socket
        await one.turn()
        assert one.serving and stat.S_IMODE(path.stat().st_mode) == 0o600
        status, headers, body = await asked(lambda: Unix(path))
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b"mpengine_build_info{" in body and headers["cache-control"] == "no-store"
        head = await asked(lambda: Unix(path), "/metrics", "HEAD")
        assert (head[0], head[2]) == (200, b"")
        assert (await asked(lambda: Unix(path), "/livez"))[2] == b'{"live":true}'
        for target, method, code in (("/health", "GET", 404), ("/orderbook_heatmap", "GET", 404), ("/metrics", "POST", 405)):
            status, _, body = await asked(lambda: Unix(path), target, method)
            assert status == code and set(json.loads(body)) == {"error", "detail"}
        one.close()
        assert not one.serving and not path.exists()

    run(test)


@pytest.mark.covers("F22")
def test_who_asks_and_does_not_read_holds_up_nobody(world: World) -> None:
    async def test() -> None:
        one, path = listener(world), world.settings.paths.admin_socket
        await one.turn()
        idle = [socket.socket(socket.AF_UNIX) for _ in range(LIMITS.connections - 1)]
        for number, client in enumerate(idle):
            client.connect(str(path))
            if number % 2:
                client.setblocking(False)
                client.send(b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n" * 20)  # and never reads
        for _ in range(3):
            assert (await asked(lambda: Unix(path)))[0] == 200
        for client in idle:
            client.close()
        one.close()

    run(test)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_loopback_port(world: World, host: str) -> None:
    async def test() -> None:
        port = free_port()
        one = listener(world, f"{host}:{port}")
        await one.turn()
        status, _, body = await asked(lambda: http.client.HTTPConnection(host.strip("[]"), port, timeout=WITHIN_S))
        assert status == 200 and b"mpengine_uptime_seconds" in body
        one.close()
        with pytest.raises(ConnectionRefusedError):
            await asked(lambda: http.client.HTTPConnection(host.strip("[]"), port, timeout=WITHIN_S))

    run(test)


def test_open_metrics_where_it_is_asked_for(world: World) -> None:
    async def test() -> None:
        one, path = listener(world), world.settings.paths.admin_socket
        await one.turn()
        accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5"
        _, headers, body = await asked(lambda: Unix(path), Accept=accept)
        assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0") and body.endswith(b"# EOF\n")
        assert body.count(b"# EOF") == 1
        one.close()

    run(test)


def test_one_at_a_time_and_the_next_one_takes_over(world: World) -> None:
    async def test() -> None:
        first, second, path = listener(world), listener(world), world.settings.paths.admin_socket
        await first.turn()
        await second.turn()
        await first.turn()
        assert (first.serving, second.serving) == (True, False)
        first.close()
        await second.turn()
        assert second.serving and (await asked(lambda: Unix(path)))[0] == 200
        second.close()

    run(test)


def test_a_socket_that_a_killed_worker_left_is_replaced(world: World) -> None:
    path = world.settings.paths.admin_socket
    code = "import sys, os; from pathlib import Path; from api.admin import bind_unix; bind_unix(Path(sys.argv[1])); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False, timeout=60).returncode == 9
    assert stat.S_ISSOCK(path.stat().st_mode)

    async def test() -> None:
        one = listener(world)
        await one.turn()
        assert one.serving and (await asked(lambda: Unix(path)))[0] == 200
        one.close()

    run(test)


@pytest.mark.covers("E-M12")
def test_what_is_not_a_stale_socket_is_left_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    path = world.settings.paths.admin_socket

    async def test() -> None:
        one = listener(world)
        path.write_text("precious", "utf-8")
        with caplog.at_level(logging.ERROR):
            for _ in range(3):
                await one.turn()
        assert not one.serving and path.read_text("utf-8") == "precious"
        assert caplog.text.count("cannot listen: the path is no socket") == 1, "said once a minute, tried every second"
        path.unlink()
        with bind_unix(path):
            await one.turn()
            assert not one.serving and path.exists(), "somebody listens there"
        await one.turn()
        assert one.serving
        one.close()

    run(test)


def test_a_socket_that_somebody_removed_comes_back(world: World) -> None:
    async def test() -> None:
        one, path = listener(world), world.settings.paths.admin_socket
        await one.turn()
        path.unlink()
        await one.turn()
        assert one.serving and (await asked(lambda: Unix(path)))[0] == 200
        path.unlink()
        with bind_unix(path) as other:
            inode = path.stat().st_ino
            one.close()
            assert path.stat().st_ino == inode, "the socket of another process stays"
            other.close()
        path.unlink()

    run(test)


def test_a_taken_port_is_tried_again(world: World) -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            one = listener(world, f"127.0.0.1:{other.getsockname()[1]}")
            await one.turn()
            assert not one.serving
        await one.turn()
        assert one.serving
        one.close()

    run(test)


def test_a_folder_deeper_than_an_address_is_long(tmpfs: Path) -> None:
    path = tmpfs / ("deep" * 30) / "admin.sock"
    path.parent.mkdir()
    for _ in range(2):  # the second one finds the first one's file
        with bind_unix(path) as listening, socket.socket(socket.AF_UNIX) as client:
            directory = os.open(path.parent, os.O_RDONLY)
            client.connect(f"/proc/self/fd/{directory}/admin.sock")
            os.close(directory)
            assert listening.accept()[0].close() is None


def test_a_path_that_cannot_be_bound_ends_nothing(world: World) -> None:
    async def test() -> None:
        one = listener(world, f"unix:{world.settings.paths.runtime}/none/admin.sock")
        await one.turn()
        assert not one.serving
        one.close()

    run(test)


def test_the_public_port_has_no_metrics_unless_the_settings_say_so(world: World) -> None:
    assert get(world.app(), "/metrics").error == (404, "not_found")
    api = msgspec.structs.replace(world.settings.api, public_metrics=True)
    open_world = replace(world, settings=msgspec.structs.replace(world.settings, api=api), _open={}, _apps=[])
    try:
        app = open_world.app()
        found = get(app, "/metrics")
        assert found.status == 200 and found.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert found.headers["cache-control"] == "no-store" and b"mpengine_build_info" in found.body
        assert get(app, "/metrics", method="HEAD").body == b""
    finally:
        open_world.close()
