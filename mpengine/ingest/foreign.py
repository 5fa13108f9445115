"""Captures recorded by other tools, read as if we had recorded them. For replay, the simulator and benches.

`read_hftbacktest`: gzip, a line is `<receive time> <json as received>` (Binance USD-M; hftbacktest's example data).
`read_cryptofeed`: zstd, JSON lines `{"t": "recv" | "send" | "http" | "connect", "conn", "ts", "data"}` (cryptofeed, format 2).
`open_capture` tells these and our own kind apart by their first bytes.

Neither tool stores the status of a REST reply, and both store bodies of successful ones only: status 200 is given out.
"""

from __future__ import annotations

import gzip
import heapq
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal, Protocol, cast
from urllib.parse import parse_qsl, urlsplit

import msgspec
import zstandard
from msgspec import Struct

from mpengine.ingest.capture_file import ZSTD_MAGIC, CaptureDamaged, CaptureLine, NotACapture, read_capture

MAX_LINE_BYTES: Final = 16 << 20
MAX_CONNECTIONS: Final = 64
_GZIP_MAGIC: Final = b"\x1f\x8b"
_SNIFF_BYTES: Final = 4096

_LINEAR: Final = "linear"
_CALLS: Final = {"instruments-info": "instruments", "open-interest": "open_interest"}
"""Last part of a REST path -> name of the call in the venue modules. Other replies keep the name of their path, for which a module
has no use: it counts them as `unknown_call`."""

TimeUnit = Literal["us", "ns"]
_UNIT_NS: Final[dict[TimeUnit, int]] = {"us": 1000, "ns": 1}
_DIGITS: Final[dict[TimeUnit, int]] = {"us": 16, "ns": 19}

_STAMPED: Final = re.compile(rb"(\d{1,20}) (\{.*\})\s*", re.DOTALL)
_STREAM: Final = re.compile(rb'\{"stream":\s*"([^"@]+)@([^"@]+)')
_ROUTE_OF: Final = {b"depth": "public", b"bookTicker": "public"}
"""Socket on which the venue serves a stream today; all others come over `market` (`spec: exchanges`, section 3.1)."""


def open_capture(path: Path) -> Iterator[CaptureLine]:
    """Lines of a capture of any known kind, told by its content. Raises NotACapture and OSError at once, CaptureDamaged later."""
    with path.open("rb") as file:
        head = file.read(_SNIFF_BYTES)
    if head.startswith(_GZIP_MAGIC):
        return read_hftbacktest(path)
    if head.startswith(ZSTD_MAGIC):
        return read_cryptofeed(path) if _first_bytes(path).startswith(b'{"t":') else read_capture(path)
    raise NotACapture(path, "neither zstd nor gzip")


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as content:
        try:
            return content.read(_SNIFF_BYTES)
        except zstandard.ZstdError as error:
            raise NotACapture(path, f"no zstd frame at its start ({error})") from error


def read_hftbacktest(path: Path, unit: TimeUnit | None = None, symbol: str | None = None) -> Iterator[CaptureLine]:
    """Lines of a Binance USD-M recording of hftbacktest. Raises NotACapture and OSError at once, CaptureDamaged while iterating.

    `unit` of the receive times; None: 16 digits on the first line are microseconds, 19 nanoseconds, anything else is refused
    (both hold from 2001 to 2286). Every later line must have as many digits. `symbol` (ours) is given to REST lines; None: the
    first stream's name without USDT. The tool recorded one combined socket: streams are given to the two sockets of today.
    """
    first = next(_gzip_lines(path), b"")
    match = _STAMPED.fullmatch(first)
    if not match:
        raise NotACapture(path, "the first line is not `<receive time> <json>`")
    digits = len(match[1])
    if unit is None:
        units: list[TimeUnit] = [u for u, n in _DIGITS.items() if n == digits]
        if not units:
            raise NotACapture(path, f"a receive time of {digits} digits is neither microseconds nor nanoseconds")
        unit = units[0]
    return _hftbacktest_lines(path, digits, _UNIT_NS[unit], symbol)


def _hftbacktest_lines(path: Path, digits: int, unit_ns: int, symbol: str | None) -> Iterator[CaptureLine]:
    opened: set[str] = set()
    for number, line in enumerate(_gzip_lines(path), 1):
        match = _STAMPED.fullmatch(line)
        if not match or len(match[1]) != digits:
            raise CaptureDamaged(path, f"line {number} is not `<receive time of {digits} digits> <json>`")
        recv_ns, payload = int(match[1]) * unit_ns, match[2]
        stream = _STREAM.match(payload)
        if stream is None:
            if symbol is None:
                raise CaptureDamaged(path, f"line {number}: a REST reply before the first stream, say its symbol")
            yield CaptureLine(recv_ns, "binance", "rest", "rest", payload, "depth", symbol, 200)
            continue
        symbol = symbol or stream[1].decode().upper().removesuffix("USDT")
        connection = _ROUTE_OF.get(stream[2], "market") + "#1"
        if connection not in opened:
            opened.add(connection)
            yield CaptureLine(recv_ns, "binance", connection, "open", b"")
        yield CaptureLine(recv_ns, "binance", connection, "in", payload)


