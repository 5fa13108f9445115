"""What an answer of `/heatmap` costs to make: 12 hours, 660 rows, map, order book and 5,000 liquidations. One core, no HTTP::

    rings -> frames decoded -> blocks of cells encoded -> body
    cold       nothing is kept: all frames are read, checked and decoded
    minute     one minute later: a map frame and two order-book frames are new
    event      one liquidation later: no frame is new

against what cannot be saved: the cells of the finished answer encoded once more (JSON by orjson; binary: copied and digested).

python -m bench.heatmap [--quick] [--json]
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import orjson

from api import params
from api.app import create_app
from api.bodies import Answer
from api.clock import Clock
from api.heatmap_params import query_of
from api.resources.heatmap import Heatmap
from bench.common import Row, main, report
from mpengine import mphm
from mpengine.config import Settings, load, resolve_directories
from mpengine.heatmap import source_scale
from shm.digest import digest
from shm.frame_ring import FrameWriter
from shm.frames import Frame, encode
from shm.grid import frame_grid
from shm.layout import depth_spec, liquidation_spec, liquidations_spec
from shm.record_ring import RecordWriter
from shm.records import LIQUIDATION_DTYPE, RECORD_SCHEMA, Coverage, FrameKind, PositionSide, PriceKind, Venue

MINUTES: Final = 760
EVENTS: Final = 5000
STEP: Final = 20.0
NOW_MS: Final = 1_795_200_000_000
MINUTE_NS: Final = 60 * 10**9
CASES: Final = (
    ("bin 12 h", "format=bin"),
    ("json 12 h", ""),
    ("bin 12 h, 100 rows", "format=bin&max_rows=100"),
    ("bin 12 h, 10 min columns", "format=bin&dt_s=600"),
    ("bin 12 h, all layers", "format=bin&layers=liq,tape,projected,depth,realised"),
    ("bin 12 h, f16", "format=bin&cell=f16"),
    ("json 12 h, usd", "cell=usd"),
    ("bin 12 h, sum of 5", "format=bin&pool=sum&k=5"),
    ("json 12 h, sparse", "form=sparse&min_usd=100000"),
    ("bin 1 h", "format=bin&minutes=60&dt_s=60"),
    ("json, last 2 columns", "dt_s=60&k=1&since_ms={since}"),
)


class Instance:
    """Rings of one symbol with a price that wanders, and a resource over them."""

    def __init__(self, folder: Path) -> None:
        self.settings: Settings = resolve_directories(load("[symbols.BTC]\n", {}), data=folder / "data", runtime=folder / "run")
        for name in ("data", "run"):
            (folder / name).mkdir()
        paths = self.settings.paths
        self._map = FrameWriter.open(paths.liquidation("BTC"), liquidation_spec("BTC"))
        self._depth = FrameWriter.open(paths.depth("BTC"), depth_spec("BTC"))
        self._events = RecordWriter.open(paths.liquidations("BTC"), liquidations_spec("BTC"), LIQUIDATION_DTYPE)
        self._rng = np.random.default_rng(1)
        self._src = 65_000.0
        self._close_ns = NOW_MS * 10**6 - MINUTES * MINUTE_NS
        for _ in range(MINUTES):
            self.minute()
        for _ in range(EVENTS):
            self.event(int(self._rng.integers(0, 720)))
        self.app = create_app(self.settings, clock=Clock(lambda: self._close_ns))
        self.app.context.sources.check()
        self._table = params.Table(params.Symbol(("BTC",)), Heatmap.rows)
        self.resource = Heatmap(self.app.context)

    def minute(self) -> None:
        """A minute later."""
        self._close_ns += MINUTE_NS
        self._src *= 1 + self._rng.normal(0, 4e-4)
        self._publish(self._map, FrameKind.LIQUIDATION, self._close_ns - MINUTE_NS, MINUTE_NS)
        for half in (2, 1):
            self._publish(self._depth, FrameKind.DEPTH, self._close_ns - half * MINUTE_NS // 2, MINUTE_NS // 2)

    def event(self, minutes_ago: int = 0) -> None:
        """A liquidation."""
        record = np.zeros((), LIQUIDATION_DTYPE)
        at_ns = self._close_ns - minutes_ago * MINUTE_NS - 1
        values = {"schema": RECORD_SCHEMA, "venue": Venue.BYBIT, "side": PositionSide.LONG, "price_kind": PriceKind.TRIGGER,
                  "venue_ts_ns": at_ns, "recv_ts_ns": at_ns, "price": self._src * (1 + self._rng.normal(0, 0.01)),
                  "notional_usd": self._rng.exponential(1e4)}  # fmt: skip
        for name, value in values.items():
            record[name] = value
        self._events.append(record, ts_ns=at_ns)

    def answer(self, query: str, resource: Heatmap | None = None) -> Answer:
        """An answer, made as the builder's thread makes it."""
        values = self._table.read(query.format(since=(self._close_ns - 2 * MINUTE_NS) // 10**6).encode())
        return (resource or self.resource)._answer(query_of(values, STEP))

    def close(self) -> None:
        self.app.context.sources.close()
        for writer in (self._map, self._depth, self._events):
            writer.close()

    def _publish(self, ring: FrameWriter, kind: FrameKind, open_ns: int, length_ns: int) -> None:
        origin, count, _ = frame_grid(self._src, STEP, 0.10)
        planes = self._rng.exponential(2e5, (4 if kind is FrameKind.LIQUIDATION else 2, count))
        planes *= self._rng.random(planes.shape) < 0.4
        frame = Frame(
            kind=kind, open_ts_ns=open_ns, close_ts_ns=open_ns + length_ns, venue_ts_ns=open_ns, reference=self._src, origin=origin,
            step=STEP, norm_a=source_scale(planes[:2]), norm_b=source_scale(planes[-2:]), total_a=1.0, total_b=1.0,
            coverage=Coverage.NONE, venues=Venue.BINANCE.bit, samples=30, planes=planes,
        )  # fmt: skip
        ring.publish(encode(frame), ts_ns=frame.close_ts_ns, kind=kind, published_ns=frame.close_ts_ns)


@dataclass(frozen=True, slots=True)
class Measured:
    """Milliseconds, best of the rounds; `floor`: the cells alone."""

    cold: float
    minute: float
    event: float
    floor: float
    size: int


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of this thread: a neighbour on the same core is not counted."""
    started = time.thread_time()
    work()
    return (time.thread_time() - started) * 1e3


def measure(instance: Instance, query: str, rounds: int) -> Measured:
    """One row."""
    cold = min(timed(lambda: instance.answer(query, Heatmap(instance.app.context))) for _ in range(max(2, rounds // 3)))
    answer = instance.answer(query)
    minutes, events = [], []
    for _ in range(rounds):
        instance.minute()
        minutes.append(timed(lambda: instance.answer(query)))
        instance.event()
        events.append(timed(lambda: instance.answer(query)))
    again = floor_of(answer)
    return Measured(cold, min(minutes), min(events), min(timed(again) for _ in range(rounds)), answer.template.size)


def floor_of(answer: Answer) -> Callable[[], object]:
    """The encoding of the cells of an answer, and nothing else."""
    body = b"".join(answer.respond(0, 0, None).chunks)
    if body[:4] == mphm.MAGIC:
        return lambda: digest(b"".join([body[: mphm.HEADER.size], body[mphm.HEADER.size :]]), 0)
    layers = orjson.loads(body)["layers"]
    sides = [side for layer in layers.values() for side in layer.values() if isinstance(side, list)]
    arrays = [np.array(side) if np.ndim(side[:1]) == 1 else side for side in sides]
    return lambda: [orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY) for array in arrays]


def run(quick: bool) -> list[Row]:
    """Measure, print, return the rows."""
    folder = Path(tempfile.mkdtemp(prefix="mpengine-bench-", dir="/dev/shm"))
    try:
        instance = Instance(folder)
        try:
            gc.disable()
            found = {name: measure(instance, query, 3 if quick else 12) for name, query in CASES}
        finally:
            gc.enable()
            instance.close()
    finally:
        shutil.rmtree(folder)
    rows: list[Row] = [
        {
            "answer": name, "MB": one.size / 1e6, "cold ms": one.cold, "minute ms": one.minute, "event ms": one.event,
            "cells alone ms": one.floor, "minute / cold": one.minute / one.cold, "minute / cells alone": one.minute / one.floor,
        }
        for name, one in found.items()
    ]  # fmt: skip
    report("An answer of /heatmap, CPU of the builder's thread", rows)
    return rows


if __name__ == "__main__":
    main(run, "bench.heatmap")
