"""Rules of origins."""

from __future__ import annotations

import pytest

from api.cors import Cors

SITE = b"https://desk.example"


def test_without_origins_there_is_no_header() -> None:
    cors = Cors([])
    assert not cors.on and cors.headers(SITE) == cors.headers(None) == [] and not cors.allows(SITE)


def test_an_allowed_origin_and_others() -> None:
    cors = Cors(["https://desk.example", "http://localhost:3000"])
    allowed = dict(cors.headers(SITE))
    assert allowed[b"access-control-allow-origin"] == SITE and allowed[b"vary"] == b"Origin"
    exposed = allowed[b"access-control-expose-headers"].decode().split(", ")
    assert {"ETag", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Seq", "X-Epoch", "X-Age-Ms", "X-Stale"} <= set(exposed)
    assert not any("*" in name for name in exposed)
    assert dict(cors.headers(b"HTTPS://Desk.Example"))[b"access-control-allow-origin"] == b"HTTPS://Desk.Example"
    for other in (
        b"https://desk.example.evil",
        b"http://desk.example",
        b"https://desk.example:8443",
        b"null",
        b"",
        b"*",
        b"desk.example",
    ):
        assert cors.headers(other) == [(b"vary", b"Origin")], other
    assert cors.headers(None) == [(b"vary", b"Origin")], "a shared cache must not give it to a page"


def test_any_origin() -> None:
    cors = Cors(["*"])
    assert dict(cors.headers(b"https://anything"))[b"access-control-allow-origin"] == b"*"
    assert cors.allows_socket(b"https://anything", b"here")


def test_preflight() -> None:
    cors = Cors(["https://desk.example"])
    assert dict(cors.preflight(SITE)) == {
        b"access-control-allow-methods": b"GET, HEAD, OPTIONS",
        b"access-control-allow-headers": b"Authorization, X-API-Key, If-None-Match, Last-Event-ID",
        b"access-control-max-age": b"600",
    }
    assert cors.preflight(b"https://evil.example") == []


@pytest.mark.parametrize(
    ("origins", "origin", "host", "allowed"),
    [
        ([], None, b"desk.example", True),  # no browser
        ([], SITE, b"desk.example", True),
        ([], b"http://localhost:8899", b"LOCALHOST:8899", True),
        ([], SITE, b"desk.example:8443", False),
        ([], b"https://evil.example", b"desk.example", False),
        ([], b"null", b"desk.example", False),
        ([], b"", b"desk.example", False),
        ([], SITE, None, False),
        (["https://desk.example"], SITE, b"api.example", True),
        (["https://desk.example"], b"https://api.example", b"api.example", False),
        (["https://desk.example"], None, b"api.example", True),
    ],
)
def test_sockets(origins: list[str], origin: bytes | None, host: bytes | None, allowed: bool) -> None:
    assert Cors(origins).allows_socket(origin, host) is allowed
