"""Realised liquidations: trigger price, judgement against the market, the published record (`spec: engine`, section 3). Pure."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from shm.records import LIQUIDATION_DTYPE, RECORD_SCHEMA, EventFlag, LiquidationFlag, PositionSide, PriceKind, Venue

EVENT_REJECT_PCT: Final = 0.15
EVENT_FAR_PCT: Final = 0.025
REFERENCE_MARK_NS: Final = 5 * 1_000_000_000
MINUTE_NS: Final = 60 * 1_000_000_000

VENUES: Final = (Venue.BINANCE, Venue.BYBIT, Venue.OKX)
"""Venues whose fields the table of section 3 explains, in their order."""


class LiquidationOut(NamedTuple):
    """A realised liquidation to publish. `record`: 0-d LIQUIDATION_DTYPE.

    `number` runs with the state of the core, `at_ns` is its engine time: by them a shell knows what it has published already.
    """

    number: int
    at_ns: int
    record: npt.NDArray[np.void]


class Event(NamedTuple):
    """One liquidation event as the venue module gives it. `price`: the venue's price field; `average`: average fill or 0."""

    venue: Venue
    side: PositionSide
    flags: int
    venue_ns: int
    recv_ns: int
    price: float
    qty: float
    average: float


class Realised(NamedTuple):
    """An accepted event: trigger price (USD), trigger price x quantity (USD), flags, and its record (0-d LIQUIDATION_DTYPE)."""

    trigger: float
    notional_usd: float
    flags: LiquidationFlag
    record: npt.NDArray[np.void]


def trigger_price(venue: Venue, side: PositionSide, price: float, average_fill: float, mmr: float) -> float:
    """Price at which the liquidation started, from the venue's price field and average fill (0 where it has none).

    Binance and Bybit report about the bankruptcy price p: trigger = p/(1 - mmr) for a long, p/(1 + mmr) for a short; a Binance
    average fill is taken as it is. OKX reports the trigger itself. V: long p 26,142.12, mmr .004 -> 26,247.11.
    """
    if venue is Venue.OKX:
        return price
    if venue is Venue.BINANCE and average_fill > 0.0:
        return average_fill
    return price / (1 - mmr) if side is PositionSide.LONG else price / (1 + mmr)


def price_kind(venue: Venue, average_fill: float) -> PriceKind:
    """What `trigger_price` gives for an event of this venue."""
    if venue is Venue.OKX:
        return PriceKind.LIQ_MARK
    return PriceKind.FILL if venue is Venue.BINANCE and average_fill > 0.0 else PriceKind.TRIGGER


def reference_price(mark: tuple[float, int] | None, last_src: float | None, now_ns: int) -> float | None:
    """What an event is judged against: the mark (price, its engine time) if at most 5 s old, else src of the last rolled minute."""
    if mark is not None and now_ns - mark[1] <= REFERENCE_MARK_NS:
        return mark[0]
    return last_src


def realise(event: Event, *, mmr: float, reference: float | None, now_ns: int) -> Realised | None:
    """The accepted event, or None for one more than 15 % from the reference, which is used nowhere.

    Without any reference nothing can be said against an event. Raises ValueError for one that cannot be true or read: a venue
    that the table does not know, no side, a number that is not finite and above 0.
    """
    if event.venue not in VENUES:
        raise ValueError("no liquidations are known of this venue")
    if event.side is PositionSide.NONE:
        raise ValueError("no side")
    trigger = trigger_price(event.venue, event.side, event.price, event.average, mmr)
    notional_usd = trigger * event.qty
    if not all(math.isfinite(value) and value > 0.0 for value in (event.price, event.qty, trigger, notional_usd)):
        raise ValueError("not finite and above 0")
    if _off(trigger, reference, EVENT_REJECT_PCT):
        return None
    flags = LiquidationFlag.FAR if _off(trigger, reference, EVENT_FAR_PCT) else LiquidationFlag.NONE
    if event.flags & EventFlag.ORDER_SIDE:
        flags |= LiquidationFlag.ORDER_SIDE
    if event.venue_ns // MINUTE_NS < now_ns // MINUTE_NS:
        flags |= LiquidationFlag.LATE
    return Realised(trigger, notional_usd, flags, _record(event, trigger, notional_usd, flags))


def _off(trigger: float, reference: float | None, limit: float) -> bool:
    # Not as a quotient: 97,500 of 100,000 is 2.5 % and not a rounding error more.
    return reference is not None and abs(trigger - reference) > limit * reference


def _record(event: Event, trigger: float, notional_usd: float, flags: LiquidationFlag) -> npt.NDArray[np.void]:
    record = np.zeros((), LIQUIDATION_DTYPE)
    record["schema"], record["venue"], record["side"] = RECORD_SCHEMA, event.venue, event.side
    record["price_kind"], record["flags"] = price_kind(event.venue, event.average), flags
    record["venue_ts_ns"], record["recv_ts_ns"] = event.venue_ns, event.recv_ns
    record["price"], record["qty_base"], record["notional_usd"] = trigger, event.qty, notional_usd
    # OKX's field is no bankruptcy price (any more), so none is known of it.
    record["bankruptcy_price"] = 0.0 if event.venue is Venue.OKX else event.price
    return record
