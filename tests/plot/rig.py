"""Markets that pictures are made of: answers as the API gives them, without a server."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec
import numpy as np

from mpengine import mphm
from mpengine.cells import HI_USD, LO_USD, u8log
from mpengine.contract import Candles, Zone
from mpengine.mphm import Block, Form, Header, Heatmap, Pool
from mpengine.plot.scene import BLOCKS, Ask, HeatName
from mpengine.wire_formats import CellType

T0_MS: Final = 1_795_200_000_000 - 12 * 3_600_000
MINUTE_MS: Final = 60_000

PROVENANCE: Final[dict[str, Any]] = {
    "symbol": "BTC", "model": "oi-taker-ladder/1", "estimated": True, "config_hash": "9f2c81d04b7e6a35", "assumptions": None,
    "coverage": {
        "venues": {
            "binance": {"liquidations": "largest_1s", "depth": True, "oi": True, "state": "LIVE", "last_ms": 1},
            "bybit": {"liquidations": "all_500ms", "depth": False, "oi": True, "state": None, "last_ms": None},
            "okx": {"liquidations": "partial", "depth": False, "oi": False, "state": "DOWN", "last_ms": None},
            "hyperliquid": {"liquidations": "none", "depth": False, "oi": False, "state": None, "last_ms": None},
        },
        "flags": ["gap", "stale_source"], "data_since_ms": T0_MS - 90 * MINUTE_MS, "book_synced_since_ms": None,
        "far_depth": "partial",
    },
}  # fmt: skip


def ask(layers: tuple[HeatName, ...] = ("liq",), **values: Any) -> Ask:
    """What the command makes of its defaults."""
    plain: dict[str, Any] = {
        "symbol": "BTC", "realised": True, "palette": "viridis", "lo_usd": None, "hi_usd": None, "zones": True, "ended": False,
    }  # fmt: skip
    return Ask(layers=layers, **{**plain, **values})


def heatmap(
    planes: dict[HeatName, Any],
    *,
    missing: dict[str, list[int]] | None = None,
    points: list[tuple[int, int, int, float]] = (),  # type: ignore[assignment]
    price0: float = 59_300.0,
    step: float = 20.0,
    src: Any = None,
    t0_ms: int = T0_MS,
    dt_ms: int = MINUTE_MS,
    provenance: dict[str, Any] | None = None,
) -> Heatmap:
    """An answer in binary form, unpacked. `planes`: float[2, cols, rows] USD per layer; `points`: col, row, side, USD."""
    cols, rows = next(iter(planes.values())).shape[1:]
    header = Header(
        cell=CellType.U8LOG, form=Form.DENSE, pool=Pool.MAX, flags=0, t0_ms=t0_ms, dt_ms=dt_ms, cols=cols, price0=price0, step=step,
        rows=rows, k=1, epoch=7, liq_seq=1, depth_seq=1, realised_seq=1, lo_usd=LO_USD, hi_usd=HI_USD,
    )  # fmt: skip
    blocks = []
    for name, usd in planes.items():
        for block, side in zip(BLOCKS[name], usd):
            blocks.append(mphm.dense(block, CellType.U8LOG, cols * rows, [u8log(np.asarray(side, np.float64)).tobytes()]))
    for name, block in (("liq", Block.LIQ_SEQ), ("depth", Block.DEPTH_SEQ)):
        numbers = np.arange(cols, dtype=np.int64)
        numbers[(missing or {}).get(name, [])] = -1
        blocks.append(mphm.per_column(block, numbers))
    made = np.array([(col, row, side, 1, 1, usd, usd) for col, row, side, usd in points], mphm.POINT)
    blocks.append(mphm.realised(made))
    prices = np.full(cols, price0 + (rows // 2) * step) if src is None else np.asarray(src, np.float64)
    blocks.append(mphm.per_column(Block.SRC, prices))
    blocks.append(mphm.provenance(msgspec.json.encode(provenance or PROVENANCE)))
    return mphm.decode(b"".join(mphm.encode(header, blocks)))


def candles(prices: Any, t0_ms: int = T0_MS, spread: float = 15.0) -> Candles:
    """Minute bars of a path of prices."""
    path = np.asarray(prices, np.float64)
    opens = np.concatenate(([path[0]], path[:-1]))
    count = len(path)
    nothing: list[Any] = [None] * count
    return Candles(
        symbol="BTC", interval_ms=MINUTE_MS, t=[t0_ms + n * MINUTE_MS for n in range(count)], o=opens.tolist(),
        h=(np.maximum(opens, path) + spread).tolist(), l=(np.minimum(opens, path) - spread).tolist(), c=path.tolist(), mark=nothing,
        buy_usd=[1.0] * count, sell_usd=[1.0] * count, buy_count=[1] * count, sell_count=[1] * count, oi_base=nothing,
        oi_delta_base=nothing, funding_rate=nothing, liq_long_usd=[0.0] * count, liq_short_usd=[0.0] * count, liq_count=[0] * count,
        flags=[0] * count, count=count, seq=1, epoch=1, age_s=1.0, stale=False,
    )  # fmt: skip


def zone(price: float, side: Any, weight: float = 1.0, usd: float = 2.4e6) -> Zone:
    """A zone of the projection."""
    return Zone(
        price=price, side=side, weight=weight, created_at=T0_MS, last_reinforced_at=T0_MS, reinforcement_count=1,
        source="inference", tier_contributions={"25": weight}, id=f"{side}{price}", notional_usd=usd, tape_usd=0.0,
        projected_usd=usd, age_min=10, dominant_leverage=25,
    )  # fmt: skip


def market(cols: int = 720, seed: int = 3) -> dict[str, Any]:
    """A market that wanders: prices, a map with the levels of four tiers, a book, liquidations where levels were crossed."""
    rng = np.random.default_rng(seed)
    prices = 65_800.0 * np.exp(np.cumsum(rng.normal(0.0, 0.0007, cols)))
    rows, price0, step = 660, 59_300.0, 20.0
    grid = price0 + step * np.arange(rows)
    state = np.zeros((2, rows))
    levels, book = np.zeros((2, cols, rows)), np.zeros((2, cols, rows))
    points = []
    for col, price in enumerate(prices):
        state *= 0.995
        for side, crossed in ((0, grid >= price - 15.0), (1, grid <= price + 15.0)):
            hit = crossed & (state[side] > 3e4)
            points += [(col, int(row), side, float(state[side, row] * 0.02)) for row in np.flatnonzero(hit)[:1]]
            state[side, crossed] *= 0.3
        opened = rng.exponential(3e6) * (rng.random() < 0.5)
        share = rng.uniform(0.2, 0.8)
        for leverage, weight in ((20, 0.275), (25, 0.214), (50, 0.107), (100, 0.024)):
            for side, sign, part in ((0, -1, share), (1, 1, 1 - share)):
                level = price * (1 + sign / leverage) / (1 + sign * 0.004)
                row = round((level - price0) / step)
                if 0 <= row < rows:
                    state[side, row] += opened * part * weight
        levels[:, col] = np.where(state >= 100.0, state, 0.0)
        distance = np.abs(grid - price) / price
        depth = 4e6 * np.exp(-distance * 60) * rng.gamma(2.0, 0.5, rows) * (1 + 8 * (np.arange(rows) % 50 == 0))
        book[0, col] = np.where(grid < price, depth, 0.0)
        book[1, col] = np.where(grid >= price, depth, 0.0)
    zones = [zone(62_900.0, "long", 3.0, 8.2e6), zone(63_020.0, "long", 2.0, 5.1e6), zone(68_300.0, "short", 2.5, 6.6e6)]
    zones += [zone(64_300.0, "long", 1.0), zone(67_100.0, "short", 0.9), zone(math.floor(prices[-1]) + 420.0, "short", 0.4, 9e5)]
    return {"prices": prices, "liq": levels, "depth": book, "points": points, "zones": zones}
