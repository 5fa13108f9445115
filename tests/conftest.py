"""What every test folder shares: the long forms, the recorded captures, and what CI must not skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

STRESS_TIMEOUT_S = 3600
REQUIRE = os.environ.get("MPENGINE_REQUIRE") == "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chromium", default=None, help="path of Chromium for the tests of the dashboard")
    parser.addoption("--update-screenshots", action="store_true", help="write the expected screenshots of the dashboard anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long forms run only where they are asked for (`make stress`: -m stress), and have the time that they need."""
    for item in items:
        if item.get_closest_marker("stress") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(STRESS_TIMEOUT_S))
    if config.getoption("markexpr"):
        return
    skip = pytest.mark.skip(reason="long form: make stress")
    for item in items:
        if item.get_closest_marker("stress"):
            item.add_marker(skip)


def skip_or_fail(reason: str) -> None:
    """Skip with the reason printed; where MPENGINE_REQUIRE=1 (CI) a skip of this kind is a failure."""
    if REQUIRE:
        pytest.fail(f"required here: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def captures() -> Path:
    """Folder of the recorded exchange messages; they are not part of the project."""
    folder = os.environ.get("MPENGINE_CAPTURES")
    if not folder:
        skip_or_fail("MPENGINE_CAPTURES is not set: the folder of recorded exchange messages")
        raise AssertionError  # not reached
    return Path(folder).resolve()
