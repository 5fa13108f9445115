"""`/orderbook_heatmap` and its history: pictures of 30 s order-book frames, as JSON or in the old binary form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, Final

import numpy as np
from falcon.asgi import Request, Response

from api import params, views
from api.bodies import (
    BINARY,
    JSON,
    Answer,
    Chunked,
    Freshness,
    Identity,
    Template,
    age_s,
    dumps,
    etag,
    json_template,
    now_ms,
    received_ms,
    stale,
)
from api.cache import Key
from api.context import Context
from api.depth import DepthFrames
from api.errors import no_frame, no_orderbook
from api.resources.data import DataResource
from api.views import DepthFrame, DepthRow, Levels, Picture, Window
from mpengine.wire_formats import DEPTH_HEADER, DEPTH_RAW, DEPTH_VERSION, KILO_LIMIT

LATEST: Final = "/orderbook_heatmap"
HISTORY: Final = "/orderbook_heatmap_history"
INTERVAL_MS: Final = 30_000
STALE_AFTER_MS: Final = 90_000
SCALE: Final = 255
ROWS_AT_ONCE: Final = 64  # rows of a history encoded in one call: orjson holds the interpreter while it works


@dataclass(frozen=True, slots=True)
class DepthQuery:
    """Checked parameters of a depth endpoint; `window` counts in the grid of the newest frame, whose step is `step`."""

    symbol: str
    step: float
    window: Window
    binary: bool
    minutes: int = 0
    stride: int = 1

    def key(self, route: str) -> Key:
        return (route, self)


class DepthResource(DataResource):
    """What the depth endpoints share: parameters, frames by symbol, and symbols that have a book."""

    rows: ClassVar[tuple[params.Parameter, ...]] = ()

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._table = params.Table(params.Symbol(tuple(context.settings.symbols)), self.rows)

    def frames_of(self, symbol: str) -> DepthFrames:
        """Frames of a symbol. Raises ApiError `no_orderbook`."""
        if not self.context.settings.symbols[symbol].has_orderbook:
            raise no_orderbook(symbol)
        self.context.sources.check()
        return self.context.depth[symbol]

    def query(self, values: dict[str, Any], frames: DepthFrames) -> DepthQuery:
        """Canonical parameters. Raises ApiError 400."""
        newest = frames.newest()
        symbol, binary = values["symbol"], values["format"] == "bin"
        step = self.context.settings.symbols[symbol].book_step if newest is None else newest.row.step
        window = views.window_of(step, values["range_pct"], values["step"], values["price_min"], values["price_max"])
        return DepthQuery(symbol, step, window, binary, values.get("minutes", 0), values.get("stride", 1))


class Latest(DepthResource):
    """GET /orderbook_heatmap."""

    rows = params.DEPTH

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        values = self._table.read(req.scope["query_string"])
        frames = self.frames_of(values["symbol"])
        query = self.query(values, frames)
        ring = self.context.sources.symbols[query.symbol].depth

        def build() -> Answer:
            frame = frames.newest()
            if frame is None:
                raise no_frame(query.symbol)
            return self._binary(query, frame) if query.binary else self._json(query, frame)

        # The coverage of the JSON form comes from documents; the binary form has none.
        current = ring.stamp if query.binary else self.context.coverage[query.symbol].stamp
        await self.answer(req, resp, query.key(LATEST), current, build, received)

    on_head = on_get

    def _json(self, query: DepthQuery, frame: DepthFrame) -> Answer:
        row = frame.row
        basis = self.context.coverage[query.symbol].of(frame)
        identity = Identity(basis.identities[0], basis.identities[1:])
        picture = views.picture([row], query.window)
        low, high = picture.bounds
        template = json_template(
            [
                ("symbol", query.symbol),
                ("frame_ts_ms", row.open_ms),
                ("frame_interval_ms", INTERVAL_MS),
                ("valid_from_ts_ms", row.open_ms),
                ("valid_to_ts_ms", row.open_ms + INTERVAL_MS),
                ("server_recv_ts_ms", received_ms),
                ("server_send_ts_ms", now_ms),
                ("data_is_stale", stale),
                ("ts", row.open_ms / 1000),
                ("src", row.src),
                ("step", picture.step),
                ("price_min", low),
                ("price_max", high),
                ("prices", picture.prices),
                ("bid_u8", np.ascontiguousarray(picture.cells[0, 0])),
                ("ask_u8", np.ascontiguousarray(picture.cells[1, 0])),
                *_norms(row.levels),
                ("bid_p50", usd(frame.bid.p50)),
                ("bid_p95", usd(frame.bid.p95)),
                ("bid_max", usd(frame.bid.max)),
                ("ask_p50", usd(frame.ask.p50)),
                ("ask_p95", usd(frame.ask.p95)),
                ("ask_max", usd(frame.ask.max)),
                ("total_bid_notional", usd(frame.total_bid)),
                ("total_ask_notional", usd(frame.total_ask)),
                ("scale", SCALE),
                ("_mode", "shared_buffer"),
                ("base_asset", self.context.settings.symbols[query.symbol].base_asset),
                ("range_pct", query.window.range_pct),
                ("frame_step", row.step),
                ("coverage", basis.coverage),
                ("seq", row.number),
                ("epoch", row.epoch),
                ("age_s", age_s),
                ("stale", stale),
            ]
        )
        tag = etag(identity, LATEST, (query, basis.oi), weak=True)
        return Answer(template, JSON, identity, Freshness(row.open_ms, STALE_AFTER_MS), tag)

    def _binary(self, query: DepthQuery, frame: DepthFrame) -> Answer:
        row = frame.row
        picture = views.picture([row], query.window)
        levels = row.levels
        header = _bin_header(row.open_ms, 1, picture, row.src, (levels.p50, levels.p90, levels.p95, levels.p99), levels.max)
        identity = Identity((row.epoch, row.number))
        return Answer(
            Template([header + picture.cells.tobytes()]),
            BINARY,
            identity,
            Freshness(row.open_ms, STALE_AFTER_MS),
            etag(identity, LATEST, query, weak=False),
            _bin_headers(row.open_ms),
            binary=True,
        )


class History(DepthResource):
    """GET /orderbook_heatmap_history. Long ones read and decode 1,440 frames: built in the builder's thread."""

    rows = params.DEPTH_HISTORY

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        values = self._table.read(req.scope["query_string"])
        frames = self.frames_of(values["symbol"])
        query = self.query(values, frames)

        def build() -> Answer:
            return answer_history(query, select(frames.rows(query.minutes * 2), query.minutes, query.stride))

        # The book is no part of a history, so its document does not count for it.
        ring = self.context.sources.symbols[query.symbol].depth
        await self.answer(req, resp, query.key(HISTORY), ring.stamp, build, received, self.context.builder)

    on_head = on_get


