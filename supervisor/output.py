"""What children write to stdout and stderr: read without waiting, passed on to the supervisor's log, the last line kept.

A child's own log lines (JSON) go through as they are; anything else (tracebacks of the interpreter, stack dumps, a library's
print) becomes a JSON line of the logger `stderr`. A child that floods is cut to `LINES_PER_SECOND`, counted, never waited for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Final

READ_BYTES: Final = 65_536
READS_PER_TURN: Final = 4
LINE_BYTES: Final = 16_384
LAST_TEXT_CHARACTERS: Final = 500
LINES_PER_SECOND: Final = 1000
SECOND_NS: Final = 1_000_000_000


class OutputPump:
    """One per life of a child. `sink` gets complete lines without their end; `dropped` counts lines that it did not get."""

    def __init__(self, fd: int, sink: Callable[[bytes], None], now_ns: int) -> None:
        """Takes over `fd`, the non-blocking read end of the child's pipe."""
        self.fd = fd
        self.dropped = 0
        self._last = b""
        self._sink = sink
        self._rest = b""
        self._second_ns = now_ns
        self._lines = 0

    def read(self, now_ns: int, reads: int = READS_PER_TURN) -> bool:
        """Pass on what is there, a bounded amount per call; False at the end of the stream."""
        for _ in range(reads):
            try:
                data = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._split(data, now_ns)
        return True

    def refill(self) -> None:
        """The lines that come now were asked for: a flood before them must not hide a stack dump."""
        self._lines = 0

    def close(self, now_ns: int) -> None:
        """Read what the ended child has left (a pipe holds no more than that), then close."""
        self.read(now_ns, reads=64)
        if self._rest:
            self._line(self._rest, now_ns)
        os.close(self.fd)

    @property
    def last_text(self) -> str:
        """What the child said last: the message of a log line (with the end of its traceback), or the line itself."""
        try:
            fields = json.loads(self._last)
            text = " | ".join([str(fields["message"]), *str(fields.get("traceback", "")).splitlines()[-1:]])
        except (ValueError, KeyError, TypeError):
            text = self._last.decode("utf-8", "replace")
        return text[:LAST_TEXT_CHARACTERS]

    def _split(self, data: bytes, now_ns: int) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line, now_ns)
        while len(rest) > LINE_BYTES:
            self._line(rest[:LINE_BYTES], now_ns)
            rest = rest[LINE_BYTES:]
        self._rest = rest

    def _line(self, line: bytes, now_ns: int) -> None:
        text = line.strip()
        if not text:
            return
        self._last = text[:LINE_BYTES]
        if now_ns - self._second_ns >= SECOND_NS:
            self._second_ns, self._lines = now_ns, 0
        self._lines += 1
        if self._lines > LINES_PER_SECOND:
            self.dropped += 1
        else:
            self._sink(line.rstrip()[:LINE_BYTES])
