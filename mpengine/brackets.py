"""Maintenance margin brackets of the venues: one versioned data file (`spec: engine`, section 6.2). Pure but for `shipped`, `read`.

The file: {schema_version, as_of, source, venues: {venue: {instrument: [[notional cap USD, rate, max leverage, amount USD], ...]}}}.
`mpengine brackets update` writes one from what the venues publish (`mpengine.venues.brackets`).
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

BRACKETS_SCHEMA: Final = 1
MAX_ROWS: Final = 1000
"""OKX adds 0.5 % to both rates with each tier behind the first three, down to a leverage of 1 (its announcements of 2022 to 2025):
200 rows of BTC-USDT, and one more for each further tier that comes first. Steps of 0.1 % would still fit."""
MAX_BYTES: Final = 16 << 20
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


def merged(old: BracketFile, venue: str, tables: Mapping[str, list[Bracket]], source: str, day: str) -> BracketFile:
    """The file with a venue's `tables` (instrument -> rows) in place of those it had; everything else stays.

    `day` is ISO; `source` says where the tables are from and takes the place of what the venue's earlier update said.
    """
    mark = f"{venue} of "
    said = [part for part in old.source.split("; ") if not part.startswith(mark)]
    return BracketFile(
        schema_version=BRACKETS_SCHEMA,
        as_of=max(old.as_of, day),
        source="; ".join([*said, f"{mark}{day}: {source}"]),
        venues={**old.venues, venue: {**old.venues.get(venue, {}), **tables}},
    )


def read(path: Path) -> BracketFile:
    """A data file on disk. Raises ValueError: unreadable, writable by everybody, too large, or any fault of its tables."""
    try:
        status = path.stat()
        if status.st_mode & stat.S_IWOTH:
            raise ValueError("refused, the file can be written by everybody (chmod o-w)")
        if status.st_size > MAX_BYTES:
            raise ValueError("refused, larger than 16 MiB")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot be read ({type(error).__name__})") from error
    return parse(data)


def encode(brackets: BracketFile) -> bytes:
    """The data file's bytes, a row per line."""
    text = msgspec.json.format(msgspec.json.encode(brackets), indent=1).decode()
    return (
        re.sub(r"\[\s+([\d.eE+-]+),\s+([\d.eE+-]+),\s+([\d.eE+-]+),\s+([\d.eE+-]+)\s+\]", r"[\1, \2, \3, \4]", text).encode()
        + b"\n"
    )


def shown(tables: Mapping[str, Mapping[str, Sequence[Bracket]]]) -> str:
    """Venue -> instrument -> rows for a person."""
    lines: list[str] = []
    for venue, instruments in tables.items():
        for instrument, rows in instruments.items():
            lines.append(f"{venue} {instrument}")
            lines += [f"{row.cap_usd:>20,.0f}  {row.mmr:<10g}{row.max_leverage:>9g}x{row.amount_usd:>20,.2f}" for row in rows]
    return "\n".join(lines) if lines else "no brackets: every venue uses default_mmr of each symbol"


@lru_cache(maxsize=1)
def shipped() -> BracketFile:
    """The data file that comes with the program."""
    return parse(files("mpengine.data").joinpath("brackets.json").read_bytes())
