"""The processes that `bench.api` compares, all on loopback ports of their own, all over the same data::

api      gunicorn, one worker: the service as it is shipped, rate limits off
cold     the same, keeping no answer: every request builds its body
limits   the same, counting what clients spend;  keys: and asking for a key
bare     the same worker, an ASGI callable that does nothing but send
nginx    one process, static files                       (where nginx is on the PATH)
fastapi  uvicorn with uvloop and httptools               (where an interpreter has it)
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import fastapi_peer
from mpengine.config import Settings, encode, load, resolve_directories

UP_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 20.0
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")

OFF: Final = "rate_limits = false"
LIMITS: Final = "rate_limits = true\nrate_per_s = 1000000.0\nrate_burst = 1000000"  # counted and never reached
KEYS: Final = f"keys = true\n{LIMITS}"
COLD: Final = f"{OFF}\ncache_body_bytes = 1024"  # every answer is larger than this with its overhead

API: Final = "api.app:get_app()"
BARE: Final = "bench.bare_asgi:get_app()"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers. `pid`: of its first process."""

    port: int
    pid: int

    def cpu_s(self) -> float:
        """CPU seconds that its processes have taken so far, in steps of the kernel's clock tick."""
        return sum(_cpu_s(pid) for pid in _tree(self.pid))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text(encoding="ascii").split():
            yield from _tree(int(child))


def _cpu_s(pid: int) -> float:
    # utime and stime are the 14th and 15th word; the second one is a name and may hold anything.
    words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_S


def make_settings(root: Path, name: str, port: int, access: str = OFF) -> Settings:
    """Settings of one server; all read the data of `root`."""
    (root / name).mkdir(parents=True)
    text = f'[api]\nhost = "127.0.0.1"\nport = {port}\nworkers = 1\n{access}\n[log]\nlevel = "WARNING"\n[symbols.BTC]\n'
    return resolve_directories(load(text, {}), data=root / "data", runtime=root / name)


@contextmanager
def gunicorn(settings: Settings, application: str) -> Iterator[Server]:
    """`application` under the worker of the API. Raises RuntimeError where it does not answer in time."""
    settings.paths.settings.write_bytes(encode(settings))
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", application]
    with running(command, settings.api.port, {"MPENGINE_SETTINGS": str(settings.paths.settings)}) as server:
        yield server


@contextmanager
def fastapi(interpreter: str, folder: Path) -> Iterator[Server]:
    """FastAPI answering with the files of `folder` (`bench.fastapi_peer`)."""
    port = free_port()
    with running([interpreter, fastapi_peer.__file__, str(port), str(folder)], port, {}) as server:
        yield server


# What makes it fast is on: it is the limit that others are measured against. One process that is its own worker, so that it
# reads the files as whoever started it.
_NGINX: Final = """
daemon off;
master_process off;
worker_processes 1;
pid {root}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  access_log off;
  default_type application/json;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  open_file_cache max=1000 inactive=1h;
  open_file_cache_valid 1h;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{ listen 127.0.0.1:{port}; root {files}; }}
}}
"""


def nginx_path() -> str | None:
    """Where nginx is; None without one."""
    return shutil.which("nginx")


@contextmanager
def nginx(path: str, root: Path, files: Path) -> Iterator[Server]:
    """nginx with the files of `files`; what else it writes goes to `root`, a folder that is made."""
    root.mkdir()
    port = free_port()
    config = root / "nginx.conf"
    config.write_text(_NGINX.format(root=root, files=files, port=port), encoding="utf-8")
    with running([path, "-e", "stderr", "-p", str(root), "-c", str(config)], port, {}) as server:
        yield server


@contextmanager
def running(command: list[str], port: int, environment: dict[str, str]) -> Iterator[Server]:
    """A process that listens on `port`. Raises RuntimeError where it ends or does not answer in time."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, cwd=Path(__file__).parents[1])
    try:
        wait_for(port, process)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Until something is answered on `port`. Raises RuntimeError where it is not in time, or `process` has ended."""
    deadline = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"GET /1 HTTP/1.1\r\nHost: bench\r\n\r\n")
                if connection.recv(1):
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not answer" if process is None else f"{process.args!r} does not answer")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
