"""The service manager's side channel: one datagram per message to the Unix socket named by NOTIFY_SOCKET.

Own code, since the protocol is these few lines. Without a service manager every call does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

SOCKET_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"
WATCHDOG_PID_VARIABLE: Final = "WATCHDOG_PID"


class Notifier:
    """Tells the service manager the state of this process; never blocks and never fails (`lost` counts what did not arrive)."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._address = _address(env.get(SOCKET_VARIABLE, ""))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if self._address else None
        # The manager names the process it expects to hear from; a watchdog meant for another one is not ours to feed.
        for_us = env.get(WATCHDOG_PID_VARIABLE, str(os.getpid())) == str(os.getpid())
        self.watchdog = self._socket is not None and for_us and env.get(WATCHDOG_VARIABLE, "0") not in ("", "0")
        self.lost = 0

    def send(self, *lines: str) -> None:
        """Send `READY=1`, `WATCHDOG=1`, `STATUS=text`, `STOPPING=1` ... as one message."""
        if self._socket is None:
            return
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            self.lost += 1

    def close(self) -> None:
        """Close the socket; later messages do nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _address(name: str) -> str:
    """Path of the socket; a leading @ stands for the abstract name space."""
    return f"\0{name[1:]}" if name.startswith("@") else name
