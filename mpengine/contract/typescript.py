"""The contract as TypeScript: `python -m mpengine.contract.typescript > api/web/types/contract.d.ts`.

One interface per Struct, keys in their order, optional where they may be absent. TypeScript has one kind of number: ints are told
in a comment of the type `Int`, bytes in one of `U8`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, UnsetType

from mpengine import contract
from mpengine.contract import push

HEAD: Final = """\
// Generated from mpengine.contract by `python -m mpengine.contract.typescript`. Do not edit.

/** A whole number. */
export type Int = number;
/** 0 to 255. */
export type U8 = number;
"""

_PLAIN: Final[dict[Any, str]] = {
    int: "Int", float: "number", str: "string", bool: "boolean", NoneType: "null", Any: "unknown",
}  # fmt: skip


def kinds() -> list[type[Struct]]:
    """Every Struct of the contract: bodies by name, then push messages and commands with what they hold."""
    bodies = [kind for name in contract.__all__ if inspect.isclass(kind := getattr(contract, name))]
    pushed = [*push.MESSAGES, *push.COMMANDS, *(kind for kinds in push.CHANNELS.values() for kind in kinds)]
    found: dict[type[Struct], None] = {}
    for kind in [*bodies, *pushed]:
        _collect(kind, found)
    return sorted(found, key=lambda kind: kind.__name__)


def _collect(kind: Any, found: dict[type[Struct], None]) -> None:
    if isinstance(kind, type) and issubclass(kind, Struct):
        if kind not in found:
            found[kind] = None
            for one in msgspec.structs.fields(kind):
                _collect(one.type, found)
        return
    for part in get_args(kind):
        _collect(part, found)


def type_of(kind: Any) -> str:
    """The TypeScript of a type that a Struct has. Raises TypeError for one that the contract has not had so far."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind.__name__
    if origin is Annotated:
        bounded = any(isinstance(note, Meta) and note.le == 255 for note in parts[1:])
        return "U8" if bounded else type_of(parts[0])
    if origin is Literal:
        return " | ".join(_literal(word) for word in parts)
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(type_of(part) for part in parts if part is not UnsetType))
    if origin is list:
        item = type_of(parts[0])
        return f"({item})[]" if " | " in item else f"{item}[]"
    if origin is tuple:
        return f"[{', '.join(type_of(part) for part in parts)}]"
    if origin is dict:
        return f"Record<string, {type_of(parts[1])}>"
    raise TypeError(f"no TypeScript for {kind}")


def _literal(word: object) -> str:
    return f'"{word}"' if isinstance(word, str) else str(word).lower()


def _interface(kind: type[Struct]) -> Iterator[str]:
    yield ""
    yield "/**"
    yield from (f" * {line}".rstrip() for line in (inspect.getdoc(kind) or "").splitlines())
    yield " */"
    yield f"export interface {kind.__name__} {{"
    for one in msgspec.structs.fields(kind):
        yield f"  {one.encode_name}{'' if one.required else '?'}: {type_of(one.type)};"
    yield "}"


def _unions() -> Iterator[str]:
    yield ""
    yield "/** What a push connection may send. */"
    yield f"export type PushMessage = {_names(push.MESSAGES)};"
    yield "/** What a client may send over /ws. */"
    yield f"export type PushCommand = {_names(push.COMMANDS)};"
    yield ""
    yield "/** `data` of a snapshot or delta by kind of channel. */"
    yield "export interface ChannelData {"
    yield from (f"  {kind}: {_names(structs)};" for kind, structs in push.CHANNELS.items())
    yield "}"


def _names(structs: Iterable[type[Struct]]) -> str:
    return " | ".join(kind.__name__ for kind in structs)


def generate() -> str:
    """The whole file."""
    lines = [line for kind in kinds() for line in _interface(kind)]
    return HEAD + "\n".join([*lines, *_unions()]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(generate())
