"""One row of the table of endpoints: what a path answers, in words that routing, limits and the description share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from msgspec import Struct

from api.context import Context
from api.health import Health
from api.params import Parameter

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"

Build = Callable[[Context, Health], object]
"""Makes the resource of one worker."""


class Cost(IntEnum):
    """Tokens that a request takes from the bucket of its client (`spec: api`, section 9.2)."""

    PROBE = 0
    DOCUMENT = 1
    HISTORY = 5
    GRID = 10


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path with its aliases, which answer the same bytes.

    `build`: makes its resource. `parameters`: those besides `symbol`, the same object as the resource's table; `symbol`: whether
    there is a `symbol`. `body`: JSON of a 200, None where it has none of the contract; `media`: content types of a 200, none
    where there is only an upgrade. `codes`: error codes beyond those that every endpoint has, by status. `data`: has an
    identity, so ETag, X-Seq and the like.
    `open`: needs no key. `also`: statuses beside 200 that have the same body. `headers`: names of further headers of a 200.
    """

    path: str
    summary: str
    build: Build
    aliases: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    symbol: bool = False
    body: type[Struct] | None = None
    media: tuple[str, ...] = (JSON,)
    codes: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    cost: Cost = Cost.DOCUMENT
    data: bool = False
    open: bool = False
    also: tuple[int, ...] = ()
    headers: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The path, then its aliases."""
        return (self.path, *self.aliases)
