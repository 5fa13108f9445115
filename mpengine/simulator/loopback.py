"""The whole way of the data in one process and without sockets: market, venue wires, venue modules, cores. Pure and at full speed.

What ingest does between a socket and a core is done here in its simplest form, on market time: subscribe, poll when a call is due,
answer resync requests at once, tick every 250 ms. For tests that need minutes of a market, and for benches that need messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np

from mpengine import venues
from mpengine.config import Settings
from mpengine.engine.core import Output, SymbolCore
from mpengine.simulator.market import Changes, Market, merged
from mpengine.simulator.symbols import specs
from mpengine.simulator.wire import Session, VenueWire
from mpengine.venues.base import RestCall, RestResult, SocketPlan, VenueModule
from shm.records import GapScope, Kind, pack_clock, pack_gap

CLOCK_NS: Final = 250_000_000
CLIENT: Final = "127.0.0.1"
_SNAPSHOT_WAIT_NS: Final = 300_000_000  # two diffs come before the snapshot, as ingest sees to it


@dataclass(slots=True)
class _Line:
    """One connection: what the venue and what the module call it."""

    plan: SocketPlan
    name: str
    session: Session


@dataclass(slots=True)
class VenueLink:
    """A module and the wire it talks to. `down`: cut off, nothing comes and no call is answered.

    `taken`: what arrived, (connection, text), and `replies`, (call, body), while `keep` is set.
    """

    module: VenueModule
    wire: VenueWire
    down: bool = False
    keep: bool = False
    taken: list[tuple[str, bytes]] = field(default_factory=list)
    replies: list[tuple[RestCall, bytes]] = field(default_factory=list)
    lines: dict[int, _Line] = field(default_factory=dict)
    polls: list[RestCall] = field(default_factory=list)
    due_ns: dict[tuple[str, str | None], int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    number: int = 0


class Loopback:
    """`settings` say symbols and venues; `wires`: one per enabled venue, over `market`. `outputs` collects what cores publish."""

    def __init__(
        self, settings: Settings, market: Market, wires: Iterable[VenueWire], modules: Iterable[VenueModule] | None = None,
        *, keep: bool = False,
    ) -> None:  # fmt: skip
        self.market = market
        by_name = {wire.name: wire for wire in wires}
        chosen = list(modules) if modules is not None else venues.build(settings)
        self.links = {module.venue.label: VenueLink(module, by_name[module.venue.label]) for module in chosen}
        self.cores = {symbol: SymbolCore(symbol, settings) for symbol in settings.symbols}
        self.outputs: dict[str, list[Output]] = {symbol: [] for symbol in settings.symbols}
        self._batches: dict[str, list[bytes]] = {symbol: [] for symbol in settings.symbols}
        self._tick_ns = market.now_ns
        self._untold: list[list[Changes]] = []
        self._trade_numbers: dict[str, int] = {}
        for link in self.links.values():
            link.keep = keep
            self._connect(link)

    @property
    def now_ns(self) -> int:
        """Market time, which is everybody's here."""
        return self.market.now_ns

    def run(self, seconds: float) -> None:
        """Let the market run this long."""
        for changes in self.market.step(self.market.now_ns + round(seconds * 1e9)):
            self._tell(changes)

    def run_coarsely(self, until_ns: int, stride_ns: int) -> None:
        """Let the market run to `until_ns` and tell of it once per stride: the books as they are then, all forced orders, the
        trades of a side as one. Ticks come once per stride too.

        What an hour costs is mostly what a message and a tick cost; the market's own steps are cheap. A stride that is not over
        at `until_ns` is told of by the next call.
        """
        for changes in self.market.step(until_ns):
            self._untold.append(changes)
            if self.now_ns % stride_ns == stride_ns - self.market.step_ns:
                # Not on the full stride: a message received at a minute's first moment is the new minute's.
                self._tick_ns = max(self._tick_ns, (self.now_ns // CLOCK_NS - 1) * CLOCK_NS)
                self._tell([self._merged(steps) for steps in zip(*self._untold, strict=True)])
                self._untold.clear()

    def _merged(self, steps: Sequence[Changes]) -> Changes:
        symbol = steps[0].symbol.spec.symbol
        first = next((trade.number for step in steps for trade in step.trades), 0)
        told = merged(steps, self._trade_numbers.get(symbol, first))
        if told.trades:
            self._trade_numbers[symbol] = told.trades[-1].number + 1  # ids of aggregates have no holes
        return told

    def _tell(self, changes: list[Changes]) -> None:
        for link in self.links.values():
            for message, sessions in link.wire.publish(changes):
                for session in sessions:
                    line = link.lines.get(id(session))
                    if line is not None and not link.down:
                        self._receive(link, line, message.text(session.combined))
            if not link.down:
                self._serve(link)
        self._pass_on()

    def cut(self, venue: str) -> None:
        """The venue is gone: its connections are lost, its calls fail."""
        link = self.links[venue]
        link.down = True
        for line in link.lines.values():
            link.wire.closed(line.session)
            link.module.lost(line.name, self.now_ns, replaced=False)
        link.lines.clear()
        self._drain(link)

    def restore(self, venue: str) -> None:
        """The venue is back."""
        link = self.links[venue]
        link.down = False
        self._connect(link)

    # connections -------------------------------------------------------------------------------------------------------

    def _connect(self, link: VenueLink) -> None:
        link.polls = link.module.polls()
        for plan in link.module.sockets():
            link.number += 1
            address = urlsplit(plan.url)
            path = unquote(address.path).removeprefix(f"/{link.wire.name}")
            session = link.wire.open(path, dict(parse_qsl(address.query)), self.now_ns)
            if session is None:
                raise ValueError(f"{link.wire.name} has no {path}")
            line = _Line(plan, f"{plan.name}#{link.number}", session)
            link.lines[id(session)] = line
            link.module.opened(line.name, self.now_ns)
            for text in plan.subscribe:
                self._say(link, line, text)

    def _say(self, link: VenueLink, line: _Line, text: str) -> None:
        link.wire.receive(line.session, text, self.now_ns)
        replies, line.session.outbox[:] = list(line.session.outbox), []
        for reply in replies:
            self._receive(link, line, reply.encode())

    def _receive(self, link: VenueLink, line: _Line, text: bytes) -> None:
        if link.keep:
            link.taken.append((line.name, text))
        link.module.receive(line.name, text, self.now_ns)
        self._drain(link)

    def _drain(self, link: VenueLink) -> None:
        for routed in link.module.events():
            if routed.symbol in self._batches:
                self._batches[routed.symbol].append(routed.data)

    def _serve(self, link: VenueLink) -> None:
        """Polls that are due, texts that wait, snapshots that engines asked for."""
        for call in link.polls:
            key = call.name, call.symbol
            if self.now_ns >= link.due_ns.get(key, 0):
                link.due_ns[key] = self.now_ns + round((call.interval_s or 0) * 1e9)
                self._call(link, call)
        for line in list(link.lines.values()):
            for text in link.module.data_to_send(line.name):
                self._say(link, line, text)
        for symbol in link.module.snapshots_overdue(self.now_ns):
            self._snapshot(link, symbol)
        for symbol, core in self.cores.items():
            book = core.books.get(link.module.venue)
            if book is not None and book.resync_asked != link.asked.get(symbol, 0):
                self._answer(link, symbol, book.resync_asked)

    def _answer(self, link: VenueLink, symbol: str, asked: int) -> None:
        if not link.module.wire_snapshots:
            core = self.cores[symbol]
            if core.data_since_ns is not None and self.now_ns - core.data_since_ns >= _SNAPSHOT_WAIT_NS:
                link.asked[symbol] = asked
                self._snapshot(link, symbol)
            return
        link.asked[symbol] = asked
        for line in link.lines.values():
            for stream in line.plan.streams:
                if stream.kind is Kind.DEPTH and stream.symbol == symbol:
                    link.module.resubscribe(line.name, stream.name, self.now_ns)

    def _snapshot(self, link: VenueLink, symbol: str) -> None:
        call = link.module.snapshot_call(symbol)
        if call is not None:
            self._call(link, call)

    def _call(self, link: VenueLink, call: RestCall) -> None:
        address = urlsplit(call.path)
        query: Mapping[str, str] = dict(parse_qsl(address.query))
        reply = link.wire.rest(address.path, query, CLIENT, self.now_ns, call.body or b"")
        headers = {name.lower(): value for name, value in reply.headers.items()}
        if link.module.judge(call, reply.status, headers, reply.body).result is RestResult.OK:
            if link.keep:
                link.replies.append((call, reply.body))
            link.module.receive_rest(call, reply.status, reply.body, self.now_ns)
            self._drain(link)

    # engines -----------------------------------------------------------------------------------------------------------

    def _pass_on(self) -> None:
        ticks = []
        while self._tick_ns + CLOCK_NS <= self.now_ns:
            self._tick_ns += CLOCK_NS
            ticks.append(pack_clock(self._tick_ns))
        for symbol, records in self._batches.items():
            core = self.cores[symbol]
            core.on_batch(b"".join([*records, *ticks]))
            records.clear()
            self.outputs[symbol] += core.outputs()

    def lose(self, venue: str, scope: GapScope, symbol: str) -> None:
        """A hole in what a venue told about a symbol."""
        self._batches[symbol].append(pack_gap(self.links[venue].module.venue, scope, self.now_ns))


def build(
    settings: Settings, seed: int, start_ns: int, modules: Iterable[VenueModule] | None = None, *, keep: bool = False
) -> Loopback:
    """The loopback of all enabled venues over one synthetic market. Raises ValueError for symbols that make no market."""
    from mpengine.simulator.process import wires_of  # here: the process module is a shell

    market_rng, foreign_rng = np.random.default_rng(seed).spawn(2)
    market = Market(specs(settings), market_rng, start_ns)
    return Loopback(settings, market, wires_of(market, foreign_rng), modules, keep=keep)
