"""The process log: one line per message, floods held back, secrets masked, and nobody ever waits for the sink."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shm import process_log
from shm.process_log import CAPACITY, REMEMBERED, FloodGuard, ProcessLog, Text, mask_text, masked
from tests.supervisor.rig import until

S = 1_000_000_000


class Sink:
    """A log that writes into a pipe, with a clock that the test moves."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.read_end, self.write_end = os.pipe()
        self.now_ns = 0
        self.handler = ProcessLog("engine-BTC", fd=self.write_end, capacity=capacity, monotonic_ns=lambda: self.now_ns)
        self.logger = logging.getLogger("test.process_log")
        self.logger.propagate = False
        self.logger.setLevel(logging.DEBUG)
        self.logger.addHandler(self.handler)

    def finish(self) -> list[dict[str, Any]]:
        """Close the log while somebody reads; every line that it wrote."""
        self.logger.removeHandler(self.handler)
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(self._read_all()))
        reader.start()
        self.handler.close(timeout_s=30)
        os.close(self.write_end)
        reader.join(30)
        return [json.loads(line) for line in found[0].splitlines()]

    def _read_all(self) -> bytes:
        with os.fdopen(self.read_end, "rb") as file:
            return file.read()


def test_a_line_says_when_who_where_and_what() -> None:
    sink = Sink()
    sink.logger.info("epoch %d of %s", 3, "ring")
    (line,) = sink.finish()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "INFO", "process": "engine-BTC", "pid": os.getpid(), "logger": "test.process_log", "message": "epoch 3 of ring",
    }  # fmt: skip


@pytest.mark.covers("A2-M10")
def test_exception_comes_with_traceback_and_an_id() -> None:
    sink = Sink()
    try:
        raise ValueError("boo")
    except ValueError:
        sink.logger.exception("failed")
        sink.logger.exception("told", extra={"error_id": "abc123"})
    first, second = sink.finish()
    assert re.fullmatch("[0-9a-f]{8}", first["error_id"])
    assert first["traceback"].endswith("ValueError: boo")
    assert second["error_id"] == "abc123"


@pytest.mark.covers("F14", "F22")
def test_same_message_comes_once_per_window_with_its_count() -> None:
    sink = Sink()
    for _ in range(100):
        sink.logger.warning("cannot reach %s", "okx")
    sink.logger.warning("cannot reach %s", "bybit")
    sink.now_ns = 10 * S
    sink.logger.warning("cannot reach %s", "okx")
    lines = sink.finish()
    assert [(line["message"], line.get("repeats")) for line in lines] == [
        ("cannot reach okx", None), ("cannot reach bybit", None), ("cannot reach okx", 99),
    ]  # fmt: skip


def test_end_of_a_burst_is_reported_although_the_message_does_not_come_again() -> None:
    sink = Sink()
    for _ in range(7):
        sink.logger.warning("once more")
    lines = sink.finish()
    assert [line.get("repeats") for line in lines] == [None, 6]


def test_flood_of_different_texts_from_one_place_is_bounded() -> None:
    guard = FloodGuard(template_limit=5)
    admitted = [guard.admit(Text("a", "INFO", f"bad {number}"), "bad %d", 0) for number in range(100)]
    assert sum(repeats is not None for repeats in admitted) == 5
    assert guard.admit(Text("a", "INFO", "bad 7000"), "bad %d", 10 * S) == 95
    assert guard.admit(Text("a", "ERROR", "bad 7"), "bad %d", 0) == 0, "another level is another place"


def test_guard_remembers_a_bounded_number_of_texts() -> None:
    guard = FloodGuard()
    for number in range(10 * REMEMBERED):
        guard.admit(Text("a", "INFO", str(number)), str(number), 0)
    assert guard.expired(0) == []
    assert guard.expired(10 * S) == []
    assert guard.admit(Text("a", "INFO", "0"), "0", 0) == 0


@pytest.mark.covers("T-L5", "X-L2")
@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("API_KEY=abc123 ok", "API_KEY=*** ok"),
        ("{'my_secret': 'a b', 'x': 1}", "{'my_secret': ***, 'x': 1}"),
        ('"AUTH_TOKEN": "q\'w",', '"AUTH_TOKEN": ***,'),
        ("db_password = hunter2; rest", "db_password = ***; rest"),
        ("unknown key: foo", "unknown key: foo"),
        ("monkey_keys=3", "monkey_keys=3"),
    ],
)
def test_secrets_in_texts_are_masked(text: str, clean: str) -> None:
    assert mask_text(text) == clean


