"""Whether a request may be answered: key, then tokens. And what its answer gets for it: headers of CORS and of rate limits.

    Access.admit         HTTP: every request once, from the callback of the parser or from the ASGI callable
    Access.admit_socket  a WebSocket before its upgrade: the same, and its `Origin` first
    Access.check_key     a key that comes as the first message of a WebSocket
    Access.enter, leave  push connections of either kind, counted by client

Sizes are looked at before (`api.protocol`), path, method and parameters behind. The result is a value, also when it is a refusal:
one object for every transport, which asks no clock twice and touches nothing but the client's bucket.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from api.bodies import Headers
from api.clients import Clients
from api.cors import Cors
from api.errors import ApiError
from api.keys import Keys, key_of
from api.rates import SECOND_NS, Limit, Rates
from mpengine.config import ApiSettings, Settings
from mpengine.keys import KeyRecord

PUSH_COST: Final = 10

FORBIDDEN_ORIGIN: Final = ApiError(403, "forbidden", "Pages of this origin may not open a socket here")
TOO_MANY_CONNECTIONS: Final = ApiError(429, "rate_limited", "Too many push connections of this client", {"Retry-After": "10"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What a path asks for: tokens, and a key with this scope unless it is open."""

    cost: int = 1
    open: bool = False
    scope: str = "read"


PLAIN: Final = Rule()
OPEN: Final = Rule(open=True)
PUSH: Final = Rule(PUSH_COST, scope="push")
PUSH_PATHS: Final = (b"/stream", b"/v4/stream", b"/ws", b"/v4/ws")


class Listed(Protocol):
    """What is asked of a row of the table of endpoints."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The path and its aliases."""

    @property
    def cost(self) -> int:
        """Tokens of a request."""

    @property
    def open(self) -> bool:
        """Whether it needs no key."""


def rules_of(endpoints: Iterable[Listed]) -> dict[bytes, Rule]:
    """Rules by path of a table of endpoints. A path that is not in it is a `PLAIN` one."""
    found = {path.encode(): Rule(int(one.cost), one.open) for one in endpoints for path in one.paths}
    return found | dict.fromkeys(PUSH_PATHS, PUSH)


class Admission:
    """The decision over one request. `error`: the answer to give instead, None: go on. `headers`, `raw`: what any answer to this
    request gets, as pairs and as bytes of a head. `client`: number of who asked, for counting connections. `key`: None without."""

    __slots__ = ("client", "error", "headers", "key", "raw")

    def __init__(self, client: int, error: ApiError | None, headers: Headers, raw: bytes, key: KeyRecord | None = None) -> None:
        self.client = client
        self.error = error
        self.headers = headers
        self.raw = raw
        self.key = key


FREE: Final = Admission(0, None, [], b"")


