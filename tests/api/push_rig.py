"""Followers of push channels: one that keeps the rules of the contract, with a connection that a test can hold up."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from api.push.client import Budget, Client
from api.push.messages import Frame

PLENTY = Budget(1e12, 1 << 40, 1 << 40, 10.0)


class Held:
    """A connection that takes what it gets and can be paused."""

    transport = "ws"

    def __init__(self) -> None:
        self.paused = False
        self.frames: list[tuple[str, Frame]] = []
        self.ended: list[int] = []
        self.aborted = False

    def send(self, kind: str, frame: Frame, client: Client) -> int:
        assert not self.paused or kind == "bye", "written to while it was paused"
        self.frames.append((kind, frame))
        return len(frame.payload)

    def end(self, code: int) -> None:
        self.ended.append(code)

    def abort(self) -> None:
        self.aborted = True

    def take(self) -> list[dict[str, Any]]:
        """What came since the last call, decoded."""
        frames, self.frames = self.frames, []
        return [json.loads(frame.payload) for _, frame in frames]


@dataclass
class Owner:
    """Marks clients, and flushes them when it is told to."""

    now: int = 0
    marked: dict[Client, None] = field(default_factory=dict)
    bytes: int = 0
    left_out: int = 0

    def mark(self, client: Client) -> None:
        self.marked[client] = None

    def now_ms(self) -> int:
        return self.now

    def sent(self, count: int) -> None:
        self.bytes += count

    def conflated(self, count: int) -> None:
        self.left_out += count

    def flush(self) -> None:
        while self.marked:
            client = next(iter(self.marked))
            del self.marked[client]
            client.flush()


class _Timer:
    def __init__(self, loop: FakeLoop, entry: tuple[float, Any]) -> None:
        self._loop, self._entry = loop, entry

    def cancel(self) -> None:
        self._loop.timers.remove(self._entry)


class FakeLoop:
    """Time and timers of a loop, moved by the test."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, work: Any) -> Any:
        entry = (self.now + seconds, work)
        self.timers.append(entry)
        return _Timer(self, entry)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due, self.timers = [one for one in self.timers if one[0] <= self.now], [one for one in self.timers if one[0] > self.now]
        for _, work in due:
            work()


@dataclass
class Follower:
    """A channel as a client keeps it by the sequence rule. Fails where the rule is broken."""

    epoch: int | None = None
    seq: int | None = None
    got: list[tuple[int, int]] = field(default_factory=list)
    missed: list[tuple[int, int]] = field(default_factory=list)
    resets: int = 0
    state: Any = None
    _reset: bool = False

    def accept(self, message: dict[str, Any]) -> None:
        kind, epoch, seq, prev = message["type"], message["epoch"], message["seq"], message["prev"]
        if kind == "reset":
            self._reset, self.epoch, self.seq = True, None, None
            self.resets += 1
            return
        if kind == "snapshot":
            assert prev == -1
            if self.epoch is not None:
                assert epoch == self.epoch, "another epoch without a reset"
                assert self.seq is None or seq > self.seq
        else:
            assert (self.epoch, self.seq) == (epoch, prev), f"{kind} {seq} behind {prev}, but {self.seq} is the last"
        self.epoch, self.seq = epoch, seq
        if kind == "gap":
            data = message["data"]
            assert data["to"] == seq and data["from"] == prev + 1 and data["from"] <= data["to"]
            self.missed.append((data["from"], data["to"]))
            return
        self.got.append((epoch, seq))
        self.state = message["data"]


def cells_of(data: dict[str, Any]) -> np.ndarray[Any, Any]:
    """uint8[2, rows] of a column as JSON."""
    return np.stack([np.frombuffer(base64.b64decode(data[name]), np.uint8) for name in ("a", "b")])
