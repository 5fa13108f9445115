"""Answers by canonical key, each valid exactly while what it was made from is the newest there is. No time-outs.

Two maps. `entries`: key -> entry, bounded in number and bytes, the longest unused goes first. `spellings`: raw request target ->
entry, so that a hit needs no parsing; a few per entry, gone with their entry. Unknown parameters do not count for the key, so one
entry can have any number of spellings: only the newest few are kept.

One thread (the loop's) uses this. A build runs in the loop (milliseconds) or, when it reads many frames, in the builder's thread;
either way once per key, and everybody else who wants the key waits for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from api.bodies import Answer

SPELLINGS_PER_ENTRY: Final = 8
SPELLING_BYTES: Final = 512

Key = tuple[Hashable, ...]
Spelling = bytes
"""A request target as it came over the wire: path, and `?` with the query if there is one."""

T = TypeVar("T")
Current = Callable[[], Hashable]
Build = Callable[[], Answer]


@dataclass(slots=True, eq=False)
class Entry:
    """One answer, kept under `key`; good while `current()` equals `stamp`. `size`: bytes that it costs.

    `seen`: turn of the loop in which it was found to be good.
    """

    key: Key
    answer: Answer
    stamp: Hashable
    current: Current
    size: int = 0
    seen: int = -1
    spellings: deque[Spelling] = field(default_factory=deque)

    def valid(self) -> bool:
        """Whether nothing that it was made from has changed."""
        return self.stamp == self.current()


class Builder:
    """The one thread for long builds. `borrowed` is held while it works, so that no file is unmapped under it."""

    def __init__(self, borrowed: Callable[[], AbstractContextManager[None]]) -> None:
        self._borrowed = borrowed
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, build: Callable[[], T]) -> T:
        """The result of `build`, made in the thread; its exceptions come through."""
        if self._executor is None:
            # One thread: what long builds keep between them (decoded rows) then needs no lock.
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="api-builder")
        with self._borrowed():
            return await asyncio.get_running_loop().run_in_executor(self._executor, build)

    def close(self) -> None:
        """Wait for the build that runs, and end the thread; the next build begins a new one."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None


class Cache:
    """Bounded store of answers. `hits`, `misses`: counters since the start."""

    def __init__(self, *, entries: int, size: int, body: int) -> None:
        """At most `entries` answers of together `size` bytes; one above `body` bytes is not kept."""
        self._max_entries = entries
        self._max_size = size
        self._max_body = body
        self._entries: OrderedDict[Key, Entry] = OrderedDict()  # the longest unused first
        self._spellings: dict[Spelling, Entry] = {}
        self._pending: dict[Key, asyncio.Task[Entry]] = {}
        self._turn = 0
        self._turning = False
        self.size = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def spellings(self) -> int:
        """Raw requests that are known."""
        return len(self._spellings)

    def clear(self) -> None:
        """Give up every answer; builds that run go on."""
        for entry in self._entries.values():
            self._forget(entry)
        self._entries.clear()

    def hit(self, spelling: Spelling) -> Answer | None:
        """The answer to a request spelled exactly like this, if it is known and valid."""
        entry = self._spellings.get(spelling)
        if entry is None:
            return None
        # PERF: a busy worker answers dozens of requests in one turn of the loop; its sources are looked at once for all of them.
        if entry.seen != self._turn:
            if entry.stamp != entry.current():
                return None
            entry.seen = self._this_turn()
        self.hits += 1
        self._use(entry)
        return entry.answer

    async def obtain(self, key: Key, current: Current, build: Build, spelling: Spelling, builder: Builder | None = None) -> Answer:
        """The answer for `key`: kept, being built, or built now (in `builder`'s thread if given). Errors are not kept."""
        while True:
            entry = self._entries.get(key)
            if entry is not None and entry.valid():
                self.hits += 1
                break
            # The stamp is read before the build: if the source moves meanwhile, the entry is out of date at once, never too new.
            if builder is None:
                self.misses += 1
                stamp = current()
                entry = self._keep(Entry(key, build(), stamp, current))
                break
            pending = self._pending.get(key)
            if pending is None:
                entry = await asyncio.shield(self._start(key, current, build, builder))
                break
            entry = await asyncio.shield(pending)
            # Somebody else's build began before this request came: good only if nothing has moved since.
            if entry.valid():
                break
        self._touch(key, entry, spelling)
        return entry.answer

    def _start(self, key: Key, current: Current, build: Build, builder: Builder) -> asyncio.Task[Entry]:
        """A build as a task of its own: a client that goes away does not end what others wait for."""
        self.misses += 1

        async def run() -> Entry:
            try:
                stamp = current()
                return self._keep(Entry(key, await builder.run(build), stamp, current))
            finally:
                del self._pending[key]

        task = self._pending[key] = asyncio.get_running_loop().create_task(run())
        return task

    def _keep(self, entry: Entry) -> Entry:
        key = entry.key
        old = self._entries.pop(key, None)
        if old is not None:
            self._forget(old)
        entry.size = entry.answer.size
        if entry.size > self._max_body:
            return entry
        self._entries[key] = entry
        self.size += entry.size
        if old is not None:
            for known in old.spellings:
                self._spell(entry, known)
        self._shrink()
        return entry

    def holds(self, key: Key, answer: Answer) -> bool:
        """Whether this very answer is kept under `key`."""
        entry = self._entries.get(key)
        return entry is not None and entry.answer is answer

    def grown(self, key: Key, answer: Answer) -> None:
        """An answer kept under `key` costs more than when it came: a form of it was made."""
        entry = self._entries.get(key)
        if entry is not None and entry.answer is answer:
            if answer.size > self._max_size:  # with its forms it would push out itself, and be made anew for each response
                answer.forms.update(dict.fromkeys(answer.forms))
            self.size += answer.size - entry.size
            entry.size = answer.size
            self._shrink()

    def _shrink(self) -> None:
        while len(self._entries) > self._max_entries or self.size > self._max_size:
            self._forget(self._entries.popitem(last=False)[1])

    def _touch(self, key: Key, entry: Entry, spelling: Spelling) -> None:
        self._use(entry)
        if self._entries.get(key) is entry and self._spellings.get(spelling) is not entry:
            self._spell(entry, spelling)

    def _this_turn(self) -> int:
        """Number of the loop's turn, which ends when everything that is ready now has been done. Without a loop none lasts."""
        if not self._turning:
            try:
                asyncio.get_running_loop().call_soon(self._next_turn)
            except RuntimeError:
                return -1
            self._turning = True
        return self._turn

    def _next_turn(self) -> None:
        self._turn += 1
        self._turning = False

    def _use(self, entry: Entry) -> None:
        if entry.key in self._entries:
            self._entries.move_to_end(entry.key)

    def _spell(self, entry: Entry, spelling: Spelling) -> None:
        if len(spelling) > SPELLING_BYTES:
            return
        if len(entry.spellings) >= SPELLINGS_PER_ENTRY:
            self._spellings.pop(entry.spellings.popleft(), None)
        entry.spellings.append(spelling)
        self._spellings[spelling] = entry

    def _forget(self, entry: Entry) -> None:
        self.size -= entry.size
        for spelling in entry.spellings:
            self._spellings.pop(spelling, None)
