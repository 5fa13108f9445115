"""Frame payload: the 128-byte frame header and its float16 planes (`spec: shared-memory`, section 4). Pure.

Planes hold USD / unit_usd as little-endian float16. `unit_usd` is the power of two that puts the largest cell of all planes into
[16384, 32768), 1.0 for an all-zero frame: nothing overflows, relative error <= 2**-11 down to about 4e-9 of the largest cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shm.records import FRAME_HEADER_DTYPE, Coverage, FrameKind

FRAME_SCHEMA: Final = 1
CELL_FLOAT16: Final = 1
MAX_BUCKETS: Final = 2000
HEADER_BYTES: Final = FRAME_HEADER_DTYPE.itemsize
PLANES: Final = {FrameKind.DEPTH: ("bid", "ask"),
                 FrameKind.LIQUIDATION: ("tape_long", "tape_short", "projected_long", "projected_short")}  # fmt: skip

Plane = npt.NDArray[np.float64]


class FrameRefused(ValueError):
    """The writer was handed a frame that must not be published; the text names the field."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame in USD. `planes` is float64[plane, bucket], order as in `PLANES[kind]`; bucket i has price (origin + i) * step.

    norm_a, norm_b: depth p50, p95 of positive cells; liquidation p99 of tape, of projected. total_a: bid or long, total_b: ask or
    short, USD. `venue_ts_ns`: newest venue time used. `samples`: samples averaged (depth) or events used (liquidation).
    """

    kind: FrameKind
    open_ts_ns: int
    close_ts_ns: int
    venue_ts_ns: int
    reference: float
    origin: int
    step: float
    norm_a: float
    norm_b: float
    total_a: float
    total_b: float
    coverage: Coverage
    venues: int
    samples: int
    planes: Plane
    open_interest: float = 0.0
    tape_share: float = 0.0
    unit_usd: float = 1.0

    @property
    def count(self) -> int:
        """Buckets per plane."""
        return int(self.planes.shape[1])


def unit_for(largest: float) -> float:
    """Power of two that puts `largest` (USD, >= 0) into [16384, 32768); 1.0 for 0."""
    if largest == 0.0:
        return 1.0
    return math.ldexp(1.0, math.frexp(largest)[1] - 15)


def encode(frame: Frame) -> bytes:
    """Payload of a slot. Raises FrameRefused: non-finite or negative content, no or too many buckets, bad step or times."""
    _check(frame)
    unit = unit_for(float(frame.planes.max(initial=0.0)))
    header = np.zeros((), FRAME_HEADER_DTYPE)
    header["schema"], header["kind"], header["cell"] = FRAME_SCHEMA, frame.kind, CELL_FLOAT16
    header["planes"], header["count"] = frame.planes.shape
    for name in ("open_ts_ns", "close_ts_ns", "venue_ts_ns", "reference", "origin", "step", "norm_a", "norm_b", "total_a",
                 "total_b", "open_interest", "tape_share", "coverage", "venues", "samples"):  # fmt: skip
        header[name] = getattr(frame, name)
    header["unit_usd"] = unit
    cells = np.zeros((frame.planes.shape[0], MAX_BUCKETS), "<f2")
    cells[:, : frame.count] = frame.planes / unit
    return header.tobytes() + cells.tobytes()


def _check(frame: Frame) -> None:
    planes, buckets = frame.planes.shape
    if planes != len(PLANES[frame.kind]):
        raise FrameRefused(f"planes must be {len(PLANES[frame.kind])}, was {planes}")
    if not 1 <= buckets <= MAX_BUCKETS:
        raise FrameRefused(f"count must be 1 to {MAX_BUCKETS}, was {buckets}")
    for name in ("reference", "step", "norm_a", "norm_b", "total_a", "total_b", "open_interest", "tape_share"):
        if not math.isfinite(getattr(frame, name)):
            raise FrameRefused(f"{name} must be finite")
    if frame.step <= 0 or frame.reference <= 0:
        raise FrameRefused("step and reference must be above 0")
    if frame.close_ts_ns < frame.open_ts_ns:
        raise FrameRefused("close must not be before open")
    if not np.isfinite(frame.planes).all() or frame.planes.min(initial=0.0) < 0:
        raise FrameRefused("cells must be finite and not negative")


def decode(payload: bytes) -> Frame:
    """Frame of a verified payload, planes back in USD. Raises ValueError for another schema, cell type or a short payload."""
    if len(payload) < HEADER_BYTES:
        raise ValueError(f"frame payload must be at least {HEADER_BYTES} bytes, was {len(payload)}")
    header = np.frombuffer(payload, FRAME_HEADER_DTYPE, count=1)[0]
    if header["schema"] != FRAME_SCHEMA or header["cell"] != CELL_FLOAT16:
        raise ValueError(f"frame schema {header['schema']} cell {header['cell']} is not known here")
    planes, count = int(header["planes"]), int(header["count"])
    if not 1 <= count <= MAX_BUCKETS or len(payload) < HEADER_BYTES + planes * MAX_BUCKETS * 2:
        raise ValueError(f"frame of {planes} planes with {count} buckets does not fit {len(payload)} bytes")
    cells = np.frombuffer(payload, "<f2", count=planes * MAX_BUCKETS, offset=HEADER_BYTES)
    usd = cells.reshape(planes, MAX_BUCKETS)[:, :count].astype(np.float64) * float(header["unit_usd"])
    return Frame(
        kind=FrameKind(int(header["kind"])),
        open_ts_ns=int(header["open_ts_ns"]),
        close_ts_ns=int(header["close_ts_ns"]),
        venue_ts_ns=int(header["venue_ts_ns"]),
        reference=float(header["reference"]),
        origin=int(header["origin"]),
        step=float(header["step"]),
        norm_a=float(header["norm_a"]),
        norm_b=float(header["norm_b"]),
        total_a=float(header["total_a"]),
        total_b=float(header["total_b"]),
        coverage=Coverage(int(header["coverage"])),
        venues=int(header["venues"]),
        samples=int(header["samples"]),
        planes=usd,
        open_interest=float(header["open_interest"]),
        tape_share=float(header["tape_share"]),
        unit_usd=float(header["unit_usd"]),
    )
