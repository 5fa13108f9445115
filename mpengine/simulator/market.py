"""The synthetic market: any number of symbols, each with price, book, takers, leveraged positions and liquidations. Pure.

Time comes in as `now_ns`, chance as a numpy Generator: equal generators and times give equal markets, bit by bit. Venue wires
(`binance_wire`, ...) turn the changes that `step` yields into messages; the truth behind them is readable by `truth`.

One step of a symbol, in this order: the mark follows the middle of the book; positions that it reached are closed by forced
orders (batch 0 of the book, together with the takers of the step); makers follow the fair price (batch 1) and fidget (batch 2).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from mpengine.simulator.book import Book, BookSide, Fills
from mpengine.simulator.draws import Draws, Mix
from mpengine.simulator.makers import Makers
from mpengine.simulator.positions import LONG, SHORT, Position, Positions, bankruptcy_price
from mpengine.simulator.price import PricePath
from shm.records import PositionSide

SECOND_NS: Final = 1_000_000_000
STEP_NS: Final = 100_000_000
BATCHES: Final = 3
FUNDING_NS: Final = 8 * 3600 * SECOND_NS
INDEX_TAU_S: Final = 2.0
BASIS_TAU_S: Final = 90.0
BASIS_SIGMA: Final = 0.8e-4
TRADE_SPREAD: Final = 1.6  # sigma of the log size of a taker order
TRADE_CAP: Final = 400.0  # largest order, in typical orders
POSITION_ORDER: Final = 8.0  # orders of at least so many typical ones open or close positions; the small ones are noise
OPEN_SHARE: Final = 0.45  # of those open a position; as many close one while open interest is at its usual level
KEPT_TRADES: Final = 2000
KEPT_LIQUIDATIONS: Final = 10_000
KEPT_RATIOS: Final = 500  # five-minute marks
RATIO_NS: Final = 300 * SECOND_NS
TOP_SHARE: Final = 0.2  # "top traders": the largest fifth of all positions
MIX_DEFAULT: Final[Mapping[int, float]] = {5: 0.20, 10: 0.17, 20: 0.20, 25: 0.15, 50: 0.14, 75: 0.07, 100: 0.05, 125: 0.02}


SHARES: Final[Mapping[str, float]] = {"binance": 0.5, "bybit": 0.3, "okx": 0.2}
"""How the synthetic market is divided: each position, and so each liquidation and the open interest, belongs to one venue."""

_SPREAD: Final = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, slots=True)
class SymbolSpec:
    """One synthetic symbol. `price`, `tick` in USD, `lot` in base asset. `names`: venue -> its symbol.

    `mmr`, `max_leverage`: first maintenance bracket (None: no bracket table). `mix`: leverage -> weight of the traders' choice.
    `activity` scales the number of taker orders and book changes; `depth_usd`, `trade_usd`: typical level and order;
    `open_interest_usd`, `positions`: what is open at the start, per side.
    """

    symbol: str
    price: float
    tick: float
    lot: float
    names: Mapping[str, str] = field(default_factory=dict)
    mmr: float = 0.005
    max_leverage: int | None = None
    mix: Mapping[int, float] = field(default_factory=lambda: dict(MIX_DEFAULT))
    activity: float = 1.0
    volatility: float = 1.0
    depth_usd: float = 20_000.0
    trade_usd: float = 800.0
    open_interest_usd: float = 20e6
    positions: int = 400

    def __post_init__(self) -> None:
        for name in ("price", "tick", "lot", "mmr", "activity", "volatility", "depth_usd", "trade_usd", "open_interest_usd"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{self.symbol}: {name} must be positive, was {getattr(self, name)}")
        if self.price < 100 * self.tick:
            raise ValueError(f"{self.symbol}: tick must be below a hundredth of the price")

    def share(self, venue: str) -> float:
        """Part of the positions that `venue` holds; 0 for one that trades it without holding any (it shows sizes of its own)."""
        return SHARES[venue] / sum(SHARES[name] for name in self.names if name in SHARES) if venue in SHARES else 0.0

    def venue_of(self, number: int) -> str:
        """Venue of the forced order with this running number: spread evenly by the golden ratio, so that no chance is drawn."""
        place = number * _SPREAD % 1.0
        venues = [name for name in SHARES if name in self.names] or ["binance"]
        for venue in venues[:-1]:
            place -= self.share(venue)
            if place < 0.0:
                return venue
        return venues[-1]


@dataclass(frozen=True, slots=True)
class BookBatch:
    """Book changes of one moment. Ids as Binance counts them: `previous_id` chains, ids between batches belong to others.

    `bids`, `asks`: tick -> lots now (0: gone). `touch`: best bid tick and lots, best ask tick and lots, after the batch.
    """

    ts_ns: int
    first_id: int
    last_id: int
    previous_id: int
    bids: dict[int, int]
    asks: dict[int, int]
    touch: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Trade:
    """One aggregated trade: fills of one taker at one price. Ids are consecutive; `normal_lots` leaves out retail improvement."""

    number: int
    ts_ns: int
    tick: int
    lots: int
    normal_lots: int
    first_fill: int
    last_fill: int
    buy: bool


@dataclass(frozen=True, slots=True)
class ForcedOrder:
    """One liquidation. `side` is the position's; `limit` its bankruptcy price, `average` the fill, `mark` what reached it.

    `venue`: where the position was.
    """

    ts_ns: int
    side: PositionSide
    leverage: int
    entry: float
    liquidation: float
    mark: float
    lots: int
    limit: float
    average: float
    filled_lots: int
    last_lots: int
    venue: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Mark price, index, settlement estimate (USD) and funding of one moment."""

    ts_ns: int
    mark: float
    index: float
    settle: float
    funding_rate: float
    next_funding_ns: int


