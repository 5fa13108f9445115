"""`/heatmap`: liquidation map, order book and realised liquidations on one time-price grid, as JSON or MPHM.

Built in the builder's thread out of rows that are kept decoded: a new minute reads and decodes one frame of each ring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from falcon.asgi import Request, Response

from api import params
from api.bodies import BINARY, JSON, Answer, Chunked, Hole, Moment, Template, dumps, etag, json_template, seconds_since, stale
from api.context import Context
from api.errors import ApiError, no_frame, no_orderbook, not_ready, too_large
from api.heatmap_content import Content, HeatmapFiles, Ring
from api.heatmap_grid import TooLarge, cells_of, cuts
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
        key = (query, content.oi, tuple(ring.name for ring in content.rings))
        tag = etag(identity, ROUTE, key, weak=not query.binary)
        template = Template(binary(content)) if query.binary else json_template(self._items(content))
        return Answer(template, BINARY if query.binary else JSON, identity, freshness, tag)

    def _nothing(self, query: HeatmapQuery) -> None:
        """There is no frame: an error where one ring alone was asked for."""
        if query.depth and not query.maps:
            raise no_frame(query.symbol)
        if query.maps and not query.depth:
            raise self._not_ready(query.symbol)

    def _not_ready(self, symbol: str) -> ApiError:
        return not_ready(f"The first liquidation map of {symbol}", retry_after_s(self.context.clock.wall_ms()))

    def _items(self, content: Content) -> Items:
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
            ("layers", tuple(layer for ring in content.rings for layer in json_layers(content, ring))),
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


@dataclass(slots=True)
class Side:
    """Pieces of one plane, block by block. Sparse: `at` holds the indices c * rows + r, `values` the cells."""

    parts: list[bytes] = field(default_factory=list)
    at: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)


def _sides(content: Content, ring: Ring) -> tuple[dict[str, tuple[Side, Side]], list[Any]]:
    """(sides of each layer in pieces, units of float16 cells) of a ring; JSON is text already."""
    query, rows = content.query, content.prices.rows
    sides = {layer.name: (Side(), Side()) for layer in ring.layers}
    units = []
    for cut in cuts(content.axis.cols, rows):
        blocks, unit = cells_of(
            ring.placed, ring.layers, content.prices, content.base, cut, cell=query.cell, sums=query.sums, min_usd=query.min_usd
        )
        units.append(unit)
        for layer, block in zip(ring.layers, blocks):
            for side, cells in zip(sides[layer.name], block):
                flat = cells.reshape(-1)
                if query.sparse:
                    at = np.flatnonzero(flat)
                    side.at.append(at + cut.first * rows)
                    side.values.append(flat[at])
                elif flat.size:
                    side.parts.append(flat.tobytes() if query.binary else dumps(flat)[1:-1])
    return sides, units


def json_layers(content: Content, ring: Ring) -> Iterator[tuple[str, Any]]:
    """(name, object) of each layer of a ring."""
    sides, _ = _sides(content, ring)
    numbers = ring.placed.numbers
    first, second = SIDE_NAMES[ring.name]
    for name, (low, high) in sides.items():
        yield (
            name,
            (
                ("seq", numbers),
                (first, _json_cells(content, low)),
                (second, _json_cells(content, high)),
                ("unit", UNITS[ring.name]),
            ),
        )


def _json_cells(content: Content, side: Side) -> Chunked:
    if not content.query.sparse:
        return Chunked(side.parts)
    parts = []
    for at, values in zip(side.at, side.values):
        columns, rows = np.divmod(at, content.prices.rows)
        if values.dtype.kind == "u":
            parts.append(dumps(np.column_stack((columns, rows, values.astype(np.int64))))[1:-1])
        else:
            parts.append(dumps(list(zip(columns.tolist(), rows.tolist(), values.tolist())))[1:-1])
    return Chunked([part for part in parts if part])


def _realised(content: Content) -> tuple[tuple[str, Any], ...]:
    points = content.points
    assert points is not None
    columns = zip(*(points[name].tolist() for name in FIELDS))
    rows = [
        (col, row, POINT_SIDES[side], venues, count, round(usd, 2), round(max_usd, 2))
        for col, row, side, venues, count, usd, max_usd in columns
    ]
    seq = None if content.realised is None else content.realised[1]
    return (("fields", list(FIELDS)), ("points", rows), ("unit", REALISED_UNIT), ("seq", seq))


def binary(content: Content) -> Sequence[bytes]:
    """The answer as MPHM, in two pieces."""
    query, axis, prices = content.query, content.axis, content.prices
    cell = CELLS[query.cell]
    blocks: list[Packed] = []
    for ring in content.rings:
        sides, units = _sides(content, ring)
        for name, pair in sides.items():
            for block, side in zip(PLANES[name], pair):
                blocks.append(_plane(block, cell, side, content))
        numbers, unit = COLUMNS[ring.name]
        blocks.append(mphm.per_column(numbers, ring.placed.numbers))
        if cell is CellType.F16:
            blocks.append(mphm.per_column(unit, np.concatenate([np.zeros(0), *units])))
    if content.points is not None:
        blocks.append(mphm.realised(content.points))
    blocks.append(mphm.per_column(Block.SRC, np.array([np.nan if src is None else src for src in content.src])))
    blocks.append(mphm.provenance(dumps({"symbol": query.symbol, **content.provenance})))
    sources = _numbers(content)
    header = mphm.Header(
        cell=cell, form=Form.SPARSE if query.sparse else Form.DENSE, pool=Pool.SUM if query.sums else Pool.MAX, flags=content.flags,
        t0_ms=axis.t0_ms, dt_ms=axis.dt_ms, cols=axis.cols, price0=prices.price0, step=prices.step, rows=prices.rows, k=prices.k,
        epoch=content.identity.epoch or 0, liq_seq=sources.get("liq"), depth_seq=sources.get("depth"),
        realised_seq=sources.get("realised"), lo_usd=LO_USD, hi_usd=HI_USD,
    )  # fmt: skip
    return mphm.encode(header, blocks)


def _plane(block: Block, cell: CellType, side: Side, content: Content) -> Packed:
    if not content.query.sparse:
        return mphm.dense(block, cell, content.axis.cols * content.prices.rows, side.parts)
    empty = np.zeros(0, np.int64)
    return mphm.sparse(block, cell, np.concatenate([empty, *side.at]), np.concatenate([empty.astype(np.uint8), *side.values]))
