"""F4: kill -9 of the supervisor. No process of the tree survives it, and the next one starts on clean ground."""

from __future__ import annotations

import os
import signal

import pytest

from shm.board_words import Word
from tests.chaos.rig import COMMAND, REAL, settled
from tests.supervisor.rig import gone, tree, until

pytestmark = pytest.mark.slow


@pytest.mark.covers("F4", "P8", "P9", "P10", "A2-H5", "T-H2")
def test_no_orphan_no_stale_file_and_serving_again() -> None:
    with tree(REAL, command=COMMAND) as one:
        one.start()
        settled(one)
        pids = one.pids()
        assert {"ingest", "engine-BTC", "api-master", "api-0", "api-1", "simulator"} <= set(pids)
        heads = {name: one.word(name, Word.HEAD_DEPTH) for name in ("engine-BTC", "engine-ETH")}
        os.kill(one.pid, signal.SIGKILL)
        one.wait()
        for name, pid in pids.items():
            until(f"end of {name}", lambda pid=pid: gone(pid))
        one.start()
        settled(one)
        one.await_log("files of an earlier run")
        assert all(one.word(name, Word.HEAD_DEPTH) >= head for name, head in heads.items()), "history survives"
        pids = one.pids()
        os.kill(one.pid, signal.SIGTERM)
        os.kill(one.pid, signal.SIGINT)
        assert one.wait() == 0
        assert all(gone(pid) for pid in pids.values())
        assert not one.folder.exists()
        ends = [line["message"] for line in one.lines() if " stopped: " in line["message"]]
        assert all("exit 0" in end for end in ends), ends
