"""Loads and stores: what they do, what they refuse, and that a whole word is one access (two processes, with a control)."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shm.errors import Unsupported
from shm.words import Words, require_supported
from tests.shm.rig import Child

Spawn = Callable[..., Child]


def test_words_and_bytes_are_the_same_memory() -> None:
    buffer = bytearray(64)
    words = Words(buffer)
    words.store_release(1, 0x0102030405060708)
    assert buffer[8:16] == bytes([8, 7, 6, 5, 4, 3, 2, 1])
    words.copy_in(16, b"\xff" * 8)
    assert words.load_acquire(2) == 0xFFFF_FFFF_FFFF_FFFF
    target = bytearray(16)
    words.copy_block(8, memoryview(target))
    assert bytes(target) == words.copy_out(8, 16)


def test_a_copy_is_private() -> None:
    buffer = bytearray(b"abcdefgh")
    words = Words(buffer)
    copy = words.copy_out(0, 8)
    words.copy_in(0, b"ABCDEFGH")
    assert type(copy) is bytes
    assert copy == b"abcdefgh"


def test_accesses_outside_the_buffer_raise() -> None:
    words = Words(bytearray(64))
    with pytest.raises(IndexError):
        words.load_acquire(8)
    with pytest.raises(IndexError):
        words.store_release(8, 1)
    with pytest.raises(ValueError):
        words.copy_in(60, b"12345678")
    with pytest.raises(ValueError):
        words.copy_block(60, memoryview(bytearray(8)))


def test_a_value_that_is_no_u64_is_not_stored() -> None:
    words = Words(bytearray(8))
    for value in (-1, 1 << 64):
        with pytest.raises(ValueError):
            words.store_release(0, value)
    assert words.load_acquire(0) == 0


def test_a_read_only_map_takes_no_store(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(4096))
    fd = os.open(path, os.O_RDONLY)
    words = Words(mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ))
    os.close(fd)
    with pytest.raises(TypeError):
        words.store_release(0, 1)
    with pytest.raises(TypeError):
        words.copy_in(0, b"x")
    words.close()


def test_access_after_close_raises_and_does_not_crash() -> None:
    words = Words(mmap.mmap(-1, 4096))
    words.close()
    with pytest.raises(ValueError, match="released"):
        words.load_acquire(0)
    with pytest.raises(ValueError, match="released"):
        words.copy_out(0, 8)


@pytest.mark.parametrize(
    ("abiflags", "implementation", "byteorder", "text"),
    [
        ("t", "cpython", "little", "free-threaded CPython is not supported"),
        ("td", "cpython", "little", "free-threaded"),
        ("", "pypy", "little", "cpython, was pypy"),
        ("", "cpython", "big", "little, was big"),
    ],
)
def test_interpreters_without_the_guarantees_are_refused(abiflags: str, implementation: str, byteorder: str, text: str) -> None:
    with pytest.raises(Unsupported, match=text):
        require_supported(abiflags, implementation, byteorder)


def test_words_over_plain_memory_can_be_closed_too() -> None:
    buffer = bytearray(8)
    words = Words(buffer)
    words.close()
    buffer.append(1)  # nothing holds on to it
    with pytest.raises(ValueError, match="released"):
        words.store_release(0, 1)


def test_this_interpreter_and_a_debug_build_are_supported() -> None:
    require_supported("", "cpython", "little")
    require_supported("d", "cpython", "little")


LENGTHS = [pytest.param(1.5, id="quick"), pytest.param(60.0, id="long", marks=pytest.mark.stress)]


def sampled(spawn: Spawn, place: Path, how: str, seconds: float) -> tuple[int, int, int]:
    """(samples, zeros, torn) of a word that another process changes without pause in the way `how`."""
    path = place / how
    path.write_bytes(bytes(4096))
    writer = spawn("word-writer", path, how)
    writer.expect("writing")
    total = [0, 0, 0]
    for _ in range(8):
        sampler = spawn("word-sampler", path, how, seconds)
        total = [before + int(word) for before, word in zip(total, sampler.line().split())]
        if (
            how == "words" or total[1] or total[2]
        ):  # a control goes on until it has found something: two busy cores hide it at times
            break
    return total[0], total[1], total[2]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", LENGTHS)
def test_a_word_is_stored_and_loaded_whole(spawn: Spawn, tmpfs: Path, seconds: float) -> None:
    samples, zeros, torn = sampled(spawn, tmpfs, "words", seconds)
    print(f"{samples} samples, {zeros} zeros, {torn} torn")
    assert samples > 10_000
    assert (zeros, torn) == (0, 0)


@pytest.mark.slow
def test_the_same_sampler_catches_pack_into(spawn: Spawn, tmpfs: Path) -> None:
    samples, zeros, _ = sampled(spawn, tmpfs, "pack_into", 1.5)
    print(f"{samples} samples, {zeros} zeros")
    assert zeros > 0


@pytest.mark.slow
def test_the_same_sampler_catches_a_word_that_crosses_a_line(spawn: Spawn, tmpfs: Path) -> None:
    samples, _, torn = sampled(spawn, tmpfs, "crossing", 1.5)
    print(f"{samples} samples, {torn} torn")
    assert torn > 0
