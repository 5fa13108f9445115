"""`/orderbook_heatmap_stats` and `/orderbook_heatmap_debug`: the depth ring and the books of the venues, in the old words.

Both answer 200 also before the first frame, with zeros. Old keys keep their JSON type, so a price that is not there is 0.0 here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from falcon.asgi import Request, Response

from api.bodies import (
    JSON,
    Answer,
    Freshness,
    Identity,
    age_s,
    etag,
    json_template,
    now_ms,
    now_s,
    seconds_since,
    stale,
)
from api.depth import DepthFrames
from api.documents import Published
from api.resources.depth import INTERVAL_MS, STALE_AFTER_MS, DepthResource
from api.sources import SymbolSources
from api.views import DepthFrame
from mpengine.schemas import BookDocument, BookStats
from shm.board import BoardReader
from shm.board_words import Word
from shm.records import Venue

STATS: Final = "/orderbook_heatmap_stats"
DEBUG: Final = "/orderbook_heatmap_debug"
RECONSTRUCTOR: Final = Venue.BINANCE.label

Items = list[tuple[str, Any]]


class DepthStatus(DepthResource):
    """Base of both: an answer from ring and book, whatever of them is there."""

    route: ClassVar[str]

    def items(self, symbol: str, ring: Items, newest: DepthFrame | None, book: Published[BookDocument] | None) -> Items:
        """Keys of the body but the last three. `ring`: the nine keys of the depth ring."""
        raise NotImplementedError

    async def on_get(self, req: Request, resp: Response) -> None:
        received = self.context.clock.wall_ms()
        symbol = self._table.read(req.scope["query_string"])["symbol"]
        frames = self.frames_of(symbol)
        sources = self.context.sources.symbols[symbol]

        def timings() -> tuple[float, float]:
            return write_ms(self.context.sources.board.reader, symbol)

        def build() -> Answer:
            newest = frames.newest()
            book = frames.book(None)
            lead = None if newest is None else (newest.row.epoch, newest.row.number)
            identity = Identity(lead, () if book is None else (book.identity,))
            items = self.items(symbol, ring_items(sources, frames, newest, timings()), newest, book)
            template = json_template([*items, ("seq", identity.seq), ("epoch", identity.epoch), ("stale", stale)])
            freshness = Freshness(None if newest is None else newest.row.open_ms, STALE_AFTER_MS)
            return Answer(template, JSON, identity, freshness, etag(identity, self.route, symbol, weak=True))

        # How long a frame took to write is on the board only after readers can see the frame.
        await self.answer(req, resp, (self.route, symbol), lambda: (frames.stamp(), timings()), build, received)

    on_head = on_get


class Stats(DepthStatus):
    """GET /orderbook_heatmap_stats."""

    route = STATS

    def items(self, symbol: str, ring: Items, newest: DepthFrame | None, book: Published[BookDocument] | None) -> Items:
        books = {} if book is None else {venue: reconstructor(stats, book) for venue, stats in book.content.books.items()}
        return [
            *ring,
            ("current_time", now_s),
            ("current_time_ms", now_ms),
            ("frame_interval_ms", INTERVAL_MS),
            ("mode", "shared_buffer"),
            ("last_frame_age_s", age_s),
            ("last_frame_ts_ms", 0 if newest is None else newest.row.open_ms),
            ("data_is_stale", stale),
            ("reconstructor", books.get(RECONSTRUCTOR, (("error", "not available"),))),
            ("symbol", symbol),
            ("books", tuple(books.items())),
        ]


class Debug(DepthStatus):
    """GET /orderbook_heatmap_debug."""

    route = DEBUG

    def items(self, symbol: str, ring: Items, newest: DepthFrame | None, book: Published[BookDocument] | None) -> Items:
        return [
            ("has_ob_heatmap_module", True),
            ("ob_buffer_shared", True),
            ("mode", "embedded"),
            ("ob_buffer_stats", tuple(ring)),
            ("symbol", symbol),
        ]


def ring_items(sources: SymbolSources, frames: DepthFrames, newest: DepthFrame | None, timings: tuple[float, float]) -> Items:
    """The nine keys that both endpoints have; `timings` as `write_ms`."""
    reader = sources.depth.reader
    head = 0 if reader is None else reader.head()
    held = 0 if reader is None else min(head - reader.first(), reader.spec.slots)
    return [
        ("frames_in_memory", held),
        ("frames_on_disk", held),
        ("last_ts", 0.0 if newest is None else newest.row.open_ms / 1000),
        ("oldest_ts", frames.oldest_ms() / 1000),
        ("file_size_bytes", 0 if reader is None else reader.spec.file_bytes),
        ("frames_written_total", head),
        ("last_frame_write_ts_ms", 0 if newest is None else newest.published_ms),
        ("last_frame_write_duration_ms", timings[0]),
        ("avg_frame_write_duration_ms", timings[1]),
    ]


def write_ms(board: BoardReader | None, symbol: str) -> tuple[float, float]:
    """(newest, mean) milliseconds that the engine took to write a depth frame; zeros before its first one."""
    row = None if board is None else board.row_of(f"engine-{symbol}")
    if board is None or row is None:
        return 0.0, 0.0
    frames = board.get(row, Word.DEPTH_FRAMES)
    mean_ns = board.get(row, Word.DEPTH_WRITE_NS_SUM) / frames if frames else 0.0
    return round(board.get(row, Word.DEPTH_WRITE_NS) / 1e6, 2), round(mean_ns / 1e6, 2)


def reconstructor(stats: BookStats, book: Published[BookDocument]) -> tuple[tuple[str, Any], ...]:
    """A venue's book under the old keys."""
    return (
        ("state", stats.state),
        ("synced", stats.state == "synced"),
        ("snapshot_last_update_id", stats.snapshot_last_update_id),
        ("last_applied_u", stats.last_applied_u),
        ("first_diff_applied_U", stats.first_diff_applied_U),
        ("first_diff_applied_u", stats.first_diff_applied_u),
        ("levels_bid", stats.levels_bid),
        ("levels_ask", stats.levels_ask),
        ("best_bid", stats.best_bid or 0.0),
        ("best_ask", stats.best_ask or 0.0),
        ("resyncs", stats.resyncs),
        ("diffs_buffered", stats.diffs_buffered),
        ("diffs_applied", stats.diffs_applied),
        ("diffs_discarded", stats.diffs_discarded),
        ("last_update_ts", (stats.last_update_ns or 0) / 1e9),
        ("gap_tolerance", stats.gap_tolerance_ids),
        ("last_gap_type", stats.last_gap_type),
        ("last_gap_pu", stats.last_gap_pu),
        ("last_gap_expected", stats.last_gap_expected),
        ("pu_gap_count", stats.pu_gap_count),
        ("u_gap_count", stats.u_gap_count),
        ("max_sync_duration_s", stats.max_sync_duration_s),
        ("diffs_in_current_sync", stats.diffs_in_current_sync),
        ("written_at", book.content.written_ns / 1e9),
        ("stats_age_s", seconds_since(book.content.written_ns // 1_000_000)),
    )
