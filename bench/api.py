"""Requests per second, latency and CPU of the HTTP API, one worker, loopback, keep-alive, every endpoint cached and not::

    N connections (wrk, else this process) ==> gunicorn worker: parser -> known answer | Falcon -> cache | build from rings
                                           ==> the same, with rate limits, and with limits and keys     (what access costs)
                                           ==> gunicorn worker: bare ASGI callable, body of the same size
                                           ==> FastAPI: one response object with the same body, or the same body as a dict each time
                                           ==> nginx: the same bytes as a file                           (the limit)

All servers run at the same time over the same half day of data (`bench.api_data`), and their rounds alternate, so that a ratio
compares the same minute of the same machine. The load generator is a process of its own on another core: with fewer than two free
cores the numbers say more about it, and with our own client the figure of nginx is the client's limit. Everything here is a result
to read: the goals stand beside the values, nothing passes or fails by them.

"built each time" asks for one key after the other, more of them than the cache holds; where an endpoint has no parameter, a worker
is asked that keeps nothing. CPU is of all processes of a server, over all of its rounds.

python -m bench.api [--quick] [--json]
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import api_data, fastapi_peer
from bench.api_servers import API, BARE, COLD, KEYS, LIMITS, Server, fastapi, free_port, gunicorn, make_settings, nginx, nginx_path
from bench.common import Row, main, report
from bench.http_load import Ask, Generator, Headers, Measured, Reply, generator, probe
from mpengine.keys import change, new_key

ROUNDS: Final = 3
SECONDS: Final = 2.0
QUICK_SECONDS: Final = 0.3
KEYS_CYCLE: Final = 2000  # more than an LRU of 500 holds

RATIOS: Final = (
    ("of bare", "bare"),
    ("of FastAPI", "fastapi"),
    ("of its dict", "dict"),
    ("typed", "typed"),
    ("of nginx", "nginx"),
)
ACCESS: Final = (("with limits", "limits"), ("and keys", "keys"))
ALL: Final = ("bare", "fastapi", "nginx", "limits", "keys")

MAP_CACHED: Final = "liq map v2, cached"
MAP_BUILT: Final = "liq map v2, built each time"
DEPTH_HISTORY_BUILT: Final = "depth history bin 12 h, built each time"


@dataclass(frozen=True, slots=True)
class Case:
    """One endpoint in one state. `against`: servers whose rounds alternate with its own; `server`: who is asked; `status`: of every
    answer."""

    name: str
    ask: Ask
    connections: int = 64
    against: tuple[str, ...] = ()
    server: str = "api"
    status: int = 200


def same(name: str, target: str, connections: int = 64, against: tuple[str, ...] = ()) -> Case:
    """One target, answered from what is known after the first time."""
    return Case(name, Ask((target,)), connections, against)


def unchanged(name: str, target: str) -> Case:
    """What a client gets that has it already."""
    return Case(name, Ask((target,), headers=(("If-None-Match", "*"),)), status=304)


def varied(
    name: str, pattern: str, value: Callable[[int], object], connections: int = 16, *, count: int = KEYS_CYCLE,
    against: tuple[str, ...] = (),
) -> Case:  # fmt: skip
    """`count` targets one after the other, none of which is known any more when it comes again."""
    return Case(name, Ask(tuple(pattern.format(value(number)) for number in range(count))), connections, against)


def cold(name: str, target: str) -> Case:
    """One target of an endpoint without parameters."""
    return Case(name, Ask((target,)), 16, server="cold")


def cents(number: int) -> str:
    """A number below what any filter of ours leaves out: other keys, the same body."""
    return f"{(number + 1) / 100:.2f}"


def lightest(number: int) -> str:
    """Filters that every zone with a tier passes: weights have four decimals, no tier is below 5."""
    return f"min_leverage={number % 5 + 1}&min_weight={number // 5 + 1}e-4"


def below(number: int) -> int:
    """A price far below every frame, on the grid."""
    return 20 * (number + 1)


def minutes_of(number: int) -> int:
    """Histories whose bodies are nearly as long as the longest, together more than the cache may hold."""
    return 720 - number


def later(number: int) -> int:
    """Ends of time ahead of every bar."""
    return (time.time_ns() // 10**6 // 60_000 + 60 + number) * 60_000


def cases() -> list[Case]:
    """The table of measurements."""
    return [*_service(), *_depth(), *_maps(), *_zones(), *_heatmap(), *_records()]


def _service() -> list[Case]:
    return [
        same("livez (Falcon, no cache)", "/livez", against=ALL),
        same("readyz (no cache)", "/readyz"),
        same("time (no cache)", "/time"),
        same("health (no cache)", "/health"),
        same("openapi.json", "/openapi.json", 16),
    ]


def _depth() -> list[Case]:
    latest, history = "/orderbook_heatmap", "/orderbook_heatmap_history"
    return [
        same("depth json, cached", latest, against=ALL),
        unchanged("depth json, 304", latest),
        varied("depth json, cached, other spelling", latest + "?x={}", int, 64),
        varied("depth json, built each time", latest + "?price_min={}", below),
        same("depth bin, cached", latest + "?format=bin", against=ALL),
        varied("depth bin, built each time", latest + "?format=bin&price_min={}", below),
        same("depth history json 12 h, cached", history, 4, ALL),
        varied("depth history json 12 h, built each time", history + "?price_min={}", below, 1),
        same("depth history bin 12 h, cached", history + "?format=bin", 4, ALL),
        varied(DEPTH_HISTORY_BUILT, history + "?format=bin&price_min={}", below, 1),
        same("depth stats, cached", "/orderbook_heatmap_stats"),
        cold("depth stats, built each time", "/orderbook_heatmap_stats"),
        same("depth debug, cached", "/orderbook_heatmap_debug"),
        cold("depth debug, built each time", "/orderbook_heatmap_debug"),
    ]


def _maps() -> list[Case]:
    return [
        same("liq map v1, cached", "/liq_heatmap"),
        cold("liq map v1, built each time", "/liq_heatmap"),
        same(MAP_CACHED, "/liq_heatmap_v2", against=ALL),
        same(MAP_CACHED, "/liq_heatmap_v2", 512, ALL),
        unchanged("liq map v2, 304", "/liq_heatmap_v2"),
        varied(MAP_BUILT, "/liq_heatmap_v2?min_notional={}", cents, 64, against=("dict", "typed")),
        same("liq history v1 12 h, cached", "/liq_heatmap_history", 4),
        varied("liq history v1 12 h, built each time", "/liq_heatmap_history?minutes={}", minutes_of, 1, count=100),
        same("liq history v2 12 h, cached", "/liq_heatmap_v2_history", 4),
        varied("liq history v2 12 h, built each time", "/liq_heatmap_v2_history?minutes={}", minutes_of, 1, count=100),
        same("liq stats, cached", "/liq_stats"),
        cold("liq stats, built each time", "/liq_stats"),
    ]


def _zones() -> list[Case]:
    return [
        same("zones, cached", "/liq_zones"),
        varied("zones, built each time", "/liq_zones?{}", lightest),
        same("zones summary, cached", "/liq_zones_summary"),
        cold("zones summary, built each time", "/liq_zones_summary"),
        same("zones heatmap, cached", "/liq_zones_heatmap"),
        varied("zones heatmap, built each time", "/liq_zones_heatmap?min_notional={}", cents),
    ]


def _heatmap() -> list[Case]:
    rows = range(1000, 2001)  # all of them more than there are
    return [
        same("heatmap json 12 h, cached", "/heatmap", 4),
        varied("heatmap json 12 h, built each time", "/heatmap?max_rows={}", rows.__getitem__, 1, count=len(rows)),
        same("heatmap bin 12 h, cached", "/heatmap?format=bin", 4),
        unchanged("heatmap bin 12 h, 304", "/heatmap?format=bin"),
        varied("heatmap bin 12 h, built each time", "/heatmap?format=bin&max_rows={}", rows.__getitem__, 1, count=len(rows)),
    ]


def _records() -> list[Case]:
    return [
        same("oi, cached", "/oi"),
        cold("oi, built each time", "/oi"),
        same("liquidations 200, cached", "/liquidations"),
        varied("liquidations 200, built each time", "/liquidations?min_usd={}", cents),
        same("candles 720, cached", "/candles", against=ALL),
        varied("candles 720, built each time", "/candles?to_ms={}", later),
    ]


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Runner:
    """One server in one case. `asks`: what it is asked next."""

    server: Server
    asks: Ask
    rounds: list[Measured] = field(default_factory=list)
    cpu_s: float = 0.0

    def run(self, load: Generator, connections: int, seconds: float) -> None:
        """One more round."""
        before_s = self.server.cpu_s()
        found = load.round(self.server.port, self.asks, connections, seconds)
        self.cpu_s += self.server.cpu_s() - before_s
        self.rounds.append(found)
        self.asks = self.asks.after(found.requests)

    @property
    def best(self) -> Measured:
        """The round that others disturbed least."""
        return max(self.rounds, key=lambda one: one.per_second)

    @property
    def cpu_us(self) -> float:
        """CPU microseconds per request over all rounds."""
        return self.cpu_s * 1e6 / sum(one.requests for one in self.rounds)


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is. `servers`: those that run, by name; `files`: bodies for nginx and FastAPI; `key`: header for `keys`."""

    servers: dict[str, Server]
    files: Path
    key: Headers

    def measure(self, case: Case, load: Generator, seconds: float, rounds: int) -> tuple[Row, list[Row]]:
        """The row of a case, and one row for each server that took part."""
        reply = self._reply(case)
        runners = {"": Runner(self.servers[case.server], case.ask)} | self.others(case, reply)
        for _ in range(rounds):
            for runner in runners.values():
                runner.run(load, case.connections, max(seconds, load.shortest_s))
        rates = {name: runner.best.per_second for name, runner in runners.items()}
        own = rates[""]
        row = {
            "case": case.name,
            "conns": case.connections,
            **_figures(runners[""]),
            "bytes": len(reply.body),
            "status": reply.status,
            **{column: round(own / rates[name], 2) if name in rates else None for column, name in RATIOS},
            **{column: round(rates[name] / own, 2) if name in rates else None for column, name in ACCESS},
        }
        each: list[Row] = [
            {"case": case.name, "conns": case.connections, "server": name or case.server, **_figures(runner),
             "ours to it": round(own / rates[name], 2), "its CPU to ours": _ratio(runner.cpu_us, runners[""].cpu_us)}
            for name, runner in runners.items()
        ]  # fmt: skip
        return row, each

    def _reply(self, case: Case) -> Reply:
        """The answer that later ones are like. Asked for before the first round: what a worker reads once is no part of it."""
        reply = probe(self.servers[case.server].port, case.ask)
        if reply.status != case.status:
            raise RuntimeError(f"{case.ask.target}: {reply.status}, not {case.status}")
        return reply

    def others(self, case: Case, reply: Reply) -> dict[str, Runner]:
        """Those of `against` that are there, with what they are asked."""
        if not case.against:
            return {}
        file = f"{len(list(self.files.iterdir()))}.json"
        (self.files / file).write_bytes(reply.body)
        same_bytes = {
            "bare": Ask((f"/{len(reply.body)}",)),
            "fastapi": Ask((f"/cached?symbol=BTC&name={file}",)),
            "dict": Ask((f"/built?symbol=BTC&name={file}",)),
            "typed": Ask((f"/typed?symbol=BTC&name={file}",)),
            "nginx": Ask((f"/{file}",)),
            "limits": case.ask,
            "keys": Ask(case.ask.targets, (*case.ask.headers, *self.key)),
        }
        return {name: Runner(self.servers[name], same_bytes[name]) for name in case.against if name in self.servers}


