"""A real pool against clients that mean harm, or are broken: each is answered in the form of the contract or closed, the others
do not notice, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mpengine.config import load, resolve_directories
from tests.api.conftest import TEXT
from tests.api.sockets import Got, Link, serving, talk
from tests.api.test_serving import WITHIN_S, Pool, until
from tests.api.world import World

pytestmark = pytest.mark.slow
MAP = "/orderbook_heatmap"
HISTORY = "/orderbook_heatmap_history"
TIMEOUT_S = 2.0
HEAD = b"GET /livez HTTP/1.1\r\nHost: t\r\n"


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Two workers that give a request two seconds; one pool for the whole file, which none of this may harm."""
    directory = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    for name in ("data", "run"):
        (directory / name).mkdir()
    world = World(resolve_directories(load(TEXT, {}), data=directory / "data", runtime=directory / "run"))
    try:
        with serving(world, request_timeout_s=TIMEOUT_S) as made:
            yield made
    finally:
        world.close()
        shutil.rmtree(directory)


def descriptors(pool: Pool) -> int:
    return sum(len(list((Path("/proc") / str(pid) / "fd").iterdir())) for pid in pool.workers())


def resident(pool: Pool) -> int:
    """Bytes of both workers."""
    pages = sum(int((Path("/proc") / str(pid) / "statm").read_text("ascii").split()[1]) for pid in pool.workers())
    return pages * 4096


def settled(pool: Pool, before: int) -> None:
    """Every descriptor of the attack is closed."""
    until(lambda: descriptors(pool) <= before, "the descriptors of before")


class Good:
    """Clients as they should be, asking all the time; every answer must be a good one."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.answers = 0

    async def ask(self) -> None:
        link = await Link.open(self._pool.port)
        try:
            while True:
                got = await link.ask(MAP)
                assert got.status == 200, got
                self.answers += 1
                await asyncio.sleep(0.01)
        finally:
            await link.close()

    async def more(self, count: int = 20) -> None:
        """Wait until they have been answered so many times more."""
        wanted = self.answers + count
        async with asyncio.timeout(WITHIN_S):
            while self.answers < wanted:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def good_clients(pool: Pool, count: int = 4) -> Any:
    good = Good(pool)
    tasks = [asyncio.create_task(good.ask()) for _ in range(count)]
    try:
        await good.more()
        yield good
        await good.more()
        assert not any(task.done() for task in tasks), "a good client failed"
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


def under_attack(pool: Pool, attack: Callable[[Good], Coroutine[Any, Any, None]]) -> None:
    """Run an attack beside good clients, then look for what it left."""
    workers = pool.workers()

    async def nothing() -> None:
        async with good_clients(pool):
            pass  # what a worker opens for its first answers is no leak

    async def main() -> None:
        async with good_clients(pool) as good:
            await attack(good)

    asyncio.run(nothing())
    before = descriptors(pool)

    asyncio.run(main())
    settled(pool, before)
    assert pool.workers() == workers, "a worker did not survive"
    check_log(pool)


def check_log(pool: Pool) -> None:
    """No exception of ours was thrown about."""
    strange = [line for line in pool.lines if "Traceback" in line or '"ERROR"' in line]
    assert not strange, "\n".join(strange[:3]).replace("\\n", "\n")


# --- slowness ---------------------------------------------------------------------------------------------------------


def hold_open(count: int) -> Callable[[Good, Pool, bytes, bytes], Coroutine[Any, Any, None]]:
    """`count` sockets that send a beginning and then a byte now and then, until the server closes every one."""

    async def run(good: Good, pool: Pool, start: bytes, drip: bytes) -> None:
        links = [await Link.open(pool.port) for _ in range(count)]
        for link in links:
            link.writer.write(start)
        await good.more()

        async def one(link: Link) -> bytes:
            got = b""
            with suppress(ConnectionError):
                while True:
                    try:
                        async with asyncio.timeout(0.2):
                            piece = await link.reader.read(65_536)
                    except TimeoutError:
                        link.writer.write(drip)
                        continue
                    if not piece:
                        break
                    got += piece
            await link.close()
            return got

        async with asyncio.timeout(WITHIN_S):
            for got in await asyncio.gather(*(one(link) for link in links)):
                assert got == b"" or b" 400 " in got or b" 408 " in got or b" 503 " in got, got

    return run


SLOW = {
    "nothing": (b"", b""),
    "head": (b"GET /livez HTTP/1.1\r\nHost: t\r\nX-A", b"a"),
    "fields": (HEAD, b"A: 1\r\n"),
    "line": (b"GET /", b"a"),
    "body": (HEAD + b"Content-Length: 10000\r\n\r\nb", b"b"),
    "chunked body": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nc\r\n", b"1\r\nc\r\n"),
}


@pytest.mark.parametrize("kind", SLOW)
def test_slow_senders_are_closed_and_the_others_are_answered(pool: Pool, kind: str) -> None:
    start, drip = SLOW[kind]

    async def attack(good: Good) -> None:
        if "body" in kind:  # the answer is there before the body is
            links = [await Link.open(pool.port) for _ in range(200)]
            for link in links:
                link.writer.write(start)
            for link in links:
                assert (await link.answer()).status == 200
                link.writer.write(drip)
            await good.more()
            for link in links:
                await link.rest()
                await link.close()
        else:
            await hold_open(200)(good, pool, start, drip)

    under_attack(pool, attack)


def large_reader(port: int) -> socket.socket:
    """A socket with next to no room for what it asks for."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    made.connect(("127.0.0.1", port))
    made.sendall(f"GET {HISTORY} HTTP/1.1\r\nHost: t\r\n\r\n".encode() * 20)
    return made


