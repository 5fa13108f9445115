"""Is the writer of a file still there? Called by readers of rings, documents and the board; reads /proc, signals nobody.

A pid alone proves nothing: pids are used again, a zombie still has one, another boot or another pid namespace has its own.
So a writer is known by (boot id, pid, start ticks), and a live process that no longer turns is told by its beat.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Final
from uuid import UUID

STALLED_AFTER_NS: Final = 5_000_000_000
BEAT_EVERY_NS: Final = 250_000_000
PROC: Final = Path("/proc")


class WriterState(Enum):
    """What readers can say about a writer. CLOSED also stands for "no writer yet"."""

    CLOSED = "closed"
    RETIRED = "retired"
    DEAD = "dead"
    STALLED = "stalled"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Names one process of one boot of one machine."""

    pid: int
    start_ticks: int
    boot_hi: int
    boot_lo: int


@dataclass(frozen=True, slots=True)
class Probe:
    """How to look at processes. `shared_pids` False: the writer lives in another pid namespace, so only state and beat count."""

    proc: Path = PROC
    shared_pids: bool = True
    monotonic_ns: Callable[[], int] = time.monotonic_ns
    stalled_after_ns: int = STALLED_AFTER_NS


def boot_id(proc: Path = PROC) -> tuple[int, int]:
    """(high, low) 64 bits of the boot id of the machine."""
    value = UUID((proc / "sys/kernel/random/boot_id").read_text("ascii").strip()).int
    return value >> 64, value & 0xFFFF_FFFF_FFFF_FFFF


@cache
def _own_boot_id() -> tuple[int, int]:
    return boot_id()


def start_ticks(pid: int, proc: Path = PROC) -> int | None:
    """Field 22 of /proc/<pid>/stat; None for a process that is gone or a zombie."""
    try:
        text = (proc / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name may hold spaces and brackets, so fields are counted behind its last bracket (field 3 is the state).
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X", b"x") else int(fields[19])


def own_identity() -> ProcessIdentity:
    """Identity of the calling process."""
    pid = os.getpid()
    return ProcessIdentity(pid, start_ticks(pid) or 0, *_own_boot_id())


def is_alive(identity: ProcessIdentity, proc: Path = PROC) -> bool:
    """True while exactly this process of this boot runs."""
    boot = _own_boot_id() if proc is PROC else boot_id(proc)
    return (identity.boot_hi, identity.boot_lo) == boot and start_ticks(identity.pid, proc) == identity.start_ticks


def writer_state(identity: ProcessIdentity, beat_ns: int, probe: Probe) -> WriterState:
    """DEAD, STALLED or LIVE for a writer that has not said that it closed. `beat_ns`: its monotonic clock."""
    if probe.shared_pids and not is_alive(identity, probe.proc):
        return WriterState.DEAD
    stalled = probe.monotonic_ns() - beat_ns > probe.stalled_after_ns
    return WriterState.STALLED if stalled else WriterState.LIVE
