"""Snapshot requests: who may ask when, and how they are answered."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from mpengine.ingest import snapshots as module
from mpengine.ingest.feeds import Feed, Life
from mpengine.ingest.snapshots import BoardWishes, RecordWishes, SnapshotDesk, SnapshotSchedule, book_flows
from mpengine.ingest.watchdog import SECOND, SocketWatch
from mpengine.venues.base import RestCall, RestResult, SocketPlan, StreamPlan
from shm.board import Board, BoardReader, BoardRow, RowName
from shm.board_words import Role, Word, resync_word
from shm.records import Kind, Venue
from tests.ingest.rig import DEPTH, TRADES, FakeVenue, Rig, message, plan, run, running, until


def at(seconds: float) -> int:
    return int(seconds * SECOND)


def test_one_request_per_symbol_and_interval() -> None:
    schedule = SnapshotSchedule(10)
    assert schedule.take(at(0)) is None
    schedule.ask("BTC")
    schedule.ask("BTC")
    assert schedule.take(at(0)) == "BTC"
    assert schedule.waiting == 0
    schedule.done("BTC", True, at(1))
    schedule.ask("BTC")
    assert schedule.take(at(9.9)) is None
    assert schedule.take(at(10)) == "BTC"


def test_one_at_a_time_and_one_per_second_over_the_venue() -> None:
    schedule = SnapshotSchedule(10)
    for symbol in ("BTC", "ETH", "SOL"):
        schedule.ask(symbol)
    assert schedule.take(at(0)) == "BTC"
    assert schedule.take(at(5)) is None  # BTC is still on its way
    schedule.done("BTC", True, at(5))
    assert schedule.take(at(5)) == "ETH"
    schedule.done("ETH", True, at(5.1))
    assert schedule.take(at(5.9)) is None
    assert schedule.take(at(6)) == "SOL"


@pytest.mark.covers("F10")
def test_a_failed_request_is_repeated_with_doubling_waits() -> None:
    schedule = SnapshotSchedule(10)
    schedule.ask("BTC")
    taken = []
    for second in range(400):
        if schedule.take(at(second)):
            taken.append(second)
            schedule.done("BTC", False, at(second))
    assert [after - before for before, after in itertools.pairwise(taken)] == [10, 20, 40, 80, 120, 120]


@pytest.mark.covers("F10")
def test_a_request_that_may_not_be_sent_is_no_failure_and_goes_out_after_the_pause() -> None:
    schedule = SnapshotSchedule(10)
    schedule.ask("BTC")
    schedule.ask("ETH")
    sent = []
    for second in range(200):
        if symbol := schedule.take(at(second)):
            if second < 150:  # the venue's REST is paused
                schedule.put_off(symbol, at(second))
            else:
                sent.append((symbol, second))
                schedule.done(symbol, True, at(second))
    assert sorted(sent) == [("BTC", 150), ("ETH", 151)] or sorted(sent) == [("BTC", 151), ("ETH", 150)]


def test_a_symbol_that_must_wait_does_not_hold_up_the_next() -> None:
    schedule = SnapshotSchedule(10)
    schedule.ask("BTC")
    schedule.take(at(0))
    schedule.done("BTC", False, at(0))
    schedule.ask("ETH")
    assert schedule.take(at(2)) == "ETH"


class FakeRest:
    def __init__(self, *results: RestResult | None) -> None:
        self.results = list(results)
        self.calls: list[RestCall] = []

    async def request(self, call: RestCall) -> RestResult | None:
        self.calls.append(call)
        await asyncio.sleep(0)
        return self.results.pop(0) if self.results else RestResult.OK


class FakeKeeper:
    def __init__(self, sockets: SocketPlan, lives: int = 1) -> None:
        self.plan = sockets
        self.lives = lives
        self.again: list[str] = []

    def resubscribe(self, stream: str) -> bool:
        self.again.append(stream)
        return self.lives > 0


class Wishes:
    def __init__(self) -> None:
        self.wanted: list[str] = []

    def __call__(self, now_ns: int) -> Iterable[str]:
        wanted, self.wanted = self.wanted, []
        return wanted


def test_a_wish_is_answered_by_rest_and_counted() -> None:
    async def main() -> None:
        rig, rest, wishes = Rig(FakeVenue([plan()])), FakeRest(), Wishes()
        desk = SnapshotDesk(rig.feed, rest, [], rig.counts, 10)
        wishes.wanted = ["BTC"]
        async with running(desk.run(wishes)):
            await until(lambda: rig.counts.get(Word.RESYNC_DONE) == 1)
        assert [(call.name, call.symbol) for call in rest.calls] == [("depth", "BTC")]

    run(main())


def test_a_failed_answer_is_tried_again_and_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(module, "VENUE_GAP_S", 0.01)
        rig, wishes = Rig(FakeVenue([plan()])), Wishes()
        rest = FakeRest(RestResult.TRANSIENT, RestResult.TRANSIENT, RestResult.OK)
        desk = SnapshotDesk(rig.feed, rest, [], rig.counts, 0.01)
        wishes.wanted = ["BTC"]
        async with running(desk.run(wishes)):
            await until(lambda: rig.counts.get(Word.RESYNC_DONE) == 1)
        assert len(rest.calls) == 3

    run(main())


def test_while_rest_is_paused_an_answer_waits_without_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        monkeypatch.setattr(module, "VENUE_GAP_S", 0.01)
        rig, rest, wishes = Rig(FakeVenue([plan()])), FakeRest(*[None] * 8), Wishes()
        desk = SnapshotDesk(rig.feed, rest, [], rig.counts, 30)
        wishes.wanted = ["BTC"]
        async with running(desk.run(wishes)):
            await until(lambda: rig.counts.get(Word.RESYNC_DONE) == 1)  # long before the interval of a failure
        assert len(rest.calls) == 9 and "failed" not in caplog.text

    run(main())


def test_a_venue_whose_subscriptions_bring_snapshots_is_asked_on_the_socket_that_carries_the_book() -> None:
    async def main() -> None:
        eth = StreamPlan("eth", "ETH", Kind.DEPTH, 5, 15, True, "resubscribe")
        books, trades = plan(name="books", streams=(DEPTH, eth)), plan(name="trades", streams=(TRADES,))
        rig, rest = Rig(FakeVenue([books, trades], wire_snapshots=True)), FakeRest()
        keepers = [FakeKeeper(books), FakeKeeper(trades)]
        desk = SnapshotDesk(rig.feed, rest, keepers, rig.counts, 0.01)
        wishes = Wishes()
        wishes.wanted = ["BTC"]
        async with running(desk.run(wishes)):
            await until(lambda: rig.counts.get(Word.RESYNC_DONE) == 1)
        assert [keeper.again for keeper in keepers] == [["depth"], []]
        assert rest.calls == []

    run(main())


def test_without_a_connection_the_next_one_brings_the_snapshot() -> None:
    async def main() -> None:
        rig = Rig(FakeVenue([plan()], wire_snapshots=True))
        keeper = FakeKeeper(plan(), lives=0)
        desk = SnapshotDesk(rig.feed, FakeRest(), [keeper], rig.counts, 0.01)
        assert await desk._resubscribe("BTC")
        assert keeper.again == ["depth"]
        assert rig.counts.get(Word.RESYNC_DONE) == 0

    run(main())


def test_a_snapshot_that_the_wire_does_not_bring_comes_by_rest_and_keeps_no_subscription_waiting() -> None:
    async def main() -> None:
        rig, wishes = Rig(FakeVenue([plan()], wire_snapshots=True)), Wishes()
        asked: list[RestCall] = []

        class HangingRest:
            async def request(self, call: RestCall) -> RestResult | None:
                asked.append(call)
                await asyncio.sleep(30)
                return RestResult.OK

        keeper = FakeKeeper(plan())
        desk = SnapshotDesk(rig.feed, HangingRest(), [keeper], rig.counts, 0.01, lambda: rig.intake.overdue(rig.feed))
        async with running(desk.run(wishes)):
            rig.venue.overdue = ["BTC"]
            await until(lambda: [call.symbol for call in asked] == ["BTC"])
            wishes.wanted = ["BTC"]
            await until(lambda: keeper.again == ["depth"])

    run(main())


def test_words_from_before_the_start_are_answered_by_the_connection_itself(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", [RowName("engine-BTC", Role.ENGINE, 0)], {1: "ingest"})
    row = BoardRow.attach(tmp_path / "board", 0)
    row.set(resync_word(Venue.BYBIT), 4)
    with BoardReader.open(tmp_path / "board") as reader:
        wishes = BoardWishes(reader, {"BTC": 0}, Venue.BYBIT, lambda _symbol: True, fresh=True)
        assert wishes(0) == []
        row.set(resync_word(Venue.BYBIT), 5)
        assert (wishes(0), wishes(0)) == (["BTC"], [])
    row.close()
    board.close()


@pytest.mark.covers("F1")
def test_engines_ask_through_their_rows_on_the_board(tmp_path: Path) -> None:
    rows = [RowName("ingest", Role.INGEST, 0), RowName("engine-BTC", Role.ENGINE, 0), RowName("engine-ETH", Role.ENGINE, 1)]
    board = Board.create(tmp_path / "board", rows, {1: "ingest"})
    btc, eth = (BoardRow.attach(tmp_path / "board", n) for n in (1, 2))
    word = resync_word(Venue.BINANCE)
    with BoardReader.open(tmp_path / "board") as reader:
        btc.set(word, 3)  # raised while no ingest was here
        wishes = BoardWishes(reader, {"BTC": 1, "ETH": 2}, Venue.BINANCE, lambda _symbol: True)
        assert wishes(0) == ["BTC"]
        assert wishes(0) == []
        btc.set(word, 4)
        eth.set(word, 1)
        assert wishes(0) == ["BTC", "ETH"]
        btc.set(resync_word(Venue.OKX), 9)
        assert wishes(0) == []
        btc.set(word, 0)  # a new engine that asks for nothing
        assert wishes(0) == []
        btc.set(word, 1)
        assert wishes(0) == ["BTC"]
    for row in (btc, eth):
        row.close()
    board.close()


def test_a_request_waits_until_the_book_flows(tmp_path: Path) -> None:
    sockets = plan(streams=(StreamPlan("depth", "BTC", Kind.DEPTH, 5, 30, True),))
    venue = FakeVenue([sockets])
    feed = Feed(venue)
    board = Board.create(tmp_path / "board", [RowName("engine-BTC", Role.ENGINE, 0)], {1: "ingest"})
    row = BoardRow.attach(tmp_path / "board", 0)
    row.set(resync_word(Venue.BINANCE), 1)
    with BoardReader.open(tmp_path / "board") as reader:
        wishes = BoardWishes(reader, {"BTC": 0}, Venue.BINANCE, lambda symbol: book_flows(feed, symbol))
        assert wishes(0) == []
        feed.begin(Life("public#1", sockets, 0, SocketWatch(sockets, 0, 1.0)))
        venue.opened("public#1", 0)
        venue.receive("public#1", message(1, "depth").encode(), 1)
        assert wishes(0) == []
        venue.receive("public#1", message(2, "depth").encode(), 2)
        assert (wishes(0), wishes(0)) == (["BTC"], [])
    row.close()
    board.close()


def test_a_recording_wants_each_book_after_a_connect_and_now_and_then() -> None:
    eth = StreamPlan("eth", "ETH", Kind.DEPTH, 5, 30, True)
    sockets = plan(streams=(DEPTH, eth, TRADES))
    venue = FakeVenue([sockets])
    feed = Feed(venue)
    wishes = RecordWishes(feed)
    assert wishes(0) == []

    def connect(name: str) -> None:
        feed.begin(Life(name, sockets, 0, SocketWatch(sockets, 0, 1.0)))
        venue.opened(name, 0)

    def deliver(name: str, stream: str) -> None:
        venue.receive(name, message(1, stream).encode(), 1)

    connect("public#1")
    deliver("public#1", "depth")
    assert wishes(at(1)) == []  # the book needs diffs before its snapshot
    deliver("public#1", "depth")
    assert wishes(at(1)) == ["BTC"]
    assert wishes(at(300.9)) == []
    assert wishes(at(301)) == ["BTC"]
    feed.lives.clear()
    assert wishes(at(302)) == []
    connect("public#2")
    for stream in ("depth", "depth", "eth", "eth", "trades", "trades"):
        deliver("public#2", stream)
    assert wishes(at(303)) == ["BTC", "ETH"]
