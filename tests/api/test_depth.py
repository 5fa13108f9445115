"""`/orderbook_heatmap` and its history: keys, types, parameters, binary form."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest

from api.app import Service
from shm.grid import price_of
from shm.layout import HEAD_WORD, INTENT_WORD, SLOT_HEADER_BYTES
from tests.api.world import NOW_MS, SLOT_MS, Reply, World, book_stats, candle, depth_frame, get

LATEST, HISTORY = "/orderbook_heatmap", "/orderbook_heatmap_history"
LATEST_KEYS = [
    ("symbol", str), ("frame_ts_ms", int), ("frame_interval_ms", int), ("valid_from_ts_ms", int), ("valid_to_ts_ms", int),
    ("server_recv_ts_ms", int), ("server_send_ts_ms", int), ("data_is_stale", bool), ("ts", float), ("src", float),
    ("step", float), ("price_min", float), ("price_max", float), ("prices", [float]), ("bid_u8", [int]), ("ask_u8", [int]),
    ("norm_p50", float), ("norm_p90", float), ("norm_p95", float), ("norm_p99", float), ("norm_max", float),
    ("bid_p50", float), ("bid_p95", float), ("bid_max", float), ("ask_p50", float), ("ask_p95", float), ("ask_max", float),
    ("total_bid_notional", float), ("total_ask_notional", float), ("scale", int), ("_mode", str),
    ("base_asset", str), ("range_pct", type(None)), ("frame_step", float), ("coverage", dict), ("seq", int), ("epoch", int),
    ("age_s", float), ("stale", bool),
]  # fmt: skip
HISTORY_KEYS = [
    ("frame_interval_ms", int), ("first_frame_ts_ms", int), ("last_frame_ts_ms", int), ("server_recv_ts_ms", int),
    ("server_send_ts_ms", int), ("data_is_stale", bool), ("t", [int]), ("prices", [float]), ("bid_u8", [int]),
    ("ask_u8", [int]), ("step", float), ("price_min", float), ("price_max", float), ("scale", int), ("norm_method", str),
    ("_mode", str), ("symbol", str), ("minutes", int), ("stride", int), ("count", int), ("src", [float]),
    ("norm_p50", [float]), ("norm_p95", [float]), ("skipped_frames", int), ("first_seq", int), ("seq", int), ("epoch", int),
    ("age_s", float), ("stale", bool),
]  # fmt: skip
HEADER = struct.Struct("<BBHQIHHddddHHHHHH")


def check_shape(body: dict[str, Any], keys: list[tuple[str, Any]]) -> None:
    """Every key in order, with exactly its JSON type (a bool is no int, 1.0 is no int)."""
    assert list(body) == [key for key, _ in keys]
    for key, kind in keys:
        if isinstance(kind, list):
            assert isinstance(body[key], list) and all(type(one) is kind[0] for one in body[key]), key
        else:
            assert type(body[key]) is kind, (key, body[key])


@pytest.fixture
def app(world: World) -> Service:
    world.add_history(5)
    world.add_book()
    return world.app()


def test_latest_has_every_key_in_order_with_its_type(app: Service) -> None:
    body = get(app, LATEST).json
    check_shape(body, LATEST_KEYS)
    assert body["symbol"] == "BTC" and body["base_asset"] == "BTC"
    assert body["frame_ts_ms"] == body["valid_from_ts_ms"] == NOW_MS - SLOT_MS and body["ts"] == (NOW_MS - SLOT_MS) / 1000
    assert body["frame_interval_ms"] == 30_000 and body["valid_to_ts_ms"] == NOW_MS
    assert body["server_recv_ts_ms"] == body["server_send_ts_ms"] == NOW_MS
    assert (body["src"], body["step"], body["frame_step"]) == (65_892.725, 20.0, 20.0)
    assert (body["price_min"], body["price_max"]) == (59_300.0, 72_480.0) == (body["prices"][0], body["prices"][-1])
    assert len(body["prices"]) == len(body["bid_u8"]) == len(body["ask_u8"]) == 660
    assert body["prices"] == [price_of(index, 20.0) for index in range(2965, 3625)]
    assert (body["scale"], body["_mode"], body["seq"], body["epoch"], body["age_s"]) == (255, "shared_buffer", 4, 1, 30.0)
    assert max(body["bid_u8"] + body["ask_u8"]) == 255 and min(body["bid_u8"]) == 0


def test_norms_are_computed_from_the_planes(world: World) -> None:
    world.add_depth(depth_frame(NOW_MS - SLOT_MS, cells=[[0, 100, 200, 400, 0], [0, 0, 50, 1000, 300]], origin=3000))
    body = get(world.app(), LATEST).json
    assert [body[f"norm_{name}"] for name in ("p50", "p90", "p95", "p99", "max")] == [250.0, 700.0, 850.0, 970.0, 1000.0]
    assert [body[f"bid_{name}"] for name in ("p50", "p95", "max")] == [200.0, 380.0, 400.0]
    assert [body[f"ask_{name}"] for name in ("p50", "p95", "max")] == [300.0, 930.0, 1000.0]
    assert (body["bid_u8"], body["ask_u8"]) == ([0, 0, 0, 63, 0], [0, 0, 0, 255, 21])
    assert (body["total_bid_notional"], body["total_ask_notional"]) == (700.0, 1350.0)


def test_coverage_is_as_of_the_frame(world: World) -> None:
    world.add_history(1)
    without = get(world.app(), LATEST).json["coverage"]
    assert (without["book_synced_since_ms"], without["flags"], without["far_depth"]) == (None, [], "partial")
    assert without["data_since_ms"] is None
    assert without["venues"]["binance"]["depth"] is True and without["venues"]["binance"]["state"] == "LIVE"
    assert without["venues"]["hyperliquid"] == {"liquidations": "none", "depth": False, "oi": False, "state": None, "last_ms": None}
    world.add_book(link=0, binance=book_stats(synced_since_ns=5_000_000))
    app = world.app()
    first = get(app, LATEST)
    coverage = first.json["coverage"]
    assert (coverage["book_synced_since_ms"], coverage["data_since_ms"]) == (5, NOW_MS - 7_200_000)
    # What happens to the book after the frame belongs to the next frame.
    world.add_book(link=1, binance=book_stats(state="unsynced", synced_since_ns=None))
    assert get(app, LATEST).json["coverage"] == coverage and get(app, LATEST).headers["etag"] == first.headers["etag"]
    world.add_depth(depth_frame(NOW_MS))
    assert get(app, LATEST).json["coverage"]["book_synced_since_ms"] is None


@pytest.mark.covers("A1-M24")
def test_range_pct_acts(app: Service) -> None:
    narrow, wide = (get(app, f"{LATEST}?range_pct={share}").json for share in ("0.02", "0.10"))
    mid = narrow["src"]
    for body, share in ((narrow, 0.02), (wide, 0.10)):
        assert body["range_pct"] == share
        assert abs(body["price_min"] - mid * (1 - share)) <= 10.0
        assert abs(body["price_max"] - mid * (1 + share)) <= 10.0
    assert len(narrow["prices"]) < len(wide["prices"])
    whole = get(app, LATEST).json
    first = whole["prices"].index(narrow["price_min"])
    assert narrow["bid_u8"] == whole["bid_u8"][first : first + len(narrow["prices"])]


@pytest.mark.covers("A1-H3")
def test_a_coarser_step_keeps_totals_norms_and_every_level(world: World) -> None:
    world.add_history(1, "SOL", src=82.5, step=0.1)
    app = world.app()
    fine, wide = get(app, f"{LATEST}?symbol=SOL").json, get(app, f"{LATEST}?symbol=SOL&step=0.3").json
    assert (fine["step"], wide["step"], wide["frame_step"]) == (0.1, 0.3, 0.1)
    for key in [key for key in fine if key.startswith(("norm_", "total_", "bid_p", "ask_p", "bid_m", "ask_m"))]:
        assert fine[key] == wide[key]
    for side in ("bid_u8", "ask_u8"):
        wanted: dict[float, int] = {}
        for price, cell in zip(fine["prices"], fine[side]):
            target = price_of(math.floor(round(price / 0.1) / 3 + 0.5), 0.3)
            wanted[target] = max(wanted.get(target, 0), cell)
        assert dict(zip(wide["prices"], wide[side])) == wanted
    assert wide["prices"] == [price_of(round(price / 0.3), 0.3) for price in wide["prices"]]


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("price_min=65000", 65_000.0, 72_480.0),
        ("price_max=65009", 59_300.0, 65_000.0),
        ("price_min=64991&price_max=65011", 65_000.0, 65_020.0),
        ("price_min=20&price_max=80000", 59_300.0, 72_480.0),
        ("price_min=65000&step=100", 65_000.0, 72_500.0),
        ("range_pct=0.001&price_min=65890", 65_880.0, 65_960.0),
        ("price_min=59300&price_max=59301", 59_300.0, 59_300.0),
    ],
)
def test_price_window(app: Service, query: str, first: float, last: float) -> None:
    body = get(app, f"{LATEST}?{query}").json
    assert (body["price_min"], body["price_max"]) == (first, last) == (body["prices"][0], body["prices"][-1])
    assert len(body["bid_u8"]) == len(body["ask_u8"]) == len(body["prices"])


@pytest.mark.parametrize("path", [LATEST, HISTORY])
def test_a_window_outside_the_frame_is_empty(app: Service, path: str) -> None:
    body = get(app, f"{path}?price_min=1000000").json
    assert (body["prices"], body["bid_u8"], body["ask_u8"], body["price_min"], body["price_max"]) == ([], [], [], 0.0, 0.0)
    assert body["seq"] == 4
    binary = get(app, f"{path}?price_min=1000000&format=bin").body
    assert HEADER.unpack_from(binary)[6] == 0


@pytest.mark.parametrize("path", [LATEST, HISTORY])
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("range_pct=0", "invalid_parameter"),
        ("range_pct=1.5", "invalid_parameter"),
        ("step=0", "invalid_parameter"),
        ("step=7", "invalid_parameter"),
        ("step=1e-9", "invalid_parameter"),
        ("step=2020", "invalid_parameter"),
        ("price_min=5&price_max=5", "invalid_parameter"),
        ("price_min=6&price_max=5", "invalid_parameter"),
        ("price_min=-5", "invalid_parameter"),
        ("price_max=nan", "invalid_parameter"),
        ("price_min=20&price_max=80020", "too_large"),
        ("format=xml", "invalid_parameter"),
        ("symbol=DOGE", "invalid_symbol"),
        ("symbol=BTC%00", "invalid_symbol"),
        ("symbol=", "invalid_parameter"),
        ("symbol=XRP", "no_orderbook"),
        ("symbol=BTC&symbol=ETH", "repeated_parameter"),
    ],
)
def test_bad_parameters(app: Service, path: str, query: str, code: str) -> None:
    reply = get(app, f"{path}?{query}")
    assert reply.error == (400, code)
    assert reply.headers["cache-control"] == "no-store" and "etag" not in reply.headers and "x-seq" not in reply.headers


@pytest.mark.parametrize("query", ["range_pct=1", "step=20", "step=2000", "price_min=20&price_max=80000", "format=json"])
def test_good_edges(app: Service, query: str) -> None:
    assert get(app, f"{LATEST}?{query}").status == get(app, f"{HISTORY}?{query}").status == 200


def test_before_the_first_frame(world: World) -> None:
    app = world.app()
    assert get(app, LATEST).error == get(app, f"{LATEST}?format=bin").error == (404, "no_frame")
    assert get(app, f"{LATEST}?step=7").error == (400, "invalid_parameter")  # parameters come before readiness
    body = get(app, HISTORY)
    check_shape(
        body.json, [(key, type(None) if key in ("first_seq", "seq", "epoch", "age_s") else kind) for key, kind in HISTORY_KEYS]
    )
    empty = body.json
    assert empty["t"] == empty["prices"] == empty["bid_u8"] == empty["ask_u8"] == []
    assert (empty["first_frame_ts_ms"], empty["last_frame_ts_ms"], empty["server_recv_ts_ms"]) == (0, 0, NOW_MS)
    assert (empty["data_is_stale"], empty["stale"], empty["step"], empty["count"]) == (True, True, 20.0, 0)
    binary = get(app, f"{HISTORY}?format=bin")
    assert len(binary.body) == 64 and HEADER.unpack(binary.body)[5:7] == (0, 0)
    assert (binary.headers["x-frame-count"], binary.headers["x-price-count"], binary.headers["x-stale"]) == ("0", "0", "true")
    world.depth()  # a ring without a frame
    assert get(world.app(), LATEST).error == (404, "no_frame")
    assert get(world.app(), HISTORY).json["count"] == 0


def test_history_has_every_key_in_order_with_its_type(app: Service) -> None:
    body = get(app, HISTORY).json
    check_shape(body, HISTORY_KEYS)
    assert body["t"] == [NOW_MS - (5 - index) * SLOT_MS for index in range(5)]
    assert (body["first_frame_ts_ms"], body["last_frame_ts_ms"], body["count"]) == (body["t"][0], body["t"][-1], 5)
    assert (body["minutes"], body["stride"], body["norm_method"], body["_mode"]) == (720, 1, "p50_p95", "shared_buffer")
    assert (body["first_seq"], body["seq"], body["epoch"], body["skipped_frames"]) == (0, 4, 1, 0)
    assert len(body["bid_u8"]) == len(body["ask_u8"]) == 5 * len(body["prices"])
    newest = get(app, LATEST).json
    assert body["bid_u8"][-660:] == newest["bid_u8"] and body["ask_u8"][-660:] == newest["ask_u8"]
    assert (body["prices"], body["norm_p50"][-1], body["norm_p95"][-1]) == (
        newest["prices"],
        newest["norm_p50"],
        newest["norm_p95"],
    )


@pytest.mark.covers("A1-L14")
@pytest.mark.parametrize(
    ("query", "minutes", "stride", "slots"),
    [
        ("minutes=5", 5, 1, 10),
        ("minutes=1", 5, 1, 10),
        ("minutes=6", 6, 1, 12),
        ("minutes=5&stride=3", 5, 3, 4),
        ("minutes=30&stride=60", 30, 30, 2),
        ("minutes=30&stride=0", 30, 1, 60),
        ("", 720, 1, 60),
    ],
)
def test_minutes_and_stride_are_counted_from_the_newest(world: World, query: str, minutes: int, stride: int, slots: int) -> None:
    world.add_history(60)
    body = get(world.app(), f"{HISTORY}?{query}&range_pct=0.001").json
    assert (body["minutes"], body["stride"], body["count"]) == (minutes, stride, slots)
    newest = NOW_MS - SLOT_MS
    assert body["t"] == [newest - (slots - 1 - index) * stride * SLOT_MS for index in range(slots)]
    assert body["seq"] == 59 and body["first_seq"] == 59 - (slots - 1) * stride


def test_a_missing_slot_is_an_absent_row(world: World) -> None:
    for number in (0, 1, 4, 5):
        world.add_depth(depth_frame(NOW_MS + number * SLOT_MS, seed=number))
    body = get(world.app(), f"{HISTORY}?minutes=5").json
    assert body["t"] == [NOW_MS + number * SLOT_MS for number in (0, 1, 4, 5)] and body["count"] == 4
    assert get(world.app(), f"{HISTORY}?minutes=5&stride=2").json["t"] == [NOW_MS + SLOT_MS, NOW_MS + 5 * SLOT_MS]


def test_minutes_are_time_and_not_a_number_of_frames(world: World) -> None:
    for slot in (0, 1, 10):
        world.add_depth(depth_frame(NOW_MS + slot * SLOT_MS, seed=slot))
    # Ten slots end with the newest: the one that is ten before it is not among them.
    assert get(world.app(), f"{HISTORY}?minutes=5").json["t"] == [NOW_MS + SLOT_MS, NOW_MS + 10 * SLOT_MS]


def test_numbers_that_come_again_after_a_power_loss(world: World) -> None:
    """The page of the newest frames and that of the head never reached the disk; the next writer counts on from what did."""
    world.add_history(5)
    app, path = world.app(), world.settings.paths.depth("BTC")
    first = get(app, HISTORY).json
    world.reopen(path)
    with path.open("r+b") as file:
        assert HEAD_WORD == INTENT_WORD + 1
        for offset, words in ((INTENT_WORD * 8, (3, 3)), (4096 + 3 * 8192, (0,)), (4096 + 4 * 8192, (0,))):
            file.seek(offset)
            file.write(struct.pack(f"<{len(words)}Q", *words))
    for slot in (1, 2):
        assert world.add_depth(depth_frame(NOW_MS + slot * SLOT_MS, seed=slot)) == slot + 2
    second, newest = get(app, HISTORY), get(app, LATEST).json
    assert (second.json["seq"], second.json["epoch"]) == (newest["seq"], newest["epoch"]) == (4, 2) != (4, first["epoch"])
    assert second.json["t"] == [*first["t"][:3], NOW_MS + SLOT_MS, NOW_MS + 2 * SLOT_MS]
    assert second.json["bid_u8"][-660:] == newest["bid_u8"] != first["bid_u8"][-660:]


def test_frames_on_another_step_are_left_out_and_counted(world: World) -> None:
    world.add_depth(depth_frame(NOW_MS - 3 * SLOT_MS, step=10.0))
    world.add_depth(depth_frame(NOW_MS - 2 * SLOT_MS))
    world.add_depth(depth_frame(NOW_MS - SLOT_MS))
    body = get(world.app(), HISTORY).json
    assert (body["count"], body["skipped_frames"], body["step"], body["first_seq"]) == (2, 1, 20.0, 1)


def test_a_moving_price_gives_the_union_of_the_windows(world: World) -> None:
    for index, src in enumerate((60_000.0, 66_000.0)):
        world.add_depth(depth_frame(NOW_MS + index * SLOT_MS, src=src, seed=index))
    body = get(world.app(), HISTORY).json
    assert (body["prices"][0], body["prices"][-1], body["src"]) == (54_000.0, 72_600.0, [60_000.0, 66_000.0])
    rows = np.array(body["bid_u8"]).reshape(2, -1)
    # Outside of its own window a frame has nothing.
    assert not rows[0, body["prices"].index(66_000.0) + 1 :].any() and not rows[1, : body["prices"].index(59_400.0)].any()
    near = get(world.app(), f"{HISTORY}?range_pct=0.01").json
    assert (near["prices"][0], near["prices"][-1]) == (59_400.0, 66_660.0)


def split(reply: Reply, history: bool) -> tuple[tuple[Any, ...], np.ndarray[Any, Any], np.ndarray[Any, Any], list[int]]:
    """(header fields, bid, ask, t) of a binary body whose length is exactly what its header says."""
    fields = HEADER.unpack_from(reply.body)
    rows, columns = fields[5], fields[6]
    assert len(reply.body) == 64 + 2 * rows * columns + (8 * rows if history else 0)
    cells = np.frombuffer(reply.body, np.uint8, 2 * rows * columns, 64).reshape(2, -1)
    times = np.frombuffer(reply.body, "<u8", rows if history else 0, 64 + 2 * rows * columns).tolist()
    return fields, cells[0], cells[1], times


@pytest.mark.covers("A1-M29")
@pytest.mark.parametrize("query", ["", "range_pct=0.05", "step=60", "price_min=65000&price_max=66000"])
def test_binary_latest_says_the_same_as_json(app: Service, query: str) -> None:
    body, reply = get(app, f"{LATEST}?{query}").json, get(app, f"{LATEST}?{query}&format=bin")
    fields, bid, ask, _ = split(reply, history=False)
    assert HEADER.size == 64
    assert fields[:7] == (1, 0, 0, body["frame_ts_ms"], 30_000, 1, len(body["prices"]))
    assert fields[7:11] == (body["price_min"], body["price_max"], body["step"], body["src"])
    assert fields[11:] == (*(int(body[f"norm_{name}"] // 1000) for name in ("p50", "p90", "p95", "p99", "max")), 0)
    assert (bid.tolist(), ask.tolist()) == (body["bid_u8"], body["ask_u8"])
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.headers["x-frame-ts-ms"] == str(body["frame_ts_ms"]) and reply.headers["x-frame-interval-ms"] == "30000"
    assert (reply.headers["x-data-is-stale"], reply.headers["x-server-send-ts-ms"]) == ("false", str(NOW_MS))
    assert not reply.headers["etag"].startswith("W/")


@pytest.mark.parametrize("query", ["minutes=5", "stride=2&range_pct=0.05", "step=60", "price_min=65000&price_max=66000"])
def test_binary_history_says_the_same_as_json(app: Service, query: str) -> None:
    body, reply = get(app, f"{HISTORY}?{query}").json, get(app, f"{HISTORY}?{query}&format=bin")
    fields, bid, ask, times = split(reply, history=True)
    assert fields[3:7] == (body["first_frame_ts_ms"], 30_000, body["count"], len(body["prices"]))
    assert fields[7:11] == (body["price_min"], body["price_max"], body["step"], body["src"][-1])
    assert fields[11] == int(np.median(body["norm_p50"]) // 1000) and fields[13] == int(np.median(body["norm_p95"]) // 1000)
    assert (bid.tolist(), ask.tolist(), times) == (body["bid_u8"], body["ask_u8"], body["t"])
    headers = reply.headers
    assert (headers["x-first-frame-ts-ms"], headers["x-last-frame-ts-ms"]) == (str(body["t"][0]), str(body["t"][-1]))
    assert (headers["x-frame-count"], headers["x-price-count"]) == (str(body["count"]), str(len(body["prices"])))


def test_binary_norms_stay_at_the_end_of_their_range(world: World) -> None:
    world.add_depth(depth_frame(NOW_MS - SLOT_MS, cells=[[0, 1e12], [1e9, 0]], origin=3000))
    assert HEADER.unpack_from(get(world.app(), f"{LATEST}?format=bin").body)[15] == 65_535


@pytest.mark.parametrize("path", [LATEST, HISTORY, f"{LATEST}?format=bin"])
def test_age_and_staleness_move_while_the_body_is_kept(world: World, path: str) -> None:
    world.add_history(1, last_open_ms=NOW_MS)
    app = world.app()
    for seconds, stale in ((0, False), (90, False), (0.001, True), (3600, True)):
        world.clock.advance(seconds)
        reply = get(app, path)
        age_ms = world.clock.now_ms - NOW_MS
        assert (reply.headers["x-age-ms"], reply.headers["x-stale"]) == (str(age_ms), str(stale).lower())
        if "bin" not in path:
            body = reply.json
            assert body["stale"] is body["data_is_stale"] is stale
            assert body["age_s"] == round(age_ms / 1000, 1) and body["server_send_ts_ms"] == world.clock.now_ms
    assert app.context.cache.misses == 1


@pytest.mark.covers("S-C2")
def test_a_stopped_engine_leaves_its_last_frame_readable(world: World) -> None:
    world.add_history(3)
    world.reopen(world.settings.paths.depth("BTC"))
    app = world.app()
    world.clock.advance(7200)
    body = get(app, LATEST).json
    assert body["stale"] is True and body["age_s"] == 7230.0 and max(body["bid_u8"]) > 0


def test_a_torn_slot_is_an_absent_row(world: World) -> None:
    world.add_history(4)
    ring = world.depth()
    path = world.settings.paths.depth("BTC")
    with path.open("r+b") as file:
        file.seek(4096 + 1 * 8192 + SLOT_HEADER_BYTES + 200)
        file.write(b"\xff" * 16)
    app = world.app()
    for query in ("", "?stride=2", "?minutes=5"):  # the later ones find the row still missing when everything else is kept
        body = get(app, HISTORY + query).json
        assert body["t"] == [NOW_MS - n * SLOT_MS for n in (4, 2, 1) if query != "?stride=2" or n % 2 == 1]
    assert ring.next_no == 4


@pytest.mark.parametrize("torn", [1, 2, 40])
def test_the_newest_frame_that_is_sound_is_served(world: World, torn: int) -> None:
    """After a power loss the newest pages may be missing: what is there is served with its age, as the history shows it."""
    world.add_history(50)
    with world.settings.paths.depth("BTC").open("r+b") as file:
        for number in range(50 - torn, 50):
            file.seek(4096 + number * 8192 + SLOT_HEADER_BYTES + 200)
            file.write(b"\xff" * 16)
    app = world.app()
    newest, history = get(app, LATEST).json, get(app, HISTORY).json
    assert newest["seq"] == history["seq"] == 49 - torn and newest["frame_ts_ms"] == history["t"][-1]


def test_a_clock_that_was_set_back_leaves_an_axis_that_ascends(world: World) -> None:
    """Windows of the wrong time are published anew: what lies at or after a later frame is superseded by it."""
    for at in (0, 1, 20, 21, 22, 2, 3, 20):
        world.add_depth(depth_frame(NOW_MS + at * SLOT_MS, seed=at))
    app = world.app()
    body = get(app, HISTORY).json
    assert body["t"] == [NOW_MS + at * SLOT_MS for at in (0, 1, 2, 3, 20)]
    assert (body["count"], body["seq"], body["skipped_frames"]) == (5, 7, 0)
    assert get(app, f"{HISTORY}?stride=2").json["t"] == [NOW_MS + at * SLOT_MS for at in (0, 2, 20)]


def test_only_new_frames_are_decoded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from api import depth

    world.add_history(100)
    app, decoded = world.app(), []
    real = depth.decode_rows
    monkeypatch.setattr(depth, "decode_rows", lambda slots: decoded.append(len(slots)) or real(slots))
    first = get(app, HISTORY).json
    assert sum(decoded) == 100 and max(decoded) <= depth.CHUNK
    decoded.clear()
    world.add_depth(depth_frame(NOW_MS, seed=5))
    second = get(app, HISTORY).json
    assert decoded == [1] and second["t"][:-1] == first["t"]
    assert second["bid_u8"][: len(first["bid_u8"])] == first["bid_u8"]
    decoded.clear()
    get(app, f"{HISTORY}?minutes=20&stride=2&step=60")
    assert decoded == []


def test_a_ring_that_has_gone_round(world: World) -> None:
    world.add_history(1600)
    body = get(world.app(), f"{HISTORY}?range_pct=0.0005").json
    assert body["count"] == 1440 and body["seq"] == 1599
    frames = world.app().context.depth["BTC"]
    app = world.app()
    get(app, f"{HISTORY}?range_pct=0.0005")
    for index in range(5):
        world.add_depth(depth_frame(NOW_MS + index * SLOT_MS))
        get(app, f"{HISTORY}?range_pct=0.0005")
    assert len(app.context.depth["BTC"]._rows) <= 1536 and frames is not None


def test_symbols_do_not_mix(world: World) -> None:
    world.add_history(1, "BTC")
    world.add_history(2, "ETH", src=1931.2, step=1.0)
    world.add_candle(candle(NOW_MS - 60_000))
    app = world.app()
    assert (get(app, LATEST).json["step"], get(app, f"{LATEST}?symbol=eth").json["step"]) == (20.0, 1.0)
    assert get(app, f"{LATEST}?symbol=sol").error == (404, "no_frame")
    assert get(app, f"{HISTORY}?symbol=ETH").json["prices"][0] == 1738.0


def test_coverage_tells_open_interest_as_of_the_frame_and_unsynchronised_books(world: World) -> None:
    world.add_history(1)
    world.add_book(binance=book_stats(), bybit=book_stats(state="unsynced"), okx=book_stats(state="syncing"))
    world.add_oi(binance=5.0, bybit=(3.0, 60), okx=(2.0, 60.001))
    app = world.app()
    first = get(app, LATEST)
    venues = first.json["coverage"]["venues"]
    assert {name: one["oi"] for name, one in venues.items()} == {"binance": True, "bybit": True, "okx": False, "hyperliquid": False}
    assert [venues[name]["state"] for name in ("binance", "bybit", "okx")] == ["LIVE", "DOWN", "STALE"]
    world.add_oi(binance=6.0, bybit=3.0)  # another document, the same answer
    assert get(app, LATEST, headers={"If-None-Match": first.headers["etag"]}).status == 304
    world.add_oi(binance=6.0, bybit=3.0, okx=2.0)
    changed = get(app, LATEST, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status == 200 and changed.json["coverage"]["venues"]["okx"]["oi"] is True
