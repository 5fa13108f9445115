"""Which channels there are, and what the states among them hold (`spec: api`, section 13; bodies: `mpengine.contract.push`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from api.bars import MINUTE_MS, fold
from api.bodies import dumps
from api.context import Context
from api.documents import Published, published
from api.feeds import FEEDS_STALE_MS
from api.health import Health
from api.oi import STALE_MS as OI_STALE_MS
from api.oi import aggregate, received_ms
from api.push.channels import NS_PER_MS, Channel, ColumnChannel, EventChannel, StateChannel, Version, ZoneChannel, zones_version
from api.resources.depth import STALE_AFTER_MS as DEPTH_STALE_MS
from api.resources.maps import STALE_AFTER_MS as MAP_STALE_MS
from api.resources.maps import levels_json, meta_json
from api.resources.oi import sum_items, summed_venues
from api.sources import NO_FILE
from mpengine.config import Settings
from mpengine.schemas import BookDocument
from mpengine.wire_formats import ColumnKind
from shm.records import DocumentId

STATUS: Final = "status"
KINDS: Final = ("depth", "liq", "liquidations", "zones", "levels", "oi", "candles", "book")
BOOK_KINDS: Final = frozenset(("depth", "book"))
"""Kinds that a symbol without a book has not."""


def channel_names(settings: Settings) -> list[str]:
    """Names of all channels; a channel's place in this list is its number in binary messages."""
    names = [
        f"{kind}.{symbol}"
        for symbol, one in settings.symbols.items()
        for kind in KINDS
        if one.has_orderbook or kind not in BOOK_KINDS
    ]
    return [*names, STATUS]


def channels_of(context: Context, health: Health) -> dict[str, Channel]:
    """Every channel by name."""
    return {name: _channel(context, health, name, number) for number, name in enumerate(channel_names(context.settings))}


def _channel(context: Context, health: Health, name: str, number: int) -> Channel:
    if name == STATUS:
        return StateChannel(name, number, *_status(context, health), dumps)
    kind, _, symbol = name.partition(".")
    sources, maps = context.sources.symbols[symbol], context.maps[symbol]
    if kind == "depth":
        return ColumnChannel(name, number, sources.depth, ColumnKind.DEPTH, DEPTH_STALE_MS)
    if kind == "liq":
        return ColumnChannel(name, number, sources.liquidation, ColumnKind.LIQ, MAP_STALE_MS)
    if kind == "liquidations":

        def live() -> bool:
            return context.feeds.liquidations_live(symbol, context.clock.wall_ms())

        return EventChannel(name, number, context.liquidations[symbol], sources.liquidations.stamp, live)
    if kind == "zones":
        return ZoneChannel(name, number, maps.zones_stamp, lambda: zones_version(maps.zones(), MAP_STALE_MS))
    makers: Mapping[str, Callable[[Context, str], _State]] = {"levels": _levels, "oi": _oi, "candles": _candles, "book": _book}
    return StateChannel(name, number, *makers[kind](context, symbol), dumps)


_State = tuple[Callable[[], Hashable], Callable[[], Version | None]]
"""(stamp, read) of a state."""


