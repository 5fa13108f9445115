"""Every venue over one synthetic market, from the wire to what engines publish: in one process, on market time, without sockets.

What the issue of the venues must show and sockets would only make slow: canaries that see a flipped side within 50 events, a venue
that is gone for ten minutes, books that are the market's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from mpengine import venues
from mpengine.config import DEMO_VENUES, Settings, load
from mpengine.engine.core import CandleOut, DocumentOut, FrameOut
from mpengine.schemas import BookDocument, OiDocument, StatusDocument, decode
from mpengine.simulator.loopback import Loopback, build
from mpengine.venues.base import Routed, VenueModule
from shm.frames import Frame
from shm.records import CandleField, Coverage, DocumentId, Kind, PositionSide, Venue

START_NS = 1_790_000_040 * 10**9
LIQUIDATING = ("binance", "bybit", "okx")
OTHER_SIDE = {PositionSide.LONG: PositionSide.SHORT, PositionSide.SHORT: PositionSide.LONG}


def settings(*overrides: str) -> Settings:
    return load("[symbols.BTC]\n", {}, [*DEMO_VENUES, *overrides])


def documents(loop: Loopback, which: DocumentId, kind: type[Any]) -> list[Any]:
    found = [one for one in loop.outputs["BTC"] if isinstance(one, DocumentOut) and one.document is which]
    return [decode(one.data, kind) for one in found]


def frames(loop: Loopback) -> list[Frame]:
    return [one.frame for one in loop.outputs["BTC"] if isinstance(one, FrameOut)]


def candles(loop: Loopback) -> list[np.void]:
    return [one.record[()] for one in loop.outputs["BTC"] if isinstance(one, CandleOut)]


def drive(loop: Loopback, enough: Callable[[], bool], seconds: int = 1800) -> None:
    """Run, with the price driven up and down over positions by turns of a minute, until `enough`."""
    market = loop.market.symbols["BTC"]
    for second in range(seconds):
        if enough():
            return
        if second % 60 == 0:
            market.force(PositionSide.LONG if second // 60 % 2 else PositionSide.SHORT, 2e6)
        loop.run(1)
    raise AssertionError(f"not within {seconds} s of the market")


def seen(loop: Loopback, venue: str) -> int:
    return sum(loop.links[venue].module.counters.liquidations.values())


def flipped(module: VenueModule) -> VenueModule:
    """The same module with long and short changed in its liquidations: the defect that the canaries are for."""
    drain = module.events

    def events() -> list[Routed]:
        return [Routed(symbol, _flip(data)) for symbol, data in drain()]

    module.events = events  # type: ignore[method-assign]
    return module


def _flip(data: bytes) -> bytes:
    if data[0] != Kind.LIQUIDATION:
        return data
    return data[:2] + bytes([OTHER_SIDE[PositionSide(data[2])]]) + data[3:]


def canaries(loop: Loopback) -> dict[str, bool]:
    status: StatusDocument = documents(loop, DocumentId.STATUS, StatusDocument)[-1]
    return {
        venue: one.return_sign.alarm or (one.price_side is not None and one.price_side.alarm)
        for venue, one in status.canaries.items()
    }


@pytest.mark.covers("A1-L20")
def test_flipped_sides_turn_the_canaries_red_within_50_events() -> None:
    chosen = settings()
    loop = build(chosen, 5, START_NS, [flipped(module) for module in venues.build(chosen)])
    red: dict[str, int] = {}

    def all_red() -> bool:
        for venue, alarm in canaries(loop).items() if seen(loop, "binance") else ():
            if alarm:
                red.setdefault(venue, seen(loop, venue))
        return set(red) == set(LIQUIDATING)

    drive(loop, all_red)
    assert all(events <= 50 for events in red.values()), red


@pytest.mark.stress
@pytest.mark.parametrize("venue", LIQUIDATING)
def test_a_flipped_side_turns_the_canary_of_its_venue_red_within_50_events(venue: str) -> None:
    chosen = settings()
    modules = [flipped(module) if module.venue.label == venue else module for module in venues.build(chosen)]
    loop = build(chosen, 5, START_NS, modules)
    drive(loop, lambda: seen(loop, venue) >= 50)
    loop.run(2)
    found = canaries(loop)
    assert found[venue]
    assert not any(alarm for other, alarm in found.items() if other != venue), "and only its own"


def test_canaries_of_right_sides_stay_green() -> None:
    loop = build(settings(), 6, START_NS)
    drive(loop, lambda: all(seen(loop, venue) >= 60 for venue in LIQUIDATING), 3600)
    loop.run(2)
    assert canaries(loop) == dict.fromkeys(LIQUIDATING, False)


@pytest.fixture(scope="module")
def a_minute() -> Loopback:
    loop = build(settings(), 7, START_NS)
    loop.run(65)
    return loop


@pytest.mark.parametrize("venue", ["binance", "bybit", "okx"])
def test_every_venues_book_is_the_markets(venue: str, a_minute: Loopback) -> None:
    loop = a_minute
    market, book = loop.market.symbols["BTC"], loop.cores["BTC"].books[Venue[venue.upper()]]
    assert book.state == "synced"
    assert book.ladder is not None
    tick, lot = market.spec.tick, market.spec.lot
    # A Binance diff may end in the middle of a step; away from the touch nothing changes that often.
    wanted = dict(market.book.bids.top(100)) | dict(market.book.asks.top(100))
    found = {round(price / tick): qty for side in book.ladder.levels() for price, qty in side}
    right = sum(abs(found.get(price, 0.0) - lots * lot) < lot / 2 for price, lots in wanted.items())
    assert right >= 0.9 * len(wanted) if venue == "binance" else right == len(wanted)


@pytest.mark.covers("A1-M15")
def test_a_venue_that_is_gone_for_ten_minutes_leaves_no_step_in_open_interest_and_is_shown_as_missing() -> None:
    chosen = settings()
    loop = build(chosen, 8, START_NS)
    loop.run(300)
    before = len(candles(loop)), len(frames(loop))
    loop.cut("bybit")
    loop.run(600)
    during_candles, during_frames = candles(loop)[before[0] :], frames(loop)[before[1] :]
    middle = len(candles(loop)), len(frames(loop))
    last_down = documents(loop, DocumentId.BOOK, BookDocument)[-1]
    oi_down: OiDocument = documents(loop, DocumentId.OI, OiDocument)[-1]
    loop.restore("bybit")
    loop.run(240)
    after_candles, after_frames = candles(loop)[middle[0] :], frames(loop)[middle[1] :]

    every = candles(loop)
    usual = max(abs(bar["oi_delta_base"]) for bar in every[: before[0]] if bar["present"] & CandleField.OI_DELTA)
    total = every[before[0] - 1]["oi_base"]
    for bar in [*during_candles, *after_candles]:
        assert bar["present"] & CandleField.OI_DELTA
        assert abs(bar["oi_delta_base"]) < max(10 * usual, 0.02 * total), (
            "a venue's share is 30 %: its going or coming would be seen"
        )
        assert bar["close"] > 0
    gone = [bar for bar in during_candles[2:] if not bar["present"] & CandleField.OI_BYBIT]
    assert len(gone) == len(during_candles) - 2
    assert all(bar["present"] & CandleField.OI_BYBIT for bar in after_candles[2:])

    assert len(during_frames) == 20
    assert not any(frame.venues & Venue.BYBIT.bit for frame in during_frames[1:])
    assert all(frame.venues & Venue.BINANCE.bit and frame.venues & Venue.OKX.bit for frame in during_frames)
    assert all(frame.coverage & Coverage.STALE_SOURCE for frame in during_frames[1:])
    assert last_down.books["bybit"].state == "unsynced"
    assert last_down.books["binance"].state == last_down.books["okx"].state == "synced"
    assert oi_down.total_base is not None
    assert oi_down.written_ns - oi_down.venues["bybit"].recv_ns > 500 * 10**9, "its last value is kept, with its age"
    assert all(frame.venues & Venue.BYBIT.bit for frame in after_frames[2:]), "and comes back"

    # What is left of the other venues is not diluted: their own walls are where they were.
    with_all, without = during_frames[0], during_frames[5]
    assert 0.3 * (with_all.total_a + with_all.total_b) < without.total_a + without.total_b


def test_equal_markets_give_equal_states() -> None:
    states = []
    for _ in range(2):
        loop = build(settings(), 9, START_NS)
        loop.run(45)
        states.append(msgspec.msgpack.encode(loop.cores["BTC"].state_of()))
    assert states[0] == states[1]
