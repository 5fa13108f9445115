"""The push contract without a socket: messages in, steps out (`spec: api`, section 13). Pure.

    Session.receive(text or bytes) -> Deliver, Fetch, Resubscribe, Closing, Broken, Fatal

A session outlives connections: `begin` says that there is a new one, `subscriptions` or `resume` is what to tell it. It holds the
position of each channel and decides of each message whether it is the next one (accept), an old one (drop), one behind a gap
(fetch what is missing first) or the first of another epoch (reset). Nothing here waits, and bad input becomes a step, not an
exception.

Why positions are compared with `prev` and not with seq - 1: numbers of states rise by more than one, and batches of events have
the number of their last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from mpengine.client.columns import PROVISIONAL, Column, column_of_bytes, column_of_json
from mpengine.client.errors import ApiError, ClientError, ContractError, Refused
from mpengine.client.heal import ColumnHeal, EventHeal, Heal, MapKind
from mpengine.client.updates import (
    ColumnUpdate,
    EventsUpdate,
    Item,
    Lost,
    Position,
    Reset,
    StateUpdate,
    Update,
    Way,
    ZonesUpdate,
)
from mpengine.client.zones import ZoneTable
from mpengine.contract import Liquidation
from mpengine.contract import push as messages
from mpengine.wire_formats import ColumnFlag

Encoding = Literal["json", "bin"]

FRAME_BYTES: Final = 3500
"""Of a frame to the server, which takes 4 KiB."""
MISMATCHES: Final = 3
"""So many snapshots of a channel in a row that do not check out end a session."""
BEATS_BEHIND: Final = 3
"""Behind the head for so many beats without any message: the channel is subscribed again, once per position."""
PASSING: Final = frozenset(("rate_limited", "not_ready", "overloaded", "too_many_requests"))
"""Codes of refusals that end by themselves."""
_MAP_KINDS: Final[dict[str, MapKind]] = {"depth": "depth", "liq": "liq"}


class Envelope(Struct, frozen=True):
    """Any message. What a type does not have keeps its default."""

    type: str
    ch: str = ""
    epoch: int = 0
    seq: int = -1
    prev: int | None = None
    ts_ms: int = 0
    stale: bool = False
    data: Raw = Raw(b"null")
    id: int | None = None
    channels: dict[str, messages.AckChannel] = {}
    errors: dict[str, str] = {}
    error: str = ""
    detail: str = ""
    reason: str = ""
    reconnect_in_ms: int | None = None


class _Reason(Struct, frozen=True):
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """Snapshot or delta of a channel, its data decoded."""

    way: Way
    epoch: int
    seq: int
    prev: int
    ts_ms: int
    stale: bool
    payload: Column | tuple[Liquidation, ...] | Struct


# Steps


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand this to the user."""

    item: Item


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fill a gap before the next step."""

    heal: Heal


@dataclass(frozen=True, slots=True)
class Resubscribe:
    """Subscribe these channels anew; their positions are in the session."""

    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closing:
    """The server closes the connection; `wait_s`: when to come back, if it said so."""

    reason: str
    wait_s: float | None


@dataclass(frozen=True, slots=True)
class Broken:
    """This connection makes no sense any more: take another one."""

    error: ClientError


@dataclass(frozen=True, slots=True)
class Fatal:
    """Another connection would not help."""

    error: ClientError


Step = Deliver | Fetch | Resubscribe | Closing | Broken | Fatal


class Verdict(Enum):
    """What the sequence rule says."""

    FIRST = auto()
    NEXT = auto()
    OLD = auto()
    GAP = auto()
    RESET = auto()


def judge(held: Position | None, epoch: int, seq: int, prev: int, *, reset: bool) -> Verdict:
    """The sequence rule. `held`: where one stands; `reset`: the server has said that this is void.

    (epoch, seq) is the identity of the data, so what is not above `held` in the same epoch has been delivered, whoever says reset.
    An epoch below is that of a writer that has been replaced, unless the server says reset: then its numbering began anew.
    """
    if held is None:
        return Verdict.FIRST
    if epoch != held.epoch:
        return Verdict.RESET if epoch > held.epoch or reset else Verdict.OLD
    if seq <= held.seq:
        return Verdict.OLD
    return Verdict.GAP if prev > held.seq else Verdict.NEXT


@dataclass(slots=True)
class Stats:
    """What happened so far. `old`: messages that had been delivered before; `gaps`: holes between messages, announced or not."""

    messages: int = 0
    malformed: int = 0
    old: int = 0
    gaps: int = 0
    resets: int = 0
    mismatches: int = 0
    nudges: int = 0
    conflated: int = 0
    connections: int = 0


@dataclass(slots=True)
class _Channel:
    name: str
    kind: str
    held: Position | None
    table: ZoneTable | None
    reset: str | None = None  # reason of a reset whose snapshot has not come
    healing: ColumnHeal | None = None  # of the gap before the position: it knows how far in time one has come
    newest: Liquidation | None = None  # the last event that was handed on
    awaited: bool = False  # zones: a snapshot has been asked for
    mismatches: int = 0
    behind: int = 0
    behind_at: Position | None = None
    nudged_at: Position | None = None
    stale: bool = True
    ts_ms: int | None = None


@dataclass(slots=True)
class Session:
    """One subscription. Raises ValueError for channels of a kind that there is not.

    `positions`: where to resume. `heal` False: gaps become `Lost`. `provisional`: columns of the running window are wanted too.
    """

    channels: Sequence[str]
    positions: Mapping[str, Position] = field(default_factory=dict)
    encoding: Encoding = "bin"
    heal: bool = True
    provisional: bool = False
    stats: Stats = field(default_factory=Stats)
    beat: messages.Beat | None = None
    healthy: bool = False
    """Whether this connection has brought a beat."""
    _channels: dict[str, _Channel] = field(init=False)
    _numbers: dict[int, str] = field(default_factory=dict, init=False)
    _next_id: int = field(default=1, init=False)
    _conflated: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not self.channels:
            raise ValueError("channels must name one at least")
        self._channels = {}
        for name in self.channels:
            kind = name.partition(".")[0]
            if kind not in _DATA:
                raise ValueError(f"a channel is called like depth.BTC; kinds are {', '.join(_DATA)}")
            table = ZoneTable() if kind == "zones" else None
            # Without the zones themselves a position in their deltas is of no use.
            held = None if table is not None else self.positions.get(name)
            self._channels[name] = _Channel(name, kind, None if held is None else Position(*held), table)

    # What to tell the server

    def begin(self) -> None:
        """There is a new connection: channel numbers and requests of the one before are void."""
        self._numbers.clear()
        self._conflated = 0
        self.healthy = False
        self.stats.connections += 1
        for channel in self._channels.values():
            channel.awaited = False
            channel.reset = None
            channel.behind = 0

    def subscriptions(self, names: Iterable[str] | None = None) -> list[str]:
        """Frames of `/ws` that subscribe these channels (default all) at their positions, each within the limit of a frame."""
        frames: list[str] = []
        group: list[_Channel] = []
        wanted = self._channels.keys() if names is None else set(names)
        for channel in [one for name, one in self._channels.items() if name in wanted]:
            if group and len(self._subscribe([*group, channel])) > FRAME_BYTES:
                frames.append(self._subscribe(group))
                self._next_id += 1
                group = []
            group.append(channel)
        frames.append(self._subscribe(group))
        self._next_id += 1
        return frames

    def unsubscription(self, names: Sequence[str]) -> str:
        """The frame of `/ws` that ends channels."""
        self._next_id += 1
        return _text(messages.Unsubscribe(op="unsubscribe", id=self._next_id - 1, channels=list(names)))

    def _subscribe(self, group: list[_Channel]) -> str:
        known = {channel.name: (held.epoch, held.seq) for channel in group if (held := _resumable(channel)) is not None}
        command = messages.Subscribe(
            op="subscribe", id=self._next_id, channels=[channel.name for channel in group], encoding=self.encoding,
            from_=known or msgspec.UNSET,
        )  # fmt: skip
        return _text(command)

    def resume(self) -> str:
        """`Last-Event-ID` of `/stream`: positions of all channels that have one."""
        held = {name: held for name, channel in self._channels.items() if (held := _resumable(channel)) is not None}
        return ";".join(f"{name}:{position.epoch}:{position.seq}" for name, position in held.items())

    # What the server says

    def receive(self, data: str | bytes) -> list[Step]:
        """Steps of one message: text is JSON, bytes are a column."""
        self.stats.messages += 1
        try:
            return self._column(data) if isinstance(data, bytes) else self._message(data)
        except (ContractError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            self.stats.malformed += 1
            return [Broken(error if isinstance(error, ContractError) else ContractError(str(error)))]

    def _message(self, text: str) -> list[Step]:
        envelope = _ENVELOPE.decode(text)
        match envelope.type:
            case "snapshot" | "delta":
                channel = self._channels.get(envelope.ch)
                return [] if channel is None else self._place(channel, _decoded(channel.kind, envelope))
            case "gap":
                return self._gap(envelope)
            case "reset":
                if (channel := self._channels.get(envelope.ch)) is not None:
                    channel.reset = _reason(envelope)
                return []
            case "beat":
                return self._beat(msgspec.json.decode(text, type=messages.Beat))
            case "ack":
                return self._ack(envelope)
            case "error":
                return self._error(envelope)
            case "bye":
                return [_bye(envelope)]
            case _:
                return []  # types that are added later

    def _column(self, data: bytes) -> list[Step]:
        header, column = column_of_bytes(data)
        name = self._numbers.get(header.channel)
        if name is None:
            return []  # unsubscribed a moment ago
        way: Way = "snapshot" if ColumnFlag.SNAPSHOT in header.flags else "delta"
        stale = ColumnFlag.STALE in header.flags
        return self._place(self._channels[name], Message(way, header.epoch, header.seq, header.prev, header.t_ms, stale, column))

    def _place(self, channel: _Channel, message: Message) -> list[Step]:
        """One data message by the sequence rule."""
        if isinstance(message.payload, Column) and PROVISIONAL in message.payload.flags:
            return [Deliver(_update(channel, message, way="provisional"))] if self.provisional else []
        reset, held = channel.reset, _held(channel)
        verdict = judge(held, message.epoch, message.seq, _before(message), reset=reset is not None)
        if verdict is Verdict.OLD:
            self.stats.old += 1
            return self._again(channel, message)
        channel.stale, channel.ts_ms = message.stale, message.ts_ms
        steps: list[Step] = []
        if verdict is Verdict.RESET:
            self.stats.resets += 1
            steps.append(Deliver(Reset(channel.name, held, message.epoch, reset or "epoch")))
        if channel.table is not None:
            return self._zones(channel, message, steps)
        channel.reset = None
        if held is not None and verdict is Verdict.GAP:
            steps += self._missing(channel, held, _before(message), message.epoch, message.ts_ms)
        elif held is not None and verdict is Verdict.RESET:
            steps += self._since(channel, held, message)
        goes_on = verdict is not Verdict.RESET or _goes_on(channel, message.payload)
        update = _update(channel, message, after=held if goes_on else None)
        if isinstance(update, EventsUpdate) and update.events:
            channel.newest = update.events[-1]
        channel.held = Position(message.epoch, message.seq, _time(message))
        if not (isinstance(update, EventsUpdate) and not update.events):
            steps.append(Deliver(update))
        return steps

    def _again(self, channel: _Channel, message: Message) -> list[Step]:
        """A message that is not new: of zones, a snapshot may give back the table that a bad delta made doubtful."""
        if message.way != "snapshot":
            return []
        channel.reset = None
        return self._zones(channel, message, []) if channel.table is not None and channel.table.zones is None else []

    def _missing(self, channel: _Channel, held: Position, last: int, epoch: int, now_ms: int) -> list[Step]:
        """Steps for the numbers between `held` and `last`, both of one epoch."""
        if channel.kind not in _MAP_KINDS and channel.kind != "liquidations":
            return []  # a newer state says everything
        self.stats.gaps += 1
        if not self.heal:
            return [Deliver(Lost(channel.name, epoch, held.seq + 1, last, "conflated"))]
        if channel.kind == "liquidations":
            return [Fetch(EventHeal(channel.name, held.seq, last, epoch))]
        channel.healing = ColumnHeal(channel.name, _MAP_KINDS[channel.kind], held, epoch, last=last, until_ms=now_ms)
        return [Fetch(channel.healing)]

    def _since(self, channel: _Channel, held: Position, message: Message) -> list[Step]:
        """Steps for what lies between the last message of another epoch and this one."""
        if _goes_on(channel, message.payload) and _before(message) > held.seq:
            return self._missing(channel, held, _before(message), message.epoch, message.ts_ms)
        kind, t_ms = _MAP_KINDS.get(channel.kind), _time(message)
        if kind is None or t_ms is None or held.t_ms is None or not self.heal:
            return []
        return [Fetch(ColumnHeal(channel.name, kind, held, message.epoch, last=None, until_ms=t_ms))]

    def _zones(self, channel: _Channel, message: Message, steps: list[Step]) -> list[Step]:
        table, payload = channel.table, message.payload
        assert table is not None
        removed: tuple[str, ...] = ()
        if isinstance(payload, messages.ZonesSnapshot):
            sound = table.replace(payload)
            changed = tuple(zone.id for zone in payload.zones)
        elif channel.awaited:
            return []  # the snapshot that was asked for comes behind it
        else:
            assert isinstance(payload, messages.ZonesDelta)
            sound = table.apply(payload)
            changed, removed = tuple(zone.id for zone in payload.set), tuple(payload.removed)
        if not sound:
            return self._mismatch(channel)
        channel.awaited = False
        channel.mismatches = 0
        channel.reset = None
        held = channel.held
        if held is not None and held.epoch == message.epoch and message.seq <= held.seq:
            return []
        channel.held = Position(message.epoch, message.seq)
        assert table.zones is not None
        update = ZonesUpdate(
            channel=channel.name, epoch=message.epoch, seq=message.seq, way=message.way, ts_ms=message.ts_ms, stale=message.stale,
            zones=table.zones, changed=changed, removed=removed,
        )  # fmt: skip
        return [*steps, Deliver(update)]

    def _mismatch(self, channel: _Channel) -> list[Step]:
        self.stats.mismatches += 1
        channel.mismatches += 1
        if channel.mismatches > MISMATCHES:
            return [Fatal(ContractError(f"{channel.name}: the checksum is another one, {MISMATCHES} times in a row"))]
        assert channel.table is not None
        channel.table.zones = None  # so that a snapshot is asked for, by whichever way
        channel.awaited = True
        return [Resubscribe((channel.name,))]

    def _gap(self, envelope: Envelope) -> list[Step]:
        """What was left out is fetched now: the next message of the channel may be long in coming."""
        channel = self._channels.get(envelope.ch)
        if channel is None:
            return []
        gap = msgspec.json.decode(envelope.data, type=messages.Gap)
        held = _held(channel)
        if held is None or envelope.epoch != held.epoch or gap.to <= held.seq:
            return []
        steps = self._missing(channel, held, gap.to, held.epoch, envelope.ts_ms)
        if steps:
            channel.held = Position(held.epoch, gap.to, held.t_ms)
        return steps

    def _beat(self, beat: messages.Beat) -> list[Step]:
        self.beat = beat
        self.healthy = True
        self.stats.conflated += max(0, beat.conflated - self._conflated)
        self._conflated = beat.conflated
        behind = tuple(name for name, head in beat.heads.items() if self._is_left_behind(name, Position(*head)))
        self.stats.nudges += len(behind)
        return [Resubscribe(behind)] if behind else []

    def _is_left_behind(self, name: str, head: Position) -> bool:
        """Whether the channel has got nothing for some beats though there is something: its newest message is lost."""
        channel = self._channels.get(name)
        if channel is None or channel.held is None:
            return False
        held = channel.held
        if (head.epoch, head.seq) <= (held.epoch, held.seq) or channel.behind_at != held:
            channel.behind_at, channel.behind = held, 0
            return False
        channel.behind += 1
        if channel.behind < BEATS_BEHIND or channel.nudged_at == held:
            return False
        channel.nudged_at = held
        return True

    def _ack(self, envelope: Envelope) -> list[Step]:
        self._numbers.update((one.no, name) for name, one in envelope.channels.items() if name in self._channels)
        refused = {name: code for name, code in envelope.errors.items() if name in self._channels}
        if not refused:
            return []
        error = Refused(refused)
        return [Broken(error) if PASSING.issuperset(refused.values()) else Fatal(error)]

    def _error(self, envelope: Envelope) -> list[Step]:
        code = envelope.error
        if code in PASSING:
            return [Broken(ApiError(429, code, envelope.detail))]
        if code in ("unauthorized", "forbidden"):
            return [Fatal(ApiError(401 if code == "unauthorized" else 403, code, envelope.detail))]
        return [Fatal(ContractError(f"the server refused a frame: {code}: {envelope.detail}"))]

    # What is known of a channel

    def stale(self, name: str) -> bool:
        """As the server said with the newest message; True before one."""
        return self._channels[name].stale

    def ts_ms(self, name: str) -> int | None:
        """Time of the newest data, epoch ms of the server."""
        return self._channels[name].ts_ms


def _held(channel: _Channel) -> Position | None:
    """Where one stands, with the time of the newest column: after an announced gap that is known once it has been fetched."""
    held, healing = channel.held, channel.healing
    if held is not None and healing is not None and healing.newest_ms is not None:
        held = channel.held = held._replace(t_ms=max(held.t_ms or 0, healing.newest_ms))
    channel.healing = None
    return held


def _resumable(channel: _Channel) -> Position | None:
    """Where to resume; None where a snapshot is needed."""
    return None if channel.table is not None and channel.table.zones is None else channel.held


def _goes_on(channel: _Channel, payload: object) -> bool:
    """Whether events of another epoch go on where the old ones ended: the one at the position is still the same.

    That is so when a writer was restarted. After a loss of power numbers may have been used again.
    """
    held, newest = channel.held, channel.newest
    if not isinstance(payload, tuple) or held is None or newest is None or newest.seq != held.seq:
        return False
    return newest in payload


def _before(message: Message) -> int:
    """The number that the message follows. A snapshot follows whatever is just below what it holds."""
    if message.way != "snapshot":
        return message.prev
    if isinstance(message.payload, tuple):
        return message.payload[0].seq - 1 if message.payload else message.seq
    return message.seq - 1


def _time(message: Message) -> int | None:
    return message.payload.t_ms if isinstance(message.payload, Column) else None


def _update(channel: _Channel, message: Message, *, way: Way | None = None, after: Position | None = None) -> Update:
    """The update of a message; of events those behind `after`."""
    common: dict[str, Any] = {
        "channel": channel.name, "epoch": message.epoch, "seq": message.seq, "way": way or message.way, "ts_ms": message.ts_ms,
        "stale": message.stale,
    }  # fmt: skip
    payload = message.payload
    if isinstance(payload, Column):
        return ColumnUpdate(**common, column=payload)
    if isinstance(payload, tuple):
        first = -1 if after is None else after.seq
        return EventsUpdate(**common, events=tuple(event for event in payload if event.seq > first))
    return StateUpdate(**common, value=payload)


def _decoded(kind: str, envelope: Envelope) -> Message:
    """The message of an envelope. Raises ContractError, msgspec's errors."""
    value = _DATA[kind][-1 if envelope.type == "delta" else 0].decode(envelope.data)
    payload: Column | tuple[Liquidation, ...] | Struct = value
    ts_ms = envelope.ts_ms
    if isinstance(value, messages.Column):
        payload = column_of_json(value)
        ts_ms = payload.t_ms  # `ts_ms` is when it was published, which its binary form does not say
    elif isinstance(value, messages.LiquidationBatch):
        payload = tuple(value.items)
    way: Way = "snapshot" if envelope.type == "snapshot" else "delta"
    if envelope.seq < 0:
        raise ContractError(f"a message of {envelope.ch} without a number")
    prev = envelope.seq - 1 if envelope.prev is None else envelope.prev
    return Message(way, envelope.epoch, envelope.seq, prev, ts_ms, envelope.stale, payload)


def _bye(envelope: Envelope) -> Step:
    if envelope.reason == "unauthorized":
        return Fatal(ApiError(401, "unauthorized", "the server does not know the key, or wants one"))
    wait = envelope.reconnect_in_ms
    return Closing(envelope.reason, None if wait is None else max(0, wait) / 1000)


def _reason(envelope: Envelope) -> str:
    told = msgspec.json.decode(envelope.data, type=_Reason | None)
    return envelope.reason or (told.reason if told is not None else "") or "reset"


def _text(command: Struct) -> str:
    return msgspec.json.encode(command).decode()


_ENVELOPE: Final = msgspec.json.Decoder(Envelope)
_DATA: Final[Mapping[str, tuple[msgspec.json.Decoder[Any], ...]]] = {
    kind: tuple(msgspec.json.Decoder(struct) for struct in structs) for kind, structs in messages.CHANNELS.items()
}