@pytest.mark.covers("F11")
def test_readers_that_do_not_read_hold_next_to_nothing_and_are_closed(world: World) -> None:
    """150 clients ask for 20 histories of about 3 MB each and read none of it: 9 GB that nobody keeps."""
    with serving(world, frames=700, request_timeout_s=TIMEOUT_S) as pool:
        body = pool.ask(HISTORY)[2]
        for _ in range(6):
            pool.ask(HISTORY)
        before, held = resident(pool), 150 * len(body)

        async def attack(good: Good) -> None:
            sockets = [await asyncio.to_thread(large_reader, pool.port) for _ in range(150)]
            try:
                await good.more()
                assert resident(pool) - before < held / 4, "one copy for all"
                async with asyncio.timeout(WITHIN_S):
                    while descriptors(pool) > base + 20:
                        await asyncio.sleep(0.05)
            finally:
                for one in sockets:
                    one.close()

        base = descriptors(pool)
        under_attack(pool, attack)


# --- malformed --------------------------------------------------------------------------------------------------------

GET_SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"

MALFORMED = {
    "length and chunked": HEAD + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET_SMUGGLED,
    "chunked and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n" + GET_SMUGGLED,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 35\r\n\r\n" + GET_SMUGGLED,
    "two equal lengths": HEAD + b"Content-Length: 35\r\nContent-Length: 35\r\n\r\n" + GET_SMUGGLED,
    "list of lengths": HEAD + b"Content-Length: 0, 35\r\n\r\n" + GET_SMUGGLED,
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n" + GET_SMUGGLED,
    "signed length": HEAD + b"Content-Length: +35\r\n\r\n" + GET_SMUGGLED,
    "hex length": HEAD + b"Content-Length: 0x10\r\n\r\n" + GET_SMUGGLED,
    "length with a space": HEAD + b"Content-Length : 35\r\n\r\n" + GET_SMUGGLED,
    "huge length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + GET_SMUGGLED,
    "empty length": HEAD + b"Content-Length: \r\n\r\n" + GET_SMUGGLED,
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + GET_SMUGGLED,
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + GET_SMUGGLED,
    "chunked with a tab before the colon": HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + GET_SMUGGLED,
    "bad chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + GET_SMUGGLED,
    "chunk size with 0x": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n" + GET_SMUGGLED,
    "huge chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + GET_SMUGGLED,
    "obsolete folding": HEAD + b"X-A: 1\r\n  folded: 2\r\n\r\n" + GET_SMUGGLED,
    "space before a field": b"GET /livez HTTP/1.1\r\n Host: t\r\n\r\n" + GET_SMUGGLED,
    "field without a name": HEAD + b": 1\r\n\r\n" + GET_SMUGGLED,
    "field without a colon": HEAD + b"X-A\r\n\r\n" + GET_SMUGGLED,
    "zero byte in a name": HEAD + b"X\0A: 1\r\n\r\n" + GET_SMUGGLED,
    "zero byte in a value": HEAD + b"X-A: \0\r\n\r\n" + GET_SMUGGLED,
    "bare carriage return": HEAD + b"X-A: 1\rX-B: 2\r\n\r\n" + GET_SMUGGLED,
    "line feeds alone": b"GET /livez HTTP/1.1\nHost: t\n\n" + GET_SMUGGLED,
    "line feed in a head": b"GET /livez HTTP/1.1\r\nHost: t\nX-A: 1\r\n\r\n" + GET_SMUGGLED,
    "no host": b"GET /livez HTTP/1.1\r\n\r\n" + GET_SMUGGLED,
    "two hosts": HEAD + b"Host: u\r\n\r\n" + GET_SMUGGLED,
    "version 0.9": b"GET /livez\r\n\r\n" + GET_SMUGGLED,
    "version 2.0": b"GET /livez HTTP/2.0\r\nHost: t\r\n\r\n" + GET_SMUGGLED,
    "version 1.2": b"GET /livez HTTP/1.2\r\nHost: t\r\n\r\n" + GET_SMUGGLED,
    "version 9.9": b"GET /livez HTTP/9.9\r\nHost: t\r\n\r\n" + GET_SMUGGLED,
    "version in small letters": b"GET /livez http/1.1\r\nHost: t\r\n\r\n" + GET_SMUGGLED,
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + GET_SMUGGLED,
    "space in the target": b"GET /li vez HTTP/1.1\r\nHost: t\r\n\r\n" + GET_SMUGGLED,
    "no such method": b"SMUGGLE /livez HTTP/1.1\r\nHost: t\r\n\r\n" + GET_SMUGGLED,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "nothing of HTTP": b"\x00" * 100,
    "a line that never ends": b"G" * 5000,
}


