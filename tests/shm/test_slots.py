"""Slot protocol over plain memory: what a reader accepts, what a scan repairs, and what a power loss leaves behind."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shm.errors import Refused
from shm.layout import SLOT_FIELDS
from shm.slots import SlotArray, pack_body, plausible_next
from shm.words import Words
from tests.shm.rig import oracle

SLOTS, STRIDE = 4, 256


def array(buffer: bytearray, stride: int = STRIDE) -> SlotArray:
    return SlotArray(Words(buffer), 0, len(buffer) // stride, stride)


def filled(frames: int, slots: int = SLOTS, stride: int = STRIDE, size: int = 100) -> bytearray:
    buffer = bytearray(slots * stride)
    ring = array(buffer, stride)
    for n in range(frames):
        ring.write(n, pack_body(n, oracle(n, size), n, n, 1, 0, 1, 0))
    return buffer


def poke(buffer: bytearray, slot: int, field: str, value: int, size: int = 8) -> None:
    at = slot * STRIDE + SLOT_FIELDS[field]
    buffer[at : at + size] = value.to_bytes(size, "little")


def test_only_the_frames_of_the_last_lap_are_there() -> None:
    ring = array(filled(6))
    assert [n for n in range(-3, 12) if ring.read(n)] == [2, 3, 4, 5]
    assert ring.torn == 0


def test_a_slot_in_progress_is_not_available() -> None:
    buffer = filled(4)
    poke(buffer, 2, "stamp", 2 * 6 + 1)
    ring = array(buffer)
    assert ring.read(2) is None
    assert ring.read(6) is None


@pytest.mark.parametrize(
    ("field", "value", "size"),
    [
        ("digest", 1, 8), ("frame_no", 6, 8), ("ts_ns", 99, 8), ("published_ns", 99, 8), ("length", 99, 4),
        ("length", 193, 4), ("length", 0xFFFF_FFFF, 4), ("kind", 9, 2), ("flags", 9, 2), ("epoch", 9, 8), ("link", 9, 8),
    ],
)  # fmt: skip
def test_any_changed_header_field_makes_the_slot_unavailable(field: str, value: int, size: int) -> None:
    buffer = filled(4)
    poke(buffer, 2, field, value, size)
    ring = array(buffer)
    assert ring.read(2) is None
    assert ring.torn == 1
    assert ring.read(1) is not None


def test_any_flipped_payload_byte_makes_the_slot_unavailable() -> None:
    buffer = filled(4)
    for at in range(2 * STRIDE + 64, 2 * STRIDE + 164):
        buffer[at] ^= 1
        assert array(buffer).read(2) is None
        buffer[at] ^= 1
    assert array(buffer).read(2) is not None


def test_an_old_payload_under_a_new_header_fails() -> None:
    old, new = filled(2), filled(6)
    torn = bytearray(new)
    torn[STRIDE + 64 : 2 * STRIDE] = old[STRIDE + 64 : 2 * STRIDE]
    assert array(torn).read(5) is None


def test_a_frame_under_the_stamp_of_another_fails() -> None:
    buffer = filled(2)
    poke(buffer, 1, "stamp", 2 * 5 + 2)
    assert array(buffer).read(5) is None
    poke(buffer, 1, "frame_no", 5)  # the seed of the digest is the frame number, so this does not help either
    assert array(buffer).read(5) is None


def test_a_frame_number_inside_the_digest_must_be_the_one_asked_for() -> None:
    """A body of frame 5 that was sealed as frame 1 passes stamp and digest, and still is not frame 1."""
    ring = array(bytearray(SLOTS * STRIDE))
    ring.write(1, pack_body(5, b"x", 1, 1, 1, 0, 1, 0))
    assert ring.read(1) is None
    assert ring.torn == 1


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_a_field_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(Refused, match="out of range"):
        pack_body(0, b"", value, 0, 0, 0, 0, 0)


def test_a_scan_keeps_good_slots_and_empties_all_others() -> None:
    buffer = filled(8, slots=8)
    poke(buffer, 1, "stamp", 3)  # half written
    poke(buffer, 2, "digest", 1)
    poke(buffer, 3, "length", 5000, 4)
    poke(buffer, 4, "frame_no", 12)
    poke(buffer, 5, "stamp", 2 * 6 + 2)  # a frame that does not belong into this slot
    poke(buffer, 6, "stamp", 0)  # already empty: nothing to repair
    poke(buffer, 7, "stamp", 0xFFFF_FFFF_FFFF_FFFF)
    ring = array(buffer)
    scan = ring.scan()
    assert scan.numbers.tolist() == [0]
    assert scan.next_no == 1
    assert scan.invalidated == 6
    assert [ring.read(n) is not None for n in range(8)] == [True] + [False] * 7
    again = ring.scan()
    assert (again.numbers.tolist(), again.invalidated) == ([0], 0)


def test_a_scan_of_an_empty_array_finds_nothing() -> None:
    scan = array(bytearray(SLOTS * STRIDE)).scan()
    assert (scan.numbers.tolist(), scan.invalidated, scan.next_no) == ([], 0, 0)


def test_a_scan_of_random_bytes_empties_every_slot() -> None:
    buffer = bytearray(random.Random(5).randbytes(64 * STRIDE))
    ring = array(buffer)
    scan = ring.scan()
    assert (len(scan.numbers), scan.invalidated) == (0, 64)
    assert not np.frombuffer(buffer, "<u8").reshape(64, -1)[:, 0].any()


def test_a_block_of_more_than_the_end_of_the_ring_comes_in_order() -> None:
    ring = array(filled(10))
    numbers = np.arange(6, 10, dtype=np.uint64)
    block = ring.copy_range(6, 10)
    assert block.view("<u8")[:, 2].tolist() == [6, 7, 8, 9]
    assert ring.good(block, numbers).all()


@pytest.mark.parametrize(
    ("best", "head", "begun", "expected", "why"),
    [
        (10, 10, 10, 10, "in order"),
        (10, 10, 11, 10, "a frame was begun and not committed: its number is used again"),
        (10, 12, 12, 12, "the last two were torn by a power loss and have been seen by readers"),
        (10, 9, 9, 10, "the header page is older than the slots"),
        (10, 19, 19, 10, "further than a lap from every good frame: rubbish"),
        (10, 12, 99, 10, "head and intent do not hang together: rubbish"),
        (10, 12, 11, 10, "head beyond intent: rubbish"),
        (0, 0, 0, 0, "new file"),
        (0, 1 << 40, 1 << 40, 1 << 40, "every slot was lost; numbers must not come again"),
    ],
)
def test_the_next_number(best: int, head: int, begun: int, expected: int, why: str) -> None:
    assert plausible_next(best, head, begun, 8) == expected, why


def power_loss(rng: random.Random, stride: int, rounds: int) -> tuple[int, int, int]:
    """(frames that look committed, of these torn, of these served after the scan) when 4 KiB pages reach the disk in any order.

    Half of the rounds cut within the write of the last frame; each page on disk is the page before or after a write.
    """
    looked = torn = served = 0
    slots = 4
    for _ in range(rounds):
        frames = rng.randrange(slots, 3 * slots)
        size = stride - 64
        before = filled(frames, slots, stride, size)
        after = bytearray(before)
        SlotArray(Words(after), 0, slots, stride).write(frames, pack_body(frames, oracle(frames, size), 1, 1, 1, 0, 1, 0))
        disk = bytearray(before)
        for page in range(0, len(disk), 4096):
            if rng.random() < 0.5:
                disk[page : page + 4096] = after[page : page + 4096]
        at = frames % slots * stride
        new = int.from_bytes(disk[at : at + 8], "little") == 2 * frames + 2
        is_torn = new and disk[at : at + stride] != after[at : at + stride]
        looked, torn = looked + new, torn + is_torn
        ring = array(disk, stride)
        ring.scan()
        slot = ring.read(frames)
        assert (slot is not None) == (new and not is_torn)
        if slot is not None:
            served += slot.payload != oracle(frames, size)
        for n in range(frames - slots + 1, frames):
            kept = ring.read(n)
            assert kept is not None
            assert kept.payload == oracle(n, size)
    return looked, torn, served


@pytest.mark.parametrize("rounds", [300, pytest.param(6000, marks=pytest.mark.stress)])
@pytest.mark.parametrize("stride", [8192, 16384])
def test_every_slot_torn_by_a_power_loss_is_found_at_attach(stride: int, rounds: int) -> None:
    looked, torn, served = power_loss(random.Random(stride), stride, rounds)
    print(f"stride {stride}: {looked} looked committed, {torn} of them torn, {served} torn ones served")
    assert torn > looked // 4, "the control: without the digest these would have been served"
    assert served == 0


@pytest.mark.parametrize("rounds", [300])
@pytest.mark.parametrize("stride", [256, 4096])
def test_a_slot_inside_a_page_is_never_torn_by_a_power_loss(stride: int, rounds: int) -> None:
    looked, torn, _ = power_loss(random.Random(stride), stride, rounds)
    assert looked > rounds // 4
    assert torn == 0
