"""Binance USD-M REST over the synthetic market: bodies, weights and limits. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from mpengine.simulator.market import Market, SymbolMarket
from mpengine.simulator.wire import Reply

MS: Final = 1_000_000
MINUTE_NS: Final = 60 * 1_000_000_000
WEIGHT_LIMIT: Final = 2400
DATA_LIMIT: Final = 1000  # requests to /futures/data per 5 minutes
FUNDING_LIMIT: Final = 500  # requests to /fapi/v1/fundingInfo per 5 minutes
BAN_AFTER: Final = 50  # requests ignored after a 429 before the address is banned
BAN_NS: Final = 2 * MINUTE_NS
DEPTH_WEIGHTS: Final[dict[int, int]] = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
PERIODS: Final = frozenset({"5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d"})
JSON_HEADERS: Final[Mapping[str, str]] = {"Content-Type": "application/json"}


class Refused(Exception):
    """The request is answered with an error body {"code", "msg"}."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.reply = Reply(status, json.dumps({"code": code, "msg": text}).encode(), JSON_HEADERS)


class Meter:
    """A limit per address and window. `charge` says what is used and, over the limit, for how long to stay away."""

    def __init__(self, limit: int, window_ns: int) -> None:
        self._limit = limit
        self._window_ns = window_ns
        self._used: dict[str, tuple[int, int]] = {}

    def charge(self, client: str, weight: int, now_ns: int) -> tuple[int, int | None]:
        """(used, None) or, over the limit, (used, seconds until the window ends)."""
        window = now_ns // self._window_ns
        began, used = self._used.get(client, (window, 0))
        used = (used if began == window else 0) + weight
        self._used[client] = window, used
        if used <= self._limit:
            return used, None
        return used, 1 + ((window + 1) * self._window_ns - now_ns) // 1_000_000_000


