"""F2: kill -9 of each engine in turn, and of all at once. The others go on; the dead continue from their checkpoint."""

from __future__ import annotations

import os
import signal

import pytest

from shm.board_words import Word
from tests.chaos.rig import ENGINES, await_progress, lives, progress
from tests.supervisor.rig import Tree, until

pytestmark = pytest.mark.slow


@pytest.mark.covers("F2", "P1")
@pytest.mark.parametrize("name", ENGINES)
def test_killed_engine_continues_and_the_others_are_untouched(real: Tree, name: str) -> None:
    until("a checkpoint", lambda: real.word(name, Word.CHECKPOINTS))
    others, generation, epoch = lives(real, name), real.word(name, Word.GENERATION), real.word(name, Word.EPOCH)
    heads = real.word(name, Word.HEAD_DEPTH), real.word(name, Word.HEAD_CANDLES)
    rest = [engine for engine in ENGINES if engine != name]
    moved = progress(real, rest)
    os.kill(real.child(name), signal.SIGKILL)
    real.await_new_life(name, generation)
    assert real.word(name, Word.EPOCH) == epoch + 1
    await_progress(real, [name, *rest])
    until("the backlog is worked off", lambda: real.word(name, Word.BACKLOG) == 0)
    assert (real.word(name, Word.HEAD_DEPTH), real.word(name, Word.HEAD_CANDLES)) >= heads, "numbers go on, none comes again"
    assert all(now > moved[engine] for engine, now in progress(real, rest).items())
    assert lives(real, name) == others


@pytest.mark.covers("F2")
def test_all_engines_killed_at_once(real: Tree) -> None:
    before, others = lives(real), lives(real, *ENGINES)
    for name in ENGINES:
        os.kill(real.child(name), signal.SIGKILL)
    for name in ENGINES:
        real.await_new_life(name, before[name])
    await_progress(real, ENGINES)
    assert lives(real, *ENGINES) == others
