"""Realised liquidations: trigger price, judgement against the market, the published record (`spec: engine`, section 3). Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from shm.records import LIQUIDATION_DTYPE, RECORD_SCHEMA, EventFlag, LiquidationFlag, PositionSide, PriceKind, Venue

EVENT_REJECT_PCT: Final = 0.15
EVENT_FAR_PCT: Final = 0.025
REFERENCE_MARK_NS: Final = 5 * 1_000_000_000
MINUTE_NS: Final = 60 * 1_000_000_000

REMEMBERED_NS: Final = 15 * MINUTE_NS
REPLAYING: Final = (Venue.OKX,)
"""Venues that send liquidations of the last minutes again with a subscription (`spec: exchanges`)."""

VENUES: Final = (Venue.BINANCE, Venue.BYBIT, Venue.OKX)
"""Venues whose fields the table of section 3 explains, in their order."""


class BadEvent(ValueError):
    """An event that cannot be true or read; the text is its fixed reason."""


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

    Without any reference nothing can be said against an event. Raises BadEvent for a venue that the table does not know, no side, a
    number that is not finite and above 0.
    """
    if event.venue not in VENUES:
        raise BadEvent("no liquidations are known of this venue")
    if event.side is PositionSide.NONE:
        raise BadEvent("no side")
    trigger = trigger_price(event.venue, event.side, event.price, event.average, mmr)
    notional_usd = trigger * event.qty
    if not all(math.isfinite(value) and value > 0.0 for value in (event.price, event.qty, trigger, notional_usd)):
        raise BadEvent("not finite and above 0")
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


class Liquidations:
    """Judges the events of one symbol and numbers the accepted ones. `rates`: venue -> maintenance margin rate of its triggers.

    `next_number`: number of the next output. A core counts from 0; a shell that publishes into a ring moves it (`number_from`).
    `last_ns`: engine time of the output before it, 0 without one.
    """

    __slots__ = ("_after_ns", "_known", "_last_src", "_published_then", "last_ns", "next_number", "rates")

    def __init__(self, rates: Mapping[Venue, float]) -> None:
        self.rates = dict(rates)
        self._last_src: float | None = None
        self._after_ns = self._published_then = 0
        self._known: dict[tuple[int, int, float, float], int] = {}
        self.next_number = self.last_ns = 0

    def reference(self, mark: tuple[float, int] | None, now_ns: int) -> float | None:
        """What an event of now is judged against. `mark`: price and engine time."""
        return reference_price(mark, self._last_src, now_ns)

    def on_event(self, event: Event, reference: float | None, now_ns: int) -> Realised | None:
        """The accepted event, None for a rejected one. Raises BadEvent (`realise`)."""
        if event.venue not in self.rates:
            raise BadEvent("no liquidations are known of this venue")
        return realise(event, mmr=self.rates[event.venue], reference=reference, now_ns=now_ns)

    def repeats(self, event: Event, now_ns: int) -> bool:
        """Whether a venue that replays its last minutes to every new subscriber has told this event already.

        Within a process of ingest its mapper knows; over the death of one only the engine does. Remembered by engine time.
        """
        if event.venue not in REPLAYING:
            return False
        key = (event.venue_ns, int(event.side), event.price, event.qty)
        known = key in self._known
        self._known.setdefault(key, now_ns)
        while now_ns - self._known[first := next(iter(self._known))] > REMEMBERED_NS and first != key:
            del self._known[first]
        return known

    def out(self, realised: Realised, now_ns: int) -> LiquidationOut | None:
        """The output of an accepted event with its number; None for one that was published already, as far as can be known."""
        if now_ns < self._after_ns:
            return None
        if now_ns == self._after_ns and self._published_then:
            self._published_then -= 1
            return None
        self.next_number, self.last_ns = self.next_number + 1, now_ns
        return LiquidationOut(self.next_number - 1, now_ns, realised.record)

    def on_minute(self, src: float) -> None:
        """A minute was rolled with this candle price: what events are judged against while there is no mark."""
        self._last_src = src

    def number_from(self, number: int, after_ns: int, published_then: int) -> None:
        """The next output has this number. None comes of events before engine time `after_ns`, nor of the first `published_then`
        at that time: a process may have died between two of one moment."""
        self.next_number, self._after_ns, self.last_ns = number, after_ns, after_ns
        self._published_then = published_then

    def on_clock_set_back(self) -> None:
        """Engine time began anew: what was published with a later time is no measure any more."""
        self._after_ns = self._published_then = 0
        self._known.clear()

    def state_of(self) -> dict[str, Any]:
        """Everything needed to go on from here."""
        names = {"next_number": self.next_number, "last_ns": self.last_ns}
        known = [[*key, at_ns] for key, at_ns in self._known.items()]
        return {
            **names, "after_ns": self._after_ns, "published_then": self._published_then, "last_src": self._last_src, "known": known
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state_of`."""
        self.next_number, self.last_ns = state["next_number"], state["last_ns"]
        self._after_ns, self._published_then = state["after_ns"], state["published_then"]
        self._last_src = state["last_src"]
        self._known = {(ns, side, price, qty): at_ns for ns, side, price, qty, at_ns in state["known"]}
