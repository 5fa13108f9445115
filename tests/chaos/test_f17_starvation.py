"""F17: the whole tree gets a tenth of the time. It becomes slow, and nobody is killed for that."""

from __future__ import annotations

import os
import signal
import time

import pytest

from shm.board_words import Word
from tests.chaos.rig import CHILDREN, ENGINES, WORKERS, await_progress, lives
from tests.supervisor.rig import Tree

pytestmark = pytest.mark.slow

PERIOD_S, SHARE, LENGTH_S = 0.1, 0.1, 8.0


@pytest.mark.covers("F17", "P2")
def test_a_tenth_of_the_time_is_no_hang(real: Tree) -> None:
    """Stopped and continued by signals: what a CPU quota does, without the rights that setting one takes."""
    before, pids = lives(real), [real.pid, *(real.child(name) for name in (*CHILDREN, *WORKERS))]
    kills = {name: real.word(name, Word.KILLS) for name in (*CHILDREN, *WORKERS)}
    end = time.monotonic() + LENGTH_S
    try:
        while time.monotonic() < end:
            for number, length_s in ((signal.SIGSTOP, PERIOD_S * (1 - SHARE)), (signal.SIGCONT, PERIOD_S * SHARE)):
                for pid in pids:
                    os.kill(pid, number)
                time.sleep(length_s)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    await_progress(real, [*ENGINES, "ingest"])
    assert {name: real.word(name, Word.KILLS) for name in kills} == kills
    assert lives(real) == before
