"""Facts out of shared memory: real boards, documents and rings; what is killed or replaced under it is told and recovered from."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mpengine.cells import u8log, usd_of_u8log
from mpengine.schemas import StreamFeed
from mpengine.top.badge import badge
from mpengine.top.heat import ROWS
from mpengine.top.local import Clock, LocalSource, cpu_seconds
from mpengine.top.model import ZONES_KEPT, Facts, Heat
from shm.board import Board, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.liveness import own_identity
from tests.api.conftest import settings, tmpfs, world  # noqa: F401  fixtures
from tests.api.world import MS, NOW_MS, World, book_stats, depth_frame, map_frame, venue_feed, zone_row

ROWS_OF_BOARD = [
    RowName("supervisor", Role.SUPERVISOR, 0), RowName("ingest", Role.INGEST, 0), RowName("engine-BTC", Role.ENGINE, 0),
    RowName("api-master", Role.API_MASTER, 0), RowName("api-0", Role.API_WORKER, 0),
]  # fmt: skip


class Instance:
    """A world with a board, and a source that looks at it by the world's clock."""

    def __init__(self, world: World) -> None:  # noqa: F811
        self.world = world
        self.board = Board.create(world.settings.paths.board, ROWS_OF_BOARD, {})
        self.board.row(0).start(Role.SUPERVISOR, 0, 1)
        self.rows = [BoardRow.attach(world.settings.paths.board, at) for at in range(1, len(ROWS_OF_BOARD))]
        for at, row in enumerate(self.rows, 1):
            row.start(ROWS_OF_BOARD[at].role, 0, 1)
            self.board.supervisor_view(at).set(Word.ACTUAL, State.LIVE)
        self.began_ns, self.elapsed_ns = time.monotonic_ns(), 0
        self.source = LocalSource(world.settings, Clock(lambda: world.clock.now_ms * MS, self.monotonic_ns))
        world.add_history(3)
        world.add_maps(3)
        self.say()

    def say(self) -> None:
        """What ingest and the engine of BTC write once a second."""
        now_ms = self.world.clock.now_ms
        self.world.add_status(mark=65_892.7, written_ns=now_ms * MS)
        self.world.add_feeds(
            binance=venue_feed(last_ms=now_ms - 200, reasons={"trade_gap": 2, "not_json": 9}, streams={
                "btcusdt@depth": StreamFeed(state="LIVE", messages=100, errors=0, last_ms=now_ms, lag_ms=38.0),
                "btcusdt@aggTrade": StreamFeed(state="LIVE", messages=100, errors=0, last_ms=now_ms, lag_ms=120.0),
                "btcusdt@markPrice": StreamFeed(state="DOWN", messages=100, errors=0, last_ms=None, lag_ms=9999.0),
            }),
            bybit=venue_feed("DOWN", last_ms=None),
        )  # fmt: skip

    def monotonic_ns(self) -> int:
        """Stands still but for what a test lets pass, so that rates are exact on a busy machine."""
        return self.began_ns + self.elapsed_ns

    def read(self, shown: str | None = None, *, after_s: float = 1.0) -> Facts:
        """The facts one look of the slow part later."""
        self.elapsed_ns += int(after_s * 1e9)
        return self.source.read(shown, 3.0)

    def close(self) -> None:
        self.source.unmap()
        for row in self.rows:
            row.close()
        self.board.close()


@pytest.fixture
def instance(world: World) -> Iterator[Instance]:  # noqa: F811
    found = Instance(world)
    yield found
    found.close()


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_healthy_instance_is_live_with_everything_that_it_shows(instance: Instance) -> None:
    instance.world.add_book(binance=book_stats(pu_gap_count=1, u_gap_count=0, gaps_tolerated=0))
    instance.world.add_oi(binance=(1500.0, 12))
    one = instance.read()
    assert badge(one, one.now_ms).reasons == ()
    assert (one.source, one.instance, one.shown) == ("shared memory", "default", "BTC")
    assert [(process.name, process.role, process.state) for process in one.processes] == [
        ("supervisor", "supervisor", "STARTING"), ("ingest", "ingest", "LIVE"), ("engine-BTC", "engine", "LIVE"),
        ("api-master", "master", "LIVE"), ("api-0", "api", "LIVE"),
    ]  # fmt: skip
    binance, bybit = one.venues
    assert (binance.state, binance.gaps, binance.book, bybit.state) == ("LIVE", 3, "synced", "DOWN")
    assert (binance.lag_p50_ms, binance.lag_p99_ms) == (79.0, pytest.approx(119.2)), "of streams that are LIVE"
    assert binance.last_ms == NOW_MS - 200 and binance.oi_ms == NOW_MS - 12_000
    btc = one.symbols[0]
    assert (btc.price, btc.price_kind, btc.engine) == (65_892.7, "mark", "live")
    assert btc.map is not None and btc.book is not None and (btc.map.seq, btc.book.seq) == (2, 2)
    assert btc.map.ts_ms == NOW_MS and btc.book.ts_ms == NOW_MS - 30_000
    assert [symbol.books for symbol in one.symbols] == [True, True, True, False]


