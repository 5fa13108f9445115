"""`/heatmap` over real files: parameters, both forms, identity, what is missing, what moves."""

from __future__ import annotations

import asyncio
import math
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import heatmap_rows
from api.app import Service
from api.heatmap_params import HEATMAP
from api.kept_rows import CHUNK
from mpengine import contract, mphm
from mpengine.cells import u8log
from mpengine.config import load, resolve_directories
from mpengine.mphm import Block, Form, Pool
from mpengine.wire_formats import CellType
from shm.files import replace
from shm.frames import decode, encode
from shm.layout import HEAD_WORD, INTENT_WORD, SLOT_HEADER_BYTES, depth_spec, liquidation_spec
from shm.records import Coverage, PositionSide, Venue
from shm.slots import SlotArray
from tests.api.conftest import TEXT
from tests.api.schema_check import faults
from tests.api.world import MS, NOW_MS, SLOT_MS, Reply, World, ask, depth_frame, get, map_frame, venue_feed

PATH = "/heatmap"
MINUTE_MS = 60_000
KEYS = ["symbol", "schema", "minutes", "t0_ms", "dt_ms", "cols", "price0", "step", "rows", "k", "pool", "form", "cell", "lo_usd",
        "hi_usd", "src", "layers", "realised", "provenance", "epoch", "seq", "ages", "stale"]  # fmt: skip
LAYERS = {"liq": ("long", "short"), "tape": ("long", "short"), "projected": ("long", "short"), "depth": ("bid", "ask")}
BLOCKS = {"liq": Block.LIQ_LONG, "tape": Block.TAPE_LONG, "projected": Block.PROJECTED_LONG, "depth": Block.DEPTH_BID}


def small_map(close_ms: int, cells: Any = None, *, origin: int = 3290, **values: Any) -> Any:
    """A minute of four buckets around 65,860; USD by plane (tape long, tape short, projected long, projected short)."""
    planes = [[0, 0, 0, 0], [0, 0, 0, 0], [1000, 2000, 0, 0], [0, 0, 4000, 8000]] if cells is None else cells
    return map_frame(close_ms, planes=planes, origin=origin, **values)


def small_depth(open_ms: int, cells: Any = None, *, origin: int = 3290, **values: Any) -> Any:
    """A frame of four buckets."""
    return depth_frame(open_ms, cells=[[100, 200, 0, 0], [0, 0, 400, 800]] if cells is None else cells, origin=origin, **values)


def fill(world: World, minutes: int = 10, symbol: str = "BTC") -> Service:
    """Both rings of the last `minutes`, documents, one liquidation; everything fresh."""
    for index in range(minutes):
        close_ms = world.clock.now_ms - (minutes - 1 - index) * MINUTE_MS
        world.add_map(map_frame(close_ms, seed=index), symbol)
        for half in range(2):
            world.add_depth(depth_frame(close_ms - MINUTE_MS + half * SLOT_MS, seed=2 * index + half), symbol)
    world.add_book(symbol)
    world.add_oi(symbol, binance=5.0)
    world.add_feeds(binance=venue_feed())
    world.add_liquidation(symbol, price=65_900.0)
    return world.app()


@pytest.fixture
def app(world: World) -> Service:
    return fill(world)


@pytest.fixture(scope="module")
def standing() -> Iterator[Service]:
    """For tests that change nothing."""
    folder = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    settings = resolve_directories(load(TEXT, {}), data=folder / "data", runtime=folder / "run")
    for name in ("data", "run"):
        (folder / name).mkdir()
    world = World(settings)
    try:
        yield fill(world)
    finally:
        world.close()
        shutil.rmtree(folder)


def unpacked(reply: Reply) -> mphm.Heatmap:
    assert (reply.status, reply.headers["content-type"]) == (200, "application/octet-stream")
    return mphm.decode(reply.body)


# --- form -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [
    "", "?cell=usd", "?form=sparse", "?form=sparse&cell=usd&min_usd=50000", "?layers=liq,tape,projected,depth,realised",
    "?dt_s=300&k=5",
    "?pool=sum&k=10", "?price_min=1&price_max=2", "?since_ms=999999999999999", "?to_ms=1",
])  # fmt: skip
def test_the_body_is_as_the_contract_says(standing: Service, query: str) -> None:
    reply = get(standing, PATH + query)
    assert reply.status == 200 and reply.headers["content-type"] == "application/json"
    assert faults(reply.body, contract.Heatmap) == []
    assert list(reply.json) == KEYS
    msgspec.json.decode(reply.body, type=contract.Heatmap)


def test_keys_of_what_is_not_asked_for_are_left_out(standing: Service) -> None:
    body = get(standing, f"{PATH}?layers=depth").json
    assert list(body) == [key for key in KEYS if key != "realised"]
    assert (list(body["layers"]), list(body["seq"]), list(body["ages"])) == (["depth"], ["depth"], ["depth_s"])
    body = get(standing, f"{PATH}?layers=realised,tape").json
    assert list(body) == KEYS
    assert (list(body["layers"]), list(body["seq"]), list(body["ages"])) == (["tape"], ["liq", "realised"], ["liq_s", "oi_s"])


def test_the_newest_picture_in_full(world: World) -> None:
    world.add_map(small_map(NOW_MS))
    world.add_depth(small_depth(NOW_MS - SLOT_MS))
    world.add_liquidation(price=65_831.0, notional_usd=15_704.9, venue_ts_ns=(NOW_MS - 1) * MS, side=PositionSide.SHORT)
    body = get(world.app(), f"{PATH}?minutes=5").json
    assert (body["symbol"], body["schema"], body["minutes"], body["t0_ms"], body["dt_ms"], body["cols"]) == (
        "BTC", 1, 5, NOW_MS - 5 * MINUTE_MS, SLOT_MS, 10
    )  # fmt: skip
    assert (body["price0"], body["step"], body["rows"], body["k"]) == (65_800.0, 20.0, 4, 1)
    assert (body["pool"], body["form"], body["cell"], body["lo_usd"], body["hi_usd"]) == ("max", "dense", "u8log", 100.0, 1e9)
    assert body["src"] == [None] * 8 + [65_892.725] * 2
    long, short = ([0] * 32 + u8log(np.array(2 * cells)).tolist() for cells in ([1000.0, 2000, 0, 0], [0, 0, 4000.0, 8000]))
    assert body["layers"]["liq"] == {"seq": [-1] * 8 + [0, 0], "long": long, "short": short, "unit": "usd_exposure"}
    bid, ask_ = ([0] * 36 + u8log(np.array(cells)).tolist() for cells in ([100.0, 200, 0, 0], [0, 0, 400.0, 800]))
    assert body["layers"]["depth"] == {"seq": [-1] * 9 + [0], "bid": bid, "ask": ask_, "unit": "usd_resting"}
    assert body["realised"] == {
        "fields": ["col", "row", "side", "venues", "count", "usd", "max_usd"],
        "points": [[9, 2, "short", 2, 1, 15_704.9, 15_704.9]], "unit": "usd_liquidated", "seq": 0,
    }  # fmt: skip
    assert (body["epoch"], body["seq"]) == (1, {"liq": 0, "depth": 0, "realised": 0})


