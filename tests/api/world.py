"""What the tests put into rings and documents: frames, bars and states that are easy to check by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from api.app import Service, create_app
from api.clock import Clock
from mpengine import schemas
from mpengine.config import Settings
from mpengine.heatmap import source_scale
from mpengine.schemas import (
    BookDocument,
    BookStats,
    CalibratorDocument,
    FeedsDocument,
    LevelsDocument,
    MapConfig,
    OiDocument,
    OiValue,
    PoolRow,
    ShownZone,
    SideLevels,
    StatusDocument,
    TierDocument,
    VenueFeed,
    ZoneCounts,
    ZoneRow,
    ZonesDocument,
    ZoneTable,
)
from shm.document import DocumentWriter
from shm.frame_ring import FrameWriter
from shm.frames import Frame, encode
from shm.grid import frame_grid
from shm.layout import candles_spec, depth_spec, documents_spec, feeds_spec, liquidation_spec, liquidations_spec
from shm.record_ring import RecordWriter
from shm.records import (
    CANDLE_DTYPE,
    LIQUIDATION_DTYPE,
    RECORD_SCHEMA,
    CandleField,
    Coverage,
    DocumentId,
    FrameKind,
    PositionSide,
    PriceKind,
    Venue,
)

NOW_MS = 1_795_200_000_000  # a whole minute
SLOT_MS = 30_000
MS = 1_000_000
SECOND_NS = 1_000_000_000


@dataclass
class FakeClock:
    """Both clocks, moved by the test."""

    now_ms: int = NOW_MS
    monotonic_ns: int = 10**12

    def clock(self) -> Clock:
        return Clock(lambda: self.now_ms * MS, lambda: self.monotonic_ns)

    def advance(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)
        self.monotonic_ns += int(seconds * SECOND_NS)


def planes(count: int, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Random USD per bucket, half of the cells empty as in a real book: bids below, asks above the middle."""
    rng = np.random.default_rng(seed)
    cells = rng.exponential(50_000.0, (2, count))
    middle = count // 2
    cells[0, middle + 1 :] = 0.0
    cells[1, :middle] = 0.0
    return cells


def depth_frame(
    open_ms: int, *, src: float = 65_892.725, step: float = 20.0, seed: int = 1, cells: Any = None, origin: int | None = None
) -> Frame:
    """A 30 s frame around `src` (grid of +/- 10 % unless `cells` and `origin` are given)."""
    first, count, _ = frame_grid(src, step, 0.10)
    usd = planes(count, seed) if cells is None else np.array(cells, np.float64)
    return Frame(
        kind=FrameKind.DEPTH,
        open_ts_ns=open_ms * MS,
        close_ts_ns=(open_ms + SLOT_MS) * MS,
        venue_ts_ns=(open_ms + SLOT_MS - 100) * MS,
        reference=src,
        origin=first if origin is None else origin,
        step=step,
        norm_a=1.0,
        norm_b=2.0,
        total_a=float(usd[0].sum()),
        total_b=float(usd[1].sum()),
        coverage=Coverage.NONE,
        venues=Venue.BINANCE.bit,
        samples=30,
        planes=usd,
    )


def liquidation_frame(close_ms: int, src: float = 65_892.725, step: float = 20.0) -> Frame:
    """A minute frame of four planes."""
    first, count, _ = frame_grid(src, step, 0.10)
    return Frame(
        kind=FrameKind.LIQUIDATION,
        open_ts_ns=(close_ms - 60_000) * MS,
        close_ts_ns=close_ms * MS,
        venue_ts_ns=close_ms * MS,
        reference=src,
        origin=first,
        step=step,
        norm_a=1.0,
        norm_b=2.0,
        total_a=1.0,
        total_b=1.0,
        coverage=Coverage.NONE,
        venues=Venue.BINANCE.bit,
        samples=1,
        planes=np.ones((4, count)),
    )


