"""OKX v5 REST over the synthetic market, and how its numbers look: contracts, prices, instruments. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mpengine.simulator.binance_rest import Meter, decimals
from mpengine.simulator.market import Market, SymbolMarket
from mpengine.simulator.tiers import risk_tiers
from mpengine.simulator.wire import Reply

MS: Final = 1_000_000
WINDOW_NS: Final = 2 * 1_000_000_000
BOOK_LEVELS: Final = 400
CONTRACTS: Final[Mapping[str, float]] = {"BTC": 0.01, "ETH": 0.1, "SOL": 1.0}
"""Base coin per contract where it is known."""

LOTS_PER_CONTRACT: Final = 10
"""Of other symbols: a contract is so many lots, so that sizes of contracts are fractional here too."""

JSON_HEADERS: Final[Mapping[str, str]] = {"Content-Type": "application/json"}


def contract_value(instrument: str, lot: float) -> float:
    """Base coin per contract: the venue's, unless a lot would need more than four decimals of a contract."""
    known = CONTRACTS.get(instrument.partition("-")[0])
    if known is not None and abs(lot / known * 1e4 - round(lot / known * 1e4)) < 1e-6:
        return known
    return lot * LOTS_PER_CONTRACT


def plain(value: float) -> str:
    """Decimal text without trailing zeros, never with an exponent."""
    return f"{value:.10f}".rstrip("0").rstrip(".")


class Swap:
    """One symbol as a linear swap: its market, contract and texts. `value`: base coin per contract."""

    __slots__ = ("market", "name", "price", "step", "value")

    def __init__(self, market: SymbolMarket, name: str) -> None:
        spec = market.spec
        self.market = market
        self.name = name
        self.value = contract_value(name, spec.lot)
        self.step = spec.lot / self.value
        self.price = f"%.{decimals(spec.tick)}f"

    def contracts(self, lots: int) -> str:
        """Size in contracts: "415" or "8.55"."""
        return f"{lots * self.step:.12g}"

    def level(self, tick: int, lots: int) -> str:
        """JSON of a level: price, contracts, "0", orders. A level that is gone has none of the last."""
        orders = 1 + lots % 13 if lots else 0
        return f'["{self.price % (tick * self.market.spec.tick)}","{self.contracts(lots)}","0","{orders}"]'

    def levels(self, levels: Iterable[tuple[int, int]]) -> str:
        """JSON array of levels, in the order given."""
        return "[" + ",".join([self.level(tick, lots) for tick, lots in levels]) + "]"

    def mark_row(self, now_ns: int) -> str:
        """JSON row of the mark price."""
        price = self.price % self.market.mark_price
        return f'{{"instType":"SWAP","instId":"{self.name}","markPx":"{price}","ts":"{now_ns // MS}"}}'

    def funding_row(self, now_ns: int) -> str:
        """JSON row of the funding rate; `nextFundingRate` is no longer filled."""
        mark = self.market.mark
        settles_ms = mark.next_funding_ns // MS
        return (
            f'{{"formulaType":"withRate","fundingRate":"{mark.funding_rate:.10f}","fundingTime":"{settles_ms}",'
            f'"instId":"{self.name}","instType":"SWAP","maxFundingRate":"0.00375","method":"current_period",'
            f'"minFundingRate":"-0.00375","nextFundingRate":"","nextFundingTime":"{settles_ms + 8 * 3_600_000}",'
            f'"premium":"{mark.mark / mark.index - 1.0:.10f}","settFundingRate":"{mark.funding_rate:.10f}",'
            f'"settState":"settled","ts":"{now_ns // MS}"}}'
        )

    def interest(self) -> tuple[str, str, str]:
        """Open interest of the venue's share: contracts, coins, USD."""
        spec = self.market.spec
        lots = round(self.market.open_lots * spec.share("okx"))
        return self.contracts(lots), plain(lots * spec.lot), f"{lots * spec.lot * self.market.mark_price:.2f}"

    def interest_row(self, now_ns: int) -> str:
        """JSON row of the open interest."""
        contracts, coins, usd = self.interest()
        return (
            f'{{"instId":"{self.name}","instType":"SWAP","oi":"{contracts}","oiCcy":"{coins}","oiUsd":"{usd}",'
            f'"ts":"{now_ns // MS}"}}'
        )

    @property
    def family(self) -> str:
        """Instrument family, "BTC-USDT"."""
        return self.name.rpartition("-")[0]

    def tiers(self) -> list[dict[str, str]]:
        """Rows of the position tiers, in contracts at the price that the symbol began with."""
        rows: list[dict[str, str]] = []
        for number, tier in enumerate(risk_tiers(self.market.spec), 1):
            last = int(rows[-1]["maxSz"]) if rows else 0
            most = max(last + 1, round(tier.cap_usd / (self.market.spec.price * self.value)))
            rows.append({
                "baseMaxLoan": "", "imr": f"{1.0 / tier.max_leverage:.4g}", "instFamily": self.family, "instId": "",
                "maxLever": plain(tier.max_leverage), "maxSz": str(most), "minSz": str(last + 1 if last else 0),
                "mmr": f"{tier.mmr:.8g}", "optMgnFactor": "0", "quoteMaxLoan": "", "tier": str(number), "uly": self.family,
            })  # fmt: skip
        return rows

    def instrument(self) -> dict[str, str]:
        """Row of the list of instruments."""
        base, quote, _ = self.name.split("-")
        tick = plain(self.market.spec.tick)
        return instrument(self.name, f"{base}-{quote}", "linear", plain(self.value), base, quote, tick, plain(self.step))


