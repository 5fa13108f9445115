"""The one logging set-up: every process writes JSON lines to stderr, and no process ever waits for whoever reads them.

Called once by the shell of a process (`process_shell`, gunicorn's hooks, the command line). Library code only does
`logging.getLogger("mpengine.ingest.bybit")` and logs changes of state; facts per event are board counters.

    caller -> flood guard -> bounded queue -> one thread -> os.write

The caller only puts a record into a bounded queue. A sink that blocks (full pipe, slow disk) stops the thread alone; what
does not fit is dropped and counted, and the count stands in the next line that gets through. Rejected: a non-blocking stderr,
because O_NONBLOCK belongs to the open file and would change it for every process that shares it.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

REPEAT_WINDOW_NS: Final = 10_000_000_000
TEMPLATE_LIMIT: Final = 50  # lines of one template per window: a flood whose arguments differ is bounded as well
REMEMBERED: Final = 512  # messages and templates that the guard keeps in mind
CAPACITY: Final = 4096
TEXT_CHARACTERS: Final = 4096  # of a message; of the end of a traceback
MASK: Final = "***"

_SECRET_NAME: Final = re.compile(r"_(KEY|SECRET|TOKEN|PASSWORD)$", re.IGNORECASE)
# PERF: begins at the underscore; with the name before it (\w+) every long word would cost the square of its length.
_SECRET_TEXT: Final = re.compile(
    r"(_(?:KEY|SECRET|TOKEN|PASSWORD)\b[\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s,;}\"']+)", re.IGNORECASE
)


def masked(values: Mapping[str, str]) -> dict[str, str]:
    """A copy for logs: values of names that end in _KEY, _SECRET, _TOKEN or _PASSWORD are replaced."""
    return {name: MASK if _SECRET_NAME.search(name) else value for name, value in values.items()}


def mask_text(text: str) -> str:
    """The text with `name=value` and `"name": "value"` masked for the same names."""
    return _SECRET_TEXT.sub(rf"\g<1>{MASK}", text)


@dataclass(frozen=True, slots=True)
class Text:
    """What makes two log lines the same."""

    logger: str
    level: str
    text: str


@dataclass(slots=True)
class _Window:
    opened_ns: int
    limit: int
    count: int = 1

    @property
    def held(self) -> int:
        return max(0, self.count - self.limit)


class FloodGuard:
    """Says which lines go out: the same text once per window, one template at most `template_limit` times. Not thread-safe."""

    def __init__(self, window_ns: int = REPEAT_WINDOW_NS, template_limit: int = TEMPLATE_LIMIT) -> None:
        self._window_ns = window_ns
        self._template_limit = template_limit
        self._windows: OrderedDict[Text, _Window] = OrderedDict()  # oldest first

    def admit(self, line: Text, template: str, now_ns: int) -> int | None:
        """None: keep quiet. Else how often this line was held back since it was last let through."""
        repeats = self._count(line, 1, now_ns)
        if repeats is None or template == line.text:
            return repeats
        held = self._count(Text(line.logger, line.level, f"(any) {template}"), self._template_limit, now_ns)
        return None if held is None else repeats + held

    def expired(self, now_ns: int) -> list[tuple[Text, int]]:
        """Lines whose window is over and how many of them were held back: the end of a burst is reported too."""
        over: list[tuple[Text, int]] = []
        while self._windows:
            line, window = next(iter(self._windows.items()))
            if now_ns - window.opened_ns < self._window_ns:
                break
            del self._windows[line]
            if window.held:
                over.append((line, window.held))
        return over

    def _count(self, line: Text, limit: int, now_ns: int) -> int | None:
        window = self._windows.get(line)
        if window is not None and now_ns - window.opened_ns < self._window_ns:
            window.count += 1
            return None if window.held else 0
        self._windows[line] = _Window(now_ns, limit)
        self._windows.move_to_end(line)
        while len(self._windows) > REMEMBERED:
            self._windows.popitem(last=False)
        return 0 if window is None else window.held


Fields = dict[str, Any]


class LineFormat:
    """Builds the JSON object of one line: time (UTC), level, process, pid, logger, message, and what went wrong."""

    def __init__(self, process: str) -> None:
        self.process = process
        self._formatter = logging.Formatter()

    def fields(self, line: Text, created_s: float) -> Fields:
        """The object without an exception; long messages are cut."""
        seconds, fraction = divmod(created_s, 1)
        return {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(fraction * 1000):03d}Z",
            "level": line.level,
            "process": self.process,
            "pid": os.getpid(),
            "logger": line.logger,
            "message": mask_text(line.text)[:TEXT_CHARACTERS],
        }

    def exception(self, record: logging.LogRecord) -> Fields:
        """error_id and traceback of a record that has one. The id is what a client may see; `extra={"error_id": ...}` sets it."""
        if not record.exc_info:
            return {}
        trace = mask_text(self._formatter.formatException(record.exc_info))
        return {"error_id": getattr(record, "error_id", None) or secrets.token_hex(4), "traceback": trace[-TEXT_CHARACTERS:]}


class ProcessLog(logging.Handler):
    """Root handler of a process. `errors` counts lines that could not be written, `dropped` those that found the queue full."""

    def __init__(
        self,
        process: str,
        *,
        fd: int = 2,
        capacity: int = CAPACITY,
        guard: FloodGuard | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__()
        self.errors = 0
        self.dropped = 0
        self._reported = 0
        self._fd = fd
        self._format = LineFormat(process)
        self._guard = guard or FloodGuard()
        self._now_ns = monotonic_ns
        self._capacity = capacity
        # Signal handlers log as well, and may have interrupted this very put: only this queue takes that without a deadlock.
        self._queue: queue.SimpleQueue[Fields | bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._drain, name="process-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line or count it; never waits, never raises. The text is built here: arguments may change afterwards."""
        try:
            line = Text(record.name, record.levelname, record.getMessage())
            repeats = self._guard.admit(line, str(record.msg), self._now_ns())
            if repeats is None:
                return
            fields = self._format.fields(line, record.created) | self._format.exception(record)
        except Exception:  # noqa: BLE001  a wrong format string must not end the process that logs it
            self.errors += 1
            return
        if repeats:
            fields["repeats"] = repeats
        self._put(fields)

    def forward(self, line: bytes, process: str, pid: int) -> None:
        """Queue a line that another process wrote: a JSON object as it is, any other text as a message of logger `stderr`."""
        if line.startswith(b"{") and line.endswith(b"}"):
            self._put(line)
            return
        text = Text("stderr", "WARNING", line.decode("utf-8", "replace"))
        self._put(self._format.fields(text, time.time()) | {"process": process, "pid": pid})

    def close(self, timeout_s: float = 1.0) -> None:
        """Write what is queued, for at most `timeout_s`: a blocked sink must not keep a process from ending."""
        if self._thread.is_alive():
            deadline = time.monotonic() + timeout_s
            self._queue.put(None)
            self._thread.join(max(0.0, deadline - time.monotonic()))
        super().close()

    def _put(self, entry: Fields | bytes) -> None:
        if self._queue.qsize() < self._capacity:
            self._queue.put(entry)
        else:
            self.dropped += 1

    def _drain(self) -> None:
        while True:
            try:
                entry = self._queue.get(timeout=REPEAT_WINDOW_NS / 1e9)
            except queue.Empty:
                self._report_repeats(self._now_ns())
                continue
            if entry is None:
                self._report_repeats(self._now_ns() + REPEAT_WINDOW_NS)
                return
            if isinstance(entry, bytes):
                self._write(entry)
            else:
                self._write_fields(entry)

    def _report_repeats(self, now_ns: int) -> None:
        self.acquire()
        try:
            over = self._guard.expired(now_ns)
        finally:
            self.release()
        for line, repeats in over:
            self._write_fields(self._format.fields(line, time.time()) | {"repeats": repeats})

    def _write_fields(self, fields: Fields) -> None:
        dropped = self.dropped - self._reported
        if dropped:
            fields["dropped"] = dropped
        if self._write(json.dumps(fields, default=str).encode()):
            self._reported += dropped

    def _write(self, line: bytes) -> bool:
        data = line + b"\n"
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # there is no other place to report to; the board shows the count
            self.errors += 1
            return False
        return True


_current: ProcessLog | None = None


def configure(process: str, level: str = "INFO", *, fd: int = 2) -> ProcessLog:
    """Make `ProcessLog` the only root handler of this process. Again after a fork: threads do not survive one."""
    global _current
    root = logging.getLogger()
    if _current is not None:
        root.removeHandler(_current)
        _current.close()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    _current = ProcessLog(process, fd=fd)
    root.addHandler(_current)
    root.setLevel(level)
    logging.captureWarnings(True)
    return _current


def current() -> ProcessLog | None:
    """The handler that `configure` made, for its counters."""
    return _current


def shutdown(timeout_s: float = 1.0) -> None:
    """Write out what is queued and stop logging; the last thing a process does."""
    global _current
    if _current is not None:
        logging.getLogger().removeHandler(_current)
        _current.close(timeout_s)
        _current = None
