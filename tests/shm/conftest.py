"""Fixtures of the ring tests: directories on tmpfs and on disk, and children that never outlive a test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A directory on tmpfs, removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)
