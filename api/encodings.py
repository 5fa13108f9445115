"""Bodies compressed once and sent to everybody, although some of their bytes change with every response. Pure.

A body is fixed segments with holes between them (`api.bodies.Template`). Compressed are the segments alone, each for itself; what
fills the holes travels as it is, in blocks of the format that hold bytes uncompressed:

    gzip   one member (RFC 1952): segments as deflate blocks that end on a byte, holes as stored blocks, CRC-32 by combination
    zstd   one frame (RFC 8878): the largest segment as compressed blocks, everything else as raw blocks. Only one of them, since a
           compressor begins with what its own frame has seen: offsets to repeat and tables of a block before

so that a response costs a few small pieces, whatever the size of the body.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import zstandard

GZIP: Final = "gzip"
ZSTD: Final = "zstd"
CODINGS: Final = (ZSTD, GZIP)
"""Ours, the one that costs a client least to read first."""

LEAST_BYTES: Final = 1024
"""A smaller body is sent as it is: it fits one packet anyway."""
WORTH: Final = 0.9  # compressed it must be smaller than this part of the plain body

GZIP_LEVEL: Final = 6
ZSTD_LEVEL: Final = 3
_GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, unknown system
_GZIP_LAST: Final = b"\x03\x00"  # an empty last block
_STORED_MOST: Final = 65_535
_CRC_BY_PARTS: Final = 8 << 10  # from this size on its CRC is shifted instead of computed
_POLYNOMIAL: Final = 0xEDB88320  # CRC-32 of gzip, bits reflected

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK_MOST: Final = 128 << 10
_ZSTD_WINDOWS: Final = (17, 23)  # smallest: a whole block; largest: what RFC 9659 lets a client support
_RAW: Final = 0
_RLE: Final = 1

HEADER_MOST: Final = 512

Parts = Sequence[bytes]


class Coded(Protocol):
    """A body in one coding. `size`: bytes that keeping it costs, besides the plain one."""

    @property
    def size(self) -> int: ...

    def chunks(self, parts: Parts) -> list[bytes]:
        """The coded body of a response whose parts, holes filled, are these."""


def coded(coding: str, parts: Sequence[bytes | None]) -> Coded | None:
    """A body in a coding; None where it would not be worth it. `parts`: segments, None for a hole. Takes about 10 ms per MB."""
    fixed = sum(len(part) for part in parts if part is not None)
    made: Coded = GzipBody(parts) if coding == GZIP else ZstdBody(parts)
    return made if fixed >= LEAST_BYTES and made.size < WORTH * fixed else None


class GzipBody:
    """See above."""

    __slots__ = ("_segments", "size")

    def __init__(self, parts: Sequence[bytes | None]) -> None:
        self._segments = [None if part is None else _Deflated.of(part) for part in parts]
        self.size = sum(0 if one is None else len(one.data) for one in self._segments)

    def chunks(self, parts: Parts) -> list[bytes]:
        pieces, crc, length = [_GZIP_HEAD], 0, 0
        for segment, part in zip(self._segments, parts, strict=True):
            length += len(part)
            if segment is None:
                crc = zlib.crc32(part, crc)
                pieces += _stored(part)
            else:
                crc = zlib.crc32(part, crc) if segment.shift is None else segment.shift(crc) ^ segment.crc
                pieces.append(segment.data)
        pieces.append(_GZIP_LAST + struct.pack("<II", crc, length & 0xFFFF_FFFF))
        return pieces


def _stored(data: bytes) -> list[bytes]:
    """Stored blocks, not the last one."""
    blocks = [data[at : at + _STORED_MOST] for at in range(0, len(data), _STORED_MOST)]
    return [struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF) + block for block in blocks]


@dataclass(frozen=True, slots=True)
class _Deflated:
    """A segment: deflate blocks up to a byte's end. `crc` of it alone, and how the CRC of what is before it moves on over it; both
    are None and unused where computing it anew is cheaper."""

    data: bytes
    crc: int
    shift: Shift | None

    @classmethod
    def of(cls, part: bytes) -> _Deflated:
        press = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = press.compress(part) + press.flush(zlib.Z_FULL_FLUSH)
        return cls(data, zlib.crc32(part), Shift(len(part)) if len(part) >= _CRC_BY_PARTS else None)


class Shift:
    """CRC-32 of bytes, moved on over `length` zero bytes: with it the CRC of two pieces is that of the first, moved on, xor that of
    the second. Multiplication by x^(8 * length) modulo the polynomial, a table for each byte of the CRC."""

    __slots__ = ("_tables",)

    def __init__(self, length: int) -> None:
        factor = _power_of_x(8 * length)
        bits = np.array([_product(factor, 1 << bit) for bit in range(32)], np.uint32)
        values = np.arange(256, dtype=np.uint32)
        tables = np.zeros((4, 256), np.uint32)
        for bit in range(32):
            tables[bit // 8] ^= np.where(values >> np.uint32(bit % 8) & np.uint32(1), bits[bit], np.uint32(0))
        self._tables = [table.tolist() for table in tables]

    def __call__(self, crc: int) -> int:
        """The CRC moved on."""
        first, second, third, fourth = self._tables
        found: int = first[crc & 255] ^ second[crc >> 8 & 255] ^ third[crc >> 16 & 255] ^ fourth[crc >> 24]
        return found


def _product(one: int, other: int) -> int:
    """Product of two polynomials of reflected bits (bit 31 is x^0) modulo the CRC's."""
    found = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            found ^= other
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return found


