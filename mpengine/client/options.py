"""How a client behaves, and where its server is. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from mpengine import __version__
from mpengine.client.answers import Retries

DEFAULT_URL: Final = "http://127.0.0.1:8899"
USER_AGENT: Final = f"mpengine-client/{__version__}"
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`timeout_s`: for one try, from connecting to the last byte. `kept_*`: bodies that are held for 304s.

    Push: `queue` updates may wait for the user; when that is full for `patience_s` the stream ends with SlowConsumer. A connection
    that says nothing for `silence_s` (the server beats every 5 s) is taken for dead. Reconnects back off up to `reconnect_limit_s`;
    after `give_up_s` without a connection the stream ends with Unreachable (None: never). What is missing is asked for by REST for
    at most `heal_s` while the server does not answer.
    """

    timeout_s: float = 10.0
    retries: Retries = field(default_factory=Retries)
    kept_answers: int = 64
    kept_bytes: int = 64 << 20
    max_body_bytes: int = 128 << 20
    queue: int = 1024
    patience_s: float = 10.0
    silence_s: float = 20.0
    reconnect_first_s: float = 0.5
    reconnect_limit_s: float = 30.0
    give_up_s: float | None = None
    heal_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """An address: `prefix` is put before every path, for servers behind a proxy that adds one."""

    scheme: str
    host: str
    port: int
    prefix: str
    key: str | None = field(default=None, repr=False)

    @property
    def origin(self) -> str:
        """URL without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def headers(self) -> dict[str, str]:
        """Headers of every request. A key goes into a header, never into an address."""
        headers = {"User-Agent": USER_AGENT}
        if self.key is not None:
            headers["X-API-Key"] = self.key
        return headers


def server_of(url: str, key: str | None) -> Server:
    """The address of a URL. Raises ValueError where it is none."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("the address must look like http://host:port or https://host")
    if parts.username is not None:
        raise ValueError("a key is given as `key`, not in the address")
    if key is not None and not (key and key.isascii() and key.isprintable()):
        raise ValueError("a key looks like id.secret")
    return Server(parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme], parts.path.rstrip("/"), key)
