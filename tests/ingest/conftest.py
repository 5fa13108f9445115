"""What several tests of ingest share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def captures() -> Path:
    """Folder of recorded exchange messages; the test is skipped where none is named."""
    folder = os.environ.get("MPENGINE_CAPTURES")
    if not folder:
        pytest.skip("MPENGINE_CAPTURES is not set: no recorded exchange messages here")
    return Path(folder)
