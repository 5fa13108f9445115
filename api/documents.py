"""Documents as the API reads them: decoded against their schema, with identity and time of their publish."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Generic, TypeVar

from mpengine import schemas
from mpengine.schemas import BookDocument, FeedsDocument, LevelsDocument, OiDocument, StatusDocument, ZonesDocument
from shm.slots import Slot

log = logging.getLogger("api.documents")

D = TypeVar("D", BookDocument, StatusDocument, FeedsDocument, OiDocument, LevelsDocument, ZonesDocument)


@dataclass(frozen=True, slots=True)
class Published(Generic[D]):
    """One version of a document. `identity`: (epoch of its writer, version). `published_ns`: wall clock."""

    content: D
    identity: tuple[int, int]
    published_ns: int


def published(slot: Slot | None, kind: type[D]) -> Published[D] | None:
    """The document in a slot; None without one. One that cannot be read is logged and counts as not there."""
    if slot is None:
        return None
    try:
        return Published(schemas.decode(slot.payload, kind), (slot.epoch, slot.frame_no), slot.published_ns)
    except ValueError as error:
        log.warning("a document cannot be read: %s", error)
        return None
