"""A body against its Struct of `mpengine.contract`, as strictly as the strictest client: for tests, also against a running tree.

Told are a missing key, an unknown key, a key out of order or given twice, and a value of another JSON type: `1` where the contract
says float, `1.0` where it says int, null where it may not be, a number out of its range, NaN.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, UnsetType

from mpengine.contract import ONE_OF

LIMIT = 20


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written: nothing merged, nothing sorted."""


def parse(body: bytes | str) -> Any:
    """JSON with ints and floats apart and objects as `Pairs`; NaN and Infinity become something that fits nowhere."""
    return json.loads(body, object_pairs_hook=Pairs, parse_constant=_NotJson)


class _NotJson:
    def __init__(self, text: str) -> None:
        self.text = text


def faults(body: bytes | str, kind: type[Struct]) -> list[str]:
    """The first `LIMIT` deviations of a body, each with its JSON path; empty where there is none."""
    found = []
    for fault in _check(parse(body), kind, "$"):
        found.append(fault)
        if len(found) == LIMIT:
            break
    return found


def _check(value: Any, kind: Any, path: str) -> Iterator[str]:
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _annotated(value, kind, path)
    elif origin in (Union, UnionType):
        yield from _union(value, kind, path)
    elif kind is Any:
        return
    elif isinstance(kind, type) and issubclass(kind, Struct):
        yield from _struct(value, kind, path)
    elif origin is Literal:
        if not any(value == word and type(value) is type(word) for word in get_args(kind)):
            yield f"{path}: {_shown(value)} is none of {get_args(kind)}"
    elif origin is list:
        if type(value) is not list:
            yield f"{path}: {_shown(value)} is no array"
            return
        (item,) = get_args(kind)
        if not _fit(value, item):
            for number, one in enumerate(value):
                yield from _check(one, item, f"{path}[{number}]")
    elif origin is tuple:
        items = get_args(kind)
        if type(value) is not list or len(value) != len(items):
            yield f"{path}: {_shown(value)} is no array of {len(items)}"
            return
        for number, (one, item) in enumerate(zip(value, items)):
            yield from _check(one, item, f"{path}[{number}]")
    elif origin is dict:
        yield from _dict(value, get_args(kind)[1], path)
    elif type(value) is not kind:
        yield f"{path}: {_shown(value)} is no {kind.__name__}"
    elif kind is float and not math.isfinite(value):
        yield f"{path}: {value} is not finite"


def _fit(values: list[Any], kind: Any) -> bool:
    """Whether all elements of a long array are plain numbers that the kind allows; False: look at each."""
    notes: list[Any] = []
    if get_origin(kind) is Annotated:
        kind, *notes = get_args(kind)
    allowed = set(get_args(kind)) if get_origin(kind) in (Union, UnionType) else {kind}
    if not values or not set(map(type, values)) <= allowed & {int, float} or not all(map(math.isfinite, values)):
        return False
    return all((note.ge is None or min(values) >= note.ge) and (note.le is None or max(values) <= note.le) for note in notes)


def _annotated(value: Any, kind: Any, path: str) -> Iterator[str]:
    base, *notes = get_args(kind)
    before = list(_check(value, base, path))
    yield from before
    for note in notes:
        if not before and isinstance(note, Meta):
            if note.ge is not None and value < note.ge:
                yield f"{path}: {value} is below {note.ge}"
            if note.le is not None and value > note.le:
                yield f"{path}: {value} is above {note.le}"


def _union(value: Any, kind: Any, path: str) -> Iterator[str]:
    kinds = [one for one in get_args(kind) if one is not UnsetType]
    if value is None and NoneType in kinds:
        return
    tries = [list(_check(value, one, path)) for one in kinds if one is not NoneType]
    if all(tries):
        yield from min(tries, key=len)


def _dict(value: Any, item: Any, path: str) -> Iterator[str]:
    if not isinstance(value, Pairs):
        yield f"{path}: {_shown(value)} is no object"
        return
    if len({key for key, _ in value}) != len(value):
        yield f"{path}: a key came twice"
    for key, one in value:
        yield from _check(one, item, f"{path}.{key}")


def _struct(value: Any, kind: type[Struct], path: str) -> Iterator[str]:
    if not isinstance(value, Pairs):
        yield f"{path}: {_shown(value)} is no object"
        return
    fields = {one.encode_name: one for one in msgspec.structs.fields(kind)}
    given = [key for key, _ in value]
    yield from (f"{path}.{key}: is missing" for key, one in fields.items() if one.required and key not in given)
    yield from (f"{path}.{key}: is not in the contract" for key in given if key not in fields)
    if given != (expected := [key for key in fields if key in given]) and sorted(given) == sorted(expected):
        yield f"{path}: the keys are in the order {given}, not {expected}"
    if len(set(given)) != len(given):
        yield f"{path}: a key came twice"
    if kind in ONE_OF and not any(set(given) == set(keys) for keys in ONE_OF[kind]):
        yield f"{path}: the keys {given} are none of the sets that there may be"
    for key, one in value:
        if key in fields:
            yield from _check(one, fields[key].type, f"{path}.{key}")


def _shown(value: Any) -> str:
    if isinstance(value, _NotJson):
        return value.text
    return repr(value)[:60]


def difference(old: bytes | str, new: bytes | str) -> str | None:
    """JSON path and values of the first difference between two texts, None where they hold the same in the same order."""
    return next(_differences(parse(old), parse(new), "$"), None)


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if type(old) is not type(new):
        yield f"{path}: {_shown(old)} became {_shown(new)}"
    elif isinstance(old, Pairs):
        keys = [key for key, _ in old], [key for key, _ in new]
        if keys[0] != keys[1]:
            yield f"{path}: keys {keys[0]} became {keys[1]}"
        for (key, before), (_, after) in zip(old, new):
            yield from _differences(before, after, f"{path}.{key}")
    elif isinstance(old, list):
        for number, (before, after) in enumerate(zip(old, new)):
            yield from _differences(before, after, f"{path}[{number}]")
        if len(old) != len(new):
            yield f"{path}: {len(old)} elements became {len(new)}"
    elif old != new:
        yield f"{path}: {_shown(old)} became {_shown(new)}"
