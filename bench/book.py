"""Levels per second that a book takes, by size of the diff, and what a sample, a snapshot and a saved state cost. One core::

levels (float64 pairs) --> ladder                 against a dict of floats that keeps its best prices, in the same run

python -m bench.book [--quick] [--json]
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial

from bench.common import Row, best_of, main, report
from mpengine.engine.ladder import Ladder, LevelBlock
from shm.grid import prices_of

SIZES = (2, 10, 20, 50, 200, 1000)
TICK, REFERENCE, PRUNE = 0.1, 100_000.0, 0.12


def diffs(count: int, size: int) -> list[tuple[bytes, int, int, list[float]]]:
    """`count` diffs of `size` levels near the touch: (bytes, bids, asks, flat list); a quarter of the levels are removals."""
    bids = prices_of(999_000, 1000, TICK)[::-1]
    asks = prices_of(1_000_001, 1000, TICK)
    out = []
    for n in range(count):
        half = size // 2
        flat: list[float] = []
        for side, levels in ((bids, half), (asks, size - half)):
            for i in range(levels):
                flat += [float(side[(n * 7 + i * (1 if size > 500 else 3)) % 1000]), float((n + i) % 4)]
        out.append((array("d", flat).tobytes(), half, size - half, flat))
    return out


def into_ladder(work: list[tuple[bytes, int, int, list[float]]]) -> None:
    ladder = Ladder(TICK, PRUNE, REFERENCE)
    for data, bids, asks, _ in work:
        ladder.apply(LevelBlock(data), 0, bids, asks)


def into_dicts(work: list[tuple[bytes, int, int, list[float]]]) -> None:
    """The simplest honest book: two dicts, best prices looked up after each diff when they may have changed."""
    bid: dict[float, float] = {}
    ask: dict[float, float] = {}
    best_bid, best_ask = 0.0, float("inf")
    for _, bids, _, flat in work:
        for at in range(0, 2 * bids, 2):
            if flat[at + 1]:
                bid[flat[at]] = flat[at + 1]
            else:
                bid.pop(flat[at], None)
        for at in range(2 * bids, len(flat), 2):
            if flat[at + 1]:
                ask[flat[at]] = flat[at + 1]
            else:
                ask.pop(flat[at], None)
        best_bid, best_ask = max(bid, default=best_bid), min(ask, default=best_ask)


def run(quick: bool) -> list[Row]:
    """Rows {work, us, Mlevels_s, vs_dict}."""
    rounds = 3 if quick else 7
    rows: list[Row] = []
    for size in SIZES:
        work = diffs(max(50, 40_000 // size), size)
        spent = best_of(rounds, partial(into_ladder, work))
        plain = best_of(rounds, partial(into_dicts, work))
        levels = size * len(work)
        rows.append(
            {
                "work": f"diff of {size} levels",
                "us": round(spent / len(work) * 1e6, 2),
                "Mlevels_s": round(levels / spent / 1e6, 2),
                "vs_dict": round(plain / spent, 2),
            }
        )
    rows += _others(rounds)
    report(
        "book: dense ladder of 240,001 ticks a side",
        rows,
        f"best of {rounds} rounds; vs_dict: time of two plain dicts / time of the ladder",
    )
    return rows


def _others(rounds: int) -> list[Row]:
    ladder = Ladder(TICK, PRUNE, REFERENCE)
    for data, bids, asks, _ in diffs(200, 1000):
        ladder.apply(LevelBlock(data), 0, bids, asks)
    works: dict[str, Callable[[], object]] = {
        "1 s sample by bucket": lambda: ladder.usd_by_bucket(20.0),
        "state for a checkpoint": ladder.state,
        "re-centring": lambda: ladder.recentre(REFERENCE),
    }
    return [
        {"work": name, "us": round(best_of(rounds, partial(_repeat, work)) / 100 * 1e6, 2), "Mlevels_s": None, "vs_dict": None}
        for name, work in works.items()
    ]


def _repeat(work: Callable[[], object]) -> None:
    for _ in range(100):
        work()


if __name__ == "__main__":
    main(run, "bench.book")
