"""Files behind the rings: create, lock, open, replace, sweep. The only place in `shm` that knows file names and system calls.

A file gets its name when it is complete and on disk; it is never resized or truncated. One flock per writer on the fd of the
file for life: POSIX record locks go away when any dup of the fd is closed (closing an mmap is enough), flock does not.
posix_fallocate always: a store into a hole of a full tmpfs is SIGBUS, which Python cannot catch.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shm.atomic_file import sync_directory
from shm.errors import Locked, Missing, NoSpace
from shm.layout import (
    HEADER_BYTES,
    MAGIC,
    PID_WORD,
    STATE_WORD,
    FileSpec,
    FileState,
    Header,
    build_header,
    check_identity,
    parse_header,
)
from shm.words import Words

FILE_MODE: Final = 0o640
DIRECTORY_MODE: Final = 0o750
CONSUMER_SUFFIX: Final = ".consumer"  # companion of an event ring: the consumer's lock, as the ring's own is the producer's
_PID_TEXT: Final = 20  # decimal digits of a u64
_TEMPORARY: Final = ".tmp-"


class Mapped:
    """An open, checked, mapped file. Closing it releases a lock that was taken on its fd."""

    __slots__ = ("_inode", "_writable", "fd", "header", "path", "words")

    def __init__(self, path: Path, fd: int, header: Header, writable: bool) -> None:
        self.path = path
        self.fd = fd
        self.header = header
        self._writable = writable
        self._inode = _inode(os.fstat(fd))
        access = mmap.PROT_READ | mmap.PROT_WRITE if writable else mmap.PROT_READ
        self.words = Words(mmap.mmap(fd, header.spec.file_bytes, mmap.MAP_SHARED, access))

    def replaced(self) -> bool:
        """True once the name means another file, no file, or the file says that it is retired: open again."""
        if self.words.load_acquire(STATE_WORD) == FileState.RETIRED:
            return True
        try:
            return _inode(self.path.stat()) != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Unmap and close, once."""
        self.words.close()
        os.close(self.fd)


def create(path: Path, spec: FileSpec, text: bytes = b"") -> bool:
    """Publish a new file under `path` unless there is one; False when the name is taken already.

    `text` follows the slots (label text of the board). Makes the last directory of the path where it is missing.
    Raises NoSpace (nothing is left behind) and Missing (no directory above).
    """
    _make_directory(path.parent)
    fd, temporary = _build(path, spec, text)
    try:
        # NOTE: link and unlink, not rename: rename would silently replace a file that another process has just published.
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
        os.close(fd)
    sync_directory(path.parent)
    return True


def replace(path: Path, spec: FileSpec, text: bytes = b"") -> None:
    """Put a new file in place of the old one, or of none: build it beside, set the old one retired, rename.

    Readers of the old file keep it until they notice. Raises Locked while a writer holds the old one, NoSpace, Missing.
    """
    _make_directory(path.parent)
    old = _lock_if_there(path)
    try:
        fd, temporary = _build(path, spec, text)
        try:
            if old is not None:
                _retire(old)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
    finally:
        if old is not None:
            os.close(old)
    sync_directory(path.parent)


def open_reader(path: Path, spec: FileSpec | None) -> Mapped:
    """Map read-only after all checks; `spec` None takes whatever sound file there is.

    Raises Missing, LayoutMismatch, IdentityMismatch.
    """
    fd = _open(path, os.O_RDONLY)
    return _checked(path, fd, spec, writable=False)


def open_shared(path: Path, spec: FileSpec | None) -> Mapped:
    """Map read-write without the writer's lock: for the consumer of an event ring and the owner of a board row."""
    fd = _open(path, os.O_RDWR)
    return _checked(path, fd, spec, writable=True)


def open_writer(path: Path, spec: FileSpec) -> Mapped:
    """Lock and map read-write after all checks. Raises Missing, Locked, LayoutMismatch, IdentityMismatch, NoSpace."""
    fd = _open_locked(path)
    try:
        # A copy of a data directory may have brought holes; they must be an exception now, not SIGBUS later.
        size = os.fstat(fd).st_size
        if size:
            _allocate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return _checked(path, fd, spec, writable=True)


def open_or_create(path: Path, spec: FileSpec) -> Mapped:
    """`open_writer`, creating the file first where there is none."""
    while True:
        try:
            return open_writer(path, spec)
        except Missing:
            create(path, spec)


