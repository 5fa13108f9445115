"""What bodies hold together beyond their types: arrays of one length, axes that are their step, counts that count."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from api.endpoint import Endpoint
from api.endpoints import ENDPOINTS
from mpengine import contract
from tests.api.schema_check import faults

BODIES = [endpoint for endpoint in ENDPOINTS if endpoint.body is not None]
MORE = {
    "/orderbook_heatmap": ("range_pct=0.02", "range_pct=0.0001"),
    "/orderbook_heatmap_history": ("stride=2&range_pct=0.01", "minutes=5"),
    "/liq_heatmap_history": ("stride=2",),
    "/liq_heatmap_v2": ("min_notional=50000", "min_notional=1e12"),
    "/liq_zones": ("side=long", "min_leverage=100", "min_weight=5"),
    "/liq_zones_heatmap": ("min_leverage=20&max_leverage=50", "min_notional=1e12"),
    "/liquidations": ("after=-1&limit=5", "before=20&side=short", "epoch=99", "venue=okx&min_usd=1000"),
    "/candles": ("interval=5m", "limit=1"),
    "/heatmap": ("minutes=5", "layers=liq,tape,projected&form=sparse&cell=usd", "layers=depth&dt_s=30&k=2&pool=sum",
                 "layers=realised", "max_rows=50&max_cols=16"),
}  # fmt: skip
"""Path -> queries that are asked beside the one without parameters."""


def targets(endpoint: Endpoint, symbols: Sequence[str]) -> Iterator[str]:
    """Requests of an endpoint and its aliases: for every symbol, with every query of `MORE`."""
    for path in endpoint.paths:
        for symbol in symbols if endpoint.symbol else ("",):
            for query in ("", *MORE.get(endpoint.path, ())):
                yield f"{path}?symbol={symbol}&{query}" if symbol else path


def check_body(target: str, status: int, body: bytes, endpoint: Endpoint) -> None:
    """Assert that a 200 is what its Struct says, and holds together."""
    assert status == 200, (target, body[:200])
    assert endpoint.body is not None
    assert faults(body, endpoint.body) == [], target
    check(json.loads(body), endpoint.body)


def check(body: dict[str, Any], kind: type[Struct]) -> None:
    """Assert the shape of a body; nothing where its kind has none."""
    checker = CHECKS.get(kind)
    if checker is not None:
        checker(body)


def _axis(body: dict[str, Any]) -> int:
    prices = body["prices"]
    if prices:
        assert len(prices) == round((prices[-1] - prices[0]) / body["step"]) + 1
        assert prices == sorted(set(prices))
        if "price_min" in body:
            assert (body["price_min"], body["price_max"]) == (prices[0], prices[-1])
    return len(prices)


def _map(body: dict[str, Any]) -> None:
    rows = _axis(body)
    for name in ("intensity", "notional_usd", "size_base", "size_btc"):
        for side in ("long", "short"):
            assert len(body[f"{side}_{name}"]) == rows, name
            assert all(value >= 0 for value in body[f"{side}_{name}"])
    assert body["long_size_btc"] == body["long_size_base"]
    assert max(body["long_intensity"] + body["short_intensity"]) <= 1.0
    for name in ("top_long_zones", "top_short_zones"):
        assert len(body.get(name, [])) <= 5


def _second(body: dict[str, Any]) -> None:
    _map(body)
    for name in ("long_levels", "short_levels"):
        usd = [level["notional_usd"] for level in body[name]]
        assert len(usd) <= 20 and usd == sorted(usd, reverse=True)
        for level in body[name]:
            assert level["price_low"] <= level["price"] <= level["price_high"]
            assert level["price"] == round(level["price"], 4) and level["intensity"] == round(level["intensity"], 4)
            assert abs(level["tape_usd"] + level["projected_usd"] - level["notional_usd"]) <= 0.02


def _history(body: dict[str, Any], sides: tuple[str, str], columns: tuple[str, ...]) -> None:
    rows, count = _axis(body), body["count"]
    assert len(body["t"]) == count and body["t"] == sorted(set(body["t"]))
    for side in sides:
        assert len(body[side]) == count * (rows if count else 0)
    for name in columns:
        assert len(body[name]) == count, name


def _depth(body: dict[str, Any]) -> None:
    assert _axis(body) == len(body["bid_u8"]) == len(body["ask_u8"])
    assert body["ts"] * 1000 == body["frame_ts_ms"] == body["valid_from_ts_ms"] == body["valid_to_ts_ms"] - 30_000
    assert body["stale"] == body["data_is_stale"]
    assert body["norm_p50"] <= body["norm_p90"] <= body["norm_p95"] <= body["norm_p99"] <= body["norm_max"]


def _candles(body: dict[str, Any]) -> None:
    for name, value in body.items():
        if isinstance(value, list):
            assert len(value) == body["count"], name
    for low, first, last, high in zip(body["l"], body["o"], body["c"], body["h"]):
        assert low <= min(first, last) <= max(first, last) <= high


def _liquidations(body: dict[str, Any]) -> None:
    numbers = [item["seq"] for item in body["items"]]
    assert len(numbers) == body["count"] and numbers == sorted(set(numbers))
    assert (body["first_seq"], body["last_seq"]) == ((numbers[0], numbers[-1]) if numbers else (None, None))


def _interest(body: dict[str, Any]) -> None:
    assert abs(sum(body["per_exchange"].values()) - body["aggregated_oi"]) <= 1e-6 * body["aggregated_oi"]
    assert body["per_exchange"].keys() == body["exchange_ts"].keys()
    assert not body["per_exchange"].keys() & set(body["stale_exchanges"])


def _zones(body: dict[str, Any]) -> None:
    assert len(body["zones"]) == body["zones_count"]
    order = [(-zone["weight"], zone["price"]) for zone in body["zones"]]
    assert [weight for weight, _ in order] == sorted(weight for weight, _ in order)
    for zone in body["zones"]:
        assert abs(zone["tape_usd"] + zone["projected_usd"] - zone["notional_usd"]) <= 0.02
        assert list(zone["tier_contributions"]) == sorted(zone["tier_contributions"], key=int)


def _grid(body: dict[str, Any]) -> None:
    cells = body["cols"] * body["rows"]
    assert len(body["src"]) == body["cols"] and body["t0_ms"] % body["dt_ms"] == 0
    for layer in body["layers"].values():
        assert len(layer["seq"]) == body["cols"]
        sides = [value for name, value in layer.items() if name not in ("seq", "unit")]
        assert len(sides) == 2
        for side in sides:
            if body["form"] == "dense":
                assert len(side) == cells
            else:
                places = [(column, row) for column, row, _ in side]
                assert places == sorted(set(places)) and all(row < body["rows"] for _, row in places)


CHECKS: dict[type[Struct], Callable[[dict[str, Any]], None]] = {
    contract.LiqHeatmap: _map,
    contract.LiqHeatmapV2: _second,
    contract.LiqHistory: lambda body: _history(body, ("long", "short"), ("src", "norm_tape_usd", "norm_projection_usd")),
    contract.DepthHeatmap: _depth,
    contract.DepthHistory: lambda body: _history(body, ("bid_u8", "ask_u8"), ("src", "norm_p50", "norm_p95")),
    contract.Candles: _candles,
    contract.Liquidations: _liquidations,
    contract.OpenInterest: _interest,
    contract.Zones: _zones,
    contract.Heatmap: _grid,
}
