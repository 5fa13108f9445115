"""Events from bytes, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.client import ContractError, sse
from mpengine.client.sse import ServerEvent, SseParser

STREAM = (
    b"\xef\xbb\xbfretry: 2000\n\n"
    b"event: snapshot\r\nid: depth.BTC:7:1\r\ndata: {\"a\":1}\r\n\r\n"
    b": a comment\n\n"
    b"data:first\ndata: second\ndata:  third \n\n"
    b"event: none\n\n"
    b"id\rdata\r\r"
    b"unknown: field\nretry: soon\nid: no\0thing\ndata: \xc3\xbc\xff\n\n"
    b"data: without an end\n"
)  # fmt: skip
EVENTS = [
    ServerEvent("snapshot", '{"a":1}', "depth.BTC:7:1"),
    ServerEvent("message", "first\nsecond\n third ", "depth.BTC:7:1"),
    ServerEvent("message", "", ""),
    ServerEvent("message", "ü\ufffd", ""),
]


def test_a_stream_in_one_piece() -> None:
    assert SseParser().feed(STREAM) == EVENTS


def test_a_stream_byte_by_byte() -> None:
    parser = SseParser()
    assert [event for index in range(len(STREAM)) for event in parser.feed(STREAM[index : index + 1])] == EVENTS


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_in_any_pieces(cuts: list[int]) -> None:
    parser, found = SseParser(), []
    ends = [*sorted(cuts), len(STREAM)]
    for begin, end in zip([0, *ends], ends):
        found += parser.feed(STREAM[begin:end])
    assert found == EVENTS


@given(st.binary(max_size=200))
def test_any_bytes_are_taken(data: bytes) -> None:
    SseParser().feed(data)


def test_an_event_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    for line in (b"data: " + b"x" * 100 + b"\n", b"x" * 100):
        parser = SseParser()
        for _ in range(9):
            parser.feed(line)
        with pytest.raises(ContractError):
            parser.feed(line + line)
    parser = SseParser()
    for _ in range(100):  # many small events are no large one
        parser.feed(b"data: " + b"x" * 100 + b"\n\n")