def _ratio(value: float, to: float) -> float | None:
    """None to 0: a round shorter than a tick of the kernel's clock took no CPU that it knows of."""
    return round(value / to, 2) if to else None


def _figures(runner: Runner) -> Row:
    best = runner.best
    return {
        "requests/s": round(best.per_second),
        "p50 ms": round(best.p50_ms, 3),
        "p99 ms": round(best.p99_ms, 3),
        "CPU us": round(runner.cpu_us, 1),
    }


@contextmanager
def place(*, minutes: int = api_data.HISTORY_MINUTES, peer: str | None, static: str | None) -> Iterator[Place]:
    """Data of `minutes` minutes and all servers over it. `peer`: interpreter with FastAPI; `static`: path of nginx.

    Raises RuntimeError where a server does not come up.
    """
    root = Path(tempfile.mkdtemp(prefix="mpengine-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    texts = {"api": {}, "cold": {"access": COLD}, "bare": {}, "limits": {"access": LIMITS}, "keys": {"access": KEYS}}
    try:
        for folder in ("data", "files"):
            (root / folder).mkdir()
        settings = {name: make_settings(root, name, free_port(), **text) for name, text in texts.items()}
        record, key = new_key(0, ["read"])
        change(settings["keys"].paths.keys, lambda records: [*records, record])
        with ExitStack() as stack:
            stack.enter_context(api_data.published(settings["api"], minutes))
            for one in settings.values():
                if not one.paths.feeds.exists():  # the only shared file that each has in a directory of its own
                    one.paths.feeds.hardlink_to(settings["api"].paths.feeds)
            servers = {
                name: stack.enter_context(gunicorn(one, BARE if name == "bare" else API)) for name, one in settings.items()
            }  # fmt: skip
            if peer is not None:
                other = stack.enter_context(fastapi(peer, root / "files"))
                servers |= dict.fromkeys(("fastapi", "dict", "typed"), other)
            if static is not None:
                servers["nginx"] = stack.enter_context(nginx(static, root / "nginx", root / "files"))
            yield Place(servers, root / "files", (("Authorization", f"Bearer {key}"),))
    finally:
        shutil.rmtree(root)


# --- goals ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Goal:
    """What is wanted of a figure of a case. `server`: the ratio to its requests per second; None: the median time."""

    text: str
    case: str
    connections: int
    server: str | None
    wanted: str


GOALS: Final = (
    Goal("cached /liq_heatmap_v2 to FastAPI's cached response, 64 connections", MAP_CACHED, 64, "fastapi", ">= 2.8"),
    Goal("cached /liq_heatmap_v2 to FastAPI's cached response, 512 connections", MAP_CACHED, 512, "fastapi", ">= 2.8"),
    Goal("cached /liq_heatmap_v2 to a file of nginx, 64 connections", MAP_CACHED, 64, "nginx", ">= 0.38"),
    Goal("cached /liq_heatmap_v2 to a file of nginx, 512 connections", MAP_CACHED, 512, "nginx", ">= 0.38"),
    Goal("uncached /liq_heatmap_v2 to FastAPI building the dict", MAP_BUILT, 64, "dict", ">= 8"),
    Goal("uncached /liq_heatmap_v2 to FastAPI building a typed dict", MAP_BUILT, 64, "typed", "-"),
    Goal("12 h of the order book, binary, uncached: ms", DEPTH_HISTORY_BUILT, 1, None, "< 15"),
)


def goals(each: Sequence[Row]) -> list[Row]:
    """Goals beside the values of this run, None where one was not measured. `each`: rows of servers.

    `by CPU`: the same ratio of CPU per request (milliseconds for a time), which a machine that others use disturbs less.
    """
    found = {(row["case"], row["conns"], row["server"]): row for row in each}
    rows = []
    for goal in GOALS:
        row = found.get((goal.case, goal.connections, goal.server or "api"), {})
        value, by_cpu = ("p50 ms", "CPU us") if goal.server is None else ("ours to it", "its CPU to ours")
        cpu = row.get(by_cpu)
        rows.append(
            {
                "goal": goal.text,
                "value": row.get(value),
                "by CPU": round(cpu / 1e3, 3) if cpu is not None and goal.server is None else cpu,
                "wanted": goal.wanted,
            }
        )
    return rows


# --- the bench --------------------------------------------------------------------------------------------------------


def run(quick: bool) -> list[Row]:
    """Rows of every case, of each server in the cases with a goal, and of the goals.

    Raises RuntimeError where a server does not come up, closes a connection or answers with another status.
    """
    load, peer, static = generator(), fastapi_peer.interpreter(), nginx_path()
    seconds, rounds = (QUICK_SECONDS, 1) if quick else (SECONDS, ROUNDS)
    rows: list[Row] = []
    servers: list[Row] = []
    told = {(goal.case, goal.connections) for goal in GOALS}
    with place(peer=peer, static=static) as here:
        for case in cases():
            row, each = here.measure(case, load, seconds, rounds)
            rows.append(row)
            servers += each if (case.name, case.connections) in told else []
    reached = goals(servers)
    report(f"HTTP API, one worker, best of {rounds} rounds, load: {load.name}", rows, _note(load, peer, static))
    report("the same, server by server", servers)
    report("goals", reached)
    return [*rows, *servers, *reached]


def _note(load: Generator, peer: str | None, static: str | None) -> str:
    found = [f"load generator: {load.name}"]
    if load.name != "wrk" and static is not None:
        found.append("of nginx: limited by this client (wrk is not on the PATH)")
    found.append(
        "FastAPI: not installed (MPENGINE_PEER_PYTHON may name an interpreter that has it)"
        if peer is None
        else f"FastAPI {fastapi_peer.version(peer)}"
    )
    if static is None:
        found.append("nginx: not on the PATH")
    return "; ".join(found)


if __name__ == "__main__":
    main(run, "bench.api")