def check_refusals(got: bytes, statuses: set[int]) -> None:
    head, _, body = got.partition(b"\r\n\r\n")
    assert int(head.split()[1]) in statuses, got
    assert list(json.loads(body)) == ["error", "detail"] and b"connection: close" in head.lower()


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_can_be_understood_in_two_ways_is_refused_and_closed(pool: Pool, kind: str) -> None:
    got = asyncio.run(talk(pool.port, MALFORMED[kind]))
    assert got.count(b"HTTP/1.1 ") == 1 and b"not_found" not in got, got
    check_refusals(got, {400, 413, 414, 431})


WELL = {
    "chunked GET": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n", 200),
    "chunked GET with trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n", 200),
    "absolute form": (b"GET http://t/livez HTTP/1.1\r\nHost: t\r\n\r\n", 200),
    "absolute form of another host": (b"GET http://elsewhere/livez HTTP/1.1\r\nHost: t\r\n\r\n", 200),
    "empty lines before": (b"\r\n\r\n" + HEAD + b"\r\n", 200),
    "invalid UTF-8 in the path": (b"GET /%ff%fe HTTP/1.1\r\nHost: t\r\n\r\n", 404),
    "invalid UTF-8 in the query": (b"GET /orderbook_heatmap?symbol=%ff HTTP/1.1\r\nHost: t\r\n\r\n", 400),
    "raw bytes in a value": (HEAD + b"X-A: \xff\xfe\r\nIf-None-Match: \xff\r\n\r\n", 200),
    "zero byte in the path": (b"GET /livez%00 HTTP/1.1\r\nHost: t\r\n\r\n", 404),
    "out of the tree": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: t\r\n\r\n", 404),
    "out of the tree, encoded": (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: t\r\n\r\n", 404),
    "another method": (b"DELETE /livez HTTP/1.1\r\nHost: t\r\n\r\n", 405),
    "TRACE": (b"TRACE /livez HTTP/1.1\r\nHost: t\r\n\r\n", 405),
    "unknown expectation": (HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", 200),
    "upgrade to HTTP/2": (
        HEAD + b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        200,
    ),
}


@pytest.mark.parametrize("kind", WELL)
def test_odd_requests_that_mean_one_thing_are_answered_once(pool: Pool, kind: str) -> None:
    raw, status = WELL[kind]
    if b"close" not in raw:
        raw = raw.replace(b"Host: t\r\n", b"Host: t\r\nConnection: close\r\n")
    got = asyncio.run(talk(pool.port, raw)).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    assert got.count(b"HTTP/1.1 ") == 1 and int(got.split()[1]) == status, got


def test_connect_and_authority_form_are_no_way_through(pool: Pool) -> None:
    got = asyncio.run(talk(pool.port, b"CONNECT example.net:443 HTTP/1.1\r\nHost: example.net:443\r\n\r\n" + GET_SMUGGLED))
    assert got.count(b"HTTP/1.1 ") == 1 and int(got.split()[1]) in (400, 404, 405), got


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (UPGRADE + b"\r\n", 101),
        (UPGRADE + b"Host: u\r\n\r\n", 400),
        (UPGRADE.replace(b"Host: t\r\n", b"") + b"\r\n", 400),
        (UPGRADE + b"X-A: 1\r\n" * 100 + b"\r\n", 431),
        (UPGRADE + b"X-A: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (UPGRADE + b"Content-Length: 100000\r\n\r\n", 413),
        (UPGRADE + b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /candles?limit=777 HTTP/1.1\r\nHost: t\r\n\r\n" + UPGRADE + b"\r\n", 400),  # an answer is on its way
        (UPGRADE.replace(b"/ws", b"/nope") + b"\r\n", 404),
        (UPGRADE.replace(b"/ws", MAP.encode()) + b"\r\n", 404),
        (UPGRADE.replace(b"GET", b"POST") + b"\r\n", 405),
    ],
)
def test_a_handshake_has_the_same_bounds(pool: Pool, raw: bytes, status: int) -> None:
    async def first_line() -> bytes:
        link = await Link.open(pool.port)
        try:
            link.writer.write(raw)
            async with asyncio.timeout(WITHIN_S):
                return await link.reader.readuntil(b"\r\n")
        finally:
            await link.close()

    assert int(asyncio.run(first_line()).split()[1]) == status
    check_log(pool)


@pytest.mark.covers("T-M5")
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(200)) + b"\r\n", 431),
        (HEAD + b"X-A: " + b"v" * 100_000 + b"\r\n\r\n", 431),
        (HEAD + b"X" * 100_000 + b": 1\r\n\r\n", 431),
        (HEAD + b"A: 1\r\n" * 50_000, 431),
        (HEAD + b"Cookie: a=b\r\n" * 101 + b"\r\n", 431),
        (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414),
        (b"GET /?" + b"a=1&" * 3000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414),
        (HEAD + b"Content-Length: 10485760\r\n\r\n" + b"b" * 10_485_760, 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n%s\r\n" % (b"c" * 65_536) * 160, 413),
    ],
)
def test_bombs_are_refused_and_not_buffered(pool: Pool, raw: bytes, status: int) -> None:
    before = resident(pool)
    for _ in range(5):
        got = asyncio.run(talk(pool.port, raw))
        if got:  # else the reset was quicker than the answer
            first = got[got.rindex(b"HTTP/1.1 ") :]
            check_refusals(first, {status, 200} if status == 413 else {status})
    assert resident(pool) - before < 20 << 20
    assert pool.ask("/livez")[0] == 200


