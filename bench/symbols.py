"""What symbols cost: the whole tree on the built-in exchange with every venue's book on, for 1, 3, 10 and 50 symbols.

    python -m bench.symbols [--quick] [--json]
    python -m bench.symbols --symbols 50 --seconds 600 [--json]

CPU is the share of one core that each kind of process took (from its kernel accounting); `lag_ms` how far an engine's time was
behind the clock when it was looked at (its clock ticks every 250 ms, so a quarter of a second is none); `slips` how often the
simulator itself could not keep up, in which case everything behind it saw less than the nominal rates. The exchange takes part in
the machine's load, which a real one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bench.common import Row, machine, report
from mpengine.config import DEMO_VENUES, Settings, load_file, resolve_directories
from mpengine.schemas import FeedsDocument, StatusDocument, decode
from shm.board import BoardReader
from shm.board_words import Word
from shm.directories import runtime_folder
from shm.document import DocumentReader
from shm.errors import ShmError
from shm.liveness import boot_id
from shm.records import DocumentId

FIRST: Final = ("BTC", "ETH", "SOL")
WARM_S: Final = 45.0  # past the first depth frame, whose window takes 30 s
READY_S: Final = 120.0
LOOK_S: Final = 1.0
KINDS: Final = ("simulator", "ingest", "engine", "api", "supervisor")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def names(count: int) -> list[str]:
    """`count` symbols: the shipped ones, then made-up ones of the general kind."""
    return [*FIRST, *(f"COIN{number:02}" for number in range(count))][:count]


def config_text(symbols: list[str]) -> str:
    """Settings of a tree with these symbols."""
    tables = [f"[symbols.{name}]\n" + ("" if name in FIRST else "step = 0.01\ntick = 0.001\n") for name in symbols]
    return "\n".join(tables)


@contextmanager
def tree(symbols: list[str], folder: Path) -> Iterator[Settings]:
    """A running tree; it ends with the block."""
    port, simulator = _free_port(), _free_port()
    config = folder / "mpengine.toml"
    config.write_text(config_text(symbols), encoding="utf-8")
    config.chmod(0o640)
    base = Path("/dev/shm") / f"mpengine-bench-{os.getpid()}"
    overrides = [
        "instance.name=bench", f"instance.data_dir={folder / 'data'}", f"instance.runtime_dir={base}", "api.host=127.0.0.1",
        f"api.port={port}", "api.workers=1", "simulator.enabled=true", f"simulator.port={simulator}", "log.level=WARNING",
        "api.rate_limits=false", *DEMO_VENUES,
    ]  # fmt: skip
    sets = [text for one in overrides for text in ("--set", one)]
    runtime = runtime_folder(base, "bench", boot_id()[0])
    settings = resolve_directories(load_file(config, {}, overrides), data=folder / "data", runtime=runtime)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mpengine.cli", "start", "--config", str(config), *sets], stdout=log, stderr=log
        )
    try:
        yield msgspec.structs.replace(settings, instance=msgspec.structs.replace(settings.instance, runtime_dir=str(runtime)))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watch:
    """Looks at a running tree from outside: kernel accounting, board words, documents."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.lags_ms: list[float] = []
        self.wire_lags_ms: list[float] = []

    def processes(self) -> dict[str, tuple[str, int]]:
        """Name -> (kind, pid)."""
        with BoardReader.open(self._settings.paths.board) as board:
            found = {name: board.get(row, Word.PID) for row, name in enumerate(board.names()) if name}
        return {name: (next((kind for kind in KINDS if name.startswith(kind)), "api"), pid) for name, pid in found.items() if pid}

    def words(self, row_name: str) -> dict[Word, int]:
        """Counters of a process."""
        with BoardReader.open(self._settings.paths.board) as board:
            row = board.row_of(row_name)
            return {word: board.get(row, word) for word in Word} if row is not None else {}

    def cpu_s(self) -> dict[str, float]:
        """Seconds of CPU by kind of process."""
        spent = dict.fromkeys(KINDS, 0.0)
        for kind, pid in self.processes().values():
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            spent[kind] += (int(fields[11]) + int(fields[12])) / _TICKS
        return spent

    def rss_mb(self) -> dict[str, list[float]]:
        """Resident megabytes of each process, by kind."""
        sizes: dict[str, list[float]] = {kind: [] for kind in KINDS}
        page = os.sysconf("SC_PAGE_SIZE")
        for kind, pid in self.processes().values():
            sizes[kind].append(int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * page / 1e6)
        return sizes

    def look(self) -> None:
        """One sample of every engine's lag and of the streams' lag."""
        for symbol in self._settings.symbols:
            status = self.status(symbol)
            if status is not None:
                self.lags_ms.append((time.time_ns() - status.engine_ns) / 1e6)
        with DocumentReader.open(self._settings.paths.feeds) as reader:
            slot = reader.latest(DocumentId.FEEDS)
        if slot is not None:
            feeds = decode(slot.payload, FeedsDocument).venues.values()
            self.wire_lags_ms += [one.lag_ms for feed in feeds for one in feed.streams.values() if one.lag_ms is not None]

    def status(self, symbol: str) -> StatusDocument | None:
        """The newest status of an engine."""
        with DocumentReader.open(self._settings.paths.documents(symbol)) as reader:
            slot = reader.latest(DocumentId.STATUS)
        return None if slot is None else decode(slot.payload, StatusDocument)

    def synced(self) -> int:
        """Symbols that have a mid price: at least one of their books is whole."""
        return sum(status.mid is not None for status in self._statuses())

    def frames(self) -> int:
        """Symbols that have published a depth frame."""
        return sum(status.depth_frames > 0 for status in self._statuses())

    def gaps(self) -> int:
        """Holes that all engines have been told of."""
        return sum(status.counters.get("gaps", 0) for status in self._statuses())

    def _statuses(self) -> list[StatusDocument]:
        return [status for symbol in self._settings.symbols if (status := self.status(symbol)) is not None]

    def slips(self) -> int:
        """How often the simulator left out time."""
        address = f"http://{self._settings.simulator.host}:{self._settings.simulator.port}/control/state"
        with urllib.request.urlopen(address, timeout=30) as reply:
            return int(json.loads(reply.read())["slips"])


