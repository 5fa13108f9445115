"""What access costs a request that the cache has, and whether the time of a refusal tells why a key was refused. In one process::

    parser's callback --> Service.wire_answer: [key] -> [bucket, with a table of two workers] -> cache -> bytes     (CPU time)
    Keys.verify(good | unknown id | wrong secret | expired | revoked), in turns, tens of thousands of times each    (wall clock)

CPU time and not the clock for the first, so that it can be read on a machine that does other things. "told apart" is the chance
that of two refusals, one of each kind, the longer one is the unknown id's: 0.5 says that the time tells nothing. Nothing passes or
fails by it.

python -m bench.access [--quick] [--json]
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from api.app import Service, create_app
from api.bodies import JSON, Answer, Freshness, Headers, Identity, Template
from api.keys import Keys
from bench.common import Row, main, report
from mpengine.config import load, resolve_directories
from mpengine.keys import KeyRecord, change, new_key
from shm import rate_table

TARGET: Final = b"/orderbook_heatmap"
BODY: Final = b"x" * 9_500
BLOCK: Final = 1000
PLENTY: Final = "rate_per_s = 1000000.0\nrate_burst = 1000000"
SETTINGS: Final[dict[str, str]] = {
    "off": "rate_limits = false",
    "limits": PLENTY,
    "keys": "rate_limits = false\nkeys = true",
    "limits and keys": f"keys = true\n{PLENTY}",
    "limits, CORS, proxy": f'{PLENTY}\ncors_origins = ["https://desk.example"]\ntrusted_proxies = ["127.0.0.1"]',
}
REFUSED: Final[dict[str, str]] = {
    "refused: 429": "rate_per_s = 0.1\nrate_burst = 10",
    "refused: 401": "keys = true",
}


@contextmanager
def application(text: str) -> Iterator[tuple[Service, Headers]]:
    """A worker's application that has one answer of 9.5 KB, and the headers of a request to it."""
    root = Path(tempfile.mkdtemp(prefix="mpengine-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        for name in ("data", "run"):
            (root / name).mkdir()
        document = f'[api]\nhost = "127.0.0.1"\n{text}\n[symbols.BTC]\n'
        settings = resolve_directories(load(document, {}), data=root / "data", runtime=root / "run")
        record, key = new_key(0, ["read"])
        change(settings.paths.keys, lambda records: [*records, record])
        rate_table.create(settings.paths.rates, 2)
        service = create_app(settings)
        service.turn()
        identity, now_ms = Identity((1, 1)), time.time_ns() // 1_000_000
        answer = Answer(Template([BODY]), JSON, identity, Freshness(now_ms, 90_000), b'W/"1-1-0"')
        asyncio.run(service.context.cache.obtain((TARGET,), lambda: 0, lambda: answer, TARGET))
        yield service, _headers(key)
        service.context.access.close()
        service.context.sources.close()
    finally:
        shutil.rmtree(root)


def _headers(key: str) -> Headers:
    """As a browser behind a proxy sends them."""
    return [
        (b"host", b"api.example"), (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64)"), (b"accept", b"*/*"),
        (b"accept-language", b"en"), (b"cache-control", b"no-cache"), (b"origin", b"https://desk.example"),
        (b"x-forwarded-for", b"198.51.100.1"), (b"authorization", b"Bearer " + key.encode("ascii")),
    ]  # fmt: skip


def cost(text: str, blocks: int, *, status: bytes = b"200", key: bool = True) -> float:
    """CPU microseconds of one request, the best of `blocks` blocks. Raises RuntimeError where the answer is another one."""
    with application(text) as (service, headers):
        asked = headers if key else headers[:-1]
        scope: dict[str, Any] = {"client": ("127.0.0.1", 1)}
        segments: list[bytes] | None = None
        best = float("inf")
        for _ in range(blocks):
            began = time.process_time()
            for _ in range(BLOCK):
                segments = service.wire_answer(TARGET, asked, head=False, more=[], scope=scope)
            best = min(best, time.process_time() - began)
        if segments is None or segments[0].split()[1] != status:
            raise RuntimeError(f"the answer is not {status!r}")
        return best / BLOCK * 1e6


def costs(blocks: int) -> list[Row]:
    """One row per configuration."""
    found = {name: cost(text, blocks) for name, text in SETTINGS.items()}
    found |= {name: cost(text, blocks, status=name[-3:].encode(), key=False) for name, text in REFUSED.items()}
    return [{"access": name, "CPU us": round(us, 2), "more than off": round(us - found["off"], 2)} for name, us in found.items()]


def timings(tries: int) -> list[Row]:
    """Time of each kind of key, asked for in a random order."""
    root = Path(tempfile.mkdtemp(prefix="mpengine-bench-"))
    try:
        path, now_ms = root / "keys.json", 1000
        made = {name: new_key(0, ["read"], 1 if name == "expired" else None) for name in ("good", "expired", "revoked")}
        records = [record for record, _ in made.values()]
        ended = {made["revoked"][0].id: 1}
        change(path, lambda _: [_revoked(record, ended.get(record.id)) for record in records])
        keys = Keys(path, lambda: now_ms)
        keys.refresh()
        texts = {name: text.encode("ascii") for name, (_, text) in made.items()}
        identity, _, secret = texts["good"].partition(b".")
        texts |= {"wrong secret": identity + b"." + secret[::-1], "unknown id": identity[::-1] + b"." + secret}
        return _told_apart(keys, texts, tries)
    finally:
        shutil.rmtree(root)


def _revoked(record: KeyRecord, at_ms: int | None) -> KeyRecord:
    return KeyRecord(
        id=record.id, sha256=record.sha256, scopes=record.scopes, created_ms=0, expires_ms=record.expires_ms, revoked_ms=at_ms
    )


def _told_apart(keys: Keys, texts: dict[str, bytes], tries: int) -> list[Row]:
    names = list(texts)
    order = [random.choice(names) for _ in range(tries * len(names))]
    took: dict[str, list[int]] = {name: [] for name in names}
    for name in order:
        text = texts[name]
        began = time.perf_counter_ns()
        keys.verify(text, "read")
        took[name].append(time.perf_counter_ns() - began)
    unknown = np.array(took["unknown id"])
    return [
        {"key": name, "tries": len(values), "p50 ns": int(np.median(values)), "p99 ns": int(np.percentile(values, 99)),
         "told apart": round(_longer(unknown, np.array(values)), 3)}
        for name, values in took.items()
    ]  # fmt: skip


def _longer(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Share of pairs in which the first is longer, equal ones by half (Mann and Whitney)."""
    ordered = np.sort(other)
    below, within = np.searchsorted(ordered, one, "left"), np.searchsorted(ordered, one, "right")
    return float((below + within).mean() / 2 / len(other))


def run(quick: bool) -> list[Row]:
    """Both tables."""
    rows = costs(40 if quick else 400)
    report("Access: CPU of a cache hit of 9.5 KB in the callback of the parser", rows)
    keys = timings(20_000 if quick else 100_000)
    report("Keys: time until a key is decided over", keys, "told apart: 0.5 is not at all, against the unknown id")
    return rows + keys


if __name__ == "__main__":
    main(run, "bench.access")
