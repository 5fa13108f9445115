"""The application as a whole: routes and aliases, methods, headers, errors, the short way past Falcon."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from falcon import testing

from api.app import Service, get_app
from api.bodies import Identity, NotFinite
from api.endpoints import routes
from api.resources import depth as depth_resource
from api.settings import SETTINGS_VARIABLE
from api.web_files import SERVED
from mpengine.config import ConfigError, encode
from shm.board_words import Word
from tests.api.world import NOW_MS, Reply, World, ask, candle, get, map_frame, zone_row

ALIASES = {
    "/health": "/v1/health",
    "/orderbook_heatmap": "/v2/orderbook_heatmap_30s",
    "/orderbook_heatmap_history": "/v2/orderbook_heatmap_30s_history",
    "/orderbook_heatmap_stats": "/v2/orderbook_heatmap_30s_stats",
    "/orderbook_heatmap_debug": "/v2/orderbook_heatmap_30s_debug",
    "/candles": "/v4/candles",
    "/oi": "/v1/oi",
    "/liquidations": "/v4/liquidations",
    "/liq_heatmap": "/v1/liq_heatmap",
    "/liq_heatmap_history": "/v1/liq_heatmap_history",
    "/liq_heatmap_v2": "/v2/liq_heatmap",
    "/liq_heatmap_v2_history": "/v2/liq_heatmap_history",
    "/liq_stats": "/v2/liq_stats",
    "/liq_zones": "/v3/liq_zones",
    "/liq_zones_summary": "/v3/liq_zones_summary",
    "/liq_zones_heatmap": "/v3/liq_heatmap",
    "/heatmap": "/v4/heatmap",
}
DATA = [path for path in ALIASES if path != "/health"]
PLAIN = ["/health", "/livez", "/readyz", "/time"]
PUSHED = {"/stream": "/v4/stream", "/ws": "/v4/ws"}
DESCRIBED = ["/openapi.json", *(one.path for one in SERVED)]


@pytest.fixture
def app(world: World) -> Service:
    world.add_history(3)
    world.add_book()
    world.add_status()
    world.add_feeds()
    world.add_candle(candle(NOW_MS - 60_000))
    world.add_oi(binance=5.0)
    world.add_liquidation()
    world.add_map(map_frame(NOW_MS))
    world.add_zones([zone_row()])
    return world.app()


def steady(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    """All of an answer that must not differ between two requests at the same time."""
    return reply.status, {name: value for name, value in reply.headers.items() if name != "x-request-id"}, reply.body


@pytest.mark.covers("A1-L24")
@pytest.mark.parametrize(("path", "alias"), ALIASES.items())
def test_an_alias_answers_the_same_bytes(app: Service, path: str, alias: str) -> None:
    assert steady(get(app, path)) == steady(get(app, alias)) == steady(get(app, f"{alias}/"))


def test_the_table_of_aliases_is_the_whole_table(app: Service) -> None:
    table = {paths[0]: paths[1] for paths, _ in routes(app.context, app._health) if len(paths) > 1}
    assert table == {**ALIASES, **PUSHED}
    assert {paths[0] for paths, _ in routes(app.context, app._health) if len(paths) == 1} == {*PLAIN, *DESCRIBED, "/metrics"} - {
        "/health"
    }


@pytest.mark.parametrize("path", [*DATA, *PLAIN])
def test_every_answer_has_the_common_headers(app: Service, path: str) -> None:
    first, second = get(app, path), get(app, path)
    for reply in (first, second):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["content-length"] == str(len(reply.body))
        assert reply.headers["cache-control"] == ("public, max-age=1, must-revalidate" if path in DATA else "no-store")
        json.loads(reply.body)
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    if path in DATA:
        assert {"etag", "x-seq", "x-epoch", "x-age-ms", "x-stale"} <= first.headers.keys()
        assert steady(first) == steady(second)  # the first one was built by Falcon, the second one came past it
    else:
        assert not {"etag", "x-seq"} & first.headers.keys()


@pytest.mark.parametrize(
    "path", [*DATA, *PLAIN, "/nope", "/orderbook_heatmap?symbol=DOGE", "/orderbook_heatmap_history?format=bin"]
)
def test_head_is_get_without_the_body(app: Service, path: str) -> None:
    for _ in range(2):  # by Falcon, then from the cache
        head, body = get(app, path, method="HEAD"), get(app, path)
        assert head.body == b"" and steady(head)[:2] == steady(body)[:2]


@pytest.mark.parametrize("path", DATA)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_304_has_all_headers_of_the_200(app: Service, path: str, method: str) -> None:
    full = get(app, path)
    for tag in (full.headers["etag"], f'"x", {full.headers["etag"]}', "*"):
        short = get(app, path, method=method, headers={"If-None-Match": tag})
        assert (short.status, short.body) == (304, b"")
        _, headers, _ = steady(full)
        headers.pop("content-length")
        assert steady(short)[1] == headers
    for garbage in ("", "garbage", '"', "W/", '"1-2-3"', "\xff\xfe", "," * 50):
        assert get(app, path, headers={"If-None-Match": garbage}).status == 200


def test_304_by_falcon_and_past_it_are_the_same(world: World, app: Service) -> None:
    tag = get(app, "/orderbook_heatmap").headers["etag"]
    by_falcon = get(world.app(), "/orderbook_heatmap", headers={"If-None-Match": tag})
    assert by_falcon.status == 304
    assert steady(by_falcon) == steady(get(app, "/orderbook_heatmap", headers={"If-None-Match": tag}))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "FOO", "get"])
@pytest.mark.parametrize("path", ["/health", "/orderbook_heatmap", "/v4/candles"])
def test_other_methods(app: Service, method: str, path: str) -> None:
    for _ in range(2):
        reply = get(app, path, method=method)
        assert reply.error == (405, "method_not_allowed")
        assert reply.headers["allow"] == "GET, HEAD, OPTIONS" and reply.headers["cache-control"] == "no-store"
        get(app, path)


def test_options(app: Service) -> None:
    reply = get(app, "/orderbook_heatmap", method="OPTIONS")
    assert (reply.status, reply.body, reply.headers["allow"]) == (204, b"", "GET, HEAD, OPTIONS")
    assert not any(name.startswith("access-control") for name in reply.headers)


@pytest.mark.parametrize(
    "path",
    ["/nope", "/../etc/passwd", "/orderbook_heatmap/extra", "/Health", "/HEALTH", "/score", "/health%00",
     "/orderbook_heatmap;x=1", "/orderbook_heatmap%2F..", "/%ff", "/v1/orderbook_heatmap", "/docs/nope", "/redoc", "/static",
     "/static/src/app.js"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_unknown_paths(app: Service, path: str, method: str) -> None:
    reply = get(app, path, method=method)
    assert reply.status == 404 and reply.headers["cache-control"] == "no-store"
    if method != "HEAD":
        assert reply.error == (404, "not_found")


def test_path_comes_before_method_and_method_before_parameters(app: Service) -> None:
    assert get(app, "/nope?a=1&a=2", method="POST").status == 404
    assert get(app, "/orderbook_heatmap?symbol=DOGE", method="POST").status == 405


@pytest.mark.covers("A2-M10", "X-L2")
def test_a_fault_of_ours_is_opaque_and_the_log_has_its_id(
    world: World, app: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = f"{world.settings.paths.data}: cannot read frame"

    def broken(*_: Any) -> Any:
        raise OSError(5, secret)

    monkeypatch.setattr(depth_resource.views, "picture", broken)
    with caplog.at_level(logging.ERROR, "api.errors"):
        for path in ("/orderbook_heatmap", "/orderbook_heatmap_history"):
            reply = get(app, path)
            assert reply.error == (500, "internal")
            error_id = reply.json["detail"].removeprefix("Internal error, id ")
            assert len(error_id) == 8 and set(error_id) <= set("0123456789abcdef")
            assert str(world.settings.paths.data).encode() not in reply.body and b"OSError" not in reply.body
            assert b"Traceback" not in reply.body and "etag" not in reply.headers
            record = caplog.records[-1]
            assert error_id in record.getMessage() and record.exc_info is not None and secret in str(record.exc_info[1])
    assert len(app.context.cache) == 0
    monkeypatch.undo()
    assert get(app, "/orderbook_heatmap").status == 200


@pytest.mark.covers("S-L3")
def test_a_number_that_is_none_is_a_500_and_never_null(world: World, app: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depth_resource, "usd", lambda _value: float("nan"))
    for path in ("/orderbook_heatmap", "/orderbook_heatmap_history"):
        assert get(app, path).error == (500, "internal")
    monkeypatch.undo()
    monkeypatch.setattr("api.health.Health.uptime_s", lambda _self: float("inf"))
    assert get(app, "/time").error == (500, "internal")
    assert NotFinite.__mro__[1] is ValueError


@pytest.mark.covers("T-L9")
def test_errors_are_logged_without_what_the_caller_wrote(app: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "api.access"):
        get(app, "/secret/path?token=abc")
        reply = get(app, "/orderbook_heatmap?symbol=SECRET")
        get(app, "/livez")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "api.access"]
    assert [level for level, _ in lines] == ["INFO", "INFO", "DEBUG"]
    assert lines[0][1].startswith("GET (no route) 404 ")
    assert lines[1][1] == f"GET /orderbook_heatmap 400 {reply.headers['x-request-id']}"
    assert not any("secret" in text.lower() for _, text in lines)


def test_answers_are_counted_for_the_board(world: World, app: Service) -> None:
    seen: list[tuple[dict[Word, int], dict[Word, int]]] = []
    app.on_turn = lambda totals, levels: seen.append((dict(totals), dict(levels)))
    for path in ("/orderbook_heatmap", "/orderbook_heatmap", "/orderbook_heatmap", "/nope", "/orderbook_heatmap?step=7", "/livez"):
        get(app, path)
    app.refused(414, [])
    app.refused(503, [])
    app.turn()
    totals, levels = seen[-1]
    assert (totals[Word.HTTP_REQUESTS], totals[Word.HTTP_4XX], totals[Word.HTTP_5XX]) == (8, 3, 1)
    assert (totals[Word.CACHE_HITS], totals[Word.CACHE_MISSES]) == (2, 1)
    assert levels[Word.CACHE_ENTRIES] == 1 and levels[Word.CACHE_BYTES] == app.context.cache.size > 10_000


def test_the_long_way_and_the_short_way_give_the_same_bytes(world: World, app: Service) -> None:
    world.add_history(40)
    for path in ("/orderbook_heatmap", "/orderbook_heatmap?format=bin", "/orderbook_heatmap_history", "/candles?interval=1m"):
        built = get(app, path)
        known = get(app, path)
        wire = app.wire_answer(path.encode(), [], head=False, more=[(b"date", b"now")], scope={})
        assert wire is not None and steady(built) == steady(known)
        head, _, body = b"".join(wire).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and body == built.body
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert lines.pop("date") == "now" and lines.pop("x-request-id")
        assert lines == steady(built)[1]
        assert b"".join(app.wire_answer(path.encode(), [], head=True, more=[], scope={}) or []).endswith(b"\r\n\r\n")
        tag = [(b"if-none-match", built.headers["etag"].encode())]
        assert b"".join(app.wire_answer(path.encode(), tag, head=False, more=[], scope={}) or []).startswith(
            b"HTTP/1.1 304 Not Modified"
        )
    assert app.wire_answer(b"/orderbook_heatmap?unknown=1", [], head=False, more=[], scope={}) is None


def test_under_falcons_own_client(app: Service) -> None:
    client = testing.TestClient(app)
    first = client.simulate_get("/orderbook_heatmap", query_string="symbol=btc&range_pct=0.01")
    assert (first.status_code, first.json["symbol"]) == (200, "BTC")
    again = client.simulate_get(
        "/v2/orderbook_heatmap_30s", headers={"If-None-Match": first.headers["etag"]}, query_string="range_pct=0.01"
    )
    assert (again.status_code, again.content) == (304, b"")
    assert client.simulate_head("/orderbook_heatmap").content == b""
    assert client.simulate_post("/candles", body=b"{}").json["error"] == "method_not_allowed"
    assert client.simulate_get("/orderbook_heatmap", query_string=b"symbol=%ff".decode()).json["error"] == "invalid_parameter"


# --- life -----------------------------------------------------------------------------------------------------------------


class Lifespan:
    """Drives start-up and shutdown as a server does."""

    def __init__(self, app: Service) -> None:
        self._app = app
        self._orders: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.sent: list[str] = []
        self.reached = asyncio.Event()

    async def _send(self, message: Any) -> None:
        self.sent.append(message["type"])
        self.reached.set()

    async def order(self, name: str) -> None:
        self.reached.clear()
        await self._orders.put({"type": f"lifespan.{name}"})
        await asyncio.wait_for(self.reached.wait(), 10)

    def start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._app({"type": "lifespan"}, self._orders.get, self._send))


def test_life_of_a_worker(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.app.TURN_S", 0.001)
    app = world.app()
    turns, stops = [], []
    app.on_turn = lambda totals, _levels: turns.append(totals)
    app.on_stop = lambda: stops.append(True)

    async def main() -> list[str]:
        life = Lifespan(app)
        task = life.start()
        await life.order("startup")
        assert len(turns) == 1  # the board hears of the worker before its first request
        async with asyncio.timeout(10):
            while len(turns) < 5:
                await asyncio.sleep(0)
        assert (await ask(app, "/orderbook_heatmap")).status == 404
        await life.order("shutdown")
        await task
        return life.sent

    assert asyncio.run(main()) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert stops == [True]


@pytest.mark.covers("E-M13")
def test_a_turn_that_fails_ends_neither_the_start_nor_the_turns(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("api.app.TURN_S", 0.001)
    app = world.app()
    turns: list[int] = []

    def fail(_totals: Any, _levels: Any) -> None:
        turns.append(1)
        raise OSError("no board")

    app.on_turn = fail

    async def main() -> None:
        life = Lifespan(app)
        task = life.start()
        await life.order("startup")
        async with asyncio.timeout(10):
            while len(turns) < 3:
                await asyncio.sleep(0)
        await life.order("shutdown")
        await task

    asyncio.run(main())
    assert "a turn failed" in caplog.text


def test_files_that_come_later_are_found_by_the_turns(world: World) -> None:
    app = world.app()
    assert get(app, "/orderbook_heatmap").status == 404
    world.add_history(1)
    world.clock.advance(1)
    app.turn()
    assert get(app, "/orderbook_heatmap").status == 200


@pytest.fixture
def environment(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    world.settings.paths.settings.write_bytes(encode(world.settings))
    monkeypatch.setenv(SETTINGS_VARIABLE, str(world.settings.paths.settings))
    return world


def test_get_app_reads_the_settings_of_the_environment(environment: World) -> None:
    assert get_app().settings == environment.settings


@pytest.mark.parametrize("how", ["unset", "missing", "rubbish"])
def test_get_app_says_what_is_wrong(environment: World, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "unset":
        monkeypatch.delenv(SETTINGS_VARIABLE)
    elif how == "missing":
        environment.settings.paths.settings.unlink()
    else:
        environment.settings.paths.settings.write_bytes(b"{")
    with pytest.raises(ConfigError):
        get_app()


def test_an_answer_about_nothing_has_no_identity() -> None:
    assert (Identity(None).seq, Identity(None).epoch, Identity((7, 5)).seq, Identity((7, 5)).epoch) == (None, None, 5, 7)
