"""The digest is xxh3_64 with a seed: known values, so that a change of library or kind cannot pass unseen."""

from __future__ import annotations

from shm.digest import digest


def test_known_values() -> None:
    assert digest(b"", 0) == 0x2D06800538D394C2
    assert digest(b"payload!", 5) == digest(bytearray(b"payload!"), 5) == digest(memoryview(b"payload!"), 5)


def test_seed_and_every_byte_count() -> None:
    data = bytes(range(200))
    assert len({digest(data, seed) for seed in range(1000)}) == 1000
    flipped = {digest(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], 0) for at in range(200)}
    assert len(flipped | {digest(data, 0)}) == 201
