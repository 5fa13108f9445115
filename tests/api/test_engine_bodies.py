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

from api.app import Service
from api.endpoints import ENDPOINTS
from mpengine.config import DEMO_VENUES, load, resolve_directories
from mpengine.engine.storage import Publisher
from mpengine.simulator.loopback import build
from shm.records import PositionSide
from tests.api.schema_check import faults
from tests.api.shapes import check
from tests.api.world import FakeClock, World, get, venue_feed

SYMBOLS = ("BTC", "ETH", "SOL")
START_NS = 1_790_000_035 * 10**9  # 5 s before a whole minute
SECONDS = 67
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
def test_every_body_is_as_the_contract_says(app: Service, endpoint: object) -> None:
    for path in endpoint.paths:
        for symbol in SYMBOLS if endpoint.symbol else ("",):
            for query in ("", *MORE.get(endpoint.path, ())):
                target = f"{path}?symbol={symbol}&{query}" if symbol else path
                reply = get(app, target)
                assert reply.status == 200, (target, reply.body[:200])
                assert faults(reply.body, endpoint.body) == [], target
                check(reply.json, endpoint.body)


def test_the_market_had_something_of_everything(app: Service) -> None:
    for symbol in SYMBOLS:
        assert get(app, f"/liq_heatmap_v2?symbol={symbol}").json["long_levels"], symbol
        assert get(app, f"/liq_zones?symbol={symbol}").json["zones"], symbol
        assert {item["price_kind"] for item in get(app, f"/liquidations?symbol={symbol}").json["items"]} >= {"fill", "trigger"}
        assert len(get(app, f"/oi?symbol={symbol}").json["per_exchange"]) == 3
        assert len(get(app, f"/orderbook_heatmap_stats?symbol={symbol}").json["books"]) == 4
        assert max(get(app, f"/orderbook_heatmap?symbol={symbol}").json["bid_u8"]) == 255
