"""One push client: where it stands in each channel, what it may still be sent, and what happens when it is slow.

Nothing is queued for a client: its backlog is the channel's. While its connection takes bytes and its budget lasts it gets every
message. When it had to wait for either and more lies behind it by then than may wait, it gets the newest and a gap for the rest.
All of this runs in the loop's thread, in callbacks: no task, and no wait, is a client's own.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, Final, Protocol

from api.push import messages
from api.push.channels import Channel, Position, Step
from api.push.messages import Frame
from mpengine.keys import KeyRecord

ROUND: Final = 64  # messages to one client before the others get their turn

log = logging.getLogger("api.push")


@dataclass(frozen=True, slots=True)
class Budget:
    """What one client may cost: bytes per second, burst, bytes that may wait, seconds without progress before it is closed."""

    bytes_per_s: float
    burst: int
    queue: int
    stall_s: float


class Connection(Protocol):
    """The way to a client. `paused`: its buffer is full; whoever feeds it is told by `Client.writable` when it is not."""

    transport: str

    @property
    def paused(self) -> bool: ...

    def send(self, kind: str, frame: Frame, client: Client) -> int:
        """Hand a message over, after which the client stands where its subscriptions say; bytes that it costs."""

    def end(self, code: int) -> None:
        """Close when the client has taken what was sent, or does not for a little longer."""

    def abort(self) -> None:
        """Close now."""


class Owner(Protocol):
    """Who a client belongs to."""

    def mark(self, client: Client) -> None:
        """There is something to send."""

    def now_ms(self) -> int:
        """Wall clock."""

    def sent(self, count: int) -> None:
        """Bytes were handed over."""

    def conflated(self, count: int) -> None:
        """Messages were left out."""


class Subscription:
    """A client in a channel. `position`: its last message, None before the first."""

    __slots__ = ("binary", "channel", "client", "position")

    def __init__(self, client: Client, channel: Channel, position: Position | None, *, binary: bool) -> None:
        self.client = client
        self.channel = channel
        self.position = position
        self.binary = binary


class Client:
    """A connection with its subscriptions, by channel in the order in which they came. `reason`: why it ends, once it does; `key`:
    with which it was let in, None where none is asked for."""

    __slots__ = (
        "_budget", "_due", "_stuck_since", "_timer", "_tokens", "_tokens_at", "_waited", "conflated", "connection", "key", "loop",
        "owner", "reason", "subscriptions",
    )  # fmt: skip

    def __init__(self, owner: Owner, connection: Connection, budget: Budget, loop: asyncio.AbstractEventLoop) -> None:
        self.owner = owner
        self.connection = connection
        self.loop = loop
        self.subscriptions: dict[str, Subscription] = {}
        self.conflated = 0
        self.key: KeyRecord | None = None
        self.reason: str | None = None
        self._budget = budget
        self._tokens = float(budget.burst)
        self._tokens_at = loop.time()
        self._due: dict[Subscription, None] = {}
        self._waited = False  # it could not be sent everything at once: what lies behind it may be too much by now
        self._stuck_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- subscriptions ------------------------------------------------------------------------------------------------

    def subscribe(self, channel: Channel, position: Position | None, *, binary: bool) -> None:
        """Begin, or begin again, at `position`; None: with a snapshot."""
        self.unsubscribe(channel.name)
        one = self.subscriptions[channel.name] = Subscription(self, channel, position, binary=binary)
        channel.subscribers[one] = None
        self.notice(one)

    def unsubscribe(self, name: str) -> bool:
        """End a subscription; whether there was one."""
        one = self.subscriptions.pop(name, None)
        if one is None:
            return False
        del one.channel.subscribers[one]
        self._due.pop(one, None)
        return True

    def notice(self, one: Subscription) -> None:
        """There is something new in its channel."""
        self._due[one] = None
        if self.reason is None:
            self.owner.mark(self)

    # --- sending ------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what is due, as far as connection and budget allow; the rest follows when they do."""
        if self.reason is not None:
            return
        sent = 0
        while self._due and self._may_send():
            if sent >= ROUND:
                self.owner.mark(self)
                return
            one = next(iter(self._due))
            made = self._made(one)
            if made is None:
                del self._due[one]
                continue
            self._send(one, *made)
            sent += 1
        self._waited = bool(self._due)

    def say(self, kind: str, frame: Frame) -> None:
        """Send a message that belongs to no channel: small, and never held back."""
        if self.reason is None:
            self._hand_over(kind, frame)

    def beat(self, now_ms: int, exchanges: bytes) -> None:
        """Tell that all is well. `exchanges`: JSON of their ages."""
        if self.connection.paused or self.reason is not None:
            return
        heads = [(one.channel.name, head) for one in self.subscriptions.values() if (head := one.channel.head) is not None]
        told = ",".join(f'"{name}":[{epoch},{seq}]' for name, (epoch, seq) in heads).encode("ascii")
        message = b'{"type":"beat","now_ms":%d,"heads":{%s},"exchanges":%s,"conflated":%d}'
        self.say("beat", Frame(message % (now_ms, told, exchanges, self.conflated)))

    def writable(self) -> None:
        """The connection takes bytes again."""
        self._stuck_since = None
        if self._due and self.reason is None:
            self.owner.mark(self)

    def stalled(self) -> bool:
        """Whether the connection has taken nothing for longer than it may. To be asked once a second."""
        if not self.connection.paused or not self._due:
            self._stuck_since = None
            return False
        now = self.loop.time()
        if self._stuck_since is None:
            self._stuck_since = now
        return now - self._stuck_since >= self._budget.stall_s

    # --- end ----------------------------------------------------------------------------------------------------------

    def close(self, reason: str, code: int, **more: Any) -> None:
        """Say `bye` with `more`, then close with `code`."""
        if self.reason is not None:
            return
        self.say("bye", messages.plain({"type": "bye", "reason": reason, **more}))
        self.reason = reason
        self.connection.end(code)

    def forget(self) -> None:
        """The connection is gone."""
        self.reason = self.reason or "client"
        for name in list(self.subscriptions):
            self.unsubscribe(name)
        if self._timer is not None:
            self._timer.cancel()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _made(self, one: Subscription) -> tuple[Step, Frame] | None:
        """What comes next in a channel, ready to be sent; None where nothing does."""
        try:
            step = one.channel.next(one.position, newest=self._waited and self._too_far(one))
            if step is None:
                return None
            message, now_ms, frame = step.message, self.owner.now_ms(), None
            if one.binary:
                gap = step.gap is not None
                frame = message.binary(number=one.channel.number, snapshot=step.snapshot, gap=gap, now_ms=now_ms)
            return step, frame or message.json(snapshot=step.snapshot, now_ms=now_ms)
        except Exception:  # a message that cannot be made is the loss of its channel, not of all that the client follows
            log.exception("%s: a message cannot be made", one.channel.name)
            return None

    def _send(self, one: Subscription, step: Step, frame: Frame) -> None:
        owner, channel, message = self.owner, one.channel, step.message
        now_ms = owner.now_ms()
        if step.reset:
            one.position = None
            self._hand_over("reset", messages.reset(channel.name, message.identity, now_ms))
        if step.gap is not None:
            after, to, reason = step.gap
            one.position = (message.epoch, to)
            self._hand_over("gap", messages.gap(channel.name, message.epoch, after, to, reason, now_ms))
        if left_out := step.skipped:
            self.conflated += left_out
            owner.conflated(left_out)
        one.position = message.identity
        self._hand_over("snapshot" if step.snapshot else "delta", frame)

    def _hand_over(self, kind: str, frame: Frame) -> None:
        count = self.connection.send(kind, frame, self)
        self._tokens -= count
        self.owner.sent(count)

    def _too_far(self, one: Subscription) -> bool:
        """Whether more lies behind the client than may wait for it."""
        return one.position is not None and one.channel.waiting(one.position) > self._budget.queue

    def _may_send(self) -> bool:
        if self.connection.paused:
            return False
        now = self.loop.time()
        self._tokens = min(float(self._budget.burst), self._tokens + (now - self._tokens_at) * self._budget.bytes_per_s)
        self._tokens_at = now
        if self._tokens > 0:
            return True
        if self._timer is None:
            self._timer = self.loop.call_later((1 - self._tokens) / self._budget.bytes_per_s, self._refilled)
        return False

    def _refilled(self) -> None:
        self._timer = None
        if self.reason is None:
            self.owner.mark(self)
