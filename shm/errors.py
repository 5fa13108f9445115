"""Errors of shared memory, drawn once.

    ShmError
    ├── Locked            another live writer (or consumer) holds the lock
    ├── LayoutMismatch    not our file, another version, a short or damaged file
    ├── IdentityMismatch  a sound file, but of another symbol, kind, schema, stride or digest kind
    ├── Fenced            an epoch that is not above the one in the file
    ├── Refused           content that must not be published; nothing was written
    ├── NoSpace           the disk or tmpfs cannot hold the file
    ├── NotLocalDisk      a network file system where a local disk is needed
    ├── Missing           the file is not there (yet)
    └── Unsupported       this interpreter or machine does not give the guarantees the rings need

Being full, lapped or torn is no error: those are return values and counters.
"""

from __future__ import annotations

from pathlib import Path


class ShmError(Exception):
    """Root of every error of `shm`."""


class Locked(ShmError):
    """Another process has the lock. `holder_pid` comes from the file and is None where it says nothing."""

    def __init__(self, path: Path, holder_pid: int | None) -> None:
        super().__init__(path, holder_pid)
        self.path = path
        self.holder_pid = holder_pid

    def __str__(self) -> str:
        holder = "another process" if self.holder_pid is None else f"process {self.holder_pid}"
        return f"{self.path.name} is held by {holder}"


class LayoutMismatch(ShmError):
    """Magic, version, geometry, size or header digest is wrong: the bytes cannot be trusted."""


class IdentityMismatch(ShmError):
    """The file is sound and belongs to something else. `field`, `found` (in the file) and `wanted` say what differs."""

    def __init__(self, field: str, found: object, wanted: object) -> None:
        super().__init__(field, found, wanted)
        self.field = field
        self.found = found
        self.wanted = wanted

    def __str__(self) -> str:
        return f"{self.field} of the file is {self.found!r}, wanted {self.wanted!r}"


class Fenced(ShmError):
    """The epoch handed in is not above the epoch of the file: a newer writer has been here."""


class Refused(ShmError):
    """Content that must not be published (too long, too large, out of range). Nothing was written."""


class NoSpace(ShmError):
    """posix_fallocate found no room; no file and no temporary name is left behind."""


class NotLocalDisk(ShmError):
    """The data directory is on a network file system, where shared mappings and flock do not hold."""


class Missing(ShmError):
    """There is no such file (yet). Readers wait and try again."""


class Unsupported(ShmError):
    """Free-threaded CPython, another implementation or a big-endian machine; see docs/memory-model.md."""
