"""Signals as readable bytes of a socket, so that the loop handles them between two children and not inside a handler."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable
from types import FrameType
from typing import Any, Final

HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class SignalQueue:
    """Takes the signals over while it is open; `fileno` is readable when some have come. Main thread only."""

    def __init__(self, numbers: Iterable[int] = HANDLED) -> None:
        """Chosen against signalfd, which Python does not have; the interpreter's own handler writes the byte."""
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        # A full socket holds more signals than anyone needs to be told of.
        self._before_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        self._before: dict[int, Any] = {number: signal.signal(number, _noted) for number in numbers}

    def fileno(self) -> int:
        """For a selector."""
        return self._read.fileno()

    def drain(self) -> list[int]:
        """Signals that came since the last call, in order, each once however often it came."""
        try:
            data = self._read.recv(4096)
        except BlockingIOError:
            return []
        return [number for number in dict.fromkeys(data) if number in self._before]

    def close(self) -> None:
        """Put everything back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before_fd)
        self._read.close()
        self._write.close()


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The byte in the socket is all that is wanted."""
