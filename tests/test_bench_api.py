"""What `bench api` measures does happen: its table covers the contract, its cases are in the state that they are named after, its
baselines send the same bytes, and what is not an answer fails the bench. No timing is judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from api.app import Service, create_app
from api.endpoints import ENDPOINTS
from bench import api, api_data, api_servers, fastapi_peer
from bench.api import Case, Place
from bench.api_servers import COLD, OFF, Server, make_settings
from bench.http_load import Ask, Generator, LoadError, Measured, OwnClient, Wrk, generator, probe
from mpengine.config import Settings
from shm.frame_ring import FrameReader
from shm.frames import decode
from tests.api.world import get

WRK = shutil.which("wrk")
needs_wrk = pytest.mark.skipif(WRK is None, reason="wrk is not on the PATH")
needs_nginx = pytest.mark.skipif(api_servers.nginx_path() is None, reason="nginx is not on the PATH")
CASES = api.cases()
MINUTES = 12


def path_of(case: Case) -> str:
    return case.ask.targets[0].partition("?")[0]


def built(case: Case) -> bool:
    return "built each time" in case.name


# the table of cases ----------------------------------------------------------------------------------------------------


def test_every_data_endpoint_is_measured_cached_and_built_each_time() -> None:
    wanted = {endpoint.path for endpoint in ENDPOINTS if endpoint.data}
    assert {path_of(case) for case in CASES if built(case)} == wanted
    assert {path_of(case) for case in CASES if case.name.endswith(", cached")} >= wanted


def test_both_binary_forms_304_and_the_probes_are_measured() -> None:
    targets = {case.ask.targets[0] for case in CASES}
    assert {"/livez", "/readyz", "/time", "/health", "/heatmap?format=bin", "/orderbook_heatmap_history?format=bin"} <= targets
    assert any(case.status == 304 for case in CASES)


def test_cases_of_one_name_differ_in_connections_and_goals_name_cases() -> None:
    keys = [(case.name, case.connections) for case in CASES]
    assert len(set(keys)) == len(keys)
    against = {(case.name, case.connections): case.against for case in CASES}
    for goal in api.GOALS:
        assert goal.server is None or goal.server in against[goal.case, goal.connections]


@pytest.mark.parametrize("case", [case for case in CASES if len(case.ask.targets) > 1], ids=lambda case: case.name)
def test_targets_of_a_case_are_all_different(case: Case) -> None:
    assert len(set(case.ask.targets)) == len(case.ask.targets)


# data and states of the cases ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Settings]]:
    """Settings of a server and of one that keeps nothing, over the same published data."""
    root = tmp_path_factory.mktemp("bench")
    (root / "data").mkdir()
    plain, cold = (make_settings(root, name, 0, text) for name, text in (("api", OFF), ("cold", COLD)))
    with api_data.published(plain, MINUTES):
        cold.paths.feeds.hardlink_to(plain.paths.feeds)
        yield plain, cold


@pytest.fixture(scope="module")
def services(data: tuple[Settings, Settings]) -> Iterator[dict[str, Service]]:
    made = {name: create_app(settings) for name, settings in zip(("api", "cold"), data)}
    yield made
    for service in made.values():
        service.context.builder.close()
        service.context.sources.close()


def test_the_published_minutes_end_now_and_hold_something(data: tuple[Settings, Settings]) -> None:
    paths = data[0].paths
    with FrameReader.open(paths.liquidation("BTC")) as maps, FrameReader.open(paths.depth("BTC")) as depth:
        assert (maps.head(), depth.head()) == (MINUTES, 2 * MINUTES)
        newest, book = (ring.latest() for ring in (maps, depth))
        assert newest is not None and book is not None
    assert 0 <= time.time_ns() - newest.ts_ns < 300 * 10**9
    tape, projected = decode(newest.payload).planes[:2].sum(), decode(newest.payload).planes[2:].sum()
    assert tape > 0 and projected > 0, "both sources of the map speak"
    planes = decode(book.payload).planes
    assert planes.any(axis=1).all() and not (planes[0] * planes[1]).any(), "bids and asks do not overlap"


def test_there_is_something_of_everything_and_the_book_is_synchronised(services: dict[str, Service]) -> None:
    health = get(services["api"], "/health").json
    one = health["symbols"]["BTC"]
    assert (one["v1_available"], one["book"], one["calibrator"]["enabled"]) == (True, "synced", True)
    assert set(one["open_interest"]) == {"binance", "bybit", "okx"} == set(health["exchanges"])
    assert get(services["api"], "/readyz").status == 200
    for side in ("long_levels", "short_levels"):
        assert get(services["api"], "/liq_heatmap_v2").json[side], side
    assert get(services["api"], "/liq_zones").json["zones_count"] > 0
    assert get(services["api"], "/liquidations").json["count"] > MINUTES


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.connections}")
def test_a_case_is_in_the_state_that_its_name_says(case: Case, services: dict[str, Service]) -> None:
    service, headers = services[case.server], dict(case.ask.headers)
    targets = [case.ask.targets[at] for at in sorted({at % len(case.ask.targets) for at in (0, 1, 2, 499, -1)})]
    if len(targets) == 1:
        targets *= 2
    get(service, targets[0].partition("&x=")[0], headers=headers)  # what a worker makes once
    first, cache = get(service, case.ask.targets[0], headers=headers), service.context.cache
    if built(case):
        cache.clear()
    misses = cache.misses
    sizes = set()
    for target in targets:
        reply = get(service, target, headers=headers)
        assert reply.status == case.status, reply.body
        sizes.add(len(reply.body))
    assert cache.misses - misses == (len(targets) if built(case) else 0)
    assert (0 in sizes) == (case.status == 304) and len(first.body) in sizes
    if "json" in first.headers["content-type"] and case.status == 200 and "history v" not in case.name:
        assert max(sizes) - min(sizes) < 64, "another key asks for the same content; only ages and the like differ"


# load generators -------------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    """`/missing` is a 404, `/close` closes the connection; everything else answers its own path."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("X-Key")))
        if self.path == "/close":
            self.close_connection = True
            return
        body = self.path.encode()
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def echo() -> Iterator[tuple[int, list[tuple[str, str | None]]]]:
    """(port, what is asked there)."""
    asked: list[tuple[str, str | None]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1], asked
    server.shutdown()
    server.server_close()
    thread.join()


