"""The way of one message: guarded, counted, captured, routed; and stamped messages in the order of their capture."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from mpengine.config import CaptureSettings
from mpengine.ingest.capture_file import CaptureHeader, read_capture
from mpengine.ingest.counts import Counts
from mpengine.ingest.feeds import Feed, Life
from mpengine.ingest.intake import StampedIntake
from mpengine.ingest.merge import Key
from mpengine.ingest.recorder import Recorder, capture_files
from mpengine.ingest.watchdog import SocketWatch
from mpengine.venues.base import RestCall
from shm.board_words import Word
from shm.records import Venue, decode
from tests.ingest.rig import TRADES, FakeVenue, Rig, Sink, message, plan, run

CALL = RestCall("oi", "BTC", "/oi", 1, interval_s=15)


def life_of(feed: Feed, name: str = "public#1", index: int = 0) -> Life:
    sockets = feed.plans[index]
    return Life(name, sockets, 0, SocketWatch(sockets, 0, 1.0))


def opened(rig: Rig) -> Life:
    life = life_of(rig.feed)
    rig.intake.opened(rig.feed, life, time.time_ns())
    return life


def test_a_message_becomes_a_record_within_the_flush_time() -> None:
    async def main() -> None:
        rig = Rig(FakeVenue([plan()]))
        rig.sink = Sink(10_000)
        rig.intake._router = rig.sink.router
        life = opened(rig)
        rig.intake.message(rig.feed, life, message(7).encode(), 5_000_000_000)
        rig.intake.message(rig.feed, life, message(8).encode(), 5_000_000_001)
        assert rig.sink.batches == []
        while not rig.sink.batches:
            await asyncio.sleep(0.001)
        assert rig.sink.numbers == [7, 8]
        assert len(rig.sink.batches) == 1
        assert (rig.counts.get(Word.MESSAGES), rig.counts.get(Word.EVENTS)) == (2, 2)
        assert rig.counts.get(Word.BYTES_IN) == 2 * len(message(7))
        assert rig.feed.seen_wall_ns == 5_000_000_001

    run(main())


@pytest.mark.covers("A1-M13")
def test_a_module_that_raises_is_logged_and_counted_and_the_next_message_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        rig = Rig(FakeVenue([plan()]))
        life = opened(rig)
        for n in range(5):
            rig.intake.message(rig.feed, life, b'{"boom":1}', 1)
            rig.intake.message(rig.feed, life, message(n).encode(), 1)
        rig.intake.reply(rig.feed, CALL, 200, b"boom", 1)
        rig.intake.reply(rig.feed, CALL, 200, b"fine", 1)
        assert rig.counts.get(Word.HANDLER_ERRORS) == 6
        assert rig.sink.records == [*(("TRADE", n) for n in range(5)), ("OPEN_INTEREST", 0)]

    run(main())
    [record] = caplog.records  # one line for six errors of one kind
    assert record.exc_info is not None
    assert "boom" in record.getMessage()


@pytest.mark.covers("A1-M13")
def test_a_module_that_raises_in_any_other_door_costs_nothing_else() -> None:
    class Broken(FakeVenue):
        def opened(self, connection: str, recv_ns: int) -> None:
            raise RuntimeError("opened")

        def lost(self, connection: str, recv_ns: int, *, replaced: bool) -> None:
            raise RuntimeError("lost")

        def data_to_send(self, connection: str) -> list[str]:
            raise RuntimeError("say")

        def judge(self, *_args: Any) -> Any:
            raise RuntimeError("judge")

    async def main() -> None:
        rig = Rig(Broken([plan()]))
        life = opened(rig)
        assert rig.intake.texts(rig.feed, life) == []
        assert rig.intake.judge(rig.feed, CALL, 200, {}, b"").result.name == "TRANSIENT"
        rig.intake.lost(rig.feed, life, 1, replaced=False, reason="")
        assert rig.feed.lives == {}
        assert rig.counts.get(Word.HANDLER_ERRORS) == 4

    run(main())


def test_the_clock_goes_to_every_ring_and_a_lost_connection_leaves_a_gap() -> None:
    async def main() -> None:
        rig = Rig(FakeVenue([plan()]))
        life = opened(rig)
        rig.intake.tick(123)
        rig.intake.lost(rig.feed, life, 456, replaced=False, reason="closed")
        rig.intake.flush()
        assert [b.symbol for b in rig.sink.batches] == ["BTC", "ETH", "BTC"]
        assert [kind for kind, _ in rig.sink.records] == ["CLOCK", "GAP"]
        rig.intake.lost(rig.feed, life, 456, replaced=True, reason="")
        rig.intake.flush()
        assert len(rig.sink.batches) == 3

    run(main())


def test_the_capture_holds_everything_that_passed(tmp_path: Path) -> None:
    def header(created_ns: int) -> CaptureHeader:
        return CaptureHeader(created_ns=created_ns, instance="t", symbols={}, config_hash="")

    async def main() -> None:
        recorder = Recorder(tmp_path, CaptureSettings(), header)
        recorder.start()
        rig = Rig(FakeVenue([plan("ws://host/x")]), recorder)
        life = life_of(rig.feed)
        rig.intake.opened(rig.feed, life, 10)
        rig.intake.sent(rig.feed, life, "subscribe")
        rig.intake.message(rig.feed, life, b"{boom", 12)
        rig.intake.message(rig.feed, life, message(1).encode(), 13)
        rig.intake.reply(rig.feed, CALL, 200, b"{}", 14)
        rig.intake.failed_reply(rig.feed, CALL, 503, b"down", 15)
        rig.intake.lost(rig.feed, life, 16, replaced=True, reason="ignored")
        rig.intake.lost(rig.feed, life, 17, replaced=False, reason="why")
        assert recorder.close(5)

    run(main())
    [path] = capture_files(tmp_path)
    lines = list(read_capture(path))
    assert [(ln.direction, ln.connection, ln.payload, ln.call, ln.symbol, ln.status) for ln in lines] == [
        ("open", "public#1", b"ws://host/x", None, None, None),
        ("out", "public#1", b"subscribe", None, None, None),
        ("in", "public#1", b"{boom", None, None, None),
        ("in", "public#1", message(1).encode(), None, None, None),
        ("rest", "rest", b"{}", "oi", "BTC", 200),
        ("rest", "rest", b"down", "oi", "BTC", 503),
        ("lost", "public#1", b"replaced", None, None, None),
        ("lost", "public#1", b"why", None, None, None),
    ]
    assert [ln.recv_ns for ln in lines if ln.direction != "out"] == [10, 12, 13, 14, 15, 16, 17]


def stamped(n: int, recv_ns: int, stream: str = "depth") -> bytes:
    return message(n, stream, recv_ns=recv_ns, line=n).encode()


class StampedRig:
    """Two sockets of one venue behind a `StampedIntake` with a grid of 100 ns."""

    def __init__(self) -> None:
        self.venue = FakeVenue([plan(name="public"), plan(name="market", streams=(TRADES,))])
        self.feed = Feed(self.venue)
        self.counts = Counts()
        self.sink = Sink()
        self.intake = StampedIntake(self.sink.router, None, self.counts, lambda _s, _c: None, 1.0, [self.feed], 100)
        self.public, self.market = life_of(self.feed, "public#1"), life_of(self.feed, "market#1", 1)
        for life in (self.public, self.market):
            self.intake.opened(self.feed, life, 1)

    def ticks_and_numbers(self) -> list[int]:
        """Records of BTC: a trade as its number, a tick as minus its time."""
        self.intake.flush()
        decoded = [d for b in self.sink.batches if b.symbol == "BTC" for d in decode(b.body)]
        return [-d.fields["recv_ts_ns"] if d.kind.name == "CLOCK" else d.fields["seq"] for d in decoded]


def test_stamped_messages_come_out_in_the_order_of_the_capture_with_its_ticks() -> None:
    rig = StampedRig()
    rig.intake.message(rig.feed, rig.market, stamped(2, 1_050, "trades"), 9)
    rig.intake.message(rig.feed, rig.market, stamped(4, 1_310, "trades"), 9)
    assert rig.ticks_and_numbers() == []
    rig.intake.message(rig.feed, rig.public, stamped(1, 1_010), 9)
    rig.intake.message(rig.feed, rig.public, stamped(3, 1_300), 9)
    assert rig.ticks_and_numbers() == [-1_000, 1, 2, -1_100, -1_200, -1_300, 3]
    rig.intake.message(rig.feed, rig.public, b'{"stream":"!clock","recv_ns":1420,"line":5}', 9)
    assert rig.ticks_and_numbers()[-1:] == [4]
    rig.intake.message(rig.feed, rig.market, b'{"stream":"!clock","recv_ns":1420,"line":5,"end":true}', 9)
    rig.intake.message(rig.feed, rig.public, b'{"stream":"!clock","recv_ns":1420,"line":5,"end":true}', 9)
    assert rig.ticks_and_numbers()[-2:] == [4, -1_400]
    assert rig.counts.get(Word.MESSAGES) == 4  # clocks are no messages
    assert rig.counts.get(Word.LATE_EVENTS) == 0


def test_a_stamped_reply_takes_its_place_and_an_unstamped_one_the_present() -> None:
    rig = StampedRig()
    rig.intake.reply(rig.feed, CALL, 200, b"{}", 9, Key(1_020, 2))
    rig.intake.message(rig.feed, rig.public, stamped(3, 1_030), 9)
    rig.intake.message(rig.feed, rig.market, stamped(1, 1_010, "trades"), 9)
    rig.intake.message(rig.feed, rig.market, stamped(4, 1_040, "trades"), 9)
    assert rig.ticks_and_numbers() == [-1_000, 1, 0, 3]
    rig.intake.reply(rig.feed, CALL, 200, b"{}", 9)
    decoded = [d for b in rig.sink.batches for d in decode(b.body)]
    assert [d.fields["recv_ts_ns"] for d in decoded if d.kind.name == "OPEN_INTEREST"] == [1_020, 1_030]


def test_nothing_overtakes_a_snapshot_that_is_asked_for() -> None:
    rig, depth = StampedRig(), RestCall("depth", "BTC", "/depth", 20)
    for call in (CALL, depth):  # a poll holds nothing up
        rig.intake.asked(call)
    for n, life, stream in ((1, rig.public, "depth"), (3, rig.public, "depth"), (4, rig.market, "trades")):
        rig.intake.message(rig.feed, life, stamped(n, 1_000 + n, stream), 9)
    assert rig.ticks_and_numbers() == []
    rig.intake.reply(rig.feed, depth, 200, b"{}", 9, Key(1_002, 2))
    rig.intake.answered(depth)
    assert rig.ticks_and_numbers() == [-1_000, 1, 0, 3]


def test_unstamped_messages_pass_and_the_wall_clock_moves_nothing() -> None:
    rig = StampedRig()
    rig.intake.message(rig.feed, rig.public, b"pong", 9)
    assert rig.venue.probe_reply("public#1") == 9
    rig.intake.tick(10**18)
    assert rig.ticks_and_numbers() == []


def test_the_end_of_a_connection_carries_the_time_of_the_capture() -> None:
    rig = StampedRig()
    for life, stream in ((rig.public, "depth"), (rig.market, "trades")):
        rig.intake.message(rig.feed, life, stamped(1, 1_010, stream), 9)
    rig.intake.lost(rig.feed, rig.public, 10**18, replaced=False, reason="")
    rig.intake.flush()
    decoded = [d for b in rig.sink.batches for d in decode(b.body)]
    assert [d.fields["recv_ts_ns"] for d in decoded if d.kind.name == "GAP"] == [1_010]


def test_a_venue_that_the_capture_does_not_hold_keeps_nobody_waiting() -> None:
    """Venues with sockets of their own name, one of which the server of the capture does not know."""
    rig = StampedRig()
    linear = plan(name="linear", streams=(TRADES,))
    other = Feed(FakeVenue([linear, plan(name="linear-2", streams=(TRADES,))], venue=Venue.BYBIT))
    merged = StampedIntake(rig.sink.router, None, rig.counts, lambda _s, _c: None, 1.0, [rig.feed, other], 100)
    rig.intake, life = merged, life_of(other, "linear#1")
    merged.opened(other, life, 1)
    merged.message(rig.feed, rig.public, stamped(1, 1_010), 9)
    merged.message(rig.feed, rig.market, stamped(2, 1_020, "trades"), 9)
    merged.message(other, life, stamped(3, 1_030, "trades"), 9)
    assert rig.ticks_and_numbers() == []
    merged.absent(other, other.plans[1])
    assert rig.ticks_and_numbers() == [-1_000, 1]  # up to the oldest of the newest stamps
    merged.message(rig.feed, rig.public, stamped(4, 1_040), 9)
    merged.message(rig.feed, rig.market, stamped(5, 1_050, "trades"), 9)
    assert rig.ticks_and_numbers() == [-1_000, 1, 2, 3]
    assert rig.counts.get(Word.LATE_EVENTS) == 0


def test_a_module_that_raises_when_it_is_asked_something_is_logged_and_has_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Raising(FakeVenue):
        def snapshots_overdue(self, recv_ns: int) -> list[str]:
            raise RuntimeError("overdue")

        def replacements_wanted(self) -> list[str]:
            raise LookupError("ends")

        def unlisted(self) -> frozenset[str]:
            raise KeyError("unlisted")

        def resubscribe(self, connection: str, stream: str, recv_ns: int) -> bool:
            raise ValueError("again")

    rig = Rig(Raising([plan()]))
    life = life_of(rig.feed, "public#1")
    assert rig.intake.overdue(rig.feed) == rig.intake.replacements(rig.feed) == []
    assert rig.intake.unlisted(rig.feed) == frozenset()
    assert not rig.intake.resubscribe(rig.feed, life, "depth")
    assert rig.counts.get(Word.HANDLER_ERRORS) == 4
    assert len(caplog.records) == 4
