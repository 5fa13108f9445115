"""What clients have spent lately, shared by the API workers without a lock: each worker writes its own region, all read all.

    header 4,096 bytes: magic, version, regions, sets, ways, salt
    region r: line of 64 bytes (pid of the owner, claims so far), then `sets` sets of 192 bytes
    set:      version, 7 unused words, then 4 entries of 4 words: key, spent, debt_ns, held

`key` is a salted hash of the client, 0 for an empty entry. `spent` counts the tokens that this region's worker took from the
client, ever. `debt_ns` is the monotonic time at which the client's bucket is full again, as this worker knew it when it last took
some. `held`: push connections that the worker keeps for the client. `version` rises when another client gets an entry of the set.

One writer per word: a region belongs to the process that holds the lock on its byte of the file, for as long as it lives. The
lock is one of the open file description (the kernel lets it go with the process, and closing some other descriptor does not),
so a region is free again when its worker is gone, whatever ended it. There are twice as many regions as workers and two more:
at a reload the old workers drain beside the new ones.

Numbers of a client survive its worker: the next owner of the region goes on from them. A client that finds no room takes the
entry whose bucket was full first, which forgets nothing but a debt that is over, or nearly.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import struct
from pathlib import Path
from typing import Final

from shm.atomic_file import write_atomic
from shm.errors import LayoutMismatch, Missing
from shm.words import Buffer, Words

MAGIC: Final = b"MPRATES1"
VERSION: Final = 1
SETS: Final = 1024
WAYS: Final = 4
SALT_BYTES: Final = 16
FILE_MODE: Final = 0o600

HEADER_BYTES: Final = 4096
_HEADER: Final = struct.Struct(f"<8sIIII{SALT_BYTES}s")
_LINE_WORDS: Final = 8
_ENTRY_WORDS: Final = 4
SET_WORDS: Final = 8 + WAYS * _ENTRY_WORDS
REGION_WORDS: Final = _LINE_WORDS + SETS * SET_WORDS
KEY, SPENT, DEBT, HELD = range(_ENTRY_WORDS)
"""Words of an entry."""

_OWNER_AT, _CLAIMS_AT = 0, 1
_FLOCK: Final = struct.Struct("hhqqi4x")


def regions_for(workers: int) -> int:
    """Regions that a pool of `workers` needs."""
    return 2 * workers + 2


def create(path: Path, workers: int) -> None:
    """A new, empty table in place of whatever was there; its salt is new too. Raises OSError."""
    regions = regions_for(workers)
    header = _HEADER.pack(MAGIC, VERSION, regions, SETS, WAYS, secrets.token_bytes(SALT_BYTES)).ljust(HEADER_BYTES, b"\0")
    # Written in full, not extended: a store into a hole of a full tmpfs is SIGBUS.
    write_atomic(path, header + bytes(regions * REGION_WORDS * 8), mode=FILE_MODE)


class RateTable:
    """The table as one process sees it. `region`: its own, None while it has none."""

    def __init__(self, buffer: Buffer, regions: int, salt: bytes, fd: int | None = None) -> None:
        self.words = Words(buffer)
        self.regions = regions
        self.salt = salt
        self.region: int | None = None
        self._fd = fd

    @classmethod
    def attach(cls, path: Path) -> RateTable:
        """The table of a file. Raises Missing where there is none, LayoutMismatch, OSError."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Missing(f"{path.name} is not there") from error
        try:
            regions, salt = _checked(os.pread(fd, _HEADER.size, 0), os.fstat(fd).st_size)
            return cls(mmap.mmap(fd, 0), regions, salt, fd)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def private(cls) -> RateTable:
        """A table of this process alone."""
        found = cls(bytearray(HEADER_BYTES + REGION_WORDS * 8), 1, secrets.token_bytes(SALT_BYTES))
        found.region = 0
        return found

    def claim(self) -> bool:
        """Take a free region; False where every one has an owner. What a dead owner counted stays, what it held is let go."""
        for region in range(self.regions):
            if self.region is None and self._try_lock(region):
                self.region = region
        if self.region is None:
            return False
        line, words = self.line(self.region), self.words
        words.store_release(line + _OWNER_AT, os.getpid())
        words.store_release(line + _CLAIMS_AT, words.load_acquire(line + _CLAIMS_AT) + 1)
        for entry in self.entries(self.region):
            words.store_release(entry + HELD, 0)
        return True

    def line(self, region: int) -> int:
        """Word index of the first line of a region."""
        return HEADER_BYTES // 8 + region * REGION_WORDS

    def set_of(self, region: int, key: int) -> int:
        """Word index of the set in which a key has its entry; its first word is the version."""
        return self.line(region) + _LINE_WORDS + key % SETS * SET_WORDS

    def entries(self, region: int) -> list[int]:
        """Word indices of all entries of a region, set by set."""
        first = self.line(region) + _LINE_WORDS
        return [place for at in range(first, first + SETS * SET_WORDS, SET_WORDS) for place in _ways(at)]

    def find(self, region: int, key: int) -> int:
        """Word index of the entry of a key in a region, 0 where it has none."""
        load = self.words.load_acquire
        for place in _ways(self.set_of(region, key)):
            if load(place) == key:
                return place
        return 0

    def insert(self, key: int) -> tuple[int, int]:
        """(entry for a key in the own region, key that had it before or 0). Numbers of the entry begin at 0."""
        assert self.region is not None
        at, words = self.set_of(self.region, key), self.words
        load, store = words.load_acquire, words.store_release
        place = min(_ways(at), key=lambda one: (load(one) != 0, load(one + HELD) != 0, load(one + DEBT)))
        before = load(place)
        # A reader that has the old key checks it before it believes a number, so the key goes first and comes last.
        store(place, 0)
        for number in (SPENT, DEBT, HELD):
            store(place + number, 0)
        store(place, key)
        store(at, load(at) + 1)
        return place, before

    def owner(self, region: int) -> int:
        """Pid of the process that claimed a region last, 0 for none."""
        return self.words.load_acquire(self.line(region) + _OWNER_AT)

    def is_held(self, region: int) -> bool:
        """Whether a living process has the region."""
        return region == self.region or not self._is_free(region)

    def close(self) -> None:
        """Unmap, and give the region back."""
        self.words.close()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _try_lock(self, region: int) -> bool:
        try:
            self._lock(fcntl.F_OFD_SETLK, region)
        except (BlockingIOError, PermissionError):  # EAGAIN, or EACCES where a system says it so
            return False
        return True

    def _is_free(self, region: int) -> bool:
        kind: int = _FLOCK.unpack(self._lock(fcntl.F_OFD_GETLK, region))[0]
        return kind == fcntl.F_UNLCK

    def _lock(self, command: int, region: int) -> bytes:
        assert self._fd is not None
        return fcntl.fcntl(self._fd, command, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, region, 1, 0))


def _ways(at: int) -> range:
    """Entries of the set at a word index."""
    return range(at + 8, at + SET_WORDS, _ENTRY_WORDS)


def _checked(header: bytes, file_bytes: int) -> tuple[int, bytes]:
    if len(header) < _HEADER.size:
        raise LayoutMismatch("the rate table has no header")
    magic, version, regions, sets, ways, salt = _HEADER.unpack(header)
    if (magic, version, sets, ways) != (MAGIC, VERSION, SETS, WAYS):
        raise LayoutMismatch("the rate table has another layout")
    if file_bytes != HEADER_BYTES + regions * REGION_WORDS * 8:
        raise LayoutMismatch("the rate table has another size")
    return regions, salt
