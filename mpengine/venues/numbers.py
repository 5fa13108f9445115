"""Numbers of the wire: decimal strings to finite floats. Pure; every venue module reads numbers through here."""

from __future__ import annotations

import math
from typing import Any


class BadRow(ValueError):
    """A message or row cannot be used; the text is the fixed reason it is counted under."""


def number(value: Any) -> float:
    """A finite float from the wire's decimal string (or JSON number). Raises BadRow for anything else, NaN and infinities."""
    if isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool)):
        try:
            result = float(value)
        except (ValueError, OverflowError):
            raise BadRow("not_a_number") from None
        if math.isfinite(result):
            return result
        raise BadRow("not_finite")
    raise BadRow("not_a_number")


def positive(value: Any) -> float:
    """`number` above 0. Raises BadRow."""
    result = number(value)
    if result <= 0.0:
        raise BadRow("not_positive")
    return result


def quantity(value: Any) -> float:
    """`number` at or above 0: a level's quantity, where 0 removes. Raises BadRow."""
    result = number(value)
    if result < 0.0:
        raise BadRow("negative")
    return result


def integer(value: Any, limit: int = 2**63) -> int:
    """An id or a time: a JSON integer in [0, limit). Raises BadRow."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit:
        return value
    raise BadRow("not_an_integer")


def milliseconds(value: Any) -> int:
    """A venue time in milliseconds as nanoseconds; years 2001 to 2286 only, so that another unit cannot pass. Raises BadRow."""
    result = integer(value)
    if not 10**12 <= result < 10**13:
        raise BadRow("not_milliseconds")
    return result * 1_000_000
