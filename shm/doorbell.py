"""Doorbell: one writer rings, many sleepers wake. A hint without data: a lost or a spurious ring changes nothing but latency.

One eventfd per engine, created by the supervisor, handed down by `pass_fds` and kept by it, so that it survives both sides.
Nobody ever reads it: edge-triggered epoll sets wake every sleeper for one write, and no worker steals another's edge.
Whoever waits looks at the heads after each wake-up and every 250 ms as well.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

VARIABLE: Final = "MPENGINE_DOORBELLS"
"""In the environment of a process: the doorbells that were handed down to it, `BTC=7,ETH=8`."""
_BELL: Final = "anon_inode:[eventfd]"
RECHECK_S: Final = 0.25  # look at the heads at least this often, ring or no ring


def create() -> int:
    """A new doorbell: fd of a non-blocking eventfd."""
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def listed(bells: Mapping[str, int]) -> str:
    """What `VARIABLE` says of these descriptors."""
    return ",".join(f"{symbol}={fd}" for symbol, fd in bells.items())


def handed_down(text: str) -> dict[str, int]:
    """Descriptors by symbol that are doorbells here. `text`: of `VARIABLE`. The others are left out: where they were not handed
    down, their numbers are those of any other file, and some of these cannot even be waited for."""
    found = {}
    for part in text.split(","):
        symbol, _, number = part.partition("=")
        if number.isdigit():
            try:
                kind = str(Path(f"/proc/self/fd/{number}").readlink())
            except OSError:
                continue
            if kind == _BELL:
                found[symbol] = int(number)
    return found


def ring(fd: int) -> None:
    """Wake every sleeper; never blocks. A counter at its limit (EAGAIN) means that it has rung 2**64 times: still a ring."""
    try:
        os.eventfd_write(fd, 1)
    except BlockingIOError:
        pass  # nobody reads the counter, so it can only fill up; sleepers look at the heads every 250 ms anyway


class Waiter:
    """A sleeper's own edge-triggered epoll set over doorbells. Register `fileno()` with an event loop, or `wait`."""

    def __init__(self, fds: Iterable[int] = ()) -> None:
        self._epoll = select.epoll()
        for fd in fds:
            self.add(fd)

    def add(self, fd: int) -> None:
        """Watch one more doorbell."""
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    def remove(self, fd: int) -> None:
        """Watch one less; the fd must still be open."""
        self._epoll.unregister(fd)

    def fileno(self) -> int:
        """Readable when a doorbell has rung since the last `drain`."""
        return self._epoll.fileno()

    def wait(self, timeout_s: float = RECHECK_S) -> list[int]:
        """Sleep until a ring or the timeout; fds that have rung. The doorbells themselves are never read."""
        return [fd for fd, _ in self._epoll.poll(timeout_s)]

    def drain(self) -> list[int]:
        """Fds that have rung since the last call; does not sleep."""
        return self.wait(0)

    def close(self) -> None:
        """Close the set, not the doorbells."""
        self._epoll.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
