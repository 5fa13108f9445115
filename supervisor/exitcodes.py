"""What the exit code of each process means. Pure; docs/operations.md has its table from here, a test compares them."""

from __future__ import annotations

from enum import IntEnum
from signal import Signals


class ExitCode(IntEnum):
    """Codes of the supervisor and of its children."""

    STOPPED = 0
    CRASHED = 1
    USAGE = 2
    BOOT_FAILED = 3
    APP_FAILED = 4
    GIVEN_UP = 10


TEXTS = {
    ExitCode.STOPPED: ("stopped on request", "nothing; a child that nobody asked to stop is started again"),
    ExitCode.CRASHED: ("uncaught exception, traceback in the log", "restarted with backoff, within the budget"),
    ExitCode.USAGE: ("wrong command line", "supervisor only: correct the command"),
    ExitCode.BOOT_FAILED: (
        "cannot start: settings, layout of a file, lock or port",
        "child: FAILED at once, tried again every 60 s; supervisor: reasons in the log, correct them",
    ),
    ExitCode.APP_FAILED: ("the web application cannot be loaded", "child: as 3"),
    ExitCode.GIVEN_UP: (
        "ingest, or more than half of the engines, FAILED for too long",
        "supervisor only: the service manager starts everything anew",
    ),
}

NO_RESTART = frozenset({ExitCode.BOOT_FAILED, ExitCode.APP_FAILED})
"""A restart would end the same way: the child is FAILED at once."""


def describe(code: int | None, signal: int | None) -> str:
    """How a process ended, in words: `exit 3 (cannot start: ...)`, `signal 9 (SIGKILL)`."""
    if signal is not None:
        name = Signals(signal).name if signal in {int(s) for s in Signals} else "unknown"
        return f"signal {signal} ({name})"
    if code is None:
        return "never started"
    try:
        return f"exit {code} ({TEXTS[ExitCode(code)][0]})"
    except ValueError:
        return f"exit {code}"


def markdown_table() -> str:
    """The table of docs/operations.md."""
    rows = [f"| {code.value} | {meaning} | {reaction} |" for code, (meaning, reaction) in TEXTS.items()]
    return "\n".join(["| Code | Meaning | What follows |", "|---|---|---|", *rows])
