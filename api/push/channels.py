"""Channels: each follows one source and has its newest messages ready (`spec: api`, section 13). Used by the loop's thread.

    columns     one message per frame; the last 240 are kept, older ones of the ring are read when somebody resumes there
    events      one message from where a client stands to the newest record
    states      the newest version of a document; zones know what changed since the version before

A client is a position in a channel; the backlog is the ring itself, so a worker can go on where another one stopped.
"""

from __future__ import annotations

import asyncio
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from api.bodies import dumps
from api.coverage import flag_names
from api.documents import Published
from api.liquidations import Filter, Kept, LiquidationRows, Page, page
from api.push.messages import Message, column_json
from api.resources.liquidations import items
from api.resources.zones import zone_json
from api.sources import RingHandle
from mpengine.cells import u8log
from mpengine.schemas import ZoneRow, ZonesDocument
from mpengine.wire_formats import CellType, ColumnFlag, ColumnHeader, ColumnKind
from shm.frame_ring import FrameReader
from shm.frames import Frame, decode
from shm.grid import price_of
from shm.records import FrameKind
from shm.slots import Slot

if TYPE_CHECKING:
    from api.push.client import Subscription

KEPT_COLUMNS: Final = 240
KEPT_EVENTS: Final = 1000
SNAPSHOT_EVENTS: Final = 50
CHUNK: Final = 16  # frames read before the loop gets its turn: about 2 ms
EVENT_FORMS: Final = 16
SIDES: Final = 2
HEAD_BYTES: Final = 400  # of a column as JSON, about; its cells follow as base64
NEVER_MS: Final = 2**62
NS_PER_MS: Final = 1_000_000

Position = tuple[int, int]
"""(epoch, number) of the last message that a client has."""

VOID: Final[Position] = (0, 0)
"""A position in no life of a channel: epochs begin at 1."""


class Step(NamedTuple):
    """What a client gets next. `reset`: it stands in another life of the channel; `gap`: (after, to, reason) of numbers that it
    will not get; `skipped`: how many of them were left out because it is slow."""

    message: Message
    snapshot: bool
    reset: bool = False
    gap: tuple[int, int, str] | None = None
    skipped: int = 0


