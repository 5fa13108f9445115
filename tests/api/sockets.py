"""A pool for tests of access and abuse, and a plain HTTP client over asyncio streams that shows every byte."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from shm.board import Board
from shm.board_words import Role
from tests.api.test_serving import ROWS, WITHIN_S, Pool, free_port, start, until
from tests.api.world import SLOT_MS, World, candle


@contextmanager
def serving(world: World, frames: int = 20, **api: Any) -> Iterator[Pool]:
    """A pool of two workers over a short history of now, with `api` settings of the test's choice."""
    world.clock.now_ms = time.time_ns() // 1_000_000 // SLOT_MS * SLOT_MS
    world.add_history(frames)
    world.add_status()
    world.add_feeds()
    world.add_candle(candle(world.clock.now_ms - 60_000))
    values = {"port": free_port(), "workers": 2, **api}
    settings = msgspec.structs.replace(world.settings, api=msgspec.structs.replace(world.settings.api, **values))
    with Board.create(settings.paths.board, ROWS, {}) as board:
        board.row(0).start(Role.SUPERVISOR, 0, 1)
        process = start(settings)
        made = Pool(settings, board, process)
        reader = threading.Thread(target=lambda: made.lines.extend(process.stderr or ()))
        reader.start()
        try:
            until(made.workers, "both workers")
            yield made
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(WITHIN_S)
            process.kill()
            process.wait()
            reader.join()
            assert process.stderr is not None
            process.stderr.close()


@dataclass(frozen=True)
class Got:
    """One response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Link:
    """A kept connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1") -> Link:
        return cls(*await asyncio.open_connection(host, port))

    async def ask(self, target: str, **headers: str) -> Got:
        """GET; header names with underscores for hyphens."""
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self.writer.write(f"GET {target} HTTP/1.1\r\nHost: test\r\n{fields}\r\n".encode("latin-1"))
        return await self.answer()

    async def answer(self) -> Got:
        """The next response. Raises IncompleteReadError where the server closes."""
        async with asyncio.timeout(WITHIN_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
            found = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await self.reader.readexactly(int(found.get("content-length", 0)))
        return Got(int(first.split()[1]), found, body)

    async def rest(self) -> bytes:
        """Everything until the server closes; a reset is an end."""
        got = b""
        async with asyncio.timeout(WITHIN_S):
            with suppress(ConnectionError):
                while piece := await self.reader.read(65_536):
                    got += piece
        return got

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


async def talk(port: int, raw: bytes) -> bytes:
    """Everything that comes back to `raw` until the server closes."""
    link = await Link.open(port)
    try:
        with suppress(ConnectionError):
            link.writer.write(raw)
            await link.writer.drain()
        return await link.rest()
    finally:
        await link.close()