class BinanceRest:
    """Answers of fapi. `names`: symbol of ours -> Binance's."""

    def __init__(self, market: Market, names: Mapping[str, str]) -> None:
        self._market = market
        self._symbols: dict[str, SymbolMarket] = {name: market.symbols[symbol] for symbol, name in names.items()}
        self._weight = Meter(WEIGHT_LIMIT, MINUTE_NS)
        self._data = Meter(DATA_LIMIT, 5 * MINUTE_NS)
        self._funding = Meter(FUNDING_LIMIT, 5 * MINUTE_NS)
        self._ignored: dict[str, int] = {}
        self._banned_until: dict[str, int] = {}
        self._calls: dict[str, tuple[int, Callable[[Mapping[str, str]], Any]]] = {
            "/fapi/v1/ping": (1, lambda _: {}),
            "/fapi/v1/time": (1, lambda _: {"serverTime": self._now_ms}),
            "/fapi/v1/exchangeInfo": (1, self._exchange_info),
            "/fapi/v1/depth": (0, self._depth),
            "/fapi/v1/openInterest": (1, self._open_interest),
            "/fapi/v1/premiumIndex": (1, self._premium_index),
            "/fapi/v1/aggTrades": (20, self._agg_trades),
            "/fapi/v1/fundingInfo": (0, lambda _: []),
            "/futures/data/globalLongShortAccountRatio": (0, lambda q: self._ratios(q, "accounts")),
            "/futures/data/topLongShortAccountRatio": (0, lambda q: self._ratios(q, "top_accounts")),
            "/futures/data/topLongShortPositionRatio": (0, lambda q: self._ratios(q, "top_positions")),
        }

    @property
    def _now_ms(self) -> int:
        return self._market.now_ns // MS

    def reply(self, path: str, query: Mapping[str, str], client: str, now_ns: int) -> Reply:
        """The answer to a GET, weights counted for `client`."""
        call = self._calls.get(path)
        if call is None:
            return Reply(404, b"<html><body>404 Not found</body></html>", {"Content-Type": "text/html"})
        if (until := self._banned_until.get(client, 0)) > now_ns:
            return _limited(418, -1003, "Way too many requests; IP banned.", 1 + (until - now_ns) // 1_000_000_000, {})
        weight, used, headers = call[0] or _depth_weight(path, query), 0, dict(JSON_HEADERS)
        used, wait_s = self._weight.charge(client, weight, now_ns)
        headers["X-MBX-USED-WEIGHT-1M"] = str(used)
        for meter, part in ((self._data, "/futures/data/"), (self._funding, "/fapi/v1/fundingInfo")):
            if wait_s is None and path.startswith(part):
                _, wait_s = meter.charge(client, 1, now_ns)
        if wait_s is not None:
            self._ignored[client] = self._ignored.get(client, 0) + 1
            if self._ignored[client] > BAN_AFTER:
                self._ignored[client] = 0
                self._banned_until[client] = now_ns + BAN_NS
            return _limited(429, -1003, "Too many requests.", wait_s, headers)
        self._ignored[client] = 0
        try:
            return Reply(200, json.dumps(call[1](query), separators=(",", ":")).encode(), headers)
        except Refused as refused:
            return Reply(refused.reply.status, refused.reply.body, headers)

    def _symbol(self, query: Mapping[str, str]) -> tuple[str, SymbolMarket]:
        name = query.get("symbol", "")
        if not name:
            raise Refused(400, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if name not in self._symbols:
            raise Refused(400, -1121, "Invalid symbol.")
        return name, self._symbols[name]

    def _depth(self, query: Mapping[str, str]) -> dict[str, Any]:
        _, market = self._symbol(query)
        limit = _number(query, "limit", 500, 1, 1000)
        if limit not in DEPTH_WEIGHTS:
            raise Refused(400, -4021, f"{limit} is not valid depth limit.")
        tick, lot = _decimals(market)
        bids = sorted(market.book.bids.levels.items(), reverse=True)[:limit]
        asks = sorted(market.book.asks.levels.items())[:limit]
        spec = market.spec
        return {
            "lastUpdateId": market.last_id,
            "E": self._now_ms,
            "T": self._now_ms - 1,
            "bids": [[f"{p * spec.tick:.{tick}f}", f"{q * spec.lot:.{lot}f}"] for p, q in bids],
            "asks": [[f"{p * spec.tick:.{tick}f}", f"{q * spec.lot:.{lot}f}"] for p, q in asks],
        }

    def _open_interest(self, query: Mapping[str, str]) -> dict[str, Any]:
        name, market = self._symbol(query)
        _, lot = _decimals(market)
        quantity = market.open_interest * market.spec.share("binance")
        return {"openInterest": f"{quantity:.{lot}f}", "symbol": name, "time": self._now_ms}

    def _premium_index(self, query: Mapping[str, str]) -> Any:
        if "symbol" in query:
            return _premium(*self._symbol(query))
        return [_premium(name, market) for name, market in self._symbols.items()]

    def _agg_trades(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        _, market = self._symbol(query)
        limit = _number(query, "limit", 500, 1, 1000)
        tick, lot = _decimals(market)
        trades = list(market.trades)
        if "fromId" in query:
            first = _number(query, "fromId", 0, 0, 1 << 62)
            trades = [trade for trade in trades if trade.number >= first][:limit]
        else:
            start = _number(query, "startTime", 0, 0, 1 << 62)
            end = _number(query, "endTime", 1 << 62, 0, 1 << 62)
            trades = [trade for trade in trades if start <= trade.ts_ns // MS <= end]
            trades = trades[:limit] if "startTime" in query else trades[-limit:]
        spec = market.spec
        return [
            {
                "a": trade.number,
                "p": f"{trade.tick * spec.tick:.{tick}f}",
                "q": f"{trade.lots * spec.lot:.{lot}f}",
                "nq": f"{trade.normal_lots * spec.lot:.{lot}f}",
                "f": trade.first_fill,
                "l": trade.last_fill,
                "T": trade.ts_ns // MS,
                "m": not trade.buy,
            }
            for trade in trades
        ]

    def _ratios(self, query: Mapping[str, str], share: str) -> list[dict[str, Any]]:
        name, market = self._symbol(query)
        if query.get("period") not in PERIODS:
            raise Refused(400, -1130, "Data sent for parameter 'period' is not valid.")
        limit = _number(query, "limit", 30, 1, 500)
        rows = []
        for ratios in list(market.ratios)[-limit:]:
            long_share = min(0.9999, max(0.0001, getattr(ratios, share)))
            rows.append(
                {
                    "symbol": name,
                    "longShortRatio": f"{long_share / (1 - long_share):.4f}",
                    "longAccount": f"{long_share:.4f}",
                    "shortAccount": f"{1 - long_share:.4f}",
                    "timestamp": ratios.ts_ns // MS,
                }
            )
        return rows

    def _exchange_info(self, query: Mapping[str, str]) -> dict[str, Any]:
        limits = [("REQUEST_WEIGHT", WEIGHT_LIMIT), ("ORDERS", 1200)]
        return {
            "timezone": "UTC",
            "serverTime": self._now_ms,
            "futuresType": "U_MARGINED",
            "rateLimits": [
                {"rateLimitType": kind, "interval": "MINUTE", "intervalNum": 1, "limit": limit} for kind, limit in limits
            ],
            "exchangeFilters": [],
            "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}],
            "symbols": [_instrument(name, market) for name, market in self._symbols.items()],
        }


def _limited(status: int, code: int, text: str, wait_s: int, headers: Mapping[str, str]) -> Reply:
    body = json.dumps({"code": code, "msg": text}).encode()
    return Reply(status, body, {**JSON_HEADERS, **headers, "Retry-After": str(wait_s)})


def _depth_weight(path: str, query: Mapping[str, str]) -> int:
    if path != "/fapi/v1/depth":
        return 0
    limit = query.get("limit", "500")
    return DEPTH_WEIGHTS.get(int(limit), 1) if limit.isascii() and limit.isdigit() else 1


def _number(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise Refused(400, -1100, f"Illegal characters found in parameter '{name}'.")
    return int(text)


def _decimals(market: SymbolMarket) -> tuple[int, int]:
    return max(2, decimals(market.spec.tick)), decimals(market.spec.lot)


def decimals(step: float) -> int:
    """Decimal places needed to print multiples of a tick or lot."""
    text = f"{step:.10f}".rstrip("0")
    return len(text) - text.index(".") - 1


def _premium(name: str, market: SymbolMarket) -> dict[str, Any]:
    mark = market.mark
    return {
        "symbol": name,
        "markPrice": f"{mark.mark:.8f}",
        "indexPrice": f"{mark.index:.8f}",
        "estimatedSettlePrice": f"{mark.settle:.8f}",
        "lastFundingRate": f"{mark.funding_rate:.8f}",
        "interestRate": "0.00010000",
        "nextFundingTime": mark.next_funding_ns // MS,
        "time": mark.ts_ns // MS,
    }


def _instrument(name: str, market: SymbolMarket) -> dict[str, Any]:
    spec = market.spec
    tick, lot = f"{spec.tick:.{decimals(spec.tick)}f}", f"{spec.lot:.{decimals(spec.lot)}f}"
    base = name.removesuffix("USDT")
    return {
        "symbol": name,
        "pair": name,
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": 1569398400000,
        "status": "TRADING",
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "marginAsset": "USDT",
        "pricePrecision": max(2, decimals(spec.tick)),
        "quantityPrecision": decimals(spec.lot),
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": ["PoW"],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "4529764", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "1000000", "stepSize": lot},
            {"filterType": "MARKET_LOT_SIZE", "minQty": lot, "maxQty": "120000", "stepSize": lot},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "50"},
            {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500", "multiplierDown": "0.9500", "multiplierDecimal": "4"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }
