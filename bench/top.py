"""What the terminal view costs, beside a tree of three symbols on the built-in exchange that it looks at::

    tree (simulator, ingest, 3 engines, API) ── shared memory ──▶ mpengine top in a pseudo-terminal of 120 x 40, 4 looks a second
                                             └─ HTTP and push ──▶ mpengine top --url

    python -m bench.top [--quick] [--json]

CPU: of one core, from the kernel's accounting while it runs undisturbed; `rss`: resident megabytes at the end, `own`: of them what
is not shared (libraries and rings are). First: from exec to the first cells, and to the first row of a venue. Of a command `cpu`
tells more than the median on a busy machine. Baselines of the same run: an interpreter that does nothing, one that imports
Textual, and `mpengine status`. Nothing passes or fails by it; the targets are those of the specification.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import resource
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Final

from bench.common import Row, main, report
from bench.symbols import Watch, names, tree, wait_until_ready
from mpengine.config import Settings

SIZE: Final = (120, 40)
WARM_S: Final = 75.0  # past the first map, which takes up to two minutes of the clock
TARGETS: Final = {"cpu": "5 % of a core", "rss": "60 MB", "first": "0.7 s", "once": "0.3 s"}
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class Screen:
    """A program in a pseudo-terminal that is read as fast as it writes."""

    def __init__(self, arguments: list[str]) -> None:
        self._master, follower = pty.openpty()
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        self._began_s = time.monotonic()
        self._process = subprocess.Popen(
            arguments, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(follower)
        self.written = 0
        self._head = b""

    def read(self, seconds: float) -> None:
        """Take what it writes for a while."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            if select.select([self._master], [], [], left_s)[0]:
                try:
                    piece = os.read(self._master, 1 << 16)
                except OSError:  # it has ended
                    return
                self.written += len(piece)
                self._head = (self._head + piece)[: 1 << 20]

    def first(self, words: bytes, within_s: float = 30.0) -> float:
        """Seconds from its start to these bytes."""
        while words not in self._head:
            if time.monotonic() - self._began_s > within_s:
                raise RuntimeError(f"{words!r} never came")
            self.read(0.005)
        return time.monotonic() - self._began_s

    def cpu_s(self) -> float:
        """CPU seconds so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def megabytes(self) -> tuple[float, float]:
        """(resident, of them not shared)."""
        text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        found = [re.search(rf"{name}:\s+(\d+) kB", text) for name in ("VmRSS", "RssAnon")]
        resident, own = (int(one.group(1)) / 1024 if one else 0.0 for one in found)
        return resident, own

    def close(self) -> None:
        """`q`, and the end."""
        os.write(self._master, b"q")
        self.read(0.5)
        self._process.terminate()
        self._process.wait(10)
        os.close(self._master)


def watched(name: str, arguments: list[str], seconds: float) -> Row:
    """One row of the full screen."""
    screen = Screen(arguments)
    try:
        cells, data = screen.first(b"mpengine "), screen.first(b"binance")
        screen.read(3.0)
        cpu_s, written, began_s = screen.cpu_s(), screen.written, time.monotonic()
        screen.read(seconds)
        took_s = time.monotonic() - began_s
        resident, own = screen.megabytes()
        return {
            "screen": name, "cpu %": round((screen.cpu_s() - cpu_s) / took_s * 100, 2), "rss MB": round(resident, 1),
            "own MB": round(own, 1), "first cells s": round(cells, 3), "first data s": round(data, 3),
            "bytes/s": round((screen.written - written) / took_s),
        }  # fmt: skip
    finally:
        screen.close()


def timed(name: str, arguments: list[str], rounds: int) -> Row:
    """One row of a command that ends by itself."""
    seconds, user, size = [], [], 0
    for _ in range(rounds):
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(arguments, capture_output=True, check=True)
        seconds.append(time.perf_counter() - began_s)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        user.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        size = len(done.stdout)
    return {
        "command": name, "median s": round(statistics.median(seconds), 3), "best s": round(min(seconds), 3),
        "cpu s": round(statistics.median(user), 3), "bytes": size,
    }  # fmt: skip


def options_of(settings: Settings, folder: Path) -> list[str]:
    """Options that name the tree."""
    base = Path(settings.instance.runtime_dir).parent
    return ["--config", str(folder / "mpengine.toml"), "--set", "instance.name=bench", "--set",
            f"instance.data_dir={settings.instance.data_dir}", "--set", f"instance.runtime_dir={base}"]  # fmt: skip


def run(quick: bool) -> list[Row]:
    """Full screens, then commands."""
    seconds, rounds = (10.0, 5) if quick else (60.0, 15)
    with tempfile.TemporaryDirectory(prefix="mpengine-bench-") as name, tree(names(3), Path(name)) as settings:
        watch = Watch(settings)
        wait_until_ready(watch, 3)
        time.sleep(WARM_S)
        here = options_of(settings, Path(name))
        url = ["--url", f"http://127.0.0.1:{settings.api.port}"]
        command = [sys.executable, "-m", "mpengine.cli"]
        screens = [
            watched("shared memory", [*command, "top", *here], seconds),
            watched("--url", [*command, "top", *url], seconds),
        ]
        report("mpengine top, three symbols, 120 x 40, 4 looks a second", screens, f"targets: {TARGETS}")
        commands = [
            timed("python -c pass", [sys.executable, "-c", "pass"], rounds),
            timed("import textual.app", [sys.executable, "-c", "import textual.app"], rounds),
            timed("status --json", [*command, "status", *here, "--json"], rounds),
            timed("top --once --json", [*command, "top", *here, "--once", "--json"], rounds),
            timed("top --once", [*command, "top", *here, "--once"], rounds),
            timed("top --once --json --url", [*command, "top", *url, "--once", "--json"], rounds),
        ]
        report("commands that end by themselves", commands)
    return [*screens, *commands]


if __name__ == "__main__":
    main(run, "bench.top")
