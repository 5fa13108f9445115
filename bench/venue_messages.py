"""What a message of each kind costs in each venue's mapper, against parsing its JSON alone, in the same run. Part of `bench.wire`.

The messages come from the built-in exchange, as its wires write them; each venue's snapshot, instruments and acknowledgements are
given to a fresh mapper before the clock starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import orjson

from bench.common import Row
from mpengine import venues
from mpengine.config import DEMO_VENUES, Settings, load
from mpengine.simulator.loopback import Loopback, build
from mpengine.venues.base import RestCall, VenueModule
from shm.records import Kind, PositionSide

START_NS: Final = 1_790_000_000 * 10**9
KINDS: Final = {Kind.DEPTH: "depth", Kind.TRADE: "trade", Kind.LIQUIDATION: "liquidation"}
TRADES: Final = ("venues.bybit.trades=true", "venues.okx.trades=true")
RUN_S: Final = 40
QUICK_RUN_S: Final = 10

Message = tuple[str, bytes, int]
"""Connection, text, number in the order of arrival (its receive time)."""


def played(seconds: int) -> tuple[Settings, Loopback]:
    """A market of BTC that ran for `seconds`, driven up and down so that positions are closed by force."""
    settings = load("[symbols.BTC]\n", {}, [*DEMO_VENUES, *TRADES])
    loop = build(settings, 1, START_NS, keep=True)
    market = loop.market.symbols["BTC"]
    for second in range(seconds):
        if second % 10 == 5:
            market.force(PositionSide.LONG if second % 20 == 5 else PositionSide.SHORT, 3e6)
        loop.run(1)
    return settings, loop


def rows(quick: bool) -> list[Row]:
    """Rows {venue, message, count, bytes, us_message, us_orjson, vs_orjson, levels}."""
    settings, loop = played(QUICK_RUN_S if quick else RUN_S)
    found: list[Row] = []
    for name, link in loop.links.items():
        messages = [(connection, text, number) for number, (connection, text) in enumerate(link.taken)]
        by_kind = _by_kind(_fresh(settings, name), link.replies, messages)
        for kind, label in KINDS.items():
            group = by_kind.get(kind)
            if group:
                found.append(_measure(settings, name, label, link.replies, messages, group, 3 if quick else 7))
    return found


def _fresh(settings: Settings, venue: str) -> VenueModule:
    return next(module for module in venues.build(settings) if module.venue.label == venue)


def _prepare(module: VenueModule, replies: list[tuple[RestCall, bytes]], connections: set[str]) -> None:
    for connection in sorted(connections):
        module.opened(connection, START_NS)
    for call, body in replies:
        module.receive_rest(call, 200, body, START_NS)
    for connection in sorted(connections):
        module.data_to_send(connection)
    module.events()


def _by_kind(module: VenueModule, replies: list[tuple[RestCall, bytes]], messages: list[Message]) -> dict[Kind, list[Message]]:
    """Messages by the kind of their first record; SNAPSHOT has what a mapper needs before its diffs."""
    _prepare(module, replies, {connection for connection, _, _ in messages})
    found: dict[Kind, list[Message]] = {}
    for message in messages:
        connection, text, number = message
        module.receive(connection, text, START_NS + number)
        events = module.events()
        if events:
            found.setdefault(Kind(events[0].data[0]), []).append(message)
    if Kind.DEPTH not in found and Kind.SNAPSHOT in found:
        found[Kind.DEPTH] = found[Kind.SNAPSHOT]  # a venue whose every book message is a whole book
    return found


def _measure(
    settings: Settings, venue: str, label: str, replies: list[tuple[RestCall, bytes]], messages: list[Message],
    group: list[Message], rounds: int,
) -> Row:  # fmt: skip
    own = set(group)
    before = [message for message in messages if message not in own]
    spent = parsed = float("inf")
    events = 0
    for _ in range(rounds):
        module = _fresh(settings, venue)
        _prepare(module, replies, {connection for connection, _, _ in messages})
        for connection, text, number in _setup(before, group):
            module.receive(connection, text, START_NS + number)
        module.events()
        started = time.perf_counter()
        for connection, text, number in group:
            module.receive(connection, text, START_NS + number)
        spent = min(spent, time.perf_counter() - started)
        events = len(module.events())
        started = time.perf_counter()
        for _, text, _ in group:
            orjson.loads(text)
        parsed = min(parsed, time.perf_counter() - started)
    assert events >= len(group), f"{venue} {label}: {events} records of {len(group)} messages"
    count = len(group)
    return {
        "venue": venue,
        "message": label,
        "count": count,
        "bytes": round(sum(len(text) for _, text, _ in group) / count),
        "records": round(events / count, 2),
        "us_message": round(spent / count * 1e6, 2),
        "us_orjson": round(parsed / count * 1e6, 2),
        "vs_orjson": round(spent / parsed, 2),
    }


def _setup(before: list[Message], group: list[Message]) -> Iterator[Message]:
    """What came before the first message of the group: acknowledgements, instruments, the snapshot."""
    first = group[0][2]
    return (message for message in before if message[2] < first)
