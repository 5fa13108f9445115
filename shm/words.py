"""Every load from and store to shared memory. Nothing else in the tree touches a mapped buffer.

A word is an aligned u64, addressed by its index (byte offset / 8). The method names say which order the protocols rely on;
docs/memory-model.md says where it holds by hardware and where the digest has to make up for it.
Rings take a `Words`, so tests hand in one that records, delays or reorders.
"""

from __future__ import annotations

import mmap
import sys

from shm.errors import Unsupported

Buffer = bytearray | memoryview | mmap.mmap


def require_supported(abiflags: str, implementation: str, byteorder: str) -> None:
    """Raise Unsupported where aligned 8-byte accesses of a memoryview are not known to be single accesses in program order."""
    if "t" in abiflags:
        raise Unsupported("free-threaded CPython is not supported: the stress suite has not been run on it")
    if implementation != "cpython":
        raise Unsupported(f"the implementation must be cpython, was {implementation}")
    if byteorder != "little":
        raise Unsupported(f"the byte order must be little, was {byteorder}")


class Words:
    """Aligned 8-byte loads and stores and slice copies over one buffer, which must be a multiple of 8 bytes long."""

    __slots__ = ("_bytes", "_mapping", "_words")

    def __init__(self, buffer: Buffer) -> None:
        require_supported(sys.abiflags, sys.implementation.name, sys.byteorder)
        self._mapping = buffer if isinstance(buffer, mmap.mmap) else None
        self._bytes = memoryview(buffer).cast("B")
        # NOTE: memoryview words, not struct.pack_into: pack_into clears the target first, and a reader would see a
        # valid-looking 0. An item of a 'Q' view is one 8-byte move.
        self._words = self._bytes.cast("Q")

    def load_acquire(self, index: int) -> int:
        """One word; loads that follow in the program are not expected to be older than it."""
        return self._words[index]

    def store_release(self, index: int, value: int) -> None:
        """One word; stores that precede it in the program are expected to be visible to whoever sees it."""
        self._words[index] = value

    def copy_out(self, offset: int, size: int) -> bytes:
        """Private copy of a byte range; its bytes have no order among themselves."""
        return self._bytes[offset : offset + size].tobytes()

    def copy_in(self, offset: int, data: bytes) -> None:
        """Copy private bytes into the buffer; the bytes have no order among themselves."""
        self._bytes[offset : offset + len(data)] = data

    def copy_block(self, offset: int, target: memoryview) -> None:
        """Fill the private `target` (contiguous bytes) from the buffer in one copy."""
        target[:] = self._bytes[offset : offset + len(target)]

    def close(self) -> None:
        """Let go of the buffer and unmap it; later accesses raise ValueError instead of touching freed memory."""
        self._words.release()
        self._bytes.release()
        if self._mapping is not None:
            self._mapping.close()
