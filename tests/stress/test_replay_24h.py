"""24 hours of simulated time in one replay: memory and descriptors flat, every frame and bar there, the book bounded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpengine.config import load
from mpengine.ingest.capture_file import CaptureLine
from mpengine.replay import Replay
from shm.process_shell import open_descriptors
from shm.records import Venue

HOURS = 24
START_MS = 1_700_000_040_000
MS = 1_000_000


def own_bytes() -> int:
    """Resident memory without mapped files: the pages of a ring count once they are touched, and a ring has a fixed size."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_bytes().split()
    return (int(resident) - int(shared)) * 4096


def lines(seconds: int) -> Iterator[CaptureLine]:
    """A market that walks: twice a second a diff of about 20 levels, a mark, now and then trades; levels are left behind it."""
    rng = random.Random(11)
    price = 1_000_000  # ticks of 0.1
    last_id = 1000
    resting: dict[int, set[int]] = {1: set(), -1: set()}
    body = b'{"lastUpdateId":1000,"E":%d,"T":%d,"bids":[["99999.9","1"]],"asks":[["100000.1","1"]]}' % (START_MS, START_MS)
    yield CaptureLine(START_MS * MS, "binance", "public#1", "open", b"")
    yield CaptureLine(START_MS * MS, "binance", "rest", "rest", body, "depth", "BTC", 200)
    resting[1].add(999_999)
    resting[-1].add(1_000_001)
    for half in range(2 * seconds):
        ms = START_MS + 1 + half * 500
        price = min(1_060_000, max(940_000, price + rng.randint(-400, 400)))  # far enough to re-centre the ladder
        levels: dict[int, list[str]] = {1: [], -1: []}
        for side, sign in ((1, -1), (-1, 1)):
            gone = {tick for tick in resting[side] if (tick - price) * sign <= 0} | set(
                rng.sample(sorted(resting[side]), len(resting[side]) // 10)
            )
            new = {price + sign * (1 + int(rng.expovariate(0.01))) for _ in range(10)} - gone
            resting[side] = (resting[side] - gone) | new
            levels[side] = [f'["{tick / 10:.1f}","0"]' for tick in sorted(gone)] + [
                f'["{tick / 10:.1f}","{rng.randint(1, 9)}.5"]' for tick in sorted(new)
            ]
        previous, last_id = last_id, last_id + rng.randint(2, 5000)
        text = (
            f'{{"stream":"btcusdt@depth@500ms","data":{{"e":"depthUpdate","E":{ms},"T":{ms},"s":"BTCUSDT","U":{previous},"u":{last_id},'
            f'"pu":{previous},"b":[{",".join(levels[1])}],"a":[{",".join(levels[-1])}]}}}}'
        )
        yield CaptureLine(ms * MS, "binance", "public#1", "in", text.encode())
        if half % 2 == 0:
            text = (
                f'{{"stream":"btcusdt@markPrice@1s","data":{{"e":"markPriceUpdate","E":{ms},"s":"BTCUSDT","p":"{price / 10:.2f}",'
                f'"r":"0.0001","T":0}}}}'
            )
            yield CaptureLine(ms * MS, "binance", "market#1", "in", text.encode())


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.covers("E-H8")
def test_memory_is_flat_over_a_day(tmp_path: Path) -> None:
    replay = Replay(load("", {}), ["BTC"], tmp_path)
    memory: list[int] = []
    descriptors: list[int] = []
    levels: list[int] = []
    next_ns = 0
    for line in lines(HOURS * 3600):
        replay.feed(line)
        if line.recv_ns >= next_ns:
            next_ns = line.recv_ns + 3600 * 10**9
            memory.append(own_bytes())
            descriptors.append(open_descriptors())
            ladder = replay._cores["BTC"].books[Venue.BINANCE].ladder
            levels.append(sum(ladder.level_counts()[:2]) if ladder is not None else 0)
    summary = replay.finish(0.0)
    assert (summary.gaps, summary.resyncs, summary.refused) == (0, 0, 0)
    assert summary.frames == HOURS * 120 - 1 and summary.candles == HOURS * 60 - 1
    assert len(set(descriptors)) == 1
    assert max(memory[12:]) - max(memory[2:12]) < 2 << 20, memory
    assert max(levels[3:]) < 3 * levels[2], levels