@dataclass(frozen=True, slots=True)
class Ratios:
    """Long shares (0..1) of one moment: of all accounts, of the top traders' accounts, of the top traders' positions."""

    ts_ns: int
    accounts: float
    top_accounts: float
    top_positions: float


@dataclass(frozen=True, slots=True)
class Changes:
    """What one step did to one symbol. `mark` only on the steps that begin a second."""

    symbol: SymbolMarket
    ts_ns: int
    batches: list[BookBatch]
    trades: list[Trade]
    forced: list[ForcedOrder]
    mark: Mark | None


def merged(steps: Sequence[Changes], number: int) -> Changes:
    """Steps of one symbol that follow each other, told as one: as many batches as a step has, the ids chain as before.

    The trades of one taker side are told as one, at their mean price, numbered from `number`: volumes are exact, counts are not.
    """
    *earlier, last = steps
    first, *rest = last.batches
    batches = [*(batch for step in earlier for batch in step.batches), first]
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    for batch in batches:
        bids.update(batch.bids)
        asks.update(batch.asks)
    begun = batches[0]
    whole = BookBatch(first.ts_ns, begun.first_id, first.last_id, begun.previous_id, bids, asks, first.touch)
    sides = [[trade for step in steps for trade in step.trades if trade.buy is buy] for buy in (False, True)]
    trades = [_as_one(group, number + index) for index, group in enumerate(group for group in sides if group)]
    forced = [order for step in steps for order in step.forced]
    marks = [step.mark for step in steps if step.mark is not None]
    return Changes(last.symbol, last.ts_ns, [whole, *rest], trades, forced, marks[-1] if marks else None)


def _as_one(trades: Sequence[Trade], number: int) -> Trade:
    """One trade with the lots of all."""
    lots, last = sum(trade.lots for trade in trades), trades[-1]
    tick = round(sum(trade.tick * trade.lots for trade in trades) / lots)
    normal = sum(trade.normal_lots for trade in trades)
    return Trade(number, last.ts_ns, tick, lots, normal, trades[0].first_fill, last.last_fill, last.buy)


