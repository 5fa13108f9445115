"""One engine after the other over one event ring, each killed where a test says, beside a core that nothing disturbs."""

from __future__ import annotations

import signal
import threading
import time
from itertools import chain
from pathlib import Path

from mpengine.engine.core import CandleOut, FrameOut, SymbolCore
from mpengine.engine.liquidation_maps import MapOut, SaveOut, weights_name, zones_name
from mpengine.engine.liquidations import LiquidationOut
from mpengine.engine.storage import config_digest, load_checkpoint, state_digest
from shm.board_words import Word
from shm.frames import encode as encode_frame
from shm.records import EVENT, DocumentId, Kind, offsets
from tests.chaos.witness import Witness
from tests.engine.events import SECOND, T0, clock, depth, mark, snapshot
from tests.engine.known_market import KnownMarket
from tests.engine.test_process import Rig, python_path, wait_for
from tests.engine.test_truth import MIX

DYING = Path(__file__).with_name("dying")
WEIGHTS, ZONES = weights_name("BTC"), zones_name("BTC")


class Market:
    """Minutes of a known market and a book, a batch each, and the core that nothing disturbs. `price`: the last mark, USD."""

    def __init__(self, rig: Rig) -> None:
        self._market, self._rig, self._minutes, self._diffs, self.price = KnownMarket(1, MIX), rig, 0, 0, 0.0
        self.core = SymbolCore("BTC", rig.settings)
        self.states = [state_digest(self.core.state_of())]
        self.files: dict[str, list[bytes]] = {ZONES: [], WEIGHTS: []}
        self.payloads: dict[str, list[bytes]] = {"depth": [], "liquidation": [], "candles": [], "liquidations": []}
        self.documents: dict[DocumentId, bytes] = {}

    def minute(self) -> None:
        """One more, with everything that a market has."""
        records = _split(self._market.minute())
        self._give(b"".join(chain.from_iterable(self._with_book(record) for record in records)))

    def quiet(self, minutes: int = 1) -> None:
        """Minutes in which the price stands still, nobody trades and nobody tells of open interest."""
        for _ in range(minutes):
            start = 60 * self._minutes
            self._give(b"".join(mark(start + second, self.price) for second in range(60)) + clock(start + 60))

    def pass_by(self, minutes: int) -> None:
        """Time in which nothing is told; only quiet minutes can follow."""
        self._minutes += minutes

    def _with_book(self, record: bytes) -> list[bytes]:
        """The record, and behind a mark what it makes of the book: one level each side of it."""
        if record[0] != Kind.MARK:
            return [record]
        at, price, before = (EVENT.unpack_from(record)[6] - T0) / SECOND, round(EVENT.unpack_from(record)[9], 1), self.price
        self.price, number = price, self._diffs
        self._diffs += 1
        bid, ask = [(price - 10.0, 1.0)], [(price + 10.0, 1.0)]
        if not number:
            return [record, snapshot(at, 0, bid, ask), depth(at, 0, 1, 0, [], [])]
        gone = (before - 10.0, 0.0), (before + 10.0, 0.0)
        moved = ([gone[0], *bid], [gone[1], *ask]) if price != before else ([], [])
        return [record, depth(at, number + 1, number + 1, number, *moved)]

    def _give(self, body: bytes) -> None:
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

    def start_and_kill(self, after_s: float) -> bool:
        """An engine that is killed so long after its start; whether it had come to work."""
        timer = threading.Timer(after_s, lambda: self.rig.process.kill() if self.rig.process is not None else None)
        timer.start()
        came = self.rig.start(**self._env).poll() is None
        timer.join()
        self.rig.kill()
        return came

    def settle(self) -> None:
        """The engine has applied and saved everything, and publishing goes on where it was."""
        wait_for(lambda: self.rig.word(Word.CHECKPOINT_POSITION) == self.rig.writer.head)
        self.check()
        assert self.witness.payloads("liquidation") == self.market.payloads["liquidation"], "nothing is missing, nothing twice"

    def die(self, name: str, step: str, *, quiet: bool = False) -> None:
        """The engine dies in this write. quiet: in minutes in which nothing happens."""
        process = self.rig.process
        assert process is not None
        self.order.write_text(f"BTC/{name} {step}", "utf-8")
        deadline = time.monotonic() + 30
        while process.poll() is None:
            assert time.monotonic() < deadline, f"no write of {name}"
            self.market.quiet() if quiet else self.market.minute()
            wait_for(lambda: self.rig.word(Word.BACKLOG) == 0 or process.poll() is not None)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
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


def _split(body: bytes) -> list[bytes]:
    return [body[first:last] for first, last in offsets(body)]
