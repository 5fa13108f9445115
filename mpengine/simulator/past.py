"""One symbol's past: the synthetic market at full speed through venue wires, venue modules and an engine's core into rings.

    python -m mpengine.simulator.past --settings FILE --symbol BTC --data DIR --from NS

A process per symbol, so that all cores work; `supervisor.history` starts them. Each line on stdin is a time (ns UTC) to run to; on
the way stdout gets the time reached now and then, and -1 when it is there. When stdin ends, everything that a restart needs is
saved: the checkpoint of the core, its files, and the state of the market, from which the live exchange goes on.

Ring, file and log contents come from the code that is live, out of messages as they are on the wire. What history does not need is
thinned out: the market moves once a second, and is told of once in `STRIDE_NS`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from mpengine.config import Settings, decode
from mpengine.engine.liquidation_maps import SaveOut
from mpengine.engine.log_files import LogFiles
from mpengine.engine.log_records import LogOut
from mpengine.engine.storage import Checkpoint, Publisher, config_digest, encode_checkpoint
from mpengine.simulator.loopback import Loopback
from mpengine.simulator.market import SECOND_NS, Market
from mpengine.simulator.process import wires_of
from mpengine.simulator.resume import save
from mpengine.simulator.symbols import specs
from shm.atomic_file import write_atomic
from shm.paths import Paths
from shm.process_shell import run_main

STEP_NS: Final = SECOND_NS
STRIDE_NS: Final = 10 * SECOND_NS
"""Three samples of the books in a depth frame, six prices in a bar: as coarse as the pictures bear."""
THERE: Final = -1
REPORT_NS: Final = 120 * SECOND_NS
LOGS_S: Final = 60.0


def last_told(at_ns: int) -> int:
    """The newest time up to `at_ns` at which a past can end: all that the market did by then has been told."""
    return (at_ns + STEP_NS) // STRIDE_NS * STRIDE_NS - STEP_NS


class Past:
    """The market of one symbol from `start_ns` on. Raises what `Publisher` and `Market` raise."""

    def __init__(self, settings: Settings, symbol: str, data: Path, start_ns: int) -> None:
        self._settings, self._symbol, self._paths = settings, symbol, Paths(data, data)
        market_rng, foreign_rng = np.random.default_rng(settings.simulator.seed).spawn(2)
        self._market = Market(specs(settings), market_rng, start_ns, STEP_NS)
        self._market.keep_only(symbol)
        alone = msgspec.structs.replace(settings, symbols={symbol: settings.symbols[symbol]})
        self._loopback = Loopback(alone, self._market, wires_of(self._market, foreign_rng))
        self._publisher = Publisher(self._paths, symbol, event_clock=True, aside=self._aside)
        self._logs = LogFiles(self._paths.symbol_dir(symbol) / "logs", symbol)

    @property
    def now_ns(self) -> int:
        """Market time."""
        return self._market.now_ns

    def run(self, until_ns: int) -> None:
        """Run to `until_ns` and publish what came of it."""
        self._loopback.run_coarsely(until_ns, STRIDE_NS)
        outputs = self._loopback.outputs[self._symbol]
        self._publisher.publish(outputs)
        outputs.clear()

    def finish(self) -> None:
        """Save what an engine and an exchange go on from, give the locks of the rings up."""
        core, name = self._loopback.cores[self._symbol], self._symbol
        for file in core.files():
            write_atomic(self._paths.symbol_dir(name) / file.file, file.encoded())
        # Of no event ring: the engine takes its state and goes on with a gap, as after any restart with a new ring.
        checkpoint = Checkpoint(
            symbol=name, config_digest=config_digest(self._settings, name), ring_uuid=0, position=0, sources={},
            state=core.state_of(),
        )  # fmt: skip
        write_atomic(self._paths.checkpoint(name), encode_checkpoint(checkpoint))
        save(self._paths, self._market)
        self._publisher.close()
        self._logs.stop(LOGS_S)

    def _aside(self, output: LogOut | SaveOut) -> None:
        if isinstance(output, LogOut):
            self._logs.write_all((output,))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run to each time that stdin names, save at its end."""
    parser = argparse.ArgumentParser(prog="mpengine.simulator.past")
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--symbol", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--from", dest="start_ns", type=int, required=True)
    options = parser.parse_args(arguments)
    past = Past(decode(options.settings.read_bytes()), options.symbol, options.data, options.start_ns)
    for line in sys.stdin:
        target_ns = last_told(int(line))
        while past.now_ns < target_ns:
            past.run(min(target_ns, past.now_ns + REPORT_NS))
            _report(past.now_ns)
        _report(THERE)
    past.finish()
    return 0


def _report(at_ns: int) -> None:
    sys.stdout.write(f"{at_ns}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run_main(main)
