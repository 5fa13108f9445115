"""The fair price of one synthetic symbol: volatility regimes, drift, jumps, impact. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from mpengine.simulator.draws import Draws


class Regime(IntEnum):
    """How restless the market is."""

    CALM = 0
    NORMAL = 1
    VIOLENT = 2


@dataclass(frozen=True, slots=True)
class RegimeShape:
    """`sigma`: standard deviation of the log price per square root second; `drift`: of its slope per second (drawn on entry);
    `dwell_s`: mean stay; `jump_s`: mean time between jumps; `jump`: their standard deviation; `trades_s`: taker orders a second.
    """

    sigma: float
    drift: float
    dwell_s: float
    jump_s: float
    jump: float
    trades_s: float


SHAPES: Final[dict[Regime, RegimeShape]] = {
    Regime.CALM: RegimeShape(sigma=0.5e-4, drift=1e-6, dwell_s=240.0, jump_s=3600.0, jump=10e-4, trades_s=8.0),
    Regime.NORMAL: RegimeShape(sigma=1.0e-4, drift=5e-6, dwell_s=240.0, jump_s=1200.0, jump=15e-4, trades_s=18.0),
    Regime.VIOLENT: RegimeShape(sigma=3.5e-4, drift=6e-5, dwell_s=40.0, jump_s=60.0, jump=20e-4, trades_s=50.0),
}
"""About 28, 56 and 200 % a year. A violent spell of 40 s drifts some 25 bp: enough to reach high leverage, not the 5x tier."""

NEXT: Final[dict[Regime, tuple[tuple[Regime, float], ...]]] = {
    Regime.CALM: ((Regime.NORMAL, 0.8), (Regime.VIOLENT, 1.0)),
    Regime.NORMAL: ((Regime.CALM, 0.6), (Regime.VIOLENT, 1.0)),
    Regime.VIOLENT: ((Regime.NORMAL, 0.85), (Regime.CALM, 1.0)),
}
COMMON_SHARE: Final = 0.6  # correlation of a symbol's moves with the whole market's
REVERSION_PER_S: Final = 1e-6  # keeps month-long runs within some 10-20 % of the first price
IMPACT_STEP: Final = 0.001  # most that forced orders move the fair price in one step (log)
IMPACT_PER_S: Final = 0.0005  # refill of the impact allowance: a cascade is bounded to some 3 % a minute
IMPACT_ALLOWANCE: Final = 0.02
DRIVE_STEP: Final = 0.001


class PricePath:
    """Fair price `value` in USD, advanced step by step. `push` is the impact of forced orders, `drive` an operator's move."""

    def __init__(self, price: float, draws: Draws, volatility: float = 1.0) -> None:
        if not price > 0:
            raise ValueError(f"a price must be positive, was {price}")
        self.value = price
        self.regime = Regime.NORMAL
        self._anchor = price
        self._draws = draws
        self._volatility = volatility
        self._drift = 0.0
        self._left_s = draws.exponential() * SHAPES[self.regime].dwell_s
        self._allowance = IMPACT_ALLOWANCE
        self._target: float | None = None

    @property
    def shape(self) -> RegimeShape:
        return SHAPES[self.regime]

    @property
    def driven_to(self) -> float | None:
        """Where an operator's move is going; None: free."""
        return self._target

    def advance(self, dt_s: float, common: float) -> float:
        """The price `dt_s` later. `common`: standard normal of the whole market's move in this step."""
        self._switch(dt_s)
        self._allowance = min(IMPACT_ALLOWANCE, self._allowance + IMPACT_PER_S * dt_s)
        draws, shape = self._draws, self.shape
        own = math.sqrt(1.0 - COMMON_SHARE * COMMON_SHARE) * draws.normal()
        move = shape.sigma * self._volatility * math.sqrt(dt_s) * (COMMON_SHARE * common + own)
        move += self._drift * dt_s - REVERSION_PER_S * dt_s * math.log(self.value / self._anchor)
        if draws.uniform() < dt_s / shape.jump_s:
            move += shape.jump * self._volatility * draws.normal()
        if self._target is not None:
            move = self._towards(self._target)
        self.value *= math.exp(move)
        return self.value

    def state_of(self) -> tuple[float, int, float, float, float]:
        """Value, regime, drift, seconds left of the regime, allowance: what `restore` takes. An operator's move is not kept."""
        return self.value, int(self.regime), self._drift, self._left_s, self._allowance

    def restore(self, state: tuple[float, int, float, float, float]) -> None:
        """Go on from `state_of`. Raises ValueError for a price that is not positive or an unknown regime."""
        value, regime, drift, left_s, allowance = state
        if not 0 < value < math.inf:
            raise ValueError(f"a price must be positive, was {value}")
        self.value, self.regime, self._drift, self._left_s, self._allowance = value, Regime(regime), drift, left_s, allowance
        self._target = None

    def push(self, log_move: float) -> None:
        """Impact of forced orders, bounded per step and by an allowance that refills with time."""
        bounded = max(-IMPACT_STEP, min(IMPACT_STEP, log_move))
        bounded = math.copysign(min(abs(bounded), self._allowance), bounded)
        self._allowance -= abs(bounded)
        self.value *= math.exp(bounded)

    def drive(self, target: float | None) -> None:
        """Move to `target` by at most 0.1 % a step and stay there; `None` releases the price."""
        self._target = target

    def _towards(self, target: float) -> float:
        return max(-DRIVE_STEP, min(DRIVE_STEP, math.log(target / self.value)))

    def _switch(self, dt_s: float) -> None:
        self._left_s -= dt_s
        if self._left_s > 0:
            return
        u = self._draws.uniform()
        self.regime = next(regime for regime, edge in NEXT[self.regime] if u < edge)
        self._left_s = self._draws.exponential() * self.shape.dwell_s
        self._drift = self._draws.normal() * self.shape.drift * self._volatility
