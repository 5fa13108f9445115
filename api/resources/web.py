"""Files of `api/web`: the dashboard at `/`, what it loads under `/static/`, and the page over `/openapi.json`."""

from __future__ import annotations

from typing import Final

from falcon.asgi import Request, Response

from api.bodies import etag_matches
from api.encodings import Accepted
from api.web_files import Served, WebFiles

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Pages load our own files and nothing else, and nobody may frame them. `data:` and `blob:`: pictures that the page exports."""
PAGE_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
FOR_EVER: Final = "public, max-age=31536000, immutable"
ASK_AGAIN: Final = "no-cache"


class WebResource:
    """One file. With the `v` of this build it may be kept for ever; without, or with another one, it is asked for again."""

    def __init__(self, files: WebFiles, served: Served, accepted: Accepted) -> None:
        self._file = files[served.path]
        self._hash = files.hash
        self._served = served
        self._accepted = accepted

    async def on_get(self, req: Request, resp: Response) -> None:
        wish = req.get_header("Accept-Encoding")
        body, coding = self._file.in_coding(None if wish is None else self._accepted.best(wish.encode("latin-1")))
        resp.set_header("ETag", self._file.tag_in(coding))
        resp.set_header("Vary", "Accept-Encoding")
        fixed = req.get_param("v") == self._hash and not self._served.page
        resp.set_header("Cache-Control", FOR_EVER if fixed else ASK_AGAIN)
        for name, value in PAGE_HEADERS.items():
            resp.set_header(name, value)
        resp.content_type = f"{self._served.media}; charset=utf-8"
        given = req.get_header("If-None-Match")
        if given is not None and any(etag_matches(given.encode("latin-1"), tag.encode("ascii")) for tag in self._file.tags):
            resp.status = 304
            return
        if coding is not None:
            resp.set_header("Content-Encoding", coding)
        resp.data = body

    on_head = on_get