def _gzip_lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        yield from _lines(path, file)


class _Lines(Protocol):
    def readline(self, limit: int = ..., /) -> bytes: ...


def _lines(path: Path, file: _Lines) -> Iterator[bytes]:
    """Lines of a compressed stream, each of bounded length. Raises CaptureDamaged where the stream is cut or garbled."""
    while True:
        try:
            line = file.readline(MAX_LINE_BYTES + 1)
        except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
            raise CaptureDamaged(path, f"cut or garbled ({error})") from error
        if not line:
            return
        if len(line) > MAX_LINE_BYTES:
            raise CaptureDamaged(path, f"a line is longer than {MAX_LINE_BYTES} bytes")
        yield line


class _FeedRow(Struct, frozen=True):
    """A line of cryptofeed's recorder. `ts`: seconds UTC, kept as written (a float64 would lose the nanoseconds)."""

    t: str
    conn: str = ""
    ts: Decimal = Decimal(0)
    data: str = ""
    addr: str = ""
    url: str = ""


_feed_decoder: Final = msgspec.json.Decoder(_FeedRow)


class _FeedHeader(Struct, frozen=True):
    t: Literal["header"]
    format: Literal[2]
    exchange: str


def read_cryptofeed(path: Path) -> Iterator[CaptureLine]:
    """Lines of a recording of cryptofeed, format 2, in order of time. Raises as `read_hftbacktest`.

    The file holds one connection after the other; they are merged by receive time (stable), in one pass over the file each. Venue
    is the exchange's name for the linear market and `<exchange>_<market>` for others, whose channels have the same names.
    """
    with _zstd_file(path) as file:
        first = next(_lines(path, file), b"")
    try:
        exchange = msgspec.json.decode(first, type=_FeedHeader).exchange.lower()
    except msgspec.MsgspecError as error:
        raise NotACapture(path, f"the first line is not a header of format 2 ({error})") from error
    return _merged(path, exchange)


def _merged(path: Path, exchange: str) -> Iterator[CaptureLine]:
    markets: dict[str, str] = {}
    for row in _feed_rows(path):
        if not markets.get(row.conn):
            markets[row.conn] = "rest" if row.t == "http" else row.addr.rstrip("/").rpartition("/")[2]
        if len(markets) > MAX_CONNECTIONS:
            raise CaptureDamaged(path, f"more than {MAX_CONNECTIONS} connections")
    streams = [_feed_lines(path, exchange, conn, market) for conn, market in markets.items()]
    yield from heapq.merge(*streams, key=lambda line: line.recv_ns)


def _feed_lines(path: Path, exchange: str, conn: str, market: str) -> Iterator[CaptureLine]:
    venue = exchange if market in (_LINEAR, "rest") else f"{exchange}_{market}"
    connection = market if market == "rest" else f"{market}#{conn.rpartition('.')[2]}"
    for row in _feed_rows(path):
        if row.conn != conn:
            continue
        recv_ns = int(row.ts.scaleb(9))
        match row.t:
            case "recv":
                yield CaptureLine(recv_ns, venue, connection, "in", row.data.encode())
            case "send":
                yield CaptureLine(recv_ns, venue, connection, "out", row.data.encode())
            case "connect":
                yield CaptureLine(recv_ns, venue, connection, "open", row.addr.encode())
            case "http":
                yield _feed_reply(row, exchange, recv_ns)
            case _:
                raise CaptureDamaged(path, f"unknown kind of line {row.t[:20]!r}")


def _feed_reply(row: _FeedRow, exchange: str, recv_ns: int) -> CaptureLine:
    """A REST reply under the name that the venue modules give to the call, and under our symbol, as far as the address tells."""
    address = urlsplit(row.url)
    query = dict(parse_qsl(address.query))
    market = query.get("category", _LINEAR)
    venue = exchange if market == _LINEAR else f"{exchange}_{market}"
    call = address.path.rpartition("/")[2]
    symbol = query["symbol"].removesuffix("USDT") if "symbol" in query else None
    return CaptureLine(recv_ns, venue, "rest", "rest", row.data.encode(), _CALLS.get(call, call), symbol, 200)


def _feed_rows(path: Path) -> Iterator[_FeedRow]:
    with _zstd_file(path) as file:
        lines = _lines(path, file)
        next(lines, None)
        for number, line in enumerate(lines, 2):
            try:
                yield _feed_decoder.decode(line)
            except ValueError as error:
                raise CaptureDamaged(path, f"line {number}: {error}") from error


@contextmanager
def _zstd_file(path: Path) -> Iterator[io.BufferedReader]:
    with path.open("rb") as raw:
        content = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
        # The reader has all of a raw stream that BufferedReader needs, but its stub does not say so.
        yield io.BufferedReader(cast(io.RawIOBase, content))
