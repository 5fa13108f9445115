"""The simulator as a process: under the supervisor, or alone for tests and demos.

    python -m mpengine.simulator.process --settings FILE --row N
    python -m mpengine.simulator.process --port 0 --symbol BTC:100000 --symbol DOGE:0.2 --seed 7 --speed 2
    python -m mpengine.simulator.process --port 0 --capture one.gz two.gz --speed 10 --stamps

Alone it prints one JSON line {"port": N} on stdout as soon as it listens, and ends with SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import uvloop

from mpengine.config import Settings, decode
from mpengine.ingest.capture_file import CaptureError
from mpengine.simulator.binance_wire import BinanceWire
from mpengine.simulator.bybit_wire import BybitWire
from mpengine.simulator.faults import FaultTable
from mpengine.simulator.hyperliquid_wire import HyperliquidWire
from mpengine.simulator.market import Market, MarketState, SymbolSpec
from mpengine.simulator.okx_wire import OkxWire
from mpengine.simulator.playback import CaptureSource
from mpengine.simulator.resume import save, saved
from mpengine.simulator.server import MarketSource, SimulatorServer
from mpengine.simulator.symbols import spec, specs
from mpengine.simulator.wire import VenueWire
from shm.board_words import Role, Word
from shm.paths import Paths
from shm.process_shell import BootFailure, ProcessShell, run_main

BEAT_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    host: str
    port: int
    seed: int
    speed: float
    symbols: list[SymbolSpec]
    announce: bool
    life_s: float | None = None
    captures: tuple[Path, ...] = ()
    stamps: bool = False
    close_at_end: bool = False
    saved: Paths | None = None


def build(plan: Plan, start_ns: int) -> SimulatorServer:
    """The server of a plan, not listening yet. Raises ValueError for symbols that make no market, CaptureError, OSError."""
    market_rng, foreign_rng, fault_rng = np.random.default_rng(plan.seed).spawn(3)
    faults = FaultTable(fault_rng)
    if plan.captures:
        names = {(venue, name): one.symbol for one in plan.symbols for venue, name in one.names.items()}
        source = CaptureSource(
            plan.captures, speed=plan.speed, stamps=plan.stamps, close_at_end=plan.close_at_end, names=names
        )  # fmt: skip
        return SimulatorServer(list(source.venues.values()), source, faults, life_s=plan.life_s)
    market = Market(plan.symbols, market_rng, start_ns)
    if plan.saved is not None and (states := saved(plan.saved, market)):
        market = _resumed(plan, states, start_ns)
    wires = wires_of(market, foreign_rng)
    return SimulatorServer(wires, MarketSource(market, plan.speed), faults, market=market, life_s=plan.life_s)


def _resumed(plan: Plan, states: list[MarketState], start_ns: int) -> Market:
    """The market that was saved. Its chance follows from the seed and from how long it has lived, so no move comes twice."""
    lived = np.random.default_rng([plan.seed, max(state.now_ns for state in states)])
    market = Market(plan.symbols, lived, start_ns)
    market.restore(states)
    market.skip(start_ns)
    return market


def wires_of(market: Market, rng: np.random.Generator) -> list[VenueWire]:
    """Every venue that a symbol of the market has a name at; Binance always. `rng`: for what is not the market's own."""
    named = {name for symbol in market.symbols.values() for name in symbol.spec.names}
    return [BinanceWire(market, rng), *(kind(market, rng) for kind in (BybitWire, OkxWire, HyperliquidWire) if kind.name in named)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a stop signal. Raises BootFailure: port taken, address not loopback, unusable symbols."""
    options = _parser().parse_args(arguments)
    settings = decode(options.settings.read_bytes()) if options.settings is not None else None
    board = settings.paths.board if settings is not None and options.row is not None else None
    level = settings.log.level if settings is not None else "WARNING"
    shell = ProcessShell("simulator", Role.SIMULATOR, board=board, row=options.row, log_level=level)
    try:
        plan = _plan_of(settings) if settings is not None else _plan_alone(options)
        uvloop.run(_serve(plan, shell))
    except (OSError, ValueError, CaptureError) as error:
        raise BootFailure(str(error)) from error
    shell.close()
    return 0


async def _serve(plan: Plan, shell: ProcessShell) -> None:
    server = build(plan, time.time_ns())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_stop() -> None:
        loop.call_soon_threadsafe(stop.set)

    shell.install_signals(on_stop)
    port = await server.start(plan.host, plan.port)
    try:
        if plan.announce:
            sys.stdout.write(json.dumps({"port": port}) + "\n")
            sys.stdout.flush()
        shell.live()
        playing = asyncio.create_task(server.wait())
        while not stop.is_set() and not (playing.done() and playing.exception()):
            shell.row.set(Word.MESSAGES, server.delivered)
            shell.beat(progress=server.delivered + server.requests)
            try:
                await asyncio.wait_for(stop.wait(), BEAT_S)
            except TimeoutError:
                pass
        if playing.done():
            playing.result()
        playing.cancel()
        _save(plan.saved, server.market)  # before the sockets are closed, which may take longer than the supervisor waits
    finally:
        await server.stop()


def _save(paths: Paths | None, market: Market | None) -> None:
    """Keep the market for the next start, where a past was built: a directory without one stays as it is."""
    if paths is not None and market is not None and all(paths.market(name).exists() for name in market.symbols):
        save(paths, market)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mpengine.simulator", description="A local exchange that speaks the venues' protocols.")
    parser.add_argument("--settings", type=Path, help="settings file written by the supervisor")
    parser.add_argument("--row", type=int, help="row of this process on the board")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=8898, help="0: a free one")
    parser.add_argument("--symbol", action="append", metavar="NAME[:PRICE]", help="may be repeated; default BTC, ETH, SOL")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", type=float, default=1.0, help="market time runs this much faster than the clock")
    parser.add_argument("--life", type=float, metavar="SECONDS", help="cut every socket at this age, as the real one does at 24 h")
    parser.add_argument("--capture", type=Path, nargs="+", default=[], metavar="FILE", help="serve these recordings, no market")
    parser.add_argument("--stamps", action="store_true", help="captures: add receive time and line to every message")
    parser.add_argument("--close-at-end", action="store_true", help="captures: close the sockets after the last line")
    return parser


def _plan_of(settings: Settings) -> Plan:
    own = settings.simulator
    captures = tuple(Path(path) for path in own.captures)
    return Plan(
        own.host, own.port, own.seed, own.speed, specs(settings), announce=False, captures=captures, stamps=own.stamps,
        saved=settings.paths,
    )  # fmt: skip


def _plan_alone(options: argparse.Namespace) -> Plan:
    symbols = []
    for text in options.symbol or ["BTC", "ETH", "SOL"]:
        name, _, price = text.partition(":")
        symbols.append(spec(name, price=float(price) if price else None))
    if not options.speed > 0:
        raise ValueError(f"speed must be positive, was {options.speed}")
    return Plan(
        options.host, options.port, options.seed, options.speed, symbols, announce=True, life_s=options.life,
        captures=tuple(options.capture), stamps=options.stamps, close_at_end=options.close_at_end,
    )  # fmt: skip


if __name__ == "__main__":
    run_main(main)
