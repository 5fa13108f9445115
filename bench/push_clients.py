"""Many push clients in one process: subscribes them, reads what comes as cheaply as possible, tells how late it was.

python -m bench.push_clients PORT CLIENTS SECONDS ws|bin|sse [--stalled]

Prints "ready" once everybody has a first message, then, after SECONDS, one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import socket
import sys
import time
from collections import deque
from typing import Final

import numpy as np
import uvloop

CHANNEL: Final = "depth.BTC"
UPGRADE: Final = (
    "GET /ws HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: {key}\r\n\r\n"
)
STREAM: Final = f"GET /stream?channels={CHANNEL} HTTP/1.1\r\nHost: t\r\n\r\n"
CONNECTS_AT_ONCE: Final = 50


class Tally:
    """What all clients together have seen. `sent_ns`: when a number was published, told by the first client that got it."""

    def __init__(self) -> None:
        self.lags_ms: list[float] = []
        self.missed = 0
        self.closed = 0
        self.counting = False
        self.begun = 0


class Reader(asyncio.Protocol):
    """One client: counts its messages and the time since each was published."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.transport: asyncio.Transport | None = None
        self._buffer = b""
        self._open = False
        self._seq: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.ask(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.tally.closed += self.tally.counting

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._open, self._buffer = True, self._buffer[end + 4 :]
            self.begin()
        self._buffer = self.messages(self._buffer)

    def ask(self, transport: asyncio.Transport) -> None:
        """Send the request."""
        raise NotImplementedError

    def begin(self) -> None:
        """The head of the answer is there."""

    def messages(self, data: bytes) -> bytes:
        """Take whole messages; the rest of the bytes."""
        raise NotImplementedError

    def got(self, seq: int, published_ms: float) -> None:
        tally = self.tally
        if self._seq is None:
            tally.begun += 1
        elif tally.counting:
            tally.missed += seq - self._seq - 1
            tally.lags_ms.append(time.time() * 1e3 - published_ms)
        self._seq = seq


class Socket(Reader):
    """Over a WebSocket, JSON."""

    encoding = "json"

    def ask(self, transport: asyncio.Transport) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(UPGRADE.format(key=key).encode())

    def begin(self) -> None:
        assert self.transport is not None
        command = json.dumps({"op": "subscribe", "id": 1, "channels": [CHANNEL], "encoding": self.encoding}).encode()
        mask = b"\0\0\0\0"  # masked with zeros: the client is a bench
        self.transport.write(bytes((0x81, 0x80 | len(command))) + mask + command)

    def messages(self, data: bytes) -> bytes:
        at = 0
        while len(data) - at >= 2:
            length, head = data[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
            if len(data) - at < head + length:
                break
            self.message(data[at], data[at + head : at + head + min(length, 200)])
            at += head + length
        return data[at:]

    def message(self, first: int, start: bytes) -> None:
        if first == 0x89:  # ping
            assert self.transport is not None
            self.transport.write(bytes((0x8A, 0x80 | len(start))) + b"\0\0\0\0" + start)
        elif start.startswith(b'{"ch"'):
            self.got(_number(start, b'"seq":'), _number(start, b'"ts_ms":'))


class BinarySocket(Socket):
    """Over a WebSocket, columns in bytes; they hold no time of publishing, so frames carry it as their start (`bench.push`)."""

    encoding = "bin"

    def message(self, first: int, start: bytes) -> None:
        if start.startswith(b"MPCD"):
            self.got(int.from_bytes(start[24:32], "little"), int.from_bytes(start[40:48], "little"))
        else:
            super().message(first, start)


class Stream(Reader):
    """Over server-sent events."""

    def ask(self, transport: asyncio.Transport) -> None:
        transport.write(STREAM.encode())

    def messages(self, data: bytes) -> bytes:
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            length = int(data[at:end], 16)
            if len(data) < end + 4 + length:
                break
            start = data[end + 2 : end + 2 + min(length, 300)]
            if start.startswith((b"event: delta", b"event: snapshot")):
                self.got(_number(start, b'"seq":'), _number(start, b'"ts_ms":'))
            at = end + 4 + length
        return data[at:]


def _number(text: bytes, name: bytes) -> int:
    at = text.index(name) + len(name)
    end = at
    while text[end : end + 1].isdigit():
        end += 1
    return int(text[at:end])


KINDS: Final[dict[str, type[Reader]]] = {"ws": Socket, "bin": BinarySocket, "sse": Stream}


async def stall(port: int) -> asyncio.Transport:
    """A client that subscribes and then reads nothing."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    tally = Tally()
    transport, _ = await loop.create_connection(lambda: Socket(tally), sock=sock)
    while not tally.begun:
        await asyncio.sleep(0.01)
    transport.pause_reading()
    return transport


async def run(port: int, clients: int, seconds: float, kind: type[Reader], stalled: bool) -> dict[str, object]:
    loop, tally = asyncio.get_running_loop(), Tally()
    opened: deque[asyncio.Transport] = deque()
    for first in range(0, clients, CONNECTS_AT_ONCE):
        batch = range(first, min(clients, first + CONNECTS_AT_ONCE))
        made = await asyncio.gather(*(loop.create_connection(lambda: kind(tally), "127.0.0.1", port) for _ in batch))
        opened.extend(transport for transport, _ in made)
    while tally.begun < clients:
        await asyncio.sleep(0.05)
    if stalled:
        opened.append(await stall(port))
    print("ready", flush=True)
    tally.counting = True
    await asyncio.sleep(seconds)
    tally.counting = False
    for transport in opened:
        transport.abort()
    lags = np.array(tally.lags_ms)
    p50, p99, most = (float(value) for value in np.percentile(lags, (50, 99, 100))) if len(lags) else (0.0, 0.0, 0.0)
    return {"messages": len(lags), "missed": tally.missed, "closed": tally.closed, "p50_ms": p50, "p99_ms": p99, "max_ms": most}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="bench.push_clients")
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--stalled", action="store_true")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run(options.port, options.clients, options.seconds, KINDS[options.kind], options.stalled))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
