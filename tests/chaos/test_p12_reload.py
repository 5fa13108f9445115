"""P12: reload of the running tree under load."""

from __future__ import annotations

import os
import signal

import pytest

from shm.board_words import State, Word
from tests.chaos.conftest import settings_file
from tests.chaos.rig import ENGINES, WORKERS, Load, lives
from tests.supervisor.rig import Tree, until

pytestmark = pytest.mark.slow


@pytest.mark.covers("P12")
def test_reload_restarts_engines_and_rolls_workers_without_a_refused_connection(real: Tree) -> None:
    others, before = lives(real, *ENGINES, *WORKERS), lives(real)
    with Load(real, clients=2) as load:
        settings_file(real).write_text("[engine]\nprice_reject_pct = 0.45\n", "utf-8")
        os.kill(real.pid, signal.SIGHUP)
        for name in ENGINES:
            real.await_new_life(name, before[name])
        for name in WORKERS:
            until(
                f"a new {name}",
                lambda name=name: real.word(name, Word.EPOCH) > before[name] and real.word(name, Word.STATE) == State.LIVE,
            )
        load.await_more()
    assert load.total("errors_5xx") == 0
    assert lives(real, *ENGINES, *WORKERS) == others
