"""Is this directory a place for rings? Called by the supervisor and by `mpengine doctor` before any file is made.

Shared mappings, flock and fdatasync keep their promises on local ext4 and xfs. Network file systems keep none of them;
on overlay and copy-on-write ones ENOSPC is possible even after posix_fallocate.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shm.errors import Missing, NotLocalDisk

# f_type of statfs(2), from linux/magic.h and the file systems' own headers.
REFUSED: Final = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x6B414653: "afs",
    0x73757245: "coda",
    0x564C: "ncp",
    0x0BD00BD0: "lustre",
    0x01161970: "gfs2",
    0x7461636F: "ocfs2",
    0x65735546: "fuse",
    0x19830326: "beegfs",
    0x47504653: "gpfs",
}
WARNED: Final = {
    0x794C7630: "overlay: posix_fallocate does not reserve space in the layer below, a full disk can still kill a writer",
    0x9123683E: "btrfs: copy on write, a full disk can still kill a writer",
    0x2FC12FC1: "zfs: copy on write, a full disk can still kill a writer",
    0xCA451A4E: "bcachefs: copy on write, a full disk can still kill a writer",
    0x01021994: "tmpfs: the history is lost at every boot",
    0x858458F6: "ramfs: the history is lost at every boot",
}
LOCAL: Final = {0xEF53: "ext4", 0x58465342: "xfs", 0xF2F52010: "f2fs"}


def filesystem_type(path: Path) -> int:
    """f_type of statfs(2) for `path`. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_long * 32)()  # struct statfs begins with f_type, one long, on x86-64 and aarch64; 120 bytes in all
    if libc.statfs(os.fsencode(path), buffer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int(buffer[0]) & 0xFFFF_FFFF


def check_data_directory(path: Path, *, probe: Callable[[Path], int] = filesystem_type) -> list[str]:
    """Warnings about the file system under the data directory, empty for ext4 and xfs.

    Raises NotLocalDisk for a network file system (and FUSE, which may be one), Missing where there is no directory.
    """
    if not path.is_dir():
        raise Missing(f"there is no data directory {path}")
    kind = probe(path)
    if kind in REFUSED:
        raise NotLocalDisk(f"the data directory must be on a local disk (ext4, xfs), was {REFUSED[kind]}")
    if kind in WARNED:
        return [WARNED[kind]]
    return [] if kind in LOCAL else [f"file system type {kind:#x} has not been tried; ext4 and xfs have"]
