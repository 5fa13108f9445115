"""The whole process tree as a user starts it, on free ports and folders of its own, for tests that look at it from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mpengine.config import Settings, load_file, resolve_directories
from shm.directories import runtime_folder
from shm.errors import ShmError
from shm.frame_ring import FrameReader
from shm.liveness import boot_id
from shm.paths import Paths


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: Callable[[], Any], seconds: float, text: str = "") -> Any:
    """The first true value of `what`; an answer that is not there yet (no file, no server) counts as not true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except (ShmError, OSError, ValueError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {text or what}")


def payloads(path: Path) -> list[bytes]:
    with FrameReader.open(path) as reader:
        return [slot.payload for slot in reader.history(0, reader.head()).slots]


class Tree:
    """`mpengine start` with settings `text`; a context manager that leaves no process behind."""

    def __init__(self, folder: Path, text: str, name: str = "test") -> None:
        self.folder = folder
        self.api_port, self.simulator_port = free_port(), free_port()
        self.config = folder / "mpengine.toml"
        self.config.write_text(text, encoding="utf-8")
        self.config.chmod(0o640)
        self.name = name
        self.runtime_base = Path("/dev/shm") / f"mpengine-test-{os.getpid()}-{self.api_port}"
        self.arguments = [
            "--config", str(self.config), "--set", f"instance.name={name}", "--set", f"instance.data_dir={folder / 'data'}",
            "--set", f"instance.runtime_dir={self.runtime_base}", "--set", "api.host=127.0.0.1",
            "--set", "api.rate_limits=false",
            "--set", f"api.port={self.api_port}", "--set", f"simulator.port={self.simulator_port}",
        ]  # fmt: skip
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def paths(self) -> Paths:
        return Paths(self.folder / "data", runtime_folder(self.runtime_base, self.name, boot_id()[0]))

    @property
    def settings(self) -> Settings:
        overrides = [value for key, value in zip(self.arguments, self.arguments[1:]) if key == "--set"]
        return resolve_directories(load_file(self.config, {}, overrides), data=self.paths.data, runtime=self.paths.runtime)

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "mpengine.cli", "start", *self.arguments]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mpengine.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def get(self, path: str) -> tuple[int, Any]:
        """(status, JSON body) of a GET."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api_port}{path}", timeout=5) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=30)
        return self.process.returncode

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()  # its children die with it
            self.process.communicate()
        if self.process.stdout is not None:
            self.process.stdout.close()