LOADS = [OwnClient(), pytest.param(Wrk(WRK or ""), marks=needs_wrk)]


@pytest.mark.parametrize("load", LOADS, ids=["own", "wrk"])
def test_a_round_asks_one_target_after_the_other_from_where_the_last_one_ended(load: Generator, echo: Any) -> None:
    port, asked = echo
    ask = Ask(("/a", "/b", "/c"), (("X-Key", "secret"),), first=1)
    found = load.round(port, ask, 1, 0.1)
    paths = [path for path, _ in asked]
    assert {key for _, key in asked} == {"secret"}
    after_probe = paths.index("/b")
    assert paths[after_probe : after_probe + 4] == ["/b", "/c", "/a", "/b"]
    assert 0 < found.requests <= len(asked) and found.per_second > 0 and 0 < found.p50_ms <= found.p99_ms
    assert ask.after(4).target == "/c" and ask.after(2).target == "/a"


@pytest.mark.parametrize("load", LOADS, ids=["own", "wrk"])
@pytest.mark.parametrize("target", ["/missing", "/close"])
def test_a_round_of_something_else_than_answers_fails(load: Generator, target: str, echo: Any) -> None:
    with pytest.raises(LoadError, match=target):
        load.round(echo[0], Ask((target,)), 1, 0.1)


def test_wrk_is_used_where_it_is_and_our_own_client_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert generator().name == "own client" and api_servers.nginx_path() is None
    for name in ("wrk", "nginx"):
        (tmp_path / name).touch(0o755)
    assert generator().name == "wrk" and api_servers.nginx_path() == str(tmp_path / "nginx")


