"""Holds one socket plan open for ever: connect, read, probe, replace before the venue's time limit, reconnect with growing delays.

One `SocketKeeper` per plan; what happens to one of them touches no other. A connection is lost when the peer or the network ends
it, when a probe stays unanswered, or when the watchdog asks for it (`reopen`). A rotation opens the successor first and closes the
old connection only when the new one delivers what the old one does (make-before-break). Every try takes its turn at the venue's
gate.

What the venue module wants to say goes through one outbox per connection, in order, behind the texts of the plan: it is filled
after the opening, after each message and whenever `send_pending` is called (each clock interval).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from mpengine.config import IngestSettings
from mpengine.ingest.backoff import reconnect_delay_s, rotation_s
from mpengine.ingest.feeds import HANDSHAKES_REFUSED, REPLACED, RESUBSCRIBED, Feed, Life
from mpengine.ingest.intake import Intake
from mpengine.ingest.watchdog import Efforts, SocketWatch
from mpengine.venues.base import HANDSHAKE, RestResult, SocketPlan
from shm.board_words import Word

CLOSE_TIMEOUT_S: Final = 1.0
SEND_TIMEOUT_S: Final = 5.0
PING_INTERVAL_S: Final = 20.0
PING_TIMEOUT_S: Final = 20.0
READY_TIMEOUT_S: Final = 30.0
READY_LOOK_S: Final = 0.02
ROTATION_RETRY_S: Final = 60.0
FAIR_SHARE: Final = 64  # messages that one socket may hand in without letting the loop turn
TOO_BIG: Final = 1009
OUTBOX_TEXTS: Final = 1000  # more that waits to be sent is a peer that does not read
LONGEST_PAUSE_S: Final = 60.0  # a pause is looked at again after this, however long it is

log = logging.getLogger("mpengine.ingest.connection")


class Socket(Protocol):
    """What is needed of a websockets connection."""

    async def recv(self, decode: bool | None = None) -> str | bytes: ...
    async def send(self, message: str) -> None: ...
    async def close(self) -> None: ...


Dial = Callable[[str], Coroutine[Any, Any, Socket]]
"""Opens a socket to an address. Raises OSError, TimeoutError or a websockets exception."""


def dialler(settings: IngestSettings) -> Dial:
    """The real `Dial`: no compression, bounded messages, automatic pings."""
    contexts: list[ssl.SSLContext] = []

    async def dial(url: str) -> Socket:
        # PERF: loading the certificates takes tens of milliseconds of the loop: once, and only where they are needed.
        if url.startswith("wss:") and not contexts:
            contexts.append(ssl.create_default_context())
        return await connect(
            url,
            ssl=contexts[0] if contexts and url.startswith("wss:") else None,
            compression=None,
            max_size=settings.message_bytes,
            open_timeout=settings.connect_timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            proxy=None,
        )

    return dial


@dataclass(slots=True)
class _Open:
    """An open connection: its life and what moves it. `reader` ends when the connection does; its result is the reason."""

    life: Life
    socket: Socket
    reader: asyncio.Task[str] = field(init=False)
    prober: asyncio.Task[None] | None = None
    sender: asyncio.Task[None] | None = None
    reason: str | None = None
    outbox: deque[str] = field(default_factory=deque)
    filled: asyncio.Event = field(default_factory=asyncio.Event)


class SocketKeeper:
    """Keeps `plan` of a venue open while `run` runs. `rng` gives numbers of [0, 1)."""

    def __init__(
        self, feed: Feed, plan: SocketPlan, intake: Intake, settings: IngestSettings, dial: Dial, rng: Callable[[], float]
    ) -> None:
        self.feed = feed
        self.plan = plan
        self._intake = intake
        self._settings = settings
        self._dial = dial
        self._rng = rng
        self._number = 0
        self._attempt = 0
        self._efforts = Efforts(settings.watchdog_scale)
        self._current: _Open | None = None
        self._lives: dict[str, _Open] = {}
        self._rotate_now = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def life(self) -> Life | None:
        """The connection that serves now; None while there is none."""
        return self._current.life if self._current else None

    async def run(self) -> None:
        """Runs until cancelled; closes everything then."""
        try:
            while True:
                if not await self._admitted():
                    await asyncio.Event().wait()  # until a restart; what is said of it, the gate's refusal has said
                opened = await self._open()
                if opened is not None:
                    self._current = opened
                    await self._serve()
                delay_s = reconnect_delay_s(self._attempt, self._settings.reconnect_max_s, self._rng)
                self._attempt += 1
                await asyncio.sleep(delay_s)
        finally:
            await self._close_all()

    def reopen(self, reason: str) -> None:
        """End the current connection, so that a new one is opened; does nothing while there is none."""
        if self._current is not None:
            self._abort(self._current, reason)

    def rotate(self) -> None:
        """Replace the current connection as soon as a successor delivers."""
        self._rotate_now.set()

    def replace(self) -> None:
        """As `rotate`, because of a stream that is silent; does nothing while there is no connection."""
        if self._current is not None:
            self.feed.did(REPLACED)
            self.rotate()

    def send_pending(self) -> None:
        """Send what the venue module wants to say on the plan's connections, as soon as they take it."""
        for opened in list(self._lives.values()):
            self._fill(opened)

    def resubscribe(self, stream: str, *, must: bool = True) -> bool:
        """Take a stream anew on the plan's connections; False where none is open.

        Where the venue lets no more requests through, the connection is rotated instead: a new one brings the stream as well.
        Not so without `must`: then the stream is left as it is.
        """
        lives = list(self._lives.values())
        for opened in lives:
            if not self._intake.resubscribe(self.feed, opened.life, stream) and must:
                log.warning("%s %s: no request is left for %s: a new connection", self.feed.name, opened.life.name, stream)
                self.rotate()
            self._fill(opened)
        if lives:
            self.feed.did(RESUBSCRIBED)
        return bool(lives)

    # the venue's gate --------------------------------------------------------------------------------------------------

    async def _admitted(self) -> bool:
        """Wait for the turn to open a socket; False where the venue takes none from this address any more."""
        gate = self.feed.gate
        while True:
            while (pause_ns := gate.pause_ns(time.monotonic_ns())) != 0:
                if pause_ns is None:
                    return False
                await asyncio.sleep(min(LONGEST_PAUSE_S, pause_ns / 1e9))
            await asyncio.sleep(gate.turn_ns(time.monotonic_ns()) / 1e9)
            if gate.pause_ns(time.monotonic_ns()) == 0:
                return True

    def _note_refusal(self, name: str, error: InvalidStatus) -> None:
        """The venue answered the handshake with a status: what it means is the module's to say."""
        reply, feed, now_ns = error.response, self.feed, time.monotonic_ns()
        headers = {key.lower(): value for key, value in reply.headers.raw_items()}
        verdict = self._intake.judge(feed, HANDSHAKE, reply.status_code, headers, bytes(reply.body or b""))
        feed.did(HANDSHAKES_REFUSED)
        if verdict.result is RestResult.REFUSED:
            self._intake.absent(feed, self.plan)
        if verdict.result in (RestResult.BLOCKED, RestResult.BANNED):
            feed.policy.settle(HANDSHAKE, verdict, now_ns)  # both are about this address, whatever it asks for
        if feed.gate.refused(verdict, now_ns):
            log.error("%s %s: status %d: blocked, no socket before the next start", feed.name, name, reply.status_code)
        elif pause_ns := feed.gate.pause_ns(now_ns):
            level = logging.ERROR if verdict.result is RestResult.BANNED else logging.WARNING
            log.log(level, "%s: %s, no socket for %.0f s", feed.name, verdict.result.name, pause_ns / 1e9)

    # one connection ----------------------------------------------------------------------------------------------------

    async def _open(self) -> _Open | None:
        """A new connection, subscribed and read; None where it cannot be had, which is logged and counted."""
        self._number += 1
        name = f"{self.plan.name}#{self._number}"
        try:
            socket = await self._dial(self.plan.url)
        except InvalidStatus as error:
            self._note_refusal(name, error)
            self._note_failure(name, f"no connection: {_text(error)}", quiet=self.feed.gate.blocked)
            return None
        except (OSError, TimeoutError, WebSocketException, EOFError, ValueError) as error:
            self._note_failure(name, f"no connection: {_text(error)}")
            return None
        now_ns = time.monotonic_ns()
        life = Life(name, self.plan, now_ns, SocketWatch(self.plan, now_ns, self._settings.watchdog_scale, self._efforts))
        self._intake.opened(self.feed, life, time.time_ns())
        log.info("%s %s: open", self.feed.name, name)
        opened = _Open(life, socket)
        opened.reader = asyncio.create_task(self._read(opened), name=f"{self.feed.name}/{name}")
        self._lives[name] = opened
        if self.plan.probe is not None:
            opened.prober = asyncio.create_task(self._probe(opened, self.plan.probe), name=f"{self.feed.name}/{name}/probe")
        return opened

    async def _read(self, opened: _Open) -> str:
        """Subscribe, then hand in messages until the connection ends; the reason."""
        try:
            for text in self.plan.subscribe:
                await self._send(opened.life, opened.socket, text)
            name = f"{self.feed.name}/{opened.life.name}/outbox"
            opened.sender = asyncio.create_task(self._empty(opened), name=name)
            self._fill(opened)
            return await self._read_messages(opened)
        except ConnectionClosed as error:
            if error.sent is not None and error.sent.code == TOO_BIG:
                self.feed.bad_messages += 1
                return f"a message is longer than {self._settings.message_bytes} bytes"
            return f"closed: {_text(error)}"
        except (OSError, TimeoutError) as error:
            return f"broken: {_text(error)}"

    async def _read_messages(self, opened: _Open) -> str:
        intake, feed, life, socket = self._intake, self.feed, opened.life, opened.socket
        payload = await socket.recv(decode=False)
        self._attempt = 0
        count = 0
        while True:
            recv_ns = time.time_ns()
            intake.message(feed, life, payload if isinstance(payload, bytes) else payload.encode(), recv_ns)
            self._fill(opened)
            count += 1
            if count % FAIR_SHARE == 0:
                await asyncio.sleep(0)
            payload = await socket.recv(decode=False)

    async def _send(self, life: Life, socket: Socket, text: str) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await socket.send(text)
        self._intake.sent(self.feed, life, text)

    def _fill(self, opened: _Open) -> None:
        """Put what the venue module wants to say into the outbox."""
        texts = self._intake.texts(self.feed, opened.life)
        if not texts:
            return
        opened.outbox.extend(texts)
        opened.filled.set()
        if len(opened.outbox) > OUTBOX_TEXTS:
            self._abort(opened, f"{len(opened.outbox)} texts wait to be sent")

    async def _empty(self, opened: _Open) -> None:
        """Send what is in the outbox, until cancelled or until the connection does not take it."""
        try:
            while True:
                await opened.filled.wait()
                opened.filled.clear()
                while opened.outbox:
                    await self._send(opened.life, opened.socket, opened.outbox.popleft())
        except (OSError, TimeoutError, WebSocketException) as error:
            self._abort(opened, f"cannot send: {_text(error)}")

    async def _probe(self, opened: _Open, text: str) -> None:
        """Ask for a guaranteed reply again and again; without one the connection counts as dead."""
        module, name, plan = self.feed.module, opened.life.name, self.plan
        while True:
            await asyncio.sleep(plan.probe_interval_s)
            before = module.probe_reply(name)
            try:
                await self._send(opened.life, opened.socket, text)
            except (OSError, TimeoutError, WebSocketException) as error:
                self._abort(opened, f"cannot send a probe: {_text(error)}")
                return
            await asyncio.sleep(plan.probe_timeout_s)
            if module.probe_reply(name) == before:
                self._abort(opened, f"no answer to a probe within {plan.probe_timeout_s:g} s")
                return

    # its end -----------------------------------------------------------------------------------------------------------

    def _abort(self, opened: _Open, reason: str) -> None:
        if opened.reason is None:
            opened.reason = reason
            opened.reader.cancel()

    def _end(self, opened: _Open, *, replaced: bool, failed: bool) -> None:
        """A connection has ended or is given up: tell the venue module at once, close the socket beside.

        `replaced`: another one of the plan is live, so nothing is missing. `failed`: it was not our wish.
        """
        reason = opened.reason or (_reason_of(opened.reader) if opened.reader.done() else "replaced")
        self._lives.pop(opened.life.name, None)
        for task in (opened.reader, opened.prober, opened.sender):
            if task is not None:
                task.cancel()
        closing = asyncio.create_task(_close(opened))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._intake.lost(self.feed, opened.life, time.time_ns(), replaced=replaced, reason=reason)
        if failed:
            self._note_failure(opened.life.name, reason)
        else:
            log.info("%s %s: closed (%s)", self.feed.name, opened.life.name, reason)

    def _note_failure(self, name: str, reason: str, *, quiet: bool = False) -> None:
        self.feed.reconnects += 1
        self.feed.last_error = f"{name}: {reason}"
        self._intake.counts.add(Word.RECONNECTS)
        log.log(logging.INFO if quiet else logging.WARNING, "%s %s: %s", self.feed.name, name, reason)

    async def _close_all(self) -> None:
        if self._current is not None:
            current, self._current = self._current, None
            current.reason = current.reason or "stopping"
            self._end(current, replaced=False, failed=False)
        if self._closing:
            await asyncio.wait(self._closing, timeout=2 * CLOSE_TIMEOUT_S)

    # rotation ----------------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """From an open connection to the moment when the plan has none, over any number of rotations."""
        settings = self._settings
        wait_s = rotation_s(settings.rotate_after_s, settings.rotate_jitter_s, self._rng)
        while (current := self._current) is not None:
            if await self._wait_for_end(current, wait_s):
                self._current = None
                self._end(current, replaced=False, failed=True)
            elif await self._rotate(current):
                wait_s = rotation_s(settings.rotate_after_s, settings.rotate_jitter_s, self._rng)
            else:
                wait_s = min(ROTATION_RETRY_S, settings.rotate_after_s)

    async def _wait_for_end(self, current: _Open, wait_s: float) -> bool:
        """True when the connection has ended, False when its time is over or a rotation is asked for."""
        self._rotate_now.clear()
        asked = asyncio.create_task(self._rotate_now.wait())
        try:
            await asyncio.wait({current.reader, asked}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
        return current.reader.done()

    async def _rotate(self, old: _Open) -> bool:
        """Open the successor and hand over; False where it does not come or does not deliver, the old one then stays."""
        if not await self._admitted_while(old):
            return False
        new = await self._open()
        if new is None:
            return False
        try:
            ready = await self._wait_until_ready(new, old)
        except asyncio.CancelledError:
            self._end(new, replaced=True, failed=False)
            raise
        if new.reader.done() or not (ready or old.reader.done()):
            if not new.reader.done():
                new.reason = "rotation put off, the new connection does not deliver"
            self._end(new, replaced=True, failed=True)
            return False
        self._current = new
        self._end(old, replaced=ready, failed=not ready)
        return True

    async def _admitted_while(self, old: _Open) -> bool:
        """As `_admitted`, and False as soon as the old connection ends: that must not wait."""
        admitted = asyncio.create_task(self._admitted())
        try:
            await asyncio.wait({admitted, old.reader}, return_when=asyncio.FIRST_COMPLETED)
            return admitted.done() and admitted.result()
        finally:
            admitted.cancel()

    async def _wait_until_ready(self, new: _Open, old: _Open) -> bool:
        """True as soon as each fast stream has delivered on the new connection, where there is none, as soon as anything came;
        False when one of the two ends.

        A symbol that rests would put the rotation off until the venue ends the old connection, with a hole for all. So in time a
        successor is ready as well when it says something and lacks nothing that the old one delivered meanwhile.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        begun = self._delivered(old)
        while not (new.reader.done() or old.reader.done()):
            delivers = self._delivered(new)
            if new.life.seen_ns is not None and all(delivers.values()):
                return True
            if time.monotonic() >= deadline:
                lacking = [name for name, count in self._delivered(old).items() if count > begun[name] and not delivers[name]]
                return new.life.seen_ns is not None and not lacking
            await asyncio.wait({new.reader, old.reader}, timeout=READY_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        return False

    def _delivered(self, opened: _Open) -> dict[str, int]:
        """Messages of each fast stream on a connection."""
        stats = self.feed.module.stats(opened.life.name)
        return {one.name: stats[one.name].messages if one.name in stats else 0 for one in self.plan.streams if one.fast}


async def _close(opened: _Open) -> None:
    await asyncio.wait({opened.reader})
    try:
        async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
            await opened.socket.close()
    except (OSError, TimeoutError, WebSocketException) as error:
        log.debug("%s: close: %s", opened.life.name, _text(error))


def _reason_of(reader: asyncio.Task[str]) -> str:
    if reader.cancelled():
        return "stopped"
    error = reader.exception()
    if error is None:
        return reader.result()
    log.error("a reader failed", exc_info=error)
    return f"failed: {type(error).__name__}"


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
