"""Access over the whole application: order of checks, headers on every answer, both ways to it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from api.access import FREE, PLAIN, PUSH, Access, Rule, rules_of
from api.app import Service
from api.endpoint import Cost
from api.endpoints import ENDPOINTS
from api.errors import ApiError
from api.memory import PATIENCE_NS, MemoryWatch
from api.web_files import SERVED
from mpengine.config import Settings
from mpengine.keys import change, new_key
from shm import rate_table
from tests.api.world import NOW_MS, Reply, World, ask, candle, get

MAP = "/orderbook_heatmap"
Setup = Callable[..., Service]
LIMIT_HEADERS = {"ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


@pytest.fixture
def setup(world: World) -> Setup:
    """An application over three frames with `api` settings of the test's choice."""
    world.add_history(3)
    world.add_candle(candle(NOW_MS - 60_000))

    def made(**values: Any) -> Service:
        api = msgspec.structs.replace(world.settings.api, **values)
        world.settings = msgspec.structs.replace(world.settings, api=api)
        return world.app()

    return made


def make_key(settings: Settings, *scopes: Any, expires_ms: int | None = None) -> str:
    record, text = new_key(NOW_MS, list(scopes) or ["read"], expires_ms)
    change(settings.paths.keys, lambda records: [*records, record])
    return text


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def over_wire(app: Service, target: str, headers: dict[str, str] | None = None, *, peer: str = "127.0.0.1") -> Reply | None:
    """What the parser's callback would send, None where it makes a request of it."""
    pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    segments = app.wire_answer(target.encode(), pairs, head=False, more=[], scope={"client": (peer, 1)})
    if segments is None:
        return None
    head, _, body = b"".join(segments).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    found = dict(line.split(": ", 1) for line in lines)
    assert len(found) == len(lines), "a header came twice"
    return Reply(int(status.split()[1]), found, body)


# --- rate limits ------------------------------------------------------------------------------------------------------


def test_costs_are_those_of_the_table() -> None:
    rules = rules_of(ENDPOINTS)
    costs = {path.decode(): rule.cost for path, rule in rules.items()}
    assert {costs[path] for path in ("/livez", "/readyz")} == {0}
    histories = [path for path in costs if path.endswith("history")]
    assert len(histories) == 6 and {costs[path] for path in (*histories, "/candles", "/v4/candles")} == {5}
    assert {costs[path] for path in ("/stream", "/v4/stream", "/ws", "/v4/ws")} == {10}
    assert {
        costs[path] for path in ("/oi", "/liq_heatmap", "/v2/liq_heatmap", "/liq_zones", MAP, "/liq_stats", "/health", "/time")
    } == {1}
    assert Cost.GRID == 10
    pages = {one.path.encode() for one in SERVED if one.open}
    assert {path for path, rule in rules.items() if rule.open} == {b"/livez", b"/readyz", b"/openapi.json", *pages}


@pytest.mark.parametrize(
    "target",
    ["/candles", "/candles?limit=5", "/candles/", "/candles/?limit=5", "/c%61ndles", "/%63andles/", "http://here/candles", "http://x:1/candles/?a=1",
     "/v4/candles"],
)  # fmt: skip
def test_a_path_costs_the_same_however_it_is_spelled(setup: Setup, target: str) -> None:
    assert setup(rate_limits=True)._access.rule(target.encode()).cost == 5


@pytest.mark.parametrize(
    "target", ["", "*", "/nope", "//candles", "/candles//", "/CANDLES", "http://", "\xff", "/%", "/%zz", "candles"]
)
def test_paths_that_are_not_there_cost_one(setup: Setup, target: str) -> None:
    assert setup(rate_limits=True)._access.rule(target.encode()) == PLAIN


