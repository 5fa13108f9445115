"""Risk tiers of the synthetic exchange: sound for every symbol, the same on both venues, paged and refused as they are there."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mpengine.brackets import Bracket, faults_of
from mpengine.simulator.bybit_rest import RISK_PAGE
from mpengine.simulator.bybit_wire import BybitWire
from mpengine.simulator.okx_wire import OkxWire
from mpengine.simulator.tiers import risk_tiers
from tests.simulator.rig import market, small

TIERS = {"instType": "SWAP", "tdMode": "isolated", "instFamily": "BTC-USDT"}


def bybit(count: int = 1) -> BybitWire:
    specs = [small(f"C{number}", names={"bybit": f"C{number}USDT"}, positions=2) for number in range(count)]
    return BybitWire(market(*specs), np.random.default_rng(1))


def limits(of: BybitWire, **query: str) -> Any:
    return json.loads(of.rest("/v5/market/risk-limit", {"category": "linear", **query}, "a", 0).body)


def tiers(**query: str) -> Any:
    names = {"binance": "BTCUSDT", "okx": "BTC-USDT-SWAP"}
    of = OkxWire(market(small(names=names), small("ETH", names={"okx": "ETH-USDT-SWAP"})), np.random.default_rng(3))
    return json.loads(of.rest("/api/v5/public/position-tiers", query, "a", 0).body)


@pytest.mark.parametrize(("mmr", "leverage"), [(0.004, 150), (0.005, None), (0.0001, 250), (0.4, None), (0.3, 1), (0.1, 3)])
def test_tiers_of_any_symbol_are_sound(mmr: float, leverage: int | None) -> None:
    found = risk_tiers(small(mmr=mmr, max_leverage=leverage))
    assert found[0].mmr == mmr and (leverage is None or found[0].max_leverage == leverage)
    assert faults_of([Bracket(*tier) for tier in found]) == []


def test_bybit_gives_pages_of_symbols() -> None:
    of = bybit(2 * RISK_PAGE + 1)
    symbols, cursor, pages = [], "", 0
    while pages == 0 or cursor:
        result = limits(of, **({"cursor": cursor} if cursor else {}))["result"]
        symbols += [row["symbol"] for row in result["list"] if row["isLowestRisk"]]
        cursor, pages = result["nextPageCursor"], pages + 1
    assert pages == 3 and symbols == [f"C{number}USDT" for number in range(2 * RISK_PAGE + 1)]


def test_bybits_lowest_tier_has_no_amount() -> None:
    first, second = limits(bybit(), symbol="C0USDT")["result"]["list"][:2]
    assert first["mmDeduction"] == "" and float(second["mmDeduction"]) > 0.0


@pytest.mark.parametrize(
    "query", [{"symbol": "NOPE"}, {"category": "spot"}, {"cursor": "99"}, {"cursor": "x"}, {"symbol": "C0USDT", "cursor": "5"}]
)
def test_bybit_refuses_what_is_wrong(query: dict[str, str]) -> None:
    assert limits(bybit(), **query)["retCode"] == 10001


def test_okxs_tiers_join_in_contracts() -> None:
    rows = tiers(**TIERS)["data"]
    assert [row["tier"] for row in rows] == ["1", "2", "3", "4", "5"] and rows[0]["minSz"] == "0"
    assert all(int(high["minSz"]) == int(low["maxSz"]) + 1 for low, high in pairwise(rows))
    assert int(rows[0]["maxSz"]) * 0.01 * 100_000 == risk_tiers(small())[0].cap_usd
    assert len(tiers(**{**TIERS, "instFamily": "BTC-USDT,ETH-USDT"})["data"]) == 10


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"instFamily": ""}, "50014"),
        ({"instFamily": "X-USDT"}, "51000"),
        ({"tdMode": ""}, "51000"),
        ({"instType": "OPTION"}, "51000"),
    ],
)
def test_okx_refuses_what_is_wrong(change: dict[str, str], code: str) -> None:
    assert tiers(**{**TIERS, **change})["code"] == code
