"""Parameters of `/heatmap`: from the bytes of a query to the canonical one (`spec: api`, sections 1.5, 11.1). Pure.

Two requests that mean the same are equal here, so they share one kept answer: defaults are filled in, times are snapped to the
columns and prices to the rows, lists are in one order, and what does not act (`min_usd` of a dense answer, `venues` without
realised liquidations, `max_rows` beside `k`) is gone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from api.errors import ApiError, invalid, too_large
from api.heatmap_grid import DT_MS, MAX_CELLS, MAX_ROWS, MULTIPLES, Window, choose_dt
from api.params import FORMAT, MIN_USD, PRICE_MAX, PRICE_MIN, Choice, Integer
from api.views import snapped
from shm.grid import price_of
from shm.records import Venue

MAPS: Final = ("liq", "tape", "projected")
DEPTH: Final = "depth"
REALISED: Final = "realised"
LAYER_NAMES: Final = (*MAPS, DEPTH, REALISED)
MS_PER_S: Final = 1000

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Listed:
    """A whole number out of a list; 0: chosen by us."""

    name: str
    values: tuple[int, ...]

    def read(self, text: str | None) -> int:
        value = 0 if text is None else int(text) if _INTEGER.fullmatch(text) else -1
        if value != 0 and value not in self.values:
            raise invalid(self.name, f"0 or one of {', '.join(map(str, self.values))}")
        return value


@dataclass(frozen=True, slots=True)
class Words:
    """Words out of a list, separated by commas, in any case; the value has each once, in the order of the list."""

    name: str
    words: tuple[str, ...]
    default: tuple[str, ...]

    def read(self, text: str | None) -> tuple[str, ...]:
        given = self.default if text is None else tuple(word.strip().lower() for word in text.split(","))
        if not all(word in self.words for word in given):
            raise invalid(self.name, f"a list out of {', '.join(self.words)}")
        return tuple(word for word in self.words if word in given)


@dataclass(frozen=True, slots=True)
class Refused:
    """A parameter that other endpoints have: ignoring it here would give something else than what was asked for."""

    name: str
    reason: str

    def read(self, text: str | None) -> None:
        if text is not None:
            raise ApiError(400, "invalid_parameter", f"{self.name} cannot be used here: {self.reason}")


VENUES: Final = tuple(venue.label for venue in Venue if venue is not Venue.NONE)

HEATMAP: Final = (
    Integer("minutes", 720, 5, 1440, clamp=True),
    Integer("to_ms", None, 1, 10**15 - 1),
    Integer("since_ms", None, 0, 10**15 - 1),
    Words("layers", LAYER_NAMES, ("liq", DEPTH, REALISED)),
    Listed("dt_s", tuple(dt // MS_PER_S for dt in DT_MS)),
    Listed("k", MULTIPLES),
    Integer("max_cols", 720, 16, 1440, clamp=True),
    Integer("max_rows", 1000, 16, 2000, clamp=True),
    PRICE_MIN,
    PRICE_MAX,
    Choice("pool", "max", ("max", "sum")),
    Choice("form", "dense", ("dense", "sparse")),
    Choice("cell", "u8log", ("u8log", "usd", "f16")),
    MIN_USD,
    Words("venues", VENUES, VENUES),
    Refused("tiers", "planes are not split by tier, see /liq_zones"),
    FORMAT,
)


@dataclass(frozen=True, slots=True)
class HeatmapQuery:
    """Canonical parameters. `k` 0: chosen by the rows of the data, at most `max_rows`; `window` counts in rows of k symbol steps
    (of one step for k 0); `cols`: columns of the whole window; `venues` None: all."""

    symbol: str
    minutes: int
    to_ms: int | None
    since_ms: int | None
    layers: tuple[str, ...]
    dt_ms: int
    cols: int
    k: int
    max_rows: int
    window: Window
    sums: bool
    sparse: bool
    cell: str
    min_usd: float
    venues: tuple[str, ...] | None
    binary: bool

    @property
    def maps(self) -> tuple[str, ...]:
        """Layers of the liquidation map among those asked for."""
        return tuple(name for name in self.layers if name in MAPS)

    @property
    def realised(self) -> bool:
        return REALISED in self.layers

    @property
    def depth(self) -> bool:
        return DEPTH in self.layers


def query_of(values: dict[str, Any], step: float) -> HeatmapQuery:
    """The canonical query of checked values. `step`: the symbol's, USD. Raises ApiError 400."""
    layers, k, sparse, binary = values["layers"], values["k"], values["form"] == "sparse", values["format"] == "bin"
    given_dt_ms = values["dt_s"] * MS_PER_S
    dt_ms, cols = choose_dt(values["minutes"], given_dt_ms, values["max_cols"])
    window = _window(values["price_min"], values["price_max"], k, step)
    _check_cell(values["cell"], binary=binary)
    if given_dt_ms and k and _rows(window) * cols > MAX_CELLS:
        raise too_large(f"dt_s and k must give at most {MAX_CELLS} cells")
    to_ms, since_ms, venues = values["to_ms"], values["since_ms"], values["venues"]
    return HeatmapQuery(
        symbol=values["symbol"],
        minutes=values["minutes"],
        to_ms=None if to_ms is None else -(-to_ms // dt_ms) * dt_ms,
        since_ms=None if since_ms is None else since_ms // dt_ms * dt_ms,
        layers=layers,
        dt_ms=dt_ms,
        cols=cols,
        k=k,
        max_rows=0 if k else values["max_rows"],
        window=window,
        sums=values["pool"] == "sum",
        sparse=sparse,
        cell=values["cell"],
        min_usd=round(values["min_usd"] or 0.0, 2) if sparse else 0.0,
        venues=None if REALISED not in layers or venues == VENUES else venues,
        binary=binary,
    )


def _check_cell(cell: str, *, binary: bool) -> None:
    if cell == "usd" and binary:
        raise invalid("cell", "u8log or f16 in the binary form")
    if cell == "f16" and not binary:
        raise invalid("cell", "u8log or usd in JSON")


def _window(price_min: float | None, price_max: float | None, k: int, step: float) -> Window:
    if price_min is not None and price_max is not None and price_min >= price_max:
        raise invalid("price_min", "below price_max")
    of = k or 1
    wide = price_of(of, step)
    window = Window(snapped("price_min", price_min, wide), snapped("price_max", price_max, wide), of)
    if k and _rows(window) > MAX_ROWS:
        raise too_large(f"price_min to price_max must be at most {MAX_ROWS} rows of k steps")
    return window


def _rows(window: Window) -> int:
    """Rows between two given prices; 0 where one is open."""
    return 0 if window.low is None or window.high is None else window.high - window.low + 1
