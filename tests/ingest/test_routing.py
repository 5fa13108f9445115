"""Records in = records out, in order, in batches within their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.ingest.routing import Ready, Router
from mpengine.venues.base import Routed
from shm.records import pack_clock

MS = 1_000_000
CLOCK = pack_clock(1)


def record(n: int, units: int = 1) -> bytes:
    return n.to_bytes(8, "little") + bytes(64 * units - 8)


def router(flush_bytes: int = 256, flush_ns: int = 4 * MS) -> tuple[Router, list[Ready]]:
    out: list[Ready] = []
    return Router(["BTC", "ETH"], flush_bytes, flush_ns, out.append), out


def test_a_batch_is_closed_when_it_is_full() -> None:
    one, out = router(256)
    one.route([Routed("BTC", record(n)) for n in range(6)], 0)
    assert [(r.records, r.first_seq, len(r.body)) for r in out] == [(4, 0, 256)]
    one.flush()
    assert [(r.records, r.first_seq) for r in out] == [(4, 0), (2, 4)]


def test_a_record_that_does_not_fit_closes_the_batch_before_it() -> None:
    one, out = router(256)
    one.route([Routed("BTC", record(0)), Routed("BTC", record(1, 4))], 0)
    assert [(r.records, len(r.body)) for r in out] == [(1, 64), (1, 256)]


def test_a_record_larger_than_the_limit_travels_alone() -> None:
    one, out = router(256)
    one.route([Routed("BTC", record(0)), Routed("BTC", record(1, 40)), Routed("BTC", record(2))], 0)
    one.flush()
    assert [(r.records, r.first_seq, len(r.body)) for r in out] == [(1, 0, 64), (1, 1, 2560), (1, 2, 64)]


def test_a_batch_is_closed_some_time_after_its_first_record() -> None:
    one, out = router(flush_ns=4 * MS)
    assert one.due_ns is None
    one.route([Routed("BTC", record(0))], 10 * MS)
    one.route([Routed("ETH", record(1))], 12 * MS)
    one.route([Routed("BTC", record(2))], 13 * MS)
    assert one.due_ns == 14 * MS
    one.flush_due(14 * MS - 1)
    assert out == []
    one.flush_due(14 * MS)
    assert [(r.symbol, r.records) for r in out] == [("BTC", 2)]
    assert one.due_ns == 16 * MS
    one.flush_due(16 * MS)
    assert [(r.symbol, r.records) for r in out] == [("BTC", 2), ("ETH", 1)]
    assert one.due_ns is None


def test_a_clock_event_ends_every_batch_and_says_when_it_is_alone() -> None:
    one, out = router()
    one.route([Routed("BTC", record(7))], 0)
    one.clock(CLOCK)
    assert [(r.symbol, r.body, r.clock_only) for r in out] == [("BTC", record(7) + CLOCK, False), ("ETH", CLOCK, True)]
    assert one.due_ns is None


def test_a_symbol_without_a_ring_is_counted() -> None:
    one, out = router()
    one.route([Routed("DOGE", record(0)), Routed("BTC", record(1))], 0)
    one.flush()
    assert one.unknown == 1
    assert [r.symbol for r in out] == ["BTC"]


@pytest.mark.parametrize(("size", "time"), [(0, 1), (1, 0)])
def test_bounds_below_one_are_refused(size: int, time: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        router(size, time)


Steps = st.lists(
    st.one_of(
        st.tuples(st.just("route"), st.lists(st.tuples(st.sampled_from(["BTC", "ETH"]), st.integers(1, 9)), max_size=9)),
        st.tuples(st.just("clock"), st.none()),
        st.tuples(st.just("wait"), st.integers(0, 9)),
        st.tuples(st.just("flush"), st.none()),
    ),
    max_size=40,
)


@given(Steps, st.integers(64, 600))
def test_everything_comes_out_once_in_order_and_within_bounds(steps: list[tuple[str, object]], flush_bytes: int) -> None:
    one, out = router(flush_bytes, 4 * MS)
    sent: dict[str, list[bytes]] = {"BTC": [], "ETH": []}
    now, count = 0, 0
    for what, value in steps:
        match value:
            case list():
                events = []
                for symbol, units in value:
                    data = record(count, units)
                    count += 1
                    sent[symbol].append(data)
                    events.append(Routed(symbol, data))
                one.route(events, now)
            case int():
                now += value * MS
                if one.due_ns is not None and one.due_ns <= now:
                    one.flush_due(now)
                assert one.due_ns is None or one.due_ns > now
            case _ if what == "clock":
                one.clock(CLOCK)
                for records in sent.values():
                    records.append(CLOCK)
                assert one.due_ns is None
            case _:
                one.flush()
    one.flush()
    for symbol, records in sent.items():
        batches = [r for r in out if r.symbol == symbol]
        assert b"".join(r.body for r in batches) == b"".join(records)
        assert sum(r.records for r in batches) == len(records)
        expected = 0
        for batch in batches:
            assert batch.first_seq == expected
            expected += batch.records
            payload = batch.body.removesuffix(CLOCK)
            assert len(payload) <= flush_bytes or batch.records - (payload != batch.body) == 1
            assert batch.clock_only == (batch.body == CLOCK)
