"""`/health`, `/readyz`, `/livez`, `/time`: what state of files, documents and board gives which answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from api.health import COUNTERS, ErrorWatch
from mpengine.config import load, resolve_directories
from mpengine.schemas import Canary, DirectionCanaries, StreamFeed
from shm.board import Board, BoardRow, RowName
from shm.board_words import Role, State, Word
from shm.frame_ring import FrameWriter
from shm.frames import encode
from shm.layout import depth_spec
from tests.api.test_depth import check_shape
from tests.api.world import MS, NOW_MS, SLOT_MS, World, candle, get, liquidation_frame, venue_feed

OLD_KEYS = [
    ("ok", bool), ("version", str), ("mode", str), ("uptime_s", float), ("ob_buffer", dict), ("symbols", dict),
]  # fmt: skip
KEYS = [
    *OLD_KEYS, ("status", str), ("build", str), ("contract", str), ("config_hash", str), ("now_ms", int), ("exchanges", dict),
    ("processes", dict), ("errors", dict), ("cross_canary", type(None)),
]  # fmt: skip
SYMBOL_KEYS = [
    ("v1_available", bool), ("v1_ts", float), ("v2_available", bool), ("v2_ts", float), ("v1_history_frames", int),
    ("v2_history_frames", int), ("engine", str), ("stale", bool), ("liq_seq", type(None)), ("liq_age_s", type(None)),
    ("depth_seq", int), ("depth_age_s", float), ("oi_age_s", type(None)), ("book", str), ("step", float), ("ob_step", float),
    ("base_asset", str), ("data_since_ms", int), ("calibrator", dict), ("books", dict), ("open_interest", dict),
]  # fmt: skip
SYMBOLS = (("BTC", 65_892.725, 20.0), ("ETH", 1931.2, 1.0), ("SOL", 82.5, 0.1))


def fill(world: World) -> None:
    """Everything there, fresh and live."""
    for symbol, src, step in SYMBOLS:
        world.add_history(2, symbol, src=src, step=step)
        world.add_book(symbol)
        world.add_status(symbol)
    world.add_candle(candle(NOW_MS - 60_000), "XRP")
    world.add_feeds()


@pytest.fixture
def board(world: World) -> Iterator[Board]:
    names = [
        ("supervisor", Role.SUPERVISOR, 0),
        ("ingest", Role.INGEST, 0),
        ("engine-BTC", Role.ENGINE, 0),
        ("api-0", Role.API_WORKER, 0),
    ]
    made = Board.create(world.settings.paths.board, [RowName(*name) for name in names], {})
    made.row(0).start(Role.SUPERVISOR, 0, 1)
    yield made
    made.close()


def attach(world: World, row: int, role: Role, epoch: int = 1) -> BoardRow:
    found = BoardRow.attach(world.settings.paths.board, row)
    found.start(role, 0, epoch)
    return found


def test_every_key_in_order_with_its_type(world: World) -> None:
    fill(world)
    reply = get(world.app(), "/health")
    body = reply.json
    check_shape(body, KEYS)
    assert (reply.status, body["ok"], body["status"]) == (200, True, "ok")
    assert (body["version"], body["mode"], body["contract"], body["now_ms"]) == ("3.0.0", "embedded", "3.1", NOW_MS)
    assert body["ob_buffer"] == {"frames_in_memory": 2, "last_ts": (NOW_MS - SLOT_MS) / 1000, "shared": True}
    assert list(body["symbols"]) == ["BTC", "ETH", "SOL", "XRP"]
    one = body["symbols"]["BTC"]
    check_shape(one, SYMBOL_KEYS)
    assert (one["engine"], one["stale"], one["depth_seq"], one["depth_age_s"], one["book"]) == ("live", False, 1, 30.0, "synced")
    assert (one["step"], one["ob_step"], one["base_asset"], one["data_since_ms"]) == (20.0, 20.0, "BTC", NOW_MS - 7_200_000)
    assert list(one["calibrator"]) == ["enabled", "total_events", "snapshots", "minutes_since_calibration", "pending", "dropped"]
    assert body["exchanges"] == {
        "binance": {"state": "LIVE", "age_s": 0.0, "reconnects": 0, "liquidations": "largest_1s", "streams": {},
                    "canary": {"price_side": None, "return_sign": None, "alarm": False}},
    }  # fmt: skip
    assert set(body["errors"]) == {"parse_errors", *COUNTERS} and set(body["errors"].values()) == {0}
    assert reply.headers["cache-control"] == "no-store" and "etag" not in reply.headers


@pytest.mark.covers("E-L1")
def test_the_hash_of_the_effective_settings_is_told(world: World) -> None:
    assert get(world.app(), "/health").json["config_hash"] == world.settings.config_hash
    assert len(world.settings.config_hash) == 64


def test_starting_is_503_with_the_full_body(world: World) -> None:
    world.add_feeds()
    reply = get(world.app(), "/health?symbol=DOGE&symbol=")
    check_shape(reply.json, KEYS)
    assert (reply.status, reply.json["ok"], reply.json["status"]) == (503, False, "starting")
    one = reply.json["symbols"]["BTC"]
    assert list(one) == [key for key, _ in SYMBOL_KEYS]
    assert (one["v1_available"], one["v1_ts"], one["v1_history_frames"], one["engine"], one["stale"]) == (
        False,
        0.0,
        0,
        "missing",
        True,
    )
    assert reply.json["ob_buffer"] == {"frames_in_memory": 0, "last_ts": 0.0, "shared": True}


def test_the_first_frame_of_any_symbol_ends_starting(world: World) -> None:
    world.add_history(1, "ETH", src=1931.2, step=1.0)
    reply = get(world.app(), "/health")
    assert (reply.status, reply.json["status"]) == (200, "degraded")


def test_without_any_book_the_first_bar_ends_starting(world: World) -> None:
    world.candles("XRP")
    app = world.app()
    assert (get(app, "/health").json["status"], get(app, "/health").status) == ("starting", 503)
    world.add_candle(candle(NOW_MS - 60_000), "XRP")
    assert (get(app, "/health").json["status"], get(app, "/health").status) == ("degraded", 200)


def test_with_maps_starting_ends_with_the_first_map(world: World) -> None:
    fill(world)
    world.liquidation()
    assert get(world.app(), "/health").json["status"] == "starting"
    frame = liquidation_frame(NOW_MS)
    world.liquidation().publish(encode(frame), ts_ns=frame.close_ts_ns, kind=frame.kind)
    body = get(world.app(), "/health").json
    one = body["symbols"]["BTC"]
    assert (body["status"], one["v1_available"], one["v2_available"]) == ("ok", True, True)
    assert (one["v1_ts"], one["v2_ts"], one["v1_history_frames"], one["v2_history_frames"]) == (NOW_MS / 1000, NOW_MS / 1000, 1, 1)
    assert (one["liq_seq"], one["liq_age_s"]) == (0, 0.0)


@pytest.mark.parametrize(("seconds", "stale"), [(180, False), (180.001, True)])
def test_a_symbol_without_a_book_is_judged_by_its_bars(world: World, seconds: float, stale: bool) -> None:
    world.add_candle(candle(NOW_MS - 60_000), "XRP")
    world.clock.advance(seconds)
    one = get(world.app(), "/health").json["symbols"]["XRP"]
    assert (one["stale"], one["depth_seq"], one["depth_age_s"], one["book"]) == (stale, None, None, "none")


@pytest.mark.parametrize(("seconds", "stale"), [(60, False), (60.001, True)])
def test_a_symbol_with_a_book_is_judged_by_the_start_of_its_frame(world: World, seconds: float, stale: bool) -> None:
    world.add_history(1)
    world.clock.advance(seconds)
    assert get(world.app(), "/health").json["symbols"]["BTC"]["stale"] is stale


def stop_engine(world: World) -> None:
    world.reopen(world.settings.paths.documents("ETH"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda world: world.clock.advance(61),
        lambda world: world.add_feeds(binance=venue_feed(), okx=venue_feed("STALE")),
        lambda world: world.add_feeds(binance=venue_feed("BANNED")),
        lambda world: world.add_feeds(binance=venue_feed("GEO_BLOCKED")),
        lambda world: world.settings.paths.feeds.unlink(),
    ],
    ids=["stale symbol", "stale venue", "banned", "geo blocked", "no ingest"],
)
def test_degraded(world: World, spoil: Callable[[World], None]) -> None:
    fill(world)
    spoil(world)
    reply = get(world.app(), "/health")
    assert (reply.status, reply.json["ok"], reply.json["status"]) == (200, True, "degraded")


def test_what_ingest_said_long_ago_is_not_live(world: World) -> None:
    fill(world)
    world.clock.advance(11)
    venue = get(world.app(), "/health").json["exchanges"]["binance"]
    assert (venue["state"], venue["age_s"]) == ("STALE", 11.0)


def test_an_engine_that_has_stopped_is_called_so(world: World) -> None:
    fill(world)
    stop_engine(world)
    symbols = get(world.app(), "/health").json["symbols"]
    assert (symbols["ETH"]["engine"], symbols["BTC"]["engine"]) == ("stopped", "live")


def test_processes_are_those_of_the_board(world: World, board: Board) -> None:
    fill(world)
    world.clock.monotonic_ns = time.monotonic_ns() + 1_500_000_000
    engine, worker = attach(world, 2, Role.ENGINE), attach(world, 3, Role.API_WORKER, epoch=4)
    board.supervisor_view(2).set(Word.ACTUAL, State.LIVE)
    board.supervisor_view(2).set(Word.RESTARTS, 2)
    body = get(world.app(), "/health").json
    assert list(body["processes"]) == ["supervisor", "engine-BTC", "api-0"]  # ingest has never run
    assert body["processes"]["engine-BTC"] == {"state": "LIVE", "restarts": 2, "age_s": 1.5}
    assert (body["processes"]["api-0"]["state"], body["processes"]["api-0"]["restarts"]) == ("LIVE", 3)
    assert body["status"] == "ok"
    for state in (State.BACKOFF, State.FAILED, State.HUNG, State.DEAD):
        board.supervisor_view(2).set(Word.ACTUAL, state)
        body = get(world.app(), "/health").json
        assert (body["processes"]["engine-BTC"]["state"], body["status"]) == (state.name, "degraded")
    board.supervisor_view(1).set(Word.ACTUAL, State.BACKOFF)  # never came up
    assert get(world.app(), "/health").json["processes"]["ingest"] == {"state": "BACKOFF", "restarts": 0, "age_s": None}
    engine.close()
    worker.close()


def test_a_beat_from_after_the_look_is_no_negative_age(world: World, board: Board) -> None:
    board.row(0).beat(world.clock.monotonic_ns + 1_000_000)
    assert repr(get(world.app(), "/health").json["processes"]["supervisor"]["age_s"]) == "0.0"  # it was -0.0


def test_errors_are_sums_over_the_processes(world: World, board: Board) -> None:
    fill(world)
    engine, worker = attach(world, 2, Role.ENGINE), attach(world, 3, Role.API_WORKER)
    engine.add(Word.GAPS, 2)
    worker.add(Word.GAPS, 3)
    engine.add(Word.PARSE_ERRORS_BYBIT, 4)
    worker.add(Word.PARSE_ERRORS_OKX, 5)
    body = get(world.app(), "/health").json
    assert (body["errors"]["gaps"], body["errors"]["parse_errors"]) == (5, 9)
    engine.close()
    worker.close()


@pytest.mark.covers("A2-M7", "E-M9")
@pytest.mark.parametrize("word", [Word.WRITE_ERRORS, Word.LOG_ERRORS, Word.SYNC_ERRORS])
def test_a_failed_write_degrades_for_ten_minutes(world: World, board: Board, word: Word) -> None:
    fill(world)
    engine, app = attach(world, 2, Role.ENGINE), world.app()
    assert get(app, "/health").json["status"] == "ok"
    engine.add(word)
    assert get(app, "/health").json["status"] == "degraded"
    watch = app._health.errors
    assert watch.recent(world.clock.monotonic_ns + 599 * 10**9) and not watch.recent(world.clock.monotonic_ns + 601 * 10**9)
    engine.close()


@pytest.mark.parametrize(("ago_s", "recent"), [(30, True), (601, False)])
def test_a_worker_that_comes_later_knows_of_a_failed_write(world: World, board: Board, ago_s: int, recent: bool) -> None:
    engine = attach(world, 2, Role.ENGINE)
    engine.add(Word.WRITE_ERRORS)
    engine.set(Word.LAST_ERROR_NS, (NOW_MS - ago_s * 1000) * MS)
    app = world.app()
    get(app, "/health")
    assert app._health.errors.recent(world.clock.monotonic_ns) is recent
    engine.close()


def test_error_watch_without_a_board() -> None:
    watch = ErrorWatch()
    watch.look(None, 0, 0)
    assert not watch.recent(0)


def test_uptime_is_the_supervisors(world: World, board: Board) -> None:
    board.row(0).set(Word.STARTED_NS, (NOW_MS - 3_600_000) * MS)
    app = world.app()
    assert get(app, "/health").json["uptime_s"] == 3600.0 == get(app, "/time").json["uptime_s"]


def test_uptime_without_a_board_is_the_workers(world: World) -> None:
    app = world.app()
    world.clock.advance(5)
    assert get(app, "/time").json == {"now_ms": NOW_MS + 5000, "uptime_s": 5.0}


def test_livez_looks_at_nothing(world: World) -> None:
    reply = get(world.app(), "/livez?symbol=DOGE&symbol=")
    assert (reply.status, reply.body) == (200, b'{"live":true}')
    assert world.app().context.sources.board.reader is None


# --- readiness ------------------------------------------------------------------------------------------------------------


def ready(world: World, **lifetime: Any) -> tuple[int, dict[str, Any]]:
    app = world.app()
    for name, value in lifetime.items():
        setattr(app.context.lifetime, name, value)
    reply = get(app, "/readyz")
    assert list(reply.json) == ["ready", "degraded", "fresh_symbols", "symbols"]
    assert reply.json["ready"] is (reply.status == 200)
    return reply.status, reply.json


def test_ready_with_fresh_frames(world: World) -> None:
    fill(world)
    assert ready(world) == (200, {"ready": True, "degraded": False, "fresh_symbols": 4, "symbols": 4})


def test_not_ready_while_starting_and_while_stopping(world: World) -> None:
    world.add_feeds()
    assert ready(world)[0] == 503
    fill(world)
    assert ready(world)[0] == 200
    assert ready(world, stopping=True)[0] == 503


def test_an_outage_of_the_venues_alone_never_takes_it_out(world: World) -> None:
    fill(world)
    world.add_feeds(binance=venue_feed("DOWN"))
    world.clock.advance(3600)
    for writer in world._open.values():
        (writer.ring if hasattr(writer, "ring") else writer).beat()  # every process of ours lives
    assert ready(world) == (200, {"ready": True, "degraded": True, "fresh_symbols": 0, "symbols": 4})


@pytest.mark.parametrize("gone", ["engine", "ingest", "ring"])
def test_a_dead_process_of_this_machine_does(world: World, gone: str) -> None:
    fill(world)
    if gone == "engine":
        world.reopen(world.settings.paths.depth("BTC"))  # its writer has left, and the frame gets old
    elif gone == "ingest":
        world.reopen(world.settings.paths.feeds)
    else:
        world.settings.paths.depth("ETH").unlink()
    assert ready(world)[0] == (200 if gone != "ring" else 503)  # as long as the data is fresh
    world.clock.advance(91)
    assert ready(world)[0] == 503


def test_a_dead_engine_of_few_symbols_is_only_degraded(world: World) -> None:
    """1 of 4 is more than a tenth; so this is about data that is fresh again."""
    fill(world)
    world.reopen(world.settings.paths.documents("BTC"))
    assert ready(world) == (200, {"ready": True, "degraded": False, "fresh_symbols": 4, "symbols": 4})


def test_one_dead_engine_of_many_does_not_make_an_outage_our_fault(tmpfs: Path) -> None:
    names = [f"S{number}" for number in range(10)]
    text = "".join(f"[symbols.{name}]\nstep = 20.0\ntick = 0.1\n" for name in names)
    settings = resolve_directories(load(text, {}), data=tmpfs / "data", runtime=tmpfs / "run")
    for name in ("data", "run"):
        (tmpfs / name).mkdir()
    world = World(settings)
    for name in names:
        world.add_history(1, name)
    world.add_feeds()
    world.reopen(settings.paths.depth("S0"))  # its engine is gone
    assert ready(world) == (200, {"ready": True, "degraded": False, "fresh_symbols": 10, "symbols": 10})
    world.clock.advance(91)  # and now the venue is silent too
    assert ready(world) == (200, {"ready": True, "degraded": True, "fresh_symbols": 0, "symbols": 10})
    world.reopen(settings.paths.depth("S1"))  # two engines are more than a tenth
    assert ready(world)[0] == 503
    world.close()


def test_a_ring_that_cannot_be_mapped(world: World) -> None:
    fill(world)
    world._open.pop(world.settings.paths.depth("SOL")).close()
    world.settings.paths.depth("SOL").unlink()
    FrameWriter.open(world.settings.paths.depth("SOL"), depth_spec("BTC")).close()
    assert ready(world)[0] == 503


def test_canaries_are_pooled_and_an_alarm_degrades(world: World) -> None:
    fill(world)

    def told(events: int, bad: int, *, alarm: bool = False) -> dict[str, DirectionCanaries]:
        one = Canary(events=events, bad=bad, alarm=alarm)
        return {"binance": DirectionCanaries(price_side=one, return_sign=Canary(events=4, bad=3, alarm=False))}

    world.add_status("BTC", canaries=told(30, 6))
    world.add_status("ETH", canaries=told(20, 4))
    app = world.app()
    body = get(app, "/health").json
    assert body["exchanges"]["binance"]["canary"] == {
        "price_side": {"events": 50, "bad": 10, "alarm": False}, "return_sign": {"events": 8, "bad": 6, "alarm": False},
        "alarm": False,
    }  # fmt: skip
    assert body["status"] == "ok"
    world.add_status("ETH", canaries=told(20, 5))  # 11 of 50: none of them alone alarms
    body = get(app, "/health").json
    assert (body["exchanges"]["binance"]["canary"]["alarm"], body["status"]) == (True, "degraded")
    world.add_status("ETH", canaries=told(1, 0), cross_canary=Canary(events=9, bad=9, alarm=True))
    body = get(app, "/health").json
    assert (body["cross_canary"], body["status"]) == ({"events": 9, "bad": 9, "alarm": True}, "degraded")


def test_streams_books_and_open_interest_are_told(world: World) -> None:
    fill(world)
    stream = StreamFeed(state="LIVE", messages=7, errors=1, last_ms=NOW_MS - 1500, lag_ms=3.5)
    world.add_feeds(binance=venue_feed(streams={"btcusdt@aggTrade": stream}, reasons={"not_json": 1}))
    world.add_oi(binance=5.0, okx=(2.0, 7))
    body = get(world.app(), "/health").json
    assert body["exchanges"]["binance"]["streams"] == {
        "btcusdt@aggTrade": {"state": "LIVE", "age_s": 1.5, "messages": 7, "errors": 1, "lag_ms": 3.5},
    }  # fmt: skip
    assert "reasons" not in body["exchanges"]["binance"]
    one = body["symbols"]["BTC"]
    assert (one["books"], one["open_interest"], one["oi_age_s"]) == ({"binance": "synced"}, {"binance": 0.0, "okx": 7.0}, 0.0)
