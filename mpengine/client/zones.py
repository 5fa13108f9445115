"""Zones kept up to date by deltas, checked by their CRC-32 (`spec: api`, section 13). Pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from mpengine.contract import Zone
from mpengine.contract.push import ZonesDelta, ZonesSnapshot


def zones_crc32(zones: Iterable[Zone]) -> int:
    """CRC-32 of `id:weight%.4f;` over zones by id."""
    ordered = sorted((zone.id, zone.weight) for zone in zones)
    return zlib.crc32("".join(f"{name}:{weight:.4f};" for name, weight in ordered).encode())


class ZoneTable:
    """All zones of a symbol. A change that does not check out leaves the table as it was and is told by False."""

    def __init__(self) -> None:
        self.zones: Mapping[str, Zone] | None = None

    def replace(self, snapshot: ZonesSnapshot) -> bool:
        """All zones anew."""
        return self._become({zone.id: zone for zone in snapshot.zones}, snapshot.count, snapshot.crc32)

    def apply(self, delta: ZonesDelta) -> bool:
        """Changed and removed zones; False without a table too."""
        if self.zones is None:
            return False
        zones = dict(self.zones)
        for name in delta.removed:
            zones.pop(name, None)
        zones.update((zone.id, zone) for zone in delta.set)
        return self._become(zones, delta.count, delta.crc32)

    def _become(self, zones: dict[str, Zone], count: int, crc32: int) -> bool:
        if len(zones) != count or zones_crc32(zones.values()) != crc32:
            return False
        # A new mapping each time: the ones that were handed out never change.
        self.zones = MappingProxyType(zones)
        return True