@pytest.mark.covers("T-H4")
def test_every_counted_answer_tells_and_the_last_one_is_refused(setup: Setup, world: World) -> None:
    app = setup(rate_limits=True)
    first = get(app, MAP)
    assert first.headers["ratelimit-policy"] == '"default";q=100;w=5' and first.headers["ratelimit"] == '"default";r=99;t=0'
    tag = first.headers["etag"]
    seen = []
    for number in range(95):
        hit = over_wire(app, MAP, {"If-None-Match": tag} if number % 2 else {})
        assert hit is not None and hit.status == (304 if number % 2 else 200)
        assert hit.headers.keys() >= LIMIT_HEADERS and hit.headers["x-ratelimit-limit"] == "100"
        seen.append(int(hit.headers["x-ratelimit-remaining"]))
    assert seen == list(range(98, 3, -1))
    short = get(app, "/candles")
    assert (
        short.error == (429, "rate_limited")
        and short.headers["retry-after"] == "1"
        and short.headers["x-ratelimit-remaining"] == "4"
    )
    for target, status in (("/nope", 404), (f"{MAP}?step=7", 400), ("/time", 200)):
        reply = get(app, target)
        assert reply.status == status and reply.headers.keys() >= LIMIT_HEADERS
    assert get(app, MAP, method="POST").status == 405
    for made in (get(app, MAP), over_wire(app, MAP), over_wire(app, "/not known"), get(app, "/nope"), get(app, MAP, method="PUT")):
        assert made is not None and made.error == (429, "rate_limited")
        assert made.headers["retry-after"] == "1" and made.headers["x-ratelimit-remaining"] == "0"
        assert made.headers["cache-control"] == "no-store" and made.headers["x-content-type-options"] == "nosniff"
        assert made.headers["x-request-id"] and "etag" not in made.headers
        assert made.headers["content-length"] == str(len(made.body))
    head = get(app, MAP, method="HEAD")
    assert (head.status, head.body) == (429, b"")
    world.clock.advance(0.5)
    assert get(app, MAP).headers["x-ratelimit-remaining"] == "9"


def test_probes_cost_nothing_and_are_never_refused(setup: Setup) -> None:
    app = setup(rate_limits=True, rate_burst=10)
    for _ in range(10):
        get(app, MAP)
    assert get(app, MAP).status == 429
    for path in ("/livez", "/readyz", "/livez/"):
        reply = get(app, path)
        assert reply.status in (200, 503) and not reply.headers.keys() & LIMIT_HEADERS


def test_one_request_is_paid_once(setup: Setup) -> None:
    """The callback of the parser has admitted what it hands on."""
    app = setup(rate_limits=True)
    scope: dict[str, Any] = {"client": ("127.0.0.1", 1)}
    assert app.wire_answer(MAP.encode(), [], head=False, more=[], scope=scope) is None

    async def run() -> list[Any]:
        sent: list[Any] = []
        full = scope | {"type": "http", "method": "GET", "path": MAP, "raw_path": MAP.encode(), "query_string": b"", "headers": [],
                        "http_version": "1.1", "asgi": {"version": "3.0"}, "scheme": "http", "server": ("a", 1),
                        "root_path": ""}  # fmt: skip

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(full, receive, send)
        return sent

    headers = dict(asyncio.run(run())[0]["headers"])
    assert headers[b"x-ratelimit-remaining"] == b"99"


def test_clients_have_buckets_of_their_own(setup: Setup) -> None:
    app = setup(rate_limits=True, rate_burst=10, trusted_proxies=["10.0.0.1"])
    get(app, MAP)
    told = {"X-Forwarded-For": "6.6.6.6, 198.51.100.1"}
    for _ in range(10):
        assert getattr(over_wire(app, MAP, told, peer="10.0.0.1"), "status", None) == 200
    assert getattr(over_wire(app, MAP, told, peer="10.0.0.1"), "status", None) == 429
    assert getattr(over_wire(app, MAP, {"X-Forwarded-For": "7.7.7.7, 198.51.100.1"}, peer="10.0.0.1"), "status", None) == 429
    assert getattr(over_wire(app, MAP, {"X-Forwarded-For": "198.51.100.2"}, peer="10.0.0.1"), "status", None) == 200
    assert getattr(over_wire(app, MAP, told, peer="10.0.0.9"), "status", None) == 200, "nobody's proxy"


