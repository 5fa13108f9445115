"""Bytes and offsets of every shared file, against the page of the specification and not against the code that builds them."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from shm import layout
from shm.board_words import SUPERVISOR_FIRST, Word
from shm.digest import digest
from shm.errors import IdentityMismatch, LayoutMismatch, Refused
from shm.event_ring import EventWriter
from shm.frame_ring import FrameWriter
from shm.layout import (
    HEADER_FIELDS,
    DocumentPlan,
    FileKind,
    FileSpec,
    Owner,
    board_spec,
    build_header,
    candles_spec,
    check_identity,
    depth_spec,
    documents_spec,
    event_ring_spec,
    feeds_spec,
    liquidation_spec,
    liquidations_spec,
    parse_header,
    record_layout,
)
from shm.records import (
    CANDLE_DTYPE,
    EVENT_DTYPE,
    FRAME_HEADER_DTYPE,
    LEVEL_DTYPE,
    LIQUIDATION_DTYPE,
    RECORD_SCHEMA,
    pack_clock,
)
from shm.words import Words
from tests.shm.rig import memory

ALL_SPECS = [
    event_ring_spec("BTC"), depth_spec("BTC"), liquidation_spec("BTC"), candles_spec("BTC"), liquidations_spec("BTC"),
    documents_spec("BTC"), feeds_spec(), board_spec(),
]  # fmt: skip
SIZES = [33_558_528, 12_587_008, 25_169_920, 11_431_936, 16_781_312, 9_441_280, 790_528, 77_824]
ids = pytest.mark.parametrize("spec", ALL_SPECS, ids=lambda spec: spec.name)


@pytest.mark.covers("R-H4", "A1-M29")
def test_golden_bytes_of_a_file_header() -> None:
    page = build_header(depth_spec("BTC", 8), 0x0102030405060708, 1_700_000_000_000_000_000)
    assert len(page) == 4096
    assert page[:64].hex() == (
        "4d5052494e473100" "0100000000000000"  # magic, version
        "0800000000200000" "0010000040000000"  # 8 slots of 8192; header 4096, slot header 64
        "0200000001000000" "00002a36fe9c9717"  # frames, xxh3_64; created
        "0807060504030201" "b15da07859da92b5"  # uuid, digest over bytes 0..55 and 512..2047
    )  # fmt: skip
    assert digest(page[:56] + page[512:2048], 0).to_bytes(8, "little") == page[56:64]
    assert page[512:].startswith(b'{"symbol":"BTC","name":"depth","interval_ns":30000000000,"schema":1,"fields":["schema",')
    assert not any(page[64:512] + page[1024:])


@pytest.mark.covers("A1-M29")
def test_golden_bytes_of_a_slot() -> None:
    spec = depth_spec("BTC", 8)
    buffer = memory(spec)
    writer = FrameWriter(Words(buffer), spec, epoch=9)
    for _ in range(2):
        writer.publish(b"payload!", ts_ns=100, published_ns=200, kind=1, flags=3, link=7)
    slot = bytes(buffer[4096 + 8192 : 4096 + 2 * 8192])
    assert slot[:8] == (4).to_bytes(8, "little")  # stamp of frame 1, committed
    assert slot[8:16] == digest(slot[16:72], 1).to_bytes(8, "little")
    assert slot[16:72].hex() == (
        "0100000000000000" "6400000000000000" "c800000000000000"  # frame_no, ts_ns, published_ns
        "08000000" "0100" "0300" "0900000000000000" "0700000000000000"  # length, kind, flags, epoch, link
        "7061796c6f616421"
    )  # fmt: skip
    assert not any(slot[72:])


@pytest.mark.covers("A1-M29")
def test_golden_bytes_of_a_batch() -> None:
    spec = event_ring_spec("BTC", 16)
    buffer = memory(spec)
    writer = EventWriter(Words(buffer), spec, epoch=1)
    for seq in (0, 1):
        assert writer.put(pack_clock(5), records=1, source=6, first_seq=seq, flags=8, flushed_ns=9)
    unit = bytes(buffer[4096 + 128 : 4096 + 192])
    assert unit[:8] == (3).to_bytes(8, "little")  # position 2, plus 1
    assert unit[8:16] == digest(unit[16:] + pack_clock(5), 2).to_bytes(8, "little")
    assert unit[16:].hex() == (
        "01000000" "0800" "0100" "06000000" "00000000"  # units, flags, records, source, zero
        "0100000000000000" "0100000000000000" "0900000000000000" "0000000000000000"  # epoch, first_seq, flushed, zero
    )  # fmt: skip


@pytest.mark.covers("A1-M29")
def test_sizes_of_headers_and_records() -> None:
    assert (layout.HEADER_BYTES, layout.SLOT_HEADER_BYTES, layout.UNIT, layout.ROW_BYTES) == (4096, 64, 64, 1024)
    assert (FRAME_HEADER_DTYPE.itemsize, EVENT_DTYPE.itemsize, LEVEL_DTYPE.itemsize) == (128, 64, 16)
    assert CANDLE_DTYPE.itemsize <= candles_spec("BTC").payload_bytes == 192
    assert LIQUIDATION_DTYPE.itemsize <= liquidations_spec("BTC").payload_bytes
    assert 64 + 128 + 2 * 2000 * 2 <= depth_spec("BTC").stride == 8192
    assert 64 + 128 + 4 * 2000 * 2 <= liquidation_spec("BTC").stride == 16384


def test_files_have_the_sizes_of_the_page() -> None:
    assert [spec.file_bytes for spec in ALL_SPECS] == SIZES


@pytest.mark.covers("A1-M29")
def test_structs_agree_with_the_field_tables() -> None:
    def offsets(fields: str, start: int) -> list[int]:
        found, at = [], start
        for code in fields:
            found.append(at)
            at += struct.calcsize(f"<{code}")
        return found

    assert list(layout.SLOT_FIELDS.values()) == [0, 8, *offsets("QQQIHHQQ", 16)]
    assert layout.SLOT_BODY.size == 48 == layout.BATCH_BODY.size
    units, flags, records, source, _, epoch, first_seq, flushed, _ = offsets("IHHIIQQQQ", 16)
    assert list(layout.BATCH_FIELDS.values()) == [0, 8, units, flags, records, source, epoch, first_seq, flushed]


def test_every_header_field_is_where_the_page_says() -> None:
    told = {field.name: field.offset for field in HEADER_FIELDS}
    assert told == {
        "magic": 0, "layout_version": 8, "geometry": 16, "geometry2": 24, "kind_digest": 32, "created_ns": 40, "uuid": 48,
        "header_digest": 56, "epoch": 64, "pid": 72, "start_ticks": 80, "boot_hi": 88, "boot_lo": 96, "attached_ns": 104,
        "first": 112, "state": 120, "intent": 128, "head": 136, "beat_ns": 144, "release": 256, "consumer_epoch": 264,
        "consumer_beat_ns": 272, "dropped_records": 384, "dropped_batches": 392, "gaps": 400, "identity": 512,
        "document_directory": 1024, "document_heads": 2048,
    }  # fmt: skip


def test_words_are_aligned_and_no_two_writers_share_a_line() -> None:
    owners: dict[int, set[Owner]] = {}
    taken: set[int] = set()
    for field in HEADER_FIELDS:
        assert field.offset % 8 == field.size % 8 == 0
        span = set(range(field.offset, field.offset + field.size))
        assert not span & taken
        taken |= span
        for line in range(field.offset // 64, (field.offset + field.size - 1) // 64 + 1):
            owners.setdefault(line, set()).add(field.owner)
    assert all(len(several) == 1 for several in owners.values())
    assert max(taken) < layout.PAGE


def test_words_of_a_board_row_keep_process_and_supervisor_on_different_lines() -> None:
    assert SUPERVISOR_FIRST % 8 == 0
    assert layout.ROW_BYTES % layout.LINE == 0
    assert all(0 <= word < layout.ROW_BYTES // 8 for word in Word)


def test_slots_units_and_document_copies_begin_on_a_line() -> None:
    for spec in ALL_SPECS:
        assert layout.HEADER_BYTES % 64 == spec.stride % 64 == 0
    for offset, plan in layout.document_offsets(documents_spec("BTC").documents):
        assert offset % layout.PAGE == plan.stride % layout.PAGE == 0


def test_a_record_never_straddles_two_pages() -> None:
    for spec in (candles_spec("BTC"), liquidations_spec("BTC")):
        for index in range(64):
            begin = layout.HEADER_BYTES + index * spec.stride
            assert begin // 4096 == (begin + spec.stride - 1) // 4096


FROZEN_RECORDS = {
    (1, "event"): (EVENT_DTYPE, 0xA69323E8DE6DD9FD),
    (1, "frame header"): (FRAME_HEADER_DTYPE, 0x38348ED0ADC2739D),
    (1, "candle"): (CANDLE_DTYPE, 0xFBF3EA660B0CF6FB),
    (1, "liquidation"): (LIQUIDATION_DTYPE, 0x8662DBD032D677D6),
}


@pytest.mark.parametrize("key", FROZEN_RECORDS, ids=lambda key: key[1])
def test_a_changed_dtype_needs_a_new_version(key: tuple[int, str]) -> None:
    dtype, exact = FROZEN_RECORDS[key]
    assert key[0] == RECORD_SCHEMA
    assert record_layout(dtype)[1] == exact, "a dtype changed: bump RECORD_SCHEMA and add its digest here"


@pytest.mark.parametrize(
    "changed",
    [
        np.dtype([("a", "<u4"), ("b", "<u8")]),
        np.dtype([("a", "<u8"), ("c", "<u4")]),
        np.dtype([("a", "<u8"), ("b", "<u4"), ("c", "u1")]),
        np.dtype([("a", "<u8"), ("b", "<u2", (2,))]),
        np.dtype({"names": ["a", "b"], "formats": ["<u8", "<u4"], "offsets": [0, 12]}),
        np.dtype({"names": ["a", "b"], "formats": ["<u8", "<u4"], "offsets": [0, 8], "itemsize": 16}),
        np.dtype([("a", "<i8"), ("b", "<u4")]),
    ],
)
def test_every_change_of_a_dtype_changes_its_digest(changed: np.dtype[np.void]) -> None:
    assert record_layout(changed) != record_layout(np.dtype([("a", "<u8"), ("b", "<u4")]))


@ids
def test_a_header_reads_back_as_its_spec(spec: FileSpec) -> None:
    header = parse_header(build_header(spec, 3, 4), spec.file_bytes)
    assert (header.spec, header.uuid, header.created_ns) == (spec, 3, 4)


def with_word(page: bytes, offset: int, value: bytes, *, seal: bool = True) -> bytes:
    """`page` with other bytes at `offset`, its digest made right again."""
    changed = page[:offset] + value + page[offset + len(value) :]
    if not seal:
        return changed
    return changed[:56] + digest(changed[:56] + changed[512:2048], 0).to_bytes(8, "little") + changed[64:]


@pytest.mark.parametrize(
    ("offset", "value", "text"),
    [
        (0, b"MPRING2\0", "magic must be"),
        (8, b"\2", "layout version must be 1, was 2"),
        (24, b"\0\x20", "headers must be 4096 and 64 bytes, were 8192 and 64"),
        (16, b"\7", "the file must be 61440 bytes, was 69632"),
        (16, b"\0", "slots must be 1 to"),
        (20, b"\1", "whole pages"),
        (32, b"\x09", "9 is not a valid FileKind"),
        (512, b"nonsense", "not readable"),
        (1024, struct.pack("<IIQQQ", 1, 3, 4096, 4096, 1), "only a documents file has documents"),
    ],
)
def test_a_damaged_header_is_refused_with_the_reason(offset: int, value: bytes, text: str) -> None:
    spec = depth_spec("BTC", 8)
    with pytest.raises(LayoutMismatch, match=text):
        parse_header(with_word(build_header(spec, 1, 1), offset, value), spec.file_bytes)


def test_every_flipped_bit_of_what_never_changes_is_found() -> None:
    spec = depth_spec("BTC", 8)
    page = build_header(spec, 1, 1)
    for offset in [*range(64), *range(512, 2048, 7)]:
        with pytest.raises((LayoutMismatch, IdentityMismatch)):
            parse_header(with_word(page, offset, bytes([page[offset] ^ 0x10]), seal=False), spec.file_bytes)


def test_another_digest_kind_is_told_as_such() -> None:
    spec = depth_spec("BTC", 8)
    with pytest.raises(IdentityMismatch, match="digest kind of the file is 2, wanted 1"):
        parse_header(with_word(build_header(spec, 1, 1), 36, b"\2"), spec.file_bytes)


def test_a_directory_that_is_not_contiguous_is_refused() -> None:
    spec = feeds_spec()
    page = with_word(build_header(spec, 1, 1), 1024 + 8, (8192).to_bytes(8, "little"))
    with pytest.raises(LayoutMismatch, match="contiguous"):
        parse_header(page, spec.file_bytes)


def test_a_short_page_and_a_wrong_size_are_refused() -> None:
    spec = depth_spec("BTC", 8)
    page = build_header(spec, 1, 1)
    with pytest.raises(LayoutMismatch, match="was 100"):
        parse_header(page[:100], 100)
    for size in (spec.file_bytes - 1, spec.file_bytes + 1):
        with pytest.raises(LayoutMismatch, match=f"was {size}"):
            parse_header(page, size)


@pytest.mark.covers("A1-L17")
@pytest.mark.parametrize(
    ("change", "field", "error"),
    [
        ({"kind": FileKind.RECORDS, "stride": 256}, "kind", IdentityMismatch),
        ({"symbol": "ETH"}, "symbol", IdentityMismatch),
        ({"name": "liquidation"}, "name", IdentityMismatch),
        ({"schema": 2}, "schema", IdentityMismatch),
        ({"stride": 16384}, "stride", IdentityMismatch),
        ({"interval_ns": 1}, "interval_ns", IdentityMismatch),
        ({"fields": ("other",)}, "fields", IdentityMismatch),
        ({"record_digest": 5}, "record_digest", IdentityMismatch),
        ({"slots": 9}, "slots", LayoutMismatch),
    ],
)
def test_what_differs_is_refused_with_both_values(change: dict[str, object], field: str, error: type[Exception]) -> None:
    wanted = depth_spec("BTC", 8)
    found: FileSpec = replace(wanted, **change)  # type: ignore[arg-type]
    with pytest.raises(error) as caught:
        check_identity(found, wanted)
    assert field in str(caught.value)
    for value in (getattr(found, field), getattr(wanted, field)):
        assert (repr(value) if error is IdentityMismatch else str(value)) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"slots": 0}, "slots must be"),
        ({"slots": 1 << 32}, "slots must be"),
        ({"stride": 100}, "whole pages"),
        ({"stride": 0}, "whole pages"),
        ({"kind": FileKind.RECORDS, "stride": 384}, "must divide 4096"),
        ({"kind": FileKind.RECORDS, "stride": 64}, "at least 128"),
        ({"kind": FileKind.EVENTS}, "must be 64"),
        ({"kind": FileKind.BOARD}, "must be 1024"),
        ({"kind": FileKind.DOCUMENTS}, "must be 4096"),
        ({"documents": (DocumentPlan(1, 3, 4096, 1),)}, "only a documents file"),
    ],
)
def test_a_geometry_that_the_layout_cannot_carry_is_refused(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(depth_spec("BTC", 8), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "plans",
    [
        (),
        (DocumentPlan(1, 3, 4096, 1), DocumentPlan(1, 3, 4096, 1)),
        tuple(DocumentPlan(number, 2, 4096, 1) for number in range(33)),
        (DocumentPlan(1, 1, 4096, 1),),
        (DocumentPlan(1, 3, 100, 1),),
    ],
)
def test_document_plans_that_do_not_work_are_refused(plans: tuple[DocumentPlan, ...]) -> None:
    with pytest.raises(ValueError, match=r"document|slots"):
        documents_spec("BTC", plans)


def test_pages_of_a_documents_file_must_add_up() -> None:
    with pytest.raises(ValueError, match="sum of its copies"):
        replace(feeds_spec(), slots=5)


def test_an_identity_that_is_too_long_is_refused() -> None:
    with pytest.raises(Refused, match="identity must fit 512 bytes"):
        build_header(replace(depth_spec("BTC", 8), fields=("x" * 600,)), 1, 1)
