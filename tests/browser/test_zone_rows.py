"""`zone_rows.js` and `crc32.js` against Python's."""

from __future__ import annotations

import random
import zlib
from typing import Any

from playwright.sync_api import Page

from mpengine.client.zones import zones_crc32
from mpengine.contract import Zone


def zone(number: int, weight: float = 1.25, **values: Any) -> dict[str, Any]:
    plain = {
        "price": 64_000.0 + 20 * number, "side": "long", "weight": weight, "created_at": 1, "last_reinforced_at": 2,
        "reinforcement_count": 3, "source": "combined", "tier_contributions": {"50": round(weight * 0.9, 4), "100": 0.001},
        "id": f"L-{number}-29920134", "notional_usd": 1000.0 * number, "tape_usd": 0.0, "projected_usd": 1.0, "age_min": 1,
        "dominant_leverage": 50,
    }  # fmt: skip
    return {**plain, **values}


def told(zones: list[dict[str, Any]], **values: Any) -> dict[str, Any]:
    rows = [Zone(**one) for one in zones]
    return {"count": len(rows), "crc32": zones_crc32(rows), **values}


def test_crc32_is_the_one_of_zlib(module_page: Page) -> None:
    texts = ["", "a", "L-1-29920134:1.2500;", "x" * 5000, "".join(map(chr, range(1, 128)))]
    found = module_page.evaluate(
        """async (texts) => {
            const { crc32 } = await import('/src/crc32.js');
            return texts.map((text) => crc32(new TextEncoder().encode(text)));
        }""",
        texts,
    )
    assert found == [zlib.crc32(text.encode()) for text in texts]


def test_deltas_lead_to_what_python_has(module_page: Page) -> None:
    rng = random.Random(3)
    zones = {one["id"]: one for one in (zone(number, round(rng.random() * 9, 4)) for number in range(40))}
    snapshot = {"zones": list(zones.values()), **told(list(zones.values()))}
    deltas = []
    for _ in range(25):
        removed = rng.sample(sorted(zones), 3)
        changed = [zone(number, round(rng.random() * 9, 4)) for number in rng.sample(range(80), 6)]
        for name in removed:
            zones.pop(name)
        zones.update((one["id"], one) for one in changed)
        deltas.append({"set": changed, "removed": removed, **told(list(zones.values()))})
    found = module_page.evaluate(
        """async ([snapshot, deltas]) => {
            const { tableOf, applied } = await import('/src/zone_rows.js');
            let table = tableOf(snapshot);
            for (const delta of deltas) table = applied(table, delta);
            return Object.fromEntries(table);
        }""",
        [snapshot, deltas],
    )
    assert found == zones


def test_what_does_not_check_out_is_no_table(module_page: Page) -> None:
    zones = [zone(1), zone(2)]
    found = module_page.evaluate(
        """async ([snapshot, wrong, fewer, delta]) => {
            const { tableOf, applied } = await import('/src/zone_rows.js');
            const table = tableOf(snapshot);
            return [tableOf(wrong), tableOf(fewer), applied(table, delta), table.size];
        }""",
        [
            {"zones": zones, **told(zones)},
            {"zones": zones, **told(zones, crc32=1)},
            {"zones": zones[:1], **told(zones)},
            {"set": [zone(2, 9.0)], "removed": [], **told(zones)},
        ],
    )
    assert found == [None, None, None, 2]


def test_filters_of_tiers_and_usd(module_page: Page) -> None:
    zones = [
        zone(1, 1.0, tier_contributions={"25": 0.0099, "50": 0.99}),
        zone(2, 3.0, tier_contributions={"25": 0.03}),
        zone(3, 2.0, tier_contributions={}),
        zone(4, 2.0, tier_contributions={"25": 1.0, "50": 1.0}, price=1.0),
    ]
    found = module_page.evaluate(
        """async ([zones, filters]) => {
            const { shownZones } = await import('/src/zone_rows.js');
            return filters.map((filter) => shownZones(zones, filter).map((one) => one.id));
        }""",
        [
            zones,
            [
                {"tiers": None, "minUsd": 0},
                {"tiers": [25], "minUsd": 0},
                {"tiers": [50, 100], "minUsd": 0},
                {"tiers": None, "minUsd": 3000},
            ],
        ],
    )
    name = [one["id"] for one in zones]
    assert found == [[name[1], name[3], name[2], name[0]], [name[1], name[3]], [name[3], name[0]], [name[3], name[2]]]
