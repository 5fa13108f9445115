"""What `bench.api` serves: half a day of BTC in the rings, made by the engine's own code out of made-up events::

    random walk -> mark prices, trades, open interest, liquidations -> SymbolCore -> Publisher -> rings, documents
    a book with walls that stay                                     -> frames     -> Publisher

So bodies have the sizes and the digits of real ones: maps, pools, zones, bars and statistics are not filled with constants. Only
the order-book frames do not come out of a book, which would have to be sampled 43,200 times.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt

from mpengine.config import Settings
from mpengine.engine.core import DocumentOut, FrameOut, Output, SymbolCore
from mpengine.engine.depth_frames import SLOT_NS
from mpengine.engine.storage import Publisher
from mpengine.schemas import FeedsDocument, StreamFeed, VenueFeed, encode
from shm.document import DocumentWriter
from shm.frames import Frame
from shm.grid import frame_grid
from shm.layout import MINUTE_NS, feeds_spec
from shm.records import (
    Coverage,
    DocumentId,
    EventFlag,
    FrameKind,
    Kind,
    PositionSide,
    TakerSide,
    Venue,
    pack_clock,
    pack_event,
    pack_levels,
)

SYMBOL: Final = "BTC"
START: Final = 65_892.7
STEP: Final = 20.0
HISTORY_MINUTES: Final = 960  # 12 hours behind a start of 4, in which maps and zones fill up
HISTORY_SLOTS: Final = 1440
SECOND_NS: Final = 10**9
TICK_NS: Final = 5 * SECOND_NS  # of the mark price
TRADES: Final = 20  # a minute
LIQUIDATIONS: Final = 6
BEAT_S: Final = 0.1
VENUES: Final = {Venue.BINANCE: 88_000.0, Venue.BYBIT: 52_000.0, Venue.OKX: 31_000.0}
"""Venues that publish liquidations and their open interest in BTC."""

Floats = npt.NDArray[np.float64]
Event = tuple[int, bytes]


# --- events -----------------------------------------------------------------------------------------------------------


def walk(minutes: int, rng: np.random.Generator) -> Floats:
    """Mark prices of every `TICK_NS`, float64[minutes, ticks]: 0.05 % a minute, about 1.5 % over 16 hours."""
    ticks = MINUTE_NS // TICK_NS
    return np.round(START * np.exp(np.cumsum(rng.normal(0.0, 0.0005 / ticks**0.5, minutes * ticks))), 1).reshape(minutes, ticks)


def _event(
    kind: Kind, venue: Venue, at_ns: int, price: float, qty: float, *, side: int = 0, flags: int = 0, aux: float = 0.0
) -> Event:
    return at_ns, pack_event(kind, venue, side, flags, at_ns, at_ns, 0, 0, price, qty, aux)


def _tick(rng: np.random.Generator) -> int:
    return int(rng.integers(0, MINUTE_NS // TICK_NS)) * TICK_NS


def marks(open_ns: int, prices: Floats) -> Iterator[Event]:
    """The mark prices of a minute, with funding."""
    for index, price in enumerate(prices.tolist()):
        at_ns = open_ns + index * TICK_NS
        yield _event(Kind.MARK, Venue.BINANCE, at_ns, price, 0.0, flags=EventFlag.HAS_FUNDING, aux=0.0001)


def trades(open_ns: int, price: float, rng: np.random.Generator) -> Iterator[Event]:
    """Aggregated trades of a minute at `price`. Like all events at a tick: each second with events is sampled by the core."""
    for qty, buys in zip(rng.lognormal(0.0, 1.5, TRADES), rng.random(TRADES) < 0.5):
        side = TakerSide.BUY if buys else TakerSide.SELL
        yield _event(Kind.TRADE, Venue.BINANCE, open_ns + _tick(rng), price, float(qty), side=side)


def liquidations(open_ns: int, price: float, rng: np.random.Generator) -> Iterator[Event]:
    """A few liquidations of 5,000 USD in the median, of all venues, within half a percent of `price` on the side of a loss."""
    for _ in range(rng.poisson(LIQUIDATIONS)):
        at_ns, venue = open_ns + _tick(rng), list(VENUES)[rng.integers(0, len(VENUES))]
        side = PositionSide.LONG if rng.random() < 0.5 else PositionSide.SHORT
        at = round(price * (1.0 + (-0.005 if side is PositionSide.LONG else 0.005) * rng.random()), 1)
        yield _event(Kind.LIQUIDATION, venue, at_ns, at, round(float(rng.lognormal(-2.5, 1.2)), 3) + 0.001, side=side)


def open_interest(at_ns: int, bases: dict[Venue, float]) -> Iterator[Event]:
    """One answer of each venue."""
    for venue, base in bases.items():
        yield _event(Kind.OPEN_INTEREST, venue, at_ns, 0.0, base)


def _book(at_ns: int, price: float, rng: np.random.Generator) -> Iterator[Event]:
    """A snapshot of 1,000 levels a side and the update that makes the book synchronised."""
    away = 0.1 * np.arange(1, 1001)
    levels = np.stack([np.concatenate((price - away, price + away)), rng.exponential(1.0, 2000)], axis=1)
    one = array("d", (price - 0.1, 2.5)).tobytes()
    yield at_ns, pack_levels(Kind.SNAPSHOT, Venue.BINANCE, 0, at_ns, at_ns, 0, 100, 0, 1000, 1000, levels.tobytes())
    yield at_ns, pack_levels(Kind.DEPTH, Venue.BINANCE, 0, at_ns, at_ns, 95, 105, 94, 1, 0, one)


def simulate(settings: Settings, minutes: int, close_ns: int) -> Iterator[list[Output]]:
    """What the engine of BTC gives out in `minutes` minutes, the last of which closes at `close_ns`, minute by minute; then that
    of the moment after, which has newest open interest and a synchronised book."""
    rng = np.random.default_rng(1)
    core, bases = SymbolCore(SYMBOL, settings), dict(VENUES)
    path = walk(minutes, rng)
    for number, prices in enumerate(path):
        open_ns, price = close_ns - (minutes - number) * MINUTE_NS, float(prices[0])
        bases = {venue: base * float(np.exp(rng.normal(0.00005, 0.0004))) for venue, base in bases.items()}
        events = [*marks(open_ns, prices), *trades(open_ns, price, rng), *liquidations(open_ns, price, rng)]
        events += open_interest(open_ns + 50 * SECOND_NS, bases)
        core.on_batch(b"".join(body for _, body in sorted(events)) + pack_clock(open_ns + MINUTE_NS))
        yield core.outputs()
    now_ns = max(close_ns, time.time_ns())
    last = float(path[-1, -1])
    after = [_event(Kind.MARK, Venue.BINANCE, now_ns, last, 0.0), *open_interest(now_ns, bases), *_book(now_ns, last, rng)]
    core.on_batch(b"".join(body for _, body in after))
    yield core.outputs()


# --- order-book frames ------------------------------------------------------------------------------------------------


def depth_frame(open_ns: int, mid: float, seed: int) -> Frame:
    """Resting USD around `mid`: more of it farther away, walls at some prices in every frame, the rest new in each (`seed`)."""
    origin, count, _ = frame_grid(mid, STEP, 0.10)
    buckets = origin + np.arange(count)
    away = np.abs(buckets * STEP - mid) / mid
    walls = 1.0 + np.random.default_rng(7).pareto(2.0, 10_000)[buckets % 10_000]
    usd = 60_000.0 * (0.3 + 20.0 * away) * walls * np.random.default_rng(seed).lognormal(0.0, 0.6, count)
    planes = np.stack([np.where(buckets * STEP < mid, usd, 0.0), np.where(buckets * STEP >= mid, usd, 0.0)])
    p50, p95 = np.percentile(planes[planes > 0.0], (50, 95)).tolist()
    return Frame(
        kind=FrameKind.DEPTH, open_ts_ns=open_ns, close_ts_ns=open_ns + SLOT_NS, venue_ts_ns=open_ns + SLOT_NS - 1, reference=mid,
        origin=origin, step=STEP, norm_a=p50, norm_b=p95, total_a=float(planes[0].sum()), total_b=float(planes[1].sum()),
        coverage=Coverage.NONE, venues=Venue.BINANCE.bit, samples=30, planes=planes,
    )  # fmt: skip


def depth_frames(count: int, close_ns: int) -> Iterator[Frame]:
    """`count` frames of 30 s, the newest of which closes at `close_ns`, along a walk of its own."""
    mids = walk(-(-count // 2), np.random.default_rng(2))[:, :: MINUTE_NS // TICK_NS // 2].ravel()[:count]
    for index, mid in enumerate(mids.tolist()):
        yield depth_frame(close_ns - (count - index) * SLOT_NS, mid, index)


# --- publishing -------------------------------------------------------------------------------------------------------


def _feeds(now_ns: int) -> bytes:
    now_ms = now_ns // 10**6
    stream = StreamFeed(state="LIVE", messages=1204, errors=0, last_ms=now_ms - 80, lag_ms=12.5)
    feed = VenueFeed(
        state="LIVE", last_ms=now_ms - 80, reconnects=0, connections=2, parse_errors=0, rest_errors=0, rest_paused_until_ms=None,
        used_weight=None, liquidations="all_500ms", last_error=None, reasons={}, streams={"depth": stream, "trades": stream},
    )  # fmt: skip
    return encode(FeedsDocument(written_ns=now_ns, venues={venue.label: feed for venue in VENUES}))


def fill(publisher: Publisher, settings: Settings, minutes: int) -> None:
    """Publish `minutes` minutes of the engine, newest of now, and order-book frames of as long, at most 12 hours."""
    now_ns = time.time_ns()
    frames = depth_frames(min(2 * minutes, HISTORY_SLOTS), now_ns // SLOT_NS * SLOT_NS)
    publisher.publish(FrameOut(frame) for frame in frames)
    for outputs in simulate(settings, minutes, now_ns // MINUTE_NS * MINUTE_NS):
        # One status is enough: the others would only be written over.
        publisher.publish(one for one in outputs[:-1] if not _is_status(one))
        publisher.publish(outputs[-1:])
    counts = publisher.counts
    if counts.refused or counts.maps != minutes:
        raise RuntimeError(f"{counts.maps} maps of {minutes}, {counts.refused} outputs refused")


def _is_status(output: Output) -> bool:
    return isinstance(output, DocumentOut) and output.document is DocumentId.STATUS


@contextmanager
def published(settings: Settings, minutes: int = HISTORY_MINUTES) -> Iterator[None]:
    """Rings and documents of `minutes` minutes in the directories of `settings`; their writer lives until the block ends."""
    settings.paths.feeds.parent.mkdir(parents=True, exist_ok=True)
    publisher, over = Publisher(settings.paths, SYMBOL), threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            publisher.beat()
            feeds.beat()

    with DocumentWriter.open(settings.paths.feeds, feeds_spec()) as feeds:
        fill(publisher, settings, minutes)
        now_ns = time.time_ns()
        feeds.publish(DocumentId.FEEDS, _feeds(now_ns), ts_ns=now_ns, published_ns=now_ns)
        # Its own thread: while the clients run, this process does nothing else.
        beating = threading.Thread(target=beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            publisher.close()