class Channel(ABC):
    """One channel of a worker. `number`: its place in the list of all channels, which binary messages carry."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.subscribers: dict[Subscription, None] = {}

    @abstractmethod
    def refresh(self) -> bool:
        """Look at the source; True where there is something that was not there before."""

    @property
    @abstractmethod
    def head(self) -> Position | None:
        """The newest number; None before the first one."""

    @abstractmethod
    def next(self, position: Position | None, *, newest: bool) -> Step | None:
        """What comes behind `position` (None: a snapshot); None if nothing. `newest`: leave out what is between."""

    async def resume(self, position: Position) -> Position | None:
        """Where a client goes on that stands at `position`; None: at a snapshot. Reads what it needs in small pieces."""
        return position

    def waiting(self, position: Position) -> int:
        """Bytes of messages behind `position`, about; 0 where only the newest is ever sent."""
        return 0


class ColumnChannel(Channel):
    """Frames of a ring as columns."""

    def __init__(self, name: str, number: int, handle: RingHandle[FrameReader], kind: ColumnKind, stale_after_ms: int) -> None:
        super().__init__(name, number)
        self._handle = handle
        self._kind = kind
        self._stale_after_ms = stale_after_ms
        self._file = (0, 0)
        self._bytes = 0
        self._log: deque[Message] = deque(maxlen=KEPT_COLUMNS)

    @property
    def head(self) -> Position | None:
        return self._log[-1].identity if self._log else None

    def refresh(self) -> bool:
        reader = self._handle.reader
        if reader is None:
            return False
        head, before = reader.head(), self.head
        # PERF: the usual look finds nothing: two words.
        if before is not None and head == before[1] + 1 and (reader.uuid, reader.epoch()) == self._file:
            return False
        found = self._newer(reader, head)
        self._file = (reader.uuid, reader.epoch())
        for message in found:
            if (last := self.head) is not None and (message.epoch != last[0] or message.seq <= last[1]):
                self._log.clear()  # another life of the ring: what was before cannot be continued
            self._log.append(message)
        return self.head != before

    def _newer(self, reader: FrameReader, head: int) -> list[Message]:
        """Messages of frames behind the newest one that is known; only the newest where the file is another one."""
        known = self._log[-1] if self._log else None
        first, unfollowed = head - 1, False
        if known is not None and reader.uuid == self._file[0] and known.seq < head:
            first = max(known.seq + 1, head - KEPT_COLUMNS)
            unfollowed = not self.subscribers and head - first > CHUNK
            first = head - 1 if unfollowed else first  # who comes now with a position has the rest read piece by piece
        messages: list[Message] = []
        for number in range(max(0, first), head):
            made = self._read(reader, number, messages[-1] if messages else known)
            if made is not None and (known is None or made.identity != known.identity):
                messages.append(made)
        if unfollowed and messages:
            self._log.clear()
        return messages if messages or known is not None else self._newest_readable(reader, head - 1)

    def _newest_readable(self, reader: FrameReader, stop: int) -> list[Message]:
        """Where the newest frame cannot be read, there may still be one before it: whoever comes now gets that."""
        for number in range(stop - 1, max(-1, stop - 1 - CHUNK), -1):
            if (message := self._read(reader, number, None)) is not None:
                return [message]
        return []

    def _read(self, reader: FrameReader, number: int, before: Message | None) -> Message | None:
        slot = reader.read(number)
        return None if slot is None else self._message(slot, _begins_a_life(reader, slot, before))

    def _message(self, slot: Slot, restarted: bool) -> Message | None:
        try:
            frame = decode(slot.payload)
        except ValueError:
            return None  # of a schema that this version does not know
        identity = (slot.epoch, slot.frame_no)
        names = [*flag_names(frame.coverage), *(["restart"] if restarted else [])]
        flags = ColumnFlag.RESTART if restarted else ColumnFlag(0)
        header, planes = column_of(frame, self._kind, identity, flags)
        self._bytes = HEAD_BYTES + SIDES * frame.count * 4 // 3
        origin_ns = frame.open_ts_ns if self._kind is ColumnKind.DEPTH else frame.close_ts_ns
        return Message(
            self.name, identity, slot.frame_no - 1, ts_ms=slot.published_ns // NS_PER_MS,
            stale_after_ms=origin_ns // NS_PER_MS + self._stale_after_ms, column=(header, planes),
            delta=lambda: column_json(header, planes, names),
        )  # fmt: skip

    def next(self, position: Position | None, *, newest: bool) -> Step | None:
        if not self._log:
            return None
        last = self._log[-1]
        if position is None:
            return Step(last, snapshot=True)
        epoch, seq = position
        if epoch != last.epoch or seq > last.seq or last.seq - seq > KEPT_COLUMNS:
            return Step(last, snapshot=True, reset=True)
        if seq == last.seq:
            return None
        message = last if newest else self._after(seq)
        if message.prev == seq:
            return Step(message, snapshot=False)
        left_out = sum(one.seq > seq for one in self._log) - 1 if message is last and newest else 0
        return Step(message, snapshot=False, gap=(seq, message.prev, "slow" if left_out else "lost"), skipped=left_out)

    def _after(self, seq: int) -> Message:
        # Numbers have hardly any holes, so the place is known to within a few.
        at = max(0, len(self._log) - 1 - (self._log[-1].seq - seq))
        while self._log[at].seq <= seq:
            at += 1
        return self._log[at]

    def waiting(self, position: Position) -> int:
        last = self._log[-1] if self._log else None
        return 0 if last is None or last.epoch != position[0] else (last.seq - position[1]) * self._bytes

    async def resume(self, position: Position) -> Position | None:
        epoch, seq = position
        while self._log and self._log[-1].epoch == epoch and 0 < self._log[-1].seq - seq <= KEPT_COLUMNS:
            first = self._log[0].seq
            older = self._older(max(seq + 1, first - CHUNK), first)
            if not older:
                break  # all there, or overwritten: what is left out becomes a gap
            self._log.extendleft(reversed(older))
            await asyncio.sleep(0)
        return position

    def _older(self, start: int, stop: int) -> list[Message]:
        """Messages of frames `start` .. `stop` - 1, as many as the log has room for."""
        reader, epoch = self._handle.reader, self._log[-1].epoch
        numbers = range(max(start, stop - KEPT_COLUMNS + len(self._log)), stop)
        found: list[Message] = []
        if reader is None:
            return found
        for number in numbers:
            message = self._read(reader, number, found[-1] if found else None)
            if message is not None and message.epoch == epoch:
                found.append(message)
        return found


def _begins_a_life(reader: FrameReader, slot: Slot, before: Message | None) -> bool:
    """Whether a frame is the first one of its epoch. `before`: the last one that is known before it, perhaps a long time ago."""
    if before is None or before.seq != slot.frame_no - 1:
        earlier = reader.read(slot.frame_no - 1)
        if earlier is not None:
            return earlier.epoch != slot.epoch
    return before is not None and before.epoch != slot.epoch


def column_of(frame: Frame, kind: ColumnKind, identity: Position, flags: ColumnFlag) -> tuple[ColumnHeader, tuple[Any, Any]]:
    """Header and both planes of a frame as u8log: bid and ask, or long and short (tape and projected together)."""
    usd = frame.planes if frame.kind is FrameKind.DEPTH else frame.planes[:2] + frame.planes[2:]
    cells = u8log(usd)
    header = ColumnHeader(
        kind=kind, cell=CellType.U8LOG, channel=0, flags=flags, rows=frame.count, epoch=identity[0], seq=identity[1], prev=0,
        t_ms=frame.open_ts_ns // NS_PER_MS, dt_ms=(frame.close_ts_ns - frame.open_ts_ns) // NS_PER_MS,
        price0=price_of(frame.origin, frame.step), step=frame.step, src=frame.reference,
    )  # fmt: skip
    return header, (np.ascontiguousarray(cells[0]), np.ascontiguousarray(cells[1]))


class EventChannel(Channel):
    """Realised liquidations, in batches as they come. `live`: whether any feed of them is LIVE."""

    def __init__(
        self, name: str, number: int, rows: LiquidationRows, stamp: Callable[[], Hashable], live: Callable[[], bool]
    ) -> None:
        super().__init__(name, number)
        self._rows = rows
        self._stamp_of = stamp
        self._live = live
        self._is_live = False
        self._stamp: Hashable = None
        self._kept: Kept | None = None
        self._made: dict[tuple[int, int, int, bool], Message] = {}

    @property
    def head(self) -> Position | None:
        kept = self._kept
        return None if kept is None or not len(kept.numbers) else (kept.epoch, int(kept.numbers[-1]))

    def refresh(self) -> bool:
        self._is_live = self._live()  # once for everybody; moves without an event
        stamp = self._stamp_of()
        if stamp == self._stamp:
            return False
        before, self._kept = self.head, self._rows.all()
        self._stamp = stamp  # not before it was read: what fails is tried again
        self._made.clear()
        return self.head != before

    def next(self, position: Position | None, *, newest: bool) -> Step | None:
        kept, head = self._kept, self.head
        if kept is None or head is None:
            return None
        epoch, last = head
        if position is None or position[0] != epoch or position[1] > last:
            return Step(self._newest(kept, SNAPSHOT_EVENTS), snapshot=True, reset=position is not None)
        seq = position[1]
        if seq == last:
            return None
        oldest, behind = int(kept.numbers[0]), int(np.count_nonzero(kept.numbers > seq))
        if behind > KEPT_EVENTS:
            message = self._newest(kept, KEPT_EVENTS)
            return Step(message, snapshot=False, gap=(seq, message.prev, "slow"), skipped=behind - KEPT_EVENTS)
        if oldest > seq + 1:
            return Step(self._from(kept, oldest - 1), snapshot=False, gap=(seq, oldest - 1, "lost"))
        return Step(self._from(kept, seq), snapshot=False)

    async def resume(self, position: Position) -> Position | None:
        """Where more is missing than may follow, or than there is, the place is void: it becomes a reset."""
        kept, head = self._kept, self.head
        if kept is None or head is None or head[0] != position[0]:
            return position
        gone = int(kept.numbers[0]) > position[1] + 1
        return VOID if gone or int(np.count_nonzero(kept.numbers > min(position[1], head[1]))) > KEPT_EVENTS else position

    def _newest(self, kept: Kept, count: int) -> Message:
        at = max(0, len(kept.numbers) - count)
        return self._from(kept, int(kept.numbers[at]) - 1)

    def _from(self, kept: Kept, after: int) -> Message:
        last = int(kept.numbers[-1])
        key = (kept.epoch, after, last, self._is_live)
        message = self._made.get(key)
        if message is None:
            if len(self._made) >= EVENT_FORMS:
                self._made.clear()
            found = page(kept, Filter(), KEPT_EVENTS, after=after)
            recv_ms = int(kept.records["recv_ts_ns"][-1]) // NS_PER_MS
            message = self._made[key] = Message(
                self.name, (kept.epoch, last), after, ts_ms=recv_ms, stale_after_ms=NEVER_MS if self._is_live else 0,
                delta=lambda: _event_json(found),
            )  # fmt: skip
        return message


def _event_json(found: Page) -> bytes:
    return dumps({"items": items(found)})


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a state. `stale_after_ms`: wall clock from which on it is stale; `content`: what its JSON is made of."""

    identity: Position
    ts_ms: int
    stale_after_ms: int
    content: Any