def instrument(
    name: str, family: str, kind: str, value: str, currency: str, settles: str, tick: str, lot: str, state: str = "live"
) -> dict[str, str]:
    """Row of the list of instruments. `kind`: linear or inverse; `value` of `currency` per contract; `lot` in contracts."""
    return {
        "alias": "", "baseCcy": "", "category": "1", "contTdSwTime": "", "ctMult": "1", "ctType": kind, "ctVal": value,
        "ctValCcy": currency, "expTime": "", "instFamily": family, "instId": name, "instType": "SWAP", "lever": "100",
        "listTime": "1573557408000", "lotSz": lot, "minSz": lot, "quoteCcy": "", "ruleType": "normal", "settleCcy": settles,
        "state": state, "stk": "", "tickSz": tick, "uly": family,
    }  # fmt: skip


FOREIGN: Final = (
    instrument("BTC-USD-SWAP", "BTC-USD", "inverse", "100", "USD", "BTC", "0.1", "0.1"),
    instrument("BTC-USDC-SWAP", "BTC-USDC", "linear", "0.0001", "BTC", "USDC", "0.1", "1"),
    instrument("LUNA-USDT-SWAP", "LUNA-USDT", "linear", "1", "LUNA", "USDT", "0.001", "1", "suspend"),
)
"""Swaps that are not simulated: an inverse one, one settled in USDC, one that is not traded."""


