"""One real tree for all chaos tests; each gets it settled and leaves it settled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shm.board_words import Word
from tests.chaos.rig import COMMAND, REAL, settled
from tests.supervisor.rig import Tree, tree, until


@pytest.fixture(scope="session")
def started() -> Iterator[Tree]:
    """Started once per session, stopped in order at the end; its settings file is `settings.toml` in its directory."""
    with tree(REAL, command=COMMAND) as one:
        file = settings_file(one)
        file.write_text("", "utf-8")
        one.start(extra=("--config", str(file)))
        settled(one)
        before, files = one.word("supervisor", Word.OPEN_FDS), sorted(path.name for path in one.folder.iterdir())
        yield one
        until("no descriptor is left behind", lambda: one.word("supervisor", Word.OPEN_FDS) <= before)
        assert {path.name for path in one.folder.iterdir()} <= {*files, "children.json"}, "no shared file is left behind"
        assert one.stop() == 0


def settings_file(one: Tree) -> Path:
    """What the supervisor reads at SIGHUP."""
    return one.directory / "settings.toml"


@pytest.fixture
def real(started: Tree) -> Iterator[Tree]:
    """The tree, healthy before and after."""
    settled(started)
    yield started
    settled(started)
    traces = [line for line in started.lines() if "traceback" in line]
    assert not traces, f"unexplained: {traces[:2]}"
