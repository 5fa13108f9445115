"""F5: SIGSTOP. Two seconds are absorbed, longer is a hang: SIGKILL, and another takes its place."""

from __future__ import annotations

import os
import signal

import pytest

from shm.board_words import State, Word
from supervisor.policy import HangReason
from tests.chaos.rig import CHILDREN, ENGINES, WORKERS, await_progress, frozen_for, lives, stopped
from tests.supervisor.rig import Tree, gone, until

pytestmark = pytest.mark.slow


@pytest.mark.covers("F5")
def test_two_seconds_are_absorbed_by_every_process(real: Tree) -> None:
    before = lives(real)
    with stopped(real.child(name) for name in (*CHILDREN, *WORKERS)):
        frozen_for(2.0)
    await_progress(real, [*ENGINES, "ingest"])
    assert lives(real) == before


@pytest.mark.covers("F5", "P2", "P3")
def test_longer_is_a_hang_of_each_process(real: Tree) -> None:
    """Engine, ingest, master and worker at once: each is found by itself. The engine goes first, since it needs input to hang."""
    victims = ("engine-ETH", "ingest", "api-0")
    before, others = lives(real), lives(real, *victims)
    kills, pids = {name: real.word(name, Word.KILLS) for name in victims}, {name: real.child(name) for name in victims}
    os.kill(pids["engine-ETH"], signal.SIGSTOP)
    until("the engine is found", lambda: real.word("engine-ETH", Word.KILLS) > kills["engine-ETH"])
    for name in ("ingest", "api-0"):
        os.kill(pids[name], signal.SIGSTOP)
    for name in ("engine-ETH", "ingest"):
        real.await_new_life(name, before[name])
    until("a new worker", lambda: real.word("api-0", Word.EPOCH) > before["api-0"])
    for name in victims:
        assert real.word(name, Word.KILLS) == kills[name] + 1
        assert gone(pids[name])
    assert real.word("engine-ETH", Word.HANG_REASON) == HangReason.NO_PROGRESS
    assert real.word("api-0", Word.HANG_REASON) == HangReason.NO_BEAT
    assert lives(real, *victims) == others


@pytest.mark.covers("F5")
def test_stopped_master_is_replaced_with_its_pool(real: Tree) -> None:
    generation, pid = real.word("api-master", Word.GENERATION), real.child("api-master")
    workers = [real.child(name) for name in WORKERS]
    os.kill(pid, signal.SIGSTOP)
    real.await_new_life("api-master", generation)
    assert gone(pid)
    assert all(gone(worker) for worker in workers)
    until("workers", lambda: all(real.word(name, Word.STATE) == State.LIVE for name in WORKERS))


@pytest.mark.covers("F17")
def test_supervisor_that_stood_still_kills_nobody(real: Tree) -> None:
    before = lives(real)
    with stopped([*(real.child(name) for name in CHILDREN)]):
        os.kill(real.pid, signal.SIGSTOP)
        frozen_for(4.0)
        length = len(real.log())
        os.kill(real.pid, signal.SIGCONT)
        real.await_log_match("the supervisor itself was away for", length)
    await_progress(real, [*ENGINES, "ingest"])
    assert lives(real) == before


@pytest.mark.covers("F6", "P12")
def test_stack_dumps_of_all_processes_on_request(real: Tree) -> None:
    before, length = lives(real), len(real.log())
    os.kill(real.pid, signal.SIGUSR1)
    for name in CHILDREN:
        real.await_log_match(rf'"process": "{name}".*hread 0x', length)
    # Workers write into the pipe of their master, which hands the request on.
    real.await_log_match(r'"process": "api-master".*uvicorn', length)
    assert lives(real) == before
