"""Every file name of the system, in one place. Pure: builds paths, touches nothing.

A symbol becomes part of a file name, so only names that passed `check_symbol` get here (settings do that once).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SYMBOL: Final = re.compile(r"[A-Z0-9]{1,20}")


def check_symbol(symbol: str) -> str:
    """The symbol itself. Raises ValueError for anything but 1-20 capital letters and digits: it becomes a file name."""
    if not _SYMBOL.fullmatch(symbol):
        raise ValueError("a symbol must be 1 to 20 capital letters or digits")
    return symbol


@dataclass(frozen=True, slots=True)
class Paths:
    """Files of one instance. `data` survives restarts; `runtime` (tmpfs) carries instance and boot id in its name."""

    data: Path
    runtime: Path

    @property
    def board(self) -> Path:
        return self.runtime / "board"

    @property
    def settings(self) -> Path:
        """The effective settings, written by the supervisor, read by its children."""
        return self.runtime / "settings.json"

    @property
    def children(self) -> Path:
        """What the supervisor knows of its children beyond the words of the board: how they ended, what they said last."""
        return self.runtime / "children.json"

    @property
    def feeds(self) -> Path:
        """Document file of ingest: state of venues and streams."""
        return self.runtime / "feeds.documents"

    def http_counters(self, lane: int) -> Path:
        """What one API worker at a time has counted; a worker takes any lane that is free."""
        return self.runtime / f"http-{lane}.counters"

    @property
    def admin_socket(self) -> Path:
        """Where metrics are read, unless the settings name another place."""
        return self.runtime / "admin.sock"

    @property
    def admin_lock(self) -> Path:
        """Held by the worker that serves the admin listener."""
        return self.runtime / "admin.lock"

    @property
    def rates(self) -> Path:
        """What clients have spent, shared by the API workers; written anew by each pool."""
        return self.runtime / "rates"

    @property
    def keys(self) -> Path:
        """API keys, where `api.keys_file` names no other file."""
        return self.data / "api-keys.json"

    @property
    def instance_lock(self) -> Path:
        return self.data / "supervisor.lock"

    @property
    def captures(self) -> Path:
        return self.data / "captures"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    def events(self, symbol: str) -> Path:
        return self.runtime / f"events-{check_symbol(symbol)}.ring"

    def symbol_dir(self, symbol: str) -> Path:
        return self.data / check_symbol(symbol)

    def depth(self, symbol: str) -> Path:
        return self.symbol_dir(symbol) / "depth.ring"

    def candles(self, symbol: str) -> Path:
        return self.symbol_dir(symbol) / "candles.ring"

    def liquidation(self, symbol: str) -> Path:
        return self.symbol_dir(symbol) / "liquidation.ring"

    def liquidations(self, symbol: str) -> Path:
        return self.symbol_dir(symbol) / "liquidations.ring"

    def documents(self, symbol: str) -> Path:
        return self.symbol_dir(symbol) / "documents"

    def market(self, symbol: str) -> Path:
        """State of the simulator's market."""
        return self.symbol_dir(symbol) / "market.state"

    def checkpoint(self, symbol: str) -> Path:
        return self.symbol_dir(symbol) / "checkpoint"
