"""Messages of `/stream` and `/ws` (`spec: api`, section 13). Pure.

A message has the keys of one of the envelopes below; `type` says which. `data` of a snapshot or delta has the Struct that
`CHANNELS` names for the channel's kind.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType, field

from mpengine.contract.common import Flag
from mpengine.contract.maps import Level, MapMeta
from mpengine.contract.market import Liquidation
from mpengine.contract.service import FeedState
from mpengine.contract.zones import Zone

ColumnFlag = Flag | Literal["provisional", "restart"]


class Column(Struct, frozen=True, kw_only=True):
    """`depth.SYM`, `liq.SYM`: one column. `t_ms` its start and `dt_ms` its width, ms; row r: price0 + r * step, USD.

    `a`, `b`: base64 of u8log cells, bid and ask or long and short. `price0` moves between columns: place them by price.
    """

    t_ms: int
    dt_ms: int
    price0: float
    step: float
    rows: int
    src: float
    flags: list[ColumnFlag]
    lo_usd: float
    hi_usd: float
    a: str
    b: str


class LiquidationBatch(Struct, frozen=True, kw_only=True):
    """`liquidations.SYM`: events since the message before, ascending."""

    items: list[Liquidation]


class ZonesSnapshot(Struct, frozen=True, kw_only=True):
    """`zones.SYM`, snapshot: all zones. `crc32`: CRC-32 of `id:weight%.4f;` over all zones, by id."""

    zones: list[Zone]
    count: int
    crc32: int


class ZonesDelta(Struct, frozen=True, kw_only=True):
    """`zones.SYM`, delta: zones that are new or changed, ids that are gone; `count` and `crc32` as after applying it."""

    set: list[Zone]
    removed: list[str]
    count: int
    crc32: int


class LevelsState(Struct, frozen=True, kw_only=True):
    """`levels.SYM`: pools of the newest minute. `ts_ms`: its end, epoch ms; `price` (OHLC4), `src` (close) USD."""

    ts_ms: int
    price: float
    src: float
    long_levels: list[Level]
    short_levels: list[Level]
    meta: MapMeta


class InterestState(Struct, frozen=True, kw_only=True):
    """`oi.SYM`: keys of `/oi` that do not move with time. `ts`, `exchange_ts` epoch s; base asset, `aggregated_oi_usd` USD."""

    symbol: str
    aggregated_oi: float
    per_exchange: dict[str, float]
    ts: float
    unit: str
    base_asset: str
    aggregated_oi_usd: float | None
    exchange_ts: dict[str, float]
    stale_exchanges: list[str]


class Candle(Struct, frozen=True, kw_only=True):
    """`candles.SYM`: the newest closed minute; units as `Candles`."""

    t: int
    o: float
    h: float
    l: float  # noqa: E741  the name in the contract
    c: float
    mark: float | None
    buy_usd: float
    sell_usd: float
    buy_count: int
    sell_count: int
    oi_base: float | None
    oi_delta_base: float | None
    funding_rate: float | None
    liq_long_usd: float
    liq_short_usd: float
    liq_count: int
    flags: int


class VenueBook(Struct, frozen=True, kw_only=True):
    """One venue's book. Prices and sums USD, null without one; `last_update_ms` epoch ms."""

    state: Literal["unsynced", "syncing", "synced"]
    best_bid: float | None
    best_ask: float | None
    total_bid_usd: float
    total_ask_usd: float
    last_update_ms: int | None


class BookState(Struct, frozen=True, kw_only=True):
    """`book.SYM`: the books of the venues."""

    books: dict[str, VenueBook]


class StatusState(Struct, frozen=True, kw_only=True):
    """`status`: state of the service, of each venue and of each symbol (stale or not)."""

    status: Literal["ok", "degraded", "starting"]
    exchanges: dict[str, FeedState]
    symbols: dict[str, bool]


