"""A column of a heatmap: one moment, two sides, every price of a frame (`spec: api`, section 13). Pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mpengine.cells import HI_USD, LO_USD, usd_of_u8log
from mpengine.client.errors import ContractError
from mpengine.contract import push
from mpengine.wire_formats import CellType, ColumnFlag, ColumnHeader, Planes, unpack_column
from shm.grid import bucket_of, prices_of

PROVISIONAL: Final = "provisional"
RESTART: Final = "restart"
HEALED: Final = "healed"
"""Flag of a column that was fetched afterwards, on the grid of that answer."""

_FLAGS: Final = {ColumnFlag.PROVISIONAL: PROVISIONAL, ColumnFlag.RESTART: RESTART}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """What rests or is exposed at each price in [t_ms, t_ms + dt_ms). `low`, `high`: cells of bid and ask, or of long and short.

    Row r has its centre at price0 + r * step, USD. price0 and step move between columns: place them by price. `src`: price of that
    time, None without one. Cells: u8log bytes on the scale lo_usd..hi_usd, or float16 in units of `unit_usd`; `usd` decodes them.
    """

    t_ms: int
    dt_ms: int
    price0: float
    step: float
    src: float | None
    flags: frozenset[str]
    low: Planes
    high: Planes
    lo_usd: float = LO_USD
    hi_usd: float = HI_USD
    unit_usd: float = 1.0

    @property
    def rows(self) -> int:
        """Number of prices."""
        return len(self.low)

    def prices(self) -> npt.NDArray[np.float64]:
        """float64[rows] of centres, ascending, exact to the last decimal of the step."""
        return prices_of(bucket_of(self.price0, self.step), self.rows, self.step)

    def usd(self) -> npt.NDArray[np.float64]:
        """float64[2, rows]: USD of both sides; u8log is exact to 3.3 %."""
        cells = np.stack((self.low, self.high))
        if cells.dtype == np.uint8:
            return usd_of_u8log(cells, self.lo_usd, self.hi_usd)
        return cells.astype(np.float64) * self.unit_usd


def column_of_json(data: push.Column) -> Column:
    """The column of a JSON message. Raises ContractError where its cells are not those of its rows."""
    return Column(
        t_ms=data.t_ms, dt_ms=data.dt_ms, price0=data.price0, step=data.step, src=data.src, flags=frozenset(data.flags),
        low=_cells(data.a, data.rows), high=_cells(data.b, data.rows), lo_usd=data.lo_usd, hi_usd=data.hi_usd,
    )  # fmt: skip


def _cells(text: str, rows: int) -> npt.NDArray[np.uint8]:
    try:
        cells = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except binascii.Error as error:
        raise ContractError(f"cells of a column: {error}") from error
    if len(cells) != rows:
        raise ContractError(f"a column of {rows} rows came with {len(cells)} cells")
    return cells


def column_of_bytes(data: bytes) -> tuple[ColumnHeader, Column]:
    """Header and column of a binary message. Raises ContractError."""
    try:
        header, low, high = unpack_column(data)
    except ValueError as error:
        raise ContractError(str(error)) from error
    flags = frozenset(name for flag, name in _FLAGS.items() if flag in header.flags)
    unit = header.unit_usd if header.cell is CellType.F16 else 1.0
    column = Column(
        t_ms=header.t_ms, dt_ms=header.dt_ms, price0=header.price0, step=header.step, src=header.src, flags=flags, low=low,
        high=high, unit_usd=unit,
    )  # fmt: skip
    return header, column
