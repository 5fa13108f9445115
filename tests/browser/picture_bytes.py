"""Answers of `/heatmap` as bytes for tests of the picture: few parameters, everything else fixed and lawful."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from mpengine.mphm import POINT, Block, Form, Header, Packed, Pool, dense, encode, per_column, provenance, realised, sparse
from mpengine.wire_formats import CellType

T0: Final = 1_795_167_600_000
MINUTE: Final = 60_000
PLANES: Final = {
    "liq": (Block.LIQ_LONG, Block.LIQ_SHORT, Block.LIQ_SEQ),
    "tape": (Block.TAPE_LONG, Block.TAPE_SHORT, Block.LIQ_SEQ),
    "projected": (Block.PROJECTED_LONG, Block.PROJECTED_SHORT, Block.LIQ_SEQ),
    "depth": (Block.DEPTH_BID, Block.DEPTH_ASK, Block.DEPTH_SEQ),
}
PROVENANCE: Final = {"symbol": "BTC", "model": "m/1", "estimated": True, "config_hash": "c", "assumptions": None, "coverage": {}}

Cells = npt.NDArray[np.uint8]
Pair = tuple[Cells, Cells]


def header(cols: int, rows: int, **changes: Any) -> Header:
    """A lawful one of `cols` minutes and `rows` rows of 20 USD around 66,000."""
    values: dict[str, Any] = {
        "cell": CellType.U8LOG, "form": Form.DENSE, "pool": Pool.MAX, "flags": 5, "t0_ms": T0, "dt_ms": MINUTE, "cols": cols,
        "price0": 20.0 * (3300 - rows // 2), "step": 20.0, "rows": rows, "k": 1, "epoch": 7, "liq_seq": 900, "depth_seq": None,
        "realised_seq": 40, "lo_usd": 100.0, "hi_usd": 1e9,
    }  # fmt: skip
    return Header(**{**values, **changes})


def blocks(
    head: Header, layers: Mapping[str, Pair], missing: Sequence[int] = (), points: Sequence[tuple[Any, ...]] = (), src: Any = None
) -> list[Packed]:
    """Blocks of an answer. `layers`: name -> (first, second) uint8[cols, rows]; `missing`: columns without a frame."""
    found: list[Packed] = []
    numbers = np.arange(head.cols, dtype=np.int64) + 100
    numbers[list(missing)] = -1
    for name, pair in layers.items():
        for block, cells in zip(PLANES[name][:2], pair):
            flat = np.ascontiguousarray(cells).reshape(-1)
            if head.form is Form.SPARSE:
                indices = np.flatnonzero(flat)
                found.append(sparse(block, CellType.U8LOG, indices, flat[indices]))
            else:
                found.append(dense(block, CellType.U8LOG, flat.size, [flat.tobytes()]))
    found += [per_column(block, numbers) for block in sorted({PLANES[name][2] for name in layers})]
    prices = np.full(head.cols, 66_000.0) if src is None else np.asarray(src, np.float64)
    found += [realised(np.array(list(points), POINT)), per_column(Block.SRC, prices), provenance(msgspec.json.encode(PROVENANCE))]
    return found


def answer(head: Header, layers: Mapping[str, Pair], **more: Any) -> bytes:
    """The bytes of an answer."""
    return b"".join(encode(head, blocks(head, layers, **more)))


def random_pair(seed: int, cols: int, rows: int, filled: float = 0.3) -> Pair:
    """Cells of which a part `filled` holds something; no cell has both sides."""
    draw = np.random.default_rng(seed)
    cells = draw.integers(1, 256, (2, cols, rows)).astype(np.uint8) * (draw.random((2, cols, rows)) < filled)
    cells[1][cells[0] > 0] = 0
    return cells[0].astype(np.uint8), cells[1].astype(np.uint8)


def text(data: bytes) -> str:
    """Bytes for `Uint8Array.from(atob(…))` in a page."""
    return base64.b64encode(data).decode()
