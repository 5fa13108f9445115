"""Hyperliquid as of November 2026, over the synthetic market: socket, subscriptions, channels and `/info`. Pure.

The rules that matter here: one subscription per frame; a coin that the venue does not trade, or in other letters, cuts the whole
socket without a word; every book message is a whole book; there are no liquidations. Prices have five significant figures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from mpengine.simulator.binance_rest import MINUTE_NS, Meter, decimals
from mpengine.simulator.book import Fills
from mpengine.simulator.channels import MS, SECOND_NS, Channel, Channels, Clock, Step
from mpengine.simulator.market import Changes, Market, SymbolMarket, Trade
from mpengine.simulator.okx_rest import plain
from mpengine.simulator.wire import ABNORMAL, Delivery, Reply, Session

PATH: Final = "/ws"
SUBSCRIPTIONS: Final = 1000
WEIGHT_PER_MINUTE: Final = 1200
WEIGHTS: Final[Mapping[str, int]] = {"meta": 20, "l2Book": 2}
SHARE: Final = 0.15
"""Open interest of its own, as a part of the whole market's."""

FAST: Final = ":fast"
BOOKS: Final = {"": (20, 5400 * MS), FAST: (5, 540 * MS)}
"""Levels per side and interval of the slow and of the fast book."""

BLOCK_NS: Final = 140 * MS
TRADES_NS: Final = 300 * MS
REPLAY_NS: Final = 20 * SECOND_NS
FIGURES: Final = 5
KINDS: Final = frozenset({"l2Book", "bbo", "trades", "activeAssetCtx"})
DELISTED: Final = ("MATIC", "FTM", "RNDR")
JSON_HEADERS: Final[Mapping[str, str]] = {"Content-Type": "application/json"}


