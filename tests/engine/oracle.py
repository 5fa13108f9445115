"""A plain order book and plain depth frames, written from the specification with dicts and no code of the engine.

Slow on purpose: what it computes is obvious. Used to confirm the engine's frames on recorded and simulated messages.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal

SECOND = 1_000_000_000
Levels = dict[str, Decimal]


@dataclass
class OracleFrame:
    open_ns: int
    samples: int
    reference: float
    bid: dict[int, float]
    ask: dict[int, float]


@dataclass
class Oracle:
    """Feed (recv_ns, json text) in order. `step` in USD; partial: start from the first diff instead of a snapshot."""

    step: Decimal
    tick: Decimal
    prune: Decimal = Decimal("0.12")
    partial: bool = False
    frames: list[OracleFrame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bids: dict[Decimal, Decimal] = {}
        self.asks: dict[Decimal, Decimal] = {}
        self.synced = False
        self.snapshot: dict[str, object] | None = None
        self.last_u = 0
        self.now = 0
        self.slot: int | None = None
        self.samples = 0
        self.sums: tuple[dict[int, float], dict[int, float]] = (defaultdict(float), defaultdict(float))
        self.mid: float | None = None
        self.window: tuple[Decimal, Decimal] | None = None

    def feed(self, messages: Iterable[tuple[int, str]]) -> None:
        for recv_ns, text in messages:
            self.advance(recv_ns)
            data = json.loads(text)
            if "lastUpdateId" in data:
                self.snapshot = data
                continue
            data = data["data"]
            if data.get("e") == "depthUpdate":
                self.on_diff(data)

    def on_diff(self, data: dict[str, object]) -> None:
        u, first, pu = int(str(data["u"])), int(str(data["U"])), int(str(data["pu"]))
        if not self.synced:
            if self.partial:
                self.synced = True
                prices = sorted(Decimal(p) for p, _ in [*data["b"], *data["a"]])  # type: ignore[misc]
                self.centre(prices[len(prices) // 2])
            elif self.snapshot is not None:
                last = int(str(self.snapshot["lastUpdateId"]))
                if u < last:
                    return
                assert first <= last <= u or pu == last, "the snapshot does not bridge"
                bids, asks = self.snapshot["bids"], self.snapshot["asks"]
                self.centre((Decimal(bids[0][0]) + Decimal(asks[0][0])) / 2)  # type: ignore[index]
                self.put(self.bids, bids)
                self.put(self.asks, asks)
                self.synced = True
            else:
                return
        else:
            assert pu == self.last_u, "a gap in the capture"
        self.put(self.bids, data["b"])
        self.put(self.asks, data["a"])
        self.last_u = u
        if self.bids and self.asks and max(self.bids) < min(self.asks):
            self.mid = float((max(self.bids) + min(self.asks)) / 2)

    def centre(self, reference: Decimal) -> None:
        self.window = (reference * (1 - self.prune), reference * (1 + self.prune))

    def put(self, side: dict[Decimal, Decimal], levels: object) -> None:
        assert self.window is not None
        for price_text, qty_text in levels:  # type: ignore[attr-defined]
            price, qty = Decimal(price_text), Decimal(qty_text)
            index = (price / self.tick).quantize(Decimal(1), ROUND_HALF_EVEN)
            low = (self.window[0] / self.tick).quantize(Decimal(1), ROUND_HALF_EVEN)
            high = (self.window[1] / self.tick).quantize(Decimal(1), ROUND_HALF_EVEN)
            if not low <= index <= high:
                continue
            if qty == 0:
                side.pop(price, None)
            else:
                side[price] = qty

    def advance(self, recv_ns: int) -> None:
        """One sample for each full second that is passed; a frame at the end of each 30 s that has samples."""
        if self.now == 0:
            self.now = recv_ns
        for second in range(self.now // SECOND + 1, recv_ns // SECOND + 1):
            self.sample(second)
        self.now = max(self.now, recv_ns)

    def sample(self, second: int) -> None:
        slot = (second - 1) // 30
        if self.slot is not None and slot != self.slot:
            self.close()
        self.slot = slot
        if self.synced:
            self.samples += 1
            for side, total in zip((self.bids, self.asks), self.sums):
                for price, qty in side.items():
                    bucket = int((price / self.step).quantize(Decimal(1), ROUND_HALF_EVEN))
                    total[bucket] += float(price) * float(qty)
        if second % 30 == 0:
            self.close()
            self.slot += 1

    def close(self) -> None:
        if self.samples and self.mid is not None and self.slot is not None:
            bid, ask = ({k: v / self.samples for k, v in total.items()} for total in self.sums)
            self.frames.append(OracleFrame(self.slot * 30 * SECOND, self.samples, self.mid, bid, ask))
        self.samples = 0
        self.sums = (defaultdict(float), defaultdict(float))


def assert_frame_equals(row: dict[str, object], frame: OracleFrame) -> None:
    """A row of `mpengine dump --json` against the oracle, to float16 precision (2**-11 of the cell, 4e-9 of the largest)."""
    assert (row["open_ms"], row["samples"]) == (frame.open_ns // 1_000_000, frame.samples)
    assert row["ref"] == frame.reference
    planes = row["planes"]
    assert isinstance(planes, dict)
    largest = max(*planes["bid"], *planes["ask"])
    assert largest > 0
    for name, wanted in (("bid", frame.bid), ("ask", frame.ask)):
        for index, usd in enumerate(planes[name]):
            expect = wanted.get(int(str(row["origin"])) + index, 0.0)
            assert abs(usd - expect) <= max(expect * 2.0**-11, largest * 4e-9) * 1.0001, (name, index, usd, expect)
