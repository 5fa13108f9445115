"""Event vocabulary: what is packed is what is decoded, and the dtypes that engines use see the same bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from shm.board_words import Role, State, Word, parse_errors_word, resync_word
from shm.records import (
    EVENT_DTYPE,
    LEVEL_DTYPE,
    GapScope,
    Kind,
    TakerSide,
    Venue,
    decode,
    pack_clock,
    pack_event,
    pack_gap,
    pack_levels,
    pack_touch,
    units_of,
)

LEVELS = [(100.0, 1.5), (99.5, 0.0), (101.0, 2.0)]


def levels(kind: Kind = Kind.DEPTH) -> bytes:
    pairs = b"".join(struct.pack("<dd", *level) for level in LEVELS)
    return pack_levels(kind, Venue.BYBIT, 1, 10, 20, 5, 7, 4, 2, 1, pairs)


def test_every_shape_comes_back_as_it_was_packed() -> None:
    body = (
        pack_clock(9)
        + pack_event(Kind.TRADE, Venue.BINANCE, TakerSide.SELL, 1, 10, 20, 30, 29, 100.5, 0.25, 7.0)
        + levels()
        + pack_touch(Venue.OKX, 10, 20, 30, 99.0, 1.0, 101.0, 2.0)
        + levels(Kind.SNAPSHOT)
        + pack_gap(Venue.GATE, GapScope.ALL, 77)
    )
    clock, trade, depth, touch, snapshot, gap = decode(body)
    assert [one.kind for one in (clock, trade, depth, touch, snapshot, gap)] == [
        Kind.CLOCK, Kind.TRADE, Kind.DEPTH, Kind.TOUCH, Kind.SNAPSHOT, Kind.GAP,
    ]  # fmt: skip
    assert clock.fields["venue_ts_ns"] == clock.fields["recv_ts_ns"] == 9
    assert trade.fields == {
        "kind": 2, "venue": 1, "side": 2, "flags": 1, "count": 0, "venue_ts_ns": 10, "recv_ts_ns": 20, "seq": 30,
        "prev_seq": 29, "price": 100.5, "qty": 0.25, "aux": 7.0,
    }  # fmt: skip
    assert (depth.bids, depth.asks) == (LEVELS[:2], LEVELS[2:]) == (snapshot.bids, snapshot.asks)
    assert (depth.fields["first_seq"], depth.fields["seq"], depth.fields["prev_seq"], depth.fields["count"]) == (5, 7, 4, 3)
    assert [touch.fields[name] for name in ("seq", "bid", "bid_qty", "ask", "ask_qty")] == [30, 99.0, 1.0, 101.0, 2.0]
    assert (gap.fields["venue"], gap.fields["side"], gap.fields["recv_ts_ns"]) == (Venue.GATE, GapScope.ALL, 77)


@pytest.mark.parametrize(("count", "units"), [(0, 1), (1, 2), (4, 2), (5, 3), (1000, 251)])
def test_levels_take_whole_units(count: int, units: int) -> None:
    packed = pack_levels(Kind.DEPTH, Venue.OKX, 0, 0, 0, 0, 0, 0, count, 0, bytes(16 * count))
    assert len(packed) == 64 * units == 64 * units_of(Kind.DEPTH, count)
    assert units_of(Kind.TRADE, count) == 1


def test_dtypes_see_the_same_bytes() -> None:
    trade = np.frombuffer(pack_event(Kind.TRADE, 1, 2, 3, 4, 5, 6, 7, 8.0, 9.0, 10.0), EVENT_DTYPE)[0]
    assert [trade[name].item() for name in EVENT_DTYPE.names or ()] == [2, 1, 2, 3, 0, 4, 5, 6, 7, 8.0, 9.0, 10.0]
    pairs = np.frombuffer(levels(), LEVEL_DTYPE, count=3, offset=64)
    assert [tuple(pair) for pair in pairs.tolist()] == LEVELS


@pytest.mark.parametrize("cut", [64, 65, 127])
def test_bytes_that_are_not_whole_records_are_refused(cut: int) -> None:
    with pytest.raises(ValueError, match=f"needs 128 bytes, {cut} are left"):
        list(decode(levels()[:cut]))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="99 is not a valid Kind"):
        list(decode(bytes([99]).ljust(64, b"\0")))


def test_bits_and_labels_of_venues() -> None:
    assert [venue.bit for venue in Venue] == [0, 1, 2, 4, 8, 16, 32]
    assert Venue.HYPERLIQUID.label == "hyperliquid"


@pytest.mark.parametrize("venue", [venue for venue in Venue if venue])
def test_words_of_a_venue(venue: Venue) -> None:
    assert resync_word(venue).name == f"RESYNC_ASKED_{venue.name}"
    assert parse_errors_word(venue).name == f"PARSE_ERRORS_{venue.name}"


def test_enums_of_the_board_have_no_two_names_for_one_number() -> None:
    for enum in (Word, Role, State):
        assert len({int(member) for member in enum}) == len(enum.__members__)
