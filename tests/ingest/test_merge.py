"""Whatever the connections' pace, what comes out is the capture's order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.ingest.merge import Key, Merge, stamp_of


def test_nothing_comes_out_before_every_source_was_heard() -> None:
    merge: Merge[str] = Merge(["a", "b"])
    merge.push(Key(10, 1), "first")
    merge.advance("a", Key(10, 1))
    assert merge.ready() == []
    merge.advance("b", Key(9, 0))
    assert merge.ready() == []
    merge.advance("b", Key(10, 2))
    assert merge.ready() == [(Key(10, 1), "first")]


def test_a_source_that_ended_is_not_waited_for() -> None:
    merge: Merge[str] = Merge(["a", "b"])
    merge.end("b")
    merge.push(Key(5, 1), "x")
    merge.advance("a", Key(5, 1))
    assert [item for _, item in merge.ready()] == ["x"]
    merge.push(Key(9, 2), "last")
    merge.end("a")
    assert [item for _, item in merge.ready()] == ["last"]
    assert merge.ended
    assert merge.waiting == 0


def test_a_reply_takes_its_place_and_a_late_one_is_counted() -> None:
    merge: Merge[str] = Merge(["a"])
    merge.push(Key(20, 7), "message")
    merge.push(Key(15, 3), "reply")
    merge.advance("a", Key(20, 7))
    assert [item for _, item in merge.ready()] == ["reply", "message"]
    merge.push(Key(16, 4), "late")
    assert [item for _, item in merge.ready()] == ["late"]
    assert merge.late == 1


def test_watermarks_never_go_back() -> None:
    merge: Merge[str] = Merge(["a"])
    merge.advance("a", Key(20, 1))
    merge.advance("a", Key(10, 1))
    merge.push(Key(15, 1), "x")
    assert len(merge.ready()) == 1
    with pytest.raises(KeyError):
        merge.advance("unknown", Key(1, 1))


def test_with_a_silent_source_order_is_given_up_before_memory() -> None:
    merge: Merge[int] = Merge(["a", "silent"], limit=3)
    for n in range(5):
        merge.push(Key(n, n), n)
        merge.advance("a", Key(n, n))
    assert [item for _, item in merge.ready()] == [0, 1]
    assert merge.forced == 2
    assert merge.waiting == 3


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=80), st.randoms(use_true_random=False))
def test_any_pace_gives_the_order_of_the_capture(lines: list[tuple[int, int]], rng: random.Random) -> None:
    """Lines get a time and a source; sources deliver in order, at any pace, with clocks in between."""
    keys = [Key(time_ns, line) for line, (time_ns, _) in enumerate(sorted(lines, key=lambda pair: pair[0]))]
    source_of = {key: f"s{source}" for key, (_, source) in zip(keys, sorted(lines, key=lambda pair: pair[0]))}
    queues = {f"s{n}": [key for key in keys if source_of[key] == f"s{n}"] for n in range(4)}
    merge: Merge[Key] = Merge(queues)
    out: list[Key] = []
    last = {name: Key(-1, -1) for name in queues}
    while any(queues.values()):
        name = rng.choice([name for name, queue in queues.items() if queue])
        if rng.random() < 0.3:  # a clock: everything before the source's next message has been sent
            merge.advance(name, Key(queues[name][0].recv_ns, queues[name][0].line - 1))
        else:
            key = queues[name].pop(0)
            assert key > last[name]
            last[name] = key
            merge.push(key, key)
            merge.advance(name, key)
        out += [item for _, item in merge.ready()]
    for name in queues:
        merge.end(name)
    out += [item for _, item in merge.ready()]
    assert out == keys
    assert (merge.late, merge.forced, merge.waiting) == (0, 0, 0)


@pytest.mark.parametrize(
    ("payload", "clock", "end"),
    [
        (b'{"stream":"btcusdt@depth","recv_ns":7,"line":2,"data":{"x":[1]}}', False, False),
        (b'{"data":{},"line":2,"recv_ns":7}', False, False),
        (b'{"stream":"!clock","recv_ns":7,"line":2}', True, False),
        (b'{"stream":"!clock","recv_ns":7,"line":2,"end":true}', True, True),
        (b'{"stream":"other","recv_ns":7,"line":2,"end":true}', False, False),
    ],
)
def test_stamps_are_read(payload: bytes, clock: bool, end: bool) -> None:
    stamp = stamp_of(payload)
    assert stamp is not None
    assert (stamp.key, stamp.clock, stamp.end) == (Key(7, 2), clock, end)


@pytest.mark.parametrize(
    "payload", [b"", b"pong", b'{"result":null,"id":9}', b'{"recv_ns":"7","line":2}', b"[1]", b'{"line":1}', b"\xff"]
)
def test_anything_else_has_no_stamp(payload: bytes) -> None:
    assert stamp_of(payload) is None