def map_frame(
    close_ms: int, *, src: float = 65_892.725, step: float = 20.0, seed: int = 1, planes: Any = None, **values: Any
) -> Frame:
    """A minute frame with random masses of both sources: longs below `src`, shorts above."""
    first, count, _ = frame_grid(src, step, 0.10)
    if planes is None:
        rng = np.random.default_rng(seed)
        planes = rng.exponential(200_000.0, (4, count)) * (rng.random((4, count)) < 0.3)
        middle = round(src / step) - first
        planes[(0, 2), middle + 1 :] = planes[(1, 3), :middle] = 0.0
        planes[:2] /= 100.0
    usd = np.array(planes, np.float64)
    plain: dict[str, Any] = {
        "kind": FrameKind.LIQUIDATION, "open_ts_ns": (close_ms - 60_000) * MS, "close_ts_ns": close_ms * MS,
        "venue_ts_ns": close_ms * MS, "reference": src, "origin": first, "step": step, "norm_a": source_scale(usd[:2]),
        "norm_b": source_scale(usd[2:]), "total_a": float(usd[(0, 2),].sum()), "total_b": float(usd[(1, 3),].sum()),
        "coverage": Coverage.NONE, "venues": Venue.BINANCE.bit, "samples": 1, "planes": usd,
    }  # fmt: skip
    return Frame(**{**plain, **values})


def pool_row(price: float = 64_596.35, usd: float = 2_448_592.1, **values: Any) -> PoolRow:
    """A pool of both sources."""
    plain: dict[str, Any] = {
        "price": price, "price_low": 64_300.0, "price_high": 64_900.0, "notional_usd": usd, "intensity": 0.6523, "strength": 1.5,
        "bucket_count": 23, "tape_usd": 2210.4, "projected_usd": usd - 2210.4, "source": "combined", "size_base": usd / price,
        "tier_usd": {"50": usd - 2210.4},
    }  # fmt: skip
    return PoolRow(**{**plain, **values})


def side_levels(**values: Any) -> SideLevels:
    """A side with one pool and one shown zone."""
    plain: dict[str, Any] = {
        "pools": [pool_row()], "shown": [ShownZone(price=64_600.0, strength=0.65234, age_min=7)], "raw_buckets": 120,
        "boosted_buckets": 4, "tape_buckets": 11, "tape_usd": 1000.5, "tape_events_usd": 2000.25, "projected_buckets": 130,
        "projected_usd": 5e6, "opened_usd": 9e6,
    }  # fmt: skip
    return SideLevels(**{**plain, **values})


COUNTS = ZoneCounts(active_long=3, active_short=2, weight_long=4.567, weight_short=1.234, created=9, reinforced=8, swept=2,
                    expired=1,
                    merged=1, evicted=0)  # fmt: skip


def calibrator_document(**values: Any) -> CalibratorDocument:
    """A calibrator that has learned once."""
    tier = TierDocument(weight=0.3, crossed_usd=1e6, attributed_usd=1e4, rate=0.01, evidence=5.0, score=1.1)
    plain: dict[str, Any] = dict.fromkeys(CalibratorDocument.__struct_fields__, 0)
    plain |= {
        "enabled": True, "attribution": "window", "updates": 1, "minutes_since_calibration": 3, "total_events": 42, "explained": 40,
        "unexplained": 2, "unexplained_usd": 100.0, "records": 60, "pending": 4, "dropped": 5, "entropy_bits": 2.39,
        "conversion": 0.01, "vol": 0.0015, "mmr": {"binance": 0.004}, "mmr_samples": {"binance": 3}, "bias_long": 0.0,
        "bias_short": 0.0, "near_share": None, "hit_share": None, "mean_miss": None, "tiers": {"5": tier, "10": tier},
    }  # fmt: skip
    return CalibratorDocument(**{**plain, **values})


def levels_document(frame: Frame, symbol: str = "BTC", **values: Any) -> LevelsDocument:
    """The document of the state that made `frame`."""
    plain: dict[str, Any] = {
        "symbol": symbol, "written_ns": frame.close_ts_ns, "minute": frame.open_ts_ns // (60 * SECOND_NS), "src": frame.reference,
        "close": 65_901.239, "coverage": int(frame.coverage), "long": side_levels(), "short": side_levels(), "events": 42,
        "events_in_minute": 3, "inferences": 17, "inferences_in_minute": 1, "weights": {"5": 0.5, "10": 0.0, "20": 0.5},
        "zones": COUNTS, "calibrator": calibrator_document(),
        "config": MapConfig(step=frame.step, tape_weight=0.35, projection_weight=0.65, decay_per_min=0.995, sweep_reduction=0.7,
                            cluster_radius_pct=0.005, min_pool_usd=1000.0, disabled_tiers=[10], mmr={"binance": 0.004,
                            "bybit": 0.005},
                            attribution="window", weights_valid_from_ns=None),
    }  # fmt: skip
    return LevelsDocument(**{**plain, **values})


