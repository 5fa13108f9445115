"""Rings: what a publish, a read, a history and an attach cost, and rings against what people use instead, in the same run::

    producer --> event ring | frame ring | mp.Queue | pipe | Unix stream --> consumer        CPU of both sides; latency

python -m bench.rings [--quick] [--json]
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from bench.common import Row, best_of, main, report
from bench.ring_transports import EventRing, FrameRing, Pipe, Queue, Transport, UnixStream, carry, count, stopwatch
from shm.digest import digest
from shm.frame_ring import FrameReader, FrameWriter
from shm.layout import PAGE, FileKind, FileSpec, candles_spec, depth_spec, liquidation_spec
from shm.record_ring import RecordReader, RecordWriter
from shm.records import CANDLE_DTYPE, pack_clock

KIB = 1024
HISTORY = 1440


def row(measure: str, case: str, value: float, unit: str, ratio: float | None = None, to: str = "") -> Row:
    """One result; `ratio` is to the value of `to` in the same run."""
    return {"measure": measure, "case": case, "value": value, "unit": unit, "ratio": ratio, "to": to}


def each_us(rounds: int, times: int, work: Callable[[], object]) -> float:
    """Microseconds of one call, in the best of several rounds of `times` calls."""

    def loop() -> None:
        for _ in range(times):
            work()

    return best_of(rounds, loop) / times * 1e6


def digests(quick: bool) -> list[Row]:
    rows = []
    for size in (4 * KIB, 8 * KIB, 16 * KIB, 256 * KIB):
        data, times = bytes(range(256)) * (size // 256), (2000 if quick else 20_000) * 8 * KIB // size
        crc = each_us(5, times, partial(zlib.crc32, data))
        ours = each_us(5, times, partial(digest, data, 1))
        rows += [
            row("digest", f"crc32 {size // KIB} KiB", crc, "us"),
            row("digest", f"xxh3_64 {size // KIB} KiB", ours, "us", crc / ours, "times as fast as crc32"),
        ]
    return rows


def slots(folder: Path, quick: bool) -> list[Row]:
    """Publish and read against a bare copy of the same bytes in and out of the same memory."""
    rows = []
    for stride in (4 * KIB, 8 * KIB, 16 * KIB, 256 * KIB):
        size, times = stride - 64, (1000 if quick else 10_000) * 8 * KIB // stride + 50
        path, payload = folder / f"slots-{stride}", bytes(range(256)) * (size // 256) + bytes(size % 256)
        spec = FileSpec(FileKind.FRAMES, "bench", "BENCH", 16, stride, 0, 1)
        with FrameWriter.open(path, spec) as writer, FrameReader.open(path, spec) as reader:
            words = writer._words
            copy_in = each_us(5, times, partial(words.copy_in, PAGE + 64, payload))
            copy_out = each_us(5, times, partial(words.copy_out, PAGE + 64, size))
            publish = each_us(5, times, partial(writer.publish, payload, ts_ns=1, kind=1))
            latest = each_us(5, times, reader.latest)
        path.unlink()
        rows += [
            row("publish", f"{stride // KIB} KiB", publish, "us", publish / copy_in, f"bare copy in, {copy_in:.2f} us"),
            row("latest", f"{stride // KIB} KiB", latest, "us", latest / copy_out, f"bare copy out, {copy_out:.2f} us"),
        ]
    return rows


def histories(folder: Path, quick: bool) -> list[Row]:
    """Bulk history of 1,440 frames and of a month of candles against one memcpy of the same bytes."""
    rows, rounds = [], 5 if quick else 20
    for spec in (depth_spec("BENCH"), liquidation_spec("BENCH")):
        path = folder / spec.name
        payload = bytes(range(256)) * (spec.payload_bytes // 256)
        with FrameWriter.open(path, spec) as writer, FrameReader.open(path, spec) as reader:
            for n in range(spec.slots + 300):
                writer.publish(payload, ts_ns=n, kind=1)
            head = reader.head()
            source = np.zeros(HISTORY * spec.stride, np.uint8)
            plain = each_us(rounds, 1, partial(np.copy, source)) / 1e3
            block = each_us(rounds, 1, partial(reader._slots.copy_range, head - HISTORY, head)) / 1e3
            bulk = each_us(rounds, 1, partial(reader.bulk, head - HISTORY, head)) / 1e3
            history = each_us(rounds, 1, partial(reader.history, head - HISTORY, head)) / 1e3
        case = f"{HISTORY} x {spec.stride // KIB} KiB"
        rows += [
            row("history", f"{case}, block copy", block, "ms", block / plain, f"memcpy, {plain:.2f} ms"),
            row("history", f"{case}, every digest", bulk, "ms", bulk / plain, "memcpy"),
            row("history", f"{case}, as slots", history, "ms", history / plain, "memcpy"),
        ]
        rows.append(row("attach", f"{spec.slots} x {spec.stride // KIB} KiB", attach_ms(path, spec, rounds), "ms"))
        path.unlink()
    return rows + candles(folder, rounds)


def attach_ms(path: Path, spec: FileSpec, rounds: int) -> float:
    """Open, lock, check every digest, close."""
    return best_of(rounds, lambda: FrameWriter.open(path, spec).close()) * 1e3


def candles(folder: Path, rounds: int) -> list[Row]:
    spec, path = candles_spec("BENCH"), folder / "candles"
    with RecordWriter.open(path, spec, CANDLE_DTYPE) as writer, RecordReader.open(path, CANDLE_DTYPE) as reader:
        candle = np.zeros((), CANDLE_DTYPE)
        for n in range(spec.slots + 300):
            writer.append(candle, ts_ns=n)
        source = np.zeros(spec.slots * spec.stride, np.uint8)
        plain = each_us(rounds, 1, partial(np.copy, source)) / 1e3
        month = each_us(rounds, 1, partial(reader.latest, spec.slots)) / 1e3
    attach = attach_ms(path, spec, rounds)
    path.unlink()
    return [
        row("history", f"{spec.slots} candles", month, "ms", month / plain, f"memcpy, {plain:.2f} ms"),
        row("attach", f"{spec.slots} candles", attach, "ms"),
    ]


def full_speed(body: bytes, transport: Transport, warm: int, bodies: int) -> float:
    """Producer: send as fast as it goes; CPU seconds for the bodies that count."""
    for _ in range(warm):
        transport.send(body)
    started = time.process_time()
    for _ in range(bodies):
        transport.send(body)
    return time.process_time() - started


def cpu_us(transport: Transport, folder: Path, body: bytes, bodies: int) -> float:
    """CPU microseconds of both sides for one body."""
    produced, consumed = carry(transport, folder, len(body), bodies, count, partial(full_speed, body))
    return float(produced + consumed) / bodies * 1e6


def transports(folder: Path, quick: bool) -> list[Row]:
    """Events in batches of 1, 16 and 256 records, then whole frames."""
    rows = []
    for batch in (1, 16, 256):
        body, bodies = pack_clock(1) * batch, (4_000 if quick else 60_000) * 16 // (batch + 15) + 500
        ours: list[Transport] = [EventRing("event ring"), EventRing("event ring, no digest", digest=False)]
        costs = {way.name: cpu_us(way, folder, body, bodies) / batch for way in [*ours, UnixStream(), Pipe(), Queue()]}
        rows += [
            row(f"CPU per record, batch {batch}", name, cost, "us", costs["event ring"] / cost, "event ring against it")
            for name, cost in costs.items()
        ]
    for size in (8 * KIB - 64, 16 * KIB - 64):
        body, bodies = bytes(size), (2_000 if quick else 20_000) // 256 * 256 + 1
        costs = {way.name: cpu_us(way, folder, body, bodies) for way in (FrameRing(), UnixStream(), Pipe(), Queue())}
        rows += [
            row(
                f"CPU per frame, {(size + 64) // KIB} KiB",
                name,
                cost,
                "us",
                costs["frame ring"] / cost,
                "frame ring against it",
            )
            for name, cost in costs.items()
        ]
    return rows


def paced(transport: Transport, warm: int, bodies: int) -> float:
    """Producer: one body of 16 records every 2 ms, with the time of sending; the warm-up at full speed."""
    rest = pack_clock(1) * 16
    for n in range(warm + bodies):
        if n >= warm:
            time.sleep(0.002)
        transport.send(time.monotonic_ns().to_bytes(8, "little") + rest[8:])
    return 0.0


def latencies(folder: Path, quick: bool) -> list[Row]:
    """From the store of the producer to the bytes in the consumer, at 500 batches a second."""
    rows, bodies = [], 500 if quick else 5_000
    ours = EventRing("event ring, doorbell", bell=True)
    ways: list[Transport] = [ours, EventRing("event ring, polled at 0.5 ms"), UnixStream(), Pipe(), Queue()]
    medians: dict[str, float] = {}
    for way in ways:
        _, delays = carry(way, folder, 1024, bodies, stopwatch, paced)
        for share in (50, 99, 99.9):
            value = float(np.percentile(np.asarray(delays), share)) / 1e3
            medians.setdefault(f"{share}", value)
            rows.append(row(f"latency p{share:g}", way.name, value, "us", value / medians[f"{share}"], ours.name))
    return rows


def run(quick: bool) -> list[Row]:
    """All rows, each table printed when it is ready."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="mpengine-bench-", dir="/dev/shm") as name:
        folder = Path(name)
        tables: list[tuple[str, Callable[[], list[Row]]]] = [
            ("Digest", partial(digests, quick)),
            ("One slot", partial(slots, folder, quick)),
            ("Bulk history and attach", partial(histories, folder, quick)),
            ("One producer, one consumer: CPU of both", partial(transports, folder, quick)),
            ("One producer, one consumer: latency", partial(latencies, folder, quick)),
        ]
        for title, table in tables:
            found = table()
            report(title, found)
            rows += found
    return rows


if __name__ == "__main__":
    main(run, "bench.rings")
