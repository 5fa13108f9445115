"""Faults on demand: what a network or an exchange does to messages, sockets and replies. Pure; the server asks before it delivers.

    drop        a matching message is not delivered (per socket)      gap        no socket gets it (ids go on: a real hole)
    delay       it comes `delay_ms` later, other streams overtake     duplicate  it comes twice
    reorder     it changes places with the next one of its stream     garbage    unreadable text comes before it
    silence     as drop, named for whole streams; replies still come  half_open  the socket stays open and is dead for good
    disconnect  sockets are cut, and while active none is accepted    status     REST (or a handshake) is answered with a status
    notice      the venue announces to every open socket, once, that it will close it: OKX only
    restart     the venue's service begins anew: every book that is followed, with a snapshot whose `u` is 1: Bybit only

`stream` is a shell pattern over stream names or REST paths, `socket` a route; None matches all sockets. REST is meant only by
`socket` "rest", or by `status` without a socket: there drop and silence never answer, disconnect cuts, delay and garbage are the
same. A fault ends after `count` applications or `seconds`, whichever comes first; without both it stays until deleted.
`probability` thins it out. `disconnect` of sockets without both acts once, on all that are open.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np

from mpengine.simulator.draws import Draws

KINDS: Final = frozenset(
    {
        "drop", "delay", "half_open", "garbage", "gap", "duplicate", "reorder", "status", "silence", "disconnect", "notice",
        "restart",
    }
)  # fmt: skip
STATUSES: Final = frozenset({400, 401, 403, 404, 408, 418, 429, 451, 500, 502, 503})
REST: Final = "rest"
KEYS: Final = frozenset(
    {
        "venue", "fault", "stream", "socket", "count", "seconds", "probability", "status", "retry_after", "text", "delay_ms",
        "variant",
    }
)  # fmt: skip
HUGE_BYTES: Final = 2 << 20
DEEP: Final = 5000

Pieces = list[tuple[float, bytes]]
"""(delay in seconds, text) of what is to be sent in place of one message."""


@dataclass(slots=True, eq=False)
class Fault:
    """One active rule. `left`: applications to go, `until_ns`: monotonic end; None: no such end.

    `text`: body of the replies of a `status`; None: the server's own.
    """

    number: int
    venue: str
    kind: str
    stream: str | None
    socket: str | None
    left: int | None
    until_ns: int | None
    probability: float
    status: int
    retry_after_s: int | None
    delay_s: float
    variant: str | None
    text: str | None = None
    applied: int = 0

    def describe(self, now_ns: int) -> dict[str, Any]:
        """What `GET /control/faults` says of it."""
        return {
            "id": self.number,
            "venue": self.venue,
            "fault": self.kind,
            "stream": self.stream,
            "socket": self.socket,
            "applied": self.applied,
            "count_left": self.left,
            "seconds_left": None if self.until_ns is None else max(0.0, (self.until_ns - now_ns) / 1e9),
            "probability": self.probability,
            "active": self.is_active(now_ns),
        }

    def is_active(self, now_ns: int) -> bool:
        return (self.left is None or self.left > 0) and (self.until_ns is None or now_ns < self.until_ns)

    def concerns(self, venue: str, socket: str, stream: str | None) -> bool:
        """Whether it is about this place. `stream` None: about a socket as such."""
        if venue != self.venue:
            return False
        if self.socket is None:
            if socket == REST and self.kind != "status":
                return False
        elif self.socket != socket:
            return False
        return self.stream is None or (stream is not None and fnmatchcase(stream, self.stream))


class FaultTable:
    """All faults, newest last; ended ones stay listed until deleted. Times are monotonic ns, handed in."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._draws = Draws(rng)
        self._faults: dict[int, Fault] = {}
        self._number = 0
        self._held: dict[tuple[int, str], tuple[int, bytes]] = {}

    @property
    def idle(self) -> bool:
        """Nothing to ask about: the server skips the table."""
        return not self._faults

    def add(self, values: Mapping[str, Any], now_ns: int, venues: frozenset[str]) -> Fault:
        """A fault from the body of POST /control/faults. Raises ValueError saying what is wrong."""
        if unknown := sorted(set(values) - KEYS):
            raise ValueError(f"unknown key {unknown[0]}")
        venue, kind = values.get("venue", "binance"), values.get("fault")
        if venue not in venues:
            raise ValueError(f"venue must be one of {', '.join(sorted(venues))}")
        if kind not in KINDS:
            raise ValueError(f"fault must be one of {', '.join(sorted(KINDS))}")
        stream, socket, variant = (_text(values, name) for name in ("stream", "socket", "variant"))
        if variant is not None and variant not in GARBAGE:
            raise ValueError(f"variant must be one of {', '.join(GARBAGE)}")
        count, seconds = _number(values, "count", 1, 1e9), _number(values, "seconds", 0.001, 86_400)
        retry_after = _number(values, "retry_after", 0, 1e6)
        status = int(_number(values, "status", 400, 599) or 0)
        if kind == "status" and status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(map(str, sorted(STATUSES)))}")
        self._number += 1
        fault = Fault(
            self._number, venue, kind, stream, socket,
            None if count is None else int(count),
            None if seconds is None else now_ns + int(seconds * 1e9),
            _number(values, "probability", 0, 1) if "probability" in values else 1.0,
            status,
            None if retry_after is None else int(retry_after),
            (_number(values, "delay_ms", 0, 600_000) or 0.0) / 1000.0,
            variant,
            _text(values, "text"),
        )  # fmt: skip
        self._faults[fault.number] = fault
        return fault

    def remove(self, number: int | None) -> int:
        """Delete one fault, or all (None). Returns how many there were. Messages held back by them come with the next one."""
        numbers = list(self._faults) if number is None else [number] if number in self._faults else []
        for one in numbers:
            del self._faults[one]
        return len(numbers)

    def listing(self, now_ns: int) -> list[dict[str, Any]]:
        """All faults with what they have done so far."""
        return [fault.describe(now_ns) for fault in self._faults.values()]

    def lost_for_all(self, venue: str, socket: str, stream: str, now_ns: int) -> bool:
        """Whether a message is kept from every socket (gap). Asked once per published message."""
        return self._first(("gap",), venue, socket, stream, now_ns) is not None

    def on_message(self, venue: str, socket: str, stream: str, text: bytes, key: int, now_ns: int) -> Pieces:
        """What one socket (`key`) gets instead of a message."""
        if self._first(("drop", "silence"), venue, socket, stream, now_ns):
            return []
        pieces: Pieces = [(0.0, text)]
        if held := self._held.pop((key, stream), None):
            pieces.append((0.0, held[1]))
        elif fault := self._first(("reorder",), venue, socket, stream, now_ns):
            self._held[key, stream] = fault.number, text
            return []
        if self._first(("duplicate",), venue, socket, stream, now_ns):
            pieces.append((0.0, text))
        if fault := self._first(("garbage",), venue, socket, stream, now_ns):
            pieces.insert(0, (0.0, garbage(text, fault.variant, fault.applied)))
        if fault := self._first(("delay",), venue, socket, stream, now_ns):
            pieces = [(fault.delay_s, piece) for _, piece in pieces]
        return pieces

    def on_socket(self, venue: str, socket: str, now_ns: int) -> Fault | None:
        """The fault of a socket that opens: half_open, disconnect or status."""
        return self._first(("status", "disconnect", "half_open"), venue, socket, None, now_ns, handshake=True)

    def on_rest(self, venue: str, path: str, now_ns: int) -> list[Fault]:
        """The faults of a REST request, each counted: at most one of drop/silence/disconnect/status, and a delay, and garbage."""
        groups = (("delay",), ("drop", "silence", "disconnect", "status"), ("garbage",))
        return [fault for kinds in groups if (fault := self._first(kinds, venue, REST, path, now_ns))]

    def spend(self, fault: Fault) -> None:
        """Count one application that the server made by itself (an open socket cut or muted)."""
        fault.applied += 1
        if fault.left is not None:
            fault.left -= 1

    def forget(self, key: int) -> None:
        """A socket is gone: what was held back for it goes too."""
        for place in [place for place in self._held if place[0] == key]:
            del self._held[place]

    def _first(
        self, kinds: tuple[str, ...], venue: str, socket: str, stream: str | None, now_ns: int, *, handshake: bool = False
    ) -> Fault | None:
        for fault in self._faults.values():
            if fault.kind not in kinds or not fault.is_active(now_ns) or not fault.concerns(venue, socket, stream):
                continue
            # A status without a socket is about REST; handshakes are refused only where their route is named.
            if handshake and fault.kind == "status" and fault.socket is None:
                continue
            if fault.probability < 1.0 and self._draws.uniform() >= fault.probability:
                continue
            self.spend(fault)
            return fault
        return None


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and (not isinstance(value, str) or not value or len(value) > 200):
        raise ValueError(f"{name} must be a text of 1 to 200 characters or null")
    return value


