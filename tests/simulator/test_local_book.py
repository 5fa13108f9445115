"""A client that follows Binance's documented algorithm over real sockets has the market's book, at every speed."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from mpengine.simulator.market import BookBatch
from tests.simulator.rig import Running, market_of, receive, run, running, small

SYMBOLS = ("BTC", "ETH", "SOL")  # their events end at different places of a step
SPEEDS = ("", "@0ms", "@100ms", "@500ms")
Levels = dict[str, str]


@dataclass
class LocalBook:
    """The algorithm of exchanges.md 3.5, to the letter: a chain that breaks is an AssertionError."""

    bids: Levels = field(default_factory=dict)
    asks: Levels = field(default_factory=dict)
    low: float = 0.0
    high: float = 0.0
    buffer: deque[dict[str, Any]] = field(default_factory=deque)
    last: int | None = None
    number: int = 0
    applied: int = 0
    inside: bool = False
    """Whether the snapshot fell inside an event, not between two."""

    def start(self, snapshot: dict[str, Any]) -> bool:
        """Join the snapshot and what is buffered; False: it is older than the first event, fetch another."""
        number = snapshot["lastUpdateId"]
        events = [event for event in self.buffer if event["u"] >= number]
        if self.buffer[0]["U"] > number and self.buffer[0]["pu"] != number:
            return False
        self.bids = dict(snapshot["bids"])
        self.asks = dict(snapshot["asks"])
        self.low, self.high = float(snapshot["bids"][-1][0]), float(snapshot["asks"][-1][0])
        self.number = number
        self.last = events[0]["pu"] if events else self.buffer[-1]["u"]
        self.buffer.clear()
        for event in events:
            self.apply(event)
        return True

    def apply(self, event: dict[str, Any]) -> None:
        assert event["pu"] == self.last, "the chain broke"
        if not self.applied and event["u"] < self.number:
            self.last = event["u"]  # the reply has overtaken the socket
            return
        if not self.applied:
            assert event["U"] <= self.number <= event["u"] or event["pu"] == self.number, "the first event does not bridge"
            self.inside = event["U"] <= self.number < event["u"]
        for side, changes in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, quantity in changes:
                if float(quantity) == 0:
                    side.pop(price, None)
                else:
                    side[price] = quantity
        self.last = event["u"]
        self.applied += 1
        assert max(map(float, self.bids)) < min(map(float, self.asks))


class History:
    """Every book that the market has had: the first one and all batches since."""

    def __init__(self, one: Running) -> None:
        self.market = market_of(one)
        self.first = {s: (dict(m.book.bids.levels), dict(m.book.asks.levels)) for s, m in self.market.symbols.items()}
        self.batches: dict[str, list[BookBatch]] = {s: [] for s in self.market.symbols}
        venue = one.server.venues["binance"]
        publish = venue.publish

        def recorded(changes: Any) -> Any:
            for change in changes:
                self.batches[change.symbol.spec.symbol] += change.batches
            return publish(changes)

        venue.publish = recorded  # type: ignore[method-assign]

    def at(self, symbol: str, number: int) -> tuple[Levels, Levels]:
        """Texts of the book whose newest update is `number`."""
        spec = self.market.symbols[symbol].spec
        sides = tuple(dict(side) for side in self.first[symbol])
        for batch in self.batches[symbol]:
            for levels, changes in zip(sides, (batch.bids, batch.asks), strict=True):
                for tick, lots in changes.items():
                    levels.pop(tick, None)
                    if lots:
                        levels[tick] = lots
            if batch.last_id == number:
                lot = {"BTC": 3, "ETH": 3, "SOL": 2}[symbol]
                bids, asks = ({f"{t * spec.tick:.2f}": f"{q * spec.lot:.{lot}f}" for t, q in side.items()} for side in sides)
                return bids, asks
        raise AssertionError(f"{symbol}: no update {number}")


def assert_is_part_of(local: LocalBook, truth: tuple[Levels, Levels]) -> None:
    """Every known level is true, and inside the snapshot's range every true level is known."""
    for mine, theirs in zip((local.bids, local.asks), truth, strict=True):
        assert mine.items() <= theirs.items()
        covered = {price for price in theirs if local.low <= float(price) <= local.high}
        assert covered <= mine.keys()
        assert len(covered) > 100


async def follow(one: Running, books: dict[str, LocalBook], events: int) -> None:
    """Read all streams of a socket until every book has applied so many events."""
    async with one.connect("public", *books) as ws:
        fetches = []
        while any(book.applied < events for book in books.values()):
            message = await receive(ws)
            book, event = books[message["stream"]], message["data"]
            if book.last is not None:
                book.apply(event)
                continue
            book.buffer.append(event)
            if len(book.buffer) == 2:
                fetches.append(asyncio.create_task(join(one, message["stream"], book)))
        await asyncio.gather(*fetches)


async def join(one: Running, stream: str, book: LocalBook) -> None:
    symbol = stream.partition("@")[0].upper()
    while True:
        status, _, snapshot = await one.get(f"/binance/fapi/v1/depth?symbol={symbol}&limit=1000")
        assert status == 200
        if book.start(snapshot):
            return


def test_the_documented_algorithm_gives_the_markets_book() -> None:
    async def test() -> None:
        async with running(*(small(symbol, volatility=3.0) for symbol in SYMBOLS), speed=4.0) as one:
            history = History(one)
            books = {f"{symbol.lower()}usdt@depth{speed}": LocalBook() for symbol in SYMBOLS for speed in SPEEDS}
            await follow(one, books, 20)
            for stream, book in books.items():
                assert book.last is not None
                assert_is_part_of(book, history.at(stream.partition("usdt")[0].upper(), book.last))
            assert any(book.inside for book in books.values())

    run(test())


def test_two_sockets_of_one_stream_hand_over_by_their_ids() -> None:
    """Make before break: a second socket brings the same events, so the chain goes on over the change."""

    async def test() -> None:
        async with running(small(), speed=10.0) as one:
            book = LocalBook()
            async with one.connect("public", "btcusdt@depth@100ms") as first:
                book.buffer.append((await receive(first))["data"])
                await join(one, "btcusdt@depth@100ms", book)
                for _ in range(5):
                    book.apply((await receive(first))["data"])
                async with one.connect("public", "btcusdt@depth@100ms") as second:
                    ahead = (await receive(second))["data"]
                    assert book.last is not None
                    while book.last < ahead["pu"]:
                        book.apply((await receive(first))["data"])
                    if book.last == ahead["pu"]:
                        book.apply(ahead)
                    await first.close()
                    for _ in range(10):
                        event = (await receive(second))["data"]
                        if event["u"] > book.last:
                            book.apply(event)
            assert book.applied >= 12

    run(test())
