"""Every offset of every shared file (`spec: shared-memory`, sections 2-4, 6-8). Pure; the only place that knows one.

One page of header, then slots, units, documents or rows. Who writes which line of the header page (64-byte lines)::

      0  creator      magic, layout version, geometry, kinds, created, uuid, header digest; never changes
     64  data writer  epoch, pid, start ticks, boot id, attached, first, state
    128  data writer  intent, head, beat
    256  consumer     release, epoch, beat                                   (event rings only)
    384  data writer  dropped records, dropped batches, gaps                 (event rings only)
    512  creator      identity, JSON
   1024  creator      document directory, 32 entries of 32 bytes             (documents only)
   2048  data writer  document heads, 32 lines                               (documents only)

Every word has one writer, and words of different writers never share a line. Any change here bumps `LAYOUT_VERSION`;
files of another version are refused. Offsets that name words are multiples of 8 and are used as `offset // 8` (`*_WORD`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Final

import numpy as np

from shm.board_words import ROW_WORDS
from shm.digest import DIGEST_XXH3_64, digest
from shm.errors import IdentityMismatch, LayoutMismatch, Refused
from shm.frames import FRAME_SCHEMA
from shm.records import (
    CANDLE_DTYPE,
    EVENT_DTYPE,
    FRAME_HEADER_DTYPE,
    LIQUIDATION_DTYPE,
    RECORD_SCHEMA,
    DocumentId,
)

MAGIC: Final = b"MPRING1\0"
LAYOUT_VERSION: Final = 1
LINE: Final = 64
PAGE: Final = 4096
HEADER_BYTES: Final = PAGE
SLOT_HEADER_BYTES: Final = 64
UNIT: Final = 64
MIB: Final = 1 << 20
KIB: Final = 1 << 10

MINUTE_NS: Final = 60_000_000_000
DEPTH_INTERVAL_NS: Final = 30_000_000_000


class FileKind(IntEnum):
    """Low half of `kind_digest`."""

    EVENTS = 1
    FRAMES = 2
    RECORDS = 3
    DOCUMENTS = 4
    BOARD = 5
    COUNTERS = 6


class FileState(IntEnum):
    """Word `state`. RETIRED: another file has taken the name of this one."""

    NEW = 0
    LIVE = 1
    CLOSED = 2
    RETIRED = 3
    ATTACHING = 4


class Owner(Enum):
    """Who may write a word."""

    CREATOR = "creator"
    WRITER = "data writer"
    CONSUMER = "consumer"


@dataclass(frozen=True, slots=True)
class HeaderField:
    """A range of the header page with its only writer."""

    offset: int
    name: str
    owner: Owner
    size: int = 8


HEADER_FIELDS: Final = (
    HeaderField(0, "magic", Owner.CREATOR),
    HeaderField(8, "layout_version", Owner.CREATOR),
    HeaderField(16, "geometry", Owner.CREATOR),
    HeaderField(24, "geometry2", Owner.CREATOR),
    HeaderField(32, "kind_digest", Owner.CREATOR),
    HeaderField(40, "created_ns", Owner.CREATOR),
    HeaderField(48, "uuid", Owner.CREATOR),
    HeaderField(56, "header_digest", Owner.CREATOR),
    HeaderField(64, "epoch", Owner.WRITER),
    HeaderField(72, "pid", Owner.WRITER),
    HeaderField(80, "start_ticks", Owner.WRITER),
    HeaderField(88, "boot_hi", Owner.WRITER),
    HeaderField(96, "boot_lo", Owner.WRITER),
    HeaderField(104, "attached_ns", Owner.WRITER),
    HeaderField(112, "first", Owner.WRITER),
    HeaderField(120, "state", Owner.WRITER),
    HeaderField(128, "intent", Owner.WRITER),
    HeaderField(136, "head", Owner.WRITER),
    HeaderField(144, "beat_ns", Owner.WRITER),
    HeaderField(256, "release", Owner.CONSUMER),
    HeaderField(264, "consumer_epoch", Owner.CONSUMER),
    HeaderField(272, "consumer_beat_ns", Owner.CONSUMER),
    HeaderField(384, "dropped_records", Owner.WRITER),
    HeaderField(392, "dropped_batches", Owner.WRITER),
    HeaderField(400, "gaps", Owner.WRITER),
    HeaderField(512, "identity", Owner.CREATOR, 512),
    HeaderField(1024, "document_directory", Owner.CREATOR, 1024),
    HeaderField(2048, "document_heads", Owner.WRITER, 2048),
)

_WORD: Final = {field.name: field.offset // 8 for field in HEADER_FIELDS}
EPOCH_WORD: Final = _WORD["epoch"]
PID_WORD: Final = _WORD["pid"]
START_TICKS_WORD: Final = _WORD["start_ticks"]
BOOT_HI_WORD: Final = _WORD["boot_hi"]
BOOT_LO_WORD: Final = _WORD["boot_lo"]
ATTACHED_NS_WORD: Final = _WORD["attached_ns"]
FIRST_WORD: Final = _WORD["first"]
STATE_WORD: Final = _WORD["state"]
INTENT_WORD: Final = _WORD["intent"]
HEAD_WORD: Final = _WORD["head"]
BEAT_WORD: Final = _WORD["beat_ns"]
RELEASE_WORD: Final = _WORD["release"]
CONSUMER_EPOCH_WORD: Final = _WORD["consumer_epoch"]
CONSUMER_BEAT_WORD: Final = _WORD["consumer_beat_ns"]
DROPPED_RECORDS_WORD: Final = _WORD["dropped_records"]
DROPPED_BATCHES_WORD: Final = _WORD["dropped_batches"]
GAPS_WORD: Final = _WORD["gaps"]

IDENTITY_AT: Final = 512
IDENTITY_BYTES: Final = 512
DIRECTORY_AT: Final = 1024
DIRECTORY_BYTES: Final = 1024
DOCUMENT_HEADS_AT: Final = 2048
MAX_DOCUMENTS: Final = 32

LINE_0: Final = struct.Struct("<8sQIIIIIIQQ")  # magic .. uuid, 56 bytes; the header digest follows
LINE_0_BYTES: Final = 56
DIRECTORY_ENTRY: Final = struct.Struct("<IIQQQ")

# Slot of frame rings, record rings and documents: stamp, digest, then the 48 bytes that the digest covers with the payload.
SLOT_STAMP_AT: Final = 0
SLOT_DIGEST_AT: Final = 8
SLOT_BODY_AT: Final = 16
SLOT_LENGTH_AT: Final = 40
SLOT_BODY: Final = struct.Struct("<QQQIHHQQ")  # frame_no, ts_ns, published_ns, length, kind, flags, epoch, link
SLOT_FIELDS: Final = {
    "stamp": 0, "digest": 8, "frame_no": 16, "ts_ns": 24, "published_ns": 32, "length": 40, "kind": 44, "flags": 46,
    "epoch": 48, "link": 56,
}  # fmt: skip

# Batch header of an event ring, one unit: stamp, digest, then the 48 bytes that the digest covers with the body.
BATCH_STAMP_AT: Final = 0
BATCH_DIGEST_AT: Final = 8
BATCH_BODY_AT: Final = 16
BATCH_SIZE_AT: Final = 16
BATCH_BODY: Final = struct.Struct("<IHHIIQQQQ")  # units, flags, records, source, 0, epoch, first_seq, flushed_ns, 0
BATCH_FIELDS: Final = {
    "stamp": 0, "digest": 8, "units": 16, "flags": 20, "records": 22, "source": 24, "epoch": 32, "first_seq": 40,
    "flushed_ns": 48,
}  # fmt: skip

ROW_BYTES: Final = ROW_WORDS * 8
BOARD_TEXT_BYTES: Final = 8 * KIB


@dataclass(frozen=True, slots=True)
class DocumentPlan:
    """One entry of a documents file: `copies` slots of `stride` bytes (whole pages) for document `id`."""

    id: int
    copies: int
    stride: int
    schema: int


SYMBOL_DOCUMENTS: Final = (
    DocumentPlan(DocumentId.LEVELS, 3, 256 * KIB, 1),
    DocumentPlan(DocumentId.ZONES, 3, 2 * MIB, 1),
    DocumentPlan(DocumentId.OI, 3, 256 * KIB, 1),
    DocumentPlan(DocumentId.BOOK, 3, 256 * KIB, 1),
    DocumentPlan(DocumentId.STATUS, 3, 256 * KIB, 1),
)
FEED_DOCUMENTS: Final = (DocumentPlan(DocumentId.FEEDS, 3, 256 * KIB, 1),)


@dataclass(frozen=True, slots=True)
class FileSpec:
    """What a shared file is; equal specs mean that files are interchangeable.

    slots, stride: slots and their bytes; units of an event ring (stride 64); rows of the board; words of a counters file
    (stride 8); pages of a documents file (stride 4096), whose real geometry is `documents`. interval_ns: nominal time per slot,
    0 where there is none.
    schema: version of the content. fields, record_digest: names and exact layout of the record.
    Raises ValueError for a geometry that the layout cannot carry.
    """

    kind: FileKind
    name: str
    symbol: str
    slots: int
    stride: int
    interval_ns: int
    schema: int
    fields: tuple[str, ...] = ()
    record_digest: int = 0
    documents: tuple[DocumentPlan, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.slots < 1 << 32:
            raise ValueError(f"slots must be 1 to 2**32 - 1, was {self.slots}")
        check_stride(self.kind, self.stride)
        check_documents(self)

    @property
    def file_bytes(self) -> int:
        """Exact size of the file."""
        text = BOARD_TEXT_BYTES if self.kind is FileKind.BOARD else 0
        return HEADER_BYTES + self.slots * self.stride + text

    @property
    def payload_bytes(self) -> int:
        """Largest payload of a slot."""
        return self.stride - SLOT_HEADER_BYTES


def check_stride(kind: FileKind, stride: int) -> None:
    """Raise ValueError unless slots of `stride` bytes keep the rules: whole pages, or a part of one that divides it."""
    if kind is FileKind.EVENTS and stride != UNIT:
        raise ValueError(f"stride of an event ring must be {UNIT}, was {stride}")
    if kind is FileKind.BOARD and stride != ROW_BYTES:
        raise ValueError(f"stride of the board must be {ROW_BYTES}, was {stride}")
    if kind is FileKind.COUNTERS and stride != 8:
        raise ValueError(f"stride of a counters file must be 8, was {stride}")
    if kind is FileKind.DOCUMENTS and stride != PAGE:
        raise ValueError(f"stride of a documents file must be {PAGE}, was {stride}")
    # A record that straddles two pages can be torn by a power loss; one inside a page cannot.
    if kind is FileKind.RECORDS and (stride < 2 * SLOT_HEADER_BYTES or PAGE % stride):
        raise ValueError(f"stride of a record ring must divide {PAGE} and be at least 128, was {stride}")
    if kind is FileKind.FRAMES and (stride < PAGE or stride % PAGE or stride >= 1 << 32):
        raise ValueError(f"stride of a frame ring must be whole pages of {PAGE} bytes, was {stride}")


def check_documents(spec: FileSpec) -> None:
    """Raise ValueError unless the plans fit the directory and the pages of the file."""
    if spec.kind is not FileKind.DOCUMENTS:
        if spec.documents:
            raise ValueError("only a documents file has documents")
        return
    ids = [plan.id for plan in spec.documents]
    if not 1 <= len(ids) <= MAX_DOCUMENTS or len(set(ids)) != len(ids):
        raise ValueError(f"documents must be 1 to {MAX_DOCUMENTS} with different ids, were {ids}")
    for plan in spec.documents:
        if plan.copies < 2 or plan.stride < PAGE or plan.stride % PAGE:
            raise ValueError(f"document {plan.id} needs at least 2 copies of whole pages")
    if spec.slots * PAGE != sum(plan.copies * plan.stride for plan in spec.documents):
        raise ValueError("pages of a documents file must be the sum of its copies")


def record_layout(dtype: np.dtype[Any]) -> tuple[tuple[str, ...], int]:
    """(field names, digest of names, formats, shapes and offsets) of a structured dtype, for the identity."""
    fields: Any = dtype.fields or {}
    names = dtype.names or ()
    parts = [f"{name} {fields[name][0].base.str} {fields[name][0].shape} {fields[name][1]}" for name in names]
    return names, digest("\n".join([*parts, str(dtype.itemsize)]).encode(), 0)


def _with_record(kind: FileKind, name: str, symbol: str, slots: int, stride: int, interval_ns: int, schema: int,
                 dtype: np.dtype[Any]) -> FileSpec:  # fmt: skip
    fields, exact = record_layout(dtype)
    return FileSpec(kind, name, symbol, slots, stride, interval_ns, schema, fields, exact)


def event_ring_spec(symbol: str, units: int = 524_288) -> FileSpec:
    """Event ring of one symbol: `units` of 64 bytes (default 32 MiB)."""
    return _with_record(FileKind.EVENTS, "events", symbol, units, UNIT, 0, RECORD_SCHEMA, EVENT_DTYPE)


def depth_spec(symbol: str, slots: int = 1536) -> FileSpec:
    """Order-book frames, one per 30 s, 8,192 bytes. 1,536 and not 1,440: a 12 h request is not eaten by the slot in work."""
    return _with_record(FileKind.FRAMES, "depth", symbol, slots, 2 * PAGE, DEPTH_INTERVAL_NS, FRAME_SCHEMA, FRAME_HEADER_DTYPE)


def liquidation_spec(symbol: str, slots: int = 1536) -> FileSpec:
    """Liquidation map frames, one per minute, 16,384 bytes."""
    return _with_record(FileKind.FRAMES, "liquidation", symbol, slots, 4 * PAGE, MINUTE_NS, FRAME_SCHEMA, FRAME_HEADER_DTYPE)


def candles_spec(symbol: str, slots: int = 44_640) -> FileSpec:
    """Minute bars, 256 bytes; default 31 days."""
    return _with_record(FileKind.RECORDS, "candles", symbol, slots, 256, MINUTE_NS, RECORD_SCHEMA, CANDLE_DTYPE)


def liquidations_spec(symbol: str, slots: int = 65_536) -> FileSpec:
    """Realised liquidations, 256 bytes each, no fixed interval."""
    return _with_record(FileKind.RECORDS, "liquidations", symbol, slots, 256, 0, RECORD_SCHEMA, LIQUIDATION_DTYPE)


def _documents(name: str, symbol: str, plans: tuple[DocumentPlan, ...]) -> FileSpec:
    pages = sum(plan.copies * plan.stride for plan in plans) // PAGE
    return FileSpec(FileKind.DOCUMENTS, name, symbol, pages, PAGE, 0, 1, documents=plans)


def documents_spec(symbol: str, documents: tuple[DocumentPlan, ...] = SYMBOL_DOCUMENTS) -> FileSpec:
    """Latest-value documents of one symbol."""
    return _documents("documents", symbol, documents)


def feeds_spec() -> FileSpec:
    """Documents of ingest: state of venues and streams. Belongs to no symbol."""
    return _documents("feeds", "", FEED_DOCUMENTS)


def board_spec(rows: int = 64) -> FileSpec:
    """Status board: `rows` of 1,024 bytes and 8 KiB of label text."""
    return FileSpec(FileKind.BOARD, "board", "", rows, ROW_BYTES, 0, 1)


def counters_spec(name: str, labels: Sequence[str]) -> FileSpec:
    """A word per label, in their order. Files of other labels are other files: the identity has the digest of all of them."""
    return FileSpec(FileKind.COUNTERS, name, "", len(labels), 8, 0, 1, record_digest=digest("\n".join(labels).encode(), 0))


def document_offsets(plans: tuple[DocumentPlan, ...]) -> Iterator[tuple[int, DocumentPlan]]:
    """(file offset of the first copy, plan) in directory order."""
    offset = HEADER_BYTES
    for plan in plans:
        yield offset, plan
        offset += plan.copies * plan.stride


def identity_json(spec: FileSpec) -> bytes:
    """Identity text, zero padded to its place. Raises Refused where it does not fit."""
    text = json.dumps(
        {"symbol": spec.symbol, "name": spec.name, "interval_ns": spec.interval_ns, "schema": spec.schema,
         "fields": list(spec.fields), "record": f"{spec.record_digest:016x}"},
        separators=(",", ":"),
    ).encode()  # fmt: skip
    if len(text) > IDENTITY_BYTES:
        raise Refused(f"identity must fit {IDENTITY_BYTES} bytes, was {len(text)}")
    return text.ljust(IDENTITY_BYTES, b"\0")


def _directory(spec: FileSpec) -> bytes:
    entries = [DIRECTORY_ENTRY.pack(plan.id, plan.copies, offset, plan.stride, plan.schema)
               for offset, plan in document_offsets(spec.documents)]  # fmt: skip
    return b"".join(entries).ljust(DIRECTORY_BYTES, b"\0")


def build_header(spec: FileSpec, uuid: int, created_ns: int) -> bytes:
    """The whole header page of a new file: creator's fields set, every other word 0."""
    line = LINE_0.pack(
        MAGIC, LAYOUT_VERSION, spec.slots, spec.stride, HEADER_BYTES, SLOT_HEADER_BYTES, spec.kind, DIGEST_XXH3_64,
        created_ns, uuid,
    )  # fmt: skip
    constant = identity_json(spec) + _directory(spec)
    page = line + digest(line + constant, 0).to_bytes(8, "little")
    return (page.ljust(IDENTITY_AT, b"\0") + constant).ljust(HEADER_BYTES, b"\0")


