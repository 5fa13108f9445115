"""Where an instance keeps its files when the settings do not say: one answer for the supervisor and for every tool. Pure.

    data     $STATE_DIRECTORY (service manager), else ~/.local/state/mpengine/<instance>
    runtime  $RUNTIME_DIRECTORY, else /dev/shm/mpengine-<uid>; in it a folder <instance>-<first 8 of the boot id>

The boot id is in the name because shared files of another boot are never of use, and to see that at a glance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

BOOT_DIGITS: Final = 8


def default_data_directory(env: Mapping[str, str], home: Path, instance: str) -> Path:
    """Directory of rings and state, where the settings name none."""
    return _managed(env, "STATE_DIRECTORY") or home / ".local/state/mpengine" / instance


def default_runtime_base(env: Mapping[str, str], uid: int) -> Path:
    """Directory in which instances make their runtime folders, where the settings name none."""
    return _managed(env, "RUNTIME_DIRECTORY") or Path("/dev/shm") / f"mpengine-{uid}"


def runtime_folder(base: Path, instance: str, boot_hi: int) -> Path:
    """Folder of one instance in one boot; `boot_hi` from `shm.liveness.boot_id()`."""
    return base / f"{instance}-{boot_hi >> 32:0{BOOT_DIGITS}x}"


def is_runtime_folder(name: str, instance: str) -> bool:
    """Whether `name` is a runtime folder of this instance, of whichever boot."""
    return re.fullmatch(rf"{re.escape(instance)}-[0-9a-f]{{{BOOT_DIGITS}}}", name) is not None


def _managed(env: Mapping[str, str], variable: str) -> Path | None:
    """The service manager lists its directories separated by colons; ours is the first."""
    first = env.get(variable, "").partition(":")[0]
    return Path(first) if first else None
