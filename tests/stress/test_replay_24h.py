"""24 hours of simulated time in one replay, maps on: all bounded, every frame, bar and minute there, and twice the same bytes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mpengine.config import load
from mpengine.engine.log_files import TOTAL_BYTES
from mpengine.engine.zones import MAX_ZONES_PER_SIDE
from mpengine.ingest.capture_file import CaptureLine
from mpengine.replay import Replay, Summary
from mpengine.schemas import LevelsDocument, decode
from shm.document import DocumentReader
from shm.frame_ring import FrameReader
from shm.paths import Paths
from shm.process_shell import open_descriptors
from shm.records import EVENT, DocumentId, Kind, PositionSide, TakerSide, Venue, offsets
from tests.engine.events import T0
from tests.engine.known_market import KnownMarket
from tests.engine.test_truth import MIX

MS_NS = 1_000_000
HOUR_NS = 3600 * 10**9
RINGS = ("depth", "liquidation", "candles", "liquidations")


def own_bytes() -> int:
    """Resident memory without mapped files: the pages of a ring count once they are touched, and a ring has a fixed size."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_bytes().split()
    return (int(resident) - int(shared)) * 4096


class Book:
    """Levels that rest around a price and are left behind by it: about 20 changes in a diff."""

    def __init__(self, price: float) -> None:
        self._rng, self._last_id = random.Random(11), 1000
        self._resting = {1: {round(price * 10) - 1}, -1: {round(price * 10) + 1}}

    def snapshot(self, ms: int) -> bytes:
        bid, ask = (next(iter(self._resting[side])) / 10 for side in (1, -1))
        return b'{"lastUpdateId":1000,"E":%d,"T":%d,"bids":[["%.1f","1"]],"asks":[["%.1f","1"]]}' % (ms, ms, bid, ask)

    def diff(self, price: float, ms: int) -> str:
        rng, tick = self._rng, round(price * 10)
        texts = []
        for side, sign in ((1, -1), (-1, 1)):
            resting = self._resting[side]
            gone = {at for at in resting if (at - tick) * sign <= 0} | set(rng.sample(sorted(resting), len(resting) // 10))
            new = {tick + sign * (1 + int(rng.expovariate(0.01))) for _ in range(10)} - gone
            self._resting[side] = (resting - gone) | new
            levels = [f'["{at / 10:.1f}","0"]' for at in sorted(gone)]
            texts.append(",".join(levels + [f'["{at / 10:.1f}","{rng.randint(1, 9)}.5"]' for at in sorted(new)]))
        previous, self._last_id = self._last_id, self._last_id + rng.randint(2, 5000)
        ids = f'"U":{previous},"u":{self._last_id},"pu":{previous}'
        data = f'"e":"depthUpdate","E":{ms},"T":{ms},"s":"BTCUSDT",{ids},"b":[{texts[0]}],"a":[{texts[1]}]'
        return f'{{"stream":"btcusdt@depth@500ms","data":{{{data}}}}}'


def split(body: bytes) -> list[bytes]:
    return [body[start:end] for start, end in offsets(body)]


def line_of(record: bytes, number: int) -> CaptureLine:
    """What the venue says where `KnownMarket` has a record."""
    kind, _, side, _, _, _, recv_ns, _, _, price, qty, _ = EVENT.unpack_from(record)
    ms = recv_ns // MS_NS
    if kind == Kind.OPEN_INTEREST:
        body = f'{{"openInterest":"{qty:.3f}","symbol":"BTCUSDT","time":{ms}}}'
        return CaptureLine(recv_ns, "binance", "rest", "rest", body.encode(), "open_interest", "BTC", 200)
    if kind == Kind.MARK:
        stream = "btcusdt@markPrice@1s"
        data = f'"e":"markPriceUpdate","E":{ms},"s":"BTCUSDT","p":"{price:.8f}","r":"0.0001","T":0'
    elif kind == Kind.TRADE:
        stream, sold = "btcusdt@aggTrade", str(side == TakerSide.SELL).lower()
        data = (
            f'"e":"aggTrade","E":{ms},"a":{number},"s":"BTCUSDT","p":"{price:.1f}","q":"{qty:.3f}","f":1,"l":1,"T":{ms},"m":{sold}'
        )
    else:
        stream, order = "!forceOrder@arr", "SELL" if side == PositionSide.LONG else "BUY"
        data = (
            f'"e":"forceOrder","E":{ms},"o":{{"s":"BTCUSDT","S":"{order}","o":"LIMIT","f":"IOC","q":"{qty:.3f}","p":"{price:.2f}",'
            f'"ap":"{price:.2f}","X":"FILLED","l":"{qty:.3f}","z":"{qty:.3f}","T":{ms}}}'
        )
    return CaptureLine(recv_ns, "binance", "market#1", "in", f'{{"stream":"{stream}","data":{{{data}}}}}'.encode())


def lines(minutes: int) -> Iterator[CaptureLine]:
    """A market with a book, trades, liquidations and open interest; its last line lies behind the end of the last minute."""
    market, book, number = KnownMarket(1, MIX), Book(100_000.0), 0
    yield CaptureLine(T0, "binance", "public#1", "open", b"")
    yield CaptureLine(T0, "binance", "rest", "rest", book.snapshot(T0 // MS_NS), "depth", "BTC", 200)
    for _ in range(minutes):
        for record in split(market.minute()):
            number += record[0] == Kind.TRADE
            if record[0] == Kind.CLOCK:
                continue
            line = line_of(record, number)
            yield line
            if record[0] == Kind.MARK:
                for late_ms in (1, 500):
                    ms = line.recv_ns // MS_NS + late_ms
                    text = book.diff(EVENT.unpack_from(record)[9], ms)
                    yield CaptureLine(ms * MS_NS, "binance", "public#1", "in", text.encode())
    yield line_of(split(market.minute())[0], number)


@dataclass
class Run:
    """A replay and what it held each hour. `digest`: of everything that it left."""

    folder: Path
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    zones: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    errors: int = 0
    digest: str = ""
    summary: Summary = field(default_factory=Summary)

    def of(self, minutes: int) -> Run:
        replay, next_ns = Replay(load("", {}), ["BTC"], self.folder), T0 + HOUR_NS
        for line in lines(minutes):
            replay.feed(line)
            if line.recv_ns >= next_ns:
                next_ns += HOUR_NS
                replay.flush()
                self._look(replay)
        replay.flush()
        self._look(replay)
        self.errors = replay.core("BTC").counters["errors"]
        self.summary = replay.finish(0.0)
        self.digest = digest_of(self.folder, self.summary)
        return self

    def _look(self, replay: Replay) -> None:
        self.memory.append(own_bytes())
        self.descriptors.append(open_descriptors())
        ladder = replay.core("BTC").books[Venue.BINANCE].ladder
        self.levels.append(sum(ladder.level_counts()[:2]) if ladder is not None else 0)
        with DocumentReader.open(Paths(self.folder, self.folder).documents("BTC")) as reader:
            found = {one: reader.latest(one) for one in (DocumentId.LEVELS, DocumentId.ZONES)}
        slot = found[DocumentId.LEVELS]
        assert slot is not None
        counts = decode(slot.payload, LevelsDocument).zones
        self.zones.append(max(counts.active_long, counts.active_short))
        self.documents.append(max(len(slot.payload) for slot in found.values() if slot is not None))


def digest_of(folder: Path, summary: Summary) -> str:
    """SHA-256 over all frames, records, documents, files and log lines, and the state at the end."""
    found, paths = hashlib.sha256(repr(summary.symbols).encode()), Paths(folder, folder)
    for ring in RINGS:
        with FrameReader.open(getattr(paths, ring)("BTC")) as reader:
            for slot in reader.history(0, reader.head()).slots:
                found.update(repr((ring, slot.frame_no, slot.ts_ns, slot.flags)).encode() + slot.payload)
    with DocumentReader.open(paths.documents("BTC")) as documents:
        for document in documents.documents():
            found.update(repr((document, documents.latest(document))).encode())
    for path in sorted(paths.symbol_dir("BTC").glob("**/*.json*")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


@pytest.mark.timeout(1800)
@pytest.mark.covers("E-H8")
@pytest.mark.parametrize("minutes", [25, pytest.param(24 * 60, marks=pytest.mark.stress)])
def test_a_day_is_bounded_and_twice_the_same(tmp_path: Path, minutes: int) -> None:
    run = Run(tmp_path / "first").of(minutes)
    summary, hours = run.summary, minutes // 60
    assert (summary.gaps, summary.resyncs, summary.refused, run.errors) == (0, 0, 0, 0), summary.refusals
    assert (summary.maps, summary.candles, summary.frames) == (minutes, minutes, 2 * minutes)
    with FrameReader.open(tmp_path / "first" / "BTC" / "liquidation.ring") as reader:
        assert [slot.ts_ns for slot in reader.history(0, reader.head()).slots] == [
            T0 + (n + 1) * 60 * 10**9 for n in range(minutes)
        ]
    assert len(set(run.descriptors)) == 1
    assert max(run.zones) <= MAX_ZONES_PER_SIDE
    if hours:
        files = sum(path.stat().st_size for path in (tmp_path / "first").glob("**/*.json*"))
        print(f"memory {run.memory}, levels {run.levels}, zones {run.zones}, documents {run.documents}, files {files}")
        assert max(run.memory[12:]) - max(run.memory[2:12]) < 2 << 20, run.memory
        for sizes in (run.levels, run.zones, run.documents):
            assert max(sizes[3:]) < 3 * max(sizes[:3]), sizes
        assert files < TOTAL_BYTES
    assert Run(tmp_path / "again").of(minutes).digest == run.digest