def test_wrk_that_says_nothing_fails() -> None:
    with pytest.raises(LoadError, match="wrk: "):
        Wrk("/bin/false").round(1, Ask(("/",)), 1, 1.0)


# servers ---------------------------------------------------------------------------------------------------------------


def test_cpu_is_that_of_a_process_and_its_children() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"\n"
        assert Server(0, process.pid).cpu_s() >= 0.2 - 2 / os.sysconf("SC_CLK_TCK")
    finally:
        process.communicate(b"\n")


def test_a_server_that_ends_at_once_is_told_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="does not answer"), api_servers.running(["false"], api_servers.free_port(), {}):
        pytest.fail("it never listened")
    assert time.monotonic() - began < api_servers.UP_WITHIN_S


def test_a_peer_without_fastapi_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPENGINE_PEER_PYTHON", "/bin/false")
    assert fastapi_peer.interpreter() is None


def test_the_peer_makes_the_same_value_anew() -> None:
    value = {"a": [1.5, 2.0], "b": [1, 2], "c": [{"d": None, "e": [True, False]}], "f": [], "g": "text", "h": [1, 2.5]}
    make = fastapi_peer.maker(value)
    one, other = make(), make()
    assert one == other == value and json.dumps(one) == json.dumps(value), "ints stay ints"
    assert one["a"] is not other["a"] and one["c"][0] is not other["c"][0] and one["c"][0]["e"] is not other["c"][0]["e"]


# the whole bench -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Everything that this machine has, over a few minutes of data."""
    with api.place(minutes=MINUTES, peer=fastapi_peer.interpreter(), static=api_servers.nginx_path()) as found:
        yield found
    assert not list(Path("/dev/shm").glob(f"{found.files.parent.name}*")), "nothing is left of it"


def case_of(name: str, connections: int = 4) -> Case:
    return replace(next(case for case in CASES if case.name == name), connections=connections)


@pytest.mark.slow
def test_a_case_is_compared_with_every_server_that_is_there(place: Place) -> None:
    case = case_of(api.MAP_CACHED)
    row, each = place.measure(case, OwnClient(), 0.05, 2)
    there = [name for name in api.ALL if name in place.servers]
    assert {"bare", "limits", "keys"} <= set(there)
    assert [one["server"] for one in each] == ["api", *there]
    assert (row["case"], row["conns"], row["status"]) == (case.name, 4, 200)
    assert row["bytes"] == len(probe(place.servers["api"].port, case.ask).body) > 10_000
    for column, name in (*api.RATIOS, *api.ACCESS):
        assert (row[column] is not None) == (name in there), column
    for one in each:
        assert one["requests/s"] > 0 and one["p50 ms"] <= one["p99 ms"] and one["CPU us"] >= 0.0
    assert each[0]["ours to it"] == 1.0


@pytest.mark.slow
def test_every_server_sends_a_body_of_the_same_size(place: Place) -> None:
    for name in (api.MAP_CACHED, api.MAP_BUILT):
        case = case_of(name)
        reply = probe(place.servers["api"].port, case.ask)
        others = place.others(case, reply)
        assert set(others) == set(case.against) & set(place.servers)
        for server, runner in others.items():
            found = probe(runner.server.port, runner.asks)
            assert (found.status, len(found.body)) == (200, len(reply.body)) or server in ("dict", "typed", "limits", "keys")
            if server in ("fastapi", "nginx"):
                assert found.body == reply.body
            if server in ("dict", "typed"):
                assert json.loads(found.body) == json.loads(reply.body) and found.body is not reply.body
            if server in ("limits", "keys"):
                assert abs(len(found.body) - len(reply.body)) < 16, "the age has another number of digits"
        if "limits" in others:
            assert "ratelimit" in probe(others["limits"].server.port, others["limits"].asks).headers
            assert probe(others["keys"].server.port, Ask(case.ask.targets)).status == 401, "it asks for a key"


