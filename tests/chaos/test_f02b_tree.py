"""F2, during writes, on the whole tree: engines die again and again in the middle of saving and publishing (`dying`)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from mpengine.config import Settings, decode
from mpengine.engine.liquidation_maps import zones_name
from mpengine.engine.storage import Checkpoint, config_digest, load_checkpoint, load_json
from mpengine.replay import Replay, replay_files
from shm.board_words import Word
from shm.paths import Paths
from shm.records import DocumentId
from tests.chaos.rig import REAL, SYMBOLS, lives, settled
from tests.chaos.witness import RINGS, Witness
from tests.supervisor.rig import Tree, gone, tree, until

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("dying_tree.py")
POINTS = [
    ("checkpoint", "half"), (f"documents-{int(DocumentId.STATUS)}", "5"), ("checkpoint", "unnamed"), ("depth.ring", "3"),
    ("checkpoint", "created"), ("liquidation.ring", "3"), ("checkpoint", "named"), ("candles.ring", "5"),
]  # fmt: skip
"""Of the whole tree in real time; every step of every write: `test_f02b_writes.py`."""


class Killer:
    """Lets engines of a tree die in their writes, and knows what must be there ever after."""

    def __init__(self, one: Tree, order: Path) -> None:
        self._tree, self._order = one, order
        self.settings: Settings = decode(one.paths.settings.read_bytes())
        self.witnesses = {symbol: Witness(one.paths, symbol) for symbol in SYMBOLS}
        self._checkpoints: dict[str, Checkpoint] = {}
        self.kills = 0

    def kill_in(self, symbol: str, name: str, step: str, deadline_s: float = 30.0) -> None:
        """SIGKILL to the engine in this write; its successor goes on."""
        one, engine, folder = self._tree, f"engine-{symbol}", self._tree.paths.symbol_dir(symbol)
        pid, generation = one.child(engine), one.word(engine, Word.GENERATION)
        self.witnesses[symbol].look()
        self._order.with_suffix(".new").write_text(f"{symbol}/{name} {step}", "utf-8")
        self._order.with_suffix(".new").rename(self._order)
        until(f"{engine} writes {name}", lambda: not self._order.exists() and gone(pid), deadline_s)
        left = set(folder.glob(".*.tmp-*"))
        one.await_new_life(engine, generation)
        until("what was half-written is gone", lambda: not left & set(folder.glob(".*.tmp-*")))
        self.kills += 1
        self.check(symbol)

    def check(self, symbol: str) -> None:
        """Everything that was seen is there; the files are whole and not older."""
        self.witnesses[symbol].look()
        paths = self._tree.paths
        load_json(paths.symbol_dir(symbol) / zones_name(symbol))
        found = load_checkpoint(paths.checkpoint(symbol), symbol, config_digest(self.settings, symbol))
        before = self._checkpoints.get(symbol)
        if before is not None:
            assert found is not None
            assert found.ring_uuid == before.ring_uuid
            assert found.position >= before.position
        if found is not None:
            self._checkpoints[symbol] = found


@contextmanager
def dying(order: Path, **settings: str) -> Iterator[Tree]:
    """A tree whose engines die where the file `order` tells them to."""
    with tree(
        {**REAL, "supervisor.backoff_max_s": "1.0", **settings}, command=(str(DRIVER),), env={"DIE_ORDER": str(order)}
    ) as one:
        one.start()
        settled(one)
        for symbol in SYMBOLS:
            until(f"a checkpoint of {symbol}", lambda symbol=symbol: one.word(f"engine-{symbol}", Word.CHECKPOINTS))
        yield one


@pytest.mark.covers("F2", "E-M5", "X-H2", "P1")
def test_engines_that_die_while_they_write(tmp_path: Path) -> None:
    status = f"documents-{int(DocumentId.STATUS)}"
    with dying(tmp_path / "order") as one:
        killer, others = Killer(one, tmp_path / "order"), lives(one, *(f"engine-{symbol}" for symbol in SYMBOLS))
        for symbol, name, step in (("BTC", "checkpoint", "half"), ("ETH", "checkpoint", "unnamed"), ("BTC", status, "3")):
            killer.kill_in(symbol, name, step)
        settled(one)
        for symbol in SYMBOLS:
            killer.check(symbol)
        assert lives(one, *(f"engine-{symbol}" for symbol in SYMBOLS)) == others
        assert one.stop() == 0


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.covers("F2")
def test_minutes_of_deaths_in_writes_end_in_what_an_undisturbed_run_publishes(tmp_path: Path) -> None:
    """Ingest is not touched, so its record of the session, replayed, is the run that nobody disturbed."""
    with dying(tmp_path / "order", **{"capture.enabled": "true"}) as one:
        killer, end = Killer(one, tmp_path / "order"), time.monotonic() + 300
        points = cycle((symbol, *point) for point in POINTS for symbol in SYMBOLS)
        while time.monotonic() < end:
            killer.kill_in(*next(points), deadline_s=75)
        until("not the end of a minute", lambda: 20 <= time.time() % 60 <= 40, 60)
        for symbol in SYMBOLS:
            until("nothing waits", lambda symbol=symbol: one.word(f"engine-{symbol}", Word.BACKLOG) == 0)
        assert one.stop() == 0
        replay_files(sorted(one.paths.captures.glob("*.zst")), Replay(killer.settings, SYMBOLS, tmp_path / "replayed"))
        for symbol in SYMBOLS:
            killer.check(symbol)
            live, right = killer.witnesses[symbol], Witness(Paths(tmp_path / "replayed", tmp_path), symbol)
            right.look()
            counts = {name: len(live.frames[name]) for name in RINGS}
            print(f"{symbol}: {killer.kills} deaths; {counts}")
            for name in RINGS:
                assert live.payloads(name) == right.payloads(name)[: counts[name]], name
            assert counts["liquidation"] >= 5
            for document in (DocumentId.LEVELS, DocumentId.ZONES):
                assert live.documents[document].payload == right.documents[document].payload
