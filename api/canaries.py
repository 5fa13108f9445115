"""Direction canaries of all symbols as one (`spec: exchanges`, section 2.5). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from mpengine.schemas import Canary, DirectionCanaries

MIN_EVENTS: Final = 50
PRICE_SIDE_BAD: Final = 0.20
RETURN_SIGN_BAD: Final = 0.65  # agreement below 35 %


def of_venue(found: list[DirectionCanaries]) -> dict[str, Any]:
    """Canaries of one venue over the symbols; a figure is None where no symbol has it."""
    price_side = pooled((one.price_side for one in found), PRICE_SIDE_BAD)
    return_sign = pooled((one.return_sign for one in found), RETURN_SIGN_BAD)
    return {"price_side": price_side, "return_sign": return_sign, "alarm": alarming(price_side) or alarming(return_sign)}


def pooled(found: Iterable[Canary | None], limit: float | None) -> dict[str, Any] | None:
    """Counts summed. It alarms when one of them does, or more than `limit` of at least 50 events are bad."""
    known = [one for one in found if one is not None]
    if not known:
        return None
    events, bad = sum(one.events for one in known), sum(one.bad for one in known)
    over = limit is not None and events >= MIN_EVENTS and bad > limit * events
    return {"events": events, "bad": bad, "alarm": over or any(one.alarm for one in known)}


def alarming(found: dict[str, Any] | None) -> bool:
    """Whether there is a canary, and it alarms."""
    return found is not None and bool(found["alarm"])
