"""Readiness and the watchdog, as functions of the states of the children."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from selectors import DefaultSelector

import pytest

from shm.board import BoardRow
from shm.board_words import State, Word
from supervisor.keeper import Keeper
from supervisor.plan import build
from supervisor.runtime import Runtime
from supervisor.sd_notify import Notifier
from supervisor.telling import ChildrenFile, OwnRow, Teller, serving, worth_feeding
from tests.supervisor.test_plan import settings


class Recorder(Notifier):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__({})
        self.watchdog = True
        self.heard: list[str] = []

    def send(self, *lines: str) -> None:
        self.heard += lines


class Stage:
    """A keeper whose children have the states that the test gives them."""

    def __init__(self, directory: Path) -> None:
        folder = directory / "run" / "a"
        folder.mkdir(parents=True)
        plan = build(settings(f"[instance]\nruntime_dir = '{folder}'\n[engine]\nring_units = 4096\n"))
        self.runtime = Runtime(plan)
        self.selector = DefaultSelector()
        self.keeper = Keeper(plan, self.runtime, {}, self.selector, Random(1))
        self.rows = [row.name for row in plan.rows]

    def states(self, state: State, **others: State) -> None:
        for child in self.keeper.children:
            child.enter(others.get(child.spec.name.replace("-", "_"), state), 0)

    def worker_is(self, state: State) -> None:
        with BoardRow.attach(self.runtime.paths.board, self.rows.index("api-1")) as row:
            row.set(Word.STATE, state)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    one = Stage(tmp_path)
    yield one
    one.selector.close()
    one.runtime.close()


@pytest.mark.parametrize(
    ("others", "ready"),
    [
        ({}, True),
        ({"engine_BTC": State.FAILED}, True),
        ({"engine_BTC": State.FAILED, "engine_ETH": State.FAILED}, False),
        ({"engine_BTC": State.STARTING}, False),
        ({"engine_BTC": State.BACKOFF}, False),
        ({"ingest": State.FAILED}, False),
        ({"api_master": State.FAILED}, False),
        ({"api_master": State.HUNG}, False),
    ],
)
def test_ready_when_the_first_round_is_over_and_worth_it(stage: Stage, others: dict[str, State], ready: bool) -> None:
    stage.worker_is(State.LIVE)
    stage.states(State.LIVE, **others)
    assert serving(stage.keeper) == ready


def test_listening_without_a_worker_is_not_ready(stage: Stage) -> None:
    stage.states(State.LIVE)
    assert not serving(stage.keeper)
    stage.worker_is(State.STARTING)
    assert not serving(stage.keeper)
    stage.worker_is(State.LIVE)
    assert serving(stage.keeper)


@pytest.mark.covers("X-L4")
def test_watchdog_is_fed_every_three_seconds_and_only_while_it_is_worth_it(stage: Stage) -> None:
    notifier, announced = Recorder(), []
    teller = Teller(notifier, lambda: announced.append(True))
    second = 1_000_000_000
    stage.worker_is(State.LIVE)
    stage.states(State.STARTING)
    teller.running(stage.keeper, 10 * second)
    assert "READY=1" not in notifier.heard
    stage.states(State.LIVE)
    for tenth in range(100, 200):
        teller.running(stage.keeper, tenth * second // 10)
    assert notifier.heard.count("READY=1") == len(announced) == 1
    assert notifier.heard.count("WATCHDOG=1") == 4
    stage.states(State.LIVE, ingest=State.HUNG)
    for tenth in range(200, 400):
        teller.running(stage.keeper, tenth * second // 10)
    assert notifier.heard.count("WATCHDOG=1") == 4
    assert not worth_feeding(stage.keeper)
    assert notifier.heard[-1] == "STATUS=4 of 5 processes live, ingest HUNG"


def test_own_row_and_children_file(stage: Stage) -> None:
    board_row = stage.runtime.board.row(0)
    row = OwnRow(board_row)
    row.beat(5_000_000_000)
    assert board_row.get(Word.STATE) == State.LIVE
    assert board_row.get(Word.EPOCH) == board_row.get(Word.TURNS) == 1
    assert board_row.get(Word.RSS_BYTES) > 1 << 20
    file = ChildrenFile()
    file.keep(stage.keeper, stage.runtime)
    written = stage.runtime.paths.children.stat().st_mtime_ns
    file.keep(stage.keeper, stage.runtime)
    assert stage.runtime.paths.children.stat().st_mtime_ns == written, "nothing has ended: nothing is written"


def test_full_tmpfs_does_not_end_the_supervisor(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage.runtime, "write_children", full)
    ChildrenFile().keep(stage.keeper, stage.runtime)
