"""Which pages of other origins may read answers, and open sockets. By hand: a middleware would cost every request a fifth. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.bodies import Headers

EXPOSED: Final = (
    b"ETag, Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Seq, X-Epoch, "
    b"X-Age-Ms, X-Stale, X-Request-Id, X-Frame-Ts-Ms, X-Frame-Interval-Ms, X-Data-Is-Stale, X-Server-Send-Ts-Ms, "
    b"X-First-Frame-Ts-Ms, X-Last-Frame-Ts-Ms, X-Frame-Count, X-Price-Count"
)
PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, X-API-Key, If-None-Match, Last-Event-ID"),
    (b"access-control-max-age", b"600"),
)
VARY: Final = (b"vary", b"Origin")


class Cors:
    """The rules of `api.cors_origins`. Without origins no answer has a header of this kind."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = {origin.lower().encode("ascii") for origin in origins}

    @property
    def on(self) -> bool:
        """Whether any page of another origin may call."""
        return bool(self._origins)

    def allows(self, origin: bytes) -> bool:
        """Whether pages of an origin may read answers."""
        return self._any or origin.lower() in self._origins

    def headers(self, origin: bytes | None) -> Headers:
        """Headers of an answer to a request with this `Origin` (None: without one); errors have them too."""
        if not self._origins:
            return []
        if origin is None or not self.allows(origin):
            return [VARY]
        allowed = b"*" if self._any else origin
        return [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", EXPOSED), VARY]

    def preflight(self, origin: bytes) -> Headers:
        """What the 204 to a browser that asks whether it may ask has beside `headers`."""
        return list(PREFLIGHT) if self.allows(origin) else []

    def allows_socket(self, origin: bytes | None, host: bytes | None) -> bool:
        """Whether a page may open a WebSocket, which browsers let any page do: of an origin in the list or, where there is no
        list, of the host that is asked. A client that is no browser sends no `Origin`."""
        if origin is None:
            return True
        if self._origins:
            return self.allows(origin)
        return host is not None and host != b"" and origin.partition(b"://")[2].lower() == host.lower()
