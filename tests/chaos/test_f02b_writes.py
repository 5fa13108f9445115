"""F2, during every write: an engine that dies at each step of saving and publishing loses nothing that it had committed.

One engine after the other dies where it is told to (`dying/sitecustomize.py`), over one event ring. A core of the test's own gets
the same records and is never disturbed: every state, file, frame, record and document must be one of its.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpengine.engine.core import CandleOut, FrameOut, SymbolCore
from mpengine.engine.liquidation_maps import MapOut, SaveOut, weights_name, zones_name
from mpengine.engine.liquidations import LiquidationOut
from mpengine.engine.storage import config_digest, load_checkpoint, state_digest
from shm.board_words import Word
from shm.frames import encode as encode_frame
from shm.records import DocumentId, offsets
from tests.chaos.witness import Witness
from tests.engine.known_market import KnownMarket
from tests.engine.test_core import book_start, chain
from tests.engine.test_process import Rig, python_path, wait_for
from tests.engine.test_truth import MIX

pytestmark = pytest.mark.slow
DYING = Path(__file__).with_name("dying")
WEIGHTS, ZONES = weights_name("BTC"), zones_name("BTC")
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
SAVES = [("checkpoint", "half"), (ZONES, "unnamed"), (WEIGHTS, "half"), ("checkpoint", "named"), (ZONES, "created")]
PUBLISHES = [
    ("liquidation.ring", "3"), ("candles.ring", "5"), ("liquidations.ring", "2"), ("depth.ring", "4"),
    (f"documents-{int(DocumentId.ZONES)}", "4"),
]  # fmt: skip
stress = pytest.mark.stress


class Market:
    """Minutes of a known market and a book, as batches, and the core that nothing disturbs."""

    def __init__(self, rig: Rig) -> None:
        self._market, self._rig, self._minutes = KnownMarket(1, MIX), rig, 0
        self.core = SymbolCore("BTC", rig.settings)
        self.states = [state_digest(self.core.state_of())]
        self.files: dict[str, list[bytes]] = {ZONES: [], WEIGHTS: []}
        self.payloads: dict[str, list[bytes]] = {"depth": [], "liquidation": [], "candles": [], "liquidations": []}
        self.documents: dict[DocumentId, bytes] = {}

    def minute(self) -> None:
        """One more."""
        start = 60.0 * self._minutes
        book = (book_start() if not self._minutes else b"") + chain(start + 0.5, start + 60, 0.5, 105 + 120 * self._minutes)
        records = [body[first:last] for body in (book, self._market.minute()) for first, last in offsets(body)]
        body = b"".join(sorted(records, key=lambda record: int.from_bytes(record[16:24], "little")))
        self._minutes += 1
        self._rig.put(body)
        self.core.on_batch(body)
        self._take()
        self.states.append(state_digest(self.core.state_of()))

    def _take(self) -> None:
        payloads = self.payloads
        for out in self.core.outputs():
            if isinstance(out, SaveOut):
                self.files[out.file].append(out.encoded())
            elif isinstance(out, FrameOut):
                payloads["depth"].append(encode_frame(out.frame))
            elif isinstance(out, MapOut):
                payloads["liquidation"].append(encode_frame(out.frame))
                self.documents |= {DocumentId.LEVELS: out.levels, DocumentId.ZONES: out.zones}
            elif isinstance(out, CandleOut):
                payloads["candles"].append(out.record.tobytes())
            elif isinstance(out, LiquidationOut):
                payloads["liquidations"].append(out.record.tobytes())


class Lives:
    """Engines that die one after the other, and what their files and rings must be each time."""

    def __init__(self, rig: Rig, order: Path) -> None:
        self.rig, self.order, self.market = rig, order, Market(rig)
        self.witness = Witness(rig.paths, "BTC")
        self._folder = rig.paths.symbol_dir("BTC")
        self._committed = {ZONES: -1, WEIGHTS: -1}
        self._state = 0
        self._env = {"DIE_ORDER": str(order), "PYTHONPATH": python_path(DYING)}

    def start(self) -> None:
        """An engine that has come to the end of the ring and saved: no two of them die in the same record."""
        self.rig.start(**self._env)
        assert not list(self._folder.glob(".*.tmp-*")), "what a killed process left half-written is gone"
        self.witness.look()
        self.market.minute()
        self.settle()

    def settle(self) -> None:
        """The engine has applied and saved everything, and publishing goes on where it was."""
        wait_for(lambda: self.rig.word(Word.CHECKPOINT_POSITION) == self.rig.writer.head)
        self.check()
        assert self.witness.payloads("liquidation") == self.market.payloads["liquidation"], "nothing is missing, nothing twice"

    def die(self, name: str, step: str) -> None:
        """The engine dies in this write."""
        process = self.rig.process
        assert process is not None
        self.order.write_text(f"{name} {step}", "utf-8")
        deadline = time.monotonic() + 30
        while process.poll() is None:
            assert time.monotonic() < deadline, f"no write of {name}"
            self.market.minute()
            wait_for(lambda: self.rig.word(Word.BACKLOG) == 0 or process.poll() is not None)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        self.order.unlink()
        self.check()

    def check(self) -> None:
        """What is there is the undisturbed core's, and not older than what was there before."""
        self.witness.look()
        found = load_checkpoint(self.rig.paths.checkpoint("BTC"), "BTC", config_digest(self.rig.settings, "BTC"))
        if found is not None:
            self._state = self.market.states.index(state_digest(found.state), self._state)
        for name, contents in self.market.files.items():
            if (path := self._folder / name).exists():
                self._committed[name] = contents.index(path.read_bytes(), max(0, self._committed[name]))
            else:
                assert self._committed[name] < 0

    def end(self) -> None:
        """Stop in order; everything is as if nobody had died."""
        self.rig.start()
        self.rig.stop()
        self.witness.look()
        market, core = self.market, self.market.core
        assert self.rig.final_state() == market.states[-1]
        assert {name: (self._folder / name).read_bytes() for name in (ZONES, WEIGHTS)} == {
            file.file: file.encoded() for file in core.files()
        }
        for name, payloads in market.payloads.items():
            assert self.witness.payloads(name) == payloads, name
        for document, data in market.documents.items():
            assert self.witness.documents[document].payload == data
        assert (self.rig.word(Word.QUARANTINED), self.rig.word(Word.GAPS), self.rig.word(Word.WRITE_ERRORS)) == (0, 0, 0)


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
