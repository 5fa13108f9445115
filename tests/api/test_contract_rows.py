"""The contract row by row: both edges of every parameter, every bad input of the table, ages and tags over time, on every endpoint.

What a parameter does is tested with its endpoint; here is that none was forgotten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from api import params
from api.endpoint import Endpoint
from api.endpoints import ENDPOINTS
from api.heatmap_params import Listed, Refused, Words
from mpengine.config import load, resolve_directories
from mpengine.contract import Error
from tests.api.golden_world import fill
from tests.api.schema_check import faults
from tests.api.world import Reply, World, get

TEXT = """
[api]
rate_limits = false
[symbols.BTC]
step = 1000.0
book_step = 1000.0
[symbols.ETH]
step = 50.0
book_step = 50.0
[symbols.XRP]
step = 0.001
tick = 0.0001
has_orderbook = false
"""
DATA = [endpoint for endpoint in ENDPOINTS if endpoint.data]
ROWS = [(endpoint, row) for endpoint in DATA for row in endpoint.parameters]
LEAK = re.compile(rb"/dev/|/tmp/|/usr/|/home/|Traceback|Exception|\.py\b|0x[0-9a-f]{6}|object at")
STEPS = {"step"}  # a multiple of the frame's step: its edges are those of the multiple


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rows")
    for name in ("data", "run"):
        (folder / name).mkdir()
    found = World(resolve_directories(load(TEXT, {}), data=folder / "data", runtime=folder / "run"))
    fill(found)
    yield found
    found.close()


@pytest.fixture(scope="module")
def app(world: World) -> Any:
    return world.app()


def refused(reply: Reply, status: int, *codes: str) -> None:
    """It is that error, in the form of the contract, and tells nothing that it should not."""
    assert (reply.status, reply.json["error"] in codes) == (status, True), reply.body
    assert faults(reply.body, Error) == []
    assert not LEAK.search(reply.body), reply.body
    assert reply.headers["cache-control"] == "no-store" and "etag" not in reply.headers


def edges(row: Any) -> tuple[list[str], list[str]]:
    """(texts that are taken, texts that are refused) of a row."""
    if isinstance(row, params.Integer):
        inside, outside = [str(row.low), str(row.high)], [str(row.low - 1), str(row.high + 1)]
        bad = ["abc", "1.5", "1e3", "nan", "0x10", "1_0", "１", "9" * 16]
        return ([*inside, *outside], bad) if row.clamp else (inside, [*outside, *bad])
    if isinstance(row, params.Number):
        low = repr(row.above)
        inside, outside = ([low], [repr(row.above - 0.5)]) if row.inclusive else ([], [low])
        if not math.isinf(row.high):
            inside.append(repr(row.high))
            outside.append(repr(row.high + 0.01))
        return inside, [*outside, "abc", "nan", "inf", "-inf", "0x10", "1,5", "--1"]
    if isinstance(row, params.Choice):
        return [word for word in row.words if word != "f16"], ["xml", row.words[0].upper()]
    if isinstance(row, params.OptionalChoice):
        return [*row.words, row.words[0].upper()], ["attack"]
    if isinstance(row, Listed):
        return ["0", *map(str, row.values)], ["7", "-1", "abc", "1.5"]
    if isinstance(row, Words):
        return [*row.words, ",".join(row.words), row.words[0].upper()], ["foo", f"{row.words[0]},foo", ","]
    assert isinstance(row, Refused), row
    return [], ["1", "50"]


@pytest.mark.parametrize(("endpoint", "row"), ROWS, ids=lambda one: getattr(one, "path", None) or one.name)
def test_both_edges_of_every_row(app: Any, endpoint: Endpoint, row: Any) -> None:
    taken, not_taken = edges(row)
    if row.name in STEPS:
        taken, not_taken = ["1000", "100000", "1e3"], ["0", "101000", "1500", "7", "1e-9", "nan", "inf"]
    for text in taken:
        reply = get(app, f"{endpoint.path}?{row.name}={quote(text)}")
        # One depth layer, say, may not be there; no row of the table makes an answer of a whole world anything but a 200.
        assert reply.status == 200, (row.name, text, reply.body)
        if isinstance(row, params.Integer) and row.clamp and row.name in (reply.json if reply.body[:1] == b"{" else {}):
            assert reply.json[row.name] == min(max(int(text), row.low), row.high)
    for text in [*not_taken, "", "x" * 129]:
        reply = get(app, f"{endpoint.path}?{row.name}={quote(text)}")
        refused(reply, 400, "invalid_parameter")
        if text not in ("", "x" * 129):
            assert row.name in reply.json["detail"] and (len(text) < 4 or text not in reply.json["detail"])
    refused(get(app, f"{endpoint.path}?{row.name}=1&{row.name}=1"), 400, "repeated_parameter")


@pytest.mark.parametrize("endpoint", DATA, ids=lambda one: one.path)
def test_every_bad_input_of_the_table(app: Any, endpoint: Endpoint) -> None:
    path = endpoint.path
    for symbol in ("DOGE", "BTC%00", "x" * 1000, "USDT", "..%2F..%2Fetc"):
        refused(get(app, f"{path}?symbol={symbol}"), 400, "invalid_symbol")
    refused(get(app, f"{path}?symbol="), 400, "invalid_parameter")
    refused(get(app, f"{path}?symbol=BTC&symbol=ETH"), 400, "repeated_parameter")
    refused(get(app, f"{path}?symbol=%ff"), 400, "invalid_parameter")
    refused(get(app, f"{path}?foo=1&foo=2"), 400, "repeated_parameter")
    refused(get(app, f"{path}?{'&'.join(f'a{number}=1' for number in range(33))}"), 400, "invalid_parameter")
    for method in ("POST", "PUT", "DELETE", "TRACE", "PATCH"):
        reply = get(app, path, method=method)
        refused(reply, 405, "method_not_allowed")
        assert reply.headers["allow"] == "GET, HEAD, OPTIONS"
    refused(get(app, f"{path}/extra"), 404, "not_found")
    refused(get(app, path.upper()), 404, "not_found")
    plain = get(app, path)
    for symbol in ("btc", "%20BTCUSDT%20", "btcusdt", "BTC"):
        assert get(app, f"{path}?symbol={symbol}").body == plain.body
    assert get(app, f"{path}?foo=1").body == plain.body == get(app, f"{path}/").body
    assert get(app, path, headers={"If-None-Match": 'W/"garbage", no"t', "Last-Event-ID": "\xff;:"}).status == 200


@pytest.mark.parametrize("endpoint", DATA, ids=lambda one: one.path)
def test_what_is_not_there_yet(app: Any, endpoint: Endpoint) -> None:
    without_book, empty = get(app, f"{endpoint.path}?symbol=XRP"), get(app, f"{endpoint.path}?symbol=ETH")
    if "no_orderbook" in endpoint.codes.get(400, ()) and endpoint.path.startswith("/orderbook"):
        refused(without_book, 400, "no_orderbook")
    if endpoint.path == "/orderbook_heatmap":
        refused(empty, 404, "no_frame")
    elif empty.status != 200:
        refused(empty, 503, "not_ready")
        assert 1 <= int(empty.headers["retry-after"]) <= 60
    else:
        assert (empty.headers["x-seq"], empty.headers["x-epoch"], "etag" in empty.headers) == ("-1", "-1", False)
        assert empty.json["seq"] is None or set(empty.json["seq"].values()) == {None}


@pytest.mark.parametrize("endpoint", DATA, ids=lambda one: one.path)
def test_identity_tag_and_staleness_are_everywhere(app: Any, endpoint: Endpoint) -> None:
    reply = get(app, endpoint.path)
    body, headers = reply.json, reply.headers
    assert {"seq", "epoch", "stale"} <= body.keys()
    assert int(headers["x-epoch"]) == body["epoch"] == 1
    assert int(headers["x-seq"]) in ([body["seq"]] if isinstance(body["seq"], int) else body["seq"].values())
    assert headers["x-stale"] == str(body["stale"]).lower() and int(headers["x-age-ms"]) >= 0
    assert re.fullmatch(r'W/"\d+-\d+(\.\d+-\d+)*-[0-9a-f]{8}"', headers["etag"])
    assert headers["cache-control"] == "public, max-age=1, must-revalidate"
    same = get(app, endpoint.path, headers={"If-None-Match": headers["etag"]})
    assert (same.status, same.body) == (304, b"")
    for name in ("etag", "x-seq", "x-epoch", "x-age-ms", "x-stale", "cache-control"):
        assert same.headers[name] == headers[name]


def test_ages_move_while_bodies_are_kept_and_a_new_frame_ends_both(world: World, app: Any) -> None:
    before = {endpoint.path: get(app, endpoint.path) for endpoint in DATA}
    misses = app.context.cache.misses
    world.clock.advance(7)
    for path, old in before.items():
        new = get(app, path)
        assert int(new.headers["x-age-ms"]) - int(old.headers["x-age-ms"]) == 7000, path
        assert new.headers["etag"] == old.headers["etag"]
        moved = [name for name in ("age_s", "snapshot_age_s", "last_frame_age_s") if name in new.json]
        assert all(round(new.json[name] - old.json[name], 3) == 7.0 for name in moved)
    assert app.context.cache.misses == misses, "a body was made again although nothing had changed"
    world.clock.advance(53)
    fill(world)
    for path, old in before.items():
        new = get(app, path, headers={"If-None-Match": old.headers["etag"]})
        assert new.status == 200 and new.headers["etag"] != old.headers["etag"], path
