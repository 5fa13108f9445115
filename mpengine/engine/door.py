"""What must not enter the state of a symbol: numbers that no market has (`spec: reliability`, section 3). Pure."""

from __future__ import annotations

from typing import Final

from mpengine.engine.zones import MAX_BUCKET

LARGEST: Final = 1e18
"""No quantity, rate or price of any market is larger. Beyond it products and sums of a minute would overflow."""


class Refused(ValueError):
    """An event that must not enter the state; the text is its fixed reason."""


def check_positive(value: float) -> None:
    """Raises Refused for a number that is not above 0, not finite or beyond any market."""
    if not 0.0 < value <= LARGEST:  # never true of NaN
        raise Refused("not above 0, or beyond any market")


def check_bucket(price: float, step: float) -> None:
    """Raises Refused for a price whose bucket has a number that no map can hold; without a mark nothing else keeps one out."""
    if price > MAX_BUCKET * step:
        raise Refused("price beyond any grid")


def check_price(price: float, step: float, mark: float | None, reject_pct: float) -> None:
    """Raises Refused for a price that is none, has no bucket, or is more than `reject_pct` from the mark."""
    check_positive(price)
    check_bucket(price, step)
    if mark is not None and abs(price - mark) > reject_pct * mark:
        raise Refused("price far from mark")
