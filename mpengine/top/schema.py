"""`mpengine top --once --json`: one object, typed. Pure.

Keys are only ever added; a reader ignores those that it does not know. Times are epoch ms of the instance's clock, `now_ms` among
them, so that ages are differences. Missing is null. `map.columns` and `book.columns` hold base64 of the bytes of `mpengine.cells`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import msgspec
from msgspec import Struct

from mpengine.top.badge import Badge, badge
from mpengine.top.model import Facts


class BadgeBody(Struct, frozen=True, kw_only=True):
    """`reasons`: why it is STALE, the gravest first."""

    state: Literal["LIVE", "STALE", "PAUSED", "PAUSED STALE"]
    reasons: tuple[str, ...]


class TopBody(Struct, frozen=True, kw_only=True):
    """What is printed. `estimated`: maps and zones are models, always; `accuracy`: null, no server publishes a scorecard so far."""

    schema: Literal[1] = 1
    badge: BadgeBody
    estimated: Literal[True] = True
    accuracy: None = None
    facts: Facts


def body_of(facts: Facts, *, heat: bool = False) -> TopBody:
    """The object of these facts. `heat`: with the columns of the strips, which are most of the bytes."""
    found: Badge = badge(facts, facts.now_ms)
    state: Literal["LIVE", "STALE"] = "STALE" if found.stale else "LIVE"
    if not heat:
        facts = replace(facts, map=None, book=None)
    return TopBody(badge=BadgeBody(state=state, reasons=found.reasons), facts=facts)


def encode(body: TopBody) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(body)


def decode(data: bytes) -> TopBody:
    """The object of such a line. Raises msgspec.ValidationError, msgspec.DecodeError."""
    return msgspec.json.decode(data, type=TopBody)


def json_schema() -> dict[str, object]:
    """JSON Schema of the object."""
    return msgspec.json.schema(TopBody)