def test_limits_that_are_off_ask_nothing_and_add_nothing(setup: Setup) -> None:
    app = setup()
    assert app._access.free
    for _ in range(200):
        reply = get(app, MAP)
        assert reply.status == 200 and not reply.headers.keys() & LIMIT_HEADERS
    assert app._access.admit(MAP.encode(), [], "x") is FREE


def test_workers_share_the_table_of_the_pool(setup: Setup, world: World) -> None:
    rate_table.create(world.settings.paths.rates, 2)
    first, second = setup(rate_limits=True), world.app()
    for app in (first, second):
        app.turn()
    for number in range(100):
        assert get((first, second)[number % 2], MAP).status == 200
    assert [get(app, MAP).status for app in (first, second)] == [429, 429]
    names = set(world.settings.paths.rates.read_bytes().partition(b"127.0.0.1"))
    assert b"127.0.0.1" not in names, "no address is in shared memory"
    first._access.close()
    second._access.close()


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.covers("T-M6")
def test_with_keys_on_only_probes_and_the_description_are_open(setup: Setup, world: World) -> None:
    app = setup(keys=True)
    key = make_key(world.settings)
    app.turn()
    for path in ("/livez", "/readyz"):
        assert get(app, path).status in (200, 503)
    for path in (*(path for one in ENDPOINTS for path in one.paths if not one.open), "/nope", "/metrics", "/static"):
        for wrong in ({}, {"Authorization": "Bearer x.y"}, {"X-API-Key": key[:-1]}, {"Authorization": f"Basic {key}"}):
            reply = get(app, path, headers=wrong)
            assert reply.error == (401, "unauthorized") and reply.headers["www-authenticate"] == "Bearer", (path, wrong)
            assert reply.headers["cache-control"] == "no-store"
        assert get(app, path, headers=bearer(key)).status != 401, path
    assert get(app, MAP, headers={"X-API-Key": key}).status == 200
    assert get(app, MAP, headers={"Authorization": f"bearer {key}"}).status == 200


@pytest.mark.covers("T-M6")
def test_every_wrong_key_gets_the_same_answer(setup: Setup, world: World) -> None:
    app = setup(keys=True)
    make_key(world.settings)
    ended = make_key(world.settings, expires_ms=1)
    identity = ended.split(".")[0]
    app.turn()
    answers = set()
    for key in (None, "", ".", "nobody.secret", ended, f"{identity}.wrong", "\xff\xfe", "x" * 5000):
        for reply in (
            get(app, MAP, headers={} if key is None else bearer(key)),
            over_wire(app, MAP, {} if key is None else bearer(key)),
        ):
            assert reply is not None
            headers = tuple(sorted((name, value) for name, value in reply.headers.items() if name != "x-request-id"))
            answers.add((reply.status, headers, reply.body))
    assert len(answers) == 1


def test_a_hit_needs_the_key_as_well(setup: Setup, world: World) -> None:
    app = setup(keys=True)
    key = make_key(world.settings)
    app.turn()
    built = get(app, MAP, headers=bearer(key))
    hit = over_wire(app, MAP, bearer(key))
    assert hit is not None and built.status == hit.status == 200
    assert built.headers["cache-control"] == hit.headers["cache-control"] == "private, max-age=1, must-revalidate"
    same = get(app, MAP, headers={**bearer(key), "If-None-Match": built.headers["etag"]})
    assert (same.status, same.headers["cache-control"]) == (304, "private, max-age=1, must-revalidate")
    for wrong in ({}, bearer(key + "x"), {"If-None-Match": built.headers["etag"]}):
        refused = over_wire(app, MAP, wrong)
        assert refused is not None and refused.error == (401, "unauthorized") and "etag" not in refused.headers
        assert get(app, MAP, headers=wrong).status == 401


