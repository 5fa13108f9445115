"""Leverage tiers, their weights, liquidation prices (`spec: engine`, sections 6, 7, 13.5). Pure.

Every per-tier vector of the engine is float64[tiers] over the whole ladder in ascending order; a disabled tier's element is 0.

Limits: cross and portfolio margin have no such price, the step-wise reduction of large positions is not modelled, and what is
projected with these prices is modelled exposure, never an expected liquidation amount.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mpengine.brackets import Bracket
from mpengine.engine.buckets import ordered_sum
from shm.records import PositionSide

MAX_TIER_WEIGHT: Final = 0.35
MIN_MASS_MID: Final = 0.25
MID_MAX_LEVERAGE: Final = 25
SMALLEST_SUM: Final = 1e-9
MARGIN_SHARE: Final = 0.5
MAX_LOOKUPS: Final = 20

Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TierLadder:
    """Tiers of one symbol, ascending. `leverage`: float64[tiers]; `enabled`: bool[tiers].

    `defaults`: the configured weights, sum 1, disabled 0.
    """

    tiers: tuple[int, ...]
    leverage: Weights
    enabled: npt.NDArray[np.bool_]
    defaults: Weights

    @property
    def names(self) -> tuple[str, ...]:
        """Tiers as the keys of documents and files."""
        return tuple(str(tier) for tier in self.tiers)

    def by_name(self, vector: npt.NDArray[np.float64]) -> dict[str, float]:
        """A per-tier vector as a document shows it."""
        return dict(zip(self.names, vector.tolist()))


def make_ladder(raw: Mapping[str, float], disabled: Collection[int]) -> TierLadder:
    """Ladder of configured raw weights by tier ("25" -> 0.7). Raises ValueError where no enabled tier has weight."""
    tiers = tuple(sorted(int(name) for name in raw))
    enabled = np.array([tier not in disabled for tier in tiers])
    weights = np.array([raw[str(tier)] for tier in tiers], np.float64) * enabled
    total = ordered_sum(weights)
    if not total > 0.0:
        raise ValueError("no enabled tier has a weight")
    ladder = TierLadder(tiers, np.array(tiers, np.float64), enabled, weights / total)
    for array in (ladder.leverage, ladder.enabled, ladder.defaults):
        array.setflags(write=False)
    return ladder


# weights ---------------------------------------------------------------------------------------------------------------


def enforce(ladder: TierLadder, weights: npt.ArrayLike) -> Weights:
    """Any weights made usable: disabled tiers 0, sum 1; the defaults where nothing usable is left (section 6.1).

    Raises ValueError for another number of tiers, a number that is negative or not finite.
    """
    given = np.asarray(weights, np.float64)
    if given.shape != ladder.leverage.shape or not np.isfinite(given).all() or (given < 0.0).any():
        raise ValueError("weights must be one finite number >= 0 per tier")
    kept = np.where(ladder.enabled, given, 0.0)
    total = ordered_sum(kept)
    if not SMALLEST_SUM < total < math.inf:
        return ladder.defaults.copy()
    scaled: Weights = kept / total
    return scaled


def allowed(ladder: TierLadder, weights: npt.ArrayLike) -> Weights:
    """The nearest allowed weights: `enforce`, then at least 0.25 on the enabled tiers up to 25x, then no weight above 0.35.

    Section 13.5. V: [.6, .2, .1, .06, .04] -> [.35, .325, .1625, .0975, .065]. Raises ValueError as `enforce`.
    """
    kept = enforce(ladder, weights)
    middle = ladder.enabled & (ladder.leverage <= MID_MAX_LEVERAGE)
    return fill_water(_lift(kept, middle, ladder.enabled & ~middle), ladder.enabled, MAX_TIER_WEIGHT)


def _lift(weights: Weights, middle: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_]) -> Weights:
    """At least MIN_MASS_MID on `middle`, taken from `others` in proportion."""
    mass = ordered_sum(weights[middle])
    if not middle.any() or not others.any() or mass >= MIN_MASS_MID:
        return weights
    lifted = weights.copy()
    # Shares first: a factor to a mass near the smallest number would be infinite.
    lifted[middle] = weights[middle] / mass * MIN_MASS_MID if mass > 0.0 else MIN_MASS_MID / middle.sum()
    lifted[others] = weights[others] * ((1.0 - MIN_MASS_MID) / ordered_sum(weights[others]))
    return lifted


def fill_water(weights: Weights, enabled: npt.NDArray[np.bool_], cap: float) -> Weights:
    """Weights with sum 1 and none above `cap`: what a capped tier loses goes to the others in proportion (equally if all are 0).

    Needs `cap` x enabled tiers >= 1.
    """
    filled, capped = weights.copy(), np.zeros(weights.shape, np.bool_)
    while (over := enabled & ~capped & (filled > cap)).any():
        capped |= over
        filled[capped] = cap
        free = enabled & ~capped
        rest = 1.0 - cap * float(capped.sum())
        mass = ordered_sum(filled[free])
        filled[free] = filled[free] / mass * rest if mass > 0.0 else rest / max(1, int(free.sum()))
    return filled


def entropy_bits(weights: Weights) -> float:
    """-sum w log2 w over the positive weights: bits; at most log2 of their number."""
    positive = weights[weights > 0.0]
    return -ordered_sum(positive * np.log2(positive)) + 0.0


def lowest_entropy_bits(cap: float) -> float:
    """The smallest entropy that weights with sum 1 and none above `cap` can have: as many at the cap as fit, the rest in one."""
    full = int(1.0 / cap)
    return entropy_bits(np.array([cap] * full + [max(0.0, 1.0 - full * cap)]))


# prices ----------------------------------------------------------------------------------------------------------------


def margin_rates(leverage: npt.NDArray[np.float64], mmr: float, first: Bracket | None) -> npt.NDArray[np.float64]:
    """float64[tiers]: maintenance margin rate at each leverage in the first bracket.

    `mmr` where the bracket offers that leverage; min(mmr, 0.5 / leverage) where it does not, or no bracket is known: a margin
    rate near or above the initial margin would make no sense.
    """
    offered = leverage <= (first.max_leverage if first is not None else 0)
    return np.where(offered, mmr, np.minimum(mmr, MARGIN_SHARE / leverage))


def liquidation_price(side: PositionSide, entry: float, leverage: float, mmr: float) -> float:
    """Price (USD) at which an isolated position is liquidated: long E (1 - 1/L)/(1 - m), short E (1 + 1/L)/(1 + m).

    To first order the distance is 1/L - m, before the bankruptcy price. V: E 100,000, L 100, m .004: 99,397.6 / 100,597.6.
    Raises ValueError for entry <= 0, leverage < 1, m outside [0, 1), or a number that is not finite.
    """
    if not (0.0 < entry < math.inf and 1.0 <= leverage < math.inf and 0.0 <= mmr < 1.0):
        raise ValueError("entry must be above 0, leverage at least 1, margin rate in [0, 1)")
    if side is PositionSide.LONG:
        return entry * (1.0 - 1.0 / leverage) / (1.0 - mmr)
    return entry * (1.0 + 1.0 / leverage) / (1.0 + mmr)


def liquidation_prices(
    side: PositionSide, entry: float, leverage: npt.NDArray[np.float64], mmr: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """`liquidation_price` for float64[tiers] of leverages and margin rates."""
    if side is PositionSide.LONG:
        return entry * (1.0 - 1.0 / leverage) / (1.0 - mmr)
    return entry * (1.0 + 1.0 / leverage) / (1.0 + mmr)


def bankruptcy_price(side: PositionSide, entry: float, leverage: float) -> float:
    """Price (USD) at which the margin is used up: E (1 -/+ 1/L). Raises ValueError as `liquidation_price`."""
    return liquidation_price(side, entry, leverage, 0.0)


def tiered_liquidation_price(
    side: PositionSide, entry: float, leverage: float, notional_usd: float, brackets: Sequence[Bracket]
) -> float | None:
    """Liquidation price of a position of known size (USD at entry), with the bracket that holds its notional at that price.

    long E (1 - 1/L - c/N)/(1 - r), short E (1 + 1/L + c/N)/(1 + r). None where the bracket of N does not offer this leverage, or no
    price above 0 exists. V: E 100,000, Binance BTC, N 850k, 10x long: 90,416.79. Raises ValueError as `liquidation_price`.
    """
    if not (0.0 < notional_usd < math.inf):
        raise ValueError("notional must be above 0")
    at = _row_of(notional_usd, brackets)
    liquidation_price(side, entry, leverage, brackets[at].mmr)  # checks the numbers
    if leverage > brackets[at].max_leverage:
        return None
    price = _price_in(side, entry, leverage, notional_usd, brackets[at])
    seen = [at]
    while len(seen) < MAX_LOOKUPS and (at := _row_of(notional_usd * price / entry, brackets)) not in seen:
        seen.append(at)
        price = _price_in(side, entry, leverage, notional_usd, brackets[at])
    if at in seen[:-1]:  # brackets name each other in a circle: the highest of them
        price = _price_in(side, entry, leverage, notional_usd, brackets[max(seen[seen.index(at) :])])
    return price if price > 0.0 else None


def _price_in(side: PositionSide, entry: float, leverage: float, notional_usd: float, row: Bracket) -> float:
    sign = 1.0 if side is PositionSide.LONG else -1.0
    return entry * (1.0 - sign * (1.0 / leverage + row.amount_usd / notional_usd)) / (1.0 - sign * row.mmr)


def _row_of(notional_usd: float, brackets: Sequence[Bracket]) -> int:
    for at, row in enumerate(brackets):
        if notional_usd <= row.cap_usd:
            return at
    return len(brackets) - 1
