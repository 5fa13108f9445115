"""Coded bodies against the libraries that read them, strictly."""

from __future__ import annotations

import random
import subprocess
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from api.encodings import CODINGS, GZIP, Accepted, Shift, best_of, coded
from api.encodings import GzipBody as Gzip
from api.encodings import ZstdBody as Zstd


def read_gzip(data: bytes) -> bytes:
    """One member, whole, with nothing behind it; CRC and length are checked by the library."""
    reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
    plain = reader.decompress(data) + reader.flush()
    assert reader.eof and reader.unused_data == b""
    return plain


def read_zstd(data: bytes) -> bytes:
    """One frame within the window that browsers have."""
    reader = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()
    plain = reader.decompress(data)
    assert reader.eof and reader.unused_data == b""
    return plain


READ = {GZIP: read_gzip, "zstd": read_zstd}
MADE = {GZIP: Gzip, "zstd": Zstd}


def words(size: int, seed: int) -> bytes:
    """Text like a body: numbers and keys."""
    rng = random.Random(seed)
    return b",".join(rng.choice((b"0.0", b"60620.0", b"%d" % rng.randrange(10**6), b'"weight":')) for _ in range(size // 6))[:size]


SEGMENT = st.one_of(st.binary(max_size=40), st.builds(words, st.integers(0, 30_000), st.integers(0, 99)), st.just(b"\x00" * 20_000))
PART = st.one_of(SEGMENT, st.none())


@pytest.mark.parametrize("coding", CODINGS)
@settings(max_examples=150, deadline=None)
@given(parts=st.lists(PART, max_size=7), data=st.data())
def test_whatever_the_segments_and_holes_it_is_the_body(coding: str, parts: list[bytes | None], data: st.DataObject) -> None:
    body = MADE[coding](parts)
    for _ in range(2):  # the same coded body, other holes
        filled = [data.draw(st.binary(max_size=60)) if part is None else part for part in parts]
        assert READ[coding](b"".join(body.chunks(filled))) == b"".join(filled)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [65_535, 65_536, 131_072, 131_073, 5 << 20])
def test_large_segments_and_large_holes(coding: str, size: int) -> None:
    parts = [b"{", None, words(size, 1), None, random.Random(2).randbytes(size), b"}"]
    body = MADE[coding](parts)
    hole = random.Random(3).randbytes(size)
    filled = [hole if part is None else part for part in parts]
    assert READ[coding](b"".join(body.chunks(filled))) == b"".join(filled)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_is_worth_coding_or_left_alone(coding: str) -> None:
    assert coded(coding, [words(10_000, 1), None, b"}"]) is not None
    assert coded(coding, [words(1000, 1)]) is None  # one packet
    assert coded(coding, [random.Random(1).randbytes(50_000)]) is None
    assert coded(coding, []) is None
    body = coded(coding, [words(100_000, 1)])
    assert body is not None and body.size < 60_000


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_shifted_crc_is_the_crc_of_both(first: bytes, second: bytes) -> None:
    assert Shift(len(second))(zlib.crc32(first)) ^ zlib.crc32(second) == zlib.crc32(first + second)


def test_a_shift_over_megabytes() -> None:
    first, second = b"before", bytes(range(256)) * 20_000
    assert Shift(len(second))(zlib.crc32(first)) ^ zlib.crc32(second) == zlib.crc32(first + second)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip, deflate, br, zstd", "zstd"),  # browsers
        ("gzip, deflate, br", "gzip"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("br", None),
        ("", None),
        ("identity", None),
        ("*", "zstd"),
        ("gzip;q=0", None),
        ("gzip;q=0, *", "zstd"),
        ("zstd;q=0.5, gzip;q=0.8", "gzip"),
        ("zstd;q=0.8, gzip;q=0.8", "zstd"),
        ("gzip;q=0.2, identity;q=0.5", None),
        ("gzip;q=0.5, identity;q=0.5", "gzip"),
        ("zstd; q=1.0 , gzip ; q=0.5", "zstd"),
        ("gzip;q=x, zstd;q=2", None),
        ("gzip;level=9", None),
        (";;;,,,==\x00\xff", None),
        ("identity;q=0", None),  # a body that it does not want is better than none
    ],
)
def test_what_a_client_takes(header: str, wanted: str | None) -> None:
    assert best_of(header.encode("latin-1")) == wanted
    accepted = Accepted(remembered=2)
    for _ in range(3):
        assert accepted.best(header.encode("latin-1")) == wanted
        accepted.best(b"%d" % random.getrandbits(60))


def test_a_header_of_thousands_of_names_is_not_read() -> None:
    accepted = Accepted()
    assert accepted.best(b"gzip, " + b"x, " * 2000) is None
    assert not accepted._known


@given(st.binary(max_size=80))
def test_no_header_fails(header: bytes) -> None:
    assert best_of(header) in (None, *CODINGS)


@pytest.mark.parametrize(("coding", "command"), [(GZIP, ("gzip", "-dc")), ("zstd", ("zstd", "-dc"))])
def test_the_usual_programs_read_it(coding: str, command: tuple[str, ...]) -> None:
    parts = [b'{"a":', None, words(300_000, 4), None, b"}"]
    filled = [b"1.5" if part is None else part for part in parts]
    data = b"".join(MADE[coding](parts).chunks(filled))
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=True, timeout=30)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    assert done.stdout == b"".join(filled)
