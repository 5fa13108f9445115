"""F1: kill -9 of ingest. It comes back, asks for snapshots, the gap is known, and nobody else notices but by the age of data."""

from __future__ import annotations

import os
import signal

import pytest

from shm.board_words import Word
from tests.chaos.rig import ENGINES, await_progress, get, lives
from tests.supervisor.rig import Tree, until

pytestmark = pytest.mark.slow


@pytest.mark.covers("F1", "P1", "P7")
def test_killed_ingest_comes_back_with_a_new_epoch_and_engines_see_the_gap(real: Tree) -> None:
    others, generation, epoch = lives(real, "ingest"), real.word("ingest", Word.GENERATION), real.word("ingest", Word.EPOCH)
    gaps = {name: real.word(name, Word.GAPS) for name in ENGINES}
    snapshots = {name: real.word(name, Word.SNAPSHOTS) for name in ENGINES}
    os.kill(real.child("ingest"), signal.SIGKILL)
    real.await_new_life("ingest", generation)
    assert real.word("ingest", Word.EPOCH) == epoch + 1
    for name in ENGINES:
        until(f"{name} sees the gap", lambda name=name: real.word(name, Word.GAPS) > gaps[name])
        until(f"{name} gets its snapshot", lambda name=name: real.word(name, Word.SNAPSHOTS) > snapshots[name])
    await_progress(real, ENGINES)
    assert lives(real, "ingest") == others


@pytest.mark.covers("F1")
def test_served_data_keeps_its_values_while_ingest_is_away(real: Tree) -> None:
    before, generation = get(real, "/health")[1]["symbols"], real.word("ingest", Word.GENERATION)
    os.kill(real.child("ingest"), signal.SIGKILL)
    after = get(real, "/health")[1]["symbols"]
    for symbol, found in after.items():
        assert found["book"] != "none"
        assert (found["depth_seq"] is None) == (before[symbol]["depth_seq"] is None), "never zeroed, never hidden"
    real.await_new_life("ingest", generation)