def _levels(context: Context, symbol: str) -> _State:
    maps = context.maps[symbol]

    def read() -> Version | None:
        pair = maps.newest()
        if pair is None:
            return None
        levels = pair.levels.content
        content = {
            "ts_ms": pair.map.close_ms, "price": levels.src, "src": round(levels.close, 2),
            "long_levels": levels_json(levels.long.pools), "short_levels": levels_json(levels.short.pools),
            "meta": meta_json(levels),
        }  # fmt: skip
        return Version(pair.map.identity, pair.levels.published_ns // NS_PER_MS, pair.map.close_ms + MAP_STALE_MS, content)

    return maps.stamp, read


def _oi(context: Context, symbol: str) -> _State:
    interest, settings = context.oi[symbol], context.settings
    expected = summed_venues(settings, symbol)

    def read() -> Version | None:
        found, now_ms = interest.document(), context.clock.wall_ms()
        summed = None if found is None else aggregate(found.content, expected, now_ms)
        if found is None or summed is None:
            return None
        content = dict(sum_items(symbol, settings.symbols[symbol].base_asset, found.content, summed))
        stale_after_ms = max(received_ms(value) for value in summed.venues.values()) + OI_STALE_MS
        return Version(found.identity, found.published_ns // NS_PER_MS, stale_after_ms, content)

    return interest.stamp, read


def _candles(context: Context, symbol: str) -> _State:
    handle = context.sources.symbols[symbol].candles

    def read() -> Version | None:
        reader = handle.reader
        slot = None if reader is None else reader.ring.latest()
        if reader is None or slot is None:
            return None
        _, bars = reader.range(slot.frame_no, slot.frame_no + 1)
        if not len(bars):
            return None
        bar = fold(bars, 1)
        columns: dict[str, Any] = {
            "t": bar.t_ms, **bar.prices, "mark": bar.optional["mark"], "buy_usd": bar.sums["buy_usd"],
            "sell_usd": bar.sums["sell_usd"], "buy_count": bar.counts["buy_count"], "sell_count": bar.counts["sell_count"],
            "oi_base": bar.optional["oi_base"], "oi_delta_base": bar.optional["oi_delta_base"],
            "funding_rate": bar.optional["funding_rate"], "liq_long_usd": bar.sums["liq_long_usd"],
            "liq_short_usd": bar.sums["liq_short_usd"], "liq_count": bar.counts["liq_count"], "flags": bar.flags,
        }  # fmt: skip
        content = {name: column[0].item() if hasattr(column, "dtype") else column[0] for name, column in columns.items()}
        closed_ms = bar.t_ms[0] + MINUTE_MS
        return Version((slot.epoch, slot.frame_no), slot.published_ns // NS_PER_MS, closed_ms + MAP_STALE_MS, content)

    return handle.stamp, read


def _book(context: Context, symbol: str) -> _State:
    documents = context.sources.symbols[symbol].documents

    def stamp() -> Hashable:
        reader = documents.reader
        return NO_FILE if reader is None or DocumentId.BOOK not in reader.documents() else documents.stamp(DocumentId.BOOK)

    def read() -> Version | None:
        reader = documents.reader
        if reader is None or DocumentId.BOOK not in reader.documents():
            return None
        found = published(reader.latest(DocumentId.BOOK), BookDocument)
        return None if found is None else _book_version(found)

    return stamp, read


def _book_version(found: Published[BookDocument]) -> Version:
    books = {
        venue: {
            "state": one.state, "best_bid": one.best_bid, "best_ask": one.best_ask, "total_bid_usd": one.total_bid_usd,
            "total_ask_usd": one.total_ask_usd,
            "last_update_ms": None if one.last_update_ns is None else one.last_update_ns // NS_PER_MS,
        }
        for venue, one in found.content.books.items()
    }  # fmt: skip
    stale_after_ms = found.content.written_ns // NS_PER_MS + DEPTH_STALE_MS
    return Version(found.identity, found.published_ns // NS_PER_MS, stale_after_ms, {"books": books})


def _status(context: Context, health: Health) -> _State:
    """The verdict of `/health` without what moves by itself. Looked at when ingest has said something: once a second."""
    told: dict[str, Any] = {}

    def stamp() -> Hashable:
        found = context.feeds.document()
        return None if found is None else (context.sources.feeds.uuid, found.identity)

    def read() -> Version | None:
        found = context.feeds.document()
        if found is None:
            return None
        content = health.verdict()
        if content != told.get("content"):
            told["content"], told["identity"] = content, found.identity
        published_ms = found.published_ns // NS_PER_MS
        return Version(told["identity"], published_ms, published_ms + FEEDS_STALE_MS, content)

    return stamp, read