def _power_of_x(exponent: int) -> int:
    """x to a power, by squares."""
    found, square = 1 << 31, 1 << 30
    while exponent:
        if exponent & 1:
            found = _product(square, found)
        square = _product(square, square)
        exponent >>= 1
    return found


class ZstdBody:
    """See above."""

    __slots__ = ("_blocks", "_head", "_largest", "size")

    def __init__(self, parts: Sequence[bytes | None]) -> None:
        sizes = [-1 if part is None else len(part) for part in parts]
        self._largest = max(range(len(parts)), key=lambda at: sizes[at], default=-1)
        segment = parts[self._largest] if self._largest >= 0 else None
        self._blocks = _blocks(segment) if segment else b""
        low, high = _ZSTD_WINDOWS
        window = min(max(low, max(0, sum(max(0, size) for size in sizes) - 1).bit_length()), high)
        self._head = _ZSTD_MAGIC + bytes((0, window - 10 << 3))
        self.size = len(self._blocks) + sum(max(0, size) for at, size in enumerate(sizes) if at != self._largest)

    def chunks(self, parts: Parts) -> list[bytes]:
        pieces = [self._head]
        for at, part in enumerate(parts):
            if at == self._largest and self._blocks:
                pieces.append(self._blocks)
            else:
                pieces += _raw(part)
        pieces.append(b"\x01\x00\x00")  # an empty raw block, the last one
        return pieces


def _raw(data: bytes) -> list[bytes]:
    """Raw blocks, not the last one."""
    blocks = [data[at : at + _ZSTD_BLOCK_MOST] for at in range(0, len(data), _ZSTD_BLOCK_MOST)]
    return [_block_head(_RAW, len(block)) + block for block in blocks]


def _block_head(kind: int, size: int) -> bytes:
    return (size << 3 | kind << 1).to_bytes(3, "little")


def _blocks(segment: bytes) -> bytes:
    """The blocks of a segment's own frame, none of them marked as the last."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, source_size=len(segment), window_log=_ZSTD_WINDOWS[1], write_content_size=0, write_checksum=0
    )
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(segment)
    at, blocks = zstandard.frame_header_size(frame), bytearray()
    while at < len(frame):
        head = int.from_bytes(frame[at : at + 3], "little")
        kind, size = head >> 1 & 3, head >> 3
        content = 1 if kind == _RLE else size
        blocks += _block_head(kind, size) + frame[at + 3 : at + 3 + content]
        at += 3 + content
        if head & 1:
            break
    return bytes(blocks)


class Accepted:
    """Which of our codings a client takes, by its `Accept-Encoding`; remembers the headers that it has seen. One that is longer
    than any client's is not read: thousands of names would cost each response milliseconds."""

    def __init__(self, remembered: int = 256) -> None:
        self._remembered = remembered
        self._known: dict[bytes, str | None] = {}

    def best(self, header: bytes) -> str | None:
        """The coding to use, None for the plain body."""
        if len(header) > HEADER_MOST:
            return None
        if header in self._known:
            return self._known[header]
        if len(self._known) >= self._remembered:
            self._known.clear()
        found = self._known[header] = best_of(header)
        return found


def best_of(header: bytes) -> str | None:
    """The coding that a client likes best (RFC 9110, section 12.5.3); of equal ones the first of `CODINGS`. What cannot be
    understood is no wish."""
    weights: dict[str, float] = {}
    for part in header.decode("latin-1").lower().split(","):
        name, _, parameter = part.partition(";")
        weight = _weight(parameter)
        if weight is not None:
            weights[name.strip()] = weight
    others = weights.get("*", 0.0)
    liked = {coding: weights.get(coding, weights.get("x-gzip", others) if coding == GZIP else others) for coding in CODINGS}
    best = max(CODINGS, key=lambda coding: liked[coding])
    return best if liked[best] > 0.0 and liked[best] >= weights.get("identity", 0.0) else None


def _weight(parameter: str) -> float | None:
    """`q=0.5`; 1 without, None for anything else."""
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return None
    return weight if name.strip() == "q" and 0.0 <= weight <= 1.0 else None
