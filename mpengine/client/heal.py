"""Filling gaps by REST, without the I/O: which request, what of its answer was missing, what stays lost. Pure.

A shell drives a heal to its end before it looks at the next message, so that updates come in order:

    while (request := heal.request()) is not None:
        items = heal.take(body of the answer)        or heal.fail(reason)
    items = heal.end()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, Protocol

import numpy as np

from mpengine import contract, mphm
from mpengine.client import requests
from mpengine.client.columns import HEALED, Column
from mpengine.client.requests import Request
from mpengine.client.updates import ColumnUpdate, EventsUpdate, Item, Lost, Position, Update
from mpengine.mphm import Block
from mpengine.wire_formats import CellType

MapKind = Literal["depth", "liq"]
PAGE: Final = 1000
MAX_MINUTES: Final = 1440
MINUTE_MS: Final = 60_000
MARGIN_MINUTES: Final = 5
TRIES: Final = 3
"""Requests for a window that reaches back far enough, where the clock of the data is not the server's."""
COLUMN_S: Final[dict[MapKind, int]] = {"depth": 30, "liq": 60}
_PLANES: Final[dict[MapKind, tuple[Block, Block]]] = {
    "depth": (Block.DEPTH_BID, Block.DEPTH_ASK),
    "liq": (Block.LIQ_LONG, Block.LIQ_SHORT),
}
NO_TIME: Final = "the time of the last column is not known"
NEW_EPOCH: Final = "the server has begun a new epoch"
NOT_THERE: Final = "the server does not have them"


class Heal(Protocol):
    """See the module."""

    def request(self) -> Request[Any] | None:
        """What to ask next; None: nothing more."""

    def take(self, body: Any) -> list[Item]:
        """What the answer brings. No request that was given may be given again."""

    def fail(self, reason: str) -> None:
        """The request was not answered."""

    def end(self) -> list[Item]:
        """What stays lost."""


class ColumnHeal:
    """Columns after `after`, by `/heatmap?since_ms=`.

    In the same epoch those numbered up to `last`. Where the epoch has changed (`last` None) numbers may have been used again, so
    time alone decides: those that begin before `until_ms`.
    """

    def __init__(self, channel: str, kind: MapKind, after: Position, epoch: int, *, last: int | None, until_ms: int) -> None:
        self._channel = channel
        self._kind = kind
        self._after = after
        self._epoch = epoch
        self._last = last
        self._until_ms = until_ms
        self._tries = 0
        self._minutes = max(0, until_ms - (after.t_ms or 0), self._span_ms()) // MINUTE_MS + MARGIN_MINUTES
        self._open = True
        self._found: list[int] = []
        self.newest_ms: int | None = None
        """Time of the newest column that came."""
        self._reason = NOT_THERE if after.t_ms is not None else NO_TIME

    def _span_ms(self) -> int:
        """How long the missing columns are at least."""
        return 0 if self._last is None else 1000 * COLUMN_S[self._kind] * (self._last - self._after.seq)

    def _since_ms(self) -> int | None:
        return None if self._after.t_ms is None else self._after.t_ms + 1000 * COLUMN_S[self._kind]

    def request(self) -> Request[mphm.Heatmap] | None:
        since_ms = self._since_ms()
        if not self._open or since_ms is None:
            return None
        self._tries += 1
        return requests.heatmap_bin(
            self._channel.partition(".")[2], minutes=min(self._minutes, MAX_MINUTES), since_ms=since_ms, layers=(self._kind,),
            dt_s=COLUMN_S[self._kind], k=1, max_cols=1440, max_rows=2000, cell="u8log", form="dense",
        )  # fmt: skip

    def take(self, body: mphm.Heatmap) -> list[Item]:
        if self._is_cut(body.header):
            return []
        self._open = False
        if body.header.epoch != self._epoch:
            self._reason = NEW_EPOCH
            return []
        updates: list[Item] = []
        numbers = body.numbers.get(self._kind)
        for index, seq in enumerate([] if numbers is None else numbers.tolist()):
            t_ms = body.header.t0_ms + index * body.header.dt_ms
            if seq >= 0 and self._wanted(seq, t_ms):
                self._found.append(seq)
                self.newest_ms = t_ms
                updates.append(self._update(seq, t_ms, index, body))
        return updates

    def _is_cut(self, header: mphm.Header) -> bool:
        """Whether the window, which ends with the newest column, began too late: then the next request asks for all of it."""
        since_ms = self._since_ms()
        if since_ms is None or header.t0_ms <= since_ms or self._minutes >= MAX_MINUTES or self._tries >= TRIES:
            return False
        self._minutes = (header.t0_ms + header.cols * header.dt_ms - since_ms) // MINUTE_MS + MARGIN_MINUTES
        return True

    def _wanted(self, seq: int, t_ms: int) -> bool:
        if self._last is None:
            return t_ms < self._until_ms
        return max([self._after.seq, *self._found[-1:]]) < seq <= self._last

    def _update(self, seq: int, t_ms: int, index: int, body: mphm.Heatmap) -> Update:
        header, src = body.header, float(body.src[index])
        low, high = (body.dense(block)[index] for block in _PLANES[self._kind])
        unit = float(body.units[self._kind][index]) if header.cell is CellType.F16 else 1.0
        column = Column(
            t_ms=t_ms, dt_ms=header.dt_ms, price0=header.price0, step=header.step, src=None if np.isnan(src) else src,
            flags=frozenset((HEALED,)), low=low, high=high, lo_usd=header.lo_usd, hi_usd=header.hi_usd, unit_usd=unit,
        )  # fmt: skip
        return ColumnUpdate(channel=self._channel, epoch=self._epoch, seq=seq, way="healed", ts_ms=t_ms, stale=False, column=column)

    def fail(self, reason: str) -> None:
        self._open = False
        self._reason = reason

    def end(self) -> list[Item]:
        if self._last is None:
            return []
        missing = holes(self._after.seq + 1, self._last, self._found)
        return [Lost(self._channel, self._epoch, first, last, self._reason) for first, last in missing]