@dataclass(frozen=True, slots=True)
class MarketState:
    """One symbol between two steps, in plain values. `open`: side, entry, leverage, lots, opened_ns of each position.

    `path`: see `PricePath.state_of`. `ids`: last book update, trade, fill. The generators are not in it: who goes on draws anew.
    """

    symbol: str
    tick: float
    lot: float
    now_ns: int
    bids: dict[int, int]
    asks: dict[int, int]
    open: list[tuple[PositionSide, float, int, int, int]]
    usual_lots: int
    path: tuple[float, int, float, float, float]
    index: float
    mark_price: float
    basis: float
    funding_rate: float
    ids: tuple[int, int, int]
    liquidation_count: int
    liquidations: list[ForcedOrder]
    ratios: list[Ratios]


class SymbolMarket:
    """One symbol. Advanced by `Market`; readable by anyone between steps."""

    def __init__(self, spec: SymbolSpec, rng: np.random.Generator, start_ns: int) -> None:
        self.spec: Final = spec
        self.now_ns = start_ns
        self.book: Final = Book()
        self.positions: Final = Positions(spec.mmr, spec.max_leverage)
        self.liquidations: Final[deque[ForcedOrder]] = deque(maxlen=KEPT_LIQUIDATIONS)
        self.liquidation_count = 0
        self.trades: Final[deque[Trade]] = deque(maxlen=KEPT_TRADES)
        self.ratios: Final[deque[Ratios]] = deque(maxlen=KEPT_RATIOS)
        self._draws = draws = Draws(rng)
        self._mix = Mix(spec.mix)
        self.path: Final = PricePath(spec.price, draws, spec.volatility)
        self._makers = Makers(spec.tick, spec.lot, spec.price, spec.depth_usd, draws)
        self.index = self.mark_price = spec.price
        self._basis = 0.0
        self._forcing: tuple[PositionSide, float] | None = None
        self.funding_rate = 1e-4
        # Ids start anywhere, as on a venue that has been running for years.
        self.last_id = 5_000_000_000_000 + draws.below(1_000_000_000)
        self._trade_number = 3_000_000_000 + draws.below(100_000_000)
        self._fill_number = 8_000_000_000 + draws.below(100_000_000)
        bid, ask = self._touch(spec.price)
        self._makers.seed(self.book, bid, ask)
        self.book.drain()
        self._populate()
        self.usual_lots = max(1, self.open_lots)
        self.ratios.append(self._measure_ratios(start_ns // RATIO_NS * RATIO_NS))

    @property
    def open_lots(self) -> int:
        """Open interest, single-sided, in lots."""
        return self.positions.lots(LONG)

    @property
    def open_interest(self) -> float:
        """Open interest, single-sided, in base asset."""
        return self.open_lots * self.spec.lot

    @property
    def mark(self) -> Mark:
        following = (self.now_ns // FUNDING_NS + 1) * FUNDING_NS
        settle = 0.3 * self.mark_price + 0.7 * self.index
        return Mark(self.now_ns, self.mark_price, self.index, settle, self.funding_rate, following)

    def step(self, now_ns: int, common: float) -> Changes:
        """Advance to `now_ns`. `common`: the whole market's standard normal of this step."""
        dt_ns = now_ns - self.now_ns
        dt_s = dt_ns / SECOND_NS
        second = now_ns // SECOND_NS != self.now_ns // SECOND_NS
        began_ns, self.now_ns = self.now_ns, now_ns
        self._advance_mark(dt_s)
        forced, trades = self._liquidate(began_ns + dt_ns // 10)
        fair = self.path.advance(dt_s, common)
        trades += self._takers(fair, began_ns, dt_s)
        batches = [self._batch(began_ns + dt_ns // BATCHES)]
        self._makers.follow(self.book, *self._touch(fair))
        batches.append(self._batch(began_ns + 2 * dt_ns // BATCHES))
        restless = math.sqrt(self.spec.activity) * (1.0 + 0.5 * self.path.regime)
        self._makers.fidget(self.book, 2 + self._draws.poisson(14 * restless), self._draws.poisson(3 * restless))
        batches.append(self._batch(now_ns - 1_000_000))
        if second:
            self._every_second()
        return Changes(self, now_ns, batches, trades, forced, self.mark if second else None)

    def truth(self) -> dict[str, Any]:
        """What no exchange tells: open positions and the newest 10,000 liquidations; prices in USD, sizes in base asset."""
        lot = self.spec.lot
        return {
            "symbol": self.spec.symbol,
            "ts_ns": self.now_ns,
            "fair": self.path.value,
            "mark": self.mark_price,
            "index": self.index,
            "regime": self.path.regime.name.lower(),
            "driven_to": self.path.driven_to,
            "open_interest": self.open_interest,
            "leverage_mix": {str(leverage): weight for leverage, weight in self.spec.mix.items()},
            "positions": [
                {
                    "side": position.side.name.lower(),
                    "leverage": position.leverage,
                    "entry": position.entry,
                    "qty": position.lots * lot,
                    "liquidation": position.liquidation,
                    "opened_ns": position.opened_ns,
                }
                for side in (LONG, SHORT)
                for position in self.positions.of(side)
            ],
            "liquidation_count": self.liquidation_count,
            "liquidations": [
                {
                    "ts_ns": order.ts_ns,
                    "side": order.side.name.lower(),
                    "venue": order.venue,
                    "leverage": order.leverage,
                    "entry": order.entry,
                    "qty": order.lots * lot,
                    "liquidation": order.liquidation,
                    "mark": order.mark,
                    "limit": order.limit,
                    "average": order.average,
                    "filled": order.filled_lots * lot,
                }
                for order in self.liquidations
            ],
        }

    def state_of(self) -> MarketState:
        """What `restore` goes on from. An operator's move is not in it; trades that were printed stay with this market."""
        spec, (bids, asks) = self.spec, (dict(side.levels) for side in (self.book.bids, self.book.asks))
        held = [position for side in (LONG, SHORT) for position in self.positions.of(side)]
        return MarketState(
            spec.symbol, spec.tick, spec.lot, self.now_ns, bids, asks,
            [(one.side, one.entry, one.leverage, one.lots, one.opened_ns) for one in held], self.usual_lots, self.path.state_of(),
            self.index, self.mark_price, self._basis, self.funding_rate, (self.last_id, self._trade_number, self._fill_number),
            self.liquidation_count, list(self.liquidations), list(self.ratios),
        )  # fmt: skip

    def check(self, state: MarketState) -> None:
        """Raises ValueError for a state of another symbol, tick or lot, or one without a book."""
        spec = self.spec
        if (state.symbol, state.tick, state.lot) != (spec.symbol, spec.tick, spec.lot):
            raise ValueError(f"a state of {state.symbol}, tick {state.tick}, lot {state.lot}")
        if not state.bids or not state.asks or max(state.bids) >= min(state.asks):
            raise ValueError("a state without a book")

    def restore(self, state: MarketState) -> None:
        """Be the market that `state` was of. Raises ValueError for a state that `check` refuses."""
        self.check(state)
        self.book.restore(state.bids, state.asks)
        self.positions.clear()
        for side, entry, leverage, lots, opened_ns in state.open:
            self.positions.open(side, entry, leverage, lots, opened_ns)
        self.path.restore(state.path)
        self.now_ns, self.usual_lots = state.now_ns, state.usual_lots
        self.index, self.mark_price, self._basis = state.index, state.mark_price, state.basis
        self.funding_rate = state.funding_rate
        self.last_id, self._trade_number, self._fill_number = state.ids
        self.liquidation_count = state.liquidation_count
        for kept, known in ((self.liquidations, state.liquidations), (self.ratios, state.ratios)):
            kept.clear()
            kept.extend(known)  # type: ignore[arg-type]  # each list is its deque's
        self.trades.clear()

    def force(self, side: PositionSide, usd: float) -> dict[str, float | int]:
        """Drive the price until the mark has reached positions of `side` worth `usd` (or all); then it is free again.

        Returns the target price (USD), how many positions and what value lie before it. Raises ValueError without positions.
        """
        ordered = sorted(self.positions.of(side), key=lambda p: p.liquidation, reverse=side is LONG)
        if not ordered:
            raise ValueError(f"{self.spec.symbol} has no {side.name.lower()} position")
        value, count, target = 0.0, 0, ordered[0].liquidation
        for position in ordered:
            value += position.lots * self.spec.lot * position.liquidation
            count += 1
            target = position.liquidation
            if value >= usd:
                break
        self._forcing = side, target
        # The mark trails the price and carries a basis: go a little beyond.
        self.path.drive(target * (0.999 if side is LONG else 1.001))
        return {"target": target, "positions": count, "usd": value}

    def _advance_mark(self, dt_s: float) -> None:
        """Index: exponential mean of the book's middle; mark: index with a slowly wandering basis and a little noise."""
        middle = self.book.middle * self.spec.tick
        self.index += (middle - self.index) * (1.0 - math.exp(-dt_s / INDEX_TAU_S))
        keep = math.exp(-dt_s / BASIS_TAU_S)
        self._basis = self._basis * keep + BASIS_SIGMA * math.sqrt(1.0 - keep * keep) * self._draws.normal()
        self.mark_price = self.index * (1.0 + self._basis + 2e-6 * self._draws.normal())

    def _liquidate(self, ts_ns: int) -> tuple[list[ForcedOrder], list[Trade]]:
        """Forced orders of all positions that the mark has reached, and the trades they made."""
        orders: list[ForcedOrder] = []
        trades: list[Trade] = []
        before = self.book.middle
        for position in self.positions.crossed(self.mark_price):
            # Whoever took the other side leaves with it: open interest falls by the whole position.
            other = SHORT if position.side is LONG else LONG
            self.positions.close_some(other, position.lots, self._draws.uniform())
            order, fills = self._forced_order(position, ts_ns, self.spec.venue_of(self.liquidation_count + len(orders)))
            orders.append(order)
            trades += self._print(position.side is SHORT, fills, ts_ns)
        if orders:
            self.liquidations.extend(orders)
            self.liquidation_count += len(orders)
            self.path.push(math.log(self.book.middle / before))
        if self._forcing is not None and self._reached(*self._forcing):
            self._forcing = None
            self.path.drive(None)
        return orders, trades

    def _forced_order(self, position: Position, ts_ns: int, venue: str) -> tuple[ForcedOrder, Fills]:
        """The order and what it took from the book, down to the bankruptcy price."""
        tick = self.spec.tick
        limit = bankruptcy_price(position.side, position.entry, position.leverage) / tick
        if position.side is LONG:
            limit_tick, against = math.ceil(limit - 1e-6), self.book.bids
        else:
            limit_tick, against = math.floor(limit + 1e-6), self.book.asks
        fills = against.take(position.lots, limit_tick)
        # A market that jumped over the bankruptcy price fills nothing: the insurance fund takes the position, at that price.
        taken = fills or [(limit_tick, position.lots)]
        filled = sum(lots for _, lots in taken)
        average = sum(price * lots for price, lots in taken) * tick / filled
        known = (position.side, position.leverage, position.entry, position.liquidation, self.mark_price, position.lots)
        return ForcedOrder(ts_ns, *known, limit_tick * tick, average, filled, taken[-1][1], venue), fills

    def _reached(self, side: PositionSide, price: float) -> bool:
        return self.mark_price <= price if side is LONG else self.mark_price >= price

    def _takers(self, fair: float, began_ns: int, dt_s: float) -> list[Trade]:
        """Market orders of this step. They lean towards the move, and the side that is run over retreats between them."""
        book, draws = self.book, self._draws
        bid, ask = self._touch(fair)
        move = (bid + ask) / 2 - book.middle
        lean = 0.4 * max(-1.0, min(1.0, move * self.spec.tick / (fair * 2e-5)))
        count = draws.poisson(self.path.shape.trades_s * dt_s * self.spec.activity)
        started = book.middle
        trades: list[Trade] = []
        for index in range(count):
            reached = round(started + move * (index + 1) / (count + 1))
            if move > 0:
                book.asks.retreat(reached)
            else:
                book.bids.retreat(reached)
            buy = draws.uniform() < 0.5 + lean
            size = min(TRADE_CAP, math.exp(TRADE_SPREAD * draws.normal()))
            # After the forced orders, which come at a tenth of the step.
            ts_ns = began_ns + int(dt_s * SECOND_NS * (0.1 + 0.9 * (index + 1) / (count + 1)))
            trades += self._order(buy, size, fair, ts_ns)
        return trades

    def _order(self, buy: bool, size: float, fair: float, ts_ns: int) -> list[Trade]:
        """One taker order of `size` typical ones against the book; large ones open or close positions."""
        lots = max(1, round(size * self.spec.trade_usd / (fair * self.spec.lot)))
        against: BookSide = self.book.asks if buy else self.book.bids
        fills = against.take(lots, against.best - against.sign * max(20, int(against.best * 2e-4)))
        if fills and size >= POSITION_ORDER:
            done = sum(part for _, part in fills)
            self._reposition(buy, sum(tick * part for tick, part in fills) * self.spec.tick / done, done)
        return self._print(buy, fills, ts_ns)

    def _print(self, buy: bool, fills: Fills, ts_ns: int) -> list[Trade]:
        """The aggregated trades of one order: one per price."""
        draws, trades = self._draws, []
        for tick, part in fills:
            self._trade_number += 1
            pieces = min(part, 1 + draws.poisson(0.7))
            first = self._fill_number + 1
            self._fill_number += pieces
            normal = part - part // 3 if draws.uniform() < 0.03 else part
            trades.append(Trade(self._trade_number, ts_ns, tick, part, normal, first, self._fill_number, buy))
        self.trades.extend(trades)
        return trades

    def _reposition(self, buy: bool, price: float, lots: int) -> None:
        """Positions that a taker order opens or closes; the maker on the other side does the same."""
        u = self._draws.uniform()
        if u < OPEN_SHARE:
            self._open_pair(price, lots)
        elif u < OPEN_SHARE * (1.0 + self.open_lots / self.usual_lots):
            for side in (SHORT, LONG) if buy else (LONG, SHORT):
                self.positions.close_some(side, lots, self._draws.uniform())

    def _open_pair(self, entry: float, lots: int) -> None:
        """A long and a short at one price, each with a leverage of its own; none if either would be liquidated at once."""
        leverages = [self._leverage(side, entry) for side in (LONG, SHORT)]
        if leverages[0] is not None and leverages[1] is not None:
            self.positions.open(LONG, entry, leverages[0], lots, self.now_ns)
            self.positions.open(SHORT, entry, leverages[1], lots, self.now_ns)

    def _leverage(self, side: PositionSide, entry: float) -> int | None:
        """A leverage of the mix, lowered until the mark has not reached the liquidation price."""
        leverage: int | None = self._mix.pick(self._draws.uniform())
        while leverage is not None:
            price = self.positions.price(side, entry, leverage)
            if (price < self.mark_price * 0.9998) if side is LONG else (price > self.mark_price * 1.0002):
                return leverage
            leverage = self._mix.next_below(leverage)
        return None

    def _populate(self) -> None:
        """Positions that were opened before the start, at prices some per cent around the first one."""
        spec, draws = self.spec, self._draws
        typical = spec.open_interest_usd / spec.positions / spec.price / spec.lot
        for _ in range(spec.positions):
            entry = spec.price * math.exp(0.012 * draws.normal())
            lots = max(1, round(typical * math.exp(1.2 * draws.normal() - 0.72)))
            self._open_pair(entry, lots)

    def _touch(self, fair: float) -> tuple[int, int]:
        """Best bid and ask (ticks) around a fair price; wider while the market is violent."""
        bid = max(1, math.floor(fair / self.spec.tick))
        extra = self._draws.below(1 + 4 * self.path.regime) if self._draws.uniform() < 0.1 * self.path.regime else 0
        return bid, bid + 1 + extra

    def _batch(self, ts_ns: int) -> BookBatch:
        """What changed in the book, under new ids; only `previous_id` chains, as ids of other updates lie between."""
        previous = self.last_id
        first = previous + 1 + self._draws.below(150)
        self.last_id = first + self._draws.below(int(2400 * self.spec.activity) + 20)
        bids, asks = self.book.drain()
        return BookBatch(ts_ns, first, self.last_id, previous, bids, asks, self.book.touch)

    def _every_second(self) -> None:
        premium = self.mark_price / self.index - 1.0
        self.funding_rate += (max(-3e-3, min(3e-3, 1e-4 + premium)) - self.funding_rate) * 0.002
        if self.now_ns // RATIO_NS != self.ratios[-1].ts_ns // RATIO_NS:
            self.ratios.append(self._measure_ratios(self.now_ns // RATIO_NS * RATIO_NS))

    def _measure_ratios(self, ts_ns: int) -> Ratios:
        everyone = self.positions.of(LONG) + self.positions.of(SHORT)
        top = sorted(everyone, key=lambda p: -p.lots)[: max(1, int(len(everyone) * TOP_SHARE))]
        accounts = sum(p.side is LONG for p in everyone) / max(1, len(everyone))
        top_accounts = sum(p.side is LONG for p in top) / max(1, len(top))
        lots = sum(p.lots for p in top)
        top_positions = sum(p.lots for p in top if p.side is LONG) / max(1, lots)
        return Ratios(ts_ns, accounts, top_accounts, top_positions)


class Market:
    """All symbols. `start_ns` is rounded down to a whole step, so that seconds and minutes fall on steps."""

    def __init__(self, specs: Sequence[SymbolSpec], rng: np.random.Generator, start_ns: int, step_ns: int = STEP_NS) -> None:
        """Raises ValueError without symbols, on equal names, or where `step_ns` does not divide a second."""
        if not specs or len({spec.symbol for spec in specs}) != len(specs):
            raise ValueError("a market needs at least one symbol and no symbol twice")
        if step_ns <= 0 or SECOND_NS % step_ns:
            raise ValueError(f"a step must divide a second, was {step_ns} ns")
        self.step_ns: Final = step_ns
        self.now_ns = start_ns // step_ns * step_ns
        shared, *own = rng.spawn(len(specs) + 1)
        self._common = Draws(shared).normal
        self.symbols: Final = {spec.symbol: SymbolMarket(spec, child, self.now_ns) for spec, child in zip(specs, own, strict=True)}

    def step(self, now_ns: int) -> Iterator[list[Changes]]:
        """Advance in whole steps up to `now_ns`; yields the changes of all symbols after each step."""
        while self.now_ns + self.step_ns <= now_ns:
            self.now_ns += self.step_ns
            common = self._common()
            yield [symbol.step(self.now_ns, common) for symbol in self.symbols.values()]

    def keep_only(self, symbol: str) -> None:
        """Go on with one symbol. It moves as it would among the others, since each draws from a generator of its own."""
        for other in self.symbols.keys() - {symbol}:
            del self.symbols[other]

    def restore(self, states: Sequence[MarketState]) -> None:
        """Go on where `states` ended, symbols without one as they are. Raises KeyError for a symbol that is not here,
        ValueError for a state that it refuses."""
        for state in states:
            self.symbols[state.symbol].restore(state)
        self.skip(max((state.now_ns for state in states), default=self.now_ns))

    def skip(self, now_ns: int) -> None:
        """Let time pass without anything happening: what an exchange does while it stands still. Never goes back."""
        self.now_ns = max(self.now_ns, now_ns // self.step_ns * self.step_ns)
        for symbol in self.symbols.values():
            symbol.now_ns = self.now_ns

    def truth(self, symbol: str) -> dict[str, Any]:
        """See `SymbolMarket.truth`. Raises KeyError for an unknown symbol."""
        return self.symbols[symbol].truth()
