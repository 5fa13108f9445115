"""Messages of the push contract, encoded once for every client that gets the same (`spec: api`, section 13). Pure.

A channel makes one `Message` per number. Clients differ in little: whether it comes as snapshot or delta, what came before, JSON
or binary. Each of these forms is made when the first client needs it and then shared.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import orjson

from api.bodies import dumps
from mpengine.cells import HI_USD, LO_USD
from mpengine.wire_formats import Cells, ColumnFlag, ColumnHeader, pack_column

NONE_BEFORE: Final = -1
"""`prev` of a message that needs none before it."""

_TEXT: Final = 0x81  # final fragment, text
_BINARY: Final = 0x82


class Frame:
    """A payload and, once somebody on a WebSocket needs it, the frame around it."""

    __slots__ = ("_binary", "_framed", "payload")

    def __init__(self, payload: bytes, *, binary: bool = False) -> None:
        self.payload = payload
        self._binary = binary
        self._framed: bytes | None = None

    @property
    def framed(self) -> bytes:
        """The WebSocket frame, unmasked as a server's are (RFC 6455, section 5.2)."""
        if self._framed is None:
            self._framed = framed(self.payload, binary=self._binary)
        return self._framed


def framed(payload: bytes, *, binary: bool = False) -> bytes:
    """One unfragmented frame of a server."""
    first, length = _BINARY if binary else _TEXT, len(payload)
    if length < 126:
        head = bytes((first, length))
    elif length < 1 << 16:
        head = struct.pack("!BBH", first, 126, length)
    else:
        head = struct.pack("!BBQ", first, 127, length)
    return head + payload


class Message:
    """One number of a channel. `prev`: the number before it; `stale_after_ms`: wall clock from which on it is stale.

    `delta`, `snapshot`: make JSON of `data` in either role. `column`: of a column channel its header and cells.
    """

    __slots__ = ("_column", "_data", "_delta", "_forms", "_snapshot", "channel", "epoch", "prev", "seq", "stale_after_ms", "ts_ms")

    def __init__(
        self,
        channel: str,
        identity: tuple[int, int],
        prev: int,
        *,
        ts_ms: int,
        stale_after_ms: int,
        delta: Callable[[], bytes],
        snapshot: Callable[[], bytes] | None = None,
        column: tuple[ColumnHeader, tuple[Cells, Cells]] | None = None,
    ) -> None:
        self.channel = channel
        self.epoch, self.seq = identity
        self.prev = prev
        self.ts_ms = ts_ms
        self.stale_after_ms = stale_after_ms
        self._delta = delta
        self._snapshot = snapshot or delta
        self._column = column
        self._data: dict[Callable[[], bytes], bytes] = {}
        self._forms: dict[tuple[Any, ...], Frame] = {}

    @property
    def identity(self) -> tuple[int, int]:
        """(epoch, number): where a client stands after it."""
        return self.epoch, self.seq

    def json(self, *, snapshot: bool, now_ms: int, prev: int | None = None) -> Frame:
        """The message as JSON; `prev` where it is not the number before."""
        before = (NONE_BEFORE if snapshot else self.prev) if prev is None else prev
        stale = now_ms > self.stale_after_ms
        form = (snapshot, before, stale)
        frame = self._forms.get(form)
        if frame is None:
            make = self._snapshot if snapshot else self._delta
            data = self._data.get(make)
            if data is None:
                data = self._data[make] = make()
            kind = b"snapshot" if snapshot else b"delta"
            frame = self._forms[form] = Frame(envelope(self.channel, kind, self.identity, before, self.ts_ms, stale, data))
        return frame

    def binary(self, *, number: int, snapshot: bool, gap: bool, now_ms: int) -> Frame | None:
        """The message of a column channel as bytes; None for any other channel. `number`: of the channel."""
        if self._column is None:
            return None
        header, planes = self._column
        flags = header.flags
        flags |= ColumnFlag.SNAPSHOT if snapshot else ColumnFlag(0)
        flags |= ColumnFlag.GAP_BEFORE if gap else ColumnFlag(0)
        flags |= ColumnFlag.STALE if now_ms > self.stale_after_ms else ColumnFlag(0)
        form = ("bin", number, int(flags), snapshot)
        frame = self._forms.get(form)
        if frame is None:
            prev = NONE_BEFORE if snapshot else self.prev
            packed = pack_column(replace(header, channel=number, flags=flags, prev=prev), planes)
            frame = self._forms[form] = Frame(packed, binary=True)
        return frame


def envelope(channel: str, kind: bytes, identity: tuple[int, int], prev: int, ts_ms: int, stale: bool, data: bytes) -> bytes:
    """JSON of a message of a channel, keys in the order of the contract."""
    epoch, seq = identity
    return b'{"ch":"%s","type":"%s","epoch":%d,"seq":%d,"prev":%d,"ts_ms":%d,"stale":%s,"data":%s}' % (
        channel.encode("ascii"), kind, epoch, seq, prev, ts_ms, b"true" if stale else b"false", data,
    )  # fmt: skip


def gap(channel: str, epoch: int, after: int, to: int, reason: str, now_ms: int) -> Frame:
    """Numbers behind `after` up to `to` will not come. The gap has their last number, so that what follows joins it."""
    data = b'{"from":%d,"to":%d,"reason":"%s"}' % (after + 1, to, reason.encode("ascii"))
    return Frame(envelope(channel, b"gap", (epoch, to), after, now_ms, False, data))


def reset(channel: str, identity: tuple[int, int], now_ms: int) -> Frame:
    """What the client knows of the channel is of another life of it; a snapshot follows."""
    return Frame(envelope(channel, b"reset", identity, NONE_BEFORE, now_ms, False, b"{}"))


def plain(message: dict[str, Any]) -> Frame:
    """A message without a channel: ack, error, bye."""
    return Frame(orjson.dumps(message))


def column_json(header: ColumnHeader, planes: tuple[Cells, Cells], flags: list[str]) -> bytes:
    """`data` of a column channel."""
    first, second = (base64.b64encode(plane.tobytes()).decode("ascii") for plane in planes)
    return dumps(
        {
            "t_ms": header.t_ms, "dt_ms": header.dt_ms, "price0": header.price0, "step": header.step, "rows": header.rows,
            "src": header.src, "flags": flags, "lo_usd": LO_USD, "hi_usd": HI_USD, "a": first, "b": second,
        }
    )  # fmt: skip
