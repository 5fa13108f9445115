"""All channels and clients of one worker: one look per ring of a doorbell, however many clients there are.

    doorbell or 250 ms -> refresh the channels that somebody follows -> mark the clients of those that changed -> flush them

Everything runs in the loop's thread; clients are flushed in portions, so that requests get their turn in between.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import orjson

from api.access import PUSH
from api.context import Context
from api.health import Health
from api.push.catalogue import KINDS, channels_of
from api.push.channels import Channel, Position
from api.push.client import Budget, Client, Connection
from api.push.socket import POLICY
from mpengine.keys import KeyRecord
from shm.doorbell import RECHECK_S, VARIABLE, Waiter, handed_down

PORTION: Final = 100  # clients flushed before the loop gets its turn: about 2 ms
PORTION_NS: Final = 5_000_000
BEAT_S: Final = 5.0
BEAT_TURNS: Final = 20  # in as many portions within this time, so that beats to thousands do not come at once
SWEEP_S: Final = 1.0
RECONNECT_MS: Final = (800, 5000)
SLOW: Final = 1013
RESTART: Final = 1012

log = logging.getLogger("api.push")


class Hub:
    """Channels by name, clients, and the turns of the loop that serve them. `counts`: for /metrics."""

    def __init__(self, context: Context, health: Health) -> None:
        api = context.settings.api
        self.context = context
        self.counts = context.meter.push
        self.channels: Mapping[str, Channel] = channels_of(context, health)
        self.budget = Budget(api.push_bytes_per_s, api.push_burst_bytes, api.push_queue_bytes, api.push_stall_s)
        self._clients: dict[Client, None] = {}
        self._beats: deque[tuple[float, Client]] = deque()  # when each client gets its next one
        self._marked: dict[Client, None] = {}
        self._draining = False
        self._leaving = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiter: Waiter | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._waiter = Waiter(handed_down(os.environ.get(VARIABLE, "")).values())
        self._loop.add_reader(self._waiter.fileno(), self._rung)
        self._every("look", RECHECK_S, self.look)
        self._every("beat", BEAT_S / BEAT_TURNS, self._beat)
        self._every("sweep", SWEEP_S, self._sweep)

    def stop(self) -> None:
        """Look no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._waiter is not None and self._loop is not None:
            self._loop.remove_reader(self._waiter.fileno())
            self._waiter.close()
            self._waiter = None

    def say_bye(self) -> None:
        """The worker is about to stop: everybody is told to come back, not all at the same moment."""
        if self._leaving:  # each connection of the worker asks for it
            return
        self._leaving = True
        for client in list(self._clients):
            self._say_bye_to(client)

    def _say_bye_to(self, client: Client) -> None:
        client.close("restart", RESTART, reconnect_in_ms=random.randint(*RECONNECT_MS))

    # --- clients ------------------------------------------------------------------------------------------------------

    def begin(self, connection: Connection, key: KeyRecord | None) -> Client:
        """A client has connected, with this key."""
        client = Client(self, connection, self.budget, asyncio.get_running_loop())
        client.key = key
        self._clients[client] = None
        self._beats.append((client.loop.time() + BEAT_S, client))
        self.counts.begin(connection.transport)
        if self._leaving:  # asked for on a connection that was open already: who stays would hold up the end
            self._say_bye_to(client)
        return client

    def end(self, client: Client) -> None:
        """Its connection is gone."""
        client.forget()
        del self._clients[client]
        self._marked.pop(client, None)
        self.counts.end(client.connection.transport, client.reason or "client")

    async def resumed(self, channel: Channel, position: Position | None) -> Position | None:
        """Where a client that stands at `position` goes on, None: at a snapshot. The channel is up to date then."""
        self.refresh((channel,))
        await asyncio.sleep(0)  # a thousand channels nobody has looked at for long are no reason to let the others wait
        if position is None or min(position) < 0:
            return None  # no number is below 0: as malformed as any other text
        return await channel.resume(position)

    def reason_against(self, name: str) -> str:
        """Code for a channel that there is not."""
        kind, _, symbol = name.partition(".")
        if kind not in KINDS:
            return "not_found"
        one = self.context.settings.symbols.get(symbol)
        return "invalid_symbol" if one is None else "no_orderbook"

    def __len__(self) -> int:
        return len(self._clients)

    # --- what clients ask of their owner ------------------------------------------------------------------------------

    def mark(self, client: Client) -> None:
        self._marked[client] = None
        if not self._draining and self._loop is not None:
            self._draining = True
            self._loop.call_soon(self._drain)

    def now_ms(self) -> int:
        return self.context.clock.wall_ms()

    def sent(self, count: int) -> None:
        self.counts.sent_bytes += count

    def conflated(self, count: int) -> None:
        self.counts.conflated += count

    # --- turns --------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Refresh what somebody follows, tell them."""
        self.refresh(channel for channel in self.channels.values() if channel.subscribers)

    def refresh(self, channels: Iterable[Channel]) -> None:
        """Look at these channels."""
        for channel in channels:
            try:
                changed = channel.refresh()
            except Exception:  # one source that cannot be read must not keep the others from their clients
                log.exception("%s cannot be refreshed", channel.name)
                continue
            if changed:
                for one in channel.subscribers:
                    one.client.notice(one)

    def _rung(self) -> None:
        if self._waiter is not None:
            self._waiter.drain()
        self.look()

    def _drain(self) -> None:
        """Flush a portion of the marked clients, then let the loop do something else."""
        until_ns = self.context.clock.monotonic_ns() + PORTION_NS
        for _ in range(min(PORTION, len(self._marked))):
            if self.context.clock.monotonic_ns() >= until_ns:
                break  # clients with much behind them: whatever their number, requests wait no longer than this
            client = next(iter(self._marked))
            del self._marked[client]
            try:
                client.flush()
            except Exception:  # a client that cannot be served goes; the others stay
                log.exception("a push client cannot be served")
                client.reason = client.reason or "error"
                client.connection.abort()
        self._draining = bool(self._marked)
        if self._draining and self._loop is not None:
            self._loop.call_soon(self._drain)

    def _beat(self) -> None:
        now_ms = self.now_ms()
        document = self.context.feeds.document()
        venues = {} if document is None else document.content.venues
        ages = {name: _age_s(one.last_ms, now_ms) for name, one in venues.items()}
        exchanges, now = orjson.dumps(ages), asyncio.get_running_loop().time()
        turns = -(-len(self._clients) // BEAT_TURNS)  # who came in the same moment is told in the same turn only once
        while turns and self._beats and self._beats[0][0] <= now:
            _, client = self._beats.popleft()
            if client in self._clients:
                self._beats.append((now + BEAT_S, client))
                client.beat(now_ms, exchanges)
                turns -= 1

    def _sweep(self) -> None:
        keys = self.context.access.keys
        for client in list(self._clients):
            if client.connection.paused and client.stalled():
                client.close("slow", SLOW)
            elif keys is not None and client.key is not None and not keys.holds(client.key, PUSH.scope):
                client.close("unauthorized", POLICY)

    def _every(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        """Call `work` again and again; what fails is logged, and called again."""
        loop = asyncio.get_running_loop()

        def turn() -> None:
            self._timers[name] = loop.call_later(seconds, turn)
            try:
                work()
            except Exception:
                log.exception("the turn %s of push failed", name)

        self._timers[name] = loop.call_later(seconds, turn)


def _age_s(time_ms: int | None, now_ms: int) -> float | None:
    return None if time_ms is None else round(max(0, now_ms - time_ms) / 1000, 1)
