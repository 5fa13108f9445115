"""Bybit v5 linear as of November 2026, over the synthetic market: sockets, topics and REST. Pure.

The rules that matter here: a subscription brings a snapshot; the book is the best N levels, one that leaves them is told as gone;
`u` goes up by one; a liquidation names the side of the *position* and its bankruptcy price, and all of them are sent; a ticker's
delta has only what changed; `openInterest` counts both sides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from mpengine.simulator.binance_rest import decimals
from mpengine.simulator.channels import MS, SECOND_NS, Channel, Channels, Clock, Step
from mpengine.simulator.market import Market, SymbolMarket
from mpengine.simulator.positions import LONG
from mpengine.simulator.wire import Delivery, Reply, Session

PATH: Final = "/v5/public/linear"
DEPTHS: Final = {"1": 1, "50": 50, "200": 200, "1000": 1000}
LIQUIDATIONS_NS: Final = 500 * MS
REQUESTS: Final = 600
REQUESTS_NS: Final = 5 * SECOND_NS
JSON_HEADERS: Final = {"Content-Type": "application/json"}


class Contract:
    """How one symbol looks on Bybit."""

    def __init__(self, market: SymbolMarket, name: str) -> None:
        self.market = market
        self.name = name
        # BTCUSDT has ticks of 0.1 and prints two decimals: at least two, as on the venue.
        self.price = f"%.{max(2, decimals(market.spec.tick))}f"
        self.quantity = f"%.{decimals(market.spec.lot)}f"

    def priced(self, tick: int) -> str:
        """A price of the book."""
        return self.price % (tick * self.market.spec.tick)

    def sized(self, lots: int) -> str:
        """A quantity; 0 is plain."""
        return self.quantity % (lots * self.market.spec.lot) if lots else "0"

    def levels(self, levels: Sequence[tuple[int, int]]) -> str:
        """JSON array of [price, quantity] texts."""
        return "[" + ",".join(f'["{self.priced(tick)}","{self.sized(lots)}"]' for tick, lots in levels) + "]"

    def interest(self) -> float:
        """This venue's part of the open positions, one side of them."""
        return self.market.open_interest * self.market.spec.share("bybit")


class BookChannel:
    """`orderbook.N.SYM`."""

    def __init__(self, contract: Contract, topic: str, depth: int) -> None:
        self._contract, self._topic, self._depth = contract, topic, depth
        self._update = 15_000_000
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        self._begun = False

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        book = self._contract.market.book
        bids, asks = dict(book.bids.top(self._depth)), dict(book.asks.top(self._depth))
        changed = _difference(self._bids, bids), _difference(self._asks, asks)
        self._bids, self._asks = bids, asks
        begun, self._begun = self._begun, True
        if begun and any(changed):
            self._update += 1
            if self._depth == 1:
                yield self._text("snapshot", list(bids.items()), list(asks.items()), now_ns)
            else:
                yield self._text("delta", *changed, now_ns)

    def first(self, now_ns: int) -> str | None:
        return self._text("snapshot", list(self._bids.items()), list(self._asks.items()), now_ns)

    def restart(self) -> str:
        """The venue begins anew: a snapshot with `u` 1."""
        self._update = 1
        return self._text("snapshot", list(self._bids.items()), list(self._asks.items()), self._contract.market.now_ns)

    def _text(self, kind: str, bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]], now_ns: int) -> str:
        one, ms = self._contract, now_ns // MS
        return (
            f'{{"topic":"{self._topic}","type":"{kind}","ts":{ms},"data":{{"s":"{one.name}","b":{one.levels(bids)},'
            f'"a":{one.levels(asks)},"u":{self._update},"seq":{one.market.last_id}}},"cts":{ms - 1}}}'
        )


def _difference(old: Mapping[int, int], new: Mapping[int, int]) -> list[tuple[int, int]]:
    changed = [(tick, lots) for tick, lots in new.items() if old.get(tick) != lots]
    return changed + [(tick, 0) for tick in old if tick not in new]


class TradesChannel:
    """`publicTrade.SYM`: `S` is the taker's side."""

    def __init__(self, contract: Contract, topic: str) -> None:
        self._contract, self._topic = contract, topic

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        one, changes = self._contract, step[self._contract.market.spec.symbol]
        if not changes.trades:
            return
        rows = [
            f'{{"T":{trade.ts_ns // MS},"s":"{one.name}","S":"{"Buy" if trade.buy else "Sell"}","v":"{one.sized(trade.lots)}",'
            f'"p":"{one.priced(trade.tick)}","L":"{"Plus" if trade.buy else "Minus"}Tick","i":"{_identity(trade.number)}",'
            f'"BT":false,"RPI":{"true" if trade.normal_lots < trade.lots else "false"},"seq":{one.market.last_id}}}'
            for trade in changes.trades
        ]
        yield f'{{"topic":"{self._topic}","type":"snapshot","ts":{now_ns // MS},"data":[{",".join(rows)}]}}'

    def first(self, now_ns: int) -> str | None:
        return None


