"""One real tree for all chaos tests; each gets it settled and leaves it settled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.rig import COMMAND, REAL, settled
from tests.supervisor.rig import Tree, tree


@pytest.fixture(scope="session")
def started() -> Iterator[Tree]:
    """Started once per session, stopped in order at the end."""
    with tree(REAL, command=COMMAND) as one:
        one.start()
        yield one
        assert one.stop() == 0


@pytest.fixture
def real(started: Tree) -> Iterator[Tree]:
    """The tree, healthy before and after."""
    settled(started)
    yield started
    settled(started)
    traces = [line for line in started.lines() if "traceback" in line]
    assert not traces, f"unexplained: {traces[:2]}"