def _number(values: Mapping[str, Any], name: str, low: float, high: float) -> Any:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}")
    return value


_FIRST_NUMBER: Final = re.compile(rb'"-?\d[\d.]*"')
_SYMBOL: Final = re.compile(rb'"(s|symbol|instId|coin)":"[^"]*"')

GARBAGE: Final = ("truncated", "not_json", "nan", "negative", "wrong_types", "deep", "wrong_symbol", "binary", "empty", "huge")


def garbage(text: bytes, variant: str | None, turn: int) -> bytes:
    """A bad version of a message. `variant` None: they take turns. All are UTF-8 but "binary" (a text frame that is none)."""
    match variant or GARBAGE[turn % len(GARBAGE)]:
        case "truncated":
            return text[: len(text) * 2 // 3]
        case "not_json":
            return b"<html><body>502 Bad Gateway</body></html>"
        case "nan":
            return _FIRST_NUMBER.sub(b'"NaN"', text)
        case "negative":
            return _FIRST_NUMBER.sub(lambda match: b'"-' + match[0].lstrip(b'"-'), text)
        case "wrong_types":
            return _FIRST_NUMBER.sub(b"[null]", text)
        case "deep":
            return b'{"stream":"x","data":' + b"[" * DEEP + b"]" * DEEP + b"}"
        case "wrong_symbol":
            return _SYMBOL.sub(rb'"\1":"NOSUCHUSDT"', text)
        case "binary":
            return b"\xff\xfe\x00" + text[:100]
        case "empty":
            return b""
        case _:
            return b'{"stream":"x","data":"' + b"x" * HUGE_BYTES + b'"}'
