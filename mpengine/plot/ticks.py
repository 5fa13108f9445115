"""Round prices, times and amounts for axes and legends, and how they are written. Pure. Times are UTC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

MINUTE_MS: Final = 60_000
DAY_MS: Final = 1440 * MINUTE_MS
TIME_STEPS_MIN: Final = (1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440)
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNITS: Final = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def round_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that divides `span` into at most `most` parts. `span` > 0, `most` >= 1."""
    least = span / most
    power = 10.0 ** math.floor(math.log10(least))
    return next((factor * power for factor in (1.0, 2.0, 5.0) if factor * power >= least * (1.0 - 1e-9)), 10.0 * power)


def price_ticks(low: float, high: float, most: int) -> list[float]:
    """Round prices inside of [low, high], ascending."""
    step = round_step(high - low, max(1, most))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, digits_of(step)) for index in range(first, last + 1)]


def digits_of(step: float) -> int:
    """Decimals that a multiple of a round step needs."""
    return max(0, -math.floor(math.log10(step) + 1e-9))


def price_text(price: float, digits: int) -> str:
    """`65,892.7`."""
    return f"{price:,.{digits}f}"


def plain_price(price: float) -> str:
    """A price by itself, with the digits that its size calls for."""
    size = abs(price)
    return price_text(price, next((digits for least, digits in ((10_000, 1), (10, 2), (1, 3), (0.1, 4)) if size >= least), 6))


def time_ticks(t0_ms: int, t1_ms: int, most: int) -> list[int]:
    """Round times inside of [t0, t1], epoch ms: at most `most` of them, a multiple of the same number of minutes of the day."""
    least_ms = (t1_ms - t0_ms) / max(1, most)
    step_ms = next((minutes * MINUTE_MS for minutes in TIME_STEPS_MIN if minutes * MINUTE_MS >= least_ms), None)
    if step_ms is None:
        step_ms = math.ceil(least_ms / DAY_MS) * DAY_MS
    return list(range(-(-t0_ms // step_ms) * step_ms, t1_ms + 1, step_ms))


def time_text(t_ms: int) -> str:
    """`14:30`; at midnight the day, `21 Nov`."""
    when = datetime.fromtimestamp(t_ms / 1000, UTC)
    return f"{when.day} {MONTHS[when.month - 1]}" if t_ms % DAY_MS == 0 else f"{when:%H:%M}"


def moment_text(t_ms: int) -> str:
    """`2026-11-21 14:30`."""
    return f"{datetime.fromtimestamp(t_ms / 1000, UTC):%Y-%m-%d %H:%M}"


def range_text(t0_ms: int, t1_ms: int) -> str:
    """`2026-11-21 02:30 to 14:30 UTC`, the day again where it is another one."""
    same = t0_ms // DAY_MS == t1_ms // DAY_MS
    return f"{moment_text(t0_ms)} to {moment_text(t1_ms)[11 if same else 0 :]} UTC"


def usd_text(usd: float) -> str:
    """`1.2M`, `340k`, `120`: two significant digits, as a cell knows it no better."""
    rounded = float(f"{usd:.2g}")
    for unit, letter in _UNITS:
        if rounded >= unit:
            return f"{rounded / unit:.3g}{letter}"
    return f"{rounded:.3g}"


def age_text(seconds: float) -> str:
    """`12 s`, `4 min`, `2 h`, `3 d`."""
    whole = max(0, int(seconds))
    for limit, unit, name in ((100, 1, "s"), (6000, 60, "min"), (172_800, 3600, "h")):
        if whole < limit:
            return f"{round(whole / unit)} {name}"
    return f"{round(whole / 86_400)} d"


def span_text(ms: int) -> str:
    """`30 s`, `5 min`, `1 h`."""
    return f"{ms // 1000} s" if ms < MINUTE_MS else f"{ms // MINUTE_MS} min" if ms < 60 * MINUTE_MS else f"{ms // 3_600_000} h"


def usd_marks(lo_usd: float, hi_usd: float) -> Sequence[float]:
    """Amounts worth a tick on a logarithmic scale, the most important first: ends, powers of ten, then 2 and 5 times these."""
    powers = [10.0**power for power in range(math.ceil(math.log10(lo_usd)), math.floor(math.log10(hi_usd)) + 1)]
    below = [10.0**power for power in range(math.floor(math.log10(lo_usd)), math.floor(math.log10(hi_usd)) + 1)]
    others = [factor * power for factor in (2.0, 5.0) for power in below]
    return [lo_usd, hi_usd, *powers, *(usd for usd in others if lo_usd < usd < hi_usd)]
