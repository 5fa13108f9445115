"""Depth messages to measure with: of a recording where MPENGINE_CAPTURES names one, else of the synthetic market."""

from __future__ import annotations

import os
from pathlib import Path

from mpengine.ingest.foreign import open_capture

CAPTURES = ("binance_usdm_btcusdt_20230404.gz", "binance_usdm_btcusdt_20230405.gz")


def recorded(kinds: tuple[bytes, ...]) -> tuple[list[bytes], bytes]:
    """(messages that contain one of `kinds`, REST snapshot body) of the BTC capture; empty without one."""
    folder = os.environ.get("MPENGINE_CAPTURES", "")
    paths = [Path(folder) / name for name in CAPTURES]
    if not folder or not all(path.exists() for path in paths):
        return [], b""
    messages, snapshot = [], b""
    for path in paths:
        for line in open_capture(path):
            if line.direction == "rest":
                snapshot = line.payload
            elif line.direction == "in" and any(kind in line.payload for kind in kinds):
                messages.append(line.payload)
    return messages, snapshot


def synthetic(count: int, levels: int = 20) -> tuple[list[bytes], bytes]:
    """Chained diffs of `levels` levels around 100,000 in the wire's exact form, and a snapshot before them."""
    messages = []
    for n in range(count):
        last = 4000 + n * 3000
        half = levels // 2
        bids = ",".join(f'["{99_999.9 - (n * 7 + i * 13) % 900 / 10:.1f}","{(n + i) % 40 / 8:.3f}"]' for i in range(half))
        asks = ",".join(
            f'["{100_000.1 + (n * 11 + i * 17) % 900 / 10:.1f}","{(n * 3 + i) % 40 / 8:.3f}"]' for i in range(levels - half)
        )
        messages.append(
            f'{{"stream":"btcusdt@depth@0ms","data":{{"e":"depthUpdate","E":{1_700_000_000_000 + n * 30},'
            f'"T":{1_700_000_000_000 + n * 30},"s":"BTCUSDT","U":{last - 2000},"u":{last},"pu":{last - 3000},'
            f'"b":[{bids}],"a":[{asks}]}}}}'.encode()
        )
    snapshot = b'{"lastUpdateId":3500,"bids":[["99999.9","5"]],"asks":[["100000.1","5"]]}'
    return messages, snapshot
