"""The one way to write a state or configuration file: readers see the old file or the new one, never a part of either."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

FILE_MODE = 0o640
_TEMPORARY = ".tmp-"


def write_atomic(path: Path, data: bytes, *, mode: int = FILE_MODE) -> None:
    """Replace `path` by `data`: temporary file beside it, write, fsync, rename, fsync of the directory.

    Raises OSError (no room, no right, no directory); the old file is untouched then and no temporary file stays. A process that is
    killed leaves one: see `remove_leftovers`.
    """
    fd, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def remove_leftovers(path: Path) -> list[Path]:
    """Remove the temporary files of writers of `path` that were killed while they wrote; what is gone.

    Only for the one process that may write `path`: it would take the file of a living writer away. Raises OSError.
    """
    found = [entry for entry in path.parent.iterdir() if entry.name.startswith(_prefix(path))]
    for entry in found:
        entry.unlink(missing_ok=True)
    return found


def _prefix(path: Path) -> str:
    return f".{path.name}{_TEMPORARY}"


def sync_directory(path: Path) -> None:
    """fsync of a directory: names in it survive a power loss."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
