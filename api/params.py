"""From the bytes of a query to checked values. Pure; every rule of `spec: api`, sections 1.1 and 2, is here once.

A parameter is an object that knows its name, default and range and turns text into a value or raises the fixed 400. The tables
below are what the resources validate with, and what a description of the interface can be built from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from api.errors import ApiError, invalid, invalid_query, invalid_symbol, repeated
from shm.records import Venue

MAX_PARAMETERS: Final = 32
MAX_CHARACTERS: Final = 128
DEFAULT_SYMBOL: Final = "BTC"

# ASCII digits only: int() and float() also take "１", "1_000", " 1", "nan", "0x1p3".
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,15}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")

Query = Mapping[str, str]


class Parameter(Protocol):
    """One row of a parameter table."""

    @property
    def name(self) -> str: ...

    def read(self, text: str | None) -> Any:
        """Value of the text, of its absence for None. Raises ApiError 400."""


def parse_query(raw: bytes, known: Iterable[str], long: Iterable[str] = ()) -> Query:
    """Names and values of a query string. Raises ApiError: more than 32, given twice, empty, too long, not UTF-8.

    `known`: names that a text may repeat; any other name came from the caller. Parameters that nobody knows are returned too.
    `long`: names of lists, which only the length of the request line bounds.
    """
    if not raw:
        return {}
    pairs = raw.split(b"&")
    if len(pairs) > MAX_PARAMETERS:
        raise invalid_query(f"There must be at most {MAX_PARAMETERS} parameters")
    values: dict[str, str] = {}
    names = frozenset(known)
    for pair in pairs:
        name_bytes, _, value_bytes = pair.partition(b"=")
        name, value = _decoded(name_bytes), _decoded(value_bytes)
        if not name and not value:
            continue  # "a=1&&b=2", "a=1&"
        if name in values:
            raise repeated(name if name in names else None)
        values[name] = value
    for name, value in values.items():
        if name not in long or not value:
            _check_length(name if name in names else "a parameter", value)
    return values


def _decoded(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise invalid_query("The query must be UTF-8") from None


def _check_length(name: str, value: str) -> None:
    if not value:
        raise invalid(name, "given with a value or not at all")
    if len(value) > MAX_CHARACTERS:
        code = "invalid_symbol" if name == "symbol" else "invalid_parameter"
        raise ApiError(400, code, f"{name} must be at most {MAX_CHARACTERS} characters")


@dataclass(frozen=True, slots=True)
class Symbol:
    """`symbol`: default BTC; stripped, upper-cased, every USDT removed; then one of the configured ones."""

    symbols: tuple[str, ...]
    name: str = "symbol"

    def read(self, text: str | None) -> str:
        symbol = DEFAULT_SYMBOL if text is None else text.strip().upper().replace("USDT", "")
        if symbol not in self.symbols:
            raise invalid_symbol(", ".join(self.symbols))
        return symbol


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number: `default` when absent; outside the range it is clamped, or refused where `clamp` is False."""

    name: str
    default: int | None
    low: int
    high: int
    clamp: bool = False

    def read(self, text: str | None) -> int | None:
        if text is None:
            return self.default
        value = int(text) if _INTEGER.fullmatch(text) else None
        if value is not None and self.clamp:
            return min(max(value, self.low), self.high)
        if value is None or not self.low <= value <= self.high:
            raise invalid(self.name, f"an integer from {self.low} to {self.high}")
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number above `above` (`inclusive`: or equal to it) and at most `high`; absent is None."""

    name: str
    above: float
    high: float = math.inf
    inclusive: bool = False

    def read(self, text: str | None) -> float | None:
        if text is None:
            return None
        value = float(text) if _NUMBER.fullmatch(text) else math.nan
        inside = self.above < value <= self.high or (self.inclusive and value == self.above)
        if not (inside and math.isfinite(value)):
            limit = "" if math.isinf(self.high) else f" and at most {self.high:g}"
            raise invalid(self.name, f"a finite number {'at least' if self.inclusive else 'above'} {self.above:g}{limit}")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a list of words; case counts."""

    name: str
    default: str
    words: tuple[str, ...]

    def read(self, text: str | None) -> str:
        value = self.default if text is None else text
        if value not in self.words:
            raise invalid(self.name, f"one of {', '.join(self.words)}")
        return value


