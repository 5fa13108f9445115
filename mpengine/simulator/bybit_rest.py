"""Bybit v5 REST over the synthetic market: `/v5/market/...` of linear contracts, its body errors and its limits. Pure.

Errors come with status 200 and a `retCode`. A client that asks too much is told so by 10006; one that goes on regardless gets 403
for everything, for ten minutes.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from mpengine.simulator.binance_rest import decimals
from mpengine.simulator.channels import MS, SECOND_NS
from mpengine.simulator.market import Market, SymbolMarket
from mpengine.simulator.tiers import risk_tiers
from mpengine.simulator.wire import Reply

CATEGORY: Final = "linear"
DEEPEST: Final = 1000
WINDOW_NS: Final = 5 * SECOND_NS
LIMITED: Final = 500  # requests in the window from which on they are answered with 10006
FORBIDDEN: Final = 600  # requests in the window that the venue allows an address [O]
FORBIDDEN_NS: Final = 600 * SECOND_NS
PERIODS: Final = frozenset({"5min", "15min", "30min", "1h", "4h", "1d"})
FIRST_UPDATE: Final = 15_000_000
RISK_PAGE: Final = 15  # symbols whose risk limits one reply has
JSON_HEADERS: Final[Mapping[str, str]] = {"Content-Type": "application/json; charset=utf-8"}
TEXT_HEADERS: Final[Mapping[str, str]] = {"Content-Type": "text/plain"}


class Contract:
    """How one symbol looks on Bybit. `updates`: depth -> `u` that was told last; it outlives the channels that count it."""

    def __init__(self, market: SymbolMarket, name: str) -> None:
        self.market: Final = market
        self.name: Final = name
        self.updates: Final[dict[int, int]] = {}
        # BTCUSDT has ticks of 0.1 and prints two decimals: at least two, as on the venue.
        places = max(2, decimals(market.spec.tick))
        self._price = f"%.{places}f"
        self._mark = f"%.{max(2, decimals(market.spec.tick) + 1)}f"
        self._quantity = f"%.{decimals(market.spec.lot)}f"

    def priced(self, tick: int) -> str:
        """A price of the book."""
        return self._price % (tick * self.market.spec.tick)

    def bankrupt(self, price_usd: float) -> str:
        """A bankruptcy price."""
        return self._price % price_usd

    def marked(self, price_usd: float) -> str:
        """A mark or index price, which is finer than a tick."""
        return self._mark % price_usd

    def sized(self, lots: int) -> str:
        """A quantity in base coin; 0 is plain."""
        return self._quantity % (lots * self.market.spec.lot) if lots else "0"

    def levels(self, levels: Sequence[tuple[int, int]]) -> str:
        """JSON array of [price, quantity] texts."""
        return "[" + ",".join(f'["{self.priced(tick)}","{self.sized(lots)}"]' for tick, lots in levels) + "]"

    def interest_lots(self) -> int:
        """This venue's part of the open positions, one side of them."""
        return round(self.market.open_lots * self.market.spec.share("bybit"))