@dataclass(frozen=True, slots=True)
class Header:
    """The creator's part of a header page, checked."""

    spec: FileSpec
    uuid: int
    created_ns: int


def parse_header(page: bytes, file_bytes: int) -> Header:
    """Read and check the creator's part. `file_bytes` is the size of the file. Raises LayoutMismatch with the reason."""
    if len(page) < HEADER_BYTES:
        raise LayoutMismatch(f"the file must hold a header of {HEADER_BYTES} bytes, was {len(page)}")
    magic, version, slots, stride, header_bytes, slot_header, kind, digest_kind, created_ns, uuid = LINE_0.unpack_from(page)
    if magic != MAGIC:
        raise LayoutMismatch(f"magic must be {MAGIC!r}, was {magic!r}")
    if version != LAYOUT_VERSION:
        raise LayoutMismatch(f"layout version must be {LAYOUT_VERSION}, was {version}")
    if digest_kind != DIGEST_XXH3_64:
        raise IdentityMismatch("digest kind", digest_kind, DIGEST_XXH3_64)
    constant = page[IDENTITY_AT : DIRECTORY_AT + DIRECTORY_BYTES]
    stored = int.from_bytes(page[LINE_0_BYTES:LINE], "little")
    if digest(page[:LINE_0_BYTES] + constant, 0) != stored:
        raise LayoutMismatch("the header digest does not match the header")
    if (header_bytes, slot_header) != (HEADER_BYTES, SLOT_HEADER_BYTES):
        raise LayoutMismatch(f"headers must be {HEADER_BYTES} and {SLOT_HEADER_BYTES} bytes, were {header_bytes} and {slot_header}")
    header = Header(_parse_spec(page, kind, slots, stride), uuid, created_ns)
    if _directory(header.spec) != page[DIRECTORY_AT : DIRECTORY_AT + DIRECTORY_BYTES]:
        raise LayoutMismatch("the document directory does not describe contiguous documents")
    if file_bytes != header.spec.file_bytes:
        raise LayoutMismatch(f"the file must be {header.spec.file_bytes} bytes, was {file_bytes}")
    return header


