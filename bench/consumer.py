"""The reading half of `bench.wire`: an event ring to the applied book, in a process of its own.

python -m bench.consumer RING MESSAGES < snapshot line      prints `ready`, then how many diffs it applied
"""

from __future__ import annotations

import sys
from pathlib import Path

from mpengine import venues
from mpengine.config import load
from mpengine.engine.core import SymbolCore
from mpengine.venues.base import RestCall
from shm.event_ring import EventReader

RECV_NS = 1_700_000_000 * 10**9


def main() -> None:
    """Read until so many diffs are applied."""
    settings = load("", {})
    module = venues.build(settings)[0]
    core = SymbolCore("BTC", settings)
    module.receive_rest(RestCall("depth", "BTC", "", 20), 200, sys.stdin.readline().encode(), RECV_NS)
    for routed in module.events():
        core.on_batch(routed.data)
    (book,) = core.books.values()
    wanted = int(sys.argv[2])
    reader = EventReader.open(Path(sys.argv[1]))
    print("ready", flush=True)
    while book.counters["applied"] < wanted and book.state != "unsynced":
        batch = reader.get()
        if batch is not None:
            core.on_batch(batch.body)
            reader.release(batch.end)
    print(book.counters["applied"], flush=True)
    reader.close()


if __name__ == "__main__":
    main()
