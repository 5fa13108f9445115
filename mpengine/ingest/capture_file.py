"""The capture format: what a line, a frame and a file are; reading one and writing one. docs/capture-format.md describes it.

A capture is a row of independent zstd frames, each holding whole JSON lines, each with content size and checksum. The first line
of the first frame is the header. So a file may be cut at any byte and is readable to its last complete frame, with the memory
of one frame. `recorder` decides when to write; replay and the simulator read.

    CaptureError            root: this file cannot be used (further)
    ├── NotACapture         the content is of another kind, or of a version that is not known here
    └── CaptureDamaged      a complete frame or line that does not hold what the format says
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Literal

import msgspec
import zstandard
from msgspec import Struct

CAPTURE_VERSION: Final = 1
MAX_FRAME_BYTES: Final = 256 << 20
"""Largest frame that is read, compressed or not: a frame of the largest `capture.frame_bytes` and one escaped message fit."""
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_READ_BYTES: Final = 1 << 20
_LEVEL: Final = 3

Direction = Literal["in", "out", "open", "lost", "rest", "gap"]
"""`in`, `out`: text of a socket. `open`, `lost`: life of a connection (payload: address, reason). `rest`: body of a reply.
`gap`: the recorder lost lines here (payload: JSON with how many and when); it belongs to no venue."""


class CaptureError(Exception):
    """A capture cannot be used. `path` says which one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.name}: {reason}")
        self.path = path


class NotACapture(CaptureError):
    """The content is no capture of a known kind and version."""


class CaptureDamaged(CaptureError):
    """A complete frame or line does not hold what the format says. Everything before it was delivered."""


class CaptureHeader(Struct, frozen=True, kw_only=True):
    """First line of a capture. `symbols`: our name -> venue -> the venue's name. Unknown keys of later writers are ignored."""

    created_ns: int
    instance: str
    symbols: dict[str, dict[str, str]]
    config_hash: str
    format: Literal["mpengine-capture"] = "mpengine-capture"
    version: int = CAPTURE_VERSION


class CaptureLine(Struct, frozen=True):
    """One recorded message. `recv_ns`: ns UTC. `connection`: `<plan>#<number>`. `payload`: the bytes as received or sent.

    `call`, `symbol` (ours) and `status` belong to direction "rest" only.
    """

    recv_ns: int
    venue: str
    connection: str
    direction: Direction
    payload: bytes
    call: str | None = None
    symbol: str | None = None
    status: int | None = None


class _Row(Struct, frozen=True, omit_defaults=True):
    """A line as JSON spells it: the payload as text, or in base64 where it is not UTF-8."""

    recv_ns: int
    venue: str
    connection: str
    direction: Direction
    payload: str | None = None
    payload_b64: bytes | None = None
    call: str | None = None
    symbol: str | None = None
    status: int | None = None


_encoder: Final = msgspec.json.Encoder()
_row_decoder: Final = msgspec.json.Decoder(_Row)


def encode_line(line: CaptureLine) -> bytes:
    """The JSON line of a message, with its newline."""
    text: str | None = None
    raw: bytes | None = None
    try:
        text = line.payload.decode()
    except UnicodeDecodeError:
        raw = line.payload
    row = _Row(line.recv_ns, line.venue, line.connection, line.direction, text, raw, line.call, line.symbol, line.status)
    return _encoder.encode(row) + b"\n"


def decode_line(data: bytes) -> CaptureLine:
    """The message of a JSON line. Raises ValueError (msgspec's are) where the bytes are not one."""
    row = _row_decoder.decode(data)
    if row.payload is not None:
        payload = row.payload.encode()
    elif row.payload_b64 is not None:
        payload = row.payload_b64
    else:
        raise ValueError("neither payload nor payload_b64")
    return CaptureLine(row.recv_ns, row.venue, row.connection, row.direction, payload, row.call, row.symbol, row.status)


def frame_length(data: bytes | bytearray) -> int | None:
    """Bytes of the zstd frame at the start of `data`; None while it is not all there. Raises ValueError for anything else.

    Walks the block headers (RFC 8878, 3.1.1): the decoder can say that a frame has ended, but not before it wrote the content.
    """
    if not data.startswith(ZSTD_MAGIC[: len(data)]):
        raise ValueError("no zstd frame here")
    if len(data) < 5 or len(data) < (offset := zstandard.frame_header_size(data)):
        return None
    checksum = 4 if zstandard.get_frame_parameters(data).has_checksum else 0
    while offset + 3 <= len(data):
        block = int.from_bytes(data[offset : offset + 3], "little")
        run_length = block >> 1 & 3 == 1
        offset += 3 + (1 if run_length else block >> 3)
        if block & 1:
            return offset + checksum if offset + checksum <= len(data) else None
    return None


