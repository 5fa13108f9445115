"""Files of `api/web` as they are sent: references with the hash of what they name, every coding made once. Pure but for reading.

One hash stands for all files (`?v=HASH`): they belong together, so a change of one is a change of the whole, and what was loaded
before fits together for ever. Only pages are asked for again; everything with the right `v` never is.
"""

from __future__ import annotations

import gzip
import hashlib
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zstandard

from api.bodies import dumps
from api.encodings import CODINGS, GZIP, LEAST_BYTES

WEB: Final = Path(__file__).resolve().parent / "web"
PLACEHOLDER: Final = b"__MPENGINE__"
"""Stands in a page where what it must know of this server goes."""
GZIP_LEVEL: Final = 9
ZSTD_LEVEL: Final = 19


@dataclass(frozen=True, slots=True)
class Served:
    """A file of `api/web` and where it is served. `open`: needs no key; `page`: HTML, always asked for again."""

    path: str
    name: str
    media: str
    summary: str
    open: bool = True

    @property
    def page(self) -> bool:
        return self.media == "text/html"


_SCRIPT: Final = "text/javascript"
_DASHBOARD: Final = (
    Served("/", "index.html", "text/html", "The dashboard"),
    Served("/static/app.js", "app.js", _SCRIPT, "Script of the dashboard, with TradingView Lightweight Charts"),
    Served("/static/decode.worker.js", "decode.worker.js", _SCRIPT, "Decoder of the dashboard, a worker"),
    Served("/static/vendor/LICENSE", "vendor/LICENSE", "text/plain", "Licence of the chart library"),
    Served("/static/vendor/NOTICE", "vendor/NOTICE", "text/plain", "Notice of the chart library"),
    Served("/static/app.css", "app.css", "text/css", "Style of the dashboard"),
    Served("/static/icon.svg", "icon.svg", "image/svg+xml", "Icon of the dashboard"),
)
_DOCS: Final = (
    Served("/docs", "docs.html", "text/html", "A page over /openapi.json", open=False),
    Served("/docs/page.js", "docs.js", _SCRIPT, "Script of the page", open=False),
    Served("/docs/page.css", "docs.css", "text/css", "Style of the page", open=False),
)
SERVED: Final = (*_DASHBOARD, *_DOCS)


@dataclass(slots=True)
class WebFile:
    """One file, ready to be sent. `bodies`: by coding, None for the plain one."""

    body: bytes
    tag: str
    bodies: dict[str | None, bytes] = field(default_factory=dict)

    def in_coding(self, coding: str | None) -> tuple[bytes, str | None]:
        """(body, its coding): as asked for, or plain where the coding makes it no smaller. Made at the first request."""
        if coding is None or len(self.body) < LEAST_BYTES:
            return self.body, None
        found = self.bodies.get(coding)
        if found is None:
            found = self.bodies[coding] = compressed(self.body, coding)
        return (found, coding) if len(found) < len(self.body) else (self.body, None)

    def tag_in(self, coding: str | None) -> str:
        """Strong, so another one per coding."""
        return f'"{self.tag}"' if coding is None else f'"{self.tag}-{coding}"'

    @property
    def tags(self) -> tuple[str, ...]:
        """Of all codings: the content is the same."""
        return tuple(map(self.tag_in, (None, *CODINGS)))


def compressed(body: bytes, coding: str) -> bytes:
    """As small as it gets: it is done once per life of a worker."""
    if coding == GZIP:
        return gzip.compress(body, GZIP_LEVEL, mtime=0)
    return zstandard.ZstdCompressor(ZSTD_LEVEL).compress(body)


class WebFiles:
    """All of them. `facts`: what pages are told of this server. Raises OSError where a file is missing."""

    def __init__(self, facts: dict[str, object], folder: Path = WEB) -> None:
        sources = {served.name: (folder / served.name).read_bytes() for served in SERVED}
        self.hash = _digest(b"".join(b"%s\0%d\0%s" % (name.encode(), len(body), body) for name, body in sorted(sources.items())))
        told = html.escape(dumps(facts).decode("utf-8")).encode("utf-8")
        self._files: dict[str, WebFile] = {}
        for served in SERVED:
            source = sources[served.name]
            body = self._page(source, told) if served.page else source
            self._files[served.path] = WebFile(body, _digest(body))

    def _page(self, body: bytes, told: bytes) -> bytes:
        """With `?v=HASH` behind each file that it names; the script takes it from there to its decoder."""
        for other in SERVED:
            body = body.replace(f'"static/{other.name}"'.encode(), f'"static/{other.name}?v={self.hash}"'.encode())
        return body.replace(PLACEHOLDER, told)

    def __getitem__(self, path: str) -> WebFile:
        return self._files[path]


def _digest(body: bytes) -> str:
    return hashlib.blake2s(body, digest_size=8).hexdigest()