@pytest.mark.slow
@needs_nginx
def test_nginx_is_one_process_that_keeps_its_connections(place: Place) -> None:
    (place.files / "some.json").write_bytes(b"{}")
    found = OwnClient().round(place.servers["nginx"].port, Ask(("/some.json",)), 2, 0.05)
    assert found.requests > 2, "a closed connection would have failed the round"
    assert list(api_servers._tree(place.servers["nginx"].pid)) == [place.servers["nginx"].pid]


@pytest.mark.slow
def test_a_case_of_304_and_one_built_each_time(place: Place) -> None:
    row, each = place.measure(case_of("liq map v2, 304"), OwnClient(), 0.05, 1)
    assert (row["status"], row["bytes"], [one["server"] for one in each]) == (304, 0, ["api"])
    row, each = place.measure(case_of("oi, built each time"), OwnClient(), 0.05, 1)
    assert (row["status"], [one["server"] for one in each]) == (200, ["cold"])


@pytest.mark.slow
@needs_wrk
def test_wrk_measures_the_api_too(place: Place) -> None:
    row, _ = place.measure(replace(case_of(api.MAP_BUILT), against=()), Wrk(WRK or ""), 0.05, 1)
    assert (row["status"], row["of its dict"]) == (200, None) and row["bytes"] > 10_000


@pytest.mark.slow
def test_without_nginx_and_fastapi_the_rest_is_measured(place: Place) -> None:
    here = replace(place, servers={name: one for name, one in place.servers.items() if name in ("api", "bare")})
    row, each = here.measure(case_of(api.MAP_CACHED), OwnClient(), 0.05, 1)
    assert [one["server"] for one in each] == ["api", "bare"]
    assert [row[column] is None for column, _ in (*api.RATIOS, *api.ACCESS)] == [False, True, True, True, True, True, True]
    assert [one["value"] for one in api.goals(each)] == [None] * len(api.GOALS)


@pytest.mark.slow
def test_a_case_that_is_answered_otherwise_ends_the_bench(place: Place) -> None:
    with pytest.raises(RuntimeError, match="/nothing: 404, not 200"):
        place.measure(Case("nothing", Ask(("/nothing",))), OwnClient(), 0.05, 1)


# goals -----------------------------------------------------------------------------------------------------------------


def test_goals_stand_beside_the_values_of_their_cases() -> None:
    own: dict[str, Any] = {"case": api.DEPTH_HISTORY_BUILT, "conns": 1, "server": "api", "p50 ms": 7.5, "CPU us": 6500.0}
    nginx: dict[str, Any] = {"case": api.MAP_CACHED, "conns": 512, "server": "nginx", "ours to it": 0.4, "its CPU to ours": 0.5}
    found = {row["goal"]: row for row in api.goals([own, nginx])}
    time_row, ratio = (
        found["12 h of the order book, binary, uncached: ms"],
        found["cached /liq_heatmap_v2 to a file of nginx, 512 connections"],
    )
    assert (time_row["value"], time_row["by CPU"], time_row["wanted"]) == (7.5, 6.5, "< 15")
    assert (ratio["value"], ratio["by CPU"], ratio["wanted"]) == (0.4, 0.5, ">= 0.38")
    assert sum(row["value"] is not None for row in found.values()) == 2


def test_a_runner_goes_on_and_tells_its_best_round() -> None:
    class Load:
        name, shortest_s = "fake", 0.0
        firsts: list[int] = []  # noqa: RUF012
        rates = iter((10.0, 30.0, 20.0))

        def round(self, port: int, ask: Ask, connections: int, seconds: float) -> Measured:
            self.firsts.append(ask.first)
            return Measured(4, next(self.rates), 1.0, 2.0)

    load = Load()
    runner = api.Runner(Server(0, os.getpid()), Ask(("/a", "/b", "/c")))
    for _ in range(3):
        runner.run(load, 1, 1.0)
    assert (load.firsts, runner.best.per_second) == ([0, 1, 2], 30.0)
