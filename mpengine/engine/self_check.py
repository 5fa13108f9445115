"""Whether an engine is put together right: asked once at its start. Pure."""

from __future__ import annotations

from mpengine.config import Settings
from mpengine.engine.candles import MINUTE_NS
from mpengine.engine.core import SymbolCore
from shm.records import Kind, PositionSide, pack_clock, pack_event


def self_check(symbol: str, settings: Settings) -> None:
    """Whether a core of these settings hands liquidations and minutes to its calibrator (`spec: engine`, section 13).

    A core of its own gets one of each. Raises RuntimeError where one does not arrive: such an engine would never learn, in silence.
    """
    probe, at_ns, price = SymbolCore(symbol, settings), 10 * MINUTE_NS, 1000.0 * settings.symbols[symbol].step
    first = probe._polled[0] if probe._polled else None
    if first is None:
        return  # no venue tells of liquidations
    probe.on_batch(pack_event(Kind.MARK, first, 0, 0, at_ns, at_ns, 1, 0, price, 0.0, 0.0))
    probe.on_batch(pack_event(Kind.LIQUIDATION, first, PositionSide.LONG, 0, at_ns, at_ns, 2, 0, price, 1.0, price))
    probe.on_batch(pack_clock(at_ns + MINUTE_NS))
    found = probe._maps.calibrator.document()
    if (found.total_events, found.records) != (1, 1):
        raise RuntimeError("the calibrator is not wired: liquidations or minutes do not reach it")
