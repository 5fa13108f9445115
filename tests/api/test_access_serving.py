"""Access of a real pool over sockets: keys, limits that workers share, what a killed worker and a reload change."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from mpengine.config import encode
from mpengine.keys import change, new_key
from tests.api.sockets import Link, serving
from tests.api.test_app import ALIASES
from tests.api.test_serving import Pool, start, until
from tests.api.world import World

pytestmark = pytest.mark.slow
MAP = "/orderbook_heatmap"
CONNECTIONS = 12


async def hammer(port: int, seconds: float, target: str = MAP, at: Callable[[float], object] = float) -> tuple[Counter[int], float]:
    """Ask on many connections, which the kernel spreads over the workers, as fast as they answer, and then until no tokens are
    left: (statuses, seconds from the first answer to the last). `at`: called before each request with the time so far."""
    counts: Counter[int] = Counter()
    answered: list[float] = []
    links = [await Link.open(port) for _ in range(CONNECTIONS)]
    began = time.monotonic()

    async def one(link: Link) -> None:
        status, now = 0, 0.0
        while now < seconds or status != 429:
            at(now)
            try:
                status = (await link.ask(target)).status
                counts[status] += 1
                answered.append(time.monotonic())
            except (ConnectionError, asyncio.IncompleteReadError):  # its worker has gone
                await link.close()
                with suppress(ConnectionError):
                    link = await Link.open(port)
            await asyncio.sleep(0.005)
            now = time.monotonic() - began
        await link.close()

    await asyncio.gather(*(one(link) for link in links))
    return counts, answered[-1] - answered[0]


@pytest.mark.covers("T-H4", "T-M13")
@pytest.mark.parametrize(("target", "cost"), [(MAP, 1), ("/candles", 5)])
def test_all_workers_together_give_what_one_client_may_have(world: World, target: str, cost: int) -> None:
    with serving(world, rate_limits=True, rate_per_s=50.0, rate_burst=100) as pool:
        counts, took = asyncio.run(hammer(pool.port, 3.0, target))
    assert set(counts) == {200, 429}
    assert counts[200] * cost == pytest.approx(100 + 50 * took, rel=0.05)


@pytest.mark.covers("T-H4", "F3", "P12")
def test_the_limit_outlives_a_killed_worker_and_a_reload(world: World) -> None:
    # A burst that no pause of the workers can fill again: every token that comes is taken.
    with serving(world, rate_limits=True, rate_per_s=40.0, rate_burst=400) as pool:
        steps = [lambda: os.kill(pool.workers()[0], signal.SIGKILL), lambda: pool.process.send_signal(signal.SIGHUP)]

        def at(now: float) -> None:
            if steps and now > 3.0 - len(steps):
                steps.pop(0)()

        counts, took = asyncio.run(hammer(pool.port, 5.0, at=at))
        until(lambda: len(pool.workers()) == 2, "two workers")
    assert not steps and set(counts) == {200, 429}
    # A killed worker takes along the answers that were on their way: each of its connections had one at most.
    assert counts[200] == pytest.approx(400 + 40 * took, rel=0.05)


def test_settings_of_a_reload_are_taken(world: World) -> None:
    with serving(world, rate_limits=True, rate_per_s=0.1, rate_burst=10) as pool:
        assert [pool.ask(MAP)[0] for _ in range(12)] == [200] * 10 + [429] * 2
        api = msgspec.structs.replace(pool.settings.api, rate_limits=False)
        pool.settings.paths.settings.write_bytes(encode(msgspec.structs.replace(pool.settings, api=api)))
        pool.roll()
        assert {pool.ask(MAP)[0] for _ in range(30)} == {200}


def add_key(world: World, *scopes: str) -> str:
    record, text = new_key(time.time_ns() // 1_000_000, list(scopes) or ["read"])  # type: ignore[arg-type]
    change(world.settings.paths.keys, lambda records: [*records, record])
    return text


@pytest.mark.covers("T-M6", "T-M13")
def test_keys_of_a_real_pool(world: World) -> None:
    key = add_key(world)
    with serving(world, keys=True, rate_limits=True) as pool:
        bearer = {"Authorization": f"Bearer {key}"}
        for path, alias in ALIASES.items():
            for target in (path, alias):
                assert pool.ask(target)[0] == 401, target
        for target in (
            "/nope",
            "/../etc/passwd",
            "/%2e%2e/etc/passwd",
            "/metrics",
            "/admin",
            f"/health?key={key}",
            "/docs",
            f"{MAP}?api_key={key}",
        ):
            assert pool.ask(target)[0] == 401, target
        assert pool.ask("/livez")[0] == 200
        for target in ("/", "/static/app.js"):  # the page asks for the key, so it opens without one
            assert pool.ask(target)[0] == 200
        for _ in range(8):  # both workers, built and kept
            status, headers, _ = pool.ask(MAP, headers=bearer)
            assert status == 200 and headers["cache-control"].startswith("private") and headers["ratelimit"]
            assert pool.ask(MAP)[0] == 401
            assert pool.ask(MAP, "POST")[0] == 401 and pool.ask(MAP, "POST", bearer)[0] == 405
        assert pool.ask("/../etc/passwd", headers=bearer)[0] == 404
        another = add_key(world)
        both = {"X-API-Key": another}
        until(lambda: all(pool.ask(MAP, headers=both)[0] == 200 for _ in range(8)), "the new key in both workers")
        change(world.settings.paths.keys, lambda records: [one for one in records if not key.startswith(one.id)])
        began = time.monotonic()
        until(lambda: all(pool.ask(MAP, headers=bearer)[0] == 401 for _ in range(8)), "the old key in neither")
        assert time.monotonic() - began < 5.0, "a promise of the contract, not a measurement"
    assert not any(part in line for line in pool.lines for part in (key.split(".")[1], another.split(".")[1]))


@pytest.mark.covers("T-M7", "E-M3")
def test_a_pool_without_a_usable_key_file_does_not_start(world: World, tmp_path: Path) -> None:
    api = msgspec.structs.replace(world.settings.api, keys=True)
    settings = msgspec.structs.replace(world.settings, api=api)
    for prepare, reason in (
        (lambda: None, "there is no key file: mpengine keys add"),
        (lambda: settings.paths.keys.write_bytes(b"{}"), "is no key file of version 1"),
        (lambda: settings.paths.keys.chmod(0o666), "can be written by others"),
    ):
        prepare()
        process = start(settings)
        try:
            _, lines = process.communicate(timeout=20)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 3 and reason in lines and str(tmp_path) not in lines


def test_a_proxy_without_a_name_is_warned_of(world: World) -> None:
    with serving(world, behind_proxy=True, rate_limits=True) as pool:
        until(lambda: any("api.trusted_proxies is empty" in line for line in pool.lines), "the warning")
        assert not any("counted by this worker alone" in line for line in pool.lines)
        told = (pool.settings.paths.rates).read_bytes()
        assert pool.ask(MAP, headers={"X-Forwarded-For": "198.51.100.1"})[0] == 200
        assert pool.settings.paths.rates.read_bytes() != told


def test_a_swollen_worker_gives_back_what_it_can_or_is_replaced(world: World) -> None:
    """64 MiB are soon filled with answers: more is not built until memory is back, or another worker is there."""
    with serving(world, frames=400, worker_memory_bytes=1 << 26) as pool:
        first = set(pool.workers())
        refused = None
        for number in range(400):
            status, headers, body = pool.ask(f"/orderbook_heatmap_history?price_min={20 * number + 20}")
            if status == 503:
                refused = headers, body
                break
            assert status == 200
        assert refused is not None and b"overloaded" in refused[1] and 1 <= int(refused[0]["retry-after"]) <= 5
        assert any("api.worker_memory_bytes" in line for line in pool.lines)
        assert {pool.ask("/livez")[0] for _ in range(6)} == {200}

        def recovered() -> bool:
            replaced = any("this worker leaves" in line for line in pool.lines) and set(pool.workers()) - first
            return bool(replaced) or any("memory is back" in line for line in pool.lines)

        until(recovered, "memory, or another worker")
        until(lambda: {pool.ask(MAP)[0] for _ in range(6)} == {200}, "answers of both workers")


def names(pool: Pool) -> set[str]:
    return {entry.name for entry in pool.settings.paths.runtime.iterdir()}


def test_the_table_is_the_pools(world: World) -> None:
    with serving(world, rate_limits=True) as pool:
        assert "rates" in names(pool)
        before = pool.settings.paths.rates.stat()
        pool.roll()
        assert pool.settings.paths.rates.stat().st_ino == before.st_ino, "a reload goes on with it"
        assert pool.settings.paths.rates.stat().st_mode & 0o777 == 0o600
