"""The capture format: what is written is read, a cut file is readable to its last complete frame, damage is said."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mpengine.ingest.capture_file import (
    CaptureDamaged,
    CaptureFile,
    CaptureHeader,
    CaptureLine,
    CaptureReader,
    NotACapture,
    decode_line,
    encode_line,
    frame_length,
    pack_frame,
    read_capture,
    read_header,
)

HEADER = CaptureHeader(created_ns=1, instance="test", symbols={"BTC": {"binance": "BTCUSDT"}}, config_hash="ab" * 32)
LINES = [
    CaptureLine(10, "binance", "market#1", "open", b"wss://example/market"),
    CaptureLine(11, "binance", "market#1", "out", b'{"id":9}'),
    CaptureLine(12, "binance", "market#1", "in", b'{"e":"aggTrade","p":"1.5"}'),
    CaptureLine(13, "binance", "rest", "rest", b'{"openInterest":"3"}', "open_interest", "BTC", 200),
    CaptureLine(14, "binance", "market#1", "in", b"\xff\xfe not text"),
    CaptureLine(15, "binance", "market#1", "in", b""),
    CaptureLine(16, "binance", "market#1", "lost", b"closed by peer"),
    CaptureLine(17, "", "", "gap", b'{"lines":3}'),
]


def write(path: Path, frames: list[list[CaptureLine]]) -> list[int]:
    """Write a capture; return the file size after the header and after each frame."""
    file = CaptureFile(path, HEADER)
    ends = [file.size]
    for frame in frames:
        file.append(pack_frame(b"".join(map(encode_line, frame))))
        ends.append(file.size)
    file.close()
    return ends


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, [LINES[:3], LINES[3:]])
    with CaptureReader(path) as reader:
        assert reader.header == HEADER
        assert list(reader) == LINES
        assert not reader.truncated
    assert read_header(path) == HEADER
    assert list(read_capture(path)) == LINES


def test_a_line_is_the_documented_json() -> None:
    assert encode_line(LINES[3]) == (
        b'{"recv_ns":13,"venue":"binance","connection":"rest","direction":"rest","payload":"{\\"openInterest\\":\\"3\\"}",'
        b'"call":"open_interest","symbol":"BTC","status":200}\n'
    )
    assert b'"payload_b64":"//4gbm90IHRleHQ="' in encode_line(LINES[4])


@given(st.binary(max_size=300), st.integers(0, 2**63 - 1), st.text(max_size=10))
def test_any_payload_survives(payload: bytes, recv_ns: int, name: str) -> None:
    line = CaptureLine(recv_ns, name, name, "in", payload)
    data = encode_line(line)
    assert decode_line(data) == line
    assert data.count(b"\n") == 1


@pytest.mark.covers("A1-M25")
def test_a_file_cut_at_any_byte_is_readable_to_its_last_complete_frame(tmp_path: Path) -> None:
    path, cut = tmp_path / "whole", tmp_path / "cut"
    frames = [LINES[:3], LINES[3:5], LINES[5:]]
    ends = write(path, frames)
    data = path.read_bytes()
    for size in range(ends[0], len(data) + 1):
        cut.write_bytes(data[:size])
        complete = sum(end <= size for end in ends[1:])
        with CaptureReader(cut) as reader:
            assert list(reader) == [line for frame in frames[:complete] for line in frame]
            assert reader.truncated == (size not in ends)


def test_a_file_cut_inside_its_header_is_no_capture(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    end = write(path, [])[0]
    data = path.read_bytes()
    for size in range(end):
        path.write_bytes(data[:size])
        with pytest.raises(NotACapture, match="empty, or cut"):
            read_capture(path)


def test_a_changed_byte_is_damage_after_everything_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    ends = write(path, [LINES[:3], LINES[3:]])
    data = bytearray(path.read_bytes())
    data[ends[1] - 6] ^= 1  # in the last block of the first frame, before its checksum
    path.write_bytes(data)
    with pytest.raises(CaptureDamaged):
        next(read_capture(path))

    data[ends[1] - 6] ^= 1
    data[ends[1]] ^= 1  # magic of the second frame
    path.write_bytes(data)
    lines = read_capture(path)
    assert [next(lines) for _ in range(3)] == LINES[:3]
    with pytest.raises(CaptureDamaged, match="no zstd frame"):
        next(lines)


def frame(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x1f\x8b" + bytes(40), "no zstd frame"),
        (frame(b'{"t":"header","format":2,"exchange":"BYBIT"}\n'), "not a capture header"),
        (frame(msgspec.json.encode(msgspec.structs.replace(HEADER, version=2)) + b"\n"), "version 2 is not known here, 1 is"),
        (frame(b"no json at all, but long enough for a frame\n"), "not a capture header"),
    ],
)
def test_anything_else_is_refused_at_once_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(NotACapture, match=reason):
        read_capture(path)


@pytest.mark.parametrize("line", [b"{}", b'{"recv_ns":"x"}', b"[]", b'{"recv_ns":1,"venue":"","connection":"","direction":"in"}'])
def test_a_line_of_another_shape_is_damage(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "a"
    write(path, [])
    with path.open("ab") as file:
        file.write(frame(line + b"\n"))
    with pytest.raises(CaptureDamaged, match="not a capture line"):
        list(read_capture(path))


def test_a_frame_without_its_size_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write(path, [])
    bomb = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
    with path.open("ab") as file:
        file.write(bomb)
    with pytest.raises(CaptureDamaged, match="does not say its size"):
        list(read_capture(path))


@given(st.binary(max_size=5000), st.booleans(), st.binary(max_size=50))
def test_frame_length_is_exact(content: bytes, checksum: bool, behind: bytes) -> None:
    data = zstandard.ZstdCompressor(write_checksum=checksum).compress(content)
    assert frame_length(data + behind) == len(data)
    assert all(frame_length(data[:size]) is None for size in {0, 1, 5, 17, len(data) // 2, len(data) - 1} if size < len(data))


def test_run_length_and_raw_blocks_are_walked() -> None:
    for content in (bytes(1 << 20), os.urandom(300_000)):
        data = zstandard.ZstdCompressor().compress(content)
        assert frame_length(data) == len(data)


def test_a_capture_never_overwrites_another_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        CaptureFile(path, HEADER)
    assert path.read_bytes() == b"mine"


def test_a_failed_write_leaves_whole_frames_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    file = CaptureFile(path, HEADER)
    file.append(pack_frame(encode_line(LINES[0])))
    before = path.read_bytes()
    monkeypatch.setattr(os, "write", half_then_full(os.write))
    with pytest.raises(OSError, match="No space"):
        file.append(pack_frame(encode_line(LINES[1])))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert file.whole
    file.append(pack_frame(encode_line(LINES[2])))
    file.close()
    assert list(read_capture(path)) == [LINES[0], LINES[2]]


def half_then_full(write: Callable[[int, bytes], int]) -> Callable[[int, bytes], int]:
    """An os.write that takes half of the data and then finds the disk full."""
    calls: list[int] = []

    def limited(fd: int, data: bytes) -> int:
        calls.append(fd)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(fd, data[: len(data) // 2])

    return limited
