"""A program in a pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 20.0
ENTER, LEAVE, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Terminal:
    """A program in a terminal of its own, and the screen as the bytes so far make it."""

    def __init__(self, arguments: list[str], size: tuple[int, int], **env: str) -> None:
        self.master, follower = pty.openpty()
        self.resize(size)
        self.before = termios.tcgetattr(follower)
        plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mpengine.cli", "top", *arguments], stdin=follower, stdout=follower, stderr=follower, cwd=ROOT,
            env={**plain, "TERM": "xterm-256color", **env}, start_new_session=True,
        )  # fmt: skip
        self.follower = follower
        self.raw = b""
        self.cells: dict[tuple[int, int], str] = {}
        self._parsed = 0

    def resize(self, size: tuple[int, int]) -> None:
        width, height = size
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        if hasattr(self, "process"):
            self.cells.clear()
            self.process.send_signal(signal.SIGWINCH)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def take(self) -> None:
        """Everything that has been written so far."""
        while select.select([self.master], [], [], 0.02)[0]:
            try:
                self.raw += os.read(self.master, 1 << 16)
            except OSError:  # nobody has the other end any more
                return

    def text(self) -> str:
        """The screen: what was printed where. Knows the few sequences that are used for it."""
        self.take()
        data = self.raw[self._parsed :].decode("utf-8", "ignore")
        self._parsed = len(self.raw)
        y = x = 0
        for piece in re.finditer(
            r"\x1b\[(\d*);?(\d*)H|\x1b\[[0-9;?<>=]*[A-Za-z]|\x1b[P_\]].*?(?:\x1b\\|\x07)|\x1b.|\n|\r|(.)", data, re.DOTALL
        ):
            found = piece.group()
            if piece.group(3) is not None:
                self.cells[y, x] = found
                x += 1
            elif found.endswith("H") and found.startswith("\x1b["):
                y, x = int(piece.group(1) or 1) - 1, int(piece.group(2) or 1) - 1
            elif found == "\n":
                y += 1
            elif found == "\r":
                x = 0
        rows: dict[int, dict[int, str]] = {}
        for (at, column), char in self.cells.items():
            rows.setdefault(at, {})[column] = char
        return "\n".join("".join(rows[at].get(column, " ") for column in range(max(rows[at]) + 1)) for at in sorted(rows))

    def until(self, condition: Callable[[str], object], what: str) -> str:
        deadline = time.monotonic() + WITHIN_S
        while not condition(text := self.text()):
            assert time.monotonic() < deadline and self.process.poll() is None, f"waited in vain: {what}\n{text}"
        return text

    def ended(self) -> int:
        """Its code; everything that it wrote is in `raw`."""
        deadline = time.monotonic() + WITHIN_S
        while self.process.poll() is None:
            self.take()
            assert time.monotonic() < deadline, "it does not end"
        self.take()
        return self.process.returncode

    def restored(self) -> bool:
        """Whether the terminal is as it was: modes, the screen before, the cursor."""
        last = [self.raw.rfind(mark) for mark in (ENTER, LEAVE, SHOW_CURSOR)]
        return termios.tcgetattr(self.follower) == self.before and last[1] > last[0] >= 0 and last[2] > last[0]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.follower)
