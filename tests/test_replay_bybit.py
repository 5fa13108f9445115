"""Replay of the recorded Bybit session: no gap in any sequence, and books that equal a plain-dict oracle's at many points."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mpengine.config import Settings, load
from mpengine.ingest.foreign import open_capture
from mpengine.replay import Replay
from shm.records import Venue

CAPTURE = "bybit_linear_20260809.jsonl.zst"
SYMBOLS = {"BTC": "BTCUSDT", "ETH": "ETHUSDT", "SOL": "SOLUSDT"}
EVERY = 25

Side = dict[float, float]


def settings() -> Settings:
    wanted = ("order_book", "trades", "tickers")
    return load("", {}, [f"venues.bybit.{name}=true" for name in wanted])


class Oracle:
    """Books as the exchange documents them: a snapshot replaces, a delta must follow `u`, "0" deletes."""

    def __init__(self) -> None:
        self.books: dict[str, tuple[Side, Side]] = {}
        self.updates: dict[str, int] = {}
        self.deltas = 0

    def feed(self, payload: bytes) -> str | None:
        """The symbol whose book the message changed."""
        message: dict[str, Any] = json.loads(payload)
        if not str(message.get("topic", "")).startswith("orderbook."):
            return None
        data, name = message["data"], message["data"]["s"]
        if message["type"] == "snapshot":
            self.books[name] = ({}, {})
        else:
            assert data["u"] == self.updates[name] + 1, "a gap in the recording"
            self.deltas += 1
        self.updates[name] = data["u"]
        for side, rows in zip(self.books[name], (data["b"], data["a"]), strict=True):
            for price, qty in rows:
                if float(qty) == 0.0:
                    side.pop(float(price), None)
                else:
                    side[float(price)] = float(qty)
        return str(name)


@pytest.mark.captures
def test_the_recorded_session_has_no_gap_and_the_oracles_books(captures: Path, tmp_path: Path) -> None:
    replay, oracle, compared = Replay(settings(), list(SYMBOLS), tmp_path), Oracle(), dict.fromkeys(SYMBOLS, 0)
    ours = {theirs: symbol for symbol, theirs in SYMBOLS.items()}
    for number, line in enumerate(open_capture(captures / CAPTURE)):
        replay.feed(line)
        if line.venue != "bybit" or line.direction != "in":
            continue
        symbol = ours.get(oracle.feed(line.payload) or "")
        if symbol is not None and number % EVERY == 0:
            replay.flush()
            book = replay.core(symbol).books[Venue.BYBIT]
            assert book.state == "synced" and book.ladder is not None
            bids, asks = book.ladder.levels()
            tick = book.tick
            for found, wanted in zip((bids, asks), oracle.books[SYMBOLS[symbol]], strict=True):
                assert {round(price / tick): qty for price, qty in found} == {round(p / tick): q for p, q in wanted.items()}
            compared[symbol] += 1
    summary = replay.finish(1.0)
    assert min(compared.values()) >= 10
    assert (summary.gaps, summary.resyncs) == (0, 0)
    assert summary.refused == 0 or set(summary.refusals) <= {"unknown_stream", "foreign_symbol"}, "other symbols' and candle topics"
    for name, figures in summary.symbols.items():
        assert (figures["books"]["bybit"], figures["gaps"]["bybit"], figures["resyncs"]["bybit"]) == ("synced", 0, 0), name


@pytest.mark.captures
def test_the_recorded_session_gives_the_same_states_twice(captures: Path, tmp_path: Path) -> None:
    states = []
    for number in range(2):
        replay = Replay(settings(), list(SYMBOLS), tmp_path / str(number))
        for line in open_capture(captures / CAPTURE):
            replay.feed(line)
        states.append({name: figures["state"] for name, figures in replay.finish(1.0).symbols.items()})
    assert states[0] == states[1]
