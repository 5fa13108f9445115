"""What a worker counts of its requests: by route and status, and how long they took by class of route.

    request -> Meter (plain integers) -- once a second --> Lane: a counter file of this worker
                                                            all counter files -> Lanes.totals -> scrape in any worker

A request costs two additions and a look-up, no lock, no system call; prometheus_client's own metric objects cost several times as
much and keep a file per process id, dead ones included. Here the files are few and fixed: a worker takes one that nobody holds,
goes on from its totals, and the next worker goes on from there. So a sum over the files never falls, at reloads too, while old and
new workers run side by side; what a killed worker had counted since its last publish, a second at most, is lost.
"""

from __future__ import annotations

import logging
import secrets
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Final

from api.metrics_push import PushCounts
from shm import files
from shm.counters import CounterReader, CounterWriter
from shm.errors import IdentityMismatch, LayoutMismatch, Locked, Missing, ShmError
from shm.layout import FileSpec, counters_spec
from shm.paths import Paths

OTHER: Final = "other"
CODES: Final = (101, 200, 204, 304, 400, 401, 403, 404, 405, 413, 414, 429, 431, 500, 503)
BOUNDS_S: Final = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the histogram's buckets; what the cache has is answered within the first."""

COUNTED: Final = ("cache_hits", "cache_misses", "ring_retries", "ring_laps")
LEVELS: Final = ("cache_entries", "cache_bytes")

_BOUNDS_NS: Final = tuple(round(bound * 1e9) for bound in BOUNDS_S)
REMEMBERED: Final = 4096
TIMED_ONE_IN: Final = 8
TIMED_DRAWS: Final = 1021
_OTHER_CODE: Final = 0

Key = tuple[str, ...]
"""Name of a figure: `("requests", "/oi", "200")`, `("seconds", "history", "3")`, `("cache_hits",)`."""

log = logging.getLogger("api.metrics")


class Tally:
    """Answers of one route: how many of each status, how many within each bound, how long all of them took together.

    `hits`: what the cache had, `same` of them 304. Not every hit is timed; one that is stands for those since the one before.
    """

    __slots__ = ("_buckets", "_codes", "_told", "_took", "hits", "nanoseconds", "same")

    def __init__(self) -> None:
        self._codes = dict.fromkeys((*CODES, _OTHER_CODE), 0)
        self._buckets = [0] * (len(BOUNDS_S) + 1)
        self.hits = self.same = self.nanoseconds = 0
        self._told = self._took = 0

    def answer(self, status: int) -> None:
        """Count one that was no hit; a status that is not in CODES counts as `other`."""
        self._codes[status if status in self._codes else _OTHER_CODE] += 1

    def time(self, nanoseconds: int, count: int = 1) -> None:
        """Put `count` answers into the bucket of this time."""
        self.nanoseconds += nanoseconds * count
        self._buckets[bisect_left(_BOUNDS_NS, nanoseconds)] += count

    def time_hit(self, nanoseconds: int) -> None:
        """The newest hit took so long; so did, for all that is known, those since the last one that was timed."""
        self._took = nanoseconds
        self.time(nanoseconds, self.hits - self._told)
        self._told = self.hits

    def codes(self) -> dict[int, int]:
        """Answers by status, in the order of CODES, `other` (0) last."""
        codes = self._codes.copy()
        codes[200] += self.hits - self.same
        codes[304] += self.same
        return codes

    def buckets(self) -> list[int]:
        """Timed answers by the bound they were within, those beyond the last one at the end. Every hit is among them."""
        if self._told != self.hits:
            self.time_hit(self._took)
        return self._buckets


