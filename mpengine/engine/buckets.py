"""Sparse maps of one side: sorted bucket indices and a row of numbers for each (`spec: engine`, sections 5, 8, 9). Pure."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shm.grid import ndigits

MAX_MAP_BUCKETS: Final = 20_000

Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def ordered_sum(values: Floats) -> float:
    """Sum in index order, the same on every machine. The one routine for sums that are published or stored."""
    return float(values.ravel().cumsum()[-1]) if values.size else 0.0


def column_sums(rows: Floats) -> Floats:
    """Sum of each column of float64[n, columns], in index order."""
    return rows.cumsum(axis=0)[-1] if len(rows) else np.zeros(rows.shape[1])


def row_sums(values: Floats) -> Floats:
    """Sum over the last axis of float64[..., columns], in index order. PERF: column by column, half the time of `sum(axis=-1)`."""
    totals: Floats = values[..., 0].copy()
    for column in range(1, values.shape[-1]):
        totals += values[..., column]
    return totals


def bucket_prices(keys: Keys, step: float) -> Floats:
    """`shm.grid.price_of` for int64[n] of bucket indices: whole numbers of the last decimal, divided once."""
    scale = 10 ** ndigits(step)
    prices: Floats = (keys * round(step * scale)) / float(scale)
    return prices


class BucketMap:
    """Bucket index -> float64[columns]. `keys`: int64[n] strictly ascending; `values`: float64[n, columns]; both owned by the map.

    Bounded: beyond `limit` buckets the ones with the smallest sum leave and are counted in `evicted`.
    """

    __slots__ = ("_limit", "evicted", "keys", "values")

    def __init__(self, columns: int, limit: int = MAX_MAP_BUCKETS) -> None:
        self.keys: Keys = np.zeros(0, np.int64)
        self.values: Floats = np.zeros((0, columns))
        self.evicted = 0
        self._limit = limit

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def totals(self) -> Floats:
        """float64[n]: sum of each bucket's columns."""
        return row_sums(self.values)

    def add(self, keys: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Add rows to buckets; a key may come several times and in any order. int64[m], float64[m, columns]."""
        new_keys, new_values = np.asarray(keys, np.int64), np.asarray(values, np.float64)
        if not new_keys.size:
            return
        # PERF: a few keys come into a map of thousands: only what is missing is put in, nothing is sorted.
        wanted = np.unique(new_keys)
        at = np.searchsorted(self.keys, wanted)
        missing = (
            wanted[(at == len(self.keys)) | (self.keys[np.minimum(at, len(self.keys) - 1)] != wanted)] if len(self) else wanted
        )
        if len(missing):
            at = np.searchsorted(self.keys, missing)
            self.keys, self.values = np.insert(self.keys, at, missing), np.insert(self.values, at, 0.0, axis=0)
        np.add.at(self.values, np.searchsorted(self.keys, new_keys), new_values)
        self._evict()

    def scale(self, factor: float) -> None:
        """Multiply everything."""
        self.values *= factor

    def keep(self, mask: npt.NDArray[np.bool_]) -> None:
        """Drop the buckets whose element of bool[n] is False."""
        if not mask.all():
            self.keys, self.values = self.keys[mask], self.values[mask]

    def on_grid(self, origin: int, count: int) -> Floats:
        """float64[count, columns]: the buckets `origin` .. `origin` + `count` - 1, zeros where there is none."""
        first, stop = np.searchsorted(self.keys, (origin, origin + count))
        dense = np.zeros((count, self.values.shape[1]))
        dense[self.keys[first:stop] - origin] = self.values[first:stop]
        return dense

    def _evict(self) -> None:
        excess = len(self.keys) - self._limit
        if excess <= 0:
            return
        smallest = np.argsort(self.totals, kind="stable")[:excess]
        mask = np.ones(len(self.keys), np.bool_)
        mask[smallest] = False
        self.keep(mask)
        self.evicted += excess

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        return {"keys": self.keys.tobytes(), "values": self.values.tobytes(), "evicted": self.evicted}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`. Raises ValueError where keys and values do not belong together."""
        keys = np.frombuffer(state["keys"], np.int64).copy()
        self.keys, self.values = keys, np.frombuffer(state["values"]).reshape(len(keys), self.values.shape[1]).copy()
        self.evicted = state["evicted"]
