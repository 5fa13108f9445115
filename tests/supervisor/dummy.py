"""A child that does what it is told: `dummy.py --settings FILE --row N --name NAME`, behaviour from <data>/modes.json.

Modes, looked up by name at every start; those with * act while the file <data>/sick exists:
live | exit (code, after_s) | silent (never LIVE) | deaf (ignores SIGTERM) | flood (lines) | brood (leaves a grandchild) |
stuck* (beats, no progress) | spin* (holds the interpreter) | fat* (says it is large)
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mpengine.config import decode
from shm.board import BoardReader, BoardRow
from shm.board_words import Role, State, Word
from shm.event_ring import BatchFlag, EventWriter
from shm.layout import event_ring_spec
from shm.process_shell import ProcessShell, run_main

TURN_S = 0.02


class Dummy:
    """One life."""

    def __init__(self) -> None:
        parser = argparse.ArgumentParser()
        for name in ("--settings", "--name"):
            parser.add_argument(name)
        parser.add_argument("--row", type=int)
        options = parser.parse_args()
        self.settings = decode(Path(options.settings).read_bytes())
        self.name = options.name
        modes = json.loads((Path(self.settings.instance.data_dir) / "modes.json").read_text("utf-8"))
        self.mode: dict[str, Any] = modes.get(self.name, {"mode": "live"})
        role = {"engine": Role.ENGINE, "ingest": Role.INGEST, "api": Role.API_MASTER}.get(self.name.split("-")[0], Role.SIMULATOR)
        self.shell = ProcessShell(self.name, role, board=self.settings.paths.board, row=options.row)
        self.rings: list[EventWriter] = []

    def run(self) -> int:
        """Until told to stop, or as the mode says."""
        kind = self.mode["mode"]
        if kind != "exit" or self.mode.get("after_s"):
            self._settle(kind)
        begin = time.monotonic()
        while not self.shell.stopping or kind == "deaf":
            time.sleep(TURN_S)
            if kind == "exit" and time.monotonic() - begin >= self.mode.get("after_s", 0):
                print(f"{self.name} has had enough", file=sys.stderr)
                return int(self.mode["code"])
            self._turn(kind)
        self.shell.close()
        return 0

    def _settle(self, kind: str) -> None:
        if kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        else:
            self.shell.install_signals()
        if self.name == "ingest":
            paths, units = self.settings.paths, self.settings.engine.ring_units
            self.rings = [EventWriter.open(paths.events(s), event_ring_spec(s, units)) for s in self.settings.symbols]
        if self.name == "api-master":
            signal.signal(signal.SIGHUP, lambda *_: (Path(self.settings.instance.data_dir) / "rolled").touch())
            worker = BoardReader.open(self.settings.paths.board).row_of("api-0")
            assert worker is not None
            BoardRow.attach(self.settings.paths.board, worker).set(Word.STATE, State.LIVE)
        if kind == "brood":
            grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (Path(self.settings.instance.data_dir) / "grandchild").write_text(str(grandchild.pid), "utf-8")
        if kind == "flood":
            for number in range(self.mode["lines"]):
                os.write(2, b"line %d\n" % number)
        if kind != "silent":
            self.shell.live()

    def _turn(self, kind: str) -> None:
        progress = self.shell.row.get(Word.PROGRESS)
        sick = (Path(self.settings.instance.data_dir) / "sick").exists()
        moves = kind not in ("stuck", "spin") or not sick
        self.shell.beat(progress + 1 if moves else None)
        if kind == "fat" and sick:
            self.shell.row.set(Word.RSS_BYTES, 1 << 40)
        for ring in self.rings:
            ring.put(bytes(64), records=1, source=1, first_seq=progress, flags=BatchFlag.CLOCK_ONLY)
        while kind == "spin" and not moves:
            pass


if __name__ == "__main__":
    run_main(lambda: Dummy().run())
