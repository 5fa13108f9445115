"""The complete path of a well-known library (cryptofeed) over depth messages: its own message handler, JSON text to applied book.

Runs where that library is installed, which mpengine does not depend on: in this interpreter, or in the one that
MPENGINE_PEER_PYTHON names (a virtual environment with `cryptofeed`). Its rounds lie between ours: both see the same machine::

    python bench/peer.py MESSAGES SNAPSHOT ROUNDS        one JSON line {"seconds": best round, "version": ...}
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PAIR = "BTC-USDT-PERP"


def interpreter() -> str | None:
    """The interpreter that can run the peer; None where none can."""
    named = os.environ.get("MPENGINE_PEER_PYTHON")
    return named or (sys.executable if find_spec("cryptofeed") is not None else None)


def measure(messages: list[bytes], snapshot: bytes, rounds: int) -> dict[str, Any] | None:
    """{"seconds", "version"} of the peer's best round over `messages`, in a process of its own; None where it is not installed."""
    python = interpreter()
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        lines, start = Path(folder) / "messages", Path(folder) / "snapshot"
        lines.write_bytes(b"\n".join(messages))
        start.write_bytes(snapshot)
        command = [python, __file__, str(lines), str(start), str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return dict(json.loads(done.stdout))


def _feed(snapshot: dict[str, Any]) -> Any:
    """The library's own handler object with one synchronised book, made without its start-up calls to the exchange."""
    from decimal import Decimal

    from cryptofeed.defines import L2_BOOK  # type: ignore[import-not-found]
    from cryptofeed.exchanges.binance_futures import BinanceFutures  # type: ignore[import-not-found]
    from cryptofeed.types import OrderBook  # type: ignore[import-not-found]

    async def received(book: Any, receipt_timestamp: float) -> None:
        """A subscriber that does nothing."""

    feed = object.__new__(BinanceFutures)
    feed.requires_authentication, feed.cross_check, feed.max_depth = False, False, 0
    feed.exchange_symbol_to_std_symbol = lambda _symbol: PAIR
    feed.callbacks = {L2_BOOK: [received]}
    sides = ({Decimal(p): Decimal(q) for p, q in snapshot[side]} for side in ("bids", "asks"))
    bids, asks = sides
    feed._l2_book = {PAIR: OrderBook(feed.id, PAIR, max_depth=0, bids=bids, asks=asks)}
    feed.last_update_id = {PAIR: snapshot["lastUpdateId"]}
    return feed


async def _run(feed: Any, messages: list[str]) -> float:
    handle = feed.message_handler
    started = time.perf_counter()
    for message in messages:
        await handle(message, None, 1.0)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print one line."""
    import cryptofeed  # type: ignore[import-not-found]

    messages = Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")
    snapshot = json.loads(Path(sys.argv[2]).read_bytes())
    seconds = []
    for _ in range(int(sys.argv[3])):
        feed = _feed(snapshot)
        seconds.append(asyncio.run(_run(feed, messages)))
        assert feed.last_update_id[PAIR] == json.loads(messages[-1])["data"]["u"], "the peer lost its book"
    print(json.dumps({"seconds": min(seconds), "version": getattr(cryptofeed, "__version__", "?")}))


if __name__ == "__main__":
    main()