class Refused(Exception):
    """The request is answered with an error code."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.reply = Reply(status, json.dumps({"code": code, "msg": text, "data": []}).encode(), JSON_HEADERS)


@dataclass(frozen=True, slots=True)
class _Call:
    meter: Meter
    by_instrument: bool
    answer: Callable[[Mapping[str, str]], str]


class OkxRest:
    """Answers below /api/v5. `sequence` says the id of a market's book as the channel counts it."""

    def __init__(self, market: Market, swaps: Mapping[str, Swap], sequence: Callable[[SymbolMarket], int]) -> None:
        self._market = market
        self._swaps = swaps
        self._sequence = sequence
        self._refusals = 0
        self._calls = {
            "/api/v5/public/instruments": _Call(Meter(20, WINDOW_NS), False, self._instruments),
            "/api/v5/public/open-interest": _Call(Meter(20, WINDOW_NS), True, self._rows(Swap.interest_row)),
            "/api/v5/public/mark-price": _Call(Meter(10, WINDOW_NS), True, self._rows(Swap.mark_row)),
            "/api/v5/public/funding-rate": _Call(Meter(10, WINDOW_NS), True, self._funding),
            "/api/v5/public/position-tiers": _Call(Meter(10, WINDOW_NS), False, self._tiers),
            "/api/v5/public/time": _Call(Meter(10, WINDOW_NS), False, lambda _: f'[{{"ts":"{self._market.now_ns // MS}"}}]'),
            "/api/v5/market/books": _Call(Meter(40, WINDOW_NS), False, self._books),
        }

    def reply(self, path: str, query: Mapping[str, str], client: str, now_ns: int) -> Reply:
        """The answer to a GET. Over a limit the code is 50011, with status 429 and 200 in turn."""
        call = self._calls.get(path)
        if call is None:
            return Reply(404, b'{"code":"404","data":{},"msg":"Not Found"}', JSON_HEADERS)
        key = f"{client} {query.get('instId', '')}" if call.by_instrument else client
        if call.meter.charge(key, 1, now_ns)[1] is not None:
            self._refusals += 1
            return Refused(429 if self._refusals % 2 else 200, "50011", "Too Many Requests").reply
        try:
            return Reply(200, f'{{"code":"0","data":{call.answer(query)},"msg":""}}'.encode(), JSON_HEADERS)
        except Refused as refused:
            return refused.reply

    def instruments(self) -> str:
        """JSON array of every swap of the venue."""
        return json.dumps([*(swap.instrument() for swap in self._swaps.values()), *FOREIGN], separators=(",", ":"))

    def _instruments(self, query: Mapping[str, str]) -> str:
        _swaps_only(query)
        wanted = query.get("instId")
        if wanted is None:
            return self.instruments()
        rows = [row for row in json.loads(self.instruments()) if row["instId"] == wanted]
        if not rows:
            raise Refused(200, "51001", "Instrument ID does not exist.")
        return json.dumps(rows, separators=(",", ":"))

    def _rows(self, row: Callable[[Swap, int], str]) -> Callable[[Mapping[str, str]], str]:
        def answer(query: Mapping[str, str]) -> str:
            _swaps_only(query)
            swaps = [self._swap(query)] if "instId" in query else self._swaps.values()
            return "[" + ",".join(row(swap, self._market.now_ns) for swap in swaps) + "]"

        return answer

    def _funding(self, query: Mapping[str, str]) -> str:
        return f"[{self._swap(query).funding_row(self._market.now_ns)}]"

    def _tiers(self, query: Mapping[str, str]) -> str:
        _swaps_only(query)
        if query.get("tdMode") not in ("cross", "isolated"):
            raise Refused(400, "51000", "Parameter tdMode error")
        families = query.get("instFamily", "").split(",")
        if families == [""]:
            raise Refused(400, "50014", "Parameter instFamily can not be empty")
        rows = [row for swap in self._swaps.values() if swap.family in families for row in swap.tiers()]
        if not rows:
            raise Refused(200, "51000", "Parameter instFamily error")
        return json.dumps(rows, separators=(",", ":"))

    def _books(self, query: Mapping[str, str]) -> str:
        swap, size = self._swap(query), query.get("sz", "1")
        if not (size.isascii() and size.isdigit() and len(size) < 9 and 1 <= int(size) <= BOOK_LEVELS):
            raise Refused(400, "51000", "Parameter sz error")
        book = swap.market.book
        asks, bids = swap.levels(book.asks.top(int(size))), swap.levels(book.bids.top(int(size)))
        return f'[{{"asks":{asks},"bids":{bids},"ts":"{self._market.now_ns // MS}","seqId":{self._sequence(swap.market)}}}]'

    def _swap(self, query: Mapping[str, str]) -> Swap:
        name = query.get("instId", "")
        if not name:
            raise Refused(400, "50014", "Parameter instId can not be empty")
        if name not in self._swaps:
            raise Refused(200, "51001", "Instrument ID does not exist.")
        return self._swaps[name]


def _swaps_only(query: Mapping[str, str]) -> None:
    kind = query.get("instType", "")
    if not kind:
        raise Refused(400, "50014", "Parameter instType can not be empty")
    if kind != "SWAP":
        raise Refused(400, "51000", "Parameter instType error")
