"""`/orderbook_heatmap_stats` and `/orderbook_heatmap_debug`."""

from __future__ import annotations

import pytest

from shm.board import Board, BoardRow, RowName
from shm.board_words import Role, Word
from shm.layout import depth_spec
from tests.api.test_depth import check_shape
from tests.api.world import NOW_MS, SLOT_MS, World, book_stats, get

STATS, DEBUG = "/orderbook_heatmap_stats", "/orderbook_heatmap_debug"
RING_KEYS = [
    ("frames_in_memory", int), ("frames_on_disk", int), ("last_ts", float), ("oldest_ts", float), ("file_size_bytes", int),
    ("frames_written_total", int), ("last_frame_write_ts_ms", int), ("last_frame_write_duration_ms", float),
    ("avg_frame_write_duration_ms", float),
]  # fmt: skip
STATS_KEYS = [
    *RING_KEYS, ("current_time", float), ("current_time_ms", int), ("frame_interval_ms", int), ("mode", str),
    ("last_frame_age_s", float), ("last_frame_ts_ms", int), ("data_is_stale", bool), ("reconstructor", dict),
    ("symbol", str), ("books", dict), ("seq", int), ("epoch", int), ("stale", bool),
]  # fmt: skip
BOOK_KEYS = [
    ("state", str), ("synced", bool), ("snapshot_last_update_id", int), ("last_applied_u", int), ("first_diff_applied_U", int),
    ("first_diff_applied_u", int), ("levels_bid", int), ("levels_ask", int), ("best_bid", float), ("best_ask", float),
    ("resyncs", int), ("diffs_buffered", int), ("diffs_applied", int), ("diffs_discarded", int), ("last_update_ts", float),
    ("gap_tolerance", int), ("last_gap_type", str), ("last_gap_pu", int), ("last_gap_expected", int), ("pu_gap_count", int),
    ("u_gap_count", int), ("max_sync_duration_s", float), ("diffs_in_current_sync", int), ("written_at", float),
    ("stats_age_s", float),
]  # fmt: skip


def test_stats_have_every_key_in_order_with_its_type(world: World) -> None:
    world.add_history(7)
    world.add_book(binance=book_stats(state="synced", levels_bid=901, best_bid=65_890.1), bybit=book_stats(state="syncing"))
    body = get(world.app(), STATS).json
    check_shape(body, STATS_KEYS)
    check_shape(body["reconstructor"], BOOK_KEYS)
    assert (body["frames_in_memory"], body["frames_on_disk"], body["frames_written_total"]) == (7, 7, 7)
    assert body["file_size_bytes"] == depth_spec("BTC").file_bytes
    assert body["last_ts"] == (NOW_MS - SLOT_MS) / 1000 and body["oldest_ts"] == (NOW_MS - 7 * SLOT_MS) / 1000
    assert body["last_frame_write_ts_ms"] == NOW_MS + 1000 and body["last_frame_ts_ms"] == NOW_MS - SLOT_MS
    assert (body["current_time"], body["current_time_ms"]) == (NOW_MS / 1000, NOW_MS)
    assert (body["mode"], body["last_frame_age_s"], body["symbol"]) == ("shared_buffer", 30.0, "BTC")
    assert list(body["books"]) == ["binance", "bybit"]
    assert body["reconstructor"] == body["books"]["binance"]
    assert (body["reconstructor"]["synced"], body["reconstructor"]["levels_bid"], body["reconstructor"]["best_bid"]) == (
        True, 901, 65_890.1,
    )  # fmt: skip
    assert (body["books"]["bybit"]["state"], body["books"]["bybit"]["synced"]) == ("syncing", False)


def test_write_durations_are_the_engines(world: World) -> None:
    board = Board.create(
        world.settings.paths.board, [RowName("supervisor", Role.SUPERVISOR, 0), RowName("engine-BTC", Role.ENGINE, 0)], {}
    )
    row = BoardRow.attach(world.settings.paths.board, 1)
    row.set(Word.DEPTH_FRAMES, 4)
    row.set(Word.DEPTH_WRITE_NS, 1_234_567)
    row.set(Word.DEPTH_WRITE_NS_SUM, 3_000_000)
    world.add_history(1)
    body = get(world.app(), STATS).json
    assert (body["last_frame_write_duration_ms"], body["avg_frame_write_duration_ms"]) == (1.23, 0.75)
    row.close()
    board.close()


