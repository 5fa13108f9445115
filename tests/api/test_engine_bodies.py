"""What the engine itself publishes, served: every endpoint and alias for every symbol as its Struct says, without sockets.

A minute of the synthetic market of all venues run through venue modules and cores, and their outputs into files as the engine's
process would write them. `tests/integration/test_contract_live.py` does the same with the whole tree.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from api.app import Service, create_app
from api.endpoint import Endpoint
from mpengine.config import DEMO_VENUES, load, resolve_directories
from mpengine.engine.storage import Publisher
from mpengine.simulator.loopback import build
from shm.records import PositionSide
from tests.api.shapes import BODIES, check_body, targets
from tests.api.world import FakeClock, World, get, venue_feed

SYMBOLS = ("BTC", "ETH", "SOL")
START_NS = 1_790_000_035 * 10**9  # 5 s before a whole minute
SECONDS = 67


@pytest.fixture(scope="module")
def app() -> Iterator[Service]:
    """The application over a minute of three symbols, on market time."""
    folder = Path(tempfile.mkdtemp(prefix="mpengine-test-", dir="/dev/shm"))
    text = "[api]\nrate_limits = false\n" + "".join(f"[symbols.{symbol}]\n" for symbol in SYMBOLS)
    settings = resolve_directories(load(text, {}, list(DEMO_VENUES)), data=folder / "data", runtime=folder / "run")
    for name in ("data", "run"):
        (folder / name).mkdir()
    loop = build(settings, 1, START_NS)
    for second in range(SECONDS):
        if second % 15 == 0:
            for market in loop.market.symbols.values():
                market.force(PositionSide.LONG if second // 15 % 2 else PositionSide.SHORT, 2e6)
        loop.run(1)
    publishers = [Publisher(settings.paths, symbol, event_clock=True) for symbol in SYMBOLS]
    world = World(settings, FakeClock(now_ms=loop.now_ns // 1_000_000))
    try:
        for publisher, symbol in zip(publishers, SYMBOLS):
            publisher.publish(loop.outputs[symbol])
        world.add_feeds(**{venue: venue_feed(last_ms=world.clock.now_ms) for venue in ("binance", "bybit", "okx", "hyperliquid")})
        yield world.app()
    finally:
        world.close()
        for publisher in publishers:
            publisher.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("endpoint", BODIES, ids=lambda one: one.path)
def test_every_body_is_as_the_contract_says(app: Service, endpoint: Endpoint) -> None:
    for target in targets(endpoint, SYMBOLS):
        reply = get(app, target)
        check_body(target, reply.status, reply.body, endpoint)


def test_the_market_had_something_of_everything(app: Service) -> None:
    for symbol in SYMBOLS:
        assert get(app, f"/liq_heatmap_v2?symbol={symbol}").json["long_levels"], symbol
        assert get(app, f"/liq_zones?symbol={symbol}").json["zones"], symbol
        assert {item["price_kind"] for item in get(app, f"/liquidations?symbol={symbol}").json["items"]} >= {"fill", "trigger"}
        assert len(get(app, f"/oi?symbol={symbol}").json["per_exchange"]) == 3
        assert len(get(app, f"/orderbook_heatmap_stats?symbol={symbol}").json["books"]) == 4
        assert max(get(app, f"/orderbook_heatmap?symbol={symbol}").json["bid_u8"]) == 255


@pytest.mark.covers("A1-M20")
def test_sizes_are_of_each_symbols_own_asset(app: Service) -> None:
    for symbol in SYMBOLS:
        body = get(app, f"/liq_heatmap?symbol={symbol}").json
        assert body["base_asset"] == get(app, f"/oi?symbol={symbol}").json["base_asset"] == symbol
        for side in ("long", "short"):
            usd = [size * price for size, price in zip(body[f"{side}_size_base"], body["prices"])]
            assert usd == pytest.approx(body[f"{side}_notional_usd"], rel=1e-4, abs=max(body["prices"]) * 1e-6)
    quiet = create_app(replace(app.settings, api=replace(app.settings.api, legacy_size_keys=False)), clock=app.context.clock)
    try:
        for path in ("/liq_heatmap", "/liq_heatmap_v2"):
            body = get(quiet, f"{path}?symbol=SOL").json
            assert "long_size_base" in body and not [key for key in body if "btc" in key]
    finally:
        quiet.context.builder.close()
        quiet.context.sources.close()


@pytest.mark.covers("A1-M27")
def test_usd_of_zones_are_carried_by_them_and_filter_by_what_is_returned(app: Service) -> None:
    for symbol in SYMBOLS:
        whole = get(app, f"/liq_zones_heatmap?symbol={symbol}").json
        zones = {(zone["side"], zone["price"]): zone for zone in get(app, f"/liq_zones?symbol={symbol}").json["zones"]}
        levels = whole["long_levels"] + whole["short_levels"]
        assert len(levels) == len(zones)
        for level in levels:
            assert level["synthetic"] is False
            assert level["notional_usd"] == zones[level["side"], level["price"]]["notional_usd"]
            assert level["notional_usd"] != round(level["weight"] * 100_000, 2)
        floor = sorted(level["notional_usd"] for level in levels)[len(levels) // 2]
        some = get(app, f"/liq_zones_heatmap?symbol={symbol}&min_notional={floor}").json
        assert some["long_levels"] + some["short_levels"] == [one for one in levels if one["notional_usd"] >= floor]