def measure(count: int, seconds: float, *, warm_s: float = WARM_S) -> Row:
    """One row: a tree of `count` symbols, watched for `seconds` after it has run for `warm_s` with a book of each of them."""
    with tempfile.TemporaryDirectory(prefix="mpengine-bench-") as folder, tree(names(count), Path(folder)) as settings:
        watch = Watch(settings)
        wait_until_ready(watch, count)
        time.sleep(warm_s)
        began_s, cpu, words, slips = time.monotonic(), watch.cpu_s(), watch.words("ingest"), watch.slips()
        while time.monotonic() - began_s < seconds:
            time.sleep(LOOK_S)
            watch.look()
        took_s = time.monotonic() - began_s
        spent, after, rss = watch.cpu_s(), watch.words("ingest"), watch.rss_mb()
        share = {kind: (spent[kind] - cpu[kind]) / took_s for kind in KINDS}
        messages = after[Word.MESSAGES] - words[Word.MESSAGES]
        lags, wire = np.percentile(watch.lags_ms, (50, 99)), np.percentile(watch.wire_lags_ms or [0.0], (50, 99))
        return {
            "symbols": count,
            "messages_s": round(messages / took_s),
            "cpu_ingest": round(share["ingest"], 3),
            "us_message": round(share["ingest"] * took_s / max(1, messages) * 1e6, 1),
            "cpu_engines": round(share["engine"], 3),
            "cpu_engine_each": round(share["engine"] / count, 4),
            "cpu_api": round(share["api"], 3),
            "cpu_simulator": round(share["simulator"], 3),
            "rss_ingest": round(sum(rss["ingest"])),
            "rss_engine_each": round(float(np.mean(rss["engine"]))),
            "lag_ms_p50": round(float(lags[0])),
            "lag_ms_p99": round(float(lags[1])),
            "wire_lag_p50": round(float(wire[0])),
            "wire_lag_p99": round(float(wire[1])),
            "dropped": after[Word.DROPPED_RECORDS] - words[Word.DROPPED_RECORDS],
            "frames": watch.frames(),
            "gaps": watch.gaps(),
            "reconnects": after[Word.RECONNECTS],
            "slips": watch.slips() - slips,
        }


def wait_until_ready(watch: Watch, count: int) -> None:
    """Until every one of `count` symbols has a book. Ends the bench where that takes too long."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if watch.synced() == count:
                return
        except (ShmError, OSError, ValueError):
            pass  # not there yet
        time.sleep(0.5)
    raise SystemExit(f"not all of {count} symbols had a book within {READY_S:.0f} s")


def run(quick: bool) -> list[Row]:
    """Rows of 1, 3, 10 and 50 symbols; 1 and 3 when quick."""
    rows = [measure(count, 15.0 if quick else 60.0) for count in ((1, 3) if quick else (1, 3, 10, 50))]
    _show(rows)
    return rows


def _show(rows: list[Row]) -> None:
    report("symbols on the built-in exchange, four venues; cpu in cores", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.symbols")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--symbols", type=int, metavar="N", help="only this number of symbols")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="how long each tree is watched, with --symbols")
    parser.add_argument("--json", action="store_true", help="one JSON object behind the table")
    options = parser.parse_args()
    if options.symbols:
        found = [measure(options.symbols, options.seconds)]
        _show(found)
    else:
        found = run(options.quick)
    if options.json:
        sys.stdout.write(msgspec.json.encode({"bench": "symbols", "machine": machine(), "results": found}).decode() + "\n")