CHANNELS: Final[dict[str, tuple[type[Struct], ...]]] = {
    "depth": (Column,),
    "liq": (Column,),
    "liquidations": (LiquidationBatch,),
    "zones": (ZonesSnapshot, ZonesDelta),
    "levels": (LevelsState,),
    "oi": (InterestState,),
    "candles": (Candle,),
    "book": (BookState,),
    "status": (StatusState,),
}
"""Kind of channel -> Structs of `data` (zones: snapshot, delta). A channel is `kind.SYM`; `status` has no symbol."""


class DataMessage(Struct, frozen=True, kw_only=True):
    """Snapshot or delta of a channel. Accept it when `prev` is your last `seq` of that channel and epoch."""

    ch: str
    type: Literal["snapshot", "delta"]
    epoch: int
    seq: int
    prev: int
    ts_ms: int
    stale: bool
    data: Any


class Gap(Struct, frozen=True, kw_only=True):
    """What did not come: numbers from `from` to `to`. Columns are refetched with `/heatmap?since_ms=`, events with
    `/liquidations?after=`, states need nothing."""

    from_: int = field(name="from")
    to: int
    reason: str


class GapMessage(Struct, frozen=True, kw_only=True):
    """Comes before a message whose `prev` is not your last `seq`."""

    ch: str
    type: Literal["gap"]
    epoch: int
    seq: int
    prev: int
    ts_ms: int
    stale: bool
    data: Gap


class ResetMessage(Struct, frozen=True, kw_only=True):
    """Forget what you know of the channel: a snapshot of another epoch follows."""

    ch: str
    type: Literal["reset"]
    epoch: int
    seq: int
    prev: int
    ts_ms: int
    stale: bool
    data: dict[str, Any]


class Beat(Struct, frozen=True, kw_only=True):
    """Every 5 s. `heads`: channel -> [epoch, seq] of its newest; `exchanges`: venue -> age s; `conflated`: messages left out."""

    type: Literal["beat"]
    now_ms: int
    heads: dict[str, tuple[int, int]]
    exchanges: dict[str, float | None]
    conflated: int


class AckChannel(Struct, frozen=True, kw_only=True):
    """`no`: number of the channel in binary messages; epoch and seq of its newest, null before it."""

    no: int
    epoch: int | None
    seq: int | None


class Ack(Struct, frozen=True, kw_only=True):
    """Answer to an `op` of `/ws`. `errors`: channels that were not subscribed, and why."""

    type: Literal["ack"]
    id: int | None
    channels: dict[str, AckChannel]
    errors: dict[str, str] | UnsetType = UNSET


class ErrorMessage(Struct, frozen=True, kw_only=True):
    """What a client sent was refused; codes as of HTTP, and `too_many`."""

    type: Literal["error"]
    id: int | UnsetType | None = UNSET
    error: str
    detail: str


class Bye(Struct, frozen=True, kw_only=True):
    """The connection is about to be closed. `reconnect_in_ms`: when to come back."""

    type: Literal["bye"]
    reason: str
    reconnect_in_ms: int | UnsetType = UNSET


class Subscribe(Struct, frozen=True, kw_only=True):
    """`{"op":"subscribe"}` of a client. `from`: channel -> [epoch, seq] to resume at; `encoding` bin applies to columns."""

    op: Literal["subscribe"]
    id: int
    channels: list[str]
    encoding: Literal["json", "bin"] = "json"
    from_: dict[str, tuple[int, int]] | UnsetType = field(default=UNSET, name="from")


class Unsubscribe(Struct, frozen=True, kw_only=True):
    """`{"op":"unsubscribe"}` of a client."""

    op: Literal["unsubscribe"]
    id: int
    channels: list[str]


class Ask(Struct, frozen=True, kw_only=True):
    """`{"op":"list"}` and `{"op":"ping"}` of a client."""

    op: Literal["list", "ping"]
    id: int


class Auth(Struct, frozen=True, kw_only=True):
    """`{"op":"auth"}`: the first frame within 5 s where keys are on and no header was sent."""

    op: Literal["auth"]
    id: int
    key: str


MESSAGES: Final[tuple[type[Struct], ...]] = (DataMessage, GapMessage, ResetMessage, Beat, Ack, ErrorMessage, Bye)
COMMANDS: Final[tuple[type[Struct], ...]] = (Subscribe, Unsubscribe, Ask, Auth)
