"""Wire cases as data, for every venue: messages in a file, what they must become beside it; and mutations of them.

`NNN.json` has one message per line, all on one connection; `NNN.expect.json` says where they come from, the expected records
(only the fields that it names are compared) and the reasons that are counted.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mpengine.venues.base import RestCall, Routed, VenueModule
from shm.records import Decoded, Kind, Venue, decode

WIRE = Path(__file__).resolve().parents[1] / "wire"
RECV_NS = 1_900_000_000 * 10**9

Flat = dict[str, Any]


def cases(venue: str) -> list[Path]:
    """All wire cases of a venue; each has its expectation, and none is orphaned."""
    found = sorted(path for path in (WIRE / venue).rglob("*.json") if not path.name.endswith(".expect.json"))
    expected = {path.with_name(path.name.replace(".expect.json", ".json")) for path in (WIRE / venue).rglob("*.expect.json")}
    assert found and set(found) == expected
    return found


def flat(symbol: str, record: Decoded) -> Flat:
    """A record with its symbol, kind by name, levels as lists."""
    levels = {"bid_levels": [list(level) for level in record.bids], "ask_levels": [list(level) for level in record.asks]}
    return {"symbol": symbol, **record.fields, "kind": record.kind.name, **levels}


def differences(path: Path, module: VenueModule, venue: Venue) -> list[str]:
    """What a wire case yields other than what it expects."""
    wanted = json.loads(path.with_name(f"{path.stem}.expect.json").read_text(encoding="utf-8"))
    before = module.counters.events.copy()
    for payload in path.read_bytes().splitlines():
        if path.parent.name == "rest":
            module.receive_rest(RestCall(wanted["call"], wanted["for_symbol"], "", 1), 200, payload, RECV_NS)
        else:
            module.receive("public#1", payload, RECV_NS)
    found = [flat(routed.symbol, record) for routed in module.events() for record in decode(routed.data)]
    wrong = [] if len(found) == len(wanted["expect"]) else [f"{len(found)} records"]
    for got, expect in zip(found, wanted["expect"]):
        expect |= {"recv_ts_ns": RECV_NS, "venue": venue}
        wrong += [f"{key}: {got[key]}, expected {value}" for key, value in expect.items() if not _same(got[key], value)]
    counted = [after - old for old, after in zip(before, module.counters.events)]
    if counted != [0, *(sum(one["kind"] == kind.name for one in found) for kind in Kind)]:
        wrong.append(f"counted {counted}")
    if sorted(module.counters.reasons) != sorted(wanted.get("refused", [])):
        wrong.append(f"reasons {module.counters.reasons}")
    return wrong


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(_same(one, other) for one, other in zip(found, wanted))
    if isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-12, abs_tol=0.0)
    return bool(found == wanted)


ODD: list[Any] = ["", "NaN", "-1", "0", "1e400", "net", -1, 0, 2**70, 0.5, None, True, [], {}, [[]], ["1"], "9" * 30]


def mutated(rng: random.Random, payload: bytes) -> bytes:
    """The message with a value or two replaced or left out; or with a few bytes changed, cut, doubled or moved."""
    if rng.random() < 0.7:
        try:
            message = json.loads(payload)
        except ValueError:
            message = None
        if isinstance(message, dict | list):
            for _ in range(rng.choice((1, 1, 2))):
                _change(rng, message)
            return json.dumps(message).encode()
    data = bytearray(payload)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        at, kind = rng.randrange(len(data)), rng.randrange(4)
        if kind == 0:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 8)]
        else:
            other = rng.randrange(len(data))
            data[at : at + 4] = data[other : other + 4]
    return bytes(data)


def _change(rng: random.Random, message: Any) -> None:
    """Replace or drop one value somewhere inside."""
    place = message
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.85:
            place = inner
            continue
        if rng.random() < 0.15:
            del place[key]
        else:
            place[key] = rng.choice(ODD)
        return


def assert_sound(events: Iterable[Routed]) -> None:
    """Records that a core may take: finite numbers, positive where they must be, whole."""
    for routed in events:
        for record in decode(routed.data):
            if record.kind in (Kind.DEPTH, Kind.SNAPSHOT):
                numbers = [number for level in (*record.bids, *record.asks) for number in level]
                assert all(math.isfinite(number) and number >= 0.0 for number in numbers)
            elif record.kind is not Kind.GAP:
                fields = record.fields
                assert all(math.isfinite(fields[name]) for name in ("price", "qty", "aux"))
                if record.kind in (Kind.TRADE, Kind.LIQUIDATION):
                    assert fields["price"] > 0 and fields["qty"] > 0 and fields["side"] in (1, 2)
                if record.kind is Kind.MARK:
                    assert fields["price"] > 0
                if record.kind is Kind.OPEN_INTEREST:
                    assert fields["qty"] > 0
