"""The market's state on disk, a file per symbol beside its rings: what an exchange that is started again goes on from. A shell."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from mpengine.simulator.market import Market, MarketState
from shm.atomic_file import write_atomic
from shm.paths import Paths

_decoder: Final = msgspec.msgpack.Decoder(MarketState)

log = logging.getLogger("mpengine.simulator")


def save(paths: Paths, market: Market) -> None:
    """Write the state of every symbol of `market`. Raises OSError."""
    for name, symbol in market.symbols.items():
        write_atomic(paths.market(name), msgspec.msgpack.encode(symbol.state_of()))


def saved(paths: Paths, market: Market) -> list[MarketState]:
    """States that were saved for symbols of `market`; one that cannot be read or is not the symbol's is left out and logged."""
    found = []
    for name, symbol in market.symbols.items():
        try:
            state = _decoder.decode(paths.market(name).read_bytes())
            symbol.check(state)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            log.warning("%s: the saved market is left aside: %s", name, error)
        else:
            found.append(state)
    return found
