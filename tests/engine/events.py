"""Records as tests write them: times in seconds, levels as pairs."""

from __future__ import annotations

from array import array

from mpengine.engine.book import Diff
from mpengine.engine.ladder import LevelBlock
from shm.records import (
    EventFlag,
    GapScope,
    Kind,
    PositionSide,
    RatioKind,
    TakerSide,
    Venue,
    pack_clock,
    pack_event,
    pack_gap,
    pack_levels,
)

SECOND = 1_000_000_000
T0 = 1_700_000_040 * SECOND  # a full minute

Levels = list[tuple[float, float]]


def ns(seconds: float) -> int:
    return T0 + round(seconds * SECOND)


def level_bytes(bids: Levels, asks: Levels) -> bytes:
    return array("d", [number for level in (*bids, *asks) for number in level]).tobytes()


def diff(first: int, last: int, previous: int, bids: Levels, asks: Levels, flags: int = 0) -> Diff:
    return Diff(first, last, previous, len(bids), len(asks), flags, 0, LevelBlock(level_bytes(bids, asks)), 0)


def depth(
    at: float,
    first: int,
    last: int,
    previous: int,
    bids: Levels,
    asks: Levels,
    kind: Kind = Kind.DEPTH,
    venue: Venue = Venue.BINANCE,
) -> bytes:
    flags = EventFlag.NONE
    return pack_levels(kind, venue, flags, ns(at), ns(at), first, last, previous, len(bids), len(asks), level_bytes(bids, asks))


def snapshot(at: float, last: int, bids: Levels, asks: Levels, venue: Venue = Venue.BINANCE) -> bytes:
    return depth(at, 0, last, 0, bids, asks, Kind.SNAPSHOT, venue)


def clock(at: float) -> bytes:
    return pack_clock(ns(at))


def clocks(start: float, stop: float, step: float = 0.25) -> bytes:
    count = round((stop - start) / step)
    return b"".join(clock(start + i * step) for i in range(count + 1))


def trade(
    at: float, side: TakerSide, price: float, qty: float, seq: int = 1, venue_at: float | None = None,
    venue: Venue = Venue.BINANCE,
) -> bytes:  # fmt: skip
    return pack_event(Kind.TRADE, venue, side, 0, ns(at if venue_at is None else venue_at), ns(at), seq, 0, price, qty)


def mark(at: float, price: float, funding: float | None = None, venue: Venue = Venue.BINANCE) -> bytes:
    flags = EventFlag.HAS_FUNDING if funding is not None else EventFlag.NONE
    return pack_event(Kind.MARK, venue, 0, flags, ns(at), ns(at), 0, 0, price, 0.0, funding or 0.0)


def open_interest(at: float, qty: float, venue: Venue = Venue.BINANCE, flags: EventFlag = EventFlag.NONE) -> bytes:
    return pack_event(Kind.OPEN_INTEREST, venue, 0, flags, ns(at), ns(at), 0, 0, 0.0, qty)


def liquidation(at: float, side: PositionSide, price: float, qty: float, average: float = 0.0) -> bytes:
    return pack_event(Kind.LIQUIDATION, Venue.BINANCE, side, 0, ns(at), ns(at), 0, 0, price, qty, average)


def ratio(at: float, which: RatioKind, value: float) -> bytes:
    return pack_event(Kind.RATIO, Venue.BINANCE, which, 0, ns(at), ns(at), 0, 0, value, 0.0)


def instrument(at: float, venue: Venue, tick: float) -> bytes:
    return pack_event(Kind.INSTRUMENT, venue, 0, 0, ns(at), ns(at), 0, 0, tick, 1.0)


def gap(at: float, scope: GapScope = GapScope.BOOK, venue: Venue = Venue.BINANCE) -> bytes:
    return pack_gap(venue, scope, ns(at))