@dataclass(frozen=True, slots=True)
class Chosen:
    """Rows of a history, oldest first, all on the step of the newest; `skipped`: frames on another step."""

    rows: list[DepthRow]
    skipped: int


def select(rows: Sequence[DepthRow], minutes: int, stride: int) -> Chosen:
    """Frames of the last `minutes`, every `stride`-th 30 s slot counted from the newest, which is always in.

    A slot without a frame is absent. So is a frame that a later one is not later than: the clock was set back between them.
    """
    if not rows:
        return Chosen([], 0)
    newest = rows[-1]
    oldest_ms = newest.open_ms - minutes * 60_000
    phase = newest.open_ms // INTERVAL_MS % stride
    inside = [row for row in _ascending(rows) if row.open_ms > oldest_ms and row.open_ms // INTERVAL_MS % stride == phase]
    same = [row for row in inside if row.step == newest.step]
    return Chosen(same, len(inside) - len(same))


def _ascending(rows: Sequence[DepthRow]) -> list[DepthRow]:
    """Rows without those that are at or after the time of a row behind them."""
    kept: list[DepthRow] = []
    for row in reversed(rows):
        if not kept or row.open_ms < kept[-1].open_ms:
            kept.append(row)
    return kept[::-1]


def answer_history(query: DepthQuery, chosen: Chosen) -> Answer:
    """The history of the chosen rows in the form asked for; an empty one where there are none. Raises ApiError `too_large`."""
    rows = chosen.rows
    if rows:
        picture, identity = views.picture(rows, query.window), Identity((rows[-1].epoch, rows[-1].number))
        origin_ms = rows[-1].open_ms
    else:
        picture, identity = Picture(0, query.window.step(query.step), np.zeros((2, 0, 0), np.uint8)), Identity(None)
        origin_ms = None
    freshness = Freshness(origin_ms, STALE_AFTER_MS)
    tag = etag(identity, HISTORY, query, weak=not query.binary)
    if query.binary:
        body = _history_bin(rows, picture)
        return Answer(Template(body), BINARY, identity, freshness, tag, _bin_history_headers(rows, picture), binary=True)
    return Answer(_history_json(query, chosen, picture, identity), JSON, identity, freshness, tag)


def _history_json(query: DepthQuery, chosen: Chosen, picture: Picture, identity: Identity) -> Template:
    rows = chosen.rows
    low, high = picture.bounds
    return json_template(
        [
            ("frame_interval_ms", INTERVAL_MS),
            ("first_frame_ts_ms", rows[0].open_ms if rows else 0),
            ("last_frame_ts_ms", rows[-1].open_ms if rows else 0),
            ("server_recv_ts_ms", received_ms),
            ("server_send_ts_ms", now_ms),
            ("data_is_stale", stale),
            ("t", [row.open_ms for row in rows]),
            ("prices", picture.prices),
            ("bid_u8", flat_cells(picture, 0)),
            ("ask_u8", flat_cells(picture, 1)),
            ("step", picture.step),
            ("price_min", low),
            ("price_max", high),
            ("scale", SCALE),
            ("norm_method", "p50_p95"),
            ("_mode", "shared_buffer"),
            ("symbol", query.symbol),
            ("minutes", query.minutes),
            ("stride", query.stride),
            ("count", len(rows)),
            ("src", [row.src for row in rows]),
            ("norm_p50", [usd(row.levels.p50) for row in rows]),
            ("norm_p95", [usd(row.levels.p95) for row in rows]),
            ("skipped_frames", chosen.skipped),
            ("first_seq", rows[0].number if rows else None),
            ("seq", identity.seq),
            ("epoch", identity.epoch),
            ("age_s", age_s),
            ("stale", stale),
        ]
    )


def flat_cells(picture: Picture, side: int) -> Chunked:
    """Cells of one side, row-major, encoded a block of rows at a time."""
    cells = picture.cells[side]
    blocks = (cells[begin : begin + ROWS_AT_ONCE].reshape(-1) for begin in range(0, len(cells), ROWS_AT_ONCE))
    return Chunked([dumps(block)[1:-1] for block in blocks if block.size])


def _history_bin(rows: Sequence[DepthRow], picture: Picture) -> list[bytes]:
    if not rows:
        return [_bin_header(0, 0, picture, 0.0, (0.0,) * 4, 0.0)]
    levels = [row.levels for row in rows]
    medians = [median(getattr(one, name) for one in levels) for name in ("p50", "p90", "p95", "p99")]
    header = _bin_header(rows[0].open_ms, len(rows), picture, rows[-1].src, medians, max(one.max for one in levels))
    times = np.array([row.open_ms for row in rows], "<u8").tobytes()
    return [header, picture.cells[0].tobytes(), picture.cells[1].tobytes(), times]


def _bin_header(first_ms: int, rows: int, picture: Picture, src: float, percentiles: Sequence[float], largest: float) -> bytes:
    low, high = picture.bounds
    norms = [_kilo(value) for value in (*percentiles, largest)]
    columns = picture.buckets if rows else 0
    return DEPTH_HEADER.pack(
        DEPTH_VERSION, DEPTH_RAW, 0, first_ms, INTERVAL_MS, rows, columns, low, high, picture.step, src, *norms, 0
    )


def _bin_headers(first_ms: int) -> tuple[tuple[bytes, bytes], ...]:
    return (b"x-frame-ts-ms", b"%d" % first_ms), (b"x-frame-interval-ms", b"%d" % INTERVAL_MS)


def _bin_history_headers(rows: Sequence[DepthRow], picture: Picture) -> tuple[tuple[bytes, bytes], ...]:
    first, last = (rows[0].open_ms, rows[-1].open_ms) if rows else (0, 0)
    return (
        *_bin_headers(first),
        (b"x-first-frame-ts-ms", b"%d" % first),
        (b"x-last-frame-ts-ms", b"%d" % last),
        (b"x-frame-count", b"%d" % len(rows)),
        (b"x-price-count", b"%d" % (picture.buckets if rows else 0)),
    )


def _norms(levels: Levels) -> list[tuple[str, float]]:
    return [(f"norm_{name}", usd(getattr(levels, name))) for name in ("p50", "p90", "p95", "p99", "max")]


def usd(value: float) -> float:
    """Dollars as they are published: whole cents."""
    return round(value, 2)


def _kilo(value: float) -> int:
    """Whole thousands of USD in the 16 bits of the old header; larger ones stay at its end."""
    return min(KILO_LIMIT, int(value // 1000))