def _parse_spec(page: bytes, kind: int, slots: int, stride: int) -> FileSpec:
    try:
        identity = json.loads(page[IDENTITY_AT : IDENTITY_AT + IDENTITY_BYTES].rstrip(b"\0"))
        return FileSpec(
            FileKind(kind), identity["name"], identity["symbol"], slots, stride, identity["interval_ns"],
            identity["schema"], tuple(identity["fields"]), int(identity["record"], 16), tuple(_parse_directory(page)),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise LayoutMismatch(f"the header is not readable: {error}") from error


def _parse_directory(page: bytes) -> Iterator[DocumentPlan]:
    for index in range(MAX_DOCUMENTS):
        entry, copies, _, stride, schema = DIRECTORY_ENTRY.unpack_from(page, DIRECTORY_AT + index * DIRECTORY_ENTRY.size)
        if entry:
            yield DocumentPlan(entry, copies, stride, schema)


def check_identity(found: FileSpec, wanted: FileSpec) -> None:
    """Compare a sound file with what was asked for.

    Raises IdentityMismatch (it is something else) or LayoutMismatch (the same thing in another size); both say both values.
    """
    for name in ("kind", "symbol", "name", "schema", "stride", "interval_ns", "fields", "record_digest"):
        have, want = getattr(found, name), getattr(wanted, name)
        if have != want:
            raise IdentityMismatch(name, have, want)
    for name in ("slots", "documents"):
        have, want = getattr(found, name), getattr(wanted, name)
        if have != want:
            raise LayoutMismatch(f"{name} must be {want}, was {have}")
