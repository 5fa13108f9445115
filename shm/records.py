"""Vocabulary and byte layout of everything that crosses a process boundary: events, candles, liquidations, coverage flags.

Pure. Writers pack with the functions here, readers decode with the structs and dtypes here; nobody else spells a format.
Any change of a layout below bumps `RECORD_SCHEMA`, which rings carry in their identity, so that old files are refused.

Event record, 64 bytes, little endian; three shapes share the first 32 bytes::

    0     1      2     3      4      8             16           24   32        40     48     56
    kind  venue  side  flags  count  venue_ts_ns   recv_ts_ns   seq  prev_seq  price  qty    aux      EVENT
    .     .      .     .      .      .             .            seq  prev_seq  first  bids asks 0     DEPTH (depth, snapshot)
    .     .      .     .      .      .             .            seq  bid       bidqty ask    askqty   TOUCH

Behind a DEPTH record follow `count` = bids + asks levels as (price, quantity) float64 pairs, four to a 64-byte unit, bids first.
Prices are quote currency (USD), quantities base-asset units, times int64 nanoseconds UTC.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import Any, Final, NamedTuple

import numpy as np

RECORD_SCHEMA: Final = 1
UNIT: Final = 64
LEVEL_BYTES: Final = 16


class Kind(IntEnum):
    """What an event record says. CLOCK moves engine time and nothing else."""

    CLOCK = 1
    TRADE = 2
    DEPTH = 3
    SNAPSHOT = 4
    MARK = 5
    OPEN_INTEREST = 6
    LIQUIDATION = 7
    RATIO = 8
    INSTRUMENT = 9
    TOUCH = 10
    GAP = 11


class Venue(IntEnum):
    """Exchanges in their fixed order. `bit` is the venue's place in every "venues present" bit set."""

    NONE = 0
    BINANCE = 1
    BYBIT = 2
    OKX = 3
    GATE = 4
    BITGET = 5
    HYPERLIQUID = 6

    @property
    def bit(self) -> int:
        return 1 << (self.value - 1) if self.value else 0

    @property
    def label(self) -> str:
        return self.name.lower()


class TakerSide(IntEnum):
    """Side of the taker of a trade."""

    NONE = 0
    BUY = 1
    SELL = 2


class PositionSide(IntEnum):
    """Side of the position that was closed by force."""

    NONE = 0
    LONG = 1
    SHORT = 2


class RatioKind(IntEnum):
    """Which long/short ratio a RATIO record carries (in the `side` byte)."""

    GLOBAL_ACCOUNTS = 1
    TOP_ACCOUNTS = 2
    TOP_POSITIONS = 3


class GapScope(IntEnum):
    """What a GAP record invalidates (in the `side` byte)."""

    BOOK = 1
    TRADES = 2
    ALL = 3
    LIQUIDATIONS = 4


class EventFlag(IntFlag):
    """Flag byte of an event record; the meaning depends on the kind."""

    NONE = 0
    AGGREGATE = 1  # TRADE: one record is several fills (aggTrade)
    HAS_FUNDING = 1  # MARK: aux holds the funding rate of the interval
    HAS_INDEX = 2  # MARK: qty holds the index price
    ORDER_SIDE = 1  # LIQUIDATION: the side came from an order side, not from a position side
    PARTIAL = 1  # SNAPSHOT: not from the venue's snapshot source; the book is partial until one arrives
    JOIN = 2  # SNAPSHOT: polled, so diffs before and behind it overlap it; without the flag it takes the place of the book at once
    DISPLAY = 1  # OPEN_INTEREST: pushed by the venue, shown beside the sum of polled values and never part of it


class Coverage(IntFlag):
    """Coverage flags of frames and candles; the low 16 bits are repeated in the slot header."""

    NONE = 0
    RECOVERED = 1
    GAP = 2
    PARTIAL = 4
    STALE_SOURCE = 8
    GRID_SHRUNK = 16
    OI_MISSING = 32
    FALLBACK_PRICE = 64


class FrameKind(IntEnum):
    """`kind` of a frame header."""

    DEPTH = 1
    LIQUIDATION = 2


class PriceKind(IntEnum):
    """What `price` of a realised liquidation is: the average fill, derived from the bankruptcy price, or the venue's own."""

    FILL = 1
    TRIGGER = 2
    LIQ_MARK = 3


class LiquidationFlag(IntFlag):
    """`flags` of a realised liquidation. FAR: 2.5 to 15 % off the reference price, so it teaches nothing."""

    NONE = 0
    ORDER_SIDE = 1
    LATE = 2
    FAR = 4


