"""A real API server (gunicorn, worker and application as shipped) over the files of a market that a test moves by hand.

    with Backend.running() as backend:
        page.goto(backend.url("/?symbol=BTC"))
        backend.minute()                    # the next minute of every symbol: map column, two book columns, candle, zones
        backend.add_liquidations("BTC", 3)
        backend.kill_worker()

The server's clock starts at `NOW_MS`, a fixed day, a few seconds after the newest minute has closed, and runs; `rewind` sets it
back to there, so that nothing becomes stale because other tests took long. What ingest and the engines would say once a second is
said by a thread. Loopback only; everything lies in a folder on tmpfs that is removed.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from mpengine import schemas
from mpengine.config import Settings, encode, load, resolve_directories
from mpengine.keys import change, new_key
from mpengine.schemas import ShownZone, StreamFeed, ZonesDocument
from shm.board import Board, RowName
from shm.board_words import Role, State, Word
from shm.frames import Frame
from shm.grid import frame_grid
from shm.records import Coverage, DocumentId, PositionSide, PriceKind, Venue
from tests.api.world import (
    COUNTS,
    MS,
    NOW_MS,
    SECOND_NS,
    SLOT_MS,
    TIERS,
    FakeClock,
    World,
    book_stats,
    candle,
    depth_frame,
    map_frame,
    pool_row,
    side_levels,
    venue_feed,
    zone_row,
    zone_table,
)
from tests.browser.market import SHAPES, Bar, Market
from tests.browser.served import OFFSET_VARIABLE, Offset

ROOT: Final = Path(__file__).resolve().parents[2]
WITHIN_S: Final = 20.0
MINUTE_MS: Final = 60_000
FRESH_S: Final = 5.0
"""How long ago the newest minute has closed when a test begins."""
MINUTES: Final = {"BTC": 720, "ETH": 240, "SOL": 120}
"""What is there of each symbol."""
LEAST_SWEPT_USD: Final = 400_000.0
"""Of modelled exposure; the fiftieth part of what is cleared is liquidated."""
TEXT: Final = """
[api]
host = "127.0.0.1"
workers = 1
rate_limits = false
[venues.hyperliquid]
enabled = true
[symbols.BTC]
[symbols.ETH]
[symbols.SOL]
"""
ROWS: Final = [
    RowName("supervisor", Role.SUPERVISOR, 0),
    RowName("api-master", Role.API_MASTER, 0),
    RowName("api-0", Role.API_WORKER, 0),
]
WORKER_ROW: Final = 2
_SAMPLING: Final = {"binance": "largest_1s", "bybit": "all_500ms", "okx": "partial", "hyperliquid": "none"}
_VENUES: Final = (Venue.BINANCE, Venue.BYBIT, Venue.OKX)
_TIER_USD: Final = {"20": 0.3, "25": 0.2, "50": 0.3, "100": 0.15, "125": 0.05}


def until(condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """The first true value of the condition; fails after a while. No server is not true yet."""
    deadline = time.monotonic() + within_s
    while True:
        with suppress(OSError, http.client.HTTPException):
            if found := condition():
                return found
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


class Symbol:
    """What is lived of one symbol so far. `closed_ms`, `depth_closed_ms`: when its newest minute and book column closed."""

    def __init__(self, name: str, step: float) -> None:
        self.name = name
        self.step = step
        self.market = Market(SHAPES[name])
        self.closed_ms = self.depth_closed_ms = NOW_MS
        self.zones: list[schemas.ZoneRow] = []


class Backend:
    """Writers of all files, and the server over them. Methods may be called while pages are connected."""

    def __init__(self, folder: Path, *, minutes: dict[str, int] | None = None, text: str = TEXT, **api: Any) -> None:
        """`minutes`: how much is there of which symbol (none: not even a file). `text`, `api`: settings."""
        for name in ("data", "run"):
            (folder / name).mkdir(parents=True)
        found = resolve_directories(load(text, {}), data=folder / "data", runtime=folder / "run")
        self.folder = folder
        self.settings: Settings = msgspec.structs.replace(found, api=msgspec.structs.replace(found.api, port=0, **api))
        self.world = World(self.settings, FakeClock())
        self.symbols: dict[str, Symbol] = {}
        self._lock = threading.RLock()
        self._offset = Offset.create(folder / "offset")
        self._venues: dict[str, dict[str, Any]] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._board = Board.create(self.settings.paths.board, ROWS, {})
        self._supervisor = self._board.row(0)
        self._supervisor.start(Role.SUPERVISOR, 0, 1)
        self._master: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self.rewind()
        for name, count in (MINUTES if minutes is None else minutes).items():
            self.fill(name, count)
        self._turn()
        if self.settings.api.keys:
            self.make_key()  # without a single one the server does not start
        self._life = threading.Thread(target=self._live, name="life")
        self._life.start()

    @classmethod
    @contextmanager
    def running(cls, **how: Any) -> Iterator[Backend]:
        """A backend with its server, removed afterwards."""
        folder = Path(tempfile.mkdtemp(prefix="mpengine-browser-", dir="/dev/shm"))
        try:
            made = cls(folder, **how)
            try:
                made.start()
                yield made
            finally:
                made.close()
        finally:
            shutil.rmtree(folder)

    def close(self) -> None:
        """End the server and let go of every file."""
        self.stop()
        self._ended.set()
        self._life.join()
        self._supervisor.close()
        self._board.close()
        self.world.close()
        self._offset.close()

    # --- the server ---------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return self.settings.api.port

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, path: str = "/") -> str:
        return self.origin + path

    def start(self) -> None:
        """Start the server, on the same port as before; returns when it answers."""
        assert self._master is None
        if not self.port:
            self._use(port=_free_port())
        environment = {**os.environ, "MPENGINE_SETTINGS": str(self.settings.paths.settings),
                       OFFSET_VARIABLE: str(self.folder / "offset")}  # fmt: skip
        self.settings.paths.settings.write_bytes(encode(self.settings))
        command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", "tests.browser.served:get_app()"]
        with (self.folder / "log").open("ab") as log:
            self._master = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=log)
        self.wait_until_served()

    def stop(self) -> None:
        """End the server at once; its port stays free for `start`."""
        process, self._master = self._master, None
        if process is None:
            return
        process.kill()  # the worker dies with it
        process.wait()

    def restart(self) -> None:
        """Another server on the same port."""
        self.stop()
        self.start()

    @property
    def worker(self) -> int:
        """Pid of the worker."""
        return self._board.supervisor_view(WORKER_ROW).get(Word.PID)

    def kill_worker(self) -> None:
        """SIGKILL; the master starts another one. Returns when that one answers."""
        before = self.worker
        os.kill(before, signal.SIGKILL)
        until(lambda: self.worker != before, "another worker")
        self.wait_until_served()

    @contextmanager
    def hung(self) -> Iterator[None]:
        """The worker takes connections and says nothing."""
        pid = self.worker
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def wait_until_served(self) -> None:
        """Until the worker answers and is on the board."""
        until(lambda: self.get("/livez")[0] == 200, "the server")
        until(lambda: self._board.supervisor_view(WORKER_ROW).get(Word.STATE) == State.LIVE, "the row of the worker")

    def ask(self, target: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in lower case, body) of a GET; header names with underscores for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WITHIN_S)
        try:
            connection.request("GET", target, headers={name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, target: str, **headers: str) -> tuple[int, Any]:
        """(status, JSON body) of a GET."""
        status, _, body = self.ask(target, **headers)
        return status, json.loads(body)

    def json(self, target: str) -> Any:
        """JSON body of a GET that must succeed."""
        status, body = self.get(target)
        assert status == 200, (target, status, body)
        return body

    def make_key(self, *scopes: Any) -> str:
        """A new key for a server with `keys=True`; scopes `read` and `push` unless given."""
        record, text = new_key(self.now_ms, list(scopes or ("read", "push")))
        change(self.settings.paths.keys, lambda keys: [*keys, record])
        return text

    def _use(self, **api: Any) -> None:
        self.settings = msgspec.structs.replace(self.settings, api=msgspec.structs.replace(self.settings.api, **api))

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """The server's wall clock."""
        return self._offset.wall_ns() // MS

    def rewind(self, after_s: float = FRESH_S) -> None:
        """Set the clock so that the newest minute of all symbols closed `after_s` ago."""
        with self._lock:
            newest = max((one.closed_ms for one in self.symbols.values()), default=NOW_MS)
            self._offset.set(newest * MS + int(after_s * SECOND_NS) - time.time_ns())

    def advance(self, seconds: float) -> None:
        """Let the server's clock jump: everything it has becomes older."""
        with self._lock:
            self._offset.set(self._offset.get() + int(seconds * SECOND_NS))
            self._turn()

    def calm(self) -> None:
        """Everything fresh and well, for the next test."""
        with self._lock:
            self._venues.clear()
            self._states.clear()
            self.rewind()
            for one in self.symbols.values():
                self._documents(one)
            self._turn()

    # --- content ------------------------------------------------------------------------------------------------------

    def fill(self, name: str, minutes: int) -> None:
        """`minutes` of history of a symbol, the newest one closed at the time of the newest of all."""
        with self._lock:
            one = self.symbols[name] = Symbol(name, self.settings.symbols[name].step)
            one.closed_ms = one.depth_closed_ms = NOW_MS - minutes * MINUTE_MS
            for left in reversed(range(minutes)):
                self._minute(one, document=left == 0)
            self._documents(one)

    def minute(self, *names: str, **frame: Any) -> None:
        """The next minute of the symbols (all that there are): map column, two book columns, candle, documents. The clock moves
        on to a few seconds after its close. `frame`: other values of the map's frame; `alter` changes its planes (USD
        float64[4, bucket], the price in the middle)."""
        with self._lock:
            for name in names or self.symbols:
                one = self.symbols[name]
                self._minute(one, document=True, **frame)
                self.rewind()
                self._documents(one)
            self._turn()

    def depth_column(self, name: str = "BTC") -> int:
        """One more book column, without a minute; its number. The clock moves on by its 30 s."""
        with self._lock:
            one = self.symbols[name]
            self.advance(SLOT_MS / 1000)
            self._depth(one, one.depth_closed_ms)
            return int(self.world.depth(name).next_no) - 1

    def hole(self, minutes: int, name: str = "BTC") -> None:
        """Minutes go by in which nothing is published: a hole in the time of the ring."""
        with self._lock:
            one = self.symbols[name]
            for _ in range(minutes):
                one.market.minute()
            one.closed_ms += minutes * MINUTE_MS
            one.depth_closed_ms = one.closed_ms
            self.rewind()
            self._turn()

    def restart_engine(self, name: str = "BTC") -> None:
        """The engine's writers attach anew: a new epoch of every file. Nothing is published yet."""
        with self._lock:
            paths = self.settings.paths
            for path in (
                paths.depth(name),
                paths.liquidation(name),
                paths.candles(name),
                paths.liquidations(name),
                paths.documents(name),
            ):
                self.world.reopen(path)
            self._each(name)  # attached again, so that readers see who writes

    def regrid(self, step: float, name: str = "BTC") -> None:
        """Settings with another price step: the engine begins a new life on it and the server is another one."""
        with self._lock:
            one = self.symbols[name]
            symbol = msgspec.structs.replace(self.settings.symbols[name], step=step, book_step=step)
            self.settings = msgspec.structs.replace(self.settings, symbols={**self.settings.symbols, name: symbol})
            one.step = step
            self.restart_engine(name)
            self.restart()

    def jump(self, factor: float, name: str = "BTC") -> None:
        """From the next minute on the price is another one, so that its columns lie elsewhere."""
        self.symbols[name].market.jump(factor)

    def add_liquidations(self, name: str = "BTC", count: int = 1, **values: Any) -> list[int]:
        """Events of now, sides and venues in turn; their numbers."""
        with self._lock:
            price = self.symbols[name].market.price
            numbers = []
            for index in range(count):
                side = (PositionSide.LONG, PositionSide.SHORT)[index % 2]
                plain = {"venue": _VENUES[index % 3], "side": side, "price_kind": PriceKind.FILL, "bankruptcy_price": 0.0,
                         "price": price * (1 + index * 0.0002), "qty_base": 0.5,
                         "notional_usd": 25_000.0 * (index + 1)}  # fmt: skip
                self._sync()
                numbers.append(self.world.add_liquidation(name, **{**plain, **values}))
            return numbers

    def set_zones(self, zones: list[schemas.ZoneRow], name: str = "BTC") -> None:
        """Publish these zones instead of those that stand."""
        with self._lock:
            one = self.symbols[name]
            one.zones = zones
            self._sync()
            self._publish_zones(one)

    def set_venue(self, venue: str, **values: Any) -> None:
        """What ingest says of a venue from now on, e.g. state="DOWN", silent_s=130; nothing: as it was."""
        with self._lock:
            self._venues[venue] = values
            self._turn()

    def set_status(self, name: str = "BTC", **values: Any) -> None:
        """What an engine says of itself from now on."""
        with self._lock:
            self._states[name] = values
            self._turn()

    # --- one step of it -----------------------------------------------------------------------------------------------

    def _sync(self) -> None:
        self.world.clock.now_ms = self.now_ms

    def _minute(self, one: Symbol, *, document: bool, **values: Any) -> None:
        bar = one.market.minute()
        opened = one.closed_ms
        one.closed_ms += MINUTE_MS
        for at in (opened, opened + SLOT_MS):
            if at >= one.depth_closed_ms:
                self._depth(one, at)
        self.world.add_candle(_candle(opened, bar), one.name)
        self._swept(one, opened, bar)
        frame = self._frame(one, bar, **values)
        if document:
            self.world.add_map(frame, one.name, **_levels(frame, bar, one.market))
        else:
            self.world.add_map(frame, one.name, document=False)

    def _frame(self, one: Symbol, bar: Bar, alter: Callable[[Any], None] | None = None, **values: Any) -> Frame:
        origin, count, _ = frame_grid(bar.src, one.step, 0.10)
        masses = _on_grid(one.market.masses, one, origin, count)
        if alter is not None:
            alter(masses)
        venues = Venue.BINANCE.bit | Venue.BYBIT.bit | Venue.OKX.bit
        plain: dict[str, Any] = {"planes": masses, "venues": venues, "samples": 3}
        return map_frame(one.closed_ms, src=bar.src, step=one.step, **{**plain, **values})

    def _depth(self, one: Symbol, opened: int) -> None:
        src = one.market.price
        origin, count, _ = frame_grid(src, one.step, 0.10)
        cells = _on_grid(one.market.book, one, origin, count)
        self.world.add_depth(depth_frame(opened, src=src, step=one.step, cells=cells, origin=origin), one.name)
        one.depth_closed_ms = opened + SLOT_MS

    def _swept(self, one: Symbol, opened: int, bar: Bar) -> None:
        for index, (price, is_long, usd) in enumerate(bar.swept):
            if usd < LEAST_SWEPT_USD:
                continue
            self.world.clock.now_ms = opened + 20_000 + index * 1000
            side = PositionSide.LONG if is_long else PositionSide.SHORT
            venue = _VENUES[(opened // MINUTE_MS + index) % 3]
            usd = min(usd * 0.02, 3e6)
            self.world.add_liquidation(one.name, venue=venue, side=side, price_kind=PriceKind.FILL, price=price,
                                       bankruptcy_price=0.0, qty_base=usd / price, notional_usd=usd)  # fmt: skip

    def _documents(self, one: Symbol) -> None:
        """What is published with a minute beside the map."""
        self._sync()
        price = one.market.price
        one.zones = [_zone(one, *found) for found in one.market.zones(16)]
        self._publish_zones(one)
        base = 5e9 / price
        self.world.add_oi(one.name, mark=round(price, 2), shown={"hyperliquid": base * 0.1}, binance=base, bybit=(base * 0.5, 7.0),
                          okx=(base * 0.3, 12.0))  # fmt: skip
        stats = book_stats(best_bid=price - 0.05, best_ask=price + 0.05, total_bid_usd=4.1e7, total_ask_usd=3.9e7)
        books: dict[str, Any] = dict.fromkeys(("binance", "bybit", "okx"), stats)
        self.world.add_book(one.name, link=self.world.depth(one.name).next_no - 1, **books)
        self._status(one)

    def _publish_zones(self, one: Symbol) -> None:
        now_ns = self.world.clock.now_ms * MS
        document = ZonesDocument(symbol=one.name, written_ns=now_ns, minute=one.closed_ms // MINUTE_MS - 1, step=one.step,
                                 tiers=TIERS, zones=zone_table(one.zones, one.step), counts=COUNTS, sums={})  # fmt: skip
        self.world.documents(one.name).publish(DocumentId.ZONES, schemas.encode(document), ts_ns=now_ns, published_ns=now_ns)

    def _status(self, one: Symbol) -> None:
        now_ns, price = self.world.clock.now_ms * MS, round(one.market.price, 2)
        values = {"written_ns": now_ns, "engine_ns": now_ns, "mark": price, "mark_ns": now_ns, "mid": price, "mid_ns": now_ns,
                  "funding_rate": 0.0001, "last_minute_ns": one.closed_ms * MS,
                  "data_since_ns": (NOW_MS - 43_200_000) * MS}  # fmt: skip
        self.world.add_status(one.name, **{**values, **self._states.get(one.name, {})})

    # --- what goes on by itself ---------------------------------------------------------------------------------------

    def _live(self) -> None:
        while not self._ended.wait(1.0):
            with self._lock:
                self._turn()

    def _turn(self) -> None:
        """What processes say once a second."""
        self._sync()
        self._supervisor.beat()
        self.world.add_feeds(**{venue: self._feed(venue) for venue in _SAMPLING})
        for one in self.symbols.values():
            self._status(one)
            for writer in self._each(one.name):
                writer.beat()

    def _each(self, name: str) -> list[Any]:
        world = self.world
        return [world.depth(name), world.liquidation(name), world.candles(name), world.liquidations(name), world.documents(name)]

    def _feed(self, venue: str) -> schemas.VenueFeed:
        values = dict(self._venues.get(venue, {}))
        last_ms = self.world.clock.now_ms - int(values.pop("silent_s", 0.08) * 1000)
        state = values.get("state", "LIVE")
        names = ["depth"] if venue == "hyperliquid" else ["depth", "liquidation-orders"]
        streams = {name: StreamFeed(state=state, messages=1204, errors=0, last_ms=last_ms, lag_ms=12.5) for name in names}
        return venue_feed(**{"last_ms": last_ms, "liquidations": _SAMPLING[venue], "streams": streams, **values})


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _on_grid(cells: Callable[[int, int], Any], one: Symbol, origin: int, count: int) -> Any:
    """`cells(origin, count)` of the market's own grid, summed into buckets of the symbol's step, a whole multiple of it."""
    factor = round(one.step / one.market.shape.step)
    if factor == 1:
        return cells(origin, count)
    fine = cells(origin * factor - factor // 2, count * factor)
    return fine.reshape(fine.shape[0], count, factor).sum(axis=2)


def _candle(opened: int, bar: Bar) -> Any:
    return candle(
        opened, bar.close, open=round(bar.open, 2), high=round(bar.high, 2), low=round(bar.low, 2), close=round(bar.close, 2),
        src=bar.src, buy_usd=bar.buy_usd, sell_usd=bar.sell_usd, buy_count=120, sell_count=110, oi_base=75_000.0, oi_delta_base=3.5,
        funding_rate=0.0001,
    )  # fmt: skip


def _levels(frame: Frame, bar: Bar, market: Market) -> dict[str, Any]:
    """Values of the document that goes with a frame."""
    sides: dict[bool, list[Any]] = {True: [], False: []}
    for price, is_long, projected, tape in market.zones(8):
        usd = projected + tape
        low, high = round(price * 0.999, 2), round(price * 1.001, 2)
        tiers = {tier: round(projected * part, 2) for tier, part in _TIER_USD.items()}
        sides[is_long].append(
            pool_row(price, usd, price_low=low, price_high=high, projected_usd=projected, tape_usd=tape, tier_usd=tiers)
        )
    made = {
        is_long: side_levels(pools=pools, shown=[ShownZone(price=one.price, strength=0.5, age_min=9) for one in pools[:5]])
        for is_long, pools in sides.items()
    }
    return {"close": bar.close, "long": made[True], "short": made[False]}


def _zone(one: Symbol, price: float, is_long: bool, projected: float, tape: float) -> schemas.ZoneRow:
    age_min = 5 + round(price / one.step) % 170
    return zone_row(
        side="long" if is_long else "short", price=price, weight=round(0.2 + projected / 4e6, 5), projected_usd=round(projected, 2),
        tape_usd=round(tape, 2), source="combined" if tape else "inference",
        tier_contributions={tier: round(part * (0.2 + projected / 4e6), 5) for tier, part in _TIER_USD.items()},
        tape_contribution=0.0, created_ns=(one.closed_ms - age_min * MINUTE_MS) * MS,
        last_reinforced_ns=(one.closed_ms - MINUTE_MS) * MS, reinforcement_count=1 + age_min // 9,
    )  # fmt: skip


RESTARTED: Final = {"coverage": Coverage.RECOVERED}
"""Value of `minute` for the first frame of a restarted engine."""
