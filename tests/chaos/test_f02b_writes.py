"""F2, during every write: an engine that dies at each step of saving and publishing loses nothing that it had committed.

One engine after the other dies where it is told to (`dying/sitecustomize.py`), over one event ring. A core of the test's own gets
the same records and is never disturbed: every state, file, frame, record and document must be one of its.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shm.records import DocumentId
from tests.chaos.lives import WEIGHTS, ZONES, Lives
from tests.engine.test_process import Rig

pytestmark = pytest.mark.slow
FILES = ("checkpoint", ZONES, WEIGHTS)
STEPS = ("created", "half", "unsynced", "unnamed", "named")
Point = tuple[str, str]

STORES = {
    **dict.fromkeys(("depth.ring", "liquidation.ring", "candles.ring", "liquidations.ring"), 7),  # intent, stamp, body, digest,
    **{f"documents-{int(one)}": 8 for one in (DocumentId.LEVELS, DocumentId.ZONES, DocumentId.BOOK)},  # stamp, head, beat
}
"""How many stores a publish takes. The levels are the first thing that a minute of the maps writes, its frame the last."""
EVERY_SAVE = [(file, step) for file in FILES for step in STEPS]
EVERY_PUBLISH = [(name, str(store)) for name, count in STORES.items() for store in range(count)]
SAVES = [("checkpoint", "half"), (ZONES, "unnamed"), (WEIGHTS, "half")]
PUBLISHES = [("liquidation.ring", "3"), ("candles.ring", "5"), (f"documents-{int(DocumentId.ZONES)}", "4")]
stress = pytest.mark.stress


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    rig = Rig(tmp_path)
    try:
        yield Lives(rig, tmp_path / "order")
    finally:
        rig.close()


def run(lives: Lives, points: list[Point]) -> None:
    for name, step in points:
        lives.start()
        lives.die(name, step)
    lives.end()
    frames = {name: len(slots) for name, slots in lives.witness.frames.items()}
    print(f"{len(points)} deaths, {len(lives.market.states)} minutes, {frames}")


@pytest.mark.timeout(600)
@pytest.mark.covers("F2", "E-M5", "X-H2")
@pytest.mark.parametrize("points", [SAVES, pytest.param(EVERY_SAVE, marks=stress)], ids=["some", "every"])
def test_an_engine_that_dies_while_it_saves(lives: Lives, points: list[Point]) -> None:
    run(lives, points)


@pytest.mark.timeout(600)
@pytest.mark.covers("F2", "E-M6")
@pytest.mark.parametrize("points", [PUBLISHES, pytest.param(EVERY_PUBLISH, marks=stress)], ids=["some", "every"])
def test_an_engine_that_dies_while_it_publishes(lives: Lives, points: list[Point]) -> None:
    run(lives, points)


@pytest.mark.timeout(600)
@pytest.mark.covers("F2", "E-M6")
@pytest.mark.stress
@pytest.mark.parametrize("rounds", [40])
def test_an_engine_that_is_killed_at_random_instants(lives: Lives, rounds: int) -> None:
    """Also while it starts and while it catches up, twice in a row."""
    rng, early = random.Random(rounds), 0

    def feed() -> None:
        for _ in range(rng.randint(1, 4)):
            lives.market.minute()

    for _ in range(rounds):
        lives.start()
        feed()
        time.sleep(rng.random() * 0.1)  # the random instant
        lives.rig.kill()
        for _ in range(2):
            lives.check()
            feed()
            early += not lives.start_and_kill(rng.random())
        lives.check()
    lives.end()
    print(f"{3 * rounds} kills, {early} of them before the engine was live")