class StateChannel(Channel):
    """The newest version of something. `read`: the version there is now, `encode`: its `data`; `stamp`: changes with it."""

    def __init__(
        self,
        name: str,
        number: int,
        stamp: Callable[[], Hashable],
        read: Callable[[], Version | None],
        encode: Callable[[Any], bytes],
    ) -> None:
        super().__init__(name, number)
        self._stamp_of = stamp
        self._read = read
        self._encode = encode
        self._stamp: Hashable = None
        self._version: Version | None = None
        self._message: Message | None = None

    @property
    def head(self) -> Position | None:
        return None if self._message is None else self._message.identity

    def refresh(self) -> bool:
        stamp = self._stamp_of()
        if stamp == self._stamp:
            return False
        version = self._read()
        self._stamp = stamp  # not before it was read: what fails is tried again
        if version is None or version.identity == self.head:
            return False
        self._message, self._version = self._made(self._version, version), version
        return True

    def _made(self, before: Version | None, version: Version) -> Message:
        joined = before is not None and before.identity[0] == version.identity[0] and before.identity[1] < version.identity[1]
        prev = before.identity[1] if joined and before is not None else version.identity[1] - 1
        delta, snapshot = self._forms(before if joined else None, version)
        return Message(
            self.name, version.identity, prev, ts_ms=version.ts_ms, stale_after_ms=version.stale_after_ms, delta=delta,
            snapshot=snapshot,
        )  # fmt: skip

    def _forms(self, before: Version | None, version: Version) -> tuple[Callable[[], bytes], Callable[[], bytes]]:
        """Makers of the data as a delta and as a snapshot."""

        def whole() -> bytes:
            return self._encode(version.content)

        return whole, whole

    def next(self, position: Position | None, *, newest: bool) -> Step | None:
        message = self._message
        if message is None or position == message.identity:
            return None
        if position is None or position[0] != message.epoch or position[1] > message.seq:
            return Step(message, snapshot=True, reset=position is not None)
        if position[1] == message.prev:
            return Step(message, snapshot=False)
        # It did not get the version before: the whole value is all that it needs.
        return Step(message, snapshot=True, gap=(position[1], message.prev, "slow"), skipped=1)

    async def resume(self, position: Position) -> Position | None:
        """Another version than the newest is told as a whole."""
        head = self.head
        older = head is not None and head[0] == position[0] and head != position
        return None if older else position


