"""A scripted server, and a real one with real files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.conftest import settings, tmpfs, world  # noqa: F401  fixtures
from tests.client.rig import Server


@pytest.fixture
def server() -> Iterator[Server]:
    """A scripted server, stopped afterwards."""
    with Server() as made:
        yield made
