"""Every endpoint of the API has its request, with the API's own parameters; both clients have a method for each."""

from __future__ import annotations

import inspect
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest

from api.endpoints import ENDPOINTS
from api.web_files import SERVED
from mpengine.client import AsyncClient, Client, requests

MADE = {
    name: function
    for name, function in vars(requests).items()
    if inspect.isfunction(function) and function.__module__ == requests.__name__ and not name.startswith("_")
}
ABSENT = {"/stream", "/ws", "/score", *(one.path for one in SERVED)}  # `subscribe`; pages for people
SAMPLE: dict[str, Any] = {
    "symbol": "ETH", "minutes": 30, "stride": 2, "min_notional": 1e6, "range_pct": 0.05, "step": 40.0, "price_min": 1.5,
    "price_max": 2e5, "side": "long", "min_leverage": 10, "max_leverage": 100, "min_weight": 0.25, "to_ms": 1_795_210_800_000,
    "since_ms": 1, "layers": ("liq", "depth"), "dt_s": 60, "k": 2, "max_cols": 100, "max_rows": 200, "pool": "sum",
    "form": "sparse", "cell": "u8log", "min_usd": 5.0, "venues": ["okx", "bybit"], "after": 5, "before": 6, "epoch": 7,
    "limit": 10, "venue": "okx", "interval": "1h",
}  # fmt: skip


def test_both_clients_have_a_method_for_every_request() -> None:
    for name, function in MADE.items():
        for client in (Client, AsyncClient):
            method = getattr(client, name)
            assert inspect.signature(method.__wrapped__) == inspect.signature(function), name
            assert method.__doc__ == function.__doc__ and method.__doc__


def test_every_endpoint_has_its_request_with_its_parameters() -> None:
    """The table of the API decides: a parameter that is new there is missing here."""
    by_path: dict[str, set[str]] = {}
    for function in MADE.values():
        names = set(inspect.signature(function).parameters)
        request = function(**{name: SAMPLE[name] for name in names})
        told = dict(request.query)
        assert names <= told.keys() <= names | {"format"}
        by_path.setdefault(request.path, set()).update(told)
    endpoints = {endpoint.path: endpoint for endpoint in ENDPOINTS if endpoint.path not in ABSENT}
    assert by_path.keys() == endpoints.keys()
    for path, names in by_path.items():
        endpoint = endpoints[path]
        known = {row.name for row in endpoint.parameters} | ({"symbol"} if endpoint.symbol else set())
        assert names == known - {"tiers"}, path


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_bodies_are_those_of_the_contract(name: str) -> None:
    request = MADE[name]()
    expected = {endpoint.path: endpoint.body for endpoint in ENDPOINTS}.get(request.path)
    if request.media == requests.JSON and expected is not None and name != "openapi":
        returned = inspect.get_annotations(MADE[name], eval_str=True)["return"]
        assert returned.__args__[0] is expected


def test_values_are_spelled_as_the_api_reads_them() -> None:
    request = requests.heatmap("BTC", layers=["liq", "depth"], price_min=0.1 + 0.2, min_usd=1e-7, k=2)
    assert dict(parse_qsl(request.target.partition("?")[2])) == {
        "symbol": "BTC", "layers": "liq,depth", "price_min": "0.30000000000000004", "min_usd": "1e-07", "k": "2",
    }  # fmt: skip
    odd = requests.orderbook_heatmap(price_min=np.float64(0.1), step=np.float32(0.5))  # type: ignore[arg-type]
    assert dict(odd.query) == {"symbol": "BTC", "price_min": "0.1", "step": "0.5"}
    assert dict(requests.candles(limit=np.int64(5)).query)["limit"] == "5"  # type: ignore[arg-type]
    assert requests.oi("BTC&x=1").target == "/oi?symbol=BTC%26x%3D1"
    assert requests.health().target == "/health"