def test_scopes(setup: Setup, world: World) -> None:
    app = setup(keys=True)
    reads, pushes = make_key(world.settings, "read"), make_key(world.settings, "push")
    app.turn()
    assert get(app, MAP, headers=bearer(pushes)).error == (403, "forbidden")
    assert get(app, "/stream", headers=bearer(reads)).error == (403, "forbidden")
    assert get(app, "/nope", headers=bearer(pushes)).error == (403, "forbidden")
    assert get(app, "/stream", headers=bearer(pushes)).status not in (401, 403)


def test_a_key_sent_twice_is_no_key(setup: Setup, world: World) -> None:
    app = setup(keys=True)
    key = make_key(world.settings).encode()
    app.turn()
    admit = app._access.admit
    for name, value in ((b"authorization", b"Bearer " + key), (b"x-api-key", key)):
        assert admit(b"/oi", [(name, value)], "x").error is None
        assert admit(b"/oi", [(name, value), (name, value)], "x").error is not None


def test_revoked_keys_and_new_ones_within_a_turn(setup: Setup, world: World) -> None:
    app = setup(keys=True)
    key = make_key(world.settings)
    app.turn()
    assert get(app, MAP, headers=bearer(key)).status == 200
    another = make_key(world.settings)
    assert get(app, MAP, headers=bearer(another)).status == 401
    app.turn()
    assert get(app, MAP, headers=bearer(another)).status == 200
    change(world.settings.paths.keys, lambda records: records[1:])
    app.turn()
    assert get(app, MAP, headers=bearer(key)).status == 401


def test_a_key_has_a_bucket_wherever_it_is_used(setup: Setup, world: World) -> None:
    app = setup(keys=True, rate_limits=True, rate_burst=10)
    one, other = make_key(world.settings), make_key(world.settings)
    app.turn()
    assert get(app, MAP, headers=bearer(one)).status == 200
    for number in range(9):
        assert getattr(over_wire(app, MAP, bearer(one), peer=f"10.0.0.{number}"), "status", None) == 200
    assert getattr(over_wire(app, MAP, bearer(one), peer="10.0.1.1"), "status", None) == 429
    assert getattr(over_wire(app, MAP, bearer(other), peer="10.0.1.1"), "status", None) == 200
    assert getattr(over_wire(app, MAP, {}, peer="10.0.1.1"), "status", None) == 401, "authentication comes first"