@pytest.mark.parametrize("alias", ["/v4/heatmap", "/heatmap/", "/v4/heatmap/"])
@pytest.mark.parametrize("query", ["", "?format=bin", "?form=sparse&cell=usd"])
def test_aliases_give_the_same_bytes(standing: Service, alias: str, query: str) -> None:
    one, other = get(standing, PATH + query), get(standing, alias + query)
    assert one.status == other.status == 200 and one.body == other.body and one.headers["etag"] == other.headers["etag"]


def test_head_has_the_headers_and_no_body(standing: Service) -> None:
    whole, head = get(standing, f"{PATH}?format=bin"), get(standing, f"{PATH}?format=bin", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    ignored = ("x-request-id",)
    assert {key: value for key, value in head.headers.items() if key not in ignored} == {
        key: value for key, value in whole.headers.items() if key not in ignored
    }


@pytest.mark.parametrize("query", [
    "", "layers=tape,projected,depth", "dt_s=120&k=5", "pool=sum&k=10", "layers=realised", "layers=liq&dt_s=30",
    "since_ms=999999999999999",
])  # fmt: skip
@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_json_and_binary_say_the_same(standing: Service, query: str, form: str) -> None:
    body, found = (get(standing, f"{PATH}?{query}&form={form}{more}") for more in ("", "&format=bin"))
    body, found = body.json, unpacked(found)
    header = found.header
    for key in ("t0_ms", "dt_ms", "cols", "price0", "step", "rows", "k", "lo_usd", "hi_usd", "epoch"):
        assert body[key] == getattr(header, key), key
    assert (Pool[body["pool"].upper()], Form[body["form"].upper()], header.cell) == (header.pool, header.form, CellType.U8LOG)
    assert {name: getattr(header, f"{name}_seq") for name in ("liq", "depth", "realised")} == {
        "liq": None, "depth": None, "realised": None, **body["seq"]
    }  # fmt: skip
    assert [None if math.isnan(src) else src for src in found.src.tolist()] == body["src"]
    assert {name: body["provenance"][name] for name in body["provenance"]} == {
        name: value for name, value in found.provenance.items() if name != "symbol"
    }
    assert found.provenance["symbol"] == body["symbol"] and list(found.provenance)[1:] == list(body["provenance"])
    assert header.flags == 0
    assert len(found.planes) == 2 * len(body["layers"])
    for name, layer in body["layers"].items():
        assert layer["seq"] == found.numbers["depth" if name == "depth" else "liq"].tolist()
        for side, key in enumerate(LAYERS[name]):
            block = Block(BLOCKS[name] + side)
            dense = found.dense(block)
            if form == "dense":
                assert layer[key] == dense.reshape(-1).tolist()
            else:
                column, row = np.nonzero(dense)
                assert layer[key] == np.column_stack((column, row, dense[column, row])).tolist()
                plane = found.planes[block]
                assert plane.indices is not None and (plane.indices == column * header.rows + row).all()
    assert (found.points is None) == ("realised" not in body)
    if found.points is not None:
        assert found.points[["col", "row", "venues", "count"]].tolist() == [
            (col, row, venues, count) for col, row, _, venues, count, _, _ in body["realised"]["points"]
        ]


def test_float16_and_usd_are_within_their_promise(world: World) -> None:
    frame = map_frame(NOW_MS, seed=3)
    world.add_map(frame)
    usd = decode(encode(frame)).planes
    app = world.app()
    found = unpacked(get(app, f"{PATH}?minutes=5&dt_s=60&k=1&layers=liq,tape&cell=f16&format=bin"))
    assert found.header.cell is CellType.F16 and found.units["liq"].tolist()[:4] == [1.0] * 4
    assert np.log2(found.units["liq"][4]) % 1 == 0
    for block, expected in ((Block.LIQ_LONG, usd[0] + usd[2]), (Block.TAPE_SHORT, usd[1])):
        assert found.usd(block)[4] == pytest.approx(expected, rel=5e-4, abs=expected.max() * 1e-8)
        assert not found.usd(block)[:4].any()
    body = get(app, f"{PATH}?minutes=5&dt_s=60&k=1&layers=liq&cell=usd").json
    rows = body["rows"]
    assert body["layers"]["liq"]["long"][-rows:] == [float(f"{value:.3g}") for value in usd[0] + usd[2]]
    assert all(type(cell) is float for cell in body["layers"]["liq"]["long"])


def test_sparse_leaves_out_what_is_small(world: World) -> None:
    world.add_map(small_map(NOW_MS, [[0, 0, 0, 0], [0, 0, 0, 0], [99, 1000, 1001, 0], [0, 0, 0, 5]]))
    app = world.app()
    where = f"{PATH}?minutes=5&dt_s=300&layers=liq&form=sparse"
    assert get(app, f"{where}&cell=usd").json["layers"]["liq"]["long"] == [[0, 0, 99.0], [0, 1, 1000.0], [0, 2, 1000.0]]
    assert get(app, f"{where}&cell=usd&min_usd=1000").json["layers"]["liq"]["long"] == [[0, 1, 1000.0], [0, 2, 1000.0]]
    # The cell itself counts, not the bytes that stand for it.
    assert [row for _, row, _ in get(app, f"{where}&min_usd=1000.5").json["layers"]["liq"]["long"]] == [2]
    assert [row for _, row, _ in get(app, where).json["layers"]["liq"]["long"]] == [1, 2], "below lo_usd a byte is 0"
    assert get(app, f"{where}&min_usd=1e300").json["layers"]["liq"] == {"seq": [0], "long": [], "short": [], "unit": "usd_exposure"}
    dense = get(app, f"{PATH}?minutes=5&dt_s=300&layers=liq&min_usd=1e300").json
    assert any(dense["layers"]["liq"]["long"]), "of a dense answer nothing is left out"


# --- parameters -------------------------------------------------------------------------------------------------------

GOOD = [
    ("minutes=5", "minutes", 5), ("minutes=1440", "minutes", 1440), ("minutes=4", "minutes", 5), ("minutes=1441", "minutes", 1440),
    ("minutes=0", "minutes", 5), ("minutes=-5", "minutes", 5), ("minutes=99999", "minutes", 1440), ("", "minutes", 720),
    ("", "dt_ms", 60_000), ("dt_s=0", "dt_ms", 60_000), ("dt_s=%2B60", "dt_ms", 60_000),
    *((f"dt_s={dt}", "dt_ms", dt * 1000) for dt in (30, 60, 120, 300, 600, 900, 1800, 3600)),
    ("", "k", 1), ("k=0", "k", 1), *((f"k={k}", "k", k) for k in (1, 2, 5, 10, 20, 50, 100)),
    ("max_cols=16", "dt_ms", 3_600_000), ("max_cols=15", "dt_ms", 3_600_000), ("max_cols=1440", "dt_ms", 30_000),
    ("max_cols=99999", "dt_ms", 30_000), ("max_cols=719", "dt_ms", 120_000), ("max_cols=720", "dt_ms", 60_000),
    ("max_rows=16", "k", 50), ("max_rows=1", "k", 50), ("max_rows=2000", "k", 1), ("max_rows=2001", "k", 1),
    ("max_rows=659", "k", 2),
    ("max_rows=660", "k", 1), ("max_rows=660&k=1&dt_s=60", "rows", 660), ("max_rows=16&k=1", "rows", 660),
    ("price_min=0.0000001", "rows", 660), ("price_max=1e300", "rows", 660), ("price_min=65000&price_max=65100", "rows", 6),
    ("price_min=65009.9&price_max=65090.1", "rows", 6), ("price_min=65000&price_max=65100&k=5", "rows", 2),
    ("price_min=1&price_max=2", "rows", 0), ("price_min=100000", "rows", 0), ("price_max=1", "rows", 0),
    ("pool=max", "pool", "max"), ("pool=sum", "pool", "sum"), ("form=dense", "form", "dense"), ("form=sparse", "form", "sparse"),
    ("cell=u8log", "cell", "u8log"), ("cell=usd", "cell", "usd"), ("min_usd=0", "cell", "u8log"),
    ("min_usd=1e308", "cell", "u8log"),
    ("to_ms=1", "t0_ms", 60_000 - 720 * MINUTE_MS), ("to_ms=999999999999999", "t0_ms", NOW_MS - 720 * MINUTE_MS),
    (f"to_ms={NOW_MS}", "t0_ms", NOW_MS - 720 * MINUTE_MS), (f"to_ms={NOW_MS - MINUTE_MS}", "t0_ms", NOW_MS - 721 * MINUTE_MS),
    (f"to_ms={NOW_MS - MINUTE_MS + 1}", "t0_ms", NOW_MS - 720 * MINUTE_MS),
    ("since_ms=0", "cols", 720), (f"since_ms={NOW_MS - 1}", "cols", 1), (f"since_ms={NOW_MS - MINUTE_MS}", "cols", 1),
    (f"since_ms={NOW_MS - MINUTE_MS - 1}", "cols", 2), (f"since_ms={NOW_MS}", "cols", 0), ("since_ms=999999999999999", "cols", 0),
    ("format=json", "cell", "u8log"), ("foo=1", "minutes", 720), ("symbol=btc", "symbol", "BTC"),
    ("symbol=%20BTCUSDT%20", "symbol", "BTC"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "key", "value"), GOOD)
def test_what_a_parameter_does_at_its_edges(standing: Service, query: str, key: str, value: Any) -> None:
    reply = get(standing, f"{PATH}?{query}")
    assert reply.status == 200 and reply.json[key] == value


BAD = [
    "minutes=abc", "minutes=1.5", "minutes=1e3", "minutes=nan", "minutes=", "minutes=%EF%BC%91", "minutes=0x10", "minutes=1_000",
    "to_ms=0", "to_ms=-1", "to_ms=1000000000000000", "to_ms=abc", "to_ms=1.5", "since_ms=-1", "since_ms=1000000000000000",
    "since_ms=x",
    "layers=foo", "layers=", "layers=liq,", "layers=,liq", "layers=liq;depth", "layers=liq,,depth", "layers=all", "layers=liq,foo",
    "dt_s=1", "dt_s=29", "dt_s=31", "dt_s=-30", "dt_s=3601", "dt_s=30.0", "dt_s=abc", "dt_s=7200", "dt_s=999999999999999",
    "k=3", "k=-1", "k=101", "k=1.0", "k=abc", "k=4", "max_cols=abc", "max_cols=1.5", "max_rows=abc", "max_rows=1e3",
    "price_min=0", "price_min=-1", "price_min=nan", "price_min=inf", "price_max=0", "price_max=-5", "price_max=1e999",
    "price_min=abc",
    "price_min=2&price_max=1", "price_min=5&price_max=5", "pool=mean", "pool=MAX", "pool=", "form=csv", "form=", "cell=u8", "cell=",
    "cell=f16", "cell=usd&format=bin", "min_usd=-1", "min_usd=nan", "min_usd=inf", "min_usd=abc", "venues=foo", "venues=",
    "venues=none",
    "venues=binance,foo", "tiers=50", "tiers=all", "tiers=0", "format=xml", "format=", "format=BIN", "minutes=5&%FF=1",
    "minutes=%FF",
]  # fmt: skip


@pytest.mark.parametrize("query", BAD)
def test_what_is_outside_is_refused(standing: Service, query: str) -> None:
    reply = get(standing, f"{PATH}?{query}")
    assert reply.error == (400, "invalid_parameter")
    assert reply.headers["cache-control"] == "no-store"
    _, _, value = query.rpartition("&")[2].partition("=")
    if len(value) > 3 and value.isalnum():
        assert value not in reply.json["detail"], "what was sent is not told back"


@pytest.mark.parametrize(("query", "error"), [
    ("symbol=DOGE", (400, "invalid_symbol")), ("symbol=", (400, "invalid_parameter")), ("symbol=BTC%00", (400, "invalid_symbol")),
    ("symbol=" + "B" * 1000, (400, "invalid_symbol")), ("symbol=BTC&symbol=ETH", (400, "repeated_parameter")),
    ("minutes=5&minutes=5", (400, "repeated_parameter")), ("tiers=50&tiers=50", (400, "repeated_parameter")),
    ("layers=liq&layers=depth", (400, "repeated_parameter")), ("&".join(f"a{i}=1" for i in range(33)), (400, "invalid_parameter")),
    ("layers=" + ",".join(["liq"] * 40), (400, "invalid_parameter")), ("symbol=XRP&layers=depth", (400, "no_orderbook")),
    ("minutes=1440&dt_s=30&k=1&price_min=20&price_max=80000", (400, "too_large")),
    ("k=1&price_min=20&price_max=80020", (400, "too_large")),
    ("k=100&price_min=2000&price_max=8002000", (400, "too_large")), ("k=1&price_min=1e-300&price_max=1e300", (400, "too_large")),
])  # fmt: skip
def test_other_refusals(standing: Service, query: str, error: tuple[int, str]) -> None:
    assert get(standing, f"{PATH}?{query}").error == error


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods(standing: Service, method: str) -> None:
    reply = get(standing, PATH, method=method)
    assert reply.error == (405, "method_not_allowed") and "GET" in reply.headers["allow"]


@pytest.mark.parametrize("path", ["/heatmap/extra", "/Heatmap", "/v4/Heatmap", "/v1/heatmap", "/v4"])
def test_other_paths(standing: Service, path: str) -> None:
    assert get(standing, path).error == (404, "not_found")


def test_parameters_are_checked_in_the_order_of_the_table_and_before_readiness(world: World) -> None:
    app = world.app()
    bad = {"minutes": "x", "to_ms": "0", "since_ms": "-1", "layers": "x", "dt_s": "7", "k": "3", "max_cols": "x", "max_rows": "x",
           "price_min": "0", "price_max": "0", "pool": "x", "form": "x", "cell": "x", "min_usd": "-1", "venues": "x", "tiers": "1",
           "format": "x"}  # fmt: skip
    assert list(bad) == [row.name for row in HEATMAP]
    while bad:
        reply = get(app, f"{PATH}?" + "&".join(f"{name}={value}" for name, value in reversed(bad.items())))
        assert reply.error == (400, "invalid_parameter") and reply.json["detail"].startswith(f"{next(iter(bad))} ")
        del bad[next(iter(bad))]


VALUES = {
    "symbol": ["BTC", "eth", "XRP", "DOGE", ""], "minutes": ["5", "17", "60", "0", "-9", "x", "1e9"],
    "to_ms": ["1", str(NOW_MS - 200_000), str(NOW_MS), "999999999999999", "0", "-1"],
    "since_ms": ["0", str(NOW_MS - 100_001), str(NOW_MS + 1), "999999999999999", "-1"],
    "layers": ["liq", "depth", "realised", "tape,projected", "liq,tape,projected,depth,realised", "depth,liq,depth", "x", ","],
    "dt_s": ["0", "30", "60", "3600", "45"], "k": ["0", "1", "10", "100", "3"], "max_cols": ["16", "1440", "1", "x"],
    "max_rows": ["16", "2000", "1", "x"], "price_min": ["1e-300", "60000", "66000", "1e300", "-1", "nan"],
    "price_max": ["1e-300", "66000", "66500.5", "1e300", "0"], "pool": ["max", "sum", "x"], "form": ["dense", "sparse", "x"],
    "cell": ["u8log", "usd", "f16", "x"], "min_usd": ["0", "1e5", "1e308", "-1"], "venues": ["binance", "okx,bybit", "x", "gate"],
    "tiers": ["50"], "format": ["json", "bin", "x"], "foo": ["", "1"],
}  # fmt: skip


@given(st.dictionaries(st.sampled_from(list(VALUES)), st.integers(0, 7), max_size=9))
@hypothesis.settings(max_examples=80, deadline=None, derandomize=True)
def test_whatever_is_put_together_is_answered_or_refused(standing: Service, chosen: dict[str, int]) -> None:
    query = "&".join(f"{name}={VALUES[name][number % len(VALUES[name])]}" for name, number in chosen.items())
    reply = get(standing, f"{PATH}?{query}")
    if reply.status != 200:
        assert reply.error[0] in (400, 404, 503), query
    elif reply.headers["content-type"] == "application/json":
        assert faults(reply.body, contract.Heatmap) == [], query
        body = reply.json
        cells = [layer[side] for name, layer in body["layers"].items() for side in LAYERS[name]]
        assert all(len(layer["seq"]) == body["cols"] == len(body["src"]) for layer in body["layers"].values())
        if body["form"] == "dense":
            assert all(len(flat) == body["cols"] * body["rows"] for flat in cells)
        else:
            assert all(
                0 <= column < body["cols"] and 0 <= row < body["rows"] and cell for flat in cells for column, row, cell in flat
            )
    else:
        found = mphm.decode(reply.body)
        assert all(found.usd(block).shape == (found.header.cols, found.header.rows) for block in found.planes)


def test_a_level_of_detail_of_ones_own_has_a_limit_of_cells(world: World) -> None:
    for close_ms, origin in ((NOW_MS - MINUTE_MS, 1000), (NOW_MS, 2380)):
        world.add_map(small_map(close_ms, np.ones((4, 8)) * 1e5, origin=origin))
    app = world.app()
    assert unpacked(get(app, f"{PATH}?minutes=1440&dt_s=30&k=1&layers=liq&format=bin")).header.rows == 1388
    assert 2880 * 1388 <= 4_000_000 < 2880 * 1389
    world.add_map(small_map(NOW_MS + MINUTE_MS, np.ones((4, 8)) * 1e5, origin=2381))
    assert get(app, f"{PATH}?minutes=1440&dt_s=30&k=1&layers=liq").error == (400, "too_large")
    auto = unpacked(get(app, f"{PATH}?minutes=1440&dt_s=30&layers=liq&max_rows=2000&format=bin"))
    assert auto.header.k == 2, "an automatic k keeps within the limit"
    assert unpacked(get(app, f"{PATH}?minutes=1440&dt_s=60&k=1&layers=liq&format=bin")).header.rows == 1389


@pytest.mark.parametrize(("one", "other"), [
    ("", "symbol=BTC"), ("", "symbol=btcusdt"), ("", "minutes=720&dt_s=60"), ("", "layers=realised,depth,liq"),
    ("", "max_cols=1000"),
    ("", "layers=LIQ,depth,liq,realised"), ("", "venues=binance,bybit,okx,gate,bitget,hyperliquid"), ("", "min_usd=5"),
    ("", "foo=1"),
    ("minutes=1440", "minutes=9999"), ("form=sparse&min_usd=1.001", "form=sparse&min_usd=1.0011"), ("k=1", "k=1&max_rows=77"),
    ("layers=liq", "layers=liq&venues=okx"), ("layers=realised&venues=okx,bybit", "layers=realised&venues=bybit,OKX,okx"),
    ("k=5&price_min=60000", "k=5&price_min=60049"), ("price_min=60000", "price_min=59991"), ("dt_s=60", "dt_s=60&max_cols=16"),
    (f"since_ms={NOW_MS - MINUTE_MS}", f"since_ms={NOW_MS - 1}"),
    (f"to_ms={NOW_MS - MINUTE_MS}", f"to_ms={NOW_MS - 2 * MINUTE_MS + 1}"),
])  # fmt: skip
def test_requests_that_mean_the_same_share_one_answer(standing: Service, one: str, other: str) -> None:
    first, cache = get(standing, f"{PATH}?{one}"), standing.context.cache
    built = cache.misses
    second = get(standing, f"{PATH}?{other}")
    assert (first.status, second.body, cache.misses) == (200, first.body, built)
    assert first.headers["etag"] == second.headers["etag"]


def test_requests_that_mean_something_else_do_not(app: Service) -> None:
    queries = ["", "minutes=719", "dt_s=120", "k=2", "pool=sum", "form=sparse", "form=sparse&min_usd=1", "cell=usd", "venues=okx",
               "layers=liq", "layers=liq,depth", "price_min=60000", "price_max=60000", f"to_ms={NOW_MS - MINUTE_MS}",
               "max_rows=999",
               f"since_ms={NOW_MS - MINUTE_MS}", "format=bin", "format=bin&cell=f16", "symbol=ETH"]  # fmt: skip
    tags = [get(app, f"{PATH}?{query}").headers.get("etag", "none") for query in queries]
    assert len(set(tags)) == len(queries) == app.context.cache.misses


# --- what is there ----------------------------------------------------------------------------------------------------


def test_before_the_first_frame(world: World) -> None:
    app = world.app()
    for layers in ("liq", "tape", "projected", "liq,tape,projected"):
        reply = get(app, f"{PATH}?layers={layers}")
        assert reply.error == (503, "not_ready") and 1 <= int(reply.headers["retry-after"]) <= 60
    assert get(app, f"{PATH}?layers=depth").error == (404, "no_frame")
    for layers in ("liq,depth", "liq,depth,realised", "realised", "depth,realised", "liq,realised", "tape,depth"):
        for form in ("", "&format=bin"):
            reply = get(app, f"{PATH}?layers={layers}{form}")
            assert reply.status == 200 and "etag" not in reply.headers
            assert (reply.headers["x-seq"], reply.headers["x-age-ms"], reply.headers["x-stale"]) == ("-1", "-1", "true")
            if form:
                header = unpacked(reply).header
                assert (header.cols, header.rows, header.epoch, header.liq_seq, header.realised_seq) == (0, 0, 0, None, None)
                continue
            assert faults(reply.body, contract.Heatmap) == []
            body = reply.json
            assert (body["layers"], body["cols"], body["rows"], body["src"], body["epoch"]) == ({}, 0, 0, [], None)
            assert set(body["seq"].values()) == {None} and body["stale"] is True
            assert body["provenance"]["assumptions"] is None


def test_layers_that_exist_are_served_without_the_others(world: World) -> None:
    world.add_depth(depth_frame(NOW_MS - SLOT_MS))
    app = world.app()
    body = get(app, PATH).json
    assert (list(body["layers"]), body["seq"]) == (["depth"], {"liq": None, "depth": 0, "realised": None})
    assert body["ages"] == {"liq_s": None, "depth_s": 30.0, "oi_s": None}
    assert body["realised"]["points"] == [] and body["realised"]["seq"] is None
    assert get(app, f"{PATH}?layers=liq").error == (503, "not_ready")
    world.add_map(map_frame(NOW_MS))
    world.clock.advance(1)
    assert get(app, f"{PATH}?layers=liq").status == 200
    assert list(get(app, PATH).json["layers"]) == ["liq", "depth"]


def test_a_symbol_without_a_book_has_its_maps(world: World) -> None:
    world.add_map(map_frame(NOW_MS, src=0.5, step=0.001), "XRP")
    app = world.app()
    body = get(app, f"{PATH}?symbol=XRP").json
    assert (list(body["layers"]), body["seq"]["depth"], body["step"], body["price0"]) == (["liq"], None, 0.001, 0.45)
    assert get(app, f"{PATH}?symbol=XRP&layers=depth").error == (400, "no_orderbook")
    assert get(app, f"{PATH}?symbol=XRP&layers=depth,realised").json["layers"] == {}


def test_a_window_without_any_frame_is_empty_not_an_error(standing: Service) -> None:
    for layers in ("liq", "depth", "liq,depth,realised"):
        body = get(standing, f"{PATH}?layers={layers}&to_ms={NOW_MS - 10**9}&minutes=60").json
        assert (body["cols"], body["rows"], body["price0"], body["src"]) == (120, 0, 0.0, [None] * 120)
        assert all(set(layer["seq"]) == {-1} for layer in body["layers"].values())
        assert body["seq"].items() <= {"liq": 9, "depth": 19, "realised": 0}.items() and body["stale"] is False


def test_depth_does_not_reach_back_a_day_and_says_so(world: World) -> None:
    world.add_depth(small_depth(NOW_MS - 800 * MINUTE_MS))
    for index in range(1530):
        world.add_depth(small_depth(NOW_MS - (1530 - index) * SLOT_MS))
    world.add_map(small_map(NOW_MS - 800 * MINUTE_MS))
    world.add_map(small_map(NOW_MS))
    body = get(world.app(), f"{PATH}?minutes=1440&dt_s=60&k=1").json
    seq = body["layers"]["depth"]["seq"]
    assert (seq[-1], min(seq[-720:])) == (1530, 92) and set(seq[:639]) == {-1}
    assert body["layers"]["liq"]["seq"][639] == 0


def test_missing_frames_are_missing_and_not_zero(world: World) -> None:
    for at in (-5, -4, -1):
        world.add_map(small_map(NOW_MS + (at + 1) * MINUTE_MS))
        world.add_depth(small_depth(NOW_MS + at * MINUTE_MS, np.zeros((2, 4))))
    app = world.app()
    body = get(app, f"{PATH}?minutes=5&dt_s=60&k=1").json
    assert body["layers"]["liq"]["seq"] == [0, 1, -1, -1, 2] == body["layers"]["depth"]["seq"]
    assert body["src"] == [65_892.725] * 2 + [None] * 2 + [65_892.725]
    assert set(body["layers"]["depth"]["bid"]) == {0}, "a frame without anything has its number all the same"
    assert NOW_MS % (5 * MINUTE_MS) == 0
    pooled = get(app, f"{PATH}?minutes=10&dt_s=120&k=1").json
    assert pooled["t0_ms"] % 120_000 == 0 and -1 in pooled["layers"]["liq"]["seq"]
    wide = get(app, f"{PATH}?minutes=10&dt_s=300&k=1").json
    assert wide["layers"]["liq"]["seq"] == [-1, 2], "missing only if all of its frames are"


def test_a_running_half_minute_is_a_column_of_its_own(world: World) -> None:
    """The window of 30 s that has just closed begins a minute whose map is still to come."""
    app = fill(world)
    world.add_depth(depth_frame(NOW_MS))
    body = get(app, f"{PATH}?minutes=5&dt_s=60&k=1").json
    assert body["t0_ms"] == NOW_MS - 4 * MINUTE_MS
    assert (body["layers"]["liq"]["seq"], body["layers"]["depth"]["seq"]) == ([6, 7, 8, 9, -1], [13, 15, 17, 19, 20])
    halves = get(app, f"{PATH}?minutes=5&dt_s=30&k=1").json
    assert (halves["layers"]["liq"]["seq"], halves["layers"]["depth"]["seq"]) == (
        [5, 6, 6, 7, 7, 8, 8, 9, 9, -1], list(range(11, 21))
    )  # fmt: skip


# --- joining ----------------------------------------------------------------------------------------------------------


def by_time_and_price(body: dict[str, Any]) -> dict[str, dict[int, tuple[int, dict[float, int]]]]:
    """layer.side -> time -> (frame number, price -> byte) without what is nothing."""
    found: dict[str, dict[int, tuple[int, dict[float, int]]]] = {}
    rows = body["rows"]
    for name, layer in body["layers"].items():
        for side in LAYERS[name]:
            found[f"{name}.{side}"] = {
                body["t0_ms"] + column * body["dt_ms"]: (
                    layer["seq"][column],
                    {round(body["price0"] + row * body["step"], 6): cell
                     for row, cell in enumerate(layer[side][column * rows : (column + 1) * rows]) if cell},
                )
                for column in range(body["cols"])
            }  # fmt: skip
    return found


@pytest.mark.parametrize("query", ["dt_s=60&k=1", "dt_s=120&k=5", "dt_s=30&k=2", "max_rows=100"])
def test_columns_of_a_delta_are_those_of_the_whole(world: World, query: str) -> None:
    for index in range(30):
        src = 65_000.0 + 900 * math.sin(index)
        world.add_map(map_frame(NOW_MS - (29 - index) * MINUTE_MS, src=src, seed=index))
        world.add_depth(depth_frame(NOW_MS - (30 - index) * MINUTE_MS, src=src, seed=index))
    app = world.app()
    whole, part = (get(app, f"{PATH}?minutes=30&{query}{since}").json for since in ("", f"&since_ms={NOW_MS - 5 * MINUTE_MS}"))
    assert part["cols"] == -(-5 * MINUTE_MS // part["dt_ms"]) and (part["k"], part["dt_ms"]) == (whole["k"], whole["dt_ms"])
    for side, columns in by_time_and_price(part).items():
        known = by_time_and_price(whole)[side]
        assert columns == {time: known[time] for time in columns}


def test_pages_backwards_join(world: World) -> None:
    for index in range(40):
        world.add_map(map_frame(NOW_MS - (39 - index) * MINUTE_MS, seed=index))
    app, pages, to_ms = world.app(), {}, 10**14
    whole = by_time_and_price(get(app, f"{PATH}?minutes=40&dt_s=60&k=1&layers=liq").json)
    for _ in range(4):
        body = get(app, f"{PATH}?minutes=10&dt_s=60&k=1&layers=liq&to_ms={to_ms}").json
        to_ms = body["t0_ms"]
        page = by_time_and_price(body)["liq.long"]
        assert len(page) == 10 and not page.keys() & pages.keys()
        pages |= page
    assert pages == whole["liq.long"]


# --- realised ---------------------------------------------------------------------------------------------------------


def test_realised_liquidations_lie_where_they_happened(world: World) -> None:
    app = fill(world, 1)
    start_ms = NOW_MS - 5 * MINUTE_MS
    for at_ms, price, side, venue, usd in [
        (start_ms, 65_990.0, 1, Venue.BYBIT, 100.0), (start_ms, 65_999.9, 1, Venue.OKX, 250.5),
        (start_ms + 1, 66_009.9, 2, Venue.OKX, 7.0),
        (start_ms + 59_999, 66_010.1, 1, Venue.BINANCE, 9.25), (start_ms + 60_000, 66_000.0, 1, Venue.BINANCE, 1.0),
        (start_ms - 1, 66_000.0, 1, Venue.BINANCE, 5.0), (NOW_MS, 66_000.0, 1, Venue.BINANCE, 5.0),
        (start_ms, 59_289.0, 1, Venue.BINANCE, 5.0), (start_ms, 72_491.0, 1, Venue.BINANCE, 5.0),
    ]:  # fmt: skip
        world.add_liquidation(price=price, side=side, venue=venue, notional_usd=usd, venue_ts_ns=at_ms * MS)
    body = get(app, f"{PATH}?minutes=5&dt_s=60&k=1").json
    row = round((66_000.0 - body["price0"]) / 20)
    points = body["realised"]["points"]
    # Half to even: 65,990 lies between the buckets 3299 and 3300.
    assert points[:4] == [
        [0, row, "long", 6, 2, 350.5, 250.5], [0, row, "short", 4, 1, 7.0, 7.0], [0, row + 1, "long", 1, 1, 9.25, 9.25],
        [1, row, "long", 1, 1, 1.0, 1.0],
    ]  # fmt: skip
    assert len(points) == 5 and body["realised"]["seq"] == 9
    only = get(app, f"{PATH}?minutes=5&dt_s=60&k=1&venues=binance,bybit").json
    assert {venues for _, _, _, venues, *_ in only["realised"]["points"]} == {1, 2}
    assert only["layers"] == body["layers"], "venues filter the realised liquidations alone"
    wide = get(app, f"{PATH}?minutes=5&dt_s=300&k=100&layers=liq,realised").json["realised"]["points"]
    middle = round((66_000.0 - 60_000.0) / 2000)
    assert wide == [
        [0, 0, "long", 1, 1, 5.0, 5.0], [0, middle, "long", 7, 5, 860.75, 500.0], [0, middle, "short", 4, 1, 7.0, 7.0],
        [0, middle + 3, "long", 1, 1, 5.0, 5.0],
    ]  # fmt: skip


def test_realised_liquidations_alone_make_their_own_rows(world: World) -> None:
    world.add_liquidation(price=65_000.0, venue_ts_ns=(NOW_MS - 90_000) * MS)
    world.add_liquidation(price=65_100.0, venue_ts_ns=(NOW_MS - 1) * MS, recv_ts_ns=(NOW_MS - 1) * MS)
    app = world.app()
    body = get(app, f"{PATH}?layers=realised&minutes=5").json
    assert (body["price0"], body["rows"], body["k"], body["cols"], body["layers"]) == (65_000.0, 6, 1, 10, {})
    assert [point[:2] for point in body["realised"]["points"]] == [[7, 0], [9, 5]]
    assert body["src"] == [None] * 10 and body["seq"] == {"realised": 1} and body["epoch"] == 1


def test_frames_of_layers_not_asked_for_tell_how_far_time_has_come(world: World) -> None:
    world.add_liquidation(price=65_000.0, venue_ts_ns=(NOW_MS - 1) * MS, recv_ts_ns=(NOW_MS - 1) * MS)
    world.add_liquidation(price=70_000.0, venue_ts_ns=NOW_MS * MS)  # a moment behind the end
    world.add_map(small_map(NOW_MS))
    target, app = f"{PATH}?layers=realised&minutes=5&format=bin", world.app()
    replies = [get(app, target)]
    world.add_map(small_map(NOW_MS + 3 * MINUTE_MS))
    replies.append(get(app, target))
    world.add_depth(small_depth(NOW_MS + 10 * MINUTE_MS))
    world.clock.advance(1)
    app.turn()
    replies.append(get(app, target))
    # A venue whose clock is an hour ahead does not move the axis.
    world.add_liquidation(price=65_000.0, venue_ts_ns=(NOW_MS + 60 * MINUTE_MS) * MS)
    replies.append(get(app, target))
    found = [unpacked(reply) for reply in replies]
    ends = [one.header.t0_ms + one.header.cols * one.header.dt_ms - NOW_MS for one in found]
    assert ends == [0, 3 * MINUTE_MS, 10 * MINUTE_MS + SLOT_MS, 10 * MINUTE_MS + SLOT_MS]
    assert [len(one.points) for one in found if one.points is not None] == [1, 2, 0, 0]
    assert [one.header.rows for one in found] == [1, 251, 0, 0]
    assert len({reply.headers["etag"] for reply in replies}) == 4, "another body under the same strong tag"


def test_silence_of_liquidations_is_no_staleness_but_dead_feeds_are(world: World) -> None:
    app = fill(world)
    world.clock.advance(20)
    world.add_feeds(binance=venue_feed())
    assert get(app, f"{PATH}?layers=realised").json["stale"] is False
    assert get(app, f"{PATH}?layers=liq,realised").headers["x-stale"] == "false"
    world.add_feeds(binance=venue_feed("DOWN"))
    built = app.context.cache.misses
    assert get(app, f"{PATH}?layers=realised").json["stale"] is True
    assert get(app, f"{PATH}?layers=liq,realised").headers["x-stale"] == "true"
    assert get(app, f"{PATH}?layers=liq").json["stale"] is False
    assert app.context.cache.misses == built + 1, "the state of feeds is filled in, not built in"
    world.add_feeds(binance=venue_feed())
    world.clock.advance(10.001)
    assert get(app, f"{PATH}?layers=realised").json["stale"] is True, "nothing heard for 10 s"


# --- provenance, ages, identity ---------------------------------------------------------------------------------------


def test_provenance_tells_with_what_the_map_was_made(world: World) -> None:
    app = fill(world)
    found = get(app, PATH).json["provenance"]
    assert list(found) == ["model", "estimated", "config_hash", "assumptions", "coverage"]
    assert (found["model"], found["estimated"], found["config_hash"]) == ("oi-taker-ladder/1", True, world.settings.config_hash)
    assert found["assumptions"] == {
        "leverage_weights": {"5": 0.5, "10": 0.0, "20": 0.5}, "disabled_tiers": [10], "mmr": {"binance": 0.004, "bybit": 0.005},
        "formula": "isolated_linear", "entry_price": "ohlc4_minute", "oi_split": "taker_share", "tape_weight": 0.35,
        "projection_weight": 0.65, "decay_per_min": 0.995, "sweep_reduction": 0.7, "range_pct": 0.1, "valid_from_ms": None,
    }  # fmt: skip
    same = get(app, "/orderbook_heatmap").json["coverage"]
    assert found["coverage"] == same and list(found["coverage"]) == list(same)
    assert found["coverage"]["venues"]["hyperliquid"]["liquidations"] == "none" and found["coverage"]["venues"]["binance"]["oi"]
    plain = get(app, f"{PATH}?layers=depth,realised").json["provenance"]
    assert (plain["estimated"], plain["assumptions"], plain["coverage"]) == (False, None, found["coverage"])


def test_the_flags_are_those_of_the_newest_column(world: World) -> None:
    for at, coverage in ((-2, Coverage.RECOVERED), (-1, Coverage.OI_MISSING), (0, Coverage.GAP | Coverage.FALLBACK_PRICE)):
        world.add_map(small_map(NOW_MS + at * MINUTE_MS, coverage=coverage))
    app = world.app()
    expected = {
        60: ["gap", "fallback_price"],
        120: ["gap", "oi_missing", "fallback_price"],
        300: ["recovered", "gap", "oi_missing", "fallback_price"],
    }
    for dt_s, names in expected.items():
        assert get(app, f"{PATH}?minutes=5&dt_s={dt_s}&layers=liq").json["provenance"]["coverage"]["flags"] == names
    flags = unpacked(get(app, f"{PATH}?minutes=5&dt_s=60&layers=liq&format=bin")).header.flags
    assert flags == Coverage.GAP | Coverage.FALLBACK_PRICE
    past = get(app, f"{PATH}?minutes=5&dt_s=60&layers=liq&to_ms={NOW_MS - MINUTE_MS}").json
    assert past["provenance"]["coverage"]["flags"] == ["oi_missing"]


def test_ages_are_of_the_moment_of_the_answer(world: World) -> None:
    app = fill(world)
    first = get(app, PATH)
    assert first.json["ages"] == {"liq_s": 0.0, "depth_s": 30.0, "oi_s": 0.0} and first.headers["x-age-ms"] == "30000"
    world.clock.advance(12.34)
    built = app.context.cache.misses
    second = get(app, PATH)
    assert second.json["ages"] == {"liq_s": 12.3, "depth_s": 42.3, "oi_s": 12.3} and second.headers["x-age-ms"] == "42340"
    world.add_oi(binance=6.0)
    assert get(app, PATH).json["ages"]["oi_s"] == 0.0, "open interest comes more often than frames"
    assert app.context.cache.misses == built and second.headers["etag"] == first.headers["etag"]
    for layers, age in (("liq", "12340"), ("depth", "42340"), ("tape,depth", "42340"), ("realised", "12340")):
        assert get(app, f"{PATH}?layers={layers}&format=bin").headers["x-age-ms"] == age


@pytest.mark.parametrize(("layers", "fresh_s"), [("liq", 180.0), ("depth", 60.0), ("liq,depth", 60.0)])
def test_each_layer_is_stale_at_its_own_age(world: World, layers: str, fresh_s: float) -> None:
    app = fill(world)
    world.clock.advance(fresh_s)
    assert get(app, f"{PATH}?layers={layers}").json["stale"] is False
    world.clock.advance(0.001)
    reply = get(app, f"{PATH}?layers={layers}")
    assert reply.json["stale"] is True and reply.headers["x-stale"] == "true"
    assert get(app, f"{PATH}?layers={layers}&format=bin").headers["x-stale"] == "true"


@pytest.mark.parametrize(("query", "strong"), [("", False), ("?format=bin", True), ("?format=bin&layers=realised", True)])
def test_304_and_what_changes_the_tag(world: World, query: str, strong: bool) -> None:
    app = fill(world)
    first = get(app, PATH + query)
    tag = first.headers["etag"]
    assert tag.startswith('"') if strong else tag.startswith('W/"')
    world.clock.advance(5)
    world.add_feeds(binance=venue_feed())
    again = get(app, PATH + query, headers={"If-None-Match": tag})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert again.headers["x-age-ms"] == str(int(first.headers["x-age-ms"]) + 5000)
    assert get(app, PATH + query, headers={"If-None-Match": "garbage, \x7f"}).status == 200
    if strong:
        assert get(app, PATH + query).body == first.body, "a strong tag is for the same bytes"
    world.add_liquidation(price=65_900.0)
    second = get(app, PATH + query, headers={"If-None-Match": tag})
    assert second.status == 200 and second.headers["etag"] != tag and second.body != first.body


def test_two_workers_give_the_same_bytes_under_the_same_tag(world: World) -> None:
    """One has been there all the time, the other has just begun; the ring has gone round."""
    for index in range(1600):
        world.add_depth(small_depth(NOW_MS - (1600 - index) * SLOT_MS))
    old = world.app()
    target = f"{PATH}?minutes=1440&dt_s=60&k=1&layers=depth&format=bin"
    get(old, target)
    for index in range(5):
        world.add_depth(small_depth(NOW_MS + index * SLOT_MS))
        kept, fresh = get(old, target), get(world.app(), target)
        assert kept.headers["etag"] == fresh.headers["etag"] and kept.body == fresh.body


# --- what changes under way -------------------------------------------------------------------------------------------


def test_a_new_minute_decodes_one_frame_of_each_ring(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    app, decoded = fill(world, 100), []
    real = heatmap_rows.decode_frames
    monkeypatch.setattr(
        heatmap_rows, "decode_frames", lambda slots, kind: decoded.append((int(kind), len(slots))) or real(slots, kind)
    )
    get(app, PATH)
    assert sum(count for _, count in decoded) == 300 and max(count for _, count in decoded) <= CHUNK
    decoded.clear()
    world.add_map(map_frame(NOW_MS + MINUTE_MS))
    world.add_depth(depth_frame(NOW_MS))
    get(app, PATH)
    assert sorted(decoded) == [(1, 1), (2, 1)]
    decoded.clear()
    for query in ("dt_s=300&k=5", "format=bin&cell=f16", "layers=tape&pool=sum", "minutes=50"):
        get(app, f"{PATH}?{query}")
    assert decoded == []


@pytest.mark.parametrize("query", [
    "dt_s=60&k=1", "dt_s=30&k=1&format=bin", "dt_s=300&k=5", "form=sparse&dt_s=60&cell=usd", "form=sparse&format=bin&cell=f16",
    "pool=sum&k=10",
    "layers=liq,tape,projected,depth,realised&format=bin", "max_rows=50&max_cols=50",
])  # fmt: skip
def test_what_is_kept_changes_no_byte(world: World, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minute by minute an application that keeps blocks against one that has just begun; small blocks, so that there are many."""
    monkeypatch.setattr("api.heatmap_grid.BLOCK_CELLS", 7 * 40)
    rng, kept, src = np.random.default_rng(5), world.app(), 65_000.0
    for index in range(40):
        now_ms = NOW_MS + index * MINUTE_MS
        src *= 1 + rng.normal(0, 3e-4)
        if rng.random() < 0.85:
            cells = rng.exponential(1e5, (4, 30)) * (rng.random((4, 30)) < 0.5)
            world.add_map(small_map(now_ms, cells, origin=round(src / 20) - 15, src=src))
        for half in range(2):
            cells = rng.exponential(1e5, (2, 30))
            world.add_depth(small_depth(now_ms - MINUTE_MS + half * SLOT_MS, cells, origin=round(src / 20) - 15, src=src))
        if index % 3 == 0:
            world.add_liquidation(price=src, venue_ts_ns=(now_ms - 1) * MS)
        if index == 20:
            world.reopen(world.settings.paths.liquidation("BTC"))  # the engine has been started again
        if index % 4 == 3:
            fresh = world.app()
            assert get(kept, f"{PATH}?minutes=25&{query}").body == get(fresh, f"{PATH}?minutes=25&{query}").body
            fresh.context.builder.close()


def test_an_engine_that_starts_again_goes_on(world: World) -> None:
    app = fill(world)
    first = get(app, f"{PATH}?layers=liq,depth&dt_s=60&minutes=10")
    for ring in (world.settings.paths.liquidation("BTC"), world.settings.paths.depth("BTC")):
        world.reopen(ring)
    world.add_map(map_frame(NOW_MS + 3 * MINUTE_MS, coverage=Coverage.RECOVERED))
    world.add_depth(depth_frame(NOW_MS + 2 * MINUTE_MS))
    second = get(app, f"{PATH}?layers=liq,depth&dt_s=60&minutes=10")
    assert (second.json["epoch"], second.json["seq"]) == (2, {"liq": 10, "depth": 20}) and second.headers["x-epoch"] == "2"
    assert second.json["layers"]["liq"]["seq"] == [3, 4, 5, 6, 7, 8, 9, -1, -1, 10]
    assert second.json["layers"]["depth"]["seq"] == [7, 9, 11, 13, 15, 17, 19, -1, -1, 20]
    assert second.json["provenance"]["coverage"]["flags"] == ["recovered"]
    before, after = by_time_and_price(first.json), by_time_and_price(second.json)
    assert all(after[side][time] == before[side][time] for side in before for time in before[side].keys() & after[side].keys())


def test_numbers_that_come_again_after_a_power_loss_are_other_frames(world: World) -> None:
    app, path = fill(world), world.settings.paths.depth("BTC")
    target = f"{PATH}?layers=depth&minutes=10&dt_s=30&k=1"
    first = get(app, target).json
    world.reopen(path)
    with path.open("r+b") as file:
        assert HEAD_WORD == INTENT_WORD + 1
        for offset, words in ((INTENT_WORD * 8, (18, 18)), (4096 + 18 * 8192, (0,)), (4096 + 19 * 8192, (0,))):
            file.seek(offset)
            file.write(struct.pack(f"<{len(words)}Q", *words))
    for slot in (-2, -1):
        assert world.add_depth(depth_frame(NOW_MS + slot * SLOT_MS, seed=77)) == slot + 20
    second = get(app, target).json
    assert (second["seq"], second["epoch"]) == (first["seq"], 2) and second["layers"]["depth"]["seq"] == first["layers"]["depth"][
        "seq"
    ]
    rows = second["rows"]
    assert second["layers"]["depth"]["bid"][: -2 * rows] == first["layers"]["depth"]["bid"][: -2 * rows]
    assert second["layers"]["depth"]["bid"][-2 * rows :] != first["layers"]["depth"]["bid"][-2 * rows :]


def test_a_ring_that_was_replaced_is_the_one_that_is_read(world: World) -> None:
    app, paths = fill(world), world.settings.paths
    assert get(app, PATH).json["seq"]["liq"] == 9
    for path, spec in ((paths.depth("BTC"), depth_spec("BTC")), (paths.liquidation("BTC"), liquidation_spec("BTC"))):
        world.reopen(path)
        replace(path, spec)
    world.clock.advance(1.0)
    app.turn()
    # Empty rings: nothing of the old ones is shown as if it were theirs.
    body = get(app, PATH).json
    assert (body["layers"], body["seq"]) == ({}, {"liq": None, "depth": None, "realised": 0})
    assert get(app, f"{PATH}?layers=liq").error == (503, "not_ready") and get(app, f"{PATH}?layers=depth").error == (
        404,
        "no_frame",
    )
    world.add_map(map_frame(NOW_MS, seed=99))
    body = get(app, f"{PATH}?layers=liq&minutes=5&dt_s=60").json
    assert body["layers"]["liq"]["seq"] == [-1, -1, -1, -1, 0] and body["epoch"] == 1


def test_torn_slots_are_missing_columns(world: World) -> None:
    app = fill(world)
    with world.settings.paths.liquidation("BTC").open("r+b") as file:
        for number in (3, 9):
            file.seek(4096 + number * 16_384 + SLOT_HEADER_BYTES + 300)
            file.write(b"\xff" * 64)
    body = get(app, f"{PATH}?minutes=10&dt_s=60&layers=liq").json
    assert body["layers"]["liq"]["seq"] == [-1, 0, 1, 2, -1, 4, 5, 6, 7, 8], "the newest that is sound ends the axis"
    assert body["seq"] == {"liq": 8}


def test_frames_that_are_overwritten_while_they_are_read_are_missing_never_torn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer goes round during the block copy: whatever it has touched by then is not believed."""
    for index in range(1536):
        world.add_depth(small_depth(NOW_MS - (1536 - index) * SLOT_MS, [[1000] * 4, [0] * 4]))
    app, writer = world.app(), world.depth()
    app.context.sources.check()
    reader = app.context.sources.symbols["BTC"].depth.reader
    assert reader is not None
    real, written = reader._slots.copy_range, []

    def overtaken(start: int, stop: int) -> Any:
        block = real(start, stop)
        if not written and stop - start > 2:
            later = (small_depth(NOW_MS + index * SLOT_MS, [[9e6] * 4, [0] * 4]) for index in range(600))
            written.extend(world.add_depth(frame) for frame in later)
            block[: len(block) // 2] = real(start + 1536, start + 1536 + len(block) // 2)  # half of the copy is the next lap
        return block

    monkeypatch.setattr(SlotArray, "copy_range", lambda _, start, stop: overtaken(start, stop))
    found = unpacked(get(app, f"{PATH}?minutes=720&dt_s=30&k=1&layers=depth&format=bin"))
    numbers, bid = found.numbers["depth"], found.dense(Block.DEPTH_BID)
    assert writer.next_no == 1536 + 600 and found.header.depth_seq == 1535
    assert (numbers == -1).sum() >= 400 and (numbers >= 600).sum() > 700
    shown = bid[numbers >= 0]
    assert set(np.unique(shown)) == {int(u8log(np.array([1000.0]))[0])} and not bid[numbers == -1].any()
    # The next answer has the new frames.
    later = unpacked(get(app, f"{PATH}?minutes=720&dt_s=30&k=1&layers=depth&format=bin"))
    assert later.header.depth_seq == 2135 and int(later.dense(Block.DEPTH_BID).max()) == int(u8log(np.array([9e6]))[0])


def test_one_build_serves_everybody_who_waits(app: Service) -> None:
    async def both() -> list[Reply]:
        return list(await asyncio.gather(*(ask(app, f"{PATH}?format=bin{more}") for more in ("", "&foo=1", "&minutes=720", ""))))

    replies = asyncio.run(both())
    assert len({reply.body for reply in replies}) == 1 and app.context.cache.misses == 1


def test_symbols_do_not_mix(world: World) -> None:
    app = fill(world)
    world.add_map(map_frame(NOW_MS, src=1931.2, step=1.0), "ETH")
    body = get(app, f"{PATH}?symbol=ETHUSDT&layers=liq").json
    assert (body["symbol"], body["step"], body["price0"], body["seq"]) == ("ETH", 1.0, 1738.0, {"liq": 0})
    assert get(app, f"{PATH}?layers=liq").json["price0"] == 59_300.0
