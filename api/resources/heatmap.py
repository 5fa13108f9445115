"""`/heatmap`: liquidation map, order book and realised liquidations on one time-price grid, as JSON or MPHM.

Built in the builder's thread out of frames that are kept decoded and blocks of cells that are kept encoded: a new minute decodes
what is new, and encodes the outermost blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from falcon.asgi import Request, Response

from api import params
from api.bodies import (
    BINARY,
    JSON,
    Answer,
    Chunked,
    Hole,
    Moment,
    Template,
    check_finite,
    dumps,
    etag,
    json_template,
    seconds_since,
    stale,
)
from api.context import Context
from api.errors import ApiError, no_frame, no_orderbook, not_ready, too_large
from api.heatmap_blocks import Block as CellBlock
from api.heatmap_blocks import Blocks, Look, Piece, triples
from api.heatmap_content import Content, HeatmapFiles, Ring
from api.heatmap_grid import TooLarge
from api.heatmap_params import DEPTH, HEATMAP, REALISED, HeatmapQuery, query_of
from api.oi import received_ms
from api.resources.data import DataResource
from api.resources.maps import retry_after_s
from mpengine import mphm
from mpengine.cells import HI_USD, LO_USD
from mpengine.mphm import Block, Form, Packed, Pool
from mpengine.wire_formats import CellType

ROUTE: Final = "/heatmap"
SCHEMA: Final = 1
FIELDS: Final = ("col", "row", "side", "venues", "count", "usd", "max_usd")
SIDE_NAMES: Final = {"liq": ("long", "short"), "depth": ("bid", "ask")}
UNITS: Final = {"liq": "usd_exposure", "depth": "usd_resting"}
REALISED_UNIT: Final = "usd_liquidated"
POINT_SIDES: Final = ("long", "short")
PLANES: Final = {
    "liq": (Block.LIQ_LONG, Block.LIQ_SHORT),
    "tape": (Block.TAPE_LONG, Block.TAPE_SHORT),
    "projected": (Block.PROJECTED_LONG, Block.PROJECTED_SHORT),
    "depth": (Block.DEPTH_BID, Block.DEPTH_ASK),
}
COLUMNS: Final = {"liq": (Block.LIQ_SEQ, Block.LIQ_UNIT), "depth": (Block.DEPTH_SEQ, Block.DEPTH_UNIT)}
CELLS: Final = {"u8log": CellType.U8LOG, "f16": CellType.F16}

Items = list[tuple[str, Any]]


class Heatmap(DataResource):
    """GET /heatmap."""

    rows = HEATMAP

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._table = params.Table(params.Symbol(tuple(context.settings.symbols)), self.rows)
        self._blocks = Blocks()
        self._files = {name: HeatmapFiles(context.settings, name, files) for name, files in context.sources.symbols.items()}

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        values = self._table.read(req.scope["query_string"])
        symbol = self.context.settings.symbols[values["symbol"]]
        query = query_of(values, symbol.step)
        if query.layers == (DEPTH,) and not symbol.has_orderbook:
            raise no_orderbook(query.symbol)
        self.context.sources.check()

        def build() -> Answer:
            return self._answer(query)

        await self.answer(req, resp, (ROUTE, query), lambda: self._stamp(query), build, received, self.context.builder)

    on_head = on_get

    def _stamp(self, query: HeatmapQuery) -> tuple[Any, ...]:
        """What an answer is valid for. Coverage is of the newest depth frame and its book, whatever layers there are."""
        context, files = self.context, self.context.sources.symbols[query.symbol]
        return (
            context.coverage[query.symbol].stamp(),
            context.maps[query.symbol].stamp() if query.maps else None,
            (files.liquidation.stamp(), files.liquidations.stamp()) if query.realised else None,
        )

    def _answer(self, query: HeatmapQuery) -> Answer:
        try:
            content = self._files[query.symbol].content(query)
        except TooLarge as error:
            raise too_large(str(error)) from None
        if not content.rings and REALISED not in query.layers:
            self._nothing(query)
        identity = content.identity
        freshness = content.freshness(lambda now_ms: self.context.feeds.liquidations_live(query.symbol, now_ms))
        key = (query, content.oi, tuple(ring.name for ring in content.rings), content.provenance["config_hash"])
        tag = etag(identity, ROUTE, key, weak=not query.binary)
        cells = {ring.name: self._cells(content, ring) for ring in content.rings}
        template = Template(binary(content, cells)) if query.binary else json_template(self._items(content, cells))
        return Answer(template, BINARY if query.binary else JSON, identity, freshness, tag)

    def _cells(self, content: Content, ring: Ring) -> list[CellBlock]:
        query = content.query
        look = Look(query.cell, query.sums, query.sparse, query.min_usd, query.binary)
        return list(self._blocks.of(query.symbol, ring.placed, ring.layers, content.prices, content.base, look))

    def _nothing(self, query: HeatmapQuery) -> None:
        """There is no frame: an error where one ring alone was asked for."""
        if query.depth and not query.maps:
            raise no_frame(query.symbol)
        if query.maps and not query.depth:
            raise self._not_ready(query.symbol)

    def _not_ready(self, symbol: str) -> ApiError:
        return not_ready(f"The first liquidation map of {symbol}", retry_after_s(self.context.clock.wall_ms()))

    def _items(self, content: Content, cells: Mapping[str, Sequence[CellBlock]]) -> Items:
        query, axis, prices = content.query, content.axis, content.prices
        identity = content.identity
        return [
            ("symbol", query.symbol),
            ("schema", SCHEMA),
            ("minutes", query.minutes),
            ("t0_ms", axis.t0_ms),
            ("dt_ms", axis.dt_ms),
            ("cols", axis.cols),
            ("price0", prices.price0),
            ("step", prices.step),
            ("rows", prices.rows),
            ("k", prices.k),
            ("pool", "sum" if query.sums else "max"),
            ("form", "sparse" if query.sparse else "dense"),
            ("cell", query.cell),
            ("lo_usd", LO_USD),
            ("hi_usd", HI_USD),
            ("src", content.src),
            ("layers", tuple(layer for ring in content.rings for layer in json_layers(content, ring, cells[ring.name]))),
            *([] if content.points is None else [("realised", _realised(content))]),
            ("provenance", content.provenance),
            ("epoch", identity.epoch),
            ("seq", _numbers(content)),
            ("ages", self._ages(content)),
            ("stale", stale),
        ]

    def _ages(self, content: Content) -> tuple[tuple[str, Any], ...]:
        """Ages of the layers asked for; of the open interest beside maps, which are made with it."""
        query = content.query
        wanted = (*(("liq",) if query.maps else ()), *(("depth",) if query.depth else ()))
        ages: Items = []
        for name in wanted:
            ring = content.ring(name)
            ages.append((f"{name}_s", None if ring is None else seconds_since(ring.origin_ms)))
        if query.maps:
            ages.append(("oi_s", self._oi_age(query.symbol)))
        return tuple(ages)

    def _oi_age(self, symbol: str) -> Hole:
        """Age of the newest open interest. Looked up per response: it comes more often than frames do."""
        found = self.context.oi[symbol]

        def age(moment: Moment) -> bytes:
            document = found.document()
            newest = max((received_ms(value) for value in document.content.venues.values()), default=None) if document else None
            return b"null" if newest is None else seconds_since(newest)(moment)

        return age


def _numbers(content: Content) -> dict[str, int | None]:
    """Newest frame or record of each source asked for."""
    query, rings = content.query, {ring.name: ring.newest.number for ring in content.rings}
    numbers: dict[str, int | None] = {}
    if query.maps:
        numbers["liq"] = rings.get("liq")
    if query.depth:
        numbers["depth"] = rings.get("depth")
    if query.realised:
        numbers["realised"] = None if content.realised is None else content.realised[1]
    return numbers


def json_layers(content: Content, ring: Ring, blocks: Sequence[CellBlock]) -> Iterator[tuple[str, Any]]:
    """(name, object) of each layer of a ring."""
    numbers = ring.placed.numbers
    for index, layer in enumerate(ring.layers):
        sides = [
            (name, Chunked(_texts(content, [(block, block.pieces[index][side]) for block in blocks])))
            for side, name in enumerate(SIDE_NAMES[ring.name])
        ]
        yield layer.name, (("seq", numbers), *sides, ("unit", UNITS[ring.name]))


def _texts(content: Content, pieces: Sequence[tuple[CellBlock, Piece]]) -> list[bytes]:
    rows = content.prices.rows
    found = (triples(block, piece, rows) if content.query.sparse else piece.text for block, piece in pieces)
    return [text for text in found if text]


def _realised(content: Content) -> tuple[tuple[str, Any], ...]:
    points = content.points
    assert points is not None
    columns: dict[str, list[Any]] = {name: points[name].tolist() for name in FIELDS}
    columns["side"] = [POINT_SIDES[side] for side in columns["side"]]
    for name in ("usd", "max_usd"):
        check_finite(points[name])
        columns[name] = [round(usd, 2) for usd in columns[name]]
    # PERF: thousands of rows, whose numbers have been looked at already.
    rows = Chunked([orjson.dumps(list(zip(*columns.values())))[1:-1]])
    seq = None if content.realised is None else content.realised[1]
    return (("fields", list(FIELDS)), ("points", rows), ("unit", REALISED_UNIT), ("seq", seq))


def binary(content: Content, found: Mapping[str, Sequence[CellBlock]]) -> Sequence[bytes]:
    """The answer as MPHM, in two pieces. `found`: cells of each ring."""
    query, axis, prices = content.query, content.axis, content.prices
    cell = CELLS[query.cell]
    blocks: list[Packed] = []
    for ring in content.rings:
        cells = found[ring.name]
        for index, layer in enumerate(ring.layers):
            for side, block in enumerate(PLANES[layer.name]):
                blocks.append(_plane(block, cell, content, [(one, one.pieces[index][side]) for one in cells]))
        numbers, unit = COLUMNS[ring.name]
        blocks.append(mphm.per_column(numbers, ring.placed.numbers))
        if cell is CellType.F16:
            blocks.append(mphm.per_column(unit, np.concatenate([np.zeros(0), *(one.units for one in cells)])))
    if content.points is not None:
        blocks.append(mphm.realised(content.points))
    blocks.append(mphm.per_column(Block.SRC, np.array(content.src, np.float64)))
    blocks.append(mphm.provenance(dumps({"symbol": query.symbol, **content.provenance})))
    sources = _numbers(content)
    header = mphm.Header(
        cell=cell, form=Form.SPARSE if query.sparse else Form.DENSE, pool=Pool.SUM if query.sums else Pool.MAX, flags=content.flags,
        t0_ms=axis.t0_ms, dt_ms=axis.dt_ms, cols=axis.cols, price0=prices.price0, step=prices.step, rows=prices.rows, k=prices.k,
        epoch=content.identity.epoch or 0, liq_seq=sources.get("liq"), depth_seq=sources.get("depth"),
        realised_seq=sources.get("realised"), lo_usd=LO_USD, hi_usd=HI_USD,
    )  # fmt: skip
    return mphm.encode(header, blocks)


def _plane(block: Block, cell: CellType, content: Content, pieces: Sequence[tuple[CellBlock, Piece]]) -> Packed:
    rows = content.prices.rows
    if not content.query.sparse:
        return mphm.dense(block, cell, content.axis.cols * rows, [piece.text for _, piece in pieces])
    at = [piece.at + one.cut.first * rows for one, piece in pieces if piece.at is not None]
    cells = [piece.cells for _, piece in pieces if piece.cells is not None]
    return mphm.sparse(block, cell, np.concatenate([np.zeros(0, np.int64), *at]), np.concatenate([np.zeros(0, np.uint8), *cells]))