class Access:
    """The rules of one worker.

    `rules`: by path. `wall_ms`, `monotonic_ns`: clocks of expiry and of buckets; the latter is the same for all workers.
    """

    def __init__(
        self, settings: Settings, rules: Mapping[bytes, Rule], wall_ms: Callable[[], int], monotonic_ns: Callable[[], int]
    ) -> None:
        api = settings.api
        self._rules = rules
        self._monotonic_ns = monotonic_ns
        self._rates_path = settings.paths.rates
        self._trusted = api.trusted_proxies
        self._most_push = api.push_connections_per_client
        self.cors = Cors(api.cors_origins)
        self.keys = Keys(keys_path(settings), wall_ms) if api.keys else None
        self.rates = Rates(limit_of(api))
        self._limited = api.rate_limits
        self._clients = Clients(self._trusted, self.rates.salt)
        self._looks = self.keys is not None or self.cors.on or (self._limited and self._clients.looks)
        self.free = not self._looks and not self._limited
        """Whether nothing is asked of any request."""

    def turn(self) -> None:
        """Once a second: changed keys, a table to share that was not there before."""
        if self.keys is not None:
            self.keys.refresh()
        if not self.rates.shared and self.rates.share(self._rates_path):
            self._clients = Clients(self._trusted, self.rates.salt)

    def close(self) -> None:
        """The worker leaves."""
        self.rates.close()

    def rule(self, target: bytes) -> Rule:
        """What the path of a request target asks for, however it is spelled."""
        path = target.partition(b"?")[0]
        found = self._rules.get(path)
        if found is not None:
            return found
        # As the router sees it: decoded, without one slash at the end. An absolute form carries its host in front.
        if not path.startswith(b"/"):
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        path = unquote_to_bytes(path)
        return self._rules.get(path.removesuffix(b"/"), PLAIN)

    def admit(self, target: bytes, headers: Headers, peer: str) -> Admission:
        """Decide over an HTTP request. `headers`: names in lower case; `peer`: address of the connection."""
        if self.free:
            return FREE
        return self._decide(self.rule(target), _Told(headers) if self._looks else NOTHING_TOLD, peer)

    def admit_socket(self, headers: Headers, peer: str) -> Admission:
        """Decide over a WebSocket before its upgrade.

        With keys on, one that sends no key at all is let in by its address, `key` None: it owes one in its first message
        (`check_key`). A key that is sent and not good is refused at once.
        """
        told = _Told(headers)
        if not self.cors.allows_socket(told.origin, told.host):
            return Admission(0, FORBIDDEN_ORIGIN, [], b"")
        later = self.keys is not None and key_of(told.authorization, told.api_key) is None
        return self._decide(Rule(PUSH.cost, open=later, scope=PUSH.scope), told, peer)

    def enter(self, admission: Admission, headers: Headers, peer: str) -> int | ApiError:
        """Count one more push connection of who was admitted: a number that `leave` wants, or 429 where there are too many.

        Call it before the stream or the upgrade begins, and `leave` in a `finally`.
        """
        client = admission.client or self._clients.of_address(peer, _Told(headers).forwarded)
        return client if self.rates.hold(client, self._most_push) else TOO_MANY_CONNECTIONS

    def leave(self, client: int) -> None:
        """A push connection is over. `client`: what `enter` gave."""
        self.rates.release(client)

    def check_key(self, text: str, scope: str = PUSH.scope) -> KeyRecord | ApiError:
        """A key that came in a message: itself, or what is wrong with it (401, 403). Only where `keys` are on."""
        assert self.keys is not None
        return self.keys.verify(text.encode("utf-8", "surrogatepass"), scope)

    def preflight(self, headers: Headers, peer: str) -> Admission | None:
        """Decide over the preflight of a browser, which carries no key; None for any other OPTIONS, and while CORS is off.

        `headers` of the result are those of the 204.
        """
        told = _Told(headers)
        if not self.cors.on or told.origin is None or all(name != b"access-control-request-method" for name, _ in headers):
            return None
        made = self._decide(OPEN, told, peer)
        made.headers = [*made.headers, *self.cors.preflight(told.origin)]
        return made

    def cors_headers(self, headers: Headers) -> Headers:
        """What CORS adds to a refusal that came before any decision."""
        return self.cors.headers(dict(headers).get(b"origin"))

    def _decide(self, rule: Rule, told: _Told, peer: str) -> Admission:
        pairs = self.cors.headers(told.origin)
        raw = b"".join(b"%s: %s\r\n" % pair for pair in pairs) if pairs else b""
        key = None
        if self.keys is not None and not rule.open:
            found = self.keys.verify(key_of(told.authorization, told.api_key), rule.scope)
            if isinstance(found, ApiError):
                return Admission(0, found, pairs, raw)
            key = found
            client = self._clients.of_key(key.id)
        else:
            client = self._clients.of_address(peer, told.forwarded)
        if not self._limited or not rule.cost:
            return Admission(client, None, pairs, raw, key)
        wait_ns, debt_ns = self.rates.charge(client, rule.cost, self._monotonic_ns())
        more, more_raw = self.rates.headers(debt_ns)
        return Admission(client, rate_limited(wait_ns) if wait_ns else None, [*pairs, *more], raw + more_raw, key)


class _Told:
    """Headers that matter here. One that comes twice is worth nothing, except `X-Forwarded-For`, whose parts are one list."""

    __slots__ = ("api_key", "authorization", "forwarded", "host", "origin")

    def __init__(self, headers: Headers) -> None:
        self.authorization: bytes | None = None
        self.api_key: bytes | None = None
        self.forwarded: bytes | None = None
        self.origin: bytes | None = None
        self.host: bytes | None = None
        for name, value in headers:
            # PERF: one look into a set for the dozen of headers that a browser sends.
            if name not in _NAMES:
                continue
            if name == b"x-forwarded-for":
                self.forwarded = value if self.forwarded is None else self.forwarded + b"," + value
            elif name == b"origin":
                self.origin = value if self.origin is None else b"null"
            elif name == b"authorization":
                self.authorization = value if self.authorization is None else b""
            elif name == b"x-api-key":
                self.api_key = value if self.api_key is None else b""
            else:
                self.host = value


_NAMES: Final = frozenset((b"authorization", b"x-api-key", b"x-forwarded-for", b"origin", b"host"))
NOTHING_TOLD: Final = _Told([])


def rate_limited(wait_ns: int) -> ApiError:
    """An empty bucket; `wait_ns` until there are tokens enough."""
    return ApiError(429, "rate_limited", "Too many requests", {"Retry-After": str(math.ceil(wait_ns / SECOND_NS))})


def limit_of(api: ApiSettings) -> Limit:
    """The bucket of the settings."""
    return Limit(api.rate_per_s, api.rate_burst)


def keys_path(settings: Settings) -> Path:
    """Where the keys are."""
    return Path(settings.api.keys_file) if settings.api.keys_file else settings.paths.keys