class Meter:
    """Counts of one worker, since it began. `push`: for the push code. Used by the loop's thread."""

    def __init__(self, routes: Iterable[tuple[Sequence[str], str]], now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """`routes`: (main path and its aliases, class of the route). Paths outside them count as one, `other`."""
        self.push = PushCounts()
        self.now_ns = now_ns
        # Drawn by chance, so that no rhythm of the clients decides which routes are timed; drawn once, since that costs.
        self.timed: Iterator[bool] = cycle([secrets.randbelow(TIMED_ONE_IN) == 0 for _ in range(TIMED_DRAWS)])
        """Whether the next hit is to be timed."""
        self._other = Tally()
        self._tallies = {OTHER: self._other}
        self._by_path: dict[bytes, Tally] = {}
        self._by_target: dict[bytes, Tally] = {}
        self._members: dict[str, list[Tally]] = {OTHER: [self._other]}
        for paths, group in routes:
            tally = self._tallies[paths[0]] = Tally()
            self._members.setdefault(group, []).append(tally)
            for path in paths:
                self._by_path[path.encode()] = self._by_path[path.encode() + b"/"] = tally
        self.keys: tuple[Key, ...] = (*self._counter_keys(), *self._level_keys())
        self.counters = len(self.keys) - sum(1 for _ in self._level_keys())
        """The first so many of `keys` only rise."""

    def hit(self, target: bytes, status: int, began_ns: int | None) -> None:
        """What the cache had for a request target (path and query): 200 or 304. `began_ns` as `now_ns` gave it, None: not timed."""
        # PERF: on the path of every cache hit, which costs 15 us: attributes and not lists, the route by the whole target (whose
        # hash the cache has just taken), a clock for one in eight. 0.15 us; measured by bench/api.py.
        tally = self._by_target.get(target) or self._remember(target)
        tally.hits += 1
        if status != 200:
            tally.same += 1
        if began_ns is not None:
            tally.time_hit(self.now_ns() - began_ns)

    def answered(self, path: str | None, status: int, began_ns: int | None = None) -> None:
        """An answer that was no hit. `path`: of the request or its template; None where there is none. Without `began_ns` (a
        connection that goes on, a refusal before there was a request) it is counted and not timed."""
        tally = self._other if path is None else self._by_path.get(path.encode("utf-8", "surrogateescape"), self._other)
        tally.answer(status)
        if began_ns is not None:
            tally.time(self.now_ns() - began_ns)

    def _remember(self, target: bytes) -> Tally:
        if len(self._by_target) >= REMEMBERED:
            self._by_target.clear()
        tally = self._by_target[target] = self._by_path.get(target.partition(b"?")[0], self._other)
        return tally

    def statuses(self) -> tuple[int, int, int]:
        """(answers, 4xx, 5xx) so far; a status of its own kind is in the first only."""
        sums = dict.fromkeys((*CODES, _OTHER_CODE), 0)
        for tally in self._tallies.values():
            for code, count in tally.codes().items():
                sums[code] += count
        client = sum(count for code, count in sums.items() if 400 <= code < 500)
        return sum(sums.values()), client, sum(count for code, count in sums.items() if code >= 500)

    def figures(self, counted: Sequence[int], levels: Sequence[int]) -> list[int]:
        """Value of each of `keys`. `counted`: in the order of COUNTED; `levels`: in that of LEVELS."""
        found: list[int] = []
        for tally in self._tallies.values():
            found += tally.codes().values()
        for members in self._members.values():
            found += map(sum, zip(*[tally.buckets() for tally in members]))
            found.append(sum(tally.nanoseconds for tally in members))
        push = self.push
        found += [*counted, push.sent_bytes, push.conflated, *push.closed.values(), *levels, *push.clients.values()]
        return found

    def _counter_keys(self) -> Iterable[Key]:
        for route in self._tallies:
            for code in (*CODES, _OTHER_CODE):
                yield "requests", route, str(code) if code else OTHER
        for group in self._members:
            for index in range(len(BOUNDS_S) + 1):
                yield "seconds", group, str(index)
            yield "nanoseconds", group
        for name in (*COUNTED, "push_bytes", "push_conflated"):
            yield (name,)
        for reason in self.push.closed:
            yield "push_closed", reason

    def _level_keys(self) -> Iterable[Key]:
        for name in LEVELS:
            yield (name,)
        for transport in self.push.clients:
            yield "push_clients", transport


def lane_spec(keys: Sequence[Key]) -> FileSpec:
    """The counter file that holds these figures."""
    return counters_spec("http", [" ".join(key) for key in keys])


def lane_count(workers: int) -> int:
    """How many workers can count at a time: those that run, and those that still drain after two reloads in a row."""
    return 3 * workers + 1


class Lane:
    """The counter file of this worker: the first one that is free, kept until the process ends.

    While none is free, figures are kept and published later.
    """

    def __init__(self, paths: Paths, meter: Meter, lanes: int) -> None:
        self._paths = paths
        self._meter = meter
        self._spec = lane_spec(meter.keys)
        self._lanes = lanes
        self._writer: CounterWriter | None = None
        self._base: list[int] = []

    def publish(self, counted: Sequence[int], levels: Sequence[int]) -> None:
        """Store what the meter has counted since this process began; arguments as of `Meter.figures`."""
        if self._writer is None:
            self._writer = self._claim()
            if self._writer is None:
                return
            self._base = self._writer.values()
        figures, split = self._meter.figures(counted, levels), self._meter.counters
        totals = [old + new for old, new in zip(self._base, figures[:split])]
        self._writer.store([*totals, *figures[split:]])

    def close(self) -> None:
        """The process ends in order: its levels are told to be over, its totals stay."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _claim(self) -> CounterWriter | None:
        try:
            # All of them at once, by the first worker: no later one depends on what room there is left by then.
            for path in self._files():
                if not path.exists():
                    files.create(path, self._spec)
        except Missing:  # no runtime directory: nobody runs this in earnest
            return None
        except (ShmError, OSError) as error:
            log.warning("counter files cannot be made: %s", error)
        for path in self._files():
            try:
                return self._open(path)
            except Locked:
                continue
            except (ShmError, OSError) as error:
                log.warning("%s cannot be used: %s", path.name, error)
        log.warning("no counter file is free: figures of this worker are published later")
        return None

    def _files(self) -> Iterator[Path]:
        return (self._paths.http_counters(number) for number in range(self._lanes))

    def _open(self, path: Path) -> CounterWriter:
        try:
            return CounterWriter.open(path, self._spec)
        except (IdentityMismatch, LayoutMismatch):  # of a program with other routes, which ended in this folder
            files.replace(path, self._spec)
            return CounterWriter.open(path, self._spec)


class Lanes:
    """Reads the counter files of all workers, whoever asks."""

    def __init__(self, paths: Paths, meter: Meter, lanes: int) -> None:
        self._paths = paths
        self._keys = meter.keys
        self._spec = lane_spec(meter.keys)
        self._counters = meter.counters
        self._lanes = lanes

    def totals(self) -> dict[Key, int]:
        """Each figure, summed over the files: counters over all of them, levels over those whose writer lives."""
        sums = [0] * len(self._keys)
        for number in range(self._lanes):
            try:
                with CounterReader.open(self._paths.http_counters(number), self._spec) as reader:
                    values = reader.values() if reader.alive() else reader.values()[: self._counters]
            except Missing:
                continue
            except (ShmError, OSError) as error:
                log.warning("counter file %d cannot be read: %s", number, error)
                continue
            for index, value in enumerate(values):
                sums[index] += value
        return dict(zip(self._keys, sums))