@dataclass(frozen=True, slots=True)
class OptionalChoice:
    """One of a list of words, in any case; absent is None."""

    name: str
    words: tuple[str, ...]

    def read(self, text: str | None) -> str | None:
        if text is None:
            return None
        if text.lower() not in self.words:
            raise invalid(self.name, f"one of {', '.join(self.words)}")
        return text.lower()


@dataclass(frozen=True, slots=True)
class Names:
    """A list of names with commas between them, without those that come twice; absent is an empty one."""

    name: str

    def read(self, text: str | None) -> tuple[str, ...]:
        return () if text is None else tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


@dataclass(frozen=True, slots=True)
class Text:
    """Any text; absent is None."""

    name: str

    def read(self, text: str | None) -> str | None:
        return text


MINUTES: Final = Integer("minutes", 720, 5, 720, clamp=True)
STRIDE: Final = Integer("stride", 1, 1, 30, clamp=True)
RANGE_PCT: Final = Number("range_pct", 0.0, 1.0)
STEP: Final = Number("step", 0.0)
PRICE_MIN: Final = Number("price_min", 0.0)
PRICE_MAX: Final = Number("price_max", 0.0)
FORMAT: Final = Choice("format", "json", ("json", "bin"))
INTERVAL: Final = Choice("interval", "1m", ("1m", "5m", "15m", "1h", "4h"))
LIMIT: Final = Integer("limit", 720, 1, 1500, clamp=True)
TO_MS: Final = Integer("to_ms", None, 1, 10**15 - 1)
AFTER: Final = Integer("after", None, -1, 10**15 - 1)
BEFORE: Final = Integer("before", None, 0, 10**15 - 1)
EPOCH: Final = Integer("epoch", None, 0, 10**15 - 1)
PAGE: Final = Integer("limit", 200, 1, 1000, clamp=True)
SIDE: Final = OptionalChoice("side", ("long", "short"))
VENUE: Final = OptionalChoice("venue", tuple(venue.label for venue in Venue if venue))
MIN_USD: Final = Number("min_usd", 0.0, inclusive=True)

MIN_NOTIONAL: Final = Number("min_notional", 0.0, inclusive=True)
MIN_LEVERAGE: Final = Integer("min_leverage", None, 0, 250)
MAX_LEVERAGE: Final = Integer("max_leverage", None, 0, 250)
MIN_WEIGHT: Final = Number("min_weight", 0.0, 5.0, inclusive=True)

DEPTH: Final = (RANGE_PCT, STEP, PRICE_MIN, PRICE_MAX, FORMAT)
DEPTH_HISTORY: Final = (MINUTES, STRIDE, *DEPTH)
CANDLES: Final = (INTERVAL, LIMIT, TO_MS)
MAP_V2: Final = (MIN_NOTIONAL,)
MAP_HISTORY: Final = (MINUTES, STRIDE)
ZONES: Final = (SIDE, MIN_LEVERAGE, MAX_LEVERAGE, MIN_WEIGHT)
ZONES_HEATMAP: Final = (MIN_NOTIONAL, MIN_LEVERAGE, MAX_LEVERAGE, MIN_WEIGHT)
LIQUIDATIONS: Final = (AFTER, BEFORE, EPOCH, PAGE, SIDE, VENUE, MIN_USD)


CHANNELS: Final = Names("channels")
CELL: Final = Choice("cell", "u8log", ("u8log",))
RESUME: Final = Text("resume")
STREAM: Final = (CHANNELS, CELL, RESUME)


def read_stream(raw: bytes) -> dict[str, Any]:
    """Parameters of `/stream` by name. Raises ApiError 400."""
    query = parse_query(raw, [row.name for row in STREAM], long=(CHANNELS.name, RESUME.name))
    return {row.name: row.read(query.get(row.name)) for row in STREAM}


@dataclass(frozen=True, slots=True)
class Table:
    """Parameters of one endpoint: `symbol`, then the rows in the order in which they are checked."""

    symbol: Symbol
    rows: tuple[Parameter, ...] = ()

    def read(self, raw: bytes) -> dict[str, Any]:
        """Value by name. Raises ApiError 400 for the first row that is violated."""
        query = parse_query(raw, ("symbol", *(row.name for row in self.rows)))
        values: dict[str, Any] = {"symbol": self.symbol.read(query.get("symbol"))}
        for row in self.rows:
            values[row.name] = row.read(query.get(row.name))
        return values
