"""F3: kill -9 of an API worker, of all workers, of the gunicorn master, under load."""

from __future__ import annotations

import os
import signal

import pytest

from shm.board_words import State, Word
from tests.chaos.rig import ENGINES, WORKERS, Load, await_progress, lives
from tests.supervisor.rig import Tree, gone, until

pytestmark = pytest.mark.slow


def await_new_worker(one: Tree, name: str, epoch: int) -> None:
    """Until another process has the row and serves."""
    until(f"a new {name}", lambda: one.word(name, Word.EPOCH) > epoch and one.word(name, Word.STATE) == State.LIVE)


@pytest.mark.covers("F3")
@pytest.mark.parametrize("victims", [WORKERS[:1], WORKERS], ids=["one", "all"])
def test_killed_workers_are_replaced_and_only_their_connections_drop(real: Tree, victims: tuple[str, ...]) -> None:
    others, before = lives(real, *victims), lives(real)
    with Load(real) as load:
        for name in victims:
            os.kill(real.child(name), signal.SIGKILL)
        for name in victims:
            await_new_worker(real, name, before[name])
        load.await_more()
    assert load.total("errors_5xx") <= 0.05 * load.total("ok")
    assert load.total("dropped") <= 3 * len(load.answers), "each client is cut off once, or while it connects"
    assert lives(real, *victims) == others


@pytest.mark.covers("F3", "P8")
def test_killed_master_takes_its_workers_along_and_the_pool_comes_back(real: Tree) -> None:
    others, generation = lives(real, "api-master", *WORKERS), real.word("api-master", Word.GENERATION)
    workers = {name: (real.child(name), real.word(name, Word.EPOCH)) for name in WORKERS}
    with Load(real) as load:
        os.kill(real.child("api-master"), signal.SIGKILL)
        for name, (pid, _) in workers.items():
            until(f"the end of {name}", lambda pid=pid: gone(pid))
        real.await_new_life("api-master", generation)
        for name, (_, epoch) in workers.items():
            await_new_worker(real, name, epoch)
        load.await_more()
    assert load.total("errors_5xx") <= 0.05 * load.total("ok")
    await_progress(real, ENGINES, steps=1)
    assert lives(real, "api-master", *WORKERS) == others


@pytest.mark.covers("P12")
def test_rolling_restart_refuses_no_connection(real: Tree) -> None:
    others = lives(real, *WORKERS)
    workers = {name: real.word(name, Word.EPOCH) for name in WORKERS}
    with Load(real, clients=2) as load:
        os.kill(real.pid, signal.SIGUSR2)
        for name, epoch in workers.items():
            await_new_worker(real, name, epoch)
        load.await_more()
    assert load.total("errors_5xx") == 0
    assert lives(real, *WORKERS) == others
