"""Recorded captures as something to serve: lines in one monotone order, stamped or verbatim, and what a capture needs from clients.

Rules: lines keep the order of the files; several files follow each other. A line's number counts all lines of all files from 1.
Receive times that step back (a recorder's clock) are raised to the newest before them, so that (recv_ns, line) always ascends.
A message goes out with its recorded name and text. Binance: to whoever subscribed to its symbol and stream family on the family's
route (`btcusdt@depth@100ms` gets a recorded `btcusdt@depth@0ms`). Bybit: to whoever subscribed to its very topic.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from mpengine.ingest.capture_file import CaptureError, CaptureLine
from mpengine.ingest.foreign import open_capture
from mpengine.simulator.binance_wire import BinanceSessions, parse_stream
from mpengine.simulator.bybit_wire import ROUTE, parse_topic
from mpengine.simulator.wire import Listeners, Message, Session

CLOCK_STREAM: Final = "!clock"
SCAN_LINES: Final = 50_000
"""Lines looked at to learn which routes a capture needs: the busiest venues name all their streams within seconds."""

_STREAM: Final = b'{"stream":"'
_DATA: Final = b'"data":'
_TOPIC: Final = b'{"topic":"'

log = logging.getLogger("mpengine.simulator")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line with its place: `recv_ns` ascending over all files, `number` from 1."""

    recv_ns: int
    number: int
    line: CaptureLine


def read(paths: Iterable[Path]) -> Iterator[Recorded]:
    """All lines of the files. Ends early, with an error in the log, where a file turns out to be damaged.

    Raises NotACapture and OSError for a file that cannot be used at all, when it is its turn.
    """
    newest, number = 0, 0
    for path in paths:
        lines = open_capture(path)
        try:
            for line in lines:
                number += 1
                newest = max(newest, line.recv_ns)
                yield Recorded(newest, number, line)
        except CaptureError as error:
            log.error("capture ends at line %d: %s", number, error)
            return


def stream_of(payload: bytes) -> str | None:
    """Stream name of a recorded combined message of Binance; None for replies to subscriptions and probes."""
    return _name_after(_STREAM, payload)


def topic_of(payload: bytes) -> str | None:
    """Topic of a recorded message of Bybit; None for acknowledgements and pongs."""
    return _name_after(_TOPIC, payload)


def _name_after(head: bytes, payload: bytes) -> str | None:
    if not payload.startswith(head):
        return None
    end = payload.find(b'"', len(head))
    return payload[len(head) : end].decode("utf-8", "replace") if end > 0 else None


def family_key(route: str, stream: str) -> str | None:
    """Whose messages a subscription or a recorded message belongs to: route, symbol, family; the speed does not matter."""
    name = parse_stream(stream)
    return f"{route}/{name.symbol}@{name.family}" if name is not None and name.route == route else None


def topic_key(session: Session, topic: str) -> str | None:
    """The same for Bybit."""
    return f"{session.route}/{topic}"


def message_of(recorded: Recorded, *, stamps: bool) -> tuple[str, Message] | None:
    """(key, message) of a recorded socket message; None for lines that are not served."""
    read_one = _READERS.get(recorded.line.venue)
    return read_one(recorded, stamps) if read_one is not None and recorded.line.direction == "in" else None


def _binance_message(recorded: Recorded, stamps: bool) -> tuple[str, Message] | None:
    payload = recorded.line.payload
    stream = stream_of(payload)
    name = parse_stream(stream) if stream is not None else None
    if stream is None or name is None:
        return None
    at = payload.find(_DATA)
    if at < 0:
        return None
    text = payload
    if stamps:
        text = b'%b"recv_ns":%d,"line":%d,%b' % (payload[:at], recorded.recv_ns, recorded.number, payload[at:])
    data = payload[at + len(_DATA) : payload.rfind(b"}")].decode("utf-8", "replace")
    return f"{name.route}/{name.symbol}@{name.family}", Message(stream, data, text)


def _bybit_message(recorded: Recorded, stamps: bool) -> tuple[str, Message] | None:
    payload = recorded.line.payload
    topic = topic_of(payload)
    if topic is None or parse_topic(topic) is None:
        return None
    text = b'{"recv_ns":%d,"line":%d,%b' % (recorded.recv_ns, recorded.number, payload[1:]) if stamps else payload
    return f"{ROUTE}/{topic}", Message(topic, text.decode("utf-8", "replace"))


_READERS: Final[Mapping[str, Callable[[Recorded, bool], tuple[str, Message] | None]]] = {
    "binance": _binance_message,
    "bybit": _bybit_message,
}
"""Venue -> how its messages are read. Lines of others are passed over."""


def clock(recv_ns: int, number: int, *, end: bool = False) -> bytes:
    """The stamp of silence: nothing at or before (recv_ns, line) is still to come on this socket."""
    tail = b',"end":true}' if end else b"}"
    return b'{"stream":"%b","recv_ns":%d,"line":%d%b' % (CLOCK_STREAM.encode(), recv_ns, number, tail)


@dataclass(frozen=True, slots=True)
class Contents:
    """What the beginning of a capture says about the whole. `routes`: per venue; `first_ns`: receive time of the first line.

    `venues`: all that can be served and have any line, also those that say nothing on a route.
    """

    routes: dict[str, frozenset[str]]
    first_ns: int
    venues: frozenset[str]


def contents(paths: Iterable[Path]) -> Contents:
    """Raises NotACapture or OSError for unusable files, ValueError for a capture without any message that could be served."""
    routes: dict[str, set[str]] = {}
    venues: set[str] = set()
    first_ns = 0
    for recorded in islice(read(paths), SCAN_LINES):
        first_ns = first_ns or recorded.recv_ns
        venues.add(recorded.line.venue)
        found = message_of(recorded, stamps=False)
        if found is not None:
            routes.setdefault(recorded.line.venue, set()).add(found[0].partition("/")[0])
    if not routes:
        raise ValueError("the capture holds no messages of a known stream")
    served = frozenset(venues & _READERS.keys())
    return Contents({venue: frozenset(names) for venue, names in routes.items()}, first_ns, served)


def capture_sessions() -> BinanceSessions:
    """Binance's socket protocol over a capture: subscriptions match by symbol and family."""

    def key(session: Session, stream: str) -> str | None:
        return family_key(session.route, stream)

    return BinanceSessions(Listeners(key))
