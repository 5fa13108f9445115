"""Small captures for the simulator's tests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import msgspec
import zstandard

from mpengine.ingest.capture_file import CaptureHeader, CaptureLine, Direction, encode_line

BASE_NS = 1_700_000_000_000_000_000


def bybit(after_ns: int, payload: bytes, direction: Direction = "in") -> CaptureLine:
    """A message of Bybit's socket."""
    return CaptureLine(BASE_NS + after_ns, "bybit", "linear#1", direction, payload)


def topical(topic: str, number: int, kind: str = "delta") -> bytes:
    """A message of a topic whose data carries a number."""
    return f'{{"topic":"{topic}","type":"{kind}","data":{{"n":{number}}}}}'.encode()


def line(after_ns: int, payload: bytes, connection: str = "public#1") -> CaptureLine:
    """A received message, `after_ns` from the beginning."""
    return CaptureLine(BASE_NS + after_ns, "binance", connection, "in", payload)


def reply(
    after_ns: int, call: str, body: object, symbol: str | None = "BTC", status: int = 200, *, venue: str = "binance"
) -> CaptureLine:
    """A recorded REST reply."""
    return CaptureLine(BASE_NS + after_ns, venue, "rest", "rest", json.dumps(body).encode(), call, symbol, status)


def message(stream: str, number: int) -> bytes:
    """A combined message whose data carries a number."""
    return f'{{"stream":"{stream}","data":{{"n":{number}}}}}'.encode()


def write(path: Path, lines: Iterable[CaptureLine]) -> Path:
    """A capture file of these lines: a frame with the header, a frame with the rest."""
    header = CaptureHeader(created_ns=BASE_NS, instance="test", symbols={"BTC": {"binance": "BTCUSDT"}}, config_hash="")
    compressor = zstandard.ZstdCompressor(write_checksum=True, write_content_size=True)
    frames = (msgspec.json.encode(header) + b"\n", b"".join(encode_line(one) for one in lines))
    path.write_bytes(b"".join(compressor.compress(frame) for frame in frames))
    return path
