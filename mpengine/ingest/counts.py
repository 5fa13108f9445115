"""Totals of this process and how they reach the board; how often the same trouble is logged. No clock of its own."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from shm.board_words import Word
from shm.process_shell import Row

REMEMBERED: Final = 512


class Counts:
    """Named totals since this process began. On the board they go on from where the process before left them."""

    __slots__ = ("_base", "_told", "values")

    def __init__(self) -> None:
        self.values: dict[Word, int] = {}
        self._base: dict[Word, int] = {}
        self._told: dict[Word, int] = {}

    def add(self, word: Word, n: int = 1) -> None:
        """Raise a total."""
        self.values[word] = self.values.get(word, 0) + n

    def put(self, word: Word, total: int) -> None:
        """Take over a total that is kept elsewhere (a venue module, the recorder)."""
        self.values[word] = total

    def get(self, word: Word) -> int:
        """A total; 0 before it was named."""
        return self.values.get(word, 0)

    def publish(self, row: Row) -> None:
        """Write the totals that have changed to the board row. Always the same row."""
        for word, value in self.values.items():
            if self._told.get(word) != value:
                if word not in self._base:
                    self._base[word] = row.get(word)
                row.set(word, self._base[word] + value)
                self._told[word] = value


class Rarely:
    """Lets one log line per key and interval through and counts the others. Keys are few; the oldest is forgotten beyond 512."""

    __slots__ = ("_interval_ns", "_seen")

    def __init__(self, interval_s: float) -> None:
        self._interval_ns = int(interval_s * 1e9)
        self._seen: OrderedDict[object, tuple[int, int]] = OrderedDict()

    def admit(self, key: object, now_ns: int) -> int | None:
        """None: keep quiet. Else how many were held back since the last one."""
        last_ns, held = self._seen.get(key, (None, 0))
        if last_ns is not None and now_ns - last_ns < self._interval_ns:
            self._seen[key] = (last_ns, held + 1)
            return None
        self._seen[key] = (now_ns, 0)
        self._seen.move_to_end(key)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return held