def test_no_key_is_ever_logged(setup: Setup, world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = setup(keys=True)
    key = make_key(world.settings)
    app.turn()
    for target in (MAP, f"{MAP}?key={key}", f"/{key}", "/nope"):
        for headers in (bearer(key), bearer(key + "x"), {}):
            get(app, target, headers=headers)
            over_wire(app, target, headers)
    assert caplog.records and key.split(".")[1] not in caplog.text and key.split(".")[0] not in caplog.text


def test_order_of_checks(setup: Setup, world: World) -> None:
    """Authentication, rate, path, method, parameters: each one hides all behind it."""
    app = setup(keys=True, rate_limits=True, rate_burst=10)
    good, empty = make_key(world.settings), make_key(world.settings)
    app.turn()
    for _ in range(10):
        get(app, "/time", headers=bearer(empty))
    everything_wrong = "/nope?symbol=DOGE"
    assert get(app, everything_wrong, method="POST").status == 401
    assert get(app, everything_wrong, method="POST", headers=bearer(empty)).status == 429
    assert get(app, everything_wrong, method="POST", headers=bearer(good)).status == 404
    assert get(app, f"{MAP}?symbol=DOGE", method="POST", headers=bearer(good)).status == 405
    assert get(app, f"{MAP}?symbol=DOGE", headers=bearer(good)).status == 400
    assert get(app, f"{MAP}?symbol=ETH", headers=bearer(good)).status == 404  # no frame yet


# --- push -------------------------------------------------------------------------------------------------------------


def pairs(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]


def access_of(setup: Setup, **values: Any) -> Access:
    app = setup(**values)
    app.turn()
    return app._access


def test_a_socket_is_paid_and_counted_by_its_client(setup: Setup) -> None:
    access = access_of(setup, rate_limits=True, rate_burst=35, push_connections_per_client=2)
    entered = []
    for _ in range(2):
        admission = access.admit_socket([], "10.0.0.1")
        assert admission.error is None and {name.decode() for name, _ in admission.headers} == LIMIT_HEADERS
        client = access.enter(admission, [], "10.0.0.1")
        assert isinstance(client, int)
        entered.append(client)
    admission = access.admit_socket([], "10.0.0.1")
    too_many = access.enter(admission, [], "10.0.0.1")
    assert (
        isinstance(too_many, ApiError)
        and (too_many.status, too_many.code) == (429, "rate_limited")
        and too_many.headers["Retry-After"]
    )
    other = access.enter(access.admit_socket([], "10.0.0.2"), [], "10.0.0.2")
    assert isinstance(other, int) and other not in entered
    access.leave(entered[0])
    assert isinstance(access.enter(admission, [], "10.0.0.1"), int)
    poor = access.admit_socket([], "10.0.0.1")
    assert poor.error is not None and poor.error.status == 429


def test_connections_are_counted_without_limits_as_well(setup: Setup) -> None:
    access = access_of(setup, push_connections_per_client=1, trusted_proxies=["10.0.0.1"])
    told = pairs(x_forwarded_for="198.51.100.1")
    admission = access.admit(b"/stream", told, "10.0.0.1")
    client = access.enter(admission, told, "10.0.0.1")
    assert isinstance(client, int)
    assert isinstance(access.enter(admission, told, "10.0.0.1"), ApiError)
    assert isinstance(access.enter(admission, pairs(x_forwarded_for="198.51.100.2"), "10.0.0.1"), int)


@pytest.mark.parametrize(("origins", "origin", "status"), [
    ([], "http://desk.example", 403), ([], "http://here:8899", None), (["http://desk.example"], "http://desk.example", None),
    (["http://desk.example"], "http://here:8899", 403), ([], "null", 403), ([], None, None),
])  # fmt: skip
def test_the_origin_of_a_socket(setup: Setup, origins: list[str], origin: str | None, status: int | None) -> None:
    access = access_of(setup, cors_origins=origins, keys=True)
    headers = pairs(host="here:8899", **({} if origin is None else {"origin": origin}))
    error = access.admit_socket(headers, "10.0.0.1").error
    assert (None if error is None else error.status) == status


def test_a_socket_may_bring_its_key_later(setup: Setup, world: World) -> None:
    app = setup(keys=True, rate_limits=True)
    reads, pushes = make_key(world.settings, "read"), make_key(world.settings, "push")
    app.turn()
    access = app._access
    later = access.admit_socket([], "10.0.0.1")
    assert later.error is None and later.key is None
    now = access.admit_socket(pairs(authorization=f"Bearer {pushes}"), "10.0.0.1")
    assert now.error is None and now.key is not None and now.client != later.client
    for key, status in ((reads, 403), (pushes + "x", 401), ("", 401)):
        error = access.admit_socket(pairs(authorization=f"Bearer {key}"), "10.0.0.1").error
        assert error is not None and error.status == status
        checked = access.check_key(key)
        assert isinstance(checked, ApiError) and checked.status == status
    found = access.check_key(pushes)
    assert not isinstance(found, ApiError) and found.id == pushes.split(".")[0]
    assert isinstance(access.check_key("\ud800\udfff.x"), ApiError)
    stream = access.admit(b"/stream?channels=oi.BTC", [], "10.0.0.1")
    assert stream.error is not None and stream.error.status == 401, "a stream has nowhere else to send it"


def test_a_path_of_push_that_no_table_names_is_one_still() -> None:
    assert rules_of([])[b"/ws"] == PUSH == Rule(10, scope="push")


# --- CORS -------------------------------------------------------------------------------------------------------------

SITE = {"Origin": "https://desk.example"}


def test_pages_of_allowed_origins_may_read_everything_errors_too(setup: Setup, world: World) -> None:
    app = setup(cors_origins=["https://desk.example"], keys=True, rate_limits=True, rate_burst=20)
    key = make_key(world.settings)
    app.turn()
    told = {**SITE, **bearer(key)}
    replies = [get(app, MAP, headers=told), get(app, MAP, headers=told), over_wire(app, MAP, told), get(app, "/nope", headers=told),
               get(app, f"{MAP}?step=7", headers=told), get(app, MAP, headers=SITE), over_wire(app, MAP, SITE),
               get(app, "/livez", headers=SITE),
               get(app, MAP, method="POST", headers=told), get(app, MAP, method="HEAD", headers=told)]  # fmt: skip
    replies += [get(app, "/candles", headers=told) for _ in range(3)]
    assert [reply.status for reply in replies if reply] == [200, 200, 200, 404, 400, 401, 401, 200, 405, 200, 200, 200, 429]
    for reply in replies:
        assert reply is not None and reply.headers["access-control-allow-origin"] == "https://desk.example"
        assert "Origin" in reply.headers["vary"].split(", ") and "X-Seq" in reply.headers["access-control-expose-headers"]
    for other in ({}, {"Origin": "https://evil.example"}):
        reply = get(app, "/livez", headers=other)
        assert not any(name.startswith("access-control") for name in reply.headers) and "Origin" in reply.headers["vary"]


def test_preflights_need_no_key(setup: Setup, world: World) -> None:
    app = setup(cors_origins=["https://desk.example"], keys=True, rate_limits=True, rate_burst=10)
    asks = {**SITE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    for path in (MAP, "/candles", "/nope"):
        reply = get(app, path, method="OPTIONS", headers=asks)
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["access-control-allow-origin"] == "https://desk.example" and reply.headers["vary"] == "Origin"
        assert reply.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
        assert reply.headers["access-control-allow-headers"] == "Authorization, X-API-Key, If-None-Match, Last-Event-ID"
        assert reply.headers["access-control-max-age"] == "600"
    evil = get(app, MAP, method="OPTIONS", headers={**asks, "Origin": "https://evil.example"})
    assert evil.status == 204 and not any(name.startswith("access-control") for name in evil.headers)
    assert get(app, MAP, method="OPTIONS", headers=SITE).status == 401, "no preflight"
    for _ in range(6):
        assert get(app, MAP, method="OPTIONS", headers=asks).status == 204
    refused = get(app, MAP, method="OPTIONS", headers=asks)
    assert refused.error == (429, "rate_limited") and refused.headers["access-control-allow-origin"] == "https://desk.example"


def test_without_origins_nothing_is_said(setup: Setup) -> None:
    app = setup()
    for reply in (
        get(app, MAP, headers=SITE),
        get(app, MAP, method="OPTIONS", headers={**SITE, "Access-Control-Request-Method": "GET"}),
    ):
        assert reply.status in (200, 204) and not any(name.startswith("access-control") for name in reply.headers)


def test_refusals_of_the_connection_have_the_headers_as_well(setup: Setup) -> None:
    app = setup(cors_origins=["https://desk.example"])
    assert dict(app.refused(414, [(b"origin", b"https://desk.example")]))[b"access-control-allow-origin"] == b"https://desk.example"
    assert app.refused(414, []) == [(b"vary", b"Origin")] and setup(cors_origins=[]).refused(431, []) == []


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_worker_short_of_memory_gives_what_it_has_and_builds_nothing(setup: Setup) -> None:
    app = setup(cors_origins=["https://desk.example"])
    get(app, MAP)
    app.context.lifetime.short_of_memory = True
    assert get(app, MAP).status == 200 and get(app, "/livez").status == 200
    waits = set()
    for _ in range(40):
        reply = get(app, "/candles", headers=SITE)
        assert reply.error == (503, "overloaded") and reply.headers["access-control-allow-origin"]
        waits.add(int(reply.headers["retry-after"]))
    assert waits <= set(range(1, 6)) and len(waits) > 1
    app.context.lifetime.short_of_memory = False
    assert get(app, "/candles").status == 200


def test_memory_watch(setup: Setup) -> None:
    app = setup()
    get(app, MAP)
    lifetime, resident = app.context.lifetime, [100]
    watch = MemoryWatch(1000, lifetime, app.context.cache.clear, lambda: resident[0])
    assert not watch.turn(0) and not lifetime.short_of_memory and len(app.context.cache) == 1
    resident[0] = 1001
    assert (
        not watch.turn(1)
        and lifetime.short_of_memory
        and len(app.context.cache) == app.context.cache.spellings == app.context.cache.size == 0
    )
    resident[0] = 950
    assert not watch.turn(2) and lifetime.short_of_memory, "not to and fro at the limit"
    resident[0] = 900
    assert not watch.turn(3) and not lifetime.short_of_memory and get(app, MAP).status == 200
    resident[0] = 2000
    assert [watch.turn(10 + at) for at in (0, PATIENCE_NS - 1, PATIENCE_NS, PATIENCE_NS + 1)] == [False, False, True, False]
    assert lifetime.stopping and get(app, "/readyz").status == 503


# --- what bodies never hold -------------------------------------------------------------------------------------------


@pytest.mark.covers("X-L2")
def test_no_body_of_an_error_tells_about_the_inside(setup: Setup, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    app = setup(keys=True, rate_limits=True, rate_burst=200)
    key = make_key(world.settings, "read")
    app.turn()
    secret = "/secret/path of process 4711"

    def fail(*_: object) -> Any:
        raise RuntimeError(secret)

    replies = [
        get(app, target, method=method, headers=headers)
        for target in (
            MAP,
            "/nope",
            f"{MAP}?step=7&x={secret}",
            f"{MAP}?symbol=%ff",
            "/stream",
            "/candles?to_ms=1",
            "/liq_heatmap",
            "/oi",
        )
        for method in ("GET", "POST", "BREW")
        for headers in (bearer(key), bearer(secret), {})
    ]
    replies += [get(app, MAP, headers=bearer(key)) for _ in range(200)]
    monkeypatch.setattr(app.context.depth["BTC"], "latest", fail, raising=False)
    monkeypatch.setattr(type(app.context.cache), "obtain", fail)
    monkeypatch.setattr(type(app._access.rates), "charge", lambda *_: (0, 0))
    replies.append(get(app, "/candles?limit=7", headers=bearer(key)))
    errors = [reply for reply in replies if reply.status >= 400]
    assert {reply.status for reply in errors} >= {400, 401, 403, 404, 405, 429, 500, 503}
    for reply in errors:
        found = json.loads(reply.body)
        assert list(found) == ["error", "detail"]
        for inside in ("Error", "Traceback", "/dev/", "/work", "secret", "4711", str(world.settings.paths.data), key, "api."):
            assert inside not in reply.body.decode() and inside not in str(reply.headers), (inside, reply)


async def _many(app: Service, count: int) -> list[Reply]:
    return [await ask(app, MAP) for _ in range(count)]


def test_refusals_are_counted_and_told_to_the_access_log(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = setup(rate_limits=True, rate_burst=10)
    asyncio.run(_many(app, 12))
    assert over_wire(app, MAP) is not None
    assert [record.message for record in caplog.records if "refused" in record.message] == ["(refused) 429 rate_limited"] * 3
    requests, client_errors, _ = app.meter.statuses()
    assert (requests, client_errors) == (13, 3)
