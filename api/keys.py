"""Who may ask what: checks the key of a request against the key file, which is read again when it has changed.

Every key goes the same way, known or not: look up the id, hash the secret, compare the hashes in constant time, look at expiry.
Only then is it decided, so that neither the answer nor its time tells an unknown id from a wrong secret or an ended key.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.errors import ApiError
from mpengine.keys import KeyFileError, KeyRecord, digest_of, read

UNAUTHORIZED: Final = ApiError(401, "unauthorized", "A valid API key is required", {"WWW-Authenticate": "Bearer"})
FORBIDDEN: Final = ApiError(403, "forbidden", "The API key does not have the scope that this resource needs")

log = logging.getLogger("api.keys")


@dataclass(frozen=True, slots=True)
class _Known:
    """A key, and until when it is good: 0 for one that was revoked, so that this is the same comparison for all."""

    digest: bytes
    until_ms: int
    record: KeyRecord

    @classmethod
    def of(cls, record: KeyRecord) -> _Known:
        until_ms = FOREVER_MS if record.expires_ms is None else record.expires_ms
        return cls(bytes.fromhex(record.sha256), until_ms if record.revoked_ms is None else 0, record)


FOREVER_MS: Final = 1 << 62
_NOBODY: Final = _Known.of(KeyRecord(id="none", sha256="0" * 64, scopes=[], created_ms=0, revoked_ms=0))

Stamp = tuple[int, int, int]


class Keys:
    """The keys in force. `now_ms`: wall clock, for expiry."""

    def __init__(self, path: Path, now_ms: Callable[[], int]) -> None:
        self._path = path
        self._now_ms = now_ms
        self._known: dict[bytes, _Known] = {}
        self._stamp: Stamp | None = None
        self._loaded = False

    def __len__(self) -> int:
        return len(self._known)

    def refresh(self) -> None:
        """Read the file again if it is another one than before; called once a second.

        A file that is gone means no keys. One that is refused changes nothing: keys that were good stay good, loudly.
        """
        try:
            status = self._path.stat()
            stamp = (status.st_ctime_ns, status.st_ino, status.st_size)  # ctime: of the rights, too
            if self._loaded and stamp == self._stamp:
                return
            found = read(self._path)
        except FileNotFoundError:
            if self._stamp is not None or not self._loaded:
                log.error("the key file is not there: no key is valid (mpengine keys add)")
            self._known, self._stamp, self._loaded = {}, None, True
            return
        except (KeyFileError, OSError) as error:
            reason = str(error) if isinstance(error, KeyFileError) else f"cannot be read ({type(error).__name__})"
            log.error("the key file %s; the %d keys read before stay in force", reason, len(self._known))
            return
        self._known = {one.id.encode(): _Known.of(one) for one in found.keys}
        self._stamp, self._loaded = stamp, True
        now_ms = self._now_ms()
        log.info("%d API keys, %d of them active", len(found.keys), sum(not one.ended(now_ms) for one in found.keys))

    def verify(self, text: bytes | None, scope: str) -> KeyRecord | ApiError:
        """The key if it is good for `scope`; else the answer to give: 401, or 403 for a good key without the scope.

        `text`: `<id>.<secret>` as it was sent, None for no key.
        """
        if not self._loaded:
            self.refresh()
        identity, _, secret = (text or b"").partition(b".")
        known = self._known.get(identity, _NOBODY)
        same = hmac.compare_digest(digest_of(secret), known.digest)
        if not same & (self._now_ms() < known.until_ms):  # both, always
            return UNAUTHORIZED
        return known.record if scope in known.record.scopes else FORBIDDEN

    def holds(self, record: KeyRecord, scope: str) -> bool:
        """Whether a key that was good is still: what goes on with it asks now and then."""
        known = self._known.get(record.id.encode(), _NOBODY).record
        return known.sha256 == record.sha256 and not known.ended(self._now_ms()) and scope in known.scopes


def key_of(authorization: bytes | None, api_key: bytes | None) -> bytes | None:
    """The key that a request carries: `Authorization: Bearer` first, else `X-API-Key`; None without one."""
    if authorization is not None:
        scheme, _, text = authorization.partition(b" ")
        if scheme.lower() == b"bearer":
            return text.strip()
    return None if api_key is None else api_key.strip()
