"""Zones as the document of a minute lists them, for tests: one by one and not rounded."""

from __future__ import annotations

from mpengine.engine.zones import Zones
from mpengine.schemas import ZoneCounts, ZoneRow, ZonesDocument, ZoneTable

NO_COUNTS = ZoneCounts(**dict.fromkeys(ZoneCounts.__struct_fields__, 0))


def rows_of(zones: Zones) -> list[ZoneRow]:
    """Every zone: long before short, ascending."""
    told = zones.to_file("BTC", 0)
    table = ZoneTable(**{name: column.tolist() for name, column in told["zones"].items()})
    return ZonesDocument(
        symbol="BTC", written_ns=0, minute=0, step=told["step"], tiers=told["tiers"], zones=table, counts=NO_COUNTS, sums={}
    ).rows
