"""Maintenance margin brackets of the venues: one versioned data file (`spec: engine`, section 6.2). Pure but for `shipped`.

The file: {schema_version, as_of, source, venues: {venue: {instrument: [[notional cap USD, rate, max leverage, amount USD], ...]}}}.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

BRACKETS_SCHEMA: Final = 1
MAX_ROWS: Final = 200
AMOUNT_TOLERANCE_USD: Final = 1.0


class Bracket(Struct, frozen=True, array_like=True):
    """One row: up to `cap_usd` of notional, maintenance margin is notional x `mmr` - `amount_usd`; leverage to `max_leverage`."""

    cap_usd: float
    mmr: float
    max_leverage: float
    amount_usd: float


class BracketFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole data file. `as_of`: the day the rows are of, ISO; `source`: where they come from."""

    schema_version: Annotated[int, Meta(ge=BRACKETS_SCHEMA, le=BRACKETS_SCHEMA)]
    as_of: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
    source: str
    venues: dict[str, dict[str, list[Bracket]]]

    def of(self, venue: str, instrument: str | None) -> list[Bracket]:
        """Rows of an instrument, [] where the file has none."""
        return self.venues.get(venue, {}).get(instrument or "", [])


def faults_of(rows: Sequence[Bracket]) -> list[str]:
    """What is wrong with the rows of one instrument; [] for a table that can be used.

    Caps and rates rise, the largest leverage falls, amounts follow from them: c_1 = 0 and, within 1 USD,
    c_n = c_(n-1) + cap_(n-1) (r_n - r_(n-1)).
    """
    if not 1 <= len(rows) <= MAX_ROWS:
        return [f"must have 1 to {MAX_ROWS} rows"]
    found = [] if rows[0].amount_usd == 0.0 else ["row 1: amount must be 0"]
    for number, row in enumerate(rows, 1):
        if not all(math.isfinite(value) for value in (row.cap_usd, row.mmr, row.max_leverage, row.amount_usd)):
            found.append(f"row {number}: numbers must be finite")
        elif not (row.cap_usd > 0.0 and 0.0 < row.mmr < 1.0 and row.max_leverage >= 1.0):
            found.append(f"row {number}: cap must be above 0, rate in (0, 1), leverage at least 1")
    for number, (low, high) in enumerate(pairwise(rows), 2):
        if not (high.cap_usd > low.cap_usd and high.mmr > low.mmr and high.max_leverage < low.max_leverage):
            found.append(f"row {number}: cap and rate must rise, leverage must fall")
        due = low.amount_usd + low.cap_usd * (high.mmr - low.mmr)
        if not abs(high.amount_usd - due) <= AMOUNT_TOLERANCE_USD:
            found.append(f"row {number}: amount must be {due:.2f}")
    return found


def parse(data: bytes) -> BracketFile:
    """A data file. Raises ValueError with every fault of every table."""
    try:
        found = msgspec.json.decode(data, type=BracketFile)
    except msgspec.MsgspecError as error:
        raise ValueError(f"brackets: {error}") from error
    faults = [
        f"brackets: {venue} {instrument}: {fault}"
        for venue, tables in found.venues.items()
        for instrument, rows in tables.items()
        for fault in faults_of(rows)
    ]
    if faults:
        raise ValueError("\n".join(faults))
    return found


def encode(brackets: BracketFile) -> bytes:
    """The data file's bytes, a row per line."""
    text = msgspec.json.format(msgspec.json.encode(brackets), indent=1).decode()
    return (
        re.sub(r"\[\s+([\d.eE+-]+),\s+([\d.eE+-]+),\s+([\d.eE+-]+),\s+([\d.eE+-]+)\s+\]", r"[\1, \2, \3, \4]", text).encode()
        + b"\n"
    )


@lru_cache(maxsize=1)
def shipped() -> BracketFile:
    """The data file that comes with the program."""
    return parse(files("mpengine.data").joinpath("brackets.json").read_bytes())
