"""F7: a symbol whose process cannot start is FAILED alone; the tree starts, serves and is ready without it."""

from __future__ import annotations

import pytest

from shm.board_words import State, Word
from tests.chaos.rig import COMMAND, REAL, await_progress, get
from tests.supervisor.rig import tree, until

pytestmark = pytest.mark.slow


@pytest.mark.covers("F7", "P4", "P6")
def test_symbol_with_a_foreign_ring_fails_alone(tmp_path: object) -> None:
    with tree({**REAL, "supervisor.restart_budget": "5"}, command=COMMAND) as one:
        poisoned = one.data / "BTC"
        poisoned.mkdir()
        (poisoned / "depth.ring").write_bytes(b"not a ring" * 1000)
        one.start()
        assert one.state("engine-BTC") is State.FAILED
        assert one.word("engine-BTC", Word.LAST_EXIT) == 3
        assert one.word("engine-BTC", Word.GENERATION) == 1, "a boot failure is no crash loop"
        one.await_log("LayoutMismatch")
        await_progress(one, ["engine-ETH"])
        until("ETH is served", lambda: get(one, "/health")[1]["symbols"]["ETH"]["book"] == "synced")
        assert one.stop() == 0