def test_rates_need_two_looks(instance: Instance) -> None:
    instance.rows[0].set(Word.MESSAGES, 1000)
    assert instance.read().messages_s is None
    instance.rows[0].set(Word.MESSAGES, 3000)
    faster = instance.read(after_s=2.0).messages_s
    assert faster == 1000.0
    cpu = [process.cpu_pct for process in instance.read().processes]
    assert all(value is not None and 0 <= value < 1000 for value in cpu)
    instance.rows[0].set(Word.MESSAGES, 10)  # a new board
    assert instance.read().messages_s is None


def test_trouble_of_a_process_is_named(instance: Instance) -> None:
    instance.rows[0].set(Word.CAPTURE_DROPPED, 109)
    assert instance.read().processes[1].trouble == {"capture_dropped": 109}


def test_columns_are_those_of_the_frames_pooled_to_rows(instance: Instance) -> None:
    found = instance.read().map
    assert isinstance(found, Heat) and len(found.columns) == 3 and found.rows == ROWS
    frame = map_frame(NOW_MS, seed=2)
    low = u8log(frame.planes[0] + frame.planes[2])
    prices = (frame.origin + np.arange(frame.count)) * frame.step
    newest = found.columns[-1]
    assert newest.t_ms == NOW_MS - 60_000
    for row in (0, 17, 59, 60):
        bottom = found.price0 + row * found.height
        hit = low[(prices + 10 > bottom) & (prices - 10 < bottom + found.height)]
        assert newest.low[row] == hit.max(initial=0)
    assert usd_of_u8log(np.frombuffer(newest.low, np.uint8)).max() > 0


def test_new_frames_are_added_and_only_they_are_read(instance: Instance) -> None:
    before = instance.read()
    instance.world.clock.advance(60)
    instance.world.add_map(map_frame(instance.world.clock.now_ms, seed=9))
    instance.world.add_depth(depth_frame(instance.world.clock.now_ms - 30_000, seed=9))
    instance.say()
    after = instance.read(after_s=0.25)
    assert before.map is not None and after.map is not None and after.book is not None and before.book is not None
    assert after.map.columns[:3] == before.map.columns and len(after.map.columns) == 4
    assert len(after.book.columns) == len(before.book.columns) + 1
    assert instance.read(after_s=0.25).map is after.map, "the same picture while nothing changes"


def test_zones_are_the_heaviest_of_each_side_nearest_first(instance: Instance) -> None:
    rows = [zone_row(price=60_000.0 + 20 * n, projected_usd=1000.0 * (n + 1)) for n in range(60)]
    rows += [zone_row(side="short", price=68_020.0, weight=1.5, tier_contributions={}, projected_usd=5.0, tape_usd=7.0)]
    instance.world.add_zones(rows)
    one = instance.read()
    assert one.symbols[0].zones == 61 and len(one.zones) == ZONES_KEPT + 1
    longs = [zone for zone in one.zones if zone.side == "long"]
    assert min(zone.usd for zone in longs) == 21_000.0, "the lightest 20 are left out"
    away = [abs(zone.price - 65_892.7) for zone in one.zones]
    assert away == sorted(away)
    (short,) = (zone for zone in one.zones if zone.side == "short")
    assert (short.usd, short.leverage, short.price) == (12.0, None, 68_020.0)
    assert longs[0].leverage == 100 and longs[0].created_ms == NOW_MS - 45 * 60_000


def test_liquidations_come_newest_first(instance: Instance) -> None:
    assert instance.read().liquidations == ()
    for usd in (500.0, 900.0):
        instance.world.add_liquidation(notional_usd=usd)
    found = instance.read().liquidations
    assert [one.usd for one in found] == [900.0, 500.0]
    assert (found[0].venue, found[0].side, found[0].ts_ms) == ("bybit", "long", NOW_MS - 7)


def test_another_symbol_is_shown_with_its_own_files(instance: Instance) -> None:
    instance.world.add_status("ETH", mid=3000.0, mark=None)
    instance.world.add_history(2, "ETH", src=3000.0, step=1.0)
    one = instance.read("ETH")
    assert one.shown == "ETH" and one.book is not None and len(one.book.columns) == 2 and one.map is None
    assert one.book.price0 == pytest.approx(3000 * 0.97)
    assert instance.read("DOGE").shown == "BTC"


# --- killed, stopped, replaced under it ---------------------------------------------------------------------------------


@pytest.mark.covers("F4")
def test_a_killed_supervisor_is_stale_with_its_reason_and_the_picture_stays(instance: Instance) -> None:
    before = instance.read()
    instance.board.row(0).set(Word.PID, dead_pid())
    instance.rows[1].set(Word.PID, dead_pid())
    one = instance.read()
    assert one.trouble == "the supervisor is gone" and badge(one, one.now_ms).stale
    states = {process.name: process.state for process in one.processes}
    assert (states["supervisor"], states["engine-BTC"], states["ingest"]) == ("DEAD", "DEAD", "LIVE")
    assert one.map == before.map and one.venues == before.venues