def holes(first: int, last: int, found: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges of first..last without the numbers found (ascending)."""
    ranges: list[tuple[int, int]] = []
    for number in (*found, last + 1):
        if number > first:
            ranges.append((first, number - 1))
        first = number + 1
    return ranges


class EventHeal:
    """Events numbered after `after` up to `last`, by `/liquidations?after=`, page by page."""

    def __init__(self, channel: str, after: int, last: int, epoch: int) -> None:
        self._channel = channel
        self._cursor = after
        self._last = last
        self._epoch = epoch
        self._open = True
        self._reason = NOT_THERE

    def request(self) -> Request[contract.Liquidations] | None:
        if not self._open or self._cursor >= self._last:
            return None
        return requests.liquidations(self._channel.partition(".")[2], after=self._cursor, epoch=self._epoch, limit=PAGE)

    def take(self, body: contract.Liquidations) -> list[Item]:
        if body.reset is True or body.epoch != self._epoch:
            self.fail(NEW_EPOCH)
            return []
        items: list[Item] = []
        if body.gap and body.oldest_seq is not None:
            gone = min(body.oldest_seq - 1, self._last)
            items.append(Lost(self._channel, self._epoch, self._cursor + 1, gone, NOT_THERE))
        wanted = tuple(event for event in body.items if self._cursor < event.seq <= self._last)
        if wanted:
            items.append(
                EventsUpdate(
                    channel=self._channel, epoch=self._epoch, seq=wanted[-1].seq, way="healed", ts_ms=wanted[-1].recv_ms,
                    stale=body.stale, events=wanted,
                )
            )  # fmt: skip
        # The page has looked at everything up to `next_after`; one that does not get on would be asked for for ever.
        self._open = body.has_more and body.next_after > self._cursor
        self._cursor = max(self._cursor, min(body.next_after, self._last))
        return items

    def fail(self, reason: str) -> None:
        self._open = False
        self._reason = reason

    def end(self) -> list[Item]:
        if self._cursor >= self._last:
            return []
        return [Lost(self._channel, self._epoch, self._cursor + 1, self._last, self._reason)]