@pytest.mark.covers("T-L5")
def test_secrets_of_an_environment_are_masked() -> None:
    assert masked({"API_KEY": "a", "x_token": "b", "PATH": "/bin"}) == {"API_KEY": "***", "x_token": "***", "PATH": "/bin"}


@pytest.mark.covers("F22", "E-H2")
def test_blocked_sink_never_blocks_the_caller_and_losses_are_told() -> None:
    sink = Sink(capacity=16)
    for number in range(2000):
        sink.logger.info("%d %s", number, "x" * 3000)
        sink.now_ns += S  # another window each time, so that only the queue holds back
    assert sink.handler.dropped > 1000
    lines = sink.finish()
    assert [int(line["message"].split()[0]) for line in lines] == sorted(int(line["message"].split()[0]) for line in lines)
    assert len(lines) + sum(line.get("dropped", 0) for line in lines) == 2000


def test_losses_stand_in_the_next_line_that_gets_through() -> None:
    sink = Sink()
    sink.handler.dropped = 7
    sink.logger.info("free again")
    sink.logger.info("and again")
    assert [line.get("dropped") for line in sink.finish()] == [7, None]


@pytest.mark.covers("F22")
def test_close_does_not_wait_for_a_blocked_sink() -> None:
    sink = Sink()
    for number in range(100):
        sink.logger.info("%d %s", number, "x" * 3000)
        sink.now_ns += S
    sink.logger.removeHandler(sink.handler)
    sink.handler.close(timeout_s=0.05)
    os.close(sink.read_end)  # the writer sees EPIPE and ends
    until("the thread ends", lambda: not sink.handler._thread.is_alive())
    os.close(sink.write_end)
    assert sink.handler.errors > 0


def test_wrong_format_is_counted_and_does_not_raise() -> None:
    sink = Sink()
    sink.handler.handle(logging.LogRecord("a", logging.INFO, __file__, 1, "%d", ("text",), None))
    assert sink.handler.errors == 1
    assert sink.finish() == []


@pytest.mark.covers("E-L6", "A2-M7")
def test_closed_sink_is_counted() -> None:
    sink = Sink()
    os.close(sink.read_end)
    sink.logger.info("nobody listens")
    until("the error is counted", lambda: sink.handler.errors == 1)
    sink.logger.removeHandler(sink.handler)
    sink.handler.close()
    os.close(sink.write_end)


def test_forwarded_lines_keep_their_author() -> None:
    sink = Sink()
    sink.handler.forward(b'{"message": "mine"}', "ingest", 7)
    sink.handler.forward(b"Fatal Python error: API_KEY=abc", "ingest", 7)
    first, second = sink.finish()
    assert first == {"message": "mine"}
    assert (second["process"], second["pid"], second["logger"]) == ("ingest", 7, "stderr")
    assert second["message"] == "Fatal Python error: API_KEY=***"


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Put the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    process_log.shutdown()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("root_logger")
def test_set_up_replaces_whatever_was_there_and_is_repeatable(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        first = process_log.configure("a", "WARNING", fd=file.fileno())
        second = process_log.configure("b", "INFO", fd=file.fileno())
        assert not first._thread.is_alive()
        assert logging.getLogger().handlers == [second]
        assert process_log.current() is second
        logging.getLogger("any.thing").info("hello")
        process_log.shutdown()
        process_log.shutdown()
    assert process_log.current() is None
    assert [json.loads(line)["process"] for line in (tmp_path / "log").read_bytes().splitlines()] == ["b"]


INTERRUPTED = """
import logging, os, signal, sys
from shm import process_log

process_log.configure("test", fd=os.open(os.devnull, os.O_WRONLY))
log = logging.getLogger("test")
signals = 0

def on_signal(number, frame):
    global signals
    signals += 1
    log.info("signal %d", signals)

signal.signal(signal.SIGALRM, on_signal)
lines = 0
while signals < 1500:
    wanted = signals + 1
    signal.setitimer(signal.ITIMER_REAL, 0.00003 + (signals % 50) * 0.000002)
    while signals < wanted:
        lines += 1
        log.info("line %d", lines)
process_log.shutdown()
"""


@pytest.mark.covers("E-M6", "E-H6")
def test_a_signal_handler_that_logs_while_its_thread_logs_does_not_lock_up() -> None:
    """With a queue of locks a stop signal that fell into a log line hung the process for ever."""
    subprocess.run([sys.executable, "-c", INTERRUPTED], check=True, timeout=60)