def lock_consumer(path: Path) -> int:
    """Take the consumer's lock of the event ring `path` and return its fd; closing it gives the lock up.

    A file of its own, since flock has one owner per file and the ring file belongs to the producer. It holds the
    consumer's pid as text. Raises Locked, NoSpace.
    """
    companion = consumer_lock(path)
    fd = _open_consumer_lock(companion)
    try:
        if not _try_lock(fd):
            text = os.pread(fd, _PID_TEXT, 0).strip()
            raise Locked(companion, int(text) if text.isdigit() else None)
        os.pwrite(fd, f"{os.getpid():<{_PID_TEXT}d}".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def create_consumer_lock(path: Path) -> None:
    """Make the file that `lock_consumer` needs while there is room, so that a full tmpfs keeps no consumer from its ring."""
    os.close(_open_consumer_lock(consumer_lock(path)))


def consumer_lock(path: Path) -> Path:
    """Name of the consumer's lock file of the event ring `path`."""
    return path.with_name(path.name + CONSUMER_SUFFIX)


def sweep(runtime_dir: Path) -> list[Path]:
    """Remove shared files of ours that nobody holds, with temporary names and consumer locks; returns what went.

    Only regular files directly in `runtime_dir` that carry our magic or our suffixes. For the supervisor at start.
    """
    removed = []
    for path in sorted(runtime_dir.iterdir()):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # a link, a socket, or gone already: not ours
            continue
        try:
            if _is_ours(path, fd) and _try_lock(fd) and _same_file(path, fd):
                path.unlink()
                removed.append(path)
        finally:
            os.close(fd)
    return removed


def _is_ours(path: Path, fd: int) -> bool:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    return path.name.endswith(CONSUMER_SUFFIX) or _TEMPORARY in path.name or os.pread(fd, len(MAGIC), 0) == MAGIC


def _open_consumer_lock(companion: Path) -> int:
    fd = os.open(companion, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        _allocate(fd, _PID_TEXT)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _same_file(path: Path, fd: int) -> bool:
    try:
        return _inode(path.lstat()) == _inode(os.fstat(fd))
    except FileNotFoundError:
        return False


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Missing(f"{path.name} is not there") from error


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_locked(path: Path) -> int:
    """Open and lock the file that has the name now, not one that lost it between the two calls."""
    while True:
        fd = _open(path, os.O_RDWR)
        if not _try_lock(fd):
            pid = int.from_bytes(os.pread(fd, 8, PID_WORD * 8), "little")
            os.close(fd)
            raise Locked(path, pid or None)
        if _inode(os.fstat(fd)) == _current_inode(path):
            return fd
        os.close(fd)


def _current_inode(path: Path) -> tuple[int, int] | None:
    try:
        return _inode(path.stat())
    except FileNotFoundError:
        return None


def _lock_if_there(path: Path) -> int | None:
    try:
        return _open_locked(path)
    except Missing:
        return None


def _retire(fd: int) -> None:
    if os.fstat(fd).st_size < HEADER_BYTES or os.pread(fd, len(MAGIC), 0) != MAGIC:
        return  # nothing that a reader could have mapped
    words = Words(mmap.mmap(fd, HEADER_BYTES))
    words.store_release(STATE_WORD, FileState.RETIRED)
    words.close()


def _checked(path: Path, fd: int, spec: FileSpec | None, writable: bool) -> Mapped:
    try:
        # pread, not a load from the map: a file that is too short is an answer here and SIGBUS there.
        header = parse_header(os.pread(fd, HEADER_BYTES, 0), os.fstat(fd).st_size)
        if spec is not None:
            check_identity(header.spec, spec)
        return Mapped(path, fd, header, writable)
    except BaseException:
        os.close(fd)
        raise


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(DIRECTORY_MODE)
    except FileExistsError:
        return
    except FileNotFoundError as error:
        raise Missing(f"there is no directory {directory.parent.name} for {directory.name}") from error
    sync_directory(directory.parent)


def _build(path: Path, spec: FileSpec, text: bytes) -> tuple[int, Path]:
    """A complete file on disk under a temporary name, and its locked fd (the lock keeps `_remove_stale` of others off)."""
    _remove_stale(path)
    fd, temporary = _new_temporary(path)
    try:
        os.fchmod(fd, FILE_MODE)
        _allocate(fd, spec.file_bytes)
        os.pwrite(fd, build_header(spec, _new_uuid(), time.time_ns()), 0)
        os.pwrite(fd, text, HEADER_BYTES + spec.slots * spec.stride)
        os.fsync(fd)
    except BaseException:
        temporary.unlink()
        os.close(fd)
        raise
    return fd, temporary


def _new_temporary(path: Path) -> tuple[int, Path]:
    while True:
        temporary = path.with_name(f".{path.name}{_TEMPORARY}{_new_uuid():016x}")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        if _try_lock(fd) and _same_file(temporary, fd):
            return fd, temporary
        os.close(fd)  # taken for a stale one between the two calls


def _remove_stale(path: Path) -> None:
    """Remove temporary files that creators of `path` left behind when they were killed."""
    for stale in _stale(path):
        try:
            fd = os.open(stale, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if _try_lock(fd) and _same_file(stale, fd):
                stale.unlink()
        finally:
            os.close(fd)


def _stale(path: Path) -> Iterator[Path]:
    prefix = f".{path.name}{_TEMPORARY}"
    return (entry for entry in path.parent.iterdir() if entry.name.startswith(prefix))


def _allocate(fd: int, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpace(f"no room for {size} bytes: {error.strerror}") from error
        raise


def _new_uuid() -> int:
    return int.from_bytes(os.urandom(8), "little") or 1
