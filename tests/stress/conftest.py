"""The stress tests use the fixtures and children of the ring tests."""

from __future__ import annotations

from tests.shm.conftest import place, spawn, tmpfs

__all__ = ["place", "spawn", "tmpfs"]
