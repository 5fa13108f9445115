"""The one way in which a Python value becomes a body: `api.bodies.dumps`, as Falcon's JSON handler."""

from __future__ import annotations

from falcon.media import BaseHandler

from api.bodies import dumps


class JsonHandler(BaseHandler):
    """Encodes answers that are not data. Nothing is ever decoded: no endpoint takes a body."""

    def serialize(self, media: object, content_type: str | None = None) -> bytes:
        """JSON bytes. Raises NotFinite, which becomes a 500."""
        return dumps(media)
