"""Requests over real sockets by both clients: kept bodies, retries, time-outs, cut and compressed answers."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web

from mpengine.client import ApiError, AsyncClient, Client, ContractError, Options, Retries, Unreachable
from tests.client import messages as m
from tests.client.rig import QUICK, SHELLS, Server, Shell, always, answer, error

BOTH = pytest.mark.parametrize("shell", SHELLS)
TIME = b'{"now_ms":1795210800000,"uptime_s":1.0}'
PACKED = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
ETAG = {"ETag": 'W/"7-5-x"', "X-Age-Ms": "1500", "X-Stale": "false", "X-Seq": "5", "X-Epoch": "7"}


@BOTH
def test_a_poller_gets_304s_and_the_same_body(server: Server, shell: Shell) -> None:
    async def liquidations(request: web.Request) -> web.StreamResponse:
        if request.headers.get("If-None-Match") == ETAG["ETag"]:
            return web.Response(status=304, headers={**ETAG, "X-Age-Ms": "2500", "X-Stale": "true"})
        return answer(m.page([1, 2], 0), **ETAG)

    server.rest = {"/liquidations": liquidations}
    first, second, third = shell.ask(server, "liquidations", "BTC", after=0, times=3)
    assert [event.seq for event in first.body.items] == [1, 2]
    assert second.body is first.body and third.body is first.body and second.not_modified
    assert (first.stale, second.stale, second.seq, second.epoch) == (False, True, 5, 7)
    assert first.age() >= 1.5 and second.age() >= 2.5
    assert [dict(request.query) for request in server.asked] == [{"symbol": "BTC", "after": "0"}] * 3


@BOTH
def test_busy_for_a_moment(server: Server, shell: Shell) -> None:
    at: list[float] = []

    async def busy(_request: web.Request) -> web.StreamResponse:
        at.append(time.monotonic())
        if len(at) == 1:
            return error(429, "rate_limited", **{"Retry-After": "1"})
        return error(503, "overloaded") if len(at) == 2 else answer(TIME)

    server.rest = {"/time": busy}
    assert shell.ask(server, "time")[0].body.now_ms == 1_795_210_800_000
    assert len(at) == 3 and at[1] - at[0] >= 1.0


@BOTH
def test_busy_for_long(server: Server, shell: Shell) -> None:
    server.rest = {"/time": always(lambda: error(503, "not_ready", "The first value is not there yet", **{"Retry-After": "60"}))}
    with pytest.raises(ApiError) as raised:
        shell.ask(server, "time")
    assert (raised.value.status, raised.value.code, raised.value.retry_after_s) == (503, "not_ready", 60.0)
    assert len(server.asked) == 1
    server.rest = {"/time": always(lambda: error(503, "overloaded"))}
    with pytest.raises(ApiError):
        shell.ask(server, "time")
    assert len(server.asked) == 1 + QUICK.retries.tries


@BOTH
def test_errors_are_typed_and_redirects_are_not_followed(server: Server, shell: Shell) -> None:
    with pytest.raises(ApiError) as raised:
        shell.ask(server, "oi", "DOGE")
    assert (raised.value.status, raised.value.code) == (404, "not_found")
    server.rest = {"/oi": always(lambda: web.Response(status=302, headers={"Location": "/time"}))}
    with pytest.raises(ApiError) as raised:
        shell.ask(server, "oi")
    assert raised.value.status == 302 and len(server.asked) == 2


@BOTH
def test_compressed_and_binary_bodies(server: Server, shell: Shell) -> None:
    async def packed(request: web.Request) -> web.StreamResponse:
        assert "gzip" in request.headers["Accept-Encoding"]
        return web.Response(body=gzip.compress(TIME), headers=PACKED)

    server.rest = {"/time": packed, "/heatmap": always(lambda: answer(m.heatmap([1, 2, 3]), media="application/octet-stream"))}
    assert shell.ask(server, "time")[0].body.uptime_s == 1.0
    assert shell.ask(server, "heatmap_bin")[0].body.numbers["depth"].tolist() == [1, 2, 3]


@BOTH
def test_bodies_that_are_too_large(server: Server, shell: Shell) -> None:
    small = Options(timeout_s=5.0, max_body_bytes=1000)
    server.rest = {
        "/time": always(lambda: answer(TIME + b" " * 1000)),
        "/oi": always(lambda: web.Response(body=gzip.compress(b" " * 100_000), headers=PACKED)),
    }  # fmt: skip
    for name in ("time", "oi"):
        with pytest.raises(ContractError):
            shell.ask(server, name, options=small)


@BOTH
def test_an_answer_that_does_not_come(server: Server, shell: Shell) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100000"})
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    hasty = Options(timeout_s=0.2, retries=Retries(tries=2))
    server.rest = {"/time": drip, "/oi": never}
    for name in ("time", "oi"):
        with pytest.raises(Unreachable):
            shell.ask(server, name, options=hasty)
    assert len(server.asked) == 4


def answering(*answers: bytes) -> tuple[Server, threading.Thread]:
    """A server that sends each of these bytes to one connection after one request, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener:
            for data in answers:
                connection, _ = listener.accept()
                with connection, suppress(ConnectionError):
                    while b"\r\n\r\n" not in connection.recv(65_536):
                        pass
                    connection.sendall(data)

    thread = threading.Thread(target=run)
    thread.start()
    made = Server()
    made.port = listener.getsockname()[1]
    return made, thread


