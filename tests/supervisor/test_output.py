"""Output of children: passed on line by line, bounded, the last line kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from supervisor.output import LINE_BYTES, LINES_PER_SECOND, SECOND_NS, OutputPump


class Pipe:
    """A pump and the writing end of its pipe."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        read_end, self.write_end = os.pipe()
        os.set_blocking(read_end, False)
        self.pump = OutputPump(read_end, self.lines.append, 0)

    def write(self, data: bytes) -> None:
        os.write(self.write_end, data)

    def hang_up(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    one = Pipe()
    yield one
    one.hang_up()
    one.pump.close(0)


def test_lines_arrive_whole_whatever_the_pieces(pipe: Pipe) -> None:
    for piece in (b"one\ntw", b"o\n\n  \nthr", b"ee\n"):
        pipe.write(piece)
        assert pipe.pump.read(0)
    assert pipe.lines == [b"one", b"two", b"three"]


def test_nothing_to_read_is_no_end_and_closing_is(pipe: Pipe) -> None:
    assert pipe.pump.read(0)
    pipe.hang_up()
    assert not pipe.pump.read(0)


def test_unfinished_line_is_passed_on_at_the_end() -> None:
    pipe = Pipe()
    pipe.write(b"done\nlast words")
    pipe.hang_up()
    pipe.pump.close(0)
    assert pipe.lines == [b"done", b"last words"]
    assert pipe.pump.last_text == "last words"


@pytest.mark.covers("P14")
def test_last_text_of_a_log_line_is_its_message_and_the_end_of_its_traceback(pipe: Pipe) -> None:
    pipe.write(json.dumps({"message": "uncaught exception", "traceback": "Traceback\n  File\nValueError: 7"}).encode() + b"\n")
    pipe.pump.read(0)
    assert pipe.pump.last_text == "uncaught exception | ValueError: 7"


@pytest.mark.parametrize("line", [b"plain", b"{broken", b"[1]", b'{"other": 1}', b'"text"', b"\xff\xfe"])
def test_last_text_of_anything_else_is_the_line(pipe: Pipe, line: bytes) -> None:
    pipe.write(line + b"\n")
    pipe.pump.read(0)
    assert pipe.pump.last_text == line.decode("utf-8", "replace")


@pytest.mark.covers("F22")
def test_a_line_without_end_does_not_grow(pipe: Pipe) -> None:
    for _ in range(20):
        pipe.write(b"x" * 10_000)
        pipe.pump.read(0)
    assert max(map(len, pipe.lines)) == LINE_BYTES
    assert 200_000 - LINE_BYTES <= sum(map(len, pipe.lines)) <= 200_000


@pytest.mark.covers("F22", "F14")
def test_flood_is_cut_per_second_and_counted(pipe: Pipe) -> None:
    burst = b"".join(b"%d\n" % number for number in range(LINES_PER_SECOND + 50))
    pipe.write(burst)
    pipe.pump.read(0)
    assert (len(pipe.lines), pipe.pump.dropped) == (LINES_PER_SECOND, 50)
    assert pipe.pump.last_text == str(LINES_PER_SECOND + 49), "the last line is kept all the same"
    pipe.write(b"later\n")
    pipe.pump.read(SECOND_NS)
    assert pipe.lines[-1] == b"later"
    pipe.write(burst)
    pipe.pump.read(SECOND_NS + 1)
    pipe.pump.refill()
    pipe.write(b"asked for\n")
    pipe.pump.read(SECOND_NS + 2)
    assert pipe.lines[-1] == b"asked for"


def test_one_call_reads_a_bounded_amount() -> None:
    pipe = Pipe()
    os.set_blocking(pipe.write_end, False)
    written = 0
    try:
        while True:
            written += os.write(pipe.write_end, b"y" * 999 + b"\n")
    except BlockingIOError:
        pass
    pipe.pump.read(0, reads=1)
    assert 0 < sum(len(line) + 1 for line in pipe.lines) <= 65_536
    pipe.hang_up()
    pipe.pump.close(0)
    assert sum(len(line) + 1 for line in pipe.lines) == written
