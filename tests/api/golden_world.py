"""The fixed input of the golden bodies: small grids, whole numbers where it can be, time standing still. No random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpengine.config import Settings, load, resolve_directories
from mpengine.schemas import ShownZone, StreamFeed
from shm.board import Board, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.grid import frame_grid
from shm.records import CandleField, Coverage, PositionSide, PriceKind, Venue
from tests.api.world import (
    MS,
    NOW_MS,
    SLOT_MS,
    World,
    book_stats,
    candle,
    depth_frame,
    map_frame,
    pool_row,
    side_levels,
    venue_feed,
    zone_row,
)

TEXT = """
[api]
host = "127.0.0.1"
rate_limits = false
[symbols.BTC]
step = 1000.0
book_step = 1000.0
[symbols.ETH]
step = 50.0
book_step = 50.0
[symbols.XRP]
step = 0.001
tick = 0.0001
has_orderbook = false
"""
SRC = 65_892.725
STEP = 1000.0
PROCESSES = (("supervisor", Role.SUPERVISOR, 0), ("ingest", Role.INGEST, 0), ("engine-BTC", Role.ENGINE, 0),
             ("api-0", Role.API_WORKER, 0))  # fmt: skip


def settings_in(folder: Path) -> Settings:
    """Settings of a world whose files lie under `folder`."""
    found = resolve_directories(load(TEXT, {}), data=folder / "data", runtime=folder / "run")
    for name in ("data", "run"):
        (folder / name).mkdir()
    return found


def sides(height: float, number: int, rows: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """USD float64[2 * rows, buckets] around `SRC`: below it on the first side, above on the second, every third bucket empty."""
    first, count, _ = frame_grid(SRC, STEP, 0.10)
    middle = round(SRC / STEP) - first
    cells = np.zeros((2 * rows, count))
    for index in range(count):
        usd = height * (1 + (index * 7 + number) % 5) if index % 3 else 0.0
        for row in range(rows):
            cells[2 * row + (index > middle), index] = usd * (row * 20 + 1)
    return cells


@dataclass
class Board4:
    """The board with its rows; each keeps a lock, so all are to be closed."""

    board: Board
    rows: list[BoardRow]

    def close(self) -> None:
        for row in self.rows:
            row.close()
        self.board.close()


def make_board(world: World) -> Board4:
    """Four live processes, the engine restarted once."""
    made = Board.create(world.settings.paths.board, [RowName(*name) for name in PROCESSES], {})
    rows = [BoardRow.attach(world.settings.paths.board, number) for number in range(1, len(PROCESSES))]
    for number, (row, (name, role, index)) in enumerate(zip([made.row(0), *rows], PROCESSES)):
        row.start(role, index, 1)
        row.set(Word.STARTED_NS, (NOW_MS - 7_200_000) * MS)
        row.beat(world.clock.monotonic_ns - 300_000_000)
        view = made.supervisor_view(number)
        view.set(Word.ACTUAL, State.LIVE)
        view.set(Word.RESTARTS, int(name == "engine-BTC"))
    return Board4(made, rows)


def fill(world: World, symbol: str = "BTC") -> None:
    """Something of everything that an answer of a symbol can have."""
    _fill_depth(world, symbol)
    for number in range(3):
        at_ms = world.clock.now_ms - (2 - number) * 60_000
        frame = map_frame(at_ms, src=SRC + number, step=STEP, planes=sides(1000.0, number, 2), coverage=Coverage.OI_MISSING)
        pools = [pool_row(), pool_row(usd=52_000.5, source="inference", tape_usd=0.0, projected_usd=52_000.5)]
        above = pool_row(price=69_012.25, price_low=68_700.0, price_high=69_300.0, usd=814_500.25, intensity=0.3127)
        shown = [ShownZone(price=69_012.25, strength=0.31271, age_min=3)]
        world.add_map(frame, symbol, long=side_levels(pools=pools), short=side_levels(pools=[above], shown=shown, raw_buckets=97))
    world.add_zones([zone_row(), zone_row(side="short", price=68_020.0, weight=1.5, tape_usd=1204.5, source="combined"),
                     zone_row(price=63_980.0, weight=0.25, projected_usd=0.0, tape_usd=91_234.56, source="tape",
                              tier_contributions={}, tape_contribution=0.25)], symbol)  # fmt: skip
    _fill_records(world, symbol)
    world.add_oi(
        symbol, binance=20_123.451, bybit=(4006.171, 12.0), okx=(5123.453, 75.0), shown={"hyperliquid": 801.5}, mark=65_900.5
    )
    world.add_status(symbol, mark=65_900.5, mid=SRC)
    now_ms = world.clock.now_ms
    stream = StreamFeed(state="LIVE", messages=1204, errors=0, last_ms=now_ms - 80, lag_ms=12.5)
    world.add_feeds(
        binance=venue_feed(last_ms=now_ms - 80, streams={"depth": stream}),
        bybit=venue_feed("STALE", last_ms=now_ms - 61_000, reconnects=2, liquidations="all_500ms"),
    )


def _fill_depth(world: World, symbol: str) -> None:
    for number in range(3):
        open_ms = world.clock.now_ms - (3 - number) * SLOT_MS
        world.add_depth(depth_frame(open_ms, src=SRC + number, step=STEP, cells=sides(50_000.0, number)), symbol)
    syncing = book_stats(state="syncing", best_bid=None, best_ask=None, synced_since_ns=None)
    world.add_book(symbol, link=world.depth(symbol).next_no - 1, binance=book_stats(), okx=syncing)


def _fill_records(world: World, symbol: str) -> None:
    for number in range(3):
        price = 65_880.5 + number
        bar = candle(
            world.clock.now_ms - (3 - number) * 60_000,
            price, high=price + 12.5, low=price - 20.0, close=price + 1.0, buy_usd=1000.5 + number,
            sell_usd=900.25, buy_count=12 + number, sell_count=9, oi_base=29_253.125, oi_delta_base=-1.5, funding_rate=0.0001,
            liq_long_usd=394.87, liq_long_count=1,
        )  # fmt: skip
        if number == 1:
            bar["present"] = CandleField.MARK
        world.add_candle(bar, symbol)
    world.add_liquidation(symbol, price=65_810.95, bankruptcy_price=65_396.9, qty_base=0.006, notional_usd=394.8657)
    world.add_liquidation(symbol, venue=Venue.BINANCE, side=PositionSide.SHORT, price_kind=PriceKind.FILL, price=65_912.5,
                          bankruptcy_price=0.0, qty_base=0.25, notional_usd=16_478.125)  # fmt: skip
    world.add_liquidation(symbol, venue=Venue.OKX, price_kind=PriceKind.LIQ_MARK, price=65_850.5, bankruptcy_price=0.0,
                          qty_base=0.05, notional_usd=3292.525)  # fmt: skip