def http(body: bytes, length: int | None = None) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (len(body) if length is None else length)
        + body
    )


@BOTH
@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nConte",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + TIME,  # cut anywhere, for all one knows
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n5\r\n{"now',
        http(TIME, 100),
        b"\x16\x03\x01",
    ],
)
def test_connections_that_break_are_tried_again(shell: Shell, bad: bytes) -> None:
    made, thread = answering(bad, bad, http(TIME))
    assert shell.ask(made, "time")[0].body.uptime_s == 1.0
    thread.join()
    made, thread = answering(*[bad] * QUICK.retries.tries)
    with pytest.raises(Unreachable):
        shell.ask(made, "time")
    thread.join()


@BOTH
def test_a_server_that_closes_after_each_answer(shell: Shell) -> None:
    closing = http(TIME).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    made, thread = answering(closing, closing, closing)
    assert len(shell.ask(made, "time", times=3, options=Options(timeout_s=5.0, retries=Retries(tries=1)))) == 3
    thread.join()


@BOTH
def test_text_and_bad_compression(server: Server, shell: Shell) -> None:
    server.rest = {
        "/metrics": always(lambda: web.Response(text="up 1\n")),
        "/time": always(lambda: web.Response(body=b"not gzip", headers=PACKED)),
    }
    assert shell.ask(server, "metrics")[0].body == "up 1\n"
    with pytest.raises((ContractError, Unreachable)):
        shell.ask(server, "time")


@BOTH
def test_a_kept_connection_that_the_server_has_closed_costs_nothing(shell: Shell) -> None:
    made, thread = answering(http(TIME), http(TIME), http(TIME))
    assert len(shell.ask(made, "time", times=3, options=Options(timeout_s=5.0, retries=Retries(tries=2)))) == 3
    thread.join()


def test_connections_are_kept(server: Server) -> None:
    ports = []

    async def here(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        ports.append(request.transport.get_extra_info("peername")[1])
        return answer(TIME)

    server.rest = {"/time": here}
    for shell in SHELLS:
        shell.values[0].ask(server, "time", times=5)  # type: ignore[union-attr]
    assert len(set(ports)) == 2 and len(ports) == 10


def test_threads_share_a_client(server: Server) -> None:
    server.rest = {"/time": always(lambda: answer(TIME, **ETAG))}
    with Client(server.url, options=QUICK) as client:
        found: list[Any] = []
        threads = [threading.Thread(target=lambda: found.extend(client.time() for _ in range(50))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 200 and all(one.body.uptime_s == 1.0 for one in found)
    with pytest.raises(Unreachable):
        client.time()


@BOTH
def test_the_clock_of_the_server(server: Server, shell: Shell) -> None:
    ahead_ms = 3_600_000

    async def now(_request: web.Request) -> web.StreamResponse:
        return answer(b'{"now_ms":%d,"uptime_s":1.0}' % (time.time() * 1000 + ahead_ms))

    server.rest = {"/time": now}
    found = shell.ask(server, "clock_offset")[0]
    assert abs(found.offset_ms - ahead_ms) <= found.error_ms + 1
    with pytest.raises(ValueError):
        shell.ask(server, "clock_offset", 0)


def test_a_server_behind_a_prefix(server: Server) -> None:
    server.rest = {"/heat/time": always(lambda: answer(TIME))}
    url = f"{server.url}/heat/"
    with Client(url, options=QUICK) as client:
        assert client.time().body.uptime_s == 1.0

    async def run() -> float:
        async with AsyncClient(url, options=QUICK) as client:
            return (await client.time()).body.uptime_s

    assert asyncio.run(run()) == 1.0