TIERS = ["20", "25", "50", "100", "125"]


def zone_table(zones: list[ZoneRow], step: float = 20.0) -> ZoneTable:
    """Zones as the columns that the engine publishes."""
    tiers = [(at, TIERS.index(tier), part) for at, zone in enumerate(zones) for tier, part in zone.tier_contributions.items()]
    return ZoneTable(
        side=[int(zone.side == "short") for zone in zones], bucket=[round(zone.price / step) for zone in zones],
        weight=[zone.weight for zone in zones], projected_usd=[zone.projected_usd for zone in zones],
        tape_usd=[zone.tape_usd for zone in zones], tape_part=[zone.tape_contribution for zone in zones],
        created=[zone.created_ns // (60 * SECOND_NS) - 1 for zone in zones],
        last=[zone.last_reinforced_ns // (60 * SECOND_NS) - 1 for zone in zones],
        count=[zone.reinforcement_count for zone in zones], armed=[zone.armed for zone in zones],
        source=[("", "inference", "tape", "combined").index(zone.source) for zone in zones],
        tier_zone=[row[0] for row in tiers], tier=[row[1] for row in tiers], tier_value=[row[2] for row in tiers],
    )  # fmt: skip


def zone_row(identity: str = "", **values: Any) -> ZoneRow:
    """A long zone of one tier, created 45 minutes ago. `identity`: for the reader; the published one is made of the zone."""
    plain: dict[str, Any] = {
        "id": identity, "side": "long", "price": 64_420.0, "weight": 2.93714, "projected_usd": 311_402.5, "tape_usd": 0.0,
        "source": "inference", "tier_contributions": {"100": 2.7847, "125": 0.15244}, "tape_contribution": 0.0,
        "created_ns": (NOW_MS - 45 * 60_000) * MS, "last_reinforced_ns": (NOW_MS - 60_000) * MS, "reinforcement_count": 7,
        "armed": True,
    }  # fmt: skip
    return ZoneRow(**{**plain, **values})


def candle(open_ms: int, price: float = 100.0, **values: Any) -> Any:
    """A minute bar with every optional value present, unless `present` says otherwise."""
    bar = np.zeros((), CANDLE_DTYPE)
    bar["schema"], bar["minutes"] = RECORD_SCHEMA, 1
    bar["open_ts_ns"], bar["close_ts_ns"] = open_ms * MS, (open_ms + 60_000) * MS
    for name in ("open", "high", "low", "close", "src", "mark"):
        bar[name] = price
    bar["present"] = CandleField.MARK | CandleField.OI | CandleField.OI_DELTA | CandleField.FUNDING
    for name, value in values.items():
        bar[name] = value
    return bar


def book_stats(**values: Any) -> BookStats:
    """A synchronised book."""
    defaults: dict[str, Any] = {
        "state": "synced",
        "best_bid": 65_892.7,
        "best_ask": 65_892.8,
        "total_bid_usd": 1.5,
        "total_ask_usd": 2.5,
        "last_gap_type": "",
        "max_sync_duration_s": 0.8,
        "last_update_ns": NOW_MS * MS,
        "synced_since_ns": (NOW_MS - 3_600_000) * MS,
    }
    names = (name for name in BookStats.__struct_fields__ if name not in defaults)
    return BookStats(**{**defaults, **{name: index for index, name in enumerate(names, 1)}, **values})


def status_document(symbol: str, **values: Any) -> StatusDocument:
    """A live engine."""
    defaults: dict[str, Any] = dict.fromkeys(StatusDocument.__struct_fields__)
    defaults |= {
        "schema_version": schemas.DOCUMENT_SCHEMA,
        "symbol": symbol,
        "written_ns": NOW_MS * MS,
        "state": "live",
        "engine_ns": NOW_MS * MS,
        "data_since_ns": (NOW_MS - 7_200_000) * MS,
        "tick": 0.1,
        "minutes_rolled": 1,
        "minutes_skipped": 0,
        "depth_frames": 1,
        "depth_slots_empty": 0,
        "counters": {},
        "errors": [],
        "canaries": {},
        "ratios": {},
    }
    return StatusDocument(**{**defaults, **values})


def venue_feed(state: Any = "LIVE", **values: Any) -> VenueFeed:
    """One venue as ingest sees it."""
    defaults: dict[str, Any] = {
        "state": state,
        "last_ms": NOW_MS,
        "reconnects": 0,
        "connections": 2,
        "parse_errors": 0,
        "rest_errors": 0,
        "rest_paused_until_ms": None,
        "used_weight": None,
        "liquidations": "largest_1s",
        "last_error": None,
        "reasons": {},
        "streams": {},
    }
    return VenueFeed(**{**defaults, **values})


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """(status, code) of an error answer; asserts its form."""
        found = self.json
        assert list(found) == ["error", "detail"] and all(isinstance(value, str) for value in found.values()), found
        return self.status, found["error"]


async def ask(app: Service, target: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Reply:
    """One request straight into the ASGI callable, as a server would hand it over."""
    raw_path, _, query = target.partition("?")
    messages: list[Any] = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8899),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    start, *rest = messages
    found = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
    assert len(found) == len(start["headers"]), "a header came twice"
    return Reply(start["status"], found, b"".join(message.get("body", b"") for message in rest))


def get(app: Service, target: str, **how: Any) -> Reply:
    """`ask` from a test that has no loop."""
    return asyncio.run(ask(app, target, **how))


@dataclass
class World:
    """Writers of one instance, opened when they are first used."""

    settings: Settings
    clock: FakeClock = field(default_factory=FakeClock)
    _open: dict[Path, Any] = field(default_factory=dict)
    _apps: list[Service] = field(default_factory=list)

    def app(self) -> Service:
        """An application over these files, on the test's clock."""
        app = create_app(self.settings, clock=self.clock.clock())
        self._apps.append(app)
        return app

    def depth(self, symbol: str = "BTC") -> FrameWriter:
        path = self.settings.paths.depth(symbol)
        return self._get(path, lambda: FrameWriter.open(path, depth_spec(symbol)))

    def liquidation(self, symbol: str = "BTC") -> FrameWriter:
        path = self.settings.paths.liquidation(symbol)
        return self._get(path, lambda: FrameWriter.open(path, liquidation_spec(symbol)))

    def candles(self, symbol: str = "BTC") -> RecordWriter:
        path = self.settings.paths.candles(symbol)
        return self._get(path, lambda: RecordWriter.open(path, candles_spec(symbol), CANDLE_DTYPE))

    def liquidations(self, symbol: str = "BTC") -> RecordWriter:
        path = self.settings.paths.liquidations(symbol)
        return self._get(path, lambda: RecordWriter.open(path, liquidations_spec(symbol), LIQUIDATION_DTYPE))

    def add_liquidation(self, symbol: str = "BTC", **values: Any) -> int:
        """One that came now: a long of Bybit of 500 USD unless `values` say otherwise."""
        record = np.zeros((), LIQUIDATION_DTYPE)
        at_ns = self.clock.now_ms * MS
        defaults = {
            "schema": RECORD_SCHEMA, "venue": Venue.BYBIT, "side": PositionSide.LONG, "price_kind": PriceKind.TRIGGER,
            "venue_ts_ns": at_ns - 7 * MS, "recv_ts_ns": at_ns, "price": 100.0, "bankruptcy_price": 99.5, "qty_base": 5.0,
            "notional_usd": 500.0,
        }  # fmt: skip
        for name, value in (defaults | values).items():
            record[name] = value
        return self.liquidations(symbol).append(record, ts_ns=at_ns)

    def documents(self, symbol: str = "BTC") -> DocumentWriter:
        path = self.settings.paths.documents(symbol)
        return self._get(path, lambda: DocumentWriter.open(path, documents_spec(symbol)))

    def feeds(self) -> DocumentWriter:
        path = self.settings.paths.feeds
        return self._get(path, lambda: DocumentWriter.open(path, feeds_spec()))

    def add_depth(self, frame: Frame, symbol: str = "BTC") -> int:
        """Publish a frame one second after its window."""
        ring = self.depth(symbol)
        return ring.publish(encode(frame), ts_ns=frame.close_ts_ns, kind=frame.kind, published_ns=frame.close_ts_ns + SECOND_NS)

    def add_history(self, count: int, symbol: str = "BTC", *, last_open_ms: int | None = None, **values: Any) -> None:
        """`count` frames, one per slot, the newest one just closed."""
        newest = self.clock.now_ms - SLOT_MS if last_open_ms is None else last_open_ms
        for index in range(count):
            open_ms = newest - (count - 1 - index) * SLOT_MS
            self.add_depth(depth_frame(open_ms, seed=index, **values), symbol)

    def add_map(self, frame: Frame, symbol: str = "BTC", *, document: bool = True, **values: Any) -> int:
        """Publish a minute as the engine does: the document first, linked to the number that the frame gets."""
        ring, stamp = self.liquidation(symbol), frame.close_ts_ns
        if document:
            data = schemas.encode(levels_document(frame, symbol, **values))
            self.documents(symbol).publish(DocumentId.LEVELS, data, ts_ns=stamp, link=ring.next_no, published_ns=stamp)
        return ring.publish(encode(frame), ts_ns=stamp, kind=frame.kind, published_ns=stamp + SECOND_NS)

    def add_maps(self, count: int, symbol: str = "BTC", **values: Any) -> None:
        """`count` minutes, the newest one just closed."""
        for index in range(count):
            self.add_map(map_frame(self.clock.now_ms - (count - 1 - index) * 60_000, seed=index, **values), symbol)

    def add_zones(self, zones: list[ZoneRow], symbol: str = "BTC", **values: Any) -> int:
        at_ns = self.clock.now_ms * MS
        document = ZonesDocument(symbol=symbol, written_ns=at_ns, minute=at_ns // (60 * SECOND_NS) - 1, step=20.0, tiers=TIERS,
                                 zones=zone_table(zones), counts=COUNTS, sums={}, **values)  # fmt: skip
        return self.documents(symbol).publish(DocumentId.ZONES, schemas.encode(document), ts_ns=at_ns, published_ns=at_ns)

    def add_candle(self, bar: Any, symbol: str = "BTC") -> int:
        return self.candles(symbol).append(bar, ts_ns=int(bar["close_ts_ns"]))

    def add_book(self, symbol: str = "BTC", *, link: int = 0, written_ms: int | None = None, **books: BookStats) -> int:
        written_ns = (self.clock.now_ms if written_ms is None else written_ms) * MS
        since_ns = (NOW_MS - 7_200_000) * MS
        books = books or {"binance": book_stats()}
        document = BookDocument(symbol=symbol, written_ns=written_ns, data_since_ns=since_ns, books=books)
        data = schemas.encode(document)
        return self.documents(symbol).publish(DocumentId.BOOK, data, ts_ns=written_ns, link=link, published_ns=written_ns)

    def add_status(self, symbol: str = "BTC", **values: Any) -> int:
        data = schemas.encode(status_document(symbol, **values))
        return self.documents(symbol).publish(DocumentId.STATUS, data, ts_ns=0, published_ns=self.clock.now_ms * MS)

    def add_oi(
        self, symbol: str = "BTC", *, mark: float | None = 100.0, shown: dict[str, float] | None = None, **venues: Any
    ) -> int:
        """Values that came now, or `(value, seconds ago)`."""
        now_ns = self.clock.now_ms * MS

        def value_of(given: Any) -> OiValue:
            base, ago = given if isinstance(given, tuple) else (given, 0.0)
            at_ns = now_ns - int(ago * 1000) * MS
            return OiValue(base=base, recv_ns=at_ns, venue_ns=at_ns - 7 * MS)

        values = {venue: value_of(given) for venue, given in venues.items()}
        fresh = [one.base for one in values.values() if now_ns - one.recv_ns <= 60 * SECOND_NS]
        document = OiDocument(
            symbol=symbol, written_ns=now_ns, unit=symbol, total_base=sum(fresh) if fresh else None, mark=mark, venues=values,
            display={venue: value_of(given) for venue, given in (shown or {}).items()},
        )  # fmt: skip
        return self.documents(symbol).publish(DocumentId.OI, schemas.encode(document), ts_ns=now_ns, published_ns=now_ns)

    def add_feeds(self, **venues: VenueFeed) -> int:
        now_ns = self.clock.now_ms * MS
        data = schemas.encode(FeedsDocument(written_ns=now_ns, venues=venues or {"binance": venue_feed()}))
        return self.feeds().publish(DocumentId.FEEDS, data, ts_ns=now_ns, published_ns=now_ns)

    def reopen(self, path: Path) -> None:
        """Close a writer, so that the next use attaches anew: another epoch."""
        self._open.pop(path).close()

    def close(self) -> None:
        for app in self._apps:
            app.context.builder.close()
            app.context.sources.close()
        for writer in self._open.values():
            writer.close()
        self._open.clear()

    def _get(self, path: Path, open_writer: Any) -> Any:
        if path not in self._open:
            self._open[path] = open_writer()
        return self._open[path]
