"""Fixtures of the ring tests: directories on tmpfs and on disk, a small tmpfs, children."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.shm.rig import REQUIRED, Child, children


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A directory on tmpfs, removed afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=["tmpfs", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory on tmpfs, then one on the disk of the temporary directory."""
    if request.param == "disk":
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def spawn() -> Iterator[Callable[..., Child]]:
    """Start `child.py` processes; none outlives the test."""
    with children() as start:
        yield start


@pytest.fixture
def small_tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A mounted tmpfs of 1 MiB; needs root, MPENGINE_REQUIRE=1 makes that a failure instead of a skip."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], check=False, capture_output=True
    ).returncode  # fmt: skip
    if not mounted:
        reason = "mounting a small tmpfs needs root"
        pytest.fail(reason) if REQUIRED else pytest.skip(reason)
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)
