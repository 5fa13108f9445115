"""Messages of the push contract as a server would write them, and what the tests count with."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import numpy as np

from mpengine import mphm
from mpengine.client.zones import zones_crc32
from mpengine.contract import Coverage, Liquidation, Liquidations, Zone
from mpengine.mphm import Block, Form, Header, Pool
from mpengine.wire_formats import CellType, ColumnFlag, ColumnHeader, ColumnKind, pack_column

T0_MS = 1_795_210_800_000
ROWS = 4
WIDTH_MS = {"depth": 30_000, "liq": 60_000}


def text(**keys: Any) -> str:
    """A message as JSON; `from_` becomes `from`."""
    return msgspec.json.encode({name.rstrip("_"): value for name, value in keys.items()}).decode()


def data(ch: str, kind: str, epoch: int, seq: int, prev: int | None, payload: Any, ts_ms: int | None = None) -> str:
    prev = seq - 1 if prev is None else prev
    return text(ch=ch, type=kind, epoch=epoch, seq=seq, prev=prev, ts_ms=ts_ms or T0_MS + seq, stale=False, data=payload)


def column_t_ms(seq: int, kind: str = "depth") -> int:
    return T0_MS + seq * WIDTH_MS[kind]


def cells(seq: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """What column `seq` holds, in every form in which it may come."""
    return (np.arange(ROWS) + seq).astype(np.uint8), (np.arange(ROWS) * 3 + seq).astype(np.uint8)


def column(
    seq: int, *, kind: str = "depth", epoch: int = 7, prev: int | None = None, way: str = "delta", flags: tuple[str, ...] = ()
) -> str:
    low, high = cells(seq)
    payload = {
        "t_ms": column_t_ms(seq, kind),
        "dt_ms": WIDTH_MS[kind],
        "price0": 100.0 + 20 * (seq % 3),
        "step": 20.0,
        "rows": ROWS,
        "src": 140.0,
        "flags": list(flags),
        "lo_usd": 100.0,
        "hi_usd": 1e9,
        "a": base64.b64encode(low.tobytes()).decode(),
        "b": base64.b64encode(high.tobytes()).decode(),
    }
    return data(f"{kind}.BTC", way, epoch, seq, prev, payload)


def binary_column(number: int, seq: int, *, epoch: int = 7, prev: int | None = None, flags: int = 0) -> bytes:
    header = ColumnHeader(
        kind=ColumnKind.DEPTH,
        cell=CellType.U8LOG,
        channel=number,
        flags=ColumnFlag(flags),
        rows=ROWS,
        epoch=epoch,
        seq=seq,
        prev=seq - 1 if prev is None else prev,
        t_ms=column_t_ms(seq),
        dt_ms=30_000,
        price0=100.0 + 20 * (seq % 3),
        step=20.0,
        src=140.0,
    )
    return pack_column(header, cells(seq))


def event(seq: int) -> Liquidation:
    return Liquidation(
        seq=seq,
        ts_ms=T0_MS + seq,
        recv_ms=T0_MS + seq + 5,
        venue="bybit",
        side="long",
        price=100.0 + seq,
        price_kind="trigger",
        bankruptcy_price=99.0,
        qty_base=0.5,
        notional_usd=50.0 + seq,
    )


def events(first: int, last: int, *, epoch: int = 7, prev: int | None = None, way: str = "delta") -> str:
    items = [event(seq) for seq in range(first, last + 1)]
    return data("liquidations.BTC", way, epoch, last, first - 1 if prev is None else prev, {"items": items})


def zone(name: str, weight: float) -> Zone:
    return Zone(
        price=1946.0,
        side="short",
        weight=weight,
        created_at=T0_MS,
        last_reinforced_at=T0_MS,
        reinforcement_count=1,
        source="inference",
        tier_contributions={"100": weight},
        id=name,
        notional_usd=1.0,
        tape_usd=0.0,
        projected_usd=1.0,
        age_min=1,
        dominant_leverage=100,
    )


def zones_at(version: int) -> dict[str, Zone]:
    """The zones of a version: one comes, one goes, one fades with each."""
    return {f"S-{number}": zone(f"S-{number}", 1.0 + number / (1 + version)) for number in range(version % 5, version % 5 + 4)}


def zones_snapshot(version: int, *, epoch: int = 7) -> str:
    zones = zones_at(version)
    payload = {"zones": list(zones.values()), "count": len(zones), "crc32": zones_crc32(zones.values())}
    return data("zones.BTC", "snapshot", epoch, version, None, payload)


def zones_delta(before: int, version: int, *, epoch: int = 7, spoil: int = 0) -> str:
    old, new = zones_at(before), zones_at(version)
    payload = {
        "set": [one for name, one in new.items() if old.get(name) != one],
        "removed": [name for name in old if name not in new],
        "count": len(new),
        "crc32": zones_crc32(new.values()) ^ spoil,
    }
    return data("zones.BTC", "delta", epoch, version, before, payload)


def gap(ch: str, first: int, last: int, *, epoch: int = 7) -> str:
    return data(ch, "gap", epoch, last, first - 1, {"from": first, "to": last, "reason": "conflated"})


def reset(ch: str, epoch: int, seq: int = 0, reason: str = "epoch") -> str:
    return data(ch, "reset", epoch, seq, -1, {"reason": reason})


def beat(heads: dict[str, tuple[int, int]], *, now_ms: int = T0_MS, conflated: int = 0) -> str:
    return text(type="beat", now_ms=now_ms, heads=heads, exchanges={"binance": 0.1, "okx": None}, conflated=conflated)


def page(
    seqs: list[int], after: int, *, epoch: int = 7, oldest: int = 0, newest: int = 10_000, limit: int = 1000, reset: bool = False
) -> bytes:
    """Body of /liquidations."""
    found = [seq for seq in seqs if after < seq]
    more, found = len(found) > limit, found[:limit]
    body = Liquidations(
        symbol="BTC",
        items=[event(seq) for seq in found],
        count=len(found),
        first_seq=found[0] if found else None,
        last_seq=found[-1] if found else None,
        oldest_seq=oldest,
        newest_seq=newest,
        next_after=found[-1] if more else max(after, newest),
        has_more=more,
        gap=after + 1 < oldest,
        coverage=Coverage(venues={}, flags=[], data_since_ms=None, book_synced_since_ms=None, far_depth="partial"),
        seq=newest,
        epoch=epoch,
        age_s=0.1,
        stale=False,
        **({"reset": True} if reset else {}),
    )
    return msgspec.json.encode(body)


def heatmap(
    seqs: list[int], *, kind: str = "depth", epoch: int = 7, since_ms: int | None = None, numbers: dict[int, int] | None = None
) -> bytes:
    """Body of /heatmap in binary form: the columns of frames `seqs` (`numbers`: frame number of a place in time, if another)."""
    width = WIDTH_MS[kind]
    begin = min(seqs, default=0) if since_ms is None else (since_ms - T0_MS) // width
    places = list(range(begin, max(seqs, default=begin - 1) + 1))
    named = numbers or {}
    low, high = (
        np.array([cells(place)[side] if place in seqs else np.zeros(ROWS, np.uint8) for place in places], np.uint8)
        for side in (0, 1)
    )
    blocks = (
        (Block.DEPTH_BID, Block.DEPTH_ASK, Block.DEPTH_SEQ) if kind == "depth" else (Block.LIQ_LONG, Block.LIQ_SHORT, Block.LIQ_SEQ)
    )
    header = Header(
        cell=CellType.U8LOG,
        form=Form.DENSE,
        pool=Pool.MAX,
        flags=0,
        t0_ms=T0_MS + begin * width,
        dt_ms=width,
        cols=len(places),
        price0=100.0,
        step=20.0,
        rows=ROWS,
        k=1,
        epoch=epoch,
        liq_seq=None,
        depth_seq=None,
        realised_seq=None,
        lo_usd=100.0,
        hi_usd=1e9,
    )
    seq = np.array([named.get(place, place) if place in seqs else -1 for place in places], np.int64)
    src = np.array([140.0 if place in seqs else np.nan for place in places])
    cells_count = len(places) * ROWS
    packed = mphm.encode(
        header,
        [
            mphm.dense(blocks[0], CellType.U8LOG, cells_count, [low.tobytes()]),
            mphm.dense(blocks[1], CellType.U8LOG, cells_count, [high.tobytes()]),
            mphm.per_column(blocks[2], seq),
            mphm.per_column(Block.SRC, src),
            mphm.provenance(b"{}"),
        ],
    )
    return b"".join(packed)