class Coin:
    """One symbol as the venue shows it: prices of five significant figures (whole numbers are always allowed)."""

    __slots__ = ("market", "name", "quantity")

    def __init__(self, market: SymbolMarket, name: str) -> None:
        self.market = market
        self.name = name
        self.quantity = f"%.{decimals(market.spec.lot)}f"

    def group(self) -> tuple[int, str]:
        """Ticks of the market per price step of the venue, and the format of a price."""
        tick = self.market.spec.tick
        exponent = min(0, math.floor(math.log10(self.market.book.middle * tick)) - FIGURES + 1)
        return max(1, round(10.0**exponent / tick)), f"%.{max(1, -exponent)}f"

    def levels(self, count: int) -> tuple[list[str], list[str]]:
        """JSON of the best bids and asks, best first. Prices are rounded away from the touch, which is how orders get there."""
        group, price = self.group()
        book = self.market.book
        bids = _grouped(book.bids.top(count * group), lambda tick: tick // group, count)
        asks = _grouped(book.asks.top(count * group), lambda tick: -(-tick // group), count)
        step = group * self.market.spec.tick
        return [self._level(price % (at * step), lots) for at, lots in bids], [
            self._level(price % (at * step), lots) for at, lots in asks
        ]

    def _level(self, price: str, lots: int) -> str:
        return f'{{"px":"{price}","sz":"{self.quantity % (lots * self.market.spec.lot)}","n":{1 + lots % 9}}}'

    def book(self, count: int, now_ns: int) -> str:
        """JSON of a whole book."""
        bids, asks = self.levels(count)
        return f'{{"coin":"{self.name}","time":{now_ns // MS},"levels":[[{",".join(bids)}],[{",".join(asks)}]]}}'

    def trade(self, trade: Trade, group: int, price: str) -> str:
        """JSON of a trade; B: the aggressor bought."""
        at = -(-trade.tick // group) if trade.buy else trade.tick // group
        size = self.quantity % (trade.lots * self.market.spec.lot)
        return (
            f'{{"coin":"{self.name}","side":"{"B" if trade.buy else "A"}","px":"{price % (at * group * self.market.spec.tick)}",'
            f'"sz":"{size}","time":{trade.ts_ns // MS},"hash":"0x{trade.number:064x}","tid":{trade.number},'
            f'"users":["0x{trade.first_fill:040x}","0x{trade.last_fill:040x}"]}}'
        )

    def context(self) -> str:
        """JSON of the asset context. Funding is per hour, open interest in coins."""
        mark, market = self.market.mark, self.market
        _, price = self.group()
        interest = round(market.open_lots * SHARE) * market.spec.lot
        middle = price % (market.book.middle * market.spec.tick)
        return (
            f'{{"coin":"{self.name}","ctx":{{"funding":"{mark.funding_rate / 8:.10f}","openInterest":"{plain(interest)}",'
            f'"prevDayPx":"{price % market.spec.price}","dayNtlVlm":"0.0","premium":"{mark.mark / mark.index - 1:.10f}",'
            f'"oraclePx":"{price % mark.index}","markPx":"{price % mark.mark}","midPx":"{middle}",'
            f'"impactPxs":["{middle}","{middle}"],"dayBaseVlm":"0.0"}}}}'
        )


def _grouped(levels: Fills, bucket: Callable[[int], int], count: int) -> list[tuple[int, int]]:
    """The best `count` price steps with what rests in them; `levels` must hold as many ticks as these steps have."""
    sums: dict[int, int] = {}
    for tick, lots in levels:
        at = bucket(tick)
        if at not in sums and len(sums) == count:
            break
        sums[at] = sums.get(at, 0) + lots
    return list(sums.items())


class BookChannel:
    """`l2Book`, slow or fast."""

    def __init__(self, coin: Coin, count: int, interval_ns: int) -> None:
        self._coin = coin
        self._count = count
        self._clock = Clock(interval_ns)

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        if self._clock.due(now_ns):
            yield self._text(now_ns)

    def first(self, now_ns: int) -> str | None:
        return self._text(now_ns)

    def _text(self, now_ns: int) -> str:
        return f'{{"channel":"l2Book","data":{self._coin.book(self._count, now_ns)}}}'


class TouchChannel:
    """`bbo`: the touch, once a block where it changed."""

    def __init__(self, coin: Coin) -> None:
        self._coin = coin
        self._clock = Clock(BLOCK_NS)
        self._told = ""

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        if not self._clock.due(now_ns):
            return
        touch = self._touch()
        if touch != self._told:
            self._told = touch
            yield self._text(touch, now_ns)

    def first(self, now_ns: int) -> str | None:
        return self._text(self._touch(), now_ns)

    def _touch(self) -> str:
        (bid,), (ask,) = self._coin.levels(1)
        return f"[{bid},{ask}]"

    def _text(self, touch: str, now_ns: int) -> str:
        return f'{{"channel":"bbo","data":{{"coin":"{self._coin.name}","time":{now_ns // MS},"bbo":{touch}}}}}'


class TradesChannel:
    """`trades`: a few frames a second; the first one of a subscription repeats the last 20 s."""

    def __init__(self, coin: Coin) -> None:
        self._coin = coin
        self._clock = Clock(TRADES_NS)
        self._waiting: list[Trade] = []

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        self._waiting += step[self._coin.market.spec.symbol].trades
        if self._waiting and self._clock.due(now_ns):
            waiting, self._waiting = self._waiting, []
            yield self._text(waiting)

    def first(self, now_ns: int) -> str | None:
        recent = [trade for trade in self._coin.market.trades if trade.ts_ns > now_ns - REPLAY_NS]
        return self._text(recent) if recent else None

    def _text(self, trades: Sequence[Trade]) -> str:
        group = self._coin.group()
        return f'{{"channel":"trades","data":[{",".join([self._coin.trade(trade, *group) for trade in trades])}]}}'


class ContextChannel:
    """`activeAssetCtx`, once a second."""

    def __init__(self, coin: Coin) -> None:
        self._coin = coin

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        if step[self._coin.market.spec.symbol].mark is not None:
            yield self._text()

    def first(self, now_ns: int) -> str | None:
        return self._text()

    def _text(self) -> str:
        return f'{{"channel":"activeAssetCtx","data":{self._coin.context()}}}'


class HyperliquidWire:
    """The synthetic Hyperliquid: one per server. `rng` is not drawn from: all it says follows from the market."""

    name: Final = "hyperliquid"
    ping_interval_s: float = 3600.0
    pong_timeout_s: float = 7200.0
    silence_limit_s: float = 60.0

    def __init__(self, market: Market, rng: np.random.Generator) -> None:
        self._market = market
        self._coins = {
            one.spec.names["hyperliquid"]: Coin(one, one.spec.names["hyperliquid"])
            for one in market.symbols.values()
            if "hyperliquid" in one.spec.names
        }
        self._weight = Meter(WEIGHT_PER_MINUTE, MINUTE_NS)
        self.channels: Final = Channels(self._channel)

    def open(self, path: str, query: Mapping[str, str], now_ns: int) -> Session | None:
        return Session("ws", False, silence_limit_s=self.silence_limit_s) if path == PATH else None

    def closed(self, session: Session) -> None:
        self.channels.clear(session)

    def publish(self, changes: list[Changes]) -> Iterator[Delivery]:
        return self.channels.publish(changes)

    def receive(self, session: Session, text: str, now_ns: int) -> None:
        """A client's frame: a ping, or one subscription."""
        try:
            frame = json.loads(text)
        except ValueError:
            frame = None
        method = frame.get("method") if isinstance(frame, dict) else None
        if method == "ping":
            _say(session, "pong")
            return
        wanted = frame.get("subscription") if isinstance(frame, dict) else None
        if method not in ("subscribe", "unsubscribe") or not isinstance(wanted, dict):
            _say(session, "error", f"Error parsing JSON into valid websocket request: {text[:200]}")
            return
        kind, coin = wanted.get("type"), wanted.get("coin")
        if not isinstance(kind, str) or kind not in KINDS or not isinstance(coin, str):
            _say(session, "error", f"Invalid subscription {text[:200]}")
            return
        if coin not in self._coins:
            session.close_code = ABNORMAL
            return
        stream = f"{kind}:{coin}{FAST if kind == 'l2Book' and wanted.get('fast') is True else ''}"
        self._change(session, method, stream, wanted)

    def _change(self, session: Session, method: str, stream: str, wanted: Mapping[str, Any]) -> None:
        shown = json.dumps(wanted, separators=(",", ":"))
        if (method == "subscribe") is (stream in session.streams):
            _say(session, "error", f"Already {method}d: {shown}")
            return
        if method == "unsubscribe":
            self.channels.leave(session, stream)
        elif len(session.streams) >= SUBSCRIPTIONS:
            _say(session, "error", "Cannot track more than 1000 total subscriptions")
            return
        else:
            self.channels.join(session, stream)
        _say(session, "subscriptionResponse", {"method": method, "subscription": wanted})

    def rest(self, path: str, query: Mapping[str, str], client: str, now_ns: int, body: bytes = b"") -> Reply:
        """`POST /info`."""
        if path != "/info":
            return Reply(404, b"", {})
        try:
            request = json.loads(body)
        except ValueError:
            request = None
        kind = request.get("type") if isinstance(request, dict) else None
        if not isinstance(kind, str) or kind not in WEIGHTS:
            return Reply(422, b"Failed to deserialize the JSON body into the target type", {"Content-Type": "text/plain"})
        if self._weight.charge(client, WEIGHTS[kind], now_ns)[1] is not None:
            return Reply(429, b"null", JSON_HEADERS)
        if kind == "meta":
            return Reply(200, self._meta(), JSON_HEADERS)
        name = request.get("coin")
        coin = self._coins.get(name) if isinstance(name, str) else None
        if coin is None:
            return Reply(500, b"null", JSON_HEADERS)
        return Reply(200, coin.book(20, self._market.now_ns).encode(), JSON_HEADERS)

    def _meta(self) -> bytes:
        universe: list[dict[str, Any]] = [
            {"szDecimals": decimals(coin.market.spec.lot), "name": name, "maxLeverage": 40, "marginTableId": 56}
            for name, coin in self._coins.items()
        ]
        universe += [
            {"szDecimals": 1, "name": name, "maxLeverage": 20, "marginTableId": 20, "isDelisted": True}
            for name in DELISTED
            if name not in self._coins
        ]
        return json.dumps({"universe": universe, "marginTables": []}, separators=(",", ":")).encode()

    def _channel(self, stream: str) -> Channel:
        kind, _, rest = stream.partition(":")
        speed = FAST if rest.endswith(FAST) else ""
        coin = self._coins[rest.removesuffix(FAST)]
        if kind == "l2Book":
            return BookChannel(coin, *BOOKS[speed])
        if kind == "bbo":
            return TouchChannel(coin)
        return TradesChannel(coin) if kind == "trades" else ContextChannel(coin)


def _say(session: Session, channel: str, data: Any = None) -> None:
    frame = {"channel": channel} if data is None else {"channel": channel, "data": data}
    session.outbox.append(json.dumps(frame, separators=(",", ":")))
