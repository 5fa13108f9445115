"""The check that the contract tests rely on finds what it is for."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest
from msgspec import UNSET, Meta, Struct, UnsetType

from mpengine.contract import LiqHeatmap, Reconstructor, Time
from tests.api.schema_check import difference, faults


class Inner(Struct, frozen=True, kw_only=True):
    side: Literal["long", "short"]
    weights: dict[str, float]


class Outer(Struct, frozen=True, kw_only=True):
    count: int
    price: float
    cells: list[Annotated[int, Meta(ge=0, le=255)]]
    note: str | UnsetType = UNSET
    age: float | None
    inner: Inner
    rows: list[int | float | tuple[int, int]]


GOOD = {"count": 1, "price": 60620.0, "cells": [0, 255], "age": None, "inner": {"side": "long", "weights": {"50": 0.5}},
        "rows": [1, 2.5, [3, 4]]}  # fmt: skip


def test_what_is_right_has_no_fault() -> None:
    assert faults(json.dumps(GOOD), Outer) == []
    assert faults(json.dumps({**dict(list(GOOD.items())[:3]), "note": "x", **dict(list(GOOD.items())[3:])}), Outer) == []
    assert faults(b'{"now_ms":1,"uptime_s":0.5}', Time) == []


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"count": 1.0}, "$.count"), ({"count": True}, "$.count"), ({"price": 60620}, "$.price"), ({"price": None}, "$.price"),
        ({"price": "1.0"}, "$.price"), ({"cells": [0, 256]}, "$.cells[1]"), ({"cells": [-1]}, "$.cells[0]"),
        ({"cells": {}}, "$.cells"), ({"note": None}, "$.note"), ({"age": 1}, "$.age"), ({"inner": []}, "$.inner"),
        ({"inner": {"side": "Long", "weights": {}}}, "$.inner.side"),
        ({"inner": {"side": "long", "weights": {"50": 1}}}, "$.inner.weights.50"),
        ({"inner": {"weights": {}, "side": "long"}}, "$.inner: the keys"), ({"rows": [[1]]}, "$.rows[0]"),
        ({"rows": ["1"]}, "$.rows[0]"), ({"more": 1}, "$.more: is not in the contract"), ({"price": float("nan")}, "$.price: NaN"),
    ],
)  # fmt: skip
def test_each_deviation_is_told_with_its_path(changed: dict[str, object], where: str) -> None:
    found = faults(json.dumps({**GOOD, **changed}), Outer)
    assert any(fault.startswith(where) for fault in found), found


def test_missing_doubled_and_disordered_keys_are_told() -> None:
    assert faults(b'{"now_ms":1}', Time) == ["$.uptime_s: is missing"]
    assert faults(b'{"uptime_s":0.5,"now_ms":1}', Time)[0].startswith("$: the keys are in the order")
    assert "$: a key came twice" in faults(b'{"now_ms":1,"now_ms":1,"uptime_s":0.5}', Time)
    assert faults(b"[]", Time) == ["$: [] is no object"]
    assert len(faults(b"{}", LiqHeatmap)) == 20


def test_of_alternatives_exactly_one_is_there() -> None:
    assert faults(b'{"error":"not available"}', Reconstructor) == []
    assert "none of the sets" in faults(b"{}", Reconstructor)[0]
    assert "none of the sets" in faults(b'{"error":"x","synced":true}', Reconstructor)[0]


def test_the_first_difference_has_its_path() -> None:
    assert difference(b'{"a":[1,2]}', b'{"a":[1,2]}') is None
    assert difference(b'{"a":[1,{"b":2}]}', b'{"a":[1,{"b":2.0}]}') == "$.a[1].b: 2 became 2.0"
    assert difference(b'{"a":1,"b":2}', b'{"b":2,"a":1}') == "$: keys ['a', 'b'] became ['b', 'a']"
    assert difference(b'{"a":[1]}', b'{"a":[1,2]}') == "$.a: 1 elements became 2"