class CandleFlag(IntFlag):
    """`flags` of a candle as the HTTP contract publishes them."""

    NONE = 0
    FALLBACK_PRICE = 1
    MINUTES_MISSING = 2
    GAP = 4


EVENT: Final = struct.Struct("<BBBBIqqQQddd")
DEPTH: Final = struct.Struct("<BBBBIqqQQQIIQ")
TOUCH: Final = struct.Struct("<BBBBIqqQdddd")
HEAD: Final = struct.Struct("<BBBBIqq")  # the part that all three shapes share

EVENT_DTYPE: Final = np.dtype(
    {
        "names": ["kind", "venue", "side", "flags", "count", "venue_ts_ns", "recv_ts_ns", "seq", "prev_seq", "price",
                  "qty", "aux"],
        "formats": ["u1", "u1", "u1", "u1", "<u4", "<i8", "<i8", "<u8", "<u8", "<f8", "<f8", "<f8"],
        "offsets": [0, 1, 2, 3, 4, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)  # fmt: skip
LEVEL_DTYPE: Final = np.dtype([("price", "<f8"), ("qty", "<f8")])

FRAME_HEADER_DTYPE: Final = np.dtype(
    [
        ("schema", "<u2"),
        ("kind", "u1"),
        ("cell", "u1"),
        ("planes", "<u2"),
        ("count", "<u2"),
        ("open_ts_ns", "<i8"),
        ("close_ts_ns", "<i8"),
        ("venue_ts_ns", "<i8"),
        ("reference", "<f8"),
        ("origin", "<i8"),
        ("step", "<f8"),
        ("unit_usd", "<f8"),
        ("norm_a", "<f8"),
        ("norm_b", "<f8"),
        ("total_a", "<f8"),
        ("total_b", "<f8"),
        ("open_interest", "<f8"),
        ("tape_share", "<f8"),
        ("coverage", "<u4"),
        ("venues", "<u4"),
        ("samples", "<u4"),
        ("zero", "<u4"),
    ]
)
"""Frame header, 128 bytes (`spec: shared-memory`, section 4). USD unless the name says otherwise."""

CANDLE_DTYPE: Final = np.dtype(
    [
        ("schema", "<u2"),
        ("flags", "<u2"),
        ("venues", "<u4"),
        ("open_ts_ns", "<i8"),
        ("close_ts_ns", "<i8"),
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("src", "<f8"),
        ("mark", "<f8"),
        ("buy_usd", "<f8"),
        ("sell_usd", "<f8"),
        ("oi_base", "<f8"),
        ("oi_delta_base", "<f8"),
        ("oi_venue_base", "<f8", (3,)),
        ("funding_rate", "<f8"),
        ("liq_long_usd", "<f8"),
        ("liq_short_usd", "<f8"),
        ("buy_count", "<u4"),
        ("sell_count", "<u4"),
        ("liq_long_count", "<u4"),
        ("liq_short_count", "<u4"),
        ("present", "<u4"),
        ("minutes", "<u4"),
    ]
)
"""One minute bar, 176 bytes. `present` (`CandleField`) says which optional fields hold a value; the others mean nothing."""


class CandleField(IntFlag):
    """Bits of `present` in a candle: a missing value is missing, never 0."""

    NONE = 0
    MARK = 1
    FUNDING = 2
    OI = 4
    OI_DELTA = 8
    OI_BINANCE = 16
    OI_BYBIT = 32
    OI_OKX = 64


LIQUIDATION_DTYPE: Final = np.dtype(
    [
        ("schema", "<u2"),
        ("venue", "u1"),
        ("side", "u1"),
        ("price_kind", "u1"),
        ("flags", "u1"),
        ("zero", "<u2"),
        ("venue_ts_ns", "<i8"),
        ("recv_ts_ns", "<i8"),
        ("price", "<f8"),
        ("bankruptcy_price", "<f8"),
        ("qty_base", "<f8"),
        ("notional_usd", "<f8"),
    ]
)
"""One realised liquidation, 56 bytes; `bankruptcy_price` 0 where the venue gives none."""


class DocumentId(IntEnum):
    """Documents of a symbol's `documents` file, and of the runtime `feeds.documents` file."""

    LEVELS = 1
    ZONES = 2
    OI = 3
    BOOK = 4
    STATUS = 5
    FEEDS = 6


_PADDING: Final = tuple(bytes(LEVEL_BYTES * missing) for missing in range(4))


def pack_clock(recv_ts_ns: int) -> bytes:
    """A clock tick: engine time becomes at least `recv_ts_ns`."""
    return EVENT.pack(Kind.CLOCK, 0, 0, 0, 0, recv_ts_ns, recv_ts_ns, 0, 0, 0.0, 0.0, 0.0)


def pack_event(
    kind: int, venue: int, side: int, flags: int, venue_ts_ns: int, recv_ts_ns: int, seq: int, prev_seq: int,
    price: float, qty: float, aux: float = 0.0,
) -> bytes:  # fmt: skip
    """One EVENT-shaped record. `seq` is the venue's own id where it has one."""
    return EVENT.pack(kind, venue, side, flags, 0, venue_ts_ns, recv_ts_ns, seq, prev_seq, price, qty, aux)


def pack_touch(
    venue: int, venue_ts_ns: int, recv_ts_ns: int, seq: int, bid: float, bid_qty: float, ask: float, ask_qty: float
) -> bytes:
    """Best bid and ask of a venue."""
    return TOUCH.pack(Kind.TOUCH, venue, 0, 0, 0, venue_ts_ns, recv_ts_ns, seq, bid, bid_qty, ask, ask_qty)


def pack_levels(
    kind: int, venue: int, flags: int, venue_ts_ns: int, recv_ts_ns: int, first: int, last: int, previous: int,
    bids: int, asks: int, levels: bytes,
) -> bytes:  # fmt: skip
    """A DEPTH-shaped record with its levels, padded to whole units.

    `first`, `last`, `previous` are U, u and pu of a diff (0 where a venue has none); a snapshot has `last` = its update id.
    `levels`: (price, quantity) float64 pairs, bids first; quantity 0 removes. Length must be 16 * (bids + asks).
    """
    count = bids + asks
    head = DEPTH.pack(kind, venue, 0, flags, count, venue_ts_ns, recv_ts_ns, last, previous, first, bids, asks, 0)
    return head + levels + _PADDING[-count % 4]


def pack_gap(venue: int, scope: GapScope, recv_ts_ns: int) -> bytes:
    """The feed of `venue` has a hole here: its connection was lost or its messages were dropped."""
    return EVENT.pack(Kind.GAP, venue, scope, 0, 0, recv_ts_ns, recv_ts_ns, 0, 0, 0.0, 0.0, 0.0)


def units_of(kind: int, count: int) -> int:
    """64-byte units that a record of `kind` with `count` levels takes."""
    return 1 + (count + 3) // 4 if kind in (Kind.DEPTH, Kind.SNAPSHOT) else 1


class Decoded(NamedTuple):
    """One record as a person or a test wants to see it; the engine decodes in place instead."""

    kind: Kind
    fields: dict[str, Any]
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]


_EVENT_FIELDS: Final = ("kind", "venue", "side", "flags", "count", "venue_ts_ns", "recv_ts_ns", "seq", "prev_seq", "price",
                        "qty", "aux")  # fmt: skip
_DEPTH_FIELDS: Final = (*_EVENT_FIELDS[:9], "first_seq", "bids", "asks")
_TOUCH_FIELDS: Final = (*_EVENT_FIELDS[:8], "bid", "bid_qty", "ask", "ask_qty")


def offsets(body: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of each record of a batch body. Raises ValueError where the bytes are not whole records."""
    start, size = 0, len(body)
    while start < size:
        kind, count = body[start], int.from_bytes(body[start + 4 : start + 8], "little")
        end = start + UNIT * units_of(kind, count)
        if end > size:
            raise ValueError(f"record of kind {kind} at {start} needs {end - start} bytes, {size - start} are left")
        yield start, end
        start = end


def decode(body: bytes) -> Iterator[Decoded]:
    """Decode the records of a batch body. Raises ValueError where the bytes are not whole records of known kinds."""
    for start, _ in offsets(body):
        yield _decode_one(Kind(body[start]), body, start)


def _decode_one(kind: Kind, body: bytes, offset: int) -> Decoded:
    if kind in (Kind.DEPTH, Kind.SNAPSHOT):
        fields = dict(zip(_DEPTH_FIELDS, DEPTH.unpack_from(body, offset)))
        raw = np.frombuffer(body, "<f8", count=2 * fields["count"], offset=offset + UNIT).reshape(-1, 2).tolist()
        pairs = [(price, qty) for price, qty in raw]
        return Decoded(kind, fields, pairs[: fields["bids"]], pairs[fields["bids"] :])
    if kind is Kind.TOUCH:
        return Decoded(kind, dict(zip(_TOUCH_FIELDS, TOUCH.unpack_from(body, offset))), [], [])
    return Decoded(kind, dict(zip(_EVENT_FIELDS, EVENT.unpack_from(body, offset))), [], [])
