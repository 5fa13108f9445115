"""`/oi`, `/candles`, `/liquidations`. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from mpengine.contract.common import Coverage, Side

Venue = Literal["binance", "bybit", "okx", "gate", "bitget", "hyperliquid"]


class DisplayedInterest(Struct, frozen=True, kw_only=True):
    """Open interest that a venue pushes by itself: `base` base asset, its age in s. Never part of the sum."""

    base: float
    age_s: float


class OpenInterest(Struct, frozen=True, kw_only=True):
    """`/oi`: single-sided open interest in base asset (`unit`), by venue and in sum.

    `ts`, `exchange_ts`: epoch s at which values came; `aggregated_oi_usd` null without a price. `stale_exchanges`: venues whose
    newest value is older than 60 s, which are in neither `per_exchange` nor the sum.
    """

    symbol: str
    aggregated_oi: float
    per_exchange: dict[str, float]
    ts: float
    unit: str
    base_asset: str
    aggregated_oi_usd: float | None
    exchange_ts: dict[str, float]
    stale_exchanges: list[str]
    age_s: float
    stale: bool
    seq: int
    epoch: int
    display_only: dict[str, DisplayedInterest]


class Candles(Struct, frozen=True, kw_only=True):
    """`/candles`: closed bars as columns of equal length, oldest first.

    `t`: open, epoch ms. `o`, `h`, `l`, `c`, `mark` USD; `*_usd` USD; `oi_*_base` base asset; `funding_rate` a fraction. Null: no
    minute of the bar had a value. `flags`: 1 price from the mark, 2 minutes missing, 4 the feed had a gap.
    """

    symbol: str
    interval_ms: int
    t: list[int]
    o: list[float]
    h: list[float]
    l: list[float]  # noqa: E741  the name in the contract
    c: list[float]
    mark: list[float | None]
    buy_usd: list[float]
    sell_usd: list[float]
    buy_count: list[int]
    sell_count: list[int]
    oi_base: list[float | None]
    oi_delta_base: list[float | None]
    funding_rate: list[float | None]
    liq_long_usd: list[float]
    liq_short_usd: list[float]
    liq_count: list[int]
    flags: list[int]
    count: int
    seq: int
    epoch: int
    age_s: float
    stale: bool


class Liquidation(Struct, frozen=True, kw_only=True):
    """A realised liquidation. `side`: the position that was closed; `ts_ms` venue's time, `recv_ms` ours, epoch ms.

    Prices USD, `qty_base` base asset. `price_kind`: `fill`, `trigger` (derived from `bankruptcy_price`), `liq_mark`.
    """

    seq: int
    ts_ms: int
    recv_ms: int
    venue: Venue
    side: Side
    price: float
    price_kind: Literal["fill", "trigger", "liq_mark"]
    bankruptcy_price: float | None
    qty_base: float
    notional_usd: float


class Liquidations(Struct, frozen=True, kw_only=True):
    """`/liquidations`: one page, ascending; go on with `after` = `next_after` while `has_more`.

    Numbers are null without any record. `gap`: rows between `after` and `oldest_seq` are gone. `reset` is there (true) only
    where another epoch was asked for: then this is the newest page.
    """

    symbol: str
    items: list[Liquidation]
    count: int
    first_seq: int | None
    last_seq: int | None
    oldest_seq: int | None
    newest_seq: int | None
    next_after: int
    has_more: bool
    gap: bool
    reset: Literal[True] | UnsetType = UNSET
    coverage: Coverage
    seq: int | None
    epoch: int | None
    age_s: float | None
    stale: bool
