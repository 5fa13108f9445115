"""Zones by deltas: the checksum by hand, and what does not check out."""

from __future__ import annotations

import zlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mpengine.client.zones import ZoneTable, zones_crc32
from mpengine.contract.push import ZonesDelta, ZonesSnapshot
from tests.client.messages import zone


def test_the_checksum_is_that_of_the_specification() -> None:
    zones = [zone("S-2", 1.00004), zone("L-10", 0.5), zone("L-2", 12.34567)]
    assert zones_crc32(zones) == zlib.crc32(b"L-10:0.5000;L-2:12.3457;S-2:1.0000;")
    assert zones_crc32([]) == 0


def test_a_delta_sets_and_removes_and_leaves_what_was_handed_out() -> None:
    table = ZoneTable()
    first = [zone("L-1", 1.0), zone("L-2", 2.0)]
    assert table.replace(ZonesSnapshot(zones=first, count=2, crc32=zones_crc32(first)))
    handed_out = table.zones
    after = [zone("L-2", 1.9), zone("S-3", 3.0)]
    assert table.apply(ZonesDelta(set=after, removed=["L-1", "never"], count=2, crc32=zones_crc32(after)))
    assert table.zones == {"L-2": after[0], "S-3": after[1]}
    assert handed_out == {"L-1": first[0], "L-2": first[1]}


def test_what_does_not_check_out_changes_nothing() -> None:
    table = ZoneTable()
    first = [zone("L-1", 1.0)]
    assert not table.apply(ZonesDelta(set=[], removed=[], count=0, crc32=0)), "there is no table yet"
    assert not table.replace(ZonesSnapshot(zones=first, count=1, crc32=1)) and table.zones is None
    assert not table.replace(ZonesSnapshot(zones=first, count=2, crc32=zones_crc32(first))) and table.zones is None
    assert table.replace(ZonesSnapshot(zones=first, count=1, crc32=zones_crc32(first)))
    assert not table.apply(ZonesDelta(set=[zone("L-1", 0.9)], removed=[], count=1, crc32=zones_crc32(first)))
    assert table.zones == {"L-1": first[0]}


weights = st.dictionaries(st.sampled_from([f"L-{number}" for number in range(12)]), st.floats(0, 5), max_size=12)


@given(st.lists(weights, min_size=1, max_size=6))
def test_deltas_lead_to_the_state_that_they_were_made_from(states: list[dict[str, float]]) -> None:
    table = ZoneTable()
    assert table.replace(ZonesSnapshot(zones=[], count=0, crc32=0))
    before: dict[str, float] = {}
    for state in states:
        zones = {name: zone(name, weight) for name, weight in state.items()}
        changed = [one for name, one in zones.items() if before.get(name) != state[name]]
        removed = [name for name in before if name not in state]
        delta = ZonesDelta(set=changed, removed=removed, count=len(zones), crc32=zones_crc32(zones.values()))
        assert table.apply(msgspec.json.decode(msgspec.json.encode(delta), type=ZonesDelta))
        assert table.zones == zones
        before = state
