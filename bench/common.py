"""What every bench prints alike: the machine, a table of rows, and the same rows as JSON for scripts."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

Row = dict[str, Any]


def machine() -> str:
    """One line about where this ran; numbers without it mean nothing."""
    cores = len(os.sched_getaffinity(0))
    versions = f"Python {platform.python_version()}, numpy {np.__version__}"
    return f"{versions}, {platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}"


def report(title: str, rows: Sequence[Row], note: str = "") -> None:
    """Print rows as a table; every row has the keys of the first one."""
    print(f"\n{title}\n{machine()}")
    texts = [[_text(row[key]) for key in rows[0]] for row in rows]
    widths = [max(map(len, column)) for column in zip(rows[0], *texts)]
    for cells in (list(rows[0]), *texts):
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip())
    if note:
        print(note)


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:,.3g}" if isinstance(value, float) else str(value)


def best_of(rounds: int, work: Callable[[], None]) -> float:
    """Seconds of the fastest of `rounds` runs: the one that others disturbed least."""
    best = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def main(run: Callable[[bool], list[Row]], prog: str) -> None:
    """Command line of a bench that is run alone."""
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes; noisier")
    parser.add_argument("--json", action="store_true", help="one JSON object behind the table")
    options = parser.parse_args()
    rows = run(options.quick)
    if options.json:
        sys.stdout.write(msgspec.json.encode({"bench": prog, "machine": machine(), "results": rows}).decode() + "\n")
