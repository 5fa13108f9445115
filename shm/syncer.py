"""Write-back in the background: fdatasync of ring files from a thread, so that a power loss costs seconds, not the kernel's 30.

A process death loses nothing committed without it (the page cache survives). fdatasync releases the GIL; mmap.flush() does not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from shm.errors import Refused

ErrorHandler = Callable[[int, OSError], None]


class SyncThread:
    """Syncs `fds` every `interval_s` seconds (0 < s <= 30). Stop it before the fds are closed.

    `on_error(fd, error)` is called in the thread for a failed sync, which is tried again at the next turn.
    """

    def __init__(
        self, fds: Iterable[int], interval_s: float, on_error: ErrorHandler, *, sync: Callable[[int], None] = os.fdatasync
    ) -> None:
        if not 0 < interval_s <= 30:
            raise Refused(f"interval must be above 0 and at most 30 s, was {interval_s}")
        self._fds = tuple(fds)
        self._interval_s = interval_s
        self._on_error = on_error
        self._sync = sync
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shm-sync", daemon=True)
        self.rounds = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """One last round, then the thread ends; False where the disk kept it longer than `timeout_s`."""
        self._stop.set()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stop.wait(self._interval_s)
            self._round()

    def _round(self) -> None:
        for fd in self._fds:
            try:
                self._sync(fd)
            except OSError as error:
                self._on_error(fd, error)
        self.rounds += 1
