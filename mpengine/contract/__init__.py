"""Every JSON body of the HTTP and push contract as one frozen Struct: keys in their order, JSON types, nullability, units.

    contract -> OpenAPI components, the Python client, the TypeScript types, the checks of the tests

It is the one source of response schemas. A key with `UnsetType` may be absent; `| None` is null. Unknown keys are to be ignored:
new ones are only ever added. `int` is a JSON integer and `float` a JSON number with a point (`60620.0`).
"""

from __future__ import annotations

from mpengine.contract.common import ERROR_CODES, Coverage, Error, VenueCoverage
from mpengine.contract.depth import ONE_OF, DepthDebug, DepthHeatmap, DepthHistory, DepthStats, Reconstructor, RingStats
from mpengine.contract.heatmap import Ages, Assumptions, DepthLayer, Heatmap, Layers, MapLayer, Provenance, Realised, Sequences
from mpengine.contract.maps import Calibrator, CalibratorTier, Level, LiqHeatmap, LiqHeatmapV2, LiqHistory, LiqStats, MapStats
from mpengine.contract.market import Candles, Liquidation, Liquidations, OpenInterest
from mpengine.contract.service import Health, Live, Ready, SymbolHealth, Time, VenueHealth
from mpengine.contract.zones import Zone, ZoneLevel, ZoneManager, Zones, ZonesHeatmap, ZonesSummary

__all__ = [
    "ERROR_CODES", "ONE_OF", "Ages", "Assumptions", "Calibrator", "CalibratorTier", "Candles", "Coverage", "DepthDebug",
    "DepthHeatmap", "DepthHistory", "DepthLayer", "DepthStats", "Error", "Health", "Heatmap", "Layers", "Level", "LiqHeatmap",
    "LiqHeatmapV2", "LiqHistory", "LiqStats", "Liquidation", "Liquidations", "Live", "MapLayer", "MapStats", "OpenInterest",
    "Provenance", "Ready", "Realised", "Reconstructor", "RingStats", "Sequences", "SymbolHealth", "Time", "VenueCoverage",
    "VenueHealth", "Zone", "ZoneLevel", "ZoneManager", "Zones", "ZonesHeatmap", "ZonesSummary",
]  # fmt: skip
