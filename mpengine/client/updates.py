"""What a stream hands out.

Update                 an accepted message of a channel; (channel, epoch, seq) comes once
├── ColumnUpdate       depth.SYM, liq.SYM: one column
├── EventsUpdate       liquidations.SYM: events, ascending; `seq` is the last one's
├── ZonesUpdate        zones.SYM: all zones, and which of them changed
└── StateUpdate        levels, oi, candles, book, status: the whole value
Reset                  what was known of a channel is void: another epoch follows
Lost                   numbers that could not be had
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from msgspec import Struct

from mpengine.client.columns import Column
from mpengine.contract import Liquidation, Zone

Way = Literal["snapshot", "delta", "healed", "provisional"]
"""How an update came: as the newest value, as the next one, fetched afterwards, or to be replaced by the final one."""


class Position(NamedTuple):
    """Where one stands in a channel. `t_ms`: time of a column, from which a gap is fetched; None elsewhere."""

    epoch: int
    seq: int
    t_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """`ts_ms`: time of the data, epoch ms of the server (of a column its start); `stale`: as the server said with it."""

    channel: str
    epoch: int
    seq: int
    way: Way
    ts_ms: int
    stale: bool

    @property
    def position(self) -> Position:
        """Where one stands after it."""
        return Position(self.epoch, self.seq)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ColumnUpdate(Update):
    """A column."""

    column: Column

    @property
    def position(self) -> Position:
        """Where one stands after it."""
        return Position(self.epoch, self.seq, self.column.t_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsUpdate(Update):
    """Realised liquidations. A snapshot has the newest ones."""

    events: tuple[Liquidation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZonesUpdate(Update):
    """All zones by id, never changed afterwards; ids that are new or changed, ids that are gone (of a snapshot: all and none)."""

    zones: Mapping[str, Zone]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StateUpdate(Update):
    """A state: the Struct that `mpengine.contract.push.CHANNELS` names for the kind."""

    value: Struct


@dataclass(frozen=True, slots=True)
class Reset:
    """Another epoch of the channel begins, with a snapshot: a writer has been replaced. `before`: where you stood.

    States are replaced by it. Columns of the past stay true for their time. Events that you have had are not repeated if it is
    certain that they are the same.
    """

    channel: str
    before: Position | None
    epoch: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The numbers `first` to `last` of a channel did not come and could not be fetched. The stream goes on behind them."""

    channel: str
    epoch: int
    first: int
    last: int
    reason: str

    @property
    def position(self) -> Position:
        """Where one stands after it."""
        return Position(self.epoch, self.last)


Item = Update | Reset | Lost
