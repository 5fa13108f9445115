"""Tells when the wall clock was set. Pure: both clocks come in as numbers."""

from __future__ import annotations

from typing import Final

JUMP_NS: Final = 1_000_000_000


class JumpWatch:
    """Compares the wall clock with the monotonic one. `jumps` counts steps of more than a second between two looks."""

    __slots__ = ("_offset_ns", "jumps")

    def __init__(self, wall_ns: int, monotonic_ns: int) -> None:
        self._offset_ns = wall_ns - monotonic_ns
        self.jumps = 0

    def look(self, wall_ns: int, monotonic_ns: int) -> int:
        """How far the wall clock was set since the last look, ns; 0 for steady running and slow drift."""
        moved = wall_ns - monotonic_ns - self._offset_ns
        self._offset_ns += moved
        if abs(moved) <= JUMP_NS:
            return 0
        self.jumps += 1
        return moved
