"""The application of the API as it is shipped, on a wall clock that a test can move: real time plus what a small file says."""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Final

from api.app import Service, create_app
from api.clock import Clock
from api.settings import read_settings, settings_path

OFFSET_VARIABLE: Final = "MPENGINE_TEST_OFFSET"
"""Names a file of 8 bytes: nanoseconds, int64, to be added to the wall clock."""
_OFFSET: Final = struct.Struct("<q")


class Offset:
    """The file, mapped."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._words = mmap.mmap(file.fileno(), _OFFSET.size)

    @classmethod
    def create(cls, path: Path) -> Offset:
        path.write_bytes(_OFFSET.pack(0))
        return cls(path)

    def get(self) -> int:
        return int(_OFFSET.unpack_from(self._words)[0])

    def set(self, offset_ns: int) -> None:
        _OFFSET.pack_into(self._words, 0, offset_ns)

    def wall_ns(self) -> int:
        return time.time_ns() + self.get()

    def close(self) -> None:
        self._words.close()


def get_app() -> Service:
    """What gunicorn's worker calls."""
    offset = Offset(Path(os.environ[OFFSET_VARIABLE]))
    return create_app(read_settings(settings_path()), clock=Clock(wall_ns=offset.wall_ns))
