"""Token buckets, one per client, shared by all workers: no lock, and one writer per word (`shm.rate_table`).

A bucket is kept as one time: when it will be full again (`debt_ns`). Taking n tokens moves that time n / rate further; there is
no token left when it lies a whole burst ahead. Every worker has such a replica of each client it has seen, and tells the others
what it took: the number of tokens ever, and the replica.

    looked a moment ago      add what the others took since (`spent`): exact, also when all of them take at once
    looked long ago, never   take over the latest replica (`debt_ns`): the one who took last had seen what the others took

"Long" is when a bucket could have refilled by 2 % in between: adding up would then forget that a full bucket does not grow. Two
workers that take the same token at the same moment both give it; the next request pays for both. So what all workers give in
any time is the bucket and its refill, to within a request or two. A dead worker's region is gone on with by its successor.

Rejected: a share of the rate for each worker (a kept connection lives in one), one worker that counts for all (a hop per request),
a lock (a stopped worker would hold up all others).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Final

from api.bodies import Headers
from shm.errors import ShmError
from shm.rate_table import DEBT, HELD, SPENT, RateTable

SECOND_NS: Final = 1_000_000_000
NEAR: Final = 0.02
"""Share of a refill below which adding up is exact enough."""

log = logging.getLogger("api.rates")


@dataclass(frozen=True, slots=True)
class Limit:
    """Bucket of every client: `burst` tokens, refilled with `per_s`."""

    per_s: float
    burst: int

    @property
    def token_ns(self) -> int:
        """Time in which one token comes."""
        return max(1, round(SECOND_NS / self.per_s))

    @property
    def policy(self) -> bytes:
        """`RateLimit-Policy`."""
        return b'"default";q=%d;w=%d' % (self.burst, max(1, math.ceil(self.burst / self.per_s)))


class _Bucket:
    """Replica of one client's bucket. `place`: own entry. `known`: [entry, tokens seen there] of every region that has one;
    `sets`: (version word, version) of the client's set in every other region."""

    __slots__ = ("debt_ns", "known", "looked_ns", "place", "sets", "spent")

    def __init__(self, place: int, spent: int, debt_ns: int) -> None:
        self.place = place
        self.spent = spent
        self.debt_ns = debt_ns
        self.looked_ns = -(1 << 62)  # never
        self.known: list[list[int]] = []
        self.sets: list[tuple[int, int]] = []


