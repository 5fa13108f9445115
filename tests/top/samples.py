"""Facts that are easy to check by hand, and a source that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import numpy as np

from mpengine.cells import u8log
from mpengine.top.model import (
    Facts,
    FanOut,
    Heat,
    HeatColumn,
    Layer,
    Liquidation,
    Newest,
    Process,
    Stream,
    Symbol,
    Venue,
    Zone,
)

NOW_MS = 1_795_200_000_000  # 2026-11-20 18:40:00 UTC
PRICE = 65_892.7


def heat(
    layer: Layer, columns: int = 90, *, rows: int = 120, newest_ms: int = NOW_MS - 34_000, missing: tuple[int, ...] = ()
) -> Heat:
    """+/- 3 % of `PRICE`: two bands that move, longs or bids below, shorts or asks above."""
    dt_ms = 60_000 if layer == "map" else 30_000
    low, height = PRICE * 0.97, PRICE * 0.06 / rows
    row = np.arange(rows)
    found = []
    for at in range(columns):
        usd = 4e6 * np.exp(-(((row - 25 - at % 7) / 6.0) ** 2)) + (5e4 if layer == "book" else 0.0)
        above = 2e6 * np.exp(-(((row - 95 + at % 5) / 5.0) ** 2)) + (5e4 if layer == "book" else 0.0)
        cells = u8log(np.stack((np.where(row < 60, usd, 0.0), np.where(row >= 60, above, 0.0))))
        column = HeatColumn(t_ms=newest_ms - (columns - 1 - at) * dt_ms, low=cells[0].tobytes(), high=cells[1].tobytes())
        if columns - 1 - at not in missing:
            found.append(column)
    return Heat(layer=layer, price0=low, height=height, rows=rows, dt_ms=dt_ms, columns=tuple(found))


def venue(name: str, state: str = "LIVE", **values: Any) -> Venue:
    """A venue with one stream."""
    plain: dict[str, Any] = {
        "lag_p50_ms": 38.0, "lag_p99_ms": 120.0, "gaps": 0, "reconnects": 0, "last_ms": NOW_MS - 200, "oi_ms": NOW_MS - 12_000,
        "book": "synced", "liquidations": "largest_1s",
        "streams": (Stream(name=f"{name}@depth", state=state, messages=1234, lag_ms=38.0),),
    }  # fmt: skip
    return Venue(name=name, state=state, **{**plain, **values})


def zone(side: str, price: float, usd: float = 311_402.5) -> Zone:
    """A zone of 45 minutes."""
    return Zone(
        side="short" if side == "short" else "long", price=price, usd=usd, weight=2.9, created_ms=NOW_MS - 45 * 60_000,
        source="inference", leverage=100,
    )  # fmt: skip


def symbol(name: str, price: float, **values: Any) -> Symbol:
    """A live symbol."""
    plain: dict[str, Any] = {
        "engine": "live", "price_kind": "mark", "map": Newest(seq=812, ts_ms=NOW_MS - 34_000),
        "book": Newest(seq=1624, ts_ms=NOW_MS - 42_000), "oi_ms": NOW_MS - 12_000, "zones": 41, "data_since_ms": NOW_MS - 7_200_000,
    }  # fmt: skip
    return Symbol(name=name, price=price, **{**plain, **values})


def facts(**values: Any) -> Facts:
    """A healthy instance of three symbols and four venues."""
    names = (
        ("supervisor", "supervisor"), ("ingest", "ingest"), ("engine-BTC", "engine"), ("engine-ETH", "engine"),
        ("engine-SOL", "engine"), ("api-master", "master"), ("api-0", "api"), ("api-1", "api"),
    )  # fmt: skip
    plain: dict[str, Any] = {
        "now_ms": NOW_MS, "source": "shared memory", "instance": "demo", "version": "1.0", "heard_ms": NOW_MS - 300,
        "since_ms": NOW_MS - 274_320_000, "messages_s": 12_412.0,
        "processes": tuple(
            Process(name=name, role=role, state="LIVE", restarts=0, beat_ms=NOW_MS - 100, cpu_pct=7.6, rss_bytes=51_500_000)
            for name, role in names
        ),
        "venues": (
            venue("binance"), venue("bybit", liquidations="all_500ms"), venue("okx", gaps=2),
            venue("hyperliquid", liquidations="none"),
        ),
        "symbols": (symbol("BTC", PRICE), symbol("ETH", 2513.25), symbol("SOL", 179.785)), "shown": "BTC",
        "zones": tuple(
            sorted(
                [zone("short", PRICE * (1 + 0.004 * n), 311_402.5 / n) for n in range(1, 13)]
                + [zone("long", PRICE * (1 - 0.004 * n), 2.2e6 / n) for n in range(1, 13)],
                key=lambda one: abs(one.price - PRICE),
            )
        ),
        "liquidations": tuple(
            Liquidation(
                ts_ms=NOW_MS - 7_000 * (n + 1), venue=("bybit", "binance", "okx")[n % 3], side=("long", "short")[n % 2],
                price=PRICE + 10 * n, usd=500.0 * 3**n,
            )
            for n in range(12)
        ),
        "map": heat("map"), "book": heat("book", newest_ms=NOW_MS - 42_000),
        "fanout": FanOut(clients=1213, dropped=5, bytes_s=84_300.0, requests_s=402.0, errors_5xx=0),
    }  # fmt: skip
    return Facts(**{**plain, **values})


STATES: dict[str, dict[str, Any]] = {
    "live": {},
    "stale": {"symbols": (symbol("BTC", PRICE, book=Newest(seq=1624, ts_ms=NOW_MS - 200_000)),)},
    "venue-down": {"venues": (venue("binance"), venue("bybit", "DOWN", last_ms=NOW_MS - 200_000), venue("okx"))},
    "no-engine": {
        "trouble": "the supervisor is gone",
        "processes": tuple(replace(one, state="DEAD", cpu_pct=None, rss_bytes=None) for one in facts().processes),
        "symbols": (symbol("BTC", PRICE, engine="dead"),),
        "venues": tuple(replace(one, state="DOWN") for one in facts().venues),
    },
}
"""State of the screen -> what of the healthy facts is otherwise."""


def driven(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """A test with an event loop of its own."""

    @wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        async def all_of_it() -> None:
            await test(*arguments, **fixtures)

        asyncio.run(all_of_it())

    return run


@dataclass
class FakeSource:
    """Gives what the test has put in; remembers what it was asked for."""

    now: Facts = field(default_factory=facts)
    asked: list[tuple[str | None, float]] = field(default_factory=list)
    fault: Exception | None = None
    closed: bool = False

    def read(self, shown: str | None, range_pct: float) -> Facts:
        self.asked.append((shown, range_pct))
        if self.fault is not None:
            raise self.fault
        return self.now if shown is None else replace(self.now, shown=shown)

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True