class Refused(Exception):
    """The request is answered with a `retCode`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class BybitRest:
    """Answers of the market endpoints. `contracts`: Bybit's symbol -> contract."""

    def __init__(self, market: Market, contracts: Mapping[str, Contract]) -> None:
        self._market = market
        self._contracts = contracts
        self._asked: dict[str, deque[int]] = {}
        self._forbidden_until: dict[str, int] = {}
        self._calls: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
            "/v5/market/time": self._time,
            "/v5/market/open-interest": self._open_interest,
            "/v5/market/instruments-info": self._instruments,
            "/v5/market/orderbook": self._order_book,
            "/v5/market/risk-limit": self._risk_limits,
        }

    def reply(self, path: str, query: Mapping[str, str], client: str, now_ns: int) -> Reply:
        """The answer to a GET, requests counted for `client`. `now_ns` is monotonic."""
        asked = self._count(client, now_ns)
        if asked > FORBIDDEN:
            return Reply(403, b"403, access too frequent", TEXT_HEADERS)
        if asked > LIMITED:
            return self._body({}, 10006, "Too many visits. Exceeded the API Rate Limit.")
        call = self._calls.get(path)
        if call is None:
            return Reply(404, b"", {})
        try:
            return self._body(call(query))
        except Refused as refused:
            return self._body({}, refused.code, str(refused))

    def _count(self, client: str, now_ns: int) -> int:
        """Requests of the window with this one; more than allowed while the address is shut out."""
        if now_ns < self._forbidden_until.get(client, 0):
            return FORBIDDEN + 1
        recent = self._asked.setdefault(client, deque())
        while recent and now_ns - recent[0] >= WINDOW_NS:
            recent.popleft()
        recent.append(now_ns)
        if len(recent) > FORBIDDEN:
            self._forbidden_until[client] = now_ns + FORBIDDEN_NS
        return len(recent)

    def _body(self, result: Mapping[str, Any], code: int = 0, text: str = "OK") -> Reply:
        content = {"retCode": code, "retMsg": text, "result": result, "retExtInfo": {}, "time": self._market.now_ns // MS}
        return Reply(200, json.dumps(content, separators=(",", ":")).encode(), JSON_HEADERS)

    def _contract(self, query: Mapping[str, str]) -> Contract:
        _check_category(query)
        contract = self._contracts.get(query.get("symbol", ""))
        if contract is None:
            raise Refused(10001, "params error: symbol invalid")
        return contract

    def _time(self, query: Mapping[str, str]) -> dict[str, Any]:
        now_ns = self._market.now_ns
        return {"timeSecond": str(now_ns // SECOND_NS), "timeNano": str(now_ns)}

    def _open_interest(self, query: Mapping[str, str]) -> dict[str, Any]:
        """One row, the newest, whatever limit is asked for. `openInterest` counts both sides."""
        contract = self._contract(query)
        if query.get("intervalTime") not in PERIODS:
            raise Refused(10001, "params error: intervalTime invalid")
        _limit(query, 50, 200)
        lots = contract.interest_lots()
        row = {
            "openInterest": contract.sized(2 * lots),
            "singleOpenInterest": contract.sized(lots),
            "timestamp": str(self._market.now_ns // MS),
        }
        return {"symbol": contract.name, "category": CATEGORY, "list": [row], "nextPageCursor": ""}

    def _instruments(self, query: Mapping[str, str]) -> dict[str, Any]:
        """One contract, or without a symbol all of them."""
        _check_category(query)
        chosen = [self._contract(query)] if "symbol" in query else list(self._contracts.values())
        rows = [_instrument(contract) for contract in chosen[: _limit(query, 500, 1000)]]
        return {"category": CATEGORY, "list": rows, "nextPageCursor": ""}

    def _risk_limits(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Tiers of one contract, or page by page of all of them; the cursor is the place of the page's first contract."""
        _check_category(query)
        chosen = [self._contract(query)] if "symbol" in query else list(self._contracts.values())
        first = _cursor(query, len(chosen))
        page = chosen[first : first + RISK_PAGE]
        rows = [row for contract in page for row in _risk_limit(contract)]
        after = str(first + RISK_PAGE) if first + RISK_PAGE < len(chosen) else ""
        return {"category": CATEGORY, "list": rows, "nextPageCursor": after}

    def _order_book(self, query: Mapping[str, str]) -> dict[str, Any]:
        """`u` belongs to the stream of 1000 levels."""
        contract = self._contract(query)
        count, book, ms = _limit(query, 25, DEEPEST), contract.market.book, self._market.now_ns // MS
        sides = {
            side: [[contract.priced(tick), contract.sized(lots)] for tick, lots in levels]
            for side, levels in (("b", book.bids.top(count)), ("a", book.asks.top(count)))
        }
        ids = {"u": contract.updates.get(DEEPEST, FIRST_UPDATE), "seq": contract.market.last_id}
        return {"s": contract.name, **sides, "ts": ms, **ids, "cts": ms - 1}


def _check_category(query: Mapping[str, str]) -> None:
    if query.get("category") != CATEGORY:
        raise Refused(10001, "params error: Category is invalid")


def _limit(query: Mapping[str, str], default: int, most: int) -> int:
    text = query.get("limit")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) > 0):
        raise Refused(10001, "params error: limit invalid")
    return min(most, int(text))


def _cursor(query: Mapping[str, str], count: int) -> int:
    text = query.get("cursor", "") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) < count):
        raise Refused(10001, "params error: cursor invalid")
    return int(text)


def _risk_limit(contract: Contract) -> list[dict[str, Any]]:
    """The amount of the lowest tier is an empty text, as on the venue."""
    return [
        {
            "id": number, "symbol": contract.name, "riskLimitValue": f"{tier.cap_usd:.0f}", "maintenanceMargin": f"{tier.mmr:.8g}",
            "initialMargin": f"{1.0 / tier.max_leverage:.4g}", "isLowestRisk": int(number == 1),
            "maxLeverage": f"{tier.max_leverage:.2f}", "mmDeduction": f"{tier.amount_usd:.12g}" if number > 1 else "",
        }
        for number, tier in enumerate(risk_tiers(contract.market.spec), 1)
    ]  # fmt: skip


def _instrument(contract: Contract) -> dict[str, Any]:
    spec = contract.market.spec
    tick, lot = contract.priced(1), contract.sized(1)
    return {
        "symbol": contract.name, "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": spec.symbol,
        "quoteCoin": "USDT", "settleCoin": "USDT", "priceScale": str(len(tick) - tick.index(".") - 1),
        "priceFilter": {"minPrice": tick, "maxPrice": "1999999.80", "tickSize": tick},
        "lotSizeFilter": {"minOrderQty": lot, "qtyStep": lot, "maxOrderQty": "1190.000", "minNotionalValue": "5"},
        "fundingInterval": 480,
    }  # fmt: skip