# --- floods -----------------------------------------------------------------------------------------------------------


def test_a_flood_of_pipelined_requests_is_answered_in_order_and_holds_nobody_up(pool: Pool) -> None:
    targets = [MAP if number % 3 else f"/livez?{number}" for number in range(3000)]
    raw = "".join(f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n" for target in targets).encode()

    async def attack(good: Good) -> None:
        link = await Link.open(pool.port)
        link.writer.write(raw)
        await good.more()
        for number, _ in enumerate(targets):
            got: Got = await link.answer()
            assert got.status == 200 and (b"live" in got.body) is (number % 3 == 0), number
        await link.close()
        hungry = [await Link.open(pool.port) for _ in range(10)]  # who reads none of it
        before = resident(pool)
        for one in hungry:
            one.writer.write(raw)
        await good.more(100)
        assert resident(pool) - before < 100 << 20
        for one in hungry:
            await one.close()

    under_attack(pool, attack)


def reset(made: socket.socket) -> None:
    """Close with a reset: what is on its way is thrown away."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.close()


VANISHING = [
    b"", b"GET", HEAD, HEAD + b"\r\n", f"GET {HISTORY} HTTP/1.1\r\nHost: t\r\n\r\n".encode() * 3,
    HEAD + b"Content-Length: 100\r\n\r\nabc", b"GET /candles?limit=1000 HTTP/1.1\r\nHost: t\r\n\r\n", b"\x16\x03\x01",
]  # fmt: skip


def visit(port: int, number: int) -> None:
    """A client that is gone before it has been served."""
    made = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
    with suppress(ConnectionError):
        made.sendall(VANISHING[number % len(VANISHING)])
        if number % 5 == 0:
            made.shutdown(socket.SHUT_WR)
        if number % 3 == 0 and VANISHING[number % len(VANISHING)].endswith(b"\r\n\r\n"):
            made.recv(100)
    if number % 2:
        reset(made)
    else:
        made.close()


def visits(pool: Pool, count: int) -> None:
    for number in range(count):
        visit(pool.port, number)


def check_flat(pool: Pool, step: Callable[[], None], times: int) -> None:
    """Descriptors and memory do not grow with what `step` does again and again."""
    step()
    before = descriptors(pool)
    step()
    settled(pool, before)
    memory = resident(pool)
    for _ in range(times):
        step()
    settled(pool, before)
    assert resident(pool) - memory < 16 << 20, "both workers together"
    check_log(pool)


def test_clients_that_vanish_leave_nothing_behind(pool: Pool) -> None:
    check_flat(pool, lambda: visits(pool, 160), 5)


def connects(pool: Pool, count: int) -> None:
    for _ in range(count):
        assert pool.ask("/livez")[0] == 200


def test_connection_after_connection_leaves_nothing_behind(pool: Pool) -> None:
    check_flat(pool, lambda: connects(pool, 300), 5)


@pytest.mark.covers("F21")
def test_everybody_comes_back_at_once(world: World) -> None:
    """More clients than there is room for: some are told when to come back, all are served in the end."""
    with serving(world, max_connections=100, request_timeout_s=TIMEOUT_S) as pool:

        async def client() -> tuple[int, set[int]]:
            told: set[int] = set()
            while True:
                link = await Link.open(pool.port)
                try:
                    got = await link.ask(MAP)
                    if got.status == 200:
                        await asyncio.sleep(0.1)
                        return got.status, told
                    assert got.status == 503 and json.loads(got.body)["error"] == "overloaded"
                    told.add(int(got.headers["retry-after"]))
                except (ConnectionError, asyncio.IncompleteReadError):
                    pass
                finally:
                    await link.close()
                await asyncio.sleep(0.2)

        async def main() -> list[tuple[int, set[int]]]:
            async with asyncio.timeout(60):
                return await asyncio.gather(*(client() for _ in range(500)))

        before = descriptors(pool)
        results = asyncio.run(main())
        assert all(status == 200 for status, _ in results)
        assert len(set().union(*(told for _, told in results))) > 1, "nobody was told to come back, or all at the same time"
        settled(pool, before)


@pytest.mark.covers("T-H4")
def test_who_asks_too_much_costs_little_and_nobody_else_notices(world: World) -> None:
    """Refusals are given before anything is looked up or built, to one client; another one on the same machine has its tokens."""
    with serving(world, rate_limits=True, trusted_proxies=["127.0.0.1"], rate_burst=50) as pool:

        async def main() -> tuple[int, int]:
            refused = served = 0
            links = [await Link.open(pool.port) for _ in range(8)]
            good = await Link.open(pool.port)
            for number in range(200):
                for link in links:
                    got = await link.ask(f"/candles?limit={number + 1}", X_Forwarded_For="198.51.100.66")
                    refused += got.status == 429
                if number % 10 == 0:
                    served += (await good.ask(MAP, X_Forwarded_For="198.51.100.1")).status == 200
            for link in (*links, good):
                await link.close()
            return refused, served

        refused, served = asyncio.run(main())
        assert refused > 1000 and served == 20


# --- the long forms ---------------------------------------------------------------------------------------------------


@pytest.mark.stress
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["nothing", "head", "fields", "line"])
def test_two_thousand_slow_senders(world: World, kind: str) -> None:
    with serving(world, request_timeout_s=10.0, max_connections=8192) as pool:
        start, drip = SLOW[kind]

        async def attack(good: Good) -> None:
            await hold_open(2000)(good, pool, start, drip)

        under_attack(pool, attack)


@pytest.mark.stress
@pytest.mark.timeout(1200)
def test_five_thousand_readers_of_a_byte_a_second(world: World) -> None:
    with serving(world, frames=700, request_timeout_s=5.0, max_connections=20_000) as pool:
        for _ in range(6):
            pool.ask(HISTORY)
        before = resident(pool)

        async def attack(good: Good) -> None:
            sockets = [await asyncio.to_thread(large_reader, pool.port) for _ in range(5000)]
            try:
                for _ in range(10):
                    for one in sockets:
                        one.settimeout(0.0)
                        with suppress(OSError):
                            one.recv(1)
                    await good.more()
                assert resident(pool) - before < 1 << 30
            finally:
                for one in sockets:
                    one.close()

        under_attack(pool, attack)


@pytest.mark.stress
@pytest.mark.timeout(1200)
def test_connections_for_ten_minutes(pool: Pool) -> None:
    """As many per second as one client can open; descriptors and memory stay where they were after the first minute."""

    def step() -> None:
        visits(pool, 3000)
        connects(pool, 3000)

    check_flat(pool, step, 20)
