"""API keys as they lie on disk: public id, SHA-256 of the secret, scopes, expiry. Read by the API workers, changed by the command.

A key is `<id>.<secret>`: the id names it in lists, the secret is 256 random bits that are shown once and kept nowhere. A plain
SHA-256 is enough for a secret that nobody could guess; it has no pattern that a slow hash would have to protect.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from shm.atomic_file import write_atomic

SCHEMA: Final = 1
FILE_MODE: Final = 0o600
MAX_FILE_BYTES: Final = 16 << 20
MAX_KEYS: Final = 10_000
SECRET_BYTES: Final = 32

Scope = Literal["read", "push"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "push")
Milliseconds = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
"""Up to the end of the year 9999."""


class KeyFileError(Exception):
    """The key file is refused; the text says why and never holds anything of its content."""


class KeyRecord(Struct, frozen=True, kw_only=True):
    """One key. Times are epoch milliseconds; `expires_ms`, `revoked_ms`: None while it does not end, was not revoked."""

    id: Annotated[str, Meta(pattern=r"^[a-z0-9]{4,32}$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    scopes: list[Scope]
    created_ms: Milliseconds
    expires_ms: Milliseconds | None = None
    revoked_ms: Milliseconds | None = None
    note: Annotated[str, Meta(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""

    def ended(self, now_ms: int) -> bool:
        """Whether it is revoked or has expired."""
        return self.revoked_ms is not None or (self.expires_ms is not None and now_ms >= self.expires_ms)

    def state(self, now_ms: int) -> str:
        """`active`, `expired` or `revoked`."""
        return "revoked" if self.revoked_ms is not None else "expired" if self.ended(now_ms) else "active"


class KeyFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    schema_version: Annotated[int, Meta(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    keys: Annotated[list[KeyRecord], Meta(max_length=MAX_KEYS)]


def digest_of(secret: bytes) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret).digest()


def read(path: Path) -> KeyFile:
    """The keys of a file. Raises KeyFileError: not readable, writable by others, too large, of another form, an id twice;
    FileNotFoundError where there is none."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileError(f"cannot be read ({type(error).__name__})") from error
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KeyFileError("can be written by others (chmod 600)")
    if len(data) > MAX_FILE_BYTES:
        raise KeyFileError(f"is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        found = msgspec.json.decode(data, type=KeyFile)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeyFileError(f"is no key file of version {SCHEMA}") from error
    if len({one.id for one in found.keys}) != len(found.keys):
        raise KeyFileError("has an id twice")
    return found


def new_key(now_ms: int, scopes: list[Scope], expires_ms: int | None = None, note: str = "") -> tuple[KeyRecord, str]:
    """A key that is not in any file yet, and its full text, which is to be shown once."""
    identity, secret = secrets.token_hex(6), secrets.token_urlsafe(SECRET_BYTES)
    digest = digest_of(secret.encode("ascii")).hex()
    record = KeyRecord(id=identity, sha256=digest, scopes=scopes, created_ms=now_ms, expires_ms=expires_ms, note=note)
    return record, f"{identity}.{secret}"


def change(path: Path, edit: Callable[[list[KeyRecord]], list[KeyRecord]]) -> None:
    """Replace the keys of a file by what `edit` makes of them; a file that is not there is an empty one.

    Two commands at once take turns. The owner of the file stays who it was, else the owner of its directory, so that a root
    shell does not lock the service out. Raises KeyFileError for a file that `read` refuses, OSError where it cannot be written.
    """
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        try:
            records, owner = read(path).keys, path.stat()
        except FileNotFoundError:
            records, owner = [], path.parent.stat()
        data = msgspec.json.encode(KeyFile(keys=edit(list(records))))
        try:
            msgspec.json.decode(data, type=KeyFile)
        except msgspec.ValidationError as error:
            raise KeyFileError(f"would not be readable: {error}") from error
        write_atomic(path, msgspec.json.format(data, indent=1) + b"\n", mode=FILE_MODE)
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
    finally:
        os.close(folder)
