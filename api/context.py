"""What `create_app` hands to the resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.access import Access
from api.bars import CandleBars
from api.basis import SymbolCoverage
from api.cache import Builder, Cache
from api.clock import Clock
from api.depth import DepthFrames
from api.encoder import Encoder
from api.feeds import Feeds
from api.liquidations import LiquidationRows
from api.maps import MapFrames
from api.metrics import Meter
from api.oi import OpenInterest
from api.sources import Sources
from api.web_files import WebFiles
from mpengine.config import Settings
from mpengine.heatmap import Mix


@dataclass(slots=True)
class Lifetime:
    """When this process began, whether it is being stopped, and whether its memory is above `api.worker_memory_bytes`."""

    started_ns: int
    stopping: bool = False
    short_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """Settings, files, what is kept decoded by symbol, feeds, cache, builder, clock, lifetime, version,
    access rules, counts and pages of one worker."""

    settings: Settings
    sources: Sources
    depth: Mapping[str, DepthFrames]
    candles: Mapping[str, CandleBars]
    oi: Mapping[str, OpenInterest]
    liquidations: Mapping[str, LiquidationRows]
    maps: Mapping[str, MapFrames]
    mix: Mix
    coverage: Mapping[str, SymbolCoverage]
    feeds: Feeds
    cache: Cache
    builder: Builder
    encoder: Encoder
    clock: Clock
    lifetime: Lifetime
    build: str
    access: Access
    meter: Meter
    web: WebFiles