class ZoneChannel(StateChannel):
    """Zones: all of them, then what changed."""

    def __init__(self, name: str, number: int, stamp: Callable[[], Hashable], read: Callable[[], Version | None]) -> None:
        super().__init__(name, number, stamp, read, zones_snapshot)

    def _forms(self, before: Version | None, version: Version) -> tuple[Callable[[], bytes], Callable[[], bytes]]:
        def delta() -> bytes:
            return zones_delta(None if before is None else before.content, version.content)

        def snapshot() -> bytes:
            return zones_snapshot(version.content)

        return delta, snapshot


def zones_version(found: Published[ZonesDocument] | None, stale_after_ms: int) -> Version | None:
    """A zones document as rows with what decides whether they are the same."""
    if found is None:
        return None
    document = found.content
    written_ms = document.written_ns // NS_PER_MS
    zones = {zone.id: (zone, document.written_ns) for zone in sorted(document.rows, key=lambda zone: zone.id)}
    return Version(found.identity, found.published_ns // NS_PER_MS, written_ms + stale_after_ms, zones)


Zones = dict[str, tuple[ZoneRow, int]]
"""Zones by id, ascending, each with the time of its document in ns."""


def zones_crc(zones: Zones) -> int:
    """CRC-32 of `id:weight%.4f;` over all zones by id."""
    return zlib.crc32("".join(f"{name}:{zone.weight:.4f};" for name, (zone, _) in zones.items()).encode("ascii"))


def zones_snapshot(zones: Zones) -> bytes:
    """`data` of a snapshot."""
    rows = [zone_json(zone, at_ns) for zone, at_ns in zones.values()]
    return dumps({"zones": rows, "count": len(zones), "crc32": zones_crc(zones)})


def zones_delta(before: Zones | None, zones: Zones) -> bytes:
    """`data` of a delta: zones that are new or not as they were, and ids that are gone."""
    known = before or {}
    changed = [zone_json(zone, at_ns) for name, (zone, at_ns) in zones.items() if name not in known or known[name][0] != zone]
    removed = [name for name in known if name not in zones]
    return dumps({"set": changed, "removed": removed, "count": len(zones), "crc32": zones_crc(zones)})
