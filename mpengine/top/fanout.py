"""What the API hands out, by the text of `/metrics`: of its admin listener here, or of its public port where that is allowed.

The counter files of the workers have the same figures, but only the API knows their labels. The text is asked for every few
seconds, in a thread: a worker that hangs makes the figures old, not the screen.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mpengine.top.model import FanOut

EVERY_S: Final = 5.0
TIMEOUT_S: Final = 1.0
MAX_BYTES: Final = 8 << 20
REQUEST: Final = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_NAMES: Final = {
    "mpengine_push_clients": "clients", "mpengine_push_conflated_total": "dropped", "mpengine_push_bytes_total": "bytes",
    "mpengine_http_requests_total": "requests",
}  # fmt: skip

Address = Path | tuple[str, int]


def sums_of(text: str) -> dict[str, float]:
    """Sums over the labels of what the screen shows; `5xx`: of answers with such a code. Empty for another text."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        if (key := _NAMES.get(name)) is None:
            continue
        try:
            value = float(rest.rsplit("} ", 1)[-1].split()[0])
        except (ValueError, IndexError):
            continue
        found[key] = found.get(key, 0.0) + value
        if key == "requests":
            found["5xx"] = found.get("5xx", 0.0) + (value if 'code="5' in rest else 0.0)
    return found


class Meter:
    """Figures from one text after the other."""

    def __init__(self) -> None:
        self._before: tuple[float, dict[str, float]] | None = None

    def take(self, text: str, now_s: float) -> FanOut:
        """The figures; rates since the text before. `now_s`: monotonic."""
        sums, before = sums_of(text), self._before
        self._before = now_s, sums

        def rate(key: str) -> float | None:
            if before is None or key not in sums or key not in before[1] or now_s <= before[0]:
                return None
            return max(0.0, sums[key] - before[1][key]) / (now_s - before[0])

        def total(key: str) -> int | None:
            return int(sums[key]) if key in sums else None

        return FanOut(
            clients=total("clients"), dropped=total("dropped"), errors_5xx=total("5xx"), bytes_s=rate("bytes"),
            requests_s=rate("requests"),
        )  # fmt: skip


class Scraper:
    """Asks the admin listener, which answers HTTP to this machine alone."""

    def __init__(self, address: Address, clock: Callable[[], float] = time.monotonic) -> None:
        self._address = address
        self._clock = clock
        self._meter = Meter()

    def ask(self) -> FanOut:
        """The figures of now; all None where nobody answers. Blocks for `TIMEOUT_S` at most."""
        try:
            body = self._exchange()
        except (OSError, ValueError):
            return FanOut()
        return self._meter.take(body.decode("utf-8", "replace"), self._clock())

    def _exchange(self) -> bytes:
        """The body of the answer. Raises OSError, ValueError for one that is not whole."""
        # PERF: by hand, since the import of `http.client` alone takes a tenth of what `--once` may.
        deadline_s = self._clock() + TIMEOUT_S
        family = (
            socket.AF_UNIX if isinstance(self._address, Path) else socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        )
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(self._address) if isinstance(self._address, Path) else self._address)
            connection.sendall(REQUEST)
            pieces: list[bytes] = []
            while (piece := connection.recv(1 << 16)) and sum(map(len, pieces)) < MAX_BYTES:
                pieces.append(piece)
                connection.settimeout(max(0.001, deadline_s - self._clock()))
        return body_of(b"".join(pieces))


def body_of(answer: bytes) -> bytes:
    """The body of an HTTP answer with its length in front. Raises ValueError for another status, another form, a cut one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.lower().split(b"\r\n")
    if first.split(b" ")[1:2] != [b"200"]:
        raise ValueError("not answered with 200")
    length = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), None)
    if length != len(body):
        raise ValueError("the answer is not whole")
    return body