def test_a_stopped_instance_is_told_and_a_new_one_is_found_by_itself(instance: Instance) -> None:
    instance.read()
    paths = instance.world.settings.paths
    for row in instance.rows:
        row.close()
    instance.board.unlink()
    instance.board.close()
    gone = instance.read()
    assert gone.trouble == "instance default is not running here"
    assert {process.state for process in gone.processes} == {"DEAD"} and gone.map is not None
    board = Board.create(paths.board, ROWS_OF_BOARD[:2], {})
    try:
        board.row(0).start(Role.SUPERVISOR, 0, 2)
        instance.say()
        back = instance.read()
        assert back.trouble is None and badge(back, back.now_ms).reasons == ()
        assert [process.name for process in back.processes] == ["supervisor"], "of the new board"
    finally:
        board.close()


def test_an_engine_that_comes_back_is_restarted_until_its_first_frame(instance: Instance) -> None:
    instance.read()
    paths = instance.world.settings.paths
    for path in (paths.depth("BTC"), paths.liquidation("BTC")):
        instance.world.reopen(path)
    instance.world.depth(), instance.world.liquidation()  # attached, nothing published
    one = instance.read()
    assert one.symbols[0].restarted and "restarted" in badge(one, one.now_ms).reasons[0]
    instance.world.clock.advance(30)
    instance.world.add_depth(depth_frame(instance.world.clock.now_ms - 30_000))
    instance.say()
    assert not instance.read().symbols[0].restarted


def test_an_engine_that_is_gone_is_named(instance: Instance) -> None:
    instance.world.documents().close()
    one = instance.read()
    assert one.symbols[0].engine == "stopped" and badge(one, one.now_ms).reasons == ("engine of BTC: stopped",)


def test_a_file_made_anew_is_read_anew(instance: Instance) -> None:
    assert len(instance.read().map.columns) == 3  # type: ignore[union-attr]
    path = instance.world.settings.paths.liquidation("BTC")
    instance.world._open.pop(path).close()
    path.unlink()
    instance.world.add_map(map_frame(NOW_MS, seed=5))
    found = instance.read()
    assert found.map is not None and len(found.map.columns) == 1, "nothing is left of the file before"


def test_a_file_that_is_no_ring_is_told_and_does_not_hide_the_rest(instance: Instance) -> None:
    instance.read()
    path = instance.world.settings.paths.liquidations("BTC")
    path.write_bytes(b"no ring" * 1000)
    one = instance.read()
    assert one.symbols[0].error is not None and "LayoutMismatch" in one.symbols[0].error
    assert one.map is not None and one.symbols[0].price == 65_892.7
    path.unlink()
    assert instance.read().symbols[0].error is None


def test_ingest_that_is_gone_has_no_live_venue(instance: Instance) -> None:
    instance.read()
    instance.world.feeds().close()
    one = instance.read()
    assert {venue.state for venue in one.venues} == {"DOWN"} and "no venue is LIVE" in badge(one, one.now_ms).reasons


def test_silence_of_ingest_is_told_by_its_age(instance: Instance) -> None:
    instance.read()
    instance.world.clock.advance(20)
    one = instance.read()
    assert badge(one, one.now_ms).reasons == ("nothing heard for 20 s", "no venue is LIVE")


def test_without_an_instance_it_says_so(world: World) -> None:  # noqa: F811
    with LocalSource(world.settings) as source:
        assert not source.exists() and source.why() == "instance default is not running here (Missing)"
        one = source.read(None, 3.0)
        assert one.trouble == "instance default is not running here" and one.map is None and one.processes == ()


# --- it only reads ------------------------------------------------------------------------------------------------------


def writable(folder: str) -> list[str]:
    """Descriptors and maps of this process that could change files of the folder, and the locks that it holds."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
            flags = (Path("/proc/self/fdinfo") / entry.name).read_text().split("flags:")[1].split()[0]
        except OSError:
            continue  # the descriptor of the listing itself
        if target.startswith(folder) and int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
            found.append(f"descriptor of {target}")
    maps = (line for line in Path("/proc/self/maps").read_text().splitlines() if folder in line)
    found += [line for line in maps if "w" in line.split()[1]]
    found += [line for line in Path("/proc/locks").read_text().splitlines() if f" {os.getpid()} " in line]
    return sorted(line.partition(": ")[2] or line for line in found)


def test_nothing_is_opened_for_writing_and_nothing_is_locked(instance: Instance) -> None:
    folder = str(instance.world.settings.paths.data.parent)
    before = writable(folder)
    assert before, "the writers of this test itself are seen"
    with LocalSource(instance.world.settings) as source:
        assert source.read(None, 3.0).map is not None
        assert writable(folder) == before


def test_cpu_is_that_of_exactly_this_process() -> None:
    mine = own_identity()
    found = cpu_seconds(mine.pid, mine.start_ticks)
    assert found is not None and math.isclose(found, sum(os.times()[:2]), abs_tol=0.5)
    assert cpu_seconds(mine.pid, mine.start_ticks + 1) is None and cpu_seconds(dead_pid(), 1) is None
