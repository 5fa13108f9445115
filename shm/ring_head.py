"""How far the producer of an event ring is, for a bystander: no lock, no position of its own, nothing is written.

The supervisor asks this to tell an engine that hangs from one that has nothing to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from shm import attach, files
from shm.errors import IdentityMismatch
from shm.layout import HEAD_WORD, FileKind
from shm.liveness import Probe


class RingHead(attach.ReaderAttachment):
    """Read-only look at one event ring."""

    def __init__(self, mapped: files.Mapped, probe: Probe | None) -> None:
        """`open` is the way here."""
        super().__init__(mapped.words, probe)
        self._mapped = mapped

    @classmethod
    def open(cls, path: Path, *, probe: Probe | None = None) -> Self:
        """Map read-only. Raises Missing, LayoutMismatch, IdentityMismatch (not an event ring)."""
        mapped = files.open_reader(path, None)
        kind = mapped.header.spec.kind
        if kind is not FileKind.EVENTS:
            mapped.close()
            raise IdentityMismatch("kind", kind.name, FileKind.EVENTS.name)
        return cls(mapped, probe)

    def head(self) -> int:
        """Position behind the last committed batch, units since the ring was created."""
        return self._words.load_acquire(HEAD_WORD)
