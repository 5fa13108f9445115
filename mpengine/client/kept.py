"""Bodies that are held so that a 304 has something to give back."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Held:
    """A decoded body, the tag it came with, and its size before decoding."""

    etag: str
    body: Any
    size: int


class Kept:
    """Decoded bodies by target, for 304s. Bounded by count and bytes (of the bodies before decoding); any thread may use it."""

    def __init__(self, entries: int, size: int) -> None:
        self._entries = entries
        self._size = size
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._total = 0

    def __len__(self) -> int:
        return len(self._held)

    def find(self, target: str) -> Held | None:
        """What is held for a target."""
        with self._lock:
            held = self._held.get(target)
            if held is not None:
                self._held.move_to_end(target)
            return held

    def keep(self, target: str, etag: str, body: Any, size: int) -> None:
        """Hold a body; others that were not asked for lately go."""
        with self._lock:
            if (old := self._held.pop(target, None)) is not None:
                self._total -= old.size
            self._held[target] = Held(etag, body, size)
            self._total += size
            while self._held and (len(self._held) > self._entries or self._total > self._size):
                self._total -= self._held.popitem(last=False)[1].size