def _identity(number: int) -> str:
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class TickersChannel:
    """`tickers.SYM`: a snapshot, then only what changed; not more often than every 100 ms."""

    def __init__(self, contract: Contract, topic: str) -> None:
        self._contract, self._topic = contract, topic
        self._told: dict[str, str] = {}

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        now = self._values()
        changed = {name: value for name, value in now.items() if self._told.get(name) != value}
        begun, self._told = bool(self._told), now
        if begun and changed:
            yield self._text("delta", changed, now_ns)

    def first(self, now_ns: int) -> str | None:
        return self._text("snapshot", self._told or self._values(), now_ns)

    def _values(self) -> dict[str, str]:
        one, mark = self._contract, self._contract.market.mark
        single = one.interest()
        return {
            "markPrice": f"{mark.mark:.2f}" if mark.mark > 100 else f"{mark.mark:.6g}",
            "indexPrice": f"{mark.index:.2f}" if mark.index > 100 else f"{mark.index:.6g}",
            "openInterest": one.quantity % (2 * single),
            "openInterestValue": f"{2 * single * mark.mark:.2f}",
            "singleOpenInterest": one.quantity % single,
            "singleOpenInterestValue": f"{single * mark.mark:.2f}",
            "fundingRate": f"{mark.funding_rate:.8f}",
            "nextFundingTime": str(mark.next_funding_ns // MS),
        }

    def _text(self, kind: str, values: Mapping[str, str], now_ns: int) -> str:
        data = json.dumps({"symbol": self._contract.name, **values}, separators=(",", ":"))
        sequence = self._contract.market.last_id
        return f'{{"topic":"{self._topic}","type":"{kind}","data":{data},"cs":{sequence},"ts":{now_ns // MS}}}'


class LiquidationsChannel:
    """`allLiquidation.SYM`: all of them, in batches of 500 ms. `S` is the side of the position, `p` its bankruptcy price."""

    def __init__(self, contract: Contract, topic: str) -> None:
        self._contract, self._topic = contract, topic
        self._waiting: list[str] = []
        self._clock = Clock(LIQUIDATIONS_NS)

    def emit(self, step: Step, now_ns: int) -> Iterator[str]:
        one = self._contract
        for order in step[one.market.spec.symbol].forced:
            if order.venue == "bybit":
                self._waiting.append(
                    f'{{"T":{order.ts_ns // MS},"s":"{one.name}","S":"{"Buy" if order.side is LONG else "Sell"}",'
                    f'"v":"{one.sized(order.filled_lots)}","p":"{one.price % order.limit}"}}'
                )
        if self._clock.due(now_ns) and self._waiting:
            rows, self._waiting = self._waiting, []
            yield f'{{"topic":"{self._topic}","type":"snapshot","ts":{now_ns // MS},"data":[{",".join(rows)}]}}'

    def first(self, now_ns: int) -> str | None:
        return None


class BybitWire:
    """The synthetic Bybit: one per server. `rng` is not drawn from: all it says follows from the market."""

    name: Final = "bybit"
    ping_interval_s: float = 600.0
    pong_timeout_s: float = 600.0  # without any traffic of the client the server cuts after about 10 min

    def __init__(self, market: Market, rng: np.random.Generator) -> None:
        self._market = market
        self._contracts = {
            one.spec.names["bybit"]: Contract(one, one.spec.names["bybit"])
            for one in market.symbols.values()
            if "bybit" in one.spec.names
        }
        self.channels: Final = Channels(self._channel)
        self._connections = 0
        self._ids: dict[Session, str] = {}
        self._asked: dict[str, list[int]] = {}

    def open(self, path: str, query: Mapping[str, str], now_ns: int) -> Session | None:
        if path != PATH:
            return None
        session = Session("linear", False)
        self._connections += 1
        self._ids[session] = f"{self._connections:08x}-0000-4000-8000-000000000000"
        return session

    def closed(self, session: Session) -> None:
        self._ids.pop(session, None)
        self.channels.clear(session)

    def publish(self, changes: list[Any]) -> Iterator[Delivery]:
        return self.channels.publish(changes)

    def receive(self, session: Session, text: str, now_ns: int) -> None:
        """A client's request; one bad topic refuses the whole batch."""
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            self._answer(session, "", "", f"JSON parse error, {text[:40]}")
            return
        operation, number = request.get("op"), str(request.get("req_id", ""))
        if operation == "ping":
            self._answer(session, "ping", number, "pong", success=True)
            return
        args = request.get("args")
        if operation not in ("subscribe", "unsubscribe") or not isinstance(args, list):
            self._answer(session, str(operation), number, "error:handler not found,topic:")
            return
        bad = next((topic for topic in args if not isinstance(topic, str) or self._kind(topic) is None), None)
        if bad is not None:
            self._answer(session, operation, number, f"error:handler not found,topic:{str(bad)[:60]}")
            return
        for topic in args:
            if operation == "subscribe":
                self.channels.join(session, topic)
            else:
                self.channels.leave(session, topic)
        self._answer(session, operation, number, "", success=True)

    def _answer(self, session: Session, operation: str, number: str, text: str, *, success: bool = False) -> None:
        reply = {"success": success, "ret_msg": text, "conn_id": self._ids.get(session, ""), "req_id": number, "op": operation}
        session.outbox.append(json.dumps(reply, separators=(",", ":")))

    def _kind(self, topic: str) -> tuple[str, str, Contract] | None:
        """(kind, depth, contract) of a topic that exists."""
        kind, _, rest = topic.partition(".")
        depth, _, name = rest.rpartition(".")
        contract = self._contracts.get(name)
        known = depth in DEPTHS if kind == "orderbook" else kind in ("publicTrade", "tickers", "allLiquidation") and not depth
        return (kind, depth, contract) if contract is not None and known else None

    def _channel(self, topic: str) -> Channel:
        found = self._kind(topic)
        assert found is not None, topic  # `receive` admits no other
        kind, depth, contract = found
        if kind == "orderbook":
            return BookChannel(contract, topic, DEPTHS[depth])
        plain: dict[str, Callable[[Contract, str], Channel]] = {
            "publicTrade": TradesChannel,
            "tickers": TickersChannel,
            "allLiquidation": LiquidationsChannel,
        }
        return plain[kind](contract, topic)

    # REST ------------------------------------------------------------------------------------------------------------

    def rest(self, path: str, query: Mapping[str, str], client: str, now_ns: int, body: bytes = b"") -> Reply:
        """`/v5/market/...`; errors come with status 200 and a `retCode`."""
        recent = [then for then in self._asked.get(client, ()) if now_ns - then < REQUESTS_NS]
        self._asked[client] = [*recent, now_ns]
        if len(recent) >= REQUESTS:
            return Reply(403, b"403, access too frequent", {"Content-Type": "text/plain"})
        if path == "/v5/market/time":
            seconds = self._market.now_ns // SECOND_NS
            return self._reply({"timeSecond": str(seconds), "timeNano": str(self._market.now_ns)})
        contract = self._contracts.get(query.get("symbol", ""))
        if query.get("category") != "linear" or contract is None:
            return self._reply({}, 10001, "params error: symbol invalid")
        if path == "/v5/market/open-interest":
            return self._reply(self._open_interest(contract, query))
        if path == "/v5/market/instruments-info":
            return self._reply(self._instrument(contract))
        if path == "/v5/market/orderbook":
            return self._reply(self._order_book(contract, query))
        return Reply(404, b"", {})

    def _reply(self, result: Mapping[str, Any], code: int = 0, text: str = "OK") -> Reply:
        content = {"retCode": code, "retMsg": text, "result": result, "retExtInfo": {}, "time": self._market.now_ns // MS}
        return Reply(200, json.dumps(content, separators=(",", ":")).encode(), JSON_HEADERS)

    def _open_interest(self, contract: Contract, query: Mapping[str, str]) -> dict[str, Any]:
        single = contract.interest()
        row = {
            "openInterest": contract.quantity % (2 * single),
            "singleOpenInterest": contract.quantity % single,
            "timestamp": str(self._market.now_ns // MS),
        }
        return {"symbol": contract.name, "category": "linear", "list": [row], "nextPageCursor": ""}

    def _instrument(self, contract: Contract) -> dict[str, Any]:
        spec = contract.market.spec
        row = {
            "symbol": contract.name, "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": spec.symbol,
            "quoteCoin": "USDT", "settleCoin": "USDT",
            "priceFilter": {"minPrice": contract.priced(1), "maxPrice": "1999999.80", "tickSize": contract.priced(1)},
            "lotSizeFilter": {"minOrderQty": contract.sized(1), "qtyStep": contract.sized(1), "maxOrderQty": "1190.000"},
            "fundingInterval": 480,
        }  # fmt: skip
        return {"category": "linear", "list": [row], "nextPageCursor": ""}

    def _order_book(self, contract: Contract, query: Mapping[str, str]) -> dict[str, Any]:
        limit = query.get("limit", "25")
        count = min(1000, int(limit)) if limit.isascii() and limit.isdigit() else 25
        book, ms = contract.market.book, self._market.now_ns // MS
        sides = {
            side: [[contract.priced(tick), contract.sized(lots)] for tick, lots in levels]
            for side, levels in (("b", book.bids.top(count)), ("a", book.asks.top(count)))
        }
        return {"s": contract.name, **sides, "ts": ms, "u": contract.market.last_id, "seq": contract.market.last_id, "cts": ms}
