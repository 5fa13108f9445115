"""Answers, retries, kept bodies and clocks without a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpengine.client import ApiError, ContractError, Retries, Unreachable
from mpengine.client import requests as ask
from mpengine.client.answers import Answer, Exchange, Reply, clock_offset, error_of, retry_after_s
from mpengine.client.kept import Kept
from mpengine.client.options import server_of
from mpengine.client.requests import Request

TIME = b'{"now_ms":5,"uptime_s":1.0}'
JSON = {"content-type": "application/json"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def exchange(
    request: Request[object], kept: Kept | None = None, clock: Clock | None = None, draw: float = 0.5, **more: float
) -> Exchange[object]:
    return Exchange(request, Kept(4, 1000) if kept is None else kept, Retries(**more), lambda: draw, clock or Clock())  # type: ignore[arg-type]


def reply(status: int, body: bytes = TIME, **headers: str) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {**JSON, **names}, body, 100.0)


def taken(one: Exchange[object], answer: Reply) -> Answer[object]:
    found = one.take(answer)
    assert isinstance(found, Answer)
    return found


def test_an_answer_knows_its_age_and_identity() -> None:
    clock = Clock()
    answer = taken(
        exchange(ask.time(), clock=clock), reply(200, x_age_ms="1500", x_stale="true", x_seq="7", x_epoch="2", x_request_id="r")
    )
    clock.now_s += 10
    assert answer.age() == 11.5
    assert (answer.stale, answer.seq, answer.epoch, answer.request_id, answer.status) == (True, 7, 2, "r", 200)
    nothing = taken(exchange(ask.time()), reply(200, x_age_ms="-1", x_stale="true", x_seq="-1", x_epoch="-1"))
    assert (nothing.age(), nothing.seq, nothing.epoch, nothing.stale) == (None, None, None, True)
    first = taken(exchange(ask.time()), reply(200, x_age_ms="0", x_stale="false", x_seq="0", x_epoch="1"))
    assert (first.seq, first.stale, first.age()) == (0, False, 0.0), "numbers begin at 0"
    probe = taken(exchange(ask.time()), reply(200))
    assert (probe.age(), probe.stale, probe.etag) == (None, None, None)


def test_a_304_gives_the_held_body_and_the_age_of_now() -> None:
    kept = Kept(4, 1000)
    first = taken(exchange(ask.time(), kept), reply(200, etag='W/"1"', x_age_ms="100", x_stale="false"))
    second = exchange(ask.time(), kept)
    assert second.headers()["If-None-Match"] == 'W/"1"'
    answer = taken(second, reply(304, b"", etag='W/"1"', x_age_ms="9000", x_stale="true"))
    assert answer.body is first.body and answer.not_modified and not first.not_modified
    assert (answer.age(), answer.stale) == (9.0, True)
    with pytest.raises(ContractError, match="304"):
        exchange(ask.time()).take(reply(304, b""))
    assert "If-None-Match" not in exchange(ask.oi(), kept).headers(), "of another target"


def test_errors_keep_what_the_server_said() -> None:
    with pytest.raises(ApiError) as raised:
        exchange(ask.time()).take(reply(400, b'{"error":"invalid_symbol","detail":"symbol must be one of BTC"}'))
    error = raised.value
    assert (error.status, error.code, error.detail, error.retry_after_s) == (
        400,
        "invalid_symbol",
        "symbol must be one of BTC",
        None,
    )
    assert str(error) == "400 invalid_symbol: symbol must be one of BTC"
    proxied = error_of(Reply(502, {}, b"<html>\xff" + b"x" * 1000, 0.0))
    assert (proxied.status, proxied.code) == (502, "http_error") and len(proxied.detail) <= 200
    assert error_of(Reply(429, {"retry-after": "7"}, b"", 0.0)).code == "rate_limited"
    assert "retry after 7 s" in str(error_of(Reply(429, {"retry-after": "7"}, b"", 0.0)))


def test_busy_servers_are_asked_again_others_not() -> None:
    for status in (429, 502, 503, 504):
        assert exchange(ask.time()).take(reply(status, b"")) == 0.5 * 0.25
    for status in (301, 401, 403, 404, 405, 500):
        with pytest.raises(ApiError):
            exchange(ask.time()).take(reply(status, b""))


def test_the_time_that_a_server_names_is_kept() -> None:
    one = exchange(ask.time(), draw=0.0)
    assert one.take(reply(503, b"", retry_after="3")) == 3.0
    assert 3.0 < exchange(ask.time(), draw=0.9).take(reply(503, b"", retry_after="3")) < 3.5  # type: ignore[operator]
    with pytest.raises(ApiError) as raised:
        exchange(ask.time()).take(reply(503, b'{"error":"not_ready","detail":"x"}', retry_after="60"))
    assert (raised.value.code, raised.value.retry_after_s) == ("not_ready", 60.0), "longer than a call may wait"


def test_pauses_double_and_end() -> None:
    one = exchange(ask.time(), draw=0.999, tries=6, wait_s=100.0, first_s=1.0, limit_s=4.0)
    pauses = [one.take(reply(503, b"")) for _ in range(5)]
    with pytest.raises(ApiError):
        one.take(reply(503, b""))
    assert pauses == pytest.approx([0.999 * limit for limit in (1, 2, 4, 4, 4)])
    broken = exchange(ask.time(), draw=0.5, first_s=1.0)
    assert [broken.broke(OSError("x")) for _ in range(3)] == [0.0, 1.0, 2.0]
    with pytest.raises(Unreachable, match="/time: OSError: x"):
        broken.broke(OSError("x"))


def test_health_and_readiness_speak_with_503_too() -> None:
    ready = b'{"ready":false,"degraded":true,"fresh_symbols":0,"symbols":3}'
    answer = taken(exchange(ask.readyz()), reply(503, ready))
    assert answer.status == 503 and answer.body.ready is False  # type: ignore[attr-defined]
    assert isinstance(exchange(ask.readyz()).take(reply(503, b'{"error":"overloaded","detail":"x"}')), float)
    with pytest.raises(ContractError):
        exchange(ask.readyz()).take(reply(200, b'{"error":"overloaded","detail":"x"}'))


@pytest.mark.parametrize(
    "bad",
    [
        reply(200, b"{}"),
        reply(200, b"\xff"),
        reply(200, b'{"now_ms":"5","uptime_s":1.0}'),
        Reply(200, {"content-type": "text/html"}, TIME, 0.0),
        Reply(200, {}, TIME, 0.0),
    ],
)
def test_answers_that_are_not_the_contract(bad: Reply) -> None:
    with pytest.raises(ContractError):
        exchange(ask.time()).take(bad)


def test_binary_answers_that_are_not_the_contract() -> None:
    for request in (ask.heatmap_bin(), ask.orderbook_heatmap_bin(), ask.orderbook_heatmap_history_bin()):
        with pytest.raises(ContractError):
            exchange(request).take(Reply(200, {"content-type": "application/octet-stream"}, b"MPHM", 0.0))


def test_retry_after_forms() -> None:
    date = "Sat, 21 Nov 2026 08:00:00 GMT"
    assert retry_after_s({"retry-after": " 5 "}) == 5.0
    assert retry_after_s({"retry-after": "Sat, 21 Nov 2026 08:00:30 GMT", "date": date}) == 30.0
    assert retry_after_s({"retry-after": "Sat, 21 Nov 2026 07:00:00 GMT", "date": date}) == 0.0
    for text in ("", "-1", "soon", "1.5", "²", "Sat, 21 Nov 2026 08:00:30 GMT"):
        assert retry_after_s({"retry-after": text}) is None


def test_kept_bodies_are_bounded() -> None:
    kept = Kept(entries=3, size=100)
    for number in range(5):
        kept.keep(f"/{number}", "tag", number, 10)
    assert len(kept) == 3 and kept.find("/1") is None and kept.find("/2") is not None
    kept.keep("/5", "tag", 5, 10)
    assert kept.find("/2") is not None and kept.find("/3") is None, "what was asked for last stays"
    kept.keep("/6", "tag", 6, 95)
    assert len(kept) == 1 and (held := kept.find("/6")) is not None and held.body == 6
    kept.keep("/6", "new", 7, 20)
    kept.keep("/7", "tag", 7, 80)
    assert len(kept) == 2, "the size of the one that was replaced counts no more"
    kept.keep("/8", "tag", 8, 101)
    assert len(kept) == 0


@given(st.floats(-1e7, 1e7), st.lists(st.tuples(st.floats(0, 500), st.floats(0, 1)), min_size=1, max_size=6))
def test_the_clock_offset_is_within_its_error(offset_ms: float, trips: list[tuple[float, float]]) -> None:
    samples = []
    for number, (trip_ms, share) in enumerate(trips):
        before = 1e12 + 1000.0 * number
        samples.append((before, int(before + trip_ms * share + offset_ms), before + trip_ms))
    found = clock_offset(samples)
    assert abs(found.offset_ms - offset_ms) <= found.error_ms + 0.01
    assert found.error_ms == pytest.approx(min(trip for trip, _ in trips) / 2 + 0.5, abs=0.01)


def test_addresses() -> None:
    server = server_of("https://example.org/heat/", "a.b")
    assert (server.origin, server.prefix, server.port) == ("https://example.org:443", "/heat", 443)
    assert server.headers()["X-API-Key"] == "a.b" and "a.b" not in repr(server)
    assert server_of("http://[::1]:8899", None).origin == "http://[::1]:8899"
    assert "X-API-Key" not in server_of("http://localhost:1", None).headers()
    for url in ("localhost:8899", "ftp://x", "http://", "http://x/?a=1", "http://x/#a", "http://me:secret@x"):
        with pytest.raises(ValueError) as raised:
            server_of(url, None)
        assert "secret" not in str(raised.value)
    for key in ("", "a\nb", "é"):
        with pytest.raises(ValueError):
            server_of("http://x", key)
    for name in ("http://x:99999", "http://x:port"):
        with pytest.raises(ValueError):
            server_of(name, None)