class Rates:
    """Buckets of one worker, over a table that it has a region of. For one thread: the loop's.

    `evicted`: clients forgotten for others.
    """

    def __init__(self, limit: Limit, table: RateTable | None = None) -> None:
        self.limit = limit
        self.evicted = 0
        self._token_ns = limit.token_ns
        self._burst_ns = limit.burst * self._token_ns
        self._near_ns = int(self._burst_ns * NEAR)
        self._held: dict[int, int] = {}
        self._headers = lru_cache(4096)(partial(rate_headers, limit))
        self._told = False
        self._use(table or RateTable.private())

    def _use(self, table: RateTable) -> None:
        self._table = table
        self._load, self._store = table.words.load_acquire, table.words.store_release
        self._others = [region for region in range(table.regions) if region != table.region]
        self._buckets: dict[int, _Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    @property
    def salt(self) -> bytes:
        """Of the hashes of clients: the same for all workers."""
        return self._table.salt

    @property
    def shared(self) -> bool:
        """Whether other workers see what is taken here."""
        return self._table.regions > 1

    def share(self, path: Path) -> bool:
        """Go over to the table of a file if it can be had, forgetting what was counted; False: the limits stay this worker's."""
        try:
            table = RateTable.attach(path)
        except (ShmError, OSError) as error:
            self._stay_private(type(error).__name__)
            return False
        if not table.claim():
            table.close()
            self._stay_private("every region has an owner")
            return False
        self._use(table)
        for key, count in self._held.items():
            self._tell_held(key, count)
        return True

    def _stay_private(self, reason: str) -> None:
        if not self._told:
            self._told = True
            log.warning("rate limits are counted by this worker alone: %s", reason)

    def charge(self, key: int, cost: int, now_ns: int) -> tuple[int, int]:
        """Take `cost` tokens of a client: (0, debt) or, when there are not so many, (time until there are, debt); both in ns.

        `key`: hash of the client, 1 to 2**64 - 1; `cost`: at most the burst. `now_ns`: monotonic, the same clock in all workers.
        """
        bucket = self._buckets.get(key) or self._open(key)
        debt_ns = self._look(bucket, key, now_ns)
        if debt_ns < now_ns:
            debt_ns = now_ns
        after_ns = debt_ns + cost * self._token_ns
        over_ns = after_ns - now_ns - self._burst_ns
        if over_ns > 0:
            bucket.debt_ns = debt_ns
            return over_ns, debt_ns - now_ns
        bucket.debt_ns = after_ns
        bucket.spent += cost
        # The replica first: who sees the number of tokens finds a replica that has them.
        self._store(bucket.place + DEBT, after_ns)
        self._store(bucket.place + SPENT, bucket.spent)
        return 0, after_ns - now_ns

    def headers(self, debt_ns: int) -> tuple[Headers, bytes]:
        """Headers of an answer, as pairs and as bytes of the head."""
        left = max(0, self._burst_ns - debt_ns) // self._token_ns
        return self._headers(left, (debt_ns + SECOND_NS // 2) // SECOND_NS)

    # --- push connections -----------------------------------------------------------------------------------------------

    def hold(self, key: int, most: int) -> bool:
        """Count one more push connection of a client, unless all workers together have `most` of them."""
        own = self._held.get(key, 0)
        if own + sum(self._held_by(region, key) for region in self._others) >= most:
            return False
        self._held[key] = own + 1
        self._tell_held(key, own + 1)
        return True

    def release(self, key: int) -> None:
        """One of those that `hold` has counted is over."""
        left = self._held[key] - 1
        if left:
            self._held[key] = left
        else:
            del self._held[key]
        self._tell_held(key, left)

    def _tell_held(self, key: int, count: int) -> None:
        self._store((self._buckets.get(key) or self._open(key)).place + HELD, count)

    def _held_by(self, region: int, key: int) -> int:
        place = self._table.find(region, key)
        count = self._load(place + HELD) if place else 0
        return count if count and self._table.is_held(region) else 0

    # --- replicas -------------------------------------------------------------------------------------------------------

    def _open(self, key: int) -> _Bucket:
        """The bucket of a client that this worker does not know."""
        table, region = self._table, self._table.region
        assert region is not None
        place = table.find(region, key)
        if not place:
            place, before = table.insert(key)
            if before:
                self.evicted += 1
                self._buckets.pop(before, None)
            if held := self._held.get(key):
                self._store(place + HELD, held)
        bucket = self._buckets[key] = _Bucket(place, self._load(place + SPENT), self._load(place + DEBT))
        self._meet(bucket, key)
        return bucket

    def _look(self, bucket: _Bucket, key: int, now_ns: int) -> int:
        """When the bucket is full again, after a look at what the others took."""
        load = self._load
        # PERF: most clients live in one worker; for them this is one load per region.
        for word, version in bucket.sets:
            if load(word) != version:
                self._meet(bucket, key)
                break
        near = now_ns - bucket.looked_ns < self._near_ns
        bucket.looked_ns, looked_ns = now_ns, bucket.looked_ns
        if not bucket.known:
            return bucket.debt_ns
        taken = latest_ns = 0
        for entry in bucket.known:
            place, seen = entry
            if load(place) != key:
                continue  # forgotten there for another client; the version of its set has changed, too
            spent = load(place + SPENT)
            if not near:
                latest_ns = max(latest_ns, load(place + DEBT))
            elif spent != seen:
                taken += spent - seen if spent > seen else spent  # lower: forgotten and begun again
            entry[1] = spent
        debt_ns = bucket.debt_ns
        if not near:
            debt_ns = max(debt_ns, latest_ns)
        elif taken:
            debt_ns = max(debt_ns, looked_ns) + taken * self._token_ns
        # An entry that changed hands while it was read may tell a wrong number; it must not lock anybody out.
        return min(debt_ns, now_ns + 2 * self._burst_ns)

    def _meet(self, bucket: _Bucket, key: int) -> None:
        """Find the client in the other regions again. What is found new was made after the last look, so all of it is new."""
        before = {place: seen for place, seen in bucket.known}  # noqa: C416  pairs are lists
        bucket.known, bucket.sets = [], []
        for region in self._others:
            word = self._table.set_of(region, key)
            version = self._load(word)  # before the search: what changes during it is seen next time
            if place := self._table.find(region, key):
                bucket.known.append([place, before.get(place, 0)])
            bucket.sets.append((word, version))

    def close(self) -> None:
        """Give the region back."""
        self._table.close()


def rate_headers(limit: Limit, left: int, full_s: int) -> tuple[Headers, bytes]:
    """Headers of an answer that was counted: `left` tokens, `full_s` seconds until the bucket is full again."""
    pairs = [
        (b"ratelimit-policy", limit.policy),
        (b"ratelimit", b'"default";r=%d;t=%d' % (left, full_s)),
        (b"x-ratelimit-limit", b"%d" % limit.burst),
        (b"x-ratelimit-remaining", b"%d" % left),
        (b"x-ratelimit-reset", b"%d" % full_s),
    ]
    return pairs, b"".join(b"%s: %s\r\n" % pair for pair in pairs)
