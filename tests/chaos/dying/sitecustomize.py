"""Dies where it is told: SIGKILL at one step of one write. First on PYTHONPATH of a process under test.

DIE_ORDER names a file. Once it is there, its text `<folder>/<name> <step>` says where a process kills itself; the first that comes
there takes the order away.

    <folder>/<file> created|half|unsynced|unnamed|named    a file of `write_atomic`: temporary file made, half of it written, not
                                                           synced, not renamed, renamed and the folder not synced
    <folder>/<ring> <n>, <folder>/documents-<id> <n>       a publish: before its store number n (0: before the first)
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from shm.document import DocumentWriter
from shm.frame_ring import FrameWriter
from shm.slots import SlotArray
from shm.words import Words

ORDER = Path(os.environ["DIE_ORDER"])


def ordered(path: Path) -> str:
    """The step that is ordered for `path`, empty without one."""
    try:
        name, _, step = ORDER.read_text("utf-8").partition(" ")
    except FileNotFoundError:
        return ""
    return step if name == f"{path.parent.name}/{path.name}" else ""


def taken() -> bool:
    """Whether the order is this process's."""
    try:
        ORDER.unlink()
    except FileNotFoundError:
        return False
    return True


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(temporary: str, step: str) -> None:
    """Die if this step of writing the file behind a temporary name is the one."""
    path = Path(temporary)
    name, separator, _ = path.name.removeprefix(".").partition(".tmp-")
    if separator and ordered(path.with_name(name)) == step and taken():
        die()


def path_of(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def mkstemp(*args: Any, made: Callable[..., tuple[int, str]] = tempfile.mkstemp, **kwargs: Any) -> tuple[int, str]:
    fd, name = made(*args, **kwargs)
    die_at(name, "created")
    return fd, name


def fdopen(fd: int, *args: Any, opened: Callable[..., Any] = os.fdopen, **kwargs: Any) -> Any:
    file, path = opened(fd, *args, **kwargs), path_of(fd)
    return Halved(file, path) if ".tmp-" in path else file


class Halved:
    """A file that may die in the middle of a write."""

    def __init__(self, file: Any, path: str) -> None:
        self._file, self._path = file, path

    def write(self, data: bytes) -> None:
        os.write(self._file.fileno(), data[: len(data) // 2])
        die_at(self._path, "half")
        os.write(self._file.fileno(), data[len(data) // 2 :])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Halved:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def fsync(fd: int, synced: Callable[[int], None] = os.fsync) -> None:
    die_at(path_of(fd), "unsynced")
    synced(fd)


def replace(self: Path, target: Path, replaced: Callable[[Path, Path], Path] = Path.replace) -> Path:
    die_at(str(self), "unnamed")
    done = replaced(self, target)
    die_at(str(self), "named")
    return done


class Mortal(Words):
    """The words of a writer that dies before one of its stores."""

    __slots__ = ("_left",)

    def __init__(self, words: Words, left: int) -> None:
        self._mapping, self._bytes, self._words, self._left = words._mapping, words._bytes, words._words, left

    def store_release(self, index: int, value: int) -> None:
        self._count()
        super().store_release(index, value)

    def copy_in(self, offset: int, data: bytes) -> None:
        self._count()
        super().copy_in(offset, data)

    def _count(self) -> None:
        if self._left == 0:
            die()
        self._left -= 1


def make_mortal(writer: FrameWriter | DocumentWriter, name: str, arrays: Iterable[SlotArray]) -> None:
    """Let the writer die at its next publish if that is the order."""
    if writer._mapped is None or not (step := ordered(writer._mapped.path.with_name(name))) or not taken():
        return
    writer._words = Mortal(writer._words, int(step))
    for array in arrays:
        array._words = writer._words


def publish_frame(self: FrameWriter, *args: Any, whole: Callable[..., int] = FrameWriter.publish, **kwargs: Any) -> int:
    if self._mapped is not None:
        make_mortal(self, self._mapped.path.name, [self._slots])
    return whole(self, *args, **kwargs)


def publish_document(
    self: DocumentWriter, document: int, *args: Any, whole: Callable[..., int] = DocumentWriter.publish, **kwargs: Any
) -> int:
    make_mortal(self, f"documents-{int(document)}", [one.slots for one in self._documents.values()])
    return whole(self, document, *args, **kwargs)


tempfile.mkstemp = mkstemp
os.fdopen = fdopen
os.fsync = fsync
Path.replace = replace  # type: ignore[assignment, method-assign]
FrameWriter.publish = publish_frame  # type: ignore[method-assign]
DocumentWriter.publish = publish_document  # type: ignore[method-assign]
