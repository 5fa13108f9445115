"""The shipped addresses against the documented routes, as of November 2026 (`spec: exchanges`, sections 3 to 6).

A stream on the wrong route opens and stays silent, a port that was closed does not answer, a topic that was removed may make the
venue refuse a whole batch: nothing in the code would notice before production does. The table here is written from the exchanges'
documentation, not from the code.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from mpengine import venues
from mpengine.config import load
from mpengine.venues.base import SocketPlan, VenueModule
from shm.records import Kind

EVERYTHING: Final = (
    "venues.binance.book_ticker=true", "venues.bybit.order_book=true", "venues.bybit.trades=true", "venues.bybit.tickers=true",
    "venues.okx.order_book=true", "venues.okx.trades=true", "venues.okx.mark_price=true", "venues.okx.funding=true",
    "venues.okx.open_interest=true", "venues.hyperliquid.enabled=true",
)  # fmt: skip

SOCKETS: Final = {
    "binance": r"wss://fstream\.binance\.com/(public|market)/stream",
    "bybit": r"wss://stream\.bybit\.com/v5/public/linear",
    "okx": r"wss://ws\.okx\.com(:443)?/ws/v5/public",
    "hyperliquid": r"wss://api\.hyperliquid\.xyz/ws",
}
BINANCE_ROUTES: Final = {
    "public": r"[^@!]+@depth(@(100|500)ms)?|[^@!]+@depth(5|10|20)(@(100|500)ms)?|[^@!]+@bookTicker|!bookTicker",
    "market": r"[^@!]+@aggTrade|[^@!]+@markPrice(@1s)?|!markPrice@arr(@1s)?|[^@!]+@forceOrder|!forceOrder@arr",
}
BYBIT_TOPICS: Final = r"(allLiquidation|publicTrade|tickers|orderbook\.(50|200|1000))\.[A-Z0-9]+USDT"
OKX_WITHOUT_INSTRUMENT: Final = {"instruments": {"instType": "SWAP"}, "liquidation-orders": {"instType": "SWAP"}}
OKX_CHANNELS: Final = frozenset({"books", "trades", "mark-price", "funding-rate", "open-interest"})
HYPERLIQUID_TYPES: Final = frozenset({"l2Book", "trades", "activeAssetCtx", "bbo"})

REST: Final = {
    "binance": (
        r"/fapi/v1/openInterest\?symbol=\w+", r"/fapi/v1/depth\?symbol=\w+&limit=(50|100|500|1000)", r"/fapi/v1/exchangeInfo",
        r"/futures/data/(globalLongShortAccountRatio|topLongShortAccountRatio|topLongShortPositionRatio)"
        r"\?symbol=\w+&period=5m&limit=1",
    ),
    "bybit": (
        r"/v5/market/open-interest\?category=linear&symbol=\w+&intervalTime=5min&limit=1",
        r"/v5/market/instruments-info\?category=linear(&symbol=\w+)?(&limit=\d+)?",
    ),
    "okx": (
        r"/api/v5/public/open-interest\?instType=SWAP&instId=[A-Z0-9]+-USDT-SWAP", r"/api/v5/public/instruments\?instType=SWAP",
        r"/api/v5/market/books\?instId=[A-Z0-9]+-USDT-SWAP&sz=(400|[1-3]?\d?\d)",
    ),
    "hyperliquid": (r"/info",),
}  # fmt: skip
HOSTS: Final = {
    "binance": "https://fapi.binance.com", "bybit": "https://api.bybit.com", "okx": "https://www.okx.com",
    "hyperliquid": "https://api.hyperliquid.xyz",
}  # fmt: skip

OKX_INSTRUMENTS: Final = {
    "code": "0",
    "data": [
        {
            "instId": f"{base}-USDT-SWAP", "instType": "SWAP", "ctVal": size, "ctMult": "1", "ctValCcy": base, "ctType": "linear",
            "settleCcy": "USDT", "lotSz": "0.01", "minSz": "0.01", "tickSz": "0.1", "state": "live", "uly": f"{base}-USDT",
            "instFamily": f"{base}-USDT",
        }
        for base, size in (("BTC", "0.01"), ("ETH", "0.1"), ("SOL", "1"))
    ],
}  # fmt: skip
HYPERLIQUID_META: Final = {"universe": [{"name": name, "szDecimals": 3, "maxLeverage": 40} for name in ("BTC", "ETH", "SOL")]}
KNOWLEDGE: Final[dict[str, Any]] = {"okx": OKX_INSTRUMENTS, "hyperliquid": HYPERLIQUID_META}


def shipped(name: str, *overrides: str) -> VenueModule:
    """The module with its default addresses and every stream on."""
    settings = load("", {}, [*EVERYTHING, *overrides])
    return next(module for module in venues.build(settings) if module.venue.label == name)


def said(module: VenueModule, plan: SocketPlan) -> list[Any]:
    """What is sent on a fresh connection of a plan, once the module knows what it has to know."""
    connection = f"{plan.name}#1"
    module.opened(connection, 1)
    texts = [*plan.subscribe, *module.data_to_send(connection)]
    known = KNOWLEDGE.get(module.venue.label)
    if known is not None:
        call = next(call for call in module.polls() if call.name == "instruments")
        module.receive_rest(call, 200, json.dumps(known).encode(), 2)
        texts += module.data_to_send(connection)
    return [json.loads(text) for text in texts if text != "ping"]


@pytest.mark.parametrize("name", SOCKETS)
def test_sockets_go_to_documented_addresses(name: str) -> None:
    plans = shipped(name).sockets()
    assert plans
    for plan in plans:
        assert re.fullmatch(SOCKETS[name], plan.url.partition("?")[0]), plan.url
        assert urlsplit(plan.url).port in (None, 443), "port 8443 of OKX is closed since 2026-10-31"


def test_every_binance_stream_is_on_its_route() -> None:
    kinds = set()
    for plan in shipped("binance").sockets():
        route = urlsplit(plan.url).path.split("/")[1]
        streams = dict(parse_qsl(urlsplit(plan.url).query))["streams"].split("/")
        assert {unquote(stream) for stream in streams} == {stream.name for stream in plan.streams}
        for stream in streams:
            assert re.fullmatch(BINANCE_ROUTES[route], stream), f"{stream} is not served on /{route}"
        kinds |= {stream.kind for stream in plan.streams}
    assert {Kind.DEPTH, Kind.TRADE, Kind.MARK, Kind.LIQUIDATION} <= kinds


def test_bybit_subscribes_live_topics_in_small_batches() -> None:
    module = shipped("bybit")
    for plan in module.sockets():
        topics = []
        for request in said(module, plan):
            assert request["op"] == "subscribe"
            assert 1 <= len(request["args"]) <= 10
            topics += request["args"]
        assert sorted(topics) == sorted(stream.name for stream in plan.streams)
        assert all(re.fullmatch(BYBIT_TOPICS, topic) for topic in topics), topics
        assert len(json.dumps(topics)) <= 21_000


def test_okx_subscribes_documented_channels_with_their_arguments() -> None:
    module = shipped("okx")
    channels = set()
    for plan in module.sockets():
        for request in said(module, plan):
            assert request["op"] == "subscribe"
            assert len(json.dumps(request)) <= 64 << 10
            for arg in request["args"]:
                channel = arg["channel"]
                rest = {key: value for key, value in arg.items() if key != "channel"}
                channels.add(channel)
                if channel in OKX_WITHOUT_INSTRUMENT:
                    assert rest == OKX_WITHOUT_INSTRUMENT[channel], "an instId here is an error, or is silently dropped"
                else:
                    assert channel in OKX_CHANNELS
                    assert re.fullmatch(r"[A-Z0-9]+-USDT-SWAP", rest["instId"])
    assert channels == OKX_CHANNELS | set(OKX_WITHOUT_INSTRUMENT)


@pytest.mark.parametrize("fast", [True, False])
def test_hyperliquid_sends_one_subscription_per_frame_and_never_both_book_speeds(fast: bool) -> None:
    module = shipped("hyperliquid", f"venues.hyperliquid.fast_book={str(fast).lower()}")
    (plan,) = module.sockets()
    books = []
    for request in said(module, plan):
        assert request["method"] == "subscribe"
        subscription = request["subscription"]
        assert subscription["type"] in HYPERLIQUID_TYPES
        assert subscription["coin"] in {"BTC", "ETH", "SOL"}
        if subscription["type"] == "l2Book":
            books.append((subscription["coin"], subscription.get("fast", False)))
    assert sorted(books) == [("BTC", fast), ("ETH", fast), ("SOL", fast)]


@pytest.mark.parametrize("name", REST)
def test_rest_calls_go_to_documented_paths(name: str) -> None:
    module = shipped(name)
    assert getattr(load("", {}).venues, name).rest_url == HOSTS[name]
    calls = [*module.polls(), *(call for symbol in ("BTC", "ETH", "SOL") if (call := module.snapshot_call(symbol)) is not None)]
    assert calls
    for call in calls:
        assert any(re.fullmatch(pattern, call.path) for pattern in REST[name]), call.path
        assert (call.body is not None) == (name == "hyperliquid"), "only /info is a POST"


@pytest.mark.parametrize("name", ["binance", "bybit", "okx"])
def test_every_symbol_has_its_open_interest_polled_every_15_s(name: str) -> None:
    found = {call.symbol: call.interval_s for call in shipped(name).polls() if call.name == "open_interest"}
    assert found == {"BTC": 15.0, "ETH": 15.0, "SOL": 15.0}


@pytest.mark.parametrize("name", ["binance", "bybit", "okx"])
def test_by_default_a_venue_gives_its_liquidations(name: str) -> None:
    module = next(module for module in venues.build(load("", {})) if module.venue.label == name)
    assert any(stream.kind is Kind.LIQUIDATION for plan in module.sockets() for stream in plan.streams)
    assert module.sampling != "none"


def test_hyperliquid_has_no_liquidations_and_says_so() -> None:
    module = shipped("hyperliquid")
    assert module.sampling == "none"
    assert not any(stream.kind is Kind.LIQUIDATION for plan in module.sockets() for stream in plan.streams)