def test_a_write_duration_that_comes_after_its_frame_is_seen(world: World) -> None:
    """The engine times the write of a frame, so the figure is on the board a moment after readers see the frame."""
    board = Board.create(world.settings.paths.board, [RowName("engine-BTC", Role.ENGINE, 0)], {})
    row = BoardRow.attach(world.settings.paths.board, 0)
    world.add_history(1)
    app = world.app()
    assert get(app, STATS).json["last_frame_write_duration_ms"] == 0.0
    row.set(Word.DEPTH_FRAMES, 1)
    row.set(Word.DEPTH_WRITE_NS, 2_000_000)
    row.set(Word.DEPTH_WRITE_NS_SUM, 2_000_000)
    for path, ring in ((STATS, lambda body: body), (DEBUG, lambda body: body["ob_buffer_stats"])):
        body = ring(get(app, path).json)
        assert (body["last_frame_write_duration_ms"], body["avg_frame_write_duration_ms"]) == (2.0, 2.0)
    row.close()
    board.close()


def test_ages_in_stats_move_while_the_body_is_kept(world: World) -> None:
    world.add_history(1)
    world.add_book()
    app = world.app()
    get(app, STATS)
    world.clock.advance(61)
    body = get(app, STATS).json
    assert (body["last_frame_age_s"], body["data_is_stale"], body["stale"]) == (91.0, True, True)
    assert body["reconstructor"]["stats_age_s"] == body["books"]["binance"]["stats_age_s"] == 61.0
    assert body["current_time_ms"] == NOW_MS + 61_000
    assert app.context.cache.misses == 1


@pytest.mark.parametrize("symbol", ["BTC", "SOL"])
def test_stats_before_the_first_frame_are_zeros(world: World, symbol: str) -> None:
    reply = get(world.app(), f"{STATS}?symbol={symbol}")
    assert reply.status == 200
    body = reply.json
    check_shape(body, [(key, type(None) if key in ("last_frame_age_s", "seq", "epoch") else kind) for key, kind in STATS_KEYS])
    assert not any(body[key] for key, _ in RING_KEYS) and body["last_frame_ts_ms"] == 0
    assert (body["data_is_stale"], body["reconstructor"], body["books"]) == (True, {"error": "not available"}, {})


@pytest.mark.parametrize("path", [STATS, DEBUG])
def test_a_ring_without_a_frame_is_all_zeros_too(world: World, path: str) -> None:
    """As it is in the first half minute of an engine: files and book are there, the first frame is not."""
    world.depth()
    world.add_book()
    reply = get(world.app(), path)
    ring = reply.json if path == STATS else reply.json["ob_buffer_stats"]
    assert reply.status == 200 and reply.json["stale"] is True
    assert {key: value for key, value in ring.items() if value and key in dict(RING_KEYS)} == {
        "file_size_bytes": depth_spec("BTC").file_bytes
    }


def test_a_price_that_is_not_there_keeps_its_type(world: World) -> None:
    world.add_book(binance=book_stats(state="unsynced", best_bid=None, best_ask=None, last_update_ns=None))
    body = get(world.app(), STATS).json["reconstructor"]
    check_shape(body, BOOK_KEYS)
    assert (body["best_bid"], body["last_update_ts"], body["synced"]) == (0.0, 0.0, False)


def test_without_a_binance_book(world: World) -> None:
    world.add_book(bybit=book_stats())
    body = get(world.app(), STATS).json
    assert body["reconstructor"] == {"error": "not available"} and list(body["books"]) == ["bybit"]


def test_debug(world: World) -> None:
    world.add_history(2)
    body = get(world.app(), DEBUG).json
    kinds = [("has_ob_heatmap_module", bool), ("ob_buffer_shared", bool), ("mode", str), ("ob_buffer_stats", dict), ("symbol", str)]
    check_shape(body, [*kinds, ("seq", int), ("epoch", int), ("stale", bool)])
    check_shape(body["ob_buffer_stats"], RING_KEYS)
    assert (body["has_ob_heatmap_module"], body["ob_buffer_shared"], body["mode"]) == (True, True, "embedded")
    assert body["ob_buffer_stats"]["frames_in_memory"] == 2


@pytest.mark.parametrize("path", [STATS, DEBUG])
def test_parameters(world: World, path: str) -> None:
    app = world.app()
    assert get(app, f"{path}?symbol=DOGE").error == (400, "invalid_symbol")
    assert get(app, f"{path}?symbol=XRP").error == (400, "no_orderbook")
    assert get(app, f"{path}?symbol=eth").json["symbol"] == "ETH"


def test_a_document_that_cannot_be_read_counts_as_not_there(world: World, caplog: pytest.LogCaptureFixture) -> None:
    from shm.records import DocumentId

    world.documents().publish(DocumentId.BOOK, b'{"schema_version":99}', ts_ns=0)
    assert get(world.app(), STATS).json["reconstructor"] == {"error": "not available"}
    assert "cannot be read" in caplog.text