class CaptureReader:
    """One capture file, line by line, with the memory of one frame. A context manager; iterate it once.

    `header` is there from the start. `truncated`: after the last line, whether an incomplete frame was left at the end.
    Raises Missing files as OSError; NotACapture at once; CaptureDamaged while iterating.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.truncated = False
        self._buffer = bytearray()
        self._file: BinaryIO = path.open("rb")
        try:
            self._first = self._next_frame()
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> CaptureReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[CaptureLine]:
        frame: bytes | None = self._first.partition(b"\n")[2]
        self._first = b""
        while frame is not None:
            for data in frame.splitlines():
                try:
                    yield decode_line(data)
                except ValueError as error:
                    raise CaptureDamaged(self.path, f"not a capture line ({error})") from error
            frame = self._next_frame() or None

    def _read_header(self) -> CaptureHeader:
        if not self._first:
            raise NotACapture(self.path, "empty, or cut before the end of its header")
        try:
            header = msgspec.json.decode(self._first.partition(b"\n")[0], type=CaptureHeader)
        except msgspec.MsgspecError as error:
            raise NotACapture(self.path, f"the first line is not a capture header ({error})") from error
        if header.version != CAPTURE_VERSION:
            raise NotACapture(self.path, f"version {header.version} is not known here, {CAPTURE_VERSION} is")
        return header

    def _next_frame(self) -> bytes:
        """Content of the next frame; empty at the end of what is readable."""
        while (length := self._length()) is None:
            chunk = self._file.read(_READ_BYTES)
            if not chunk:
                self.truncated = bool(self._buffer)
                return b""
            self._buffer += chunk
            if len(self._buffer) > MAX_FRAME_BYTES + _READ_BYTES:
                raise CaptureDamaged(self.path, f"a frame is longer than {MAX_FRAME_BYTES} bytes")
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        try:
            if not 0 < zstandard.frame_content_size(data) <= MAX_FRAME_BYTES:
                raise CaptureDamaged(self.path, "a frame does not say its size, or one that is not possible")
            return zstandard.ZstdDecompressor().decompress(data)
        except zstandard.ZstdError as error:
            raise CaptureDamaged(self.path, f"a frame cannot be decompressed ({error})") from error

    def _length(self) -> int | None:
        try:
            return frame_length(self._buffer)
        except (ValueError, zstandard.ZstdError) as error:
            kind = CaptureDamaged if hasattr(self, "header") else NotACapture
            raise kind(self.path, str(error)) from error


def read_header(path: Path) -> CaptureHeader:
    """Header of a capture. Raises NotACapture, OSError."""
    with CaptureReader(path) as reader:
        return reader.header


def read_capture(path: Path) -> Iterator[CaptureLine]:
    """Lines of one capture in the order they were recorded, to the last complete frame. Raises as `CaptureReader`, at once."""
    reader = CaptureReader(path)

    def lines() -> Iterator[CaptureLine]:
        with reader:
            yield from reader

    return lines()


def pack_frame(lines: bytes) -> bytes:
    """One frame of whole lines, as it stands in a file."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True).compress(lines)


class CaptureFile:
    """One capture being written: frames go to the end, whole or not at all. Not thread-safe; one writer owns it.

    `size`: bytes of whole frames. `whole` False: a failed write could not be taken back, so nothing more belongs behind it.
    """

    def __init__(self, path: Path, header: CaptureHeader) -> None:
        """Create `path` (it must not exist) with its header. Raises OSError; nothing is left behind then."""
        self.path = path
        self.size = 0
        self.whole = True
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            self.append(pack_frame(_encoder.encode(header) + b"\n"))
        except BaseException:
            self.close()
            path.unlink(missing_ok=True)
            raise

    def append(self, frame: bytes) -> None:
        """Append a frame of `pack_frame`. Raises OSError; the file then ends with the frame before."""
        data, done = memoryview(frame), 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            self._take_back()
            raise
        self.size += done

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
        except OSError:
            self.whole = False

    def sync(self) -> None:
        """Bring everything written to the disk. Raises OSError."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file; what was not synced is the kernel's to write."""
        os.close(self._fd)
